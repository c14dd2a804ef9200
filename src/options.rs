//! The options that all commands which watch have in common.

use std::ffi::OsString;
use std::path::PathBuf;
use std::time::Duration;

use anyhow::Result;

use crate::output::{Format, OutputTarget, escape};
use crate::probe::{Attach, Filter, Setup};

/// The options that every command which watches shares. How to attach is each probe's own.
#[derive(Clone, Debug, Default)]
pub(crate) struct Common {
    /// Which tasks.
    pub filter: Filter,
    /// When to stop; `None` means when a signal comes.
    pub duration: Option<Duration>,
    /// Where records go.
    pub target: OutputTarget,
    /// How they look.
    pub format: Format,
    /// A file with the kernel's types, for kernels that don't show them.
    pub btf: Option<PathBuf>,
    /// The loader's messages, the start-up time and the counters on standard error.
    pub verbose: bool,
    /// Print nothing on standard error but errors and what was lost.
    pub quiet: bool,
    /// Exit with 1 where anything was lost.
    pub strict: bool,
    /// Run this and watch it; if it is empty, watch what runs already.
    pub command: Vec<OsString>,
    /// When the command has ended, go on until its descendants have.
    pub wait_descendants: bool,
}

impl Common {
    /// Checks what can be checked before anything is loaded.
    ///
    /// # Errors
    /// One line: what was typed, why it is wrong, and what to type instead.
    pub(crate) fn check(&self) -> Result<()> {
        self.filter.check()?;
        self.filter.check_cgroup()
    }

    /// The part of a plan that all probes have.
    pub(crate) fn setup(&self, attach: Attach) -> Setup {
        Setup { filter: self.filter.clone(), attach, btf: self.btf.clone(), verbose: self.verbose }
    }

    /// Which tasks are watched, in words.
    pub(crate) fn subject(&self) -> String {
        self.subject_of(false)
    }

    /// The same; with `follow` the descendants of the processes of `--pid`, too.
    pub(crate) fn subject_of(&self, follow: bool) -> String {
        let Filter { pids, process_names, cgroup, .. } = &self.filter;
        let mut parts = Vec::new();
        if !self.command.is_empty() {
            let words: Vec<_> = self.command.iter().map(|word| word.to_string_lossy()).collect();
            parts.push(format!("`{}` and its descendants", escape(&words.join(" "))));
        }
        if !pids.is_empty() {
            let pids: Vec<String> = pids.iter().map(u32::to_string).collect();
            parts.push(format!("PID {}{}", pids.join(", "), if follow { " and its descendants" } else { "" }));
        }
        if !process_names.is_empty() {
            parts.push(format!("processes named *{}*", process_names.join("*, *")));
        }
        if let Some(cgroup) = cgroup {
            parts.push(format!("cgroup {}", cgroup.display()));
        }
        if parts.is_empty() { "all processes".to_owned() } else { parts.join(" in ") }
    }
}
