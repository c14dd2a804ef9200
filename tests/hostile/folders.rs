//! Folders that another user made, or that are anybody's: what is in them leads elsewhere.

use std::fs::{self, File};
use std::io::Write;
use std::os::unix::fs::{MetadataExt, PermissionsExt, chown, symlink};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, SystemTime};

use nix::sys::signal::Signal;
use serde_json::Value;

use crate::bounded::{Ended, Victim, as_nobody, run};
use crate::harness::{FAULTLINE, Scratch, counted_as, programs, records};

const NOBODY: u32 = 65534;
const BOUND: Duration = Duration::from_secs(10);

/// What must not change: a program that runs as root whoever starts it, and a folder of root's.
struct Kept {
    scratch: Scratch,
    file: PathBuf,
    folder: PathBuf,
}

impl Kept {
    fn new() -> Self {
        let scratch = Scratch::new();
        let (file, folder) = (scratch.path("setuid"), scratch.path("elsewhere"));
        fs::write(&file, "kept").unwrap();
        fs::set_permissions(&file, fs::Permissions::from_mode(0o4755)).unwrap();
        fs::create_dir(&folder).unwrap();
        Self { scratch, file, folder }
    }

    /// A new folder of `mode`.
    fn folder(&self, name: &str, mode: u32) -> PathBuf {
        let path = self.scratch.path(name);
        fs::create_dir(&path).unwrap();
        fs::set_permissions(&path, fs::Permissions::from_mode(mode)).unwrap();
        path
    }

    fn check(&self) {
        assert_eq!(fs::read(&self.file).unwrap(), b"kept");
        assert_eq!(fs::metadata(&self.file).unwrap().mode() & 0o7777, 0o4755);
        let inside: Vec<_> = fs::read_dir(&self.folder).unwrap().collect();
        assert!(inside.is_empty(), "{inside:?}");
    }
}

/// A process that makes 16 pages executable when it is told to.
struct Target(Child);

impl Target {
    fn new() -> Self {
        let script = format!("read line; exec {} 16", programs().join("memory-pages").display());
        let mut command = Command::new("sh");
        Self(command.args(["-c", &script]).stdin(Stdio::piped()).stdout(Stdio::null()).spawn().unwrap())
    }

    fn pid(&self) -> String {
        self.0.id().to_string()
    }
}

impl Drop for Target {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

/// Dumps the pages of `target` to `folder`. Returns how that ended and its records.
fn dump(target: &mut Target, folder: &Path) -> (Ended, Vec<Value>) {
    let scratch = Scratch::new();
    let file = scratch.path("records");
    let mut command = Command::new(FAULTLINE);
    command.args(["memory", "--elf", "-v", "--format", "json", "--pid", &target.pid()]);
    command.arg("--dump").arg(folder).arg("--output").arg(&file);
    let mut victim = Victim::spawn(&mut command);
    if victim.hears("faultline: watching ") {
        target.0.stdin.take().unwrap().write_all(b"go\n").unwrap();
        target.0.wait().unwrap();
    }
    let ended = victim.ended(BOUND);
    let records = fs::read_to_string(&file).map_or_else(|_| Vec::new(), records);
    (ended, records.into_iter().filter(|record| record["type"] == "page").collect())
}

/// The pages that the target made, by their number.
fn numbers(folder: &Path, pages: &[Value]) -> Vec<u64> {
    let mut numbers: Vec<u64> = pages
        .iter()
        .filter(|page| page["trigger"] == "mprotect")
        .filter_map(|page| fs::read(folder.join(page["file"].as_str()?)).ok())
        .map(|bytes| u64::from_le_bytes(bytes[..8].try_into().unwrap()))
        .filter(|number| (1..=16).contains(number))
        .collect();
    numbers.sort_unstable();
    numbers
}

fn all() -> Vec<u64> {
    (1..=16).collect()
}

#[test]
fn a_folder_of_another_user_is_refused() {
    let kept = Kept::new();
    let place = kept.folder("place", 0o1777);
    for mode in ["0755", "0777", "1777"] {
        let mut target = Target::new();
        let folder = place.join(format!("dump-{mode}"));
        let (path, pid) = (folder.display(), target.pid());
        as_nobody(&format!(
            "mkdir -m {mode} {path}; ln -s {} {path}/{pid}; ln -s {} {path}/pages.jsonl",
            kept.folder.display(),
            kept.file.display()
        ));
        let (ended, pages) = dump(&mut target, &folder);
        assert_eq!(ended.status.code(), Some(2), "{}", ended.said);
        assert!(ended.said.contains(&format!("others may write to it (uid {NOBODY}, mode {mode})")), "{}", ended.said);
        assert!(ended.said.contains("mkdir -m 0700"), "the cure: {}", ended.said);
        assert!(pages.is_empty());
        kept.check();
    }
}

#[test]
fn a_folder_of_root_that_is_anybodys_is_refused() {
    let kept = Kept::new();
    for (name, mode) in [("sticky", 0o1777), ("open", 0o777), ("group", 0o770)] {
        let folder = kept.folder(name, mode);
        let mut target = Target::new();
        symlink(&kept.folder, folder.join(target.pid())).unwrap();
        let (ended, _) = dump(&mut target, &folder);
        assert_eq!(ended.status.code(), Some(2), "{}", ended.said);
        assert!(ended.said.contains("others may write to it"), "{}", ended.said);
        kept.check();
    }
}

/// A path that leads through a folder of another user: it may lead to any folder of root's.
#[test]
fn a_link_of_another_user_on_the_way_is_refused() {
    let kept = Kept::new();
    let place = kept.folder("place", 0o1777);
    as_nobody(&format!(
        "mkdir {0}/theirs; ln -s {1} {0}/theirs/link; ln -s {1} {0}/link",
        place.display(),
        kept.folder.display()
    ));
    for path in ["link", "link/new", "theirs/link", "theirs/link/new"] {
        let (ended, _) = dump(&mut Target::new(), &place.join(path));
        assert_eq!(ended.status.code(), Some(2), "{path}: {}", ended.said);
        assert!(ended.said.contains("others may write to"), "{path}: {}", ended.said);
        kept.check();
    }
    for new in ["theirs/new", "new"] {
        let (ended, pages) = dump(&mut Target::new(), &place.join(new));
        assert!(ended.status.success(), "{}", ended.said);
        assert_eq!(numbers(&place.join(new), &pages), all());
        modes_are_ours(&place.join(new), pages[0]["file"].as_str().unwrap());
    }
}

/// What is made is for root alone.
fn modes_are_ours(folder: &Path, file: &str) {
    let mode = |path: &Path| fs::metadata(path).unwrap().mode() & 0o7777;
    let file = folder.join(file);
    let modes = [mode(folder), mode(file.parent().unwrap()), mode(&file), mode(&folder.join("pages.jsonl"))];
    assert_eq!(modes, [0o700, 0o700, 0o600, 0o600]);
}

/// A folder that was another user's once and is root's now: its content is not.
#[test]
fn what_another_user_left_behind_is_not_followed() {
    let kept = Kept::new();
    for kind in ["link", "hard link", "file", "pipe", "folder"] {
        let folder = kept.folder(&kind.replace(' ', "-"), 0o755);
        let index = folder.join("pages.jsonl");
        let why = match kind {
            "link" => {
                symlink(&kept.file, &index).unwrap();
                "is a link"
            }
            "hard link" => {
                fs::hard_link(&kept.file, &index).unwrap();
                "it has 2 names"
            }
            "file" => {
                fs::write(&index, "").unwrap();
                chown(&index, Some(NOBODY), None).unwrap();
                "it belongs to somebody else (uid 65534"
            }
            "pipe" => {
                nix::unistd::mkfifo(&index, nix::sys::stat::Mode::S_IRWXU).unwrap();
                "it is no file"
            }
            _ => {
                fs::create_dir(&index).unwrap();
                "Is a directory"
            }
        };
        let (ended, _) = dump(&mut Target::new(), &folder);
        assert_eq!(ended.status.code(), Some(2), "{kind}: {}", ended.said);
        assert!(ended.said.contains(why) || kind == "link" && ended.said.contains("pages.jsonl"), "{}", ended.said);
        if kind == "hard link" {
            fs::remove_file(&index).unwrap();
        }
        kept.check();
    }
    // The folder of the process: nothing is written through it, and each page is counted.
    let mut target = Target::new();
    let folder = kept.folder("processes", 0o755);
    symlink(&kept.folder, folder.join(target.pid())).unwrap();
    let (ended, pages) = dump(&mut target, &folder);
    assert!(ended.said.contains("its folder is none, and faultline did not make it"), "{}", ended.said);
    assert!(pages.len() >= 16 && pages.iter().all(|page| page["file"].is_null()), "{pages:#?}");
    assert!(counted_as(&ended.said, "write_failed") >= pages.len() as u64, "{}", ended.said);
    kept.check();
}

/// Every page is said to be there already, in a file with other content.
#[test]
fn an_index_hides_no_page() {
    let kept = Kept::new();
    let (first, second) = (kept.folder("first", 0o700), kept.folder("second", 0o700));
    let (ended, pages) = dump(&mut Target::new(), &first);
    assert!(ended.status.success(), "{}", ended.said);
    assert_eq!(numbers(&first, &pages), all());
    fs::create_dir(second.join("7")).unwrap();
    fs::write(second.join("7/0x1000-1.bin"), [0; 4096]).unwrap();
    symlink(&kept.file, second.join("7/0x2000-1.bin")).unwrap();
    let mut index = String::from("no record\n{\"sha256\":");
    for (page, file) in
        pages.iter().zip(["7/0x1000-1.bin", "7/0x2000-1.bin", "../setuid", "7/0x3000-1.bin"].iter().cycle())
    {
        index += &format!("\n{{\"sha256\":{},\"file\":\"{file}\"}}", page["sha256"]);
    }
    fs::write(second.join("pages.jsonl"), &index).unwrap();
    let (ended, pages) = dump(&mut Target::new(), &second);
    assert!(ended.status.success(), "{}", ended.said);
    assert_eq!(numbers(&second, &pages), all(), "{pages:#?}");
    let lines = fs::read_to_string(second.join("pages.jsonl")).unwrap();
    let added = lines.strip_prefix(&format!("{index}\n")).unwrap_or_else(|| panic!("{lines}"));
    assert_eq!(records(added).len(), pages.len(), "its records begin on a line of their own");
    // What is there in truth is not stored again.
    let (_, again) = dump(&mut Target::new(), &second);
    let files = |pages: &[Value]| {
        pages
            .iter()
            .filter(|page| page["trigger"] == "mprotect")
            .map(|page| page["file"].to_string())
            .collect::<Vec<_>>()
    };
    assert_eq!(files(&again), files(&pages));
    kept.check();
}

#[test]
fn an_index_of_5_gb_costs_little() {
    let kept = Kept::new();
    let (small, large) = (kept.folder("small", 0o700), kept.folder("large", 0o700));
    let index = File::create(large.join("pages.jsonl")).unwrap();
    index.set_len(5 << 30).unwrap();
    let (rest, _) = dump(&mut Target::new(), &small);
    let (ended, pages) = dump(&mut Target::new(), &large);
    assert!(ended.status.success() && rest.status.success(), "{}", ended.said);
    assert_eq!(numbers(&large, &pages), all());
    assert!(ended.peak_kib < rest.peak_kib + 24 * 1024, "{} KiB, without it {}", ended.peak_kib, rest.peak_kib);
}

/// Two names change places all the time: our folder, and a link to another.
#[test]
fn a_folder_that_is_exchanged_while_it_is_opened_leads_nowhere_else() {
    let kept = Kept::new();
    let place = kept.folder("place", 0o755);
    chown(&place, Some(NOBODY), None).unwrap();
    let (folder, link) = (place.join("dump"), place.join("link"));
    fs::create_dir(&folder).unwrap();
    symlink(&kept.folder, &link).unwrap();
    std::os::unix::fs::lchown(&link, Some(NOBODY), None).unwrap();
    let is_over = AtomicBool::new(false);
    let exchange = || {
        let flags = nix::fcntl::RenameFlags::RENAME_EXCHANGE;
        while !is_over.load(Ordering::Relaxed) {
            nix::fcntl::renameat2(nix::fcntl::AT_FDCWD, &folder, nix::fcntl::AT_FDCWD, &link, flags).unwrap();
        }
    };
    let dumps = std::thread::scope(|scope| {
        scope.spawn(exchange);
        let dumps: Vec<_> = (0..4).map(|_| std::panic::catch_unwind(|| dump(&mut Target::new(), &folder))).collect();
        is_over.store(true, Ordering::Relaxed);
        dumps
    });
    for (ended, pages) in dumps.into_iter().map(Result::unwrap) {
        let code = ended.status.code();
        let is_whole = code == Some(0) && pages.iter().all(|page| page["file"].is_string());
        assert!(is_whole || code == Some(2), "{}", ended.said);
    }
    kept.check();
}

/// Every kind of file that a person names, in a folder that is anybody's.
#[test]
fn an_output_in_tmp_is_new_or_ours() {
    let kept = Kept::new();
    let place = kept.folder("place", 0o1777);
    let path = |name: &str| place.join(name).to_str().unwrap().to_owned();
    as_nobody(&format!(
        "cd {}; ln -s {} link; ln -s {}/new dangling; touch theirs; mkfifo pipe",
        place.display(),
        kept.file.display(),
        kept.folder.display()
    ));
    fs::hard_link(&kept.file, place.join("hard")).unwrap();
    for (name, why) in [
        ("link", "is a link in a folder that others may write to"),
        ("dangling", "is a link in a folder that others may write to"),
        ("hard", "it has 2 names"),
        ("theirs", "it belongs to somebody else (uid 65534"),
        ("pipe", "a pipe or a device of somebody else"),
    ] {
        for arguments in [
            &["crash", "-d", "0.1", "-o", &path(name)][..],
            &["crash", "-d", "0.1", "--append", "-o", &path(name)],
            &["agent", "-d", "0.1", "-o", &path(name)],
            &["pagefault", "-d", "0.1", "--flamegraph", &path(name)],
            &["report", "/dev/null", "-o", &path(name)],
        ] {
            let ended = run(arguments, BOUND);
            assert_eq!(ended.status.code(), Some(2), "{arguments:?}: {}", ended.said);
            assert!(ended.said.contains(why), "{arguments:?}: {}", ended.said);
        }
    }
    fs::remove_file(place.join("hard")).unwrap();
    kept.check();
    for arguments in [
        &["crash", "-d", "0.1", "-o", &path("a")][..],
        &["crash", "-d", "0.1", "-o", &path("a")],
        &["pagefault", "-d", "0.1", "--stacks", "--flamegraph", &path("b"), "-o", &path("c")],
        &["report", "/dev/null", "-o", &path("d")],
    ] {
        let ended = run(arguments, BOUND);
        assert_eq!(ended.status.code(), Some(0), "{arguments:?}: {}", ended.said);
    }
    for name in ["a", "b", "c", "d"] {
        assert_eq!(fs::metadata(place.join(name)).unwrap().mode() & 0o7777, 0o600, "{name}");
    }
}

/// The file is moved away and a link put in its place before SIGHUP.
#[test]
fn a_rotation_follows_no_link() {
    let kept = Kept::new();
    let place = kept.folder("place", 0o755);
    chown(&place, Some(NOBODY), None).unwrap();
    let file = place.join("records");
    let mut agent = Victim::watching(
        Command::new(FAULTLINE)
            .args(["agent", "--interval", "0.1", "-n", "no-such-name", "-o"])
            .arg(&file)
            .stdout(Stdio::null()),
    );
    as_nobody(&format!("cd {}; mv records moved; ln -s {} records", place.display(), kept.file.display()));
    agent.signal(Signal::SIGHUP);
    agent.hear("the old file is kept");
    assert!(agent.said.contains("is a link in a folder that others may write to"), "{}", agent.said);
    let ended = agent.end(Signal::SIGTERM, Duration::from_secs(2));
    assert!(ended.status.success(), "{}", ended.said);
    let lines = records(fs::read_to_string(place.join("moved")).unwrap());
    assert_eq!(lines.last().unwrap()["final"], true, "it goes on in the old one");
    kept.check();
}

/// A socket for the metrics: what is made, removed and opened to others lies in the folder that was named.
#[test]
fn a_socket_leads_nowhere_else() {
    let kept = Kept::new();
    let place = kept.folder("place", 0o1777);
    as_nobody(&format!("mkdir {0}/theirs; ln -s {1} {0}/theirs/link", place.display(), kept.folder.display()));
    // They can put another one in its place.
    fs::create_dir(place.join("theirs/ours")).unwrap();
    for folder in ["theirs/link", "theirs/ours"] {
        let socket = format!("unix:{}", place.join(folder).join("metrics").display());
        let ended = run(&["agent", "-n", "no-such-name", "--metrics-listen", &socket], BOUND);
        assert_eq!(ended.status.code(), Some(2), "{folder}: {}", ended.said);
        assert!(ended.said.contains("others may write to"), "{folder}: {}", ended.said);
        kept.check();
    }
}

/// The cache of debuginfod, from which leaves what was not used for long.
#[test]
fn a_cache_leads_nowhere_else() {
    let kept = Kept::new();
    let (place, precious) = (kept.folder("place", 0o1777), kept.folder("precious", 0o755));
    let (old, records) = (precious.join("abcdef01/config"), kept.scratch.path("records"));
    fs::create_dir(precious.join("abcdef01")).unwrap();
    let long_ago = fs::FileTimes::new().set_accessed(SystemTime::UNIX_EPOCH);
    File::create(&old).unwrap().set_times(long_ago).unwrap();
    fs::write(&records, "").unwrap();
    as_nobody(&format!("mkdir {0}/theirs; ln -s {1} {0}/theirs/link", place.display(), precious.display()));
    let cache = place.join("theirs/link");
    let mut command = Command::new(FAULTLINE);
    command.arg("symbolize").arg(&records).env("DEBUGINFOD_URLS", "http://127.0.0.1:1").stdout(Stdio::null());
    let ended = Victim::spawn(command.env("DEBUGINFOD_CACHE_PATH", &cache)).ended(BOUND);
    assert!(old.exists(), "{}", ended.said);
    assert_eq!(ended.status.code(), Some(2), "{}", ended.said);
    assert!(ended.said.contains("DEBUGINFOD_CACHE_PATH") && ended.said.contains("is a link"), "{}", ended.said);
}
