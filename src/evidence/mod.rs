//! The evidence of one delivered signal: what the kernel sent and what files say, in numbers, enums and names. Nothing here judges, and
//! nothing is made for display.

mod failure;
mod file;
mod function;
mod halt;
mod part;
mod reason;
mod region;
mod sample;

pub(crate) use failure::{Failure, Functions};
pub(crate) use file::{DELETED, File, FileId};
pub(crate) use function::Function;
pub(crate) use halt::Halt;
pub(crate) use part::FilePart;
pub(crate) use reason::{Reason, ReasonKind};
pub(crate) use region::{Backing, Permissions, Region, Surroundings};
pub(crate) use sample::arrival;

use std::ops::Range;

use serde::{Deserialize, Serialize};

use crate::arch::{Arrival, Refusal, Registers};
use crate::probe::abi::fl_arch;

/// The largest frame of a signal, bytes: so far from a stack's end the kernel program looks for what lies below it.
pub(crate) const SIGNAL_FRAME_BYTES: u64 = fl_arch::FL_SIGNAL_FRAME_BYTES.0 as u64;

/// One delivered signal. `None` means "not known" everywhere, unless the field says otherwise.
#[derive(Clone, Debug, Default)]
pub(crate) struct Evidence {
    /// When it was delivered: CLOCK_BOOTTIME.
    pub at_ns: u64,
    /// The thread that got it.
    pub thread: Thread,
    /// 11 for SIGSEGV.
    pub signal: u32,
    /// `None` means that the kernel kept no siginfo, or that the process made it up.
    pub si_code: Option<i32>,
    /// The trap that the signal is for.
    pub trap: Trap,
    /// The number of the system call by which the thread came into the kernel. `None` means that it came otherwise, or that it
    /// isn't known.
    pub entry_call: Option<i32>,
    /// `si_addr`.
    pub fault_address: Option<u64>,
    /// The page fault's error code; `None` means no page fault, or not this signal's.
    pub page_fault: Option<u64>,
    /// The registers of the thread, as the signal found them.
    pub registers: Option<Registers>,
    /// A 32-bit task. Its code isn't decoded.
    pub is_compat: bool,
    /// The bytes from the instruction pointer on, 16 at most; fewer where the page ends.
    pub code: Option<Vec<u8>>,
    /// What lies at the fault address.
    pub memory: Surroundings,
    /// What lies at the stack pointer.
    pub stack: Surroundings,
    /// RLIMIT_STACK of the process at its end, bytes; `u64::MAX`: unlimited.
    pub stack_limit: Option<u64>,
    /// The stack trace, innermost frame first.
    pub frames: Vec<Frame>,
    /// How large the innermost frame is, by call frame information: from the stack pointer up to its caller's, bytes.
    pub frame_bytes: Option<u64>,
    /// It is proved that this is the function's own frame: where a frame pointer leads to the caller, anything may have moved the stack pointer.
    pub is_frame_sized: bool,
    /// A handler ran for it before the memory was looked at, and may have changed that.
    pub is_caught: bool,
    /// `None` means that no process sent it, or that the kernel doesn't say.
    pub sender: Option<Sender>,
    /// Why the kernel has sent the signal on its own account; `None`: it did not, or nothing proves why.
    pub reason: Option<Reason>,
    /// The call that seccomp refused.
    pub system_call: Option<SystemCall>,
    /// The kernel has ended the thread alone: its process goes on.
    pub ends_thread: bool,
    /// What libc said before it aborted.
    pub abort_message: Option<String>,
    /// C++: an exception was in hand when it aborted.
    pub has_exception: bool,
    /// The recorded kernel call that explains it; `None` means that none is known to.
    pub cause: Option<Cause>,
    /// The file behind the mapping whose page could not be had. `None` means that it is none of a file system, or that it isn't known.
    pub stored: Option<StoredFile>,
    /// The disk that it is on has no room. `None` means that it wasn't asked for, or isn't known.
    pub is_disk_full: Option<bool>,
    /// What was done with the mapping at the fault address before.
    pub past: Past,
    /// How the thread came to an address without code. `None` means that it is at code, or that nothing proves it.
    pub arrival: Option<Arrival>,
    /// Nothing but the call before the return address, or what it called, can have led there: no other jump.
    pub is_call_last: bool,
    /// What the processor has refused of the instruction. `None` means nothing, or that the signal says it all.
    pub refusal: Option<Refusal>,
    /// The function that [`Arrival::Behind`] called. `None` means that its name isn't known.
    pub callee: Option<String>,
    /// The part of its file that the fault address is in. `None` means that it wasn't asked for, or that the file is gone.
    pub part: Option<FilePart>,
    /// The halt of the innermost frame. `None` means that it was not asked for, or that its file is gone.
    pub halt: Option<Halt>,
    /// The heap, where addresses of the program's own come from.
    pub heap: Range<u64>,
    /// Addresses in registers and on the stack whose lower half a register holds alone that the fault address is near.
    pub wholes: Vec<u64>,
    /// Each frame up to the outermost one was found by call frame information, as the unwinder of exceptions finds it.
    pub is_unwindable: bool,
}

/// What a function does with an exception that one of its calls throws.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, serde::Deserialize)]
pub(crate) enum Handling {
    /// Lets it pass, perhaps after destructors.
    Passes,
    /// Catches some.
    Catches,
    /// Catches any.
    CatchesAll,
    /// Ends the process: it may not leave.
    Ends,
}

/// A file at the moment of a signal.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct StoredFile {
    /// Bytes.
    pub size: u64,
    /// What kind of file system it is on.
    pub system: FileSystem,
    /// How many pages there may be, of a tmpfs, or are, of huge pages. 0 means no limit, or not known.
    pub capacity: u64,
    /// How many of them are used, at least.
    pub used: u64,
    /// And at most: the kernel's counter is exact only where all processors have brought in their parts.
    pub used_most: u64,
    /// The size of a page of it.
    pub page_bytes: u64,
}

/// Kinds of file systems.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) enum FileSystem {
    /// tmpfs, which shared memory is on, too.
    Memory,
    /// Huge pages.
    HugePages,
    /// Any other.
    #[default]
    Other,
}

/// What was done with a mapping before a signal.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Past {
    /// It was writable once.
    pub was_writable: bool,
    /// It is private, and has had pages of its own (or may be read, and is never accounted for): it may have been writable once.
    pub has_own_pages: bool,
    /// It belongs to a program or library that is executed: next to it the same file is mapped executable.
    pub is_executed: bool,
    /// userfaultfd(2) is to bring in its pages.
    pub is_by_userfaultfd: bool,
}

/// A kernel call that has left what the signal was about as the signal has found it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Cause {
    /// What it did.
    pub change: Change,
    /// False: it may have been other memory or another file, as where only the names of two files are the same.
    pub is_certain: bool,
    /// The function's name.
    pub function: String,
    /// The process that called it, as the host numbers it.
    pub pid: u32,
    /// The thread.
    pub tid: u32,
    /// The process's name.
    pub comm: String,
    /// CLOCK_BOOTTIME of its end; where it was not seen to end, of its begin.
    pub ended_ns: u64,
}

/// What a kernel call did to memory, to a file or to a process.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Change {
    /// Took a mapping away.
    Unmapped,
    /// Moved a mapping to another address.
    Moved,
    /// Mapped something.
    Mapped,
    /// Changed what may be done with a mapping.
    Protected,
    /// Threw away what memory held.
    Discarded,
    /// Cut a file below the page in question.
    Truncated,
    /// Gave a file another length.
    Resized,
    /// Took a part out of a file.
    Punched,
    /// Sent a signal.
    Sent,
}

/// A thread and its process.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Thread {
    /// The process, as the host numbers it.
    pub pid: u32,
    /// The thread.
    pub tid: u32,
    /// CLOCK_BOOTTIME of its start: distinguishes two threads of the same number.
    pub start_ns: u64,
    /// Its comm.
    pub name: String,
    /// The process in its innermost pid namespace; 1: its init.
    pub pid_in_namespace: u32,
    /// Is that namespace another one than the host's?
    pub in_pid_namespace: bool,
}

impl Thread {
    /// Is it the process's first one?
    pub(crate) fn is_main(&self) -> bool {
        self.tid == self.pid
    }
}

/// The trap that the kernel sent a signal for.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) enum Trap {
    /// There may have been one.
    #[default]
    Unknown,
    /// There was none.
    Absent,
    /// A trap, by the processor's number for it.
    Number(u64),
}

/// The process that sent the signal.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Sender {
    /// The one that got it.
    Itself,
    /// This one, as the host numbers it.
    Process(u32),
    /// One that can't be seen from the target's pid namespace, or by a number that the host doesn't know.
    Elsewhere,
}

/// A frame of a stack.
#[derive(Clone, Debug, Default)]
pub struct Frame {
    /// The instruction, or the return address.
    pub address: u64,
    /// The function there; one that was inlined is a frame of its own.
    pub function: Option<Function>,
    /// The executable mapping there.
    pub region: Option<Region>,
    /// The offset of `address` in the mapping's file.
    pub file_offset: Option<u64>,
    /// What the function does with an exception of the call that it is in. `None` means that it wasn't asked for, or isn't known.
    pub(crate) handling: Option<Handling>,
}

/// A system call, as in `struct seccomp_data`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct SystemCall {
    /// Its number.
    pub number: i32,
    /// AUDIT_ARCH_*: which table the number is from.
    pub arch: u32,
    /// The instruction after the call.
    pub address: u64,
}

/// What an access to memory was to do.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Access {
    /// Read.
    Read,
    /// Write.
    Write,
    /// Fetch an instruction.
    Execute,
}

/// Was the page fault so, by its error code?
fn error_has(code: u64, what: fl_arch, mask: fl_arch) -> bool {
    code & u64::from(mask.0) == u64::from(what.0)
}

impl Access {
    /// What a page fault's access was to do, by its error code.
    pub(crate) fn of(code: u64) -> Self {
        if error_has(code, fl_arch::FL_PF_INSTR, fl_arch::FL_PF_INSTR_MASK) {
            Self::Execute
        } else if error_has(code, fl_arch::FL_PF_WRITE, fl_arch::FL_PF_WRITE_MASK) {
            Self::Write
        } else {
            Self::Read
        }
    }
}

impl Evidence {
    /// What the page fault's access was to do; [`Access::Read`] if there was no page fault.
    pub(crate) fn access(&self) -> Access {
        self.page_fault.map_or(Access::Read, Access::of)
    }

    /// A page is there, and does not allow the access.
    pub(crate) fn is_present(&self) -> bool {
        self.page_fault.is_some_and(|code| error_has(code, fl_arch::FL_PF_PRESENT, fl_arch::FL_PF_PRESENT_MASK))
    }

    /// A protection key closes the page.
    pub(crate) fn is_protection_key(&self) -> bool {
        self.page_fault.is_some_and(|code| error_has(code, fl_arch::FL_PF_KEY, fl_arch::FL_PF_KEY_MASK))
    }

    /// Is the second frame the caller of the innermost one? A frame pointer alone may lead past it.
    pub(crate) fn is_caller_proved(&self) -> bool {
        self.frame_bytes.is_some()
    }

    /// Is the source of a frame's function known?
    pub(crate) fn has_source(&self, frame: usize) -> bool {
        let function = self.frames.get(frame).and_then(|frame| frame.function.as_ref());
        function.is_some_and(|function| function.file.is_some())
    }

    /// The function of a frame.
    pub(crate) fn function(&self, frame: usize) -> Option<&str> {
        self.frames.get(frame)?.function.as_ref().map(|function| function.name.as_str())
    }
}
