//! Names of functions from a symbol table that is too large to be copied: where the functions are is kept, and a name is read from the file
//! when it is asked for.

use std::fs::File;

use object::LittleEndian;
use object::elf::{STT_FUNC, STT_GNU_IFUNC, Sym64};
use object::pod::slice_from_bytes;
use object::read::elf::{SectionHeader, Sym};

use super::demangle::demangle;
use super::elf::{ENDIAN, Headers, Source};
use super::file::MappedFile;
use crate::evidence::Function;

/// How many functions are kept of one file: 64 MiB. A browser with all of its symbols has some 800,000.
const FUNCTIONS_MAX: usize = 4 << 20;

/// How much of a symbol table is read: it has more than functions.
const TABLE_BYTES_MAX: u64 = 1 << 30;

/// How much of it is read at once.
const PIECE_BYTES: u64 = 1 << 20;

/// How long a name may be.
const NAME_BYTES_MAX: u64 = 4096;

/// The functions of a file, by address.
pub(super) struct Index {
    places: Vec<Place>,
    /// Where the names are in the file.
    names: std::ops::Range<u64>,
    /// The file, where it is in a folder of debug files. `None` means that it is the file that ran, which nobody keeps open.
    file: Option<File>,
}

/// Where a function is.
#[derive(Clone, Copy)]
struct Place {
    start: u64,
    bytes: u32,
    /// Where its name begins among all names.
    name: u32,
}

impl Index {
    /// `None` means that the file has no symbol table of 64 bits, that it can't be read, or that it is larger than the bounds. `is_own`: it is the file
    /// that ran.
    pub(super) fn read(file: &File, headers: &Headers, is_own: bool) -> Option<Self> {
        let table = headers.section(b".symtab").filter(|_| !headers.is_compat)?;
        let names = headers.section(b".strtab")?;
        let (mut offset, bytes) = (table.sh_offset(ENDIAN), table.sh_size(ENDIAN));
        let end = offset.checked_add(bytes).filter(|_| bytes <= TABLE_BYTES_MAX)?;
        let mut places = Vec::new();
        while offset < end {
            let length = PIECE_BYTES.min(end - offset) / ENTRY_BYTES * ENTRY_BYTES;
            if length == 0 {
                break;
            }
            let piece = Source::File(file).read(offset, length)?;
            let count = piece.len() / ENTRY_BYTES as usize;
            let (symbols, _) = slice_from_bytes::<Sym64<LittleEndian>>(&piece, count).ok()?;
            places.extend(symbols.iter().filter_map(Place::of));
            if places.len() > FUNCTIONS_MAX {
                return None;
            }
            offset += length;
        }
        // If a place has several names, the first is taken, as the symbolizer does.
        places.sort_by_key(|place: &Place| place.start);
        places.shrink_to_fit();
        let names_at = names.sh_offset(ENDIAN);
        let names = names_at..names_at.checked_add(names.sh_size(ENDIAN))?;
        let file = if is_own { None } else { Some(file.try_clone().ok()?) };
        (!places.is_empty()).then_some(Self { places, names, file })
    }

    /// The function at an address that is `back` bytes before the wanted one. `found`: the file that ran.
    pub(super) fn function(&self, address: u64, back: u64, found: &MappedFile) -> Option<Function> {
        let file = self.file.as_ref().or(found.file.as_deref())?;
        let behind = self.places.partition_point(|place| place.start <= address);
        let nearest = self.places.get(behind.checked_sub(1)?)?.start;
        let first = self.places.partition_point(|place| place.start < nearest);
        let covers = |place: &&Place| address - place.start < u64::from(place.bytes);
        let place = self.places.get(first..behind)?.iter().find(covers)?;
        let name = self.name(file, *place)?;
        // The file may have been written to while it was read.
        if self.file.is_none() && !found.version.is_of(file) {
            return None;
        }
        let offset = address.checked_sub(place.start)?.checked_add(back);
        Some(Function { name: demangle(&name), offset, file: None, line: None, inlined: false })
    }

    fn name(&self, file: &File, place: Place) -> Option<String> {
        let start = self.names.start.checked_add(place.name.into()).filter(|start| *start < self.names.end)?;
        let bytes = Source::File(file).read(start, NAME_BYTES_MAX.min(self.names.end - start))?;
        // One that doesn't end is too long, or was cut.
        let end = bytes.iter().position(|&byte| byte == 0).filter(|&end| end > 0)?;
        String::from_utf8(bytes.get(..end)?.to_vec()).ok()
    }

    /// How much memory it takes.
    pub(super) fn bytes(&self) -> u64 {
        size_of_val(&*self.places) as u64
    }
}

const ENTRY_BYTES: u64 = size_of::<Sym64<LittleEndian>>() as u64;

impl Place {
    /// `None` means that the symbol is no function with a size.
    fn of(symbol: &Sym64<LittleEndian>) -> Option<Self> {
        let is_function = matches!(symbol.st_type(), STT_FUNC | STT_GNU_IFUNC) && !symbol.is_undefined(ENDIAN);
        let bytes = u32::try_from(symbol.st_size(ENDIAN)).ok().filter(|&bytes| bytes > 0 && is_function)?;
        Some(Self { start: symbol.st_value(ENDIAN), bytes, name: symbol.st_name(ENDIAN) })
    }
}
