//! What the cause among the calls says about a crash that its registers and mappings don't: the diagnosis.

use super::record::Call;
use crate::crash::Crash;
use crate::diagnosis::{Confidence, Diagnosis, Kind};

/// Diagnoses that a call makes certain, or is the reason for.
const UNMAPPED: [Kind; 2] = [Kind::JumpIntoTheWild, Kind::UseAfterUnmap];
const TRUNCATED: [Kind; 3] = [Kind::FileTruncated, Kind::UnbackedSharedMemory, Kind::HugePagesExhausted];

const REFUSED: [Kind; 3] = [Kind::WriteToReadOnly, Kind::ExecuteNonExecutable, Kind::GuardPageOverrun];

/// Gives the crash the diagnosis that its cause allows.
pub fn explain(crash: &mut Crash, calls: &[Call]) {
    let Some((cause, relation)) =
        calls.iter().filter(|call| call.is_cause).find_map(|call| Some((call, call.relation.as_ref()?)))
    else {
        return;
    };
    let Some(address) = crash.fault_address else { return };
    let apart = crash.stitch.boottime_ns.saturating_sub(cause.ended_ns());
    let when = match apart {
        0..1_000_000 => format!("{} us before", apart / 1000),
        _ => format!("{:.1} ms before", apart as f64 / 1e6),
    };
    let who = match (cause.pid == crash.pid, cause.tid == crash.tid) {
        (true, true) => String::new(),
        (true, false) => format!(" of thread {}", cause.tid),
        (false, _) => format!(" of {} (PID {})", cause.comm, cause.pid),
    };
    let verb = match crash.page_fault.as_ref().map(|fault| fault.access) {
        Some("write") => "writes",
        Some("execute") => "executes",
        _ => "reads",
    };
    let confidence = Confidence::certain_if(relation.certain);
    let known = crash.diagnosis.as_ref().map(|diagnosis| diagnosis.kind);
    let function = &cause.function;
    let (kind, text) = match relation.kind {
        "unmapped" | "moved" if known.is_none_or(|kind| UNMAPPED.contains(&kind)) => {
            let did = if relation.kind == "moved" { "moved away" } else { "unmapped" };
            (Kind::UseAfterUnmap, format!("{verb} {address}, which {function}(){who} {did} {when}"))
        }
        "truncated" if known.is_none_or(|kind| TRUNCATED.contains(&kind)) => {
            let name = crash.vma.as_ref().and_then(|vma| vma.mapping_name.as_deref()).unwrap_or("a file");
            (
                Kind::FileTruncated,
                format!("{verb} a mapping of {name} behind the file's end: {function}(){who} cut it {when}"),
            )
        }
        "protected" | "mapped" => {
            // What it said before is not lost: it tells what kind of access failed.
            if let Some(diagnosis) = crash.diagnosis.as_mut().filter(|it| REFUSED.contains(&it.kind)) {
                diagnosis.text = format!("{}; {function}(){who} made it so {when}", diagnosis.text);
            }
            return;
        }
        _ => return,
    };
    crash.diagnosis = Some(Diagnosis { kind, text, confidence });
}

#[cfg(test)]
mod tests {
    use super::super::cause::tests::crash;
    use super::super::effect::tests::call;
    use super::super::record::Relation;
    use super::*;

    fn explained(known: Option<Kind>, kind: &'static str, cause: Call) -> Option<Diagnosis> {
        let mut crash = crash();
        crash.diagnosis =
            known.map(|kind| Diagnosis { kind, text: "what it was".to_owned(), confidence: Confidence::Likely });
        let relation = Some(Relation { kind, text: String::new(), certain: true });
        explain(&mut crash, &[call("other", &[], 0), Call { is_cause: true, relation, ..cause }]);
        crash.diagnosis
    }

    fn text(diagnosis: Option<Diagnosis>) -> String {
        diagnosis.map_or_else(String::new, |diagnosis| format!("{:?}: {}", diagnosis.kind, diagnosis.text))
    }

    #[test]
    fn a_cause_makes_a_diagnosis() {
        let munmap = || Call { entered_ns: 2_000_000, ..call("munmap", &[], 0) };
        let expected = "UseAfterUnmap: writes 0x100008, which munmap() unmapped 30.0 ms before";
        assert_eq!(text(explained(None, "unmapped", munmap())), expected);
        let thread = Call { tid: 101, ..munmap() };
        let expected = "UseAfterUnmap: writes 0x100008, which munmap() of thread 101 moved away 30.0 ms before";
        assert_eq!(text(explained(Some(Kind::JumpIntoTheWild), "moved", thread)), expected);
        assert_eq!(text(explained(Some(Kind::NullDereference), "unmapped", munmap())), "NullDereference: what it was");
        let other = Call { pid: 7, comm: "cutter".to_owned(), entered_ns: 31_995_000, ..call("ftruncate", &[], 0) };
        let other = Call { duration_ns: Some(2_000), ..other };
        let shown = text(explained(Some(Kind::FileTruncated), "truncated", other));
        assert!(shown.ends_with("ftruncate() of cutter (PID 7) cut it 1.0 ms before"), "{shown}");
    }

    #[test]
    fn what_refuses_is_added_to_what_was_refused() {
        let mprotect = || Call { entered_ns: 32_900_000, duration_ns: Some(0), ..call("mprotect", &[], 0) };
        let expected = "WriteToReadOnly: what it was; mprotect() made it so 100 us before";
        assert_eq!(text(explained(Some(Kind::WriteToReadOnly), "protected", mprotect())), expected);
        assert_eq!(text(explained(Some(Kind::StackOverflow), "protected", mprotect())), "StackOverflow: what it was");
        assert_eq!(text(explained(None, "protected", mprotect())), "");
    }
}
