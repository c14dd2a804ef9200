//! What a diagnosis is made from. Nothing here judges.

use crate::hex::Hex;
use crate::probe::abi::fl_registers;

/// What is known of one delivered signal. None is "not known" everywhere, unless the field says otherwise.
#[derive(Clone, Debug, Default)]
pub struct Facts {
    /// 11 for SIGSEGV.
    pub signal: u32,
    /// None: the kernel kept no siginfo.
    pub si_code: Option<i32>,
    /// The trap that the signal is for; `None` means that it is not known, or that there was none.
    pub trap_nr: Option<u64>,
    /// The signal is for no trap.
    pub no_trap: bool,
    /// `si_addr`.
    pub fault_address: Option<u64>,
    /// The page fault's error code; None: no page fault, or not this signal's.
    pub page_fault: Option<u64>,
    /// Of the thread, as the signal found it.
    pub registers: Option<fl_registers>,
    /// A 32-bit task. Its code isn't decoded.
    pub is_compat: bool,
    /// The bytes from `rip` on, 16 at most; fewer where the page ends.
    pub code: Option<Vec<u8>>,
    /// What lies at the fault address.
    pub memory: Surroundings,
    /// What lies at `rsp`.
    pub stack: Surroundings,
    /// Is the thread the process's first one?
    pub is_main_thread: Option<bool>,
    /// The thread's name.
    pub thread_name: Option<String>,
    /// RLIMIT_STACK of the process at its end, bytes; `u64::MAX`: unlimited.
    pub stack_limit: Option<u64>,
    /// The functions' names, innermost frame first, with or without `+0x10` behind them; None: a frame without a name.
    pub frames: Vec<Option<String>>,
    /// The process, in the same numbers as `sender_pid`.
    pub pid: Option<u32>,
    /// Who sent the signal.
    pub sender_pid: Option<u32>,
    /// The process in its innermost pid namespace; 1: its init.
    pub pid_in_namespace: Option<u32>,
    /// Is that namespace another one than the host's?
    pub in_pid_namespace: bool,
    /// The call that seccomp refused.
    pub system_call: Option<SystemCall>,
    /// What libc said before it aborted.
    pub abort_message: Option<String>,
    /// Was the fault address mapped once, and then unmapped?
    pub unmapped_before: Option<bool>,
}

/// A system call by number, and by name where the table of its architecture has it.
#[derive(Clone, Debug)]
pub struct SystemCall {
    /// As in `struct seccomp_data`.
    pub number: i32,
    /// `getppid`.
    pub name: Option<String>,
}

/// What lies at an address and beside it. All None: not looked up, or it could not be.
#[derive(Clone, Debug, Default)]
pub struct Surroundings {
    /// The mapping that holds the address.
    pub at: Option<Mapping>,
    /// The nearest one below: of the address, or of `at` where that is known.
    pub below: Option<Mapping>,
    /// The nearest one above.
    pub above: Option<Mapping>,
}

/// One mapping of the process.
#[derive(Clone, Debug)]
pub struct Mapping {
    /// First address.
    pub start: u64,
    /// First address after it.
    pub end: u64,
    /// VM_READ.
    pub readable: bool,
    /// VM_WRITE.
    pub writable: bool,
    /// VM_EXEC.
    pub executable: bool,
    /// VM_SHARED or VM_MAYSHARE: what is written is the file's.
    pub shared: bool,
    /// What is behind it.
    pub backing: Backing,
}

/// What a mapping is of.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Backing {
    /// Memory without a name.
    Anonymous,
    /// A file; None: its path isn't known.
    File(Option<String>),
    /// The main thread's stack.
    MainStack,
    /// From `start_brk` to `brk`.
    Heap,
    /// The kernel's own: vdso, vvar.
    Kernel,
}

// enum x86_pf_error_code, arch/x86/include/asm/trap_pf.h
const WRITE: u64 = 1 << 1;
const INSTRUCTION: u64 = 1 << 4;
const PROTECTION_KEY: u64 = 1 << 5;
const PRESENT: u64 = 1 << 0;

impl Facts {
    fn error_bit(&self, bit: u64) -> bool {
        self.page_fault.is_some_and(|code| code & bit != 0)
    }

    pub(super) fn is_write(&self) -> bool {
        self.error_bit(WRITE)
    }

    pub(super) fn is_fetch(&self) -> bool {
        self.error_bit(INSTRUCTION)
    }

    pub(super) fn is_present(&self) -> bool {
        self.error_bit(PRESENT)
    }

    pub(super) fn is_protection_key(&self) -> bool {
        self.error_bit(PROTECTION_KEY)
    }

    /// "reads" or "writes", as a sentence begins.
    pub(super) fn verb(&self) -> &'static str {
        if self.is_write() { "writes" } else { "reads" }
    }

    /// The function of a frame without its offset.
    pub(super) fn function(&self, frame: usize) -> Option<&str> {
        self.frames.get(frame)?.as_deref().map(without_offset)
    }
}

/// `main` for `main+0x10`.
pub(super) fn without_offset(symbol: &str) -> &str {
    symbol.rsplit_once("+0x").map_or(symbol, |(name, _)| name)
}

impl Surroundings {
    /// Nothing is mapped at the address, and that was looked up: a process always has some mapping.
    pub(super) fn is_hole(&self) -> bool {
        self.at.is_none() && (self.below.is_some() || self.above.is_some())
    }
}

impl Mapping {
    pub(super) fn holds(&self, address: u64) -> bool {
        (self.start..self.end).contains(&address)
    }

    /// Anonymous memory that nobody may access: a guard, or a reservation.
    pub(super) fn is_guard(&self) -> bool {
        !self.readable && !self.writable && !self.executable && self.backing == Backing::Anonymous
    }

    /// As in /proc/PID/maps.
    pub(super) fn permissions(&self) -> String {
        let bits = [(self.readable, 'r'), (self.writable, 'w'), (self.executable, 'x')];
        let mut text: String = bits.iter().map(|(is, letter)| if *is { *letter } else { '-' }).collect();
        text.push(if self.shared { 's' } else { 'p' });
        text
    }

    /// For a sentence: what it is, and its permissions.
    pub(super) fn text(&self) -> String {
        let what = match &self.backing {
            Backing::Anonymous => "anonymous memory",
            Backing::File(Some(name)) => name,
            Backing::File(None) => "a file",
            Backing::MainStack => "the main thread's stack",
            Backing::Heap => "the heap",
            Backing::Kernel => "the kernel's own page",
        };
        format!("{what}, {}", self.permissions())
    }
}

/// An address or a register's value in a sentence.
pub(super) fn hex(value: u64) -> Hex {
    Hex(value)
}

/// A size for people: `8.0 MiB`, `128 KiB`.
pub(super) fn size(bytes: u64) -> String {
    const KIB: u64 = 1 << 10;
    const MIB: u64 = 1 << 20;
    match bytes {
        MIB.. => format!("{:.1} MiB", bytes as f64 / MIB as f64),
        KIB.. => format!("{} KiB", bytes / KIB),
        _ => format!("{bytes} bytes"),
    }
}
