//! Finds the recorded call that explains a crash: the newest one that changed the memory, file or signal of the crash, if the crash found
//! what that call left.

use super::effect::{ChangedFile, Effect, effects, up};
use super::subject::{FaultClass, Subject};
use crate::arch;
use crate::evidence::{Access, Cause, Change, DELETED, FileId};
use crate::page;
use crate::record::call::{Call, Relation, State};

/// What one effect has to do with the crash.
struct Link {
    relation: Relation,
    /// Whether what the call left is what the crash found. `None` means that the call left things as they were.
    explains: Option<bool>,
    /// It explains only what no earlier call explains: it left less undone than there was.
    is_last_resort: bool,
}

/// Adds to each call what it has to do with the crash, and marks the one that explains it. Sorts them by time.
pub(super) fn relate(facts: &Subject, calls: &mut [Call]) {
    calls.sort_by_key(|call| (call.entered_ns, call.tid));
    let mut heap = None;
    // The newest one that has changed things.
    let mut newest: Option<CandidateCall> = None;
    let mut forget: Vec<usize> = Vec::new();
    // In the order in which they took effect: of two calls in one another the inner one is first.
    let mut order: Vec<usize> = (0..calls.len()).filter(|&index| calls[index].entered_ns <= facts.at_ns).collect();
    order.sort_by_key(|&index| (calls[index].ended_ns(), std::cmp::Reverse(calls[index].entered_ns)));
    for index in order {
        let call = &calls[index];
        let mut relation = None;
        for effect in effects(call) {
            if effect == Effect::Replaced && call.pid == facts.pid {
                (newest, heap) = (None, None);
                forget.extend(0..calls.len());
                forget.retain(|&other| calls[other].ended_ns() < call.entered_ns);
            }
            let Some(mut link) = facts.link(call, &effect, &mut heap) else { continue };
            // It may have failed, because its result was not seen. A signal that came was sent.
            link.relation.certain &= call.state == State::Returned || matches!(effect, Effect::Sent(..));
            if let Some(explains) = link.explains {
                let change = CandidateCall { index, explains, certain: link.relation.certain };
                // If two calls made one change, the outer one counts, unless only the inner one is sure of the file.
                let is_one = newest.as_ref().is_some_and(|inner| is_inside(&calls[inner.index], call));
                let is_surer = newest.as_ref().is_some_and(|inner| inner.certain && !change.certain);
                let is_explained = newest.as_ref().is_some_and(|earlier| earlier.explains && link.is_last_resort);
                let is_kept = (is_one && is_surer) || is_explained;
                if !is_kept {
                    newest = Some(change);
                }
            }
            relation = Some(link.relation);
        }
        calls[index].relation = relation;
    }
    // Calls of an earlier program concern memory that is gone.
    for index in forget {
        if calls[index].pid == facts.pid {
            calls[index].relation = None;
        }
    }
    if let Some(CandidateCall { index, explains: true, .. }) = newest {
        calls[index].is_cause = true;
    }
}

/// Makes the cause a likely one unless every call since its begin was recorded: a call that wasn't may have undone it.
/// Nothing undoes that a signal was sent. `complete_since_ns` is since when every call was recorded, CLOCK_BOOTTIME.
pub(super) fn doubt(calls: &mut [Call], complete_since_ns: u64) {
    for call in calls.iter_mut().filter(|call| call.is_cause && call.entered_ns < complete_since_ns) {
        let relation = call.relation.iter_mut().find(|relation| relation.kind != Change::Sent);
        relation.into_iter().for_each(|relation| relation.certain = false);
    }
}

/// The call that explains the crash, as evidence.
pub(super) fn cause_of(calls: &[Call]) -> Option<Cause> {
    let (call, relation) =
        calls.iter().filter(|call| call.is_cause).find_map(|call| Some((call, call.relation.as_ref()?)))?;
    Some(Cause {
        change: relation.kind,
        is_certain: relation.certain,
        function: call.function.clone(),
        pid: call.pid,
        tid: call.tid,
        comm: call.comm.clone(),
        ended_ns: call.ended_ns(),
    })
}

/// A call that has changed the subject of the crash.
struct CandidateCall {
    index: usize,
    /// The crash found what it left.
    explains: bool,
    certain: bool,
}

/// Was `inner` made by `outer`?
fn is_inside(inner: &Call, outer: &Call) -> bool {
    inner.tid == outer.tid && outer.entered_ns <= inner.entered_ns && inner.ended_ns() <= outer.ended_ns()
}

impl Link {
    fn new(relation: Relation, explains: Option<bool>) -> Self {
        Self { relation, explains, is_last_resort: false }
    }
}

impl Subject {
    fn link(&self, call: &Call, effect: &Effect, heap: &mut Option<u64>) -> Option<Link> {
        match effect {
            Effect::Sent(signal, pid) => self.sent(call, *signal, *pid),
            Effect::Resized(file, before, length) => self.resized(file, *before, *length),
            Effect::Hole(file, shortens) => self.hole(file, *shortens),
            Effect::Replaced => None,
            // The rest concerns the memory of its own process only.
            _ if call.pid != self.pid => None,
            effect => self.memory(effect, heap),
        }
    }

    fn memory(&self, effect: &Effect, heap: &mut Option<u64>) -> Option<Link> {
        let address = self.address?;
        let not_mapped = self.fault == FaultClass::NotMapped;
        let of = |kind, text: String, explains| Some(Link::new(Relation { kind, text, certain: true }, explains));
        match *effect {
            Effect::Unmapped(range) if range.holds(address) => {
                of(Change::Unmapped, format!("unmapped {address:#x}"), Some(not_mapped))
            }
            Effect::Moved(range, to) if range.holds(address) => {
                let now = address.wrapping_sub(range.start).wrapping_add(to);
                of(Change::Moved, format!("moved what was at {address:#x} to {now:#x}"), Some(not_mapped))
            }
            Effect::Mapped(range, prot) if range.holds(address) => {
                let explains = prot != u64::MAX && self.is_refused_by(prot);
                let how = if prot == u64::MAX { String::new() } else { format!(" {}", crate::flags::prot(prot)) };
                of(Change::Mapped, format!("mapped {address:#x}{how}"), Some(explains))
            }
            Effect::Protected(range, prot) if range.holds(address) => {
                let text = format!("made {address:#x} {}", crate::flags::prot(prot));
                of(Change::Protected, text, Some(self.is_refused_by(prot)))
            }
            Effect::Discarded(range) if range.holds(address) => {
                of(Change::Discarded, format!("threw away what was at {address:#x}"), None)
            }
            Effect::Heap(end) => {
                let before = heap.replace(end);
                match before {
                    Some(before) if up(end) <= address && address < up(before) => of(
                        Change::Unmapped,
                        format!("shrank the heap to {end:#x}, below {address:#x}"),
                        Some(not_mapped),
                    ),
                    Some(before) if up(before) <= address && address < up(end) => {
                        of(Change::Mapped, format!("grew the heap over {address:#x}"), Some(false))
                    }
                    _ => None,
                }
            }
            // The call does not say how long the segment was; but nothing is mapped from there to the address.
            Effect::Detached(start) if not_mapped && start <= address && self.below? <= start => {
                let text =
                    format!("detached the segment at {start:#x}, and nothing is mapped from there to {address:#x}");
                Some(Link::new(Relation { kind: Change::Unmapped, text, certain: false }, Some(true)))
            }
            _ => None,
        }
    }

    /// Do these permissions refuse what the crash wanted?
    fn is_refused_by(&self, prot: u64) -> bool {
        let FaultClass::NotAllowed(access) = self.fault else { return false };
        let bit = |bit: i32| prot & bit as u64 != 0;
        match access {
            Access::Write => !bit(libc::PROT_WRITE),
            Access::Execute => !bit(libc::PROT_EXEC),
            Access::Read => !arch::is_readable(prot),
        }
    }

    /// Is it the file that is mapped at the address? `Some(certain)` means that it is.
    fn is_mapped(&self, file: &ChangedFile) -> Option<bool> {
        let mapped = self.mapped.as_ref()?;
        match (file, mapped.id) {
            (ChangedFile::Inode { inode, device: Some(device) }, Some(id)) => {
                (id == FileId { inode: *inode, device: *device }).then_some(true)
            }
            (ChangedFile::Inode { inode, device: None }, Some(id)) => (id.inode == *inode).then_some(false),
            (ChangedFile::Inode { .. }, None) => None,
            (ChangedFile::Named(name), _) => {
                let known = mapped.name.as_str();
                let known = known.strip_suffix(DELETED).unwrap_or(known);
                // A relative name begins in a folder that we don't know.
                let name = name.trim_start_matches("./").trim_start_matches("../");
                let is_end = known.strip_suffix(name).is_some_and(|begin| begin.is_empty() || begin.ends_with('/'));
                (!name.is_empty() && is_end).then_some(false)
            }
        }
    }

    /// A file that had `before` bytes, if that is known, has `length`.
    fn resized(&self, file: &ChangedFile, before: Option<u64>, length: u64) -> Option<Link> {
        let is_file = self.is_mapped(file)?;
        let offset = self.mapped.as_ref()?.offset;
        let had_page = |bytes: u64| page::start(offset) < up(bytes);
        let which = if is_file { "the mapped file" } else { "a file by the mapped one's name" };
        let is_missing = self.fault == FaultClass::NoPage && !had_page(length);
        let link = |kind, text: String, certain, explains| Some(Link::new(Relation { kind, text, certain }, explains));
        match before {
            // The page was not there before either: this call did not take it away.
            Some(before) if is_missing && !had_page(before) => {
                let text = match before < length {
                    true => format!(
                        "made {which} longer, from {before} to {length} bytes, and the fault was at offset {offset}"
                    ),
                    false => format!(
                        "made {which} {length} bytes long, which had {before}: the fault was behind both, at offset {offset}"
                    ),
                };
                let relation = Relation { kind: Change::Resized, text, certain: is_file };
                Some(Link { is_last_resort: true, ..Link::new(relation, (before < length).then_some(true)) })
            }
            _ if is_missing => {
                let text = format!("cut {which} to {length} bytes, and the fault was at offset {offset}");
                // That it was longer must be known.
                link(Change::Truncated, text, is_file && before.is_some(), Some(true))
            }
            _ => link(Change::Resized, format!("made {which} {length} bytes long"), is_file, Some(false)),
        }
    }

    fn hole(&self, file: &ChangedFile, shortens: bool) -> Option<Link> {
        let certain = self.is_mapped(file)?;
        let text = if shortens { "took a part out of the mapped file" } else { "punched a hole into the mapped file" };
        // The call doesn't say how long the file is since.
        let relation = Relation { kind: Change::Punched, text: text.to_owned(), certain: certain && !shortens };
        let explains = (shortens && self.fault == FaultClass::NoPage).then_some(true);
        Some(Link::new(relation, explains))
    }

    fn sent(&self, call: &Call, signal: u32, pid: u32) -> Option<Link> {
        if self.sender != Some(call.pid) || signal != self.signal {
            return None;
        }
        // Numbers are those of the sender's namespace; 0 and below are groups.
        let certain = pid == self.pid;
        let relation = Relation { kind: Change::Sent, text: "sent the signal".to_owned(), certain };
        Some(Link::new(relation, Some(true)))
    }
}

#[cfg(test)]
mod tests;
