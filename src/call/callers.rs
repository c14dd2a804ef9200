//! The kernel's functions that call a callback (`--callers`). Its types don't say who calls through a pointer, so a table does, and the types
//! say which of these functions this kernel has.

use serde::Serialize;

use super::functions::{Functions, Prototype, TypeKind, kind};
use super::places::{PLACES, Place};
use super::plan::{self, FunctionPlan};
use super::report::FunctionReport;
use super::select::ChosenFunction;
use crate::probe::Way;

/// A function that calls a callback, and what became of it. Fields as in docs/output.md.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub(crate) struct Caller {
    /// The member of the struct of callbacks: `sched_ext_ops.enqueue`
    pub callback: String,
    /// Its function, `None` means that this kernel has none of them, or that it isn't known who calls the callback.
    pub function: Option<String>,
    /// What it calls the callback for.
    pub reason: Option<&'static str>,
    /// `attached`; `not_probeable`; `not_found`: the kernel's types have no such function; `not_known`: the callback isn't in our table.
    pub state: &'static str,
    /// The way in which it is seen.
    pub attach: Option<Way>,
    /// Why it isn't seen.
    pub why: Option<String>,
}

/// The places that call the callbacks among these programs, each once.
pub(super) fn of_programs(programs: &[FunctionPlan], functions: &Functions<'_>) -> Vec<Caller> {
    let mut callers = Vec::new();
    for program in programs.iter().filter_map(|planned| planned.program.as_ref()) {
        let Some(callback) = program.hook.as_deref().filter(|_| program.is_callback()) else { continue };
        for caller in of_callback(callback, functions) {
            if !callers.contains(&caller) {
                callers.push(caller);
            }
        }
    }
    callers
}

fn of_callback(callback: &str, functions: &Functions<'_>) -> Vec<Caller> {
    let caller = |function: Option<&str>, reason, state, why: Option<String>| Caller {
        callback: callback.to_owned(),
        function: function.map(str::to_owned),
        reason,
        state,
        attach: None,
        why,
    };
    let found = |(_, names, takes, reason): &Place| match names.split(' ').find(|name| fits(name, takes, functions)) {
        Some(name) => caller(Some(name), Some(reason), "not_probeable", None),
        None => {
            let names = names.replace(' ', " or ");
            let why = format!("this kernel's types have no {names} with a struct {takes}");
            caller(None, Some(reason), "not_found", Some(why))
        }
    };
    let places: Vec<Caller> = places(callback).map(found).collect();
    if places.is_empty() {
        return vec![caller(None, None, "not_known", Some("it isn't known which functions call it".to_owned()))];
    }
    places
}

/// Where the kernel calls `sched_ext_ops.enqueue` from, if we know it.
fn places(callback: &str) -> impl Iterator<Item = &'static Place> {
    let (ops, member) = callback.split_once('.').unwrap_or((callback, ""));
    let of_struct = PLACES.iter().filter(move |(known, _)| *known == ops).flat_map(|(_, places)| places.iter());
    of_struct.filter(move |(known, ..)| *known == member)
}

/// Has the kernel a function of this name that is given a pointer to such a struct?
fn fits(name: &str, takes: &str, functions: &Functions<'_>) -> bool {
    let takes = TypeKind::Pointer(takes.to_owned());
    let has = |prototype: Prototype<'_>| prototype.parameters.iter().any(|(_, ty)| kind(*ty) == takes);
    functions.prototype(name).is_some_and(has)
}

/// Plans the functions that are not planned yet.
pub(super) fn plan(callers: &[Caller], planned: &[FunctionPlan], functions: &Functions<'_>) -> Vec<FunctionPlan> {
    let mut new: Vec<FunctionPlan> = Vec::new();
    for name in callers.iter().filter_map(|caller| caller.function.as_ref()) {
        if planned.iter().chain(&new).all(|planned| planned.name != *name) {
            let chosen =
                ChosenFunction { name: name.clone(), symbol: Some(name.clone()), is_syscall: false, from_preset: true };
            new.push(plan::plan(&chosen, functions, None));
        }
    }
    new
}

impl Caller {
    /// The same when its function was attached, or could not be.
    pub(super) fn after(mut self, functions: &[FunctionReport]) -> Self {
        let is_its = |function: &&FunctionReport| self.function.as_ref() == Some(&function.function);
        if let Some(function) = functions.iter().find(is_its) {
            (self.state, self.attach) = (function.state, function.attach);
            self.why = function.attach.is_none().then(|| function.why());
        }
        self
    }

    /// Is there no function for it?
    pub(super) fn is_missing(&self) -> bool {
        self.function.is_none()
    }

    /// `no caller of sched_ext_ops.tick: ...`
    pub(super) fn line(&self) -> String {
        format!("no caller of {}: {}", self.callback, self.why.as_deref().unwrap_or_default())
    }
}

#[cfg(test)]
mod tests {
    use libbpf_rs::btf::Btf;

    use super::*;
    use crate::call::programs::ProgramFacts;
    use crate::call::report::function_reports;
    use crate::probe::call::Attached;

    fn program(kind: &str, hook: Option<&str>) -> FunctionPlan {
        let program = ProgramFacts { id: 1, kind: kind.to_owned(), hook: hook.map(str::to_owned) };
        FunctionPlan { name: "bpf:x".to_owned(), program: Some(program), ..FunctionPlan::default() }
    }

    fn callers(kind: &str, hook: Option<&str>) -> Vec<Caller> {
        let btf = Btf::from_vmlinux().unwrap();
        of_programs(&[program(kind, hook), program(kind, hook)], &Functions::new(&btf))
    }

    #[test]
    fn the_kernels_types_say_which_callers_there_are() {
        let init = callers("struct_ops", Some("tcp_congestion_ops.init"));
        let [Caller { function: Some(function), why: None, .. }, _] = &init[..] else { panic!("{init:?}") };
        assert_eq!(function, "tcp_init_congestion_control");
        let unknown = callers("struct_ops", Some("some_ops.member"));
        let [Caller { function: None, why: Some(_), .. }] = &unknown[..] else { panic!("{unknown:?}") };
        assert_eq!(callers("lsm", Some("tcp_congestion_ops.init")), [], "no callback");
        assert_eq!(callers("struct_ops", None), [], "it is not registered");
    }

    #[test]
    fn a_function_of_the_same_name_must_take_the_same_struct() {
        let btf = Btf::from_vmlinux().unwrap();
        let functions = Functions::new(&btf);
        assert!(fits("tcp_enter_loss", "sock", &functions));
        assert!(!fits("tcp_enter_loss", "task_struct", &functions) && !fits("no_such", "sock", &functions));
    }

    #[test]
    fn a_function_is_planned_once_and_its_fate_is_told() {
        let btf = Btf::from_vmlinux().unwrap();
        let functions = Functions::new(&btf);
        let callers = of_callback("tcp_congestion_ops.ssthresh", &functions);
        let planned = plan(&callers, &[], &functions);
        let names: Vec<&str> = planned.iter().map(|planned| planned.name.as_str()).collect();
        assert_eq!(names, ["tcp_enter_loss", "tcp_enter_recovery", "tcp_enter_cwr"]);
        assert!(planned.iter().all(|planned| planned.from_preset), "nobody typed them");
        assert!(plan(&callers, &planned, &functions).is_empty());
        let attached = [
            Attached { how: Some(Way::Fentry), is_loadable: true, ..Attached::default() },
            Attached { failures: vec![(Way::Kprobe, "no".to_owned())], ..Attached::default() },
        ];
        let functions = function_reports(&planned, &attached, None);
        let after = |index: usize| callers[index].clone().after(&functions);
        assert_eq!((after(0).state, after(0).attach), ("attached", Some(Way::Fentry)));
        assert_eq!((after(1).state, after(1).why.as_deref()), ("not_probeable", Some("kprobes: no")));
    }

    #[test]
    fn each_place_stands_once() {
        for (ops, places) in PLACES {
            for (index, place) in places.iter().enumerate() {
                let is_same = |other: &Place| (other.0, other.1) == (place.0, place.1);
                assert!(!places[..index].iter().any(is_same), "{ops}: {place:?}");
            }
        }
    }
}
