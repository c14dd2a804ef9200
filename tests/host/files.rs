//! Names come from debug files, from what was read before, and messages from the right libc.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use macro_rules_attribute::apply;

use crate::compile::compile;
use crate::harness::runs::watch_test;
use crate::harness::{Scratch, build_id, named};
use crate::hidden::{Hidden, Watch, assert_named, innermost, tool};

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
