//! Addresses to names: from the files that a record names, as long as they are the files that ran.

mod demangle;
mod file;
pub mod unwind;

use std::collections::HashSet;
use std::panic::{AssertUnwindSafe, catch_unwind};

use blazesym::symbolize::source::{Elf, Source};
use blazesym::symbolize::{CodeInfo, Input, Sym, Symbolized, Symbolizer};

pub use file::{Files, Found, Version, Wanted};

/// How many versions of files the symbolizer keeps open before it starts anew: bounds the memory of a long run.
const FILES_MAX: usize = 64;

/// A function that an address is in.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Function {
    /// `main+0x10`; an inlined function has no address of its own, so only its name.
    pub symbol: String,
    /// The source file.
    pub file: Option<String>,
    /// The line in it.
    pub line: Option<u32>,
    /// It is part of the next function in the list.
    pub inlined: bool,
}

/// Names functions. Costs nothing until the first name is asked for.
#[derive(Default)]
pub struct Namer {
    symbolizer: Option<Symbolizer>,
    seen: HashSet<Version>,
}

impl Namer {
    /// The functions at `offset` of the file, innermost first: inlined ones, then the one they are part of. Empty: no name
    /// that is certain. A return address belongs to the call before it, so it is looked up one byte earlier.
    pub fn functions(&mut self, file: &Found, offset: u64, is_return_address: bool) -> Vec<Function> {
        if !self.seen.contains(&file.version) {
            if self.seen.len() >= FILES_MAX {
                *self = Self::default();
            }
            self.seen.insert(file.version);
        }
        let back = u64::from(is_return_address);
        let Some(asked) = offset.checked_sub(back) else { return Vec::new() };
        let symbolizer = self.symbolizer.get_or_insert_with(|| Symbolizer::builder().enable_demangling(false).build());
        let mut elf = Elf::new(&file.path);
        elf.debug_syms = file.may_follow;
        let source = Source::Elf(elf);
        // The parser may give up on a crafted file by a panic; such a file has no names, and the symbolizer starts anew.
        let look_up = AssertUnwindSafe(|| match symbolizer.symbolize_single(&source, Input::FileOffset(asked)) {
            Ok(Symbolized::Sym(sym)) if covers(&sym) => expand(&sym, back),
            _ => Vec::new(),
        });
        catch_unwind(look_up).unwrap_or_else(|_| {
            *self = Self::default();
            Vec::new()
        })
    }
}

/// A symbol without a size reaches to the next one for all that the file says: too little to name a frame by.
fn covers(sym: &Sym<'_>) -> bool {
    sym.size.is_some_and(|size| sym.offset < size) || is_apart(sym)
}

/// Compilers put what is seldom run of a function far away (`NAME.cold`). Debug information says whose it is and which line,
/// but the function then has no one address, and so the place no offset in it.
fn is_apart(sym: &Sym<'_>) -> bool {
    sym.addr == 0 && sym.size.is_none() && sym.code_info.is_some()
}

fn expand(sym: &Sym<'_>, back: u64) -> Vec<Function> {
    let mut functions: Vec<Function> = sym
        .inlined
        .iter()
        .rev()
        .map(|inlined| {
            let (file, line) = place(inlined.code_info.as_ref());
            Function { symbol: demangle::demangle(&inlined.name), file, line, inlined: true }
        })
        .collect();
    let (file, line) = place(sym.code_info.as_deref());
    let mut symbol = demangle::demangle(&sym.name);
    if !is_apart(sym) {
        symbol += &format!("+{:#x}", sym.offset as u64 + back);
    }
    functions.push(Function { symbol, file, line, inlined: false });
    functions
}

fn place(code: Option<&CodeInfo<'_>>) -> (Option<String>, Option<u32>) {
    match code {
        Some(code) => (Some(code.to_path().to_string_lossy().into_owned()), code.line),
        None => (None, None),
    }
}
