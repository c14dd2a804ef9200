//! `faultline agent`: its records, its metrics, and the failures that it survives.

use std::fs;
use std::io::{BufRead, BufReader, Read, Write};
use std::net::TcpStream;
use std::os::unix::net::UnixDatagram;
use std::path::Path;
use std::process::{Child, ChildStderr, Command, Output, Stdio};
use std::time::{Duration, Instant};

use serde_json::Value;

use crate::harness::{FAULTLINE, Scratch, copy_program, records};

/// An agent while it runs.
pub(crate) struct Agent {
    pub(crate) child: Child,
    stderr: BufReader<ChildStderr>,
    /// `127.0.0.1:PORT`
    pub(crate) address: String,
}

impl Agent {
    pub(crate) fn start(arguments: &[&str]) -> Self {
        Self::spawn(Command::new(FAULTLINE).args(["agent", "--metrics-listen", "0"]).args(arguments))
    }

    fn spawn(command: &mut Command) -> Self {
        let mut child = command.stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap();
        let mut stderr = BufReader::new(child.stderr.take().unwrap());
        let mut said = String::new();
        let address = loop {
            assert!(stderr.read_line(&mut said).unwrap() > 0, "it ended: {said}");
            if let Some((_, rest)) = said.split_once("metrics on http://") {
                break rest.trim_end().trim_end_matches("/metrics").to_owned();
            }
        };
        assert!(said.starts_with("faultline: watching "), "{said}");
        Self { child, stderr, address }
    }

    fn signal(&self, name: &str) {
        assert!(Command::new("kill").args(["-s", name, &self.child.id().to_string()]).status().unwrap().success());
    }

    /// Status line, headers and body.
    pub(crate) fn get(&self, path: &str, accept: &str) -> String {
        let mut stream = TcpStream::connect(&self.address).unwrap();
        write!(stream, "GET {path} HTTP/1.1\r\nHost: x\r\nAccept: {accept}\r\nConnection: close\r\n\r\n").unwrap();
        let mut answer = String::new();
        stream.read_to_string(&mut answer).unwrap();
        answer
    }

    /// The value of the only sample that begins with this. Waits until it is `wanted`.
    pub(crate) fn wait_for(&self, metric: &str, wanted: f64) {
        let deadline = Instant::now() + Duration::from_secs(60);
        loop {
            let text = self.get("/metrics", "*/*");
            let value = text.lines().find_map(|line| line.strip_prefix(metric)?.trim().parse::<f64>().ok());
            if value == Some(wanted) {
                return;
            }
            assert!(Instant::now() < deadline, "{metric} is {value:?}, not {wanted}: {text}");
            std::thread::sleep(Duration::from_millis(50));
        }
    }

    pub(crate) fn stop(self) -> Output {
        self.signal("TERM");
        let Self { child, mut stderr, .. } = self;
        let mut output = child.wait_with_output().unwrap();
        stderr.read_to_end(&mut output.stderr).unwrap();
        output
    }
}

pub(crate) fn crash(scratch: &Scratch, name: &str, same: u64, others: u64) {
    let program = scratch.path(name);
    if !program.exists() {
        copy_program("many-deaths", &program);
    }
    assert!(Command::new(&program).args([same.to_string(), others.to_string()]).status().unwrap().success());
}

fn matched(records: &[Value]) -> u64 {
    let summaries = records.iter().filter(|record| record["type"] == "summary");
    summaries.map(|summary| summary["deliveries"]["matched"].as_u64().unwrap()).sum()
}

pub(crate) fn crashes(name: &str) -> String {
    format!("faultline_crashes_total{{signal=\"SIGSEGV\",code=\"SEGV_MAPERR\",executable=\"{name}\"}}")
}

#[test]
fn metrics_are_what_prometheus_expects() {
    let scratch = Scratch::new();
    let agent =
        Agent::start(&["-n", "agent-met-7b", "--interval", "0.2", "--max-executables", "1", "--max-groups", "2"]);
    crash(&scratch, "agent-met-7b", 10, 3);
    agent.wait_for(&crashes("agent-met-7b"), 11.0);
    agent.wait_for("faultline_events_dropped_total{stage=\"group\",reason=\"group_table_full\"}", 2.0);
    let open = agent.get("/metrics", "application/openmetrics-text; version=1.0.0");
    assert!(open.starts_with("HTTP/1.1 200 OK") && open.contains("application/openmetrics-text"), "{open}");
    assert!(open.contains("# TYPE faultline_crashes counter\n") && open.ends_with("# EOF\n"), "{open}");
    let old = agent.get("/metrics", "text/plain");
    assert!(old.contains("version=0.0.4") && old.contains("# TYPE faultline_crashes_total counter\n"), "{old}");
    for unbounded in ["pid=", "0x", "/"] {
        let samples = old.split_once("\r\n\r\n").unwrap().1.lines().filter(|line| !line.starts_with('#'));
        assert!(!samples.collect::<String>().contains(unbounded), "{unbounded}: {old}");
    }
    assert!(old.contains("faultline_crash_groups 2\n") && old.contains("faultline_crash_groups_limit 2\n"), "{old}");
    assert!(agent.get("/healthz", "*/*").ends_with("\r\n\r\nok\n"));
    assert!(agent.get("/", "*/*").starts_with("HTTP/1.1 404 "));
    agent.stop();
}

#[test]
fn a_moved_file_is_opened_anew() {
    let scratch = Scratch::new();
    let (file, moved) = (scratch.path("records"), scratch.path("records.1"));
    let agent = Agent::start(&["-n", "agent-hup-1e", "--interval", "0.2", "-o", file.to_str().unwrap()]);
    crash(&scratch, "agent-hup-1e", 5, 0);
    agent.wait_for(&crashes("agent-hup-1e"), 5.0);
    fs::rename(&file, &moved).unwrap();
    agent.signal("HUP");
    while !file.exists() {
        std::thread::sleep(Duration::from_millis(20));
    }
    crash(&scratch, "agent-hup-1e", 7, 0);
    agent.wait_for(&crashes("agent-hup-1e"), 12.0);
    agent.stop();
    let (old, new) = (fs::read_to_string(&moved).unwrap(), fs::read_to_string(&file).unwrap());
    assert_eq!(matched(&records(&old)) + matched(&records(&new)), 12, "nothing between the two");
    assert!(matched(&records(&new)) >= 7);
}

/// A disk is full for a while: every line in the file is whole, and the counts of that time come afterwards.
#[test]
fn a_full_disk_loses_no_count() {
    let scratch = Scratch::new();
    let disk = scratch.path("disk");
    fs::create_dir(&disk).unwrap();
    assert!(
        Command::new("mount").args(["-t", "tmpfs", "-o", "size=64k", "none"]).arg(&disk).status().unwrap().success()
    );
    let unmount = Unmount(&disk);
    let file = disk.join("records");
    let mut agent = Agent::start(&[
        "-n",
        "agent-full-3d",
        "--interval",
        "0.2",
        "--sample-interval",
        "3600",
        "-o",
        file.to_str().unwrap(),
    ]);
    crash(&scratch, "agent-full-3d", 5, 0);
    agent.wait_for(&crashes("agent-full-3d"), 5.0);
    let filler = disk.join("filler");
    let _ = fs::write(&filler, vec![0; 1 << 20]);
    let mut said = String::new();
    while !said.contains("No space left on device") {
        assert!(agent.stderr.read_line(&mut said).unwrap() > 0, "{said}");
    }
    assert!(said.contains("counting goes on"), "{said}");
    crash(&scratch, "agent-full-3d", 40, 3);
    agent.wait_for(&crashes("agent-full-3d"), 48.0);
    fs::remove_file(&filler).unwrap();
    while !said.contains("written again") {
        assert!(agent.stderr.read_line(&mut said).unwrap() > 0, "{said}");
    }
    assert!(agent.stop().status.success());
    let records = records(fs::read_to_string(&file).unwrap());
    assert_eq!(matched(&records), 48);
    let failed: u64 = records.iter().filter_map(|record| record["sample_losses"]["write_failed"].as_u64()).sum();
    let written = records.iter().filter(|record| record["type"] == "crash").count() as u64;
    assert_eq!(written + failed, 3 + 3, "a sample that could not be written is counted");
    drop(unmount);
}

struct Unmount<'a>(&'a Path);

impl Drop for Unmount<'_> {
    fn drop(&mut self) {
        let _ = Command::new("umount").args(["-l"]).arg(self.0).status();
    }
}

/// A reader of our standard output that stalls stops neither the counting nor the end, and every line is whole.
#[test]
fn a_stalled_reader_stops_nothing() {
    let scratch = Scratch::new();
    let flags =
        ["-n", "agent-slow-2c", "--interval", "0.1", "--samples-per-group", "1000", "--samples-per-second", "1000"];
    let mut agent = Agent::start(&flags);
    crash(&scratch, "agent-slow-2c", 200, 0);
    agent.wait_for(&crashes("agent-slow-2c"), 200.0);
    let mut said = String::new();
    while !said.contains("its reader has stalled") {
        assert!(agent.stderr.read_line(&mut said).unwrap() > 0, "{said}");
    }
    crash(&scratch, "agent-slow-2c", 5, 0);
    agent.wait_for(&crashes("agent-slow-2c"), 205.0);
    agent.signal("TERM");
    assert_eq!(agent.child.wait().unwrap().code(), Some(2));
    agent.stderr.read_to_string(&mut said).unwrap();
    assert!(said.contains("failed to write the last summary: "), "{said}");
    let mut text = String::new();
    agent.child.stdout.take().unwrap().read_to_string(&mut text).unwrap();
    let (lines, rest) = text.rsplit_once('\n').unwrap();
    records(lines);
    assert!(rest.is_empty() || rest.starts_with("{\"type\":\"crash\""), "{rest}");
}

#[test]
fn executable_memory_is_counted_when_asked() {
    let scratch = Scratch::new();
    let program = crate::harness::named(&scratch, "memory-pages", "agent-exec-5d");
    let agent = Agent::start(&["--exec-memory", "--interval", "0.2", "-n", "agent-exec-5d"]);
    assert!(Command::new(&program).arg("160").stdout(Stdio::null()).status().unwrap().success());
    agent.wait_for(
        "faultline_executable_memory_calls_total{comm=\"agent-exec-5d\",call=\"mprotect\",writable=\"no\"}",
        10.0,
    );
    let output = agent.stop();
    assert!(output.status.success());
    let records = records(String::from_utf8(output.stdout).unwrap());
    let told: Vec<&Value> = records.iter().filter(|record| record["type"] == "executable_memory").collect();
    assert_eq!(told.iter().map(|record| record["calls"].as_u64().unwrap()).sum::<u64>(), 10, "{told:#?}");
    assert_eq!(told.last().unwrap()["final"], true);
}

#[test]
fn systemd_is_told() {
    let scratch = Scratch::new();
    let path = scratch.path("notify");
    let socket = UnixDatagram::bind(&path).unwrap();
    socket.set_read_timeout(Some(Duration::from_secs(60))).unwrap();
    let hear = || {
        let mut buffer = [0; 256];
        let length = socket.recv(&mut buffer).unwrap();
        String::from_utf8_lossy(&buffer[..length]).trim_end().to_owned()
    };
    let mut command = Command::new(FAULTLINE);
    command.args(["agent", "--metrics-listen", "0", "-n", "agent-sd-6f"]);
    command.env("NOTIFY_SOCKET", &path).env("WATCHDOG_USEC", "600000");
    let agent = Agent::spawn(&mut command);
    assert_eq!(hear(), "READY=1");
    // The interval is 10 s: the watchdog is notified more often than that.
    assert_eq!((hear(), hear()), ("WATCHDOG=1".to_owned(), "WATCHDOG=1".to_owned()));
    agent.signal("TERM");
    while hear() != "STOPPING=1" {}
    agent.stop_ended();
}

impl Agent {
    fn stop_ended(mut self) {
        assert!(self.child.wait().unwrap().success());
    }
}

#[test]
fn what_cant_be_listened_on_is_an_error() {
    let held = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let address = held.local_addr().unwrap().to_string();
    let output = Command::new(FAULTLINE).args(["agent", "--metrics-listen", &address]).output().unwrap();
    let text = String::from_utf8_lossy(&output.stderr).into_owned();
    assert_eq!(output.status.code(), Some(2), "{text}");
    assert!(text.contains(&format!("failed to listen on `{address}`: Address already in use")), "{text}");
}

#[test]
fn a_closed_pipe_ends_it_quietly() {
    let mut child = Command::new(FAULTLINE)
        .args(["agent", "--interval", "0.1", "-n", "no-such-name"])
        .stdout(Stdio::piped())
        .stderr(Stdio::null())
        .spawn()
        .unwrap();
    drop(child.stdout.take());
    assert_eq!(child.wait().unwrap().code(), Some(0));
}
