//! `faultline report` on the files of tests/data/report/. No root, no kernel.
//!
//! web.jsonl: web-1 with two intervals, the second of them final, among a crash record and an empty line; web-2 with
//! frames that have no names. db.jsonl: db-1, twice the same summary, then three lines that are no summaries: one of another
//! program, one of a later schema, one that is cut off. after.jsonl: the same hosts later, with a new build of shopd.
//! unbalanced.jsonl: a summary whose sum is wrong by one.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

use std::fs;
use std::io::Write;
use std::path::Path;
use std::process::{Command, Output, Stdio};

use serde_json::Value;

fn data(name: &str) -> String {
    format!("tests/data/report/{name}.jsonl")
}

fn command(arguments: &str) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_faultline"));
    // No server of whoever runs this has names of these frames.
    command.env_remove("DEBUGINFOD_URLS");
    command.current_dir(env!("CARGO_MANIFEST_DIR")).env("TZ", "UTC").arg("report").args(arguments.split_whitespace());
    command
}

fn report(arguments: &str) -> Output {
    command(arguments).stdin(Stdio::null()).output().unwrap()
}

fn standard_error(output: &Output) -> String {
    String::from_utf8(output.stderr.clone()).unwrap()
}

/// A report of db.jsonl lacks the lines that are no summaries.
fn expect_status(arguments: &str, output: &Output) {
    let wanted = i32::from(arguments.contains("db.jsonl"));
    assert_eq!(output.status.code(), Some(wanted), "{}", standard_error(output));
}

/// The text without its time.
fn text(arguments: &str) -> String {
    let output = report(arguments);
    expect_status(arguments, &output);
    let text = String::from_utf8(output.stdout).unwrap();
    let (made, rest) = text.split_once(']').unwrap();
    assert_eq!(made.len(), "[2026-03-02 10:00:00".len(), "{text}");
    format!("[NOW]{rest}")
}

/// The one record without its time and host.
fn json(arguments: &str) -> Value {
    let output = report(&format!("--format json {arguments}"));
    expect_status(arguments, &output);
    let text = String::from_utf8(output.stdout).unwrap();
    assert_eq!(text.lines().count(), 1, "one record");
    let mut record: Value = serde_json::from_str(&text).unwrap();
    assert!(record["timestamp"].as_str().unwrap().ends_with('Z'));
    assert!(record["host"].is_string());
    record["timestamp"] = "NOW".into();
    record["host"] = "HERE".into();
    record
}

fn counts(record: &Value) -> Vec<u64> {
    record["groups"].as_array().unwrap().iter().map(|group| group["count"].as_u64().unwrap()).collect()
}

#[test]
fn many_hosts_in_text() {
    insta::assert_snapshot!(text(&format!("{} {}", data("web"), data("db"))));
}

#[test]
fn many_hosts_in_json() {
    insta::assert_json_snapshot!(json(&format!("{} {}", data("web"), data("db"))));
}

#[test]
fn what_was_wrong_is_told() {
    let output = report(&format!("{} {}", data("web"), data("db")));
    insta::assert_snapshot!(standard_error(&output));
}

#[test]
fn one_signature_in_detail() {
    insta::assert_snapshot!(text(&format!("--signature 215EDE0D73F6D206 {} {}", data("web"), data("db"))));
    let output = report(&format!("--signature 0000000000000000 {}", data("web")));
    assert_eq!(output.status.code(), Some(0));
    assert!(standard_error(&output).contains("no group among these has the signature 0000000000000000"));
}

#[test]
fn a_deploy_in_text() {
    insta::assert_snapshot!(text(&format!("--diff {} {}", data("web"), data("after"))));
}

#[test]
fn a_deploy_in_json() {
    insta::assert_json_snapshot!(json(&format!("--diff {} {}", data("web"), data("after"))));
}

#[test]
fn nothing_is_an_empty_report() {
    insta::assert_snapshot!(text("-"));
    insta::assert_snapshot!(text("--diff /dev/null -"));
    assert_eq!(json("")["groups"], Value::Array(Vec::new()));
}

#[test]
fn order_and_repetition_of_files_change_nothing() {
    let once = json(&format!("{} {}", data("web"), data("after")));
    let mut again = json(&format!("{0} {1} {1} {0}", data("after"), data("web")));
    assert_eq!((again["duplicates"].as_u64(), once["duplicates"].as_u64()), (Some(6), Some(0)));
    again["duplicates"] = 0.into();
    assert_eq!(again, once);
}

#[test]
fn standard_input_is_a_file_among_others() {
    let mut child = command(&format!("--format json - {}", data("after")))
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .spawn()
        .unwrap();
    let web = fs::read(Path::new(env!("CARGO_MANIFEST_DIR")).join(data("web"))).unwrap();
    child.stdin.take().unwrap().write_all(&web).unwrap();
    let piped: Value = serde_json::from_slice(&child.wait_with_output().unwrap().stdout).unwrap();
    assert_eq!(piped["groups"], json(&format!("{} {}", data("web"), data("after")))["groups"]);
}

#[test]
fn dispositions_are_chosen() {
    let of = |what: &str| counts(&json(&format!("{what} {} {}", data("web"), data("db"))));
    assert_eq!(of(""), [10, 4, 4]);
    assert_eq!(of("--disposition handled"), [12000]);
    assert_eq!(of("--disposition caught"), [1]);
    assert_eq!(of("--disposition all"), [12000, 10, 4, 4]);
    assert_eq!(of("--disposition ignored"), [0; 0]);
}

#[test]
fn rows_are_limited_and_the_totals_are_not() {
    let files = format!("{} {}", data("web"), data("db"));
    let record = json(&format!("--top 1 {files}"));
    assert_eq!(
        (counts(&record), record["ranked"].as_u64(), record["ranked_groups"].as_u64()),
        (vec![10], Some(18), Some(3))
    );
    assert!(text(&format!("--top 1 {files}")).contains("and 2 groups more"));
    assert!(!text(&format!("--top 0 {files}")).contains("groups more"));
    assert_eq!(json(&format!("--top 1 --diff {} {}", data("web"), data("after")))["new"].as_array().unwrap().len(), 1);
}

#[test]
fn what_was_skipped_fails_and_the_rest_does_with_strict() {
    let status = |arguments: &str| report(arguments).status.code();
    for strict in ["", "--strict "] {
        assert_eq!(status(&format!("{strict}{}", data("web"))), Some(0));
        assert_eq!(status(&format!("{strict}{0} {0}", data("web"))), Some(0), "duplicates are no damage");
        assert_eq!(status(&format!("{strict}{}", data("db"))), Some(1));
        assert_eq!(status(&format!("{strict}--diff {} {}", data("db"), data("web"))), Some(1));
    }
    let said = standard_error(&report(&data("db")));
    assert!(
        said.contains("3 lines skipped, so that the report lacks what was in them (exit status 1): copy"),
        "{said}"
    );
    let output = report(&format!("--strict {}", data("unbalanced")));
    assert_eq!(output.status.code(), Some(1));
    assert!(standard_error(&output).starts_with("faultline: tests/data/report/unbalanced.jsonl:1: does not add up"));
    assert_eq!(status(&data("unbalanced")), Some(0));
}

/// A file below the folder for tests.
fn written(name: &str, bytes: &[u8]) -> String {
    let path = Path::new(env!("CARGO_TARGET_TMPDIR")).join(format!("report-{name}"));
    fs::write(&path, bytes).unwrap();
    path.display().to_string()
}

fn content(name: &str) -> Vec<u8> {
    fs::read(Path::new(env!("CARGO_MANIFEST_DIR")).join(data(name))).unwrap()
}

fn gzip(bytes: &[u8]) -> Vec<u8> {
    let mut encoder = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::default());
    encoder.write_all(bytes).unwrap();
    encoder.finish().unwrap()
}

#[test]
fn compressed_files_are_read_as_they_are() {
    let plain = json(&format!("{} {}", data("web"), data("after")));
    let gz = written("web.jsonl.1", &gzip(&content("web")));
    let zst = written("after.jsonl.2", &zstd::encode_all(&content("after")[..], 3).unwrap());
    assert_eq!(json(&format!("{gz} {zst}")), plain, "whatever their names are");
    let mut child = command("--format json").stdin(Stdio::piped()).stdout(Stdio::piped()).spawn().unwrap();
    child.stdin.take().unwrap().write_all(&gzip(&content("web"))).unwrap();
    let piped: Value = serde_json::from_slice(&child.wait_with_output().unwrap().stdout).unwrap();
    assert_eq!(piped["groups"], json(&data("web"))["groups"]);
}

#[test]
fn a_compressed_file_that_is_cut_off_is_no_end_of_the_others() {
    let whole = gzip(&content("web"));
    let cut = written("cut.jsonl.gz", &whole[..whole.len() / 2]);
    let output = report(&format!("--format json {cut} {}", data("after")));
    assert_eq!(output.status.code(), Some(1));
    let said = standard_error(&output);
    assert!(said.contains("skipped: the compressed file is cut off here: copy it again"), "{said}");
    let record: Value = serde_json::from_slice(&output.stdout).unwrap();
    assert_eq!(record["groups"], json(&data("after"))["groups"]);
    let xz = written("web.jsonl.xz", b"\xfd7zXZ\0\0\x04\xe6\xd6\xb4\x46");
    let output = report(&xz);
    assert_eq!(output.status.code(), Some(2));
    assert!(standard_error(&output).contains("decompress it first: xz -dc "), "{}", standard_error(&output));
}

/// The summaries of a file, with a family for each group: `f-` and the place of its signature among all of them.
fn with_families(name: &str, signature: impl Fn(&str) -> String) -> Vec<u8> {
    let mut lines = Vec::new();
    for line in String::from_utf8(content(name)).unwrap().lines().filter(|line| !line.is_empty()) {
        let mut record: Value = serde_json::from_str(line).unwrap();
        for group in record["groups"].as_array_mut().into_iter().flatten() {
            let old = group["signature"].as_str().unwrap_or("none").to_owned();
            group["family"] = format!("{:0>16}", &old[..4]).into();
            group["signature"] = signature(&old).into();
        }
        lines.push(record.to_string());
    }
    lines.join("\n").into_bytes()
}

#[test]
fn a_rebuild_makes_nothing_new() {
    let old = written("old-build.jsonl", &with_families("web", str::to_owned));
    let new = written("new-build.jsonl", &with_families("web", |old| old.chars().rev().collect()));
    let diff = |by: &str| {
        let record = json(&format!("{by} --diff {old} {new}"));
        let count = |list: &str| record[list].as_array().unwrap().len() as u64;
        (count("new"), count("gone"), record["in_both"].as_u64().unwrap())
    };
    let (new_bugs, gone, in_both) = diff("");
    assert_eq!((new_bugs, gone), (0, 0));
    assert_eq!(diff("--by signature"), (in_both, in_both, 0));
    // The lines of the second file are those of the first one at the same times: they are another host's.
    let other = String::from_utf8(fs::read(&new).unwrap()).unwrap().replace("web-", "app-");
    let both = format!("{old} {}", written("other-host.jsonl", other.as_bytes()));
    let (families, signatures) = (json(&both), json(&format!("--by signature {both}")));
    assert_eq!(counts(&families).len() * 2, counts(&signatures).len());
    let row = &families["groups"][0];
    let mut signatures: Vec<&str> =
        row["signatures"].as_array().unwrap().iter().map(|build| build["signature"].as_str().unwrap()).collect();
    signatures.sort_unstable();
    signatures.dedup();
    assert_eq!(signatures.len(), 2);
    // The row is found by its family, or by any signature of it.
    for name in signatures.into_iter().chain(row["family"].as_str()) {
        assert_eq!(json(&format!("--signature {name} {both}"))["groups"], Value::Array(vec![row.clone()]), "{name}");
    }
}

/// Thousands of hosts on one processor and on all of them, plain and compressed.
#[test]
fn the_report_is_the_same_on_one_processor_and_on_many() {
    let template = String::from_utf8(with_families("web", str::to_owned)).unwrap();
    let lines: Vec<&str> = template.lines().filter(|line| line.contains("\"type\":\"summary\"")).collect();
    let text: String =
        (0..6000).map(|host| lines[host % lines.len()].replace("web-", &format!("host-{host}-")) + "\n").collect();
    assert!(text.len() > 8 << 20, "several blocks: {}", text.len());
    let plain = written("thousands.jsonl", text.as_bytes());
    let compressed = written("thousands.jsonl.gz", &gzip(text.as_bytes()));
    let run = |program: &str, arguments: &[&str], file: &str| {
        let mut command = Command::new(program);
        command.args(arguments).args(["report", "--format", "json", file]);
        let output = command.env("TZ", "UTC").output().unwrap();
        assert!(output.status.success(), "{}", standard_error(&output));
        let mut record: Value = serde_json::from_slice(&output.stdout).unwrap();
        record["timestamp"] = "NOW".into();
        record
    };
    let faultline = env!("CARGO_BIN_EXE_faultline");
    let all = run(faultline, &[], &plain);
    assert_eq!(all["hosts"].as_u64(), Some(6000));
    assert_eq!(run("taskset", &["-c", "0", faultline], &plain), all);
    assert_eq!(run(faultline, &[], &compressed), all);
}

/// What the agent writes at its defaults when its table of groups is full: 20 MB.
#[test]
fn the_longest_line_of_the_agent_is_read() {
    let line = String::from_utf8(content("web")).unwrap();
    let mut summary: Value = line
        .lines()
        .find_map(|line| serde_json::from_str(line).ok().filter(|it: &Value| it["type"] == "summary"))
        .unwrap();
    let mut group = summary["groups"][0].clone();
    group["count"] = 1.into();
    let frame = serde_json::json!({"address": null, "symbol": "a_function_with_a_name+0x123", "module": "/usr/lib/x86_64-linux-gnu/a-library.so.6",
        "build_id": "0123456789012345678901234567890123456789", "offset": "0x12345", "file": "/build/reproducible-path/of/a/source.c",
        "line": 123, "inlined": false});
    group["frames"] = vec![frame; 16].into();
    let groups = (0..4096).map(|number| {
        group["signature"] = format!("{number:016x}").into();
        group.clone()
    });
    summary["groups"] = groups.collect();
    summary["deliveries"]["matched"] = 4096.into();
    summary["losses"] = serde_json::json!({});
    let text = summary.to_string();
    assert!(text.len() > 16 << 20, "{}", text.len());
    let record = json(&written("long.jsonl", text.as_bytes()));
    assert_eq!((record["ranked_groups"].as_u64(), record["ranked"].as_u64()), (Some(4096), Some(4096)));
}

#[test]
fn complaints_come_to_an_end_and_are_safe_to_show() {
    let lines = br#"{"type":"summary","schema":1,"timestamp":"\u001b[2J"}
"#
    .repeat(25);
    let mut child =
        command("--format json").stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap();
    child.stdin.take().unwrap().write_all(&lines).unwrap();
    let output = child.wait_with_output().unwrap();
    let said = standard_error(&output);
    assert_eq!((output.status.code(), said.lines().count()), (Some(1), 22), "{said}");
    assert!(said.starts_with("faultline: standard input:1: skipped: `\\x1b[2J` is no time"), "{said}");
    assert!(said.contains("faultline: 5 more such lines\n"), "{said}");
    let record: Value = serde_json::from_slice(&output.stdout).unwrap();
    assert_eq!(record["damaged"].as_u64(), Some(25));
}

#[test]
fn what_cannot_be_read_is_an_error() {
    for (arguments, why) in [
        (format!("{} /nonexistent", data("web")), "failed to open `/nonexistent`: No such file or directory"),
        ("/proc".to_owned(), "failed to read `/proc`: it is a folder: give its files, as /proc/*.jsonl*"),
        ("--diff - -".to_owned(), "standard input can't be both files of --diff"),
        ("--signature 12".to_owned(), "a signature has 16 hexadecimal digits"),
        ("--append".to_owned(), "--output"),
        (format!("--diff {}", data("web")), "2 values required"),
    ] {
        let output = report(&arguments);
        assert_eq!(output.status.code(), Some(2), "{arguments}");
        assert!(output.stdout.is_empty(), "{arguments}");
        let said = standard_error(&output);
        assert_eq!(said.lines().count(), 1, "{said}");
        assert!(said.starts_with("faultline: ") && said.contains(why), "{said}");
    }
}

#[test]
fn what_is_no_summary_is_an_error_that_names_the_line() {
    let text = written("text", b"\n# a text\nof two lines\n");
    let others = written("others.jsonl", b"{\"type\":\"fork\",\"schema\":1}\n");
    let alien = written("alien.jsonl", b"{\"level\":\"info\"}\n");
    for (arguments, why) in [
        (text.clone(), format!("{text}:2: this is no summary: expected value at column 1: give files that")),
        (format!("{} {text}", data("web")), format!("{text}:2: this is no summary: ")),
        (format!("--diff {} {text}", data("web")), format!("{text}:2: this is no summary: ")),
        (alien.clone(), format!("{alien}:1: this is no summary: missing field `type`")),
        (others.clone(), format!("{others}:1: this is no summary, and none of the lines is: give files that")),
    ] {
        let output = report(&arguments);
        let said = standard_error(&output);
        assert_eq!((output.status.code(), said.lines().count()), (Some(2), 1), "{arguments}: {said}");
        assert!(output.stdout.is_empty() && said.starts_with(&format!("faultline: failed to report: {why}")), "{said}");
    }
    assert_eq!(
        report(&format!("{others} {}", data("web"))).status.code(),
        Some(0),
        "the agent's files have others, too"
    );
}

#[test]
fn an_output_is_replaced_or_kept_and_never_an_input() {
    let folder = Path::new(env!("CARGO_TARGET_TMPDIR"));
    let (input, output) = (folder.join("report-input.jsonl"), folder.join("report-output.jsonl"));
    fs::copy(Path::new(env!("CARGO_MANIFEST_DIR")).join(data("web")), &input).unwrap();
    let _ = fs::remove_file(&output);
    let lines = |path: &Path| fs::read_to_string(path).unwrap().lines().count();
    let run = |to: &Path, flags: &str| {
        let mut command = command(&format!("--format json {flags}"));
        command.arg("-o").arg(to).arg(&input).output().unwrap()
    };
    for (flags, wanted) in [("", 1), ("--append", 2), ("", 1)] {
        let said = run(&output, flags);
        assert!(said.status.success() && said.stdout.is_empty(), "{}", standard_error(&said));
        assert_eq!(lines(&output), wanted);
    }
    let before = fs::read(&input).unwrap();
    let refused = run(&input, "");
    assert_eq!(refused.status.code(), Some(2));
    assert!(standard_error(&refused).contains("it is one of the files to read"));
    assert_eq!(fs::read(&input).unwrap(), before);
    assert!(run(&input, "--append").status.success(), "what was read before it was written");
}
