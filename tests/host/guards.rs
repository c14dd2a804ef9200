//! Guards that are marks on pages (MADV_GUARD_INSTALL), which this machine's kernel has (6.13 and later).

use macro_rules_attribute::apply;

use crate::harness::check;
use crate::harness::runs::watch_test;

#[apply(watch_test!)]
fn a_guard_without_a_mapping_of_its_own() {
    let record = check("guard-mark");
    let text = record["diagnosis"]["text"].as_str().unwrap();
    assert!(text.starts_with("writes into a guard (MADV_GUARD_INSTALL) behind 4096 writable bytes"), "{text}");
}
