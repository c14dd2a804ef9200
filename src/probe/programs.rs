//! The BPF programs that are loaded, whoever loaded them, and what the kernel says of each. Only CAP_SYS_ADMIN may list them.

use std::collections::BTreeSet;
use std::ffi::CStr;
use std::fs;
use std::io;
use std::os::fd::{AsFd as _, AsRawFd, BorrowedFd, OwnedFd};
use std::sync::Arc;

use anyhow::{Context as _, Result};
use libbpf_rs::btf::Btf;
use libbpf_rs::btf::types::Func;
use libbpf_rs::query::MapInfoIter;
use libbpf_rs::{MapCore as _, MapFlags, MapHandle, MapType};
use libbpf_sys::{bpf_btf_info, bpf_func_info, bpf_prog_info, bpf_prog_type};

use super::pattern::owned;
use crate::error::Error;

/// A BPF program, which stays loaded as long as this is there, so that no other program gets its number.
pub(crate) struct LoadedProgram {
    /// Its number in the kernel.
    pub id: u32,
    /// The name of its main function; the first 15 characters of it, if it was loaded without types.
    pub name: String,
    /// enum bpf_prog_type.
    pub kind: bpf_prog_type,
    /// Itself.
    pub program: Arc<OwnedFd>,
    /// The types that it was loaded with, and the number of its main function among them.
    pub types: Option<(Btf<'static>, u32)>,
    /// What it is attached to, by its number among the kernel's own types: a function, a tracepoint, the struct that it is a callback of.
    /// `None`: nothing, something of a module, or the kernel doesn't say (before v6.0).
    pub hook: Option<u32>,
}

impl LoadedProgram {
    fn of(id: u32, program: OwnedFd) -> io::Result<Self> {
        let mut main = bpf_func_info::default();
        let mut info = bpf_prog_info::default();
        ask(program.as_fd(), &mut info)?;
        let (record, has_types) = (info.func_info_rec_size, info.nr_func_info > 0);
        if has_types && record as usize == size_of::<bpf_func_info>() {
            // The first function is the main one.
            let mut wanted = bpf_prog_info {
                nr_func_info: 1,
                func_info_rec_size: record,
                func_info: (&raw mut main) as u64,
                ..bpf_prog_info::default()
            };
            ask(program.as_fd(), &mut wanted)?;
        }
        let types = if main.type_id == 0 { None } else { Btf::from_prog_id(id).ok() };
        let function = types.as_ref().and_then(|types| types.type_by_id::<Func<'_>>(main.type_id.into()));
        let whole = function.and_then(|function| Some(function.name()?.to_string_lossy().into_owned()));
        let hook = (info.attach_btf_id != 0 && is_of_kernel(info.attach_btf_obj_id)).then_some(info.attach_btf_id);
        Ok(Self {
            id,
            // A char has a sign on some architectures alone.
            name: whole.unwrap_or_else(|| crate::text::lossy(&info.name.map(|char| char as u8))),
            kind: info.type_,
            program: Arc::new(program),
            types: types.map(|types| (types, main.type_id)),
            hook,
        })
    }

    /// Its type in one word: `xdp`, `struct_ops`.
    pub(crate) fn kind_word(&self) -> String {
        // SAFETY: libbpf returns null or a string that is there for ever.
        let word = unsafe { libbpf_sys::libbpf_bpf_prog_type_str(self.kind) };
        if word.is_null() {
            return format!("type {}", self.kind);
        }
        // SAFETY: as above.
        unsafe { CStr::from_ptr(word) }.to_string_lossy().into_owned()
    }
}

/// Has the kernel fill in what it says of a program.
pub(super) fn ask(program: BorrowedFd<'_>, info: &mut bpf_prog_info) -> io::Result<()> {
    let mut length = size_of::<bpf_prog_info>() as u32;
    // SAFETY: the kernel writes at most `length` bytes to `info`, and one record to `func_info`, if it points to one.
    match unsafe { libbpf_sys::bpf_prog_get_info_by_fd(program.as_raw_fd(), info, &raw mut length) } {
        0 => Ok(()),
        error => Err(io::Error::from_raw_os_error(-error)),
    }
}

/// Are these the kernel's own types, and not a module's or a program's?
fn is_of_kernel(types: u32) -> bool {
    let mut name = [0u8; 16];
    let mut info = bpf_btf_info { name: name.as_mut_ptr() as u64, name_len: name.len() as u32, ..Default::default() };
    let mut length = size_of::<bpf_btf_info>() as u32;
    // SAFETY: it takes any number.
    let Ok(fd) = owned(unsafe { libbpf_sys::bpf_btf_get_fd_by_id(types) }) else { return false };
    // SAFETY: the kernel writes at most `length` bytes to `info`, and at most `name_len` to `name`.
    let failed = unsafe { libbpf_sys::bpf_btf_get_info_by_fd(fd.as_raw_fd(), &raw mut info, &raw mut length) } != 0;
    !failed && info.kernel_btf != 0 && name.starts_with(b"vmlinux\0")
}

const WHAT: &str = "failed to list the BPF programs that are loaded";

/// All programs that are loaded, but for those that this process holds: its own.
///
/// # Errors
/// A missing privilege, with the cure.
pub(crate) fn loaded() -> Result<Vec<LoadedProgram>> {
    let own = Holdings::of(std::process::id()).context(WHAT)?.programs;
    let others = after(0)?.into_iter().filter(|id| !own.contains(id));
    // One that is gone by now, or is going, is none.
    let open = |id| {
        // SAFETY: it takes any number.
        let program = owned(unsafe { libbpf_sys::bpf_prog_get_fd_by_id(id) });
        program.and_then(|program| LoadedProgram::of(id, program)).ok()
    };
    Ok(others.filter_map(open).collect())
}

/// The numbers of all programs that are loaded and have higher ones than `id`: those that were loaded later. The kernel gives a number again
/// only after it has given all others.
///
/// # Errors
/// As [`loaded`].
pub(crate) fn after(mut id: u32) -> Result<Vec<u32>> {
    let mut all = Vec::new();
    loop {
        // SAFETY: it writes one number.
        let result = unsafe { libbpf_sys::bpf_prog_get_next_id(id, &raw mut id) };
        match -result {
            0 => all.push(id),
            libc::ENOENT => return Ok(all),
            libc::EPERM => {
                let why = format!("{WHAT}: needs CAP_SYS_ADMIN: run as root");
                return Err(Error::NotPermitted(why).into());
            }
            error => return Err(io::Error::from_raw_os_error(error)).context(WHAT),
        }
    }
}

/// A struct of callbacks that programs have registered with the kernel.
pub(crate) struct Callbacks {
    /// The number of the map that it is.
    pub map: u32,
    /// The kernel's type of `value`: a struct with the struct of callbacks in its member `data`.
    pub value_type: u32,
    /// Where the struct has a pointer to a function, there stands the program's number.
    pub value: Vec<u8>,
}

/// All that are registered.
pub(crate) fn callbacks() -> Vec<Callbacks> {
    let maps = MapInfoIter::default().filter(|map| map.ty == MapType::StructOps && map.btf_vmlinux_value_type_id != 0);
    let read = |id: u32| MapHandle::from_map_id(id).ok()?.lookup(&0u32.to_ne_bytes(), MapFlags::ANY).ok()?;
    maps.filter_map(|map| {
        Some(Callbacks { map: map.id, value_type: map.btf_vmlinux_value_type_id, value: read(map.id)? })
    })
    .collect()
}

/// The programs and maps that a process has descriptors of, by their numbers in the kernel.
#[derive(Debug, Default, PartialEq, Eq)]
pub(crate) struct Holdings {
    /// Programs, and those that links attach.
    pub programs: BTreeSet<u32>,
    /// Maps, and those whose callbacks links register.
    pub maps: BTreeSet<u32>,
}

impl Holdings {
    /// Those of a process.
    ///
    /// # Errors
    /// There is no such process, or it is not shown to us.
    pub(crate) fn of(pid: u32) -> io::Result<Self> {
        let mut all = Self::default();
        for entry in fs::read_dir(format!("/proc/{pid}/fdinfo"))? {
            // One that has been closed meanwhile is none.
            if let Ok(text) = entry.and_then(|entry| fs::read_to_string(entry.path())) {
                all.add(&text);
            }
        }
        Ok(all)
    }

    /// Those of one descriptor, as its fdinfo describes it.
    fn add(&mut self, text: &str) {
        for (name, value) in text.lines().filter_map(|line| line.split_once(':')) {
            let kind = match name {
                "prog_id" => &mut self.programs,
                "map_id" => &mut self.maps,
                _ => continue,
            };
            kind.extend(value.trim().parse::<u32>().ok());
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_descriptor_says_what_it_holds() {
        let mut all = Holdings::default();
        all.add("pos:\t0\nflags:\t02000002\nlink_type:\ttracing\nlink_id:\t7\nprog_tag:\tf0\nprog_id:\t31\nattach_type:\t24\n");
        all.add("pos:\t0\nlink_type:\tstruct_ops\nlink_id:\t8\nmap_id:\t12\n");
        all.add("pos:\t0\nflags:\t02\nprog_id:\t\n");
        assert_eq!(all, Holdings { programs: BTreeSet::from([31]), maps: BTreeSet::from([12]) });
        assert!(Holdings::of(u32::MAX).is_err());
    }
}
