//! The diagnosis that follows from a recorded kernel call.

use super::words::{hex, verb};
use super::{Confidence, Diagnosis, Kind};
use crate::evidence::{Cause, Change, Evidence, Region};

/// Diagnoses that a call makes certain, or is the reason for.
const UNMAPPED: [Kind; 2] = [Kind::JumpIntoTheWild, Kind::UseAfterUnmap];
const TRUNCATED: [Kind; 2] = [Kind::FileTruncated, Kind::BehindEndOfFile];
const REFUSED: [Kind; 3] = [Kind::WriteToReadOnly, Kind::ExecuteNonExecutable, Kind::GuardPageOverrun];

/// The diagnosis from the cause among the calls; `found` is the one from registers and mappings.
pub(super) fn explain(facts: &Evidence, found: Option<Diagnosis>) -> Option<Diagnosis> {
    let (Some(cause), Some(address)) = (&facts.cause, facts.fault_address) else { return found };
    let known = found.as_ref().map(|found| found.kind);
    let is_one_of = |kinds: &[Kind]| known.is_none_or(|kind| kinds.contains(&kind));
    let (verb, function) = (verb(facts), &cause.function);
    let (who, when) = (caller(facts, cause), time_before(facts, cause));
    let (kind, text) = match cause.change {
        Change::Unmapped | Change::Moved if is_one_of(&UNMAPPED) => {
            let did = if cause.change == Change::Moved { "moved away" } else { "unmapped" };
            (Kind::UseAfterUnmap, format!("{verb} {}, which {function}(){who} {did} {when}", hex(address)))
        }
        Change::Truncated if is_one_of(&TRUNCATED) => {
            let name = facts.memory.at.as_ref().and_then(Region::name).unwrap_or_else(|| "a file".to_owned());
            let text = format!("{verb} a mapping of {name} behind the file's end: {function}(){who} cut it {when}");
            (Kind::FileTruncated, text)
        }
        // A call that made the file longer did not cut it.
        Change::Resized => {
            return found.map(|found| match found.kind {
                Kind::BehindEndOfFile => Diagnosis {
                    text: format!("{}; {function}(){who} made it longer {when}, and not long enough", found.text),
                    ..found
                },
                _ => found,
            });
        }
        Change::Protected | Change::Mapped => {
            // What it said before is not lost: it says what kind of access failed.
            return found.map(|found| match REFUSED.contains(&found.kind) {
                true => Diagnosis { text: format!("{}; {function}(){who} made it so {when}", found.text), ..found },
                false => found,
            });
        }
        _ => return found,
    };
    Some(Diagnosis { kind, text, confidence: Confidence::certain_if(cause.is_certain) })
}

/// The thread that made the call, if it was another one.
fn caller(facts: &Evidence, cause: &Cause) -> String {
    match (cause.pid == facts.thread.pid, cause.tid == facts.thread.tid) {
        (true, true) => String::new(),
        (true, false) => format!(" of thread {}", cause.tid),
        (false, _) => format!(" of {} (PID {})", cause.comm, cause.pid),
    }
}

fn time_before(facts: &Evidence, cause: &Cause) -> String {
    let apart = facts.at_ns.saturating_sub(cause.ended_ns);
    match apart {
        0..1_000_000 => format!("{} us before", apart / 1000),
        _ => format!("{:.1} ms before", apart as f64 / 1e6),
    }
}

#[cfg(test)]
mod tests {
    use super::super::cases::{fault, file, region};
    use super::*;

    const ADDRESS: u64 = 0x10_0008;

    /// A call of the thread itself that ended 30 ms before a write to ADDRESS.
    fn call(function: &str, change: Change) -> Cause {
        Cause {
            change,
            is_certain: true,
            function: function.to_owned(),
            pid: 100,
            tid: 100,
            comm: "own".to_owned(),
            ended_ns: 3_000_000,
        }
    }

    fn explained(known: Option<Kind>, cause: Cause) -> String {
        let mut evidence =
            fault(1, ADDRESS, 6).mapped(&[file("/data", region(0x10_0000, 0x10_1000, "rw-"))]).evidence();
        (evidence.at_ns, evidence.cause) = (33_000_000, Some(cause));
        let text = "what it was".to_owned();
        let found = known.map(|kind| Diagnosis { kind, text, confidence: Confidence::Likely });
        explain(&evidence, found).map_or_else(String::new, |found| format!("{:?}: {}", found.kind, found.text))
    }

    #[test]
    fn a_cause_makes_a_diagnosis() {
        let munmap = || call("munmap", Change::Unmapped);
        let expected = "UseAfterUnmap: writes 0x100008, which munmap() unmapped 30.0 ms before";
        assert_eq!(explained(None, munmap()), expected);
        let thread = Cause { tid: 101, change: Change::Moved, ..munmap() };
        let expected = "UseAfterUnmap: writes 0x100008, which munmap() of thread 101 moved away 30.0 ms before";
        assert_eq!(explained(Some(Kind::JumpIntoTheWild), thread), expected);
        assert_eq!(explained(Some(Kind::NullDereference), munmap()), "NullDereference: what it was");
        let other = call("ftruncate", Change::Truncated);
        let other = Cause { pid: 7, comm: "cutter".to_owned(), ended_ns: 31_997_000, ..other };
        let shown = explained(Some(Kind::FileTruncated), other);
        assert!(shown.contains("a mapping of /data behind"), "{shown}");
        assert!(shown.ends_with("ftruncate() of cutter (PID 7) cut it 1.0 ms before"), "{shown}");
    }

    #[test]
    fn what_grew_was_not_cut() {
        let grew = || Cause { ended_ns: 31_997_000, ..call("ftruncate", Change::Resized) };
        let expected = "BehindEndOfFile: what it was; ftruncate() made it longer 1.0 ms before, and not long enough";
        assert_eq!(explained(Some(Kind::BehindEndOfFile), grew()), expected);
        assert_eq!(explained(Some(Kind::FileSystemFull), grew()), "FileSystemFull: what it was");
        let cut = call("ftruncate", Change::Truncated);
        assert_eq!(
            explained(Some(Kind::FileSystemFull), cut),
            "FileSystemFull: what it was",
            "it is inside of the file"
        );
    }

    #[test]
    fn what_refuses_is_added_to_what_was_refused() {
        let mprotect = || Cause { ended_ns: 32_900_000, ..call("mprotect", Change::Protected) };
        let expected = "WriteToReadOnly: what it was; mprotect() made it so 100 us before";
        assert_eq!(explained(Some(Kind::WriteToReadOnly), mprotect()), expected);
        assert_eq!(explained(Some(Kind::StackOverflow), mprotect()), "StackOverflow: what it was");
        assert_eq!(explained(None, mprotect()), "");
    }
}
