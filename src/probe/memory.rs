//! The memory probe: the configuration of `bpf/memory.bpf.c`, and its hooks.

mod calls;
mod plan;
mod read;

use std::cell::RefCell;

use anyhow::{Result, bail};
use libbpf_rs::Link;

use super::abi::memory::{Sample, fl_config, fl_mapping, fl_page};
use super::engine::{self, Room, Setup, Spec};
use super::hook::{Hook, Way};
use super::kernel::Kernel;
use super::object::{Builds, Opened, object};
use crate::arch;

use calls::{DROPS, ENDS, ENTERS, EXEC_MEM_CALLS, LEAVES, begins, ends, symbol};
pub(crate) use plan::Plan;
pub(crate) use read::Counters;

/// The attached probe. Dropping it detaches every program.
pub(crate) type Probe = engine::Probe<Plan>;

/// The room in the ring, with pages or with calls only.
const PAGES: Room = Room { samples: 4000, bytes: size_of::<fl_page>() };
const CALLS: Room = Room { samples: 200, bytes: size_of::<fl_mapping>() };

impl Spec for Plan {
    /// And how many bytes it has.
    type Sample = Sample;
    /// Attached while they are needed: see [`Probe::watch_changes`].
    type State = RefCell<Vec<Link>>;
    const OBJECT: Builds = object!("memory");
    const WAYS: &'static [Way] = &[Way::Tracepoint, Way::Kprobe, Way::Raw];

    fn setup(&self) -> &Setup {
        &self.setup
    }

    fn ways_of(way: Way) -> Vec<Way> {
        // The tracepoints of all calls, if those of single calls can't be had.
        if way == Way::Tracepoint { vec![way, Way::Raw] } else { vec![way] }
    }

    fn hooks(&self, way: Way, kernel: Kernel) -> Result<Vec<Hook>> {
        if self.executable_memory {
            return Ok(ends(way, &EXEC_MEM_CALLS));
        }
        if way != Way::Kprobe && !arch::syscall::SHOWS_ITS_BEGIN {
            bail!(
                "failed to watch mapping calls by tracepoints: on this architecture only --attach kprobe tells a call's begin from its end"
            );
        }
        // The exit first: a process must not be remembered and never forgotten.
        let mut hooks = vec![
            Hook::raw("fl_exit", "sched_process_exit"),
            Hook::raw("fl_fork", "sched_process_fork"),
            Hook::raw("fl_exec", "sched_process_exec"),
            Hook::later("fl_fetch"),
        ];
        let mut enters = [&ENTERS[..], &[DROPS]].concat();
        let mut by_entry = Vec::new();
        if !kernel.exits_with_memory {
            enters.extend(ENDS);
            by_entry.push(Hook::raw("fl_signal", "signal_deliver"));
        }
        by_entry.extend(begins(way, &enters));
        // Entries by the lock that they take, if that can be watched: without a tracepoint at the entry of any call, all other calls of
        // the machine take half of the additional time.
        let by_lock = (way == Way::Tracepoint).then(|| vec![Hook::raw("fl_lock", "mmap_lock_start_locking")]);
        hooks.push(Hook::FirstOf(by_lock.into_iter().chain([by_entry]).collect()));
        hooks.extend(ends(way, &LEAVES));
        if way == Way::Kprobe {
            hooks.extend(LEAVES.map(|name| Hook::kprobe("fl_expect_end", symbol(name))));
        }
        Ok(hooks)
    }

    fn words(way: Way) -> Option<&'static str> {
        Some(match way {
            Way::Kprobe => "kprobes on mapping calls",
            Way::Raw => "tracepoints of all calls",
            _ => "tracepoints of mapping calls",
        })
    }

    fn configure(&self, _way: Way, kernel: Kernel, object: &mut Opened) -> Result<()> {
        let config = fl_config {
            show_all: u8::from(self.show_all),
            follow: u8::from(self.follow || self.setup.filter.command),
            pages: u8::from(self.pages),
            exec_mem: u8::from(self.executable_memory),
            late_exit: u8::from(kernel.exits_with_memory),
            headers: u8::from(self.headers),
            older: u8::from(!self.setup.filter.command),
            ..fl_config::default()
        };
        object.configure("fl_config", &config)
    }

    fn tables(&self, _way: Way, _kernel: Kernel) -> Vec<(&'static str, usize)> {
        if self.executable_memory { vec![("fl_processes", 1), ("fl_calls", 1)] } else { vec![("fl_exec_mems", 1)] }
    }

    fn idle(&self) -> Vec<&'static str> {
        if self.executable_memory { vec!["fl_records", "fl_ascents"] } else { Vec::new() }
    }

    fn ring(&self) -> Option<Room> {
        Some(match self.pages {
            _ if self.executable_memory => Room::NONE,
            true => PAGES,
            false => CALLS,
        })
    }

    fn sample(&self, bytes: &[u8]) -> Option<Self::Sample> {
        Sample::from_bytes(bytes)
    }
}
