//! Finds a path below a folder where openat2(2) is refused: systemd's `RestrictSUIDSGID=` and `DynamicUser=` refuse all of it, because a
//! filter can't see its flags. Each part of the path is looked up from the folder before it, so that nothing that is renamed or
//! replaced meanwhile leads out of the first one.

use std::ffi::{CStr, OsStr, OsString};
use std::fs::File;
use std::os::unix::ffi::OsStrExt;
use std::path::{Component, Path};

use rustix::fs::{FileType, FsWord, Mode, OFlags, PROC_SUPER_MAGIC, ResolveFlags, fstat, fstatfs, openat, readlinkat};

/// Of a folder in which nothing is mounted yet: linux/magic.h.
const AUTOFS_SUPER_MAGIC: FsWord = 0x0187;

/// How many links are followed: as many as the kernel follows.
const LINKS_MAX: usize = 40;

/// The text of a link that is open itself.
const ITSELF: &CStr = c"";

/// What lies at `path` below `folder`, whatever it is: a descriptor that can't be read from. Knows IN_ROOT, BENEATH and NO_SYMLINKS as openat2(2)
/// does; no link of /proc is followed, and nothing is mounted because of it.
pub(super) fn look(folder: &File, path: &Path, resolve: ResolveFlags) -> Option<File> {
    let is_root = resolve.contains(ResolveFlags::IN_ROOT);
    // The folder, and those below it on the way to what is being looked up.
    let mut way = vec![folder.try_clone().ok()?];
    // The last part comes first.
    let mut rest = Vec::new();
    add(&mut rest, path, is_root)?;
    let mut links = 0;
    while let Some(part) = rest.pop() {
        if part == ".." {
            match way.len() {
                // The root is its own parent.
                1 if is_root => {}
                1 => return None,
                _ => drop(way.pop()),
            }
            continue;
        }
        // To look up something there may mount it.
        if fstatfs(way.last()?).ok()?.f_type == AUTOFS_SUPER_MAGIC {
            return None;
        }
        let flags = OFlags::PATH | OFlags::NOFOLLOW | OFlags::CLOEXEC;
        let found = File::from(openat(way.last()?, &part, flags, Mode::empty()).ok()?);
        if FileType::from_raw_mode(fstat(&found).ok()?.st_mode) != FileType::Symlink {
            way.push(found);
            continue;
        }
        links += 1;
        let is_of_proc = fstatfs(&found).ok()?.f_type == PROC_SUPER_MAGIC;
        if links > LINKS_MAX || is_of_proc || resolve.contains(ResolveFlags::NO_SYMLINKS) {
            return None;
        }
        let to = readlinkat(&found, ITSELF, Vec::new()).ok()?;
        let to = Path::new(OsStr::from_bytes(to.to_bytes()));
        if to.is_absolute() {
            way.truncate(1);
        }
        add(&mut rest, to, is_root)?;
    }
    way.pop()
}

/// Puts the parts of a path before those that are left. `None`: it begins at a root, and there is none.
fn add(rest: &mut Vec<OsString>, path: &Path, is_root: bool) -> Option<()> {
    if path.is_absolute() && !is_root {
        return None;
    }
    let is_part = |part: &Component<'_>| matches!(part, Component::Normal(_) | Component::ParentDir);
    rest.extend(path.components().rev().filter(is_part).map(|part| part.as_os_str().to_owned()));
    Some(())
}

#[cfg(test)]
mod tests {
    use std::fs;
    use std::os::unix::fs::{MetadataExt, symlink};

    use rustix::fs::openat2;

    use super::super::look as look_at;
    use super::*;

    /// Which file was found.
    fn inode(found: Option<File>) -> Option<u64> {
        found.and_then(|file| file.metadata().ok()).map(|metadata| metadata.ino())
    }

    #[test]
    fn it_finds_what_the_kernel_finds_and_nothing_outside() {
        let folder = std::env::temp_dir().join(format!("faultline-walk-{}", std::process::id()));
        fs::create_dir_all(folder.join("a/b")).unwrap();
        fs::write(folder.join("a/b/file"), "").unwrap();
        for (name, to) in [
            ("out", "/etc/passwd"),
            ("up", "../../../../../../../etc/passwd"),
            ("absolute", "/a/b/file"),
            ("a/relative", "../a/b"),
            ("a/b/chain", "/absolute"),
            ("endless", "endless"),
            ("dangling", "nothing"),
        ] {
            symlink(to, folder.join(name)).unwrap();
        }
        let root = look_at(&folder).unwrap();
        let scoped = [ResolveFlags::IN_ROOT, ResolveFlags::BENEATH];
        let all = scoped.into_iter().flat_map(|flags| [flags, flags | ResolveFlags::NO_SYMLINKS]);
        let mut found = 0;
        for flags in all {
            for path in [
                "a",
                "a/b/file",
                "/a/b/file",
                "a/../a/b/file",
                "../a/b/file",
                "../../a",
                "a/b/../../..",
                "out",
                "up",
                "absolute",
                "a/relative/file",
                "a/relative/../b/file",
                "a/b/chain",
                "endless",
                "dangling",
                "a/b/file/more",
                "nothing",
                ".",
                "a/./b",
            ] {
                let kernels = openat2(&root, path, OFlags::PATH | OFlags::CLOEXEC, Mode::empty(), flags);
                let kernels = inode(kernels.ok().map(File::from));
                assert_eq!(inode(look(&root, Path::new(path), flags)), kernels, "{path} {flags:?}");
                found += usize::from(kernels.is_some());
            }
        }
        assert!(found > 20, "{found}");
        assert_eq!(inode(look(&root, Path::new("out"), ResolveFlags::IN_ROOT)), None);
        fs::remove_dir_all(&folder).unwrap();
    }

    #[test]
    fn no_link_of_proc_is_followed() {
        let root = look_at(Path::new("/")).unwrap();
        for path in ["proc/self/exe", "proc/self/root/etc", "proc/self/cwd"] {
            assert!(look(&root, Path::new(path), ResolveFlags::IN_ROOT).is_none(), "{path}");
        }
        assert!(look(&root, Path::new("proc/1/status"), ResolveFlags::IN_ROOT).is_some());
    }
}
