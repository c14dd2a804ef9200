//! Turns the functions that were asked for into the recorder's plan.

use std::collections::HashSet;

use anyhow::{Result, anyhow, bail};

use super::callers::{self, Caller};
use super::decode::Decoder;
use super::events::{self, is_event};
use super::functions::Functions;
use super::plan::{self, FunctionPlan};
use super::programs::{Programs, is_program};
use super::report::CallReport;
use super::select::{Catalogue, ChosenFunction, Missing, is_glob, kernels_name, select};
use super::symbols::{self, Sight};
use super::syscalls::{self, Parameter};
use super::trigger::{Condition, TriggerOn};
use super::triggers::{self, TriggerReport};
use super::{NO_FUNCTION, Options};
use crate::host;
use crate::probe::abi::call::{fl_condition, fl_own_limit};
use crate::probe::call::{Attached, Function, Plan};
use crate::probe::{Tracefs, kernel_types};

/// The recorder's plan, and what the report says about it.
pub(super) struct Preparation {
    /// The recorder's plan.
    pub plan: Plan,
    /// The functions that were found.
    pub planned: Vec<FunctionPlan>,
    /// The triggers.
    pub triggers: Vec<TriggerReport>,
    requested: Vec<String>,
    missing: Vec<Missing>,
    callers: Vec<Caller>,
    symbols: Option<String>,
}

impl Preparation {
    /// Reads the kernel's types and finds the functions among them.
    pub(super) fn new(options: &Options) -> Result<Self> {
        let btf = kernel_types(options.crash.common.btf.as_deref())?;
        let functions = Functions::new(&btf);
        let mut triggers = triggers::asked_for(&options.triggers, &functions);
        let names = names(options, &triggers);
        let found = Found::new(options, &names, &functions)?;
        found.refuse(&mut triggers);
        let formats = SyscallFormats::open();
        let chosen = found.chosen.iter().map(|chosen| plan::plan(chosen, &functions, formats.of(chosen)));
        let mut planned: Vec<FunctionPlan> = chosen.chain(found.others).collect();
        let callers = if options.callers { callers::of_programs(&planned, &functions) } else { Vec::new() };
        planned.extend(callers::plan(&callers, &planned, &functions));
        triggers::check_conditions(&mut triggers, &planned);
        triggers::check_any(&triggers)?;
        check_count(&planned, &found.missing, options)?;
        let planned: Vec<FunctionPlan> = planned.into_iter().map(|planned| with_trigger(planned, &triggers)).collect();
        let sight = (options.kernel_stacks || found.needs_symbols).then(Sight::read);
        let lacks_names = sight.as_ref().filter(|_| !found.missing.is_empty()).and_then(Sight::missing_names);
        let lacks_addresses = sight.as_ref().filter(|_| options.kernel_stacks).and_then(Sight::missing_addresses);
        let presets = options.presets.iter().map(|preset| format!("preset {}", preset.word()));
        Ok(Self {
            plan: recorder_plan(options, &planned, &triggers)?,
            requested: names.into_iter().chain(presets).collect(),
            planned,
            triggers,
            missing: found.missing,
            callers,
            symbols: lacks_names.or(lacks_addresses),
        })
    }

    /// Reports what became of each function that was asked for.
    pub(super) fn report(&self, attached: &[Attached]) -> CallReport {
        let report =
            CallReport::new(&host::name(), self.requested.clone(), &self.planned, attached, self.missing.clone());
        report.with(self.symbols.clone(), &self.callers, &self.triggers)
    }

    /// The decoder of these functions' calls.
    pub(super) fn decoder(&self, attached: &[Attached]) -> Decoder {
        Decoder::new(&self.planned, attached)
    }
}

/// The names that were asked for, those of triggers among them.
fn names(options: &Options, triggers: &[TriggerReport]) -> Vec<String> {
    let mut names = options.names();
    for function in triggers.iter().filter(|trigger| trigger.may_fire()).filter_map(|trigger| trigger.on.function()) {
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
        Ok(Self { chosen: selection.chosen, others, missing, needs_symbols: !unknown.is_empty(), follows })
    }

    /// Refuses the triggers whose functions are missing, and can't come.
    fn refuse(&self, triggers: &mut [TriggerReport]) {
        for trigger in triggers.iter_mut().filter(|trigger| trigger.may_fire()) {
            let is_its = |missing: &&Missing| trigger.on.function().as_ref() == Some(&missing.name);
            let missing = self.missing.iter().find(is_its);
            if let Some(missing) = missing.filter(|missing| !may_come(missing, self.follows)) {
                trigger.refuse(why_missing(missing), true);
            }
        }
    }
}

/// A program may be loaded later.
fn may_come(missing: &Missing, follows: bool) -> bool {
    follows && is_program(&missing.name)
}

/// Refuses what can't be watched at all.
fn check_count(planned: &[FunctionPlan], missing: &[Missing], options: &Options) -> Result<()> {
    let (count, most) = (planned.len(), fl_own_limit::FL_LIMIT_FUNCTIONS.0 as usize);
    if count > most {
        bail!("failed to watch {count} functions: {most} at most, name fewer or a narrower glob");
    }
    if count == 0 && missing.is_empty() {
        bail!(NO_FUNCTION);
    }
    if count == 0 && !missing.iter().any(|missing| may_come(missing, options.follow_bpf)) {
        bail!("failed to find {}", missing_words(&missing.iter().collect::<Vec<_>>()));
    }
    Ok(())
}

fn missing_words(missing: &[&Missing]) -> String {
    let words: Vec<String> =
        missing.iter().map(|missing| format!("`{}`: {}", missing.name, why_missing(missing))).collect();
    words.join("; ")
}

fn why_missing(missing: &Missing) -> String {
    match missing.near[..] {
        [] if is_program(&missing.name) => "no BPF program that is loaded is called so".to_owned(),
        [] if is_event(&missing.name) => "no tracepoint of this kernel is called so".to_owned(),
        [] => "no function or system call of this kernel is called so".to_owned(),
        _ => format!("did you mean {}?", missing.near.join(" or ")),
    }
}

/// If the beginning of a function is a trigger: which one, and its condition.
fn at_begin<'on>(triggers: &'on [TriggerReport], name: &str) -> Option<(&'on TriggerReport, Option<Condition>)> {
    let mut may_fire = triggers.iter().filter(|trigger| trigger.may_fire());
    may_fire.find_map(|trigger| Some((trigger, trigger.on.begins(name)?)))
}

/// Notes the trigger that the beginning of a function is.
pub(super) fn with_trigger(planned: FunctionPlan, triggers: &[TriggerReport]) -> FunctionPlan {
    let condition = at_begin(triggers, &planned.name).map(|(_, condition)| condition);
    let trigger = condition.map(|condition| TriggerOn::words(&planned.name, condition.as_ref()));
    FunctionPlan { trigger, ..planned }
}

/// A function as the recorder takes it.
pub(super) fn function(planned: &FunctionPlan, triggers: &[TriggerReport]) -> Result<Function> {
    let may_fire = triggers.iter().filter(|trigger| trigger.may_fire());
    let result = may_fire.map(|trigger| &trigger.on).find_map(|on| match on {
        TriggerOn::Result { result, .. } if on.is_at(&planned.name) => Some(*result),
        _ => None,
    });
    let begin = at_begin(triggers, &planned.name).map(|(trigger, condition)| {
        let met = condition.map_or_else(|| Ok(fl_condition::default()), |condition| condition.at(planned));
        met.map_err(|why| anyhow!("failed to set --trigger {}: {why}", trigger.trigger))
    });
    Ok(Function {
        kernel: planned.kernel.as_ref().map(|side| side.point.clone()),
        syscall: planned.syscall.as_ref().map(|side| side.point.clone()),
        trigger: result,
        begin: begin.transpose()?,
    })
}

fn recorder_plan(options: &Options, planned: &[FunctionPlan], triggers: &[TriggerReport]) -> Result<Plan> {
    let signals = options.triggers.iter().filter_map(|trigger| match trigger {
        TriggerOn::Signal(signal) => Some(*signal),
        _ => None,
    });
    Ok(Plan {
        setup: options.crash.common.setup(options.attach),
        functions: planned.iter().map(|planned| function(planned, triggers)).collect::<Result<_>>()?,
        grows: options.follow_bpf,
        calls: options.calls,
        tasks: options.tasks,
        kernel_stacks: options.kernel_stacks.then_some(fl_own_limit::FL_LIMIT_STACKS.0),
        live: options.live,
        trigger_signals: signals.collect(),
    })
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
