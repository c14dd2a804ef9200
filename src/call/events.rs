//! Tracepoints that were asked for: `tp_btf:NAME`, by the kernel's types, and `tracepoint:CATEGORY:NAME`, as tracefs has them. Both are hooked
//! by their types, which have names and types for the arguments.

use super::functions::Functions;
use super::plan::{FunctionPlan, Returns, Side, of_prototype};
use super::select::{Missing, near};
use crate::probe::Tracefs;
use crate::probe::abi::call::fl_function_flag;
use crate::probe::call::Point;

const BY_TYPES: &str = "tp_btf:";
const BY_CATEGORY: &str = "tracepoint:";

/// Is it the name of a tracepoint?
pub(super) fn is_event(name: &str) -> bool {
    name.starts_with(BY_TYPES) || name.starts_with(BY_CATEGORY)
}

/// The tracepoint's own name, and what tracefs keeps it under.
fn parts(name: &str) -> (&str, Option<&str>) {
    match name.strip_prefix(BY_CATEGORY).and_then(|name| name.split_once(':')) {
        Some((category, name)) => (name, Some(category)),
        None => (name.strip_prefix(BY_TYPES).unwrap_or(name), None),
    }
}

/// Plans the tracepoints with these names, each once, and says which there aren't.
pub(super) fn plan(names: &[String], functions: &Functions<'_>) -> (Vec<FunctionPlan>, Vec<Missing>) {
    let (mut planned, mut missing): (Vec<FunctionPlan>, Vec<Missing>) = (Vec::new(), Vec::new());
    let tracefs = names.iter().any(|name| parts(name).1.is_some()).then(Tracefs::open).and_then(Result::ok);
    for name in names {
        if planned.iter().any(|planned| planned.name == *name) {
            continue;
        }
        let (own, category) = parts(name);
        // If we may not look there, the name alone must do.
        let is_there =
            |category: &str| tracefs.as_ref().is_none_or(|tracefs| tracefs.has(category, own).unwrap_or(true));
        match functions.tracepoint(own).filter(|_| category.is_none_or(is_there)) {
            Some(prototype) => planned.push(FunctionPlan {
                name: name.clone(),
                from_preset: false,
                kernel: Some(event(of_prototype(own, &prototype, functions))),
                syscall: None,
                program: None,
                trigger: None,
            }),
            None => {
                let near = near(own, functions.tracepoints()).iter().map(|near| format!("{BY_TYPES}{near}")).collect();
                missing.push(Missing { name: name.clone(), near });
            }
        }
    }
    (planned, missing)
}

/// A function without an end.
fn event(side: Side) -> Side {
    let flags = fl_function_flag::FL_FUNCTION_EVENT.0;
    let returns = Returns { shape: None, is_error: false };
    Side { point: Point { flags, anyone: None, ..side.point }, returns, ..side }
}
