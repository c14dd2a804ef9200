//! Libraries of C don't end a process by a privileged instruction here: musl writes to address 0.

/// So long is the start code of [`is_musls_start`].
pub(crate) const START_BYTES: u64 = 0;

/// So far before and behind an instruction [`checks`] are looked for.
pub(crate) const CHECKS_BYTES: u64 = 0;

/// So far before a return address [`is_stack_check`] looks.
pub(crate) const STACK_CHECK_BYTES: u64 = 0;

/// Does a program that begins with this code have musl's start code? Nobody asks.
pub(crate) fn is_musls_start(_code: &[u8]) -> bool {
    false
}

/// How many checks are there in the code? Nobody asks.
pub(crate) fn checks(_code: &[u8], _at: usize) -> usize {
    0
}

/// Does the code read what musl's malloc keeps before a block? Nobody asks.
pub(crate) fn reads_block_headers(_code: &[u8]) -> bool {
    false
}

/// Does the code before a return address compare the value of a stack protector? Nobody asks.
pub(crate) fn is_stack_check(_before: &[u8], _distance: i64) -> bool {
    false
}
