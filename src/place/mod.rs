//! Where files are written: a path is walked one name at a time, and what others could redirect is refused.
//!
//! Somebody who may write to a folder may put a link, a pipe or another file where we are about to write. So no link is followed
//! that somebody else could have made, a file is new (O_EXCL) or was ours before, and everything is opened below the descriptor of
//! the folder that was looked at. New folders have the mode 0700, and new files 0600 or what was asked for, whatever the umask.

mod file;

use std::collections::VecDeque;
use std::ffi::{OsStr, OsString};
use std::fs::File;
use std::io::{self, Write};
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd};
use std::os::unix::ffi::OsStringExt;
use std::path::{Component, Path, PathBuf};

use anyhow::{Result, bail};
use rustix::fs::{AtFlags, CWD, FileType, Mode, OFlags, PROC_SUPER_MAGIC, Stat};
use rustix::fs::{fstat, fstatfs, mkdirat, openat, readlinkat, renameat, stat, unlinkat};
use rustix::io::Errno;

pub(crate) use file::{create, explain, is_unread, open};

/// As many links as the kernel follows in one path.
const LINKS_MAX: u32 = 40;

/// How often a name is looked at again that was made or removed meanwhile.
const LOOKS_MAX: u32 = 8;

/// The permissions of a new file.
pub(crate) const FILE_MODE: u32 = 0o600;
const FOLDER_MODE: Mode = Mode::RWXU;

/// Who may put something into a folder.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Writers {
    /// We and root only.
    Ours,
    /// Anybody, but each may remove and rename only what is its own: the sticky bit.
    Sticky,
    /// Others.
    Others,
}

/// Does it belong to us or to root?
fn is_ours(stat: &Stat) -> bool {
    stat.st_uid == 0 || stat.st_uid == nix::unistd::geteuid().as_raw()
}

fn kind(stat: &Stat) -> FileType {
    FileType::from_raw_mode(stat.st_mode)
}

/// `uid 1000, mode 0777`
fn owner(stat: &Stat) -> String {
    format!("uid {}, mode {:04o}", stat.st_uid, stat.st_mode & 0o7777)
}

impl Writers {
    fn of(folder: &Stat) -> Self {
        let mode = Mode::from_raw_mode(folder.st_mode);
        match (is_ours(folder), mode.intersects(Mode::WGRP | Mode::WOTH)) {
            (false, _) => Self::Others,
            (true, false) => Self::Ours,
            (true, true) if mode.contains(Mode::SVTX) => Self::Sticky,
            (true, true) => Self::Others,
        }
    }

    /// May a link in such a folder be followed?
    fn allow_link(self, link: &Stat) -> bool {
        match self {
            Self::Ours => true,
            Self::Sticky => is_ours(link),
            Self::Others => false,
        }
    }
}

/// Opens a name without following a link, and without the effects that opening a pipe or a device has.
fn look(folder: impl AsFd, name: &OsStr) -> rustix::io::Result<(OwnedFd, Stat)> {
    let fd = openat(folder, name, OFlags::PATH | OFlags::NOFOLLOW | OFlags::CLOEXEC, Mode::empty())?;
    let stat = fstat(&fd)?;
    Ok((fd, stat))
}

/// A step of a path.
enum Step {
    Root,
    Up,
    Down(OsString),
}

fn steps(path: &Path) -> Vec<Step> {
    let step = |component: Component<'_>| match component {
        Component::RootDir => Some(Step::Root),
        Component::ParentDir => Some(Step::Up),
        Component::Normal(name) => Some(Step::Down(name.to_owned())),
        Component::CurDir | Component::Prefix(_) => None,
    };
    path.components().filter_map(step).collect()
}

/// A folder on the way, by its descriptor.
struct Walk {
    at: OwnedFd,
    stat: Stat,
    left: VecDeque<Step>,
    links: u32,
}

impl Walk {
    fn begin(path: &Path) -> io::Result<Self> {
        let flags = OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC;
        let at = openat(CWD, if path.is_absolute() { "/" } else { "." }, flags, Mode::empty())?;
        let stat = fstat(&at)?;
        Ok(Self { at, stat, left: steps(path).into(), links: 0 })
    }

    fn writers(&self) -> Writers {
        Writers::of(&self.stat)
    }

    fn enter(&mut self, name: &str) -> io::Result<()> {
        let flags = OFlags::PATH | OFlags::DIRECTORY | OFlags::NOFOLLOW | OFlags::CLOEXEC;
        self.at = openat(&self.at, name, flags, Mode::empty())?;
        self.stat = fstat(&self.at)?;
        Ok(())
    }

    /// Goes on at the target of the link `name`.
    fn follow(&mut self, name: &OsStr, link: &Stat) -> Result<()> {
        if !self.writers().allow_link(link) {
            bail!(
                "`{}` on the way is a link in a folder that others may write to ({}): name the folder that it leads to",
                name.display(),
                owner(&self.stat)
            );
        }
        self.links += 1;
        if self.links > LINKS_MAX {
            return Err(io::Error::from(Errno::LOOP).into());
        }
        let target = PathBuf::from(OsString::from_vec(readlinkat(&self.at, name, Vec::new())?.into_bytes()));
        for step in steps(&target).into_iter().rev() {
            self.left.push_front(step);
        }
        Ok(())
    }

    /// The links in /proc/PID/fd lead to what is open, and have no path.
    fn is_in_proc(&self) -> bool {
        fstatfs(&self.at).is_ok_and(|stat| stat.f_type == PROC_SUPER_MAGIC)
    }

    /// Goes to the end; folders that are missing are made if `make`. With `to_file` it stops before the last name, and returns it.
    fn run(&mut self, make: bool, to_file: bool) -> Result<Option<OsString>> {
        let mut looks = 0;
        while let Some(step) = self.left.pop_front() {
            let name = match step {
                Step::Root => {
                    self.enter("/")?;
                    continue;
                }
                Step::Up => {
                    self.enter("..")?;
                    continue;
                }
                Step::Down(name) => name,
            };
            let is_last = to_file && self.left.is_empty();
            match look(&self.at, &name) {
                Ok(_) if is_last && self.is_in_proc() => return Ok(Some(name)),
                Ok((_, stat)) if kind(&stat) == FileType::Symlink => self.follow(&name, &stat)?,
                Ok(_) | Err(Errno::NOENT) if is_last => return Ok(Some(name)),
                Ok((_, stat)) if kind(&stat) != FileType::Directory => {
                    return Err(io::Error::from(Errno::NOTDIR).into());
                }
                Ok((fd, stat)) => {
                    (self.at, self.stat) = (fd, stat);
                    looks = 0;
                }
                Err(Errno::NOENT) if make && looks < LOOKS_MAX => {
                    looks += 1;
                    match mkdirat(&self.at, &name, FOLDER_MODE) {
                        // It is looked at like any other: a process that may write here may have put something else there.
                        Ok(()) | Err(Errno::EXIST) => self.left.push_front(Step::Down(name)),
                        Err(error) => return Err(io::Error::from(error).into()),
                    }
                }
                Err(error) => return Err(io::Error::from(error).into()),
            }
        }
        Ok(None)
    }
}

/// The path for a new file of this name in an existing folder. It always leads to the same folder, because nobody but us and root can change
/// any part of it.
///
/// # Errors
/// If the folder isn't there, or others may write to it or to one above it.
pub(crate) fn lasting(path: &Path) -> Result<PathBuf> {
    let mut walk = Walk::begin(path)?;
    let Some(name) = walk.run(false, true)? else { return Err(io::Error::from(Errno::ISDIR).into()) };
    let folder = Folder(walk.at);
    let place = std::fs::read_link(folder.descriptor())?;
    for (above, part) in place.ancestors().enumerate() {
        let writers = Writers::of(&stat(part)?);
        if writers == Writers::Others || (above == 0 && writers == Writers::Sticky) {
            bail!(
                "others may write to `{}`: choose a folder that only root or the agent's user may write to, as /run/faultline",
                part.display()
            );
        }
    }
    Ok(place.join(name))
}

/// An open folder that nobody but us and root may write to.
#[derive(Debug)]
pub(crate) struct Folder(OwnedFd);

impl Folder {
    /// Opens the folder, which is made if it isn't there.
    ///
    /// # Errors
    /// If it can't be made or opened, or others may write to it.
    pub(crate) fn open(path: &Path) -> Result<Self> {
        let mut walk = Walk::begin(path)?;
        walk.run(true, false)?;
        Self::checked(walk.at, &walk.stat)
    }

    /// The kernel's link to it: a path for those that take one, as long as it is open.
    pub(crate) fn descriptor(&self) -> PathBuf {
        Path::new("/proc/self/fd").join(self.0.as_raw_fd().to_string())
    }

    fn checked(fd: OwnedFd, stat: &Stat) -> Result<Self> {
        if Writers::of(stat) != Writers::Ours {
            bail!(
                "others may write to it ({}), and could redirect what is written: name a folder that only you or root may \
                 write to, as `mkdir -m 0700 FOLDER` makes it",
                owner(stat)
            );
        }
        Ok(Self(fd))
    }

    /// A folder in this one, which is made if it isn't there.
    ///
    /// # Errors
    /// As [`Folder::open`], and if it is a link.
    pub(crate) fn folder(&self, name: &str) -> Result<Self> {
        match mkdirat(&self.0, name, FOLDER_MODE) {
            Ok(()) | Err(Errno::EXIST) => {}
            Err(error) => return Err(io::Error::from(error).into()),
        }
        let (fd, stat) = look(&self.0, OsStr::new(name)).map_err(io::Error::from)?;
        match kind(&stat) {
            FileType::Directory => Self::checked(fd, &stat),
            _ => bail!("its folder is none, and faultline did not make it: move it away"),
        }
    }

    /// The same if it is there.
    pub(crate) fn existing(&self, name: &str) -> Option<Self> {
        let (fd, stat) = look(&self.0, OsStr::new(name)).ok()?;
        Self::checked(fd, &stat).ok().filter(|_| kind(&stat) == FileType::Directory)
    }

    /// Writes a file that isn't there yet, whole or not at all.
    ///
    /// # Errors
    /// If there is anything of this name, or the content can't be written.
    pub(crate) fn write_new(&self, name: &str, bytes: &[u8]) -> io::Result<()> {
        let flags = OFlags::WRONLY | OFlags::CREATE | OFlags::EXCL | OFlags::NOFOLLOW | OFlags::CLOEXEC;
        let mut file = File::from(openat(&self.0, name, flags, Mode::from_raw_mode(FILE_MODE))?);
        file.write_all(bytes).inspect_err(|_| {
            // The error is reported; a part of the content would be taken for the whole.
            let _ = unlinkat(&self.0, name, AtFlags::empty());
        })
    }

    /// Writes a file in the place of what has this name now; that isn't followed, nor written to.
    ///
    /// # Errors
    /// If the content can't be written; what was there stays.
    pub(crate) fn replace(&self, name: &str, bytes: &[u8]) -> io::Result<()> {
        let part = format!(".{name}.part");
        match unlinkat(&self.0, &*part, AtFlags::empty()) {
            Ok(()) | Err(Errno::NOENT) => {}
            Err(error) => return Err(error.into()),
        }
        self.write_new(&part, bytes)?;
        Ok(renameat(&self.0, &*part, &self.0, name)?)
    }

    /// Opens a regular file of ours for reading; `None` means that there is none.
    pub(crate) fn read(&self, name: &str) -> Option<File> {
        let flags = OFlags::RDONLY | OFlags::NOFOLLOW | OFlags::NONBLOCK | OFlags::CLOEXEC;
        let file = openat(&self.0, name, flags, Mode::empty()).ok()?;
        let stat = fstat(&file).ok()?;
        (kind(&stat) == FileType::RegularFile && is_ours(&stat)).then(|| File::from(file))
    }

    /// Opens a file for reading and for appending, which is made if it isn't there.
    ///
    /// # Errors
    /// If it is anything but a file of ours.
    pub(crate) fn append(&self, name: &str) -> Result<File> {
        let flags = OFlags::RDWR | OFlags::APPEND;
        let file = file::open_in(self.0.as_fd(), Writers::Ours, OsStr::new(name), flags, FILE_MODE)?;
        if !file.metadata()?.is_file() {
            bail!("it is no file: move it away");
        }
        Ok(file)
    }
}

impl AsFd for Folder {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.0.as_fd()
    }
}

/// Why a file could not be written, and the cure where it is a limit of this process.
pub(crate) fn why(error: &io::Error) -> String {
    match error.raw_os_error().map(Errno::from_raw_os_error) {
        Some(Errno::FBIG) => format!("{error}: raise the limit on the size of files: ulimit -f unlimited"),
        _ => error.to_string(),
    }
}

#[cfg(test)]
mod tests;
