//! Where records go: a file or standard output, as text or as JSON Lines.

mod text;
mod time;

use std::fs::OpenOptions;
use std::io::{self, BufWriter, Write};
use std::path::PathBuf;

use anyhow::{Context, Result};
use serde::Serialize;

pub use text::{escape, lossy};
pub use time::{Timestamp, boottime_ns};

/// The version of the records' shapes, in every record. Fields are added under the same number.
pub const SCHEMA: u32 = 1;

/// How records are written.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Format {
    /// For people.
    #[default]
    Text,
    /// One object a line.
    Json,
}

/// What `--output` and `--append` say.
#[derive(Clone, Debug, Default)]
pub struct Target {
    /// None: standard output.
    pub path: Option<PathBuf>,
    /// Keep what is in the file.
    pub append: bool,
}

/// A record that can be written either way.
pub trait Record: Serialize {
    /// The text of the record, with a newline at its end.
    fn text(&self) -> String;
}

/// The open end of the pipeline. Buffered: call [`Writer::flush`] when there is nothing more to write for now.
pub struct Writer {
    to: BufWriter<Box<dyn Write>>,
    name: String,
    format: Format,
}

impl Writer {
    /// Opens the target.
    ///
    /// # Errors
    /// Where the file can't be opened for writing.
    pub fn open(target: &Target, format: Format) -> Result<Self> {
        let (to, name): (Box<dyn Write>, String) = match &target.path {
            None => (Box::new(io::stdout()), "standard output".to_owned()),
            Some(path) => {
                let mut options = OpenOptions::new();
                options.create(true).write(true).append(target.append).truncate(!target.append);
                let file = options.open(path).with_context(|| format!("failed to open `{}`", path.display()))?;
                (Box::new(file), format!("`{}`", path.display()))
            }
        };
        Ok(Self { to: BufWriter::with_capacity(64 * 1024, to), name, format })
    }

    /// Writes one record.
    ///
    /// # Errors
    /// Where the target takes no more: a full disk, a closed pipe ([`is_closed_pipe`]).
    pub fn write(&mut self, record: &impl Record) -> Result<()> {
        let mut line = match self.format {
            Format::Text => record.text().into_bytes(),
            Format::Json => serde_json::to_vec(record).context("failed to encode a record")?,
        };
        if self.format == Format::Json {
            line.push(b'\n');
        }
        self.to.write_all(&line).with_context(|| format!("failed to write {}", self.name))
    }

    /// Hands on what is buffered.
    ///
    /// # Errors
    /// As [`Writer::write`].
    pub fn flush(&mut self) -> Result<()> {
        self.to.flush().with_context(|| format!("failed to write {}", self.name))
    }
}

/// Did the reader of our output go away? That ends a run quietly: `faultline crash | head`.
pub fn is_closed_pipe(error: &anyhow::Error) -> bool {
    error.chain().any(|cause| cause.downcast_ref::<io::Error>().is_some_and(|e| e.kind() == io::ErrorKind::BrokenPipe))
}
