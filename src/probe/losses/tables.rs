//! The tables: one for each command, in the order of its end line.

use super::{
    CAUGHT_UNDECIDED, EXEC_MEM_TABLE_FULL, EXITS_MISSED, FILES_NOT_KEPT, FORKS_MISSED, GROUP_TABLE_FULL, Loss,
    LossOutput, MAJOR_UNPLACED, MAJORS_MISSED, OUTPUT_BLOCKED, PAIR_TABLE_FULL, READS_FAILED, RUNS_MISSED,
    STACK_TABLE_FULL, SYMBOLS_FAILED, Stage, WRITE_FAILED,
};
use crate::probe::abi::call::fl_counter as call;
use crate::probe::abi::fl_counter as crash;
use crate::probe::abi::memory::fl_counter as memory;
use crate::probe::abi::pagefault::fl_counter as pagefault;
use crate::probe::abi::signal::fl_counter as signal;

const END: &[LossOutput] = &[LossOutput::EndLine];
const END_AND_RECORDS: &[LossOutput] = &[LossOutput::EndLine, LossOutput::SampleLosses];
const EVERYWHERE: &[LossOutput] = &[LossOutput::EndLine, LossOutput::SampleLosses, LossOutput::Metrics];

/// A loss that counts for `--strict`.
const fn lost(reason: &'static str, stage: Stage, shown: &'static [LossOutput]) -> Loss {
    Loss { reason, stage, is_strict: true, shown, counter: None, of_crashes: None }
}

/// A loss that doesn't: it was asked for, or most likely nothing is missing.
const fn left_out(reason: &'static str, stage: Stage, shown: &'static [LossOutput]) -> Loss {
    Loss { is_strict: false, ..lost(reason, stage, shown) }
}

impl Loss {
    const fn by(self, counter: u32) -> Self {
        Self { counter: Some(counter), ..self }
    }

    const fn of_crashes(self, reason: &'static str) -> Self {
        Self { of_crashes: Some(reason), ..self }
    }
}

/// Losses of `crash`, and of crashes in the agent.
pub(crate) static CRASH: [Loss; 15] = [
    // The end line doesn't have it; every summary does.
    lost(GROUP_TABLE_FULL, Stage::Group, &[LossOutput::Losses, LossOutput::Metrics]),
    lost("sample_ring_full", Stage::Sample, EVERYWHERE).by(crash::FL_LOST_RING_FULL.0),
    lost("stack_page_ring_full", Stage::Sample, EVERYWHERE).by(crash::FL_LOST_PAGES.0),
    left_out("sample_budget", Stage::Sample, EVERYWHERE).by(crash::FL_LOST_BUDGET.0),
    // This stack of a group is in addition to those of its samples: it is missed only if these are lost, too, which is counted.
    left_out(STACK_TABLE_FULL, Stage::Sample, EVERYWHERE).by(crash::FL_LOST_STACK_FULL.0),
    lost("watch_table_full", Stage::Sample, EVERYWHERE).by(crash::FL_LOST_WATCH_FULL.0),
    // A death only if the fault ended its process.
    left_out("fault_table_full", Stage::Sample, EVERYWHERE).by(crash::FL_LOST_FAULT.0),
    // Deliveries that are in no other number.
    lost(RUNS_MISSED, Stage::Probe, EVERYWHERE),
    // The exit of any process, which is a death only if it ended a caught fault.
    left_out(EXITS_MISSED, Stage::Probe, EVERYWHERE),
    // A descendant of the command is known by its parent all the same, unless that has ended when the descendant is first seen.
    left_out(FORKS_MISSED, Stage::Probe, EVERYWHERE),
    // Records without names for a reason of ours: they have build ids and offsets all the same.
    left_out(SYMBOLS_FAILED, Stage::Sample, EVERYWHERE),
    // Files, not records: those of the agent, of which some crash later may lack a name.
    left_out(FILES_NOT_KEPT, Stage::Sample, &[LossOutput::Metrics]),
    lost(WRITE_FAILED, Stage::Output, EVERYWHERE),
    // The agent counts a stalled reader as a failure of its output.
    lost(OUTPUT_BLOCKED, Stage::Output, END_AND_RECORDS),
    // A death only if the handler was not left.
    left_out(CAUGHT_UNDECIDED, Stage::Group, &[LossOutput::EndLine, LossOutput::Losses, LossOutput::Metrics]),
];

/// Losses of `signal`, and of signals that are sent in the agent.
pub(crate) static SIGNAL: [Loss; 8] = [
    lost("sample_ring_full", Stage::Sample, END).by(signal::FL_LOST_RING_FULL.0),
    // Forks, execs and exits.
    lost("event_ring_full", Stage::Sample, END).by(signal::FL_LOST_EVENT_FULL.0),
    lost(PAIR_TABLE_FULL, Stage::Pair, &[LossOutput::EndLine, LossOutput::Losses, LossOutput::Metrics])
        .by(signal::FL_LOST_PAIRS_FULL.0),
    lost("watch_table_full", Stage::Sample, END).by(signal::FL_LOST_WATCH_FULL.0),
    // Signals, and with --processes forks, execs and exits, of any process.
    lost(RUNS_MISSED, Stage::Probe, END),
    // If forks are only followed.
    left_out(FORKS_MISSED, Stage::Probe, END),
    lost(WRITE_FAILED, Stage::Output, END),
    lost(OUTPUT_BLOCKED, Stage::Output, END),
];

/// Losses of `pagefault`, and of page faults in the agent.
pub(crate) static PAGEFAULT: [Loss; 14] = [
    // The end line counts it before the others, with the groups' own.
    lost(GROUP_TABLE_FULL, Stage::PageFault, &[LossOutput::Losses, LossOutput::Metrics])
        .by(pagefault::FL_LOST_TABLE_FULL.0),
    left_out("event_rate", Stage::Sample, END_AND_RECORDS).by(pagefault::FL_LOST_RATE.0),
    lost("event_ring_full", Stage::Sample, END_AND_RECORDS).by(pagefault::FL_LOST_RING_FULL.0),
    left_out("event_sampled", Stage::Sample, END_AND_RECORDS).by(pagefault::FL_LOST_SAMPLED.0),
    lost(MAJOR_UNPLACED, Stage::Sample, END_AND_RECORDS).by(pagefault::FL_LOST_MAJOR.0),
    lost("mapping_ring_full", Stage::Sample, END_AND_RECORDS).by(pagefault::FL_LOST_MAPPINGS.0),
    lost(STACK_TABLE_FULL, Stage::Sample, END_AND_RECORDS).by(pagefault::FL_LOST_STACK_FULL.0),
    lost("watch_table_full", Stage::Sample, END_AND_RECORDS).by(pagefault::FL_LOST_WATCH_FULL.0),
    // Major faults of any process. They are counted as faults, and nowhere as major.
    lost(MAJORS_MISSED, Stage::Probe, END_AND_RECORDS),
    left_out(FORKS_MISSED, Stage::Probe, END_AND_RECORDS),
    // Faults that are counted nowhere.
    lost(RUNS_MISSED, Stage::Probe, END_AND_RECORDS),
    // Groups and events, as records of crashes.
    left_out(SYMBOLS_FAILED, Stage::Sample, END_AND_RECORDS),
    lost(WRITE_FAILED, Stage::Output, END_AND_RECORDS),
    lost(OUTPUT_BLOCKED, Stage::Output, END_AND_RECORDS),
];

const CALL_RING_FULL: Loss = lost("call_ring_full", Stage::Sample, END).by(memory::FL_LOST_RING_FULL.0);
const PAGE_RING_FULL: Loss = lost("page_ring_full", Stage::Sample, END).by(memory::FL_LOST_PAGES.0);
const LOOK_BUSY: Loss = lost("look_busy", Stage::Sample, END).by(memory::FL_LOST_BUSY.0);
const COMPAT_CALLS: Loss = lost("compat_calls", Stage::Sample, END).by(memory::FL_LOST_COMPAT.0);
const CALL_TABLE_FULL: Loss = lost("call_table_full", Stage::Sample, END).by(memory::FL_LOST_CALL_FULL.0);
const WATCH_TABLE_FULL: Loss = lost("watch_table_full", Stage::Sample, END).by(memory::FL_LOST_WATCH_FULL.0);
/// Also calls whose end a kretprobe did not see.
const CALLS_MISSED: Loss = lost(RUNS_MISSED, Stage::Probe, END);

/// Losses of `memory`.
pub(crate) static MEMORY: [Loss; 14] = [
    CALL_RING_FULL,
    PAGE_RING_FULL,
    LOOK_BUSY,
    COMPAT_CALLS,
    CALL_TABLE_FULL,
    WATCH_TABLE_FULL,
    CALLS_MISSED,
    lost("mappings_unseen", Stage::Sample, END),
    lost("pages_gone", Stage::Sample, END),
    lost("pages_left_out", Stage::Sample, END),
    lost("pages_nameless", Stage::Sample, END),
    lost(READS_FAILED, Stage::Sample, END),
    lost(WRITE_FAILED, Stage::Output, END),
    lost(OUTPUT_BLOCKED, Stage::Output, END),
];

/// Losses of `memory --watch-all`, and of memory that becomes executable in the agent.
pub(crate) static EXECUTABLE_MEMORY: [Loss; 10] = [
    // The end line has it before the others.
    lost(EXEC_MEM_TABLE_FULL, Stage::ExecutableMemory, &[LossOutput::Metrics]).by(memory::FL_LOST_EXEC_MEM_FULL.0),
    CALL_RING_FULL,
    PAGE_RING_FULL,
    LOOK_BUSY,
    COMPAT_CALLS,
    CALL_TABLE_FULL,
    WATCH_TABLE_FULL,
    CALLS_MISSED,
    lost(WRITE_FAILED, Stage::Output, END),
    lost(OUTPUT_BLOCKED, Stage::Output, END),
];

/// Losses of `call`: its record has them in `losses`, and the end line shows that record.
pub(crate) static CALL: [Loss; 16] = [
    lost("trigger_ring_full", Stage::Sample, RECORD).by(call::FL_LOST_RING_FULL.0),
    lost("live_ring_full", Stage::Sample, RECORD).by(call::FL_LOST_LIVE_FULL.0),
    left_out("live_budget", Stage::Sample, RECORD).by(call::FL_LOST_LIVE_BUDGET.0),
    lost("task_table_full", Stage::Sample, RECORD).by(call::FL_LOST_TASK_FULL.0),
    lost("nested_too_deep", Stage::Sample, RECORD).by(call::FL_LOST_NESTED.0),
    lost("ends_missed", Stage::Probe, RECORD).by(call::FL_LOST_END.0),
    lost(STACK_TABLE_FULL, Stage::Sample, RECORD).by(call::FL_LOST_STACK.0),
    lost("stacks_missed", Stage::Probe, RECORD).by(call::FL_LOST_WALK.0),
    lost("crash_ring_full", Stage::Sample, RECORD).of_crashes("sample_ring_full"),
    lost("crash_stack_page_ring_full", Stage::Sample, RECORD).of_crashes("stack_page_ring_full"),
    // One table for each probe: a descendant that one doesn't watch the other may.
    lost("watch_table_full", Stage::Sample, RECORD).by(call::FL_LOST_WATCH_FULL.0).of_crashes("watch_table_full"),
    lost(RUNS_MISSED, Stage::Probe, RECORD).of_crashes(RUNS_MISSED),
    left_out(EXITS_MISSED, Stage::Probe, RECORD).of_crashes(EXITS_MISSED),
    left_out(FORKS_MISSED, Stage::Probe, RECORD).of_crashes(FORKS_MISSED),
    lost(WRITE_FAILED, Stage::Output, RECORD),
    lost(OUTPUT_BLOCKED, Stage::Output, RECORD),
];

const RECORD: &[LossOutput] = &[LossOutput::EndLine, LossOutput::Losses];
