//! Reads and merges on all processors. A thread at a time cuts the files into blocks; each merges its blocks by itself; and what came
//! of them is put together in the order of the files, so that the report is the same however many threads there are.

use std::collections::BTreeMap;
use std::num::NonZero;
use std::path::PathBuf;
use std::sync::{Condvar, Mutex, MutexGuard, PoisonError};
use std::thread;

use anyhow::{Error, Result, anyhow, bail};

use super::complaints::{self, Complaints};
use super::input::{Block, Blocks, Content, Known, Parsed, is_damaged};
use super::merge::{Merge, Outcome};
use super::record::Selection;
use crate::output::escape;

/// How many blocks of each thread may wait for an earlier one.
const WAITING: usize = 4;

/// Why a line is refused, and what to do about it.
const NO_SUMMARY: &str = "this is no summary";
const CURE: &str = "give files that `crash --summary 10s --format json` or `agent` has written";

/// The result of one block: its sums, and what was wrong with its lines.
pub(super) struct Part {
    merge: Merge,
    /// By number of the line, and whether it was skipped.
    wrong: Vec<(u64, Wrong)>,
    duplicates: u64,
    name: String,
    begins_file: bool,
    /// It has a summary, however damaged.
    has_summary: bool,
    /// The first line with a record, however damaged.
    first_record: Option<u64>,
}

/// What is wrong with a line.
enum Wrong {
    /// It was skipped; the reason may have parts of it.
    Skipped(String),
    /// It doesn't add up.
    Unbalanced,
}

/// The blocks that are still to be read.
struct Input {
    blocks: Blocks,
    next: u64,
    failed: Option<Error>,
    /// What is left needs not be read.
    is_over: bool,
}

/// What was merged.
struct Sums {
    merge: Merge,
    complaints: Complaints,
    /// The number of the part that comes next.
    next: u64,
    /// Parts whose turn it isn't.
    early: BTreeMap<u64, Part>,
    /// There was a summary.
    has_summary: bool,
    /// Where the first record was, of whatever kind.
    first_record: Option<(String, u64)>,
    /// A file is of another kind.
    alien: Option<Error>,
}

/// Merges all lines of these files on so many threads (`None` means as many as there are processors), and reports what was wrong with them.
///
/// # Errors
/// If a file can't be opened or read, if one is of another kind, and if there is no summary among all records.
pub(super) fn merge(paths: &[PathBuf], selection: &Selection, threads: Option<usize>) -> Result<Merge> {
    let threads = threads.unwrap_or_else(|| thread::available_parallelism().map_or(1, NonZero::get));
    let merge = Merge::new(selection);
    let empty = || merge.part(selection);
    let input = Mutex::new(Input { blocks: Blocks::new(paths).large(), next: 0, failed: None, is_over: false });
    let sums = Mutex::new(Sums::new(empty()));
    let turn = Condvar::new();
    let work = || {
        let mut known = Known::default();
        while let Some((number, block)) = next_block(&input) {
            let (part, lines) = Part::of(empty(), block, &mut known);
            lock(&input).blocks.take_back(lines);
            let mut sums = lock(&sums);
            // The block whose turn it is never waits.
            while sums.next != number && sums.early.len() >= WAITING * threads {
                sums = turn.wait(sums).unwrap_or_else(PoisonError::into_inner);
            }
            sums.early.insert(number, part);
            if sums.take_those_in_turn() {
                turn.notify_all();
            }
            if sums.alien.is_some() {
                lock(&input).is_over = true;
            }
        }
    };
    thread::scope(|scope| {
        for _ in 1..threads {
            scope.spawn(work);
        }
        work();
    });
    if let Some(error) = input.into_inner().unwrap_or_else(PoisonError::into_inner).failed {
        return Err(error);
    }
    sums.into_inner().unwrap_or_else(PoisonError::into_inner).end()
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

/// The next block and its number; `None`: all were read, or one can't be.
fn next_block(input: &Mutex<Input>) -> Option<(u64, Block)> {
    let mut input = lock(input);
    if input.failed.is_some() || input.is_over {
        return None;
    }
    match input.blocks.next_block() {
        Ok(block) => {
            let number = input.next;
            input.next += 1;
            block.map(|block| (number, block))
        }
        Err(error) => {
            input.failed = Some(error);
            None
        }
    }
}

impl Sums {
    fn new(merge: Merge) -> Self {
        Self {
            merge,
            complaints: Complaints::default(),
            next: 0,
            early: BTreeMap::new(),
            has_summary: false,
            first_record: None,
            alien: None,
        }
    }

    /// All parts were added: what came of them.
    fn end(self) -> Result<Merge> {
        if let Some(error) = self.alien {
            return Err(error);
        }
        if let Some((file, line)) = self.first_record.filter(|_| !self.has_summary) {
            bail!("failed to report: {}:{line}: {NO_SUMMARY}, and none of the lines is: {CURE}", escape(&file));
        }
        self.complaints.end("the report");
        Ok(self.merge)
    }

    /// Has nothing that a file begins with a record in it? Then it is no file of ours.
    fn recognize(&mut self, part: &Part) {
        if let (true, None, Some((line, Wrong::Skipped(why)))) =
            (part.begins_file, part.first_record, part.wrong.first())
        {
            let (file, why) = (escape(&part.name), complaints::short(why));
            self.alien.get_or_insert_with(|| anyhow!("failed to report: {file}:{line}: {NO_SUMMARY}: {why}: {CURE}"));
        }
        self.has_summary |= part.has_summary;
        if let (None, Some(line)) = (&self.first_record, part.first_record) {
            self.first_record = Some((part.name.clone(), line));
        }
    }

    /// Adds the parts that follow on what is there. True: there were some.
    fn take_those_in_turn(&mut self) -> bool {
        let before = self.next;
        while let Some(part) = self.early.remove(&self.next) {
            self.next += 1;
            self.recognize(&part);
            if self.alien.is_some() {
                continue;
            }
            self.complaints.duplicates += part.duplicates;
            for (line, wrong) in part.wrong {
                match wrong {
                    Wrong::Skipped(why) => self.complaints.skipped(&part.name, line, &why),
                    Wrong::Unbalanced => {
                        let what = "does not add up: matched is not all that was counted and lost";
                        self.complaints.say(&part.name, line, what);
                    }
                }
            }
            if part.begins_file {
                self.merge.begin_file();
            }
            self.merge.absorb(part.merge);
        }
        self.next != before
    }
}

impl Part {
    /// Merges a block into a merge without anything in it; returns the block's memory as well.
    fn of(merge: Merge, block: Block, known: &mut Known) -> (Self, Vec<u8>) {
        let begins_file = block.first_line == 1;
        let mut part = Self {
            merge,
            wrong: Vec::new(),
            duplicates: 0,
            name: block.name,
            begins_file,
            has_summary: false,
            first_record: None,
        };
        match block.content {
            Content::Skipped(why) => {
                // Nobody knows what it was.
                (part.has_summary, part.first_record) = (true, Some(block.first_line));
                part.skip(block.first_line, why);
                (part, Vec::new())
            }
            Content::Lines(lines) => {
                let mut rest = &lines[..];
                let mut number = block.first_line;
                while !rest.is_empty() {
                    let end = memchr::memchr(b'\n', rest).unwrap_or(rest.len());
                    part.line(number, &rest[..end], known);
                    rest = rest.get(end + 1..).unwrap_or_default();
                    number += 1;
                }
                (part, lines)
            }
        }
    }

    fn skip(&mut self, line: u64, why: String) {
        self.merge.damaged();
        self.wrong.push((line, Wrong::Skipped(why)));
    }

    fn line(&mut self, number: u64, line: &[u8], known: &mut Known) {
        let parsed = known.parse(line);
        if parsed.as_ref().map_or_else(|_| is_damaged(line), |parsed| !matches!(parsed, Parsed::Nothing)) {
            self.first_record.get_or_insert(number);
            self.has_summary |= matches!(parsed, Ok(Parsed::Summary(_)) | Err(_));
        }
        match parsed {
            Ok(Parsed::Other | Parsed::Nothing) => {}
            Ok(Parsed::Crash(crash)) => self.merge.add_crash(&crash),
            Ok(Parsed::Summary(mut summary)) => {
                self.merge.read(&mut summary);
                match self.merge.add(&summary) {
                    Outcome::Merged => {}
                    Outcome::Duplicate => self.duplicates += 1,
                    Outcome::Unbalanced => self.wrong.push((number, Wrong::Unbalanced)),
                }
            }
            Err(why) => self.skip(number, why),
        }
    }
}

/// Merges bytes as one block, for the fuzzer.
#[cfg(any(test, fuzzing))]
pub(super) fn merge_bytes(bytes: &[u8], selection: &Selection) -> Merge {
    let block = Block { name: String::new(), first_line: 1, content: Content::Lines(bytes.to_vec()) };
    Part::of(Merge::new(selection), block, &mut Known::default()).0.merge
}
