//! Names come from the right file, wherever it is hidden, as long as something leads to it, and never from another file.

use std::fs;
use std::io::{BufRead, BufReader, Write};
use std::path::{Path, PathBuf};
use std::process::{Child, ChildStdin, ChildStdout, Command, Stdio};

use macro_rules_attribute::apply;
use serde_json::Value;

use crate::compile::compile;
use crate::harness::{Scratch, Watching, build_id, named};
use crate::runs::{next_line, watch_test};

/// The name of all processes that are watched here.
const NAME: &str = "files-7c";

fn tool(name: &str, arguments: &[&dyn AsRef<std::ffi::OsStr>]) {
    let output = Command::new(name).args(arguments).output().unwrap_or_else(|error| panic!("{name}: {error}"));
    assert!(output.status.success(), "{name}: {}", String::from_utf8_lossy(&output.stderr));
}

/// faultline, and its records of the programs here.
struct Watch {
    watching: Watching,
    records: BufReader<ChildStdout>,
}

impl Watch {
    fn start(name: &str, more: &[&str]) -> Self {
        let mut watching = Watching::start(&[&["-n", name, "-t", "--format", "json"], more].concat());
        let records = BufReader::new(watching.child.stdout.take().unwrap());
        Self { watching, records }
    }

    fn next(&mut self) -> Value {
        let line = next_line(&mut self.records);
        serde_json::from_str(&line).unwrap_or_else(|error| panic!("{error}: {line}"))
    }

    fn stop(self) {
        assert!(self.watching.stop("TERM").status.success());
    }
}

/// A program that waits until it may die.
struct Hidden {
    child: Child,
    stdin: ChildStdin,
    stdout: BufReader<ChildStdout>,
}

impl Hidden {
    fn start(program: &Path, arguments: &[&str]) -> Self {
        let mut command = Command::new(program);
        command.args(arguments).stdin(Stdio::piped()).stdout(Stdio::piped());
        let mut child = command.spawn().unwrap_or_else(|error| panic!("{}: {error}", program.display()));
        let (stdin, stdout) = (child.stdin.take().unwrap(), BufReader::new(child.stdout.take().unwrap()));
        let mut hidden = Self { child, stdin, stdout };
        hidden.hear("ready\n");
        hidden
    }

    fn hear(&mut self, wanted: &str) {
        let mut line = String::new();
        self.stdout.read_line(&mut line).unwrap();
        assert_eq!(line, wanted);
    }

    /// Lets it die, and returns the record. Its other processes live until then.
    fn die(mut self, watch: &mut Watch, survives: bool) -> Value {
        self.stdin.write_all(b"now\n").unwrap();
        if survives {
            self.hear("dead\n");
        }
        let record = watch.next();
        drop(self.stdin);
        self.child.wait().unwrap();
        record
    }
}

/// The innermost frame's function and source.
fn innermost(record: &Value) -> (Option<&str>, Option<&str>) {
    let frame = &record["stack_trace"][0];
    let symbol = record["instruction_symbol"].as_str().map(|symbol| symbol.split('+').next().unwrap());
    (symbol, frame["file"].as_str().and_then(|file| file.rsplit('/').next()))
}

/// A record's file is hidden, and its functions have names all the same.
fn assert_named(record: &Value, function: &str, file: &str) {
    assert_eq!(innermost(record), (Some(function), Some(file)), "{record:#}");
    assert!(!record["build_id"].is_null(), "{record:#}");
}

#[apply(watch_test!)]
fn a_living_relative_leads_to_a_hidden_file() {
    let scratch = Scratch::new();
    let (program, decoy) = (scratch.path("hidden"), scratch.path("decoy"));
    compile("hidden.c", &program, &["-ldl"]);
    compile("hidden.c", &decoy, &["-ldl", "-DTOUCH=a_decoy"]);
    let static_program = scratch.path("static");
    compile("hidden.c", &static_program, &["-static"]);
    assert_ne!(build_id(&program), build_id(&decoy));
    let folder = scratch.path("folder");
    fs::create_dir(&folder).unwrap();
    let mut watch = Watch::start(NAME, &[]);
    let copy = |name: &str| {
        let path = scratch.path(name);
        tool("cp", &[&program, &path]);
        path
    };
    let mut run = |program: &Path, arguments: &[&str], meanwhile: &dyn Fn()| {
        let hidden = Hidden::start(program, arguments);
        meanwhile();
        hidden.die(&mut watch, arguments.last() != Some(&"itself"))
    };
    let (folder, decoy) = (folder.to_str().unwrap(), decoy.to_str().unwrap());

    for kind in ["child", "orphan"] {
        let deleted = copy(kind);
        let record = run(&deleted, &["as", NAME, kind], &|| fs::remove_file(&deleted).unwrap());
        assert!(record["exe"].as_str().unwrap().ends_with(" (deleted)"), "{record:#}");
        assert_named(&record, "touch_here", "hidden.c");

        let plugin = scratch.path(&format!("plugin-{kind}.so"));
        compile("plugin.c", &plugin, &["-shared", "-fPIC"]);
        let arguments = ["as", NAME, "plugin", plugin.to_str().unwrap(), kind];
        let record = run(&program, &arguments, &|| fs::remove_file(&plugin).unwrap());
        let module = record["stack_trace"][0]["module"].as_str().unwrap();
        assert!(module.contains("plugin-") && module.ends_with(" (deleted)"), "{record:#}");
        assert_named(&record, "plugin_touch", "plugin.c");
        assert_eq!(record["stack_trace"][1]["symbol"].as_str().unwrap().split('+').next(), Some("main"), "{record:#}");

        let record = run(&program, &["memfd", "as", NAME, kind], &|| ());
        assert_eq!(record["exe"], "/memfd:hidden (deleted)");
        assert_named(&record, "touch_here", "hidden.c");

        for place in ["mount", "jail", "overlay"] {
            // There are no libraries in the jail.
            let program = if place == "jail" { &static_program } else { &program };
            let record = run(program, &[place, folder, "as", NAME, kind], &|| ());
            assert!(record["exe"].as_str().unwrap().starts_with(folder), "{record:#}");
            assert_named(&record, "touch_here", "hidden.c");
        }

        // Another build lies at its path now.
        let record = run(&program, &["mount", folder, "as", NAME, "decoy", decoy, kind], &|| ());
        assert_named(&record, "touch_here", "hidden.c");
    }

    // No other process has the file: only the dying one, if its end takes long enough.
    for arguments in [&["decoy", decoy, "itself"][..], &["mount", folder, "as", NAME, "decoy", decoy, "itself"]] {
        let path = copy("alone");
        let record = run(&path, &[&["as", NAME], arguments].concat(), &|| ());
        let (symbol, _) = innermost(&record);
        assert!(symbol.is_none_or(|symbol| symbol == "touch_here"), "{record:#}");
        assert_eq!(record["build_id"], build_id(&program).as_str());
        fs::remove_file(path).unwrap();
    }

    // A build without an id is known by its inode.
    let (without, other) = (scratch.path("without"), scratch.path("other"));
    compile("hidden.c", &without, &["-ldl", "-Wl,--build-id=none"]);
    compile("hidden.c", &other, &["-ldl", "-Wl,--build-id=none", "-DTOUCH=a_decoy"]);
    let record = run(&without, &["as", NAME, "decoy", other.to_str().unwrap(), "child"], &|| ());
    assert_eq!(innermost(&record).0, Some("touch_here"), "{record:#}");
    assert!(record["build_id"].is_null(), "{record:#}");
    let record = run(&without, &["as", NAME, "itself"], &|| ());
    assert_eq!(innermost(&record).0, Some("a_decoy"), "now that is the program: {record:#}");
    watch.stop();
}

/// Strips a program, and returns its debug file.
fn strip(program: &Path) -> PathBuf {
    let debug = program.with_extension("away");
    tool("objcopy", &[&"--only-keep-debug", &program, &debug]);
    tool("strip", &[&program]);
    debug
}

#[apply(watch_test!)]
fn debug_files_are_found_and_held_to_the_build_id() {
    const NAME: &str = "files-debug-4e";
    let scratch = Scratch::new();
    let folder = scratch.path("debug");
    let by_id = |id: &str| {
        let place = folder.join(".build-id").join(&id[..2]);
        fs::create_dir_all(&place).unwrap();
        place.join(format!("{}.debug", &id[2..]))
    };
    let make = |name: &str, more: &[&str]| {
        let program = scratch.path(name);
        compile("hidden.c", &program, &[&["-ldl"], more].concat());
        let id = build_id(&program);
        (program.clone(), strip(&program), id)
    };
    // A different build each time: names of one must not help another.
    let (with_id, debug, id) = make("with-id", &["-DA=1", "-Wl,-z,now"]);
    fs::rename(debug, by_id(&id)).unwrap();
    let (with_path, debug, _) = make("with-path", &["-DTOUCH=touch_path"]);
    let mut path = folder.join(with_path.strip_prefix("/").unwrap()).into_os_string();
    path.push(".debug");
    fs::create_dir_all(Path::new(&path).parent().unwrap()).unwrap();
    fs::rename(debug, path).unwrap();
    let (with_link, debug, _) = make("with-link", &["-DTOUCH=touch_link"]);
    tool("objcopy", &[&format!("--add-gnu-debuglink={}", debug.display()), &with_link]);
    fs::create_dir(scratch.path(".debug")).unwrap();
    fs::rename(&debug, scratch.path(".debug").join(debug.file_name().unwrap())).unwrap();
    let (wrong, _, id) = make("wrong", &["-DTOUCH=touch_wrong"]);
    let (_, debug, _) = make("decoy", &["-DTOUCH=a_decoy"]);
    fs::rename(&debug, by_id(&id)).unwrap();
    // A process that opens this waits for a writer.
    for name in ["wrong.debug", "wrong.dwp", "with-id.dwp"] {
        tool("mkfifo", &[&scratch.path(name)]);
    }
    let (gone, debug, id) = make("gone", &["-DTOUCH=touch_gone"]);
    fs::rename(debug, by_id(&id)).unwrap();

    let mut watch = Watch::start(NAME, &["--debug-dir", folder.to_str().unwrap()]);
    let mut run = |program: &Path| Hidden::start(program, &["as", NAME, "child"]).die(&mut watch, true);
    assert_named(&run(&with_id), "touch_here", "hidden.c");
    assert_named(&run(&with_path), "touch_path", "hidden.c");
    assert_named(&run(&with_link), "touch_link", "hidden.c");
    let record = run(&wrong);
    assert_eq!(innermost(&record), (None, None), "{record:#}");
    // The program itself is deleted, and no process has it.
    let hidden = Hidden::start(&gone, &["as", NAME, "itself"]);
    fs::remove_file(&gone).unwrap();
    let record = hidden.die(&mut watch, false);
    assert_named(&record, "touch_gone", "hidden.c");
    watch.stop();

    let mut watch = Watch::start(NAME, &[]);
    let record = Hidden::start(&with_id, &["as", NAME, "child"]).die(&mut watch, true);
    assert_eq!(innermost(&record), (None, None), "{record:#}");
    watch.stop();
}

/// A process whose core is written exists for as long as that takes, whether its first thread crashed or another.
#[apply(watch_test!)]
fn a_process_that_takes_its_time_leads_to_its_file() {
    const NAME: &str = "files-core-5d";
    let scratch = Scratch::new();
    let mut watch = Watch::start(NAME, &[]);
    for kind in ["itself", "thread"] {
        let program = scratch.path(kind);
        compile("hidden.c", &program, &["-ldl", &format!("-DTOUCH=touch_{kind}")]);
        let folder = scratch.path("").into_os_string().into_string().unwrap();
        let hidden = Hidden::start(&program, &["as", NAME, "core", &folder, kind]);
        fs::remove_file(&program).unwrap();
        let record = hidden.die(&mut watch, false);
        assert_named(&record, &format!("touch_{kind}"), "hidden.c");
    }
    watch.stop();
}

#[apply(watch_test!)]
fn what_was_read_of_a_file_outlives_it() {
    const NAME: &str = "files-loop-9a";
    let scratch = Scratch::new();
    let program = scratch.path("loop");
    compile("hidden.c", &program, &["-ldl"]);
    let mut watch = Watch::start(NAME, &[]);
    // Two processes of one program that are no relatives: the second dies when the file is gone.
    let [first, second] = [0, 1].map(|_| Hidden::start(&program, &["as", NAME, "itself"]));
    assert_named(&first.die(&mut watch, false), "touch_here", "hidden.c");
    fs::remove_file(&program).unwrap();
    let record = second.die(&mut watch, false);
    assert_named(&record, "touch_here", "hidden.c");
    assert_eq!(record["unwinder"], "eh_frame", "{record:#}");
    watch.stop();
}

/// A container brings its own libc: its message is known from the second abort on, and never taken for that of another file.
#[apply(watch_test!)]
fn what_a_libc_says_is_known_once_a_process_has_aborted_with_it() {
    let scratch = Scratch::new();
    let folder = scratch.path("lib");
    fs::create_dir(&folder).unwrap();
    tool("cp", &[&"/lib/x86_64-linux-gnu/libc.so.6", &folder]);
    let program = named(&scratch, "failed-assert", "asserts-5a");
    let mut watch = Watch::start("asserts-5a", &[]);
    // When a record is written, the kernel program knows its libc.
    let said = [Some(&folder), Some(&folder), None].map(|libraries| {
        let libraries = libraries.map(|folder| ("LD_LIBRARY_PATH", folder));
        assert!(!Command::new(&program).envs(libraries).stderr(Stdio::null()).status().unwrap().success());
        watch.next()["abort_message"].as_str().map(str::to_owned)
    });
    watch.stop();
    let message = Some("asserts-5a: failed-assert.c:23: main: Assertion `argc == 0' failed.".to_owned());
    assert_eq!(said, [None, message.clone(), message], "the third is our own libc's");
}
