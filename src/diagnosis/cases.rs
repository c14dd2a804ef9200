//! Signals from which tests start. A test says what is in the processor, in siginfo and in the memory of a process. What the kernel program
//! sends of it is decided here, as bpf/include/trap.bpf.h decides it, so that no test starts from a state that production never reaches.

#[cfg(test)]
mod sample;
#[cfg(test)]
mod trap;

use self::sample::{around, describe, registers};
use super::{Confidence, Diagnosis, Kind, diagnose};
use crate::arch::{Refusal, Registers, StackTop};
use crate::evidence::{
    Backing, Cause, Evidence, File, FilePart, Frame, Function, Halt, Handling, Permissions, Region, SIGNAL_FRAME_BYTES,
    StoredFile,
};
use crate::probe::abi::{fl_crash, fl_crash_flag, fl_disposition, fl_reason, fl_vma};
use crate::siginfo::{SEGV_MTEAERR, SEGV_MTESERR, SI_KERNEL, SIGBUS, SIGFPE, SIGILL, SIGSEGV, SIGSYS, SIGTRAP};

/// Where the code of the cases lies.
pub(super) const CODE: u64 = 0x5555_5555_5000;
/// The process of the cases, and its number where it is in a pid namespace.
const PID: u32 = 100;
const TRAP_PAGE_FAULT: u64 = 14;

/// A signal that is delivered to a thread.
#[derive(Clone)]
pub(super) struct Case {
    pub signal: u32,
    pub si_code: i32,
    /// `si_addr`; of a seccomp trap `si_call_addr`.
    pub address: u64,
    /// The thread's last trap, `thread.trap_nr`, and with it its error code and `cr2`: never cleared by the kernel.
    pub trap_nr: u64,
    pub error_code: u64,
    pub cr2: u64,
    /// How the thread came into the kernel.
    pub entry: Entry,
    /// The system call's number, if it came by one: tgkill.
    pub call: i32,
    pub registers: Registers,
    /// False: the kernel program could not find them.
    pub has_registers: bool,
    /// In what can be read at `rip`; empty: nothing can.
    pub code: Vec<u8>,
    /// The byte before `rip`.
    pub code_before: u8,
    /// The alternate signal stack: its start and its size; 0 and 0: none.
    pub alternate: (u64, u64),
    /// The process's mappings. Empty: the look-up failed, as it may while another thread changes them.
    pub regions: Vec<Region>,
    pub stack_limit: u64,
    /// The functions of the stack trace, without their offsets; `?` has no name.
    pub frames: Vec<String>,
    pub is_main_thread: bool,
    pub thread_name: &'static str,
    pub is_compat: bool,
    /// `si_pid`, as the process's own pid namespace numbers it. `None` means the process itself.
    pub sender_pid: Option<i32>,
    /// The number of the process in its pid namespace, where that is not the host's.
    pub pid_in_namespace: Option<u32>,
    /// `si_syscall` and `si_arch`.
    pub system_call: (i32, u32),
    /// The kernel has sent it because of this.
    pub reason: fl_reason,
    /// seccomp has ended the thread alone.
    pub ends_thread: bool,
    pub abort_message: Option<String>,
    /// An exception was in hand.
    pub has_exception: bool,
    /// The file behind the mapping at `address`.
    pub stored: Option<StoredFile>,
    pub is_by_userfaultfd: bool,
    /// The innermost frame's size, as the namer has found it.
    pub frame_bytes: Option<u64>,
    /// It is proved to be the function's own.
    pub is_frame_sized: bool,
    /// Addresses whose lower half a register holds.
    pub wholes: Vec<u64>,
    pub was_writable: bool,
    /// The mapping at `address` is private and has had pages of its own.
    pub has_own_pages: bool,
    /// Next to the mapping at `address` the same file is mapped executable.
    pub is_executed: bool,
    /// The part of that file.
    pub part: Option<FilePart>,
    /// What stands around the instruction in its file.
    pub halt: Option<Halt>,
    /// The disk of that file has no room.
    pub is_disk_full: Option<bool>,
    /// The recorded kernel call that explains the signal.
    pub cause: Option<Cause>,
    /// The words around the top of the stack.
    pub top: Option<StackTop>,
    /// The function that the call before the return address went to.
    pub callee: Option<&'static str>,
    /// What the processor has refused, as arm64 tells by the registers.
    pub refusal: Option<Refusal>,
    /// Each frame was found by call frame information.
    pub is_unwindable: bool,
    /// The file that the code of each frame is in; the last one is that of all others. Empty: none is known.
    pub modules: Vec<&'static str>,
    /// What the function of each frame does with an exception.
    pub handling: Vec<Option<Handling>>,
}

/// How a thread came into the kernel: enum fl_entry.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(super) enum Entry {
    /// By a trap or an interrupt.
    Trap,
    /// By a system call, if the registers say so.
    Call,
}

/// A signal of a process whose memory is unknown. Its registers are all 0 but for `rip` and `rsp`.
pub(super) fn signal(signal: u32, si_code: i32) -> Case {
    Case {
        signal,
        si_code,
        address: if [SIGILL, SIGTRAP, SIGFPE, SIGSYS].contains(&signal) { CODE } else { 0 },
        trap_nr: 0,
        error_code: 0,
        cr2: 0,
        entry: Entry::Trap,
        call: 234,
        registers: Registers { rip: CODE, rsp: 0x7ffd_0000_1000, ..Registers::default() },
        has_registers: true,
        code: Vec::new(),
        code_before: 0,
        alternate: (0, 0),
        regions: Vec::new(),
        stack_limit: 0,
        frames: Vec::new(),
        is_main_thread: true,
        thread_name: "main",
        is_compat: false,
        sender_pid: None,
        pid_in_namespace: None,
        system_call: (0, 0),
        reason: fl_reason::default(),
        ends_thread: false,
        abort_message: None,
        has_exception: false,
        stored: None,
        is_by_userfaultfd: false,
        frame_bytes: None,
        is_frame_sized: true,
        wholes: Vec::new(),
        was_writable: false,
        has_own_pages: false,
        is_executed: false,
        part: None,
        halt: Some(Halt::default()),
        is_disk_full: None,
        cause: None,
        top: None,
        callee: None,
        refusal: None,
        is_unwindable: false,
        modules: Vec::new(),
        handling: Vec::new(),
    }
}

/// A page fault that ended in SIGSEGV.
pub(super) fn fault(si_code: i32, address: u64, error_code: u64) -> Case {
    Case { trap_nr: TRAP_PAGE_FAULT, error_code, ..signal(11, si_code) }.at(address)
}

/// An access by a pointer with a wrong tag, as arm64 refuses it.
pub(super) fn tag_check(address: u64) -> Case {
    Case { trap_nr: trap::DATA_ABORT, error_code: trap::TAG_CHECK, ..signal(SIGSEGV, SEGV_MTESERR) }.at(address)
}

/// All that a NULL dereference leaves in the thread, and then a signal.
pub(super) fn after_fault(number: u32, si_code: i32) -> Case {
    Case { signal: number, ..fault(si_code, 0x18, 4) }
}

/// A trap without an address, of the instruction at `rip`, in a thread whose stack has room.
pub(super) fn general_protection(code: &[u8]) -> Case {
    let stack = Region { backing: Backing::MainStack, ..region(0x7ffc_fff0_0000, 0x7ffd_0010_0000, "rw-") };
    Case { trap_nr: 13, code: code.to_vec(), ..signal(11, 0x80) }.mapped(&[stack])
}

/// Anonymous memory.
pub(super) fn region(start: u64, end: u64, permissions: &str) -> Region {
    let has = |letter| permissions.contains(letter);
    let permissions = Permissions { read: has('r'), write: has('w'), execute: has('x'), shared: has('s') };
    Region { start, end, permissions, file_offset: 0, backing: Backing::Anonymous }
}

/// A mapping of a file.
pub(super) fn file(path: &str, region: Region) -> Region {
    let (path, is_deleted) = path.strip_suffix(" (deleted)").map_or((path, false), |path| (path, true));
    let file = File { path: Some(path.to_owned()), is_deleted, ..File::default() };
    Region { backing: Backing::File(file), ..region }
}

/// Something that is mapped far above all else.
pub(super) fn far() -> Region {
    region(0x5000_0000_0000, 0x5000_0000_1000, "rw-")
}

pub(super) fn kind(case: &Case) -> Option<Kind> {
    case.diagnosis().map(|found| found.kind)
}

pub(super) fn confidence(case: &Case) -> Option<Confidence> {
    case.diagnosis().map(|found| found.confidence)
}

pub(super) fn text(case: &Case) -> String {
    case.diagnosis().map_or_else(|| "nothing".to_owned(), |found| found.text)
}

impl Case {
    /// The page fault is at another address.
    pub(super) fn at(self, address: u64) -> Self {
        Self { address, cr2: address, ..self }
    }

    /// With this stack trace.
    pub(super) fn called(self, frames: &[&str]) -> Self {
        Self { frames: frames.iter().map(|name| (*name).to_owned()).collect(), ..self }
    }

    /// With these mappings, and no others.
    pub(super) fn mapped(self, regions: &[Region]) -> Self {
        Self { regions: regions.to_vec(), ..self }
    }

    fn diagnosis(&self) -> Option<Diagnosis> {
        diagnose(&self.evidence())
    }

    /// The evidence that user space makes of it.
    pub(super) fn evidence(&self) -> Evidence {
        let (raw, files) = self.sample();
        let function = |name: &String| {
            let function = Function { name: name.clone(), offset: Some(1), file: None, line: None, inlined: false };
            (name != "?").then_some(function)
        };
        let module = |index: usize| {
            let path = self.modules.get(index).or(self.modules.last())?;
            Some(file(path, region(CODE, CODE + 0x1000, "r-x")))
        };
        let frame = |(index, name)| {
            let handling = self.handling.get(index).copied().flatten();
            Frame { function: function(name), region: module(index), handling, ..Frame::default() }
        };
        let frames = self.frames.iter().enumerate().map(frame).collect();
        let evidence = Evidence::of(&raw, &files, frames, self.abort_message.clone());
        Evidence {
            stored: self.stored,
            part: self.part.clone(),
            halt: self.halt,
            has_exception: self.has_exception,
            is_disk_full: self.is_disk_full,
            cause: self.cause.clone(),
            callee: self.callee.map(str::to_owned),
            refusal: self.refusal,
            is_unwindable: self.is_unwindable,
            frame_bytes: self.frame_bytes,
            is_frame_sized: self.is_frame_sized,
            wholes: self.wholes.clone(),
            ..evidence
        }
    }

    /// What the kernel program sends: fl_begin_record(), fl_describe_memory() and fl_describe_stack() in
    /// bpf/include/describe.bpf.h.
    fn sample(&self) -> (fl_crash, Vec<File>) {
        let mut raw = fl_crash {
            signal: self.signal,
            pid: PID,
            tid: if self.is_main_thread { PID } else { PID + 1 },
            pid_in_namespace: self.pid_in_namespace.unwrap_or(PID),
            reason: self.reason,
            disposition: match self.ends_thread {
                true => fl_disposition::FL_DISPOSED_THREAD,
                false => fl_disposition::FL_DISPOSED_FATAL,
            },
            ..fl_crash::default()
        };
        for (to, from) in raw.thread_name.iter_mut().zip(self.thread_name.bytes()) {
            *to = from as _;
        }
        if self.has_registers && self.entry == Entry::Call {
            raw.syscall = self.call;
        }
        let described = self.describe_signal(&mut raw);
        let mut flags = self.judge_trap(&mut raw, described);
        if self.pid_in_namespace.is_some() {
            flags |= fl_crash_flag::FL_IN_PID_NAMESPACE.0;
        }
        if self.has_registers {
            raw.registers = registers(&self.registers);
            flags |= fl_crash_flag::FL_HAS_REGISTERS.0;
            if self.entry == Entry::Call {
                flags |= fl_crash_flag::FL_IN_CALL.0;
            }
            if self.is_compat {
                flags |= fl_crash_flag::FL_IS_COMPAT.0;
            }
            for (to, from) in raw.code.iter_mut().zip(&self.code) {
                *to = *from;
            }
            raw.code_length = self.code.len().min(raw.code.len()) as u32;
        }
        for (is, flag) in [
            (self.is_by_userfaultfd, fl_crash_flag::FL_BY_USERFAULTFD),
            (self.was_writable, fl_crash_flag::FL_WAS_WRITABLE),
            (self.has_own_pages, fl_crash_flag::FL_HAS_OWN_PAGES),
            (self.is_executed, fl_crash_flag::FL_IS_EXECUTED),
        ] {
            flags |= if is { flag.0 } else { 0 };
        }
        flags |= self.describe_jump(&mut raw);
        raw.flags = fl_crash_flag(flags);
        raw.stack_limit = self.stack_limit;
        // The cases' own code.
        raw.modules[0] = fl_vma { vm_start: CODE, vm_end: CODE + 0x1000, ..fl_vma::default() };
        raw.module_count = u32::from(self.top.is_some());
        let mut files = Vec::new();
        let mut described: Vec<(Region, fl_vma)> = Vec::new();
        for region in &self.regions {
            described.push((region.clone(), describe(&mut raw, &mut files, region)));
        }
        if flags & fl_crash_flag::FL_HAS_ADDRESS.0 != 0 {
            [raw.vma, raw.vma_below, raw.vma_above] = around(&described, self.address);
        }
        if self.has_registers {
            [raw.stack_vma, _, raw.stack_above] = around(&described, self.registers.rsp);
            if raw.stack_vma.vm_end != 0 && self.registers.rsp - raw.stack_vma.vm_start < SIGNAL_FRAME_BYTES {
                let below = described.iter().find(|(region, _)| region.holds(raw.stack_vma.vm_start - 1));
                raw.stack_below = below.map_or_else(fl_vma::default, |(_, vma)| *vma);
            }
        }
        (raw, files)
    }

    /// fl_describe_jump() in bpf/include/backing.bpf.h. Returns the flags.
    fn describe_jump(&self, raw: &mut fl_crash) -> u32 {
        let Some(top) = self.top.filter(|_| self.error_code & 0x10 != 0) else { return 0 };
        (raw.jump.popped, raw.jump.caller) = (top.popped, top.caller);
        raw.jump.code = top.code.unwrap_or_default();
        (raw.jump.slot_address, raw.jump.slot) = top.slot.unwrap_or_default();
        fl_crash_flag::FL_HAS_TOP.0
            | top.code.map_or(0, |_| fl_crash_flag::FL_HAS_CALLER_CODE.0)
            | top.slot.map_or(0, |_| fl_crash_flag::FL_HAS_SLOT.0)
    }

    /// fl_describe_signal() in bpf/include/describe.bpf.h. Returns the flags.
    fn describe_signal(&self, raw: &mut fl_crash) -> u32 {
        let flags = fl_crash_flag::FL_HAS_CODE.0;
        raw.si_code = self.si_code;
        // SI_USER, SI_QUEUE, SI_MESGQ, SI_TKILL
        if [0, -1, -3, -6].contains(&self.si_code) {
            raw.sender_pid = self.sender_pid.unwrap_or(raw.pid_in_namespace.cast_signed());
            return flags | fl_crash_flag::FL_HAS_SENDER.0;
        }
        if self.si_code <= 0 {
            return flags;
        }
        (raw.trap_nr, raw.error_code) = (self.trap_nr, self.error_code);
        if self.si_code == SI_KERNEL {
            return flags;
        }
        if self.signal == SIGSYS {
            raw.fault_address = self.address;
            (raw.syscall, raw.syscall_arch) = self.system_call;
            return flags | fl_crash_flag::FL_HAS_SYSCALL.0;
        }
        let is_noted = (self.signal, self.si_code) == (SIGSEGV, SEGV_MTEAERR);
        if is_noted || ![4, 5, SIGBUS, 8, SIGSEGV].contains(&self.signal) {
            return flags;
        }
        raw.fault_address = self.address;
        flags | fl_crash_flag::FL_HAS_ADDRESS.0
    }
}
