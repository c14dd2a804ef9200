//! A crash as the library hands it out: made of the record, whose shape may change without it.

use std::borrow::Cow;

use crate::diagnosis;
use crate::record::crash as record;
use crate::time::Timestamp;

pub use crate::diagnosis::Confidence;
pub use crate::record::crash::Disposition;

/// One signal that ended a process, or could have. `None` means not known, unless it says something else.
#[derive(Clone, Debug)]
#[non_exhaustive]
pub struct Crash {
    /// When the kernel delivered the signal.
    pub timestamp: Timestamp,
    /// The process, as the host numbers it.
    pub pid: u32,
    /// The thread that got the signal.
    pub tid: u32,
    /// The process's parent.
    pub ppid: u32,
    /// The process's name: its group leader's comm. Processes choose their names: escape it for a terminal.
    pub comm: String,
    /// The thread's comm.
    pub thread_name: String,
    /// The executable's path as the process saw it, with ` (deleted)` behind it if the file was unlinked.
    pub exe: Option<String>,
    /// The executable's build id, in hexadecimal digits.
    pub build_id: Option<String>,
    /// The real user id, as the host numbers it.
    pub uid: u32,
    /// Path in the cgroup v2 hierarchy.
    pub cgroup: Option<String>,
    /// The container's id; `None` means that it is in none of a known kind.
    pub container_id: Option<String>,
    /// The signal's number, as in signal(7).
    pub signal: i32,
    /// The signal's name, `SIGSEGV`.
    pub signal_name: String,
    /// `si_code` of sigaction(2); `None` means that the kernel kept no siginfo, as for SIGKILL.
    pub si_code: Option<i32>,
    /// The address that could not be accessed; `None` means that there is none, or that the processor does not report it.
    pub fault_address: Option<u64>,
    /// Where the thread was.
    pub instruction_pointer: Option<u64>,
    /// What the signal did.
    pub disposition: Disposition,
    /// The sender of the signal; `None` means that no process sent it, or that the kernel doesn't report it.
    pub sender: Option<Sender>,
    /// The registers by name. If they are not known, there are none.
    pub registers: Vec<(Cow<'static, str>, u64)>,
    /// The stack, innermost frame first. If none are known or asked for, there are none.
    pub frames: Vec<Frame>,
    /// Did the unwinder reach the outermost frame? `None` means that no frames were asked for.
    pub stack_complete: Option<bool>,
    /// The same for the same bug in the same build, on every host.
    pub signature: String,
    /// The same for the same bug in any build; `None` means that it has no names, or that another process sent the signal.
    pub family: Option<String>,
    /// The message of libc before an abort; `None` means that there was none, or that its address isn't known.
    pub abort_message: Option<String>,
    /// The likely cause; `None` means that no cause is sure enough.
    pub diagnosis: Option<Diagnosis>,
}

/// One frame of a stack.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct Frame {
    /// The instruction, or the return address.
    pub address: Option<u64>,
    /// The function and the offset in it, `main+0x10`; `None` means that no name is certain.
    pub symbol: Option<String>,
    /// The program or library, or `[vdso]`.
    pub module: Option<String>,
    /// The build id of the module, in hexadecimal digits.
    pub build_id: Option<String>,
    /// The offset of `address` in the module's file.
    pub offset: Option<u64>,
    /// The source file.
    pub file: Option<String>,
    /// The line in it.
    pub line: Option<u32>,
    /// This function is part of the next one, whose address it has.
    pub inlined: bool,
}

/// The process that sent a signal.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct Sender {
    /// As the host numbers it; `None` means that it can't be seen from the target's pid namespace.
    pub pid: Option<u32>,
    /// The process's name.
    pub comm: Option<String>,
    /// Its real user id, as the host numbers it; `None` means that the target is in a user namespace and sees another number.
    pub uid: Option<u32>,
}

/// The likely cause of a crash.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct Diagnosis {
    /// A word for machines, `null_dereference`. docs/diagnosis.md lists them.
    pub kind: String,
    /// A sentence for people. It contains names from the process as they are: escape them for a terminal.
    pub text: String,
    /// How well the evidence proves it.
    pub confidence: Confidence,
}

impl From<record::Crash> for Crash {
    fn from(record: record::Crash) -> Self {
        let registers = record.registers.into_iter().flat_map(|registers| registers.0);
        Self {
            timestamp: record.head.timestamp,
            pid: record.pid,
            tid: record.tid,
            ppid: record.ppid,
            comm: record.comm,
            thread_name: record.thread_name,
            exe: record.exe,
            build_id: record.build_id,
            uid: record.uid,
            cgroup: record.cgroup,
            container_id: record.container_id,
            signal: record.signal_number.cast_signed(),
            signal_name: record.signal,
            si_code: record.code_number,
            fault_address: record.fault_address.map(|address| address.0),
            instruction_pointer: record.instruction_pointer.map(|address| address.0),
            disposition: record.disposition,
            sender: record.sender.map(Sender::from),
            registers: registers.map(|(name, value)| (name, value.0)).collect(),
            frames: record.stack_trace.into_iter().flatten().map(Frame::from).collect(),
            stack_complete: record.stack_complete,
            signature: record.signature,
            family: record.family,
            abort_message: record.abort_message,
            diagnosis: record.diagnosis.map(Diagnosis::from),
        }
    }
}

impl From<record::Frame> for Frame {
    fn from(frame: record::Frame) -> Self {
        let record::Frame { address, symbol, module, build_id, offset, file, line, inlined } = frame;
        let (address, offset) = (address.map(|address| address.0), offset.map(|offset| offset.0));
        Self { address, symbol, module, build_id, offset, file, line, inlined }
    }
}

impl From<record::Sender> for Sender {
    fn from(sender: record::Sender) -> Self {
        Self { pid: sender.pid, comm: sender.comm, uid: sender.uid }
    }
}

impl From<diagnosis::Diagnosis> for Diagnosis {
    fn from(found: diagnosis::Diagnosis) -> Self {
        Self { kind: found.kind.to_string(), text: found.text, confidence: found.confidence }
    }
}
