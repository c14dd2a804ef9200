//! The engine of all probes: opens the object, chooses the programs that the hooks of a way name, sizes the tables, loads, filters, attaches.

use std::collections::BTreeMap;
use std::os::fd::AsFd as _;
use std::path::PathBuf;

use anyhow::{Result, anyhow};
use libbpf_rs::{Link, Map, MapHandle, ProgramMut, ProgramType};

use super::attempts::attempts;
use super::hook::{At, Attach, Hook, HookPoint, Way};
use super::kernel::Kernel;
use super::losses::{Loss, Losses};
use super::object::{Build, Builds, Loaded, Opened, has_typed_loads};
use super::table::TypedTable as _;
use super::tracefs::Tracefs;
use super::{Filter, Ring, counters, load, perf};
use crate::host;

/// The processes that descend from the watched command, with the command itself.
pub(crate) struct Descendants(MapHandle);

impl Descendants {
    /// Those that have not ended, as the host numbers them.
    ///
    /// # Errors
    /// If the kernel's table can't be read.
    pub(crate) fn alive(&self) -> Result<Vec<u32>> {
        let mut alive = self.0.all_keys().collect::<Result<Vec<u32>>>()?;
        alive.sort_unstable();
        Ok(alive)
    }
}

/// The part of a plan that all probes have.
#[derive(Clone, Debug, Default)]
pub struct Setup {
    /// Which tasks.
    pub filter: Filter,
    /// How to hook the kernel.
    pub attach: Attach,
    /// A file with the kernel's types, if the kernel doesn't show them itself.
    pub btf: Option<PathBuf>,
    /// Print libbpf's own messages.
    pub verbose: bool,
}

/// Room in the ring for so many samples of so many bytes, until user space comes to read them.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Room {
    pub(super) samples: usize,
    pub(super) bytes: usize,
}

impl Room {
    /// Nothing is sent.
    pub(super) const NONE: Self = Self { samples: 0, bytes: 0 };

    /// A ring's size is a power of two, and at least a page.
    pub(super) fn ring_bytes(self) -> usize {
        const PAGE_BYTES_MAX: usize = 64 << 10;
        (self.samples * self.bytes).next_power_of_two().max(PAGE_BYTES_MAX)
    }
}

/// The declaration of a probe. Its plan is what the user asked for.
pub(crate) trait Spec: Clone {
    /// The samples of its ring.
    type Sample;
    /// The state that its reader keeps between two reads.
    type State: Default;

    /// Its programs.
    const OBJECT: Builds;
    /// Its arrays with a value for each processor that user space reads. All others are scratch memory of the programs.
    const SUMMED: &'static [&'static str] = &["fl_counters"];
    /// What `auto` tries, best first.
    const WAYS: &'static [Way];

    /// The part that all plans have.
    fn setup(&self) -> &Setup;

    /// How to hook the kernel.
    fn attach(&self) -> Attach {
        self.setup().attach
    }

    /// The ways to try for a way that the user names.
    fn ways_of(way: Way) -> Vec<Way> {
        vec![way]
    }

    /// The hooks of a way, in the order in which they are attached. Programs that no hook names are not loaded.
    fn hooks(&self, way: Way, kernel: Kernel) -> Result<Vec<Hook>>;

    /// A way in words; `None` means that its hooks are named.
    fn words(_way: Way) -> Option<&'static str> {
        None
    }

    /// Writes `fl_config` and whatever else is decided before the programs are verified.
    fn configure(&self, way: Way, kernel: Kernel, object: &mut Opened) -> Result<()>;

    /// How many entries tables have, except those of the filter: a table that was not asked for is not kept.
    fn tables(&self, way: Way, kernel: Kernel) -> Vec<(&'static str, usize)>;

    /// Scratch memory of a program of this plan which never comes to where it is used: one for all processors is enough.
    fn idle(&self) -> Vec<&'static str> {
        Vec::new()
    }

    /// The ring; `None` means that it is as the object has it.
    fn ring(&self) -> Option<Room>;

    /// Fills tables before any program runs.
    fn fill(&self, _object: &Loaded) -> Result<()> {
        Ok(())
    }

    /// The sample in `bytes`; `None` means that it is no sample of this probe.
    fn sample(&self, bytes: &[u8]) -> Option<Self::Sample>;
}

/// A link, and the loss that a hit of its kprobe counts as when the kernel misses it. The ends of calls have none: the probe counts those.
type Attached = (Link, Option<&'static str>);

/// The hits that these links have missed, by the loss that each counts as.
fn hits_missed(links: &[Attached]) -> impl Iterator<Item = (&'static str, u64)> {
    links.iter().filter_map(|(link, reason)| Some(((*reason)?, counters::hits_missed(link.as_fd()))))
}

/// An attached probe. Dropping it detaches every program.
pub(crate) struct Probe<S: Spec> {
    /// Detached before the object goes.
    links: Vec<Attached>,
    /// What links had missed when they were detached.
    hits: Vec<(&'static str, u64)>,
    object: Loaded,
    build: Build,
    way: Way,
    words: Vec<String>,
    /// For each attached program: the loss that its skipped runs count as.
    programs: BTreeMap<&'static str, Option<&'static str>>,
    /// What the software events have counted at which these programs run.
    events: BTreeMap<&'static str, perf::EventCounts>,
    pub(super) plan: S,
    pub(super) state: S::State,
}

/// Configures an object that is open, and chooses its programs and tables.
fn choose<S: Spec>(
    plan: &S,
    way: Way,
    kernel: Kernel,
    (hooks, programs): (&[Hook], &[&str]),
    object: &mut Opened,
) -> Result<()> {
    let filter = &plan.setup().filter;
    plan.configure(way, kernel, object)?;
    let mut config = filter.config()?;
    config.has_typed_arguments = u8::from(object.type_arguments(hooks)?);
    object.configure("fl_filter_config", &config)?;
    object.autoload(|program| programs.iter().any(|name| program == *name));
    for (table, entries) in plan.tables(way, kernel) {
        object.resize(table, entries)?;
    }
    for scratch in plan.idle() {
        object.share_values(scratch)?;
    }
    object.resize("fl_pids", filter.pids.len())?;
    if !filter.command {
        object.resize("fl_descendants", 1)?;
    }
    match plan.ring() {
        Some(room) => object.resize("fl_ring", room.ring_bytes()),
        None => Ok(()),
    }
}

impl<S: Spec> Probe<S> {
    /// Loads the programs of the best way that works and attaches each by itself.
    ///
    /// # Errors
    /// Missing privileges, a kernel without BTF, a verifier that refuses, a hook that isn't there: one line with the cure
    /// if there is one.
    pub(crate) fn start(plan: &S) -> Result<Self> {
        Self::start_with(plan, |_| Ok(())).map(|(probe, ())| probe)
    }

    /// The same; `before_load` gets the object before it goes to the kernel.
    pub(super) fn start_with<T>(plan: &S, before_load: impl Fn(&mut Opened) -> Result<T>) -> Result<(Self, T)> {
        let setup = plan.setup();
        load::prepare(setup.verbose);
        let best = match setup.btf {
            Some(_) => Build::Plain,
            None if has_typed_loads() => Build::Typed,
            None => Build::Arguments,
        };
        let kprobes = host::has_kprobe_pmu();
        let mut refusal = None;
        for (way, build) in attempts::<S>(plan.attach(), best, kprobes)? {
            match Self::attempt(plan, way, build, &before_load) {
                Ok(probe) => return Ok(probe),
                // The user can do something about the error of the best way.
                Err(why) => refusal = refusal.or(Some(why)),
            }
        }
        Err(refusal.unwrap_or_else(|| anyhow!("failed to attach: there is no way to")))
    }

    fn attempt<T>(
        plan: &S,
        way: Way,
        build: Build,
        before_load: impl Fn(&mut Opened) -> Result<T>,
    ) -> Result<(Self, T)> {
        let setup = plan.setup();
        let mut object = Opened::open(S::OBJECT, build, setup.btf.as_deref())?;
        let kernel = object.kernel();
        let hooks = plan.hooks(way, kernel)?;
        let (together, apart) = Hook::programs(&hooks);
        choose(plan, way, kernel, (&hooks, &together), &mut object)?;
        let more = before_load(&mut object)?;
        let mut object = object.load()?;
        if !apart.is_empty() {
            let mut other = Opened::open(S::OBJECT, build, setup.btf.as_deref())?;
            choose(plan, way, kernel, (&hooks, &apart), &mut other)?;
            object.load_apart(other, apart, S::SUMMED)?;
        }
        setup.filter.apply(&object.map("fl_pids")?, &object.map("fl_cgroups")?)?;
        plan.fill(&object)?;
        let mut links = Links::default();
        links.attach_all(&object, &hooks)?;
        let mut programs = BTreeMap::new();
        for at in &links.attached {
            programs.entry(at.program).or_insert(at.missed);
        }
        let words = match S::words(way) {
            Some(words) => vec![words.to_owned()],
            None => links.attached.iter().filter(|at| at.is_shown).map(|at| at.words()).collect(),
        };
        let (links, events, plan, state) = (links.links, links.events, plan.clone(), S::State::default());
        let hits = Vec::new();
        Ok((Self { links, hits, object, build, way, words, programs, events, plan, state }, more))
    }

    /// How the programs read kernel memory.
    pub(crate) fn build(&self) -> Build {
        self.build
    }

    /// How the kernel is hooked.
    pub(crate) fn way(&self) -> Way {
        self.way
    }

    /// The hooks in use, for the line that says so.
    pub(crate) fn attached(&self) -> &[String] {
        &self.words
    }

    /// The samples.
    pub(crate) fn ring(&self) -> Result<Ring<S::Sample>>
    where
        S: 'static,
    {
        let plan = self.plan.clone();
        Ring::new(&self.map("fl_ring")?, move |bytes| plan.sample(bytes))
    }

    /// The descendants of the watched command.
    ///
    /// # Errors
    /// If the kernel's table can't be had.
    pub(crate) fn descendants(&self) -> Result<Descendants> {
        Ok(Descendants(MapHandle::try_from(&self.map("fl_descendants")?)?))
    }

    /// Detaches everything: the counters don't change any more.
    pub(crate) fn detach(&mut self) {
        self.hits.extend(hits_missed(&self.links));
        self.links.clear();
    }

    pub(super) fn map(&self, name: &str) -> Result<Map<'_>> {
        self.object.map(name)
    }

    /// Attaches these hooks until the links are dropped.
    pub(super) fn attach_for_now(&self, hooks: &[Hook]) -> Result<Vec<Link>> {
        let mut links = Links::default();
        links.attach_all(&self.object, hooks)?;
        Ok(links.links.into_iter().map(|(link, _)| link).collect())
    }

    /// Is this program attached?
    pub(super) fn has(&self, program: &str) -> bool {
        self.programs.contains_key(program)
    }

    /// How many software events there were since this program was attached to them.
    pub(super) fn events(&self, program: &str) -> u64 {
        self.events.get(program).map_or(0, perf::EventCounts::sum)
    }

    /// One counter of `enum fl_counter`, since the start.
    pub(super) fn count(&self, counter: u32) -> Result<u64> {
        counters::sum(&self.map("fl_counters")?, counter)
    }

    /// The losses since the start: those that the programs have counted, and the runs that the kernel skipped.
    pub(super) fn losses(&self, table: &'static [Loss]) -> Result<Losses> {
        let mut losses = Losses::read(table, &self.map("fl_counters")?)?;
        for (program, missed) in &self.programs {
            if let Some(reason) = missed {
                losses.add(reason, self.object.runs_missed(program));
            }
        }
        for (reason, missed) in self.hits.iter().copied().chain(hits_missed(&self.links)) {
            losses.add(reason, missed);
        }
        Ok(losses)
    }
}

/// A probe that is being attached.
#[derive(Default)]
struct Links<'hooks> {
    links: Vec<Attached>,
    attached: Vec<&'hooks At>,
    events: BTreeMap<&'static str, perf::EventCounts>,
    tracefs: Option<Tracefs>,
}

impl<'hooks> Links<'hooks> {
    fn attach_all(&mut self, object: &Loaded, hooks: &'hooks [Hook]) -> Result<()> {
        for hook in hooks {
            match hook {
                Hook::At(at) => self.attach(object, at)?,
                Hook::FirstOf(lists) => self.attach_first(object, lists)?,
            }
        }
        Ok(())
    }

    fn attach_first(&mut self, object: &Loaded, lists: &'hooks [Vec<Hook>]) -> Result<()> {
        let (links, attached) = (self.links.len(), self.attached.len());
        let mut result = Ok(());
        for list in lists {
            result = self.attach_all(object, list);
            if result.is_ok() {
                break;
            }
            self.links.truncate(links);
            self.attached.truncate(attached);
        }
        result
    }

    fn attach(&mut self, object: &Loaded, at: &'hooks At) -> Result<()> {
        let program = object.program(at.program)?;
        let links = match &at.point {
            HookPoint::Raw(name) => {
                let what = format!("attach to raw tracepoint `{name}`");
                let is_typed = program.prog_type() == ProgramType::Tracing;
                let link = if is_typed { program.attach_trace() } else { program.attach_raw_tracepoint(name) };
                vec![load::step(&what, link)?]
            }
            HookPoint::Function(name) => vec![attach_kprobe(&program, false, name)?],
            HookPoint::Return(name) => vec![attach_kprobe(&program, true, name)?],
            HookPoint::Syscall(name) => {
                let tracefs = match self.tracefs.take() {
                    Some(tracefs) => tracefs,
                    None => Tracefs::open()?,
                };
                self.tracefs.insert(tracefs).attach_syscall(&program, name)?.into_iter().collect()
            }
            HookPoint::Software(event, name) => {
                let (links, counts) = perf::attach_software_event(&program, *event, name)?;
                self.events.insert(at.program, counts);
                links
            }
            HookPoint::Later => Vec::new(),
        };
        let missed = at.missed.filter(|_| matches!(at.point, HookPoint::Function(_)));
        self.links.extend(links.into_iter().map(|link| (link, missed)));
        self.attached.push(at);
        Ok(())
    }
}

fn attach_kprobe(program: &ProgramMut<'_>, is_return: bool, function: &str) -> Result<Link> {
    let what = format!("attach to kernel function `{function}`");
    load::step(&what, program.attach_kprobe(is_return, function))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_ring_is_a_power_of_two() {
        assert_eq!(Room { samples: 30, bytes: 64 << 10 }.ring_bytes(), 2 << 20);
        assert_eq!(Room { samples: 1, bytes: 1 }.ring_bytes(), 64 << 10);
        assert_eq!(Room::NONE.ring_bytes(), 64 << 10);
    }
}
