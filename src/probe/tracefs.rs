//! Classic tracepoints, found by name in tracefs, which need not be mounted: where it isn't, we look into one that is
//! mounted nowhere.

use std::fs::{self, File};
use std::io::{self, Read};
use std::os::fd::{AsRawFd, FromRawFd, IntoRawFd, OwnedFd};

use anyhow::{Context, Result, anyhow};
use libbpf_rs::libbpf_sys::{PERF_FLAG_FD_CLOEXEC, PERF_TYPE_TRACEPOINT, perf_event_attr};
use libbpf_rs::{Link, ProgramMut};
use rustix::fs::{Mode, OFlags, openat};
use rustix::mount::{FsMountFlags, FsOpenFlags, MountAttrFlags, fsconfig_create, fsmount, fsopen};

use super::load;

/// Where it usually is mounted.
const MOUNTED: [&str; 2] = ["/sys/kernel/tracing", "/sys/kernel/debug/tracing"];

/// The kernel's tracepoints.
pub(super) struct Tracefs {
    root: OwnedFd,
}

impl Tracefs {
    /// Opens it where it is mounted, or mounts it for ourselves only.
    ///
    /// # Errors
    /// Where the kernel has none, or we may not look at it.
    pub(super) fn open() -> Result<Self> {
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

    /// The number of the tracepoint `syscalls:NAME`; None: there is no such call.
    fn syscall(&self, name: &str) -> Result<Option<u64>> {
        let what = || format!("failed to find tracepoint `syscalls:{name}`");
        let path = format!("events/syscalls/{name}/id");
        let file = match openat(&self.root, path, OFlags::RDONLY | OFlags::CLOEXEC, Mode::empty()) {
            Ok(file) => file,
            Err(rustix::io::Errno::NOENT) => return Ok(None),
            Err(error) => return Err(error).with_context(what),
        };
        let mut text = String::new();
        File::from(file).read_to_string(&mut text).with_context(what)?;
        text.trim().parse().map(Some).map_err(|_| anyhow!("{}: `{}` is no number", what(), text.trim()))
    }

    /// Runs `program` at the tracepoint `syscalls:NAME`, of every process. None: this kernel has no such call.
    ///
    /// # Errors
    /// Where the kernel has no perf events, or does not let us have them.
    pub(super) fn attach_syscall(&self, program: &ProgramMut<'_>, name: &str) -> Result<Option<Link>> {
        let Some(id) = self.syscall(name)? else { return Ok(None) };
        let what = format!("attach to tracepoint `syscalls:{name}`");
        let event = open_event(id).with_context(|| format!("failed to {what}"))?;
        let link = load::step(&what, program.attach_perf_event(event.as_raw_fd()))?;
        // The link has taken it over.
        let _ = event.into_raw_fd();
        Ok(Some(link))
    }
}

/// A perf event of the tracepoint with this number. Its processor doesn't matter: a program is run on all.
fn open_event(id: u64) -> io::Result<OwnedFd> {
    let mut attr = perf_event_attr {
        type_: PERF_TYPE_TRACEPOINT,
        size: size_of::<perf_event_attr>() as u32,
        config: id,
        ..perf_event_attr::default()
    };
    let (any_process, cpu, no_group) = (-1, 0, -1);
    // SAFETY: the kernel reads attr, which lives during the call, and has its size in it.
    let fd = unsafe {
        let flags = libc::c_ulong::from(PERF_FLAG_FD_CLOEXEC);
        libc::syscall(libc::SYS_perf_event_open, &raw mut attr, any_process, cpu, no_group, flags)
    };
    match i32::try_from(fd) {
        // SAFETY: the kernel has just made it for us.
        Ok(fd) if fd >= 0 => Ok(unsafe { OwnedFd::from_raw_fd(fd) }),
        _ => Err(io::Error::last_os_error()),
    }
}
