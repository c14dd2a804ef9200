//! Which files there are, the newest first.

use std::fs;
use std::io::ErrorKind;
use std::path::{Path, PathBuf};
use std::time::{Duration, SystemTime};

use anyhow::{Context, Result, bail};

use crate::output::Timestamp;
use crate::report::{STANDARD_INPUT, refuse_folder};

/// Where the service writes, as dist/faultline.toml says.
pub(crate) const OF_SERVICE: &str = "/var/log/faultline/faultline.jsonl";

/// Programs that compress a file, or copy it, may keep its time in whole seconds, and some file systems in two.
const COARSENESS: Duration = Duration::from_secs(2);

/// A file that may have records.
#[derive(Clone, Debug)]
pub(super) struct HistoryFile {
    pub path: PathBuf,
    /// When it was last written to; `None` means that this isn't known.
    modified: Option<SystemTime>,
}

impl HistoryFile {
    /// May it have records from this moment or later? What was written to it before can't be of a later crash.
    pub(super) fn may_have(&self, moment: Timestamp) -> bool {
        self.modified.and_then(|time| time.checked_add(COARSENESS)).is_none_or(|time| time >= SystemTime::from(moment))
    }
}

/// These files, the newest first.
///
/// # Errors
/// If there is no such file, or one is a folder.
pub(super) fn given(paths: &[PathBuf]) -> Result<Vec<HistoryFile>> {
    let look = |path: &PathBuf| {
        if path.as_os_str() == STANDARD_INPUT {
            return Ok(HistoryFile { path: path.clone(), modified: None });
        }
        let metadata = fs::metadata(path).with_context(|| format!("failed to open `{}`", path.display()))?;
        refuse_folder(path, &metadata)?;
        Ok(HistoryFile { path: path.clone(), modified: metadata.modified().ok().filter(|_| metadata.is_file()) })
    };
    let files = paths.iter().map(look).collect::<Result<_>>()?;
    Ok(newest_first(files))
}

/// The files that the service has written, rotated and compressed ones as well, the newest first.
///
/// # Errors
/// If their folder can't be read.
pub(super) fn of_service(log: Option<&Path>) -> Result<Vec<HistoryFile>> {
    of_log(log.unwrap_or(Path::new(OF_SERVICE)))
}

fn of_log(log: &Path) -> Result<Vec<HistoryFile>> {
    let (Some(folder), Some(name)) = (log.parent(), log.file_name()) else { bail!("`{}` is no log", log.display()) };
    let what = || format!("failed to read the folder `{}`", folder.display());
    let entries = match fs::read_dir(folder) {
        Ok(entries) => entries,
        Err(error) => {
            let cure = match error.kind() {
                ErrorKind::NotFound => ": name a FILE, or start the service faultline, which writes there",
                ErrorKind::PermissionDenied => ": be root or in the group faultline",
                _ => "",
            };
            bail!("{}: {error}{cure}", what());
        }
    };
    let mut files = Vec::new();
    for entry in entries {
        let entry = entry.with_context(what)?;
        if is_of(&entry.file_name().to_string_lossy(), &name.to_string_lossy()) {
            // One that has been rotated away since has another name by now, under which it is here as well, or is gone.
            let Ok(metadata) = fs::metadata(entry.path()) else { continue };
            if metadata.is_file() {
                files.push(HistoryFile { path: entry.path(), modified: metadata.modified().ok() });
            }
        }
    }
    Ok(newest_first(files))
}

/// Is this the log, or the log as something that rotates files has renamed it? `x.jsonl.1`, `x.jsonl.2.gz`, `x.jsonl-20261129.zst`.
fn is_of(name: &str, log: &str) -> bool {
    name.strip_prefix(log).is_some_and(|rest| rest.is_empty() || rest.starts_with(['.', '-']))
}

fn newest_first(mut files: Vec<HistoryFile>) -> Vec<HistoryFile> {
    // One whose time isn't known may have the newest records.
    files.sort_by_key(|file| std::cmp::Reverse((file.modified.is_none(), file.modified)));
    files
}

/// `2 files`, or the name of the only one.
pub(super) fn words(files: &[HistoryFile]) -> String {
    match files {
        [one] => format!("`{}`", one.path.display()),
        files => format!("{} files", files.len()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_service_writes_there() {
        let config = include_str!("../../dist/faultline.toml");
        assert!(config.contains(&format!("\noutput = \"{OF_SERVICE}\"\n")), "{config}");
    }

    #[test]
    fn rotated_files_belong_to_the_log() {
        for name in ["x.jsonl", "x.jsonl.1", "x.jsonl.2.gz", "x.jsonl.3.zst", "x.jsonl-20261129-1764439200.gz"] {
            assert!(is_of(name, "x.jsonl"), "{name}");
        }
        for name in ["x.json", "y.jsonl", "x.jsonlx", ".x.jsonl.swp"] {
            assert!(!is_of(name, "x.jsonl"), "{name}");
        }
    }

    #[test]
    fn files_come_newest_first_and_those_that_are_too_old_are_known() {
        let folder = std::env::temp_dir().join(format!("faultline-history-{}", std::process::id()));
        fs::create_dir(&folder).unwrap();
        for (name, second) in [("x.jsonl", 300), ("x.jsonl.1", 200), ("x.jsonl.2.gz", 100), ("other", 400)] {
            let file = fs::File::create(folder.join(name)).unwrap();
            file.set_modified(SystemTime::UNIX_EPOCH + Duration::from_secs(second)).unwrap();
        }
        let files = of_log(&folder.join("x.jsonl")).unwrap();
        let names: Vec<_> = files.iter().map(|file| file.path.file_name().unwrap().to_string_lossy()).collect();
        assert_eq!(names, ["x.jsonl", "x.jsonl.1", "x.jsonl.2.gz"]);
        let at = |second: i128| Timestamp::from_unix_ns(second * 1_000_000_000).unwrap();
        assert!(files[1].may_have(at(201)) && !files[1].may_have(at(203)));
        let mixed = given(&[folder.join("x.jsonl.1"), STANDARD_INPUT.into(), folder.join("x.jsonl")]).unwrap();
        assert_eq!(mixed[0].path, Path::new(STANDARD_INPUT));
        assert!(mixed[0].may_have(at(1 << 33)), "nobody knows what comes from there");
        assert!(given(std::slice::from_ref(&folder)).unwrap_err().to_string().contains("it is a folder"));
        fs::remove_dir_all(&folder).unwrap();
        assert!(of_log(&folder.join("x.jsonl")).is_err());
    }
}
