//! Reads the kernel's table of groups again and again. Only rows that have changed are read anew: of the others that are in use the time of
//! their last event alone. The rest is looked through where a row has come into use. A count by processor is a call of the kernel and a number
//! for each possible processor.

use std::collections::BTreeMap;
use std::ffi::c_void;
use std::marker::PhantomData;
use std::num::NonZeroUsize;
use std::os::fd::AsFd as _;
use std::ptr::NonNull;

use anyhow::{Context as _, Result};
use libbpf_rs::{Map, MapCore as _};
use nix::sys::mman::{MapFlags, ProtFlags, mmap, munmap};

use super::counts::Counts;
use super::group::{Group, GroupId, Groups};
use crate::probe::abi::{Plain, fl_group};

/// The kernel notes an event's time once a tick, and what it notes is at most so much older than the event. An older time on a busy host
/// is found by the sum of all counts ([`Reader::read`]).
const LATE_NS: u64 = 100_000_000;

/// The rows of an array, in memory that is shared with the kernel.
pub(super) struct Shared<Row> {
    start: NonNull<c_void>,
    bytes: NonZeroUsize,
    rows: u32,
    of: PhantomData<Row>,
}

impl<Row: Plain> Shared<Row> {
    /// The rows of an array that may be mapped, and whose values are whole words.
    pub(super) fn map(array: &Map<'_>) -> Result<Self> {
        Self::map_for(array, ProtFlags::PROT_READ)
    }

    /// The same, to be written as well.
    pub(super) fn map_writable(array: &Map<'_>) -> Result<Self> {
        Self::map_for(array, ProtFlags::PROT_READ | ProtFlags::PROT_WRITE)
    }

    fn map_for(array: &Map<'_>, protection: ProtFlags) -> Result<Self> {
        let what = "failed to map the groups";
        let rows = array.max_entries();
        let bytes = NonZeroUsize::new(rows as usize * size_of::<Row>()).context(what)?;
        // SAFETY: it is new memory, which nobody else in this process knows of.
        let start = unsafe { mmap(None, bytes, protection, MapFlags::MAP_SHARED, array.as_fd(), 0) };
        Ok(Self { start: start.context(what)?, bytes, rows, of: PhantomData })
    }

    /// Empties a row of an array that was mapped to be written.
    pub(super) fn clear(&self, row: u32) {
        if row < self.rows {
            // SAFETY: the row is within the mapping, which is no memory of this process's own: nothing refers to it.
            unsafe { self.start.cast::<Row>().add(row as usize).write_volatile(Row::default()) };
        }
    }

    pub(super) fn row(&self, row: u32) -> Option<Row> {
        // SAFETY: the row is within the mapping, and all bit patterns are a value of this type (Plain), also while the kernel writes.
        // The kernel changes it meanwhile, so it is read as it is, once.
        (row < self.rows).then(|| unsafe { self.start.cast::<Row>().add(row as usize).read_volatile() })
    }
}

impl<Row> Drop for Shared<Row> {
    fn drop(&mut self) {
        // SAFETY: what `map` has mapped, and nothing borrows it.
        let _ = unsafe { munmap(self.start, self.bytes.get()) };
    }
}

/// What the reader needs of the kernel.
pub(super) trait Rows {
    /// How many rows have come into use since the start. A row is counted before it has an event.
    fn made(&self) -> u64;

    /// When its last event was, CLOCK_BOOTTIME; 0: it never had one.
    fn last_ns(&self, row: u32) -> u64;

    /// A row as it is; `None` means that there is none.
    fn facts(&self, row: u32) -> Option<fl_group>;

    /// Its events by processor.
    fn counts(&self, row: u32) -> Result<Counts>;
}

/// The kernel's rows.
pub(super) struct KernelRows<'run> {
    pub(super) groups: &'run Shared<fl_group>,
    pub(super) times: &'run Shared<u64>,
    pub(super) counts: &'run dyn Fn(u32) -> Result<Counts>,
    pub(super) made: u64,
}

impl Rows for KernelRows<'_> {
    fn made(&self) -> u64 {
        self.made
    }

    fn last_ns(&self, row: u32) -> u64 {
        self.times.row(row).unwrap_or_default()
    }

    fn facts(&self, row: u32) -> Option<fl_group> {
        self.groups.row(row)
    }

    fn counts(&self, row: u32) -> Result<Counts> {
        (self.counts)(row)
    }
}

/// Where the kinds of rows begin.
#[derive(Clone, Copy, Debug)]
pub(super) struct Layout {
    /// Groups, from 0 on; then the row for what finds no place at all.
    pub(super) groups: u32,
    /// Sums; before them are rests.
    pub(super) first_sum: u32,
    /// All rows.
    pub(super) rows: u32,
}

/// What was read last.
#[derive(Debug, Default)]
pub(super) struct Reader {
    /// The rows that have events.
    seen: BTreeMap<u32, Group>,
    /// How many rows had events before they were emptied.
    forgotten: u64,
    /// When that began, CLOCK_BOOTTIME.
    began_ns: u64,
}

impl Reader {
    /// All rows with events, at `now_ns` of CLOCK_BOOTTIME. `all`: none is taken for unchanged, because events are missing in the sum.
    pub(super) fn read(&mut self, rows: &impl Rows, layout: Layout, now_ns: u64, all: bool) -> Result<Groups> {
        let changed_since = self.began_ns.saturating_sub(LATE_NS);
        let mut read = Groups { other: rows.counts(layout.groups)?.total(), ..Groups::default() };
        let is_any_new = rows.made() > self.forgotten + self.seen.len() as u64;
        let known: Vec<u32> = self.seen.keys().copied().collect();
        let looked_through = if all || is_any_new { (0..layout.rows).collect() } else { known };
        for row in looked_through.into_iter().filter(|row| *row != layout.groups) {
            // A group that is new in its row has an event of now, too.
            let last_ns = rows.last_ns(row);
            if last_ns != 0 && (all || last_ns >= changed_since) {
                match read_row(rows, row)? {
                    Some(group) => drop(self.seen.insert(row, group)),
                    None => drop(self.seen.remove(&row)),
                }
            }
        }
        for (&row, group) in &self.seen {
            let kind = match row {
                _ if row < layout.groups => &mut read.named,
                _ if row < layout.first_sum => &mut read.rests,
                _ => &mut read.sums,
            };
            kind.push(group.clone());
        }
        self.began_ns = now_ns;
        Ok(read)
    }

    /// The rows have been emptied.
    pub(super) fn forget(&mut self, rows: impl Iterator<Item = u32>) {
        for row in rows {
            self.forgotten += u64::from(self.seen.remove(&row).is_some());
        }
    }
}

fn read_row(rows: &impl Rows, row: u32) -> Result<Option<Group>> {
    let counts = rows.counts(row)?;
    // A group with a count is complete: only then it is read. A row without one is just being made, or has been emptied.
    let facts = rows.facts(row).context("a row of groups is not there")?;
    let id = GroupId { row, serial: facts.serial };
    Ok((counts.total() != 0).then(|| Group { id, facts: facts.into(), counts, before: 0 }))
}

#[cfg(test)]
mod tests {
    use std::cell::{Cell, RefCell};

    use super::*;

    const LAYOUT: Layout = Layout { groups: 4, first_sum: 6, rows: 7 };
    const SECOND: u64 = 1_000_000_000;

    /// A table in which each row is a group with one event, and how often counts and facts were read.
    struct Fake {
        rows: RefCell<Vec<(fl_group, u64)>>,
        made: Cell<u64>,
        reads: Cell<usize>,
        facts_read: Cell<usize>,
        times_read: Cell<usize>,
    }

    impl Rows for Fake {
        fn made(&self) -> u64 {
            self.made.get()
        }

        fn last_ns(&self, row: u32) -> u64 {
            self.times_read.set(self.times_read.get() + 1);
            self.rows.borrow()[row as usize].0.last_ns
        }

        fn facts(&self, row: u32) -> Option<fl_group> {
            self.facts_read.set(self.facts_read.get() + 1);
            self.rows.borrow().get(row as usize).map(|(facts, _)| *facts)
        }

        fn counts(&self, row: u32) -> Result<Counts> {
            self.reads.set(self.reads.get() + 1);
            Ok([self.rows.borrow()[row as usize].1].into_iter().collect())
        }
    }

    fn fake() -> Fake {
        let facts = fl_group { serial: 1, first_ns: 1, last_ns: 10 * SECOND, ..fl_group::default() };
        let rows = RefCell::new(vec![(facts, 1); LAYOUT.rows as usize]);
        // All but the row for what finds no place.
        let made = Cell::new(u64::from(LAYOUT.rows) - 1);
        Fake { rows, made, reads: Cell::new(0), facts_read: Cell::new(0), times_read: Cell::new(0) }
    }

    fn strike(fake: &Fake, row: usize, at_ns: u64) {
        let mut rows = fake.rows.borrow_mut();
        rows[row].0.last_ns = at_ns;
        rows[row].1 += 1;
    }

    /// The sum of the groups' counts, and how many counts were read for it.
    fn read(reader: &mut Reader, fake: &Fake, now_ns: u64, all: bool) -> (u64, usize) {
        fake.reads.set(0);
        fake.facts_read.set(0);
        let groups = reader.read(fake, LAYOUT, now_ns, all).unwrap();
        assert_eq!((groups.named.len(), groups.rests.len(), groups.sums.len()), (4, 1, 1));
        assert_eq!(fake.facts_read.get() + 1, fake.reads.get(), "of rows that are not read not even the facts are");
        (groups.named.iter().map(Group::total).sum(), fake.reads.get())
    }

    /// Each reading took a call of the kernel for each group, whether or not it had had an event since the last one.
    #[test]
    fn only_what_has_changed_is_read_again() {
        let (fake, mut reader) = (fake(), Reader::default());
        assert_eq!(read(&mut reader, &fake, 20 * SECOND, false), (4, 7));
        assert_eq!(read(&mut reader, &fake, 30 * SECOND, false), (4, 1), "but for what finds no place");
        strike(&fake, 2, 31 * SECOND);
        assert_eq!(read(&mut reader, &fake, 40 * SECOND, false), (5, 2));
        assert_eq!(read(&mut reader, &fake, 50 * SECOND, false), (5, 1));
    }

    /// Each reading looked at the time of every row that there is room for.
    #[test]
    fn rows_that_nobody_uses_are_not_looked_at() {
        let (fake, mut reader) = (fake(), Reader::default());
        for row in [0, 1, 3, 5, 6] {
            fake.rows.borrow_mut()[row] = (fl_group::default(), 0);
        }
        fake.made.set(1);
        let mut read = |at_ns| {
            fake.times_read.set(0);
            let groups = reader.read(&fake, LAYOUT, at_ns, false).unwrap();
            (groups.named.iter().map(|group| group.id.row).collect::<Vec<_>>(), fake.times_read.get())
        };
        assert_eq!(read(20 * SECOND), (vec![2], 6), "which row it is has to be found");
        assert_eq!(read(30 * SECOND), (vec![2], 1));
        fake.made.set(2);
        assert_eq!(read(40 * SECOND), (vec![2], 6), "another one has come into use, but has had no event yet");
        strike(&fake, 0, 41 * SECOND);
        assert_eq!(read(50 * SECOND), (vec![0, 2], 6));
        assert_eq!(read(60 * SECOND), (vec![0, 2], 2));
    }

    #[test]
    fn what_came_in_the_tick_of_the_last_reading_is_not_missed() {
        let (fake, mut reader) = (fake(), Reader::default());
        strike(&fake, 0, 20 * SECOND - LATE_NS / 2);
        assert_eq!(read(&mut reader, &fake, 20 * SECOND, false).0, 5);
        // It is in the same tick: the time stays.
        strike(&fake, 0, 20 * SECOND - LATE_NS / 2);
        assert_eq!(read(&mut reader, &fake, 30 * SECOND, false).0, 6);
        // Later than any tick.
        strike(&fake, 0, 20 * SECOND);
        assert_eq!(read(&mut reader, &fake, 40 * SECOND, false).0, 6);
        assert_eq!(read(&mut reader, &fake, 41 * SECOND, true), (7, 7), "the sum shows it, and all are read");
    }

    #[test]
    fn a_row_that_another_group_has_is_read() {
        let (fake, mut reader) = (fake(), Reader::default());
        read(&mut reader, &fake, 20 * SECOND, false);
        reader.forget([1].into_iter());
        fake.rows.borrow_mut()[1].1 = 0;
        assert_eq!(reader.read(&fake, LAYOUT, 30 * SECOND, false).unwrap().named.len(), 3, "it was emptied");
        fake.made.set(fake.made.get() + 1);
        let again = fl_group { serial: 2, first_ns: 31 * SECOND, last_ns: 31 * SECOND, ..fl_group::default() };
        fake.rows.borrow_mut()[1] = (again, 9);
        let groups = reader.read(&fake, LAYOUT, 40 * SECOND, false).unwrap();
        assert_eq!((groups.named[1].id.serial, groups.named[1].total()), (2, 9));
    }
}
