//! The recorder of kernel calls: the configuration of `bpf/call.bpf.c`, and the hooks of its fixed part. Each function is attached by itself,
//! in the best way there is: `strategy.rs`.

mod attach;
mod plan;
mod read;
mod recorder;
mod strategy;

use anyhow::Result;
use libbpf_rs::num_possible_cpus;

pub use super::abi::call::{Sample, TaskCalls};
use super::abi::call::{fl_call, fl_config, fl_own_limit, fl_task};
use super::engine::{Room, Setup, Spec};
use super::hook::{Attach, Hook, Way};
use super::kernel::Kernel;
use super::object::{Builds, Opened, object};
use attach::Patterns;

pub use plan::{Function, Plan, Point};
pub use read::Counters;
pub use recorder::Recorder;
pub use strategy::Attached;

/// Room for some hundred triggers with their calls, mostly 16.
const TRIGGERS: Room = Room { samples: 400, bytes: size_of::<fl_task>() + 16 * size_of::<fl_call>() };
/// Each processor reserves so many free entries of an LRU table, and evicts as many at once when it has none left:
/// LOCAL_FREE_TARGET, kernel/bpf/bpf_lru_list.c.
const KEPT_BY_PROCESSOR: usize = 128;
/// There is room for the free entries of at most so many processors.
const PROCESSORS_MAX: usize = 16;

impl Spec for Plan {
    type Sample = Sample;
    type State = ();
    const OBJECT: Builds = object!("call");
    const WAYS: &'static [Way] = &[Way::Tracepoint];

    fn setup(&self) -> &Setup {
        &self.setup
    }

    /// How the fixed part is attached. The ways to attach functions are chosen elsewhere.
    fn attach(&self) -> Attach {
        Attach::Auto
    }

    fn hooks(&self, _way: Way, _kernel: Kernel) -> Result<Vec<Hook>> {
        let mut hooks = vec![Hook::raw("fl_rename", "task_rename").missed_as(None)];
        hooks.extend(self.setup.filter.command.then(Hook::follow).into_iter().flatten());
        if !self.trigger_signals.is_empty() {
            hooks.push(Hook::raw("fl_signal", "signal_deliver"));
        }
        hooks.extend(Patterns::NAMES.map(|name| Hook::later(name).missed_as(None)));
        Ok(hooks)
    }

    fn configure(&self, _way: Way, _kernel: Kernel, object: &mut Opened) -> Result<()> {
        let functions = self.functions()?;
        let config = fl_config {
            places: u32::try_from(2 * self.most())?,
            trigger_signals: self.trigger_signals.iter().fold(0, |bits, signal| bits | 1 << ((signal - 1) & 63)),
            calls: self.calls,
            live: self.live.unwrap_or(0),
            kernel_stacks: u8::from(self.kernel_stacks.is_some()),
            ..fl_config::default()
        };
        object.configure("fl_config", &config)?;
        object.fill(".rodata.functions", &functions)?;
        let kept = self.calls as usize * size_of::<fl_call>();
        for table in ["fl_tasks", "fl_blank"] {
            let value = size_of::<fl_task>() + kept + fl_own_limit::FL_LIMIT_TEXT_BYTES.0 as usize;
            object.set_value_size(table, value)?;
        }
        Ok(())
    }

    fn tables(&self, _way: Way, _kernel: Kernel) -> Vec<(&'static str, usize)> {
        let processors = num_possible_cpus().unwrap_or(1).min(PROCESSORS_MAX);
        let mut tables = vec![("fl_tasks", self.tasks as usize + (processors + 1) * KEPT_BY_PROCESSOR)];
        let stacks = self.kernel_stacks.unwrap_or(1).min(fl_own_limit::FL_LIMIT_STACKS.0) as usize;
        tables.extend(read::STACK_TABLES.map(|table| (table, stacks)));
        tables
    }

    fn ring(&self) -> Option<Room> {
        self.has_samples().then_some(TRIGGERS)
    }

    fn sample(&self, bytes: &[u8]) -> Option<Sample> {
        Sample::from_bytes(bytes, self.calls)
    }
}
