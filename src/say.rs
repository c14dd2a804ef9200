//! Standard error, for people: if its reader stalls, lines are lost, and the run goes on.

use std::io::{self, IsTerminal, Write};
use std::os::fd::AsFd;
use std::sync::atomic::{AtomicBool, Ordering};

use nix::poll::{PollFd, PollFlags, PollTimeout, poll};

use crate::terminal::{Style, length};
use crate::text::escape_lines;

/// How long the reader may take, milliseconds.
const WAIT_MS: u16 = 200;

/// The reader took nothing the last time: then we don't wait.
static IS_STALLED: AtomicBool = AtomicBool::new(false);

/// Does a person read it?
pub(crate) fn is_terminal() -> bool {
    io::stderr().is_terminal()
}

/// Where a line goes on that is longer than the terminal is wide.
const CONTINUED: usize = 2;

/// Writes a line, or several. The names and paths in it may be anybody's.
pub(crate) fn line(words: String) {
    text(&(fitted(&escape_lines(&words), Style::of_error()) + "\n"));
}

/// The same lines, those that are too long in several.
fn fitted(lines: &str, style: Style) -> String {
    let fitted = |line| if style.fits(length(line)) { line.to_owned() } else { style.wrapped(line, CONTINUED) };
    lines.split('\n').map(fitted).collect::<Vec<_>>().join("\n")
}

/// Writes text as it is. What is longer than a pipe takes at once is written in parts.
pub(crate) fn text(words: &str) {
    for part in words.as_bytes().chunks(libc::PIPE_BUF) {
        if !is_ready() || io::stderr().write_all(part).is_err() {
            return;
        }
    }
}

fn is_ready() -> bool {
    let wait = if IS_STALLED.load(Ordering::Relaxed) { 0 } else { WAIT_MS };
    let error = io::stderr();
    let mut fds = [PollFd::new(error.as_fd(), PollFlags::POLLOUT)];
    // What can't be waited for is tried.
    let is_ready = poll(&mut fds, PollTimeout::from(wait)) != Ok(0);
    IS_STALLED.store(!is_ready, Ordering::Relaxed);
    is_ready
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_line_that_is_too_long_for_a_terminal_goes_on_in_the_next() {
        let lines = "faultline: watching `sleep 1` and its descendants\n  as it is";
        let style = Style { width: Some(40), ..Style::default() };
        let fitted_lines = "faultline: watching `sleep 1` and its\n  descendants\n  as it is";
        assert_eq!(fitted(lines, style), fitted_lines);
        assert_eq!(fitted(lines, Style::default()), lines);
    }
}
