//! The descendants of the watched command, if the kernel skipped a run of the programs that follow forks and exits. From v7.0 on it
//! does so rarely; here the tests imitate it.

use std::fs;
use std::io::{BufRead, BufReader, Write};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use libbpf_rs::{MapCore, MapFlags, MapHandle};
use macro_rules_attribute::apply;
use serde_json::Value;

use crate::harness::runs::{note, watch_test};
use crate::harness::{FAULTLINE, Scratch, records};

/// faultline, watching a shell that takes commands.
struct Watched {
    /// faultline, or `unshare`, whose only child it is. `None` means that it has ended.
    faultline: Option<Child>,
    stdout: BufReader<std::process::ChildStdout>,
    scratch: Scratch,
}

impl Watched {
    fn start(script: &str) -> Self {
        Self::start_by(Command::new(FAULTLINE), script)
    }

    fn start_by(mut faultline: Command, script: &str) -> Self {
        let scratch = Scratch::new();
        let mut faultline = faultline
            .args(["crash", "--summary", "3600", "--format", "json", "--output"])
            .arg(scratch.path("records"))
            .args(["--", "sh", "-c", script])
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()
            .unwrap();
        let stdout = BufReader::new(faultline.stdout.take().unwrap());
        Self { faultline: Some(faultline), stdout, scratch }
    }

    /// The next line of the shell, a number.
    fn says(&mut self) -> u32 {
        let mut line = String::new();
        self.stdout.read_line(&mut line).unwrap();
        line.trim().parse().unwrap()
    }

    /// The number of faultline, or of `unshare`.
    fn pid(&self) -> u32 {
        self.faultline.as_ref().unwrap().id()
    }

    /// This faultline's own table: several may run at the same time.
    fn descendants(&self) -> MapHandle {
        descendants_of(self.pid())
    }

    /// Lets the shell go on; the pids of the crash records, and the summary.
    fn finish(mut self) -> (Vec<u64>, Value) {
        let mut faultline = self.faultline.take().unwrap();
        faultline.stdin.take().unwrap().write_all(b"go on\n").unwrap();
        let output = faultline.wait_with_output().unwrap();
        note(&output.stderr);
        assert_eq!(output.status.code(), Some(0), "{}", String::from_utf8_lossy(&output.stderr));
        let mut records = records(fs::read(self.scratch.path("records")).unwrap());
        let summary = records.pop().unwrap();
        (records.iter().map(|record| record["pid"].as_u64().unwrap()).collect(), summary)
    }
}

/// A test that fails ends it, and learns what it missed.
impl Drop for Watched {
    fn drop(&mut self) {
        // Without its standard input the shell goes on.
        let output = self.faultline.take().and_then(|faultline| faultline.wait_with_output().ok());
        if let Some(output) = output {
            note(&output.stderr);
        }
    }
}

fn descendants_of(faultline: u32) -> MapHandle {
    let folder = fs::read_dir(format!("/proc/{faultline}/fdinfo")).unwrap();
    let ids = folder.filter_map(|entry| {
        let text = fs::read_to_string(entry.unwrap().path()).ok()?;
        text.lines().find_map(|line| line.strip_prefix("map_id:"))?.trim().parse().ok()
    });
    let mut maps = ids.map(|id| MapHandle::from_map_id(id).unwrap());
    maps.find(|map| map.name() == "fl_descendants").unwrap()
}

/// Prints its number; when it may go on, a child of it dies.
const CHILD_OF_IT: &str = "echo $$; read go_on; sh -c \"kill -SEGV \\$\\$\"; exit 0";

#[apply(watch_test!)]
fn a_fork_that_nobody_saw_is_made_up_for() {
    let child = "echo $$; read go_on; kill -SEGV $$";
    // The last one is the command itself.
    for (script, is_forgotten_one) in [
        (format!("sh -c '{child}'; exit 0"), true),
        (format!("sh -c '{CHILD_OF_IT}'; exit 0"), false),
        (CHILD_OF_IT.to_owned(), false),
    ] {
        let mut watched = Watched::start(&script);
        let pid = watched.says();
        let table = watched.descendants();
        assert!(table.lookup(&pid.to_ne_bytes(), MapFlags::ANY).unwrap().is_some(), "it was seen");
        table.delete(&pid.to_ne_bytes()).unwrap();
        let (pids, summary) = watched.finish();
        assert_eq!(pids.len(), 1, "{summary:#}");
        assert_eq!(pids[0] == u64::from(pid), is_forgotten_one);
    }
}

#[apply(watch_test!)]
fn the_command_is_made_up_for_in_a_pid_namespace_too() {
    let mut unshare = Command::new("unshare");
    unshare.args(["-p", "-f", "--mount-proc", FAULTLINE]);
    let mut watched = Watched::start_by(unshare, CHILD_OF_IT);
    watched.says();
    let unshare = watched.pid();
    let faultline = fs::read_to_string(format!("/proc/{unshare}/task/{unshare}/children")).unwrap();
    let table = descendants_of(faultline.trim().parse().unwrap());
    let all: Vec<_> = table.keys().collect();
    assert_eq!(all.len(), 1, "the command: {all:?}");
    table.delete(&all[0]).unwrap();
    let (pids, summary) = watched.finish();
    assert_eq!(pids.len(), 1, "{summary:#}");
}

#[apply(watch_test!)]
fn the_number_of_one_whose_exit_nobody_saw_is_not_taken_for_it() {
    let mut watched = Watched::start("echo $$; read go_on; exit 0");
    watched.says();
    let table = watched.descendants();
    // A number that was free a moment ago may have been given to another process.
    let taken = (0..100).find(|_| {
        let mut ended = Command::new("true").spawn().unwrap();
        assert!(ended.wait().unwrap().success());
        let number = ended.id();
        table.update(&number.to_ne_bytes(), &[1], MapFlags::ANY).unwrap();
        let died = die_as(number);
        if !died {
            table.delete(&number.to_ne_bytes()).unwrap();
        }
        died
    });
    assert!(taken.is_some());
    let (pids, summary) = watched.finish();
    assert!(pids.is_empty(), "{pids:?} is no descendant: {summary:#}");
    assert_ne!(summary["deliveries"]["filtered"], 0, "it was met, and left out");
}

/// A child of ours with this number dies of SIGILL; false: the number is taken.
fn die_as(number: u32) -> bool {
    let number = i32::try_from(number).unwrap();
    // SAFETY: in clone_args zeros mean that nothing is asked for (clone(2)).
    let mut arguments: libc::clone_args = unsafe { std::mem::zeroed() };
    arguments.exit_signal = libc::SIGCHLD as u64;
    arguments.set_tid = (&raw const number).expose_provenance() as u64;
    arguments.set_tid_size = 1;
    // SAFETY: a fork, whose child makes system calls and nothing else before it ends; `number` outlives the call.
    unsafe {
        let child = libc::syscall(libc::SYS_clone3, &raw const arguments, size_of::<libc::clone_args>());
        if child == 0 {
            libc::syscall(libc::SYS_kill, i64::from(number), i64::from(libc::SIGILL));
            libc::syscall(libc::SYS_exit_group, 0);
        }
        if child < 0 {
            let error = std::io::Error::last_os_error();
            assert_eq!(error.raw_os_error(), Some(libc::EEXIST), "{error}");
            return false;
        }
        assert_eq!(child, i64::from(number));
        let mut status = 0;
        assert_eq!(libc::waitpid(number, &raw mut status, 0), number);
        assert!(libc::WIFSIGNALED(status));
    }
    true
}

/// The processes that name what died are our children as well, of another thread.
#[apply(watch_test!)]
fn who_names_what_died_is_not_watched() {
    let mut watched = Watched::start("sh -c 'kill -SEGV $$'; echo $$; read go_on; exit 0");
    let command = watched.says();
    let begun = Instant::now();
    while fs::read_to_string(watched.scratch.path("records")).unwrap().is_empty() {
        assert!(begun.elapsed() < Duration::from_secs(60), "no record");
        std::thread::sleep(Duration::from_millis(10));
    }
    let tasks = fs::read_dir(format!("/proc/{}/task", watched.pid())).unwrap();
    let children: Vec<u32> = tasks
        .flat_map(|task| {
            let children = fs::read_to_string(task.unwrap().path().join("children")).unwrap();
            children.split_whitespace().map(|pid| pid.parse().unwrap()).collect::<Vec<_>>()
        })
        .collect();
    assert_eq!(children.len(), 3, "the command, the opener and the namer: {children:?}");
    let table = watched.descendants();
    let is_watched = |pid: &&u32| table.lookup(&pid.to_ne_bytes(), MapFlags::ANY).unwrap().is_some();
    assert_eq!(children.iter().filter(is_watched).collect::<Vec<_>>(), [&command]);
    let (pids, summary) = watched.finish();
    assert_eq!(pids.len(), 1, "{summary:#}");
}
