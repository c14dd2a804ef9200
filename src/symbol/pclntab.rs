//! The table with which Go's runtime names functions and lines: `.gopclntab`, which a stripped Go program has, too.
//!
//! No crate reads it. Its layout is that of `runtime/symtab.go` of Go 1.18 to 1.26 (`pcHeader`, `_func`, `pcvalue`); each offset in it is checked,
//! as anybody may have made the file.

use std::ops::Range;

use object::LittleEndian;
use object::elf::Rela64;
use object::pod::slice_from_bytes;
use object::read::elf::{Rela, SectionHeader};

use super::elf::{ENDIAN, Headers, Source};
use super::go_module::{InlinedCalls, Layout, Module};
use crate::evidence::Function;

/// Where it is: the second in position-independent programs.
pub(super) const SECTIONS: [&[u8]; 2] = [b".gopclntab", b".data.rel.ro.gopclntab"];

/// How much of it is read. That of Kubernetes' largest program has 40 MiB.
const BYTES_MAX: u64 = 64 << 20;

/// How many bytes of relocations are read to find where the code begins.
const RELOCATIONS_BYTES_MAX: u64 = 32 << 20;

/// How long a name or a path may be.
const TEXT_BYTES_MAX: usize = 4096;

/// The first word, how long the fixed part of a function's description is then (since Go 1.20 it has its first line), and where inlined calls
/// are.
const LAYOUTS: [(u32, usize, Layout); 2] = [
    (0xffff_fff0, 40, Layout { gofunc: 304, call_bytes: 20, name: 12, parent: 16 }),
    (0xffff_fff1, 44, Layout { gofunc: 320, call_bytes: 16, name: 4, parent: 8 }),
];

/// No more calls are inlined into one another, unless somebody made it so.
const INLINED_MAX: usize = 64;

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

/// Which of a function's tables says which inlined call an instruction is of: PCDATA_InlTreeIndex.
const INLINED: usize = 2;

/// Which of its data is the table of these calls: FUNCDATA_InlTree.
const CALLS: usize = 3;

/// The table of one file.
pub(super) struct PcLineTable {
    bytes: Vec<u8>,
    /// The address of the first function.
    text: u64,
    count: usize,
    description_bytes: usize,
    /// `None` means that they are not found.
    calls: Option<InlinedCalls>,
}

/// A file and a line in it.
type Line = (String, u32);

/// A function of the table.
#[derive(Clone, Copy)]
struct Entry {
    /// Where its description is in the table.
    description: usize,
    /// From the beginning of all code.
    begin: u32,
    end: u32,
}

impl PcLineTable {
    /// `None` means that the file has none that is known.
    pub(super) fn read(source: &Source<'_>, headers: &Headers) -> Option<Self> {
        let section = SECTIONS.iter().find_map(|name| headers.section(name))?;
        let length = section.sh_size(ENDIAN);
        let bytes = (length <= BYTES_MAX).then(|| source.read(section.sh_offset(ENDIAN), length))??;
        let magic = word32(&bytes, 0)?;
        let (_, description_bytes, layout) = *LAYOUTS.iter().find(|(known, ..)| *known == magic)?;
        if bytes.get(4..8)? != SHAPE {
            return None;
        }
        let mut table = Self { text: 0, count: place(&bytes, COUNT)?, description_bytes, bytes, calls: None };
        let known = match word64(&table.bytes, TEXT_START)? {
            0 => relocated(source, headers, section.sh_addr(ENDIAN).checked_add(TEXT_START as u64)?),
            text => Some(text),
        };
        let module = Module::find(source, headers, layout, section.sh_addr(ENDIAN), known);
        table.text = known.or_else(|| Some(module.as_ref()?.text))?;
        // The last entry is the end of the last function.
        let entries = table.count.checked_mul(8)?.checked_add(4)?;
        let first = place(&table.bytes, FUNCTIONS)?;
        if table.bytes.len() < first.checked_add(entries)? {
            return None;
        }
        let range = module.is_some().then(|| table.calls_range()).flatten();
        table.calls =
            module.zip(range).and_then(|(module, range)| InlinedCalls::read(source, headers, layout, &module, range));
        Some(table)
    }

    /// The functions at an address that is `back` bytes before the wanted one, innermost first. Of code that was inlined the table alone
    /// doesn't say whose line it is: that has none where the inlined calls are not found.
    pub(super) fn functions(&self, address: u64, back: u64) -> Vec<Function> {
        let whole = || {
            let at = u32::try_from(address.checked_sub(self.text)?).ok()?;
            let entry = self.entry_at(at)?;
            let name = self.text_at(NAMES, self.field(entry, NAME)? as usize)?;
            Some((entry, at - entry.begin, name))
        };
        let Some((entry, inside, name)) = whole() else { return Vec::new() };
        let (mut functions, line) = self.inlined(entry, inside).unwrap_or_default();
        let (file, line) = line.unzip();
        functions.push(Function { name, offset: Some(u64::from(inside) + back), file, line, inlined: false });
        functions
    }

    /// The calls that are inlined at an instruction, innermost first, and the file and line of the function that they are part of. `None` means
    /// that they are not known.
    fn inlined(&self, entry: Entry, inside: u32) -> Option<(Vec<Function>, Option<Line>)> {
        let (mut functions, mut at) = (Vec::new(), inside);
        while functions.len() < INLINED_MAX {
            let line = self.line(entry, at);
            let Some(number) = self.call_number(entry, at) else { return Some((functions, line)) };
            let call = self.calls.as_ref()?.get(self.calls_of(entry)?, number)?;
            if call.parent >= entry.end - entry.begin {
                return None;
            }
            let (name, (file, line)) = (self.text_at(NAMES, call.name as usize)?, line.unzip());
            functions.push(Function { name, offset: None, file, line, inlined: true });
            at = call.parent;
        }
        None
    }

    /// The entry of the function at a place in the code.
    fn entry_at(&self, at: u32) -> Option<Entry> {
        let first = place(&self.bytes, FUNCTIONS)?;
        let begin = |number: usize| word32(&self.bytes, first + number * 8);
        let (mut low, mut high) = (0, self.count);
        while low < high {
            let middle = low.midpoint(high);
            if begin(middle)? <= at { low = middle + 1 } else { high = middle }
        }
        self.entry(low.checked_sub(1)?).filter(|entry| at < entry.end)
    }

    fn entry(&self, number: usize) -> Option<Entry> {
        let first = place(&self.bytes, FUNCTIONS)?;
        let word = |at: usize| word32(&self.bytes, first.checked_add(at)?);
        let description = first.checked_add(word(number * 8 + 4)? as usize)?;
        let (begin, end) = (word(number * 8)?, word(number * 8 + 8)?);
        (begin <= end).then_some(Entry { description, begin, end })
    }

    fn field(&self, entry: Entry, offset: usize) -> Option<u32> {
        word32(&self.bytes, entry.description.checked_add(offset)?)
    }

    /// The file and line of an instruction.
    fn line(&self, entry: Entry, inside: u32) -> Option<Line> {
        let line = u32::try_from(self.value(self.field(entry, LINE_VALUES)?, inside)?).ok()?;
        let file = self.value(self.field(entry, FILE_VALUES)?, inside)?;
        Some((self.file(self.field(entry, UNIT)?, file)?, line))
    }

    /// Which of the function's inlined calls an instruction is of. `None` means of none.
    fn call_number(&self, entry: Entry, inside: u32) -> Option<u32> {
        if self.field(entry, TABLES)? as usize <= INLINED {
            return None;
        }
        let table = self.field(entry, self.description_bytes + INLINED * 4).filter(|&table| table != 0)?;
        u32::try_from(self.value(table, inside)?).ok()
    }

    /// Where the function's inlined calls are, from where all of them are. `None` means that it has none.
    fn calls_of(&self, entry: Entry) -> Option<u64> {
        let count = *self.bytes.get(entry.description.checked_add(self.description_bytes)?.checked_sub(1)?)?;
        if usize::from(count) <= CALLS {
            return None;
        }
        let tables = (self.field(entry, TABLES)? as usize).checked_mul(4)?;
        let offset = self.field(entry, self.description_bytes.checked_add(tables)?.checked_add(CALLS * 4)?)?;
        (offset != u32::MAX).then_some(u64::from(offset))
    }

    /// From which offset to which the tables of inlined calls begin. `None` means that there are none.
    fn calls_range(&self) -> Option<Range<u64>> {
        let all = (0..self.count).filter_map(|number| self.calls_of(self.entry(number)?));
        let (low, high) = all.fold((u64::MAX, 0), |(low, high), offset| (low.min(offset), high.max(offset)));
        (low <= high).then_some(low..high)
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
        self.bytes.len() as u64 + self.calls.as_ref().map_or(0, InlinedCalls::bytes)
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
