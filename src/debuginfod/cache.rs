//! The folder of what was fetched: BUILDID/debuginfo and BUILDID/executable, as elfutils has it. An empty file says that no server had it.

use std::cell::Cell;
use std::fs::{self, DirBuilder, File, OpenOptions};
use std::io::{self, ErrorKind};
use std::os::unix::fs::{DirBuilderExt, MetadataExt, OpenOptionsExt};
use std::path::{Path, PathBuf};
use std::sync::Arc;

use anyhow::{Context, Result};

use super::Kind;
use super::clean::{MISS, clean, is_younger};
use crate::hex::digits;
use crate::place;

/// After so many files that no server had, the folder is cleaned.
const MISSES_MAX: u32 = 256;

/// What elfutils gives a file that it has fetched.
const FILE_MODE: u32 = 0o400;

/// The folder.
#[derive(Debug)]
pub(super) struct Cache {
    folder: Arc<place::Folder>,
    /// How many files no server has had since it was cleaned.
    misses: Cell<u32>,
}

/// What is known of a file.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Known {
    /// It is there.
    Here,
    /// No server had it lately.
    Missing,
    /// Nothing.
    Nothing,
}

/// A file that is being written. It is removed unless it is kept.
pub(super) struct Begun {
    pub(super) file: File,
    place: PathBuf,
    wanted: PathBuf,
    /// The paths are below its descriptor.
    _folder: Arc<place::Folder>,
}

impl Cache {
    /// The folder, which is made if it isn't there. What is too old or too much leaves.
    ///
    /// # Errors
    /// If it can't be made, or if others may write to it.
    pub(super) fn open(folder: &Path) -> Result<Self> {
        // No link of another user leads it elsewhere: what has not been used for long is removed there.
        let what = || format!("failed to use the folder `{}`, DEBUGINFOD_CACHE_PATH names another", folder.display());
        let folder = Arc::new(place::Folder::open(folder).with_context(what)?);
        let cache = Self { folder, misses: Cell::new(0) };
        cache.clean();
        Ok(cache)
    }

    fn clean(&self) {
        self.misses.set(0);
        clean(&self.folder.descriptor());
    }

    fn folder_of(&self, build_id: &[u8]) -> PathBuf {
        self.folder.descriptor().join(digits(build_id))
    }

    /// Where a file is, or would be.
    pub(super) fn place(&self, build_id: &[u8], kind: Kind) -> PathBuf {
        self.folder_of(build_id).join(kind.word())
    }

    /// Is it there?
    pub(super) fn look(&self, build_id: &[u8], kind: Kind) -> Known {
        match fs::symlink_metadata(self.place(build_id, kind)) {
            Ok(found) if found.is_file() && found.size() > 0 => Known::Here,
            Ok(found) if found.modified().is_ok_and(|time| is_younger(time, MISS)) => Known::Missing,
            _ => Known::Nothing,
        }
    }

    /// No server has it.
    pub(super) fn miss(&self, build_id: &[u8], kind: Kind) {
        let place = self.place(build_id, kind);
        self.misses.set(self.misses.get() + 1);
        if self.misses.get() >= MISSES_MAX {
            self.clean();
        }
        // If it can't be noted, it is asked for again.
        let _ = self.make_folder(build_id);
        let _ = fs::remove_file(&place);
        let _ = OpenOptions::new().write(true).create_new(true).mode(0o000).open(place);
    }

    /// Begins a file.
    ///
    /// # Errors
    /// If there is no room for it.
    pub(super) fn begin(&self, build_id: &[u8], kind: Kind) -> io::Result<Begun> {
        self.make_folder(build_id)?;
        let wanted = self.place(build_id, kind);
        let place = wanted.with_extension(format!("faultline-{}", std::process::id()));
        // One of this name is left from a process that was killed.
        let _ = fs::remove_file(&place);
        let file = OpenOptions::new().read(true).write(true).create_new(true).mode(FILE_MODE).open(&place)?;
        Ok(Begun { file, place, wanted, _folder: self.folder.clone() })
    }

    fn make_folder(&self, build_id: &[u8]) -> io::Result<()> {
        match DirBuilder::new().mode(0o700).create(self.folder_of(build_id)) {
            Err(error) if error.kind() != ErrorKind::AlreadyExists => Err(error),
            _ => Ok(()),
        }
    }

    /// A file that is whole is found from now on. What is too much leaves.
    ///
    /// # Errors
    /// If it can't be put in its place.
    pub(super) fn keep(&self, begun: &Begun) -> io::Result<()> {
        fs::rename(&begun.place, &begun.wanted)?;
        self.clean();
        Ok(())
    }
}

impl Drop for Begun {
    fn drop(&mut self) {
        // After it was kept there is none of this name.
        let _ = fs::remove_file(&self.place);
    }
}

#[cfg(test)]
mod tests {
    use std::io::Write;
    use std::os::unix::fs::PermissionsExt;
    use std::time::{Duration, SystemTime};

    use super::super::clean::BYTES_MAX;
    use super::super::clean::tests::Folder;
    use super::*;

    const ID: [u8; 4] = [0xab, 0xcd, 0xef, 1];

    #[test]
    fn what_was_kept_is_found_and_the_rest_is_gone() {
        let folder = Folder::at("cache-kept");
        let cache = Cache::open(&folder.0).unwrap();
        let mut begun = cache.begin(&ID, Kind::Debuginfo).unwrap();
        begun.file.write_all(b"x").unwrap();
        assert_eq!(cache.look(&ID, Kind::Debuginfo), Known::Nothing, "it is not whole yet");
        cache.keep(&begun).unwrap();
        drop(begun);
        assert_eq!(cache.look(&ID, Kind::Debuginfo), Known::Here);
        assert_eq!(cache.look(&ID, Kind::Executable), Known::Nothing);
        drop(cache.begin(&ID, Kind::Executable).unwrap());
        assert_eq!(fs::read_dir(folder.0.join("abcdef01")).unwrap().count(), 1, "what was given up is removed");
    }

    #[test]
    fn what_no_server_has_is_not_asked_for_again_for_a_while() {
        let folder = Folder::at("cache-missing");
        let cache = Cache::open(&folder.0).unwrap();
        cache.miss(&ID, Kind::Debuginfo);
        assert_eq!(cache.look(&ID, Kind::Debuginfo), Known::Missing);
        let place = cache.place(&ID, Kind::Debuginfo);
        fs::set_permissions(&place, fs::Permissions::from_mode(0o600)).unwrap();
        let file = File::options().write(true).open(&place).unwrap();
        file.set_modified(SystemTime::now() - 2 * MISS).unwrap();
        assert_eq!(cache.look(&ID, Kind::Debuginfo), Known::Nothing);
    }

    #[test]
    fn what_was_fetched_makes_room_for_what_is_fetched() {
        let folder = Folder::at("cache-full");
        let cache = Cache::open(&folder.0).unwrap();
        fs::write(folder.0.join(BYTES_MAX.0), "100000").unwrap();
        for number in 0..10 {
            let mut begun = cache.begin(&[number; 4], Kind::Debuginfo).unwrap();
            begun.file.write_all(&[1; 40_000]).unwrap();
            let then = SystemTime::now() - Duration::from_secs(100 - u64::from(number));
            begun.file.set_times(fs::FileTimes::new().set_accessed(then).set_modified(then)).unwrap();
            cache.keep(&begun).unwrap();
        }
        let is_here = |number: &u8| cache.look(&[*number; 4], Kind::Debuginfo) == Known::Here;
        assert_eq!((0..10).filter(is_here).collect::<Vec<_>>(), [8, 9]);
        for number in 0..6000_u32 {
            if number % 1000 == 0 {
                assert!(fs::read_dir(&folder.0).unwrap().count() < 5000, "what no server has is bounded, too");
            }
            cache.miss(&number.to_be_bytes(), Kind::Debuginfo);
        }
    }

    #[test]
    fn a_folder_that_others_write_to_is_none() {
        let folder = Folder::at("cache-others");
        fs::create_dir(&folder.0).unwrap();
        fs::set_permissions(&folder.0, fs::Permissions::from_mode(0o777)).unwrap();
        let refusal = Cache::open(&folder.0).err().map(|error| format!("{error:#}")).unwrap();
        assert!(refusal.contains("others may write to it") && refusal.contains("DEBUGINFOD_CACHE_PATH"), "{refusal}");
    }
}
