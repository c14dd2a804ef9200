//! `--web.config.file`: TLS and basic authentication, in the format of Prometheus' exporters (prometheus/exporter-toolkit).

use std::collections::BTreeMap;
use std::fs::{self, File};
use std::os::unix::fs::MetadataExt as _;
use std::path::{Path, PathBuf};
use std::str::FromStr as _;
use std::sync::{Arc, Mutex, PoisonError};

use anyhow::{Context, Result, anyhow, bail};
use rustls::ServerConfig;
use rustls::pki_types::pem::PemObject as _;
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use rustls::server::NoServerSessionStorage;
use saphyr::{LoadableYamlNode as _, Yaml};
use tokio_rustls::TlsAcceptor;

use super::users::Users;

/// The settings in the file.
pub(super) struct WebConfig {
    /// `None` means plain HTTP.
    pub(super) tls: Option<TlsAcceptor>,
    /// Nobody: all are let in.
    pub(super) users: Users,
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
                    say!("faultline: {error:#}: what it said before stays in force");
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
        let tls = match document.tls {
            None => None,
            Some((cert, key)) => {
                // As in the exporters: relative to the file.
                let folder = path.parent().unwrap_or(Path::new(""));
                let (cert, key) = (folder.join(cert), folder.join(key));
                versions.extend([Version::of(&cert), Version::of(&key)]);
                let tls = tls(&cert, &key).with_context(what)?;
                files.extend([cert, key]);
                Some(tls)
            }
        };
        Ok(Self { config: Arc::new(WebConfig { tls, users: Users::new(document.users) }), versions, files })
    }

    /// The next state, if it takes nothing away that protects.
    fn check(&self, next: Self) -> Result<Self> {
        let (old, new) = (&self.config, &next.config);
        if old.tls.is_some() && new.tls.is_none() || !old.users.is_empty() && new.users.is_empty() {
            bail!(
                "`{}` no longer asks for TLS or passwords: restart the agent if that is meant",
                self.files[0].display()
            );
        }
        Ok(next)
    }
}

/// The certificate and key as a server.
fn tls(cert: &Path, key: &Path) -> Result<TlsAcceptor> {
    let certificates = |path: &Path| -> Result<Vec<CertificateDer<'static>>> {
        File::open(path)?;
        Ok(CertificateDer::pem_file_iter(path)?.collect::<Result<_, _>>()?)
    };
    let chain = certificates(cert).with_context(|| format!("cert_file `{}`", cert.display()))?;
    if chain.is_empty() {
        bail!("cert_file `{}` has no certificate in PEM format", cert.display());
    }
    let key_of = |path: &Path| -> Result<PrivateKeyDer<'static>> {
        File::open(path)?;
        PrivateKeyDer::from_pem_file(path).map_err(|_| anyhow!("it has no private key in PEM format"))
    };
    let private = key_of(key).with_context(|| format!("key_file `{}`", key.display()))?;
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let mut config = ServerConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()
        .context("failed to set up TLS")?
        .with_no_client_auth()
        .with_single_cert(chain, private)
        .with_context(|| format!("failed to use `{}` with the key `{}`", cert.display(), key.display()))?;
    config.alpn_protocols = vec![b"http/1.1".to_vec()];
    // A scrape every few seconds needs no memory of the last one.
    config.session_storage = Arc::new(NoServerSessionStorage {});
    config.send_tls13_tickets = 0;
    Ok(TlsAcceptor::from(Arc::new(config)))
}

/// The file's text, understood.
#[derive(Debug, Default, PartialEq, Eq)]
struct Document {
    /// Certificate and key.
    tls: Option<(PathBuf, PathBuf)>,
    /// Bcrypt hashes by user name.
    users: BTreeMap<String, String>,
}

impl Document {
    fn parse(text: &str) -> Result<Self> {
        let documents = Yaml::load_from_str(text).context("it is no YAML")?;
        let mut document = Self::default();
        let Some(root) = documents.first() else { return Ok(document) };
        for (key, value) in entries("the file", root)? {
            match key {
                "tls_server_config" => document.tls = Some(tls_files(value)?),
                "basic_auth_users" => document.users = users(value)?,
                other => bail!("`{other}` is not supported: only tls_server_config and basic_auth_users are"),
            }
        }
        Ok(document)
    }
}

fn tls_files(value: &Yaml<'_>) -> Result<(PathBuf, PathBuf)> {
    let (mut cert, mut key) = (None, None);
    for (name, value) in entries("tls_server_config", value)? {
        let file = match name {
            "cert_file" => &mut cert,
            "key_file" => &mut key,
            other => bail!("`{other}` in tls_server_config is not supported: only cert_file and key_file are"),
        };
        *file = value.as_str().filter(|path| !path.is_empty()).map(PathBuf::from);
    }
    match (cert, key) {
        (Some(cert), Some(key)) => Ok((cert, key)),
        _ => bail!("tls_server_config needs the paths of two files in PEM format: cert_file and key_file"),
    }
}

fn users(value: &Yaml<'_>) -> Result<BTreeMap<String, String>> {
    let mut users = BTreeMap::new();
    for (name, hash) in entries("basic_auth_users", value)? {
        let Some(hash) = hash.as_str().filter(|hash| bcrypt::HashParts::from_str(hash).is_ok()) else {
            bail!("the password of user `{name}` is no bcrypt hash: `htpasswd -nBC 10 {name}` makes one");
        };
        users.insert(name.to_owned(), hash.to_owned());
    }
    Ok(users)
}

/// The keys and values of a mapping; nothing is an empty one.
fn entries<'a>(what: &str, value: &'a Yaml<'_>) -> Result<Vec<(&'a str, &'a Yaml<'a>)>> {
    if value.is_null() {
        return Ok(Vec::new());
    }
    let mapping = value.as_mapping().with_context(|| format!("{what} must have lines of the form `name: value`"))?;
    let text = |key: &'a Yaml<'a>| key.as_str().with_context(|| format!("a name in {what} is no text: quote it"));
    mapping.iter().map(|(key, value)| Ok((text(key)?, value))).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_exporters_file_is_understood() {
        let hash = bcrypt::hash("pass", 4).unwrap();
        let text = format!(
            "# TLS\ntls_server_config:\n  cert_file: server.crt\n  key_file: \"/etc/server.key\"\nbasic_auth_users:\n  alice: {hash}\n"
        );
        let document = Document::parse(&text).unwrap();
        assert_eq!(document.tls, Some(("server.crt".into(), "/etc/server.key".into())));
        assert_eq!(document.users, BTreeMap::from([("alice".to_owned(), hash)]));
        for empty in ["", "# nothing\n", "{}", "basic_auth_users:\n"] {
            assert_eq!(Document::parse(empty).unwrap(), Document::default(), "{empty}");
        }
    }

    #[test]
    fn what_is_wrong_is_said_with_the_cure() {
        for (text, said) in [
            (
                "rate_limit:\n  burst: 20\n",
                "`rate_limit` is not supported: only tls_server_config and basic_auth_users are",
            ),
            ("tls_server_config:\n  client_ca_file: x\n", "`client_ca_file` in tls_server_config is not supported"),
            ("tls_server_config:\n  cert_file: x\n", "two files in PEM format: cert_file and key_file"),
            ("tls_server_config: {}\n", "two files in PEM format: cert_file and key_file"),
            ("basic_auth_users:\n  alice: secret\n", "`htpasswd -nBC 10 alice` makes one"),
            ("basic_auth_users: alice\n", "`name: value`"),
            ("basic_auth_users:\n  7: x\n", "quote it"),
            ("a: b: c\n", "it is no YAML"),
        ] {
            let error = format!("{:#}", Document::parse(text).unwrap_err());
            assert!(error.contains(said), "{text}: {error}");
        }
    }
}
