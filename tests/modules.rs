//! Data goes one way: the modules of the library use each other in no circle.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::path::{Path, PathBuf};

/// Each module of the first level, and those that it uses.
type Uses = BTreeMap<String, BTreeSet<String>>;

fn sources(folder: &Path, into: &mut Vec<PathBuf>) {
    for entry in fs::read_dir(folder).unwrap() {
        let path = entry.unwrap().path();
        if path.is_dir() {
            sources(&path, into);
        } else if path.extension().is_some_and(|extension| ["rs", "c", "h"].iter().any(|source| extension == *source)) {
            into.push(path);
        }
    }
}

/// The modules that are there for tests alone: whether each has a file of its own, its name, and where it stands.
fn test_modules(text: &str) -> impl Iterator<Item = (bool, &str, usize)> {
    text.match_indices("#[cfg(test)]\n").filter_map(|(at, attribute)| {
        let (declaration, _) = text[at + attribute.len()..].split_once(['{', ';'])?;
        let has_file = text[at + attribute.len() + declaration.len()..].starts_with(';');
        let name = declaration.split_once("mod ")?.1.trim();
        Some((has_file, name, at))
    })
}

/// The code of a file without its comments and its tests, which stand at its end.
fn code(text: &str) -> String {
    let end = test_modules(text).find(|(has_file, ..)| !has_file).map_or(text.len(), |(.., at)| at);
    text[..end].lines().map(|line| line.split("//").next().unwrap_or_default()).collect::<Vec<_>>().join("\n")
}

/// The modules of the first level that stand behind `crate::` in `code`, alone or in braces.
fn used(code: &str) -> BTreeSet<String> {
    let word = |text: &str| -> String {
        text.trim_start().chars().take_while(|letter| letter.is_ascii_alphanumeric() || *letter == '_').collect()
    };
    let mut found = BTreeSet::new();
    for after in code.split("crate::").skip(1) {
        let Some(list) = after.strip_prefix('{') else {
            found.insert(word(after));
            continue;
        };
        let (mut depth, mut begins) = (1, true);
        for (at, letter) in list.char_indices() {
            if begins && !letter.is_whitespace() {
                found.insert(word(&list[at..]));
                begins = false;
            }
            match letter {
                '{' => depth += 1,
                '}' => depth -= 1,
                ',' if depth == 1 => begins = true,
                _ => {}
            }
            if depth == 0 {
                break;
            }
        }
    }
    found
}

/// Does the module that `file` is declared in declare it for tests alone?
fn is_for_tests(file: &Path, texts: &BTreeMap<PathBuf, String>) -> bool {
    let (folder, stem) = (file.parent().unwrap(), file.file_stem().unwrap().to_string_lossy());
    let declares = |parent: PathBuf| {
        texts.get(&parent).is_some_and(|text| test_modules(text).any(|(has_file, name, _)| has_file && name == stem))
    };
    declares(folder.join("mod.rs")) || declares(folder.with_extension("rs"))
}

/// All sources in a folder of the package, and where it is.
fn texts(folder: &str) -> (PathBuf, BTreeMap<PathBuf, String>) {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).join(folder);
    let mut files = Vec::new();
    sources(&root, &mut files);
    (root, files.into_iter().map(|file| (file.clone(), fs::read_to_string(file).unwrap())).collect())
}

/// Of every module of the library; without `src/main.rs`, and `src/fuzz.rs`, which is there for tests.
fn uses() -> Uses {
    let (root, texts) = texts("src");
    let mut uses = Uses::new();
    for (file, text) in &texts {
        if is_for_tests(file, &texts) {
            continue;
        }
        let first = file.strip_prefix(&root).unwrap().components().next().unwrap().as_os_str().to_string_lossy();
        let name = first.trim_end_matches(".rs").to_owned();
        if !["main", "lib", "fuzz"].contains(&name.as_str()) {
            uses.entry(name).or_default().extend(used(&code(text)));
        }
    }
    let names: BTreeSet<String> = uses.keys().cloned().collect();
    for (name, others) in &mut uses {
        others.retain(|other| other != name && names.contains(other));
    }
    uses
}

/// A way from a module back to itself.
fn circle(uses: &Uses) -> Option<Vec<String>> {
    // What uses nothing that is left is no part of a circle.
    let mut left = uses.clone();
    loop {
        let free: BTreeSet<String> =
            left.iter().filter(|(_, others)| others.is_empty()).map(|(name, _)| name.clone()).collect();
        if free.is_empty() {
            break;
        }
        left.retain(|name, _| !free.contains(name));
        left.values_mut().for_each(|others| others.retain(|other| !free.contains(other)));
    }
    // Each module that is left uses another one that is.
    let mut way = vec![left.keys().next()?.clone()];
    loop {
        let next = left[way.last().unwrap()].first().unwrap();
        if let Some(begin) = way.iter().position(|name| name == next) {
            way.push(next.clone());
            return Some(way.split_off(begin));
        }
        way.push(next.clone());
    }
}

/// A facade is small on purpose: whoever makes more public says so here.
#[test]
fn only_the_facade_is_public() {
    let text = fs::read_to_string(Path::new(env!("CARGO_MANIFEST_DIR")).join("src/lib.rs")).unwrap();
    let public: BTreeSet<&str> = text.lines().filter_map(|line| line.strip_prefix("pub ")).collect();
    let hidden = ["mod fuzz;", "mod internals;", "use cli::main;"];
    let shown = ["mod crash;", "mod memory;", "use error::Error;", "use time::Timestamp;", "use tracing::Losses;"];
    assert_eq!(public, BTreeSet::from_iter(hidden.into_iter().chain(shown)));
    for hidden in hidden {
        assert!(text.contains(&format!("#[doc(hidden)]\npub {hidden}")), "{hidden} is shown");
    }
}

#[test]
fn no_module_is_part_of_a_circle() {
    let uses = uses();
    assert!(uses["crash"].contains("evidence") && uses["record"].contains("diagnosis"), "it reads what it should");
    assert_eq!(circle(&uses), None, "these use each other in a circle");
}

#[test]
fn evidence_diagnosis_and_record_know_no_command() {
    let uses = uses();
    let allowed = ["arch", "errno", "evidence", "hex", "page", "runtime", "siginfo"];
    let others: Vec<&String> = uses["diagnosis"].iter().filter(|other| !allowed.contains(&other.as_str())).collect();
    assert_eq!(
        others,
        Vec::<&String>::new(),
        "a diagnosis is made of evidence, and of what is known of processors, kernels and runtimes"
    );
    for low in ["evidence", "record", "output"] {
        for command in ["agent", "call", "crash", "memory", "pagefault", "report", "signal"] {
            assert!(!uses[low].contains(command), "{low} uses {command}");
        }
    }
}

#[test]
fn a_circle_is_found() {
    let text = "use crate::a::b;\n// crate::c\n#[cfg(test)]\nmod cases;\nuse crate::{d::{e, f}, g};\n#[cfg(test)]\nmod tests { use crate::h; }";
    assert_eq!(used(&code(text)), BTreeSet::from(["a", "d", "g"].map(str::to_owned)));
    let uses = |pairs: &[(&str, &str)]| {
        let mut uses = Uses::new();
        for (from, to) in pairs {
            uses.entry((*to).to_owned()).or_default();
            uses.entry((*from).to_owned()).or_default().insert((*to).to_owned());
        }
        uses
    };
    assert_eq!(circle(&uses(&[("a", "b"), ("b", "c"), ("a", "c")])), None);
    let found = circle(&uses(&[("a", "b"), ("b", "c"), ("c", "b")])).unwrap();
    assert_eq!(found.first(), found.last());
    assert_eq!(found.len(), 3, "{found:?}");
}

/// Registers, instructions, symbol prefixes and page masks of one architecture.
const WORDS_OF_ARCHITECTURES: [&str; 27] = [
    "rip",
    "rsp",
    "rbp",
    "rax",
    "rbx",
    "rcx",
    "rdx",
    "rsi",
    "rdi",
    "eflags",
    "cr2",
    "orig_ax",
    "x86",
    "x86_64",
    "amd64",
    "int3",
    "hlt",
    "PAGE_SHIFT",
    "PAGE_MASK",
    "0xfff",
    "x0",
    "x29",
    "x30",
    "pstate",
    "aarch64",
    "arm64",
    "svc",
];

/// Of the kernel's functions for system calls.
const PREFIXES: [&str; 2] = ["__x64", "__arm64"];

/// The words of `code`, outside of comments of C, that belong to one architecture.
fn words_of_architectures(code: &str) -> Vec<&str> {
    let outside = code.split("/*").enumerate().map(|(nth, part)| match nth {
        0 => part,
        _ => part.split_once("*/").map_or("", |(_, outside)| outside),
    });
    let words = outside.flat_map(|part| part.split(|letter: char| !letter.is_ascii_alphanumeric() && letter != '_'));
    words
        .filter(|word| WORDS_OF_ARCHITECTURES.contains(word) || PREFIXES.iter().any(|prefix| word.starts_with(prefix)))
        .collect()
}

/// src/arch/ and bpf/include/arch_*.h hold all that depends on the architecture.
#[test]
fn only_its_files_know_an_architecture() {
    let of_arch = ["arch", "include/arch.h", "include/arch_arm64.h", "include/arch_x86_64.h"].map(Path::new);
    let mut found = Vec::new();
    for folder in ["src", "bpf"] {
        let (root, texts) = texts(folder);
        assert!(texts.len() > 40, "all files of {folder} are looked at");
        for (file, text) in &texts {
            let name = file.strip_prefix(&root).unwrap();
            if of_arch.iter().any(|arch| name.starts_with(arch)) || is_for_tests(file, &texts) {
                continue;
            }
            let code = code(text);
            found.extend(
                words_of_architectures(&code).into_iter().map(|word| format!("{folder}/{}: {word}", name.display())),
            );
        }
    }
    assert_eq!(found, Vec::<String>::new());
}

#[test]
fn a_word_of_an_architecture_is_found() {
    let text = "/* rax\nrbx */ regs->rip = page & ~0xfff; // rcx\nx86_64_y \"__x64_sys_brk\" /* rdx */ int3";
    assert_eq!(words_of_architectures(&code(text)), ["rip", "0xfff", "__x64_sys_brk", "int3"]);
}
