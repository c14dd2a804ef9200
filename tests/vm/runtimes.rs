//! Runtimes that end in a way of their own after a fault that they handle: the record is that of the fault. How the kernel shows such an end
//! differs. `tests/host` has the other runtimes.

use std::collections::BTreeMap;

use macro_rules_attribute::apply;
use serde_json::json;

use crate::built::{Program, caught, has_frame, run};
use crate::harness::runs::watch_test;

#[cfg(target_arch = "x86_64")]
const BUILT: [&Program; 2] = [&JAVA_WILD, &GO];
#[cfg(not(target_arch = "x86_64"))]
const BUILT: [&Program; 1] = [&GO];

/// Builds what guests need; ci/vm runs it.
#[apply(watch_test!)]
#[ignore = "for guests: the tests do it themselves"]
fn for_guests() {
    for program in BUILT {
        program.build();
    }
}

/// The root of arm64's guests has no JVM.
#[cfg(target_arch = "x86_64")]
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
#[cfg(target_arch = "x86_64")]
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
    //go:noinline
    func find(is_last bool) *int64 { if is_last { panic(\"none\") }; return nil }
    //go:noinline
    func read(is_last bool) int64 { return *find(is_last) }
    func once(is_last bool) { defer func() { if !is_last { recover() } }(); read(is_last) }
    func main() {
        switch os.Args[1] {
        case \"recovers\": try()
        case \"exits\": try(); os.Exit(2)
        case \"again\": once(false); once(true)
        case \"dies\": touch(nil)
        case \"moved\": go touch(nil); time.Sleep(6 * time.Second)
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
    // The panic that ends it comes from what was called right before the place of the fault that it has recovered from.
    let run = self::run(&folder, "./item again");
    assert_eq!((run.status, run.crashes.len()), (2, 0), "{:#?}", run.crashes);
    // To print the panic moves the stack, which is small as in any goroutine that has just begun.
    let moved = self::run(&folder, "./item moved");
    let crash = caught(&moved, &json!({ "signal": null, "code": null, "exit_code": 2 }));
    assert!(has_frame(&crash, "main.touch"), "{crash:#}");
    let run = self::run(&folder, "./item dies");
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
