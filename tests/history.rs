//! `faultline list` and `faultline show` on files. No root, no kernel.
//!
//! tests/data/history/crash.jsonl: a record that `crash -r --format json` wrote of tests/programs/null-write.c. The tests write copies of it
//! with other times and PIDs.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

use std::fs;
use std::io::Write;
use std::path::PathBuf;
use std::process::{Command, Output};
use std::time::{Duration, SystemTime};

const RECORD: &str = include_str!("data/history/crash.jsonl");

/// A folder that goes with the test.
struct Folder(PathBuf);

impl Folder {
    fn new(name: &str) -> Self {
        let folder = std::env::temp_dir().join(format!("faultline-{name}-{}", std::process::id()));
        fs::create_dir(&folder).unwrap();
        Self(folder)
    }

    /// Writes a file that was last changed on this day of November; returns its path.
    fn file(&self, name: &str, day: u64, content: &[u8]) -> String {
        let path = self.0.join(name);
        let mut file = fs::File::create(&path).unwrap();
        file.write_all(content).unwrap();
        // 2026-11-01, and the end of the day.
        file.set_modified(SystemTime::UNIX_EPOCH + Duration::from_secs(1_793_491_200 + day * 86_400 - 1)).unwrap();
        path.to_str().unwrap().to_owned()
    }
}

impl Drop for Folder {
    fn drop(&mut self) {
        let _ = fs::remove_dir_all(&self.0);
    }
}

/// The record, of another day and process.
fn record(day: u32, pid: u32) -> String {
    let (time, line) = RECORD.split_once("\"host\"").unwrap();
    let pid_before = line.split_once("\"pid\":").unwrap().1.split_once(',').unwrap().0;
    let line = line.replacen(&format!("\"pid\":{pid_before},"), &format!("\"pid\":{pid},"), 1);
    let (before, _) = time.split_once("\"timestamp\"").unwrap();
    format!("{before}\"timestamp\":\"2026-11-{day:02}T10:20:30.000000Z\",\"host\"{line}")
}

fn faultline(arguments: &[&str]) -> Output {
    let mut command = Command::new(env!("CARGO_BIN_EXE_faultline"));
    command.env("TZ", "UTC").args(arguments).output().unwrap()
}

/// What standard output, standard error and the exit status were.
fn said(arguments: &[&str]) -> (String, String, i32) {
    let output = faultline(arguments);
    let text = |bytes: Vec<u8>| String::from_utf8(bytes).unwrap();
    (text(output.stdout), text(output.stderr), output.status.code().unwrap())
}

/// The PIDs of the rows.
fn listed(arguments: &[&str]) -> Vec<u32> {
    let (out, err, status) = said(&[&["list"], arguments].concat());
    assert_eq!((status, err.as_str()), (0, ""), "{out}");
    assert!(out.starts_with("TIME "), "{out}");
    out.lines().skip(1).map(|row| row.split_whitespace().nth(2).unwrap().parse().unwrap()).collect()
}

#[test]
fn rotated_and_compressed_files_are_one_list_with_the_newest_last() {
    let folder = Folder::new("rotated");
    let mut gzip = Command::new("gzip")
        .arg("-c")
        .stdin(std::process::Stdio::piped())
        .stdout(std::process::Stdio::piped())
        .spawn()
        .unwrap();
    gzip.stdin.take().unwrap().write_all(record(2, 2).as_bytes()).unwrap();
    let gzip = gzip.wait_with_output().unwrap().stdout;
    let summary = "{\"type\":\"summary\",\"schema\":1,\"groups\":[]}\n";
    let files = [
        folder.file("x.jsonl", 5, format!("{}{summary}{}", record(5, 5), record(4, 4)).as_bytes()),
        folder.file("x.jsonl.1", 3, record(3, 3).as_bytes()),
        folder.file("x.jsonl.2.gz", 2, &gzip),
        folder.file("x.jsonl.3.zst", 1, &zstd::encode_all(record(1, 1).as_bytes(), 1).unwrap()),
        // What is being compressed is there twice.
        folder.file("x.jsonl.4", 3, record(3, 3).as_bytes()),
    ];
    let files: Vec<&str> = files.iter().map(String::as_str).collect();
    let of = |flags: &[&str]| listed(&[flags, &files].concat());
    assert_eq!(of(&[]), [1, 2, 3, 4, 5]);
    assert_eq!(of(&["-n", "2"]), [4, 5]);
    assert_eq!(of(&["--since", "2026-11-02", "--until", "2026-11-04"]), [2, 3]);
    assert_eq!(of(&["-S2026-11-03 10:20:30", "-U", "2026-11-03T10:20:30"]), [3]);
    assert_eq!(of(&["--signal", "segv", "--executable", "null-write"]), [1, 2, 3, 4, 5]);
    let (out, err, status) = said(&["list", "--signal", "ABRT", files[0]]);
    assert_eq!((out.as_str(), status), ("", 1), "as grep: {err}");
    assert!(err.starts_with("faultline: no such crash record in `"), "{err}");
}

#[test]
fn show_has_the_record_that_was_named() {
    let folder = Folder::new("show");
    let old = folder.file("x.jsonl.1", 2, format!("{}{}", record(1, 1), record(2, 2)).as_bytes());
    let new = folder.file("x.jsonl", 3, record(3, 3).as_bytes());
    let signature = RECORD.split_once("\"signature\":\"").unwrap().1.split_once('"').unwrap().0;
    let shown = |which: &[&str]| {
        let (out, err, status) = said(&[&["show"], which, &[&old, &new]].concat());
        assert_eq!((status, err.as_str()), (0, ""), "{out}");
        let records = out.lines().filter(|line| line.starts_with('['));
        records
            .map(|line| line.split_once("(PID: ").unwrap().1.split_once(',').unwrap().0.parse().unwrap())
            .collect::<Vec<u32>>()
    };
    assert_eq!(shown(&["last"]), [3]);
    assert_eq!(shown(&["2"]), [2]);
    assert_eq!(shown(&[signature]), [3]);
    assert_eq!(shown(&[signature, "-n", "0"]), [1, 2, 3]);
    assert_eq!(shown(&["2026-11-01 10:20:30"]), [1]);
    assert_eq!(shown(&["2026-11-02"]), [2]);
    let (out, ..) = said(&["show", "last", &new]);
    for part in [
        "[2026-11-03 10:20:30",
        "] SEGFAULT in process null-write (PID: 3,",
        "  Diagnosis:     writes address",
        "  Registers:\n    rip ",
        "    #0  0x",
    ] {
        assert!(out.contains(part), "{part}: {out}");
    }
    let (out, _, status) = said(&["show", "last", "--format", "json", &new]);
    assert_eq!((out, status), (record(3, 3), 0), "as it stands in the file");
}

#[test]
fn what_is_damaged_is_told_and_the_rest_is_shown() {
    let folder = Folder::new("damaged");
    let (whole, cut) = (record(1, 1), &record(2, 2)[..300]);
    let long = "x".repeat(65 << 20);
    let text = format!("{whole}{cut}\nno record\n\0\0\0\0{}{long}\n{}", record(3, 3), record(4, 4));
    let file = folder.file("x.jsonl", 5, text.as_bytes());
    let (out, err, status) = said(&["list", &file]);
    let pids: Vec<&str> = out.lines().skip(1).map(|row| row.split_whitespace().nth(2).unwrap()).collect();
    assert_eq!((pids, status), (vec!["1", "3", "4"], 1), "{err}");
    for part in [
        ":2: skipped: cut off: ",
        ":3: skipped: expected ident",
        ":4: skipped: expected value",
        ":5: skipped: longer than 64 MiB",
        "faultline: 4 lines skipped",
    ] {
        assert!(err.contains(part), "{part}: {err}");
    }
    // Compressed, and cut off: what came before is shown.
    let compressed = zstd::encode_all(whole.repeat(50).as_bytes(), 1).unwrap();
    let file = folder.file("y.jsonl.zst", 5, &compressed[..compressed.len() - 3]);
    let (_, err, status) = said(&["list", &file]);
    assert!(status == 1 && err.contains("the compressed file is cut off here"), "{err}");
}

#[test]
fn nothing_of_a_record_forges_a_line_or_moves_the_cursor() {
    let folder = Folder::new("forged");
    let forged =
        record(1, 1).replace("\"signature\":\"", "\"signature\":\"\\n[2026-11-09 10:20:30] SEGFAULT\\u001b[2J");
    let forged =
        forged.replace("\"signal\":\"SIGSEGV\"", "\"signal\":\"SIG\\u202e\\n\"").replace("\"rip\":", "\"r\\nip\":");
    let file = folder.file("x.jsonl", 1, forged.as_bytes());
    for command in ["list", "show"] {
        let (out, _, status) =
            said(&[&[command][..], if command == "show" { &["last"] } else { &[] }, &[&file]].concat());
        assert_eq!(status, 0, "{out}");
        assert!(!out.contains(['\u{1b}', '\u{202e}']) && out.contains("\\n[2026-11-09"), "{out}");
        assert_eq!(out.lines().filter(|line| line.starts_with('[')).count(), usize::from(command == "show"), "{out}");
    }
}

#[test]
fn an_older_file_is_not_opened_for_the_last_record() {
    let folder = Folder::new("older");
    let new = folder.file("x.jsonl", 9, record(9, 9).as_bytes());
    // Whoever opens it has a line to complain about.
    let old = folder.file("x.jsonl.1", 2, b"no record\n");
    assert_eq!(said(&["show", "last", &old, &new]).2, 0);
    assert_eq!(said(&["list", "--since", "2026-11-05", &old, &new]).2, 0);
    assert_eq!(said(&["list", &old, &new]).2, 1, "this one opens it");
}

#[test]
fn what_can_not_be_read_is_an_error_with_a_cure() {
    let folder = Folder::new("errors");
    let path = folder.0.to_str().unwrap().to_owned();
    for (arguments, part) in [
        (&["list", &path][..], "it is a folder: give its files, as"),
        (&["show", "last", "/no/such/file"], "failed to open `/no/such/file`"),
        (&["show", &path], "is no signature, no PID and no time"),
        (&["list", "--since", "whenever"], "`whenever` is no time"),
    ] {
        let (out, err, status) = said(arguments);
        assert_eq!((out.as_str(), status), ("", 2), "{err}");
        assert!(err.contains(part) && err.lines().count() == 1, "{part}: {err}");
    }
}
