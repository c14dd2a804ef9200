//! What Go's runtime knows of a program besides `.gopclntab`, also of a stripped one: where the code begins, which Go 1.26 no longer has there, and
//! which calls were inlined (`moduledata` and `inlinedCall` of `runtime/symtab.go`).
//!
//! No pointer leads from `.gopclntab` to `moduledata`: it is found by its first word, which points there, and believed only if it has the
//! address of the code, too. Its layout was held against programs of Go 1.19 and 1.26 on 2026-11-30.

use std::ops::Range;

use object::LittleEndian;
use object::elf::Rela64;
use object::pod::slice_from_bytes;
use object::read::elf::{Rela, SectionHeader};

use super::elf::{ENDIAN, Headers, Segment, Source};

/// Where `moduledata` is: the second since Go 1.26.
const SECTIONS: [&[u8]; 2] = [b".noptrdata", b".go.module"];

/// How much of such a section is read.
const DATA_BYTES_MAX: u64 = 16 << 20;

/// How many bytes of relocations are read.
const RELOCATIONS_BYTES_MAX: u64 = 32 << 20;

/// How much of the tables of inlined calls is kept.
const CALLS_BYTES_MAX: u64 = 32 << 20;

/// `moduledata.text`, bytes.
const TEXT: u64 = 176;

/// How things lie in a version of Go.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Layout {
    /// `moduledata.gofunc`
    pub(super) gofunc: u64,
    /// An `inlinedCall`, and in it the function's name and the place of the call.
    pub(super) call_bytes: usize,
    pub(super) name: usize,
    pub(super) parent: usize,
}

/// What `moduledata` says.
pub(super) struct Module {
    /// Where the code begins.
    pub(super) text: u64,
    /// Where the tables of inlined calls are, among others.
    gofunc: u64,
}

impl Module {
    /// `table`: the address of the table of functions. `text`: that of the code, if it is known.
    pub(super) fn find(
        source: &Source<'_>,
        headers: &Headers,
        layout: Layout,
        table: u64,
        text: Option<u64>,
    ) -> Option<Self> {
        let data = Words::read(source, headers)?;
        let end = data.address.checked_add(data.bytes.len() as u64)?;
        let (code, loaded) = (headers.code(), headers.loaded());
        let is_in = |segments: &[Segment], address: u64| segments.iter().any(|each| each.address.contains(&address));
        let module = |at: u64| {
            let begin = data.at(at.checked_add(TEXT)?).filter(|&begin| text.unwrap_or(begin) == begin)?;
            let module = Self { text: begin, gofunc: data.at(at.checked_add(layout.gofunc)?)? };
            (is_in(&code, begin) && is_in(&loaded, module.gofunc)).then_some(module)
        };
        let mut words = (data.address.checked_next_multiple_of(8)?..end).step_by(8);
        words.find_map(|at| (data.at(at) == Some(table)).then(|| module(at)).flatten())
    }
}

/// The tables of inlined calls of all functions.
pub(super) struct InlinedCalls {
    layout: Layout,
    /// Their offsets from `moduledata.gofunc`, as far as they are kept.
    range: Range<u64>,
    bytes: Vec<u8>,
}

/// A call that was inlined.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct InlinedCall {
    /// Where the function's name is among all names.
    pub(super) name: u32,
    /// Behind the beginning of the function that it is part of: an instruction that belongs to the place of the call.
    pub(super) parent: u32,
}

impl InlinedCalls {
    /// `range`: from which offset to which the functions' tables begin.
    pub(super) fn read(
        source: &Source<'_>,
        headers: &Headers,
        layout: Layout,
        module: &Module,
        range: Range<u64>,
    ) -> Option<Self> {
        let (start, end) = (module.gofunc.checked_add(range.start)?, module.gofunc.checked_add(range.end)?);
        // The last one may be as long as what follows.
        let wanted = end.checked_add(u64::from(u16::MAX))?.checked_sub(start)?;
        let segment = headers.loaded().into_iter().find(|segment| segment.address.contains(&start))?;
        let offset = segment.offset.start.checked_add(start - segment.address.start)?;
        let length = wanted.min(segment.offset.end.checked_sub(offset)?);
        if length > CALLS_BYTES_MAX {
            return None;
        }
        let bytes = source.read(offset, length)?;
        Some(Self { layout, range: range.start..range.start.checked_add(length)?, bytes })
    }

    /// The call of this number in the table at an offset from `moduledata.gofunc`.
    pub(super) fn get(&self, table: u64, number: u32) -> Option<InlinedCall> {
        let begin = usize::try_from(table.checked_sub(self.range.start)?).ok()?;
        let at = begin.checked_add((number as usize).checked_mul(self.layout.call_bytes)?)?;
        let word = |offset: usize| {
            let bytes = self.bytes.get(at.checked_add(offset)?..)?;
            bytes.first_chunk().map(|word| u32::from_le_bytes(*word))
        };
        Some(InlinedCall { name: word(self.layout.name)?, parent: word(self.layout.parent)? })
    }

    /// How much memory it takes.
    pub(super) fn bytes(&self) -> u64 {
        self.bytes.len() as u64
    }
}

/// Words of the data, as the program sees them.
struct Words {
    address: u64,
    bytes: Vec<u8>,
    /// What the loader writes: where, and what. Sorted. Empty: what is in the file is what the program sees.
    written: Vec<(u64, u64)>,
}

impl Words {
    fn read(source: &Source<'_>, headers: &Headers) -> Option<Self> {
        let section = SECTIONS.iter().filter_map(|name| headers.section(name)).next_back()?;
        let length = section.sh_size(ENDIAN);
        let bytes = (length <= DATA_BYTES_MAX).then(|| source.read(section.sh_offset(ENDIAN), length))??;
        let address = section.sh_addr(ENDIAN);
        Some(Self { address, bytes, written: written(source, headers, address..address.checked_add(length)?) })
    }

    fn at(&self, address: u64) -> Option<u64> {
        if let Ok(found) = self.written.binary_search_by_key(&address, |(at, _)| *at) {
            return self.written.get(found).map(|(_, value)| *value);
        }
        let offset = usize::try_from(address.checked_sub(self.address)?).ok()?;
        self.bytes.get(offset..)?.first_chunk().map(|word| u64::from_le_bytes(*word))
    }
}

/// What the loader writes into these addresses.
fn written(source: &Source<'_>, headers: &Headers, into: Range<u64>) -> Vec<(u64, u64)> {
    let read = || {
        let section = headers.section(b".rela.dyn").or_else(|| headers.section(b".rela"))?;
        let length = section.sh_size(ENDIAN);
        let bytes = (length <= RELOCATIONS_BYTES_MAX).then(|| source.read(section.sh_offset(ENDIAN), length))??;
        let count = bytes.len() / size_of::<Rela64<LittleEndian>>();
        let (all, _) = slice_from_bytes::<Rela64<LittleEndian>>(&bytes, count).ok()?;
        let inside = all.iter().filter(|each| into.contains(&each.r_offset(ENDIAN)));
        let mut written: Vec<(u64, u64)> =
            inside.map(|each| (each.r_offset(ENDIAN), each.r_addend(ENDIAN).cast_unsigned())).collect();
        written.sort_unstable();
        Some(written)
    };
    read().unwrap_or_default()
}
