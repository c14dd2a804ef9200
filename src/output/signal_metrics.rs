//! The numbers of `agent --watch-signals` for Prometheus.

use std::collections::HashMap;

use prometheus_client::encoding::EncodeLabelSet;
use prometheus_client::metrics::counter::Counter;
use prometheus_client::metrics::family::Family;
use prometheus_client::registry::Registry;

use super::names::Names;
use crate::signal::PairTotal;

/// The sender where there is none: no process has an empty name that long names could be confused with.
const KERNEL: &str = "(kernel)";

#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
struct SentLabels {
    signal: String,
    sender: String,
    target: String,
    result: &'static str,
}

/// Signal, sender, target, result: as in [`PairTotal`].
type Row = (String, Option<String>, String, Option<&'static str>);

/// Signals by who sent them to whom. Counters only ever grow: each update adds what is new.
pub struct SignalMetrics {
    sent: Family<SentLabels, Counter>,
    /// By row of the kernel's table: what has been added, and to which counter. A label once given stays.
    told: HashMap<Row, (u64, SentLabels)>,
    names: Names,
}

impl SignalMetrics {
    /// Metrics without a value yet, in `registry`. `max_names`: how many processes get a label of their own.
    pub fn new(registry: &mut Registry, max_names: usize) -> Self {
        let sent = Family::default();
        registry.register("signals_sent", "Signals by sender and target", sent.clone());
        Self { sent, told: HashMap::new(), names: Names::new(max_names) }
    }

    /// Adds what is new.
    pub fn update(&mut self, totals: impl Iterator<Item = PairTotal>) {
        for PairTotal { signal, sender, target, result, count } in totals {
            let key = (signal, sender, target, result);
            if !self.told.contains_key(&key) {
                let (signal, sender, target, result) = &key;
                let labels = SentLabels {
                    signal: signal.clone(),
                    sender: match sender {
                        Some(sender) => self.names.label(sender),
                        None => KERNEL.to_owned(),
                    },
                    target: self.names.label(target),
                    result: result.unwrap_or_default(),
                };
                self.told.insert(key.clone(), (0, labels));
            }
            if let Some((told, labels)) = self.told.get_mut(&key) {
                self.sent.get_or_create(labels).inc_by(count.saturating_sub(*told));
                *told = count;
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn total(sender: &str, target: &str, count: u64) -> PairTotal {
        PairTotal {
            signal: "SIGTERM".to_owned(),
            sender: (!sender.is_empty()).then(|| sender.to_owned()),
            target: target.to_owned(),
            result: Some("delivered"),
            count,
        }
    }

    #[test]
    fn names_are_capped_and_counters_grow() {
        let mut registry = Registry::default();
        let mut metrics = SignalMetrics::new(&mut registry, 2);
        metrics.update([total("a", "b", 3), total("", "c", 1), total("d", "c", 2)].into_iter());
        metrics.update([total("a", "b", 5), total("", "c", 1), total("d", "c", 4)].into_iter());
        let text = super::super::metrics::openmetrics(&registry);
        let line = |sender: &str, target: &str, count: u64| {
            let labels = format!("signal=\"SIGTERM\",sender=\"{sender}\",target=\"{target}\",result=\"delivered\"");
            text.contains(&format!("signals_sent_total{{{labels}}} {count}\n"))
        };
        assert!(line("a", "b", 5) && line("(kernel)", "other", 1) && line("other", "other", 4), "{text}");
    }
}
