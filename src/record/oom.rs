//! A process that the kernel killed because memory was short.

use serde::{Deserialize, Serialize};

use crate::page;
use crate::probe::abi::fl_memory;
use crate::process;
use crate::text::escape;

/// How large the process was, as roughly as in the kernel's own log.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct OutOfMemory {
    /// Its address space, bytes.
    pub total_vm_bytes: u64,
    /// Its memory that belongs to no file and was resident, bytes.
    pub rss_anon_bytes: u64,
    /// Its memory that belongs to files and was resident, bytes.
    pub rss_file_bytes: u64,
    /// Its shared memory that was resident, bytes.
    pub rss_shmem_bytes: u64,
    /// The path of its cgroup; `None` means that the cgroup has gone.
    pub cgroup: Option<String>,
    /// The container; `None` means that it is in none of a known kind.
    pub container_id: Option<String>,
}

impl OutOfMemory {
    /// A process with so many pages of each kind.
    pub fn new(total_vm: u64, rss_anon: u64, rss_file: u64, rss_shmem: u64) -> Self {
        let bytes = |pages: u64| pages.saturating_mul(page::size());
        Self {
            total_vm_bytes: bytes(total_vm),
            rss_anon_bytes: bytes(rss_anon),
            rss_file_bytes: bytes(rss_file),
            rss_shmem_bytes: bytes(rss_shmem),
            cgroup: None,
            container_id: None,
        }
    }

    /// The same, in this cgroup.
    pub fn in_cgroup(self, cgroup: Option<String>) -> Self {
        Self { container_id: cgroup.as_deref().and_then(process::container_id), cgroup, ..self }
    }

    /// `out of memory in cgroup /x: 12.0 MiB anonymous, 0.5 file, 0.0 shared`
    pub fn text(&self) -> String {
        let mib = |bytes: u64| (bytes / 1024) as f64 / 1024.0;
        let cgroup = self.cgroup.as_deref().filter(|path| *path != "/");
        let cgroup = cgroup.map(|path| format!(" in cgroup {}", escape(path))).unwrap_or_default();
        format!(
            "out of memory{cgroup}: {:.1} MiB anonymous, {:.1} file, {:.1} shared",
            mib(self.rss_anon_bytes),
            mib(self.rss_file_bytes),
            mib(self.rss_shmem_bytes)
        )
    }
}

impl From<&fl_memory> for OutOfMemory {
    fn from(memory: &fl_memory) -> Self {
        Self::new(memory.total_vm, memory.rss_anon, memory.rss_file, memory.rss_shmem)
    }
}
