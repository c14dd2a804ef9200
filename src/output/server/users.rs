//! Basic authentication against bcrypt hashes, as Prometheus' exporters have it.

use std::collections::{BTreeMap, HashMap, HashSet};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use hyper::header::HeaderValue;
use sha2::{Digest as _, Sha256};
use tokio::sync::{OwnedSemaphorePermit, Semaphore, oneshot};

use super::peer::Peer;

/// How long a peer whose password was wrong waits until another of its passwords is checked.
const WRONG_COSTS: Duration = Duration::from_secs(1);

/// One password of each peer is checked at a time.
#[derive(Default)]
pub(super) struct Turns(Mutex<HashMap<Peer, Arc<Semaphore>>>);

impl Turns {
    /// The peer's turn, when the check before is over.
    async fn next(&self, peer: Peer) -> Option<OwnedSemaphorePermit> {
        let turn = {
            let mut turns = self.0.lock().unwrap_or_else(PoisonError::into_inner);
            // Each peer that waits or is checked holds a turn: there are no more turns than connections and checks.
            turns.retain(|_, turn| Arc::strong_count(turn) > 1);
            turns.entry(peer).or_insert_with(|| Arc::new(Semaphore::new(1))).clone()
        };
        turn.acquire_owned().await.ok()
    }
}

/// The clients that are let in. To check a hash takes a tenth of a second and more, on a thread of its own and one at a time, and a peer has one
/// turn among all peers: a client that guesses passwords delays neither those that were let in before, nor those that need no
/// password, and others by one guess.
pub(super) struct Users {
    hashes: BTreeMap<String, String>,
    /// Digests of the names, hashes and passwords that were right.
    admitted: Arc<Mutex<HashSet<[u8; 32]>>>,
    hashing: Arc<Semaphore>,
}

impl Users {
    /// `hashes`: by user name.
    pub(super) fn new(hashes: BTreeMap<String, String>) -> Self {
        Self { hashes, admitted: Arc::default(), hashing: Arc::new(Semaphore::new(1)) }
    }

    pub(super) fn is_empty(&self) -> bool {
        self.hashes.is_empty()
    }

    /// May the sender of this `Authorization` header come in?
    pub(super) async fn admit(&self, turns: &Turns, peer: Peer, authorization: Option<&HeaderValue>) -> bool {
        let Some((name, password)) = authorization.and_then(credentials) else { return false };
        // A name that isn't known takes as long as one that is.
        let (hash, is_known) = match (self.hashes.get(&name), self.hashes.values().next()) {
            (Some(hash), _) => (hash.clone(), true),
            (None, Some(any)) => (any.clone(), false),
            (None, None) => return false,
        };
        let digest: [u8; 32] = Sha256::digest([name.as_bytes(), hash.as_bytes(), &password].join(&0)).into();
        if self.admitted().contains(&digest) {
            return true;
        }
        let Some(turn) = turns.next(peer).await else { return false };
        let Ok(permit) = self.hashing.clone().acquire_owned().await else { return false };
        let (told, is_admitted) = oneshot::channel();
        let admitted = self.admitted.clone();
        // In a task of its own: otherwise a peer that goes away before the answer would get its next turn at once.
        tokio::spawn(async move {
            let checked = tokio::task::spawn_blocking(move || {
                let is_right = bcrypt::non_truncating_verify(password, &hash).unwrap_or(false);
                drop(permit);
                is_right
            });
            let is_admitted = checked.await.unwrap_or(false) && is_known;
            if is_admitted {
                admitted.lock().unwrap_or_else(PoisonError::into_inner).insert(digest);
            }
            // The peer may have gone.
            let _ = told.send(is_admitted);
            if !is_admitted {
                tokio::time::sleep(WRONG_COSTS).await;
            }
            drop(turn);
        });
        is_admitted.await.unwrap_or(false)
    }

    /// There are no more of them than users: one password matches a hash.
    fn admitted(&self) -> std::sync::MutexGuard<'_, HashSet<[u8; 32]>> {
        self.admitted.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Name and password of a header `Basic BASE64`, RFC 7617. `None` means that it is nothing of the kind.
fn credentials(header: &HeaderValue) -> Option<(String, Vec<u8>)> {
    let (scheme, encoded) = header.to_str().ok()?.split_once(' ')?;
    if !scheme.eq_ignore_ascii_case("basic") {
        return None;
    }
    let decoded = STANDARD.decode(encoded.trim()).ok()?;
    let colon = decoded.iter().position(|&byte| byte == b':')?;
    let name = String::from_utf8(decoded[..colon].to_vec()).ok()?;
    Some((name, decoded[colon + 1..].to_vec()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_header_has_a_name_and_a_password() {
        let of = |text: &str| credentials(&HeaderValue::from_str(text).unwrap());
        // alice:a:b
        assert_eq!(of("Basic YWxpY2U6YTpi"), Some(("alice".to_owned(), b"a:b".to_vec())));
        assert_eq!(of("basic YWxpY2U6"), Some(("alice".to_owned(), Vec::new())));
        for wrong in ["Bearer YWxpY2U6YTpi", "Basic", "Basic YWxpY2U=", "Basic !", "Basic YWxpY2U6YTp"] {
            assert_eq!(of(wrong), None, "{wrong}");
        }
    }
}
