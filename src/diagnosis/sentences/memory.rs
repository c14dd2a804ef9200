//! Page faults, and files without pages.

use super::super::cases::{CODE, Case, far, fault, file, region};
use crate::arch::{Refusal, Registers, StackTop};
use crate::evidence::{Backing, Cause, Change, FilePart, FileSystem, Region, StoredFile};

/// `mov eax, [rdi]`, and with a displacement of one byte.
const READ: [u8; 2] = [0x8b, 0x07];
const READ_FIELD: [u8; 3] = [0x8b, 0x47, 0x18];

/// A read at `address` by this code, with rdi.
fn read(code: &[u8], rdi: u64, address: u64) -> Case {
    let mut case = Case { code: code.to_vec(), ..fault(1, address, 4) };
    case.registers.rdi = rdi;
    case
}

fn with(mut case: Case, change: impl FnOnce(&mut Registers)) -> Case {
    change(&mut case.registers);
    case
}

fn near_null() -> Vec<Case> {
    // mov eax, [rdi+rsi*4], and [rdi+rsi]
    let (scaled, summed) = ([0x8b, 0x04, 0xb7], [0x8b, 0x04, 0x37]);
    let string = read(&READ, 8080, 8080).called(&["strlen", "main"]);
    let rounded = read(&READ, 8160, 8160).called(&["strlen", "main"]);
    let [libc, rounded] = [string, rounded].map(|case| Case { modules: vec!["/lib/libc.so.6"], ..case });
    vec![
        read(&READ, 0, 0),
        read(&READ_FIELD, 0, 0x18),
        with(read(&scaled, 0, 0x20), |all| all.rsi = 8),
        read(&[0x8b, 0x47, 0xf8], 0, 8u64.wrapping_neg()),
        Case { code: vec![0xc7, 0x04, 0x25, 0x18, 0, 0, 0, 0, 0, 0, 0], ..fault(1, 0x18, 6) },
        fault(1, 0, 4),
        fault(1, 0x18, 4),
        with(read(&summed, 0, 0x20), |all| all.rsi = 0x20),
        read(&READ, 0x18, 0x18),
        Case { code: vec![0x64, 0x48, 0x8b, 4, 0x25, 0x28, 0, 0, 0], ..fault(1, 0x28, 4) },
        libc.clone(),
        rounded,
        Case { modules: vec!["/bin/x"], ..libc },
        read(&READ, 8191, 8191),
        Case { code: vec![0x8b, 0x87, 0, 0, 0x10, 0], ..fault(1, 0x10_0000, 4) },
        with(Case { code: vec![0x58], ..fault(1, 0x18, 4) }.mapped(&[far()]), |all| all.rsp = 0x18),
        // Nothing is known of these: a wild pointer, a valid one and an index that leads back to near 0.
        with(read(&summed, 0x5555_0000_0000, 0x20), |all| all.rsi = 0x5555_0000_0000u64.wrapping_neg() + 0x20),
        read(&READ, 0x10_0000, 0x10_0000),
        fault(1, 0x10_0000, 4).mapped(&[far()]),
    ]
}

fn wild() -> Vec<Case> {
    let heap = Region { backing: Backing::Heap, ..region(0x5555_1abc_0000, 0x5555_1abe_0000, "rw-") };
    let at = |rdi, address| read(&READ, rdi, address).mapped(&[heap.clone(), far()]);
    let cause = |change| Cause {
        change,
        is_certain: true,
        function: "munmap".to_owned(),
        pid: 100,
        tid: 100,
        comm: "x".to_owned(),
        ended_ns: 0,
    };
    let caused = |change| Case { cause: Some(cause(change)), ..fault(1, 0x10_0000, 4).mapped(&[far()]) };
    vec![
        at(0xffff_ffff_9abc_12a0, 0xffff_ffff_9abc_12a0),
        at(0x1abc_12a0, 0x1abc_12a0),
        at(u64::MAX, u64::MAX),
        at(5u64.wrapping_neg(), 5u64.wrapping_neg()),
        at(0xffff_8000_0000_0000, 0xffff_8000_0000_0000),
        caused(Change::Unmapped),
        caused(Change::Moved),
    ]
}

/// The code before the return address, and the word below the stack pointer.
fn top(code: &[u8], popped: u64) -> Option<StackTop> {
    let mut before = [0x90; 8];
    before[8 - code.len()..].copy_from_slice(code);
    Some(StackTop { popped, caller: CODE + 0x100, code: Some(before), slot: None })
}

fn jumps() -> Vec<Case> {
    let fetch = |address: u64| {
        let case = with(fault(1, address, 0x14), |all| (all.rip, all.rsp) = (address, 0x7ffd_0000_0008));
        if address < 0x1_0000 { case } else { case.mapped(&[far()]) }
    };
    let by = |address, code: &[u8], popped| Case { top: top(code, popped), ..fetch(address) };
    let (call_rax, call_near) = ([0xff, 0xd0], [0xe8, 0, 0xff, 0xff, 0xff]);
    let distance = 0x10_0000u64.wrapping_neg() as u32;
    let weak = by(0, &[&[0xe8][..], &distance.to_le_bytes()].concat(), 0);
    let weak = Case { top: weak.top.map(|top| StackTop { caller: 0x10_0000, ..top }), ..weak };
    let wild = 0x1234_5678_9000;
    let data = |permissions| {
        let case = Case { si_code: 2, ..fetch(0x10_0000) };
        case.mapped(&[region(0x10_0000, 0x10_1000, permissions)])
    };
    vec![
        by(0, &call_rax, 0),
        weak,
        by(0, &call_near, 0),
        with(by(0, &[], 0), |all| all.rsp += 8),
        fetch(0),
        fetch(0x18),
        with(by(wild, &call_rax, 0), |all| all.rax = wild),
        by(wild, &call_near, 0),
        by(wild, &[], wild),
        with(by(wild, &call_rax, 0), |all| (all.rcx, all.r11, all.eflags) = (wild, 0x246, 0x246)),
        by(wild, &call_near, 0).mapped(&[region(wild - 0x1000, wild, "r-x"), far()]),
        fetch(wild),
        Case { refusal: Some(Refusal::SpoiltReturn), ..fetch(wild) },
        fetch(0xffff_8000_0000_0000),
        data("rw-"),
        data("r-x"),
    ]
}

fn refused() -> Vec<Case> {
    let into = |section: &str, is_relocated| Case {
        is_executed: true,
        part: Some(FilePart { section: Some(section.to_owned()), is_relocated }),
        ..fault(2, 0x10_0040, 7).mapped(&[file("/bin/x", region(0x10_0000, 0x10_1000, "r--"))])
    };
    let plain = |of: Region| fault(2, 0x10_0040, 7).mapped(&[of]);
    let data = plain(file("/data", region(0x10_0000, 0x10_1000, "r--")));
    let guarded = fault(2, 0x2_0010, 6).mapped(&[region(0x1_f000, 0x2_0000, "rw-"), region(0x2_0000, 0x2_1000, "---")]);
    vec![
        into(".rodata", false),
        into(".got", true),
        into(".data.rel.ro", true),
        into(".eh_frame", false),
        into(".text", false).mapped(&[file("/bin/x", region(0x10_0000, 0x10_1000, "r-x"))]),
        plain(file("/bin/x", region(0x10_0000, 0x10_1000, "r-x"))),
        data.clone(),
        Case { was_writable: true, ..data },
        plain(file("/data", region(0x10_0000, 0x10_1000, "r--s"))),
        plain(region(0x10_0000, 0x10_1000, "r--")),
        Case { error_code: 5, ..plain(region(0x10_0000, 0x10_1000, "r--")) },
        guarded,
        fault(1, 0x10_1000, 6).mapped(&[region(0x10_0000, 0x10_3000, "rw-")]),
        fault(1, 0x10_1f00, 6).mapped(&[region(0x10_0000, 0x10_3000, "rw-")]),
        fault(4, 0x10_0000, 0x26).mapped(&[far()]),
    ]
}

fn stacks() -> Vec<Case> {
    const START: u64 = 0x7ffd_0000_0000;
    const LIMIT: u64 = 128 << 10;
    let stack = || Region { backing: Backing::MainStack, ..region(START, START + LIMIT, "rw-") };
    let main = || {
        let case = Case { stack_limit: LIMIT, ..fault(1, START - 8, 6).mapped(&[stack()]) };
        with(case, |all| all.rsp = START)
    };
    let near =
        Case { stack_limit: 64 << 20, ..main() }.mapped(&[region(START - 0x8000, START - 0x4000, "rw-"), stack()]);
    let thread = fault(2, 0x2_0ff8, 6).mapped(&[region(0x2_0000, 0x2_1000, "---"), region(0x2_1000, 0x3_1000, "rw-")]);
    let thread = Case { is_main_thread: false, thread_name: "deep", frame_bytes: Some(64), ..thread };
    let thread = thread.called(&["walk", "walk", "walk", "walk"]);
    let unguarded = Case { si_code: 1, ..thread.clone() }.mapped(&[region(0x2_1000, 0x3_1000, "rw-"), far()]);
    let frame = Case { trap_nr: 14, entry: super::super::cases::Entry::Call, ..super::super::cases::signal(11, 0x80) };
    vec![
        main(),
        near,
        Case { stack_limit: 0, ..main() },
        with(thread.clone(), |all| all.rsp = 0x2_1000),
        with(unguarded, |all| all.rsp = 0x2_1000),
        with(thread, |all| all.rsp = 0x2_8000),
        with(frame.mapped(&[stack()]), |all| all.rsp = START - 8),
        with(Case { frame_bytes: Some(1 << 20), ..main() }.at(START - 0x8_0000), |all| all.rsp = START - 0xf_f000),
    ]
}

fn pages() -> Vec<Case> {
    let of = |stored: StoredFile, permissions| {
        let case = Case { signal: 7, stored: Some(stored), ..fault(2, 0x10_1000, 6) };
        case.mapped(&[file("/x", region(0x10_0000, 0x10_2000, permissions))])
    };
    let sized = |size| StoredFile { size, page_bytes: 4096, ..StoredFile::default() };
    let on = |system, capacity, used| StoredFile { system, capacity, used, used_most: used + 64, ..sized(0x2000) };
    let cause = Cause {
        change: Change::Truncated,
        is_certain: true,
        function: "ftruncate".to_owned(),
        pid: 100,
        tid: 100,
        comm: "x".to_owned(),
        ended_ns: 0,
    };
    let own = Case { signal: 7, is_by_userfaultfd: true, ..fault(2, 0x10_1000, 4) };
    let own = own.mapped(&[region(0x10_0000, 0x10_2000, "rw-")]);
    vec![
        of(sized(0), "rw-s"),
        of(sized(100), "rw-s"),
        Case { cause: Some(cause), ..of(sized(100), "rw-s") },
        of(on(FileSystem::Memory, 256, 256), "rw-s"),
        Case { is_disk_full: Some(true), ..of(sized(0x2000), "rw-s") },
        of(on(FileSystem::Memory, 256, 1), "rw-s"),
        of(sized(0x2000), "rw-s"),
        of(sized(0x2000), "rw-p"),
        of(on(FileSystem::HugePages, 8, 8), "rw-s"),
        of(on(FileSystem::HugePages, 8, 1), "rw-s"),
        own.clone(),
        Case { is_by_userfaultfd: false, ..own.clone() },
        Case { si_code: 4, ..own.clone() },
        Case { si_code: 4, is_by_userfaultfd: false, ..own },
    ]
}

pub(super) fn cases() -> Vec<Case> {
    [near_null(), wild(), jumps(), refused(), stacks(), pages()].concat()
}
