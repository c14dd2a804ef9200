//! The record of a crash, which is the JSON and the source of the text.

use std::borrow::Cow;
use std::fmt;

use serde::de::{Deserialize, Deserializer, MapAccess, Visitor};
use serde::ser::{Serialize, SerializeMap, Serializer};

use super::Head;
use super::call::Call;
use super::oom::OutOfMemory;
use crate::arch;
use crate::diagnosis::{Confidence, Diagnosis};
use crate::evidence::{self, Access, Failure, Function, Reason, Region, SystemCall};
use crate::hex::Hex;
use crate::runtime::message::RuntimeMessage;

/// One signal that ended a process, or could have. Fields as in docs/output.md; `None` is `null`, which means not known.
#[derive(Clone, Debug, serde::Serialize, serde::Deserialize)]
pub struct Crash {
    /// Kind, time and host.
    #[serde(flatten)]
    pub head: Head,
    /// The process, as the host numbers it.
    pub pid: u32,
    /// The thread that got the signal.
    pub tid: u32,
    /// The process's parent.
    pub ppid: u32,
    /// The process in its own pid namespace.
    pub pid_in_namespace: u32,
    /// The process's name: its group leader's comm.
    pub comm: String,
    /// The thread's comm.
    pub thread_name: String,
    /// The executable's path as the process saw it, with ` (deleted)` behind it if the file was unlinked.
    pub exe: Option<String>,
    /// The executable's build id.
    pub build_id: Option<String>,
    /// The real user id, as the host numbers it.
    pub uid: u32,
    /// Path in the cgroup v2 hierarchy.
    pub cgroup: Option<String>,
    /// The container's id; `None` means that it is in none of a known kind.
    pub container_id: Option<String>,
    /// `SIGSEGV`.
    pub signal: String,
    /// 11.
    pub signal_number: u32,
    /// `SEGV_MAPERR`; `None` means that the kernel kept no siginfo, as for SIGKILL.
    pub code: Option<String>,
    /// 1.
    pub code_number: Option<i32>,
    /// `map_error`; `None` means that no fault happened.
    pub fault_type: Option<Cow<'static, str>>,
    /// The address that could not be accessed; `None` means that there is none, or that the processor does not report it.
    pub fault_address: Option<Hex>,
    /// Where the thread was.
    pub instruction_pointer: Option<Hex>,
    /// The function there, `main+0x10`.
    pub instruction_symbol: Option<String>,
    /// The disposition of the signal.
    pub disposition: Disposition,
    /// For `caught`: how the process ended.
    pub ended_by: Option<EndedBy>,
    /// A fault that the thread had handled before it died of something else; `None` means that none is known.
    pub earlier_fault: Option<EarlierFault>,
    /// If the kernel killed the process because memory was short: its size. `None` means that it didn't.
    pub oom: Option<OutOfMemory>,
    /// The sender of the signal; `None` means that no process sent it, or that the kernel doesn't report it.
    pub sender: Option<Sender>,
    /// Why the kernel sent the signal on its own account; `None` means that it didn't, or that nothing proves why.
    pub reason: Option<Reason>,
    /// The page fault behind the signal.
    pub page_fault: Option<PageFault>,
    /// The system call that seccomp refused.
    pub seccomp: Option<Seccomp>,
    /// The message of libc before an abort; `None` means that there was none, or that its address isn't known.
    pub abort_message: Option<String>,
    /// What the runtime of a language said before it ended the process; `None` means nothing, or that it isn't known.
    pub runtime_message: Option<RuntimeMessage>,
    /// With `--registers`.
    pub registers: Option<Registers>,
    /// The mapping that holds the fault address.
    pub vma: Option<Vma>,
    /// The nearest mapping below an address that is in none.
    pub vma_below: Option<Vma>,
    /// The nearest mapping above it.
    pub vma_above: Option<Vma>,
    /// Innermost frame first; `None` with `--brief`.
    pub stack_trace: Option<Vec<Frame>>,
    /// Did the unwinder reach the outermost frame?
    pub stack_complete: Option<bool>,
    /// Frames that are not in `stack_trace`, because the stack has more than were asked for.
    pub stack_omitted: Option<Omitted>,
    /// How the frames were found.
    pub unwinder: Option<Cow<'static, str>>,
    /// The files that have no names for a reason of ours.
    #[serde(default)]
    pub symbols_failed: Vec<SymbolsFailed>,
    /// The bug in this build; see [`crate::identity`].
    pub signature: String,
    /// The bug in any build; `None` means that it has no names, or that another process sent the signal.
    pub family: Option<String>,
    /// The likely cause; `None` means that no cause is sure enough.
    pub diagnosis: Option<Diagnosis>,
    /// The processor it happened on.
    pub cpu: u32,
    /// The last kernel calls before it, oldest first; `None` means that none were recorded (`faultline call` does).
    pub calls: Option<Vec<Call>>,
    /// The text is one line.
    #[serde(skip)]
    pub is_brief: bool,
}

/// The disposition of a delivered signal.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord, serde::Serialize, serde::Deserialize)]
#[serde(rename_all = "snake_case")]
#[non_exhaustive]
pub enum Disposition {
    /// It ended the process.
    Fatal,
    /// A handler ran, and the process ended nevertheless.
    Caught,
    /// A handler ran.
    Handled,
    /// Nothing happened.
    Ignored,
    /// The kernel ended the thread alone, and its process went on.
    Thread,
}

impl Disposition {
    /// All there are.
    pub const ALL: [Self; 5] = [Self::Fatal, Self::Caught, Self::Handled, Self::Ignored, Self::Thread];

    /// Did the process, or a thread of it, end of it?
    pub fn is_death(self) -> bool {
        matches!(self, Self::Fatal | Self::Caught | Self::Thread)
    }

    /// As JSON has it.
    pub fn word(self) -> &'static str {
        match self {
            Self::Fatal => "fatal",
            Self::Caught => "caught",
            Self::Handled => "handled",
            Self::Ignored => "ignored",
            Self::Thread => "thread",
        }
    }
}

/// How a process ended.
#[derive(Clone, Debug, serde::Serialize, serde::Deserialize)]
pub struct EndedBy {
    /// The last signal.
    pub signal: Option<String>,
    /// Its code.
    pub code: Option<String>,
    /// Its exit code, if no signal ended it.
    pub exit_code: Option<i32>,
    /// The address of a second fault, in the handler of the first one.
    pub fault_address: Option<Hex>,
    /// Where the thread was at the second fault.
    pub instruction_pointer: Option<Hex>,
    /// From there to what the handler returns to, innermost frame first; `None` with `--brief`.
    pub stack_trace: Option<Vec<Frame>>,
}

/// A fault that a thread had handled when it died of something else.
#[derive(Clone, Debug, serde::Serialize, serde::Deserialize)]
pub struct EarlierFault {
    /// `SIGSEGV`.
    pub signal: String,
    /// `SEGV_MAPERR`.
    pub code: String,
    /// The address that could not be accessed; `None` means that the processor does not report it.
    pub fault_address: Option<Hex>,
    /// Where it was, one frame with its inlined functions: what its callers were is overwritten. `None` with `--brief`.
    pub stack_trace: Option<Vec<Frame>>,
    /// How sure it is that its handler had been left.
    pub confidence: Confidence,
}

/// The process that sent a signal.
#[derive(Clone, Debug, serde::Serialize, serde::Deserialize)]
pub struct Sender {
    /// As the host numbers it; `None` means that it can't be seen from the target's pid namespace.
    pub pid: Option<u32>,
    /// The sending thread.
    pub tid: Option<u32>,
    /// Its name.
    pub comm: Option<String>,
    /// Its real user id, as the host numbers it; `None` means that the target is in a user namespace and sees another number.
    pub uid: Option<u32>,
}

/// The processor's information about a page fault.
#[derive(Clone, Debug, serde::Serialize, serde::Deserialize)]
pub struct PageFault {
    /// The processor's number.
    pub error_code: u64,
    /// `read`, `write` or `execute`.
    pub access: Cow<'static, str>,
    /// The error code's bits by name.
    pub flags: Vec<Cow<'static, str>>,
}

impl PageFault {
    /// What the processor's error code means.
    pub fn from_code(error_code: u64) -> Self {
        let (access, flags) = page_fault_words(error_code);
        Self { error_code, access: access.into(), flags: flags.into_iter().map(Cow::from).collect() }
    }
}

/// What the processor's error code means: `read`, `write` or `execute`, and its bits by name.
pub(crate) fn page_fault_words(error_code: u64) -> (&'static str, Vec<&'static str>) {
    let access = match Access::of(error_code) {
        Access::Read => "read",
        Access::Write => "write",
        Access::Execute => "execute",
    };
    (access, arch::page_fault_flags(error_code))
}

/// A system call that seccomp refused.
#[derive(Clone, Debug, serde::Serialize, serde::Deserialize)]
pub struct Seccomp {
    /// The call's number.
    pub syscall: i32,
    /// AUDIT_ARCH_*: which table the number is from.
    pub arch: u32,
    /// The instruction after the call.
    pub call_address: Hex,
}

/// A mapping of the process.
#[derive(Clone, Debug, serde::Serialize, serde::Deserialize)]
pub struct Vma {
    /// First address.
    pub start: Hex,
    /// First address after it.
    pub end: Hex,
    /// `r-xp`, as in /proc/PID/maps.
    pub permissions: String,
    /// The file's path, `[heap]`, `[stack]`, `[vdso]`; `None` means anonymous memory.
    pub mapping_name: Option<String>,
    /// The offset of `start` in the file.
    pub offset: Hex,
}

/// One frame of a stack.
#[derive(Clone, Debug, Default, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
pub struct Frame {
    /// The instruction, or the return address; `None` in a group, whose processes have different ones.
    pub address: Option<Hex>,
    /// `main+0x10`; `None` means that no name is certain.
    pub symbol: Option<String>,
    /// The file, or `[vdso]`.
    pub module: Option<String>,
    /// The file's.
    pub build_id: Option<String>,
    /// The offset of `address` in the file.
    pub offset: Option<Hex>,
    /// The source file.
    pub file: Option<String>,
    /// The line in it.
    pub line: Option<u32>,
    /// This function is part of the next one, whose address it has.
    pub inlined: bool,
}

/// A file, or other memory, that ran and of which names are missing.
#[derive(Clone, Debug, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
pub struct SymbolsFailed {
    /// As in the frames without names; `None` means that there is none, or that its path isn't known.
    pub module: Option<String>,
    /// Why.
    pub reason: Failure,
}

/// Frames in the middle of a stack that were left out.
#[derive(Clone, Copy, Debug, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
pub struct Omitted {
    /// How many.
    pub count: usize,
    /// The index in `stack_trace` of the frame behind them.
    pub before: usize,
}

impl From<SystemCall> for Seccomp {
    fn from(call: SystemCall) -> Self {
        Self { syscall: call.number, arch: call.arch, call_address: Hex(call.address) }
    }
}

impl From<&Region> for Vma {
    fn from(region: &Region) -> Self {
        Self {
            start: Hex(region.start),
            end: Hex(region.end),
            permissions: region.permissions.to_string(),
            mapping_name: region.name(),
            offset: Hex(region.file_offset),
        }
    }
}

impl From<&evidence::Frame> for Frame {
    fn from(frame: &evidence::Frame) -> Self {
        let (region, function) = (frame.region.as_ref(), frame.function.as_ref());
        Self {
            address: Some(Hex(frame.address)),
            symbol: function.map(Function::symbol),
            module: region.and_then(Region::name),
            build_id: region.and_then(Region::file).and_then(|file| file.build_id.clone()),
            offset: frame.file_offset.map(Hex),
            file: function.and_then(|function| function.file.clone()),
            line: function.and_then(|function| function.line),
            inlined: function.is_some_and(|function| function.inlined),
        }
    }
}

/// Registers by name, in the order in which people know them.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Registers(pub Vec<(Cow<'static, str>, Hex)>);

impl From<Vec<(&'static str, Hex)>> for Registers {
    fn from(registers: Vec<(&'static str, Hex)>) -> Self {
        Self(registers.into_iter().map(|(name, value)| (name.into(), value)).collect())
    }
}

impl Serialize for Registers {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let mut map = serializer.serialize_map(Some(self.0.len()))?;
        for (name, value) in &self.0 {
            map.serialize_entry(name, value)?;
        }
        map.end()
    }
}

impl<'de> Deserialize<'de> for Registers {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct ByName;
        impl<'de> Visitor<'de> for ByName {
            type Value = Registers;

            fn expecting(&self, to: &mut fmt::Formatter<'_>) -> fmt::Result {
                to.write_str("registers by name")
            }

            fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Registers, A::Error> {
                let mut registers = Vec::new();
                while let Some((name, value)) = map.next_entry::<String, Hex>()? {
                    registers.push((name.into(), value));
                }
                Ok(Registers(registers))
            }
        }
        deserializer.deserialize_map(ByName)
    }
}
