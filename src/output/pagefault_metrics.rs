//! The numbers of `agent --pagefaults` for Prometheus.

use std::collections::HashMap;

use prometheus_client::encoding::EncodeLabelSet;
use prometheus_client::metrics::counter::Counter;
use prometheus_client::metrics::family::Family;
use prometheus_client::registry::Registry;

use super::names::Names;
use crate::pagefault::Labels;

#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
struct FaultLabels {
    comm: String,
    mode: &'static str,
    access: &'static str,
    cause: &'static str,
}

#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
struct ProcessLabels {
    comm: String,
}

/// Page faults by process name and by what they were. Counters only ever grow: each call adds what is new.
pub struct PagefaultMetrics {
    faults: Family<FaultLabels, Counter>,
    majors: Family<ProcessLabels, Counter>,
    names: Names,
}

impl PagefaultMetrics {
    /// Metrics without a value yet, in `registry`. `max_names`: how many names of processes get a label of their own.
    pub fn new(registry: &mut Registry, max_names: usize) -> Self {
        let (faults, majors) = (Family::default(), Family::default());
        registry.register("page_faults", "Page faults by what they were", faults.clone());
        registry.register("major_page_faults", "Page faults that waited for a disk", majors.clone());
        Self { faults, majors, names: Names::new(max_names) }
    }

    /// Adds faults that were counted since the last call, and the major ones among them.
    pub fn add(&mut self, faults: &HashMap<Labels, u64>, majors: &HashMap<Labels, u64>) {
        for (Labels { comm, mode, access, cause }, count) in faults {
            let comm = self.names.label(comm);
            self.faults.get_or_create(&FaultLabels { comm, mode, access, cause }).inc_by(*count);
        }
        for (labels, count) in majors {
            let comm = self.names.label(&labels.comm);
            self.majors.get_or_create(&ProcessLabels { comm }).inc_by(*count);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use prometheus_client::encoding::text::encode;

    #[test]
    fn names_are_capped_and_counters_go_on() {
        let labels = |comm: &str| Labels { comm: comm.to_owned(), mode: "user", access: "write", cause: "not_present" };
        let mut registry = Registry::default();
        let mut metrics = PagefaultMetrics::new(&mut registry, 1);
        let none = HashMap::new();
        metrics.add(&HashMap::from([(labels("a"), 3)]), &none);
        metrics.add(&HashMap::from([(labels("b"), 2)]), &HashMap::from([(labels("a"), 1)]));
        metrics.add(&HashMap::from([(labels("a"), 1)]), &none);
        let mut text = String::new();
        encode(&mut text, &registry).unwrap();
        let of = |comm: &str, count: u64| {
            let kind = "mode=\"user\",access=\"write\",cause=\"not_present\"";
            format!("page_faults_total{{comm=\"{comm}\",{kind}}} {count}\n")
        };
        assert!(text.contains(&of("a", 4)) && text.contains(&of("other", 2)), "{text}");
        assert!(text.contains("major_page_faults_total{comm=\"a\"} 1\n"), "{text}");
    }
}
