//! Finds the address of a variable in a process, from the dynamic symbols of its file, which stripped files have, too.

use std::fs::File;
use std::path::Path;

use object::elf::{STT_OBJECT, Sym64};
use object::pod::slice_from_bytes;
use object::read::elf::{SectionHeader, Sym};
use object::{LittleEndian, SectionIndex};

use super::elf::{self, ENDIAN, Headers};
use super::file::{MappedFile, head, open_regular};
use crate::evidence::FileId;

/// A file of this machine with its build id, and the address of one of its variables.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Variable {
    /// The file's inode number.
    pub inode: u64,
    /// Its device, by the kernel's number: major << 20 | minor.
    pub device: u32,
    /// The file's build id.
    pub build_id: Vec<u8>,
    /// The variable's address in a process that has mapped the file at address 0.
    pub address: u64,
}

impl Variable {
    /// The variable `name` of the file at `path`. `None` means that there is no such file, build id or variable.
    pub(crate) fn of(path: &Path, name: &[u8]) -> Option<Self> {
        let (file, metadata) = open_regular(path)?;
        let build_id = elf::build_id(&head(&file)?)?;
        let address = address(&file, name)?;
        let id = FileId::of(&metadata);
        Some(Self { inode: id.inode, device: u32::try_from(id.device).ok()?, build_id, address })
    }
}

impl MappedFile {
    /// The [`Variable::address`]. `None` means that there is no such variable, or that the file is gone.
    pub(crate) fn variable(&self, name: &[u8]) -> Option<u64> {
        let file = self.file.as_deref()?;
        let address = address(file, name)?;
        self.version.is_of(file).then_some(address)
    }
}

/// Only if the file has one segment with code: then the distance from it to the variable is always the same.
fn address(file: &File, name: &[u8]) -> Option<u64> {
    let source = elf::Source::File(file);
    let headers = Headers::read(&source)?;
    let [code] = &headers.code()[..] else { return None };
    let section = |name: &[u8]| {
        let section = headers.section(name)?;
        source.read(section.sh_offset(ENDIAN), section.sh_size(ENDIAN))
    };
    let (symbols, names) = (section(b".dynsym")?, section(b".dynstr")?);
    let count = symbols.len() / size_of::<Sym64<LittleEndian>>();
    let (symbols, _) = slice_from_bytes::<Sym64<LittleEndian>>(&symbols, count).ok()?;
    let is_it = |symbol: &&Sym64<LittleEndian>| {
        let rest = names.get(symbol.st_name(ENDIAN) as usize..).unwrap_or_default();
        symbol.st_type() == STT_OBJECT
            && symbol.st_shndx(ENDIAN) != SectionIndex(0).0 as u16
            && rest.strip_prefix(name).is_some_and(|end| end.first() == Some(&0))
    };
    let symbol = symbols.iter().find(is_it)?;
    Some(symbol.st_value(ENDIAN).wrapping_sub(code.address.start).wrapping_add(code.offset.start))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn libc_has_its_message_and_no_other() {
        let libc = Path::new("/lib/x86_64-linux-gnu/libc.so.6");
        let found = Variable::of(libc, b"__abort_msg").unwrap();
        assert_eq!(MappedFile::at(libc).unwrap().variable(b"__abort_msg"), Some(found.address));
        assert_eq!(MappedFile::at(libc).unwrap().build_id, Some(found.build_id));
        assert_eq!(Variable::of(libc, b"__abort_ms"), None, "the beginning of a name is another name");
        assert_eq!(Variable::of(libc, b"abort"), None, "a function");
        assert_eq!(Variable::of(Path::new("/etc/passwd"), b"__abort_msg"), None);
    }
}
