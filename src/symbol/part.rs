//! Finds the part of a file that an offset is in.

use super::elf::{Headers, Source};
use super::file::MappedFile;
use crate::evidence::FilePart;

impl MappedFile {
    /// The part that holds `offset`. `None` means that it is no ELF file of this machine, or that it is gone.
    pub(crate) fn part(&self, offset: u64) -> Option<FilePart> {
        let file = self.file.as_deref()?;
        let headers = Headers::read(&Source::File(file))?;
        let section = headers.section_at(offset).map(|name| String::from_utf8_lossy(name).into_owned());
        let part = FilePart { section, is_relocated: headers.is_relocated(offset) };
        self.version.is_of(file).then_some(part).filter(FilePart::fits)
    }
}

#[cfg(test)]
mod tests {
    use std::path::Path;

    use super::*;

    #[test]
    fn libc_has_constants_and_what_is_relocated() {
        let libc = MappedFile::at(Path::new("/lib/x86_64-linux-gnu/libc.so.6")).unwrap();
        let headers = Headers::read(&Source::File(libc.file.as_deref().unwrap())).unwrap();
        let offset = |name: &[u8]| {
            object::read::elf::SectionHeader::sh_offset(headers.section(name).unwrap(), super::super::elf::ENDIAN)
        };
        let part = |name: &[u8]| libc.part(offset(name)).unwrap();
        assert!(part(b".rodata").has_constants() && !part(b".rodata").is_relocated);
        assert!(part(b".data.rel.ro").is_relocated && !part(b".data.rel.ro").has_constants());
        assert_eq!(part(b".eh_frame").section.as_deref(), Some(".eh_frame"));
        assert_eq!(libc.part(0), Some(FilePart::default()), "the header is in no section");
        assert_eq!(MappedFile::at(Path::new("/etc/passwd")).unwrap().part(0), None);
    }
}
