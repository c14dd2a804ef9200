//! The two builds of a probe's object, opened and loaded by the names of their maps and programs.
//!
//! The skeleton isn't used, because it is bound to one object; its types serve both (`abi.rs`).

use std::collections::HashMap;
use std::ffi::OsStr;
use std::io::Read as _;
use std::os::fd::{AsFd as _, BorrowedFd};
use std::path::Path;
use std::sync::Arc;

use anyhow::{Context, Result, anyhow, bail};
use libbpf_rs::btf::Btf;
use libbpf_rs::btf::types::{DataSec, Var, VarSecInfo};
use libbpf_rs::{
    AsRawLibbpf as _, Map, MapCore as _, MapType, Object, ObjectBuilder, OpenMapMut, OpenObject, OpenProgramMut,
    Program, ProgramMut, ProgramType,
};
use zstd::stream::read::Decoder;

use super::abi::{Plain, bytes_of};
use super::hook::Hook;
use super::kernel::Kernel;
use super::pattern::{Pattern, Variables};
use super::typed::Loading;
use super::types::{Ids, TypesFile};
use super::{counters, load, typed};

/// How a build reads kernel memory: docs/development.md.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Build {
    /// By bpf_probe_read_kernel(): on every kernel, but not under lockdown=confidentiality.
    Plain,
    /// The same build, but the arguments of hooks by loads: where the kernel has its own types (v5.5), and of no use with typed loads.
    Arguments,
    /// By typed loads: from v6.2, whatever the lockdown.
    Typed,
}

impl Build {
    /// How it reads, in words.
    pub fn words(self) -> &'static str {
        match self {
            Self::Plain | Self::Arguments => "reading kernel memory by a helper",
            Self::Typed => "reading kernel memory by typed loads",
        }
    }
}

/// Does the kernel have typed loads (v6.2)? A wrong answer costs one more attempt.
pub(super) fn has_typed_loads() -> bool {
    // bpf_cgrp_storage_get() came in the same release as bpf_rdonly_cast(). To ask for it takes a tenth of a millisecond; a search for
    // the name in the kernel's types takes ten.
    const CGRP_STORAGE_GET: u32 = 210;
    ProgramType::RawTracepoint.is_helper_supported(CGRP_STORAGE_GET).unwrap_or(false)
}

/// The two builds of an object, compressed: a ninth of what they are.
#[derive(Clone, Copy)]
pub(crate) struct Builds {
    /// Packed with `typed` as what comes before it.
    pub(super) plain: &'static [u8],
    pub(super) typed: &'static [u8],
}

impl Builds {
    pub(super) fn unpack(self, build: Build) -> Result<Vec<u8>> {
        let what = "failed to unpack the probe";
        let typed = zstd::decode_all(self.typed).context(what)?;
        if build == Build::Typed {
            return Ok(typed);
        }
        let mut plain = Vec::new();
        Decoder::with_ref_prefix(self.plain, &typed).and_then(|mut from| from.read_to_end(&mut plain)).context(what)?;
        Ok(plain)
    }
}

/// The two builds of `bpf/NAME.bpf.c`.
macro_rules! object {
    ($name:literal) => {
        $crate::probe::object::Builds {
            plain: include_bytes!(concat!(env!("OUT_DIR"), "/", $name, ".plain.o.zst")),
            typed: include_bytes!(concat!(env!("OUT_DIR"), "/", $name, ".typed.o.zst")),
        }
    };
}
pub(super) use object;

/// An object before it is loaded.
pub(crate) struct Opened {
    object: OpenObject,
    build: Build,
    ids: Ids,
    /// The programs that take their arguments with their types, and the id of each tracepoint's type.
    arguments: Vec<(&'static str, u32)>,
    /// The offset of each constant in .rodata.
    constants: HashMap<String, usize>,
    /// libbpf reads it when the object is loaded.
    _types: TypesFile,
}

impl Opened {
    /// Opens one build of an object, with the kernel's types from `btf`, if it is given.
    pub(super) fn open(object: Builds, build: Build, btf: Option<&Path>) -> Result<Self> {
        let bytes = object.unpack(build)?;
        if build != Build::Plain {
            typed::opening();
        }
        let mut types = TypesFile::create()?;
        let mut builder = ObjectBuilder::default();
        load::step("open the probe", builder.btf_custom_path(types.path()).map(drop))?;
        // Or it is called after its place in memory, and the tables of two objects of the same build have other names.
        load::step("open the probe", builder.name("faultline").map(drop))?;
        let object = load::step("open the probe", builder.open_memory(&bytes))?;
        // SAFETY: the pointer is valid as long as `object`, which is not changed meanwhile.
        let own = load::step("open the probe", Btf::from_bpf_object(unsafe { object.as_libbpf_object().as_ref() }))?;
        let own = own.ok_or_else(|| missing("section", ".BTF"))?;
        let ids = types.fill(btf, &own)?;
        let constants = constants(&own);
        drop(own);
        Ok(Self { object, build, ids, arguments: Vec::new(), constants, _types: types })
    }

    /// How it reads kernel memory.
    pub(super) fn build(&self) -> Build {
        self.build
    }

    pub(super) fn map(&mut self, name: &str) -> Result<OpenMapMut<'_>> {
        self.object.maps_mut().find(|map| map.name() == name).ok_or_else(|| missing("map", name))
    }

    /// Writes the constant `name`, with which the programs are verified.
    pub(super) fn configure<Value: Plain>(&mut self, name: &str, value: &Value) -> Result<()> {
        let at = self.constants.get(name).copied().ok_or_else(|| missing("variable", name))?;
        let mut map = self.object.maps_mut().find(|map| map.name().to_string_lossy().ends_with(".rodata"));
        let section =
            map.as_mut().and_then(OpenMapMut::initial_value_mut).ok_or_else(|| missing("section", ".rodata"))?;
        let place = section.get_mut(at..at + size_of::<Value>()).ok_or_else(|| missing("variable", name))?;
        place.copy_from_slice(value.bytes());
        Ok(())
    }

    /// What the kernel has that hooks depend on.
    pub(super) fn kernel(&self) -> Kernel {
        Kernel::of(&self.ids)
    }

    fn program(&mut self, name: &str) -> Result<OpenProgramMut<'_>> {
        self.object.progs_mut().find(|program| program.name() == name).ok_or_else(|| missing("program", name))
    }

    /// Gives the programs of these hooks their arguments with their types, where this build reads by that. True: some have them.
    pub(super) fn type_arguments(&mut self, hooks: &[Hook]) -> Result<bool> {
        if self.build != Build::Arguments {
            return Ok(false);
        }
        for at in Hook::all(hooks) {
            let Some(tracepoint) = at.typed_tracepoint() else { continue };
            let id = match tracepoint {
                "signal_deliver" => self.ids.signal_deliver,
                "signal_generate" => self.ids.signal_generate,
                _ => 0,
            };
            if id == 0 {
                bail!(
                    "failed to load the probe: this kernel does not say which types the arguments of `{tracepoint}` have"
                );
            }
            self.arguments.push((at.program, id));
        }
        Ok(!self.arguments.is_empty())
    }

    /// Lets the kernel verify the programs that are wanted, and leaves the others out.
    pub(super) fn autoload(&mut self, wanted: impl Fn(&OsStr) -> bool) {
        for mut program in self.object.progs_mut() {
            let is_wanted = wanted(program.name());
            program.set_autoload(is_wanted);
        }
    }

    /// Makes room for this many entries.
    pub(super) fn resize(&mut self, name: &str, entries: usize) -> Result<()> {
        let entries = u32::try_from(entries).with_context(|| format!("failed to size table `{name}`"))?;
        load::step(&format!("size table `{name}`"), self.map(name)?.set_max_entries(entries.max(1)))
    }

    /// Makes a table with a value for each processor one whose values all processors share. Its programs add to them atomically, or don't come
    /// to it.
    pub(super) fn share_values(&mut self, name: &str) -> Result<()> {
        let mut map = self.map(name)?;
        let shared = if map.map_type() == MapType::PercpuArray { MapType::Array } else { MapType::Hash };
        load::step(&format!("share the values of table `{name}`"), map.set_type(shared))
    }

    /// Lets user space map a table, and read and write it without a call of the kernel.
    pub(super) fn let_map(&mut self, name: &str) -> Result<()> {
        load::step(&format!("map table `{name}`"), self.map(name)?.set_map_flags(libbpf_sys::BPF_F_MMAPABLE))
    }

    /// Makes a table's keys as long as this, bytes.
    pub(super) fn set_key_size(&mut self, name: &str, bytes: u32) -> Result<()> {
        load::step(&format!("size the keys of table `{name}`"), self.map(name)?.set_key_size(bytes))
    }

    /// Makes a table's values as long as this, bytes.
    pub(super) fn set_value_size(&mut self, name: &str, bytes: usize) -> Result<()> {
        let bytes = u32::try_from(bytes).with_context(|| format!("failed to size the values of table `{name}`"))?;
        load::step(&format!("size the values of table `{name}`"), self.map(name)?.set_value_size(bytes))
    }

    /// Writes the table of constants that lies alone in section `name`, as long as it is.
    pub(super) fn fill<Value: Plain>(&mut self, name: &str, values: &[Value]) -> Result<()> {
        let bytes = bytes_of(values);
        let mut map = self
            .object
            .maps_mut()
            .find(|map| map.name().to_string_lossy().ends_with(name))
            .ok_or_else(|| missing("section", name))?;
        let what = || format!("size section `{name}`");
        load::step(&what(), map.set_value_size(u32::try_from(bytes.len()).with_context(what)?))?;
        let place = map.initial_value_mut().and_then(|section| section.get_mut(..bytes.len()));
        let place = place.ok_or_else(|| missing("section", name))?;
        place.copy_from_slice(bytes);
        Ok(())
    }

    /// Takes these programs as patterns, in their order. A pattern itself doesn't go to the kernel. Makes the tables.
    pub(super) fn patterns(&mut self, names: &[&str]) -> Result<Vec<Pattern>> {
        let object = self.object.as_libbpf_object().as_ptr();
        // SAFETY: the pointer is valid, and nothing else uses the object meanwhile.
        let prepared = unsafe { libbpf_sys::bpf_object__prepare(object) };
        let prepared = if prepared < 0 { Err(libbpf_rs::Error::from_raw_os_error(-prepared)) } else { Ok(()) };
        load::step("load the probe", prepared)?;
        // SAFETY: as above; the descriptor is the object's, and is duplicated while it is there.
        let types = unsafe { libbpf_sys::bpf_object__btf_fd(object) };
        let types = (types >= 0).then(|| {
            // SAFETY: as above.
            unsafe { BorrowedFd::borrow_raw(types) }.try_clone_to_owned().map(Arc::new)
        });
        let types = types.transpose().context("failed to keep the probe's types")?;
        let typed = (self.build == Build::Typed).then_some(self.ids);
        let variables = Variables::of(self.ids);
        let mut patterns = Vec::new();
        for name in names {
            let mut program = self.program(name)?;
            program.set_autoload(false);
            patterns.push(Pattern::of(&program, types.clone(), variables.clone(), typed)?);
        }
        Ok(patterns)
    }

    pub(super) fn load(self) -> Result<Loaded> {
        let typed = (self.build == Build::Typed).then_some(self.ids);
        let result = typed::loading(Loading { typed, arguments: self.arguments }, || self.object.load());
        Ok(Loaded { object: load::step("load the probe", result)?, apart: None })
    }

    /// Takes the tables of `loaded` for its own, but for its constants and for arrays of scratch memory: those with a value for each
    /// processor, unless they are `summed`.
    fn share(&mut self, loaded: &Loaded, summed: &[&str]) -> Result<()> {
        for mut map in self.object.maps_mut() {
            let name = map.name().to_string_lossy().into_owned();
            let is_scratch = map.map_type() == MapType::PercpuArray && !summed.contains(&name.as_str());
            if !is_scratch && !name.contains(".rodata") {
                load::step(&format!("share table `{name}`"), map.reuse_fd(loaded.map(&name)?.as_fd()))?;
            }
        }
        Ok(())
    }
}

/// The variables of .rodata by name: their place in it, bytes.
fn constants(types: &Btf<'_>) -> HashMap<String, usize> {
    let section: Option<DataSec<'_>> = types.type_by_name(".rodata");
    let variable = |info: VarSecInfo| {
        let variable = types.type_by_id::<Var<'_>>(info.ty)?;
        Some((variable.name()?.to_str()?.to_owned(), info.offset as usize))
    };
    section.iter().flat_map(|section| section.iter().filter_map(variable).collect::<Vec<_>>()).collect()
}

/// An object in the kernel. Dropping it leaves only what is attached.
pub(crate) struct Loaded {
    object: Object,
    /// A second one of the same, and its programs.
    apart: Option<(Object, Vec<&'static str>)>,
}

impl Loaded {
    pub(super) fn map(&self, name: &str) -> Result<Map<'_>> {
        self.object.maps().find(|map| map.name() == name).ok_or_else(|| missing("map", name))
    }

    /// Loads these programs as well, with scratch memory of their own ([`Hook::apart_if`](super::hook::Hook::apart_if)).
    pub(super) fn load_apart(&mut self, mut other: Opened, programs: Vec<&'static str>, summed: &[&str]) -> Result<()> {
        other.share(self, summed)?;
        self.apart = Some((other.load()?.object, programs));
        Ok(())
    }

    /// The object that has this program.
    fn object_with(&self, program: &str) -> &Object {
        match &self.apart {
            Some((apart, programs)) if programs.contains(&program) => apart,
            _ => &self.object,
        }
    }

    pub(super) fn program(&self, name: &str) -> Result<ProgramMut<'_>> {
        self.object_with(name)
            .progs_mut()
            .find(|program| program.name() == name)
            .ok_or_else(|| missing("program", name))
    }

    /// How many runs of this program the kernel skipped: [`counters::recursion_misses`].
    pub(super) fn runs_missed(&self, name: &str) -> u64 {
        let missed = |program: Program<'_>| counters::recursion_misses(program.as_fd()).map(|(_, missed)| missed);
        self.object_with(name).progs().filter(|program| program.name() == name).filter_map(missed).sum()
    }
}

fn missing(kind: &str, name: &str) -> anyhow::Error {
    anyhow!("failed to find {kind} `{name}` in the probe: this binary is damaged, build it anew")
}
