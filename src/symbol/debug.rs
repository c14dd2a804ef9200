//! Finds the debug file of a stripped file, as gdb does: by its build id, by its path, or by the name in the file's
//! `.gnu_debuglink`. A debug file is believed only if it has the file's own build id.

use std::fs::File;

use object::read::elf::SectionHeader;

use super::elf::{self, ENDIAN, Headers, Source};
use super::file::{MappedFile, head};
use super::request::Open;

/// No file's name is that long.
const LINK_BYTES_MAX: u64 = 512;

/// The debug file of a file that was found; `None` means that there is none with its build id.
pub(super) fn find(open: &mut dyn Open, found: &MappedFile, headers: &Headers) -> Option<File> {
    let wanted = found.build_id.as_deref()?;
    let link = found.file.as_deref().and_then(|file| linked(file, headers));
    open.debug(found.number, wanted, link.as_deref()).into_iter().find(|file| {
        let build_id = head(file).and_then(|head| elf::build_id(&head));
        build_id.as_deref() == Some(wanted) && !found.version.is_of(file)
    })
}

/// The name in `.gnu_debuglink`: anybody may have written it.
fn linked(file: &File, headers: &Headers) -> Option<Vec<u8>> {
    let section = headers.section(b".gnu_debuglink")?;
    let length = section.sh_size(ENDIAN).min(LINK_BYTES_MAX);
    let content = Source::File(file).read(section.sh_offset(ENDIAN), length)?;
    content.split(|&byte| byte == 0).next().map(<[u8]>::to_vec)
}
