//! The connections that are open, and which one gives way to a newcomer where there are too many.

use std::collections::HashMap;

use tokio::task::AbortHandle;

use super::peer::Peer;

/// Oldest first.
pub(super) struct Connections {
    open: Vec<(Peer, AbortHandle)>,
    most: usize,
    share: usize,
}

impl Connections {
    /// At most `most` connections, at most `share` of one peer, and as many more as the runtime needs to end those that gave way.
    pub(super) fn new(most: usize, share: usize) -> Self {
        Self { open: Vec::with_capacity(most), most, share }
    }

    /// Adds a connection. Where that is one too many of its peer, its oldest is closed; where it is one too many of all, another is.
    pub(super) fn add(&mut self, peer: Peer, task: AbortHandle) {
        self.open.retain(|(_, task)| !task.is_finished());
        if self.open.iter().filter(|(other, _)| *other == peer).count() >= self.share {
            self.close_oldest(|other| other == peer);
        } else if self.open.len() >= self.most {
            self.close_one();
        }
        self.open.push((peer, task));
    }

    /// Closes the oldest connection of the peer that has the most: a client that opens many displaces its own.
    pub(super) fn close_one(&mut self) {
        let mut by_peer: HashMap<Peer, usize> = HashMap::new();
        for (peer, _) in &self.open {
            *by_peer.entry(*peer).or_default() += 1;
        }
        let most = by_peer.values().copied().max();
        self.close_oldest(|peer| by_peer.get(&peer).copied() == most);
    }

    fn close_oldest(&mut self, is_meant: impl Fn(Peer) -> bool) {
        if let Some(index) = self.open.iter().position(|(peer, _)| is_meant(*peer)) {
            self.open.remove(index).1.abort();
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Which of these connections are open in the end.
    fn left(peers: &[u32], most: usize, share: usize) -> Vec<u32> {
        let runtime = tokio::runtime::Builder::new_current_thread().build().unwrap();
        let tasks = runtime.block_on(async {
            let mut connections = Connections::new(most, share);
            let mut tasks = Vec::new();
            for &user in peers {
                let task = tokio::spawn(std::future::pending::<()>());
                connections.add(Peer::User(user), task.abort_handle());
                tasks.push((user, task));
                tokio::task::yield_now().await;
            }
            tasks
        });
        tasks.iter().filter(|(_, task)| !task.is_finished()).map(|(user, _)| *user).collect()
    }

    #[test]
    fn a_peer_has_its_share_and_no_more() {
        assert_eq!(left(&[1, 2, 2, 2, 2, 2], 64, 3), [1, 2, 2, 2]);
        assert_eq!(left(&[1, 2, 2, 2, 3], 4, 3), [1, 2, 2, 3], "all are taken: who has the most gives one");
        assert_eq!(left(&[1, 2, 3, 4], 3, 3), [2, 3, 4], "each has one: the oldest goes");
    }
}
