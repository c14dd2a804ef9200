//! Names of code that runtimes generate, from the maps that they write for perf.

use std::fs;
use std::path::PathBuf;

use macro_rules_attribute::apply;
use serde_json::Value;

use crate::compile::compile;
use crate::harness::runs::watch_test;
use crate::harness::{Scratch, run};

/// What a process wrote into the folder that all share is deleted when this is dropped.
struct Maps(Vec<PathBuf>);

impl Maps {
    fn of(records: &[Value]) -> Self {
        let pids = records.iter().map(|record| record["pid_in_namespace"].as_u64().unwrap());
        Self(pids.flat_map(|pid| ["map", "target"].map(|end| format!("/tmp/perf-{pid}.{end}").into())).collect())
    }
}

impl Drop for Maps {
    fn drop(&mut self) {
        for map in &self.0 {
            let _ = fs::remove_file(map);
        }
    }
}

/// The symbols of a record's stack, innermost first.
fn symbols(record: &Value) -> Vec<Option<&str>> {
    let frames = record["stack_trace"].as_array().unwrap();
    frames.iter().map(|frame| frame["symbol"].as_str()).collect()
}

#[apply(watch_test!)]
fn generated_code_has_the_names_of_its_own_map() {
    let scratch = Scratch::new();
    let program = scratch.path("jit-7b");
    compile("jit.c", &program, &[]);
    let (folder, program) = (program.parent().unwrap().display(), program.display());
    // The last one has a /tmp of its own, as in a container, in which another process lives on until faultline has ended.
    let alive = "tail --pid=$1 -f /dev/null </dev/null >/dev/null 2>&1 &";
    let script = format!(
        "{program}\n{program} map\n{program} old\n{program} link\ncd {folder}\n{program} dump\n\
         unshare -m sh -c 'mount -t tmpfs none /tmp || exit; {alive} ./jit-7b map; true' sh $PPID\nexit 0"
    );
    let run = run(&scratch.script("all", &script), &["-t", "-n", "jit-7b"]);
    let _maps = Maps::of(&run.records);
    let [none, own, old, link, dumped, elsewhere] = &run.records[..] else {
        panic!("{} {:#?}", run.stderr, run.records)
    };
    let all = [(none, false), (own, true), (old, false), (link, false), (dumped, true), (elsewhere, true)];
    for (record, named) in all {
        let symbols = symbols(record);
        let wanted = if named { [Some("inner_jit+0x6"), Some("outer_jit+0x10")] } else { [None, None] };
        assert_eq!(symbols[..2], wanted, "{record:#}");
        // The file that ran is below the other /tmp, where it can't be found.
        let is_main = symbols[2].is_some_and(|symbol| symbol.starts_with("main+"));
        assert!(is_main || record["pid"] == elsewhere["pid"], "{symbols:?}");
        let first = &record["stack_trace"][0];
        assert_eq!((&first["module"], &first["file"], &first["line"]), (&Value::Null, &Value::Null, &Value::Null));
        assert_eq!(record["signature"], none["signature"], "a map has no part in it");
        assert_eq!(record["family"], none["family"], "{record:#}");
    }
    assert_eq!(own["instruction_symbol"], "inner_jit+0x6");
}

#[apply(watch_test!)]
fn functions_of_node_have_names() {
    let scratch = Scratch::new();
    let source = scratch.path("die.js");
    fs::write(
        &source,
        "function fatalOne(n) { if (n === 0) process.abort(); return fatalOne(n - 1) + 1; }\nfatalOne(3);\n",
    )
    .unwrap();
    // It writes a log into its folder.
    let folder = source.parent().unwrap().display();
    let line = format!("cd {folder} && node --perf-basic-prof --interpreted-frames-native-stack die.js\nexit 0");
    let run = run(&scratch.script("node", &line), &["-t", "--max-stack-depth", "127"]);
    let _maps = Maps::of(&run.records);
    let symbols = symbols(&run.records[0]);
    let ours = symbols.iter().flatten().filter(|symbol| symbol.contains("fatalOne") && symbol.contains("die.js:1:"));
    assert_eq!(ours.count(), 4, "{symbols:#?}");
}
