//! SIGILL and SIGTRAP.

use super::instruction::{decode, decoded};
use super::{Diagnosis, Kind, SI_KERNEL, certain, checked, likely, trap};
use crate::arch::{
    BREAKPOINT, BREAKPOINT_CODE, Code, INSTRUCTION_BYTES_MAX, Instruction, NO_INSTRUCTION_CODE, TrapKind,
};
use crate::evidence::Evidence;
use crate::hex::digits;

pub(super) fn diagnose(facts: &Evidence) -> Option<Diagnosis> {
    if let Some(refusal) = facts.refusal {
        return checked::refused(facts, refusal);
    }
    if facts.si_code != Some(NO_INSTRUCTION_CODE) {
        return None;
    }
    match decode(facts) {
        Code::Valid(instruction) => known(&instruction),
        Code::Invalid => {
            certain(Kind::IllegalInstruction, format!("executes bytes that are no instruction ({})", bytes(facts)))
        }
        Code::Unlisted => {
            let why = "one that only newer processors have (as of APX or AVX10), or no code";
            likely(
                Kind::IllegalInstruction,
                format!("executes bytes that are no known instruction ({}): {why}", bytes(facts)),
            )
        }
        Code::Unknown => None,
    }
}

/// The bytes that may be one instruction.
fn bytes(facts: &Evidence) -> String {
    let code = facts.code.as_deref().unwrap_or_default();
    digits(code.get(..INSTRUCTION_BYTES_MAX.min(code.len())).unwrap_or_default())
}

fn known(instruction: &Instruction<'_>) -> Option<Diagnosis> {
    let name = instruction.name();
    if instruction.is_trap() {
        let why = "which compilers put where a check has failed or code must not be reached (__builtin_trap)";
        return certain(Kind::TrapInstruction, format!("executes {name}, {why}"));
    }
    if instruction.is_privileged() {
        return likely(Kind::PrivilegedInstruction, format!("executes {name}, which only the kernel may"));
    }
    let features = instruction.features();
    // A valid instruction that every processor has: something else is wrong with it.
    (!features.is_empty()).then(|| {
        let needs = features.join(" and ");
        let text = format!("executes {name}, which needs {needs}: this processor or kernel does not offer it");
        likely(Kind::UnsupportedInstruction, text)
    })?
}

/// SIGTRAP.
pub(super) fn breakpoint(facts: &Evidence, code: i32) -> Option<Diagnosis> {
    let has_trapped = code == SI_KERNEL && trap(facts) == Some(TrapKind::Breakpoint);
    let is_at_it = || Some(code) == BREAKPOINT_CODE && decoded(facts).is_some_and(|at| at.is_breakpoint());
    (has_trapped || is_at_it()).then(|| {
        let why = "a breakpoint without a debugger, or a failed check that is made to end there";
        certain(Kind::Breakpoint, format!("executes {BREAKPOINT}: {why}"))
    })?
}

#[cfg(test)]
mod tests {
    use super::super::Confidence;
    use super::super::cases::{Case, confidence, kind, signal, text};
    use super::*;

    fn illegal(code: &[u8]) -> Case {
        Case { code: code.to_vec(), ..signal(4, NO_INSTRUCTION_CODE) }
    }

    #[test]
    fn ud2_is_a_trap() {
        assert_eq!(kind(&illegal(&[0x0f, 0x0b])), Some(Kind::TrapInstruction));
        // ud1 eax, [eax+2]: what clang's -fsanitize-trap makes
        assert_eq!(kind(&illegal(&[0x67, 0x0f, 0xb9, 0x40, 0x02])), Some(Kind::TrapInstruction));
    }

    #[test]
    fn bytes_that_are_no_instruction() {
        assert_eq!(text(&illegal(&[0x06, 0x90])), "executes bytes that are no instruction (0690)");
        assert_eq!(confidence(&illegal(&[0x06, 0x90])), Some(Confidence::Certain));
        // add eax, r16d, with APX's prefix; an instruction of the seventh table, with AVX's; one of the table behind 0f 38
        for newer in [
            &[0xd5, 0x10, 0x01, 0xc0][..],
            &[0xc4, 0xe7, 0x7b, 0xf8, 0xc0, 1, 0, 0, 0],
            &[0x66, 0x0f, 0x38, 0x8a, 0xc0],
        ] {
            assert!(text(&illegal(newer)).contains("no known instruction"), "{newer:x?}: {}", text(&illegal(newer)));
            assert_eq!(confidence(&illegal(newer)), Some(Confidence::Likely));
        }
        assert_eq!(kind(&illegal(&[0x0f])), None, "cut");
        assert_eq!(kind(&Case { code: Vec::new(), ..illegal(&[]) }), None);
        assert_eq!(kind(&Case { si_code: SI_KERNEL, ..illegal(&[0x06, 0x90]) }), None);
    }

    #[test]
    fn what_a_processor_may_lack_is_named() {
        // vpaddd zmm0, zmm0, zmm0
        let case = illegal(&[0x62, 0xf1, 0x7d, 0x48, 0xfe, 0xc0]);
        assert_eq!(confidence(&case), Some(Confidence::Likely));
        assert!(text(&case).starts_with("executes vpaddd, which needs AVX512F: "));
        assert_eq!(kind(&illegal(&[0x90])), None, "nop: every processor has it");
        assert_eq!(kind(&illegal(&[0x0f, 0x58, 0xc1])), None, "addps: so has it SSE");
    }

    #[test]
    fn int3_is_told_by_the_trap() {
        let case = Case { trap_nr: 3, code_before: 0xcc, ..signal(5, SI_KERNEL) };
        assert_eq!(confidence(&case), Some(Confidence::Certain));
        assert_eq!(kind(&case), Some(Kind::Breakpoint));
        assert_eq!(kind(&Case { trap_nr: 1, ..case.clone() }), None);
        assert_eq!(kind(&Case { si_code: 2, ..case }), None);
    }
}
