//! Makes records of samples. Keeps them in order, and holds a kill by the kernel back for a moment: only the next sample says that it was
//! for a lack of memory.

use std::collections::VecDeque;
use std::time::{Duration, Instant};

use anyhow::Result;

use crate::cgroup;
use crate::evidence::Reason;
use crate::host;
use crate::probe::abi::signal::{
    Exec as ExecSample, Sample, fl_process, fl_process_flag, fl_result, fl_signal, fl_signal_flag,
};
use crate::probe::abi::{fl_reason, fl_reason_flag, fl_reason_kind};
use crate::process;
use crate::record::Head;
use crate::record::oom::OutOfMemory;
use crate::record::signal::{Exec, Exit, Fork, Sender, Signal, Target, Task};
use crate::siginfo::{code_name, signal_name};
use crate::text;

/// How long a kill by the kernel is held back: the mark comes a few microseconds later, unless its processor does something else first.
const KEEP: Duration = Duration::from_millis(40);

/// How many records are held back at most, in order: beyond that the oldest one is written as it is.
const KEPT_MAX: usize = 4096;

/// A record of any kind.
#[derive(Clone, Debug)]
pub(crate) enum AnyRecord {
    /// A signal.
    Signal(Box<Signal>),
    /// A new task.
    Fork(Fork),
    /// Another program.
    Exec(Box<Exec>),
    /// A task's end.
    Exit(Exit),
}

struct HeldRecord {
    record: AnyRecord,
    /// The kernel killed the target, and the reason may still come: since when it is held back, and the target's size.
    awaits: Option<(Instant, OutOfMemory, u64)>,
}

/// Makes records of samples.
pub(crate) struct Decoder {
    host: String,
    kept: VecDeque<HeldRecord>,
}

impl Decoder {
    /// A decoder for this machine.
    pub(crate) fn new() -> Self {
        Self { host: host::name(), kept: VecDeque::new() }
    }

    /// Takes one sample.
    pub(crate) fn take(&mut self, sample: &Sample) -> Result<()> {
        let (record, awaits) = match sample {
            Sample::Signal(signal) => (AnyRecord::Signal(Box::new(self.signal(signal)?)), awaits(signal)),
            Sample::Fork(process) => (AnyRecord::Fork(self.fork(process)?), None),
            Sample::Exec(exec) => (AnyRecord::Exec(Box::new(self.exec(exec)?)), None),
            Sample::Exit(process) => (AnyRecord::Exit(self.exit(process)?), None),
            Sample::OutOfMemory(oom) => {
                self.mark(oom.pid);
                return Ok(());
            }
        };
        self.kept.push_back(HeldRecord { record, awaits });
        Ok(())
    }

    /// The next record that may be written, in order. `all`: no more samples will come.
    pub(crate) fn next(&mut self, all: bool) -> Option<AnyRecord> {
        let first = self.kept.front()?;
        let keeps = first.awaits.as_ref().is_some_and(|(since, ..)| since.elapsed() < KEEP);
        if keeps && !all && self.kept.len() <= KEPT_MAX {
            return None;
        }
        self.kept.pop_front().map(|kept| kept.record)
    }

    /// Is a record held back?
    pub(crate) fn keeps_any(&self) -> bool {
        !self.kept.is_empty()
    }

    /// The kill of this thread was for a lack of memory.
    fn mark(&mut self, tid: u32) {
        for kept in self.kept.iter_mut().rev() {
            let AnyRecord::Signal(signal) = &mut kept.record else { continue };
            if signal.target.tid != Some(tid) {
                continue;
            }
            if let Some((_, oom, cgroup)) = kept.awaits.take() {
                signal.oom = Some(oom.in_cgroup(cgroup::path(cgroup)));
                return;
            }
        }
    }

    fn signal(&self, sample: &fl_signal) -> Result<Signal> {
        let has = |flag: fl_signal_flag| sample.flags.0 & flag.0 != 0;
        let is_typed = has(fl_signal_flag::FL_SIGNAL_TYPED_ONLY);
        let has_code = has(fl_signal_flag::FL_SIGNAL_HAS_CODE);
        let known = |value: u32| (!is_typed).then_some(value);
        let sender = has(fl_signal_flag::FL_SIGNAL_HAS_SENDER).then(|| Sender {
            pid: sample.sender.pid,
            tid: sample.sender.tid,
            pid_in_namespace: sample.sender.pid_in_namespace,
            comm: sample.sender.comm(),
            uid: sample.sender.uid,
        });
        // kill(2): 0 and negative numbers mean many processes.
        let one = i32::try_from(sample.target.pid).is_ok_and(|pid| pid > 0);
        Ok(Signal {
            head: Head::at("signal", sample.timestamp_ns, &self.host)?,
            signal: signal_name(sample.signal),
            signal_number: sample.signal,
            code: has_code.then(|| code_name(sample.signal, sample.si_code)),
            code_number: has_code.then_some(sample.si_code),
            sender,
            reason: Reason::of(&reason(sample), cgroup::path),
            target: Target {
                pid: one.then_some(sample.target.pid),
                tid: known(sample.target.tid),
                pid_in_namespace: known(sample.target.pid_in_namespace),
                comm: (!is_typed).then(|| sample.target.comm()),
            },
            scope: if has(fl_signal_flag::FL_SIGNAL_TO_PROCESS) { "process" } else { "thread" },
            result: result_word(sample.result),
            oom: None,
            cpu: sample.cpu,
        })
    }

    fn fork(&self, process: &fl_process) -> Result<Fork> {
        Ok(Fork {
            head: Head::at("fork", process.timestamp_ns, &self.host)?,
            task: task(process),
            is_thread: is_thread(process),
        })
    }

    fn exec(&self, sample: &ExecSample) -> Result<Exec> {
        let process = &sample.process;
        let text = |path: &Vec<u8>| String::from_utf8_lossy(path).into_owned();
        let cgroup = sample.cgroup.as_ref().map(text);
        Ok(Exec {
            head: Head::at("exec", process.timestamp_ns, &self.host)?,
            pid: process.tgid,
            ppid: process.ppid,
            pid_in_namespace: process.pid_in_namespace,
            exe: sample.exe.as_ref().map(text),
            comm: comm(process),
            uid: process.uid,
            container_id: cgroup.as_deref().and_then(process::container_id),
            cgroup,
        })
    }

    fn exit(&self, process: &fl_process) -> Result<Exit> {
        // wait(2): the signal in the lowest 7 bits, then the core file's, then the code.
        let signal = process.status & 0x7f;
        Ok(Exit {
            head: Head::at("exit", process.timestamp_ns, &self.host)?,
            task: task(process),
            exit_code: (signal == 0).then_some(process.status >> 8 & 0xff),
            signal: (signal != 0).then(|| signal_name(signal)),
            core_dumped: process.status & 0x80 != 0,
            is_thread: is_thread(process),
        })
    }
}

impl Default for Decoder {
    fn default() -> Self {
        Self::new()
    }
}

/// The same type of the other probe: each has its own in Rust.
fn reason(sample: &fl_signal) -> fl_reason {
    let from = &sample.reason;
    fl_reason {
        kind: fl_reason_kind(from.kind.0),
        flags: fl_reason_flag(from.flags.0),
        limit: from.limit,
        value: from.value,
        cgroup: from.cgroup,
    }
}

/// The record of a kill by the kernel, when the reason is known.
fn awaits(sample: &fl_signal) -> Option<(Instant, OutOfMemory, u64)> {
    let memory = &sample.memory;
    let oom = OutOfMemory::new(memory.total_vm, memory.rss_anon, memory.rss_file, memory.rss_shmem);
    (sample.flags.0 & fl_signal_flag::FL_SIGNAL_HAS_MEMORY.0 != 0).then(|| (Instant::now(), oom, sample.cgroup))
}

/// A result in a word; `None` means unknown.
pub(super) fn result_word(result: fl_result) -> Option<&'static str> {
    match result {
        // It is delivered even without its siginfo.
        fl_result::FL_RESULT_DELIVERED | fl_result::FL_RESULT_LOST_INFO => Some("delivered"),
        fl_result::FL_RESULT_IGNORED => Some("ignored"),
        fl_result::FL_RESULT_ALREADY_PENDING => Some("already_pending"),
        fl_result::FL_RESULT_LOST => Some("lost"),
        _ => None,
    }
}

fn task(process: &fl_process) -> Task {
    Task {
        pid: process.pid,
        tgid: process.tgid,
        ppid: process.ppid,
        pid_in_namespace: process.pid_in_namespace,
        comm: comm(process),
    }
}

fn comm(process: &fl_process) -> String {
    text::name(&process.comm)
}

fn is_thread(process: &fl_process) -> bool {
    process.flags.0 & fl_process_flag::FL_PROCESS_IS_THREAD.0 != 0
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::probe::abi::signal::fl_oom;

    fn killed(tid: u32, by_kernel: bool) -> Sample {
        let mut signal = fl_signal { signal: 9, ..fl_signal::default() };
        signal.target.tid = tid;
        signal.memory.rss_anon = 2;
        if by_kernel {
            signal.flags = fl_signal_flag::FL_SIGNAL_HAS_MEMORY;
        }
        Sample::Signal(Box::new(signal))
    }

    fn tid(record: Option<AnyRecord>) -> Option<(u32, bool)> {
        match record? {
            AnyRecord::Signal(signal) => Some((signal.target.tid.unwrap(), signal.oom.is_some())),
            _ => None,
        }
    }

    #[test]
    fn a_kill_by_the_kernel_waits_for_its_reason_and_what_follows_waits_for_it() {
        let mut decoder = Decoder::new();
        decoder.take(&killed(1, true)).unwrap();
        decoder.take(&killed(2, false)).unwrap();
        assert!(decoder.next(false).is_none() && decoder.keeps_any());
        decoder.take(&Sample::OutOfMemory(fl_oom { pid: 1, ..fl_oom::default() })).unwrap();
        assert_eq!(tid(decoder.next(false)), Some((1, true)));
        assert_eq!(tid(decoder.next(false)), Some((2, false)));
        assert!(!decoder.keeps_any());
    }

    #[test]
    fn without_a_reason_it_is_told_in_the_end() {
        let mut decoder = Decoder::new();
        decoder.take(&killed(1, true)).unwrap();
        assert_eq!(tid(decoder.next(true)), Some((1, false)));
        decoder.take(&killed(2, true)).unwrap();
        std::thread::sleep(KEEP);
        assert_eq!(tid(decoder.next(false)), Some((2, false)));
    }

    #[test]
    fn a_mark_of_another_thread_is_nobodys() {
        let mut decoder = Decoder::new();
        decoder.take(&killed(1, false)).unwrap();
        decoder.take(&Sample::OutOfMemory(fl_oom { pid: 1, ..fl_oom::default() })).unwrap();
        decoder.take(&Sample::OutOfMemory(fl_oom { pid: 7, ..fl_oom::default() })).unwrap();
        assert_eq!(tid(decoder.next(false)), Some((1, false)));
    }
}
