//! The recorder of kernel calls: `bpf/call.bpf.c` opened, loaded, and attached to each function in the best way there is.

mod attach;
mod strategy;

use std::collections::BTreeMap;
use std::fmt;
use std::path::PathBuf;

use anyhow::{Context, Result, anyhow, bail};
use libbpf_rs::{Link, MapCore as _, MapFlags, num_possible_cpus};

pub use super::abi::call::{Sample, Task};
use super::abi::call::{fl_call, fl_config, fl_counter, fl_fetch, fl_function, fl_function_flag, fl_limit, fl_task};
use super::losses::{self, FORKS_MISSED, RUNS_MISSED};
use super::object::{Build, Loaded, Opened, builds};
use super::{Filter, Losses, Ring, counters, load};
use attach::{Hook, Patterns};

/// How to attach.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Attach {
    /// For each function the best that works.
    #[default]
    Auto,
    /// fentry and fexit only.
    Fentry,
    /// One kprobe.multi for all.
    KprobeMulti,
    /// A kprobe and a kretprobe for each.
    Kprobe,
    /// The tracepoints of system calls.
    Tracepoint,
}

/// How a function was attached in fact.
#[derive(Clone, Copy, Debug, PartialEq, Eq, serde::Serialize)]
#[serde(rename_all = "snake_case")]
pub enum How {
    /// fentry and fexit.
    Fentry,
    /// kprobe.multi and kretprobe.multi.
    KprobeMulti,
    /// kprobe and kretprobe.
    Kprobe,
    /// sys_enter_NAME and sys_exit_NAME.
    Tracepoint,
}

/// One way to see a function: what it is called there, and what to read of a call.
#[derive(Clone, Debug)]
pub struct Point {
    /// The kernel's symbol, `__x64_sys_munmap`, `do_truncate`; for a tracepoint the system call's name, `munmap`.
    pub symbol: String,
    /// The id of the function in the kernel's BTF, which fentry needs.
    pub btf_id: Option<u32>,
    /// Parameters that the function has (of the symbol, so 1 for a system call's wrapper), 6 at most that are read.
    pub parameters: u8,
    /// enum fl_function_flag.
    pub flags: u32,
    /// With FL_FUNCTION_ANYONE: only where this argument has one of these bits; None: always.
    pub anyone: Option<(u8, u64)>,
    /// What to read, in order.
    pub fetches: Vec<fl_fetch>,
}

/// One function that was asked for.
#[derive(Clone, Debug)]
pub struct Function {
    /// As a kernel function (fentry, kprobe.multi, kprobe); None: there is no such symbol.
    pub kernel: Option<Point>,
    /// As a system call's pair of tracepoints; None: it is no system call.
    pub syscall: Option<Point>,
    /// Returning this is a trigger.
    pub trigger: Option<i64>,
}

/// What the recorder is to do.
#[derive(Clone, Debug)]
pub struct Plan {
    /// Which tasks are recorded.
    pub filter: Filter,
    /// Which functions: the place is the number.
    pub functions: Vec<Function>,
    /// Calls kept of each task: a power of two, 4 to 64.
    pub calls: u32,
    /// Tasks kept.
    pub tasks: u32,
    /// Keep the kernel's stack of each call.
    pub kernel_stacks: bool,
    /// Hand on calls as they end, at most so many a second.
    pub live: Option<u32>,
    /// Signals whose delivery is a trigger.
    pub trigger_signals: Vec<u32>,
    /// How to attach.
    pub attach: Attach,
    /// The kernel's types, where it doesn't show them itself.
    pub btf: Option<PathBuf>,
    /// Print libbpf's own messages.
    pub verbose: bool,
}

/// What became of one function: in the order of [`Plan::functions`].
#[derive(Clone, Debug)]
pub struct Attached {
    /// How; None: not at all.
    pub how: Option<How>,
    /// What was tried before, or in vain, and why it failed.
    pub failures: Vec<(How, String)>,
}

/// What the kernel programs have counted, since the start.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Counters {
    /// Calls of tasks that are not watched.
    pub filtered: u64,
    /// Calls that were recorded.
    pub calls: u64,
    /// Of them, those that were seen to return.
    pub returns: u64,
    /// Tasks that were given room.
    pub tasks: u64,
    /// Triggers that fired.
    pub triggers: u64,
    /// Calls handed on as they ended.
    pub live: u64,
    /// What was not recorded or not handed on.
    pub losses: Losses,
}

impl Counters {
    fn read(map: &impl libbpf_rs::MapCore) -> Result<Self> {
        let sum = |which: fl_counter| counters::sum(map, which.0);
        Ok(Self {
            filtered: sum(fl_counter::FL_FILTERED)?,
            calls: sum(fl_counter::FL_CALLS)?,
            returns: sum(fl_counter::FL_RETURNS)?,
            tasks: sum(fl_counter::FL_TASKS)?,
            triggers: sum(fl_counter::FL_TRIGGERS)?,
            live: sum(fl_counter::FL_LIVE)?,
            losses: Losses::read(&losses::CALL, map)?,
        })
    }
}

/// The object's two builds.
const PLAIN: &[u8] = include_bytes!(concat!(env!("OUT_DIR"), "/call.plain.o"));
const TYPED: &[u8] = include_bytes!(concat!(env!("OUT_DIR"), "/call.typed.o"));

/// Room for some hundred triggers with their calls.
const RING_BYTES: usize = 4 << 20;
/// Each processor keeps that many free entries of an LRU table to itself, and as many are thrown out at once when it has none
/// left: LOCAL_FREE_TARGET, kernel/bpf/bpf_lru_list.c.
const KEPT_BY_PROCESSOR: usize = 128;
/// No more room for those than for so many processors.
const PROCESSORS_MAX: usize = 16;

/// The attached recorder. Dropping it detaches every program.
pub struct Recorder {
    /// Detached before the rest goes.
    hooks: Vec<Hook>,
    links: Vec<Link>,
    object: Loaded,
    build: Build,
    calls: u32,
    attached: Vec<Attached>,
}

impl Recorder {
    /// Loads the programs and attaches each function by itself. What became of each: in the order of the plan's. It is no
    /// error when some, or all, could not be attached.
    ///
    /// # Errors
    /// Missing privileges, a kernel without BTF, a verifier that refuses: one line with the cure where there is one.
    pub fn start(plan: &Plan) -> Result<(Self, Vec<Attached>)> {
        load::prepare(plan.verbose);
        check(plan)?;
        make_room_for_links(plan.functions.len());
        let mut refusal = None;
        for &build in builds(plan.btf.as_deref()) {
            match Self::attempt(plan, build) {
                Ok(recorder) => {
                    let attached = recorder.attached.clone();
                    return Ok((recorder, attached));
                }
                Err(why) => refusal = refusal.or(Some(why)),
            }
        }
        Err(refusal.unwrap_or_else(|| anyhow!("failed to load the recorder: there is no way to")))
    }

    fn attempt(plan: &Plan, build: Build) -> Result<Self> {
        let (object, patterns) = load_object(plan, build)?;
        let mut recorder =
            Self { hooks: Vec::new(), links: Vec::new(), object, build, calls: plan.calls, attached: Vec::new() };
        let raw = |program: &str, tracepoint: &str| {
            let what = format!("attach to raw tracepoint `{tracepoint}`");
            load::step(&what, recorder.object.program(program)?.attach_raw_tracepoint(tracepoint))
        };
        let mut links = vec![raw("fl_rename", "task_rename")?];
        if plan.filter.command {
            // The exit first: a process must not be remembered that nobody forgets.
            links.push(raw("fl_exit", "sched_process_exit")?);
            links.push(raw("fl_fork", "sched_process_fork")?);
        }
        if !plan.trigger_signals.is_empty() {
            links.push(raw("fl_signal", "signal_deliver")?);
        }
        recorder.links = links;
        let (attached, hooks) = strategy::attach_all(plan, &patterns);
        recorder.hooks = hooks;
        recorder.attached = attached;
        Ok(recorder)
    }

    /// What became of each function of the plan.
    pub fn attached(&self) -> &[Attached] {
        &self.attached
    }

    /// How the programs read kernel memory.
    pub fn build(&self) -> Build {
        self.build
    }

    /// The last calls of this thread; None: none are kept.
    ///
    /// # Errors
    /// Where the table can't be read.
    pub fn task(&self, tid: u32) -> Result<Option<Task>> {
        let what = || format!("failed to read the calls of thread {tid}");
        let value = self.object.map("fl_tasks")?.lookup(&tid.to_ne_bytes(), MapFlags::ANY).with_context(what)?;
        value.map(|bytes| self.read(&bytes).with_context(what)).transpose()
    }

    /// The last calls of every task that is kept, dead ones included.
    ///
    /// # Errors
    /// Where the table can't be read.
    pub fn tasks(&self) -> Result<Vec<Task>> {
        let what = "failed to read the calls of all tasks";
        let map = self.object.map("fl_tasks")?;
        // All in one batch: libbpf-rs takes one that is not full for the last, and a hash table's seldom are.
        let entries = map.lookup_batch(map.max_entries(), MapFlags::ANY, MapFlags::ANY).context(what)?;
        entries.map(|(_, bytes)| self.read(&bytes).context(what)).collect()
    }

    fn read(&self, bytes: &[u8]) -> Result<Task> {
        Task::from_value(bytes, self.calls).ok_or_else(|| anyhow!("an entry of another size"))
    }

    /// The return addresses of a kernel stack, innermost first; None: there is none by that number.
    pub fn stack(&self, id: i32) -> Option<Vec<u64>> {
        let id = u32::try_from(id).ok()?;
        let bytes = self.object.map("fl_call_stacks").ok()?.lookup(&id.to_ne_bytes(), MapFlags::ANY).ok()??;
        let frames = bytes.chunks_exact(8).filter_map(|frame| Some(u64::from_ne_bytes(frame.try_into().ok()?)));
        Some(frames.take_while(|&frame| frame != 0).collect())
    }

    /// The samples, each handed to `take`.
    ///
    /// # Errors
    /// Where the ring can't be mapped.
    pub fn ring<'recorder>(&'recorder self, mut take: impl FnMut(Sample) + 'recorder) -> Result<Ring<'recorder>> {
        let calls = self.calls;
        Ring::new(&self.object.map("fl_ring")?, move |bytes| {
            if let Some(sample) = Sample::from_bytes(bytes, calls) {
                take(sample);
            }
        })
    }

    /// What has been counted since the start.
    ///
    /// # Errors
    /// Where the map can't be read.
    pub fn counters(&self) -> Result<Counters> {
        let mut counters = Counters::read(&self.object.map("fl_counters")?)?;
        // One program may be behind several hooks.
        let programs: BTreeMap<u32, u64> = self.hooks.iter().filter_map(Hook::runs_missed).collect();
        counters.losses.add(RUNS_MISSED, programs.into_values().sum());
        counters.losses.add(FORKS_MISSED, self.object.forks_missed());
        Ok(counters)
    }
}

impl fmt::Debug for Recorder {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Recorder").field("build", &self.build).field("attached", &self.attached).finish_non_exhaustive()
    }
}

/// Refuses a plan that the kernel programs can't follow.
fn check(plan: &Plan) -> Result<()> {
    let (least, most) = (fl_limit::FL_LIMIT_CALLS_LEAST.0, fl_limit::FL_LIMIT_CALLS.0);
    if !plan.calls.is_power_of_two() || !(least..=most).contains(&plan.calls) {
        bail!("failed to keep {} calls of each task: give a power of two, {least} to {most}", plan.calls);
    }
    let (many, most) = (plan.functions.len(), fl_limit::FL_LIMIT_FUNCTIONS.0 as usize);
    if many > most {
        bail!("failed to watch {many} functions: {most} at most, name fewer or a narrower glob");
    }
    Ok(())
}

/// For each function two links and two programs are four descriptors: raises the limit where it would be in the way. Where it can't be raised, those
/// that don't fit can't be attached, and say so.
fn make_room_for_links(functions: usize) {
    use nix::sys::resource::{Resource, getrlimit, setrlimit};
    const OTHERS: u64 = 128;
    let needed = 4 * functions as u64 + OTHERS;
    if let Ok((soft, hard)) = getrlimit(Resource::RLIMIT_NOFILE)
        && soft < needed
    {
        let _ = setrlimit(Resource::RLIMIT_NOFILE, needed.min(hard), hard);
    }
}

fn load_object(plan: &Plan, build: Build) -> Result<(Loaded, Patterns)> {
    let bytes = match build {
        Build::Plain => PLAIN,
        Build::Typed => TYPED,
    };
    let mut object = Opened::open(bytes, build, plan.btf.as_deref())?;
    let mut functions = Vec::new();
    for Function { kernel, syscall, trigger } in &plan.functions {
        for point in [kernel, syscall] {
            functions.push(point.as_ref().map_or(Ok(fl_function::default()), |point| told(point, *trigger))?);
        }
    }
    // A section has something in it.
    functions.resize(functions.len().max(1), fl_function::default());
    let config = fl_config {
        places: u32::try_from(functions.len())?,
        trigger_signals: plan.trigger_signals.iter().fold(0, |bits, signal| bits | 1 << ((signal - 1) & 63)),
        calls: plan.calls,
        live: plan.live.unwrap_or(0),
        kernel_stacks: u8::from(plan.kernel_stacks),
        ..fl_config::default()
    };
    object.configure("fl_config", &config)?;
    object.fill(".rodata.functions", &functions)?;
    object.configure("fl_filter_config", &plan.filter.config()?)?;
    // Nothing is loaded, and no table kept, that was not asked for.
    object.autoload("fl_signal", !plan.trigger_signals.is_empty())?;
    object.autoload("fl_fork", plan.filter.command)?;
    object.autoload("fl_exit", plan.filter.command)?;
    let value =
        size_of::<fl_task>() + plan.calls as usize * size_of::<fl_call>() + fl_limit::FL_LIMIT_TEXT_BYTES.0 as usize;
    for table in ["fl_tasks", "fl_blank"] {
        object.set_value_size(table, value)?;
    }
    let processors = num_possible_cpus().unwrap_or(1).min(PROCESSORS_MAX);
    object.resize("fl_tasks", plan.tasks as usize + (processors + 1) * KEPT_BY_PROCESSOR)?;
    object.resize("fl_pids", plan.filter.pids.len())?;
    if !plan.kernel_stacks {
        object.resize("fl_call_stacks", 1)?;
    }
    if !plan.filter.command {
        object.resize("fl_descendants", 1)?;
    }
    let has_samples = plan.live.is_some()
        || !plan.trigger_signals.is_empty()
        || plan.functions.iter().any(|one| one.trigger.is_some());
    if has_samples {
        object.resize("fl_ring", RING_BYTES)?;
    }
    let patterns = Patterns::of(&mut object)?;
    let loaded = object.load()?;
    plan.filter.apply(&loaded.map("fl_pids")?, &loaded.map("fl_cgroups")?)?;
    Ok((loaded, patterns))
}

/// What the kernel programs are told of a function.
fn told(point: &Point, trigger: Option<i64>) -> Result<fl_function> {
    let (anyone_argument, anyone_mask) = point.anyone.map_or((0, 0), |(argument, mask)| (u32::from(argument), mask));
    let trigger_value = trigger.unwrap_or(0);
    let mut told = fl_function {
        flags: point.flags,
        trigger: trigger_value,
        anyone_mask,
        anyone_argument,
        ..fl_function::default()
    };
    if trigger.is_some() {
        told.flags |= fl_function_flag::FL_FUNCTION_TRIGGER.0;
    }
    if point.fetches.iter().any(attach::is_read_at_end) {
        told.flags |= fl_function_flag::FL_FUNCTION_AT_END.0;
    }
    if point.fetches.len() > told.fetches.len() {
        bail!("failed to watch `{}`: {} values of a call at most", point.symbol, told.fetches.len());
    }
    told.fetch_count = point.fetches.len() as u32;
    for (to, from) in told.fetches.iter_mut().zip(&point.fetches) {
        *to = *from;
    }
    Ok(told)
}
