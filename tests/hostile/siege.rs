//! An agent under attack by peers: what it must do meanwhile, and what the attack may cost.

use std::cell::{Ref, RefCell};
use std::fs;
use std::io::{BufRead, BufReader, Read, Seek, SeekFrom, Write};
use std::net::TcpStream;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use nix::sys::signal::{Signal, kill};
use nix::sys::wait::{Id, WaitPidFlag, waitid};
use nix::unistd::Pid;
use serde_json::Value;

use crate::harness::{FAULTLINE, Scratch, copy_program, records, whole};
use crate::own_name::own_name;
use crate::starved::{Fair, thread};

/// How long others may wait for an answer, and how long an end may take.
pub(crate) const PROMPT: Duration = Duration::from_secs(1);

/// How much the agent may grow under any attack.
const GROWTH_KIB: u64 = 24 * 1024;

/// Between two summaries. One waits for names for half of it at most, so that a host as busy as a machine with tests makes none late.
const INTERVAL: Duration = Duration::from_millis(500);

/// How long the last counts may take to come.
const COUNTED: Duration = Duration::from_secs(10);

/// The user that attacks: none of the machine's.
const ATTACKER: libc::uid_t = 54_321;

/// An agent that counts the crashes of one program.
pub(crate) struct Agent {
    child: Child,
    /// `127.0.0.1:PORT`
    pub address: String,
    scratch: Scratch,
    program: PathBuf,
    rest_kib: u64,
    /// How many crashes were caused.
    crashes: u64,
    /// Between the crashes that are caused while it is held to what it promises.
    pub pace: Duration,
    written: RefCell<Written>,
}

impl Agent {
    /// `base`: of the program's name, and of no other's.
    pub(crate) fn start(base: &str, arguments: &[&str], scheme: &str) -> Self {
        Self::start_by(&mut Command::new(FAULTLINE), &own_name(base), arguments, scheme)
    }

    /// The same by a command that takes faultline's arguments, for a program of this name.
    pub(crate) fn start_by(command: &mut Command, name: &str, arguments: &[&str], scheme: &str) -> Self {
        let scratch = Scratch::new();
        let program = scratch.path(name);
        copy_program("many-deaths", &program);
        let interval = INTERVAL.as_secs_f64().to_string();
        let mut child = command
            .args(["agent", "--metrics-listen", "0", "-n", name, "--interval", &interval, "-o"])
            .arg(scratch.path("records"))
            .args(arguments)
            .stderr(Stdio::piped())
            .spawn()
            .unwrap();
        let mut said = String::new();
        let mut stderr = BufReader::new(child.stderr.take().unwrap());
        let address = loop {
            assert!(stderr.read_line(&mut said).unwrap() > 0, "it ended: {said}");
            if let Some((_, rest)) = said.split_once(&format!("metrics on {scheme}://")) {
                break rest.trim_end().trim_end_matches("/metrics").to_owned();
            }
        };
        let mut agent = Self {
            child,
            address,
            scratch,
            program,
            rest_kib: 0,
            crashes: 0,
            pace: Duration::ZERO,
            written: RefCell::default(),
        };
        agent.crash(20);
        agent.wait_for_counts();
        agent.rest_kib = agent.resident_kib();
        agent
    }

    pub(crate) fn pid(&self) -> u32 {
        self.child.id()
    }

    /// The thread that counts.
    fn counter(&self) -> PathBuf {
        PathBuf::from(format!("/proc/{0}/task/{0}", self.child.id()))
    }

    pub(crate) fn resident_kib(&self) -> u64 {
        let status = fs::read_to_string(format!("/proc/{}/status", self.child.id())).unwrap();
        let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:")).unwrap();
        line.split_whitespace().next().unwrap().parse().unwrap()
    }

    pub(crate) fn is_small(&self) {
        let now = self.resident_kib();
        assert!(now < self.rest_kib + GROWTH_KIB, "{now} KiB, {} KiB at rest", self.rest_kib);
    }

    pub(crate) fn crash(&mut self, count: u64) {
        let died = Command::new(&self.program).args([count.to_string(), "0".to_owned()]).status().unwrap();
        assert!(died.success());
        self.crashes += count;
    }

    pub(crate) fn program(&self) -> &Path {
        &self.program
    }

    /// Somebody else has caused them.
    pub(crate) fn add_crashes(&mut self, count: u64) {
        self.crashes += count;
    }

    /// Reads what it has written since the last time. Each summary must add up.
    fn read_on(&self) -> Ref<'_, Written> {
        self.written.borrow_mut().go_on(&self.scratch.path("records"));
        self.written.borrow()
    }

    /// The signals that the summaries have.
    pub(crate) fn counted(&self) -> u64 {
        self.read_on().counted
    }

    /// The records of crashes that name this file.
    pub(crate) fn records_with(&self, file: &str) -> Vec<Value> {
        self.read_on().crashes.iter().filter(|line| line.contains(file)).flat_map(records).collect()
    }

    fn summaries(&self) -> usize {
        self.read_on().summaries
    }

    /// Waits until the summaries have every crash that was caused.
    pub(crate) fn wait_for_counts(&self) {
        let begun = Fair::begin(self.counter());
        while self.counted() < self.crashes {
            assert!(begun.elapsed() < COUNTED, "{} of {} crashes are in summaries", self.counted(), self.crashes);
            std::thread::sleep(Duration::from_millis(20));
        }
        assert_eq!(self.counted(), self.crashes);
    }

    /// Another peer is answered, and at once.
    pub(crate) fn answers(&self, asked: &dyn Fn(&str, &str) -> String) {
        for path in ["/metrics", "/healthz"] {
            let begun = Fair::begin(thread(self.child.id(), "metrics")).with_own();
            let answer = asked(&self.address, path);
            let took = begun.elapsed();
            assert!(answer.starts_with("HTTP/1.1 200 OK\r\n"), "{path}: {answer:.200}");
            assert!(took < PROMPT, "{path} took {took:?}");
        }
    }

    /// Attacks by several threads of another user, and holds the agent to what it promises meanwhile.
    pub(crate) fn besiege(
        &mut self,
        what: &str,
        lasts: Duration,
        attacks: &[Attack],
        asked: &dyn Fn(&str, &str) -> String,
    ) {
        let (is_over, address) = (AtomicBool::new(false), self.address.clone());
        let begun = Instant::now();
        std::thread::scope(|scope| {
            for attack in attacks {
                let (is_over, address) = (&is_over, &address);
                scope.spawn(move || as_attacker(|| attack(address, &|| !is_over.load(Ordering::Relaxed))));
            }
            let _end = SetOnDrop(&is_over);
            self.hold(what, asked, &mut |_| begun.elapsed() >= lasts);
        });
    }

    /// Holds it to what it promises until `is_over` says that the attack is.
    pub(crate) fn hold(
        &mut self,
        what: &str,
        asked: &dyn Fn(&str, &str) -> String,
        is_over: &mut dyn FnMut(&Self) -> bool,
    ) {
        let (before, begun) = (self.summaries(), Fair::begin(self.counter()));
        let mut next_crash = Instant::now();
        while !is_over(self) {
            self.answers(asked);
            self.is_small();
            if Instant::now() >= next_crash {
                self.crash(3);
                next_crash = Instant::now() + self.pace;
            }
            let _ = self.counted();
            std::thread::sleep(Duration::from_millis(50));
        }
        self.wait_for_counts();
        let (told, took) = (self.summaries() - before, begun.elapsed());
        let due = took.as_millis() / INTERVAL.as_millis();
        assert!(told as u128 + 2 >= due, "{what}: {told} summaries in {took:?}");
    }

    /// Is told to end while it is attacked, and does.
    pub(crate) fn end_under(mut self, attack: Attack) {
        let is_over = AtomicBool::new(false);
        let address = self.address.clone();
        std::thread::scope(|scope| {
            let _end = SetOnDrop(&is_over);
            scope.spawn(|| as_attacker(|| attack(&address, &|| !is_over.load(Ordering::Relaxed))));
            std::thread::sleep(Duration::from_millis(300));
            let pid = Pid::from_raw(self.child.id().try_into().unwrap());
            let begun = Fair::begin(self.counter()).with_own();
            kill(pid, Signal::SIGTERM).unwrap();
            // Looked at before it is gone for good.
            waitid(Id::Pid(pid), WaitPidFlag::WEXITED | WaitPidFlag::WNOWAIT).unwrap();
            let took = begun.elapsed();
            let status = self.child.wait().unwrap();
            assert!(status.success() && took < PROMPT, "{status} after {took:?}");
        });
        assert_eq!(self.counted(), self.crashes);
    }
}

/// What an agent has written, as far as it was read.
#[derive(Default)]
struct Written {
    bytes: u64,
    counted: u64,
    /// The groups of the lines so far of a summary that has several.
    earlier: Vec<Value>,
    summaries: usize,
    /// The lines of crashes.
    crashes: Vec<String>,
}

impl Written {
    /// Reads what has come, but for a line that isn't whole yet.
    fn go_on(&mut self, path: &Path) {
        let mut file = fs::File::open(path).unwrap();
        file.seek(SeekFrom::Start(self.bytes)).unwrap();
        let mut bytes = Vec::new();
        file.read_to_end(&mut bytes).unwrap();
        bytes.truncate(bytes.iter().rposition(|&byte| byte == b'\n').map_or(0, |end| end + 1));
        self.bytes += bytes.len() as u64;
        for line in std::str::from_utf8(&bytes).unwrap().lines() {
            if line.starts_with("{\"type\":\"crash\"") {
                self.crashes.push(line.to_owned());
                continue;
            }
            let Some(record) = whole(line, &mut self.earlier) else { continue };
            if record["type"] == "summary" {
                self.counted += counted_in(&record);
            }
            // Intervals without events are a heartbeat.
            self.summaries += usize::from(record["type"] == "heartbeat" || record["type"] == "summary");
        }
    }
}

/// The signals that a summary has, which must add up.
fn counted_in(summary: &Value) -> u64 {
    let number = |value: &Value| value.as_u64().unwrap();
    let groups: u64 = summary["groups"].as_array().unwrap().iter().map(|group| number(&group["count"])).sum();
    let losses: u64 = summary["losses"].as_object().unwrap().values().map(number).sum();
    let matched = number(&summary["deliveries"]["matched"]);
    assert_eq!(matched, groups + losses, "{summary}");
    matched
}

/// A test that failed leaves no agent behind.
impl Drop for Agent {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// Ends what waits for it when a test ends, however that does.
pub(crate) struct SetOnDrop<'a>(pub &'a AtomicBool);

impl Drop for SetOnDrop<'_> {
    fn drop(&mut self) {
        self.0.store(true, Ordering::Relaxed);
    }
}

/// Attacks this address for as long as it is told to.
pub(crate) type Attack = fn(&str, &dyn Fn() -> bool);

/// As another user: sockets are the file system user's, which each thread has its own of.
fn as_attacker(attack: impl FnOnce()) {
    // SAFETY: changes nothing but this thread's user.
    unsafe { libc::setfsuid(ATTACKER) };
    behind_all_others();
    attack();
}

/// Puts this thread behind all others for the processor: whoever takes all of it takes the client's as well, and the bound is the server's.
pub(crate) fn behind_all_others() {
    // SAFETY: changes nothing but this thread's priority.
    unsafe { libc::setpriority(libc::PRIO_PROCESS, 0, 19) };
}

/// Status line, headers and body.
pub(crate) fn get(address: &str, path: &str) -> String {
    get_with(address, path, "")
}

/// The same, asked for with this line more in its head.
pub(crate) fn get_with(address: &str, path: &str, line: &str) -> String {
    let mut stream = TcpStream::connect(address).unwrap();
    stream.set_read_timeout(Some(Duration::from_secs(60))).unwrap();
    write!(stream, "GET {path} HTTP/1.1\r\nHost: localhost\r\n{line}\r\n").unwrap();
    let mut answer = String::new();
    stream.read_to_string(&mut answer).unwrap();
    answer
}
