//! Names come from the right file, wherever it is hidden, as long as something leads to it, and never from another file.

use std::fs;
use std::path::Path;

use macro_rules_attribute::apply;

use crate::compile::compile;
use crate::harness::runs::watch_test;
use crate::harness::{Scratch, build_id, is_guest};
use crate::hidden::{Hidden, Watch, assert_named, innermost, tool};

/// The name of all processes that are watched here.
const NAME: &str = "files-7c";

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

    // How a relative is found does not depend on the kernel, and a guest takes half a minute for each kind.
    let kinds = if is_guest() { &["orphan"][..] } else { &["child", "orphan"] };
    for kind in kinds.iter().copied() {
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
