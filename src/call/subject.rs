//! What a crash is about, as far as a kernel call may explain it: an address, a file, or a process that sent the signal.

use crate::arch::LEAST_ADDRESS;
use crate::diagnosis::{self, Kind};
use crate::evidence::{Access, Evidence, FileId, Sender};
use crate::siginfo::{BUS_ADRERR, SEGV_ACCERR, SEGV_MAPERR, SIGBUS, SIGSEGV};

/// The subject of a crash.
#[derive(Clone, Debug)]
pub(super) struct Subject {
    /// The process.
    pub pid: u32,
    /// CLOCK_BOOTTIME.
    pub at_ns: u64,
    /// What happened there.
    pub fault: FaultClass,
    /// The address that it was about. `None` means none.
    pub address: Option<u64>,
    /// The end of the nearest mapping below it, if it is in none.
    pub below: Option<u64>,
    /// The file that is mapped there.
    pub mapped: Option<FilePlace>,
    /// The signal.
    pub signal: u32,
    /// The process that sent it.
    pub sender: Option<u32>,
}

/// What happened at the address.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum FaultClass {
    /// Nothing is mapped.
    NotMapped,
    /// It must not be accessed so.
    NotAllowed(Access),
    /// The file has no such page.
    NoPage,
    /// Something that no known call explains.
    Other,
}

/// A file that is mapped.
#[derive(Clone, Debug)]
pub(super) struct FilePlace {
    /// Which one it is.
    pub id: Option<FileId>,
    /// Its path, as the process sees it.
    pub name: String,
    /// The fault's offset in it, bytes.
    pub offset: u64,
}

impl Subject {
    /// The subject of the crash that this evidence is about.
    pub(super) fn of(evidence: &Evidence) -> Self {
        let address = evidence.fault_address.filter(|&address| address >= LEAST_ADDRESS);
        // No call is the cause of a stack that has grown to its end, although one has mapped its guard page.
        let is_overflow = diagnosis::diagnose(evidence).is_some_and(|found| found.kind == Kind::StackOverflow);
        let memory = &evidence.memory;
        let mapped = memory.at.as_ref().zip(address).and_then(|(region, address)| {
            Some(FilePlace {
                id: region.file().and_then(|file| file.id),
                name: region.name()?,
                offset: address.saturating_sub(region.start).saturating_add(region.file_offset),
            })
        });
        Self {
            pid: evidence.thread.pid,
            at_ns: evidence.at_ns,
            fault: match (evidence.signal, evidence.si_code) {
                _ if is_overflow => FaultClass::Other,
                (SIGSEGV, Some(SEGV_MAPERR)) => FaultClass::NotMapped,
                (SIGSEGV, Some(SEGV_ACCERR)) => FaultClass::NotAllowed(evidence.access()),
                (SIGBUS, Some(BUS_ADRERR)) => FaultClass::NoPage,
                _ => FaultClass::Other,
            },
            address,
            below: memory.below.as_ref().filter(|_| memory.at.is_none()).map(|below| below.end),
            mapped,
            signal: evidence.signal,
            sender: match evidence.sender {
                Some(Sender::Itself) => Some(evidence.thread.pid),
                Some(Sender::Process(pid)) => Some(pid),
                Some(Sender::Elsewhere) | None => None,
            },
        }
    }

    /// May a call of another thread or process explain it?
    pub(super) fn concerns_others(&self) -> bool {
        match self.fault {
            FaultClass::NotMapped | FaultClass::NotAllowed(_) => self.address.is_some(),
            FaultClass::NoPage => self.mapped.is_some(),
            FaultClass::Other => self.sender.is_some(),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::arch::Registers;
    use crate::evidence::{Backing, File, Permissions, Region, Thread};

    const ADDRESS: u64 = 0x10_0000;

    /// A write to the second word of a page, 33 ms after the machine began.
    fn evidence() -> Evidence {
        Evidence {
            at_ns: 33_000_000,
            thread: Thread { pid: 100, tid: 100, ..Thread::default() },
            signal: SIGSEGV,
            si_code: Some(SEGV_MAPERR),
            fault_address: Some(ADDRESS + 8),
            page_fault: Some(6),
            ..Evidence::default()
        }
    }

    #[test]
    fn a_crash_is_about_an_address_or_a_file() {
        let about = |change: fn(&mut Evidence)| {
            let mut evidence = evidence();
            change(&mut evidence);
            Subject::of(&evidence)
        };
        let facts = about(|_| ());
        assert_eq!((facts.fault, facts.address, facts.at_ns), (FaultClass::NotMapped, Some(ADDRESS + 8), 33_000_000));
        assert!(facts.concerns_others());
        let facts = about(|evidence| evidence.fault_address = Some(8));
        assert!(facts.address.is_none() && !facts.concerns_others(), "near NULL");
        let facts = about(|evidence| evidence.si_code = Some(SEGV_ACCERR));
        assert_eq!(facts.fault, FaultClass::NotAllowed(Access::Write));
        let facts = about(|evidence| {
            let permissions = Permissions { read: true, write: true, ..Permissions::default() };
            let (start, end) = (ADDRESS + 0x1000, ADDRESS + 0x3000);
            let stack = Region { start, end, permissions, file_offset: 0, backing: Backing::MainStack };
            evidence.memory.above = Some(stack);
            evidence.registers = Some(Registers { rsp: ADDRESS + 16, ..Registers::default() });
        });
        assert_eq!(facts.fault, FaultClass::Other, "a stack overflow");
        let facts = about(|evidence| {
            (evidence.signal, evidence.si_code) = (SIGBUS, Some(BUS_ADRERR));
            let permissions = Permissions { read: true, shared: true, ..Permissions::default() };
            let id = Some(FileId { inode: 42, device: 8 });
            let file = File { path: Some("/data".to_owned()), id, ..File::default() };
            let (start, end) = (ADDRESS - 0x1000, ADDRESS + 0x1000);
            let backing = Backing::File(file);
            evidence.memory.at = Some(Region { start, end, permissions, file_offset: 0x4000, backing });
        });
        let mapped = facts.mapped.unwrap();
        assert_eq!(
            (facts.fault, mapped.offset, mapped.id),
            (FaultClass::NoPage, 0x5008, Some(FileId { inode: 42, device: 8 }))
        );
        let facts = about(|evidence| {
            evidence.si_code = Some(0);
            evidence.sender = Some(Sender::Process(7));
        });
        assert_eq!((facts.fault, facts.sender), (FaultClass::Other, Some(7)));
    }
}
