//! Events of perf, for programs that run when one happens. Software events: on each processor that is there when we start.

use std::io;
use std::os::fd::{AsRawFd, FromRawFd, IntoRawFd, OwnedFd};

use anyhow::{Context, Result, bail};
use libbpf_rs::libbpf_sys::{PERF_FLAG_FD_CLOEXEC, PERF_TYPE_SOFTWARE, perf_event_attr};
use libbpf_rs::{Link, ProgramMut, num_possible_cpus};

use super::load;

/// Runs `program` at every event `config` (`PERF_COUNT_SW_*`) of every process. Dropping the links ends it.
///
/// # Errors
/// Where the kernel has no perf events, or does not let us have them.
pub(super) fn attach_software_event(program: &ProgramMut<'_>, config: u32, name: &str) -> Result<Vec<Link>> {
    let mut links = Vec::new();
    for cpu in 0..num_possible_cpus().context("failed to count the processors")? {
        let event = match open(PERF_TYPE_SOFTWARE, u64::from(config), 1, i32::try_from(cpu)?) {
            Ok(event) => event,
            // It is not running.
            Err(error) if error.raw_os_error() == Some(libc::ENODEV) => continue,
            Err(error) => return Err(error).with_context(|| format!("failed to open perf event `{name}`")),
        };
        let link = program.attach_perf_event(event.as_raw_fd());
        links.push(load::step(&format!("attach to perf event `{name}`"), link)?);
        // The link has taken it over.
        let _ = event.into_raw_fd();
    }
    if links.is_empty() {
        bail!("failed to open perf event `{name}`: no processor has it");
    }
    Ok(links)
}

/// A perf event on this processor, of every process; `period`: 0, it only counts.
pub(super) fn open(kind: u32, config: u64, period: u64, cpu: i32) -> io::Result<OwnedFd> {
    let mut attr = perf_event_attr {
        type_: kind,
        size: size_of::<perf_event_attr>() as u32,
        config,
        ..perf_event_attr::default()
    };
    attr.__bindgen_anon_1.sample_period = period;
    let (any_process, no_group) = (-1, -1);
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
