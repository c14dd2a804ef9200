//! The stubs of the procedure linkage table, which no symbol names: code of the file's own that jumps to a function of another one. Debuggers
//! show them as `name@plt`.

use std::collections::HashMap;

use object::LittleEndian;
use object::elf::{Rela64, Sym64};
use object::pod::{Pod, slice_from_bytes};
use object::read::elf::{Rela, SectionHeader, Sym};

use super::demangle::demangle;
use super::elf::{ENDIAN, Headers, Source};
use crate::arch::{LINKS, slot_of};
use crate::evidence::Function;

/// The sections that hold stubs: the common one, the one for processors that check where jumps lead, and the one for functions whose address
/// is also taken.
const SECTIONS: [&[u8]; 3] = [b".plt", b".plt.sec", b".plt.got"];

/// How many bytes of stubs, of relocations and of symbols are read of one file. A browser has some 100 KiB of stubs.
const BYTES_MAX: u64 = 8 << 20;

/// How much memory a stub takes at most, with the end of its name.
const NAME_BYTES_MAX: usize = 4096;

/// The stubs of a file, by address.
pub(super) struct Plt {
    stubs: Vec<Stub>,
    names: Vec<u8>,
}

struct Stub {
    start: u64,
    bytes: u64,
    /// Where its name is in `names`.
    name: usize,
}

impl Plt {
    /// `None` means that the file has none, or that it is a 32-bit file.
    pub(super) fn read(source: &Source<'_>, headers: &Headers) -> Option<Self> {
        if headers.is_compat {
            return None;
        }
        let content = |name: &[u8]| {
            let section = headers.section(name).filter(|section| section.sh_size(ENDIAN) <= BYTES_MAX)?;
            Some((section, source.read(section.sh_offset(ENDIAN), section.sh_size(ENDIAN))?))
        };
        let sections: Vec<_> = SECTIONS.iter().filter_map(|name| content(name)).collect();
        if sections.is_empty() {
            return None;
        }
        let (_, symbols) = content(b".dynsym")?;
        let (_, names) = content(b".dynstr")?;
        let symbols: &[Sym64<LittleEndian>] = whole(&symbols)?;
        let mut linked = HashMap::new();
        for (_, relocations) in [b".rela.plt".as_slice(), b".rela.dyn"].iter().filter_map(|name| content(name)) {
            let relocations: &[Rela64<LittleEndian>] = whole(&relocations)?;
            linked.extend(relocations.iter().filter(|link| LINKS.contains(&link.r_type(ENDIAN, false))).filter_map(
                |link| Some((link.r_offset(ENDIAN), symbols.get(link.r_sym(ENDIAN, false) as usize)?.st_name(ENDIAN))),
            ));
        }
        let mut stubs = Vec::new();
        for (section, code) in &sections {
            // Linkers that leave it at 0 have stubs of 16 bytes.
            let bytes = if section.sh_entsize(ENDIAN) == 8 { 8 } else { 16 };
            for (start, stub) in (section.sh_addr(ENDIAN)..).step_by(bytes).zip(code.chunks_exact(bytes)) {
                let name = slot_of(stub, start).and_then(|slot| linked.get(&slot)).filter(|&&name| name != 0);
                stubs.extend(name.map(|&name| Stub { start, bytes: bytes as u64, name: name as usize }));
            }
        }
        stubs.sort_by_key(|stub| stub.start);
        (!stubs.is_empty()).then_some(Self { stubs, names })
    }

    /// The stub at an address that is `back` bytes before the wanted one.
    pub(super) fn function(&self, address: u64, back: u64) -> Option<Function> {
        let behind = self.stubs.partition_point(|stub| stub.start <= address);
        let stub = self.stubs.get(behind.checked_sub(1)?)?;
        let offset = address.checked_sub(stub.start).filter(|&offset| offset < stub.bytes)?;
        let name = self.names.get(stub.name..)?.split(|&byte| byte == 0).next()?;
        let name = std::str::from_utf8(name).ok().filter(|name| !name.is_empty() && name.len() <= NAME_BYTES_MAX)?;
        Some(Function {
            name: format!("{}@plt", demangle(name)),
            offset: Some(offset + back),
            file: None,
            line: None,
            inlined: false,
        })
    }

    /// How much memory it takes.
    pub(super) fn bytes(&self) -> u64 {
        (size_of_val(&*self.stubs) + self.names.len()) as u64
    }
}

/// The entries of a table, as far as they are whole.
fn whole<T: Pod>(bytes: &[u8]) -> Option<&[T]> {
    slice_from_bytes(bytes, bytes.len() / size_of::<T>()).ok().map(|(entries, _)| entries)
}
