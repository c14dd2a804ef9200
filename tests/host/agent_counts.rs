//! `faultline agent` counts all crashes, and page faults, and writes records of a few.

use std::io::{BufRead, Read, Write};
use std::net::TcpStream;
use std::process::Command;
use std::time::{Duration, Instant};

use macro_rules_attribute::apply;
use serde_json::Value;

use crate::harness::runs::watch_test;
use crate::harness::{Scratch, Watching, copy_program, records};

#[apply(watch_test!)]
fn it_counts_all_and_writes_a_few() {
    let scratch = Scratch::new();
    let program = scratch.path("agent-few-4a");
    copy_program("many-deaths", &program);
    let (agent, line) = Watching::try_start(Command::new(crate::harness::FAULTLINE).args([
        "agent",
        "-n",
        "agent-few-4a",
        "--interval",
        "0.3",
    ]));
    assert!(line.starts_with("faultline: watching "), "{line}");
    assert!(Command::new(&program).args(["500", "2"]).status().unwrap().success());
    let output = agent.stop_after("crash", 3 + 2, "TERM");
    assert!(output.status.success());
    let records = records(&output.stdout);
    let summaries = records.iter().filter(|record| record["type"] == "summary");
    assert_eq!(summaries.map(|summary| summary["deliveries"]["matched"].as_u64().unwrap()).sum::<u64>(), 502);
    let crashes: Vec<&Value> = records.iter().filter(|record| record["type"] == "crash").collect();
    assert_eq!(crashes.len(), 3 + 2, "the first three of each group");
    assert!(crashes[0]["registers"]["rip"].is_string() && crashes[0]["stack_trace"][0]["build_id"].is_string());
    let last = records.last().unwrap();
    assert_eq!((&last["type"], &last["final"]), (&"summary".into(), &true.into()));
}

#[apply(watch_test!)]
fn it_counts_page_faults_when_asked_to() {
    let scratch = Scratch::new();
    let program = scratch.path("agent-faults-4a");
    copy_program("faults", &program);
    let mut agent = Command::new(crate::harness::FAULTLINE);
    agent.args(["agent", "--pagefaults", "-n", "agent-faults-4a", "--interval", "0.3", "--metrics-listen", "0"]);
    let (mut agent, mut line) = Watching::try_start(&mut agent);
    let mut said = line.clone();
    while !line.contains("metrics on http://") {
        line.clear();
        assert!(agent.stderr.read_line(&mut line).unwrap() > 0, "it ended: {said}");
        said += &line;
    }
    assert!(said.contains("counting page faults through "), "{said}");
    let address = line.split_once("http://").unwrap().1.trim_end().trim_end_matches("/metrics").to_owned();
    // 400 pages, each written to for the first time.
    assert!(Command::new(&program).arg("two_functions").output().unwrap().status.success());
    let metric =
        "faultline_page_faults_total{comm=\"agent-faults-4a\",mode=\"user\",access=\"write\",cause=\"not_present\"} ";
    let deadline = Instant::now() + Duration::from_secs(60);
    let mut before = None;
    let counted = loop {
        let text = get(&address);
        let value = text.lines().find_map(|line| line.strip_prefix(metric)).map(|value| value.parse::<u64>().unwrap());
        // On a slow machine an interval may end while the program runs: several intervals later there is nothing new.
        match value {
            Some(counted) if value == before => break counted,
            _ => before = value,
        }
        assert!(Instant::now() < deadline, "{text}");
        std::thread::sleep(Duration::from_secs(2));
    };
    let output = agent.stop("TERM");
    assert!(output.status.success());
    let records = records(&output.stdout);
    let summaries = records.iter().filter(|record| record["type"] == "pagefault_summary");
    let fresh = summaries.flat_map(|summary| summary["groups"].as_array().unwrap()).filter(|group| {
        group["comm"] == "agent-faults-4a"
            && (&group["mode"], &group["access"], &group["cause"])
                == (&"user".into(), &"write".into(), &"not_present".into())
    });
    let told: u64 = fresh.map(|group| group["count"].as_u64().unwrap()).sum();
    // Loading the program causes some faults, too.
    assert!((400..460).contains(&told) && counted == told, "{told} {counted}");
    assert!(records.iter().any(|record| record["type"] == "pagefault_summary" && record["final"] == true));
}

fn get(address: &str) -> String {
    let mut stream = TcpStream::connect(address).unwrap();
    write!(stream, "GET /metrics HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n").unwrap();
    let mut answer = String::new();
    stream.read_to_string(&mut answer).unwrap();
    answer
}
