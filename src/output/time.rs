//! When: the kernel's clock turned into the wall's.

use anyhow::{Context, Result};
use jiff::tz::TimeZone;
use nix::time::{ClockId, clock_gettime};
use serde::{Deserialize, Deserializer, Serialize, Serializer, de};

/// A moment. In JSON: RFC 3339, UTC, microseconds.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Timestamp(jiff::Timestamp);

impl Timestamp {
    /// The present moment.
    pub fn now() -> Self {
        Self(jiff::Timestamp::now())
    }

    /// The moment at which CLOCK_BOOTTIME was `boottime_ns`. Reads both clocks now, so that a clock that was set in
    /// between shifts old and new records alike.
    ///
    /// # Errors
    /// Where a clock can't be read or the sum is no date.
    pub fn from_boottime(boottime_ns: u64) -> Result<Self> {
        let read = |clock: ClockId| -> Result<i128> {
            let now = clock_gettime(clock).with_context(|| format!("failed to read clock {clock}"))?;
            Ok(i128::from(now.tv_sec()) * 1_000_000_000 + i128::from(now.tv_nsec()))
        };
        let offset = read(ClockId::CLOCK_REALTIME)? - read(ClockId::CLOCK_BOOTTIME)?;
        jiff::Timestamp::from_nanosecond(offset + i128::from(boottime_ns))
            .map(Self)
            .with_context(|| format!("failed to date a record at {boottime_ns} ns"))
    }

    /// A moment given in nanoseconds since 1970; None: out of range.
    pub fn from_unix_ns(nanoseconds: i128) -> Option<Self> {
        jiff::Timestamp::from_nanosecond(nanoseconds).ok().map(Self)
    }

    /// Nanoseconds since 1970.
    pub fn unix_ns(self) -> i128 {
        self.0.as_nanosecond()
    }

    /// `2024-02-15 10:30:45`, in the machine's time zone.
    pub fn local_seconds(self) -> String {
        self.0.to_zoned(TimeZone::system()).strftime("%Y-%m-%d %H:%M:%S").to_string()
    }

    /// `22:33:49.123`, in the machine's time zone.
    pub fn local_milliseconds(self) -> String {
        self.0.to_zoned(TimeZone::system()).strftime("%H:%M:%S%.3f").to_string()
    }
}

impl Timestamp {
    /// `22:33:49.123`, in the machine's time zone: for lines that come thick and fast.
    pub fn local_clock(self) -> String {
        self.0.to_zoned(TimeZone::system()).strftime("%H:%M:%S.%3f").to_string()
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

/// CLOCK_BOOTTIME now, nanoseconds: it goes on while the machine sleeps and is never set.
///
/// # Errors
/// Where the clock can't be read.
pub fn boottime_ns() -> Result<u64> {
    let now = clock_gettime(ClockId::CLOCK_BOOTTIME).context("failed to read CLOCK_BOOTTIME")?;
    Ok(now.tv_sec() as u64 * 1_000_000_000 + now.tv_nsec() as u64)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn json_has_microseconds_and_a_zone() {
        let moment = Timestamp::from_unix_ns(1_707_993_045_000_000_000).unwrap();
        assert_eq!(serde_json::to_string(&moment).unwrap(), "\"2024-02-15T10:30:45.000000Z\"");
        let later = Timestamp::from_unix_ns(1_707_993_045_123_456_789).unwrap();
        assert_eq!(serde_json::to_string(&later).unwrap(), "\"2024-02-15T10:30:45.123456Z\"");
    }

    #[test]
    fn boottime_now_is_now() {
        let now = clock_gettime(ClockId::CLOCK_BOOTTIME).unwrap();
        let boottime_ns = now.tv_sec() as u64 * 1_000_000_000 + now.tv_nsec() as u64;
        let moment = Timestamp::from_boottime(boottime_ns).unwrap();
        let apart = (Timestamp::now().unix_ns() - moment.unix_ns()).abs();
        assert!(apart < 1_000_000_000, "{apart} ns apart");
    }
}
