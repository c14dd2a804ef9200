//! What of BPF programs this kernel lets `call` see, for `doctor`: by its types, without trying.

use anyhow::Result;

use super::functions::Functions;
use super::programs::FORBIDDEN;
use super::trigger::TriggerOn;
use crate::host::Answer;
use crate::probe::kernel_types;

/// A question, the answer, and what was found.
pub(crate) type Reach = (&'static str, Answer, String);

/// The structs of callbacks whose programs can be seen as what they are.
const OPS: [&str; 3] = ["hid_bpf_ops", "sched_ext_ops", "tcp_congestion_ops"];

/// The answers, by name. Types that we can't read answer nothing.
pub(crate) fn reach() -> Vec<Reach> {
    let types = kernel_types(None);
    let functions = types.as_ref().map(Functions::new);
    let ask = |question: &dyn Fn(&Functions<'_>) -> Result<String, String>| match &functions {
        Ok(functions) => match question(functions) {
            Ok(found) => (Answer::Yes, found),
            Err(why) => (Answer::No(why), String::new()),
        },
        Err(error) => (Answer::Unknown(format!("{error:#}")), String::new()),
    };
    let named = |name: &'static str, (answer, found): (Answer, String)| (name, answer, found);
    let mut all: Vec<Reach> =
        OPS.iter().map(|ops| named(ops, ask(&|functions| has_callbacks(functions, ops)))).collect();
    all.push(named("scheduler_error", ask(&end_of_schedulers)));
    all.push(named("xdp", ask(&|functions| has_struct(functions, "xdp_buff", "its programs are given it"))));
    all
}

fn has_struct(functions: &Functions<'_>, name: &str, found: &str) -> Result<String, String> {
    match functions.structure(name) {
        Some(_) => Ok(format!("struct {name}: {found}")),
        None => Err(format!("no struct {name} among the kernel's types")),
    }
}

/// May programs be its callbacks, and can they be seen?
fn has_callbacks(functions: &Functions<'_>, ops: &str) -> Result<String, String> {
    // The kernel makes this type for a struct that programs may be registered in.
    let found = has_struct(functions, &format!("bpf_struct_ops_{ops}"), "call sees its callbacks")?;
    if functions.survives_callbacks() { Ok(found) } else { Err(FORBIDDEN.to_owned()) }
}

/// The function at whose call `call --trigger scheduler_error` fires.
fn end_of_schedulers(functions: &Functions<'_>) -> Result<String, String> {
    let resolved = TriggerOn::SchedulerError.resolved(functions)?;
    Ok(format!("{}(): call --trigger scheduler_error", resolved.function().unwrap_or_default()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_question_has_an_answer_on_this_kernel() {
        let all = reach();
        let names: Vec<&str> = all.iter().map(|(name, ..)| *name).collect();
        assert_eq!(names, ["hid_bpf_ops", "sched_ext_ops", "tcp_congestion_ops", "scheduler_error", "xdp"]);
        for (name, answer, found) in &all {
            match answer {
                Answer::Yes => assert!(!found.is_empty(), "{name}"),
                Answer::No(why) => assert!(!why.is_empty(), "{name}"),
                Answer::Unknown(why) => panic!("{name}: {why}"),
            }
        }
        let of = |name: &str| all.iter().find(|(known, ..)| *known == name).map(|(_, answer, _)| answer.clone());
        assert_eq!(of("xdp"), Some(Answer::Yes));
        assert_eq!(of("sched_ext_ops") == Some(Answer::Yes), of("scheduler_error") == Some(Answer::Yes));
    }
}
