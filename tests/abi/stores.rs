//! What the programs write to memory that other processors write to as well: each such store to a value of a table or to a variable, each atomic
//! operation, and each entry that is made or taken out, is in a list with its reason. Found in the instructions: by which table's value each
//! register holds at each of them, on all ways through a program.
//!
//! The ways that an event takes which is only counted have a list of their own: those that end without a call of a function that does more.

#[path = "stores/listed.rs"]
mod listed;

use std::collections::{BTreeMap, BTreeSet};
use std::fs;

use libbpf_rs::btf::types::Struct;
use libbpf_rs::btf::{Btf, BtfType, HasSize as _, TypeId, types::MemberAttr};
use libbpf_rs::{AsRawLibbpf as _, MapType, ObjectBuilder, libbpf_sys};

use crate::code::{
    ADD, ADD_NUMBER, ALU64, ATOMIC, CALL, EXIT, Instruction, JMP, JMP32, JUMP, LDX, LOAD_WIDE, MOVE, Object, ST, STX,
    SUBTRACT, Target,
};
use listed::{PROGRAMS, Program, SHARED_BY_MANY};

/// Places in values of tables, each by the table and the offset in the value; without an offset: anywhere in it. Variables are tables of one value.
type Places = BTreeMap<String, Option<i64>>;

/// What a register or a slot of the stack holds.
#[derive(Clone, Debug, PartialEq, Eq)]
enum Held {
    /// A number, or a pointer that no value of a table is behind.
    Other,
    /// One of these tables.
    Table(BTreeSet<String>),
    /// A pointer into a value of one of these tables.
    Value(Places),
    /// An address on the stack.
    Stack(i64),
}

impl Held {
    fn join(&self, other: &Self) -> Self {
        match (self, other) {
            (one, other) if one == other => one.clone(),
            (Self::Table(one), Self::Table(other)) => Self::Table(one | other),
            (Self::Value(one), Self::Value(other)) => {
                let mut both = one.clone();
                for (table, offset) in other {
                    both.entry(table.clone()).and_modify(|own| *own = own.filter(|_| own == offset)).or_insert(*offset);
                }
                Self::Value(both)
            }
            (Self::Value(one), _) | (_, Self::Value(one)) => Self::Value(one.clone()),
            _ => Self::Other,
        }
    }

    /// The same, `by` bytes further; `None`: nobody knows how far.
    fn moved(self, by: Option<i64>) -> Self {
        match self {
            Self::Value(places) => {
                let moved = |offset: Option<i64>| offset.zip(by).map(|(offset, by)| offset + by);
                Self::Value(places.into_iter().map(|(table, offset)| (table, moved(offset))).collect())
            }
            Self::Stack(base) => by.map_or(Self::Other, |by| Self::Stack(base + by)),
            other => other,
        }
    }
}

/// What is known before an instruction.
#[derive(Clone, Debug, PartialEq, Eq)]
struct State {
    registers: [Held; 11],
    stack: BTreeMap<i64, Held>,
}

impl State {
    fn entry() -> Self {
        let mut registers = [const { Held::Other }; 11];
        registers[10] = Held::Stack(0);
        Self { registers, stack: BTreeMap::new() }
    }

    fn join(&self, other: &Self) -> Self {
        let registers = std::array::from_fn(|at| self.registers[at].join(&other.registers[at]));
        let places: BTreeSet<&i64> = self.stack.keys().chain(other.stack.keys()).collect();
        let held = |state: &Self, at: &i64| state.stack.get(at).cloned().unwrap_or(Held::Other);
        let stack = places.into_iter().map(|at| (*at, held(self, at).join(&held(other, at)))).collect();
        Self { registers, stack }
    }
}

/// A helper's result or its first argument: by its number, enum bpf_func_id.
const LOOK_UPS: [i32; 2] = [1, 156]; // map_lookup_elem, task_storage_get: a value of the table that they are given
const CHANGES: [i32; 4] = [2, 3, 87, 88]; // map_update_elem, map_delete_elem, map_push_elem, map_pop_elem: change the table
const READS: [i32; 4] = [112, 113, 114, 115]; // probe_read_user, probe_read_kernel, and the two of strings: write to where they are told
const RING_OUTPUT: i32 = 130; // ringbuf_output

/// A compiled object.
struct Programs<'data> {
    object: Object<'data>,
    /// The tables: whether each processor or each thread has values of its own, and the type of their values.
    tables: BTreeMap<String, (bool, TypeId)>,
    types: Btf<'data>,
}

/// The instructions of one function, and what is known of them.
struct Function {
    code: Vec<Instruction>,
    /// Before each instruction that is reached.
    known: BTreeMap<usize, State>,
    /// The function that is called there.
    calls: BTreeMap<usize, String>,
}

impl Function {
    /// The instructions on ways from the beginning to the end that come by none of those that `ends` names.
    fn on_ways_without(&self, ends: impl Fn(usize) -> bool) -> BTreeSet<usize> {
        let mut before: BTreeMap<usize, Vec<usize>> = BTreeMap::new();
        let (mut forth, mut left) = (BTreeSet::new(), vec![0]);
        while let Some(at) = left.pop() {
            if ends(at) || !forth.insert(at) {
                continue;
            }
            for next in following(at, self.code[at]) {
                before.entry(next).or_default().push(at);
                left.push(next);
            }
        }
        let mut back = BTreeSet::new();
        left.extend(forth.iter().copied().filter(|at| self.code[*at].code == EXIT));
        while let Some(at) = left.pop() {
            if forth.contains(&at) && back.insert(at) {
                left.extend(before.get(&at).into_iter().flatten());
            }
        }
        back
    }
}

impl<'data> Programs<'data> {
    fn open(path: &str, bytes: &'data [u8]) -> Self {
        let own = ObjectBuilder::default().open_file(path).unwrap();
        let is_own = |kind| matches!(kind, MapType::PercpuArray | MapType::PercpuHash | MapType::TaskStorage);
        let tables = own.maps().map(|map| {
            let name = map.name().to_str().unwrap().to_owned();
            // SAFETY: the object, whose map this is, is open until the end of this function.
            let value = unsafe { libbpf_sys::bpf_map__btf_value_type_id(map.as_libbpf_object().as_ptr()) };
            let is_own = is_own(map.map_type()) && !SHARED_BY_MANY.contains(&name.as_str());
            (name, (is_own, TypeId::from(value)))
        });
        let tables = tables.collect();
        Self { object: Object::parse(bytes), tables, types: Btf::from_path(path).unwrap() }
    }

    /// What the program writes, with all that it calls: on ways that come by none of the tables of `ends`, and elsewhere.
    fn writes(&self, program: &str, ends: &[&str]) -> (BTreeSet<String>, BTreeSet<String>) {
        let mut functions = BTreeMap::new();
        self.add_function(program, ends, &mut functions);
        let (mut counting, mut other) = (BTreeSet::new(), BTreeSet::new());
        let (mut seen, mut left) = (BTreeSet::new(), vec![(program, true)]);
        while let Some((name, is_counting)) = left.pop() {
            if !seen.insert((name, is_counting)) {
                continue;
            }
            let (function, ways) = &functions[name];
            for (at, state) in &function.known {
                let found = if is_counting && ways.contains(at) { &mut counting } else { &mut other };
                found.extend(self.written(state, function.code[*at]));
            }
            left.extend(function.calls.iter().map(|(at, called)| (called.as_str(), is_counting && ways.contains(at))));
        }
        let other = other.difference(&counting).cloned().collect();
        (counting, other)
    }

    /// Adds the function and those that it calls, each with the instructions on its ways that come by none of the tables of `ends`.
    fn add_function(&self, name: &str, ends: &[&str], functions: &mut BTreeMap<String, (Function, BTreeSet<usize>)>) {
        let function = self.function(name);
        for called in function.calls.values() {
            if !functions.contains_key(called) {
                self.add_function(called, ends, functions);
            }
        }
        let is_end = |at: usize| match (function.calls.get(&at), &function.known[&at].registers[1]) {
            (Some(called), _) => functions[called].1.is_empty(),
            (None, Held::Table(tables)) if function.code[at].code == CALL => {
                is_helper(function.code[at], &[RING_OUTPUT])
                    || tables.iter().any(|table| ends.contains(&table.as_str()))
            }
            _ => false,
        };
        let ways = function.on_ways_without(is_end);
        functions.insert(name.to_owned(), (function, ways));
    }

    /// One function: what each register holds before each of its instructions.
    fn function(&self, name: &str) -> Function {
        let code = self.object.code(name);
        let calls = (0..code.instructions.len()).filter_map(|at| Some((at, self.object.called(&code, at)?)));
        let calls: BTreeMap<usize, String> = calls.collect();
        let mut function = Function { code: code.instructions, known: BTreeMap::from([(0, State::entry())]), calls };
        let mut left = vec![0];
        while let Some(at) = left.pop() {
            let (mut state, instruction) = (function.known[&at].clone(), function.code[at]);
            let constant = code.relocated.get(&at).map(|target| self.held_at(target, instruction.number));
            run(&mut state, instruction, constant);
            for next in following(at, instruction) {
                let joined = function.known.get(&next).map_or_else(|| state.clone(), |before| before.join(&state));
                if function.known.get(&next) != Some(&joined) {
                    function.known.insert(next, joined);
                    left.push(next);
                }
            }
        }
        function
    }

    /// What a relocated constant is: a table of the section .maps, or a variable.
    fn held_at(&self, target: &Target, offset: i32) -> Held {
        match self.object.section_name(target) {
            ".maps" => Held::Table(BTreeSet::from([target.name.clone()])),
            _ => Held::Value(BTreeMap::from([(target.name.clone(), Some(i64::from(offset)))])),
        }
    }

    /// What the instruction writes that other processors write as well, as it is listed.
    fn written(&self, state: &State, instruction: Instruction) -> Vec<String> {
        let is_own = |table: &String| self.tables.get(table).is_some_and(|(is_own, _)| *is_own);
        if is_helper(instruction, &CHANGES) {
            return match &state.registers[1] {
                Held::Table(tables) => tables.iter().map(|table| format!("{table}, entries")).collect(),
                other => panic!("a change of {other:?}"),
            };
        }
        let is_read = is_helper(instruction, &READS);
        let held = match instruction.code & 7 {
            _ if is_read => &state.registers[1],
            ST | STX => &state.registers[instruction.to],
            _ => return Vec::new(),
        };
        let Held::Value(places) = held else { return Vec::new() };
        let is_atomic = instruction.code & 7 == STX && instruction.code & 0xe0 == ATOMIC;
        let offset = if is_read { 0 } else { instruction.offset };
        let shared = places.iter().filter(|(table, _)| is_atomic || !is_own(table));
        let atomic = if is_atomic { ", atomic" } else { "" };
        shared.map(|(table, at)| self.name(table, at.map(|at| at + offset)) + atomic).collect()
    }

    /// A place by its field: `fl_groups.samples`.
    fn name(&self, table: &str, offset: Option<i64>) -> String {
        let Some(kind) = self.tables.get(table).and_then(|(_, kind)| self.types.type_by_id::<BtfType<'_>>(*kind))
        else {
            return table.to_owned();
        };
        let Ok(value) = Struct::try_from(kind.skip_mods_and_typedefs()) else { return table.to_owned() };
        let Some(offset) = offset else { return format!("{table}.?") };
        assert!((0..value.size() as i64).contains(&offset), "{table} has no byte {offset}");
        let at = |attr: &MemberAttr| match attr {
            MemberAttr::Normal { offset } | MemberAttr::BitField { offset, .. } => i64::from(offset / 8),
        };
        let member =
            value.iter().filter(|member| at(&member.attr) <= offset).max_by_key(|member| at(&member.attr)).unwrap();
        format!("{table}.{}", member.name.unwrap().to_str().unwrap())
    }
}

fn is_helper(instruction: Instruction, numbers: &[i32]) -> bool {
    instruction.code == CALL && instruction.from == 0 && numbers.contains(&instruction.number)
}

/// Changes the state as the instruction does. `constant`: what it loads, if that is relocated.
fn run(state: &mut State, instruction: Instruction, constant: Option<Held>) {
    let Instruction { code, to, from, offset, number } = instruction;
    let at = |base: &Held| if let Held::Stack(base) = base { Some(base + offset) } else { None };
    match code {
        LOAD_WIDE => state.registers[to] = constant.unwrap_or(Held::Other),
        MOVE => state.registers[to] = state.registers[from].clone(),
        ADD_NUMBER => state.registers[to] = state.registers[to].clone().moved(Some(i64::from(number))),
        ADD => {
            let sum = state.registers[to].clone().moved(None).join(&state.registers[from].clone().moved(None));
            state.registers[to] = if matches!(sum, Held::Value(_)) { sum } else { Held::Other };
        }
        CALL => {
            let value = match (is_helper(instruction, &LOOK_UPS), &state.registers[1]) {
                (true, Held::Table(tables)) => {
                    Held::Value(tables.iter().map(|table| (table.clone(), Some(0))).collect())
                }
                (true, other) => panic!("a look-up in {other:?}"),
                _ => Held::Other,
            };
            state.registers[0] = value;
            state.registers[1..=5].fill(Held::Other);
        }
        _ => match code & 7 {
            LDX => {
                state.registers[to] =
                    at(&state.registers[from]).and_then(|at| state.stack.get(&at).cloned()).unwrap_or(Held::Other)
            }
            STX | ST => {
                if let Some(at) = at(&state.registers[to]) {
                    let held = if code & 7 == STX { state.registers[from].clone() } else { Held::Other };
                    state.stack.insert(at, held);
                }
            }
            JMP | JMP32 => {}
            // A calculation: what it leaves is a pointer only where something was taken from one.
            _ if code & 7 == ALU64 && code & 0xf0 == SUBTRACT => {
                state.registers[to] = state.registers[to].clone().moved(None)
            }
            _ => state.registers[to] = Held::Other,
        },
    }
}

/// The instructions that may come next.
fn following(at: usize, instruction: Instruction) -> Vec<usize> {
    let jump = (at as i64 + 1 + instruction.offset) as usize;
    match instruction.code {
        EXIT => Vec::new(),
        LOAD_WIDE => vec![at + 2],
        JUMP => vec![jump],
        CALL => vec![at + 1],
        code if matches!(code & 7, JMP | JMP32) => vec![at + 1, jump],
        _ => vec![at + 1],
    }
}

fn listed(list: &[(&str, &str)]) -> BTreeSet<String> {
    let names: BTreeSet<String> = list.iter().map(|(name, _)| (*name).to_owned()).collect();
    assert_eq!(names.len(), list.len(), "something is listed twice");
    names
}

#[test]
fn what_other_processors_write_to_is_written_for_a_reason() {
    for Program { object, name, ends, counting, other } in PROGRAMS {
        let (mut found_counting, mut found_other) = (BTreeSet::new(), BTreeSet::new());
        for build in ["plain", "typed"] {
            let path = format!("{}/{object}.{build}.o", env!("OUT_DIR"));
            let bytes = fs::read(&path).unwrap();
            let (counting, other) = Programs::open(&path, &bytes).writes(name, ends);
            found_counting.extend(counting);
            found_other.extend(other);
        }
        let where_from = |found: &BTreeSet<String>, list| format!("{name}: {found:#?}\nagainst {list}");
        assert_eq!(found_counting, listed(counting), "{}", where_from(&found_counting, "`counting`"));
        assert_eq!(found_other, listed(other), "{}", where_from(&found_other, "`other`"));
    }
}
