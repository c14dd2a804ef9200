//! The numbers for Prometheus: OpenMetrics, and the older text format for those who don't ask for it.
//!
//! No label has a value that grows without bound: no pid, no address, no path; executables are capped.

use std::collections::{HashMap, HashSet};
use std::fmt::Write;
use std::sync::{Arc, Mutex};

use prometheus_client::encoding::{EncodeLabelSet, text::encode};
use prometheus_client::metrics::counter::Counter;
use prometheus_client::metrics::family::Family;
use prometheus_client::metrics::gauge::Gauge;
use prometheus_client::metrics::info::Info;
use prometheus_client::registry::Registry;

use crate::record::crash::Disposition;

/// `executable` of everything beyond the cap.
const OTHER: &str = "other";

/// One group's numbers since the start.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct GroupTotal {
    /// The group's id: it stays.
    pub id: u32,
    /// `SIGSEGV`
    pub signal: String,
    /// `SEGV_MAPERR`; empty: the kernel keeps none.
    pub code: String,
    /// What became of the signals.
    pub disposition: Disposition,
    /// The executable's file name, or the process's where that is unknown.
    pub executable: String,
    /// Signals since the start.
    pub count: u64,
}

/// All numbers since the start.
#[derive(Clone, Debug, Default)]
pub struct Totals {
    /// By group.
    pub groups: Vec<GroupTotal>,
    /// The room for groups.
    pub groups_limit: u32,
    /// What the filters left out.
    pub filtered: u64,
    /// Stage, reason, count.
    pub dropped: Vec<(&'static str, &'static str, u64)>,
    /// Seconds since 1970; None: no crash yet.
    pub last_crash: Option<f64>,
    /// Summaries that reached their reader.
    pub summaries: u64,
}

#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
struct DeliveryLabels {
    signal: String,
    code: String,
    disposition: &'static str,
}

#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
struct CrashLabels {
    signal: String,
    code: String,
    executable: String,
}

#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
struct DropLabels {
    stage: &'static str,
    reason: String,
}

/// The registry and its metrics. Counters only ever grow: each update adds what is new.
pub struct Metrics {
    registry: Arc<Mutex<Registry>>,
    deliveries: Family<DeliveryLabels, Counter>,
    crashes: Family<CrashLabels, Counter>,
    filtered: Counter,
    groups: Gauge,
    groups_limit: Gauge,
    dropped: Family<DropLabels, Counter>,
    last_crash: Gauge<f64, std::sync::atomic::AtomicU64>,
    summaries: Counter,
    /// By group: what has been added, and to which executable. A label once given stays, or a counter would shrink.
    told: HashMap<u32, (u64, String)>,
    executables: HashSet<String>,
    max_executables: usize,
}

impl Metrics {
    /// Metrics without a value yet. `started`: seconds since 1970.
    pub fn new(started: f64, max_executables: usize) -> Self {
        let mut registry = Registry::with_prefix("faultline");
        let info = Info::new(vec![("version", env!("CARGO_PKG_VERSION"))]);
        registry.register("build", "The faultline that runs", info);
        let start_time: Gauge<f64, std::sync::atomic::AtomicU64> = Gauge::default();
        start_time.set(started);
        registry.register("start_time_seconds", "When counting began, seconds since 1970", start_time);
        let metrics = Self {
            registry: Arc::new(Mutex::new(Registry::default())),
            deliveries: Family::default(),
            crashes: Family::default(),
            filtered: Counter::default(),
            groups: Gauge::default(),
            groups_limit: Gauge::default(),
            dropped: Family::default(),
            last_crash: Gauge::default(),
            summaries: Counter::default(),
            told: HashMap::new(),
            executables: HashSet::new(),
            max_executables,
        };
        registry.register("signals_delivered", "Watched signals by what became of them", metrics.deliveries.clone());
        registry.register("crashes", "Signals that ended a process, by executable", metrics.crashes.clone());
        registry.register("signals_filtered", "Watched signals that the filters left out", metrics.filtered.clone());
        registry.register("crash_groups", "Groups in the kernel's table", metrics.groups.clone());
        registry.register("crash_groups_limit", "Room for groups in the kernel's table", metrics.groups_limit.clone());
        registry.register(
            "events_dropped",
            "Events without a group of their own, samples not sent, records not written",
            metrics.dropped.clone(),
        );
        registry.register(
            "last_crash_timestamp_seconds",
            "The last crash, seconds since 1970",
            metrics.last_crash.clone(),
        );
        registry.register("summaries", "Summaries that reached their reader", metrics.summaries.clone());
        Self { registry: Arc::new(Mutex::new(registry)), ..metrics }
    }

    /// What a server needs to answer.
    pub fn registry(&self) -> Arc<Mutex<Registry>> {
        self.registry.clone()
    }

    /// Adds what is new of what was lost on the way: stage, reason, count.
    pub fn update_dropped(&self, dropped: impl IntoIterator<Item = (&'static str, &'static str, u64)>) {
        for (stage, reason, count) in dropped {
            raise(&self.dropped.get_or_create(&DropLabels { stage, reason: reason.to_owned() }), count);
        }
    }

    /// Adds what is new.
    pub fn update(&mut self, totals: &Totals) {
        for group in &totals.groups {
            let (told, executable) = match self.told.get(&group.id) {
                Some((told, executable)) => (*told, executable.clone()),
                None => (0, self.label(&group.executable)),
            };
            let delta = group.count.saturating_sub(told);
            self.told.insert(group.id, (group.count, executable.clone()));
            let (signal, code) = (group.signal.clone(), group.code.clone());
            if group.disposition.is_death() {
                let labels = CrashLabels { signal: signal.clone(), code: code.clone(), executable };
                self.crashes.get_or_create(&labels).inc_by(delta);
            }
            let labels = DeliveryLabels { signal, code, disposition: group.disposition.word() };
            self.deliveries.get_or_create(&labels).inc_by(delta);
        }
        raise(&self.filtered, totals.filtered);
        raise(&self.summaries, totals.summaries);
        self.update_dropped(totals.dropped.iter().copied());
        self.groups.set(i64::try_from(totals.groups.len()).unwrap_or(i64::MAX));
        self.groups_limit.set(i64::from(totals.groups_limit));
        if let Some(last) = totals.last_crash {
            self.last_crash.set(last);
        }
    }

    fn label(&mut self, executable: &str) -> String {
        if self.executables.contains(executable) {
            return executable.to_owned();
        }
        if self.executables.len() >= self.max_executables {
            return OTHER.to_owned();
        }
        self.executables.insert(executable.to_owned());
        executable.to_owned()
    }
}

fn raise(counter: &Counter, to: u64) {
    counter.inc_by(to.saturating_sub(counter.get()));
}

/// All metrics as OpenMetrics 1.0.
pub fn openmetrics(registry: &Registry) -> String {
    let mut text = String::new();
    // Writing to a String can't fail.
    let _ = encode(&mut text, registry);
    text
}

/// The same in Prometheus' text format 0.0.4, which has no unit, no end, and a counter's suffix in its family's name.
pub fn text_format(openmetrics: &str) -> String {
    let mut text = String::with_capacity(openmetrics.len());
    let mut suffix = HashMap::new();
    for line in openmetrics.lines() {
        if let Some((name, kind)) = line.strip_prefix("# TYPE ").and_then(|rest| rest.split_once(' ')) {
            suffix.insert(
                name,
                if kind == "counter" {
                    "_total"
                } else if kind == "info" {
                    "_info"
                } else {
                    ""
                },
            );
        }
    }
    for line in openmetrics.lines() {
        let Some(comment) = line.strip_prefix("# ") else {
            let _ = writeln!(text, "{line}");
            continue;
        };
        let mut words = comment.splitn(3, ' ');
        if let (Some(word @ ("HELP" | "TYPE")), Some(name), Some(rest)) = (words.next(), words.next(), words.next()) {
            let rest = if word == "TYPE" && rest == "info" { "gauge" } else { rest };
            let _ = writeln!(text, "# {word} {name}{} {rest}", suffix.get(name).copied().unwrap_or_default());
        }
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    fn group(id: u32, executable: &str, count: u64) -> GroupTotal {
        GroupTotal {
            id,
            signal: "SIGSEGV".to_owned(),
            code: "SEGV_MAPERR".to_owned(),
            disposition: Disposition::Fatal,
            executable: executable.to_owned(),
            count,
        }
    }

    fn shown(metrics: &Metrics) -> String {
        openmetrics(&metrics.registry.lock().unwrap())
    }

    fn crashes(executable: &str, count: u64) -> String {
        format!("crashes_total{{signal=\"SIGSEGV\",code=\"SEGV_MAPERR\",executable=\"{executable}\"}} {count}\n")
    }

    #[test]
    fn counters_follow_the_groups() {
        let mut metrics = Metrics::new(1.0, 10);
        let totals = |counts: &[u64]| Totals {
            groups: (0..).zip(counts).map(|(id, &count)| group(id, "app", count)).collect(),
            ..Totals::default()
        };
        metrics.update(&totals(&[2, 3]));
        metrics.update(&totals(&[4, 3]));
        let text = shown(&metrics);
        assert!(text.contains(&crashes("app", 7)), "{text}");
        assert!(
            text.contains("signals_delivered_total{signal=\"SIGSEGV\",code=\"SEGV_MAPERR\",disposition=\"fatal\"} 7")
        );
        assert!(text.contains("faultline_crash_groups 2\n") && text.ends_with("# EOF\n"), "{text}");
    }

    #[test]
    fn executables_are_capped_and_keep_their_label() {
        let mut metrics = Metrics::new(1.0, 1);
        metrics.update(&Totals { groups: vec![group(0, "a", 1), group(1, "b", 2)], ..Totals::default() });
        // Group 1 has got another name meanwhile: its counter must not move.
        metrics.update(&Totals { groups: vec![group(0, "a", 1), group(1, "a", 5)], ..Totals::default() });
        let text = shown(&metrics);
        assert!(text.contains(&crashes("a", 1)) && text.contains(&crashes("other", 5)), "{text}");
    }

    #[test]
    fn the_older_format_has_its_suffixes_in_the_comments() {
        let mut metrics = Metrics::new(1.0, 1);
        metrics.update(&Totals { groups: vec![group(0, "a", 1)], ..Totals::default() });
        let text = text_format(&shown(&metrics));
        assert!(text.contains("# TYPE faultline_crashes_total counter\n"), "{text}");
        assert!(text.contains("# TYPE faultline_build_info gauge\nfaultline_build_info{version="), "{text}");
        assert!(text.contains("# TYPE faultline_crash_groups gauge\n") && !text.contains("EOF"), "{text}");
    }
}
