//! `--elf`: rebuilds an ELF file from memory, if its headers are there, so that objdump and gdb can open an unpacked program.
//!
//! The file is laid out by the program headers, with the present content of memory: data is as the program left it. Section headers are
//! never in memory, so that each segment becomes a section, and the dynamic symbols keep theirs.

mod sections;

use std::cell::RefCell;
use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use object::LittleEndian as LE;
use object::elf::{
    DT_STRSZ, DT_STRTAB, DT_SYMTAB, Dyn64, ELFCLASS64, ELFDATA2LSB, ELFMAG, ET_DYN, ET_EXEC, FileHeader64, PF_X,
    PT_DYNAMIC, PT_LOAD, ProgramHeader64, SHF_ALLOC, SHF_WRITE, SHT_DYNAMIC, SHT_DYNSYM, SHT_NULL, SHT_STRTAB, Sym64,
};
use object::pod::{from_bytes, slice_from_bytes};
use sha2::{Digest, Sha256};

use self::sections::{Section, Sections};
use super::dump::Dump;
use super::fetch::Fetcher;
use super::record::{Mapping, Page};
use super::target::Memory;
use crate::evidence::{Backing, Permissions, Region};
use crate::page;

/// Program headers of one file that are looked at.
const SEGMENTS_MAX: usize = 64;

/// How often a process is read at once when memory becomes executable, because it may be gone on the next tick.
const AT_ONCE_MAX: u32 = 64;

/// The most that is kept of pages whose process may be gone, bytes.
const KEPT_MAX: u64 = 64 << 20;

/// The longest part of a file's name that the process has chosen.
const NAME_MAX: usize = 128;

/// Rebuilds the modules of the watched processes.
pub(super) struct Modules {
    max_bytes: u64,
    /// A fetcher of its own: the other one is in use while pages come from it.
    fetcher: RefCell<Fetcher>,
    /// Processes with executable memory that came since the last time.
    due: BTreeSet<u32>,
    /// How often each was looked at.
    looks: BTreeMap<u32, u32>,
    /// Pages that the kernel program has read: all that is left of a process that is gone.
    kept: BTreeMap<(u32, u64), Arc<[u8]>>,
    /// The SHA-256 of what was written, by process and address.
    written: BTreeMap<(u32, u64), [u8; 32]>,
}

impl Modules {
    pub(super) fn new(max_bytes: u64) -> Self {
        Self {
            max_bytes,
            fetcher: RefCell::new(Fetcher::new()),
            due: BTreeSet::new(),
            looks: BTreeMap::new(),
            kept: BTreeMap::new(),
            written: BTreeMap::new(),
        }
    }

    /// A page has been read: it may be a part of a module.
    pub(super) fn keep(&mut self, page: &Page) {
        if self.kept.len() as u64 * page::size() >= KEPT_MAX {
            // All pages of the process that was first.
            let first = self.kept.keys().next().map_or(0, |(pid, _)| *pid);
            self.kept.retain(|(pid, _), _| *pid != first);
        }
        self.kept.insert((page.pid, page.address), page.bytes.clone());
    }

    /// A call was seen: reads the process at once if the call made anonymous memory executable.
    pub(super) fn see(&mut self, mapping: &Mapping, to: &mut Dump) {
        if !mapping.permissions.as_deref().is_some_and(|permissions| permissions.contains('x')) {
            return;
        }
        self.due.insert(mapping.pid);
        let looks = self.looks.entry(mapping.pid).or_insert(0);
        if mapping.mapping_name.is_none() && *looks < AT_ONCE_MAX {
            *looks += 1;
            self.rebuild_process(mapping.pid, to);
        }
    }

    /// Rebuilds what has changed since the last time.
    pub(super) fn rebuild(&mut self, to: &mut Dump) {
        for pid in std::mem::take(&mut self.due) {
            self.rebuild_process(pid, to);
        }
    }

    fn rebuild_process(&mut self, pid: u32, to: &mut Dump) {
        // It may be gone: then from the pages that were kept of it.
        let memory = Memory::open(pid).ok();
        let regions = self.fetcher.borrow_mut().regions(pid).ok().filter(|regions| !regions.is_empty());
        let regions = regions.unwrap_or_else(|| self.kept_regions(pid));
        for region in regions.iter().filter(|region| region.permissions.read) {
            let read = |address: u64, bytes: &mut [u8]| self.read(pid, memory.as_ref(), address, bytes);
            let Some(image) = Image::find(region, &regions, self.max_bytes, &read) else { continue };
            let bytes = image.build(&read);
            let sum: [u8; 32] = Sha256::digest(&bytes).into();
            // A process that is gone has left less than was read before.
            if self.written.get(&(pid, region.start)).is_some_and(|before| *before == sum || memory.is_none()) {
                continue;
            }
            self.written.insert((pid, region.start), sum);
            to.store_module(pid, &file_name(region), &bytes);
        }
    }

    /// Reads the pages of a process that are there, in its memory or in what was kept of it; the rest stays as it is.
    fn read(&self, pid: u32, memory: Option<&Memory>, address: u64, bytes: &mut [u8]) {
        let Some(end) = address.checked_add(bytes.len() as u64) else { return };
        let first = page::start(address);
        for ((_, kept), page) in self.kept.range((pid, first)..(pid, end)) {
            place(bytes, address, *kept, page);
        }
        let Some(memory) = memory else { return };
        let count = (end - first).div_ceil(page::size());
        let mut fetcher = self.fetcher.borrow_mut();
        fetcher.pages(pid, memory, (first, count), |page| place(bytes, address, page.address, &page.bytes));
    }

    /// The run is to end now.
    pub(super) fn hurry(&mut self) {
        self.fetcher.get_mut().hurry();
    }

    /// How often a process could not be read in time.
    pub(super) fn failed(&self) -> u64 {
        self.fetcher.borrow().failed()
    }

    /// The pages that were kept of a process, as mappings of a page each.
    fn kept_regions(&self, pid: u32) -> Vec<Region> {
        let region = |address: u64| Region {
            start: address,
            end: address + page::size(),
            permissions: Permissions { read: true, execute: true, ..Permissions::default() },
            file_offset: 0,
            backing: Backing::Anonymous,
        };
        self.kept.range((pid, 0)..=(pid, u64::MAX)).map(|((_, address), _)| region(*address)).collect()
    }
}

/// The name for a module's file, safe whatever name the process has given it.
fn file_name(region: &Region) -> String {
    let name = region.name();
    let name = name.as_deref().and_then(|name| name.rsplit('/').next()).unwrap_or("memory");
    let name: String =
        name.chars().map(|c| if c.is_ascii_alphanumeric() || "._-+".contains(c) { c } else { '_' }).collect();
    format!("{:#x}-{}.elf", region.start, &name[..name.len().min(NAME_MAX)])
}

/// Places what of the page at `page` belongs into `bytes`, which begin at `address`.
fn place(bytes: &mut [u8], address: u64, page: u64, content: &[u8]) {
    let skip = usize::try_from(address.saturating_sub(page)).unwrap_or(usize::MAX);
    let at = usize::try_from(page.saturating_sub(address)).unwrap_or(usize::MAX);
    let (Some(from), Some(to)) = (content.get(skip..), bytes.get_mut(at..)) else { return };
    let length = from.len().min(to.len());
    to[..length].copy_from_slice(&from[..length]);
}

/// A module in memory, by its headers.
struct Image {
    header: FileHeader64<LE>,
    segments: Vec<ProgramHeader64<LE>>,
    /// What is added to addresses of the file.
    bias: u64,
}

impl Image {
    /// The module whose first page is that of `region`. `None` means that there is none, it has no executable memory, or it is too large.
    fn find(region: &Region, regions: &[Region], max_bytes: u64, read: &impl Fn(u64, &mut [u8])) -> Option<Self> {
        let mut bytes = [0; size_of::<FileHeader64<LE>>()];
        read(region.start, &mut bytes);
        let (header, _) = from_bytes::<FileHeader64<LE>>(&bytes).ok()?;
        let ident = &header.e_ident;
        if ident.magic != ELFMAG || ident.class != ELFCLASS64 || ident.data != ELFDATA2LSB {
            return None;
        }
        let count = usize::from(header.e_phnum.get(LE));
        if count == 0
            || count > SEGMENTS_MAX
            || usize::from(header.e_phentsize.get(LE)) != size_of::<ProgramHeader64<LE>>()
        {
            return None;
        }
        let mut table = vec![0; count * size_of::<ProgramHeader64<LE>>()];
        read(region.start.checked_add(header.e_phoff.get(LE))?, &mut table);
        let (segments, _) = slice_from_bytes::<ProgramHeader64<LE>>(&table, count).ok()?;
        let first = segments.iter().find(|segment| segment.p_type.get(LE) == PT_LOAD)?;
        let bias = match header.e_type.get(LE) {
            ET_EXEC => 0,
            ET_DYN => region.start.wrapping_sub(first.p_vaddr.get(LE).wrapping_sub(first.p_offset.get(LE))),
            _ => return None,
        };
        let image = Self { header: *header, segments: segments.to_vec(), bias };
        let has_code = image.loads().filter(|segment| segment.p_flags.get(LE) & PF_X != 0).any(|segment| {
            let address = bias.wrapping_add(segment.p_vaddr.get(LE));
            regions.iter().any(|region| region.permissions.execute && region.holds(address))
        });
        (has_code && image.length()? <= max_bytes).then_some(image)
    }

    fn loads(&self) -> impl Iterator<Item = &ProgramHeader64<LE>> {
        self.segments.iter().filter(|segment| segment.p_type.get(LE) == PT_LOAD)
    }

    /// How long the file is, as its segments say. `None` means that the headers are invalid.
    fn length(&self) -> Option<u64> {
        let ends = self.loads().map(|segment| segment.p_offset.get(LE).checked_add(segment.p_filesz.get(LE)));
        let headers = self.header.e_phoff.get(LE).checked_add(self.segments.len() as u64 * 56);
        ends.chain([headers]).try_fold(0, |longest: u64, end| end.map(|end| longest.max(end)))
    }

    /// The file.
    fn build(&self, read: &impl Fn(u64, &mut [u8])) -> Vec<u8> {
        let length = self.length().and_then(|length| usize::try_from(length).ok()).unwrap_or(0);
        let mut file = vec![0; length];
        for segment in self.loads() {
            let (Ok(from), Ok(bytes)) =
                (usize::try_from(segment.p_offset.get(LE)), usize::try_from(segment.p_filesz.get(LE)))
            else {
                continue;
            };
            if let Some(to) = file.get_mut(from..from.saturating_add(bytes)) {
                read(self.bias.wrapping_add(segment.p_vaddr.get(LE)), to);
            }
        }
        self.place_back(&mut file);
        let mut sections = Sections::default();
        sections.add("", Section { kind: SHT_NULL, ..Section::default() });
        for segment in self.loads() {
            sections.add_segment(segment);
        }
        self.add_dynamic(&mut sections, &file);
        sections.finish(self.header, &self.segments, file)
    }

    /// The loader has turned addresses of the dynamic section into those of the process: turns them back into the file's.
    fn place_back(&self, file: &mut [u8]) {
        let Some(segment) = self.segments.iter().find(|segment| segment.p_type.get(LE) == PT_DYNAMIC) else { return };
        let Some(from) = self.offset(segment.p_vaddr.get(LE)).and_then(|from| usize::try_from(from).ok()) else {
            return;
        };
        let Ok(bytes) = usize::try_from(segment.p_filesz.get(LE)) else { return };
        let Some(table) = file.get_mut(from..from.saturating_add(bytes)) else { return };
        for entry in table.chunks_exact_mut(size_of::<Dyn64<LE>>()) {
            let Some(value) = entry.get_mut(8..16) else { return };
            let address = u64::from_le_bytes(<[u8; 8]>::try_from(&*value).unwrap_or_default());
            let placed = address.wrapping_sub(self.bias);
            // A size or a flag is in no segment, before or after.
            if self.offset(address).is_none() && self.offset(placed).is_some() {
                value.copy_from_slice(&placed.to_le_bytes());
            }
        }
    }

    /// The dynamic symbols, if the dynamic section says where they are.
    fn add_dynamic(&self, sections: &mut Sections, file: &[u8]) {
        let Some(segment) = self.segments.iter().find(|segment| segment.p_type.get(LE) == PT_DYNAMIC) else { return };
        let (address, bytes) = (segment.p_vaddr.get(LE), segment.p_filesz.get(LE));
        let Some(table) = self.slice(file, address, bytes) else { return };
        let Ok((entries, _)) = slice_from_bytes::<Dyn64<LE>>(table, table.len() / size_of::<Dyn64<LE>>()) else {
            return;
        };
        let value = |tag: i64| entries.iter().find(|entry| entry.d_tag.get(LE) == tag).map(|entry| entry.d_val.get(LE));
        let (Some(strings), Some(symbols), Some(size)) = (value(DT_STRTAB), value(DT_SYMTAB), value(DT_STRSZ)) else {
            return;
        };
        // No entry says how many there are: they end where the next table begins, or before.
        let tables = entries.iter().map(|entry| entry.d_val.get(LE)).filter(|address| *address > symbols);
        let Some(end) = tables.filter(|address| self.offset(*address).is_some()).min() else { return };
        let symbol_bytes = end - symbols;
        if self.slice(file, symbols, symbol_bytes).is_none() {
            return;
        }
        let place = |address: u64| self.offset(address).unwrap_or(0);
        let next = sections.count();
        sections.add(
            ".dynstr",
            Section {
                kind: SHT_STRTAB,
                flags: SHF_ALLOC,
                address: strings,
                offset: place(strings),
                bytes: size,
                ..Section::default()
            },
        );
        let entry = size_of::<Sym64<LE>>() as u64;
        sections.add(
            ".dynsym",
            Section {
                kind: SHT_DYNSYM,
                flags: SHF_ALLOC,
                address: symbols,
                offset: place(symbols),
                bytes: symbol_bytes / entry * entry,
                link: next,
                info: 1,
                entry,
            },
        );
        sections.add(
            ".dynamic",
            Section {
                kind: SHT_DYNAMIC,
                flags: SHF_ALLOC | SHF_WRITE,
                address,
                offset: place(address),
                bytes,
                link: next,
                entry: size_of::<Dyn64<LE>>() as u64,
                ..Section::default()
            },
        );
    }

    /// The offset in the file of an address of the file.
    fn offset(&self, address: u64) -> Option<u64> {
        let holds = |segment: &&ProgramHeader64<LE>| {
            address.checked_sub(segment.p_vaddr.get(LE)).is_some_and(|at| at < segment.p_filesz.get(LE))
        };
        let segment = self.loads().find(holds)?;
        Some(address - segment.p_vaddr.get(LE) + segment.p_offset.get(LE))
    }

    fn slice<'file>(&self, file: &'file [u8], address: u64, bytes: u64) -> Option<&'file [u8]> {
        let from = usize::try_from(self.offset(address)?).ok()?;
        file.get(from..from.checked_add(usize::try_from(bytes).ok()?)?)
    }
}

#[cfg(test)]
mod tests {
    use std::fs;
    use std::process::Command;

    use super::*;

    /// The test's own program, out of its own memory, is what binutils take for an ELF file with our code in it.
    #[test]
    fn our_own_program_can_be_rebuilt() {
        let pid = std::process::id();
        let (modules, memory) = (Modules::new(u64::MAX), Memory::open(pid).unwrap());
        let regions = modules.fetcher.borrow_mut().regions(pid).unwrap();
        let read = |address: u64, bytes: &mut [u8]| modules.read(pid, Some(&memory), address, bytes);
        let own = std::env::current_exe().unwrap();
        let is_own = |region: &&Region| region.name().as_deref() == own.to_str();
        let region = regions.iter().find(is_own).unwrap();
        let image = Image::find(region, &regions, u64::MAX, &read).unwrap();
        let bytes = image.build(&read);
        let code = image.loads().find(|segment| segment.p_flags.get(LE) & PF_X != 0).unwrap();
        let range = code.p_offset.get(LE) as usize..(code.p_offset.get(LE) + code.p_filesz.get(LE)) as usize;
        assert!(bytes[range.clone()] == fs::read(&own).unwrap()[range], "code is not changed by loading");
        let path = std::env::temp_dir().join(format!("faultline-elf-{pid}"));
        fs::write(&path, &bytes).unwrap();
        let shown = Command::new("readelf").args(["-W", "-S", "--dyn-syms"]).arg(&path).output().unwrap();
        fs::remove_file(&path).unwrap();
        let text = String::from_utf8_lossy(&shown.stdout).into_owned();
        assert!(shown.status.success() && shown.stderr.is_empty(), "{}", String::from_utf8_lossy(&shown.stderr));
        assert!(text.contains(".text") && text.contains("__libc_start_main"), "{text}");
        assert!(Image::find(region, &regions, 1, &read).is_none(), "too large");
        let stack = regions.iter().find(|region| region.backing == Backing::MainStack).unwrap();
        assert!(Image::find(stack, &regions, u64::MAX, &read).is_none());
    }
}
