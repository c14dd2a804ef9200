//! Reads the probe's maps and makes records and summaries.

use std::os::fd::{AsFd, BorrowedFd};
use std::time::{Duration, Instant};

use anyhow::{Result, bail};

use super::ending::{self, Alternatives, Ended, Endings, Proved};
use super::labels::{self, Names};
use super::ledger::{GroupLedger, Look};
use super::modules::Modules;
use super::pending::{Pending, PendingSample};
use super::stacks::Stacks;
use super::table::{RELIEF, Table, group_of};
use super::{Decoder, Options, RecordedCalls, sample};
use crate::debuginfod::{Client, Settings};
use crate::evidence::{Evidence, Failure};
use crate::ledger;
use crate::naming::{Named, Naming, WAIT_MAX};
use crate::output::{Timestamp, Totals, boottime_ns};
use crate::probe::abi::{Sample, fl_crash, fl_disposition};
use crate::probe::crash::Probe;
use crate::probe::losses::{self, CAUGHT_UNDECIDED, FILES_NOT_KEPT, GROUP_TABLE_FULL, SYMBOLS_FAILED};
use crate::probe::{Counters, Group, Losses, Ring};
use crate::record::crash::{Crash, Disposition};
use crate::record::summary::Summary;
use crate::session::BATCH;

/// How long a summary waits for the names of the samples before it: at most half of the time between two, as it must come in time.
const SUMMARY_WAIT: Duration = Duration::from_millis(400);

/// How long the end of a run waits for the names of the last samples: as long as one may wait for those before it on a busy host.
const END_WAIT: Duration = WAIT_MAX;

/// How long that takes before faultline says that it waits.
const UNSAID: Duration = Duration::from_secs(1);

/// The same if a signal has asked for the end.
const HASTE_WAIT: Duration = Duration::from_millis(600);

/// Says which kernel calls were recorded before a signal, whose evidence is made only if it is asked for.
type Recorder<'a> = dyn FnMut(&dyn Fn() -> Evidence, Disposition) -> Result<Option<RecordedCalls>> + 'a;

/// What becomes of a record.
type Write<'a> = dyn FnMut(Crash) -> Result<()> + 'a;

/// Reads an attached probe.
pub(crate) struct Collector<'run> {
    probe: &'run Probe,
    decoder: Decoder,
    ring: Ring<Sample>,
    stacks: Stacks,
    endings: Endings,
    /// Samples that are being named.
    pending: Pending,
    /// The run is to end now.
    is_hasty: bool,
    /// Nothing but errors goes to standard error.
    is_quiet: bool,
    /// The last summary has waited for names in vain, and none has come since.
    is_kept: bool,
    ledger: GroupLedger,
    handled: bool,
    table: Table,
    /// When the last death was, CLOCK_BOOTTIME; `None` means that there was none.
    last_death_ns: Option<u64>,
    /// Losses of user space's own, since the start.
    own_losses: Losses,
    /// Samples of the kernel program that could not be read.
    unshown: u64,
}

/// The service that names what crashes.
fn naming(options: &Options) -> Result<Naming> {
    if !options.debuginfod {
        return Naming::new(options.debug_dirs.clone());
    }
    let Some(settings) = Settings::from_environment()? else {
        bail!("failed to fetch debug files: --debuginfod needs the URL of a server in DEBUGINFOD_URLS");
    };
    Naming::with_servers(options.debug_dirs.clone(), Client::new(settings)?)
}

impl<'run> Collector<'run> {
    /// Begins to read `probe`.
    ///
    /// # Errors
    /// If the ring can't be mapped.
    pub(crate) fn new(probe: &'run Probe, decoder: Decoder, options: &Options) -> Result<Self> {
        let ring = probe.ring()?;
        let pending = Pending::new(naming(options)?, ring.as_fd())?;
        let ledger = GroupLedger::new(boottime_ns()?, probe.group_limit())?;
        Ok(Self {
            probe,
            decoder,
            ring,
            stacks: Stacks::default(),
            endings: Endings::default(),
            pending,
            is_hasty: false,
            is_quiet: options.common.quiet,
            is_kept: false,
            ledger,
            handled: options.handled,
            table: Table::new(probe.group_limit(), options.summary.is_some()),
            last_death_ns: None,
            own_losses: Losses::none(&losses::CRASH),
            unshown: 0,
        })
    }

    /// From now on, files that go while processes run them are kept: what crashes later has names.
    pub(crate) fn keep_files(&mut self) {
        self.pending.keep_files();
    }

    /// Takes one batch of the samples that are there, and makes records of those that have been named; returns how many samples were
    /// taken. Each is a record, except those that only name their group.
    ///
    /// # Errors
    /// What `write` says, and where the ring can't be read.
    pub(crate) fn take(&mut self, mut write: impl FnMut(Crash) -> Result<()>) -> Result<usize> {
        self.take_batch(false, &mut |_, _| Ok(None), &mut write)
    }

    /// The same. `recorded` says which kernel calls were recorded before a signal.
    ///
    /// # Errors
    /// As [`Collector::take`], and what `recorded` says.
    pub(crate) fn take_with(
        &mut self,
        mut recorded: impl FnMut(&Evidence, Disposition) -> Result<Option<RecordedCalls>>,
        mut write: impl FnMut(Crash) -> Result<()>,
    ) -> Result<usize> {
        self.take_batch(false, &mut |evidence, disposition| recorded(&evidence(), disposition), &mut write)
    }

    /// `is_last`: there is time to wait for room, and nobody is to give up names for it.
    fn take_batch(&mut self, is_last: bool, recorded: &mut Recorder<'_>, write: &mut Write<'_>) -> Result<usize> {
        self.write_named(Instant::now(), write)?;
        let had_room = self.pending.has_room();
        let may_take = had_room || (!is_last && self.pending.may_take(self.ring.is_half_full()));
        let samples = if may_take { self.ring.take(BATCH)? } else { Vec::new() };
        let taken = samples.len();
        for sample in samples {
            match sample {
                Sample::Crash(crash) if ending::is_alternative(&crash) => self.endings.add(crash),
                Sample::Crash(crash) => self.begin(crash, recorded)?,
                Sample::StackPage(page) => self.stacks.add(page),
                Sample::Modules(modules) => self.stacks.add_modules(modules),
            }
        }
        self.write_named(Instant::now(), write)?;
        if !had_room {
            while let Some((waiting, unnamed)) = self.pending.give_up_one() {
                self.finish(waiting, unnamed, Failure::Busy, write)?;
            }
        }
        self.pending.watch_ring(self.ring.as_fd())?;
        self.relieve()?;
        Ok(taken)
    }

    /// Has groups leave the kernel's table if somebody has much of it.
    ///
    /// # Errors
    /// If the kernel's numbers can't be read.
    pub(crate) fn relieve(&mut self) -> Result<()> {
        self.table.relieve(self.probe, &mut self.ledger, boottime_ns()?)
    }

    /// When that is to be done again; `None` means that the next sample shows it.
    pub(crate) fn next_relief(&self) -> Option<Instant> {
        self.table.next_relief()
    }

    /// Hands a sample to the namer.
    fn begin(&mut self, sample: Box<fl_crash>, recorded: &mut Recorder<'_>) -> Result<()> {
        let (stack, more) = self.stacks.take(&sample);
        let modules = Modules::of(&sample, &more);
        let others = self.endings.take(&sample);
        let identify = group_of(&sample).is_some_and(|group| self.table.knows(group));
        let disposition = Disposition::from(sample.disposition);
        let is_shown = disposition.is_death() || self.handled;
        let recorded =
            if is_shown { recorded(&|| self.decoder.unnamed(&sample, &modules), disposition)? } else { None };
        let group = group_of(&sample);
        let (mut prepared, mut job) = self.decoder.prepare(&sample, modules, stack, identify)?;
        let alternatives = Alternatives::add(&self.decoder, (&sample, &more), others, &mut job)?;
        if alternatives.is_some() {
            prepared.renew(&job);
        }
        let proved = Proved::default();
        let waiting = PendingSample { sample, group, prepared, recorded, is_shown, alternatives, proved };
        self.pending.add(sample::owner(&waiting.sample), waiting, job);
        Ok(())
    }

    /// Makes records of the samples that have been named, and of those that are until `until`.
    fn write_named(&mut self, until: Instant, write: &mut Write<'_>) -> Result<()> {
        while let Some((waiting, named)) = self.pending.next(until) {
            self.finish(waiting, named, Failure::Unavailable, write)?;
        }
        Ok(())
    }

    /// The same. While it waits, nobody is to take the table.
    fn wait_named(&mut self, until: Instant, write: &mut Write<'_>) -> Result<()> {
        let begun = Instant::now();
        let mut is_said = self.is_quiet;
        loop {
            let next = until.min(Instant::now() + RELIEF);
            self.write_named(next, write)?;
            self.relieve()?;
            if next == until || self.pending.is_empty() {
                return Ok(());
            }
            if !is_said && begun.elapsed() > UNSAID {
                is_said = true;
                say!("faultline: waiting for the names of the last records, {} s at most", END_WAIT.as_secs());
            }
        }
    }

    /// `failure`: why it has no names, if it has none.
    fn finish(&mut self, waiting: PendingSample, named: Named, failure: Failure, write: &mut Write<'_>) -> Result<()> {
        self.is_kept = false;
        if waiting.sample.disposition == fl_disposition::FL_DISPOSED_MAYBE_CAUGHT {
            return self.judge(waiting, named, failure, write);
        }
        self.complete(waiting, named, write)
    }

    /// Judges an end that was to be proved.
    fn judge(
        &mut self,
        mut waiting: PendingSample,
        mut named: Named,
        failure: Failure,
        write: &mut Write<'_>,
    ) -> Result<()> {
        let ended = ending::decide(waiting.alternatives.take(), &mut named, failure);
        waiting.group = self.table.judge(&mut self.ledger, &waiting.sample, ended.verdict());
        match ended {
            Ended::Exited | Ended::Undecided => {
                self.unshown += 1;
                Ok(())
            }
            Ended::Caught(proved) => self.complete(PendingSample { proved, ..waiting }, named, write),
            Ended::Instead { sample, prepared, named, proved } => {
                // What explains the fault doesn't explain this.
                let recorded = waiting.recorded.map(|recorded| RecordedCalls { cause: None, ..recorded });
                self.complete(PendingSample { sample, prepared: *prepared, recorded, proved, ..waiting }, *named, write)
            }
        }
    }

    fn complete(&mut self, waiting: PendingSample, named: Named, write: &mut Write<'_>) -> Result<()> {
        let PendingSample { sample, group, prepared, recorded, is_shown, proved, .. } = waiting;
        let mut found = self.decoder.gather(&sample, prepared, named);
        self.probe.know_libcs(&self.decoder.take_libcs())?;
        if !found.is_named() {
            self.own_losses.add(SYMBOLS_FAILED, 1);
        }
        // While it was named, its group may have left, and have been reported.
        if let Some(identity) = found.identity.take()
            && let Some(group) = group.filter(|&group| self.table.knows(group))
        {
            self.ledger.learn(group, identity, found.is_named());
        }
        if is_shown {
            write(self.decoder.record(&sample, &proved, found, recorded))?;
        }
        Ok(())
    }

    /// Waits a moment for the names of the samples that were taken: they describe the groups of a summary.
    ///
    /// # Errors
    /// As [`Collector::take`].
    pub(crate) fn settle(&mut self, interval: Duration, mut write: impl FnMut(Crash) -> Result<()>) -> Result<()> {
        // If the summary before has waited in vain, the namer is kept by one record.
        let wait = if self.is_kept { Duration::ZERO } else { SUMMARY_WAIT.min(interval / 2) };
        self.wait_named(Instant::now() + wait, &mut write)?;
        self.is_kept = !self.pending.is_empty();
        Ok(())
    }

    /// The run is to end now: records that get no names soon have none.
    pub(crate) fn hurry(&mut self) {
        self.is_hasty = true;
    }

    /// Takes what a full ring may hold, and no more, and makes records of all that was taken.
    ///
    /// # Errors
    /// As [`Collector::take`].
    pub(crate) fn take_last(&mut self, mut write: impl FnMut(Crash) -> Result<()>) -> Result<()> {
        self.take_rest(&mut |_, _| Ok(None), &mut write)
    }

    /// The same. `recorded` as for [`Collector::take_with`].
    ///
    /// # Errors
    /// As [`Collector::take_with`].
    pub(crate) fn take_last_with(
        &mut self,
        mut recorded: impl FnMut(&Evidence, Disposition) -> Result<Option<RecordedCalls>>,
        mut write: impl FnMut(Crash) -> Result<()>,
    ) -> Result<()> {
        self.take_rest(&mut |evidence, disposition| recorded(&evidence(), disposition), &mut write)
    }

    fn take_rest(&mut self, recorded: &mut Recorder<'_>, write: &mut Write<'_>) -> Result<()> {
        let until = Instant::now() + if self.is_hasty { HASTE_WAIT } else { END_WAIT };
        let mark = self.ring.mark();
        loop {
            let taken = self.take_batch(true, recorded, write)?;
            if self.ring.is_past(mark) || (taken == 0 && self.pending.has_room()) {
                break;
            }
            if !self.pending.has_room() {
                // One more has room when the first has its names, or goes without.
                match self.pending.next(until) {
                    Some((waiting, named)) => self.finish(waiting, named, Failure::Unavailable, write)?,
                    None => self.write_unnamed(write)?,
                }
            }
        }
        self.wait_named(until, write)?;
        self.write_unnamed(write)
    }

    fn write_unnamed(&mut self, write: &mut Write<'_>) -> Result<()> {
        for waiting in self.pending.give_up() {
            let named = waiting.prepared.unnamed(Failure::Ended);
            self.finish(waiting, named, Failure::Ended, write)?;
        }
        Ok(())
    }

    /// Counts what user space has lost itself.
    pub(crate) fn lost(&mut self, reason: &str, count: u64) {
        self.own_losses.add(reason, count);
    }

    /// The counters since the start, here and in the kernel.
    ///
    /// # Errors
    /// If a map can't be read.
    pub(crate) fn counters(&self) -> Result<Counters> {
        let counters = self.table.verdicts().correct(self.raw_counters()?);
        let losses = counters.losses.with(CAUGHT_UNDECIDED, self.table.verdicts().undecided());
        Ok(Counters { losses, records: counters.records.saturating_sub(self.unshown), ..counters })
    }

    /// The same as the kernel has it.
    fn raw_counters(&self) -> Result<Counters> {
        let counters = self.probe.counters()?;
        let losses = counters.losses.plus(&self.own_losses).with(FILES_NOT_KEPT, self.pending.files_not_kept());
        Ok(Counters { losses, ..counters })
    }

    /// All numbers of a look since the start, for metrics. Each look is asked once.
    ///
    /// # Errors
    /// If a clock can't be read.
    pub(crate) fn totals(&mut self, look: &Look) -> Result<Totals> {
        let groups = &look.groups;
        let is_fatal = |group: &&Group| group.total() > 0 && Disposition::from(group.facts.key.disposition).is_death();
        let grown: Vec<&Group> = groups.grown.iter().filter_map(|&at| groups.named.get(at)).collect();
        let last_ns = grown.iter().copied().filter(is_fatal).map(|group| group.facts.last_ns).max();
        self.last_death_ns = self.last_death_ns.max(last_ns);
        let last = self.last_death_ns.map(Timestamp::from_boottime).transpose()?;
        let names = if groups.rests.is_empty() { Names::default() } else { labels::names(&self.ledger, &groups.named) };
        Ok(Totals {
            groups: labels::in_turn(&self.ledger, grown)
                .into_iter()
                .filter(|group| group.total() > 0)
                .map(|group| labels::total(&self.ledger, group))
                .collect(),
            gone: groups.gone.iter().map(|id| id.number()).collect(),
            rests: groups.rests.iter().map(|rest| labels::rest(&self.ledger, rest, &names)).collect(),
            groups_in_table: groups.in_table,
            groups_limit: self.probe.group_limit(),
            filtered: look.counters.filtered,
            dropped: look.losses().dropped().collect(),
            last_crash: last.map(|moment| (moment.unix_ns() / 1000) as f64 / 1e6),
        })
    }

    /// Was anything lost that counts for `--strict`?
    ///
    /// # Errors
    /// If a map can't be read.
    pub(crate) fn lost_any(&self) -> Result<bool> {
        Ok(self.counters()?.losses.with(GROUP_TABLE_FULL, self.table.ungrouped(self.probe)?).lost_any())
    }
}

impl ledger::Ledger for Collector<'_> {
    type Look = Look;
    type Summary = Summary;

    fn look(&mut self, last: bool) -> Result<Look> {
        let counters = self.raw_counters()?;
        let groups = self.table.look(self.probe, &mut self.ledger, counters.matched, last)?;
        Ok(Look { boottime_ns: boottime_ns()?, groups, counters, last })
    }

    fn tell(&mut self, look: &Look) -> Result<Summary> {
        self.ledger.summarize(look, |group| self.table.stack(self.probe, group))
    }

    fn commit(&mut self, look: Look) -> Result<()> {
        self.ledger.commit(&look);
        if !look.last {
            self.table.commit(self.probe, &mut self.ledger, &look.groups, look.boottime_ns)?;
        }
        Ok(())
    }
}

impl AsFd for Collector<'_> {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.pending.as_fd()
    }
}
