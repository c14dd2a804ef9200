//! The report: what became of each function that was asked for, and of the calls at every stage, so that it shows where any were lost.

use std::collections::BTreeMap;
use std::fmt::Write;

use serde::Serialize;

use super::callers::Caller;
use super::plan::FunctionPlan;
use super::programs::{ProgramFacts, is_named};
use super::select::Missing;
use super::stages::{CallStages, FunctionStages};
use super::triggers::{self, TriggerReport};
use crate::output::{Record, Timestamp, escape, list_losses};
use crate::probe::call::{Attached, Counters};
use crate::probe::{self as crash, LossOutput, Losses, Way, losses};
use crate::record::Head;
use crate::terminal::Style;

/// Names in one line of the text.
const NAMES_PER_LINE: usize = 8;
/// Lines of names of one way.
const LINES_MAX: usize = 4;

/// At the beginning and at the end of a run. Fields as in docs/output.md.
#[derive(Clone, Debug, Serialize)]
pub(crate) struct CallReport {
    /// Kind, time and host.
    #[serde(flatten)]
    pub head: Head,
    /// The run is over.
    #[serde(rename = "final")]
    pub is_final: bool,
    /// As it was typed: names, globs, `preset memory`.
    pub requested: Vec<String>,
    /// The functions that were found.
    pub functions: Vec<FunctionReport>,
    /// The names that were not found.
    pub not_found: Vec<Missing>,
    /// With `--callers`: the functions that call the callbacks among the programs.
    pub callers: Vec<Caller>,
    /// The triggers.
    pub triggers: Vec<TriggerReport>,
    /// How many functions survived each stage.
    pub function_stages: FunctionStages,
    /// How many calls survived each stage; `None` means that the run begins.
    pub call_stages: Option<CallStages>,
    /// The losses by reason, zeros included.
    pub losses: BTreeMap<&'static str, u64>,
    /// Symbols of the kernel that are needed and missing, and why; `None` means that nothing is missing.
    pub symbols: Option<String>,
}

/// One function and what became of it.
#[derive(Clone, Debug, Serialize)]
pub(crate) struct FunctionReport {
    /// Its name.
    pub function: String,
    /// A system call.
    pub is_syscall: bool,
    /// `attached`; `not_probeable`: the function exists, and can't be attached on this kernel.
    pub state: &'static str,
    /// The kernel takes a program for it.
    pub loadable: bool,
    /// The way in which it is seen.
    pub attach: Option<Way>,
    /// The ways that were tried before, or that failed.
    pub failures: Vec<WayFailure>,
    /// It is from a preset: the user did not name it.
    pub from_preset: bool,
    /// It is a BPF program: which one.
    pub program: Option<ProgramFacts>,
    /// When it was added; `None` means at the start.
    pub added: Option<Timestamp>,
}

impl FunctionReport {
    /// Why it is not watched.
    pub(super) fn why(&self) -> String {
        let why = |failure: &WayFailure| format!("{}: {}", words(failure.attach), failure.error);
        let whys: Vec<String> = self.failures.iter().map(why).collect();
        if whys.is_empty() { "it is no system call".to_owned() } else { whys.join("; ") }
    }
}

/// A way that failed.
#[derive(Clone, Debug, Serialize)]
pub(crate) struct WayFailure {
    /// The way.
    pub attach: Way,
    /// Why.
    pub error: String,
}

/// What became of these functions.
pub(super) fn function_reports(
    planned: &[FunctionPlan],
    attached: &[Attached],
    added: Option<Timestamp>,
) -> Vec<FunctionReport> {
    let report = |(planned, attached): (&FunctionPlan, &Attached)| FunctionReport {
        function: planned.name.clone(),
        is_syscall: planned.syscall.is_some(),
        state: if attached.how.is_some() { "attached" } else { "not_probeable" },
        loadable: attached.is_loadable,
        attach: attached.how,
        failures: attached
            .failures
            .iter()
            .map(|(attach, error)| WayFailure { attach: *attach, error: error.clone() })
            .collect(),
        from_preset: planned.from_preset,
        program: planned.program.clone(),
        added,
    };
    planned.iter().zip(attached).map(report).collect()
}

impl CallReport {
    /// Functions that have come since the begin, BPF programs: what became of them, in a line.
    pub(crate) fn add(&mut self, planned: &[FunctionPlan], attached: &[Attached], callers: Vec<Caller>) -> String {
        let added = function_reports(planned, attached, Some(Timestamp::now()));
        let words = added.iter().map(|function| match (function.attach, function.failures.first()) {
            (None, Some(failure)) => {
                format!("not probeable: {} ({})", escape(&function.function), escape(&failure.error))
            }
            _ => format!("watching {} as well", escape(&function.function)),
        });
        let words = words.collect::<Vec<_>>().join(", ");
        self.not_found.retain(|missing| !added.iter().any(|function| is_named(&missing.name, &function.function)));
        self.functions.extend(added);
        self.function_stages = FunctionStages::of(&self.requested, &self.functions);
        for caller in callers.into_iter().map(|caller| caller.after(&self.functions)) {
            if !self.callers.contains(&caller) {
                self.callers.push(caller);
            }
        }
        triggers::attach(&mut self.triggers, &self.functions);
        words
    }

    /// The same with what else there is to say.
    pub(crate) fn with(self, symbols: Option<String>, callers: &[Caller], triggers: &[TriggerReport]) -> Self {
        let callers = callers.iter().map(|caller| caller.clone().after(&self.functions)).collect();
        let mut triggers = triggers.to_vec();
        triggers::attach(&mut triggers, &self.functions);
        Self { symbols, callers, triggers, ..self }
    }

    /// At the begin of a run.
    pub(crate) fn new(
        host: &str,
        requested: Vec<String>,
        planned: &[FunctionPlan],
        attached: &[Attached],
        not_found: Vec<Missing>,
    ) -> Self {
        let functions = function_reports(planned, attached, None);
        let function_stages = FunctionStages::of(&requested, &functions);
        Self {
            head: Head::new("call_report", Timestamp::now(), host),
            is_final: false,
            requested,
            functions,
            not_found,
            callers: Vec::new(),
            triggers: Vec::new(),
            function_stages,
            call_stages: None,
            losses: Losses::none(&losses::CALL).field(LossOutput::Losses),
            symbols: None,
        }
    }

    /// The same at the end. `kept`: tasks that are still there; `crashes`: with a record, with calls, explained.
    pub(crate) fn at_end(&self, counters: &Counters, deaths: &crash::Counters, kept: u64, crashes: [u64; 3]) -> Self {
        let [reported, with_calls, explained] = crashes;
        let lost_triggers = counters.losses.get("trigger_ring_full");
        Self {
            head: Head { timestamp: Timestamp::now(), ..self.head.clone() },
            is_final: true,
            call_stages: Some(CallStages {
                filtered: counters.filtered,
                recorded: counters.calls,
                returned: counters.returns,
                tasks: counters.tasks,
                tasks_forgotten: counters.tasks.saturating_sub(kept),
                triggers: counters.triggers,
                live: counters.live,
                deaths: deaths.fatal + deaths.caught,
                crashes: reported,
                crashes_with_calls: with_calls,
                crashes_explained: explained,
            }),
            triggers: self.triggers.iter().map(|trigger| trigger.clone().at_end(lost_triggers)).collect(),
            // The losses of calls and triggers, and of the crashes that ask for them.
            losses: counters.losses.with_crashes(&deaths.losses).field(LossOutput::Losses),
            ..self.clone()
        }
    }

    /// Is something missing that was asked for by name?
    pub(crate) fn lacks_any(&self) -> bool {
        !self.not_found.is_empty()
            || self.triggers.iter().any(|trigger| !trigger.may_fire())
            || self.functions.iter().any(|function| function.attach.is_none() && !function.from_preset)
    }

    /// The functions that are watched, by the way in which they are.
    pub(crate) fn by_way(&self) -> Vec<(Way, Vec<&str>)> {
        let ways = [Way::Fentry, Way::KprobeMulti, Way::Kprobe, Way::Tracepoint, Way::TpBtf];
        let of = |way: Way| self.functions.iter().filter(move |function| function.attach == Some(way));
        ways.into_iter()
            .map(|way| (way, of(way).map(|function| function.function.as_str()).collect::<Vec<_>>()))
            .filter(|(_, names)| !names.is_empty())
            .collect()
    }
}

/// The first of many names.
fn few(names: &[&str]) -> String {
    let (shown, more) = names.split_at(names.len().min(NAMES_PER_LINE));
    let more = if more.is_empty() { String::new() } else { format!(" and {} more", more.len()) };
    shown.join(", ") + &more
}

/// A way in words.
pub(super) fn words(how: Way) -> &'static str {
    match how {
        Way::Fentry => "fentry and fexit",
        Way::KprobeMulti => "kprobe.multi",
        Way::Kprobe => "kprobes",
        Way::TpBtf => "tracepoints by their types",
        _ => "tracepoints of system calls",
    }
}

impl Record for CallReport {
    fn write_text(&self, to: &mut String, style: Style) -> std::fmt::Result {
        match &self.call_stages {
            None => self.write_functions(to),
            Some(_) => writeln!(to, "{}", self.end_line(!style.hides_zeros())),
        }
    }
}

impl CallReport {
    /// The line at the end of a run, with its losses: all, or those that aren't 0.
    pub(crate) fn end_line(&self, with_zeros: bool) -> String {
        let stages = self.call_stages.unwrap_or_default();
        let losses = match list_losses(&self.losses, with_zeros) {
            none if none.is_empty() => "nothing".to_owned(),
            list => list,
        };
        format!(
            "{} calls recorded of {} tasks ({} forgotten), {} returned, {} filtered out in the kernel; {} triggers, {} live; \
             {} deaths, {} reported, {} with calls, {} explained; lost: {losses}",
            stages.recorded,
            stages.tasks,
            stages.tasks_forgotten,
            stages.returned,
            stages.filtered,
            stages.triggers,
            stages.live,
            stages.deaths,
            stages.crashes,
            stages.crashes_with_calls,
            stages.crashes_explained
        )
    }

    fn write_functions(&self, to: &mut String) -> std::fmt::Result {
        let stages = &self.function_stages;
        writeln!(
            to,
            "functions: {} asked for, {} found, {} attached",
            stages.requested, stages.resolved, stages.attached
        )?;
        for (how, names) in self.by_way() {
            let (shown, more) = names.split_at(names.len().min(NAMES_PER_LINE * LINES_MAX));
            for (index, names) in shown.chunks(NAMES_PER_LINE).enumerate() {
                let way = if index == 0 { format!("by {}:", words(how)) } else { String::new() };
                writeln!(to, "  {way:<32} {}", names.join(", "))?;
            }
            if !more.is_empty() {
                writeln!(to, "  {:<32} and {} more", "", more.len())?;
            }
        }
        for missing in &self.not_found {
            write!(to, "  not found: {}", escape(&missing.name))?;
            match missing.near[..] {
                [] => writeln!(to)?,
                _ => writeln!(to, " (did you mean {}?)", missing.near.join(" or "))?,
            }
        }
        for (why, names) in self.refusals() {
            writeln!(to, "  not probeable: {} ({})", few(&names), escape(&why))?;
        }
        for caller in self.callers.iter().filter(|caller| caller.is_missing()) {
            writeln!(to, "  {}", caller.line())?;
        }
        for trigger in self.triggers.iter().filter(|trigger| !trigger.may_fire()) {
            writeln!(to, "  {}", escape(&trigger.line()))?;
        }
        if let Some(symbols) = &self.symbols {
            writeln!(to, "  {symbols}")?;
        }
        Ok(())
    }

    /// The functions that are not watched, by the reason why.
    fn refusals(&self) -> BTreeMap<String, Vec<&str>> {
        let mut refusals: BTreeMap<String, Vec<&str>> = BTreeMap::new();
        for function in self.functions.iter().filter(|function| function.attach.is_none()) {
            refusals.entry(function.why()).or_default().push(&function.function);
        }
        refusals
    }

    /// Why nothing at all is watched, in one line, with what would work.
    pub(crate) fn refusal(&self) -> String {
        let reasons = self.refusals().into_iter().map(|(why, names)| format!("{} ({})", few(&names), escape(&why)));
        let text = format!("failed to attach to {}", reasons.collect::<Vec<_>>().join("; "));
        if self.functions.iter().any(|function| function.is_syscall) {
            return text;
        }
        format!("{text}: name system calls, as munmap: they have tracepoints on every kernel")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn planned(name: &str, from_preset: bool) -> FunctionPlan {
        FunctionPlan { name: name.to_owned(), from_preset, kernel: None, syscall: None, program: None, trigger: None }
    }

    fn report(preset: bool) -> CallReport {
        let failed =
            Attached { failures: vec![(Way::Kprobe, "not probeable: No such file".to_owned())], ..Attached::default() };
        let missing = Missing { name: "munmpa".to_owned(), near: vec!["munmap".to_owned()] };
        CallReport::new(
            "web-1",
            vec!["mmap".to_owned(), "do_truncate".to_owned(), "munmpa".to_owned()],
            &[planned("mmap", false), planned("do_truncate", preset)],
            &[Attached { how: Some(Way::Fentry), is_loadable: true, ..Attached::default() }, failed],
            if preset { Vec::new() } else { vec![missing] },
        )
    }

    #[test]
    fn each_function_has_its_fate() {
        let text = report(false).text();
        let expected = "functions: 3 asked for, 2 found, 1 attached\n  by fentry and fexit:             mmap\n  not found: munmpa (did you mean munmap?)\n  \
                        not probeable: do_truncate (kprobes: not probeable: No such file)\n";
        assert_eq!(text, expected);
        let json = serde_json::to_value(report(false)).unwrap();
        assert_eq!(json["functions"][1]["state"], "not_probeable");
        assert_eq!(json["functions"][1]["failures"][0]["attach"], "kprobe");
        assert_eq!(json["not_found"][0]["near"][0], "munmap");
        assert_eq!(json["losses"]["task_table_full"], 0, "zeros are shown");
        assert!(json["call_stages"].is_null());
    }

    #[test]
    fn many_names_are_cut_short() {
        let names: Vec<String> = (0..40).map(|number| format!("f{number}")).collect();
        let planned: Vec<FunctionPlan> = names.iter().map(|name| planned(name, false)).collect();
        let all = |how: Option<Way>| vec![Attached { how, ..Attached::default() }; 40];
        let report = |how| CallReport::new("", Vec::new(), &planned, &all(how), Vec::new());
        let text = report(Some(Way::Fentry)).text();
        assert_eq!((text.lines().count(), text.lines().last().unwrap().trim()), (6, "and 8 more"));
        let refusal = report(None).refusal();
        assert!(
            refusal.starts_with("failed to attach to f0, f1, f2, f3, f4, f5, f6, f7 and 32 more (it is no"),
            "{refusal}"
        );
        assert!(refusal.ends_with("name system calls, as munmap: they have tracepoints on every kernel"), "{refusal}");
    }

    #[test]
    fn what_nobody_named_is_not_missing() {
        assert!(report(false).lacks_any());
        assert!(!report(true).lacks_any());
    }

    #[test]
    fn the_end_counts_every_stage() {
        let losses = Losses::none(&losses::CALL).with("live_budget", 2);
        let counters = Counters { calls: 10, returns: 9, tasks: 4, losses, ..Counters::default() };
        let losses = Losses::none(&losses::CRASH).with("sample_ring_full", 1);
        let deaths = crash::Counters { fatal: 2, caught: 1, losses, ..crash::Counters::default() };
        let end = report(true).at_end(&counters, &deaths, 3, [2, 1, 1]);
        let json = serde_json::to_value(&end).unwrap();
        assert_eq!(json["final"], true);
        assert_eq!(json["call_stages"]["tasks_forgotten"], 1);
        assert_eq!((&json["losses"]["live_budget"], &json["losses"]["crash_ring_full"]), (&2.into(), &1.into()));
        assert_eq!((&json["call_stages"]["deaths"], &json["call_stages"]["crashes"]), (&3.into(), &2.into()));
        assert!(end.text().starts_with("10 calls recorded of 4 tasks (1 forgotten), 9 returned"), "{}", end.text());
        assert!(end.text().contains("trigger_ring_full 0"), "{}", end.text());
        assert!(end.end_line(false).ends_with("lost: crash_ring_full 1, live_budget 2"), "{}", end.end_line(false));
    }
}
