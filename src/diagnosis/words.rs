//! The parts that the sentences share.

use crate::evidence::{Access, Backing, Evidence, Region};
use crate::hex::Hex;

/// An address or a register's value.
pub(super) fn hex(value: u64) -> Hex {
    Hex(value)
}

/// A size: `8.0 MiB`, `128 KiB`.
pub(super) fn size(bytes: u64) -> String {
    const KIB: u64 = 1 << 10;
    const MIB: u64 = 1 << 20;
    match bytes {
        MIB.. => format!("{:.1} MiB", bytes as f64 / MIB as f64),
        KIB.. => format!("{} KiB", bytes / KIB),
        _ => format!("{bytes} bytes"),
    }
}

/// A mapping's kind and permissions.
pub(super) fn region(region: &Region) -> String {
    let what = match &region.backing {
        Backing::Anonymous => "anonymous memory".to_owned(),
        Backing::File(file) => file.name().unwrap_or_else(|| "a file".to_owned()),
        Backing::MainStack => "the main thread's stack".to_owned(),
        Backing::Heap => "the heap".to_owned(),
        Backing::Vdso => "the kernel's own page".to_owned(),
        Backing::Named(name) => name.clone(),
    };
    format!("{what}, {}", region.permissions)
}

/// The kind of access, as the beginning of a sentence.
pub(super) fn verb(evidence: &Evidence) -> &'static str {
    match evidence.access() {
        Access::Read => "reads",
        Access::Write => "writes",
        Access::Execute => "executes",
    }
}
