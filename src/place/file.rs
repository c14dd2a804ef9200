//! A file that is named by a person: `--output`, `--flamegraph`.
//!
//! It may be in a folder that others write to, as /tmp is: a new file (O_EXCL) leads nowhere else there, and one that exists is
//! taken only if it is a regular file of ours without another name.

use std::ffi::OsStr;
use std::fs::File;
use std::io;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd};
use std::path::Path;

use anyhow::{Result, anyhow, bail};
use rustix::fs::{CWD, FileType, Mode, OFlags, Stat, fchmod, openat};
use rustix::io::Errno;

use super::{FILE_MODE, LOOKS_MAX, Walk, Writers, is_ours, kind, look, owner};

/// Opening never waits, and never makes a terminal ours.
const ALWAYS: OFlags = OFlags::NONBLOCK.union(OFlags::NOCTTY).union(OFlags::CLOEXEC);

/// Opens the file for appending, without waiting; it is made with `mode` if it isn't there, and keeps its content. What is named may be a pipe
/// or a device as well: writing to that doesn't wait either.
///
/// # Errors
/// If it can't be opened or made, or others could redirect what is written. ENXIO: a pipe that nobody reads.
pub(crate) fn open(path: &Path, mode: u32) -> Result<File> {
    let flags = OFlags::WRONLY | OFlags::APPEND;
    let mut walk = Walk::begin(path)?;
    let Some(name) = walk.run(false, true)? else { return Err(io::Error::from(Errno::ISDIR).into()) };
    if walk.is_in_proc() && walk.writers() == Writers::Ours {
        // Something that we have open already, as /dev/stdout, or a setting of the kernel.
        return Ok(File::from(openat(&walk.at, &name, flags | ALWAYS, Mode::empty()).map_err(io::Error::from)?));
    }
    open_in(walk.at.as_fd(), walk.writers(), &name, flags, mode)
}

/// Opens the file and empties it.
pub(crate) fn create(path: &Path, mode: u32) -> Result<File> {
    let file = open(path, mode)?;
    if file.metadata()?.is_file() {
        file.set_len(0)?;
    }
    Ok(file)
}

pub(super) fn open_in(
    folder: BorrowedFd<'_>,
    writers: Writers,
    name: &OsStr,
    flags: OFlags,
    mode: u32,
) -> Result<File> {
    // Nobody else may open it before it has its mode.
    let first = Mode::from_raw_mode(mode & FILE_MODE);
    for _ in 0..LOOKS_MAX {
        match look(folder, name) {
            Ok((fd, stat)) => {
                check(&stat, writers)?;
                // Exactly the file that was looked at, even if another one has the name by now.
                let again = format!("/proc/self/fd/{}", fd.as_raw_fd());
                return Ok(File::from(openat(CWD, again, flags | ALWAYS, Mode::empty()).map_err(io::Error::from)?));
            }
            Err(Errno::NOENT) => {}
            Err(error) => return Err(io::Error::from(error).into()),
        }
        match openat(folder, name, flags | ALWAYS | OFlags::CREATE | OFlags::EXCL | OFlags::NOFOLLOW, first) {
            Ok(new) => {
                fchmod(&new, Mode::from_raw_mode(mode)).map_err(io::Error::from)?;
                return Ok(File::from(new));
            }
            // Somebody made it at this moment.
            Err(Errno::EXIST) => {}
            Err(error) => return Err(io::Error::from(error).into()),
        }
    }
    bail!("it is made and removed by somebody else all the time: name another");
}

/// May this be written to, in such a folder?
fn check(stat: &Stat, writers: Writers) -> Result<()> {
    const CURE: &str = "remove it, or name another file";
    match kind(stat) {
        FileType::RegularFile if !is_ours(stat) => bail!("it belongs to somebody else ({}): {CURE}", owner(stat)),
        FileType::RegularFile if stat.st_nlink > 1 => {
            bail!("it has {} names, and another of them may be somebody else's: {CURE}", stat.st_nlink)
        }
        FileType::Fifo | FileType::CharacterDevice if !is_ours(stat) && writers != Writers::Ours => {
            bail!("it is a pipe or a device of somebody else ({}): {CURE}", owner(stat))
        }
        FileType::RegularFile | FileType::Fifo | FileType::CharacterDevice => Ok(()),
        FileType::Directory => Err(io::Error::from(Errno::ISDIR).into()),
        FileType::Symlink => bail!("it became a link while it was opened: {CURE}"),
        _ => bail!("it is no file that records can be written to: {CURE}"),
    }
}

/// The error of [`open`] in words, where nobody waits for a reader.
pub(crate) fn explain(error: anyhow::Error) -> anyhow::Error {
    if is_unread(&error) { anyhow!("nobody reads it") } else { error }
}

/// Nobody reads the pipe that was named.
pub(crate) fn is_unread(error: &anyhow::Error) -> bool {
    error.downcast_ref::<io::Error>().is_some_and(|error| error.raw_os_error() == Some(Errno::NXIO.raw_os_error()))
}
