//! How much stack the longest chain of calls takes in each object, before the kernel says so: it refuses an object with more than 512 bytes, or
//! with more than eight functions in a chain. Found in the instructions, as the verifier does it (check_max_stack_depth(), kernel/bpf/verifier.c):
//! a function takes what it uses, in steps of 32 bytes.
//!
//! FAULTLINE_OBJECTS names the folder of other objects than this build's: ci/cross has those for arm64, made by another compiler.

use std::collections::BTreeMap;
use std::env;
use std::fs;

use crate::code::{ADD_NUMBER, Code, LDX, MOVE, Object, ST, STX};

/// Of the 512 bytes: one step is left, because another compiler may need it.
const MOST_BYTES: i64 = 480;
/// MAX_CALL_FRAMES, include/linux/bpf_verifier.h.
const MOST_FUNCTIONS: usize = 8;

/// The register that holds the end of the function's stack.
const FRAME: usize = 10;

/// The chain of calls that takes most: the bytes of each function, and of all. Another one may have more functions: `length`.
#[derive(Clone, Default)]
struct Chain {
    functions: Vec<(String, i64)>,
    bytes: i64,
    length: usize,
}

/// How far below the end of its stack a function reaches: by loads and stores, or with an address that it hands on.
fn reaches(code: &Code) -> i64 {
    let mut addresses = [false; 11];
    addresses[FRAME] = true;
    let mut deepest = 0;
    for instruction in &code.instructions {
        let reached = match (instruction.code, instruction.code & 7) {
            (ADD_NUMBER, _) if addresses[instruction.to] => i64::from(instruction.number),
            (_, LDX) if instruction.from == FRAME => instruction.offset,
            (_, ST | STX) if instruction.to == FRAME => instruction.offset,
            _ => 0,
        };
        deepest = deepest.max(-reached);
        let writes = !matches!(instruction.code & 7, ST | STX) && instruction.to != FRAME;
        if writes {
            addresses[instruction.to] = instruction.code == MOVE && instruction.from == FRAME;
        }
    }
    deepest
}

/// The deepest chain of calls that begins with this function.
fn chain(object: &Object<'_>, name: &str, known: &mut BTreeMap<String, Chain>) -> Chain {
    if let Some(chain) = known.get(name) {
        return chain.clone();
    }
    let code = object.code(name);
    let called = (0..code.instructions.len()).filter_map(|at| object.called(&code, at));
    let below: Vec<Chain> = called.map(|called| chain(object, &called, known)).collect();
    let length = 1 + below.iter().map(|chain| chain.length).max().unwrap_or(0);
    let deepest = below.into_iter().max_by_key(|chain| chain.bytes).unwrap_or_default();
    let reached = reaches(&code);
    let mut functions = vec![(name.to_owned(), reached)];
    functions.extend(deepest.functions);
    let chain = Chain { functions, bytes: deepest.bytes + (reached.max(1) + 31) / 32 * 32, length };
    known.insert(name.to_owned(), chain.clone());
    chain
}

#[test]
fn the_longest_chain_of_calls_has_room_on_the_stack() {
    let folder = env::var("FAULTLINE_OBJECTS").unwrap_or_else(|_| env!("OUT_DIR").to_owned());
    let mut objects: Vec<_> = fs::read_dir(&folder).unwrap().map(|entry| entry.unwrap().path()).collect();
    objects.retain(|path| path.extension().is_some_and(|end| end == "o"));
    objects.sort();
    assert!(objects.len() >= 12, "not all objects are in {folder}: {objects:?}");
    let mut wrong = Vec::new();
    for path in objects {
        let bytes = fs::read(&path).unwrap();
        let object = Object::parse(&bytes);
        let mut known = BTreeMap::new();
        for name in object.functions() {
            chain(&object, &name, &mut known);
        }
        let length = known.values().map(|chain| chain.length).max().unwrap();
        let deepest = known.into_values().max_by_key(|chain| chain.bytes).unwrap();
        let said =
            format!("{} bytes, {length} functions in {}: {:?}", deepest.bytes, path.display(), deepest.functions);
        println!("{said}");
        if deepest.bytes > MOST_BYTES || length > MOST_FUNCTIONS {
            wrong.push(said);
        }
    }
    assert!(wrong.is_empty(), "more than {MOST_BYTES} bytes or {MOST_FUNCTIONS} functions:\n{}", wrong.join("\n"));
}
