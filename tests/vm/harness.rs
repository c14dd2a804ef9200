//! Runs faultline on the programs of `tests/programs` and holds its records against what the programs say of themselves.

use std::fs;
use std::io::{BufRead, BufReader, Read};
use std::os::unix::process::ExitStatusExt;
use std::path::{Path, PathBuf};
use std::process::{Child, ChildStderr, Command, ExitStatus, Output, Stdio};
use std::sync::{Arc, OnceLock};

use serde_json::Value;

use self::runs::{Shared, Watch};

#[path = "arch.rs"]
pub(crate) mod arch;
#[path = "expected.rs"]
mod expected;
#[path = "runs.rs"] // other packages of tests include this file
pub(crate) mod runs;
#[path = "scratch.rs"]
mod scratch;

#[allow(unused_imports)] // other packages of tests use a part
pub(crate) use self::expected::{Expected, is_built, source};
pub(crate) use self::scratch::Scratch;

/// The binary under test.
pub(crate) const FAULTLINE: &str = env!("CARGO_BIN_EXE_faultline");

/// Every field that the contract names for a crash record.
const FIELDS: &str = "type schema timestamp host pid tid ppid pid_in_namespace comm thread_name exe build_id uid cgroup \
    container_id signal signal_number code code_number fault_type fault_address instruction_pointer disposition ended_by earlier_fault \
    sender reason page_fault abort_message runtime_message registers vma vma_below vma_above stack_trace stack_complete stack_omitted unwinder signature family diagnosis cpu \
    calls";

/// Do the tests run in a guest of the matrix? Its processors are emulated, and its root is the machine's own.
pub(crate) fn is_guest() -> bool {
    std::env::var_os("FAULTLINE_KERNEL").is_some()
}

/// The folder of the built programs; builds what isn't up to date.
pub(crate) fn programs() -> &'static Path {
    static BUILT: OnceLock<PathBuf> = OnceLock::new();
    BUILT.get_or_init(|| {
        let here = Path::new(env!("CARGO_MANIFEST_DIR"));
        let folder = here.join("target/programs");
        let made = Command::new("make")
            .args(["-s", "-C"])
            .arg(here.join("tests/programs"))
            .arg(format!("OUT={}", folder.display()))
            .output()
            .expect("make is needed to build tests/programs");
        assert!(made.status.success(), "{}", String::from_utf8_lossy(&made.stderr));
        folder
    })
}

/// Copies a file that is executed. By another process: a file that one of our threads has open for writing can be executed by none
/// (ETXTBSY), and a fork of any thread holds it open until its exec.
pub(crate) fn copy_executable(from: &Path, to: &Path) {
    let copied = Command::new("cp").arg("-p").arg(from).arg(to).status().unwrap();
    assert!(copied.success(), "failed to copy {}", from.display());
}

/// Copies a program to where it has another name.
pub(crate) fn copy_program(name: &str, to: &Path) {
    copy_executable(&programs().join(name), to);
}

/// A copy of a program under a name of its own, so that no other test's crashes match it.
pub(crate) fn named(scratch: &Scratch, program: &str, name: &str) -> PathBuf {
    let path = scratch.path(name);
    copy_program(program, &path);
    path
}

/// Runs a program that does not end well.
pub(crate) fn die(program: &Path) {
    let status = Command::new(program).stdout(Stdio::null()).status().unwrap();
    assert!(!status.success());
}

/// One run of a program under faultline.
#[derive(Debug)]
pub(crate) struct Run {
    pub status: ExitStatus,
    /// The program's lines `FIELD VALUE`.
    pub facts: Vec<(String, String)>,
    pub records: Vec<Value>,
    pub stderr: String,
}

/// Runs `program` under `faultline crash --format json FLAGS`.
pub(crate) fn run(program: &Path, flags: &[&str]) -> Run {
    let scratch = Scratch::new();
    let file = scratch.path("records");
    let output = Command::new(FAULTLINE)
        .args(["crash", "-v", "--format", "json", "--output"])
        .arg(&file)
        .args(flags)
        .arg("--")
        .arg(program)
        .env("FAULTLINE_TRUTH", "1")
        .watch();
    let stderr = String::from_utf8_lossy(&output.stderr).into_owned();
    let text = fs::read_to_string(&file).unwrap_or_else(|error| panic!("{error}: {stderr}"));
    Run { status: output.status, facts: facts(&output.stdout), records: records(text), stderr }
}

/// Runs these lines of a shell under `faultline`, a command without what it is to run. Returns its standard error; its status is
/// the shell's own.
pub(crate) fn run_lines(faultline: &mut Command, scratch: &Scratch, lines: &[String]) -> String {
    let script = scratch.script("all", &(lines.join("\n") + "\nexit 7"));
    let output = faultline.arg("--").arg(&script).env("FAULTLINE_TRUTH", "1").watch();
    let stderr = String::from_utf8_lossy(&output.stderr).into_owned();
    assert_eq!(output.status.code(), Some(7), "the command's own status: {stderr}");
    stderr
}

/// Compares every fact of the program of this name, as it died when all of them died under one faultline: to start that takes
/// a slow guest longer than all the deaths. Returns the first record, for what only one test knows.
pub(crate) fn check(name: &str) -> Value {
    let expected = Expected::read(name);
    if runs::is_again() {
        return check_with(name, &[]);
    }
    match all_at_once().iter().find(|(program, _)| program == name) {
        Some((_, run)) => verify(name, &expected, run),
        None => check_with(name, &[]),
    }
}

/// Every program that needs no flags of its own, with what it left behind.
fn all_at_once() -> Arc<Vec<(String, Run)>> {
    static RUNS: Shared<Vec<(String, Run)>> = Shared::new();
    RUNS.get(|| {
        let sources = fs::read_dir(Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/programs")).unwrap();
        let names: Vec<String> = sources
            .filter_map(|entry| entry.unwrap().file_name().to_str()?.strip_suffix(".c").map(str::to_owned))
            .filter(|name| Expected::is_said(name) && Expected::read(name).flags.is_empty())
            .collect();
        run_at_once(names, &[])
    })
}

/// The same as [`check_with`] for several programs, under one faultline.
pub(crate) fn check_at_once(names: &[&str], more: &[&str]) -> Vec<(String, Value)> {
    let runs = run_at_once(names.iter().map(|&name| name.to_owned()).collect(), more);
    runs.into_iter()
        .map(|(name, run)| {
            let record = verify(&name, &Expected::read(&name), &run);
            (name, record)
        })
        .collect()
}

/// Runs the programs one after the other under one `faultline crash -r -t FLAGS`.
fn run_at_once(names: Vec<String>, flags: &[&str]) -> Vec<(String, Run)> {
    let scratch = Scratch::new();
    let mut text = String::new();
    for name in &names {
        let (program, said) = (programs().join(name), scratch.path(name));
        // Between two programs' records stands one of a shell, whatever the programs do.
        text += &format!(
            "{} >{}; echo status $? >>{}; sh -c 'kill -SEGV $$'\n",
            program.display(),
            said.display(),
            said.display()
        );
    }
    let script = scratch.script("all", &(text + "exit 0"));
    let all = run(&script, &[&["-r", "-t"], flags].concat());
    assert_eq!(all.status.code(), Some(0), "{}", all.stderr);
    let mut parts = all.records.split(|record| record["comm"] == "sh");
    let runs: Vec<(String, Run)> = names
        .into_iter()
        .map(|name| {
            let records = parts.next().unwrap_or_default().to_vec();
            let mut facts = facts(&fs::read(scratch.path(&name)).unwrap());
            let (_, status) = facts.pop().unwrap();
            let run = Run {
                status: ExitStatus::from_raw(status.parse::<i32>().unwrap() << 8),
                facts,
                records,
                stderr: all.stderr.clone(),
            };
            (name, run)
        })
        .collect();
    assert!(parts.all(<[Value]>::is_empty), "records of nobody");
    runs
}

/// The program's lines `FIELD VALUE`.
fn facts(stdout: &[u8]) -> Vec<(String, String)> {
    let text = String::from_utf8(stdout.to_vec()).unwrap();
    let lines = text.lines().filter_map(|line| line.split_once(' '));
    lines.map(|(field, value)| (field.to_owned(), value.to_owned())).collect()
}

/// Runs the program by itself, with more flags: whatever they are, the facts don't change.
pub(crate) fn check_with(name: &str, more: &[&str]) -> Value {
    let expected = Expected::read(name);
    let flags: Vec<&str> =
        ["-r", "-t"].iter().chain(more).copied().chain(expected.flags.iter().map(String::as_str)).collect();
    verify(name, &expected, &run(&programs().join(name), &flags))
}

fn verify(name: &str, expected: &Expected, run: &Run) -> Value {
    let program = programs().join(name);
    let code = run.status.code().or(run.status.signal());
    assert_eq!(code, expected.exit, "exit status of {name}: {}", run.stderr);
    assert_eq!(run.records.len(), expected.records.unwrap_or(1), "records of {name}: {:#?}", run.records);
    let record = &run.records[0];
    for field in FIELDS.split_whitespace() {
        assert!(record.get(field).is_some(), "{name}: no field `{field}`: {record:#}");
    }
    // The program knows best where it ran; what it does not say, its header does, and the file itself.
    let mut facts: Vec<(String, String)> = vec![
        ("type".to_owned(), "crash".to_owned()),
        ("schema".to_owned(), "1".to_owned()),
        ("build_id".to_owned(), build_id(&program)),
    ];
    let says = |field: &str| expected.fields.iter().chain(&run.facts).any(|(name, _)| name == field);
    if !says("exe") {
        facts.push(("exe".to_owned(), program.to_str().unwrap().to_owned()));
    }
    if !says("comm") {
        facts.push(("comm".to_owned(), name.chars().take(15).collect()));
    }
    if let Some((_, at)) = run.facts.iter().find(|(field, _)| field == "instruction_pointer") {
        facts.push((format!("registers.{}", arch::INSTRUCTION_POINTER), at.clone()));
    }
    let as_on_x86_64 = arch::as_on_x86_64(record);
    for (field, value) in facts.iter().chain(&expected.fields).chain(&run.facts) {
        let seen = at(if field.starts_with("page_fault.") { &as_on_x86_64 } else { record }, field);
        assert_eq!(show(seen), *value, "{name}: {field}: {record:#}");
    }
    compare_frames(name, record, &expected.frames);
    record.clone()
}

fn compare_frames(name: &str, record: &Value, expected: &[String]) {
    let frames = record["stack_trace"].as_array().unwrap();
    assert!(frames.len() >= expected.len(), "{name}: {} frames: {record:#}", frames.len());
    for (index, (frame, wanted)) in frames.iter().zip(expected).enumerate() {
        let seen = frame["symbol"].as_str().map_or("?", |symbol| symbol.split('+').next().unwrap());
        assert_eq!(seen, wanted, "{name}: frame {index}: {record:#}");
    }
    assert_eq!(frames[0]["address"], record["instruction_pointer"], "{name}: {record:#}");
}

/// The field at a path with dots.
pub(crate) fn at<'a>(record: &'a Value, field: &str) -> &'a Value {
    record.pointer(&format!("/{}", field.replace('.', "/"))).unwrap_or_else(|| panic!("no field {field}: {record:#}"))
}

/// A value as the programs write it.
fn show(value: &Value) -> String {
    match value {
        Value::String(text) => text.clone(),
        other => other.to_string(),
    }
}

/// The records of an output, one JSON object a line; a summary that has several lines is one record, that of the last.
pub(crate) fn records(text: impl AsRef<[u8]>) -> Vec<Value> {
    runs::note(text.as_ref());
    let text = std::str::from_utf8(text.as_ref()).unwrap_or_else(|error| panic!("{error}"));
    let mut earlier = Vec::new();
    text.lines().filter_map(|line| whole(line, &mut earlier)).collect()
}

/// The record that a line ends; a summary may have several. `earlier`: the groups of its lines before this one.
pub(crate) fn whole(line: &str, earlier: &mut Vec<Value>) -> Option<Value> {
    let mut record: Value = serde_json::from_str(line).unwrap_or_else(|error| panic!("{error}: {line}"));
    if record["part"] != record["parts"] {
        earlier.append(record["groups"].as_array_mut().unwrap());
        return None;
    }
    if let Some(Value::Array(groups)) = record.get_mut("groups") {
        groups.splice(0..0, earlier.drain(..));
    }
    Some(record)
}

/// The number of a field like `0x18`.
pub(crate) fn hex(value: &Value) -> u64 {
    let text = value.as_str().unwrap_or_else(|| panic!("{value} is no address"));
    u64::from_str_radix(text.strip_prefix("0x").unwrap(), 16).unwrap()
}

/// The child of that process and name. `None` means that there is none yet.
pub(crate) fn try_child(parent: u32, name: &str) -> Option<u32> {
    let all = procfs::process::all_processes().unwrap();
    let mut stats = all.filter_map(|process| process.ok()?.stat().ok());
    let found = stats.find(|stat| stat.ppid.cast_unsigned() == parent && stat.comm == name);
    found.map(|stat| stat.pid.cast_unsigned())
}

/// The same where it is there.
pub(crate) fn child(parent: u32, name: &str) -> u32 {
    try_child(parent, name).unwrap_or_else(|| panic!("{parent} has no child {name}"))
}

/// The build id in a file, read by another program than ours.
pub(crate) fn build_id(file: &Path) -> String {
    let output = Command::new("readelf").args(["-n", "-W"]).arg(file).output().expect("readelf is needed: binutils");
    let text = String::from_utf8_lossy(&output.stdout).into_owned();
    let (_, rest) = text.split_once("Build ID: ").unwrap_or_else(|| panic!("no build id in {}", file.display()));
    rest.split_whitespace().next().unwrap().to_owned()
}

/// faultline while it watches.
pub(crate) struct Watching {
    pub child: Child,
    pub stderr: BufReader<ChildStderr>,
}

impl Watching {
    /// Starts `faultline crash FLAGS` and waits until it is attached.
    pub(crate) fn start(flags: &[&str]) -> Self {
        let (watching, line) = Self::try_start(Command::new(FAULTLINE).arg("crash").args(flags));
        assert!(line.starts_with("faultline: watching "), "{line}");
        watching
    }

    /// The same for a command made by the caller; returns the line that says what is watched, or why it isn't, too.
    pub(crate) fn try_start(command: &mut Command) -> (Self, String) {
        let mut child = command.stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap();
        let mut stderr = BufReader::new(child.stderr.take().unwrap());
        let mut line = String::new();
        stderr.read_line(&mut line).unwrap();
        (Self { child, stderr }, line)
    }

    /// Ends it with a signal; what it printed and its status. What waits for its names then goes without, if they take long.
    pub(crate) fn stop(mut self, signal: &str) -> Output {
        assert!(self.kill(signal));
        self.end()
    }

    /// The same, once it has written `count` records of a kind, with all their names.
    pub(crate) fn stop_after(mut self, kind: &str, count: usize, signal: &str) -> Output {
        let mut from = BufReader::new(self.child.stdout.take().unwrap());
        let (mut stdout, is_one) = (String::new(), format!("{{\"type\":\"{kind}\",").into_bytes());
        while stdout.lines().filter(|line| line.as_bytes().starts_with(&is_one)).count() < count {
            let line = runs::next_line(&mut from);
            assert!(!line.is_empty(), "it ended before it had written {count} of {kind}: {stdout}");
            stdout += &line;
        }
        assert!(self.kill(signal));
        from.read_to_string(&mut stdout).unwrap();
        let stdout = stdout.into_bytes();
        runs::note(&stdout);
        Output { stdout, ..self.end() }
    }

    fn kill(&self, signal: &str) -> bool {
        Command::new("kill").args(["-s", signal, &self.child.id().to_string()]).status().unwrap().success()
    }

    /// Waits for its end, and notes what was missed.
    pub(crate) fn end(&mut self) -> Output {
        let (mut stdout, mut stderr) = (Vec::new(), Vec::new());
        if let Some(mut pipe) = self.child.stdout.take() {
            pipe.read_to_end(&mut stdout).unwrap();
        }
        let status = self.child.wait().unwrap();
        self.stderr.read_to_end(&mut stderr).unwrap();
        runs::note(&stderr);
        runs::note(&stdout);
        Output { status, stdout, stderr }
    }
}

/// A test that fails ends it, and learns what it missed.
impl Drop for Watching {
    fn drop(&mut self) {
        if self.child.try_wait().is_ok_and(|status| status.is_none()) && self.kill("TERM") {
            // The test may have stopped it.
            self.kill("CONT");
            self.end();
        }
    }
}

/// The number behind the name of a loss.
pub(crate) fn counted_as(stderr: &str, reason: &str) -> u64 {
    let (_, rest) = stderr.split_once(&format!("{reason} ")).unwrap_or_else(|| panic!("no {reason}: {stderr}"));
    rest.split(|c: char| !c.is_ascii_digit()).next().unwrap().parse().unwrap()
}

/// The number before `word` in the line of counters.
pub(crate) fn counted(stderr: &[u8], word: &str) -> u64 {
    let text = String::from_utf8_lossy(stderr);
    let (before, _) = text.split_once(word).unwrap_or_else(|| panic!("no `{word}` in {text}"));
    let number = before.trim_end().rsplit(|c: char| !c.is_ascii_digit()).next().unwrap_or_default();
    number.parse().unwrap_or_else(|_| panic!("no number before `{word}` in {text}"))
}
