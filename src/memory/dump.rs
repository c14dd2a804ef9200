//! The folder of `--dump`: a file for each page's content, named by address and time, and the index of all pages.
//!
//! Nobody but us and root may write to the folder. Nevertheless the index is not trusted: what it says is looked up in the file that
//! it names before a page is left out, and only so much of it is read.

use std::collections::HashMap;
use std::fs::File;
use std::io::{self, BufRead, BufReader, Read, Seek, SeekFrom};
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result};
use serde::Deserialize;

use super::record::{Page, PageRecord};
use crate::output::Plain;
use crate::place::{self, Folder};

/// The index: one page record a line.
pub(super) const INDEX: &str = "pages.jsonl";

/// How much of an index is read, from its end.
const INDEX_READ_MAX: u64 = 32 << 20;

/// The longest line of an index that is looked at.
const LINE_MAX: u64 = 16 << 10;

/// How many contents are known at least; twice as many at most. Content that is forgotten is stored once more.
const KNOWN_MIN: usize = 1 << 15;

/// What of the index is written at once.
const BATCH: usize = 64 * 1024;

/// An open folder.
pub(super) struct Dump {
    path: PathBuf,
    folder: Folder,
    index: Plain,
    /// By SHA-256: equal content is stored once, in this run and in those before.
    known: StoredContents,
    /// What could not be written: content of pages, modules, and lines of the index.
    failed: u64,
}

/// The fields of an existing line that are needed.
#[derive(Deserialize)]
struct Line {
    sha256: String,
    file: Option<String>,
}

/// What the name of a page's file is made of.
#[derive(Clone, Copy)]
struct PageFile {
    pid: u32,
    address: u64,
    unix_ns: i128,
    /// It is stored by this run, or was compared.
    is_certain: bool,
}

impl PageFile {
    fn of(page: &Page) -> Self {
        Self { pid: page.pid, address: page.address, unix_ns: page.timestamp.unix_ns(), is_certain: true }
    }

    /// `None` means that no file of ours has this name.
    fn parse(file: &str) -> Option<Self> {
        let (pid, name) = file.split_once('/')?;
        let (address, unix_ns) = name.strip_suffix(".bin")?.strip_prefix("0x")?.split_once('-')?;
        let stored = Self {
            pid: pid.parse().ok()?,
            address: u64::from_str_radix(address, 16).ok()?,
            unix_ns: unix_ns.parse().ok()?,
            is_certain: false,
        };
        (stored.path() == file).then_some(stored)
    }

    fn name(&self) -> String {
        format!("{:#x}-{}.bin", self.address, self.unix_ns)
    }

    fn path(&self) -> String {
        format!("{}/{}", self.pid, self.name())
    }
}

/// The contents that were stored last.
#[derive(Default)]
struct StoredContents {
    newer: HashMap<[u8; 32], PageFile>,
    older: HashMap<[u8; 32], PageFile>,
}

impl StoredContents {
    fn get(&self, sha256: &[u8; 32]) -> Option<PageFile> {
        self.newer.get(sha256).or_else(|| self.older.get(sha256)).copied()
    }

    fn add(&mut self, sha256: [u8; 32], stored: PageFile) {
        if self.newer.len() >= KNOWN_MIN {
            self.older = std::mem::take(&mut self.newer);
        }
        self.newer.insert(sha256, stored);
    }

    /// Reads the end of an index.
    fn read(index: &mut File) -> io::Result<Self> {
        let mut known = Self::default();
        let length = index.metadata()?.len();
        index.seek(SeekFrom::Start(length.saturating_sub(INDEX_READ_MAX)))?;
        let mut from = BufReader::new(index.take(INDEX_READ_MAX));
        let mut line = Vec::new();
        loop {
            line.clear();
            if from.by_ref().take(LINE_MAX).read_until(b'\n', &mut line)? == 0 {
                return Ok(known);
            }
            // A line that was cut off, as by a full disk, or that we did not write names nothing.
            let Ok(Line { sha256, file }) = serde_json::from_slice(&line) else { continue };
            if let (Some(sum), Some(stored)) = (sum(&sha256), file.as_deref().and_then(PageFile::parse)) {
                known.add(sum, stored);
            }
        }
    }
}

/// A SHA-256 of its digits.
fn sum(digits: &str) -> Option<[u8; 32]> {
    let mut sum = [0; 32];
    if digits.len() != 64 || !digits.is_ascii() {
        return None;
    }
    for (byte, at) in sum.iter_mut().zip((0..64).step_by(2)) {
        *byte = u8::from_str_radix(&digits[at..at + 2], 16).ok()?;
    }
    Some(sum)
}

/// Begins a new line where the last one was cut off.
fn end_line(index: &File) -> io::Result<()> {
    let length = index.metadata()?.len();
    let mut last = [b'\n'];
    if length != 0 && index.read_at(&mut last, length - 1)? == 1 && last != *b"\n" {
        io::Write::write_all(&mut &*index, b"\n")?;
    }
    Ok(())
}

impl Dump {
    /// Opens the folder, which is made if it isn't there; its content stays.
    ///
    /// # Errors
    /// If it can't be made, read or written, or others may write to it.
    pub(super) fn open(folder: &Path) -> Result<Self> {
        let what = || format!("failed to open dump folder `{}`", folder.display());
        let path = folder.to_owned();
        let folder = Folder::open(folder).with_context(what)?;
        let of_index = || format!("failed to open `{}`", path.join(INDEX).display());
        let mut index = folder.append(INDEX).with_context(of_index)?;
        let known = StoredContents::read(&mut index).with_context(of_index)?;
        end_line(&index).with_context(of_index)?;
        Ok(Self { path, folder, index: Plain::new(index), known, failed: 0 })
    }

    /// Stores a page and adds it to the index; returns its record. `file` is `None` if the content can't be written.
    pub(super) fn store(&mut self, page: &Page, host: &str) -> PageRecord {
        let file = self.known(page).or_else(|| self.write(page)).map(|stored| stored.path());
        let record = PageRecord::new(page, host, file);
        match serde_json::to_vec(&record) {
            Ok(mut line) => {
                line.push(b'\n');
                self.index.add(&line);
                if self.index.waiting() > BATCH {
                    self.flush();
                }
            }
            Err(error) => self.fail(INDEX, &error.to_string(), 1),
        }
        record
    }

    /// The file that has this content already.
    fn known(&mut self, page: &Page) -> Option<PageFile> {
        let stored = self.known.get(&page.sha256)?;
        if !stored.is_certain {
            let mut content = Vec::new();
            let file = self.folder.existing(&stored.pid.to_string())?.read(&stored.name())?;
            file.take(page.bytes.len() as u64 + 1).read_to_end(&mut content).ok()?;
            if content != *page.bytes {
                return None;
            }
            self.known.add(page.sha256, PageFile { is_certain: true, ..stored });
        }
        Some(stored)
    }

    /// Writes the content of a page.
    fn write(&mut self, page: &Page) -> Option<PageFile> {
        let stored = PageFile::of(page);
        let folder = self.folder_of(page.pid);
        let written =
            folder.and_then(|folder| folder.write_new(&stored.name(), &page.bytes).map_err(|error| place::why(&error)));
        match written {
            Ok(()) => {
                self.known.add(page.sha256, stored);
                Some(stored)
            }
            Err(error) => {
                self.fail(&stored.path(), &format!("{error}: its record has no file"), 1);
                None
            }
        }
    }

    /// Writes a module of a process, in place of its earlier file.
    pub(super) fn store_module(&mut self, pid: u32, name: &str, bytes: &[u8]) {
        let folder = self.folder_of(pid);
        let written = folder.and_then(|folder| folder.replace(name, bytes).map_err(|error| place::why(&error)));
        if let Err(error) = written {
            self.fail(&format!("{pid}/{name}"), &error, 1);
        }
    }

    /// The folder of a process, or why there is none.
    fn folder_of(&self, pid: u32) -> Result<Folder, String> {
        self.folder.folder(&pid.to_string()).map_err(|error| format!("{error:#}"))
    }

    /// Counts what could not be written, and reports the first.
    fn fail(&mut self, name: &str, why: &str, count: u64) {
        if self.failed == 0 {
            say!("faultline: failed to write `{}`: {why}", self.path.join(name).display());
        }
        self.failed += count;
    }

    /// What could not be written: content of pages, modules, and lines of the index.
    pub(super) fn failed(&self) -> u64 {
        self.failed
    }

    /// Hands on what is buffered.
    pub(super) fn flush(&mut self) {
        if let Err(unwritten) = self.index.flush() {
            self.fail(INDEX, &place::why(&unwritten.error), unwritten.records);
        }
    }
}

#[cfg(test)]
mod tests {
    use std::fs;
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
        let first = dump.store(&page(0x1000, 1), "h").file.unwrap();
        assert_eq!(first, "7/0x1000-1707993045000004096.bin");
        assert_eq!(dump.store(&page(0x2000, 1), "h").file.as_deref(), Some(&*first));
        let other = dump.store(&page(0x3000, 2), "h").file.unwrap();
        assert_ne!(other, first);
        dump.flush();
        drop(dump);
        let mut again = Dump::open(&folder).unwrap();
        assert_eq!(again.store(&page(0x9000, 1), "h").file.as_deref(), Some(&*first), "a later run");
        again.flush();
        assert_eq!(fs::read_to_string(folder.join(INDEX)).unwrap().lines().count(), 4);
        assert_eq!(fs::read(folder.join(first)).unwrap(), [1; 4096]);
        fs::remove_dir_all(&folder).unwrap();
    }
}
