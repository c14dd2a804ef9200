//! The JSON of a summary. What its file has already is not written again, and no line is too long for those who ship it.

use std::collections::{BTreeMap, HashMap};
use std::hash::{BuildHasher, Hash, RandomState};

use anyhow::{Context, Result};
use serde::{Serialize, Serializer};
use serde_json::value::{RawValue, to_raw_value};

use super::crash::{Disposition, Frame};
use super::summary::{Deliveries, Group, Heartbeat, Summary};
use super::{Head, Interval};
use crate::diagnosis::Diagnosis;
use crate::time::Timestamp;

/// A longer line is divided.
const LONGEST_LINE: usize = 1 << 20;

/// How many signatures are known to be in a file. With more of them, all are written once more.
const SIGNATURES: usize = 1 << 16;

/// Whether what was written before stands in front of what is written next.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Continuity {
    /// It is a file, and it does.
    Same,
    /// It is a file, and nothing is known of what it has.
    New,
    /// It is no file: who reads it later may not have what came before.
    Stream,
}

/// What the file has of each signature.
#[derive(Debug, Default)]
pub(crate) struct InFile {
    hasher: RandomState,
    is_file: bool,
    /// How many summaries were written to it.
    summaries: u64,
    bases: HashMap<String, Base>,
    /// The boot that its last record names, by its hash. `None` means that none does.
    boot: Option<u64>,
}

/// The last group of a signature that the file has with all of its fields. The texts stand for themselves by their hashes.
#[derive(Clone, Copy, Debug)]
struct Base {
    /// The number of its summary.
    summary: u64,
    /// That of the last one with a group of this signature, with all of its fields or without.
    seen: u64,
    /// The total of the last group of this signature in the file, with all of its fields or without.
    total: u64,
    are_named: bool,
    exe: u64,
    build_id: u64,
    abort_message: u64,
    diagnosis: u64,
}

impl InFile {
    /// Turns to what is written to next.
    pub(crate) fn turn_to(&mut self, place: Continuity) {
        self.is_file = place != Continuity::Stream;
        if place != Continuity::Same {
            self.bases.clear();
            self.boot = None;
        }
    }

    /// Does the file name this boot already? If not, it is about to.
    fn has_boot(&mut self, boot_id: Option<&str>) -> bool {
        let boot = Some(self.hash(boot_id));
        self.is_file && std::mem::replace(&mut self.boot, boot) == boot
    }

    fn base(&self, group: &Group) -> Base {
        let diagnosis = group.diagnosis.as_ref();
        Base {
            summary: self.summaries,
            seen: self.summaries,
            total: group.total,
            are_named: group.frames.iter().any(|frame| frame.symbol.is_some()),
            exe: self.hash(&group.exe),
            build_id: self.hash(&group.build_id),
            abort_message: self.hash(&group.abort_message),
            diagnosis: self.hash(diagnosis.map(|of| (of.kind as u32, &*of.text, of.confidence as u32))),
        }
    }

    fn hash(&self, value: impl Hash) -> u64 {
        self.hasher.hash_one(value)
    }

    /// The group as it is written next. `is_last`: in the last summary of a run, which lists what there was for those who read nothing else.
    fn line<'a>(&mut self, group: &'a Group, is_last: bool) -> GroupLine<'a> {
        let whole = GroupLine::whole(group);
        let Some(signature) = group.signature.as_ref().filter(|_| self.is_file) else { return whole };
        let now = self.base(group);
        match self.bases.get_mut(signature) {
            // One of an earlier line, which names as much.
            Some(base) if base.summary != now.summary && (base.are_named || !now.are_named) => {
                let expected = std::mem::replace(&mut base.total, now.total).saturating_add(group.count);
                // What strikes always has another time and process in each summary: digits that nobody needs would be a half of a compressed
                // file.
                let goes_on = std::mem::replace(&mut base.seen, now.summary) + 1 == now.summary && !is_last;
                GroupLine {
                    exe: whole.exe.filter(|_| base.exe != now.exe),
                    build_id: whole.build_id.filter(|_| base.build_id != now.build_id),
                    abort_message: whole.abort_message.filter(|_| base.abort_message != now.abort_message),
                    diagnosis: whole.diagnosis.filter(|_| base.diagnosis != now.diagnosis),
                    frames: None,
                    frames_in_file: true,
                    total: whole.total.filter(|&total| is_last || total != expected),
                    last_seen: match goes_on {
                        _ if is_last => group.last_seen,
                        true => group.last_seen.whole_tens().max(group.first_seen),
                        false => group.last_seen.whole_seconds().max(group.first_seen),
                    },
                    last_pid: whole.last_pid.filter(|_| !goes_on),
                    ..whole
                }
            }
            _ => {
                if self.bases.len() >= SIGNATURES {
                    self.bases.clear();
                }
                self.bases.insert(signature.clone(), now);
                whole
            }
        }
    }
}

/// A group as it is written. The outer `None` of a field: it is as in the line that has the frames, and left out.
#[derive(Serialize)]
struct GroupLine<'a> {
    signature: Option<&'a str>,
    family: Option<&'a str>,
    estimated: bool,
    signal: &'a str,
    code: Option<&'a str>,
    disposition: Disposition,
    comm: &'a str,
    uid: Option<u32>,
    #[serde(skip_serializing_if = "Option::is_none")]
    exe: Option<&'a Option<String>>,
    #[serde(skip_serializing_if = "Option::is_none")]
    build_id: Option<&'a Option<String>>,
    first_seen: Timestamp,
    #[serde(skip_serializing_if = "Option::is_none")]
    abort_message: Option<&'a Option<String>>,
    #[serde(skip_serializing_if = "Option::is_none")]
    diagnosis: Option<&'a Option<Diagnosis>>,
    frames: Option<&'a [Frame]>,
    frames_in_file: bool,
    // Fields that change are together, behind those that don't: each change ends the match that a compressor finds in an earlier line.
    last_seen: Timestamp,
    count: u64,
    /// `None` means that it is that of the last group of this signature in the file, and `count`.
    #[serde(skip_serializing_if = "Option::is_none")]
    total: Option<u64>,
    cpus: &'a BTreeMap<u32, u64>,
    /// `None` means that the summary before has the group as well.
    #[serde(skip_serializing_if = "Option::is_none")]
    last_pid: Option<u32>,
}

impl<'a> GroupLine<'a> {
    fn whole(group: &'a Group) -> Self {
        Self {
            signature: group.signature.as_deref(),
            family: group.family.as_deref(),
            estimated: group.estimated,
            signal: &group.signal,
            code: group.code.as_deref(),
            disposition: group.disposition,
            comm: &group.comm,
            uid: group.uid,
            exe: Some(&group.exe),
            build_id: Some(&group.build_id),
            first_seen: group.first_seen,
            abort_message: Some(&group.abort_message),
            diagnosis: Some(&group.diagnosis),
            frames: Some(&group.frames),
            frames_in_file: false,
            last_seen: group.last_seen,
            count: group.count,
            total: Some(group.total),
            cpus: &group.cpus,
            last_pid: Some(group.last_pid),
        }
    }
}

/// A line. All but the last one of a summary have `null` for its sums.
#[derive(Serialize)]
struct Line<'a, G> {
    #[serde(flatten)]
    head: &'a Head,
    #[serde(flatten)]
    interval: &'a Interval,
    part: usize,
    parts: usize,
    groups: &'a [G],
    deliveries: Option<Deliveries>,
    losses: Option<&'a BTreeMap<String, u64>>,
    sample_losses: Option<&'a BTreeMap<String, u64>>,
}

impl<'a, G> Line<'a, G> {
    fn new(summary: &'a Summary, groups: &'a [G], part: usize, parts: usize) -> Self {
        let is_last = part == parts;
        Self {
            head: &summary.head,
            interval: &summary.interval,
            part,
            parts,
            groups,
            deliveries: is_last.then_some(summary.deliveries),
            losses: is_last.then_some(&summary.losses),
            sample_losses: is_last.then_some(&summary.sample_losses),
        }
    }
}

/// In one line, with all fields.
impl Serialize for Summary {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let groups: Vec<GroupLine<'_>> = self.groups.iter().map(GroupLine::whole).collect();
        Line::new(self, &groups, 1, 1).serialize(serializer)
    }
}

/// The lines of a summary, each with its newline.
pub(crate) fn summary(summary: &Summary, known: &mut InFile) -> Result<Vec<u8>> {
    divided(summary, known, LONGEST_LINE).context("failed to encode a summary")
}

/// A heartbeat as it is written.
#[derive(Serialize)]
struct HeartbeatLine<'a> {
    #[serde(flatten)]
    head: &'a Head,
    interval_seconds: f64,
    /// The outer `None`: it is as in the record before.
    #[serde(skip_serializing_if = "Option::is_none")]
    boot_id: Option<&'a Option<String>>,
    deliveries: Deliveries,
    losses: &'a BTreeMap<String, u64>,
}

/// The line of a heartbeat, with its newline.
pub(crate) fn heartbeat(beat: &Heartbeat, known: &mut InFile) -> Result<Vec<u8>> {
    let is_known = known.has_boot(beat.boot_id.as_deref());
    let line = HeartbeatLine {
        head: &beat.head,
        interval_seconds: beat.interval_seconds,
        boot_id: Some(&beat.boot_id).filter(|_| !is_known),
        deliveries: beat.deliveries,
        losses: &beat.losses,
    };
    let mut line = serde_json::to_vec(&line).context("failed to encode a heartbeat")?;
    line.push(b'\n');
    Ok(line)
}

fn divided(summary: &Summary, known: &mut InFile, longest: usize) -> Result<Vec<u8>> {
    known.summaries += 1;
    known.has_boot(summary.interval.boot_id.as_deref());
    let lines = summary.groups.iter().map(|group| to_raw_value(&known.line(group, summary.interval.last)));
    let groups: Vec<Box<RawValue>> = lines.collect::<Result<_, _>>()?;
    let empty = serde_json::to_vec(&Line::<&RawValue>::new(summary, &[], usize::MAX, usize::MAX))?.len();
    let parts = divide(&groups, longest.saturating_sub(empty));
    let mut lines = Vec::new();
    for (part, groups) in (1..).zip(&parts) {
        serde_json::to_writer(&mut lines, &Line::new(summary, groups, part, parts.len()))?;
        lines.push(b'\n');
    }
    Ok(lines)
}

/// As few parts as there can be of `longest` bytes, in their order; one that is longer by itself is alone.
fn divide(groups: &[Box<RawValue>], longest: usize) -> Vec<&[Box<RawValue>]> {
    let (mut parts, mut begin, mut bytes) = (Vec::new(), 0, 0);
    for (index, group) in groups.iter().enumerate() {
        let more = group.get().len() + 1;
        if index > begin && bytes + more > longest {
            parts.push(&groups[begin..index]);
            (begin, bytes) = (index, 0);
        }
        bytes += more;
    }
    parts.push(&groups[begin..]);
    parts
}

#[cfg(test)]
mod day;
#[cfg(test)]
mod tests;
