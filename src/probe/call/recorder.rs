//! The recorder at work: its fixed part attached by the engine, and each function by itself.

use std::cell::{Cell, RefCell};
use std::fmt;
use std::os::fd::AsFd as _;
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, bail};
use libbpf_rs::libbpf_sys::{BPF_F_RDONLY_PROG, bpf_map_create_opts};
use libbpf_rs::{MapCore as _, MapFlags, MapHandle, MapType};

use super::attach::{FunctionHook, Patterns};
use super::strategy::{self, Attached};
use super::{Function, Plan, Sample, plan};
use crate::probe::abi::call::fl_function;
use crate::probe::abi::{Plain as _, bytes_of};
use crate::probe::engine::Probe;
use crate::probe::{Build, Ring};

/// How long it may take to detach before that is worth a word. The kernel waits for all tasks, for each function: 66 hooks took 6.5 s.
const UNSAID: Duration = Duration::from_millis(500);

/// The section of the table of functions, as its map is called.
const FUNCTIONS: &str = ".rodata.functions";

/// The attached recorder. Dropping it detaches every program.
pub struct Recorder {
    /// Detached before the rest goes.
    pub(super) hooks: RefCell<Vec<FunctionHook>>,
    pub(super) probe: Probe<Plan>,
    attached: Vec<Attached>,
    patterns: Patterns,
    /// How many functions there are by now.
    count: Cell<usize>,
}

impl Recorder {
    /// Loads the programs and attaches each function by itself. The results are in the order of the plan. It is no error if some
    /// functions, or all, could not be attached.
    ///
    /// # Errors
    /// Missing privileges, a kernel without BTF, a verifier that refuses: one line with the cure where there is one.
    pub fn start(plan: &Plan) -> Result<(Self, Vec<Attached>)> {
        plan.check()?;
        strategy::make_room_for_links(plan.functions.len());
        let (probe, patterns) = Probe::start_with(plan, Patterns::of)?;
        let (attached, hooks) = strategy::attach_all(plan, &patterns);
        let (hooks, count) = (RefCell::new(hooks), Cell::new(plan.functions.len()));
        Ok((Self { hooks, probe, attached: attached.clone(), patterns, count }, attached))
    }

    /// Attaches to more functions, BPF programs and what calls them, which get the next numbers. The plan must be one that grows.
    ///
    /// # Errors
    /// There is no room for them, or the kernel gives no table.
    pub fn add(&self, functions: &[Function]) -> Result<Vec<Attached>> {
        let (first, most) = (self.count.get(), self.probe.plan.most());
        if first + functions.len() > most {
            bail!("failed to watch {} more functions: {most} at most", functions.len());
        }
        strategy::make_room_for_links(first + functions.len());
        // The places of the functions before are not asked for by the new programs.
        let mut entries = vec![fl_function::default(); 2 * first];
        entries.extend(plan::entries(functions)?);
        let (old, new) = (self.probe.map(FUNCTIONS)?, table(&entries)?);
        let patterns = self.patterns.with_table(old.as_fd(), new.as_fd());
        let attach = self.probe.plan.setup.attach;
        let (attached, hooks) = strategy::attach_later(attach, &patterns, first, functions);
        self.hooks.borrow_mut().extend(hooks);
        self.count.set(first + functions.len());
        Ok(attached)
    }

    /// Detaches from the functions one by one, as a drop does. If that takes the kernel long, `waiting` gets the number of hooks that are left and
    /// that of all.
    pub fn detach(&mut self, waiting: impl FnOnce(usize, usize)) {
        let hooks = self.hooks.get_mut();
        let (begun, all) = (Instant::now(), hooks.len());
        let mut waiting = Some(waiting);
        while hooks.pop().is_some() {
            if begun.elapsed() > UNSAID
                && !hooks.is_empty()
                && let Some(waiting) = waiting.take()
            {
                waiting(hooks.len(), all);
            }
        }
    }

    /// The result for each function of the plan.
    pub fn attached(&self) -> &[Attached] {
        &self.attached
    }

    /// How the programs read kernel memory.
    pub fn build(&self) -> Build {
        self.probe.build()
    }

    /// The samples.
    pub fn ring(&self) -> Result<Ring<Sample>> {
        self.probe.ring()
    }
}

/// A table of functions that no program can write to, so that the verifier takes what it reads there for constants.
fn table(entries: &[fl_function]) -> Result<MapHandle> {
    let what = "failed to make a table of functions";
    let opts = bpf_map_create_opts {
        sz: size_of::<bpf_map_create_opts>() as _,
        map_flags: BPF_F_RDONLY_PROG,
        ..bpf_map_create_opts::default()
    };
    let (bytes, zero) = (bytes_of(entries), 0u32);
    let (key, value) = (size_of_val(&zero) as u32, u32::try_from(bytes.len()).context(what)?);
    let table = MapHandle::create(MapType::Array, Some("fl_functions"), key, value, 1, &opts).context(what)?;
    table.update(zero.bytes(), bytes, MapFlags::ANY).context(what)?;
    table.freeze().context(what)?;
    Ok(table)
}

impl fmt::Debug for Recorder {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Recorder")
            .field("build", &self.build())
            .field("attached", &self.attached)
            .finish_non_exhaustive()
    }
}
