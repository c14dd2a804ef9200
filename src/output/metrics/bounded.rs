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

/// Executables and the users that run them, which have labels of their own: the first ones, as [`BoundedNames`]. Anybody can make up names of
/// executables, so a user other than root can take half of them at most, and all those together three quarters.
pub(super) struct BoundedExecutables {
    known: HashSet<(String, u32)>,
    by_user: HashMap<u32, usize>,
    most: usize,
}

impl BoundedExecutables {
    /// Room for so many.
    pub(super) fn new(most: usize) -> Self {
        Self { known: HashSet::new(), by_user: HashMap::new(), most }
    }

    /// The labels of an executable and its user.
    pub(super) fn labels(&mut self, executable: &str, uid: u32) -> (String, String) {
        if self.known.contains(&(executable.to_owned(), uid)) {
            return (executable.to_owned(), uid.to_string());
        }
        if !self.has_room(uid) {
            return (OTHER.to_owned(), OTHER.to_owned());
        }
        self.known.insert((executable.to_owned(), uid));
        *self.by_user.entry(uid).or_default() += 1;
        (executable.to_owned(), uid.to_string())
    }

    fn has_room(&self, uid: u32) -> bool {
        let taken = |uid: u32| self.by_user.get(&uid).copied().unwrap_or_default();
        let is_full = self.known.len() >= self.most;
        let of_users = self.known.len() - taken(0);
        !is_full && (uid == 0 || taken(uid) < self.most.div_ceil(2) && of_users < self.most - self.most / 4)
    }
}

/// The labels of one series.
pub(super) trait Labels: EncodeLabelSet + Clone + Debug + Eq + Hash + Send + Sync + 'static {
    /// Those of them that are names.
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
