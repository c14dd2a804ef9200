//! The arguments of mapping calls by name, and their flags as the manual pages write them.

use super::record::{Argument, Call};
use crate::flags;
use crate::hex::Hex;

fn prot(bits: u64) -> Argument {
    Argument::Flags(flags::prot(bits))
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
            ("flags", Argument::Flags(flags::map(values[3]))),
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
                ("flags", Argument::Flags(flags::mremap(values[3]))),
            ];
            // Only then the kernel looks at it.
            if values[3] & 6 != 0 {
                all.push(("new_address", address(4)));
            }
            all
        }
        Call::Brk => vec![("addr", address(0))],
        Call::Shmat => {
            vec![("shmid", int(values[0])), ("shmaddr", address(1)), ("shmflg", Argument::Flags(flags::shm(values[2])))]
        }
        Call::Shmdt => vec![("shmaddr", address(0))],
        Call::Memfd => vec![("flags", Argument::Flags(flags::memfd(values[1] & 0xffff_ffff)))],
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
