//! The connections that are open, and which one gives way to a newcomer where there are too many.

use std::collections::HashMap;
use std::net::IpAddr;

use tokio::task::AbortHandle;

/// Oldest first.
pub(super) struct Connections {
    open: Vec<(IpAddr, AbortHandle)>,
    most: usize,
}

impl Connections {
    /// At most `most` connections, and as many more as the runtime needs to end those that gave way.
    pub(super) fn new(most: usize) -> Self {
        Self { open: Vec::with_capacity(most), most }
    }

    /// Adds a connection. Where that is one too many, another is closed.
    pub(super) fn add(&mut self, peer: IpAddr, task: AbortHandle) {
        self.open.retain(|(_, task)| !task.is_finished());
        if self.open.len() >= self.most {
            self.close_one();
        }
        self.open.push((peer, task));
    }

    /// Closes the oldest connection of the address that has the most: a client that opens many displaces its own.
    pub(super) fn close_one(&mut self) {
        let mut by_peer: HashMap<IpAddr, usize> = HashMap::new();
        for (peer, _) in &self.open {
            *by_peer.entry(*peer).or_default() += 1;
        }
        let most = by_peer.values().copied().max().unwrap_or_default();
        if let Some(index) = self.open.iter().position(|(peer, _)| by_peer.get(peer) == Some(&most)) {
            self.open.remove(index).1.abort();
        }
    }
}
