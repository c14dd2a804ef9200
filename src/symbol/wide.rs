//! The headers and symbol tables of 32-bit files with the fields that 64-bit files have.

use object::elf::{
    ELFCLASS64, FileHeader32, FileHeader64, Ident, ProgramHeader32, ProgramHeader64, SectionHeader32, SectionHeader64,
    Sym32, Sym64,
};
use object::pod::{bytes_of, slice_from_bytes};
use object::{LittleEndian, U16, U64};

/// A word of 32 bits in one of 64.
fn word(narrow: object::U32<LittleEndian>) -> U64<LittleEndian> {
    U64::new(LittleEndian, narrow.get(LittleEndian).into())
}

/// The size of a 64-bit header.
fn size<T>() -> U16<LittleEndian> {
    U16::new(LittleEndian, size_of::<T>() as u16)
}

pub(super) fn file(narrow: &FileHeader32<LittleEndian>) -> FileHeader64<LittleEndian> {
    FileHeader64 {
        e_ident: Ident { class: ELFCLASS64, ..narrow.e_ident },
        e_type: narrow.e_type,
        e_machine: narrow.e_machine,
        e_version: narrow.e_version,
        e_entry: word(narrow.e_entry),
        e_phoff: word(narrow.e_phoff),
        e_shoff: word(narrow.e_shoff),
        e_flags: narrow.e_flags,
        e_ehsize: size::<FileHeader64<LittleEndian>>(),
        e_phentsize: size::<ProgramHeader64<LittleEndian>>(),
        e_phnum: narrow.e_phnum,
        e_shentsize: size::<SectionHeader64<LittleEndian>>(),
        e_shnum: narrow.e_shnum,
        e_shstrndx: narrow.e_shstrndx,
    }
}

pub(super) fn program(narrow: &ProgramHeader32<LittleEndian>) -> ProgramHeader64<LittleEndian> {
    ProgramHeader64 {
        p_type: narrow.p_type,
        p_flags: narrow.p_flags,
        p_offset: word(narrow.p_offset),
        p_vaddr: word(narrow.p_vaddr),
        p_paddr: word(narrow.p_paddr),
        p_filesz: word(narrow.p_filesz),
        p_memsz: word(narrow.p_memsz),
        p_align: word(narrow.p_align),
    }
}

pub(super) fn section(narrow: &SectionHeader32<LittleEndian>) -> SectionHeader64<LittleEndian> {
    SectionHeader64 {
        sh_name: narrow.sh_name,
        sh_type: narrow.sh_type,
        sh_flags: word(narrow.sh_flags),
        sh_addr: word(narrow.sh_addr),
        sh_offset: word(narrow.sh_offset),
        sh_size: word(narrow.sh_size),
        sh_link: narrow.sh_link,
        sh_info: narrow.sh_info,
        sh_addralign: word(narrow.sh_addralign),
        sh_entsize: word(narrow.sh_entsize),
    }
}

/// A symbol table. `None` means that it has a part of a symbol at its end.
pub(super) fn symbols(narrow: &[u8]) -> Option<Vec<u8>> {
    let entry = size_of::<Sym32<LittleEndian>>();
    let (symbols, rest) = slice_from_bytes::<Sym32<LittleEndian>>(narrow, narrow.len() / entry).ok()?;
    let wide = |symbol: &Sym32<LittleEndian>| Sym64 {
        st_name: symbol.st_name,
        st_info: symbol.st_info,
        st_other: symbol.st_other,
        st_shndx: symbol.st_shndx,
        st_value: word(symbol.st_value),
        st_size: word(symbol.st_size),
    };
    rest.is_empty().then(|| symbols.iter().flat_map(|symbol| bytes_of(&wide(symbol)).to_vec()).collect())
}
