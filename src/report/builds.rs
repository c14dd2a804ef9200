//! The builds of one bug: each has its own signature, or several.

use std::cmp::Reverse;
use std::collections::BTreeMap;

use super::bug::add_to;
use super::input::{GroupLine, text};
use super::record::Build;

/// How many builds a row names; the others are `other`.
pub(super) const BUILDS: usize = 16;
/// How many are counted one by one.
const ROOM: usize = 1024;

/// Counts by signature and build id of the executable.
#[derive(Debug, Default)]
pub(super) struct Builds {
    counts: BTreeMap<(Option<String>, Option<String>), Build>,
    other: u64,
}

impl Builds {
    /// Adds a group.
    pub(super) fn add(&mut self, group: &GroupLine<'_>) {
        self.insert(Build {
            signature: text(&group.signature).map(str::to_owned),
            build_id: text(&group.build_id).map(str::to_owned),
            count: group.count,
            first_seen: group.first_seen,
            last_seen: group.last_seen,
        });
    }

    fn insert(&mut self, build: Build) {
        let key = (build.signature.clone(), build.build_id.clone());
        if let Some(known) = self.counts.get_mut(&key) {
            add_to(&mut known.count, build.count);
            known.first_seen = known.first_seen.min(build.first_seen);
            known.last_seen = known.last_seen.max(build.last_seen);
        } else if self.counts.len() < ROOM {
            self.counts.insert(key, build);
        } else {
            add_to(&mut self.other, build.count);
        }
    }

    /// Adds what was counted elsewhere.
    pub(super) fn absorb(&mut self, other: Self) {
        add_to(&mut self.other, other.other);
        other.counts.into_values().for_each(|build| self.insert(build));
    }

    /// Has one of them this signature?
    pub(super) fn has(&self, signature: &str) -> bool {
        self.counts.keys().any(|(known, _)| known.as_deref() == Some(signature))
    }

    /// The signature of most events; `None`: no host knows one.
    pub(super) fn signature(&self) -> Option<String> {
        let mut counts: BTreeMap<&str, u64> = BTreeMap::new();
        for build in self.counts.values() {
            if let Some(signature) = &build.signature {
                add_to(counts.entry(signature).or_default(), build.count);
            }
        }
        counts
            .into_iter()
            .min_by_key(|&(signature, count)| (Reverse(count), signature))
            .map(|(name, _)| name.to_owned())
    }

    /// Those with events, the most frequent first.
    fn sorted(&self) -> Vec<&Build> {
        let mut all: Vec<&Build> = self.counts.values().filter(|build| build.count != 0).collect();
        // The sort is stable: equals stay in the order of their keys.
        all.sort_by_key(|build| Reverse(build.count));
        all
    }

    /// The most frequent ones.
    pub(super) fn rows(&self) -> Vec<Build> {
        self.sorted().into_iter().take(BUILDS).cloned().collect()
    }

    /// Counts by build id alone, with `unknown` and `other`.
    pub(super) fn by_build_id(&self) -> BTreeMap<String, u64> {
        let mut all: BTreeMap<&str, u64> = BTreeMap::new();
        for build in self.sorted() {
            add_to(all.entry(build.build_id.as_deref().unwrap_or("unknown")).or_default(), build.count);
        }
        let mut all: Vec<(&str, u64)> = all.into_iter().collect();
        all.sort_by_key(|&(_, count)| Reverse(count));
        let rest = all.split_off(BUILDS.min(all.len()));
        let other = rest.iter().fold(self.other, |sum, &(_, count)| sum.saturating_add(count));
        let mut builds: BTreeMap<String, u64> =
            all.into_iter().map(|(build, count)| (build.to_owned(), count)).collect();
        if other != 0 {
            builds.insert("other".to_owned(), other);
        }
        builds
    }
}
