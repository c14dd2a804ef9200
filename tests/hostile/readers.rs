//! Readers that stall, pipes that nobody reads, disks that are full: a run ends when it is told to, and counts what it could not write.

use std::fs::{self, File};
use std::io::{Read, Write};
use std::os::fd::{AsFd, AsRawFd};
use std::os::unix::fs::OpenOptionsExt;
use std::path::Path;
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use nix::sys::signal::Signal;
use nix::sys::stat::Mode;
use nix::unistd::mkfifo;

use crate::bounded::{Ended, Victim, Waited};
use crate::harness::{FAULTLINE, Scratch, counted, counted_as, named, records};
use crate::own_name::own_name;

/// SIGTERM and SIGINT are obeyed within a second; the rest is for a slow machine.
const OBEYED: Duration = Duration::from_secs(2);

fn run(program: &Path, arguments: &[&str]) {
    let status = Command::new(program).args(arguments).stdout(Stdio::null()).status().unwrap();
    assert!(status.success());
}

/// How many bytes are in a pipe.
fn waiting(pipe: &impl AsFd) -> usize {
    let mut bytes: libc::c_int = 0;
    // SAFETY: FIONREAD writes an int to where its argument points, and `bytes` lives until the call returns.
    assert_eq!(unsafe { libc::ioctl(pipe.as_fd().as_raw_fd(), libc::FIONREAD, &raw mut bytes) }, 0);
    bytes.try_into().unwrap()
}

/// Waits until a pipe takes no more.
fn stalled(pipe: &impl AsFd) {
    let deadline = Instant::now() + Duration::from_secs(20);
    while waiting(pipe) < 24 * 1024 {
        assert!(Instant::now() < deadline, "{} bytes", waiting(pipe));
        std::thread::sleep(Duration::from_millis(10));
    }
}

/// The attack: what is written fills the pipe, and nobody reads it. `act` makes faultline write more than a pipe holds.
fn stall(arguments: &[&str], signal: Signal, act: impl Fn()) -> (Ended, String) {
    let mut victim = Victim::start(arguments);
    act();
    let mut pipe = victim.child.stdout.take().unwrap();
    stalled(&pipe);
    let ended = victim.end(signal, OBEYED);
    let mut text = String::new();
    pipe.read_to_string(&mut text).unwrap();
    assert!(text.ends_with('\n'), "the last line is whole: {}", &text[text.len().saturating_sub(200)..]);
    (ended, text)
}

#[test]
fn crash_ends_and_counts() {
    let scratch = Scratch::new();
    let name = own_name("stall-cr");
    let program = named(&scratch, "many-deaths", &name);
    let arguments = ["crash", "--format", "json", "-n", &name, "-t", "--summary", "0.5"];
    for signal in [Signal::SIGTERM, Signal::SIGINT] {
        let (ended, text) = stall(&arguments, signal, || run(&program, &["400", "0"]));
        assert!(ended.status.success(), "{}", ended.said);
        let written = records(&text).iter().filter(|record| record["type"] == "crash").count() as u64;
        let summaries = records(&text).len() as u64 - written;
        let (blocked, records) =
            (counted_as(&ended.said, "output_blocked"), counted(ended.said.as_bytes(), " records;"));
        assert!(blocked > 100 && written > 5, "{}", ended.said);
        // Some of what was blocked are summaries.
        let told = written + blocked;
        assert!(told >= records && told <= records + 20, "{written} written, {summaries} summaries: {}", ended.said);
        assert_eq!(counted_as(&ended.said, "write_failed"), 0);
    }
}

/// Without summaries every record is written or counted.
#[test]
fn each_record_is_written_or_counted() {
    let scratch = Scratch::new();
    let name = own_name("stall-eq");
    let program = named(&scratch, "many-deaths", &name);
    let arguments = ["crash", "--format", "json", "-n", &name, "--strict"];
    let (ended, text) = stall(&arguments, Signal::SIGTERM, || run(&program, &["400", "0"]));
    let (blocked, made) = (counted_as(&ended.said, "output_blocked"), counted(ended.said.as_bytes(), " records;"));
    assert_eq!(records(&text).len() as u64 + blocked, made, "{}", ended.said);
    assert!(blocked > 0);
    assert_eq!(ended.status.code(), Some(1), "--strict");
}

#[test]
fn signal_ends() {
    let scratch = Scratch::new();
    let name = own_name("stall-si");
    let program = named(&scratch, "many-deaths", &name);
    let arguments = ["signal", "--all-signals", "--processes", "--format", "json", "-n", &name];
    let (ended, text) = stall(&arguments, Signal::SIGTERM, || run(&program, &["2000", "0"]));
    assert!(ended.status.success() && records(&text).len() > 20, "{}", ended.said);
    assert!(counted_as(&ended.said, "output_blocked") > 0, "{}", ended.said);
}

#[test]
fn memory_ends() {
    let scratch = Scratch::new();
    let name = own_name("stall-me");
    let program = named(&scratch, "memory-pages", &name);
    let arguments = ["memory", "--pages", "--format", "json", "-n", &name];
    let (ended, text) = stall(&arguments, Signal::SIGTERM, || run(&program, &["1600"]));
    assert!(ended.status.success() && records(&text).len() > 20, "{}", ended.said);
    assert!(counted_as(&ended.said, "output_blocked") > 0, "{}", ended.said);
}

#[test]
fn pagefault_ends() {
    let scratch = Scratch::new();
    let name = own_name("stall-pf");
    let program = named(&scratch, "memory-pages", &name);
    let arguments = ["pagefault", "--events", "--format", "json", "-n", &name];
    let (ended, text) = stall(&arguments, Signal::SIGTERM, || run(&program, &["4000"]));
    assert!(ended.status.success() && records(&text).len() > 20, "{}", ended.said);
    assert!(counted_as(&ended.said, "output_blocked") > 0, "{}", ended.said);
}

#[test]
fn call_ends() {
    let scratch = Scratch::new();
    let name = own_name("stall-ca");
    let program = named(&scratch, "memory-pages", &name);
    let arguments = ["call", "--live", "100000", "--format", "json", "--preset", "memory", "-n", &name];
    let (ended, text) = stall(&arguments, Signal::SIGTERM, || run(&program, &["16000"]));
    assert!(records(&text).len() > 20, "{}", ended.said);
    assert!(counted_as(&ended.said, "output_blocked") > 0, "{}", ended.said);
}

/// A reader that takes a little now and then holds nothing either.
#[test]
fn a_slow_reader_holds_no_run() {
    let scratch = Scratch::new();
    let name = own_name("slow");
    let program = named(&scratch, "many-deaths", &name);
    let mut victim = Victim::start(&[
        "agent",
        "--interval",
        "0.2",
        "-n",
        &name,
        "--samples-per-group",
        "5000",
        "--samples-per-second",
        "5000",
    ]);
    run(&program, &["400", "0"]);
    let mut pipe = victim.child.stdout.take().unwrap();
    stalled(&pipe);
    let reader = std::thread::spawn(move || {
        let mut some = [0; 4096];
        while pipe.read(&mut some).unwrap() != 0 {
            std::thread::sleep(Duration::from_millis(900));
        }
    });
    std::thread::sleep(Duration::from_millis(1500));
    victim.end(Signal::SIGTERM, OBEYED);
    drop(reader);
}

/// Standard error goes into the same pipe, and nobody reads that either.
#[test]
fn standard_error_may_stall_as_well() {
    let scratch = Scratch::new();
    let name = own_name("stall-er");
    let program = named(&scratch, "many-deaths", &name);
    let (mut reader, writer) = std::io::pipe().unwrap();
    let mut child = Command::new(FAULTLINE)
        .args(["crash", "--format", "json", "-n", &name])
        .stdout(writer.try_clone().unwrap())
        .stderr(writer)
        .spawn()
        .unwrap();
    let mut said = vec![0; 16384];
    let mut length = 0;
    while !said[..length].windows(10).any(|words| words == b" watching ") {
        length += reader.read(&mut said[length..]).unwrap();
    }
    run(&program, &["400", "0"]);
    stalled(&reader);
    nix::sys::signal::kill(nix::unistd::Pid::from_raw(child.id().try_into().unwrap()), Signal::SIGTERM).unwrap();
    let mut waited = Waited::new();
    while child.try_wait().unwrap().is_none() {
        if waited.is_over(OBEYED) {
            child.kill().unwrap();
            child.wait().unwrap();
            panic!("it has not ended");
        }
    }
}

/// A pipe that is somewhere: opened and not read.
#[test]
fn an_agent_on_a_pipe_that_is_not_read_ends() {
    let scratch = Scratch::new();
    let name = own_name("stall-ag");
    let program = named(&scratch, "many-deaths", &name);
    let path = scratch.path("pipe");
    mkfifo(&path, Mode::S_IRWXU).unwrap();
    let reader = File::options().read(true).custom_flags(libc::O_NONBLOCK).open(&path).unwrap();
    let mut agent = Victim::watching(
        Command::new(FAULTLINE)
            .args(["agent", "--interval", "0.1", "-n", &name, "-o"])
            .arg(&path)
            .args(["--samples-per-group", "1000", "--samples-per-second", "1000"])
            .stdout(Stdio::null()),
    );
    run(&program, &["400", "0"]);
    stalled(&reader);
    agent.hear("its reader has stalled");
    let ended = agent.end(Signal::SIGTERM, OBEYED);
    assert_eq!(ended.status.code(), Some(2), "{}", ended.said);
    assert!(ended.said.contains("failed to write the last summary"), "{}", ended.said);
}

/// SIGHUP finds a pipe that nobody reads where the file was.
#[test]
fn a_rotation_waits_for_no_reader() {
    let scratch = Scratch::new();
    let path = scratch.path("records");
    let mut agent = Victim::watching(
        Command::new(FAULTLINE)
            .args(["agent", "--interval", "0.1", "-n", "no-such-name", "-o"])
            .arg(&path)
            .stdout(Stdio::null()),
    );
    fs::rename(&path, scratch.path("moved")).unwrap();
    mkfifo(&path, Mode::S_IRWXU).unwrap();
    agent.signal(Signal::SIGHUP);
    agent.hear("nobody reads it; the old file is kept");
    let ended = agent.end(Signal::SIGTERM, OBEYED);
    assert!(ended.status.success(), "{}", ended.said);
    let lines = records(fs::read_to_string(scratch.path("moved")).unwrap());
    assert_eq!(lines.last().unwrap()["final"], true, "it goes on in the old one");
}

/// What is started on a pipe that nobody reads waits for a reader, and can be ended; what reads one that nobody writes to, too.
#[test]
fn nothing_that_waits_for_a_pipe_is_deaf() {
    let scratch = Scratch::new();
    let path = scratch.path("pipe");
    mkfifo(&path, Mode::S_IRWXU).unwrap();
    let path = path.to_str().unwrap();
    for arguments in [
        &["crash", "-o", path][..],
        &["agent", "-o", path],
        &["pagefault", "--flamegraph", path, "-o", "/dev/null"],
        &["report", path],
        &["report", "/dev/null", "-o", path],
    ] {
        let mut victim = Victim::spawn(Command::new(FAULTLINE).args(arguments).stdout(Stdio::null()));
        if arguments[0] == "pagefault" {
            victim.hear("nobody reads it");
            assert_eq!(victim.ended(OBEYED).status.code(), Some(2));
            continue;
        }
        // Whether it has come to wait can't be seen from outside in all cases; a signal before that ends it as well.
        std::thread::sleep(Duration::from_millis(300));
        assert!(victim.child.try_wait().unwrap().is_none(), "{arguments:?} waits");
        victim.end(Signal::SIGTERM, OBEYED);
    }
}

/// The reader of a short report or of an answer has stalled before it is written.
#[test]
fn doctor_and_report_can_be_ended() {
    for arguments in [&["doctor"][..], &["report", "/dev/null"]] {
        let (reader, mut writer) = std::io::pipe().unwrap();
        // SAFETY: F_GETPIPE_SZ takes no argument, and touches no memory of ours.
        let size = unsafe { libc::fcntl(writer.as_raw_fd(), libc::F_GETPIPE_SZ) };
        writer.write_all(&vec![b'x'; size.try_into().unwrap()]).unwrap();
        let victim = Victim::spawn(Command::new(FAULTLINE).args(arguments).stdout(writer));
        std::thread::sleep(Duration::from_millis(1000));
        let ended = victim.end(Signal::SIGTERM, OBEYED);
        assert!(!ended.status.success());
        drop(reader);
    }
}

/// The end of a run that no signal has ended is bounded, too.
#[test]
fn the_end_of_the_time_is_the_end() {
    let scratch = Scratch::new();
    let name = own_name("stall-du");
    let program = named(&scratch, "many-deaths", &name);
    let victim = Victim::start(&["crash", "-d", "2", "--format", "json", "-n", &name]);
    run(&program, &["400", "0"]);
    let ended = victim.ended(Duration::from_secs(9));
    assert!(ended.status.success() && counted_as(&ended.said, "output_blocked") > 0, "{}", ended.said);
}
