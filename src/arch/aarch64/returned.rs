//! What a small function returns that is given an object, as far as its code says so: it is not followed yet.

use crate::arch::Returned;

/// Follows the code of a function, which begins at `start` and is given the address of an object, to its result.
pub(crate) fn returned(_code: &[u8], _start: u64) -> Option<Returned> {
    None
}
