//! Real language runtimes: a fault that they handle is no crash, and if they end because of a fault, the record is that of the fault. Those
//! whose end the kernel shows in different ways are in `tests/vm`.

use std::collections::BTreeMap;
use std::fs;

use macro_rules_attribute::apply;
use serde_json::{Value, json};

use crate::built::{Program, caught, has_frame, run};
use crate::harness::Scratch;
use crate::harness::runs::watch_test;

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
