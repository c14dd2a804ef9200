//! Where the server listens: an address, or a socket in the file system.

use std::fmt::{self, Display};
use std::fs;
use std::io;
use std::net::SocketAddr;
use std::os::unix::fs::{FileTypeExt as _, PermissionsExt as _};
use std::path::{Path, PathBuf};

use anyhow::{Context, Result};
use rustix::fs::{Mode, fchmod};
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::{TcpListener, TcpSocket, UnixListener, UnixSocket};

use super::peer::{Peer, Peers};
use crate::place;

/// How many connections the kernel keeps for us until we take them: its own default limit (net.core.somaxconn). One that finds no room tries
/// again a second later, and two after that. On a busy host users who connect on and on bring some thousands in the time in which our
/// thread gets no processor.
const BACKLOG: u32 = 4096;

/// What `--metrics-listen` names.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Listen {
    /// An address.
    Tcp(SocketAddr),
    /// A path in the file system.
    Unix(PathBuf),
}

impl Display for Listen {
    fn fmt(&self, to: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Tcp(address) => write!(to, "{address}"),
            Self::Unix(path) => write!(to, "unix:{}", path.display()),
        }
    }
}

/// One end of a connection, whatever it is made of.
pub(super) trait Stream: AsyncRead + AsyncWrite + Unpin + Send {}

impl<S: AsyncRead + AsyncWrite + Unpin + Send> Stream for S {}

/// A connection that has come.
pub(super) struct Arrival {
    pub(super) stream: Box<dyn Stream>,
    pub(super) peer: Peer,
    /// The address of ours that it came to; `None` means a socket in the file system.
    pub(super) local: Option<SocketAddr>,
}

pub(super) enum Listener {
    Tcp(TcpListener),
    Unix(UnixListener),
}

impl Listener {
    /// Listens. Call it within the runtime. `for_all`: every user may connect to a socket in the file system, because each is
    /// judged by its uid.
    pub(super) fn bind(at: &Listen, for_all: bool) -> Result<Self> {
        let what = || format!("failed to listen on `{at}`");
        match at {
            Listen::Tcp(address) => {
                let socket = if address.is_ipv4() { TcpSocket::new_v4() } else { TcpSocket::new_v6() };
                let socket = socket.with_context(what)?;
                // A port of ours that still waits for its last packets is no reason to fail after a restart.
                socket.set_reuseaddr(true).with_context(what)?;
                socket.bind(*address).with_context(what)?;
                Ok(Self::Tcp(socket.listen(BACKLOG).with_context(what)?))
            }
            Listen::Unix(path) => {
                let mode = if for_all { 0o666 } else { 0o660 };
                Ok(Self::Unix(bind_path(path, mode).with_context(what)?))
            }
        }
    }

    /// The address or path, with the port that the kernel chose for 0.
    pub(super) fn bound(&self, asked: &Listen) -> io::Result<Listen> {
        match self {
            Self::Tcp(listener) => listener.local_addr().map(Listen::Tcp),
            Self::Unix(_) => Ok(asked.clone()),
        }
    }

    pub(super) async fn accept(&self, peers: &Peers) -> io::Result<Arrival> {
        match self {
            Self::Tcp(listener) => {
                let (stream, address) = listener.accept().await?;
                let (peer, local) = peers.of_tcp(&stream, address);
                Ok(Arrival { stream: Box::new(stream), peer, local })
            }
            Self::Unix(listener) => {
                let (stream, _) = listener.accept().await?;
                let peer = Peers::of_unix(&stream);
                Ok(Arrival { stream: Box::new(stream), peer, local: None })
            }
        }
    }
}

/// Listens at a path that others can lead nowhere else.
fn bind_path(path: &Path, mode: u32) -> Result<UnixListener> {
    let path = place::lasting(path)?;
    make_room(&path)?;
    let socket = UnixSocket::new_stream()?;
    // Before it has a name, so that nobody connects who may not, whatever the umask. The bits that the umask removes are set again.
    fchmod(&socket, Mode::from_raw_mode(mode)).map_err(io::Error::from)?;
    socket.bind(&path)?;
    fs::set_permissions(&path, fs::Permissions::from_mode(mode))?;
    Ok(socket.listen(BACKLOG)?)
}

/// Removes the socket of an agent that has ended.
fn make_room(path: &Path) -> io::Result<()> {
    let Ok(there) = fs::symlink_metadata(path) else { return Ok(()) };
    let is_dead = || {
        let connected = std::os::unix::net::UnixStream::connect(path);
        connected.is_err_and(|error| error.kind() == io::ErrorKind::ConnectionRefused)
    };
    if there.file_type().is_socket() && is_dead() { fs::remove_file(path) } else { Ok(()) }
}
