//! Results of the kernel that are errors.

use crate::probe::abi::fl_limit;

/// The largest number of an error. A result from minus this number to -1 is an error, and so is a pointer.
pub(crate) const MAX: i64 = fl_limit::FL_LIMIT_ERRNO.0 as i64;

/// Is this result of a call an error?
pub(crate) fn is_error(result: i64) -> bool {
    (-MAX..0).contains(&result)
}
