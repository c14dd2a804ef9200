//! General protection faults: the processor names no address, so the instruction and the registers must.

use iced_x86::{Code, EncodingKind, Instruction, Mnemonic, Register};

use super::instruction::{Touch, decoded, mnemonic, register_name, register_value, touches};
use super::words::hex;
use super::{Diagnosis, Kind, certain, likely, sure};
use crate::arch::Registers;
use crate::evidence::Evidence;

/// Where musl ends a process whose heap is damaged: it executes hlt there.
const MUSL_MALLOC: [&str; 9] = [
    "get_meta",
    "free",
    "realloc",
    "malloc",
    "__libc_free",
    "__libc_realloc",
    "__libc_malloc_impl",
    "malloc_usable_size",
    "nontrivial_free",
];

/// SIGSEGV with SI_KERNEL and trap 13.
pub(super) fn diagnose(facts: &Evidence) -> Option<Diagnosis> {
    let registers = facts.registers.as_ref()?;
    if !facts.is_compat && !is_canonical(registers.rip, 48) {
        // AMD's processors take the jump and fault behind it.
        let text = format!("jumps to {}, which is no address at all (non-canonical)", hex(registers.rip));
        return sure(!is_canonical(registers.rip, 57), Kind::JumpIntoTheWild, text);
    }
    let (instruction, registers) = decoded(facts)?;
    if instruction.is_privileged() || instruction.mnemonic() == Mnemonic::Int {
        return privileged(facts, &instruction);
    }
    let touched = touches(&instruction, registers);
    non_canonical_access(&touched)
        .or_else(|| misaligned(&instruction, &touched))
        .or_else(|| non_canonical_jump(&instruction, registers))
}

/// SIGBUS with SI_KERNEL and trap 12: the same through rsp or rbp.
pub(super) fn stack_segment(facts: &Evidence) -> Option<Diagnosis> {
    let (instruction, registers) = decoded(facts)?;
    non_canonical_access(&touches(&instruction, registers))
}

/// Bits 63 to `bits` - 1 are equal. Processors have 48 bits, or 57 with five levels of page tables.
fn is_canonical(address: u64, bits: u32) -> bool {
    let shift = 64 - bits;
    (((address << shift) as i64) >> shift) as u64 == address
}

fn privileged(facts: &Evidence, instruction: &Instruction) -> Option<Diagnosis> {
    let name = mnemonic(instruction.mnemonic());
    let innermost = facts.function(0);
    match instruction.mnemonic() {
        Mnemonic::Hlt if innermost.is_some_and(|name| MUSL_MALLOC.contains(&name)) => likely(
            Kind::HeapCorruption,
            format!("musl's {} found the heap damaged and executes hlt", innermost.unwrap_or_default()),
        ),
        Mnemonic::Int => certain(
            Kind::PrivilegedInstruction,
            format!("executes int {:#x}, an interrupt that programs may not raise", instruction.immediate8()),
        ),
        _ => certain(Kind::PrivilegedInstruction, format!("executes {name}, which only the kernel may")),
    }
}

fn non_canonical_access(touched: &[Touch]) -> Option<Diagnosis> {
    let last = |touch: &Touch| touch.address.wrapping_add(touch.bytes - 1);
    let is_bad = |touch: &&Touch, bits| !is_canonical(touch.address, bits) || !is_canonical(last(touch), bits);
    let touch = touched.iter().find(|touch| is_bad(touch, 48))?;
    let base = touch.base.filter(|(_, value)| !is_canonical(*value, 48));
    let index =
        touch.index.map(|(register, value, _)| (register, value)).filter(|(_, value)| !is_canonical(*value, 48));
    let why = match base.or(index) {
        Some((register, value)) => format!("{} is {}", register_name(register), hex(value)),
        None => touch.registers(),
    };
    let text = format!("accesses {}, which is no address at all (non-canonical): {why}", hex(touch.address));
    sure(is_bad(&touch, 57), Kind::NonCanonicalPointer, text)
}

fn non_canonical_jump(instruction: &Instruction, registers: &Registers) -> Option<Diagnosis> {
    let kind = Kind::JumpIntoTheWild;
    match instruction.code() {
        Code::Call_rm64 | Code::Jmp_rm64 => {
            let register = instruction.op0_register();
            if register == Register::None {
                // Its address is well, so what it holds is not.
                let name = mnemonic(instruction.mnemonic());
                let what = "a function pointer in memory that is no address at all (non-canonical)";
                return likely(kind, format!("{name} through {what}"));
            }
            let target = register_value(registers, register).filter(|target| !is_canonical(*target, 48))?;
            let name = register_name(register);
            let text = format!("jumps to {}, which is no address at all (non-canonical): it is in {name}", hex(target));
            sure(!is_canonical(target, 57), kind, text)
        }
        Code::Retnq | Code::Retnq_imm16 => {
            likely(kind, "returns to what is no address at all (non-canonical): the return address was overwritten")
        }
        _ => None,
    }
}

fn misaligned(instruction: &Instruction, touched: &[Touch]) -> Option<Diagnosis> {
    let [touch] = touched else { return None };
    let (alignment, is_certain) = alignment(instruction, touch)?;
    if touch.address % alignment == 0 {
        return None;
    }
    let name = mnemonic(instruction.mnemonic());
    let frame = |register: Register| matches!(register.full_register(), Register::RSP | Register::RBP);
    let why = match touch.base {
        Some((register, value)) if frame(register) && value % 16 != 0 => ": the stack itself is misaligned",
        _ => "",
    };
    let text = format!(
        "{name} needs an address that is a multiple of {alignment}, and {} is not{}{why}",
        hex(touch.address),
        touch.in_brackets()
    );
    sure(is_certain, Kind::MisalignedSse, text)
}

/// What the access must be aligned to, and whether the manual says so of this very instruction.
fn alignment(instruction: &Instruction, touch: &Touch) -> Option<(u64, bool)> {
    match instruction.mnemonic() {
        Mnemonic::Movaps
        | Mnemonic::Movapd
        | Mnemonic::Movdqa
        | Mnemonic::Movntps
        | Mnemonic::Movntpd
        | Mnemonic::Movntdq
        | Mnemonic::Movntdqa
        | Mnemonic::Vmovaps
        | Mnemonic::Vmovapd
        | Mnemonic::Vmovdqa
        | Mnemonic::Vmovdqa32
        | Mnemonic::Vmovdqa64
        | Mnemonic::Vmovntps
        | Mnemonic::Vmovntpd
        | Mnemonic::Vmovntdq
        | Mnemonic::Vmovntdqa => Some((touch.bytes, true)),
        Mnemonic::Cmpxchg16b | Mnemonic::Fxsave | Mnemonic::Fxsave64 | Mnemonic::Fxrstor | Mnemonic::Fxrstor64 => {
            Some((16, true))
        }
        Mnemonic::Movups
        | Mnemonic::Movupd
        | Mnemonic::Movdqu
        | Mnemonic::Lddqu
        | Mnemonic::Pcmpestri
        | Mnemonic::Pcmpestrm
        | Mnemonic::Pcmpistri
        | Mnemonic::Pcmpistrm
        | Mnemonic::Maskmovdqu => None,
        // The other SSE instructions of 16 bytes (SDM 1, 4.1.1); VEX-coded ones take any address.
        _ if instruction.encoding() == EncodingKind::Legacy && touch.bytes == 16 && has_xmm(instruction) => {
            Some((16, false))
        }
        _ => None,
    }
}

fn has_xmm(instruction: &Instruction) -> bool {
    (0..instruction.op_count()).any(|operand| instruction.op_register(operand).is_xmm())
}

/// SEGV_CPERR: the shadow stack holds another return address than the stack.
pub(super) fn shadow_stack(facts: &Evidence) -> Option<Diagnosis> {
    let (instruction, _) = decoded(facts)?;
    matches!(instruction.code(), Code::Retnq | Code::Retnq_imm16).then(|| {
        likely(
            Kind::SmashedStack,
            "returns to another place than it was called from: the return address was overwritten",
        )
    })?
}

#[cfg(test)]
mod tests {
    use super::super::Confidence;
    use super::super::cases::{Case, confidence, general_protection, kind, signal, text};
    use super::*;

    const WILD: u64 = 0xdead_0000_0000_0000;

    #[test]
    fn canonical_addresses() {
        for address in [0, 0x7fff_ffff_ffff, 0xffff_8000_0000_0000, u64::MAX] {
            assert!(is_canonical(address, 48), "{address:#x}");
        }
        for address in [0x8000_0000_0000, 0xffff_7fff_ffff_ffff, WILD] {
            assert!(!is_canonical(address, 48), "{address:#x}");
        }
        assert!(is_canonical(0x8000_0000_0000, 57));
        assert!(!is_canonical(WILD, 57));
    }

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
        for (code, name) in [(&[0xf4u8][..], "hlt"), (&[0xfa], "cli"), (&[0xec], "in"), (&[0x0f, 0x32], "rdmsr")] {
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
