//! The signal probe: `bpf/signal.bpf.c` opened, configured, loaded and attached.

use std::collections::HashMap;
use std::path::PathBuf;

use anyhow::{Context, Result, anyhow, bail};
use libbpf_rs::{Link, MapCore as _, MapFlags};
use serde::Serialize;

use super::abi::Plain as _;
use super::abi::signal::{fl_config, fl_counter, fl_near_pair, fl_pair, fl_pair_count, fl_who};
use super::losses::{self, FORKS_MISSED, RUNS_MISSED};
use super::object::{Build, Loaded, Opened, builds, follows};
use super::{Filter, Losses, Ring, load};
use crate::host;

/// How to hook the kernel.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Attach {
    /// The best that works.
    #[default]
    Auto,
    /// The tracepoint signal_generate, and nothing else.
    Tracepoint,
    /// A kprobe on the function that queues a signal: no result, no POSIX timers.
    Kprobe,
    /// The system calls that send: what they were given, and nothing that the kernel sends.
    Syscall,
}

/// FL_NEAR_PAIRS_MAX: the rows that are found without a hash table.
const NEAR_PAIRS: u32 = 64;

/// Whom `--from` or `--to` means.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Who {
    /// A process, as who typed it sees it.
    Pid(u32),
    /// Processes whose name contains this.
    Name(String),
}

/// What the kernel program is to do.
#[derive(Clone, Debug)]
pub struct Plan {
    /// Which tasks: the target or the sender must be one of them.
    pub filter: Filter,
    /// Which signals, 1 to 64.
    pub signals: Vec<u32>,
    /// The sender must be one of these; empty: anybody.
    pub from: Vec<Who>,
    /// The target must be one of these; empty: anybody.
    pub to: Vec<Who>,
    /// Forks, execs and exits, too.
    pub processes: bool,
    /// Send a record of each event.
    pub records: bool,
    /// Count by pair, with room for so many; None: count only in all.
    pub pairs: Option<u32>,
    /// How to hook the kernel.
    pub attach: Attach,
    /// Types of the kernel, where it doesn't show them itself.
    pub btf: Option<PathBuf>,
    /// Print libbpf's own messages.
    pub verbose: bool,
}

/// A row of the table of pairs.
#[derive(Clone, Debug)]
pub struct Pair {
    /// Who, what, and with which result.
    pub key: fl_pair,
    /// How often, since the start.
    pub count: u64,
    /// CLOCK_BOOTTIME, nanoseconds.
    pub first_ns: u64,
    /// CLOCK_BOOTTIME, nanoseconds.
    pub last_ns: u64,
}

/// [`fl_pair`] without its padding.
type PairKey = ([i8; 16], [i8; 16], u8, u8, u8);

/// Tasks that began, ran another program, and ended.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize)]
pub struct TaskCounters {
    /// New processes.
    pub forks: u64,
    /// New threads.
    pub threads: u64,
    /// Processes that ran another program.
    pub execs: u64,
    /// Processes that ended.
    pub exits: u64,
    /// Threads that ended and left others behind.
    pub thread_exits: u64,
}

impl TaskCounters {
    /// What has been added since `earlier`.
    pub fn since(&self, earlier: &Self) -> Self {
        Self {
            forks: self.forks - earlier.forks,
            threads: self.threads - earlier.threads,
            execs: self.execs - earlier.execs,
            exits: self.exits - earlier.exits,
            thread_exits: self.thread_exits - earlier.thread_exits,
        }
    }
}

/// What the kernel programs have counted, since the start.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Counters {
    /// Watched signals of watched tasks.
    pub signals: u64,
    /// Watched signals that the filters left out.
    pub filtered: u64,
    /// Forks, execs and exits of watched tasks.
    pub tasks: TaskCounters,
    /// Samples handed to user space.
    pub records: u64,
    /// What was not sent, not counted by pair, not watched or not seen.
    pub losses: Losses,
}

/// The object's two builds.
const PLAIN: &[u8] = include_bytes!(concat!(env!("OUT_DIR"), "/signal.plain.o"));
const TYPED: &[u8] = include_bytes!(concat!(env!("OUT_DIR"), "/signal.typed.o"));

/// SIGKILL: the only signal that a lack of memory sends.
const SIGKILL: u32 = 9;

/// Room for bursts: who watches all signals of a busy machine.
const RING_BYTES: usize = 2 << 20;

/// The attached probe. Dropping it detaches every program.
pub struct Probe {
    object: Loaded,
    build: Build,
    links: Vec<Link>,
    attached: Vec<&'static str>,
    /// Forks and exits are asked for, and not only followed.
    tells_tasks: bool,
}

impl Probe {
    /// Loads the programs and attaches each by itself. `auto` falls back where signal_generate can't be used.
    ///
    /// # Errors
    /// Missing privileges, a kernel without BTF, a verifier that refuses, a hook that isn't there: one line with the cure
    /// where there is one.
    pub fn start(plan: &Plan) -> Result<Self> {
        load::prepare(plan.verbose);
        let mut refusal = None;
        for &hook in hooks(plan.attach, host::has_kprobe_pmu())? {
            // What lockdown forbids, kprobes are forbidden as well.
            let builds = if hook == Attach::Kprobe { &[Build::Plain] } else { builds(plan.btf.as_deref()) };
            for &build in builds {
                match Self::attempt(plan, build, hook) {
                    Ok(probe) => return Ok(probe),
                    // What the best way was refused for is what the user can do something about.
                    Err(why) => refusal = refusal.or(Some(why)),
                }
            }
        }
        Err(refusal.unwrap_or_else(|| anyhow!("failed to attach: there is no way to")))
    }

    fn attempt(plan: &Plan, build: Build, hook: Attach) -> Result<Self> {
        let object = Self::load(plan, build, hook)?;
        let tells_tasks = plan.processes;
        let mut probe = Self { object, build, links: Vec::new(), attached: Vec::new(), tells_tasks };
        probe.attach(plan, hook)?;
        Ok(probe)
    }

    fn load(plan: &Plan, build: Build, hook: Attach) -> Result<Loaded> {
        let bytes = match build {
            Build::Plain => PLAIN,
            Build::Typed => TYPED,
        };
        let mut object = Opened::open(bytes, build, plan.btf.as_deref())?;
        object.configure("fl_config", &config(plan)?)?;
        object.configure("fl_filter_config", &plan.filter.config()?)?;
        // Nothing is loaded, and no table kept, that was not asked for.
        let watches_tasks = plan.processes || plan.filter.command;
        object.autoload("fl_generate", hook == Attach::Tracepoint)?;
        object.autoload("fl_send", hook == Attach::Kprobe)?;
        object.autoload("fl_call", hook == Attach::Syscall)?;
        object.autoload("fl_mark_victim", names_victims(plan, hook))?;
        object.autoload("fl_fork", watches_tasks)?;
        object.autoload("fl_exec", plan.processes)?;
        object.autoload("fl_exit", watches_tasks)?;
        if !plan.filter.command {
            object.resize("fl_descendants", 1)?;
        }
        object.resize("fl_pids", plan.filter.pids.len())?;
        object.resize("fl_pairs", plan.pairs.unwrap_or(1) as usize)?;
        if !has_near_pairs(plan) {
            object.resize("fl_near_pairs", 1)?;
        }
        if plan.records {
            object.resize("fl_ring", RING_BYTES)?;
        }
        let loaded = object.load()?;
        plan.filter.apply(&loaded.map("fl_pids")?, &loaded.map("fl_cgroups")?)?;
        Ok(loaded)
    }

    fn attach(&mut self, plan: &Plan, hook: Attach) -> Result<()> {
        let object = &self.object;
        let raw = |program: &str, tracepoint: &str| {
            let what = format!("attach to raw tracepoint `{tracepoint}`");
            load::step(&what, object.program(program)?.attach_raw_tracepoint(tracepoint))
        };
        let kprobe = |function: &str| {
            let what = format!("attach to kernel function `{function}`");
            load::step(&what, object.program("fl_send")?.attach_kprobe(false, function))
        };
        match hook {
            Attach::Kprobe => {
                // One function by two names: v5.19 renamed it.
                let (link, name) = match kprobe("__send_signal_locked") {
                    Ok(link) => (link, "kprobe/__send_signal_locked"),
                    Err(_) => (kprobe("__send_signal")?, "kprobe/__send_signal"),
                };
                self.links.push(link);
                self.attached.push(name);
            }
            Attach::Syscall => {
                self.links.push(raw("fl_call", "sys_enter")?);
                self.attached.push("raw_tp/sys_enter");
            }
            Attach::Auto | Attach::Tracepoint => {
                self.links.push(raw("fl_generate", "signal_generate")?);
                self.attached.push("raw_tp/signal_generate");
            }
        }
        if names_victims(plan, hook) {
            // Something is gained by it, and nothing that was asked for is lost without it.
            self.links.extend(raw("fl_mark_victim", "mark_victim").ok());
        }
        if plan.processes || plan.filter.command {
            // The exit first: a process must not be remembered that nobody forgets.
            self.links.push(raw("fl_exit", "sched_process_exit")?);
            self.links.push(raw("fl_fork", "sched_process_fork")?);
        }
        if plan.processes {
            self.links.push(raw("fl_exec", "sched_process_exec")?);
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

    /// The samples, each handed to `take` as bytes ([`super::abi::signal::Sample::from_bytes`]).
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
        let map = self.object.map("fl_counters")?;
        let sum = |which: fl_counter| super::counters::sum(&map, which.0);
        let mut losses = Losses::read(&losses::SIGNAL, &map)?;
        losses.add(RUNS_MISSED, self.object.runs_missed(|program| self.tells_tasks || !follows(program)));
        if !self.tells_tasks {
            losses.add(FORKS_MISSED, self.object.forks_missed());
        }
        Ok(Counters {
            signals: sum(fl_counter::FL_SIGNALS)?,
            filtered: sum(fl_counter::FL_FILTERED)?,
            tasks: TaskCounters {
                forks: sum(fl_counter::FL_FORKS)?,
                threads: sum(fl_counter::FL_THREADS)?,
                execs: sum(fl_counter::FL_EXECS)?,
                exits: sum(fl_counter::FL_EXITS)?,
                thread_exits: sum(fl_counter::FL_THREAD_EXITS)?,
            },
            records: sum(fl_counter::FL_RECORDS)?,
            losses,
        })
    }

    /// Who sent what to whom, how often, since the start.
    ///
    /// # Errors
    /// Where the map can't be read.
    pub fn pairs(&self) -> Result<Vec<Pair>> {
        let what = "failed to read the table of pairs";
        let mut pairs = HashMap::new();
        // What one processor has here, another may have in the other table.
        let near = self.object.map("fl_near_pairs")?;
        for slot in 0..near.max_entries() {
            let cpus = near.lookup_percpu(&slot.to_ne_bytes(), MapFlags::ANY).context(what)?.unwrap_or_default();
            for row in cpus.iter().filter_map(|cpu| fl_near_pair::read(cpu)).filter(|row| row.counts.count != 0) {
                add(&mut pairs, &row.key, &row.counts);
            }
        }
        let map = self.object.map("fl_pairs")?;
        for bytes in map.keys() {
            let key = fl_pair::read(&bytes).with_context(|| format!("{what}: a key of another size"))?;
            let cpus = map.lookup_percpu(&bytes, MapFlags::ANY).context(what)?.unwrap_or_default();
            for counts in cpus.iter().filter_map(|cpu| fl_pair_count::read(cpu)) {
                add(&mut pairs, &key, &counts);
            }
        }
        Ok(pairs.into_values().collect())
    }
}

/// Not where fewer pairs are allowed than they have room for.
fn has_near_pairs(plan: &Plan) -> bool {
    plan.pairs.is_some_and(|pairs| pairs >= NEAR_PAIRS)
}

/// Adds what one processor has counted.
fn add(pairs: &mut HashMap<PairKey, Pair>, key: &fl_pair, counts: &fl_pair_count) {
    let names = (key.sender, key.target, key.signal, key.result, key.has_sender);
    let pair = pairs.entry(names).or_insert(Pair { key: *key, count: 0, first_ns: 0, last_ns: 0 });
    pair.count += counts.count;
    pair.last_ns = pair.last_ns.max(counts.last_ns);
    pair.first_ns = match (pair.first_ns, counts.first_ns) {
        (0, first) | (first, 0) => first,
        (one, other) => one.min(other),
    };
}

/// The hooks to try, best first.
fn hooks(attach: Attach, kprobes: bool) -> Result<&'static [Attach]> {
    Ok(match attach {
        Attach::Auto if kprobes => &[Attach::Tracepoint, Attach::Kprobe, Attach::Syscall],
        Attach::Auto => &[Attach::Tracepoint, Attach::Syscall],
        Attach::Tracepoint => &[Attach::Tracepoint],
        Attach::Kprobe if !kprobes => {
            bail!("failed to attach kprobes: this kernel has none (CONFIG_KPROBES), use --attach tracepoint")
        }
        Attach::Kprobe => &[Attach::Kprobe],
        Attach::Syscall => &[Attach::Syscall],
    })
}

/// Can the kernel kill for a lack of memory what is watched?
fn names_victims(plan: &Plan, hook: Attach) -> bool {
    plan.records && plan.signals.contains(&SIGKILL) && hook != Attach::Syscall
}

fn config(plan: &Plan) -> Result<fl_config> {
    let mut config = fl_config {
        signals: plan.signals.iter().fold(0, |bits, signal| bits | 1 << (signal - 1)),
        cgroup: plan.filter.cgroup_id()?.unwrap_or(0),
        pairs: u8::from(plan.pairs.is_some()),
        records: u8::from(plan.records),
        processes: u8::from(plan.processes),
        near_pairs: u8::from(has_near_pairs(plan)),
        ..fl_config::default()
    };
    config.from_count = place("--from", &mut config.from, &plan.from)?;
    config.to_count = place("--to", &mut config.to, &plan.to)?;
    Ok(config)
}

/// Writes whom a flag means where the kernel program reads it; returns how many they are.
fn place(flag: &str, slots: &mut [fl_who], whom: &[Who]) -> Result<u32> {
    if whom.len() > slots.len() {
        bail!("failed to filter by {flag}: {} of them at most", slots.len());
    }
    for (slot, who) in slots.iter_mut().zip(whom) {
        match who {
            Who::Pid(pid) => slot.pid = *pid,
            Who::Name(name) => {
                // One byte is the NUL's.
                let room = slot.name.len() - 1;
                if name.is_empty() || name.len() > room {
                    bail!("failed to filter by {flag} `{name}`: give a PID, or 1 to {room} bytes of a process's name");
                }
                slot.length = name.len() as u32;
                for (to, from) in slot.name.iter_mut().zip(name.bytes()) {
                    *to = from as _;
                }
            }
        }
    }
    Ok(whom.len() as u32)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn auto_goes_from_the_best_to_what_is_always_there() {
        assert_eq!(hooks(Attach::Auto, true).unwrap(), [Attach::Tracepoint, Attach::Kprobe, Attach::Syscall]);
        assert_eq!(hooks(Attach::Auto, false).unwrap(), [Attach::Tracepoint, Attach::Syscall]);
        assert!(hooks(Attach::Kprobe, false).is_err());
    }

    #[test]
    fn whom_is_checked() {
        let mut slots = [fl_who::default(); 2];
        assert_eq!(place("--to", &mut slots, &[Who::Pid(7), Who::Name("sh".to_owned())]).unwrap(), 2);
        assert_eq!((slots[0].pid, slots[1].pid, slots[1].length), (7, 0, 2));
        for wrong in [vec![Who::Name(String::new())], vec![Who::Name("x".repeat(16))], vec![Who::Pid(1); 3]] {
            assert!(place("--to", &mut slots, &wrong).is_err(), "{wrong:?}");
        }
    }
}
