//! SIGBUS.

use super::instruction::decoded;
use super::words::{hex, verb};
use super::{Diagnosis, Kind, SI_KERNEL, certain, likely, protection, trap};
use crate::arch::{self, CACHE_LINE_BYTES, Touch, TrapKind};
use crate::evidence::{Access, Evidence, Region};
use crate::siginfo::{BUS_ADRALN, BUS_ADRERR, BUS_MCEERR_AO, BUS_MCEERR_AR};

pub(super) fn diagnose(facts: &Evidence, code: i32) -> Option<Diagnosis> {
    match code {
        BUS_ADRERR => no_page(facts),
        BUS_ADRALN => alignment(facts),
        BUS_MCEERR_AR | BUS_MCEERR_AO => {
            certain(Kind::HardwareMemoryError, "the hardware has lost the contents of a page: memory is failing")
        }
        SI_KERNEL if trap(facts) == Some(TrapKind::StackSegment) => protection::stack_segment(facts),
        _ => None,
    }
}

/// The mapping is there, and the file has no page for it.
fn no_page(facts: &Evidence) -> Option<Diagnosis> {
    facts.page_fault?;
    let at = facts.memory.at.as_ref().filter(|at| facts.fault_address.is_some_and(|address| at.holds(address)))?;
    let file = at.file()?;
    let name = file.name().unwrap_or_else(|| "a file whose name is not known".to_owned());
    let verb = verb(facts);
    match file.path.as_deref() {
        Some(path) if is_huge(path) => likely(
            Kind::HugePagesExhausted,
            format!("{verb} a mapping of huge pages ({name}), and none is left in the pool or the file is shorter"),
        ),
        Some(path) if path.starts_with("/dev/shm/") || path.starts_with("/SYSV") => likely(
            Kind::UnbackedSharedMemory,
            format!("{verb} shared memory ({name}) that has no page: it was truncated, or its tmpfs is full"),
        ),
        // Devices have reasons of their own.
        Some(path) if path.starts_with("/dev/") => None,
        _ => {
            likely(Kind::FileTruncated, format!("{verb} a mapping of {name} behind the file's end{}", disk(facts, at)))
        }
    }
}

fn is_huge(path: &str) -> bool {
    path.starts_with("/anon_hugepage") || path.starts_with("/dev/hugepages/")
}

/// A write to a shared mapping may need a new block of the disk.
fn disk(facts: &Evidence, at: &Region) -> &'static str {
    if facts.access() == Access::Write && at.permissions.shared {
        ": it was truncated, or its disk is full"
    } else {
        ": it was truncated while it was mapped"
    }
}

fn alignment(facts: &Evidence) -> Option<Diagnosis> {
    let instruction = decoded(facts)?;
    if arch::checks_alignment(facts.registers.as_ref()?) {
        return certain(Kind::MisalignedAccess, "accesses a misaligned address with alignment checks on (EFLAGS.AC)");
    }
    let is_split = |touch: &Touch| touch.address % CACHE_LINE_BYTES + touch.bytes > CACHE_LINE_BYTES;
    let split = instruction.touches().into_iter().find(is_split)?;
    instruction.is_locked().then(|| {
        let text = format!(
            "locks {}, which lies across two cache lines, and the kernel forbids that (split_lock_detect=fatal)",
            hex(split.address)
        );
        certain(Kind::SplitLock, text)
    })?
}

#[cfg(test)]
mod tests {
    use super::super::cases::{Case, fault, file, kind, region, text};
    use super::*;

    fn in_file(path: &str, permissions: &str, error_code: u64) -> Case {
        let case = Case { signal: 7, ..fault(2, 0x10_1000, error_code) };
        case.mapped(&[file(path, region(0x10_0000, 0x10_2000, permissions))])
    }

    #[test]
    fn a_file_is_shorter_than_its_mapping() {
        let case = in_file("/tmp/x", "r--s", 4);
        assert_eq!(
            text(&case),
            "reads a mapping of /tmp/x behind the file's end: it was truncated while it was mapped"
        );
        assert!(text(&in_file("/tmp/x", "rw-s", 6)).ends_with("or its disk is full"));
        assert!(text(&in_file("/tmp/x", "r-xp", 0x14)).starts_with("executes"));
    }

    #[test]
    fn other_files_have_other_reasons() {
        assert_eq!(kind(&in_file("/dev/shm/ring", "rw-s", 6)), Some(Kind::UnbackedSharedMemory));
        assert_eq!(kind(&in_file("/anon_hugepage (deleted)", "rw-p", 6)), Some(Kind::HugePagesExhausted));
        assert_eq!(kind(&in_file("/dev/dri/card0", "rw-s", 6)), None);
    }

    #[test]
    fn only_a_file_is_truncated() {
        let mut case = in_file("/tmp/x", "r--s", 4);
        case.regions = vec![region(0x10_0000, 0x10_2000, "rw-")];
        assert_eq!(kind(&case), None);
        case.regions.clear();
        assert_eq!(kind(&case), None);
        assert_eq!(kind(&Case { trap_nr: 13, ..in_file("/tmp/x", "r--s", 4) }), None, "no page fault: it was sent");
    }

    #[test]
    fn failing_memory_is_the_hardwares() {
        for code in [4, 5] {
            assert_eq!(kind(&Case { si_code: code, ..in_file("/tmp/x", "r--s", 4) }), Some(Kind::HardwareMemoryError));
        }
        assert_eq!(kind(&Case { si_code: 3, ..in_file("/tmp/x", "r--s", 4) }), None);
    }

    #[test]
    fn alignment_checks_are_the_programs_or_of_locks() {
        // lock add dword [rdi], 1
        let mut case = Case { code: vec![0xf0, 0x83, 0x07, 1], signal: 7, ..fault(1, 0, 0) };
        case.registers.rdi = 0x10_003e;
        assert_eq!(kind(&case), Some(Kind::SplitLock));
        case.registers.rdi = 0x10_003c;
        assert_eq!(kind(&case), None, "within one line");
        case.registers.eflags = 1 << 18;
        assert_eq!(kind(&case), Some(Kind::MisalignedAccess));
    }
}
