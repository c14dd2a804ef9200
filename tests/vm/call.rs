//! The recorder of kernel calls, against what `tests/programs/calls.c` says that it called.

use std::collections::BTreeMap;
use std::io::{BufRead, BufReader, Write};
use std::process::{Child, ChildStdin, ChildStdout, Command, Stdio};
use std::sync::OnceLock;
use std::time::Instant;

use faultline::internals::Filter;
use faultline::internals::abi::call::{
    Sample, fl_call, fl_call_state, fl_fetch, fl_fetch_flag, fl_fetch_kind, fl_function_flag, fl_trigger_kind,
};
use faultline::internals::call::{Attached, Function, Plan, Point, Recorder};
use faultline::internals::{Attach, Setup, Way};
use libbpf_rs::btf::types::{Composite, Func, FuncProto, MemberAttr, Struct};
use libbpf_rs::btf::{Btf, BtfType};

use macro_rules_attribute::apply;

use crate::harness::{Scratch, copy_program, programs};
use crate::runs::{self, watch_test};

/// The program, which takes commands.
struct Calls {
    child: Child,
    to: ChildStdin,
    from: BufReader<ChildStdout>,
}

impl Calls {
    fn start() -> Self {
        Self::of(&mut Command::new(programs().join("calls")))
    }

    fn of(program: &mut Command) -> Self {
        let mut child = program.stdin(Stdio::piped()).stdout(Stdio::piped()).spawn().unwrap();
        let (to, from) = (child.stdin.take().unwrap(), BufReader::new(child.stdout.take().unwrap()));
        let mut calls = Self { child, to, from };
        // One round first: from here on it makes only the calls that it is asked for.
        calls.tell("nothing");
        calls
    }

    fn pid(&self) -> u32 {
        self.child.id()
    }

    /// Has it do something, and returns what it says of it.
    fn tell(&mut self, what: &str) -> BTreeMap<String, i64> {
        let said = self.tell_at_last(what);
        assert!(said.contains_key("done"), "it ended: {said:?}");
        said
    }

    /// The same, where it may be its end.
    fn tell_at_last(&mut self, what: &str) -> BTreeMap<String, i64> {
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

const HAS_RESULT: u32 = fl_function_flag::FL_FUNCTION_HAS_RESULT.0;
const SYSCALL: u32 = fl_function_flag::FL_FUNCTION_SYSCALL.0;
const ANYONE: u32 = fl_function_flag::FL_FUNCTION_ANYONE.0;
const RESULT_INT: u32 = fl_function_flag::FL_FUNCTION_RESULT_INT.0;
const QUIET: u32 = fl_function_flag::FL_FUNCTION_QUIET.0;

fn value(argument: u8) -> fl_fetch {
    fl_fetch { argument, size: 8, ..fl_fetch::default() }
}

fn text(argument: u8) -> fl_fetch {
    fl_fetch { argument, kind: fl_fetch_kind::FL_FETCH_USER_TEXT.0 as u8, ..fl_fetch::default() }
}

fn values(parameters: u8) -> Vec<fl_fetch> {
    (0..parameters).map(value).collect()
}

/// The id of a kernel function among the kernel's types, and how many parameters it has.
fn prototype(symbol: &str) -> Option<(u32, u8)> {
    let btf = Btf::from_vmlinux().unwrap();
    let function: Func<'_> = btf.type_by_name(symbol)?;
    let parameters = FuncProto::try_from(function.next_type().unwrap()).ok().unwrap().len();
    Some((function.type_id().into(), u8::try_from(parameters).unwrap()))
}

/// Where a member lies in a struct of the kernel's, bytes.
fn offset(structure: &str, member: &str) -> u32 {
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
fn function(symbol: &str, flags: u32, fetches: Vec<fl_fetch>) -> Function {
    let found = prototype(symbol);
    let (btf_id, parameters) = (found.map(|found| found.0), found.map_or(6, |found| found.1));
    let point = Point { symbol: symbol.to_owned(), btf_id, parameters, flags, anyone: None, fetches };
    Function { kernel: Some(point), syscall: None, trigger: None }
}

/// A system call, by its wrapper or by its tracepoints.
fn syscall_with(name: &str, parameters: u8, flags: u32, fetches: Vec<fl_fetch>) -> Function {
    let flags = flags | HAS_RESULT;
    let wrapper = function(&format!("__x64_sys_{name}"), flags | SYSCALL, fetches.clone());
    let point = Point { symbol: name.to_owned(), btf_id: None, parameters, flags, anyone: None, fetches };
    Function { syscall: Some(point), ..wrapper }
}

fn syscall(name: &str, parameters: u8) -> Function {
    syscall_with(name, parameters, 0, values(parameters))
}

fn plan(pid: u32, functions: Vec<Function>) -> Plan {
    Plan {
        setup: Setup { filter: Filter { pids: vec![pid], ..Filter::default() }, ..Setup::default() },
        functions,
        calls: 16,
        tasks: 64,
        kernel_stacks: None,
        live: None,
        trigger_signals: Vec::new(),
    }
}

fn plan_by(attach: Attach, pid: u32, functions: Vec<Function>) -> Plan {
    let mut plan = plan(pid, functions);
    plan.setup.attach = attach;
    plan
}

fn start(plan: &Plan) -> Recording {
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
struct Recording {
    recorder: Recorder,
    counts_ends: bool,
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
fn calls_of(recorder: &Recorder, tid: u32) -> Vec<fl_call> {
    let task = recorder.task(tid).unwrap().unwrap_or_else(|| panic!("no calls of {tid}: {:?}", recorder.counters()));
    assert_eq!(task.header.tid, tid);
    task.calls
}

/// The samples that are in the ring by now.
fn samples(recorder: &Recorder) -> Vec<Sample> {
    let ring = recorder.ring().unwrap();
    let batch = || Some(ring.take(64).unwrap()).filter(|samples| !samples.is_empty());
    std::iter::from_fn(batch).flatten().collect()
}

/// The string that lies in the call where the fetch with this number has put it.
fn text_of(call: &fl_call, fetch: usize, place: usize) -> String {
    let length = usize::try_from(call.values[fetch]).unwrap();
    let bytes: Vec<u8> = call.texts[place * 128..place * 128 + length].iter().map(|&byte| byte as u8).collect();
    String::from_utf8(bytes).unwrap()
}

/// The ways that this kernel must have: natively none but tracepoints, on every kernel of the matrix all but where the row says.
fn ways() -> Vec<(Attach, Way)> {
    let all = [
        (Attach::By(Way::Tracepoint), Way::Tracepoint),
        (Attach::By(Way::Fentry), Way::Fentry),
        (Attach::By(Way::Kprobe), Way::Kprobe),
        (Attach::By(Way::KprobeMulti), Way::KprobeMulti),
    ];
    let count = match std::env::var("FAULTLINE_KERNEL").ok().as_deref() {
        None => 1,
        // v5.18; Debian's 6.1 is built without.
        Some("5.10" | "6.1") => 3,
        Some(_) => 4,
    };
    all[..count].to_vec()
}

#[apply(watch_test!)]
fn arguments_and_results_are_those_of_the_call_whatever_the_way() {
    let mut calls = Calls::start();
    for (attach, how) in ways() {
        let functions = vec![syscall("mprotect", 3), syscall("munmap", 2), syscall("mmap", 6)];
        let plan = plan_by(attach, calls.pid(), functions);
        let recorder = start(&plan);
        assert!(recorder.attached().iter().all(|attached| attached.how == Some(how) && attached.failures.is_empty()));
        let before = Instant::now();
        let said = calls.tell("memory");
        let took = before.elapsed().as_nanos() as u64;
        let address = said["address"];
        let word = |value: i64| value as u64;
        let expected: [(u32, &[i64], i64); 4] = [
            (2, &[0, 8192, 3, 0x22, -1, 0], address),
            (0, &[address, 4096, 1], 0),
            (1, &[address, 8192], 0),
            (1, &[1, 4096], -22),
        ];
        let found = calls_of(&recorder, calls.pid());
        assert_eq!(found.len(), expected.len(), "{attach:?}: {found:#?}");
        for (sequence, (call, (number, arguments, result))) in found.iter().zip(expected).enumerate() {
            let what = format!("{attach:?}, call {sequence}");
            assert_eq!(
                (call.sequence, call.function, call.state),
                (sequence as u64, number, fl_call_state::FL_CALL_ENDED)
            );
            for (index, argument) in arguments.iter().enumerate() {
                // The descriptor is an int: the register's upper half means nothing.
                let bits = if number == 2 && index == 4 { 0xffff_ffff } else { u64::MAX };
                assert_eq!(call.values[index] & bits, word(*argument) & bits, "{what}, argument {index}");
            }
            assert_eq!((call.result, call.unread, call.stack), (result, 0, -1), "{what}");
            assert!((1..took).contains(&call.duration_ns), "{what} took {} of {took} ns", call.duration_ns);
        }
        assert!(found.is_sorted_by_key(|call| call.entered_ns));
        let task = recorder.task(calls.pid()).unwrap().unwrap();
        assert_eq!((task.header.pid, task.header.open_count, task.header.next), (calls.pid(), 0, 4));
        let counters = recorder.counters().unwrap();
        assert_eq!((counters.calls, counters.returns, counters.tasks), (4, 4, 1), "{counters:?}");
        // Runs of others' may have been left out: all of ours are there.
        assert!(counters.losses.reasons().all(|reason| reason == "runs_missed"), "{counters:?}");
    }
}

#[apply(watch_test!)]
fn the_best_way_is_taken_and_what_was_in_vain_is_told() {
    let calls = Calls::start();
    let missing = Function { syscall: None, ..syscall("no_such_call", 1) };
    let functions = vec![missing, syscall("mprotect", 3), function("vfs_truncate", HAS_RESULT | RESULT_INT, values(2))];
    let begin = Instant::now();
    let (recorder, attached) = Recorder::start(&plan(calls.pid(), functions)).unwrap();
    println!("started in {:?}, {:?}", begin.elapsed(), recorder.build());
    println!("{attached:#?}");
    let [missing, call, kernel]: &[Attached; 3] = attached.as_slice().try_into().unwrap();
    assert_eq!(missing.how, None);
    assert!(missing.failures.iter().all(|(_, why)| !why.is_empty()), "{missing:?}");
    match std::env::var("FAULTLINE_KERNEL") {
        Ok(_) => {
            assert_eq!((call.how, kernel.how), (Some(Way::Fentry), Some(Way::Fentry)));
            assert_eq!(missing.failures.len(), 3, "fentry, kprobe.multi, kprobe: {missing:?}");
        }
        Err(_) => {
            assert_eq!((call.how, kernel.how), (Some(Way::Tracepoint), None));
            let tried: Vec<Way> = kernel.failures.iter().map(|(how, _)| *how).collect();
            assert_eq!(tried, [Way::Fentry, Way::KprobeMulti, Way::Kprobe]);
            assert!(kernel.failures.iter().all(|(_, why)| why.starts_with("this kernel ")), "{kernel:?}");
        }
    }
}

#[apply(watch_test!)]
fn the_last_calls_are_kept_and_those_of_dead_threads_too() {
    let mut calls = Calls::start();
    let recorder = start(&Plan { tasks: 256, ..plan(calls.pid(), vec![syscall("mprotect", 3)]) });
    calls.tell("many 40");
    let kept = calls_of(&recorder, calls.pid());
    let sequences: Vec<u64> = kept.iter().map(|call| call.sequence).collect();
    assert_eq!(sequences, (24..40).collect::<Vec<u64>>());
    assert!(kept.iter().all(|call| call.values[0] == (call.sequence + 1) * 0x1000), "{kept:#?}");

    // More threads than there is room for: the table forgets the oldest, and nothing else is lost.
    let threads = 4000;
    calls.tell(&format!("threads {threads}"));
    let tasks = recorder.tasks().unwrap();
    let counters = recorder.counters().unwrap();
    assert_eq!((counters.tasks, counters.losses.get("task_table_full")), (threads + 1, 0), "{counters:?}");
    assert!((256..1000).contains(&tasks.len()), "{} of them", tasks.len());
    let mut last: Vec<u64> = tasks
        .iter()
        .filter(|task| task.header.tid != calls.pid())
        .flat_map(|task| &task.calls)
        .map(|call| call.values[0] / 0x1000)
        .filter(|number| *number > threads - 256)
        .collect();
    last.sort_unstable();
    assert_eq!(last, (threads - 255..=threads).collect::<Vec<u64>>(), "dead, and still there");
}

#[apply(watch_test!)]
fn what_a_signal_has_ended_is_not_overwritten() {
    let mut calls = Calls::start();
    let recorder = start(&plan(calls.pid(), vec![syscall("mmap", 6), syscall("munmap", 2), syscall("mprotect", 3)]));
    let said = calls.tell_at_last("crash");
    assert!(!said.contains_key("done"));
    let found = calls_of(&recorder, calls.pid());
    let functions: Vec<u32> = found.iter().map(|call| call.function).collect();
    assert_eq!(functions, [0, 1]);
    assert_eq!((found[1].values[0], found[1].values[1], found[1].result), (said["address"] as u64, 4096, 0));
}

#[apply(watch_test!)]
fn a_trigger_brings_the_calls_that_led_to_it() {
    let mut calls = Calls::start();
    let failing = Function { trigger: Some(-22), ..syscall("munmap", 2) };
    // Seen for its result only, and so not among the calls.
    let quiet = Function { trigger: Some(0), ..syscall_with("truncate", 2, QUIET, Vec::new()) };
    let functions = vec![failing, syscall("mmap", 6), quiet];
    let recorder = start(&Plan { trigger_signals: vec![12], ..plan(calls.pid(), functions) });
    calls.tell("signal 1");
    calls.tell("memory");
    let scratch = Scratch::new();
    let file = scratch.path("file");
    std::fs::write(&file, [0; 8192]).unwrap();
    calls.tell(&format!("truncate {}", file.display()));
    let found = samples(&recorder);
    let triggers: Vec<_> = found
        .iter()
        .map(|sample| match sample {
            Sample::Trigger(event, task) => (event, task),
            Sample::Live(..) => panic!("--live was not asked for"),
        })
        .collect();
    let [signal, failed, cut] = triggers[..] else { panic!("{triggers:#?}") };
    assert_eq!((signal.0.trigger, signal.0.signal), (fl_trigger_kind::FL_TRIGGER_SIGNAL, 12));
    assert_eq!((signal.0.calls, signal.1.calls.len()), (0, 0), "it had made none");
    assert_eq!((failed.0.trigger, failed.0.function, failed.0.result), (fl_trigger_kind::FL_TRIGGER_RESULT, 0, -22));
    let functions: Vec<u32> = failed.1.calls.iter().map(|call| call.function).collect();
    assert_eq!((failed.0.calls, functions.as_slice()), (3, &[1, 0, 0][..]));
    assert_eq!(failed.1.calls[2].result, -22, "the one that fired is the last");
    assert_eq!((cut.0.function, cut.0.result, cut.0.calls), (2, 0, 3));
    for (event, task) in triggers {
        assert_eq!((event.pid, event.tid, event.is_certain), (calls.pid(), calls.pid(), 1));
        assert_eq!(task.header.tid, calls.pid());
        let comm: Vec<u8> = event.comm.iter().map(|&byte| byte as u8).collect();
        assert!(comm.starts_with(b"calls\0"), "{comm:?}");
    }
    let counters = recorder.counters().unwrap();
    assert_eq!((counters.triggers, counters.losses.get("trigger_ring_full")), (3, 0), "{counters:?}");
}

#[apply(watch_test!)]
fn calls_are_handed_on_as_they_end_within_the_rate() {
    let mut calls = Calls::start();
    let recorder = start(&Plan { live: Some(1000), ..plan(calls.pid(), vec![syscall("mprotect", 3)]) });
    calls.tell("many 40");
    let found = samples(&recorder);
    let addresses: Vec<u64> = found
        .iter()
        .map(|sample| match sample {
            Sample::Live(event, call) => {
                assert_eq!((event.pid, call.state), (calls.pid(), fl_call_state::FL_CALL_ENDED));
                call.values[0]
            }
            Sample::Trigger(..) => panic!("there is no trigger"),
        })
        .collect();
    assert_eq!(addresses, (1..=40).map(|number| number * 0x1000).collect::<Vec<u64>>());
    // Many more than are let through in a second, whatever the second and the processor.
    calls.tell("many 500000");
    let counters = recorder.counters().unwrap();
    // Every end is reported, or counted by the reason why not.
    assert_eq!(
        counters.live + counters.losses.get("live_budget") + counters.losses.get("live_ring_full"),
        counters.returns,
        "{counters:?}"
    );
    // Of so many some run may be left out, which is counted.
    let missed = counters.losses.get("runs_missed").min(1000);
    assert!((500_040 - missed..=500_040).contains(&counters.calls), "{counters:?}");
    // The kernel also jumps over the programs at the end of a call that is under way while another tracer (a test beside this
    // one) comes to the same function or leaves it. Of the last one only a next one would tell that it has ended.
    let seen = counters.returns + counters.losses.get("ends_missed");
    let task = recorder.task(calls.pid()).unwrap().unwrap();
    assert_eq!(seen + u64::from(task.header.open_count), counters.calls, "every end is seen or counted: {counters:?}");
    assert!(counters.losses.get("ends_missed") <= counters.losses.get("runs_missed") + 100, "{counters:?}");
    assert!(counters.losses.get("live_budget") > 100_000, "{counters:?}");
}

#[apply(watch_test!)]
fn other_processes_are_seen_where_they_can_be_the_cause() {
    let mut calls = Calls::start();
    let mut cut = syscall_with("truncate", 2, ANYONE, vec![text(0), value(1)]);
    let mut open = syscall_with("openat", 4, ANYONE, vec![text(1), value(2)]);
    let only_cutting = Some((2, libc::O_TRUNC as u64));
    for point in [&mut open.kernel, &mut open.syscall].into_iter().flatten() {
        point.anyone = only_cutting;
    }
    cut.trigger = None;
    // Only a process that isn't there is watched.
    let other = Calls::start();
    let recorder = start(&plan(other.pid(), vec![cut, open]));
    let scratch = Scratch::new();
    let file = scratch.path("file");
    std::fs::write(&file, [0; 8192]).unwrap();
    let path = format!("{}\0", file.display());
    let child = calls.tell(&format!("child {}", file.display()))["child"] as u32;
    let found = calls_of(&recorder, child);
    assert_eq!(found.len(), 1, "{found:#?}");
    assert_eq!((found[0].function, found[0].values[1], found[0].result), (0, 4096, 0));
    assert_eq!((text_of(&found[0], 0, 0), found[0].unread), (path.clone(), 0));
    // The parent has opened nothing in a way that cuts it.
    calls.tell(&format!("truncate {}", file.display()));
    let found = calls_of(&recorder, calls.pid());
    assert_eq!(found.iter().map(|call| call.function).collect::<Vec<_>>(), [0], "{found:#?}");
    // We have, above: this thread's open with O_TRUNC.
    std::fs::write(&file, [0; 8192]).unwrap();
    let own = calls_of(&recorder, nix::unistd::gettid().as_raw() as u32);
    let own: Vec<_> = own.iter().filter(|call| call.function == 1).collect();
    assert_eq!(own.len(), 2, "{own:#?}");
    assert!(own.iter().all(|call| text_of(call, 0, 0) == path && call.result > 0), "{own:#?}");
}

#[apply(watch_test!)]
fn a_name_is_matched_and_a_new_one_is_noticed() {
    let scratch = Scratch::new();
    let program = scratch.path("recorded-calls");
    copy_program("calls", &program);
    let mut calls = Calls::of(&mut Command::new(&program));
    let mut other = Calls::start();
    let filter = Filter { process_names: vec!["nobody".to_owned(), "corded-c".to_owned()], ..Filter::default() };
    let recorder =
        start(&Plan { setup: Setup { filter, ..Setup::default() }, ..plan(0, vec![syscall("mprotect", 3)]) });
    calls.tell("many 1");
    other.tell("many 1");
    assert!(recorder.task(other.pid()).unwrap().is_none());
    calls.tell("rename another name");
    calls.tell("many 1");
    let task = recorder.task(calls.pid()).unwrap().unwrap();
    assert_eq!(task.calls.len(), 2);
    let comm: Vec<u8> = task.header.comm.iter().map(|&byte| byte as u8).collect();
    assert!(comm.starts_with(b"another name\0"), "{comm:?}");
}

/// Is this a guest? They have every way to attach; this machine's own kernel has none to kernel functions.
fn sees_kernel_functions() -> bool {
    static SEES: OnceLock<bool> = OnceLock::new();
    *SEES.get_or_init(|| std::env::var("FAULTLINE_KERNEL").is_ok())
}

#[apply(watch_test!)]
fn a_kernel_function_has_its_arguments_followed_and_read_again_at_its_end() {
    let mut calls = Calls::start();
    let scratch = Scratch::new();
    let file = scratch.path("cut");
    let again = |fetch: fl_fetch| fl_fetch { flags: fl_fetch_flag::FL_FETCH_AGAIN.0 as u8, ..fetch };
    // vfs_truncate(const struct path *path, loff_t length)
    let (dentry, inode) = (offset("path", "dentry"), offset("dentry", "d_inode"));
    let size = fl_fetch {
        size: 8,
        dereferences: 3,
        offsets: [dentry, inode, offset("inode", "i_size")],
        ..fl_fetch::default()
    };
    let path = fl_fetch {
        kind: fl_fetch_kind::FL_FETCH_DENTRY.0 as u8,
        dereferences: 1,
        offsets: [dentry, 0, 0],
        ..fl_fetch::default()
    };
    let kind = fl_fetch {
        kind: fl_fetch_kind::FL_FETCH_KERNEL_TEXT.0 as u8,
        text: 1,
        dereferences: 3,
        offsets: [dentry, offset("dentry", "d_sb"), offset("super_block", "s_type")],
        ..fl_fetch::default()
    };
    let nowhere = fl_fetch { argument: 1, size: 8, dereferences: 1, ..fl_fetch::default() };
    let fetches = vec![again(size), value(1), path, nowhere, kind];
    let functions = vec![
        syscall_with("truncate", 2, 0, vec![text(0), value(1)]),
        function("vfs_truncate", HAS_RESULT | RESULT_INT, fetches),
        syscall("ftruncate", 2),
    ];
    let (mut stacks, mut stacks_missed) = (0, 0);
    for (attach, how) in ways().split_off(1) {
        std::fs::write(&file, [0; 8192]).unwrap();
        let mut functions = functions.clone();
        functions[2].kernel.as_mut().unwrap().fetches = vec![fl_fetch {
            kind: fl_fetch_kind::FL_FETCH_DENTRY.0 as u8,
            flags: fl_fetch_flag::FL_FETCH_OF_FD.0 as u8,
            dereferences: 1,
            offsets: [offset("file", "f_path") + offset("path", "dentry"), 0, 0],
            ..fl_fetch::default()
        }];
        let recorder = start(&Plan { kernel_stacks: Some(2048), ..plan_by(attach, calls.pid(), functions) });
        calls.tell(&format!("truncate {}", file.display()));
        let found = calls_of(&recorder, calls.pid());
        let functions: Vec<u32> = found.iter().map(|call| call.function).collect();
        assert_eq!(functions, [0, 1, 2], "{how:?}: {found:#?}");
        let (outer, inner) = (&found[0], &found[1]);
        assert_eq!(text_of(outer, 0, 0), format!("{}\0", file.display()));
        assert!(outer.entered_ns < inner.entered_ns && inner.duration_ns < outer.duration_ns, "one in the other");
        assert_eq!((inner.values[0], inner.values[1], inner.after[0]), (8192, 4096, 4096), "before, length, after");
        let folder = scratch.path("").file_name().unwrap().to_str().unwrap().to_owned();
        assert_eq!(text_of(inner, 2, 0), format!("cut\0{folder}\0/\0"));
        assert_eq!((inner.unread, inner.values[3]), (1 << 3 | (inner.unread & 1 << 4), 0), "4096 is no address");
        assert_eq!((inner.result, outer.result), (0, 0));
        assert_eq!(text_of(&found[2], 0, 0), format!("cut\0{folder}\0/\0"), "by its descriptor");
        let found: Vec<Vec<u64>> = found.iter().filter_map(|call| recorder.stack(call.stack)).collect();
        for stack in &found {
            assert!(stack.len() > 2 && stack.iter().all(|address| address >> 63 == 1), "{stack:x?}");
        }
        // A stack is there, or the kernel could not walk it, which is counted: another task was at it on that processor.
        let counters = recorder.counters().unwrap();
        assert_eq!(
            (found.len() as u64 + counters.losses.get("stacks_missed"), counters.losses.get("stack_table_full")),
            (3, 0),
            "{counters:?}"
        );
        assert_eq!(counters.losses.get("nested_too_deep"), 0);
        (stacks, stacks_missed) = (stacks + found.len(), stacks_missed + counters.losses.get("stacks_missed"));
    }
    assert!(ways().len() == 1 || stacks > 2, "{stacks_missed} of all could not be walked");
    assert!(sees_kernel_functions() || ways().len() == 1);
}

/// Each table has one bucket here, so the second stack finds none in the first table, and the fourth in no table.
#[apply(watch_test!)]
fn stacks_that_want_one_place_are_kept_in_another_table_or_counted() {
    if !sees_kernel_functions() {
        return assert_eq!(ways().len(), 1);
    }
    let mut calls = Calls::start();
    let scratch = Scratch::new();
    let file = scratch.path("cut");
    std::fs::write(&file, [0; 8192]).unwrap();
    let functions = vec![
        syscall("truncate", 2),
        function("vfs_truncate", HAS_RESULT | RESULT_INT, vec![]),
        syscall("ftruncate", 2),
        syscall("mprotect", 3),
    ];
    let recorder = start(&Plan { kernel_stacks: Some(1), ..plan(calls.pid(), functions) });
    // Twice: what has its place keeps it.
    for _ in 0..2 {
        calls.tell(&format!("truncate {}", file.display()));
        calls.tell("many 1");
    }
    let found = calls_of(&recorder, calls.pid());
    assert_eq!(found.iter().map(|call| call.function).collect::<Vec<_>>(), [0, 1, 2, 3, 0, 1, 2, 3], "{found:#?}");
    let stacks: Vec<Option<Vec<u64>>> = found.iter().map(|call| recorder.stack(call.stack)).collect();
    let counters = recorder.counters().unwrap();
    let missing = stacks.iter().filter(|stack| stack.is_none()).count() as u64;
    assert_eq!(counters.losses.get("stack_table_full") + counters.losses.get("stacks_missed"), missing, "{counters:?}");
    let different: std::collections::BTreeSet<&Vec<u64>> = stacks.iter().flatten().collect();
    assert_eq!(different.len(), 3, "one in each table: {stacks:x?}, {counters:?}");
}

/// A tmpfs makes a folder in more functions that call one another than there is room for, whatever the kernel calls them.
#[apply(watch_test!)]
fn calls_that_are_too_deep_in_one_another_have_no_end() {
    if !sees_kernel_functions() {
        return assert_eq!(ways().len(), 1);
    }
    let mut calls = Calls::start();
    let scratch = Scratch::new();
    let names = [
        "do_mkdirat",
        "filename_mkdirat",
        "vfs_mkdir",
        "shmem_mkdir",
        "shmem_mknod",
        "shmem_get_inode",
        "__shmem_get_inode",
        "new_inode",
        "new_inode_pseudo",
        "alloc_inode",
        "shmem_alloc_inode",
    ];
    let mut functions = vec![syscall("mkdir", 2), syscall("mprotect", 3)];
    functions.extend(names.iter().map(|name| function(name, HAS_RESULT, vec![])));
    let (recorder, attached) = Recorder::start(&plan(calls.pid(), functions)).unwrap();
    let recorder = Recording { recorder, counts_ends: false };
    assert_eq!(calls.tell(&format!("folder {}", scratch.path("made").display()))["mkdir"], 0);
    let states = || calls_of(&recorder, calls.pid()).iter().map(|call| call.state).collect::<Vec<_>>();
    let deep = states().len();
    assert!(deep > 8, "{deep} deep: {attached:#?}");
    let (open, ended) = (vec![fl_call_state::FL_CALL_OPEN; deep - 8], vec![fl_call_state::FL_CALL_ENDED; 8]);
    assert_eq!(states(), [open, ended.clone()].concat());
    let counters = recorder.counters().unwrap();
    assert_eq!(
        (counters.losses.get("nested_too_deep"), counters.losses.get("ends_missed")),
        (deep as u64 - 8, 0),
        "{counters:?}"
    );
    // The next system call proves that they have ended.
    calls.tell("many 1");
    let missed = vec![fl_call_state::FL_CALL_END_MISSED; deep - 8];
    let states = calls_of(&recorder, calls.pid()).iter().map(|call| call.state).collect::<Vec<_>>();
    assert_eq!(states, [missed, ended, vec![fl_call_state::FL_CALL_ENDED]].concat());
    let counters = recorder.counters().unwrap();
    assert_eq!(
        (counters.losses.get("nested_too_deep"), counters.losses.get("ends_missed")),
        (deep as u64 - 8, deep as u64 - 8),
        "{counters:?}"
    );
}

#[apply(watch_test!)]
fn twenty_functions_are_attached_at_once() {
    let calls = Calls::start();
    let names = [
        "mmap",
        "munmap",
        "mprotect",
        "mremap",
        "brk",
        "madvise",
        "truncate",
        "ftruncate",
        "fallocate",
        "openat",
        "close",
        "read",
        "write",
        "rt_sigaction",
        "kill",
        "tgkill",
        "unlinkat",
        "fsync",
        "msync",
        "mlock",
    ];
    let functions: Vec<Function> = names.iter().map(|name| syscall(name, 1)).collect();
    // An emulated guest takes seconds for each of them, which say nothing, and has the other ways in the tests of their own.
    let ways = if sees_kernel_functions() { vec![(Attach::Auto, Way::Fentry)] } else { ways() };
    for (attach, how) in ways {
        let plan = plan_by(attach, calls.pid(), functions.clone());
        let begin = Instant::now();
        let recorder = start(&plan);
        let took = begin.elapsed();
        let attached = recorder.attached().to_vec();
        let begin = Instant::now();
        drop(recorder);
        println!("{how:?}: 20 functions attached in {took:?}, detached in {:?}", begin.elapsed());
        assert!(attached.iter().all(|attached| attached.how == Some(how)), "{attached:#?}");
        assert!(took.as_secs() == 0 || sees_kernel_functions(), "{how:?}: {took:?}");
    }
}

#[apply(watch_test!)]
fn what_finds_no_room_is_counted() {
    let mut calls = Calls::start();
    // A call that never comes back to where its end is seen.
    let functions = vec![syscall("rt_sigreturn", 0), syscall("mprotect", 3)];
    let plan = Plan {
        trigger_signals: vec![12],
        kernel_stacks: Some(2048),
        ..plan_by(Attach::By(Way::Tracepoint), calls.pid(), functions)
    };
    let recorder = start(&plan);
    calls.tell("signal 10");
    calls.tell("many 2");
    let counters = recorder.counters().unwrap();
    // The next call gives up the one before: nothing is held for it, and the ends of others are still found.
    assert_eq!((counters.calls, counters.returns, counters.losses.get("ends_missed")), (12, 2, 10), "{counters:?}");
    assert_eq!(counters.losses.get("nested_too_deep"), 0, "{counters:?}");
    let kept = calls_of(&recorder, calls.pid());
    let states: Vec<fl_call_state> = kept.iter().map(|call| call.state).collect();
    let (missed, ended) = (fl_call_state::FL_CALL_END_MISSED, fl_call_state::FL_CALL_ENDED);
    assert_eq!(states, [[missed; 10].as_slice(), &[ended; 2]].concat(), "{kept:#?}");
    assert_eq!(kept[10].values[0], 0x1000, "the ends are still found");

    // Nobody reads the ring: what doesn't fit is missing, and nothing else.
    calls.tell("signal 2000");
    let found = samples(&recorder).len() as u64;
    let counters = recorder.counters().unwrap();
    assert_eq!(counters.triggers, 2010, "{counters:?}");
    assert_eq!(found + counters.losses.get("trigger_ring_full"), 2010, "{counters:?}");
    assert!(found > 100 && counters.losses.get("trigger_ring_full") > 100, "{counters:?}");
    assert_eq!(counters.losses.reasons().count(), 2, "{counters:?}");
}

#[apply(watch_test!)]
fn what_an_interrupt_does_is_not_taken_for_the_tasks_deed() {
    if !sees_kernel_functions() {
        return assert_eq!(ways().len(), 1);
    }
    let mut calls = Calls::start();
    // The tick's: tick_sched_timer(), later tick_nohz_handler(), which moves its timer on by one tick.
    let tick = Function { trigger: Some(1), ..function("hrtimer_forward", HAS_RESULT | QUIET, Vec::new()) };
    let failing = Function { trigger: Some(-22), ..syscall("munmap", 2) };
    let mut plan = plan(calls.pid(), vec![tick, failing]);
    for (attach, how) in ways().split_off(1) {
        plan.setup.attach = attach;
        let recorder = start(&plan);
        calls.tell("spin 300000");
        calls.tell("memory");
        let (mut ticks, mut failed) = (0, 0);
        for sample in samples(&recorder) {
            let Sample::Trigger(event, _) = sample else { panic!("{sample:?}") };
            assert_eq!(event.pid, calls.pid());
            if event.function == 0 {
                assert_eq!((event.is_certain, event.result), (0, 1), "{how:?}: a tick");
                ticks += 1;
            } else {
                assert_eq!((event.is_certain, event.result), (1, -22), "{how:?}: its own call");
                failed += 1;
            }
        }
        assert!(ticks > 0 && failed == 1, "{how:?}: {ticks} ticks, {failed} calls");
    }
}

#[apply(watch_test!)]
fn many_functions_are_attached_together_and_one_that_can_not_be_keeps_no_other_from_it() {
    let mut calls = Calls::start();
    if !ways().contains(&(Attach::By(Way::KprobeMulti), Way::KprobeMulti)) {
        let plan = plan_by(Attach::By(Way::KprobeMulti), calls.pid(), vec![syscall("truncate", 2)]);
        let (_, attached) = Recorder::start(&plan).unwrap();
        let [(Way::KprobeMulti, why)] = attached[0].failures.as_slice() else { panic!("{attached:#?}") };
        return assert!(attached[0].how.is_none() && !why.is_empty(), "{attached:#?}");
    }
    let names = {
        let btf = Btf::from_vmlinux().unwrap();
        let ids = (1..u32::try_from(btf.len()).unwrap()).map(libbpf_rs::btf::TypeId::from);
        let found = ids.filter_map(|id| Some(btf.type_by_id::<Func<'_>>(id)?.name()?.to_str()?.to_owned()));
        let found: std::collections::BTreeSet<String> = found.filter(|name| name.starts_with("vfs_")).collect();
        found.into_iter().take(120).collect::<Vec<String>>()
    };
    assert!(names.len() > 70, "{names:?}");
    let mut functions =
        vec![syscall_with("truncate", 2, 0, vec![text(0), value(1)]), function("vfs_no_such", 0, vec![])];
    functions.extend(names.iter().map(|name| function(name, HAS_RESULT, values(2))));
    let scratch = Scratch::new();
    let file = scratch.path("cut");
    std::fs::write(&file, [0; 8192]).unwrap();
    let begin = Instant::now();
    let (recorder, attached) = Recorder::start(&plan(calls.pid(), functions)).unwrap();
    let by = |wanted: Option<Way>| attached.iter().filter(|attached| attached.how == wanted).count();
    println!("{} functions attached in {:?}, {} together", attached.len(), begin.elapsed(), by(Some(Way::KprobeMulti)));
    assert!(by(Some(Way::KprobeMulti)) > 60, "{attached:#?}");
    assert!(attached[1].how.is_none() && attached[1].failures.len() == 3, "{:#?}", attached[1]);
    calls.tell(&format!("truncate {}", file.display()));
    let found = calls_of(&recorder, calls.pid());
    let cut = found.iter().find(|call| call.function == 0).unwrap();
    assert_eq!((text_of(cut, 0, 0), cut.values[1], cut.result), (format!("{}\0", file.display()), 4096, 0));
    let number = 2 + names.iter().position(|name| name == "vfs_truncate").unwrap() as u32;
    assert!(found.iter().any(|call| call.function == number && call.values[1] == 4096), "{found:#?}");
}
