//! The crash probe: `bpf/crash.bpf.c` opened, configured, loaded and attached.

use std::ffi::OsStr;
use std::path::{Path, PathBuf};
use std::time::Duration;

use anyhow::{Context as _, Result, anyhow, bail};
use libbpf_rs::{Link, MapCore as _, MapFlags};

use super::abi::{fl_config, fl_libc, libc_bytes};
use super::losses::{EXITS_MISSED, FORKS_MISSED, RUNS_MISSED};
use super::object::{Build, Loaded, Opened, follows, has_typed_loads};
use super::{Counters, Filter, Groups, Ring, StackFrame, groups, load};
use crate::host;
use crate::siginfo::{CORE_SIGNALS, SIGSYS, signal_name};

/// How to hook the kernel.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Attach {
    /// The best that works.
    #[default]
    Auto,
    /// The tracepoint signal_deliver, and nothing else.
    Tracepoint,
    /// Kprobes.
    Kprobe,
}

/// What the kernel program is to do.
#[derive(Clone, Debug)]
pub struct Plan {
    /// Which tasks.
    pub filter: Filter,
    /// Which signals, 1 to 64.
    pub signals: Vec<u32>,
    /// How many frames to walk.
    pub frames: u32,
    /// How much of the stack to copy, bytes.
    pub stack_bytes: u32,
    /// Send a sample of handled and ignored signals too.
    pub show_handled: bool,
    /// Count by group; None: count only in all.
    pub groups: Option<GroupTable>,
    /// How many samples to send.
    pub samples: Budget,
    /// How to hook the kernel.
    pub attach: Attach,
    /// Types of the kernel, where it doesn't show them itself.
    pub btf: Option<PathBuf>,
    /// Print libbpf's own messages.
    pub verbose: bool,
}

/// The room for groups.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct GroupTable {
    /// How many groups, 1 and more.
    pub groups: u32,
    /// How many of their stacks.
    pub stacks: u32,
}

/// Which events get a sample, beside being counted.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Budget {
    /// So many of each group at once; None: all.
    pub first: Option<u32>,
    /// Then one after each such time.
    pub interval: Duration,
    /// So many a second of all groups; None: all.
    pub rate: Option<u32>,
}

/// The programs that a way to attach consists of.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Hooks {
    /// signal_deliver; `seccomp_kills`: and a kprobe for what it doesn't see before v5.16.
    Tracepoint { seccomp_kills: bool },
    /// The coredump and forced signals.
    Kprobe,
}

/// FL_PAGE_BYTES.
const PAGE_BYTES: u32 = 4096;

/// Where stacks of up to this size are sampled the ring stays as it is: few are, so that memory counts for more.
const AGENT_STACK_BYTES: u32 = 16 * 1024;

/// The ring for larger ones, which everybody waits for: 30 of 64 KiB.
const LARGE_RING_BYTES: usize = 2 << 20;

/// An LRU table that nothing is written to: some kernels want an entry for each processor.
const UNUSED_LRU_ENTRIES: usize = 64;

/// The object's two builds.
const PLAIN: &[u8] = include_bytes!(concat!(env!("OUT_DIR"), "/crash.plain.o"));
const TYPED: &[u8] = include_bytes!(concat!(env!("OUT_DIR"), "/crash.typed.o"));

/// The attached probe. Dropping it detaches every program.
pub struct Probe {
    object: Loaded,
    build: Build,
    groups: u32,
    links: Vec<Link>,
    attached: Vec<&'static str>,
    /// fl_end sees exits, and nothing else.
    only_exits: bool,
}

impl Probe {
    /// Loads the programs and attaches each by itself. `auto` falls back to kprobes where signal_deliver can't be used.
    ///
    /// # Errors
    /// Missing privileges, a kernel without BTF, a verifier that refuses, a hook that isn't there: one line with the cure
    /// where there is one.
    pub fn start(plan: &Plan) -> Result<Self> {
        load::prepare(plan.verbose);
        let facts = Facts::find(plan);
        let mut refusal = None;
        for (build, hooks) in ways(plan, facts) {
            match Self::attempt(plan, build, hooks) {
                Ok(probe) => return Ok(probe),
                // What the best way was refused for is what the user can do something about.
                Err(why) => refusal = refusal.or(Some(why)),
            }
        }
        Err(refusal.unwrap_or_else(|| anyhow!("failed to attach: there is no way to")))
    }

    fn attempt(plan: &Plan, build: Build, hooks: Hooks) -> Result<Self> {
        let (object, exits) = Self::load(plan, build, hooks)?;
        let groups = plan.groups.map_or(0, |table| table.groups);
        let only_exits = hooks == Hooks::Tracepoint { seccomp_kills: false };
        let mut probe = Self { object, build, groups, links: Vec::new(), attached: Vec::new(), only_exits };
        probe.attach(plan, hooks, exits)?;
        Ok(probe)
    }

    fn load(plan: &Plan, build: Build, hooks: Hooks) -> Result<(Loaded, Exits)> {
        let bytes = match build {
            Build::Plain => PLAIN,
            Build::Typed => TYPED,
        };
        let mut object = Opened::open(bytes, build, plan.btf.as_deref())?;
        let seccomp_kills = hooks == Hooks::Tracepoint { seccomp_kills: true };
        let exits = match hooks {
            _ if host::has_kprobe_pmu() => Exits::Kprobe,
            Hooks::Tracepoint { .. } if object.exits_with_memory() => Exits::Tracepoint,
            _ => Exits::Unseen,
        };
        let config = fl_config {
            signals: plan.signals.iter().fold(0, |bits, signal| bits | 1 << (signal - 1)),
            frames: plan.frames,
            // One more, because the stack pointer is somewhere in the first.
            stack_pages: if plan.stack_bytes == 0 { 0 } else { plan.stack_bytes.div_ceil(PAGE_BYTES) + 1 },
            show_handled: u8::from(plan.show_handled),
            seccomp_kills: u8::from(seccomp_kills),
            senders: u8::from(needs_senders(plan, hooks)),
            groups: plan.groups.map_or(0, |table| table.groups),
            sample_first: plan.samples.first.unwrap_or(0),
            sample_interval_ns: u64::try_from(plan.samples.interval.as_nanos()).unwrap_or(u64::MAX),
            sample_rate: plan.samples.rate.unwrap_or(0),
            ..fl_config::default()
        };
        object.configure("fl_config", &config)?;
        object.configure("fl_filter_config", &plan.filter.config()?)?;
        // Nothing is loaded, and no table kept, that was not asked for.
        let kprobes = hooks == Hooks::Kprobe;
        object.autoload("fl_deliver", !kprobes)?;
        object.autoload("fl_end", kprobes || seccomp_kills || exits == Exits::Kprobe)?;
        object.autoload("fl_force_sig", kprobes)?;
        object.autoload("fl_generate", needs_senders(plan, hooks))?;
        object.autoload("fl_fork", plan.filter.command)?;
        object.autoload("fl_exit", plan.filter.command)?;
        if !plan.filter.command {
            object.resize("fl_descendants", 1)?;
        }
        if !needs_senders(plan, hooks) {
            object.resize("fl_sent", 1)?;
        }
        // Only of these the program asks whether it has seen their end already (fl_is_first).
        if !seccomp_kills && plan.signals.iter().all(|signal| CORE_SIGNALS.contains(signal)) {
            object.resize("fl_endings", UNUSED_LRU_ENTRIES)?;
        }
        if plan.stack_bytes > AGENT_STACK_BYTES {
            object.resize("fl_ring", LARGE_RING_BYTES)?;
        }
        object.resize("fl_pids", plan.filter.pids.len())?;
        if let Some(table) = plan.groups {
            let groups = table.groups as usize;
            object.resize("fl_groups", groups + 1)?;
            object.resize("fl_group_counts", groups + 1)?;
            object.resize("fl_free_groups", groups)?;
            object.resize("fl_group_ids", groups)?;
            object.resize("fl_stacks", (table.stacks as usize).next_power_of_two())?;
        }
        let loaded = object.load()?;
        groups::hand_out_ids(&loaded, plan.groups.map_or(0, |table| table.groups))?;
        plan.filter.apply(&loaded.map("fl_pids")?, &loaded.map("fl_cgroups")?)?;
        Ok((loaded, exits))
    }

    fn attach(&mut self, plan: &Plan, hooks: Hooks, exits: Exits) -> Result<()> {
        let object = &self.object;
        let raw = |program: &str, tracepoint: &str| {
            let what = format!("attach to raw tracepoint `{tracepoint}`");
            load::step(&what, object.program(program)?.attach_raw_tracepoint(tracepoint))
        };
        let kprobe = |program: &str, function: &str| {
            let what = format!("attach to kernel function `{function}`");
            load::step(&what, object.program(program)?.attach_kprobe(false, function))
        };
        match hooks {
            Hooks::Tracepoint { seccomp_kills } => {
                self.links.push(raw("fl_deliver", "signal_deliver")?);
                self.attached.push("raw_tp/signal_deliver");
                // Something is gained by it, and nothing that was asked for is lost without it.
                if seccomp_kills && let Ok(link) = kprobe("fl_end", "do_coredump") {
                    self.links.push(link);
                    self.attached.push("kprobe/do_coredump");
                }
            }
            Hooks::Kprobe => {
                if !host::has_kprobe_pmu() {
                    bail!("failed to attach kprobes: this kernel has none (CONFIG_KPROBES), use --attach tracepoint");
                }
                if let Some(&other) = plan.signals.iter().find(|signal| !CORE_SIGNALS.contains(signal)) {
                    let name = signal_name(other);
                    bail!("failed to watch {name} by kprobes: they show signals that dump core only");
                }
                // One function by two names.
                let (link, name) = match kprobe("fl_end", "vfs_coredump") {
                    Ok(link) => (link, "kprobe/vfs_coredump"),
                    Err(_) => (kprobe("fl_end", "do_coredump")?, "kprobe/do_coredump"),
                };
                self.links.push(link);
                self.attached.push(name);
                self.links.push(kprobe("fl_force_sig", "force_sig_info_to_task")?);
                self.attached.push("kprobe/force_sig_info_to_task");
            }
        }
        if needs_senders(plan, hooks) {
            self.links.push(raw("fl_generate", "signal_generate")?);
        }
        match exits {
            Exits::Tracepoint => self.links.push(raw("fl_deliver", "sched_process_exit")?),
            // Refused under lockdown=confidentiality, and then such an end is none that we see: docs/limits.md.
            Exits::Kprobe => self.links.extend(kprobe("fl_end", "do_group_exit").ok()),
            Exits::Unseen => {}
        }
        if plan.filter.command {
            // The exit first: a process must not be remembered that nobody forgets.
            self.links.push(raw("fl_exit", "sched_process_exit")?);
            self.links.push(raw("fl_fork", "sched_process_fork")?);
        }
        Ok(())
    }

    /// How the programs read kernel memory.
    pub fn build(&self) -> Build {
        self.build
    }

    /// The hooks in use, for the line that says so.
    pub fn attached(&self) -> &[&'static str] {
        &self.attached
    }

    /// The samples, each handed to `take` as bytes ([`super::abi::Names::from_bytes`]).
    ///
    /// # Errors
    /// Where the ring can't be mapped.
    pub fn ring<'probe>(&'probe self, take: impl FnMut(&[u8]) + 'probe) -> Result<Ring<'probe>> {
        Ring::new(&self.object.map("fl_ring")?, take)
    }

    /// Lets the kernel program read what these files of glibc say before they abort: for each the place of its `__abort_msg` in a
    /// process that has mapped the file at address 0.
    ///
    /// # Errors
    /// Where the table takes no more.
    pub fn know_libcs(&self, files: &[(fl_libc, u64)]) -> Result<()> {
        if files.is_empty() {
            return Ok(());
        }
        let known = self.object.map("fl_libcs")?;
        for (file, place) in files {
            known
                .update(&libc_bytes(file), &place.to_ne_bytes(), MapFlags::ANY)
                .context("failed to tell the probe of a libc")?;
        }
        Ok(())
    }

    /// What has been counted by group since the start; empty where the plan has no groups.
    ///
    /// # Errors
    /// Where a map can't be read.
    pub fn groups(&self) -> Result<Groups> {
        if self.groups == 0 { Ok(Groups::default()) } else { groups::read(&self.object, self.groups) }
    }

    /// The room for groups; 0: the plan has none.
    pub fn group_limit(&self) -> u32 {
        self.groups
    }

    /// The stack that was taken when a group was born, innermost frame first; empty: there is none.
    ///
    /// # Errors
    /// Where the map can't be read.
    pub fn stack(&self, id: i32) -> Result<Vec<StackFrame>> {
        groups::stack(&self.object, id)
    }

    /// What has been counted since the start.
    ///
    /// # Errors
    /// Where the map can't be read.
    pub fn counters(&self) -> Result<Counters> {
        let only_exits = |program: &OsStr| self.only_exits && program == "fl_end";
        let mut counters = Counters::read(&self.object.map("fl_counters")?)?;
        let runs_missed = self.object.runs_missed(|program| !follows(program) && !only_exits(program));
        counters.losses.add(RUNS_MISSED, runs_missed);
        counters.losses.add(EXITS_MISSED, self.object.runs_missed(only_exits));
        counters.losses.add(FORKS_MISSED, self.object.forks_missed());
        Ok(counters)
    }
}

/// Is a signal watched whose sender the kernel forgets before the signal is delivered?
fn needs_senders(plan: &Plan, hooks: Hooks) -> bool {
    hooks != Hooks::Kprobe && plan.signals.iter().any(|signal| !CORE_SIGNALS.contains(signal))
}

/// How the end of a process is seen that exits from the handler of a fault: by a kprobe where there are any. At
/// sched_process_exit the task may be preempted on new kernels (seen on 7.2), by one that gets a signal: our program would be
/// on that processor already, and the kernel would leave the signal's run out.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Exits {
    /// From v6.16 on.
    Tracepoint,
    Kprobe,
    Unseen,
}

/// What the order of the ways depends on.
#[derive(Clone, Copy, Debug)]
struct Facts {
    /// The kernel is at least the one that brought typed loads (v6.2).
    typed_loads: bool,
    kprobes: bool,
    /// A process that seccomp ends gets a signal delivered.
    seccomp_kills: bool,
}

impl Facts {
    fn find(plan: &Plan) -> Self {
        let typed_loads = has_typed_loads();
        let kprobes = host::has_kprobe_pmu();
        let btf = plan.btf.as_deref().unwrap_or(Path::new(host::KERNEL_BTF));
        // v5.16 is older than typed loads.
        let seccomp_kills = typed_loads || !kprobes || host::delivers_seccomp_kills(btf);
        Self { typed_loads, kprobes, seccomp_kills }
    }
}

/// The ways to try, best first.
fn ways(plan: &Plan, facts: Facts) -> Vec<(Build, Hooks)> {
    let seccomp_kills =
        plan.attach == Attach::Auto && plan.signals.contains(&SIGSYS) && facts.kprobes && !facts.seccomp_kills;
    let tracepoint = Hooks::Tracepoint { seccomp_kills };
    let hooks = match plan.attach {
        Attach::Tracepoint => vec![tracepoint],
        Attach::Kprobe => vec![Hooks::Kprobe],
        Attach::Auto if facts.kprobes => vec![tracepoint, Hooks::Kprobe],
        Attach::Auto => vec![tracepoint],
    };
    // Typed loads are by the types that the kernel itself has, not by those of a file.
    let typed = plan.btf.is_none() && facts.typed_loads;
    let build = |hooks| match hooks {
        Hooks::Tracepoint { .. } if typed => vec![(Build::Typed, hooks), (Build::Plain, hooks)],
        // typed.rs serves raw tracepoints; and what lockdown forbids, kprobes are forbidden as well.
        _ => vec![(Build::Plain, hooks)],
    };
    hooks.into_iter().flat_map(build).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    const TRACEPOINT: Hooks = Hooks::Tracepoint { seccomp_kills: false };

    fn plan(attach: Attach) -> Plan {
        Plan {
            filter: Filter::default(),
            signals: vec![SIGSYS],
            frames: 16,
            stack_bytes: 0,
            show_handled: false,
            groups: None,
            samples: Budget::default(),
            attach,
            btf: None,
            verbose: false,
        }
    }

    const NEW: Facts = Facts { typed_loads: true, kprobes: true, seccomp_kills: true };
    const OLD: Facts = Facts { typed_loads: false, kprobes: true, seccomp_kills: false };

    #[test]
    fn typed_loads_are_preferred_where_the_kernel_has_them() {
        assert_eq!(
            ways(&plan(Attach::Auto), NEW),
            [(Build::Typed, TRACEPOINT), (Build::Plain, TRACEPOINT), (Build::Plain, Hooks::Kprobe)]
        );
        assert_eq!(
            ways(&plan(Attach::Auto), Facts { kprobes: false, typed_loads: false, ..NEW }),
            [(Build::Plain, TRACEPOINT)]
        );
    }

    #[test]
    fn types_from_a_file_rule_typed_loads_out() {
        let from_file = Plan { btf: Some("btf".into()), ..plan(Attach::Tracepoint) };
        assert_eq!(ways(&from_file, NEW), [(Build::Plain, TRACEPOINT)]);
    }

    #[test]
    fn only_auto_and_only_old_kernels_add_the_kprobe_for_seccomp() {
        let both = Hooks::Tracepoint { seccomp_kills: true };
        assert_eq!(ways(&plan(Attach::Auto), OLD), [(Build::Plain, both), (Build::Plain, Hooks::Kprobe)]);
        assert_eq!(ways(&plan(Attach::Auto), Facts { kprobes: false, ..OLD }), [(Build::Plain, TRACEPOINT)]);
        assert_eq!(ways(&plan(Attach::Tracepoint), OLD), [(Build::Plain, TRACEPOINT)]);
        assert_eq!(ways(&plan(Attach::Kprobe), OLD), [(Build::Plain, Hooks::Kprobe)]);
    }
}
