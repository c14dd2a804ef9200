//! What the next keeper leaves alone, because it has kept one.

use std::collections::HashSet;
use std::ffi::OsString;

/// How many things are avoided; all are tried again when there are more.
const AVOIDED_MAX: usize = 64;

/// What stands before the number of a device in an argument of the keeper.
const DEVICE: &str = "device=";
/// The same of a process.
const PID: &str = "pid=";

/// What has blocked a keeper: the next one leaves it alone.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(in super::super) struct Avoided {
    /// File systems that don't answer.
    pub(super) devices: HashSet<u64>,
    /// Processes whose mappings can't be read: somebody holds their memory's lock.
    pub(super) pids: HashSet<u32>,
}

impl Avoided {
    pub(in super::super) fn add(&mut self, device: Option<u64>, pids: impl Iterator<Item = u32>) {
        if self.devices.len() + self.pids.len() >= AVOIDED_MAX {
            *self = Self::default();
        }
        self.devices.extend(device);
        self.pids.extend(pids);
    }

    /// As arguments of the keeper.
    pub(in super::super) fn arguments(&self) -> impl Iterator<Item = OsString> {
        let devices = self.devices.iter().map(|device| format!("{DEVICE}{device}"));
        devices.chain(self.pids.iter().map(|pid| format!("{PID}{pid}"))).map(OsString::from)
    }

    pub(super) fn of(arguments: impl Iterator<Item = OsString>) -> Self {
        let mut avoided = Self::default();
        for argument in arguments.filter_map(|argument| argument.into_string().ok()) {
            avoided.devices.extend(argument.strip_prefix(DEVICE).and_then(|device| device.parse::<u64>().ok()));
            avoided.pids.extend(argument.strip_prefix(PID).and_then(|pid| pid.parse::<u32>().ok()));
        }
        avoided
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_has_kept_one_is_known_to_the_next() {
        let mut avoided = Avoided::default();
        avoided.add(Some(50), [7, 8].into_iter());
        assert_eq!(Avoided::of(avoided.arguments()), avoided);
        for pid in 0..1000 {
            avoided.add(None, std::iter::once(pid));
        }
        assert!(avoided.devices.is_empty() && avoided.pids.len() <= AVOIDED_MAX);
    }
}
