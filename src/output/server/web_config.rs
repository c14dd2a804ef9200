//! `--web.config.file`: TLS, certificates of clients and basic authentication, read again when they change.

use std::fs;
use std::os::unix::fs::MetadataExt as _;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError};

use anyhow::{Context, Result, bail};
use hyper::header::{HeaderName, HeaderValue};
use tokio_rustls::TlsAcceptor;

use super::document::{ClientAuth, Document, Pem};
use super::tls;
use super::users::Users;

/// The settings in the file.
pub(super) struct WebConfig {
    /// `None` means plain HTTP.
    pub(super) tls: Option<TlsAcceptor>,
    /// Clients must have a certificate that is verified.
    pub(super) needs_certificate: bool,
    /// Nobody: all are let in.
    pub(super) users: Users,
    /// Added to every answer.
    pub(super) headers: Vec<(HeaderName, HeaderValue)>,
}

/// The file, read again where it, the certificate or the key has changed.
pub(super) struct WebConfigFile {
    path: PathBuf,
    now: Mutex<Now>,
}

struct Now {
    config: Arc<WebConfig>,
    versions: Vec<Option<Version>>,
    files: Vec<PathBuf>,
}

/// Device, inode, size and time of change of a file: other ones mean that it must be read again.
#[derive(Clone, Copy, PartialEq, Eq)]
struct Version(u64, u64, u64, i64, i64);

impl Version {
    fn of(path: &PathBuf) -> Option<Self> {
        let metadata = fs::metadata(path).ok()?;
        Some(Self(metadata.dev(), metadata.ino(), metadata.size(), metadata.ctime(), metadata.ctime_nsec()))
    }
}

impl WebConfigFile {
    /// Reads the file.
    pub(super) fn open(path: &Path) -> Result<Self> {
        let now = Now::read(path)?;
        Ok(Self { path: path.to_owned(), now: Mutex::new(now) })
    }

    /// What the file says now. Where it can't be read, or would open what is closed, it is what it said before: a file is
    /// empty while it is being written, and no reason to let everybody in.
    pub(super) fn current(&self) -> Arc<WebConfig> {
        let mut now = self.now.lock().unwrap_or_else(PoisonError::into_inner);
        let versions: Vec<_> = now.files.iter().map(Version::of).collect();
        if versions != now.versions {
            match Now::read(&self.path).and_then(|next| now.check(next)) {
                Ok(next) => *now = next,
                Err(error) => {
                    now.versions = versions;
                    say!("faultline: {error:#}: the settings that it had before stay in force");
                }
            }
        }
        now.config.clone()
    }
}

impl Now {
    fn read(path: &Path) -> Result<Self> {
        let what = || format!("failed to read `{}`", path.display());
        // The versions first: what is changed while it is read is read again.
        let version = Version::of(&path.to_owned());
        let text = fs::read_to_string(path).with_context(what)?;
        let document = Document::parse(&text).with_context(what)?;
        let (mut files, mut versions) = (vec![path.to_owned()], vec![version]);
        // As in the exporters: relative to the file.
        let folder = path.parent().unwrap_or(Path::new(""));
        let pems = document.tls.iter().flat_map(|tls| [Some(&tls.cert), Some(&tls.key), tls.client_ca.as_ref()]);
        for pem in pems.flatten() {
            if let Pem::File(name) = pem {
                let file = folder.join(name);
                versions.push(Version::of(&file));
                files.push(file);
            }
        }
        let acceptor = document.tls.as_ref().map(|tls| tls::acceptor(tls, folder)).transpose().with_context(what)?;
        let config = WebConfig {
            tls: acceptor,
            needs_certificate: document.tls.is_some_and(|tls| tls.client_auth == ClientAuth::Required),
            users: Users::new(document.users),
            headers: document.headers,
        };
        Ok(Self { config: Arc::new(config), versions, files })
    }

    /// The next state, if it takes nothing away that protects.
    fn check(&self, next: Self) -> Result<Self> {
        let (old, new) = (&self.config, &next.config);
        let is_less = old.tls.is_some() && new.tls.is_none()
            || old.needs_certificate && !new.needs_certificate
            || !old.users.is_empty() && new.users.is_empty();
        if is_less {
            bail!(
                "`{}` no longer asks for TLS, for clients' certificates or for passwords: restart the agent if that is meant",
                self.files[0].display()
            );
        }
        Ok(next)
    }
}
