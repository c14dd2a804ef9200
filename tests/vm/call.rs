//! The recorder of kernel calls, against what `tests/programs/calls.c` says that it called.

use std::process::Command;
use std::time::Instant;

use faultline::internals::abi::call::{Sample, fl_call_state, fl_trigger_kind};
use faultline::internals::call::{Attached, Function, Plan, Recorder};
use faultline::internals::{Attach, Filter, Setup, Way};
use macro_rules_attribute::apply;

use crate::harness::runs::watch_test;
use crate::harness::{Scratch, copy_program};
use crate::recorder::{
    ANYONE, Calls, HAS_RESULT, QUIET, RESULT_INT, calls_of, function, plan, plan_by, samples, start, syscall,
    syscall_with, text, text_of, value, values, ways,
};

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
            let best = ways()[1].1;
            assert_eq!((call.how, kernel.how), (Some(best), Some(best)));
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
    let threads = 1500;
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
