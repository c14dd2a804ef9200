//! The table by which Go's runtime names functions and lines: `.gopclntab`, which a stripped Go program has, too.
//!
//! No crate reads it. Its layout is that of `runtime/symtab.go` of Go 1.18 to 1.25 (`pcHeader`, `_func`, `pcvalue`); each offset in it is checked,
//! as anybody may have made the file.

use object::LittleEndian;
use object::elf::Rela64;
use object::pod::slice_from_bytes;
use object::read::elf::{Rela, SectionHeader};

use super::elf::{ENDIAN, Headers, Source};
use crate::evidence::Function;

/// Where it is: the second in position-independent programs.
const SECTIONS: [&[u8]; 2] = [b".gopclntab", b".data.rel.ro.gopclntab"];

/// How much of it is read. That of Kubernetes' largest program has 40 MiB.
const BYTES_MAX: u64 = 64 << 20;

/// How many bytes of relocations are read to find where the code begins.
const RELOCATIONS_BYTES_MAX: u64 = 32 << 20;

/// How long a name or a path may be.
const TEXT_BYTES_MAX: usize = 4096;

/// The first word, and how long the fixed part of a function's description is then: since Go 1.20 it has its first line.
const LAYOUTS: [(u32, usize); 2] = [(0xffff_fff0, 40), (0xffff_fff1, 44)];

/// An instruction's bytes are not aligned, and a pointer has 8: bytes 4 to 7 of the header.
const SHAPE: [u8; 4] = [0, 0, 1, 8];

/// The header: words from byte 8 on.
const COUNT: usize = 8;
const TEXT_START: usize = 24;
const NAMES: usize = 32;
const UNITS: usize = 40;
const FILES: usize = 48;
const VALUES: usize = 56;
const FUNCTIONS: usize = 64;

/// A function's description.
const NAME: usize = 4;
const FILE_VALUES: usize = 20;
const LINE_VALUES: usize = 24;
const TABLES: usize = 28;
const UNIT: usize = 32;

/// Which of a function's tables says where inlined functions are: PCDATA_InlTreeIndex.
const INLINED: usize = 2;

/// The table of one file.
pub(super) struct PcLineTable {
    bytes: Vec<u8>,
    /// The address of the first function.
    text: u64,
    count: usize,
    description_bytes: usize,
}

impl PcLineTable {
    /// `None` means that the file has none that is known.
    pub(super) fn read(source: &Source<'_>, headers: &Headers) -> Option<Self> {
        let section = SECTIONS.iter().find_map(|name| headers.section(name))?;
        let length = section.sh_size(ENDIAN);
        let bytes = (length <= BYTES_MAX).then(|| source.read(section.sh_offset(ENDIAN), length))??;
        let magic = word32(&bytes, 0)?;
        let (_, description_bytes) = *LAYOUTS.iter().find(|(known, _)| *known == magic)?;
        if bytes.get(4..8)? != SHAPE {
            return None;
        }
        let mut table = Self { text: 0, count: place(&bytes, COUNT)?, description_bytes, bytes };
        table.text = match word64(&table.bytes, TEXT_START)? {
            0 => relocated(source, headers, section.sh_addr(ENDIAN).checked_add(TEXT_START as u64)?)?,
            text => text,
        };
        // The last entry is the end of the last function.
        let entries = table.count.checked_mul(8)?.checked_add(4)?;
        let first = place(&table.bytes, FUNCTIONS)?;
        (table.bytes.len() >= first.checked_add(entries)?).then_some(table)
    }

    /// The function at an address that is `back` bytes before the wanted one. Of code that was inlined the table alone doesn't say whose line it
    /// is: that has none.
    pub(super) fn function(&self, address: u64, back: u64) -> Option<Function> {
        let at = u32::try_from(address.checked_sub(self.text)?).ok()?;
        let first = place(&self.bytes, FUNCTIONS)?;
        let entry = |number: usize| word32(&self.bytes, first + number * 8);
        let (mut low, mut high) = (0, self.count);
        while low < high {
            let middle = low.midpoint(high);
            if entry(middle)? <= at { low = middle + 1 } else { high = middle }
        }
        let number = low.checked_sub(1)?;
        let begin = entry(number)?;
        if at >= entry(number + 1)? {
            return None;
        }
        let description = first.checked_add(word32(&self.bytes, first + number * 8 + 4)? as usize)?;
        let field = |offset: usize| word32(&self.bytes, description.checked_add(offset)?);
        let name = self.text_at(NAMES, field(NAME)? as usize)?;
        let inside = at - begin;
        let value = |table: u32| self.value(table, inside);
        let is_inlined = field(TABLES)? as usize > INLINED
            && field(self.description_bytes + INLINED * 4)
                .filter(|&table| table != 0)
                .and_then(value)
                .is_some_and(|number| number >= 0);
        let line = || u32::try_from(value(field(LINE_VALUES)?)?).ok();
        let file = || self.file(field(UNIT)?, value(field(FILE_VALUES)?)?);
        let (file, line) = if is_inlined { (None, None) } else { (file(), line()) };
        let offset = Some(u64::from(inside) + back);
        Some(Function { name, offset, line: line.filter(|_| file.is_some()), file, inlined: false })
    }

    /// The path of a unit's file.
    fn file(&self, unit: u32, number: i32) -> Option<String> {
        let number = unit.checked_add(u32::try_from(number).ok()?)? as usize;
        let offset = word32(&self.bytes, place(&self.bytes, UNITS)?.checked_add(number.checked_mul(4)?)?)?;
        // No such file.
        (offset != u32::MAX).then(|| self.text_at(FILES, offset as usize)).flatten()
    }

    /// The value of a function's table for the code `inside` bytes behind its beginning: steps of the value and of the code, alternately.
    fn value(&self, table: u32, inside: u32) -> Option<i32> {
        let mut rest = self.bytes.get(place(&self.bytes, VALUES)?.checked_add(table as usize)?..)?;
        let (mut value, mut end, mut is_first) = (-1_i32, 0_u32, true);
        loop {
            let step = number(&mut rest)?;
            if step == 0 && !is_first {
                return None;
            }
            is_first = false;
            value = value.wrapping_add((step >> 1).cast_signed() ^ -(step & 1).cast_signed());
            end = end.checked_add(number(&mut rest)?)?;
            if inside < end {
                return Some(value);
            }
        }
    }

    /// The text at an offset from where a word of the header says that such texts begin.
    fn text_at(&self, begin: usize, offset: usize) -> Option<String> {
        let rest = self.bytes.get(place(&self.bytes, begin)?.checked_add(offset)?..)?;
        let end = rest.iter().take(TEXT_BYTES_MAX).position(|&byte| byte == 0).filter(|&end| end > 0)?;
        String::from_utf8(rest.get(..end)?.to_vec()).ok()
    }

    /// How much memory it takes.
    pub(super) fn bytes(&self) -> u64 {
        self.bytes.len() as u64
    }
}

fn word32(bytes: &[u8], at: usize) -> Option<u32> {
    bytes.get(at..)?.first_chunk().map(|word| u32::from_le_bytes(*word))
}

fn word64(bytes: &[u8], at: usize) -> Option<u64> {
    bytes.get(at..)?.first_chunk().map(|word| u64::from_le_bytes(*word))
}

/// A word of the header that is a place in the table.
fn place(bytes: &[u8], at: usize) -> Option<usize> {
    usize::try_from(word64(bytes, at)?).ok().filter(|&place| place <= bytes.len())
}

/// A number of seven bits a byte, the lowest first.
fn number(rest: &mut &[u8]) -> Option<u32> {
    let mut number = 0;
    for shift in (0..32).step_by(7) {
        let (&byte, after) = rest.split_first()?;
        *rest = after;
        number |= u32::from(byte & 0x7f) << shift;
        if byte & 0x80 == 0 {
            return Some(number);
        }
    }
    None
}

/// What the linker has left for the loader to write at this address.
fn relocated(source: &Source<'_>, headers: &Headers, address: u64) -> Option<u64> {
    let section = headers.section(b".rela.dyn").or_else(|| headers.section(b".rela"))?;
    let length = section.sh_size(ENDIAN);
    let bytes = (length <= RELOCATIONS_BYTES_MAX).then(|| source.read(section.sh_offset(ENDIAN), length))??;
    let count = bytes.len() / size_of::<Rela64<LittleEndian>>();
    let (relocations, _) = slice_from_bytes::<Rela64<LittleEndian>>(&bytes, count).ok()?;
    let found = relocations.iter().find(|relocation| relocation.r_offset(ENDIAN) == address)?;
    u64::try_from(found.r_addend(ENDIAN)).ok()
}
