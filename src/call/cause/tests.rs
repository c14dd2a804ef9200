use super::*;
use crate::call::subject::FilePlace;
use crate::record::call::Value;
use crate::record::call::tests::call;
use crate::siginfo::{SIGBUS, SIGSEGV};

const ADDRESS: u64 = 0x10_0000;

fn facts(fault: FaultClass) -> Subject {
    Subject {
        pid: 100,
        at_ns: 1_000_000_000,
        fault,
        address: Some(ADDRESS + 8),
        below: None,
        mapped: None,
        signal: SIGSEGV,
        sender: None,
    }
}

/// At `ms` milliseconds.
fn at(ms: u64, mut call: Call) -> Call {
    call.entered_ns = ms * 1_000_000;
    call
}

fn munmap(start: u64) -> Call {
    call("munmap", &[("addr", start), ("len", 4096)], 0)
}

fn mmap(start: u64, prot: u64) -> Call {
    call("mmap", &[("len", 4096), ("prot", prot)], start as i64)
}

fn mprotect(start: u64, prot: u64) -> Call {
    call("mprotect", &[("start", start), ("len", 4096), ("prot", prot)], 0)
}

/// The time of the cause, and the word for it.
fn cause(facts: &Subject, mut calls: Vec<Call>) -> Option<(u64, Change)> {
    relate(facts, &mut calls);
    let causes: Vec<&Call> = calls.iter().filter(|call| call.is_cause).collect();
    assert!(causes.len() <= 1);
    causes.first().map(|call| (call.entered_ns / 1_000_000, call.relation.as_ref().unwrap().kind))
}

#[test]
fn the_newest_munmap_of_the_address_explains_a_hole() {
    let facts = facts(FaultClass::NotMapped);
    let calls = vec![at(9, munmap(0x20_0000)), at(5, munmap(ADDRESS)), at(2, munmap(ADDRESS)), at(3, mmap(ADDRESS, 3))];
    assert_eq!(cause(&facts, calls), Some((5, Change::Unmapped)));
    assert_eq!(cause(&facts, vec![at(5, munmap(0x20_0000))]), None);
    assert_eq!(cause(&facts, vec![at(2000, munmap(ADDRESS))]), None, "it came after the crash");
}

/// It may have failed, and something else made the hole.
#[test]
fn a_call_whose_result_nobody_saw_is_a_likely_cause() {
    for (state, certain) in [(State::Returned, true), (State::EndMissed, false), (State::NotReturned, false)] {
        let mut calls = [Call { state, ..at(5, munmap(ADDRESS)) }];
        if state != State::Returned {
            (calls[0].result, calls[0].raw_result, calls[0].duration_ns) = (None, None, None);
        }
        relate(&facts(FaultClass::NotMapped), &mut calls);
        let relation = calls[0].relation.as_ref().unwrap();
        assert_eq!(
            (calls[0].is_cause, relation.kind, relation.certain),
            (true, Change::Unmapped, certain),
            "{state:?}"
        );
    }
}

/// A call that was not recorded may have mapped the address again, and one more may have unmapped it.
#[test]
fn a_call_since_which_others_were_not_recorded_is_a_likely_cause() {
    for (complete_since_ms, certain) in [(0, true), (5, true), (6, false)] {
        let mut calls = [at(2, munmap(0x20_0000)), at(5, munmap(ADDRESS))];
        relate(&facts(FaultClass::NotMapped), &mut calls);
        doubt(&mut calls, complete_since_ms * 1_000_000);
        let cause = cause_of(&calls).unwrap();
        assert_eq!((cause.change, cause.is_certain), (Change::Unmapped, certain), "{complete_since_ms}");
    }
}

#[test]
fn what_was_mapped_again_is_not_explained_by_what_came_before() {
    let facts = facts(FaultClass::NotMapped);
    let calls = vec![at(5, munmap(ADDRESS)), at(6, mmap(ADDRESS, 3))];
    assert_eq!(cause(&facts, calls), None, "a later call must have unmapped it, and we don't have it");
}

#[test]
fn another_process_has_other_memory() {
    let other = Call { pid: 7, ..munmap(ADDRESS) };
    assert_eq!(cause(&facts(FaultClass::NotMapped), vec![at(5, other)]), None);
    let thread = Call { tid: 101, ..munmap(ADDRESS) };
    assert_eq!(cause(&facts(FaultClass::NotMapped), vec![at(5, thread)]), Some((5, Change::Unmapped)));
}

#[test]
fn of_calls_in_one_another_the_outer_one_counts() {
    let inner = Call { function: "do_vmi_munmap".to_owned(), ..munmap(ADDRESS) };
    let outer = Call { duration_ns: Some(9_000_000), ..munmap(ADDRESS) };
    assert_eq!(cause(&facts(FaultClass::NotMapped), vec![at(6, inner), at(5, outer)]), Some((5, Change::Unmapped)));
}

#[test]
fn permissions_explain_what_they_refuse() {
    let calls = || vec![at(5, mprotect(ADDRESS, 1)), at(6, mprotect(0x20_0000, 0))];
    assert_eq!(cause(&facts(FaultClass::NotAllowed(Access::Write)), calls()), Some((5, Change::Protected)));
    assert_eq!(cause(&facts(FaultClass::NotAllowed(Access::Execute)), calls()), Some((5, Change::Protected)));
    assert_eq!(cause(&facts(FaultClass::NotAllowed(Access::Read)), calls()), None);
    assert_eq!(cause(&facts(FaultClass::NotMapped), calls()), None);
    let none = vec![at(5, mmap(ADDRESS, 0))];
    assert_eq!(cause(&facts(FaultClass::NotAllowed(Access::Read)), none), Some((5, Change::Mapped)));
}

#[test]
fn another_program_has_other_memory() {
    let execve = call("execve", &[], 0);
    let calls = || vec![at(5, munmap(ADDRESS)), at(7, execve.clone())];
    assert_eq!(cause(&facts(FaultClass::NotMapped), calls()), None);
    let mut related = calls();
    relate(&facts(FaultClass::NotMapped), &mut related);
    assert_eq!(related[0].relation, None);
    let failed = Call { raw_result: Some(-2), ..execve.clone() };
    assert_eq!(
        cause(&facts(FaultClass::NotMapped), vec![at(5, munmap(ADDRESS)), at(7, failed)]),
        Some((5, Change::Unmapped))
    );
    let after = [calls(), vec![at(9, munmap(ADDRESS))]].concat();
    assert_eq!(cause(&facts(FaultClass::NotMapped), after), Some((9, Change::Unmapped)));
}

#[test]
fn the_heap_shrinks_from_where_it_was() {
    let brk = |end: u64| call("brk", &[("brk", end)], end as i64);
    let calls = vec![at(1, brk(ADDRESS + 0x2000)), at(2, brk(ADDRESS))];
    assert_eq!(cause(&facts(FaultClass::NotMapped), calls), Some((2, Change::Unmapped)));
    assert_eq!(cause(&facts(FaultClass::NotMapped), vec![at(2, brk(ADDRESS))]), None, "where it was isn't known");
}

fn bus() -> Subject {
    let id = Some(FileId { inode: 42, device: 8 });
    let name = "/tmp/data (deleted)".to_owned();
    Subject { mapped: Some(FilePlace { id, name, offset: 0x3010 }), signal: SIGBUS, ..facts(FaultClass::NoPage) }
}

/// Of a file that had 0x8000 bytes.
fn ftruncate(inode: u64, length: u64) -> Call {
    resize(inode, Some(0x8000), length)
}

fn resize(inode: u64, before: Option<u64>, length: u64) -> Call {
    let arguments = [("fd:file.i_ino", inode), ("fd:file.s_dev", 8), ("length", length)];
    let size = before.map(|before| ("fd:file.i_size", before));
    let arguments: Vec<_> = arguments.into_iter().chain(size).collect();
    Call { pid: 7, tid: 7, ..call("ftruncate", &arguments, 0) }
}

#[test]
fn a_file_that_was_made_longer_was_not_cut() {
    let grew = |before, length| vec![at(5, resize(42, Some(before), length))];
    let facts = bus();
    assert_eq!(cause(&facts, grew(0, 0x1000)), Some((5, Change::Resized)));
    let mut calls = grew(0, 0x1000);
    relate(&facts, &mut calls);
    let text = &calls[0].relation.as_ref().unwrap().text;
    assert_eq!(text, "made the mapped file longer, from 0 to 4096 bytes, and the fault was at offset 12304");
    assert_eq!(cause(&facts, grew(0, 0x4000)), None, "the page is there since");
    assert_eq!(cause(&facts, grew(0x1000, 0x1000)), None, "as long as before");
    assert_eq!(cause(&facts, grew(0x2000, 0x1000)), None, "the page was not there before");
    let cut = || at(4, ftruncate(42, 0));
    assert_eq!(cause(&facts, [vec![cut()], grew(0, 0x1000)].concat()), Some((4, Change::Truncated)), "long before");
    assert_eq!(
        cause(&facts, [grew(0, 0x1000), vec![at(6, ftruncate(42, 0x1000))]].concat()),
        Some((6, Change::Truncated))
    );
}

#[test]
fn that_it_was_longer_must_be_known() {
    let mut calls = vec![at(5, resize(42, None, 0x1000))];
    relate(&bus(), &mut calls);
    let relation = calls[0].relation.as_ref().unwrap();
    assert_eq!((calls[0].is_cause, relation.kind, relation.certain), (true, Change::Truncated, false));
}

#[test]
fn the_truncate_of_the_very_file_explains_a_bus_error() {
    let facts = bus();
    assert_eq!(cause(&facts, vec![at(5, ftruncate(42, 0x1000))]), Some((5, Change::Truncated)));
    assert_eq!(cause(&facts, vec![at(5, ftruncate(43, 0x1000))]), None, "another file");
    assert_eq!(cause(&facts, vec![at(5, ftruncate(42, 0x3001))]), None, "the page is still there");
    assert_eq!(cause(&facts, vec![at(5, ftruncate(42, 0)), at(6, ftruncate(42, 0x8000))]), None, "long again");
    assert_eq!(cause(&facts, vec![at(5, ftruncate(42, 0x3000))]), Some((5, Change::Truncated)), "to the page's begin");
}

#[test]
fn a_name_is_a_guess() {
    let named = |name: &str| {
        let mut call = Call { pid: 7, ..call("truncate", &[("path", 0), ("length", 0)], 0) };
        call.arguments[0].value = Some(Value::Text(name.to_owned()));
        let mut calls = vec![at(5, call)];
        relate(&bus(), &mut calls);
        (calls[0].is_cause, calls[0].relation.as_ref().map(|relation| relation.certain))
    };
    for name in ["/tmp/data", "data", "./data", "tmp/data"] {
        assert_eq!(named(name), (true, Some(false)), "{name}");
    }
    for name in ["/data", "ata", "/tmp/data2", ""] {
        assert_eq!(named(name), (false, None), "{name}");
    }
}

#[test]
fn of_a_name_and_the_inode_in_it_the_inode_counts() {
    let mut open = call("openat", &[("filename", 0), ("flags", libc::O_TRUNC as u64)], 3);
    open.arguments[0].value = Some(Value::Text("/tmp/data".to_owned()));
    let file = [("dentry:dentry.i_ino", 42), ("dentry:dentry.i_size", 0x8000), ("dentry:dentry.s_dev", 8)];
    let arguments = [&file[..], &[("length", 0)]].concat();
    let inner = Call { duration_ns: Some(1), ..call("do_truncate", &arguments, 0) };
    let mut calls = vec![at(5, Call { duration_ns: Some(9_000_000), ..open }), at(6, inner)];
    relate(&bus(), &mut calls);
    assert_eq!((calls[0].is_cause, calls[1].is_cause), (false, true));
}

#[test]
fn a_signal_was_sent_by_its_sender() {
    let facts = Subject { sender: Some(7), signal: 6, address: None, ..facts(FaultClass::Other) };
    let kill = |pid: u32, signal: u64| Call { pid, ..call("kill", &[("pid", 100), ("sig", signal)], 0) };
    assert_eq!(cause(&facts, vec![at(5, kill(7, 6)), at(6, kill(8, 6))]), Some((5, Change::Sent)));
    assert_eq!(cause(&facts, vec![at(5, kill(7, 9))]), None);
}
