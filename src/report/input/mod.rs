//! What a report reads: files from many hosts, which may have been compressed, cut, doubled or mixed on the way. What can't be read is
//! reported, and never stops the rest; only a file of another kind does.

mod blocks;
mod frames;
mod known;
mod parse;
mod source;

pub(crate) use blocks::{Block, Blocks, Content};
pub(super) use frames::Frames;
pub(super) use known::Known;
#[cfg(test)]
pub(super) use parse::parse;
pub(crate) use parse::reason;
pub(super) use parse::{CrashLine, DiagnosisLine, Executable, GroupLine, Parsed, SummaryLine, is_damaged, text};

/// A longer line is skipped. What faultline writes now is divided at 1 MiB; before, 4096 groups were a line of 20 MB.
const LONGEST_LINE: usize = 512 << 20;
