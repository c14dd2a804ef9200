//! General protection faults: the processor names no address, so the instruction and the registers must.

use super::instruction::{decoded, in_brackets, registers};
use super::words::hex;
use super::{Confidence, Diagnosis, Kind, abort, certain, libc, likely, sure};
use crate::arch::{self, Instruction, Jump, Operand, Touch};
use crate::evidence::Evidence;
use crate::runtime;

/// Who else may access the ports of devices.
const PORTS: &str = ", or a program that has asked for the port (ioperm)";

/// SIGSEGV with SI_KERNEL.
pub(super) fn diagnose(facts: &Evidence) -> Option<Diagnosis> {
    if let Some(found) = behind_jump(facts) {
        return Some(found);
    }
    let instruction = decoded(facts)?;
    if instruction.is_privileged() || instruction.interrupt().is_some() {
        return privileged(facts, &instruction);
    }
    let touched = instruction.touches();
    non_canonical_access(&touched)
        .or_else(|| misaligned(&instruction, &touched))
        .or_else(|| non_canonical_jump(facts, &instruction))
}

/// The instruction pointer is no address: AMD's processors take the jump and fault behind it.
fn behind_jump(facts: &Evidence) -> Option<Diagnosis> {
    let ip = Some(arch::instruction_pointer(facts.registers.as_ref()?)).filter(|&ip| !arch::is_address(ip))?;
    let text = format!("jumps to {}, which is no address at all (non-canonical)", hex(ip));
    sure(!arch::may_be_address(ip), Kind::JumpIntoTheWild, text).filter(|_| !facts.is_compat)
}

/// SIGSEGV with SI_KERNEL of which it isn't known whether a trap is the reason: the stack pointer is broken as well, as by longjmp().
pub(super) fn jumped(facts: &Evidence) -> Option<Diagnosis> {
    let at_jump = || {
        let instruction = decoded(facts)?;
        non_canonical_jump(facts, &instruction).filter(|_| instruction.jump() != Some(Jump::Return))
    };
    Some(Diagnosis { confidence: Confidence::Likely, ..behind_jump(facts).or_else(at_jump)? })
}

/// SIGBUS with SI_KERNEL: the same through the stack pointer or the frame pointer.
pub(super) fn stack_segment(facts: &Evidence) -> Option<Diagnosis> {
    non_canonical_access(&decoded(facts)?.touches())
}

fn privileged(facts: &Evidence, instruction: &Instruction<'_>) -> Option<Diagnosis> {
    match instruction.interrupt() {
        Some(number) => certain(
            Kind::PrivilegedInstruction,
            format!("executes int {number:#x}, an interrupt that programs may not raise"),
        ),
        None => by_libc(facts).filter(|_| instruction.is_halt()).or_else(|| {
            let others = if instruction.is_port_access() { PORTS } else { "" };
            let text = format!("executes {}, which only the kernel may{others}", instruction.name());
            sure(!instruction.is_halt() || is_its_own(facts), Kind::PrivilegedInstruction, text)
        }),
    }
}

/// Does the program itself halt? Where its file holds a C library, and names don't say whose code it is, that may have done so.
fn is_its_own(facts: &Evidence) -> bool {
    let is_named = facts.function(0).is_some();
    match facts.halt {
        Some(at) if at.is_static && at.begins_as_musl => facts.has_source(0),
        Some(at) => is_named || !at.is_static,
        None => is_named,
    }
}

/// A C library that ends the process so.
fn by_libc(facts: &Evidence) -> Option<Diagnosis> {
    abort::halted(facts).or_else(|| libc::halted(facts))
}

/// SIGSEGV with SI_KERNEL of which it isn't known whether a trap is the reason: a C library that halts is the likely one.
pub(super) fn halted(facts: &Evidence) -> Option<Diagnosis> {
    let is_halt = decoded(facts)?.is_halt();
    let found = by_libc(facts).filter(|_| is_halt)?;
    Some(Diagnosis { confidence: Confidence::Likely, ..found })
}

fn non_canonical_access(touched: &[Touch]) -> Option<Diagnosis> {
    let last = |touch: &Touch| touch.address.wrapping_add(touch.bytes - 1);
    let holds = |touch: &Touch, is: fn(u64) -> bool| is(touch.address) && is(last(touch));
    let touch = touched.iter().find(|touch| !holds(touch, arch::is_address))?;
    let mut operands = touch.base.iter().chain(touch.index.iter().map(|(index, _)| index));
    let why = match operands.find(|operand| !arch::is_address(operand.value)) {
        Some(Operand { name, value }) => format!("{name} is {}", hex(*value)),
        None => Some(registers(touch))
            .filter(|registers| !registers.is_empty())
            .unwrap_or_else(|| "the instruction holds the address itself".to_owned()),
    };
    let text = format!("accesses {}, which is no address at all (non-canonical): {why}", hex(touch.address));
    sure(!holds(touch, arch::may_be_address), Kind::NonCanonicalPointer, text)
}

/// longjmp() of libc jumps to what its buffer holds.
fn of_longjmp(facts: &Evidence) -> &'static str {
    let is_libcs = facts.frames.first().and_then(|frame| frame.region.as_ref()?.file()).is_some_and(runtime::is_libc);
    let is_longjmp = facts.function(0).is_some_and(|name| ["__longjmp", "longjmp"].contains(&name));
    if is_libcs && is_longjmp {
        ", from a jmp_buf that setjmp() has not set, or that was overwritten since"
    } else {
        ""
    }
}

fn non_canonical_jump(facts: &Evidence, instruction: &Instruction<'_>) -> Option<Diagnosis> {
    let kind = Kind::JumpIntoTheWild;
    match instruction.jump()? {
        // The address of the operand is valid, so the value there is not.
        Jump::Memory => {
            let what = "a function pointer in memory that is no address at all (non-canonical)";
            likely(kind, format!("{} through {what}", instruction.name()))
        }
        Jump::Register(Operand { value, .. }) if arch::is_address(value) => None,
        Jump::Register(Operand { name, value }) => {
            let from = of_longjmp(facts);
            let text =
                format!("jumps to {}, which is no address at all (non-canonical): it is in {name}{from}", hex(value));
            sure(!arch::may_be_address(value), kind, text)
        }
        Jump::Return => {
            likely(kind, "returns to what is no address at all (non-canonical): the return address was overwritten")
        }
    }
}

fn misaligned(instruction: &Instruction<'_>, touched: &[Touch]) -> Option<Diagnosis> {
    let [touch] = touched else { return None };
    let (alignment, is_certain) = instruction.alignment(touch)?;
    if touch.address % alignment == 0 {
        return None;
    }
    let is_stacks = touch.is_in_frame && touch.base.as_ref().is_some_and(|base| base.value % 16 != 0);
    let why = if is_stacks { ": the stack itself is misaligned" } else { "" };
    let text = format!(
        "{} needs an address that is a multiple of {alignment}, and {} is not{}{why}",
        instruction.name(),
        hex(touch.address),
        in_brackets(touch)
    );
    sure(is_certain, Kind::MisalignedSse, text)
}

/// SEGV_CPERR: the shadow stack holds another return address than the stack.
pub(super) fn shadow_stack(facts: &Evidence) -> Option<Diagnosis> {
    (decoded(facts)?.jump() == Some(Jump::Return)).then(|| {
        likely(
            Kind::SmashedStack,
            "returns to another place than it was called from: the return address was overwritten",
        )
    })?
}

#[cfg(test)]
mod tests {
    use super::super::cases::{Case, confidence, general_protection, kind, signal, text};
    use super::*;

    const WILD: u64 = 0xdead_0000_0000_0000;

    #[test]
    fn the_register_with_the_wild_pointer_is_named() {
        // mov rax, [rdi]: tests/programs/non-canonical.c
        let mut case = general_protection(&[0x48, 0x8b, 0x07]);
        assert_eq!(kind(&case), None, "rdi is a good address: something else was wrong");
        case.registers.rdi = WILD;
        assert_eq!(
            text(&case),
            "accesses 0xdead000000000000, which is no address at all (non-canonical): rdi is 0xdead000000000000"
        );
        assert_eq!(confidence(&case), Some(Confidence::Certain));
        case.registers.rdi = 0x0080_0000_0000_0000;
        assert_eq!(confidence(&case), Some(Confidence::Likely), "an address with five levels of page tables");
        case.code.clear();
        assert_eq!(kind(&case), None);
    }

    #[test]
    fn without_a_register_the_instruction_holds_the_address() {
        // movabs al, [0x4141414141414141]
        let case = general_protection(&[0xa0, 0x41, 0x41, 0x41, 0x41, 0x41, 0x41, 0x41, 0x41]);
        assert!(text(&case).ends_with(" (non-canonical): the instruction holds the address itself"), "{}", text(&case));
    }

    #[test]
    fn an_address_that_is_only_computed_does_not_fault() {
        // lea rax, [rdi]
        let mut case = general_protection(&[0x48, 0x8d, 0x07]);
        case.registers.rdi = WILD;
        assert_eq!(kind(&case), None);
    }

    #[test]
    fn what_fs_points_to_is_unknown() {
        // mov rax, fs:[rdi]
        let mut case = general_protection(&[0x64, 0x48, 0x8b, 0x07]);
        case.registers.rdi = WILD;
        assert_eq!(kind(&case), None);
    }

    #[test]
    fn through_the_stack_pointer_it_is_a_bus_error() {
        // mov rax, [rbp-8]
        let mut case = Case { trap_nr: 12, code: vec![0x48, 0x8b, 0x45, 0xf8], ..signal(7, 0x80) };
        assert_eq!(kind(&case), None);
        case.registers.rbp = WILD;
        assert_eq!(kind(&case), Some(Kind::NonCanonicalPointer));
        assert!(text(&case).ends_with("rbp is 0xdead000000000000"));
        case.trap_nr = 14;
        assert_eq!(kind(&case), None);
    }

    #[test]
    fn privileged_instructions() {
        assert_eq!(
            text(&general_protection(&[0xee])),
            "executes out, which only the kernel may, or a program that has asked for the port (ioperm)"
        );
        for (code, name) in [(&[0xf4u8][..], "hlt"), (&[0xfa], "cli"), (&[0x0f, 0x32], "rdmsr")] {
            let case = general_protection(code);
            assert_eq!(text(&case), format!("executes {name}, which only the kernel may"));
            assert_eq!(confidence(&case), Some(Confidence::Certain));
        }
        assert!(text(&general_protection(&[0xcd, 0x29])).starts_with("executes int 0x29"));
        assert_eq!(kind(&general_protection(&[0x90])), None, "a nop");
    }

    #[test]
    fn musl_halts_on_a_damaged_heap() {
        let mut case = general_protection(&[0xf4]);
        case = case.called(&["get_meta", "main"]);
        assert_eq!(kind(&case), Some(Kind::HeapCorruption));
        case.frames.swap(0, 1);
        assert_eq!(kind(&case), Some(Kind::PrivilegedInstruction));
    }

    #[test]
    fn aligned_moves_need_their_alignment() {
        // movaps [rsp+0x10], xmm0
        let mut case = general_protection(&[0x0f, 0x29, 0x44, 0x24, 0x10]);
        assert_eq!(kind(&case), None, "it is aligned");
        case.registers.rsp += 8;
        assert_eq!(
            text(&case),
            "movaps needs an address that is a multiple of 16, and 0x7ffd00001018 is not (rsp is 0x7ffd00001008): the stack itself is misaligned"
        );
        assert_eq!(confidence(&case), Some(Confidence::Certain));
        // movups takes any
        case.code = vec![0x0f, 0x11, 0x44, 0x24, 0x10];
        assert_eq!(kind(&case), None);
        // paddd xmm0, [rsp+0x10]
        case.code = vec![0x66, 0x0f, 0xfe, 0x44, 0x24, 0x10];
        assert_eq!(confidence(&case), Some(Confidence::Likely));
        // vpaddd xmm0, xmm0, [rsp+0x10] takes any
        case.code = vec![0xc5, 0xf9, 0xfe, 0x44, 0x24, 0x10];
        assert_eq!(kind(&case), None);
        // vmovaps ymm0, [rsp+0x10]: 32
        case.registers.rsp -= 8;
        case.code = vec![0xc5, 0xfc, 0x28, 0x44, 0x24, 0x10];
        assert!(text(&case).contains("multiple of 32"));
    }

    #[test]
    fn wild_jumps() {
        // call rax
        let mut case = general_protection(&[0xff, 0xd0]);
        assert_eq!(kind(&case), None);
        case.registers.rax = WILD;
        assert_eq!(confidence(&case), Some(Confidence::Certain));
        assert!(text(&case).ends_with("it is in rax"));
        let longjmp = Case { modules: vec!["/lib/libc.so.6"], ..case.clone() }.called(&["__longjmp"]);
        assert!(
            text(&longjmp)
                .ends_with("it is in rax, from a jmp_buf that setjmp() has not set, or that was overwritten since")
        );
        let own = Case { modules: vec!["/bin/x"], ..longjmp.clone() };
        assert!(text(&own).ends_with("it is in rax"), "another function of that name");
        // There is no room for a signal's frame.
        let mut broken = longjmp;
        broken.registers.rsp = WILD;
        assert_eq!((kind(&broken), confidence(&broken)), (Some(Kind::JumpIntoTheWild), Some(Confidence::Likely)));
        // call [rdi]
        case.code = vec![0xff, 0x17];
        assert_eq!((kind(&case), confidence(&case)), (Some(Kind::JumpIntoTheWild), Some(Confidence::Likely)));
        // ret
        case.code = vec![0xc3];
        assert_eq!((kind(&case), confidence(&case)), (Some(Kind::JumpIntoTheWild), Some(Confidence::Likely)));
        // behind the jump
        case.code.clear();
        case.registers.rip = WILD;
        assert_eq!(confidence(&case), Some(Confidence::Certain));
    }

    #[test]
    fn a_shadow_stack_sees_returns() {
        let mut case = Case { code: vec![0xc3], ..signal(11, 10) };
        assert_eq!(kind(&case), Some(Kind::SmashedStack));
        case.code = vec![0x90];
        assert_eq!(kind(&case), None);
    }
}
