//! Names that only root may read: no link, mount or build id of a watched process's own makes faultline print them.

use std::fs;
use std::os::unix::fs::{PermissionsExt, chown, lchown, symlink};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use serde_json::Value;

use crate::harness::{FAULTLINE, Scratch, build_id, copy_program, records};

fn tool(name: &str, arguments: &[&str]) {
    let output = Command::new(name).args(arguments).output().unwrap_or_else(|error| panic!("{name}: {error}"));
    assert!(output.status.success(), "{name}: {}", String::from_utf8_lossy(&output.stderr));
}

/// Runs a program that dies, in mounts of its own that `script` has prepared, and returns its record.
fn record_in_own_mounts(name: &str, debug: &Path, script: &str) -> Value {
    record_of_run(name, debug, &["unshare", "-m", "sh", "-c", script])
}

fn record_of_run(name: &str, debug: &Path, command: &[&str]) -> Value {
    let output = Command::new(FAULTLINE)
        .args(["crash", "-t", "--format", "json", "-n", name, "--debug-dir"])
        .arg(debug)
        .arg("--")
        .args(command)
        .stderr(Stdio::null())
        .output()
        .unwrap();
    let all = records(&output.stdout);
    let [record] = &all[..] else { panic!("{all:#?}") };
    record.clone()
}

fn symbol(record: &Value) -> Option<&str> {
    record["stack_trace"][0]["symbol"].as_str()
}

/// A program of root's that nobody else may read, and one with the same build id but without its names.
fn secret_and_forgery(scratch: &Scratch, name: &str) -> (PathBuf, PathBuf) {
    let (secret, forgery) = (scratch.path("secret"), scratch.path(name));
    copy_program("null-write", &secret);
    fs::copy(&secret, &forgery).unwrap();
    tool("strip", &[forgery.to_str().unwrap()]);
    fs::set_permissions(&secret, fs::Permissions::from_mode(0o600)).unwrap();
    assert_eq!(build_id(&secret), build_id(&forgery));
    (secret, forgery)
}

/// The build id is forged, and in the attacker's own mounts the secret lies at the program's path when it dies.
#[test]
fn a_secret_is_not_printed() {
    let scratch = Scratch::new();
    let folder = scratch.path("folder");
    fs::create_dir(&folder).unwrap();
    let (secret, forgery) = secret_and_forgery(&scratch, "folder/secret-forged");
    let (secret, path) = (secret.display(), forgery.display());
    let nowhere = scratch.path("no-debug-files");
    for (how, hide) in [
        ("a link", format!("mount -t tmpfs none {} && ln -s {secret} {path}", folder.display())),
        ("a bind mount", format!("mount --bind {secret} {path}")),
    ] {
        // The shell lives on, so that its mounts can be looked into.
        let script = format!("exec 9<{path}; {hide}; /proc/self/fd/9; true");
        let record = record_in_own_mounts("9", &nowhere, &script);
        assert_eq!(record["exe"], forgery.to_str().unwrap(), "{how}: {record:#}");
        assert_eq!(symbol(&record), None, "{how}: {record:#}");
        assert!(!record["build_id"].is_null(), "{how}: {record:#}");
    }
}

/// The same for debug files: one that only root may read is for programs of root's.
#[test]
fn a_secret_debug_file_is_not_printed() {
    let scratch = Scratch::new();
    let name = "secret-debug";
    let (secret, forgery) = secret_and_forgery(&scratch, name);
    let id = build_id(&forgery);
    let folder = scratch.path("debug");
    let place = folder.join(".build-id").join(&id[..2]);
    fs::create_dir_all(&place).unwrap();
    let file = place.join(format!("{}.debug", &id[2..]));
    let record = || record_in_own_mounts(name, &folder, &format!("exec {}", forgery.display()));
    let record_of = |mode: u32, owner: u32| {
        fs::copy(&secret, &file).unwrap();
        fs::set_permissions(&file, fs::Permissions::from_mode(mode)).unwrap();
        chown(&forgery, Some(owner), None).unwrap();
        let record = record();
        fs::remove_file(&file).unwrap();
        record
    };
    let public = record_of(0o644, 65_534);
    assert_eq!(symbol(&public).and_then(|symbol| symbol.split('+').next()), Some("write_field"), "{public:#}");
    let secret_one = record_of(0o600, 65_534);
    assert_eq!(symbol(&secret_one), None, "a program that anybody may have made: {secret_one:#}");
    symlink(&secret, &file).unwrap();
    let linked = record();
    assert_eq!(symbol(&linked), None, "{linked:#}");
}

/// By `.gnu_debuglink`: a debug file beside the program, which only root may read.
#[test]
fn a_secret_beside_a_program_is_not_printed() {
    let scratch = Scratch::new();
    let name = "secret-beside";
    let (secret, forgery) = secret_and_forgery(&scratch, name);
    let link = format!("--add-gnu-debuglink={}", secret.display());
    tool("objcopy", &[&link, forgery.to_str().unwrap()]);
    let nowhere = scratch.path("no-debug-files");
    let record_of = |mode: u32| {
        fs::set_permissions(&secret, fs::Permissions::from_mode(mode)).unwrap();
        chown(&forgery, Some(65_534), None).unwrap();
        record_of_run(name, &nowhere, &[forgery.to_str().unwrap()])
    };
    let public = record_of(0o644);
    assert_eq!(symbol(&public).and_then(|symbol| symbol.split('+').next()), Some("write_field"), "{public:#}");
    let secret_one = record_of(0o600);
    assert_eq!(symbol(&secret_one), None, "{secret_one:#}");
}

/// The same in a sticky folder, as /tmp is: there another user's link leads to a folder that only root may enter.
#[test]
fn a_secret_behind_a_link_beside_a_program_is_not_printed() {
    let scratch = Scratch::new();
    let name = "secret-linked";
    let (secret, forgery) = secret_and_forgery(&scratch, name);
    let folders = ["sticky", "private", "private/inner"].map(|folder| scratch.path(folder));
    for folder in &folders {
        fs::create_dir(folder).unwrap();
    }
    let [sticky, private, inner] = folders;
    fs::set_permissions(&sticky, fs::Permissions::from_mode(0o1777)).unwrap();
    let debug = inner.join("secret");
    fs::copy(&secret, &debug).unwrap();
    fs::set_permissions(&debug, fs::Permissions::from_mode(0o644)).unwrap();
    tool("objcopy", &[&format!("--add-gnu-debuglink={}", debug.display()), forgery.to_str().unwrap()]);
    let program = sticky.join(name);
    fs::copy(&forgery, &program).unwrap();
    chown(&program, Some(65_534), None).unwrap();
    symlink(&inner, sticky.join(".debug")).unwrap();
    lchown(sticky.join(".debug"), Some(65_534), None).unwrap();
    let nowhere = scratch.path("no-debug-files");
    let record_of = |mode: u32| {
        fs::set_permissions(&private, fs::Permissions::from_mode(mode)).unwrap();
        record_of_run(name, &nowhere, &[program.to_str().unwrap()])
    };
    // Where fs.protected_symlinks is 1, no such link is followed at all.
    if fs::read_to_string("/proc/sys/fs/protected_symlinks").unwrap().trim() == "0" {
        let public = record_of(0o755);
        assert_eq!(symbol(&public).and_then(|symbol| symbol.split('+').next()), Some("write_field"), "{public:#}");
    }
    let secret_one = record_of(0o700);
    assert_eq!(symbol(&secret_one), None, "{secret_one:#}");
}

/// In a file system that a user has mounted, as from a disk of his, root seems to own what he has made.
#[test]
fn what_a_user_has_brought_along_is_not_roots() {
    let scratch = Scratch::new();
    let name = "secret-brought";
    let (secret, forgery) = secret_and_forgery(&scratch, name);
    let (id, folder) = (build_id(&forgery), scratch.path("debug"));
    let place = folder.join(".build-id").join(&id[..2]);
    fs::create_dir_all(&place).unwrap();
    let file = place.join(format!("{}.debug", &id[2..]));
    fs::copy(&secret, &file).unwrap();
    fs::set_permissions(&file, fs::Permissions::from_mode(0o600)).unwrap();
    let disk = scratch.path("disk");
    fs::create_dir(&disk).unwrap();
    // The agent and the program have the same mounts, as a user's disk has them.
    let of_disk = |options: &str| {
        let (disk, path) = (disk.display(), forgery.display());
        let watch = format!(
            "mount -t tmpfs -o {options},mode=0755 none {disk} && cp {path} {disk} && exec {FAULTLINE} crash -t --format json \
             -n {name} --debug-dir {} -- {disk}/{name}",
            folder.display()
        );
        let output = Command::new("unshare").args(["-m", "sh", "-c", &watch]).stderr(Stdio::null()).output().unwrap();
        let all = records(&output.stdout);
        let [record] = &all[..] else { panic!("{all:#?}") };
        record.clone()
    };
    let roots = of_disk("suid");
    assert_eq!(symbol(&roots).and_then(|symbol| symbol.split('+').next()), Some("write_field"), "{roots:#}");
    let users = of_disk("nosuid");
    assert_eq!(symbol(&users), None, "{users:#}");
}

/// A program of root's, which may have a secret debug file of its own, takes the build id of another one in memory.
#[test]
fn a_build_id_that_is_forged_in_memory_leads_to_no_secret() {
    let scratch = Scratch::new();
    let (name, secret) = ("secret-claimed", scratch.path("secret"));
    let (program, folder) = (scratch.path(name), scratch.path("debug"));
    copy_program("null-write", &secret);
    copy_program("forged-build-id", &program);
    tool("strip", &[program.to_str().unwrap()]);
    let id = build_id(&secret);
    let place = folder.join(".build-id").join(&id[..2]);
    fs::create_dir_all(&place).unwrap();
    let file = place.join(format!("{}.debug", &id[2..]));
    fs::copy(&secret, &file).unwrap();
    fs::set_permissions(&file, fs::Permissions::from_mode(0o600)).unwrap();
    let record = record_of_run(name, &folder, &[program.to_str().unwrap(), &id]);
    assert_eq!(record["stack_trace"][0]["build_id"], *id, "the kernel shows the forged one: {record:#}");
    assert!(
        record["stack_trace"].as_array().unwrap().iter().all(|frame| frame["symbol"] != "write_field"),
        "{record:#}"
    );
    let functions =
        record["stack_trace"].as_array().unwrap().iter().filter(|frame| frame["module"] == program.to_str().unwrap());
    assert!(functions.clone().count() > 0 && functions.clone().all(|frame| frame["symbol"].is_null()), "{record:#}");
}
