//! What became of each trigger: whether it can fire, and how often it has.

use anyhow::{Result, bail};
use serde::Serialize;

use super::decode;
use super::functions::Functions;
use super::plan::FunctionPlan;
use super::report::FunctionReport;
use super::trigger::TriggerOn;
use crate::errno;
use crate::probe::abi::call::{fl_event, fl_trigger_kind};
use crate::siginfo::signal_name;

/// A trigger of the report. Fields as in docs/output.md.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub(crate) struct TriggerReport {
    /// As its records call it.
    pub trigger: String,
    /// `attached`; `awaited`: the BPF program that it is at is not loaded yet; `not_attached`: it can't fire.
    pub state: &'static str,
    /// How often it has.
    pub fired: u64,
    /// Why it can't fire; at the end, why it never has.
    pub why: Option<String>,
    /// What it waits for; of `scheduler_error` the function that this kernel has.
    #[serde(skip)]
    pub on: TriggerOn,
    /// There is no such function.
    #[serde(skip)]
    pub is_missing: bool,
}

impl TriggerReport {
    fn new(on: &TriggerOn, functions: &Functions<'_>) -> Self {
        let (on, why) = match on.resolved(functions) {
            Ok(resolved) => (resolved, None),
            Err(why) => (on.clone(), Some(why)),
        };
        let (state, is_missing) = if why.is_some() { ("not_attached", true) } else { ("awaited", false) };
        Self { trigger: name_of(&on), state, fired: 0, why, on, is_missing }
    }

    /// It can't fire, and why.
    pub(super) fn refuse(&mut self, why: String, is_missing: bool) {
        (self.state, self.why, self.is_missing) = ("not_attached", Some(why), is_missing);
    }

    /// May it fire, as far as is known?
    pub(super) fn may_fire(&self) -> bool {
        self.state != "not_attached"
    }

    /// Its function was attached, or could not be.
    fn attach(&mut self, function: &FunctionReport) {
        self.trigger = words_at(&self.on, &function.function);
        match function.attach {
            Some(_) => self.state = "attached",
            None => self.refuse(function.why(), false),
        }
    }

    /// The same at the end. `lost`: triggers of which there was no record.
    pub(super) fn at_end(mut self, lost: u64) -> Self {
        if self.fired == 0 && self.why.is_none() {
            let why = match (self.state, lost) {
                ("awaited", _) => "no such BPF program was loaded",
                (_, 0) => "it never happened",
                _ => "there is no record of it, and records of triggers were lost",
            };
            self.why = Some(why.to_owned());
        }
        self
    }

    /// `mmap=-ENOMEM: fired 3 times`
    pub(super) fn line(&self) -> String {
        let text = match (self.fired, &self.why) {
            (0, Some(why)) if !self.may_fire() => format!("can't fire ({why})"),
            (0, Some(why)) => why.clone(),
            (1, _) => "fired once".to_owned(),
            (count, _) => format!("fired {count} times"),
        };
        format!("trigger {}: {text}", self.trigger)
    }
}

/// What there is to say about a trigger before its function is known.
fn name_of(on: &TriggerOn) -> String {
    match on {
        TriggerOn::Signal(number) => signal_name(*number),
        TriggerOn::Result { function, result } => result_words(function, *result),
        TriggerOn::Begin { function, condition } => TriggerOn::words(function, condition.as_ref()),
        TriggerOn::SchedulerError => "scheduler_error".to_owned(),
    }
}

/// The same by the function's own name: `munmap` for `sys_munmap`.
fn words_at(on: &TriggerOn, function: &str) -> String {
    match on {
        TriggerOn::Result { result, .. } => result_words(function, *result),
        TriggerOn::Begin { condition, .. } => TriggerOn::words(function, condition.as_ref()),
        _ => name_of(on),
    }
}

/// `mmap=-ENOMEM`
pub(super) fn result_words(name: &str, result: i64) -> String {
    let error = errno::is_error(result).then(|| decode::error_name(result)).flatten();
    error.map_or_else(|| format!("{name}={result}"), |error| format!("{name}=-{error}"))
}

/// Those that were asked for.
pub(super) fn asked_for(triggers: &[TriggerOn], functions: &Functions<'_>) -> Vec<TriggerReport> {
    let mut all: Vec<TriggerReport> = Vec::new();
    for on in triggers {
        let mut trigger = TriggerReport::new(on, functions);
        // The kernel program has one condition for the beginning of a function's calls, and one result.
        let has_place = |other: &TriggerReport| match (&other.on, &trigger.on) {
            (TriggerOn::Begin { function, .. }, TriggerOn::Begin { function: own, .. })
            | (TriggerOn::Result { function, .. }, TriggerOn::Result { function: own, .. }) => function == own,
            (other, own) => other == own,
        };
        if let Some(other) = all.iter().find(|other| has_place(other)) {
            let why = format!("there is --trigger {} already", other.trigger);
            trigger.refuse(why, false);
        }
        all.push(trigger);
    }
    all
}

/// Refuses those whose conditions can't hold at these functions.
pub(super) fn check_conditions(triggers: &mut [TriggerReport], planned: &[FunctionPlan]) {
    for trigger in triggers.iter_mut().filter(|trigger| trigger.may_fire()) {
        let at =
            |planned: &FunctionPlan| trigger.on.begins(&planned.name)?.map(|condition| condition.at(planned).err());
        if let Some(why) = planned.iter().find_map(at).flatten() {
            trigger.refuse(why, false);
        }
    }
}

/// If there are triggers, and none of them can fire, the run could wait for ever.
///
/// # Errors
/// That is so: what is wrong with them.
pub(super) fn check_any(triggers: &[TriggerReport]) -> Result<()> {
    if triggers.is_empty() || triggers.iter().any(TriggerReport::may_fire) {
        return Ok(());
    }
    let why = |trigger: &TriggerReport| trigger.why.clone().unwrap_or_default();
    let name = |trigger: &TriggerReport| trigger.on.function().unwrap_or_else(|| trigger.trigger.clone());
    let missing = triggers.iter().filter(|trigger| trigger.is_missing);
    let missing: Vec<String> = missing.map(|trigger| format!("`{}`: {}", name(trigger), why(trigger))).collect();
    if !missing.is_empty() {
        bail!("failed to find the function of --trigger {}", missing.join("; "));
    }
    let all: Vec<String> = triggers.iter().map(|trigger| format!("{}: {}", trigger.trigger, why(trigger))).collect();
    bail!("failed to set --trigger {}", all.join("; "));
}

/// Notes which functions were attached. A signal needs none.
pub(super) fn attach(triggers: &mut [TriggerReport], functions: &[FunctionReport]) {
    for trigger in triggers.iter_mut().filter(|trigger| trigger.state == "awaited") {
        match functions.iter().find(|function| trigger.on.is_at(&function.function)) {
            Some(function) => trigger.attach(function),
            None if matches!(trigger.on, TriggerOn::Signal(_)) => trigger.state = "attached",
            None => {}
        }
    }
}

/// Counts an event. `function`: the name of the one that it is about.
pub(super) fn count(triggers: &mut [TriggerReport], event: &fl_event, function: &str) {
    let is_it = |trigger: &&mut TriggerReport| match (&trigger.on, event.trigger) {
        (TriggerOn::Signal(number), fl_trigger_kind::FL_TRIGGER_SIGNAL) => *number == event.signal,
        (TriggerOn::Result { result, .. }, fl_trigger_kind::FL_TRIGGER_RESULT) => {
            *result == event.result && trigger.on.is_at(function)
        }
        (TriggerOn::Begin { .. }, fl_trigger_kind::FL_TRIGGER_BEGIN) => trigger.on.is_at(function),
        _ => false,
    };
    if let Some(trigger) = triggers.iter_mut().filter(|trigger| trigger.may_fire()).find(is_it) {
        trigger.fired += 1;
    }
}

#[cfg(test)]
mod tests {
    use libbpf_rs::btf::Btf;

    use super::*;
    use crate::call::report::function_reports;
    use crate::probe::Way;
    use crate::probe::call::Attached;

    /// Of this kernel's functions.
    fn triggers(texts: &[&str]) -> Vec<TriggerReport> {
        let parsed: Vec<TriggerOn> = texts.iter().map(|text| TriggerOn::parse(text).unwrap()).collect();
        let btf = Btf::from_vmlinux().unwrap();
        asked_for(&parsed, &Functions::new(&btf))
    }

    fn became(names: &[&str], attached: &[Attached]) -> Vec<FunctionReport> {
        let planned = |name: &&str| FunctionPlan { name: (*name).to_owned(), ..FunctionPlan::default() };
        function_reports(&names.iter().map(planned).collect::<Vec<_>>(), attached, None)
    }

    fn event(trigger: fl_trigger_kind) -> fl_event {
        fl_event { trigger, signal: 10, result: -12, ..fl_event::default() }
    }

    const WELL: Attached = Attached { how: Some(Way::Fentry), failures: Vec::new(), is_loadable: true };

    #[test]
    fn each_trigger_is_counted_for_itself() {
        let mut all = triggers(&["USR1", "mmap=-ENOMEM", "sys_munmap:len>4096", "USR2"]);
        attach(&mut all, &became(&["mmap", "munmap"], &[WELL, WELL]));
        assert!(all.iter().all(|trigger| trigger.state == "attached"), "{all:?}");
        count(&mut all, &event(fl_trigger_kind::FL_TRIGGER_SIGNAL), "?");
        count(&mut all, &event(fl_trigger_kind::FL_TRIGGER_RESULT), "mmap");
        count(&mut all, &event(fl_trigger_kind::FL_TRIGGER_BEGIN), "munmap");
        count(&mut all, &event(fl_trigger_kind::FL_TRIGGER_BEGIN), "munmap");
        count(&mut all, &event(fl_trigger_kind::FL_TRIGGER_RESULT), "munmap");
        let lines: Vec<String> = all.iter().map(|trigger| trigger.clone().at_end(0).line()).collect();
        let expected = [
            "trigger SIGUSR1: fired once",
            "trigger mmap=-ENOMEM: fired once",
            "trigger munmap:len>4096: fired 2 times",
            "trigger SIGUSR2: it never happened",
        ];
        assert_eq!(lines, expected);
        assert!(all[3].clone().at_end(1).line().ends_with("records of triggers were lost"));
    }

    #[test]
    fn why_one_can_not_fire() {
        let mut all = triggers(&["mmap=-12", "bpf:x=1", "mmap=0", "munmap:len=1"]);
        assert_eq!(all[2].why.as_deref(), Some("there is --trigger mmap=-ENOMEM already"));
        let failed = Attached { failures: vec![(Way::Kprobe, "no".to_owned())], ..Attached::default() };
        attach(&mut all, &became(&["mmap", "munmap"], &[failed, WELL]));
        assert_eq!(all[0].line(), "trigger mmap=-ENOMEM: can't fire (kprobes: no)");
        assert_eq!((all[1].state, all[3].state), ("awaited", "attached"));
        assert_eq!(all[1].clone().at_end(0).line(), "trigger bpf:x=1: no such BPF program was loaded");
        attach(&mut all, &became(&["bpf:x"], &[WELL]));
        assert_eq!(all[1].state, "attached", "it has come");
        assert!(check_any(&all).is_ok());
        all.iter_mut().for_each(|trigger| trigger.refuse("no".to_owned(), false));
        assert!(
            check_any(&all)
                .unwrap_err()
                .to_string()
                .starts_with("failed to set --trigger mmap=-ENOMEM: no; bpf:x=1: no")
        );
        all[1].refuse("no".to_owned(), true);
        assert_eq!(check_any(&all).unwrap_err().to_string(), "failed to find the function of --trigger `bpf:x`: no");
        assert!(check_any(&[]).is_ok());
    }
}
