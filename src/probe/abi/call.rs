//! The types of `bpf/include/abi/call.h`, through the skeleton's BTF.

use super::{Plain as _, plain, skeleton};

skeleton!("call.skel.rs");

pub use skel::types::{
    fl_call, fl_call_state, fl_condition, fl_config, fl_context, fl_counter, fl_event, fl_fetch, fl_fetch_flag,
    fl_fetch_kind, fl_function, fl_function_flag, fl_own_limit, fl_sample_kind, fl_task, fl_test, fl_trigger_kind,
};

/// A task's last calls, oldest first.
#[derive(Clone, Debug, Default)]
pub struct TaskCalls {
    /// The process.
    pub header: fl_task,
    /// Those that are still there.
    pub calls: Vec<fl_call>,
}

impl TaskCalls {
    /// The entry of fl_tasks in `bytes`, which keeps `kept` calls, a power of two. `None` means that the size is another one.
    pub(in crate::probe) fn from_value(bytes: &[u8], kept: u32) -> Option<Self> {
        let (header, places) = bytes.split_at_checked(size_of::<fl_task>())?;
        let header = fl_task::read(header)?;
        let place = |sequence: u64| {
            let at = usize::try_from(sequence & u64::from(kept.checked_sub(1)?)).ok()? * size_of::<fl_call>();
            fl_call::read(places.get(at..at + size_of::<fl_call>())?)
        };
        let mut calls = Vec::new();
        for sequence in header.next.saturating_sub(kept.into())..header.next {
            let call = place(sequence)?;
            // The task may be at it right now, and then it's the next one's.
            if call.sequence == sequence && call.state != fl_call_state::FL_CALL_NONE {
                calls.push(call);
            }
        }
        let mut task = Self { header, calls };
        task.settle();
        Some(task)
    }

    /// Finds the calls that have ended without being seen to: the kernel program has given them up, or a call that they were made
    /// in has ended.
    fn settle(&mut self) {
        let mut outer_end_ns = 0;
        for call in &mut self.calls {
            if call.state == fl_call_state::FL_CALL_ENDED {
                outer_end_ns = outer_end_ns.max(call.entered_ns.saturating_add(call.duration_ns));
            } else if call.state == fl_call_state::FL_CALL_OPEN
                && (call.entered_ns < outer_end_ns
                    || call.sequence < self.header.settled && !is_open(&self.header, call.sequence))
            {
                call.state = fl_call_state::FL_CALL_END_MISSED;
            }
        }
    }
}

/// Does the kernel program wait for the end of this call?
fn is_open(task: &fl_task, sequence: u64) -> bool {
    task.open.iter().take(task.open_count as usize).any(|open| open.sequence == sequence)
}

/// A sample of the ring.
#[derive(Clone, Debug)]
pub enum Sample {
    /// Something asked for the calls of a task.
    Trigger(fl_event, Box<TaskCalls>),
    /// A call has ended: `--live`.
    Live(fl_event, Box<fl_call>),
}

impl Sample {
    /// The sample in `bytes`, if each task keeps `kept` calls; `None` means that it is none of ours.
    pub fn from_bytes(bytes: &[u8], kept: u32) -> Option<Self> {
        let (begin, rest) = bytes.split_at_checked(size_of::<fl_event>())?;
        let event = fl_event::read(begin)?;
        if event.kind == fl_sample_kind::FL_SAMPLE_LIVE {
            return Some(Self::Live(event, Box::new(fl_call::read(rest)?)));
        }
        let task = if rest.is_empty() {
            // It has no entry: what is known of it is the event's.
            let header = fl_task { tid: event.tid, pid: event.pid, comm: event.comm, ..fl_task::default() };
            TaskCalls { header, calls: Vec::new() }
        } else {
            TaskCalls::from_value(bytes, kept)?
        };
        Some(Self::Trigger(event, Box::new(task)))
    }
}

plain!(fl_config, fl_fetch, fl_function, fl_call, fl_task, fl_event);

#[cfg(test)]
mod tests {
    use super::*;

    /// An entry that keeps four calls, of a task that made `next`.
    fn entry(next: u64) -> Vec<u8> {
        let header = fl_task { next, ..fl_task::default() };
        let mut bytes = header.bytes().to_vec();
        for place in 0..4 {
            let round = (0..next).rev().find(|sequence| sequence % 4 == place);
            let state = if round.is_some() { fl_call_state::FL_CALL_ENDED } else { fl_call_state::FL_CALL_NONE };
            let call = fl_call { sequence: round.unwrap_or(0), state, ..fl_call::default() };
            bytes.extend_from_slice(call.bytes());
        }
        bytes
    }

    #[test]
    fn the_calls_of_a_task_come_oldest_first() {
        let sequences = |next| -> Vec<u64> {
            TaskCalls::from_value(&entry(next), 4).unwrap().calls.iter().map(|call| call.sequence).collect()
        };
        assert_eq!(sequences(0), Vec::<u64>::new());
        assert_eq!(sequences(3), [0, 1, 2]);
        assert_eq!(sequences(4), [0, 1, 2, 3]);
        assert_eq!(sequences(7), [3, 4, 5, 6]);
    }

    #[test]
    fn a_call_that_another_is_taking_the_place_of_is_left_out() {
        let mut bytes = entry(5);
        // The fifth lies where the first was.
        let at = size_of::<fl_task>();
        bytes[at..at + 8].copy_from_slice(&0u64.to_ne_bytes());
        let found = TaskCalls::from_value(&bytes, 4).unwrap();
        assert_eq!(found.calls.iter().map(|call| call.sequence).collect::<Vec<_>>(), [1, 2, 3]);
    }

    /// An entry of four calls, none of which has been seen to end.
    fn unended(header: fl_task) -> Vec<u8> {
        let mut bytes = fl_task { next: 4, ..header }.bytes().to_vec();
        for sequence in 0..4 {
            let state = fl_call_state::FL_CALL_OPEN;
            let call = fl_call { sequence, state, entered_ns: 100 * (1 + sequence), ..fl_call::default() };
            bytes.extend_from_slice(call.bytes());
        }
        bytes
    }

    fn states(bytes: &[u8]) -> Vec<fl_call_state> {
        TaskCalls::from_value(bytes, 4).unwrap().calls.iter().map(|call| call.state).collect()
    }

    const OPEN: fl_call_state = fl_call_state::FL_CALL_OPEN;
    const MISSED: fl_call_state = fl_call_state::FL_CALL_END_MISSED;

    #[test]
    fn calls_that_were_given_up_have_ended() {
        assert_eq!(states(&unended(fl_task::default())), [OPEN; 4], "nothing is known of them");
        let mut header = fl_task { settled: 3, open_count: 2, ..fl_task::default() };
        header.open[1].sequence = 3;
        assert_eq!(states(&unended(header)), [OPEN, MISSED, MISSED, OPEN], "the first and the last are waited for");
    }

    #[test]
    fn what_was_made_in_a_call_that_has_ended_has_ended() {
        let mut bytes = unended(fl_task { open_count: 0, ..fl_task::default() });
        let at = size_of::<fl_task>();
        let outer = fl_call { state: fl_call_state::FL_CALL_ENDED, entered_ns: 100, ..fl_call::default() };
        let outer = fl_call { duration_ns: 201, ..outer };
        bytes[at..at + size_of::<fl_call>()].copy_from_slice(outer.bytes());
        assert_eq!(states(&bytes), [fl_call_state::FL_CALL_ENDED, MISSED, MISSED, OPEN], "it ended at 301");
    }

    #[test]
    fn a_sample_of_another_size_is_none() {
        assert!(Sample::from_bytes(&[], 4).is_none());
        assert!(Sample::from_bytes(&[0; 8], 4).is_none());
        assert!(Sample::from_bytes(&entry(2)[..200], 4).is_none());
        assert!(matches!(Sample::from_bytes(&entry(2), 4), Some(Sample::Trigger(_, task)) if task.calls.len() == 2));
        assert!(matches!(Sample::from_bytes(&[0; 64], 4), Some(Sample::Trigger(_, task)) if task.calls.is_empty()));
    }
}
