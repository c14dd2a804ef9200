//! Reads an ELF file's headers into memory: a file that shrinks meanwhile is an error, not a SIGBUS. A crafted or cut file has no names;
//! it never costs more than the bounds here.

use std::fs::File;
use std::ops::Range;
use std::os::unix::fs::FileExt;

use object::LittleEndian;
use object::elf::{
    ELF_NOTE_GNU, FileHeader32, FileHeader64, NT_GNU_BUILD_ID, NoteHeader64, PF_X, PT_GNU_EH_FRAME, PT_GNU_RELRO,
    PT_INTERP, PT_LOAD, ProgramHeader64, SHF_ALLOC, SHF_COMPRESSED, SHT_NOBITS, SectionHeader64,
};
use object::pod::{Pod, from_bytes, slice_from_bytes};
use object::read::elf::{FileHeader, ProgramHeader, SectionHeader};
use object::{Endianness, FileKind};

use super::wide;
use crate::arch::{ELF_MACHINE, compat};

/// Longer sections are not read whole into memory; the `.eh_frame` of a browser has some 10 MiB.
pub(super) const SECTION_BYTES_MAX: u64 = 64 << 20;

/// What the names of sections with debug information begin with, and what is in its place if the content is compressed, unless a flag says that.
const DEBUG: &[u8] = b".debug_";
const COMPRESSED_BY_NAME: &[u8] = b".zdebug_";

/// The section that linkers put the build id into.
pub(super) const BUILD_ID: &[u8] = b".note.gnu.build-id";

/// A note of a build id is not longer.
const NOTE_BYTES_MAX: u64 = 1024;

/// The byte order of the files of this machine.
pub(super) const ENDIAN: LittleEndian = LittleEndian;

/// Where the bytes of an image are read from.
#[derive(Clone, Copy)]
pub(super) enum Source<'a> {
    File(&'a File),
    Memory(&'a [u8]),
}

impl Source<'_> {
    pub(super) fn read(&self, offset: u64, length: u64) -> Option<Vec<u8>> {
        if length > SECTION_BYTES_MAX {
            return None;
        }
        let end = offset.checked_add(length)?;
        match self {
            Self::File(file) => {
                // Checked before memory is allocated: the length may be wrong.
                if end > file.metadata().ok()?.len() {
                    return None;
                }
                let mut bytes = vec![0; length as usize];
                file.read_exact_at(&mut bytes, offset).ok()?;
                Some(bytes)
            }
            Self::Memory(bytes) => {
                bytes.get(usize::try_from(offset).ok()?..usize::try_from(end).ok()?).map(<[u8]>::to_vec)
            }
        }
    }
}

/// The headers of a file that this machine runs.
pub(super) struct Headers {
    /// It is a 32-bit file.
    pub(super) is_compat: bool,
    pub(super) file: FileHeader64<LittleEndian>,
    programs: Vec<ProgramHeader64<LittleEndian>>,
    sections: Vec<SectionHeader64<LittleEndian>>,
    names: Vec<u8>,
}

/// How a section is compressed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Compression {
    /// As the ELF specification has it: a header says so.
    Header,
    /// The same in a 32-bit file.
    CompatHeader,
    /// As linkers did it before that, and Go's until 1.18: its name says so.
    Name,
}

/// A part of a file that is executable in memory.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Segment {
    /// Its range in the file. It is empty in a file of debug information, which has only the place.
    pub(super) offset: Range<u64>,
    /// Its addresses in the file.
    pub(super) address: Range<u64>,
}

impl Headers {
    /// Of a file of 64 or 32 bits.
    pub(super) fn read_any(source: &Source<'_>) -> Option<Self> {
        Self::read(source).or_else(|| Self::read_compat(source))
    }

    /// Of a 64-bit file. `None` means that it is no such file. If the sections can't be read, there are none.
    pub(super) fn read(source: &Source<'_>) -> Option<Self> {
        let header = source.read(0, size_of::<FileHeader64<LittleEndian>>() as u64)?;
        let (header, _) = from_bytes::<FileHeader64<LittleEndian>>(&header).ok()?;
        if !header.is_supported() || !header.is_little_endian() || header.e_machine(ENDIAN) != ELF_MACHINE {
            return None;
        }
        let mut headers = Self {
            is_compat: false,
            file: *header,
            programs: table(source, header.e_phoff(ENDIAN), header.e_phnum(ENDIAN))?,
            sections: table(source, header.e_shoff(ENDIAN), header.e_shnum(ENDIAN)).unwrap_or_default(),
            names: Vec::new(),
        };
        headers.read_names(source);
        Some(headers)
    }

    /// The headers of a 32-bit file that this machine runs, with the fields that 64-bit files have.
    pub(super) fn read_compat(source: &Source<'_>) -> Option<Self> {
        let bytes = source.read(0, size_of::<FileHeader32<LittleEndian>>() as u64)?;
        let (header, _) = from_bytes::<FileHeader32<LittleEndian>>(&bytes).ok()?;
        let is_known = header.is_supported() && header.is_little_endian();
        if !is_known || Some(header.e_machine(ENDIAN)) != compat::ELF_MACHINE {
            return None;
        }
        let programs = table(source, header.e_phoff(ENDIAN).into(), header.e_phnum(ENDIAN))?;
        let sections = table(source, header.e_shoff(ENDIAN).into(), header.e_shnum(ENDIAN)).unwrap_or_default();
        let mut headers = Self {
            is_compat: true,
            file: wide::file(header),
            programs: programs.iter().map(wide::program).collect(),
            sections: sections.iter().map(wide::section).collect(),
            names: Vec::new(),
        };
        headers.read_names(source);
        Some(headers)
    }

    fn read_names(&mut self, source: &Source<'_>) {
        if let Some(names) = self.sections.get(usize::from(self.file.e_shstrndx(ENDIAN))) {
            self.names = source.read(names.sh_offset(ENDIAN), names.sh_size(ENDIAN)).unwrap_or_default();
        }
    }

    /// The first section of this name that has content in the file. A compressed one may have another name for it: `compression`.
    pub(super) fn section(&self, name: &[u8]) -> Option<&SectionHeader64<LittleEndian>> {
        let is_it = |section: &&SectionHeader64<LittleEndian>| {
            let own = self.name(section);
            let own = own.strip_prefix(COMPRESSED_BY_NAME).and_then(|rest| Some((rest, name.strip_prefix(DEBUG)?)));
            section.sh_type(ENDIAN) != SHT_NOBITS
                && own.map_or_else(|| self.name(section) == name, |(own, wanted)| own == wanted)
        };
        self.sections.iter().find(is_it)
    }

    /// Empty if it can't be read.
    fn name(&self, section: &SectionHeader64<LittleEndian>) -> &[u8] {
        let rest = self.names.get(section.sh_name(ENDIAN) as usize..).unwrap_or_default();
        rest.split(|byte| *byte == 0).next().unwrap_or_default()
    }

    /// How the content of a section is compressed. `None` means that it isn't.
    pub(super) fn compression(&self, section: &SectionHeader64<LittleEndian>) -> Option<Compression> {
        if section.sh_flags(ENDIAN) & u64::from(SHF_COMPRESSED) != 0 {
            Some(if self.is_compat { Compression::CompatHeader } else { Compression::Header })
        } else {
            self.name(section).starts_with(COMPRESSED_BY_NAME).then_some(Compression::Name)
        }
    }

    /// The build id in its section: a file of debug information that several files share has no segments.
    pub(super) fn build_id(&self, source: &Source<'_>) -> Option<Vec<u8>> {
        let section = self.section(BUILD_ID).filter(|section| section.sh_size(ENDIAN) <= NOTE_BYTES_MAX)?;
        let note = source.read(section.sh_offset(ENDIAN), section.sh_size(ENDIAN))?;
        let (header, rest) = from_bytes::<NoteHeader64<LittleEndian>>(&note).ok()?;
        let description = rest.strip_prefix(b"GNU\0")?.get(..header.n_descsz.get(ENDIAN) as usize)?;
        (header.n_type.get(ENDIAN) == NT_GNU_BUILD_ID).then(|| description.to_vec())
    }

    /// The name of the section that is in memory and holds this offset of the file.
    pub(super) fn section_at(&self, offset: u64) -> Option<&[u8]> {
        let holds = |section: &&SectionHeader64<LittleEndian>| {
            let (start, flags) = (section.sh_offset(ENDIAN), section.sh_flags(ENDIAN));
            section.sh_type(ENDIAN) != SHT_NOBITS
                && flags & u64::from(SHF_ALLOC) != 0
                && offset.checked_sub(start).is_some_and(|inside| inside < section.sh_size(ENDIAN))
        };
        Some(self.name(self.sections.iter().find(holds)?))
    }

    /// Is this offset of the file in the part that is made read-only after the start (RELRO)?
    pub(super) fn is_relocated(&self, offset: u64) -> bool {
        let holds = |program: &ProgramHeader64<LittleEndian>| {
            let inside = offset.checked_sub(program.p_offset(ENDIAN));
            program.p_type(ENDIAN) == PT_GNU_RELRO && inside.is_some_and(|inside| inside < program.p_memsz(ENDIAN))
        };
        self.programs.iter().any(holds)
    }

    /// The address at which a program begins.
    pub(super) fn entry(&self) -> u64 {
        self.file.e_entry(ENDIAN)
    }

    /// Does the file name a dynamic linker?
    pub(super) fn has_interpreter(&self) -> bool {
        self.programs.iter().any(|program| program.p_type(ENDIAN) == PT_INTERP)
    }

    /// Does the file say that it has no sections? A tool has stripped it of them.
    pub(super) fn has_no_sections(&self) -> bool {
        self.file.e_shnum(ENDIAN) == 0
    }

    /// Where the index of its call frame information is.
    pub(super) fn frame_index(&self) -> Option<Segment> {
        self.programs.iter().find(|program| program.p_type(ENDIAN) == PT_GNU_EH_FRAME).map(segment)
    }

    /// The segments with code.
    pub(super) fn code(&self) -> Vec<Segment> {
        self.segments(|program| program.p_flags(ENDIAN) & PF_X != 0)
    }

    /// All segments that are loaded.
    pub(super) fn loaded(&self) -> Vec<Segment> {
        self.segments(|_| true)
    }

    fn segments(&self, wanted: impl Fn(&ProgramHeader64<LittleEndian>) -> bool) -> Vec<Segment> {
        let loaded = self.programs.iter().filter(|program| program.p_type(ENDIAN) == PT_LOAD && wanted(program));
        loaded.map(segment).collect()
    }
}

fn segment(program: &ProgramHeader64<LittleEndian>) -> Segment {
    let range = |start: u64, length: u64| start..start.saturating_add(length);
    Segment {
        offset: range(program.p_offset(ENDIAN), program.p_filesz(ENDIAN)),
        address: range(program.p_vaddr(ENDIAN), program.p_memsz(ENDIAN)),
    }
}

/// The segments with code of a 32-bit file, from its first bytes. `None` means that it is no 32-bit file.
pub(super) fn code_of_32_bit(head: &[u8]) -> Option<Vec<Segment>> {
    let header = FileHeader32::<LittleEndian>::parse(head).ok()?;
    let programs = header.program_headers(header.endian().ok()?, head).ok()?;
    let range = |start: u32, length: u32| u64::from(start)..u64::from(start) + u64::from(length);
    let code = programs
        .iter()
        .filter(|program| program.p_type(ENDIAN) == PT_LOAD && program.p_flags(ENDIAN) & PF_X != 0)
        .map(|program| Segment {
            offset: range(program.p_offset(ENDIAN), program.p_filesz(ENDIAN)),
            address: range(program.p_vaddr(ENDIAN), program.p_memsz(ENDIAN)),
        });
    Some(code.collect())
}

/// A table of headers of the size that they have in the file.
fn table<T: Pod>(source: &Source<'_>, offset: u64, count: u16) -> Option<Vec<T>> {
    let bytes = source.read(offset, u64::from(count) * size_of::<T>() as u64)?;
    let (entries, _) = slice_from_bytes(&bytes, usize::from(count)).ok()?;
    Some(entries.to_vec())
}

/// The build id in the first bytes of an ELF file, where linkers put its notes.
pub(super) fn build_id(head: &[u8]) -> Option<Vec<u8>> {
    match FileKind::parse(head).ok()? {
        FileKind::Elf64 => build_id_in::<FileHeader64<Endianness>>(head),
        FileKind::Elf32 => build_id_in::<FileHeader32<Endianness>>(head),
        _ => None,
    }
}

fn build_id_in<Header: FileHeader<Endian = Endianness>>(head: &[u8]) -> Option<Vec<u8>> {
    let header = Header::parse(head).ok()?;
    let endian = header.endian().ok()?;
    for program in header.program_headers(endian, head).ok()? {
        let Ok(Some(mut notes)) = program.notes(endian, head) else { continue };
        while let Ok(Some(note)) = notes.next() {
            if note.name() == ELF_NOTE_GNU && note.n_type(endian) == NT_GNU_BUILD_ID {
                return Some(note.desc().to_vec());
            }
        }
    }
    None
}
