//! `/metrics` and `/healthz` for whoever scrapes: a thread of its own, so that a slow reader delays no counting.

use std::net::{SocketAddr, TcpListener};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use anyhow::{Context, Result};
use nix::sys::socket::setsockopt;
use nix::sys::socket::sockopt::SendTimeout;
use nix::sys::time::TimeVal;
use prometheus_client::registry::Registry;
use tiny_http::{Header, Method, Request, Response, Server};

use super::metrics::{openmetrics, text_format};

const OPENMETRICS: &str = "application/openmetrics-text; version=1.0.0; charset=utf-8";
const TEXT_FORMAT: &str = "text/plain; version=0.0.4; charset=utf-8";
const PLAIN: &str = "text/plain; charset=utf-8";

/// How long an answer may take to be read, seconds.
const SEND_SECONDS: i64 = 5;

/// Is the agent alive? Marked by its loop, read by the server.
#[derive(Clone)]
pub struct Health {
    last: Arc<Mutex<Instant>>,
    patience: Duration,
}

impl Health {
    /// Healthy from now on, as long as it is marked more often than each `patience`.
    pub fn new(patience: Duration) -> Self {
        Self { last: Arc::new(Mutex::new(Instant::now())), patience }
    }

    /// Alive.
    pub fn mark(&self) {
        if let Ok(mut last) = self.last.lock() {
            *last = Instant::now();
        }
    }

    fn is_well(&self) -> bool {
        self.last.lock().is_ok_and(|last| last.elapsed() < self.patience)
    }
}

/// Listens on `address` and answers until the process ends. Returns the address, with the port that the kernel chose for 0.
///
/// # Errors
/// Where the address can't be listened on.
pub fn serve(address: SocketAddr, registry: Arc<Mutex<Registry>>, health: Health) -> Result<SocketAddr> {
    let what = || format!("failed to listen on `{address}`");
    let listener = TcpListener::bind(address).with_context(what)?;
    let bound = listener.local_addr().with_context(what)?;
    // Accepted connections inherit it: who doesn't read the answer gives way to the next.
    let patience = TimeVal::new(SEND_SECONDS, 0);
    setsockopt(&listener, SendTimeout, &patience).map_err(std::io::Error::from).with_context(what)?;
    std::thread::Builder::new()
        .name("metrics".to_owned())
        .stack_size(256 * 1024)
        .spawn(move || answer_all(&listener, &registry, &health))
        .context("failed to start the metrics server")?;
    Ok(bound)
}

/// Answers one request after the other. The server ends where a connection can't be accepted, for want of descriptors as a
/// rule: then there is another one a little later.
fn answer_all(listener: &TcpListener, registry: &Mutex<Registry>, health: &Health) {
    loop {
        let server = listener.try_clone().ok().and_then(|clone| Server::from_listener(clone, None).ok());
        for request in server.iter().flat_map(Server::incoming_requests) {
            answer(request, registry, health);
        }
        std::thread::sleep(Duration::from_secs(1));
    }
}

fn answer(request: Request, registry: &Mutex<Registry>, health: &Health) {
    let path = request.url().split('?').next().unwrap_or_default().to_owned();
    let (status, kind, body) = match (request.method(), path.as_str()) {
        (Method::Get | Method::Head, "/metrics") => {
            let text = registry.lock().map(|registry| openmetrics(&registry)).unwrap_or_default();
            if accepts_openmetrics(&request) {
                (200, OPENMETRICS, text)
            } else {
                (200, TEXT_FORMAT, text_format(&text))
            }
        }
        (Method::Get | Method::Head, "/healthz") if health.is_well() => (200, PLAIN, "ok\n".to_owned()),
        (Method::Get | Method::Head, "/healthz") => {
            (503, PLAIN, "stalled: the kernel's counts are not read\n".to_owned())
        }
        (Method::Get | Method::Head, _) => (404, PLAIN, "not found: /metrics or /healthz\n".to_owned()),
        _ => (405, PLAIN, "only GET and HEAD\n".to_owned()),
    };
    let mut response = Response::from_string(body).with_status_code(status);
    if let Ok(header) = Header::from_bytes("Content-Type", kind) {
        response = response.with_header(header);
    }
    // A scraper that went away is its own affair.
    let _ = request.respond(response);
}

fn accepts_openmetrics(request: &Request) -> bool {
    request
        .headers()
        .iter()
        .any(|header| header.field.equiv("Accept") && header.value.as_str().contains("application/openmetrics-text"))
}
