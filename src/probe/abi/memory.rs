//! The types of `bpf/include/abi/memory.h`, through the skeleton's BTF.

use super::{Plain, path_of};

/// The memory object's generated half.
#[allow(missing_docs, non_camel_case_types, non_snake_case)]
#[allow(clippy::all, clippy::panic, clippy::unwrap_used, clippy::expect_used)]
mod skel {
    include!(concat!(env!("OUT_DIR"), "/memory.skel.rs"));
}

pub use skel::types::{
    fl_alert, fl_alert_key, fl_call, fl_config, fl_counter, fl_exec_fault, fl_file, fl_file_flag, fl_life, fl_mapping,
    fl_mapping_flag, fl_own_limit, fl_page, fl_process, fl_sample_kind, fl_vma,
};

// SAFETY: abi/memory.h has it so, and names what would be padding.
unsafe impl Plain for fl_config {}

// SAFETY: abi/memory.h has them so. An enum is a number in a struct of its own.
unsafe impl Plain for fl_mapping {}
// SAFETY: as above.
unsafe impl Plain for fl_page {}
// SAFETY: as above.
unsafe impl Plain for fl_exec_fault {}
// SAFETY: as above.
unsafe impl Plain for fl_life {}
// SAFETY: as above.
unsafe impl Plain for fl_alert {}
// SAFETY: as above.
unsafe impl Plain for fl_alert_key {}

/// An entry of `fl_alerts`. `None` means that the size is another one.
pub(in crate::probe) fn alert_from_bytes(key: &[u8], value: &[u8]) -> Option<(fl_alert_key, fl_alert)> {
    Some((fl_alert_key::read(key)?, fl_alert::read(value)?))
}

/// A key of `fl_alerts`, as the kernel has it: bpf/include/abi/memory.h.
pub(in crate::probe) fn alert_key_bytes(key: &fl_alert_key) -> Vec<u8> {
    let mut bytes = key.start_boottime_ns.to_ne_bytes().to_vec();
    for word in [key.pid, key.call.0, key.writable, 0] {
        bytes.extend_from_slice(&word.to_ne_bytes());
    }
    bytes
}

/// A value for `fl_processes`.
pub(in crate::probe) fn process_bytes(flags: u32) -> Vec<u8> {
    let mut bytes = flags.to_ne_bytes().to_vec();
    bytes.resize(size_of::<fl_process>(), 0);
    bytes
}

/// A sample of the ring.
#[derive(Debug)]
pub enum Sample {
    /// A call, or a mapping. The pages that belong to it came before.
    Mapping(Box<fl_mapping>),
    /// A page, read by the kernel program.
    Page(Box<fl_page>),
    /// A page is to be executed that was not accessible.
    Fault(Box<fl_exec_fault>),
    /// A watched process has a child, which is watched.
    Fork(Box<fl_life>),
    /// A watched process has ended.
    End(Box<fl_life>),
}

impl Sample {
    /// The sample in `bytes`; `None` means that it is none of ours.
    pub fn from_bytes(bytes: &[u8]) -> Option<Self> {
        let kind = u32::from_ne_bytes(bytes.get(..4)?.try_into().ok()?);
        match fl_sample_kind(kind) {
            fl_sample_kind::FL_SAMPLE_MAPPING => {
                fl_mapping::read_cut(bytes, std::mem::offset_of!(fl_mapping, strings)).map(Self::Mapping)
            }
            fl_sample_kind::FL_SAMPLE_PAGE => fl_page::read_cut(bytes, size_of::<fl_page>()).map(Self::Page),
            fl_sample_kind::FL_SAMPLE_FAULT => {
                fl_exec_fault::read_cut(bytes, size_of::<fl_exec_fault>()).map(Self::Fault)
            }
            fl_sample_kind::FL_SAMPLE_FORK => fl_life::read_cut(bytes, size_of::<fl_life>()).map(Self::Fork),
            fl_sample_kind::FL_SAMPLE_END => fl_life::read_cut(bytes, size_of::<fl_life>()).map(Self::End),
            _ => None,
        }
    }
}

impl fl_mapping {
    /// Is this flag set?
    pub fn has(&self, flag: fl_mapping_flag) -> bool {
        self.flags.0 & flag.0 != 0
    }

    /// The mapping at `address`. `None` means that there is none, or that it was not looked up.
    pub fn vma(&self) -> Option<&fl_vma> {
        (self.vma.vm_end != 0).then_some(&self.vma)
    }

    /// The mapping's file.
    pub fn file(&self) -> Option<&fl_file> {
        (self.vma.file != 0).then_some(&self.file)
    }

    /// Was the file unlinked, as a memfd always is?
    pub fn is_deleted(&self) -> bool {
        self.file.flags.0 & fl_file_flag::FL_FILE_DELETED.0 != 0
    }

    /// The file's absolute path; `None` means that there is no file, or that the path is longer than the room for it.
    pub fn path(&self) -> Option<Vec<u8>> {
        if self.file()?.flags.0 & fl_file_flag::FL_FILE_PATH_CUT.0 != 0 {
            return None;
        }
        let names: Vec<u8> = self.strings.get(..self.strings_length as usize)?.iter().map(|&byte| byte as u8).collect();
        Some(path_of(&names))
    }
}
