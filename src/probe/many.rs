//! What differs where there are many processors, or may be: with a value for each of them, large tables would take tens of MiB.

use libbpf_rs::num_possible_cpus;

/// From so many processors on they share the values of large hash tables, and remember fewer places of handled faults each.
const MANY: usize = 32;

/// With more processors than so many, they share as many columns of the counts by group: a power of 2.
const COLUMNS: usize = 64;

/// Tests have the processors of a small host share as well: this variable of the environment holds both numbers.
const FOR_TESTS: &str = "FAULTLINE_SHARED_FROM";

/// Are there many processors, or may there be?
pub(super) fn has_many_processors() -> bool {
    possible() >= at_least(MANY)
}

/// How many columns of counts processors share; `None` means that each has its own count.
pub(super) fn columns() -> Option<u32> {
    let columns = at_least(COLUMNS);
    (possible() > columns).then(|| u32::try_from(columns).ok()).flatten()
}

fn possible() -> usize {
    num_possible_cpus().unwrap_or(1)
}

fn at_least(many: usize) -> usize {
    let for_tests = std::env::var(FOR_TESTS).ok().and_then(|number| number.parse().ok());
    for_tests.filter(|number: &usize| number.is_power_of_two()).unwrap_or(many)
}
