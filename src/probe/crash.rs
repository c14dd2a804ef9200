//! The crash probe: `bpf/crash.bpf.c` opened, configured, loaded and attached.

use std::mem::MaybeUninit;
use std::os::fd::{AsFd, BorrowedFd};
use std::path::{Path, PathBuf};

use anyhow::{Context, Result, anyhow, bail};
use libbpf_rs::skel::{OpenSkel, SkelBuilder};
use libbpf_rs::{Link, OpenObject, ProgramMut, RingBuffer, RingBufferBuilder};

use super::abi::crash_skel::{CrashSkel, CrashSkelBuilder};
use super::{Counters, Filter, load};
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
    /// Send a sample of handled and ignored signals too.
    pub show_handled: bool,
    /// How to hook the kernel.
    pub attach: Attach,
    /// Types of the kernel, where it doesn't show them itself.
    pub btf: Option<PathBuf>,
    /// Print libbpf's own messages.
    pub verbose: bool,
}

/// The programs that a way to attach consists of.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Hooks {
    /// signal_deliver; `seccomp_kills`: and a kprobe for what it doesn't see before v5.16.
    Tracepoint { seccomp_kills: bool },
    /// The coredump and forced signals.
    Kprobe,
}

/// Where an opened object lives.
type Place = Option<Box<MaybeUninit<OpenObject>>>;

/// The places that opened objects live in; make one with `Default` and keep it as long as the probe.
#[derive(Default)]
pub struct Storage {
    first: Place,
    second: Place,
}

/// The attached probe. Dropping it detaches every program.
pub struct Probe<'obj> {
    skel: CrashSkel<'obj>,
    links: Vec<Link>,
    attached: Vec<&'static str>,
}

impl<'obj> Probe<'obj> {
    /// Loads the programs and attaches each by itself. `auto` falls back to kprobes where signal_deliver can't be used.
    ///
    /// # Errors
    /// Missing privileges, a kernel without BTF, a verifier that refuses, a hook that isn't there: one line with the cure
    /// where there is one.
    pub fn start(storage: &'obj mut Storage, plan: &Plan) -> Result<Self> {
        load::prepare(plan.verbose);
        let seccomp_kills = plan.attach == Attach::Auto
            && plan.signals.contains(&SIGSYS)
            && host::has_kprobe_pmu()
            && !host::delivers_seccomp_kills(plan.btf.as_deref().unwrap_or(Path::new(host::KERNEL_BTF)));
        let first = match plan.attach {
            Attach::Kprobe => Hooks::Kprobe,
            Attach::Tracepoint | Attach::Auto => Hooks::Tracepoint { seccomp_kills },
        };
        // One place for each attempt: what a failed one has borrowed isn't given back.
        let Storage { first: place, second: other_place } = storage;
        match Self::attempt(place, plan, first) {
            Err(why) if plan.attach == Attach::Auto && host::has_kprobe_pmu() => {
                Self::attempt(other_place, plan, Hooks::Kprobe).map_err(|_| why)
            }
            result => result,
        }
    }

    fn attempt(place: &'obj mut Place, plan: &Plan, hooks: Hooks) -> Result<Self> {
        let mut probe = Self::load(place, plan, hooks)?;
        probe.attach(plan, hooks)?;
        Ok(probe)
    }

    fn load(place: &'obj mut Place, plan: &Plan, hooks: Hooks) -> Result<Self> {
        let mut builder = CrashSkelBuilder::default();
        if let Some(path) = &plan.btf {
            std::fs::File::open(path).with_context(|| format!("failed to open `{}`", path.display()))?;
            load::step("use the BTF file", builder.object_builder_mut().btf_custom_path(path).map(drop))?;
        }
        let object = place.insert(Box::new(MaybeUninit::uninit()));
        let mut open = load::step("open the crash probe", builder.open(object))?;
        let rodata = open.maps.rodata_data.as_deref_mut().ok_or_else(|| anyhow!("the crash probe has no .rodata"))?;
        let config = &mut rodata.fl_config;
        plan.filter.configure(config)?;
        config.signals = plan.signals.iter().fold(0, |bits, signal| bits | 1 << (signal - 1));
        config.frames = plan.frames;
        config.show_handled = u8::from(plan.show_handled);
        let seccomp_kills = hooks == Hooks::Tracepoint { seccomp_kills: true };
        config.seccomp_kills = u8::from(seccomp_kills);
        // Nothing is loaded, and no table kept, that was not asked for.
        let kprobes = hooks == Hooks::Kprobe;
        open.progs.fl_deliver.set_autoload(!kprobes);
        open.progs.fl_do_coredump.set_autoload(kprobes);
        open.progs.fl_vfs_coredump.set_autoload(kprobes);
        open.progs.fl_force_sig.set_autoload(kprobes);
        open.progs.fl_seccomp_kill.set_autoload(seccomp_kills);
        open.progs.fl_fork.set_autoload(plan.filter.command);
        open.progs.fl_exit.set_autoload(plan.filter.command);
        let size = "size the crash probe's tables";
        if !plan.filter.command {
            load::step(size, open.maps.fl_descendants.set_max_entries(1))?;
        }
        load::step(size, open.maps.fl_pids.set_max_entries(plan.filter.pids.len().max(1) as u32))?;
        let skel = load::step("load the crash probe", open.load())?;
        plan.filter.apply(&skel.maps.fl_pids, &skel.maps.fl_cgroups)?;
        Ok(Self { skel, links: Vec::new(), attached: Vec::new() })
    }

    fn attach(&mut self, plan: &Plan, hooks: Hooks) -> Result<()> {
        let progs = &self.skel.progs;
        let raw = |program: &ProgramMut<'_>, tracepoint: &str| {
            let what = format!("attach to raw tracepoint `{tracepoint}`");
            load::step(&what, program.attach_raw_tracepoint(tracepoint))
        };
        let kprobe = |program: &ProgramMut<'_>, function: &str| {
            load::step(&format!("attach to kernel function `{function}`"), program.attach_kprobe(false, function))
        };
        match hooks {
            Hooks::Tracepoint { seccomp_kills } => {
                self.links.push(raw(&progs.fl_deliver, "signal_deliver")?);
                self.attached.push("raw_tp/signal_deliver");
                // Something is gained by it, and nothing that was asked for is lost without it.
                if seccomp_kills && let Ok(link) = kprobe(&progs.fl_seccomp_kill, "do_coredump") {
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
                let (link, name) = match kprobe(&progs.fl_vfs_coredump, "vfs_coredump") {
                    Ok(link) => (link, "kprobe/vfs_coredump"),
                    Err(_) => (kprobe(&progs.fl_do_coredump, "do_coredump")?, "kprobe/do_coredump"),
                };
                self.links.push(link);
                self.attached.push(name);
                self.links.push(kprobe(&progs.fl_force_sig, "force_sig_info_to_task")?);
                self.attached.push("kprobe/force_sig_info_to_task");
            }
        }
        if plan.filter.command {
            // The exit first: a process must not be remembered that nobody forgets.
            self.links.push(raw(&progs.fl_exit, "sched_process_exit")?);
            self.links.push(raw(&progs.fl_fork, "sched_process_fork")?);
        }
        Ok(())
    }

    /// The hooks in use, for the line that says so.
    pub fn attached(&self) -> &[&'static str] {
        &self.attached
    }

    /// The samples, each handed to `take` as bytes ([`super::abi::Names::from_bytes`]).
    ///
    /// # Errors
    /// Where the ring can't be mapped.
    pub fn ring<'probe>(&'probe self, mut take: impl FnMut(&[u8]) + 'probe) -> Result<Ring<'probe>> {
        let mut builder = RingBufferBuilder::new();
        builder
            .add(&self.skel.maps.fl_ring, move |sample| {
                take(sample);
                0
            })
            .context("failed to map the ring of samples")?;
        Ok(Ring { ring: builder.build().context("failed to map the ring of samples")? })
    }

    /// What has been counted since the start.
    ///
    /// # Errors
    /// Where the map can't be read.
    pub fn counters(&self) -> Result<Counters> {
        Counters::read(&self.skel.maps.fl_counters)
    }
}

/// The reader's end of the samples.
pub struct Ring<'probe> {
    ring: RingBuffer<'probe>,
}

impl Ring<'_> {
    /// Takes at most `most` samples that are there now; returns how many.
    ///
    /// # Errors
    /// Where libbpf can't read the ring.
    pub fn take(&self, most: usize) -> Result<usize> {
        let taken = self.ring.consume_raw_n(most);
        usize::try_from(taken)
            .map_err(|_| anyhow!("failed to read the ring of samples: {}", std::io::Error::from_raw_os_error(-taken)))
    }
}

impl AsFd for Ring<'_> {
    fn as_fd(&self) -> BorrowedFd<'_> {
        // SAFETY: libbpf keeps its epoll descriptor open as long as the ring buffer lives, which we borrow.
        unsafe { BorrowedFd::borrow_raw(self.ring.epoll_fd()) }
    }
}
