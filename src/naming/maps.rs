//! Processes, and the code that each has mapped: proc_pid_maps(5).

use std::fs::{self, File};
use std::io::{BufRead, BufReader, Read};
use std::ops::ControlFlow;
use std::path::{Path, PathBuf};

use crate::evidence::FileId;

/// What the path of a memfd begins with.
pub(super) const MEMFD: &[u8] = b"/memfd:";

/// How much of a process's mappings is read.
const BYTES_MAX: u64 = 1 << 20;

/// An executable mapping of a file.
pub(super) struct CodeMapping<'a> {
    /// Its first address and the one behind it, as /proc/PID/map_files has them.
    pub(super) range: &'a str,
    /// The file. Overlay file systems and btrfs number devices in more than one way.
    pub(super) id: FileId,
    /// As the process sees it, and what the kernel puts behind it.
    pub(super) name: &'a [u8],
}

impl CodeMapping<'_> {
    /// The kernel's link to its file.
    pub(super) fn link(&self, pid: u32) -> PathBuf {
        process(pid).join("map_files").join(self.range)
    }
}

/// Shows each executable mapping of a file to `show`, until that breaks off. False: they can't be read.
pub(super) fn each_code(pid: u32, mut show: impl FnMut(&CodeMapping<'_>) -> ControlFlow<()>) -> bool {
    let Ok(maps) = File::open(process(pid).join("maps")) else { return false };
    let mut maps = BufReader::new(maps.take(BYTES_MAX));
    let mut line = Vec::new();
    loop {
        line.clear();
        match maps.read_until(b'\n', &mut line) {
            Err(_) => return false,
            Ok(0) => return true,
            Ok(_) => {}
        }
        if parse(line.trim_ascii_end()).is_some_and(|mapping| show(&mapping).is_break()) {
            return true;
        }
    }
}

fn parse(line: &[u8]) -> Option<CodeMapping<'_>> {
    // Address, permissions, offset, device, inode, and the path after blanks.
    let mut fields = line.splitn(6, |&byte| byte == b' ');
    let (range, permissions) = (text(fields.next()?)?, fields.next()?);
    let (device, inode) = (text(fields.nth(1)?)?, text(fields.next()?)?.parse().ok()?);
    let name = fields.next().unwrap_or_default().trim_ascii_start();
    let (major, minor) = device.split_once(':')?;
    let number = |text: &str| i32::from_str_radix(text, 16).ok();
    let id = FileId::new(number(major)?, number(minor)?, inode);
    (permissions.get(2) == Some(&b'x') && inode != 0).then_some(CodeMapping { range, id, name })
}

fn text(field: &[u8]) -> Option<&str> {
    std::str::from_utf8(field).ok()
}

/// Living processes other than this one.
pub(super) fn pids() -> Vec<u32> {
    let own = std::process::id();
    let entries = fs::read_dir("/proc").into_iter().flatten();
    let pids = entries.filter_map(|entry| entry.ok()?.file_name().to_str()?.parse().ok());
    pids.filter(|&pid| pid != own).collect()
}

/// The folder of a process.
pub(super) fn process(pid: u32) -> PathBuf {
    Path::new("/proc").join(pid.to_string())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_code_of_files_is_shown() {
        let line =
            b"7f0000001000-7f0000002000 r-xp 00001000 fd:0a 1234                       /usr/lib/a b.so (deleted)";
        let code = parse(line).unwrap();
        assert_eq!((code.range, code.id), ("7f0000001000-7f0000002000", FileId::new(0xfd, 10, 1234)));
        assert_eq!(code.name, b"/usr/lib/a b.so (deleted)");
        assert_eq!(code.link(7), Path::new("/proc/7/map_files/7f0000001000-7f0000002000"));
        for other in [
            "7f0000001000-7f0000002000 r--p 00001000 fd:0a 1234    /usr/lib/a.so",
            "7f0000001000-7f0000002000 r-xp 00000000 00:00 0       [vdso]",
            "7f0000001000-7f0000002000 r-xp 00000000 00:00",
            "",
        ] {
            assert!(parse(other.as_bytes()).is_none(), "{other}");
        }
    }
}
