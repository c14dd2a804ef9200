//! What libbpf does to typed builds under lockdown, undone.
//!
//! libbpf tries bpf_probe_read_kernel() once; where that is refused it takes the kernel for an old one, and turns every
//! call of bpf_probe_read_user(), too, into bpf_probe_read(), which lockdown refuses as well. The calls in a typed build read
//! user memory only, which is allowed: they are turned back when libbpf hands the program over
//! (`bpf_program__set_insns()` is made for that moment).

use std::ffi::{c_int, c_long};
use std::sync::Once;
use std::sync::atomic::{AtomicBool, Ordering};

use libbpf_rs::libbpf_sys::{
    BPF_PROG_TYPE_RAW_TRACEPOINT, bpf_insn, bpf_prog_load_opts, bpf_program, bpf_program__insn_cnt, bpf_program__insns,
    bpf_program__set_insns, libbpf_prog_handler_opts, libbpf_register_prog_handler,
};

// include/uapi/linux/bpf.h
const BPF_FUNC_PROBE_READ: i32 = 4;
const BPF_FUNC_PROBE_READ_USER: i32 = 112;
const BPF_JMP_CALL: u8 = 0x85;

/// Is the object that is being loaded a typed build?
static TYPED: AtomicBool = AtomicBool::new(false);

/// Call it before a typed build is opened: libbpf looks then who handles its programs.
pub(super) fn opening() {
    static REGISTERED: Once = Once::new();
    REGISTERED.call_once(register);
}

/// Runs `load`, which loads an object: a typed build, or not.
pub(super) fn loading<T>(typed: bool, load: impl FnOnce() -> T) -> T {
    TYPED.store(typed, Ordering::SeqCst);
    let result = load();
    TYPED.store(false, Ordering::SeqCst);
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
    unsafe { libbpf_register_prog_handler(c"raw_tp+".as_ptr(), BPF_PROG_TYPE_RAW_TRACEPOINT, 0, &raw const opts) };
}

/// Called by libbpf with each raw tracepoint's program, right before it goes to the kernel.
unsafe extern "C" fn prepare(program: *mut bpf_program, _: *mut bpf_prog_load_opts, _: c_long) -> c_int {
    if !TYPED.load(Ordering::SeqCst) {
        return 0;
    }
    // SAFETY: libbpf gives a valid program, whose instructions are an array of that length while we are called.
    let instructions = unsafe {
        let (first, count) = (bpf_program__insns(program), bpf_program__insn_cnt(program));
        if first.is_null() {
            return 0;
        }
        std::slice::from_raw_parts(first, count as usize)
    };
    let mut mended: Vec<bpf_insn> = instructions.to_vec();
    if !mend(&mut mended) {
        return 0;
    }
    // SAFETY: the program is valid; libbpf copies the instructions.
    unsafe { bpf_program__set_insns(program, mended.as_mut_ptr(), mended.len() as _) }
}

/// Turns the calls back. False: there were none.
fn mend(instructions: &mut [bpf_insn]) -> bool {
    let mut any = false;
    for instruction in instructions {
        // A call of a helper has no source register; one of a function or a kernel function has.
        if instruction.code == BPF_JMP_CALL && instruction.src_reg() == 0 && instruction.imm == BPF_FUNC_PROBE_READ {
            instruction.imm = BPF_FUNC_PROBE_READ_USER;
            any = true;
        }
    }
    any
}

#[cfg(test)]
mod tests {
    use super::*;

    fn call(source: u8, imm: i32) -> bpf_insn {
        let mut instruction = bpf_insn { code: BPF_JMP_CALL, imm, ..bpf_insn::default() };
        instruction.set_src_reg(source);
        instruction
    }

    #[test]
    fn only_calls_of_that_helper_change() {
        let mut all = [call(0, BPF_FUNC_PROBE_READ), call(1, BPF_FUNC_PROBE_READ), call(0, 35)];
        assert!(mend(&mut all));
        assert_eq!(all.map(|instruction| instruction.imm), [BPF_FUNC_PROBE_READ_USER, BPF_FUNC_PROBE_READ, 35]);
        assert!(!mend(&mut all));
    }
}
