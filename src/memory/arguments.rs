//! The arguments of mapping calls by name, and their flags as the manual pages write them.

use super::record::{Argument, Call};
use crate::hex::Hex;

type Names = &'static [(u64, &'static str)];

const PROT: Names = &[(1, "PROT_READ"), (2, "PROT_WRITE"), (4, "PROT_EXEC"), (0x0100_0000, "PROT_GROWSDOWN")];
const MAP: Names = &[
    (0x10, "MAP_FIXED"),
    (0x20, "MAP_ANONYMOUS"),
    (0x40, "MAP_32BIT"),
    (0x100, "MAP_GROWSDOWN"),
    (0x800, "MAP_DENYWRITE"),
    (0x1000, "MAP_EXECUTABLE"),
    (0x2000, "MAP_LOCKED"),
    (0x4000, "MAP_NORESERVE"),
    (0x8000, "MAP_POPULATE"),
    (0x1_0000, "MAP_NONBLOCK"),
    (0x2_0000, "MAP_STACK"),
    (0x4_0000, "MAP_HUGETLB"),
    (0x8_0000, "MAP_SYNC"),
    (0x10_0000, "MAP_FIXED_NOREPLACE"),
];
const MREMAP: Names = &[(1, "MREMAP_MAYMOVE"), (2, "MREMAP_FIXED"), (4, "MREMAP_DONTUNMAP")];
const SHM: Names = &[(0o10000, "SHM_RDONLY"), (0o20000, "SHM_RND"), (0o40000, "SHM_REMAP"), (0o100_000, "SHM_EXEC")];
const MFD: Names =
    &[(1, "MFD_CLOEXEC"), (2, "MFD_ALLOW_SEALING"), (4, "MFD_HUGETLB"), (8, "MFD_NOEXEC_SEAL"), (0x10, "MFD_EXEC")];

fn flags(bits: u64, names: Names, none: &str, first: Option<&str>) -> Argument {
    let mut words: Vec<String> = first.into_iter().map(str::to_owned).collect();
    let mut rest = bits;
    for (bit, name) in names {
        if bits & bit != 0 {
            words.push((*name).to_owned());
            rest &= !bit;
        }
    }
    if rest != 0 {
        words.push(format!("{rest:#x}"));
    }
    Argument::Flags(if words.is_empty() { none.to_owned() } else { words.join("|") })
}

fn prot(bits: u64) -> Argument {
    flags(bits, PROT, "PROT_NONE", None)
}

fn map(bits: u64) -> Argument {
    let sharing = ["0", "MAP_SHARED", "MAP_PRIVATE", "MAP_SHARED_VALIDATE"];
    flags(bits & !3, MAP, "0", sharing.get((bits & 3) as usize).copied())
}

/// An int, in the lower half of its register.
fn int(value: u64) -> Argument {
    Argument::Number(i64::from(value as u32 as i32))
}

/// A length or a size.
fn length(value: u64) -> Argument {
    i64::try_from(value).map_or(Argument::Address(Hex(value)), Argument::Number)
}

/// The arguments of a call, by the names that the manual pages give them.
pub(super) fn name(call: Call, values: &[u64; 6]) -> Vec<(&'static str, Argument)> {
    let address = |index: usize| Argument::Address(Hex(values[index]));
    match call {
        Call::Mmap => vec![
            ("addr", address(0)),
            ("length", length(values[1])),
            ("prot", prot(values[2])),
            ("flags", map(values[3])),
            ("fd", int(values[4])),
            ("offset", address(5)),
        ],
        Call::Mprotect => vec![("addr", address(0)), ("length", length(values[1])), ("prot", prot(values[2]))],
        Call::PkeyMprotect => vec![
            ("addr", address(0)),
            ("length", length(values[1])),
            ("prot", prot(values[2])),
            ("pkey", int(values[3])),
        ],
        Call::Munmap => vec![("addr", address(0)), ("length", length(values[1]))],
        Call::Mremap => {
            let mut all = vec![
                ("old_address", address(0)),
                ("old_size", length(values[1])),
                ("new_size", length(values[2])),
                ("flags", flags(values[3], MREMAP, "0", None)),
            ];
            // Only then the kernel looks at it.
            if values[3] & 6 != 0 {
                all.push(("new_address", address(4)));
            }
            all
        }
        Call::Brk => vec![("addr", address(0))],
        Call::Shmat => {
            vec![("shmid", int(values[0])), ("shmaddr", address(1)), ("shmflg", flags(values[2], SHM, "0", None))]
        }
        Call::Shmdt => vec![("shmaddr", address(0))],
        Call::Memfd => vec![("flags", flags(values[1] & 0xffff_ffff, MFD, "0", None))],
        Call::Madvise | Call::Execve | Call::Exit | Call::Unseen => Vec::new(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn text(call: Call, values: [u64; 6]) -> String {
        let shown = name(call, &values).into_iter().map(|(name, value)| match value {
            Argument::Address(hex) => format!("{name} {hex}"),
            Argument::Number(number) => format!("{name} {number}"),
            Argument::Flags(flags) => format!("{name} {flags}"),
        });
        shown.collect::<Vec<_>>().join(", ")
    }

    #[test]
    fn as_the_manual_pages_have_them() {
        assert_eq!(
            text(Call::Mmap, [0, 8192, 7, 0x22, 0xffff_ffff, 0]),
            "addr 0x0, length 8192, prot PROT_READ|PROT_WRITE|PROT_EXEC, flags MAP_PRIVATE|MAP_ANONYMOUS, fd -1, offset 0x0"
        );
        assert_eq!(text(Call::Mprotect, [0x1000, 1, 0, 0, 0, 0]), "addr 0x1000, length 1, prot PROT_NONE");
        assert_eq!(
            text(Call::Mremap, [0x1000, 1, 2, 3, 0x5000, 0]),
            "old_address 0x1000, old_size 1, new_size 2, flags MREMAP_MAYMOVE|MREMAP_FIXED, new_address 0x5000"
        );
        assert_eq!(text(Call::Shmat, [3, 0, 0o100_000, 0, 0, 0]), "shmid 3, shmaddr 0x0, shmflg SHM_EXEC");
    }

    #[test]
    fn what_has_no_name_is_a_number() {
        assert_eq!(text(Call::Memfd, [0, 0x8001, 0, 0, 0, 0]), "flags MFD_CLOEXEC|0x8000");
        assert_eq!(text(Call::Munmap, [0, u64::MAX, 0, 0, 0, 0]), "addr 0x0, length 0xffffffffffffffff");
    }
}
