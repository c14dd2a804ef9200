//! The folder of `--dump`: a file for each page's content, named by address and time, and the index of all pages.

use std::collections::HashMap;
use std::fs::{self, File, OpenOptions};
use std::io::{self, BufRead, BufReader, BufWriter, Write};
use std::path::{Path, PathBuf};

use anyhow::{Context, Result};
use serde::Deserialize;

use super::record::{Page, PageRecord};
use crate::hex::digits;

/// The index: one page record a line.
pub const INDEX: &str = "pages.jsonl";

/// An open folder.
pub struct Dump {
    folder: PathBuf,
    index: BufWriter<File>,
    /// By SHA-256: equal content is stored once, in this run and in those before.
    files: HashMap<String, String>,
    /// Pages whose content could not be written.
    failed: u64,
}

/// The fields of an existing line that are needed.
#[derive(Deserialize)]
struct Line {
    sha256: String,
    file: Option<String>,
}

impl Dump {
    /// Opens the folder, which is made if it isn't there; its content stays.
    ///
    /// # Errors
    /// If it can't be made, read or written.
    pub fn open(folder: &Path) -> Result<Self> {
        let what = || format!("failed to open dump folder `{}`", folder.display());
        fs::create_dir_all(folder).with_context(what)?;
        let path = folder.join(INDEX);
        let mut files = HashMap::new();
        match File::open(&path) {
            Ok(file) => {
                for line in BufReader::new(file).lines() {
                    // A line that was cut off, as by a full disk, names nothing.
                    let Ok(line) = serde_json::from_str::<Line>(&line.with_context(what)?) else { continue };
                    if let Some(file) = line.file.filter(|file| folder.join(file).is_file()) {
                        files.insert(line.sha256, file);
                    }
                }
            }
            Err(error) if error.kind() == io::ErrorKind::NotFound => {}
            Err(error) => return Err(error).with_context(what),
        }
        let index = OpenOptions::new().create(true).append(true).open(path).with_context(what)?;
        Ok(Self { folder: folder.to_owned(), index: BufWriter::with_capacity(64 * 1024, index), files, failed: 0 })
    }

    /// Stores a page and adds it to the index; returns its record. `file` is `None` if the content can't be written.
    ///
    /// # Errors
    /// If the index can't be written.
    pub fn store(&mut self, page: &Page, host: &str) -> Result<PageRecord> {
        let sha256 = digits(&page.sha256);
        let file = match self.files.get(&sha256) {
            Some(file) => Some(file.clone()),
            None => self.write(page).inspect(|file| {
                self.files.insert(sha256, file.clone());
            }),
        };
        let record = PageRecord::new(page, host, file);
        let what = || format!("failed to write `{}`", self.folder.join(INDEX).display());
        let mut line = serde_json::to_vec(&record).context("failed to encode a record")?;
        line.push(b'\n');
        self.index.write_all(&line).with_context(what)?;
        Ok(record)
    }

    /// Writes the content of a page; returns the file's name in the folder.
    fn write(&mut self, page: &Page) -> Option<String> {
        let name = format!("{}/{:#x}-{}.bin", page.pid, page.address, page.timestamp.unix_ns());
        let path = self.folder.join(&name);
        let written = match write_new(&path, &page.bytes) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => {
                fs::create_dir(self.folder.join(page.pid.to_string())).and_then(|()| write_new(&path, &page.bytes))
            }
            other => other,
        };
        match written {
            Ok(()) => Some(name),
            Err(error) => {
                if self.failed == 0 {
                    say!("faultline: failed to write `{}`: {error}: its record has no file", path.display());
                }
                self.failed += 1;
                None
            }
        }
    }

    /// The folder of the files that belong to a process as a whole.
    pub fn folder_of(&self, pid: u32) -> PathBuf {
        self.folder.join(pid.to_string())
    }

    /// Pages whose content could not be written.
    pub fn failed(&self) -> u64 {
        self.failed
    }

    /// Hands on what is buffered.
    ///
    /// # Errors
    /// If the index can't be written.
    pub fn flush(&mut self) -> Result<()> {
        self.index.flush().with_context(|| format!("failed to write `{}`", self.folder.join(INDEX).display()))
    }
}

/// Writes a file that isn't there yet, whole or not at all.
fn write_new(path: &Path, bytes: &[u8]) -> io::Result<()> {
    let mut file = OpenOptions::new().write(true).create_new(true).open(path)?;
    file.write_all(bytes).inspect_err(|_| {
        // The error is reported; a part of a page would be taken for the whole page.
        let _ = fs::remove_file(path);
    })
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use super::super::record::{Source, Trigger};
    use super::*;
    use crate::output::Timestamp;

    fn page(address: u64, byte: u8) -> Page {
        Page {
            timestamp: Timestamp::from_unix_ns(1_707_993_045_000_000_000 + i128::from(address)).unwrap(),
            pid: 7,
            address,
            permissions: Some("r-xp".to_owned()),
            trigger: Trigger::Mprotect,
            sha256: [byte; 32],
            resident: true,
            source: Source::Kernel,
            mapping_name: None,
            bytes: Arc::from([byte; 4096]),
        }
    }

    #[test]
    fn equal_content_is_stored_once_whoever_had_it() {
        let folder = std::env::temp_dir().join(format!("faultline-dump-{}", std::process::id()));
        let _ = fs::remove_dir_all(&folder);
        let mut dump = Dump::open(&folder).unwrap();
        let first = dump.store(&page(0x1000, 1), "h").unwrap().file.unwrap();
        assert_eq!(first, "7/0x1000-1707993045000004096.bin");
        assert_eq!(dump.store(&page(0x2000, 1), "h").unwrap().file.as_deref(), Some(&*first));
        let other = dump.store(&page(0x3000, 2), "h").unwrap().file.unwrap();
        assert_ne!(other, first);
        dump.flush().unwrap();
        drop(dump);
        let mut again = Dump::open(&folder).unwrap();
        assert_eq!(again.store(&page(0x9000, 1), "h").unwrap().file.as_deref(), Some(&*first), "a later run");
        again.flush().unwrap();
        assert_eq!(fs::read_to_string(folder.join(INDEX)).unwrap().lines().count(), 4);
        assert_eq!(fs::read(folder.join(first)).unwrap(), [1; 4096]);
        fs::remove_dir_all(&folder).unwrap();
    }
}
