//! On this very process: what is unwound from a copy must be what the C runtime's unwinder finds on the live stack.

use std::arch::{asm, global_asm};
use std::cell::RefCell;
use std::ffi::{c_int, c_void};
use std::fs::File;
use std::hint::black_box;
use std::os::unix::fs::FileExt;

use gimli::X86_64;
use procfs::process::{MMPermissions, MMapPath, Process};

use super::*;

mod files;

/// A thread at one moment.
#[derive(Clone)]
struct Moment {
    registers: Registers,
    stack: StackCopy,
    /// Where the stack was copied from.
    from: u64,
    bytes: Vec<u8>,
    /// The return addresses that `_Unwind_Backtrace` finds from the same function.
    expected: Vec<u64>,
}

type Callback = extern "C" fn(*mut c_void, *mut c_void) -> c_int;

unsafe extern "C" {
    fn _Unwind_Backtrace(callback: Callback, argument: *mut c_void) -> c_int;
    fn _Unwind_GetIP(context: *mut c_void) -> usize;
    fn fl_test_trap();
}

extern "C" fn note(context: *mut c_void, argument: *mut c_void) -> c_int {
    // SAFETY: `argument` is the Vec that live() gave, `context` what the runtime gave.
    let (addresses, ip) = unsafe { (&mut *argument.cast::<Vec<u64>>(), _Unwind_GetIP(context) as u64) };
    // libgcc shows the outermost frame's caller, which it doesn't have, as one more.
    if ip != 0 {
        addresses.push(ip);
    }
    0
}

/// Return addresses of the caller's caller and above; the caller's own place comes first.
#[inline(always)]
fn live() -> Vec<u64> {
    let mut addresses: Vec<u64> = Vec::new();
    // SAFETY: the callback gets the Vec back while it is borrowed for this call alone.
    unsafe { _Unwind_Backtrace(note, (&raw mut addresses).cast()) };
    addresses
}

fn copy_from(sp: u64) -> Vec<u8> {
    let maps = Process::myself().unwrap().maps().unwrap();
    let (_, end) = maps.iter().find(|map| map.address.0 <= sp && sp < map.address.1).unwrap().address;
    let mut bytes = vec![0; (end - sp) as usize];
    File::open("/proc/self/mem").unwrap().read_exact_at(&mut bytes, sp).unwrap();
    bytes
}

#[inline(always)]
fn registers() -> Registers {
    let mut values = [0_u64; 17];
    // SAFETY: writes 17 words of the array, of which rdi has the address.
    unsafe {
        asm!(
            "mov [rdi + 3 * 8], rbx", "mov [rdi + 6 * 8], rbp", "mov [rdi + 7 * 8], rsp", "mov [rdi + 12 * 8], r12",
            "mov [rdi + 13 * 8], r13", "mov [rdi + 14 * 8], r14", "mov [rdi + 15 * 8], r15", "lea rax, [rip]",
            "mov [rdi + 16 * 8], rax",
            in("rdi") values.as_mut_ptr(), out("rax") _, options(nostack),
        );
    }
    Registers::new(values)
}

#[inline(never)]
fn capture() -> Moment {
    let expected = live()[1..].to_vec();
    let registers = registers();
    let bytes = copy_from(registers.sp());
    let stack = StackCopy::new(vec![(registers.sp(), bytes.clone())]);
    Moment { registers, stack, from: registers.sp(), bytes, expected }
}

#[inline(never)]
fn recurse(depth: usize) -> Moment {
    let moment = if black_box(depth) == 0 { capture() } else { recurse(depth - 1) };
    black_box(moment)
}

/// This process's executable mappings and their files.
struct Code(Vec<(u64, u64, u64, Option<MappedFile>, bool)>);

impl Code {
    fn own() -> Self {
        let maps = Process::myself().unwrap().maps().unwrap();
        let executable = maps.iter().filter(|map| map.perms.contains(MMPermissions::EXECUTE));
        Self(
            executable
                .map(|map| {
                    let found = match &map.pathname {
                        MMapPath::Path(path) => MappedFile::at(path),
                        _ => None,
                    };
                    (map.address.0, map.address.1, map.offset, found, map.pathname == MMapPath::Vdso)
                })
                .collect(),
        )
    }

    fn mappings(&self) -> Vec<CodeRegion<'_>> {
        let mut mappings = Vec::new();
        for (start, end, file_offset, found, vdso) in &self.0 {
            let image = match found {
                Some(found) => Image::File(found),
                None if *vdso => Image::Vdso,
                None => Image::Unknown,
            };
            mappings.push(CodeRegion { start: *start, end: *end, file_offset: *file_offset, image });
        }
        mappings
    }
}

fn addresses(unwound: &Unwound) -> Vec<u64> {
    unwound.frames.iter().map(|frame| frame.address).collect()
}

fn unwind(moment: &Moment) -> Unwound {
    Unwinder::default().unwind(moment.registers, &moment.stack, &Code::own().mappings(), usize::MAX)
}

fn words(words: &[u64]) -> Vec<u8> {
    words.iter().flat_map(|word| word.to_le_bytes()).collect()
}

#[test]
fn a_copy_unwinds_as_the_live_stack_does() {
    let moment = recurse(5);
    let unwound = unwind(&moment);
    assert_eq!(unwound.frames[0], Frame { address: moment.registers.ip(), is_return_address: false });
    assert_eq!(addresses(&unwound)[1..], moment.expected);
    assert!(moment.expected.len() > 8);
    assert!(unwound.frames[1..].iter().all(|frame| frame.is_return_address));
    assert!(unwound.complete && unwound.used_eh_frame);
    assert_eq!(unwound.omitted, 0);
}

#[test]
fn the_innermost_and_the_outermost_are_kept() {
    let moment = recurse(200);
    let full = unwind(&moment);
    assert!(full.complete && full.frames.len() > 200);
    let cut = Unwinder::default().unwind(moment.registers, &moment.stack, &Code::own().mappings(), 16);
    assert_eq!((cut.omitted, cut.omitted_at, cut.complete), (full.frames.len() - 16, 12, true));
    assert_eq!(cut.frames[..12], full.frames[..12]);
    assert_eq!(cut.frames[12..], full.frames[full.frames.len() - 4..]);
}

#[test]
fn files_are_read_once() {
    let moment = capture();
    let (code, mut unwinder) = (Code::own(), Unwinder::default());
    let first = unwinder.unwind(moment.registers, &moment.stack, &code.mappings(), 128);
    let read: Vec<_> = unwinder.read.values().map(|sections| Arc::as_ptr(sections.as_ref().unwrap())).collect();
    assert!(read.len() >= 2, "this program and libc");
    assert_eq!(unwinder.unwind(moment.registers, &moment.stack, &code.mappings(), 128), first);
    let again: Vec<_> = unwinder.read.values().map(|sections| Arc::as_ptr(sections.as_ref().unwrap())).collect();
    assert_eq!(read, again);
}

#[test]
fn a_hole_ends_it() {
    let moment = recurse(50);
    let full = addresses(&unwind(&moment));
    for at in [2048, 4096] {
        let after = at + 1024;
        let pieces = vec![
            (moment.from + after as u64, moment.bytes[after..].to_vec()),
            (moment.from, moment.bytes[..at].to_vec()),
        ];
        let unwound = unwind(&Moment { stack: StackCopy::new(pieces), ..moment.clone() });
        assert!(!unwound.complete);
        assert!(unwound.frames.len() > 1 && unwound.frames.len() < full.len());
        assert_eq!(addresses(&unwound), full[..unwound.frames.len()]);
    }
}

#[test]
fn a_call_to_nowhere_has_a_caller() {
    let moment = recurse(3);
    let full = unwind(&moment);
    let mut bytes = words(&[moment.registers.ip()]);
    bytes.extend_from_slice(&moment.bytes);
    let sp = moment.from - 8;
    for ip in [0, 8, moment.from, u64::MAX] {
        let jumped = Moment {
            registers: moment.registers.with(X86_64::RA, ip).with(X86_64::RSP, sp),
            stack: StackCopy::new(vec![(sp, bytes.clone())]),
            ..moment.clone()
        };
        let unwound = unwind(&jumped);
        assert_eq!(unwound.frames[0], Frame { address: ip, is_return_address: false });
        assert_eq!(addresses(&unwound)[1..], addresses(&full));
        assert!(unwound.complete);
    }
    // Zeros over the stack are no end of it.
    let smashed = Moment {
        registers: moment.registers.with(X86_64::RA, 0),
        stack: StackCopy::new(vec![(moment.from, vec![0; 4096])]),
        ..moment
    };
    let unwound = unwind(&smashed);
    assert_eq!((addresses(&unwound), unwound.complete), (vec![0], false));
}

#[test]
fn garbage_is_no_stack() {
    let moment = capture();
    let mut state = 1_u64;
    let noise: Vec<u64> = std::iter::repeat_with(|| {
        state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1);
        state
    })
    .take(4096)
    .collect();
    let unwound = unwind(&Moment { stack: StackCopy::new(vec![(moment.from, words(&noise))]), ..moment.clone() });
    assert_eq!((addresses(&unwound), unwound.complete), (vec![moment.registers.ip()], false));
    // Plausible all the way, and endless but for the copy's end.
    let same = vec![moment.registers.ip(); 4096];
    let unwound = unwind(&Moment { stack: StackCopy::new(vec![(moment.from, words(&same))]), ..moment.clone() });
    assert!(!unwound.complete && unwound.frames.len() < 4096);
    for sp in [0, 1, 7, u64::MAX, u64::MAX - 8] {
        let lost = Moment { registers: moment.registers.with(X86_64::RSP, sp), ..moment.clone() };
        assert_eq!(unwind(&lost).frames.len(), 1);
    }
}

const JIT: u64 = 0x7000_0000;

fn in_jit(registers: Registers, stack: &[u64]) -> Unwound {
    let mapping = CodeRegion { start: JIT, end: JIT + 0x1000, file_offset: 0, image: Image::Unknown };
    Unwinder::default().unwind(registers, &StackCopy::new(vec![(0x1000, words(stack))]), &[mapping], 128)
}

#[test]
fn code_without_information_is_walked_as_far_as_plausible() {
    let registers = Registers::of_frame(JIT + 0x10, 0x1000, 0x1010);
    let good = in_jit(registers, &[0, 0, 0x1020, JIT + 0x20, 0x1030, JIT + 0x30, 0, 0]);
    assert_eq!(addresses(&good), [JIT + 0x10, JIT + 0x20, JIT + 0x30]);
    assert!(good.complete && !good.used_eh_frame);
    // Not in code; backwards; a frame pointer that is NULL; one that leads out of the copy.
    let not_code = in_jit(registers, &[0, 0, 0x1020, JIT + 0x20, 0x1030, 0x9999, 0, 0]);
    let backwards = in_jit(registers, &[0, 0, 0x1020, JIT + 0x20, 0x1000, JIT + 0x30, 0, 0]);
    let null = in_jit(registers, &[0, 0, 0x1020, JIT + 0x20, 0, JIT + 0x30, 0, 0]);
    let outside = in_jit(registers, &[0, 0, 0x1020, JIT + 0x20, 0x9000, JIT + 0x30, 0, 0]);
    assert_eq!(addresses(&not_code), [JIT + 0x10, JIT + 0x20]);
    for stopped in [backwards, null, outside] {
        assert_eq!(addresses(&stopped), [JIT + 0x10, JIT + 0x20, JIT + 0x30]);
        assert!(!stopped.complete);
    }
}

#[test]
fn signal_frames_in_a_circle_end() {
    let mut stack = [0; 40];
    // rbp, rsp, rip, selectors
    (stack[15], stack[20], stack[21], stack[23]) = (0, 0x1000, JIT + 0x40, 0x002b_0000_0000_0033);
    let unwound = in_jit(Registers::of_frame(JIT + 0x10, 0x1000, 0), &stack);
    assert_eq!(addresses(&unwound), [JIT + 0x10, JIT + 0x40]);
    assert!(!unwound.complete);
}

// What compilers make of a stack that they align: the caller's is in another register, then only in memory.
global_asm!(
    ".p2align 4",
    "fl_test_aligned:",
    ".cfi_startproc",
    "push rbx",
    ".cfi_def_cfa_offset 16",
    ".cfi_offset rbx, -16",
    "lea rbx, [rsp + 16]",
    ".cfi_def_cfa rbx, 0",
    "and rsp, -64",
    "sub rsp, 64",
    "mov [rsp], rbx",
    "mov [rsp + 8], rdi",
    "call rdi",
    "xor ebx, ebx",
    // DW_CFA_def_cfa_expression: DW_OP_breg7 (rsp) 0, DW_OP_deref
    ".cfi_escape 0x0f, 3, 0x77, 0, 0x06",
    "call [rsp + 8]",
    "mov rax, [rsp]",
    "lea rsp, [rax - 16]",
    ".cfi_def_cfa rsp, 16",
    "pop rbx",
    ".cfi_def_cfa rsp, 8",
    "ret",
    ".cfi_endproc",
);

unsafe extern "C" {
    fn fl_test_aligned(callback: extern "C" fn());
}

thread_local! {
    static SEEN: RefCell<Vec<Moment>> = const { RefCell::new(Vec::new()) };
}

extern "C" fn see() {
    SEEN.with_borrow_mut(|seen| seen.push(capture()));
}

#[test]
fn other_registers_and_memory_lead_to_callers() {
    // SAFETY: keeps the ABI, and calls see() twice.
    unsafe { fl_test_aligned(see) };
    let seen = SEEN.take();
    assert_eq!(seen.len(), 2);
    for moment in seen {
        let unwound = unwind(&moment);
        assert_eq!(addresses(&unwound)[1..], moment.expected);
        assert!(unwound.complete);
    }
}

// A function whose first byte is what traps: looked up one byte earlier, it is no function.
global_asm!(".p2align 4", "nop", "fl_test_trap:", ".cfi_startproc", "ud2", "ret", ".cfi_endproc");

thread_local! {
    static IN_HANDLER: RefCell<Option<Moment>> = const { RefCell::new(None) };
}

extern "C" fn on_trap(_: c_int, _: *mut libc::siginfo_t, context: *mut c_void) {
    // SAFETY: the kernel gives a handler with SA_SIGINFO its ucontext.
    let context = unsafe { &mut *context.cast::<libc::ucontext_t>() };
    let interrupted = context.uc_mcontext.gregs[libc::REG_RSP as usize] as u64;
    let mut moment = capture();
    // A handler on a stack of its own: the other one belongs to the copy.
    moment.stack = StackCopy::new(vec![(moment.from, moment.bytes.clone()), (interrupted, copy_from(interrupted))]);
    IN_HANDLER.set(Some(moment));
    context.uc_mcontext.gregs[libc::REG_RIP as usize] += 2;
}

#[inline(never)]
fn trap() -> (Moment, Vec<u64>) {
    let outside = live();
    // SAFETY: traps, and the handler goes on after it.
    unsafe { fl_test_trap() };
    (IN_HANDLER.take().unwrap(), outside[1..].to_vec())
}

#[test]
fn a_handler_leads_to_what_the_signal_interrupted() {
    // The standard library's own is too small to read /proc on.
    let mut other = vec![0_u8; 1 << 20];
    let stack = libc::stack_t { ss_sp: other.as_mut_ptr().cast(), ss_flags: 0, ss_size: other.len() };
    let mut before = libc::stack_t { ss_sp: std::ptr::null_mut(), ..stack };
    // SAFETY: it lives until the one before is back, below.
    assert_eq!(unsafe { libc::sigaltstack(&raw const stack, &raw mut before) }, 0);
    for flags in [0, libc::SA_ONSTACK] {
        // SAFETY: a zeroed sigaction is one; no other test traps.
        unsafe {
            let mut action: libc::sigaction = std::mem::zeroed();
            action.sa_sigaction = on_trap as *const () as usize;
            action.sa_flags = libc::SA_SIGINFO | flags;
            assert_eq!(libc::sigaction(libc::SIGILL, &raw const action, std::ptr::null_mut()), 0);
        }
        let (moment, callers) = trap();
        let on_other = other.as_ptr_range().contains(&std::ptr::with_exposed_provenance(moment.from as usize));
        assert_eq!(on_other, flags != 0);
        let unwound = unwind(&moment);
        let trapped = fl_test_trap as *const () as u64;
        let at = unwound.frames.iter().position(|frame| frame.address == trapped).expect("the trap is a frame");
        let exact: Vec<bool> = unwound.frames.iter().map(|frame| !frame.is_return_address).collect();
        let mut expected = vec![false; exact.len()];
        (expected[0], expected[at - 1], expected[at]) = (true, true, true);
        assert_eq!(exact, expected, "the first, what the handler returns to, and the trap");
        assert_eq!(addresses(&unwound)[1..], moment.expected, "the runtime sees it likewise");
        // trap() itself stands between: at another place than when it looked.
        assert_eq!(addresses(&unwound)[at + 2..], callers);
        assert!(unwound.complete);
    }
    // SAFETY: this thread had it before.
    assert_eq!(unsafe { libc::sigaltstack(&raw const before, std::ptr::null_mut()) }, 0);
}

#[test]
fn the_vdso_is_ours_too() {
    let sections = vdso::bytes()
        .and_then(|bytes| Sections::read(&Source::Memory(bytes)))
        .expect("a vDSO with call frame information");
    let moment = capture();
    let code = Code::own();
    let (start, end, ..) = code.0.iter().find(|mapping| mapping.4).unwrap();
    let mut bytes = vec![0; (end - start) as usize];
    File::open("/proc/self/mem").unwrap().read_exact_at(&mut bytes, *start).unwrap();
    let elf = object::File::parse(&*bytes).unwrap();
    let symbol = object::Object::dynamic_symbols(&elf)
        .find(|symbol| object::ObjectSymbol::name(symbol) == Ok("__vdso_clock_gettime"))
        .unwrap();
    let function = sections.bias(*start, 0).unwrap() + object::ObjectSymbol::address(&symbol);
    let mut stack = words(&[moment.registers.ip()]);
    stack.extend_from_slice(&moment.bytes);
    let called = Moment {
        registers: moment.registers.with(X86_64::RA, function).with(X86_64::RSP, moment.from - 8),
        stack: StackCopy::new(vec![(moment.from - 8, stack)]),
        ..moment.clone()
    };
    let unwound = unwind(&called);
    assert_eq!(addresses(&unwound)[1..], addresses(&unwind(&moment)));
}
