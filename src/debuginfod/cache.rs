//! The folder of what was fetched: BUILDID/debuginfo and BUILDID/executable, as elfutils has it. An empty file says that no server had it.

use std::fs::{self, DirBuilder, File, OpenOptions};
use std::io::{self, ErrorKind};
use std::os::unix::fs::{DirBuilderExt, MetadataExt, OpenOptionsExt};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::{Duration, SystemTime};

use anyhow::{Context, Result};

use super::Kind;
use crate::hex::digits;
use crate::place;

/// How long it is believed that no server has a file: `cache_miss_s` of elfutils.
const MISS: Duration = Duration::from_secs(600);

/// A file that nobody has used for so long is removed: `max_unused_age_s` of elfutils.
const UNUSED: Duration = Duration::from_secs(7 * 24 * 3600);

/// How many build ids are looked at when old ones are removed.
const LOOKED_AT_MAX: usize = 4096;

/// What elfutils gives a file that it has fetched.
const FILE_MODE: u32 = 0o400;

/// The folder.
#[derive(Debug)]
pub(super) struct Cache(Arc<place::Folder>);

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
    /// The folder, which is made if it isn't there. What has not been used for a week leaves.
    ///
    /// # Errors
    /// If it can't be made, or if others may write to it.
    pub(super) fn open(folder: &Path) -> Result<Self> {
        // No link of another user leads it elsewhere: what has not been used for long is removed there.
        let what = || format!("failed to use the folder `{}`, DEBUGINFOD_CACHE_PATH names another", folder.display());
        let cache = Self(Arc::new(place::Folder::open(folder).with_context(what)?));
        cache.remove_unused();
        Ok(cache)
    }

    fn folder_of(&self, build_id: &[u8]) -> PathBuf {
        self.0.descriptor().join(digits(build_id))
    }

    /// Where a file is, or would be.
    pub(super) fn place(&self, build_id: &[u8], kind: Kind) -> PathBuf {
        self.folder_of(build_id).join(kind.word())
    }

    /// Is it there?
    pub(super) fn look(&self, build_id: &[u8], kind: Kind) -> Known {
        match fs::symlink_metadata(self.place(build_id, kind)) {
            Ok(found) if found.is_file() && found.size() > 0 => Known::Here,
            Ok(found) if is_younger(found.modified(), MISS) => Known::Missing,
            _ => Known::Nothing,
        }
    }

    /// No server has it.
    pub(super) fn miss(&self, build_id: &[u8], kind: Kind) {
        let place = self.place(build_id, kind);
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
        Ok(Begun { file, place, wanted, _folder: self.0.clone() })
    }

    fn make_folder(&self, build_id: &[u8]) -> io::Result<()> {
        match DirBuilder::new().mode(0o700).create(self.folder_of(build_id)) {
            Err(error) if error.kind() != ErrorKind::AlreadyExists => Err(error),
            _ => Ok(()),
        }
    }

    fn remove_unused(&self) {
        for folder in fs::read_dir(self.0.descriptor()).into_iter().flatten().flatten().take(LOOKED_AT_MAX) {
            let is_build_id =
                folder.file_name().to_str().is_some_and(|name| name.bytes().all(|c| c.is_ascii_hexdigit()));
            if !is_build_id {
                continue;
            }
            for file in fs::read_dir(folder.path()).into_iter().flatten().flatten() {
                let used = file.metadata().and_then(|file| file.accessed());
                if !is_younger(used, UNUSED) {
                    let _ = fs::remove_file(file.path());
                }
            }
            // It fails while something is in it.
            let _ = fs::remove_dir(folder.path());
        }
    }
}

impl Begun {
    /// It is whole: from now on it is found.
    pub(super) fn keep(self) -> io::Result<()> {
        fs::rename(&self.place, &self.wanted)
    }
}

impl Drop for Begun {
    fn drop(&mut self) {
        // After it was kept there is none of this name.
        let _ = fs::remove_file(&self.place);
    }
}

/// One of the future is not.
fn is_younger(time: io::Result<SystemTime>, than: Duration) -> bool {
    time.is_ok_and(|time| time.elapsed().is_ok_and(|age| age < than))
}

#[cfg(test)]
mod tests {
    use std::io::Write;
    use std::os::unix::fs::PermissionsExt;

    use super::*;

    struct Folder(PathBuf);

    impl Drop for Folder {
        fn drop(&mut self) {
            let _ = fs::remove_dir_all(&self.0);
        }
    }

    fn folder(name: &str) -> Folder {
        Folder(std::env::temp_dir().join(format!("faultline-cache-{}-{name}", std::process::id())))
    }

    const ID: [u8; 4] = [0xab, 0xcd, 0xef, 1];

    #[test]
    fn what_was_kept_is_found_and_the_rest_is_gone() {
        let folder = folder("kept");
        let cache = Cache::open(&folder.0).unwrap();
        let mut begun = cache.begin(&ID, Kind::Debuginfo).unwrap();
        begun.file.write_all(b"x").unwrap();
        assert_eq!(cache.look(&ID, Kind::Debuginfo), Known::Nothing, "it is not whole yet");
        begun.keep().unwrap();
        assert_eq!(cache.look(&ID, Kind::Debuginfo), Known::Here);
        assert_eq!(cache.look(&ID, Kind::Executable), Known::Nothing);
        drop(cache.begin(&ID, Kind::Executable).unwrap());
        assert_eq!(fs::read_dir(folder.0.join("abcdef01")).unwrap().count(), 1, "what was given up is removed");
    }

    #[test]
    fn what_no_server_has_is_not_asked_for_again_for_a_while() {
        let folder = folder("missing");
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
    fn what_nobody_uses_leaves_and_other_files_stay() {
        let folder = folder("unused");
        let cache = Cache::open(&folder.0).unwrap();
        for (id, age) in [(ID, UNUSED * 2), ([1; 4], Duration::ZERO)] {
            let begun = cache.begin(&id, Kind::Debuginfo).unwrap();
            begun.file.set_times(fs::FileTimes::new().set_accessed(SystemTime::now() - age)).unwrap();
            begun.keep().unwrap();
        }
        fs::write(folder.0.join("max_unused_age_s"), "604800").unwrap();
        drop(Cache::open(&folder.0).unwrap());
        let mut left: Vec<_> = fs::read_dir(&folder.0).unwrap().map(|entry| entry.unwrap().file_name()).collect();
        left.sort();
        assert_eq!(left, ["01010101", "max_unused_age_s"]);
    }

    #[test]
    fn a_folder_that_others_write_to_is_none() {
        let folder = folder("others");
        fs::create_dir(&folder.0).unwrap();
        fs::set_permissions(&folder.0, fs::Permissions::from_mode(0o777)).unwrap();
        let refusal = Cache::open(&folder.0).err().map(|error| format!("{error:#}")).unwrap();
        assert!(refusal.contains("others may write to it") && refusal.contains("DEBUGINFOD_CACHE_PATH"), "{refusal}");
    }
}
