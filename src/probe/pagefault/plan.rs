//! The plan of the page fault probe.

use super::read::NEAR_FAULTS;
use crate::probe::abi::pagefault::fl_fault_by;
use crate::probe::kernel::Kernel;
use crate::probe::{Setup, Way};

/// What faults are counted by, besides process, mode and error code.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) enum By {
    /// Nothing else.
    #[default]
    Process,
    /// The page that was accessed.
    Address,
    /// The instruction that accessed it.
    Instruction,
    /// The mapping.
    Vma,
    /// The file that is mapped there.
    File,
    /// The user's stack.
    Stack,
}

impl By {
    pub(super) fn number(self) -> fl_fault_by {
        match self {
            Self::Process => fl_fault_by::FL_BY_PROCESS,
            Self::Address => fl_fault_by::FL_BY_ADDRESS,
            Self::Instruction => fl_fault_by::FL_BY_INSTRUCTION,
            Self::Vma => fl_fault_by::FL_BY_VMA,
            Self::File => fl_fault_by::FL_BY_FILE,
            Self::Stack => fl_fault_by::FL_BY_STACK,
        }
    }
}

/// Which single faults get a record.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Events {
    /// Every Nth of each processor, N being 1 or more.
    pub each: u32,
    /// At most so many a second; `None` means no limit.
    pub rate: Option<u32>,
}

/// What the kernel programs are to do.
#[derive(Clone, Debug)]
pub(crate) struct Plan {
    /// Which tasks, and how to hook the kernel.
    pub setup: Setup,
    /// What to count by.
    pub by: By,
    /// Look up what kind of memory the address is in.
    pub classes: bool,
    /// Faults in user mode.
    pub user: bool,
    /// Faults in kernel mode.
    pub kernel: bool,
    /// How many frames to walk for [`By::Stack`].
    pub frames: u32,
    /// Room for so many keys in one interval.
    pub keys: u32,
    /// Room for so many stacks that were not read yet.
    pub stacks: u32,
    /// Which single faults get a record; `None` means none.
    pub events: Option<Events>,
}

impl Plan {
    /// Are rows found without a hash table? Not if fewer keys are allowed than these rows have room for, and not by pages, of which there
    /// are too many. Nor where another of the programs may run while one of them is preempted.
    pub(super) fn has_near_faults(&self, kernel: Kernel) -> bool {
        self.keys >= NEAR_FAULTS && self.by != By::Address && !kernel.is_real_time
    }

    /// Is what lies at an address looked up, at each fault?
    pub(super) fn looks_at_places(&self) -> bool {
        self.classes || matches!(self.by, By::Vma | By::File)
    }

    /// Are mappings sent, of places, instructions or frames?
    pub(super) fn sends_mappings(&self) -> bool {
        !matches!(self.by, By::Process | By::Address) || self.events.is_some()
    }

    /// Is it known how many faults the kernel doesn't show to these programs? With stacks it also counts the faults that our own reading of
    /// a stack causes; perf doesn't.
    pub(super) fn tells_missed(&self, way: Way) -> bool {
        way == Way::Perf || self.by != By::Stack
    }
}
