//! Why names are missing, for tests of names that nothing of faultline's may fail.

use serde_json::Value;

/// Why names are missing in a record, where the reason is faultline's own: the same crash may have them another time.
pub(crate) fn own_failures(record: &Value) -> Vec<&str> {
    let others = ["not_found", "unreadable", "no_symbol", "no_file", "no_code"];
    let reasons = record["symbols_failed"].as_array().unwrap().iter().map(|failed| failed["reason"].as_str().unwrap());
    reasons.filter(|reason| !others.contains(reason)).collect()
}
