//! `faultline memory` with real programs: a packed one, and runtimes that make code while they run.

use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, Output, Stdio};

use macro_rules_attribute::apply;
use serde_json::Value;

use crate::harness::runs::{Watch, note, watch_test};
use crate::harness::{FAULTLINE, Scratch, hex, programs};

/// mov eax, 0x7e57c0de; xor eax, 0x1234567: no compiler makes this from other code.
const MARK: [u8; 10] = [0xb8, 0xde, 0xc0, 0x57, 0x7e, 0x35, 0x67, 0x45, 0x23, 0x01];

fn faultline(scratch: &Scratch, flags: &[&str], command: &[&str]) -> (Output, Vec<Value>) {
    let file = scratch.path("records");
    let output = Command::new(FAULTLINE)
        .args(["memory", "--format", "json", "-v", "--output"])
        .arg(&file)
        .args(flags)
        .arg("--")
        .args(command)
        .watch();
    let text = fs::read_to_string(&file).unwrap_or_default();
    let records = text.lines().map(|line| serde_json::from_str(line).unwrap()).collect();
    (output, records)
}

fn stderr(output: &Output) -> String {
    String::from_utf8_lossy(&output.stderr).into_owned()
}

fn holds(bytes: &[u8], part: &[u8]) -> bool {
    bytes.windows(part.len()).any(|window| window == part)
}

fn run(program: &str, arguments: &[&str]) {
    let output = Command::new(program).args(arguments).output().unwrap_or_else(|error| panic!("{program}: {error}"));
    assert!(output.status.success(), "{program}: {}{}", String::from_utf8_lossy(&output.stdout), stderr(&output));
}

/// A packed program with known code, which does nothing: the code is in no file any more, and it is in the dump.
#[apply(watch_test!)]
fn what_upx_has_packed_is_dumped_unpacked() {
    let scratch = Scratch::new();
    let (source, plain, packed, dump) =
        (scratch.path("true.c"), scratch.path("true"), scratch.path("packed"), scratch.path("dump"));
    fs::write(
        &source,
        "__attribute__((noinline)) int marked(void) { int n; \
         __asm__ volatile(\"mov $0x7e57c0de, %%eax; xor $0x1234567, %%eax\" : \"=a\"(n)); return n; } \
         int main(void) { return marked() == 0; }",
    )
    .unwrap();
    let [source, plain, packed, folder] = [&source, &plain, &packed, &dump].map(|path| path.to_str().unwrap());
    run("gcc", &["-O1", "-static", "-o", plain, source]);
    run("upx", &["-q", "-o", packed, plain]);
    assert!(holds(&fs::read(plain).unwrap(), &MARK) && !holds(&fs::read(packed).unwrap(), &MARK), "packed");
    let (output, records) = faultline(&scratch, &["--dump", folder, "--elf"], &[packed]);
    assert_eq!(output.status.code(), Some(0), "{}", stderr(&output));
    let page = records
        .iter()
        .filter(|record| record["type"] == "page")
        .find(|page| holds(&fs::read(dump.join(page["file"].as_str().unwrap())).unwrap(), &MARK))
        .unwrap_or_else(|| panic!("not found: {}", stderr(&output)));
    assert_eq!((&page["resident"], &page["source"]), (&true.into(), &"kernel".into()), "{page:#}");
    assert_eq!(page["permissions"], "r-xp");
    // The whole program is there as an ELF file, which other tools can read.
    let pid = page["pid"].to_string();
    let files: Vec<PathBuf> = fs::read_dir(dump.join(&pid)).unwrap().map(|entry| entry.unwrap().path()).collect();
    let rebuilt = files
        .iter()
        .filter(|path| path.extension().is_some_and(|extension| extension == "elf"))
        .find(|path| holds(&fs::read(path).unwrap(), &MARK))
        .unwrap_or_else(|| panic!("no ELF file with it: {files:?}"));
    let shown = Command::new("objdump").args(["-d", "--no-show-raw-insn"]).arg(rebuilt).output().unwrap();
    let text = String::from_utf8_lossy(&shown.stdout).into_owned();
    assert!(shown.status.success() && text.contains("$0x7e57c0de,%eax"), "{}", stderr(&shown));
    let debugged = Command::new("gdb").args(["-nx", "-batch", "-ex", "info files"]).arg(rebuilt).output().unwrap();
    let text = String::from_utf8_lossy(&debugged.stdout).into_owned();
    assert!(text.contains("is .text"), "{text}{}", stderr(&debugged));
}

/// A call as strace and a record have it: thread, name, address, length, protection.
type Seen = (i64, String, u64, u64, String);

/// The calls that asked for executable memory and got it, as strace wrote them.
fn traced(path: &Path) -> Vec<Seen> {
    let mut pending: BTreeMap<String, String> = BTreeMap::new();
    let mut all = Vec::new();
    for line in fs::read_to_string(path).unwrap().lines() {
        let (tid, rest) = line.split_once(' ').unwrap();
        let rest = rest.trim_start();
        let whole = if let Some(begin) = rest.strip_suffix(" <unfinished ...>") {
            pending.insert(tid.to_owned(), begin.to_owned());
            continue;
        } else if let Some((_, end)) = rest.split_once(" resumed>") {
            pending.remove(tid).unwrap_or_default() + end
        } else {
            rest.to_owned()
        };
        let Some((name, rest)) = whole.split_once('(') else { continue };
        let Some((arguments, result)) = rest.rsplit_once(" = ") else { continue };
        let arguments: Vec<&str> = arguments.trim_end().trim_end_matches(')').split(", ").collect();
        let is_map = matches!(name, "mmap" | "mprotect" | "pkey_mprotect");
        if !is_map || !arguments[2].contains("PROT_EXEC") || result.starts_with('-') {
            continue;
        }
        let number = |text: &str| u64::from_str_radix(text.trim_start_matches("0x"), 16).unwrap();
        let address = if name == "mmap" { number(result) } else { number(arguments[0]) };
        let length: u64 = arguments[1].parse().unwrap();
        let length = length.next_multiple_of(4096);
        all.push((tid.parse().unwrap(), name.to_owned(), address, length, arguments[2].to_owned()));
    }
    all
}

fn recorded(records: &[Value]) -> Vec<Seen> {
    let calls = records.iter().filter(|record| record["type"] == "mapping" && record["arguments"]["prot"].is_string());
    calls
        .filter(|record| record["error"].is_null())
        .map(|record| {
            (
                record["tid"].as_i64().unwrap(),
                record["call"].as_str().unwrap().to_owned(),
                hex(&record["address"]),
                record["length"].as_u64().unwrap(),
                record["arguments"]["prot"].as_str().unwrap().to_owned(),
            )
        })
        .filter(|(.., protection)| protection.contains("PROT_EXEC"))
        .collect()
}

/// Runs a program that writes its /proc/self/maps to the file named `maps` at its end, once under strace: every executable
/// mapping is accounted for by a record, and every call that strace saw has one.
fn account(folder: &Scratch, command: &[&str]) {
    let (calls, maps) = (folder.path("calls"), folder.path("maps"));
    let strace = ["strace", "-f", "-q", "-e", "trace=mmap,mprotect,pkey_mprotect", "-o", calls.to_str().unwrap()];
    let (output, records) = faultline(folder, &["--pages"], &[&strace[..], command].concat());
    assert_eq!(output.status.code(), Some(0), "{}{}", String::from_utf8_lossy(&output.stdout), stderr(&output));
    // strace itself maps memory, and so does its child before the program begins: only the program's threads are compared.
    let mut expected = traced(&calls);
    let tids: Vec<i64> = expected.iter().map(|(tid, ..)| *tid).collect();
    let mut seen: Vec<Seen> = recorded(&records).into_iter().filter(|(tid, ..)| tids.contains(tid)).collect();
    expected.sort();
    seen.sort();
    let missing: Vec<&Seen> = expected.iter().filter(|call| !seen.contains(call)).collect();
    assert!(missing.is_empty(), "strace alone has {missing:#x?}\n{}", stderr(&output));
    // Mappings from before strace attached to its child are in our records only.
    assert!(seen.len() >= expected.len() && !expected.is_empty());
    let said = fs::read_to_string(&maps).unwrap();
    let pid = said.lines().next().unwrap().parse::<i64>().unwrap();
    let mut covered: Vec<(u64, u64)> = records
        .iter()
        .filter(|record| record["type"] == "mapping" && record["pid"] == pid && record["call"] != "unseen")
        .filter(|record| record["permissions"].as_str().is_some_and(|permissions| permissions.contains('x')))
        .map(|record| (hex(&record["address"]), hex(&record["address"]) + record["length"].as_u64().unwrap()))
        .collect();
    covered.sort_unstable();
    let mut count = 0;
    for line in said.lines().skip(1) {
        let mut fields = line.split_whitespace();
        let (range, permissions) = (fields.next().unwrap(), fields.next().unwrap());
        if !permissions.contains('x') || line.ends_with("[vsyscall]") {
            continue;
        }
        let (start, end) = range.split_once('-').unwrap();
        let number = |text| u64::from_str_radix(text, 16).unwrap();
        let (mut at, end) = (number(start), number(end));
        for (from, to) in &covered {
            if *from <= at && at < *to {
                at = *to;
            }
        }
        assert!(at >= end, "{line} is not accounted for from {at:#x} on\n{}", stderr(&output));
        count += 1;
    }
    assert!(count > 3, "{said}");
    for loss in ["call_ring_full 0", "runs_missed 0", "mappings_unseen 0", "pages_nameless 0"] {
        assert!(stderr(&output).contains(loss), "{loss}: {}", stderr(&output));
    }
}

#[apply(watch_test!)]
fn node_is_accounted_for() {
    let scratch = Scratch::new();
    let script = scratch.path("hot.js");
    fs::write(
        &script,
        "const fs = require('fs');
         function hot(n) { let sum = 0; for (let i = 0; i < n; i++) sum = (sum * 31 + i) | 0; return sum; }
         for (let i = 0; i < 2000; i++) hot(1000);
         fs.writeFileSync(process.argv[2], process.pid + '\\n' + fs.readFileSync('/proc/self/maps'));",
    )
    .unwrap();
    account(&scratch, &["node", script.to_str().unwrap(), scratch.path("maps").to_str().unwrap()]);
}

#[apply(watch_test!)]
fn luajit_is_accounted_for() {
    let scratch = Scratch::new();
    let script = scratch.path("hot.lua");
    fs::write(
        &script,
        "local sum = 0
         for i = 1, 1e6 do sum = (sum * 31 + i) % 65536 end
         local own = io.open('/proc/self/maps')
         local maps, stat = own:read('*a'), io.open('/proc/self/stat'):read('*n')
         io.open(arg[1], 'w'):write(stat, '\\n', maps)",
    )
    .unwrap();
    account(&scratch, &["luajit", script.to_str().unwrap(), scratch.path("maps").to_str().unwrap()]);
}

#[apply(watch_test!)]
fn java_is_accounted_for() {
    let scratch = Scratch::new();
    let source = scratch.path("Hot.java");
    fs::write(
        &source,
        "public class Hot {
            static int hot(int n) { int sum = 0; for (int i = 0; i < n; i++) sum = sum * 31 + i; return sum; }
            public static void main(String[] arguments) throws Exception {
                int all = 0;
                for (int i = 0; i < 20000; i++) all += hot(1000);
                byte[] maps = new java.io.FileInputStream(\"/proc/self/maps\").readAllBytes();
                try (var file = new java.io.FileOutputStream(arguments[0])) {
                    file.write((ProcessHandle.current().pid() + \"\\n\").getBytes());
                    file.write(maps);
                }
                System.exit(all == 1 ? 1 : 0);
            }
        }",
    )
    .unwrap();
    let folder = scratch.path("").to_str().unwrap().to_owned();
    run("javac", &["-d", &folder, source.to_str().unwrap()]);
    account(&scratch, &["java", "-cp", &folder, "Hot", scratch.path("maps").to_str().unwrap()]);
}

#[apply(watch_test!)]
fn a_process_that_runs_already_is_told_whole_and_its_end_is_ours() {
    let scratch = Scratch::new();
    let file = scratch.path("records");
    let mut child = Command::new("sleep").arg("1000").stdout(Stdio::null()).spawn().unwrap();
    let pid = child.id();
    let watching = Command::new(FAULTLINE)
        .args(["memory", "--format", "json", "--pages", "-p", &pid.to_string(), "--output"])
        .arg(&file)
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    // Mappings that are there already are reported when it has attached.
    while !fs::read_to_string(&file).is_ok_and(|text| text.contains("[vdso]")) {
        std::thread::sleep(std::time::Duration::from_millis(20));
    }
    child.kill().unwrap();
    child.wait().unwrap();
    let output = watching.wait_with_output().unwrap();
    note(&output.stderr);
    assert_eq!(output.status.code(), Some(0));
    let text = fs::read_to_string(&file).unwrap();
    let pages: Vec<Value> = text.lines().map(|line| serde_json::from_str(line).unwrap()).collect();
    assert!(pages.iter().all(|page| page["type"] == "page" && page["trigger"] == "attach" && page["pid"] == pid));
    for name in ["sleep", "libc.so.6", "[vdso]"] {
        let is_it = |page: &&Value| page["mapping_name"].as_str().is_some_and(|path| path.ends_with(name));
        assert!(pages.iter().any(|page| is_it(&page)), "{name}");
    }
}

#[apply(watch_test!)]
fn what_cant_be_watched_is_an_error() {
    let refusal = |arguments: &[&str]| {
        let output = Command::new(FAULTLINE).arg("memory").args(arguments).watch();
        assert_eq!(output.status.code(), Some(2), "{arguments:?}");
        stderr(&output)
    };
    assert!(refusal(&["-p", "4194304"]).contains("failed to watch PID 4194304: no such process"));
    assert!(refusal(&[]).contains("name a process by --pid PID, a command behind --, or count for all by --watch-all"));
    assert!(refusal(&["--dump", "/proc/nowhere", "--", "true"]).contains("failed to open dump folder `/proc/nowhere`"));
}

#[apply(watch_test!)]
fn text_is_one_line_a_call() {
    let output = Command::new(FAULTLINE)
        .args(["memory", "--pages", "--"])
        .arg(programs().join("memory-cases"))
        .arg("textbook")
        .watch();
    let text = String::from_utf8_lossy(&output.stdout).into_owned();
    let call = text.lines().find(|line| line.contains("] MPROTECT: memory-cases/")).unwrap_or_else(|| panic!("{text}"));
    assert!(call.ends_with(" r-xp anonymous, 1 page: 1 read at once"), "{call}");
    assert!(text.lines().any(|line| line.contains("] PAGE: ") && line.contains(" r-xp mprotect ")), "{text}");
}

/// The whole machine, without a dump; the filter names our own program only.
#[apply(watch_test!)]
fn the_whole_machine_is_counted_in_the_kernel() {
    let scratch = Scratch::new();
    let program = crate::harness::named(&scratch, "memory-pages", "memory-all-3c");
    let file = scratch.path("records");
    let mut watching = Command::new(FAULTLINE)
        .args(["memory", "--watch-all", "-n", "memory-all-3c", "--format", "json", "--output"])
        .arg(&file)
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    let mut line = String::new();
    let mut said = std::io::BufReader::new(watching.stderr.take().unwrap());
    std::io::BufRead::read_line(&mut said, &mut line).unwrap();
    assert!(line.starts_with("faultline: watching "), "{line}");
    run(program.to_str().unwrap(), &["1600"]);
    run("kill", &["-INT", &watching.id().to_string()]);
    assert!(watching.wait().unwrap().success());
    std::io::Read::read_to_string(&mut said, &mut line).unwrap();
    note(line.as_bytes());
    let text = fs::read_to_string(&file).unwrap();
    assert_eq!(text.lines().count(), 1, "{text}");
    let summary: Value = serde_json::from_str(&text).unwrap();
    assert_eq!((&summary["type"], &summary["final"]), (&"executable_memory".into(), &true.into()), "{summary:#}");
    assert_eq!((&summary["calls"], &summary["nameless"]), (&100.into(), &0.into()), "{summary:#}");
    let rows = summary["processes"].as_array().unwrap();
    assert_eq!(rows.len(), 1, "{summary:#}");
    let row = &rows[0];
    assert_eq!((&row["comm"], &row["call"]), (&"memory-all-3c".into(), &"mprotect".into()));
    assert_eq!((&row["count"], &row["total"], &row["writable"]), (&100.into(), &100.into(), &false.into()));
    assert_eq!(row["total_bytes"], 1600 * 4096);
}

mod library {
    use std::process::{Command, Stdio};

    use faultline::memory::{Tracer, Trigger};
    use macro_rules_attribute::apply;

    use crate::harness::programs;
    use crate::harness::runs::watch_test;
    use crate::library::note_losses;

    #[apply(watch_test!)]
    fn who_is_not_there_or_no_process_is_an_error() {
        let missing = Tracer::new(4_194_304).unwrap_err();
        assert_eq!(format!("{missing:#}"), "failed to watch PID 4194304: no such process");
        let thread = std::thread::spawn(|| Tracer::new(nix::unistd::gettid().as_raw() as u32).unwrap_err());
        let thread = format!("{:#}", thread.join().unwrap());
        assert!(thread.contains("it is a thread of process"), "{thread}");
    }

    #[apply(watch_test!)]
    fn pages_come_while_it_runs_and_the_iterator_ends_with_the_process() {
        let mut child = Command::new("sh")
            .arg("-c")
            .arg(format!("read line; exec {} 64", programs().join("memory-pages").display()))
            .stdin(Stdio::piped())
            .stdout(Stdio::null())
            .spawn()
            .unwrap();
        let mut tracing = Tracer::new(child.id()).unwrap().start().unwrap();
        drop(child.stdin.take());
        let pages: Vec<_> = tracing.by_ref().filter(|page| page.trigger == Trigger::Mprotect).collect();
        child.wait().unwrap();
        note_losses(&tracing.stop().unwrap().1);
        let numbers: Vec<u64> =
            pages.iter().map(|page| u64::from_le_bytes(page.bytes[..8].try_into().unwrap())).collect();
        assert_eq!(numbers, (1..=64).collect::<Vec<u64>>());
        assert!(pages.iter().all(|page| page.resident && page.permissions.as_deref() == Some("r-xp")));
    }
}
