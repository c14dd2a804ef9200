//! Reads the probe's ring and makes records and pages.

use std::collections::BTreeMap;
use std::io::ErrorKind;
use std::os::fd::{AsFd, BorrowedFd};
use std::time::{Duration, Instant};

use anyhow::{Context, Result};

use super::arguments;
use super::fetch::Fetcher;
use super::item::{Emit, Item, Limits};
use super::read::{pages_read, read_range, read_whole};
use super::record::{Mapping, MappingCall, PageCounts, Source, Trigger};
use super::sample::{account, looked_to, range, region_of};
use super::space::{PageReading, Space};
use super::target::{is_there, is_volatile};
use super::unexplained::{self, Unexplained};
use super::waiting::Waiting;
use crate::errno;
use crate::evidence::Region;
use crate::hex::Hex;
use crate::host;
use crate::output::Timestamp;
use crate::page;
use crate::probe::abi::memory::{Sample, fl_call, fl_exec_fault, fl_mapping, fl_mapping_flag, fl_page};
use crate::probe::losses::{MEMORY, READS_FAILED};
use crate::probe::memory::{Counters, Probe};
use crate::probe::{Losses, Ring};
use crate::record::Head;
use crate::text;

/// How many samples are taken at once: 2 MiB of pages.
pub(super) const BATCH: usize = 512;

/// How much volatile memory is read on one tick: 16 MiB.
const TICK_BYTES: u64 = 16 << 20;

/// How often all mappings are compared with the calls that were seen.
const AUDIT_INTERVAL: Duration = Duration::from_secs(1);

/// What is looked at.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Look {
    /// Memory that can change by itself.
    Changes,
    /// All mappings, too.
    All,
    /// The same, and there is no look after it.
    Last,
}

/// Reads an attached probe.
pub(super) struct Collector<'run> {
    probe: &'run Probe,
    ring: Ring<Sample>,
    limits: Limits,
    host: String,
    spaces: BTreeMap<u32, Space>,
    fetcher: Fetcher,
    waiting: Waiting,
    /// What user space itself could not do.
    own: Losses,
    next_audit: Instant,
    ended: Vec<u32>,
}

impl<'run> Collector<'run> {
    /// Begins to read `probe`.
    pub(super) fn new(probe: &'run Probe, limits: Limits) -> Result<Self> {
        let ring = probe.ring()?;
        Ok(Self {
            probe,
            ring,
            limits,
            host: host::name(),
            spaces: BTreeMap::new(),
            fetcher: Fetcher::new(),
            waiting: Waiting::default(),
            own: Losses::none(&MEMORY),
            next_audit: Instant::now() + AUDIT_INTERVAL,
            ended: Vec::new(),
        })
    }

    /// Begins with a process that was there before us: all of its executable memory.
    pub(super) fn attach(&mut self, pid: u32, emit: Emit<'_>) -> Result<()> {
        let mut space = Space::new(pid);
        let regions = match self.fetcher.regions(pid) {
            Ok(regions) => regions,
            // It has ended since it was checked: what it did meanwhile is in the ring.
            Err(_) if !is_there(pid) => {
                self.ended.push(pid);
                return Ok(());
            }
            Err(error) => {
                let is_refused = error.kind() == ErrorKind::PermissionDenied;
                let cure = if is_refused { ", run as root or with CAP_SYS_PTRACE" } else { "" };
                return Err(error).with_context(|| format!("failed to read the mappings of PID {pid}{cure}"));
            }
        };
        space.is_volatile = regions.iter().any(is_volatile);
        // FL_PROCESS_HAS_CODE, FL_PROCESS_VOLATILE
        self.probe.know(pid, 1 | u32::from(space.is_volatile) << 1)?;
        let timestamp = Timestamp::now();
        for region in regions.iter().filter(|region| region.permissions.execute) {
            space.cover.add(region.start, region.end);
            let tally =
                read_whole((&mut space, &mut self.fetcher), region, self.limits, (Trigger::Attach, timestamp), emit)?;
            lose(&mut self.own, tally);
        }
        self.spaces.insert(pid, space);
        self.watch_changes()
    }

    /// Takes one batch of the samples that are there; returns how many.
    pub(super) fn take(&mut self, emit: Emit<'_>) -> Result<usize> {
        let samples = self.ring.take(BATCH)?;
        let taken = samples.len();
        for sample in samples {
            match sample {
                Sample::Page(page) => self.wait(page, emit)?,
                Sample::Mapping(mapping) => self.map(&mapping, emit)?,
                Sample::Fault(fault) => self.fetch(&fault, emit)?,
                Sample::Fork(life) => {
                    let child = match self.spaces.get(&life.ppid) {
                        Some(parent) => parent.fork(life.pid),
                        None => Space::new(life.pid),
                    };
                    self.spaces.insert(life.pid, child);
                }
                Sample::End(life) => {
                    self.report_last(life.pid, emit)?;
                    self.spaces.remove(&life.pid);
                    self.ended.push(life.pid);
                    self.watch_changes()?;
                }
            }
        }
        Ok(taken)
    }

    /// Takes what a full ring may hold, and no more.
    pub(super) fn take_all(&mut self, emit: Emit<'_>) -> Result<()> {
        let mark = self.ring.mark();
        while self.take(emit)? == BATCH && !self.ring.is_past(mark) {}
        Ok(())
    }

    /// Keeps a page until the record that names it comes.
    fn wait(&mut self, page: Box<fl_page>, emit: Emit<'_>) -> Result<()> {
        if self.waiting.is_full() {
            self.give_up_waiting(emit)?;
        }
        self.waiting.add(page);
        Ok(())
    }

    /// Reports the pages whose record was lost, without it.
    fn give_up_waiting(&mut self, emit: Emit<'_>) -> Result<()> {
        for page in self.waiting.take_all() {
            self.own.add("pages_nameless", 1);
            let reading = PageReading {
                timestamp: Timestamp::from_boottime(page.timestamp_ns)?,
                trigger: Trigger::after(page.call.into()),
                region: None,
                only_changed: false,
            };
            let space = self.spaces.entry(page.pid).or_insert_with(|| Space::new(page.pid));
            if let Some(page) = space.page(page.address, &page.bytes, Source::Kernel, reading) {
                emit(Item::Page(Box::new(page)))?;
            }
        }
        Ok(())
    }

    fn map(&mut self, mapping: &fl_mapping, emit: Emit<'_>) -> Result<()> {
        let pages = self.waiting.take(mapping);
        let has_vma = mapping.vma().is_some();
        let is_replaced =
            mapping.call == fl_call::FL_CALL_EXEC && mapping.has(fl_mapping_flag::FL_HAS_RESULT) && !has_vma;
        if is_replaced {
            self.report_last(mapping.pid, emit)?;
        }
        let space = self.spaces.entry(mapping.pid).or_insert_with(|| Space::new(mapping.pid));
        if is_replaced {
            space.execute();
            return Ok(());
        }
        let call = MappingCall::from(mapping.call);
        let is_look = mapping.has(fl_mapping_flag::FL_IS_LOOK);
        let region = has_vma.then(|| region_of(mapping));
        let timestamp = Timestamp::from_boottime(mapping.timestamp_ns)?;
        let reading = PageReading {
            timestamp,
            trigger: if is_look { Trigger::before(call) } else { Trigger::after(call) },
            region: region.as_ref(),
            only_changed: is_look,
        };
        let mut have = pages_read(space, mapping, &pages, reading, emit)?;
        if is_look {
            return Ok(());
        }
        let (start, end) = range(mapping);
        if mapping.pages_lost == 0 {
            have.looked_to = looked_to(mapping, start, end);
        }
        let is_ok = !errno::is_error(mapping.result);
        let code = region.as_ref().filter(|region| is_ok && region.permissions.execute);
        if is_ok {
            account(space, mapping, code.is_some());
            space.unexplained.explain(&space.cover);
        }
        if code.is_some_and(|code| is_volatile(code) || code.end < end) {
            space.is_volatile = true;
        }
        let code = code.filter(|_| self.limits.pages);
        let (fetcher, max_bytes) = (&mut self.fetcher, self.limits.max_bytes);
        let read = |code| read_range((space, fetcher), code, (start, end), &have, max_bytes, reading, emit);
        let tally = code.map(read).transpose()?;
        lose(&mut self.own, tally);
        emit(Item::Mapping(Box::new(self.record(mapping, call, region.as_ref(), timestamp, tally))))?;
        self.watch_changes()
    }

    fn record(
        &self,
        mapping: &fl_mapping,
        call: MappingCall,
        region: Option<&Region>,
        timestamp: Timestamp,
        pages: Option<PageCounts>,
    ) -> Mapping {
        let (start, end) = range(mapping);
        let is_error = errno::is_error(mapping.result);
        let error = is_error.then(|| nix::errno::Errno::from_raw(-(mapping.result as i32)));
        let file_offset = |region: &Region| Hex(region.file_offset + start.saturating_sub(region.start));
        Mapping {
            head: Head::new("mapping", timestamp, &self.host),
            pid: mapping.pid,
            tid: mapping.tid,
            ppid: mapping.ppid,
            comm: text::name(&mapping.comm),
            call,
            arguments: arguments::name(call, &mapping.arguments),
            address: (call != MappingCall::Memfd).then_some(Hex(start)),
            length: (call != MappingCall::Memfd && call != MappingCall::Shmdt).then_some(end - start),
            permissions: region.map(|region| region.permissions.to_string()),
            // An address that a call returns is in `address`.
            result: Some(if is_error || call == MappingCall::Memfd { mapping.result } else { 0 }),
            error: error.map(|error| format!("{error:?}")),
            mapping_name: region.and_then(Region::name),
            offset: region.filter(|region| region.file().is_some()).map(file_offset),
            pages,
        }
    }

    /// The process executes a page that it had no access to before.
    fn fetch(&mut self, fault: &fl_exec_fault, emit: Emit<'_>) -> Result<()> {
        let Some(space) = self.spaces.get_mut(&fault.pid).filter(|space| space.is_volatile) else { return Ok(()) };
        if !self.limits.pages {
            return Ok(());
        }
        let regions = self.fetcher.regions(fault.pid).unwrap_or_default();
        let Some(region) = regions.iter().find(|region| region.holds(fault.address)) else {
            return Ok(());
        };
        if !is_volatile(region) {
            return Ok(());
        }
        let reading = PageReading {
            timestamp: Timestamp::from_boottime(fault.timestamp_ns)?,
            trigger: Trigger::ExecuteFault,
            region: Some(region),
            only_changed: true,
        };
        match space.read(page::start(fault.address), reading, &mut self.fetcher) {
            Some(page) => emit(Item::Page(Box::new(page))),
            None => Ok(()),
        }
    }

    /// Watches what memory does by itself while there is some that can.
    fn watch_changes(&self) -> Result<()> {
        self.probe.watch_changes(self.has_changes())
    }

    /// Is there memory to read that can change by itself?
    fn has_changes(&self) -> bool {
        self.limits.pages && self.spaces.values().any(|space| space.is_volatile)
    }

    /// How soon [`Collector::tick`] wants to be called: `interval` while there is memory that can change by itself.
    pub(super) fn patience(&self, interval: Duration) -> Duration {
        if self.has_changes() { interval } else { AUDIT_INTERVAL }
    }

    /// Reads memory that can change by itself again, and now and then looks for mappings that no call explains.
    pub(super) fn tick(&mut self, emit: Emit<'_>) -> Result<()> {
        let is_audit = Instant::now() >= self.next_audit;
        if is_audit {
            self.next_audit = Instant::now() + AUDIT_INTERVAL;
        }
        self.look(if is_audit { Look::All } else { Look::Changes }, emit)
    }

    /// The run is to end now: nothing that blocks the reader is waited for.
    pub(super) fn hurry(&mut self) {
        self.fetcher.hurry();
    }

    /// Reads everything for the last time.
    pub(super) fn finish(&mut self, emit: Emit<'_>) -> Result<()> {
        self.take_all(emit)?;
        self.look(Look::Last, emit)?;
        self.give_up_waiting(emit)
    }

    fn look(&mut self, look: Look, emit: Emit<'_>) -> Result<()> {
        let is_audit = look != Look::Changes;
        // Samples in the ring explain mappings that are there already.
        self.take_all(emit)?;
        let pids: Vec<u32> =
            self.spaces.iter().filter(|(_, space)| is_audit || space.is_volatile).map(|(pid, _)| *pid).collect();
        let mut room = TICK_BYTES;
        for pid in pids {
            // It may have ended meanwhile.
            let Ok(found) = self.fetcher.regions(pid) else {
                if look == Look::Last {
                    self.take_all(emit)?;
                    self.report_last(pid, emit)?;
                }
                continue;
            };
            if is_audit {
                self.audit(pid, &found, look, emit)?;
            }
            let Some(space) = self.spaces.get_mut(&pid) else { continue };
            space.is_volatile = found.iter().any(is_volatile);
            if self.limits.pages && space.is_volatile {
                let mut pass = |page| emit(Item::Page(Box::new(page)));
                space.look_again(&found, (&mut self.fetcher, &mut room), Timestamp::now(), &mut pass)?;
            }
        }
        self.watch_changes()
    }

    /// Compares a process's mappings with the calls that were seen: reports what an earlier look has found and no call has explained since,
    /// and reads what is found now. What is found by the last look is reported at once.
    fn audit(&mut self, pid: u32, found: &[Region], look: Look, emit: Emit<'_>) -> Result<()> {
        let Some(space) = self.spaces.get_mut(&pid) else { return Ok(()) };
        let judged = space.unexplained.judge(found, &mut space.cover);
        let before = Unexplained::among(found, &space.cover);
        self.report(judged, emit)?;
        if before.is_empty() {
            return Ok(());
        }
        self.take_all(emit)?;
        let Some(space) = self.spaces.get_mut(&pid) else { return Ok(()) };
        let after = Unexplained::among(found, &space.cover);
        // Its memory is read now: it may be wiped before the next look.
        for region in before.into_iter().filter(|region| after.contains(region)) {
            let timestamp = Timestamp::now();
            let tally =
                read_whole((space, &mut self.fetcher), &region, self.limits, (Trigger::Unseen, timestamp), emit)?;
            lose(&mut self.own, tally);
            let record = unexplained::record(pid, &region, &self.host, timestamp, tally);
            space.unexplained.add(&region, record);
        }
        let judged = match look {
            Look::Last => space.unexplained.judge(found, &mut space.cover),
            Look::Changes | Look::All => Vec::new(),
        };
        self.report(judged, emit)
    }

    /// Reports mappings that no call explains.
    fn report(&mut self, unseen: Vec<Mapping>, emit: Emit<'_>) -> Result<()> {
        self.own.add("mappings_unseen", unseen.len() as u64);
        unseen.into_iter().try_for_each(|mapping| emit(Item::Mapping(Box::new(mapping))))
    }

    /// Reports those of a process that ends, or whose memory is replaced: all of its calls were seen.
    fn report_last(&mut self, pid: u32, emit: Emit<'_>) -> Result<()> {
        let Some(space) = self.spaces.get_mut(&pid) else { return Ok(()) };
        let judged = space.unexplained.judge(&[], &mut space.cover);
        self.report(judged, emit)
    }

    /// Have all of these processes ended?
    pub(super) fn have_ended(&self, pids: &[u32]) -> bool {
        !pids.is_empty() && pids.iter().all(|pid| self.ended.contains(pid))
    }

    /// The counters since the start, here and in the kernel.
    pub(super) fn counters(&self) -> Result<Counters> {
        let counters = self.probe.counters()?;
        let losses = counters.losses.plus(&self.own).with(READS_FAILED, self.fetcher.failed());
        Ok(Counters { losses, ..counters })
    }
}

impl AsFd for Collector<'_> {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.ring.as_fd()
    }
}

/// Counts pages that could not be read, or were not to be.
fn lose(losses: &mut Losses, tally: Option<PageCounts>) {
    let tally = tally.unwrap_or_default();
    losses.add("pages_gone", tally.gone);
    losses.add("pages_left_out", tally.left_out);
}
