//! Plans what to read of the arguments of a function: at most so many arguments, values and strings as a call has room for.

use super::functions::{FieldPath, Functions, TypeKind, kind, type_name};
use super::shape::{Shape, by_name, enum_of_flags};
use super::structs::{self, FieldFormat};
use crate::probe::abi::call::{fl_fetch, fl_fetch_flag, fl_fetch_kind, fl_own_limit};

/// Arguments of a function that can be read: those in registers.
pub(super) const ARGUMENTS_MAX: u8 = fl_own_limit::FL_LIMIT_ARGUMENTS.0 as u8;
/// Values of one call.
pub(super) const FETCHES_MAX: usize = fl_own_limit::FL_LIMIT_FETCHES.0 as usize;
/// How many of them are read again at the call's end.
const AFTER_MAX: u8 = fl_own_limit::FL_LIMIT_AFTER.0 as u8;
/// Strings of one call.
const TEXTS_MAX: u8 = fl_own_limit::FL_LIMIT_TEXTS.0 as u8;

/// A value that one fetch reads.
#[derive(Clone, Debug)]
pub(crate) struct FetchedField {
    /// `addr`, `vma:vm_area_struct.vm_start`
    pub name: String,
    /// Its type as C writes it.
    pub type_name: String,
    /// How it is shown.
    pub shape: Shape,
    /// Which of the call's texts it is.
    pub text: Option<u8>,
    /// Which of the values at the call's end it is.
    pub after: Option<u8>,
}

/// System calls whose file must be identified by inode and device.
const CHANGE_FILES: [&str; 3] = ["ftruncate", "fallocate", "mmap"];

/// A value that may be read, before it is decided which ones are.
pub(super) struct CandidateValue {
    name: String,
    type_name: String,
    shape: Shape,
    fetch: fl_fetch,
}

/// An argument of a function.
pub(super) struct ArgumentPlan<'a> {
    pub(super) function: &'a str,
    pub(super) name: &'a str,
    pub(super) type_name: &'a str,
    pub(super) argument: u8,
    /// The caller is a user's program, so that a pointer leads to user memory.
    pub(super) is_users: bool,
}

impl ArgumentPlan<'_> {
    /// The values that may be read of it, the most important first.
    pub(super) fn candidates(&self, kind: &TypeKind, functions: &Functions<'_>) -> Vec<CandidateValue> {
        let mut all = Vec::new();
        match kind {
            TypeKind::Text if self.is_string() => all
                .push(self.candidate(Shape::Text, fl_fetch { kind: kind_of(self.text_kind()), ..self.fetch(&[], 8) })),
            TypeKind::Pointer(name) => {
                // Memory that a system call only writes to has no information at its beginning.
                let is_input = !self.is_users || self.type_name.starts_with("const ") || name == "open_how";
                let fields = if is_input { self.fields(name, functions) } else { Vec::new() };
                if fields.is_empty() || self.is_users {
                    all.push(self.candidate(Shape::Address, self.fetch(&[], 8)));
                }
                all.extend(fields);
            }
            TypeKind::PointerToNumber(to) => {
                all.push(self.candidate(Shape::Address, self.fetch(&[], 8)));
                if let Some(shape) = Shape::of(to) {
                    let mut fetch = self.fetch(&[0], shape.bytes());
                    fetch.flags |= flag(fl_fetch_flag::FL_FETCH_AGAIN);
                    let type_name = self.type_name.trim_start_matches("const ").trim_end_matches([' ', '*']).to_owned();
                    all.push(CandidateValue { name: format!("*{}", self.name), type_name, shape, fetch });
                }
            }
            kind => {
                let flags = self.flags(kind, functions);
                let shape = flags.or_else(|| by_name(self.function, self.name, kind)).or_else(|| Shape::of(kind));
                if let Some(shape) = shape {
                    let fetch = self.fetch(&[], shape.bytes());
                    all.push(self.candidate(shape, fetch));
                }
                if self.is_users && self.name == "fd" {
                    all.extend(self.behind_descriptor(functions));
                }
            }
        }
        all
    }

    fn candidate(&self, shape: Shape, fetch: fl_fetch) -> CandidateValue {
        CandidateValue { name: self.name.to_owned(), type_name: self.type_name.to_owned(), shape, fetch }
    }

    /// Flags that have their names in the kernel's types.
    fn flags(&self, kind: &TypeKind, functions: &Functions<'_>) -> Option<Shape> {
        let TypeKind::Integer { bytes, .. } = kind else { return None };
        let all = functions.enumeration(enum_of_flags(self.name)?)?;
        // Zeros are no flags, and some names are masks of the kernel's own.
        let named = all.into_iter().filter(|(bits, name)| *bits != 0 && !name.starts_with("__"));
        Some(Shape::Flags(named.filter_map(|(bits, name)| Some((u64::try_from(bits).ok()?, name))).collect(), *bytes))
    }

    /// Not every `const char *` is a string.
    fn is_string(&self) -> bool {
        let is_buffer = ["buf", "ubuf", "u_msg_ptr", "data", "value", "vec", "shmaddr"].contains(&self.name);
        !is_buffer && self.type_name.starts_with("const ")
    }

    fn text_kind(&self) -> fl_fetch_kind {
        // The kernel's types don't say whether a pointer leads to user memory; these functions are given a system call's pointer.
        let takes_users = ["getname", "do_sys_", "ksys_", "strncpy_from_user", "user_path"];
        if self.is_users || takes_users.iter().any(|begin| self.function.starts_with(begin)) {
            fl_fetch_kind::FL_FETCH_USER_TEXT
        } else {
            fl_fetch_kind::FL_FETCH_KERNEL_TEXT
        }
    }

    fn fetch(&self, offsets: &[u32], bytes: u8) -> fl_fetch {
        let mut fetch = fl_fetch { argument: self.argument, size: bytes, ..fl_fetch::default() };
        for (to, from) in fetch.offsets.iter_mut().zip(offsets) {
            *to = *from;
            fetch.dereferences += 1;
        }
        if self.is_users && fetch.dereferences > 0 {
            fetch.flags |= flag(fl_fetch_flag::FL_FETCH_OF_USER);
        }
        fetch
    }

    /// The fields of the struct `name`, which it points to.
    fn fields(&self, name: &str, functions: &Functions<'_>) -> Vec<CandidateValue> {
        let Some(root) = functions.structure(name) else { return Vec::new() };
        let fields = structs::fields(name).iter().filter_map(|field| {
            if field.path.is_empty() {
                let fetch = fl_fetch { kind: kind_of(fl_fetch_kind::FL_FETCH_DENTRY), ..self.fetch(&[], 8) };
                return Some(self.field(name, field.name, "path", Shape::Path, fetch));
            }
            self.placed(name, field, &functions.place(root, field.path)?)
        });
        fields.collect()
    }

    fn placed(&self, name: &str, field: &structs::Field, place: &FieldPath<'_>) -> Option<CandidateValue> {
        let kind = kind(place.ty);
        let usual = match (place.field, &kind) {
            (Some(bits), TypeKind::Integer { signed, .. }) => Shape::Bits(bits, *signed),
            (Some(bits), _) => Shape::Bits(bits, false),
            (None, kind) => by_name(self.function, field.name, kind).or_else(|| Shape::of(kind))?,
        };
        let shape = field.look.shape(usual);
        let mut fetch = self.fetch(&place.offsets, shape.bytes());
        if place.offsets.len() > fetch.offsets.len() {
            return None;
        }
        fetch.kind = kind_of(match (field.look, &kind) {
            (FieldFormat::Path, _) => fl_fetch_kind::FL_FETCH_DENTRY,
            (FieldFormat::Text, _) => fl_fetch_kind::FL_FETCH_KERNEL_TEXT,
            (_, TypeKind::Characters) => fl_fetch_kind::FL_FETCH_KERNEL_ARRAY,
            _ => fl_fetch_kind::FL_FETCH_VALUE,
        });
        if self.is_users && fetch.kind != kind_of(fl_fetch_kind::FL_FETCH_VALUE) {
            return None;
        }
        if matches!(field.look, FieldFormat::Again) {
            fetch.flags |= flag(fl_fetch_flag::FL_FETCH_AGAIN);
        }
        let type_name = if matches!(field.look, FieldFormat::Path) { "path".to_owned() } else { type_name(place.ty) };
        Some(self.field(name, field.name, &type_name, shape, fetch))
    }

    fn field(&self, of: &str, name: &str, type_name: &str, shape: Shape, fetch: fl_fetch) -> CandidateValue {
        CandidateValue { name: format!("{}:{of}.{name}", self.name), type_name: type_name.to_owned(), shape, fetch }
    }

    /// The file of a descriptor: its path, and for calls that change files its inode and device, and its length before.
    fn behind_descriptor(&self, functions: &Functions<'_>) -> Vec<CandidateValue> {
        let inside = ArgumentPlan { is_users: false, ..*self };
        let names: &[&str] = match self.function {
            "ftruncate" => &["path", "i_ino", "i_size", "s_dev"],
            function if CHANGE_FILES.contains(&function) => &["path", "i_ino", "s_dev"],
            _ => &["path"],
        };
        let mut all = inside.fields("file", functions);
        all.retain(|field| names.iter().any(|name| field.name.ends_with(&format!(".{name}"))));
        for field in &mut all {
            // Once: at the end the descriptor may be another file's.
            field.fetch.flags = flag(fl_fetch_flag::FL_FETCH_OF_FD);
        }
        all
    }
}

pub(super) fn flag(flag: fl_fetch_flag) -> u8 {
    u8::try_from(flag.0).unwrap_or(0)
}

pub(super) fn kind_of(kind: fl_fetch_kind) -> u8 {
    u8::try_from(kind.0).unwrap_or(0)
}

/// Gives as many candidates a place as there are places: the first one of each parameter, and then the others in order.
pub(super) fn chose(parameters: Vec<Vec<CandidateValue>>) -> (Vec<FetchedField>, Vec<fl_fetch>) {
    let firsts = parameters.iter().filter(|all| !all.is_empty()).count();
    let mut more = FETCHES_MAX.saturating_sub(firsts);
    let (mut fields, mut fetches) = (Vec::new(), Vec::new());
    let (mut texts, mut afters) = (0, 0);
    for candidates in parameters {
        for (index, CandidateValue { name, type_name, mut shape, mut fetch }) in candidates.into_iter().enumerate() {
            let is_text = u32::from(fetch.kind) != fl_fetch_kind::FL_FETCH_VALUE.0;
            if is_text && texts == TEXTS_MAX {
                if index > 0 || fetch.dereferences > 0 {
                    continue;
                }
                // At least its address.
                fetch.kind = kind_of(fl_fetch_kind::FL_FETCH_VALUE);
                shape = Shape::Address;
            }
            if index > 0 {
                if more == 0 {
                    continue;
                }
                more -= 1;
            }
            let is_text = u32::from(fetch.kind) != fl_fetch_kind::FL_FETCH_VALUE.0;
            let again = fetch.flags & flag(fl_fetch_flag::FL_FETCH_AGAIN) != 0 && afters < AFTER_MAX;
            let mut field = FetchedField { name, type_name, shape, text: None, after: None };
            if is_text {
                fetch.text = texts;
                field.text = Some(texts);
                texts += 1;
            }
            if again {
                fetch.after = afters;
                field.after = Some(afters);
                afters += 1;
            } else {
                fetch.flags &= !flag(fl_fetch_flag::FL_FETCH_AGAIN);
            }
            fields.push(field);
            fetches.push(fetch);
        }
    }
    (fields, fetches)
}
