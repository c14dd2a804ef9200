//! Faults whose handler ends the process.

use macro_rules_attribute::apply;

use crate::harness::check;
use crate::harness::runs::watch_test;

#[apply(watch_test!)]
fn what_only_looks_like_a_signal_frame_is_none() {
    check("caught-pair");
}
