//! The section headers of a file that is rebuilt, and their names.

use object::LittleEndian as LE;
use object::elf::{
    FileHeader64, PF_W, PF_X, ProgramHeader64, SHF_ALLOC, SHF_EXECINSTR, SHF_WRITE, SHT_NOBITS, SHT_PROGBITS,
    SHT_STRTAB, SectionHeader64,
};
use object::endian::{U32, U64};
use object::pod::{bytes_of, bytes_of_slice};

/// What a section header says.
#[derive(Clone, Copy, Default)]
pub(super) struct Section {
    pub(super) kind: u32,
    pub(super) flags: u32,
    pub(super) address: u64,
    pub(super) offset: u64,
    pub(super) bytes: u64,
    pub(super) link: u32,
    pub(super) info: u32,
    pub(super) entry: u64,
}

/// The section headers under construction, and their names.
#[derive(Default)]
pub(super) struct Sections {
    headers: Vec<SectionHeader64<LE>>,
    names: Vec<u8>,
}

impl Sections {
    pub(super) fn count(&self) -> u32 {
        u32::try_from(self.headers.len()).unwrap_or(u32::MAX)
    }

    pub(super) fn add(&mut self, name: &str, section: Section) {
        let at = u32::try_from(self.names.len()).unwrap_or(0);
        self.names.extend_from_slice(name.as_bytes());
        self.names.push(0);
        self.headers.push(SectionHeader64 {
            sh_name: U32::new(LE, at),
            sh_type: U32::new(LE, section.kind),
            sh_flags: U64::new(LE, u64::from(section.flags)),
            sh_addr: U64::new(LE, section.address),
            sh_offset: U64::new(LE, section.offset),
            sh_size: U64::new(LE, section.bytes),
            sh_link: U32::new(LE, section.link),
            sh_info: U32::new(LE, section.info),
            sh_addralign: U64::new(LE, 1),
            sh_entsize: U64::new(LE, section.entry),
        });
    }

    /// A segment as a section, and its part that is in memory only as another section.
    pub(super) fn add_segment(&mut self, segment: &ProgramHeader64<LE>) {
        let (is_code, is_data) = (segment.p_flags.get(LE) & PF_X != 0, segment.p_flags.get(LE) & PF_W != 0);
        let flags = SHF_ALLOC | if is_code { SHF_EXECINSTR } else { 0 } | if is_data { SHF_WRITE } else { 0 };
        let name = match (is_code, is_data) {
            (true, _) => ".text",
            (false, true) => ".data",
            (false, false) => ".rodata",
        };
        let (address, offset) = (segment.p_vaddr.get(LE), segment.p_offset.get(LE));
        let (bytes, all) = (segment.p_filesz.get(LE), segment.p_memsz.get(LE));
        if bytes != 0 {
            self.add(name, Section { kind: SHT_PROGBITS, flags, address, offset, bytes, ..Section::default() });
        }
        if all > bytes {
            let (address, offset, bytes) = (address.wrapping_add(bytes), offset.wrapping_add(bytes), all - bytes);
            self.add(".bss", Section { kind: SHT_NOBITS, flags, address, offset, bytes, ..Section::default() });
        }
    }

    /// Puts the headers into the file and the sections behind it.
    pub(super) fn finish(
        mut self,
        mut header: FileHeader64<LE>,
        segments: &[ProgramHeader64<LE>],
        mut file: Vec<u8>,
    ) -> Vec<u8> {
        let name = ".shstrtab";
        let (offset, bytes) = (file.len() as u64, (self.names.len() + name.len() + 1) as u64);
        self.add(name, Section { kind: SHT_STRTAB, offset, bytes, ..Section::default() });
        file.extend_from_slice(&self.names);
        file.resize(file.len().next_multiple_of(8), 0);
        header.e_shoff = U64::new(LE, file.len() as u64);
        let count = u16::try_from(self.headers.len()).unwrap_or(0);
        header.e_shnum = object::endian::U16::new(LE, count);
        header.e_shstrndx = object::endian::U16::new(LE, count.saturating_sub(1));
        header.e_shentsize = object::endian::U16::new(LE, size_of::<SectionHeader64<LE>>() as u16);
        file.extend_from_slice(bytes_of_slice(&self.headers));
        let mut put = |at: usize, bytes: &[u8]| {
            if let Some(to) = file.get_mut(at..at.saturating_add(bytes.len())) {
                to.copy_from_slice(bytes);
            }
        };
        put(usize::try_from(header.e_phoff.get(LE)).unwrap_or(usize::MAX), bytes_of_slice(segments));
        put(0, bytes_of(&header));
        file
    }
}
