//! Intervals without events: a heartbeat once a minute says as much as an empty summary each time.

use std::time::Duration;

use crate::record::summary::{Heartbeat, Summary};

/// Between two heartbeats, unless the intervals are longer.
const HEARTBEAT: Duration = Duration::from_secs(60);

/// The intervals without events that were not reported yet.
#[derive(Debug)]
pub(super) struct Idle {
    /// How many seconds a heartbeat has at least.
    enough: f64,
    /// They end with this summary.
    last: Option<Summary>,
    seconds: f64,
}

/// What becomes of a summary.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Fate {
    /// It is to be written.
    Due,
    /// A heartbeat has it, now or later.
    Covered,
    /// The heartbeat before it could not be written.
    Failed,
}

impl Idle {
    /// With a summary every `interval`.
    pub(super) fn new(interval: Duration) -> Self {
        // An interval may be a little shorter than it should be.
        Self { enough: HEARTBEAT.saturating_sub(interval / 2).as_secs_f64(), last: None, seconds: 0.0 }
    }

    /// Takes a summary if it is idle. Returns the heartbeat that is due: a minute is over, or events follow that it must be before.
    pub(super) fn take(&mut self, summary: &Summary) -> Option<Heartbeat> {
        let is_idle = summary.is_idle();
        if is_idle {
            self.seconds += summary.interval.interval_seconds;
            self.last = Some(summary.clone());
        }
        let last = self.last.as_ref().filter(|_| !is_idle || self.seconds >= self.enough)?;
        // Milliseconds, as in a summary.
        Some(Heartbeat::of(last, (self.seconds * 1000.0).round() / 1000.0))
    }

    /// What becomes of the summary that was taken. `is_written`: whether the heartbeat could be; `None` means that none was due.
    pub(super) fn decide(&mut self, summary: &Summary, is_written: Option<bool>) -> Fate {
        if is_written == Some(true) {
            (self.last, self.seconds) = (None, 0.0);
        }
        match is_written {
            _ if summary.is_idle() => Fate::Covered,
            Some(false) => Fate::Failed,
            _ => Fate::Due,
        }
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use super::*;
    use crate::output::Timestamp;
    use crate::record::summary::Deliveries;
    use crate::record::{Head, Interval};

    fn summary(number: i128, matched: u64) -> Summary {
        let at = |number: i128| Timestamp::from_unix_ns(1_800_000_000_000_000_000 + number * 10_000_000_000).unwrap();
        Summary {
            head: Head::new(Summary::KIND, at(number), "host"),
            interval: Interval {
                since: at(0),
                interval_seconds: 10.0,
                kernel: "6.18".to_owned(),
                boot_id: Some("boot".to_owned()),
                last: false,
            },
            groups: Vec::new(),
            deliveries: Deliveries { matched, filtered: 0 },
            losses: BTreeMap::from([("group_table_full".to_owned(), matched)]),
            sample_losses: BTreeMap::new(),
        }
    }

    /// Every interval's fate, and the heartbeats.
    fn run(idle: &mut Idle, intervals: &[(i128, u64)], works: bool) -> (Vec<Fate>, Vec<(Timestamp, f64)>) {
        let mut beats = Vec::new();
        let fates = intervals.iter().map(|&(number, matched)| {
            let summary = summary(number, matched);
            let beat = idle.take(&summary);
            if let Some(beat) = &beat {
                assert!(beat.losses.is_empty() && beat.deliveries.matched == 0);
                beats.push((beat.head.timestamp, beat.interval_seconds));
            }
            idle.decide(&summary, beat.map(|_| works))
        });
        (fates.collect(), beats)
    }

    /// Each of them was a summary of its own.
    #[test]
    fn a_minute_without_events_is_one_heartbeat() {
        let mut idle = Idle::new(Duration::from_secs(10));
        let minutes: Vec<(i128, u64)> = (1..=18).map(|number| (number, 0)).collect();
        let (fates, beats) = run(&mut idle, &minutes, true);
        assert!(fates.iter().all(|fate| *fate == Fate::Covered));
        let time = |number| summary(number, 0).head.timestamp;
        assert_eq!(beats, [(time(6), 60.0), (time(12), 60.0), (time(18), 60.0)]);
    }

    #[test]
    fn what_was_idle_is_told_before_the_next_events() {
        let mut idle = Idle::new(Duration::from_secs(10));
        let (fates, beats) = run(&mut idle, &[(1, 5), (2, 0), (3, 0), (4, 7), (5, 8)], true);
        assert_eq!(fates, [Fate::Due, Fate::Covered, Fate::Covered, Fate::Due, Fate::Due]);
        assert_eq!(beats, [(summary(3, 0).head.timestamp, 20.0)]);
    }

    #[test]
    fn a_heartbeat_that_could_not_be_written_comes_later() {
        let mut idle = Idle::new(Duration::from_secs(120));
        let (fates, beats) = run(&mut idle, &[(1, 0), (2, 0), (3, 1)], false);
        assert_eq!(fates, [Fate::Covered, Fate::Covered, Fate::Failed], "nothing is told before what came before it");
        assert_eq!(beats.iter().map(|(_, seconds)| *seconds).collect::<Vec<_>>(), [10.0, 20.0, 20.0]);
        let (fates, beats) = run(&mut idle, &[(3, 1)], true);
        assert_eq!((fates, beats.len()), (vec![Fate::Due], 1));
    }

    #[test]
    fn the_last_summary_is_none() {
        let mut last = summary(1, 0);
        last.interval.last = true;
        assert!(summary(1, 0).is_idle() && !last.is_idle() && !summary(1, 1).is_idle());
    }
}
