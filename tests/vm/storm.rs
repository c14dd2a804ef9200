//! Many deaths under one faultline, and whether its summary adds up.

use std::fs;
use std::process::Command;

use serde_json::Value;

use crate::harness::runs::Watch;
use crate::harness::{FAULTLINE, Scratch, programs, records};

/// The records of `faultline crash --format json FLAGS -- PROGRAM ARGUMENTS`: the last summary, and all others.
pub(crate) fn storm(flags: &[&str], program: &str, arguments: &[&str]) -> (Value, Vec<Value>) {
    storm_each(3600, flags, program, arguments)
}

/// The same with a summary every so many seconds.
pub(crate) fn storm_each(seconds: u64, flags: &[&str], program: &str, arguments: &[&str]) -> (Value, Vec<Value>) {
    let scratch = Scratch::new();
    let file = scratch.path("records");
    let output = Command::new(FAULTLINE)
        .args(["crash", "--summary", &seconds.to_string(), "--format", "json", "--output"])
        .arg(&file)
        .args(flags)
        .arg("--")
        .arg(programs().join(program))
        .args(arguments)
        .watch();
    let text = String::from_utf8_lossy(&output.stderr).into_owned();
    assert_eq!(output.status.code(), Some(0), "{text}");
    let mut records = records(fs::read(&file).unwrap());
    let last = records.pop().unwrap();
    assert_eq!((&last["type"], &last["final"]), (&"summary".into(), &true.into()));
    (last, records)
}

pub(crate) fn sum(object: &Value) -> u64 {
    object.as_object().unwrap().values().map(|count| count.as_u64().unwrap()).sum()
}

pub(crate) fn counts(summary: &Value) -> Vec<u64> {
    summary["groups"].as_array().unwrap().iter().map(|group| group["count"].as_u64().unwrap()).collect()
}

pub(crate) fn samples_lost(summary: &Value, reason: &str) -> u64 {
    summary["sample_losses"][reason].as_u64().unwrap()
}

/// matched = the sum of all counts + the sum of all losses.
pub(crate) fn add_up(summary: &Value) {
    let counted: u64 = counts(summary).iter().sum();
    assert_eq!(summary["deliveries"]["matched"], counted + sum(&summary["losses"]), "{summary:#}");
}
