//! The recorder of kernel calls: what `bpf/call.bpf.c` is told, and the hooks of its fixed part. Each function is attached by itself, in
//! the best way there is: `strategy.rs`.

mod attach;
mod plan;
mod read;
mod strategy;

use std::fmt;

use anyhow::Result;
use libbpf_rs::num_possible_cpus;

use super::Ring;
pub use super::abi::call::{Sample, Task};
use super::abi::call::{fl_call, fl_config, fl_own_limit, fl_task};
use super::engine::{Asked, Kernel, Probe, Room, Spec};
use super::hook::{Attach, Hook, Way};
use super::object::{Build, Builds, Opened, object};
use attach::Patterns;

pub use plan::{Function, Plan, Point};
pub use read::Counters;
pub use strategy::Attached;

/// Some hundred triggers with their calls, 16 as a rule.
const TRIGGERS: Room = Room { samples: 400, bytes: size_of::<fl_task>() + 16 * size_of::<fl_call>() };
/// Each processor keeps that many free entries of an LRU table to itself, and as many are thrown out at once when it has none
/// left: LOCAL_FREE_TARGET, kernel/bpf/bpf_lru_list.c.
const KEPT_BY_PROCESSOR: usize = 128;
/// No more room for those than for so many processors.
const PROCESSORS_MAX: usize = 16;

/// The attached recorder. Dropping it detaches every program.
pub struct Recorder {
    /// Detached before the rest goes.
    hooks: Vec<attach::Hook>,
    probe: Probe<Plan>,
    attached: Vec<Attached>,
}

impl Recorder {
    /// Loads the programs and attaches each function by itself. What became of each: in the order of the plan's. It is no
    /// error when some, or all, could not be attached.
    ///
    /// # Errors
    /// Missing privileges, a kernel without BTF, a verifier that refuses: one line with the cure where there is one.
    pub fn start(plan: &Plan) -> Result<(Self, Vec<Attached>)> {
        plan.check()?;
        strategy::make_room_for_links(plan.functions.len());
        let (probe, patterns) = Probe::start_with(plan, Patterns::of)?;
        let (attached, hooks) = strategy::attach_all(plan, &patterns);
        Ok((Self { hooks, probe, attached: attached.clone() }, attached))
    }

    /// What became of each function of the plan.
    pub fn attached(&self) -> &[Attached] {
        &self.attached
    }

    /// How the programs read kernel memory.
    pub fn build(&self) -> Build {
        self.probe.build()
    }

    /// The samples, each handed to `take`.
    ///
    /// # Errors
    /// Where the ring can't be mapped.
    pub fn ring<'take>(&self, take: impl FnMut(Sample) + 'take) -> Result<Ring<'take>> {
        self.probe.ring(take)
    }
}

impl fmt::Debug for Recorder {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Recorder")
            .field("build", &self.build())
            .field("attached", &self.attached)
            .finish_non_exhaustive()
    }
}

impl Spec for Plan {
    type Sample = Sample;
    type State = ();
    const OBJECT: Builds = object!("call");
    const WAYS: &'static [Way] = &[Way::Tracepoint];

    fn asked(&self) -> Asked<'_> {
        // How functions are attached is another question.
        Asked { filter: &self.filter, attach: Attach::Auto, btf: self.btf.as_deref(), verbose: self.verbose }
    }

    fn hooks(&self, _way: Way, _kernel: Kernel) -> Result<Vec<Hook>> {
        let mut hooks = vec![Hook::raw("fl_rename", "task_rename").missed_as(None)];
        hooks.extend(self.filter.command.then(Hook::follow).into_iter().flatten());
        if !self.trigger_signals.is_empty() {
            hooks.push(Hook::raw("fl_signal", "signal_deliver"));
        }
        hooks.extend(Patterns::NAMES.map(|name| Hook::later(name).missed_as(None)));
        Ok(hooks)
    }

    fn configure(&self, _way: Way, _kernel: Kernel, object: &mut Opened) -> Result<()> {
        let functions = self.functions()?;
        let config = fl_config {
            places: u32::try_from(functions.len())?,
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
