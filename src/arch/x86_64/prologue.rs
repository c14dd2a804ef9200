//! The frame that a function makes by its first instructions.

/// How large it is, from the caller's stack pointer down, if the function begins with this code, keeps a frame pointer, and then makes all of
/// the frame at once. Calls push their arguments below it.
pub(crate) fn frame_of_prologue(code: &[u8]) -> Option<u64> {
    // endbr64; push %rbp; mov %rsp,%rbp
    let code = code.strip_prefix(&[0xf3, 0x0f, 0x1e, 0xfa]).unwrap_or(code);
    let mut rest = code.strip_prefix(&[0x55, 0x48, 0x89, 0xe5])?;
    // The return address, and %rbp.
    let mut words = 2;
    loop {
        rest = match rest {
            // push %rbx; push %r12 to %r15
            [0x53, rest @ ..] | [0x41, 0x54..=0x57, rest @ ..] => rest,
            // sub $SIZE,%rsp
            [0x48, 0x81, 0xec, size @ ..] => {
                return Some(8 * words + u64::from(u32::from_le_bytes(*size.first_chunk()?)));
            }
            _ => return None,
        };
        words += 1;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_frame_is_what_is_subtracted_and_pushed() {
        let plain = [0x55, 0x48, 0x89, 0xe5, 0x48, 0x81, 0xec, 0x10, 0, 0, 3, 0x90];
        assert_eq!(frame_of_prologue(&plain), Some(0x300_0020));
        let pushed = [0xf3, 0x0f, 0x1e, 0xfa, 0x55, 0x48, 0x89, 0xe5, 0x41, 0x57, 0x53, 0x48, 0x81, 0xec, 8, 0, 0, 1];
        assert_eq!(frame_of_prologue(&pushed), Some(0x100_0028));
        for nothing in [&plain[4..], &plain[..9], &[0x55, 0x48, 0x89, 0xe5, 0x48, 0x29, 0xc4], &[]] {
            assert_eq!(frame_of_prologue(nothing), None, "{nothing:x?}");
        }
    }
}
