//! Programs and libraries that are replaced or deleted while processes run them, as by an upgrade of their packages: what crashes afterwards
//! has the names of what it ran, and never those of what lies there now.

use std::fs;
use std::io::Write;
use std::os::unix::fs::{MetadataExt, PermissionsExt};
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command};
use std::time::{Duration, Instant};

use macro_rules_attribute::apply;
use serde_json::Value;

use crate::agent::Agent;
use crate::compile::compile;
use crate::harness::runs::watch_test;
use crate::harness::{Scratch, copy_executable, records};
use crate::hidden::{Hidden, tool};
use crate::keeping::{are_watched, copies};
use crate::reasons::own_failures;

const NAME: &str = "gone-6e";

/// What becomes of a file while a process runs it.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Fate {
    Stays,
    IsReplaced,
    IsDeleted,
}

/// A way to run code of a file that is to go.
struct Case {
    name: &'static str,
    fate: Fate,
    /// More arguments of the compiler.
    flags: &'static [&'static str],
    /// Arguments that hide it before it dies.
    hiding: &'static [&'static str],
}

const CASES: [Case; 5] = [
    Case { name: "replaced", fate: Fate::IsReplaced, flags: &[], hiding: &[] },
    Case { name: "deleted", fate: Fate::IsDeleted, flags: &[], hiding: &[] },
    Case { name: "nameless", fate: Fate::IsReplaced, flags: &["-Wl,--build-id=none"], hiding: &[] },
    Case { name: "in_memory", fate: Fate::Stays, flags: &[], hiding: &["memfd"] },
    Case { name: "library", fate: Fate::IsReplaced, flags: &[], hiding: &[] },
];

/// Waits until it is so.
fn await_that(what: &str, mut is_so: impl FnMut() -> bool) {
    let deadline = Instant::now() + Duration::from_secs(120);
    while !is_so() {
        assert!(Instant::now() < deadline, "not {what}");
        std::thread::sleep(Duration::from_millis(20));
    }
}

struct Kept {
    agent: Agent,
    output: PathBuf,
}

impl Kept {
    fn start(scratch: &Scratch) -> Self {
        let output = scratch.path("records");
        let agent = Agent::start(&[
            "-n",
            NAME,
            "--interval",
            "0.5",
            "--samples-per-group",
            "100",
            "-o",
            output.to_str().unwrap(),
        ]);
        Self { agent, output }
    }

    /// Waits until the keeper watches these inodes.
    fn await_watched(&self, inodes: &[u64]) {
        await_that("watched", || are_watched(self.agent.child.id(), inodes));
    }

    /// How many copies the agent has of files with this content.
    fn copies(&self, content: &[u8]) -> usize {
        copies(self.agent.child.id(), content)
    }

    /// How many files there was no room for.
    fn not_kept(&self) -> u64 {
        let text = self.agent.get("/metrics", "*/*");
        let name = "faultline_events_dropped_total{stage=\"sample\",reason=\"files_not_kept\"} ";
        text.lines().find_map(|line| line.strip_prefix(name)?.trim().parse().ok()).unwrap()
    }

    /// Lets it die, and returns its record.
    fn die(&self, mut hidden: Hidden) -> Value {
        let pid = hidden.child.id();
        hidden.stdin.write_all(b"now\n").unwrap();
        hidden.child.wait().unwrap();
        let mut found = None;
        await_that("recorded", || {
            let text = fs::read_to_string(&self.output).unwrap();
            let whole = &text[..text.rfind('\n').map_or(0, |end| end + 1)];
            found = records(whole).into_iter().find(|record| record["type"] == "crash" && record["pid"] == pid);
            found.is_some()
        });
        found.unwrap()
    }
}

/// Each frame's function and line.
fn names(record: &Value) -> Vec<String> {
    let frames = record["stack_trace"].as_array().unwrap();
    frames.iter().map(|frame| format!("{} {} {}", frame["symbol"], frame["file"], frame["line"])).collect()
}

impl Case {
    fn function(&self) -> String {
        if self.name == "library" { "plugin_touch".to_owned() } else { format!("touch_{}", self.name) }
    }

    /// Compiles the file that is to go, and what is put in its place: another build, of other names.
    fn compile(&self, to: &Path, is_other: bool) {
        let function = if is_other { "another_build".to_owned() } else { self.function() };
        if self.name == "library" {
            compile("plugin.c", to, &["-shared", "-fPIC", &format!("-Dplugin_touch={function}")]);
        } else {
            compile("hidden.c", to, &[&["-ldl", &format!("-DTOUCH={function}")], self.flags].concat());
        }
        // Agents keep what any process runs: that of another test beside this one is another file.
        let mark = to.to_str().unwrap().as_bytes();
        fs::File::options().append(true).open(to).unwrap().write_all(mark).unwrap();
    }

    fn run(&self, scratch: &Scratch, file: &Path, hiding: &[&str]) -> Hidden {
        let file = file.to_str().unwrap();
        if self.name == "library" {
            let host = scratch.path("host");
            if !host.exists() {
                compile("hidden.c", &host, &["-ldl"]);
            }
            return Hidden::start(&host, &["plugin", file, "as", NAME, "itself"]);
        }
        Hidden::start(Path::new(file), &[hiding, &["as", NAME, "itself"]].concat())
    }
}

/// The file that a process has mapped to run its code.
fn inode_of(case: &Case, hidden: &Hidden, file: &Path) -> u64 {
    if case.hiding == ["memfd"] {
        return fs::metadata(format!("/proc/{}/exe", hidden.child.id())).unwrap().ino();
    }
    fs::metadata(file).unwrap().ino()
}

#[apply(watch_test!)]
fn what_is_replaced_or_deleted_has_the_names_that_it_had() {
    assert_names_stay(&Scratch::new());
}

/// File systems differ in what they say of a file whose last name goes.
#[apply(watch_test!)]
fn the_same_on_a_disk() {
    assert_names_stay(&Scratch::below(env!("CARGO_TARGET_TMPDIR")));
}

fn assert_names_stay(scratch: &Scratch) {
    let kept = Kept::start(scratch);
    let running: Vec<_> = CASES
        .iter()
        .map(|case| {
            let (file, undisturbed) = (scratch.path(case.name), scratch.path(&format!("{}-plain", case.name)));
            case.compile(&file, false);
            // Another inode: what is known of one file is not known of the other.
            tool("cp", &[&file, &undisturbed]);
            let plain = kept.die(case.run(scratch, &undisturbed, &[]));
            let hidden = case.run(scratch, &file, case.hiding);
            (case, file, names(&plain), hidden)
        })
        .collect();
    let inodes: Vec<u64> = running.iter().map(|(case, file, _, hidden)| inode_of(case, hidden, file)).collect();
    kept.await_watched(&inodes);
    let contents: Vec<Vec<u8>> = running.iter().map(|(_, file, ..)| fs::read(file).unwrap()).collect();
    for (case, file, ..) in &running {
        let new = scratch.path("new");
        match case.fate {
            Fate::Stays => {}
            Fate::IsDeleted => fs::remove_file(file).unwrap(),
            Fate::IsReplaced => {
                case.compile(&new, true);
                // As a package manager does it: the old one has another name for a while.
                let old = scratch.path("old");
                fs::hard_link(file, &old).unwrap();
                fs::rename(&new, file).unwrap();
                fs::remove_file(&old).unwrap();
            }
        }
    }
    for ((case, ..), content) in running.iter().zip(&contents) {
        await_that(&format!("copied: {}", case.name), || kept.copies(content) == 1);
    }
    // The last name of those that were replaced is not the one by which they are run.
    kept.await_watched(&inodes);
    for (case, file, plain, hidden) in running {
        let record = kept.die(hidden);
        assert_eq!(names(&record), plain, "{}: {record:#}", case.name);
        assert!(plain[0].starts_with(&format!("\"{}+", case.function())), "{plain:?}");
        assert_eq!(own_failures(&record), Vec::<&str>::new(), "{record:#}");
        if case.fate == Fate::IsReplaced && case.name != "library" {
            let record = kept.die(case.run(scratch, &file, &[]));
            assert!(names(&record)[0].starts_with("\"another_build+"), "{record:#}");
        }
    }
    assert!(kept.agent.stop().status.success());
}

/// A library for tests/vm/programs/hidden.c.
const INLINED: &str = "
static inline __attribute__((always_inline)) void inlined(volatile int *at) { *at = 1; }
void plugin_touch(void) { inlined((volatile int *)0x18); }
";

/// What the compiler has left beside a file stays where it was.
#[apply(watch_test!)]
fn what_is_deleted_has_the_inlined_functions_of_its_split_debug_information() {
    let scratch = Scratch::new();
    let (source, library) = (scratch.path("split.c"), scratch.path("split.so"));
    let (undisturbed, host) = (scratch.path("split-plain.so"), scratch.path("host"));
    fs::write(&source, INLINED).unwrap();
    let options = ["-g", "-gsplit-dwarf", "-O1", "-shared", "-fPIC", "-o"];
    let gcc = Command::new("gcc").args(options).args([&library, &source]).output().unwrap();
    assert!(gcc.status.success(), "{}", String::from_utf8_lossy(&gcc.stderr));
    tool("cp", &[&library, &undisturbed]);
    compile("hidden.c", &host, &["-ldl"]);
    let run = |file: &Path| Hidden::start(&host, &["plugin", file.to_str().unwrap(), "as", NAME, "itself"]);
    let kept = Kept::start(&scratch);
    let plain = names(&kept.die(run(&undisturbed)));
    let hidden = run(&library);
    let content = fs::read(&library).unwrap();
    kept.await_watched(&[fs::metadata(&library).unwrap().ino()]);
    fs::remove_file(&library).unwrap();
    await_that("copied", || kept.copies(&content) == 1);
    let record = kept.die(hidden);
    assert_eq!(names(&record), plain, "{record:#}");
    assert!(plain[0].starts_with("\"inlined\" ") && plain[1].starts_with("\"plugin_touch+"), "{plain:?}");
    assert!(kept.agent.stop().status.success());
}

/// Programs that sleep; they are ended when it is dropped.
struct Sleepers(Vec<Child>);

impl Sleepers {
    /// Runs these as a user.
    fn start(programs: &[PathBuf], user: u32) -> Self {
        let start = |program: &PathBuf| Command::new(program).arg("600").uid(user).gid(user).spawn().unwrap();
        Self(programs.iter().map(start).collect())
    }
}

impl Drop for Sleepers {
    fn drop(&mut self) {
        for child in &mut self.0 {
            let _ = child.kill();
            let _ = child.wait();
        }
    }
}

/// So many copies of a program that sleeps, and what is in them: `mark` makes it another one than others.
fn sleepers(scratch: &Scratch, mark: &str, count: usize) -> (Vec<PathBuf>, Vec<u8>) {
    let original = scratch.path(mark);
    let content = [&fs::read("/bin/sleep").unwrap()[..], mark.as_bytes()].concat();
    fs::write(&original, &content).unwrap();
    fs::set_permissions(&original, fs::Permissions::from_mode(0o755)).unwrap();
    let programs: Vec<PathBuf> = (0..count).map(|number| scratch.path(&format!("{mark}-{number}"))).collect();
    for program in &programs {
        copy_executable(&original, program);
    }
    (programs, content)
}

fn delete(kept: &Kept, programs: &[PathBuf]) {
    let inodes: Vec<u64> = programs.iter().map(|program| fs::metadata(program).unwrap().ino()).collect();
    kept.await_watched(&inodes);
    for program in programs {
        fs::remove_file(program).unwrap();
    }
}

/// A user runs and deletes programs without number: half of the room is theirs, and the rest is counted.
#[apply(watch_test!)]
fn one_user_leaves_room_for_the_files_of_others() {
    const USER: u32 = 64_123;
    const SHARE: usize = 128;
    const MORE: u64 = 12;
    let scratch = Scratch::new();
    let kept = Kept::start(&scratch);
    let (theirs, content) = sleepers(&scratch, "theirs", SHARE + MORE as usize);
    let _theirs = Sleepers::start(&theirs, USER);
    delete(&kept, &theirs);
    await_that("counted", || kept.not_kept() >= MORE);
    assert!((1..=SHARE).contains(&kept.copies(&content)), "{}", kept.copies(&content));
    let (own, content) = sleepers(&scratch, "own", 1);
    let _own = Sleepers::start(&own, 0);
    delete(&kept, &own);
    await_that("copied", || kept.copies(&content) == 1);
    assert!(kept.agent.stop().status.success());
}
