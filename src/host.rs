//! Facts: what this kernel has and what our privileges allow. "Unknown" is an answer of its own.

use std::ffi::OsStr;
use std::fs;
use std::os::unix::fs::MetadataExt;
use std::path::Path;

use procfs::process::{Process, Stat};
use procfs::sys::kernel::Version as KernelVersion;
use procfs::{FromRead, ProcResult};

/// The file in which the kernel shows its types.
pub(crate) const KERNEL_BTF: &str = "/sys/kernel/btf/vmlinux";

/// What to do if tracing is refused.
const CURE_PRIVILEGES: &str = "needs CAP_BPF and CAP_PERFMON: run as root, or setcap cap_bpf,cap_perfmon+ep on a copy of \
     faultline that only a trusted group may execute (chgrp GROUP, chmod 0750), because whoever may execute it sees registers \
     and executable pages of root's processes";

/// The same in a user namespace, where root and all capabilities are those of the namespace.
const CURE_USER_NAMESPACE: &str = "needs CAP_BPF and CAP_PERFMON of the host, which root doesn't have in a user namespace: run it \
     outside of this one, or in a container that has none of its own";

/// What to do if tracing is refused, where we are.
pub(crate) fn cure_privileges() -> &'static str {
    if is_in_user_namespace() { CURE_USER_NAMESPACE } else { CURE_PRIVILEGES }
}

/// include/uapi/linux/nsfs.h (and include/linux/proc_ns.h before): the inode of the first user namespace.
const USER_NS_INIT_INO: u64 = 0xefff_fffd;

/// Are we in another user namespace than the host's? There our capabilities count for nothing that concerns the kernel.
pub(crate) fn is_in_user_namespace() -> bool {
    fs::metadata("/proc/self/ns/user").is_ok_and(|namespace| namespace.ino() != USER_NS_INIT_INO)
}

/// What to do under lockdown=confidentiality.
pub(crate) const CURE_LOCKDOWN: &str = "lockdown=confidentiality is in force, which allows tracepoints and typed loads (Linux 6.2) \
     only: leave --attach out, and boot a newer kernel, or without lockdown=confidentiality";

/// What to do if the kernel counts the memory of programs and maps against RLIMIT_MEMLOCK, as all kernels before v5.11 do.
pub(crate) const CURE_LOCKED_MEMORY: &str =
    "not permitted, and this process may lock little memory: ulimit -l unlimited, or add CAP_SYS_RESOURCE";

/// What to do if a seccomp filter stands in the way.
pub(crate) const CURE_SECCOMP: &str = "a seccomp filter refuses bpf(2): give this container a profile that allows bpf and \
     perf_event_open to who has CAP_BPF and CAP_PERFMON, or none (--security-opt seccomp=unconfined)";

/// Does a seccomp filter refuse bpf(2)? To whoever may use it, the kernel says of a command that doesn't exist that it is invalid.
pub(crate) fn bpf_is_filtered() -> bool {
    let Ok(status) = Process::myself().and_then(|me| me.status()) else { return false };
    // include/uapi/linux/seccomp.h: SECCOMP_MODE_FILTER
    if status.seccomp != Some(2) || !Privileges(status.capeff).may_trace() || is_in_user_namespace() {
        return false;
    }
    let no_command = libc::c_long::from(i32::MAX);
    // SAFETY: without a command and attributes it reads and changes nothing.
    let result = unsafe { libc::syscall(libc::SYS_bpf, no_command, std::ptr::null::<u8>(), 0) };
    result < 0 && std::io::Error::last_os_error().raw_os_error() != Some(libc::EINVAL)
}

/// Enough for all programs and maps together.
const LOCKED_MEMORY_BYTES: u64 = 64 << 20;

/// Is RLIMIT_MEMLOCK lower than our programs and maps may need, on a kernel that counts them?
pub(crate) fn locked_memory_is_limited() -> bool {
    use nix::sys::resource::{Resource, getrlimit};
    let is_counted = KernelVersion::current().is_ok_and(|version| version < KernelVersion::new(5, 11, 0));
    is_counted && getrlimit(Resource::RLIMIT_MEMLOCK).is_ok_and(|(soft, _)| soft < LOCKED_MEMORY_BYTES)
}

/// The answer to a question about this machine.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Answer {
    /// It is there.
    Yes,
    /// It isn't, and why.
    No(String),
    /// It is unknown, and why.
    Unknown(String),
}

/// Our effective capabilities as a bit set: capability(7).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Privileges(u64);

// include/uapi/linux/capability.h
const CAP_DAC_READ_SEARCH: u32 = 2;
const CAP_SYS_PTRACE: u32 = 19;
const CAP_SYS_ADMIN: u32 = 21;
const CAP_PERFMON: u32 = 38;
const CAP_BPF: u32 = 39;
const CAP_CHECKPOINT_RESTORE: u32 = 40;

impl Privileges {
    /// Ours; `None` means that /proc doesn't show them.
    pub(crate) fn read() -> Option<Self> {
        let status = Process::myself().and_then(|me| me.status()).ok()?;
        Some(Self(status.capeff))
    }

    fn has(self, capability: u32) -> bool {
        self.0 >> capability & 1 != 0
    }

    /// May we load and attach tracing programs? CAP_SYS_ADMIN includes what was split off it in 5.8.
    pub(crate) fn may_trace(self) -> bool {
        self.has(CAP_SYS_ADMIN) || (self.has(CAP_BPF) && self.has(CAP_PERFMON))
    }

    /// Which fields are `null` in records because a capability is missing; `None` means none.
    pub(crate) fn unseen(self) -> Option<&'static str> {
        match (self.has(CAP_SYS_PTRACE), self.has(CAP_DAC_READ_SEARCH)) {
            (true, true) => None,
            (false, true) => Some("without CAP_SYS_PTRACE, symbols of programs in containers are null"),
            (true, false) => Some("without CAP_DAC_READ_SEARCH, symbols of files that this user may not read are null"),
            (false, false) => Some(
                "without CAP_SYS_PTRACE and CAP_DAC_READ_SEARCH, symbols of programs in containers and of files that this \
                 user may not read are null",
            ),
        }
    }

    /// The capabilities that matter to us, each with whether we have it.
    pub(crate) fn known(self) -> [(&'static str, bool); 5] {
        let admin = self.has(CAP_SYS_ADMIN);
        [
            ("CAP_BPF", admin || self.has(CAP_BPF)),
            ("CAP_PERFMON", admin || self.has(CAP_PERFMON)),
            ("CAP_SYS_PTRACE", self.has(CAP_SYS_PTRACE)),
            ("CAP_DAC_READ_SEARCH", self.has(CAP_DAC_READ_SEARCH)),
            ("CAP_CHECKPOINT_RESTORE", admin || self.has(CAP_CHECKPOINT_RESTORE)),
        ]
    }
}

/// What this file of /proc/PID says. What a process has chosen of it, its name and its paths, need not be UTF-8: that doesn't hide the rest.
pub(crate) fn of_process<Said: FromRead>(pid: u32, file: &str) -> ProcResult<Said> {
    let bytes = fs::read(Path::new("/proc").join(pid.to_string()).join(file))?;
    Said::from_read(String::from_utf8_lossy(&bytes).as_bytes())
}

/// When a process started, nanoseconds since the machine did (CLOCK_BOOTTIME), to a tick.
pub(crate) fn started_boottime_ns(stat: &Stat) -> u128 {
    u128::from(stat.starttime) * 1_000_000_000 / u128::from(procfs::ticks_per_second())
}

/// How much of our memory is in RAM, bytes; `None` means unknown.
pub(crate) fn resident_bytes() -> Option<u64> {
    let statm = Process::myself().and_then(|me| me.statm()).ok()?;
    Some(statm.resident * procfs::page_size())
}

/// Gives memory back to the kernel that only the start needed: freed memory, and the pages of our own code and constants. An agent
/// runs for months. From now on large buffers go back when they are freed: glibc would keep them once it has seen one as large.
pub(crate) fn release_memory() {
    /// glibc's own, until it adapts it.
    #[cfg(target_env = "gnu")]
    const MMAP_THRESHOLD_BYTES: libc::c_int = 128 << 10;
    // SAFETY: malloc_trim(3) and mallopt(3) take no pointer and may be called at any time.
    #[cfg(target_env = "gnu")]
    unsafe {
        libc::malloc_trim(0);
        libc::mallopt(libc::M_MMAP_THRESHOLD, MMAP_THRESHOLD_BYTES);
    }
    let Ok(maps) = Process::myself().and_then(|me| me.smaps()) else { return };
    for map in maps {
        use procfs::process::{MMPermissions, MMapPath};
        let is_constant = map.perms.contains(MMPermissions::PRIVATE) && !map.perms.contains(MMPermissions::WRITE);
        // Pages that the loader has relocated are in no file: they would be lost.
        let is_the_files = ["Anonymous", "Swap"].iter().all(|kind| map.extension.map.get(*kind) == Some(&0));
        if !is_constant || !is_the_files || !matches!(map.pathname, MMapPath::Path(_)) {
            continue;
        }
        let (start, end) = map.address;
        // SAFETY: the range is one whole mapping of a file, which is not writable and was never written to: its pages come back from the
        // file when they are needed again. None of our code unmaps code or constants, so that it is still there.
        unsafe {
            libc::madvise(start as *mut libc::c_void, (end - start) as usize, libc::MADV_DONTNEED);
        }
    }
}

/// This machine's name, as it stands in records; it is empty if the kernel doesn't report it.
pub(crate) fn name() -> String {
    nix::unistd::gethostname().map(|name| name.to_string_lossy().into_owned()).unwrap_or_default()
}

/// The running kernel's release, as uname(1) prints it, and the machine's architecture.
pub(crate) fn kernel() -> (String, String) {
    let unknown = || "unknown".to_owned();
    match nix::sys::utsname::uname() {
        Ok(name) => (name.release().to_string_lossy().into_owned(), name.machine().to_string_lossy().into_owned()),
        Err(_) => (unknown(), unknown()),
    }
}

/// Is the running kernel a real-time one (PREEMPT_RT)?
pub(crate) fn is_real_time() -> bool {
    nix::sys::utsname::uname().is_ok_and(|name| name.version().to_string_lossy().contains("PREEMPT_RT"))
}

/// Is this program linked statically? Then the kernel has loaded nothing beside it, and it finds no libraries at run time.
pub(crate) fn is_static() -> bool {
    // SAFETY: it reads what the kernel has given to this process at its start.
    unsafe { libc::getauxval(libc::AT_BASE) == 0 }
}

/// An id of this boot of the machine; `None` means that the kernel doesn't report it.
pub(crate) fn boot_id() -> Option<String> {
    sysctl("kernel/random/boot_id")
}

/// Our mount namespace, by its number; `None` means that the kernel doesn't report it.
pub(crate) fn mount_namespace() -> Option<u64> {
    mount_namespace_of(&Process::myself().ok()?)
}

/// The mount namespace of a process, by its number; `None` means that the kernel doesn't report it.
pub(crate) fn mount_namespace_of(process: &Process) -> Option<u64> {
    Some(process.namespaces().ok()?.0.get(OsStr::new("mnt"))?.identifier)
}

/// The lockdown mode in force: `none`, `integrity`, `confidentiality`; `None` means that the kernel has none, or securityfs is not
/// mounted.
pub(crate) fn lockdown() -> Option<String> {
    let modes = fs::read_to_string("/sys/kernel/security/lockdown").ok()?;
    chosen(&modes)
}

fn chosen(modes: &str) -> Option<String> {
    let (_, rest) = modes.split_once('[')?;
    rest.split_once(']').map(|(mode, _)| mode.to_owned())
}

/// A sysctl's value, `kernel/perf_event_paranoid`; `None` means not there or not readable.
pub(crate) fn sysctl(name: &str) -> Option<String> {
    fs::read_to_string(Path::new("/proc/sys").join(name)).ok().map(|value| value.trim().to_owned())
}

/// Does perf know kprobes? Readable without privileges.
pub(crate) fn has_kprobe_pmu() -> bool {
    Path::new("/sys/bus/event_source/devices/kprobe/type").exists()
}

/// Where the cgroup v2 hierarchy is mounted; `None` means nowhere.
pub(crate) fn cgroup2() -> Option<String> {
    let mounts = fs::read_to_string("/proc/self/mounts").ok()?;
    mounts.lines().find_map(|line| {
        let mut fields = line.split(' ').skip(1);
        let folder = fields.next()?;
        (fields.next() == Some("cgroup2")).then(|| folder.to_owned())
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_pair_of_privileges_counts() {
        let with = |bits: &[u32]| Privileges(bits.iter().fold(0, |all, bit| all | 1 << bit));
        assert!(with(&[CAP_BPF, CAP_PERFMON]).may_trace());
        assert!(with(&[CAP_SYS_ADMIN]).may_trace());
        assert!(!with(&[CAP_BPF]).may_trace());
        assert!(!with(&[CAP_PERFMON]).may_trace());
        assert!(!with(&[]).may_trace());
    }

    #[test]
    fn what_stays_unseen_names_the_capability() {
        let with = |bits: &[u32]| Privileges(bits.iter().fold(0, |all, bit| all | 1 << bit)).unseen();
        assert_eq!(with(&[CAP_SYS_PTRACE, CAP_DAC_READ_SEARCH]), None);
        assert!(with(&[CAP_SYS_PTRACE]).unwrap().contains("without CAP_DAC_READ_SEARCH,"));
        assert!(with(&[CAP_DAC_READ_SEARCH]).unwrap().contains("without CAP_SYS_PTRACE,"));
        assert!(with(&[]).unwrap().contains("without CAP_SYS_PTRACE and CAP_DAC_READ_SEARCH,"));
    }

    #[test]
    fn the_lockdown_mode_is_in_brackets() {
        assert_eq!(chosen("[none] integrity confidentiality\n").as_deref(), Some("none"));
        assert_eq!(chosen("none integrity [confidentiality]\n").as_deref(), Some("confidentiality"));
        assert_eq!(chosen("garbage"), None);
    }
}
