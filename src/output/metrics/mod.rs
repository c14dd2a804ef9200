//! The numbers for Prometheus. Nothing here knows where they come from.

mod bounded;
mod crashes;
mod created;
mod labels;
mod process;
#[cfg(test)]
mod tests;
mod text;

use std::sync::atomic::AtomicU64;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use prometheus_client::metrics::counter::Counter;
use prometheus_client::metrics::family::Family;
use prometheus_client::metrics::gauge::Gauge;
use prometheus_client::metrics::info::Info;
use prometheus_client::registry::Registry;

use bounded::Bounded;
#[cfg(test)]
pub(crate) use crashes::CRASH_SERIES_MAX;
use crashes::Crashes;
pub(crate) use crashes::GroupTotal;
pub(super) use created::Created;
use labels::DropLabels;
pub(crate) use labels::{ExecutableLabels, FaultLabels, ProcessLabels, SentLabels};
pub(super) use text::{openmetrics, text_format};

use process::ProcessMetrics;

/// How many series of `faultline_signals_sent_total` have names. Names are bounded, but their pairs are their square.
pub(crate) const SENT_SERIES_MAX: usize = 1000;

/// All numbers of crashes since the start.
#[derive(Clone, Debug, Default)]
pub(crate) struct Totals {
    /// By group: those that have had signals since the last time.
    pub groups: Vec<GroupTotal>,
    /// The numbers of groups that come no more.
    pub gone: Vec<u64>,
    /// What found no group, since the last time.
    pub rests: Vec<GroupTotal>,
    /// How many groups the kernel's table has.
    pub groups_in_table: usize,
    /// The room for groups.
    pub groups_limit: u32,
    /// Signals that the filters left out.
    pub filtered: u64,
    /// Stage, reason, count.
    pub dropped: Vec<Dropped>,
    /// Seconds since 1970; `None` means no crash yet.
    pub last_crash: Option<f64>,
}

/// What was lost on the way since the start: stage, reason, count.
pub(crate) type Dropped = (&'static str, &'static str, u64);

/// What is counted besides crashes.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct MetricSets {
    /// Signals that are sent.
    pub signals: bool,
    /// Page faults.
    pub pagefaults: bool,
    /// Calls that make memory executable.
    pub executable_memory: bool,
}

/// The registry and its metrics. Counters only ever grow: each update adds what is new.
pub(crate) struct Metrics {
    registry: Arc<Mutex<Registry>>,
    crashes: Crashes,
    filtered: Counter,
    groups: Gauge,
    groups_limit: Gauge,
    dropped: Family<DropLabels, Counter>,
    last_crash: Gauge<f64, AtomicU64>,
    summaries: Counter,
    sent: Bounded<SentLabels>,
    faults: Bounded<FaultLabels>,
    major_faults: Bounded<ProcessLabels>,
    executable: Bounded<ExecutableLabels>,
}

impl Metrics {
    /// Metrics without a value yet. `started`: seconds since 1970. `max_names`: how many executables, and how many names of
    /// processes in each other metric, get a label of their own.
    pub(crate) fn new(started: f64, max_names: usize, beside: MetricSets) -> Self {
        let metrics = Self {
            registry: Arc::default(),
            crashes: Crashes::new(max_names),
            filtered: Counter::default(),
            groups: Gauge::default(),
            groups_limit: Gauge::default(),
            dropped: Family::default(),
            last_crash: Gauge::default(),
            summaries: Counter::default(),
            sent: Bounded::new(max_names, SENT_SERIES_MAX),
            faults: Bounded::new(max_names, usize::MAX),
            major_faults: Bounded::new(max_names, usize::MAX),
            executable: Bounded::new(max_names, usize::MAX),
        };
        Self { registry: Arc::new(Mutex::new(metrics.register(started, beside))), ..metrics }
    }

    fn register(&self, started: f64, beside: MetricSets) -> Registry {
        let mut all = Registry::default();
        all.register_collector(Box::new(ProcessMetrics));
        let registry = all.sub_registry_with_prefix("faultline");
        registry.register("build", "The faultline that runs", Info::new(vec![("version", env!("CARGO_PKG_VERSION"))]));
        let start_time: Gauge<f64, AtomicU64> = Gauge::default();
        start_time.set(started);
        registry.register("start_time_seconds", "When counting began, seconds since 1970", start_time);
        self.crashes.register(registry);
        registry.register("signals_filtered", "Watched signals that the filters left out", self.filtered.clone());
        registry.register("crash_groups", "Groups in the kernel's table", self.groups.clone());
        registry.register("crash_groups_limit", "Room for groups in the kernel's table", self.groups_limit.clone());
        registry.register(
            "events_dropped",
            "Events counted in no group of their own, missing from records or not seen, by stage and reason",
            self.dropped.clone(),
        );
        registry.register(
            "last_crash_timestamp_seconds",
            "When the last process was ended by a signal, seconds since 1970; 0 before the first",
            self.last_crash.clone(),
        );
        registry.register(
            "summaries",
            "Summaries of crashes, and heartbeats, that were written",
            self.summaries.clone(),
        );
        if beside.signals {
            let help = "Signals by sender and target, which are names of processes";
            self.sent.register(registry, "signals_sent", help);
        }
        if beside.pagefaults {
            let help = "Page faults by process name and by what they were";
            self.faults.register(registry, "page_faults", help);
            let help = "Page faults that waited for a disk, by process name";
            self.major_faults.register(registry, "major_page_faults", help);
        }
        if beside.executable_memory {
            let help = "Calls that made anonymous memory executable, by process name";
            self.executable.register(registry, "executable_memory_calls", help);
        }
        all
    }

    /// What a server needs to answer.
    pub(crate) fn registry(&self) -> Arc<Mutex<Registry>> {
        self.registry.clone()
    }

    /// Brings what was lost on the way up to date.
    pub(crate) fn update_dropped(&self, dropped: impl IntoIterator<Item = Dropped>) {
        let _held = hold(&self.registry);
        self.raise_dropped(dropped);
    }

    fn raise_dropped(&self, dropped: impl IntoIterator<Item = Dropped>) {
        for (stage, reason, count) in dropped {
            raise(&self.dropped.get_or_create(&DropLabels { stage, reason }), count);
        }
    }

    /// Brings what is known of crashes up to date.
    pub(crate) fn update(&mut self, totals: &Totals) {
        let _held = hold(&self.registry);
        self.crashes.update(&totals.groups, &totals.rests);
        self.crashes.forget(&totals.gone);
        raise(&self.filtered, totals.filtered);
        self.raise_dropped(totals.dropped.iter().copied());
        self.groups.set(i64::try_from(totals.groups_in_table).unwrap_or(i64::MAX));
        self.groups_limit.set(i64::from(totals.groups_limit));
        if let Some(last) = totals.last_crash {
            self.last_crash.set(last);
        }
    }

    /// A summary or a heartbeat was written.
    pub(crate) fn add_summary(&self) {
        self.summaries.inc();
    }

    /// Adds signals that were sent.
    pub(crate) fn add_sent(&mut self, rows: impl IntoIterator<Item = (SentLabels, u64)>) {
        self.sent.add(rows);
    }

    /// Adds page faults, and the major ones among them.
    pub(crate) fn add_faults(
        &mut self,
        faults: impl IntoIterator<Item = (FaultLabels, u64)>,
        majors: impl IntoIterator<Item = (ProcessLabels, u64)>,
    ) {
        let _held = hold(&self.registry);
        self.faults.add(faults);
        self.major_faults.add(majors);
    }

    /// Adds calls that made memory executable.
    pub(crate) fn add_executable(&mut self, rows: impl IntoIterator<Item = (ExecutableLabels, u64)>) {
        self.executable.add(rows);
    }
}

/// As long as it is held nobody reads the metrics: what one event raises is seen as a whole.
fn hold(registry: &Mutex<Registry>) -> MutexGuard<'_, Registry> {
    registry.lock().unwrap_or_else(PoisonError::into_inner)
}

fn raise(counter: &Counter, to: u64) {
    counter.inc_by(to.saturating_sub(counter.get()));
}
