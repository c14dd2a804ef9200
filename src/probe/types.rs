//! The kernel's types, cut down to those that a probe names.
//!
//! libbpf looks through all of the kernel's types (about 150 000) once for each type that a program names, which is half of
//! the time until it is attached. Here they are looked through once for all names; libbpf gets the few that were found, with
//! the members whose names occur in the probe. What a program may ask of them stays as it is: offsets, sizes, what is there.

use std::collections::{HashMap, HashSet};
use std::ffi::{CString, OsStr};
use std::fs::File;
use std::io::Write as _;
use std::os::fd::AsRawFd as _;
use std::os::unix::ffi::OsStrExt as _;
use std::path::{Path, PathBuf};
use std::ptr::NonNull;

use anyhow::{Context, Result, bail};
use libbpf_rs::btf::types::{Array, Composite, Enum, FuncProto, MemberAttr};
use libbpf_rs::btf::{Btf, BtfKind, BtfType, HasSize as _, TypeId};
use libbpf_rs::{AsRawLibbpf as _, libbpf_sys};
use nix::sys::memfd::{MFdFlags, memfd_create};

use super::load;
use crate::error::Error;

/// Numbers and features that are found in the kernel's types.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Ids {
    /// The function bpf_rdonly_cast(); 0: there is none.
    pub(super) rdonly_cast: u32,
    /// struct pt_regs; 0: there is none.
    pub(super) pt_regs: u32,
    /// The types of the arguments at these raw tracepoints; 0: there are none.
    pub(super) signal_deliver: u32,
    pub(super) signal_generate: u32,
    /// The per-CPU variable that says which context a processor is in: __preempt_count, or the one that holds it; 0: unknown.
    pub(super) preempt_count: u32,
    /// sched_process_exit has its third argument, so that it comes before the task gives up its memory: both came with v6.16.
    pub(super) exits_with_memory: bool,
    /// The kernel delivers a signal to a process that seccomp ends: v5.16 brought HANDLER_EXIT of `enum sig_handler` for it; before, the
    /// death goes straight to the coredump.
    pub(super) delivers_seccomp_kills: bool,
}

impl Ids {
    /// Takes what a type of this name says.
    fn note(&mut self, ty: &BtfType<'_>, name: &OsStr) {
        let id = ty.type_id().into();
        match (ty.kind(), name.as_bytes()) {
            (BtfKind::Func, b"bpf_rdonly_cast") => self.rdonly_cast = id,
            (BtfKind::Struct, b"pt_regs") => self.pt_regs = id,
            (BtfKind::Typedef, b"btf_trace_signal_deliver") => self.signal_deliver = id,
            (BtfKind::Typedef, b"btf_trace_signal_generate") => self.signal_generate = id,
            // struct pcpu_hot from v6.2 to v6.14, an int before and after.
            (BtfKind::Var, b"__preempt_count" | b"pcpu_hot") => self.preempt_count = id,
            (BtfKind::Typedef, b"btf_trace_sched_process_exit") => {
                // void (*)(void *data, struct task_struct *task, bool group_dead)
                let prototype = ty.next_type().and_then(|pointer| pointer.next_type());
                let prototype = prototype.and_then(|prototype| FuncProto::try_from(prototype).ok());
                self.exits_with_memory = prototype.is_some_and(|prototype| prototype.len() > 2);
            }
            (BtfKind::Enum, b"sig_handler") => {
                let values = Enum::try_from(*ty).ok();
                let mut values = values.iter().flat_map(|all| all.iter());
                self.delivers_seccomp_kills = values.any(|value| value.name.is_some_and(|name| name == "HANDLER_EXIT"));
            }
            _ => {}
        }
    }
}

/// A file in memory that libbpf reads types from when it loads a probe.
pub(super) struct TypesFile(File);

impl TypesFile {
    /// An empty file: its path must be known when the probe is opened, its content when the probe is loaded.
    pub(super) fn create() -> Result<Self> {
        let file = memfd_create(c"faultline-types", MFdFlags::MFD_CLOEXEC);
        Ok(Self(File::from(file.context("failed to create a file in memory")?)))
    }

    pub(super) fn path(&self) -> PathBuf {
        format!("/proc/self/fd/{}", self.0.as_raw_fd()).into()
    }

    /// Writes the types of the kernel that `probe` names, from the kernel or from the file `btf`. Returns the ids that a typed build
    /// needs.
    pub(super) fn fill(&mut self, btf: Option<&Path>, probe: &Btf<'_>) -> Result<Ids> {
        let kernel = kernel_types(btf)?;
        let mut cut = TypeCopier::new(&kernel, probe)?;
        let mut ids = cut.copy_roots()?;
        if btf.is_some() {
            // Variables and arguments are identified by the kernel's own numbers, not by those of a file.
            (ids.preempt_count, ids.signal_deliver, ids.signal_generate) = (0, 0, 0);
        }
        self.0.write_all(cut.made.bytes()?).context("failed to write the kernel's types to memory")?;
        Ok(ids)
    }
}

/// All types of the kernel, from the kernel or from the file `btf`.
pub(crate) fn kernel_types(btf: Option<&Path>) -> Result<Btf<'static>> {
    let Some(path) = btf else { return load::step("read the kernel's types", Btf::from_vmlinux()) };
    File::open(path).with_context(|| format!("failed to open `{}`", path.display()))?;
    Btf::from_path(path).map_err(|_| no_types(path))
}

/// libbpf says a number that no table of errors has.
fn no_types(path: &Path) -> anyhow::Error {
    let what = "has no types of a kernel (BTF): give a copy of that kernel's /sys/kernel/btf/vmlinux, or its vmlinux with debug types";
    Error::Invalid(format!("`{}` {what}", path.display())).into()
}

/// The types while they are being cut down.
struct TypeCopier<'btf> {
    kernel: &'btf Btf<'btf>,
    made: NewTypes,
    /// The names of the probe's types; for flavours (`NAME___FLAVOUR`) the part before the underscores.
    roots: HashSet<&'btf OsStr>,
    /// The names of their members.
    members: HashSet<&'btf OsStr>,
    /// Types that were copied: from id to id.
    copied: HashMap<u32, i32>,
}

impl<'btf> TypeCopier<'btf> {
    fn new(kernel: &'btf Btf<'btf>, probe: &'btf Btf<'btf>) -> Result<Self> {
        let mut cut = Self {
            kernel,
            made: NewTypes::new()?,
            roots: HashSet::new(),
            members: HashSet::new(),
            copied: HashMap::new(),
        };
        for id in ids(probe) {
            let Some(ty) = probe.type_by_id::<BtfType<'_>>(id).filter(is_root) else { continue };
            cut.roots.extend(ty.name().map(without_flavour));
            if let Ok(composite) = Composite::try_from(ty) {
                cut.members.extend(members(composite).filter_map(|member| member.name));
            }
        }
        Ok(cut)
    }

    fn copy_roots(&mut self) -> Result<Ids> {
        let mut found = Ids::default();
        for id in ids(self.kernel) {
            let Some(ty) = self.kernel.type_by_id::<BtfType<'_>>(id) else { continue };
            let Some(name) = ty.name() else { continue };
            found.note(&ty, name);
            if is_root(&ty) && self.roots.contains(name) {
                self.copy(id)?;
            }
        }
        Ok(found)
    }

    /// Copies a type and the types in it; returns its new id. Typedefs and qualifiers are left out, and all pointers are to void, because
    /// no access depends on them.
    fn copy(&mut self, id: TypeId) -> Result<i32> {
        if let Some(&copied) = self.copied.get(&id.into()) {
            return Ok(copied);
        }
        let Some(ty) = self.kernel.type_by_id::<BtfType<'_>>(id) else { return Ok(0) };
        let plain = ty.skip_mods_and_typedefs();
        let copied = if plain.type_id() == id { self.copy_plain(ty)? } else { self.copy(plain.type_id())? };
        self.copied.insert(id.into(), copied);
        Ok(copied)
    }

    fn copy_plain(&mut self, ty: BtfType<'btf>) -> Result<i32> {
        let made = self.made.0.as_ptr();
        match ty.kind() {
            BtfKind::Struct | BtfKind::Union => {
                let name = c_string(ty.name())?;
                let composite = Composite::try_from(ty).ok().context("failed to read a struct of the kernel")?;
                self.copy_composite(composite, &name)
            }
            // SAFETY: `made` is valid; 0 is void.
            BtfKind::Ptr => added(unsafe { libbpf_sys::btf__add_ptr(made, 0) }),
            BtfKind::Array => {
                let array = Array::try_from(ty).ok().context("failed to read an array type of the kernel")?;
                let (index, element) = (self.copy(array.index_ty())?, self.copy(array.ty())?);
                // SAFETY: `made` is valid.
                added(unsafe { libbpf_sys::btf__add_array(made, index, element, u32::try_from(array.capacity())?) })
            }
            // No other type is in them.
            BtfKind::Int | BtfKind::Float | BtfKind::Enum | BtfKind::Enum64 => {
                let kernel = self.kernel.as_libbpf_object().as_ptr();
                // SAFETY: both are valid, and the kernel's type lives as long as the kernel's types; libbpf copies its names.
                added(unsafe {
                    libbpf_sys::btf__add_type(made, kernel, libbpf_sys::btf__type_by_id(kernel, ty.type_id().into()))
                })
            }
            // Functions and declarations: no access goes through them.
            _ => Ok(0),
        }
    }

    fn copy_composite(&mut self, composite: Composite<'btf>, name: &CString) -> Result<i32> {
        let mut fields = Vec::new();
        for member in members(composite) {
            // A member without a name is a struct or union that may have some of the names.
            if member.name.is_none_or(|name| self.members.contains(name)) {
                fields.push((c_string(member.name)?, self.copy(member.ty)?, member.attr));
            }
        }
        let made = self.made.0.as_ptr();
        let bytes = u32::try_from(composite.size())?;
        let add = if composite.is_struct { libbpf_sys::btf__add_struct } else { libbpf_sys::btf__add_union };
        // SAFETY: `made` is valid, and the name lives during the call, which copies it.
        let id = added(unsafe { add(made, name.as_ptr(), bytes) })?;
        for (name, ty, attr) in fields {
            let (offset, bits) = match attr {
                MemberAttr::Normal { offset } => (offset, 0),
                MemberAttr::BitField { size, offset } => (offset, size),
            };
            // SAFETY: as above, and the composite is the last type of `made`.
            added(unsafe { libbpf_sys::btf__add_field(made, name.as_ptr(), ty, offset, bits.into()) })?;
        }
        Ok(id)
    }
}

/// The types that are being made.
struct NewTypes(NonNull<libbpf_sys::btf>);

impl NewTypes {
    fn new() -> Result<Self> {
        // SAFETY: it has no conditions.
        let made = unsafe { libbpf_sys::btf__new_empty() };
        Ok(Self(NonNull::new(made).context("failed to make room for the kernel's types")?))
    }

    fn bytes(&self) -> Result<&[u8]> {
        let mut length = 0;
        // SAFETY: the pointer is valid as long as `self`.
        let bytes = unsafe { libbpf_sys::btf__raw_data(self.0.as_ptr(), &raw mut length) };
        if bytes.is_null() {
            bail!("failed to make room for the kernel's types");
        }
        // SAFETY: libbpf says how many bytes there are; they live until the types change, which `self` rules out.
        Ok(unsafe { std::slice::from_raw_parts(bytes.cast(), length as usize) })
    }
}

impl Drop for NewTypes {
    fn drop(&mut self) {
        // SAFETY: made by btf__new_empty(), and freed only here.
        unsafe { libbpf_sys::btf__free(self.0.as_ptr()) }
    }
}

fn added(id: i32) -> Result<i32> {
    if id < 0 {
        return Err(std::io::Error::from_raw_os_error(-id)).context("failed to copy the kernel's types");
    }
    Ok(id)
}

fn ids(btf: &Btf<'_>) -> impl Iterator<Item = TypeId> {
    (1..u32::try_from(btf.len()).unwrap_or(u32::MAX)).map(TypeId::from)
}

fn is_root(ty: &BtfType<'_>) -> bool {
    matches!(ty.kind(), BtfKind::Struct | BtfKind::Union | BtfKind::Enum | BtfKind::Enum64)
}

/// `Composite::iter()`, whose items live as long as the types, not the composite.
fn members<'btf>(composite: Composite<'btf>) -> impl Iterator<Item = libbpf_rs::btf::types::CompositeMember<'btf>> {
    (0..composite.len()).filter_map(move |index| composite.get(index))
}

fn without_flavour(name: &OsStr) -> &OsStr {
    let bytes = name.as_bytes();
    let end = memchr::memmem::find(bytes, b"___").unwrap_or(bytes.len());
    OsStr::from_bytes(&bytes[..end])
}

fn c_string(name: Option<&OsStr>) -> Result<CString> {
    Ok(CString::new(name.unwrap_or_default().as_bytes())?)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_flavour_is_cut_off() {
        assert_eq!(without_flavour(OsStr::new("bpf_func_id___fl")), "bpf_func_id");
        assert_eq!(without_flavour(OsStr::new("maple_tree")), "maple_tree");
        assert_eq!(without_flavour(OsStr::new("___")), "");
    }
}
