//! The harness of the VM matrix: boots the guests of `vmtest.toml`, follows the tests that run inside, and ends with a table.
//!
//! `ci/vm` builds and fetches what it needs, and then calls it with the names of kernels, with `--all`, or with nothing: then all
//! tests run on the oldest and the newest kernel, the core of them on the others, and none on real-time kernels. `--arm64 KERNEL...` boots none,
//! but looks at what the guests of ci/arm64 have said. After `--` stand
//! parts of the names of the only tests to run. FAULTLINE_GUESTS guests run at once, one by default. What each guest said is kept in
//! target/vm/.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt::Write as _;
use std::fs::File;
use std::io::Write as _;
use std::path::Path;
use std::process::ExitCode;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::mpsc::channel;
use std::time::{Duration, Instant};

use vmtest::output::Output;
use vmtest::{Config, Target, Ui, Vmtest};

#[path = "matrix/document.rs"]
mod document;
#[path = "matrix/failures.rs"]
mod failures;

/// sysexits.h: the guest did not come up, so that nothing is known about the tests.
const EX_UNAVAILABLE: u8 = 69;

/// How many lines of a failed guest are shown.
const TAIL: usize = 400;

/// What is run where.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Extent {
    /// All tests on all kernels.
    Everything,
    /// All tests on the oldest and the newest kernel, the core of them on the others, none on real-time kernels.
    Core,
    /// All tests on the kernels that were named.
    Named,
}

fn main() -> ExitCode {
    let mut wanted: Vec<String> = std::env::args().skip(1).filter(|word| word != "--quiet").collect();
    let mut takes = |flag: &str| wanted.first().is_some_and(|word| word == flag).then(|| wanted.remove(0)).is_some();
    let (shell, all) = (takes("--shell"), takes("--all"));
    let only = wanted.iter().position(|word| word == "--").map(|end| wanted.split_off(end)[1..].join(" "));
    let extent = match (all, wanted.is_empty()) {
        (true, _) => Extent::Everything,
        (false, true) => Extent::Core,
        (false, false) => Extent::Named,
    };
    if wanted.first().is_some_and(|word| word == "--arm64") {
        return arm64(&wanted[1..]);
    }
    match targets(&wanted, extent) {
        Ok(targets) if shell => prompt(targets),
        Ok(targets) if only.is_some() => {
            let part = format!("only {}", only.unwrap_or_default());
            matrix(&targets.iter().map(|target| part_of(target, &part)).collect::<Vec<_>>(), extent)
        }
        Ok(targets) => matrix(&targets, extent),
        Err(error) => {
            eprintln!("faultline: {error}");
            ExitCode::from(2)
        }
    }
}

/// The targets of vmtest.toml that were asked for, in its order.
fn targets(wanted: &[String], extent: Extent) -> Result<Vec<Target>, String> {
    let text =
        std::fs::read_to_string("vmtest.toml").map_err(|error| format!("failed to read `vmtest.toml`: {error}"))?;
    let all: Config = toml::from_str(&text).map_err(|error| format!("failed to read `vmtest.toml`: {error}"))?;
    let names: Vec<&str> = all.target.iter().map(|target| target.name.as_str()).collect();
    if let Some(unknown) = wanted.iter().find(|name| !names.contains(&name.as_str())) {
        return Err(format!("no kernel `{unknown}` in vmtest.toml: one of {}", names.join(", ")));
    }
    let is_wanted = |target: &Target| match extent {
        Extent::Everything => true,
        Extent::Core => !target.name.ends_with("-rt"),
        Extent::Named => wanted.contains(&target.name),
    };
    Ok(all.target.into_iter().filter(is_wanted).collect())
}

/// What the guests of ci/arm64 have said, which have run all tests.
fn arm64(kernels: &[String]) -> ExitCode {
    let outcome = |kernel: &String| {
        let mut outcome = Outcome::default();
        let text = std::fs::read_to_string(format!("target/arm64/{kernel}/log")).unwrap_or_default();
        text.lines().for_each(|line| note(line, &mut outcome));
        (kernel.clone(), outcome)
    };
    let outcomes: Vec<(String, Outcome)> = kernels.iter().map(outcome).collect();
    print!("{}", table(&outcomes));
    ExitCode::from(u8::from(!document::compare_arm64(&outcomes)))
}

fn prompt(targets: Vec<Target>) -> ExitCode {
    let target = targets.into_iter().map(|target| Target { command: "-".to_owned(), ..target }).collect();
    match Vmtest::new(".", Config { target }) {
        Ok(vmtest) => ExitCode::from(u8::try_from(Ui::new(vmtest).run(false)).unwrap_or(u8::MAX)),
        Err(error) => {
            eprintln!("faultline: {error:#}");
            ExitCode::from(2)
        }
    }
}

/// The results of one guest.
#[derive(Default)]
struct Outcome {
    /// By name: did it pass?
    tests: BTreeMap<String, bool>,
    /// Why the guest did not come up, or its command did not end.
    unavailable: Option<String>,
    /// The command's own status.
    status: i64,
    /// The kernel's release, as ci/guest prints it.
    release: Option<String>,
    /// What `faultline doctor` says there: the answer to each question.
    doctor: BTreeMap<String, String>,
    /// Does `faultline crash` work there, and on the same kernel under lockdown?
    crash: Option<String>,
    crash_locked_down: Option<String>,
    /// The guest died of `Oops: int3` in its own code.
    lost_breakpoint: bool,
    /// The signatures of one bug that is the same in every guest.
    signatures: BTreeSet<String>,
    /// If it is red: the failed tests and what each said.
    digest: String,
    took: Duration,
}

impl Outcome {
    /// Adds results of the same guest: those of all its tests, or of a part of them.
    fn join(&mut self, other: Self) {
        for (test, passed) in other.tests {
            *self.tests.entry(test).or_insert(true) &= passed;
        }
        self.unavailable = self.unavailable.take().or(other.unavailable);
        self.status = if self.status == 0 { other.status } else { self.status };
        self.release = self.release.take().or(other.release);
        if self.doctor.is_empty() {
            self.doctor = other.doctor;
        }
        self.crash = self.crash.take().or(other.crash);
        self.crash_locked_down = self.crash_locked_down.take().or(other.crash_locked_down);
        self.signatures.extend(other.signatures);
        self.digest += &other.digest;
        self.took = self.took.max(other.took);
    }

    fn failed(&self) -> bool {
        self.status != 0 || self.tests.is_empty() || self.tests.values().any(|passed| !passed)
    }
}

fn matrix(targets: &[Target], extent: Extent) -> ExitCode {
    let outcomes = run_all(targets, extent);
    print!("{}", table(&outcomes));
    // Last, as CI keeps the tail alone.
    for (_, outcome) in &outcomes {
        print!("{}", outcome.digest);
    }
    let count = |wanted: bool| -> usize {
        outcomes.iter().map(|(_, outcome)| outcome.tests.values().filter(|passed| **passed == wanted).count()).sum()
    };
    println!("{} passed, {} failed", count(true), count(false));
    if outcomes.iter().any(|(_, outcome)| outcome.unavailable.is_some()) {
        return ExitCode::from(EX_UNAVAILABLE);
    }
    let failed = outcomes.len() < targets.len() || outcomes.iter().any(|(_, outcome)| outcome.failed());
    let signatures: BTreeSet<&String> = outcomes.iter().flat_map(|(_, outcome)| &outcome.signatures).collect();
    let has_one = |(_, outcome): &(String, Outcome)| !outcome.signatures.is_empty() || extent == Extent::Named;
    let is_one = signatures.len() < 2 && outcomes.iter().all(has_one);
    if !is_one {
        eprintln!("faultline: one bug has not one signature on all kernels: {signatures:?}");
    }
    let failed = failed || !is_one;
    let right = failed || extent == Extent::Named || document::compare(&outcomes, extent);
    ExitCode::from(u8::from(failed || !right))
}

/// What each guest is to do, the longest first: all tests, or a part of them (ci/guest KERNEL PART). If the last one would run alone, its
/// tests are divided among two guests, so that no processor is idle.
fn jobs(targets: &[Target], extent: Extent, at_once: usize) -> Vec<(usize, Target)> {
    let mut jobs: Vec<(usize, Target)> = targets.iter().cloned().enumerate().collect();
    let last = jobs.len().saturating_sub(1);
    if extent == Extent::Core && jobs.len() > 2 {
        for (_, target) in &mut jobs[1..last] {
            *target = part_of(target, "core");
        }
        jobs[1..].rotate_right(1);
    } else if at_once > 1 && targets.len() % at_once == 1 && !targets[last].command.contains(" only ") {
        let (index, target) = jobs.remove(last);
        jobs.extend(["first", "second"].map(|part| (index, part_of(&target, part))));
    }
    jobs
}

/// Runs the guests side by side; what came out of each, in the order of `targets`.
fn run_all(targets: &[Target], extent: Extent) -> Vec<(String, Outcome)> {
    let next = AtomicUsize::new(0);
    let at_once = std::env::var("FAULTLINE_GUESTS").ok().and_then(|guests| guests.parse().ok()).unwrap_or(1).max(1);
    let jobs = jobs(targets, extent, at_once);
    let outcomes: Vec<(usize, Outcome)> = std::thread::scope(|scope| {
        let work = || {
            let mut mine = Vec::new();
            while let Some((index, target)) = jobs.get(next.fetch_add(1, Ordering::Relaxed)) {
                mine.push((*index, outcome(target)));
            }
            mine
        };
        let workers: Vec<_> = (0..at_once).map(|_| scope.spawn(work)).collect();
        workers
            .into_iter()
            .flat_map(|worker| worker.join().unwrap_or_else(|panic| std::panic::resume_unwind(panic)))
            .collect()
    });
    let mut by_target: BTreeMap<usize, Outcome> = BTreeMap::new();
    for (index, outcome) in outcomes {
        by_target.entry(index).or_default().join(outcome);
    }
    by_target.into_iter().map(|(index, outcome)| (targets[index].name.clone(), outcome)).collect()
}

/// The same guest for a part of its tests.
fn part_of(target: &Target, part: &str) -> Target {
    Target { command: format!("{} {part}", target.command), ..target.clone() }
}

/// Runs one guest and prints a line about it.
fn outcome(target: &Target) -> Outcome {
    let name = &target.name;
    if !target.kernel.as_deref().is_some_and(Path::exists) {
        let why = "its kernel is not there: ci/kernels says why";
        eprintln!("{name}: not available: {why}");
        return Outcome { unavailable: Some(why.to_owned()), ..Outcome::default() };
    }
    let mut outcome = run(target);
    if outcome.lost_breakpoint {
        // Kernels since 6.16 patch their code in a way that QEMU without KVM gets wrong at times: a processor meets the
        // breakpoint that replaced the code after the code is back, and the guest dies of it. That is no result of any
        // test, so that the guest is started once more.
        eprintln!("{name}: QEMU met a breakpoint that the kernel had taken back (Oops: int3): booting it once more");
        outcome = run(target);
    }
    match &outcome.unavailable {
        Some(why) => eprintln!("{name}: not available: {why}"),
        None => {
            let passed = outcome.tests.values().filter(|passed| **passed).count();
            let release = outcome.release.as_deref().unwrap_or("unknown kernel");
            eprintln!("{name}: {release}: {passed} of {} tests passed", outcome.tests.len());
        }
    }
    outcome
}

/// Boots one guest and follows its tests.
fn run(target: &Target) -> Outcome {
    let started = Instant::now();
    let name = target.name.clone();
    let mut outcome = Outcome::default();
    let mut lines: Vec<String> = Vec::new();
    // The guest has our root, so that our folder has the same name there.
    let folder = std::env::current_dir().unwrap_or_default();
    let full = if std::env::var_os("FAULTLINE_FULL").is_some() { "FAULTLINE_FULL=1 " } else { "" };
    let command = format!("cd '{}' && {full}{}", folder.display(), target.command);
    let vmtest = match Vmtest::new(".", Config { target: vec![Target { command, ..target.clone() }] }) {
        Ok(vmtest) => vmtest,
        Err(error) => return Outcome { unavailable: Some(format!("{error:#}")), ..outcome },
    };
    let (updates, arriving) = channel();
    let guest = std::thread::spawn(move || vmtest.run_one(0, updates));
    let say = |what: &str| eprintln!("{name}: {what} ({} s)", started.elapsed().as_secs());
    let mut log = log(&target.command);
    let mut keep = |line: &str| {
        // That a line can't be kept fails no test.
        let _ = log.as_mut().map(|log| writeln!(log, "{:4} {}", started.elapsed().as_secs(), line.trim_end()));
    };
    for update in arriving {
        match update {
            Output::BootStart => say("booting"),
            Output::Boot(line) | Output::Setup(line) => {
                keep(&line);
                lines.push(line);
            }
            Output::BootEnd(Err(error)) | Output::SetupEnd(Err(error)) | Output::CommandEnd(Err(error)) => {
                outcome.unavailable = Some(format!("{error:#}"));
            }
            Output::CommandStart => {
                say("running the tests");
                lines.clear();
            }
            Output::Command(line) => {
                note(&line, &mut outcome);
                keep(&line);
                lines.push(line);
            }
            Output::CommandEnd(Ok(status)) => outcome.status = status,
            Output::SetupStart | Output::BootEnd(Ok(())) | Output::SetupEnd(Ok(())) => {}
        }
    }
    if guest.join().is_err() {
        outcome.unavailable = Some("the harness panicked".to_owned());
    }
    outcome.took = started.elapsed();
    outcome.lost_breakpoint = outcome.unavailable.is_some() && lines.iter().any(|line| line.contains("Oops: int3"));
    if outcome.failed() || outcome.unavailable.is_some() {
        outcome.digest = failures::digest(&name, &lines);
        for line in lines.iter().skip(lines.len().saturating_sub(TAIL)) {
            eprintln!("{name}| {}", line.trim_end());
        }
    }
    outcome
}

/// The file that keeps what a guest says, each line with the seconds since its start. Named after its part of the matrix.
fn log(command: &str) -> Option<File> {
    let name: Vec<&str> = command.split_whitespace().skip(1).take_while(|word| *word != "only").collect();
    File::create(format!("target/vm/{}.log", name.join("-"))).ok()
}

/// Takes the result of a test from a line of libtest.
fn note(line: &str, outcome: &mut Outcome) {
    let line = line.trim_end();
    if let Some((_, release)) = line.split_once("kernel release: ") {
        outcome.release = Some(release.to_owned());
    }
    if let Some((_, record)) = line.split_once("crash record: ") {
        let record: serde_json::Value = serde_json::from_str(record).unwrap_or_default();
        outcome.signatures.extend(record["signature"].as_str().map(str::to_owned));
    }
    if let Some((_, report)) = line.split_once("doctor report: ") {
        (outcome.crash, outcome.doctor) = answers(report);
    }
    if let Some((_, report)) = line.split_once("doctor report under lockdown: ") {
        (outcome.crash_locked_down, _) = answers(report);
    }
    // Another thread's output may precede it on the same line.
    let Some((_, test)) = line.split_once("test ").filter(|(_, test)| test.contains("::")) else { return };
    if let Some((name, verdict)) = test.split_once(" ... ") {
        match verdict {
            "ok" => outcome.tests.insert(name.to_owned(), true),
            "FAILED" => outcome.tests.insert(name.to_owned(), false),
            _ => None,
        };
    }
}

/// What a doctor's report says about `faultline crash`, and its checks by name; empty if it is no report.
fn answers(report: &str) -> (Option<String>, BTreeMap<String, String>) {
    let report: serde_json::Value = serde_json::from_str(report).unwrap_or_default();
    let checks = report["checks"].as_array().cloned().unwrap_or_default();
    let checks = checks
        .iter()
        .filter_map(|check| Some((check["name"].as_str()?.to_owned(), check["status"].as_str()?.to_owned())))
        .collect();
    (report["crash"].as_str().map(str::to_owned), checks)
}

/// A table of kernels and tests, with the time of each guest.
fn table(outcomes: &[(String, Outcome)]) -> String {
    let tests: BTreeSet<&String> = outcomes.iter().flat_map(|(_, outcome)| outcome.tests.keys()).collect();
    let width = tests.iter().map(|test| test.len()).max().unwrap_or(4);
    let mut text = String::new();
    let mut row = |first: &str, cells: Vec<String>| {
        // Writing to a String can't fail.
        let _ = writeln!(text, "{first:width$}{}", cells.iter().map(|cell| format!("  {cell:>6}")).collect::<String>());
    };
    row("", outcomes.iter().map(|(name, _)| name.clone()).collect());
    for test in tests {
        let cells = outcomes.iter().map(|(_, outcome)| match outcome.tests.get(test) {
            Some(true) => "ok".to_owned(),
            Some(false) => "FAILED".to_owned(),
            None => "-".to_owned(),
        });
        row(test, cells.collect());
    }
    row("seconds", outcomes.iter().map(|(_, outcome)| outcome.took.as_secs().to_string()).collect());
    text
}
