//! The facts of the architecture that the tests run on. Everything else is the same on each, and so are the snapshots, which are x86_64's.
#![allow(dead_code)] // other packages of tests include this file and use a part

use std::path::Path;

use serde_json::{Value, json};

#[cfg(target_arch = "aarch64")]
mod facts {
    /// What begins a column of docs/kernels.md.
    pub(crate) const KERNELS: &str = "arm64/";
    /// Programs that say that they are for this one alone are not built.
    pub(crate) const ELSEWHERE: &str = "x86_64";
    /// What a system call's function begins with.
    pub(crate) const SYSTEM_CALL: &str = "__arm64_sys_";
    /// A function below which every system call is.
    pub(crate) const ENTRY: &str = "el0_svc";
    pub(crate) const INSTRUCTION_POINTER: &str = "pc";
    pub(crate) const STACK_POINTER: &str = "sp";
    /// The register that a compiler calls a pointer by, and another one that a function keeps for its caller.
    pub(crate) const CALLED: &str = "x0";
    pub(crate) const KEPT: &str = "x19";
    /// What is said of a call through a pointer in memory, which is in a register first; where such a call has led to a tail call; and of a return
    /// to what the function has put there itself.
    pub(crate) const BY_SLOT: &str = "jumps to NULL: a function pointer is 0 (x9 is 0); the caller is the next frame";
    pub(crate) const TAIL_BY_SLOT: &str = "jumps to NULL by a tail call in dispatch, which the next frame called";
    pub(crate) const PUSHED: (&str, &str) = ("likely", "returns to 0x123456789000, where nothing is mapped");
    /// A function that raise(3) comes to, which no other contains, and the name that it has for the task.
    pub(crate) const SENDS: (&str, &str) = ("send_signal_locked", "t");
    /// Programs can be attached to the begin of functions, without a breakpoint, from 6.4 on.
    pub(crate) const HAS_NO_FENTRY: &[&str] = &["5.10", "6.1"];
    /// Nor to the begin of many at once, from 6.14 on.
    pub(crate) const HAS_NO_KPROBE_MULTI: &[&str] = &["5.10", "6.1", "6.12"];
    /// The kernel has tracepoints of page faults, which know the cause.
    pub(crate) const HAS_PAGE_FAULT_TRACEPOINTS: bool = false;
    /// Page faults and mapping calls are watched by kprobes, where no way is asked for.
    pub(crate) const WATCHES_BY_KPROBES: bool = true;
    /// No memory has a protection key: the processor's came with 6.12.
    pub(crate) const HAS_NO_PROTECTION_KEYS: &[&str] = &["5.10", "6.1"];
    /// A 64-bit program can make a call of 32-bit programs.
    pub(crate) const HAS_MIXED_CALLS: bool = false;
    /// Where a thread gets a signal, the kernel has forgotten in which call it was.
    pub(crate) const FORGETS_CALLS: bool = true;

    /// mov w0, NUMBER; ret
    pub(crate) fn code(number: i32) -> Vec<u8> {
        let words = [0x5280_0000 | number.cast_unsigned() << 5, 0xd65f_03c0];
        words.iter().flat_map(|word| word.to_le_bytes()).collect()
    }
}

#[cfg(target_arch = "x86_64")]
mod facts {
    pub(crate) const KERNELS: &str = "";
    pub(crate) const ELSEWHERE: &str = "arm64";
    pub(crate) const SYSTEM_CALL: &str = "__x64_sys_";
    pub(crate) const ENTRY: &str = "do_syscall_64";
    pub(crate) const INSTRUCTION_POINTER: &str = "rip";
    pub(crate) const STACK_POINTER: &str = "rsp";
    pub(crate) const CALLED: &str = "rax";
    pub(crate) const KEPT: &str = "rbx";
    pub(crate) const BY_SLOT: &str = "jumps to NULL: a function pointer is 0 (the pointer at 0x";
    pub(crate) const TAIL_BY_SLOT: &str = "jumps to NULL by a tail call in what the next frame called";
    pub(crate) const PUSHED: (&str, &str) =
        ("certain", "a broken function pointer or return address, or unloaded code");
    pub(crate) const SENDS: (&str, &str) = ("do_send_sig_info", "p");
    pub(crate) const HAS_NO_FENTRY: &[&str] = &[];
    /// v5.18; Debian's 6.1 is built without.
    pub(crate) const HAS_NO_KPROBE_MULTI: &[&str] = &["5.10", "6.1"];
    pub(crate) const HAS_PAGE_FAULT_TRACEPOINTS: bool = true;
    pub(crate) const WATCHES_BY_KPROBES: bool = false;
    pub(crate) const HAS_NO_PROTECTION_KEYS: &[&str] = &[];
    pub(crate) const HAS_MIXED_CALLS: bool = true;
    pub(crate) const FORGETS_CALLS: bool = false;

    /// mov eax, NUMBER; ret
    pub(crate) fn code(number: i32) -> Vec<u8> {
        [&[0xb8], &number.to_le_bytes()[..], &[0xc3]].concat()
    }
}

pub(crate) use facts::*;

/// The header of a program says what is different on this architecture, by this word. None on x86_64.
pub(crate) const DIFFERENT: Option<&str> = if cfg!(target_arch = "aarch64") { Some(" * on arm64") } else { None };

/// The snapshot of a program's record: there is one of arm64 where that shows.
pub(crate) fn snapshot(program: &str) -> String {
    let own = format!("{program}-{}", std::env::consts::ARCH);
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join(format!("tests/snapshots/{own}.snap"));
    if path.exists() { own } else { program.to_owned() }
}

/// AUDIT_ARCH_AARCH64, include/uapi/linux/audit.h
const AUDIT: u32 = 0xc000_00b7;

/// Bytes of a page.
pub(crate) fn page_size() -> u64 {
    // SAFETY: it takes a number and touches no memory.
    u64::try_from(unsafe { libc::sysconf(libc::_SC_PAGESIZE) }).unwrap()
}

/// The names of x86_64's registers, as in the snapshots.
const REGISTERS: &[&str] = &[
    "cs", "eflags", "r10", "r11", "r12", "r13", "r14", "r15", "r8", "r9", "rax", "rbp", "rbx", "rcx", "rdi", "rdx",
    "rip", "rsi", "rsp", "ss",
];

/// Is this fact that a program's header says one of x86_64's alone?
pub(crate) fn is_elsewhere(field: &str) -> bool {
    cfg!(not(target_arch = "x86_64")) && field.starts_with("registers.")
}

/// Where a segment begins in a program's file: the linker aligns it for the largest pages, which have 64 KiB on arm64.
pub(crate) fn offset_on_x86_64(offset: &Value) -> Value {
    if cfg!(target_arch = "x86_64") {
        return offset.clone();
    }
    let number = u64::from_str_radix(offset.as_str().unwrap().strip_prefix("0x").unwrap(), 16).unwrap();
    format!("{:#x}", (number >> 16) << 12).into()
}

/// The record with the names and numbers of x86_64: of its registers, all of which must be there, of what a page fault's syndrome says, and of
/// the one system call that seccomp refuses.
pub(crate) fn as_on_x86_64(record: &Value) -> Value {
    let mut record = record.clone();
    if cfg!(target_arch = "aarch64") {
        let general = (0..31).map(|number| format!("x{number}"));
        let mut all: Vec<String> = general.chain(["sp", "pc", "pstate"].map(str::to_owned)).collect();
        all.sort();
        if let Some(registers) = record["registers"].as_object() {
            let mut names: Vec<String> = registers.keys().cloned().collect();
            names.sort();
            assert_eq!(names, all, "the registers of arm64");
            let names = REGISTERS.iter().map(|&name| (name.to_owned(), "[of another architecture]".into()));
            record["registers"] = Value::Object(names.collect());
        }
        if let Some(syndrome) = record["page_fault"]["error_code"].as_u64() {
            record["page_fault"] = page_fault(&record["page_fault"], syndrome);
        }
        if record["seccomp"].is_object() {
            assert_eq!(
                (&record["seccomp"]["syscall"], &record["seccomp"]["arch"]),
                (&libc::SYS_getppid.into(), &AUDIT.into())
            );
            record["seccomp"]["syscall"] = 110.into();
            record["seccomp"]["arch"] = 0xc000_003e_u32.into();
        }
    }
    record
}

/// ESR_EL1 of arm64 as the error code of x86_64: by the class of the abort, its status, and WnR.
fn page_fault(seen: &Value, syndrome: u64) -> Value {
    let (class, status, is_write) = (syndrome >> 26, syndrome & 0x3c, syndrome >> 6 & 1);
    let is_execute = match class {
        0x20 => true,
        0x24 => false,
        _ => panic!("no abort of user mode: {syndrome:#x}"),
    };
    let is_protection = match status {
        0x04 => false,
        0x0c => true,
        _ => panic!("neither translation nor permission: {syndrome:#x}"),
    };
    let named = [
        (is_protection, "protection", "permission", 1),
        (!is_execute && is_write != 0, "write", "write", 2),
        (true, "user", "user", 4),
        (is_execute, "instruction", "instruction", 16),
    ];
    let code: u64 = named.iter().filter(|(is_so, ..)| *is_so).map(|(.., bit)| bit).sum();
    let flags: Vec<&str> = named.iter().filter(|(is_so, ..)| *is_so).map(|(_, name, ..)| *name).collect();
    let own = named.iter().filter(|(is_so, ..)| *is_so).map(|(_, _, own, _)| *own);
    let own: Vec<&str> = (!is_protection).then_some("translation").into_iter().chain(own).collect();
    assert_eq!(seen["flags"], json!(own), "{syndrome:#x}");
    json!({ "error_code": code, "access": seen["access"], "flags": flags })
}
