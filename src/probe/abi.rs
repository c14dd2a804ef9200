//! The types of `bpf/include/abi.h`, through the skeleton's BTF: nothing here is a copy made by hand.

pub mod memory;

use crate::output::lossy;

/// The crash object's generated half.
#[allow(missing_docs, non_camel_case_types, non_snake_case)]
#[allow(clippy::all, clippy::panic, clippy::unwrap_used, clippy::expect_used)]
pub(super) mod crash_skel {
    include!(concat!(env!("OUT_DIR"), "/crash.skel.rs"));
}

pub use crash_skel::types::{
    fl_config, fl_counter, fl_crash, fl_crash_flag, fl_disposition, fl_file, fl_file_flag, fl_filter_config, fl_group,
    fl_group_key, fl_registers, fl_sample_kind, fl_stack_page, fl_vma,
};

/// What a probe is configured with before it is verified.
///
/// # Safety
/// The type is `repr(C)`, made of integers only, and has no padding that isn't a field.
pub(super) unsafe trait Constant {}
// SAFETY: abi.h has them so, and names what would be padding.
unsafe impl Constant for fl_filter_config {}
// SAFETY: as above.
unsafe impl Constant for fl_config {}

/// A value of `fl_groups`. None: not of its size.
pub(super) fn group_from_bytes(bytes: &[u8]) -> Option<fl_group> {
    if bytes.len() != size_of::<fl_group>() {
        return None;
    }
    // SAFETY: the length was checked, fl_group is repr(C) and made of integers only, so every bit pattern is a value of it.
    Some(unsafe { std::ptr::read_unaligned(bytes.as_ptr().cast()) })
}

/// What the ring brings.
#[derive(Debug)]
pub enum Sample {
    /// A signal that a watched task got.
    Crash(Box<fl_crash>),
    /// A page of the stack of a crash that comes after it.
    StackPage(Box<fl_stack_page>),
}

impl Sample {
    /// The sample in `bytes`; None: it is none of ours.
    pub fn from_bytes(bytes: &[u8]) -> Option<Self> {
        let kind = u32::from_ne_bytes(bytes.get(..4)?.try_into().ok()?);
        if kind != fl_sample_kind::FL_SAMPLE_STACK_PAGE.0 {
            return fl_crash::from_bytes(bytes).map(Self::Crash);
        }
        if bytes.len() != size_of::<fl_stack_page>() {
            return None;
        }
        let mut page = Box::<fl_stack_page>::default();
        // SAFETY: fl_stack_page is repr(C) and made of integers only, so every bit pattern is a value of it; the length was
        // checked above; a Box and a borrowed slice don't overlap.
        unsafe {
            std::ptr::copy_nonoverlapping(bytes.as_ptr(), (&raw mut *page).cast::<u8>(), bytes.len());
        }
        Some(Self::StackPage(page))
    }
}

/// Readings of a sample that its C type leaves to the reader.
pub trait Names: Sized {
    /// The sample in `bytes`: whole but for the end of its strings, which is not sent. None: too short to be one.
    fn from_bytes(bytes: &[u8]) -> Option<Box<Self>>;
    /// The process's name.
    fn comm(&self) -> String;
    /// The thread's name.
    fn thread_name(&self) -> String;
    /// The path at `offset` of the strings, absolute; None: unknown.
    fn path(&self, offset: u32, length: u32) -> Option<Vec<u8>>;
    /// The instruction pointer and the return addresses, innermost first.
    fn frames(&self) -> &[u64];
    /// The executable mapping that a frame is in.
    fn module(&self, address: u64, is_return_address: bool) -> Option<&fl_vma>;
}

impl Names for fl_crash {
    fn from_bytes(bytes: &[u8]) -> Option<Box<Self>> {
        let least = std::mem::offset_of!(fl_crash, strings);
        if bytes.len() < least || bytes.len() > size_of::<fl_crash>() {
            return None;
        }
        let mut sample = Box::<fl_crash>::default();
        // SAFETY: fl_crash is repr(C) and made of integers only, so every bit pattern is a value of it; the length was
        // checked above; a Box and a borrowed slice don't overlap.
        unsafe {
            std::ptr::copy_nonoverlapping(bytes.as_ptr(), (&raw mut *sample).cast::<u8>(), bytes.len());
        }
        Some(sample)
    }

    fn comm(&self) -> String {
        lossy(&self.comm.map(|byte| byte as u8))
    }

    fn thread_name(&self) -> String {
        lossy(&self.thread_name.map(|byte| byte as u8))
    }

    fn path(&self, offset: u32, length: u32) -> Option<Vec<u8>> {
        let end = offset.checked_add(length)?;
        let names: Vec<u8> = self.strings.get(offset as usize..end as usize)?.iter().map(|&byte| byte as u8).collect();
        Some(path_of(&names))
    }

    fn frames(&self) -> &[u64] {
        let count = (self.frame_count as usize).min(self.frames.len());
        &self.frames[..count]
    }

    fn module(&self, address: u64, is_return_address: bool) -> Option<&fl_vma> {
        let inside = address.wrapping_sub(u64::from(is_return_address));
        let count = (self.module_count as usize).min(self.modules.len());
        self.modules[..count].iter().find(|module| module.vm_start <= inside && inside < module.vm_end)
    }
}

/// The absolute path whose components stand in `names`, each with its NUL: the kernel program walked from the leaf to the root.
fn path_of(names: &[u8]) -> Vec<u8> {
    let mut path = Vec::with_capacity(names.len() + 1);
    for name in names.split(|&byte| byte == 0).rev().filter(|name| !name.is_empty()) {
        path.push(b'/');
        path.extend_from_slice(name);
    }
    if path.is_empty() {
        path.push(b'/');
    }
    path
}
