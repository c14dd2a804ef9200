//! The functions of a compiled object, and their instructions.

use std::collections::BTreeMap;

use object::{Object as _, ObjectSection as _, ObjectSymbol as _, RelocationTarget, SectionIndex, SymbolKind};

/// An instruction: include/uapi/linux/bpf.h.
#[derive(Clone, Copy)]
pub(crate) struct Instruction {
    pub code: u8,
    pub to: usize,
    pub from: usize,
    pub offset: i64,
    pub number: i32,
}

// Classes of instructions, and what is asked of them.
pub(crate) const LDX: u8 = 0x01;
pub(crate) const ST: u8 = 0x02;
pub(crate) const STX: u8 = 0x03;
pub(crate) const JMP: u8 = 0x05;
pub(crate) const JMP32: u8 = 0x06;
pub(crate) const ALU64: u8 = 0x07;
pub(crate) const ATOMIC: u8 = 0xc0;
pub(crate) const CALL: u8 = 0x85;
pub(crate) const EXIT: u8 = 0x95;
pub(crate) const JUMP: u8 = 0x05;
pub(crate) const MOVE: u8 = 0xbf;
pub(crate) const ADD_NUMBER: u8 = 0x07;
pub(crate) const ADD: u8 = 0x0f;
pub(crate) const SUBTRACT: u8 = 0x10;
pub(crate) const LOAD_WIDE: u8 = 0x18;

/// What an instruction is relocated to.
pub(crate) struct Target {
    section: SectionIndex,
    pub name: String,
    address: u64,
}

/// The instructions of one function.
pub(crate) struct Code {
    pub instructions: Vec<Instruction>,
    /// By the index of the instruction.
    pub relocated: BTreeMap<usize, Target>,
    section: SectionIndex,
    begin: u64,
}

/// A compiled object.
pub(crate) struct Object<'data> {
    file: object::File<'data>,
}

impl<'data> Object<'data> {
    pub(crate) fn parse(bytes: &'data [u8]) -> Self {
        Self { file: object::File::parse(bytes).unwrap() }
    }

    /// The names of all functions, programs among them.
    pub(crate) fn functions(&self) -> Vec<String> {
        let functions = self.file.symbols().filter(|symbol| symbol.kind() == SymbolKind::Text && symbol.size() > 0);
        functions.map(|symbol| symbol.name().unwrap().to_owned()).collect()
    }

    pub(crate) fn code(&self, name: &str) -> Code {
        let symbol = self.file.symbols().find(|symbol| symbol.name() == Ok(name)).unwrap();
        let (index, begin, bytes) = (symbol.section_index().unwrap(), symbol.address(), symbol.size());
        let section = self.file.section_by_index(index).unwrap();
        let relocations = section.relocations().filter(|(at, _)| (begin..begin + bytes).contains(at));
        let relocated =
            relocations.filter_map(|(at, relocation)| Some((((at - begin) / 8) as usize, self.target(&relocation)?)));
        Code {
            instructions: instructions(&section.data().unwrap()[begin as usize..(begin + bytes) as usize]),
            relocated: relocated.collect(),
            section: index,
            begin,
        }
    }

    /// The function that the instruction calls: by its symbol, or by its distance from that of its section. `None`: it calls none.
    pub(crate) fn called(&self, code: &Code, at: usize) -> Option<String> {
        let instruction = code.instructions[at];
        if instruction.code != CALL || instruction.from != 1 {
            return None;
        }
        let place = code.begin + at as u64 * 8;
        let behind = (i64::from(instruction.number) + 1) * 8;
        Some(match code.relocated.get(&at) {
            Some(target) => self.name_at(target.section, target.address.wrapping_add_signed(behind)),
            None => self.name_at(code.section, place.wrapping_add_signed(behind)),
        })
    }

    pub(crate) fn section_name(&self, target: &Target) -> &str {
        self.file.section_by_index(target.section).unwrap().name().unwrap()
    }

    /// The function that begins at this place.
    fn name_at(&self, section: SectionIndex, address: u64) -> String {
        let is_there = |symbol: &object::Symbol<'_, '_>| {
            symbol.section_index() == Some(section) && symbol.address() == address && symbol.size() > 0
        };
        self.file.symbols().find(is_there).unwrap().name().unwrap().to_owned()
    }

    fn target(&self, relocation: &object::Relocation) -> Option<Target> {
        let RelocationTarget::Symbol(symbol) = relocation.target() else { return None };
        let symbol = self.file.symbol_by_index(symbol).ok()?;
        let section = symbol.section_index()?;
        let name = match symbol.name() {
            Ok("") | Err(_) => self.file.section_by_index(section).ok()?.name().ok()?,
            Ok(name) => name,
        };
        Some(Target { section, name: name.to_owned(), address: symbol.address() })
    }
}

fn instructions(bytes: &[u8]) -> Vec<Instruction> {
    let read = |word: &[u8]| Instruction {
        code: word[0],
        to: usize::from(word[1] & 0xf),
        from: usize::from(word[1] >> 4),
        offset: i64::from(i16::from_ne_bytes([word[2], word[3]])),
        number: i32::from_ne_bytes([word[4], word[5], word[6], word[7]]),
    };
    bytes.chunks_exact(8).map(read).collect()
}
