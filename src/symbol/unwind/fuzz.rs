//! A stack and the information to unwind it, from any bytes.

use std::path::Path;
use std::sync::Arc;

use super::image::Sections;
use super::section::Section;
use super::{CodeRegion, Image, Machine, MappedFile, Registers, StackCopy, Unwinder};
use crate::arch::unwind::COUNT;
use crate::symbol::elf::Segment;

/// The place of the code that the information is about.
const CODE: std::ops::Range<u64> = 0x1000..0x10_0000;

/// Addresses of the sections.
const EH_FRAME: u64 = 0x20_0000;
const EH_FRAME_HDR: u64 = 0x30_0000;

/// Takes `count` bytes off the front, zeros where there are fewer.
fn take(data: &mut &[u8], count: usize) -> Vec<u8> {
    let (taken, rest) = data.split_at(count.min(data.len()));
    *data = rest;
    let mut taken = taken.to_vec();
    taken.resize(count, 0);
    taken
}

fn number(data: &mut &[u8]) -> usize {
    let bytes = take(data, 2);
    usize::from(bytes[0]) | usize::from(bytes[1]) << 8
}

/// The registers, 8 bytes each, the length of the stack and of `.eh_frame_hdr`, both of 2 bytes, then these two, then `.eh_frame`, which
/// is `.debug_frame` as well.
pub fn unwind(mut data: &[u8]) {
    let registers: [u64; COUNT] =
        std::array::from_fn(|_| u64::from_le_bytes(take(&mut data, 8).try_into().unwrap_or_default()));
    let (stack_bytes, header_bytes) = (number(&mut data), number(&mut data));
    let stack_bytes = stack_bytes.min(data.len());
    let stack = take(&mut data, stack_bytes);
    let header_bytes = header_bytes.min(data.len());
    let header = take(&mut data, header_bytes);
    let section =
        |address: u64, bytes: &[u8]| Section { address: address..address + bytes.len() as u64, bytes: bytes.to_vec() };
    let mut sections = Sections {
        machine: Machine::Native,
        eh_frame: section(EH_FRAME, data),
        exceptions: None,
        eh_frame_hdr: (!header.is_empty()).then(|| section(EH_FRAME_HDR, &header)),
        debug_frame: data.to_vec(),
        debug_index: Vec::new(),
        index: Vec::new(),
        text: Some(CODE),
        got: None,
        code: vec![Segment { offset: CODE, address: CODE }],
    };
    if sections.eh_frame_hdr.is_none() {
        sections.index = sections.index();
    }
    sections.debug_index = super::image::index(&sections.debug_frame(), &sections.bases());
    // The file doesn't matter: it has been read.
    let Some(found) = MappedFile::at(Path::new("/proc/self/exe")) else { return };
    let mut unwinder = Unwinder::default();
    unwinder.read.insert(found.version, Some(Arc::new(sections)));
    let mapping = CodeRegion { start: CODE.start, end: CODE.end, file_offset: CODE.start, image: Image::File(&found) };
    let jit = CodeRegion { start: 0x7f00_0000_0000, end: 0x7f00_0010_0000, file_offset: 0, image: Image::Unknown };
    let registers = Registers::new(registers);
    let stack = StackCopy::new(vec![(registers.sp(), stack)]);
    let unwound = unwinder.unwind(registers, &stack, &[mapping, jit], 64);
    assert!(unwound.frames.len() <= 64 && !unwound.frames.is_empty());
}
