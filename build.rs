//! Compiles each `bpf/*.bpf.c` twice into `OUT_DIR`: `STEM.plain.o`, and `STEM.typed.o` with FL_TYPED (docs/development.md).
//! The types of `abi.h` come out as Rust in the skeleton of the first, `STEM.skel.rs`. The program holds both compressed, `STEM.typed.o.zst` and
//! what the other has beyond it, `STEM.plain.o.zst`.
//!
//! Runs again only when something under `bpf/` changes. Needs clang; says so in one line when it isn't there.
//!
//! A packaged crate also has the commit that it was made of, for `faultline --version`. A repository doesn't: it would be built anew after
//! each commit. ci/release says it by FAULTLINE_COMMIT.

use std::env;
use std::fs;
use std::io::Write as _;
use std::path::{Path, PathBuf};
use std::process::{Command, ExitCode};

use libbpf_cargo::SkeletonBuilder;

/// v3 (32-bit registers and jumps) is the newest instruction set that 5.10 has: no atomic operation that returns a value.
/// Each call in an unrolled loop is one more path for the verifier to walk.
const CLANG_ARGS: [&str; 8] =
    ["-mcpu=v3", "-fno-unroll-loops", "-Wall", "-Wextra", "-Werror", "-Wno-unused-parameter", "-I", "bpf/include"];

fn main() -> ExitCode {
    match build() {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("faultline: {error}");
            ExitCode::FAILURE
        }
    }
}

fn build() -> Result<(), String> {
    println!("cargo::rerun-if-changed=bpf");
    println!("cargo::rerun-if-env-changed=CLANG");
    if let Some(commit) = packaged_commit() {
        println!("cargo::rustc-env=FAULTLINE_COMMIT={commit}");
    }
    let clang = env::var("CLANG").unwrap_or_else(|_| "clang".to_owned());
    if Command::new(&clang).arg("--version").output().is_err() {
        return Err(format!("failed to run `{clang}`, which compiles bpf/: apt-get install clang, or set CLANG"));
    }
    // The kernel shows the lines of a program that it refuses: the same in whatever folder it is built.
    let here = env::current_dir().map_err(|error| format!("failed to find where this is: {error}"))?;
    let relative = format!("-ffile-prefix-map={}=.", here.display());
    let out = PathBuf::from(env::var_os("OUT_DIR").ok_or("OUT_DIR is not set: run this through cargo")?);
    for source in sources(Path::new("bpf"))? {
        let stem = source.file_name().and_then(|name| name.to_str()).and_then(|name| name.strip_suffix(".bpf.c"));
        let stem = stem.ok_or_else(|| format!("failed to name the skeleton of `{}`", source.display()))?;
        let builds: [(&str, &[&str]); 2] = [("plain", &[]), ("typed", &["-DFL_TYPED"])];
        for (name, defines) in builds {
            let object = out.join(format!("{stem}.{name}.o"));
            let mut builder = SkeletonBuilder::new();
            builder
                .source(&source)
                .obj(&object)
                .clang(&clang)
                .clang_args(CLANG_ARGS.iter().chain(defines).chain([&relative.as_str()]))
                .reference_obj(true);
            let built = match name {
                "plain" => builder.build_and_generate(out.join(format!("{stem}.skel.rs"))).map(drop),
                _ => builder.build().map(drop),
            };
            built.map_err(|error| format!("{error:#}"))?;
        }
        compress(&out, stem)
            .map_err(|error| format!("failed to compress `{stem}.plain.o` and `{stem}.typed.o`: {error}"))?;
    }
    Ok(())
}

/// Writes both objects of `stem` with `.zst` behind their names: the plain one refers to the typed one, which takes a third off it.
fn compress(out: &Path, stem: &str) -> std::io::Result<()> {
    let [typed, plain] = [format!("{stem}.typed.o"), format!("{stem}.plain.o")].map(|name| out.join(name));
    let content = fs::read(&typed)?;
    for (object, known) in [(typed, &[][..]), (plain, &content)] {
        let bytes = fs::read(&object)?;
        let smallest = *zstd::compression_level_range().end();
        let mut encoder = zstd::stream::Encoder::with_ref_prefix(Vec::new(), smallest, known)?;
        // It reaches back through both: 2 MiB, and no more memory than that for whoever unpacks it.
        encoder.window_log(21)?;
        encoder.set_pledged_src_size(Some(bytes.len() as u64))?;
        encoder.write_all(&bytes)?;
        fs::write(object.with_extension("o.zst"), encoder.finish()?)?;
    }
    Ok(())
}

/// What `cargo package` notes of the repository. `None` means that this is no packaged crate.
fn packaged_commit() -> Option<String> {
    const NOTE: &str = ".cargo_vcs_info.json";
    let note = fs::read_to_string(NOTE).ok()?;
    println!("cargo::rerun-if-changed={NOTE}");
    let (_, rest) = note.split_once("\"sha1\": \"")?;
    rest.split_once('"').map(|(commit, _)| commit.to_owned())
}

/// The `.bpf.c` files in `folder`, sorted.
fn sources(folder: &Path) -> Result<Vec<PathBuf>, String> {
    let entries = fs::read_dir(folder).map_err(|error| format!("failed to list `{}`: {error}", folder.display()))?;
    let mut sources: Vec<PathBuf> = entries
        .filter_map(|entry| entry.ok().map(|entry| entry.path()))
        .filter(|path| path.to_string_lossy().ends_with(".bpf.c"))
        .collect();
    sources.sort();
    Ok(sources)
}
