//! Neighbours that crash on purpose with files that take long to name: it costs them the names of their own records, and nobody else's.

use std::fs;
use std::os::unix::process::ExitStatusExt;
use std::path::{Path, PathBuf};
use std::process::Command;

use serde_json::Value;

use crate::attacks::costly;
use crate::harness::copy_program;
use crate::naming::{Ambush, die_as};
use crate::reasons::own_failures;
use crate::stalled::{Mounted, Stall, die_in, waiting_program};

/// Users that are none of the machine's.
const NEIGHBOUR: u32 = 54_321;
const INNOCENT: u32 = 54_322;

/// How many crashes the neighbour causes.
const FLOOD: usize = 8;

/// The neighbour's records that others wait for: the one that is being named when they die, and one whose turn came before theirs.
const WAITED_FOR: usize = 2;

/// A cgroup of our own. Its processes have ended when it is dropped.
struct Cgroup(PathBuf);

impl Cgroup {
    fn new(name: &str) -> Self {
        let mounts = fs::read_to_string("/proc/mounts").unwrap();
        let mut mounts = mounts.lines().map(|line| line.split(' ').collect::<Vec<_>>());
        let root = mounts.find(|mount| mount[2] == "cgroup2").expect("these tests need cgroup v2");
        let folder = Path::new(root[1]).join(format!("faultline-{name}-{}", std::process::id()));
        fs::create_dir(&folder)
            .unwrap_or_else(|error| panic!("{error}: these tests make cgroups: {}", folder.display()));
        Self(folder)
    }
}

impl Drop for Cgroup {
    fn drop(&mut self) {
        let _ = fs::remove_dir(&self.0);
    }
}

/// How a program is started.
#[derive(Clone, Copy)]
enum As<'a> {
    User(u32),
    /// As root.
    In(&'a Cgroup),
}

impl As<'_> {
    /// Runs a program that does not end well.
    fn die(self, program: &Path) {
        match self {
            Self::User(user) => die_as(user, program),
            Self::In(Cgroup(folder)) => {
                let mut shell = Command::new("sh");
                shell.args(["-c", "echo $$ >\"$0\" && exec \"$1\""]).arg(folder.join("cgroup.procs")).arg(program);
                let status = shell.status().unwrap();
                assert!(status.signal().is_some(), "{status}");
            }
        }
    }
}

/// The neighbour's programs, each a file of its own.
fn costly_programs(ambush: &mut Ambush) -> Vec<PathBuf> {
    let write = |program: PathBuf| {
        costly().write(&program);
        program
    };
    (0..FLOOD).map(|_| write(ambush.place())).collect()
}

/// The records of `neighbours`, and how many of them stand before the one of `program`. `None` means that there is none yet.
fn records_before(ambush: &Ambush, neighbours: &[PathBuf], program: &Path) -> (usize, Option<usize>) {
    let records = ambush.agent.records_with(&ambush.name);
    let module = |at: usize| records[at]["stack_trace"][0]["module"].as_str().map(Path::new);
    let is_neighbours = |&at: &usize| neighbours.iter().any(|neighbour| module(at) == Some(neighbour));
    let own = (0..records.len()).find(|&at| module(at) == Some(program));
    let before = own.map(|own| (0..own).filter(is_neighbours).count());
    ((0..records.len()).filter(is_neighbours).count(), before)
}

/// A program that has done no harm dies while the neighbour's records wait, and has all its names in a moment.
fn dies_in_between(ambush: &mut Ambush, how: As<'_>, neighbours: &[PathBuf]) {
    let program = ambush.place();
    copy_program("null-write", &program);
    let (done, _) = records_before(ambush, neighbours, &program);
    how.die(&program);
    ambush.agent.add_crashes(1);
    let record = ambush.record_of("a neighbour", &program, 1);
    assert_eq!(own_failures(&record), Vec::<&str>::new(), "{record:#}");
    let symbol = record["stack_trace"][0]["symbol"].as_str().unwrap_or_default();
    assert!(symbol.starts_with("write_field+"), "{record:#}");
    let (_, before) = records_before(ambush, neighbours, &program);
    let waited_for = before.unwrap() - done;
    assert!(waited_for <= WAITED_FOR, "it waited for {waited_for} records of another");
}

/// All of the neighbour's records are there, in the order of its crashes. None of them has names.
fn is_recorded_in_order(ambush: &mut Ambush, neighbours: &[PathBuf]) {
    let [.., last] = neighbours else { panic!("nobody") };
    ambush.record_of("the neighbour", last, 1);
    let records = ambush.agent.records_with(&ambush.name);
    let theirs = |record: &&Value| {
        neighbours.iter().any(|program| record["stack_trace"][0]["module"] == *program.to_str().unwrap())
    };
    let mut in_order = neighbours.iter();
    for record in records.iter().filter(theirs) {
        assert_eq!(record["stack_trace"][0]["module"], in_order.next().unwrap().to_str().unwrap());
        let reason = record["symbols_failed"][0]["reason"].as_str().unwrap_or_default();
        assert!(["timed_out", "died", "busy", "unavailable"].contains(&reason), "{record:#}");
    }
    assert!(in_order.next().is_none(), "one is missing");
}

#[test]
fn a_user_that_floods_takes_no_names_of_others() {
    let mut ambush = Ambush::new("shareusr");
    let neighbours = costly_programs(&mut ambush);
    for program in &neighbours {
        As::User(NEIGHBOUR).die(program);
    }
    ambush.agent.add_crashes(FLOOD as u64);
    for user in [INNOCENT, INNOCENT + 1] {
        dies_in_between(&mut ambush, As::User(user), &neighbours);
    }
    is_recorded_in_order(&mut ambush, &neighbours);
    ambush.agent.end_under(|_, _| ());
}

/// Both run as root of the host, as most containers do.
#[test]
fn a_container_that_floods_takes_no_names_of_others() {
    let mut ambush = Ambush::new("sharebox");
    let (hostile, innocent) = (Cgroup::new("hostile"), Cgroup::new("innocent"));
    let neighbours = costly_programs(&mut ambush);
    for program in &neighbours {
        As::In(&hostile).die(program);
    }
    ambush.agent.add_crashes(FLOOD as u64);
    dies_in_between(&mut ambush, As::In(&innocent), &neighbours);
    is_recorded_in_order(&mut ambush, &neighbours);
    ambush.agent.end_under(|_, _| ());
}

/// Each of them keeps a child for as long as it likes.
#[test]
fn a_user_with_many_file_systems_that_do_not_answer() {
    let mut ambush = Ambush::new("sharedsk");
    let places = [(); 6].map(|()| ambush.place());
    let mut mounted: Vec<Mounted<'_>> = Vec::new();
    for place in &places {
        mounted.push(Mounted::with(place, waiting_program().bytes()));
        die_in(mounted.last().unwrap(), Stall::Open, NEIGHBOUR);
    }
    ambush.agent.add_crashes(places.len() as u64);
    dies_in_between(&mut ambush, As::User(INNOCENT), &places);
    is_recorded_in_order(&mut ambush, &places);
    dies_in_between(&mut ambush, As::User(INNOCENT), &places);
    drop(mounted);
    ambush.agent.end_under(|_, _| ());
}
