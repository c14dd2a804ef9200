//! The counts of faults, of this interval and since the start, by key.

use std::collections::HashMap;
use std::collections::hash_map::Entry;

use crate::probe::abi::pagefault::fl_fault_key;
use crate::probe::pagefault::FaultCounts;

/// How many cells are kept. If there are more, those of processes that have ended are counted together by name.
const CELLS_MAX: usize = 65_536;

/// What faults are counted by: the probe's key without the parts for its own use, and without the number of a process that has ended and
/// whose cells are counted together.
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub(crate) struct Cell {
    /// The process.
    pub process: ProcessOrName,
    /// 0: user, 1: kernel.
    pub mode: u8,
    /// As the hook shows it.
    pub error_code: u32,
    /// `enum fl_vma_class`
    pub vma_class: u8,
    /// With a file.
    pub device: u32,
    /// Address, instruction, begin of the mapping, inode, hash of the stack.
    pub place: u64,
}

/// A process, or all processes of a name that have ended.
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub(crate) enum ProcessOrName {
    /// As the host numbers it.
    Process(u32),
    /// By name; `None` means not known.
    Ended(Option<String>),
}

impl ProcessOrName {
    /// `None` means several that have ended.
    pub(crate) fn pid(&self) -> Option<u32> {
        match self {
            Self::Process(pid) => Some(*pid),
            Self::Ended(_) => None,
        }
    }
}

impl From<&fl_fault_key> for Cell {
    fn from(key: &fl_fault_key) -> Self {
        let fl_fault_key { tgid, error_code, mode, vma_class, device, place, .. } = *key;
        Self { process: ProcessOrName::Process(tgid), mode, error_code, vma_class, device, place }
    }
}

/// A cell's numbers.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct CellCounts {
    /// Faults in this interval.
    pub count: u64,
    /// Since the start.
    pub total: u64,
    /// Major ones in this interval.
    pub major: u64,
    /// Major ones since the start.
    pub major_total: u64,
}

impl CellCounts {
    fn add(&mut self, more: Self) {
        self.count += more.count;
        self.total += more.total;
        self.major += more.major;
        self.major_total += more.major_total;
    }
}

/// All cells.
#[derive(Debug, Default)]
pub(super) struct FaultTable {
    rows: HashMap<Cell, CellCounts>,
    /// Faults that found no cell, in this interval.
    full: u64,
    /// Major ones among them.
    major_full: u64,
}

impl FaultTable {
    /// Adds counts. `is_alive` and `name` are called if there are too many cells.
    pub(super) fn add(
        &mut self,
        counts: &FaultCounts,
        is_alive: impl Fn(u32) -> bool,
        name: impl Fn(u32) -> Option<String>,
    ) {
        if self.rows.len() + counts.faults.len() > CELLS_MAX {
            self.fold(is_alive, name);
        }
        for (key, count) in &counts.faults {
            match self.row(key) {
                Some(row) => row.add(CellCounts { count: *count, total: *count, ..CellCounts::default() }),
                None => self.full += count,
            }
        }
        for (key, count) in &counts.majors {
            match self.row(key) {
                Some(row) => row.add(CellCounts { major: *count, major_total: *count, ..CellCounts::default() }),
                None => self.major_full += count,
            }
        }
    }

    fn row(&mut self, key: &fl_fault_key) -> Option<&mut CellCounts> {
        let is_full = self.rows.len() >= CELLS_MAX;
        match self.rows.entry(key.into()) {
            Entry::Occupied(row) => Some(row.into_mut()),
            Entry::Vacant(_) if is_full => None,
            Entry::Vacant(place) => Some(place.insert(CellCounts::default())),
        }
    }

    /// Merges the cells of processes that have ended, by name.
    fn fold(&mut self, is_alive: impl Fn(u32) -> bool, name: impl Fn(u32) -> Option<String>) {
        let mut ended: HashMap<u32, Option<Option<String>>> = HashMap::new();
        for (cell, row) in std::mem::take(&mut self.rows) {
            let name = match cell.process {
                // Their memory is gone as well, and later processes may have the same numbers.
                ProcessOrName::Process(pid) => {
                    ended.entry(pid).or_insert_with(|| (!is_alive(pid)).then(|| name(pid))).clone()
                }
                ProcessOrName::Ended(_) => None,
            };
            let cell = match name {
                Some(name) => Cell { process: ProcessOrName::Ended(name), device: 0, place: 0, ..cell },
                None => cell,
            };
            self.rows.entry(cell).or_default().add(row);
        }
    }

    /// Cells with faults in this interval, or all there ever were; most frequent first, equal ones in a fixed order.
    pub(super) fn sorted(&self, all: bool) -> Vec<(&Cell, &CellCounts)> {
        let mut rows: Vec<_> = self.rows.iter().filter(|(_, row)| all || row.count != 0 || row.major != 0).collect();
        let rank = |row: &CellCounts| if all { row.total } else { row.count };
        rows.sort_by(|(cell, row), (other_cell, other)| rank(other).cmp(&rank(row)).then_with(|| cell.cmp(other_cell)));
        rows
    }

    /// Faults in this interval that found no cell.
    pub(super) fn full(&self) -> u64 {
        self.full
    }

    /// Major faults in this interval that found no cell.
    pub(super) fn major_full(&self) -> u64 {
        self.major_full
    }

    /// All faults in this interval that are in a cell.
    pub(super) fn count(&self) -> u64 {
        self.rows.values().map(|row| row.count).sum()
    }

    /// The interval is over.
    pub(super) fn begin(&mut self) {
        (self.full, self.major_full) = (0, 0);
        for row in self.rows.values_mut() {
            (row.count, row.major) = (0, 0);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn key(tgid: u32, place: u64) -> fl_fault_key {
        fl_fault_key { tgid, place, error_code: 6, ..fl_fault_key::default() }
    }

    fn counts(faults: &[(fl_fault_key, u64)]) -> FaultCounts {
        FaultCounts { faults: faults.to_vec(), majors: Vec::new() }
    }

    fn add(table: &mut FaultTable, counts: &FaultCounts) {
        table.add(counts, |pid| pid < 100, |pid| (pid % 2 == 0).then(|| "even".to_owned()));
    }

    #[test]
    fn an_interval_begins_at_zero_and_totals_go_on() {
        let mut table = FaultTable::default();
        add(&mut table, &counts(&[(key(1, 0), 5), (key(2, 0), 7)]));
        assert_eq!(table.count(), 12);
        table.begin();
        add(&mut table, &counts(&[(key(1, 0), 2)]));
        let rows = table.sorted(false);
        assert_eq!(rows.len(), 1);
        assert_eq!((rows[0].1.count, rows[0].1.total), (2, 7));
        let totals: Vec<u64> = table.sorted(true).iter().map(|(_, row)| row.total).collect();
        assert_eq!(totals, [7, 7]);
    }

    #[test]
    fn an_interval_that_could_not_be_told_is_part_of_the_next() {
        let mut table = FaultTable::default();
        add(&mut table, &counts(&[(key(1, 0), 5)]));
        assert_eq!(table.sorted(false)[0].1.count, 5, "told, but not written: no interval begins");
        add(&mut table, &counts(&[(key(1, 0), 2), (key(2, 0), 1)]));
        assert_eq!(table.count(), 8);
        assert_eq!(table.sorted(false)[0].1.count, 7);
    }

    #[test]
    fn epochs_are_one_cell() {
        let mut table = FaultTable::default();
        add(&mut table, &counts(&[(key(1, 0), 5), (fl_fault_key { epoch: 1, ..key(1, 0) }, 1)]));
        assert_eq!(table.sorted(true).len(), 1);
    }

    #[test]
    fn a_major_fault_may_come_an_interval_late() {
        let mut table = FaultTable::default();
        add(&mut table, &counts(&[(key(1, 0), 1)]));
        table.begin();
        add(&mut table, &FaultCounts { faults: Vec::new(), majors: vec![(key(1, 0), 1)] });
        let rows = table.sorted(false);
        assert_eq!((rows[0].1.count, rows[0].1.major, rows[0].1.major_total), (0, 1, 1));
    }

    #[test]
    fn the_ended_are_counted_together_and_nothing_is_lost() {
        let mut table = FaultTable::default();
        let most = CELLS_MAX as u64;
        let many: Vec<_> = (0..most).map(|n| (key(100 + (n % 50) as u32, n), 1)).collect();
        add(&mut table, &counts(&many));
        assert_eq!(table.rows.len(), CELLS_MAX);
        add(&mut table, &counts(&[(key(1, 0), 3)]));
        let rows = table.sorted(false);
        assert_eq!(rows.iter().map(|(_, row)| row.total).sum::<u64>(), most + 3);
        let processes: Vec<&ProcessOrName> = rows.iter().map(|(cell, _)| &cell.process).collect();
        assert_eq!(
            processes,
            [&ProcessOrName::Ended(None), &ProcessOrName::Ended(Some("even".to_owned())), &ProcessOrName::Process(1)]
        );
        assert_eq!(table.full(), 0);
    }

    #[test]
    fn more_cells_than_there_is_room_for_are_counted_as_such() {
        let mut table = FaultTable::default();
        let many: Vec<_> = (0..CELLS_MAX as u64 + 5).map(|n| (key(1, n), 2)).collect();
        add(&mut table, &counts(&many));
        assert_eq!((table.full(), table.count()), (10, 2 * CELLS_MAX as u64));
        table.begin();
        assert_eq!(table.full(), 0);
    }
}
