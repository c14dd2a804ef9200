//! The types of `bpf/include/abi/signal.h`.

use super::Plain;
use crate::text::lossy;

/// The signal object's generated half.
#[allow(missing_docs, non_camel_case_types, non_snake_case)]
#[allow(clippy::all, clippy::panic, clippy::unwrap_used, clippy::expect_used)]
mod skel {
    include!(concat!(env!("OUT_DIR"), "/signal.skel.rs"));
}

pub use skel::types::{
    fl_config, fl_counter, fl_exec, fl_near_pair, fl_oom, fl_own_limit, fl_pair, fl_pair_count, fl_party, fl_process,
    fl_process_flag, fl_result, fl_sample_kind, fl_signal, fl_signal_flag, fl_who,
};

// SAFETY: abi/signal.h has them so, and names what would be padding.
unsafe impl Plain for fl_config {}
// SAFETY: as above.
unsafe impl Plain for fl_signal {}
// SAFETY: as above.
unsafe impl Plain for fl_oom {}
// SAFETY: as above.
unsafe impl Plain for fl_process {}
// SAFETY: as above.
unsafe impl Plain for fl_pair {}
// SAFETY: as above.
unsafe impl Plain for fl_pair_count {}
// SAFETY: as above.
unsafe impl Plain for fl_near_pair {}

/// A sample of the ring.
#[derive(Debug)]
pub enum Sample {
    /// A signal on its way.
    Signal(Box<fl_signal>),
    /// A process was killed because memory is short.
    OutOfMemory(fl_oom),
    /// A task that was made.
    Fork(fl_process),
    /// A process that runs another program.
    Exec(Exec),
    /// A task that has ended.
    Exit(fl_process),
}

/// An exec, its strings taken apart.
#[derive(Debug)]
pub struct Exec {
    /// The process.
    pub process: fl_process,
    /// The program's path as the process sees it; `None` means that it is longer than a record can hold.
    pub exe: Option<Vec<u8>>,
    /// The path in the cgroup v2 hierarchy.
    pub cgroup: Option<Vec<u8>>,
}

impl Sample {
    /// The sample in `bytes`; `None` means that it is none of ours.
    pub fn from_bytes(bytes: &[u8]) -> Option<Self> {
        let kind = fl_sample_kind(u32::from_ne_bytes(bytes.get(..4)?.try_into().ok()?));
        Some(match kind {
            fl_sample_kind::FL_SAMPLE_SIGNAL => Self::Signal(Box::new(fl_signal::read(bytes)?)),
            fl_sample_kind::FL_SAMPLE_OOM => Self::OutOfMemory(fl_oom::read(bytes)?),
            fl_sample_kind::FL_SAMPLE_FORK => Self::Fork(fl_process::read(bytes)?),
            fl_sample_kind::FL_SAMPLE_EXIT => Self::Exit(fl_process::read(bytes)?),
            fl_sample_kind::FL_SAMPLE_EXEC => Self::Exec(Exec::from_bytes(bytes)?),
            _ => return None,
        })
    }
}

impl Sample {
    /// When it was taken: CLOCK_BOOTTIME, nanoseconds.
    pub fn timestamp_ns(&self) -> u64 {
        match self {
            Self::Signal(signal) => signal.timestamp_ns,
            Self::OutOfMemory(oom) => oom.timestamp_ns,
            Self::Fork(process) | Self::Exit(process) => process.timestamp_ns,
            Self::Exec(exec) => exec.process.timestamp_ns,
        }
    }
}

impl Exec {
    /// Sent up to the end of its strings.
    fn from_bytes(bytes: &[u8]) -> Option<Self> {
        let word = |at: usize| Some(u32::from_ne_bytes(bytes.get(at..at.checked_add(4)?)?.try_into().ok()?));
        let process = fl_process::read(bytes.get(..size_of::<fl_process>())?)?;
        let strings = bytes.get(std::mem::offset_of!(fl_exec, strings)..)?;
        let part = |offset: u32, length: u32| strings.get(offset as usize..offset.checked_add(length)? as usize);
        let cut = process.flags.0 & fl_process_flag::FL_PROCESS_PATH_CUT.0 != 0;
        let exe =
            part(word(std::mem::offset_of!(fl_exec, path_offset))?, word(std::mem::offset_of!(fl_exec, path_length))?);
        let cgroup = part(
            word(std::mem::offset_of!(fl_exec, cgroup_offset))?,
            word(std::mem::offset_of!(fl_exec, cgroup_length))?,
        );
        Some(Self { process, exe: exe.filter(|_| !cut).map(super::path_of), cgroup: cgroup.map(super::path_of) })
    }
}

impl fl_party {
    /// The process's name.
    pub fn comm(&self) -> String {
        lossy(&self.comm.map(|byte| byte as u8))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_sample_of_another_size_is_none() {
        assert!(Sample::from_bytes(&[]).is_none());
        assert!(Sample::from_bytes(&[0; 8]).is_none());
        assert!(Sample::from_bytes(&[0xff; 4096]).is_none());
        assert!(Sample::from_bytes(&vec![0; size_of::<fl_signal>()]).is_some());
    }

    #[test]
    fn the_strings_of_an_exec_are_checked() {
        let mut bytes = vec![0; std::mem::offset_of!(fl_exec, strings)];
        bytes[..4].copy_from_slice(&fl_sample_kind::FL_SAMPLE_EXEC.0.to_ne_bytes());
        let at = std::mem::offset_of!(fl_exec, path_length);
        bytes[at..at + 4].copy_from_slice(&9u32.to_ne_bytes());
        bytes.extend_from_slice(b"true\0bin\0");
        let Some(Sample::Exec(exec)) = Sample::from_bytes(&bytes) else { panic!("no exec") };
        assert_eq!(exec.exe.as_deref(), Some(&b"/bin/true"[..]));
        bytes[at..at + 4].copy_from_slice(&u32::MAX.to_ne_bytes());
        let Some(Sample::Exec(exec)) = Sample::from_bytes(&bytes) else { panic!("no exec") };
        assert_eq!(exec.exe, None);
    }
}
