//! BPF programs that are loaded while we watch: `--follow-bpf`.

use std::collections::{BTreeMap, BTreeSet, HashSet};
use std::time::{Duration, Instant};

use anyhow::Result;

use super::Options;
use super::callers::{self, Caller};
use super::functions::Functions;
use super::plan::FunctionPlan;
use super::prepare::with_trigger;
use super::programs::{Programs, is_program};
use super::triggers::{self, TriggerReport};
use crate::probe::kernel_types;
use crate::probe::programs::{self, Holdings};

/// How often it is asked whether there are new programs: one system call if there are none.
pub(super) const EVERY: Duration = Duration::from_millis(100);
/// How long a callback may be loaded before it is registered. Until then nobody knows what it stands for.
const UNREGISTERED: Duration = Duration::from_secs(2);

/// Finds programs that come.
pub(super) struct Follower<'run> {
    options: &'run Options,
    names: Vec<String>,
    /// The newest program that was looked at.
    last: u32,
    /// Programs that are not planned yet, and since when they are known.
    waiting: BTreeMap<u32, Instant>,
    /// The names of the functions that there are.
    taken: HashSet<String>,
}

impl<'run> Follower<'run> {
    /// Programs that have come since those were planned that are there.
    pub(super) fn new(options: &'run Options, planned: &[FunctionPlan]) -> Self {
        let names = options.names().into_iter().filter(|name| is_program(name)).collect();
        let taken = planned.iter().map(|planned| planned.name.clone()).collect();
        let newest = planned.iter().filter_map(|planned| planned.program.as_ref()).map(|program| program.id).max();
        // Of all that have higher numbers none was there and meant.
        Self { options, names, last: newest.unwrap_or(0), waiting: BTreeMap::new(), taken }
    }

    /// The programs that are meant and have come since, planned, with the functions that call them. Refuses the triggers that can't be at them.
    ///
    /// # Errors
    /// The kernel's types, or the list of programs, can't be read any more.
    pub(super) fn look(&mut self, triggers: &mut [TriggerReport]) -> Result<(Vec<FunctionPlan>, Vec<Caller>)> {
        let (now, new) = (Instant::now(), programs::after(self.last)?);
        self.last = new.iter().copied().max().unwrap_or(self.last);
        self.waiting.extend(new.into_iter().map(|id| (id, now)));
        if self.waiting.is_empty() {
            return Ok((Vec::new(), Vec::new()));
        }
        // Each program that we see costs us two of our own.
        let own = Holdings::of(std::process::id())?.programs;
        self.waiting.retain(|id, _| !own.contains(id));
        if self.waiting.is_empty() {
            return Ok((Vec::new(), Vec::new()));
        }
        let btf = kernel_types(self.options.crash.common.btf.as_deref())?;
        let functions = Functions::new(&btf);
        let programs = Programs::read(&functions, &self.options.bpf_of)?;
        let is_settled =
            |id: u32, since: Instant| programs.is_known(id) || now.saturating_duration_since(since) >= UNREGISTERED;
        let settled: BTreeSet<u32> =
            self.waiting.iter().filter(|(id, since)| is_settled(**id, **since)).map(|(id, _)| *id).collect();
        self.waiting.retain(|id, _| !settled.contains(id));
        let (mut planned, _) = programs.only(&settled).plan(&self.names, &self.taken);
        let callers = if self.options.callers { callers::of_programs(&planned, &functions) } else { Vec::new() };
        let new = callers::plan(&callers, &planned, &functions);
        planned.extend(new.into_iter().filter(|planned| !self.taken.contains(&planned.name)));
        self.taken.extend(planned.iter().map(|planned| planned.name.clone()));
        triggers::check_conditions(triggers, &planned);
        Ok((planned.into_iter().map(|planned| with_trigger(planned, triggers)).collect(), callers))
    }
}
