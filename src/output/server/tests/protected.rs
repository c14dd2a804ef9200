//! TLS and passwords, as the file of `--web.config.file` says.

use std::fs;
use std::io::{Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::path::{Path, PathBuf};
use std::sync::Arc;

use base64::Engine as _;
use rustls::pki_types::pem::PemObject as _;
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use rustls::{ClientConfig, ClientConnection, RootCertStore, StreamOwned};

use super::{LIMITS, PATIENT, PROMPT, REQUEST, all_of, ask, connect, listening, serve};
use crate::output::server::peer::Peers;
use crate::output::server::{Health, Server, Source, WebConfigFile};

/// Removed when dropped.
struct Folder(PathBuf);

impl Folder {
    fn new(name: &str) -> Self {
        let path = std::env::temp_dir().join(format!("faultline-web-{name}-{}", std::process::id()));
        fs::create_dir(&path).unwrap();
        Self(path)
    }

    fn write(&self, name: &str, text: &str) -> PathBuf {
        // At once, as a certificate should be replaced.
        let (path, new) = (self.0.join(name), self.0.join(format!("{name}.new")));
        fs::write(&new, text).unwrap();
        fs::rename(&new, &path).unwrap();
        path
    }

    /// A key and a certificate by which it is `localhost`.
    fn certify(&self) {
        let rcgen::CertifiedKey { cert, signing_key } =
            rcgen::generate_simple_self_signed(["localhost".to_owned()]).unwrap();
        self.write("server.key", &signing_key.serialize_pem());
        self.write("server.crt", &cert.pem());
    }
}

impl Drop for Folder {
    fn drop(&mut self) {
        let _ = fs::remove_dir_all(&self.0);
    }
}

const TLS: &str = "tls_server_config:\n  cert_file: server.crt\n  key_file: server.key\n";

fn users(names: &[(&str, &str)]) -> String {
    let lines = names.iter().map(|(name, password)| format!("  {name}: {}\n", bcrypt::hash(password, 4).unwrap()));
    format!("basic_auth_users:\n{}", lines.collect::<String>())
}

fn request_by(name: &str, password: &str) -> String {
    let encoded = base64::engine::general_purpose::STANDARD.encode(format!("{name}:{password}"));
    format!("GET /metrics HTTP/1.1\r\nHost: localhost\r\nAuthorization: Basic {encoded}\r\n\r\n")
}

/// A client that believes this certificate alone. `None` means that the server has shown another.
fn ask_by_tls(address: SocketAddr, certificate: &Path, request: &str) -> Option<String> {
    ask_as(address, certificate, None, request)
}

/// The same, with a certificate and a key of its own. `None` as well where the server does not let it in.
fn ask_as(
    address: SocketAddr,
    certificate: &Path,
    own: Option<(CertificateDer<'static>, PrivateKeyDer<'static>)>,
    request: &str,
) -> Option<String> {
    let mut roots = RootCertStore::empty();
    roots.add(CertificateDer::from_pem_file(certificate).unwrap()).unwrap();
    let config = ClientConfig::builder_with_provider(Arc::new(rustls::crypto::ring::default_provider()))
        .with_safe_default_protocol_versions()
        .unwrap()
        .with_root_certificates(roots);
    let config = match own {
        None => config.with_no_client_auth(),
        Some((certificate, key)) => config.with_client_auth_cert(vec![certificate], key).unwrap(),
    };
    let client = ClientConnection::new(Arc::new(config), "localhost".try_into().unwrap()).unwrap();
    let mut stream = StreamOwned::new(client, connect(address));
    stream.write_all(request.as_bytes()).ok()?;
    let mut answer = String::new();
    // A server that refuses the certificate says so only now.
    match stream.read_to_string(&mut answer) {
        Err(error) if error.kind() == std::io::ErrorKind::InvalidData => None,
        _ if answer.is_empty() => None,
        _ => Some(answer),
    }
}

#[test]
fn metrics_are_served_by_tls_to_whom_has_a_password() {
    let folder = Folder::new("both");
    folder.certify();
    let config = folder.write("web.yml", &format!("{TLS}{}", users(&[("prometheus", "geheim"), ("bob", "b:ob")])));
    let address = serve(1 << 20, LIMITS, Some(&config));
    let certificate = folder.0.join("server.crt");
    let ask = |request: &str| ask_by_tls(address, &certificate, request).unwrap();
    for _ in 0..2 {
        let answer = ask(&request_by("prometheus", "geheim"));
        assert!(answer.starts_with("HTTP/1.1 200 OK\r\n") && answer.ends_with("numbers_total 1\n"), "{answer:.200}");
    }
    assert!(ask(&request_by("bob", "b:ob")).starts_with("HTTP/1.1 200 OK\r\n"));
    let long = "x".repeat(100);
    for (name, password) in [("bob", "geheim"), ("bob", ""), ("", ""), ("alice", "geheim"), ("prometheus", &long)] {
        let answer = ask(&request_by(name, password));
        assert!(answer.starts_with("HTTP/1.1 401 ") && answer.contains("www-authenticate: Basic"), "{name}: {answer}");
        assert!(!answer.contains("numbers"), "{answer}");
    }
    for path in ["/metrics", "/healthz", "/"] {
        assert!(ask(&format!("GET {path} HTTP/1.1\r\nHost: localhost\r\n\r\n")).starts_with("HTTP/1.1 401 "), "{path}");
    }
    assert!(!super::ask(address, &request_by("prometheus", "geheim")).contains("numbers"), "without TLS nothing");
}

#[test]
fn slow_handshakes_and_guessed_passwords_delay_nobody_who_is_known() {
    let folder = Folder::new("slow");
    folder.certify();
    // As costly as is usual and more, in a debug build.
    let hash = bcrypt::hash("geheim", 12).unwrap();
    let config = folder.write("web.yml", &format!("{TLS}basic_auth_users:\n  prometheus: {hash}\n"));
    let address = serve(3, PATIENT, Some(&config));
    let certificate = folder.0.join("server.crt");
    assert!(ask_by_tls(address, &certificate, &request_by("prometheus", "geheim")).unwrap().contains("200 OK"));
    let silent: Vec<TcpStream> = (0..100).map(|_| connect(address)).collect();
    std::thread::scope(|scope| {
        for guess in 0..8 {
            let certificate = &certificate;
            scope.spawn(move || ask_by_tls(address, certificate, &request_by("prometheus", &format!("{guess}"))));
        }
        for _ in 0..20 {
            let begun = std::time::Instant::now();
            let answer = ask_by_tls(address, &certificate, &request_by("prometheus", "geheim")).unwrap();
            assert!(answer.contains("200 OK") && begun.elapsed() < PROMPT, "{:?} {answer}", begun.elapsed());
        }
    });
    drop(silent);
}

#[test]
fn a_new_certificate_and_new_users_are_in_force_at_once_and_a_damaged_file_never() {
    let folder = Folder::new("anew");
    folder.certify();
    let config = folder.write("web.yml", &format!("{TLS}{}", users(&[("alice", "one")])));
    let address = serve(3, LIMITS, Some(&config));
    let (certificate, old) = (folder.0.join("server.crt"), folder.0.join("old.crt"));
    fs::copy(&certificate, &old).unwrap();
    let is_let_in = |certificate: &Path, name: &str, password: &str| {
        ask_by_tls(address, certificate, &request_by(name, password))
            .map(|answer| answer.starts_with("HTTP/1.1 200 OK"))
    };
    assert_eq!(is_let_in(&old, "alice", "one"), Some(true));
    folder.certify();
    assert_eq!(is_let_in(&old, "alice", "one"), None, "the old certificate is no longer shown");
    assert_eq!(is_let_in(&certificate, "alice", "one"), Some(true));
    folder.write("web.yml", &format!("{TLS}{}", users(&[("alice", "two"), ("bob", "b")])));
    assert_eq!(is_let_in(&certificate, "alice", "one"), Some(false));
    assert_eq!(is_let_in(&certificate, "alice", "two"), Some(true));
    for damaged in ["", "a: b: c", TLS, &users(&[("eve", "e")]), "tls_server_config: {cert_file: x, key_file: y}"] {
        folder.write("web.yml", damaged);
        assert_eq!(is_let_in(&certificate, "bob", "b"), Some(true), "{damaged}");
        assert_eq!(is_let_in(&certificate, "eve", "e"), Some(false), "{damaged}");
        assert!(!ask(address, REQUEST).contains("numbers"), "{damaged}");
    }
    folder.write("web.yml", &format!("{TLS}{}", users(&[("eve", "e")])));
    assert_eq!(is_let_in(&certificate, "eve", "e"), Some(true), "and goes on when it is whole");
}

/// An authority, and certificates of clients that it has signed.
struct Authority(rcgen::CertifiedIssuer<'static, rcgen::KeyPair>);

impl Authority {
    fn new() -> Self {
        let mut params = rcgen::CertificateParams::default();
        params.is_ca = rcgen::IsCa::Ca(rcgen::BasicConstraints::Unconstrained);
        Self(rcgen::CertifiedIssuer::self_signed(params, rcgen::KeyPair::generate().unwrap()).unwrap())
    }

    fn client(&self, name: &str) -> (CertificateDer<'static>, PrivateKeyDer<'static>) {
        let key = rcgen::KeyPair::generate().unwrap();
        let params = rcgen::CertificateParams::new([name.to_owned()]).unwrap();
        let certificate = params.signed_by(&key, &self.0).unwrap();
        (certificate.der().clone(), PrivateKeyDer::try_from(key.serialize_der()).unwrap())
    }
}

#[test]
fn only_clients_with_a_verified_certificate_of_an_allowed_name_are_answered() {
    let folder = Folder::new("clients");
    folder.certify();
    let (authority, other) = (Authority::new(), Authority::new());
    folder.write("ca.crt", &authority.0.pem());
    let certificate = folder.0.join("server.crt");
    let is_let_in = |address: SocketAddr, own: Option<_>| {
        let answer = ask_as(address, &certificate, own, REQUEST);
        answer.is_some_and(|answer| answer.starts_with("HTTP/1.1 200 OK"))
    };
    let tls = |lines: &str| format!("{TLS}  client_ca_file: ca.crt\n{lines}");
    let required = "  client_auth_type: RequireAndVerifyClientCert\n";
    let file = folder.write("required.yml", &tls(required));
    let address = serve(3, LIMITS, Some(&file));
    assert!(is_let_in(address, Some(authority.client("prometheus.example.net"))));
    assert!(!is_let_in(address, Some(other.client("prometheus.example.net"))), "signed by somebody else");
    assert!(!is_let_in(address, None));
    let given = folder.write("given.yml", &tls("  client_auth_type: VerifyClientCertIfGiven\n"));
    let given = serve(3, LIMITS, Some(&given));
    assert!(is_let_in(given, None) && is_let_in(given, Some(authority.client("a.example"))));
    assert!(!is_let_in(given, Some(other.client("a.example"))));
    let names = format!("{required}  client_allowed_sans: [prometheus.example.net, 192.0.2.1]\n  min_version: TLS13\n");
    let named = folder.write("named.yml", &tls(&names));
    let named = serve(3, LIMITS, Some(&named));
    for (name, wanted) in [
        ("prometheus.example.net", true),
        ("192.0.2.1", true),
        ("x.prometheus.example.net", false),
        ("192.0.2.2", false),
    ] {
        assert_eq!(is_let_in(named, Some(authority.client(name))), wanted, "{name}");
    }
    assert!(!is_let_in(named, None));
    // Nobody is let in by a file that was changed to ask for less.
    folder.write("required.yml", TLS);
    assert!(!is_let_in(address, None));
}

#[test]
fn answers_have_the_headers_that_the_file_sets() {
    let folder = Folder::new("headers");
    let text = format!("http_server_config:\n  headers:\n    X-Frame-Options: deny\n{}", users(&[("alice", "one")]));
    let address = serve(3, LIMITS, Some(&folder.write("web.yml", &text)));
    for request in [REQUEST, &request_by("alice", "one")] {
        let answer = ask(address, request);
        assert!(answer.contains("x-frame-options: deny\r\n"), "{answer}");
    }
}

/// A peer that guesses gets a guess a second; another peer waits for one guess, however many are made.
#[test]
fn guesses_wait_for_one_another() {
    let folder = Folder::new("guesses");
    let hash = bcrypt::hash("geheim", 8).unwrap();
    let config = folder.write("web.yml", &format!("basic_auth_users:\n  prometheus: {hash}\n"));
    let source = Source::new(Arc::default(), Health::new(std::time::Duration::from_secs(3600)));
    let peers = Peers::by_address();
    let web_config = Some(WebConfigFile::open(&config).unwrap());
    let address = listening(Server { peers, web_config, limits: PATIENT, ..Server::new(source) });
    let begun = std::time::Instant::now();
    let guesses: Vec<TcpStream> = (0..8)
        .map(|guess| {
            let mut stream = super::connect_from(2, address);
            stream.write_all(request_by("prometheus", &format!("{guess}")).as_bytes()).unwrap();
            stream
        })
        .collect();
    let mut right = super::connect_from(3, address);
    right.write_all(request_by("prometheus", "geheim").as_bytes()).unwrap();
    assert!(all_of(right).starts_with("HTTP/1.1 200 OK"));
    let known = begun.elapsed();
    for guess in guesses {
        assert!(all_of(guess).starts_with("HTTP/1.1 401 "));
    }
    let all = begun.elapsed();
    assert!(all >= std::time::Duration::from_secs(7), "eight guesses in {all:?}");
    assert!(known < all / 2, "{known:?} of {all:?}");
}

#[test]
fn files_that_cant_be_used_are_named() {
    let folder = Folder::new("wrong");
    let refusal = |text: &str| {
        let path = folder.write("web.yml", text);
        WebConfigFile::open(&path).map(|_| ()).map_err(|error| format!("{error:#}")).unwrap_err()
    };
    let missing = refusal(TLS);
    assert!(missing.contains("server.crt`: No such file or directory"), "{missing}");
    folder.certify();
    folder.write("empty", "");
    let no_certificate = refusal("tls_server_config: {cert_file: empty, key_file: server.key}");
    assert!(no_certificate.contains("empty` has no certificate in PEM format"), "{no_certificate}");
    let no_key = refusal("tls_server_config: {cert_file: server.crt, key_file: server.crt}");
    assert!(no_key.contains("server.crt`: it has no private key in PEM format"), "{no_key}");
    fs::rename(folder.0.join("server.key"), folder.0.join("other.key")).unwrap();
    folder.certify();
    let mismatch = refusal("tls_server_config: {cert_file: server.crt, key_file: other.key}");
    assert!(mismatch.contains("failed to use `") && mismatch.contains("other.key`"), "{mismatch}");
    let error = WebConfigFile::open(&folder.0.join("none.yml")).map(|_| ()).unwrap_err();
    assert!(format!("{error:#}").contains("none.yml`: No such file or directory"), "{error:#}");
}
