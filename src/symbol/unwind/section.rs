//! A part of an ELF file with the address that it has there.

use std::ops::Range;

/// A section of an image.
#[derive(Default)]
pub(super) struct Section {
    /// The address that the file gives it.
    pub(super) address: Range<u64>,
    pub(super) bytes: Vec<u8>,
}
