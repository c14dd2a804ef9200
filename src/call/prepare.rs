//! Turns the functions that were asked for into the recorder's plan.

use std::collections::HashSet;

use anyhow::{Result, anyhow, bail};

use super::decode::Decoder;
use super::events::{self, is_event};
use super::functions::Functions;
use super::plan::{self, FunctionPlan};
use super::programs::{Programs, is_program};
use super::report::CallReport;
use super::select::{self, Catalogue, ChosenFunction, Missing, is_glob, kernels_name, select};
use super::symbols::{self, Sight};
use super::syscalls::{self, Parameter};
use super::trigger::Condition;
use super::{Options, TriggerOn};
use crate::host;
use crate::probe::abi::call::{fl_condition, fl_own_limit};
use crate::probe::call::{Attached, Function, Plan};
use crate::probe::{Tracefs, kernel_types};

/// The recorder's plan, and what the report says about it.
pub(super) struct Preparation {
    /// The recorder's plan.
    pub plan: Plan,
    planned: Vec<FunctionPlan>,
    requested: Vec<String>,
    missing: Vec<Missing>,
    symbols: Option<String>,
}

impl Preparation {
    /// Reads the kernel's types and finds the functions among them.
    pub(super) fn new(options: &Options) -> Result<Self> {
        let btf = kernel_types(options.crash.common.btf.as_deref())?;
        let functions = Functions::new(&btf);
        let names = names(options);
        let found = Found::new(options, &names, &functions)?;
        let formats = SyscallFormats::open();
        let planned = found.chosen.iter().map(|chosen| plan::plan(chosen, &functions, formats.of(chosen)));
        let planned: Vec<FunctionPlan> = planned.chain(found.others).collect();
        let planned = planned.into_iter().map(|planned| with_trigger(planned, &options.triggers)).collect::<Vec<_>>();
        let recorder = recorder_plan(options, &planned)?;
        let sight = (options.kernel_stacks || found.needs_symbols).then(Sight::read);
        let lacks_names = sight.as_ref().filter(|_| !found.missing.is_empty()).and_then(Sight::missing_names);
        let lacks_addresses = sight.as_ref().filter(|_| options.kernel_stacks).and_then(Sight::missing_addresses);
        let presets = options.presets.iter().map(|preset| format!("preset {}", preset.word()));
        Ok(Self {
            plan: recorder,
            requested: names.into_iter().chain(presets).collect(),
            planned,
            missing: found.missing,
            symbols: lacks_names.or(lacks_addresses),
        })
    }

    /// Reports what became of each function that was asked for.
    pub(super) fn report(&self, attached: &[Attached]) -> CallReport {
        let report =
            CallReport::new(&host::name(), self.requested.clone(), &self.planned, attached, self.missing.clone());
        CallReport { symbols: self.symbols.clone(), ..report }
    }

    /// The functions that were found.
    pub(super) fn planned(&self) -> &[FunctionPlan] {
        &self.planned
    }

    /// The decoder of these functions' calls.
    pub(super) fn decoder(&self, attached: &[Attached]) -> Decoder {
        Decoder::new(&self.planned, attached)
    }
}

/// The names that were asked for, those of triggers among them.
fn names(options: &Options) -> Vec<String> {
    let mut names = options.names();
    for function in options.triggers.iter().filter_map(|trigger| trigger.function()) {
        if !names.contains(&function) {
            names.push(function);
        }
    }
    names
}

/// What the names stand for.
struct Found {
    chosen: Vec<ChosenFunction>,
    /// BPF programs and tracepoints.
    others: Vec<FunctionPlan>,
    missing: Vec<Missing>,
    /// There is a name that only the kernel's symbols may have.
    needs_symbols: bool,
    follows: bool,
}

impl Found {
    fn new(options: &Options, names: &[String], functions: &Functions<'_>) -> Result<Self> {
        let catalogue = Catalogue::new(functions.names());
        let (of_programs, names): (Vec<String>, Vec<String>) = names.iter().cloned().partition(|name| is_program(name));
        let (of_events, names): (Vec<String>, Vec<String>) = names.into_iter().partition(|name| is_event(name));
        // The kernel's symbols are read only for names that its types don't have.
        let unknown = names.iter().filter(|name| !is_glob(name)).map(String::as_str);
        let unknown: HashSet<&str> = unknown.filter(|name| !catalogue.knows(name)).collect();
        let known_symbols = if unknown.is_empty() { HashSet::new() } else { symbols::functions(&unknown) };
        let selection = select(&names, &options.presets, &catalogue, |name| known_symbols.contains(name));
        let (mut others, mut missing) = events::plan(&of_events, functions);
        if !of_programs.is_empty() {
            let (programs, no_programs) =
                Programs::read(functions, &options.bpf_of)?.plan(&of_programs, &HashSet::new());
            others.extend(programs);
            missing.extend(no_programs);
        }
        let missing = selection.missing.into_iter().chain(missing).collect();
        let follows = options.follow_bpf;
        let found = Self { chosen: selection.chosen, others, missing, needs_symbols: !unknown.is_empty(), follows };
        let awaited: Vec<String> = options.triggers.iter().filter_map(|trigger| trigger.function()).collect();
        found.check(&awaited)?;
        Ok(found)
    }

    /// A program may be loaded later.
    fn may_come(&self, missing: &Missing) -> bool {
        self.follows && is_program(&missing.name)
    }

    /// Refuses what can't be watched at all.
    fn check(&self, awaited: &[String]) -> Result<()> {
        let (count, most) = (self.chosen.len() + self.others.len(), fl_own_limit::FL_LIMIT_FUNCTIONS.0 as usize);
        if count > most {
            bail!("failed to watch {count} functions: {most} at most, name fewer or a narrower glob");
        }
        // Without its function the run could wait for ever.
        let is_awaited = |missing: &&Missing| awaited.contains(&missing.name) && !self.may_come(missing);
        let missing_triggers: Vec<&Missing> = self.missing.iter().filter(is_awaited).collect();
        if !missing_triggers.is_empty() {
            bail!("failed to find the function of --trigger {}", missing_words(&missing_triggers));
        }
        if count == 0 && !self.missing.iter().any(|missing| self.may_come(missing)) {
            bail!("failed to find {}", missing_words(&self.missing.iter().collect::<Vec<_>>()));
        }
        Ok(())
    }
}

fn missing_words(missing: &[&Missing]) -> String {
    let words: Vec<String> = missing
        .iter()
        .map(|missing| match missing.near[..] {
            [] if is_program(&missing.name) => {
                format!("`{}`: no BPF program that is loaded is called so", missing.name)
            }
            [] if is_event(&missing.name) => format!("`{}`: no tracepoint of this kernel is called so", missing.name),
            [] => format!("`{}`: no function or system call of this kernel is called so", missing.name),
            _ => format!("`{}`: did you mean {}?", missing.name, missing.near.join(" or ")),
        })
        .collect();
    words.join("; ")
}

/// Notes the trigger that the beginning of a function is.
pub(super) fn with_trigger(planned: FunctionPlan, triggers: &[TriggerOn]) -> FunctionPlan {
    let condition = triggers.iter().find_map(|trigger| trigger.begins(&planned.name));
    let trigger = condition.map(|condition| TriggerOn::words(&planned.name, condition.as_ref()));
    FunctionPlan { trigger, ..planned }
}

/// A function as the recorder takes it.
pub(super) fn function(options: &Options, planned: &FunctionPlan) -> Result<Function> {
    let result = options.triggers.iter().find_map(|trigger| match trigger {
        TriggerOn::Result { function, result } if select::is_same(function, &planned.name) => Some(*result),
        _ => None,
    });
    let condition = options.triggers.iter().find_map(|trigger| trigger.begins(&planned.name));
    Ok(Function {
        kernel: planned.kernel.as_ref().map(|side| side.point.clone()),
        syscall: planned.syscall.as_ref().map(|side| side.point.clone()),
        trigger: result,
        begin: condition.map(|condition| begin(planned, condition.as_ref())).transpose()?,
    })
}

fn recorder_plan(options: &Options, planned: &[FunctionPlan]) -> Result<Plan> {
    let signals = options.triggers.iter().filter_map(|trigger| match trigger {
        TriggerOn::Signal(signal) => Some(*signal),
        _ => None,
    });
    Ok(Plan {
        setup: options.crash.common.setup(options.attach),
        functions: planned.iter().map(|planned| function(options, planned)).collect::<Result<_>>()?,
        grows: options.follow_bpf,
        calls: options.calls,
        tasks: options.tasks,
        kernel_stacks: options.kernel_stacks.then_some(fl_own_limit::FL_LIMIT_STACKS.0),
        live: options.live,
        trigger_signals: signals.collect(),
    })
}

/// The condition under which the beginning of a function is a trigger. Both sides of a system call have the same values.
fn begin(planned: &FunctionPlan, condition: Option<&Condition>) -> Result<fl_condition> {
    let Some(condition) = condition else { return Ok(fl_condition::default()) };
    let side = planned.syscall.as_ref().or(planned.kernel.as_ref());
    let found = side.ok_or_else(|| "its arguments are not known".to_owned()).and_then(|side| condition.on(side));
    found.map_err(|why| anyhow!("failed to set --trigger {}: {why}", TriggerOn::words(&planned.name, Some(condition))))
}

/// The parameters of system calls, as the kernel's tracepoints describe them.
struct SyscallFormats(Option<Tracefs>);

impl SyscallFormats {
    /// If we may not read the tracepoints, the parameters of the usual calls are known all the same.
    fn open() -> Self {
        Self(Tracefs::open().ok())
    }

    fn of(&self, chosen: &ChosenFunction) -> Option<Vec<Parameter>> {
        if !chosen.is_syscall {
            return None;
        }
        let format = self.0.as_ref()?.format(&format!("sys_enter_{}", kernels_name(&chosen.name))).ok()??;
        Some(syscalls::from_format(&format))
    }
}
