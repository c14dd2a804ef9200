//! Page faults that ended in SIGSEGV.

use super::super::record::Diagnosis;
use super::facts::{Backing, Facts, Mapping, hex};
use super::instruction::{Touch, faulting_touch};
use super::{PAGE, SEGV_ACCERR, SEGV_MAPERR, certain, likely, null, stack, sure};

/// The kernel's half of the address space begins here.
const KERNEL: u64 = 1 << 63;
/// The page of the old fixed-address system calls, which no VMA list shows.
const VSYSCALL: std::ops::Range<u64> = 0xffff_ffff_ff60_0000..0xffff_ffff_ff60_1000;
/// A call's error as a pointer: MAX_ERRNO. mmap() fails with -1, MAP_FAILED.
const LEAST_ERROR: u64 = 4095u64.wrapping_neg();

pub(super) fn diagnose(facts: &Facts, code: i32) -> Option<Diagnosis> {
    let address = facts.fault_address?;
    facts.page_fault?;
    if VSYSCALL.contains(&address) {
        return None;
    }
    if facts.is_protection_key() {
        return protection_key(facts);
    }
    if facts.is_fetch() {
        return fetch(facts, address, code);
    }
    null::diagnose(facts, address)
        .or_else(|| stack::overflow(facts, address, code))
        .or_else(|| kernel_address(facts, address))
        .or_else(|| read_only(facts, code))
        .or_else(|| guard_page(facts, address, code))
        .or_else(|| unmapped_before(facts, address))
}

/// Instructions could not be fetched from where `rip` points.
fn fetch(facts: &Facts, address: u64, code: i32) -> Option<Diagnosis> {
    let registers = facts.registers.as_ref()?;
    let memory = &facts.memory;
    if registers.rip != address {
        // The rest of an instruction lies behind a page's end; where it began is no wild place.
        return None;
    }
    if address < null::NEAR && memory.at.is_none() {
        return jump_to_null(facts, address, registers.rsp);
    }
    match &memory.at {
        Some(at) if code == SEGV_ACCERR && !at.executable => certain(
            "execute_non_executable",
            format!("executes memory that is not executable ({}), at {}", at.text(), hex(address)),
        ),
        None if memory.is_hole() && address >= KERNEL => {
            certain("jump_into_the_wild", format!("jumps to {}, an address of the kernel", hex(address)))
        }
        None if memory.is_hole() && facts.unmapped_before == Some(true) => certain(
            "use_after_unmap",
            format!("executes {}, where code was mapped before and no longer is", hex(address)),
        ),
        None if memory.is_hole() && code == SEGV_MAPERR => certain(
            "jump_into_the_wild",
            format!(
                "jumps to {}, where nothing is mapped: a broken function pointer or return address, or unloaded code",
                hex(address)
            ),
        ),
        _ => None,
    }
}

fn jump_to_null(facts: &Facts, address: u64, rsp: u64) -> Option<Diagnosis> {
    // A call has just pushed 8 bytes below a multiple of 16 (System V ABI 3.2.2); a return has taken them away.
    let was_called = rsp % 16 == 8 && !facts.is_compat;
    let caller = if facts.frames.len() > 1 { "; the caller is the next frame" } else { "" };
    match (address, was_called) {
        (0, true) => certain("jump_to_null", format!("jumps to NULL: a function pointer is 0{caller}")),
        (0, false) => certain("jump_to_null", "jumps to NULL: a function pointer or a return address is 0"),
        _ => likely(
            "jump_to_null",
            format!("jumps to {}: near NULL, so a function pointer or a return address is broken", hex(address)),
        ),
    }
}

fn kernel_address(facts: &Facts, address: u64) -> Option<Diagnosis> {
    if address < KERNEL || facts.memory.at.is_some() {
        return None;
    }
    let touch = faulting_touch(facts);
    let verb = facts.verb();
    let base = touch.as_ref().and_then(|touch| touch.base).map(|(_, value)| value);
    let text = match (touch, base) {
        (Some(touch), Some(LEAST_ERROR..)) if touch.index.is_none() && !touch.is_on_stack() => format!(
            "{verb} {}: the pointer is {}, as a failed call returns it{}",
            hex(address),
            base.unwrap_or_default() as i64,
            touch.in_brackets()
        ),
        (Some(touch), _) => format!("{verb} {}, an address of the kernel{}", hex(address), touch.in_brackets()),
        (None, _) => format!("{verb} {}, an address of the kernel", hex(address)),
    };
    certain("kernel_address", text)
}

fn read_only(facts: &Facts, code: i32) -> Option<Diagnosis> {
    let at = facts.memory.at.as_ref()?;
    if !facts.is_write() || at.writable || !at.readable || code != SEGV_ACCERR {
        return None;
    }
    let why = match (&at.backing, at.executable) {
        (Backing::File(_), true) => ": code",
        (Backing::File(_), false) if !at.shared => ": constants and string literals lie there",
        _ => "",
    };
    let registers = faulting_touch(facts).map(|touch| touch.in_brackets()).unwrap_or_default();
    certain("write_to_read_only", format!("writes to read-only memory ({}){why}{registers}", at.text()))
}

/// SEGV_PKUERR, or the error code's bit.
pub(super) fn protection_key(facts: &Facts) -> Option<Diagnosis> {
    let at = facts.memory.at.as_ref().map(|at| format!(" ({})", at.text())).unwrap_or_default();
    certain("protection_key", format!("{} memory{at} that the thread's protection key closes (pkey_set)", facts.verb()))
}

/// An access beyond a mapping's end, where a page without permissions was put to catch it.
fn guard_page(facts: &Facts, address: u64, code: i32) -> Option<Diagnosis> {
    let memory = &facts.memory;
    let guard = memory.at.as_ref().filter(|at| at.is_guard() && at.holds(address))?;
    if code != SEGV_ACCERR {
        return None;
    }
    let rsp = facts.registers.as_ref().map(|registers| registers.rsp);
    let is_buffer = |beside: &Mapping| beside.readable && rsp.is_some_and(|rsp| !beside.holds(rsp));
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
    // Of the smallest guard this is the nearer half: a neighbour that isn't known is not nearer.
    if distance > PAGE / 2 || !is_buffer(beside) {
        return None;
    }
    let registers = faulting_touch(facts).map(|touch: Touch| touch.in_brackets()).unwrap_or_default();
    likely(
        "guard_page_overrun",
        format!(
            "{} into a guard page, {distance} bytes {place} of the memory beside it ({}){registers}",
            facts.verb(),
            beside.text()
        ),
    )
}

fn unmapped_before(facts: &Facts, address: u64) -> Option<Diagnosis> {
    let gone = facts.memory.is_hole() && facts.unmapped_before == Some(true);
    let touch = faulting_touch(facts);
    let registers = touch.as_ref().map(|touch| touch.in_brackets()).unwrap_or_default();
    gone.then(|| {
        let text = format!("{} {}, which was mapped before and no longer is{registers}", facts.verb(), hex(address));
        sure(touch.is_some(), "use_after_unmap", text)
    })?
}

#[cfg(test)]
mod tests {
    use super::super::cases::{CODE, confidence, fault, hole, mapping, name, text};
    use super::super::facts::Surroundings;
    use super::*;

    /// An instruction fetch that failed at `rip`.
    fn fetch_at(code: i32, address: u64) -> Facts {
        let mut facts = fault(code, address, 0x14);
        facts.code = None;
        let registers = facts.registers.as_mut().unwrap();
        registers.rip = address;
        registers.rsp = 0x7ffd_0000_0008;
        facts
    }

    #[test]
    fn a_call_to_null_names_the_caller_where_there_is_one() {
        let mut facts = fetch_at(1, 0);
        assert_eq!(text(&facts), "jumps to NULL: a function pointer is 0");
        facts.frames = vec![None, Some("call+0x5".to_owned())];
        assert_eq!(text(&facts), "jumps to NULL: a function pointer is 0; the caller is the next frame");
        // After a return the stack pointer is a multiple of 16.
        facts.registers.as_mut().unwrap().rsp -= 8;
        assert_eq!(text(&facts), "jumps to NULL: a function pointer or a return address is 0");
    }

    #[test]
    fn a_fetch_elsewhere_than_at_rip_is_not_judged() {
        for address in [0, 0x10_0000] {
            let mut facts = Facts { memory: hole(), ..fetch_at(1, address) };
            assert!(name(&facts).is_some());
            facts.registers.as_mut().unwrap().rip = CODE;
            assert_eq!(name(&facts), None);
        }
    }

    #[test]
    fn a_jump_into_the_wild_needs_a_hole() {
        let mut facts = fetch_at(1, 0x10_0000);
        assert_eq!(name(&facts), None, "what is mapped there is unknown");
        facts.memory = hole();
        assert_eq!(name(&facts), Some("jump_into_the_wild"));
        facts.unmapped_before = Some(true);
        assert_eq!(name(&facts), Some("use_after_unmap"));
        facts.memory.at = Some(mapping(0x10_0000, 0x10_1000, "r-x"));
        assert_eq!(name(&facts), None, "it is code");
    }

    #[test]
    fn data_is_not_executed() {
        let mut facts = fetch_at(2, 0x10_0000);
        facts.memory.at = Some(mapping(0x10_0000, 0x10_1000, "rw-"));
        assert_eq!(text(&facts), "executes memory that is not executable (anonymous memory, rw-p), at 0x100000");
        assert_eq!(confidence(&facts), Some("certain"));
        facts.memory.at = Some(mapping(0x10_0000, 0x10_1000, "r-x"));
        assert_eq!(name(&facts), None);
    }

    #[test]
    fn a_write_to_constants() {
        // mov byte [rdi], 1
        let mut facts = Facts { code: Some(vec![0xc6, 0x07, 1]), ..fault(2, 0x10_0040, 7) };
        facts.registers.as_mut().unwrap().rdi = 0x10_0040;
        let mut at = mapping(0x10_0000, 0x10_1000, "r--");
        at.backing = Backing::File(Some("/bin/x".to_owned()));
        facts.memory.at = Some(at);
        assert_eq!(
            text(&facts),
            "writes to read-only memory (/bin/x, r--p): constants and string literals lie there (rdi is 0x100040)"
        );
        // mov qword [rdi], 1: the processor tells the first byte, or the first one behind a page's end.
        facts.code = Some(vec![0x48, 0xc7, 0x07, 1, 0, 0, 0]);
        facts.fault_address = Some(0x10_0044);
        assert!(!text(&facts).contains("rdi"));
        facts.registers.as_mut().unwrap().rdi = 0xf_fffc;
        facts.fault_address = Some(0x10_0000);
        assert!(text(&facts).ends_with("(rdi is 0xffffc)"));
        facts.registers.as_mut().unwrap().rdi += 8;
        assert!(!text(&facts).contains("rdi"));
        facts.page_fault = Some(5);
        assert_eq!(name(&facts), None, "reads are allowed there");
        facts.page_fault = Some(7);
        facts.memory.at = Some(mapping(0x10_0000, 0x10_1000, "rw-"));
        assert_eq!(name(&facts), None, "so are writes");
    }

    #[test]
    fn an_address_of_the_kernel() {
        // mov eax, [rdi]
        let mut facts = Facts { code: Some(vec![0x8b, 0x07]), memory: hole(), ..fault(1, u64::MAX, 5) };
        facts.registers.as_mut().unwrap().rdi = u64::MAX;
        assert_eq!(
            text(&facts),
            "reads 0xffffffffffffffff: the pointer is -1, as a failed call returns it (rdi is 0xffffffffffffffff)"
        );
        facts.registers.as_mut().unwrap().rdi = 0xffff_8000_0000_0000;
        assert_eq!(text(&facts), "reads 0xffffffffffffffff, an address of the kernel");
        facts.fault_address = Some(0xffff_8000_0000_0000);
        assert!(text(&facts).ends_with("an address of the kernel (rdi is 0xffff800000000000)"));
        facts.fault_address = Some(0xffff_ffff_ff60_0000);
        assert_eq!(name(&facts), None, "the vsyscall page");
    }

    #[test]
    fn a_protection_key_has_its_own_code_and_bit() {
        let mut facts = Facts { memory: hole(), ..fault(4, 0x10_0000, 0x26) };
        assert_eq!(name(&facts), Some("protection_key"));
        facts.si_code = Some(2);
        assert_eq!(name(&facts), Some("protection_key"));
        facts.page_fault = Some(6);
        assert_eq!(name(&facts), None);
    }

    /// A guard page at 0x20000 with memory on both sides.
    fn guarded(address: u64) -> Facts {
        let memory = Surroundings {
            at: Some(mapping(0x2_0000, 0x2_1000, "---")),
            below: Some(mapping(0x1_f000, 0x2_0000, "rw-")),
            above: Some(mapping(0x2_1000, 0x2_2000, "rw-")),
        };
        Facts { memory, ..fault(2, address, 6) }
    }

    #[test]
    fn a_guard_page_catches_an_overrun_on_the_nearer_side() {
        assert!(
            text(&guarded(0x2_0010)).starts_with("writes into a guard page, 16 bytes behind the end of the memory")
        );
        assert!(
            text(&guarded(0x2_0ff8)).starts_with("writes into a guard page, 8 bytes before the start of the memory")
        );
        assert_eq!(confidence(&guarded(0x2_0010)), Some("likely"));
    }

    #[test]
    fn a_guard_page_without_a_neighbour_is_a_reservation() {
        let mut facts = guarded(0x2_0010);
        facts.memory.above = None;
        facts.memory.below = Some(mapping(0x1_e000, 0x1_f000, "rw-"));
        assert_eq!(name(&facts), None, "not adjacent");
        facts.memory.below = None;
        assert_eq!(name(&facts), None, "unknown");
        facts.memory.above = guarded(0).memory.above;
        assert_eq!(name(&facts), None, "what may lie nearer is unknown");
        facts.fault_address = Some(0x2_0ff0);
        assert_eq!(name(&facts), Some("guard_page_overrun"));
        facts.memory.above = Some(mapping(0x2_1000, 0x2_2000, "---"));
        assert_eq!(name(&facts), None, "no memory that one overruns");
        let mut facts = guarded(0x2_1800);
        facts.memory.at = Some(mapping(0x2_0000, 0x4_0000, "---"));
        facts.memory.above = None;
        assert_eq!(name(&facts), None, "too far behind");
        let mut facts = guarded(0x2_0010);
        facts.memory.at = Some(mapping(0x2_0000, 0x2_1000, "r--"));
        facts.page_fault = Some(4);
        assert_eq!(name(&facts), None, "no guard");
        let mut facts = guarded(0x2_0010);
        facts.registers.as_mut().unwrap().rsp = 0x1_f800;
        facts.stack.at = facts.memory.below.clone();
        assert_eq!(name(&facts), None, "the stack below");
    }

    #[test]
    fn use_after_unmap_needs_the_flag() {
        let mut facts = Facts { memory: hole(), ..fault(1, 0x10_0000, 4) };
        assert_eq!(name(&facts), None);
        facts.unmapped_before = Some(false);
        assert_eq!(name(&facts), None);
        facts.unmapped_before = Some(true);
        assert_eq!(name(&facts), Some("use_after_unmap"));
    }

    #[test]
    fn without_the_error_code_nothing_is_known() {
        assert_eq!(name(&Facts { page_fault: None, ..fault(1, 0x18, 4) }), None);
    }
}
