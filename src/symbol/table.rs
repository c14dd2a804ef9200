//! The symbols of one file, as one part of it has them.

use blazesym::symbolize::source::{Elf, Source};
use blazesym::symbolize::{CodeInfo, Input, Sym, Symbolized, Symbolizer};

use super::copy::PrivateCopy;
use super::demangle::demangle;
use super::descriptors::{descriptor_name, descriptors};
use super::file::MappedFile;
use super::index::Index;
use super::pclntab::PcLineTable;
use super::plt::Plt;
use crate::evidence::Function;

/// Names of addresses.
pub(super) struct Table {
    /// They are in the file that ran, not in its debug file.
    pub(super) is_own: bool,
    names: Names,
}

enum Names {
    /// The names of the symbol table, and of debug information if the copy has it.
    Symbols { symbolizer: Box<Symbolizer>, copy: PrivateCopy },
    /// The names of a symbol table that is too large to be copied.
    Large(Index),
    /// The names of Go's own table.
    Go(PcLineTable),
    /// The names of the stubs that lead to other files.
    Stubs(Plt),
}

impl Table {
    pub(super) fn of_copy(copy: PrivateCopy, is_own: bool) -> Self {
        // It opens nothing but the copy, and the one that the copy names.
        let symbolizer = Symbolizer::builder()
            .enable_demangling(false)
            .enable_auto_reload(false)
            .set_debug_dirs(Some([descriptors()]))
            .build();
        Self { is_own, names: Names::Symbols { symbolizer: Box::new(symbolizer), copy } }
    }

    pub(super) fn of_index(index: Index, is_own: bool) -> Self {
        Self { is_own, names: Names::Large(index) }
    }

    pub(super) fn of_go(table: PcLineTable) -> Self {
        Self { is_own: true, names: Names::Go(table) }
    }

    pub(super) fn of_plt(plt: Plt) -> Self {
        Self { is_own: true, names: Names::Stubs(plt) }
    }

    /// It names functions of the file's own.
    pub(super) fn has_symbols(&self) -> bool {
        !matches!(self.names, Names::Stubs(_))
    }

    /// These are not only those that it exports.
    pub(super) fn has_all_symbols(&self) -> bool {
        match &self.names {
            Names::Symbols { copy, .. } => copy.has_lines || copy.has_all_symbols,
            Names::Large(_) | Names::Go(_) => true,
            Names::Stubs(_) => false,
        }
    }

    /// It has files and lines.
    pub(super) fn has_lines(&self) -> bool {
        match &self.names {
            Names::Symbols { copy, .. } => copy.has_lines,
            Names::Go(_) => true,
            Names::Large(_) | Names::Stubs(_) => false,
        }
    }

    /// The functions at an address of the file's own, innermost first. `back`: how far before the wanted address it is. `found`: the file
    /// that ran.
    pub(super) fn functions(&self, address: u64, back: u64, found: &MappedFile) -> Vec<Function> {
        match &self.names {
            Names::Symbols { symbolizer, copy } => {
                let named = |debug_syms| {
                    let mut elf = Elf::new(descriptors().join(descriptor_name(&copy.file)));
                    elf.debug_syms = debug_syms;
                    match symbolizer.symbolize_single(&Source::Elf(elf), Input::VirtOffset(address)) {
                        Ok(Symbolized::Sym(sym)) if covers(&sym) && !sym.name.is_empty() => Some(sym),
                        _ => None,
                    }
                };
                let Some(sym) = named(copy.has_lines) else { return Vec::new() };
                let mut functions = expand(&sym, back);
                if copy.has_lines
                    && !is_mangled(&sym.name)
                    && let Some(own) = functions.last_mut()
                    && let Some(whole) = named(false).and_then(|symbol| with_scope(&sym.name, &symbol.name))
                {
                    own.name = whole;
                }
                functions
            }
            Names::Large(index) => index.function(address, back, found).into_iter().collect(),
            Names::Go(table) => table.functions(address, back),
            Names::Stubs(plt) => plt.function(address, back).into_iter().collect(),
        }
    }
}

/// A symbol without a size may reach up to the next one, as far as the file says: that is too uncertain to name a frame by.
fn covers(sym: &Sym<'_>) -> bool {
    sym.size.is_some_and(|size| sym.offset < size) || is_apart(sym)
}

/// Compilers put parts of a function that seldom run elsewhere (`NAME.cold`). Debug information has the function and the line, but the
/// function then has no single address, so that the place has no offset in it.
fn is_apart(sym: &Sym<'_>) -> bool {
    sym.addr == 0 && sym.size.is_none() && sym.code_info.is_some()
}

/// How C++ names begin in a symbol table.
const MANGLED: &str = "_Z";

/// What stands behind a name that a compiler has given to a part or to another version of a function.
const COPY: &str = " [clone";

fn is_mangled(name: &str) -> bool {
    name.starts_with(MANGLED)
}

/// A name of debug information with its scope: C++ compilers give one there only to functions that other files can call. The symbol of the
/// same place has it for the others as well. `None` means that the symbol is not the function's, or has no more.
fn with_scope(name: &str, symbol: &str) -> Option<String> {
    let whole = is_mangled(symbol).then(|| demangle(symbol))?;
    let whole = whole.split(COPY).next()?;
    // Both write arguments of templates in their own way.
    let base = name.split('<').next().filter(|base| !base.is_empty())?;
    whole.contains(base).then(|| whole.to_owned())
}

fn expand(sym: &Sym<'_>, back: u64) -> Vec<Function> {
    let mut functions: Vec<Function> = sym
        .inlined
        .iter()
        .rev()
        .filter(|inlined| !inlined.name.is_empty())
        .map(|inlined| {
            let (file, line) = place(inlined.code_info.as_ref());
            Function { name: demangle(&inlined.name), offset: None, file, line, inlined: true }
        })
        .collect();
    let (file, line) = place(sym.code_info.as_deref());
    let offset = (!is_apart(sym)).then(|| sym.offset as u64 + back);
    functions.push(Function { name: demangle(&sym.name), offset, file, line, inlined: false });
    functions
}

fn place(code: Option<&CodeInfo<'_>>) -> (Option<String>, Option<u32>) {
    match code {
        Some(code) => (Some(code.to_path().to_string_lossy().into_owned()), code.line),
        None => (None, None),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_symbol_gives_a_name_its_scope() {
        let of = |name: &str, symbol: &str| with_scope(name, symbol);
        let hidden = "_ZN12_GLOBAL__N_14Impl2goEPi.constprop.0";
        assert_eq!(of("go", hidden).as_deref(), Some("(anonymous namespace)::Impl::go(int*)"));
        assert_eq!(of("other", hidden), None, "linkers give several functions one place");
        assert_eq!(of("go", "go.constprop.0"), None, "a C function");
        assert_eq!(of("f<int const*>", "_ZL1fIPKiEvT_").as_deref(), Some("void f<int const*>(int const*)"));
        assert_eq!(of("<lambda>", hidden), None);
    }
}
