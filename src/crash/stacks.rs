//! Keeps the pages of stacks until the crash that they belong to comes.

use std::collections::HashMap;

use crate::probe::abi::{fl_crash, fl_stack_page};
use crate::symbol::unwind::StackCopy;

/// How many pages wait at most: 8 MiB. If there are more, they are left over from crashes that were lost.
const PAGES_MAX: usize = 2048;

/// Thread and time: what a crash and its pages have in common.
type Key = (u32, u64);

/// Pages that wait.
#[derive(Debug, Default)]
pub(super) struct Stacks {
    waiting: HashMap<Key, Vec<Box<fl_stack_page>>>,
    count: usize,
}

impl Stacks {
    /// Keeps a page.
    pub(super) fn add(&mut self, page: Box<fl_stack_page>) {
        if self.count >= PAGES_MAX {
            self.waiting.clear();
            self.count = 0;
        }
        self.count += 1;
        self.waiting.entry((page.tid, page.timestamp_ns)).or_default().push(page);
    }

    /// The stack of this crash, as far as it came.
    pub(super) fn take(&mut self, crash: &fl_crash) -> StackCopy {
        let pages = self.waiting.remove(&(crash.tid, crash.timestamp_ns)).unwrap_or_default();
        self.count -= pages.len();
        StackCopy::new(pages.into_iter().map(|page| (page.address, page.bytes.to_vec())).collect())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn page(tid: u32, address: u64, byte: u8) -> Box<fl_stack_page> {
        Box::new(fl_stack_page { tid, address, bytes: [byte; 4096], ..fl_stack_page::default() })
    }

    #[test]
    fn each_crash_gets_its_own_pages() {
        let mut stacks = Stacks::default();
        stacks.add(page(1, 0x1000, 1));
        stacks.add(page(2, 0x1000, 2));
        stacks.add(page(1, 0x2000, 3));
        let crash = fl_crash { tid: 1, ..fl_crash::default() };
        let copy = stacks.take(&crash);
        assert_eq!(copy.read_word(0x1000), Some(0x0101_0101_0101_0101));
        assert_eq!(copy.read_word(0x2ff8), Some(0x0303_0303_0303_0303));
        assert_eq!(stacks.take(&crash), StackCopy::default());
        assert_eq!(stacks.count, 1);
    }

    #[test]
    fn what_nobody_takes_is_bounded() {
        let mut stacks = Stacks::default();
        for tid in 0..10_000 {
            stacks.add(page(tid, 0x1000, 0));
        }
        assert!(stacks.count <= PAGES_MAX && stacks.waiting.len() == stacks.count);
    }
}
