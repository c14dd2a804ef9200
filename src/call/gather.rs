//! The calls that belong to a crash or a trigger: those of its thread, and those of others that have to do with it.

use anyhow::Result;

use super::cause;
use super::decode::{Decoder, Owner};
use super::nesting::{self, Nesting};
use super::plan::FunctionPlan;
use super::subject::Subject;
use super::symbols::{KernelNamer, Sight};
use super::trigger::Stitch;
use crate::crash::RecordedCalls;
use crate::evidence::{Evidence, Thread};
use crate::host;
use crate::output::boottime_ns;
use crate::probe::abi::call::{fl_call, fl_call_state, fl_event, fl_task, fl_trigger_kind};
use crate::probe::call::{Attached, Recorder, TaskCalls};
use crate::record::Head;
use crate::record::call::{Call, LiveCall, Trigger};
use crate::record::crash::Disposition;
use crate::siginfo::signal_name;
use crate::text;

/// How many calls of other threads and processes are in the record of a crash: the newest ones.
const OTHERS_MAX: usize = 16;

/// How many calls of all tasks are in the record of a trigger: the newest ones.
const STITCHED_MAX: usize = 64;

/// Reads the recorder when something asks for calls.
pub(super) struct Gatherer<'run> {
    recorder: &'run Recorder,
    decoder: Decoder,
    /// `None` means that stacks are not kept.
    namer: Option<KernelNamer>,
    host: String,
    ends_missed: u64,
    /// Calls that were not recorded, as the recorder had last counted them, and since when (CLOCK_BOOTTIME) that is so.
    unrecorded: u64,
    complete_since_ns: u64,
}

impl<'run> Gatherer<'run> {
    /// Reads `recorder`, whose functions `decoder` knows.
    pub(super) fn new(recorder: &'run Recorder, decoder: Decoder, kernel_stacks: bool) -> Self {
        let namer = kernel_stacks.then(|| KernelNamer::new(&Sight::read()));
        let host = host::name();
        Self { recorder, decoder, namer, host, ends_missed: 0, unrecorded: 0, complete_since_ns: 0 }
    }

    /// These functions are watched from now on, too.
    pub(super) fn add(&mut self, planned: &[FunctionPlan], attached: &[Attached]) {
        self.decoder.add(planned, attached);
    }

    /// The name of the function that a trigger is about.
    pub(super) fn function(&self, event: &fl_event) -> &str {
        self.decoder.name(event.function)
    }

    /// System calls of threads that died, which have ended without being seen to: the kernel program has not counted them.
    pub(super) fn ends_missed(&self) -> u64 {
        self.ends_missed
    }

    /// The calls before a crash, and which one explains it.
    pub(super) fn recorded(&mut self, evidence: &Evidence, disposition: Disposition) -> Result<RecordedCalls> {
        let (subject, thread) = (Subject::of(evidence), &evidence.thread);
        let own = self.recorder.task(thread.tid)?.filter(|task| is_of_thread(&task.header, thread));
        let own = own.map(|task| self.back_in_user_mode(task, evidence.at_ns, disposition));
        let mut calls = self.calls(own.as_ref())?;
        // If a handler ran, the thread went on and made more calls.
        calls.retain(|call| call.entered_ns <= subject.at_ns);
        // Numbers of processes are reused. The process of a thread is older than the thread.
        let began = if thread.is_main() { thread.start_ns } else { 0 };
        if subject.concerns_others() {
            for task in self.recorder.tasks()?.iter().filter(|task| task.header.tid != thread.tid) {
                let is_own = |call: &fl_call| task.header.pid == thread.pid && call.entered_ns >= began;
                let concerns = |call: &fl_call| is_own(call) || self.decoder.concerns_others(call.function);
                calls.extend(self.some(task, |call| concerns(call) && call.entered_ns <= subject.at_ns)?);
            }
        }
        cause::relate(&subject, &mut calls);
        if calls.iter().any(|call| call.is_cause) {
            cause::doubt(&mut calls, self.complete_since()?);
        }
        keep(&mut calls, thread.tid);
        Ok(RecordedCalls { cause: cause::cause_of(&calls), calls })
    }

    /// The calls that are joined to a trigger, and by what. By its task, if its own call hasn't such an argument.
    fn stitched(&self, event: &fl_event, task: &TaskCalls, stitch: &Stitch) -> Result<(String, Vec<Call>)> {
        let is_call = event.trigger != fl_trigger_kind::FL_TRIGGER_SIGNAL;
        let own = task.calls.iter().rev().find(|call| is_call && call.function == event.function);
        let wanted = match stitch {
            Stitch::Argument(name) => own.and_then(|call| Some((name, self.decoder.argument(call, name)?))),
            Stitch::Task | Stitch::Time => None,
        };
        if wanted.is_none() && *stitch != Stitch::Time {
            return Ok((Stitch::Task.word().to_owned(), self.calls(Some(task))?));
        }
        let others = self.recorder.tasks()?.into_iter().filter(|other| other.header.tid != event.tid);
        let mut calls = Vec::new();
        for task in others.chain([task.clone()]) {
            let is_wanted =
                |call: &fl_call| wanted.is_none_or(|(name, value)| self.decoder.argument(call, name) == Some(value));
            calls.extend(self.some(&task, |call| call.entered_ns <= event.timestamp_ns && is_wanted(call))?);
        }
        calls.sort_by_key(|call| call.entered_ns);
        calls.drain(..calls.len().saturating_sub(STITCHED_MAX));
        Ok((stitch.word().to_owned(), calls))
    }

    /// The record of a trigger.
    pub(super) fn trigger(&self, event: &fl_event, task: &TaskCalls, stitch: &Stitch) -> Result<Trigger> {
        let (stitched_by, mut calls) = self.stitched(event, task, stitch)?;
        calls.sort_by_key(|call| call.entered_ns);
        Ok(Trigger {
            head: Head::at("call_trigger", event.timestamp_ns, &self.host)?,
            trigger: match event.trigger {
                fl_trigger_kind::FL_TRIGGER_SIGNAL => signal_name(event.signal),
                fl_trigger_kind::FL_TRIGGER_BEGIN => self.decoder.begin_words(event.function),
                _ => self.decoder.result_words(event.function, event.result),
            },
            pid: event.pid,
            tid: event.tid,
            comm: text::name(&event.comm),
            certain: event.is_certain != 0,
            stitched_by,
            calls,
        })
    }

    /// The record of a call that has just ended.
    pub(super) fn live(&self, event: &fl_event, call: &fl_call) -> Result<LiveCall> {
        let owner = Owner { pid: event.pid, tid: event.tid, comm: text::name(&event.comm) };
        let head = Head::at("call", event.timestamp_ns, &self.host)?;
        Ok(LiveCall { head, call: self.call(&owner, call, Nesting::alone(call))? })
    }

    /// Since when every call was recorded, at the latest: the moment is taken after the count. The kernel doesn't say when it left a
    /// call out, so the more often this is asked, the less a call that was left out long ago makes doubtful.
    ///
    /// # Errors
    /// The kernel doesn't give the counts, or the clock.
    pub(super) fn complete_since(&mut self) -> Result<u64> {
        let unrecorded = self.recorder.counters()?.unrecorded();
        if unrecorded != self.unrecorded {
            (self.unrecorded, self.complete_since_ns) = (unrecorded, boottime_ns()?);
        }
        Ok(self.complete_since_ns)
    }

    /// A signal is delivered on the way back to user mode: the thread's system calls before that have ended. A fault that a
    /// handler caught may have ended in a call that never returns, exit(2).
    fn back_in_user_mode(&mut self, mut task: TaskCalls, at_ns: u64, disposition: Disposition) -> TaskCalls {
        if disposition == Disposition::Caught {
            return task;
        }
        for call in &mut task.calls {
            let is_before = call.entered_ns <= at_ns;
            if is_before && call.state == fl_call_state::FL_CALL_OPEN && self.decoder.is_syscall(call.function) {
                call.state = fl_call_state::FL_CALL_END_MISSED;
                // A thread that lives makes another call, which gives this one up.
                self.ends_missed += u64::from(disposition == Disposition::Fatal);
            }
        }
        task
    }

    fn calls(&self, task: Option<&TaskCalls>) -> Result<Vec<Call>> {
        task.map_or_else(|| Ok(Vec::new()), |task| self.some(task, |_| true))
    }

    /// Those of a task's calls that are wanted.
    fn some(&self, task: &TaskCalls, is_wanted: impl Fn(&fl_call) -> bool) -> Result<Vec<Call>> {
        let owner = Owner::from(&task.header);
        let all = task.calls.iter().zip(nesting::of_task(task));
        all.filter(|(call, _)| is_wanted(call)).map(|(call, nesting)| self.call(&owner, call, nesting)).collect()
    }

    fn call(&self, owner: &Owner, call: &fl_call, nesting: Nesting) -> Result<Call> {
        let stack = self.namer.as_ref().zip(self.recorder.stack(call.stack));
        self.decoder.call(owner, call, nesting, stack.map(|(namer, addresses)| namer.frames(&addresses)))
    }
}

/// Numbers of threads are given again: is the entry this thread's?
fn is_of_thread(task: &fl_task, thread: &Thread) -> bool {
    task.pid == thread.pid && (thread.start_ns == 0 || thread.start_ns == task.start_boottime_ns)
}

/// Keeps the thread's own calls, and of others the newest ones that have to do with the crash.
fn keep(calls: &mut Vec<Call>, tid: u32) {
    let others = calls.iter().filter(|call| call.tid != tid && call.relation.is_some() && !call.is_cause).count();
    let mut surplus = others.saturating_sub(OTHERS_MAX);
    calls.retain(|call| {
        if call.tid == tid || call.is_cause {
            return true;
        }
        if call.relation.is_none() {
            return false;
        }
        let is_kept = surplus == 0;
        surplus = surplus.saturating_sub(1);
        is_kept
    });
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::evidence::Change;
    use crate::record::call::Relation;
    use crate::record::call::tests::call;

    #[test]
    fn of_others_the_newest_are_kept_and_the_cause() {
        let related = |entered_ns: u64, is_cause: bool| Call {
            tid: 7,
            entered_ns,
            is_cause,
            relation: Some(Relation { kind: Change::Mapped, text: String::new(), certain: true }),
            ..call("mmap", &[], 0)
        };
        let mut calls: Vec<Call> = (0..20).map(|time| related(time, time == 0)).collect();
        calls.push(call("munmap", &[], 0));
        calls.push(Call { tid: 7, ..call("munmap", &[], 0) });
        keep(&mut calls, 100);
        let times: Vec<u64> = calls.iter().map(|call| call.entered_ns).collect();
        let expected: Vec<u64> = std::iter::once(0).chain(4..20).chain([0]).collect();
        assert_eq!(times, expected, "the cause, sixteen others, and its own");
    }
}
