//! The types of `bpf/include/abi/pagefault.h`, through the skeleton's BTF.

use super::{Plain as _, kind, path_in, plain, skeleton};

skeleton!("pagefault.skel.rs");

pub use skel::types::{
    fl_config, fl_counter, fl_fault_by, fl_fault_event, fl_fault_hook, fl_fault_key, fl_fault_mapping,
    fl_fault_process, fl_file_flag, fl_near_fault, fl_own_limit, fl_sample_kind, fl_stack_frames, fl_stack_place,
    fl_vma_class,
};

plain!(fl_config, fl_fault_key, fl_near_fault, fl_fault_process, fl_stack_place, fl_fault_event, fl_fault_mapping);

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
        match fl_sample_kind(kind(bytes)?) {
            fl_sample_kind::FL_SAMPLE_MAPPING => {
                fl_fault_mapping::read_cut(bytes, std::mem::offset_of!(fl_fault_mapping, strings)).map(Self::Mapping)
            }
            fl_sample_kind::FL_SAMPLE_FAULT => fl_fault_event::read_large(bytes).map(Self::Fault),
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
        path_in(&self.strings, 0, self.strings_length)
    }
}
