//! How many functions and calls survived each stage.

use serde::Serialize;

use super::report::FunctionReport;

/// Functions.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize)]
pub(crate) struct FunctionStages {
    /// Names, globs and presets that were typed.
    pub requested: usize,
    /// Functions that they stand for.
    pub resolved: usize,
    /// Functions for which the kernel takes a program.
    pub loadable: usize,
    /// Functions that are watched.
    pub attached: usize,
}

/// Calls and tasks, since the start.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize)]
pub(crate) struct CallStages {
    /// Calls of tasks that are not watched.
    pub filtered: u64,
    /// Calls that were recorded.
    pub recorded: u64,
    /// Recorded calls that were seen to return.
    pub returned: u64,
    /// Tasks that got room.
    pub tasks: u64,
    /// Tasks whose calls were forgotten to make room for others.
    pub tasks_forgotten: u64,
    /// Triggers that fired.
    pub triggers: u64,
    /// Calls that were sent when they ended, for `--live`.
    pub live: u64,
    /// Deaths by a watched signal, as the kernel has counted them.
    pub deaths: u64,
    /// Crashes with a record.
    pub crashes: u64,
    /// Crashes with calls.
    pub crashes_with_calls: u64,
    /// Crashes that a call explains.
    pub crashes_explained: u64,
}

impl FunctionStages {
    /// Those of a report.
    pub(super) fn of(requested: &[String], functions: &[FunctionReport]) -> Self {
        Self {
            requested: requested.len(),
            resolved: functions.len(),
            loadable: functions.iter().filter(|function| function.loadable).count(),
            attached: functions.iter().filter(|function| function.attach.is_some()).count(),
        }
    }
}
