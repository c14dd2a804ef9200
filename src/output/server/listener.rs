//! Where the server listens: an address, or a socket in the file system.

use std::fmt::{self, Display};
use std::fs;
use std::io;
use std::net::SocketAddr;
use std::os::unix::fs::{FileTypeExt as _, MetadataExt as _, PermissionsExt as _};
use std::path::{Path, PathBuf};

use anyhow::{Context, Result, bail};
use nix::unistd::geteuid;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::{TcpListener, TcpSocket, UnixListener};

use super::peer::{Peer, Peers};

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
                make_room(path).with_context(what)?;
                let listener = UnixListener::bind(path).with_context(what)?;
                // Nobody else can have replaced it: the folder is ours.
                let mode = if for_all { 0o666 } else { 0o660 };
                fs::set_permissions(path, fs::Permissions::from_mode(mode)).with_context(what)?;
                Ok(Self::Unix(listener))
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

/// Removes the socket of an agent that has ended. The folder must be one that only root and we can change, or others could put theirs in its
/// place.
fn make_room(path: &Path) -> Result<()> {
    let folder = path.parent().filter(|folder| !folder.as_os_str().is_empty()).unwrap_or(Path::new("."));
    let metadata = fs::metadata(folder)?;
    let is_ours = metadata.uid() == 0 || metadata.uid() == geteuid().as_raw();
    if !is_ours || metadata.mode() & 0o022 != 0 {
        bail!(
            "others may write to `{}`: choose a folder that only root or the agent's user may write to, as /run/faultline",
            folder.display()
        );
    }
    let Ok(there) = fs::symlink_metadata(path) else { return Ok(()) };
    if there.file_type().is_socket() && std::os::unix::net::UnixStream::connect(path).is_err() {
        fs::remove_file(path)?;
    }
    Ok(())
}
