//! The symbols of one file that ran, from all that says something of its functions.

use std::fs::File;
use std::panic::{AssertUnwindSafe, catch_unwind};

use super::copy::{self, PrivateCopy};
use super::elf::{self, Headers, Segment};
use super::file::{self, MappedFile};
use super::index::Index;
use super::pclntab::PcLineTable;
use super::plt::Plt;
use super::request::Open;
use super::split::Split;
use super::table::Table;
use super::{CodePlace, debug};
use crate::evidence::{Failure, Function, Functions};
use crate::page;

/// The symbols of one file that ran.
#[derive(Default)]
pub(super) struct Symbols {
    pub(super) code: Vec<Segment>,
    /// The tables of its debug file, then its own. Empty if there are none, or if the parser can't read them.
    pub(super) tables: Vec<Table>,
    /// What is inlined into its functions, where its own debug information doesn't say that.
    pub(super) split: Option<Split>,
    pub(super) bytes: u64,
    pub(super) used: u64,
    /// How much may be copied.
    pub(super) max: u64,
    /// Some of it is larger than what is copied: names or lines are missing.
    pub(super) is_too_large: bool,
    /// It is no ELF file, or the parser can't read its tables.
    pub(super) is_unreadable: bool,
}

impl Symbols {
    pub(super) fn has_debug_file(&self) -> bool {
        self.tables.iter().any(|table| !table.is_own) || self.split.is_some()
    }

    /// # Errors
    /// If the file is gone, or has changed while it was read.
    pub(super) fn read(found: &MappedFile, open: &mut dyn Open, max: u64) -> Result<Self, Failure> {
        let file = found.file.as_deref().ok_or(Failure::NotFound)?;
        let mut symbols = Self { max, ..Self::default() };
        if let Some(headers) = Headers::read_any(&elf::Source::File(file)) {
            if !copy::has_lines(&headers)
                && let Some(debug) = debug::find(open, found, &headers)
                && let Some(headers) = Headers::read_any(&elf::Source::File(&debug))
            {
                symbols.add_file(open, found, (&debug, &headers), false);
            }
            symbols.add_file(open, found, (file, &headers), true);
            symbols.add_embedded(file, &headers);
            let is_stripped = headers.section(b".symtab").is_none();
            if let Some(table) = PcLineTable::read(&elf::Source::File(file), &headers).filter(|_| is_stripped) {
                symbols.bytes += table.bytes();
                symbols.tables.push(Table::of_go(table));
            }
            if let Some(plt) = Plt::read(&elf::Source::File(file), &headers) {
                symbols.bytes += plt.bytes();
                symbols.tables.push(Table::of_plt(plt));
            }
            symbols.code = headers.code();
        } else if let Some(code) = file::head(file).and_then(|head| elf::code_of_32_bit(&head)) {
            symbols.add(PrivateCopy::of_whole(file), true);
            symbols.code = code;
        } else {
            symbols.is_unreadable = true;
        }
        if found.version.is_of(file) { Ok(symbols) } else { Err(Failure::OtherFile) }
    }

    /// Adds the symbols of a file, with what it shares with others.
    pub(super) fn add_file(
        &mut self,
        open: &mut dyn Open,
        found: &MappedFile,
        (file, headers): (&File, &Headers),
        is_own: bool,
    ) {
        let left = self.max.saturating_sub(self.bytes);
        let shared = debug::shared(open, found, file, headers, left);
        let copy = PrivateCopy::of(file, headers, shared, left);
        self.is_too_large |= !copy.as_ref().is_some_and(|copy| copy.has_lines)
            && copy::lines_bytes(file, headers).is_some_and(|bytes| bytes > left);
        if copy.is_none()
            && let Some(index) = Index::read(file, headers, is_own)
        {
            self.bytes += index.bytes();
            self.tables.push(Table::of_index(index, is_own));
        }
        self.is_too_large |= self.tables.is_empty() && copy.is_none() && copy::symbols_bytes(file, headers) > left;
        let has_lines = copy.as_ref().is_some_and(|copy| copy.has_lines);
        let shared = copy.as_ref().and_then(|copy| copy.shared.as_ref()?.try_clone().ok());
        self.add(copy, is_own);
        if has_lines && self.split.is_none() {
            let left = self.max.saturating_sub(self.bytes);
            self.split = Split::read(open, found, (file, headers), shared.as_ref(), left);
            self.bytes += self.split.as_ref().map_or(0, Split::bytes);
        }
    }

    /// Adds the symbols that a stripped file carries compressed: MiniDebugInfo, as the Red Hat family has it.
    pub(super) fn add_embedded(&mut self, file: &File, headers: &Headers) {
        let left = self.max.saturating_sub(self.bytes);
        let embedded = debug::embedded(file, headers, left);
        if let Some(embedded) = embedded
            && let Some(headers) = Headers::read_any(&elf::Source::File(&embedded))
        {
            self.add(PrivateCopy::of(&embedded, &headers, None, left), true);
        }
    }

    pub(super) fn add(&mut self, copy: Option<PrivateCopy>, is_own: bool) {
        self.bytes += copy.as_ref().map_or(0, |copy| copy.bytes);
        self.tables.extend(copy.map(|copy| Table::of_copy(copy, is_own)));
    }

    /// The functions of the first table of `which` that has any.
    ///
    /// # Errors
    /// If none has.
    pub(super) fn functions(
        &mut self,
        found: &MappedFile,
        place: CodePlace,
        which: impl Fn(&Table) -> bool,
    ) -> Functions {
        let back = u64::from(place.is_return_address);
        let address =
            self.address(place).and_then(|address| address.checked_sub(back)).ok_or_else(|| self.failure())?;
        // The parser may panic on a crafted file; such a file has no names.
        let look_up = |table: &Table| catch_unwind(AssertUnwindSafe(|| table.functions(address, back, found)));
        for table in self.tables.iter().filter(|table| which(table)) {
            match look_up(table) {
                Ok(functions) if functions.is_empty() => {}
                Ok(functions) => return Ok(functions),
                Err(_) => {
                    self.tables.clear();
                    self.is_unreadable = true;
                    break;
                }
            }
        }
        Err(self.failure())
    }

    /// Adds what is inlined there. `functions`: those of the tables.
    pub(super) fn add_inlined(
        &mut self,
        found: &MappedFile,
        place: CodePlace,
        open: &mut dyn Open,
        functions: &mut Vec<Function>,
    ) {
        let back = u64::from(place.is_return_address);
        let address = self.address(place).and_then(|address| address.checked_sub(back));
        let Some((address, mut split)) = address.and_then(|address| Some((address, self.split.take()?))) else {
            return;
        };
        let before = split.bytes();
        let add = AssertUnwindSafe(|| {
            split.add_inlined(address, found, open, functions);
            split
        });
        // The parser may panic on a crafted file: nothing is inlined then.
        self.split = catch_unwind(add).ok();
        self.bytes += self.split.as_ref().map_or(0, Split::bytes).saturating_sub(before);
    }

    /// Why a place in it has no name.
    pub(super) fn failure(&self) -> Failure {
        match self {
            Self { is_unreadable: true, .. } => Failure::Unreadable,
            Self { is_too_large: true, .. } => Failure::TooLarge,
            // There is a debug file in its place, which doesn't say where in the file the code is.
            Self { code, .. } if !code.is_empty() && code.iter().all(|code| code.offset.is_empty()) => {
                Failure::NotFound
            }
            _ => Failure::NoSymbol,
        }
    }

    /// The address of a place in the file.
    pub(super) fn address(&self, place: CodePlace) -> Option<u64> {
        let offset = place.offset.checked_sub(u64::from(place.is_return_address))?;
        if let Some(code) = self.code.iter().find(|code| code.offset.contains(&offset)) {
            return code.address.start.checked_add(place.offset - code.offset.start);
        }
        // A file that has only debug information doesn't say at which offset the code was. But if the mapping is as long as the only
        // segment with code, it is that segment.
        match &self.code[..] {
            [code] if code.offset.is_empty() => {
                let start = page::start(code.address.start);
                let bytes = page::round_up(code.address.end)?.checked_sub(start)?;
                (bytes == place.mapping_bytes).then(|| start.checked_add(place.in_mapping)).flatten()
            }
            _ => None,
        }
    }
}
