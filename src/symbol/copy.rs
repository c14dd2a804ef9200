//! A private copy of the few sections from which symbols are read.
//!
//! The symbolizer maps its files. A file that is truncated meanwhile would end us by SIGBUS; one that changes would have been checked in
//! vain; one that names another file would make us open that; and an open file keeps its mount busy. None of this is possible with a
//! sealed copy in memory: its content is what was checked.

use std::borrow::Cow;
use std::fs::File;
use std::os::unix::fs::{FileExt, MetadataExt};

use nix::fcntl::{FcntlArg, SealFlag, fcntl};
use nix::sys::memfd::{MFdFlags, memfd_create};
use object::elf::{
    ET_DYN, ET_EXEC, FileHeader64, SHF_COMPRESSED, SHT_NULL, SHT_PROGBITS, SHT_STRTAB, SectionHeader64, Sym64,
};
use object::pod::{bytes_of, bytes_of_slice};
use object::read::elf::{FileHeader, SectionHeader};
use object::{LittleEndian, U16, U32, U64};

use super::descriptors::descriptor_name;
use super::elf::{BUILD_ID, ENDIAN, Headers, Source};
use super::{check, inflate, wide};

/// How much of one file and its debug file is copied, uncompressed. Of a larger file only the symbols are copied, without files and
/// lines, if they fit.
pub(super) const BYTES_MAX: u64 = 96 << 20;

/// Names of functions.
const SYMBOLS: [&[u8]; 4] = [b".symtab", b".strtab", b".dynsym", b".dynstr"];

/// Those of them that are wider in a 64-bit file, as which each copy is written.
const TABLES: [&[u8]; 2] = [b".symtab", b".dynsym"];

/// Files, lines and inlined functions, and better names.
const DEBUG: [&[u8]; 11] = [
    b".debug_abbrev",
    b".debug_addr",
    b".debug_aranges",
    b".debug_info",
    b".debug_line",
    b".debug_line_str",
    b".debug_ranges",
    b".debug_rnglists",
    b".debug_str",
    b".debug_str_offsets",
    b".debug_types",
];

/// What says that a part of the debug information is in another file, which several files share.
const SHARED: &[u8] = b".gnu_debugaltlink";

/// The same by DWARF 5, which isn't read: no distribution has it.
const SUPPLEMENT: &[u8] = b".debug_sup";

/// Sections begin at multiples of this, so that their content has its natural alignment.
const ALIGNMENT: u64 = 16;

/// A link to another file is not longer: a path, and a build id.
const LINK_BYTES_MAX: u64 = 4096;

/// A 32-bit file up to this size is copied as it is.
const WHOLE_BYTES_MAX: u64 = 16 << 20;

const HEADER_BYTES: usize = size_of::<FileHeader64<LittleEndian>>();
const SECTION_BYTES: usize = size_of::<SectionHeader64<LittleEndian>>();

/// A file in memory that nobody can change any more.
pub(super) struct PrivateCopy {
    pub(super) file: File,
    /// How much memory it takes.
    pub(super) bytes: u64,
    /// It has files and lines.
    pub(super) has_lines: bool,
    /// It has more symbols than those that are exported.
    pub(super) has_all_symbols: bool,
    /// The copy that it names, of what it shares with other files: it is open as long as this one is.
    pub(super) shared: Option<File>,
}

/// A section to be copied.
struct Part {
    name: &'static [u8],
    header: SectionHeader64<LittleEndian>,
    content: Content,
}

enum Content {
    /// In the file, as it is.
    InFile,
    /// Here, uncompressed.
    Here(Vec<u8>),
}

impl PrivateCopy {
    /// Copies the sections that symbols are made of, at most `max` bytes of content. `shared` has what several files share of their debug
    /// information. `None` means that there are none, or that they can't be read.
    pub(super) fn of(file: &File, headers: &Headers, shared: Option<Shared>, max: u64) -> Option<Self> {
        if !matches!(headers.file.e_type(ENDIAN), ET_EXEC | ET_DYN) {
            return None;
        }
        let mut left = max.checked_sub(shared.as_ref().map_or(0, |shared| shared.copy.bytes))?;
        let mut parts = parts(file, headers, &SYMBOLS, &mut left)?;
        // All debug information or none: a part alone may be wrong.
        let is_whole = has_lines(headers) && shared.is_some() == headers.section(SHARED).is_some();
        let debug = is_whole.then(|| debug(file, headers, &mut left)).flatten();
        let has_lines = debug.is_some();
        parts.extend(debug.unwrap_or_default());
        if parts.is_empty() {
            return None;
        }
        let has_all_symbols = parts.iter().any(|part| part.name == b".symtab");
        let shared = shared.filter(|_| has_lines);
        parts.extend(shared.as_ref().map(Shared::link));
        let (file, bytes) = write(file, headers, parts)?;
        let bytes = bytes + shared.as_ref().map_or(0, |shared| shared.copy.bytes);
        Some(Self { file, bytes, has_lines, has_all_symbols, shared: shared.map(|shared| shared.copy.file) })
    }

    /// Copies debug information that several files share, with the build id by which they name it.
    fn of_shared(file: &File, headers: &Headers, max: u64) -> Option<Self> {
        let mut left = max;
        let mut parts = parts(file, headers, &[BUILD_ID], &mut left)?;
        parts.extend(debug(file, headers, &mut left)?);
        let (file, bytes) = write(file, headers, parts)?;
        Some(Self { file, bytes, has_lines: true, has_all_symbols: true, shared: None })
    }
}

/// What several files share of their debug information: dwz has moved it into a file of its own.
pub(super) struct Shared {
    copy: PrivateCopy,
    build_id: Vec<u8>,
}

impl Shared {
    /// Copies it from the file of this build id.
    pub(super) fn of(file: &File, headers: &Headers, build_id: &[u8], max: u64) -> Option<Self> {
        let copy = PrivateCopy::of_shared(file, headers, max)?;
        Some(Self { copy, build_id: build_id.to_vec() })
    }

    /// What a copy has in place of the path of that file: the name of our own copy of it.
    fn link(&self) -> Part {
        let content = [descriptor_name(&self.copy.file).as_bytes(), &[0], &self.build_id].concat();
        let mut header = empty();
        header.sh_type = U32::new(ENDIAN, SHT_PROGBITS);
        header.sh_size = U64::new(ENDIAN, content.len() as u64);
        Part { name: SHARED, header, content: Content::Here(content) }
    }
}

/// The name of the file that has the shared part of this one's debug information, and its build id. Anybody may have written them.
pub(super) fn shared_link(file: &File, headers: &Headers) -> Option<(Vec<u8>, Vec<u8>)> {
    let section = headers.section(SHARED)?;
    let length = section.sh_size(ENDIAN).min(LINK_BYTES_MAX);
    let content = Source::File(file).read(section.sh_offset(ENDIAN), length)?;
    let end = content.iter().position(|&byte| byte == 0)?;
    Some((content.get(..end)?.to_vec(), content.get(end + 1..)?.to_vec()))
}

/// The debug information that is in this file. `None` means that it has none that may be read.
fn debug(file: &File, headers: &Headers, left: &mut u64) -> Option<Vec<Part>> {
    let is_roots = file.metadata().is_ok_and(|metadata| metadata.uid() == 0 && metadata.mode() & 0o022 == 0);
    parts(file, headers, &DEBUG, left).filter(|parts| is_roots || is_harmless(file, parts))
}

impl PrivateCopy {
    /// Copies a whole file of which only the symbol table is to be read. `None` means that it is too large, or can't be read.
    pub(super) fn of_whole(file: &File) -> Option<Self> {
        let bytes = file.metadata().ok()?.len();
        let to = (bytes <= WHOLE_BYTES_MAX).then(|| copy_whole(file, bytes)).flatten()?;
        Some(Self { file: to, bytes, has_lines: false, has_all_symbols: true, shared: None })
    }
}

/// A copy of a whole file of so many bytes. `None` means that it has become shorter, can't be read, or that there is no memory for it.
pub(crate) fn copy_whole(file: &File, bytes: u64) -> Option<File> {
    let to = create()?;
    copy_range(file, 0, &to, 0, bytes)?;
    seal(&to)?;
    Some(to)
}

/// Checks the debug information of a file that is not root's: anybody may have made it.
fn is_harmless(file: &File, parts: &[Part]) -> bool {
    let content = |name: &[u8]| match parts.iter().find(|part| part.name == name) {
        None => Some(Cow::default()),
        Some(Part { content: Content::Here(bytes), .. }) => Some(Cow::from(bytes.as_slice())),
        Some(Part { header, .. }) => {
            Source::File(file).read(header.sh_offset(ENDIAN), header.sh_size(ENDIAN)).map(Cow::from)
        }
    };
    match (content(b".debug_info"), content(b".debug_abbrev")) {
        (Some(info), Some(abbreviations)) => check::is_harmless(&info, &abbreviations),
        _ => false,
    }
}

/// Does the file itself have debug information, up to what it shares with others?
pub(super) fn has_lines(headers: &Headers) -> bool {
    headers.section(b".debug_info").is_some() && headers.section(SUPPLEMENT).is_none()
}

/// How much there is of a file's debug information, with its symbol tables, as it is in the file. `None` means that it has none.
pub(super) fn lines_bytes(file: &File, headers: &Headers) -> Option<u64> {
    let bytes = |names| bytes_of_all(file, headers, names);
    has_lines(headers).then(|| bytes(&SYMBOLS).saturating_add(bytes(&DEBUG)))
}

/// How much there is of a file's symbol tables.
pub(super) fn symbols_bytes(file: &File, headers: &Headers) -> u64 {
    bytes_of_all(file, headers, &SYMBOLS)
}

/// A section that claims more than the file has is damaged, and counts nothing.
fn bytes_of_all(file: &File, headers: &Headers, names: &[&[u8]]) -> u64 {
    let length = file.metadata().map_or(0, |metadata| metadata.len());
    let ends_in_file = |&(offset, bytes): &(u64, u64)| offset.checked_add(bytes).is_some_and(|end| end <= length);
    let sections = names.iter().filter_map(|name| headers.section(name));
    let extents = sections.map(|section| (section.sh_offset(ENDIAN), section.sh_size(ENDIAN)));
    extents.filter(ends_in_file).fold(0, |sum: u64, (_, bytes)| sum.saturating_add(bytes))
}

fn parts(file: &File, headers: &Headers, names: &[&'static [u8]], left: &mut u64) -> Option<Vec<Part>> {
    let there = names.iter().filter_map(|&name| Some((name, headers.section(name)?)));
    there.map(|(name, section)| part(file, name, section, headers, left)).collect()
}

fn part(
    file: &File,
    name: &'static [u8],
    section: &SectionHeader64<LittleEndian>,
    headers: &Headers,
    left: &mut u64,
) -> Option<Part> {
    let mut header = *section;
    let mut content = Content::InFile;
    let flags = section.sh_flags(ENDIAN);
    if let Some(compression) = headers.compression(section) {
        let compressed = Source::File(file).read(section.sh_offset(ENDIAN), section.sh_size(ENDIAN))?;
        let bytes = inflate::section(&compressed, compression, *left)?;
        header.sh_flags = U64::new(ENDIAN, flags & !u64::from(SHF_COMPRESSED));
        header.sh_size = U64::new(ENDIAN, bytes.len() as u64);
        content = Content::Here(bytes);
    }
    *left = left.checked_sub(header.sh_size(ENDIAN))?;
    if headers.is_compat && TABLES.contains(&name) {
        let bytes = Source::File(file).read(section.sh_offset(ENDIAN), section.sh_size(ENDIAN))?;
        let bytes = wide::symbols(&bytes)?;
        *left = left.checked_sub(bytes.len() as u64 - section.sh_size(ENDIAN))?;
        header.sh_size = U64::new(ENDIAN, bytes.len() as u64);
        header.sh_entsize = U64::new(ENDIAN, size_of::<Sym64<LittleEndian>>() as u64);
        content = Content::Here(bytes);
    }
    Some(Part { name, header, content })
}

/// Writes an ELF file of these sections only.
fn write(from: &File, headers: &Headers, parts: Vec<Part>) -> Option<(File, u64)> {
    let to = create()?;
    // Section 0 is empty, and the last one holds the names.
    let count = parts.len() + 2;
    let mut names = vec![0];
    let mut table = vec![empty()];
    let mut end = (HEADER_BYTES + count * SECTION_BYTES) as u64;
    let place = |end: &mut u64, length: u64| {
        let start = end.next_multiple_of(ALIGNMENT);
        *end = start.checked_add(length)?;
        Some(start)
    };
    for part in parts {
        let length = part.header.sh_size(ENDIAN);
        let start = place(&mut end, length)?;
        match part.content {
            Content::Here(bytes) => to.write_all_at(&bytes, start).ok()?,
            Content::InFile => copy_range(from, part.header.sh_offset(ENDIAN), &to, start, length)?,
        }
        let mut header = part.header;
        header.sh_name = U32::new(ENDIAN, u32::try_from(names.len()).ok()?);
        header.sh_offset = U64::new(ENDIAN, start);
        names.extend_from_slice(part.name);
        names.push(0);
        table.push(header);
    }
    let mut last = empty();
    last.sh_name = U32::new(ENDIAN, u32::try_from(names.len()).ok()?);
    names.extend_from_slice(b".shstrtab\0");
    last.sh_type = U32::new(ENDIAN, SHT_STRTAB);
    last.sh_size = U64::new(ENDIAN, names.len() as u64);
    let start = place(&mut end, names.len() as u64)?;
    last.sh_offset = U64::new(ENDIAN, start);
    to.write_all_at(&names, start).ok()?;
    table.push(last);
    to.write_all_at(bytes_of_slice(&table), HEADER_BYTES as u64).ok()?;
    let mut header = headers.file;
    header.e_phoff = U64::new(ENDIAN, 0);
    header.e_phnum = U16::new(ENDIAN, 0);
    header.e_shoff = U64::new(ENDIAN, HEADER_BYTES as u64);
    header.e_shnum = U16::new(ENDIAN, u16::try_from(count).ok()?);
    header.e_shstrndx = U16::new(ENDIAN, u16::try_from(count - 1).ok()?);
    to.write_all_at(bytes_of(&header), 0).ok()?;
    seal(&to)?;
    Some((to, end))
}

/// A file in memory with this content.
pub(super) fn in_memory(content: &[u8]) -> Option<File> {
    let file = create()?;
    file.write_all_at(content, 0).ok()?;
    Some(file)
}

fn create() -> Option<File> {
    memfd_create(c"faultline-symbols", MFdFlags::MFD_CLOEXEC | MFdFlags::MFD_ALLOW_SEALING).ok().map(File::from)
}

fn seal(file: &File) -> Option<()> {
    let seals = SealFlag::F_SEAL_SHRINK | SealFlag::F_SEAL_GROW | SealFlag::F_SEAL_WRITE | SealFlag::F_SEAL_SEAL;
    fcntl(file, FcntlArg::F_ADD_SEALS(seals)).ok().map(|_| ())
}

fn empty() -> SectionHeader64<LittleEndian> {
    SectionHeader64 {
        sh_name: U32::new(ENDIAN, 0),
        sh_type: U32::new(ENDIAN, SHT_NULL),
        sh_flags: U64::new(ENDIAN, 0),
        sh_addr: U64::new(ENDIAN, 0),
        sh_offset: U64::new(ENDIAN, 0),
        sh_size: U64::new(ENDIAN, 0),
        sh_link: U32::new(ENDIAN, 0),
        sh_info: U32::new(ENDIAN, 0),
        sh_addralign: U64::new(ENDIAN, 0),
        sh_entsize: U64::new(ENDIAN, 0),
    }
}

/// `None` means that the file ended before.
fn copy_range(from: &File, mut offset: u64, to: &File, mut at: u64, mut length: u64) -> Option<()> {
    let mut buffer = vec![0; 256 << 10];
    while length > 0 {
        let piece = buffer.get_mut(..usize::try_from(length).unwrap_or(usize::MAX).min(256 << 10))?;
        let count = from.read_at(piece, offset).ok().filter(|&count| count > 0)?;
        to.write_all_at(piece.get(..count)?, at).ok()?;
        let count = count as u64;
        (offset, at, length) = (offset.checked_add(count)?, at.checked_add(count)?, length - count);
    }
    Some(())
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A file in memory with this content.
    fn file(content: &[u8]) -> File {
        let file = File::from(memfd_create(c"test", MFdFlags::MFD_CLOEXEC).unwrap());
        file.write_all_at(content, 0).unwrap();
        file
    }

    fn copy(content: &[u8]) -> Option<PrivateCopy> {
        let file = file(content);
        PrivateCopy::of(&file, &Headers::read(&Source::File(&file))?, None, BYTES_MAX)
    }

    fn section<'a>(content: &'a [u8], name: &[u8]) -> (SectionHeader64<LittleEndian>, &'a [u8]) {
        let headers = Headers::read(&Source::Memory(content)).unwrap();
        let header = headers.section(name).unwrap();
        let start = header.sh_offset(ENDIAN) as usize;
        (*header, &content[start..start + header.sh_size(ENDIAN) as usize])
    }

    const COMPRESSED: &[u8] = include_bytes!("../../fuzz/corpus/elf/compressed");

    #[test]
    fn a_copy_has_the_sections_and_cant_be_changed() {
        let copy = copy(COMPRESSED).unwrap();
        assert!(copy.has_lines);
        let content = Source::File(&copy.file).read(0, copy.bytes).unwrap();
        let (header, symbols) = section(&content, b".symtab");
        assert_eq!(symbols, section(COMPRESSED, b".symtab").1);
        assert_eq!(header.sh_offset(ENDIAN) % ALIGNMENT, 0);
        let (header, info) = section(&content, b".debug_info");
        let (compressed, _) = section(COMPRESSED, b".debug_info");
        assert_eq!(header.sh_flags(ENDIAN) & u64::from(SHF_COMPRESSED), 0);
        assert_ne!(compressed.sh_flags(ENDIAN) & u64::from(SHF_COMPRESSED), 0);
        assert!(info.len() as u64 > compressed.sh_size(ENDIAN));
        let headers = Headers::read(&Source::Memory(&content)).unwrap();
        assert!(headers.section(b".text").is_none() && headers.section(b".shstrtab").is_some());
        assert!(copy.file.set_len(0).is_err() && copy.file.write_all_at(&[0], 0).is_err(), "it is sealed");
    }

    #[test]
    fn a_compressed_section_is_as_long_as_it_says_or_not_read() {
        let (header, _) = section(COMPRESSED, b".debug_info");
        let length_at = header.sh_offset(ENDIAN) as usize + 8;
        for lie in [0_u64, 1, 1 << 20, 1 << 45, u64::MAX] {
            let mut spoiled = COMPRESSED.to_vec();
            spoiled[length_at..length_at + 8].copy_from_slice(&lie.to_le_bytes());
            let copy = copy(&spoiled).unwrap();
            assert!(!copy.has_lines, "{lie}: the symbols are there all the same");
        }
    }

    #[test]
    fn what_is_cut_is_no_copy() {
        for length in [0, 63, 64, 200, COMPRESSED.len() - 1] {
            assert!(copy(&COMPRESSED[..length]).is_none(), "{length}");
        }
    }
}
