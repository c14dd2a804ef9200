//! A summary: how often each bug struck in an interval, and what could not be reported. Made by the watching commands, merged by
//! `faultline report`.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use super::crash::{Disposition, Frame};
use super::{Head, Interval};
use crate::diagnosis::Diagnosis;
use crate::identity::says_nothing;
use crate::time::Timestamp;

/// All groups that had events in one interval; the last one of a run has all there were. [`super::lines`] has its JSON.
#[derive(Clone, Debug)]
pub(crate) struct Summary {
    /// Kind, time and host.
    pub head: Head,
    /// The interval and the run.
    pub interval: Interval,
    /// Most frequent first.
    pub groups: Vec<Group>,
    /// The deliveries in this interval.
    pub deliveries: Deliveries,
    /// Events in no group, by reason: `deliveries.matched` is the sum of these and of all `groups[].count`.
    pub losses: BTreeMap<String, u64>,
    /// Samples that were not sent or not watched, by reason. Their events are counted.
    pub sample_losses: BTreeMap<String, u64>,
}

/// Signals that were delivered, in numbers.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Deliveries {
    /// Watched signals to watched tasks.
    pub matched: u64,
    /// Watched signals that the filters left out.
    pub filtered: u64,
}

/// One bug, as far as one host sees it.
#[derive(Clone, Debug)]
pub(crate) struct Group {
    /// As in crash records; `None` means that neither a sample nor a stack of it could be had.
    pub signature: Option<String>,
    /// As in crash records; `None` means that it has no names, or that the record is older than this field.
    pub family: Option<String>,
    /// Records of this group have more than one signature: this one is that of most of them, and `count` has the others, too.
    pub estimated: bool,
    /// `SIGSEGV`.
    pub signal: String,
    /// `SEGV_MAPERR`; `None` means that the kernel kept no siginfo.
    pub code: Option<String>,
    /// The disposition of the signal.
    pub disposition: Disposition,
    /// The process's name.
    pub comm: String,
    /// The user that the processes ran as (the real one); `None` means that the record is older than this field.
    pub uid: Option<u32>,
    /// The executable's path as the first of these processes saw it.
    pub exe: Option<String>,
    /// The executable's.
    pub build_id: Option<String>,
    /// Events in this interval.
    pub count: u64,
    /// Since `since`.
    pub total: u64,
    /// The first one's time.
    pub first_seen: Timestamp,
    /// The last one's.
    pub last_seen: Timestamp,
    /// The last one's process.
    pub last_pid: u32,
    /// What libc said before one of them aborted; `None` means that it said nothing, or that its address isn't known.
    pub abort_message: Option<String>,
    /// The likely cause of the same one; `None` means that no cause is sure enough.
    pub diagnosis: Option<Diagnosis>,
    /// The innermost frames of the same one.
    pub frames: Vec<Frame>,
    /// `count` by processor, where it isn't 0.
    pub cpus: BTreeMap<u32, u64>,
}

/// Intervals without events, in one record: the host was watched, and nothing was lost. Fields as in docs/output.md.
#[derive(Clone, Debug, Serialize)]
pub(crate) struct Heartbeat {
    /// Kind, time and host.
    #[serde(flatten)]
    pub head: Head,
    /// The length of all these intervals together.
    pub interval_seconds: f64,
    /// As in a summary.
    pub boot_id: Option<String>,
    /// None.
    pub deliveries: Deliveries,
    /// Those that are not 0, by reason: none.
    pub losses: BTreeMap<String, u64>,
}

impl Heartbeat {
    /// What `kind` is in every heartbeat.
    pub(crate) const KIND: &'static str = "heartbeat";

    /// The heartbeat of the time that ended with this idle summary and began so many seconds before.
    pub(crate) fn of(idle: &Summary, seconds: f64) -> Self {
        Self {
            head: Head { kind: Self::KIND.into(), ..idle.head.clone() },
            interval_seconds: seconds,
            boot_id: idle.interval.boot_id.clone(),
            deliveries: idle.deliveries,
            losses: idle
                .losses
                .iter()
                .filter(|(_, count)| **count != 0)
                .map(|(at, count)| (at.clone(), *count))
                .collect(),
        }
    }
}

impl Summary {
    /// What `kind` is in every summary.
    pub(crate) const KIND: &'static str = "summary";

    /// Has nothing come, and was nothing lost? A heartbeat says as much.
    pub(crate) fn is_idle(&self) -> bool {
        let none = |losses: &BTreeMap<String, u64>| losses.values().all(|&count| count == 0);
        let events = self.deliveries.matched + self.deliveries.filtered;
        !self.interval.last && self.groups.is_empty() && events == 0 && none(&self.losses) && none(&self.sample_losses)
    }

    /// Do all events add up? What faultline promises.
    #[cfg(test)]
    pub(crate) fn adds_up(&self) -> bool {
        // Wide, because these may be another host's numbers: a damaged one must not wrap around to a sum that fits.
        let counted: u128 = self.groups.iter().map(|group| u128::from(group.count)).sum();
        let lost: u128 = self.losses.values().copied().map(u128::from).sum();
        counted + lost == u128::from(self.deliveries.matched)
    }
}

impl Group {
    /// See [`place`].
    pub(crate) fn place(&self) -> String {
        place(&self.frames)
    }
}

/// Does this frame say something of the bug? Most frames of a runtime and of libc don't.
pub(crate) fn says_something(frame: &Frame) -> bool {
    let (module, symbol) = (frame.module.as_deref(), frame.symbol.as_deref());
    (module.is_some() || symbol.is_some()) && !says_nothing(module, symbol, frame.line.and(frame.file.as_deref()))
}

/// The first function that says something of the bug, or what else is known of the place, in a few words. If no frame says anything, it
/// is the innermost one: of every abort that is the function of libc which sends the signal.
pub(crate) fn place(frames: &[Frame]) -> String {
    let said = frames.iter().find(|frame| says_something(frame));
    let Some(frame) = said.or(frames.first()) else { return "unknown".to_owned() };
    let module = frame.module.as_deref().and_then(|path| path.rsplit('/').next());
    match (&frame.symbol, module, frame.offset) {
        (Some(symbol), Some(module), _) => format!("{symbol} ({module})"),
        (Some(symbol), None, _) => symbol.clone(),
        (None, Some(module), Some(offset)) => format!("{module}+{offset}"),
        (None, None, Some(offset)) => format!("offset {offset}"),
        (None, module, None) => module.unwrap_or("unknown").to_owned(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn frame(module: Option<&str>, symbol: Option<&str>) -> Frame {
        Frame { module: module.map(str::to_owned), symbol: symbol.map(str::to_owned), ..Frame::default() }
    }

    /// Every abort had the place `__pthread_kill_implementation`.
    #[test]
    fn a_place_is_the_first_function_that_says_something() {
        let libc = |symbol: &str| frame(Some("/usr/lib/libc.so.6"), Some(symbol));
        let app = |symbol: Option<&str>| frame(Some("/usr/bin/app"), symbol);
        let abort = [libc("__pthread_kill_implementation+0x10c"), libc("__GI_raise+0x1"), libc("__GI_abort+0x2")];
        assert_eq!(place(&[&abort[..], &[app(Some("check+0x3"))]].concat()), "check+0x3 (app)");
        assert_eq!(place(&[app(Some("raise+0x1")), app(Some("check+0x3"))]), "check+0x3 (app)", "a static executable");
        assert_eq!(
            place(&[frame(None, None), app(None), app(Some("main"))]),
            "app",
            "a call to nowhere is its caller's"
        );
        assert_eq!(place(&abort), "__pthread_kill_implementation+0x10c (libc.so.6)");
        assert_eq!(place(&[]), "unknown");
    }
}
