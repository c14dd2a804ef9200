//! What one sample says of a thread, part by part, in the terms of those who ask.

use super::modules::KnownModules;
use crate::arch::{self, Arrival, Registers};
use crate::diagnosis::truncated;
use crate::evidence::{self, Access, Failure, Functions, Handling, Region};
use crate::naming::Owner;
use crate::probe::abi::{fl_crash, fl_crash_flag, fl_file, fl_vma};
use crate::record::crash::{Disposition, SymbolsFailed};
use crate::runtime::stack::{STACK_WORDS, StackWords};
use crate::runtime::{abort_message, go};
use crate::siginfo::{SIGILL, SIGSEGV, SIGTRAP};
use crate::symbol::unwind::{self, StackCopy};
use crate::text::lossy;

/// The bytes of the instruction that the thread was at, and of those behind it.
pub(super) fn code_of(raw: &fl_crash) -> &[u8] {
    raw.code.get(..raw.code_length as usize).unwrap_or_default()
}

/// The function that the call before the return address went to, where that has led on to where there is no code.
pub(super) fn callee(raw: &fl_crash) -> Option<unwind::Frame> {
    match evidence::arrival(raw) {
        Some(Arrival::Behind(Some(address))) => Some(unwind::Frame { address, is_return_address: false }),
        _ => None,
    }
}

/// The functions of Go whose frames may hold what its runtime has said.
pub(super) fn go_callers(raw: &fl_crash) -> impl Iterator<Item = unwind::Frame> {
    go::callers(raw).into_iter().map(|address| unwind::Frame { address, is_return_address: true })
}

/// The device of the file that had no page for a write, which may need a new block there.
pub(super) fn disk(raw: &fl_crash) -> Option<u64> {
    let is_asked = raw.flags.0 & fl_crash_flag::FL_HAS_BACKING.0 != 0 && Access::of(raw.error_code) == Access::Write;
    let number = raw.vma.file.checked_sub(1).filter(|&index| is_asked && index < raw.file_count)?;
    Some(raw.files.get(number as usize)?.device.into())
}

/// The file and the offset in it of what may not be written to, if it belongs to a program or library.
pub(super) fn part(raw: &fl_crash) -> Option<(usize, u64)> {
    let is_executed = raw.flags.0 & fl_crash_flag::FL_IS_EXECUTED.0 != 0;
    let number = raw.vma.file.checked_sub(1).filter(|&index| is_executed && index < raw.file_count)?;
    Some((number as usize, offset_of(raw.fault_address, &raw.vma)))
}

/// Whose sample it is.
pub(super) fn owner(raw: &fl_crash) -> Owner {
    if !Disposition::from(raw.disposition).is_death() {
        return Owner::Living;
    }
    let is_namespaced = raw.flags.0 & fl_crash_flag::FL_IN_USER_NAMESPACE.0 != 0;
    Owner::of(raw.uid, is_namespaced, cgroup(raw).as_deref())
}

/// The path of its cgroup. `None` means that the record had no room for all of it.
pub(super) fn cgroup(raw: &fl_crash) -> Option<String> {
    raw.path(raw.cgroup_offset, raw.cgroup_length).map(|path| lossy(&path))
}

/// The build id that the kernel program has read. `None` means that it could not.
pub(super) fn build_id_in_memory(file: &fl_file) -> Option<&[u8]> {
    file.build_id.get(..file.build_id_length as usize).filter(|id| !id.is_empty())
}

/// What the namer has found of each address of a stack.
pub(super) type Found<'a> = (&'a mut dyn Iterator<Item = Functions>, &'a mut dyn Iterator<Item = Option<Handling>>);

/// Makes the frames of a sample: each has a name, or is noted with the reason why it has none.
pub(super) struct Framer<'a> {
    pub(super) raw: &'a fl_crash,
    pub(super) known: &'a KnownModules<'a>,
    /// Each module and reason once.
    pub(super) failed: Vec<SymbolsFailed>,
}

impl<'a> Framer<'a> {
    pub(super) fn new(raw: &'a fl_crash, known: &'a KnownModules<'a>) -> Self {
        Self { raw, known, failed: Vec::new() }
    }

    /// The frames of a stack. `functions` has those of each of its addresses, `handling` what they do with an exception.
    pub(super) fn frames(&mut self, walk: &[unwind::Frame], (functions, handling): Found<'_>) -> Vec<evidence::Frame> {
        let mut frames = Vec::new();
        for &unwind::Frame { address, is_return_address } in walk {
            let module = self.known.at(address, is_return_address);
            let file_offset =
                module.filter(|module| self.known.file(module.file).is_some()).map(|module| offset_of(address, module));
            let region = module.and_then(|module| Region::of(self.raw, module, &self.known.files));
            let handling = handling.next().flatten();
            let frame = |function| evidence::Frame { address, function, region: region.clone(), file_offset, handling };
            match functions.next().unwrap_or(Err(Failure::NoSymbol)) {
                Ok(functions) => frames.extend(functions.into_iter().map(|function| frame(Some(function)))),
                Err(reason) => {
                    frames.push(frame(None));
                    self.fail(SymbolsFailed { module: region.as_ref().and_then(Region::name), reason });
                }
            }
        }
        frames
    }

    /// Notes that names are missing.
    pub(super) fn fail(&mut self, failed: SymbolsFailed) {
        if !self.failed.contains(&failed) {
            self.failed.push(failed);
        }
    }
}

/// The offset of an address in its module's file.
fn offset_of(address: u64, module: &fl_vma) -> u64 {
    address.wrapping_sub(module.vm_start).wrapping_add(module.file_offset)
}

/// Had the thread handled a fault before this one, and not this one, whose instruction runs once more when the handler has returned?
pub(super) fn has_earlier(raw: &fl_crash) -> bool {
    let is_again = raw.earlier_signal == raw.signal && raw.frames().first() == Some(&raw.earlier_place);
    raw.earlier_signal != 0 && !is_again
}

/// Where a fault was that the thread had handled before. `None` means that there was none.
pub(super) fn earlier_place(raw: &fl_crash) -> Option<unwind::Frame> {
    has_earlier(raw).then_some(unwind::Frame { address: raw.earlier_place, is_return_address: false })
}

/// The frames that the kernel program has walked, at most `depth`.
pub(super) fn by_frame_pointer(raw: &fl_crash, depth: usize) -> Vec<unwind::Frame> {
    let frames = raw.frames().iter().take(depth).enumerate();
    frames.map(|(index, &address)| unwind::Frame { address, is_return_address: index > 0 }).collect()
}

/// The innermost words of the stack of an abort, or of a trap that runtimes end with, for what a runtime has left there.
pub(super) fn innermost_words(raw: &fl_crash, stack: &StackCopy) -> StackWords {
    if !abort_message::may_be_abort(raw) && ![SIGILL, SIGTRAP].contains(&raw.signal) {
        return StackWords::default();
    }
    let start = arch::stack_pointer(&Registers::from(raw.registers));
    let word = |index: u64| stack.read_word(start.wrapping_add(index * 8));
    StackWords { start, words: (0..STACK_WORDS).map_while(word).collect() }
}

/// So far may an address be from the pointer that leads there: the largest field that is believed.
const FIELD_MAX: u64 = 1 << 20;
/// A large block lies so near to another mapping, in units of 4 GiB.
const NEAR_UPPER: u64 = 16;

/// The addresses in registers and on the stack whose lower half a register holds alone, near which the fault address is: what the pointer may have
/// been before it was cut. With another upper half than all mappings that are known it is no address, but two numbers side by side.
pub(super) fn wholes(raw: &fl_crash, stack: &StackCopy) -> Vec<u64> {
    let has = |flag: fl_crash_flag| raw.flags.0 & flag.0 != 0;
    if raw.signal != SIGSEGV || !has(fl_crash_flag::FL_HAS_PAGE_FAULT) || !has(fl_crash_flag::FL_HAS_REGISTERS) {
        return Vec::new();
    }
    let registers = Registers::from(raw.registers);
    let values = arch::unwind::registers(&registers);
    let is_near = |value: u64| {
        value >= arch::LEAST_ADDRESS && raw.fault_address.wrapping_sub(value).wrapping_add(FIELD_MAX) <= 2 * FIELD_MAX
    };
    let pointers: Vec<u64> =
        values.iter().copied().filter(|&value| is_near(value) && truncated::is_half(value)).collect();
    if pointers.is_empty() {
        return Vec::new();
    }
    let known = raw.modules.iter().take(raw.module_count as usize).map(|module| module.vm_start);
    let uppers: Vec<u64> = known.chain([raw.start_stack, raw.start_brk]).map(|address| address >> 32).collect();
    let is_whole = |word: &u64| {
        uppers.iter().any(|upper| upper.abs_diff(word >> 32) <= NEAR_UPPER)
            && pointers.iter().any(|&pointer| truncated::is_lower_half(pointer, *word))
    };
    let start = arch::stack_pointer(&registers);
    let words = (0..).map_while(|index: u64| stack.read_word(start.checked_add(index * 8)?));
    values.iter().copied().chain(words).filter(is_whole).take(1).collect()
}
