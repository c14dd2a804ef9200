//! Turns the functions that were asked for into the recorder's plan.

use std::collections::HashSet;

use anyhow::{Result, bail};

use super::decode::Decoder;
use super::functions::Functions;
use super::plan::{self, FunctionPlan};
use super::report::CallReport;
use super::select::{self, Catalogue, ChosenFunction, Missing, is_glob, kernels_name, select};
use super::symbols::{self, Sight};
use super::syscalls::{self, Parameter};
use super::{Options, TriggerOn};
use crate::host;
use crate::probe::abi::call::fl_own_limit;
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
        let catalogue = Catalogue::new(functions.names());
        let mut names = options.functions.clone();
        for trigger in &options.triggers {
            if let TriggerOn::Result { function, .. } = trigger
                && !names.contains(function)
            {
                names.push(function.clone());
            }
        }
        // The kernel's symbols are read only for names that its types don't have.
        let unknown = names.iter().filter(|name| !is_glob(name)).map(String::as_str);
        let unknown: HashSet<&str> = unknown.filter(|name| !catalogue.knows(name)).collect();
        let known_symbols = if unknown.is_empty() { HashSet::new() } else { symbols::functions(&unknown) };
        let selection = select(&names, &options.presets, &catalogue, |name| known_symbols.contains(name));
        let most = fl_own_limit::FL_LIMIT_FUNCTIONS.0 as usize;
        if selection.chosen.len() > most {
            bail!(
                "failed to watch {} functions: {most} at most, name fewer or a narrower glob",
                selection.chosen.len()
            );
        }
        // Without its function the run could wait for ever.
        let is_awaited = |missing: &&Missing| options.triggers.iter().any(|trigger| trigger.is_of(&missing.name));
        let missing_triggers: Vec<&Missing> = selection.missing.iter().filter(is_awaited).collect();
        if !missing_triggers.is_empty() {
            bail!("failed to find the function of --trigger {}", missing_words(&missing_triggers));
        }
        if selection.chosen.is_empty() {
            bail!("failed to find {}", missing_words(&selection.missing.iter().collect::<Vec<_>>()));
        }
        let formats = SyscallFormats::open();
        let planned: Vec<FunctionPlan> =
            selection.chosen.iter().map(|chosen| plan::plan(chosen, &functions, formats.of(chosen))).collect();
        let sight = (options.kernel_stacks || !unknown.is_empty()).then(Sight::read);
        let lacks_names = sight.as_ref().filter(|_| !selection.missing.is_empty()).and_then(Sight::missing_names);
        let lacks_addresses = sight.as_ref().filter(|_| options.kernel_stacks).and_then(Sight::missing_addresses);
        let presets = options.presets.iter().map(|preset| format!("preset {}", preset.word()));
        Ok(Self {
            plan: recorder_plan(options, &planned),
            requested: names.iter().cloned().chain(presets).collect(),
            planned,
            missing: selection.missing,
            symbols: lacks_names.or(lacks_addresses),
        })
    }

    /// Reports what became of each function that was asked for.
    pub(super) fn report(&self, attached: &[Attached]) -> CallReport {
        let report =
            CallReport::new(&host::name(), self.requested.clone(), &self.planned, attached, self.missing.clone());
        CallReport { symbols: self.symbols.clone(), ..report }
    }

    /// The decoder of these functions' calls.
    pub(super) fn decoder(&self, attached: &[Attached]) -> Decoder {
        Decoder::new(&self.planned, attached)
    }
}

fn missing_words(missing: &[&Missing]) -> String {
    let words: Vec<String> = missing
        .iter()
        .map(|missing| match missing.near[..] {
            [] => format!("`{}`: no function or system call of this kernel is called so", missing.name),
            _ => format!("`{}`: did you mean {}?", missing.name, missing.near.join(" or ")),
        })
        .collect();
    words.join("; ")
}

fn recorder_plan(options: &Options, planned: &[FunctionPlan]) -> Plan {
    let trigger_of = |name: &str| {
        options.triggers.iter().find_map(|trigger| match trigger {
            TriggerOn::Result { function, result } if select::is_same(function, name) => Some(*result),
            _ => None,
        })
    };
    let functions = planned.iter().map(|planned| Function {
        kernel: planned.kernel.as_ref().map(|side| side.point.clone()),
        syscall: planned.syscall.as_ref().map(|side| side.point.clone()),
        trigger: trigger_of(&planned.name),
    });
    let signals = options.triggers.iter().filter_map(|trigger| match trigger {
        TriggerOn::Signal(signal) => Some(*signal),
        TriggerOn::Result { .. } => None,
    });
    Plan {
        setup: options.crash.common.setup(options.attach),
        functions: functions.collect(),
        calls: options.calls,
        tasks: options.tasks,
        kernel_stacks: options.kernel_stacks.then_some(fl_own_limit::FL_LIMIT_STACKS.0),
        live: options.live,
        trigger_signals: signals.collect(),
    }
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
