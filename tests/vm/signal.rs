//! `faultline signal`: every way to send a signal, fork, exec and exit, a lack of memory, and counts that add up.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use macro_rules_attribute::apply;
use serde_json::Value;

use crate::harness::runs::watch_test;
use crate::harness::{FAULTLINE, Scratch, Watching, copy_executable, counted, is_guest, named, programs, records};
use crate::sent::{signal, text, watching};
use crate::small_cgroup::SmallCgroup;

/// Runs a program under `faultline signal FLAGS`: returns the records, and what the program printed.
fn watch(program: &str, flags: &[&str]) -> (Vec<Value>, Vec<Value>) {
    let scratch = Scratch::new();
    let path = scratch.path("records");
    let program = programs().join(program);
    let arguments = ["-v", "--format", "json", "-o", path.to_str().unwrap()];
    let output = signal(&[flags, &arguments, &["--", program.to_str().unwrap()]].concat());
    assert!(output.status.success(), "{}", text(&output));
    let seen = records(fs::read(&path).unwrap());
    (seen, records(&output.stdout))
}

/// Is `record` what the program printed? The fields in `blind`, which the hook does not show, may be null.
fn is_it(record: &Value, told: &Value, blind: &[&str]) -> bool {
    let same = |field: &str, seen: &Value| {
        blind.contains(&field) && seen.is_null() || *seen == told[field] || told[field] == "any"
    };
    let sender = if record["sender"].is_null() { &Value::from(0) } else { &record["sender"]["pid"] };
    record["type"] == "signal"
        && record["signal"] == told["signal"]
        && *sender == told["sender"]
        && record["scope"] == told["scope"]
        && same("target", &record["target"]["pid"])
        && same("tid", &record["target"]["tid"])
        && same("code", &record["code"])
        && same("result", &record["result"])
}

/// Each line that the program printed has exactly one record.
fn compare(seen: &[Value], told: &[Value], blind: &[&str]) {
    assert!(!told.is_empty());
    for told in told {
        let those = seen.iter().filter(|record| is_it(record, told, blind)).count();
        let near: Vec<&Value> = seen.iter().filter(|record| record["signal"] == told["signal"]).collect();
        assert_eq!(those, 1, "{told}: {near:#?}");
    }
}

#[apply(watch_test!)]
fn every_way_to_send_is_seen() {
    let (seen, told) = watch("senders", &["-a"]);
    assert_eq!(told.len(), 28, "the program's own count");
    compare(&seen, &told, &[]);
    let first = &seen.iter().find(|record| record["signal"] == "SIGUSR1").unwrap();
    for field in ["type", "schema", "timestamp", "host", "signal_number", "code_number", "oom", "cpu"] {
        assert!(first.get(field).is_some(), "no field {field}: {first:#}");
    }
    assert_eq!((&first["sender"]["comm"], &first["target"]["comm"]), (&"senders".into(), &"senders".into()));
    assert_eq!(
        (&first["sender"]["uid"], &first["signal_number"], &first["code_number"]),
        (&0.into(), &10.into(), &0.into())
    );
    assert_eq!(first["sender"]["pid_in_namespace"], first["sender"]["pid"]);
    let times: Vec<&str> = seen.iter().filter_map(|record| record["timestamp"].as_str()).collect();
    assert!(times.is_sorted(), "in the order in which they were sent: {times:?}");
}

#[apply(watch_test!)]
fn a_kprobe_sees_all_but_results_and_timers() {
    if !is_guest() && !fs::exists("/sys/bus/event_source/devices/kprobe").unwrap() {
        let output = signal(&["--attach", "kprobe", "-d", "0.1"]);
        assert_eq!(output.status.code(), Some(2));
        assert!(text(&output).contains("this kernel has none (CONFIG_KPROBES)"), "{}", text(&output));
        return;
    }
    let (seen, mut told) = watch("senders", &["-a", "--attach", "kprobe"]);
    told.retain(|told| told["way"] != "timer_create");
    // They differ by their results only.
    told.retain(|told| told["way"] != "kill" && told["way"] != "kill again");
    compare(&seen, &told, &["result"]);
    assert_eq!(seen.iter().filter(|record| record["signal"] == "SIGUSR1").count(), 2);
}

#[apply(watch_test!)]
fn system_calls_show_what_they_were_given() {
    let (seen, mut told) = watch("senders", &["-a", "--attach", "syscall"]);
    let ways =
        ["kill, ignored", "tkill", "tgkill", "sigqueue", "rt_sigqueueinfo, forged", "rt_tgsigqueueinfo", "kill -9"];
    told.retain(|told| ways.iter().any(|way| told["way"] == *way));
    assert_eq!(told.len(), ways.len());
    compare(&seen, &told, &["result", "code", "tid"]);
    assert!(seen.iter().all(|record| record["result"].is_null() && record["signal"] != "SIGCHLD"), "{seen:#?}");
}

#[apply(watch_test!)]
fn tasks_begin_and_end() {
    let (seen, told) = watch("tasks", &["--processes"]);
    assert!(told.len() >= 6, "{told:?}");
    for told in &told {
        let is_it = |record: &&Value| {
            record["type"] == "exit"
                && record["pid"] == told["pid"]
                && record["tgid"] == told["tgid"]
                && record["is_thread"] == told["is_thread"]
        };
        let those: Vec<&Value> = seen.iter().filter(is_it).collect();
        assert_eq!(those.len(), 1, "{told}: {seen:#?}");
        let signal = if told["signal"] == "" { Value::Null } else { told["signal"].clone() };
        let code = if told["exit_code"] == -1 { Value::Null } else { told["exit_code"].clone() };
        assert_eq!((&those[0]["signal"], &those[0]["exit_code"]), (&signal, &code), "{told}");
        assert_eq!(those[0]["core_dumped"], false);
        let fork = seen.iter().find(|record| record["type"] == "fork" && record["pid"] == told["pid"]).unwrap();
        assert_eq!(fork["is_thread"], fork["pid"] != fork["tgid"]);
        assert_eq!(fork["comm"], "tasks");
    }
    let exe = programs().join("tasks");
    let execs: Vec<&Value> = seen.iter().filter(|record| record["type"] == "exec").collect();
    assert_eq!(execs.len(), 2, "the command itself, and its child: {execs:#?}");
    assert!(
        execs.iter().all(|record| record["exe"] == exe.to_str().unwrap() && record["cgroup"].is_string()),
        "{execs:#?}"
    );
    let last = seen.last().unwrap();
    assert_eq!((&last["type"], &last["pid"], &last["exit_code"]), (&"exit".into(), &execs[0]["pid"], &0.into()));
}

/// The number of signals: a guest without KVM is slow, FAULTLINE_FULL asks for all.
fn many() -> u64 {
    let is_slow = is_guest() && std::env::var_os("FAULTLINE_FULL").is_none();
    if is_slow { 5_000 } else { 100_000 }
}

/// How often the first one has sent the second one a SIGUSR1.
fn pair(summary: &Value, sender: &str, target: &str) -> u64 {
    let row =
        summary["pairs"].as_array().unwrap().iter().find(|row| row["sender"] == sender && row["target"] == target);
    let row = row.unwrap_or_else(|| panic!("{summary:#}"));
    assert_eq!((&row["signal"], &row["result"]), (&"SIGUSR1".into(), &"delivered".into()), "{row:#}");
    assert_eq!(row["count"], row["total"], "{row:#}");
    row["count"].as_u64().unwrap()
}

/// Of all processes, which takes another way through the kernel program than those of a command: each signal is counted once.
fn kills_of_all_processes_are_counted(program: &Path, many: u64) {
    const OWN: u64 = 100;
    let watching = watching(&["-s", "USR1", "--summary", "60", "--format", "json"]);
    assert!(Command::new(program).arg(many.to_string()).status().unwrap().success());
    let own = format!("trap : USR1; for i in $(seq {OWN}); do kill -USR1 $$; done");
    let shell = program.with_file_name("self-8e");
    copy_executable(Path::new("/bin/sh"), &shell);
    assert!(Command::new(shell).args(["-c", &own]).status().unwrap().success());
    let output = watching.stop("INT");
    let seen = records(&output.stdout);
    let summary = seen.last().unwrap();
    let both = (pair(summary, "kills-8e", "pong"), pair(summary, "pong", "kills-8e"));
    assert_eq!((both, pair(summary, "self-8e", "self-8e")), ((many / 2, many / 2), OWN));
    let counts = summary["pairs"].as_array().unwrap().iter().map(|row| row["count"].as_u64().unwrap());
    // The rows are read later, and others may send meanwhile.
    let (counted, matched) = (counts.sum::<u64>(), summary["deliveries"]["matched"].as_u64().unwrap());
    assert!(matched >= many + OWN && matched <= counted, "{summary:#}");
    assert_eq!(summary["losses"]["pair_table_full"], 0, "{summary:#}");
}

#[apply(watch_test!)]
fn kills_are_counted_exactly() {
    let scratch = Scratch::new();
    let (program, path) = (named(&scratch, "kills", "kills-8e"), scratch.path("records"));
    let many = many();
    let flags =
        ["-s", "USR1", "--summary", "60", "--processes", "--format", "json", "-o", path.to_str().unwrap(), "-v"];
    let output = signal(&[&flags[..], &["--", program.to_str().unwrap(), &many.to_string()]].concat());
    assert!(output.status.success(), "{}", text(&output));
    let records = records(fs::read(&path).unwrap());
    assert_eq!(records.len(), 1, "nothing but the summary: {records:#?}");
    let summary = &records[0];
    assert_eq!((&summary["type"], &summary["final"]), (&"signal_summary".into(), &true.into()));
    assert_eq!((&summary["deliveries"]["matched"], &summary["losses"]["pair_table_full"]), (&many.into(), &0.into()));
    let both = (pair(summary, "kills-8e", "pong"), pair(summary, "pong", "kills-8e"));
    assert_eq!(both, (many / 2, many / 2));
    let tasks = &summary["processes"];
    assert_eq!((&tasks["forks"], &tasks["execs"], &tasks["exits"]), (&2.into(), &1.into(), &2.into()), "{tasks}");
    assert_eq!(counted(&output.stderr, " signals matched"), many);
    kills_of_all_processes_are_counted(&program, many);
}

#[apply(watch_test!)]
fn a_lack_of_memory_is_told_in_one_line() {
    let cgroup = SmallCgroup::new("oom", "16M");
    let scratch = Scratch::new();
    let tail = scratch.path("eater-6d");
    copy_executable(Path::new("/usr/bin/tail"), &tail);
    let signals = watching(&["-s", "KILL", "--to", "eater-6d", "--format", "json"]);
    let flags = ["crash", "--signal", "KILL", "-n", "eater-6d", "--format", "json"];
    let (crashes, line) = Watching::try_start(Command::new(FAULTLINE).args(flags));
    assert!(line.starts_with("faultline: watching "), "{line}");
    let pid = cgroup.fill(tail.to_str().unwrap());
    let seen = records(&signals.stop("TERM").stdout);
    assert_eq!(seen.len(), 1, "{seen:#?}");
    let record = &seen[0];
    assert!(record["sender"].is_null(), "whoever needed the memory is no sender: {record:#}");
    assert_eq!(
        (&record["target"]["pid"], &record["code"], &record["result"]),
        (&pid.into(), &"SI_KERNEL".into(), &"delivered".into())
    );
    let anonymous = record["oom"]["rss_anon_bytes"].as_u64().unwrap_or_else(|| panic!("no oom: {record:#}"));
    assert!((8 << 20..=17 << 20).contains(&anonymous), "{anonymous}");
    assert!(record["oom"]["total_vm_bytes"].as_u64().unwrap() >= anonymous);
    assert!(record["oom"]["cgroup"].as_str().unwrap().starts_with('/'));
    // The crash record of the same death also has `oom`.
    let deaths = records(&crashes.stop("TERM").stdout);
    assert_eq!(deaths.len(), 1, "{deaths:#?}");
    assert!(deaths[0]["sender"].is_null());
    assert_eq!(deaths[0]["oom"]["rss_anon_bytes"], record["oom"]["rss_anon_bytes"], "{:#}", deaths[0]);
}

/// v5.14: the process that writes to cgroup.kill is the sender.
#[apply(watch_test!)]
fn who_kills_a_cgroup_is_the_sender() {
    let mounts = fs::read_to_string("/proc/self/mounts").unwrap();
    let root = mounts.lines().find(|line| line.split(' ').nth(2) == Some("cgroup2")).expect("cgroup2 must be mounted");
    let folder = PathBuf::from(root.split(' ').nth(1).unwrap()).join(format!("faultline-kill-{}", std::process::id()));
    fs::create_dir(&folder).unwrap();
    let file = folder.join("cgroup.kill");
    if !file.exists() {
        fs::remove_dir(&folder).unwrap();
        assert_eq!(std::env::var("FAULTLINE_KERNEL").as_deref(), Ok("5.10"), "all newer kernels have cgroup.kill");
        return;
    }
    let scratch = Scratch::new();
    let sleep = scratch.path("victim-9b");
    copy_executable(Path::new("/usr/bin/sleep"), &sleep);
    let watching = watching(&["-s", "KILL", "--to", "victim-9b", "--format", "json"]);
    let script = format!("echo $$ > {}/cgroup.procs; echo in; exec {} 60", folder.display(), sleep.display());
    let mut victim = Command::new("sh").args(["-c", &script]).stdout(Stdio::piped()).spawn().unwrap();
    std::io::Read::read_exact(victim.stdout.as_mut().unwrap(), &mut [0; 3]).unwrap();
    // Its name is the victim's only after the exec.
    let comm = format!("/proc/{}/comm", victim.id());
    while fs::read_to_string(&comm).unwrap() != "victim-9b\n" {
        std::thread::sleep(std::time::Duration::from_millis(5));
    }
    let mut writer = Command::new("sh").args(["-c", &format!("echo 1 > {}", file.display())]).spawn().unwrap();
    writer.wait().unwrap();
    victim.wait().unwrap();
    let seen = records(&watching.stop("TERM").stdout);
    fs::remove_dir(&folder).unwrap();
    assert_eq!(seen.len(), 1, "{seen:#?}");
    assert_eq!((&seen[0]["sender"]["pid"], &seen[0]["target"]["pid"]), (&writer.id().into(), &victim.id().into()));
    assert!(seen[0]["oom"].is_null());
}

/// The watched cgroup, and cgroups below it, one in the other. Removed when dropped.
struct DeepCgroup {
    watched: PathBuf,
    innermost: PathBuf,
}

impl DeepCgroup {
    fn new(levels: usize) -> Self {
        let mounts = fs::read_to_string("/proc/self/mounts").unwrap();
        let root = mounts.lines().find(|line| line.split(' ').nth(2) == Some("cgroup2"));
        let root = PathBuf::from(root.expect("cgroup2 must be mounted").split(' ').nth(1).unwrap());
        let watched = root.join(format!("faultline-deep-{}", std::process::id()));
        let innermost = (0..levels).fold(watched.clone(), |above, _| above.join("d"));
        fs::create_dir_all(&innermost).unwrap();
        Self { watched, innermost }
    }

    /// The number of a process that sends itself SIGUSR1 in this folder.
    fn send_in(folder: &Path) -> u32 {
        let script = format!("echo $$ > {}/cgroup.procs; trap : USR1; kill -USR1 $$", folder.display());
        let mut child = Command::new("sh").args(["-c", &script]).spawn().unwrap();
        assert!(child.wait().unwrap().success());
        child.id()
    }
}

impl Drop for DeepCgroup {
    fn drop(&mut self) {
        let folders = self.innermost.ancestors().take_while(|folder| folder.starts_with(&self.watched));
        for folder in folders {
            let _ = fs::remove_dir(folder);
        }
    }
}

#[apply(watch_test!)]
fn a_cgroup_is_watched_however_deep_the_task_is_below_it() {
    let cgroup = DeepCgroup::new(30);
    let watching = watching(&["-s", "USR1", "--cgroup", cgroup.watched.to_str().unwrap(), "--format", "json"]);
    let beside = DeepCgroup::send_in(cgroup.watched.parent().unwrap());
    // The first that is met is the deepest, the next is the watched one itself.
    let inside = [&cgroup.innermost, &cgroup.watched].map(|folder| DeepCgroup::send_in(folder));
    let seen = records(&watching.stop("TERM").stdout);
    let pids: Vec<&Value> = seen.iter().map(|record| &record["target"]["pid"]).collect();
    assert_eq!(pids, inside, "and not {beside}");
}
