//! Reads what the page fault probe has counted.

use std::collections::HashMap;
use std::time::Duration;

use anyhow::{Context as _, Result};
use libbpf_rs::{Map, MapCore as _, MapFlags};

use super::Probe;
use crate::probe::abi::Plain as _;
use crate::probe::abi::pagefault::{
    fl_counter, fl_fault_key, fl_fault_process, fl_near_fault, fl_own_limit, fl_stack_frames, fl_stack_place,
    key_from_bytes,
};
use crate::probe::losses::{self, Losses, MAJORS_MISSED, RUNS_MISSED};
use crate::probe::table::TypedTable as _;

/// The rows of an epoch that are found without a hash table.
pub(super) const NEAR_FAULTS: u32 = fl_own_limit::FL_LIMIT_NEAR_FAULTS.0;

/// What the reader keeps between two reads.
#[derive(Debug, Default)]
pub(crate) struct State {
    /// The epoch in which the programs count.
    epoch: u32,
    /// The runs of the programs of perf events that were skipped, in the order of [`PERF_PROGRAMS`].
    skipped: [u64; 2],
}

/// The programs of perf events, the counters of their runs, and the losses that skipped ones are.
const PERF_PROGRAMS: [(&str, fl_counter, &str); 2] =
    [("fl_major", fl_counter::FL_MAJOR_RUNS, MAJORS_MISSED), ("fl_soft", fl_counter::FL_SOFT_RUNS, RUNS_MISSED)];

/// What was counted in one epoch.
#[derive(Debug, Default)]
pub(crate) struct FaultCounts {
    /// Faults by key.
    pub faults: Vec<(fl_fault_key, u64)>,
    /// Major ones among them, or among those of the epoch before.
    pub majors: Vec<(fl_fault_key, u64)>,
}

/// One number for each line of `enum fl_counter`, since the start.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Counters {
    /// Faults that the filters left out.
    pub filtered: u64,
    /// Major faults.
    pub major: u64,
    /// Single faults that were sent to user space.
    pub events: u64,
    /// Faults that found no room in the table, were not reported, not watched or not seen. Those not reported are counted all the same.
    pub losses: Losses,
}

impl Probe {
    /// Are major faults counted apart from minor ones?
    pub(crate) fn tells_majors(&self) -> bool {
        self.has("fl_major")
    }

    /// Takes the counts since the last call out of the table: nothing is lost or counted twice.
    pub(crate) fn drain(&mut self) -> Result<FaultCounts> {
        let (old, new) = (self.state.epoch, self.state.epoch ^ 1);
        let events = PERF_PROGRAMS.map(|(program, _, _)| self.events(program));
        let epochs = self.map("fl_epochs")?;
        let what = "failed to begin a new epoch";
        epochs.update(&0u32.to_ne_bytes(), &new.to_ne_bytes(), MapFlags::ANY).context(what)?;
        self.state.epoch = new;
        await_programs();
        self.note_skipped(events)?;
        let sum = |map: &Map<'_>, key: &[u8]| -> Result<u64> { Ok(map.values_of::<u64>(key)?.iter().sum()) };
        let mut faults = take_near(&self.map("fl_near_faults")?, old).context("failed to read the faults")?;
        faults.extend(take(&self.map("fl_faults")?, old, sum).context("failed to read the faults")?);
        Ok(FaultCounts {
            faults: add_up(faults),
            majors: take(&self.map("fl_majors")?, old, sum).context("failed to read the major faults")?,
        })
    }

    /// Learns how many runs at perf events were skipped, from how many events there were a moment ago. By now every program that ran at one
    /// of these has ended and is counted, and perhaps some at later ones: what is missing was skipped. When everything is detached there
    /// are no later ones, and the number is exact.
    fn note_skipped(&mut self, events: [u64; 2]) -> Result<()> {
        for (place, (events, (_, runs, _))) in events.into_iter().zip(PERF_PROGRAMS).enumerate() {
            let skipped = events.saturating_sub(self.count(runs.0)?);
            self.state.skipped[place] = self.state.skipped[place].max(skipped);
        }
        Ok(())
    }

    /// The name and relations of a process that had faults lately; `None` means that it was forgotten.
    pub(crate) fn process(&self, tgid: u32) -> Result<Option<fl_fault_process>> {
        let what = "failed to read the name of a process";
        let value = self.map("fl_processes")?.lookup(&tgid.to_ne_bytes(), MapFlags::ANY).context(what)?;
        Ok(value.as_deref().and_then(fl_fault_process::read))
    }

    /// Takes the stacks of these hashes out of the table, innermost frame first. Those that were lost are not among
    /// them.
    pub(crate) fn take_stacks(&self, hashes: &[u64]) -> Result<HashMap<u64, Vec<u64>>> {
        let what = "failed to read a stack";
        let (ids, stacks) = (self.map("fl_stack_ids")?, self.map("fl_stacks")?);
        let (mut read, mut used) = (HashMap::new(), Vec::new());
        for &hash in hashes {
            let place = ids.lookup(&hash.to_ne_bytes(), MapFlags::ANY).context(what)?;
            let Some(place) = place.as_deref().and_then(fl_stack_place::read) else { continue };
            let mut frames = Vec::new();
            if place.frames != fl_stack_frames::FL_STACK_WHOLE {
                frames.push(place.innermost);
            }
            if place.frames != fl_stack_frames::FL_STACK_INNERMOST {
                let bucket = place.id.to_ne_bytes();
                let Some(value) = stacks.lookup(&bucket, MapFlags::ANY).context(what)? else { continue };
                frames.extend(value.chunks_exact(8).filter_map(number).take_while(|address| *address != 0));
                used.push(bucket);
            }
            frames.truncate(place.count as usize);
            read.insert(hash, frames);
        }
        for bucket in used {
            // Two hashes may have one stack: the second time it is gone.
            let _ = stacks.delete(&bucket);
        }
        Ok(read)
    }

    /// The counters since the start.
    pub(crate) fn counters(&self) -> Result<Counters> {
        let count = |which: fl_counter| self.count(which.0);
        let mut losses = self.losses(&losses::PAGEFAULT)?;
        for ((_, _, reason), skipped) in PERF_PROGRAMS.iter().zip(self.state.skipped) {
            losses.add(reason, skipped);
        }
        if !self.tells_majors() {
            losses = losses.without(MAJORS_MISSED);
        }
        Ok(Counters {
            filtered: count(fl_counter::FL_FILTERED)?,
            major: count(fl_counter::FL_MAJOR)?,
            events: count(fl_counter::FL_EVENTS)?,
            losses: if self.plan.tells_missed(self.way()) { losses } else { losses.without(RUNS_MISSED) },
        })
    }
}

/// Waits until every program that runs now has ended: programs are RCU readers, and membarrier(2) waits for these.
fn await_programs() {
    const MEMBARRIER_CMD_GLOBAL: libc::c_int = 1;
    // SAFETY: it takes no pointer.
    let result = unsafe { libc::syscall(libc::SYS_membarrier, MEMBARRIER_CMD_GLOBAL, 0, 0) };
    if result != 0 {
        // CONFIG_NO_HZ_FULL refuses it: no program runs for that long.
        std::thread::sleep(Duration::from_millis(50));
    }
}

/// Takes the rows of this epoch out of `map`. One key may have rows of several processors.
fn take_near(map: &Map<'_>, epoch: u32) -> Result<Vec<(fl_fault_key, u64)>> {
    let mut taken = Vec::new();
    for slot in epoch * NEAR_FAULTS..(epoch + 1) * NEAR_FAULTS {
        let rows: Vec<fl_near_fault> = map.values(&slot)?;
        let used = taken.len();
        taken.extend(rows.iter().filter(|row| row.count != 0).map(|row| (row.key, row.count)));
        if taken.len() > used {
            let empty = vec![fl_near_fault::default().bytes().to_vec(); rows.len()];
            map.update_percpu(slot.bytes(), &empty, MapFlags::ANY)?;
        }
    }
    Ok(taken)
}

/// The sum of each key's counts.
fn add_up(counts: Vec<(fl_fault_key, u64)>) -> Vec<(fl_fault_key, u64)> {
    let mut sums: HashMap<Vec<u8>, (fl_fault_key, u64)> = HashMap::with_capacity(counts.len());
    for (key, count) in counts {
        sums.entry(key.bytes().to_vec()).or_insert((key, 0)).1 += count;
    }
    sums.into_values().collect()
}

/// Takes the entries of this epoch out of `map`.
fn take(map: &Map<'_>, epoch: u32, read: impl Fn(&Map<'_>, &[u8]) -> Result<u64>) -> Result<Vec<(fl_fault_key, u64)>> {
    // New entries of the other epoch go to the beginning of their chains, so that none of ours is skipped.
    let old = map.keys().filter_map(|bytes| {
        let key = key_from_bytes(&bytes)?;
        (u32::from(key.epoch) == epoch).then_some((key, bytes))
    });
    let old: Vec<(fl_fault_key, Vec<u8>)> = old.collect();
    let mut taken = Vec::with_capacity(old.len());
    for (key, bytes) in old {
        taken.push((key, read(map, &bytes)?));
        map.delete(&bytes)?;
    }
    Ok(taken)
}

fn number(bytes: &[u8]) -> Option<u64> {
    Some(u64::from_ne_bytes(bytes.get(..8)?.try_into().ok()?))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_counts_of_one_key_are_added_up() {
        let key = |tgid, place| fl_fault_key { tgid, place, ..fl_fault_key::default() };
        let sums = add_up(vec![(key(1, 0), 2), (key(1, 7), 3), (key(2, 0), 5), (key(1, 0), 8)]);
        let mut sums: Vec<_> = sums.iter().map(|(key, count)| (key.tgid, key.place, *count)).collect();
        sums.sort_unstable();
        assert_eq!(sums, [(1, 0, 10), (1, 7, 3), (2, 0, 5)]);
    }
}
