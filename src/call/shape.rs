//! Shows a number that was read of a call: with its sign, by its name, as an address.

use std::rc::Rc;

use super::functions::{BitField, TypeKind};
use crate::flags;
use crate::hex::Hex;
use crate::record::call::Value;

/// How a value is shown.
#[derive(Clone, Debug)]
pub(crate) enum Shape {
    /// A number of so many bytes that can be below zero.
    Signed(u8),
    /// A number of so many bytes.
    Unsigned(u8),
    /// `true` and `false`
    Boolean,
    /// An address.
    Address,
    /// By its name, or by the names of its flags.
    Words(fn(u64) -> String, u8),
    /// By its name in the kernel's types.
    Enumeration(Rc<[(i128, String)]>, u8),
    /// By the names of its flags in the kernel's types.
    Flags(Rc<[(u64, String)]>, u8),
    /// Some bits of a number.
    Bits(BitField, bool),
    /// A string.
    Text,
    /// The path of a file, below its mount.
    Path,
}

/// The low bytes of a register.
fn low(raw: u64, bytes: u8) -> u64 {
    if bytes >= 8 { raw } else { raw & ((1 << (u32::from(bytes) * 8)) - 1) }
}

/// The low bytes of a register, with their sign.
pub(super) fn signed(raw: u64, bytes: u8) -> i64 {
    let unused = 64 - u32::from(bytes.clamp(1, 8)) * 8;
    (raw << unused).cast_signed() >> unused
}

/// A count or a size: a number if JSON's numbers can hold it.
fn number(raw: u64) -> Value {
    i64::try_from(raw).map_or(Value::Address(Hex(raw)), Value::Number)
}

impl Shape {
    /// How a value of this kind is shown; `None` means that it can't be shown.
    pub(crate) fn of(kind: &TypeKind) -> Option<Self> {
        Some(match kind {
            TypeKind::Integer { bytes, signed: true } => Self::Signed(*bytes),
            TypeKind::Integer { bytes, signed: false } => Self::Unsigned(*bytes),
            TypeKind::Boolean => Self::Boolean,
            TypeKind::Enumeration { bytes, names } => Self::Enumeration(names.clone().into(), *bytes),
            TypeKind::Text | TypeKind::Pointer(_) | TypeKind::PointerToNumber(_) | TypeKind::Address => Self::Address,
            TypeKind::Characters => Self::Text,
            TypeKind::Void | TypeKind::Other { .. } => return None,
        })
    }

    /// How many bytes the number has.
    pub(crate) fn bytes(&self) -> u8 {
        match self {
            Self::Signed(bytes) | Self::Unsigned(bytes) | Self::Words(_, bytes) => *bytes,
            Self::Enumeration(_, bytes) | Self::Flags(_, bytes) => *bytes,
            Self::Boolean => 1,
            Self::Bits(field, _) => match field.shift + field.width {
                0..=8 => 1,
                9..=16 => 2,
                17..=32 => 4,
                _ => 8,
            },
            Self::Address | Self::Text | Self::Path => 8,
        }
    }

    /// The value of a number; texts have none here.
    pub(crate) fn show(&self, raw: u64) -> Value {
        match self {
            Self::Signed(bytes) => Value::Number(signed(raw, *bytes)),
            Self::Unsigned(bytes) => number(low(raw, *bytes)),
            Self::Boolean => Value::Boolean(low(raw, 1) != 0),
            Self::Address | Self::Text | Self::Path => Value::Address(Hex(raw)),
            Self::Words(words, bytes) => Value::Words(words(low(raw, *bytes))),
            Self::Enumeration(names, bytes) => {
                let (plus, minus) = (i128::from(low(raw, *bytes)), i128::from(signed(raw, *bytes)));
                let name = names.iter().find(|(known, _)| *known == plus || *known == minus);
                name.map_or(Value::Number(signed(raw, *bytes)), |(_, name)| Value::Words(name.clone()))
            }
            Self::Flags(names, bytes) => Value::Words(flags_by_name(low(raw, *bytes), names)),
            Self::Bits(field, is_signed) => {
                let bits = raw >> field.shift & (u64::MAX >> (64 - field.width.clamp(1, 64)));
                let unused = 64 - field.width.clamp(1, 64);
                if *is_signed { Value::Number((bits << unused).cast_signed() >> unused) } else { number(bits) }
            }
        }
    }
}

/// What the name of a parameter adds to its type: flags, signals, descriptors. `None` means nothing.
pub(super) fn by_name(function: &str, name: &str, kind: &TypeKind) -> Option<Shape> {
    let TypeKind::Integer { bytes, .. } = kind else { return None };
    let is = |part: &str| function.contains(part);
    let words = |words: fn(u64) -> String| Some(Shape::Words(words, *bytes));
    match name {
        "prot" | "reqprot" => words(flags::prot),
        "flags" | "flag" if is("mmap") => words(flags::map),
        "flags" if is("mremap") => words(flags::mremap),
        "flags" if is("memfd") => words(flags::memfd),
        "flags" if is("open") => words(flags::open),
        "flags" | "flag" if function.ends_with("at") || function.ends_with("at2") => words(flags::at),
        "shmflg" => words(flags::shm),
        "vm_flags" => words(flags::vm),
        "behavior" | "advice" if is("madvise") => words(flags::advice),
        "mode" if is("fallocate") => words(flags::fallocate),
        "mode" if *bytes == 2 || is("mkdir") || is("chmod") || is("open") => words(flags::mode),
        "how" if is("sigprocmask") => words(flags::signal_how),
        "sig" | "signum" | "signr" | "signo" | "si_signo" | "exit_signal" => words(flags::signal),
        "dfd" | "dirfd" | "olddfd" | "newdfd" => words(flags::folder),
        // mmap declares it as an unsigned long.
        "fd" => Some(Shape::Signed(4)),
        "s_dev" => words(device),
        _ if *bytes == 8 && is_address(name) => Some(Shape::Address),
        _ => None,
    }
}

/// The enum that has the flags of a parameter of this name; `None` means that none is known.
pub(super) fn enum_of_flags(name: &str) -> Option<&'static str> {
    Some(match name {
        "enq_flags" => "scx_enq_flags",
        "deq_flags" => "scx_deq_flags",
        "wake_flags" => "scx_wake_flags",
        _ => return None,
    })
}

/// `SCX_ENQ_WAKEUP|0x8`
fn flags_by_name(number: u64, names: &[(u64, String)]) -> String {
    let (mut rest, mut words) = (number, Vec::new());
    for (bits, name) in names {
        if rest & bits == *bits {
            rest &= !bits;
            words.push(name.clone());
        }
    }
    if rest != 0 || words.is_empty() {
        words.push(if rest == 0 { "0".to_owned() } else { format!("{rest:#x}") });
    }
    words.join("|")
}

/// A device by the kernel's number, `MAJOR:MINOR`: include/linux/kdev_t.h.
fn device(number: u64) -> String {
    format!("{}:{}", number >> 20, number & 0xf_ffff)
}

/// Is a parameter of this name, an unsigned long, an address?
fn is_address(name: &str) -> bool {
    name.contains("addr")
        || name.ends_with("brk")
        || matches!(name, "start" | "end" | "brk" | "ptr" | "ip" | "sp" | "newsp" | "vm_start" | "vm_end")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_have_their_signs() {
        assert_eq!(Shape::Signed(4).show(0xffff_ffff), Value::Number(-1));
        assert_eq!(
            Shape::Signed(4).show(0x1234_0000_0001),
            Value::Number(1),
            "the register's upper half means nothing"
        );
        assert_eq!(Shape::Unsigned(4).show(0xffff_ffff), Value::Number(0xffff_ffff));
        assert_eq!(Shape::Unsigned(8).show(u64::MAX), Value::Address(Hex(u64::MAX)));
        assert_eq!(Shape::Signed(8).show(u64::MAX), Value::Number(-1));
        assert_eq!(Shape::Boolean.show(0x100), Value::Boolean(false));
    }

    #[test]
    fn names_are_the_kernels() {
        let names: Rc<[(i128, String)]> = [(-1, "BELOW".to_owned()), (2, "TWO".to_owned())].into();
        let shape = Shape::Enumeration(names, 4);
        assert_eq!(shape.show(2), Value::Words("TWO".to_owned()));
        assert_eq!(shape.show(0xffff_ffff), Value::Words("BELOW".to_owned()));
        assert_eq!(shape.show(3), Value::Number(3), "one that has none");
    }

    #[test]
    fn flags_that_have_no_name_stay_a_number() {
        let names: Rc<[(u64, String)]> = [(1, "ONE".to_owned()), (1 << 32, "HIGH".to_owned())].into();
        let shape = Shape::Flags(names, 8);
        let show = |raw| shape.show(raw);
        assert_eq!(show(1 << 32 | 1), Value::Words("ONE|HIGH".to_owned()));
        assert_eq!((show(9), show(0)), (Value::Words("ONE|0x8".to_owned()), Value::Words("0".to_owned())));
    }

    #[test]
    fn bit_fields_are_cut_out() {
        let field = BitField { shift: 3, width: 2 };
        assert_eq!(Shape::Bits(field, false).show(0b11_0000), Value::Number(2));
        assert_eq!(Shape::Bits(field, true).show(0b11_0000), Value::Number(-2));
        assert_eq!(Shape::Bits(field, false).bytes(), 1);
        assert_eq!(Shape::Bits(BitField { shift: 7, width: 2 }, false).bytes(), 2);
    }

    #[test]
    fn a_name_tells_more_than_a_type() {
        let long = TypeKind::Integer { bytes: 8, signed: false };
        let show = |function: &str, name: &str, raw: u64| by_name(function, name, &long).map(|shape| shape.show(raw));
        assert_eq!(show("mmap", "fd", 0xffff_ffff), Some(Value::Number(-1)));
        assert_eq!(show("mmap", "prot", 1), Some(Value::Words("PROT_READ".to_owned())));
        assert_eq!(show("munmap", "addr", 0x1000), Some(Value::Address(Hex(0x1000))));
        assert_eq!(show("munmap", "len", 0x1000), None);
        assert_eq!(show("f", "s_dev", 0x80_0001), Some(Value::Words("8:1".to_owned())));
    }
}
