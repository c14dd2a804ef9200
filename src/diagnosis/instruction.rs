//! The instruction that a signal is about, and the memory that it touches.

use super::words::hex;
use crate::arch::{self, Code, Instruction, Operand, Touch};
use crate::evidence::{Access, Evidence};
use crate::page;

/// What the bytes at the instruction pointer are. Those of 32-bit code aren't decoded.
pub(super) fn decode(facts: &Evidence) -> Code<'_> {
    match (&facts.registers, &facts.code, facts.is_compat) {
        (Some(registers), Some(code), false) => arch::decode(registers, code),
        _ => Code::Unknown,
    }
}

/// The instruction, where it and the registers are known.
pub(super) fn decoded(facts: &Evidence) -> Option<Instruction<'_>> {
    match decode(facts) {
        Code::Valid(instruction) => Some(instruction),
        Code::Invalid | Code::Unlisted | Code::Unknown => None,
    }
}

/// The registers of an access with their values, as a sentence names them.
pub(super) fn registers(touch: &Touch) -> String {
    let operands = touch.base.iter().chain(touch.index.iter().map(|(index, _)| index));
    let named: Vec<String> = operands.map(|Operand { name, value }| format!("{name} is {}", short(*value))).collect();
    named.join(", ")
}

/// ` (NAME is 0x1)`, empty where no register takes part.
pub(super) fn in_brackets(touch: &Touch) -> String {
    let registers = registers(touch);
    if registers.is_empty() { registers } else { format!(" ({registers})") }
}

/// 0 rather than 0x0.
pub(super) fn short(value: u64) -> String {
    if value == 0 { "0".to_owned() } else { hex(value).to_string() }
}

/// The access that faulted at the fault address. `None` means that the instruction, as far as it is known, accesses no such
/// place.
pub(super) fn faulting_touch(facts: &Evidence) -> Option<Touch> {
    let address = facts.fault_address?;
    decoded(facts)?.touches().into_iter().find(|touch| {
        let direction = if facts.access() == Access::Write { touch.writes } else { touch.reads };
        // An access that crosses into a page faults at the page's first byte.
        let crosses = page::offset(address) == 0 && address.wrapping_sub(touch.address) < touch.bytes;
        direction && (address == touch.address || crosses)
    })
}
