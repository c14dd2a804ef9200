//! What a diagnosis is made from, taken from a sample.

use super::diagnosis::{Backing, Facts, Mapping, Surroundings, SystemCall};
use super::record::Frame;
use crate::probe::abi::{Names, fl_crash, fl_crash_flag, fl_vma};

/// include/uapi/linux/audit.h: AUDIT_ARCH_X86_64.
const AUDIT_ARCH_X86_64: u32 = 0xc000_003e;

// include/linux/mm.h; VM_MAYSHARE is what /proc shows as `s`.
const VM_READ: u64 = 0x1;
const VM_WRITE: u64 = 0x2;
const VM_EXEC: u64 = 0x4;
const VM_MAYSHARE: u64 = 0x80;

/// The facts of a sample. `frames`: as they are shown; `name`: what a mapping is called, as in /proc/PID/maps.
pub(super) fn facts(raw: &fl_crash, frames: &[Frame], name: impl Fn(&fl_vma) -> Option<String>) -> Facts {
    let has = |flag: fl_crash_flag| raw.flags.0 & flag.0 != 0;
    let is_fault = has(fl_crash_flag::FL_HAS_CODE) && !has(fl_crash_flag::FL_IS_FORGED);
    let mapping = |vma: &fl_vma| (vma.vm_end != 0).then(|| describe(raw, vma, name(vma)));
    Facts {
        signal: raw.signal,
        si_code: is_fault.then_some(raw.si_code),
        trap_nr: has(fl_crash_flag::FL_HAS_TRAP).then_some(raw.trap_nr),
        no_trap: has(fl_crash_flag::FL_NO_TRAP),
        fault_address: has(fl_crash_flag::FL_HAS_ADDRESS).then_some(raw.fault_address),
        page_fault: has(fl_crash_flag::FL_HAS_PAGE_FAULT).then_some(raw.error_code),
        registers: has(fl_crash_flag::FL_HAS_REGISTERS).then_some(raw.registers),
        is_compat: has(fl_crash_flag::FL_IS_COMPAT),
        code: raw.code.get(..raw.code_length as usize).filter(|code| !code.is_empty()).map(<[u8]>::to_vec),
        memory: Surroundings { at: mapping(&raw.vma), below: mapping(&raw.vma_below), above: mapping(&raw.vma_above) },
        stack: Surroundings {
            at: mapping(&raw.stack_vma),
            below: mapping(&raw.stack_below),
            above: mapping(&raw.stack_above),
        },
        is_main_thread: Some(raw.tid == raw.pid),
        thread_name: Some(raw.thread_name()),
        stack_limit: (raw.stack_limit != 0).then_some(raw.stack_limit),
        frames: frames.iter().map(|frame| frame.symbol.clone()).collect(),
        pid: Some(raw.pid_in_namespace),
        sender_pid: (has(fl_crash_flag::FL_HAS_SENDER) && !has(fl_crash_flag::FL_SENDER_SEEN))
            .then_some(raw.sender_pid.unsigned_abs()),
        pid_in_namespace: Some(raw.pid_in_namespace),
        in_pid_namespace: has(fl_crash_flag::FL_IN_PID_NAMESPACE),
        system_call: has(fl_crash_flag::FL_HAS_SYSCALL)
            .then(|| SystemCall { number: raw.syscall, name: system_call(raw.syscall, raw.syscall_arch) }),
        abort_message: None,
        unmapped_before: None,
    }
}

/// The call's name; None: it is none, or of another architecture's table.
pub(super) fn system_call(number: i32, arch: u32) -> Option<String> {
    let number = usize::try_from(number).ok().filter(|_| arch == AUDIT_ARCH_X86_64)?;
    syscalls::Sysno::new(number).map(|call| call.name().to_owned())
}

fn describe(raw: &fl_crash, vma: &fl_vma, name: Option<String>) -> Mapping {
    let has = |flag: u64| vma.vm_flags & flag != 0;
    Mapping {
        start: vma.vm_start,
        end: vma.vm_end,
        readable: has(VM_READ),
        writable: has(VM_WRITE),
        executable: has(VM_EXEC),
        shared: has(VM_MAYSHARE),
        backing: match name.as_deref() {
            _ if vma.file != 0 => Backing::File(name),
            Some("[stack]") => Backing::MainStack,
            Some("[heap]") => Backing::Heap,
            Some(_) => Backing::Kernel,
            None if raw.vdso != 0 && vma.vm_start == raw.vdso => Backing::Kernel,
            None => Backing::Anonymous,
        },
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn calls_have_names_in_their_own_table_only() {
        assert_eq!(system_call(110, AUDIT_ARCH_X86_64).as_deref(), Some("getppid"));
        assert_eq!(system_call(110, 0x4000_0003), None, "i386 has another call there");
        assert_eq!(system_call(-1, AUDIT_ARCH_X86_64), None);
        assert_eq!(system_call(100_000, AUDIT_ARCH_X86_64), None);
    }

    #[test]
    fn a_forged_signal_is_no_evidence() {
        let flags = fl_crash_flag(fl_crash_flag::FL_HAS_CODE.0 | fl_crash_flag::FL_IS_FORGED.0);
        let raw = fl_crash { signal: 11, si_code: 1, flags, ..fl_crash::default() };
        assert_eq!(facts(&raw, &[], |_| None).si_code, None);
    }
}
