//! The file of `--web.config.file`, understood: YAML in the format of Prometheus' exporters (prometheus/exporter-toolkit). What isn't known or
//! not done here is an error, so that nobody relies on it.

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::str::FromStr as _;

use anyhow::{Context, Result, anyhow, bail};
use hyper::header::{HeaderName, HeaderValue};
use saphyr::{LoadableYamlNode as _, Yaml};

/// The highest cost of a password's hash: above a second, and each step doubles it.
const COST_MAX: u32 = 14;

/// The headers that the exporters let the file set.
const HEADERS: [&str; 5] = [
    "Content-Security-Policy",
    "Strict-Transport-Security",
    "X-Content-Type-Options",
    "X-Frame-Options",
    "X-XSS-Protection",
];

/// The file's settings.
#[derive(Debug, Default, PartialEq, Eq)]
pub(super) struct Document {
    /// `None` means plain HTTP.
    pub(super) tls: Option<Tls>,
    /// Added to every answer.
    pub(super) headers: Vec<(HeaderName, HeaderValue)>,
    /// Bcrypt hashes by user name.
    pub(super) users: BTreeMap<String, String>,
}

/// `tls_server_config`
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Tls {
    pub(super) cert: Pem,
    pub(super) key: Pem,
    pub(super) client_ca: Option<Pem>,
    pub(super) client_auth: ClientAuth,
    /// Names of which a client's certificate must have one. `None` means that any will do.
    pub(super) client_allowed_sans: Option<Vec<String>>,
    /// From 2 to 3, for TLS 1.2 and 1.3.
    pub(super) versions: (u8, u8),
    /// The cipher suites of TLS 1.2. `None` means all that there are.
    pub(super) cipher_suites: Option<Vec<String>>,
    /// `None` means all that there are.
    pub(super) curves: Option<Vec<String>>,
    pub(super) prefers_own_order: bool,
}

/// Where a certificate or a key is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Pem {
    /// In a file.
    File(PathBuf),
    /// In the settings themselves.
    Text(String),
}

/// `client_auth_type`
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum ClientAuth {
    None,
    IfGiven,
    Required,
}

impl Document {
    pub(super) fn parse(text: &str) -> Result<Self> {
        let documents = Yaml::load_from_str(text).context("it is no YAML")?;
        let mut document = Self::default();
        let Some(root) = documents.first() else { return Ok(document) };
        for (key, value) in entries("the file", root)? {
            match key {
                "tls_server_config" => document.tls = Some(tls(value)?),
                "http_server_config" => document.headers = http(value)?,
                "basic_auth_users" => document.users = users(value)?,
                other => bail!(
                    "`{other}` is not supported: only tls_server_config and basic_auth_users are, and http_server_config"
                ),
            }
        }
        Ok(document)
    }
}

/// The settings of TLS before they are held against one another.
#[derive(Default)]
struct TlsLines<'a> {
    texts: BTreeMap<&'a str, String>,
    lists: BTreeMap<&'a str, Vec<String>>,
    ignores_own_order: bool,
}

fn tls(value: &Yaml<'_>) -> Result<Tls> {
    const WHAT: &str = "tls_server_config";
    let mut lines = TlsLines::default();
    for (name, value) in entries(WHAT, value)? {
        match name {
            "cert" | "key" | "client_ca" | "cert_file" | "key_file" | "client_ca_file" | "client_auth_type"
            | "min_version" | "max_version" => {
                let text = value.as_str().with_context(|| format!("`{name}` in {WHAT} is no text"))?;
                if !text.is_empty() {
                    lines.texts.insert(name, text.to_owned());
                }
            }
            "client_allowed_sans" | "cipher_suites" | "curve_preferences" => {
                lines.lists.insert(name, texts(name, value)?);
            }
            "prefer_server_cipher_suites" => {
                lines.ignores_own_order = !value.as_bool().with_context(|| format!("`{name}` is true or false"))?;
            }
            other => bail!("`{other}` in {WHAT} is not supported"),
        }
    }
    lines.meant()
}

impl TlsLines<'_> {
    fn pem(&mut self, text: &str, file: &str) -> Result<Option<Pem>> {
        match (self.texts.remove(text), self.texts.remove(file)) {
            (Some(_), Some(_)) => bail!("tls_server_config has both {text} and {file}: leave out one"),
            (Some(text), None) => Ok(Some(Pem::Text(text))),
            (None, file) => Ok(file.map(|path| Pem::File(path.into()))),
        }
    }

    fn meant(mut self) -> Result<Tls> {
        let (cert, key) = (self.pem("cert", "cert_file")?, self.pem("key", "key_file")?);
        let (Some(cert), Some(key)) = (cert, key) else {
            bail!("tls_server_config needs the paths of two files in PEM format: cert_file and key_file");
        };
        let client_ca = self.pem("client_ca", "client_ca_file")?;
        let client_auth = client_auth(self.texts.remove("client_auth_type").as_deref().unwrap_or_default())?;
        let client_allowed_sans = self.lists.remove("client_allowed_sans");
        match (client_auth, &client_ca) {
            (ClientAuth::None, Some(_)) => {
                bail!("client_ca_file does nothing without `client_auth_type: RequireAndVerifyClientCert`")
            }
            (ClientAuth::IfGiven | ClientAuth::Required, None) => {
                bail!("client_auth_type needs client_ca_file, by which clients' certificates are verified")
            }
            _ if client_allowed_sans.is_some() && client_auth != ClientAuth::Required => {
                bail!("client_allowed_sans needs `client_auth_type: RequireAndVerifyClientCert`")
            }
            _ => {}
        }
        if let Some(mail) = client_allowed_sans.iter().flatten().find(|name| name.contains('@') && !name.contains(':'))
        {
            bail!("`{mail}` in client_allowed_sans is not supported: only DNS names, addresses and URIs are");
        }
        let version = |name: &str, default: u8| match self.texts.get(name).map(String::as_str) {
            None => Ok(default),
            Some("TLS12") => Ok(2),
            Some("TLS13") => Ok(3),
            Some(other) => Err(anyhow!("{name} `{other}` is not supported: TLS12 and TLS13 are")),
        };
        let versions = (version("min_version", 2)?, version("max_version", 3)?);
        if versions.0 > versions.1 {
            bail!("min_version is above max_version");
        }
        Ok(Tls {
            cert,
            key,
            client_ca,
            client_auth,
            client_allowed_sans,
            versions,
            cipher_suites: self.lists.remove("cipher_suites").filter(|suites| !suites.is_empty()),
            curves: self.lists.remove("curve_preferences").filter(|curves| !curves.is_empty()),
            prefers_own_order: !self.ignores_own_order,
        })
    }
}

fn client_auth(text: &str) -> Result<ClientAuth> {
    match text {
        "" | "NoClientCert" => Ok(ClientAuth::None),
        "VerifyClientCertIfGiven" => Ok(ClientAuth::IfGiven),
        "RequireAndVerifyClientCert" => Ok(ClientAuth::Required),
        "RequestClientCert" | "RequireAnyClientCert" | "RequireClientCert" => {
            bail!(
                "client_auth_type {text} is not supported, as it lets in any certificate: RequireAndVerifyClientCert verifies it"
            )
        }
        other => bail!("client_auth_type `{other}` is not known: RequireAndVerifyClientCert is"),
    }
}

/// `http_server_config`: HTTP/2, which a server need not speak, and headers.
fn http(value: &Yaml<'_>) -> Result<Vec<(HeaderName, HeaderValue)>> {
    let mut headers = Vec::new();
    for (name, value) in entries("http_server_config", value)? {
        match name {
            "http2" if value.as_bool().is_some() => {}
            "http2" => bail!("`http2` is true or false"),
            "headers" => {
                for (name, value) in entries("headers", value)? {
                    headers.extend(header(name, value)?);
                }
            }
            other => bail!("`{other}` in http_server_config is not supported: only headers and http2 are"),
        }
    }
    Ok(headers)
}

fn header(name: &str, value: &Yaml<'_>) -> Result<Option<(HeaderName, HeaderValue)>> {
    if !HEADERS.iter().any(|known| known.eq_ignore_ascii_case(name)) {
        bail!("the header `{name}` can't be set, only {}", HEADERS.join(", "));
    }
    let text = value.as_str().with_context(|| format!("the header `{name}` is no text"))?;
    if text.is_empty() {
        return Ok(None);
    }
    let wrong = || format!("`{text}` is no value of a header");
    Ok(Some((HeaderName::from_bytes(name.as_bytes())?, HeaderValue::from_str(text).with_context(wrong)?)))
}

fn users(value: &Yaml<'_>) -> Result<BTreeMap<String, String>> {
    let mut users = BTreeMap::new();
    for (name, hash) in entries("basic_auth_users", value)? {
        let hash = hash.as_str().unwrap_or_default();
        let Ok(parts) = bcrypt::HashParts::from_str(hash) else {
            bail!("the password of user `{name}` is no bcrypt hash: `htpasswd -nBC 10 {name}` makes one");
        };
        if parts.get_cost() > COST_MAX {
            bail!(
                "the hash of user `{name}` has the cost {}, and takes longer to check than a client waits: at most {COST_MAX}, \
                 `htpasswd -nBC 10 {name}` makes one",
                parts.get_cost()
            );
        }
        users.insert(name.to_owned(), hash.to_owned());
    }
    Ok(users)
}

fn texts(what: &str, value: &Yaml<'_>) -> Result<Vec<String>> {
    let wrong = || format!("{what} is a list of texts");
    let list = value.as_sequence().with_context(wrong)?;
    list.iter().map(|text| Ok(text.as_str().with_context(wrong)?.to_owned())).collect()
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
        let tls = document.tls.unwrap();
        assert_eq!((tls.cert, tls.key), (Pem::File("server.crt".into()), Pem::File("/etc/server.key".into())));
        assert_eq!((tls.client_auth, tls.versions, tls.prefers_own_order), (ClientAuth::None, (2, 3), true));
        assert_eq!(document.users, BTreeMap::from([("alice".to_owned(), hash)]));
        for empty in ["", "# nothing\n", "{}", "basic_auth_users:\n"] {
            assert_eq!(Document::parse(empty).unwrap(), Document::default(), "{empty}");
        }
    }

    /// Every field that the exporters have and we do.
    #[test]
    fn a_file_with_everything_is_understood() {
        let text = "tls_server_config:\n  cert: |\n    CERT\n  key: KEY\n  client_ca_file: ca.pem\n  \
                    client_auth_type: RequireAndVerifyClientCert\n  client_allowed_sans: [prometheus.example.net, 192.0.2.1]\n  \
                    min_version: TLS13\n  max_version: TLS13\n  cipher_suites: [A]\n  curve_preferences: [X25519]\n  \
                    prefer_server_cipher_suites: false\n\
                    http_server_config:\n  http2: false\n  headers:\n    X-Frame-Options: deny\n    X-XSS-Protection: \"\"\n";
        let document = Document::parse(text).unwrap();
        let tls = document.tls.unwrap();
        assert_eq!((tls.cert, tls.key), (Pem::Text("CERT\n".to_owned()), Pem::Text("KEY".to_owned())));
        assert_eq!((tls.client_ca, tls.client_auth), (Some(Pem::File("ca.pem".into())), ClientAuth::Required));
        assert_eq!(tls.client_allowed_sans.unwrap(), ["prometheus.example.net", "192.0.2.1"]);
        assert_eq!((tls.versions, tls.prefers_own_order), ((3, 3), false));
        assert_eq!(document.headers, [("x-frame-options".parse().unwrap(), HeaderValue::from_static("deny"))]);
    }

    #[test]
    fn what_is_wrong_is_said_with_the_cure() {
        let with_tls = |line: &str| format!("tls_server_config:\n  cert_file: x\n  key_file: y\n  {line}\n");
        let costly = format!("basic_auth_users:\n  alice: {}\n", bcrypt::hash("x", 4).unwrap().replace("$04$", "$31$"));
        for (text, said) in [
            (
                "rate_limit:\n  burst: 20\n",
                "`rate_limit` is not supported: only tls_server_config and basic_auth_users are",
            ),
            ("tls_server_config:\n  client_ca: x\n", "two files in PEM format: cert_file and key_file"),
            ("tls_server_config:\n  cert_file: x\n", "two files in PEM format: cert_file and key_file"),
            ("tls_server_config: {}\n", "two files in PEM format: cert_file and key_file"),
            (&with_tls("client_ca_file: x"), "client_ca_file does nothing without"),
            (&with_tls("client_auth_type: RequireAndVerifyClientCert"), "needs client_ca_file"),
            (&with_tls("client_auth_type: RequireAnyClientCert"), "it lets in any certificate"),
            (&with_tls("client_allowed_sans: [x]"), "client_allowed_sans needs `client_auth_type"),
            (&with_tls("cert: x"), "both cert and cert_file"),
            (&with_tls("min_version: TLS10"), "min_version `TLS10` is not supported"),
            (&with_tls("key_fil: x"), "`key_fil` in tls_server_config is not supported"),
            ("http_server_config:\n  headers:\n    Server: x\n", "the header `Server` can't be set"),
            ("http_server_config:\n  http3: true\n", "`http3` in http_server_config is not supported"),
            ("basic_auth_users:\n  alice: secret\n", "`htpasswd -nBC 10 alice` makes one"),
            (&costly, "has the cost 31"),
            ("basic_auth_users: alice\n", "`name: value`"),
            ("basic_auth_users:\n  7: x\n", "quote it"),
            ("a: b: c\n", "it is no YAML"),
        ] {
            let error = format!("{:#}", Document::parse(text).unwrap_err());
            assert!(error.contains(said), "{text}: {error}");
        }
    }
}
