//! Programs in other languages: builds them, and runs them under faultline.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::{Arc, Mutex, OnceLock};
use std::{env, fs};

use serde_json::Value;

use crate::harness::runs::Watch;
use crate::harness::{self, FAULTLINE, Scratch, is_guest};

/// The results of a command.
pub(crate) struct Run {
    pub status: i32,
    pub crashes: Vec<Value>,
    /// How many events of each disposition.
    pub counts: BTreeMap<String, u64>,
    /// Runs that the kernel skipped are among them.
    pub losses: Value,
}

/// Which folders are built: each is once, by the test that comes first.
static BUILT: Mutex<BTreeMap<&str, Arc<OnceLock<()>>>> = Mutex::new(BTreeMap::new());

/// A program that a test runs, and how to build it.
pub(crate) struct Program {
    pub folder: &'static str,
    pub file: &'static str,
    pub source: &'static str,
    pub command: &'static str,
}

impl Program {
    /// The folder in which it is built, outside of guests.
    pub(crate) fn place(&self) -> PathBuf {
        // Go's own variable: ci/arm64 has them built for its guests.
        let folder = env::var("GOARCH").map_or("runtimes".to_owned(), |other| format!("runtimes-{other}"));
        Path::new(env!("CARGO_TARGET_TMPDIR")).join(folder).join(self.folder)
    }

    /// Builds it; its compiler must be there.
    pub(crate) fn build(&self) {
        let built = Arc::clone(BUILT.lock().unwrap().entry(self.folder).or_default());
        built.get_or_init(|| self.build_anew());
    }

    fn build_anew(&self) {
        let place = self.place();
        let _ = fs::remove_dir_all(&place);
        fs::create_dir_all(&place).unwrap();
        fs::write(place.join(self.file), self.source).unwrap();
        let built = Command::new("sh").args(["-c", self.command]).current_dir(&place).output().unwrap();
        assert!(built.status.success(), "{}: {}", self.command, String::from_utf8_lossy(&built.stderr));
        fs::write(place.join("built"), "").unwrap();
    }

    /// A folder with the program in it. In a guest a build takes minutes, so that it gets a copy of the program that was built outside.
    pub(crate) fn folder(&self) -> Scratch {
        if !is_guest() {
            self.build();
        }
        let folder = Scratch::new();
        let source = format!("{}/.", self.place().display());
        let copied = Command::new("cp").args(["-a", &source]).arg(folder.path("")).status().unwrap();
        assert!(copied.success() && folder.path("built").exists(), "not built: ci/vm does it before it boots a guest");
        folder
    }
}

/// Runs `command` of a shell in `folder` under `faultline crash --summary`.
pub(crate) fn run(folder: &Scratch, command: &str) -> Run {
    let records = folder.path("records");
    let output = Command::new(FAULTLINE)
        .args(["crash", "-r", "-t", "--summary", "3600", "--format", "json", "--output"])
        .arg(&records)
        .args(["--", "sh", "-c"])
        .arg(format!("exec {command}"))
        .current_dir(folder.path(""))
        .watch();
    let mut records = harness::records(fs::read(&records).unwrap());
    let summary = records.pop().unwrap_or_else(|| panic!("{}", String::from_utf8_lossy(&output.stderr)));
    let mut counts = BTreeMap::new();
    for group in summary["groups"].as_array().unwrap() {
        *counts.entry(group["disposition"].as_str().unwrap().to_owned()).or_default() +=
            group["count"].as_u64().unwrap();
    }
    let mut losses = summary["sample_losses"].clone();
    losses["caught_undecided"] = summary["losses"]["caught_undecided"].clone();
    Run { status: output.status.code().unwrap(), crashes: records, counts, losses }
}

/// The one record of a fault that a handler took, and how the process ended.
pub(crate) fn caught(run: &Run, ended_by: &Value) -> Value {
    assert_eq!(run.crashes.len(), 1, "{:#?} {}", run.crashes, run.losses);
    let crash = &run.crashes[0];
    assert_eq!(
        (&crash["signal"], &crash["disposition"]),
        (&"SIGSEGV".into(), &"caught".into()),
        "{crash:#} {}",
        run.losses
    );
    // No second fault ended any of these.
    let mut ended_by = ended_by.clone();
    for field in ["fault_address", "instruction_pointer", "stack_trace"] {
        ended_by[field] = Value::Null;
    }
    assert_eq!(crash["ended_by"], ended_by, "{crash:#}");
    assert_eq!(crash["sender"], Value::Null);
    crash.clone()
}

pub(crate) fn has_frame(crash: &Value, name: &str) -> bool {
    let frames = crash["stack_trace"].as_array().unwrap();
    frames.iter().any(|frame| frame["symbol"].as_str().is_some_and(|symbol| symbol.starts_with(name)))
}
