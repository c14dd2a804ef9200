//! What `faultline agent` writes where nothing happens.

use std::fs;
use std::time::Duration;

use macro_rules_attribute::apply;
use serde_json::Value;

use super::agent::{Agent, crash, crashes};
use crate::harness::runs::watch_test;
use crate::harness::{Scratch, records};

#[apply(watch_test!)]
fn intervals_without_events_are_a_heartbeat() {
    let scratch = Scratch::new();
    let file = scratch.path("records");
    let agent = Agent::start(&["-n", "agent-idle-3d", "--interval", "0.2", "-o", file.to_str().unwrap()]);
    for deaths in [5, 10] {
        crash(&scratch, "agent-idle-3d", 5, 0);
        agent.wait_for(&crashes("agent-idle-3d"), f64::from(deaths));
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
    let beats: Vec<&&Value> = before.iter().filter(|record| record["type"] == "heartbeat").collect();
    // Other processes of the host may be filtered out meanwhile: then there are more.
    assert!(beats.len() >= 2, "{told:#?}");
    for beat in beats {
        assert_eq!(beat["losses"], serde_json::json!({ "group_table_full": 0 }));
        assert_eq!(beat["boot_id"], last["boot_id"]);
    }
    let covered: f64 = told.iter().map(|record| record["interval_seconds"].as_f64().unwrap()).sum();
    assert!(covered >= 4.0, "{covered}: what was idle is covered, too");
}
