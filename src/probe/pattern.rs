//! Programs from a pattern: the instructions as libbpf would give them to the kernel, with a number put in, loaded once for each hook. It
//! takes milliseconds each; to open and relocate an object for each takes many times as long.

use std::ffi::{CStr, CString};
use std::io;
use std::os::fd::{AsRawFd, BorrowedFd, FromRawFd, OwnedFd};
use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};

use anyhow::{Result, anyhow};
use libbpf_rs::libbpf_sys::{
    bpf_attach_type, bpf_func_info, bpf_insn, bpf_prog_load, bpf_prog_load_opts, bpf_prog_type, bpf_program__func_info,
    bpf_program__func_info_cnt,
};
use libbpf_rs::{AsRawLibbpf, OpenProgramMut};

use super::abi::fl_mark;
use super::typed;
use super::types::Ids;

/// A load of a number of 64 bits, which takes two places.
const LOAD_NUMBER: u8 = (libbpf_sys::BPF_LD | libbpf_sys::BPF_IMM | libbpf_sys::BPF_DW) as u8;
const BPF_PSEUDO_MAP_FD: u8 = libbpf_sys::BPF_PSEUDO_MAP_FD as u8;
const BPF_PSEUDO_MAP_VALUE: u8 = libbpf_sys::BPF_PSEUDO_MAP_VALUE as u8;
const BPF_PSEUDO_BTF_ID: u8 = libbpf_sys::BPF_PSEUDO_BTF_ID as u8;

/// The placeholder of the number, twice, in a load of 64 bits: FL_WHICH in bpf/call.bpf.c.
const FL_WHICH: i32 = fl_mark::FL_MARK_WHICH.0 as i32;

/// The placeholder of the kernel's variable that says which context a processor is in.
const FL_PREEMPT_COUNT: i32 = fl_mark::FL_MARK_PREEMPT_COUNT.0 as i32;

/// Room for the verifier's log.
const LOG_BYTES: usize = 1 << 18;

/// A program's instructions, relocated.
#[derive(Clone)]
pub(super) struct Pattern {
    name: CString,
    instructions: Vec<bpf_insn>,
    functions: Vec<bpf_func_info>,
    /// The object's types in the kernel, if the kernel accepts them.
    types: Option<Arc<OwnedFd>>,
    variables: Arc<Variables>,
}

/// The kernel's variables that patterns use, by their ids among its types; 0: there is none, or programs can't use it. The patterns of an
/// object share them: if one pattern is refused a variable, the others don't ask for it.
#[derive(Debug, Default)]
pub(super) struct Variables {
    preempt_count: AtomicU32,
}

impl Variables {
    pub(super) fn of(ids: Ids) -> Arc<Self> {
        Arc::new(Self { preempt_count: AtomicU32::new(ids.preempt_count) })
    }
}

/// The type that a program is loaded as.
#[derive(Clone, Copy, Default)]
pub(super) struct ProgramType<'target> {
    pub(super) program: bpf_prog_type,
    pub(super) attach: bpf_attach_type,
    /// The function at which it will run, by its id in the kernel's BTF or in that of `target`; 0: it is named later.
    pub(super) function: u32,
    /// The BPF program whose function that is; `None` means the kernel's.
    pub(super) target: Option<BorrowedFd<'target>>,
}

impl Pattern {
    /// The pattern that `program` is: its object has been prepared. `typed`: it is a typed build, with these ids.
    pub(super) fn of(
        program: &OpenProgramMut<'_>,
        types: Option<Arc<OwnedFd>>,
        variables: Arc<Variables>,
        typed: Option<Ids>,
    ) -> Result<Self> {
        let name = program.name().to_string_lossy().into_owned();
        let raw = program.as_libbpf_object().as_ptr();
        // SAFETY: the pointer is valid; libbpf says how long the array is, which is copied at once.
        let (mut instructions, functions) = unsafe {
            let (first, count) = (bpf_program__func_info(raw), bpf_program__func_info_cnt(raw) as usize);
            let functions: &[bpf_func_info] =
                if first.is_null() { &[] } else { std::slice::from_raw_parts(first, count) };
            (typed::instructions(raw), functions.to_vec())
        };
        if instructions.is_empty() {
            return Err(anyhow!("failed to find program `{name}` in the probe: this binary is damaged, build it anew"));
        }
        if let Some(ids) = typed {
            typed::mend(&mut instructions, ids);
        }
        Ok(Self { name: CString::new(name)?, instructions, functions, types, variables })
    }

    /// Loads a program from it, with the number `which`, as a program of this kind.
    ///
    /// # Errors
    /// The kernel's error, or the last line of the verifier's log.
    pub(super) fn load(&self, which: u64, kind: ProgramType<'_>) -> Result<OwnedFd, Refusal> {
        let preempt_count = self.variables.preempt_count.load(Ordering::Relaxed);
        if preempt_count != 0
            && let Ok(loaded) = self.attempt(&self.with(which, preempt_count), kind, None)
        {
            return Ok(loaded);
        }
        let instructions = self.with(which, 0);
        let loaded = self.attempt(&instructions, kind, None).or_else(|error| {
            let mut log = vec![0u8; LOG_BYTES];
            // Once more, with a log: only now it is worth the time.
            self.attempt(&instructions, kind, Some(&mut log)).map_err(|_| Refusal { error, log: last_line(&log) })
        })?;
        // A kernel may keep the symbols of its per-CPU variables to itself (CONFIG_KALLSYMS_ALL).
        self.variables.preempt_count.store(0, Ordering::Relaxed);
        Ok(loaded)
    }

    /// Has the programs that are made from now on use the table `to` in the place of `from`, which the object has.
    pub(super) fn replace_table(&mut self, from: BorrowedFd<'_>, to: BorrowedFd<'_>) {
        for instruction in &mut self.instructions {
            let is_table = instruction.code == LOAD_NUMBER
                && [BPF_PSEUDO_MAP_FD, BPF_PSEUDO_MAP_VALUE].contains(&instruction.src_reg());
            if is_table && instruction.imm == from.as_raw_fd() {
                instruction.imm = to.as_raw_fd();
            }
        }
    }

    /// The instructions with these numbers put in.
    fn with(&self, which: u64, preempt_count: u32) -> Vec<bpf_insn> {
        let mut instructions = self.instructions.clone();
        place(&mut instructions, FL_WHICH, which, 0);
        place(&mut instructions, FL_PREEMPT_COUNT, preempt_count.into(), BPF_PSEUDO_BTF_ID);
        instructions
    }

    fn attempt(&self, instructions: &[bpf_insn], kind: ProgramType<'_>, log: Option<&mut [u8]>) -> io::Result<OwnedFd> {
        let mut opts = bpf_prog_load_opts {
            sz: size_of::<bpf_prog_load_opts>() as _,
            expected_attach_type: kind.attach,
            attach_btf_id: kind.function,
            attach_prog_fd: kind.target.map_or(0, |target| target.as_raw_fd() as u32),
            ..bpf_prog_load_opts::default()
        };
        if let Some(types) = &self.types {
            opts.prog_btf_fd = types.as_raw_fd() as u32;
            opts.func_info = self.functions.as_ptr().cast();
            opts.func_info_cnt = self.functions.len() as u32;
            opts.func_info_rec_size = size_of::<bpf_func_info>() as u32;
        }
        if let Some(log) = log {
            opts.log_level = 1;
            opts.log_size = u32::try_from(log.len()).unwrap_or(u32::MAX);
            opts.log_buf = log.as_mut_ptr().cast();
        }
        // SAFETY: every pointer is to memory that lives during the call, with its length beside it.
        let fd = unsafe {
            let count = instructions.len() as _;
            bpf_prog_load(
                kind.program,
                self.name.as_ptr(),
                c"GPL".as_ptr(),
                instructions.as_ptr(),
                count,
                &raw mut opts,
            )
        };
        owned(fd)
    }
}

/// The result of a call of libbpf: a descriptor, or an error's number below 0.
pub(super) fn owned(result: i32) -> io::Result<OwnedFd> {
    if result < 0 {
        return Err(io::Error::from_raw_os_error(-result));
    }
    // SAFETY: the kernel has just made it for us.
    Ok(unsafe { OwnedFd::from_raw_fd(result) })
}

/// Why a program could not be loaded.
#[derive(Debug)]
pub(super) struct Refusal {
    pub(super) error: io::Error,
    /// The last line of the log that says something; empty if there is none.
    pub(super) log: String,
}

/// Puts `value` in the place of the placeholder `sign`. `kind`, if it isn't 0, is the kind of the value.
fn place(instructions: &mut [bpf_insn], sign: i32, value: u64, kind: u8) {
    for at in 0..instructions.len().saturating_sub(1) {
        let [first, second] = &mut instructions[at..at + 2] else { continue };
        if first.code == LOAD_NUMBER && first.src_reg() == 0 && first.imm == sign && second.imm == sign {
            first.imm = value as u32 as i32;
            second.imm = (value >> 32) as u32 as i32;
            if value != 0 {
                first.set_src_reg(kind);
            }
        }
    }
}

/// The last line of a verifier's log that says why.
fn last_line(log: &[u8]) -> String {
    let text = CStr::from_bytes_until_nul(log).map(CStr::to_string_lossy).unwrap_or_default();
    let says_why =
        |line: &&str| !line.is_empty() && !line.starts_with("processed ") && !line.starts_with("verification time");
    text.lines().rev().map(str::trim).find(says_why).unwrap_or_default().to_owned()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn load_number(source: u8, low: i32, high: i32) -> [bpf_insn; 2] {
        let mut first = bpf_insn { code: LOAD_NUMBER, imm: low, ..bpf_insn::default() };
        first.set_src_reg(source);
        [first, bpf_insn { imm: high, ..bpf_insn::default() }]
    }

    #[test]
    fn the_number_is_put_in_and_nothing_else_changes() {
        let mut all =
            [load_number(0, FL_WHICH, FL_WHICH), load_number(1, FL_WHICH, FL_WHICH), load_number(0, FL_WHICH, 0)];
        let all = all.as_flattened_mut();
        place(all, FL_WHICH, 0x1234_5678_9abc_def0, 0);
        let found: Vec<u32> = all.iter().map(|instruction| instruction.imm as u32).collect();
        let stays = FL_WHICH as u32;
        assert_eq!(found, [0x9abc_def0, 0x1234_5678, stays, stays, stays, 0]);
    }

    #[test]
    fn what_is_not_there_is_a_zero_and_no_variable() {
        let mut there = load_number(0, FL_PREEMPT_COUNT, FL_PREEMPT_COUNT);
        let mut missing = there;
        place(&mut there, FL_PREEMPT_COUNT, 42, BPF_PSEUDO_BTF_ID);
        place(&mut missing, FL_PREEMPT_COUNT, 0, BPF_PSEUDO_BTF_ID);
        assert_eq!((there[0].src_reg(), there[0].imm, there[1].imm), (BPF_PSEUDO_BTF_ID, 42, 0));
        assert_eq!((missing[0].src_reg(), missing[0].imm, missing[1].imm), (0, 0, 0));
    }

    #[test]
    fn the_last_line_tells_why() {
        let log = b"0: R1=ctx()\nfunc 'x' doesn't have 3-th argument\nprocessed 3 insns (limit 1000000)\n\0\0";
        assert_eq!(last_line(log), "func 'x' doesn't have 3-th argument");
        assert_eq!(last_line(&[0; 8]), "");
    }
}
