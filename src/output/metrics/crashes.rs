//! `faultline_signals_delivered_total` and `faultline_crashes_total`: what each group has counted, under names whose number is bounded.

use std::collections::{HashMap, HashSet};

use prometheus_client::metrics::counter::Counter;
use prometheus_client::metrics::family::Family;
use prometheus_client::registry::Registry;

use super::bounded::{BoundedExecutables, Executable};
use super::labels::{CrashLabels, DeliveryLabels};

/// How many series `faultline_crashes_total` has at most.
pub(crate) const CRASH_SERIES_MAX: usize = 4096;

/// How many of these are for crashes without a label of their own: signals with codes are fewer kinds than that.
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
    /// That user can't have made the executable.
    pub is_others: bool,
    /// Signals since the start, or since the last time where they found no group.
    pub count: u64,
}

/// Both metrics. Counters only ever grow: each update adds what is new.
pub(super) struct Crashes {
    deliveries: Family<DeliveryLabels, Counter>,
    by_executable: Family<CrashLabels, Counter>,
    /// By group: what has been added, and to which executable and user; `None` means that it had no label of its own. That
    /// stays, whatever the group's name is later.
    added: HashMap<u64, (u64, Option<Executable>)>,
    executables: BoundedExecutables,
    /// The series of crashes of each executable that has a label.
    series: HashMap<Executable, HashSet<CrashLabels>>,
    /// How many these are.
    series_count: usize,
}

impl Crashes {
    /// Without a value yet. `max_names`: how many executables get a label of their own.
    pub(super) fn new(max_names: usize) -> Self {
        Self {
            deliveries: Family::default(),
            by_executable: Family::default(),
            added: HashMap::new(),
            executables: BoundedExecutables::new(max_names),
            series: HashMap::new(),
            series_count: 0,
        }
    }

    pub(super) fn register(&self, registry: &mut Registry) {
        registry.register("signals_delivered", "Watched signals by what became of them", self.deliveries.clone());
        registry.register(
            "crashes",
            "Signals that ended a process, at once or after a handler took them, by executable and user",
            self.by_executable.clone(),
        );
    }

    /// Brings both up to date. `rests`: what found no group, since the last time.
    pub(super) fn update(&mut self, groups: &[GroupTotal], rests: &[GroupTotal]) {
        self.executables.begin_update();
        // What has a label first, so that it does not leave for what has none.
        for group in groups {
            let (before, own) = self.added.get(&group.id).cloned().unwrap_or_default();
            let (name, uid) = own.unwrap_or_else(|| (group.executable.clone(), group.uid));
            if group.count > before {
                self.executables.keep(&name, uid);
            }
        }
        for group in groups {
            let (before, identity) = match self.added.remove(&group.id) {
                Some(known) => known,
                None => (0, Some((group.executable.clone(), group.uid))),
            };
            let identity = self.add_crashes(group, group.count.saturating_sub(before), identity);
            self.added.insert(group.id, (group.count, identity));
        }
        for rest in rests {
            self.add_crashes(rest, rest.count, rest.is_named.then(|| (rest.executable.clone(), rest.uid)));
        }
    }

    /// These groups come no more.
    pub(super) fn forget(&mut self, gone: &[u64]) {
        for id in gone {
            self.added.remove(id);
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
        let own = executable.filter(|(name, uid)| self.has_label(name, *uid, of.is_others));
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
        self.by_executable.get_or_create(&labels).inc_by(count);
        own
    }

    /// Does the executable have this series, or get it? Its first one it gets in any case.
    fn takes(&mut self, executable: &Executable, labels: &CrashLabels) -> bool {
        let is_full = self.series_count + self.executables.most() + OTHER_SERIES_MAX >= CRASH_SERIES_MAX;
        let series = self.series.entry(executable.clone()).or_default();
        if is_full && !series.is_empty() && !series.contains(labels) {
            return false;
        }
        self.series_count += usize::from(series.insert(labels.clone()));
        true
    }

    /// Has the executable a label, or does it get one now? The series of one that leaves for it end.
    fn has_label(&mut self, name: &str, uid: u32, is_others: bool) -> bool {
        if self.executables.keep(name, uid) {
            return true;
        }
        let Some(leaves) = self.executables.admit(name, uid, is_others) else { return false };
        for labels in leaves.and_then(|executable| self.series.remove(&executable)).into_iter().flatten() {
            self.by_executable.remove(&labels);
            self.series_count -= 1;
        }
        true
    }
}
