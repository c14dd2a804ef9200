//! Time: the kernel's clock converted into wall-clock time.

mod period;

use std::ops::RangeInclusive;
use std::sync::atomic::{AtomicI64, Ordering};
use std::time::SystemTime;

use anyhow::{Context, Result};
use jiff::tz::TimeZone;
use nix::time::{ClockId, clock_gettime};
use serde::{Deserialize, Deserializer, Serialize, Serializer, de};

pub(crate) use period::Period;

/// A moment. In JSON: RFC 3339, UTC, microseconds.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Timestamp(jiff::Timestamp);

impl Timestamp {
    /// The present moment.
    pub(crate) fn now() -> Self {
        Self(jiff::Timestamp::now())
    }

    /// The moment at which CLOCK_BOOTTIME was `boottime_ns`. Both clocks are read now, so that a clock that was set in the meantime
    /// shifts old and new records alike. As long as no clock is set, two moments keep their distance.
    ///
    /// # Errors
    /// If a clock can't be read or the sum is no date.
    pub(crate) fn from_boottime(boottime_ns: u64) -> Result<Self> {
        // Benign race: a thread may store an older offset later; the next reading corrects it.
        static OFFSET_NS: AtomicI64 = AtomicI64::new(NONE_YET);
        let offset = settle(OFFSET_NS.load(Ordering::Relaxed), &read_offset()?);
        OFFSET_NS.store(offset, Ordering::Relaxed);
        jiff::Timestamp::from_nanosecond(i128::from(offset) + i128::from(boottime_ns))
            .map(Self)
            .with_context(|| format!("failed to date a record at {boottime_ns} ns"))
    }

    /// A moment given in nanoseconds since 1970; `None` means out of range.
    pub(crate) fn from_unix_ns(nanoseconds: i128) -> Option<Self> {
        jiff::Timestamp::from_nanosecond(nanoseconds).ok().map(Self)
    }

    /// The same moment, or up to a hundredth of a second before: a moment is noted once a tick, and so known no better.
    pub(crate) fn whole_ticks(self) -> Self {
        self.whole(10_000_000)
    }

    /// The same moment, or up to a second before.
    pub(crate) fn whole_seconds(self) -> Self {
        self.whole(1_000_000_000)
    }

    /// The same moment, or up to ten seconds before.
    pub(crate) fn whole_tens(self) -> Self {
        self.whole(10_000_000_000)
    }

    fn whole(self, unit_ns: i128) -> Self {
        Self::from_unix_ns(self.unix_ns().div_euclid(unit_ns) * unit_ns).unwrap_or(self)
    }

    /// Nanoseconds since 1970.
    pub fn unix_ns(self) -> i128 {
        self.0.as_nanosecond()
    }

    /// Microseconds since 1970, as in JSON.
    pub(crate) fn unix_us(self) -> i64 {
        self.0.as_microsecond()
    }

    /// `2024-02-15 10:30:45`, in the machine's time zone.
    pub(crate) fn local_seconds(self) -> String {
        self.0.to_zoned(zone()).strftime("%Y-%m-%d %H:%M:%S").to_string()
    }

    /// What the machine's time zone is called at that time, `UTC`.
    pub(crate) fn zone_name(self) -> String {
        self.0.to_zoned(zone()).strftime("%Z").to_string()
    }

    /// `22:33:49.123`, in the machine's time zone.
    pub(crate) fn local_milliseconds(self) -> String {
        self.0.to_zoned(zone()).strftime("%H:%M:%S%.3f").to_string()
    }
}

impl Timestamp {
    /// `22:33:49.123`, in the machine's time zone: for lines of which there are many a second.
    pub(crate) fn local_clock(self) -> String {
        self.0.to_zoned(zone()).strftime("%H:%M:%S.%3f").to_string()
    }
}

/// The machine's time zone; in unit tests UTC, as in their snapshots.
fn zone() -> TimeZone {
    if cfg!(test) { TimeZone::UTC } else { TimeZone::system() }
}

impl From<Timestamp> for SystemTime {
    fn from(moment: Timestamp) -> Self {
        moment.0.into()
    }
}

impl Serialize for Timestamp {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(&format_args!("{:.6}", self.0))
    }
}

impl<'de> Deserialize<'de> for Timestamp {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let text = String::deserialize(deserializer)?;
        text.parse().map(Self).map_err(|error| de::Error::custom(format!("`{text}` is no time: {error}")))
    }
}

/// CLOCK_BOOTTIME now, nanoseconds: it runs on while the machine sleeps and is never set.
pub(crate) fn boottime_ns() -> Result<u64> {
    Ok(read(ClockId::CLOCK_BOOTTIME)? as u64)
}

/// A clock, nanoseconds.
fn read(clock: ClockId) -> Result<i64> {
    let now = clock_gettime(clock).with_context(|| format!("failed to read clock {clock}"))?;
    Ok(now.tv_sec() * 1_000_000_000 + now.tv_nsec())
}

/// The bounds of how far CLOCK_REALTIME is ahead of CLOCK_BOOTTIME, nanoseconds. The two can't be read at once, and a thread that is
/// preempted between them reads them milliseconds apart. So CLOCK_BOOTTIME is read before and after the other, again if that took long.
fn read_offset() -> Result<RangeInclusive<i64>> {
    const TRIES: usize = 5;
    const NARROW_NS: i64 = 10_000;
    let mut best = i64::MIN / 2..=i64::MAX / 2;
    for _ in 0..TRIES {
        let before = read(ClockId::CLOCK_BOOTTIME)?;
        let wall = read(ClockId::CLOCK_REALTIME)?;
        let after = read(ClockId::CLOCK_BOOTTIME)?;
        if after - before < best.end() - best.start() {
            best = wall - after..=wall - before;
        }
        if after - before <= NARROW_NS {
            break;
        }
    }
    Ok(best)
}

/// No offset: the clocks were never read.
const NONE_YET: i64 = i64::MIN;

/// The offset between the clocks: the last one, moved into the new bounds if it lies outside of them, and no further, because wide bounds
/// say less than the reading before.
fn settle(last: i64, now: &RangeInclusive<i64>) -> i64 {
    match last {
        NONE_YET => now.start() + (now.end() - now.start()) / 2,
        last => last.clamp(*now.start(), *now.end()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_tick_is_a_hundredth_of_a_second() {
        let of = |ns| Timestamp::from_unix_ns(ns).unwrap().whole_ticks().unix_ns();
        assert_eq!([of(1_000_000_000), of(1_019_999_999), of(-1)], [1_000_000_000, 1_010_000_000, -10_000_000]);
    }

    #[test]
    fn json_has_microseconds_and_a_zone() {
        let moment = Timestamp::from_unix_ns(1_707_993_045_000_000_000).unwrap();
        assert_eq!(serde_json::to_string(&moment).unwrap(), "\"2024-02-15T10:30:45.000000Z\"");
        let later = Timestamp::from_unix_ns(1_707_993_045_123_456_789).unwrap();
        assert_eq!(serde_json::to_string(&later).unwrap(), "\"2024-02-15T10:30:45.123456Z\"");
    }

    #[test]
    fn boottime_now_is_now() {
        let moment = Timestamp::from_boottime(boottime_ns().unwrap()).unwrap();
        let apart = (Timestamp::now().unix_ns() - moment.unix_ns()).abs();
        assert!(apart < 1_000_000_000, "{apart} ns apart");
    }

    #[test]
    fn clocks_that_were_read_apart_shift_nothing() {
        let set = settle(NONE_YET, &(1_000..=1_080));
        assert_eq!(set, 1_040);
        assert_eq!(settle(set, &(-4_000_000..=1_050)), set, "preempted between the two");
        assert_eq!(settle(set, &(-4_000_000..=1_030)), 1_030, "the same, and the first one was 10 ns off");
        assert_eq!(settle(set, &(1_020..=1_100)), set);
        assert_eq!(settle(set, &(60_000_000_000..=60_000_000_080)), 60_000_000_000, "the wall's clock was set");
    }

    #[test]
    fn the_offset_lies_within_its_bounds() {
        let offset = read_offset().unwrap();
        assert!(offset.end() - offset.start() < 1_000_000_000, "{offset:?}");
        let between = read(ClockId::CLOCK_REALTIME).unwrap() - read(ClockId::CLOCK_BOOTTIME).unwrap();
        assert!(
            (offset.start() - 1_000_000_000..offset.end() + 1_000_000_000).contains(&between),
            "{between}: {offset:?}"
        );
    }
}
