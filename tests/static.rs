//! A statically linked faultline, as it is shipped: in a root folder that holds nothing else, and what such a program lacks. Needs root.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

use std::fs;
use std::net::TcpListener;
use std::path::{Path, PathBuf};
use std::process::{Command, Output};
use std::sync::{Once, OnceLock};
use std::time::{Duration, Instant};

use serde_json::Value;

/// The file `/etc/nsswitch.conf` of a host that looks names up by libraries, which a static program can't load.
const BY_LIBRARIES: &str = "passwd: ldap\nhosts: resolve [!UNAVAIL=return] mymachines\n";

fn repository() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR"))
}

/// faultline, linked statically of the libraries of this test.
fn faultline() -> &'static Path {
    static LINKED: OnceLock<PathBuf> = OnceLock::new();
    LINKED.get_or_init(|| {
        let out = Path::new(env!("CARGO_TARGET_TMPDIR")).join("static/faultline");
        let output = Command::new(repository().join("ci/static")).arg(&out).output().unwrap();
        assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
        out
    })
}

/// A program of tests/programs.
fn program(name: &str) -> PathBuf {
    static MADE: Once = Once::new();
    MADE.call_once(|| {
        let made = Command::new("make").arg("-s").arg("-C").arg(repository().join("tests/programs")).status();
        assert!(made.unwrap().success());
    });
    repository().join("target/programs").join(name)
}

/// A root folder with faultline in it.
struct Root(PathBuf);

impl Root {
    fn new(name: &str) -> Self {
        let root = Self(std::env::temp_dir().join(format!("faultline-root-{name}-{}", std::process::id())));
        for folder in ["proc", "sys", "etc", "tmp"] {
            fs::create_dir_all(root.0.join(folder)).unwrap();
        }
        fs::copy(faultline(), root.0.join("faultline")).unwrap();
        root
    }

    /// Runs a command there, in mounts of its own that end with it.
    fn run(&self, variables: &[(&str, &str)], arguments: &[&str]) -> Output {
        const INSIDE: &str =
            "mount --rbind /proc \"$0/proc\" && mount --rbind /sys \"$0/sys\" && exec chroot \"$0\" /faultline \"$@\"";
        let mut command = Command::new("unshare");
        command.args(["--mount", "--propagation", "private", "sh", "-c", INSIDE]).arg(&self.0).args(arguments);
        command.envs(variables.iter().copied()).output().unwrap()
    }
}

impl Drop for Root {
    fn drop(&mut self) {
        let _ = fs::remove_dir_all(&self.0);
    }
}

/// The only record of this type.
fn record(output: &Output, kind: &str) -> Value {
    let text = String::from_utf8(output.stdout.clone()).unwrap();
    let records = text.lines().map(|line| serde_json::from_str::<Value>(line).unwrap());
    let records: Vec<Value> = records.filter(|record| record["type"] == kind).collect();
    assert_eq!(records.len(), 1, "{text}{}", String::from_utf8_lossy(&output.stderr));
    records.into_iter().next().unwrap()
}

fn said(output: &Output) -> String {
    String::from_utf8_lossy(&output.stderr).into_owned()
}

#[test]
fn it_needs_nothing_but_the_kernel() {
    let root = Root::new("empty");
    assert!(fs::read_dir(&root.0).unwrap().all(|entry| entry.unwrap().file_name() != "lib"));
    let output = root.run(&[], &["--version"]);
    let version = String::from_utf8(output.stdout).unwrap();
    assert!(version.contains("linked statically"), "{version}");

    let output = root.run(&[], &["doctor", "--format", "json", "--strict"]);
    assert!(output.status.success(), "{}{}", said(&output), String::from_utf8_lossy(&output.stdout));

    fs::copy(program("static"), root.0.join("program")).unwrap();
    let output = root.run(&[], &["crash", "--format", "json", "-t", "--", "/program"]);
    let crash = record(&output, "crash");
    assert_eq!((crash["signal"].as_str(), crash["fault_address"].as_str()), (Some("SIGSEGV"), Some("0x18")));
    // The children have found the file, and its names.
    let names: Vec<&str> =
        crash["stack_trace"].as_array().unwrap().iter().filter_map(|frame| frame["symbol"].as_str()).collect();
    assert!(names[0].starts_with("touch+") && names[1].starts_with("main+"), "{names:?}");
    // Of its libc some code may have no symbol.
    let mut reasons = crash["symbols_failed"].as_array().unwrap().iter().map(|failed| &failed["reason"]);
    assert!(reasons.all(|reason| reason == "no_symbol"), "{crash:#}");
    assert_eq!(output.status.code(), Some(139), "{}", said(&output));
}

#[test]
fn it_knows_the_message_of_the_hosts_libc_from_the_start() {
    let program = program("failed-assert");
    let output = Command::new(faultline()).args(["crash", "--format", "json", "--"]).arg(&program).output().unwrap();
    let message = record(&output, "crash")["abort_message"].clone();
    assert!(message.as_str().is_some_and(|text| text.contains("Assertion `argc == 0' failed.")), "{message}");
}

#[test]
fn users_have_names_whatever_the_host_looks_them_up_by() {
    let root = Root::new("users");
    fs::write(root.0.join("etc/passwd"), "root:x:0:0::/:/x\nmonitor:x:77:77::/:/x\n").unwrap();
    fs::write(root.0.join("etc/nsswitch.conf"), BY_LIBRARIES).unwrap();
    // It gets as far as the process that isn't there.
    let of = |user| {
        said(&root.run(&[], &["agent", "--metrics-listen", "0", "--metrics-allow-user", user, "-p", "4294967295"]))
    };
    assert!(of("monitor").contains("failed to watch PID"), "{}", of("monitor"));
    assert!(of("nobody-else").contains("no user `nobody-else`"), "{}", of("nobody-else"));
}

#[test]
fn a_server_has_a_name_whatever_the_host_looks_it_up_by() {
    let root = Root::new("hosts");
    fs::write(root.0.join("etc/hosts"), "127.0.0.1 symbols.example\n").unwrap();
    fs::write(root.0.join("etc/nsswitch.conf"), BY_LIBRARIES).unwrap();
    // A program that isn't there: its build id is all that leads to its names.
    let output = Command::new(faultline())
        .args(["crash", "--format", "json", "-t", "--"])
        .arg(program("null-write"))
        .output()
        .unwrap();
    fs::write(root.0.join("records.jsonl"), &output.stdout).unwrap();
    let server = TcpListener::bind("127.0.0.1:0").unwrap();
    server.set_nonblocking(true).unwrap();
    let url = format!("http://symbols.example:{}", server.local_addr().unwrap().port());
    let asked = std::thread::spawn(move || {
        let until = Instant::now() + Duration::from_secs(60);
        while Instant::now() < until {
            if server.accept().is_ok() {
                return true;
            }
            std::thread::sleep(Duration::from_millis(20));
        }
        false
    });
    let variables =
        [("DEBUGINFOD_URLS", url.as_str()), ("DEBUGINFOD_CACHE_PATH", "/tmp/cache"), ("DEBUGINFOD_TIMEOUT", "5")];
    let output = root.run(&variables, &["symbolize", "/records.jsonl"]);
    assert!(asked.join().unwrap(), "{}", said(&output));
}
