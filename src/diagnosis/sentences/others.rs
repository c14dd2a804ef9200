//! Instructions, arithmetic, and signals without an address.

use super::super::cases::{Case, fault, general_protection, signal, tag_check};
use crate::arch::Refusal;
use crate::arch::syscall::AUDIT_ARCH;
use crate::probe::abi::{fl_reason, fl_reason_kind};
use crate::siginfo::SI_KERNEL;

const WILD: u64 = 0xdead_0000_0000_0000;

fn protection() -> Vec<Case> {
    let rax = |code: &[u8], rax| {
        let mut case = general_protection(code);
        case.registers.rax = rax;
        case
    };
    let at_wild = {
        let mut case = general_protection(&[]);
        case.registers.rip = WILD;
        case
    };
    let misaligned = {
        let mut case = general_protection(&[0x0f, 0x29, 0x44, 0x24, 0x10]);
        case.registers.rsp += 8;
        case
    };
    vec![
        rax(&[0x48, 0x8b, 0x00], WILD),
        rax(&[0x48, 0x8b, 0x00], 0x1000),
        rax(&[0xff, 0x10], 0x1000),
        rax(&[0xff, 0xd0], WILD),
        at_wild,
        general_protection(&[0xc3]),
        misaligned,
        Case { code: vec![0xc3], ..signal(11, 10) },
        general_protection(&[0xfa]),
        general_protection(&[0xee]),
        general_protection(&[0xcd, 0x29]),
        general_protection(&[0x90]),
    ]
}

fn instructions() -> Vec<Case> {
    let illegal = |code: &[u8]| Case { code: code.to_vec(), ..signal(4, 2) };
    let trap = Case { trap_nr: 3, code_before: 0xcc, ..signal(5, 0x80) };
    let refused = |refusal| Case { refusal: Some(refusal), ..illegal(&[0x90]) };
    vec![
        refused(Refusal::Landing { is_call: true }),
        refused(Refusal::Signature { is_return: true }),
        refused(Refusal::Signature { is_return: false }),
        illegal(&[0x06, 0x90]),
        illegal(&[0xd5, 0x10, 0x01, 0xc0]),
        illegal(&[0x0f, 0x0b]),
        illegal(&[0x62, 0xf1, 0x7d, 0x48, 0xfe, 0xc0]),
        illegal(&[0x90]),
        trap.clone(),
        Case { trap_nr: 1, ..trap.clone() },
        Case { si_code: 2, ..trap },
    ]
}

fn arithmetic() -> Vec<Case> {
    let divide = |rcx, rax| {
        let mut case = Case { code: vec![0xf7, 0xf9], ..signal(8, 1) };
        (case.registers.rcx, case.registers.rax, case.registers.rdx) = (rcx, rax, 0xffff_ffff);
        case
    };
    let floating = (3..=7).map(|code| signal(8, code));
    [divide(0, 7), divide(0xffff_ffff, 0x8000_0000)].into_iter().chain(floating).collect()
}

fn alignment() -> Vec<Case> {
    let mut split = Case { code: vec![0xf0, 0x83, 0x07, 1], signal: 7, ..fault(1, 0, 0) };
    split.registers.rdi = 0x10_003e;
    let mut checked = split.clone();
    checked.registers.eflags = 1 << 18;
    // movaps [rsp+0x10], xmm0, in place of an exclusive access of arm64.
    let exclusive = Case { code: vec![0x0f, 0x29, 0x44, 0x24, 0x10], ..split.clone() };
    let mut exclusive = exclusive.at(0x7ffd_0000_1018);
    exclusive.registers.rsp += 8;
    let refused = |refusal| Case { refusal: Some(refusal), ..split.clone() };
    vec![checked, exclusive, refused(Refusal::Code(4)), refused(Refusal::Stack(16)), split]
}

/// Memory with tags.
fn tags() -> Vec<Case> {
    vec![tag_check(0x10_0000), signal(11, 8), Case { cr2: 0, ..tag_check(0x10_0000) }]
}

fn seccomp() -> Vec<Case> {
    let refused = Case { system_call: (110, AUDIT_ARCH), ..signal(31, 1) };
    let alone = Case { ends_thread: true, ..refused.clone() };
    vec![alone, refused.clone(), Case { si_code: 0, ..refused.clone() }, Case { si_code: 2, ..refused }]
}

/// SIGXCPU of the limit of processor time, and SIGQUIT of a terminal; sent by the process itself, by another, and for a reason that isn't known.
fn sent_by_kernel() -> Vec<Case> {
    let because = |number, kind| {
        let kernels = signal(number, SI_KERNEL);
        let reason = fl_reason { kind, ..fl_reason::default() };
        vec![
            Case { reason, ..kernels.clone() },
            kernels.clone(),
            Case { si_code: 0, ..kernels.clone() },
            Case { si_code: 0, sender_pid: Some(7), ..kernels },
        ]
    };
    [because(24, fl_reason_kind::FL_REASON_CPU_TIME), because(3, fl_reason_kind::FL_REASON_TERMINAL)].concat()
}

pub(super) fn cases() -> Vec<Case> {
    [protection(), instructions(), arithmetic(), alignment(), tags(), seccomp(), sent_by_kernel()].concat()
}
