//! Finds the debug file of a stripped file, as gdb does: by its build id, by its path, or by the name in the file's
//! `.gnu_debuglink`. A debug file is believed only if it has the file's own build id.

use std::ffi::OsStr;
use std::fs::File;
use std::os::unix::ffi::OsStrExt;
use std::path::{Component, Path, PathBuf};
use std::sync::Arc;

use object::read::elf::SectionHeader;

use super::elf::{self, ENDIAN, Headers, Source};
use super::file::{Found, head, open_regular};
use crate::hex::digits;

/// The folder in which distributions put debug files.
const SYSTEM: &str = "/usr/lib/debug";

/// No file's name is that long.
const LINK_BYTES_MAX: u64 = 512;

/// The folders of debug files: those of the command line, then the system's. Cheap to copy.
#[derive(Clone, Debug)]
pub struct DebugFolders(Arc<[PathBuf]>);

impl DebugFolders {
    /// `asked` come before the system's.
    pub fn new(asked: &[PathBuf]) -> Self {
        Self(asked.iter().cloned().chain([SYSTEM.into()]).collect())
    }
}

impl Default for DebugFolders {
    fn default() -> Self {
        Self::new(&[])
    }
}

/// The paths of files that may have this build id: the file itself, or its debug file.
pub(super) fn by_build_id(folders: &DebugFolders, build_id: &[u8]) -> Vec<PathBuf> {
    let id = digits(build_id);
    // A shorter one is no hash of anything.
    let Some((first, rest)) = id.split_at_checked(2).filter(|(_, rest)| rest.len() >= 6) else { return Vec::new() };
    let in_folder = |folder: &PathBuf| {
        let below = folder.join(".build-id").join(first);
        [below.join(format!("{rest}.debug")), below.join(rest)]
    };
    folders.0.iter().flat_map(in_folder).collect()
}

/// The debug file of a file that was found; `None` means that there is none with its build id.
pub(super) fn find(folders: &DebugFolders, found: &Found, headers: &Headers) -> Option<File> {
    let wanted = found.build_id.as_deref()?;
    let mut places = by_build_id(folders, wanted);
    if let Ok(below) = found.path.strip_prefix("/") {
        let mut named = below.as_os_str().to_owned();
        named.push(".debug");
        places.extend(folders.0.iter().map(|folder| folder.join(&named)));
        if let Some(link) = found.file.as_deref().and_then(|file| linked(file, headers)) {
            if let Some(beside) = &found.folder {
                places.extend([beside.join(&link), beside.join(".debug").join(&link)]);
            }
            let parent = below.parent().unwrap_or(Path::new(""));
            places.extend(folders.0.iter().map(|folder| folder.join(parent).join(&link)));
        }
    }
    places.into_iter().find_map(|place| {
        let (file, _) = open_regular(&place)?;
        let is_it = elf::build_id(&head(&file)?).as_deref() == Some(wanted) && !found.version.is_of(&file);
        is_it.then_some(file)
    })
}

/// The name in `.gnu_debuglink`, if it is the name of a file and no path: anybody may have written it.
fn linked(file: &File, headers: &Headers) -> Option<PathBuf> {
    let section = headers.section(b".gnu_debuglink")?;
    let length = section.sh_size(ENDIAN).min(LINK_BYTES_MAX);
    let content = Source::File(file).read(section.sh_offset(ENDIAN), length)?;
    let name = content.split(|&byte| byte == 0).next()?;
    plain(name)
}

fn plain(name: &[u8]) -> Option<PathBuf> {
    let path = Path::new(OsStr::from_bytes(name));
    let mut components = path.components();
    let is_plain = matches!((components.next(), components.next()), (Some(Component::Normal(first)), None) if first.as_bytes() == name);
    is_plain.then(|| path.to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_build_id_has_its_place_in_each_folder() {
        let places = by_build_id(&DebugFolders::new(&["/d".into()]), &[0xab, 0xcd, 0xef, 0x01]);
        let wanted = ["/d/.build-id/ab/cdef01.debug", "/d/.build-id/ab/cdef01"].map(PathBuf::from);
        assert_eq!(places[..2], wanted);
        assert!(places[2..].iter().all(|place| place.starts_with(SYSTEM)) && places.len() == 4);
        for short in [&[][..], &[1], &[1, 2, 3]] {
            assert!(by_build_id(&DebugFolders::default(), short).is_empty());
        }
    }

    #[test]
    fn a_link_is_a_name_and_no_way() {
        assert_eq!(plain(b"x.debug"), Some("x.debug".into()));
        for way in [&b""[..], b"/", b".", b"..", b"../x", b"a/x", b"/x", b"x/", b"./x"] {
            assert_eq!(plain(way), None, "{way:?}");
        }
    }
}
