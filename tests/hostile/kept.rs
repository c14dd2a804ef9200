//! Who looks into a process whose file system doesn't answer, is kept waiting: `memory` and `pagefault` end when they are told to all the same,
//! go on with other processes, and count what they could not read.

use std::fs;
use std::io::Write;
use std::os::unix::process::ExitStatusExt;
use std::path::PathBuf;
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use faultline::memory::{Page, Tracer};
use nix::sys::signal::Signal;
use serde_json::Value;

use crate::bounded::{Ended, Victim};
use crate::forge::Forgery;
use crate::harness::{FAULTLINE, Scratch, counted_as, hex, records};
use crate::stalled::{Mounted, Stall, run_until_it_reads, waiting_program};

/// SIGTERM is obeyed within a second; the rest is for a slow machine.
const OBEYED: Duration = Duration::from_secs(2);

/// The same for the library, which no signal asks to end: so long it waits for one answer, and for a machine that is busy.
const LIBRARY: Duration = Duration::from_secs(20);

/// A program of the file system's, ended with the test.
struct Inhabitant(Child);

impl Inhabitant {
    fn pid(&self) -> String {
        self.0.id().to_string()
    }

    fn give_a_byte(&self) {
        self.0.stdin.as_ref().unwrap().write_all(b"x").unwrap();
    }
}

impl Drop for Inhabitant {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

/// Where a file may be, in a folder of its own.
fn file_in_folder(scratch: &Scratch) -> PathBuf {
    let folder = scratch.path("folder");
    fs::create_dir(&folder).unwrap();
    folder.join("inhabitant")
}

/// faultline, with its standard output in a file: nobody has to read it.
fn watch(scratch: &Scratch, arguments: &[&str]) -> Victim {
    let output = fs::File::create(scratch.path("records")).unwrap();
    Victim::watching(Command::new(FAULTLINE).args(arguments).args(["--format", "json"]).stdout(Stdio::from(output)))
}

fn written(scratch: &Scratch) -> Vec<Value> {
    let text = fs::read_to_string(scratch.path("records")).unwrap();
    records(&text[..text.rfind('\n').map_or(0, |end| end + 1)])
}

fn is_obeyed(ended: &Ended) {
    assert!(ended.status.success() && ended.status.signal().is_none(), "{} {}", ended.status, ended.said);
}

/// Wherever it is kept: by the look at a path, by the opening of the file, by its reading.
#[test]
fn memory_of_a_file_system_that_does_not_answer() {
    for stall in [Stall::Look, Stall::Open, Stall::Read] {
        let scratch = Scratch::new();
        let file = file_in_folder(&scratch);
        let mounted = Mounted::with(&file, waiting_program().bytes());
        let kept = Inhabitant(mounted.run());
        mounted.stall(stall);
        let victim = watch(&scratch, &["memory", "--pages", "-p", &kept.pid()]);
        mounted.await_kept();
        let ended = victim.end(Signal::SIGTERM, OBEYED);
        is_obeyed(&ended);
        assert!(counted_as(&ended.said, "reads_failed") > 0, "{stall:?}: {}", ended.said);
        assert!(counted_as(&ended.said, "pages_gone") > 0, "{stall:?}: {}", ended.said);
    }
}

#[test]
fn another_process_is_read_all_the_same() {
    let scratch = Scratch::new();
    let file = file_in_folder(&scratch);
    let mounted = Mounted::with(&file, waiting_program().bytes());
    let kept = Inhabitant(mounted.run());
    let program = scratch.path("on-a-disk");
    waiting_program().write(&program);
    let other = Inhabitant(run_until_it_reads(&program));
    mounted.stall(Stall::Read);
    let victim = watch(&scratch, &["memory", "--pages", "-p", &kept.pid(), "-p", &other.pid()]);
    let has_page_of = |process: &Inhabitant| {
        written(&scratch).iter().any(|record| {
            record["type"] == "page" && record["pid"] == process.0.id() && record["mapping_name"] != "[vdso]"
        })
    };
    let begun = Instant::now();
    while !has_page_of(&other) {
        assert!(begun.elapsed() < Duration::from_secs(30), "no page of it: {:#?}", written(&scratch));
        std::thread::sleep(Duration::from_millis(20));
    }
    let ended = victim.end(Signal::SIGTERM, OBEYED);
    is_obeyed(&ended);
    assert!(!has_page_of(&kept) && counted_as(&ended.said, "reads_failed") > 0, "{}", ended.said);
}

/// In a program that isn't faultline, whose own thread is what waits: the tracer goes on without it, and so does whoever stops it.
#[test]
fn the_library_is_not_kept_either() {
    for stall in [Stall::Look, Stall::Read] {
        let scratch = Scratch::new();
        let file = file_in_folder(&scratch);
        let mounted = Mounted::with(&file, waiting_program().bytes());
        let kept = Inhabitant(mounted.run());
        mounted.stall(stall);
        let begun = Instant::now();
        let tracing = Tracer::new(kept.0.id()).unwrap().start().unwrap();
        mounted.await_kept();
        let (pages, losses) = tracing.stop().unwrap();
        assert!(begun.elapsed() < LIBRARY, "{stall:?}: {:?}", begun.elapsed());
        let lost = |reason: &str| losses.iter().find(|loss| loss.0 == reason).unwrap().1;
        assert!(lost("reads_failed") > 0 && lost("pages_gone") > 0, "{stall:?}: {losses:?}");
        let is_files = |page: &Page| page.mapping_name.as_deref() == file.to_str();
        assert!(!pages.iter().any(is_files), "{stall:?}: {pages:#?}");
    }
}

/// Waits for a byte, and then touches the page below its stack, again and again.
fn faulting_program() -> Vec<u8> {
    // L: read(0, rsp, 1); sub rsp, 4096; mov byte [rsp], 0; jmp L
    let read = [0x31, 0xc0, 0x31, 0xff, 0x48, 0x89, 0xe6, 0xba, 1, 0, 0, 0, 0x0f, 0x05];
    let touch = [0x48, 0x81, 0xec, 0, 0x10, 0, 0, 0xc6, 0x04, 0x24, 0, 0xeb, 0xe5];
    Forgery { code: [&read[..], &touch].concat(), ..Forgery::named("victim", Vec::new()) }.bytes()
}

/// The group of the one instruction that touches memory.
fn group_of_program(table: &Value) -> Option<&Value> {
    let at =
        |group: &&Value| !group["instruction_pointer"].is_null() && hex(&group["instruction_pointer"]) >> 12 == 0x400;
    table["groups"].as_array().unwrap().iter().find(at)
}

/// A signal comes while the first table waits for its names, which may take ten seconds.
#[test]
fn pagefault_ends_while_it_waits_for_its_first_names() {
    let scratch = Scratch::new();
    let file = file_in_folder(&scratch);
    let mounted = Mounted::with(&file, faulting_program());
    let kept = Inhabitant(mounted.run());
    let victim = watch(&scratch, &["pagefault", "--by", "instruction", "--interval", "0.2", "-p", &kept.pid()]);
    mounted.stall(Stall::Open);
    kept.give_a_byte();
    mounted.await_kept();
    let ended = victim.end(Signal::SIGTERM, OBEYED);
    is_obeyed(&ended);
    let tables = written(&scratch);
    let last = tables.last().unwrap();
    assert_eq!((&last["type"], &last["final"]), (&"pagefault_summary".into(), &true.into()), "{last:#}");
    let group = group_of_program(last).unwrap_or_else(|| panic!("{last:#}"));
    assert!(group["total"].as_u64() >= Some(1) && group["instruction_symbol"].is_null(), "{last:#}");
    let nameless: u64 = tables.iter().map(|table| table["sample_losses"]["symbols_failed"].as_u64().unwrap()).sum();
    assert!(nameless > 0, "{tables:#?}");
}

/// Names that a file doesn't have are no failure.
#[test]
fn names_that_are_there_are_not_counted() {
    let scratch = Scratch::new();
    let file = file_in_folder(&scratch);
    let mounted = Mounted::with(&file, faulting_program());
    let process = Inhabitant(mounted.run());
    let victim = watch(&scratch, &["pagefault", "--by", "instruction", "--interval", "0.2", "-p", &process.pid()]);
    process.give_a_byte();
    // A table waits for its names, which the last one after a signal hardly does.
    let begun = Instant::now();
    while !written(&scratch).iter().any(|table| group_of_program(table).is_some()) {
        assert!(begun.elapsed() < Duration::from_secs(30), "no table has its fault: {:#?}", written(&scratch));
        std::thread::sleep(Duration::from_millis(20));
    }
    let ended = victim.end(Signal::SIGTERM, OBEYED);
    is_obeyed(&ended);
    let tables = written(&scratch);
    let failed: u64 = tables.iter().map(|table| table["sample_losses"]["symbols_failed"].as_u64().unwrap()).sum();
    assert_eq!(failed, 0, "{tables:#?}");
}
