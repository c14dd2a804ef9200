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
            // It may have failed: nobody saw what it returned. A signal that came was sent.
            link.relation.certain &= call.state == State::Returned || matches!(effect, Effect::Sent(..));
            if let Some(explains) = link.explains {
                let change = CandidateCall { index, explains, certain: link.relation.certain };
                // If two calls made one change, the outer one counts, unless only the inner one is sure of the file.
                let is_one = newest.as_ref().is_some_and(|inner| is_inside(&calls[inner.index], call));
                let is_surer = newest.as_ref().is_some_and(|inner| inner.certain && !change.certain);
                if !(is_one && is_surer) {
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

/// Makes the cause a likely one unless every call was recorded since it began: one that was not may have undone what it left.
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

impl Subject {
    fn link(&self, call: &Call, effect: &Effect, heap: &mut Option<u64>) -> Option<Link> {
        match effect {
            Effect::Sent(signal, pid) => self.sent(call, *signal, *pid),
            Effect::Cut(file, length) => self.cut(file, *length),
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
        let of =
            |kind, text: String, explains| Some(Link { relation: Relation { kind, text, certain: true }, explains });
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
            Effect::Detached(start) if not_mapped && start <= address && self.below? <= start => Some(Link {
                relation: Relation {
                    kind: Change::Unmapped,
                    text: format!(
                        "detached the segment at {start:#x}, and nothing is mapped from there to {address:#x}"
                    ),
                    certain: false,
                },
                explains: Some(true),
            }),
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

    fn cut(&self, file: &ChangedFile, length: u64) -> Option<Link> {
        let certain = self.is_mapped(file)?;
        let offset = self.mapped.as_ref()?.offset;
        let explains = self.fault == FaultClass::NoPage && up(length) <= page::start(offset);
        let which = if certain { "the mapped file" } else { "a file by the mapped one's name" };
        let text = if explains {
            format!("cut {which} to {length} bytes, and the fault was at offset {offset}")
        } else {
            format!("made {which} {length} bytes long")
        };
        let kind = if explains { Change::Truncated } else { Change::Resized };
        Some(Link { relation: Relation { kind, text, certain }, explains: Some(explains) })
    }

    fn hole(&self, file: &ChangedFile, shortens: bool) -> Option<Link> {
        let certain = self.is_mapped(file)?;
        let text = if shortens { "took a part out of the mapped file" } else { "punched a hole into the mapped file" };
        // The call doesn't say how long the file is since.
        let relation = Relation { kind: Change::Punched, text: text.to_owned(), certain: certain && !shortens };
        let explains = (shortens && self.fault == FaultClass::NoPage).then_some(true);
        Some(Link { relation, explains })
    }

    fn sent(&self, call: &Call, signal: u32, pid: u32) -> Option<Link> {
        if self.sender != Some(call.pid) || signal != self.signal {
            return None;
        }
        // Numbers are those of the sender's namespace; 0 and below are groups.
        let certain = pid == self.pid;
        let relation = Relation { kind: Change::Sent, text: "sent the signal".to_owned(), certain };
        Some(Link { relation, explains: Some(true) })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::call::subject::FilePlace;
    use crate::record::call::Value;
    use crate::record::call::tests::call;
    use crate::siginfo::{SIGBUS, SIGSEGV};

    const ADDRESS: u64 = 0x10_0000;

    fn facts(fault: FaultClass) -> Subject {
        Subject {
            pid: 100,
            at_ns: 1_000_000_000,
            fault,
            address: Some(ADDRESS + 8),
            below: None,
            mapped: None,
            signal: SIGSEGV,
            sender: None,
        }
    }

    /// At `ms` milliseconds.
    fn at(ms: u64, mut call: Call) -> Call {
        call.entered_ns = ms * 1_000_000;
        call
    }

    fn munmap(start: u64) -> Call {
        call("munmap", &[("addr", start), ("len", 4096)], 0)
    }

    fn mmap(start: u64, prot: u64) -> Call {
        call("mmap", &[("len", 4096), ("prot", prot)], start as i64)
    }

    fn mprotect(start: u64, prot: u64) -> Call {
        call("mprotect", &[("start", start), ("len", 4096), ("prot", prot)], 0)
    }

    /// The time of the cause, and the word for it.
    fn cause(facts: &Subject, mut calls: Vec<Call>) -> Option<(u64, Change)> {
        relate(facts, &mut calls);
        let causes: Vec<&Call> = calls.iter().filter(|call| call.is_cause).collect();
        assert!(causes.len() <= 1);
        causes.first().map(|call| (call.entered_ns / 1_000_000, call.relation.as_ref().unwrap().kind))
    }

    #[test]
    fn the_newest_munmap_of_the_address_explains_a_hole() {
        let facts = facts(FaultClass::NotMapped);
        let calls =
            vec![at(9, munmap(0x20_0000)), at(5, munmap(ADDRESS)), at(2, munmap(ADDRESS)), at(3, mmap(ADDRESS, 3))];
        assert_eq!(cause(&facts, calls), Some((5, Change::Unmapped)));
        assert_eq!(cause(&facts, vec![at(5, munmap(0x20_0000))]), None);
        assert_eq!(cause(&facts, vec![at(2000, munmap(ADDRESS))]), None, "it came after the crash");
    }

    /// It may have failed, and something else made the hole.
    #[test]
    fn a_call_whose_result_nobody_saw_is_a_likely_cause() {
        for (state, certain) in [(State::Returned, true), (State::EndMissed, false), (State::NotReturned, false)] {
            let mut calls = [Call { state, ..at(5, munmap(ADDRESS)) }];
            if state != State::Returned {
                (calls[0].result, calls[0].raw_result, calls[0].duration_ns) = (None, None, None);
            }
            relate(&facts(FaultClass::NotMapped), &mut calls);
            let relation = calls[0].relation.as_ref().unwrap();
            assert_eq!(
                (calls[0].is_cause, relation.kind, relation.certain),
                (true, Change::Unmapped, certain),
                "{state:?}"
            );
        }
    }

    /// A call that was not recorded may have mapped the address again, and one more may have unmapped it.
    #[test]
    fn a_call_since_which_others_were_not_recorded_is_a_likely_cause() {
        for (complete_since_ms, certain) in [(0, true), (5, true), (6, false)] {
            let mut calls = [at(2, munmap(0x20_0000)), at(5, munmap(ADDRESS))];
            relate(&facts(FaultClass::NotMapped), &mut calls);
            doubt(&mut calls, complete_since_ms * 1_000_000);
            let cause = cause_of(&calls).unwrap();
            assert_eq!((cause.change, cause.is_certain), (Change::Unmapped, certain), "{complete_since_ms}");
        }
    }

    #[test]
    fn what_was_mapped_again_is_not_explained_by_what_came_before() {
        let facts = facts(FaultClass::NotMapped);
        let calls = vec![at(5, munmap(ADDRESS)), at(6, mmap(ADDRESS, 3))];
        assert_eq!(cause(&facts, calls), None, "a later call must have unmapped it, and we don't have it");
    }

    #[test]
    fn another_process_has_other_memory() {
        let other = Call { pid: 7, ..munmap(ADDRESS) };
        assert_eq!(cause(&facts(FaultClass::NotMapped), vec![at(5, other)]), None);
        let thread = Call { tid: 101, ..munmap(ADDRESS) };
        assert_eq!(cause(&facts(FaultClass::NotMapped), vec![at(5, thread)]), Some((5, Change::Unmapped)));
    }

    #[test]
    fn of_calls_in_one_another_the_outer_one_counts() {
        let inner = Call { function: "do_vmi_munmap".to_owned(), ..munmap(ADDRESS) };
        let outer = Call { duration_ns: Some(9_000_000), ..munmap(ADDRESS) };
        assert_eq!(cause(&facts(FaultClass::NotMapped), vec![at(6, inner), at(5, outer)]), Some((5, Change::Unmapped)));
    }

    #[test]
    fn permissions_explain_what_they_refuse() {
        let calls = || vec![at(5, mprotect(ADDRESS, 1)), at(6, mprotect(0x20_0000, 0))];
        assert_eq!(cause(&facts(FaultClass::NotAllowed(Access::Write)), calls()), Some((5, Change::Protected)));
        assert_eq!(cause(&facts(FaultClass::NotAllowed(Access::Execute)), calls()), Some((5, Change::Protected)));
        assert_eq!(cause(&facts(FaultClass::NotAllowed(Access::Read)), calls()), None);
        assert_eq!(cause(&facts(FaultClass::NotMapped), calls()), None);
        let none = vec![at(5, mmap(ADDRESS, 0))];
        assert_eq!(cause(&facts(FaultClass::NotAllowed(Access::Read)), none), Some((5, Change::Mapped)));
    }

    #[test]
    fn another_program_has_other_memory() {
        let execve = call("execve", &[], 0);
        let calls = || vec![at(5, munmap(ADDRESS)), at(7, execve.clone())];
        assert_eq!(cause(&facts(FaultClass::NotMapped), calls()), None);
        let mut related = calls();
        relate(&facts(FaultClass::NotMapped), &mut related);
        assert_eq!(related[0].relation, None);
        let failed = Call { raw_result: Some(-2), ..execve.clone() };
        assert_eq!(
            cause(&facts(FaultClass::NotMapped), vec![at(5, munmap(ADDRESS)), at(7, failed)]),
            Some((5, Change::Unmapped))
        );
        let after = [calls(), vec![at(9, munmap(ADDRESS))]].concat();
        assert_eq!(cause(&facts(FaultClass::NotMapped), after), Some((9, Change::Unmapped)));
    }

    #[test]
    fn the_heap_shrinks_from_where_it_was() {
        let brk = |end: u64| call("brk", &[("brk", end)], end as i64);
        let calls = vec![at(1, brk(ADDRESS + 0x2000)), at(2, brk(ADDRESS))];
        assert_eq!(cause(&facts(FaultClass::NotMapped), calls), Some((2, Change::Unmapped)));
        assert_eq!(cause(&facts(FaultClass::NotMapped), vec![at(2, brk(ADDRESS))]), None, "where it was isn't known");
    }

    fn bus() -> Subject {
        let id = Some(FileId { inode: 42, device: 8 });
        let name = "/tmp/data (deleted)".to_owned();
        Subject { mapped: Some(FilePlace { id, name, offset: 0x3010 }), signal: SIGBUS, ..facts(FaultClass::NoPage) }
    }

    fn ftruncate(inode: u64, length: u64) -> Call {
        let arguments = [("fd:file.i_ino", inode), ("fd:file.s_dev", 8), ("length", length)];
        Call { pid: 7, tid: 7, ..call("ftruncate", &arguments, 0) }
    }

    #[test]
    fn the_truncate_of_the_very_file_explains_a_bus_error() {
        let facts = bus();
        assert_eq!(cause(&facts, vec![at(5, ftruncate(42, 0x1000))]), Some((5, Change::Truncated)));
        assert_eq!(cause(&facts, vec![at(5, ftruncate(43, 0x1000))]), None, "another file");
        assert_eq!(cause(&facts, vec![at(5, ftruncate(42, 0x3001))]), None, "the page is still there");
        assert_eq!(cause(&facts, vec![at(5, ftruncate(42, 0)), at(6, ftruncate(42, 0x8000))]), None, "long again");
        assert_eq!(
            cause(&facts, vec![at(5, ftruncate(42, 0x3000))]),
            Some((5, Change::Truncated)),
            "to the page's begin"
        );
    }

    #[test]
    fn a_name_is_a_guess() {
        let named = |name: &str| {
            let mut call = Call { pid: 7, ..call("truncate", &[("path", 0), ("length", 0)], 0) };
            call.arguments[0].value = Some(Value::Text(name.to_owned()));
            let mut calls = vec![at(5, call)];
            relate(&bus(), &mut calls);
            (calls[0].is_cause, calls[0].relation.as_ref().map(|relation| relation.certain))
        };
        for name in ["/tmp/data", "data", "./data", "tmp/data"] {
            assert_eq!(named(name), (true, Some(false)), "{name}");
        }
        for name in ["/data", "ata", "/tmp/data2", ""] {
            assert_eq!(named(name), (false, None), "{name}");
        }
    }

    #[test]
    fn of_a_name_and_the_inode_in_it_the_inode_counts() {
        let mut open = call("openat", &[("filename", 0), ("flags", libc::O_TRUNC as u64)], 3);
        open.arguments[0].value = Some(Value::Text("/tmp/data".to_owned()));
        let arguments = [("dentry:dentry.i_ino", 42), ("dentry:dentry.s_dev", 8), ("length", 0)];
        let inner = Call { duration_ns: Some(1), ..call("do_truncate", &arguments, 0) };
        let mut calls = vec![at(5, Call { duration_ns: Some(9_000_000), ..open }), at(6, inner)];
        relate(&bus(), &mut calls);
        assert_eq!((calls[0].is_cause, calls[1].is_cause), (false, true));
    }

    #[test]
    fn a_signal_was_sent_by_its_sender() {
        let facts = Subject { sender: Some(7), signal: 6, address: None, ..facts(FaultClass::Other) };
        let kill = |pid: u32, signal: u64| Call { pid, ..call("kill", &[("pid", 100), ("sig", signal)], 0) };
        assert_eq!(cause(&facts, vec![at(5, kill(7, 6)), at(6, kill(8, 6))]), Some((5, Change::Sent)));
        assert_eq!(cause(&facts, vec![at(5, kill(7, 9))]), None);
    }
}
