//! The server's side of TLS, as `tls_server_config` says.

use std::fmt::Debug;
use std::fs::File;
use std::net::IpAddr;
use std::path::Path;
use std::sync::Arc;

use anyhow::{Context, Result, anyhow, bail};
use rustls::client::danger::HandshakeSignatureValid;
use rustls::crypto::CryptoProvider;
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, PrivateKeyDer, ServerName, UnixTime};
use rustls::server::danger::{ClientCertVerified, ClientCertVerifier};
use rustls::server::{NoServerSessionStorage, WebPkiClientVerifier};
use rustls::version::{TLS12, TLS13};
use rustls::{
    CertificateError, DigitallySignedStruct, DistinguishedName, NamedGroup, RootCertStore, ServerConfig,
    SignatureScheme, SupportedProtocolVersion,
};
use tokio_rustls::TlsAcceptor;

use super::document::{ClientAuth, Pem, Tls};

/// A server with these settings. Relative paths begin at `folder`.
pub(super) fn acceptor(tls: &Tls, folder: &Path) -> Result<TlsAcceptor> {
    let chain = certificates("cert", &tls.cert, folder)?;
    let private = read(&tls.key, folder, |path| PrivateKeyDer::from_pem_file(path), PrivateKeyDer::from_pem_slice)
        .map_err(|error| error.unwrap_or_else(|| anyhow!("it has no private key in PEM format")))
        .with_context(|| name("key", &tls.key, folder))?;
    let provider = Arc::new(provider(tls)?);
    let versions: &[&SupportedProtocolVersion] = match tls.versions {
        (2, 2) => &[&TLS12],
        (2, _) => &[&TLS12, &TLS13],
        _ => &[&TLS13],
    };
    let builder = ServerConfig::builder_with_provider(provider.clone())
        .with_protocol_versions(versions)
        .context("failed to set up TLS")?;
    let builder = match clients(tls, folder, &provider)? {
        None => builder.with_no_client_auth(),
        Some(verifier) => builder.with_client_cert_verifier(verifier),
    };
    let mut config = builder.with_single_cert(chain, private).with_context(|| {
        format!("failed to use `{}` with the key `{}`", shown(&tls.cert, folder), shown(&tls.key, folder))
    })?;
    config.alpn_protocols = vec![b"http/1.1".to_vec()];
    config.ignore_client_order = tls.prefers_own_order;
    // A scrape every few seconds needs no memory of the last one.
    config.session_storage = Arc::new(NoServerSessionStorage {});
    config.send_tls13_tickets = 0;
    Ok(TlsAcceptor::from(Arc::new(config)))
}

fn shown(pem: &Pem, folder: &Path) -> String {
    match pem {
        Pem::File(path) => folder.join(path).display().to_string(),
        Pem::Text(_) => "text in the file".to_owned(),
    }
}

fn name(setting: &str, pem: &Pem, folder: &Path) -> String {
    match pem {
        Pem::File(_) => format!("{setting}_file `{}`", shown(pem, folder)),
        Pem::Text(_) => setting.to_owned(),
    }
}

/// What a file or a text has. `Err(None)` means that it isn't there in PEM format.
fn read<T, E>(
    pem: &Pem,
    folder: &Path,
    of_file: impl FnOnce(&Path) -> Result<T, E>,
    of_text: impl FnOnce(&[u8]) -> Result<T, E>,
) -> Result<T, Option<anyhow::Error>> {
    match pem {
        Pem::File(path) => {
            let path = folder.join(path);
            File::open(&path).map_err(|error| Some(error.into()))?;
            of_file(&path).map_err(|_| None)
        }
        Pem::Text(text) => of_text(text.as_bytes()).map_err(|_| None),
    }
}

fn certificates(setting: &str, pem: &Pem, folder: &Path) -> Result<Vec<CertificateDer<'static>>> {
    let of_file = |path: &Path| CertificateDer::pem_file_iter(path).and_then(Iterator::collect::<Result<Vec<_>, _>>);
    let of_text = |text: &[u8]| CertificateDer::pem_slice_iter(text).collect::<Result<Vec<_>, _>>();
    let found = read(pem, folder, of_file, of_text)
        .or_else(|error| error.map_or_else(|| Ok(Vec::new()), Err))
        .with_context(|| name(setting, pem, folder))?;
    if found.is_empty() {
        bail!("{} has no certificate in PEM format", name(setting, pem, folder));
    }
    Ok(found)
}

/// The cryptography, cut down to what the settings name.
fn provider(tls: &Tls) -> Result<CryptoProvider> {
    let mut provider = rustls::crypto::ring::default_provider();
    if let Some(asked) = &tls.cipher_suites {
        // As in the exporters, the list is of TLS 1.2: all suites of 1.3 are good.
        let suites: Vec<_> = provider.cipher_suites.iter().filter(|suite| suite.tls13().is_none()).copied().collect();
        let mut chosen: Vec<_> =
            provider.cipher_suites.iter().filter(|suite| suite.tls13().is_some()).copied().collect();
        for name in asked {
            let known = suites.iter().find(|suite| suite.suite().as_str() == Some(name));
            chosen.push(*known.with_context(|| {
                let names: Vec<_> = suites.iter().filter_map(|suite| suite.suite().as_str()).collect();
                format!("`{name}` in cipher_suites is not supported: {} are", names.join(", "))
            })?);
        }
        provider.cipher_suites = chosen;
    }
    if let Some(asked) = &tls.curves {
        let group = |name: &String| {
            let group = match name.as_str() {
                "X25519" => Some(NamedGroup::X25519),
                "CurveP256" => Some(NamedGroup::secp256r1),
                "CurveP384" => Some(NamedGroup::secp384r1),
                _ => None,
            };
            let known = provider.kx_groups.iter().find(|known| Some(known.name()) == group);
            known.copied().with_context(|| {
                format!("`{name}` in curve_preferences is not supported: X25519, CurveP256 and CurveP384 are")
            })
        };
        provider.kx_groups = asked.iter().map(group).collect::<Result<_>>()?;
    }
    Ok(provider)
}

/// Which certificates clients may or must have.
fn clients(tls: &Tls, folder: &Path, provider: &Arc<CryptoProvider>) -> Result<Option<Arc<dyn ClientCertVerifier>>> {
    let Some(authorities) = tls.client_ca.as_ref().filter(|_| tls.client_auth != ClientAuth::None) else {
        return Ok(None);
    };
    let what = || name("client_ca", authorities, folder);
    let mut roots = RootCertStore::empty();
    for authority in certificates("client_ca", authorities, folder)? {
        roots.add(authority).with_context(what)?;
    }
    let mut verifier = WebPkiClientVerifier::builder_with_provider(Arc::new(roots), provider.clone());
    if tls.client_auth == ClientAuth::IfGiven {
        verifier = verifier.allow_unauthenticated();
    }
    let verifier = verifier.build().with_context(what)?;
    Ok(Some(match &tls.client_allowed_sans {
        None => verifier,
        Some(allowed) => Arc::new(ClientNames { verifier, allowed: allowed.clone() }),
    }))
}

/// Lets in a certificate that is verified and has one of these names.
#[derive(Debug)]
struct ClientNames {
    verifier: Arc<dyn ClientCertVerifier>,
    allowed: Vec<String>,
}

impl ClientNames {
    fn has_one(&self, certificate: &CertificateDer<'_>) -> bool {
        let Ok(certificate) = webpki::EndEntityCert::try_from(certificate) else { return false };
        self.allowed.iter().any(|allowed| {
            if let Ok(address) = allowed.parse::<IpAddr>() {
                return certificate.verify_is_valid_for_subject_name(&ServerName::from(address)).is_ok();
            }
            certificate.valid_dns_names().chain(certificate.valid_uri_names()).any(|name| name == allowed)
        })
    }
}

impl ClientCertVerifier for ClientNames {
    fn verify_client_cert(
        &self,
        certificate: &CertificateDer<'_>,
        intermediates: &[CertificateDer<'_>],
        now: UnixTime,
    ) -> Result<ClientCertVerified, rustls::Error> {
        let verified = self.verifier.verify_client_cert(certificate, intermediates, now)?;
        if self.has_one(certificate) { Ok(verified) } else { Err(CertificateError::NotValidForName.into()) }
    }

    fn root_hint_subjects(&self) -> &[DistinguishedName] {
        self.verifier.root_hint_subjects()
    }

    fn verify_tls12_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signature: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        self.verifier.verify_tls12_signature(message, certificate, signature)
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signature: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        self.verifier.verify_tls13_signature(message, certificate, signature)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.verifier.supported_verify_schemes()
    }
}
