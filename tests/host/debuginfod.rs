//! `crash --debuginfod`: the names that a server's debug files give, and crashes beside servers that don't answer.

use std::fs;
use std::net::TcpListener;
use std::process::Command;

use macro_rules_attribute::apply;
use serde_json::Value;

use crate::harness::runs::watch_test;
use crate::harness::{FAULTLINE, Scratch, hex, records, run_lines};
use crate::lab::{Lab, Server, free_port, names};
use crate::reasons::own_failures;

/// The records of the lab's program, which dies so often.
fn die(lab: &Lab, flags: &[&str], url: &str, deaths: usize) -> Vec<Value> {
    let scratch = Scratch::new();
    let file = scratch.path("records");
    let mut command = Command::new(FAULTLINE);
    command.args(["crash", "-t", "--format", "json", "-o"]).arg(&file).args(flags);
    command.env("DEBUGINFOD_URLS", url).env("DEBUGINFOD_CACHE_PATH", lab.cache()).env("DEBUGINFOD_TIMEOUT", "2");
    let line = format!("{} x", lab.program.display());
    let said = run_lines(&mut command, &scratch, &vec![line; deaths]);
    let records = records(fs::read_to_string(file).unwrap());
    assert_eq!(records.len(), deaths, "{said}");
    records
}

#[apply(watch_test!)]
fn names_come_from_the_server_with_the_first_record() {
    let lab = Lab::new("crash");
    let server = Server::of(&lab);
    let without = die(&lab, &[], &server.url, 1);
    assert!(without[0]["stack_trace"][0]["symbol"].is_null() && !lab.cache().exists(), "nothing is asked unasked");
    let record = &die(&lab, &["--debuginfod"], &server.url, 1)[0];
    let frames = record["stack_trace"].as_array().unwrap();
    let named = names(record);
    let physical: Vec<&Value> = frames.iter().filter(|frame| frame["inlined"] == false).collect();
    for (index, name) in ["hidden", "shown", "main"].into_iter().enumerate() {
        let address = lab.address(hex(&physical[index]["offset"])) - u64::from(index > 0);
        assert_eq!(named[index], lab.oracle(address), "{record:#}");
        assert_eq!(named[index].last().unwrap().0, name);
    }
    assert_eq!(record["signature"], without[0]["signature"], "it is the same on a host without the debug file");
}

#[apply(watch_test!)]
fn no_server_stalls_a_record() {
    let silent = TcpListener::bind("127.0.0.1:0").unwrap();
    let silent_url = format!("http://{}", silent.local_addr().unwrap());
    for (name, url) in [("crash-silent", silent_url), ("crash-dead", format!("http://127.0.0.1:{}", free_port()))] {
        let lab = Lab::new(name);
        for record in die(&lab, &["--debuginfod"], &url, 3) {
            assert!(record["stack_trace"][0]["symbol"].is_null(), "{record:#}");
            assert_eq!(own_failures(&record), Vec::<&str>::new(), "{record:#}");
        }
    }
}

#[apply(watch_test!)]
fn a_server_is_needed() {
    let output =
        Command::new(FAULTLINE).args(["crash", "--debuginfod", "-d", "0.1"]).env_remove("DEBUGINFOD_URLS").output();
    let output = output.unwrap();
    let said = String::from_utf8(output.stderr).unwrap();
    assert!(said.contains("--debuginfod needs the URL of a server in DEBUGINFOD_URLS"), "{said}");
    assert_eq!(output.status.code(), Some(2), "{said}");
}
