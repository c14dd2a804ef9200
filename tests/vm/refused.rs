//! Runs faultline where a system call is refused.

use std::os::unix::process::CommandExt;
use std::process::Command;

/// Has the system call of this number answered with `errno` by a seccomp filter: always, or where its first argument is `first`.
pub(crate) fn refuse(
    command: &mut Command,
    number: libc::c_long,
    first: Option<u32>,
    errno: libc::c_int,
) -> &mut Command {
    let statement = |code: u32, jf: u8, k: u32| libc::sock_filter { code: code as u16, jt: 0, jf, k };
    let load = |offset: u32| statement(libc::BPF_LD | libc::BPF_W | libc::BPF_ABS, 0, offset);
    let equal_or_skip = |k: u32, skip: u8| statement(libc::BPF_JMP | libc::BPF_JEQ | libc::BPF_K, skip, k);
    let answer = |action: u32| statement(libc::BPF_RET | libc::BPF_K, 0, action);
    // seccomp_data.nr and the lower half of seccomp_data.args[0]
    let (number, first) = (number as u32, first.map(|first| [load(16), equal_or_skip(first, 1)]));
    let mut filter = vec![load(0), equal_or_skip(number, if first.is_some() { 3 } else { 1 })];
    filter.extend(first.into_iter().flatten());
    filter.extend([answer(libc::SECCOMP_RET_ERRNO | errno as u32), answer(libc::SECCOMP_RET_ALLOW)]);
    // SAFETY: between fork and exec only prctl is called, and `filter` is moved into the closure, so it is alive then.
    unsafe {
        command.pre_exec(move || {
            let program = libc::sock_fprog { len: filter.len() as u16, filter: filter.as_ptr().cast_mut() };
            if libc::prctl(libc::PR_SET_SECCOMP, libc::SECCOMP_MODE_FILTER, &raw const program) != 0 {
                return Err(std::io::Error::last_os_error());
            }
            Ok(())
        })
    }
}
