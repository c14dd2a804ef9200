//! `faultline doctor --symbols`: what names come from, and what would get those that are missing.

use std::fs;
use std::process::{Command, Stdio};

use serde_json::Value;

use crate::lab::{Lab, run};

/// The modules that are reported of a target.
fn survey(lab: &Lab, target: &str, more: &[&str], variables: &[(&str, &str)]) -> Vec<Value> {
    let mut command = Command::new(env!("CARGO_BIN_EXE_faultline"));
    command.args(["doctor", "--format", "json", "--symbols", target]).args(more).env_clear();
    command.env("DEBUGINFOD_CACHE_PATH", lab.cache()).envs(variables.iter().copied());
    let record: Value = serde_json::from_str(&run(&mut command)).unwrap();
    assert_eq!((&record["type"], &record["target"]), (&"symbols".into(), &target.into()));
    record["modules"].as_array().unwrap().clone()
}

#[test]
fn a_stripped_file_lacks_what_a_debug_file_has() {
    let lab = Lab::new("survey");
    let program = lab.program.to_str().unwrap();
    let url = [("DEBUGINFOD_URLS", "http://127.0.0.1:1/d")];
    let [module] = &survey(&lab, program, &[], &url)[..] else { panic!() };
    assert_eq!((&module["module"], &module["build_id"]), (&program.into(), &lab.build_id.as_str().into()));
    let missing = serde_json::json!(["names of the functions that it doesn't export", "files and lines"]);
    assert_eq!((&module["source"], &module["missing"]), (&"exported_symbols".into(), &missing));
    let cures = module["cures"].to_string();
    assert!(cures.contains(&format!("http://127.0.0.1:1/d/buildid/{}/debuginfo", lab.build_id)), "{cures}");
    assert!(cures.contains(&format!("/usr/lib/debug/.build-id/{}/", &lab.build_id[..2])), "{cures}");
    assert!(!lab.cache().exists(), "nothing is fetched");
    let [module] = &survey(&lab, program, &[], &[])[..] else { panic!() };
    assert!(module["cures"].to_string().contains("with a server in DEBUGINFOD_URLS"), "{module}");
    // Where the debug file is, nothing is missing.
    let folder = lab.folder.join("debug/.build-id").join(&lab.build_id[..2]);
    fs::create_dir_all(&folder).unwrap();
    fs::copy(&lab.debug, folder.join(format!("{}.debug", &lab.build_id[2..]))).unwrap();
    let debug_dir = lab.folder.join("debug");
    let [module] = &survey(&lab, program, &["--debug-dir", debug_dir.to_str().unwrap()], &[])[..] else { panic!() };
    assert_eq!((&module["source"], &module["missing"]), (&"debug_file".into(), &serde_json::json!([])));
    assert_eq!(module["cures"], serde_json::json!([]));
}

#[test]
fn what_was_fetched_is_used() {
    let lab = Lab::new("survey-cached");
    let folder = lab.cache().join(&lab.build_id);
    fs::create_dir_all(&folder).unwrap();
    fs::copy(&lab.debug, folder.join("debuginfo")).unwrap();
    let program = lab.program.to_str().unwrap();
    let [module] = &survey(&lab, program, &[], &[("DEBUGINFOD_URLS", "http://127.0.0.1:1")])[..] else { panic!() };
    assert_eq!(module["source"], "debug_file");
    let [module] = &survey(&lab, program, &[], &[])[..] else { panic!() };
    assert_eq!(module["source"], "exported_symbols", "without servers their cache isn't looked at");
}

#[test]
fn each_file_of_a_process_is_reported() {
    let lab = Lab::new("survey-process");
    let mut child = Command::new("sleep").arg("600").stdin(Stdio::null()).spawn().unwrap();
    let maps = format!("/proc/{}/maps", child.id());
    // Its libraries are mapped a moment after it was started.
    while !fs::read_to_string(&maps).unwrap().contains("libc.so") {
        std::thread::yield_now();
    }
    let modules = survey(&lab, &child.id().to_string(), &[], &[]);
    child.kill().unwrap();
    child.wait().unwrap();
    let with = |name: &str| modules.iter().filter(|module| module["module"].as_str().unwrap().contains(name)).count();
    assert_eq!((with("/sleep"), with("libc.so")), (1, 1), "{modules:#?}");
    assert!(modules.iter().all(|module| module["build_id"].is_string()), "{modules:#?}");
}

#[test]
fn own_debug_information_is_enough() {
    let lab = Lab::new("survey-own");
    let whole = lab.folder.join("whole");
    run(Command::new("gcc").args(["-g", "-o"]).arg(&whole).arg(lab.folder.join("p.c")));
    let mut command = Command::new(env!("CARGO_BIN_EXE_faultline"));
    let text = run(command.args(["doctor", "--strict", "--symbols"]).arg(&whole).env_clear());
    assert!(text.contains("its own debug information") && !text.contains("missing"), "{text}");
    let mut command = Command::new(env!("CARGO_BIN_EXE_faultline"));
    let output = command.args(["doctor", "--strict", "--symbols"]).arg(&lab.program).env_clear().output().unwrap();
    assert_eq!(output.status.code(), Some(1), "something is missing");
}
