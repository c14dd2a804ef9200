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
use crate::forge::{CODE, Forgery, Section, symbol};
use crate::harness::{FAULTLINE, Scratch, build_id, copy_program};
use crate::own_name::own_name;
use crate::reasons::own_failures;
use crate::siege::{Agent, SetOnDrop, get};

/// How long a record may take: on a busy host the namer has 40 seconds for it, and there may be one before it.
const RECORDED: Duration = Duration::from_secs(80);

/// The first of the users that programs here run as: none of the machine's. What the agent is held to meanwhile runs as root.
const USERS: u32 = 60_000;

/// The user of the files that take all of the time that there is.
const SPENDER: u32 = 59_999;

/// Runs a program as this user that does not end well.
pub(crate) fn die_as(user: u32, program: &Path) {
    let status = Command::new(program).uid(user).gid(user).stdout(Stdio::null()).status().unwrap();
    assert!(!status.success());
}

/// An agent, and programs that it watches.
pub(crate) struct Ambush {
    pub agent: Agent,
    /// Of all programs here.
    pub name: String,
    scratch: Scratch,
    folders: u32,
}

impl Ambush {
    /// `base`: of the programs' name, and of no other's.
    pub(crate) fn new(base: &str) -> Self {
        Self::by(&mut Command::new(FAULTLINE), base)
    }

    /// By a command that takes faultline's arguments.
    pub(crate) fn by(command: &mut Command, base: &str) -> Self {
        let name = own_name(base);
        // Every death here has a record.
        let every = ["--samples-per-group", "100000", "--samples-per-second", "100000"];
        let mut agent = Agent::start_by(command, &name, &every, "http");
        // These have records, too, which a debug build on a busy host must make beside all else.
        agent.pace = Duration::from_millis(500);
        Self { agent, name, scratch: Scratch::new(), folders: 0 }
    }

    /// A folder of its own for each program.
    pub(crate) fn folder(&mut self) -> PathBuf {
        self.folders += 1;
        let folder = self.scratch.path(&self.folders.to_string());
        fs::create_dir(&folder).unwrap();
        folder
    }

    /// Where a program may be, in a folder of its own.
    pub(crate) fn place(&mut self) -> PathBuf {
        self.folder().join(&self.name)
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
        let program = self.die_unharmed();
        self.has_names(after, &program);
    }

    /// A program dies that has done no harm.
    fn die_unharmed(&mut self) -> PathBuf {
        let program = self.place();
        copy_program("null-write", &program);
        self.die(&program);
        program
    }

    fn has_names(&mut self, after: &str, program: &Path) {
        let record = self.record_of(after, program, 1);
        assert_eq!(own_failures(&record), Vec::<&str>::new(), "after {after}: {record:#}");
        let symbol = record["stack_trace"][0]["symbol"].as_str().unwrap_or_default();
        assert!(symbol.starts_with("write_field+"), "after {after}: {record:#}");
    }

    fn stand(&mut self, (what, make, reasons): &Attack) {
        let program = self.place();
        make(&program).write(&program);
        // Whoever has taken all of the time once has a second while others wait: both have the same record in the end.
        let user = if *reasons == ["timed_out"] { SPENDER } else { self.user() };
        die_as(user, &program);
        self.agent.add_crashes(1);
        let other = self.die_unharmed();
        let record = self.record_of(what, &program, 1);
        let failed = own_failures(&record);
        let [frame, ..] = &record["stack_trace"].as_array().unwrap()[..] else { panic!("{what}: {record:#}") };
        if reasons.is_empty() {
            assert!(failed.is_empty(), "{what}: {record:#}");
        } else {
            assert!(failed.first().is_some_and(|reason| reasons.contains(reason)), "{what}: {failed:?}");
            assert!(frame["symbol"].is_null(), "{what}: {record:#}");
        }
        assert_eq!(frame["module"], program.to_str().unwrap(), "{what}: {record:#}");
        assert!(frame["offset"].is_string(), "{what}: {record:#}");
        self.has_names(what, &other);
    }
}

#[test]
fn no_file_stops_anything_or_costs_much() {
    let mut ambush = Ambush::new("file-all");
    for attack in ATTACKS {
        ambush.stand(attack);
    }
    let program = ambush.place();
    endless().write(&program);
    ambush.die(&program);
    ambush.agent.end_under(|_, _| ());
}

/// The same file once more: it is left alone.
#[test]
fn a_file_that_took_too_long_is_left_alone() {
    let mut ambush = Ambush::new("file-two");
    let program = ambush.place();
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
    let runner = ambush.place();
    copy_program("run-file", &runner);
    let mut command = Command::new(&runner);
    command.uid(ambush.user()).arg(file).arg(CODE.to_string()).stdout(Stdio::null());
    let status = command.status().unwrap();
    assert_eq!(status.signal(), Some(libc::SIGSEGV), "{status}");
    ambush.agent.add_crashes(1);
    runner
}

/// As many as are looked at, and all that there can be: then the headers end behind what is read for the build id.
#[test]
fn a_library_with_all_segments_that_there_can_be() {
    let mut ambush = Ambush::new("file-seg");
    // Where the build id can't be read, nothing shows that it is the same file.
    let other: &[&str] = &["other_file"];
    for (segments, symbol, failures) in [(4_000, Some("victim+0x0"), &[][..]), (65_533, None, other)] {
        let file = ambush.folder().join("library");
        Forgery { more_programs: segments, ..Forgery::named("victim", Vec::new()) }.write(&file);
        let runner = run_file(&mut ambush, &file);
        let record = ambush.record_of("segments", &runner, 1);
        let frame = &record["stack_trace"][0];
        assert_eq!(frame["module"], file.to_str().unwrap(), "{record:#}");
        assert_eq!(own_failures(&record), failures, "{record:#}");
        assert_eq!(frame["symbol"].as_str(), symbol, "{record:#}");
    }
    ambush.is_well("segments");
}

/// Whoever maps a file that is cut meanwhile dies of SIGBUS, and whoever believes an earlier look reads what is no longer there.
#[test]
fn a_file_that_changes_while_it_is_read() {
    let mut ambush = Ambush::new("file-cut");
    let library = ambush.folder().join("library");
    // It takes long to look through all of them.
    let symbols = Section::new(".symtab", symbol(1, 64).repeat(200_000));
    let whole = Forgery::of(vec![symbols, Section::new(".strtab", *b"\0victim\0")]).bytes();
    fs::write(&library, &whole).unwrap();
    let is_over = AtomicBool::new(false);
    std::thread::scope(|scope| {
        scope.spawn(|| {
            let file = fs::File::options().write(true).open(&library).unwrap();
            while !is_over.load(Ordering::Relaxed) {
                // The code stays: what is read for names goes.
                file.set_len(0x1000).unwrap();
                std::thread::sleep(Duration::from_millis(1));
                std::os::unix::fs::FileExt::write_all_at(&file, &whole, 0).unwrap();
                std::thread::sleep(Duration::from_millis(1));
            }
        });
        let _end = SetOnDrop(&is_over);
        let runners: Vec<PathBuf> = (0..20).map(|_| run_file(&mut ambush, &library)).collect();
        for runner in &runners {
            let record = ambush.record_of("changing", runner, 1);
            let symbol = record["stack_trace"][0]["symbol"].as_str();
            assert!(symbol.is_none_or(|symbol| symbol == "victim+0x0"), "{record:#}");
        }
    });
    ambush.is_well("changing");
}
