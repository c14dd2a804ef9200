//! The kernel's functions and structs, as its types (BTF) describe them. They need no kernel symbols.

use std::collections::HashMap;

use libbpf_rs::btf::types::{Array, Composite, Enum, Enum64, Func, FuncProto, Int, IntEncoding, MemberAttr};
use libbpf_rs::btf::{Btf, BtfKind, BtfType, HasSize as _, TypeId};

use super::callbacks::name_parameters;

/// The size of a pointer, a register, and the largest number.
const POINTER_BYTES: u32 = 8;

/// The functions and structs of a kernel, by name.
pub(super) struct Functions<'btf> {
    btf: &'btf Btf<'btf>,
    functions: HashMap<&'btf str, TypeId>,
    structs: HashMap<&'btf str, TypeId>,
    enums: HashMap<&'btf str, TypeId>,
    /// The types of tracepoints, by the tracepoint's name.
    tracepoints: HashMap<&'btf str, TypeId>,
}

/// What stands before a tracepoint's name in that of its type.
const TRACEPOINT: &str = "btf_trace_";

/// How a function is called.
pub(super) struct Prototype<'btf> {
    /// Its number among the kernel's types.
    pub id: u32,
    /// The parameters by name; a parameter without a name has an empty one.
    pub parameters: Vec<(String, BtfType<'btf>)>,
    /// The type of the result; void for none.
    pub result: BtfType<'btf>,
}

impl<'btf> Prototype<'btf> {
    /// That of the function with this number among `types`.
    pub(super) fn of(types: &'btf Btf<'btf>, id: TypeId) -> Option<Self> {
        let function: Func<'btf> = types.type_by_id(id)?;
        Self::from_type(types, id, function.next_type()?)
    }

    /// That of a function of this type, which is a prototype.
    pub(super) fn from_type(types: &'btf Btf<'btf>, id: TypeId, prototype: BtfType<'btf>) -> Option<Self> {
        let prototype = FuncProto::try_from(prototype).ok()?;
        let parameters = (0..prototype.len()).filter_map(|index| prototype.get(index)).filter_map(|parameter| {
            let name = parameter.name.map(|name| name.to_string_lossy().into_owned()).unwrap_or_default();
            Some((name, types.type_by_id::<BtfType<'btf>>(parameter.ty)?))
        });
        Some(Self { id: id.into(), parameters: parameters.collect(), result: prototype.next_type()? })
    }
}

impl<'btf> Functions<'btf> {
    /// Looks through all types of the kernel, once.
    pub(super) fn new(btf: &'btf Btf<'btf>) -> Self {
        let (mut functions, mut structs) = (HashMap::new(), HashMap::new());
        let (mut enums, mut tracepoints) = (HashMap::new(), HashMap::new());
        for id in (1..u32::try_from(btf.len()).unwrap_or(u32::MAX)).map(TypeId::from) {
            let Some(ty) = btf.type_by_id::<BtfType<'btf>>(id) else { continue };
            let kinds = match ty.kind() {
                BtfKind::Func => &mut functions,
                BtfKind::Struct => &mut structs,
                BtfKind::Enum | BtfKind::Enum64 => &mut enums,
                BtfKind::Typedef => &mut tracepoints,
                _ => continue,
            };
            let name = ty.name().and_then(|name| name.to_str());
            let name =
                if ty.kind() == BtfKind::Typedef { name.and_then(|name| name.strip_prefix(TRACEPOINT)) } else { name };
            if let Some(name) = name {
                kinds.entry(name).or_insert(id);
            }
        }
        Self { btf, functions, structs, enums, tracepoints }
    }

    /// All functions.
    pub(super) fn names(&self) -> impl Iterator<Item = &'btf str> {
        self.functions.keys().copied()
    }

    /// How a function is called; `None` means that there is none of that name.
    pub(super) fn prototype(&self, name: &str) -> Option<Prototype<'btf>> {
        Prototype::of(self.btf, *self.functions.get(name)?)
    }

    /// A struct by its name.
    pub(super) fn structure(&self, name: &str) -> Option<Composite<'btf>> {
        let ty: BtfType<'btf> = self.btf.type_by_id(*self.structs.get(name)?)?;
        Composite::try_from(ty).ok()
    }

    /// The names of an enum's values; `None` means that there is no such enum.
    pub(super) fn enumeration(&self, name: &str) -> Option<Vec<(i128, String)>> {
        match kind(self.btf.type_by_id(*self.enums.get(name)?)?) {
            TypeKind::Enumeration { names, .. } => Some(names),
            _ => None,
        }
    }

    /// What a program of this type (enum bpf_prog_type) is given: the struct that its source declares, and the kernel's own that it gets in
    /// fact. `None` means that it is given no struct, but an array of values or something of the user's.
    pub(super) fn context(&self, kind: u32) -> Option<(String, String)> {
        let all = self.enumeration("bpf_prog_type")?;
        let (_, kind) = all.iter().find(|(number, _)| *number == i128::from(kind))?;
        let contexts = self.structure("bpf_ctx_convert")?;
        let of = |side: &str| {
            let member = self.member(contexts, &format!("{kind}_{side}"))?;
            let ty = self.btf.type_by_id::<BtfType<'btf>>(member.ty)?.skip_mods_and_typedefs();
            (ty.kind() == BtfKind::Struct).then(|| ty.name().map(|name| name.to_string_lossy().into_owned()))?
        };
        Some((of("prog")?, of("kern")?))
    }

    /// May the kernel's verifier look at fentry on a callback or an LSM program? Before v5.18 it took the one for the other, and read through a
    /// pointer that wasn't there: the kernel's commit 4a9c7bbe2ed4. This helper came in v5.19.
    pub(super) fn survives_callbacks(&self) -> bool {
        let helpers = self.enumeration("bpf_func_id");
        helpers.is_some_and(|all| all.iter().any(|(_, name)| name == "BPF_FUNC_kptr_xchg"))
    }

    /// What a program is attached to, a function or a tracepoint, by its number: its name, and how it is called.
    pub(super) fn hook(&self, id: u32) -> Option<(String, Prototype<'btf>)> {
        let ty: BtfType<'btf> = self.btf.type_by_id(id.into())?;
        let name = ty.name()?.to_str()?;
        if ty.kind() == BtfKind::Func {
            return Some((name.to_owned(), Prototype::of(self.btf, id.into())?));
        }
        // typedef void (*btf_trace_NAME)(void *data, ...): the program doesn't get the first one.
        let name = name.strip_prefix(TRACEPOINT)?;
        let unnamed = self.pointed_to(ty)?.parameters;
        // The types of pointers have no names of parameters: those of the function that calls all programs at the tracepoint.
        let named = self.prototype(&format!("__traceiter_{name}"));
        let named = named.map(|named| named.parameters).filter(|named| named.len() == unnamed.len());
        let mut prototype = Prototype { id, parameters: named.unwrap_or(unnamed), ..self.pointed_to(ty)? };
        prototype.parameters.drain(..prototype.parameters.len().min(1));
        Some((name.to_owned(), prototype))
    }

    /// How a program at the tracepoint of this name is called.
    pub(super) fn tracepoint(&self, name: &str) -> Option<Prototype<'btf>> {
        self.hook((*self.tracepoints.get(name)?).into()).map(|(_, prototype)| prototype)
    }

    /// The names of all tracepoints.
    pub(super) fn tracepoints(&self) -> impl Iterator<Item = &'btf str> {
        self.tracepoints.keys().copied()
    }

    /// The callbacks of the struct that lies in the member `data` of the struct with this number: the name of each, `tcp_congestion_ops.init`,
    /// the offset of the pointer to it from the begin of the outer struct, and how it is called.
    pub(super) fn callbacks(&self, outer: u32) -> Option<Vec<(String, usize, Prototype<'btf>)>> {
        let outer = Composite::try_from(self.btf.type_by_id::<BtfType<'btf>>(outer.into())?).ok()?;
        let data = self.member(outer, "data")?;
        let inner = self.btf.type_by_id::<BtfType<'btf>>(data.ty)?.skip_mods_and_typedefs();
        let (name, inner) = (inner.name()?.to_str()?, Composite::try_from(inner).ok()?);
        let members = (0..inner.len()).filter_map(|index| inner.get(index)).filter_map(|member| {
            let MemberAttr::Normal { offset } = member.attr else { return None };
            let mut prototype = self.pointed_to(self.btf.type_by_id(member.ty)?)?;
            let place = usize::try_from((data.bits + offset) / 8).ok()?;
            let callback = format!("{name}.{}", member.name?.to_str()?);
            name_parameters(&callback, prototype.parameters.iter_mut().map(|(name, _)| name));
            Some((callback, place, prototype))
        });
        Some(members.collect())
    }

    /// How the function that a pointer of this type leads to is called.
    fn pointed_to(&self, pointer: BtfType<'btf>) -> Option<Prototype<'btf>> {
        let pointer = pointer.skip_mods_and_typedefs();
        let to = (pointer.kind() == BtfKind::Ptr).then(|| pointer.next_type())??.skip_mods_and_typedefs();
        Prototype::from_type(self.btf, to.type_id(), to)
    }

    /// The place of the value that `path` names (`f_path.dentry`), from a pointer to `root`. Pointers on the way are followed.
    pub(super) fn place(&self, root: Composite<'btf>, path: &str) -> Option<FieldPath<'btf>> {
        let mut offsets = Vec::new();
        let (mut composite, mut at) = (root, 0);
        let mut names = path.split('.').peekable();
        while let Some(name) = names.next() {
            let member = self.member(composite, name)?;
            at += member.bits / 8;
            let ty = self.btf.type_by_id::<BtfType<'btf>>(member.ty)?.skip_mods_and_typedefs();
            if names.peek().is_none() {
                let field = member.width.map(|width| BitField { shift: member.bits % 8, width });
                offsets.push(at);
                let ty = self.btf.type_by_id(member.ty)?;
                return Some(FieldPath { offsets, ty, field });
            }
            composite = if ty.kind() == BtfKind::Ptr {
                offsets.push(std::mem::take(&mut at));
                Composite::try_from(ty.next_type()?.skip_mods_and_typedefs()).ok()?
            } else {
                Composite::try_from(ty).ok()?
            };
        }
        None
    }

    /// A member by its name, also if it is in a nested struct or union without a name.
    fn member(&self, composite: Composite<'btf>, name: &str) -> Option<Member> {
        for index in 0..composite.len() {
            let member = composite.get(index)?;
            let (bits, width) = match member.attr {
                MemberAttr::Normal { offset } => (offset, None),
                MemberAttr::BitField { size, offset } => (offset, Some(u32::from(size))),
            };
            match member.name {
                Some(known) if known == name => return Some(Member { ty: member.ty, bits, width }),
                Some(_) => {}
                None => {
                    let inner: BtfType<'btf> = self.btf.type_by_id(member.ty)?;
                    let inner = Composite::try_from(inner.skip_mods_and_typedefs()).ok();
                    if let Some(found) = inner.and_then(|inner| self.member(inner, name)) {
                        return Some(Member { bits: bits + found.bits, ..found });
                    }
                }
            }
        }
        None
    }
}

struct Member {
    ty: TypeId,
    /// Its offset from the beginning of the struct, in bits.
    bits: u32,
    /// `None` means whole bytes.
    width: Option<u32>,
}

/// The place of a value, through pointers, from a pointer to a struct.
pub(super) struct FieldPath<'btf> {
    /// Offsets in bytes: in the first struct, in the one that the pointer there leads to, and so on.
    pub offsets: Vec<u32>,
    /// The type of the value.
    pub ty: BtfType<'btf>,
    /// If the value is a bit field: its bits.
    pub field: Option<BitField>,
}

/// A bit field: `width` bits from bit `shift` on.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct BitField {
    /// The number of its lowest bit.
    pub shift: u32,
    /// How many bits it has.
    pub width: u32,
}

/// What a type is, without qualifiers and typedefs.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum TypeKind {
    /// No value.
    Void,
    /// A number of so many bytes.
    Integer {
        /// 1, 2, 4 or 8.
        bytes: u8,
        /// It can be below zero.
        signed: bool,
    },
    /// `bool`
    Boolean,
    /// A number with names.
    Enumeration {
        /// 1, 2, 4 or 8.
        bytes: u8,
        /// The names.
        names: Vec<(i128, String)>,
    },
    /// `char *`
    Text,
    /// `char [N]`
    Characters,
    /// A pointer to a struct, by its name.
    Pointer(String),
    /// A pointer to a number.
    PointerToNumber(Box<TypeKind>),
    /// A pointer to something else.
    Address,
    /// A struct, an array, a float: a value that is not in one register.
    Other {
        /// Its size; `None` means not known.
        bytes: Option<u32>,
    },
}

/// What a type is.
pub(super) fn kind(ty: BtfType<'_>) -> TypeKind {
    let ty = ty.skip_mods_and_typedefs();
    match ty.kind() {
        BtfKind::Void => TypeKind::Void,
        BtfKind::Int => Int::try_from(ty).map_or(TypeKind::Other { bytes: None }, |int| integer(&int)),
        BtfKind::Enum => Enum::try_from(ty).map_or(TypeKind::Other { bytes: None }, |all| TypeKind::Enumeration {
            bytes: size(all.size()),
            names: all
                .iter()
                .filter_map(|value| Some((value.value.into(), value.name?.to_str()?.to_owned())))
                .collect(),
        }),
        BtfKind::Enum64 => Enum64::try_from(ty).map_or(TypeKind::Other { bytes: None }, |all| TypeKind::Enumeration {
            bytes: size(all.size()),
            names: all.iter().filter_map(|value| Some((value.value, value.name?.to_str()?.to_owned()))).collect(),
        }),
        BtfKind::Ptr => ty.next_type().map_or(TypeKind::Address, pointer),
        BtfKind::Array => match Array::try_from(ty) {
            Ok(array) if is_char(array.contained_type()) => TypeKind::Characters,
            _ => TypeKind::Other { bytes: None },
        },
        BtfKind::Struct | BtfKind::Union => {
            TypeKind::Other { bytes: Composite::try_from(ty).ok().and_then(|all| u32::try_from(all.size()).ok()) }
        }
        _ => TypeKind::Other { bytes: None },
    }
}

impl TypeKind {
    /// The registers that an argument of this kind takes (System V ABI 3.2.3); `None` means that it lies on the stack.
    pub(crate) fn registers(&self) -> Option<u8> {
        match self {
            Self::Other { bytes: Some(bytes) } if *bytes <= POINTER_BYTES => Some(1),
            Self::Other { bytes: Some(bytes) } if *bytes <= 2 * POINTER_BYTES => Some(2),
            Self::Other { .. } => None,
            _ => Some(1),
        }
    }
}

fn pointer(to: BtfType<'_>) -> TypeKind {
    let plain = to.skip_mods_and_typedefs();
    match plain.kind() {
        BtfKind::Struct => {
            plain.name().map_or(TypeKind::Address, |name| TypeKind::Pointer(name.to_string_lossy().into_owned()))
        }
        BtfKind::Int if is_char(plain) => TypeKind::Text,
        BtfKind::Int | BtfKind::Enum => match kind(plain) {
            // A pointer to a byte mostly leads to many bytes.
            TypeKind::Integer { bytes: 1, .. } => TypeKind::Address,
            number => TypeKind::PointerToNumber(Box::new(number)),
        },
        _ => TypeKind::Address,
    }
}

fn integer(int: &Int<'_>) -> TypeKind {
    match int.encoding {
        IntEncoding::Bool => TypeKind::Boolean,
        _ if int.bits == 128 => TypeKind::Other { bytes: Some(16) },
        encoding => TypeKind::Integer { bytes: int.bits.div_ceil(8), signed: !matches!(encoding, IntEncoding::None) },
    }
}

/// `char` itself, not u8, which has another name.
fn is_char(ty: BtfType<'_>) -> bool {
    let ty = ty.skip_mods_and_typedefs();
    ty.kind() == BtfKind::Int && ty.name().is_some_and(|name| name == "char")
}

fn size(bytes: usize) -> u8 {
    u8::try_from(bytes).unwrap_or(POINTER_BYTES as u8)
}

/// A type as C writes it: `const struct file *`.
pub(super) fn type_name(ty: BtfType<'_>) -> String {
    let name = || ty.name().map_or_else(|| "?".to_owned(), |name| name.to_string_lossy().into_owned());
    let next = || ty.next_type().map_or_else(|| "void".to_owned(), type_name);
    match ty.kind() {
        BtfKind::Void => "void".to_owned(),
        BtfKind::Ptr => match ty.next_type().filter(|to| to.kind() == BtfKind::FuncProto) {
            Some(_) => "function *".to_owned(),
            None => {
                let to = next();
                if to.ends_with('*') { format!("{to}*") } else { format!("{to} *") }
            }
        },
        BtfKind::Const => format!("const {}", next()),
        BtfKind::Volatile | BtfKind::Restrict | BtfKind::TypeTag => next(),
        BtfKind::Struct => format!("struct {}", name()),
        BtfKind::Union => format!("union {}", name()),
        BtfKind::Enum | BtfKind::Enum64 => format!("enum {}", name()),
        BtfKind::Fwd => format!("struct {}", name()),
        BtfKind::Array => Array::try_from(ty).map_or_else(
            |_| "?".to_owned(),
            |array| format!("{}[{}]", type_name(array.contained_type()), array.capacity()),
        ),
        _ => match name().as_str() {
            // Compilers use other names for these than C.
            "long unsigned int" => "unsigned long".to_owned(),
            "long int" => "long".to_owned(),
            "long long unsigned int" => "unsigned long long".to_owned(),
            "long long int" => "long long".to_owned(),
            "short unsigned int" => "unsigned short".to_owned(),
            "short int" => "short".to_owned(),
            "_Bool" => "bool".to_owned(),
            other => other.to_owned(),
        },
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn this_kernels_own_functions() {
        let btf = Btf::from_vmlinux().unwrap();
        let functions = Functions::new(&btf);
        assert!(functions.names().any(|name| name == "__x64_sys_munmap"));
        assert!(functions.prototype("no_such_function").is_none());
        let prototype = functions.prototype("vfs_read").unwrap();
        let parameters: Vec<(&str, String)> =
            prototype.parameters.iter().map(|(name, ty)| (name.as_str(), type_name(*ty))).collect();
        let expected = [("file", "struct file *"), ("buf", "char *"), ("count", "size_t"), ("pos", "loff_t *")];
        assert_eq!(parameters, expected.map(|(name, ty)| (name, ty.to_owned())));
        assert_eq!(type_name(prototype.result), "ssize_t");
        assert_eq!(kind(prototype.result), TypeKind::Integer { bytes: 8, signed: true });
        assert_eq!(kind(prototype.parameters[0].1), TypeKind::Pointer("file".to_owned()));
        assert_eq!(kind(prototype.parameters[1].1), TypeKind::Text);
        let pos = kind(prototype.parameters[3].1);
        assert_eq!(pos, TypeKind::PointerToNumber(Box::new(TypeKind::Integer { bytes: 8, signed: true })));
    }

    #[test]
    fn a_place_goes_through_pointers_and_what_has_no_name() {
        let btf = Btf::from_vmlinux().unwrap();
        let functions = Functions::new(&btf);
        let vma = functions.structure("vm_area_struct").unwrap();
        // In a union in a struct without names.
        let end = functions.place(vma, "vm_end").unwrap();
        assert_eq!((end.offsets, type_name(end.ty)), (vec![8], "unsigned long".to_owned()));
        let name = functions.place(vma, "vm_file.f_path.dentry").unwrap();
        assert_eq!((name.offsets.len(), type_name(name.ty)), (2, "struct dentry *".to_owned()));
        let device = functions.place(vma, "vm_file.f_inode.i_sb.s_dev").unwrap();
        assert_eq!(device.offsets.len(), 4);
        assert!(functions.place(vma, "vm_flags.nothing").is_none() && functions.place(vma, "nothing").is_none());
        let task = functions.structure("task_struct").unwrap();
        let bit = functions.place(task, "in_execve").unwrap();
        assert_eq!(bit.field.map(|field| field.width), Some(1));
    }
}
