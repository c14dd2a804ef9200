//! How a thread came to an address where there is no code: by which call, or by a return.

use iced_x86::{Code as Opcode, Decoder, DecoderOptions, Register};

use super::Registers;
use super::instruction::operand;
use crate::arch::{Arrival, CalledPointer, StackTop};
use crate::hex::Hex;

/// The registers that a function keeps for its caller (System V ABI 3.2.1), and those that lead to the same place in either.
const KEPT: [Register; 9] = [
    Register::None,
    Register::RIP,
    Register::RSP,
    Register::RBP,
    Register::RBX,
    Register::R12,
    Register::R13,
    Register::R14,
    Register::R15,
];

/// A call to an address in itself.
const NEAR_BYTES: usize = 5;

/// So far a call of a retpoline in the same function leads.
const RETPOLINE_BYTES: u64 = 32;

/// It is set in all flags.
const FIXED_FLAG: u64 = 1 << 1;

/// The processor sets it in the flags that a fault saves.
const RESUME_FLAG: u64 = 1 << 16;

/// How the thread came to `address`. The callee has pushed nothing: the registers that it keeps are those of the call, but for the stack pointer.
/// `is_code`: is there code at this address? `None` means that nothing proves it.
pub(crate) fn arrival(
    registers: &Registers,
    address: u64,
    top: &StackTop,
    is_code: impl Fn(u64) -> bool,
) -> Option<Arrival> {
    let before = Registers { rsp: registers.rsp.wrapping_add(size_of::<u64>() as u64), ..*registers };
    let calls = || top.code.iter().flat_map(|code| calls_before(code, top.caller));
    let pointers = || calls().filter(|call| call.code() == Opcode::Call_rm64);
    if let Some(pointer) = pointers().find_map(|call| pointer(&before, &call, address, top.slot)) {
        return Some(Arrival::CalledThrough(pointer));
    }
    // The processor leaves both there for the kernel to go back by.
    let are_flags = registers.r11 & FIXED_FLAG != 0 && registers.r11 == registers.eflags & !RESUME_FLAG;
    if registers.rcx == address && are_flags {
        return Some(Arrival::FromSystemCall);
    }
    // As if it had returned: a return and a tail call by a pointer that was on the stack look alike.
    let has_popped = address != 0 && top.popped == address;
    let near = || calls().find(|call| call.code() == Opcode::Call_rel32_64).map(|call| call.near_branch64());
    // So near it may be no call of a function: a retpoline in the function itself jumps by a return of its own.
    if near().is_some_and(|target| target != address && target.abs_diff(top.caller) <= RETPOLINE_BYTES) {
        return None;
    }
    if let Some(target) = near().filter(|&target| target == address || is_code(target)) {
        let behind = (!has_popped).then_some(Arrival::Behind(Some(target)));
        return if target == address { Some(Arrival::CalledByName) } else { behind };
    }
    if let Some(call) = pointers().next() {
        let target = operand(&before, call.op0_register()).map(|operand| operand.value).filter(|&at| is_code(at));
        return (!has_popped).then_some(Arrival::Behind(target));
    }
    // Not for 0, which lies below many a stack pointer: a jump inside of a function (to a label's address) looks the same.
    has_popped.then_some(Arrival::Returned)
}

/// The calls that `code`, which ends before `end`, may end with: instructions can't be read backwards.
fn calls_before(code: &[u8; 8], end: u64) -> Vec<iced_x86::Instruction> {
    let decode = |length: usize| {
        let bytes = code.get(code.len().checked_sub(length)?..)?;
        let ip = end.wrapping_sub(length as u64);
        let decoded = Decoder::with_ip(64, bytes, ip, DecoderOptions::NONE).decode();
        let is_call = match decoded.code() {
            Opcode::Call_rel32_64 => length == NEAR_BYTES,
            code => code == Opcode::Call_rm64,
        };
        (decoded.len() == length && is_call).then_some(decoded)
    };
    (2..=code.len()).rev().filter_map(decode).collect()
}

/// The pointer of an indirect call, if it holds `address`.
fn pointer(
    registers: &Registers,
    call: &iced_x86::Instruction,
    address: u64,
    slot: Option<(u64, u64)>,
) -> Option<CalledPointer> {
    let value = |value: u64| if value == 0 { "0".to_owned() } else { Hex(value).to_string() };
    if call.op0_register() != Register::None {
        let register = operand(registers, call.op0_register()).filter(|register| register.value == address)?;
        let is_kept = KEPT.contains(&call.op0_register());
        return Some(CalledPointer { text: format!("{} is {}", register.name, value(address)), is_kept });
    }
    let (at, held) = slot.filter(|(_, held)| *held == address)?;
    let operand_at = call.virtual_address(0, 0, |register, _, _| match register {
        Register::DS | Register::SS | Register::CS | Register::ES => Some(0),
        register => operand(registers, register).map(|operand| operand.value),
    })?;
    let is_kept = KEPT.contains(&call.memory_base()) && KEPT.contains(&call.memory_index());
    (operand_at == at)
        .then(|| CalledPointer { text: format!("the pointer at {} is {}", Hex(at), value(held)), is_kept })
}

#[cfg(test)]
mod tests {
    use super::*;

    const CALLER: u64 = 0x5555_5555_5100;

    /// On top of the stack is CALLER, before which this code stands.
    fn called(code: &[u8]) -> StackTop {
        let mut before = [0x90; 8];
        before[8 - code.len()..].copy_from_slice(code);
        StackTop { popped: 0, caller: CALLER, code: Some(before), slot: None }
    }

    fn through(text: &str, is_kept: bool) -> Option<Arrival> {
        Some(Arrival::CalledThrough(CalledPointer { text: text.to_owned(), is_kept }))
    }

    fn arrived(registers: Registers, address: u64, top: &StackTop) -> Option<Arrival> {
        let registers = Registers { rsp: 0x7ffd_0000_1008, ..registers };
        arrival(&registers, address, top, |at| (0x5555_5555_5000..0x5555_5555_6000).contains(&at))
    }

    #[test]
    fn a_call_through_a_register_that_holds_the_address_is_the_one() {
        let rax = |rax| Registers { rax, ..Registers::default() };
        let of = |rax_is, address| arrived(rax(rax_is), address, &called(&[0xff, 0xd0]));
        assert_eq!(of(0, 0), through("rax is 0", false));
        assert_eq!(of(0x1234, 0x1234), through("rax is 0x1234", false));
        assert_eq!(arrived(Registers::default(), 0, &called(&[0xff, 0xd3])), through("rbx is 0", true));
        assert_eq!(
            of(0x5555_5555_5040, 0),
            Some(Arrival::Behind(Some(0x5555_5555_5040))),
            "it called another function"
        );
        assert_eq!(of(0x7000, 0), Some(Arrival::Behind(None)), "which the callee may have changed");
    }

    #[test]
    fn a_call_through_memory_needs_what_lay_there() {
        // call *0x10(%rdi)
        let registers = Registers { rdi: 0x6000, ..Registers::default() };
        let of = |slot| arrived(registers, 0, &StackTop { slot, ..called(&[0xff, 0x57, 0x10]) });
        assert_eq!(of(Some((0x6010, 0))), through("the pointer at 0x6010 is 0", false));
        assert_eq!(of(Some((0x6010, 0x5555_5555_5040))), Some(Arrival::Behind(None)));
        assert_eq!(of(Some((0x6018, 0))), Some(Arrival::Behind(None)), "another place");
        assert_eq!(of(None), Some(Arrival::Behind(None)));
    }

    #[test]
    fn the_stack_pointer_of_a_call_is_that_before_it() {
        // call *8(%rsp)
        let top = StackTop { slot: Some((0x7ffd_0000_1018, 0)), ..called(&[0xff, 0x54, 0x24, 8]) };
        assert_eq!(arrived(Registers::default(), 0, &top), through("the pointer at 0x7ffd00001018 is 0", true));
    }

    #[test]
    fn a_direct_call_leads_where_it_says() {
        // call CALLER + 0x40, and call 0
        let near = |target: u64| {
            let distance = target.wrapping_sub(CALLER) as u32;
            called(&[&[0xe8][..], &distance.to_le_bytes()].concat())
        };
        assert_eq!(arrived(Registers::default(), 0, &near(CALLER + 0x40)), Some(Arrival::Behind(Some(CALLER + 0x40))));
        let far = CALLER.wrapping_add(0x4000_0000);
        assert_eq!(arrived(Registers::default(), far, &near(far)), Some(Arrival::CalledByName));
        assert_eq!(arrived(Registers::default(), 0, &near(far)), None, "there is no code: it only looks like a call");
        let popped = StackTop { popped: 0x1234, ..near(CALLER + 0x40) };
        assert_eq!(arrived(Registers::default(), 0x1234, &popped), None, "what was called has returned, or jumped");
    }

    #[test]
    fn a_retpoline_is_no_tail_call() {
        // call -27 and call 7, over `pause; lfence; jmp`
        for distance in [-27i32, 7] {
            let top = called(&[&[0xe8][..], &distance.to_le_bytes()].concat());
            for address in [0, 0x1234] {
                assert_eq!(arrived(Registers::default(), address, &top), None);
                assert_eq!(arrived(Registers::default(), address, &StackTop { popped: address, ..top }), None);
            }
        }
    }

    #[test]
    fn a_system_call_leaves_the_address_and_the_flags() {
        let back = Registers { rcx: 0x1234, r11: 0x246, eflags: 0x1_0246, ..Registers::default() };
        let top = called(&[0xff, 0xd0]);
        assert_eq!(arrived(back, 0x1234, &top), Some(Arrival::FromSystemCall));
        assert_eq!(arrived(Registers { rax: 0x1234, ..back }, 0x1234, &top), through("rax is 0x1234", false));
        assert_eq!(arrived(Registers { rcx: 0x1235, ..back }, 0x1234, &top), Some(Arrival::Behind(None)));
        assert_eq!(arrived(Registers { r11: 0x202, ..back }, 0x1234, &top), Some(Arrival::Behind(None)));
    }

    #[test]
    fn a_return_has_taken_the_address_from_the_stack() {
        let top = StackTop { popped: 0x4141_4141, ..called(&[]) };
        assert_eq!(arrived(Registers::default(), 0x4141_4141, &top), Some(Arrival::Returned));
        assert_eq!(arrived(Registers::default(), 0x4242, &top), None);
        let returned = Registers { rsp: 0x7ffd_0000_1010, ..Registers::default() };
        assert_eq!(arrival(&returned, 0, &called(&[]), |_| true), None, "a zero by chance");
    }
}
