//! Files that are made to harm whoever looks for names in them.

use std::os::unix::fs::symlink;
use std::path::Path;
use std::process::Command;

use crate::forge::{BASE, CODE, Forgery, Section, leb, note, symbol, unit};

/// Why there may be no names.
pub(crate) type Reasons = &'static [&'static str];

/// It takes too long, or more memory than the namer has.
const SPENT: Reasons = &["timed_out", "died"];

/// It is harmless, or refused before it does harm: the code has its symbol's name.
const HARMLESS: Reasons = &[];

/// A name, how the file is made that has it, and why the record has no names.
pub(crate) type Attack = (&'static str, fn(&Path) -> Forgery, Reasons);

/// Each is given the path that the file will have.
pub(crate) const ATTACKS: &[Attack] = &[
    ("eh_frame of 1.6 MB", |_| costly(), &["timed_out"]),
    ("eh_frame of 6.6 MB", |_| endless(), &["timed_out"]),
    ("an expression for each register", |_| expressions(), HARMLESS),
    ("an abbreviation with millions of attributes", |_| abbreviation(), SPENT),
    ("a million units", |_| units(), SPENT),
    ("functions nested without end", |_| nested(300_000), HARMLESS),
    ("functions that are each other's origin", |_| origins(), HARMLESS),
    ("lines without end", |_| lines(), SPENT),
    ("folders without end", |_| line_folders(), SPENT),
    ("ranges without end", |_| ranges(), SPENT),
    ("more symbols than there are", |_| symbols_that_are_not_there(), HARMLESS),
    ("millions of symbols", |_| symbols(), HARMLESS),
    ("a section of 2^60 bytes", |_| compressed(1 << 60), HARMLESS),
    ("a section that is longer than it says", |_| compressed(1 << 20), HARMLESS),
    ("long notes", |_| notes(), HARMLESS),
    ("debug information elsewhere", |_| elsewhere(), HARMLESS),
    ("a debug file that is a FIFO", |program| linked(program, "fifo"), HARMLESS),
    ("a debug file without end", |program| linked(program, "zero"), HARMLESS),
    ("a debug file that is the file itself", |program| linked(program, "itself"), HARMLESS),
    ("a C++ name", |_| Forgery::named(&packs(40), Vec::new()), HARMLESS),
    ("a Rust name", |_| Forgery::named(&tuples(), Vec::new()), HARMLESS),
    (
        "a C++ name that is nested deeply",
        |_| Forgery::named(&format!("_Z1fIX{}EEvv", "adsz".repeat(1020)), Vec::new()),
        HARMLESS,
    ),
    (
        "a Rust name that is nested deeply",
        |_| Forgery::named(&format!("_RINvC1a1f{}E", "T".repeat(4080)), Vec::new()),
        HARMLESS,
    ),
    ("long names in a deep stack", |_| long_names(), &["too_large"]),
    ("sections that overlap", |_| overlapping(), HARMLESS),
];

/// The one that takes longest, for whoever needs the namer to be busy.
pub(crate) fn endless() -> Forgery {
    eh_frame(3_300_000, 117_000)
}

/// One of which many are written.
pub(crate) fn costly() -> Forgery {
    eh_frame(800_000, 28_000)
}

/// Without an index. Each of so many entries names the first one, whose augmentation takes long to read.
fn eh_frame(augmentation: usize, entries: usize) -> Forgery {
    let mut content = Vec::new();
    let mut first = vec![0, 0, 0, 0, 1, b'z'];
    first.resize(augmentation, b'S');
    first.extend([0, 1, 1, 16, 0, 0]);
    first.resize(first.len().next_multiple_of(4), 0);
    content.extend((first.len() as u32).to_le_bytes());
    content.extend(first);
    for _ in 0..entries {
        let back = content.len() as u32 + 4;
        content.extend(24_u32.to_le_bytes());
        content.extend(back.to_le_bytes());
        content.extend([0; 20]);
    }
    content.extend([0; 4]);
    Forgery::named("victim", vec![Section::new(".eh_frame", content)])
}

/// Calls itself until its stack is full. Each register of each frame is the result of a loop.
fn expressions() -> Forgery {
    // CIE: version 1, no augmentation, factors 1 and -8, return address in column 16.
    let mut first = vec![0, 0, 0, 0, 1, 0, 1, 0x78, 16];
    first.resize(16, 0);
    // DW_OP_lit30, lit1, minus, dup, bra to lit1, drop.
    let looped = [0x4e, 0x31, 0x1c, 0x12, 0x28, 0xfa, 0xff, 0x13];
    let rule = |head: &[u8], tail: &[u8]| {
        let bytes = [&looped, tail].concat();
        [head, &leb(bytes.len() as u64), &bytes].concat()
    };
    // The CFA is rsp + 16; the return address is 8 below it; the other registers are the CFA.
    let mut rules = rule(&[0x0f], &[0x77, 16]);
    for register in (0..16).filter(|&register| register != 7) {
        rules.extend(rule(&[0x16, register], &[]));
    }
    rules.extend(rule(&[0x10, 16], &[0x38, 0x1c]));
    let mut content = (first.len() as u32).to_le_bytes().to_vec();
    content.extend(&first);
    let mut entry = (content.len() as u32 + 4).to_le_bytes().to_vec();
    entry.extend((BASE + CODE).to_le_bytes());
    entry.extend(64_u64.to_le_bytes());
    entry.extend(rules);
    content.extend((entry.len() as u32).to_le_bytes());
    content.extend(entry);
    content.extend([0; 4]);
    // push %rax; call itself.
    let code = vec![0x50, 0xe8, 0xfa, 0xff, 0xff, 0xff];
    Forgery { code, ..Forgery::named("victim", vec![Section::new(".eh_frame", content)]) }
}

/// Debug information, compressed.
fn debug_information(info: &[u8], abbreviations: &[u8], more: Vec<Section>) -> Forgery {
    let mut sections =
        vec![Section::compressed(".debug_info", info, None), Section::compressed(".debug_abbrev", abbreviations, None)];
    sections.extend(more);
    Forgery::named("victim", sections)
}

fn abbreviation() -> Forgery {
    let mut abbreviations = vec![1, 0x11, 0];
    abbreviations.extend([0x3e, 0x19].repeat(15_000_000));
    abbreviations.extend([0, 0, 0]);
    debug_information(&unit(&[1]).repeat(100), &abbreviations, Vec::new())
}

pub(crate) fn units() -> Forgery {
    debug_information(&unit(&[1]).repeat(1_000_000), &[1, 0x11, 0, 0, 0, 0], Vec::new())
}

/// DW_AT_low_pc and DW_AT_high_pc, an address and its distance from that.
const RANGE: [u8; 4] = [0x11, 0x01, 0x12, 0x07];

fn everywhere() -> Vec<u8> {
    [0_u64.to_le_bytes(), 0x7fff_ffff_u64.to_le_bytes()].concat()
}

/// An abbreviation: code, tag, whether it has children, attributes.
fn abbreviate(code: u8, tag: u8, children: u8, attributes: &[u8]) -> Vec<u8> {
    [&[code, tag, children], attributes, &[0, 0]].concat()
}

/// A unit, a function that is everywhere, and in it as many inlined ones within each other.
fn nested(depth: usize) -> Forgery {
    let mut abbreviations = abbreviate(1, 0x11, 1, &RANGE);
    abbreviations.extend(abbreviate(2, 0x2e, 1, &[&[0x03, 0x08], &RANGE[..]].concat()));
    abbreviations.extend(abbreviate(3, 0x1d, 1, &RANGE));
    abbreviations.push(0);
    let mut entries = [&[1], &everywhere()[..], &[2, b'f', 0], &everywhere()].concat();
    entries.extend([&[3], &everywhere()[..]].concat().repeat(depth));
    entries.resize(entries.len() + depth + 2, 0);
    debug_information(&unit(&entries), &abbreviations, Vec::new())
}

/// An inlined function whose origin's origin is that one's origin.
fn origins() -> Forgery {
    const ORIGIN: [u8; 4] = [0x31, 0x13, 0x47, 0x13];
    let mut abbreviations = abbreviate(1, 0x11, 1, &RANGE);
    abbreviations.extend(abbreviate(2, 0x2e, 1, &[&RANGE[..], &ORIGIN].concat()));
    abbreviations.extend(abbreviate(3, 0x1d, 0, &[&RANGE[..], &ORIGIN].concat()));
    abbreviations.extend(abbreviate(4, 0x2e, 0, &ORIGIN));
    abbreviations.push(0);
    // Behind the unit's header of 11 bytes, its own entry of 17, the function of 25, the inlined one of 25, and the end of its children.
    let [first, second] = [11_u32 + 17 + 25 + 25 + 1, 11 + 17 + 25 + 25 + 1 + 9].map(u32::to_le_bytes);
    let to = |origin: [u8; 4]| [origin, origin].concat();
    let mut entries = [&[1], &everywhere()[..]].concat();
    for code in [2, 3] {
        entries.extend([&[code], &everywhere()[..], &to(first)].concat());
    }
    entries.push(0);
    for other in [second, first] {
        entries.extend([&[4], &to(other)[..]].concat());
    }
    entries.push(0);
    debug_information(&unit(&entries), &abbreviations, Vec::new())
}

/// A unit that has a program of lines.
fn with_lines(program: &[u8]) -> Forgery {
    let abbreviations = [abbreviate(1, 0x11, 0, &[&RANGE[..], &[0x10, 0x17]].concat()), vec![0]].concat();
    let entries = [&[1], &everywhere()[..], &[0; 4]].concat();
    debug_information(&unit(&entries), &abbreviations, vec![Section::compressed(".debug_line", program, None)])
}

/// The header of a program of lines up to its tables: their lengths are those of the last two arguments.
fn line_program(version: u16, tables: &[u8], program: &[u8]) -> Vec<u8> {
    let sizes: &[u8] = if version >= 5 { &[8, 0] } else { &[] };
    // Instructions of 1 byte, one operation each, statements, line base -5, range 14, 13 opcodes and their lengths.
    let fixed = [1, 1, 1, 0xfb, 14, 13, 0, 1, 1, 1, 1, 0, 0, 0, 1, 0, 0, 1];
    let rest = [sizes, &((fixed.len() + tables.len()) as u32).to_le_bytes(), &fixed, tables, program].concat();
    let length = rest.len() as u32 + 2;
    [&length.to_le_bytes()[..], &version.to_le_bytes(), &rest].concat()
}

/// One row for each byte.
fn lines() -> Forgery {
    // DW_LNE_set_address, special opcodes, DW_LNE_end_sequence.
    let mut program = vec![0, 9, 2];
    program.extend(BASE.to_le_bytes());
    program.resize(16 << 20, 0x21);
    program.extend([0, 1, 1]);
    with_lines(&line_program(4, &[0, b'f', 0, 0, 0, 0, 0], &program))
}

/// Each of them takes one byte of the file, which says that its name is empty, and thirty times as much in memory.
fn line_folders() -> Forgery {
    // DW_LNCT_path, DW_FORM_string.
    let mut tables = vec![1, 1, 0x08];
    tables.extend(leb(1 << 62));
    tables.resize(16 << 20, 0);
    with_lines(&line_program(5, &tables, &[]))
}

/// Many functions, each at many places.
fn ranges() -> Forgery {
    let mut abbreviations = abbreviate(1, 0x11, 1, &RANGE);
    // DW_AT_ranges by its offset.
    abbreviations.extend(abbreviate(2, 0x2e, 0, &[0x55, 0x17]));
    abbreviations.push(0);
    let mut entries = [&[1], &everywhere()[..]].concat();
    entries.extend([2, 0, 0, 0, 0].repeat(50_000));
    entries.push(0);
    let places: Vec<u8> = (0..65_536_u64).flat_map(|at| [at * 2 + 1, at * 2 + 2]).flat_map(u64::to_le_bytes).collect();
    debug_information(&unit(&entries), &abbreviations, vec![Section::compressed(".debug_ranges", &places, None)])
}

fn symbols_that_are_not_there() -> Forgery {
    let table = Section::new(".symtab", [[0; 24], symbol(1, 64)].concat());
    let bytes = u64::MAX / 24 * 24;
    // The dynamic ones are all there are.
    let names = Section::new(".strtab", *b"\0victim\0");
    let dynamic = Section::new(".dynsym", [[0; 24], symbol(1, 64)].concat());
    let sections = vec![table.claiming(0x1000, bytes), names, dynamic, Section::new(".dynstr", *b"\0victim\0")];
    Forgery::of(sections)
}

/// All of them are the code's.
fn symbols() -> Forgery {
    let table = Section::compressed(".symtab", &symbol(1, 64).repeat(2_000_000), None);
    Forgery::of(vec![table, Section::new(".strtab", *b"\0victim\0")])
}

fn compressed(claimed: u64) -> Forgery {
    let zeros = vec![0; 8 << 20];
    Forgery::named(
        "victim",
        [".debug_info", ".debug_abbrev", ".debug_line", ".debug_str"]
            .map(|name| Section::compressed(name, &zeros, Some(claimed)))
            .into(),
    )
}

fn notes() -> Forgery {
    let mut notes = note(4, u32::MAX, 3, b"GNU\0");
    notes.extend(note(u32::MAX - 2, 20, 3, &[1; 24]));
    Forgery { notes: Some(notes), ..Forgery::named("victim", Vec::new()) }
}

fn elsewhere() -> Forgery {
    let link = [&b"/dev/zero\0"[..], &[1; 20]].concat();
    let mut forgery = nested(10);
    forgery.sections.push(Section::new(".gnu_debugaltlink", link));
    forgery
}

/// By `.gnu_debuglink`, which lies beside the file.
fn linked(program: &Path, name: &str) -> Forgery {
    let there = program.with_file_name(name);
    match name {
        "fifo" => assert!(Command::new("mkfifo").arg(&there).status().unwrap().success()),
        "zero" => symlink("/dev/zero", &there).unwrap(),
        _ => symlink(program, &there).unwrap(),
    }
    let mut link = name.as_bytes().to_vec();
    link.resize((name.len() + 1).next_multiple_of(4), 0);
    link.extend([0; 4]);
    Forgery::named("victim", vec![Section::new(".gnu_debuglink", link)])
}

/// Each of so many arguments is twice the one before it: the readable text would have 2^40 parts.
fn packs(count: usize) -> String {
    let arguments: String = (0..count).map(|number| format!("JT{number}_T{number}_E")).collect();
    format!("_Z1fIJEJT_T_E{arguments}EvT{count}_")
}

/// The same in Rust's way, each of them with a text.
fn tuples() -> String {
    let mut name = "_RINvC1a1fTuuE".to_owned();
    let mut last = 7;
    for _ in 0..30 {
        let at = name.len() - 2;
        let back = if last == 0 { "B_".to_owned() } else { format!("B{}_", base_62(last - 1)) };
        name.push_str(&format!("T{back}{back}E"));
        last = at;
    }
    name.push('E');
    name
}

fn base_62(mut value: usize) -> String {
    const DIGITS: &[u8; 62] = b"0123456789abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ";
    let mut digits = vec![DIGITS[value % 62]];
    while value >= 62 {
        value /= 62;
        digits.push(DIGITS[value % 62]);
    }
    digits.iter().rev().map(|&digit| char::from(digit)).collect()
}

/// Calls itself until its stack is full, with a frame pointer.
fn long_names() -> Forgery {
    // push %rbp; mov %rsp, %rbp; call itself.
    let code = vec![0x55, 0x48, 0x89, 0xe5, 0xe8, 0xf7, 0xff, 0xff, 0xff];
    Forgery { code, ..Forgery::named(&"n".repeat(24_000), Vec::new()) }
}

/// As many as there can be, and each of them is the whole file.
fn overlapping() -> Forgery {
    let mut sections: Vec<Section> =
        (0..60_000).map(|_| Section::new(".debug_info", Vec::new()).claiming(0, 3 << 20)).collect();
    sections.push(Section::new(".debug_abbrev", Vec::new()).claiming(0, 3 << 20));
    sections.push(Section::new(".eh_frame", Vec::new()).claiming(0, 3 << 20));
    Forgery::named("victim", sections)
}
