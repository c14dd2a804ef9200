//! The crash probe: the configuration of `bpf/crash.bpf.c`, and its hooks.

mod columns;
mod counts;
mod group;
mod groups;
mod plan;
mod read;
mod rows;

use std::cell::RefCell;
use std::hash::{BuildHasher as _, RandomState};
use std::ops::RangeInclusive;

use anyhow::{Context as _, Result};
use libbpf_rs::num_possible_cpus;
use procfs::{Current as _, LoadAverage};

use super::abi::{Sample, fl_config, fl_crash, fl_limit, fl_own_limit};
use super::engine::{self, Room, Setup, Spec};
use super::hook::{Hook, Way};
use super::kernel::Kernel;
use super::kernel_code;
use super::losses::{EXITS_MISSED, RUNS_MISSED};
use super::many;
use super::object::{Build, Builds, Loaded, Opened, object};
use crate::siginfo::{CORE_SIGNALS, SIGKILL, SIGSYS};

pub(crate) use counts::{Counts, SHARED};
pub(crate) use group::{Group, GroupId};
pub(crate) use groups::StackFrame;
pub(crate) use plan::{Budget, GroupTable, Plan};
pub(crate) use read::Counters;
use read::RunsMissed;

/// The attached probe. Dropping it detaches every program.
pub(crate) type Probe = engine::Probe<Plan>;

/// What its reader keeps between two reads.
#[derive(Default)]
pub(crate) struct State {
    runs_missed: RunsMissed,
    groups: RefCell<groups::State>,
}

/// A stack is copied in pieces of this size.
const PIECE_BYTES: u32 = fl_limit::FL_LIMIT_PIECE_BYTES.0;
/// With stacks of up to this size a small ring is enough on few processors: samples are few, so that memory matters more.
const AGENT_STACK_BYTES: usize = 16 * 1024;
/// The least and the most memory, for any number of processors.
const SMALL_RING_BYTES: RangeInclusive<usize> = 512 << 10..=4 << 20;
const LARGE_RING_BYTES: RangeInclusive<usize> = 2 << 20..=16 << 20;

/// Room for a death of each processor at once, and as much again for what is no death (`fl_has_room` in the program).
fn room(processors: usize, stack_bytes: usize) -> Room {
    let bounds = if stack_bytes > AGENT_STACK_BYTES { LARGE_RING_BYTES } else { SMALL_RING_BYTES };
    let bytes = (2 * processors * (size_of::<fl_crash>() + stack_bytes)).clamp(*bounds.start(), *bounds.end());
    Room { samples: 1, bytes }
}

/// The same for the processors of this host.
fn room_here(stack_bytes: usize) -> Room {
    room(num_possible_cpus().unwrap_or(1), stack_bytes)
}

/// The size of the ring on this host, in bytes. `stack_bytes`: how much of a stack is copied at most.
pub fn ring_bytes(stack_bytes: usize) -> usize {
    room_here(stack_bytes).ring_bytes()
}

/// The size of an LRU table that nothing is written to: some kernels want an entry for each processor.
const UNUSED_LRU_ENTRIES: usize = 64;

/// If only the ends by seccomp are seen twice: processes that are ending so at one moment.
const ENDINGS_BY_SECCOMP: usize = 512;

/// If threads have no storage of their own: for how many of them there is room for handled faults.
const THREADS: RangeInclusive<u32> = 2 * 1024..=16 * 1024;

/// Places of handled faults that a processor remembers, where there are many of them. A power of 2.
const SITES_OF_MANY: u32 = 64;

fn sites() -> u32 {
    if many::has_many_processors() { SITES_OF_MANY } else { fl_own_limit::FL_LIMIT_SITES.0 }
}

/// Twice as many slots as there are threads now, so that hardly one finds both of its own taken. A power of 2.
fn threads() -> u32 {
    let now = LoadAverage::current().map_or(0, |load| load.max);
    now.saturating_mul(2).clamp(*THREADS.start(), *THREADS.end()).next_power_of_two()
}

impl Spec for Plan {
    type Sample = Sample;
    type State = State;
    const OBJECT: Builds = object!("crash");
    const SUMMED: &'static [&'static str] = &["fl_counters", "fl_group_counts"];
    const WAYS: &'static [Way] = &[Way::Tracepoint, Way::Kprobe];

    fn setup(&self) -> &Setup {
        &self.setup
    }

    fn hooks(&self, way: Way, kernel: Kernel) -> Result<Vec<Hook>> {
        let is_seen_again = self.at_coredump(way, kernel) != 0;
        let sees_ends = way == Way::Kprobe || is_seen_again;
        let end_missed = Some(if sees_ends { RUNS_MISSED } else { EXITS_MISSED });
        // No program preempts a kprobe's, but on a real-time kernel a kprobe's runs while that of signal_deliver is preempted.
        let is_apart = way != Way::Kprobe && kernel.is_real_time;
        let exit = Hook::kprobe("fl_dump_or_exit", "do_exit").missed_as(end_missed).apart_if(is_apart).optional();
        let coredump = Hook::kprobe_by_either("fl_dump_or_exit", ["vfs_coredump", "do_coredump"]).apart_if(is_apart);
        let mut hooks = if way == Way::Kprobe {
            self.check_kprobes()?;
            vec![coredump.clone(), Hook::kprobe("fl_force_sig", "force_sig_info_to_task").shown()]
        } else {
            vec![Hook::raw("fl_deliver_exit", "signal_deliver").typed().shown()]
        };
        if is_seen_again {
            hooks.push(coredump.optional());
        }
        if self.needs_senders(way) {
            hooks.push(Hook::raw("fl_generate", "signal_generate"));
        }
        // The end of a process that exits from the handler of a fault, by a kprobe if the kernel has kprobes: at sched_process_exit a task
        // that gets a signal may preempt this one on new kernels (seen on 7.2). Our program would be on that processor already, and the
        // kernel would skip the run for the signal. lockdown=confidentiality refuses kprobes, and then such an end is not seen:
        // docs/limits.md.
        match way {
            _ if kernel.kprobes => hooks.push(exit),
            _ if Self::is_hooked_at_exit(way, kernel) => hooks.push(Hook::raw("fl_deliver_exit", "sched_process_exit")),
            _ => {}
        }
        hooks.extend(self.setup.filter.command.then(Hook::follow).into_iter().flatten());
        Ok(hooks)
    }

    fn configure(&self, way: Way, kernel: Kernel, object: &mut Opened) -> Result<()> {
        let config = fl_config {
            signals: plan::bits(&self.signals),
            frames: self.frames,
            // One more, because the stack pointer is somewhere within the first one.
            stack_pages: if self.stack_bytes == 0 { 0 } else { self.stack_bytes.div_ceil(PIECE_BYTES) + 1 },
            show_handled: u8::from(self.show_handled),
            at_coredump: self.at_coredump(way, kernel),
            is_preempted: u8::from(way != Way::Kprobe && kernel.is_real_time),
            at_exit: u8::from(Self::is_hooked_at_exit(way, kernel)),
            senders: u8::from(self.needs_senders(way)),
            sees_threads: u8::from(self.sees_threads(way, kernel)),
            groups: self.groups.map_or(0, |table| table.groups),
            rests: self.groups.map_or(0, GroupTable::rests),
            sums: self.sums(),
            columns: self.columns().unwrap_or(0),
            sites: sites(),
            sums_by_code: plan::SUMS_BY_CODE,
            living_bytes: u32::try_from(room_here(self.stack_bytes as usize).ring_bytes() / 2).unwrap_or(u32::MAX),
            share_cells: self.groups.map_or(1, GroupTable::share_cells),
            seed: RandomState::new().hash_one(0),
            sample_first: self.samples.first.unwrap_or(0),
            sample_interval_ns: u64::try_from(self.samples.interval.as_nanos()).unwrap_or(u64::MAX),
            sample_rate: self.samples.rate.unwrap_or(0),
            threads: threads(),
            processors: u32::try_from(num_possible_cpus().context("failed to count the processors")?)?,
        };
        if self.needs_senders(way) && self.signals.contains(&SIGKILL) {
            object.configure("fl_oom_code", &kernel_code::out_of_memory())?;
        }
        if object.build() != Build::Typed {
            object.resize("fl_threads", config.threads as usize)?;
        }
        if config.columns != 0 {
            object.share_values("fl_group_counts")?;
            object.let_map("fl_group_counts")?;
        }
        object.configure("fl_config", &config)
    }

    fn tables(&self, way: Way, kernel: Kernel) -> Vec<(&'static str, usize)> {
        let mut tables = vec![("fl_sites", sites() as usize)];
        if !self.needs_senders(way) {
            tables.push(("fl_sent", 1));
        }
        // Only for these the program asks whether it has seen their end already (fl_is_first).
        let seen_again = self.at_coredump(way, kernel);
        if self.signals.iter().all(|signal| CORE_SIGNALS.contains(signal)) && seen_again & !plan::bits(&[SIGSYS]) == 0 {
            tables.push(("fl_endings", if seen_again == 0 { UNUSED_LRU_ENTRIES } else { ENDINGS_BY_SECCOMP }));
        }
        if let Some(table @ GroupTable { groups, stacks }) = self.groups {
            let (groups, rests, sums) = (groups as usize, table.rests() as usize, self.sums() as usize);
            let rows = self.rows() as usize;
            let columns = self.columns().map_or(1, |columns| columns as usize + 1);
            tables.extend([("fl_groups", rows), ("fl_group_times", rows), ("fl_group_counts", rows * columns)]);
            tables.push(("fl_group_ids", groups + rests + sums));
            tables.extend([("fl_free_groups", groups), ("fl_free_rests", rests), ("fl_free_sums", sums)]);
            // Two rows of them, and two in a value.
            let cells = table.share_cells() as usize;
            tables.extend([("fl_shares_taken", cells), ("fl_shares_back", cells)]);
            tables.push(("fl_stacks", (stacks as usize).next_power_of_two()));
        }
        tables
    }

    fn ring(&self) -> Option<Room> {
        Some(room_here(self.stack_bytes as usize))
    }

    fn fill(&self, object: &Loaded) -> Result<()> {
        // Before the first program is attached: an abort may come right after.
        read::know_libcs(&object.map("fl_libcs")?, &self.libcs)?;
        match self.groups {
            Some(table) => groups::hand_out_ids(object, table, self.sums()),
            None => Ok(()),
        }
    }

    fn sample(&self, bytes: &[u8]) -> Option<Sample> {
        Sample::from_bytes(bytes)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_ring_grows_with_processors_up_to_a_bound() {
        let bytes = |processors, stack| room(processors, stack).ring_bytes();
        assert_eq!((bytes(2, 16 << 10), bytes(2, 64 << 10)), (512 << 10, 2 << 20));
        assert_eq!((bytes(32, 16 << 10), bytes(32, 64 << 10)), (2 << 20, 8 << 20));
        assert_eq!((bytes(512, 64 << 10), bytes(8192, 512 << 10)), (16 << 20, 16 << 20));
        assert_eq!((bytes(80, 16 << 10), bytes(512, 16 << 10)), (4 << 20, 4 << 20));
        // What is no death needs room for one sample at least, with the largest stack.
        assert!(bytes(1, 512 << 10) / 2 > (512 << 10) + 128 * 1024);
    }
}
