//! Programs that a test compiles for itself, each in its own way. Those of tests/programs are built by their Makefile.

use std::fs;
use std::path::Path;
use std::process::Command;

use sha2::{Digest, Sha256};

use crate::harness::is_guest;

/// Compiles a program of tests/vm/programs to the file `to`.
///
/// A compiled program is kept under a key of its sources and flags. In a guest, where a compiler takes seconds, it is there already if
/// the tests have run outside; else it is compiled there.
pub(crate) fn compile(source: &str, to: &Path, arguments: &[&str]) {
    compile_with("gcc", source, to, arguments);
}

/// The same by another compiler than gcc.
pub(crate) fn compile_with(compiler: &str, source: &str, to: &Path, arguments: &[&str]) {
    let source = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/vm/programs").join(source);
    let options =
        ["-g", "-O0", "-fno-omit-frame-pointer", "-Wall", "-Wextra", "-Wno-unused-result", "-Wno-array-bounds"];
    let mut digest = Sha256::new_with_prefix(fs::read(&source).unwrap());
    digest.update(format!("{compiler} {options:?} {arguments:?}"));
    let name: String = digest.finalize().iter().map(|byte| format!("{byte:02x}")).collect();
    let folder = Path::new(env!("CARGO_TARGET_TMPDIR")).join("compiled");
    let kept = folder.join(name);
    if !kept.exists() {
        let mut command = Command::new(compiler);
        let output = command.args(options).arg("-o").arg(to).arg(source).args(arguments).output().expect(compiler);
        assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
        // A guest leaves nothing on the machine that it runs on.
        if !is_guest() {
            fs::create_dir_all(&folder).unwrap();
            let mine = kept.with_extension(format!("{}-{:?}", std::process::id(), std::thread::current().id()));
            fs::copy(to, &mine).unwrap();
            fs::rename(mine, kept).unwrap();
        }
        return;
    }
    // Not by this process: a fork of it would hold the file open for writing, and it could not be executed (ETXTBSY).
    assert!(Command::new("cp").arg(kept).arg(to).status().unwrap().success());
}
