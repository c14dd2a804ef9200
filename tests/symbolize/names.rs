//! The names that a server's files give.

use std::fs;

use serde_json::Value;

use crate::lab::{Lab, Server, is_same, names};

#[test]
fn every_place_has_the_names_and_lines_of_addr2line() {
    let lab = Lab::new("every-place");
    let server = Server::of(&lab);
    let addresses = lab.addresses();
    let records: Vec<Value> = addresses.iter().map(|&address| lab.record(&[address])).collect();
    let (named, said) = lab.symbolize(&records, &[("DEBUGINFOD_URLS", &server.url)]);
    assert_eq!(named.len(), records.len());
    for (record, &address) in named.iter().zip(&addresses) {
        assert_eq!(names(record), [lab.oracle(address)], "{address:#x}: {said}");
        assert!(record["instruction_symbol"].as_str().unwrap().contains("+0x"), "{record}");
    }
    let all = named.iter().flat_map(names).flatten();
    assert!(all.into_iter().any(|(name, _)| name == "innermost"), "some are inlined");
    assert_eq!(lab.fetched(), ["debuginfo", "executable"]);
    let cached = lab.cache().join(&lab.build_id);
    assert!(is_same(&cached.join("debuginfo"), &lab.debug) && is_same(&cached.join("executable"), &lab.program));
}

#[test]
fn a_caller_has_the_line_of_its_call() {
    let lab = Lab::new("caller");
    let server = Server::of(&lab);
    let addresses = lab.addresses();
    let stack = [addresses[5], addresses[addresses.len() / 2], addresses[addresses.len() - 3]];
    let (named, said) = lab.symbolize(&[lab.record(&stack)], &[("DEBUGINFOD_URLS", &server.url)]);
    let wanted = [lab.oracle(stack[0]), lab.oracle(stack[1] - 1), lab.oracle(stack[2] - 1)];
    assert_eq!(names(&named[0]), wanted, "{said}");
    assert!(said.contains("3 frames have new names or lines, 0 have no name yet"), "{said}");
}

#[test]
fn what_was_fetched_serves_without_a_server() {
    let lab = Lab::new("cached");
    let server = Server::of(&lab);
    let address = lab.addresses()[3];
    let variables = [("DEBUGINFOD_URLS", server.url.as_str())];
    let (first, _) = lab.symbolize(&[lab.record(&[address])], &variables);
    let url = server.url.clone();
    drop(server);
    let (again, _) = lab.symbolize(&[lab.record(&[address])], &[("DEBUGINFOD_URLS", &url)]);
    assert_eq!((names(&again[0]), &again), (vec![lab.oracle(address)], &first));
}

#[test]
fn without_a_server_nothing_is_asked_and_local_files_serve() {
    let lab = Lab::new("local");
    let address = lab.addresses()[3];
    let record = lab.record(&[address]);
    let (named, said) = lab.symbolize(std::slice::from_ref(&record), &[]);
    assert_eq!(named, std::slice::from_ref(&record), "nothing is known");
    assert!(said.contains("DEBUGINFOD_URLS names no server") && !lab.cache().exists(), "{said}");
    // The program as it was built, at the path of the record.
    let mut here = record;
    here["stack_trace"][0]["module"] = lab.program.to_str().unwrap().into();
    let folder = lab.folder.join("debug/.build-id").join(&lab.build_id[..2]);
    fs::create_dir_all(&folder).unwrap();
    fs::copy(&lab.debug, folder.join(format!("{}.debug", &lab.build_id[2..]))).unwrap();
    let input = lab.folder.join("here.jsonl");
    fs::write(&input, here.to_string()).unwrap();
    let mut command = std::process::Command::new(env!("CARGO_BIN_EXE_faultline"));
    command.arg("symbolize").arg(&input).arg("--debug-dir").arg(lab.folder.join("debug"));
    let text = crate::lab::run(command.env_clear());
    assert_eq!(names(&serde_json::from_str(&text).unwrap()), [lab.oracle(address)]);
    // Another file at that path has no part in it.
    let other = Lab::new("local-other");
    here["stack_trace"][0]["module"] = other.program.to_str().unwrap().into();
    let (named, _) = lab.symbolize(std::slice::from_ref(&here), &[]);
    assert_eq!(named, [here]);
}

#[test]
fn what_the_compiler_left_beside_the_program_says_what_is_inlined() {
    let lab = Lab::new("split").split();
    let record = |&address: &u64| {
        let mut record = lab.record(&[address]);
        record["stack_trace"][0]["module"] = lab.program.to_str().unwrap().into();
        record
    };
    let addresses = lab.addresses();
    let records: Vec<Value> = addresses.iter().map(record).collect();
    let (named, said) = lab.symbolize(&records, &[]);
    for (record, &address) in named.iter().zip(&addresses) {
        assert_eq!(names(record), [lab.oracle(address)], "{address:#x}: {said}");
    }
    assert!(named.iter().flat_map(names).flatten().any(|(name, _)| name == "innermost"), "some are inlined");
}

#[test]
fn the_rows_of_a_report_have_names_too() {
    let lab = Lab::new("report");
    let server = Server::of(&lab);
    let address = lab.addresses()[3];
    let data = fs::read_to_string("tests/data/report/web.jsonl").unwrap();
    let mut summary: Value = data
        .lines()
        .filter_map(|line| serde_json::from_str::<Value>(line).ok())
        .find(|record| record["type"] == "summary")
        .unwrap();
    for group in summary["groups"].as_array_mut().unwrap() {
        group["frames"] = lab.record(&[address])["stack_trace"].clone();
    }
    let input = lab.folder.join("summary.jsonl");
    fs::write(&input, summary.to_string()).unwrap();
    let report = |url: Option<&str>| -> Value {
        let mut command = std::process::Command::new(env!("CARGO_BIN_EXE_faultline"));
        command.args(["report", "--format", "json"]).arg(&input).env_clear();
        command.env("DEBUGINFOD_CACHE_PATH", lab.cache()).envs(url.map(|url| ("DEBUGINFOD_URLS", url)));
        serde_json::from_str(&crate::lab::run(&mut command)).unwrap()
    };
    let stack = |report: &Value| names(&serde_json::json!({ "stack_trace": report["groups"][0]["frames"] }));
    assert_eq!(stack(&report(None)), [vec![]]);
    assert_eq!(stack(&report(Some(&server.url))), [lab.oracle(address)]);
}

#[test]
fn what_is_no_record_is_said_and_left_out() {
    let lab = Lab::new("no-record");
    let input = lab.folder.join("mixed.jsonl");
    fs::write(&input, "{\"type\":\"exec\",\"pid\":1}\nnonsense\n\n{\"type\":\"signal\"}\n").unwrap();
    let mut command = std::process::Command::new(env!("CARGO_BIN_EXE_faultline"));
    let output = command.arg("symbolize").arg("--strict").arg(&input).env_clear().output().unwrap();
    assert_eq!(String::from_utf8(output.stdout).unwrap(), "{\"type\":\"exec\",\"pid\":1}\n{\"type\":\"signal\"}\n");
    let said = String::from_utf8(output.stderr).unwrap();
    assert!(said.contains("line 2: skipped") && output.status.code() == Some(1), "{said}");
}
