//! `hlt`, which only the kernel may execute: how libraries of C come to it where a check has failed.

/// So long is the start code of [`is_musls_start`].
pub(crate) const START_BYTES: u64 = 17;

/// So far before and behind an instruction [`checks`] are looked for.
pub(crate) const CHECKS_BYTES: u64 = 256;

/// So far before a return address [`is_stack_check`] looks.
pub(crate) const STACK_CHECK_BYTES: u64 = 96;

/// Does a program that begins with this code have musl's start code? arch/x86_64/crt_arch.h in musl.
pub(crate) fn is_musls_start(code: &[u8]) -> bool {
    // xor %rbp,%rbp; mov %rsp,%rdi; lea _DYNAMIC(%rip),%rsi; and $-16,%rsp; call _start_c
    const BEFORE: [u8; 9] = [0x48, 0x31, 0xed, 0x48, 0x89, 0xe7, 0x48, 0x8d, 0x35];
    const BEHIND: [u8; 4] = [0x48, 0x83, 0xe4, 0xf0];
    code.starts_with(&BEFORE) && code.get(BEFORE.len() + 4..).is_some_and(|rest| rest.starts_with(&BEHIND))
}

/// How many times does the code skip a hlt if something holds, as an assertion does that ends so? 0 if the one at `at` of it isn't skipped so.
pub(crate) fn checks(code: &[u8], at: usize) -> usize {
    // jcc over one byte, which is hlt.
    let is_check = |bytes: &[u8]| matches!(bytes, [0x70..=0x7f, 1, 0xf4]);
    let is_one = at.checked_sub(2).and_then(|start| code.get(start..=at)).is_some_and(is_check);
    if is_one { code.windows(3).filter(|bytes| is_check(bytes)).count() } else { 0 }
}

/// Does the code read the byte three bytes before an address, and cut addresses to whole pages of 4096 bytes? So does musl's malloc of 1.2.1 and
/// later, which keeps what it knows of a block there, and of a group of blocks at the begin of a page: get_meta(), src/malloc/mallocng/meta.h.
pub(crate) fn reads_block_headers(code: &[u8]) -> bool {
    // movzbl -3(%rdi),%edx or mov -3(%rdi),%dl; and $-4096,%rcx or test, of any registers but those that need one byte more.
    let is_read =
        |bytes: &[u8]| matches!(*bytes, [0xb6 | 0x8a, operand, 0xfd] if operand & 0xc0 == 0x40 && operand & 7 != 4);
    let is_cut = |bytes: &[u8]| match *bytes {
        [0x81, operand, 0x00, 0xf0, 0xff, 0xff] => operand & 0xf8 == 0xe0,
        [0xf7, operand, 0x00, 0xf0, 0xff, 0xff] => operand & 0xf8 == 0xc0,
        [_, 0x25 | 0xa9, 0x00, 0xf0, 0xff, 0xff] => true,
        _ => false,
    };
    code.windows(3).any(is_read) && code.windows(6).any(is_cut)
}

/// Does the code before a return address call what lies so far from that address, and compare the value of a stack protector before it?
pub(crate) fn is_stack_check(before: &[u8], distance: i64) -> bool {
    let Some((rest, call)) = before.split_last_chunk::<5>() else { return false };
    let [0xe8, to @ ..] = *call else { return false };
    i64::from(i32::from_le_bytes(to)) == distance && rest.windows(11).any(is_comparison)
}

/// Is it `sub %fs:0x28,%rax`, xor or cmp, or a `mov %fs:0x28,%rax` with a cmp behind it?
fn is_comparison(code: &[u8]) -> bool {
    let [0x64, prefix, opcode, operand, 0x25, 0x28, 0, 0, 0, ref next @ ..] = *code else { return false };
    let compares = matches!((opcode, next), (0x2b | 0x33 | 0x3b, _) | (0x8b, [0x48..=0x4f, 0x3b]));
    prefix & 0xf8 == 0x48 && operand & 0xc7 == 4 && compares
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn musls_start_is_not_glibcs() {
        let musl = [0x48, 0x31, 0xed, 0x48, 0x89, 0xe7, 0x48, 0x8d, 0x35, 1, 2, 3, 4, 0x48, 0x83, 0xe4, 0xf0, 0xe8];
        assert!(is_musls_start(&musl) && !is_musls_start(&musl[..13]) && musl.len() as u64 > START_BYTES);
        let glibc = [0x31, 0xed, 0x49, 0x89, 0xd1, 0x5e, 0x48, 0x89, 0xe2, 0x48, 0x83, 0xe4, 0xf0, 0x50, 0x54, 0x45];
        assert!(!is_musls_start(&glibc));
    }

    #[test]
    fn a_check_skips_the_hlt() {
        // jae +1; hlt; mov; je +1; hlt
        let code = [0x73, 1, 0xf4, 0x48, 0x8b, 0x77, 0x10, 0x74, 1, 0xf4, 0xf4];
        assert_eq!((checks(&code, 2), checks(&code, 9)), (2, 2));
        assert_eq!((checks(&code, 10), checks(&code, 1), checks(&code, 11)), (0, 0, 0));
        assert_eq!(checks(&[0x74, 2, 0xf4, 0x90, 0xeb, 1, 0xf4], 2), 0, "two bytes");
        assert_eq!(checks(&[0x74, 2, 0xf4, 0x90, 0xeb, 1, 0xf4], 6), 0, "always");
    }

    #[test]
    fn musls_malloc_reads_what_stands_before_a_block() {
        // movzbl -3(%rdi),%edx; and $0xfffffffffffff000,%rcx
        let code = [0x0f, 0xb6, 0x57, 0xfd, 0x48, 0x81, 0xe1, 0x00, 0xf0, 0xff, 0xff];
        assert!(reads_block_headers(&code));
        assert!(!reads_block_headers(&code[..4]) && !reads_block_headers(&code[4..]));
        // and $0xfffffffffffff000,%rax, which needs no byte for its register
        assert!(reads_block_headers(&[0x0f, 0xb6, 0x57, 0xfd, 0x48, 0x25, 0x00, 0xf0, 0xff, 0xff]));
        // movzbl -2(%rdi),%edx; cmp $0xfffffffffffff000,%rcx, as of a call's error
        assert!(!reads_block_headers(&[0x0f, 0xb6, 0x57, 0xfe, 0x48, 0x81, 0xe1, 0x00, 0xf0, 0xff, 0xff]));
        assert!(!reads_block_headers(&[0x0f, 0xb6, 0x57, 0xfd, 0x48, 0x81, 0xf9, 0x00, 0xf0, 0xff, 0xff]));
    }

    #[test]
    fn a_stack_protector_compares_before_it_calls() {
        // sub %fs:0x28,%rax; jne; add $0x28,%rsp; ret; call
        let check = [0x64, 0x48, 0x2b, 4, 0x25, 0x28, 0, 0, 0, 0x75, 5, 0x48, 0x83, 0xc4, 0x28, 0xc3, 0xe8, 8, 1, 0, 0];
        assert!(is_stack_check(&check, 0x108));
        assert!(!is_stack_check(&check, 0x107), "it calls something else");
        assert!(!is_stack_check(&check[16..], 0x108), "nothing is compared");
        // mov %fs:0x28,%rax; mov %rax,0x18(%rsp); call: the begin of a function
        let begin = [0x64, 0x48, 0x8b, 4, 0x25, 0x28, 0, 0, 0, 0x48, 0x89, 0x44, 0x24, 0x18, 0xe8, 8, 1, 0, 0];
        assert!(!is_stack_check(&begin, 0x108), "it is only read");
        // mov %fs:0x28,%rax; cmp 0x18(%rsp),%rax; jne: clang's
        let clangs =
            [0x64, 0x48, 0x8b, 4, 0x25, 0x28, 0, 0, 0, 0x48, 0x3b, 0x44, 0x24, 0x18, 0x75, 0, 0xe8, 8, 1, 0, 0];
        assert!(is_stack_check(&clangs, 0x108));
    }
}
