//! Results of the kernel that are errors.

/// The largest number of an error: MAX_ERRNO, include/linux/err.h. A result from minus this number to -1 is an error, and so is
/// a pointer.
pub(crate) const MAX: i64 = 4095;

/// Is this result of a call an error?
pub(crate) fn is_error(result: i64) -> bool {
    (-MAX..0).contains(&result)
}
