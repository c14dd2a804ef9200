//! The ways to see a function. Each loads two programs from the patterns, and attaches the one for the end first, so that no call seems
//! not to have returned.

use std::ffi::CString;
use std::fmt;
use std::io;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd};
use std::ptr;

use anyhow::Result;
use libbpf_rs::libbpf_sys::{
    BPF_F_KPROBE_MULTI_RETURN, BPF_PROG_TYPE_KPROBE, BPF_PROG_TYPE_TRACEPOINT, BPF_PROG_TYPE_TRACING, BPF_TRACE_FENTRY,
    BPF_TRACE_FEXIT, BPF_TRACE_KPROBE_MULTI, BPF_TRACE_RAW_TP, PERF_TYPE_TRACEPOINT, bpf_link_create,
    bpf_link_create_opts, bpf_raw_tracepoint_open,
};

use super::Point;
use crate::probe::abi::call::{fl_fetch, fl_fetch_flag, fl_fetch_kind, fl_function_flag};
use crate::probe::object::Opened;
use crate::probe::pattern::{Pattern, ProgramType, Refusal, owned};
use crate::probe::tracefs::Tracefs;
use crate::probe::{counters, perf};

/// A program that runs at a function until this is dropped.
#[derive(Debug)]
pub(super) struct FunctionHook {
    link: OwnedFd,
    /// `None` means that it could not be kept.
    program: Option<OwnedFd>,
    /// A call that it misses is not recorded.
    records: bool,
}

impl FunctionHook {
    fn new(link: OwnedFd, program: &OwnedFd) -> Self {
        Self { link, program: program.try_clone().ok(), records: true }
    }

    /// The program's number in the kernel, and how many of its runs the kernel skipped; `None` means that the kernel doesn't report it.
    pub(super) fn runs_missed(&self) -> Option<(u32, u64)> {
        counters::recursion_misses(self.program.as_ref()?.as_fd())
    }

    /// How many calls it has missed of which there is no record. The end of a recorded call is missed as well, and counts as that.
    pub(super) fn hits_missed(&self) -> u64 {
        if self.records { counters::hits_missed(self.link.as_fd()) } else { 0 }
    }
}

/// Why a function could not be attached in one of the ways.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum AttachFailure {
    /// This kernel doesn't have the way: other functions need not be tried.
    Kernel(String),
    /// This function can't be attached in this way.
    Function(String),
    /// The same, although the kernel has taken a program for it.
    Loaded(Box<AttachFailure>),
}

impl AttachFailure {
    pub(super) fn text(&self) -> &str {
        match self {
            Self::Kernel(text) | Self::Function(text) => text,
            Self::Loaded(why) => why.text(),
        }
    }

    /// Need other functions not be tried?
    pub(super) fn is_of_kernel(&self) -> bool {
        match self {
            Self::Kernel(_) => true,
            Self::Function(_) => false,
            Self::Loaded(why) => why.is_of_kernel(),
        }
    }

    /// The program was loaded before it failed.
    fn when_loaded(self) -> Self {
        Self::Loaded(Box::new(self))
    }
}

impl fmt::Display for AttachFailure {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.text())
    }
}

/// ENOTSUPP of include/linux/errno.h, which C libraries don't have.
const ENOTSUPP: i32 = 524;

/// Does the kernel report that it doesn't have this way at all?
fn is_unsupported(error: &io::Error) -> bool {
    matches!(error.raw_os_error(), Some(libc::EPERM | libc::EOPNOTSUPP | libc::ENOSYS | ENOTSUPP))
}

/// The meaning of such an answer.
fn lacking(error: &io::Error) -> AttachFailure {
    AttachFailure::Kernel(match error.raw_os_error() {
        // Lockdown, a security module, or an architecture without it: the kernel doesn't say which.
        Some(libc::EPERM | libc::EACCES) => format!("this kernel does not let us ({error})"),
        _ => format!("this kernel has none ({})", words(error)),
    })
}

fn failed_to_attach(error: &io::Error) -> AttachFailure {
    if is_unsupported(error) {
        return lacking(error);
    }
    AttachFailure::Function(format!("not probeable: {}", words(error)))
}

fn function_failure(step: &str, error: &io::Error) -> AttachFailure {
    AttachFailure::Function(format!("{step}: {}", words(error)))
}

fn words(error: &io::Error) -> String {
    match error.raw_os_error() {
        Some(ENOTSUPP) => "not supported by this kernel".to_owned(),
        _ => error.to_string(),
    }
}

impl From<Refusal> for AttachFailure {
    fn from(refusal: Refusal) -> Self {
        let error = words(&refusal.error);
        match refusal.log.as_str() {
            // No trampolines: the kernel doesn't even look at the function.
            "" if is_unsupported(&refusal.error) => lacking(&refusal.error),
            "" => Self::Function(format!("the kernel refused the program: {error}")),
            log => Self::Function(format!("the kernel refused the program: {log} ({error})")),
        }
    }
}

/// Is the value read when the function has ended? See fl_fetch_again(), bpf/include/call_fetch.bpf.h.
pub(super) fn is_read_at_end(fetch: &fl_fetch) -> bool {
    u32::from(fetch.flags) & fl_fetch_flag::FL_FETCH_AGAIN.0 != 0
        || u32::from(fetch.kind) == fl_fetch_kind::FL_FETCH_USER_TEXT.0
}

/// The number by which a program identifies its function: FL_PLACE() and its like, bpf/call.bpf.c.
fn which(number: u32, point: &Point, is_tracepoint: bool) -> u64 {
    let place = number << 1 | u32::from(is_tracepoint);
    u64::from(place & 0xffff) | u64::from(point.parameters) << 16 | u64::from(point.flags & 0xff) << 24
}

/// The patterns of bpf/call.bpf.c.
#[derive(Clone)]
pub(super) struct Patterns {
    fentry: Pattern,
    fexit: Pattern,
    kprobe: Pattern,
    kretprobe: Pattern,
    multi: Pattern,
    multi_return: Pattern,
    enter: Pattern,
    leave: Pattern,
}

impl Patterns {
    /// Their programs.
    pub(super) const NAMES: [&str; 8] =
        ["fl_fentry", "fl_fexit", "fl_kprobe", "fl_kretprobe", "fl_multi", "fl_multi_return", "fl_enter", "fl_leave"];

    pub(super) fn of(object: &mut Opened) -> Result<Self> {
        let found: [Pattern; 8] = object
            .patterns(&Self::NAMES)?
            .try_into()
            .map_err(|_| anyhow::anyhow!("failed to load the recorder: a program is missing"))?;
        let [fentry, fexit, kprobe, kretprobe, multi, multi_return, enter, leave] = found;
        Ok(Self { fentry, fexit, kprobe, kretprobe, multi, multi_return, enter, leave })
    }

    /// The same with another table of functions. Only patterns for one function each: those for all were made for the first table.
    pub(super) fn with_table(&self, from: BorrowedFd<'_>, to: BorrowedFd<'_>) -> Self {
        let mut patterns = self.clone();
        let each = [&mut patterns.fentry, &mut patterns.fexit, &mut patterns.kprobe, &mut patterns.kretprobe];
        each.into_iter().for_each(|pattern| pattern.replace_table(from, to));
        patterns
    }

    /// Loads the programs of a function, the one for its end first, and attaches each by `link`. There is none for the beginning of calls that
    /// are not recorded.
    fn each_side<'kind>(
        point: &Point,
        which: u64,
        [begin, end]: [&Pattern; 2],
        kind: impl Fn(CallEdge) -> ProgramType<'kind>,
        link: impl Fn(CallEdge, &OwnedFd) -> Result<OwnedFd, AttachFailure>,
    ) -> Result<Vec<FunctionHook>, AttachFailure> {
        let is_recorded = point.flags & fl_function_flag::FL_FUNCTION_QUIET.0 == 0;
        let sides = std::iter::once((CallEdge::End, end)).chain(is_recorded.then_some((CallEdge::Begin, begin)));
        let attach = |(side, pattern): (CallEdge, &Pattern)| -> Result<FunctionHook, AttachFailure> {
            let program = pattern.load(which, kind(side))?;
            let hook = FunctionHook::new(link(side, &program).map_err(AttachFailure::when_loaded)?, &program);
            Ok(FunctionHook { records: side == CallEdge::Begin || !is_recorded, ..hook })
        };
        sides.map(attach).collect()
    }

    /// fentry and fexit.
    pub(super) fn fentry(&self, number: u32, point: &Point) -> Result<Vec<FunctionHook>, AttachFailure> {
        if let Some(why) = point.forbidden {
            return Err(AttachFailure::Function(why.to_owned()));
        }
        let target = point.program.as_ref().map(|program| program.as_fd());
        let Some(function) = point.btf_id else {
            let why = match target {
                Some(_) => "it was loaded without types (BTF)",
                None => "its parameters are not among the kernel's types",
            };
            return Err(AttachFailure::Function(why.to_owned()));
        };
        let kind = |side: CallEdge| {
            let attach = if side == CallEdge::Begin { BPF_TRACE_FENTRY } else { BPF_TRACE_FEXIT };
            ProgramType { program: BPF_PROG_TYPE_TRACING, attach, function, target }
        };
        Self::each_side(point, which(number, point, false), [&self.fentry, &self.fexit], kind, |_, program| {
            // SAFETY: no name: the place to attach was given when it was loaded.
            let link = unsafe { bpf_raw_tracepoint_open(ptr::null(), program.as_raw_fd()) };
            owned(link).map_err(|error| failed_to_attach(&error))
        })
        // What is refused at a program may well work at the kernel's functions.
        .map_err(|why| match (target, &why) {
            (Some(_), AttachFailure::Kernel(text)) => AttachFailure::Function(text.clone()),
            (Some(_), AttachFailure::Loaded(_)) => AttachFailure::Function(why.text().to_owned()).when_loaded(),
            _ => why,
        })
    }

    /// A tracepoint, by its types. It has no end.
    pub(super) fn event(&self, number: u32, point: &Point) -> Result<Vec<FunctionHook>, AttachFailure> {
        let Some(function) = point.btf_id else {
            return Err(AttachFailure::Function("it is not among the kernel's types".to_owned()));
        };
        let kind = ProgramType {
            program: BPF_PROG_TYPE_TRACING,
            attach: BPF_TRACE_RAW_TP,
            function,
            ..ProgramType::default()
        };
        let program = self.fentry.load(which(number, point, false), kind)?;
        // SAFETY: no name: the place to attach was given when it was loaded.
        let link = owned(unsafe { bpf_raw_tracepoint_open(ptr::null(), program.as_raw_fd()) });
        let link = link.map_err(|error| failed_to_attach(&error).when_loaded())?;
        Ok(vec![FunctionHook::new(link, &program)])
    }

    /// A kprobe and a kretprobe.
    pub(super) fn kprobe(&self, number: u32, point: &Point) -> Result<Vec<FunctionHook>, AttachFailure> {
        let Some(event) = perf::kprobe_type() else {
            return Err(AttachFailure::Kernel("this kernel has none (CONFIG_KPROBES)".to_owned()));
        };
        let symbol = c_string(&point.symbol)?;
        let kind = |_: CallEdge| ProgramType { program: BPF_PROG_TYPE_KPROBE, ..ProgramType::default() };
        Self::each_side(point, which(number, point, false), [&self.kprobe, &self.kretprobe], kind, |side, program| {
            let event = perf::open_kprobe(event, &symbol, side == CallEdge::End);
            run_at(event.map_err(|error| failed_to_attach(&error))?, program)
        })
    }

    /// sys_enter_NAME and sys_exit_NAME.
    pub(super) fn tracepoint(
        &self,
        number: u32,
        point: &Point,
        tracefs: &Tracefs,
    ) -> Result<Vec<FunctionHook>, AttachFailure> {
        let kind = |_: CallEdge| ProgramType { program: BPF_PROG_TYPE_TRACEPOINT, ..ProgramType::default() };
        Self::each_side(point, which(number, point, true), [&self.enter, &self.leave], kind, |side, program| {
            let name = format!("sys_{}_{}", if side == CallEdge::Begin { "enter" } else { "exit" }, point.symbol);
            let id = tracefs.syscall(&name).map_err(|error| AttachFailure::Kernel(format!("{error:#}")))?;
            let id = id.ok_or_else(|| AttachFailure::Function(format!("there is no tracepoint `syscalls:{name}`")))?;
            // The processor doesn't matter: the program runs on all.
            let event = perf::open(PERF_TYPE_TRACEPOINT, id, 0, 0);
            run_at(event.map_err(|error| function_failure("open its event", &error))?, program)
        })
    }

    /// The two programs of kprobe.multi, which serve all functions.
    pub(super) fn multi(&self) -> Result<Multi, AttachFailure> {
        let kind =
            ProgramType { program: BPF_PROG_TYPE_KPROBE, attach: BPF_TRACE_KPROBE_MULTI, ..ProgramType::default() };
        let load = |pattern: &Pattern| {
            pattern
                .load(0, kind)
                .map_err(|refusal| AttachFailure::Kernel(AttachFailure::from(refusal).text().to_owned()))
        };
        Ok(Multi { begin: load(&self.multi)?, end: load(&self.multi_return)? })
    }
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum CallEdge {
    Begin,
    End,
}

/// kprobe.multi's programs, loaded.
pub(super) struct Multi {
    begin: OwnedFd,
    end: OwnedFd,
}

impl Multi {
    /// Attaches to all of these functions at once, or to none.
    pub(super) fn attach(&self, functions: &[(u32, &Point)]) -> Result<Vec<FunctionHook>, AttachFailure> {
        let is_recorded = |point: &Point| point.flags & fl_function_flag::FL_FUNCTION_QUIET.0 == 0;
        let recorded: Vec<_> = functions.iter().copied().filter(|(_, point)| is_recorded(point)).collect();
        let end = link_multi(&self.end, functions, BPF_F_KPROBE_MULTI_RETURN)?;
        let mut hooks = vec![FunctionHook { records: recorded.is_empty(), ..end }];
        if !recorded.is_empty() {
            hooks.push(link_multi(&self.begin, &recorded, 0)?);
        }
        Ok(hooks)
    }
}

fn link_multi(program: &OwnedFd, functions: &[(u32, &Point)], flags: u32) -> Result<FunctionHook, AttachFailure> {
    let names = functions.iter().map(|(_, point)| c_string(&point.symbol)).collect::<Result<Vec<_>, _>>()?;
    let mut names: Vec<_> = names.iter().map(|name| name.as_ptr()).collect();
    let cookies: Vec<u64> = functions.iter().map(|(number, point)| which(*number, point, false)).collect();
    let mut opts =
        bpf_link_create_opts { sz: size_of::<bpf_link_create_opts>() as _, ..bpf_link_create_opts::default() };
    opts.__bindgen_anon_1.kprobe_multi.flags = flags;
    opts.__bindgen_anon_1.kprobe_multi.cnt = functions.len() as u32;
    opts.__bindgen_anon_1.kprobe_multi.syms = names.as_mut_ptr();
    opts.__bindgen_anon_1.kprobe_multi.cookies = cookies.as_ptr();
    // SAFETY: every pointer is to memory that lives during the call, with its length beside it.
    let link = unsafe { bpf_link_create(program.as_raw_fd(), 0, BPF_TRACE_KPROBE_MULTI, &raw const opts) };
    let link = owned(link).map_err(|error| failed_to_attach(&error).when_loaded())?;
    Ok(FunctionHook::new(link, program))
}

/// Runs a program at an event until what is returned is closed.
fn run_at(event: OwnedFd, program: &OwnedFd) -> Result<OwnedFd, AttachFailure> {
    perf::run_at(event, program.as_fd()).map_err(|error| function_failure("attach", &error))
}

fn c_string(symbol: &str) -> Result<CString, AttachFailure> {
    CString::new(symbol).map_err(|_| AttachFailure::Function("its name has a zero byte".to_owned()))
}
