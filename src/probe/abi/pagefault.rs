//! The types of `bpf/include/abi/pagefault.h`, through the skeleton's BTF.

use super::{Plain, path_of};

/// The page fault object's generated half.
#[allow(missing_docs, non_camel_case_types, non_snake_case)]
#[allow(clippy::all, clippy::panic, clippy::unwrap_used, clippy::expect_used)]
mod skel {
    include!(concat!(env!("OUT_DIR"), "/pagefault.skel.rs"));
}

pub use skel::types::{
    fl_config, fl_counter, fl_fault_by, fl_fault_event, fl_fault_hook, fl_fault_key, fl_fault_mapping,
    fl_fault_process, fl_file_flag, fl_sample_kind, fl_stack_frames, fl_stack_place, fl_vma_class,
};

// SAFETY: abi/pagefault.h has it so, and names what would be padding.
unsafe impl Plain for fl_config {}

// SAFETY: abi/pagefault.h has them so. An enum is a number in a struct of its own.
unsafe impl Plain for fl_fault_key {}
// SAFETY: as above.
unsafe impl Plain for fl_fault_process {}
// SAFETY: as above.
unsafe impl Plain for fl_stack_place {}
// SAFETY: as above.
unsafe impl Plain for fl_fault_event {}
// SAFETY: as above.
unsafe impl Plain for fl_fault_mapping {}

/// A key of `fl_faults`, whole or without a place. `None` means that it is neither.
pub(in crate::probe) fn key_from_bytes(bytes: &[u8]) -> Option<fl_fault_key> {
    fl_fault_key::read_cut(bytes, std::mem::offset_of!(fl_fault_key, device)).map(|key| *key)
}

/// A sample of the ring.
#[derive(Debug)]
pub enum Sample {
    /// A mapping that keys, frames or events lie in.
    Mapping(Box<fl_fault_mapping>),
    /// One fault.
    Fault(Box<fl_fault_event>),
}

impl Sample {
    /// The sample in `bytes`; `None` means that it is none of ours.
    pub fn from_bytes(bytes: &[u8]) -> Option<Self> {
        let kind = u32::from_ne_bytes(bytes.get(..4)?.try_into().ok()?);
        match fl_sample_kind(kind) {
            fl_sample_kind::FL_SAMPLE_MAPPING => {
                fl_fault_mapping::read_cut(bytes, std::mem::offset_of!(fl_fault_mapping, strings)).map(Self::Mapping)
            }
            fl_sample_kind::FL_SAMPLE_FAULT => {
                fl_fault_event::read_cut(bytes, size_of::<fl_fault_event>()).map(Self::Fault)
            }
            _ => None,
        }
    }
}

impl fl_fault_mapping {
    /// The file's absolute path; `None` means that there is no file, or that the path is longer than the room for it.
    pub fn path(&self) -> Option<Vec<u8>> {
        if self.file.inode == 0 || self.file.flags.0 & fl_file_flag::FL_FILE_PATH_CUT.0 != 0 {
            return None;
        }
        let names: Vec<u8> = self.strings.get(..self.strings_length as usize)?.iter().map(|&byte| byte as u8).collect();
        Some(path_of(&names))
    }
}
