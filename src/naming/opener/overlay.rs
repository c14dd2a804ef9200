//! The files of overlay file systems, as containers have them. The kernel maps a file of one of the layers, and reports that file's device
//! and inode; a path in the overlay leads to an inode of the overlay's own. So the layers are looked through.

use std::ffi::OsString;
use std::fs::File;
use std::os::unix::ffi::OsStringExt;
use std::path::{Path, PathBuf};

use rustix::fs::{ResolveFlags, fstatfs};

use super::mounts;
use super::place::Place;
use crate::naming::maps::process;
use crate::symbol::{look, look_below, look_below_if_known, look_if_known};

/// How many layers are looked into.
const LAYERS_MAX: usize = 512;

/// Engines mount layers by paths relative to these, if there are many.
const HOMES: [&str; 3] = [
    "/var/lib/docker/overlay2",
    "/var/lib/containers/storage/overlay",
    "/var/lib/containerd/io.containerd.snapshotter.v1.overlayfs/snapshots",
];

/// Is this a file of an overlay?
pub(super) fn is_overlay(file: &File) -> bool {
    fstatfs(file).is_ok_and(|system| system.f_type == libc::OVERLAYFS_SUPER_MAGIC)
}

/// Files in the layers that may be the one at `path`, in the mounts that `place` is in. With mounts of its own (`same_mounts` is false) a process
/// may have named the layers: there they are only found if the kernel knows them already, so that nothing is mounted here because of a
/// name. The overlay has them open, so that it does.
pub(super) fn layers<'a>(place: &Place, path: &Path, same_mounts: bool) -> impl Iterator<Item = File> + 'a {
    let on_host = if same_mounts { look } else { look_if_known };
    let below = if same_mounts { look_below } else { look_below_if_known };
    let holder = place.process();
    let found = candidates(&mounts::lines(holder), path);
    let root = holder.map(|pid| process(pid).join("root"));
    found.into_iter().take(LAYERS_MAX).flat_map(move |(layer, rest)| {
        // Most engines mount in the host's namespace.
        let there = if layer.is_absolute() {
            vec![layer.clone()]
        } else {
            HOMES.map(|home| Path::new(home).join(&layer)).into()
        };
        let mut folders: Vec<File> = there.iter().filter_map(|folder| on_host(folder)).collect();
        if let Some(root) = root.as_deref().and_then(look)
            && let Ok(layer) = layer.strip_prefix("/")
        {
            folders.extend(below(&root, layer, ResolveFlags::IN_ROOT | ResolveFlags::NO_MAGICLINKS));
        }
        let flags = ResolveFlags::BENEATH | ResolveFlags::NO_SYMLINKS;
        folders.into_iter().filter_map(move |folder| below(&folder, &rest, flags)).collect::<Vec<_>>()
    })
}

/// The layers of the overlays that hold `path`, each with the path below it.
fn candidates(mounts: &[u8], path: &Path) -> Vec<(PathBuf, PathBuf)> {
    let mut found = Vec::new();
    for line in mounts.split(|&byte| byte == b'\n') {
        let Some((root, mount, options)) = overlay(line) else { continue };
        let Ok(below) = path.strip_prefix(&mount) else { continue };
        let rest = root.strip_prefix("/").unwrap_or(&root).join(below);
        found.extend(folders(&options).into_iter().map(|layer| (layer, rest.clone())));
    }
    found
}

/// proc(5): the root of a mount in its file system, the mount point, and after a dash the type, the source and the options.
fn overlay(line: &[u8]) -> Option<(PathBuf, PathBuf, Vec<u8>)> {
    let mut fields = line.split(|&byte| byte == b' ');
    let (root, mount) = (fields.nth(3)?, fields.next()?);
    let mut behind = fields.skip_while(|field| *field != b"-").skip(1);
    let (kind, options) = (behind.next()?, behind.nth(1)?);
    (kind == b"overlay").then(|| (mounts::path(root), mounts::path(mount), mounts::unescape(options)))
}

/// The folders of an overlay's layers, the upper one first.
fn folders(options: &[u8]) -> Vec<PathBuf> {
    let mut upper = Vec::new();
    let mut lower = Vec::new();
    for option in split(options, b',') {
        let path = |text: &[u8]| PathBuf::from(OsString::from_vec(text.to_vec()));
        if let Some(folder) = option.strip_prefix(b"upperdir=") {
            upper.push(path(&plain(folder)));
        } else if let Some(folder) = option.strip_prefix(b"lowerdir+=") {
            lower.push(path(&plain(folder)));
        } else if let Some(folders) = option.strip_prefix(b"lowerdir=") {
            lower.extend(split(folders, b':').iter().map(|folder| path(&plain(folder))));
        }
    }
    upper.into_iter().chain(lower).collect()
}

/// The parts between separators that no backslash stands before.
fn split(text: &[u8], separator: u8) -> Vec<&[u8]> {
    let mut is_escaped = false;
    let ends = |&byte: &u8| {
        let ends = byte == separator && !is_escaped;
        is_escaped = byte == b'\\' && !is_escaped;
        ends
    };
    text.split(ends).filter(|part| !part.is_empty()).collect()
}

/// Without the backslashes that the overlay takes before colons and commas.
fn plain(text: &[u8]) -> Vec<u8> {
    let mut is_escaped = false;
    let keep = |&&byte: &&u8| {
        is_escaped = byte == b'\\' && !is_escaped;
        !is_escaped
    };
    text.iter().filter(keep).copied().collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn layers_are_in_the_options_of_the_mount() {
        let mounts = b"22 1 8:1 / / rw - ext4 /dev/sda1 rw\n\
            40 22 0:50 / /run/c\\040d rw,relatime shared:1 - overlay overlay rw,lowerdir=/l/a\\:b:/l/c,upperdir=/u,workdir=/w\n";
        let wanted = ["/u", "/l/a:b", "/l/c"].map(|layer| (PathBuf::from(layer), PathBuf::from("bin/x")));
        assert_eq!(candidates(mounts, Path::new("/run/c d/bin/x")), wanted);
        assert!(candidates(mounts, Path::new("/bin/x")).is_empty());
        let newer = b"40 22 0:50 /sub / rw - overlay o rw,lowerdir+=/l/a,lowerdir+=l/b,workdir=/w";
        let wanted = ["/l/a", "l/b"].map(|layer| (PathBuf::from(layer), PathBuf::from("sub/bin/x")));
        assert_eq!(candidates(newer, Path::new("/bin/x")), wanted);
    }

    #[test]
    fn a_damaged_line_has_no_layers() {
        for line in
            [&b""[..], b"-", b"1 2 3", b"1 2 3 / /", b"1 2 3 / / rw - overlay", b"1 2 3 / / rw overlay o lowerdir=/l"]
        {
            assert!(candidates(line, Path::new("/x")).is_empty());
        }
    }
}
