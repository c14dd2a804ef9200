//! Changes programs when libbpf is about to give them to the kernel (`bpf_program__set_insns()` is made for that moment). In a typed build, puts
//! in the ids of bpf_rdonly_cast() and of its type, and repairs the calls of bpf_probe_read_user(). Where arguments are typed, gives a program
//! the type of its tracepoint, by the id that is known already: libbpf would read all of the kernel's types once more to find it.
//! docs/development.md explains typed loads.

use std::ffi::{CStr, c_int, c_long};
use std::sync::{Mutex, Once, PoisonError};

use libbpf_rs::libbpf_sys::{
    BPF_PROG_TYPE_KPROBE, BPF_PROG_TYPE_PERF_EVENT, BPF_PROG_TYPE_RAW_TRACEPOINT, BPF_PROG_TYPE_TRACEPOINT,
    BPF_PROG_TYPE_TRACING, BPF_TRACE_RAW_TP, bpf_insn, bpf_prog_load_opts, bpf_program, bpf_program__insn_cnt,
    bpf_program__insns, bpf_program__name, bpf_program__set_expected_attach_type, bpf_program__set_insns,
    bpf_program__set_type, libbpf_prog_handler_opts, libbpf_register_prog_handler,
};

use super::abi::fl_mark;
use super::types::Ids;

// Helpers, by the numbers that calls of them have.
const PROBE_READ: i32 = libbpf_sys::BPF_FUNC_probe_read as i32;
const PROBE_READ_STR: i32 = libbpf_sys::BPF_FUNC_probe_read_str as i32;
const PROBE_READ_USER: i32 = libbpf_sys::BPF_FUNC_probe_read_user as i32;
const PROBE_READ_USER_STR: i32 = libbpf_sys::BPF_FUNC_probe_read_user_str as i32;

// Instructions: a call, and moves of a constant into a register.
const CALL: u8 = (libbpf_sys::BPF_JMP | libbpf_sys::BPF_CALL) as u8;
const MOVE_32: u8 = (libbpf_sys::BPF_ALU | libbpf_sys::BPF_MOV | libbpf_sys::BPF_K) as u8;
const MOVE_64: u8 = (libbpf_sys::BPF_ALU64 | libbpf_sys::BPF_MOV | libbpf_sys::BPF_K) as u8;
const KERNEL_CALL: u8 = libbpf_sys::BPF_PSEUDO_KFUNC_CALL as u8;

// The placeholders of the ids.
const FL_RDONLY_CAST: i32 = fl_mark::FL_MARK_RDONLY_CAST.0 as i32;
const FL_PT_REGS: i32 = fl_mark::FL_MARK_PT_REGS.0 as i32;

/// How an object is loaded.
#[derive(Clone, Debug)]
pub(super) struct Loading {
    /// The ids for a typed build; `None` means that it is a plain one.
    pub(super) typed: Option<Ids>,
    /// The programs that take their arguments with their types, and the id of each tracepoint's type.
    pub(super) arguments: Vec<(&'static str, u32)>,
}

/// The object that is being loaded.
static LOADING: Mutex<Loading> = Mutex::new(Loading { typed: None, arguments: Vec::new() });

/// To be called before a build is opened whose programs are to be changed, because libbpf then chooses their handler.
pub(super) fn opening() {
    static REGISTERED: Once = Once::new();
    REGISTERED.call_once(register);
}

/// Runs `load`, which loads an object.
pub(super) fn loading<T>(how: Loading, load: impl FnOnce() -> T) -> T {
    let change = |how| std::mem::replace(&mut *LOADING.lock().unwrap_or_else(PoisonError::into_inner), how);
    let before = change(how);
    let result = load();
    change(before);
    result
}

fn register() {
    let opts = libbpf_prog_handler_opts {
        sz: size_of::<libbpf_prog_handler_opts>() as _,
        prog_prepare_load_fn: Some(prepare),
        ..libbpf_prog_handler_opts::default()
    };
    // SAFETY: both pointers are valid during the call, which copies what they point to; `prepare` is there for ever. An
    // error leaves libbpf as it was: the programs are then refused under lockdown, with the reason.
    unsafe {
        libbpf_register_prog_handler(c"raw_tp+".as_ptr(), BPF_PROG_TYPE_RAW_TRACEPOINT, 0, &raw const opts);
        libbpf_register_prog_handler(c"kprobe+".as_ptr(), BPF_PROG_TYPE_KPROBE, 0, &raw const opts);
        libbpf_register_prog_handler(c"perf_event".as_ptr(), BPF_PROG_TYPE_PERF_EVENT, 0, &raw const opts);
        libbpf_register_prog_handler(c"tracepoint+".as_ptr(), BPF_PROG_TYPE_TRACEPOINT, 0, &raw const opts);
    }
}

/// libbpf calls it with each program, right before that goes to the kernel.
unsafe extern "C" fn prepare(program: *mut bpf_program, opts: *mut bpf_prog_load_opts, _: c_long) -> c_int {
    let Loading { typed, arguments } = LOADING.lock().unwrap_or_else(PoisonError::into_inner).clone();
    // SAFETY: libbpf gives a valid program, whose name lives as long as it does.
    let name = unsafe { CStr::from_ptr(bpf_program__name(program)) };
    if let Some(&(_, id)) = arguments.iter().find(|(program, _)| program.as_bytes() == name.to_bytes()) {
        // SAFETY: libbpf gives valid options, which it uses after this call.
        unsafe {
            (*opts).expected_attach_type = BPF_TRACE_RAW_TP;
            (*opts).attach_btf_id = id;
        }
        // SAFETY: libbpf gives a valid program. It takes the new type for this load, and looks at the attach type when it is attached.
        return unsafe {
            bpf_program__set_type(program, BPF_PROG_TYPE_TRACING)
                | bpf_program__set_expected_attach_type(program, BPF_TRACE_RAW_TP)
        };
    }
    let Some(ids) = typed else { return 0 };
    // SAFETY: libbpf gives a valid program.
    let mut mended = unsafe { instructions(program) };
    if mended.is_empty() {
        return 0;
    }
    mend(&mut mended, ids);
    // SAFETY: the program is valid; libbpf copies the instructions.
    unsafe { bpf_program__set_insns(program, mended.as_mut_ptr(), mended.len() as _) }
}

/// A copy of the instructions of a program; empty: it has none.
///
/// # Safety
/// The program is valid, and libbpf does nothing with it meanwhile.
pub(super) unsafe fn instructions(program: *const bpf_program) -> Vec<bpf_insn> {
    // SAFETY: as above.
    let (first, count) = unsafe { (bpf_program__insns(program), bpf_program__insn_cnt(program)) };
    if first.is_null() {
        return Vec::new();
    }
    // SAFETY: libbpf says how many there are, and they are copied at once.
    unsafe { std::slice::from_raw_parts(first, count as usize) }.to_vec()
}

/// The last change to a typed build's instructions.
pub(super) fn mend(instructions: &mut [bpf_insn], ids: Ids) {
    for instruction in instructions {
        // A call of a helper has no source register; one of a function or a kernel function has.
        let is_helper = instruction.code == CALL && instruction.src_reg() == 0;
        let is_constant = matches!(instruction.code, MOVE_32 | MOVE_64);
        if is_helper && instruction.imm == PROBE_READ {
            instruction.imm = PROBE_READ_USER;
        } else if is_helper && instruction.imm == PROBE_READ_STR {
            instruction.imm = PROBE_READ_USER_STR;
        } else if is_helper && instruction.imm == FL_RDONLY_CAST {
            instruction.set_src_reg(KERNEL_CALL);
            instruction.imm = ids.rdonly_cast as i32;
        } else if is_constant && instruction.imm == FL_PT_REGS {
            instruction.imm = ids.pt_regs as i32;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const IDS: Ids = Ids {
        rdonly_cast: 4711,
        pt_regs: 815,
        signal_deliver: 0,
        signal_generate: 0,
        preempt_count: 0,
        exits_with_memory: false,
        delivers_seccomp_kills: false,
    };

    fn call(source: u8, imm: i32) -> bpf_insn {
        let mut instruction = bpf_insn { code: CALL, imm, ..bpf_insn::default() };
        instruction.set_src_reg(source);
        instruction
    }

    #[test]
    fn only_calls_of_that_helper_change() {
        let mut all = [call(0, 4), call(1, 4), call(0, 35), call(0, 45)];
        mend(&mut all, IDS);
        let expected = [PROBE_READ_USER, 4, 35, PROBE_READ_USER_STR];
        assert_eq!(all.map(|instruction| instruction.imm), expected);
    }

    #[test]
    fn the_ids_are_put_in() {
        let constant = |code: u8, imm: i32| bpf_insn { code, imm, ..bpf_insn::default() };
        let mut all = [constant(MOVE_64, FL_PT_REGS), constant(MOVE_32, 7), call(0, FL_RDONLY_CAST)];
        mend(&mut all, IDS);
        assert_eq!(all.map(|instruction| instruction.imm), [815, 7, 4711]);
        assert_eq!(all.map(|instruction| instruction.src_reg()), [0, 0, KERNEL_CALL]);
    }
}
