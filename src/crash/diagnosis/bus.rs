//! SIGBUS.

use iced_x86::Mnemonic;

use super::super::record::Diagnosis;
use super::facts::{Backing, Facts, Mapping, hex};
use super::instruction::{decoded, touches};
use super::{SI_KERNEL, TRAP_STACK_SEGMENT, certain, likely, protection};

const BUS_ADRALN: i32 = 1;
const BUS_ADRERR: i32 = 2;
const BUS_MCEERR_AR: i32 = 4;
const BUS_MCEERR_AO: i32 = 5;
/// EFLAGS.AC: the program asked for alignment checks.
const ALIGNMENT_CHECK: u64 = 1 << 18;
/// What is split over two of these can't be locked in a cache.
const CACHE_LINE: u64 = 64;

pub(super) fn diagnose(facts: &Facts, code: i32) -> Option<Diagnosis> {
    match code {
        BUS_ADRERR => no_page(facts),
        BUS_ADRALN => alignment(facts),
        BUS_MCEERR_AR | BUS_MCEERR_AO => {
            certain("hardware_memory_error", "the hardware has lost the contents of a page: memory is failing")
        }
        SI_KERNEL if facts.trap_nr == Some(TRAP_STACK_SEGMENT) => protection::stack_segment(facts),
        _ => None,
    }
}

/// The mapping is there, and the file has no page for it.
fn no_page(facts: &Facts) -> Option<Diagnosis> {
    facts.page_fault?;
    let at = facts.memory.at.as_ref().filter(|at| facts.fault_address.is_some_and(|address| at.holds(address)))?;
    let Backing::File(path) = &at.backing else { return None };
    let name = path.as_deref().unwrap_or("a file whose name is not known");
    let verb = if facts.is_fetch() { "executes" } else { facts.verb() };
    match path.as_deref() {
        Some(path) if is_huge(path) => likely(
            "huge_pages_exhausted",
            format!("{verb} a mapping of huge pages ({name}), and none is left in the pool or the file is shorter"),
        ),
        Some(path) if path.starts_with("/dev/shm/") || path.starts_with("/SYSV") => likely(
            "unbacked_shared_memory",
            format!("{verb} shared memory ({name}) that has no page: it was truncated, or its tmpfs is full"),
        ),
        // Devices have reasons of their own.
        Some(path) if path.starts_with("/dev/") => None,
        _ => likely("file_truncated", format!("{verb} a mapping of {name} behind the file's end{}", disk(facts, at))),
    }
}

fn is_huge(path: &str) -> bool {
    path.starts_with("/anon_hugepage") || path.starts_with("/dev/hugepages/")
}

/// A write to a shared mapping may need a new block of the disk.
fn disk(facts: &Facts, at: &Mapping) -> &'static str {
    if facts.is_write() && at.shared {
        ": it was truncated, or its disk is full"
    } else {
        ": it was truncated while it was mapped"
    }
}

fn alignment(facts: &Facts) -> Option<Diagnosis> {
    let (instruction, registers) = decoded(facts)?;
    if registers.eflags & ALIGNMENT_CHECK != 0 {
        return certain("misaligned_access", "accesses a misaligned address with alignment checks on (EFLAGS.AC)");
    }
    let is_locked = instruction.has_lock_prefix() || instruction.mnemonic() == Mnemonic::Xchg;
    let split = touches(&instruction, registers)
        .into_iter()
        .find(|touch| touch.address % CACHE_LINE + touch.bytes > CACHE_LINE)?;
    is_locked.then(|| {
        let text = format!(
            "locks {}, which lies across two cache lines, and the kernel forbids that (split_lock_detect=fatal)",
            hex(split.address)
        );
        certain("split_lock", text)
    })?
}

#[cfg(test)]
mod tests {
    use super::super::cases::{fault, mapping, name, text};
    use super::*;

    fn in_file(path: &str, permissions: &str, error_code: u64) -> Facts {
        let mut facts = Facts { signal: 7, ..fault(2, 0x10_1000, error_code) };
        let backing = Backing::File(Some(path.to_owned()));
        facts.memory.at = Some(Mapping { backing, ..mapping(0x10_0000, 0x10_2000, permissions) });
        facts
    }

    #[test]
    fn a_file_is_shorter_than_its_mapping() {
        let facts = in_file("/tmp/x", "r--s", 4);
        assert_eq!(
            text(&facts),
            "reads a mapping of /tmp/x behind the file's end: it was truncated while it was mapped"
        );
        assert!(text(&in_file("/tmp/x", "rw-s", 6)).ends_with("or its disk is full"));
        assert!(text(&in_file("/tmp/x", "r-xp", 0x14)).starts_with("executes"));
    }

    #[test]
    fn other_files_have_other_reasons() {
        assert_eq!(name(&in_file("/dev/shm/ring", "rw-s", 6)), Some("unbacked_shared_memory"));
        assert_eq!(name(&in_file("/anon_hugepage (deleted)", "rw-p", 6)), Some("huge_pages_exhausted"));
        assert_eq!(name(&in_file("/dev/dri/card0", "rw-s", 6)), None);
    }

    #[test]
    fn only_a_file_is_truncated() {
        let mut facts = in_file("/tmp/x", "r--s", 4);
        facts.memory.at = Some(mapping(0x10_0000, 0x10_2000, "rw-"));
        assert_eq!(name(&facts), None);
        facts.memory.at = None;
        assert_eq!(name(&facts), None);
        assert_eq!(name(&Facts { page_fault: None, ..in_file("/tmp/x", "r--s", 4) }), None);
    }

    #[test]
    fn failing_memory_is_the_hardwares() {
        for code in [4, 5] {
            assert_eq!(
                name(&Facts { si_code: Some(code), ..in_file("/tmp/x", "r--s", 4) }),
                Some("hardware_memory_error")
            );
        }
        assert_eq!(name(&Facts { si_code: Some(3), ..in_file("/tmp/x", "r--s", 4) }), None);
    }

    #[test]
    fn alignment_checks_are_the_programs_or_of_locks() {
        // lock add dword [rdi], 1
        let mut facts = Facts { code: Some(vec![0xf0, 0x83, 0x07, 1]), signal: 7, ..fault(1, 0, 0) };
        let registers = facts.registers.as_mut().unwrap();
        registers.rdi = 0x10_003e;
        assert_eq!(name(&facts), Some("split_lock"));
        facts.registers.as_mut().unwrap().rdi = 0x10_003c;
        assert_eq!(name(&facts), None, "within one line");
        facts.registers.as_mut().unwrap().eflags = ALIGNMENT_CHECK;
        assert_eq!(name(&facts), Some("misaligned_access"));
    }
}
