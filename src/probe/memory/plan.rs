//! The plan of the memory probe.

use crate::probe::Setup;

/// What the kernel programs are to do.
#[derive(Clone, Debug)]
pub(crate) struct Plan {
    /// Which tasks, and how to hook the kernel.
    pub setup: Setup,
    /// Children of watched processes are watched, too.
    pub follow: bool,
    /// Send calls that don't concern executable memory, too.
    pub show_all: bool,
    /// Send pages that become executable.
    pub pages: bool,
    /// Send the ELF header below such pages, too.
    pub headers: bool,
    /// Count anonymous memory that becomes executable, for the whole machine, and send nothing.
    pub executable_memory: bool,
}
