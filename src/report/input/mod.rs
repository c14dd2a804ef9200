//! What a report reads: files from many hosts, which may have been compressed, cut, doubled or mixed on the way. What can't be read is
//! reported, and never stops the rest.

mod blocks;
mod parse;
mod source;

pub(super) use blocks::{Block, Blocks, Content};
pub(super) use parse::{CrashLine, DiagnosisLine, Frames, GroupLine, Parsed, SummaryLine, parse, text};

/// A longer line is skipped. The default 4096 groups of the agent are a line of 20 MB, so that this is read with `--max-groups 65536`.
const LONGEST_LINE: usize = 512 << 20;
