//! The events of a group by processor. Most groups strike on few of the processors that there may be, so only these are kept.

use std::collections::BTreeMap;
use std::rc::Rc;

/// In the place of a processor: events of several ones, of which nobody knows which had how many. More processors than so many can't be.
pub(crate) const SHARED: u32 = 1 << 13;

/// Events by processor. To clone it costs nothing.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Counts {
    /// The processor and its events, which are not 0.
    by_cpu: Rc<[(u32, u64)]>,
    total: u64,
}

impl Counts {
    /// All of them together.
    pub(crate) fn total(&self) -> u64 {
        self.total
    }

    /// The events of each processor, from the first one up to the last one that had any.
    pub(crate) fn by_processor(&self) -> Vec<u64> {
        let mut all = Vec::new();
        for &(cpu, count) in &*self.by_cpu {
            all.resize(cpu as usize, 0);
            all.push(count);
        }
        all
    }

    /// The same with so many more on this processor.
    pub(crate) fn plus(&self, cpu: usize, many: u64) -> Self {
        let mut all = self.by_processor();
        all.resize(all.len().max(cpu + 1), 0);
        all.iter_mut().skip(cpu).take(1).for_each(|count| *count += many);
        all.into_iter().collect()
    }

    /// What has come since they were `before`, by processor.
    pub(crate) fn since(&self, before: Option<&Self>) -> BTreeMap<u32, u64> {
        let before = before.filter(|before| before.total != 0);
        if before.is_some_and(|before| before.total == self.total) {
            return BTreeMap::new();
        }
        let of = |cpu: u32| {
            let by_cpu = &before?.by_cpu;
            by_cpu.binary_search_by_key(&cpu, |(cpu, _)| *cpu).ok().map(|at| by_cpu[at].1)
        };
        let new = |&(cpu, count): &(u32, u64)| (cpu, count.saturating_sub(of(cpu).unwrap_or_default()));
        self.by_cpu.iter().map(new).filter(|(_, count)| *count != 0).collect()
    }
}

impl FromIterator<u64> for Counts {
    /// The events of each processor, from the first one on.
    fn from_iter<Cpus: IntoIterator<Item = u64>>(cpus: Cpus) -> Self {
        let by_cpu: Rc<[(u32, u64)]> = (0..).zip(cpus).filter(|(_, count)| *count != 0).collect();
        let total = by_cpu.iter().map(|(_, count)| count).sum();
        Self { by_cpu, total }
    }
}

impl FromIterator<(Option<u32>, u64)> for Counts {
    /// The events of processors, in any order; `None` means that the processor isn't known.
    fn from_iter<Cpus: IntoIterator<Item = (Option<u32>, u64)>>(cpus: Cpus) -> Self {
        let mut by_cpu = BTreeMap::new();
        for (cpu, count) in cpus.into_iter().filter(|(_, count)| *count != 0) {
            *by_cpu.entry(cpu.unwrap_or(SHARED)).or_default() += count;
        }
        Self { total: by_cpu.values().sum(), by_cpu: by_cpu.into_iter().collect() }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_new_is_by_processor() {
        let counts = |cpus: &[u64]| cpus.iter().copied().collect::<Counts>();
        let before = counts(&[3, 0, 5, 0]);
        assert_eq!((before.total(), before.by_cpu.len()), (8, 2));
        assert_eq!(before.since(None), BTreeMap::from([(0, 3), (2, 5)]));
        assert_eq!(counts(&[3, 1, 7, 0]).since(Some(&before)), BTreeMap::from([(1, 1), (2, 2)]));
        assert_eq!(before.since(Some(&before)), BTreeMap::new());
        assert_eq!(before.since(Some(&Counts::default())), before.since(None));
    }

    #[test]
    fn what_is_of_no_known_processor_counts_as_well() {
        let counts = [(Some(67), 3), (None, 2), (Some(1), 0), (None, 4)].into_iter().collect::<Counts>();
        assert_eq!((counts.total(), counts.since(None)), (9, BTreeMap::from([(67, 3), (SHARED, 6)])));
        assert_eq!(counts.plus(1, 1).since(Some(&counts)), BTreeMap::from([(1, 1)]));
    }
}
