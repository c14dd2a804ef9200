//! Which call was made inside of which: from the order in which the kernel program saw them begin and end, and what the processor did then.

use crate::probe::abi::call::{fl_call, fl_call_state, fl_context};
use crate::probe::call::TaskCalls;

/// The place of a call among the others of its task.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Nesting {
    /// In how many recorded calls it was made; `None` means that this can't be known.
    pub depth: Option<u32>,
    /// An interrupt made it, while the task happened to run; `None` means that this can't be known.
    pub in_interrupt: Option<bool>,
}

impl Nesting {
    /// What is known of a call of which the others are not: only whether there was one at all that it may be in.
    pub(super) fn alone(call: &fl_call) -> Self {
        Self { depth: (call.behind == 0).then_some(0), in_interrupt: in_interrupt(call) }
    }
}

/// The places of all calls of a task, in their order.
pub(super) fn of_task(task: &TaskCalls) -> Vec<Nesting> {
    let mut all: Vec<Nesting> = Vec::with_capacity(task.calls.len());
    for call in &task.calls {
        all.push(Nesting { depth: depth(task, call, &all), in_interrupt: in_interrupt(call) });
    }
    all
}

fn in_interrupt(call: &fl_call) -> Option<bool> {
    (call.context != fl_context::FL_CONTEXT_UNKNOWN).then_some(call.context != fl_context::FL_CONTEXT_TASK)
}

/// `before`: the places of the calls before.
fn depth(task: &TaskCalls, call: &fl_call, before: &[Nesting]) -> Option<u32> {
    if call.behind == 0 {
        return (call.sequence >= task.header.doubted).then_some(0);
    }
    // The call around it may have lost its place to a later one. Then nobody knows whether it was still under way.
    let index = outer(task, call)?;
    let around = &task.calls[index];
    let is_unknown = |call: &fl_call| call.context == fl_context::FL_CONTEXT_UNKNOWN;
    if is_unknown(call) || is_unknown(around) {
        return None;
    }
    if call.context.0 > around.context.0 {
        // An interrupt came on top of it, which is nothing that the task did.
        return (call.sequence >= task.header.doubted).then_some(0);
    }
    // An interrupt has ended before the task goes on, whether the end of its call was seen or not.
    (call.context == around.context && is_in(task, call, index)).then(|| before.get(index)?.depth?.checked_add(1))?
}

/// The call that was the innermost one, as far as the kernel program knew, when this one began.
fn outer(task: &TaskCalls, call: &fl_call) -> Option<usize> {
    let sequence = call.sequence.checked_sub(call.behind.into()).filter(|_| call.behind != 0)?;
    task.calls.binary_search_by_key(&sequence, |call| call.sequence).ok()
}

/// Was the call made in the one with this index?
fn is_in(task: &TaskCalls, call: &fl_call, index: usize) -> bool {
    let around = &task.calls[index];
    match around.state {
        fl_call_state::FL_CALL_ENDED => call.entered_ns >= around.entered_ns && end_ns(call) <= end_ns(around),
        // If it is under way, the same function in it is called anew, or the end of the first call was not seen.
        fl_call_state::FL_CALL_OPEN => !is_called_again(task, call.function, index),
        // It ended before this one, in it, or after it.
        _ => false,
    }
}

/// Is the function that of the open call with this index, or of an open one around that?
fn is_called_again(task: &TaskCalls, function: u32, index: usize) -> bool {
    let around = |&index: &usize| outer(task, &task.calls[index]);
    let mut open = std::iter::successors(Some(index), around).map(|index| &task.calls[index]);
    open.any(|call| call.state == fl_call_state::FL_CALL_OPEN && call.function == function)
}

/// When it ended; of a call that was not seen to end, when it began.
fn end_ns(call: &fl_call) -> u64 {
    let ended = call.state == fl_call_state::FL_CALL_ENDED;
    call.entered_ns.saturating_add(if ended { call.duration_ns } else { 0 })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::probe::abi::call::fl_task;

    const TASK: fl_context = fl_context::FL_CONTEXT_TASK;
    const INTERRUPT: fl_context = fl_context::FL_CONTEXT_HARDIRQ;
    const SOFTIRQ: fl_context = fl_context::FL_CONTEXT_SOFTIRQ;
    const OPEN: fl_call_state = fl_call_state::FL_CALL_OPEN;
    const MISSED: fl_call_state = fl_call_state::FL_CALL_END_MISSED;

    /// A call of another function each, which began `behind` calls behind the innermost one and has ended at `end`.
    fn call(sequence: u64, behind: u32, begin: u64, end: u64) -> fl_call {
        let state = fl_call_state::FL_CALL_ENDED;
        let (function, duration_ns) = (sequence as u32, end - begin);
        fl_call { sequence, behind, entered_ns: begin, duration_ns, function, state, ..fl_call::default() }
    }

    /// The same in another context or state; one that has not ended has no duration.
    fn with(call: fl_call, context: fl_context, state: fl_call_state) -> fl_call {
        let duration_ns = if state == fl_call_state::FL_CALL_ENDED { call.duration_ns } else { 0 };
        fl_call { context, state, duration_ns, ..call }
    }

    fn depths_after(doubted: u64, calls: &[fl_call]) -> Vec<Option<u32>> {
        let header = fl_task { doubted, ..fl_task::default() };
        let task = TaskCalls { header, calls: calls.to_vec() };
        of_task(&task).iter().map(|place| place.depth).collect()
    }

    fn depths(calls: &[fl_call]) -> Vec<Option<u32>> {
        depths_after(0, calls)
    }

    #[test]
    fn a_call_in_another_is_deeper() {
        let calls = [call(4, 0, 100, 200), call(5, 1, 110, 150), call(6, 1, 120, 130), call(7, 3, 160, 170)];
        assert_eq!(depths(&calls), [Some(0), Some(1), Some(2), Some(1)]);
        assert_eq!(depths(&[call(0, 0, 1, 2), call(1, 0, 3, 4)]), [Some(0), Some(0)], "one behind the other");
        assert_eq!(Nesting::alone(&calls[0]).depth, Some(0));
        assert_eq!(Nesting::alone(&calls[1]).depth, None, "nobody knows what is around the one that it is in");
    }

    #[test]
    fn a_call_that_is_under_way_has_calls_in_it() {
        let outer = with(call(0, 0, 100, 200), TASK, OPEN);
        let inner = with(call(1, 1, 110, 150), TASK, OPEN);
        assert_eq!(depths(&[outer, inner, call(2, 1, 120, 130)]), [Some(0), Some(1), Some(2)]);
        let again = fl_call { function: outer.function, ..call(2, 1, 120, 130) };
        assert_eq!(depths(&[outer, inner, again]), [Some(0), Some(1), None], "the end of the first may be missing");
        let ended = call(0, 0, 100, 200);
        assert_eq!(depths(&[ended, call(1, 1, 110, 150), again]), [Some(0), Some(1), Some(2)], "it was seen to end");
    }

    #[test]
    fn what_is_around_a_call_may_not_be_known() {
        let inner = call(5, 1, 110, 150);
        assert_eq!(depths(&[inner]), [None], "the outer one's place is another's by now");
        assert_eq!(depths(&[inner, call(6, 1, 120, 130)]), [None, None], "nor are those in it");
        let missed = with(call(4, 0, 100, 200), TASK, MISSED);
        assert_eq!(depths(&[missed, inner]), [Some(0), None], "it may have ended before");
        assert_eq!(depths(&[call(4, 0, 100, 105), inner]), [Some(0), None], "it had ended");
        assert_eq!(depths(&[call(4, 0, 100, 120), inner]), [Some(0), None], "it ended in between");
    }

    #[test]
    fn a_call_that_was_under_way_at_the_start_may_be_around_those_before_its_end() {
        let calls = [call(0, 0, 100, 110), call(1, 0, 120, 140), call(2, 1, 125, 130), call(3, 0, 150, 160)];
        assert_eq!(depths_after(3, &calls), [None, None, None, Some(0)]);
        assert_eq!(depths_after(0, &calls), [Some(0), Some(0), Some(1), Some(0)]);
    }

    #[test]
    fn a_call_in_an_interrupt_is_in_no_call_of_the_task() {
        let ended = fl_call_state::FL_CALL_ENDED;
        let outer = call(0, 0, 100, 200);
        let interrupt = with(call(1, 1, 110, 150), INTERRUPT, ended);
        let inside = with(call(2, 1, 120, 130), INTERRUPT, ended);
        let calls = [outer, interrupt, inside, call(3, 3, 160, 170)];
        assert_eq!(depths(&calls), [Some(0), Some(0), Some(1), Some(1)]);
        let task = TaskCalls { calls: calls.to_vec(), ..TaskCalls::default() };
        let interrupts: Vec<Option<bool>> = of_task(&task).iter().map(|place| place.in_interrupt).collect();
        assert_eq!(interrupts, [Some(false), Some(true), Some(true), Some(false)]);
        let soft = with(call(1, 1, 110, 150), SOFTIRQ, ended);
        assert_eq!(depths(&[outer, soft, inside]), [Some(0), Some(0), Some(0)], "on top of another one");
        let left = with(call(1, 1, 110, 150), INTERRUPT, OPEN);
        assert_eq!(depths(&[outer, left, call(2, 1, 160, 170)]), [Some(0), Some(0), None], "the interrupt has ended");
    }

    #[test]
    fn without_the_context_only_the_outermost_is_known() {
        let ended = fl_call_state::FL_CALL_ENDED;
        let unknown = |call: fl_call| with(call, fl_context::FL_CONTEXT_UNKNOWN, ended);
        let calls = [unknown(call(0, 0, 100, 200)), unknown(call(1, 1, 110, 150))];
        assert_eq!(depths(&calls), [Some(0), None]);
        assert_eq!(Nesting::alone(&calls[0]).in_interrupt, None);
    }
}
