//! The recorder on functions inside of the kernel: their arguments, stacks, depth, and many at once.

use std::time::Instant;

use faultline::internals::abi::call::{Sample, fl_call_state, fl_fetch, fl_fetch_flag, fl_fetch_kind};
use faultline::internals::call::{Function, Plan, Recorder};
use faultline::internals::{Attach, Way};
use libbpf_rs::btf::Btf;
use libbpf_rs::btf::types::Func;
use macro_rules_attribute::apply;

use crate::harness::Scratch;
use crate::harness::runs::watch_test;
use crate::recorder::{
    Calls, HAS_RESULT, QUIET, RESULT_INT, Recording, calls_of, function, offset, plan, plan_by, samples,
    sees_kernel_functions, start, syscall, syscall_with, text, text_of, value, values, ways,
};

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
    let mut functions = vec![syscall("mkdirat", 3), syscall("mprotect", 3)];
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
fn what_an_interrupt_does_is_not_taken_for_the_tasks_deed() {
    if !sees_kernel_functions() {
        return assert_eq!(ways().len(), 1);
    }
    let mut calls = Calls::start();
    // The tick's: tick_sched_timer(), later tick_nohz_handler(), which moves its timer on by one tick.
    let tick = Function { trigger: Some(1), ..function("hrtimer_forward", HAS_RESULT | QUIET, Vec::new()) };
    let failing = Function { trigger: Some(-22), ..syscall("munmap", 2) };
    let mut plan = plan(calls.pid(), vec![tick, failing]);
    const ROUNDS: u32 = 64;
    const EACH: u32 = 64;
    for (attach, how) in ways().split_off(1) {
        plan.setup.attach = attach;
        let recorder = start(&plan);
        let (mut ticks, mut failed) = (0, 0);
        // Most of the time of these calls goes into sending their triggers, so that ticks come in the middle of it. A task that has
        // waited for its processor often begins right after a tick, and has made its calls before the next one: each round begins
        // at another time between two ticks, which are at most 10 ms apart.
        for round in 0..ROUNDS {
            calls.tell(&format!("failing {EACH} {}", 10_000 * round / ROUNDS));
            for sample in samples(&recorder) {
                let Sample::Trigger(event, task) = sample else { panic!("{sample:?}") };
                assert_eq!((event.pid, task.calls.len()), (calls.pid(), event.calls as usize));
                if event.function == 0 {
                    assert_eq!((event.is_certain, event.result), (0, 1), "{how:?}: a tick");
                    ticks += 1;
                } else {
                    assert_eq!((event.is_certain, event.result), (1, -22), "{how:?}: its own call");
                    failed += 1;
                }
            }
        }
        let counters = recorder.counters().unwrap();
        assert!(ticks > 0 && failed == ROUNDS * EACH, "{how:?}: {ticks} ticks, {failed} calls, {counters:?}");
    }
    what_a_kprobe_misses_in_an_interrupt_of_another_is_counted(&mut calls);
}

/// The program at the end of munmap() sends a sample and wakes its reader. The kernel does that by an interrupt, which comes at once, while
/// the kprobe runs, so that the kprobe of __wake_up() misses its hit.
fn what_a_kprobe_misses_in_an_interrupt_of_another_is_counted(calls: &mut Calls) {
    let failing = Function { trigger: Some(-22), ..syscall("munmap", 2) };
    let woken = function("__wake_up", 0, Vec::new());
    let recorder = start(&plan_by(Attach::By(Way::Kprobe), calls.pid(), vec![woken, failing]));
    calls.tell("failing 1 0");
    assert_eq!(samples(&recorder).len(), 1);
    let counters = recorder.counters().unwrap();
    // v6.7
    let is_counted = !matches!(std::env::var("FAULTLINE_KERNEL").as_deref(), Ok("5.10" | "6.1"));
    assert_eq!(counters.losses.get("runs_missed") > 0, is_counted, "{counters:?}");
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
