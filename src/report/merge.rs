//! Merges many summaries into one sum for each bug. Pure: it reads no file and prints nothing.
//!
//! It holds a row for each bug, a number for each host in it, and two bytes for each summary, to find duplicates.

use std::cmp::Reverse;
use std::collections::{BTreeMap, HashMap};
use std::sync::Arc;

use super::bug::{Bug, Key};
use super::earlier::{Earlier, Open};
use super::input::{CrashLine, Executable, GroupLine, SummaryLine, text};
use super::note::Note;
use super::processors::{Hosts, suspects};
use super::record::{By, Merged, Row, Selection, Totals};
use super::room::Room;
use super::seen::{Run, Seen};
use super::tally::add_to;
use crate::output::Timestamp;
use crate::record::crash::Disposition;
use crate::record::summary::Deliveries;

/// How many rows there are at most. Events of groups that find no room are counted together.
pub(super) const ROWS: usize = 1 << 16;
/// How many bugs have notes, and how many signatures are known to be of a family, that have no row (yet).
const NOTES: usize = 1 << 16;

/// What became of one summary.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Outcome {
    /// It is in the sums.
    Merged,
    /// It is in the sums, but its own don't add up.
    Unbalanced,
    /// It was merged before.
    Duplicate,
}

/// The sums so far.
#[derive(Debug)]
pub(super) struct Merge {
    selected: Vec<Disposition>,
    by: By,
    seen: Arc<Seen>,
    hosts: Hosts,
    bugs: Room<Key, Bug>,
    /// What crash records say, of bugs that may have no row.
    notes: BTreeMap<Key, Note>,
    /// The families of signatures: one host may know the names that another one lacks.
    families: HashMap<String, String>,
    totals: Totals,
    /// The sums of a summary with several lines, of which only the last one has them: counted and lost, and delivered.
    in_parts: (u128, u128),
    /// What earlier lines of the file say.
    earlier: Earlier,
}

impl Merge {
    /// Without summaries yet. Groups of the selected dispositions get rows; totals are of all groups.
    pub(super) fn new(selection: &Selection) -> Self {
        Self::sharing(selection, Arc::default())
    }

    fn sharing(selection: &Selection, seen: Arc<Seen>) -> Self {
        Self {
            selected: selection.dispositions.clone(),
            by: selection.by,
            seen,
            hosts: Hosts::default(),
            bugs: Room::new(ROWS),
            notes: BTreeMap::new(),
            families: HashMap::new(),
            totals: Totals::default(),
            in_parts: (0, 0),
            earlier: Earlier::default(),
        }
    }

    /// An empty one that knows the same duplicates: to be absorbed later.
    pub(super) fn part(&self, selection: &Selection) -> Self {
        Self::sharing(selection, self.seen.clone())
    }

    /// Counts a line that could not be read.
    pub(super) fn damaged(&mut self) {
        self.totals.damaged += 1;
    }

    /// Adds what a crash record says of its bug. It counts nothing: summaries do.
    pub(super) fn add_crash(&mut self, crash: &CrashLine<'_>) {
        let (family, signature) = (text(&crash.family), text(&crash.signature));
        self.learn(family, signature);
        let note = Note::of_crash(crash);
        if let Some(key) = Key::named(self.by, family, signature).filter(|_| !note.is_empty()) {
            self.keep_note(key, note);
        }
    }

    fn keep_note(&mut self, key: Key, note: Note) {
        if self.notes.len() < NOTES || self.notes.contains_key(&key) {
            self.notes.entry(key).or_default().take(note);
        }
    }

    fn learn(&mut self, family: Option<&str>, signature: Option<&str>) {
        if let (By::Family, Some(family), Some(signature)) = (self.by, family, signature)
            && self.families.len() < NOTES
            && !self.families.contains_key(signature)
        {
            self.families.insert(signature.to_owned(), family.to_owned());
        }
    }

    /// Lines of another file follow.
    pub(super) fn begin_file(&mut self) {
        self.earlier.begin_file();
    }

    /// Completes a summary by what earlier lines of its file say, before it is added. It may be there twice: others refer to each.
    pub(super) fn read(&mut self, summary: &mut SummaryLine<'_>) {
        let run = self.seen.hash((&summary.host, summary.since.map(micros), text(&summary.boot_id)));
        for group in summary.groups.iter_mut().flatten() {
            if let Some(signature) = text(&group.signature) {
                let at = self.seen.hash((run, signature));
                self.earlier.read(at, group);
            }
        }
    }

    /// Adds one summary, unless it was merged before.
    pub(super) fn add(&mut self, summary: &SummaryLine<'_>) -> Outcome {
        let run = Run {
            host: summary.host.to_string(),
            boot_id: text(&summary.boot_id).map(str::to_owned),
            since: summary.since.map_or(0, micros),
            part: summary.part.unwrap_or(1),
        };
        if !self.seen.insert(run, micros(summary.timestamp)) {
            self.totals.duplicates += 1;
            return Outcome::Duplicate;
        }
        let is_balanced = self.total(summary);
        let host = self.hosts.number(&summary.host);
        for group in summary.groups.iter().flatten() {
            add_to(self.totals.dispositions.entry(group.disposition).or_default(), group.count);
            self.hosts.saw(host, group.cpus.0.iter().map(|&(cpu, _)| cpu).max());
            if self.selected.contains(&group.disposition) {
                self.group(host, group);
            }
        }
        if is_balanced { Outcome::Merged } else { Outcome::Unbalanced }
    }

    /// Adds the sums. False: they don't add up.
    fn total(&mut self, summary: &SummaryLine<'_>) -> bool {
        let totals = &mut self.totals;
        // Wide, because these may be another host's numbers: a damaged one must not wrap around to a sum that fits.
        let groups = summary.groups.iter().flatten();
        let counted: u128 = groups.map(|group| u128::from(group.count)).sum();
        let lost: u128 = summary.losses.0.iter().map(|&(_, count)| u128::from(count)).sum();
        let matched = summary.deliveries.map_or(0, |deliveries| u128::from(deliveries.matched));
        for (sums, losses) in
            [(&mut totals.losses, &summary.losses), (&mut totals.sample_losses, &summary.sample_losses)]
        {
            for (reason, count) in &losses.0 {
                match sums.get_mut(&**reason) {
                    Some(sum) => add_to(sum, *count),
                    None => drop(sums.insert(reason.to_string(), *count)),
                }
            }
        }
        if summary.is_last_part() {
            totals.summaries += 1;
            let (ended, seconds) = (summary.timestamp, summary.interval_seconds);
            totals.host_hours += seconds / 3600.0;
            let began = Timestamp::from_unix_ns(ended.unix_ns() - (seconds * 1e9) as i128).unwrap_or(ended);
            totals.from = Some(totals.from.map_or(began, |from| from.min(began)));
            totals.to = totals.to.max(Some(ended));
        }
        totals.deliveries.add(summary.deliveries.unwrap_or_default());
        if summary.parts.unwrap_or(1) > 1 {
            self.in_parts.0 += counted + lost;
            self.in_parts.1 += matched;
            return true;
        }
        let is_balanced = counted + lost == matched;
        totals.adds_up &= is_balanced;
        is_balanced
    }

    fn group(&mut self, host: u32, group: &GroupLine<'_>) {
        self.learn(text(&group.family), text(&group.signature));
        let key = Key::of(self.by, group);
        if let Some(at) = group.open_at {
            self.earlier.wait(at, key.clone(), group);
        }
        let (bug, gone) = self.bugs.raise(key, group.count, || Bug::new(group));
        bug.add(host, group);
        self.totals.let_go(&gone);
    }

    /// What the earlier line of these groups says, if there is one.
    fn settle(&mut self, open: &Open, earlier: Option<&Executable>) {
        if earlier.is_none() {
            add_to(&mut self.totals.unresolved, open.groups);
        }
        let of = open.executable(earlier.unwrap_or(&Executable::default()));
        if let Some(bug) = self.bugs.get_mut(&open.key) {
            bug.add_executable(of.exe.as_deref(), &open.strikes(), of.build_id.as_deref());
        }
    }

    /// Adds what was merged apart from the lines that follow on those of this one.
    pub(super) fn absorb(&mut self, other: Self) {
        self.totals.add(other.totals);
        self.in_parts.0 += other.in_parts.0;
        self.in_parts.1 += other.in_parts.1;
        let numbers = self.hosts.absorb(other.hosts);
        self.learn_all(&other.families);
        for (key, note) in other.notes {
            self.keep_note(key, note);
        }
        self.bugs.widen(other.bugs.bound());
        for (key, bug, _) in other.bugs.into_held() {
            self.absorb_bug(key, bug, &numbers);
        }
        for (open, earlier) in self.earlier.absorb(other.earlier) {
            self.settle(&open, earlier.as_deref());
        }
    }

    fn absorb_bug(&mut self, key: Key, bug: Bug, numbers: &[u32]) {
        let gone = self.bugs.join(key, bug.count(), bug.renumbered(numbers), Bug::absorb);
        self.totals.let_go(&gone);
    }

    /// Which signature is of which family: another merge may know what this one lacks.
    pub(super) fn families(&self) -> HashMap<String, String> {
        self.families.clone()
    }

    /// Learns what another merge knows, in an order that is always the same: there may be no room for all.
    pub(super) fn learn_all(&mut self, families: &HashMap<String, String>) {
        let mut families: Vec<(&String, &String)> = families.iter().collect();
        families.sort_unstable();
        for (signature, family) in families {
            self.learn(Some(family), Some(signature));
        }
    }

    /// The sums. `name` is the signature or the family of the row that is asked for.
    pub(super) fn finish(mut self, name: Option<&str>) -> Merged {
        for open in self.earlier.take_open().collect::<Vec<_>>() {
            self.settle(&open, None);
        }
        self.gather_families();
        self.totals.hosts = self.hosts.len();
        self.totals.missing_at_most = self.bugs.bound();
        self.totals.adds_up &= self.in_parts.0 == self.in_parts.1;
        let bugs: Vec<(Key, Bug, u64)> = self.bugs.into_held().filter(|(_, bug, _)| bug.count() != 0).collect();
        let suspects = suspects(&self.hosts, bugs.iter().map(|(_, bug, _)| bug));
        let names = self.hosts.into_names();
        let mut rows: Vec<Row> = Vec::with_capacity(bugs.len());
        for (key, mut bug, missing_at_most) in bugs {
            if let Some(note) = self.notes.remove(&key) {
                bug.note(note);
            }
            let is_asked = name.is_none_or(|name| bug.is_called(name));
            rows.push(Row { is_asked, ..bug.row(&names, missing_at_most) });
        }
        // The sort is stable: equal rows stay in the order of their keys.
        rows.sort_by_key(|row| (Reverse(row.count), Reverse(row.hosts)));
        Merged { totals: self.totals, rows, suspects }
    }

    /// Adds rows that were counted by signature alone to their families.
    fn gather_families(&mut self) {
        let family_of = |key: &Key| match key {
            Key::Signed(signature) => self.families.get(signature).map(|family| Key::Family(family.clone())),
            _ => None,
        };
        let moved: Vec<(Key, Key)> = self.bugs.keys().filter_map(|key| Some((key.clone(), family_of(key)?))).collect();
        let noted: Vec<(Key, Key)> = self.notes.keys().filter_map(|key| Some((key.clone(), family_of(key)?))).collect();
        for (from, to) in moved {
            if let Some(bug) = self.bugs.remove(&from) {
                let bug = bug.of_family(&to);
                let gone = self.bugs.join(to, bug.count(), bug, Bug::absorb);
                self.totals.let_go(&gone);
            }
        }
        for (from, to) in noted {
            if let Some(note) = self.notes.remove(&from) {
                self.notes.entry(to).or_default().take(note);
            }
        }
    }
}

impl Totals {
    /// Bugs that lost their place: their events are counted, together.
    fn let_go(&mut self, gone: &[Bug]) {
        gone.iter().for_each(|bug| add_to(&mut self.not_ranked, bug.count()));
    }

    fn add(&mut self, other: Self) {
        self.from = self.from.into_iter().chain(other.from).min();
        self.to = self.to.max(other.to);
        self.summaries += other.summaries;
        self.duplicates += other.duplicates;
        self.damaged += other.damaged;
        self.host_hours += other.host_hours;
        self.deliveries.add(other.deliveries);
        for (disposition, count) in other.dispositions {
            add_to(self.dispositions.entry(disposition).or_default(), count);
        }
        for (sums, losses) in [(&mut self.losses, other.losses), (&mut self.sample_losses, other.sample_losses)] {
            for (reason, count) in losses {
                add_to(sums.entry(reason).or_default(), count);
            }
        }
        add_to(&mut self.not_ranked, other.not_ranked);
        add_to(&mut self.unresolved, other.unresolved);
        self.adds_up &= other.adds_up;
    }
}

impl Deliveries {
    fn add(&mut self, other: Self) {
        add_to(&mut self.matched, other.matched);
        add_to(&mut self.filtered, other.filtered);
    }
}

/// Microseconds since 1970, the precision of the JSON.
fn micros(moment: Timestamp) -> i64 {
    (moment.unix_ns() / 1000) as i64
}

#[cfg(test)]
pub(super) mod tests;
