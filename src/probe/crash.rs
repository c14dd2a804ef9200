//! The crash probe: `bpf/crash.bpf.c` opened, configured, loaded and attached.

use std::mem::MaybeUninit;
use std::os::fd::{AsFd, BorrowedFd};

use anyhow::{Context, Result, anyhow};
use libbpf_rs::skel::{OpenSkel, SkelBuilder};
use libbpf_rs::{Link, OpenObject, RingBuffer, RingBufferBuilder};

use super::abi::crash_skel::{CrashSkel, CrashSkelBuilder};
use super::{Counters, Filter, load};

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
    /// Print libbpf's own messages.
    pub verbose: bool,
}

/// The place that an opened object lives in; make one with `Default` and keep it as long as the probe.
#[derive(Default)]
pub struct Storage(Option<Box<MaybeUninit<OpenObject>>>);

/// The attached probe. Dropping it detaches every program.
pub struct Probe<'obj> {
    skel: CrashSkel<'obj>,
    links: Vec<Link>,
}

impl<'obj> Probe<'obj> {
    /// Opens, configures and loads the programs; nothing is attached yet.
    ///
    /// # Errors
    /// Missing privileges, a kernel without BTF, a verifier that refuses: one line with the cure where there is one.
    pub fn load(storage: &'obj mut Storage, plan: &Plan) -> Result<Self> {
        load::prepare(plan.verbose);
        let builder = CrashSkelBuilder::default();
        let object = storage.0.insert(Box::new(MaybeUninit::uninit()));
        let mut open = load::step("open the crash probe", builder.open(object))?;
        let rodata = open.maps.rodata_data.as_deref_mut().ok_or_else(|| anyhow!("the crash probe has no .rodata"))?;
        let config = &mut rodata.fl_config;
        plan.filter.configure(config)?;
        config.signals = plan.signals.iter().fold(0, |bits, signal| bits | 1 << (signal - 1));
        config.frames = plan.frames;
        config.show_handled = u8::from(plan.show_handled);
        if !plan.filter.command {
            // Nothing is attached, and no table kept, that was not asked for.
            open.progs.fl_fork.set_autoload(false);
            open.progs.fl_exit.set_autoload(false);
            load::step("size the crash probe's tables", open.maps.fl_descendants.set_max_entries(1))?;
        }
        load::step(
            "size the crash probe's tables",
            open.maps.fl_pids.set_max_entries(plan.filter.pids.len().max(1) as u32),
        )?;
        let skel = load::step("load the crash probe", open.load())?;
        plan.filter.apply(&skel.maps.fl_pids, &skel.maps.fl_cgroups)?;
        Ok(Self { skel, links: Vec::new() })
    }

    /// Attaches each program by itself.
    ///
    /// # Errors
    /// Names the tracepoint that could not be had.
    pub fn attach(&mut self, plan: &Plan) -> Result<()> {
        let progs = &self.skel.progs;
        let mut wanted = vec![(&progs.fl_deliver, "signal_deliver")];
        if plan.filter.command {
            wanted.push((&progs.fl_exit, "sched_process_exit"));
            wanted.push((&progs.fl_fork, "sched_process_fork"));
        }
        for (program, tracepoint) in wanted {
            let link = load::step(
                &format!("attach to raw tracepoint `{tracepoint}`"),
                program.attach_raw_tracepoint(tracepoint),
            )?;
            self.links.push(link);
        }
        Ok(())
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
