//! Stacks without frame pointers: from the registers and a copy of the stack of a process that is gone, by the call frame
//! information (`.eh_frame`) of the files that it ran.
//!
//! Only what the files prove is a frame: there is no search of the stack for what looks like a return address. Code without
//! call frame information (a JIT's) is believed to keep a frame pointer as long as what that leads to is plausible.
//!
//! The rules are read by gimli and followed here, not by framehop. Its release 0.16.0 was held against the cases of
//! unwind/tests.rs on 2026-11-28 (x86-64, release build, features `std` only):
//! - It follows the program counter, the stack and the frame pointer only. Where the CFA is in another register (rbx), or in
//!   memory, it goes on by the frame pointer without a word: 2 of 11 frames were missing, and it said that the stack was
//!   complete. We need all registers that functions keep.
//! - It knows no signal frame. From a handler 4 of 13 frames were missing, among them the instruction that trapped, and it said
//!   that the stack was complete. Each address but the first is looked up one byte earlier, which is wrong for these.
//! - A CFA expression that jumps to itself kept it busy until it was stopped after 20 s; one that pushes in a circle took
//!   170 MiB a second. Any process may bring such a file, and there is no bound that a caller could set.
//! - After a call to NULL it lost all 13 callers; code without information and with a frame pointer of 0 it takes for the
//!   outermost frame.
//! - A guess by the frame pointer can't be told from a frame that is proved: an error in a file's rules becomes the same result.
//! - It takes tables of ELF, Mach-O and PE files for 64-bit addresses only: no 32-bit processes, and no way to give it Go's own.
//!
//! It does as well in holes of the copy and with 233 damaged copies of libc, and it is quicker: 70 frames took it 59 us, and
//! 3 us where it had seen each address before, against our 180 us. A crash is unwound once, so that this decides nothing.

mod exceptions;
#[cfg(any(test, fuzzing))]
mod fuzz;
mod image;
mod machine;
mod passage;
mod registers;
mod section;
mod stack;
mod step;
#[cfg(test)]
mod tests;
mod walk;

use std::collections::HashMap;
use std::rc::Rc;
use std::sync::Arc;

use self::image::Sections;
use self::walk::Walk;
use super::elf::Source;
use super::{MappedFile, Version, vdso};
use crate::arch::{Call, call_before, frame_of_prologue, may_jump};
use crate::evidence::Handling;
use crate::page;

#[cfg(any(test, fuzzing))]
pub use fuzz::unwind as fuzz;
pub(crate) use machine::Machine;
pub(crate) use passage::{Passage, Suspect};
pub(crate) use registers::Registers;
pub(crate) use stack::StackCopy;

/// How much of the files is in memory for one stack, and as much again is kept for the next.
const BYTES_MAX: usize = 64 << 20;

/// How many files are remembered; all are forgotten when there are more.
const FILES_MAX: usize = 256;

/// A function makes its frame by its first instructions.
const PROLOGUE_BYTES: u64 = 48;

/// So much of a function is looked at.
const FUNCTION_BYTES_MAX: u64 = 1 << 20;

/// How many calls are remembered; all are forgotten when there are more.
const CALLS_MAX: usize = 16_384;

/// Where a mapping's code comes from.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Image<'a> {
    /// From this file.
    File(&'a MappedFile),
    /// From the kernel: the vDSO, the same in all 64-bit processes of one boot.
    Vdso,
    /// That of 32-bit processes, which we don't have.
    CompatVdso,
    /// From nowhere that we know: anonymous memory, or a file that isn't to be found.
    Unknown,
}

/// An executable mapping of the process.
#[derive(Clone, Copy, Debug)]
pub(crate) struct CodeRegion<'a> {
    /// Its first address.
    pub start: u64,
    /// The address after its last one.
    pub end: u64,
    /// The offset of `start` in the file, bytes.
    pub file_offset: u64,
    /// What is mapped.
    pub image: Image<'a>,
}

/// A place in the code.
#[derive(Clone, Copy, Debug, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
pub(crate) struct Frame {
    /// Its address.
    pub address: u64,
    /// It stands after the call that it belongs to. Not so the innermost frame, what a signal interrupted, and the code
    /// that a signal handler returns to.
    pub is_return_address: bool,
}

/// A stack, as far as it is proved.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Unwound {
    /// Innermost first.
    pub frames: Vec<Frame>,
    /// How many frames were left out.
    pub omitted: usize,
    /// Before which of `frames` they were.
    pub omitted_at: usize,
    /// The last frame is the outermost one.
    pub complete: bool,
    /// At least one frame was found by call frame information.
    pub used_eh_frame: bool,
    /// At least one was found by the frame pointer alone, where no such information is.
    pub used_frame_pointer: bool,
    /// How each of the frames was reached, also those that were left out.
    pub steps: Vec<Step>,
}

/// How a frame was reached.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Step {
    /// Its stack pointer.
    pub stack_pointer: u64,
    /// From the frame below.
    pub way: Way,
}

/// A way from one frame to the next.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Way {
    /// There is none: it is the innermost one.
    Innermost,
    /// By call frame information, or by a return address on top of the stack.
    Proved,
    /// By a frame pointer that its code may keep, or use for something else.
    Guessed,
    /// Through a signal frame.
    Signal,
}

impl Unwound {
    /// How large the innermost frame is. `None` means that no call frame information says that.
    pub(crate) fn innermost_bytes(&self) -> Option<u64> {
        match self.steps.get(..2)? {
            [innermost, caller] if caller.way == Way::Proved => {
                caller.stack_pointer.checked_sub(innermost.stack_pointer)
            }
            _ => None,
        }
    }

    /// Leaves out what is more than `max_frames`: what lies between the innermost three quarters of them and the outermost quarter.
    pub(crate) fn shorten(&mut self, max_frames: usize) {
        let count = self.frames.len();
        if count > max_frames && !self.complete {
            // The last frame that was reached is not the outermost one: it says no more than the others.
            self.frames.truncate(max_frames);
        } else if count > max_frames {
            let inner = max_frames - max_frames / 4;
            self.omitted = count - max_frames;
            self.omitted_at = inner;
            self.frames.drain(inner..inner + self.omitted);
        }
    }
}

/// Unwinds stacks. Keeps what it read of files: the same libc comes again and again.
#[derive(Default)]
pub(crate) struct Unwinder {
    read: HashMap<Version, Option<Arc<Sections>>>,
    read_bytes: usize,
    /// The calls before return addresses, by the address in the file.
    calls: HashMap<(Version, u64), Option<Call>>,
    /// `None` means not asked for yet; Some(None): there is none.
    vdso: Option<Option<Arc<Sections>>>,
    /// Called with the number of a file before it is read.
    begins: Option<Rc<dyn Fn(usize)>>,
}

impl Unwinder {
    /// Calls `begins` with a file's number before it reads that file. It reads the vDSO now, and opens nothing later.
    pub(crate) fn new(begins: Rc<dyn Fn(usize)>) -> Self {
        let mut unwinder = Self { begins: Some(begins), ..Self::default() };
        unwinder.sections(Image::Vdso);
        unwinder
    }

    /// The frames of a thread that had these registers, this stack and these executable mappings: not more than
    /// `max_frames`, but then the innermost three quarters of them and the outermost quarter.
    #[cfg(any(test, fuzzing))]
    pub(crate) fn unwind(
        &mut self,
        registers: Registers,
        stack: &StackCopy,
        mappings: &[CodeRegion<'_>],
        max_frames: usize,
    ) -> Unwound {
        self.unwind_from(registers, false, stack, mappings, max_frames)
    }

    /// The same. `is_return_next`: behind the innermost frame's instruction stands a return, so that the return address is on top of the
    /// stack, whether or not call frame information says so.
    pub(crate) fn unwind_from(
        &mut self,
        registers: Registers,
        is_return_next: bool,
        stack: &StackCopy,
        mappings: &[CodeRegion<'_>],
        max_frames: usize,
    ) -> Unwound {
        let mut mappings = mappings.to_vec();
        mappings.sort_by_key(|mapping| mapping.start);
        let mut unwound = Walk::new(self, stack, mappings, is_return_next).run(&registers);
        unwound.shorten(max_frames);
        unwound
    }

    /// Where the function of a frame begins, by its file's own addresses. `mapping` is the one that it is in. `None` means that no call
    /// frame information describes it.
    pub(crate) fn begin_of(&mut self, mapping: &CodeRegion<'_>, frame: Frame) -> Option<u64> {
        let sections = self.sections(mapping.image)?;
        let bias = sections.bias(mapping.start, mapping.file_offset)?;
        step::begin_of(&sections, bias, frame)
    }

    /// What the function of a frame does with an exception that the call before its return address throws. `mapping` is the one that it is
    /// in. `None` means that it isn't known.
    pub(crate) fn handling_of(&mut self, mapping: &CodeRegion<'_>, frame: Frame) -> Option<Handling> {
        let sections = self.sections(mapping.image).filter(|_| frame.is_return_address)?;
        let bias = sections.bias(mapping.start, mapping.file_offset)?;
        step::handling(&sections, bias, frame)
    }

    /// Is it proved that a frame of so many bytes is the function's own? Where a frame pointer leads to its caller, anything may have moved the
    /// stack pointer, unless the function's first instructions make so large a frame. `mapping` is the one that the frame is in.
    pub(crate) fn is_sized(&mut self, mapping: &CodeRegion<'_>, frame: Frame, bytes: u64) -> bool {
        let Some(sections) = self.sections(mapping.image) else { return false };
        let Some(bias) = sections.bias(mapping.start, mapping.file_offset) else { return false };
        if step::is_by_stack_pointer(&sections, bias, frame) == Some(true) {
            return true;
        }
        let Image::File(MappedFile { file: Some(file), number, .. }) = mapping.image else { return false };
        if let Some(begins) = &self.begins {
            begins(*number);
        }
        let code = || sections.code_from(step::begin_of(&sections, bias, frame)?, PROLOGUE_BYTES, &Source::File(file));
        let is_native = sections.machine == Machine::Native;
        let made = is_native.then(code).flatten().and_then(|code| frame_of_prologue(&code));
        made.and_then(|made| bytes.checked_sub(made)).is_some_and(|more| more <= page::size())
    }

    /// May the function of a frame have jumped to any address without a call? `mapping` is the one that the frame is in. True where it isn't
    /// known, as of a function of more than 1 MiB.
    pub(crate) fn may_jump(&mut self, mapping: &CodeRegion<'_>, frame: Frame) -> bool {
        let Image::File(MappedFile { file: Some(file), number, .. }) = mapping.image else { return true };
        let Some(sections) = self.sections(mapping.image).filter(|sections| sections.machine == Machine::Native) else {
            return true;
        };
        if let Some(begins) = &self.begins {
            begins(*number);
        }
        let code = || {
            let bias = sections.bias(mapping.start, mapping.file_offset)?;
            let function = step::function_of(&sections, bias, frame)?;
            let bytes = function.end.checked_sub(function.start).filter(|&bytes| bytes <= FUNCTION_BYTES_MAX)?;
            let code = sections.code_from(function.start, bytes, &Source::File(file))?;
            (code.len() as u64 == bytes).then_some(code)
        };
        code().is_none_or(|code| may_jump(&code))
    }

    /// How the call before a frame's return address was made. `mapping` is the one that the frame is in. `None` means that it isn't known.
    pub(crate) fn call_of(&mut self, mapping: &CodeRegion<'_>, frame: Frame) -> Option<Call> {
        let Image::File(found) = mapping.image else { return None };
        // Only 64-bit code is decoded.
        let can_be = |sections: &Arc<Sections>| frame.is_return_address && sections.machine == Machine::Native;
        let sections = self.sections(mapping.image).filter(can_be)?;
        let address = frame.address.wrapping_sub(sections.bias(mapping.start, mapping.file_offset)?);
        if let Some(&known) = self.calls.get(&(found.version, address)) {
            return known;
        }
        let file = found.file.as_deref()?;
        if let Some(begins) = &self.begins {
            begins(found.number);
        }
        let code = sections.code_before(address, &Source::File(file))?;
        let call = call_before(&code, address, |target| sections.is_code(target), sections.got.as_ref());
        if self.calls.len() >= CALLS_MAX {
            self.calls.clear();
        }
        self.calls.insert((found.version, address), call);
        call
    }

    fn sections(&mut self, image: Image<'_>) -> Option<Arc<Sections>> {
        match image {
            Image::Unknown | Image::CompatVdso => None,
            Image::Vdso => {
                let read = || vdso::bytes().and_then(|bytes| Sections::read(&Source::Memory(bytes)));
                self.vdso.get_or_insert_with(|| read().map(Arc::new)).clone()
            }
            Image::File(found) => {
                if let Some(sections) = self.read.get(&found.version) {
                    return sections.clone();
                }
                let file = found.file.as_deref()?;
                if let Some(begins) = &self.begins {
                    begins(found.number);
                }
                let sections = Sections::read(&Source::File(file)).map(Arc::new);
                if !found.version.is_of(file) {
                    return None;
                }
                let bytes = sections.as_ref().map_or(0, |sections| sections.bytes());
                if self.read.len() >= FILES_MAX || self.read_bytes.saturating_add(bytes) > BYTES_MAX {
                    self.read.clear();
                    self.read_bytes = 0;
                }
                self.read_bytes += bytes;
                self.read.insert(found.version, sections.clone());
                sections
            }
        }
    }
}

/// What is read of a file to unwind from it.
#[cfg(any(test, fuzzing))]
pub(crate) fn fuzz_sections(data: &[u8]) {
    Sections::read(&Source::Memory(data));
}
