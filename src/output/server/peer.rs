//! Who is at the other end of a connection: whoever can open many connections must be one peer.

use std::net::{IpAddr, Ipv6Addr, SocketAddr};

use tokio::net::{TcpStream, UnixStream};

use super::sock_diag::SockDiag;
use super::subordinates::Subordinates;

/// A share of the server is each one's.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(super) enum Peer {
    /// A user of this machine, whatever address of it the connection comes from: 127.0.0.0/8 has 16 million.
    User(u32),
    /// All users that belong to one (subuid(5)).
    Family(u32),
    /// This machine, but the kernel doesn't say which user.
    Local,
    /// Another machine. Of an IPv6 address it is the network, /64: a machine has as many addresses there as it likes.
    Address(IpAddr),
    /// The server's own request.
    Own,
}

/// Tells peers from one another.
pub(super) struct Peers {
    diag: Option<SockDiag>,
    subordinates: Subordinates,
    /// The tests have no other users, but many addresses.
    #[cfg(test)]
    by_address: bool,
}

impl Peers {
    pub(super) fn new() -> Self {
        Self {
            diag: SockDiag::open(),
            subordinates: Subordinates::read(),
            #[cfg(test)]
            by_address: false,
        }
    }

    /// Tells them apart by address alone.
    #[cfg(test)]
    pub(super) fn by_address() -> Self {
        Self { by_address: true, ..Self::new() }
    }

    /// The peer of a connection, and the address of this machine that it came to.
    pub(super) fn of_tcp(&self, stream: &TcpStream, peer: SocketAddr) -> (Peer, Option<SocketAddr>) {
        let peer = canonical(peer);
        let Ok(local) = stream.local_addr().map(canonical) else { return (address(peer.ip()), None) };
        #[cfg(test)]
        if self.by_address {
            return (Peer::Address(peer.ip()), Some(local));
        }
        let peer = match self.user(peer, local) {
            Some(user) => Peer::User(user),
            None if peer.ip().is_loopback() || peer.ip() == local.ip() => Peer::Local,
            None => address(peer.ip()),
        };
        (peer, Some(local))
    }

    /// With whom it shares what a peer may take.
    pub(super) fn sharing(&self, peer: Peer) -> Peer {
        match peer {
            Peer::User(user) => self.subordinates.family(user).map_or(peer, Peer::Family),
            other => other,
        }
    }

    /// The peer of a connection to a socket in the file system.
    pub(super) fn of_unix(stream: &UnixStream) -> Peer {
        stream.peer_cred().map_or(Peer::Local, |credentials| Peer::User(credentials.uid()))
    }

    /// The user of this machine whose socket is at `peer`, connected to `local`.
    pub(super) fn user(&self, peer: SocketAddr, local: SocketAddr) -> Option<u32> {
        self.diag.as_ref()?.user(peer, local)
    }
}

/// An IPv4 address as such, however the socket that listens shows it.
fn canonical(address: SocketAddr) -> SocketAddr {
    SocketAddr::new(address.ip().to_canonical(), address.port())
}

fn address(of: IpAddr) -> Peer {
    Peer::Address(match of {
        IpAddr::V4(_) => of,
        IpAddr::V6(whole) => IpAddr::V6(Ipv6Addr::from_bits(whole.to_bits() & !u128::from(u64::MAX))),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_network_of_ipv6_is_one_peer_and_an_address_of_ipv4_is_one() {
        let of = |text: &str| address(text.parse().unwrap());
        assert_eq!(of("2001:db8::1"), of("2001:db8::ffff:ffff:ffff:ffff"));
        assert_ne!(of("2001:db8::1"), of("2001:db8:0:1::1"));
        assert_ne!(of("192.0.2.1"), of("192.0.2.2"));
    }
}
