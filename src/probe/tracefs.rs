//! Classic tracepoints, found by name in tracefs, which need not be mounted: if it isn't, we use a mount that is attached nowhere.

use std::fs::{self, File};
use std::io::Read;
use std::os::fd::{AsRawFd, IntoRawFd, OwnedFd};

use anyhow::{Context, Result, anyhow};
use libbpf_rs::libbpf_sys::PERF_TYPE_TRACEPOINT;
use libbpf_rs::{Link, ProgramMut};
use rustix::fs::{Mode, OFlags, openat};
use rustix::mount::{FsMountFlags, FsOpenFlags, MountAttrFlags, fsconfig_create, fsmount, fsopen};

use super::{load, perf};

/// The folders where it usually is mounted.
const MOUNTED: [&str; 2] = ["/sys/kernel/tracing", "/sys/kernel/debug/tracing"];

/// The kernel's tracepoints.
pub(crate) struct Tracefs {
    root: OwnedFd,
}

impl Tracefs {
    /// Opens tracefs where it is mounted, or a mount of our own.
    pub(crate) fn open() -> Result<Self> {
        for folder in MOUNTED {
            if fs::metadata(format!("{folder}/events")).is_ok()
                && let Ok(root) = File::open(folder)
            {
                return Ok(Self { root: root.into() });
            }
        }
        let what = "failed to look at the kernel's tracepoints (tracefs)";
        let context = fsopen("tracefs", FsOpenFlags::FSOPEN_CLOEXEC).context(what)?;
        fsconfig_create(&context).context(what)?;
        let root = fsmount(&context, FsMountFlags::FSMOUNT_CLOEXEC, MountAttrFlags::MOUNT_ATTR_RDONLY).context(what)?;
        Ok(Self { root })
    }

    /// The number of the tracepoint `syscalls:NAME`; `None` means that there is no such call.
    pub(super) fn syscall(&self, name: &str) -> Result<Option<u64>> {
        let what = || format!("failed to find tracepoint `syscalls:{name}`");
        let Some(text) = self.read(name, "id").with_context(what)? else { return Ok(None) };
        text.trim().parse().map(Some).map_err(|_| anyhow!("{}: `{}` is no number", what(), text.trim()))
    }

    /// The kernel's description of the tracepoint `syscalls:NAME`; `None` means that there is no such call.
    pub(crate) fn format(&self, name: &str) -> Result<Option<String>> {
        self.read(name, "format").with_context(|| format!("failed to read about tracepoint `syscalls:{name}`"))
    }

    /// Is there a tracepoint `CATEGORY:NAME`?
    pub(crate) fn has(&self, category: &str, name: &str) -> Result<bool> {
        let path = format!("events/{category}/{name}");
        match openat(&self.root, path, OFlags::PATH | OFlags::CLOEXEC, Mode::empty()) {
            Ok(_) => Ok(true),
            Err(rustix::io::Errno::NOENT) => Ok(false),
            Err(error) => Err(error.into()),
        }
    }

    fn read(&self, name: &str, what: &str) -> Result<Option<String>> {
        let path = format!("events/syscalls/{name}/{what}");
        let file = match openat(&self.root, path, OFlags::RDONLY | OFlags::CLOEXEC, Mode::empty()) {
            Ok(file) => file,
            Err(rustix::io::Errno::NOENT) => return Ok(None),
            Err(error) => return Err(error.into()),
        };
        let mut text = String::new();
        File::from(file).read_to_string(&mut text)?;
        Ok(Some(text))
    }

    /// Runs `program` at the tracepoint `syscalls:NAME`, of all processes. `None` means that this kernel has no such call.
    pub(super) fn attach_syscall(&self, program: &ProgramMut<'_>, name: &str) -> Result<Option<Link>> {
        let Some(id) = self.syscall(name)? else { return Ok(None) };
        let what = format!("attach to tracepoint `syscalls:{name}`");
        // The processor doesn't matter: the program runs on all.
        let event = perf::open(PERF_TYPE_TRACEPOINT, id, 0, 0).with_context(|| format!("failed to {what}"))?;
        let link = load::step(&what, program.attach_perf_event(event.as_raw_fd()))?;
        // The link has taken it over.
        let _ = event.into_raw_fd();
        Ok(Some(link))
    }
}
