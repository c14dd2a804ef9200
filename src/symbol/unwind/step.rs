//! One frame up: by a file's call frame information, or by the frame pointer of code that has none.

use std::ops::Range;

use gimli::{
    BaseAddresses, CfaRule, DebugFrame, EhFrame, EhFrameHdr, Encoding, Evaluation, EvaluationResult, Expression,
    FrameDescriptionEntry, LittleEndian, Location, Register, RegisterRule, UnwindContext, UnwindExpression,
    UnwindSection, UnwindTableRow, Value,
};

use super::image::{Sections, Slice};
use super::machine::Machine;
use super::{Frame, Registers, StackCopy, exceptions};
use crate::arch::unwind::{self as arch, FRAME_POINTER, PROGRAM_COUNTER, RETURN_ADDRESS, STACK_POINTER};
use crate::evidence::Handling;

/// No compiler makes a longer entry; a longer one is meant to take our time.
const ENTRY_BYTES_MAX: usize = 16 * 1024;

/// Operations of an expression: it may have loops. Real ones have ten.
const OPERATIONS_MAX: u32 = 256;

/// The frame above another one.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Above {
    /// The caller; its instruction pointer is a return address.
    Caller(Registers),
    /// The code that a signal interrupted: an exact address. The frame itself is the code that the handler returns to.
    Interrupted(Registers),
    /// Nothing: this frame is the outermost one.
    Nothing,
    /// It is unknown.
    Unknown,
}

/// One frame up by the call frame information, of code that lies `bias` above its file's addresses. `None` means that there is none for
/// this place.
pub(super) fn by_information(
    sections: &Sections,
    bias: u64,
    frame: Frame,
    registers: &Registers,
    stack: &StackCopy,
) -> Option<Above> {
    let address = frame.address.wrapping_sub(u64::from(frame.is_return_address)).wrapping_sub(bias);
    let entry = Entry::of(sections, address)?;
    Some(evaluate(&entry, &sections.bases(), address, registers, stack).unwrap_or(Above::Unknown))
}

/// Where the function of a frame begins, as [`by_information`] finds it.
pub(super) fn begin_of(sections: &Sections, bias: u64, frame: Frame) -> Option<u64> {
    Some(function_of(sections, bias, frame)?.start)
}

/// The function of a frame, by its file's own addresses.
pub(super) fn function_of(sections: &Sections, bias: u64, frame: Frame) -> Option<Range<u64>> {
    let address = frame.address.wrapping_sub(u64::from(frame.is_return_address)).wrapping_sub(bias);
    let entry = Entry::of(sections, address)?;
    let description = entry.description();
    Some(description.initial_address()..description.end_address())
}

/// Does call frame information say how far the stack pointer of a frame is from its caller's, so that it doesn't have to be believed?
pub(super) fn is_by_stack_pointer(sections: &Sections, bias: u64, frame: Frame) -> Option<bool> {
    let address = frame.address.wrapping_sub(u64::from(frame.is_return_address)).wrapping_sub(bias);
    let mut context = UnwindContext::new();
    let entry = Entry::of(sections, address)?;
    let row = entry.row(&sections.bases(), &mut context, address)?;
    let CfaRule::RegisterAndOffset { register, .. } = row.cfa() else { return Some(false) };
    Some(sections.machine.own(*register) == Some(STACK_POINTER))
}

/// What the function of a frame does with an exception from the call before its return address.
pub(super) fn handling(sections: &Sections, bias: u64, frame: Frame) -> Option<Handling> {
    // Its addresses would be others.
    if sections.machine != Machine::Native {
        return None;
    }
    let address = frame.address.wrapping_sub(1).wrapping_sub(bias);
    // Debug information says nothing of exceptions.
    let Entry::Loaded(entry, _) = Entry::of(sections, address)? else { return None };
    // Nobody asks a function without a table.
    let Some(table) = entry.lsda() else { return Some(Handling::Passes) };
    exceptions::handling(sections.exceptions.as_ref()?, table, entry.initial_address(), address)
}

/// Does a signal handler return to the code of a frame? `None` means that no call frame information describes it.
pub(super) fn is_trampoline(sections: &Sections, bias: u64, frame: Frame) -> Option<bool> {
    let address = frame.address.wrapping_sub(u64::from(frame.is_return_address)).wrapping_sub(bias);
    Some(Entry::of(sections, address)?.description().is_signal_trampoline())
}

/// One frame up by the frame pointer, as long as that is further up.
pub(super) fn by_frame_pointer(registers: &Registers, stack: &StackCopy) -> Above {
    let caller = || {
        let (bp, machine) = (registers.get(FRAME_POINTER)?, registers.machine());
        let word = u64::from(machine.word_bytes());
        let (ip, above) = (machine.read(stack, bp.checked_add(word)?)?, machine.read(stack, bp)?);
        Some(Registers::of_frame(arch::return_address(ip), bp.checked_add(2 * word)?, above).of(machine))
    };
    caller().map_or(Above::Unknown, |caller| above(caller, registers))
}

/// A NULL return address has nothing above it. Not so one that a wrong turn led to: callers are further up.
fn above(caller: Registers, callee: &Registers) -> Above {
    match caller.get(PROGRAM_COUNTER) {
        Some(_) if !arch::is_further_up(caller.sp(), callee.sp()) => Above::Unknown,
        Some(0) => Above::Nothing,
        // A frame of no bytes, that leads to itself.
        Some(ip) if ip == callee.ip() && caller.sp() == callee.sp() => Above::Unknown,
        Some(_) => Above::Caller(caller),
        None => Above::Unknown,
    }
}

type Description<'a> = FrameDescriptionEntry<Slice<'a>>;

/// What describes the code at an address, and the section that it stands in.
enum Entry<'a> {
    /// In memory of the process.
    Loaded(Description<'a>, EhFrame<Slice<'a>>),
    /// In debug information.
    Debug(Description<'a>, DebugFrame<Slice<'a>>),
}

impl<'a> Entry<'a> {
    /// `None` means that nothing describes it.
    fn of(sections: &'a Sections, address: u64) -> Option<Self> {
        let loaded = sections.eh_frame();
        if let Some(description) = loaded_entry(sections, &loaded, address) {
            return Some(Self::Loaded(description, loaded));
        }
        let section = sections.debug_frame();
        let offset = last_from(&sections.debug_index, address)?.into();
        let description = section.fde_from_offset(&sections.bases(), offset, DebugFrame::cie_from_offset).ok()?;
        description.contains(address).then_some(Self::Debug(description, section))
    }

    fn description(&self) -> &Description<'a> {
        match self {
            Self::Loaded(description, _) | Self::Debug(description, _) => description,
        }
    }

    /// The rules at an address. `None` means that they are too long, or can't be read.
    fn row<'context>(
        &self,
        bases: &BaseAddresses,
        context: &'context mut UnwindContext<usize>,
        address: u64,
    ) -> Option<&'context UnwindTableRow<usize>> {
        let description = self.description();
        if description.entry_len() > ENTRY_BYTES_MAX || description.cie().entry_len() > ENTRY_BYTES_MAX {
            return None;
        }
        match self {
            Self::Loaded(_, section) => description.unwind_info_for_address(section, bases, context, address).ok(),
            Self::Debug(_, section) => description.unwind_info_for_address(section, bases, context, address).ok(),
        }
    }

    fn expression(&self, rule: &UnwindExpression<usize>) -> Option<Expression<Slice<'a>>> {
        match self {
            Self::Loaded(_, section) => rule.get(section).ok(),
            Self::Debug(_, section) => rule.get(section).ok(),
        }
    }
}

fn loaded_entry<'a>(sections: &'a Sections, section: &EhFrame<Slice<'a>>, address: u64) -> Option<Description<'a>> {
    let bases = sections.bases();
    let offset = match &sections.eh_frame_hdr {
        Some(header) => {
            let most = header.bytes.len();
            let header =
                EhFrameHdr::new(&header.bytes, LittleEndian).parse(&bases, sections.machine.word_bytes()).ok()?;
            let table = header.table()?;
            // gimli calculates with the number of entries, and with where they are, as if they couldn't lie.
            table.iter(&bases).size_hint().1.filter(|&count| count <= most)?;
            let at = table.lookup(address, &bases).ok()?.direct().ok()?;
            usize::try_from(at.checked_sub(sections.eh_frame.address.start)?).ok()?.into()
        }
        None => last_from(&sections.index, address)?.into(),
    };
    let entry = section.fde_from_offset(&bases, offset, EhFrame::cie_from_offset).ok()?;
    entry.contains(address).then_some(entry)
}

/// The offset of the last entry in an index that doesn't begin behind an address.
fn last_from(index: &[(u64, usize)], address: u64) -> Option<usize> {
    let after = index.partition_point(|(start, _)| *start <= address);
    Some(index.get(after.checked_sub(1)?)?.1)
}

/// `None` means that a value that the rule needs is not known.
fn evaluate(
    entry: &Entry<'_>,
    bases: &BaseAddresses,
    address: u64,
    registers: &Registers,
    stack: &StackCopy,
) -> Option<Above> {
    let mut context = UnwindContext::new();
    let row = entry.row(bases, &mut context, address)?;
    let (encoding, machine) = (entry.description().cie().encoding(), registers.machine());
    let expression = |rule: &_, first| calculate(entry.expression(rule)?, encoding, first, registers, stack);
    let cfa = match row.cfa() {
        CfaRule::RegisterAndOffset { register, offset } => {
            registers.get(machine.own(*register)?)?.wrapping_add_signed(*offset)
        }
        CfaRule::Expression(rule) => expression(rule, None)?,
    };
    let cfa = machine.cut(cfa);
    let below = |offset: i64| machine.cut(cfa.wrapping_add_signed(offset));
    let value = |register: Register| match row.register(machine.theirs(register)?) {
        None if register == STACK_POINTER => Some(cfa),
        None => registers.get(register).filter(|_| machine.is_kept(register)),
        Some(RegisterRule::SameValue) => registers.get(register),
        Some(RegisterRule::Offset(offset)) => machine.read(stack, below(offset)),
        Some(RegisterRule::ValOffset(offset)) => Some(below(offset)),
        Some(RegisterRule::Register(other)) => registers.get(machine.own(other)?),
        Some(RegisterRule::Expression(rule)) => machine.read(stack, expression(&rule, Some(cfa))?),
        Some(RegisterRule::ValExpression(rule)) => expression(&rule, Some(cfa)),
        Some(_) => None,
    };
    match row.register(machine.theirs(RETURN_ADDRESS)?) {
        None if !machine.is_kept(RETURN_ADDRESS) => return Some(Above::Nothing),
        Some(RegisterRule::Undefined) => return Some(Above::Nothing),
        _ => {}
    }
    let caller = registers.with_each(|register| match register {
        PROGRAM_COUNTER => value(RETURN_ADDRESS).map(arch::return_address),
        _ => value(register),
    });
    Some(if entry.description().is_signal_trampoline() { Above::Interrupted(caller) } else { above(caller, registers) })
}

/// The value of an expression that begins with `first` on its stack.
fn calculate(
    expression: Expression<Slice<'_>>,
    encoding: Encoding,
    first: Option<u64>,
    registers: &Registers,
    stack: &StackCopy,
) -> Option<u64> {
    let machine = registers.machine();
    let mut evaluation = Evaluation::new(expression.0, encoding);
    evaluation.set_max_iterations(OPERATIONS_MAX);
    if let Some(first) = first {
        evaluation.set_initial_value(first);
    }
    let mut state = evaluation.evaluate().ok()?;
    loop {
        state = match state {
            EvaluationResult::Complete => break,
            EvaluationResult::RequiresRegister { register, .. } => {
                evaluation.resume_with_register(Value::Generic(registers.get(machine.own(register)?)?)).ok()?
            }
            EvaluationResult::RequiresMemory { address, size, space: None, .. } if size == machine.word_bytes() => {
                evaluation.resume_with_memory(Value::Generic(machine.read(stack, address)?)).ok()?
            }
            _ => return None,
        };
    }
    match evaluation.as_result().last()?.location {
        Location::Address { address } => Some(address),
        _ => None,
    }
}
