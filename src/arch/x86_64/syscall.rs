//! System calls of x86-64, by symbol and by number.

/// The prefix of the kernel's symbol of a system call: arch/x86/include/asm/syscall_wrapper.h.
pub(crate) const PREFIX: &str = "__x64_sys_";

/// The same for the calls of 32-bit programs.
pub(crate) const COMPAT_PREFIX: &str = "__ia32_sys_";

/// The table of a system call's number, if a 64-bit program made the call: AUDIT_ARCH_X86_64, include/uapi/linux/audit.h.
pub(crate) const AUDIT_ARCH: u32 = 0xc000_003e;

/// The calls whose own failure the kernel may answer with SIGSEGV: rt_sigreturn(2), where the frame can't be read, and execve(2) and execveat(2),
/// where the old program is gone already: arch/x86/entry/syscalls/syscall_64.tbl.
pub(crate) const FATAL_IF_FAILED: [i32; 3] = [15, 59, 322];

/// The same of 32-bit programs, with sigreturn(2): syscall_32.tbl.
pub(crate) const COMPAT_FATAL_IF_FAILED: [i32; 4] = [119, 173, 11, 358];

/// Flags of mmap(2) that not every architecture has.
pub(crate) const MAP_FLAGS: [(u64, &str); 1] = [(libc::MAP_32BIT as u64, "MAP_32BIT")];

/// A system call begins with -ENOSYS in the register of its result, so that one program can tell its begin from its end: fl_is_begun().
pub(crate) const SHOWS_ITS_BEGIN: bool = true;

/// What C libraries call for readlink(3) instead of readlinkat(2): not every architecture has it.
pub(crate) const READLINK: [libc::c_long; 1] = [libc::SYS_readlink];

/// The members of the kernel's `struct pt_regs` that are shown: the instruction, the stack pointer, the call's number.
pub(crate) const PT_REGS: [&str; 3] = ["ip", "sp", "orig_ax"];

/// The page that the kernel shows every process at the end of its address space, which is no memory of its own:
/// VSYSCALL_ADDR, arch/x86/include/uapi/asm/vsyscall.h. It has 4096 bytes, whatever a page has.
pub(crate) const VSYSCALL: std::ops::Range<u64> = 0xffff_ffff_ff60_0000..0xffff_ffff_ff60_1000;
