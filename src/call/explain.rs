//! What the cause among the calls says about a crash that its registers and mappings don't: the diagnosis.

use super::record::Call;
use crate::crash::{Crash, Diagnosis};

/// Diagnoses that a call makes certain, or is the reason for.
const UNMAPPED: [&str; 2] = ["jump_into_the_wild", "use_after_unmap"];
const TRUNCATED: [&str; 3] = ["file_truncated", "unbacked_shared_memory", "huge_pages_exhausted"];

/// Gives the crash the diagnosis that its cause allows.
pub fn explain(crash: &mut Crash, calls: &[Call]) {
    let Some((cause, relation)) =
        calls.iter().filter(|call| call.is_cause).find_map(|call| Some((call, call.relation.as_ref()?)))
    else {
        return;
    };
    let Some(address) = crash.fault_address else { return };
    let apart = crash.stitch.boottime_ns.saturating_sub(cause.ended_ns());
    let when = format!("{:.1} ms before", apart as f64 / 1e6);
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
    let confidence = if relation.certain { "certain" } else { "likely" };
    let known = crash.diagnosis.as_ref().map(|diagnosis| diagnosis.kind);
    let function = &cause.function;
    let (kind, text) = match relation.kind {
        "unmapped" | "moved" if known.is_none_or(|kind| UNMAPPED.contains(&kind)) => {
            let did = if relation.kind == "moved" { "moved away" } else { "unmapped" };
            ("use_after_unmap", format!("{verb} {address}, which {function}(){who} {did} {when}"))
        }
        "truncated" if known.is_none_or(|kind| TRUNCATED.contains(&kind)) => {
            let name = crash.vma.as_ref().and_then(|vma| vma.mapping_name.as_deref()).unwrap_or("a file");
            (
                "file_truncated",
                format!("{verb} a mapping of {name} behind the file's end: {function}(){who} cut it {when}"),
            )
        }
        "protected" | "mapped" => {
            // What it was before is not lost: it says what kind of access failed.
            if let Some(diagnosis) = &mut crash.diagnosis {
                diagnosis.text = format!("{}; {function}(){who} made it so {when}", diagnosis.text);
            }
            return;
        }
        _ => return,
    };
    crash.diagnosis = Some(Diagnosis { kind, text, confidence });
}
