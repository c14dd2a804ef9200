//! Frames without names: the record says why each of them has none.

use macro_rules_attribute::apply;
use serde_json::Value;

use crate::compile::compile;
use crate::harness::runs::watch_test;
use crate::harness::{Scratch, run};

/// The reasons that a record has for a module.
fn reasons<'a>(record: &'a Value, module: &Value) -> Vec<&'a str> {
    let failed = record["symbols_failed"].as_array().unwrap().iter();
    failed.filter(|failed| failed["module"] == *module).map(|failed| failed["reason"].as_str().unwrap()).collect()
}

/// The frames of a stack that have no name. Each has a reason.
fn nameless(record: &Value) -> Vec<&Value> {
    let frames = record["stack_trace"].as_array().unwrap().iter();
    let nameless: Vec<&Value> = frames.filter(|frame| frame["symbol"].is_null()).collect();
    for frame in &nameless {
        assert!(!reasons(record, &frame["module"]).is_empty(), "{frame} {record:#}");
    }
    for failed in record["symbols_failed"].as_array().unwrap() {
        assert!(nameless.iter().any(|frame| frame["module"] == failed["module"]), "{failed} {record:#}");
    }
    nameless
}

#[apply(watch_test!)]
fn a_name_that_is_missing_has_a_reason() {
    let scratch = Scratch::new();
    let (program, stripped, library) = (scratch.path("nameless-2c"), scratch.path("bare-2c"), scratch.path("gone.so"));
    compile("nameless.c", &program, &["-O1", "-fno-stack-protector"]);
    compile("nameless.c", &stripped, &["-O1", "-fno-stack-protector", "-s"]);
    compile("plugin.c", &library, &["-shared", "-fPIC"]);
    let cases = ["moved", "vdso", "plain", "jump"].map(|case| format!("{} {case}\n", program.display())).concat();
    let script =
        format!("{cases}{} library {}\n{} jump\nexit 0", program.display(), library.display(), stripped.display());
    let run = run(&scratch.script("all", &script), &["-t"]);
    let [moved, vdso, plain, jump, gone, bare] = &run.records[..] else { panic!("{} {:#?}", run.stderr, run.records) };
    let path = |file: &std::path::Path| Value::from(file.to_str().unwrap());
    for (record, module, reason) in
        [(moved, Value::Null, "no_file"), (plain, path(&program), "no_symbol"), (jump, Value::Null, "no_code")]
    {
        let first = nameless(record)[0];
        assert_eq!((&first["address"], &first["module"]), (&record["instruction_pointer"], &module), "{record:#}");
        assert_eq!(reasons(record, &module), [reason], "{record:#}");
    }
    let [_, main, ..] = nameless(bare)[..] else { panic!("{bare:#}") };
    assert_eq!(main["module"], path(&stripped), "{bare:#}");
    assert_eq!(reasons(bare, &path(&stripped)), ["no_symbol"], "{bare:#}");
    // While a process dies, its files may be found.
    let names = nameless(gone);
    assert!(names.iter().all(|frame| reasons(gone, &frame["module"]) == ["not_found"]), "{gone:#}");
    assert!(!library.exists());
    // The kernel's own code has names.
    assert_eq!(nameless(vdso), Vec::<&Value>::new(), "{vdso:#}");
    let first = &vdso["stack_trace"][0];
    assert_eq!(first["module"], "[vdso]", "{vdso:#}");
    assert!(first["symbol"].as_str().unwrap().contains("clock_gettime+"), "{vdso:#}");
}
