//! faultline's own children: what it does to them is not what it was asked to watch, and the one that parses files ends alone if memory is
//! short.

use std::fs;
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use nix::sys::signal::Signal;
use serde_json::Value;

use crate::attacks::{endless, units};
use crate::bounded::{Victim, as_nobody};
use crate::harness::{FAULTLINE, Scratch, die, records};
use crate::naming::{Ambush, die_as};
use crate::small_cgroup::SmallCgroup;

/// The namer's own name, so that its end would be counted as well.
const NAMER: &str = "fl-namer";

/// How long the namer may take for a record on a host that is busy.
const RECORDED: Duration = Duration::from_secs(60);

/// A child that takes too long is ended by SIGKILL, and SIGKILL is watched. Other faultlines end children of theirs meanwhile, which is seen.
#[test]
fn the_end_of_its_own_child_has_no_record() {
    let scratch = Scratch::new();
    let (program, output) = (scratch.path(NAMER), scratch.path("records"));
    endless().write(&program);
    let arguments = ["crash", "--signal", "SEGV,KILL", "-n", NAMER, "-t", "--format", "json"];
    let into = Stdio::from(fs::File::create(&output).unwrap());
    let victim = Victim::watching(Command::new(FAULTLINE).args(arguments).stdout(into));
    let pid = victim.child.id();
    die(&program);
    let written = || {
        let text = fs::read_to_string(&output).unwrap();
        records(&text[..text.rfind('\n').map_or(0, |end| end + 1)])
    };
    let begun = Instant::now();
    let is_ours = |record: &Value| record["exe"] == *program.to_str().unwrap();
    let has_timed_out = |record: &Value| record["symbols_failed"][0]["reason"] == "timed_out";
    while !written().iter().any(|record| is_ours(record) && has_timed_out(record)) {
        assert!(begun.elapsed() < RECORDED, "no record: {:#?}", written());
        std::thread::sleep(Duration::from_millis(20));
    }
    let ended = victim.end(Signal::SIGTERM, Duration::from_secs(2));
    assert!(ended.status.success(), "{}", ended.said);
    let own: Vec<Value> = written().into_iter().filter(|record| record["sender"]["pid"] == pid).collect();
    assert!(own.is_empty(), "{own:#?}");
}

/// As in the unit, with less memory: the kernel ends the namer, and nothing else.
#[test]
fn the_namer_ends_alone_where_memory_is_short() {
    let cgroup = SmallCgroup::new("namer", "160M");
    let mut ambush = Ambush::by(&mut cgroup.command(FAULTLINE), "own-memo");
    assert_eq!(cgroup.killed(), 0);
    let program = ambush.place();
    units().write(&program);
    die_as(ambush.user(), &program);
    ambush.agent.add_crashes(1);
    let record = ambush.record_of("a lack of memory", &program, 1);
    assert_eq!(record["symbols_failed"][0]["reason"], "died", "{record:#}");
    assert_eq!(cgroup.killed(), 1);
    ambush.is_well("a lack of memory");
    ambush.agent.end_under(|_, _| ());
}

/// Other services run as nobody, too. None of them may stop or end the one that parses files, without which nobody has names.
#[test]
fn another_service_cannot_end_the_namer() {
    let mut ambush = Ambush::new("own-user");
    ambush.is_well("nothing");
    let namer = procfs::process::all_processes().unwrap().flatten().filter_map(|process| process.stat().ok());
    let namer = namer.filter(|stat| stat.comm == NAMER && stat.ppid.cast_unsigned() == ambush.agent.pid());
    let namer: Vec<i32> = namer.map(|stat| stat.pid).collect();
    let [namer] = namer[..] else { panic!("{namer:?}") };
    as_nobody(&format!("! kill -STOP {namer} && ! kill -KILL {namer}"));
    ambush.is_well("another service");
    ambush.agent.end_under(|_, _| ());
}
