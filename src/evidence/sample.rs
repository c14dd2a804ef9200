//! Makes evidence of the kernel program's sample.

use super::{
    Evidence, File, FileSystem, Frame, Past, Reason, Region, Sender, StoredFile, Surroundings, SystemCall, Thread, Trap,
};
use crate::arch::{self, Arrival, Refusal, Registers, StackTop};
use crate::cgroup;
use crate::page;
use crate::probe::abi::{fl_crash, fl_crash_flag, fl_disposition, fl_registers, fl_vma};

impl Evidence {
    /// The evidence of a sample, whose files are `files`, and whose stack is `frames`.
    pub(crate) fn of(raw: &fl_crash, files: &[File], frames: Vec<Frame>, abort_message: Option<String>) -> Self {
        let has = |flag: fl_crash_flag| raw.flags.0 & flag.0 != 0;
        let is_fault = has(fl_crash_flag::FL_HAS_CODE) && !has(fl_crash_flag::FL_IS_FORGED);
        let region = |vma: &fl_vma| Region::of(raw, vma, files);
        Self {
            at_ns: raw.timestamp_ns,
            thread: Thread {
                pid: raw.pid,
                tid: raw.tid,
                start_ns: raw.thread_start_ns,
                name: raw.thread_name(),
                pid_in_namespace: raw.pid_in_namespace,
                in_pid_namespace: has(fl_crash_flag::FL_IN_PID_NAMESPACE),
            },
            signal: raw.signal,
            si_code: is_fault.then_some(raw.si_code),
            trap: trap(raw),
            entry_call: has(fl_crash_flag::FL_IN_CALL).then_some(raw.syscall),
            fault_address: has(fl_crash_flag::FL_HAS_ADDRESS).then_some(raw.fault_address),
            page_fault: has(fl_crash_flag::FL_HAS_PAGE_FAULT).then_some(raw.error_code),
            registers: has(fl_crash_flag::FL_HAS_REGISTERS).then(|| Registers::from(raw.registers)),
            is_compat: has(fl_crash_flag::FL_IS_COMPAT),
            code: raw.code.get(..raw.code_length as usize).filter(|code| !code.is_empty()).map(<[u8]>::to_vec),
            memory: Surroundings { at: region(&raw.vma), below: region(&raw.vma_below), above: region(&raw.vma_above) },
            stack: Surroundings {
                at: region(&raw.stack_vma),
                below: region(&raw.stack_below),
                above: region(&raw.stack_above),
            },
            stack_limit: (raw.stack_limit != 0).then_some(raw.stack_limit),
            frames,
            frame_bytes: None,
            is_frame_sized: false,
            is_caught: [fl_disposition::FL_DISPOSED_CAUGHT, fl_disposition::FL_DISPOSED_MAYBE_CAUGHT]
                .contains(&raw.disposition),
            sender: sender(raw),
            reason: Reason::of(&raw.reason, cgroup::path),
            system_call: has(fl_crash_flag::FL_HAS_SYSCALL).then_some(SystemCall {
                number: raw.syscall,
                arch: raw.syscall_arch,
                address: raw.fault_address,
            }),
            ends_thread: raw.disposition == fl_disposition::FL_DISPOSED_THREAD,
            abort_message,
            has_exception: false,
            cause: None,
            stored: has(fl_crash_flag::FL_HAS_BACKING).then(|| stored(raw)),
            is_disk_full: None,
            past: Past {
                was_writable: has(fl_crash_flag::FL_WAS_WRITABLE),
                has_own_pages: has(fl_crash_flag::FL_HAS_OWN_PAGES),
                is_executed: has(fl_crash_flag::FL_IS_EXECUTED),
                is_by_userfaultfd: has(fl_crash_flag::FL_BY_USERFAULTFD),
            },
            arrival: arrival(raw),
            is_call_last: !arch::LINK_OUTLIVES_CALL,
            refusal: refusal(raw).filter(|_| is_fault),
            callee: None,
            part: None,
            halt: None,
            heap: raw.start_brk..raw.brk,
            wholes: Vec::new(),
            is_unwindable: false,
        }
    }
}

/// As the kernel program judged it.
fn stored(raw: &fl_crash) -> StoredFile {
    /// include/uapi/linux/magic.h
    const TMPFS: u64 = 0x0102_1994;
    const HUGETLBFS: u64 = 0x9584_58f6;
    let of = &raw.backing;
    StoredFile {
        size: of.size,
        system: match of.magic {
            TMPFS => FileSystem::Memory,
            HUGETLBFS => FileSystem::HugePages,
            _ => FileSystem::Other,
        },
        capacity: of.capacity,
        used: of.used,
        used_most: of.used_most,
        page_bytes: if of.page_bytes == 0 { page::size() } else { of.page_bytes },
    }
}

/// How the thread came to where there is no code.
pub(crate) fn arrival(raw: &fl_crash) -> Option<Arrival> {
    let has = |flag: fl_crash_flag| raw.flags.0 & flag.0 != 0;
    if !has(fl_crash_flag::FL_HAS_TOP) || has(fl_crash_flag::FL_IS_COMPAT) {
        return None;
    }
    let registers = Registers::from(raw.registers);
    let jump = &raw.jump;
    let top = StackTop {
        popped: jump.popped,
        caller: jump.caller,
        code: has(fl_crash_flag::FL_HAS_CALLER_CODE).then_some(jump.code),
        slot: has(fl_crash_flag::FL_HAS_SLOT).then_some((jump.slot_address, jump.slot)),
    };
    arch::arrival(&registers, arch::instruction_pointer(&registers), &top, |at| raw.module(at, false).is_some())
}

/// What the processor has refused, by the registers and the instruction.
fn refusal(raw: &fl_crash) -> Option<Refusal> {
    let has = |flag: fl_crash_flag| raw.flags.0 & flag.0 != 0;
    if !has(fl_crash_flag::FL_HAS_REGISTERS) || has(fl_crash_flag::FL_IS_COMPAT) {
        return None;
    }
    let code = raw.code.get(..raw.code_length as usize);
    arch::refusal(&Registers::from(raw.registers), code, (raw.signal, raw.si_code), raw.fault_address)
}

fn trap(raw: &fl_crash) -> Trap {
    let has = |flag: fl_crash_flag| raw.flags.0 & flag.0 != 0;
    match (has(fl_crash_flag::FL_HAS_TRAP), has(fl_crash_flag::FL_NO_TRAP)) {
        (true, _) => Trap::Number(raw.trap_nr),
        (false, true) => Trap::Absent,
        (false, false) => Trap::Unknown,
    }
}

/// Siginfo has the number of the target's own pid namespace.
fn sender(raw: &fl_crash) -> Option<Sender> {
    let has = |flag: fl_crash_flag| raw.flags.0 & flag.0 != 0;
    if has(fl_crash_flag::FL_IS_FORGED) {
        return raw.is_forged_by_itself().then_some(Sender::Itself);
    }
    if !has(fl_crash_flag::FL_HAS_SENDER) {
        return None;
    }
    let pid = raw.sender_pid.unsigned_abs();
    Some(if has(fl_crash_flag::FL_SENDER_SEEN) {
        Sender::Process(pid)
    } else if raw.sender_pid > 0 && pid == raw.pid_in_namespace {
        Sender::Itself
    } else if raw.sender_pid > 0 && !has(fl_crash_flag::FL_IN_PID_NAMESPACE) {
        Sender::Process(pid)
    } else {
        Sender::Elsewhere
    })
}

impl From<fl_registers> for Registers {
    fn from(from: fl_registers) -> Self {
        arch::registers_of!(from)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn of(raw: &fl_crash) -> Evidence {
        Evidence::of(raw, &[], Vec::new(), None)
    }

    #[test]
    fn a_forged_signal_is_no_evidence() {
        let flags = fl_crash_flag(fl_crash_flag::FL_HAS_CODE.0 | fl_crash_flag::FL_IS_FORGED.0);
        let raw = fl_crash { signal: 11, si_code: 1, flags, ..fl_crash::default() };
        assert_eq!(of(&raw).si_code, None);
    }

    #[test]
    fn a_senders_number_is_that_of_the_targets_namespace() {
        let sent = |flags: &[fl_crash_flag], sender_pid: i32| {
            let flags = flags.iter().fold(fl_crash_flag::FL_HAS_SENDER.0, |all, flag| all | flag.0);
            let raw = fl_crash { pid: 100, pid_in_namespace: 7, sender_pid, ..fl_crash::default() };
            of(&fl_crash { flags: fl_crash_flag(flags), ..raw }).sender
        };
        assert_eq!(sent(&[], 7), Some(Sender::Itself));
        assert_eq!(sent(&[], 8), Some(Sender::Process(8)));
        assert_eq!(sent(&[fl_crash_flag::FL_IN_PID_NAMESPACE], 8), Some(Sender::Elsewhere));
        assert_eq!(sent(&[], 0), Some(Sender::Elsewhere));
        assert_eq!(sent(&[fl_crash_flag::FL_SENDER_SEEN], 7), Some(Sender::Process(7)), "the host's number");
        assert_eq!(of(&fl_crash::default()).sender, None);
    }
}
