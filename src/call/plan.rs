//! Plans what to read of each call of a function, and how to show its result.

use super::argument::{ARGUMENTS_MAX, ArgumentPlan, FetchedField, chose};
use super::functions::{Functions, Prototype, TypeKind, kind, type_name};
use super::programs::ProgramFacts;
use super::select::{ChosenFunction, kernels_name};
use super::shape::Shape;
use super::syscalls;
use crate::probe::abi::call::{fl_fetch, fl_function_flag};
use crate::probe::call::Point;

/// The result of a function.
#[derive(Clone, Debug)]
pub(crate) struct Returns {
    /// How it is shown; `None` means that the function returns nothing.
    pub shape: Option<Shape>,
    /// A number below zero is that of an error.
    pub is_error: bool,
}

impl Returns {
    /// The result of a function that returns a value of this kind.
    pub(super) fn of(kind: &TypeKind) -> Self {
        Self {
            is_error: matches!(
                kind,
                TypeKind::Integer { signed: true, bytes: 4 | 8 }
                    | TypeKind::Pointer(_)
                    | TypeKind::Address
                    | TypeKind::Text
            ),
            shape: Shape::of(kind),
        }
    }
}

/// One way to see a function: what to read, and how to show it.
#[derive(Clone, Debug)]
pub(crate) struct Side {
    /// What the probe reads.
    pub point: Point,
    /// The value of each of its fetches.
    pub fields: Vec<FetchedField>,
    /// The function's result, seen this way.
    pub returns: Returns,
}

/// A function that was chosen, with the ways to see it.
#[derive(Clone, Debug, Default)]
pub(crate) struct FunctionPlan {
    /// Its name as it is shown.
    pub name: String,
    /// Nobody named it: it came with a preset, or with `--callers`.
    pub from_preset: bool,
    /// How to see it as a function of the kernel.
    pub kernel: Option<Side>,
    /// How to see it by the tracepoints of a system call.
    pub syscall: Option<Side>,
    /// It is a BPF program.
    pub program: Option<ProgramFacts>,
    /// If its beginning is a trigger: the trigger in words.
    pub trigger: Option<String>,
}

/// Functions that can end another process, or change what it has mapped: they are recorded for all processes. If an argument and bits
/// are given, only calls whose argument has one of these bits.
const ANYONE: &[(&str, Option<(u8, u64)>)] = &[
    ("creat", None),
    ("do_sys_ftruncate", None),
    ("do_ftruncate", None),
    ("do_truncate", None),
    ("fallocate", None),
    ("ftruncate", None),
    ("kill", None),
    ("ksys_fallocate", None),
    ("open", Some((1, libc::O_TRUNC as u64))),
    ("openat", Some((2, libc::O_TRUNC as u64))),
    ("pidfd_send_signal", None),
    ("rt_sigqueueinfo", None),
    ("rt_tgsigqueueinfo", None),
    ("tgkill", None),
    ("tkill", None),
    ("truncate", None),
    ("truncate_setsize", None),
    ("vfs_fallocate", None),
    ("vfs_truncate", None),
];

/// System calls that return an address.
const RETURN_ADDRESSES: [&str; 4] = ["mmap", "mremap", "brk", "shmat"];

/// Plans one function. `described`: the parameters of its system call, if the kernel's tracepoints have them.
pub(super) fn plan(
    chosen: &ChosenFunction,
    functions: &Functions<'_>,
    described: Option<Vec<syscalls::Parameter>>,
) -> FunctionPlan {
    let (kernel, syscall) = if chosen.is_syscall {
        let (parameters, fields, fetches) = of_syscall(&chosen.name, functions, described);
        let returns = Returns {
            shape: Some(match RETURN_ADDRESSES.contains(&chosen.name.as_str()) {
                true => Shape::Address,
                false => Shape::Signed(8),
            }),
            is_error: true,
        };
        let side = |symbol: String, btf_id: Option<u32>, parameters: u8, more: u32| Side {
            point: Point {
                symbol,
                btf_id,
                parameters,
                flags: flags(&chosen.name) | fl_function_flag::FL_FUNCTION_HAS_RESULT.0 | more,
                anyone: anyone(&chosen.name),
                fetches: fetches.clone(),
                ..Point::default()
            },
            fields: fields.clone(),
            returns: returns.clone(),
        };
        let wrapper = chosen.symbol.as_deref().and_then(|symbol| Some((symbol, functions.prototype(symbol)?)));
        let kernel = wrapper.map(|(symbol, prototype)| {
            side(symbol.to_owned(), Some(prototype.id), 1, fl_function_flag::FL_FUNCTION_SYSCALL.0)
        });
        (kernel, Some(side(kernels_name(&chosen.name).to_owned(), None, parameters, 0)))
    } else {
        (chosen.symbol.as_deref().map(|symbol| of_function(symbol, functions)), None)
    };
    FunctionPlan {
        name: chosen.name.clone(),
        from_preset: chosen.from_preset,
        kernel,
        syscall,
        program: None,
        trigger: None,
    }
}

fn flags(name: &str) -> u32 {
    if ANYONE.iter().any(|(known, _)| *known == name) { fl_function_flag::FL_FUNCTION_ANYONE.0 } else { 0 }
}

fn anyone(name: &str) -> Option<(u8, u64)> {
    ANYONE.iter().find(|(known, _)| *known == name).and_then(|(_, condition)| *condition)
}

fn of_syscall(
    name: &str,
    functions: &Functions<'_>,
    described: Option<Vec<syscalls::Parameter>>,
) -> (u8, Vec<FetchedField>, Vec<fl_fetch>) {
    let known = described.or_else(|| syscalls::known(name)).unwrap_or_else(syscalls::unknown);
    let mut candidates = Vec::new();
    for ((ty, parameter), argument) in known.iter().zip(0..ARGUMENTS_MAX) {
        let given = ArgumentPlan { function: name, name: parameter, type_name: ty, argument, is_users: true };
        candidates.push(given.candidates(&syscalls::kind(ty), functions));
    }
    let parameters = u8::try_from(known.len()).unwrap_or(ARGUMENTS_MAX).min(ARGUMENTS_MAX);
    let (fields, fetches) = chose(candidates);
    (parameters, fields, fetches)
}

fn of_function(symbol: &str, functions: &Functions<'_>) -> Side {
    let Some(prototype) = functions.prototype(symbol) else {
        // The types don't have it: nothing can be reported but that it was called.
        return Side {
            point: Point {
                symbol: symbol.to_owned(),
                btf_id: None,
                parameters: 0,
                flags: flags(symbol) | fl_function_flag::FL_FUNCTION_HAS_RESULT.0,
                anyone: anyone(symbol),
                fetches: Vec::new(),
                ..Point::default()
            },
            fields: Vec::new(),
            returns: Returns { shape: Some(Shape::Signed(8)), is_error: false },
        };
    };
    of_prototype(symbol, &prototype, functions)
}

/// A function that is called so.
pub(super) fn of_prototype(symbol: &str, prototype: &Prototype<'_>, functions: &Functions<'_>) -> Side {
    let mut candidates = Vec::new();
    let mut register = 0;
    for (name, ty) in &prototype.parameters {
        let kind = kind(*ty);
        let Some(registers) = kind.registers().filter(|registers| register + registers <= ARGUMENTS_MAX) else { break };
        let type_name = type_name(*ty);
        let given = ArgumentPlan { function: symbol, name, type_name: &type_name, argument: register, is_users: false };
        candidates.push(given.candidates(&kind, functions));
        register += registers;
    }
    let (fields, fetches) = chose(candidates);
    let result = kind(prototype.result);
    let is_int = matches!(result, TypeKind::Integer { bytes: 4, signed: true });
    let mut flags = flags(symbol);
    if result != TypeKind::Void {
        flags |= fl_function_flag::FL_FUNCTION_HAS_RESULT.0;
    }
    if is_int {
        flags |= fl_function_flag::FL_FUNCTION_RESULT_INT.0;
    }
    Side {
        point: Point {
            symbol: symbol.to_owned(),
            btf_id: Some(prototype.id),
            parameters: u8::try_from(prototype.parameters.len()).unwrap_or(u8::MAX),
            flags,
            anyone: anyone(symbol),
            fetches,
            ..Point::default()
        },
        fields,
        returns: Returns::of(&result),
    }
}

#[cfg(test)]
mod tests {
    use libbpf_rs::btf::Btf;

    use super::super::argument::{FETCHES_MAX, flag, kind_of};
    use super::*;
    use crate::probe::abi::call::{fl_fetch_flag, fl_fetch_kind};

    fn chosen(name: &str, is_syscall: bool) -> ChosenFunction {
        let symbol = if is_syscall { format!("__x64_sys_{name}") } else { name.to_owned() };
        ChosenFunction { name: name.to_owned(), symbol: Some(symbol), is_syscall, from_preset: false }
    }

    /// With this kernel's own types.
    fn planned(name: &str, is_syscall: bool) -> FunctionPlan {
        let btf = Btf::from_vmlinux().unwrap();
        plan(&chosen(name, is_syscall), &Functions::new(&btf), None)
    }

    fn names(side: &Side) -> Vec<&str> {
        side.fields.iter().map(|field| field.name.as_str()).collect()
    }

    #[test]
    fn a_system_call_has_two_sides_that_read_the_same() {
        let munmap = planned("munmap", true);
        let (kernel, syscall) = (munmap.kernel.unwrap(), munmap.syscall.unwrap());
        assert_eq!((kernel.point.symbol.as_str(), syscall.point.symbol.as_str()), ("__x64_sys_munmap", "munmap"));
        assert_eq!((kernel.point.parameters, syscall.point.parameters), (1, 2));
        assert!(kernel.point.flags & fl_function_flag::FL_FUNCTION_SYSCALL.0 != 0);
        assert!(syscall.point.flags & fl_function_flag::FL_FUNCTION_SYSCALL.0 == 0);
        assert_eq!(names(&kernel), ["addr", "len"]);
        assert_eq!(names(&syscall), ["addr", "len"]);
        assert_eq!(kernel.point.fetches[1].argument, 1);
        assert!(kernel.point.btf_id.is_some() && syscall.point.btf_id.is_none());
    }

    #[test]
    fn a_descriptor_names_its_file() {
        let ftruncate = planned("ftruncate", true).syscall.unwrap();
        assert_eq!(
            names(&ftruncate),
            ["fd", "fd:file.path", "fd:file.i_ino", "fd:file.i_size", "fd:file.s_dev", "length"]
        );
        let fetches = &ftruncate.point.fetches;
        assert_eq!(fetches[4].dereferences, 3);
        let of_fd = flag(fl_fetch_flag::FL_FETCH_OF_FD);
        assert!(fetches[1..5].iter().all(|fetch| fetch.flags == of_fd) && fetches[0].flags == 0);
        assert_eq!(ftruncate.fields[1].text, Some(0));
        assert!(ftruncate.point.flags & fl_function_flag::FL_FUNCTION_ANYONE.0 != 0);
        assert_eq!(planned("openat", true).syscall.unwrap().point.anyone, Some((2, 0o1000)));
        assert_eq!(names(&planned("close", true).syscall.unwrap()), ["fd", "fd:file.path"]);
    }

    #[test]
    fn structs_of_the_kernels_are_looked_into() {
        let truncate = planned("do_truncate", false).kernel.unwrap();
        let names = names(&truncate);
        for name in ["dentry:dentry.path", "dentry:dentry.i_ino", "dentry:dentry.s_dev", "length", "filp:file.path"] {
            assert!(names.contains(&name), "{name}: {names:?}");
        }
        let size = truncate.fields.iter().position(|field| field.name == "dentry:dentry.i_size").unwrap();
        assert_eq!(truncate.fields[size].after, Some(0));
        assert!(truncate.point.fetches[size].flags & flag(fl_fetch_flag::FL_FETCH_AGAIN) != 0);
        assert!(truncate.point.flags & fl_function_flag::FL_FUNCTION_RESULT_INT.0 != 0);
        assert!(truncate.returns.is_error);
        let comm = planned("wake_up_new_task", false).kernel.unwrap();
        let comm = comm.fields.iter().zip(&comm.point.fetches).find(|(field, _)| field.name == "p:task_struct.comm");
        assert_eq!(comm.unwrap().1.kind, kind_of(fl_fetch_kind::FL_FETCH_KERNEL_ARRAY));
    }

    #[test]
    fn structs_of_the_users_are_read_from_its_memory() {
        let sigaction = planned("rt_sigaction", true).syscall.unwrap();
        let names = names(&sigaction);
        let expected = ["sig", "act", "act:sigaction.sa_handler", "act:sigaction.sa_flags", "oact", "sigsetsize"];
        assert_eq!(names, expected, "nothing of what is only written to");
        assert_eq!(sigaction.point.fetches[2].flags, flag(fl_fetch_flag::FL_FETCH_OF_USER));
    }

    #[test]
    fn strings_are_two_at_most() {
        let rename = planned("renameat2", true).syscall.unwrap();
        assert_eq!(rename.fields.iter().filter(|field| field.text.is_some()).count(), 2);
        let symlink = of_syscall(
            "x",
            &Functions::new(&Btf::from_vmlinux().unwrap()),
            Some(["a", "b", "c"].map(|name| ("const char *".to_owned(), name.to_owned())).to_vec()),
        );
        assert_eq!(symlink.2[2].kind, kind_of(fl_fetch_kind::FL_FETCH_VALUE), "where the third lies");
        assert!(matches!(symlink.1[2].shape, Shape::Address));
    }

    #[test]
    fn no_plan_has_more_than_there_is_room_for() {
        let btf = Btf::from_vmlinux().unwrap();
        let functions = Functions::new(&btf);
        for name in functions.names().filter(|name| name.starts_with("vfs_") || name.starts_with("do_")) {
            let side = plan(&chosen(name, false), &functions, None).kernel.unwrap();
            assert!(side.fields.len() <= FETCHES_MAX && side.fields.len() == side.point.fetches.len(), "{name}");
            assert!(side.point.fetches.iter().all(|fetch| fetch.argument < ARGUMENTS_MAX), "{name}");
            assert!(side.point.fetches.iter().all(|fetch| matches!(fetch.size, 1 | 2 | 4 | 8)), "{name}");
        }
    }
}
