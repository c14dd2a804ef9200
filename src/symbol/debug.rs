//! Finds the debug file of a stripped file, as gdb does: by its build id, by its path, or by the name in the file's
//! `.gnu_debuglink`. A debug file is used only if it has the file's own build id; of a file without one, if it has the checksum that stands
//! beside that name. Also files that belong to a debug file, or take its place.

use std::fs::File;

use object::read::elf::SectionHeader;

use super::copy::{Shared, in_memory, shared_link};
use super::elf::{self, ENDIAN, Headers, Source};
use super::file::{MappedFile, head};
use super::inflate;
use super::request::Open;

/// No file's name is that long.
const LINK_BYTES_MAX: u64 = 512;

/// A checksum, which begins at a multiple of so many bytes.
const SUM_BYTES: usize = size_of::<u32>();

/// A longer file is not read for its checksum.
const SUMMED_BYTES_MAX: u64 = 512 << 20;

/// So much of it is read at once.
const PIECE_BYTES: usize = 1 << 20;

/// The debug file of a file that was found; `None` means that there is none that is surely its own.
pub(super) fn find(open: &mut dyn Open, found: &MappedFile, headers: &Headers) -> Option<File> {
    let link = found.file.as_deref().and_then(|file| linked(file, headers));
    let (name, sum) = link.unzip();
    let wanted = found.build_id.as_deref();
    if wanted.is_none() && name.is_none() {
        return None;
    }
    open.debug(found.number, wanted.unwrap_or_default(), name.as_deref()).into_iter().find(|file| {
        let is_its_own = match wanted {
            Some(_) => head(file).and_then(|head| elf::build_id(&head)).as_deref() == wanted,
            None => sum.flatten().is_some_and(|sum| checksum(file) == Some(sum)),
        };
        is_its_own && !found.version.is_of(file)
    })
}

/// The name in `.gnu_debuglink`, and the checksum of the file that is meant: anybody may have written them.
fn linked(file: &File, headers: &Headers) -> Option<(Vec<u8>, Option<u32>)> {
    let section = headers.section(b".gnu_debuglink")?;
    let length = section.sh_size(ENDIAN).min(LINK_BYTES_MAX);
    let content = Source::File(file).read(section.sh_offset(ENDIAN), length)?;
    let name = content.split(|&byte| byte == 0).next()?;
    let sum = content.get((name.len() + 1).next_multiple_of(SUM_BYTES)..).and_then(|rest| rest.first_chunk());
    Some((name.to_vec(), sum.map(|sum| u32::from_le_bytes(*sum))))
}

/// The CRC of a whole file. `None` means that it is too large, or can't be read.
fn checksum(file: &File) -> Option<u32> {
    let length = file.metadata().ok().map(|metadata| metadata.len()).filter(|&length| length <= SUMMED_BYTES_MAX)?;
    let mut sum = flate2::Crc::new();
    for start in (0..length).step_by(PIECE_BYTES) {
        sum.update(&Source::File(file).read(start, (length - start).min(PIECE_BYTES as u64))?);
    }
    Some(sum.sum())
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
