//! Hostile, slow and broken peers do nothing to the server that others notice.

mod protected;

use std::io::{ErrorKind, Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::path::Path;
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use prometheus_client::metrics::counter::Counter;
use prometheus_client::registry::Registry;

use super::peer::Peers;
use super::{Health, LIMITS, Limits, Listen, Server, Source, WebConfigFile, start};

const REQUEST: &str = "GET /metrics HTTP/1.1\r\nHost: localhost\r\n\r\n";

/// What others may wait meanwhile, on a busy machine: far less than [`PATIENT`], which is how long they would where a peer held
/// the server.
const PROMPT: Duration = Duration::from_secs(20);

/// A server that never cuts a connection.
const PATIENT: Limits = Limits {
    head: Duration::from_secs(3600),
    answer: Duration::from_secs(3600),
    whole: Duration::from_secs(3600),
    ..LIMITS
};

/// What a peer of these tests holds of what it hasn't read, bytes; the kernel makes it twice as much.
const UNREAD: usize = 64 << 10;

/// More than the kernel takes of what a peer doesn't read. Each byte costs a hundred connections time.
fn large() -> usize {
    let sizes = std::fs::read_to_string("/proc/sys/net/ipv4/tcp_wmem").unwrap();
    let most: usize = sizes.split_whitespace().last().unwrap().parse().unwrap();
    most + 4 * UNREAD
}

/// A server whose metrics are a little more than `bytes`.
fn serve(bytes: usize, limits: Limits, web_config: Option<&Path>) -> SocketAddr {
    let mut registry = Registry::default();
    let counter = Counter::<u64>::default();
    counter.inc();
    registry.register("numbers", "x".repeat(bytes), counter);
    let source = Source::new(Arc::new(Mutex::new(registry)), Health::new(Duration::from_secs(3600)));
    let web_config = web_config.map(|path| WebConfigFile::open(path).unwrap());
    listening(Server { web_config, limits, ..Server::new(source) })
}

/// The address of a server that has begun.
fn listening(server: Server) -> SocketAddr {
    match start(&Listen::Tcp(SocketAddr::from(([127, 0, 0, 1], 0))), server).unwrap().0 {
        Listen::Tcp(address) => address,
        Listen::Unix(path) => panic!("{}", path.display()),
    }
}

/// A connection from another address of this machine.
fn connect_from(last: u8, address: SocketAddr) -> TcpStream {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_io().build().unwrap();
    let stream = runtime.block_on(async {
        let socket = tokio::net::TcpSocket::new_v4().unwrap();
        socket.bind(SocketAddr::from(([127, 0, 0, last], 0))).unwrap();
        socket.connect(address).await.unwrap().into_std().unwrap()
    });
    stream.set_nonblocking(false).unwrap();
    stream
}

fn connect(address: SocketAddr) -> TcpStream {
    let stream = TcpStream::connect(address).unwrap();
    rustix::net::sockopt::set_socket_recv_buffer_size(&stream, UNREAD).unwrap();
    stream.set_read_timeout(Some(Duration::from_secs(60))).unwrap();
    stream.set_write_timeout(Some(Duration::from_secs(60))).unwrap();
    stream
}

/// Everything that comes until the server closes. A reset ends it as well: there was something that the server did not read.
fn all_of(mut stream: impl Read) -> String {
    let mut answer = Vec::new();
    let mut part = [0; 16 * 1024];
    loop {
        match stream.read(&mut part) {
            Ok(0) => break,
            Ok(length) => answer.extend_from_slice(&part[..length]),
            Err(error) if matches!(error.kind(), ErrorKind::ConnectionReset | ErrorKind::BrokenPipe) => break,
            Err(error) => panic!("{error} after {} bytes", answer.len()),
        }
    }
    String::from_utf8(answer).unwrap()
}

fn ask(address: SocketAddr, request: &str) -> String {
    let mut stream = connect(address);
    stream.write_all(request.as_bytes()).unwrap();
    all_of(stream)
}

/// Others are answered, and soon.
fn others_are_answered(address: SocketAddr) {
    let begun = Instant::now();
    let metrics = ask(address, REQUEST);
    assert!(metrics.starts_with("HTTP/1.1 200 OK\r\n") && metrics.ends_with("numbers_total 1\n"), "{metrics:.300}");
    let health = ask(address, "GET /healthz HTTP/1.1\r\nHost: localhost\r\n\r\n");
    assert!(health.starts_with("HTTP/1.1 200 OK\r\n") && health.ends_with("\r\n\r\nok\n"), "{health}");
    assert!(begun.elapsed() < PROMPT, "{:?}", begun.elapsed());
}

#[test]
fn only_two_paths_and_two_methods_are_answered() {
    let address = serve(3, LIMITS, None);
    let open = ask(address, "GET /metrics?x=1 HTTP/1.0\r\nAccept: application/openmetrics-text; version=1.0.0\r\n\r\n");
    assert!(open.contains("content-type: application/openmetrics-text") && open.ends_with("# EOF\n"), "{open}");
    let head = ask(address, "HEAD /metrics HTTP/1.1\r\nHost: localhost\r\n\r\n");
    let (headers, body) = head.split_once("\r\n\r\n").unwrap();
    assert!(headers.starts_with("HTTP/1.1 200 OK") && body.is_empty(), "{head}");
    let length = ask(address, REQUEST).split_once("\r\n\r\n").unwrap().1.len();
    assert!(headers.contains(&format!("content-length: {length}")), "{head}");
    assert!(headers.contains("connection: close"), "{head}");
    for path in ["/", "/metrics/", "/../metrics", "/metricsx"] {
        assert!(
            ask(address, &format!("GET {path} HTTP/1.1\r\nHost: localhost\r\n\r\n")).starts_with("HTTP/1.1 404 "),
            "{path}"
        );
    }
    for method in ["POST", "PUT", "DELETE", "OPTIONS", "CONNECT", "BREW"] {
        let answer =
            ask(address, &format!("{method} /metrics HTTP/1.1\r\nHost: localhost\r\nContent-Length: 0\r\n\r\n"));
        assert!(answer.starts_with("HTTP/1.1 405 ") && answer.contains("allow: GET, HEAD"), "{method}: {answer}");
    }
}

#[test]
fn a_peer_that_has_nothing_more_to_say_is_still_answered() {
    let mut stream = connect(serve(3, LIMITS, None));
    stream.write_all(REQUEST.as_bytes()).unwrap();
    stream.shutdown(std::net::Shutdown::Write).unwrap();
    assert!(all_of(stream).starts_with("HTTP/1.1 200 OK"));
}

#[test]
fn a_body_is_neither_awaited_nor_made_room_for() {
    let address = serve(3, PATIENT, None);
    let lengths =
        ["100000", "99999999999999", "18446744073709551613", "18446744073709551614", "18446744073709551616", "-1"];
    let held: Vec<(&str, TcpStream)> = lengths
        .into_iter()
        .map(|length| {
            let mut stream = connect(address);
            write!(stream, "GET /metrics HTTP/1.1\r\nHost: localhost\r\nContent-Length: {length}\r\n\r\n").unwrap();
            others_are_answered(address);
            (length, stream)
        })
        .collect();
    for (length, stream) in held {
        let answer = all_of(stream);
        let is_possible = ["100000", "99999999999999", "18446744073709551613"].contains(&length);
        assert!(answer.starts_with(if is_possible { "HTTP/1.1 200 " } else { "HTTP/1.1 4" }), "{length}: {answer}");
    }
    let chunks = "POST /metrics HTTP/1.1\r\nHost: localhost\r\nTransfer-Encoding: chunked\r\n\r\nfffffffffffffffe\r\nx";
    assert!(ask(address, chunks).starts_with("HTTP/1.1 405 "));
    others_are_answered(address);
}

#[test]
fn endless_headers_have_an_end() {
    let address = serve(3, PATIENT, None);
    for line in ["GET /metrics HTTP/1.1\r\n", "GET /"] {
        let mut stream = connect(address);
        stream.write_all(line.as_bytes()).unwrap();
        let mut sent = 0;
        // What the kernel takes on both sides comes on top of what the server does.
        while sent < 64 << 20 && stream.write_all(&[b'a'; 4096]).is_ok() {
            sent += 4096;
        }
        assert!(sent < 64 << 20, "{line}: {sent} bytes were taken");
        others_are_answered(address);
    }
    let many: String = (0..5000).map(|n| format!("a{n}: b\r\n")).collect();
    let mut stream = connect(address);
    let _ = stream.write_all(format!("GET /metrics HTTP/1.1\r\n{many}\r\n").as_bytes());
    assert!(!all_of(stream).starts_with("HTTP/1.1 200 "));
    others_are_answered(address);
}

#[test]
fn slow_peers_are_cut_off() {
    let limits = Limits { head: Duration::from_millis(300), whole: Duration::from_millis(600), ..LIMITS };
    let address = serve(large(), limits, None);
    let begun = Instant::now();
    let mut silent = connect(address);
    assert!(!matches!(silent.read(&mut [0]), Ok(1)), "nothing was asked");
    let mut drip = connect(address);
    while drip.write_all(b"G").is_ok() && begun.elapsed() < PROMPT {
        std::thread::sleep(Duration::from_millis(20));
    }
    assert!(!all_of(drip).contains("200 OK"));
    let mut stalled = connect(address);
    stalled.write_all(REQUEST.as_bytes()).unwrap();
    // It is cut off while it doesn't read: what the kernel took comes, and then the end.
    std::thread::sleep(4 * limits.whole);
    assert!(all_of(stalled).len() < large());
    assert!(begun.elapsed() < PROMPT, "{:?}", begun.elapsed());
}

#[test]
fn a_peer_that_sends_on_and_on_without_reading_holds_its_own_connection_only() {
    let address = serve(large(), PATIENT, None);
    let held: Vec<TcpStream> = (0..4)
        .map(|_| {
            let mut stream = connect(address);
            stream.set_nonblocking(true).unwrap();
            for _ in 0..1000 {
                if stream.write(REQUEST.repeat(50).as_bytes()).is_err() {
                    break;
                }
            }
            stream
        })
        .collect();
    others_are_answered(address);
    drop(held);
}

#[test]
fn a_hundred_slow_connections_give_way() {
    let address = serve(large(), PATIENT, None);
    for begun in ["", "GET /metrics HT", REQUEST] {
        let held: Vec<TcpStream> = (0..100)
            .map(|_| {
                let mut stream = connect(address);
                // A connection that a later one has displaced already refuses it.
                let _ = stream.write_all(begun.as_bytes());
                stream
            })
            .collect();
        others_are_answered(address);
        drop(held);
    }
}

#[test]
fn who_opens_many_displaces_their_own() {
    let source = Source::new(Arc::default(), Health::new(Duration::from_secs(3600)));
    let peers = Peers::by_address();
    let limits = Limits { connections: 8, ..PATIENT };
    let address = listening(Server { peers, limits, ..Server::new(source) });
    let mut patient = connect_from(2, address);
    patient.write_all(b"GET /metrics HTT").unwrap();
    let many: Vec<TcpStream> = (0..100).map(|_| connect_from(3, address)).collect();
    assert!(ask(address, REQUEST).starts_with("HTTP/1.1 200 OK"));
    patient.write_all(b"P/1.1\r\nHost: localhost\r\n\r\n").unwrap();
    assert!(all_of(&patient).starts_with("HTTP/1.1 200 OK"), "a hundred of another address displaced it");
    drop(many);
}

#[test]
fn a_stalled_agent_is_not_well() {
    let address = listening(Server::new(Source::new(Arc::default(), Health::new(Duration::ZERO))));
    assert!(ask(address, "GET /healthz HTTP/1.1\r\nHost: localhost\r\n\r\n").starts_with("HTTP/1.1 503 "));
}

#[test]
fn a_name_that_may_be_another_sites_is_misdirected() {
    let address = serve(3, LIMITS, None);
    for host in ["example.net", "example.net:8917", "localhost.example.net"] {
        let answer = ask(address, &format!("GET /metrics HTTP/1.1\r\nHost: {host}\r\n\r\n"));
        assert!(answer.starts_with("HTTP/1.1 421 ") && answer.contains("ask for it as localhost"), "{answer}");
    }
    for host in ["localhost", "127.0.0.1", &address.to_string()] {
        let answer = ask(address, &format!("GET /metrics HTTP/1.1\r\nHost: {host}\r\n\r\n"));
        assert!(answer.starts_with("HTTP/1.1 200 "), "{answer}");
    }
}

#[test]
fn the_server_answers_itself_and_its_silence_is_noticed() {
    let source = Source::new(Arc::default(), Health::new(Duration::from_secs(3600)));
    let registry = Arc::new(Mutex::new(Registry::default()));
    let held = Source::new(registry.clone(), Health::new(Duration::from_secs(3600)));
    let well = start(&Listen::Tcp(SocketAddr::from(([127, 0, 0, 1], 0))), Server::new(source)).unwrap().1;
    let (stuck, life) = start(&Listen::Tcp(SocketAddr::from(([127, 0, 0, 1], 0))), Server::new(held)).unwrap();
    let Listen::Tcp(stuck) = stuck else { panic!("{stuck}") };
    let is_answered = |life: &super::Life| {
        let begun = Instant::now();
        while !life.ask() {
            if begun.elapsed() > PROMPT {
                return false;
            }
            std::thread::sleep(Duration::from_millis(5));
        }
        true
    };
    for _ in 0..3 {
        assert!(is_answered(&well) && is_answered(&life));
    }
    // Its thread waits for the registry, as it would for anything that hangs.
    let lock = registry.lock().unwrap();
    let mut peer = connect(stuck);
    peer.write_all(REQUEST.as_bytes()).unwrap();
    // What it was asked before it came to that may still be answered.
    let (begun, mut answered) = (Instant::now(), Instant::now());
    while answered.elapsed() < Duration::from_millis(500) {
        if life.ask() {
            answered = Instant::now();
        }
        assert!(begun.elapsed() < PROMPT, "it hangs, and says that it doesn't");
        std::thread::sleep(Duration::from_millis(5));
    }
    drop(lock);
    assert!(is_answered(&life), "it goes on");
    assert!(all_of(peer).starts_with("HTTP/1.1 200 "));
}

#[test]
fn a_socket_in_the_file_system_knows_its_users() {
    let folder = std::env::temp_dir().join(format!("faultline-socket-{}", std::process::id()));
    std::fs::create_dir(&folder).unwrap();
    let listen = Listen::Unix(folder.join("metrics"));
    let serve = |allowed: &[u32]| {
        let source = Source::new(Arc::default(), Health::new(Duration::from_secs(3600)));
        start(&listen, Server::new(source).only_for(&allowed.iter().copied().collect()))
    };
    serve(&[4_000_000_000]).unwrap();
    let mut stream = std::os::unix::net::UnixStream::connect(folder.join("metrics")).unwrap();
    stream.write_all(b"GET /healthz HTTP/1.1\r\nHost: whatever\r\n\r\n").unwrap();
    assert!(all_of(stream).starts_with("HTTP/1.1 200 OK"), "the agent's own user is let in");
    let taken = format!("{:#}", serve(&[]).map(drop).unwrap_err());
    assert!(taken.contains("Address already in use"), "somebody listens there: {taken}");
    std::fs::set_permissions(&folder, std::os::unix::fs::PermissionsExt::from_mode(0o777)).unwrap();
    let refusal = format!("{:#}", serve(&[]).map(drop).unwrap_err());
    std::fs::remove_dir_all(&folder).unwrap();
    assert!(refusal.contains("others may write to") && refusal.contains("/run/faultline"), "{refusal}");
}

#[test]
fn a_user_that_isnt_named_is_refused() {
    use super::peer::Peer;
    let source = || Source::new(Arc::default(), Health::new(Duration::from_secs(3600)));
    let server = Server::new(source()).only_for(&[7].into());
    for (peer, is_allowed) in [
        (Peer::User(7), true),
        (Peer::User(0), true),
        (Peer::User(8), false),
        (Peer::Local, false),
        (Peer::Address([192, 0, 2, 1].into()), false),
        (Peer::Own, true),
    ] {
        assert_eq!(server.is_allowed(peer), is_allowed, "{peer:?}");
        assert!(Server::new(source()).is_allowed(peer));
    }
    let open = Listen::Tcp(SocketAddr::from(([0, 0, 0, 0], 0)));
    let refusal = format!("{:#}", start(&open, server).map(drop).unwrap_err());
    assert!(refusal.contains("needs a --metrics-listen on loopback"), "{refusal}");
}
