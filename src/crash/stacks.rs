//! Keeps the pages of stacks, and the mappings that they lead to, until the crash that they belong to comes.

use std::collections::HashMap;

use crate::probe::abi::{fl_crash, fl_stack_page};
use crate::symbol::unwind::StackCopy;

/// How many pages wait at most: 8 MiB. If there are more, they are left over from crashes that were lost.
const PAGES_MAX: usize = 2048;

/// As many pages take as much memory as a sample of mappings.
const PAGES_OF_MODULES: usize = size_of::<fl_crash>().div_ceil(size_of::<fl_stack_page>());

/// Thread and time: what a crash and its pages have in common.
type Key = (u32, u64);

/// What came before a crash.
#[derive(Debug, Default)]
struct Before {
    pages: Vec<Box<fl_stack_page>>,
    modules: Vec<Box<fl_crash>>,
}

/// What waits.
#[derive(Debug, Default)]
pub(super) struct Stacks {
    waiting: HashMap<Key, Before>,
    /// Pages, and what takes as much memory.
    count: usize,
}

impl Stacks {
    /// Keeps a page.
    pub(super) fn add(&mut self, page: Box<fl_stack_page>) {
        self.before((page.tid, page.timestamp_ns), 1).pages.push(page);
    }

    /// Keeps mappings for which the record has no room.
    pub(super) fn add_modules(&mut self, modules: Box<fl_crash>) {
        self.before((modules.tid, modules.timestamp_ns), PAGES_OF_MODULES).modules.push(modules);
    }

    fn before(&mut self, key: Key, pages: usize) -> &mut Before {
        if self.count >= PAGES_MAX {
            self.waiting.clear();
            self.count = 0;
        }
        self.count += pages;
        self.waiting.entry(key).or_default()
    }

    /// The stack of this crash, and the samples that have more of its mappings, as far as they came.
    pub(super) fn take(&mut self, crash: &fl_crash) -> (StackCopy, Vec<Box<fl_crash>>) {
        let Before { pages, modules } = self.waiting.remove(&(crash.tid, crash.timestamp_ns)).unwrap_or_default();
        self.count -= pages.len() + modules.len() * PAGES_OF_MODULES;
        (StackCopy::new(pages.into_iter().map(|page| (page.address, page.bytes.to_vec())).collect()), modules)
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
        stacks.add_modules(Box::new(crash));
        let (copy, modules) = stacks.take(&crash);
        assert_eq!(modules.len(), 1);
        assert_eq!(copy.read_word(0x1000), Some(0x0101_0101_0101_0101));
        assert_eq!(copy.read_word(0x2ff8), Some(0x0303_0303_0303_0303));
        assert!(matches!(stacks.take(&crash), (none, modules) if none == StackCopy::default() && modules.is_empty()));
        assert_eq!(stacks.count, 1);
    }

    #[test]
    fn what_nobody_takes_is_bounded() {
        let mut stacks = Stacks::default();
        for tid in 0..10_000 {
            stacks.add(page(tid, 0x1000, 0));
            stacks.add_modules(Box::new(fl_crash { tid, ..fl_crash::default() }));
        }
        assert!(stacks.count <= PAGES_MAX + PAGES_OF_MODULES);
        assert_eq!(stacks.waiting.len() * (1 + PAGES_OF_MODULES), stacks.count);
    }
}
