//! The agent's server among hostile peers: the agent goes on, grows little, and answers others. What each peer does by itself
//! is tested in `src/output/server`, without root.

use std::fs;
use std::io::{Read, Write};
use std::net::TcpStream;
use std::process::Command;
use std::time::Duration;

use crate::agent::{Agent, crash, crashes};
use crate::harness::Scratch;

/// How much the agent may grow under all attacks at once.
const GROWTH_KIB: u64 = 24 * 1024;

fn resident_kib(pid: u32) -> u64 {
    let status = fs::read_to_string(format!("/proc/{pid}/status")).unwrap();
    let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:")).unwrap();
    line.split_whitespace().next().unwrap().parse().unwrap()
}

/// A hundred peers that send this and then nothing, and read nothing.
fn hold(address: &str, request: &str) -> Vec<TcpStream> {
    let hold_one = || {
        let mut stream = TcpStream::connect(address).unwrap();
        stream.set_nonblocking(true).unwrap();
        let _ = stream.write(request.as_bytes());
        stream
    };
    (0..100).map(|_| hold_one()).collect()
}

#[test]
fn hostile_peers_stop_nothing_and_cost_little() {
    let scratch = Scratch::new();
    let agent = Agent::start(&["-n", "agent-net-9d", "--interval", "0.2", "-o", "/dev/null"]);
    crash(&scratch, "agent-net-9d", 5, 20);
    agent.wait_for(&crashes("agent-net-9d"), 25.0);
    let before = resident_kib(agent.child.id());
    let endless = format!("GET /metrics HTTP/1.1\r\n{}", "a: b\r\n".repeat(100_000));
    let requests = [
        "",
        "GET /metr",
        "GET /metrics HTTP/1.1\r\nHost: x\r\nContent-Length: 100000\r\n\r\n",
        "GET /metrics HTTP/1.1\r\nHost: x\r\nContent-Length: 99999999999999\r\n\r\n",
        "GET /metrics HTTP/1.1\r\nHost: x\r\nContent-Length: 18446744073709551614\r\n\r\n",
        &"GET /metrics HTTP/1.1\r\nHost: x\r\n\r\n".repeat(10_000),
        &endless,
    ];
    let mut total = 25.0;
    let mut held = Vec::new();
    for request in requests {
        held.extend(hold(&agent.address, request));
        // Counted and served meanwhile.
        crash(&scratch, "agent-net-9d", 2, 0);
        total += 2.0;
        agent.wait_for(&crashes("agent-net-9d"), total);
        assert!(agent.get("/healthz", "*/*").ends_with("\r\n\r\nok\n"), "{request:.80}");
        let now = resident_kib(agent.child.id());
        assert!(now < before + GROWTH_KIB, "{now} KiB, {before} KiB before: {request:.80}");
    }
    assert!(agent.stop().status.success());
    drop(held);
}

#[test]
fn a_lack_of_descriptors_passes() {
    let agent = Agent::start(&["-n", "no-such-name", "--interval", "0.2"]);
    let pid = agent.child.id();
    let limit = |most: usize| {
        let limits = format!("--nofile={most}:1024");
        assert!(Command::new("prlimit").args(["--pid", &pid.to_string(), &limits]).status().unwrap().success());
    };
    // Numbers below it are taken.
    limit(3);
    let mut stream = TcpStream::connect(&agent.address).unwrap();
    stream.write_all(b"GET /healthz HTTP/1.1\r\nHost: x\r\n\r\n").unwrap();
    stream.set_read_timeout(Some(Duration::from_secs(1))).unwrap();
    assert!(stream.read(&mut [0]).is_err(), "there is no descriptor to answer with");
    limit(1024);
    stream.set_read_timeout(Some(Duration::from_secs(60))).unwrap();
    let mut answer = String::new();
    stream.read_to_string(&mut answer).unwrap();
    assert!(answer.ends_with("\r\n\r\nok\n"), "{answer}");
    assert!(agent.stop().status.success());
}

#[test]
fn a_web_configuration_that_cant_be_used_is_an_error_with_the_cure() {
    let scratch = Scratch::new();
    let file = scratch.path("web.yml");
    fs::write(&file, "basic_auth_users:\n  alice: secret\n").unwrap();
    let refusal = |arguments: &[&str]| {
        let output =
            Command::new(crate::harness::FAULTLINE).arg("agent").args(arguments).args(["-n", "x"]).output().unwrap();
        assert_eq!(output.status.code(), Some(2));
        String::from_utf8(output.stderr).unwrap()
    };
    let file = file.to_str().unwrap();
    let said = refusal(&["--metrics-listen", "0", "--web.config.file", file]);
    assert!(
        said.contains(&format!("failed to read `{file}`: the password of user `alice` is no bcrypt hash")),
        "{said}"
    );
    assert!(said.contains("`htpasswd -nBC 10 alice` makes one"), "{said}");
    assert!(refusal(&["--web.config.file", file]).contains("--metrics-listen"), "nothing is served");
}
