//! Finds what a call did to memory and files, by the argument names of system calls and of the kernel's own functions.

use crate::record::call::{Call, State};
use crate::{errno, page};

/// Addresses from `start` up to `end`, whole pages.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Range {
    /// The first.
    pub start: u64,
    /// The first behind it.
    pub end: u64,
}

impl Range {
    fn new(start: u64, length: u64) -> Self {
        Self { start, end: start.saturating_add(up(length)) }
    }

    /// Does it hold the address?
    pub(super) fn holds(self, address: u64) -> bool {
        self.start <= address && address < self.end
    }
}

/// Which file.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum ChangedFile {
    /// By inode and device.
    Inode {
        /// i_ino
        inode: u64,
        /// s_dev, as the kernel numbers devices. `None` means that it was not read.
        device: Option<u64>,
    },
    /// The file of the name that was given.
    Named(String),
}

/// The effect of a call.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Effect {
    /// Nothing is mapped there any more.
    Unmapped(Range),
    /// It was moved away, to this address.
    Moved(Range, u64),
    /// Something is mapped there, with these permissions (PROT_*).
    Mapped(Range, u64),
    /// The memory there has these permissions.
    Protected(Range, u64),
    /// The content is dropped: it reads as zeros, or as in the file.
    Discarded(Range),
    /// The heap ends there now.
    Heap(u64),
    /// A System V segment that began there was detached.
    Detached(u64),
    /// The file had so many bytes, if that is known, and has so many.
    Resized(ChangedFile, Option<u64>, u64),
    /// A part of the file is gone, and its length changed or not.
    Hole(ChangedFile, bool),
    /// Signal, and the process it was sent to.
    Sent(u32, u32),
    /// The process runs another program: nothing that was done to its memory before counts.
    Replaced,
}

/// To whole pages.
pub(super) fn up(length: u64) -> u64 {
    page::round_up(length).unwrap_or(u64::MAX)
}

/// The effects of a call that succeeded, or still runs, in the order in which they happen.
pub(super) fn effects(call: &Call) -> Vec<Effect> {
    let failed = call.raw_result.is_some_and(errno::is_error);
    if failed {
        return Vec::new();
    }
    of(call).unwrap_or_default()
}

/// `None` means that the call lacks an argument that matters.
fn of(call: &Call) -> Option<Vec<Effect>> {
    let raw = |name: &str| call.raw(name);
    let result = || call.raw_result.filter(|_| call.state == State::Returned).map(i64::cast_unsigned);
    let start = || raw("addr").or_else(|| raw("start"));
    let range = || {
        let start = start()?;
        let length = raw("len").or_else(|| raw("len_in")).or_else(|| Some(raw("end")?.saturating_sub(start)))?;
        Some(Range::new(start, length))
    };
    let one = |effect: Effect| Some(vec![effect]);
    // When the call begins, the kernel has the length before the call.
    let resized = |file: &str, length: &str| {
        one(Effect::Resized(inode(call, file)?, raw(&format!("{file}.i_size")), raw(length)?))
    };
    match call.function.as_str() {
        "munmap" | "vm_munmap" | "__vm_munmap" | "do_munmap" | "do_vmi_munmap" | "do_vmi_align_munmap" => {
            one(Effect::Unmapped(range()?))
        }
        "mprotect" | "pkey_mprotect" | "do_mprotect_pkey" => one(Effect::Protected(range()?, raw("prot")?)),
        "mmap" | "ksys_mmap_pgoff" | "vm_mmap_pgoff" | "do_mmap" | "vm_mmap" => {
            one(Effect::Mapped(Range::new(result()?, raw("len")?), raw("prot")?))
        }
        "mremap" => {
            let (old, old_length, new_length) = (raw("addr")?, raw("old_len")?, raw("new_len")?);
            let new = result()?;
            let keeps = raw("flags")? & libc::MREMAP_DONTUNMAP as u64 != 0;
            let mut all = Vec::new();
            if new != old && !keeps {
                all.push(Effect::Moved(Range::new(old, old_length), new));
            } else if up(new_length) < up(old_length) {
                all.push(Effect::Unmapped(Range {
                    start: old.saturating_add(up(new_length)),
                    end: old.saturating_add(up(old_length)),
                }));
            }
            all.push(Effect::Mapped(Range::new(new, new_length), u64::MAX));
            Some(all)
        }
        "madvise" | "do_madvise" => match i32::try_from(raw("behavior")?).ok()? {
            libc::MADV_DONTNEED | libc::MADV_FREE | libc::MADV_REMOVE => one(Effect::Discarded(range()?)),
            _ => None,
        },
        "brk" => one(Effect::Heap(result()?)),
        "shmdt" => one(Effect::Detached(raw("shmaddr")?)),
        "truncate" => one(Effect::Resized(ChangedFile::Named(call.text_of("path")?.to_owned()), None, raw("length")?)),
        "ftruncate" => resized("fd:file", "length"),
        "do_truncate" => resized("dentry:dentry", "length"),
        "vfs_truncate" => resized("path:path", "length"),
        "truncate_setsize" => resized("inode:inode", "newsize"),
        "creat" => one(Effect::Resized(ChangedFile::Named(call.text_of("pathname")?.to_owned()), None, 0)),
        "open" | "openat" if raw("flags")? & libc::O_TRUNC as u64 != 0 => {
            one(Effect::Resized(ChangedFile::Named(call.text_of("filename")?.to_owned()), None, 0))
        }
        "fallocate" => fallocated(inode(call, "fd:file")?, raw("mode")?),
        "vfs_fallocate" => fallocated(inode(call, "file:file")?, raw("mode")?),
        "execve" | "execveat" if call.state == State::Returned => one(Effect::Replaced),
        "kill" | "tkill" | "rt_sigqueueinfo" => sent(raw("sig")?, raw("pid")?),
        "tgkill" | "rt_tgsigqueueinfo" => sent(raw("sig")?, raw("tgid")?),
        _ => None,
    }
}

fn sent(signal: u64, pid: u64) -> Option<Vec<Effect>> {
    let signal = u32::try_from(signal & 0xffff_ffff).ok()?;
    let pid = u32::try_from(pid & 0xffff_ffff).ok()?;
    Some(vec![Effect::Sent(signal, pid)])
}

fn fallocated(file: ChangedFile, mode: u64) -> Option<Vec<Effect>> {
    let mode = i32::try_from(mode & 0xffff_ffff).ok()?;
    let shortens = mode & libc::FALLOC_FL_COLLAPSE_RANGE != 0;
    (shortens || mode & libc::FALLOC_FL_PUNCH_HOLE != 0).then(|| vec![Effect::Hole(file, shortens)])
}

/// The file whose fields have names that begin with this.
fn inode(call: &Call, begin: &str) -> Option<ChangedFile> {
    let field = |name: &str| call.raw(&format!("{begin}.{name}"));
    Some(ChangedFile::Inode { inode: field("i_ino")?, device: field("s_dev") })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::record::call::Value;
    use crate::record::call::tests::call;

    #[test]
    fn lengths_are_whole_pages() {
        let all = effects(&call("munmap", &[("addr", 0x10000), ("len", 1)], 0));
        assert_eq!(all, [Effect::Unmapped(Range { start: 0x10000, end: 0x11000 })]);
        let all = effects(&call("do_vmi_align_munmap", &[("start", 0x10000), ("end", 0x12000)], 0));
        assert_eq!(all, [Effect::Unmapped(Range { start: 0x10000, end: 0x12000 })]);
        assert!(effects(&call("munmap", &[("addr", 0x10000), ("len", 1)], -22)).is_empty(), "it failed");
        assert!(effects(&call("munmap", &[("addr", 0x10000)], 0)).is_empty(), "an argument wasn't read");
        let all = effects(&call("munmap", &[("addr", 0x10000), ("len", u64::MAX)], 0));
        assert_eq!(all, [Effect::Unmapped(Range { start: 0x10000, end: u64::MAX })]);
    }

    #[test]
    fn mremap_moves_or_cuts() {
        let mremap = |new: u64, new_length: u64, flags: u64| {
            let arguments = [("addr", 0x10000), ("old_len", 0x4000), ("new_len", new_length), ("flags", flags)];
            effects(&call("mremap", &arguments, new as i64))
        };
        let mapped = |start: u64, length: u64| Effect::Mapped(Range::new(start, length), u64::MAX);
        let old = Range { start: 0x10000, end: 0x14000 };
        assert_eq!(mremap(0x50000, 0x8000, 1), [Effect::Moved(old, 0x50000), mapped(0x50000, 0x8000)]);
        let cut = Effect::Unmapped(Range { start: 0x11000, end: 0x14000 });
        assert_eq!(mremap(0x10000, 0x1000, 0), [cut, mapped(0x10000, 0x1000)]);
        assert_eq!(mremap(0x50000, 0x4000, 5), [mapped(0x50000, 0x4000)], "MREMAP_DONTUNMAP");
    }

    #[test]
    fn only_what_cuts_a_file_cuts_it() {
        let file = [("fd:file.i_ino", 7), ("fd:file.s_dev", 8)];
        let of = |more: (&str, u64), function: &str| effects(&call(function, &[file[0], file[1], more], 0));
        let known = ChangedFile::Inode { inode: 7, device: Some(8) };
        assert_eq!(of(("length", 100), "ftruncate"), [Effect::Resized(known.clone(), None, 100)]);
        assert_eq!(of(("mode", 0), "fallocate"), []);
        assert_eq!(of(("mode", 3), "fallocate"), [Effect::Hole(known.clone(), false)]);
        assert_eq!(of(("mode", 8), "fallocate"), [Effect::Hole(known, true)]);
        let mut open = call("openat", &[("filename", 0), ("flags", libc::O_TRUNC as u64)], 3);
        open.arguments[0].value = Some(Value::Text("/x".to_owned()));
        assert_eq!(effects(&open), [Effect::Resized(ChangedFile::Named("/x".to_owned()), None, 0)]);
        open.arguments[1].raw = Some(0);
        assert_eq!(effects(&open), []);
    }
}
