//! The types of `bpf/include/abi/memory.h`, through the skeleton's BTF.

use super::{Plain as _, kind, path_in, plain, skeleton};

skeleton!("memory.skel.rs");

pub use skel::types::{
    fl_call, fl_config, fl_counter, fl_exec_fault, fl_exec_mem, fl_exec_mem_key, fl_file, fl_file_flag, fl_life,
    fl_mapping, fl_mapping_flag, fl_own_limit, fl_page, fl_process, fl_sample_kind, fl_vma,
};

plain!(fl_config, fl_mapping, fl_page, fl_exec_fault, fl_life, fl_exec_mem, fl_exec_mem_key, fl_process);

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
        match fl_sample_kind(kind(bytes)?) {
            fl_sample_kind::FL_SAMPLE_MAPPING => {
                fl_mapping::read_cut(bytes, std::mem::offset_of!(fl_mapping, strings)).map(Self::Mapping)
            }
            fl_sample_kind::FL_SAMPLE_PAGE => fl_page::read_large(bytes).map(Self::Page),
            fl_sample_kind::FL_SAMPLE_FAULT => fl_exec_fault::read_large(bytes).map(Self::Fault),
            fl_sample_kind::FL_SAMPLE_FORK => fl_life::read_large(bytes).map(Self::Fork),
            fl_sample_kind::FL_SAMPLE_END => fl_life::read_large(bytes).map(Self::End),
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

    /// The file's absolute path; `None` means that there is no file, or that the path is longer than the room for it.
    pub fn path(&self) -> Option<Vec<u8>> {
        if self.file()?.flags.0 & fl_file_flag::FL_FILE_PATH_CUT.0 != 0 {
            return None;
        }
        path_in(&self.strings, 0, self.strings_length)
    }
}
