//! Runs faultline with few capabilities.

use std::process::Command;

use serde_json::Value;

use crate::harness::runs::Watch;
use crate::harness::{FAULTLINE, records};

/// `faultline crash` as nobody, with these capabilities only, on a process that kills itself.
pub(crate) fn with_capabilities(names: &str) -> (Value, String) {
    // Before v5.11 a program's memory counts against RLIMIT_MEMLOCK. If the limit can't be raised, it need not be.
    let script = format!(
        "ulimit -l unlimited 2>/dev/null; exec setpriv --reuid=65534 --regid=65534 --clear-groups \
         --inh-caps=-all,{names} --ambient-caps=-all,{names} --bounding-set=-all,{names} \
         \"$0\" crash -r -t --format json -- sh -c 'kill -SEGV $$'"
    );
    let output = Command::new("sh").args(["-c", &script, FAULTLINE]).watch();
    let text = String::from_utf8_lossy(&output.stderr).into_owned();
    assert_eq!(output.status.code(), Some(139), "{text}");
    let records = records(&output.stdout);
    assert_eq!(records.len(), 1);
    (records[0].clone(), text)
}
