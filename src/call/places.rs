//! Where the kernel calls callbacks from: data for `callers.rs`. Its types say what a callback is given, and not who calls it.

/// One place: the member of the struct of callbacks; the kernel's function there, by the names that it has had, the newest first (one that
/// compilers put into its callers isn't among the kernel's types, so that a caller of that stands behind it); the struct that this function is
/// given a pointer to, as another function may have the same name; and what it calls the callback for.
pub(super) type Place = (&'static str, &'static str, &'static str, &'static str);

/// By struct of callbacks.
pub(super) const PLACES: &[(&str, &[Place])] =
    &[("sched_ext_ops", SCHED_EXT), ("tcp_congestion_ops", CONGESTION), ("hid_bpf_ops", HID)];

/// kernel/sched/ext.c and ext_idle.c, from Linux 6.12 on
const SCHED_EXT: &[Place] = &[
    ("select_cpu", "select_task_rq_scx", "task_struct", "a task wakes up, and needs a processor"),
    ("enqueue", "do_enqueue_task", "task_struct", "a task is to wait for its turn"),
    ("enqueue", "enqueue_task_scx", "task_struct", "a task becomes runnable: by do_enqueue_task()"),
    ("dequeue", "ops_dequeue", "task_struct", "a task waits no longer"),
    ("dequeue", "dequeue_task_scx", "task_struct", "a task is not runnable any more: by ops_dequeue()"),
    ("dispatch", "scx_dispatch_sched balance_one", "rq", "a processor has no task left"),
    ("dispatch", "do_pick_task_scx balance_scx", "rq", "a processor looks for its next task"),
    ("tick", "task_tick_scx", "task_struct", "the timer's tick, while a task runs"),
    ("runnable", "enqueue_task_scx", "task_struct", "a task becomes runnable"),
    ("running", "set_next_task_scx", "task_struct", "a task gets its processor"),
    ("stopping", "put_prev_task_scx", "task_struct", "a task leaves its processor, and is runnable"),
    ("stopping", "dequeue_task_scx", "task_struct", "a task that runs goes to sleep"),
    ("quiescent", "dequeue_task_scx", "task_struct", "a task is not runnable any more"),
    ("yield", "yield_task_scx", "rq", "sched_yield()"),
    ("yield", "yield_to_task_scx", "task_struct", "a task yields to another"),
    ("core_sched_before", "scx_prio_less", "task_struct", "two tasks want the same core"),
    ("set_weight", "reweight_task_scx", "task_struct", "a task's nice value changes"),
    (
        "set_weight",
        "__scx_enable_task scx_enable_task scx_ops_enable_task",
        "task_struct",
        "a task comes to the scheduler",
    ),
    ("set_cpumask", "set_cpus_allowed_scx", "task_struct", "sched_setaffinity(), and the like"),
    ("set_cpumask", "switching_to_scx", "task_struct", "a task comes to the scheduler"),
    ("update_idle", "__scx_update_idle", "rq", "a processor becomes idle, or is so no longer"),
    (
        "cpu_acquire",
        "balance_one do_pick_task_scx balance_scx",
        "rq",
        "a class of a higher priority gives a processor back",
    ),
    ("cpu_release", "switch_class switch_class_scx", "rq", "a class of a higher priority takes a processor"),
    (
        "init_task",
        "__scx_init_task scx_init_task scx_ops_init_task",
        "task_struct",
        "a task is forked, or the scheduler comes",
    ),
    (
        "exit_task",
        "__scx_disable_and_exit_task scx_exit_task scx_ops_exit_task",
        "task_struct",
        "a task ends, or the scheduler goes",
    ),
    ("enable", "__scx_enable_task scx_enable_task scx_ops_enable_task", "task_struct", "a task comes to the scheduler"),
    ("disable", "scx_disable_task scx_ops_disable_task", "task_struct", "a task leaves the scheduler"),
    ("dump", "scx_dump_state", "scx_exit_info", "the scheduler's state is printed: it has made an error"),
    ("dump_cpu", "scx_dump_cpu", "scx_sched", "the same, for each processor"),
    ("dump_cpu", "scx_dump_state", "scx_exit_info", "the same, for each processor"),
    ("dump_task", "scx_dump_task", "task_struct", "the same, for each task"),
    ("cgroup_init", "scx_tg_online", "task_group", "a cgroup is made"),
    ("cgroup_exit", "scx_tg_offline", "task_group", "a cgroup is removed"),
    ("cgroup_prep_move", "scx_cgroup_can_attach", "cgroup_taskset", "tasks are to move to another cgroup"),
    ("cgroup_move", "scx_cgroup_move_task", "task_struct", "a task has moved to another cgroup"),
    ("cgroup_cancel_move", "scx_cgroup_cancel_attach", "cgroup_taskset", "tasks could not move"),
    ("cgroup_set_weight", "scx_group_set_weight", "task_group", "cpu.weight is written"),
    ("cgroup_set_bandwidth", "scx_group_set_bandwidth", "task_group", "cpu.max is written"),
    ("cgroup_set_idle", "scx_group_set_idle", "task_group", "cpu.idle is written"),
    ("cpu_online", "scx_rq_activate", "rq", "a processor comes"),
    ("cpu_offline", "scx_rq_deactivate", "rq", "a processor goes"),
    ("init", "scx_root_enable_workfn scx_enable_workfn", "kthread_work", "the scheduler is registered"),
    ("init", "scx_enable scx_ops_enable", "bpf_link", "the scheduler is registered"),
    ("exit", "scx_root_disable", "scx_sched", "the scheduler is removed"),
    ("exit", "scx_disable_workfn scx_ops_disable_workfn", "kthread_work", "the scheduler is removed"),
];

/// net/ipv4/tcp_cong.c, tcp_input.c, tcp_output.c
const CONGESTION: &[Place] = &[
    ("init", "tcp_init_congestion_control", "sock", "a connection begins, or gets this algorithm"),
    ("init", "tcp_set_congestion_control", "sock", "setsockopt(): by tcp_init_congestion_control()"),
    ("release", "tcp_cleanup_congestion_control", "sock", "a connection ends, or gets another algorithm"),
    ("release", "tcp_set_congestion_control", "sock", "setsockopt(): by tcp_cleanup_congestion_control()"),
    ("ssthresh", "tcp_enter_loss", "sock", "the timer of a segment has run out"),
    ("ssthresh", "tcp_enter_recovery", "sock", "segments are lost"),
    ("ssthresh", "tcp_enter_cwr", "sock", "the network or the device is congested"),
    ("cong_avoid", "tcp_cong_avoid tcp_cong_control tcp_ack", "sock", "segments are acknowledged"),
    ("cong_control", "tcp_cong_control tcp_ack", "sock", "segments are acknowledged"),
    ("pkts_acked", "tcp_clean_rtx_queue tcp_ack", "sock", "segments are acknowledged"),
    ("in_ack_event", "tcp_in_ack_event tcp_ack", "sock", "an acknowledgement comes"),
    ("set_state", "tcp_set_ca_state", "sock", "the state changes: open, disorder, recovery, loss"),
    ("cwnd_event", "tcp_event_data_sent __tcp_transmit_skb", "sock", "the first segment after a pause"),
    ("cwnd_event", "tcp_cwnd_restart", "sock", "a pause was long"),
    ("cwnd_event", "tcp_enter_loss", "sock", "the timer of a segment has run out"),
    ("cwnd_event_tx_start", "tcp_event_data_sent __tcp_transmit_skb", "sock", "the first segment after a pause"),
    ("min_tso_segs", "tcp_tso_segs tcp_write_xmit", "sock", "segments are sent together"),
    ("undo_cwnd", "tcp_undo_cwnd_reduction", "sock", "segments were not lost after all"),
    ("sndbuf_expand", "tcp_sndbuf_expand", "sock", "the buffer is too small for the window"),
];

/// drivers/hid/bpf/hid_bpf_dispatch.c, from Linux 6.11 on
const HID: &[Place] = &[
    ("hid_device_event", "dispatch_hid_bpf_device_event", "hid_device", "a device sends a report"),
    ("hid_rdesc_fixup", "call_hid_bpf_rdesc_fixup", "hid_device", "a device says what its reports are"),
    ("hid_hw_request", "dispatch_hid_bpf_raw_requests", "hid_device", "a report is asked for, or set"),
    ("hid_hw_output_report", "dispatch_hid_bpf_output_report", "hid_device", "a report is sent to a device"),
];
