//! Simulated fleets, always the same ones.

use super::*;

/// A generator of numbers that look random (PCG's multiplier), the same in each run.
struct Numbers(u64);

impl Numbers {
    fn below(&mut self, bound: u64) -> u64 {
        self.0 = self.0.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        (self.0 >> 33) % bound
    }
}

/// A fleet in which bugs strike by chance: each on some hosts, on one processor of each.
struct Fleet {
    hosts: Hosts,
    pairs: Vec<(u32, OnHost)>,
    processors: u32,
    numbers: Numbers,
}

impl Fleet {
    fn new(seed: u64, hosts: u32, processors: u32) -> Self {
        let mut known = Hosts::default();
        for host in 0..hosts {
            let number = known.number(&format!("h{host}"));
            known.saw(number, Some(processors - 1));
        }
        Self { hosts: known, pairs: Vec::new(), processors, numbers: Numbers(seed) }
    }

    /// `bugs` bugs, each on `spread` hosts at most. `uneven`: one processor in `processors` gets twice the load.
    fn strike(&mut self, bugs: u64, spread: u64, uneven: bool) {
        for _ in 0..bugs {
            let mut hit = BTreeMap::new();
            for _ in 0..=self.numbers.below(spread) {
                let host = self.numbers.below(self.hosts.len() as u64) as u32;
                let places = u64::from(self.processors) + u64::from(uneven);
                let cpu = self.numbers.below(places) as u32 % self.processors;
                hit.insert(host, cpu);
            }
            for (host, cpu) in hit {
                self.strike_at(host, cpu);
            }
        }
    }

    /// One more bug on this processor, some of whose events are elsewhere.
    fn strike_at(&mut self, host: u32, cpu: u32) {
        let mut there = OnHost::default();
        for _ in 0..1 + self.numbers.below(20) {
            there.vote_for_test(cpu);
        }
        self.pairs.push((host, there));
    }

    fn suspects(&self) -> Vec<(String, Option<u32>)> {
        let found = suspects_of(&self.hosts, self.pairs.iter().map(|(host, there)| (*host, there)));
        found.into_iter().map(|suspect| (suspect.host, suspect.cpu)).collect()
    }
}

/// The rate that the documentation states: one report in a hundred, at most.
#[test]
fn a_healthy_fleet_is_named_once_in_a_hundred_reports_at_most() {
    let mut alarms = 0;
    for seed in 0..300 {
        let mut fleet = Fleet::new(seed, [1, 3, 20, 200][seed as usize % 4], [1, 2, 8, 64][seed as usize / 4 % 4]);
        fleet.strike(300, 1 + seed % 40, seed % 2 == 1);
        alarms += usize::from(!fleet.suspects().is_empty());
    }
    assert!(alarms <= 3, "{alarms} of 300");
}

#[test]
fn a_bad_processor_is_found_among_thousands() {
    for (seed, processors, bugs) in [(1, 64, 9), (2, 16, 18), (3, 8, 30), (4, 128, 8)] {
        let mut fleet = Fleet::new(seed, 500, processors);
        fleet.strike(400, 30, false);
        for _ in 0..bugs {
            fleet.strike_at(123, 5);
        }
        let found = fleet.suspects();
        assert!(found.contains(&("h123".to_owned(), Some(5))), "{processors}: {found:?}");
        assert!(found.iter().all(|(host, _)| host == "h123"), "{found:?}");
    }
}

#[test]
fn two_bad_processors_are_both_found() {
    let mut fleet = Fleet::new(7, 100, 32);
    fleet.strike(300, 10, true);
    for _ in 0..14 {
        fleet.strike_at(3, 31);
        fleet.strike_at(90, 0);
    }
    let found = fleet.suspects();
    assert!(found.contains(&("h3".to_owned(), Some(31))) && found.contains(&("h90".to_owned(), Some(0))), "{found:?}");
}

/// Bad memory, or a bad disk, breaks all programs of a host on any of its processors.
#[test]
fn a_bad_host_is_found_without_blaming_a_processor() {
    let mut fleet = Fleet::new(8, 300, 16);
    fleet.strike(300, 4, false);
    for bug in 0..60 {
        fleet.strike_at(17, bug % 16);
    }
    assert_eq!(fleet.suspects(), [("h17".to_owned(), None)]);
}

/// A service in a crash loop that is bound to one processor is one bug, however often it strikes.
#[test]
fn one_bug_is_no_suspicion() {
    let mut fleet = Fleet::new(9, 50, 64);
    fleet.strike(100, 5, false);
    for _ in 0..3 {
        fleet.strike_at(4, 4);
    }
    let mut loop_of_one = OnHost::default();
    (0..10_000).for_each(|_| loop_of_one.vote_for_test(4));
    fleet.pairs.push((8, loop_of_one));
    assert_eq!(fleet.suspects(), []);
}

#[test]
fn the_tail_is_that_of_the_binomial() {
    for (k, n, p, wanted) in [
        (0, 10, 0.5, 1.0),
        (10, 10, 0.5, 0.000_976_562_5),
        (5, 10, 0.5, 0.623_046_875),
        (1, 3, 0.1, 0.271),
        (2, 2, 0.25, 0.0625),
        (11, 10, 0.5, 0.0),
        (1, 1, 1.0, 1.0),
    ] {
        assert!((tail(k, n, p) - wanted).abs() < 1e-9, "{k} {n} {p}: {}", tail(k, n, p));
    }
    assert!(tail(200, 1_000_000, 1e-5) < 1e-100 && tail(200, 1_000_000, 1e-5) > 0.0);
}
