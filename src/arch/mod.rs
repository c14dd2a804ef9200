//! All that depends on the architecture in user space. The kernel half is `bpf/include/arch_*.h`.
//!
//! Another architecture is another folder with the same names. Nothing outside of this module names a register, a trap or a symbol's prefix
//! of an architecture. docs/development.md lists the files.

// Also compiled for tests on other machines: it decodes the same everywhere.
#[cfg(any(target_arch = "aarch64", test))]
#[cfg_attr(not(target_arch = "aarch64"), allow(dead_code, unused_imports, unused_macros, reason = "tests use a part"))]
mod aarch64;
mod instruction;
#[cfg(target_arch = "x86_64")]
mod x86_64;

pub(crate) use instruction::{
    Arrival, Call, CalledPointer, Division, Jump, Operand, Refusal, StackTop, Touch, TrapKind,
};

#[cfg(target_arch = "aarch64")]
pub(crate) use aarch64::*;
#[cfg(target_arch = "x86_64")]
pub(crate) use x86_64::*;

#[cfg(not(any(target_arch = "aarch64", target_arch = "x86_64")))]
compile_error!("faultline knows no such architecture: src/arch/ has a folder for each that it knows");
