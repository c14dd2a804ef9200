//! Names processors and hosts on which so many different bugs strike that chance explains it badly. A bug of a program strikes on any
//! processor; a processor that computes wrongly, or its memory, breaks any program.
//!
//! The test: each bug stands for one processor of each host that had it, the one that had more than half of its events there. How often it
//! struck makes no difference, because a program in a loop may be bound to a processor. Of the n bugs of a host, k stand for one processor:
//! by chance that happens with the binomial probability P(X >= k), X ~ B(n, p), where no processor gets more than p = 2 / N of a host's bugs, N being
//! the number of its processors as far as any group shows them. For hosts the same, of all pairs of a bug and a host, with p = 4 / hosts: hosts
//! run different programs. A processor or host is named if its probability, times the number of all that were tested (Bonferroni), is below
//! 0.01. So where nothing is broken, and the load is no more uneven than that, at most one report in a hundred names anything.

use std::collections::{BTreeMap, HashMap};

use super::bug::{Bug, OnHost};
use super::record::Suspect;

/// The probability that a report of healthy hosts names anything.
const FALSE_ALARMS: f64 = 0.01;
/// No processor gets more than so many times its even share of its host's bugs.
const PROCESSOR_LOAD: f64 = 2.0;
/// No host gets more than so many times its even share of all bugs.
const HOST_LOAD: f64 = 4.0;
/// Fewer bugs than this prove nothing, however unlikely they are.
const BUGS: u64 = 4;

/// The hosts by number, and what is known of them.
#[derive(Debug, Default)]
pub(super) struct Hosts {
    numbers: HashMap<String, u32>,
    /// By number: the highest processor that any group shows.
    processors: Vec<u32>,
}

impl Hosts {
    /// The number of a host.
    pub(super) fn number(&mut self, name: &str) -> u32 {
        if let Some(&number) = self.numbers.get(name) {
            return number;
        }
        let number = self.processors.len() as u32;
        self.numbers.insert(name.to_owned(), number);
        self.processors.push(0);
        number
    }

    /// This processor is there.
    pub(super) fn saw(&mut self, host: u32, processor: Option<u32>) {
        if let (Some(processor), Some(highest)) = (processor, self.processors.get_mut(host as usize)) {
            *highest = processor.max(*highest);
        }
    }

    /// How many there are.
    pub(super) fn len(&self) -> usize {
        self.processors.len()
    }

    /// Adds another's; by its numbers the numbers here.
    pub(super) fn absorb(&mut self, other: Self) -> Vec<u32> {
        let processors = other.processors.clone();
        let names = other.into_names();
        names
            .iter()
            .zip(processors)
            .map(|(name, processor)| {
                let number = self.number(name);
                self.saw(number, Some(processor));
                number
            })
            .collect()
    }

    /// The names, by number.
    pub(super) fn into_names(self) -> Vec<String> {
        let mut names = vec![String::new(); self.processors.len()];
        for (name, number) in self.numbers {
            names[number as usize] = name;
        }
        names
    }

    fn name(&self, number: u32) -> String {
        self.numbers.iter().find(|(_, known)| **known == number).map(|(name, _)| name.clone()).unwrap_or_default()
    }
}

/// How many bugs a host has, and by processor.
#[derive(Debug, Default)]
struct Load {
    bugs: u64,
    /// How many of them count for a processor.
    placed: u64,
    by_processor: BTreeMap<u32, u64>,
}

/// The suspects among the hosts of these bugs, the least probable first.
pub(super) fn suspects<'a>(hosts: &Hosts, bugs: impl Iterator<Item = &'a Bug>) -> Vec<Suspect> {
    suspects_of(hosts, bugs.flat_map(|bug| bug.hosts().iter().map(|(host, there)| (*host, there))))
}

fn suspects_of<'a>(hosts: &Hosts, pairs: impl Iterator<Item = (u32, &'a OnHost)>) -> Vec<Suspect> {
    let mut loads: BTreeMap<u32, Load> = BTreeMap::new();
    for (host, there) in pairs {
        let load = loads.entry(host).or_default();
        load.bugs += 1;
        if let Some(cpu) = there.cpu() {
            load.placed += 1;
            *load.by_processor.entry(cpu).or_default() += 1;
        }
    }
    let processors = |host: u32| u64::from(hosts.processors.get(host as usize).copied().unwrap_or(0)) + 1;
    let tested = loads.keys().map(|host| processors(*host)).sum::<u64>() + hosts.len() as u64;
    let all: u64 = loads.values().map(|load| load.bugs).sum();
    let mut found = Vec::new();
    for (&host, load) in &loads {
        let of = |cpu: Option<u32>, bugs: u64, of_bugs: u64, share: f64| {
            let chance = (tail(bugs, of_bugs, share) * tested as f64).min(1.0);
            let is_suspect = bugs >= BUGS && share < 1.0 && chance < FALSE_ALARMS;
            is_suspect.then(|| Suspect {
                host: hosts.name(host),
                cpu,
                bugs,
                of_bugs,
                processors: processors(host),
                expected: of_bugs as f64 * share,
                chance,
            })
        };
        let share = PROCESSOR_LOAD / processors(host) as f64;
        found.extend(load.by_processor.iter().filter_map(|(&cpu, &bugs)| of(Some(cpu), bugs, load.placed, share)));
        found.extend(of(None, load.bugs, all, HOST_LOAD / hosts.len() as f64));
    }
    found.sort_by(|a, b| a.chance.total_cmp(&b.chance).then(b.bugs.cmp(&a.bugs)).then(a.host.cmp(&b.host)));
    found
}

/// P(X >= k) of X ~ B(n, p), by its terms: each is the one before times a ratio.
fn tail(k: u64, n: u64, p: f64) -> f64 {
    if k == 0 || p >= 1.0 {
        return 1.0;
    }
    if p <= 0.0 || k > n {
        return 0.0;
    }
    let (n_real, odds) = (n as f64, p / (1.0 - p));
    // ln C(n, k) p^k (1-p)^(n-k)
    let mut term_ln = n_real * (1.0 - p).ln();
    for i in 0..k {
        term_ln += ((n_real - i as f64) / (i as f64 + 1.0) * odds).ln();
    }
    let (mut term, mut sum) = (1.0_f64, 0.0_f64);
    for i in k..=n {
        sum += term;
        term *= (n_real - i as f64) / (i as f64 + 1.0) * odds;
        if term < sum * 1e-12 && i as f64 > n_real * p {
            break;
        }
    }
    (term_ln + sum.ln()).exp().min(1.0)
}

#[cfg(test)]
mod tests;
