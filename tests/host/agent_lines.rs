//! What `faultline agent` writes where nothing happens, and where the same happens again.

use std::collections::BTreeSet;
use std::fs;
use std::path::Path;
use std::process::Command;
use std::time::Duration;

use macro_rules_attribute::apply;
use serde_json::Value;

use super::agent::{Agent, crash, crashes};
use crate::harness::runs::watch_test;
use crate::harness::{FAULTLINE, Scratch, copy_program, records};

#[apply(watch_test!)]
fn intervals_without_events_are_a_heartbeat() {
    let scratch = Scratch::new();
    let file = scratch.path("records");
    // A signal that nobody else on this host gets meanwhile: SIGRTMAX-5.
    let agent = Agent::start(&["--signal", "59", "--interval", "0.2", "-o", file.to_str().unwrap()]);
    for deaths in 1..=2 {
        assert!(!Command::new("sh").args(["-c", "kill -59 $$"]).status().unwrap().success());
        let delivered =
            "faultline_signals_delivered_total{signal=\"SIGRTMAX-5\",code=\"SI_USER\",disposition=\"fatal\"}";
        agent.wait_for(delivered, f64::from(deaths));
        // Ten intervals.
        std::thread::sleep(Duration::from_secs(2));
    }
    assert!(agent.stop().status.success());
    let records = records(fs::read_to_string(&file).unwrap());
    let told: Vec<&Value> = records.iter().filter(|record| record["type"] != "crash").collect();
    let idle = |record: &Value| record["deliveries"]["matched"] == 0 && record["deliveries"]["filtered"] == 0;
    let (last, before) = told.split_last().unwrap();
    assert!(last["type"] == "summary" && last["final"] == true);
    for record in before {
        assert_eq!(record["type"] == "heartbeat", idle(record), "{record:#}");
    }
    let beats: Vec<&Value> = before.iter().copied().filter(|record| record["type"] == "heartbeat").collect();
    // Before the second death, and at the end.
    assert!(beats.len() >= 2, "{told:#?}");
    // Only the first record of the file names the boot that all are of.
    assert_eq!(told[0]["boot_id"], last["boot_id"]);
    for beat in beats {
        assert_eq!(beat["losses"], serde_json::json!({}), "none is not 0");
        assert_eq!(beat["deliveries"], serde_json::json!({ "matched": 0, "filtered": 0 }));
        if beat != told[0] {
            assert!(beat.get("boot_id").is_none());
            // Of 200, with its newline and a host's name of 32 bytes.
            let bytes = beat.to_string().len() - beat["host"].as_str().unwrap().len();
            assert!(bytes + 1 + 32 <= 200, "{bytes}: {beat}");
        }
    }
    let covered: f64 = told.iter().map(|record| record["interval_seconds"].as_f64().unwrap()).sum();
    assert!(covered >= 4.0, "{covered}: what was idle is covered, too");
}

/// Whatever refers to an earlier line has it in the same file; the signatures that do.
fn references(file: &Path) -> BTreeSet<String> {
    let (mut whole, mut referring) = (BTreeSet::new(), BTreeSet::new());
    for summary in records(fs::read_to_string(file).unwrap()).iter().filter(|record| record["type"] == "summary") {
        // Where the summary came before the names, a group has all that is known of it.
        let (groups, nameless): (Vec<&Value>, Vec<&Value>) =
            summary["groups"].as_array().unwrap().iter().partition(|group| group["signature"].is_string());
        assert!(nameless.iter().all(|group| group["frames_in_file"] == false), "{nameless:#?}");
        let of = |group: &Value| group["signature"].as_str().unwrap().to_owned();
        for group in groups.iter().filter(|group| group["frames_in_file"] == true) {
            assert!(whole.contains(&of(group)) && group["frames"].is_null(), "{group:#}");
            assert!(group.get("exe").is_none() && group.get("build_id").is_none(), "{group:#}");
            referring.insert(of(group));
        }
        whole.extend(groups.iter().filter(|group| group["frames_in_file"] == false).map(|group| of(group)));
    }
    referring
}

/// The same bugs strike again and again, and the file is emptied and moved away meanwhile.
#[apply(watch_test!)]
fn frames_are_written_once_a_file() {
    let scratch = Scratch::new();
    let (file, copy, moved) = (scratch.path("records"), scratch.path("copy"), scratch.path("moved"));
    let agent = Agent::start(&["-n", "agent-once-5f", "--interval", "0.2", "-o", file.to_str().unwrap()]);
    let others = ["null-write", "deep"].map(|program| {
        let name = format!("agent-once-5f{}", &program[..1]);
        copy_program(program, &scratch.path(&name));
        name
    });
    let mut round = 0;
    let mut rounds = |agent: &Agent| {
        for _ in 0..4 {
            round += 1;
            crash(&scratch, "agent-once-5f", 5, 2);
            agent.wait_for(&crashes("agent-once-5f"), f64::from(7 * round));
            for name in &others {
                assert!(!Command::new(scratch.path(name)).status().unwrap().success());
                agent.wait_for(&crashes(name), f64::from(round));
            }
            // What was counted last is told before the next round.
            std::thread::sleep(Duration::from_millis(500));
        }
    };
    rounds(&agent);
    fs::copy(&file, &copy).unwrap();
    fs::File::options().write(true).open(&file).unwrap().set_len(0).unwrap();
    rounds(&agent);
    fs::rename(&file, &moved).unwrap();
    agent.signal("HUP");
    while !file.exists() {
        std::thread::sleep(Duration::from_millis(20));
    }
    rounds(&agent);
    assert!(agent.stop().status.success());
    for file in [&copy, &moved, &file] {
        assert!(references(file).len() >= 3, "{file:?}: {}", fs::read_to_string(file).unwrap());
        let output =
            Command::new(FAULTLINE).args(["report", "--strict", "--format", "json"]).arg(file).output().unwrap();
        assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
        let report: Value = serde_json::from_slice(&output.stdout).unwrap();
        assert_eq!((&report["unresolved"], &report["adds_up"]), (&0.into(), &true.into()));
        let rows = report["groups"].as_array().unwrap();
        let (named, nameless): (Vec<&Value>, Vec<&Value>) = rows.iter().partition(|row| row["exes"][0].is_string());
        assert!(named.len() >= 3 && nameless.iter().all(|row| row["family"].is_null()), "{report:#}");
        for row in named {
            let builds: u64 = row["builds"].as_object().unwrap().values().map(|count| count.as_u64().unwrap()).sum();
            assert!(builds == row["count"].as_u64().unwrap() && row["builds"].get("unknown").is_none(), "{row:#}");
            assert!(row["exes"][0].as_str().unwrap().contains("/agent-once-5f"), "{row:#}");
        }
    }
}
