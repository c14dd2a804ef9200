//! Unit tests of the library: the text and the JSON of records that are built by hand, with fixed times and addresses, compared with
//! snapshots.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

use crate::evidence::Change;
use crate::hex::Hex;
use crate::output::{Record, Timestamp};
use crate::probe::Way;
use crate::record::Head;
use crate::record::call::{Argument, Call, KernelFrame, Relation, State, Value};
use crate::record::crash::{Crash, Disposition, Frame, PageFault, Registers, Sender, Vma};
use crate::record::lines::InFile;
use crate::text::escape_strings;

fn vma(start: u64, permissions: &str, mapping_name: Option<&str>) -> Vma {
    Vma {
        start: Hex(start),
        end: Hex(start + 0x1000),
        permissions: permissions.to_owned(),
        mapping_name: mapping_name.map(str::to_owned),
        offset: Hex(0),
    }
}

fn frame(address: u64, symbol: Option<&str>, line: Option<u32>) -> Frame {
    Frame {
        address: Some(Hex(address)),
        symbol: symbol.map(str::to_owned),
        module: Some("/usr/bin/myapp".to_owned()),
        build_id: Some("0123456789abcdef0123456789abcdef01234567".to_owned()),
        offset: Some(Hex(address & 0xffff)),
        file: line.map(|_| "src/main.c".to_owned()),
        line,
        inlined: false,
    }
}

fn segfault() -> Crash {
    Crash {
        head: Head::new("crash", Timestamp::from_unix_ns(1_707_993_045_123_456_000).unwrap(), "web-1"),
        pid: 1234,
        tid: 1234,
        ppid: 1,
        pid_in_namespace: 1234,
        comm: "myapp".to_owned(),
        thread_name: "myapp".to_owned(),
        exe: Some("/usr/bin/myapp".to_owned()),
        build_id: Some("0123456789abcdef0123456789abcdef01234567".to_owned()),
        uid: 1000,
        cgroup: Some("/system.slice/myapp.service".to_owned()),
        container_id: None,
        signal: "SIGSEGV".to_owned(),
        signal_number: 11,
        code: Some("SEGV_MAPERR".to_owned()),
        code_number: Some(1),
        fault_type: Some("map_error".into()),
        fault_address: Some(Hex(0x18)),
        instruction_pointer: Some(Hex(0x5555_5555_4010)),
        instruction_symbol: Some("main+0x10".to_owned()),
        disposition: Disposition::Fatal,
        ended_by: None,
        earlier_fault: None,
        oom: None,
        sender: None,
        reason: None,
        page_fault: Some(PageFault {
            error_code: 6,
            access: "write".into(),
            flags: vec!["write".into(), "user".into()],
        }),
        seccomp: None,
        abort_message: None,
        runtime_message: None,
        registers: Some(Registers::from(vec![
            ("rip", Hex(0x5555_5555_4010)),
            ("rsp", Hex(0x7fff_0000)),
            ("rax", Hex(0)),
            ("rbx", Hex(u64::MAX)),
        ])),
        vma: None,
        vma_below: None,
        vma_above: Some(vma(0x5555_5555_4000, "r-xp", Some("/usr/bin/myapp"))),
        stack_trace: Some(vec![
            Frame { inlined: true, ..frame(0x5555_5555_4010, Some("deref"), Some(7)) },
            frame(0x5555_5555_4010, Some("main+0x10"), Some(12)),
            Frame { file: None, ..frame(0x7fff_f7a2_d0b3, None, None) },
            Frame { module: None, build_id: None, offset: None, ..frame(0x4141_4141, None, None) },
        ]),
        stack_complete: Some(false),
        stack_omitted: None,
        unwinder: Some("frame_pointer".into()),
        signature: "0123456789abcdef".to_owned(),
        family: Some("fedcba9876543210".to_owned()),
        symbols_failed: Vec::new(),
        diagnosis: None,
        cpu: 3,
        calls: None,
        is_brief: false,
    }
}

fn sent() -> Crash {
    Crash {
        tid: 1240,
        thread_name: "worker\u{1b}[2J\n[forged]".to_owned(),
        pid_in_namespace: 7,
        container_id: Some("0123456789abcdef0123456789abcdef0123456789abcdef0123456789abcdef".to_owned()),
        abort_message: Some("app: \u{1b}[31mfree(): invalid pointer".to_owned()),
        exe: None,
        build_id: None,
        signal: "SIGABRT".to_owned(),
        signal_number: 6,
        code: Some("SI_USER".to_owned()),
        code_number: Some(0),
        fault_type: None,
        fault_address: None,
        instruction_symbol: None,
        oom: None,
        sender: Some(Sender { pid: Some(99), tid: None, comm: Some("watchdog".to_owned()), uid: Some(0) }),
        page_fault: None,
        registers: None,
        vma_above: None,
        stack_trace: None,
        stack_complete: None,
        stack_omitted: None,
        unwinder: None,
        ..segfault()
    }
}

fn argument(name: &str, kind: &str, value: Option<Value>) -> Argument {
    Argument { name: name.to_owned(), kind: kind.to_owned(), value, after: None, raw: None }
}

/// A call that began so long before the crash.
fn call(ms: u64, function: &str, arguments: Vec<Argument>, result: Option<i64>) -> Call {
    const CRASH_NS: u64 = 1_000_000_000;
    Call {
        pid: 1234,
        tid: 1234,
        comm: "myapp".to_owned(),
        function: function.to_owned(),
        attach: Way::Fentry,
        arguments,
        result: result.map(Value::Number),
        error: None,
        state: if result.is_some() { State::Returned } else { State::NotReturned },
        entered: Timestamp::from_unix_ns(1_707_993_045_123_456_000 - i128::from(ms) * 1_000_000).unwrap(),
        duration_ns: result.map(|_| 11_204),
        depth: Some(0),
        in_interrupt: Some(false),
        kernel_stack: None,
        relation: None,
        is_cause: false,
        entered_ns: CRASH_NS - ms * 1_000_000,
        raw_result: result,
    }
}

fn with_calls() -> Crash {
    let address = |address: u64| Some(Value::Address(Hex(address)));
    let words = |words: &str| Some(Value::Words(words.to_owned()));
    let text = |text: &str| Some(Value::Text(text.to_owned()));
    let range = |start: u64, length: i64| {
        vec![argument("addr", "unsigned long", address(start)), argument("len", "size_t", Some(Value::Number(length)))]
    };
    let mut openat = call(
        40,
        "openat",
        vec![
            argument("dfd", "int", words("AT_FDCWD")),
            argument("filename", "const char *", text("/etc/my\napp.conf")),
            argument("flags", "int", words("O_RDONLY|O_CLOEXEC")),
        ],
        Some(-2),
    );
    openat.error = Some("ENOENT".to_owned());
    let mut read = call(
        35,
        "vfs_read",
        vec![
            argument("file:file.path", "path", text("/etc/passwd")),
            argument("file:file.i_ino", "unsigned long", Some(Value::Number(7))),
            argument("count", "size_t", Some(Value::Number(4096))),
            Argument { after: Some(Value::Number(832)), ..argument("*pos", "loff_t", Some(Value::Number(0))) },
        ],
        Some(832),
    );
    let frame =
        |address: u64, symbol: Option<&str>| KernelFrame { address: Hex(address), symbol: symbol.map(str::to_owned) };
    read.kernel_stack =
        Some(vec![frame(0xffff_ffff_8100_0009, Some("vfs_read+0x9")), frame(0xffff_ffff_8200_0000, None)]);
    let relation = |kind: Change, text: &str, certain: bool| Relation { kind, text: text.to_owned(), certain };
    let guess = Call {
        relation: Some(relation(Change::Unmapped, "detached the segment at 0x7f8b4b000000", false)),
        ..call(31, "shmdt", vec![argument("shmaddr", "char *", address(0x7f8b_4b00_0000))], Some(0))
    };
    let cause = Call {
        tid: 1240,
        is_cause: true,
        relation: Some(relation(Change::Unmapped, "unmapped 0x7f8b4c000018", true)),
        ..call(30, "munmap", range(0x7f8b_4c00_0000, 4096), Some(0))
    };
    let calls = vec![openat, read, guess, cause, call(2, "munmap", range(0, 4096), None)];
    Crash {
        fault_address: Some(Hex(0x7f8b_4c00_0018)),
        registers: None,
        stack_trace: None,
        calls: Some(calls),
        ..segfault()
    }
}

#[test]
fn a_brief_crash_is_one_line() {
    let brief = |crash: Crash| Crash { is_brief: true, stack_trace: None, ..crash }.text();
    insta::assert_snapshot!([segfault(), sent(), with_calls()].map(brief).concat());
}

#[test]
fn a_crash_with_its_calls_in_text() {
    insta::assert_snapshot!(with_calls().text());
}

#[test]
fn a_crash_with_its_calls_in_json() {
    insta::assert_json_snapshot!(with_calls().calls);
}

#[test]
fn a_segfault_in_text() {
    insta::assert_snapshot!(segfault().text());
}

#[test]
fn a_segfault_in_json() {
    insta::assert_json_snapshot!(segfault());
}

#[test]
fn a_sent_signal_in_text() {
    insta::assert_snapshot!(sent().text());
}

#[test]
fn a_sent_signal_in_json() {
    insta::assert_json_snapshot!(sent());
}

#[test]
fn a_handled_fault_in_its_mapping() {
    let handled = Crash {
        disposition: Disposition::Handled,
        vma: Some(vma(0x7f8b_4c00_0000, "rw-p", None)),
        fault_address: Some(Hex(0x7f8b_4c00_0018)),
        vma_above: None,
        ..segfault()
    };
    insta::assert_snapshot!(handled.text());
}

#[test]
fn a_record_that_was_read_back_has_the_same_text() {
    let kernels = Crash { code: Some("SI_KERNEL".to_owned()), code_number: Some(0x80), ..segfault() };
    let gp = Crash { fault_type: Some("general_protection".into()), fault_address: None, ..kernels.clone() };
    let kernel = Crash { fault_type: Some("kernel".into()), ..kernels };
    let forged = Crash { fault_type: None, fault_address: None, page_fault: None, ..segfault() };
    let by_itself = Crash { sender: sent().sender, ..forged.clone() };
    let kill = Crash { code: None, code_number: None, fault_type: None, ..sent() };
    let nobody = Crash { sender: None, ..sent() };
    let texts = [segfault(), sent(), with_calls(), gp, kernel, forged, by_itself, kill, nobody].map(|record| {
        let known = &mut InFile::default();
        let line = String::from_utf8(record.json(move || known).unwrap()).unwrap();
        let read: Crash = serde_json::from_str(&escape_strings(&line)).unwrap();
        assert_eq!(read.text(), record.text());
        record.text()
    });
    for (text, part) in texts.iter().zip([
        "Address not mapped (SEGV_MAPERR)",
        "Sent by kill (SI_USER)",
        "openat(dfd AT_FDCWD, filename \"/etc/my\\napp.conf\"",
        "General protection fault (SI_KERNEL)",
        "Raised by the kernel (SI_KERNEL)",
        "No fault: sent by the process itself, or as a child's exit signal (SEGV_MAPERR)",
        "No fault: the process sent this to itself (SEGV_MAPERR)",
        "Unknown: the kernel keeps no details",
        "Sent by kill, or by the kernel (SI_USER)",
    ]) {
        assert!(text.contains(part), "{part}: {text}");
    }
}

#[test]
fn a_record_is_one_line() {
    let json = serde_json::to_string(&sent()).unwrap();
    assert!(!json.contains('\n') && !json.contains('\u{1b}'), "{json}");
    assert_eq!(
        sent().text().lines().filter(|line| line.starts_with('[')).count(),
        1,
        "a thread's name forges no record"
    );
}
