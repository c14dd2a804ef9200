//! The counts by group where processors share columns of them: `fl_count_in_column()` in `bpf/include/group.bpf.h`.

use anyhow::{Context as _, Result};
use libbpf_rs::{Map, MapCore as _, MapType};

use super::counts::Counts;
use super::rows::Shared;
use crate::probe::abi::fl_own_limit;

/// The columns, and behind them the one for what processors have had in rows whose columns are others'.
pub(super) struct Columns {
    cells: Shared<u64>,
    /// How long a column is.
    rows: u32,
    /// How many there are, without the last.
    columns: u32,
}

impl Columns {
    /// `None` means that each processor has its own counts.
    pub(super) fn of(counts: &Map<'_>, rows: u32) -> Result<Option<Self>> {
        if counts.map_type() != MapType::Array {
            return Ok(None);
        }
        let columns = (counts.max_entries() / rows).checked_sub(1).context("the counts by group have no column")?;
        Ok(Some(Self { cells: Shared::map_writable(counts)?, rows, columns }))
    }

    fn cells_of(&self, row: u32) -> impl Iterator<Item = u32> {
        let rows = self.rows;
        (0..=self.columns).map(move |column| column * rows + row)
    }

    /// A row's events by processor.
    pub(super) fn counts(&self, row: u32) -> Counts {
        let counts = self.cells_of(row).map(|cell| self.cells.row(cell).unwrap_or_default());
        (0..).zip(counts).map(|(column, cell)| placed(column, self.columns, cell)).collect()
    }

    /// Empties a row that no program can find.
    pub(super) fn clear(&self, row: u32) {
        self.cells_of(row).for_each(|cell| self.cells.clear(cell));
    }
}

/// The processor that has a cell of this column, and its events. `None` means that the processor isn't known.
fn placed(column: u32, columns: u32, cell: u64) -> (Option<u32>, u64) {
    let bits = fl_own_limit::FL_LIMIT_COUNT_BITS.0;
    let (owner, count) = ((cell >> bits) as u32, cell & ((1 << bits) - 1));
    let is_one = owner % 2 == 1 && owner / 2 % columns == column;
    (is_one.then_some(owner / 2), count)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_cell_is_its_processors_or_nobodys() {
        let cell = |owners: u64, count: u64| owners << 48 | count;
        assert_eq!(placed(3, 64, cell(2 * 67 + 1, 5)), (Some(67), 5));
        assert_eq!(placed(0, 1, cell(1, 7)), (Some(0), 7));
        assert_eq!(placed(64, 64, 9), (None, 9), "the last column has no owner");
        assert_eq!(placed(3, 64, 0), (None, 0));
        // Several processors have come to the cell first at once, and each has added its own number.
        for racers in 2..=128 {
            let owners = (0..racers).map(|racer| 2 * (3 + 64 * racer) + 1).sum::<u64>() & 0xffff;
            assert_eq!(placed(3, 64, cell(owners, racers)), (None, racers));
        }
    }
}
