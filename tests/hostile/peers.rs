//! Whoever reaches the port of the metrics, as every local user does: slow, endless, too many, and guessing.

use std::collections::VecDeque;
use std::fs;
use std::io::{Read, Write};
use std::net::{Shutdown, SocketAddr, TcpStream};
use std::process::Command;
use std::sync::Arc;
use std::time::Duration;

use rustls::pki_types::CertificateDer;
use rustls::{ClientConfig, ClientConnection, RootCertStore, StreamOwned};

use crate::few_tasks::FewTasks;
use crate::harness::{FAULTLINE, Scratch};
use crate::names::rebinding;
use crate::own_name::own_name;
use crate::siege::{Agent, Attack, get, get_with};

const REQUEST: &str = "GET /metrics HTTP/1.1\r\nHost: localhost\r\n\r\n";

/// prometheus:geheim
const PASSWORD: &str = "Authorization: Basic cHJvbWV0aGV1czpnZWhlaW0=\r\n";

/// The first of the users that one user has.
const SUBORDINATES: libc::uid_t = 200_000;

/// A connection whose peer doesn't wait.
fn connect(address: &str) -> Option<TcpStream> {
    let stream = TcpStream::connect(address).ok()?;
    stream.set_nonblocking(true).ok()?;
    Some(stream)
}

/// A hundred connections that send this and then nothing, and read nothing; those that are closed are made anew.
fn hold(address: &str, goes_on: &dyn Fn() -> bool, request: &[u8]) {
    while goes_on() {
        let held: Vec<TcpStream> = (0..100)
            .filter_map(|_| {
                let mut stream = connect(address)?;
                let _ = stream.write(request);
                Some(stream)
            })
            .collect();
        std::thread::sleep(Duration::from_millis(100));
        drop(held);
    }
}

fn silent(address: &str, goes_on: &dyn Fn() -> bool) {
    hold(address, goes_on, b"");
}

/// From as many addresses as connections: each user of a machine has 16 million of them.
fn many_addresses(address: &str, goes_on: &dyn Fn() -> bool) {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_io().build().unwrap();
    let to: SocketAddr = address.parse().unwrap();
    while goes_on() {
        let held: Vec<_> = (2..202)
            .filter_map(|last| {
                runtime.block_on(async {
                    let socket = tokio::net::TcpSocket::new_v4().ok()?;
                    socket.bind(SocketAddr::from(([127, 0, 0, last], 0))).ok()?;
                    socket.connect(to).await.ok()
                })
            })
            .collect();
        std::thread::sleep(Duration::from_millis(100));
        drop(held);
    }
}

fn half_a_request(address: &str, goes_on: &dyn Fn() -> bool) {
    hold(address, goes_on, b"GET /metr");
}

fn lengths(address: &str, goes_on: &dyn Fn() -> bool) {
    while goes_on() {
        for length in ["100000", "99999999999999", "18446744073709551614", "18446744073709551615", "-1", "1e9"] {
            let request = format!("POST /metrics HTTP/1.1\r\nHost: localhost\r\nContent-Length: {length}\r\n\r\n");
            hold_once(address, request.as_bytes());
        }
        hold_once(
            address,
            b"POST /metrics HTTP/1.1\r\nHost: localhost\r\nTransfer-Encoding: chunked\r\n\r\nfffffffffffffffe\r\n",
        );
    }
}

fn hold_once(address: &str, request: &[u8]) {
    let held: Vec<_> =
        (0..10).filter_map(|_| connect(address).map(|mut stream| (stream.write(request).is_ok(), stream))).collect();
    std::thread::sleep(Duration::from_millis(20));
    drop(held);
}

/// Sends on and on, and reads nothing.
fn pipelined(address: &str, goes_on: &dyn Fn() -> bool) {
    let many = REQUEST.repeat(1000);
    let mut held: Vec<TcpStream> = (0..20).filter_map(|_| connect(address)).collect();
    while goes_on() {
        for stream in &mut held {
            match stream.write(many.as_bytes()) {
                Err(error) if error.kind() != std::io::ErrorKind::WouldBlock => {
                    if let Some(new) = connect(address) {
                        *stream = new;
                    }
                }
                _ => {}
            }
        }
        std::thread::sleep(Duration::from_millis(5));
    }
}

fn endless_headers(address: &str, goes_on: &dyn Fn() -> bool) {
    while goes_on() {
        let Ok(mut stream) = TcpStream::connect(address) else { continue };
        let _ = stream.set_write_timeout(Some(Duration::from_millis(200)));
        let _ = stream.write_all(b"GET /metrics HTTP/1.1\r\n");
        while goes_on() && stream.write_all(&b"a: b\r\n".repeat(1000)).is_ok() {}
    }
}

/// A byte now and then, on many connections.
fn dripping(address: &str, goes_on: &dyn Fn() -> bool) {
    let mut held: Vec<(TcpStream, usize)> =
        (0..100).filter_map(|_| connect(address).map(|stream| (stream, 0))).collect();
    while goes_on() {
        for (stream, sent) in &mut held {
            let byte = &REQUEST.as_bytes()[*sent % REQUEST.len()..][..1];
            if stream.write(byte).is_err()
                && let Some(new) = connect(address)
            {
                (*stream, *sent) = (new, 0);
            }
            *sent += 1;
        }
        std::thread::sleep(Duration::from_millis(50));
    }
}

/// Connects and leaves, as often as it can.
fn flood(address: &str, goes_on: &dyn Fn() -> bool) {
    while goes_on() {
        for _ in 0..50 {
            if let Some(mut stream) = connect(address) {
                let _ = stream.write(REQUEST.as_bytes());
                let _ = stream.shutdown(Shutdown::Both);
            }
        }
        // The ports of this machine are not what is attacked.
        std::thread::sleep(Duration::from_millis(20));
    }
}

/// Asks for all that there is, as fast as it is answered.
fn greedy(address: &str, goes_on: &dyn Fn() -> bool) {
    while goes_on() {
        let Ok(mut stream) = TcpStream::connect(address) else { continue };
        let _ = stream.set_read_timeout(Some(Duration::from_secs(1)));
        let _ = stream.write_all(REQUEST.as_bytes());
        let _ = std::io::copy(&mut stream, &mut std::io::sink());
    }
}

fn noise(address: &str, goes_on: &dyn Fn() -> bool) {
    let mut state = 88_172_645_463_325_252_u64;
    while goes_on() {
        let Some(mut stream) = connect(address) else { continue };
        let bytes: Vec<u8> = (0..4096)
            .map(|_| {
                // Xorshift: the same in each run.
                state ^= state << 13;
                state ^= state >> 7;
                state ^= state << 17;
                state as u8
            })
            .collect();
        let _ = stream.write(&bytes);
        std::thread::sleep(Duration::from_millis(1));
    }
}

const ATTACKS: [(&str, Attack); 11] = [
    ("silent", silent),
    ("many addresses", many_addresses),
    ("half a request", half_a_request),
    ("lengths", lengths),
    ("pipelined", pipelined),
    ("endless headers", endless_headers),
    ("dripping", dripping),
    ("flood", flood),
    ("greedy", greedy),
    ("noise", noise),
    ("names of others", rebinding),
];

#[test]
fn no_peer_stops_anything_or_costs_much() {
    let mut agent = Agent::start("peer-one", &[], "http");
    for (what, attack) in ATTACKS {
        agent.besiege(what, Duration::from_secs(1), &[attack], &get);
    }
    agent.end_under(greedy);
}

/// All at once, for as long as FAULTLINE_SOAK_SECONDS says: ci/soak --hostile.
#[test]
fn all_peers_at_once() {
    let seconds = std::env::var("FAULTLINE_SOAK_SECONDS").map_or(3, |seconds| seconds.parse().unwrap());
    let mut agent = Agent::start("peer-all", &[], "http");
    let all = ATTACKS.map(|(_, attack)| attack);
    agent.besiege("all", Duration::from_secs(seconds), &all, &get);
    agent.end_under(flood);
}

/// Handshakes that are not finished, and handshakes on and on.
fn handshakes(address: &str, goes_on: &dyn Fn() -> bool) {
    while goes_on() {
        hold_once(address, b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03");
        curl_as_attacker(address, "nobody:wrong");
    }
}

/// Wrong passwords, by as many as may be checked at once and more.
fn guesses(address: &str, goes_on: &dyn Fn() -> bool) {
    while goes_on() {
        std::thread::scope(|scope| {
            for guess in 0..8 {
                scope.spawn(move || curl_as_attacker(address, &format!("prometheus:{guess}")));
            }
        });
    }
}

/// What a client that believes this certificate alone, and has a password, is answered.
fn get_by_tls(address: &str, path: &str, certificate: CertificateDer<'static>) -> String {
    let mut roots = RootCertStore::empty();
    roots.add(certificate).unwrap();
    let config = ClientConfig::builder_with_provider(Arc::new(rustls::crypto::ring::default_provider()))
        .with_safe_default_protocol_versions()
        .unwrap()
        .with_root_certificates(roots)
        .with_no_client_auth();
    let client = ClientConnection::new(Arc::new(config), "localhost".try_into().unwrap()).unwrap();
    let stream = TcpStream::connect(address).unwrap();
    stream.set_read_timeout(Some(Duration::from_secs(60))).unwrap();
    let mut stream = StreamOwned::new(client, stream);
    write!(stream, "GET {path} HTTP/1.1\r\nHost: localhost\r\n{PASSWORD}\r\n").unwrap();
    let mut answer = String::new();
    stream.read_to_string(&mut answer).unwrap();
    answer
}

fn curl_as_attacker(address: &str, user: &str) {
    let (_, port) = address.rsplit_once(':').unwrap();
    let mut command = Command::new("setpriv");
    command.args([
        "--reuid=54321",
        "--regid=54321",
        "--clear-groups",
        "curl",
        "--silent",
        "--insecure",
        "--max-time",
        "20",
    ]);
    let _ = command.args(["--user", user]).arg(format!("https://localhost:{port}/metrics")).output().unwrap();
}

#[test]
fn neither_handshakes_nor_guessed_passwords_keep_prometheus_out() {
    let folder = Scratch::new();
    let rcgen::CertifiedKey { cert, signing_key } =
        rcgen::generate_simple_self_signed(["localhost".to_owned()]).unwrap();
    fs::write(folder.path("server.crt"), cert.pem()).unwrap();
    fs::write(folder.path("server.key"), signing_key.serialize_pem()).unwrap();
    let web = format!(
        "tls_server_config:\n  cert_file: server.crt\n  key_file: server.key\nbasic_auth_users:\n  prometheus: {}\n",
        bcrypt::hash("geheim", 8).unwrap()
    );
    fs::write(folder.path("web.yml"), web).unwrap();
    let file = folder.path("web.yml");
    let mut agent = Agent::start("peer-tls", &["--web.config.file", file.to_str().unwrap()], "https");
    let asked = |address: &str, path: &str| get_by_tls(address, path, cert.der().clone());
    agent.besiege("handshakes and guesses", Duration::from_secs(3), &[handshakes, guesses, silent], &asked);
    agent.end_under(handshakes);
}

/// Passwords are guessed by as many users as a user may have for its containers: each has a connection, until another one takes its place.
fn guesses_of_many_users(address: &str, goes_on: &dyn Fn() -> bool) {
    // wrong:wrong
    let request = "GET /metrics HTTP/1.1\r\nHost: localhost\r\nAuthorization: Basic d3Jvbmc6d3Jvbmc=\r\n\r\n";
    let mut open = VecDeque::new();
    for user in (SUBORDINATES..SUBORDINATES + 100).cycle() {
        if !goes_on() {
            return;
        }
        // SAFETY: changes nothing but this thread's user for files and sockets.
        unsafe { libc::setfsuid(user) };
        let Some(mut stream) = connect(address) else { continue };
        let _ = stream.write(request.as_bytes());
        open.push_back(stream);
        if open.len() > 100 {
            open.pop_front();
        }
        // So many that each place has another user in a moment, and not all of the processor.
        std::thread::sleep(Duration::from_millis(1));
    }
}

/// Whoever has the most users is one peer all the same.
#[test]
fn users_below_another_do_not_keep_prometheus_out() {
    let folder = Scratch::new();
    let (users, file) = (folder.path("subuid"), folder.path("web.yml"));
    fs::write(&users, format!("mallory:{SUBORDINATES}:65536\n")).unwrap();
    fs::write(&file, format!("basic_auth_users:\n  prometheus: {}\n", bcrypt::hash("geheim", 8).unwrap())).unwrap();
    let script = format!("mount --bind {} /etc/subuid && exec {FAULTLINE} \"$@\"", users.display());
    let mut command = Command::new("unshare");
    command.args(["-m", "sh", "-c", &script, "sh"]);
    let arguments = ["--web.config.file", file.to_str().unwrap()];
    let mut agent = Agent::start_by(&mut command, &own_name("peer-sub"), &arguments, "http");
    let asked = |address: &str, path: &str| get_with(address, path, PASSWORD);
    agent.besiege("many users", Duration::from_secs(3), &[guesses_of_many_users, guesses_of_many_users], &asked);
    agent.end_under(guesses_of_many_users);
}

/// Only the users that are named are answered, whatever the others do about it.
#[test]
fn a_user_that_isnt_named_reads_nothing() {
    let agent = Agent::start("peer-usr", &["--metrics-allow-user", "54322"], "http");
    let as_user = |uid: u32| {
        let id = [format!("--reuid={uid}"), format!("--regid={uid}"), "--clear-groups".to_owned()];
        let url = format!("http://{}/metrics", agent.address);
        let output = Command::new("setpriv").args(id).args(["curl", "--silent", "--include", &url]).output().unwrap();
        String::from_utf8_lossy(&output.stdout).into_owned()
    };
    assert!(as_user(54_322).starts_with("HTTP/1.1 200 OK"));
    assert!(as_user(0).starts_with("HTTP/1.1 200 OK"));
    let refused = as_user(54_321);
    assert!(refused.starts_with("HTTP/1.1 403 ") && !refused.contains("faultline_"), "{refused}");
    assert!(refused.contains("--metrics-allow-user"), "{refused}");
}

/// Whoever calls a program of theirs as a service is called, doesn't crash in its name.
#[test]
fn a_file_of_that_name_is_not_the_service() {
    let mut agent = Agent::start("peer-nam", &[], "http");
    let program = agent.program().to_owned();
    let name = program.file_name().unwrap().to_str().unwrap();
    let died = Command::new("setpriv")
        .args(["--reuid=54321", "--regid=54321", "--clear-groups"])
        .arg(&program)
        .args(["7", "0"])
        .status()
        .unwrap();
    assert!(died.success());
    agent.add_crashes(7);
    agent.wait_for_counts();
    let metrics = get(&agent.address, "/metrics");
    let of = |uid: u32, count: u64| format!("executable=\"{name}\",uid=\"{uid}\"}} {count}\n");
    assert!(metrics.contains(&of(0, 20)) && metrics.contains(&of(54_321, 7)), "{metrics}");
}

/// As under the unit's TasksMax, with no room for another task: a server that needs one for each connection would be lost.
#[test]
fn a_hundred_slow_peers_find_no_task_to_take() {
    let (cgroup, name) = (FewTasks::new("peers"), own_name("peer-max"));
    let mut agent = Agent::start_by(&mut cgroup.command(FAULTLINE), &name, &[], "http");
    // The children that name are there as well.
    agent.hold("the first record", &get, &mut |agent| !agent.records_with(&name).is_empty());
    cgroup.close();
    agent.besiege("no tasks", Duration::from_secs(2), &[silent, half_a_request, dripping, pipelined], &get);
    assert_eq!(cgroup.refused(), 0, "it asked for another task");
    agent.end_under(half_a_request);
}
