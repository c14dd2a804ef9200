//! Page faults that ended in SIGSEGV.

use super::instruction::{faulting_touch, in_brackets};
use super::words::{self, hex, verb};
use super::{Diagnosis, Kind, SEGV_ACCERR, SEGV_MAPERR, certain, jump, likely, null, read_only, stack, truncated};
use crate::arch;
use crate::evidence::{Access, Backing, Evidence, Region};
use crate::page;

pub(super) fn diagnose(facts: &Evidence, code: i32) -> Option<Diagnosis> {
    let address = facts.fault_address?;
    if facts.page_fault.is_none() {
        let is_known = facts.registers.is_some() || code != SEGV_MAPERR;
        return if is_known { None } else { null::by_address(facts, address) };
    }
    if arch::syscall::VSYSCALL.contains(&address) {
        return None;
    }
    if facts.is_protection_key() {
        return protection_key(facts);
    }
    if facts.access() == Access::Execute {
        return jump::fetch(facts, address, code);
    }
    stack::broken_pointer(facts, address)
        .or_else(|| null::diagnose(facts, address))
        .or_else(|| stack::overflow(facts, address, code))
        .or_else(|| kernel_address(facts, address))
        .or_else(|| read_only::diagnose(facts, code))
        .or_else(|| guard_page(facts, address, code))
        .or_else(|| truncated::diagnose(facts, address))
        .or_else(|| guard_mark(facts, address, code))
}

fn kernel_address(facts: &Evidence, address: u64) -> Option<Diagnosis> {
    if address < arch::KERNEL_ADDRESS || facts.memory.at.is_some() {
        return None;
    }
    let touch = faulting_touch(facts);
    let verb = verb(facts);
    let base = touch.as_ref().and_then(|touch| touch.base.as_ref()).map(|base| base.value);
    // Not of the stack, and the sum of no two.
    let pointer = touch.as_ref().filter(|touch| touch.index.is_none() && !touch.is_on_stack).zip(base);
    match pointer {
        Some((touch, base)) if null::is_error(base) && !null::may_be_rounded(facts, base) => {
            return null::no_address(facts, address, base, touch);
        }
        Some((touch, base)) if !null::is_error(base) && truncated::is_extended(base) => {
            return truncated::extended(facts, address, base, touch);
        }
        _ => {}
    }
    let registers = touch.as_ref().map(in_brackets).unwrap_or_default();
    certain(Kind::KernelAddress, format!("{verb} {}, an address of the kernel{registers}", hex(address)))
}

/// SEGV_PKUERR, or the error code's bit.
pub(super) fn protection_key(facts: &Evidence) -> Option<Diagnosis> {
    let at = facts.memory.at.as_ref().map(|at| format!(" ({})", words::region(at))).unwrap_or_default();
    certain(
        Kind::ProtectionKey,
        format!("{} memory{at} that the thread's protection key closes (pkey_set)", verb(facts)),
    )
}

/// From Linux 6.13 on a guard may be a mark on pages of a mapping (MADV_GUARD_INSTALL): the mapping allows the access, and yet the kernel says that
/// nothing is mapped. A handler, or another thread at the same moment, may have mapped it since the fault.
fn guard_mark(facts: &Evidence, address: u64, code: i32) -> Option<Diagnosis> {
    let at = facts.memory.at.as_ref().filter(|at| at.holds(address) && at.backing != Backing::MainStack)?;
    let allows = match facts.access() {
        Access::Write => at.permissions.write,
        Access::Read => at.permissions.read,
        Access::Execute => false,
    };
    // In the mapping of its own stack it may be that stack's guard, or the one of a stack beside it.
    let is_stacks = facts.registers.as_ref().is_none_or(|registers| at.holds(arch::stack_pointer(registers)));
    if code != SEGV_MAPERR || !allows || is_stacks || facts.is_present() || facts.is_caught {
        return None;
    }
    let (verb, what) = match facts.access() {
        Access::Write => ("writes into", "writable"),
        _ => ("reads from", "readable"),
    };
    // What has the guard at its begin is not known. Of a guard of several pages, an overrun reaches the first one, and at its begin.
    let before = page::start(address).checked_sub(at.start).filter(|&before| before > 0)?;
    let place = match page::offset(address) <= page::size() / 2 {
        true => format!("behind {before} {what} bytes"),
        false => format!("{} bytes behind the begin of its mapping", address - at.start),
    };
    likely(Kind::GuardPageOverrun, format!("{verb} a guard (MADV_GUARD_INSTALL) {place} ({})", words::region(at)))
}

/// An access beyond a mapping's end, where a page without permissions was put to catch it.
fn guard_page(facts: &Evidence, address: u64, code: i32) -> Option<Diagnosis> {
    let memory = &facts.memory;
    let guard = memory.at.as_ref().filter(|at| at.is_guard() && at.holds(address))?;
    if code != SEGV_ACCERR {
        return None;
    }
    let sp = facts.registers.as_ref().map(arch::stack_pointer);
    if sp.is_some_and(|sp| guard.holds(sp)) {
        return None;
    }
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
    // A guard has never had any, unless it was made of memory that was in use.
    let or = if facts.past.has_own_pages {
        ", or into memory that was in use and has been closed since (mprotect), as what was freed may be"
    } else {
        ""
    };
    likely(
        Kind::GuardPageOverrun,
        format!(
            "{} into a guard page, {distance} bytes {place} of the memory beside it ({}){or}{registers}",
            verb(facts),
            words::region(beside)
        ),
    )
}

#[cfg(test)]
mod tests {
    use super::super::Confidence;
    use super::super::cases::{Case, confidence, far, fault, kind, region, text};
    use super::*;

    #[test]
    fn an_address_of_the_kernel() {
        // mov eax, [rdi]
        let mut case = Case { code: vec![0x8b, 0x07], ..fault(1, u64::MAX, 5) }.mapped(&[far()]);
        case.registers.rdi = u64::MAX;
        assert_eq!(
            text(&case),
            "reads 0xffffffffffffffff: the pointer is -1, as a failed call returns it (rdi is 0xffffffffffffffff)"
        );
        case.registers.rdi = 5u64.wrapping_neg();
        case = case.at(5u64.wrapping_neg());
        assert!(
            text(&case).contains("the pointer is -5, a negative number, or what lies before a NULL pointer"),
            "{}",
            text(&case)
        );
        let rounded = 32u64.wrapping_neg();
        case.registers.rdi = rounded;
        let string = Case { modules: vec!["/lib/libc.so.6"], ..case.clone().at(rounded) }.called(&["__strlen_evex"]);
        assert_eq!(text(&string), "reads 0xffffffffffffffe0, an address of the kernel (rdi is 0xffffffffffffffe0)");
        case = case.at(u64::MAX);
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
        assert!(!text(&guarded(0x2_0010)).contains("closed since"));
        let used = Case { has_own_pages: true, ..guarded(0x2_0010) };
        assert!(text(&used).contains(", or into memory that was in use and has been closed since (mprotect)"));
        let mut stack = guarded(0x2_0ff8);
        stack.registers.rsp = 0x2_0ff8;
        assert_ne!(kind(&Case { code: vec![0xc3], ..stack }), Some(Kind::GuardPageOverrun), "a stack that was closed");
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
