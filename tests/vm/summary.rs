//! Counting by group: exact in a storm, with every loss by its reason. `tests/host` has what doesn't depend on the kernel.

use std::fs;
use std::process::Command;

use macro_rules_attribute::apply;

use crate::attach::{has_kprobes, kernel};
use crate::harness::runs::{Watch, watch_test};
use crate::harness::{FAULTLINE, Scratch, Watching, copy_program, is_guest, programs, records};
use crate::storm::{add_up, counts, samples_lost, storm, storm_each, sum};

/// A guest without KVM is slow: there the counts are a twentieth, unless FAULTLINE_FULL is set, as in `FAULTLINE_FULL=1 ci/vm 5.10 7.2`.
fn scale() -> u64 {
    if is_guest() && std::env::var_os("FAULTLINE_FULL").is_none() { 20 } else { 1 }
}

#[apply(watch_test!)]
fn a_hundred_thousand_of_one_and_ten_thousand_others() {
    let (same, others) = (100_000 / scale(), 10_000 / scale());
    let flags = ["--samples-per-group", "1", "--max-groups", "4000"];
    let (summary, records) = storm(&flags, "many-deaths", &[&same.to_string(), &others.to_string()]);
    add_up(&summary);
    assert_eq!(summary["deliveries"]["matched"], same + others, "{summary:#}");
    let counts = counts(&summary);
    assert_eq!(counts[0], same);
    assert!(counts[1..].iter().all(|&count| count == 1), "each of the others once");
    // An executable has an eighth of the groups at once. Those that are idle leave, so that others may have had one, too.
    let groups = counts.len() as u64;
    assert!(groups > others.min(499) && groups <= 1 + others, "{groups}");
    assert_eq!(summary["losses"]["group_table_full"], others + 1 - groups);
    // One sample beyond the budget is a benign race between processors; a missing one is not.
    let samples = &summary["sample_losses"];
    let not_sent = samples["sample_budget"].as_u64().unwrap() + samples["sample_ring_full"].as_u64().unwrap();
    assert_eq!(records.len() as u64 + not_sent, same + others, "each death is a record or a loss with a name");
    assert_eq!(samples["watch_table_full"], 0);
    let cpus = sum(&summary["groups"][0]["cpus"]);
    assert_eq!(cpus, same, "by processor");
    assert!(summary["groups"][0]["signature"].is_string());
}

#[apply(watch_test!)]
fn handled_faults_are_counted_and_not_recorded() {
    let count = 200_000 / scale();
    let (summary, records) = storm(&[], "many-faults", &[&count.to_string()]);
    add_up(&summary);
    assert!(records.is_empty(), "{records:#?}");
    let groups = summary["groups"].as_array().unwrap();
    assert_eq!(groups.len(), 1, "{summary:#}");
    assert_eq!((&groups[0]["count"], &groups[0]["disposition"]), (&count.into(), &"handled".into()));
    assert!(groups[0]["frames"][0]["symbol"].as_str().unwrap().starts_with("fault+"), "named by one sample");
    // Missed forks and exits are those of any process (v6.13 and later): none of them is one of these faults.
    let missed = samples_lost(&summary, "exits_missed") + samples_lost(&summary, "forks_missed");
    assert_eq!(sum(&summary["sample_losses"]) - missed, 0, "none was due");
    assert!(groups[0]["last_seen"].as_str() >= groups[0]["first_seen"].as_str());
}

/// What a thread's handled fault becomes is known at its end: no other thread's faults may come between.
#[apply(watch_test!)]
fn caught_deaths_are_found_beside_a_thousand_threads_that_handle_faults() {
    let (threads, deaths) = (1000 / scale().min(4), 20);
    let (summary, records) = storm(&[], "caught-beside", &[&threads.to_string(), &deaths.to_string()]);
    add_up(&summary);
    let counted = |disposition: &str| -> u64 {
        let groups = summary["groups"].as_array().unwrap().iter();
        groups.filter(|group| group["disposition"] == disposition).map(|group| group["count"].as_u64().unwrap()).sum()
    };
    let (found, handled) = (counted("caught"), counted("handled"));
    // Before 6.2 threads have slots, which two may share: that is counted.
    let forgotten = samples_lost(&summary, "fault_table_full");
    if forgotten == 0 {
        assert_eq!(found, deaths, "{summary:#}");
    } else {
        assert!(matches!(kernel().as_deref(), Some("5.10" | "6.1")), "{summary:#}");
        assert!(found < deaths && found + forgotten >= deaths, "{summary:#}");
    }
    assert_eq!(handled, threads * deaths + deaths, "{summary:#}");
    let recorded = records.iter().filter(|record| record["disposition"] == "caught").count() as u64;
    assert_eq!(recorded + samples_lost(&summary, "sample_budget"), found);
}

/// What is handled may take half of the ring: the records of deaths come through, however many faults a neighbour handles meanwhile.
#[apply(watch_test!)]
fn a_flood_of_handled_faults_displaces_no_death() {
    let deaths = 150 / scale().min(5);
    // As many as a busy reader can read: more deaths at once than the ring holds are another matter.
    let script = "FOLDER/many-faults 1000000000000 & flood=$!; \
                  for death in $(seq DEATHS); do FOLDER/null-write; sleep 0.02; done; kill $flood";
    let script = script.replace("FOLDER", programs().to_str().unwrap()).replace("DEATHS", &deaths.to_string());
    let scratch = Scratch::new();
    let file = scratch.path("records");
    let mut faultline = Command::new(FAULTLINE);
    faultline.args(["crash", "--handled", "--summary", "3600", "--format", "json", "--output"]).arg(&file);
    let output = faultline.args(["--", "sh", "-c", &script]).watch();
    let records = records(fs::read(&file).unwrap());
    let summary = records.last().unwrap();
    add_up(summary);
    let flood = summary["deliveries"]["matched"].as_u64().unwrap() - deaths;
    let found = records.iter().filter(|record| record["disposition"] == "fatal").count() as u64;
    let stderr = String::from_utf8_lossy(&output.stderr);
    assert!(samples_lost(summary, "sample_ring_full") > 0, "{flood} handled faults were no flood: {summary:#}");
    assert_eq!(found, deaths, "of {flood} handled faults {summary:#}\n{stderr}");
}

/// A real-time kernel may skip our program for a process that dies while another is dying on that processor.
#[apply(watch_test!)]
fn sixteen_that_die_at_once_are_all_counted() {
    let script = "for each in $(seq 16); do FOLDER/many-deaths 25 0 & done; wait"
        .replace("FOLDER", programs().to_str().unwrap());
    let (scratch, deaths) = (Scratch::new(), 16 * 25);
    let file = scratch.path("records");
    let mut faultline = Command::new(FAULTLINE);
    faultline.args(["crash", "--summary", "3600", "--format", "json", "--output"]).arg(&file);
    let output = faultline.args(["--", "sh", "-c", &script]).watch();
    assert!(output.status.success(), "{output:?}");
    let records = records(fs::read(&file).unwrap());
    let summary = records.last().unwrap();
    add_up(summary);
    assert_eq!(counts(summary), [deaths], "{summary:#}");
    let recorded = records.len() as u64 - 1 + samples_lost(summary, "sample_ring_full");
    assert_eq!(recorded, deaths);
}

#[apply(watch_test!)]
fn a_full_group_table_counts_together() {
    let ways: &[&str] = if has_kprobes() { &["auto", "kprobe"] } else { &["auto"] };
    for way in ways {
        let flags = |groups| ["--attach", way, "--max-groups", groups, "--samples-per-group", "1"];
        let (summary, _) = storm(&flags("4"), "many-deaths", &["20", "10"]);
        add_up(&summary);
        assert_eq!(counts(&summary), [20, 1, 1, 1]);
        assert_eq!(summary["losses"]["group_table_full"], 7);
        // One executable has an eighth at once, but 64 at least. Idle ones leave, so that others come.
        let (summary, _) = storm(&flags("512"), "many-deaths", &["0", "200"]);
        add_up(&summary);
        assert!(summary["deliveries"]["matched"] == 200 && counts(&summary).len() >= 64, "{summary:#}");
    }
}

/// User space waits for the programs that may have an id of a group by a write that kernels check in different ways.
#[apply(watch_test!)]
fn idle_groups_leave_where_somebody_has_much_of_the_table() {
    let script = format!("{} 0 60; sleep 4", programs().join("many-deaths").display());
    let flags = ["--max-groups", "512", "--samples-per-group", "1"];
    let (summary, _) = storm_each(1, &flags, "/bin/sh", &["-c", &script]);
    add_up(&summary);
    let groups = summary["groups"].as_array().unwrap();
    // An executable may keep 32 of 512. Those that left are one row, or a few: with a name, without one where it was not there in time.
    assert!((33..=36).contains(&groups.len()), "{} {summary:#}", groups.len());
    assert_eq!(groups.iter().map(|group| group["total"].as_u64().unwrap()).sum::<u64>(), 60, "{summary:#}");
}

#[apply(watch_test!)]
fn a_full_stack_table_is_counted() {
    let (summary, _) = storm(&["--max-stacks", "1"], "many-deaths", &["1", "10"]);
    add_up(&summary);
    assert_eq!(summary["sample_losses"]["stack_table_full"], 10, "one stack found its place");
    assert_eq!(summary["groups"].as_array().unwrap().len(), 11);
}

/// A stopped reader takes nothing from the ring: a death that finds no room is counted as a lost sample, and in its group.
#[apply(watch_test!)]
fn a_full_ring_is_counted() {
    let scratch = Scratch::new();
    let program = scratch.path("ring-full-9d");
    copy_program("many-deaths", &program);
    let file = scratch.path("records");
    let flags = ["-n", "ring-full-9d", "--summary", "3600", "--format", "json", "--output", file.to_str().unwrap()];
    let watching = Watching::start(&flags);
    let signal = |name: &str| {
        let pid = watching.child.id().to_string();
        assert!(Command::new("kill").args(["-s", name, &pid]).status().unwrap().success());
    };
    signal("STOP");
    assert!(Command::new(&program).args(["2000", "0"]).status().unwrap().success());
    signal("CONT");
    // A file, as all of its records are to be there: a pipe's reader has half a second after a signal.
    assert!(watching.stop("TERM").status.success());
    let records = records(fs::read(&file).unwrap());
    let (summary, crashes) = records.split_last().unwrap();
    add_up(summary);
    assert_eq!(counts(summary), [2000], "counting does not depend on the reader");
    let lost = summary["sample_losses"]["sample_ring_full"].as_u64().unwrap();
    assert!(lost > 1000, "the ring holds about 150 of them");
    assert_eq!(crashes.len() as u64 + lost, 2000);
}
