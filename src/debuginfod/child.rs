//! The process that receives one file from one server. It writes to its standard output, which is that file, and says by its exit status
//! what came of it.

use std::fs::File;
use std::io::{self, Read, Write};
use std::os::fd::AsFd;
use std::process::ExitCode;
use std::sync::Arc;
use std::time::{Duration, Instant};

use rustls::pki_types::CertificateDer;
use ureq::tls::{Certificate, RootCerts, TlsConfig};
use ureq::{Agent, Error};

use super::Kind;
use super::settings::LEAST_BYTES;
use crate::symbol::build_id_of;

/// The first argument of the child; nobody types it.
pub(crate) const FETCHER: &str = "--debuginfod-fetcher";

/// So often a server may send us elsewhere.
const REDIRECTS_MAX: u32 = 4;

/// A server that is there answers a call at once.
const CONNECT: Duration = Duration::from_secs(10);

/// What came of it, as an exit status.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Status {
    /// The file is whole, and has the build id.
    Found = 0,
    /// Any other end: the process was killed, or could not begin.
    Died = 1,
    /// The server doesn't have it.
    Missing = 3,
    /// The server doesn't answer, or too slowly.
    Silent = 4,
    /// It is longer than it may be.
    TooLong = 5,
    /// What it sent is another file.
    OtherFile = 6,
    /// It answered with an error, or with something that is no answer.
    Refused = 7,
}

impl Status {
    pub(super) const ALL: [Self; 7] =
        [Self::Found, Self::Died, Self::Missing, Self::Silent, Self::TooLong, Self::OtherFile, Self::Refused];
}

/// The order that the child gets in its arguments.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Order {
    pub(super) url: String,
    pub(super) kind: Kind,
    /// In hexadecimal.
    pub(super) build_id: String,
    pub(super) timeout: Duration,
    pub(super) max_size: u64,
}

impl Order {
    pub(super) fn arguments(&self) -> [String; 5] {
        let (timeout, max_size) = (self.timeout.as_secs().to_string(), self.max_size.to_string());
        [self.url.clone(), self.kind.word().to_owned(), self.build_id.clone(), timeout, max_size]
    }

    fn is_secure(&self) -> bool {
        self.url.starts_with("https:")
    }

    pub(super) fn of(arguments: &[String]) -> Option<Self> {
        let [url, kind, build_id, timeout, max_size] = arguments else { return None };
        Some(Self {
            url: url.clone(),
            kind: Kind::of(kind)?,
            build_id: build_id.clone(),
            timeout: Duration::from_secs(timeout.parse().ok()?),
            max_size: max_size.parse().ok()?,
        })
    }
}

/// Receives the file. `confine` is called before anything is received: with the bytes that may be written.
pub(crate) fn serve(arguments: &[String], confine: impl FnOnce(u64)) -> ExitCode {
    let status = Order::of(arguments).map_or(Status::Died, |order| {
        // Whom to trust may stand where only its user may read.
        let roots = if order.is_secure() { rustls_native_certs::load_native_certs().certs } else { Vec::new() };
        confine(order.max_size);
        receive(&order, &roots)
    });
    ExitCode::from(status as u8)
}

fn receive(order: &Order, roots: &[CertificateDer<'_>]) -> Status {
    let Ok(mut file) = io::stdout().as_fd().try_clone_to_owned().map(File::from) else { return Status::Died };
    let url = format!("{}/buildid/{}/{}", order.url, order.build_id, order.kind.word());
    let answer = agent(order, roots)
        .get(&url)
        .header("X-DEBUGINFOD-MAXSIZE", &order.max_size.to_string())
        // It is copied as it comes.
        .header("Accept-Encoding", "identity")
        .call();
    let mut answer = match answer {
        Ok(answer) => answer,
        Err(error) => return status_of(&error),
    };
    if answer.body().content_length().is_some_and(|length| length > order.max_size) {
        return Status::TooLong;
    }
    // One byte more shows that it is too long.
    let mut from = answer.body_mut().with_config().limit(order.max_size.saturating_add(1)).reader();
    match copy(&mut from, &mut file, order) {
        Status::Found if has_build_id(&file, &order.build_id) => Status::Found,
        Status::Found => Status::OtherFile,
        other => other,
    }
}

fn agent(order: &Order, roots: &[CertificateDer<'_>]) -> Agent {
    // No redirect from https to http: others can read and change what comes by http.
    let config = Agent::config_builder()
        .user_agent(concat!("faultline/", env!("CARGO_PKG_VERSION")))
        .https_only(order.is_secure())
        .max_redirects(REDIRECTS_MAX)
        .timeout_resolve(Some(order.timeout.min(CONNECT)))
        .timeout_connect(Some(order.timeout.min(CONNECT)))
        .timeout_recv_response(Some(order.timeout))
        .timeout_per_read(Some(order.timeout));
    let config = match order.is_secure() {
        true => config.tls_config(tls(roots)),
        false => config,
    };
    config.build().new_agent()
}

fn tls(roots: &[CertificateDer<'_>]) -> TlsConfig {
    let roots: Vec<Certificate<'static>> = roots.iter().map(|root| Certificate::from_der(root).to_owned()).collect();
    TlsConfig::builder()
        .root_certs(RootCerts::from(roots))
        .unversioned_rustls_crypto_provider(Arc::new(rustls::crypto::ring::default_provider()))
        .build()
}

fn status_of(error: &Error) -> Status {
    match error {
        Error::StatusCode(404) => Status::Missing,
        // What elfutils' server says to our X-DEBUGINFOD-MAXSIZE.
        Error::StatusCode(406) => Status::TooLong,
        Error::Timeout(_) | Error::Io(_) | Error::HostNotFound | Error::ConnectionFailed => Status::Silent,
        _ => Status::Refused,
    }
}

/// Copies until the end, as long as it comes fast enough and is not too long.
fn copy(from: &mut impl Read, to: &mut File, order: &Order) -> Status {
    let mut buffer = vec![0; 128 << 10];
    let (mut total, mut since, mut lately) = (0_u64, Instant::now(), 0_u64);
    loop {
        let count = match from.read(&mut buffer) {
            Ok(0) => return Status::Found,
            Ok(count) => count,
            Err(error) if error.kind() == io::ErrorKind::Interrupted => continue,
            Err(_) if total >= order.max_size => return Status::TooLong,
            Err(_) => return Status::Silent,
        };
        total += count as u64;
        if total > order.max_size {
            return Status::TooLong;
        }
        if to.write_all(buffer.get(..count).unwrap_or_default()).is_err() {
            return Status::Died;
        }
        lately += count as u64;
        if since.elapsed() >= order.timeout {
            if lately < LEAST_BYTES {
                return Status::Silent;
            }
            (since, lately) = (Instant::now(), 0);
        }
    }
}

fn has_build_id(file: &File, wanted: &str) -> bool {
    build_id_of(file).is_some_and(|build_id| crate::hex::digits(&build_id) == wanted)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_order_comes_as_it_was_given() {
        let order = Order {
            url: "http://x:1/a".to_owned(),
            kind: Kind::Executable,
            build_id: "abcdef".to_owned(),
            timeout: Duration::from_secs(3),
            max_size: 7,
        };
        assert_eq!(Order::of(&order.arguments()), Some(order.clone()));
        let mut wrong = order.arguments();
        wrong[1] = "section".to_owned();
        assert_eq!(Order::of(&wrong), None);
        assert_eq!(Order::of(&wrong[1..]), None);
    }
}
