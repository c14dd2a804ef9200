//! The arguments of mapping calls by name, and their flags as the manual pages write them.

use super::record::{MappingArgument, MappingCall};
use crate::flags;
use crate::hex::Hex;

fn prot(bits: u64) -> MappingArgument {
    MappingArgument::Flags(flags::prot(bits))
}

/// An int, in the lower half of its register.
fn int(value: u64) -> MappingArgument {
    MappingArgument::Number(i64::from(value as u32 as i32))
}

/// A length or a size.
fn length(value: u64) -> MappingArgument {
    i64::try_from(value).map_or(MappingArgument::Address(Hex(value)), MappingArgument::Number)
}

/// The arguments of a call, by the names that the manual pages give them.
pub(super) fn name(call: MappingCall, values: &[u64; 6]) -> Vec<(&'static str, MappingArgument)> {
    let address = |index: usize| MappingArgument::Address(Hex(values[index]));
    match call {
        MappingCall::Mmap => vec![
            ("addr", address(0)),
            ("length", length(values[1])),
            ("prot", prot(values[2])),
            ("flags", MappingArgument::Flags(flags::map(values[3]))),
            ("fd", int(values[4])),
            ("offset", address(5)),
        ],
        MappingCall::Mprotect => vec![("addr", address(0)), ("length", length(values[1])), ("prot", prot(values[2]))],
        MappingCall::PkeyMprotect => vec![
            ("addr", address(0)),
            ("length", length(values[1])),
            ("prot", prot(values[2])),
            ("pkey", int(values[3])),
        ],
        MappingCall::Munmap => vec![("addr", address(0)), ("length", length(values[1]))],
        MappingCall::Mremap => {
            let mut all = vec![
                ("old_address", address(0)),
                ("old_size", length(values[1])),
                ("new_size", length(values[2])),
                ("flags", MappingArgument::Flags(flags::mremap(values[3]))),
            ];
            // Only then the kernel looks at it.
            if values[3] & 6 != 0 {
                all.push(("new_address", address(4)));
            }
            all
        }
        MappingCall::Brk => vec![("addr", address(0))],
        MappingCall::Shmat => {
            vec![
                ("shmid", int(values[0])),
                ("shmaddr", address(1)),
                ("shmflg", MappingArgument::Flags(flags::shm(values[2]))),
            ]
        }
        MappingCall::Shmdt => vec![("shmaddr", address(0))],
        MappingCall::Memfd => vec![("flags", MappingArgument::Flags(flags::memfd(values[1] & 0xffff_ffff)))],
        MappingCall::Madvise | MappingCall::Execve | MappingCall::Exit | MappingCall::Unseen => Vec::new(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn text(call: MappingCall, values: [u64; 6]) -> String {
        let shown = name(call, &values).into_iter().map(|(name, value)| match value {
            MappingArgument::Address(hex) => format!("{name} {hex}"),
            MappingArgument::Number(number) => format!("{name} {number}"),
            MappingArgument::Flags(flags) => format!("{name} {flags}"),
        });
        shown.collect::<Vec<_>>().join(", ")
    }

    #[test]
    fn as_the_manual_pages_have_them() {
        assert_eq!(
            text(MappingCall::Mmap, [0, 8192, 7, 0x22, 0xffff_ffff, 0]),
            "addr 0x0, length 8192, prot PROT_READ|PROT_WRITE|PROT_EXEC, flags MAP_PRIVATE|MAP_ANONYMOUS, fd -1, offset 0x0"
        );
        assert_eq!(text(MappingCall::Mprotect, [0x1000, 1, 0, 0, 0, 0]), "addr 0x1000, length 1, prot PROT_NONE");
        assert_eq!(
            text(MappingCall::Mremap, [0x1000, 1, 2, 3, 0x5000, 0]),
            "old_address 0x1000, old_size 1, new_size 2, flags MREMAP_MAYMOVE|MREMAP_FIXED, new_address 0x5000"
        );
        assert_eq!(text(MappingCall::Shmat, [3, 0, 0o100_000, 0, 0, 0]), "shmid 3, shmaddr 0x0, shmflg SHM_EXEC");
    }

    #[test]
    fn what_has_no_name_is_a_number() {
        assert_eq!(text(MappingCall::Memfd, [0, 0x8001, 0, 0, 0, 0]), "flags MFD_CLOEXEC|0x8000");
        assert_eq!(text(MappingCall::Munmap, [0, u64::MAX, 0, 0, 0, 0]), "addr 0x0, length 0xffffffffffffffff");
    }
}
