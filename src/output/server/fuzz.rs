//! What the fuzzer calls: whatever a peer sends, its connection ends soon after the peer's side of it, and with an answer or none.

use std::cell::RefCell;
use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::runtime::{Builder, Runtime};

use super::answer::Source;
use super::peer::Peer;
use super::users::Users;
use super::web_config::WebConfig;
use super::{Health, Server, answer_one};

/// More than the server needs, and less than it waits for a peer.
const PROMPT: Duration = Duration::from_secs(2);

struct Serving {
    runtime: Runtime,
    server: Server,
    protected: Arc<WebConfig>,
    /// The next peer: each has its own turn for its password.
    next: u32,
}

impl Serving {
    fn new() -> Option<Self> {
        let runtime = Builder::new_current_thread().enable_time().max_blocking_threads(1).build().ok()?;
        let server = Server::new(Source::new(Arc::default(), Health::new(Duration::from_secs(3600))));
        // At the least cost that there is.
        let users = Users::new(BTreeMap::from([("alice".to_owned(), bcrypt::hash("pass", 4).ok()?)]));
        let protected = WebConfig { tls: None, needs_certificate: false, users, headers: Vec::new() };
        Some(Self { runtime, server, protected: Arc::new(protected), next: 0 })
    }

    /// Sends the parts as a peer does, with a pause after each, and takes what comes.
    fn serve(&mut self, is_protected: bool, is_loopback: bool, parts: &[&[u8]]) {
        let config = is_protected.then(|| self.protected.clone());
        let local = is_loopback.then(|| SocketAddr::from(([127, 0, 0, 1], 8917)));
        self.next = self.next.wrapping_add(1);
        let peer = Peer::User(self.next);
        let server = &self.server;
        self.runtime.block_on(async {
            let (mut here, there) = tokio::io::duplex(1024);
            let asking = async {
                let (mut from, mut to) = tokio::io::split(&mut here);
                let sending = async {
                    for part in parts {
                        if to.write_all(part).await.is_err() {
                            break;
                        }
                        tokio::task::yield_now().await;
                    }
                    let _ = to.shutdown().await;
                };
                let mut answer = Vec::new();
                let _ = tokio::join!(sending, from.read_to_end(&mut answer));
                answer
            };
            let serving = answer_one(server, config, Box::new(there), peer, local);
            let both = async { tokio::join!(asking, serving) };
            let (answer, ()) = match tokio::time::timeout(PROMPT, both).await {
                Ok(ended) => ended,
                Err(_) => unreachable!("the connection goes on after its peer has ended"),
            };
            assert!(answer.is_empty() || answer.starts_with(b"HTTP/1."), "{answer:?}");
        });
    }
}

/// Bytes of a peer, after one that says what the server asks for, and in how many parts they come.
pub(crate) fn fuzz(data: &[u8]) {
    thread_local! {
        static SERVING: RefCell<Option<Serving>> = RefCell::new(Serving::new());
    }
    let Some((&how, data)) = data.split_first() else { return };
    let size = (data.len() / (1 + usize::from(how >> 4))).max(1);
    let parts: Vec<&[u8]> = data.chunks(size).collect();
    SERVING.with_borrow_mut(|serving| {
        if let Some(serving) = serving {
            serving.serve(how & 1 != 0, how & 2 != 0, &parts);
        }
    });
}
