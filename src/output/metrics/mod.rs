//! The numbers for Prometheus. Nothing here knows where they come from.

mod bounded;
mod created;
mod labels;
mod process;
#[cfg(test)]
mod tests;
mod text;

use std::collections::{HashMap, HashSet};
use std::sync::atomic::AtomicU64;
use std::sync::{Arc, Mutex};

use prometheus_client::metrics::counter::Counter;
use prometheus_client::metrics::family::Family;
use prometheus_client::metrics::gauge::Gauge;
use prometheus_client::metrics::info::Info;
use prometheus_client::registry::Registry;

use bounded::{Bounded, BoundedExecutables, Executable};
pub(super) use created::Created;
use labels::{CrashLabels, DeliveryLabels, DropLabels};
pub(crate) use labels::{ExecutableLabels, FaultLabels, ProcessLabels, SentLabels};
pub(super) use text::{openmetrics, text_format};

use process::ProcessMetrics;

/// How many series of `faultline_signals_sent_total` have names. Names are bounded, but their pairs are their square.
pub(crate) const SENT_SERIES_MAX: usize = 1000;

/// How many series `faultline_crashes_total` has at most.
pub(crate) const CRASH_SERIES_MAX: usize = 4096;

/// Of these, for what has no label of its own: a signal with its code is one of fewer kinds than that.
const OTHER_SERIES_MAX: usize = 256;

/// One group's numbers since the start.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct GroupTotal {
    /// The group's number: no other group gets it.
    pub id: u64,
    /// `SIGSEGV`
    pub signal: String,
    /// `SEGV_MAPERR`; empty: the kernel keeps none.
    pub code: String,
    /// What became of the signals.
    pub disposition: &'static str,
    /// They ended their process.
    pub is_death: bool,
    /// The executable's file name, or the process's where that is unknown.
    pub executable: String,
    /// The executable and the user are known; false: it is the sum of several.
    pub is_named: bool,
    /// The user that its processes ran as.
    pub uid: u32,
    /// Signals since the start, or since the last time where they found no group.
    pub count: u64,
}

/// All numbers of crashes since the start.
#[derive(Clone, Debug, Default)]
pub(crate) struct Totals {
    /// By group: those in the kernel's table, and those that have left it since the last time.
    pub groups: Vec<GroupTotal>,
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
    deliveries: Family<DeliveryLabels, Counter>,
    crashes: Family<CrashLabels, Counter>,
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
    /// By group: what has been added, and to which executable and user; `None` means that it had no label of its own. That
    /// stays, whatever the group's name is later.
    added: HashMap<u64, (u64, Option<Executable>)>,
    executables: BoundedExecutables,
    /// The series of crashes of each executable that has a label.
    series: HashMap<Executable, HashSet<CrashLabels>>,
}

impl Metrics {
    /// Metrics without a value yet. `started`: seconds since 1970. `max_names`: how many executables, and how many names of
    /// processes in each other metric, get a label of their own.
    pub(crate) fn new(started: f64, max_names: usize, beside: MetricSets) -> Self {
        let metrics = Self {
            registry: Arc::default(),
            deliveries: Family::default(),
            crashes: Family::default(),
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
            added: HashMap::new(),
            executables: BoundedExecutables::new(max_names),
            series: HashMap::new(),
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
        registry.register("signals_delivered", "Watched signals by what became of them", self.deliveries.clone());
        registry.register(
            "crashes",
            "Signals that ended a process, at once or after a handler took them, by executable and user",
            self.crashes.clone(),
        );
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
        for (stage, reason, count) in dropped {
            raise(&self.dropped.get_or_create(&DropLabels { stage, reason }), count);
        }
    }

    /// Brings what is known of crashes up to date.
    pub(crate) fn update(&mut self, totals: &Totals) {
        self.executables.begin_update();
        let mut added = std::mem::take(&mut self.added);
        // What has a label first, so that it does not leave for what has none.
        for group in &totals.groups {
            let (before, own) = added.get(&group.id).cloned().unwrap_or_default();
            let (name, uid) = own.unwrap_or_else(|| (group.executable.clone(), group.uid));
            if group.count > before {
                self.executables.keep(&name, uid);
            }
        }
        for group in &totals.groups {
            let (before, identity) = match added.remove(&group.id) {
                Some(known) => known,
                None => (0, Some((group.executable.clone(), group.uid))),
            };
            let identity = self.add_crashes(group, group.count.saturating_sub(before), identity);
            self.added.insert(group.id, (group.count, identity));
        }
        for rest in &totals.rests {
            self.add_crashes(rest, rest.count, rest.is_named.then(|| (rest.executable.clone(), rest.uid)));
        }
        raise(&self.filtered, totals.filtered);
        self.update_dropped(totals.dropped.iter().copied());
        self.groups.set(i64::try_from(totals.groups_in_table).unwrap_or(i64::MAX));
        self.groups_limit.set(i64::from(totals.groups_limit));
        if let Some(last) = totals.last_crash {
            self.last_crash.set(last);
        }
    }

    /// Adds crashes of an executable; returns it if it has a label of its own.
    fn add_crashes(&mut self, of: &GroupTotal, count: u64, executable: Option<Executable>) -> Option<Executable> {
        let (signal, code) = (of.signal.clone(), of.code.clone());
        let labels = DeliveryLabels { signal: signal.clone(), code: code.clone(), disposition: of.disposition };
        self.deliveries.get_or_create(&labels).inc_by(count);
        if !of.is_death || count == 0 {
            return executable;
        }
        let own = executable.filter(|(name, uid)| self.has_label(name, *uid));
        let (executable, uid) = match &own {
            Some((name, uid)) => (name.clone(), uid.to_string()),
            None => BoundedExecutables::other(),
        };
        let mut labels = CrashLabels { signal, code, executable, uid };
        if let Some(executable) = &own
            && !self.takes(executable, &labels)
        {
            (labels.executable, labels.uid) = BoundedExecutables::other();
        }
        self.crashes.get_or_create(&labels).inc_by(count);
        own
    }

    /// Does the executable have this series, or get it? Its first one it gets in any case.
    fn takes(&mut self, executable: &Executable, labels: &CrashLabels) -> bool {
        let all: usize = self.series.values().map(HashSet::len).sum();
        let is_full = all + self.executables.most() + OTHER_SERIES_MAX >= CRASH_SERIES_MAX;
        let series = self.series.entry(executable.clone()).or_default();
        if is_full && !series.is_empty() && !series.contains(labels) {
            return false;
        }
        series.insert(labels.clone());
        true
    }

    /// Has the executable a label, or does it get one now? The series of one that leaves for it end.
    fn has_label(&mut self, name: &str, uid: u32) -> bool {
        if self.executables.keep(name, uid) {
            return true;
        }
        let Some(leaves) = self.executables.admit(name, uid) else { return false };
        for labels in leaves.and_then(|executable| self.series.remove(&executable)).into_iter().flatten() {
            self.crashes.remove(&labels);
        }
        true
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
        self.faults.add(faults);
        self.major_faults.add(majors);
    }

    /// Adds calls that made memory executable.
    pub(crate) fn add_executable(&mut self, rows: impl IntoIterator<Item = (ExecutableLabels, u64)>) {
        self.executable.add(rows);
    }
}

fn raise(counter: &Counter, to: u64) {
    counter.inc_by(to.saturating_sub(counter.get()));
}
