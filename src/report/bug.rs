//! One bug, merged from the groups of many hosts.

use std::cmp::Reverse;
use std::collections::{BTreeMap, HashMap};

use super::record::Row;
use super::tally::Tally;
use crate::output::Timestamp;
use crate::record::crash::{Disposition, Frame};
use crate::record::summary::Group;

/// How many hosts, processes and executables a row names.
pub(super) const NAMES: usize = 8;
/// How many builds a row names; the others are `other`.
pub(super) const BUILDS: usize = 16;

/// What tells one bug from another, the same on every host. Without a signature it is a guess from all that is known.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Key {
    /// By signature: exact.
    Signed(String),
    /// By all that is known of it.
    #[allow(missing_docs)]
    Unsigned { signal: String, code: Option<String>, disposition: Disposition, comm: String, exe: Option<String> },
}

impl From<&Row> for Key {
    /// A row without a signature has one process's name and one executable at most: they are in its key.
    fn from(row: &Row) -> Self {
        match &row.signature {
            Some(signature) => Self::Signed(signature.clone()),
            None => Self::Unsigned {
                signal: row.signal.clone(),
                code: row.code.clone(),
                disposition: row.disposition,
                comm: row.comms.first().cloned().unwrap_or_default(),
                exe: row.exes.first().cloned(),
            },
        }
    }
}

impl Key {
    /// The key of this group.
    pub(super) fn of(group: &Group) -> Self {
        match &group.signature {
            Some(signature) => Self::Signed(signature.clone()),
            None => Self::Unsigned {
                signal: group.signal.clone(),
                code: group.code.clone(),
                disposition: group.disposition,
                comm: group.comm.clone(),
                exe: group.exe.clone(),
            },
        }
    }
}

/// What is known of one bug so far.
#[derive(Debug)]
pub(super) struct Bug {
    signature: Option<String>,
    signal: String,
    code: Option<String>,
    dispositions: BTreeMap<Disposition, u64>,
    comms: Tally,
    exes: Tally,
    builds: Tally,
    /// By number of the host. Not a tally, because the number of hosts must be exact.
    hosts: HashMap<u32, u64>,
    count: u64,
    first_seen: Timestamp,
    last_seen: Timestamp,
    frames: Vec<Frame>,
}

impl Bug {
    /// A bug without events yet.
    pub(super) fn new(group: &Group) -> Self {
        Self {
            signature: group.signature.clone(),
            signal: group.signal.clone(),
            code: group.code.clone(),
            dispositions: BTreeMap::new(),
            comms: Tally::default(),
            exes: Tally::default(),
            builds: Tally::default(),
            hosts: HashMap::new(),
            count: 0,
            first_seen: group.first_seen,
            last_seen: group.last_seen,
            frames: Vec::new(),
        }
    }

    /// Adds a group of one host. A group without events adds no count, but it may be the one that has names.
    pub(super) fn add(&mut self, host: u32, group: Group) {
        add_to(&mut self.count, group.count);
        self.comms.add(&group.comm, group.count);
        if let Some(exe) = &group.exe {
            self.exes.add(exe, group.count);
        }
        if group.count != 0 {
            add_to(self.dispositions.entry(group.disposition).or_default(), group.count);
            add_to(self.hosts.entry(host).or_default(), group.count);
            self.builds.add(group.build_id.as_deref().unwrap_or("unknown"), group.count);
        }
        self.first_seen = self.first_seen.min(group.first_seen);
        self.last_seen = self.last_seen.max(group.last_seen);
        let named = |frames: &[Frame]| frames.iter().any(|frame| frame.symbol.is_some());
        if self.frames.is_empty() || (!named(&self.frames) && named(&group.frames)) {
            self.frames = group.frames;
        }
    }

    /// Has it no events?
    pub(super) fn is_empty(&self) -> bool {
        self.count == 0
    }

    /// The row of the report; `names` are the hosts'.
    pub(super) fn row(self, names: &HashMap<u32, String>) -> Row {
        let list = |tally: &Tally| tally.top(NAMES).0.into_iter().map(|(name, _)| name.to_owned()).collect();
        let (builds, other) = self.builds.top(BUILDS);
        let mut builds: BTreeMap<String, u64> =
            builds.into_iter().map(|(build_id, count)| (build_id.to_owned(), count)).collect();
        if other != 0 {
            builds.insert("other".to_owned(), other);
        }
        // Of equal counts the first is the gravest: the enum's order.
        let most = self.dispositions.iter().min_by_key(|&(disposition, &count)| (Reverse(count), *disposition));
        let mut hosts: Vec<(u64, &str)> =
            self.hosts.iter().filter_map(|(host, &count)| Some((count, names.get(host)?.as_str()))).collect();
        hosts.sort_by_key(|&(count, name)| (Reverse(count), name));
        Row {
            disposition: most.map_or(Disposition::Fatal, |(&disposition, _)| disposition),
            comms: list(&self.comms),
            exes: list(&self.exes),
            hosts: hosts.len(),
            host_names: hosts.into_iter().take(NAMES).map(|(_, name)| name.to_owned()).collect(),
            builds,
            signature: self.signature,
            signal: self.signal,
            code: self.code,
            dispositions: self.dispositions,
            count: self.count,
            first_seen: self.first_seen,
            last_seen: self.last_seen,
            frames: self.frames,
        }
    }
}

/// Numbers of other hosts may be damaged: a sum saturates and never wraps around.
pub(super) fn add_to(sum: &mut u64, count: u64) {
    *sum = sum.saturating_add(count);
}
