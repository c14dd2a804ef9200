//! System calls of arm64, by symbol and by number.

/// The prefix of the kernel's symbol of a system call: arch/arm64/include/asm/syscall_wrapper.h.
pub(crate) const PREFIX: &str = "__arm64_sys_";

/// The same for the calls of 32-bit programs that need another function.
pub(crate) const COMPAT_PREFIX: &str = "__arm64_compat_sys_";

/// The table of a system call's number, if a 64-bit program made the call: AUDIT_ARCH_AARCH64, include/uapi/linux/audit.h.
pub(crate) const AUDIT_ARCH: u32 = 0xc000_00b7;

/// The calls whose own failure the kernel may answer with SIGSEGV: rt_sigreturn(2), where the frame can't be read, and execve(2) and execveat(2),
/// where the old program is gone already: include/uapi/asm-generic/unistd.h.
pub(crate) const FATAL_IF_FAILED: [i32; 3] = [139, 221, 281];

/// The same of 32-bit programs, with sigreturn(2): arch/arm/tools/syscall.tbl.
pub(crate) const COMPAT_FATAL_IF_FAILED: [i32; 4] = [119, 173, 11, 387];

/// Flags of mmap(2) that not every architecture has.
pub(crate) const MAP_FLAGS: [(u64, &str); 0] = [];

/// A system call begins with its first argument in the register of its result, and may end with the same value there: fl_is_begun().
pub(crate) const SHOWS_ITS_BEGIN: bool = false;

/// What C libraries call for readlink(3) beside readlinkat(2): nothing.
pub(crate) const READLINK: [libc::c_long; 0] = [];

/// The members of the kernel's `struct pt_regs` that are shown: the instruction, the stack pointer, the call's number.
pub(crate) const PT_REGS: [&str; 3] = ["pc", "sp", "syscallno"];

/// A page that the kernel shows every process, which is no memory of its own: there is none.
pub(crate) const VSYSCALL: std::ops::Range<u64> = 0..0;
