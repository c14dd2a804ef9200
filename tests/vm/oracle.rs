//! Programs as Debian ships them, whose return addresses are signed (PAC): faultline has gdb's callers, and gdb's names.

use std::process::{Command, Stdio};

use macro_rules_attribute::apply;
use serde_json::Value;

use crate::harness::runs::watch_test;
use crate::harness::{Scratch, run};

const FRAMES: &str = "python
frame = gdb.newest_frame()
while frame is not None:
    if frame.type() != gdb.TAILCALL_FRAME: # it has left nothing on the stack
        print('FRAME %#x %s' % (frame.pc(), frame.name()))
    frame = frame.older()
end
";

/// A frame's address, and the name of its function. `None` means that it has none.
type Frame = (String, Option<String>);

/// The frames of the same death by gdb.
fn by_gdb(scratch: &Scratch, command: &[&str]) -> Vec<Frame> {
    let script = scratch.path("frames.gdb");
    std::fs::write(&script, FRAMES).unwrap();
    let mut gdb = Command::new("gdb");
    gdb.args(["-nx", "-batch", "-ex", "set debuginfod enabled off", "-ex", "run", "-x"]).arg(script);
    let output = gdb.arg("--args").args(command).stdin(Stdio::null()).output().unwrap();
    let text = String::from_utf8_lossy(&output.stdout).into_owned();
    let frame = |line: &str| {
        let (address, name) = line.strip_prefix("FRAME ")?.split_once(' ')?;
        Some((address.to_owned(), (name != "None").then(|| name.to_owned())))
    };
    let frames: Vec<Frame> = text.lines().filter_map(frame).collect();
    assert!(!frames.is_empty(), "{text}\n{}", String::from_utf8_lossy(&output.stderr));
    frames
}

/// The same by faultline.
fn by_faultline(scratch: &Scratch, command: &[&str]) -> Vec<Frame> {
    let words: Vec<String> = command.iter().map(|word| format!("'{word}'")).collect();
    let script = scratch.script("script", &format!("exec {}", words.join(" ")));
    let run = run(&script, &["-r", "-t", "--max-stack-depth", "127"]);
    let [record] = &run.records[..] else { panic!("{command:?}: {:#?}\n{}", run.records, run.stderr) };
    let frame = |frame: &Value| {
        let name = frame["symbol"].as_str().map(|name| name.split('+').next().unwrap().to_owned());
        (frame["address"].as_str().unwrap().to_owned(), name)
    };
    record["stack_trace"].as_array().unwrap().iter().map(frame).collect()
}

/// Without a version, arguments and the compiler's own suffixes.
fn plain(name: &str) -> &str {
    name.split(['@', '(', '.']).next().unwrap_or(name)
}

#[apply(watch_test!)]
fn programs_of_debian_have_gdbs_callers() {
    let scratch = Scratch::new();
    // Of code that is made at run time, gdb guesses the callers.
    let commands: [(&[&str], bool); 2] = [
        (&["python3", "-c", "import ctypes; ctypes.string_at(24)"], true),
        (&["node", "-e", "process.abort()"], false),
    ];
    for (command, is_whole) in commands {
        let (mut expected, found) = (by_gdb(&scratch, command), by_faultline(&scratch, command));
        if !is_whole {
            expected = expected.into_iter().take_while(|(_, name)| name.is_some()).collect();
        }
        println!("{command:?}: {} of gdb's frames", expected.len());
        let about = format!("{command:?}: gdb {expected:#?} faultline {found:#?}");
        for ((address, name), (own, own_name)) in expected.iter().zip(&found) {
            assert_eq!(address, own, "{about}");
            let (name, own_name) = (name.as_deref().map(plain), own_name.as_deref().map(plain));
            assert!(name.is_none() || own_name == name, "{name:?} {own_name:?} {about}");
        }
        assert!(found.len() >= expected.len(), "{about}");
        assert!(expected.len() > 2, "{about}");
    }
}
