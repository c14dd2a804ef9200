//! What a small function returns that is given an object, as far as its code says so: the code is followed, and where it does anything
//! unusual, nothing is known. As gcc and clang compile it.

use crate::arch::Returned;

/// Follows the code of a function, which begins at `start` and is given the address of an object, to its result.
pub(crate) fn returned(code: &[u8], start: u64) -> Option<Returned> {
    let (mut rax, mut rdi, mut saved) = (Returned::Nothing, Returned::Object(0), Returned::Nothing);
    let mut at = 0;
    let byte = |at: usize| code.get(at).map(|byte| i64::from(byte.cast_signed()));
    let word = |at: usize| {
        let bytes: [u8; 4] = code.get(at..at + 4)?.try_into().ok()?;
        Some(i64::from(i32::from_le_bytes(bytes)))
    };
    let plus = |value: Returned, distance: i64| match value {
        Returned::Object(offset) => Returned::Object(offset.wrapping_add_signed(distance)),
        _ => Returned::Nothing,
    };
    let load = |value: Returned, distance: i64| match value {
        Returned::Object(offset) => Returned::Member(offset.wrapping_add_signed(distance)),
        _ => Returned::Nothing,
    };
    let call = |value: Returned| match value {
        Returned::Object(offset) => Returned::Result(offset),
        _ => Returned::Nothing,
    };
    loop {
        let rest = code.get(at..)?;
        at += match rest {
            [0xf3, 0x0f, 0x1e, 0xfa, ..] => 4,     // endbr64
            [0x55 | 0x5d | 0xc9 | 0x90, ..] => 1,  // push rbp, pop rbp, leave, nop
            [0x48, 0x89, 0xe5, ..] => 3,           // mov rbp, rsp
            [0x48, 0x83, 0xec | 0xc4, _, ..] => 4, // sub rsp, add rsp
            [0x48, 0x89, 0x7d, 0xf8, ..] => {
                saved = rdi; // mov [rbp - 8], rdi
                4
            }
            [0x48, 0x8b, 0x45, 0xf8, ..] => {
                rax = saved; // mov rax, [rbp - 8]
                4
            }
            [0x48, 0x8b, 0x7d, 0xf8, ..] => {
                rdi = saved; // mov rdi, [rbp - 8]
                4
            }
            [0x48, 0x8d, 0x05, ..] => {
                rax = Returned::Constant(start.wrapping_add(at as u64 + 7).wrapping_add_signed(word(at + 3)?));
                7
            }
            [0x48, 0xb8, ..] => return None,
            [0xb8, ..] => {
                rax = Returned::Constant(u64::from(word(at + 1)? as u32));
                5
            }
            [0x48, 0x8b, 0x07, ..] | [0x48, 0x8b, 0x00, ..] => {
                rax = load(if rest[2] == 0x07 { rdi } else { rax }, 0);
                3
            }
            [0x48, 0x8b, 0x47, ..] => {
                rax = load(rdi, byte(at + 3)?);
                4
            }
            [0x48, 0x8b, 0x87, ..] => {
                rax = load(rdi, word(at + 3)?);
                7
            }
            [0x48, 0x8b, 0x40, ..] => {
                rax = load(rax, byte(at + 3)?);
                4
            }
            [0x48, 0x83, 0xc0, ..] => {
                rax = plus(rax, byte(at + 3)?);
                4
            }
            [0x48, 0x83, 0xc7, ..] => {
                rdi = plus(rdi, byte(at + 3)?);
                4
            }
            [0x48, 0x8d, 0x47, ..] => {
                rax = plus(rdi, byte(at + 3)?);
                4
            }
            [0x48, 0x8d, 0x7f, ..] => {
                rdi = plus(rdi, byte(at + 3)?);
                4
            }
            [0x48, 0x89, 0xc7, ..] => {
                rdi = rax;
                3
            }
            [0xe8, ..] => {
                (rax, rdi) = (call(rdi), Returned::Nothing);
                5
            }
            [0xe9, ..] => return Some(call(rdi)),
            [0xc3, ..] => return Some(rax),
            _ => return None,
        };
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A function at 0x1000.
    fn result(code: &[u8]) -> Option<Returned> {
        returned(code, 0x1000)
    }

    #[test]
    fn the_code_says_what_it_returns() {
        let table: [(&[u8], Option<Returned>); 8] = [
            // std::runtime_error: mov rax, [rdi + 8]; ret
            (&[0xf3, 0x0f, 0x1e, 0xfa, 0x48, 0x8b, 0x47, 0x08, 0xc3], Some(Returned::Member(8))),
            // std::bad_alloc: lea rax, [rip + 0x10]; ret
            (&[0x48, 0x8d, 0x05, 0x10, 0, 0, 0, 0xc3], Some(Returned::Constant(0x1017))),
            (&[0xb8, 0x10, 0x20, 0x40, 0, 0xc3], Some(Returned::Constant(0x0040_2010))),
            // Without optimization: return "text"
            (
                &[0x55, 0x48, 0x89, 0xe5, 0x48, 0x89, 0x7d, 0xf8, 0x48, 0x8d, 0x05, 1, 0, 0, 0, 0x5d, 0xc3],
                Some(Returned::Constant(0x1010)),
            ),
            // return text.c_str()
            (
                &[
                    0x55, 0x48, 0x89, 0xe5, 0x48, 0x83, 0xec, 0x10, 0x48, 0x89, 0x7d, 0xf8, 0x48, 0x8b, 0x45, 0xf8,
                    0x48, 0x83, 0xc0, 0x08, 0x48, 0x89, 0xc7, 0xe8, 1, 2, 3, 4, 0x90, 0xc9, 0xc3,
                ],
                Some(Returned::Result(8)),
            ),
            // A branch, a call with another argument, and code that was cut.
            (&[0x48, 0x85, 0xff, 0x74, 0x04, 0xc3], None),
            (&[0xbf, 1, 0, 0, 0, 0xe8, 1, 2, 3, 4, 0xc3], None),
            (&[0x48, 0x8b, 0x47], None),
        ];
        for (code, expected) in table {
            assert_eq!(result(code), expected, "{code:x?}");
        }
    }
}
