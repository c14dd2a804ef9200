//! Programs that look alike, and what is said of each: what tells them apart is the kernel's. docs/diagnosis.md has all sentences;
//! `tests/host/sentences.rs` runs programs whose sentences come from libraries.

use macro_rules_attribute::apply;

use crate::harness::arch::{BY_SLOT, CALLED, KEPT, PUSHED, TAIL_BY_SLOT, page_size};
use crate::harness::programs;
use crate::harness::runs::watch_test;
use crate::said::{compare, compare_silent};

#[apply(watch_test!)]
fn there_is_no_page() {
    let page = page_size();
    let short = format!("behind the file's end, at offset {} of 100 bytes", 2 * page + 8);
    let cut = format!("behind the file's end, at offset {page} of {page} bytes");
    compare(
        &programs().join("no-page"),
        &[
            ("short", "behind_end_of_file", "certain", &short),
            ("empty", "behind_end_of_file", "certain", "which is empty"),
            ("cut", "behind_end_of_file", "certain", &cut),
            ("full", "file_system_full", "likely", "inside the file, and its tmpfs of 1.0 MiB is full"),
            ("huge", "huge_pages_exhausted", "likely", "a mapping of huge pages"),
            ("missing", "userfaultfd", "certain", "whose page userfaultfd did not bring in"),
        ],
    );
}

#[apply(watch_test!)]
fn there_is_no_code() {
    let by_register = format!(
        "jumps to NULL: a function pointer is 0 ({CALLED} is 0); the caller is the next frame, unless what it called has ended in a tail call"
    );
    let kept = format!("jumps to NULL: a function pointer is 0 ({KEPT} is 0); the caller is the next frame");
    let wild = format!("a broken function pointer, or unloaded code ({CALLED} is 0x123456789000)");
    compare(
        &programs().join("no-code"),
        &[
            ("register", "jump_to_null", "certain", &by_register),
            ("kept", "jump_to_null", "certain", &kept),
            ("tail-register", "jump_to_null", "certain", &by_register),
            ("slot", "jump_to_null", "certain", BY_SLOT),
            ("tail", "jump_to_null", "likely", "jumps to NULL by a tail call in dispatch, which the next frame called"),
            ("tail-slot", "jump_to_null", "likely", TAIL_BY_SLOT),
            ("return", "jump_to_null", "certain", "jumps to NULL: a function pointer or a return address is 0"),
            ("after-call", "jump_to_null", "certain", "jumps to NULL: a function pointer or a return address is 0"),
            ("label", "jump_to_null", "certain", "jumps to NULL: a function pointer or a return address is 0"),
            ("wild", "jump_into_the_wild", "certain", &wild),
            ("wild-tail", "jump_into_the_wild", "likely", "by a tail call in lost, which the next frame called"),
            ("wild-return", "jump_into_the_wild", "likely", "returns to 0x123456789000, where nothing is mapped"),
            ("pushed", "jump_into_the_wild", PUSHED.0, PUSHED.1),
            (
                "longjmp",
                "jump_into_the_wild",
                "certain",
                "a broken function pointer or return address, or unloaded code",
            ),
        ],
    );
}

#[apply(watch_test!)]
fn it_may_be_read_only() {
    compare(
        &programs().join("closed"),
        &[
            ("literal", "write_to_read_only", "certain", ": constants and string literals lie there"),
            (
                "got",
                "write_to_read_only",
                "certain",
                ": a slot of the GOT, which is closed once the program has started",
            ),
            (
                "data",
                "write_to_read_only",
                "certain",
                "passwd, r--p): a private mapping of a data file, for reading only",
            ),
            (
                "program",
                "write_to_read_only",
                "certain",
                "true, r--p): a private mapping of a data file, for reading only",
            ),
            ("shared", "write_to_read_only", "certain", ": a shared mapping, for reading only"),
            ("file", "write_to_read_only", "certain", ": a private mapping of a data file, which was writable before"),
            ("memory", "write_to_read_only", "certain", ": memory of the program's own, which was writable before"),
            ("never", "write_to_read_only", "certain", "(anonymous memory, r--p) ("),
            ("merged", "write_to_read_only", "certain", "(anonymous memory, r--p) ("),
            ("poked", "write_to_read_only", "certain", "(anonymous memory, r--p) ("),
            ("code", "write_to_read_only", "certain", "r-xp): code"),
        ],
    );
}

#[apply(watch_test!)]
fn it_is_no_pointer() {
    compare(
        &programs().join("no-pointer"),
        &[
            ("field", "null_dereference", "certain", "reads the field at offset 0x18 of a NULL pointer"),
            ("member", "null_dereference", "likely", "or an integer (32) used as a pointer"),
            ("integer", "integer_as_pointer", "likely", "an integer (8080) used as a pointer to a string or memory"),
            // Which one it was is known where this processor's strlen() keeps it in a register.
            ("rounded", "integer_as_pointer", "likely", ") used as a pointer to a string or memory"),
            ("own", "integer_as_pointer", "likely", "an integer (8080) used as a pointer, or a field far behind"),
            ("extended", "truncated_pointer", "likely", "32 bits that was extended by its sign, the lower half of 0x"),
            ("cut", "truncated_pointer", "likely", "an address in the heap, cut to 32 bits"),
            ("block", "truncated_pointer", "likely", "which a register or the stack still holds, cut to 32 bits"),
            (
                "negative",
                "kernel_address",
                "certain",
                "the pointer is -5, a negative number, or what lies before a NULL pointer",
            ),
            ("failed", "kernel_address", "certain", "reads 0xffffffffffffffff: the pointer is -1, as a failed call"),
            ("pages", "integer_as_pointer", "likely", "used as a pointer, or a place whole pages behind -1"),
            ("mapping", "kernel_address", "certain", "reads 0x17: the pointer is -1, as a failed call returns it"),
        ],
    );
    // Numbers side by side look as a pointer does whose lower half one of them is.
    compare_silent(&programs().join("no-pointer"), &["pair"]);
}
