//! Names of programs that no other run of these tests has: two runs on one machine don't watch each other's.

/// `base` and the number of this run. `base` has at most 8 characters, since the kernel keeps 15 of a name.
pub(crate) fn own_name(base: &str) -> String {
    let name = format!("{base}-{:x}", std::process::id());
    assert!(name.len() <= 15, "{name}");
    name
}
