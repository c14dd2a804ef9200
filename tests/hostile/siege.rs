//! An agent under attack by peers: what it must do meanwhile, and what the attack may cost.

use std::fs;
use std::io::{BufRead, BufReader, Read, Write};
use std::net::TcpStream;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use serde_json::Value;

use crate::harness::{FAULTLINE, Scratch, copy_program, records};

/// How long others may wait for an answer, and how long an end may take.
pub(crate) const PROMPT: Duration = Duration::from_secs(1);

/// How much the agent may grow under any attack.
const GROWTH_KIB: u64 = 24 * 1024;

/// Between two summaries.
const INTERVAL: Duration = Duration::from_millis(500);

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
    /// The bounds are those of one siege.
    _alone: MutexGuard<'static, ()>,
}

static SIEGE: Mutex<()> = Mutex::new(());

impl Agent {
    /// `name`: of the program, and of no other.
    pub(crate) fn start(name: &str, arguments: &[&str], scheme: &str) -> Self {
        Self::start_by(&mut Command::new(FAULTLINE), name, arguments, scheme)
    }

    /// The same by a command that takes faultline's arguments.
    pub(crate) fn start_by(command: &mut Command, name: &str, arguments: &[&str], scheme: &str) -> Self {
        let alone = SIEGE.lock().unwrap_or_else(PoisonError::into_inner);
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
        let mut agent =
            Self { child, address, scratch, program, rest_kib: 0, crashes: 0, pace: Duration::ZERO, _alone: alone };
        agent.crash(20);
        agent.wait_for_counts();
        agent.rest_kib = agent.resident_kib();
        agent
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

    /// The signals that the summaries have. Each of them must add up.
    pub(crate) fn counted(&self) -> u64 {
        let text = fs::read_to_string(self.scratch.path("records")).unwrap();
        let whole = text.rfind('\n').map_or("", |end| &text[..end]);
        let mut counted = 0;
        for summary in records(whole).iter().filter(|record| record["type"] == "summary") {
            let number = |value: &Value| value.as_u64().unwrap();
            let groups: u64 = summary["groups"].as_array().unwrap().iter().map(|group| number(&group["count"])).sum();
            let losses: u64 = summary["losses"].as_object().unwrap().values().map(number).sum();
            let matched = number(&summary["deliveries"]["matched"]);
            assert_eq!(matched, groups + losses, "{summary}");
            counted += matched;
        }
        counted
    }

    /// The records of crashes that name this file.
    pub(crate) fn records_with(&self, file: &str) -> Vec<Value> {
        let text = fs::read_to_string(self.scratch.path("records")).unwrap_or_default();
        let whole = text.rfind('\n').map_or("", |end| &text[..end]);
        let lines = whole.lines().filter(|line| line.starts_with("{\"type\":\"crash\"") && line.contains(file));
        lines.flat_map(records).collect()
    }

    fn summaries(&self) -> usize {
        let text = fs::read_to_string(self.scratch.path("records")).unwrap_or_default();
        text.matches("{\"type\":\"summary\"").count()
    }

    /// Waits until the summaries have every crash that was caused.
    pub(crate) fn wait_for_counts(&self) {
        let deadline = Instant::now() + 20 * INTERVAL;
        while self.counted() < self.crashes {
            assert!(Instant::now() < deadline, "{} of {} crashes are in summaries", self.counted(), self.crashes);
            std::thread::sleep(Duration::from_millis(20));
        }
        assert_eq!(self.counted(), self.crashes);
    }

    /// Another peer is answered, and at once.
    pub(crate) fn answers(&self, asked: &dyn Fn(&str, &str) -> String) {
        for path in ["/metrics", "/healthz"] {
            let begun = Instant::now();
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
        let (before, begun) = (self.summaries(), Instant::now());
        let mut next_crash = begun;
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
            let begun = Instant::now();
            kill(Pid::from_raw(self.child.id().try_into().unwrap()), Signal::SIGTERM).unwrap();
            let status = self.child.wait().unwrap();
            assert!(status.success() && begun.elapsed() < PROMPT, "{status} after {:?}", begun.elapsed());
        });
        assert_eq!(self.counted(), self.crashes);
    }
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

/// As another user: sockets are the file system user's, which each thread has its own of. Behind all others for the processor: whoever takes
/// all of it takes the client's as well, and the bound is the server's.
fn as_attacker(attack: impl FnOnce()) {
    // SAFETY: changes nothing but this thread's user and priority.
    unsafe {
        libc::setfsuid(ATTACKER);
        libc::setpriority(libc::PRIO_PROCESS, 0, 19);
    }
    attack();
}

/// Status line, headers and body.
pub(crate) fn get(address: &str, path: &str) -> String {
    let mut stream = TcpStream::connect(address).unwrap();
    stream.set_read_timeout(Some(Duration::from_secs(60))).unwrap();
    write!(stream, "GET {path} HTTP/1.1\r\nHost: localhost\r\n\r\n").unwrap();
    let mut answer = String::new();
    stream.read_to_string(&mut answer).unwrap();
    answer
}
