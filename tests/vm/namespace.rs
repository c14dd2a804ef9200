//! faultline in a pid namespace of its own, as in a container: PIDs on the command line are those of that namespace.

use std::fs;
use std::process::Command;

use macro_rules_attribute::apply;
use serde_json::Value;

use crate::harness::runs::{self, Watch, watch_test};
use crate::harness::{FAULTLINE, Scratch, records};

/// Runs `faultline` with these arguments of a shell, in a new pid namespace, until `meanwhile` is done; returns its records.
/// `$target` is a process that sleeps, `$inner` one in a namespace below, and the shell is process 1.
fn watch(arguments: &str, meanwhile: &str) -> Vec<Value> {
    let scratch = Scratch::new();
    let (output_file, said) = (scratch.path("records"), scratch.path("said"));
    let script = format!(
        "sleep 100 & target=$!
         unshare -p -f sh -c 'sleep 100; exit 0' & outer=$!
         child() {{ echo $(cat /proc/$1/task/$1/children 2>/dev/null); }}
         until inner=$(child $(child $outer)) && [ \"$inner\" ]; do sleep 0.1; done
         {FAULTLINE} {arguments} --format json -o {} 2>{said} & watcher=$!
         until grep -q watching {said}; do kill -0 $watcher || exit 99; sleep 0.1; done
         {meanwhile}
         kill -INT $watcher; wait $watcher",
        output_file.display(),
        said = said.display()
    );
    let output = Command::new("unshare").args(["-p", "-f", "--mount-proc", "sh", "-c", &script]).watch();
    let said = fs::read_to_string(said).unwrap();
    runs::note(said.as_bytes());
    assert_eq!(output.status.code(), Some(0), "{said}{}", String::from_utf8_lossy(&output.stderr));
    records(fs::read(output_file).unwrap())
}

#[apply(watch_test!)]
fn a_process_is_watched_by_the_number_that_it_has_there() {
    for number in ["$target", "$inner"] {
        let dies = format!("kill -SEGV {number}; while kill -0 {number} 2>/dev/null; do sleep 0.1; done");
        let records = watch(&format!("crash -p {number}"), &format!("sh -c 'kill -SEGV $$'; {dies}"));
        assert_eq!(records.len(), 1, "{records:#?}");
        assert_eq!(records[0]["comm"], "sleep");
    }
}

#[apply(watch_test!)]
fn senders_and_targets_are_found_by_the_numbers_that_they_have_there() {
    // By another sender, by this one, and to another target.
    let kills = "sh -c \"kill -CONT $target; exit 0\"; kill -CONT $target; kill -CONT $watcher";
    let records = watch("signal -s CONT --from $$ --to $target", kills);
    assert_eq!(records.len(), 1, "{records:#?}");
    assert_eq!((&records[0]["sender"]["comm"], &records[0]["target"]["comm"]), (&"sh".into(), &"sleep".into()));
    let records = watch("signal -s CONT -p $target", "kill -CONT $target; kill -CONT $watcher");
    assert_eq!(records.len(), 1, "{records:#?}");
}
