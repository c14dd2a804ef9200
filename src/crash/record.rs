//! The record of a sample, made once all is known of it: numbers get names, here and nowhere else.

use std::borrow::Cow;

use super::decode::{CrashFacts, Decoder};
use super::ending::Proved;
use super::sample::has_earlier;
use crate::arch;
use crate::diagnosis::{self, Confidence};
use crate::evidence::{Cause, Evidence, File};
use crate::hex::Hex;
use crate::probe::abi::{fl_crash, fl_crash_flag, fl_disposition};
use crate::process::container_id;
use crate::record::Head;
use crate::record::call::Call;
use crate::record::crash::{Crash, Disposition, EarlierFault, EndedBy, Frame, PageFault, Seccomp, Vma};
use crate::record::oom::OutOfMemory;
use crate::siginfo::{SI_KERNEL, code_name, fault_type, signal_name};

/// The recorded kernel calls before a signal.
#[derive(Clone, Debug, Default)]
pub(crate) struct RecordedCalls {
    /// Oldest first.
    pub calls: Vec<Call>,
    /// The one among them that explains the signal.
    pub cause: Option<Cause>,
}

impl Decoder {
    /// The record of a sample. If `recorded` is `None`, no calls are recorded.
    pub(crate) fn record(
        &self,
        raw: &fl_crash,
        proved: &Proved,
        found: CrashFacts,
        recorded: Option<RecordedCalls>,
    ) -> Crash {
        let has = |flag: fl_crash_flag| raw.flags.0 & flag.0 != 0;
        let (calls, cause) = recorded.map(|recorded| (recorded.calls, recorded.cause)).unzip();
        let evidence = Evidence { cause: cause.flatten(), ..found.evidence };
        let frames: Vec<Frame> = evidence.frames.iter().map(Frame::from).collect();
        let instruction_symbol = frames.iter().find(|frame| !frame.inlined).and_then(|frame| frame.symbol.clone());
        let diagnosis = diagnosis::diagnose(&evidence);
        let disposition = Disposition::from(raw.disposition);
        let (is_forged, has_stack) = (has(fl_crash_flag::FL_IS_FORGED), self.options.stack_trace);
        let trap_nr = has(fl_crash_flag::FL_HAS_TRAP).then_some(raw.trap_nr);
        let code = has(fl_crash_flag::FL_HAS_CODE).then_some(raw.si_code);
        let oom = has(fl_crash_flag::FL_IS_OOM).then(|| OutOfMemory::from(&raw.memory).in_cgroup(found.cgroup.clone()));
        Crash {
            head: Head::new("crash", found.timestamp, &self.host),
            pid: raw.pid,
            tid: raw.tid,
            ppid: raw.ppid,
            pid_in_namespace: raw.pid_in_namespace,
            comm: raw.comm(),
            thread_name: raw.thread_name(),
            exe: found.exe.as_ref().and_then(File::name),
            build_id: found.exe.and_then(|exe| exe.build_id),
            uid: raw.uid,
            container_id: found.cgroup.as_deref().and_then(container_id),
            cgroup: found.cgroup,
            signature: found.signature,
            family: found.family,
            signal: signal_name(raw.signal),
            signal_number: raw.signal,
            code: code.map(|code| code_name(raw.signal, code)),
            code_number: code,
            fault_type: code
                .filter(|_| !is_forged)
                .and_then(|code| fault_type(raw.signal, code, trap_nr))
                .map(Cow::from),
            fault_address: evidence.fault_address.map(Hex),
            // It is known even if the other registers aren't: it is the first frame.
            instruction_pointer: raw.frames().first().copied().map(Hex),
            instruction_symbol,
            disposition,
            ended_by: (disposition == Disposition::Caught).then(|| EndedBy {
                stack_trace: (has_stack && proved.second.is_some())
                    .then(|| found.ending.iter().map(Frame::from).collect()),
                ..ended_by(raw, proved.second.as_deref())
            }),
            earlier_fault: (disposition == Disposition::Fatal && has_earlier(raw)).then(|| EarlierFault {
                stack_trace: has_stack.then(|| found.earlier.iter().map(Frame::from).collect()),
                ..earlier_fault(raw, Confidence::certain_if(proved.is_left))
            }),
            oom,
            sender: found.sender,
            reason: evidence.reason.clone(),
            page_fault: evidence.page_fault.map(PageFault::from_code),
            seccomp: evidence.system_call.map(Seccomp::from),
            abort_message: evidence.abort_message,
            runtime_message: found.runtime_message,
            registers: evidence
                .registers
                .as_ref()
                .filter(|_| self.options.registers)
                .map(|of| arch::registers(of).into()),
            vma: evidence.memory.at.as_ref().map(Vma::from),
            vma_below: evidence.memory.below.as_ref().map(Vma::from),
            vma_above: evidence.memory.above.as_ref().map(Vma::from),
            stack_complete: has_stack.then_some(found.stack_complete),
            stack_omitted: found.stack_omitted.filter(|_| has_stack),
            unwinder: (has_stack && !frames.is_empty()).then(|| found.unwinder.into()),
            stack_trace: has_stack.then_some(frames),
            symbols_failed: found.failed,
            diagnosis,
            cpu: raw.cpu,
            calls,
            is_brief: !has_stack,
        }
    }
}

impl From<fl_disposition> for Disposition {
    fn from(disposition: fl_disposition) -> Self {
        match disposition {
            fl_disposition::FL_DISPOSED_CAUGHT | fl_disposition::FL_DISPOSED_MAYBE_CAUGHT => Self::Caught,
            fl_disposition::FL_DISPOSED_HANDLED => Self::Handled,
            fl_disposition::FL_DISPOSED_IGNORED => Self::Ignored,
            fl_disposition::FL_DISPOSED_THREAD => Self::Thread,
            _ => Self::Fatal,
        }
    }
}

/// How a process ended that had handled its fault, without the frames. `second`: a fault in the handler.
fn ended_by(raw: &fl_crash, second: Option<&fl_crash>) -> EndedBy {
    let has_address = second.filter(|end| end.flags.0 & fl_crash_flag::FL_HAS_ADDRESS.0 != 0);
    let is_signal = raw.end_signal != 0;
    EndedBy {
        signal: is_signal.then(|| signal_name(raw.end_signal)),
        code: is_signal.then(|| code_name(raw.end_signal, raw.end_code)),
        exit_code: (!is_signal).then_some(raw.end_code),
        fault_address: has_address.map(|end| Hex(end.fault_address)),
        instruction_pointer: second.and_then(|end| end.frames().first().copied()).map(Hex),
        stack_trace: None,
    }
}

/// A fault that the thread had handled before, without its frames.
fn earlier_fault(raw: &fl_crash, left: Confidence) -> EarlierFault {
    EarlierFault {
        signal: signal_name(raw.earlier_signal),
        code: code_name(raw.earlier_signal, raw.earlier_code),
        // The kernel has no address where the processor has none.
        fault_address: (raw.earlier_code != SI_KERNEL).then_some(Hex(raw.earlier_address)),
        stack_trace: None,
        confidence: left,
    }
}
