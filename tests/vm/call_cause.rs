//! `faultline call`: the call that explains a crash, against what `tests/programs/call-causes.c` says that it did.

use std::collections::BTreeMap;
use std::fs;
use std::io::{BufRead, BufReader, Write};
use std::process::{Command, Stdio};
use std::sync::Arc;

use macro_rules_attribute::apply;
use serde_json::Value;

use crate::harness::arch::page_size;
use crate::harness::runs::{Shared, Watch, watch_test};
use crate::harness::{FAULTLINE, Scratch, Watching, hex, named, programs, records, run_lines};

const CASES: [&str; 6] = ["own", "thread", "moved", "protected", "heap", "again"];

/// What one faultline over all cases has left: the facts of each, and the records.
struct Run {
    facts: BTreeMap<&'static str, BTreeMap<String, String>>,
    records: Vec<Value>,
    stderr: String,
}

impl Run {
    /// All cases under one faultline: to start it takes a slow guest longer than all of them.
    fn shared() -> Arc<Self> {
        static RUN: Shared<Run> = Shared::new();
        RUN.get(Self::anew)
    }

    fn anew() -> Self {
        let scratch = Scratch::new();
        let file = scratch.path("records");
        let program = programs().join("call-causes");
        let lines = CASES.map(|case| format!("{} {case} >{}", program.display(), scratch.path(case).display()));
        let mut faultline = Command::new(FAULTLINE);
        faultline.args(["call", "--preset", "memory", "-v", "--format", "json", "--output"]).arg(&file);
        let stderr = run_lines(&mut faultline, &scratch, &lines);
        Self {
            facts: CASES.map(|case| (case, facts(&fs::read_to_string(scratch.path(case)).unwrap()))).into(),
            records: records(fs::read(&file).unwrap()),
            stderr,
        }
    }

    /// What the kernel has kept from this run, by the reason.
    fn lost(&self, reason: &str) -> u64 {
        self.records.last().unwrap()["losses"][reason].as_u64().unwrap()
    }

    /// What the program said, and the record of its crash.
    fn case(&self, name: &str) -> (&BTreeMap<String, String>, &Value) {
        let facts = &self.facts[name];
        let pid: u64 = facts["pid"].parse().unwrap();
        let is_its = |record: &&Value| record["type"] == "crash" && record["pid"] == pid;
        let found: Vec<&Value> = self.records.iter().filter(is_its).collect();
        assert_eq!(found.len(), 1, "{name}: {facts:?}: {:#?}\n{}", self.records, self.stderr);
        assert_eq!(found[0]["fault_address"], facts["fault_address"].as_str());
        (facts, found[0])
    }
}

pub(crate) fn facts(said: &str) -> BTreeMap<String, String> {
    let lines = said.lines().filter_map(|line| line.split_once(' '));
    lines.map(|(field, value)| (field.to_owned(), value.to_owned())).collect()
}

pub(crate) fn calls(crash: &Value) -> &Vec<Value> {
    crash["calls"].as_array().unwrap_or_else(|| panic!("no calls: {crash:#}"))
}

/// The one call that is marked.
fn cause(crash: &Value) -> &Value {
    let marked: Vec<&Value> = calls(crash).iter().filter(|call| call["is_cause"] == true).collect();
    assert_eq!(marked.len(), 1, "{crash:#}");
    marked[0]
}

pub(crate) fn argument<'call>(call: &'call Value, name: &str) -> &'call Value {
    let all = call["arguments"].as_array().unwrap();
    let found = all.iter().find(|argument| argument["name"] == name);
    &found.unwrap_or_else(|| panic!("no {name}: {call:#}"))["value"]
}

/// Milliseconds since 1970.
fn ms(timestamp: &Value) -> f64 {
    let time: jiff::Timestamp = timestamp.as_str().unwrap().parse().unwrap();
    time.as_microsecond() as f64 / 1000.0
}

/// A call of which the run at its end was left out, or jumped over, has ended all the same, and explains the crash as likely. So does one
/// after which the beginning of another call may have been left out.
#[apply(watch_test!)]
fn its_own_munmap_explains_a_crash_30_ms_later() {
    let run = &Run::shared();
    let (facts, crash) = run.case("own");
    let cause = cause(crash);
    let is_seen = cause["state"] == "returned";
    if is_seen {
        assert_eq!(cause["return"], 0);
        assert!(cause["duration_ns"].as_u64().unwrap() > 0);
    } else {
        assert_eq!(cause["state"], "end_missed", "{crash:#}");
        assert!(run.lost("ends_missed") > 0, "{}", run.stderr);
        assert_eq!((&cause["return"], &cause["duration_ns"]), (&Value::Null, &Value::Null));
    }
    let is_certain = cause["relation"]["certain"] == true;
    assert!(is_seen || !is_certain, "{crash:#}");
    assert!(is_certain || !is_seen || run.lost("runs_missed") > 0, "{crash:#}\n{}", run.stderr);
    let confidence = if is_certain { "certain" } else { "likely" };
    assert_eq!(cause["function"], "munmap");
    assert_eq!(argument(cause, "addr"), facts["address"].as_str());
    assert_eq!(argument(cause, "len"), 8 * page_size());
    assert_eq!(cause["tid"].to_string(), facts["tid"]);
    assert_eq!((&cause["pid"], &cause["comm"]), (&crash["pid"], &crash["comm"]));
    let relation = serde_json::json!({
        "kind": "unmapped", "text": format!("unmapped {}", facts["fault_address"]), "certain": is_certain,
    });
    assert_eq!(cause["relation"], relation);
    let apart = ms(&crash["timestamp"]) - ms(&cause["entered"]);
    assert!((30.0..10_000.0).contains(&apart), "{apart} ms");
    assert_eq!(
        (&crash["diagnosis"]["kind"], &crash["diagnosis"]["confidence"]),
        (&"use_after_unmap".into(), &confidence.into())
    );
    // The other thread has called more often and later, and nothing of it has to do with the crash.
    let busy: u64 = facts["busy"].parse().unwrap();
    assert!(calls(crash).iter().all(|call| call["tid"] != busy), "{crash:#}");
    let times: Vec<f64> = calls(crash).iter().map(|call| ms(&call["entered"])).collect();
    assert!(times.is_sorted() && times.len() > 2, "{times:?}");
}

#[apply(watch_test!)]
fn another_threads_munmap_explains_it_as_well() {
    let run = &Run::shared();
    let (facts, crash) = run.case("thread");
    let cause = cause(crash);
    assert_ne!(facts["tid"], crash["tid"].to_string());
    assert_eq!(cause["tid"].to_string(), facts["tid"]);
    assert_eq!((&cause["function"], &cause["pid"]), (&"munmap".into(), &crash["pid"]));
    assert_eq!(argument(cause, "addr"), facts["address"].as_str());
    let text = crash["diagnosis"]["text"].as_str().unwrap();
    assert!(text.contains(&format!("munmap() of thread {} unmapped", facts["tid"])), "{text}");
}

#[apply(watch_test!)]
fn what_moved_is_told_with_where_it_is() {
    let run = &Run::shared();
    let (facts, crash) = run.case("moved");
    let cause = cause(crash);
    assert_eq!((&cause["function"], &cause["return"]), (&"mremap".into(), &facts["moved"].as_str().into()));
    assert_eq!(argument(cause, "flags"), "MREMAP_MAYMOVE|MREMAP_FIXED");
    assert_eq!(argument(cause, "new_addr"), facts["moved"].as_str());
    assert_eq!(cause["relation"]["kind"], "moved");
}

#[apply(watch_test!)]
fn what_mprotect_refuses_it_explains() {
    let run = &Run::shared();
    let (facts, crash) = run.case("protected");
    let cause = cause(crash);
    assert_eq!(cause["function"], "mprotect");
    assert_eq!(
        (argument(cause, "start"), argument(cause, "len")),
        (&facts["address"].as_str().into(), &(2 * page_size()).into())
    );
    assert_eq!(argument(cause, "prot"), "PROT_READ");
    assert_eq!(cause["relation"]["kind"], "protected");
    let text = crash["diagnosis"]["text"].as_str().unwrap();
    assert!(text.contains("; mprotect() made it so "), "{text}");
}

#[apply(watch_test!)]
fn the_heap_was_given_back() {
    let run = &Run::shared();
    let (facts, crash) = run.case("heap");
    let cause = cause(crash);
    assert_eq!((&cause["function"], &cause["relation"]["kind"]), (&"brk".into(), &"unmapped".into()));
    assert!(hex(&cause["return"]) < hex(&facts["fault_address"].as_str().into()), "{cause:#}");
}

/// The newest call decides: behind the two pages that were mapped again there is still what the munmap left.
#[apply(watch_test!)]
fn what_was_mapped_again_is_no_hole() {
    let run = &Run::shared();
    let (facts, crash) = run.case("again");
    assert_eq!(cause(crash)["function"], "munmap");
    let again = calls(crash).iter().rfind(|call| call["function"] == "mmap").unwrap();
    assert_eq!((argument(again, "addr"), &again["relation"]), (&facts["address"].as_str().into(), &Value::Null));
}

#[apply(watch_test!)]
fn the_report_says_what_became_of_each_function() {
    let run = &Run::shared();
    let reports: Vec<&Value> = run.records.iter().filter(|record| record["type"] == "call_report").collect();
    assert_eq!(reports.len(), 2, "at the begin and at the end");
    assert_eq!((&reports[0]["final"], &reports[1]["final"]), (&false.into(), &true.into()));
    for report in &reports {
        assert_eq!(report["requested"], serde_json::json!(["preset memory"]));
        let functions = report["functions"].as_array().unwrap();
        assert_eq!(functions.len(), 11);
        for function in functions {
            assert_eq!(function["state"], "attached", "{function:#}\n{}", run.stderr);
        }
        assert_eq!(
            report["function_stages"],
            serde_json::json!({ "requested": 1, "resolved": 11, "loadable": 11, "attached": 11 })
        );
    }
    let stages = &reports[1]["call_stages"];
    assert_eq!((&stages["crashes"], &stages["crashes_explained"]), (&6.into(), &6.into()), "{stages:#}");
    assert!(stages["recorded"].as_u64() >= stages["returned"].as_u64(), "{stages:#}");
    let losses = reports[1]["losses"].as_object().unwrap();
    // Calls, forks and exits of any process are missed now and then (v6.13 and later); those of the six are all there.
    let may_be_missed = ["runs_missed", "ends_missed", "exits_missed", "forks_missed"];
    let none = losses.iter().all(|(reason, count)| may_be_missed.contains(&reason.as_str()) || count == 0);
    assert!(losses.len() == 16 && none, "{losses:?}");
}

/// faultline watches the victims only, by name; what cuts their file is another process.
#[apply(watch_test!)]
fn another_process_truncates_the_mapped_file() {
    let scratch = Scratch::new();
    let program = named(&scratch, "call-causes", "mapped-5d");
    let (watching, line) = Watching::try_start(Command::new(FAULTLINE).args([
        "call",
        "--preset",
        "file",
        "-n",
        "mapped-5d",
        "--format",
        "json",
    ]));
    assert!(line.starts_with("faultline: watching processes named *mapped-5d*"), "{line}");
    let (mut victims, page) = (Vec::new(), page_size());
    for (number, cut) in ["exec truncate -s PAGE FILE", ": >FILE", "exec truncate -s SECOND FILE"].iter().enumerate() {
        let path = scratch.path(&format!("data-{number}"));
        let cut = cut.replace("PAGE", &page.to_string()).replace("SECOND", &(2 * page - 1).to_string());
        fs::write(&path, vec![1; 4 * page as usize]).unwrap();
        let mut victim = Command::new(&program)
            .args(["mapped", path.to_str().unwrap()])
            .env("FAULTLINE_TRUTH", "1")
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()
            .unwrap();
        let mut said = String::new();
        BufReader::new(victim.stdout.as_mut().unwrap()).read_line(&mut said).unwrap();
        assert_eq!(said, format!("pid {}\n", victim.id()));
        let mut shell = Command::new("sh").args(["-c", &cut.replace("FILE", path.to_str().unwrap())]).spawn().unwrap();
        let culprit = shell.id();
        assert!(shell.wait().unwrap().success());
        victim.stdin.take().unwrap().write_all(b"\n").unwrap();
        let pid = victim.id();
        assert!(!victim.wait().unwrap().success());
        victims.push((pid, culprit, path));
    }
    let output = watching.stop_after("crash", victims.len(), "TERM");
    let records = records(&output.stdout);
    let stderr = String::from_utf8_lossy(&output.stderr);
    let crash = |pid: u32| {
        let found: Vec<&Value> =
            records.iter().filter(|record| record["type"] == "crash" && record["pid"] == pid).collect();
        assert_eq!(found.len(), 1, "{records:#?}\n{stderr}");
        assert_eq!((&found[0]["signal"], &found[0]["code"]), (&"SIGBUS".into(), &"BUS_ADRERR".into()));
        found[0]
    };
    let (pid, culprit, path) = &victims[0];
    let by_descriptor = cause(crash(*pid));
    assert_eq!(
        (&by_descriptor["function"], &by_descriptor["pid"]),
        (&"ftruncate".into(), &(*culprit).into()),
        "{stderr}"
    );
    assert_eq!((&by_descriptor["comm"], argument(by_descriptor, "length")), (&"truncate".into(), &page.into()));
    let expected = serde_json::json!({
        "kind": "truncated", "certain": true,
        "text": format!("cut the mapped file to {page} bytes, and the fault was at offset {}", 2 * page + 16),
    });
    assert_eq!(by_descriptor["relation"], expected);
    let inode = fs::metadata(path).map(|file| std::os::unix::fs::MetadataExt::ino(&file)).unwrap();
    assert_eq!(argument(by_descriptor, "fd:file.i_ino"), inode);
    let diagnosis = &crash(*pid)["diagnosis"];
    assert_eq!((&diagnosis["kind"], &diagnosis["confidence"]), (&"file_truncated".into(), &"certain".into()));
    let text = diagnosis["text"].as_str().unwrap();
    assert!(text.contains(&format!("ftruncate() of truncate (PID {culprit}) cut it ")), "{text}");
    // By its name it is a guess where only system calls can be seen; do_truncate() knows the inode.
    let (pid, culprit, _) = &victims[1];
    let by_name = cause(crash(*pid));
    assert_eq!((&by_name["pid"], &by_name["relation"]["kind"]), (&(*culprit).into(), &"truncated".into()));
    let sees_functions = records[0]["functions"]
        .as_array()
        .unwrap()
        .iter()
        .any(|function| function["function"] == "do_truncate" && function["state"] == "attached");
    let (function, certain) = if sees_functions { ("do_truncate", true) } else { ("openat", false) };
    assert_eq!((&by_name["function"], &by_name["relation"]["certain"]), (&function.into(), &certain.into()));
    if sees_functions {
        let size = by_name["arguments"].as_array().unwrap().iter().find(|one| one["name"] == "dentry:dentry.i_size");
        let size = size.unwrap();
        assert_eq!((&size["type"], &size["value"], &size["after"]), (&"loff_t".into(), &(4 * page).into(), &0.into()));
        assert_eq!((argument(by_name, "length"), &by_name["return"]), (&0.into(), &0.into()));
        let (name, shown) = (victims[1].2.file_name().unwrap(), argument(by_name, "dentry:dentry.path"));
        assert!(shown.as_str().unwrap().ends_with(&format!("/{}", name.to_str().unwrap())), "{shown}");
    }
    // The third was cut within the page before: the page at the fault is gone all the same.
    assert_eq!(argument(cause(crash(victims[2].0)), "length"), 2 * page - 1);
}

#[apply(watch_test!)]
fn what_was_made_longer_was_not_cut() {
    let scratch = Scratch::new();
    let (file, program) = (scratch.path("records"), programs().join("no-page"));
    let lines = ["grown", "cut"].map(|case| format!("{} {case}", program.display()));
    let script = scratch.script("all", &(lines.join("\n") + "\nexit 0"));
    let output = Command::new(FAULTLINE)
        .args(["call", "--preset", "memory", "ftruncate", "--format", "json", "--output"])
        .arg(&file)
        .arg("--")
        .arg(&script)
        .watch();
    let records = records(fs::read(&file).unwrap());
    let crashes: Vec<&Value> = records.iter().filter(|record| record["type"] == "crash").collect();
    assert_eq!(crashes.len(), 2, "{records:#?}\n{}", String::from_utf8_lossy(&output.stderr));
    for (crash, kind, relation, text) in [
        (crashes[0], "behind_end_of_file", "resized", "; ftruncate() made it longer "),
        (crashes[1], "file_truncated", "truncated", ": ftruncate() cut it "),
    ] {
        let cause = cause(crash);
        assert_eq!((&cause["function"], argument(cause, "length")), (&"ftruncate".into(), &page_size().into()));
        assert_eq!((&cause["relation"]["kind"], &cause["relation"]["certain"]), (&relation.into(), &true.into()));
        let found = &crash["diagnosis"];
        assert_eq!((&found["kind"], &found["confidence"]), (&kind.into(), &"certain".into()), "{crash:#}");
        assert!(found["text"].as_str().unwrap().contains(text), "{found}");
    }
}

#[apply(watch_test!)]
fn who_sent_the_signal_is_told_with_the_call() {
    let scratch = Scratch::new();
    let file = scratch.path("records");
    let script = "sleep 60 & kill -SEGV $!; wait; echo $! $$";
    let output = Command::new(FAULTLINE)
        .args([
            "call",
            "--preset",
            "signal",
            "--format",
            "json",
            "--output",
            file.to_str().unwrap(),
            "--",
            "sh",
            "-c",
            script,
        ])
        .watch();
    let said = String::from_utf8(output.stdout).unwrap();
    let (victim, sender) = said.trim().split_once(' ').unwrap();
    let records = records(fs::read(&file).unwrap());
    let crashes: Vec<&Value> = records.iter().filter(|record| record["type"] == "crash").collect();
    assert_eq!((crashes.len(), crashes[0]["pid"].to_string().as_str()), (1, victim), "{records:#?}");
    let cause = cause(crashes[0]);
    assert_eq!((&cause["function"], cause["pid"].to_string().as_str()), (&"kill".into(), sender));
    assert_eq!((argument(cause, "pid"), argument(cause, "sig")), (&crashes[0]["pid"], &"SIGSEGV".into()));
    assert_eq!((&cause["relation"]["kind"], &cause["relation"]["certain"]), (&"sent".into(), &true.into()));
}
