//! Faults whose handler ends the process.

use macro_rules_attribute::apply;

use crate::compile::compile;
use crate::harness::runs::watch_test;
use crate::harness::{Scratch, check, run};

#[apply(watch_test!)]
fn what_only_looks_like_a_signal_frame_is_none() {
    check("caught-pair");
}

/// The signal dumps no core, and isn't watched.
#[apply(watch_test!)]
fn a_handler_that_sends_its_process_a_signal_has_ended_it() {
    let scratch = Scratch::new();
    let program = scratch.path("ends-itself");
    compile("ends-itself.c", &program, &[]);
    let table = [
        ("kill", "SIGKILL", "SI_USER"),
        ("raise", "SIGTERM", "SI_TKILL"),
        ("group", "SIGTERM", "SI_USER"),
        ("left", "", ""),
        ("parent", "", ""),
        ("other", "null", "null"),
    ];
    for (way, signal, code) in table {
        let program = program.to_str().unwrap();
        let script = scratch.script(way, &format!("{program} {way}\nexit 0"));
        let run = run(&script, &["-t"]);
        if signal.is_empty() {
            assert!(run.records.is_empty(), "{way}: {:#?}", run.records);
            continue;
        }
        let [record] = &run.records[..] else { panic!("{way}: {:#?} {}", run.records, run.stderr) };
        assert_eq!((&record["disposition"], &record["signal"]), (&"caught".into(), &"SIGSEGV".into()), "{record:#}");
        assert_eq!(record["fault_address"], "0x18", "{way}: {record:#}");
        assert!(record["stack_trace"][0]["symbol"].as_str().unwrap().starts_with("touch+"), "{way}: {record:#}");
        let text = |field: &str| record["ended_by"][field].as_str().unwrap_or("null").to_owned();
        assert_eq!((text("signal"), text("code")), (signal.to_owned(), code.to_owned()), "{way}: {record:#}");
    }
    // Another program has had that fault.
    let script = scratch.script("execs", &format!("{} execs\nexit 0", program.display()));
    let run = self::run(&script, &["-t"]);
    let [record] = &run.records[..] else { panic!("{:#?} {}", run.records, run.stderr) };
    assert_eq!((&record["signal"], &record["disposition"]), (&"SIGABRT".into(), &"fatal".into()), "{record:#}");
    assert_eq!(record["earlier_fault"], serde_json::Value::Null, "{record:#}");
    // The same where that signal is watched.
    let script = scratch.script("watched", &format!("{0} kill\n{0} raise\n{0} left\nexit 0", program.display()));
    let run = self::run(&script, &["-t", "--signal", "SEGV", "--signal", "KILL", "--signal", "TERM"]);
    let ended = |signal: &str, disposition: &str| {
        let of = |record: &&serde_json::Value| record["signal"] == signal && record["disposition"] == disposition;
        run.records.iter().filter(of).count()
    };
    assert_eq!((ended("SIGSEGV", "caught"), ended("SIGSEGV", "fatal")), (2, 0), "{:#?}", run.records);
    let left = |record: &&serde_json::Value| record["earlier_fault"]["signal"] == "SIGSEGV";
    assert_eq!(run.records.iter().filter(left).count(), 1, "{:#?}", run.records);
}
