//! The signal probe: the configuration of `bpf/signal.bpf.c`, and its hooks.

mod plan;
mod read;

use anyhow::Result;

use super::abi::signal::{Sample, fl_config, fl_signal};
use super::engine::{self, Room, Setup, Spec};
use super::hook::{Hook, Way};
use super::kernel::Kernel;
use super::kernel_code;
use super::losses::RUNS_MISSED;
use super::many;
use super::object::{Builds, Opened, object};

pub(crate) use plan::{PeerChoice, Plan};
pub(crate) use read::{Counters, Pair, PairKey, TaskCounters};

/// The attached probe. Dropping it detaches every program.
pub(crate) type Probe = engine::Probe<Plan>;

/// For bursts: all signals of a busy machine.
const RECORDS: Room = Room { samples: 12_000, bytes: size_of::<fl_signal>() };

impl Spec for Plan {
    type Sample = Sample;
    type State = ();
    const OBJECT: Builds = object!("signal");
    const WAYS: &'static [Way] = &[Way::Tracepoint, Way::Kprobe, Way::Syscall];

    fn setup(&self) -> &Setup {
        &self.setup
    }

    fn hooks(&self, way: Way, _kernel: Kernel) -> Result<Vec<Hook>> {
        let mut hooks = vec![match way {
            // v5.19 renamed it.
            Way::Kprobe => Hook::kprobe_by_either("fl_send", ["__send_signal_locked", "__send_signal"]),
            Way::Syscall => Hook::raw("fl_call", "sys_enter").shown(),
            _ => Hook::raw("fl_generate", "signal_generate").typed().shown(),
        }];
        if self.names_victims(way) {
            hooks.push(Hook::raw("fl_mark_victim", "mark_victim").optional());
        }
        if self.processes {
            // Each skipped run is a fork, exec or exit that was asked for.
            hooks.extend(Hook::follow().map(|hook| hook.missed_as(Some(RUNS_MISSED))));
            hooks.push(Hook::raw("fl_exec", "sched_process_exec"));
        } else if self.setup.filter.command {
            hooks.extend(Hook::follow());
        }
        Ok(hooks)
    }

    fn configure(&self, way: Way, _kernel: Kernel, object: &mut Opened) -> Result<()> {
        let mut config = fl_config {
            signals: self.signals.iter().fold(0, |bits, signal| bits | 1 << (signal - 1)),
            pairs: u8::from(self.pairs.is_some()),
            records: u8::from(self.records),
            processes: u8::from(self.processes),
            near_pairs: u8::from(self.has_near_pairs()),
            only_pairs: u8::from(self.counts_only()? && self.has_near_pairs()),
            ..fl_config::default()
        };
        if self.has_near_pairs() && many::has_many_processors() {
            object.share_values("fl_pairs")?;
        }
        config.from_count = plan::place("--from", &mut config.from, &self.from)?;
        if self.names_victims(way) {
            object.configure("fl_oom_code", &kernel_code::out_of_memory())?;
        }
        config.to_count = plan::place("--to", &mut config.to, &self.to)?;
        object.configure("fl_config", &config)
    }

    fn tables(&self, _way: Way, _kernel: Kernel) -> Vec<(&'static str, usize)> {
        vec![("fl_pairs", self.pairs.unwrap_or(1) as usize)]
    }

    fn idle(&self) -> Vec<&'static str> {
        let mut idle = if self.records { Vec::new() } else { vec!["fl_records", "fl_ascents", "fl_killers"] };
        if !self.has_near_pairs() {
            idle.push("fl_near_pairs");
        }
        idle
    }

    fn ring(&self) -> Option<Room> {
        Some(if self.records { RECORDS } else { Room::NONE })
    }

    fn sample(&self, bytes: &[u8]) -> Option<Sample> {
        Sample::from_bytes(bytes)
    }
}
