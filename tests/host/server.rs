//! The agent's server among hostile peers: the agent goes on, grows little, and answers others. What each peer does by itself
//! is tested in `src/output/server`, without root.

use std::fs;
use std::io::{Read, Write};
use std::net::TcpStream;
use std::os::unix::net::UnixDatagram;
use std::process::Command;
use std::time::Duration;

use macro_rules_attribute::apply;

use crate::agent::{Agent, crash, crashes, notified};
use crate::harness::Scratch;
use crate::harness::runs::{Watch, watch_test};

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

#[apply(watch_test!)]
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
        "GET /metrics HTTP/1.1\r\nHost: localhost\r\nContent-Length: 100000\r\n\r\n",
        "GET /metrics HTTP/1.1\r\nHost: localhost\r\nContent-Length: 99999999999999\r\n\r\n",
        "GET /metrics HTTP/1.1\r\nHost: localhost\r\nContent-Length: 18446744073709551614\r\n\r\n",
        &"GET /metrics HTTP/1.1\r\nHost: localhost\r\n\r\n".repeat(10_000),
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

#[apply(watch_test!)]
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
    stream.write_all(b"GET /healthz HTTP/1.1\r\nHost: localhost\r\n\r\n").unwrap();
    stream.set_read_timeout(Some(Duration::from_secs(1))).unwrap();
    assert!(stream.read(&mut [0]).is_err(), "there is no descriptor to answer with");
    limit(1024);
    stream.set_read_timeout(Some(Duration::from_secs(60))).unwrap();
    let mut answer = String::new();
    stream.read_to_string(&mut answer).unwrap();
    assert!(answer.ends_with("\r\n\r\nok\n"), "{answer}");
    assert!(agent.stop().status.success());
}

/// A thread of another process that stands still, until this is dropped.
struct Stopped(libc::pid_t);

impl Stopped {
    fn thread(pid: u32, name: &str) -> Self {
        let tasks = fs::read_dir(format!("/proc/{pid}/task")).unwrap();
        let mut tasks = tasks.map(|task| task.unwrap().path());
        let task = tasks.find(|task| fs::read_to_string(task.join("comm")).unwrap().trim() == name).unwrap();
        let tid: libc::pid_t = task.file_name().unwrap().to_str().unwrap().parse().unwrap();
        let none = std::ptr::null_mut::<libc::c_void>();
        // SAFETY: neither reads or writes memory of ours.
        unsafe {
            assert_eq!(libc::ptrace(libc::PTRACE_SEIZE, tid, none, none), 0);
            assert_eq!(libc::ptrace(libc::PTRACE_INTERRUPT, tid, none, none), 0);
        }
        let mut status = 0;
        // SAFETY: it writes to `status` alone.
        assert_eq!(unsafe { libc::waitpid(tid, &raw mut status, libc::__WALL) }, tid);
        Self(tid)
    }
}

impl Drop for Stopped {
    fn drop(&mut self) {
        let none = std::ptr::null_mut::<libc::c_void>();
        // SAFETY: as above.
        unsafe { libc::ptrace(libc::PTRACE_DETACH, self.0, none, none) };
    }
}

/// The loop that counts goes on, but nobody would be told of it.
#[apply(watch_test!)]
fn the_watchdog_is_not_told_that_all_is_well_while_the_server_hangs() {
    let scratch = Scratch::new();
    let path = scratch.path("notify");
    let socket = UnixDatagram::bind(&path).unwrap();
    let hears = |within: Duration| {
        socket.set_read_timeout(Some(within)).unwrap();
        notified(&socket).is_ok_and(|message| message.starts_with("WATCHDOG=1"))
    };
    let mut command = Command::new(crate::harness::FAULTLINE);
    command.args(["agent", "--metrics-listen", "0", "-n", "no-such-name"]);
    command.env("NOTIFY_SOCKET", &path).env("WATCHDOG_USEC", "600000");
    let agent = Agent::spawn(&mut command);
    let (often, long) = (Duration::from_secs(2), Duration::from_secs(60));
    while !hears(long) {}
    assert!(hears(long) && hears(long));
    let stopped = Stopped::thread(agent.child.id(), "metrics");
    // What it was asked before is answered.
    let told = (0..10).take_while(|_| hears(often)).count();
    assert!(told < 3, "told {told} times that all is well");
    assert!(!hears(often));
    drop(stopped);
    assert!(hears(long), "it goes on");
    assert!(agent.stop().status.success());
}

#[apply(watch_test!)]
fn a_web_configuration_that_cant_be_used_is_an_error_with_the_cure() {
    let scratch = Scratch::new();
    let file = scratch.path("web.yml");
    fs::write(&file, "basic_auth_users:\n  alice: secret\n").unwrap();
    let refusal = |arguments: &[&str]| {
        let output = Command::new(crate::harness::FAULTLINE).arg("agent").args(arguments).args(["-n", "x"]).watch();
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
