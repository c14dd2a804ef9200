//! `/metrics` and `/healthz` for scrapers: one thread, which no peer can block, whatever the peer sends or doesn't send.
//!
//! A peer costs no more than its share of the connections, and each no longer than [`Limits::whole`]. Request bodies are never read, one
//! connection is one request, and where all connections are taken a newcomer displaces an old one of the peer that has the most.

mod answer;
mod connections;
mod document;
#[cfg(any(test, fuzzing))]
mod fuzz;
mod health;
mod host;
mod life;
mod listener;
mod peer;
mod sock_diag;
mod subordinates;
#[cfg(test)]
mod tests;
mod tls;
mod users;
mod web_config;

use std::collections::BTreeSet;
use std::convert::Infallible;
use std::io;
use std::net::SocketAddr;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use anyhow::{Context, Result, bail};
use http_body_util::Full;
use hyper::body::{Bytes, Incoming};
use hyper::header::AUTHORIZATION;
use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper::{Request, Response};
use hyper_util::rt::{TokioIo, TokioTimer};
use nix::errno::Errno;
use nix::unistd::geteuid;
use prometheus_client::registry::Registry;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::runtime::Runtime;
use tokio::sync::Notify;
use tokio::time::{sleep, timeout};

use answer::{Source, forbidden, misdirected, unauthorized};
use connections::Connections;
#[cfg(any(test, fuzzing))]
pub(crate) use fuzz::fuzz;
pub(crate) use health::Health;
pub(crate) use life::Life;
pub(crate) use listener::Listen;
use listener::{Arrival, Listener, Stream};
use peer::{Peer, Peers};
use users::Turns;
use web_config::{WebConfig, WebConfigFile};

/// The most bytes of a request's head, and of what is read at once.
const HEAD_BYTES: usize = 16 * 1024;

/// How long it is waited where there is nothing to accept a connection with.
const ACCEPT_AGAIN: Duration = Duration::from_millis(100);

/// How many connections are accepted before those that are there get their turn. All peers share the kernel's queue of
/// connections: a peer that fills it makes others wait, a second where it refuses them.
const ACCEPT_AT_ONCE: u32 = 32;

/// What the server asks itself.
const OWN_REQUEST: &[u8] = b"GET /healthz HTTP/1.1\r\nHost: localhost\r\n\r\n";

/// What a peer may take.
#[derive(Clone, Copy, Debug)]
struct Limits {
    /// How many connections there may be.
    connections: usize,
    /// How many of them one peer may have.
    share: usize,
    /// How long the TLS handshake may take, and then the request's head.
    head: Duration,
    /// How long it may take until the answer is taken.
    answer: Duration,
    /// How long a connection may take from its first byte to its last.
    whole: Duration,
}

const LIMITS: Limits = Limits {
    connections: 64,
    share: 16,
    head: Duration::from_secs(5),
    answer: Duration::from_secs(5),
    whole: Duration::from_secs(10),
};

/// Where the metrics are served, and to whom.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Serve {
    /// The address or the path.
    pub listen: Listen,
    /// The file of `--web.config.file`.
    pub web_config: Option<PathBuf>,
    /// The users of this machine that are answered, besides root and the agent's own. Empty means that all are.
    pub allowed_users: BTreeSet<u32>,
}

/// A server that has begun to answer.
pub(crate) struct Serving {
    /// Where the metrics are: a URL, with the port that the kernel chose for 0, or `unix:PATH`.
    pub place: String,
    /// Does it answer?
    pub life: Life,
}

/// Reads a file of `--web.config.file`, and the certificates that it names.
///
/// # Errors
/// If one can't be read, or says what isn't understood.
pub(crate) fn check_web_config(path: &Path) -> Result<()> {
    WebConfigFile::open(path).map(drop)
}

/// Listens, and answers until the process ends.
///
/// # Errors
/// If the address can't be listened on, or the file can't be used.
pub(crate) fn serve(options: &Serve, registry: Arc<Mutex<Registry>>, health: Health) -> Result<Serving> {
    let web_config = options.web_config.as_deref().map(WebConfigFile::open).transpose()?;
    let is_tls = web_config.as_ref().is_some_and(|file| file.current().tls.is_some());
    let server = Server { web_config, ..Server::new(Source::new(registry, health)) }.only_for(&options.allowed_users);
    let (bound, life) = start(&options.listen, server)?;
    let place = match bound {
        Listen::Tcp(address) => format!("{}://{address}/metrics", if is_tls { "https" } else { "http" }),
        Listen::Unix(_) => bound.to_string(),
    };
    Ok(Serving { place, life })
}

/// What a connection needs to be served.
struct Server {
    source: Source,
    /// `None` means plain HTTP, for everybody.
    web_config: Option<WebConfigFile>,
    /// The users that are answered. `None` means all, and other machines.
    allowed: Option<BTreeSet<u32>>,
    peers: Peers,
    turns: Turns,
    limits: Limits,
}

impl Server {
    /// For everybody.
    fn new(source: Source) -> Self {
        Self { source, web_config: None, allowed: None, peers: Peers::new(), turns: Turns::default(), limits: LIMITS }
    }

    /// The same for these users, if there are any, and for those that can read everything anyway.
    fn only_for(self, users: &BTreeSet<u32>) -> Self {
        let own = [0, geteuid().as_raw()];
        Self { allowed: (!users.is_empty()).then(|| users.iter().copied().chain(own).collect()), ..self }
    }

    fn is_allowed(&self, peer: Peer) -> bool {
        self.allowed.as_ref().is_none_or(|allowed| match peer {
            Peer::User(user) => allowed.contains(&user),
            Peer::Own => true,
            Peer::Family(_) | Peer::Local | Peer::Address(_) => false,
        })
    }
}

/// Begins to answer, in a thread of its own.
fn start(listen: &Listen, server: Server) -> Result<(Listen, Life)> {
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_io()
        .enable_time()
        // For checking passwords.
        .max_blocking_threads(1)
        .thread_keep_alive(Duration::from_secs(u32::MAX.into()))
        .thread_name("password")
        .thread_stack_size(128 * 1024)
        .build();
    let runtime = runtime.context("failed to start the metrics server")?;
    let entered = runtime.enter();
    let listener = Listener::bind(listen, server.allowed.is_some())?;
    let bound = listener.bound(listen).with_context(|| format!("failed to listen on `{listen}`"))?;
    if let (Listen::Tcp(address), Some(_)) = (&bound, &server.allowed) {
        check_users(*address, &server.peers)?;
    }
    if server.web_config.is_some() {
        // Now: later there may be no room for another thread.
        drop(runtime.spawn_blocking(|| ()));
    }
    drop(entered);
    let life = Life::default();
    let own = life.clone();
    std::thread::Builder::new()
        .name("metrics".to_owned())
        .stack_size(512 * 1024)
        .spawn(move || answer_always(&runtime, &listener, &Arc::new(server), &own))
        .context("failed to start the metrics server")?;
    Ok((bound, life))
}

/// Only the kernel of this machine knows a connection's user: finds out if it says so.
fn check_users(address: SocketAddr, peers: &Peers) -> Result<()> {
    const CURE: &str = "--metrics-listen unix:PATH";
    if !address.ip().is_loopback() {
        bail!(
            "--metrics-allow-user needs a --metrics-listen on loopback, because other machines' users are not known: or {CURE}"
        );
    }
    let what = "failed to connect to the metrics server";
    let client = std::net::TcpStream::connect(address).context(what)?;
    if peers.user(client.local_addr().context(what)?, address) != Some(geteuid().as_raw()) {
        bail!(
            "--metrics-allow-user needs a kernel with CONFIG_INET_TCP_DIAG, which says whose a connection is: use {CURE}"
        );
    }
    Ok(())
}

/// Whatever happens, the next request is answered.
fn answer_always(runtime: &Runtime, listener: &Listener, server: &Arc<Server>, life: &Life) {
    loop {
        let accepting = AssertUnwindSafe(|| runtime.block_on(accept_all(listener, server, life)));
        if catch_unwind(accepting).is_err() {
            std::thread::sleep(ACCEPT_AGAIN);
        }
    }
}

async fn accept_all(listener: &Listener, server: &Arc<Server>, life: &Life) {
    let mut connections = Connections::new(server.limits.connections, server.limits.share);
    let mut accepted = 0_u32;
    loop {
        tokio::select! {
            arrived = listener.accept(&server.peers) => match arrived {
                Ok(arrival) => {
                    let peer = server.peers.sharing(arrival.peer);
                    let task = tokio::spawn(serve_one(server.clone(), arrival));
                    connections.add(peer, task.abort_handle());
                }
                Err(error) if is_want(&error) => {
                    // One of ours may be what is needed for the next.
                    connections.close_one();
                    sleep(ACCEPT_AGAIN).await;
                }
                // A peer that has gone before it was accepted.
                Err(_) => {}
            },
            question = life.question() => {
                tokio::spawn(answer_itself(server.clone(), life.clone(), question));
            }
        }
        accepted = accepted.wrapping_add(1);
        if accepted.is_multiple_of(ACCEPT_AT_ONCE) {
            tokio::task::yield_now().await;
        }
    }
}

/// Is it for want of descriptors or memory?
fn is_want(error: &io::Error) -> bool {
    let wants = [Errno::EMFILE, Errno::ENFILE, Errno::ENOBUFS, Errno::ENOMEM];
    error.raw_os_error().is_some_and(|error| wants.contains(&Errno::from_raw(error)))
}

/// Asks as a peer does, but needs no descriptor for it.
async fn answer_itself(server: Arc<Server>, life: Life, question: u64) {
    let (mut here, there) = tokio::io::duplex(1024);
    let arrival = Arrival { stream: Box::new(there), peer: Peer::Own, local: None };
    let asking = async {
        let mut answer = [0; 9];
        here.write_all(OWN_REQUEST).await.ok()?;
        here.read_exact(&mut answer).await.ok()?;
        (answer == *b"HTTP/1.1 ").then_some(())
    };
    let answering = answer_one(&server, None, arrival.stream, arrival.peer, None);
    if let (Some(()), ()) = tokio::join!(asking, answering) {
        life.answer(question);
    }
}

async fn serve_one(server: Arc<Server>, arrival: Arrival) {
    let Arrival { stream, peer, local } = arrival;
    let limits = server.limits;
    let config = server.web_config.as_ref().map(WebConfigFile::current);
    let served = async {
        match config.as_ref().and_then(|config| config.tls.clone()) {
            None => answer_one(&server, config, stream, peer, local).await,
            Some(tls) => {
                if let Ok(Ok(stream)) = timeout(limits.head, tls.accept(stream)).await {
                    // The certificate has proved the name.
                    answer_one(&server, config, Box::new(stream), peer, None).await;
                }
            }
        }
    };
    // A peer that takes longer gets no answer.
    let _ = timeout(limits.whole, served).await;
}

/// Answers one request, and closes. `local`: where to hold the name against that the client asks by.
async fn answer_one(
    server: &Server,
    config: Option<Arc<WebConfig>>,
    stream: Box<dyn Stream + '_>,
    peer: Peer,
    local: Option<SocketAddr>,
) {
    let has_answered = Notify::new();
    let service = service_fn(async |request: Request<Incoming>| -> Result<Response<Full<Bytes>>, Infallible> {
        let mut response = respond(server, config.as_deref(), &request, peer, local).await;
        for (name, value) in config.iter().flat_map(|config| &config.headers) {
            response.headers_mut().insert(name, value.clone());
        }
        has_answered.notify_one();
        Ok(response)
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
    let too_late = async {
        has_answered.notified().await;
        sleep(server.limits.answer).await;
    };
    tokio::select! {
        // hyper answers a wrong request; a peer that has gone needs no answer.
        _ = connection => {}
        () = too_late => {}
    }
}

/// The answer to a request, or to a client that isn't let in. The password comes last: to check it costs most.
async fn respond(
    server: &Server,
    config: Option<&WebConfig>,
    request: &Request<Incoming>,
    peer: Peer,
    local: Option<SocketAddr>,
) -> Response<Full<Bytes>> {
    if !server.is_allowed(peer) {
        return forbidden();
    }
    if local.is_some_and(|local| !host::is_meant(local, request.uri(), request.headers())) {
        return misdirected();
    }
    let users = config.map(|config| &config.users).filter(|users| !users.is_empty());
    if let Some(users) = users
        && !users.admit(&server.turns, server.peers.sharing(peer), request.headers().get(AUTHORIZATION)).await
    {
        return unauthorized();
    }
    server.source.answer(request.method(), request.uri().path(), request.headers())
}
