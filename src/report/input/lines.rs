//! Reads the lines of a file, one at a time and none of them too long.

use std::io::{self, BufRead, ErrorKind};

/// One line, without its newline.
#[derive(Debug, PartialEq, Eq)]
pub(in super::super) enum Line<'lines> {
    /// All of it.
    Whole(&'lines [u8]),
    /// It was skipped, and is not kept.
    TooLong,
}

/// Reads line by line, and holds one line.
pub(in super::super) struct Lines<R> {
    from: R,
    longest: usize,
    line: Vec<u8>,
}

impl<R: BufRead> Lines<R> {
    /// Lines of at most `longest` bytes.
    pub(in super::super) fn new(from: R, longest: usize) -> Self {
        Self { from, longest, line: Vec::new() }
    }

    /// The next line; `None` means the end.
    ///
    /// # Errors
    /// If reading fails.
    pub(in super::super) fn next_line(&mut self) -> io::Result<Option<Line<'_>>> {
        self.line.clear();
        let mut began = false;
        let mut too_long = false;
        loop {
            let chunk = match self.from.fill_buf() {
                Err(error) if error.kind() == ErrorKind::Interrupted => continue,
                chunk => chunk?,
            };
            if chunk.is_empty() {
                break;
            }
            began = true;
            let end = memchr::memchr(b'\n', chunk);
            let part = &chunk[..end.unwrap_or(chunk.len())];
            too_long |= self.line.len() + part.len() > self.longest;
            if !too_long {
                self.line.extend_from_slice(part);
            }
            let used = end.map_or(chunk.len(), |at| at + 1);
            self.from.consume(used);
            if end.is_some() {
                break;
            }
        }
        Ok(match (began, too_long) {
            (false, _) => None,
            (true, true) => Some(Line::TooLong),
            (true, false) => Some(Line::Whole(&self.line)),
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::io::BufReader;

    /// All lines as text, read in chunks of 3 bytes, at most 8 bytes each.
    fn lines(text: &str) -> Vec<String> {
        let mut lines = Lines::new(BufReader::with_capacity(3, text.as_bytes()), 8);
        let mut seen = Vec::new();
        while let Some(line) = lines.next_line().unwrap() {
            seen.push(match line {
                Line::Whole(line) => String::from_utf8(line.to_vec()).unwrap(),
                Line::TooLong => "TOO LONG".to_owned(),
            });
        }
        seen
    }

    #[test]
    fn lines_end_at_newlines_and_at_the_end() {
        assert!(lines("").is_empty());
        assert_eq!(lines("\n"), [""]);
        assert_eq!(lines("a\nbcd\n"), ["a", "bcd"]);
        assert_eq!(lines("abcdef\n\ncut"), ["abcdef", "", "cut"]);
    }

    #[test]
    fn a_long_line_is_read_over() {
        assert_eq!(lines("12345678\n123456789\n1\n"), ["12345678", "TOO LONG", "1"]);
        assert_eq!(lines("123456789"), ["TOO LONG"]);
    }
}
