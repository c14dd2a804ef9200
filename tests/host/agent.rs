//! `faultline agent`: its records, its metrics, and the failures that it survives.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::io::{self, BufRead, BufReader, Read, Write};
use std::net::TcpStream;
use std::os::unix::net::UnixDatagram;
use std::path::Path;
use std::process::{Child, ChildStderr, Command, Output, Stdio};
use std::time::{Duration, Instant};

use macro_rules_attribute::apply;
use serde_json::Value;

use crate::harness::runs::{Watch, note, watch_test};
use crate::harness::{FAULTLINE, Scratch, copy_program, records};
use crate::unmount::Unmount;

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

    pub(crate) fn spawn(command: &mut Command) -> Self {
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

    pub(crate) fn signal(&self, name: &str) {
        assert!(Command::new("kill").args(["-s", name, &self.child.id().to_string()]).status().unwrap().success());
    }

    /// Status line, headers and body.
    pub(crate) fn get(&self, path: &str, accept: &str) -> String {
        let mut stream = TcpStream::connect(&self.address).unwrap();
        write!(stream, "GET {path} HTTP/1.1\r\nHost: localhost\r\nAccept: {accept}\r\nConnection: close\r\n\r\n")
            .unwrap();
        let mut answer = String::new();
        stream.read_to_string(&mut answer).unwrap();
        note(answer.as_bytes());
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

    pub(crate) fn stop(mut self) -> Output {
        self.signal("TERM");
        let (mut stdout, mut stderr) = (Vec::new(), Vec::new());
        // Unless the test reads it itself.
        if let Some(mut from) = self.child.stdout.take() {
            from.read_to_end(&mut stdout).unwrap();
        }
        self.stderr.read_to_end(&mut stderr).unwrap();
        note(&stdout);
        note(&stderr);
        Output { status: self.child.wait().unwrap(), stdout, stderr }
    }
}

/// A test that failed leaves no agent behind.
impl Drop for Agent {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
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
    format!("faultline_crashes_total{{signal=\"SIGSEGV\",code=\"SEGV_MAPERR\",executable=\"{name}\",uid=\"0\"}}")
}

#[apply(watch_test!)]
fn metrics_are_what_prometheus_expects() {
    let scratch = Scratch::new();
    let agent =
        Agent::start(&["-n", "agent-met-7b", "--interval", "0.2", "--max-executables", "1", "--max-groups", "2"]);
    crash(&scratch, "agent-met-7b", 10, 3);
    // What finds no group is counted under its executable all the same.
    agent.wait_for(&crashes("agent-met-7b"), 13.0);
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

#[apply(watch_test!)]
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
#[apply(watch_test!)]
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

/// A reader of our standard output that stalls stops neither the counting nor the end, and every line is whole.
#[apply(watch_test!)]
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

#[apply(watch_test!)]
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

/// The rows of the tables of docs/fleet.md before `end` that begin with a cell that `cell` takes.
fn guide<T>(end: &str, cell: impl Fn(&[&str]) -> Option<T>) -> Vec<T> {
    let text = fs::read_to_string(Path::new(env!("CARGO_MANIFEST_DIR")).join("docs/fleet.md")).unwrap();
    let (text, _) = text.split_once(end).unwrap();
    let rows = text.lines().filter(|line| line.starts_with("| `"));
    rows.filter_map(|row| cell(&row.split('|').map(str::trim).skip(1).collect::<Vec<_>>())).collect()
}

/// Name and labels of a series: `name{label="value",...} 1`.
fn series(line: &str) -> (String, Vec<(String, String)>) {
    let (series, _) = line.rsplit_once(' ').unwrap();
    let Some((name, labels)) = series.split_once('{') else { return (series.to_owned(), Vec::new()) };
    let labels = labels.trim_end_matches("\"}").split("\",").filter(|label| !label.is_empty());
    let pair = |label: &str| label.split_once("=\"").map(|(name, value)| (name.to_owned(), value.to_owned())).unwrap();
    (name.to_owned(), labels.map(pair).collect())
}

/// docs/fleet.md, the alert rules and the dashboard name what an agent with all switches exports, and no more.
#[apply(watch_test!)]
fn the_guide_has_every_series_and_loss_of_a_running_agent() {
    let scratch = Scratch::new();
    let pages = crate::harness::named(&scratch, "memory-pages", "agent-doc-m-8e");
    let agent = Agent::start(&[&ALL[..], &["--interval", "0.2", "-n", "agent-doc-"]].concat());
    crash(&scratch, "agent-doc-c-8e", 2, 0);
    assert!(Command::new(&pages).arg("160").stdout(Stdio::null()).status().unwrap().success());
    agent.wait_for(&crashes("agent-doc-c-8e"), 2.0);
    let executable =
        "faultline_executable_memory_calls_total{comm=\"agent-doc-m-8e\",call=\"mprotect\",writable=\"no\"}";
    agent.wait_for(executable, 10.0);
    let answer = agent.get("/metrics", "text/plain");
    let text = answer.split_once("\r\n\r\n").unwrap().1;
    let exported: Vec<_> = text.lines().filter(|line| !line.starts_with('#')).map(series).collect();

    let documented: BTreeMap<String, BTreeSet<String>> = guide("### How many series", |cells| {
        let metric = |text: &str| {
            let (name, labels) = text.trim_end_matches('}').split_once('{').unwrap_or((text, ""));
            let labels = labels.split(',').filter(|label| !label.is_empty()).map(str::to_owned).collect();
            ["faultline_", "process_"].iter().any(|begin| name.starts_with(begin)).then(|| (name.to_owned(), labels))
        };
        Some(cells[0].trim_matches('`').split("` `").filter_map(metric).collect::<Vec<_>>())
    })
    .into_iter()
    .flatten()
    .collect();
    for (name, labels) in &exported {
        let labels: BTreeSet<String> = labels.iter().map(|(label, _)| label.clone()).collect();
        assert_eq!(Some(&labels), documented.get(name), "{name}");
    }
    // Whether a page has to be read from a disk is up to the machine.
    let seen: BTreeSet<&str> = exported.iter().map(|(name, _)| name.as_str()).collect();
    let unseen: Vec<&str> = documented.keys().map(String::as_str).filter(|name| !seen.contains(name)).collect();
    assert!(unseen.is_empty() || unseen == ["faultline_major_page_faults_total"], "{unseen:?}");

    let losses: BTreeSet<(String, String)> = guide("## Prometheus", |cells| {
        let word = |text: &str| text.trim_matches('`').to_owned();
        let reasons = cells[1].split(' ').filter(|cell| cell.starts_with('`')).map(word);
        (!cells[0].contains("faultline_")).then(|| reasons.map(|reason| (word(cells[0]), reason)).collect::<Vec<_>>())
    })
    .into_iter()
    .flatten()
    .collect();
    let dropped = exported.iter().filter(|(name, _)| name == "faultline_events_dropped_total");
    let dropped: BTreeSet<_> = dropped.map(|(_, labels)| (labels[0].1.clone(), labels[1].1.clone())).collect();
    assert_eq!(dropped, losses);

    for file in [
        "dist/prometheus/faultline.rules.yml",
        "dist/prometheus/faultline.rules.test.yml",
        "dist/grafana/faultline.json",
    ] {
        let text = fs::read_to_string(Path::new(env!("CARGO_MANIFEST_DIR")).join(file)).unwrap();
        let words = text.split(|letter: char| !letter.is_ascii_alphanumeric() && !"_:".contains(letter));
        let metrics: BTreeSet<&str> =
            words.filter(|word| word.starts_with("faultline_") && !word.contains(':')).collect();
        assert!(metrics.len() > 3, "{file}");
        for metric in metrics {
            assert!(documented.contains_key(metric), "{file}: {metric}");
        }
    }
    agent.stop();
}

const ALL: [&str; 3] = ["--watch-signals", "--pagefaults", "--exec-memory"];

/// While nothing can be written, for more intervals than were kept once (64), everything that is counted is kept.
#[apply(watch_test!)]
fn a_failed_write_loses_no_count_of_anything() {
    let scratch = Scratch::new();
    let disk = scratch.path("disk");
    fs::create_dir(&disk).unwrap();
    assert!(
        Command::new("mount").args(["-t", "tmpfs", "-o", "size=64k", "none"]).arg(&disk).status().unwrap().success()
    );
    let unmount = Unmount(&disk);
    let (file, filler) = (disk.join("records"), disk.join("filler"));
    let faults = scratch.path("agent-all-f-1b");
    copy_program("faults", &faults);
    let pages = crate::harness::named(&scratch, "memory-pages", "agent-all-m-1b");
    let mut agent =
        Agent::start(&[&ALL[..], &["-n", "agent-all-", "--interval", "0.1", "-o", file.to_str().unwrap()]].concat());
    let _ = fs::write(&filler, vec![0; 1 << 20]);
    let mut said = String::new();
    while !said.contains("No space left on device") {
        assert!(agent.stderr.read_line(&mut said).unwrap() > 0, "{said}");
    }
    crash(&scratch, "agent-all-c-1b", 20, 3);
    assert!(Command::new(&faults).arg("two_functions").output().unwrap().status.success());
    assert!(Command::new(&pages).arg("160").stdout(Stdio::null()).status().unwrap().success());
    agent.wait_for(&crashes("agent-all-c-1b"), 23.0);
    std::thread::sleep(Duration::from_secs(8));
    let text = agent.get("/metrics", "text/plain");
    let sum = |metric: &str| -> u64 {
        let lines = text.lines().filter(|line| line.strip_prefix(metric).is_some_and(|rest| rest.starts_with('{')));
        lines.map(|line| line.rsplit_once(' ').unwrap().1.parse::<u64>().unwrap()).sum()
    };
    let counted = [
        ("summary", "/deliveries/matched", sum("faultline_signals_delivered_total")),
        ("signal_summary", "/deliveries/matched", sum("faultline_signals_sent_total")),
        ("pagefault_summary", "/faults/matched", sum("faultline_page_faults_total")),
        ("executable_memory", "/calls", sum("faultline_executable_memory_calls_total")),
    ];
    fs::remove_file(&filler).unwrap();
    while !said.contains("written again") {
        assert!(agent.stderr.read_line(&mut said).unwrap() > 0, "{said}");
    }
    assert!(agent.stop().status.success());
    let records = records(fs::read_to_string(&file).unwrap());
    for (kind, field, counted) in counted {
        let told = records.iter().filter(|record| record["type"] == kind);
        let told: u64 = told.map(|record| record.pointer(field).unwrap().as_u64().unwrap()).sum();
        assert!(counted > 0 && told == counted, "{kind}: {told} told, {counted} counted");
    }
    drop(unmount);
}

/// The next message to systemd. A wait with an end is interrupted whenever this process was stopped, as signal(7) has it.
pub(crate) fn notified(socket: &UnixDatagram) -> io::Result<String> {
    let mut buffer = [0; 256];
    loop {
        match socket.recv(&mut buffer) {
            Ok(length) => return Ok(String::from_utf8_lossy(&buffer[..length]).trim_end().to_owned()),
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            Err(error) => return Err(error),
        }
    }
}

#[apply(watch_test!)]
fn systemd_is_told() {
    let scratch = Scratch::new();
    let path = scratch.path("notify");
    let socket = UnixDatagram::bind(&path).unwrap();
    socket.set_read_timeout(Some(Duration::from_secs(60))).unwrap();
    let hear = || notified(&socket).unwrap();
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

#[apply(watch_test!)]
fn what_cant_be_listened_on_is_an_error() {
    let held = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let address = held.local_addr().unwrap().to_string();
    let output = Command::new(FAULTLINE).args(["agent", "--metrics-listen", &address]).watch();
    let text = String::from_utf8_lossy(&output.stderr).into_owned();
    assert_eq!(output.status.code(), Some(2), "{text}");
    assert!(text.contains(&format!("failed to listen on `{address}`: Address already in use")), "{text}");
}

#[apply(watch_test!)]
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
