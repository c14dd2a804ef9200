//! Answers requests: `/metrics`, `/healthz`, or an error.

use std::sync::{Arc, Mutex, PoisonError, Weak};
use std::time::{Duration, Instant};

use http_body_util::Full;
use hyper::body::Bytes;
use hyper::header::{ACCEPT, ALLOW, CONTENT_TYPE, HeaderValue, WWW_AUTHENTICATE};
use hyper::{HeaderMap, Method, Response, StatusCode};
use prometheus_client::registry::Registry;

use super::Health;
use crate::output::Timestamp;
use crate::output::metrics::{Created, openmetrics, text_format};

const OPENMETRICS: &str = "application/openmetrics-text; version=1.0.0; charset=utf-8";
const TEXT_FORMAT: &str = "text/plain; version=0.0.4; charset=utf-8";
const PLAIN: &str = "text/plain; charset=utf-8";

/// How long all requests get the same text, so that a flood of requests doesn't make us write it each time.
const SHARED_FOR: Duration = Duration::from_millis(500);

/// How many texts there may be, with those that peers don't read: each may have a MiB where many executables crash.
const TEXTS_MAX: usize = 8;

/// A text that connections share.
struct Text(Arc<String>);

impl AsRef<[u8]> for Text {
    fn as_ref(&self) -> &[u8] {
        self.0.as_bytes()
    }
}

/// The texts that are held, here or by a connection that writes them.
#[derive(Default)]
struct Texts {
    /// The last ones, and when they were made: the older format, and OpenMetrics.
    last: [Option<(Instant, Bytes)>; 2],
    held: Vec<Weak<String>>,
}

impl Texts {
    /// The last text, if it will do: it is new, or peers hold so many older ones that there is no room for another.
    fn last(&mut self, is_open: bool) -> Option<Bytes> {
        self.held.retain(|text| text.strong_count() > 0);
        let (made, text) = self.last[usize::from(is_open)].as_ref()?;
        (made.elapsed() < SHARED_FOR || self.held.len() >= TEXTS_MAX).then(|| text.clone())
    }

    fn add(&mut self, is_open: bool, text: String) -> Bytes {
        let text = Arc::new(text);
        self.held.push(Arc::downgrade(&text));
        let text = Bytes::from_owner(Text(text));
        self.last[usize::from(is_open)] = Some((Instant::now(), text.clone()));
        text
    }
}

/// The sources of the answers.
pub(super) struct Source {
    registry: Arc<Mutex<Registry>>,
    health: Health,
    texts: Mutex<Texts>,
    created: Mutex<Created>,
}

impl Source {
    pub(super) fn new(registry: Arc<Mutex<Registry>>, health: Health) -> Self {
        Self { registry, health, texts: Mutex::default(), created: Mutex::new(Created::new(now())) }
    }

    /// Answers a request of a client that is let in.
    pub(super) fn answer(&self, method: &Method, path: &str, headers: &HeaderMap) -> Response<Full<Bytes>> {
        if !matches!(*method, Method::GET | Method::HEAD) {
            let mut response = plain(StatusCode::METHOD_NOT_ALLOWED, "only GET and HEAD\n");
            response.headers_mut().insert(ALLOW, HeaderValue::from_static("GET, HEAD"));
            return response;
        }
        match path {
            "/metrics" => {
                let is_open = accepts_openmetrics(headers);
                let kind = if is_open { OPENMETRICS } else { TEXT_FORMAT };
                response(StatusCode::OK, kind, self.metrics(is_open))
            }
            "/healthz" if self.health.is_well() => plain(StatusCode::OK, "ok\n"),
            "/healthz" => plain(StatusCode::SERVICE_UNAVAILABLE, "stalled: the kernel's counts are not read\n"),
            _ => plain(StatusCode::NOT_FOUND, "not found: /metrics or /healthz\n"),
        }
    }

    /// All metrics. Connections share one text, so that peers that don't read cost its bytes a few times and not once each.
    fn metrics(&self, is_open: bool) -> Bytes {
        let mut texts = self.texts.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(text) = texts.last(is_open) {
            return text;
        }
        let open = openmetrics(&self.registry.lock().unwrap_or_else(PoisonError::into_inner));
        let text = match is_open {
            true => self.created.lock().unwrap_or_else(PoisonError::into_inner).add(&open, now()),
            false => text_format(&open),
        };
        texts.add(is_open, text)
    }
}

/// Seconds since 1970.
fn now() -> f64 {
    Timestamp::now().unix_ns() as f64 / 1e9
}

/// The answer to a user of this machine that `--metrics-allow-user` doesn't name.
pub(super) fn forbidden() -> Response<Full<Bytes>> {
    plain(StatusCode::FORBIDDEN, "this user may not read the metrics: --metrics-allow-user lets others in\n")
}

/// The answer to a client that asks by a name that may be another's.
pub(super) fn misdirected() -> Response<Full<Bytes>> {
    let cure = "this server listens on loopback: ask for it as localhost or by its address, because any other name may be that of \
                a web site which has it lead here\n";
    plain(StatusCode::MISDIRECTED_REQUEST, cure)
}

/// The answer to a client that must send a name and a password first.
pub(super) fn unauthorized() -> Response<Full<Bytes>> {
    let mut response = plain(StatusCode::UNAUTHORIZED, "unauthorized\n");
    response.headers_mut().insert(WWW_AUTHENTICATE, HeaderValue::from_static("Basic"));
    response
}

fn plain(status: StatusCode, text: &'static str) -> Response<Full<Bytes>> {
    response(status, PLAIN, Bytes::from_static(text.as_bytes()))
}

fn response(status: StatusCode, kind: &'static str, body: Bytes) -> Response<Full<Bytes>> {
    let mut response = Response::new(Full::new(body));
    *response.status_mut() = status;
    response.headers_mut().insert(CONTENT_TYPE, HeaderValue::from_static(kind));
    response
}

fn accepts_openmetrics(headers: &HeaderMap) -> bool {
    let mut accepted = headers.get_all(ACCEPT).iter().filter_map(|value| value.to_str().ok());
    accepted.any(|value| value.contains("application/openmetrics-text"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn peers_that_dont_read_hold_a_few_texts_only() {
        let source = Source::new(Arc::default(), Health::new(Duration::from_secs(3600)));
        let age = || {
            for (made, _) in source.texts.lock().unwrap().last.iter_mut().flatten() {
                *made -= SHARED_FOR;
            }
        };
        let mut held = Vec::new();
        for _ in 0..20 {
            held.extend([source.metrics(true), source.metrics(false)]);
            age();
        }
        let different =
            |held: &[Bytes]| held.iter().map(|text| text.as_ptr()).collect::<std::collections::HashSet<_>>().len();
        assert_eq!(different(&held), TEXTS_MAX);
        held.clear();
        let last = source.metrics(true);
        age();
        assert_ne!(source.metrics(true).as_ptr(), last.as_ptr(), "there is room again");
    }
}
