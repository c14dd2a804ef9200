//! Stacks that lead through more executable mappings than a sample has room for.

use std::fs;

use macro_rules_attribute::apply;

use crate::compile::compile;
use crate::harness::runs::watch_test;
use crate::harness::{Scratch, run};

/// So many libraries are loaded, and so many of them are on the stack.
const LOADED: usize = 300;
const ON_STACK: usize = 100;

#[apply(watch_test!)]
fn a_stack_through_a_hundred_libraries_is_whole() {
    let scratch = Scratch::new();
    let (program, library) = (scratch.path("chain-5e"), scratch.path("link-000.so"));
    compile("chain.c", &program, &["-O2", "-fomit-frame-pointer"]);
    compile("chain.c", &library, &["-O2", "-fomit-frame-pointer", "-shared", "-fPIC", "-DLIBRARY"]);
    let name = |number: usize| format!("link-{number:03}.so");
    for number in 1..LOADED {
        fs::copy(&library, scratch.path(&name(number))).unwrap();
    }
    let folder = program.parent().unwrap().display();
    let script = format!("{} {folder} {LOADED} {ON_STACK}\nexit 0", program.display());
    let run = run(&scratch.script("all", &script), &["--max-stack-depth", "127", "-n", "chain-5e"]);
    let [record] = &run.records[..] else { panic!("{}", run.stderr) };
    let frames = record["stack_trace"].as_array().unwrap();
    // Each has the same build id and names: its path says which one it is.
    let links = frames.iter().filter_map(|frame| {
        let is_link = frame["symbol"].as_str()?.starts_with("chain_link+") && frame["build_id"].is_string();
        frame["module"].as_str()?.rsplit('/').next().filter(|_| is_link)
    });
    let expected: Vec<String> = (LOADED - ON_STACK..LOADED).map(name).collect();
    assert_eq!(links.collect::<Vec<_>>(), expected, "{record:#}");
    let outer: Vec<&str> = frames[ON_STACK..].iter().filter_map(|frame| frame["symbol"].as_str()).collect();
    assert!(outer[0].starts_with("main+"), "{outer:?}");
    assert_eq!((&record["stack_complete"], &record["symbols_failed"]), (&true.into(), &serde_json::json!([])));
}
