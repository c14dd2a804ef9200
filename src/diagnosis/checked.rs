//! What some processors check beside the page tables: the tags of memory, the signatures of pointers, where a jump by a pointer leads, and whether
//! an address is aligned.

use super::instruction::{decoded, in_brackets};
use super::words::hex;
use super::{Diagnosis, Kind, certain, likely};
use crate::arch::{Instruction, Refusal, Touch};
use crate::evidence::Evidence;

/// What was overwritten, or else the stack is another one.
const OVERWRITTEN: &str = "it was overwritten, or the stack pointer is not that of the call";

pub(super) fn refused(facts: &Evidence, refusal: Refusal) -> Option<Diagnosis> {
    let address = facts.fault_address?;
    match refusal {
        Refusal::Landing { is_call } => {
            let by = if is_call { "calls" } else { "jumps to" };
            let why =
                "where no landing pad is (BTI): a broken pointer, or code that was built without branch protection";
            certain(Kind::NoLandingPad, format!("{by} {} by a pointer, {why}", hex(address)))
        }
        Refusal::Signature { is_return: true } => certain(
            Kind::SmashedStack,
            format!("the return address has a wrong signature (pointer authentication): {OVERWRITTEN}"),
        ),
        Refusal::Signature { is_return: false } => certain(
            Kind::WrongSignature,
            "uses a pointer with a wrong signature (pointer authentication): it was overwritten, or made for another use",
        ),
        Refusal::SpoiltReturn => likely(
            Kind::SmashedStack,
            format!("returns to {}, whose signature is wrong (pointer authentication): {OVERWRITTEN}", hex(address)),
        ),
        Refusal::Code(bytes) => certain(
            Kind::JumpIntoTheWild,
            format!("jumps to {}, where no instruction can be: it is not a multiple of {bytes}", hex(address)),
        ),
        Refusal::Stack(bytes) => certain(
            Kind::MisalignedAccess,
            format!("accesses memory by a stack pointer that is not a multiple of {bytes} ({})", hex(address)),
        ),
    }
}

/// The instruction's access at the fault address. There was no page fault that says what the access is to do.
fn touch_at(instruction: &Instruction<'_>, address: u64) -> Option<Touch> {
    instruction.touches().into_iter().find(|touch| address.wrapping_sub(touch.address) < touch.bytes)
}

fn verb(touch: Option<&Touch>) -> &'static str {
    match touch.map(|touch| (touch.reads, touch.writes)) {
        Some((true, false)) => "reads",
        Some((false, true)) => "writes",
        _ => "accesses",
    }
}

/// SEGV_MTESERR: the kernel program has seen that the last fault of the thread was such a check.
pub(super) fn tag(facts: &Evidence) -> Option<Diagnosis> {
    let address = facts.fault_address?;
    let touch = decoded(facts).and_then(|instruction| touch_at(&instruction, address));
    let (verb, registers) = (verb(touch.as_ref()), touch.as_ref().map(in_brackets).unwrap_or_default());
    let why = "by a pointer with another tag than the memory has (MTE): out of its block, or the block was freed";
    certain(Kind::TagMismatch, format!("{verb} {} {why}{registers}", hex(address)))
}

/// SEGV_MTEAERR
pub(super) fn tag_before() -> Option<Diagnosis> {
    certain(
        Kind::TagMismatch,
        "has accessed memory by a pointer with another tag than the memory has (MTE): the processor has only noted it, some time before",
    )
}

/// BUS_ADRALN of an instruction that needs an aligned address.
pub(super) fn alignment(facts: &Evidence, instruction: &Instruction<'_>) -> Option<Diagnosis> {
    let touch = touch_at(instruction, facts.fault_address?)?;
    let (bytes, _) = instruction.alignment(&touch).filter(|(bytes, _)| touch.address % bytes != 0)?;
    let what = format!("{} {}, which is not a multiple of {bytes}", verb(Some(&touch)), hex(touch.address));
    let text = format!("{what}, by an instruction that needs that{}", in_brackets(&touch));
    certain(Kind::MisalignedAccess, text)
}

#[cfg(test)]
mod tests {
    use super::super::Confidence;
    use super::super::cases::{Case, confidence, fault, kind, signal, tag_check, text};
    use super::*;

    #[test]
    fn the_pointer_with_the_wrong_tag_is_named() {
        // mov dword [rdi+8], 1
        let mut case = Case { code: vec![0xc7, 0x47, 8, 1, 0, 0, 0], ..tag_check(0x10_0008) };
        case.registers.rdi = 0x10_0000;
        let why = "by a pointer with another tag than the memory has (MTE): out of its block, or the block was freed";
        assert_eq!(text(&case), format!("writes 0x100008 {why} (rdi is 0x100000)"));
        assert_eq!(confidence(&case), Some(Confidence::Certain));
        case.registers.rdi = 0x20_0000;
        assert_eq!(text(&case), format!("accesses 0x100008 {why}"), "another access");
        assert!(text(&signal(11, 8)).starts_with("has accessed memory by a pointer with another tag"));
        assert_eq!(kind(&Case { si_code: 7, ..case.clone() }), None);
        assert_eq!(kind(&Case { cr2: 0x10_0000, ..case }), None, "it has sent itself that");
    }

    fn said(case: &Case, refusal: Refusal) -> (Kind, String) {
        let case = Case { refusal: Some(refusal), ..case.clone() };
        assert_eq!(confidence(&case), Some(Confidence::Certain));
        (kind(&case).unwrap(), text(&case))
    }

    #[test]
    fn what_was_refused_is_said() {
        let illegal = signal(4, 1);
        let (is, text) = said(&illegal, Refusal::Landing { is_call: true });
        assert_eq!(is, Kind::NoLandingPad);
        assert!(
            text.starts_with("calls 0x") && text.contains(" by a pointer, where no landing pad is (BTI)"),
            "{text}"
        );
        assert!(said(&illegal, Refusal::Landing { is_call: false }).1.starts_with("jumps to 0x"));
        assert_eq!(said(&signal(4, 2), Refusal::Signature { is_return: true }).0, Kind::SmashedStack);
        assert_eq!(said(&signal(4, 2), Refusal::Signature { is_return: false }).0, Kind::WrongSignature);
        let bus = Case { address: 0x10_0002, ..signal(7, 1) };
        let (is, text) = said(&bus, Refusal::Code(4));
        assert_eq!(is, Kind::JumpIntoTheWild);
        assert_eq!(text, "jumps to 0x100002, where no instruction can be: it is not a multiple of 4");
        assert_eq!(said(&bus, Refusal::Stack(16)).0, Kind::MisalignedAccess);
        let other = Case { refusal: Some(Refusal::Code(4)), ..fault(1, 0x18, 4) };
        assert_eq!(kind(&other), Some(Kind::NullDereference), "a signal of something else");
    }
}
