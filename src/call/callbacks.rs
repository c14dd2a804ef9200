//! The names of the parameters of callbacks. The kernel's types of pointers to functions have none, so those of its headers stand here.

/// Callbacks by struct and member. Of two that a member has had in different kernels, that with as many parameters is meant.
const KNOWN: &[(&str, &str)] = &[
    // include/net/tcp.h
    ("tcp_congestion_ops.ssthresh", "sk"),
    ("tcp_congestion_ops.cong_avoid", "sk ack acked"),
    ("tcp_congestion_ops.set_state", "sk new_state"),
    ("tcp_congestion_ops.cwnd_event", "sk ev"),
    ("tcp_congestion_ops.cwnd_event_tx_start", "sk"),
    ("tcp_congestion_ops.in_ack_event", "sk flags"),
    ("tcp_congestion_ops.pkts_acked", "sk sample"),
    ("tcp_congestion_ops.min_tso_segs", "sk"),
    ("tcp_congestion_ops.cong_control", "sk rs"),
    ("tcp_congestion_ops.cong_control", "sk ack flag rs"),
    ("tcp_congestion_ops.undo_cwnd", "sk"),
    ("tcp_congestion_ops.sndbuf_expand", "sk"),
    ("tcp_congestion_ops.init", "sk"),
    ("tcp_congestion_ops.release", "sk"),
    // kernel/sched/ext.c, ext_internal.h
    ("sched_ext_ops.select_cpu", "p prev_cpu wake_flags"),
    ("sched_ext_ops.enqueue", "p enq_flags"),
    ("sched_ext_ops.dequeue", "p deq_flags"),
    ("sched_ext_ops.dispatch", "cpu prev"),
    ("sched_ext_ops.tick", "p"),
    ("sched_ext_ops.runnable", "p enq_flags"),
    ("sched_ext_ops.running", "p"),
    ("sched_ext_ops.stopping", "p runnable"),
    ("sched_ext_ops.quiescent", "p deq_flags"),
    ("sched_ext_ops.yield", "from to"),
    ("sched_ext_ops.core_sched_before", "a b"),
    ("sched_ext_ops.set_weight", "p weight"),
    ("sched_ext_ops.set_cpumask", "p cpumask"),
    ("sched_ext_ops.update_idle", "cpu idle"),
    ("sched_ext_ops.cpu_acquire", "cpu args"),
    ("sched_ext_ops.cpu_release", "cpu args"),
    ("sched_ext_ops.init_task", "p args"),
    ("sched_ext_ops.exit_task", "p args"),
    ("sched_ext_ops.enable", "p"),
    ("sched_ext_ops.disable", "p"),
    ("sched_ext_ops.cpu_online", "cpu"),
    ("sched_ext_ops.cpu_offline", "cpu"),
    ("sched_ext_ops.exit", "info"),
    // include/linux/hid_bpf.h
    ("hid_bpf_ops.hid_device_event", "ctx report_type source"),
    ("hid_bpf_ops.hid_rdesc_fixup", "ctx"),
    ("hid_bpf_ops.hid_hw_request", "ctx reportnum rtype reqtype source"),
    ("hid_bpf_ops.hid_hw_output_report", "ctx source"),
];

/// Names the parameters of a callback that have none: `arg0` and so on if it isn't known.
pub(super) fn name_parameters<'name>(callback: &str, names: impl ExactSizeIterator<Item = &'name mut String>) {
    let count = names.len();
    let is_this = |(known, parameters): &&(&str, &str)| *known == callback && parameters.split(' ').count() == count;
    let mut known = KNOWN.iter().find(is_this).map(|(_, parameters)| parameters.split(' '));
    for (index, name) in names.enumerate() {
        let own = known.as_mut().and_then(Iterator::next).map_or_else(|| format!("arg{index}"), str::to_owned);
        if name.is_empty() {
            *name = own;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn named(callback: &str, count: usize) -> Vec<String> {
        let mut names = vec![String::new(); count];
        name_parameters(callback, names.iter_mut());
        names
    }

    #[test]
    fn names_are_those_of_as_many_parameters() {
        assert_eq!(named("tcp_congestion_ops.cong_control", 2), ["sk", "rs"]);
        assert_eq!(named("tcp_congestion_ops.cong_control", 4), ["sk", "ack", "flag", "rs"]);
        assert_eq!(named("tcp_congestion_ops.cong_control", 3), ["arg0", "arg1", "arg2"], "one that we don't know");
        let mut given = [String::new(), "own".to_owned()];
        name_parameters("sched_ext_ops.enqueue", given.iter_mut());
        assert_eq!(given, ["p", "own"], "a name of the kernel's own is better");
    }
}
