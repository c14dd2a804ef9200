//! A record without the values that differ from run to run and from build to build: the rest is one snapshot for all kernels.

use serde_json::{Value, json};

use crate::harness::arch;

/// An address below this is a constant of the program, one above it is due to the layout.
const FIRST_PAGES: u64 = 0x10000;

/// Programs that together fill every field: they are enough if the same kernel programs have already shown all the others.
pub(crate) const FEW: &[&str] =
    &["null-write", "readonly-write", "bus-error", "sent-segv", "seccomp-trap", "stack-overflow-thread"];

/// Compares the record of a program with its snapshot.
pub(crate) fn compare(name: &str, record: &Value) {
    let mut settings = insta::Settings::clone_current();
    settings.set_snapshot_path("../snapshots");
    settings.set_prepend_module_to_snapshot(false);
    settings.set_omit_expression(true);
    settings.bind(|| insta::assert_json_snapshot!(arch::snapshot(name), settled(record)));
}

fn settled(record: &Value) -> Value {
    let exe = record["exe"].as_str().unwrap_or_default().to_owned();
    let mut record = arch::as_on_x86_64(record);
    for (field, word) in [
        ("timestamp", "[time]"),
        ("host", "[host]"),
        ("pid", "[pid]"),
        ("tid", "[tid]"),
        ("ppid", "[pid]"),
        ("pid_in_namespace", "[pid]"),
        ("exe", "[exe]"),
        ("build_id", "[build id]"),
        ("cgroup", "[cgroup]"),
        ("instruction_pointer", "[address]"),
        ("signature", "[signature]"),
        ("cpu", "[cpu]"),
    ] {
        assert!(!record[field].is_null(), "{field} is never unknown here: {record:#}");
        record[field] = word.into();
    }
    // The names of a library's frames are not the same on each machine.
    if record["family"].is_string() {
        record["family"] = "[family]".into();
    }
    record["fault_address"] = address(&record["fault_address"]);
    // A library has names only on a machine with its symbols, and how its frames end differs.
    let innermost = &record["stack_trace"][0]["module"];
    if innermost.is_string() && innermost != exe.as_str() {
        record["instruction_symbol"] = "[a library's]".into();
        record["stack_complete"] = "[a library's]".into();
    } else {
        record["instruction_symbol"] = symbol(&record["instruction_symbol"]);
    }
    if !record["diagnosis"].is_null() {
        // Its numbers are those of the fields above.
        record["diagnosis"]["text"] = "[text]".into();
    }
    if !record["sender"].is_null() {
        record["sender"]["pid"] = "[pid]".into();
    }
    if !record["seccomp"].is_null() {
        record["seccomp"]["call_address"] = "[address]".into();
    }
    let registers = record["registers"].as_object().unwrap();
    record["registers"] = registers.keys().cloned().collect();
    record["vma"] = mapping(&record["vma"], &exe);
    for neighbour in ["vma_below", "vma_above"] {
        // The kernel and the loader decide what lies there, except for these two.
        let name = record[neighbour]["mapping_name"].clone();
        record[neighbour] = match name.as_str() {
            _ if record[neighbour].is_null() => Value::Null,
            Some("[stack]") => mapping(&record[neighbour], &exe),
            Some(path) if path == exe => mapping(&record[neighbour], &exe),
            _ => "[another mapping]".into(),
        };
    }
    if let Some(earlier) = record.pointer_mut("/earlier_fault/stack_trace").and_then(Value::as_array_mut) {
        earlier.iter_mut().for_each(|frame| *frame = settled_frame(frame, &exe));
    }
    // The program's own frames.
    let frames = record["stack_trace"].as_array().unwrap();
    let own = frames.iter().enumerate().filter(|(index, frame)| *index == 0 || frame["module"] == exe.as_str());
    record["stack_trace"] = own.map(|(_, frame)| settled_frame(frame, &exe)).collect();
    // The same is so of what it doesn't name.
    let failed = record["symbols_failed"].as_array_mut().unwrap();
    let is_librarys = |failed: &Value| failed["module"].is_string() && failed["module"] != exe.as_str();
    failed.retain(|failed| !(is_librarys(failed) && failed["reason"] == "no_symbol"));
    if record["diagnosis"]["kind"] == "stack_overflow" {
        // Which instruction of the function meets the stack's end depends on where the kernel put the stack.
        record["stack_trace"][0]["line"] = "[line]".into();
    }
    record
}

fn settled_frame(frame: &Value, exe: &str) -> Value {
    if frame["module"] != exe {
        return json!({ "address": "[address]", "module": file(&frame["module"], exe) });
    }
    let source = frame["file"].as_str().and_then(|path| path.rsplit('/').next());
    json!({
        "address": "[address]",
        "symbol": symbol(&frame["symbol"]),
        "module": "[exe]",
        "offset": "[offset]",
        "build_id": "[build id]",
        "file": source,
        "line": frame["line"],
        "inlined": frame["inlined"],
    })
}

fn mapping(vma: &Value, exe: &str) -> Value {
    if vma.is_null() {
        return Value::Null;
    }
    let is_own = vma["mapping_name"] == exe;
    json!({
        "start": "[address]",
        "end": "[address]",
        "permissions": vma["permissions"],
        "mapping_name": file(&vma["mapping_name"], exe),
        "offset": if is_own { arch::offset_on_x86_64(&vma["offset"]) } else { vma["offset"].clone() },
    })
}

fn file(name: &Value, exe: &str) -> Value {
    match name.as_str() {
        None => Value::Null,
        Some(path) if path == exe => "[exe]".into(),
        Some(path) if path.starts_with('[') => path.into(),
        Some(path) if path.ends_with(" (deleted)") => "[a deleted file]".into(),
        Some(_) => "[another file]".into(),
    }
}

fn address(value: &Value) -> Value {
    let number = value.as_str().and_then(|text| u64::from_str_radix(text.strip_prefix("0x")?, 16).ok());
    match number {
        None => Value::Null,
        Some(small) if small < FIRST_PAGES => value.clone(),
        Some(_) => "[address]".into(),
    }
}

fn symbol(value: &Value) -> Value {
    match value.as_str().map(|symbol| symbol.split_once('+')) {
        Some(Some((name, _))) => format!("{name}+[offset]").into(),
        Some(None) => value.clone(),
        None => Value::Null,
    }
}
