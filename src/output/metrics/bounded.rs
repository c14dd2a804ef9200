//! Counters whose labels are names that anybody can make up: bounded in names and in series, and exact in their sum.

use std::collections::{HashMap, HashSet};
use std::fmt::Debug;
use std::hash::Hash;

use prometheus_client::encoding::EncodeLabelSet;
use prometheus_client::metrics::counter::Counter;
use prometheus_client::metrics::family::Family;
use prometheus_client::registry::Registry;

/// The value of a label whose own one is beyond a bound.
const OTHER: &str = "other";

/// The names that have a label of their own: the first ones. One once given stays, or a counter would shrink.
pub(super) struct BoundedNames {
    known: HashSet<String>,
    most: usize,
}

impl BoundedNames {
    /// Room for so many.
    pub(super) fn new(most: usize) -> Self {
        Self { known: HashSet::new(), most }
    }

    /// The label of a name.
    pub(super) fn label(&mut self, name: &str) -> String {
        if !self.known.contains(name) {
            if self.known.len() >= self.most {
                return OTHER.to_owned();
            }
            self.known.insert(name.to_owned());
        }
        name.to_owned()
    }
}

/// An executable's file name, and the user that runs it.
pub(super) type Executable = (String, u32);

/// Executables and the users that run them, which have labels of their own. Anybody can make up names of executables, so a user other than root
/// can take half of them at most, and all those together three quarters. Where there is no room, the one leaves that was idle for longest, of
/// the same user or of the one that has most: so a program that crashes for the first time has a label, whatever others did before. One that its
/// user can't have made has one, too, whatever others do meanwhile: where none is idle, one leaves for it that its user may have made.
pub(super) struct BoundedExecutables {
    known: HashMap<Executable, Label>,
    by_user: HashMap<u32, usize>,
    most: usize,
    /// The present update: what has crashed in it stays.
    update: u64,
}

/// A label that an executable has.
struct Label {
    /// The update in which it crashed last.
    last: u64,
    /// Its user can't have made it.
    is_others: bool,
}

impl BoundedExecutables {
    /// Room for so many.
    pub(super) fn new(most: usize) -> Self {
        Self { known: HashMap::new(), by_user: HashMap::new(), most, update: 0 }
    }

    /// The room.
    pub(super) fn most(&self) -> usize {
        self.most
    }

    /// Crashes from now on are newer than those before.
    pub(super) fn begin_update(&mut self) {
        self.update += 1;
    }

    /// Has this executable a label of its own? Then it stays for this update.
    pub(super) fn keep(&mut self, executable: &str, uid: u32) -> bool {
        match self.known.get_mut(&(executable.to_owned(), uid)) {
            Some(label) => {
                label.last = self.update;
                true
            }
            None => false,
        }
    }

    /// Has the executable get a label, and returns the one that leaves for it; `None` means that there is no room. `is_others`: its user can't
    /// have made it.
    pub(super) fn admit(&mut self, executable: &str, uid: u32, is_others: bool) -> Option<Option<Executable>> {
        let leaves = if self.has_room(uid) { None } else { Some(self.idlest(uid, is_others)?) };
        if let Some(executable) = &leaves {
            self.known.remove(executable);
            self.by_user.entry(executable.1).and_modify(|labels| *labels -= 1);
        }
        self.by_user.retain(|_, labels| *labels > 0);
        self.known.insert((executable.to_owned(), uid), Label { last: self.update, is_others });
        *self.by_user.entry(uid).or_default() += 1;
        Some(leaves)
    }

    /// The labels of all that have none of their own.
    pub(super) fn other() -> (String, String) {
        (OTHER.to_owned(), OTHER.to_owned())
    }

    fn taken(&self, uid: u32) -> usize {
        self.by_user.get(&uid).copied().unwrap_or_default()
    }

    fn has_room(&self, uid: u32) -> bool {
        let of_users = self.known.len() - self.taken(0);
        let is_full = self.known.len() >= self.most;
        !is_full && (uid == 0 || self.taken(uid) < self.half() && of_users < self.most - self.most / 4)
    }

    fn half(&self) -> usize {
        self.most.div_ceil(2)
    }

    /// The label that leaves for one of this user; `None` means that all of those that could have crashed in this update.
    fn idlest(&self, uid: u32, is_others: bool) -> Option<Executable> {
        let is_users = |of: u32| match uid {
            0 => true,
            _ if self.taken(uid) >= self.half() => of == uid,
            _ if self.known.len() >= self.most => true,
            _ => of != 0,
        };
        let gives_way = |label: &Label| label.last < self.update || (is_others && !label.is_others);
        let idle = self.known.iter().filter(|((_, of), label)| is_users(*of) && gives_way(label));
        // The user that has most, and of equal ones the first by number and name, so that equal runs are equal.
        idle.max_by_key(|((name, of), label)| (self.taken(*of), std::cmp::Reverse((label.last, *of, name.clone()))))
            .map(|(executable, _)| executable.clone())
    }
}

/// The labels of one series.
pub(super) trait Labels: EncodeLabelSet + Clone + Debug + Eq + Hash + Send + Sync + 'static {
    /// The labels that are names.
    fn names(&mut self) -> impl Iterator<Item = &mut String>;
}

/// A counter by labels with names. Counts only ever grow: each call adds what is new.
pub(super) struct Bounded<L: Labels> {
    family: Family<L, Counter>,
    names: BoundedNames,
    series: HashSet<L>,
    most: usize,
}

impl<L: Labels> Bounded<L> {
    /// Without a value yet. `names`: how many names have a label of their own. `series`: how many series have names; what would
    /// make one more is summed under `other`.
    pub(super) fn new(names: usize, series: usize) -> Self {
        Self { family: Family::default(), names: BoundedNames::new(names), series: HashSet::new(), most: series }
    }

    pub(super) fn register(&self, registry: &mut Registry, name: &str, help: &str) {
        registry.register(name, help, self.family.clone());
    }

    pub(super) fn add(&mut self, rows: impl IntoIterator<Item = (L, u64)>) {
        for (mut labels, count) in rows {
            for name in labels.names() {
                *name = self.names.label(name);
            }
            if !self.series.contains(&labels) {
                if self.series.len() < self.most {
                    self.series.insert(labels.clone());
                } else {
                    labels.names().for_each(|name| OTHER.clone_into(name));
                }
            }
            self.family.get_or_create(&labels).inc_by(count);
        }
    }
}
