//! Servers behind TLS: they are believed as far as their certificates are.

use std::fs::{self, Permissions};
use std::io::{BufRead, BufReader, Write};
use std::net::TcpListener;
use std::os::unix::fs::PermissionsExt;
use std::path::PathBuf;
use std::sync::Arc;
use std::thread;

use rustls::pki_types::PrivateKeyDer;
use rustls::{ServerConfig, ServerConnection, StreamOwned};

use crate::lab::{Lab, names};

/// A server of this name with a certificate of its own, which is put into a folder that only its user may read. `answer` is given the
/// path that is asked for.
fn serve(lab: &Lab, answer: impl Fn(&str) -> Vec<u8> + Send + 'static) -> (String, PathBuf) {
    let rcgen::CertifiedKey { cert, signing_key } =
        rcgen::generate_simple_self_signed(["localhost".to_owned()]).unwrap();
    let folder = lab.folder.join("trusted");
    fs::create_dir(&folder).unwrap();
    fs::set_permissions(&folder, Permissions::from_mode(0o700)).unwrap();
    let file = folder.join("ca.pem");
    fs::write(&file, cert.pem()).unwrap();
    let key = PrivateKeyDer::Pkcs8(signing_key.serialize_der().into());
    let config = ServerConfig::builder_with_provider(Arc::new(rustls::crypto::ring::default_provider()))
        .with_safe_default_protocol_versions()
        .unwrap()
        .with_no_client_auth()
        .with_single_cert(vec![cert.der().clone()], key)
        .unwrap();
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let url = format!("https://localhost:{}", listener.local_addr().unwrap().port());
    let config = Arc::new(config);
    thread::spawn(move || {
        for stream in listener.incoming() {
            let mut stream = StreamOwned::new(ServerConnection::new(config.clone()).unwrap(), stream.unwrap());
            let mut lines = BufReader::new(&mut stream).lines();
            // Whoever doesn't trust us is gone.
            let Some(Ok(request)) = lines.next() else { continue };
            while lines.next().and_then(Result::ok).is_some_and(|line| !line.is_empty()) {}
            drop(lines);
            let _ = stream.write_all(&answer(request.split(' ').nth(1).unwrap_or("/")));
            stream.conn.send_close_notify();
            let _ = stream.flush();
        }
    });
    (url, file)
}

fn whole(body: &[u8]) -> Vec<u8> {
    let head = format!("HTTP/1.1 200 OK\r\nContent-Length: {}\r\nConnection: close\r\n\r\n", body.len());
    [head.as_bytes(), body].concat()
}

#[test]
fn a_server_must_be_trusted() {
    let lab = Lab::new("secure");
    let (program, debug) = (fs::read(&lab.program).unwrap(), fs::read(&lab.debug).unwrap());
    let (url, trusted) = serve(&lab, move |path| whole(if path.ends_with("/executable") { &program } else { &debug }));
    let address = lab.addresses()[3];
    let record = lab.record(&[address]);
    let (named, said) = lab.symbolize(std::slice::from_ref(&record), &[("DEBUGINFOD_URLS", &url)]);
    assert_eq!(named, std::slice::from_ref(&record), "nobody vouches for it: {said}");
    let trust = [("DEBUGINFOD_URLS", url.as_str()), ("SSL_CERT_FILE", trusted.to_str().unwrap())];
    let (named, said) = lab.symbolize(&[record], &trust);
    assert_eq!(names(&named[0]), [lab.oracle(address)], "{said}");
}

#[test]
fn a_trusted_server_sends_nobody_to_one_that_is_not() {
    let lab = Lab::new("downgrade");
    let plain = crate::lab::Server::of(&lab);
    let plain_url = plain.url.clone();
    let (url, trusted) = serve(&lab, move |path| {
        format!("HTTP/1.1 302 Found\r\nLocation: {plain_url}{path}\r\nContent-Length: 0\r\nConnection: close\r\n\r\n")
            .into()
    });
    let record = lab.record(&[lab.addresses()[3]]);
    let trust = [("DEBUGINFOD_URLS", url.as_str()), ("SSL_CERT_FILE", trusted.to_str().unwrap())];
    let (named, said) = lab.symbolize(std::slice::from_ref(&record), &trust);
    assert_eq!(named, [record], "{said}");
    assert!(lab.fetched().is_empty() && said.contains("answered with an error"), "{said}");
}
