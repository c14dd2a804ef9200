//! Guards that are marks on pages (MADV_GUARD_INSTALL), which this machine's kernel has (6.13 and later), and stacks without any.

use macro_rules_attribute::apply;

use crate::compile::compile;
use crate::harness::runs::watch_test;
use crate::harness::{Scratch, check, programs};
use crate::said::{compare, compare_silent};

#[apply(watch_test!)]
fn a_guard_without_a_mapping_of_its_own() {
    let record = check("guard-mark");
    let text = record["diagnosis"]["text"].as_str().unwrap();
    assert!(text.starts_with("writes into a guard (MADV_GUARD_INSTALL) behind 4096 writable bytes"), "{text}");
}

#[apply(watch_test!)]
fn a_stack_without_a_guard() {
    let (kind, begin) = ("stack_overflow", "it has reached the begin of its mapping, and below that");
    compare(
        &programs().join("no-guard"),
        &[
            ("hole", kind, "likely", &format!("{begin} nothing is mapped; walk is in the stack trace")),
            (
                "closed",
                kind,
                "likely",
                &format!("{begin} there is memory that may not be written (anonymous memory, r--p)"),
            ),
        ],
    );
}

#[apply(watch_test!)]
fn a_stack_pointer_at_the_wrong_end_is_no_overflow() {
    compare_silent(&programs().join("no-guard"), &["wrong-end", "pointer", "taken"]);
    let what = "it has reached its guard page, unless its stack pointer was set to the wrong end of its memory";
    compare(&programs().join("no-guard"), &[("guarded", "stack_overflow", "likely", what)]);
}

/// A frame pointer leads to the caller, wherever the stack pointer is.
#[apply(watch_test!)]
fn a_stack_pointer_that_was_moved_makes_no_frame() {
    let scratch = Scratch::new();
    let program = scratch.path("moves-stack");
    compile("moves-stack.c", &program, &["-fno-stack-clash-protection"]);
    let kind = "stack_overflow";
    compare(
        &program,
        &[
            ("array", kind, "certain", "the frame of array has 48.0 MiB"),
            ("alloca", kind, "likely", "the frame of allocated has 48.0 MiB"),
            ("assembly", kind, "likely", "the frame of moved has 48.0 MiB"),
        ],
    );
}
