//! The recorder of kernel calls as tests use it, and `tests/programs/calls.c`, which makes the calls.

use std::collections::BTreeMap;
use std::io::{BufRead, BufReader, Write};
use std::process::{Child, ChildStdin, ChildStdout, Command, Stdio};
use std::sync::OnceLock;

use faultline::internals::abi::call::{Sample, fl_call, fl_fetch, fl_fetch_kind, fl_function_flag};
use faultline::internals::call::{Function, Plan, Point, Recorder};
use faultline::internals::{Attach, Filter, Setup, Way};
use libbpf_rs::btf::types::{Composite, Func, FuncProto, MemberAttr, Struct};
use libbpf_rs::btf::{Btf, BtfType};

use crate::harness::{arch, programs, runs};

/// The program, which takes commands.
pub(crate) struct Calls {
    pub child: Child,
    pub to: ChildStdin,
    pub from: BufReader<ChildStdout>,
}

impl Calls {
    pub(crate) fn start() -> Self {
        Self::of(&mut Command::new(programs().join("calls")))
    }

    pub(crate) fn of(program: &mut Command) -> Self {
        let mut child = program.stdin(Stdio::piped()).stdout(Stdio::piped()).spawn().unwrap();
        let (to, from) = (child.stdin.take().unwrap(), BufReader::new(child.stdout.take().unwrap()));
        let mut calls = Self { child, to, from };
        // One round first: from here on it makes only the calls that it is asked for.
        calls.tell("nothing");
        calls
    }

    pub(crate) fn pid(&self) -> u32 {
        self.child.id()
    }

    /// Has it do something, and returns what it says of it.
    pub(crate) fn tell(&mut self, what: &str) -> BTreeMap<String, i64> {
        let said = self.tell_at_last(what);
        assert!(said.contains_key("done"), "it ended: {said:?}");
        said
    }

    /// The same, where it may be its end.
    pub(crate) fn tell_at_last(&mut self, what: &str) -> BTreeMap<String, i64> {
        writeln!(self.to, "{what}").unwrap();
        let mut said = BTreeMap::new();
        loop {
            let mut line = String::new();
            if self.from.read_line(&mut line).unwrap() == 0 {
                self.child.wait().unwrap();
                return said;
            }
            match line.trim().split_once(' ') {
                Some((name, value)) => said.insert(name.to_owned(), value.parse().unwrap()),
                None => {
                    said.insert(line.trim().to_owned(), 1);
                    return said;
                }
            };
        }
    }
}

impl Drop for Calls {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

pub(crate) const HAS_RESULT: u32 = fl_function_flag::FL_FUNCTION_HAS_RESULT.0;
pub(crate) const SYSCALL: u32 = fl_function_flag::FL_FUNCTION_SYSCALL.0;
pub(crate) const ANYONE: u32 = fl_function_flag::FL_FUNCTION_ANYONE.0;
pub(crate) const RESULT_INT: u32 = fl_function_flag::FL_FUNCTION_RESULT_INT.0;
pub(crate) const QUIET: u32 = fl_function_flag::FL_FUNCTION_QUIET.0;

pub(crate) fn value(argument: u8) -> fl_fetch {
    fl_fetch { argument, size: 8, ..fl_fetch::default() }
}

pub(crate) fn text(argument: u8) -> fl_fetch {
    fl_fetch { argument, kind: fl_fetch_kind::FL_FETCH_USER_TEXT.0 as u8, ..fl_fetch::default() }
}

pub(crate) fn values(parameters: u8) -> Vec<fl_fetch> {
    (0..parameters).map(value).collect()
}

/// The id of a kernel function among the kernel's types, and how many parameters it has.
pub(crate) fn prototype(symbol: &str) -> Option<(u32, u8)> {
    let btf = Btf::from_vmlinux().unwrap();
    let function: Func<'_> = btf.type_by_name(symbol)?;
    let parameters = FuncProto::try_from(function.next_type().unwrap()).ok().unwrap().len();
    Some((function.type_id().into(), u8::try_from(parameters).unwrap()))
}

/// Where a member lies in a struct of the kernel's, bytes.
pub(crate) fn offset(structure: &str, member: &str) -> u32 {
    fn find(btf: &Btf<'_>, composite: Composite<'_>, name: &str) -> Option<u32> {
        (0..composite.len()).find_map(|index| {
            let member = composite.get(index)?;
            let MemberAttr::Normal { offset } = member.attr else { return None };
            match member.name {
                Some(known) => (known == name).then_some(offset),
                None => {
                    let inner = Composite::try_from(btf.type_by_id::<BtfType<'_>>(member.ty)?).ok()?;
                    Some(offset + find(btf, inner, name)?)
                }
            }
        })
    }
    let btf = Btf::from_vmlinux().unwrap();
    let found: Struct<'_> = btf.type_by_name(structure).unwrap();
    let composite = Composite::try_from(btf.type_by_id::<BtfType<'_>>(found.type_id()).unwrap()).ok().unwrap();
    find(&btf, composite, member).unwrap_or_else(|| panic!("no {structure}.{member}")) / 8
}

/// A kernel function as it is.
pub(crate) fn function(symbol: &str, flags: u32, fetches: Vec<fl_fetch>) -> Function {
    let found = prototype(symbol);
    let (btf_id, parameters) = (found.map(|found| found.0), found.map_or(6, |found| found.1));
    let point = Point { symbol: symbol.to_owned(), btf_id, parameters, flags, fetches, ..Point::default() };
    Function { kernel: Some(point), ..Function::default() }
}

/// A system call, by its wrapper or by its tracepoints.
pub(crate) fn syscall_with(name: &str, parameters: u8, flags: u32, fetches: Vec<fl_fetch>) -> Function {
    let flags = flags | HAS_RESULT;
    let wrapper = function(&format!("{}{name}", arch::SYSTEM_CALL), flags | SYSCALL, fetches.clone());
    let point = Point { symbol: name.to_owned(), parameters, flags, fetches, ..Point::default() };
    Function { syscall: Some(point), ..wrapper }
}

pub(crate) fn syscall(name: &str, parameters: u8) -> Function {
    syscall_with(name, parameters, 0, values(parameters))
}

pub(crate) fn plan(pid: u32, functions: Vec<Function>) -> Plan {
    Plan {
        setup: Setup { filter: Filter { pids: vec![pid], ..Filter::default() }, ..Setup::default() },
        functions,
        calls: 16,
        tasks: 64,
        kernel_stacks: None,
        live: None,
        trigger_signals: Vec::new(),
        grows: false,
    }
}

pub(crate) fn plan_by(attach: Attach, pid: u32, functions: Vec<Function>) -> Plan {
    let mut plan = plan(pid, functions);
    plan.setup.attach = attach;
    plan
}

pub(crate) fn start(plan: &Plan) -> Recording {
    let (recorder, attached) = Recorder::start(plan).unwrap();
    for (function, attached) in plan.functions.iter().zip(&attached) {
        let name = function.kernel.as_ref().map(|point| point.symbol.as_str());
        assert!(attached.how.is_some(), "{name:?}: {attached:#?}");
    }
    // Never seen to end, whatever the kernel leaves out.
    let is_endless =
        |function: &Function| function.syscall.as_ref().is_some_and(|point| point.symbol == "rt_sigreturn");
    Recording { recorder, counts_ends: !plan.functions.iter().any(is_endless) }
}

/// A recorder that remembers at its end what the kernel has kept from it.
pub(crate) struct Recording {
    pub recorder: Recorder,
    pub counts_ends: bool,
}

impl std::ops::Deref for Recording {
    type Target = Recorder;

    fn deref(&self) -> &Recorder {
        &self.recorder
    }
}

impl Drop for Recording {
    fn drop(&mut self) {
        let losses = self.recorder.counters().map(|counters| counters.losses).unwrap_or_default();
        let ends_missed = if self.counts_ends { losses.get("ends_missed") } else { 0 };
        runs::add(losses.get("runs_missed") + ends_missed);
    }
}

/// The calls that are kept of a thread.
pub(crate) fn calls_of(recorder: &Recorder, tid: u32) -> Vec<fl_call> {
    let task = recorder.task(tid).unwrap().unwrap_or_else(|| panic!("no calls of {tid}: {:?}", recorder.counters()));
    assert_eq!(task.header.tid, tid);
    task.calls
}

/// The samples that are in the ring by now.
pub(crate) fn samples(recorder: &Recorder) -> Vec<Sample> {
    let ring = recorder.ring().unwrap();
    let batch = || Some(ring.take(64).unwrap()).filter(|samples| !samples.is_empty());
    std::iter::from_fn(batch).flatten().collect()
}

/// The string that lies in the call where the fetch with this number has put it.
pub(crate) fn text_of(call: &fl_call, fetch: usize, place: usize) -> String {
    let length = usize::try_from(call.values[fetch]).unwrap();
    let bytes: Vec<u8> = call.texts[place * 128..place * 128 + length].iter().map(|&byte| byte as u8).collect();
    String::from_utf8(bytes).unwrap()
}

/// The ways that this kernel must have: natively none but tracepoints, on every kernel of the matrix all but where the row says.
pub(crate) fn ways() -> Vec<(Attach, Way)> {
    let all = [
        (Attach::By(Way::Tracepoint), Way::Tracepoint),
        (Attach::By(Way::Fentry), Way::Fentry),
        (Attach::By(Way::Kprobe), Way::Kprobe),
        (Attach::By(Way::KprobeMulti), Way::KprobeMulti),
    ];
    let Ok(kernel) = std::env::var("FAULTLINE_KERNEL") else { return all[..1].to_vec() };
    let is_there = |how: Way| match how {
        Way::Fentry => !arch::HAS_NO_FENTRY.contains(&kernel.as_str()),
        Way::KprobeMulti => !arch::HAS_NO_KPROBE_MULTI.contains(&kernel.as_str()),
        _ => true,
    };
    all.into_iter().filter(|(_, how)| is_there(*how)).collect()
}

/// Is this a guest? They have every way to attach; this machine's own kernel has none to kernel functions.
pub(crate) fn sees_kernel_functions() -> bool {
    static SEES: OnceLock<bool> = OnceLock::new();
    *SEES.get_or_init(|| std::env::var("FAULTLINE_KERNEL").is_ok())
}
