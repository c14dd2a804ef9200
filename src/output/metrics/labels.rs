//! The labels of the metrics. No label has a value that grows without bound: no pid, no address, no path.

use std::iter::once;

use prometheus_client::encoding::EncodeLabelSet;

use super::bounded::Labels;

/// The sender where no process is.
const KERNEL: &str = "(kernel)";

/// `faultline_signals_delivered_total`
#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
pub(super) struct DeliveryLabels {
    pub(super) signal: String,
    pub(super) code: String,
    pub(super) disposition: &'static str,
}

/// `faultline_crashes_total`
#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
pub(super) struct CrashLabels {
    pub(super) signal: String,
    pub(super) code: String,
    pub(super) executable: String,
    /// A file's name is anybody's to choose, a user's number is not.
    pub(super) uid: String,
}

/// `faultline_events_dropped_total`
#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
pub(super) struct DropLabels {
    pub(super) stage: &'static str,
    pub(super) reason: &'static str,
}

/// Who sent which signal to whom: `faultline_signals_sent_total`
#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
pub(crate) struct SentLabels {
    signal: String,
    sender: String,
    target: String,
    result: &'static str,
}

impl SentLabels {
    /// `sender`: `None` where the kernel sent it on nobody's behalf. `result`: `None` where the hook doesn't show it.
    pub(crate) fn new(signal: String, sender: Option<String>, target: String, result: Option<&'static str>) -> Self {
        let sender = sender.unwrap_or_else(|| KERNEL.to_owned());
        Self { signal, sender, target, result: result.unwrap_or_default() }
    }
}

impl Labels for SentLabels {
    fn names(&mut self) -> impl Iterator<Item = &mut String> {
        once(&mut self.sender).filter(|sender| *sender != KERNEL).chain(once(&mut self.target))
    }
}

/// A page fault's kind: `faultline_page_faults_total`
#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
pub(crate) struct FaultLabels {
    /// The process's name; empty: not known.
    pub comm: String,
    /// `user`, `kernel`
    pub mode: &'static str,
    /// `read`, `write`, `execute`; empty if the hook doesn't show it.
    pub access: &'static str,
    /// `not_present`, `protection`; empty if the hook doesn't show it.
    pub cause: &'static str,
}

impl Labels for FaultLabels {
    fn names(&mut self) -> impl Iterator<Item = &mut String> {
        once(&mut self.comm)
    }
}

/// `faultline_major_page_faults_total`
#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
pub(crate) struct ProcessLabels {
    /// The process's name; empty: not known.
    pub comm: String,
}

impl Labels for ProcessLabels {
    fn names(&mut self) -> impl Iterator<Item = &mut String> {
        once(&mut self.comm)
    }
}

/// A call that made anonymous memory executable: `faultline_executable_memory_calls_total`
#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
pub(crate) struct ExecutableLabels {
    comm: String,
    call: &'static str,
    writable: &'static str,
}

impl ExecutableLabels {
    /// `is_writable`: writable and executable at once was asked for.
    pub(crate) fn new(comm: String, call: &'static str, is_writable: bool) -> Self {
        Self { comm, call, writable: if is_writable { "yes" } else { "no" } }
    }
}

impl Labels for ExecutableLabels {
    fn names(&mut self) -> impl Iterator<Item = &mut String> {
        once(&mut self.comm)
    }
}
