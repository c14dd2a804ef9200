//! The recorder at work: its fixed part attached by the engine, and each function by itself.

use std::fmt;
use std::time::{Duration, Instant};

use anyhow::Result;

use super::attach::{FunctionHook, Patterns};
use super::strategy::{self, Attached};
use super::{Plan, Sample};
use crate::probe::engine::Probe;
use crate::probe::{Build, Ring};

/// How long it may take to detach before that is worth a word. The kernel waits for all tasks, for each function: 66 hooks took 6.5 s.
const UNSAID: Duration = Duration::from_millis(500);

/// The attached recorder. Dropping it detaches every program.
pub struct Recorder {
    /// Detached before the rest goes.
    pub(super) hooks: Vec<FunctionHook>,
    pub(super) probe: Probe<Plan>,
    attached: Vec<Attached>,
}

impl Recorder {
    /// Loads the programs and attaches each function by itself. The results are in the order of the plan. It is no error if some
    /// functions, or all, could not be attached.
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

    /// Detaches from the functions one by one, as a drop does. If that takes the kernel long, `waiting` gets the number of hooks that are left and
    /// that of all.
    pub fn detach(&mut self, waiting: impl FnOnce(usize, usize)) {
        let (begun, all) = (Instant::now(), self.hooks.len());
        let mut waiting = Some(waiting);
        while self.hooks.pop().is_some() {
            if begun.elapsed() > UNSAID
                && !self.hooks.is_empty()
                && let Some(waiting) = waiting.take()
            {
                waiting(self.hooks.len(), all);
            }
        }
    }

    /// The result for each function of the plan.
    pub fn attached(&self) -> &[Attached] {
        &self.attached
    }

    /// How the programs read kernel memory.
    pub fn build(&self) -> Build {
        self.probe.build()
    }

    /// The samples.
    pub fn ring(&self) -> Result<Ring<Sample>> {
        self.probe.ring()
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
