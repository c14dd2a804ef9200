//! The numbers of `agent --exec-memory` for Prometheus.

use prometheus_client::encoding::EncodeLabelSet;
use prometheus_client::metrics::counter::Counter;
use prometheus_client::metrics::family::Family;
use prometheus_client::registry::Registry;

use super::names::Names;
use crate::memory::alert::ExecutableMemory;

#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
struct CallLabels {
    comm: String,
    call: &'static str,
    writable: &'static str,
}

/// Calls that made anonymous memory executable, by process name. Counters only ever grow: each record adds what is new.
pub struct ExecutableMetrics {
    calls: Family<CallLabels, Counter>,
    names: Names,
}

impl ExecutableMetrics {
    /// Metrics without a value yet, in `registry`. `max_names`: how many names of processes get a label of their own.
    pub fn new(registry: &mut Registry, max_names: usize) -> Self {
        let calls = Family::default();
        registry.register("executable_memory_calls", "Calls that made anonymous memory executable", calls.clone());
        Self { calls, names: Names::new(max_names) }
    }

    /// Adds what one interval brought.
    pub fn add(&mut self, record: &ExecutableMemory) {
        for row in &record.processes {
            let comm = self.names.label(&row.comm);
            let writable = if row.writable { "yes" } else { "no" };
            self.calls.get_or_create(&CallLabels { comm, call: row.call.word(), writable }).inc_by(row.count);
        }
    }
}
