//! A web page that has its own name lead to this machine (DNS rebinding): its reader's browser asks for it by that name, and it is not answered
//! however the request is written.

use std::io::{ErrorKind, Read, Write};
use std::net::{Shutdown, TcpStream};
use std::time::Duration;

use crate::siege::{Agent, get};

/// Requests that come by another's name, or may do.
const BY_OTHERS: &[&str] = &[
    "GET /metrics HTTP/1.1\r\nHost: example.net\r\n\r\n",
    "GET /metrics HTTP/1.0\r\nHost: example.net\r\n\r\n",
    "GET /metrics HTTP/1.1\r\nhOST:example.net\r\n\r\n",
    "HEAD /metrics HTTP/1.1\r\nHost: example.net\r\n\r\n",
    "GET /metrics HTTP/1.1\r\nHost: \r\n\r\n",
    // 0.0.0.0 leads here as well, and browsers let pages ask for it.
    "GET /metrics HTTP/1.1\r\nHost: 0.0.0.0\r\n\r\n",
    "GET /metrics HTTP/1.1\r\nHost: [::]\r\n\r\n",
    "GET /metrics HTTP/1.1\r\nHost: 127.0.0.1.example.net\r\n\r\n",
    "GET /metrics HTTP/1.1\r\nHost: localhost@example.net\r\n\r\n",
    "GET /metrics HTTP/1.1\r\nHost: example.net#localhost\r\n\r\n",
    "GET /metrics HTTP/1.1\r\nHost: localhost.example.net:80\r\n\r\n",
    // Twice.
    "GET /metrics HTTP/1.1\r\nHost: localhost\r\nHost: example.net\r\n\r\n",
    "GET /metrics HTTP/1.1\r\nHost: example.net\r\nHost: localhost\r\n\r\n",
    "GET /metrics HTTP/1.1\r\nHost: localhost, example.net\r\n\r\n",
    "GET /metrics HTTP/1.1\r\nHost: localhost\r\n example.net\r\n\r\n",
    "GET /metrics HTTP/1.1\r\nHost : localhost\r\nHost: example.net\r\n\r\n",
    "GET /metrics HTTP/1.1\r\nHost: example.net\r\nX-Forwarded-Host: localhost\r\nForwarded: host=localhost\r\n\r\n",
    // The target says it, too.
    "GET http://example.net/metrics HTTP/1.1\r\nHost: localhost\r\n\r\n",
    "GET http://localhost/metrics HTTP/1.1\r\nHost: example.net\r\n\r\n",
    "GET http://example.net/metrics HTTP/1.0\r\n\r\n",
    "GET https://example.net:443/metrics HTTP/1.1\r\nHost: localhost\r\n\r\n",
    "GET http://localhost@example.net/metrics HTTP/1.1\r\nHost: localhost\r\n\r\n",
    "GET http://example.net\\@localhost/metrics HTTP/1.1\r\nHost: example.net\r\n\r\n",
    "GET //example.net/metrics HTTP/1.1\r\nHost: example.net\r\n\r\n",
    "CONNECT localhost:80 HTTP/1.1\r\nHost: example.net\r\n\r\n",
];

/// Requests by our own name.
const BY_OURS: &[&str] = &[
    "GET /metrics HTTP/1.1\r\nHost: localhost\r\n\r\n",
    "GET /metrics HTTP/1.1\r\nHost: LOCALHOST.:9\r\n\r\n",
    "GET /metrics HTTP/1.1\r\nHost: [::ffff:127.0.0.1]:9\r\n\r\n",
    "GET http://127.0.0.1/metrics HTTP/1.1\r\nHost: 127.0.0.1\r\n\r\n",
    // No browser speaks it.
    "GET /metrics HTTP/1.0\r\n\r\n",
];

/// What is answered to these bytes, until the end. One that is not answered because it is senseless has an empty answer.
fn answered(address: &str, request: &str) -> String {
    let mut stream = TcpStream::connect(address).unwrap();
    stream.set_read_timeout(Some(Duration::from_secs(60))).unwrap();
    stream.write_all(request.as_bytes()).unwrap();
    stream.shutdown(Shutdown::Write).unwrap();
    let mut answer = Vec::new();
    if let Err(error) = stream.read_to_end(&mut answer) {
        // What follows the first request is not read: the kernel says so to whoever has sent it.
        assert_eq!(error.kind(), ErrorKind::ConnectionReset, "{request}");
    }
    String::from_utf8(answer).unwrap()
}

fn is_refused(address: &str, request: &str) {
    let answer = answered(address, request);
    let is_error = answer.is_empty() || answer.starts_with("HTTP/1.1 4") || answer.starts_with("HTTP/1.0 4");
    assert!(is_error && !answer.contains("faultline_"), "{request}: {answer}");
}

/// All of them, on and on.
pub(crate) fn rebinding(address: &str, goes_on: &dyn Fn() -> bool) {
    while goes_on() {
        for request in BY_OTHERS {
            let Ok(mut stream) = TcpStream::connect(address) else { continue };
            let _ = stream.set_read_timeout(Some(Duration::from_millis(200)));
            let _ = stream.write_all(request.repeat(2).as_bytes());
            let _ = stream.read(&mut [0; 64]);
        }
    }
}

#[test]
fn no_request_by_anothers_name_is_answered() {
    let agent = Agent::start("names", &[], "http");
    let address = &agent.address;
    for request in BY_OURS {
        let answer = answered(address, request);
        assert!(answer.contains(" 200 OK\r\n") && answer.contains("faultline_"), "{request}: {answer:.300}");
    }
    for request in BY_OTHERS {
        is_refused(address, request);
        // One that is meant for us behind it, or before it, brings nothing more.
        is_refused(address, &format!("{request}{}", BY_OURS[0]));
        let first = answered(address, &format!("{}{request}", BY_OURS[0]));
        assert!(first.matches("HTTP/1.").count() <= 1, "{request}: {first}");
    }
    agent.answers(&get);
    agent.end_under(rebinding);
}
