//! The walk from one frame of a stack to the next.

use std::collections::HashSet;
use std::sync::Arc;

use super::image::Sections;
use super::step::{self, Above};
use super::{BYTES_MAX, CodeRegion, Frame, Image, Machine, Registers, StackCopy, Step, Unwinder, Unwound, Way};
use crate::arch::compat;
use crate::arch::unwind::{self as arch, PROGRAM_COUNTER, STACK_POINTER};

/// How many frames are walked, shown or not.
const WALK_MAX: usize = 65_536;

/// How to unwind from a mapping: its file's sections, and what is to be added to their addresses.
type Description = (Arc<Sections>, u64);

/// One stack being unwound.
pub(super) struct Walk<'a> {
    files: &'a mut Unwinder,
    stack: &'a StackCopy,
    machine: Machine,
    /// Sorted by address.
    mappings: Vec<CodeRegion<'a>>,
    /// For each of them. `None` means not looked for yet; Some(None): there is nothing.
    described: Vec<Option<Option<Description>>>,
    /// The bytes of sections in use.
    bytes: usize,
    /// The innermost frame is about to return.
    is_return_next: bool,
    /// Signal frames that were passed: twice through one of them is a loop.
    signals: HashSet<u64>,
    /// A frame pointer was followed out of a file's code that may not keep one.
    may_lack_callers: bool,
    unwound: Unwound,
}

impl<'a> Walk<'a> {
    /// A walk of `stack` through the mappings, sorted by address. `is_return_next`: the innermost frame is about to return.
    pub(super) fn new(
        files: &'a mut Unwinder,
        stack: &'a StackCopy,
        mappings: Vec<CodeRegion<'a>>,
        is_return_next: bool,
    ) -> Self {
        Self {
            files,
            stack,
            machine: Machine::default(),
            described: vec![None; mappings.len()],
            mappings,
            bytes: 0,
            is_return_next,
            signals: HashSet::new(),
            may_lack_callers: false,
            unwound: Unwound::default(),
        }
    }

    /// All frames, from these registers on.
    pub(super) fn run(mut self, registers: &Registers) -> Unwound {
        self.machine = registers.machine();
        self.climb(registers);
        self.unwound
    }

    fn climb(&mut self, registers: &Registers) {
        let mut registers = *registers;
        self.push(&registers, false, Way::Innermost);
        while let Some(&frame) = self.unwound.frames.last()
            && self.unwound.frames.len() < WALK_MAX
        {
            let (above, way) = self.up(frame, &registers);
            match above {
                Above::Caller(caller) if self.is_code(&caller) => {
                    self.push(&caller, true, way);
                    registers = caller;
                }
                // The kernel put the handler's return address there: no call stands before it. What was interrupted may be
                // on another stack.
                Above::Interrupted(interrupted) if self.signals.insert(registers.sp()) => {
                    if let Some(handler_returns_to) = self.unwound.frames.last_mut() {
                        handler_returns_to.is_return_address = false;
                    }
                    self.push(&interrupted, false, Way::Signal);
                    registers = interrupted;
                }
                Above::Nothing => {
                    self.unwound.complete = self.is_outermost(way);
                    return;
                }
                _ => return,
            }
        }
    }

    fn push(&mut self, registers: &Registers, is_return_address: bool, way: Way) {
        self.unwound.frames.push(Frame { address: registers.ip(), is_return_address });
        self.unwound.steps.push(Step { stack_pointer: registers.sp(), way });
    }

    fn up(&mut self, frame: Frame, registers: &Registers) -> (Above, Way) {
        let Some(index) = self.mapping(frame) else { return (self.jumped_here(frame, registers), Way::Proved) };
        if self.machine == Machine::Native
            && let Some(interrupted) = arch::interrupted(registers.sp(), |address| self.stack.read_word(address))
            && self.may_return_from_signal(index, frame)
        {
            return (Above::Interrupted(registers.with_values(interrupted)), Way::Signal);
        }
        let above = self
            .describe(index)
            .and_then(|(sections, bias)| step::by_information(&sections, bias, frame, registers, self.stack));
        self.unwound.used_eh_frame |= above.is_some_and(|above| above != Above::Unknown);
        if above.is_none() && self.is_return_next && self.unwound.frames.len() == 1 {
            return (self.caller_on_top(registers), Way::Proved);
        }
        match above {
            Some(above) => (above, Way::Proved),
            None if self.is_compat_vdso(index) => (self.caller_of_vdso(registers), Way::Proved),
            None => {
                // Flags make compilers leave out call frame information; the frame pointer is left out unless a flag keeps it.
                self.may_lack_callers |=
                    matches!(self.mappings.get(index), Some(CodeRegion { image: Image::File(_), .. }));
                self.unwound.used_frame_pointer = true;
                (step::by_frame_pointer(registers, self.stack), Way::Guessed)
            }
        }
    }

    /// May this be the code that a handler returns to? What looks like a signal frame may be a left-over in another function's buffer.
    fn may_return_from_signal(&mut self, index: usize, frame: Frame) -> bool {
        let described = self.describe(index);
        described.and_then(|(sections, bias)| step::is_trampoline(&sections, bias, frame)).unwrap_or(true)
    }

    /// Is the frame the outermost one, above which there is nothing by this way? A frame pointer proves that only of code that has kept one so far:
    /// elsewhere the register may have any value, and lead to words that are 0, or past callers.
    fn is_outermost(&self, way: Way) -> bool {
        let reached = self.unwound.steps.last().map(|step| step.way);
        !self.may_lack_callers && (way != Way::Guessed || reached == Some(Way::Guessed))
    }

    /// There is no code: a call through a bad pointer.
    fn jumped_here(&self, frame: Frame, registers: &Registers) -> Above {
        match self.top(registers) {
            Some(_) if !frame.is_return_address => self.caller_on_top(registers),
            _ => Above::Unknown,
        }
    }

    /// The caller whose return address is on top of the stack.
    fn caller_on_top(&self, registers: &Registers) -> Above {
        self.top(registers).map_or(Above::Unknown, |(ip, sp)| {
            Above::Caller(registers.with(PROGRAM_COUNTER, ip).with(STACK_POINTER, sp))
        })
    }

    /// The caller's program counter and stack pointer behind a call that has pushed nothing else.
    fn top(&self, registers: &Registers) -> Option<(u64, u64)> {
        match self.machine {
            Machine::Native => arch::caller_of_bad_call(registers.values(), |address| self.stack.read_word(address)),
            machine => {
                let top = registers.get(STACK_POINTER)?;
                Some((machine.read(self.stack, top)?, top.checked_add(u64::from(machine.word_bytes()))?))
            }
        }
    }

    fn is_compat_vdso(&self, index: usize) -> bool {
        matches!(self.mappings.get(index), Some(CodeRegion { image: Image::CompatVdso, .. }))
    }

    /// The caller of the kernel in a 32-bit process.
    fn caller_of_vdso(&self, registers: &Registers) -> Above {
        compat::caller_of_vdso(registers.values(), |address| self.machine.read(self.stack, address))
            .map_or(Above::Unknown, |caller| Above::Caller(registers.with_values(caller)))
    }

    /// Return addresses are in code.
    fn is_code(&self, caller: &Registers) -> bool {
        self.mapping(Frame { address: caller.ip(), is_return_address: true }).is_some()
    }

    /// The mapping that a frame's code is in.
    fn mapping(&self, frame: Frame) -> Option<usize> {
        let address = frame.address.checked_sub(u64::from(frame.is_return_address))?;
        let index = self.mappings.partition_point(|mapping| mapping.start <= address).checked_sub(1)?;
        (address < self.mappings.get(index)?.end).then_some(index)
    }

    /// What unwinding needs to know of a mapping's code; read when a frame is in it for the first time.
    fn describe(&mut self, index: usize) -> Option<Description> {
        let (mapping, described) = (self.mappings.get(index)?, self.described.get_mut(index)?);
        let read = || {
            let sections = self.files.sections(mapping.image).filter(|sections| sections.machine == self.machine)?;
            let bytes = self.bytes.saturating_add(sections.bytes());
            let bias = sections.bias(mapping.start, mapping.file_offset)?;
            (bytes <= BYTES_MAX).then(|| {
                self.bytes = bytes;
                (sections, bias)
            })
        };
        described.get_or_insert_with(read).clone()
    }
}
