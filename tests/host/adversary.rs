//! Crashes that nobody can foresee: by random recursion, and of random names, executables, users, signals and codes. After them, a
//! program that dies for the first time has a group, a record, a series and its alert. `ci/soak --groups` runs this with a million crashes.

use std::fs;
use std::io::{BufRead, BufReader, Read};
use std::os::unix::process::CommandExt as _;
use std::panic::AssertUnwindSafe;
use std::path::Path;
use std::process::{Child, Command};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use macro_rules_attribute::apply;
use serde_json::Value;

use crate::agent::{Agent, crashes};
use crate::harness::runs::{note, watch_test};
use crate::harness::{Scratch, copy_program, whole};
use crate::storm::add_up;
use crate::table::{first_crash, has_group_and_record, has_line_and_record, has_total};

/// The deaths of one executable.
const OF_ONE: u64 = 500;

/// So much more memory than at rest, in bytes, however many crashes there are: a full table takes some 22 MiB, and its summary half as much for a
/// moment. How many groups that has depends on how long the machine let it wait.
const GROWTH_MAX: u64 = 33 << 20;

/// So much more memory, in bytes, in the last quarter than in the second one: allocators keep some.
const DRIFT_MAX: u64 = 2 << 20;

/// From so many crashes on, the table has been full many times after a quarter of them. What fewer need depends on how many groups the machine
/// happened to have in one summary, and says nothing about a leak.
const DRIFT_FROM: u64 = 200_000;

/// The memory is measured so often.
const MEASURED: u64 = 20;

/// How many crashes: `FAULTLINE_CRASHES`.
fn wanted() -> u64 {
    let number: u64 = std::env::var("FAULTLINE_CRASHES").map_or(20_000, |number| number.parse().unwrap());
    number.next_multiple_of(MEASURED * OF_ONE)
}

/// What an agent writes, read while it runs: each summary adds up.
#[derive(Default)]
struct Heard {
    matched: u64,
    summaries: u64,
    /// The records of the programs that died for the first time, and what summaries have of them.
    kept: Vec<Value>,
    /// Why samples were not sent, as the last summary says.
    lost: Value,
}

/// Reads to the end. `name` begins the names of those of which records and groups are kept. `told` gets the signals that summaries have so far.
fn hear(from: impl Read, name: &str, told: &AtomicU64) -> Heard {
    let (mut heard, mut earlier) = (Heard::default(), Vec::new());
    for line in BufReader::new(from).lines() {
        let line = line.unwrap();
        let Some(mut record) = whole(&line, &mut earlier) else { continue };
        let is_kept = |record: &Value| record["comm"].as_str().is_some_and(|comm| comm.starts_with(name));
        if record["type"] == "summary" {
            note(line.as_bytes());
            add_up(&record);
            heard.matched += record["deliveries"]["matched"].as_u64().unwrap();
            heard.summaries += 1;
            told.store(heard.matched, Ordering::Relaxed);
            heard.lost = record["sample_losses"].clone();
            record["groups"].as_array_mut().unwrap().retain(is_kept);
        }
        if record["type"] == "summary" || is_kept(&record) {
            heard.kept.push(record);
        }
    }
    heard
}

/// The memory of the process that counts, in bytes. Its children have limits of their own.
fn memory_of(pid: u32) -> u64 {
    let status = fs::read_to_string(format!("/proc/{pid}/status")).unwrap();
    let own = status.lines().find_map(|line| line.strip_prefix("VmRSS:")?.trim().strip_suffix(" kB")?.parse().ok());
    own.unwrap_or(0_u64) * 1024
}

/// This many crashes, of so many executables, beginning with the one of this number.
fn storm(scratch: &Scratch, next: &AtomicU64, until: u64) {
    loop {
        let number = next.fetch_add(1, Ordering::Relaxed);
        if number >= until {
            next.fetch_sub(1, Ordering::Relaxed);
            return;
        }
        let program = scratch.path(&format!("adv-{number}"));
        copy_program("any-deaths", &program);
        let arguments = [number.to_string(), OF_ONE.to_string(), "adv-".into(), "60000".into(), "1000".into()];
        assert!(Command::new(&program).args(arguments).status().unwrap().success());
        fs::remove_file(&program).unwrap();
    }
}

/// All samples of a metric, each without its value, and their sum.
fn samples<'a>(text: &'a str, metric: &str) -> (Vec<(&'a str, f64)>, f64) {
    let of = |line: &'a str| {
        let (series, value) = line.strip_prefix(metric).map(|_| line)?.rsplit_once(' ')?;
        Some((series, value.parse().unwrap()))
    };
    let all: Vec<(&str, f64)> = text.lines().filter_map(of).collect();
    let sum = all.iter().map(|(_, value)| value).sum();
    (all, sum)
}

/// Do the rules that are shipped fire for a program whose series was not there before, and for nothing else? `before` and `after` are what
/// was scraped before and after its crash.
fn alerts(scratch: &Scratch, before: &str, after: &str, name: &str) {
    let series = |text: &str, values: &dyn Fn(f64) -> String| -> String {
        let add = |(series, value): &(&str, f64)| {
            let series = series.replacen('{', "{job=\"faultline\",instance=\"a\",", 1);
            format!("      - series: '{series}'\n        values: '{}'\n", values(*value))
        };
        samples(text, "faultline_crashes_total{").0.iter().map(add).collect()
    };
    let new: String = after.lines().filter(|line| line.contains(&format!("executable=\"{name}\""))).collect();
    assert!(!new.is_empty(), "no series of {name}: {after}");
    let rules = Path::new(env!("CARGO_MANIFEST_DIR")).join("dist/prometheus/faultline.rules.yml");
    let test = format!(
        "rule_files: ['{}']\ntests:\n  - interval: 1m\n    input_series:\n\
         \x20     - series: 'faultline_start_time_seconds{{job=\"faultline\",instance=\"a\"}}'\n        values: '0x120'\n\
         \x20     - series: 'faultline_build_info{{job=\"faultline\",instance=\"a\",version=\"1\"}}'\n        values: '1x120'\n\
         {}{}    alert_rule_test:\n      - eval_time: 75m\n        alertname: FaultlineNewCrasher\n        exp_alerts: []\n\
         \x20     - eval_time: 90m\n        alertname: FaultlineNewCrasher\n        exp_alerts:\n          - exp_labels:\n\
         \x20             severity: info\n              job: faultline\n              executable: {name}\n              uid: \"0\"\n\
         \x20           exp_annotations:\n              summary: \"{name} crashes, and did not in the day before\"\n\
         \x20             description: \"1 crashes of {name} in all of faultline, the first within the last hour and none in the day before it.\"\n",
        rules.display(),
        series(before, &|value| format!("{value}x120")),
        series(&new, &|value| format!("_x79 {value}x40")),
    );
    let file = scratch.path("alerts.yml");
    fs::write(&file, test).unwrap();
    let tested = Command::new("promtool").args(["test", "rules"]).arg(&file).output().unwrap();
    assert!(tested.status.success(), "{}", String::from_utf8_lossy(&tested.stderr));
}

#[apply(watch_test!)]
fn whatever_crashed_before_a_first_crash_has_group_record_series_and_alert() {
    let (scratch, wanted) = (Scratch::new(), wanted());
    let mut agent = Agent::start(&["-n", "adv-", "--interval", "1"]);
    let pid = agent.child.id();
    let from = agent.child.stdout.take().unwrap();
    let told = Arc::new(AtomicU64::new(0));
    let listener = std::thread::spawn({
        let told = Arc::clone(&told);
        move || hear(from, "adv-first", &told)
    });
    let (next, rest) = (AtomicU64::new(0), memory_of(pid));
    let (mut memory, mut delivered) = (Vec::new(), 0.0);
    for part in 1..=MEASURED {
        std::thread::scope(|scope| {
            let until = wanted / OF_ONE * part / MEASURED;
            let (scratch, next) = (&scratch, &next);
            for _ in 0..2 {
                scope.spawn(move || storm(scratch, next, until));
            }
        });
        let text = agent.get("/metrics", "*/*");
        let (series, sum) = samples(&text, "faultline_signals_delivered_total{");
        assert!(sum >= delivered && series.len() <= 676, "{sum} after {delivered}: {text}");
        assert!(samples(&text, "faultline_crashes_total{").0.len() <= 4096);
        delivered = sum;
        memory.push(memory_of(pid));
        eprintln!("{} crashes: {} KiB", wanted * part / MEASURED, memory.last().unwrap() / 1024);
    }
    // All of these crashes are of the test's own cgroup, which has its share of the table: nothing new of it has a group until some leave.
    let deadline = Instant::now() + Duration::from_secs(60);
    let before = loop {
        // The metrics of a look are there before its summary is: those of one that has not seen all crashes say nothing.
        let has_all = told.load(Ordering::Relaxed) == wanted;
        let text = agent.get("/metrics", "*/*");
        if has_all && samples(&text, "faultline_crash_groups ").1 <= 1536.0 {
            break text;
        }
        assert!(Instant::now() < deadline, "no groups leave: {text}");
        std::thread::sleep(Duration::from_millis(50));
    };
    // The storm's last second may have no samples left for one more new program of the same user.
    std::thread::sleep(Duration::from_secs(1));
    first_crash(&agent, &scratch, "adv-first");
    let after = agent.get("/metrics", "*/*");
    alerts(&scratch, &before, &after, "adv-first");
    let sum = samples(&after, "faultline_signals_delivered_total{").1;
    assert!(sum <= (wanted + 1) as f64);
    agent.stop();
    let heard = listener.join().unwrap();
    assert_eq!(heard.matched, wanted + 1, "each crash once");
    eprintln!("{} summaries, each of which adds up; samples lost: {}", heard.summaries, heard.lost);
    has_group_and_record(&heard.kept, "adv-first");
    has_total(&heard.kept, "adv-first");
    assert!(memory.iter().all(|&bytes| bytes <= rest + GROWTH_MAX), "at rest {rest}: {memory:?}");
    let (middle, end) = (&memory[memory.len() / 4..memory.len() / 2], &memory[memory.len() * 3 / 4..]);
    if wanted >= DRIFT_FROM {
        assert!(
            end.iter().min() <= middle.iter().max().map(|&bytes| bytes + DRIFT_MAX).as_ref(),
            "it grows: {memory:?}"
        );
    }
}

/// Programs that an adversary makes, each of which dies once: some thousands a second, of the same user and in the same cgroup as programs
/// that die for the first time meanwhile. These belong to root, so that nobody else can have made them.
#[apply(watch_test!)]
fn whatever_a_user_makes_meanwhile_a_first_crash_has_group_record_and_series() {
    const USER: u32 = 60_077;
    const STORM: f64 = 2000.0;
    let scratch = Scratch::new();
    let mut agent = Agent::start(&["-n", "mdu-", "--interval", "1"]);
    let from = agent.child.stdout.take().unwrap();
    let listener = std::thread::spawn(move || hear(from, "mdu-first", &AtomicU64::new(0)));
    let adversary = scratch.path("adversary");
    copy_program("made-up", &adversary);
    let start = |_| Command::new(&adversary).arg("mdu-").uid(USER).spawn().unwrap();
    let mut adversaries: Vec<Child> = (0..2).map(start).collect();
    let names: Vec<String> = (0..15).map(|number| format!("mdu-first{number:02}")).collect();
    let tried = std::panic::catch_unwind(AssertUnwindSafe(|| {
        // All samples of the second are gone, and all labels are taken.
        let deadline = Instant::now() + Duration::from_secs(60);
        let is_storm = |text: &str| samples(text, "faultline_signals_delivered_total{").1 > STORM;
        while !is_storm(&agent.get("/metrics", "*/*")) {
            assert!(Instant::now() < deadline, "no storm");
            std::thread::sleep(Duration::from_millis(50));
        }
        for name in &names {
            let program = scratch.path(name);
            copy_program("null-write", &program);
            assert!(!Command::new(&program).uid(USER).output().unwrap().status.success());
            agent.wait_for(&crashes(name).replace("uid=\"0\"", &format!("uid=\"{USER}\"")), 1.0);
        }
    }));
    adversaries.iter_mut().for_each(|adversary| {
        adversary.kill().unwrap();
        adversary.wait().unwrap();
    });
    agent.stop();
    let heard = listener.join().unwrap();
    eprintln!("{} deaths in {} summaries; samples lost: {}", heard.matched, heard.summaries, heard.lost);
    tried.unwrap();
    for name in &names {
        has_line_and_record(&heard.kept, name);
    }
}
