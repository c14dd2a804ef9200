//! Programs whose files are hidden, and faultline that watches them by name.

use std::io::{BufRead, BufReader, Write};
use std::path::Path;
use std::process::{Child, ChildStdin, ChildStdout, Command, Stdio};

use serde_json::Value;

use crate::harness::Watching;
use crate::harness::runs::next_line;

pub(crate) fn tool(name: &str, arguments: &[&dyn AsRef<std::ffi::OsStr>]) {
    let output = Command::new(name).args(arguments).output().unwrap_or_else(|error| panic!("{name}: {error}"));
    assert!(output.status.success(), "{name}: {}", String::from_utf8_lossy(&output.stderr));
}

/// faultline, and its records of the programs here.
pub(crate) struct Watch {
    pub watching: Watching,
    pub records: BufReader<ChildStdout>,
}

impl Watch {
    pub(crate) fn start(name: &str, more: &[&str]) -> Self {
        let mut watching = Watching::start(&[&["-n", name, "-t", "--format", "json"], more].concat());
        let records = BufReader::new(watching.child.stdout.take().unwrap());
        Self { watching, records }
    }

    pub(crate) fn next(&mut self) -> Value {
        let line = next_line(&mut self.records);
        serde_json::from_str(&line).unwrap_or_else(|error| panic!("{error}: {line}"))
    }

    pub(crate) fn stop(self) {
        assert!(self.watching.stop("TERM").status.success());
    }
}

/// A program that waits until it may die.
pub(crate) struct Hidden {
    pub child: Child,
    pub stdin: ChildStdin,
    pub stdout: BufReader<ChildStdout>,
}

impl Hidden {
    pub(crate) fn start(program: &Path, arguments: &[&str]) -> Self {
        let mut command = Command::new(program);
        command.args(arguments).stdin(Stdio::piped()).stdout(Stdio::piped());
        let mut child = command.spawn().unwrap_or_else(|error| panic!("{}: {error}", program.display()));
        let (stdin, stdout) = (child.stdin.take().unwrap(), BufReader::new(child.stdout.take().unwrap()));
        let mut hidden = Self { child, stdin, stdout };
        hidden.hear("ready\n");
        hidden
    }

    pub(crate) fn hear(&mut self, wanted: &str) {
        let mut line = String::new();
        self.stdout.read_line(&mut line).unwrap();
        assert_eq!(line, wanted);
    }

    /// Lets it die, and returns the record. Its other processes live until then.
    pub(crate) fn die(mut self, watch: &mut Watch, survives: bool) -> Value {
        self.stdin.write_all(b"now\n").unwrap();
        if survives {
            self.hear("dead\n");
        }
        let record = watch.next();
        drop(self.stdin);
        self.child.wait().unwrap();
        record
    }
}

/// The innermost frame's function and source.
pub(crate) fn innermost(record: &Value) -> (Option<&str>, Option<&str>) {
    let frame = &record["stack_trace"][0];
    let symbol = record["instruction_symbol"].as_str().map(|symbol| symbol.split('+').next().unwrap());
    (symbol, frame["file"].as_str().and_then(|file| file.rsplit('/').next()))
}

/// A record's file is hidden, and its functions have names all the same.
pub(crate) fn assert_named(record: &Value, function: &str, file: &str) {
    assert_eq!(innermost(record), (Some(function), Some(file)), "{record:#}");
    assert!(!record["build_id"].is_null(), "{record:#}");
}
