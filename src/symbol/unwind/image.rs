//! The parts of an ELF file that unwinding needs.

use std::ops::Range;

use gimli::{BaseAddresses, CieOrFde, DebugFrame, EhFrame, EhFrameHdr, EndianSlice, LittleEndian, UnwindSection};
use object::elf::SectionHeader64;
use object::read::elf::SectionHeader;

use super::machine::Machine;
use super::section::Section;
use crate::arch::CALL_BYTES_MAX;
use crate::arch::unwind as arch;
use crate::page;
use crate::symbol::elf::{ENDIAN, Headers, SECTION_BYTES_MAX, Segment, Source};
use crate::symbol::{inflate, pclntab};

pub(super) type Slice<'a> = EndianSlice<'a, LittleEndian>;

/// How to unwind from the code of one file.
pub(super) struct Sections {
    pub(super) machine: Machine,
    pub(super) eh_frame: Section,
    pub(super) eh_frame_hdr: Option<Section>,
    /// The same of code that `.eh_frame` doesn't describe: `.debug_frame`, and in it the place of each entry.
    pub(super) debug_frame: Vec<u8>,
    pub(super) debug_index: Vec<(u64, usize)>,
    /// What functions do with exceptions.
    pub(super) exceptions: Option<Section>,
    /// In place of `eh_frame_hdr`: [`Sections::index`].
    pub(super) index: Vec<(u64, usize)>,
    /// The addresses of `.text` and `.got`, which entries may be relative to.
    pub(super) text: Option<Range<u64>>,
    pub(super) got: Option<Range<u64>>,
    pub(super) code: Vec<Segment>,
}

impl Sections {
    /// `None` means that it is no ELF file of this architecture, or that its unwind information is missing or can't be read.
    pub(super) fn read(source: &Source<'_>) -> Option<Self> {
        let (headers, machine) = match Headers::read(source) {
            Some(headers) => (headers, Machine::Native),
            None => (Headers::read_compat(source)?, Machine::Compat),
        };
        let addresses = |section: &SectionHeader64<object::LittleEndian>| {
            let start = section.sh_addr(ENDIAN);
            start..start.saturating_add(section.sh_size(ENDIAN))
        };
        let content = |name: &[u8]| {
            let section = headers.section(name)?;
            let bytes = source.read(section.sh_offset(ENDIAN), section.sh_size(ENDIAN))?;
            Some(Section { address: addresses(section), bytes })
        };
        let bare = headers.has_no_sections().then(|| by_segments(&headers, machine, source)).flatten();
        let (eh_frame_hdr, eh_frame) = bare.unzip();
        let (eh_frame_hdr, eh_frame) =
            (eh_frame_hdr.or_else(|| content(b".eh_frame_hdr")), eh_frame.or_else(|| content(b".eh_frame")));
        let debug_frame = debug_frame(&headers, source);
        if eh_frame.is_none() && debug_frame.is_none() {
            return None;
        }
        let mut sections = Self {
            machine,
            index: Vec::new(),
            eh_frame: eh_frame.unwrap_or_default(),
            eh_frame_hdr,
            debug_frame: debug_frame.unwrap_or_default(),
            debug_index: Vec::new(),
            exceptions: content(b".gcc_except_table"),
            text: headers.section(b".text").map(addresses),
            got: headers.section(b".got").map(addresses),
            code: headers.code(),
        };
        if sections.eh_frame_hdr.is_none() {
            sections.index = sections.index();
        }
        sections.debug_index = index(&sections.debug_frame(), &sections.bases());
        Some(sections)
    }

    /// The difference between the process's addresses and the file's, if `offset` of the file is mapped at `start`.
    /// `None` means that there is no code.
    pub(super) fn bias(&self, start: u64, offset: u64) -> Option<u64> {
        // A mapping begins at a page, its segment anywhere in that page.
        let segment =
            self.code.iter().find(|code| (page::start(code.offset.start)..code.offset.end).contains(&offset))?;
        Some(start.wrapping_sub(offset).wrapping_add(segment.offset.start).wrapping_sub(segment.address.start))
    }

    /// The code before an address of the file's own: as much as a call may take.
    pub(super) fn code_before(&self, address: u64, source: &Source<'_>) -> Option<Vec<u8>> {
        let segment = self.code.iter().find(|code| code.address.contains(&address.wrapping_sub(1)))?;
        let offset = address.wrapping_sub(segment.address.start).checked_add(segment.offset.start)?;
        let begin = offset.saturating_sub(CALL_BYTES_MAX).max(segment.offset.start);
        source.read(begin, offset.checked_sub(begin)?)
    }

    /// So much code from an address of the file's own on, or what there is of it.
    pub(super) fn code_from(&self, address: u64, bytes: u64, source: &Source<'_>) -> Option<Vec<u8>> {
        let segment = self.code.iter().find(|code| code.address.contains(&address))?;
        let offset = address.wrapping_sub(segment.address.start).checked_add(segment.offset.start)?;
        source.read(offset, bytes.min(segment.offset.end.checked_sub(offset)?))
    }

    /// Has the file code at this address of its own?
    pub(super) fn is_code(&self, address: u64) -> bool {
        self.code.iter().any(|code| code.address.contains(&address))
    }

    /// How much memory it takes.
    pub(super) fn bytes(&self) -> usize {
        size_of_val(&*self.index)
            + size_of_val(&*self.debug_index)
            + self.debug_frame.len()
            + self.eh_frame.bytes.len()
            + [&self.eh_frame_hdr, &self.exceptions]
                .into_iter()
                .flatten()
                .map(|section| section.bytes.len())
                .sum::<usize>()
    }

    /// The call frame information.
    pub(super) fn eh_frame(&self) -> EhFrame<Slice<'_>> {
        let mut section = EhFrame::new(&self.eh_frame.bytes, LittleEndian);
        section.set_address_size(self.machine.word_bytes());
        section.set_vendor(arch::VENDOR);
        section
    }

    /// The same of code that it doesn't describe.
    pub(super) fn debug_frame(&self) -> DebugFrame<Slice<'_>> {
        let mut section = DebugFrame::new(&self.debug_frame, LittleEndian);
        section.set_address_size(self.machine.word_bytes());
        section.set_vendor(arch::VENDOR);
        section
    }

    /// What its entries are relative to.
    pub(super) fn bases(&self) -> BaseAddresses {
        let start = |range: Option<&Range<u64>>| range.map_or(0, |range| range.start);
        BaseAddresses::default()
            .set_eh_frame(self.eh_frame.address.start)
            .set_eh_frame_hdr(start(self.eh_frame_hdr.as_ref().map(|section| &section.address)))
            .set_text(start(self.text.as_ref()))
            .set_got(start(self.got.as_ref()))
    }

    /// Of `.eh_frame`, for want of `.eh_frame_hdr`, which static executables don't have.
    pub(super) fn index(&self) -> Vec<(u64, usize)> {
        index(&self.eh_frame(), &self.bases())
    }
}

/// The beginnings of all that a section describes, sorted, each with the offset of its entry.
pub(super) fn index<'a, S: UnwindSection<Slice<'a>>>(section: &S, bases: &BaseAddresses) -> Vec<(u64, usize)> {
    let mut entries = section.entries(bases);
    let mut index = Vec::new();
    while let Ok(Some(entry)) = entries.next() {
        if let CieOrFde::Fde(entry) = entry
            && let Ok(entry) = entry.parse(S::cie_from_offset)
        {
            index.push((entry.initial_address(), entry.offset()));
        }
    }
    index.sort_unstable();
    index
}

/// `.eh_frame_hdr` and `.eh_frame` of a file without sections, as its process finds them: the first is a segment of its own, and says where the
/// other begins.
fn by_segments(headers: &Headers, machine: Machine, source: &Source<'_>) -> Option<(Section, Section)> {
    let read = |place: &Segment, address: u64| {
        let offset = address.checked_sub(place.address.start)?.checked_add(place.offset.start)?;
        let bytes = source.read(offset, place.offset.end.checked_sub(offset)?)?;
        Some(Section { address: address..address.checked_add(bytes.len() as u64)?, bytes })
    };
    let index = headers.frame_index()?;
    let index = read(&index, index.address.start)?;
    let bases = BaseAddresses::default().set_eh_frame_hdr(index.address.start);
    let header = EhFrameHdr::new(&index.bytes, LittleEndian).parse(&bases, machine.word_bytes()).ok()?;
    let start = header.eh_frame_ptr().direct().ok()?;
    let loaded = headers.loaded().into_iter().find(|loaded| loaded.address.contains(&start))?;
    let eh_frame = read(&loaded, start)?;
    Some((index, eh_frame))
}

/// `None` means that there is none that is to be believed: Go's describes functions that change stacks as if they didn't, and its code keeps
/// frame pointers.
fn debug_frame(headers: &Headers, source: &Source<'_>) -> Option<Vec<u8>> {
    if pclntab::SECTIONS.iter().any(|name| headers.section(name).is_some()) {
        return None;
    }
    let section = headers.section(b".debug_frame")?;
    let bytes = source.read(section.sh_offset(ENDIAN), section.sh_size(ENDIAN))?;
    match headers.compression(section) {
        Some(compression) => inflate::section(&bytes, compression, SECTION_BYTES_MAX),
        None => Some(bytes),
    }
}
