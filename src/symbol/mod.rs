//! Finds the names of addresses in the files that ran.

mod check;
mod copy;
mod debug;
mod demangle;
mod descriptors;
mod elf;
mod file;
mod go_module;
mod halt;
mod index;
mod inflate;
#[cfg(test)]
mod oracle;
mod part;
mod pclntab;
mod plt;
mod request;
mod sources;
mod split;
mod symbols;
mod table;
pub(crate) mod unwind;
mod variable;
pub(crate) mod vdso;
mod walk;
mod wide;

use std::collections::HashMap;
#[cfg(test)]
use std::fs::File;
#[cfg(any(test, fuzzing))]
use std::path::Path;

pub(crate) use copy::copy_whole;
pub(crate) use descriptors::open_descriptors_in;
pub(crate) use file::{
    Files, MappedFile, Version, build_id_of, changed_ns, descriptor, is_elf, look, look_below, look_below_if_known,
    look_if_known, look_within, open_regular, place_of, reopen,
};
pub(crate) use request::{FileRequest, Holder, Open, Opening, PerfMap, Usage};
pub(crate) use sources::Sources;
pub(crate) use variable::Variable;

use self::symbols::Symbols;
#[cfg(any(test, fuzzing))]
use self::{copy::PrivateCopy, elf::Headers, index::Index, pclntab::PcLineTable, plt::Plt, table::Table};
use crate::evidence::{Failure, Function, Functions};

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
pub(crate) struct Namer {
    files: HashMap<Version, Symbols>,
    /// How much of one file and its debug file is copied.
    copied_max: u64,
    /// Counts what was asked, to know which file was used last.
    asked: u64,
}

impl Default for Namer {
    fn default() -> Self {
        Self { files: HashMap::new(), copied_max: copy::BYTES_MAX, asked: 0 }
    }
}

impl Namer {
    /// The functions at a place of the file. A return address belongs to the call before it, so that it is looked up one byte earlier.
    /// `open` is asked for the file's debug file.
    ///
    /// # Errors
    /// Why no name is certain.
    pub(crate) fn functions(&mut self, file: &MappedFile, place: CodePlace, open: &mut dyn Open) -> Functions {
        self.asked += 1;
        if !self.files.contains_key(&file.version) {
            let symbols = Symbols::read(file, open, self.copied_max)?;
            self.make_room(symbols.bytes);
            self.files.insert(file.version, symbols);
        }
        let symbols = self.files.get_mut(&file.version).ok_or(Failure::NotFound)?;
        symbols.used = self.asked;
        let mut functions = symbols.functions(file, place, |_| true)?;
        symbols.add_inlined(file, place, open, &mut functions);
        Ok(functions)
    }

    /// Why names or lines of a file are missing, if it is for a reason of ours. `None` also means that nothing was asked of it yet.
    pub(crate) fn failure(&self, file: &MappedFile) -> Option<Failure> {
        self.files.get(&file.version).filter(|symbols| symbols.is_too_large).map(|_| Failure::TooLarge)
    }

    /// Has a debug file been found for this file, or what is a part of one?
    pub(crate) fn has_debug_file(&self, file: &MappedFile) -> bool {
        self.files.get(&file.version).is_some_and(Symbols::has_debug_file)
    }

    /// The same by what the file itself says, as any host sees it that runs the file. `None` means that no debug file has been found for
    /// it, so that [`Namer::functions`] says the same.
    pub(crate) fn own_functions(&mut self, file: &MappedFile, place: CodePlace) -> Option<Vec<Function>> {
        let symbols = self.files.get_mut(&file.version)?;
        symbols.has_debug_file().then(|| symbols.functions(file, place, |table| table.is_own).unwrap_or_default())
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

/// Reads a file that anybody may have made, and names places in it.
#[cfg(any(test, fuzzing))]
pub(crate) fn fuzz(file: &std::fs::File, data: &[u8]) {
    elf::build_id(data);
    unwind::fuzz_sections(data);
    if let Some(headers) = Headers::read_any(&elf::Source::File(file)) {
        let Some(found) = MappedFile::at(Path::new("/proc/self/exe")) else { return };
        debug::find(&mut NoFiles, &found, &headers);
        let mut symbols = Symbols { code: headers.code(), max: copy::BYTES_MAX, ..Symbols::default() };
        symbols.tables.extend(Index::read(file, &headers, false).map(|index| Table::of_index(index, false)));
        symbols.add(PrivateCopy::of(file, &headers, None, copy::BYTES_MAX), true);
        symbols.add_embedded(file, &headers);
        symbols.tables.extend(PcLineTable::read(&elf::Source::File(file), &headers).map(Table::of_go));
        symbols.tables.extend(Plt::read(&elf::Source::File(file), &headers).map(Table::of_plt));
        // A panic of the symbolizer is caught; it must not hang, nor use up memory or stack.
        let hook = cfg!(fuzzing).then(std::panic::take_hook);
        if hook.is_some() {
            std::panic::set_hook(Box::new(|_| {}));
        }
        for code in headers.code().iter().take(4) {
            for offset in [code.offset.start, code.offset.start.midpoint(code.offset.end), code.offset.end] {
                let place = CodePlace { offset, in_mapping: 0, mapping_bytes: 0, is_return_address: true };
                let _ = symbols.functions(&found, place, |_| true);
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

#[cfg(test)]
mod tests {
    use std::fs;
    use std::os::unix::fs::FileExt;
    use std::path::PathBuf;

    use object::{Object, ObjectSymbol};

    use super::elf::Segment;
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
        namer.functions(found, place(offset), &mut NoFiles).ok()?.pop().map(|function| function.symbol())
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
        let symbols = |bytes, used| Symbols { bytes, used, ..Symbols::default() };
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
        let symbols = Symbols { code: vec![code.clone()], ..Symbols::default() };
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
