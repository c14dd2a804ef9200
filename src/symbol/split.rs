//! Split DWARF: the compiler has left what it knows of functions in a file beside each object (.dwo), or all of it was packed into one file
//! beside the program (.dwp). The program's own symbols and lines name a function; these files say what is inlined into it. So does what several
//! files share of their debug information (dwz), where the symbolizer knows nothing of that.
//!
//! Each of them is believed only if it has the id that the program has for it. What is read is bounded, and checked as the program's own
//! debug information is.

use std::fs::File;
use std::sync::Arc;

use addr2line::{Context, LookupContinuation, LookupResult, SplitDwarfLoad};
use gimli::{
    DebugAbbrev, DebugInfo, Dwarf, DwarfPackage, EndianArcSlice, LittleEndian, Section, SectionId, UnitHeader,
    UnitType, constants,
};
use object::read::elf::SectionHeader;

use super::demangle::demangle;
use super::elf::{ENDIAN, Headers, Source};
use super::file::MappedFile;
use super::request::Open;
use super::{check, inflate};
use crate::evidence::Function;

/// So much of a program's units is looked at: where they are split, each takes some tens of bytes.
const LOOKED_AT_BYTES: u64 = 1 << 20;

/// So many files of units are read for one program.
const UNITS_MAX: usize = 256;

/// What stands behind a function's name in the name of a copy of it: `.constprop.0`, as demanglers show it or as it is.
const COPY: [&str; 2] = [".", " [clone"];

/// A longer path is none.
const PATH_BYTES_MAX: usize = 2048;

/// The sections of the program that are read.
const OWN: [SectionId; 10] = [
    SectionId::DebugAbbrev,
    SectionId::DebugAddr,
    SectionId::DebugAranges,
    SectionId::DebugInfo,
    SectionId::DebugLine,
    SectionId::DebugLineStr,
    SectionId::DebugRanges,
    SectionId::DebugRngLists,
    SectionId::DebugStr,
    SectionId::DebugStrOffsets,
];

type Bytes = EndianArcSlice<LittleEndian>;

/// What is inlined into the functions of a file.
pub(super) struct Split {
    context: Context<Bytes>,
    others: Others,
}

/// The other files.
struct Others {
    package: Option<DwarfPackage<Bytes>>,
    /// How much may be read, and how much more.
    max: u64,
    left: u64,
    /// How many files were asked for.
    asked: usize,
}

impl Split {
    /// Of a file with such units, or a copy of what it shares with others, and at most `max` bytes. `None` means that it has none, or that they
    /// can't be read.
    pub(super) fn read(
        open: &mut dyn Open,
        found: &MappedFile,
        (file, headers): (&File, &Headers),
        shared: Option<&File>,
        max: u64,
    ) -> Option<Self> {
        if shared.is_none() && !has_units_elsewhere(file, headers) {
            return None;
        }
        let mut left = max;
        let mut dwarf = own_sections(file, headers, &mut left)?;
        if let Some(shared) = shared {
            dwarf.set_sup(own_sections(shared, &Headers::read_any(&Source::File(shared))?, &mut left)?);
        }
        let context = Context::from_dwarf(dwarf).ok()?;
        let package = open.split(found.number, None).and_then(|file| package(&file, &mut left));
        Some(Self { context, others: Others { package, max, left, asked: 0 } })
    }

    /// How much memory it takes.
    pub(super) fn bytes(&self) -> u64 {
        self.others.max - self.others.left
    }

    /// Adds what is inlined at an address of the file's own to the function that it is in.
    pub(super) fn add_inlined(
        &mut self,
        address: u64,
        found: &MappedFile,
        open: &mut dyn Open,
        functions: &mut Vec<Function>,
    ) {
        let Some(mut frames) = self.frames(address, found, open) else { return };
        let (Some((own, known)), Some(last)) = (functions.split_last_mut(), frames.pop()) else { return };
        // A symbol says which of the compiler's copies of the function it is; debug information in one file gives the function's own name.
        if own.name.strip_prefix(&last.name).is_some_and(|rest| COPY.iter().any(|end| rest.starts_with(end))) {
            own.name = last.name;
        }
        let known = known.len();
        if frames.len() > known {
            (own.file, own.line) = (last.file, last.line);
            drop(functions.splice(0..known, frames));
        }
    }

    /// The functions at an address, the last one without what is only its own.
    fn frames(&mut self, address: u64, found: &MappedFile, open: &mut dyn Open) -> Option<Vec<Function>> {
        let mut looked = self.context.find_frames(address);
        let mut frames = loop {
            looked = match looked {
                LookupResult::Output(frames) => break frames.ok()?,
                LookupResult::Load { load, continuation } => {
                    continuation.resume(self.others.load(&load, found, open).map(Arc::new))
                }
            };
        };
        let mut functions = Vec::new();
        while let Some(frame) = frames.next().ok()? {
            let location = frame.location.as_ref();
            functions.push(Function {
                name: demangle(&frame.function?.raw_name().ok()?),
                offset: None,
                file: location.and_then(|location| location.file).map(str::to_owned),
                line: location.and_then(|location| location.line),
                inlined: true,
            });
        }
        Some(functions)
    }
}

impl Others {
    /// A unit that the program has elsewhere.
    fn load(
        &mut self,
        wanted: &SplitDwarfLoad<Bytes>,
        found: &MappedFile,
        open: &mut dyn Open,
    ) -> Option<Dwarf<Bytes>> {
        let packed = self.package.as_ref().and_then(|package| package.find_cu(wanted.dwo_id, &wanted.parent).ok()?);
        packed.or_else(|| self.load_file(wanted, found, open)).filter(is_harmless)
    }

    fn load_file(
        &mut self,
        wanted: &SplitDwarfLoad<Bytes>,
        found: &MappedFile,
        open: &mut dyn Open,
    ) -> Option<Dwarf<Bytes>> {
        let name = wanted.path.as_ref()?.bytes();
        let folder = wanted.comp_dir.as_ref().map(|folder| folder.bytes()).unwrap_or_default();
        let path = if name.starts_with(b"/") { name.to_vec() } else { [folder, b"/", name].concat() };
        if path.len() > PATH_BYTES_MAX || self.asked >= UNITS_MAX {
            return None;
        }
        self.asked += 1;
        let file = open.split(found.number, Some(&path))?;
        let mut dwarf = others_sections(&file, &mut self.left)?;
        dwarf.make_dwo(&wanted.parent);
        let header = dwarf.units().next().ok()??;
        (dwarf.unit(header).ok()?.dwo_id == Some(wanted.dwo_id)).then_some(dwarf)
    }
}

fn empty() -> Bytes {
    EndianArcSlice::new(Arc::from([]), LittleEndian)
}

fn own_sections(file: &File, headers: &Headers, left: &mut u64) -> Option<Dwarf<Bytes>> {
    let dwarf = Dwarf::load(|id| match OWN.contains(&id) {
        true => section(file, headers, id.name(), left),
        false => Ok(empty()),
    });
    dwarf.ok().filter(is_harmless)
}

fn package(file: &File, left: &mut u64) -> Option<DwarfPackage<Bytes>> {
    let headers = Headers::read_any(&Source::File(file))?;
    DwarfPackage::load(|id| others_section(file, &headers, id, left), empty()).ok()
}

fn others_sections(file: &File, left: &mut u64) -> Option<Dwarf<Bytes>> {
    let headers = Headers::read_any(&Source::File(file))?;
    Dwarf::load(|id| others_section(file, &headers, id, left)).ok()
}

fn others_section(file: &File, headers: &Headers, id: SectionId, left: &mut u64) -> gimli::Result<Bytes> {
    // All of them: an index leads into each.
    match id.dwo_name() {
        Some(name) => section(file, headers, name, left),
        None => Ok(empty()),
    }
}

/// A section, uncompressed; empty if there is none.
fn section(file: &File, headers: &Headers, name: &str, left: &mut u64) -> gimli::Result<Bytes> {
    let Some(section) = headers.section(name.as_bytes()) else { return Ok(empty()) };
    let bytes = || {
        let size = section.sh_size(ENDIAN);
        let content = Source::File(file).read(section.sh_offset(ENDIAN), (size <= *left).then_some(size)?)?;
        match headers.compression(section) {
            Some(compression) => inflate::section(&content, compression, *left),
            None => Some(content),
        }
    };
    let bytes = bytes().ok_or(gimli::Error::Io)?;
    *left = left.checked_sub(bytes.len() as u64).ok_or(gimli::Error::Io)?;
    Ok(EndianArcSlice::new(bytes.into(), LittleEndian))
}

fn is_harmless(dwarf: &Dwarf<Bytes>) -> bool {
    check::is_harmless(dwarf.debug_info.reader().bytes(), dwarf.debug_abbrev.reader().bytes())
}

/// Has the file a unit of which a part is elsewhere? Its first units are looked at.
fn has_units_elsewhere(file: &File, headers: &Headers) -> bool {
    // Addresses stand in the program itself, by whatever linker.
    if headers.section(b".debug_addr").is_none() {
        return false;
    }
    let mut left = LOOKED_AT_BYTES;
    let begin = |name: &[u8]| {
        let section = headers.section(name)?;
        let is_plain = headers.compression(section).is_none();
        let bytes = section.sh_size(ENDIAN).min(LOOKED_AT_BYTES);
        is_plain.then(|| Source::File(file).read(section.sh_offset(ENDIAN), bytes)).flatten()
    };
    let mut whole = |name: &str| section(file, headers, name, &mut left).ok().map(|bytes| bytes.bytes().to_vec());
    let Some(info) = begin(b".debug_info").or_else(|| whole(".debug_info")) else { return false };
    let abbreviations = begin(b".debug_abbrev").or_else(|| whole(".debug_abbrev")).unwrap_or_default();
    let abbreviations = DebugAbbrev::new(&abbreviations, LittleEndian);
    let mut units = DebugInfo::new(&info, LittleEndian).units();
    std::iter::from_fn(|| units.next().ok().flatten()).any(|unit| is_elsewhere(&unit, &abbreviations))
}

fn is_elsewhere<R: gimli::Reader>(unit: &UnitHeader<R>, abbreviations: &DebugAbbrev<R>) -> bool {
    match unit.type_() {
        UnitType::Skeleton(_) => true,
        // Before DWARF 5 GNU has an attribute for it.
        UnitType::Compilation if unit.version() < 5 => {
            let first = || {
                let table = unit.abbreviations(abbreviations).ok()?;
                let mut entries = unit.entries_raw(&table, None).ok()?;
                let first = entries.read_abbreviation().ok()??;
                Some(first.attributes().iter().any(|attribute| attribute.name() == constants::DW_AT_GNU_dwo_id))
            };
            first().unwrap_or(false)
        }
        _ => false,
    }
}
