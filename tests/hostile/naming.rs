//! Programs that crash on purpose, with files that are made to harm whoever names them: the agent goes on, counts them, and writes their
//! records; whoever crashes next has names again.

use std::fs;
use std::os::unix::process::{CommandExt, ExitStatusExt};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use serde_json::Value;

use crate::attacks::{ATTACKS, Attack, endless};
use crate::forge::{CODE, Forgery, Section};
use crate::harness::{FAULTLINE, Scratch, build_id, copy_program};
use crate::siege::{Agent, SetOnDrop, get};

/// The name of all programs here: at most 15 characters.
pub(crate) const NAME: &str = "hostile-file-8d";

/// How long a record may take: on a busy host the namer has 40 seconds for it, and there may be one before it.
const RECORDED: Duration = Duration::from_secs(80);

/// The first of the users that programs here run as: none of the machine's. What the agent is held to meanwhile runs as root.
const USERS: u32 = 60_000;

/// Runs a program as this user that does not end well.
pub(crate) fn die_as(user: u32, program: &Path) {
    let status = Command::new(program).uid(user).gid(user).stdout(Stdio::null()).status().unwrap();
    assert!(!status.success());
}

/// An agent, and programs that it watches.
pub(crate) struct Ambush {
    pub agent: Agent,
    scratch: Scratch,
    folders: u32,
}

impl Ambush {
    pub(crate) fn new() -> Self {
        Self::by(&mut Command::new(FAULTLINE))
    }

    /// By a command that takes faultline's arguments.
    pub(crate) fn by(command: &mut Command) -> Self {
        // Every death here has a record.
        let every = ["--samples-per-group", "100000", "--samples-per-second", "100000"];
        let mut agent = Agent::start_by(command, NAME, &every, "http");
        // These have records, too, which a debug build on a busy host must make beside all else.
        agent.pace = Duration::from_millis(500);
        Self { agent, scratch: Scratch::new(), folders: 0 }
    }

    /// A folder of its own for each program.
    pub(crate) fn folder(&mut self) -> PathBuf {
        self.folders += 1;
        let folder = self.scratch.path(&self.folders.to_string());
        fs::create_dir(&folder).unwrap();
        folder
    }

    /// A user of its own for each program, as for its folder: whoever has cost much has less time while others wait.
    pub(crate) fn user(&self) -> u32 {
        USERS + self.folders
    }

    /// A program of the last folder dies.
    fn die(&mut self, program: &Path) {
        die_as(self.user(), program);
        self.agent.add_crashes(1);
    }

    /// Waits for the record of a file's crash of this number, and holds the agent to what it promises meanwhile.
    pub(crate) fn record_of(&mut self, what: &str, file: &Path, count: usize) -> Value {
        let begun = Instant::now();
        let mut found = None;
        self.agent.hold(what, &get, &mut |agent| {
            found = agent.records_with(file.to_str().unwrap()).into_iter().nth(count - 1);
            assert!(begun.elapsed() < RECORDED, "{what}: no record");
            found.is_some()
        });
        found.unwrap()
    }

    /// A program dies that has done no harm: it has its names.
    pub(crate) fn is_well(&mut self, after: &str) {
        let program = self.folder().join(NAME);
        copy_program("null-write", &program);
        self.die(&program);
        let record = self.record_of(after, &program, 1);
        assert_eq!(record["symbols_failed"], Value::Array(Vec::new()), "after {after}: {record:#}");
        let symbol = record["stack_trace"][0]["symbol"].as_str().unwrap_or_default();
        assert!(symbol.starts_with("write_field+"), "after {after}: {record:#}");
    }

    fn stand(&mut self, (what, make, reasons): &Attack) {
        let folder = self.folder();
        let program = folder.join(NAME);
        make(&folder).write(&program);
        self.die(&program);
        let record = self.record_of(what, &program, 1);
        let failed = record["symbols_failed"].as_array().unwrap();
        let [frame, ..] = &record["stack_trace"].as_array().unwrap()[..] else { panic!("{what}: {record:#}") };
        if reasons.is_empty() {
            assert!(failed.is_empty(), "{what}: {record:#}");
        } else {
            let reason = failed.first().and_then(|failed| failed["reason"].as_str());
            assert!(reason.is_some_and(|reason| reasons.contains(&reason)), "{what}: {reason:?}");
            assert!(frame["symbol"].is_null(), "{what}: {record:#}");
        }
        assert_eq!(frame["module"], program.to_str().unwrap(), "{what}: {record:#}");
        assert!(frame["offset"].is_string(), "{what}: {record:#}");
        self.is_well(what);
    }
}

#[test]
fn no_file_stops_anything_or_costs_much() {
    let mut ambush = Ambush::new();
    for attack in ATTACKS {
        ambush.stand(attack);
    }
    let program = ambush.folder().join(NAME);
    endless().write(&program);
    ambush.die(&program);
    ambush.agent.end_under(|_, _| ());
}

/// The same file once more: it is left alone.
#[test]
fn a_file_that_took_too_long_is_left_alone() {
    let mut ambush = Ambush::new();
    let program = ambush.folder().join(NAME);
    endless().write(&program);
    for (count, reason) in [(1, "timed_out"), (2, "failed_before")] {
        ambush.die(&program);
        let record = ambush.record_of(reason, &program, count);
        assert_eq!(record["symbols_failed"][0]["reason"], reason, "{record:#}");
        assert_eq!(record["build_id"], build_id(&program).as_str(), "{record:#}");
    }
    ambush.agent.end_under(|_, _| ());
}

/// Runs a file that the kernel would not take for a program.
fn run_file(ambush: &mut Ambush, file: &Path) -> PathBuf {
    let runner = ambush.folder().join(NAME);
    copy_program("run-file", &runner);
    let mut command = Command::new(&runner);
    command.uid(ambush.user()).arg(file).arg(CODE.to_string()).stdout(Stdio::null());
    let status = command.status().unwrap();
    assert_eq!(status.signal(), Some(libc::SIGSEGV), "{status}");
    ambush.agent.add_crashes(1);
    runner
}

#[test]
fn a_library_with_all_segments_that_there_can_be() {
    let mut ambush = Ambush::new();
    let file = ambush.folder().join("library");
    Forgery { more_programs: 65_533, ..Forgery::named("victim", Vec::new()) }.write(&file);
    let runner = run_file(&mut ambush, &file);
    let record = ambush.record_of("segments", &runner, 1);
    let frame = &record["stack_trace"][0];
    assert_eq!(frame["module"], file.to_str().unwrap(), "{record:#}");
    assert!(frame["symbol"].as_str().is_none_or(|symbol| symbol == "victim+0x0"), "{record:#}");
    ambush.is_well("segments");
}

/// Whoever maps a file that is cut meanwhile dies of SIGBUS, and whoever believes an earlier look reads what is no longer there.
#[test]
fn a_file_that_changes_while_it_is_read() {
    let mut ambush = Ambush::new();
    let library = ambush.folder().join("library");
    let whole = Forgery::named("victim", vec![Section::new(".debug_str", vec![0; 4 << 20])]).bytes();
    fs::write(&library, &whole).unwrap();
    let is_over = AtomicBool::new(false);
    std::thread::scope(|scope| {
        scope.spawn(|| {
            let file = fs::File::options().write(true).open(&library).unwrap();
            while !is_over.load(Ordering::Relaxed) {
                // The code stays: what is read for names goes.
                file.set_len(0x1000).unwrap();
                std::os::unix::fs::FileExt::write_all_at(&file, &whole, 0).unwrap();
            }
        });
        let _end = SetOnDrop(&is_over);
        for _ in 0..20 {
            let runner = run_file(&mut ambush, &library);
            let record = ambush.record_of("changing", &runner, 1);
            let symbol = record["stack_trace"][0]["symbol"].as_str();
            assert!(symbol.is_none_or(|symbol| symbol == "victim+0x0"), "{record:#}");
        }
    });
    ambush.is_well("changing");
}
