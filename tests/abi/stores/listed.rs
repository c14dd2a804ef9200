//! What the programs of stores.rs may write that other processors write as well, with the reason of each.

/// A program, and what both builds of it together may write.
pub(super) struct Program {
    pub object: &'static str,
    pub name: &'static str,
    /// An event that is only counted uses none of these tables, nor the ring.
    pub ends: &'static [&'static str],
    /// What such an event may write, and why.
    pub counting: &'static [(&'static str, &'static str)],
    /// What is written elsewhere, and why.
    pub other: &'static [(&'static str, &'static str)],
}

/// Tables with a value for each processor which the loader makes ones that all share, where there may be many processors.
pub(super) const SHARED_BY_MANY: [&str; 3] = ["fl_faults", "fl_group_counts", "fl_pairs"];

const FAULTS: &[(&str, &str)] = &[
    ("fl_counters, atomic", COUNTERS),
    ("fl_descendants, entries", DESCENDANTS),
    ("fl_event_count", "once a second, where single faults are to be sent"),
    ("fl_event_second", "once a second, where single faults are to be sent"),
    ("fl_faults, atomic", RARE),
    ("fl_faults, entries", "a key is new in an epoch"),
    ("fl_last_faults.error_code", LAST_FAULTS),
    ("fl_last_faults.tid", LAST_FAULTS),
];
const NEW_FAULTS: &[(&str, &str)] = &[
    ("fl_event_count, atomic", "a single fault is to be sent"),
    ("fl_last_wake_ns", WAKE),
    ("fl_mappings, entries", "a key is new"),
    ("fl_processes, entries", "a key is new"),
    ("fl_stack_ids, entries", "a key is new"),
];

const COUNTERS: &str = "the processor's own: an interrupt or another task may count between load and store";
const DESCENDANTS: &str = "once, where the fork of a process that is to be watched was not seen";
const LAST_FAULTS: &str = "where major faults are told apart; threads with neighbouring numbers are a cache line apart";
const RARE: &str =
    "its key is too rare for the processor's own near table; other processors write there only where there are many";
const REGISTERS: &str = "once: it is the same for all tasks";
const WAKE: &str = "the reader of the ring is woken";
const THREAD: &str = "only its thread writes it, wherever that runs; before v6.2";
const THREAD_SLOT: &str = "only its thread writes it, wherever that runs";
const OTHER_PLACE: &str = "its thread's fault is at another place than the last one";
const TICK: &str = "once a tick of a known place";
const NEW_GROUP: &str = "a group is new";
const SAMPLE: &str = "a record is to be sent";
const SAMPLE_SECOND: &str = "once a second in which records are to be sent";

pub(super) const PROGRAMS: [Program; 4] = [
    Program {
        object: "crash",
        name: "fl_deliver_exit",
        ends: &["fl_records"],
        counting: &[
            ("fl_counters, atomic", COUNTERS),
            ("fl_descendants, entries", DESCENDANTS),
            ("fl_endings, entries", "a signal ends a process that is seen to end more than once"),
            ("fl_group_counts", "the processor's own: where processors share columns, nothing is added without a lock"),
            (
                "fl_group_counts, atomic",
                "where processors share columns; or where another program may run between load and store",
            ),
            ("fl_group_times", TICK),
            ("fl_groups.last_jiffies", TICK),
            ("fl_groups.last_ns", TICK),
            ("fl_groups.last_pid", TICK),
            ("fl_pt_regs_offset", REGISTERS),
            ("fl_thread_slots.?", OTHER_PLACE),
            ("fl_thread_slots.count", OTHER_PLACE),
            ("fl_thread_slots.departures", OTHER_PLACE),
            ("fl_thread_slots.exec", OTHER_PLACE),
            ("fl_thread_slots.faults", THREAD_SLOT),
            ("fl_thread_slots.group", OTHER_PLACE),
            ("fl_thread_slots.is_known", OTHER_PLACE),
            ("fl_thread_slots.jiffies", TICK),
            ("fl_thread_slots.owner", "a thread's first fault"),
            ("fl_thread_slots.owner, atomic", "a thread's first fault: two threads may want one slot"),
            ("fl_threads.?", OTHER_PLACE),
            ("fl_threads.count", OTHER_PLACE),
            ("fl_threads.departures", OTHER_PLACE),
            ("fl_threads.exec", OTHER_PLACE),
            ("fl_threads.faults", THREAD),
            ("fl_threads.group", OTHER_PLACE),
            ("fl_threads.is_known", OTHER_PLACE),
            ("fl_threads.jiffies", TICK),
            ("fl_threads.owner", "a thread's first fault"),
        ],
        other: &[
            ("fl_first_count", SAMPLE_SECOND),
            ("fl_first_count, atomic", "a record of an executable that dies for the first time is to be sent"),
            ("fl_free_groups, entries", NEW_GROUP),
            ("fl_free_rests, entries", "a rest is new"),
            ("fl_free_sums, entries", "a sum is new"),
            ("fl_group_ids, entries", NEW_GROUP),
            ("fl_groups.build_id", NEW_GROUP),
            ("fl_groups.build_id_length", NEW_GROUP),
            ("fl_groups.cells", NEW_GROUP),
            ("fl_groups.first_ns", NEW_GROUP),
            ("fl_groups.hash", NEW_GROUP),
            ("fl_groups.is_others", NEW_GROUP),
            ("fl_groups.key", NEW_GROUP),
            ("fl_groups.sampled_ns", SAMPLE),
            ("fl_groups.samples", SAMPLE),
            ("fl_groups.serial", NEW_GROUP),
            ("fl_groups.stack_id", NEW_GROUP),
            ("fl_last_wake_ns", WAKE),
            ("fl_sample_count", SAMPLE_SECOND),
            ("fl_sample_count, atomic", SAMPLE),
            ("fl_sample_second", SAMPLE_SECOND),
            ("fl_sample_shares.count", SAMPLE),
            ("fl_sample_shares.second", SAMPLE_SECOND),
            ("fl_shares_taken, atomic", NEW_GROUP),
            ("fl_sums_by_code, atomic", "a sum is new"),
        ],
    },
    Program {
        object: "signal",
        name: "fl_generate",
        ends: &[],
        counting: &[
            ("fl_cgroup_level", "once: it is the same for all tasks"),
            ("fl_counters, atomic", COUNTERS),
            ("fl_descendants, entries", DESCENDANTS),
            ("fl_pairs, entries", "a pair is new, on a processor or on all"),
            ("fl_pairs.count, atomic", RARE),
            ("fl_pairs.first_ns", RARE),
            ("fl_pairs.last_jiffies", RARE),
            ("fl_pairs.last_ns", RARE),
            ("fl_pt_regs_offset", REGISTERS),
        ],
        other: &[("fl_last_wake_ns", WAKE)],
    },
    Program { object: "pagefault", name: "fl_user", ends: &["fl_processes"], counting: FAULTS, other: NEW_FAULTS },
    Program { object: "pagefault", name: "fl_kernel", ends: &["fl_processes"], counting: FAULTS, other: NEW_FAULTS },
];
