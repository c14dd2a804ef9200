//! A file, or what else takes records without waiting for a reader.

use std::fs::File;
use std::io::{self, ErrorKind, Write};

use crate::record::lines::Continuity;

/// The file, and the records that are to be written to it.
pub(crate) struct Plain {
    file: File,
    buffer: Vec<u8>,
    /// Where each record in the buffer ends.
    ends: Vec<usize>,
    /// How long the file was after the last write; `None`: what it has isn't known.
    length: Option<u64>,
    /// What it had when [`Plain::continuity`] was asked last may be gone.
    is_new: bool,
}

/// Records that could not be written, and why.
pub(crate) struct WriteFailure {
    pub records: u64,
    pub error: io::Error,
}

impl Plain {
    pub(crate) fn new(file: File) -> Self {
        Self { file, buffer: Vec::new(), ends: Vec::new(), length: None, is_new: true }
    }

    /// Does what was written stand in front of what is written next? Not if somebody has emptied the file meanwhile, as logrotate's
    /// `copytruncate` does.
    pub(crate) fn continuity(&mut self) -> Continuity {
        let now = self.file_length();
        self.length = self.length.filter(|before| now.is_some_and(|now| now >= *before));
        let is_new = std::mem::take(&mut self.is_new) || self.length.is_none();
        match now {
            None => Continuity::Stream,
            Some(_) if is_new => Continuity::New,
            Some(_) => Continuity::Same,
        }
    }

    /// `None`: it is no file that keeps what is written.
    fn file_length(&self) -> Option<u64> {
        self.file.metadata().ok().filter(std::fs::Metadata::is_file).map(|metadata| metadata.len())
    }

    /// How many bytes are to be written.
    pub(crate) fn waiting(&self) -> usize {
        self.buffer.len()
    }

    /// Takes a record behind those that are to be written.
    pub(crate) fn add(&mut self, record: &[u8]) {
        self.buffer.extend_from_slice(record);
        self.ends.push(self.buffer.len());
    }

    /// Writes all that is to be written. If that fails, nothing of a record stays in a file that did not fit, so that every line is a
    /// record, and what could not be written is dropped.
    pub(crate) fn flush(&mut self) -> Result<(), WriteFailure> {
        if self.buffer.is_empty() {
            return Ok(());
        }
        let before = self.file_length();
        let is_same = self.length.is_none_or(|length| before >= Some(length));
        let mut written = 0;
        let result = loop {
            match self.file.write(&self.buffer[written..]) {
                Ok(0) => break Err(ErrorKind::WriteZero.into()),
                Ok(count) => written += count,
                Err(error) if error.kind() == ErrorKind::Interrupted => {}
                Err(error) => break Err(error),
            }
            if written == self.buffer.len() {
                break Ok(());
            }
        };
        let ends = std::mem::take(&mut self.ends);
        self.buffer.clear();
        // If it was emptied between the look and the write, what was written may refer to what isn't there; what follows doesn't.
        let after = self.file_length().filter(|_| result.is_ok() && is_same);
        self.length = after.filter(|&after| before.is_some_and(|before| after >= before + written as u64));
        self.is_new |= self.length.is_none();
        result.map_err(|error| {
            let whole = ends.partition_point(|end| *end <= written);
            let kept = whole.checked_sub(1).and_then(|last| ends.get(last)).copied().unwrap_or(0);
            if let Some(before) = before {
                self.cut(before, written as u64, kept as u64);
            }
            WriteFailure { records: (ends.len() - whole) as u64, error }
        })
    }

    /// Cuts off a part of a record, unless somebody else has written behind it.
    fn cut(&mut self, before: u64, written: u64, kept: u64) {
        if written != kept && self.file.metadata().is_ok_and(|now| now.len() == before + written) {
            // If this fails too, the next line is damaged, and `faultline report` reports it.
            let _ = self.file.set_len(before + kept);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_file_goes_on_until_somebody_empties_it() {
        let path = std::env::temp_dir().join(format!("faultline-plain-{}", std::process::id()));
        let mut plain = Plain::new(std::fs::OpenOptions::new().append(true).create(true).open(&path).unwrap());
        let write = |plain: &mut Plain| {
            plain.add(b"a line\n");
            plain.flush().map_err(|unwritten| unwritten.error).unwrap();
            plain.continuity()
        };
        assert_eq!(plain.continuity(), Continuity::New, "what it had before isn't known");
        assert_eq!((write(&mut plain), write(&mut plain)), (Continuity::Same, Continuity::Same));
        std::fs::OpenOptions::new().write(true).truncate(true).open(&path).unwrap();
        assert_eq!(plain.continuity(), Continuity::New);
        assert_eq!(write(&mut plain), Continuity::Same, "nothing was written that refers to what is gone");
        std::fs::OpenOptions::new().write(true).truncate(true).open(&path).unwrap();
        assert_eq!(write(&mut plain), Continuity::New, "nobody had looked: what was written may refer to what is gone");
        assert_eq!(write(&mut plain), Continuity::Same);
        std::fs::OpenOptions::new().write(true).truncate(true).open(&path).unwrap();
        plain.add(b"a line\n");
        assert!(plain.flush().is_ok());
        assert_eq!(write(&mut plain), Continuity::New, "several records were written since it was asked");
        assert_eq!(write(&mut plain), Continuity::Same);
        std::fs::remove_file(&path).unwrap();
        let mut full = Plain::new(std::fs::OpenOptions::new().write(true).open("/dev/full").unwrap());
        full.add(b"one\n");
        assert!(full.flush().is_err());
        assert_eq!(full.continuity(), Continuity::Stream);
    }

    #[test]
    fn what_did_not_fit_is_counted_and_leaves_no_part() {
        let mut full = Plain::new(std::fs::OpenOptions::new().write(true).open("/dev/full").unwrap());
        full.add(b"one\n");
        full.add(b"two\n");
        assert_eq!(full.waiting(), 8);
        let unwritten = full.flush().unwrap_err();
        assert_eq!((unwritten.records, unwritten.error.raw_os_error()), (2, Some(libc::ENOSPC)));
        assert!(full.flush().is_ok(), "it is dropped");
    }
}
