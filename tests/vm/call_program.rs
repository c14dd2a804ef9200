//! The recorder on BPF programs: those of tests/programs/bpf, which the test loads and has the kernel run.

use std::io::BufRead as _;
use std::net::{TcpListener, TcpStream};
use std::os::fd::{AsRawFd as _, FromRawFd as _, OwnedFd};
use std::process::{Command, Output};
use std::sync::mpsc;
use std::time::Duration;

use libbpf_rs::btf::Btf;
use libbpf_rs::btf::types::Func;
use libbpf_rs::libbpf_sys::{BPF_ALU64, BPF_EXIT, BPF_JMP, BPF_K, BPF_MOV, BPF_PROG_TYPE_XDP, bpf_insn, bpf_prog_load};
use libbpf_rs::query::ProgInfoIter;
use libbpf_rs::{MapCore as _, Object, ObjectBuilder, ProgramInput};
use macro_rules_attribute::apply;
use serde_json::{Value, json};

use crate::call_cause::argument;
use crate::harness::runs::{Watch as _, watch_test};
use crate::harness::{FAULTLINE, Watching, programs, records};
use crate::recorder::sees_kernel_functions;

/// An object of tests/programs/bpf, loaded.
fn load(name: &str) -> Object {
    let path = programs().join(format!("{name}.bpf.o"));
    ObjectBuilder::default().open_file(&path).unwrap().load().unwrap_or_else(|error| panic!("{name}: {error:#}"))
}

/// `faultline call` on these programs, for calls of this process as they end. `None`: this kernel can't see programs, and it has said so of
/// each that `names` stands for.
fn watch(names: &[&str], flags: &[&str]) -> Option<Watching> {
    let pid = std::process::id().to_string();
    let mut command = Command::new(FAULTLINE);
    command.arg("call").args(names).args(["-p", &pid, "--format", "json"]).args(flags);
    let (mut watching, line) = Watching::try_start(&mut command);
    if sees_kernel_functions() {
        assert!(line.starts_with("faultline: watching "), "{line}");
        return Some(watching);
    }
    let begin =
        format!("faultline: failed to attach to bpf:{}", names[0].trim_start_matches("bpf:").trim_end_matches('*'));
    assert!(line.starts_with(&begin) && line.contains("fentry and fexit: "), "{line}");
    assert_eq!(watching.end().status.code(), Some(2));
    None
}

/// An XDP program without types, which passes everything on.
fn load_untyped() -> OwnedFd {
    let code = |code: u32, value: i32| bpf_insn { code: code as u8, imm: value, ..bpf_insn::default() };
    let instructions = [code(BPF_ALU64 | BPF_MOV | BPF_K, 2), code(BPF_JMP | BPF_EXIT, 0)];
    // SAFETY: the pointers are to memory that lives during the call, with its length beside it; there are no options.
    unsafe {
        let (name, license) = (c"test_untyped".as_ptr(), c"GPL".as_ptr());
        let program = bpf_prog_load(BPF_PROG_TYPE_XDP, name, license, instructions.as_ptr(), 2, std::ptr::null_mut());
        assert!(program >= 0, "{}", std::io::Error::from_raw_os_error(-program));
        OwnedFd::from_raw_fd(program)
    }
}

fn of<'run>(records: &'run [Value], kind: &str) -> Vec<&'run Value> {
    records.iter().filter(|record| record["type"] == kind).collect()
}

/// The report at the end, and that nothing was lost.
fn report(output: &Output) -> Value {
    let records = records(&output.stdout);
    let stderr = String::from_utf8_lossy(&output.stderr);
    let report = records.last().unwrap();
    assert_eq!((&report["type"], &report["final"]), (&"call_report".into(), &true.into()), "{stderr}");
    report.clone()
}

fn number(value: &Value) -> u64 {
    u64::from_str_radix(value.as_str().unwrap().trim_start_matches("0x"), 16).unwrap()
}

#[apply(watch_test!)]
fn a_program_is_seen_with_the_kernels_own_context_and_its_verdict_by_name() {
    const NAME: &str = "bpf:test_drops_odd_packets";
    let object = load("packets");
    let program = object.progs_mut().next().unwrap();
    let id = ProgInfoIter::default().filter(|info| info.name == "test_drops_odd_").map(|info| info.id).max().unwrap();
    let verdict = |first: u8, length: usize| {
        let packet = vec![first; length];
        program.test_run(ProgramInput { data_in: Some(&packet), ..ProgramInput::default() }).unwrap().return_value
    };
    let pid = std::process::id().to_string();
    let flags = ["--bpf-of", &pid, "--live=1000", "--trigger", "bpf:test_drops_odd_packets=1", "--strict"];
    let Some(watching) = watch(&["bpf:test_drops_odd_*"], &flags) else { return };
    assert_eq!((verdict(2, 64), verdict(4, 100), verdict(1, 60)), (2, 2, 1));
    let output = watching.stop_after("call_trigger", 1, "TERM");
    assert_eq!((verdict(2, 64), verdict(1, 60)), (2, 1), "and goes on as before");
    let (records, report) = (records(&output.stdout), report(&output));
    let calls = of(&records, "call");
    let expected = [("XDP_PASS", 64), ("XDP_PASS", 100), ("XDP_DROP", 60)];
    assert_eq!(calls.len(), expected.len(), "{calls:#?}");
    for (call, (verdict, length)) in calls.iter().zip(expected) {
        assert_eq!((&call["function"], &call["return"]), (&NAME.into(), &verdict.into()));
        let at = |name: &str| argument(call, &format!("ctx:xdp_buff.{name}"));
        assert_eq!(number(at("data_end")) - number(at("data")), length, "{call:#}");
        assert_eq!((at("queue_index"), &call["attach"]), (&0.into(), &"fentry".into()));
    }
    let trigger = of(&records, "call_trigger")[0];
    assert_eq!(trigger["trigger"], "bpf:test_drops_odd_packets=1");
    assert_eq!(trigger["calls"].as_array().unwrap().len(), 3, "{trigger:#}");
    let function = &report["functions"][0];
    assert_eq!(function["program"], json!({ "id": id, "type": "xdp", "hook": null }), "{report:#}");
    assert_eq!(report["function_stages"], json!({ "requested": 2, "resolved": 1, "loadable": 1, "attached": 1 }));
    assert_eq!(output.status.code(), Some(0), "{}", String::from_utf8_lossy(&output.stderr));
}

/// setsockopt(TCP_CONGESTION)
fn choose(stream: &TcpStream, name: &str) {
    // SAFETY: the pointer is to memory that lives during the call, with its length beside it.
    let result = unsafe {
        let (value, length) = (name.as_ptr().cast(), name.len() as u32);
        libc::setsockopt(stream.as_raw_fd(), libc::IPPROTO_TCP, libc::TCP_CONGESTION, value, length)
    };
    assert_eq!(result, 0, "{name}: {}", std::io::Error::last_os_error());
}

#[apply(watch_test!)]
fn a_callback_has_the_arguments_of_the_member_that_it_stands_for() {
    let mut object = load("congestion");
    let mut map = object.maps_mut().find(|map| map.name() == "test_cc").unwrap();
    let _registered = map.attach_struct_ops().unwrap();
    let pid = std::process::id().to_string();
    if std::env::var("FAULTLINE_KERNEL").is_ok_and(|kernel| kernel == "5.10") {
        // To try it would take the kernel down.
        let output = Command::new(FAULTLINE).args(["call", "bpf:test_cc_*", "--bpf-of", &pid, "--", "true"]).watch();
        let stderr = String::from_utf8(output.stderr).unwrap();
        assert!(stderr.contains("this kernel's verifier would crash on it"), "{stderr}");
        return assert_eq!(output.status.code(), Some(2));
    }
    let flags = ["--bpf-of", &pid, "--callers", "--live=1000", "--trigger", "bpf:test_cc_release:sk:sock.skc_family=2"];
    let Some(watching) = watch(&["bpf:test_cc_*"], &flags) else { return };
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let stream = TcpStream::connect(listener.local_addr().unwrap()).unwrap();
    choose(&stream, "test_cc");
    choose(&stream, "reno");
    let output = watching.stop_after("call_trigger", 1, "TERM");
    let (records, report) = (records(&output.stdout), report(&output));
    let trigger = of(&records, "call_trigger")[0]["calls"].as_array().unwrap();
    for (program, caller) in
        [("bpf:test_cc_init", "tcp_init_congestion_control"), ("bpf:test_cc_release", "tcp_cleanup_congestion_control")]
    {
        let place = trigger.iter().position(|call| call["function"] == program).unwrap();
        // Compilers of some kernels have put the second caller into the first.
        assert_around(trigger, place, &[caller, "tcp_set_congestion_control"], 1);
    }
    let calls: Vec<&Value> = of(&records, "call");
    let calls: Vec<&Value> =
        calls.into_iter().filter(|call| call["function"].as_str().unwrap().starts_with("bpf:")).collect();
    let names: Vec<&str> = calls.iter().map(|call| call["function"].as_str().unwrap()).collect();
    assert_eq!(names, ["bpf:test_cc_init", "bpf:test_cc_release"], "{calls:#?}");
    for call in calls {
        let own = [("skc_family", libc::AF_INET as u16), ("skc_num", stream.local_addr().unwrap().port())];
        for (field, expected) in own {
            assert_eq!(argument(call, &format!("sk:sock.{field}")), expected, "{call:#}");
        }
        assert_eq!((&call["return"], &call["state"]), (&Value::Null, &"returned".into()));
    }
    let hooks: Vec<&Value> =
        report["functions"].as_array().unwrap().iter().map(|one| &one["program"]["hook"]).collect();
    let members = ["ssthresh", "cong_avoid", "undo_cwnd", "init", "release"];
    for member in members {
        assert!(hooks.contains(&&format!("tcp_congestion_ops.{member}").into()), "{report:#}");
    }
    let skipped = ProgInfoIter::default().filter(|info| info.name.to_string_lossy().starts_with("test_cc_"));
    assert!(skipped.map(|info| info.recursion_misses).all(|misses| misses == 0), "its own runs are all there");
}

#[apply(watch_test!)]
fn a_program_that_can_not_be_seen_is_told_why_and_the_others_go_on() {
    let _untyped = load_untyped();
    let mut command = Command::new(FAULTLINE);
    command.args(["call", "munmap", "bpf:test_untyped", "bpf:test_untypd", "--format", "json"]);
    // A tracepoint, and a condition that no call meets: each kernel's verifier is to see both.
    command.args(["tp_btf:oom_score_adj_update", "--trigger", "munmap:len=4095", "--trigger", "tp_btf:no_such_event"]);
    let (watching, line) = Watching::try_start(&mut command);
    assert!(line.starts_with("faultline: watching "), "{line}");
    let output = watching.stop("TERM");
    let report = report(&output);
    let untyped = report["functions"].as_array().unwrap().iter().find(|one| one["function"] == "bpf:test_untyped");
    let untyped = untyped.unwrap_or_else(|| panic!("{report:#}"));
    assert_eq!((&untyped["state"], &untyped["attach"]), (&"not_probeable".into(), &Value::Null));
    let why = untyped["failures"][0]["error"].as_str().unwrap();
    let expected =
        if sees_kernel_functions() { "it was loaded without types (BTF)" } else { "this kernel does not let us (" };
    assert!(why.starts_with(expected), "{untyped:#}");
    let missing = json!([
        { "name": "tp_btf:no_such_event", "near": [] },
        { "name": "bpf:test_untypd", "near": ["bpf:test_untyped"] },
    ]);
    assert_eq!(report["not_found"], missing);
    assert_eq!(report["function_stages"], json!({ "requested": 5, "resolved": 3, "loadable": 2, "attached": 2 }));
    let no_event = "no tracepoint of this kernel is called so";
    let triggers = json!([
        { "trigger": "munmap:len=4095", "state": "attached", "fired": 0, "why": "it never happened" },
        { "trigger": "tp_btf:no_such_event", "state": "not_attached", "fired": 0, "why": no_event },
    ]);
    assert_eq!(report["triggers"], triggers);
    let event = report["functions"].as_array().unwrap().iter().find(|one| one["attach"] == "tp_btf");
    assert_eq!(event.unwrap_or_else(|| panic!("{report:#}"))["function"], "tp_btf:oom_score_adj_update");
}

#[apply(watch_test!)]
fn a_program_that_is_loaded_later_is_seen_as_well() {
    let pid = std::process::id().to_string();
    let mut command = Command::new(FAULTLINE);
    command.args(["call", "bpf:test_comes_late", "--follow-bpf", "-p", &pid, "--live=1000", "--format", "json"]);
    let (mut watching, line) = Watching::try_start(&mut command);
    assert!(line.starts_with("faultline: watching "), "{line}");
    let object = load("late");
    let said = loop {
        let mut line = String::new();
        assert_ne!(watching.stderr.read_line(&mut line).unwrap(), 0, "it ended");
        if line.contains("test_comes_late") && !line.contains("not found") {
            break line;
        }
    };
    let packet = [0; 64];
    let input = ProgramInput { data_in: Some(&packet), ..ProgramInput::default() };
    assert_eq!(object.progs_mut().next().unwrap().test_run(input).unwrap().return_value, 2);
    if !sees_kernel_functions() {
        assert!(said.starts_with("faultline: not probeable: bpf:test_comes_late ("), "{said}");
        let report = report(&watching.stop("TERM"));
        assert_eq!(report["functions"][0]["state"], "not_probeable", "{report:#}");
        return;
    }
    assert_eq!(said, "faultline: watching bpf:test_comes_late as well\n");
    let output = watching.stop_after("call", 1, "TERM");
    let (records, report) = (records(&output.stdout), report(&output));
    let calls = of(&records, "call");
    assert_eq!((&calls[0]["function"], &calls[0]["return"]), (&"bpf:test_comes_late".into(), &"XDP_PASS".into()));
    assert_eq!(
        (&records[0]["functions"], &records[0]["not_found"][0]["name"]),
        (&json!([]), &"bpf:test_comes_late".into())
    );
    let function = &report["functions"][0];
    assert!(function["added"].is_string() && report["not_found"] == json!([]), "{report:#}");
}

/// How often the scheduler serves its victim before it makes its error.
const PATIENCE: u32 = 3;

/// A thread that is woken by a message, and answers it.
fn sleeper() -> (u32, mpsc::Sender<()>, mpsc::Receiver<()>) {
    let ((wake, woken), (answer, answered), (tell, told)) = (mpsc::channel(), mpsc::channel(), mpsc::channel());
    std::thread::spawn(move || {
        tell.send(nix::unistd::gettid().as_raw() as u32).unwrap();
        while woken.recv().is_ok() && answer.send(()).is_ok() {}
    });
    (told.recv().unwrap(), wake, answered)
}

/// A scheduler that makes an error when it has served this thread for a while; it isn't registered yet.
fn load_scheduler(victim: u32) -> Object {
    let path = programs().join("scheduler.bpf.o");
    let mut object = ObjectBuilder::default().open_file(&path).unwrap();
    let mut constants = object.maps_mut().find(|map| map.name().to_string_lossy().ends_with(".rodata")).unwrap();
    let words: Vec<u8> = [victim, PATIENCE].iter().flat_map(|word| word.to_ne_bytes()).collect();
    constants.initial_value_mut().unwrap()[..words.len()].copy_from_slice(&words);
    object.load().unwrap()
}

/// What faultline says of a scheduler that it watches until the kernel ends it: the trigger, and the report. Whether it comes before faultline
/// is started or after must make no difference.
fn end_of_a_scheduler(comes_first: bool) -> (Value, Value) {
    let (victim, wake, answered) = sleeper();
    let register = || {
        let mut object = load_scheduler(victim);
        let scheduler = object.maps_mut().find(|map| map.name() == "test_scx").unwrap().attach_struct_ops().unwrap();
        (object, scheduler)
    };
    let flags = ["--callers", "--trigger", "scheduler_error"];
    let pid = std::process::id().to_string();
    // Programs of a scheduler that has gone may go later; others of the same name would have another one.
    while ProgInfoIter::default().any(|info| info.name.to_string_lossy().starts_with("test_scx_")) {
        std::thread::sleep(Duration::from_millis(1));
    }
    let (_registered, watching) = if comes_first {
        let registered = register();
        (registered, watch(&["bpf:test_scx_*"], &[&flags[..], &["--bpf-of", &pid]].concat()).unwrap())
    } else {
        let mut watching = watch(&["bpf:test_scx_*"], &[&flags[..], &["--follow-bpf"]].concat()).unwrap();
        let registered = register();
        await_lines(&mut watching, &["watching bpf:test_scx_enqueue as well", "bpf:test_scx_select_cpu as well"]);
        (registered, watching)
    };
    assert!(is_scheduled());
    // A message that comes before the thread sleeps wakes nobody: it gets more until the scheduler has ended.
    for _ in 0..10_000 {
        if !is_scheduled() {
            break;
        }
        std::thread::sleep(Duration::from_millis(1));
        wake.send(()).unwrap();
        answered.recv().unwrap();
    }
    let output = watching.stop_after("call_trigger", 1, "TERM");
    let (records, report) = (records(&output.stdout), report(&output));
    let trigger = of(&records, "call_trigger")[0].clone();
    let served = trigger["calls"].as_array().unwrap().iter().filter(|call| call["function"] == "bpf:test_scx_enqueue");
    let is_woken = |call: &&Value| {
        let flags = argument(call, "enq_flags").as_str().unwrap_or_default();
        argument(call, "p:task_struct.pid") == victim && flags.split('|').any(|flag| flag == "SCX_ENQ_WAKEUP")
    };
    assert!(served.clone().any(|call| is_woken(&call)), "{trigger:#}");
    (trigger, report)
}

fn is_scheduled() -> bool {
    std::fs::read_to_string("/sys/kernel/sched_ext/state").unwrap().trim() == "enabled"
}

/// Reads what it says until all of these have been said.
fn await_lines(watching: &mut Watching, parts: &[&str]) {
    let mut said = String::new();
    while !parts.iter().all(|part| said.contains(part)) {
        assert_ne!(watching.stderr.read_line(&mut said).unwrap(), 0, "it ended: {said}");
    }
}

/// The functions around a call must be these, the innermost first, or the last `some` of them.
fn assert_around(calls: &[Value], index: usize, expected: &[&str], some: usize) {
    if cfg!(target_arch = "aarch64") {
        // Our programs can't find out there whether they are in an interrupt.
        return assert_eq!(calls[index]["depth"], Value::Null, "{:#}", calls[index]);
    }
    let around = around(calls, index);
    assert!(around == expected || around == expected[expected.len() - some..], "{around:?}: {calls:#?}");
}

/// The functions around a call, the innermost first, as `depth` says.
fn around(calls: &[Value], index: usize) -> Vec<&str> {
    let mut depth = calls[index]["depth"].as_u64().unwrap_or_else(|| panic!("no depth: {:#}", calls[index]));
    let mut around = Vec::new();
    for call in calls[..index].iter().rev() {
        if depth > 0 && call["depth"] == depth - 1 && call["in_interrupt"] == calls[index]["in_interrupt"] {
            around.push(call["function"].as_str().unwrap());
            depth -= 1;
        }
    }
    around
}

#[apply(watch_test!)]
fn the_last_calls_of_a_scheduler_are_shown_when_the_kernel_ends_it() {
    let btf = Btf::from_vmlinux().unwrap();
    let has = |name: &str| btf.type_by_name::<Func<'_>>(name).is_some();
    // Debian's 6.18 has schedulers, and its compiler has put scx_vexit() into its callers.
    let kernel = std::env::var("FAULTLINE_KERNEL").unwrap_or_default();
    let end = match kernel.as_str() {
        "7.2" => "scx_vexit",
        "6.18" => "scx_exit",
        _ => {
            assert!(!has("scx_vexit") && !has("scx_exit"), "{kernel}");
            let output = Command::new(FAULTLINE).args(["call", "--trigger", "scheduler_error", "--", "true"]).watch();
            let stderr = String::from_utf8(output.stderr).unwrap();
            assert!(stderr.contains("--trigger `scheduler_error`: this kernel has no BPF schedulers"), "{stderr}");
            return assert_eq!(output.status.code(), Some(2));
        }
    };
    let runs = [true, false].map(end_of_a_scheduler);
    for (trigger, report) in &runs {
        let words = format!("{end}:kind>=SCX_EXIT_ERROR");
        assert_eq!(trigger["trigger"], words);
        let calls = trigger["calls"].as_array().unwrap();
        let ended = calls.len() - 1;
        assert_eq!(
            (&calls[ended]["function"], argument(&calls[ended], "kind")),
            (&end.into(), &"SCX_EXIT_ERROR".into())
        );
        // The queue that isn't there is looked for when the program has returned.
        let callers = ["do_enqueue_task", "enqueue_task_scx"];
        assert_around(calls, ended, &callers, callers.len());
        let served = calls.iter().rposition(|call| call["function"] == "bpf:test_scx_enqueue").unwrap();
        assert_around(calls, served, &callers, callers.len());
        let expected = json!([{ "trigger": words, "state": "attached", "fired": 1, "why": null }]);
        assert_eq!(report["triggers"], expected);
        let callers = report["callers"].as_array().unwrap();
        let state =
            |function: &str| callers.iter().find(|caller| caller["function"] == function).map(|one| &one["state"]);
        for function in ["select_task_rq_scx", "do_enqueue_task", "enqueue_task_scx"] {
            assert_eq!(state(function), Some(&"attached".into()), "{report:#}");
        }
    }
    let same = |(_, report): &(Value, Value)| {
        let functions = report["functions"].as_array().unwrap();
        let facts = |one: &Value| [&one["function"], &one["attach"], &one["program"]["hook"]].map(Value::to_string);
        let mut facts: Vec<_> = functions.iter().map(facts).collect();
        facts.sort();
        let mut callers: Vec<String> = report["callers"].as_array().unwrap().iter().map(Value::to_string).collect();
        callers.sort();
        (facts, callers, report["not_found"].clone(), report["function_stages"].clone())
    };
    assert_eq!(same(&runs[0]), same(&runs[1]), "whichever was first");
}
