//! What leaves the folder of what was fetched: what nobody has used for long, and, where all of it takes more than it may, what was used
//! longest ago. Anybody can make programs with new build ids, so that without a bound it would fill the disk.

use std::fs::{self, File, Metadata};
use std::io::Read;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::time::{Duration, SystemTime};

/// How long it is believed that no server has a file: `cache_miss_s` of elfutils.
pub(super) const MISS: Duration = Duration::from_secs(600);

/// What nobody has used for so long is removed, unless elfutils' file of this name in the folder says otherwise.
pub(super) const UNUSED: (&str, Duration) = ("max_unused_age_s", Duration::from_secs(7 * 24 * 3600));

/// What all of it may take, unless the file of this name in the folder says otherwise.
pub(super) const BYTES_MAX: (&str, u64) = ("faultline_max_bytes", 4 << 30);

/// So many build ids are kept.
const BUILD_IDS_MAX: usize = 4096;

/// So many are looked at once: some of a folder that others have filled stay until the next time.
const LOOKED_AT_MAX: usize = 4 * BUILD_IDS_MAX;

/// A number in a file has no more digits.
const DIGITS_MAX: u64 = 20;

/// What is kept of one build id.
struct Kept {
    folder: PathBuf,
    used: SystemTime,
    bytes: u64,
}

/// Removes what is not to stay.
pub(super) fn clean(folder: &Path) {
    let unused = number_in(folder, UNUSED.0).map_or(UNUSED.1, Duration::from_secs);
    let mut kept: Vec<Kept> = folders(folder).filter_map(|folder| clean_one(folder, unused)).collect();
    // The newest last, which stays in any case.
    kept.sort_by_key(|kept| kept.used);
    let bytes_max = number_in(folder, BYTES_MAX.0).unwrap_or(BYTES_MAX.1);
    let (mut bytes, mut count) = (kept.iter().fold(0, |sum: u64, kept| sum.saturating_add(kept.bytes)), kept.len());
    kept.pop();
    for kept in kept {
        if bytes <= bytes_max && count <= BUILD_IDS_MAX {
            break;
        }
        for file in files(&kept.folder) {
            let _ = fs::remove_file(file.0);
        }
        // It fails if something new is in it.
        let _ = fs::remove_dir(&kept.folder);
        (bytes, count) = (bytes - kept.bytes, count - 1);
    }
}

/// The folders of build ids.
fn folders(folder: &Path) -> impl Iterator<Item = PathBuf> {
    let entries = fs::read_dir(folder).into_iter().flatten().flatten();
    let are_build_ids = entries
        .filter(|entry| entry.file_name().to_str().is_some_and(|name| name.bytes().all(|c| c.is_ascii_hexdigit())));
    are_build_ids.take(LOOKED_AT_MAX).map(|entry| entry.path())
}

fn files(folder: &Path) -> impl Iterator<Item = (PathBuf, Metadata)> {
    let entries = fs::read_dir(folder).into_iter().flatten().flatten();
    entries.filter_map(|entry| Some((entry.path(), entry.metadata().ok()?)))
}

/// Removes what is old of one build id. `None` means that nothing is left.
fn clean_one(folder: PathBuf, unused: Duration) -> Option<Kept> {
    let mut kept: Option<Kept> = None;
    for (file, metadata) in files(&folder) {
        let is_miss = metadata.len() == 0;
        if !is_younger(used(&metadata), if is_miss { unused.min(MISS) } else { unused }) {
            let _ = fs::remove_file(file);
            continue;
        }
        let kept = kept.get_or_insert(Kept { folder: folder.clone(), used: SystemTime::UNIX_EPOCH, bytes: 0 });
        kept.used = kept.used.max(used(&metadata));
        // As it is on the disk.
        kept.bytes = kept.bytes.saturating_add(metadata.blocks() * 512);
    }
    if kept.is_none() {
        // It fails while something is in it.
        let _ = fs::remove_dir(&folder);
    }
    kept
}

/// When a file was used last. Some file systems don't note when one was read.
fn used(metadata: &Metadata) -> SystemTime {
    let times = [metadata.accessed(), metadata.modified()];
    times.into_iter().flatten().max().unwrap_or(SystemTime::UNIX_EPOCH)
}

/// One of the future is not.
pub(super) fn is_younger(time: SystemTime, than: Duration) -> bool {
    time.elapsed().is_ok_and(|age| age < than)
}

/// The number in a file of the folder. `None` means that there is none.
fn number_in(folder: &Path, name: &str) -> Option<u64> {
    let mut text = String::new();
    let path = folder.join(name);
    fs::symlink_metadata(&path).ok().filter(Metadata::is_file)?;
    File::open(path).ok()?.take(DIGITS_MAX).read_to_string(&mut text).ok()?;
    text.trim().parse().ok()
}

#[cfg(test)]
pub(super) mod tests {
    use super::*;

    /// A place for a folder, which is removed at the end.
    pub(in super::super) struct Folder(pub(in super::super) PathBuf);

    impl Drop for Folder {
        fn drop(&mut self) {
            let _ = fs::remove_dir_all(&self.0);
        }
    }

    impl Folder {
        /// Nothing is there yet. `name`: each test has its own.
        pub(in super::super) fn at(name: &str) -> Self {
            Self(std::env::temp_dir().join(format!("faultline-debuginfod-{}-{name}", std::process::id())))
        }

        fn new(name: &str) -> Self {
            let folder = Self::at(name);
            fs::create_dir(&folder.0).unwrap();
            folder
        }

        /// A file of so many bytes that was used so long ago.
        fn add(&self, name: &str, bytes: usize, age: Duration) {
            let path = self.0.join(name);
            fs::create_dir_all(path.parent().unwrap()).unwrap();
            fs::write(&path, vec![1; bytes]).unwrap();
            let then = SystemTime::now() - age;
            let times = fs::FileTimes::new().set_accessed(then).set_modified(then);
            File::options().write(true).open(&path).unwrap().set_times(times).unwrap();
        }

        fn left(&self) -> Vec<String> {
            let mut left: Vec<_> = fs::read_dir(&self.0).unwrap().map(|entry| entry.unwrap().file_name()).collect();
            left.sort();
            left.into_iter().map(|name| name.into_string().unwrap()).collect()
        }
    }

    const SECOND: Duration = Duration::from_secs(1);

    #[test]
    fn what_nobody_uses_leaves_and_other_files_stay() {
        let folder = Folder::new("clean-unused");
        folder.add("ab01/debuginfo", 10, UNUSED.1 + 60 * SECOND);
        folder.add("ab02/debuginfo", 10, UNUSED.1 / 2);
        folder.add("ab03/debuginfo", 0, MISS + 60 * SECOND);
        folder.add("ab04/debuginfo", 0, MISS / 2);
        folder.add("notes/debuginfo", 10, UNUSED.1 * 2);
        folder.add("cache_clean_interval_s", 1, UNUSED.1 * 2);
        clean(&folder.0);
        assert_eq!(folder.left(), ["ab02", "ab04", "cache_clean_interval_s", "notes"]);
        fs::write(folder.0.join(UNUSED.0), "60\n").unwrap();
        clean(&folder.0);
        assert_eq!(folder.left(), ["cache_clean_interval_s", UNUSED.0, "notes"], "as elfutils' client was told");
    }

    #[test]
    fn what_was_used_longest_ago_makes_room() {
        const BYTES: usize = 64 << 10;
        let folder = Folder::new("clean-full");
        for (name, age) in [("a1", 40), ("a2", 10), ("a3", 30), ("a4", 20)] {
            folder.add(&format!("{name}/debuginfo"), BYTES / 2, SECOND * 100);
            folder.add(&format!("{name}/executable"), BYTES / 2, SECOND * age);
        }
        clean(&folder.0);
        assert_eq!(folder.left().len(), 4, "there is room for all");
        for (bytes, left) in [(BYTES * 3, &["a2", "a3", "a4"][..]), (BYTES * 3 - 4096, &["a2", "a4"]), (0, &["a2"])] {
            fs::write(folder.0.join(BYTES_MAX.0), bytes.to_string()).unwrap();
            clean(&folder.0);
            assert_eq!(folder.left(), [left, &[BYTES_MAX.0]].concat(), "{bytes}");
        }
    }

    #[test]
    fn there_are_no_more_than_so_many_build_ids() {
        let folder = Folder::new("clean-many");
        for number in 0..BUILD_IDS_MAX + 10 {
            folder.add(&format!("{number:08x}/debuginfo"), 0, SECOND * u32::from(number < 10));
        }
        clean(&folder.0);
        let left = folder.left();
        assert_eq!((left.len(), left[0].as_str()), (BUILD_IDS_MAX, "0000000a"));
    }
}
