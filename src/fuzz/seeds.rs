//! Samples as the kernel program sends them, of the types of the day: a fuzzer that begins with them is past the first checks at once.

use crate::probe::abi::{
    fl_crash, fl_crash_flag, fl_disposition, fl_file, fl_memory, fl_permission, fl_registers, fl_vma,
};

/// The stack, as far as a target wants it.
pub(super) const STACK: [u8; 256] = [0x11; 256];

const PROGRAM: u64 = 0x5555_5555_4000;
const LIBRARY: u64 = 0x7fff_f7d0_0000;
const STACK_START: u64 = 0x7fff_ffff_0000;

const HAS_REGISTERS: u32 = fl_crash_flag::FL_HAS_REGISTERS.0 | fl_crash_flag::FL_PLACE_COUNTS.0;

/// Each with a name.
pub(super) fn samples() -> Vec<(&'static str, Box<fl_crash>)> {
    let fault = [fl_crash_flag::FL_HAS_CODE, fl_crash_flag::FL_HAS_ADDRESS, fl_crash_flag::FL_HAS_PAGE_FAULT];
    let fault = fault.iter().fold(HAS_REGISTERS | fl_crash_flag::FL_HAS_TRAP.0, |flags, flag| flags | flag.0);
    let sent = HAS_REGISTERS | fl_crash_flag::FL_HAS_CODE.0 | fl_crash_flag::FL_HAS_SENDER.0;
    let call = HAS_REGISTERS | fl_crash_flag::FL_HAS_CODE.0 | fl_crash_flag::FL_HAS_SYSCALL.0;
    let inside = fl_crash_flag::FL_IN_PID_NAMESPACE.0 | fl_crash_flag::FL_IN_USER_NAMESPACE.0;
    vec![
        ("write", fl_crash { trap_nr: 14, error_code: 6, ..died(11, 1, fault, 3) }),
        ("deep-stack", fl_crash { trap_nr: 14, error_code: 6, ..died(11, 2, fault, 100) }),
        ("handled", fl_crash { disposition: fl_disposition::FL_DISPOSED_HANDLED, ..died(11, 1, fault, 5) }),
        ("abort", fl_crash { sender_pid: 100, ..died(6, -6, sent | fl_crash_flag::FL_FRAMES_ENDED.0, 12) }),
        ("seccomp", fl_crash { syscall: 1, syscall_arch: 0xc000_003e, ..died(31, 1, call, 4) }),
        ("container", died(7, 2, fault | inside, 6)),
        ("compat", died(11, 1, fault | fl_crash_flag::FL_IS_COMPAT.0, 1)),
        (
            "oom",
            fl_crash {
                memory: fl_memory { total_vm: 1 << 20, ..fl_memory::default() },
                ..died(9, 0, fl_crash_flag::FL_IS_OOM.0, 0)
            },
        ),
    ]
    .into_iter()
    .map(|(name, sample)| (name, Box::new(sample)))
    .collect()
}

/// A process of a program with one library and a file of data, and a stack of `depth` frames in turn.
fn died(signal: u16, si_code: i32, flags: u32, depth: u64) -> fl_crash {
    let mut raw = fl_crash {
        signal: signal.into(),
        si_code,
        flags: fl_crash_flag(flags),
        timestamp_ns: 1_000_000_000,
        pid: 4_000_100,
        tid: 4_000_101,
        ppid: 4_000_099,
        pid_in_namespace: 100,
        uid: 1000,
        mount_namespace: 1,
        start_brk: 0x5555_5560_0000,
        brk: 0x5555_5562_0000,
        start_stack: STACK_START + 0x8000,
        vdso: 0x7fff_f7fc_1000,
        stack_limit: 8 << 20,
        registers: fl_registers { rip: PROGRAM + 0x1139, rsp: STACK_START + 0x7000, ..fl_registers::default() },
        ..fl_crash::default()
    };
    for (to, from) in raw.comm.iter_mut().zip(b"program") {
        *to = *from as i8;
    }
    raw.code[..3].copy_from_slice(&[0xc7, 0x00, 0x01]);
    raw.code_length = 3;
    let paths: [&[u8]; 3] = [b"program\0bin\0usr\0", b"libc.so.6\0lib\0", b"table\0share\0usr\0"];
    for (number, path) in (0..).zip(paths) {
        let (path_offset, path_length) = add(&mut raw, path);
        let known = fl_file { inode: 100 + number, device: 0x80_0001, path_offset, path_length, ..fl_file::default() };
        raw.files[number as usize] = fl_file { build_id_length: 20, build_id: [number as u8 + 1; 20], ..known };
    }
    (raw.file_count, raw.exe) = (3, 1);
    (raw.cgroup_offset, raw.cgroup_length) = add(&mut raw, b"web.service\0system.slice\0");
    (raw.abort_message_offset, raw.abort_message_length) = add(&mut raw, b"free(): invalid pointer\n\0");
    let mapping = |start: u64, file, permissions| fl_vma {
        vm_start: start,
        vm_end: start + 0x10_0000,
        file_offset: 0x1000,
        permissions: fl_permission(permissions),
        file,
    };
    let code = fl_permission::FL_READABLE.0 | fl_permission::FL_EXECUTABLE.0;
    raw.modules[..2].copy_from_slice(&[mapping(PROGRAM, 1, code), mapping(LIBRARY, 2, code)]);
    raw.module_count = 2;
    raw.vma = mapping(0x7fff_0000_0000, 3, fl_permission::FL_READABLE.0);
    raw.stack_vma = mapping(STACK_START, 0, fl_permission::FL_READABLE.0 | fl_permission::FL_WRITABLE.0);
    for (depth, frame) in (0..depth).zip(&mut raw.frames) {
        *frame = [PROGRAM, LIBRARY, 0x1000][depth as usize % 3] + 0x1139 + depth * 16;
    }
    raw.frame_count = depth as u32;
    raw
}

/// Where a path stands, and how long it is.
fn add(raw: &mut fl_crash, names: &[u8]) -> (u32, u32) {
    let offset = raw.strings_length;
    for (to, from) in raw.strings[offset as usize..].iter_mut().zip(names) {
        *to = *from as i8;
    }
    raw.strings_length += names.len() as u32;
    (offset, names.len() as u32)
}
