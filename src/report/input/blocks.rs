//! Cuts files into blocks of whole lines, in the order in which they were given: what threads work on.

use std::io::{self, BufRead, ErrorKind, Read};
use std::path::PathBuf;

use anyhow::{Context, Result};

use super::LONGEST_LINE;
use super::source::{Source, damage};
use crate::report::STANDARD_INPUT;

/// A block has about so many bytes, or one line that is longer.
const BLOCK: usize = 4 << 20;
/// A large one. What comes of a block of a report is put together with the rest bug by bug, which smaller ones make dearer.
const LARGE_BLOCK: usize = 16 << 20;

/// Some lines of a file.
#[derive(Debug)]
pub(crate) struct Block {
    /// The file's name, for messages.
    pub name: String,
    /// The number of its first line, from 1.
    pub first_line: u64,
    /// The lines.
    pub content: Content,
}

/// What is in a block.
#[derive(Debug)]
pub(crate) enum Content {
    /// Whole lines; the last one may lack its newline.
    Lines(Vec<u8>),
    /// What could not be read, and why.
    Skipped(String),
}

/// Reads all files.
pub(crate) struct Blocks {
    /// The next one is the last.
    paths: Vec<PathBuf>,
    longest: usize,
    block: usize,
    open: Option<Open>,
    /// Memory of blocks that are done with: the kernel would empty new memory first.
    spare: Vec<Vec<u8>>,
}

/// A file that is being read.
struct Open {
    source: Source<'static>,
    line: u64,
    /// The beginning of a line whose end was not in the last block.
    rest: Vec<u8>,
    /// Why nothing follows, after damage.
    failed: Option<String>,
}

impl Blocks {
    /// The blocks of these files, in this order.
    pub(crate) fn new(paths: &[PathBuf]) -> Self {
        Self::with_longest(paths, LONGEST_LINE)
    }

    /// The same, of lines that have at most so many bytes: a longer one is skipped.
    pub(crate) fn with_longest(paths: &[PathBuf], longest: usize) -> Self {
        let paths = paths.iter().rev().cloned().collect();
        Self { paths, longest, block: BLOCK, open: None, spare: Vec::new() }
    }

    /// The same, in large blocks.
    pub(crate) fn large(self) -> Self {
        Self { block: LARGE_BLOCK, ..self }
    }

    /// Takes the memory of a block back.
    pub(crate) fn take_back(&mut self, mut lines: Vec<u8>) {
        // Not that of a line which was much longer than others.
        if lines.capacity() <= 2 * self.block {
            lines.clear();
            self.spare.push(lines);
        }
    }

    /// The next block; `None`: that was all.
    ///
    /// # Errors
    /// If a file can't be opened or read.
    pub(crate) fn next_block(&mut self) -> Result<Option<Block>> {
        loop {
            if self.open.is_none() {
                let Some(path) = self.paths.pop() else { return Ok(None) };
                let path = (path.as_os_str() != STANDARD_INPUT).then_some(path.as_path());
                self.open = Some(Open { source: Source::open(path)?, line: 1, rest: Vec::new(), failed: None });
            }
            let Some(open) = &mut self.open else { continue };
            let (content, is_end) = open.read(self.spare.pop().unwrap_or_default(), self.block, self.longest)?;
            let (name, first_line) = (open.source.name.clone(), open.line);
            if is_end {
                self.open = None;
            } else {
                open.line += lines(&content);
            }
            if !matches!(&content, Content::Lines(lines) if lines.is_empty()) {
                return Ok(Some(Block { name, first_line, content }));
            }
        }
    }
}

/// How many lines a block has.
fn lines(content: &Content) -> u64 {
    match content {
        Content::Lines(lines) => memchr::memchr_iter(b'\n', lines).count() as u64,
        Content::Skipped(_) => 1,
    }
}

impl Open {
    /// Some lines, in the memory of `bytes`, and whether they are the last ones.
    fn read(&mut self, mut bytes: Vec<u8>, block: usize, longest: usize) -> Result<(Content, bool)> {
        if let Some(why) = self.failed.take() {
            return Ok((Content::Skipped(why), true));
        }
        bytes.append(&mut self.rest);
        let mut looked_at = 0;
        loop {
            let wanted = block.saturating_sub(bytes.len()).max(block / 4);
            // Beyond a block there is one line, and a byte more than it may have says that it is too long.
            let wanted = wanted.min((longest + 1).saturating_sub(bytes.len())).max(1);
            bytes.reserve(wanted);
            let got = match self.source.from.by_ref().take(wanted as u64).read_to_end(&mut bytes) {
                Ok(got) => got,
                Err(error) => return self.broken(error, bytes),
            };
            if got == 0 {
                return Ok((Content::Lines(bytes), true));
            }
            if bytes.len() >= block {
                if let Some(end) = memchr::memrchr(b'\n', &bytes[looked_at..]) {
                    self.rest.extend(bytes.drain(looked_at + end + 1..));
                    return Ok((Content::Lines(bytes), false));
                }
                looked_at = bytes.len();
            }
            if bytes.len() > longest {
                return self.skip_line(longest);
            }
        }
    }

    /// The rest of the file can't be read; what was before is kept for the next call.
    fn broken(&mut self, error: io::Error, mut bytes: Vec<u8>) -> Result<(Content, bool)> {
        let Some(why) = damage(&error, self.source.is_compressed) else {
            return Err(error).with_context(|| format!("failed to read `{}`", self.source.name));
        };
        match memchr::memrchr(b'\n', &bytes) {
            Some(end) => {
                self.failed = Some(why);
                bytes.truncate(end + 1);
                Ok((Content::Lines(bytes), false))
            }
            None => Ok((Content::Skipped(why), true)),
        }
    }

    /// Reads over the rest of a line.
    fn skip_line(&mut self, longest: usize) -> Result<(Content, bool)> {
        let why = format!("longer than {} MiB: a smaller --max-groups writes shorter ones", longest >> 20);
        loop {
            let chunk = match self.source.from.fill_buf() {
                Err(error) if error.kind() == ErrorKind::Interrupted => continue,
                Err(error) => return self.broken(error, Vec::new()),
                Ok(chunk) => chunk,
            };
            let end = memchr::memchr(b'\n', chunk);
            let (used, is_end) = (end.map_or(chunk.len(), |at| at + 1), chunk.is_empty());
            self.source.from.consume(used);
            if end.is_some() || is_end {
                return Ok((Content::Skipped(why), is_end));
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Gives a few bytes at a time, and then an error or the end.
    struct Dribble(Vec<u8>, usize, bool);

    impl Read for Dribble {
        fn read(&mut self, into: &mut [u8]) -> io::Result<usize> {
            let count = self.1.min(into.len()).min(self.0.len());
            if count == 0 && self.2 {
                return Err(io::Error::new(ErrorKind::InvalidData, "bad"));
            }
            into[..count].copy_from_slice(&self.0[..count]);
            self.0.drain(..count);
            Ok(count)
        }
    }

    /// All blocks of a text that comes in threes, with blocks of 8 bytes and lines of 16 at most.
    fn blocks(text: &str, breaks: bool) -> Vec<(u64, String)> {
        let mut source = Source::of("it", Dribble(text.as_bytes().to_vec(), 3, breaks)).unwrap();
        source.is_compressed = true;
        let open = Some(Open { source, line: 1, rest: Vec::new(), failed: None });
        let mut blocks = Blocks { paths: Vec::new(), longest: 16, block: 8, open, spare: Vec::new() };
        let mut all = Vec::new();
        while let Some(block) = blocks.next_block().unwrap() {
            let text = match block.content {
                Content::Lines(lines) => String::from_utf8(lines).unwrap(),
                Content::Skipped(why) => format!("SKIPPED {why}"),
            };
            all.push((block.first_line, text));
        }
        all
    }

    fn block(line: u64, text: &str) -> (u64, String) {
        (line, text.to_owned())
    }

    #[test]
    fn blocks_are_whole_lines_and_know_their_number() {
        assert!(blocks("", false).is_empty());
        assert_eq!(blocks("a\nb\n", false), [block(1, "a\nb\n")]);
        assert_eq!(blocks("abc\ndef\nghi\njkl", false), [block(1, "abc\ndef\n"), block(3, "ghi\njkl")]);
        assert_eq!(blocks("a\n0123456789\nb\nc\n", false).concat_text(), "a\n0123456789\nb\nc\n");
    }

    #[test]
    fn a_line_that_is_too_long_is_skipped_alone() {
        let long = "x".repeat(40);
        let seen = blocks(&format!("a\n{long}\nb\n"), false);
        assert_eq!(seen.iter().map(|(line, _)| *line).collect::<Vec<_>>(), [1, 2, 3]);
        assert!(seen[0].1 == "a\n" && seen[1].1.starts_with("SKIPPED longer than") && seen[2].1 == "b\n", "{seen:?}");
        assert!(blocks(&long, false)[0].1.starts_with("SKIPPED longer"));
    }

    #[test]
    fn what_is_before_damage_is_read() {
        let seen = blocks("a\nbcdef\ncut", true);
        assert_eq!(seen.concat_text().lines().take(2).collect::<Vec<_>>(), ["a", "bcdef"]);
        assert_eq!(seen.last().unwrap(), &block(3, "SKIPPED the compressed file is damaged here: bad"));
    }

    trait Texts {
        fn concat_text(&self) -> String;
    }

    impl Texts for Vec<(u64, String)> {
        fn concat_text(&self) -> String {
            self.iter().map(|(_, text)| text.as_str()).collect()
        }
    }
}
