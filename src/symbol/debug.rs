//! Finds the debug file of a stripped file, as gdb does: by its build id, by its path, or by the name in the file's
//! `.gnu_debuglink`. A debug file is used only if it has the file's own build id. Also files that belong to a debug file, or take its place.

use std::fs::File;

use object::read::elf::SectionHeader;

use super::copy::{Shared, in_memory, shared_link};
use super::elf::{self, ENDIAN, Headers, Source};
use super::file::{MappedFile, head};
use super::inflate;
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

/// The file of symbols that a stripped file carries compressed, if it is at most `max` bytes. A file with a symbol table of its own needs none.
pub(super) fn embedded(file: &File, headers: &Headers, max: u64) -> Option<File> {
    if headers.section(b".symtab").is_some() {
        return None;
    }
    let section = headers.section(b".gnu_debugdata")?;
    let compressed = Source::File(file).read(section.sh_offset(ENDIAN), section.sh_size(ENDIAN))?;
    in_memory(&inflate::xz(&compressed, max)?)
}

/// What a file shares of its debug information with others, if it is to be had: `.gnu_debugaltlink`. The other file is believed only if it
/// has the build id that stands there.
pub(super) fn shared(
    open: &mut dyn Open,
    found: &MappedFile,
    file: &File,
    headers: &Headers,
    max: u64,
) -> Option<Shared> {
    let (path, wanted) = shared_link(file, headers)?;
    let candidates = open.debug(found.number, &wanted, Some(&path));
    candidates.into_iter().find_map(|other| {
        let headers = Headers::read_any(&Source::File(&other))?;
        let build_id = headers.build_id(&Source::File(&other));
        (build_id.as_deref() == Some(&wanted)).then(|| Shared::of(&other, &headers, &wanted, max)).flatten()
    })
}
