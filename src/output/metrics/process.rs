//! faultline's own process in numbers, under the names that Prometheus' client libraries have for them. They are read when they are
//! asked for. The children that name what died are processes of their own, and not in them.

use std::fmt::Error;

use nix::time::{ClockId, clock_gettime};
use procfs::process::{LimitValue, Process};
use prometheus_client::collector::Collector;
use prometheus_client::encoding::{DescriptorEncoder, EncodeMetric};
use prometheus_client::metrics::counter::ConstCounter;
use prometheus_client::metrics::gauge::ConstGauge;

/// Reads /proc/self.
#[derive(Debug)]
pub(super) struct ProcessMetrics;

impl Collector for ProcessMetrics {
    /// What can't be read is left out: it is unknown, and not 0.
    fn encode(&self, mut to: DescriptorEncoder<'_>) -> Result<(), Error> {
        if let Ok(spent) = clock_gettime(ClockId::CLOCK_PROCESS_CPUTIME_ID) {
            let seconds = spent.tv_sec() as f64 + spent.tv_nsec() as f64 / 1e9;
            write(
                &mut to,
                "process_cpu_seconds",
                "Processor time that faultline has taken",
                &ConstCounter::new(seconds),
            )?;
        }
        let Ok(process) = Process::myself() else { return Ok(()) };
        if let Ok(stat) = process.stat() {
            let resident = stat.rss * procfs::page_size();
            write(&mut to, "process_resident_memory_bytes", "Resident memory of faultline", &gauge(resident))?;
            write(&mut to, "process_virtual_memory_bytes", "Virtual memory of faultline", &gauge(stat.vsize))?;
            if let Ok(boot) = procfs::boot_time_secs() {
                let started = boot as f64 + stat.starttime as f64 / procfs::ticks_per_second() as f64;
                let help = "When faultline started, seconds since 1970";
                write(&mut to, "process_start_time_seconds", help, &ConstGauge::new(started))?;
            }
        }
        if let Ok(open) = process.fd_count() {
            write(&mut to, "process_open_fds", "Open files of faultline", &gauge(open as u64))?;
        }
        if let Ok(limits) = process.limits()
            && let LimitValue::Value(most) = limits.max_open_files.soft_limit
        {
            write(&mut to, "process_max_fds", "How many files faultline may have open", &gauge(most))?;
        }
        Ok(())
    }
}

fn gauge(value: u64) -> ConstGauge<i64> {
    ConstGauge::new(i64::try_from(value).unwrap_or(i64::MAX))
}

fn write(to: &mut DescriptorEncoder<'_>, name: &str, help: &str, metric: &impl EncodeMetric) -> Result<(), Error> {
    metric.encode(to.encode_descriptor(name, help, None, metric.metric_type())?)
}
