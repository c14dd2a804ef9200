//! Which user of this machine is at the other end of a TCP connection: the kernel has it (sock_diag(7)).

use std::net::SocketAddr;
use std::os::fd::{AsRawFd as _, OwnedFd};
use std::sync::atomic::{AtomicU32, Ordering};

use netlink_packet_core::{NLM_F_REQUEST, NetlinkHeader, NetlinkMessage, NetlinkPayload};
use netlink_packet_sock_diag::SockDiagMessage;
use netlink_packet_sock_diag::constants::{AF_INET, AF_INET6, IPPROTO_TCP};
use netlink_packet_sock_diag::inet::{ExtensionFlags, InetRequest, InetResponseHeader, SocketId, StateFlags};
use nix::sys::socket::{AddressFamily, MsgFlags, SockFlag, SockProtocol, SockType, recv, send, socket};

/// include/uapi/linux/inet_diag.h, INET_DIAG_NOCOOKIE: any socket with these addresses.
const ANY_COOKIE: [u8; 8] = [0xff; 8];

/// A socket for questions, opened once: a lack of descriptors doesn't keep us from asking.
pub(super) struct SockDiag {
    socket: OwnedFd,
    sequence: AtomicU32,
}

impl SockDiag {
    /// `None` means that the kernel can't be asked.
    pub(super) fn open() -> Option<Self> {
        let flags = SockFlag::SOCK_CLOEXEC | SockFlag::SOCK_NONBLOCK;
        let socket = socket(AddressFamily::Netlink, SockType::Datagram, flags, SockProtocol::NetlinkSockDiag).ok()?;
        Some(Self { socket, sequence: AtomicU32::new(0) })
    }

    /// The user that made the socket which is at `peer` and connected to `local`. `None` means that it isn't of this machine (of
    /// this network namespace), that it has no owner any more, or that the kernel doesn't answer.
    pub(super) fn user(&self, peer: SocketAddr, local: SocketAddr) -> Option<u32> {
        let sequence = self.sequence.fetch_add(1, Ordering::Relaxed);
        send(self.socket.as_raw_fd(), &request(peer, local, sequence), MsgFlags::empty()).ok()?;
        let mut buffer = [0; 1024];
        // The kernel has answered before send() returns. An answer to an older question may still be there.
        loop {
            let length = recv(self.socket.as_raw_fd(), &mut buffer, MsgFlags::MSG_DONTWAIT).ok()?;
            let answer = NetlinkMessage::<SockDiagMessage>::deserialize(buffer.get(..length)?).ok()?;
            if answer.header.sequence_number == sequence {
                return match answer.payload {
                    NetlinkPayload::InnerMessage(SockDiagMessage::InetResponse(found)) => {
                        owner(&found.header, peer, local)
                    }
                    _ => None,
                };
            }
        }
    }
}

/// Who owns the socket that was found. Where the peer's own has gone, the kernel finds one that listens at its port, whoever's it
/// is; and a socket that its process has closed has no inode, and the user 0.
fn owner(found: &InetResponseHeader, peer: SocketAddr, local: SocketAddr) -> Option<u32> {
    let id = &found.socket_id;
    let is_the_peers = id.source_port == peer.port() && id.destination_port == local.port();
    (is_the_peers && found.inode != 0).then_some(found.uid)
}

fn request(peer: SocketAddr, local: SocketAddr, sequence: u32) -> Vec<u8> {
    let mut header = NetlinkHeader::default();
    header.flags = NLM_F_REQUEST;
    header.sequence_number = sequence;
    let asked = InetRequest {
        family: if peer.is_ipv4() { AF_INET } else { AF_INET6 },
        protocol: IPPROTO_TCP,
        extensions: ExtensionFlags::empty(),
        states: StateFlags::all(),
        // Its source is the peer: the kernel is asked for the other end's socket, not for ours.
        socket_id: SocketId {
            source_port: peer.port(),
            destination_port: local.port(),
            source_address: peer.ip(),
            destination_address: local.ip(),
            interface_id: 0,
            cookie: ANY_COOKIE,
        },
    };
    let mut message = NetlinkMessage::new(header, SockDiagMessage::InetRequest(asked).into());
    message.finalize();
    let mut bytes = vec![0; message.buffer_len()];
    message.serialize(&mut bytes);
    bytes
}

#[cfg(test)]
mod tests {
    use std::net::{TcpListener, TcpStream};

    use super::*;

    #[test]
    fn the_kernel_has_the_user_of_a_connection() {
        let diag = SockDiag::open().unwrap();
        for any in ["127.0.0.1:0", "[::1]:0"] {
            let listener = TcpListener::bind(any).unwrap();
            let local = listener.local_addr().unwrap();
            let client = TcpStream::connect(local).unwrap();
            let peer = client.local_addr().unwrap();
            assert_eq!(diag.user(peer, local), Some(nix::unistd::geteuid().as_raw()));
            let nobody = SocketAddr::new(peer.ip(), 1);
            assert_eq!(diag.user(nobody, local), None, "there is no such connection");
        }
    }

    /// Whoever connects and closes at once would be root, or whoever listens at the port that it had.
    #[test]
    fn a_socket_that_is_closed_is_nobodys() {
        let diag = SockDiag::open().unwrap();
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let local = listener.local_addr().unwrap();
        let client = TcpStream::connect(local).unwrap();
        let (_accepted, peer) = listener.accept().unwrap();
        drop(client);
        assert_eq!(diag.user(peer, local), None);
        let other = TcpListener::bind("127.0.0.1:0").unwrap();
        assert_eq!(diag.user(other.local_addr().unwrap(), local), None, "it listens, and is connected to nothing");
    }
}
