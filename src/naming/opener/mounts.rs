//! The mounts of a process: proc_pid_mountinfo(5). They say which device the kernel knows a file system by, where stat(2) shows another one:
//! overlay file systems and btrfs number devices of their own.

use std::collections::HashMap;
use std::ffi::OsString;
use std::fs::File;
use std::io::Read;
use std::os::unix::ffi::OsStringExt;
use std::path::PathBuf;

use rustix::fs::{AtFlags, StatxFlags, statx};

use crate::evidence::FileId;
use crate::naming::maps::process;

/// How much of a process's mounts is read.
const BYTES_MAX: u64 = 1 << 20;

/// How many mounts of one device are looked into.
const POINTS_MAX: usize = 8;

/// Mounts by their numbers: the device, `major:minor`, and what kind of file system it is.
pub(in crate::naming) type Mounts = HashMap<String, (String, String)>;

/// A line about a mount.
struct Mount<'a> {
    id: &'a [u8],
    /// `major:minor`
    device: &'a [u8],
    /// The root of the mount in its file system.
    root: &'a [u8],
    point: &'a [u8],
    /// The kind of the file system; empty if the line is cut.
    kind: &'a [u8],
}

/// The lines about the mounts of a process; `None` means our own.
pub(super) fn lines(holder: Option<u32>) -> Vec<u8> {
    let folder = holder.map_or_else(|| PathBuf::from("/proc/self"), process);
    let mut lines = Vec::new();
    let read = File::open(folder.join("mountinfo")).map(|file| file.take(BYTES_MAX).read_to_end(&mut lines));
    if read.is_ok() { lines } else { Vec::new() }
}

/// Is `file`, looked at in the mounts of that process, on the device of `id`, as the kernel numbers devices?
pub(super) fn is_on(file: &File, holder: Option<u32>, id: FileId) -> bool {
    id_of(file).and_then(|mount| device_of(&mount, holder)).is_some_and(|device| device == id.device_text())
}

/// The number of the mount that a file was looked at in. No file system is asked. `None` means that the kernel doesn't say: before v5.8
/// nothing is proved.
pub(in crate::naming) fn id_of(file: &File) -> Option<String> {
    let found = statx(file, c"", AtFlags::EMPTY_PATH | AtFlags::STATX_DONT_SYNC, StatxFlags::MNT_ID).ok()?;
    let has_it = StatxFlags::from_bits_retain(found.stx_mask).contains(StatxFlags::MNT_ID);
    has_it.then(|| found.stx_mnt_id.to_string())
}

/// The device of the mount of this number, `major:minor`. `holder`: the process in whose mounts it is.
fn device_of(id: &str, holder: Option<u32>) -> Option<String> {
    let lines = lines(holder);
    let mount = mounts(&lines).find(|mount| mount.id == id.as_bytes())?;
    Some(std::str::from_utf8(mount.device).ok()?.to_owned())
}

/// All mounts of a process, as far as they are read.
pub(in crate::naming) fn all(holder: Option<u32>) -> Mounts {
    let text = |field: &[u8]| std::str::from_utf8(field).ok().map(str::to_owned);
    let lines = lines(holder);
    mounts(&lines).filter_map(|mount| Some((text(mount.id)?, (text(mount.device)?, text(mount.kind)?)))).collect()
}

/// Where the whole file system on the device of `id` is mounted in our own mounts.
pub(super) fn points(id: FileId) -> Vec<PathBuf> {
    points_in(&lines(None), id)
}

fn points_in(lines: &[u8], id: FileId) -> Vec<PathBuf> {
    let device = id.device_text();
    let whole = mounts(lines).filter(|mount| mount.device == device.as_bytes() && mount.root == b"/");
    whole.map(|mount| path(mount.point)).take(POINTS_MAX).collect()
}

fn mounts(lines: &[u8]) -> impl Iterator<Item = Mount<'_>> {
    lines.split(|&byte| byte == b'\n').filter_map(|line| {
        let mut fields = line.split(|&byte| byte == b' ');
        let (id, _, device, root, point) =
            (fields.next()?, fields.next()?, fields.next()?, fields.next()?, fields.next()?);
        // Optional fields end with a dash.
        let kind = fields.skip_while(|&field| field != b"-").nth(1).unwrap_or_default();
        Some(Mount { id, device, root, point, kind })
    })
}

/// A path as these lines have it.
pub(super) fn path(text: &[u8]) -> PathBuf {
    OsString::from_vec(unescape(text)).into()
}

/// Undoes the kernel's escapes, `\040` for a blank: seq_path().
pub(super) fn unescape(text: &[u8]) -> Vec<u8> {
    let mut plain = Vec::with_capacity(text.len());
    let mut rest = text;
    while let Some((&byte, after)) = rest.split_first() {
        let number = after.get(..3).filter(|digits| byte == b'\\' && digits.iter().all(u8::is_ascii_digit));
        let number = number.and_then(|digits| u8::from_str_radix(std::str::from_utf8(digits).ok()?, 8).ok());
        plain.push(number.unwrap_or(byte));
        rest = if number.is_some() { &after[3..] } else { after };
    }
    plain
}

#[cfg(test)]
mod tests {
    use std::path::Path;

    use super::*;

    #[test]
    fn a_device_leads_to_where_it_is_mounted() {
        let lines = b"22 1 8:1 / / rw - ext4 /dev/sda1 rw\n\
            40 22 0:50 / /run/c\\040d rw,relatime - overlay overlay rw,lowerdir=/l\n\
            41 22 0:50 /sub /mnt rw - overlay overlay rw,lowerdir=/l\n\
            42 22 0:5";
        assert_eq!(points_in(lines, FileId::new(0, 50, 7)), [Path::new("/run/c d")]);
        assert_eq!(points_in(lines, FileId::new(8, 1, 7)), [Path::new("/")]);
        assert!(points_in(lines, FileId::new(0, 5, 7)).is_empty(), "the line is cut");
    }

    #[test]
    fn the_kernel_says_which_mount_a_file_is_in() {
        let file = File::open("/proc/self/status").unwrap();
        let lines = lines(None);
        let proc = mounts(&lines).find(|mount| mount.point == b"/proc").unwrap();
        let text = std::str::from_utf8(proc.device).unwrap();
        let (major, minor) = text.split_once(':').unwrap();
        let id = FileId::new(major.parse().unwrap(), minor.parse().unwrap(), 1);
        assert!(is_on(&file, None, id) && is_on(&file, Some(std::process::id()), id));
        assert_eq!(all(None).get(&id_of(&file).unwrap()).unwrap().1, "proc");
        assert!(!is_on(&file, None, FileId { device: id.device + 1, ..id }));
    }
}
