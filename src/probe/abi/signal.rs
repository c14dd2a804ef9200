//! The types of `bpf/include/abi/signal.h`.

use std::mem::offset_of;

use super::{Plain as _, kind, path_of, plain, skeleton};
use crate::text;

skeleton!("signal.skel.rs");

pub use skel::types::{
    fl_config, fl_counter, fl_exec, fl_near_pair, fl_near_table, fl_oom, fl_own_limit, fl_pair, fl_pair_count,
    fl_party, fl_peer, fl_process, fl_process_flag, fl_result, fl_sample_kind, fl_signal, fl_signal_flag,
};

plain!(fl_config, fl_exec, fl_signal, fl_oom, fl_process, fl_pair, fl_pair_count, fl_near_pair, fl_near_table);

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
        Some(match fl_sample_kind(kind(bytes)?) {
            fl_sample_kind::FL_SAMPLE_SIGNAL => Self::Signal(fl_signal::read_large(bytes)?),
            fl_sample_kind::FL_SAMPLE_OOM => Self::OutOfMemory(fl_oom::read(bytes)?),
            fl_sample_kind::FL_SAMPLE_FORK => Self::Fork(fl_process::read(bytes)?),
            fl_sample_kind::FL_SAMPLE_EXIT => Self::Exit(fl_process::read(bytes)?),
            fl_sample_kind::FL_SAMPLE_EXEC => Self::Exec(Exec::from_bytes(bytes)?),
            _ => return None,
        })
    }

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
        let sample = fl_exec::read_cut(bytes, offset_of!(fl_exec, strings))?;
        let sent = bytes.get(offset_of!(fl_exec, strings)..)?;
        let path =
            |offset: u32, length: u32| sent.get(offset as usize..offset.checked_add(length)? as usize).map(path_of);
        let is_cut = sample.process.flags.0 & fl_process_flag::FL_PROCESS_PATH_CUT.0 != 0;
        Some(Self {
            process: sample.process,
            exe: path(sample.path_offset, sample.path_length).filter(|_| !is_cut),
            cgroup: path(sample.cgroup_offset, sample.cgroup_length),
        })
    }
}

impl fl_party {
    /// The process's name.
    pub fn comm(&self) -> String {
        text::name(&self.comm)
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
        let mut bytes = vec![0; offset_of!(fl_exec, strings)];
        bytes[..4].copy_from_slice(&fl_sample_kind::FL_SAMPLE_EXEC.0.to_ne_bytes());
        let at = offset_of!(fl_exec, path_length);
        bytes[at..at + 4].copy_from_slice(&9u32.to_ne_bytes());
        bytes.extend_from_slice(b"true\0bin\0");
        let Some(Sample::Exec(exec)) = Sample::from_bytes(&bytes) else { panic!("no exec") };
        assert_eq!(exec.exe.as_deref(), Some(&b"/bin/true"[..]));
        bytes[at..at + 4].copy_from_slice(&u32::MAX.to_ne_bytes());
        let Some(Sample::Exec(exec)) = Sample::from_bytes(&bytes) else { panic!("no exec") };
        assert_eq!(exec.exe, None);
    }
}
