//! What is known of a group beside its counts: what its samples say of it, or, where it has none, the kernel's stack.

use std::collections::BTreeMap;

use anyhow::Result;

use crate::diagnosis::Diagnosis;
use crate::hex::{Hex, digits};
use crate::identity::{self, Kind};
use crate::probe::StackFrame;
use crate::probe::abi::{fl_group, fl_group_key};
use crate::record::crash::{Disposition, Frame};
use crate::record::summary;
use crate::siginfo::{code_name, fault_type, signal_name};
use crate::text;
use crate::time::Timestamp;

/// How many signatures of one group are told apart.
const SIGNATURES_MAX: usize = 8;

/// The description of a group from a sample: about 3 KiB, and there are no more of them than groups.
#[derive(Clone, Debug, Default)]
pub(super) struct Identity {
    /// As in the crash record.
    pub signature: String,
    /// As in the crash record.
    pub family: Option<String>,
    /// The executable.
    pub exe: Option<String>,
    /// Its build id.
    pub build_id: Option<String>,
    /// What libc said before the abort.
    pub abort_message: Option<String>,
    /// The likely cause.
    pub diagnosis: Option<Diagnosis>,
    /// The innermost frames.
    pub frames: Vec<Frame>,
}

/// What the samples of a group say of it. The kernel's key is coarser than a signature: it can't unwind without frame pointers.
#[derive(Clone, Debug)]
pub(super) struct Known {
    identity: Identity,
    /// How many samples had each signature, the first [`SIGNATURES_MAX`] of them. Empty: no sample had names.
    signatures: Vec<(String, u64)>,
}

impl Known {
    /// A group of which this is said, by a sample that has yet to be added.
    pub(super) fn new(identity: Identity) -> Self {
        Self { identity, signatures: Vec::new() }
    }

    /// What the group is.
    pub(super) fn identity(&self) -> &Identity {
        &self.identity
    }

    /// Have its samples several signatures?
    pub(super) fn is_mixed(&self) -> bool {
        self.signatures.len() > 1
    }

    /// Adds a sample that has names. The group is what most of them are.
    pub(super) fn add(&mut self, identity: Identity) {
        let known = self.signatures.iter_mut().find(|(signature, _)| *signature == identity.signature);
        if let Some((_, count)) = known {
            *count += 1;
        } else if self.signatures.len() < SIGNATURES_MAX {
            self.signatures.push((identity.signature.clone(), 1));
        }
        if self.count(&identity.signature) > self.count(&self.identity.signature) {
            self.identity = identity;
        }
    }

    fn count(&self, signature: &str) -> u64 {
        self.signatures.iter().find(|(known, _)| known == signature).map_or(0, |(_, count)| *count)
    }
}

/// What kind of fault it was, as far as the key has it: a process may send itself a signal with any code.
fn kind<'a>(key: &fl_group_key, signal: &'a str) -> Kind<'a> {
    let fault = if key.has_code == 0 { None } else { fault_type(u32::from(key.signal), key.si_code, None) };
    Kind { signal, fault }
}

/// What is known of a group that has no sample, with its signature: by the kernel's stack of its first event. That stack makes no signature: a
/// sample's is made of the unwound stack without the frames that say nothing, and the two can't be told to be the same. Only where no frame
/// counts nothing else is needed.
pub(super) fn of_group(facts: &fl_group, stack: &[StackFrame]) -> (Option<String>, Identity) {
    let signal = signal_name(u32::from(facts.key.signal));
    let executable = facts.build_id.get(..facts.build_id_length as usize).filter(|id| !id.is_empty()).map(digits);
    // A sample would name an executable without a build id in another way: no signature is better than a second one.
    let of = |executable: &String| identity::signature(kind(&facts.key, &signal), false, Some(executable), &[], None);
    let signature = executable.as_ref().filter(|_| facts.key.frames == 0).map(of);
    let frame = |frame: &StackFrame| Frame {
        build_id: Some(digits(unpadded(&frame.build_id))),
        offset: Some(Hex(frame.offset)),
        ..Frame::default()
    };
    (signature, Identity { build_id: executable, frames: stack.iter().map(frame).collect(), ..Identity::default() })
}

/// The events of a group, or of several of one bug.
pub(super) struct Seen {
    /// How many.
    pub total: u64,
    /// The first one's time, CLOCK_BOOTTIME.
    pub first_ns: u64,
    /// The last one's.
    pub last_ns: u64,
    /// The last one's process.
    pub last_pid: u32,
}

/// A group of a summary, without events in its interval, nor a signature.
pub(super) fn told(key: &fl_group_key, seen: &Seen, of: Identity) -> Result<summary::Group> {
    let signal = u32::from(key.signal);
    let first_seen = Timestamp::from_boottime(seen.first_ns)?;
    // The kernel notes it once a tick: digits behind that say nothing, and no file that is compressed gets rid of them.
    let last_seen = Timestamp::from_boottime(seen.last_ns)?.whole_ticks();
    Ok(summary::Group {
        signature: None,
        family: of.family,
        estimated: false,
        signal: signal_name(signal),
        code: (key.has_code != 0).then(|| code_name(signal, key.si_code)),
        disposition: Disposition::from(key.disposition),
        comm: text::name(&key.comm),
        uid: Some(key.uid),
        exe: of.exe,
        build_id: of.build_id,
        count: 0,
        total: seen.total,
        first_seen,
        last_seen: last_seen.max(first_seen),
        last_pid: seen.last_pid,
        abort_message: of.abort_message,
        diagnosis: of.diagnosis,
        frames: of.frames,
        cpus: BTreeMap::new(),
    })
}

/// A build id as its linker wrote it: SHA-1 (20 bytes), MD5 or UUID (16), or a fast hash (8). The kernel pads it with zeros.
fn unpadded(build_id: &[u8; 20]) -> &[u8] {
    let is_padding = |from: usize| build_id[from..].iter().all(|&byte| byte == 0);
    let length = [8, 16].into_iter().find(|&length| is_padding(length)).unwrap_or(20);
    &build_id[..length]
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn build_ids_lose_their_padding() {
        let mut id = [0; 20];
        id[..8].fill(1);
        assert_eq!(unpadded(&id).len(), 8);
        id[15] = 1;
        assert_eq!(unpadded(&id).len(), 16);
        id[19] = 1;
        assert_eq!(unpadded(&id).len(), 20);
    }
}
