//! The builds of one bug: each has its own signature, or several.

use std::cmp::Reverse;
use std::collections::BTreeMap;

use super::input::{GroupLine, text};
use super::record::Build;
use super::tally::add_to;
use crate::output::Timestamp;

/// How many builds a row names; the others are `other`.
pub(super) const BUILDS: usize = 16;
/// How many are counted one by one.
const ROOM: usize = 1024;

/// Counts by signature and build id of the executable.
#[derive(Debug, Default)]
pub(super) struct Builds {
    /// Few, and searched from their beginning.
    counts: Vec<Build>,
    other: u64,
}

/// Events of one signature.
#[derive(Clone, Copy, Debug)]
pub(super) struct Strikes<'a> {
    pub signature: Option<&'a str>,
    /// How many.
    pub count: u64,
    /// The first one's time.
    pub first_seen: Timestamp,
    /// The last one's.
    pub last_seen: Timestamp,
}

impl<'a> Strikes<'a> {
    /// The strikes of a group.
    pub(super) fn of(group: &'a GroupLine<'_>) -> Self {
        Self {
            signature: text(&group.signature),
            count: group.count,
            first_seen: group.first_seen,
            last_seen: group.last_seen,
        }
    }
}

impl Builds {
    /// Adds events.
    pub(super) fn add(&mut self, of: &Strikes<'_>, build_id: Option<&str>) {
        self.count(of.signature, build_id, (of.count, of.first_seen, of.last_seen), || Build {
            signature: of.signature.map(str::to_owned),
            build_id: build_id.map(str::to_owned),
            count: of.count,
            first_seen: of.first_seen,
            last_seen: of.last_seen,
        });
    }

    fn count(
        &mut self,
        signature: Option<&str>,
        build_id: Option<&str>,
        (count, first_seen, last_seen): (u64, Timestamp, Timestamp),
        new: impl FnOnce() -> Build,
    ) {
        let is_it =
            |build: &&mut Build| build.signature.as_deref() == signature && build.build_id.as_deref() == build_id;
        if let Some(known) = self.counts.iter_mut().find(is_it) {
            add_to(&mut known.count, count);
            known.first_seen = known.first_seen.min(first_seen);
            known.last_seen = known.last_seen.max(last_seen);
        } else if self.counts.len() < ROOM {
            self.counts.push(new());
        } else {
            add_to(&mut self.other, count);
        }
    }

    /// Adds what was counted elsewhere.
    pub(super) fn absorb(&mut self, other: Self) {
        add_to(&mut self.other, other.other);
        for build in other.counts {
            let what = (build.count, build.first_seen, build.last_seen);
            self.count(build.signature.as_deref(), build.build_id.as_deref(), what, || build.clone());
        }
    }

    /// Has one of them this signature?
    pub(super) fn has(&self, signature: &str) -> bool {
        self.counts.iter().any(|known| known.signature.as_deref() == Some(signature))
    }

    /// The signature of most events; `None`: no host knows one.
    pub(super) fn signature(&self) -> Option<String> {
        let mut counts: BTreeMap<&str, u64> = BTreeMap::new();
        for build in &self.counts {
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
        let mut all: Vec<&Build> = self.counts.iter().filter(|build| build.count != 0).collect();
        all.sort_by_key(|build| (Reverse(build.count), &build.signature, &build.build_id));
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
