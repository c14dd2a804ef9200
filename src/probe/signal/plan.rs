//! The plan of the signal probe.

use anyhow::{Result, bail};

use crate::probe::abi::signal::{fl_own_limit, fl_peer};
use crate::probe::{Setup, Way};
use crate::siginfo::SIGKILL;

/// The rows that are found without a hash table.
const NEAR_PAIRS: u32 = fl_own_limit::FL_LIMIT_NEAR_PAIRS.0;

/// The processes that `--from` or `--to` means.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum PeerChoice {
    /// A process, by its number in the user's pid namespace.
    Pid(u32),
    /// Processes whose name contains this.
    Name(String),
}

/// What the kernel program is to do.
#[derive(Clone, Debug)]
pub(crate) struct Plan {
    /// Which tasks (the target or the sender must be one of them), and how to hook the kernel.
    pub setup: Setup,
    /// Which signals, 1 to 64.
    pub signals: Vec<u32>,
    /// The sender must be one of these; empty: any process.
    pub from: Vec<PeerChoice>,
    /// The target must be one of these; empty: any process.
    pub to: Vec<PeerChoice>,
    /// Forks, execs and exits, too.
    pub processes: bool,
    /// Send a record of each event.
    pub records: bool,
    /// Count by pair, with room for so many; `None` means that they are counted only in all.
    pub pairs: Option<u32>,
}

impl Plan {
    /// Are rows found without a hash table? Not if fewer pairs are allowed than these rows have room for.
    pub(super) fn has_near_pairs(&self) -> bool {
        self.pairs.is_some_and(|pairs| pairs >= NEAR_PAIRS)
    }

    /// Is nothing wanted but counts of all signals by pair, in the pid namespace whose numbers the kernel program sees?
    pub(super) fn counts_only(&self) -> Result<bool> {
        let filter = self.setup.filter.config()?;
        let is_any = self.from.is_empty() && self.to.is_empty() && filter.is_filtered == 0;
        Ok(!self.records && is_any && filter.pid_namespace_inode == 0)
    }

    /// Can a lack of memory send a signal that is watched? It sends SIGKILL only.
    pub(super) fn names_victims(&self, way: Way) -> bool {
        self.records && self.signals.contains(&SIGKILL) && way != Way::Syscall
    }
}

/// Writes the processes that a flag means into the configuration; returns how many they are.
pub(super) fn place(flag: &str, slots: &mut [fl_peer], whom: &[PeerChoice]) -> Result<u32> {
    if whom.len() > slots.len() {
        bail!("failed to filter by {flag}: {} of them at most", slots.len());
    }
    for (slot, who) in slots.iter_mut().zip(whom) {
        match who {
            PeerChoice::Pid(pid) => slot.pid = *pid,
            PeerChoice::Name(name) => {
                // One byte is for the NUL.
                let room = slot.name.len() - 1;
                if name.is_empty() || name.len() > room {
                    bail!("failed to filter by {flag} `{name}`: give a PID, or 1 to {room} bytes of a process's name");
                }
                slot.length = name.len() as u32;
                for (to, from) in slot.name.iter_mut().zip(name.bytes()) {
                    *to = from as _;
                }
            }
        }
    }
    Ok(whom.len() as u32)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn whom_is_checked() {
        let mut slots = [fl_peer::default(); 2];
        assert_eq!(place("--to", &mut slots, &[PeerChoice::Pid(7), PeerChoice::Name("sh".to_owned())]).unwrap(), 2);
        assert_eq!((slots[0].pid, slots[1].pid, slots[1].length), (7, 0, 2));
        for wrong in
            [vec![PeerChoice::Name(String::new())], vec![PeerChoice::Name("x".repeat(16))], vec![PeerChoice::Pid(1); 3]]
        {
            assert!(place("--to", &mut slots, &wrong).is_err(), "{wrong:?}");
        }
    }
}
