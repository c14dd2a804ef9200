//! Pages that the kernel program has read, until the record comes that names them.

use std::collections::HashMap;

use crate::probe::abi::memory::{fl_mapping, fl_page};

/// How many pages wait for the record that names them. If there are more than one call can have, the record was lost.
const WAITING_MAX: usize = 16_384;

/// Pages without a record.
#[derive(Default)]
pub(super) struct Waiting {
    /// By thread and time.
    pages: HashMap<(u32, u64), Vec<Box<fl_page>>>,
    count: usize,
}

impl Waiting {
    /// Keeps a page.
    pub(super) fn add(&mut self, page: Box<fl_page>) {
        self.count += 1;
        self.pages.entry((page.tid, page.timestamp_ns)).or_default().push(page);
    }

    /// Is there no room for another?
    pub(super) fn is_full(&self) -> bool {
        self.count >= WAITING_MAX
    }

    /// The pages of this record.
    pub(super) fn take(&mut self, record: &fl_mapping) -> Vec<Box<fl_page>> {
        let pages = self.pages.remove(&(record.tid, record.timestamp_ns)).unwrap_or_default();
        self.count -= pages.len();
        pages
    }

    /// All of them: their records were lost.
    pub(super) fn take_all(&mut self) -> impl Iterator<Item = Box<fl_page>> + use<> {
        std::mem::take(self).pages.into_values().flatten()
    }
}
