//! What is one bug: signatures and families of real programs.

use std::collections::BTreeSet;
use std::path::Path;
use std::process::Command;

use macro_rules_attribute::apply;
use serde_json::Value;

use crate::harness::runs::watch_test;
use crate::harness::{FAULTLINE, Scratch, run};

fn compile_cxx(program: &Path, flags: &[&str]) {
    let source = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/vm/programs/one-signature.cc");
    let compiled = Command::new("g++").args(flags).arg("-o").arg(program).arg(source).status().unwrap();
    assert!(compiled.success());
}

/// The records of the four bugs of one-signature.cc.
fn four_bugs(program: &Path, scratch: &Scratch, flags: &[&str]) -> Vec<Value> {
    let line = |n: u32| format!("{} {n} 2>/dev/null\n", program.display());
    let script = scratch.script("all", &((1..=4).map(line).collect::<String>() + "exit 0"));
    let records = run(&script, flags).records;
    assert_eq!(records.len(), 4, "{records:#?}");
    records
}

fn all<'a>(records: &'a [Value], field: &str) -> BTreeSet<&'a str> {
    records.iter().map(|record| record[field].as_str().unwrap()).collect()
}

/// Without frame pointers in libc the kernel sees one stack of all four.
#[apply(watch_test!)]
fn four_bugs_that_end_in_abort_are_four() {
    let scratch = Scratch::new();
    let (first, again) = (scratch.path("one-signature"), scratch.path("again"));
    compile_cxx(&first, &["-g", "-O2"]);
    let records = four_bugs(&first, &scratch, &[]);
    assert_eq!(all(&records, "signature").len(), 4, "{records:#?}");
    assert_eq!(all(&records, "family").len(), 4, "{records:#?}");
    // Another build of them, under the same name.
    compile_cxx(&again, &["-g", "-O0"]);
    std::fs::rename(&again, &first).unwrap();
    let others = four_bugs(&first, &scratch, &[]);
    assert!(all(&records, "signature").is_disjoint(&all(&others, "signature")));
    assert_eq!(all(&records, "family"), all(&others, "family"));
    // Without names.
    assert!(Command::new("strip").arg(&first).status().unwrap().success());
    let stripped = four_bugs(&first, &scratch, &[]);
    assert!(stripped.iter().all(|record| record["family"].is_null()), "{stripped:#?}");
    assert_eq!(all(&stripped, "signature").len(), 4);
}

/// One host has the debug file, the other doesn't: they name one bug alike.
#[apply(watch_test!)]
fn a_debug_file_makes_no_difference_to_a_signature() {
    let scratch = Scratch::new();
    let (program, folder) = (scratch.path("one-signature"), scratch.path("debug"));
    compile_cxx(&program, &["-g", "-O2", "-Wl,--build-id"]);
    let build_id = four_bugs(&program, &scratch, &[])[0]["build_id"].as_str().unwrap().to_owned();
    let debug = folder.join(".build-id").join(&build_id[..2]).join(format!("{}.debug", &build_id[2..]));
    std::fs::create_dir_all(debug.parent().unwrap()).unwrap();
    let done = |command: &mut Command| assert!(command.status().unwrap().success());
    done(Command::new("objcopy").arg("--only-keep-debug").arg(&program).arg(&debug));
    done(Command::new("strip").arg(&program));
    let without = four_bugs(&program, &scratch, &[]);
    let with = four_bugs(&program, &scratch, &["--debug-dir", folder.to_str().unwrap()]);
    assert!(without.iter().all(|record| record["family"].is_null()), "{without:#?}");
    assert_eq!(all(&with, "family").len(), 4, "{with:#?}");
    assert_eq!(all(&with, "signature"), all(&without, "signature"));
}

/// A tenth of the corpus: see tests/groups/measure.py, which says what must hold.
#[apply(watch_test!)]
fn bugs_are_told_apart() {
    let measure = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/groups/measure.py");
    let arguments = ["--paths", "2", "--check", "--why", "--faultline", FAULTLINE];
    let output = Command::new("python3").arg(measure).args(arguments).output().unwrap();
    let text = String::from_utf8_lossy(&output.stdout).into_owned();
    assert!(output.status.success(), "{text}{}", String::from_utf8_lossy(&output.stderr));
}
