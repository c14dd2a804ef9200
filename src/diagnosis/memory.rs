//! Page faults that ended in SIGSEGV.

use super::instruction::{faulting_touch, in_brackets};
use super::words::{self, hex, verb};
use super::{Diagnosis, Kind, SEGV_ACCERR, SEGV_MAPERR, certain, likely, null, stack};
use crate::arch::{self, Registers};
use crate::errno;
use crate::evidence::{Access, Backing, Evidence, Region};
use crate::page;

/// A call's error as a pointer begins here. mmap() fails with -1, MAP_FAILED.
const LEAST_ERROR: u64 = errno::MAX.cast_unsigned().wrapping_neg();

pub(super) fn diagnose(facts: &Evidence, code: i32) -> Option<Diagnosis> {
    let address = facts.fault_address?;
    facts.page_fault?;
    if arch::syscall::VSYSCALL.contains(&address) {
        return None;
    }
    if facts.is_protection_key() {
        return protection_key(facts);
    }
    if facts.access() == Access::Execute {
        return fetch(facts, address, code);
    }
    null::diagnose(facts, address)
        .or_else(|| stack::overflow(facts, address, code))
        .or_else(|| kernel_address(facts, address))
        .or_else(|| read_only(facts, code))
        .or_else(|| guard_page(facts, address, code))
}

/// Instructions could not be fetched from where the instruction pointer points.
fn fetch(facts: &Evidence, address: u64, code: i32) -> Option<Diagnosis> {
    let registers = facts.registers.as_ref()?;
    let memory = &facts.memory;
    if arch::instruction_pointer(registers) != address {
        // The rest of the instruction lies behind the end of a page; its beginning is no wild address.
        return None;
    }
    if address < arch::LEAST_ADDRESS && memory.at.is_none() {
        return jump_to_null(facts, address, registers);
    }
    match &memory.at {
        Some(at) if code == SEGV_ACCERR && !at.permissions.execute => certain(
            Kind::ExecuteNonExecutable,
            format!("executes memory that is not executable ({}), at {}", words::region(at), hex(address)),
        ),
        None if memory.is_hole() && address >= arch::KERNEL_ADDRESS => {
            certain(Kind::JumpIntoTheWild, format!("jumps to {}, an address of the kernel", hex(address)))
        }
        None if memory.is_hole() && code == SEGV_MAPERR => certain(
            Kind::JumpIntoTheWild,
            format!(
                "jumps to {}, where nothing is mapped: a broken function pointer or return address, or unloaded code",
                hex(address)
            ),
        ),
        _ => None,
    }
}

fn jump_to_null(facts: &Evidence, address: u64, registers: &Registers) -> Option<Diagnosis> {
    let was_called = arch::has_just_been_called(registers) && !facts.is_compat;
    let caller = if facts.frames.len() > 1 { "; the caller is the next frame" } else { "" };
    match (address, was_called) {
        (0, true) => certain(Kind::JumpToNull, format!("jumps to NULL: a function pointer is 0{caller}")),
        (0, false) => certain(Kind::JumpToNull, "jumps to NULL: a function pointer or a return address is 0"),
        _ => likely(
            Kind::JumpToNull,
            format!("jumps to {}: near NULL, so a function pointer or a return address is broken", hex(address)),
        ),
    }
}

fn kernel_address(facts: &Evidence, address: u64) -> Option<Diagnosis> {
    if address < arch::KERNEL_ADDRESS || facts.memory.at.is_some() {
        return None;
    }
    let touch = faulting_touch(facts);
    let verb = verb(facts);
    let base = touch.as_ref().and_then(|touch| touch.base.as_ref()).map(|base| base.value);
    let text = match (touch, base) {
        (Some(touch), Some(LEAST_ERROR..)) if touch.index.is_none() && !touch.is_on_stack => format!(
            "{verb} {}: the pointer is {}, as a failed call returns it{}",
            hex(address),
            base.unwrap_or_default() as i64,
            in_brackets(&touch)
        ),
        (Some(touch), _) => format!("{verb} {}, an address of the kernel{}", hex(address), in_brackets(&touch)),
        (None, _) => format!("{verb} {}, an address of the kernel", hex(address)),
    };
    certain(Kind::KernelAddress, text)
}

fn read_only(facts: &Evidence, code: i32) -> Option<Diagnosis> {
    let at = facts.memory.at.as_ref()?;
    if facts.access() != Access::Write || at.permissions.write || !at.permissions.read || code != SEGV_ACCERR {
        return None;
    }
    let why = match (&at.backing, at.permissions.execute) {
        (Backing::File(_), true) => ": code",
        (Backing::File(_), false) if !at.permissions.shared => ": constants and string literals lie there",
        _ => "",
    };
    let registers = faulting_touch(facts).as_ref().map(in_brackets).unwrap_or_default();
    certain(Kind::WriteToReadOnly, format!("writes to read-only memory ({}){why}{registers}", words::region(at)))
}

/// SEGV_PKUERR, or the error code's bit.
pub(super) fn protection_key(facts: &Evidence) -> Option<Diagnosis> {
    let at = facts.memory.at.as_ref().map(|at| format!(" ({})", words::region(at))).unwrap_or_default();
    certain(
        Kind::ProtectionKey,
        format!("{} memory{at} that the thread's protection key closes (pkey_set)", verb(facts)),
    )
}

/// An access beyond a mapping's end, where a page without permissions was put to catch it.
fn guard_page(facts: &Evidence, address: u64, code: i32) -> Option<Diagnosis> {
    let memory = &facts.memory;
    let guard = memory.at.as_ref().filter(|at| at.is_guard() && at.holds(address))?;
    if code != SEGV_ACCERR {
        return None;
    }
    let sp = facts.registers.as_ref().map(arch::stack_pointer);
    let is_buffer = |beside: &Region| beside.permissions.read && sp.is_some_and(|sp| !beside.holds(sp));
    let behind =
        memory.below.as_ref().filter(|below| below.end == guard.start).map(|below| (address - guard.start, below));
    let before =
        memory.above.as_ref().filter(|above| above.start == guard.end).map(|above| (guard.end - address, above));
    let (distance, beside, place) = match (behind, before) {
        (Some((behind, below)), Some((before, _))) if behind < before => (behind, below, "behind the end"),
        (Some((behind, below)), None) => (behind, below, "behind the end"),
        (_, Some((before, above))) => (before, above, "before the start"),
        (None, None) => return None,
    };
    // It is the nearer half of the smallest guard, so that a neighbour that isn't known is not nearer.
    if distance > page::size() / 2 || !is_buffer(beside) {
        return None;
    }
    let registers = faulting_touch(facts).as_ref().map(in_brackets).unwrap_or_default();
    likely(
        Kind::GuardPageOverrun,
        format!(
            "{} into a guard page, {distance} bytes {place} of the memory beside it ({}){registers}",
            verb(facts),
            words::region(beside)
        ),
    )
}

#[cfg(test)]
mod tests {
    use super::super::Confidence;
    use super::super::cases::{CODE, Case, confidence, far, fault, file, kind, region, text};
    use super::*;

    /// An instruction fetch that failed at `rip`.
    fn fetch_at(code: i32, address: u64) -> Case {
        let mut case = fault(code, address, 0x14);
        case.registers.rip = address;
        case.registers.rsp = 0x7ffd_0000_0008;
        case
    }

    #[test]
    fn a_call_to_null_names_the_caller_where_there_is_one() {
        let case = fetch_at(1, 0);
        assert_eq!(text(&case), "jumps to NULL: a function pointer is 0");
        let mut case = case.called(&["?", "call"]);
        assert_eq!(text(&case), "jumps to NULL: a function pointer is 0; the caller is the next frame");
        // After a return the stack pointer is a multiple of 16.
        case.registers.rsp -= 8;
        assert_eq!(text(&case), "jumps to NULL: a function pointer or a return address is 0");
    }

    #[test]
    fn a_fetch_elsewhere_than_at_rip_is_not_judged() {
        for address in [0, 0x10_0000] {
            let mut case = fetch_at(1, address).mapped(&[far()]);
            assert!(kind(&case).is_some());
            case.registers.rip = CODE;
            assert_eq!(kind(&case), None);
        }
    }

    #[test]
    fn a_jump_into_the_wild_needs_a_hole() {
        let mut case = fetch_at(1, 0x10_0000);
        assert_eq!(kind(&case), None, "what is mapped there is unknown");
        case.regions = vec![far()];
        assert_eq!(kind(&case), Some(Kind::JumpIntoTheWild));
        case.regions = vec![region(0x10_0000, 0x10_1000, "r-x")];
        assert_eq!(kind(&case), None, "it is code");
    }

    #[test]
    fn data_is_not_executed() {
        let mut case = fetch_at(2, 0x10_0000);
        case.regions = vec![region(0x10_0000, 0x10_1000, "rw-")];
        assert_eq!(text(&case), "executes memory that is not executable (anonymous memory, rw-p), at 0x100000");
        assert_eq!(confidence(&case), Some(Confidence::Certain));
        case.regions = vec![region(0x10_0000, 0x10_1000, "r-x")];
        assert_eq!(kind(&case), None);
    }

    #[test]
    fn a_write_to_constants() {
        // mov byte [rdi], 1
        let mut case = Case { code: vec![0xc6, 0x07, 1], ..fault(2, 0x10_0040, 7) };
        case.registers.rdi = 0x10_0040;
        case.regions = vec![file("/bin/x", region(0x10_0000, 0x10_1000, "r--"))];
        assert_eq!(
            text(&case),
            "writes to read-only memory (/bin/x, r--p): constants and string literals lie there (rdi is 0x100040)"
        );
        // mov qword [rdi], 1: the processor reports the first byte, or the first one behind a page's end.
        case.code = vec![0x48, 0xc7, 0x07, 1, 0, 0, 0];
        case = case.at(0x10_0044);
        assert!(!text(&case).contains("rdi"));
        case.registers.rdi = 0xf_fffc;
        case = case.at(0x10_0000);
        assert!(text(&case).ends_with("(rdi is 0xffffc)"));
        case.registers.rdi += 8;
        assert!(!text(&case).contains("rdi"));
        case.error_code = 5;
        assert_eq!(kind(&case), None, "reads are allowed there");
        case.error_code = 7;
        case.regions = vec![region(0x10_0000, 0x10_1000, "rw-")];
        assert_eq!(kind(&case), None, "so are writes");
    }

    #[test]
    fn an_address_of_the_kernel() {
        // mov eax, [rdi]
        let mut case = Case { code: vec![0x8b, 0x07], ..fault(1, u64::MAX, 5) }.mapped(&[far()]);
        case.registers.rdi = u64::MAX;
        assert_eq!(
            text(&case),
            "reads 0xffffffffffffffff: the pointer is -1, as a failed call returns it (rdi is 0xffffffffffffffff)"
        );
        case.registers.rdi = 0xffff_8000_0000_0000;
        assert_eq!(text(&case), "reads 0xffffffffffffffff, an address of the kernel");
        case = case.at(0xffff_8000_0000_0000);
        assert!(text(&case).ends_with("an address of the kernel (rdi is 0xffff800000000000)"));
        case = case.at(0xffff_ffff_ff60_0000);
        assert_eq!(kind(&case), None, "the vsyscall page");
    }

    #[test]
    fn a_protection_key_has_its_own_code_and_bit() {
        let mut case = fault(4, 0x10_0000, 0x26).mapped(&[far()]);
        assert_eq!(kind(&case), Some(Kind::ProtectionKey));
        case.si_code = 2;
        assert_eq!(kind(&case), Some(Kind::ProtectionKey));
        case.error_code = 6;
        assert_eq!(kind(&case), None);
    }

    /// A guard page at 0x20000 with memory on both sides.
    fn guarded(address: u64) -> Case {
        fault(2, address, 6).mapped(&[below(), region(0x2_0000, 0x2_1000, "---"), above()])
    }

    fn below() -> Region {
        region(0x1_f000, 0x2_0000, "rw-")
    }

    fn above() -> Region {
        region(0x2_1000, 0x2_2000, "rw-")
    }

    #[test]
    fn a_guard_page_catches_an_overrun_on_the_nearer_side() {
        assert!(
            text(&guarded(0x2_0010)).starts_with("writes into a guard page, 16 bytes behind the end of the memory")
        );
        assert!(
            text(&guarded(0x2_0ff8)).starts_with("writes into a guard page, 8 bytes before the start of the memory")
        );
        assert_eq!(confidence(&guarded(0x2_0010)), Some(Confidence::Likely));
    }

    #[test]
    fn a_guard_page_without_a_neighbour_is_a_reservation() {
        let guard = region(0x2_0000, 0x2_1000, "---");
        let case = guarded(0x2_0010).mapped(&[region(0x1_e000, 0x1_f000, "rw-"), guard.clone()]);
        assert_eq!(kind(&case), None, "not adjacent");
        let case = case.mapped(std::slice::from_ref(&guard));
        assert_eq!(kind(&case), None, "nothing beside it");
        let case = case.mapped(&[guard.clone(), above()]);
        assert_eq!(kind(&case), None, "what may lie nearer is unknown");
        let case = case.at(0x2_0ff0);
        assert_eq!(kind(&case), Some(Kind::GuardPageOverrun));
        let case = case.mapped(&[guard, region(0x2_1000, 0x2_2000, "---")]);
        assert_eq!(kind(&case), None, "no memory that one overruns");
        let case = guarded(0x2_1800).mapped(&[below(), region(0x2_0000, 0x4_0000, "---")]);
        assert_eq!(kind(&case), None, "too far behind");
        let case = guarded(0x2_0010).mapped(&[below(), region(0x2_0000, 0x2_1000, "r--"), above()]);
        assert_eq!(kind(&Case { error_code: 4, ..case }), None, "no guard");
        let mut case = guarded(0x2_0010);
        case.registers.rsp = 0x1_f800;
        assert_eq!(kind(&case), None, "the stack below");
    }

    #[test]
    fn a_hole_alone_says_nothing() {
        assert_eq!(kind(&fault(1, 0x10_0000, 4).mapped(&[far()])), None);
    }

    #[test]
    fn without_the_error_code_nothing_is_known() {
        assert_eq!(kind(&fault(1, 0x18, 4)), Some(Kind::NullDereference));
        assert_eq!(
            kind(&Case { trap_nr: 13, ..fault(1, 0x18, 4) }),
            None,
            "the last trap was another one: it was sent"
        );
    }
}
