//! The parts of an ELF file that unwinding needs, read by copy: a file that shrinks meanwhile is an error, not a SIGBUS.
//! What is crafted or cut costs its own unwinding, never more than the bounds here.

use std::fs::File;
use std::ops::Range;
use std::os::unix::fs::FileExt;

use object::LittleEndian;
use object::elf::{EM_X86_64, FileHeader64, PF_X, PT_LOAD, ProgramHeader64, SHT_NOBITS, SectionHeader64};
use object::pod::{Pod, from_bytes, slice_from_bytes};
use object::read::elf::{FileHeader, ProgramHeader, SectionHeader};

/// Larger sections are not read; that of a browser has some 10 MiB.
const SECTION_BYTES_MAX: u64 = 64 << 20;

const ENDIAN: LittleEndian = LittleEndian;

/// Where an image's bytes are.
pub(super) enum Source<'a> {
    File(&'a File),
    Memory(&'a [u8]),
}

impl Source<'_> {
    fn read(&self, offset: u64, length: u64) -> Option<Vec<u8>> {
        if length > SECTION_BYTES_MAX {
            return None;
        }
        let end = offset.checked_add(length)?;
        match self {
            Self::File(file) => {
                // Before a length that is a lie becomes memory.
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

/// A section of an image.
pub(super) struct Section {
    /// The address that the file gives it.
    pub(super) address: Range<u64>,
    pub(super) bytes: Vec<u8>,
}

/// How to unwind from the code of one file.
pub(super) struct Sections {
    pub(super) eh_frame: Section,
    pub(super) eh_frame_hdr: Option<Section>,
    /// In place of `eh_frame_hdr`: step::index().
    pub(super) index: Vec<(u64, usize)>,
    /// The addresses of `.text` and `.got`, which entries may be relative to.
    pub(super) text: Option<Range<u64>>,
    pub(super) got: Option<Range<u64>>,
    code: Vec<Segment>,
}

/// A part of the file that is executable in memory.
struct Segment {
    offset: Range<u64>,
    address: u64,
}

impl Sections {
    /// None: not a 64-bit x86 ELF file, or it says nothing about unwinding, or what it says can't be read.
    pub(super) fn read(source: &Source<'_>) -> Option<Self> {
        let header = source.read(0, size_of::<FileHeader64<LittleEndian>>() as u64)?;
        let (header, _) = from_bytes::<FileHeader64<LittleEndian>>(&header).ok()?;
        if !header.is_supported() || !header.is_little_endian() || header.e_machine(ENDIAN) != EM_X86_64 {
            return None;
        }
        let programs = table(source, header.e_phoff(ENDIAN), header.e_phnum(ENDIAN))?;
        let code = entries::<ProgramHeader64<LittleEndian>>(&programs)
            .iter()
            .filter(|program| program.p_type(ENDIAN) == PT_LOAD && program.p_flags(ENDIAN) & PF_X != 0)
            .map(|program| {
                let start = program.p_offset(ENDIAN);
                Segment {
                    offset: start..start.saturating_add(program.p_filesz(ENDIAN)),
                    address: program.p_vaddr(ENDIAN),
                }
            })
            .collect();
        let table = table(source, header.e_shoff(ENDIAN), header.e_shnum(ENDIAN))?;
        let headers = entries::<SectionHeader64<LittleEndian>>(&table);
        let names = headers.get(usize::from(header.e_shstrndx(ENDIAN)))?;
        let names = source.read(names.sh_offset(ENDIAN), names.sh_size(ENDIAN))?;
        let find = |name: &[u8]| {
            headers.iter().find(|section| {
                let rest = names.get(section.sh_name(ENDIAN) as usize..).unwrap_or_default();
                section.sh_type(ENDIAN) != SHT_NOBITS
                    && rest.strip_prefix(name).is_some_and(|end| end.first() == Some(&0))
            })
        };
        let addresses = |section: &SectionHeader64<LittleEndian>| {
            let start = section.sh_addr(ENDIAN);
            start..start.saturating_add(section.sh_size(ENDIAN))
        };
        let content = |name: &[u8]| {
            let section = find(name)?;
            let bytes = source.read(section.sh_offset(ENDIAN), section.sh_size(ENDIAN))?;
            Some(Section { address: addresses(section), bytes })
        };
        let mut sections = Self {
            index: Vec::new(),
            eh_frame: content(b".eh_frame")?,
            eh_frame_hdr: content(b".eh_frame_hdr"),
            text: find(b".text").map(addresses),
            got: find(b".got").map(addresses),
            code,
        };
        if sections.eh_frame_hdr.is_none() {
            sections.index = super::step::index(&sections);
        }
        Some(sections)
    }

    /// What is to be added to the file's addresses to have the process's, where `offset` of the file is mapped at `start`.
    /// None: no code is there.
    pub(super) fn bias(&self, start: u64, offset: u64) -> Option<u64> {
        // A mapping begins at a page, its segment anywhere in that page.
        let page = |at: u64| at & !0xfff;
        let segment = self.code.iter().find(|code| (page(code.offset.start)..code.offset.end).contains(&offset))?;
        Some(start.wrapping_sub(offset).wrapping_add(segment.offset.start).wrapping_sub(segment.address))
    }

    /// How much memory it takes.
    pub(super) fn bytes(&self) -> usize {
        size_of_val(&*self.index)
            + self.eh_frame.bytes.len()
            + self.eh_frame_hdr.as_ref().map_or(0, |section| section.bytes.len())
    }
}

/// A table of headers, both of which have the size that x86-64 gives them.
fn table<T: Pod>(source: &Source<'_>, offset: u64, count: u16) -> Option<Table<T>> {
    let bytes = source.read(offset, u64::from(count) * size_of::<T>() as u64)?;
    Some(Table { bytes, count: usize::from(count), of: std::marker::PhantomData })
}

struct Table<T> {
    bytes: Vec<u8>,
    count: usize,
    of: std::marker::PhantomData<T>,
}

fn entries<T: Pod>(table: &Table<T>) -> &[T] {
    slice_from_bytes(&table.bytes, table.count).map_or(&[], |(entries, _)| entries)
}
