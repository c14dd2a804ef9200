//! How the kernel program judges what a thread's last trap has to do with a signal.

use super::{Case, Entry, TRAP_PAGE_FAULT};
use crate::evidence::{Backing, Region, SIGNAL_FRAME_BYTES};
use crate::probe::abi::{fl_crash, fl_crash_flag};
use crate::siginfo::{SEGV_MTESERR, SI_KERNEL, SIGBUS, SIGFPE, SIGILL, SIGSEGV, SIGSYS, SIGTRAP};

/// The exception of a data abort on arm64, and the status of a tag check.
pub(super) const DATA_ABORT: u64 = 0x24;
pub(super) const TAG_CHECK: u64 = 0x11;

impl Case {
    /// fl_judge_trap() in bpf/include/trap.bpf.h. Returns the flags.
    pub(super) fn judge_trap(&self, raw: &mut fl_crash, flags: u32) -> u32 {
        if self.si_code == SI_KERNEL {
            return flags | self.judge_kernels();
        }
        if flags & (fl_crash_flag::FL_HAS_ADDRESS.0 | fl_crash_flag::FL_HAS_SYSCALL.0) == 0 {
            return flags;
        }
        let is_elsewhere = self.has_registers && self.address != self.registers.rip;
        let is_of_instruction = match self.signal {
            SIGTRAP => self.si_code <= 2,
            signal => [SIGILL, SIGFPE, SIGSYS].contains(&signal),
        };
        if is_of_instruction && is_elsewhere {
            raw.fault_address = 0;
            return (flags & !fl_crash_flag::FL_HAS_ADDRESS.0 & !fl_crash_flag::FL_HAS_SYSCALL.0)
                | fl_crash_flag::FL_IS_FORGED.0
                | fl_crash_flag::FL_NO_TRAP.0;
        }
        if self.signal == SIGSYS {
            return flags;
        }
        let needs_page_fault = matches!((self.signal, self.si_code), (SIGSEGV, 1 | 2 | SEGV_MTESERR) | (SIGBUS, 2));
        if self.trap_nr == DATA_ABORT && self.error_code == TAG_CHECK && self.cr2 == self.address {
            return flags | fl_crash_flag::FL_HAS_TRAP.0;
        }
        if self.trap_nr == TRAP_PAGE_FAULT && self.cr2 == self.address && self.entry != Entry::Call {
            return flags | fl_crash_flag::FL_HAS_TRAP.0 | fl_crash_flag::FL_HAS_PAGE_FAULT.0;
        }
        if needs_page_fault {
            raw.fault_address = 0;
            return (flags & !fl_crash_flag::FL_HAS_ADDRESS.0)
                | fl_crash_flag::FL_IS_FORGED.0
                | fl_crash_flag::FL_NO_TRAP.0;
        }
        flags
    }

    /// fl_judge_kernels() in bpf/include/trap.bpf.h.
    fn judge_kernels(&self) -> u32 {
        let traps: &[u64] = match self.signal {
            SIGSEGV => &[4, 5, 10, 13, 20],
            SIGBUS => &[11, 12, 29],
            SIGTRAP => &[3],
            8 => &[9],
            _ => &[],
        };
        if !traps.contains(&self.trap_nr) || self.entry == Entry::Call {
            return fl_crash_flag::FL_NO_TRAP.0;
        }
        if !self.has_registers {
            return 0;
        }
        let is_its = match self.signal {
            SIGTRAP => matches!(self.code_before, 0xcc | 3),
            SIGSEGV => self.has_frame_room(),
            _ => true,
        };
        if is_its { fl_crash_flag::FL_HAS_TRAP.0 } else { 0 }
    }

    /// fl_has_frame_room() in bpf/include/trap.bpf.h.
    fn has_frame_room(&self) -> bool {
        let (alternate, bytes) = self.alternate;
        let rsp = self.registers.rsp;
        if rsp.wrapping_sub(alternate) < bytes {
            return rsp - alternate >= SIGNAL_FRAME_BYTES;
        }
        if bytes != 0 && !self.is_writable(alternate, alternate + bytes) {
            return false;
        }
        self.is_writable(rsp.wrapping_sub(SIGNAL_FRAME_BYTES), rsp)
    }

    /// fl_is_writable() in bpf/include/trap.bpf.h.
    fn is_writable(&self, low: u64, high: u64) -> bool {
        let grows = |region: &&Region| region.backing == Backing::MainStack && region.end - low <= self.stack_limit;
        let above = || self.regions.iter().filter(|region| region.start > low).min_by_key(|region| region.start);
        let at = self.regions.iter().find(|region| region.holds(low)).or_else(|| above().filter(grows));
        at.is_some_and(|region| region.permissions.write && region.end >= high)
    }
}
