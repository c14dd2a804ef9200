//! Loads and stores by their encoding: which registers make the address, and how many bytes are accessed.
//!
//! Source: Arm Architecture Reference Manual, C4.1 (loads and stores). Where a row of its tables is unallocated, or does something else
//! with memory (tags, copies of blocks, vectors of any length), nothing is decoded.

/// What a load or store accesses.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Access {
    /// The number of the register that the address is made of; 31 is the stack pointer. `None` means the program counter.
    pub base: Option<u32>,
    /// The other one.
    pub index: Option<Index>,
    /// What is added.
    pub offset: i64,
    /// Bytes of one part.
    pub bytes: u64,
    /// Parts that follow each other: the two registers of a pair.
    pub parts: u64,
    pub reads: bool,
    pub writes: bool,
}

/// The register of an index, and how it is made an offset.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Index {
    /// 31 is the zero.
    pub number: u32,
    option: u32,
    /// To the left.
    pub shift: u32,
}

impl Index {
    /// It is the lower half of the register.
    pub(super) fn is_word(self) -> bool {
        self.option & 1 == 0
    }

    /// The offset that this value makes.
    pub(super) fn extended(self, value: u64) -> u64 {
        let value = match self.option {
            0b010 => value & 0xffff_ffff,
            0b110 => i64::from((value as u32).cast_signed()).cast_unsigned(),
            _ => value,
        };
        value << self.shift
    }
}

/// Must the address of an access that [`decode`] knows be a multiple of its size? Of an exclusive access, an ordered one, and an atomic one.
pub(super) fn needs_alignment(word: u32) -> bool {
    match (field(word, 28, 2), field(word, 24, 2), bit(word, 26)) {
        (0b00, 0b00, false) | (0b01, 0b01, false) => true,
        (0b11, 0b00, false) => bit(word, 21) && field(word, 10, 2) == 0b00,
        _ => false,
    }
}

fn field(word: u32, low: u32, bits: u32) -> u32 {
    word >> low & ((1 << bits) - 1)
}

/// A field with a sign.
fn signed(word: u32, low: u32, bits: u32) -> i64 {
    let above = 32 - bits;
    i64::from((field(word, low, bits) << above).cast_signed() >> above)
}

fn bit(word: u32, at: u32) -> bool {
    field(word, at, 1) != 0
}

/// At the address in the register of bits 5 to 9.
fn at_base(word: u32, bytes: u64, is_load: bool) -> Access {
    Access { base: Some(field(word, 5, 5)), index: None, offset: 0, bytes, parts: 1, reads: is_load, writes: !is_load }
}

/// The access of an instruction. `None` means that it is none, or is not decoded. A prefetch accesses nothing: no parts.
pub(super) fn decode(word: u32) -> Option<Access> {
    // Loads and stores have bit 27, and not bit 25.
    if field(word, 25, 1) != 0 || !bit(word, 27) {
        return None;
    }
    match (field(word, 28, 2), field(word, 24, 2), bit(word, 26)) {
        (0b00, 0b00, false) => exclusive(word),
        (0b00, 0b00 | 0b01, true) => structures(word),
        (0b01, 0b00, _) => literal(word),
        (0b01, 0b01, false) => ordered(word),
        (0b10, _, _) => pair(word),
        (0b11, 0b01, _) => unsigned_offset(word),
        (0b11, 0b00, _) if !bit(word, 21) => signed_offset(word),
        (0b11, 0b00, _) if field(word, 10, 2) == 0b10 => register_offset(word),
        (0b11, 0b00, false) if field(word, 10, 2) == 0b00 => atomic(word),
        _ => None,
    }
}

/// Exclusive accesses, ordered ones, and compare and swap. Fields of registers that an instruction doesn't have are all ones.
fn exclusive(word: u32) -> Option<Access> {
    let (size, is_load) = (field(word, 30, 2), bit(word, 22));
    let (has_second, has_status) = (field(word, 10, 5) != 31, field(word, 16, 5) != 31);
    let single = at_base(word, 1 << size, is_load);
    match (bit(word, 23), bit(word, 21)) {
        // STXR, LDXR
        (false, false) => (!(has_second || is_load && has_status)).then_some(single),
        // STXP, LDXP: one access of both.
        (false, true) if size >= 2 => (!(is_load && has_status)).then_some(Access { bytes: 2 << size, ..single }),
        // CASP: of two words or two doublewords, in registers of even numbers.
        (false, true) => {
            let is_casp = !has_second && !bit(word, 0) && !bit(word, 16);
            is_casp.then_some(Access { bytes: 8 << size, reads: true, writes: true, ..single })
        }
        // STLR, LDAR and their like.
        (true, false) => (!has_second && !has_status).then_some(single),
        // CAS
        (true, true) => (!has_second).then_some(Access { reads: true, writes: true, ..single }),
    }
}

/// LD1 to LD4 and ST1 to ST4 of vectors.
fn structures(word: u32) -> Option<Access> {
    let is_load = bit(word, 22);
    if bit(word, 31) {
        return None;
    }
    let is_post = bit(word, 23);
    let has_rest = if is_post { 0 } else { field(word, 16, 5) };
    if bit(word, 24) {
        let (opcode, size) = (field(word, 13, 3), field(word, 10, 2));
        let elements = u64::from((opcode & 1) << 1 | field(word, 21, 1)) + 1;
        let bytes = match (opcode >> 1, size) {
            (0, _) => 1,
            (1, 0 | 2) => 2,
            (2, 0) => 4,
            (2, 1) if !bit(word, 12) => 8,
            (3, _) if is_load && !bit(word, 12) => 1 << size,
            _ => return None,
        };
        return (has_rest == 0).then(|| at_base(word, elements * bytes, is_load));
    }
    let registers = match field(word, 12, 4) {
        0b0000 | 0b0010 => 4,
        0b0100 | 0b0110 => 3,
        0b0111 => 1,
        0b1000 | 0b1010 => 2,
        _ => return None,
    };
    // A structure with several elements of 8 bytes needs whole vectors.
    let is_reserved =
        matches!(field(word, 12, 4), 0b0000 | 0b0100 | 0b1000) && field(word, 10, 2) == 3 && !bit(word, 30);
    let is_known = !bit(word, 21) && has_rest == 0 && !is_reserved;
    is_known.then(|| at_base(word, registers * if bit(word, 30) { 16 } else { 8 }, is_load))
}

/// LDR of a place near the instruction.
fn literal(word: u32) -> Option<Access> {
    let (bytes, parts) = match (field(word, 30, 2), bit(word, 26)) {
        (0b00, _) | (0b10, false) => (4, 1),
        (0b01, _) => (8, 1),
        (0b10, true) => (16, 1),
        (_, false) => (1, 0),
        (_, true) => return None,
    };
    Some(Access { base: None, offset: signed(word, 5, 19) * 4, parts, ..at_base(word, bytes, true) })
}

/// LDAPUR and STLUR.
fn ordered(word: u32) -> Option<Access> {
    if bit(word, 21) || field(word, 10, 2) != 0 {
        return None;
    }
    let (size, opc) = (field(word, 30, 2), field(word, 22, 2));
    let is_allocated = opc < 2 || (opc == 2 && size < 3) || size < 2;
    is_allocated.then(|| Access { offset: signed(word, 12, 9), ..at_base(word, 1 << size, opc != 0) })
}

/// LDP and STP.
fn pair(word: u32) -> Option<Access> {
    let (opc, mode, is_load) = (field(word, 30, 2), field(word, 23, 2), bit(word, 22));
    let bytes: u64 = match (opc, bit(word, 26)) {
        (0b00, _) => 4,
        // LDPSW. The store would be of tags, too.
        (0b01, false) if is_load && mode != 0 => 4,
        (0b01, true) | (0b10, false) => 8,
        (0b10, true) => 16,
        _ => return None,
    };
    // Behind the access (post-index) it is added to the register alone.
    let offset = if mode == 0b01 { 0 } else { signed(word, 15, 7) * bytes.cast_signed() };
    Some(Access { offset, parts: 2, ..at_base(word, bytes, is_load) })
}

/// What LDR and STR of one register access, with the exponent of its size; a prefetch has no parts.
fn single(word: u32) -> Option<(Access, u32)> {
    let (size, opc) = (field(word, 30, 2), field(word, 22, 2));
    if bit(word, 26) {
        let exponent = if opc & 2 != 0 { 4 } else { size };
        return (opc & 2 == 0 || size == 0).then(|| (at_base(word, 1 << exponent, opc & 1 != 0), exponent));
    }
    let access = at_base(word, 1 << size, opc != 0);
    match (opc, size) {
        (0 | 1, _) | (2, 0..=2) | (3, 0 | 1) => Some((access, size)),
        (2, _) => Some((Access { parts: 0, ..access }, size)),
        _ => None,
    }
}

fn unsigned_offset(word: u32) -> Option<Access> {
    let (access, exponent) = single(word)?;
    Some(Access { offset: i64::from(field(word, 10, 12)) << exponent, ..access })
}

/// Without a scale (LDUR), before or behind the access, or as an unprivileged program (LDTR).
fn signed_offset(word: u32) -> Option<Access> {
    let (access, _) = single(word)?;
    let mode = field(word, 10, 2);
    // Only LDUR has a prefetch, and LDTR no vector.
    if (access.parts == 0 && mode != 0) || (mode == 0b10 && bit(word, 26)) {
        return None;
    }
    let offset = if mode == 0b01 { 0 } else { signed(word, 12, 9) };
    Some(Access { offset, ..access })
}

fn register_offset(word: u32) -> Option<Access> {
    let (access, exponent) = single(word)?;
    let option = field(word, 13, 3);
    let shift = if bit(word, 12) { exponent } else { 0 };
    (option & 2 != 0).then_some(Access { index: Some(Index { number: field(word, 16, 5), option, shift }), ..access })
}

/// LDADD and its like, SWP, LDAPR.
fn atomic(word: u32) -> Option<Access> {
    let access = at_base(word, 1 << field(word, 30, 2), true);
    match (bit(word, 15), field(word, 12, 3)) {
        (false, _) | (true, 0b000) => Some(Access { writes: true, ..access }),
        (true, 0b100) if field(word, 22, 2) == 0b10 && field(word, 16, 5) == 31 => Some(access),
        _ => None,
    }
}
