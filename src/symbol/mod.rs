//! Finds the names of addresses in the files that ran.

mod check;
mod copy;
mod debug;
mod demangle;
mod elf;
mod file;
mod part;
mod request;
mod sources;
pub(crate) mod unwind;
mod variable;

use std::collections::HashMap;
use std::os::fd::AsRawFd;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::Path;
use std::sync::OnceLock;

use blazesym::symbolize::source::{Elf, Source};
use blazesym::symbolize::{CodeInfo, Input, Sym, Symbolized, Symbolizer};

pub(crate) use file::{
    Files, MappedFile, Version, build_id_of, changed_ns, look, look_below, look_if_known, look_within, open_regular,
    reopen,
};
pub(crate) use request::{FileRequest, Holder, Open, Opening, PerfMap, Usage};
pub(crate) use sources::Sources;
pub(crate) use variable::Variable;

use self::copy::PrivateCopy;
use self::elf::{Headers, Segment};
use crate::evidence::Function;
use crate::page;

/// The symbols of so many files are kept.
const FILES_MAX: usize = 64;

/// How much memory they may take; if it is more, the least recently used are forgotten.
const BYTES_MAX: u64 = 128 << 20;

/// A place in the code of a process.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct CodePlace {
    /// Its offset in the file.
    pub offset: u64,
    /// Its offset from the beginning of its mapping.
    pub in_mapping: u64,
    /// How long that mapping is.
    pub mapping_bytes: u64,
    /// It is behind the call that it belongs to.
    pub is_return_address: bool,
}

/// Names functions. Costs nothing until the first name is asked for.
#[derive(Default)]
pub(crate) struct Namer {
    files: HashMap<Version, Symbols>,
    /// Counts what was asked, to know which file was used last.
    asked: u64,
}

/// The symbols of one file that ran.
struct Symbols {
    code: Vec<Segment>,
    /// Those of its debug file, then its own. Empty if there are none, or if the parser can't read them.
    tables: Vec<Table>,
    bytes: u64,
    used: u64,
}

/// The symbols of one file, and the copy that they are read from.
struct Table {
    /// They are in the file that ran, not in its debug file.
    is_own: bool,
    symbolizer: Symbolizer,
    copy: PrivateCopy,
}

impl Namer {
    /// The functions at a place of the file, innermost first: inlined ones, then the one that they are part of. Empty if no name is
    /// certain. A return address belongs to the call before it, so that it is looked up one byte earlier. `open` is asked for the file's
    /// debug file.
    pub(crate) fn functions(&mut self, file: &MappedFile, place: CodePlace, open: &mut dyn Open) -> Vec<Function> {
        self.asked += 1;
        if !self.files.contains_key(&file.version) {
            let Some(symbols) = Symbols::read(file, open) else { return Vec::new() };
            self.make_room(symbols.bytes);
            self.files.insert(file.version, symbols);
        }
        let Some(symbols) = self.files.get_mut(&file.version) else { return Vec::new() };
        symbols.used = self.asked;
        symbols.functions(place, |_| true)
    }

    /// The same by what the file itself says, as any host sees it that runs the file. `None` means that no debug file has been found for
    /// it, so that [`Namer::functions`] says the same.
    pub(crate) fn own_functions(&mut self, file: &MappedFile, place: CodePlace) -> Option<Vec<Function>> {
        let symbols = self.files.get_mut(&file.version)?;
        let has_debug_file = symbols.tables.iter().any(|table| !table.is_own);
        has_debug_file.then(|| symbols.functions(place, |table| table.is_own))
    }

    fn make_room(&mut self, bytes: u64) {
        while !self.files.is_empty()
            && (self.files.len() >= FILES_MAX
                || self.files.values().map(|file| file.bytes).sum::<u64>() + bytes > BYTES_MAX)
        {
            let oldest = self.files.iter().min_by_key(|(_, file)| file.used).map(|(version, _)| *version);
            oldest.map(|version| self.files.remove(&version));
        }
    }
}

impl Symbols {
    /// `None` means that the file is gone, or has changed while it was read.
    fn read(found: &MappedFile, open: &mut dyn Open) -> Option<Self> {
        let file = found.file.as_deref()?;
        let mut symbols = Self { code: Vec::new(), tables: Vec::new(), bytes: 0, used: 0 };
        if let Some(headers) = Headers::read(&elf::Source::File(file)) {
            if !copy::has_lines(&headers)
                && let Some(debug) = debug::find(open, found, &headers)
                && let Some(headers) = Headers::read(&elf::Source::File(&debug))
            {
                symbols.add(PrivateCopy::of(&debug, &headers, copy::BYTES_MAX), false);
            }
            symbols.add(PrivateCopy::of(file, &headers, copy::BYTES_MAX.saturating_sub(symbols.bytes)), true);
            symbols.code = headers.code();
        } else if let Some(code) = file::head(file).and_then(|head| elf::code_of_32_bit(&head)) {
            symbols.add(PrivateCopy::of_whole(file), true);
            symbols.code = code;
        }
        found.version.is_of(file).then_some(symbols)
    }

    fn add(&mut self, copy: Option<PrivateCopy>, is_own: bool) {
        self.bytes += copy.as_ref().map_or(0, |copy| copy.bytes);
        self.tables.extend(copy.map(|copy| Table::new(copy, is_own)));
    }

    /// Those of the first table of `which` that has any.
    fn functions(&mut self, place: CodePlace, which: impl Fn(&Table) -> bool) -> Vec<Function> {
        let back = u64::from(place.is_return_address);
        let Some(address) = self.address(place).and_then(|address| address.checked_sub(back)) else {
            return Vec::new();
        };
        // The parser may panic on a crafted file; such a file has no names.
        let look_up = |table: &Table| catch_unwind(AssertUnwindSafe(|| table.functions(address, back)));
        for table in self.tables.iter().filter(|table| which(table)) {
            match look_up(table) {
                Ok(functions) if functions.is_empty() => {}
                Ok(functions) => return functions,
                Err(_) => {
                    self.tables.clear();
                    break;
                }
            }
        }
        Vec::new()
    }

    /// The address of a place in the file.
    fn address(&self, place: CodePlace) -> Option<u64> {
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

/// Where our own descriptors have names. Not set means that it is the usual folder.
static DESCRIPTORS: OnceLock<&'static Path> = OnceLock::new();

/// From now on our own descriptors have their names in `folder`, and nowhere else.
pub(crate) fn open_descriptors_in(folder: &'static Path) {
    // Only the first one counts.
    let _ = DESCRIPTORS.set(folder);
}

impl Table {
    fn new(copy: PrivateCopy, is_own: bool) -> Self {
        // It opens nothing but the copy, which names no other file.
        let symbolizer = Symbolizer::builder()
            .enable_demangling(false)
            .enable_auto_reload(false)
            .set_debug_dirs(Some(std::iter::empty::<&Path>()))
            .build();
        Self { is_own, symbolizer, copy }
    }

    fn functions(&self, address: u64, back: u64) -> Vec<Function> {
        let folder = DESCRIPTORS.get().copied().unwrap_or(Path::new("/proc/self/fd"));
        let mut elf = Elf::new(folder.join(self.copy.file.as_raw_fd().to_string()));
        elf.debug_syms = self.copy.has_lines;
        match self.symbolizer.symbolize_single(&Source::Elf(elf), Input::VirtOffset(address)) {
            Ok(Symbolized::Sym(sym)) if covers(&sym) && !sym.name.is_empty() => expand(&sym, back),
            _ => Vec::new(),
        }
    }
}

/// Reads a file that anybody may have made, and names places in it.
#[cfg(any(test, fuzzing))]
pub(crate) fn fuzz(file: &std::fs::File, data: &[u8]) {
    elf::build_id(data);
    unwind::fuzz_sections(data);
    if let Some(headers) = Headers::read(&elf::Source::File(file)) {
        if let Some(found) = MappedFile::at(Path::new("/proc/self/exe")) {
            debug::find(&mut NoFiles, &found, &headers);
        }
        let mut symbols = Symbols { code: headers.code(), tables: Vec::new(), bytes: 0, used: 0 };
        symbols.add(PrivateCopy::of(file, &headers, copy::BYTES_MAX), true);
        // A panic of the symbolizer is caught; it must not hang, nor use up memory or stack.
        let hook = cfg!(fuzzing).then(std::panic::take_hook);
        if hook.is_some() {
            std::panic::set_hook(Box::new(|_| {}));
        }
        for code in headers.code().iter().take(4) {
            for offset in [code.offset.start, code.offset.start.midpoint(code.offset.end), code.offset.end] {
                let place = CodePlace { offset, in_mapping: 0, mapping_bytes: 0, is_return_address: true };
                symbols.functions(place, |_| true);
            }
        }
        if let Some(hook) = hook {
            std::panic::set_hook(hook);
        }
    }
}

/// Nothing else is there.
#[cfg(any(test, fuzzing))]
struct NoFiles;

#[cfg(any(test, fuzzing))]
impl Open for NoFiles {
    fn mapped(&mut self, _: usize) -> Result<Option<std::fs::File>, crate::evidence::Failure> {
        Ok(None)
    }

    fn debug(&mut self, _: usize, _: &[u8], _: Option<&[u8]>) -> Vec<std::fs::File> {
        Vec::new()
    }
}

/// A name as [`Function::name`] has it.
#[cfg(any(test, fuzzing))]
pub(crate) fn demangled(name: &str) -> String {
    demangle::demangle(name)
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

fn expand(sym: &Sym<'_>, back: u64) -> Vec<Function> {
    let mut functions: Vec<Function> = sym
        .inlined
        .iter()
        .rev()
        .filter(|inlined| !inlined.name.is_empty())
        .map(|inlined| {
            let (file, line) = place(inlined.code_info.as_ref());
            Function { name: demangle::demangle(&inlined.name), offset: None, file, line, inlined: true }
        })
        .collect();
    let (file, line) = place(sym.code_info.as_deref());
    let offset = (!is_apart(sym)).then(|| sym.offset as u64 + back);
    functions.push(Function { name: demangle::demangle(&sym.name), offset, file, line, inlined: false });
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
    use std::fs::{self, File};
    use std::os::unix::fs::FileExt;
    use std::path::PathBuf;

    use object::{Object, ObjectSymbol};

    use super::*;

    /// A file that a test may spoil. Deleted when dropped.
    struct Scratch(PathBuf);

    impl Scratch {
        fn new(name: &str, content: &[u8]) -> Self {
            let path = std::env::temp_dir().join(format!("faultline-symbol-{}-{name}", std::process::id()));
            fs::write(&path, content).unwrap();
            Self(path)
        }
    }

    impl Drop for Scratch {
        fn drop(&mut self) {
            let _ = fs::remove_file(&self.0);
        }
    }

    fn place(offset: u64) -> CodePlace {
        CodePlace { offset, in_mapping: 0, mapping_bytes: 0, is_return_address: false }
    }

    fn libc() -> Vec<u8> {
        let maps = procfs::process::Process::myself().unwrap().maps().unwrap();
        let path = maps.iter().find_map(|map| match &map.pathname {
            procfs::process::MMapPath::Path(path) if path.to_string_lossy().contains("libc.so") => Some(path.clone()),
            _ => None,
        });
        let mut libc = fs::read(path.unwrap()).unwrap();
        // Under a build id of its own it has no debug file, which may have other names.
        let id = elf::build_id(&libc).unwrap();
        let at = memchr::memmem::find(&libc, &id).unwrap();
        libc[at] ^= 1;
        libc
    }

    /// Where `abort` is in libc, in the file.
    fn abort(libc: &[u8]) -> u64 {
        let file = object::File::parse(libc).unwrap();
        let symbol = file.dynamic_symbols().find(|symbol| symbol.name() == Ok("abort")).unwrap();
        let headers = Headers::read(&elf::Source::Memory(libc)).unwrap();
        let code = headers.code().into_iter().find(|code| code.address.contains(&symbol.address())).unwrap();
        symbol.address() - code.address.start + code.offset.start
    }

    fn name(namer: &mut Namer, found: &MappedFile, offset: u64) -> Option<String> {
        namer.functions(found, place(offset), &mut NoFiles).pop().map(|function| function.symbol())
    }

    #[test]
    fn a_32_bit_file_has_names() {
        let content = include_bytes!("../../fuzz/corpus/elf/i386");
        let scratch = Scratch::new("i386", content);
        let symbols = object::File::parse(&content[..]).unwrap();
        let leaf = symbols.symbols().find(|symbol| symbol.name() == Ok("leaf")).unwrap();
        let code =
            elf::code_of_32_bit(content).unwrap().into_iter().find(|code| code.address.contains(&leaf.address()));
        let code = code.unwrap();
        let offset = leaf.address() - code.address.start + code.offset.start + 2;
        let found = MappedFile::at(&scratch.0).unwrap();
        assert_eq!(name(&mut Namer::default(), &found, offset).as_deref(), Some("leaf+0x2"));
    }

    /// A process that maps such a file dies of SIGBUS, and one that trusts an earlier check reports what isn't there.
    #[test]
    fn a_file_that_is_cut_while_it_is_read_is_harmless() {
        let libc = libc();
        let abort = abort(&libc);
        let scratch = Scratch::new("cut", &libc);
        let path = &scratch.0;
        let over = std::sync::atomic::AtomicBool::new(false);
        std::thread::scope(|scope| {
            scope.spawn(|| {
                let file = File::options().write(true).open(path).unwrap();
                while !over.load(std::sync::atomic::Ordering::Relaxed) {
                    file.set_len(4096).unwrap();
                    file.write_all_at(&libc, 0).unwrap();
                    std::thread::sleep(std::time::Duration::from_millis(5));
                }
            });
            let mut named = 0;
            let mut kept = Namer::default();
            for _ in 0..300 {
                let Some(found) = MappedFile::at(path) else { continue };
                // One that reads it anew each time, and one that has read it.
                for namer in [&mut Namer::default(), &mut kept] {
                    let name = name(namer, &found, abort);
                    assert!(name.as_deref().is_none_or(|name| name == "abort+0x0"), "{name:?}");
                    named += usize::from(name.is_some());
                }
            }
            over.store(true, std::sync::atomic::Ordering::Relaxed);
            assert!(named > 0, "it was whole at times");
        });
    }

    #[test]
    fn what_was_copied_stays() {
        let libc = libc();
        let abort = abort(&libc);
        let scratch = Scratch::new("stays", &libc);
        let mut namer = Namer::default();
        let found = MappedFile::at(&scratch.0).unwrap();
        assert_eq!(name(&mut namer, &found, abort).as_deref(), Some("abort+0x0"));
        fs::write(&scratch.0, b"another").unwrap();
        assert_eq!(name(&mut namer, &found, abort).as_deref(), Some("abort+0x0"), "as it was");
        assert_eq!(name(&mut Namer::default(), &found, abort), None, "too late");
        assert_eq!(name(&mut namer, &MappedFile::at(&scratch.0).unwrap(), abort), None, "another one");
    }

    #[test]
    fn the_oldest_make_room() {
        let symbols = |bytes, used| Symbols { code: Vec::new(), tables: Vec::new(), bytes, used };
        let version = |inode| {
            let scratch = Scratch::new(&format!("room-{inode}"), b"");
            MappedFile::at(&scratch.0).unwrap().version
        };
        let mut namer = Namer::default();
        let versions: Vec<Version> = (0..3).map(version).collect();
        for (used, version) in [5, 3, 4].into_iter().zip(&versions) {
            namer.files.insert(*version, symbols(BYTES_MAX / 3, used));
        }
        namer.make_room(BYTES_MAX / 2);
        assert!(namer.files.contains_key(&versions[0]) && namer.files.len() == 1);
        namer.make_room(BYTES_MAX);
        assert!(namer.files.is_empty());
    }

    #[test]
    fn a_mapping_as_long_as_the_code_is_the_code() {
        let code = Segment { offset: 0..0, address: 0x1800..0x3100 };
        let symbols = Symbols { code: vec![code.clone()], tables: Vec::new(), bytes: 0, used: 0 };
        let place = CodePlace { offset: 0x1900, in_mapping: 0x900, mapping_bytes: 0x3000, is_return_address: false };
        assert_eq!(symbols.address(place), Some(0x1900));
        assert_eq!(symbols.address(CodePlace { mapping_bytes: 0x2000, ..place }), None);
        let two = Symbols { code: vec![code.clone(), code], ..symbols };
        assert_eq!(two.address(place), None);
        let there = Segment { offset: 0x800..0x2100, address: 0x1800..0x3100 };
        let whole = Symbols { code: vec![there], ..two };
        assert_eq!(whole.address(place), Some(0x2900));
        let last = CodePlace { offset: 0x2100, is_return_address: true, ..place };
        assert_eq!(whole.address(last), Some(0x3100), "looked up one byte earlier");
        assert_eq!(whole.address(CodePlace { is_return_address: false, ..last }), None);
    }
}
