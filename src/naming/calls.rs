//! The system calls that the children may make, by names that every architecture has. Others fail with EPERM.

use std::collections::BTreeMap;

use anyhow::Result;
use seccompiler::{
    BpfProgram, SeccompAction, SeccompCmpArgLen, SeccompCmpOp, SeccompCondition, SeccompFilter, SeccompRule,
    apply_filter,
};

use crate::arch::syscall::READLINK;

/// What all need: memory, their sockets, descriptors that they have, and their own end; and who they are, which the libraries take for a
/// call that can't fail.
const BOTH: [libc::c_long; 42] = [
    libc::SYS_brk,
    libc::SYS_clock_gettime,
    libc::SYS_clock_nanosleep,
    libc::SYS_close,
    libc::SYS_exit,
    libc::SYS_exit_group,
    libc::SYS_fcntl,
    libc::SYS_fstat,
    libc::SYS_futex,
    libc::SYS_getegid,
    libc::SYS_geteuid,
    libc::SYS_getgid,
    libc::SYS_getpid,
    libc::SYS_getppid,
    libc::SYS_getrandom,
    libc::SYS_gettid,
    libc::SYS_getuid,
    libc::SYS_lseek,
    libc::SYS_madvise,
    libc::SYS_mremap,
    libc::SYS_munmap,
    libc::SYS_newfstatat,
    libc::SYS_ppoll,
    libc::SYS_pread64,
    libc::SYS_read,
    libc::SYS_readv,
    libc::SYS_recvfrom,
    libc::SYS_recvmsg,
    libc::SYS_restart_syscall,
    libc::SYS_rseq,
    libc::SYS_rt_sigaction,
    libc::SYS_rt_sigprocmask,
    libc::SYS_rt_sigreturn,
    libc::SYS_sched_yield,
    libc::SYS_sendmsg,
    libc::SYS_sendto,
    libc::SYS_set_robust_list,
    libc::SYS_sigaltstack,
    libc::SYS_statx,
    libc::SYS_tgkill,
    libc::SYS_write,
    libc::SYS_writev,
];

/// Copies of files, in memory of its own.
const NAMER: [libc::c_long; 3] = [libc::SYS_ftruncate, libc::SYS_memfd_create, libc::SYS_pwrite64];

/// What lies where.
const OPENER: [libc::c_long; 4] = [libc::SYS_fstatfs, libc::SYS_getdents64, libc::SYS_openat2, libc::SYS_readlinkat];

/// What changes, and copies of it.
const KEEPER: [libc::c_long; 4] =
    [libc::SYS_inotify_add_watch, libc::SYS_inotify_rm_watch, libc::SYS_memfd_create, libc::SYS_pwrite64];

pub(super) fn allow_namers() -> Result<()> {
    allow_only(&NAMER)
}

pub(super) fn allow_openers() -> Result<()> {
    allow_only(&[&OPENER[..], &READLINK].concat())
}

pub(super) fn allow_keepers() -> Result<()> {
    allow_only(&[&OPENER[..], &READLINK, &KEEPER].concat())
}

/// What is opened is opened to be read; what is mapped is no code.
fn allow_only(more: &[libc::c_long]) -> Result<()> {
    let without = |argument: u8, bits: libc::c_int| {
        let operator = SeccompCmpOp::MaskedEq(u64::from(bits.cast_unsigned()));
        SeccompRule::new(vec![SeccompCondition::new(argument, SeccompCmpArgLen::Dword, operator, 0)?])
    };
    let calls = BOTH.iter().chain(more);
    let mut rules: BTreeMap<i64, Vec<SeccompRule>> = calls.map(|&call| (call, Vec::new())).collect();
    let writing = libc::O_ACCMODE | libc::O_CREAT | libc::O_TRUNC;
    rules.insert(libc::SYS_openat, vec![without(2, writing)?]);
    rules.insert(libc::SYS_mmap, vec![without(2, libc::PROT_EXEC)?]);
    rules.insert(libc::SYS_mprotect, vec![without(2, libc::PROT_EXEC)?]);
    let refused = SeccompAction::Errno(libc::EPERM.cast_unsigned());
    let filter = SeccompFilter::new(rules, refused, SeccompAction::Allow, std::env::consts::ARCH.try_into()?)?;
    let program: BpfProgram = filter.try_into()?;
    apply_filter(&program)?;
    Ok(())
}
