//! `faultline memory`: every way to make memory executable, compared with what the program prints.

use std::collections::BTreeSet;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::Arc;

use macro_rules_attribute::apply;
use serde_json::Value;
use sha2::{Digest, Sha256};

use crate::attach::kernel;
use crate::harness::arch::{HAS_MIXED_CALLS, HAS_NO_PROTECTION_KEYS, code, page_size};
use crate::harness::runs::{Shared, Watch, watch_test};
use crate::harness::{FAULTLINE, Scratch, programs, records, run_lines};

const CASES: [&str; 19] = [
    "textbook",
    "rwx-exit",
    "rwx-munmap",
    "rwx-mmap",
    "rwx-madvise",
    "rwx-mremap",
    "rwx-killed",
    "rwx-crashed",
    "rwx-exec",
    "rwx-timer",
    "rwx-fork",
    "memfd",
    "mremap",
    "shm",
    "pkey",
    "huge",
    "implied",
    "toggled",
    "refused",
];

/// The cases that there are on this architecture.
fn cases() -> impl Iterator<Item = &'static str> {
    CASES.into_iter().chain(HAS_MIXED_CALLS.then_some("compat"))
}

/// The results of one run of faultline over all cases.
struct Run {
    /// Deleted when the test program ends: kept as long as any test may look into it.
    _scratch: Scratch,
    folder: PathBuf,
    records: Vec<Value>,
    stderr: String,
}

impl Run {
    fn make(flags: &[&str]) -> Self {
        let scratch = Scratch::new();
        let (file, folder) = (scratch.path("records"), scratch.path("dump"));
        let program = programs().join("memory-cases");
        let lines: Vec<String> = cases()
            .map(|case| {
                let said = scratch.path(case);
                format!("{} {case} {} >{}", program.display(), folder.display(), said.display())
            })
            .collect();
        let mut faultline = Command::new(FAULTLINE);
        faultline
            .args(["memory", "--format", "json", "-v", "--dump"])
            .arg(&folder)
            .arg("--output")
            .arg(&file)
            .args(flags);
        let stderr = run_lines(&mut faultline, &scratch, &lines);
        let records = records(fs::read(&file).unwrap());
        Self { folder, records, stderr, _scratch: scratch }
    }

    /// All cases under one faultline: on a slow guest its start takes longer than all of them.
    fn shared() -> Arc<Self> {
        static RUN: Shared<Run> = Shared::new();
        RUN.get(|| Self::make(&[]))
    }

    fn case(&self, name: &str) -> Case<'_> {
        let said = fs::read_to_string(self.folder.with_file_name(name)).unwrap();
        let facts: Vec<(String, String)> = said
            .lines()
            .filter_map(|line| line.split_once(' '))
            .map(|(field, value)| (field.to_owned(), value.to_owned()))
            .collect();
        assert!(facts.len() >= 2, "{name} did not get far: {said}");
        Case { run: self, facts }
    }
}

/// One case: what the program printed, and its records.
struct Case<'run> {
    run: &'run Run,
    facts: Vec<(String, String)>,
}

impl Case<'_> {
    fn fact(&self, name: &str) -> &str {
        let found = self.facts.iter().find(|(field, _)| field == name);
        found.map(|(_, value)| value.as_str()).unwrap_or_else(|| panic!("no {name} in {:?}", self.facts))
    }

    fn number(&self, name: &str) -> i64 {
        self.fact(name).parse().unwrap()
    }

    fn of(&self, kind: &str, pid: i64) -> Vec<&Value> {
        self.run.records.iter().filter(|record| record["type"] == kind && record["pid"] == pid).collect()
    }

    /// The mapping records of this call at the address that the program printed under this name.
    fn mappings(&self, call: &str, address: &str) -> Vec<&Value> {
        let all = self.of("mapping", self.number("pid"));
        all.into_iter().filter(|record| record["call"] == call && record["address"] == self.fact(address)).collect()
    }

    fn mapping(&self, call: &str, address: &str) -> &Value {
        let found = self.mappings(call, address);
        assert_eq!(found.len(), 1, "{call} in {:#?}\n{}", self.of("mapping", self.number("pid")), self.run.stderr);
        found[0]
    }

    /// The pages at the address that the program printed under this name.
    fn pages(&self, pid: i64, address: &str) -> Vec<&Value> {
        self.of("page", pid).into_iter().filter(|record| record["address"] == self.fact(address)).collect()
    }

    /// The one page there with this trigger; its file begins with these bytes.
    fn page(&self, trigger: &str, address: &str, begin: &[u8]) -> &Value {
        self.page_of(self.number("pid"), trigger, address, begin)
    }

    fn page_of(&self, pid: i64, trigger: &str, address: &str, begin: &[u8]) -> &Value {
        let all = self.pages(pid, address);
        let found: Vec<&&Value> =
            all.iter().filter(|page| page["trigger"] == trigger && self.content(page).starts_with(begin)).collect();
        assert!(!found.is_empty(), "no {trigger} with {begin:x?} among {all:#?}\n{}", self.run.stderr);
        found[0]
    }

    fn content(&self, page: &Value) -> Vec<u8> {
        let bytes = fs::read(self.run.folder.join(page["file"].as_str().unwrap())).unwrap();
        let sum: String = Sha256::digest(&bytes).iter().map(|byte| format!("{byte:02x}")).collect();
        assert_eq!((page["sha256"].as_str().unwrap(), &page["length"]), (sum.as_str(), &bytes.len().into()));
        bytes
    }
}

/// One test a line, on the run that all of them share. For each other way to attach there is a run with all of them.
macro_rules! cases {
    ($($name:ident)*) => {
        mod shared {
            use super::{Run, apply, watch_test};
            $(#[apply(watch_test!)] fn $name() { super::$name(&Run::shared()); })*
        }
        const CHECKS: &[(&str, fn(&Run))] = &[$((stringify!($name), $name)),*];
    };
}

cases! {
    the_textbook_case
    what_is_written_later_is_read_before_it_goes
    memory_that_is_given_back_is_told
    the_timer_sees_what_is_wiped_before_anything_else_looks
    a_child_has_memory_of_its_own
    an_alias_is_read_where_it_is_executed
    what_moves_is_told_at_its_new_place
    shared_memory_of_system_v
    protection_keys
    ten_gibibytes_are_looked_through_and_not_dumped
    reading_may_imply_executing
    each_time_memory_becomes_executable_it_is_read
    a_32_bit_call_is_found_afterwards
    a_call_that_fails_says_why
    a_new_program_is_told_with_its_executable_memory
    every_page_of_the_index_has_its_content_stored_once
}

#[apply(watch_test!)]
fn the_tracepoints_of_all_calls_show_the_same() {
    check_by(&["--attach", "raw"]);
}

#[apply(watch_test!)]
fn kprobes_show_the_same_where_there_are_any() {
    if Path::new("/sys/bus/event_source/devices/kprobe/type").exists() {
        return check_by(&["--attach", "kprobe"]);
    }
    let output = Command::new(FAULTLINE).args(["memory", "--attach", "kprobe", "--", "true"]).watch();
    assert_eq!(output.status.code(), Some(2));
    let text = String::from_utf8_lossy(&output.stderr).into_owned();
    assert!(text.contains("this kernel has none (CONFIG_KPROBES), use --attach tracepoint"), "{text}");
}

/// All checks on a run of their own.
fn check_by(flags: &[&str]) {
    let run = Run::make(flags);
    for (name, check) in CHECKS {
        println!("{name}");
        check(&run);
    }
}

fn the_textbook_case(run: &Run) {
    let case = run.case("textbook");
    let mapping = case.mapping("mprotect", "address");
    let expected = serde_json::json!({
        "type": "mapping", "schema": 1, "pid": case.number("pid"), "tid": case.number("pid"), "comm": "memory-cases",
        "arguments": { "addr": case.fact("address"), "length": page_size(), "prot": "PROT_READ|PROT_EXEC" },
        "length": page_size(), "permissions": "r-xp", "result": 0, "error": null, "mapping_name": null, "offset": null,
        "pages": { "total": 1, "resident": 1, "read": 0, "untouched": 0, "left_out": 0, "gone": 0 },
    });
    for (field, value) in expected.as_object().unwrap() {
        assert_eq!(&mapping[field], value, "{field}: {mapping:#}");
    }
    let page = case.page("mprotect", "address", &code(42));
    let expected = serde_json::json!({
        "schema": 1, "length": 4096, /* a piece of a page */ "permissions": "r-xp", "resident": true, "source": "kernel", "mapping_name": null,
    });
    for (field, value) in expected.as_object().unwrap() {
        assert_eq!(&page[field], value, "{field}: {page:#}");
    }
    assert_eq!(case.pages(case.number("pid"), "address").len(), 1, "it never changed");
    let name = page["file"].as_str().unwrap();
    assert!(name.starts_with(&format!("{}/{}-", case.fact("pid"), case.fact("address"))), "{name}");
}

/// Memory is written when it is executable already: the bytes that ran are in a dump, whatever ends them.
fn what_is_written_later_is_read_before_it_goes(run: &Run) {
    for (name, trigger, number) in [
        ("rwx-exit", "exit", 1001),
        ("rwx-munmap", "before_munmap", 1002),
        ("rwx-mmap", "before_mmap", 1003),
        ("rwx-madvise", "before_madvise", 1004),
        ("rwx-mremap", "before_mremap", 1005),
        ("rwx-killed", "exit", 1006),
        ("rwx-crashed", "exit", 1007),
        ("rwx-exec", "before_execve", 1008),
    ] {
        let case = run.case(name);
        let mapping = case.mappings("mmap", "address")[0];
        assert_eq!(mapping["permissions"], "rwxp", "{name}: {mapping:#}");
        assert_eq!(mapping["arguments"]["prot"], "PROT_READ|PROT_WRITE|PROT_EXEC");
        let page = case.page(trigger, "address", &code(number));
        // The timer may have read the page before: then the trigger is the timer, and nothing has changed since.
        assert_eq!((&page["resident"], &page["permissions"]), (&true.into(), &"rwxp".into()), "{name}: {page:#}");
    }
}

fn memory_that_is_given_back_is_told(run: &Run) {
    let unmapped = run.case("rwx-munmap");
    let record = unmapped.mapping("munmap", "address");
    assert_eq!((&record["length"], &record["result"]), (&page_size().into(), &0.into()));
    assert!(record["permissions"].is_null() && record["pages"].is_null(), "{record:#}");
    let over = run.case("rwx-mmap");
    assert_eq!(over.mappings("mmap", "address")[1]["permissions"], "rw-p", "mapped over executable memory");
}

fn the_timer_sees_what_is_wiped_before_anything_else_looks(run: &Run) {
    let case = run.case("rwx-timer");
    let all = case.pages(case.number("pid"), "address");
    let found = all.iter().find(|page| case.content(page).starts_with(&code(1009))).unwrap();
    assert_eq!(
        (&found["resident"], &found["source"]),
        (&false.into(), &"process".into()),
        "read by user space: {found:#}"
    );
}

fn a_child_has_memory_of_its_own(run: &Run) {
    let case = run.case("rwx-fork");
    case.page("exit", "address", &code(1010));
    let child = case.page_of(case.number("child"), "exit", "address", &code(1011));
    assert_eq!(child["resident"], true);
}

fn an_alias_is_read_where_it_is_executed(run: &Run) {
    let case = run.case("memfd");
    let memfd = case.of("mapping", case.number("pid")).into_iter().find(|record| record["call"] == "memfd").unwrap();
    assert_eq!((&memfd["result"], &memfd["address"]), (&case.number("fd").into(), &Value::Null), "{memfd:#}");
    assert_eq!(memfd["arguments"]["flags"], "MFD_CLOEXEC");
    let mapping = case.mapping("mmap", "address");
    assert_eq!((&mapping["permissions"], &mapping["mapping_name"]), (&"r-xs".into(), &"/memfd:alias (deleted)".into()));
    assert_eq!(mapping["arguments"]["fd"], case.number("fd"));
    let all = case.pages(case.number("pid"), "address");
    assert!(all.iter().any(|page| case.content(page).starts_with(&code(1012))), "{all:#?}");
}

fn what_moves_is_told_at_its_new_place(run: &Run) {
    let case = run.case("mremap");
    case.page("mprotect", "old", &code(1013));
    let moved = case.mapping("mremap", "address");
    assert_eq!(
        (&moved["permissions"], &moved["length"], &moved["result"]),
        (&"r-xp".into(), &page_size().into(), &0.into())
    );
    assert_eq!(moved["arguments"]["old_address"], case.fact("old"));
    assert_eq!(moved["arguments"]["flags"], "MREMAP_MAYMOVE|MREMAP_FIXED");
    let (old, new) = (case.pages(case.number("pid"), "old")[0], case.page("mremap", "address", &code(1013)));
    assert_eq!(old["file"], new["file"], "equal content is stored once");
}

fn shared_memory_of_system_v(run: &Run) {
    let case = run.case("shm");
    let mapping = case.mapping("shmat", "address");
    assert_eq!(
        (&mapping["permissions"], &mapping["length"]),
        (&"r-xs".into(), &(2 * page_size()).into()),
        "{mapping:#}"
    );
    assert_eq!(mapping["arguments"]["shmflg"], "SHM_RDONLY|SHM_EXEC");
    assert_eq!(mapping["arguments"]["shmid"], case.number("shmid"));
    assert!(mapping["mapping_name"].as_str().unwrap().starts_with("/SYSV00000000"), "{mapping:#}");
    let all = case.pages(case.number("pid"), "address");
    assert!(all.iter().any(|page| case.content(page).starts_with(&code(1014))), "{all:#?}");
    case.mapping("shmdt", "address");
}

fn protection_keys(run: &Run) {
    if kernel().is_some_and(|kernel| HAS_NO_PROTECTION_KEYS.contains(&kernel.as_str())) {
        let said = fs::read_to_string(run.folder.with_file_name("pkey")).unwrap();
        return assert_eq!(said.lines().count(), 1, "it ends where the call fails: {said}");
    }
    let case = run.case("pkey");
    let mapping = case.mapping("pkey_mprotect", "address");
    assert_eq!((&mapping["permissions"], &mapping["result"]), (&"r-xp".into(), &0.into()));
    assert_eq!(mapping["arguments"]["pkey"], case.number("pkey"));
    case.page("pkey_mprotect", "address", &code(1015));
}

fn ten_gibibytes_are_looked_through_and_not_dumped(run: &Run) {
    let case = run.case("huge");
    let mapping = case.mapping("mprotect", "address");
    let total = (10_u64 << 30) / page_size();
    assert_eq!(mapping["length"], 10_u64 << 30);
    assert_eq!(mapping["pages"]["total"], total, "{mapping:#}");
    assert_eq!((&mapping["pages"]["read"], &mapping["pages"]["untouched"]), (&1.into(), &(total - 1).into()));
    let page = case.page("mprotect", "code", &code(1016));
    assert_eq!((&page["resident"], &page["source"]), (&false.into(), &"process".into()));
}

fn reading_may_imply_executing(run: &Run) {
    let case = run.case("implied");
    let mapping = case.mapping("mmap", "address");
    assert_eq!(mapping["arguments"]["prot"], "PROT_READ|PROT_WRITE", "not asked for");
    assert_eq!(mapping["permissions"], "rwxp");
    case.page("exit", "address", &code(1017));
}

fn each_time_memory_becomes_executable_it_is_read(run: &Run) {
    let case = run.case("toggled");
    let mappings = case.mappings("mprotect", "address");
    assert_eq!(mappings.len(), 2, "{mappings:#?}");
    let pages = case.pages(case.number("pid"), "address");
    let begin: Vec<Vec<u8>> = pages.iter().map(|page| case.content(page)[..code(0).len()].to_vec()).collect();
    assert_eq!(begin, [code(1018), code(1019)], "{pages:#?}");
}

/// No tracepoint of a 64-bit call shows it: the mapping is found, and counted.
fn a_32_bit_call_is_found_afterwards(run: &Run) {
    if !HAS_MIXED_CALLS {
        return assert!(run.stderr.contains("mappings_unseen 0,"), "{}", run.stderr);
    }
    let case = run.case("compat");
    let mapping = case.mapping("unseen", "address");
    assert_eq!((&mapping["permissions"], &mapping["result"]), (&"rwxp".into(), &Value::Null), "{mapping:#}");
    let all = case.pages(case.number("pid"), "address");
    assert!(all.iter().any(|page| case.content(page).starts_with(&code(1020))), "{all:#?}");
    assert!(run.stderr.contains("mappings_unseen 1,"), "the only one: {}", run.stderr);
}

fn a_call_that_fails_says_why(run: &Run) {
    let case = run.case("refused");
    let mapping = case.mapping("mprotect", "address");
    assert_eq!((&mapping["result"], &mapping["error"]), (&(-case.number("errno")).into(), &"ENOMEM".into()));
    assert!(mapping["permissions"].is_null() && mapping["pages"].is_null(), "{mapping:#}");
}

fn a_new_program_is_told_with_its_executable_memory(run: &Run) {
    let case = run.case("rwx-exec");
    let names: Vec<String> = case
        .of("mapping", case.number("pid"))
        .into_iter()
        .filter(|record| record["call"] == "execve")
        .filter_map(|record| Some(Path::new(record["mapping_name"].as_str()?).file_name()?.to_str()?.to_owned()))
        .collect();
    assert_eq!(names.iter().filter(|name| *name == "memory-cases").count(), 2, "one for each program: {names:?}");
    assert!(names.iter().any(|name| name.starts_with("ld-linux")), "{names:?}");
    assert!(names.iter().any(|name| name == "[vdso]"), "{names:?}");
    let pages: Vec<&Value> = case.of("page", case.number("pid"));
    let vdso = pages.iter().find(|page| page["mapping_name"] == "[vdso]").unwrap();
    assert_eq!(case.content(vdso)[..4], *b"\x7fELF", "the same for every process, whether it has used it or not");
}

fn every_page_of_the_index_has_its_content_stored_once(run: &Run) {
    let pages = records(fs::read(run.folder.join("pages.jsonl")).unwrap());
    let told: Vec<&Value> = run.records.iter().filter(|record| record["type"] == "page").collect();
    assert!(pages.iter().eq(told), "the index is the page records");
    let contents: BTreeSet<&str> = pages.iter().map(|page| page["sha256"].as_str().unwrap()).collect();
    let files: BTreeSet<&str> = pages.iter().map(|page| page["file"].as_str().unwrap()).collect();
    assert_eq!(contents.len(), files.len());
    assert!(pages.len() > files.len() * 2, "each process has the same libc");
}
