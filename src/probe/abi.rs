//! The types of `bpf/include/abi.h`, through the skeleton's BTF: nothing here is a copy made by hand.

pub mod call;
pub mod memory;
pub mod pagefault;
pub mod signal;

use crate::text::lossy;

/// The crash object's generated half.
#[allow(missing_docs, non_camel_case_types, non_snake_case)]
#[allow(clippy::all, clippy::panic, clippy::unwrap_used, clippy::expect_used)]
pub(super) mod crash_skel {
    include!(concat!(env!("OUT_DIR"), "/crash.skel.rs"));
}

pub use crash_skel::types::{
    fl_config, fl_counter, fl_crash, fl_crash_flag, fl_disposition, fl_file, fl_file_flag, fl_filter_config, fl_group,
    fl_group_key, fl_libc, fl_limit, fl_mark, fl_memory, fl_own_limit, fl_permission, fl_registers, fl_sample_kind,
    fl_stack_page, fl_vma,
};

/// A type of abi.h that crosses as it is.
///
/// # Safety
/// The type is `repr(C)`, made of integers only, and has no padding that isn't a field: every bit pattern is a value of it.
pub(super) unsafe trait Plain: Default {
    /// The value in `bytes`; `None` means that they have another size.
    fn read(bytes: &[u8]) -> Option<Self> {
        if bytes.len() != size_of::<Self>() {
            return None;
        }
        // SAFETY: the length was checked, and every bit pattern is a value.
        Some(unsafe { std::ptr::read_unaligned(bytes.as_ptr().cast()) })
    }

    /// The value that begins at the begin of `bytes`, which hold at least `least` bytes of it and no more than all; the rest
    /// is as by default. `None` means that the size is another one.
    fn read_cut(bytes: &[u8], least: usize) -> Option<Box<Self>> {
        if bytes.len() < least || bytes.len() > size_of::<Self>() {
            return None;
        }
        let mut value = Box::<Self>::default();
        // SAFETY: every bit pattern is a value; the length was checked; a Box and a borrowed slice don't overlap.
        unsafe { std::ptr::copy_nonoverlapping(bytes.as_ptr(), (&raw mut *value).cast::<u8>(), bytes.len()) };
        Some(value)
    }
}
// SAFETY: abi.h has them so, and names what would be padding.
unsafe impl Plain for fl_filter_config {}
// SAFETY: as above.
unsafe impl Plain for fl_config {}
// SAFETY: as above.
unsafe impl Plain for fl_group {}
// SAFETY: as above.
unsafe impl Plain for fl_crash {}
// SAFETY: as above.
unsafe impl Plain for fl_stack_page {}

/// A key of `fl_libcs`, as the kernel has it.
pub(super) fn libc_bytes(libc: &fl_libc) -> Vec<u8> {
    let mut bytes = libc.inode.to_ne_bytes().to_vec();
    bytes.extend_from_slice(&libc.device.to_ne_bytes());
    bytes.extend_from_slice(&[0; 4]);
    bytes
}

/// A sample of the ring.
#[derive(Debug)]
pub enum Sample {
    /// A signal that a watched task got.
    Crash(Box<fl_crash>),
    /// A page of the stack of a crash that comes after it.
    StackPage(Box<fl_stack_page>),
}

impl Sample {
    /// The sample in `bytes`; `None` means that it is none of ours.
    pub fn from_bytes(bytes: &[u8]) -> Option<Self> {
        let kind = u32::from_ne_bytes(bytes.get(..4)?.try_into().ok()?);
        if kind != fl_sample_kind::FL_SAMPLE_STACK_PAGE.0 {
            return fl_crash::from_bytes(bytes).map(Self::Crash);
        }
        fl_stack_page::read_cut(bytes, size_of::<fl_stack_page>()).map(Self::StackPage)
    }
}

/// Readings of a sample that its C type leaves to the reader.
pub trait Names: Sized {
    /// The sample in `bytes`: all of it except the end of its strings, which is not sent. `None` means that it is too short.
    fn from_bytes(bytes: &[u8]) -> Option<Box<Self>>;
    /// The process's name.
    fn comm(&self) -> String;
    /// The thread's name.
    fn thread_name(&self) -> String;
    /// The absolute path at `offset` of the strings; `None` means unknown.
    fn path(&self, offset: u32, length: u32) -> Option<Vec<u8>>;
    /// The instruction pointer and the return addresses, innermost first.
    fn frames(&self) -> &[u64];
    /// The executable mapping that a frame is in.
    fn module(&self, address: u64, is_return_address: bool) -> Option<&fl_vma>;
}

impl Names for fl_crash {
    fn from_bytes(bytes: &[u8]) -> Option<Box<Self>> {
        Self::read_cut(bytes, std::mem::offset_of!(fl_crash, strings))
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
pub(crate) fn path_of(names: &[u8]) -> Vec<u8> {
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
