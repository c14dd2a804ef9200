//! `/metrics` and `/healthz` for whatever scrapes: one thread, which no peer can hold, whatever it sends or doesn't.
//!
//! A peer costs no more than its own connection, and that no longer than [`Limits::whole`]. Request bodies are never read, one
//! connection is one request, and where all connections are taken a newcomer displaces an old one.

mod answer;
mod connections;
mod health;
#[cfg(test)]
mod tests;
mod users;
mod web_config;

use std::convert::Infallible;
use std::net::{SocketAddr, TcpListener};
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::Path;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use anyhow::{Context, Result};
use http_body_util::Full;
use hyper::Response;
use hyper::body::{Bytes, Incoming};
use hyper::header::AUTHORIZATION;
use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper_util::rt::{TokioIo, TokioTimer};
use prometheus_client::registry::Registry;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::TcpStream;
use tokio::runtime::Runtime;
use tokio::time::{sleep, timeout};

use answer::{Source, unauthorized};
use connections::Connections;
pub use health::Health;
use web_config::{WebConfig, WebConfigFile};

/// The most bytes of a request's head, and of what is read at once.
const HEAD_BYTES: usize = 16 * 1024;

/// How long it is waited where a connection can't be accepted, for want of descriptors as a rule.
const ACCEPT_AGAIN: Duration = Duration::from_millis(100);

/// What a peer may take.
#[derive(Clone, Copy, Debug)]
struct Limits {
    /// How many connections there may be.
    connections: usize,
    /// How long the TLS handshake may take, and then the request's head.
    head: Duration,
    /// How long a connection may take from its first byte to its last.
    whole: Duration,
}

const LIMITS: Limits = Limits { connections: 64, head: Duration::from_secs(5), whole: Duration::from_secs(10) };

/// Listens on `address` and answers until the process ends. `web_config`: the file of `--web.config.file`. Returns the URL of
/// the metrics, with the port that the kernel chose for 0.
///
/// # Errors
/// If the address can't be listened on, or the file can't be used.
pub fn serve(
    address: SocketAddr,
    web_config: Option<&Path>,
    registry: Arc<Mutex<Registry>>,
    health: Health,
) -> Result<String> {
    let web_config = web_config.map(WebConfigFile::open).transpose()?;
    let is_tls = web_config.as_ref().is_some_and(|file| file.current().tls.is_some());
    let server = Server { source: Source::new(registry, health), web_config, limits: LIMITS };
    let bound = start(address, server)?;
    Ok(format!("{}://{bound}/metrics", if is_tls { "https" } else { "http" }))
}

/// What a connection needs to be served.
struct Server {
    source: Source,
    /// `None` means plain HTTP, for everybody.
    web_config: Option<WebConfigFile>,
    limits: Limits,
}

/// Begins to answer, in a thread of its own.
fn start(address: SocketAddr, server: Server) -> Result<SocketAddr> {
    let what = || format!("failed to listen on `{address}`");
    let listener = TcpListener::bind(address).with_context(what)?;
    let bound = listener.local_addr().with_context(what)?;
    listener.set_nonblocking(true).with_context(what)?;
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_io()
        .enable_time()
        // For checking passwords.
        .max_blocking_threads(1)
        .thread_name("password")
        .thread_stack_size(128 * 1024)
        .build();
    let runtime = runtime.context("failed to start the metrics server")?;
    let listener = runtime.block_on(async { tokio::net::TcpListener::from_std(listener) }).with_context(what)?;
    std::thread::Builder::new()
        .name("metrics".to_owned())
        .stack_size(512 * 1024)
        .spawn(move || answer_always(&runtime, &listener, &Arc::new(server)))
        .context("failed to start the metrics server")?;
    Ok(bound)
}

/// Whatever happens, the next request is answered.
fn answer_always(runtime: &Runtime, listener: &tokio::net::TcpListener, server: &Arc<Server>) {
    loop {
        let accepting = AssertUnwindSafe(|| runtime.block_on(accept_all(listener, server)));
        if catch_unwind(accepting).is_err() {
            std::thread::sleep(ACCEPT_AGAIN);
        }
    }
}

async fn accept_all(listener: &tokio::net::TcpListener, server: &Arc<Server>) {
    let mut connections = Connections::new(server.limits.connections);
    loop {
        match listener.accept().await {
            Ok((stream, peer)) => {
                let task = tokio::spawn(serve_one(server.clone(), stream));
                connections.add(peer.ip(), task.abort_handle());
            }
            Err(_) => {
                // One of ours may be what is needed for the next.
                connections.close_one();
                sleep(ACCEPT_AGAIN).await;
            }
        }
        // Those that are there get their turn before another displaces them.
        tokio::task::yield_now().await;
    }
}

async fn serve_one(server: Arc<Server>, stream: TcpStream) {
    let limits = server.limits;
    let config = server.web_config.as_ref().map(WebConfigFile::current);
    let served = async {
        match config.as_ref().and_then(|config| config.tls.clone()) {
            None => answer_one(&server, config, stream).await,
            Some(tls) => {
                if let Ok(Ok(stream)) = timeout(limits.head, tls.accept(stream)).await {
                    answer_one(&server, config, stream).await;
                }
            }
        }
    };
    // A peer that takes longer gets no answer.
    let _ = timeout(limits.whole, served).await;
}

/// Answers one request, and closes.
async fn answer_one(
    server: &Server,
    config: Option<Arc<WebConfig>>,
    stream: impl AsyncRead + AsyncWrite + Unpin + Send,
) {
    let users = config.as_ref().map(|config| &config.users).filter(|users| !users.is_empty());
    let service = service_fn(async |request: hyper::Request<Incoming>| -> Result<Response<Full<Bytes>>, Infallible> {
        if let Some(users) = users
            && !users.admit(request.headers().get(AUTHORIZATION)).await
        {
            return Ok(unauthorized());
        }
        Ok(server.source.answer(request.method(), request.uri().path(), request.headers()))
    });
    let connection = http1::Builder::new()
        .timer(TokioTimer::new())
        .header_read_timeout(server.limits.head)
        .max_buf_size(HEAD_BYTES)
        .max_header_size(HEAD_BYTES)
        // Written from where they are: answers are shared.
        .writev(true)
        // Who has nothing more to say may still listen.
        .half_close(true)
        .keep_alive(false)
        .serve_connection(TokioIo::new(stream), service);
    // hyper answers a wrong request; a peer that has gone needs no answer.
    let _ = connection.await;
}
