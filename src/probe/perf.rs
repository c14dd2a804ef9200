//! Events of perf, for programs that run when one happens. Software events are opened on each processor that is on when we start.

use std::ffi::CStr;
use std::fs::File;
use std::io::{self, Read as _};
use std::os::fd::{AsRawFd, BorrowedFd, FromRawFd, IntoRawFd, OwnedFd};

use anyhow::{Context, Result, bail};
use libbpf_rs::libbpf_sys::{
    BPF_PERF_EVENT, PERF_COUNT_SW_PAGE_FAULTS_MAJ, PERF_FLAG_FD_CLOEXEC, PERF_TYPE_SOFTWARE, bpf_link_create,
    perf_event_attr,
};
use libbpf_rs::{Link, ProgramMut, num_possible_cpus};

use super::load;
use super::pattern::owned;

/// What software events have counted, whether or not a program ran: the kernel skips the runs at events that happen while a task is
/// preempted in a system call on a map on that processor (`bpf_prog_active`), and counts these nowhere.
#[derive(Default)]
pub(super) struct EventCounts(Vec<File>);

impl EventCounts {
    /// How many events there were since the program was attached. The event of a processor that was switched off may report none.
    pub(super) fn sum(&self) -> u64 {
        let count = |mut event: &File| {
            let mut value = [0; 8];
            matches!(event.read(&mut value), Ok(8)).then(|| u64::from_ne_bytes(value))
        };
        self.0.iter().filter_map(count).sum()
    }
}

/// Runs `program` at every event `config` (`PERF_COUNT_SW_*`) of every process. Dropping the links ends it, and the counting.
///
/// # Errors
/// If the kernel has no perf events, or refuses them to us.
pub(super) fn attach_software_event(
    program: &ProgramMut<'_>,
    config: u32,
    name: &str,
) -> Result<(Vec<Link>, EventCounts)> {
    let (mut links, mut counts) = (Vec::new(), EventCounts::default());
    for cpu in 0..num_possible_cpus().context("failed to count the processors")? {
        let event = match open_disabled(PERF_TYPE_SOFTWARE, u64::from(config), i32::try_from(cpu)?) {
            Ok(event) => event,
            // The processor is not running.
            Err(error) if error.raw_os_error() == Some(libc::ENODEV) => continue,
            Err(error) => return Err(error).with_context(|| format!("failed to open perf event `{name}`")),
        };
        counts.0.push(event.try_clone().with_context(|| format!("failed to keep perf event `{name}`"))?.into());
        // It begins to count with the program: the link enables it.
        let link = program.attach_perf_event(event.as_raw_fd());
        links.push(load::step(&format!("attach to perf event `{name}`"), link)?);
        // The link has taken it over.
        let _ = event.into_raw_fd();
    }
    if links.is_empty() {
        bail!("failed to open perf event `{name}`: no processor has it");
    }
    Ok((links, counts))
}

/// Does the kernel allow us software events? Not under lockdown=confidentiality, nor without CONFIG_PERF_EVENTS.
pub(super) fn is_allowed() -> bool {
    match open(PERF_TYPE_SOFTWARE, u64::from(PERF_COUNT_SW_PAGE_FAULTS_MAJ), 0, 0) {
        Ok(_) => true,
        // The processor is not running.
        Err(error) => error.raw_os_error() == Some(libc::ENODEV),
    }
}

/// A perf event on this processor, of all processes; with `period` 0 it only counts.
pub(super) fn open(kind: u32, config: u64, period: u64, cpu: i32) -> io::Result<OwnedFd> {
    let mut attr = perf_event_attr { type_: kind, config, ..perf_event_attr::default() };
    attr.__bindgen_anon_1.sample_period = period;
    open_by(attr, cpu)
}

/// The same, every single event, which neither counts nor happens before it is enabled.
fn open_disabled(kind: u32, config: u64, cpu: i32) -> io::Result<OwnedFd> {
    let mut attr = perf_event_attr { type_: kind, config, ..perf_event_attr::default() };
    attr.__bindgen_anon_1.sample_period = 1;
    attr.set_disabled(1);
    open_by(attr, cpu)
}

/// A kprobe, or a kretprobe, on the kernel function `symbol`. `kind`: the type of such events, [`kprobe_type`].
pub(super) fn open_kprobe(kind: u32, symbol: &CStr, is_return: bool) -> io::Result<OwnedFd> {
    // The first bit: /sys/bus/event_source/devices/kprobe/format/retprobe.
    let mut attr = perf_event_attr { type_: kind, config: u64::from(is_return), ..perf_event_attr::default() };
    attr.__bindgen_anon_3.kprobe_func = symbol.as_ptr() as u64;
    open_by(attr, 0)
}

/// The type of kprobes among perf events; `None` means that this kernel has none.
pub(super) fn kprobe_type() -> Option<u32> {
    std::fs::read_to_string("/sys/bus/event_source/devices/kprobe/type").ok()?.trim().parse().ok()
}

/// Runs the program at every occurrence of the event, until what is returned is closed: a link where the kernel has them for events
/// (v5.15), because a link reports the hits that it missed, else the event.
pub(super) fn run_at(event: OwnedFd, program: BorrowedFd<'_>) -> io::Result<OwnedFd> {
    // include/uapi/linux/perf_event.h
    const PERF_EVENT_IOC_ENABLE: libc::c_ulong = 0x2400;
    const PERF_EVENT_IOC_SET_BPF: libc::c_ulong = 0x4004_2408;
    let call = |request: libc::c_ulong, argument: i32| {
        // SAFETY: both take a number, and the descriptor is open.
        let done = unsafe { libc::ioctl(event.as_raw_fd(), request as _, argument) };
        if done < 0 { Err(io::Error::last_os_error()) } else { Ok(()) }
    };
    // SAFETY: no options.
    let link =
        owned(unsafe { bpf_link_create(program.as_raw_fd(), event.as_raw_fd(), BPF_PERF_EVENT, std::ptr::null()) });
    if link.is_err() {
        call(PERF_EVENT_IOC_SET_BPF, program.as_raw_fd())?;
    }
    call(PERF_EVENT_IOC_ENABLE, 0)?;
    Ok(link.unwrap_or(event))
}

fn open_by(mut attr: perf_event_attr, cpu: i32) -> io::Result<OwnedFd> {
    attr.size = size_of::<perf_event_attr>() as u32;
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
