//! What `--strict` ends a run for: a reader that is stopped loses what the test wants it to, and nothing else.

use std::process::Command;

use faultline::internals::abi::{fl_crash, fl_stack_page};
use faultline::internals::crash_ring_bytes;
use macro_rules_attribute::apply;

use crate::harness::runs::watch_test;
use crate::harness::{FAULTLINE, Scratch, Watching, counted_as, named, records};

/// The largest stacks.
const STACK_BYTES: usize = 512 << 10;
/// A sample has more.
const SAMPLE_BYTES_MIN: usize = 2 << 10;
/// The kernel's own bytes before each sample.
const HEADER_BYTES: usize = 8;
const PAGE_SAMPLE_BYTES: usize = size_of::<fl_stack_page>() + HEADER_BYTES;

/// What the ring holds at most: it is never quite full.
fn ring_bytes() -> usize {
    crash_ring_bytes(STACK_BYTES) - 1
}

/// Runs `stack-pages FILLERS BIG` while nobody reads what `faultline COMMAND` has of it. Returns its crash records, its standard error
/// and its exit status.
fn unread(command: &[&str], name: &str, fillers: usize, big: usize) -> (usize, String, Option<i32>) {
    let scratch = Scratch::new();
    let program = named(&scratch, "stack-pages", name);
    let stack_bytes = STACK_BYTES.to_string();
    let flags = ["-n", name, "-t", "--stack-bytes", &stack_bytes, "--strict", "--format", "json"];
    let (mut watching, line) = Watching::try_start(Command::new(FAULTLINE).args(command).args(flags));
    assert!(line.starts_with("faultline: watching "), "{line}");
    // It prints more than a pipe holds.
    let mut stdout = watching.child.stdout.take().unwrap();
    let reader = std::thread::spawn(move || {
        let mut bytes = Vec::new();
        std::io::Read::read_to_end(&mut stdout, &mut bytes).map(|_| bytes).unwrap()
    });
    let signal = |name: &str| {
        let pid = watching.child.id().to_string();
        assert!(Command::new("kill").args(["-s", name, &pid]).status().unwrap().success());
    };
    signal("STOP");
    let arguments = [fillers.to_string(), big.to_string()];
    let died = Command::new(&program).args(arguments).status().unwrap();
    signal("CONT");
    let output = watching.stop("TERM");
    assert!(died.success(), "{died}");
    let crashes = records(reader.join().unwrap()).iter().filter(|record| record["type"] == "crash").count();
    (crashes, String::from_utf8_lossy(&output.stderr).into_owned(), output.status.code())
}

/// Deaths without a stack after which a ring that nobody reads has room for a sample and for some pages of one more death, and not
/// for all of them.
fn fillers() -> usize {
    let too_many = ring_bytes() / SAMPLE_BYTES_MIN;
    let (kept, stderr, status) = unread(&["crash"], "strict-5c", too_many, 0);
    assert_eq!(counted_as(&stderr, "stack_page_ring_full"), 0, "{stderr}");
    assert_eq!((kept as u64 + counted_as(&stderr, "sample_ring_full"), status), (too_many as u64, Some(1)), "{stderr}");
    let sample = ring_bytes() / kept;
    let rest = 100 * PAGE_SAMPLE_BYTES + size_of::<fl_crash>();
    (ring_bytes() - rest) / sample
}

/// The ring was full for a moment: a record has a shorter stack, and nothing else is missing.
#[apply(watch_test!)]
fn lost_pages_of_a_stack_count() {
    let fillers = fillers();
    for (command, prefix) in [(&["crash"][..], ""), (&["call", "munmap"], "crash_")] {
        let (crashes, stderr, status) = unread(command, "strict-5c", fillers, 1);
        let last = stderr.lines().last().unwrap();
        let pages = if prefix.is_empty() { "stack_page_ring_full" } else { "crash_stack_page_ring_full" };
        assert!(counted_as(last, pages) > 0, "{stderr}");
        assert_eq!(crashes, fillers + 1, "every death has its record: {stderr}");
        assert_eq!(status, Some(1), "{command:?}: {stderr}");
    }
}
