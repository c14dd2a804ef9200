//! The plan of the crash probe.

use std::time::Duration;

use anyhow::{Result, bail};

use crate::probe::abi::{fl_disposition, fl_libc};
use crate::probe::kernel::Kernel;
use crate::probe::many;
use crate::probe::{Attach, Setup, Way};
use crate::siginfo::{CORE_SIGNALS, SIGSYS, signal_name};

/// What the kernel program is to do.
#[derive(Clone, Debug)]
pub(crate) struct Plan {
    /// Which tasks, and how to hook the kernel.
    pub setup: Setup,
    /// Which signals, 1 to 64.
    pub signals: Vec<u32>,
    /// How many frames to walk.
    pub frames: u32,
    /// How much of the stack to copy, bytes.
    pub stack_bytes: u32,
    /// Send a sample of handled and ignored signals too.
    pub show_handled: bool,
    /// Count by group; `None` means that they are counted only in all.
    pub groups: Option<GroupTable>,
    /// How many samples to send.
    pub samples: Budget,
    /// The libcs whose messages are known before anything is attached: of each file the address of its `__abort_msg`.
    pub libcs: Vec<(fl_libc, u64)>,
}

impl Plan {
    /// Is a signal watched whose sender the kernel forgets before the signal is delivered?
    pub(super) fn needs_senders(&self, way: Way) -> bool {
        way != Way::Kprobe && self.signals.iter().any(|signal| !CORE_SIGNALS.contains(signal))
    }

    /// Is the end of a process that exits from the handler of a fault seen where it exits? Only where there are no kprobes.
    pub(super) fn is_hooked_at_exit(way: Way, kernel: Kernel) -> bool {
        way == Way::Tracepoint && !kernel.kprobes && kernel.exits_with_memory
    }

    /// The signals whose deaths are to be seen at the coredump beside signal_deliver: those of a real-time kernel, which may skip our
    /// program's runs there, and before v5.16 that of a process that seccomp ends, to which the kernel delivers no signal. Only for
    /// `auto`: a user who names a way gets that way.
    pub(super) fn at_coredump(&self, way: Way, kernel: Kernel) -> u64 {
        if way == Way::Kprobe || self.setup.attach != Attach::Auto || !kernel.kprobes {
            return 0;
        }
        let is_seen = |signal: &u32| match *signal {
            SIGSYS => kernel.is_real_time || !kernel.delivers_seccomp_kills,
            signal => kernel.is_real_time && CORE_SIGNALS.contains(&signal),
        };
        bits(self.signals.iter().filter(|signal| is_seen(signal)))
    }

    /// How many rows there are for what finds neither a group nor a rest.
    pub(super) fn sums(&self) -> u32 {
        SUMS_BY_CODE + u32::try_from(self.signals.len()).unwrap_or(u32::MAX).saturating_mul(DISPOSITIONS)
    }

    /// How many rows there are for groups, for what finds none, and for what finds no place at all.
    pub(super) fn rows(&self) -> u32 {
        self.groups.map_or(0, |table| table.groups + 1 + table.rests() + self.sums())
    }

    /// How many columns of the counts by group processors share; `None` means that each has its own counts.
    pub(super) fn columns(&self) -> Option<u32> {
        self.groups.and_then(|_| many::columns())
    }

    /// Can a thread that seccomp ends alone be told from a process that seccomp ends? Before v5.16 only if the latter was seen at its
    /// coredump.
    pub(super) fn sees_threads(&self, way: Way, kernel: Kernel) -> bool {
        let is_told_apart = kernel.delivers_seccomp_kills || self.at_coredump(way, kernel) & bits(&[SIGSYS]) != 0;
        self.signals.contains(&SIGSYS) && is_told_apart
    }

    pub(super) fn check_kprobes(&self) -> Result<()> {
        match self.signals.iter().find(|signal| !CORE_SIGNALS.contains(signal)) {
            Some(&other) => {
                bail!("failed to watch {} by kprobes: they show signals that dump core only", signal_name(other))
            }
            None => Ok(()),
        }
    }
}

/// A set of signals: bit N - 1 means signal N.
pub(super) fn bits<'a>(signals: impl IntoIterator<Item = &'a u32>) -> u64 {
    signals.into_iter().fold(0, |bits, signal| bits | 1 << (signal - 1))
}

/// How many rows by signal, code and disposition have a code. A process can send itself any signal with some two dozen codes that the
/// kernel sends, too; but hardly more than these come by themselves.
pub(super) const SUMS_BY_CODE: u32 = 128;

/// What becomes of a signal is one of so many: `enum fl_disposition`.
const DISPOSITIONS: u32 = fl_disposition::FL_DISPOSED_THREAD.0 + 1;

/// The room for groups.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct GroupTable {
    /// How many groups, 1 and more.
    pub groups: u32,
    /// How many of their stacks.
    pub stacks: u32,
}

impl GroupTable {
    /// How many rows there are for what finds no group.
    pub(super) fn rests(self) -> u32 {
        (self.groups / 8).max(64)
    }

    /// Counters of shares in each row of them: four for each payer of each group, so that hardly two are in the same one.
    pub(super) fn share_cells(self) -> u32 {
        (self.groups + self.rests()).saturating_mul(2).next_power_of_two()
    }
}

/// Which events get a sample besides being counted.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Budget {
    /// So many of each group at once; `None` means all.
    pub first: Option<u32>,
    /// Then one after each such time.
    pub interval: Duration,
    /// So many a second of all groups; `None` means all.
    pub rate: Option<u32>,
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::probe::engine::Spec as _;
    use crate::probe::hook::Hook;

    const NEW: Kernel = Kernel {
        kprobes: true,
        perf_events: true,
        exits_with_memory: true,
        delivers_seccomp_kills: true,
        is_real_time: false,
    };
    const OLD: Kernel = Kernel { exits_with_memory: false, delivers_seccomp_kills: false, ..NEW };

    fn plan(attach: Attach) -> Plan {
        Plan {
            setup: Setup { attach, ..Setup::default() },
            signals: vec![SIGSYS],
            frames: 16,
            stack_bytes: 0,
            show_handled: false,
            groups: None,
            samples: Budget::default(),
            libcs: Vec::new(),
        }
    }

    /// Where programs run, whichever of them can be attached.
    fn places(plan: &Plan, way: Way, kernel: Kernel) -> Vec<String> {
        let hooks = plan.hooks(way, kernel).unwrap();
        Hook::all(&hooks).iter().map(|at| format!("{} {}", at.program, at.words())).collect()
    }

    #[test]
    fn only_auto_and_only_old_kernels_add_the_kprobe_for_seccomp() {
        let (deliver, exit) = ("fl_deliver_exit raw_tp/signal_deliver", "fl_dump_or_exit kprobe/do_exit");
        let (newer, older) = ("fl_dump_or_exit kprobe/vfs_coredump", "fl_dump_or_exit kprobe/do_coredump");
        assert_eq!(places(&plan(Attach::Auto), Way::Tracepoint, OLD), [deliver, newer, older, exit]);
        assert_eq!(places(&plan(Attach::Auto), Way::Tracepoint, NEW), [deliver, exit]);
        assert_eq!(places(&plan(Attach::By(Way::Tracepoint)), Way::Tracepoint, OLD), [deliver, exit]);
        let none = Kernel { kprobes: false, ..OLD };
        assert_eq!(places(&plan(Attach::Auto), Way::Tracepoint, none), [deliver], "kprobes are needed for both");
    }

    #[test]
    fn on_a_real_time_kernel_the_kprobes_have_scratch_memory_of_their_own() {
        let apart = |plan: &Plan, way, kernel| Hook::programs(&plan.hooks(way, kernel).unwrap()).1;
        let real_time = Kernel { is_real_time: true, ..NEW };
        let crashes = Plan { signals: vec![11, 15], ..plan(Attach::Auto) };
        assert_eq!(crashes.at_coredump(Way::Tracepoint, real_time), bits(&[11]), "SIGTERM dumps no core");
        assert_eq!(apart(&crashes, Way::Tracepoint, real_time), ["fl_dump_or_exit"; 3]);
        assert_eq!(apart(&plan(Attach::By(Way::Tracepoint)), Way::Tracepoint, real_time), ["fl_dump_or_exit"; 1]);
        assert_eq!(apart(&plan(Attach::Auto), Way::Kprobe, real_time), [""; 0], "there all are kprobes");
        assert_eq!(apart(&crashes, Way::Tracepoint, NEW), [""; 0]);
    }

    #[test]
    fn exits_are_seen_by_the_tracepoint_where_there_are_no_kprobes() {
        let none = Kernel { kprobes: false, ..NEW };
        let expected = ["fl_deliver_exit raw_tp/signal_deliver", "fl_deliver_exit raw_tp/sched_process_exit"];
        assert_eq!(places(&plan(Attach::Auto), Way::Tracepoint, none), expected);
    }

    #[test]
    fn a_program_that_was_not_asked_for_is_not_named() {
        let named = |plan: &Plan| {
            let hooks = plan.hooks(Way::Tracepoint, NEW).unwrap();
            Hook::all(&hooks).iter().map(|at| at.program).collect::<Vec<_>>()
        };
        assert_eq!(named(&plan(Attach::Auto)), ["fl_deliver_exit", "fl_dump_or_exit"]);
        let mut all = Plan { signals: vec![15], ..plan(Attach::Auto) };
        all.setup.filter.command = true;
        assert_eq!(named(&all), ["fl_deliver_exit", "fl_generate", "fl_dump_or_exit", "fl_exit", "fl_fork"]);
        assert!(all.hooks(Way::Kprobe, NEW).is_err(), "kprobes show signals that dump core");
    }
}
