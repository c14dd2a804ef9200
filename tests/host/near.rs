//! Accesses and jumps that look like others of which something else is said: tests/vm/sentences.rs has those for all kernels.

use macro_rules_attribute::apply;

use crate::harness::programs;
use crate::harness::runs::watch_test;
use crate::said::{compare, compare_silent};

#[apply(watch_test!)]
fn what_leads_back_to_near_null_is_no_null_pointer() {
    let program = programs().join("alike");
    compare_silent(&program, &["led-back", "element", "bit"]);
    compare(
        &program,
        &[
            ("far", "null_dereference", "likely", "reads 0x100000, far behind a NULL pointer ("),
            ("far-element", "null_dereference", "likely", "reads 0xf4240, far behind a NULL pointer ("),
            ("bit-of-null", "null_dereference", "likely", "reads address 0x100: near NULL, as a field or an element"),
        ],
    );
}

#[apply(watch_test!)]
fn a_stack_pointer_that_leads_nowhere_is_told() {
    let kind = "broken_stack_pointer";
    compare(
        &programs().join("alike"),
        &[
            ("no-stack", kind, "certain", "reads the stack at 0x18, where none can be: the stack pointer is broken"),
            ("no-room", kind, "certain", "writes the stack at 0xfffffffffffffff8, where none can be"),
            ("jmp-buf", "jump_into_the_wild", "likely", ", which is no address at all (non-canonical)"),
        ],
    );
}

#[apply(watch_test!)]
fn a_number_that_is_not_normal_is_no_underflow_alone() {
    let what = "underflows in floating point, or computes with a number that is too small to be normal (denormal)";
    compare(&programs().join("alike"), &[("fp-denormal", "floating_point_underflow", "certain", what)]);
}

#[apply(watch_test!)]
fn code_that_is_gone_has_not_jumped() {
    let (kind, null) = ("jump_into_the_wild", "jumps to NULL: a function pointer or a return address is 0");
    compare(
        &programs().join("no-code"),
        &[
            ("gone", kind, "likely", "behind a system call: its code was unloaded meanwhile"),
            ("end", kind, "likely", "behind the end of executable memory (anonymous memory, rwxp)"),
            ("unloaded", kind, "likely", ", or its code was unloaded while it ran"),
            ("retpoline", "jump_to_null", "certain", null),
        ],
    );
}

#[apply(watch_test!)]
fn what_is_closed_may_have_been_in_use() {
    let freed = "or into memory that was in use and has been closed since (mprotect)";
    compare(
        &programs().join("closed"),
        &[
            ("freed", "guard_page_overrun", "likely", freed),
            ("guard", "guard_page_overrun", "likely", "of the memory beside it (anonymous memory, rw-p) ("),
            ("unreserved", "write_to_read_only", "certain", "writes to read-only memory (/etc/passwd, r--p) ("),
        ],
    );
}

#[apply(watch_test!)]
fn a_file_ends_before_userfaultfd_is_asked() {
    let what = "behind the file's end, at offset 4096 of 4096 bytes";
    compare(&programs().join("no-page"), &[("behind", "behind_end_of_file", "certain", what)]);
}
