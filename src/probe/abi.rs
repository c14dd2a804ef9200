//! The types of `bpf/include/abi.h`, through the skeleton's BTF: nothing here is a copy made by hand.

pub mod call;
pub mod memory;
pub mod pagefault;
pub mod signal;

use crate::text;

/// The generated half of an object, as the module `skel`.
macro_rules! skeleton {
    ($file:literal) => {
        #[allow(unreachable_pub, missing_docs, non_camel_case_types, non_snake_case)]
        #[allow(clippy::all, clippy::panic, clippy::unwrap_used, clippy::expect_used)]
        mod skel {
            include!(concat!(env!("OUT_DIR"), "/", $file));
        }
    };
}
pub(super) use skeleton;

skeleton!("crash.skel.rs");

pub use skel::types::{
    fl_arch, fl_code_range, fl_config, fl_counter, fl_crash, fl_crash_flag, fl_disposition, fl_file, fl_file_flag,
    fl_filter_config, fl_group, fl_group_key, fl_libc, fl_limit, fl_mark, fl_memory, fl_oom_code, fl_own_limit,
    fl_permission, fl_reason, fl_reason_flag, fl_reason_kind, fl_registers, fl_row_kind, fl_sample_kind, fl_stack_page,
    fl_text, fl_vma,
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

    /// The same for a large value.
    fn read_large(bytes: &[u8]) -> Option<Box<Self>> {
        Self::read_cut(bytes, size_of::<Self>())
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

    /// The value as the kernel has it.
    fn bytes(&self) -> &[u8] {
        bytes_of(std::slice::from_ref(self))
    }
}

/// Values as the kernel has them.
pub(super) fn bytes_of<Value: Plain>(values: &[Value]) -> &[u8] {
    // SAFETY: a Plain has no padding that isn't a field, so that each byte is initialized, and the slice is borrowed meanwhile.
    unsafe { std::slice::from_raw_parts(values.as_ptr().cast(), size_of_val(values)) }
}

/// Declares types that cross as they are.
macro_rules! plain {
    ($($name:ty),+) => {
        $(
            // SAFETY: a number, or abi.h and abi/PROBE.h have it so, and name what would be padding. An enum is a number in a
            // struct of its own.
            unsafe impl $crate::probe::abi::Plain for $name {}
        )+
    };
}
use plain;

plain!(
    u32,
    [u32; 2],
    i32,
    u64,
    fl_filter_config,
    fl_config,
    fl_group,
    fl_group_key,
    fl_crash,
    fl_libc,
    fl_oom_code,
    fl_stack_page
);

/// The first word of a sample, which says of what kind it is.
fn kind(bytes: &[u8]) -> Option<u32> {
    u32::read(bytes.get(..4)?)
}

/// A sample of the ring.
#[derive(Debug)]
pub enum Sample {
    /// A signal that a watched task got.
    Crash(Box<fl_crash>),
    /// A page of the stack of a crash that comes after it.
    StackPage(Box<fl_stack_page>),
    /// Executable mappings, with their files, for which the record of a crash that comes after it has no room.
    Modules(Box<fl_crash>),
}

impl Sample {
    /// The sample in `bytes`; `None` means that it is none of ours.
    pub fn from_bytes(bytes: &[u8]) -> Option<Self> {
        match fl_sample_kind(kind(bytes)?) {
            fl_sample_kind::FL_SAMPLE_STACK_PAGE => fl_stack_page::read_large(bytes).map(Self::StackPage),
            fl_sample_kind::FL_SAMPLE_MODULES => fl_crash::from_bytes(bytes).map(Self::Modules),
            _ => fl_crash::from_bytes(bytes).map(Self::Crash),
        }
    }
}

impl fl_crash {
    /// The sample in `bytes`: all of it except the end of its strings, which is not sent. `None` means that it is too short.
    pub fn from_bytes(bytes: &[u8]) -> Option<Box<Self>> {
        Self::read_cut(bytes, std::mem::offset_of!(fl_crash, strings))
    }

    /// As it is sent: without the end of its strings.
    #[cfg(test)]
    pub(crate) fn sent(&self) -> &[u8] {
        &self.bytes()[..std::mem::offset_of!(Self, strings) + self.strings_length as usize]
    }

    /// Has the process sent the signal to itself, as far as its siginfo proves it? Only for a signal that is FL_IS_FORGED.
    pub(crate) fn is_forged_by_itself(&self) -> bool {
        let has = |flag: fl_crash_flag| self.flags.0 & flag.0 != 0;
        !has(fl_crash_flag::FL_MAY_BE_CHILDS) || has(fl_crash_flag::FL_SENDER_SEEN)
    }

    /// The process's name.
    pub fn comm(&self) -> String {
        text::name(&self.comm)
    }

    /// The thread's name.
    pub fn thread_name(&self) -> String {
        text::name(&self.thread_name)
    }

    /// The absolute path at `offset` of the strings; `None` means unknown.
    pub fn path(&self, offset: u32, length: u32) -> Option<Vec<u8>> {
        path_in(&self.strings, offset, length)
    }

    /// The instruction pointer and the return addresses, innermost first.
    pub fn frames(&self) -> &[u64] {
        let count = (self.frame_count as usize).min(self.frames.len());
        &self.frames[..count]
    }

    /// A text of the process; `None` means that there is none, or that these bytes are no text. It may be cut within a letter.
    pub fn text(&self, text: &fl_text) -> Option<String> {
        let end = text.offset.checked_add(text.length)?;
        let bytes =
            text::bytes(&self.strings).get(text.offset as usize..end as usize).filter(|bytes| !bytes.is_empty())?;
        let text = match std::str::from_utf8(bytes) {
            Ok(text) => text,
            // The letter that was cut.
            Err(error) if error.error_len().is_none() => std::str::from_utf8(bytes.get(..error.valid_up_to())?).ok()?,
            Err(_) => return None,
        };
        let is_text = |letter: char| !letter.is_control() || letter.is_whitespace() || letter == '\u{1b}';
        text.chars().all(is_text).then(|| text.to_owned())
    }

    /// The executable mapping that a frame is in.
    pub fn module(&self, address: u64, is_return_address: bool) -> Option<&fl_vma> {
        let inside = address.wrapping_sub(u64::from(is_return_address));
        let count = (self.module_count as usize).min(self.modules.len());
        self.modules[..count].iter().find(|module| module.vm_start <= inside && inside < module.vm_end)
    }
}

/// The absolute path at `offset` of a sample's strings; `None` means that they are shorter.
fn path_in(strings: &[i8], offset: u32, length: u32) -> Option<Vec<u8>> {
    let end = offset.checked_add(length)?;
    text::bytes(strings).get(offset as usize..end as usize).map(path_of)
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
