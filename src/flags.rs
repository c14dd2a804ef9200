//! Flags and other numbers of system calls, by the names that their manual pages give them. The numbers are libc's.

use crate::{arch, siginfo};

/// Numbers by name. If one has the bits of another, it comes before it.
pub(crate) type FlagNames = &'static [(u64, &'static str)];

macro_rules! names {
    ($($name:ident)*) => { &[$((libc::$name as u64, stringify!($name))),*] };
}

const PROT: FlagNames = names![PROT_READ PROT_WRITE PROT_EXEC PROT_GROWSDOWN PROT_GROWSUP];
/// Beside MAP_TYPE.
const MAP: FlagNames = names![
    MAP_FIXED MAP_ANONYMOUS MAP_GROWSDOWN MAP_DENYWRITE MAP_EXECUTABLE MAP_LOCKED MAP_NORESERVE MAP_POPULATE
    MAP_NONBLOCK MAP_STACK MAP_HUGETLB MAP_SYNC MAP_FIXED_NOREPLACE
];
const MREMAP: FlagNames = names![MREMAP_MAYMOVE MREMAP_FIXED MREMAP_DONTUNMAP];
const SHM: FlagNames = names![SHM_RDONLY SHM_RND SHM_REMAP SHM_EXEC];
const MFD: FlagNames = &[
    (libc::MFD_CLOEXEC as u64, "MFD_CLOEXEC"),
    (libc::MFD_ALLOW_SEALING as u64, "MFD_ALLOW_SEALING"),
    (libc::MFD_HUGETLB as u64, "MFD_HUGETLB"),
    // include/uapi/linux/memfd.h, v6.3
    (8, "MFD_NOEXEC_SEAL"),
    (0x10, "MFD_EXEC"),
];
/// Beside the access mode.
const OPEN: FlagNames = names![
    O_TMPFILE O_SYNC O_CREAT O_EXCL O_NOCTTY O_TRUNC O_APPEND O_NONBLOCK O_DSYNC O_ASYNC O_DIRECT O_DIRECTORY O_NOFOLLOW
    O_NOATIME O_CLOEXEC O_PATH
];
const AT: FlagNames =
    names![AT_SYMLINK_NOFOLLOW AT_REMOVEDIR AT_SYMLINK_FOLLOW AT_NO_AUTOMOUNT AT_EMPTY_PATH AT_RECURSIVE];
const FALLOCATE: FlagNames = names![
    FALLOC_FL_KEEP_SIZE FALLOC_FL_PUNCH_HOLE FALLOC_FL_COLLAPSE_RANGE FALLOC_FL_ZERO_RANGE FALLOC_FL_INSERT_RANGE
    FALLOC_FL_UNSHARE_RANGE
];
const SIGACTION: FlagNames = names![SA_NOCLDSTOP SA_NOCLDWAIT SA_SIGINFO SA_ONSTACK SA_RESTART SA_NODEFER SA_RESETHAND];
const ADVICE: FlagNames = names![
    MADV_NORMAL MADV_RANDOM MADV_SEQUENTIAL MADV_WILLNEED MADV_DONTNEED MADV_FREE MADV_REMOVE MADV_DONTFORK MADV_DOFORK
    MADV_MERGEABLE MADV_UNMERGEABLE MADV_HUGEPAGE MADV_NOHUGEPAGE MADV_DONTDUMP MADV_DODUMP MADV_WIPEONFORK
    MADV_KEEPONFORK MADV_COLD MADV_PAGEOUT MADV_POPULATE_READ MADV_POPULATE_WRITE MADV_COLLAPSE MADV_HWPOISON
];
const SIGNAL_HOW: FlagNames = names![SIG_BLOCK SIG_UNBLOCK SIG_SETMASK];
/// Source: include/linux/mm.h. The lower ones, which don't change.
const VM: FlagNames = &[
    (0x1, "VM_READ"),
    (0x2, "VM_WRITE"),
    (0x4, "VM_EXEC"),
    (0x8, "VM_SHARED"),
    (0x10, "VM_MAYREAD"),
    (0x20, "VM_MAYWRITE"),
    (0x40, "VM_MAYEXEC"),
    (0x80, "VM_MAYSHARE"),
    (0x100, "VM_GROWSDOWN"),
    (0x400, "VM_PFNMAP"),
    (0x2000, "VM_LOCKED"),
    (0x4000, "VM_IO"),
];

/// The flags in `bits`, `|` between them; what has no name is a number, none at all is `none`.
fn words(bits: u64, names: &[(u64, &str)], none: &str, first: Option<&str>) -> String {
    let mut words: Vec<String> = first.into_iter().map(str::to_owned).collect();
    let mut rest = bits;
    for (bit, name) in names {
        if *bit != 0 && rest & bit == *bit {
            words.push((*name).to_owned());
            rest &= !bit;
        }
    }
    if rest != 0 {
        words.push(format!("{rest:#x}"));
    }
    if words.is_empty() { none.to_owned() } else { words.join("|") }
}

/// The one name of a number that is no set of flags.
fn word(number: u64, names: FlagNames) -> String {
    names.iter().find(|(known, _)| *known == number).map_or_else(|| number.to_string(), |(_, name)| (*name).to_owned())
}

pub(crate) fn prot(bits: u64) -> String {
    words(bits, PROT, "PROT_NONE", None)
}

pub(crate) fn map(bits: u64) -> String {
    let sharing = ["0", "MAP_SHARED", "MAP_PRIVATE", "MAP_SHARED_VALIDATE"];
    words(bits & !3, &[&arch::syscall::MAP_FLAGS, MAP].concat(), "0", sharing.get((bits & 3) as usize).copied())
}

pub(crate) fn mremap(bits: u64) -> String {
    words(bits, MREMAP, "0", None)
}

pub(crate) fn shm(bits: u64) -> String {
    words(bits, SHM, "0", None)
}

pub(crate) fn memfd(bits: u64) -> String {
    words(bits, MFD, "0", None)
}

pub(crate) fn open(bits: u64) -> String {
    // A flag that the kernel adds, and one that libc hides: O_LARGEFILE (include/uapi/asm-generic/fcntl.h), FMODE_EXEC.
    let bits = bits & !0o100_000 & !0x20;
    let access = ["O_RDONLY", "O_WRONLY", "O_RDWR", "O_ACCMODE"];
    words(bits & !3, OPEN, "0", access.get((bits & 3) as usize).copied())
}

pub(crate) fn at(bits: u64) -> String {
    words(bits, AT, "0", None)
}

pub(crate) fn fallocate(bits: u64) -> String {
    words(bits, FALLOCATE, "0", None)
}

pub(crate) fn sigaction(bits: u64) -> String {
    words(bits & !arch::SA_RESTORER, SIGACTION, "0", None)
}

pub(crate) fn vm(bits: u64) -> String {
    words(bits, VM, "0", None)
}

pub(crate) fn advice(number: u64) -> String {
    word(number, ADVICE)
}

pub(crate) fn signal_how(number: u64) -> String {
    word(number, SIGNAL_HOW)
}

/// A signal's name; 0 asks only whether it may be sent.
pub(crate) fn signal(number: u64) -> String {
    match u32::try_from(number) {
        Ok(number @ 1..) => siginfo::signal_name(number),
        _ => number.to_string(),
    }
}

/// A handler: sa_handler.
pub(crate) fn handler(address: u64) -> String {
    match address {
        0 => "SIG_DFL".to_owned(),
        1 => "SIG_IGN".to_owned(),
        _ => format!("{address:#x}"),
    }
}

/// The folder that a relative path begins in.
pub(crate) fn folder(number: u64) -> String {
    let fd = number as u32 as i32;
    if fd == libc::AT_FDCWD { "AT_FDCWD".to_owned() } else { fd.to_string() }
}

/// Permissions, as chmod(1) takes them.
pub(crate) fn mode(number: u64) -> String {
    if number == 0 { "0".to_owned() } else { format!("0{number:o}") }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn flags_are_written_as_in_the_manual() {
        assert_eq!(prot(0), "PROT_NONE");
        assert_eq!(prot(3), "PROT_READ|PROT_WRITE");
        assert_eq!(map(0x22), "MAP_PRIVATE|MAP_ANONYMOUS");
        assert_eq!(map(0x4000_0003), "MAP_SHARED_VALIDATE|0x40000000");
        assert_eq!(open(0), "O_RDONLY");
        assert_eq!(open((libc::O_RDWR | libc::O_TRUNC | 0o100_000) as u64), "O_RDWR|O_TRUNC");
        assert_eq!(open((libc::O_WRONLY | libc::O_TMPFILE) as u64), "O_WRONLY|O_TMPFILE", "not O_DIRECTORY as well");
        assert_eq!(fallocate(3), "FALLOC_FL_KEEP_SIZE|FALLOC_FL_PUNCH_HOLE");
    }

    #[test]
    fn what_is_no_set_has_one_name() {
        assert_eq!(advice(4), "MADV_DONTNEED");
        assert_eq!(advice(12345), "12345");
        assert_eq!(signal(11), "SIGSEGV");
        assert_eq!(signal(0), "0");
        assert_eq!(folder(0xffff_ff9c), "AT_FDCWD");
        assert_eq!(folder(3), "3");
        assert_eq!(handler(1), "SIG_IGN");
    }
}
