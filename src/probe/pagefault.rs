//! The page fault probe: `bpf/pagefault.bpf.c` opened, configured, loaded and attached.

use std::collections::HashMap;
use std::path::PathBuf;
use std::time::Duration;

use anyhow::{Context, Result, anyhow, bail};
use libbpf_rs::libbpf_sys::{PERF_COUNT_SW_PAGE_FAULTS, PERF_COUNT_SW_PAGE_FAULTS_MAJ};
use libbpf_rs::{Link, Map, MapCore, MapFlags};

use super::abi::Plain as _;
use super::abi::pagefault::{
    fl_config, fl_counter, fl_fault_by, fl_fault_hook, fl_fault_key, fl_fault_process, fl_stack_frames, fl_stack_place,
    key_from_bytes,
};
use super::losses::{self, FORKS_MISSED, RUNS_MISSED};
use super::object::{Build, Loaded, Opened, follows, has_typed_loads};
use super::{Filter, Losses, Ring, counters, load, perf};
use crate::host;

/// How to hook the kernel.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Attach {
    /// The best that works.
    #[default]
    Auto,
    /// The tracepoints page_fault_user and page_fault_kernel.
    Tracepoint,
    /// A kprobe on handle_mm_fault().
    Kprobe,
    /// The perf software event.
    Perf,
}

/// What faults are counted by, beside process, mode and error code.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum By {
    /// Nothing else.
    #[default]
    Process,
    /// The page that was accessed.
    Address,
    /// The instruction that accessed it.
    Instruction,
    /// The mapping.
    Vma,
    /// The file that is mapped there.
    File,
    /// The user's stack.
    Stack,
}

impl By {
    fn number(self) -> fl_fault_by {
        match self {
            Self::Process => fl_fault_by::FL_BY_PROCESS,
            Self::Address => fl_fault_by::FL_BY_ADDRESS,
            Self::Instruction => fl_fault_by::FL_BY_INSTRUCTION,
            Self::Vma => fl_fault_by::FL_BY_VMA,
            Self::File => fl_fault_by::FL_BY_FILE,
            Self::Stack => fl_fault_by::FL_BY_STACK,
        }
    }
}

/// Which single faults get a record.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Events {
    /// Every so many of each processor, 1 and more.
    pub each: u32,
    /// So many a second; None: no limit.
    pub rate: Option<u32>,
}

/// What the kernel programs are to do.
#[derive(Clone, Debug)]
pub struct Plan {
    /// Which tasks.
    pub filter: Filter,
    /// What to count by.
    pub by: By,
    /// Look up what kind of memory the address is in.
    pub classes: bool,
    /// Faults in user mode.
    pub user: bool,
    /// Faults in kernel mode.
    pub kernel: bool,
    /// How many frames to walk for [`By::Stack`].
    pub frames: u32,
    /// Room for so many keys in one interval.
    pub keys: u32,
    /// Room for so many stacks that were not read yet.
    pub stacks: u32,
    /// Records of single faults; None: none.
    pub events: Option<Events>,
    /// How to hook the kernel.
    pub attach: Attach,
    /// Types of the kernel, where it doesn't show them itself.
    pub btf: Option<PathBuf>,
    /// Print libbpf's own messages.
    pub verbose: bool,
}

/// How the kernel is hooked.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Hook {
    /// The tracepoints: everything is known.
    Tracepoint,
    /// handle_mm_fault(): no error code, only the access.
    Kprobe,
    /// The perf software event: neither.
    Perf,
}

/// The object's two builds.
const PLAIN: &[u8] = include_bytes!(concat!(env!("OUT_DIR"), "/pagefault.plain.o"));
const TYPED: &[u8] = include_bytes!(concat!(env!("OUT_DIR"), "/pagefault.typed.o"));

/// The ring where mappings only go through it, and where single faults do.
const RING_BYTES: usize = 256 << 10;
const EVENT_RING_BYTES: usize = 4 << 20;

/// FL_PROCESS_KEY_BYTES: as much of a key as there is without a place.
const PROCESS_KEY_BYTES: u32 = std::mem::offset_of!(fl_fault_key, device) as u32;

/// The attached probe. Dropping it detaches every program.
pub struct Probe {
    object: Loaded,
    build: Build,
    hook: Hook,
    has_majors: bool,
    links: Vec<Link>,
    attached: Vec<&'static str>,
    epoch: u32,
    /// Does the kernel count what it keeps from these programs, and nothing else with it?
    tells_missed: bool,
}

/// What was counted in one epoch.
#[derive(Debug, Default)]
pub struct Counts {
    /// Faults by key.
    pub faults: Vec<(fl_fault_key, u64)>,
    /// Major ones among them, or among those of the epoch before.
    pub majors: Vec<(fl_fault_key, u64)>,
}

impl Probe {
    /// Loads the programs and attaches each by itself. `auto` falls back where the tracepoints can't be used.
    ///
    /// # Errors
    /// Missing privileges, a kernel without BTF, a verifier that refuses, a hook that isn't there: one line with the cure
    /// where there is one.
    pub fn start(plan: &Plan) -> Result<Self> {
        load::prepare(plan.verbose);
        let mut refusal = None;
        for (build, hook) in ways(plan.attach, plan.btf.is_none() && has_typed_loads(), host::has_kprobe_pmu()) {
            // What tells major faults is refused under some settings, and nothing else is lost without it.
            for majors in [true, false] {
                match Self::attempt(plan, build, hook, majors) {
                    Ok(probe) => return Ok(probe),
                    // What the best way was refused for is what the user can do something about.
                    Err(why) => refusal = refusal.or(Some(why)),
                }
            }
        }
        Err(refusal.unwrap_or_else(|| anyhow!("failed to attach: there is no way to")))
    }

    fn attempt(plan: &Plan, build: Build, hook: Hook, has_majors: bool) -> Result<Self> {
        let object = load(plan, build, hook, has_majors)?;
        // It doesn't count for perf events; and our own reading of a stack faults, which it keeps from us as well.
        let tells_missed = hook != Hook::Perf && plan.by != By::Stack;
        let (links, attached) = (Vec::new(), Vec::new());
        let mut probe = Self { object, build, hook, has_majors, links, attached, epoch: 0, tells_missed };
        probe.attach(plan)?;
        Ok(probe)
    }

    fn attach(&mut self, plan: &Plan) -> Result<()> {
        let object = &self.object;
        let raw = |program: &str, tracepoint: &str| {
            let what = format!("attach to raw tracepoint `{tracepoint}`");
            load::step(&what, object.program(program)?.attach_raw_tracepoint(tracepoint))
        };
        let kprobe = |program: &str, is_return: bool| {
            let what = "attach to kernel function `handle_mm_fault`";
            load::step(what, object.program(program)?.attach_kprobe(is_return, "handle_mm_fault"))
        };
        let mut links = Vec::new();
        if plan.filter.command {
            // The exit first: a process must not be remembered that nobody forgets.
            links.push(raw("fl_exit", "sched_process_exit")?);
            links.push(raw("fl_fork", "sched_process_fork")?);
        }
        if self.has_majors {
            let program = object.program("fl_major")?;
            links.extend(perf::attach_software_event(&program, PERF_COUNT_SW_PAGE_FAULTS_MAJ, "major-faults")?);
        }
        match self.hook {
            Hook::Tracepoint => {
                if plan.user {
                    links.push(raw("fl_user", "page_fault_user")?);
                    self.attached.push("raw_tp/page_fault_user");
                }
                if plan.kernel {
                    links.push(raw("fl_kernel", "page_fault_kernel")?);
                    self.attached.push("raw_tp/page_fault_kernel");
                }
            }
            Hook::Kprobe => {
                if !host::has_kprobe_pmu() {
                    bail!("failed to attach kprobes: this kernel has none (CONFIG_KPROBES), use --attach tracepoint");
                }
                links.push(kprobe("fl_handled", true)?);
                links.push(kprobe("fl_handle", false)?);
                self.attached.push("kprobe/handle_mm_fault");
            }
            Hook::Perf => {
                let program = object.program("fl_soft")?;
                links.extend(perf::attach_software_event(&program, PERF_COUNT_SW_PAGE_FAULTS, "page-faults")?);
                self.attached.push("perf/page-faults");
            }
        }
        self.links = links;
        Ok(())
    }

    /// How the programs read kernel memory.
    pub fn build(&self) -> Build {
        self.build
    }

    /// How the kernel is hooked.
    pub fn hook(&self) -> Hook {
        self.hook
    }

    /// Are major faults told from minor ones?
    pub fn tells_majors(&self) -> bool {
        self.has_majors
    }

    /// The hooks in use, for the line that says so.
    pub fn attached(&self) -> &[&'static str] {
        &self.attached
    }

    /// The samples, each handed to `take` as bytes ([`super::abi::pagefault::Sample::from_bytes`]).
    ///
    /// # Errors
    /// Where the ring can't be mapped.
    pub fn ring(&self, take: impl FnMut(&[u8]) + 'static) -> Result<Ring<'static>> {
        Ring::new(&self.object.map("fl_ring")?, take)
    }

    /// Detaches everything: what is counted now stays as it is.
    pub fn detach(&mut self) {
        self.links.clear();
    }

    /// What was counted since the last call, and out of the table with it: nothing is lost or counted twice.
    ///
    /// # Errors
    /// Where a table can't be read.
    pub fn drain(&mut self) -> Result<Counts> {
        let (old, new) = (self.epoch, self.epoch ^ 1);
        let epochs = self.object.map("fl_epochs")?;
        let what = "failed to begin a new epoch";
        epochs.update(&0u32.to_ne_bytes(), &new.to_ne_bytes(), MapFlags::ANY).context(what)?;
        self.epoch = new;
        await_programs();
        let sum = |map: &Map<'_>, key: &[u8]| -> Result<u64> {
            let values = map.lookup_percpu(key, MapFlags::ANY)?.unwrap_or_default();
            Ok(values.iter().filter_map(|value| number(value)).sum())
        };
        let one = |map: &Map<'_>, key: &[u8]| -> Result<u64> {
            Ok(map.lookup(key, MapFlags::ANY)?.as_deref().and_then(number).unwrap_or(0))
        };
        Ok(Counts {
            faults: take(&self.object.map("fl_faults")?, old, sum).context("failed to read the faults")?,
            majors: take(&self.object.map("fl_majors")?, old, one).context("failed to read the major faults")?,
        })
    }

    /// The name and relations of a process that had faults lately; None: forgotten.
    ///
    /// # Errors
    /// Where the table can't be read.
    pub fn process(&self, tgid: u32) -> Result<Option<fl_fault_process>> {
        let what = "failed to read the name of a process";
        let value = self.object.map("fl_processes")?.lookup(&tgid.to_ne_bytes(), MapFlags::ANY).context(what)?;
        Ok(value.as_deref().and_then(fl_fault_process::read))
    }

    /// The stacks of these hashes ([`By::Stack`]), innermost frame first, and out of the table with them. Those that were
    /// lost are not among them.
    ///
    /// # Errors
    /// Where a table can't be read.
    pub fn take_stacks(&self, hashes: &[u64]) -> Result<HashMap<u64, Vec<u64>>> {
        let what = "failed to read a stack";
        let (ids, stacks) = (self.object.map("fl_stack_ids")?, self.object.map("fl_stacks")?);
        let (mut read, mut used) = (HashMap::new(), Vec::new());
        for &hash in hashes {
            let place = ids.lookup(&hash.to_ne_bytes(), MapFlags::ANY).context(what)?;
            let Some(place) = place.as_deref().and_then(fl_stack_place::read) else { continue };
            let mut frames = Vec::new();
            if place.frames != fl_stack_frames::FL_STACK_WHOLE {
                frames.push(place.innermost);
            }
            if place.frames != fl_stack_frames::FL_STACK_INNERMOST {
                let bucket = place.id.to_ne_bytes();
                let Some(value) = stacks.lookup(&bucket, MapFlags::ANY).context(what)? else { continue };
                frames.extend(value.chunks_exact(8).filter_map(number).take_while(|address| *address != 0));
                used.push(bucket);
            }
            frames.truncate(place.count as usize);
            read.insert(hash, frames);
        }
        for bucket in used {
            // Two hashes may have had one: the second time it is gone.
            let _ = stacks.delete(&bucket);
        }
        Ok(read)
    }

    /// What has been counted since the start.
    ///
    /// # Errors
    /// Where the map can't be read.
    pub fn counters(&self) -> Result<Counters> {
        let mut counters = Counters::read(&self.object.map("fl_counters")?)?;
        counters.losses.add(FORKS_MISSED, self.object.forks_missed());
        if self.tells_missed {
            counters.losses.add(RUNS_MISSED, self.object.runs_missed(|program| !follows(program)));
        } else {
            counters.losses = counters.losses.without(RUNS_MISSED);
        }
        Ok(counters)
    }
}

fn load(plan: &Plan, build: Build, hook: Hook, majors: bool) -> Result<Loaded> {
    let bytes = match build {
        Build::Plain => PLAIN,
        Build::Typed => TYPED,
    };
    let mut object = Opened::open(bytes, build, plan.btf.as_deref())?;
    let config = fl_config {
        by: plan.by.number(),
        hook: match hook {
            Hook::Tracepoint => fl_fault_hook::FL_HOOK_TRACEPOINT,
            Hook::Kprobe => fl_fault_hook::FL_HOOK_KPROBE,
            Hook::Perf => fl_fault_hook::FL_HOOK_PERF,
        },
        frames: plan.frames,
        event_each: plan.events.map_or(0, |events| events.each),
        event_rate: plan.events.and_then(|events| events.rate).unwrap_or(0),
        classes: u8::from(plan.classes || matches!(plan.by, By::Vma | By::File)),
        majors: u8::from(majors),
        modes: u8::from(plan.user) | u8::from(plan.kernel) << 1,
        ..fl_config::default()
    };
    object.configure("fl_config", &config)?;
    object.configure("fl_filter_config", &plan.filter.config()?)?;
    // Nothing is loaded, and no table kept, that was not asked for.
    object.autoload("fl_user", hook == Hook::Tracepoint && plan.user)?;
    object.autoload("fl_kernel", hook == Hook::Tracepoint && plan.kernel)?;
    object.autoload("fl_handle", hook == Hook::Kprobe)?;
    object.autoload("fl_handled", hook == Hook::Kprobe)?;
    object.autoload("fl_soft", hook == Hook::Perf)?;
    object.autoload("fl_major", majors)?;
    object.autoload("fl_fork", plan.filter.command)?;
    object.autoload("fl_exit", plan.filter.command)?;
    if plan.by == By::Process {
        // A short key is hashed in half the time.
        object.set_key_size("fl_faults", PROCESS_KEY_BYTES)?;
        object.set_key_size("fl_majors", PROCESS_KEY_BYTES)?;
    }
    let keys = plan.keys as usize;
    object.resize("fl_faults", keys)?;
    object.resize("fl_majors", if majors { keys } else { 1 })?;
    let stacks = if plan.by == By::Stack { plan.stacks as usize } else { 1 };
    object.resize("fl_stack_ids", stacks)?;
    // In a table four times as large few stacks find their bucket taken.
    object.resize("fl_stacks", (stacks * 4).next_power_of_two())?;
    if !plan.filter.command {
        object.resize("fl_descendants", 1)?;
    }
    if matches!(plan.by, By::Process | By::Address) && plan.events.is_none() {
        object.resize("fl_told_mappings", 1)?;
    }
    object.resize("fl_ring", if plan.events.is_some() { EVENT_RING_BYTES } else { RING_BYTES })?;
    object.resize("fl_pids", plan.filter.pids.len())?;
    let loaded = object.load()?;
    plan.filter.apply(&loaded.map("fl_pids")?, &loaded.map("fl_cgroups")?)?;
    Ok(loaded)
}

/// The ways to try, best first.
fn ways(attach: Attach, typed_loads: bool, kprobes: bool) -> Vec<(Build, Hook)> {
    let hooks = match attach {
        Attach::Tracepoint => vec![Hook::Tracepoint],
        Attach::Kprobe => vec![Hook::Kprobe],
        Attach::Perf => vec![Hook::Perf],
        Attach::Auto if kprobes => vec![Hook::Tracepoint, Hook::Kprobe, Hook::Perf],
        Attach::Auto => vec![Hook::Tracepoint, Hook::Perf],
    };
    let build = |hook| match hook {
        Hook::Tracepoint | Hook::Perf if typed_loads => vec![(Build::Typed, hook), (Build::Plain, hook)],
        // What lockdown forbids, kprobes are forbidden as well.
        _ => vec![(Build::Plain, hook)],
    };
    hooks.into_iter().flat_map(build).collect()
}

/// Waits until every program that runs now has ended: they run as readers of RCU, and this is what the kernel waits for.
fn await_programs() {
    const MEMBARRIER_CMD_GLOBAL: libc::c_int = 1;
    // SAFETY: it takes no pointer.
    let result = unsafe { libc::syscall(libc::SYS_membarrier, MEMBARRIER_CMD_GLOBAL, 0, 0) };
    if result != 0 {
        // Refused with CONFIG_NO_HZ_FULL: no program runs that long.
        std::thread::sleep(Duration::from_millis(50));
    }
}

/// The entries of this epoch, and out of `map` with them.
fn take(map: &Map<'_>, epoch: u32, read: impl Fn(&Map<'_>, &[u8]) -> Result<u64>) -> Result<Vec<(fl_fault_key, u64)>> {
    // Entries of the other epoch come meanwhile, at the begin of their chains: none of ours is passed over.
    let old = map.keys().filter_map(|bytes| {
        let key = key_from_bytes(&bytes)?;
        (u32::from(key.epoch) == epoch).then_some((key, bytes))
    });
    let old: Vec<(fl_fault_key, Vec<u8>)> = old.collect();
    let mut taken = Vec::with_capacity(old.len());
    for (key, bytes) in old {
        taken.push((key, read(map, &bytes)?));
        map.delete(&bytes)?;
    }
    Ok(taken)
}

fn number(bytes: &[u8]) -> Option<u64> {
    Some(u64::from_ne_bytes(bytes.get(..8)?.try_into().ok()?))
}

/// One number for each line of `enum fl_counter`, since the start.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Counters {
    /// Faults that the filters left out.
    pub filtered: u64,
    /// Major faults.
    pub major: u64,
    /// Single faults handed to user space.
    pub events: u64,
    /// What found no place in the table, was not told, not watched or not seen. What was not told is counted all the same.
    pub losses: Losses,
}

impl Counters {
    fn read(map: &impl MapCore) -> Result<Self> {
        let sum = |which: fl_counter| counters::sum(map, which.0);
        Ok(Self {
            filtered: sum(fl_counter::FL_FILTERED)?,
            major: sum(fl_counter::FL_MAJOR)?,
            events: sum(fl_counter::FL_EVENTS)?,
            losses: Losses::read(&losses::PAGEFAULT, map)?,
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_tracepoints_are_tried_first_and_perf_last() {
        let all = [
            (Build::Typed, Hook::Tracepoint),
            (Build::Plain, Hook::Tracepoint),
            (Build::Plain, Hook::Kprobe),
            (Build::Typed, Hook::Perf),
            (Build::Plain, Hook::Perf),
        ];
        assert_eq!(ways(Attach::Auto, true, true), all);
        assert_eq!(ways(Attach::Auto, false, false), [(Build::Plain, Hook::Tracepoint), (Build::Plain, Hook::Perf)]);
    }

    #[test]
    fn what_was_asked_for_is_all_that_is_tried() {
        assert_eq!(ways(Attach::Tracepoint, false, true), [(Build::Plain, Hook::Tracepoint)]);
        assert_eq!(ways(Attach::Kprobe, true, true), [(Build::Plain, Hook::Kprobe)]);
        assert_eq!(ways(Attach::Perf, false, true), [(Build::Plain, Hook::Perf)]);
    }
}
