//! The parts of an ELF file that unwinding needs.

use std::ops::Range;

use object::elf::SectionHeader64;
use object::read::elf::SectionHeader;

use crate::arch::CALL_BYTES_MAX;
use crate::page;
use crate::symbol::elf::{ENDIAN, Headers, Segment, Source};

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
    /// What functions do with exceptions.
    pub(super) exceptions: Option<Section>,
    /// In place of `eh_frame_hdr`: step::index().
    pub(super) index: Vec<(u64, usize)>,
    /// The addresses of `.text` and `.got`, which entries may be relative to.
    pub(super) text: Option<Range<u64>>,
    pub(super) got: Option<Range<u64>>,
    pub(super) code: Vec<Segment>,
}

impl Sections {
    /// `None` means that it is no 64-bit ELF file of this architecture, or that its unwind information is missing or can't be read.
    pub(super) fn read(source: &Source<'_>) -> Option<Self> {
        let headers = Headers::read(source)?;
        let addresses = |section: &SectionHeader64<object::LittleEndian>| {
            let start = section.sh_addr(ENDIAN);
            start..start.saturating_add(section.sh_size(ENDIAN))
        };
        let content = |name: &[u8]| {
            let section = headers.section(name)?;
            let bytes = source.read(section.sh_offset(ENDIAN), section.sh_size(ENDIAN))?;
            Some(Section { address: addresses(section), bytes })
        };
        let mut sections = Self {
            index: Vec::new(),
            eh_frame: content(b".eh_frame")?,
            eh_frame_hdr: content(b".eh_frame_hdr"),
            exceptions: content(b".gcc_except_table"),
            text: headers.section(b".text").map(addresses),
            got: headers.section(b".got").map(addresses),
            code: headers.code(),
        };
        if sections.eh_frame_hdr.is_none() {
            sections.index = super::step::index(&sections);
        }
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

    /// Has the file code at this address of its own?
    pub(super) fn is_code(&self, address: u64) -> bool {
        self.code.iter().any(|code| code.address.contains(&address))
    }

    /// How much memory it takes.
    pub(super) fn bytes(&self) -> usize {
        size_of_val(&*self.index)
            + self.eh_frame.bytes.len()
            + [&self.eh_frame_hdr, &self.exceptions]
                .into_iter()
                .flatten()
                .map(|section| section.bytes.len())
                .sum::<usize>()
    }
}
