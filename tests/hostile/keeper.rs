//! A user whose programs come and go only to keep the keeper busy or full: programs of others that are deleted or replaced meanwhile have
//! their names all the same, and what there was no room for is counted.

use std::collections::VecDeque;
use std::fs;
use std::io::{BufRead, BufReader, Write};
use std::os::unix::fs::{MetadataExt, PermissionsExt};
use std::os::unix::process::CommandExt;
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use nix::sys::stat::Mode;
use nix::unistd::{SysconfVar, mkfifo, sysconf};
use procfs::Current;

use crate::forge::Forgery;
use crate::harness::{Scratch, copy_program, try_child};
use crate::keeping::{are_watched, copied_bytes, copies};
use crate::naming::Ambush;
use crate::reasons::own_failures;
use crate::siege::{SetOnDrop, behind_all_others, get};
use crate::stalled::{run_as, waiting_program};

/// The user that attacks, and the one whose programs go meanwhile: none of the machine's.
const ATTACKER: u32 = 54_323;
const INNOCENT: u32 = 54_324;

/// So many programs of the attacker's run at once, each another file.
const CROWD: usize = 400;

/// More than a file that is copied may have.
const TOO_LONG: u64 = 65 << 20;

/// Half of the room for copies has only one of these.
const LONG: u64 = 60 << 20;

/// The bound on all copies.
const COPIED_MAX: u64 = 128 << 20;

/// More than the keeper has.
const KEEPER_KIB_MAX: u64 = 48 << 10;

/// A twentieth of a processor for rounds, a fifth each for files that go and for what the kernel says of files; the rest is for beginnings.
const SHARE_MAX: f64 = 0.6;

/// How long the attack lasts at least.
const LASTS: Duration = Duration::from_secs(20);

/// How long something may take on a host that is busy.
const DONE: Duration = Duration::from_secs(120);

/// Programs that wait. They are ended when it is dropped.
#[derive(Default)]
struct Crowd(VecDeque<Child>);

impl Crowd {
    fn add(&mut self, child: Child) {
        self.0.push_back(child);
        if self.0.len() > CROWD
            && let Some(oldest) = self.0.pop_front()
        {
            end(oldest);
        }
    }
}

impl Drop for Crowd {
    fn drop(&mut self) {
        self.0.drain(..).for_each(end);
    }
}

fn end(mut child: Child) {
    let _ = child.kill();
    let _ = child.wait();
}

fn start(program: &Path) -> Child {
    let mut command = Command::new(program);
    command.uid(ATTACKER).gid(ATTACKER).stdin(Stdio::piped()).stdout(Stdio::null()).spawn().unwrap()
}

/// An attack in a folder of its own, for as long as it is told to.
type Attack = fn(&Scratch, &dyn Fn() -> bool);

/// Each program is another file, and half of them are deleted soon.
fn come_and_go(scratch: &Scratch, goes_on: &dyn Fn() -> bool) {
    let mut crowd = Crowd::default();
    let place = |number: u32| scratch.path(&number.to_string());
    for number in (0..).take_while(|_| goes_on()) {
        waiting_program().write(&place(number));
        crowd.add(start(&place(number)));
        if number >= 50 && number % 2 == 0 {
            fs::remove_file(place(number - 50)).unwrap();
        }
    }
}

/// The file at one place is another one all the time, and processes run those that were there before.
fn replace(scratch: &Scratch, goes_on: &dyn Fn() -> bool) {
    let (program, new) = (scratch.path("program"), scratch.path("new"));
    let mut crowd = Crowd::default();
    while goes_on() {
        waiting_program().write(&new);
        fs::rename(&new, &program).unwrap();
        crowd.add(start(&program));
    }
}

/// The kernel has much to say of two files.
fn change(scratch: &Scratch, goes_on: &dyn Fn() -> bool) {
    let programs = ["one", "two"].map(|name| scratch.path(name));
    let mut crowd = Crowd::default();
    for program in &programs {
        waiting_program().write(program);
        crowd.add(start(program));
    }
    for mode in [0o755, 0o775].into_iter().cycle().take_while(|_| goes_on()) {
        for program in &programs {
            fs::set_permissions(program, fs::Permissions::from_mode(mode)).unwrap();
        }
    }
}

/// Files that are long or too long to be copied go, and a FIFO comes in their place.
fn run_long(scratch: &Scratch, goes_on: &dyn Fn() -> bool) {
    let mut crowd = Crowd::default();
    for number in (0..).take_while(|_| goes_on()) {
        let (program, draft) = (scratch.path(&format!("long-{number}")), scratch.path("draft"));
        waiting_program().write(&draft);
        let length = if number % 2 == 0 { LONG } else { TOO_LONG };
        fs::File::options().write(true).open(&draft).unwrap().set_len(length).unwrap();
        // Another process writes it: one that was forked meanwhile might have it open.
        assert!(Command::new("cp").arg("--sparse=always").args([&draft, &program]).status().unwrap().success());
        fs::set_permissions(&program, fs::Permissions::from_mode(0o755)).unwrap();
        crowd.add(start(&program));
        std::thread::sleep(Duration::from_secs(3));
        fs::remove_file(&program).unwrap();
        mkfifo(&program, Mode::from_bits_truncate(0o666)).unwrap();
    }
}

/// Processes with many mounts and mappings, and with paths as long as they get. They are there when this returns.
fn hold_files(scratch: &Scratch) -> Crowd {
    let program = scratch.path("holds-files");
    copy_program("holds-files", &program);
    let mut crowd = Crowd::default();
    for number in 0..8 {
        let folder = scratch.path(&number.to_string());
        fs::create_dir(&folder).unwrap();
        let [mounts, mapped, folders] = if number % 4 == 0 { ["400", "300", "15"] } else { ["4000", "1024", "0"] };
        let mut command = Command::new(&program);
        command.arg(&folder).arg(ATTACKER.to_string()).args([mounts, mapped, folders]);
        let mut child = command.stdin(Stdio::piped()).stdout(Stdio::piped()).spawn().unwrap();
        let mut said = String::new();
        BufReader::new(child.stdout.take().unwrap()).read_line(&mut said).unwrap();
        assert_eq!(said, "ready\n");
        crowd.add(child);
    }
    crowd
}

/// What becomes of a program of somebody else's meanwhile.
#[derive(Clone, Copy, Debug)]
enum Fate {
    IsDeleted,
    IsReplaced,
    BecomesAFifo,
}

impl Fate {
    fn meets(self, program: &Path) {
        fs::remove_file(program).unwrap();
        match self {
            Self::IsDeleted => {}
            Self::IsReplaced => Forgery::named("another", Vec::new()).write(program),
            Self::BecomesAFifo => mkfifo(program, Mode::S_IRWXU).unwrap(),
        }
    }
}

/// The keeper of an agent.
struct Keeper {
    agent: u32,
    since: Instant,
}

impl Keeper {
    /// It takes no more than it may.
    fn is_well(&self) {
        // For a moment there is none where another test's file system has kept it for so long that it was ended.
        let Some(pid) = try_child(self.agent, "fl-keeper") else { return };
        let Some((ran, age)) = ran(pid) else { return };
        let share = ran.as_secs_f64() / age.as_secs_f64();
        assert!(age < Duration::from_secs(10) || share < SHARE_MAX, "{share} of a processor");
        let status = fs::read_to_string(format!("/proc/{pid}/status")).unwrap_or_default();
        let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:")).unwrap_or(" 0 kB");
        let kib: u64 = line.split_whitespace().next().unwrap().parse().unwrap();
        assert!(kib < KEEPER_KIB_MAX, "{kib} KiB");
        let copied = copied_bytes(self.agent);
        assert!(copied <= COPIED_MAX, "{copied} bytes of copies");
    }
}

/// How long a process has run on a processor, and how long it has been there. `None` means that it has gone.
fn ran(pid: u32) -> Option<(Duration, Duration)> {
    let stat = procfs::process::Process::new(pid.cast_signed()).ok()?.stat().ok()?;
    let ticks = sysconf(SysconfVar::CLK_TCK).unwrap().unwrap() as u64;
    let up = procfs::Uptime::current().unwrap().uptime_duration();
    let since = |ticks_of: u64| Duration::from_millis(ticks_of * 1000 / ticks);
    Some((since(stat.utime + stat.stime), up.saturating_sub(since(stat.starttime))))
}

fn await_that(what: &str, ambush: &mut Ambush, keeper: &Keeper, is_so: impl Fn(u32) -> bool) {
    let begun = Instant::now();
    ambush.agent.hold(what, &get, &mut |_| {
        keeper.is_well();
        assert!(begun.elapsed() < DONE, "not {what}");
        is_so(keeper.agent)
    });
}

/// A program of somebody else's goes, and dies: it has the names of what it was.
fn dies_with_names(ambush: &mut Ambush, keeper: &Keeper, fate: Fate) {
    let program = ambush.place();
    waiting_program().write(&program);
    let content = fs::read(&program).unwrap();
    let inode = fs::metadata(&program).unwrap().ino();
    let mut process = run_as(INNOCENT, &program);
    await_that("watched", ambush, keeper, |agent| are_watched(agent, &[inode]));
    fate.meets(&program);
    await_that("copied", ambush, keeper, |agent| copies(agent, &content) == 1);
    process.stdin.take().unwrap().write_all(b"x").unwrap();
    assert!(!process.wait().unwrap().success());
    ambush.agent.add_crashes(1);
    let record = ambush.record_of("gone", &program, 1);
    assert_eq!(own_failures(&record), Vec::<&str>::new(), "{fate:?}: {record:#}");
    let symbol = record["stack_trace"][0]["symbol"].as_str().unwrap_or_default();
    assert!(symbol.starts_with("victim+"), "{fate:?}: {record:#}");
}

/// How many files there was no room for.
fn not_kept(address: &str) -> u64 {
    let text = get(address, "/metrics");
    let name = "faultline_events_dropped_total{stage=\"sample\",reason=\"files_not_kept\"} ";
    text.lines().find_map(|line| line.strip_prefix(name)?.trim().parse().ok()).unwrap()
}

#[test]
fn programs_that_come_and_go_without_end_take_no_names_of_others() {
    const ATTACKS: [Attack; 4] = [come_and_go, replace, change, run_long];
    let mut ambush = Ambush::new("keeper");
    let folders = [(); ATTACKS.len()].map(|()| Scratch::new());
    let holders = Scratch::new();
    let keeper = Keeper { agent: ambush.agent.pid(), since: Instant::now() };
    let is_over = AtomicBool::new(false);
    std::thread::scope(|scope| {
        let _end = SetOnDrop(&is_over);
        for (attack, folder) in ATTACKS.iter().zip(&folders) {
            let is_over = &is_over;
            scope.spawn(move || {
                behind_all_others();
                attack(folder, &|| !is_over.load(Ordering::Relaxed));
            });
        }
        let _held = hold_files(&holders);
        for fate in [Fate::IsDeleted, Fate::IsReplaced, Fate::BecomesAFifo] {
            dies_with_names(&mut ambush, &keeper, fate);
        }
        await_that("attacked long enough", &mut ambush, &keeper, |_| keeper.since.elapsed() > LASTS);
        let address = ambush.agent.address.clone();
        await_that("counted", &mut ambush, &keeper, |_| not_kept(&address) > 0);
    });
    ambush.is_well("programs that come and go");
    ambush.agent.end_under(|_, _| ());
}
