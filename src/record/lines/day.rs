//! What a day of summaries takes on the disk, where a hundred groups strike in each interval, and what an idle host writes.

use std::io::Write as _;

use super::tests::{group, summary_of};
use super::*;

const SECOND: i128 = 1_000_000_000;
const BEGIN: i128 = 1_800_000_000 * SECOND;

/// One of 10 s.
const INTERVALS: usize = 8640;

/// A tenth of a day says as much of all but the first summary, which has the frames: the compressor looks back some seconds only.
const TRIED: usize = INTERVALS / 10;

/// Numbers that are the same in each run: xorshift64.
struct Any(u64);

impl Any {
    fn below(&mut self, bound: u64) -> u64 {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        self.0 % bound
    }
}

fn at(nanoseconds: i128) -> Timestamp {
    Timestamp::from_unix_ns(BEGIN + nanoseconds).unwrap()
}

/// A bug with 16 frames.
fn bug(number: u64, any: &mut Any) -> Group {
    let module = format!("/usr/lib/app-{}/bin/server", number % 20);
    let frame = |any: &mut Any| Frame {
        symbol: Some(format!("module_{}::handle_request_{}+0x{:x}", any.below(50), any.below(500), any.below(4096))),
        module: Some(module.clone()),
        build_id: Some(format!("{:016x}{:024x}", any.0, any.0)),
        file: Some(format!("/build/source/src/part_{}.rs", any.below(100))),
        ..Frame::default()
    };
    Group {
        signature: Some(format!("{:016x}", any.below(u64::MAX))),
        family: Some(format!("{:016x}", any.below(u64::MAX))),
        code: Some("SEGV_MAPERR".to_owned()),
        signal: "SIGSEGV".to_owned(),
        comm: format!("server-{}", number % 20),
        exe: Some(module.clone()),
        total: 0,
        first_seen: at(any.below(10_000_000_000) as i128 - 20 * SECOND),
        frames: (0..16).map(|_| frame(any)).collect(),
        ..group("", None)
    }
}

/// The deaths of an interval, each group's one at least: in any order, on any of these processors, each another process among others.
fn strike(groups: &mut [Group], interval: usize, processors: u64, any: &mut Any, pid: &mut u32) {
    let mut deaths = Vec::new();
    for (index, group) in groups.iter_mut().enumerate() {
        (group.count, group.cpus) = (0, BTreeMap::new());
        loop {
            deaths.push((any.below(1000), index));
            if any.below(3) != 0 {
                break;
            }
        }
    }
    deaths.sort_unstable();
    for (tick, index) in deaths {
        let group = &mut groups[index];
        *pid += 1 + any.below(5) as u32;
        group.count += 1;
        group.total += 1;
        *group.cpus.entry(any.below(processors) as u32).or_default() += 1;
        group.last_pid = *pid;
        group.last_seen = at(interval as i128 * 10 * SECOND + i128::from(tick) * SECOND / 100);
    }
}

/// The bytes of a day of a host with so many processors, and how many they are when `zstd -3` has compressed them.
fn day(processors: u64) -> (usize, usize) {
    let (mut any, mut pid, mut known) = (Any(7), 1000, InFile::default());
    let mut groups: Vec<Group> = (0..100).map(|number| bug(number, &mut any)).collect();
    let mut to = zstd::stream::Encoder::new(Vec::new(), 3).unwrap();
    let (mut bytes, mut first) = (0, (0, 0));
    known.turn_to(Continuity::New);
    for interval in 0..TRIED {
        strike(&mut groups, interval, processors, &mut any, &mut pid);
        let mut sorted = groups.clone();
        sorted.sort_by(|a, b| b.count.cmp(&a.count).then(b.total.cmp(&a.total)).then(a.signature.cmp(&b.signature)));
        let mut whole = summary_of(sorted);
        whole.head.timestamp = at((interval as i128 + 1) * 10 * SECOND + i128::from(any.below(3_000_000)));
        whole.interval.boot_id = Some("c1b5a4a2-6c6d-4a3b-9c8e-0123456789ab".to_owned());
        whole.sample_losses =
            ["fault_table_full", "runs_missed", "sample_budget", "sample_ring_full", "stack_table_full"]
                .map(|reason| (reason.to_owned(), if reason == "sample_budget" { 100 + any.below(80) } else { 0 }))
                .into();
        let lines = summary(&whole, &mut known).unwrap();
        bytes += lines.len();
        to.write_all(&lines).unwrap();
        known.turn_to(Continuity::Same);
        if interval == 0 {
            to.flush().unwrap();
            first = (bytes, to.get_ref().len());
        }
    }
    let whole = |all: usize, first: usize| first + (all - first) * (INTERVALS - 1) / (TRIED - 1);
    (whole(bytes, first.0), whole(to.finish().unwrap().len(), first.1))
}

/// With frames in each line these were 4.2 GB a day.
#[test]
fn a_day_of_a_hundred_groups_that_always_strike_is_bounded() {
    for processors in [4, 32] {
        let (bytes, compressed) = day(processors);
        eprintln!("{:.0} MB a day, {:.1} MB compressed", bytes as f64 / 1e6, compressed as f64 / 1e6);
        assert!(bytes <= 350_000_000, "{bytes}");
        assert!(compressed <= 9_000_000, "{compressed}");
    }
}

/// A heartbeat of each minute has 200 bytes at most, which is 0.3 MB a day.
#[test]
fn a_heartbeat_names_its_boot_once_a_file() {
    let mut known = InFile::default();
    let mut idle = summary_of(Vec::new());
    idle.head.host = "a-host-of-32-bytes.its.domain.io".to_owned();
    idle.deliveries.filtered = 0;
    idle.interval.boot_id = Some("c1b5a4a2-6c6d-4a3b-9c8e-0123456789ab".to_owned());
    let beat = Heartbeat::of(&idle, 60.004);
    let mut write = |place| {
        known.turn_to(place);
        String::from_utf8(heartbeat(&beat, &mut known).unwrap()).unwrap()
    };
    let names_boot = |line: &str| line.contains(r#","boot_id":"c1b5a4a2-6c6d-4a3b-9c8e-0123456789ab","#);
    assert!(names_boot(&write(Continuity::New)));
    let later = write(Continuity::Same);
    assert!(!later.contains("boot_id") && later.len() <= 200, "{}: {later}", later.len());
    assert!(later.contains(r#""deliveries":{"matched":0,"filtered":0},"losses":{}}"#), "{later}");
    assert!(names_boot(&write(Continuity::New)), "another file");
    assert!(names_boot(&write(Continuity::Stream)) && names_boot(&write(Continuity::Stream)));
    known.turn_to(Continuity::New);
    summary(&idle, &mut known).unwrap();
    known.turn_to(Continuity::Same);
    let after = String::from_utf8(heartbeat(&beat, &mut known).unwrap()).unwrap();
    assert_eq!(after, later, "a summary names it as well");
}
