//! The plan of the memory probe.

use std::path::PathBuf;

use crate::probe::{Attach, Filter};

/// What the kernel programs are to do.
#[derive(Clone, Debug)]
pub struct Plan {
    /// Which tasks.
    pub filter: Filter,
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
    /// How to hook the kernel.
    pub attach: Attach,
    /// A file with the kernel's types, if the kernel doesn't show them itself.
    pub btf: Option<PathBuf>,
    /// Print libbpf's own messages.
    pub verbose: bool,
}
