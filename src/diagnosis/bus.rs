//! SIGBUS.

use super::instruction::decoded;
use super::words::{self, hex, verb};
use super::{Diagnosis, Kind, SI_KERNEL, certain, checked, likely, protection, sure, trap};
use crate::arch::{self, CACHE_LINE_BYTES, Touch, TrapKind};
use crate::evidence::{Access, Evidence, FileSystem, Region, StoredFile};
use crate::siginfo::{BUS_ADRALN, BUS_ADRERR, BUS_MCEERR_AO, BUS_MCEERR_AR};

pub(super) fn diagnose(facts: &Evidence, code: i32) -> Option<Diagnosis> {
    match code {
        BUS_ADRERR => no_page(facts),
        BUS_ADRALN => alignment(facts),
        BUS_MCEERR_AR | BUS_MCEERR_AO => lost(facts),
        SI_KERNEL if trap(facts) == Some(TrapKind::StackSegment) => protection::stack_segment(facts),
        _ => None,
    }
}

/// A page is marked as lost.
fn lost(facts: &Evidence) -> Option<Diagnosis> {
    if facts.past.is_by_userfaultfd {
        let why = "userfaultfd (UFFDIO_POISON) has marked it so, or the hardware has lost its contents";
        return likely(Kind::HardwareMemoryError, format!("{} a page that is marked as lost: {why}", verb(facts)));
    }
    certain(
        Kind::HardwareMemoryError,
        "the hardware has lost the contents of a page: memory is failing, unless a test has marked it so (MADV_HWPOISON)",
    )
}

/// The mapping is there, and there is no page for it.
fn no_page(facts: &Evidence) -> Option<Diagnosis> {
    facts.page_fault?;
    let address = facts.fault_address?;
    let at = facts.memory.at.as_ref().filter(|at| at.holds(address))?;
    let offset = at.file_offset.wrapping_add(address - at.start);
    let end = facts.stored.and_then(|stored| stored.size.checked_next_multiple_of(stored.page_bytes));
    // The kernel looks at the file's end first.
    if facts.past.is_by_userfaultfd && !(at.file().is_some() && end.is_some_and(|end| offset >= end)) {
        // A kernel without CONFIG_MEMORY_FAILURE gives a page that is marked as lost the same code.
        let why = "whose page userfaultfd did not bring in: the program asked for a signal instead (UFFD_FEATURE_SIGBUS), or has marked \
                   the page as lost (UFFDIO_POISON)";
        let text = format!("{} memory ({}) {why}", verb(facts), words::region(at));
        // Without a file there is no other reason.
        return sure(at.file().is_none(), Kind::Userfaultfd, text);
    }
    let file = at.file()?;
    // Devices have reasons of their own.
    let is_memory = |path: &str| path.starts_with("/dev/shm/") || path.starts_with("/dev/hugepages/");
    if file.path.as_deref().is_some_and(|path| path.starts_with("/dev/") && !is_memory(path)) {
        return None;
    }
    let name = file.name().unwrap_or_else(|| "a file whose name is not known".to_owned());
    let stored = facts.stored?;
    if offset >= end? { behind(facts, &name, stored.size, offset) } else { inside(facts, at, &name, &stored) }
}

/// How long the file is says that; that it was cut, only a recorded call says: cause.rs.
fn behind(facts: &Evidence, name: &str, size: u64, offset: u64) -> Option<Diagnosis> {
    let verb = verb(facts);
    let text = match size {
        0 => format!("{verb} a mapping of {name}, which is empty: it was never made longer, or was emptied since"),
        _ => format!(
            "{verb} a mapping of {name} behind the file's end, at offset {offset} of {size} bytes: the mapping was longer from the beginning, or the file was cut since"
        ),
    };
    certain(Kind::BehindEndOfFile, text)
}

/// The file is long enough.
fn inside(facts: &Evidence, at: &Region, name: &str, stored: &StoredFile) -> Option<Diagnosis> {
    let verb = verb(facts);
    let is_full = stored.used >= stored.capacity;
    match stored.system {
        FileSystem::HugePages if is_full => likely(
            Kind::HugePagesExhausted,
            format!("{verb} a mapping of huge pages ({name}), and none of the pool's {} is free", stored.capacity),
        ),
        FileSystem::HugePages => likely(
            Kind::HugePagesExhausted,
            format!("{verb} a mapping of huge pages ({name}), of which its mount or cgroup may have no more"),
        ),
        FileSystem::Memory if stored.used_most >= stored.capacity && stored.capacity > 0 => {
            let room = words::size(stored.capacity.saturating_mul(stored.page_bytes));
            let full = if is_full { "full" } else { "full or nearly so" };
            likely(
                Kind::FileSystemFull,
                format!("{verb} a mapping of {name} inside the file, and its tmpfs of {room} is {full}"),
            )
        }
        FileSystem::Memory => likely(
            Kind::UnbackedSharedMemory,
            format!(
                "{verb} shared memory ({name}) inside its {} bytes, and its page could not be had: a limit of memory, or swap that can't be read",
                stored.size
            ),
        ),
        FileSystem::Other if facts.is_disk_full == Some(true) => {
            likely(Kind::FileSystemFull, format!("{verb} a mapping of {name} inside the file, and its disk is full"))
        }
        // A write to a shared mapping may need a new block of the disk.
        FileSystem::Other if facts.access() == Access::Write && at.permissions.shared => likely(
            Kind::PageUnavailable,
            format!(
                "{verb} a mapping of {name} inside the file, whose page could not be brought in: the disk is full, a quota is reached, or it fails"
            ),
        ),
        FileSystem::Other => likely(
            Kind::PageUnavailable,
            format!(
                "{verb} a mapping of {name} inside the file, whose page could not be brought in: its disk or network could not be read"
            ),
        ),
    }
}

fn alignment(facts: &Evidence) -> Option<Diagnosis> {
    if let Some(refusal) = facts.refusal {
        return checked::refused(facts, refusal);
    }
    let instruction = decoded(facts)?;
    if let Some(found) = checked::alignment(facts, &instruction) {
        return Some(found);
    }
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
    use super::super::Confidence;
    use super::super::cases::{Case, confidence, fault, file, kind, region, text};
    use super::*;

    /// An access at offset 0x1000 of a file that has this many bytes.
    fn in_file(path: &str, permissions: &str, error_code: u64, size: u64) -> Case {
        let stored = StoredFile { size, page_bytes: 4096, ..StoredFile::default() };
        let case = Case { signal: 7, stored: Some(stored), ..fault(2, 0x10_1000, error_code) };
        case.mapped(&[file(path, region(0x10_0000, 0x10_2000, permissions))])
    }

    /// Inside of a file of this system.
    fn on(system: FileSystem, capacity: u64, used: u64) -> Case {
        let mut case = in_file("/x", "rw-s", 6, 0x2000);
        case.stored = case.stored.map(|stored| StoredFile { system, capacity, used, used_most: used + 64, ..stored });
        case
    }

    #[test]
    fn a_file_is_shorter_than_its_mapping() {
        let text_of = |size| text(&in_file("/tmp/x", "r--s", 4, size));
        assert_eq!(
            text_of(100),
            "reads a mapping of /tmp/x behind the file's end, at offset 4096 of 100 bytes: the mapping was longer from the beginning, or the file was cut since"
        );
        assert!(text_of(0).contains("which is empty"));
        assert_eq!(confidence(&in_file("/tmp/x", "r--s", 4, 4096)), Some(Confidence::Certain), "whole pages");
        assert_eq!(
            kind(&in_file("/tmp/x", "r--s", 4, 4097)),
            Some(Kind::PageUnavailable),
            "the rest of the page is there"
        );
        assert!(text(&in_file("/tmp/x", "r-xp", 0x14, 100)).starts_with("executes"));
    }

    #[test]
    fn inside_the_file_its_file_system_says_why() {
        let table = [
            (on(FileSystem::Memory, 256, 256), Kind::FileSystemFull),
            (on(FileSystem::Memory, 256, 192), Kind::FileSystemFull),
            (on(FileSystem::Memory, 256, 191), Kind::UnbackedSharedMemory),
            (on(FileSystem::Memory, 0, 0), Kind::UnbackedSharedMemory),
            (on(FileSystem::HugePages, 0, 0), Kind::HugePagesExhausted),
            (on(FileSystem::HugePages, 8, 2), Kind::HugePagesExhausted),
            (on(FileSystem::Other, 0, 0), Kind::PageUnavailable),
        ];
        for (case, expected) in table {
            assert_eq!(
                (kind(&case), confidence(&case)),
                (Some(expected), Some(Confidence::Likely)),
                "{:?}",
                case.stored
            );
        }
        assert!(text(&on(FileSystem::Memory, 256, 256)).ends_with("inside the file, and its tmpfs of 1.0 MiB is full"));
        assert!(text(&on(FileSystem::HugePages, 8, 8)).ends_with("none of the pool's 8 is free"));
        assert!(text(&on(FileSystem::Other, 0, 0)).contains("the disk is full, a quota"));
        assert!(
            text(&in_file("/x", "rw-p", 6, 0x2000)).ends_with("its disk or network could not be read"),
            "no new block"
        );
    }

    #[test]
    fn a_hole_that_userfaultfd_is_to_fill_is_its() {
        let uffd = |case: Case| Case { is_by_userfaultfd: true, ..case };
        assert_eq!(
            kind(&uffd(in_file("/x", "rw-s", 6, 100))),
            Some(Kind::BehindEndOfFile),
            "not behind the file's end"
        );
        let case = uffd(in_file("/x", "rw-s", 6, 0x2000));
        assert_eq!((kind(&case), confidence(&case)), (Some(Kind::Userfaultfd), Some(Confidence::Likely)));
        let case = Case { stored: None, ..case }.mapped(&[region(0x10_0000, 0x10_2000, "rw-")]);
        assert_eq!(confidence(&case), Some(Confidence::Certain));
        assert_eq!(confidence(&Case { si_code: 4, ..case }), Some(Confidence::Likely), "it may have marked the page");
    }

    #[test]
    fn other_files_have_other_reasons() {
        assert_eq!(kind(&in_file("/dev/dri/card0", "rw-s", 6, 100)), None);
        assert_eq!(kind(&Case { stored: None, ..in_file("/x", "rw-s", 6, 100) }), None, "nothing is known of it");
        assert_eq!(kind(&in_file("/dev/shm/ring", "rw-s", 6, 100)), Some(Kind::BehindEndOfFile));
    }

    #[test]
    fn only_a_file_is_truncated() {
        let mut case = in_file("/tmp/x", "r--s", 4, 100);
        case.regions = vec![region(0x10_0000, 0x10_2000, "rw-")];
        assert_eq!(kind(&case), None);
        case.regions.clear();
        assert_eq!(kind(&case), None);
        assert_eq!(
            kind(&Case { trap_nr: 13, ..in_file("/tmp/x", "r--s", 4, 100) }),
            None,
            "no page fault: it was sent"
        );
    }

    #[test]
    fn failing_memory_is_the_hardwares() {
        for code in [4, 5] {
            assert_eq!(
                kind(&Case { si_code: code, ..in_file("/tmp/x", "r--s", 4, 100) }),
                Some(Kind::HardwareMemoryError)
            );
        }
        assert_eq!(kind(&Case { si_code: 3, ..in_file("/tmp/x", "r--s", 4, 100) }), None);
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
