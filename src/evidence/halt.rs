//! What a file says of code in it that executes an instruction which only the kernel may.

use serde::{Deserialize, Serialize};

/// Whose instruction it may be. All false where it is the program's own, as far as its file says.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Halt {
    /// The file is a program without a dynamic linker: a C library may be in it.
    pub is_static: bool,
    /// It begins with musl's start code.
    pub begins_as_musl: bool,
    /// Checks that end so stand close around it, as in musl's malloc.
    pub is_among_checks: bool,
    /// And the code there reads what musl's malloc keeps before each block, and cuts addresses to its pages.
    pub reads_block_headers: bool,
    /// The call that led to it stands behind the comparison of a stack protector.
    pub is_behind_stack_check: bool,
}
