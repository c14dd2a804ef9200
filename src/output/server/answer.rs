//! Answers requests: `/metrics`, `/healthz`, or an error.

use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use http_body_util::Full;
use hyper::body::Bytes;
use hyper::header::{ACCEPT, ALLOW, CONTENT_TYPE, HeaderValue, WWW_AUTHENTICATE};
use hyper::{HeaderMap, Method, Response, StatusCode};
use prometheus_client::registry::Registry;

use super::Health;
use crate::output::metrics::{openmetrics, text_format};

const OPENMETRICS: &str = "application/openmetrics-text; version=1.0.0; charset=utf-8";
const TEXT_FORMAT: &str = "text/plain; version=0.0.4; charset=utf-8";
const PLAIN: &str = "text/plain; charset=utf-8";

/// How long all requests get the same text, so that a flood of requests doesn't make us write it each time.
const SHARED_FOR: Duration = Duration::from_millis(500);

/// A text, and when it was made.
type Text = Option<(Instant, Bytes)>;

/// The sources of the answers.
pub(super) struct Source {
    registry: Arc<Mutex<Registry>>,
    health: Health,
    /// The last texts: OpenMetrics, and the older format.
    texts: Mutex<[Text; 2]>,
}

impl Source {
    pub(super) fn new(registry: Arc<Mutex<Registry>>, health: Health) -> Self {
        Self { registry, health, texts: Mutex::default() }
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
        let last = &mut texts[usize::from(!is_open)];
        if let Some((_, text)) = last.as_ref().filter(|(made, _)| made.elapsed() < SHARED_FOR) {
            return text.clone();
        }
        let open = openmetrics(&self.registry.lock().unwrap_or_else(PoisonError::into_inner));
        let text = Bytes::from(if is_open { open } else { text_format(&open) });
        *last = Some((Instant::now(), text.clone()));
        text
    }
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
