//! The places of debug files: folders of the host that root owns, so that nobody else has put a file there, and none that only root may
//! read is given away.

use std::ffi::OsStr;
use std::fs::{self, File, Metadata};
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::MetadataExt;
use std::path::{Component, Path, PathBuf};

use crate::hex::digits;
use crate::symbol::{open_regular, place_of};

/// The folder in which distributions put debug files.
const SYSTEM: &str = "/usr/lib/debug";

/// In each of these folders, the one of what several debug files share.
const SHARED: &str = ".dwz";

/// Others may write.
const WRITABLE: u32 = 0o022;
const STICKY: u32 = 0o1000;

/// The folders of debug files: those of the command line, then the system's.
pub(super) struct DebugFolders(Vec<PathBuf>);

/// A debug file to be found.
pub(super) struct Stripped<'a> {
    pub(super) build_id: &'a [u8],
    /// Absolute, as the process saw it. `None` means that it isn't known.
    pub(super) path: Option<&'a Path>,
    /// The folder of the host's in which the stripped file itself was found.
    pub(super) folder: Option<&'a Path>,
    /// The name in its `.gnu_debuglink`, or the path in a debug file's `.gnu_debugaltlink`.
    pub(super) link: Option<&'a [u8]>,
    /// Nobody but root can have written it: it may have a debug file that only root may read.
    pub(super) is_roots: bool,
}

impl DebugFolders {
    /// `asked` come before the system's.
    pub(super) fn new(asked: Vec<PathBuf>) -> Self {
        Self(asked.into_iter().chain([SYSTEM.into()]).collect())
    }

    /// All that lie where its debug file may be.
    pub(super) fn open(&self, stripped: &Stripped<'_>) -> Vec<File> {
        self.places(stripped).into_iter().filter_map(|place| open_trusted(&place, stripped.is_roots)).collect()
    }

    fn places(&self, stripped: &Stripped<'_>) -> Vec<PathBuf> {
        let mut places = self.by_build_id(stripped.build_id);
        if let Some(shared) = stripped.link.and_then(shared) {
            places.extend(self.0.iter().map(|folder| folder.join(SHARED).join(&shared)));
        }
        let Some(below) = stripped.path.and_then(|path| path.strip_prefix("/").ok()) else { return places };
        let mut named = below.as_os_str().to_owned();
        named.push(".debug");
        places.extend(self.0.iter().map(|folder| folder.join(&named)));
        if let Some(link) = stripped.link.and_then(plain) {
            if let Some(beside) = stripped.folder {
                places.extend([beside.join(link), beside.join(".debug").join(link)]);
            }
            let parent = below.parent().unwrap_or(Path::new(""));
            places.extend(self.0.iter().map(|folder| folder.join(parent).join(link)));
        }
        // A path of the process's own, with `..` in it, could leave the folder.
        places.retain(|place| place.components().all(|part| part != Component::ParentDir));
        places
    }

    fn by_build_id(&self, build_id: &[u8]) -> Vec<PathBuf> {
        let id = digits(build_id);
        // A shorter one is no hash of anything.
        let Some((first, rest)) = id.split_at_checked(2).filter(|(_, rest)| rest.len() >= 6) else { return Vec::new() };
        let in_folder = |folder: &PathBuf| {
            let below = folder.join(".build-id").join(first);
            [below.join(format!("{rest}.debug")), below.join(rest)]
        };
        self.0.iter().flat_map(in_folder).collect()
    }
}

/// The path below the folder of what debug files share, of a link to such a file: an absolute path in Debian, one relative to the debug file in
/// Fedora. `None` means that it leads elsewhere.
fn shared(link: &[u8]) -> Option<PathBuf> {
    let mut components = Path::new(OsStr::from_bytes(link)).components();
    components.find(|part| part.as_os_str() == SHARED)?;
    let rest = components.as_path();
    let is_below = rest.components().all(|part| matches!(part, Component::Normal(_)));
    (is_below && rest != Path::new("")).then(|| rest.to_owned())
}

/// Is it the name of a file and no path?
fn plain(name: &[u8]) -> Option<&Path> {
    let path = Path::new(OsStr::from_bytes(name));
    let mut components = path.components();
    let is_plain = matches!((components.next(), components.next()), (Some(Component::Normal(first)), None) if first.as_bytes() == name);
    is_plain.then_some(path)
}

/// The file at this place, if both the place and the file itself, wherever links have led, are to be trusted.
fn open_trusted(place: &Path, may_be_secret: bool) -> Option<File> {
    let (file, metadata) = open_regular(place)?;
    // A link of another user, in a sticky folder, may have led into a folder that only root may enter.
    let found = place_of(&file)?;
    let is_trusted = |place: &Path| is_trusted(place, &metadata, may_be_secret);
    (is_trusted(place) && is_trusted(&found)).then_some(file)
}

/// Does nobody but root, or the user that we are, decide what lies there, and may everybody read it?
pub(super) fn is_trusted(place: &Path, file: &Metadata, may_be_secret: bool) -> bool {
    let own = nix::unistd::geteuid().as_raw();
    let is_ours = |metadata: &Metadata| [0, own].contains(&metadata.uid());
    let mut folders = place.ancestors().skip(1).map(|folder| fs::metadata(folder).ok());
    let is_public = |metadata: &Metadata, bit: u32| may_be_secret || metadata.mode() & bit != 0;
    let Some(Some(parent)) = folders.next() else { return false };
    let is_folder_trusted = |folder: Option<Metadata>| {
        // In a sticky folder nobody can take away what is ours.
        folder.is_some_and(|folder| {
            is_ours(&folder)
                && (folder.mode() & WRITABLE == 0 || folder.mode() & STICKY != 0)
                && is_public(&folder, 0o001)
        })
    };
    is_ours(file)
        && file.mode() & WRITABLE == 0
        && is_public(file, 0o004)
        && is_ours(&parent)
        && parent.mode() & WRITABLE == 0
        && is_public(&parent, 0o001)
        && folders.all(is_folder_trusted)
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::{PermissionsExt, chown, symlink};

    use super::*;

    #[test]
    fn a_build_id_has_its_place_in_each_folder() {
        let folders = DebugFolders::new(vec!["/d".into()]);
        let places = folders.by_build_id(&[0xab, 0xcd, 0xef, 0x01]);
        let wanted = ["/d/.build-id/ab/cdef01.debug", "/d/.build-id/ab/cdef01"].map(PathBuf::from);
        assert_eq!(places[..2], wanted);
        assert!(places[2..].iter().all(|place| place.starts_with(SYSTEM)) && places.len() == 4);
        for short in [&[][..], &[1], &[1, 2, 3]] {
            assert!(folders.by_build_id(short).is_empty());
        }
    }

    #[test]
    fn a_link_is_a_name_and_no_way() {
        assert_eq!(plain(b"x.debug"), Some(Path::new("x.debug")));
        for way in [&b""[..], b"/", b".", b"..", b"../x", b"a/x", b"/x", b"x/", b"./x"] {
            assert_eq!(plain(way), None, "{way:?}");
        }
    }

    #[test]
    fn what_is_shared_lies_in_one_folder() {
        for link in ["/usr/lib/debug/.dwz/x86_64-linux-gnu/x.debug", "../../.dwz/x86_64-linux-gnu/x.debug"] {
            assert_eq!(shared(link.as_bytes()), Some("x86_64-linux-gnu/x.debug".into()));
        }
        for way in ["", "/etc/passwd", ".dwz", "/.dwz/", ".dwz/../x", ".dwz/a/../../x", "x.debug"] {
            assert_eq!(shared(way.as_bytes()), None, "{way}");
        }
        let stripped = Stripped {
            build_id: &[1; 20],
            path: None,
            folder: None,
            link: Some(b"/usr/lib/debug/.dwz/a/x.debug"),
            is_roots: false,
        };
        assert!(DebugFolders::new(vec!["/d".into()]).places(&stripped).contains(&"/d/.dwz/a/x.debug".into()));
    }

    #[test]
    fn only_what_is_ours_alone_and_everybodys_to_read_is_a_debug_file() {
        let folder = std::env::temp_dir().join(format!("faultline-folders-{}", std::process::id()));
        let place = folder.join("x.debug");
        fs::create_dir(&folder).unwrap();
        fs::write(&place, b"").unwrap();
        let is_trusted = |folder_mode: u32, mode: u32, may_be_secret: bool| {
            fs::set_permissions(&folder, fs::Permissions::from_mode(folder_mode)).unwrap();
            fs::set_permissions(&place, fs::Permissions::from_mode(mode)).unwrap();
            is_trusted(&place, &fs::metadata(&place).unwrap(), may_be_secret)
        };
        assert!(is_trusted(0o755, 0o644, false));
        assert!(!is_trusted(0o755, 0o600, false) && is_trusted(0o755, 0o600, true));
        assert!(!is_trusted(0o700, 0o644, false) && is_trusted(0o700, 0o644, true));
        assert!(!is_trusted(0o777, 0o644, true), "anybody may have put it there");
        assert!(!is_trusted(0o1777, 0o644, true), "anybody may have put it there");
        assert!(!is_trusted(0o755, 0o666, true), "anybody may have written it");
        if nix::unistd::geteuid().is_root() {
            chown(&place, Some(65534), None).unwrap();
            assert!(!is_trusted(0o755, 0o644, true), "it is somebody's");
        }
        fs::remove_dir_all(&folder).unwrap();
    }

    #[test]
    fn a_link_makes_nothing_public_that_it_leads_to() {
        let folder = std::env::temp_dir().join(format!("faultline-folders-link-{}", std::process::id()));
        let (inner, link) = (folder.join("secret/inner"), folder.join("link"));
        fs::create_dir_all(&inner).unwrap();
        fs::write(inner.join("x.debug"), b"").unwrap();
        symlink(&inner, &link).unwrap();
        let is_opened = |mode: u32, may_be_secret: bool| {
            fs::set_permissions(folder.join("secret"), fs::Permissions::from_mode(mode)).unwrap();
            open_trusted(&link.join("x.debug"), may_be_secret).is_some()
        };
        assert!(is_opened(0o755, false));
        assert!(!is_opened(0o700, false), "only we may enter the folder that it is in");
        assert!(is_opened(0o700, true));
        fs::remove_dir_all(&folder).unwrap();
    }
}
