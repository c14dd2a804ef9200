//! faultline's own children: what it does to them is not what it was asked to watch, and the one that parses files ends alone if memory is
//! short.

use std::time::{Duration, Instant};

use crate::attacks::{endless, units};
use crate::harness::{FAULTLINE, Scratch, die};
use crate::naming::{Ambush, NAME, die_as};
use crate::siege::{Agent, get};
use crate::small_cgroup::SmallCgroup;

/// The namer's own name, so that its end would be counted as well.
const NAMER: &str = "fl-namer";

/// How long the namer may take for a record on a host that is busy.
const RECORDED: Duration = Duration::from_secs(60);

/// A child that takes too long is ended by SIGKILL, and SIGKILL is watched.
#[test]
fn the_end_of_its_own_child_is_not_counted() {
    let scratch = Scratch::new();
    let program = scratch.path(NAMER);
    endless().write(&program);
    let mut agent = Agent::start(NAMER, &["--signal", "SEGV,KILL", "--watch-signals"], "http");
    // They have names, too, for which the same child is needed.
    agent.pace = Duration::from_millis(500);
    die(&program);
    agent.add_crashes(1);
    let begun = Instant::now();
    agent.hold("a child that is ended", &get, &mut |agent| {
        let record = agent.records_with(program.to_str().unwrap()).into_iter().next();
        assert!(begun.elapsed() < RECORDED, "no record");
        record.is_some_and(|record| {
            assert_eq!(record["symbols_failed"][0]["reason"], "timed_out", "{record:#}");
            true
        })
    });
    // Each death that a summary has is one of the programs'.
    agent.wait_for_counts();
    let metrics = get(&agent.address, "/metrics");
    let kills =
        metrics.lines().filter(|line| line.starts_with("faultline_signals_sent_total{") && line.contains("SIGKILL"));
    let own: Vec<&str> = kills.filter(|line| line.contains("\"fl-namer\"") || line.contains("\"fl-opener\"")).collect();
    assert!(own.is_empty(), "{own:?}");
    agent.end_under(|_, _| ());
}

/// As in the unit, with less memory: the kernel ends the namer, and nothing else.
#[test]
fn the_namer_ends_alone_where_memory_is_short() {
    let cgroup = SmallCgroup::new("namer", "160M");
    let mut ambush = Ambush::by(&mut cgroup.command(FAULTLINE));
    assert_eq!(cgroup.killed(), 0);
    let program = ambush.folder().join(NAME);
    units().write(&program);
    die_as(ambush.user(), &program);
    ambush.agent.add_crashes(1);
    let record = ambush.record_of("a lack of memory", &program, 1);
    assert_eq!(record["symbols_failed"][0]["reason"], "died", "{record:#}");
    assert_eq!(cgroup.killed(), 1);
    ambush.is_well("a lack of memory");
    ambush.agent.end_under(|_, _| ());
}
