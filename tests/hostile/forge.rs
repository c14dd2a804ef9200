//! Executables made byte by byte: what no linker would make, and the kernel runs all the same.

use std::fs;
use std::io::Write;
use std::os::unix::fs::PermissionsExt;
use std::path::Path;
use std::sync::atomic::{AtomicU32, Ordering};

use crate::harness::copy_executable;

/// Where the file is in memory.
pub(crate) const BASE: u64 = 0x40_0000;

/// Where its code is, in the file.
pub(crate) const CODE: u64 = 0x400;

/// What it maps.
const MAPPED: u64 = 0x1000;

/// `movl $0, 0`
const CRASH: [u8; 11] = [0xc7, 0x04, 0x25, 0, 0, 0, 0, 0, 0, 0, 0];

const PROGRAM_BYTES: usize = 56;
const NT_GNU_BUILD_ID: u32 = 3;

const PROGBITS: u32 = 1;
const SYMTAB: u32 = 2;
const STRTAB: u32 = 3;
const DYNSYM: u32 = 11;

/// A section, true or not.
pub(crate) struct Section {
    name: &'static str,
    kind: u32,
    flags: u64,
    content: Vec<u8>,
    /// `None` means that it says the truth of where it is, and how long.
    claims: Option<(u64, u64)>,
}

impl Section {
    pub(crate) fn new(name: &'static str, content: impl Into<Vec<u8>>) -> Self {
        let kind = match name {
            ".symtab" => SYMTAB,
            ".dynsym" => DYNSYM,
            ".strtab" | ".dynstr" => STRTAB,
            _ => PROGBITS,
        };
        Self { name, kind, flags: 0, content: content.into(), claims: None }
    }

    /// Compressed by zlib; says that it has `claimed` bytes uncompressed.
    pub(crate) fn compressed(name: &'static str, content: &[u8], claimed: Option<u64>) -> Self {
        // Elf64_Chdr: ELFCOMPRESS_ZLIB, size, alignment.
        let mut bytes = [1_u32, 0].iter().flat_map(|word| word.to_le_bytes()).collect::<Vec<_>>();
        bytes.extend(claimed.unwrap_or(content.len() as u64).to_le_bytes());
        bytes.extend(1_u64.to_le_bytes());
        let mut encoder = flate2::write::ZlibEncoder::new(bytes, flate2::Compression::best());
        encoder.write_all(content).unwrap();
        Self { flags: 0x800, ..Self::new(name, encoder.finish().unwrap()) }
    }

    /// It says that it lies elsewhere.
    pub(crate) fn claiming(self, offset: u64, bytes: u64) -> Self {
        Self { claims: Some((offset, bytes)), ..self }
    }
}

/// A program that dies at its entry.
pub(crate) struct Forgery {
    pub code: Vec<u8>,
    pub sections: Vec<Section>,
    /// Of its notes, from where they begin in the file. `None` means a build id of its own.
    pub notes: Option<Vec<u8>>,
    /// More program headers like its first one. The kernel takes none for a program that has many.
    pub more_programs: usize,
}

impl Forgery {
    pub(crate) fn of(sections: Vec<Section>) -> Self {
        Self { code: CRASH.to_vec(), sections, notes: None, more_programs: 0 }
    }

    /// With one symbol of this name, which all of its code is.
    pub(crate) fn named(name: &str, mut sections: Vec<Section>) -> Self {
        let mut names = vec![0];
        names.extend(name.as_bytes());
        names.push(0);
        sections.extend([Section::new(".symtab", [[0; 24], symbol(1, 64)].concat()), Section::new(".strtab", names)]);
        Self::of(sections)
    }

    /// Writes it as a program of this path.
    pub(crate) fn write(&self, path: &Path) {
        let draft = path.with_extension("draft");
        fs::write(&draft, self.bytes()).unwrap();
        fs::set_permissions(&draft, fs::Permissions::from_mode(0o755)).unwrap();
        copy_executable(&draft, path);
        fs::remove_file(&draft).unwrap();
    }

    pub(crate) fn bytes(&self) -> Vec<u8> {
        let notes = self.notes.clone().unwrap_or_else(own_build_id);
        let programs = [program(1, 5, 0, MAPPED), program(4, 4, 0x100, notes.len() as u64)];
        let mut file = vec![0; 64];
        file.extend(programs.concat());
        file.resize(0x100, 0);
        file.extend(&notes);
        assert!(file.len() as u64 <= CODE);
        file.resize(CODE as usize, 0);
        file.extend(&self.code);
        file.resize(MAPPED as usize, 0);
        let (mut table, mut names) = (vec![0; 64], vec![0]);
        let own_names = Section { kind: STRTAB, ..Section::new(".shstrtab", Vec::new()) };
        let count = self.sections.len() + 2;
        for (number, section) in self.sections.iter().chain([&own_names]).enumerate() {
            let name = names.len() as u32;
            names.extend(section.name.as_bytes());
            names.push(0);
            let content = if number + 2 == count { &names } else { &section.content };
            let (offset, bytes) = section.claims.unwrap_or((file.len() as u64, content.len() as u64));
            table.extend(header(section, name, offset, bytes, number as u32 + 2));
            file.extend(content);
            file.resize(file.len().next_multiple_of(16), 0);
        }
        let sections_at = file.len() as u64;
        file.extend(table);
        let mut programs_at = 64;
        if self.more_programs > 0 {
            programs_at = file.len() as u64;
            file.extend(programs.concat());
            file.extend(programs[0].repeat(self.more_programs));
        }
        let head = head(programs_at, 2 + self.more_programs as u16, sections_at, count as u16);
        file[..64].copy_from_slice(&head);
        file
    }
}

/// A symbol whose name is at `name`, of the code's first `bytes`.
pub(crate) fn symbol(name: u32, bytes: u64) -> [u8; 24] {
    let mut symbol = [0; 24];
    symbol[..4].copy_from_slice(&name.to_le_bytes());
    // STB_GLOBAL and STT_FUNC, in the first section.
    symbol[4] = 0x12;
    symbol[6] = 1;
    symbol[8..16].copy_from_slice(&(BASE + CODE).to_le_bytes());
    symbol[16..].copy_from_slice(&bytes.to_le_bytes());
    symbol
}

/// A note: lengths of name and content as they are said, and what comes behind them.
pub(crate) fn note(name_bytes: u32, content_bytes: u32, kind: u32, rest: &[u8]) -> Vec<u8> {
    let mut note: Vec<u8> = [name_bytes, content_bytes, kind].iter().flat_map(|word| word.to_le_bytes()).collect();
    note.extend(rest);
    note
}

fn own_build_id() -> Vec<u8> {
    static NEXT: AtomicU32 = AtomicU32::new(0);
    let mut id = [0xfa; 20];
    id[..4].copy_from_slice(&std::process::id().to_le_bytes());
    id[4..8].copy_from_slice(&NEXT.fetch_add(1, Ordering::Relaxed).to_le_bytes());
    note(4, 20, NT_GNU_BUILD_ID, &[b"GNU\0", &id[..]].concat())
}

fn head(programs_at: u64, programs: u16, sections_at: u64, sections: u16) -> Vec<u8> {
    let mut head = b"\x7fELF\x02\x01\x01".to_vec();
    head.resize(16, 0);
    // ET_EXEC, EM_X86_64, version, entry.
    head.extend([2, 0, 62, 0, 1, 0, 0, 0]);
    for word in [BASE + CODE, programs_at, sections_at] {
        head.extend(word.to_le_bytes());
    }
    head.extend([0; 4]);
    for half in [64, PROGRAM_BYTES as u16, programs, 64, sections, sections - 1] {
        head.extend(half.to_le_bytes());
    }
    head
}

fn program(kind: u32, flags: u32, offset: u64, bytes: u64) -> Vec<u8> {
    let mut program: Vec<u8> = [kind, flags].iter().flat_map(|word| word.to_le_bytes()).collect();
    let alignment = if kind == 1 { MAPPED } else { 4 };
    for word in [offset, BASE + offset, BASE + offset, bytes, bytes, alignment] {
        program.extend(word.to_le_bytes());
    }
    program
}

fn header(section: &Section, name: u32, offset: u64, bytes: u64, link: u32) -> Vec<u8> {
    let mut header: Vec<u8> = [name, section.kind].iter().flat_map(|word| word.to_le_bytes()).collect();
    for word in [section.flags, 0, offset, bytes] {
        header.extend(word.to_le_bytes());
    }
    header.extend(link.to_le_bytes());
    header.extend([0; 4]);
    for word in [1, if [SYMTAB, DYNSYM].contains(&section.kind) { 24_u64 } else { 0 }] {
        header.extend(word.to_le_bytes());
    }
    header
}

/// A little-endian number of base 128, as DWARF has them.
pub(crate) fn leb(mut value: u64) -> Vec<u8> {
    let mut bytes = Vec::new();
    while value > 0x7f {
        bytes.push(value as u8 | 0x80);
        value >>= 7;
    }
    bytes.push(value as u8);
    bytes
}

/// A unit of DWARF 4: length, version, offset of the abbreviations, size of an address, entries.
pub(crate) fn unit(entries: &[u8]) -> Vec<u8> {
    let mut unit = (entries.len() as u32 + 7).to_le_bytes().to_vec();
    unit.extend([4, 0, 0, 0, 0, 0, 8]);
    unit.extend(entries);
    unit
}
