//! Real language runtimes: a fault that they handle is no crash, and if they end because of a fault, the record is that of the fault.

use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use macro_rules_attribute::apply;
use serde_json::{Value, json};

use crate::harness::{self, FAULTLINE, Scratch, is_guest};
use crate::runs::{Watch, watch_test};

/// The results of a command.
struct Run {
    status: i32,
    crashes: Vec<Value>,
    /// How many events of each disposition.
    counts: BTreeMap<String, u64>,
    /// Runs that the kernel skipped are among them.
    losses: Value,
}

/// A program that a test runs, and how to build it.
struct Program {
    folder: &'static str,
    file: &'static str,
    source: &'static str,
    command: &'static str,
}

const BUILT: [&Program; 4] = [&JAVA_NULLS, &JAVA_WILD, &GO, &RUST];

impl Program {
    /// The folder in which it is built, outside of guests.
    fn place(&self) -> PathBuf {
        Path::new(env!("CARGO_TARGET_TMPDIR")).join("runtimes").join(self.folder)
    }

    /// Builds it; its compiler must be there.
    fn build(&self) {
        let place = self.place();
        let _ = fs::remove_dir_all(&place);
        fs::create_dir_all(&place).unwrap();
        fs::write(place.join(self.file), self.source).unwrap();
        let built = Command::new("sh").args(["-c", self.command]).current_dir(&place).output().unwrap();
        assert!(built.status.success(), "{}: {}", self.command, String::from_utf8_lossy(&built.stderr));
        fs::write(place.join("built"), "").unwrap();
    }

    /// A folder with the program in it. In a guest a build takes minutes, so that it gets a copy of the program that was built outside.
    fn folder(&self) -> Scratch {
        if !is_guest() {
            self.build();
        }
        let folder = Scratch::new();
        let source = format!("{}/.", self.place().display());
        let copied = Command::new("cp").args(["-a", &source]).arg(folder.path("")).status().unwrap();
        assert!(copied.success() && folder.path("built").exists(), "not built: ci/vm does it before it boots a guest");
        folder
    }
}

/// Builds what guests need; ci/vm runs it.
#[apply(watch_test!)]
#[ignore = "for guests: the tests do it themselves"]
fn for_guests() {
    for program in BUILT {
        program.build();
    }
}

/// Runs `command` of a shell in `folder` under `faultline crash --summary`.
fn run(folder: &Scratch, command: &str) -> Run {
    let records = folder.path("records");
    let output = Command::new(FAULTLINE)
        .args(["crash", "-r", "-t", "--summary", "3600", "--format", "json", "--output"])
        .arg(&records)
        .args(["--", "sh", "-c"])
        .arg(format!("exec {command}"))
        .current_dir(folder.path(""))
        .watch();
    let mut records = harness::records(fs::read(&records).unwrap());
    let summary = records.pop().unwrap_or_else(|| panic!("{}", String::from_utf8_lossy(&output.stderr)));
    let mut counts = BTreeMap::new();
    for group in summary["groups"].as_array().unwrap() {
        *counts.entry(group["disposition"].as_str().unwrap().to_owned()).or_default() +=
            group["count"].as_u64().unwrap();
    }
    Run { status: output.status.code().unwrap(), crashes: records, counts, losses: summary["sample_losses"].clone() }
}

/// The one record of a fault that a handler took, and how the process ended.
fn caught(run: &Run, ended_by: &Value) -> Value {
    assert_eq!(run.crashes.len(), 1, "{:#?} {}", run.crashes, run.losses);
    let crash = &run.crashes[0];
    assert_eq!(
        (&crash["signal"], &crash["disposition"]),
        (&"SIGSEGV".into(), &"caught".into()),
        "{crash:#} {}",
        run.losses
    );
    assert_eq!(crash["ended_by"], *ended_by, "{crash:#}");
    assert_eq!(crash["sender"], Value::Null);
    crash.clone()
}

fn has_frame(crash: &Value, name: &str) -> bool {
    let frames = crash["stack_trace"].as_array().unwrap();
    frames.iter().any(|frame| frame["symbol"].as_str().is_some_and(|symbol| symbol.starts_with(name)))
}

#[apply(watch_test!)]
fn python_with_faulthandler() {
    let run = run(&Scratch::new(), r#"python3 -X faulthandler -c "import ctypes; ctypes.string_at(0)""#);
    let crash = caught(&run, &json!({ "signal": "SIGSEGV", "code": "SI_TKILL", "exit_code": null }));
    assert_eq!((run.status, &crash["fault_address"]), (139, &"0x0".into()));
    assert_eq!((&crash["stack_complete"], &crash["unwinder"]), (&true.into(), &"eh_frame".into()), "{crash:#}");
    assert!(has_frame(&crash, "ffi_call"), "ctypes calls through libffi: {crash:#}");
}

#[apply(watch_test!)]
fn python_without() {
    let run = run(&Scratch::new(), r#"python3 -c "import ctypes; ctypes.string_at(0)""#);
    assert_eq!((run.status, run.crashes.len()), (139, 1));
    assert_eq!((&run.crashes[0]["disposition"], &run.crashes[0]["ended_by"]), (&"fatal".into(), &Value::Null));
    assert_eq!(run.crashes[0]["diagnosis"]["kind"], "null_dereference");
}

const JAVA_NULLS: Program = Program {
    folder: "java-nulls",
    file: "Nulls.java",
    source: "public class Nulls {
    static int length(int[] array) { return array.length; }
    public static void main(String[] none) {
        int caught = 0;
        for (int i = 0; i < 20000; i++) {
            try { caught += length(i < 0 ? new int[1] : null); } catch (NullPointerException e) { caught++; }
        }
        System.exit(caught == 20000 ? 0 : 1);
    }
}",
    command: "javac Nulls.java",
};

#[apply(watch_test!)]
fn java_lives_on_after_20000_null_checks() {
    let folder = JAVA_NULLS.folder();
    // Compiled code faults each time; without the first option the JVM soon checks by an instruction instead. Only Nulls is compiled:
    // to compile the rest would take a guest a minute.
    let java = "java -XX:-OmitStackTraceInFastThrow -Xcomp -XX:CompileCommand=quiet -XX:CompileCommand=compileonly,Nulls::* -cp . Nulls";
    let run = run(&folder, java);
    assert_eq!((run.status, run.crashes.len()), (0, 0), "{:#?}", run.crashes);
    assert_eq!(run.counts.keys().collect::<Vec<_>>(), ["handled"], "{:?}", run.counts);
    assert!(run.counts["handled"] >= 20_000, "{:?}", run.counts);
}

const JAVA_WILD: Program = Program {
    folder: "java-wild",
    file: "Wild.java",
    source: "public class Wild {
    public static void main(String[] none) throws Exception {
        java.lang.reflect.Field field = sun.misc.Unsafe.class.getDeclaredField(\"theUnsafe\");
        field.setAccessible(true);
        ((sun.misc.Unsafe) field.get(null)).putAddress(24L, 1L);
    }
}",
    command: "javac Wild.java 2>&1",
};

/// The JVM's handler itself faults on its way, and handles that: the record is that of the first fault. It exits, or aborts.
#[apply(watch_test!)]
fn java_that_dies() {
    let folder = JAVA_WILD.folder();
    for (option, status, end) in [
        ("-XX:-CreateCoredumpOnCrash", 1, json!({ "signal": null, "code": null, "exit_code": 1 })),
        ("-XX:+CreateCoredumpOnCrash", 134, json!({ "signal": "SIGABRT", "code": "SI_TKILL", "exit_code": null })),
    ] {
        let run = run(&folder, &format!("java {option} -cp . Wild"));
        let crash = caught(&run, &end);
        assert_eq!((run.status, &crash["fault_address"]), (status, &"0x18".into()));
        assert!(has_frame(&crash, "Unsafe_Put"), "{crash:#}");
    }
}

const GO: Program = Program {
    folder: "go",
    file: "item.go",
    source: "package main
    import (\"os\"; \"runtime\"; \"time\")
    type item struct { before [3]int64; field int64 }
    //go:noinline
    func touch(item *item) int64 { return item.field }
    func try() { defer func() { recover() }(); touch(nil) }
    func main() {
        switch os.Args[1] {
        case \"recovers\": try()
        case \"exits\": try(); os.Exit(2)
        case \"dies\": touch(nil)
        case \"dies-late\": runtime.LockOSThread(); defer time.Sleep(6 * time.Second); touch(nil)
        }
    }",
    command: "HOME=$PWD GO111MODULE=off go build -o item item.go",
};

#[apply(watch_test!)]
fn go_recovers_or_does_not() {
    let folder = GO.folder();
    for (what, status) in [("recovers", 0), ("exits", 2)] {
        let run = run(&folder, &format!("./item {what}"));
        assert_eq!((run.status, run.crashes.len()), (status, 0), "{what}: {:#?}", run.crashes);
        assert_eq!(run.counts, BTreeMap::from([("handled".to_owned(), 1)]));
    }
    let run = run(&folder, "./item dies");
    let crash = caught(&run, &json!({ "signal": null, "code": null, "exit_code": 2 }));
    assert_eq!(run.status, 2);
    // main.main is missing: touch() has no frame of its own, and only three of the registers are known.
    assert!(has_frame(&crash, "main.touch") && has_frame(&crash, "runtime.main"), "{crash:#}");
    let aborts = || json!({ "signal": "SIGABRT", "code": "SI_TKILL", "exit_code": null });
    caught(&self::run(&folder, "env GOTRACEBACK=crash ./item dies"), &aborts());
    // More time may pass between the panic and the end than the word on the stack alone is believed: 5 s, if a tick is 10 ms.
    let late = self::run(&folder, "./item dies-late");
    assert_eq!(
        caught(&late, &json!({ "signal": null, "code": null, "exit_code": 2 }))["signature"],
        crash["signature"]
    );
    caught(&self::run(&folder, "env GOTRACEBACK=crash ./item dies-late"), &aborts());
}

const RUST: Program = Program {
    folder: "rust",
    file: "deep.rs",
    source: "#[inline(never)] fn deep(n: u64) -> u64 {
        let local = [n; 64];
        std::hint::black_box(&local);
        deep(n + 1) + local[0]
    }
    fn main() {
        let thread = std::thread::Builder::new().name(\"worker\".to_owned());
        match std::env::args().nth(1) {
            None => println!(\"{}\", deep(0)),
            Some(_) => println!(\"{}\", thread.spawn(|| deep(0)).unwrap().join().unwrap()),
        }
    }",
    command: "rustc -g -A warnings deep.rs",
};

#[apply(watch_test!)]
fn rust_overflows_its_stack() {
    let folder = RUST.folder();
    for (argument, thread) in [("", "deep"), ("thread", "worker")] {
        let run = run(&folder, &format!("./deep {argument}"));
        let crash = caught(&run, &json!({ "signal": "SIGABRT", "code": "SI_TKILL", "exit_code": null }));
        assert_eq!((run.status, &crash["thread_name"]), (134, &thread.into()));
        assert!(has_frame(&crash, "deep::deep"), "{crash:#}");
        assert_eq!(crash["diagnosis"]["kind"], "stack_overflow", "{crash:#}");
    }
}

#[apply(watch_test!)]
fn node_traps_and_lives_on() {
    let folder = Scratch::new();
    // (module (memory 1) (func (export "f") (param i32) (result i32) (i32.load (local.get 0))))
    let source =
        "const bytes = new Uint8Array([0,97,115,109,1,0,0,0,1,6,1,96,1,127,1,127,3,2,1,0,5,3,1,0,1,7,5,1,1,102,0,0,
        10,9,1,7,0,32,0,40,2,0,11]);
        const f = new WebAssembly.Instance(new WebAssembly.Module(bytes)).exports.f;
        let trapped = 0;
        for (let i = 0; i < 1000; i++) { try { f(0x7fffffff); } catch (error) { trapped++; } }
        process.exit(trapped == 1000 ? 0 : 1);";
    fs::write(folder.path("trap.js"), source).unwrap();
    let run = run(&folder, "node trap.js");
    assert_eq!((run.status, run.crashes.len()), (0, 0), "{:#?}", run.crashes);
    assert_eq!(run.counts, BTreeMap::from([("handled".to_owned(), 1000)]));
}

#[apply(watch_test!)]
fn ruby_reports_and_aborts() {
    let run = run(&Scratch::new(), "ruby -rfiddle -e 'Fiddle::Pointer.new(8)[0]'");
    let crash = caught(&run, &json!({ "signal": "SIGABRT", "code": "SI_TKILL", "exit_code": null }));
    assert_eq!((run.status, &crash["fault_address"]), (134, &"0x8".into()));
    assert!(has_frame(&crash, "rb_vm_exec"), "{crash:#}");
}

#[apply(watch_test!)]
fn luajit_has_no_handler() {
    let run = run(&Scratch::new(), r#"luajit -e 'print(require("ffi").cast("int*", 8)[0])'"#);
    assert_eq!((run.status, run.crashes.len()), (139, 1));
    let crash = &run.crashes[0];
    assert_eq!((&crash["disposition"], &crash["fault_address"]), (&"fatal".into(), &"0x8".into()));
    assert!(has_frame(crash, "lua_pcall"), "{crash:#}");
}

#[apply(watch_test!)]
fn a_shell_sends_itself_a_signal() {
    let run = run(&Scratch::new(), "bash -c 'kill -SEGV $$'");
    assert_eq!((run.status, run.crashes.len()), (139, 1));
    let crash = &run.crashes[0];
    assert_eq!((&crash["code"], &crash["fault_address"]), (&"SI_USER".into(), &Value::Null));
    assert_eq!((&crash["sender"]["comm"], &crash["diagnosis"]), (&"bash".into(), &Value::Null));
}
