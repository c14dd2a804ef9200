//! The records of memory: calls that map it, pages that become executable, and how often anonymous memory does.

use std::ops::AddAssign;
use std::sync::Arc;

use serde::ser::{SerializeMap, Serializer};

use super::{Head, words};
use crate::hex::{Hex, digits};
use crate::probe::abi::memory::fl_call;
use crate::time::Timestamp;

/// A call that maps, changes or unmaps memory. Fields as in docs/output.md; `None` is `null`, which means not known.
#[derive(Clone, Debug, serde::Serialize)]
pub(crate) struct Mapping {
    /// Kind, time and host.
    #[serde(flatten)]
    pub head: Head,
    /// The process, as the host numbers it.
    pub pid: u32,
    /// The thread that made the call.
    pub tid: u32,
    /// The process's parent.
    pub ppid: u32,
    /// The process's name: its group leader's comm.
    pub comm: String,
    /// `mmap`, `mprotect`, ...
    pub call: MappingCall,
    /// The arguments by name.
    #[serde(serialize_with = "arguments")]
    pub arguments: Vec<(&'static str, MappingArgument)>,
    /// The beginning of the memory that the call was about.
    pub address: Option<Hex>,
    /// Its length, bytes, whole pages.
    pub length: Option<u64>,
    /// `r-xp`, of the mapping at `address` after the call; `None` means that there is none.
    pub permissions: Option<String>,
    /// 0, the number of a new file descriptor, or minus the number of the error.
    pub result: Option<i64>,
    /// The error's name.
    pub error: Option<String>,
    /// The file's path, or `[vdso]`; `None` means anonymous memory.
    pub mapping_name: Option<String>,
    /// The offset of `address` in the file.
    pub offset: Option<Hex>,
    /// How many pages the call made executable, by what became of them; `None` means that it made none, or that they were not asked for.
    pub pages: Option<PageCounts>,
}

words! {
    /// Which call, or which event that stands for one.
    #[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
    pub(crate) enum MappingCall {
        /// mmap(2)
        Mmap = "mmap",
        /// mprotect(2)
        Mprotect = "mprotect",
        /// pkey_mprotect(2)
        PkeyMprotect = "pkey_mprotect",
        /// munmap(2)
        Munmap = "munmap",
        /// mremap(2)
        Mremap = "mremap",
        /// brk(2)
        Brk = "brk",
        /// shmat(2)
        Shmat = "shmat",
        /// shmdt(2)
        Shmdt = "shmdt",
        /// madvise(2)
        Madvise = "madvise",
        /// memfd_create(2)
        Memfd = "memfd",
        /// execve(2) and execveat(2): a mapping of the new program
        Execve = "execve",
        /// The end of the process
        Exit = "exit",
        /// No call was seen: the mapping was found.
        Unseen = "unseen",
    }
}

impl From<fl_call> for MappingCall {
    fn from(call: fl_call) -> Self {
        match call {
            fl_call::FL_CALL_MMAP => Self::Mmap,
            fl_call::FL_CALL_MPROTECT => Self::Mprotect,
            fl_call::FL_CALL_PKEY_MPROTECT => Self::PkeyMprotect,
            fl_call::FL_CALL_MUNMAP => Self::Munmap,
            fl_call::FL_CALL_MREMAP => Self::Mremap,
            fl_call::FL_CALL_BRK => Self::Brk,
            fl_call::FL_CALL_SHMAT => Self::Shmat,
            fl_call::FL_CALL_SHMDT => Self::Shmdt,
            fl_call::FL_CALL_MADVISE => Self::Madvise,
            fl_call::FL_CALL_MEMFD => Self::Memfd,
            fl_call::FL_CALL_EXEC => Self::Execve,
            fl_call::FL_CALL_EXIT => Self::Exit,
            _ => Self::Unseen,
        }
    }
}

/// An argument of a call.
#[derive(Clone, Debug, PartialEq, Eq, serde::Serialize)]
#[serde(untagged)]
pub(crate) enum MappingArgument {
    /// An address, or an offset in a file.
    Address(Hex),
    /// A length, or a file descriptor.
    Number(i64),
    /// Flags by name: `PROT_READ|PROT_EXEC`.
    Flags(String),
}

/// Pages of one call: `total` is the sum of the others.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
pub(crate) struct PageCounts {
    /// All pages of the range.
    pub total: u64,
    /// Read by the kernel program when the call was done.
    pub resident: u64,
    /// Read by user space afterwards.
    pub read: u64,
    /// Never used, so that they have no content: anonymous memory, or behind the end of a file.
    pub untouched: u64,
    /// More than `--max-bytes`.
    pub left_out: u64,
    /// The process was gone before they could be read.
    pub gone: u64,
}

impl AddAssign for PageCounts {
    fn add_assign(&mut self, more: Self) {
        self.total += more.total;
        self.resident += more.resident;
        self.read += more.read;
        self.untouched += more.untouched;
        self.left_out += more.left_out;
        self.gone += more.gone;
    }
}

/// One page of executable memory, and its content.
#[derive(Clone, Debug)]
#[non_exhaustive]
pub struct Page {
    /// When it was read.
    pub timestamp: Timestamp,
    /// The process, as the host numbers it.
    pub pid: u32,
    /// Where it lies.
    pub address: u64,
    /// `r-xp`, of its mapping; `None` means not known.
    pub permissions: Option<String>,
    /// Why it was read.
    pub trigger: Trigger,
    /// The SHA-256 of its bytes.
    pub sha256: [u8; 32],
    /// True: the kernel program read it, at the moment of the `trigger`. Else user space read it, a little later.
    pub resident: bool,
    /// Where it was read.
    pub source: Source,
    /// The file's path, or `[vdso]`; `None` means anonymous memory.
    pub mapping_name: Option<String>,
    /// Its content, as many bytes as a page of the kernel has.
    pub bytes: Arc<[u8]>,
}

words! {
    /// Why a page was read.
    #[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
    #[non_exhaustive]
    pub enum Trigger {
        /// It was executable when watching began.
        Attach = "attach",
        /// mmap(2) made it executable.
        Mmap = "mmap",
        /// mprotect(2) did.
        Mprotect = "mprotect",
        /// pkey_mprotect(2) did.
        PkeyMprotect = "pkey_mprotect",
        /// mremap(2) moved it there.
        Mremap = "mremap",
        /// brk(2) did.
        Brk = "brk",
        /// shmat(2) did.
        Shmat = "shmat",
        /// execve(2) has mapped it.
        Execve = "execve",
        /// It was executed, for the first time as far as the processor shows it.
        ExecuteFault = "execute_fault",
        /// It can change at any time, and was read again.
        Timer = "timer",
        /// It is about to be unmapped.
        BeforeMunmap = "before_munmap",
        /// Something is about to be mapped over it.
        BeforeMmap = "before_mmap",
        /// It is about to be moved.
        BeforeMremap = "before_mremap",
        /// Its content is about to be dropped.
        BeforeMadvise = "before_madvise",
        /// It is about to be detached.
        BeforeShmdt = "before_shmdt",
        /// The process is about to execute another program.
        BeforeExecve = "before_execve",
        /// The process is about to end.
        Exit = "exit",
        /// No call was seen that made it executable.
        Unseen = "unseen",
    }
}

impl Trigger {
    /// Pages that a call has made executable.
    pub(crate) fn after(call: MappingCall) -> Self {
        match call {
            MappingCall::Mmap => Self::Mmap,
            MappingCall::Mprotect => Self::Mprotect,
            MappingCall::PkeyMprotect => Self::PkeyMprotect,
            MappingCall::Mremap => Self::Mremap,
            MappingCall::Brk => Self::Brk,
            MappingCall::Shmat => Self::Shmat,
            MappingCall::Execve => Self::Execve,
            _ => Self::Unseen,
        }
    }

    /// Pages that a call is about to take away.
    pub(crate) fn before(call: MappingCall) -> Self {
        match call {
            MappingCall::Munmap => Self::BeforeMunmap,
            MappingCall::Mmap => Self::BeforeMmap,
            MappingCall::Mremap => Self::BeforeMremap,
            MappingCall::Madvise => Self::BeforeMadvise,
            MappingCall::Shmdt => Self::BeforeShmdt,
            MappingCall::Execve => Self::BeforeExecve,
            _ => Self::Exit,
        }
    }
}

/// Where a page was read.
#[derive(Clone, Copy, Debug, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
#[serde(rename_all = "snake_case")]
#[non_exhaustive]
pub enum Source {
    /// By the kernel program.
    Kernel,
    /// In the process's memory, by user space.
    Process,
    /// In the file that is mapped there: the process had not touched it.
    File,
}

/// A page as it is written: the bytes are in the dump.
#[derive(Clone, Debug, serde::Serialize)]
pub(crate) struct PageRecord {
    /// Kind, time and host.
    #[serde(flatten)]
    pub head: Head,
    /// The process, as the host numbers it.
    pub pid: u32,
    /// Where it lies.
    pub address: Hex,
    /// Bytes.
    pub length: usize,
    /// `r-xp`; `None` means not known.
    pub permissions: Option<String>,
    /// Why it was read.
    pub trigger: Trigger,
    /// The SHA-256 of its bytes.
    pub sha256: String,
    /// True: read at the moment of the `trigger`.
    pub resident: bool,
    /// Where it was read.
    pub source: Source,
    /// The file's path, or `[vdso]`; `None` means anonymous memory.
    pub mapping_name: Option<String>,
    /// The dump, in the folder of `--dump`; `None` means that there is none.
    pub file: Option<String>,
}

impl PageRecord {
    /// The record of `page`, whose bytes are in `file`.
    pub(crate) fn new(page: &Page, host: &str, file: Option<String>) -> Self {
        Self {
            head: Head::new("page", page.timestamp, host),
            pid: page.pid,
            address: Hex(page.address),
            length: page.bytes.len(),
            permissions: page.permissions.clone(),
            trigger: page.trigger,
            sha256: digits(&page.sha256),
            resident: page.resident,
            source: page.source,
            mapping_name: page.mapping_name.clone(),
            file,
        }
    }
}

/// The counts of one interval. Fields as in docs/output.md.
#[derive(Clone, Debug, serde::Serialize)]
pub(crate) struct ExecutableMemory {
    /// Kind, time and host.
    #[serde(flatten)]
    pub head: Head,
    /// The interval's length.
    pub interval_seconds: f64,
    /// The run is over, and `processes` has those without calls in this interval, too.
    #[serde(rename = "final")]
    pub last: bool,
    /// By process and call, most calls first.
    pub processes: Vec<Executable>,
    /// Calls in this interval: the sum of all `processes[].count` and of `nameless`.
    pub calls: u64,
    /// Calls that found no room in the table.
    pub nameless: u64,
}

/// One process and one kind of call.
#[derive(Clone, Debug, serde::Serialize)]
pub(crate) struct Executable {
    /// As the host numbers it.
    pub pid: u32,
    /// Its name when it was first seen.
    pub comm: String,
    /// The executable; `None` means that the process was gone when we looked.
    pub exe: Option<String>,
    /// The real user id.
    pub uid: u32,
    /// `mmap`, `mprotect`, `pkey_mprotect`.
    pub call: MappingCall,
    /// The call asked for writable and executable at once.
    pub writable: bool,
    /// Calls in this interval.
    pub count: u64,
    /// Calls since the start.
    pub total: u64,
    /// Bytes since the start; the same memory counts each time.
    pub total_bytes: u64,
    /// The first one's time.
    pub first_seen: Timestamp,
    /// The last one's.
    pub last_seen: Timestamp,
    /// The last one's address.
    pub last_address: Hex,
}

fn arguments<S: Serializer>(from: &[(&'static str, MappingArgument)], serializer: S) -> Result<S::Ok, S::Error> {
    let mut map = serializer.serialize_map(Some(from.len()))?;
    for (name, value) in from {
        map.serialize_entry(name, value)?;
    }
    map.end()
}
