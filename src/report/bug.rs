//! One bug, merged from the groups of many hosts.

use std::cmp::Reverse;
use std::collections::{BTreeMap, HashMap};

use super::builds::{Builds, Strikes};
use super::input::{Frames, GroupLine, text};
use super::note::Note;
use super::record::{By, Row};
use super::tally::{Tally, add_to};
use crate::output::Timestamp;
use crate::record::crash::Disposition;

/// How many hosts, processes and executables a row names.
pub(super) const NAMES: usize = 8;

/// What distinguishes one bug from another, the same on every host. Without a signature it is a guess from all that is known.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(super) enum Key {
    /// The bug in any build.
    Family(String),
    /// The bug in one build.
    Signed(String),
    /// By all that is known of it.
    Unsigned { signal: String, code: Option<String>, disposition: Disposition, comm: String, exe: Option<String> },
}

impl Key {
    /// The key of what has this family and this signature; `None`: it has neither.
    pub(super) fn named(by: By, family: Option<&str>, signature: Option<&str>) -> Option<Self> {
        match (family, signature) {
            (Some(family), _) if by == By::Family => Some(Self::Family(family.to_owned())),
            (_, Some(signature)) => Some(Self::Signed(signature.to_owned())),
            _ => None,
        }
    }

    /// The key of this group.
    pub(super) fn of(by: By, group: &GroupLine<'_>) -> Self {
        Self::named(by, text(&group.family), text(&group.signature)).unwrap_or_else(|| Self::Unsigned {
            signal: group.signal.to_string(),
            code: text(&group.code).map(str::to_owned),
            disposition: group.disposition,
            comm: group.comm.to_string(),
            exe: group.exe().map(str::to_owned),
        })
    }

    /// A row without a signature has one process's name and one executable at most: they are in its key.
    pub(super) fn of_row(by: By, row: &Row) -> Self {
        Self::named(by, row.family.as_deref(), row.signature.as_deref()).unwrap_or_else(|| Self::Unsigned {
            signal: row.signal.clone(),
            code: row.code.clone(),
            disposition: row.disposition,
            comm: row.comms.first().cloned().unwrap_or_default(),
            exe: row.exes.first().cloned(),
        })
    }
}

/// What one host had of a bug.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct OnHost {
    /// Events.
    pub count: u64,
    /// The processor that had most of them, if one had more than half: the majority vote of Boyer and Moore, which needs no more.
    cpu: u32,
    lead: u64,
}

impl OnHost {
    fn vote(&mut self, cpu: u32, count: u64) {
        if self.cpu == cpu || self.lead < count {
            let lead = if self.cpu == cpu { self.lead.saturating_add(count) } else { count - self.lead };
            (self.cpu, self.lead) = (cpu, lead);
        } else {
            self.lead -= count;
        }
    }

    /// One event, for the tests of what is made of it.
    #[cfg(test)]
    pub(super) fn vote_for_test(&mut self, cpu: u32) {
        self.vote(cpu, 1);
    }

    /// The processor that stands for this bug on this host; `None` means that none does.
    pub(super) fn cpu(&self) -> Option<u32> {
        (self.lead != 0).then_some(self.cpu)
    }
}

/// What is known of one bug so far.
#[derive(Debug)]
pub(super) struct Bug {
    family: Option<String>,
    signal: String,
    code: Option<String>,
    is_estimated: bool,
    dispositions: BTreeMap<Disposition, u64>,
    comms: Tally,
    exes: Tally,
    builds: Builds,
    /// By number of the host. Not a tally, because the number of hosts must be exact.
    hosts: HashMap<u32, OnHost>,
    count: u64,
    first_seen: Timestamp,
    last_seen: Timestamp,
    /// The frames of the first group that has names, else of the first one.
    frames: Option<Frames>,
    note: Note,
}

impl Bug {
    /// A bug without events yet.
    pub(super) fn new(group: &GroupLine<'_>) -> Self {
        Self {
            family: text(&group.family).map(str::to_owned),
            signal: group.signal.to_string(),
            code: text(&group.code).map(str::to_owned),
            is_estimated: false,
            dispositions: BTreeMap::new(),
            comms: Tally::default(),
            exes: Tally::default(),
            builds: Builds::default(),
            hosts: HashMap::new(),
            count: 0,
            first_seen: group.first_seen,
            last_seen: group.last_seen,
            frames: None,
            note: Note::default(),
        }
    }

    /// Adds a group of one host. A group without events adds no count, but it may be the one that has names.
    pub(super) fn add(&mut self, host: u32, group: &GroupLine<'_>) {
        add_to(&mut self.count, group.count);
        self.is_estimated |= group.estimated;
        self.comms.add(&group.comm, group.count);
        if group.open_at.is_none() {
            self.add_executable(group.exe(), &Strikes::of(group), group.build_id());
        }
        if group.count != 0 {
            add_to(self.dispositions.entry(group.disposition).or_default(), group.count);
            let on_host = self.hosts.entry(host).or_default();
            add_to(&mut on_host.count, group.count);
            group.cpus.0.iter().for_each(|&(cpu, count)| on_host.vote(cpu, count));
        }
        self.first_seen = self.first_seen.min(group.first_seen);
        self.last_seen = self.last_seen.max(group.last_seen);
        if self.wants_frames() {
            self.take_frames(group.frames());
        }
        self.note.take(Note::of_group(group));
    }

    /// Adds what is known of the executable that these events are of.
    pub(super) fn add_executable(&mut self, exe: Option<&str>, strikes: &Strikes, build_id: Option<&str>) {
        if let Some(exe) = exe {
            self.exes.add(exe, strikes.count);
        }
        self.builds.add(strikes, build_id);
    }

    /// Would others' frames be better?
    fn wants_frames(&self) -> bool {
        self.frames.as_ref().is_none_or(|frames| !frames.are_named)
    }

    fn take_frames(&mut self, frames: Option<Frames>) {
        let are_named = frames.as_ref().is_some_and(|frames| frames.are_named);
        if self.frames.is_none() || (self.wants_frames() && are_named) {
            self.frames = frames;
        }
    }

    /// Adds what crash records say.
    pub(super) fn note(&mut self, note: Note) {
        self.note.take(note);
    }

    /// Adds what was merged elsewhere and stands behind this.
    pub(super) fn absorb(&mut self, other: Self) {
        add_to(&mut self.count, other.count);
        self.is_estimated |= other.is_estimated;
        self.family = self.family.take().or(other.family);
        for (disposition, count) in other.dispositions {
            add_to(self.dispositions.entry(disposition).or_default(), count);
        }
        self.comms.absorb(other.comms);
        self.exes.absorb(other.exes);
        self.builds.absorb(other.builds);
        for (host, there) in other.hosts {
            let here = self.hosts.entry(host).or_default();
            add_to(&mut here.count, there.count);
            here.vote(there.cpu, there.lead);
        }
        self.first_seen = self.first_seen.min(other.first_seen);
        self.last_seen = self.last_seen.max(other.last_seen);
        self.take_frames(other.frames);
        self.note.take(other.note);
    }

    /// The same, of a family that another host knows.
    pub(super) fn of_family(self, key: &Key) -> Self {
        match key {
            Key::Family(family) => Self { family: Some(family.clone()), ..self },
            _ => self,
        }
    }

    /// The same, with these numbers of its hosts.
    pub(super) fn renumbered(mut self, hosts: &[u32]) -> Self {
        self.hosts = self.hosts.into_iter().map(|(host, there)| (hosts[host as usize], there)).collect();
        self
    }

    /// How many events it has.
    pub(super) fn count(&self) -> u64 {
        self.count
    }

    /// Events by number of the host.
    pub(super) fn hosts(&self) -> &HashMap<u32, OnHost> {
        &self.hosts
    }

    /// Is this its family, or the signature of one of its builds?
    pub(super) fn is_called(&self, name: &str) -> bool {
        self.family.as_deref() == Some(name) || self.builds.has(name)
    }

    /// The row of the report; `names` are the hosts'.
    pub(super) fn row(self, names: &[String], missing_at_most: u64) -> Row {
        let list = |tally: &Tally| tally.top(NAMES).0.into_iter().map(|(name, _)| name.to_owned()).collect();
        let frames = self.frames.as_ref().map(Frames::parse).unwrap_or_default();
        // If counts are equal, the gravest is first: the enum's order.
        let most = self.dispositions.iter().min_by_key(|&(disposition, &count)| (Reverse(count), *disposition));
        let mut hosts: Vec<(u64, &str)> = self
            .hosts
            .iter()
            .filter_map(|(&host, there)| Some((there.count, names.get(host as usize)?.as_str())))
            .collect();
        hosts.sort_by_key(|&(count, name)| (Reverse(count), name));
        Row {
            signature: self.builds.signature(),
            family: self.family,
            estimated: self.is_estimated,
            place: crate::record::summary::place(&frames),
            disposition: most.map_or(Disposition::Fatal, |(&disposition, _)| disposition),
            comms: list(&self.comms),
            exes: list(&self.exes),
            hosts: hosts.len(),
            host_names: hosts.into_iter().take(NAMES).map(|(_, name)| name.to_owned()).collect(),
            builds: self.builds.by_build_id(),
            signatures: self.builds.rows(),
            is_asked: true,
            signal: self.signal,
            code: self.code,
            dispositions: self.dispositions,
            count: self.count,
            missing_at_most,
            first_seen: self.first_seen,
            last_seen: self.last_seen,
            abort_message: self.note.abort_message,
            diagnosis: self.note.diagnosis,
            frames,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_majority_stands_for_a_bug() {
        let voted = |votes: &[(u32, u64)]| {
            let mut on_host = OnHost::default();
            votes.iter().for_each(|&(cpu, count)| on_host.vote(cpu, count));
            on_host.cpu()
        };
        assert_eq!(voted(&[]), None);
        assert_eq!(voted(&[(3, 1)]), Some(3));
        assert_eq!(voted(&[(3, 2), (1, 1), (3, 5), (2, 4)]), Some(3));
        assert_eq!(voted(&[(1, 4), (3, 9)]), Some(3));
        assert_eq!(voted(&[(1, 4), (3, 4)]), None);
    }
}
