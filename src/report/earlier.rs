//! What an earlier line of the same file says: a group's executable is where its frames are, and later lines leave both out.

use std::collections::HashMap;
use std::hash::{BuildHasher as _, RandomState};
use std::sync::Arc;

use super::bug::Key;
use super::builds::Strikes;
use super::input::{Executable, GroupLine};
use crate::output::Timestamp;

/// What the lines of a file have said so far, by run of faultline and signature. (A hash of both, from a keyed hasher.)
#[derive(Debug, Default)]
pub(super) struct Earlier {
    said: HashMap<u64, Arc<Executable>>,
    /// Each executable once, but for those that have the same hash by chance.
    known: HashMap<u64, Arc<Executable>>,
    hasher: RandomState,
    /// Groups that refer to a line before these: by that line, and by what they say themselves.
    open: HashMap<(u64, Executable), Open>,
}

/// Groups of one signature that refer to a line that isn't known (yet).
#[derive(Debug)]
pub(super) struct Open {
    /// The bug's key.
    pub key: Key,
    signature: String,
    /// What they say themselves: of a field that they leave out nothing is known.
    own: [bool; 2],
    said: Executable,
    /// How many groups.
    pub groups: u64,
    count: u64,
    first_seen: Timestamp,
    last_seen: Timestamp,
}

impl Open {
    /// The events.
    pub(super) fn strikes(&self) -> Strikes<'_> {
        Strikes {
            signature: Some(&self.signature),
            count: self.count,
            first_seen: self.first_seen,
            last_seen: self.last_seen,
        }
    }

    /// The executable, if the earlier line says this.
    pub(super) fn executable(&self, earlier: &Executable) -> Executable {
        let [has_exe, has_build_id] = self.own;
        let of = |is_own: bool| if is_own { &self.said } else { earlier };
        Executable { exe: of(has_exe).exe.clone(), build_id: of(has_build_id).build_id.clone() }
    }
}

impl Earlier {
    /// Reads a group in the order of the file: it says what its executable is, or gets it from an earlier line, if that is known.
    pub(super) fn read(&mut self, at: u64, group: &mut GroupLine<'_>) {
        if !group.frames_in_file {
            if self.said.get(&at).is_none_or(|said| !group.is_of(said)) {
                let hash = self.hasher.hash_one((group.exe(), group.build_id()));
                let known = self.known.get(&hash).filter(|known| group.is_of(known)).cloned();
                let executable = known.unwrap_or_else(|| self.intern(hash, Arc::new(group.executable())));
                self.said.insert(at, executable);
            }
        } else if let Some(earlier) = self.said.get(&at) {
            group.complete(earlier);
        } else {
            group.open_at = Some(at);
        }
    }

    /// The one that is known, if it is the same.
    fn intern(&mut self, hash: u64, executable: Arc<Executable>) -> Arc<Executable> {
        let known = self.known.entry(hash).or_insert_with(|| executable.clone());
        if *known == executable { known.clone() } else { executable }
    }

    /// A group that refers to the line of `at`, which isn't among these.
    pub(super) fn wait(&mut self, at: u64, key: Key, group: &GroupLine<'_>) {
        let said = group.executable();
        let strikes = Strikes::of(group);
        let open = self.open.entry((at, said.clone())).or_insert_with(|| Open {
            key,
            signature: strikes.signature.unwrap_or_default().to_owned(),
            own: group.says(),
            said,
            groups: 0,
            count: 0,
            first_seen: strikes.first_seen,
            last_seen: strikes.last_seen,
        });
        open.groups += 1;
        open.count = open.count.saturating_add(strikes.count);
        open.first_seen = open.first_seen.min(strikes.first_seen);
        open.last_seen = open.last_seen.max(strikes.last_seen);
    }

    /// Another file begins.
    pub(super) fn begin_file(&mut self) {
        self.said.clear();
        self.known.clear();
    }

    /// Adds the lines that follow on these; returns the groups that refer to a line before them, and what that says.
    pub(super) fn absorb(&mut self, other: Self) -> Vec<(Open, Option<Arc<Executable>>)> {
        let earlier = |((at, _), open)| (open, self.said.get(&at).cloned());
        let settled = other.open.into_iter().map(earlier).collect();
        for (at, executable) in other.said {
            let hash = self.hasher.hash_one((executable.exe.as_deref(), executable.build_id.as_deref()));
            let executable = self.intern(hash, executable);
            self.said.insert(at, executable);
        }
        settled
    }

    /// The groups whose earlier line is in none of the files.
    pub(super) fn take_open(&mut self) -> impl Iterator<Item = Open> {
        std::mem::take(&mut self.open).into_values()
    }
}

#[cfg(test)]
mod tests;
