//! The memory probe: `bpf/memory.bpf.c` opened, configured, loaded and attached.

use std::cell::RefCell;
use std::path::PathBuf;

use anyhow::{Context, Result, anyhow, bail};
use libbpf_rs::{Link, MapCore, MapFlags};

use super::abi::memory::{
    alert_from_bytes, alert_key_bytes, fl_alert, fl_alert_key, fl_config, fl_counter, process_bytes,
};
use super::losses::{self, Loss, RUNS_MISSED};
use super::object::{Build, Loaded, Opened, has_typed_loads};
use super::tracefs::Tracefs;
use super::{Filter, Losses, Ring, counters, load};
use crate::{arch, host};

/// How to hook the kernel.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Attach {
    /// The best that works.
    #[default]
    Auto,
    /// Tracepoints: of single calls, or of all where those can't be had.
    Tracepoint,
    /// Tracepoints of all calls.
    Raw,
    /// Kprobes.
    Kprobe,
}

/// What the kernel programs are to do.
#[derive(Clone, Debug)]
pub struct Plan {
    /// Which tasks.
    pub filter: Filter,
    /// Children of watched processes are watched, too.
    pub follow: bool,
    /// Send calls that don't concern executable memory, too.
    pub show_all: bool,
    /// Send pages that become executable.
    pub pages: bool,
    /// Send the ELF header below such pages, too.
    pub headers: bool,
    /// Count anonymous memory that becomes executable, for the whole machine, and send nothing.
    pub watch_all: bool,
    /// How to hook the kernel.
    pub attach: Attach,
    /// Types of the kernel, where it doesn't show them itself.
    pub btf: Option<PathBuf>,
    /// Print libbpf's own messages.
    pub verbose: bool,
}

/// The ways to see a system call.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Hooks {
    /// The tracepoints of these calls: others take a longer way through the kernel, and run no program of ours.
    Calls,
    /// The two tracepoints of all calls: each call runs our program, which looks at its number.
    AllCalls,
    /// Kprobes on these calls: others cost nothing at all, these a few times as much.
    Kprobes,
}

/// Calls whose result matters.
const LEAVES: [&str; 9] =
    ["mmap", "mprotect", "pkey_mprotect", "munmap", "mremap", "brk", "shmat", "shmdt", "memfd_create"];
/// Calls that take memory away.
const ENTERS: [&str; 6] = ["munmap", "mremap", "mmap", "shmdt", "execve", "execveat"];
/// One that takes no lock that we would see it by; its entry is watched while there is memory that can change by itself.
const DROPS: &str = "madvise";
/// Calls that end a process, for kernels whose sched_process_exit comes too late.
const ENDS: [&str; 2] = ["exit_group", "exit"];
/// Where the whole machine is watched.
const ALERTS: [&str; 3] = ["mmap", "mprotect", "pkey_mprotect"];

/// Room for pages on their way: 16 MiB is 4000 of them.
const RING_BYTES: usize = 16 << 20;
/// Where only calls are sent.
const SMALL_RING_BYTES: usize = 1 << 20;

/// The object's two builds.
const PLAIN: &[u8] = include_bytes!(concat!(env!("OUT_DIR"), "/memory.plain.o"));
const TYPED: &[u8] = include_bytes!(concat!(env!("OUT_DIR"), "/memory.typed.o"));

/// The attached probe. Dropping it detaches every program.
pub struct Probe {
    object: Loaded,
    build: Build,
    links: Vec<Link>,
    attached: Vec<&'static str>,
    /// Attached while they are needed: see [`Probe::watch_changes`].
    changes: RefCell<Vec<Link>>,
    /// Entries of calls are watched by themselves, not by the lock that they take.
    has_entries: bool,
    watches_all: bool,
}

impl Probe {
    /// Loads the programs and attaches each by itself.
    ///
    /// # Errors
    /// Missing privileges, a kernel without BTF, a verifier that refuses, a hook that isn't there: one line with the cure
    /// where there is one.
    pub fn start(plan: &Plan) -> Result<Self> {
        load::prepare(plan.verbose);
        let mut refusal = None;
        for (build, hooks) in ways(plan.attach, plan.btf.is_none() && has_typed_loads(), host::has_kprobe_pmu()) {
            match Self::attempt(plan, build, hooks) {
                Ok(probe) => return Ok(probe),
                // What the best way was refused for is what the user can do something about.
                Err(why) => refusal = refusal.or(Some(why)),
            }
        }
        Err(refusal.unwrap_or_else(|| anyhow!("failed to attach: there is no way to")))
    }

    fn attempt(plan: &Plan, build: Build, hooks: Hooks) -> Result<Self> {
        let (object, late_exit) = load(plan, build, hooks)?;
        let (links, attached, changes) = (Vec::new(), Vec::new(), RefCell::new(Vec::new()));
        let mut probe =
            Self { object, build, links, attached, changes, has_entries: true, watches_all: plan.watch_all };
        probe.attach(plan, hooks, late_exit)?;
        Ok(probe)
    }

    fn attach(&mut self, plan: &Plan, hooks: Hooks, late_exit: bool) -> Result<()> {
        let mut links = Vec::new();
        if !plan.watch_all {
            // The exit first: a process must not be remembered that nobody forgets.
            links.push(self.raw("fl_exit", "sched_process_exit")?);
            links.push(self.raw("fl_fork", "sched_process_fork")?);
            links.push(self.raw("fl_exec", "sched_process_exec")?);
        }
        // Entries by the lock that they take, where that can be watched: with no tracepoint at the entry of any call, the other
        // calls of the machine cost half as much more.
        let by_lock = match hooks {
            Hooks::Calls if !plan.watch_all => self.raw("fl_lock", "mmap_lock_start_locking").ok(),
            _ => None,
        };
        let ends: &[&str] = if late_exit { &[] } else { &ENDS };
        let (enters, leaves): (Vec<&str>, &[&str]) = match &by_lock {
            _ if plan.watch_all => (Vec::new(), &ALERTS),
            Some(_) => (Vec::new(), &LEAVES),
            None => ([&ENTERS, &[DROPS][..], ends].concat(), &LEAVES),
        };
        self.has_entries = by_lock.is_none();
        if !plan.watch_all && !late_exit && self.has_entries {
            links.push(self.raw("fl_signal", "signal_deliver")?);
        }
        links.extend(by_lock);
        match hooks {
            Hooks::Calls => {
                let tracefs = Tracefs::open()?;
                let program = self.object.program("fl_syscall")?;
                for (side, names) in [("enter", &enters[..]), ("exit", leaves)] {
                    for name in names {
                        links.extend(tracefs.attach_syscall(&program, &format!("sys_{side}_{name}"))?);
                    }
                }
                self.attached.push("tracepoints of mapping calls");
            }
            Hooks::AllCalls => {
                links.push(self.raw("fl_raw_syscall", "sys_exit")?);
                if !plan.watch_all {
                    links.push(self.raw("fl_raw_syscall", "sys_enter")?);
                }
                self.attached.push("tracepoints of all calls");
            }
            Hooks::Kprobes => {
                if !host::has_kprobe_pmu() {
                    bail!("failed to attach kprobes: this kernel has none (CONFIG_KPROBES), use --attach tracepoint");
                }
                for (program, is_return, names) in [
                    ("fl_call_begins", false, &enters[..]),
                    ("fl_call_ends", true, leaves),
                    ("fl_call_expected", false, if plan.watch_all { &[] } else { leaves }),
                ] {
                    for name in names {
                        let function = format!("{}{name}", arch::syscall::PREFIX);
                        let what = format!("attach to kernel function `{function}`");
                        let link = self.object.program(program)?.attach_kprobe(is_return, &function);
                        links.push(load::step(&what, link)?);
                    }
                }
                self.attached.push("kprobes on mapping calls");
            }
        }
        self.links = links;
        Ok(())
    }

    fn raw(&self, program: &str, tracepoint: &str) -> Result<Link> {
        let what = format!("attach to raw tracepoint `{tracepoint}`");
        load::step(&what, self.object.program(program)?.attach_raw_tracepoint(tracepoint))
    }

    /// Watches memory that can change by itself, or no more: pages that are executed for the first time, content that is
    /// dropped. Costs each page fault and each call of the machine a little, so it is on only while it can tell something.
    ///
    /// # Errors
    /// Where a tracepoint is not to be had.
    pub fn watch_changes(&self, wanted: bool) -> Result<()> {
        let mut links = self.changes.borrow_mut();
        if !wanted {
            links.clear();
        } else if links.is_empty() {
            links.push(self.raw("fl_fetch", "page_fault_user")?);
            if !self.has_entries {
                let program = self.object.program("fl_syscall")?;
                links.extend(Tracefs::open()?.attach_syscall(&program, &format!("sys_enter_{DROPS}"))?);
            }
        }
        Ok(())
    }

    /// Tells the kernel programs what is known of a process that was there before them (`FL_PROCESS_*`).
    ///
    /// # Errors
    /// Where the table takes no more.
    pub fn know(&self, pid: u32, flags: u32) -> Result<()> {
        let processes = self.object.map("fl_processes")?;
        let what = || format!("failed to watch PID {pid}");
        processes.update(&pid.to_ne_bytes(), &process_bytes(flags), MapFlags::ANY).with_context(what)
    }

    /// How the programs read kernel memory.
    pub fn build(&self) -> Build {
        self.build
    }

    /// The hooks in use, for the line that says so.
    pub fn attached(&self) -> &[&'static str] {
        &self.attached
    }

    /// The samples, each handed to `take` as bytes ([`super::abi::memory::Sample::from_bytes`]).
    ///
    /// # Errors
    /// Where the ring can't be mapped.
    pub fn ring<'probe>(&'probe self, take: impl FnMut(&[u8]) + 'probe) -> Result<Ring<'probe>> {
        Ring::new(&self.object.map("fl_ring")?, take)
    }

    /// What has been counted since the start.
    ///
    /// # Errors
    /// Where the map can't be read.
    pub fn counters(&self) -> Result<Counters> {
        let table: &[Loss] = if self.watches_all { &losses::EXECUTABLE_MEMORY } else { &losses::MEMORY };
        let mut counters = Counters::read(table, &self.object.map("fl_counters")?)?;
        counters.losses.add(RUNS_MISSED, self.object.runs_missed(|_| true));
        Ok(counters)
    }

    /// Anonymous memory that became executable, by process and call; where the whole machine is watched.
    ///
    /// # Errors
    /// Where the table can't be read.
    pub fn alerts(&self) -> Result<Vec<(fl_alert_key, fl_alert)>> {
        let what = "failed to read the alerts";
        let alerts = self.object.map("fl_alerts")?;
        let mut all = Vec::new();
        for key in alerts.keys() {
            if let Some(value) = alerts.lookup(&key, MapFlags::ANY).context(what)? {
                all.push(alert_from_bytes(&key, &value).ok_or_else(|| anyhow!("{what}: an entry of another size"))?);
            }
        }
        Ok(all)
    }
}

impl Probe {
    /// Takes the entry of a process that has ended out of the table.
    ///
    /// # Errors
    /// Where the table can't be written.
    pub fn forget_alert(&self, key: &fl_alert_key) -> Result<()> {
        self.object.map("fl_alerts")?.delete(&alert_key_bytes(key)).context("failed to forget an alert")
    }
}

fn load(plan: &Plan, build: Build, hooks: Hooks) -> Result<(Loaded, bool)> {
    let bytes = match build {
        Build::Plain => PLAIN,
        Build::Typed => TYPED,
    };
    let mut object = Opened::open(bytes, build, plan.btf.as_deref())?;
    let late_exit = object.exits_with_memory();
    let config = fl_config {
        show_all: u8::from(plan.show_all),
        follow: u8::from(plan.follow || plan.filter.command),
        pages: u8::from(plan.pages),
        watch_all: u8::from(plan.watch_all),
        late_exit: u8::from(late_exit),
        headers: u8::from(plan.headers),
        older: u8::from(!plan.filter.command),
        ..fl_config::default()
    };
    object.configure("fl_config", &config)?;
    object.configure("fl_filter_config", &plan.filter.config()?)?;
    // Nothing is loaded, and no table kept, that was not asked for.
    object.autoload("fl_syscall", hooks == Hooks::Calls)?;
    object.autoload("fl_raw_syscall", hooks == Hooks::AllCalls)?;
    object.autoload("fl_lock", hooks == Hooks::Calls && !plan.watch_all)?;
    object.autoload("fl_call_begins", hooks == Hooks::Kprobes && !plan.watch_all)?;
    object.autoload("fl_call_expected", hooks == Hooks::Kprobes && !plan.watch_all)?;
    object.autoload("fl_call_ends", hooks == Hooks::Kprobes)?;
    object.autoload("fl_signal", !plan.watch_all && !late_exit)?;
    for program in ["fl_exec", "fl_exit", "fl_fork", "fl_fetch"] {
        object.autoload(program, !plan.watch_all)?;
    }
    if plan.watch_all {
        object.resize("fl_processes", 1)?;
        object.resize("fl_calls", 1)?;
    } else {
        object.resize("fl_alerts", 1)?;
    }
    if !plan.filter.command {
        object.resize("fl_descendants", 1)?;
    }
    object.resize("fl_ring", if plan.pages { RING_BYTES } else { SMALL_RING_BYTES })?;
    object.resize("fl_pids", plan.filter.pids.len())?;
    let loaded = object.load()?;
    plan.filter.apply(&loaded.map("fl_pids")?, &loaded.map("fl_cgroups")?)?;
    Ok((loaded, late_exit))
}

/// The ways to try, best first.
fn ways(attach: Attach, typed_loads: bool, kprobes: bool) -> Vec<(Build, Hooks)> {
    let hooks = match attach {
        Attach::Tracepoint => vec![Hooks::Calls, Hooks::AllCalls],
        Attach::Raw => vec![Hooks::AllCalls],
        Attach::Kprobe => vec![Hooks::Kprobes],
        Attach::Auto if kprobes => vec![Hooks::Calls, Hooks::Kprobes, Hooks::AllCalls],
        Attach::Auto => vec![Hooks::Calls, Hooks::AllCalls],
    };
    let build = |hooks| match hooks {
        // What lockdown forbids, kprobes are forbidden as well.
        Hooks::Kprobes => vec![(Build::Plain, hooks)],
        _ if typed_loads => vec![(Build::Typed, hooks), (Build::Plain, hooks)],
        _ => vec![(Build::Plain, hooks)],
    };
    hooks.into_iter().flat_map(build).collect()
}

/// One number for each line of `enum fl_counter`, since the start, and the kernel's own.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Counters {
    /// Records of calls and mappings handed to user space.
    pub calls: u64,
    /// Pages handed to user space.
    pub pages: u64,
    /// Where the whole machine is watched: calls that made anonymous memory executable.
    pub alerts: u64,
    /// What the kernel programs could not tell.
    pub losses: Losses,
}

impl Counters {
    fn read(table: &'static [Loss], map: &impl MapCore) -> Result<Self> {
        let sum = |which: fl_counter| counters::sum(map, which.0);
        let ends_missed = sum(fl_counter::FL_KPROBE_CALLS)?.saturating_sub(sum(fl_counter::FL_KPROBE_RETURNS)?);
        Ok(Self {
            calls: sum(fl_counter::FL_CALLS)?,
            pages: sum(fl_counter::FL_PAGES)?,
            alerts: sum(fl_counter::FL_ALERTS)?,
            losses: Losses::read(table, map)?.with(RUNS_MISSED, ends_missed),
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn single_calls_come_before_all_calls_and_kprobes_only_where_there_are_any() {
        let hooks =
            |attach, kprobes| ways(attach, false, kprobes).into_iter().map(|(_, hooks)| hooks).collect::<Vec<_>>();
        assert_eq!(hooks(Attach::Auto, true), [Hooks::Calls, Hooks::Kprobes, Hooks::AllCalls]);
        assert_eq!(hooks(Attach::Auto, false), [Hooks::Calls, Hooks::AllCalls]);
        assert_eq!(hooks(Attach::Tracepoint, true), [Hooks::Calls, Hooks::AllCalls]);
        assert_eq!(hooks(Attach::Kprobe, false), [Hooks::Kprobes]);
    }

    #[test]
    fn typed_loads_are_preferred_but_not_with_kprobes() {
        assert_eq!(ways(Attach::Kprobe, true, true), [(Build::Plain, Hooks::Kprobes)]);
        assert_eq!(ways(Attach::Tracepoint, true, true)[0], (Build::Typed, Hooks::Calls));
    }
}
