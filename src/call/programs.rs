//! The BPF programs that were asked for (`bpf:NAME`): which ones are meant, what each is given, and what its result means.
//!
//! Most programs are given one pointer, whatever their source declares. It leads to the kernel's own struct for that type of program, or to
//! the values that the kernel hands on: the arguments of the function, tracepoint or callback that the program stands for.

use std::collections::{BTreeMap, BTreeSet, HashMap, HashSet};

use anyhow::{Context as _, Result};
use glob::Pattern;
use libbpf_rs::libbpf_sys::{
    BPF_PROG_TYPE_LSM, BPF_PROG_TYPE_STRUCT_OPS, BPF_PROG_TYPE_TRACING, BPF_PROG_TYPE_XDP, bpf_prog_type,
};
use serde::Serialize;

use super::argument::{ArgumentPlan, chose};
use super::functions::{Functions, Prototype, TypeKind, kind};
use super::plan::{FunctionPlan, Returns, Side, of_prototype};
use super::select::{Missing, is_glob, near};
use crate::probe::abi::call::fl_function_flag;
use crate::probe::call::Point;
use crate::probe::programs::{self, Callbacks, Holdings, LoadedProgram};

/// What stands before the name of a program.
const PREFIX: &str = "bpf:";
/// All of them.
pub(super) const ALL: &str = "bpf:*";
/// The longest name that the kernel keeps of a program.
const KERNELS_NAME: usize = 15;
/// Why callbacks and LSM programs are left alone on old kernels.
pub(super) const FORBIDDEN: &str = "this kernel's verifier would crash on it (before Linux 5.18)";
/// The arguments that the kernel takes for those of a program whose type its verifier could not make out (MAX_BPF_FUNC_REG_ARGS).
const PARAMETERS_UNKNOWN: u8 = 5;

/// Which program a function is.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub(crate) struct ProgramFacts {
    /// Its number in the kernel.
    pub id: u32,
    /// `xdp`, `struct_ops`
    #[serde(rename = "type")]
    pub kind: String,
    /// What it stands for: `tcp_congestion_ops.init`, `bpf_lsm_file_open`; `None` means that this isn't known, or nothing.
    pub hook: Option<String>,
}

impl ProgramFacts {
    /// Does the kernel call it through a struct of callbacks?
    pub(super) fn is_callback(&self) -> bool {
        self.kind == "struct_ops"
    }
}

/// Is it the name of a program?
pub(super) fn is_program(name: &str) -> bool {
    name.starts_with(PREFIX)
}

/// The programs to choose from.
pub(super) struct Programs<'btf> {
    loaded: Vec<LoadedProgram>,
    /// The callbacks that programs are registered as, by the program's number.
    callbacks: HashMap<u32, Hook<'btf>>,
    functions: &'btf Functions<'btf>,
}

/// What a program stands for.
struct Hook<'btf> {
    /// The map of the struct that the callback is a member of.
    map: u32,
    name: String,
    prototype: Prototype<'btf>,
}

impl<'btf> Programs<'btf> {
    /// Lists the programs that are loaded; if processes are given, only those that one of them holds.
    ///
    /// # Errors
    /// A missing privilege, or a process that isn't there.
    pub(super) fn read(functions: &'btf Functions<'btf>, holders: &[u32]) -> Result<Self> {
        let mut loaded = programs::loaded()?;
        let mut callbacks = HashMap::new();
        for all in programs::callbacks() {
            callbacks.extend(callbacks_of(&all, functions));
        }
        if !holders.is_empty() {
            let mut held = Holdings::default();
            for &holder in holders {
                let what = || format!("failed to find the BPF programs of PID {holder}");
                let Holdings { programs, maps } = Holdings::of(holder).with_context(what)?;
                held.programs.extend(programs);
                held.maps.extend(maps);
            }
            loaded.retain(|program| {
                let map = callbacks.get(&program.id).map(|hook: &Hook<'_>| hook.map);
                held.programs.contains(&program.id) || map.is_some_and(|map| held.maps.contains(&map))
            });
        }
        Ok(Self { loaded, callbacks, functions })
    }

    /// Only the programs with these numbers.
    pub(super) fn only(mut self, ids: &BTreeSet<u32>) -> Self {
        self.loaded.retain(|program| ids.contains(&program.id));
        self
    }

    /// Is it known what this program stands for? A callback stands for nothing before it is registered.
    pub(super) fn is_known(&self, id: u32) -> bool {
        let program = self.loaded.iter().find(|program| program.id == id);
        program.is_none_or(|program| program.kind != BPF_PROG_TYPE_STRUCT_OPS || self.callbacks.contains_key(&id))
    }

    /// Plans the programs with these names and globs, each once, and says for which there are none. No function gets a name that is `taken`.
    pub(super) fn plan(&self, names: &[String], taken: &HashSet<String>) -> (Vec<FunctionPlan>, Vec<Missing>) {
        let (mut chosen, mut missing) = (Vec::new(), Vec::new());
        let mut seen = HashSet::new();
        for name in names {
            let mut found = self.loaded.iter().filter(|program| is_named(name, &numbered_name(program))).peekable();
            if found.peek().is_none() {
                let known: BTreeSet<String> = self.loaded.iter().map(plain_name).collect();
                let near = if is_glob(name) { Vec::new() } else { near(name, known.iter().map(String::as_str)) };
                missing.push(Missing { name: name.clone(), near });
            }
            chosen.extend(found.filter(|program| seen.insert(program.id)));
        }
        let mut same: BTreeMap<&str, u32> = BTreeMap::new();
        for program in &chosen {
            *same.entry(&program.name).or_default() += 1;
        }
        let is_alone = |program: &LoadedProgram| {
            same.get(program.name.as_str()) == Some(&1) && !taken.contains(&plain_name(program))
        };
        let name = |program: &LoadedProgram| {
            if is_alone(program) { plain_name(program) } else { numbered_name(program) }
        };
        (chosen.into_iter().map(|program| self.plan_one(program, name(program))).collect(), missing)
    }

    fn plan_one(&self, program: &LoadedProgram, name: String) -> FunctionPlan {
        let (hook, side) = self.side(program);
        let id = program.types.as_ref().map(|(_, id)| *id);
        let is_risky = matches!(program.kind, BPF_PROG_TYPE_STRUCT_OPS | BPF_PROG_TYPE_LSM);
        let point = Point {
            symbol: name.clone(),
            btf_id: id,
            forbidden: (is_risky && !self.functions.survives_callbacks()).then_some(FORBIDDEN),
            program: Some(program.program.clone()),
            ..side.point
        };
        FunctionPlan {
            name,
            from_preset: false,
            kernel: Some(Side { point, ..side }),
            syscall: None,
            program: Some(ProgramFacts { id: program.id, kind: program.kind_word(), hook }),
            trigger: None,
        }
    }

    /// What a program stands for, and what can be read of its calls.
    fn side(&self, program: &LoadedProgram) -> (Option<String>, Side) {
        let own = program.types.as_ref().and_then(|(types, id)| Prototype::of(types, (*id).into()));
        let context = self.functions.context(program.kind);
        let parameters = own.as_ref().map_or(1, |own| parameters(own, context.as_ref().map(|(source, _)| source)));
        let with = |side: Side, more: u32| {
            let point = Point { parameters, flags: side.point.flags | more, ..side.point };
            Side { point, ..side }
        };
        let hook = match program.kind {
            BPF_PROG_TYPE_LSM | BPF_PROG_TYPE_TRACING => program.hook.and_then(|hook| self.functions.hook(hook)),
            _ => None,
        };
        let hook = hook.as_ref().map(|(name, prototype)| (name, prototype));
        let callback = self.callbacks.get(&program.id).map(|hook| (&hook.name, &hook.prototype));
        if let Some((name, prototype)) = callback.or(hook) {
            let side = of_prototype(name, prototype, self.functions);
            return (Some(name.clone()), with(side, fl_function_flag::FL_FUNCTION_CONTEXT.0));
        }
        let Some(own) = own else {
            let returns = Returns { shape: None, is_error: false };
            return (None, Side { point: Point::default(), fields: Vec::new(), returns });
        };
        let mut side = of_prototype(&program.name, &own, self.functions);
        if let (Some((_, kernels)), [(name, _)]) = (context, &own.parameters[..]) {
            let type_name = format!("struct {kernels} *");
            let given =
                ArgumentPlan { function: &program.name, name, type_name: &type_name, argument: 0, is_users: false };
            let candidates = given.candidates(&TypeKind::Pointer(kernels), self.functions);
            (side.fields, side.point.fetches) = chose(vec![candidates]);
        }
        if let Some(actions) = self.actions(program.kind) {
            side.returns = Returns::of(&actions);
        }
        (None, with(side, 0))
    }

    /// What the results of programs of this type mean, if the kernel has names for them.
    fn actions(&self, kind: bpf_prog_type) -> Option<TypeKind> {
        let name = match kind {
            BPF_PROG_TYPE_XDP => "xdp_action",
            _ => return None,
        };
        Some(TypeKind::Enumeration { bytes: 4, names: self.functions.enumeration(name)? })
    }
}

/// Does `typed` stand for the program that is called `name`?
pub(super) fn is_named(typed: &str, name: &str) -> bool {
    let plain = name.split_once('#').map_or(name, |(plain, _)| plain);
    match is_glob(typed) {
        true => Pattern::new(typed).is_ok_and(|pattern| pattern.matches(plain) || pattern.matches(name)),
        false => {
            let is_kernels = typed.len() == PREFIX.len() + KERNELS_NAME && plain.starts_with(typed);
            typed == plain || typed == name || is_kernels
        }
    }
}

fn plain_name(program: &LoadedProgram) -> String {
    format!("{PREFIX}{}", program.name)
}

/// Several programs may have the same name.
fn numbered_name(program: &LoadedProgram) -> String {
    format!("{PREFIX}{}#{}", program.name, program.id)
}

/// The programs that are members of a struct of callbacks, by their numbers.
fn callbacks_of<'btf>(all: &Callbacks, functions: &Functions<'btf>) -> Vec<(u32, Hook<'btf>)> {
    let members = functions.callbacks(all.value_type).unwrap_or_default().into_iter();
    members
        .filter_map(|(name, place, prototype)| {
            let word = all.value.get(place..place + size_of::<u64>())?;
            let id = u32::try_from(u64::from_ne_bytes(word.try_into().ok()?)).ok().filter(|&id| id != 0)?;
            Some((id, Hook { map: all.map, name, prototype }))
        })
        .collect()
}

/// How many parameters the kernel takes a program to have. Before v5.17 it doesn't say; its verifier made out the type of a program only if
/// that takes a pointer to the struct of its type of program: btf_check_func_arg_match(), kernel/bpf/btf.c.
fn parameters(own: &Prototype<'_>, context: Option<&String>) -> u8 {
    let is_known = match &own.parameters[..] {
        [(_, only)] => matches!((kind(*only), context), (TypeKind::Pointer(to), Some(context)) if to == *context),
        _ => false,
    };
    if is_known { 1 } else { PARAMETERS_UNKNOWN }
}
