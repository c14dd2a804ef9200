//! The executable mappings of a sample, and its files: its own, and those of the samples before it, because a sample has room for few.

use std::collections::{HashMap, HashSet};

use super::sample::build_id_in_memory;
use crate::evidence::{File, FileId};
use crate::hex::digits;
use crate::naming::{MappedImage, Mapping};
use crate::probe::abi::{fl_crash, fl_crash_flag, fl_file, fl_file_flag, fl_vma};
use crate::symbol::{FileRequest, Usage};

/// What is known of the memory from which a thread may have run code.
pub(super) struct Modules {
    /// Their files have numbers from 1 on.
    mappings: Vec<fl_vma>,
    /// Those of the sample itself have the same numbers as there.
    files: Vec<SampleFile>,
    /// The number of the program.
    exe: u32,
    vdso: u64,
    is_compat: bool,
}

/// A file, and its path. `None` means that the sample had no room for all of it.
struct SampleFile {
    sent: fl_file,
    path: Option<Vec<u8>>,
}

impl SampleFile {
    fn of(raw: &fl_crash, sent: &fl_file) -> Self {
        let is_cut = sent.flags.0 & fl_file_flag::FL_FILE_PATH_CUT.0 != 0;
        Self { sent: *sent, path: if is_cut { None } else { raw.path(sent.path_offset, sent.path_length) } }
    }

    fn id(&self) -> FileId {
        FileId { inode: self.sent.inode, device: self.sent.device.into() }
    }
}

impl Modules {
    /// `more`: samples that have mappings for which `raw` had no room.
    pub(super) fn of(raw: &fl_crash, more: &[Box<fl_crash>]) -> Self {
        let mut modules = Self {
            mappings: sent_modules(raw).to_vec(),
            files: sent_files(raw).iter().map(|file| SampleFile::of(raw, file)).collect(),
            exe: raw.exe,
            vdso: raw.vdso,
            is_compat: raw.flags.0 & fl_crash_flag::FL_IS_COMPAT.0 != 0,
        };
        let mut known: HashSet<u64> = modules.mappings.iter().map(|mapping| mapping.vm_start).collect();
        let mut numbers: HashMap<FileId, u32> =
            modules.files.iter().zip(1..).map(|(file, number)| (file.id(), number)).collect();
        for part in more {
            for mapping in sent_modules(part).iter().filter(|mapping| known.insert(mapping.vm_start)) {
                let sent = mapping.file.checked_sub(1).and_then(|index| sent_files(part).get(index as usize));
                let file = sent.map_or(0, |sent| modules.number_of(SampleFile::of(part, sent), &mut numbers));
                modules.mappings.push(fl_vma { file, ..*mapping });
            }
        }
        modules
    }

    fn number_of(&mut self, file: SampleFile, numbers: &mut HashMap<FileId, u32>) -> u32 {
        *numbers.entry(file.id()).or_insert_with(|| {
            self.files.push(file);
            self.files.len() as u32
        })
    }

    /// The mapping that a frame is in.
    fn at(&self, address: u64, is_return_address: bool) -> Option<&fl_vma> {
        let inside = address.wrapping_sub(u64::from(is_return_address));
        self.mappings.iter().find(|mapping| mapping.vm_start <= inside && inside < mapping.vm_end)
    }

    /// The mappings, for the namer.
    pub(super) fn mappings(&self) -> Vec<Mapping> {
        let mapping = |mapping: &fl_vma| Mapping {
            start: mapping.vm_start,
            end: mapping.vm_end,
            file_offset: mapping.file_offset,
            image: self.image(mapping),
        };
        self.mappings.iter().map(mapping).collect()
    }

    fn image(&self, mapping: &fl_vma) -> MappedImage {
        match mapping.file.checked_sub(1).filter(|&index| (index as usize) < self.files.len()) {
            Some(index) => MappedImage::File(index as usize),
            None if self.vdso != 0 && mapping.vm_start == self.vdso => {
                if self.is_compat {
                    MappedImage::CompatVdso
                } else {
                    MappedImage::Vdso
                }
            }
            None => MappedImage::Unknown,
        }
    }

    /// The files, for the namer to find.
    pub(super) fn requests(&self) -> Vec<FileRequest> {
        let request = |(file, number): (&SampleFile, u32)| FileRequest {
            path: file.path.clone(),
            build_id: build_id_in_memory(&file.sent).map(<[u8]>::to_vec),
            id: file.id(),
            is_deleted: file.sent.flags.0 & fl_file_flag::FL_FILE_DELETED.0 != 0,
            usage: self.usage(number),
            refused: None,
        };
        self.files.iter().zip(1..).map(request).collect()
    }

    /// How the process used the file of this number.
    fn usage(&self, number: u32) -> Usage {
        let mapped = self.mappings.iter().find(|mapping| mapping.file == number);
        let is_executable = self.exe == number;
        match mapped {
            None if !is_executable => Usage::Data,
            mapped => Usage::Code { mapped: mapped.map(|mapping| (mapping.vm_start, mapping.vm_end)), is_executable },
        }
    }

    /// The same with what is known of each file. `from_file` says which build id was found in the file of an index.
    pub(super) fn described<'a>(&self, from_file: impl Fn(usize) -> Option<&'a [u8]>) -> KnownModules<'_> {
        let describe = |(index, file): (usize, &SampleFile)| {
            let sent = &file.sent;
            let build_id = build_id_in_memory(sent).or(from_file(index)).map(digits);
            File { build_id, ..File::sampled(file.path.as_deref(), sent.flags.0, sent.inode, sent.device) }
        };
        KnownModules { modules: self, files: self.files.iter().enumerate().map(describe).collect() }
    }
}

/// The mappings, and the name and build id of each file. The build id is from the process's memory, else from the file that ran.
pub(super) struct KnownModules<'a> {
    modules: &'a Modules,
    pub(super) files: Vec<File>,
}

impl KnownModules<'_> {
    /// By number, from 1 on.
    pub(super) fn file(&self, number: u32) -> Option<&File> {
        self.files.get(number.checked_sub(1)? as usize)
    }

    /// The mapping that a frame is in.
    pub(super) fn at(&self, address: u64, is_return_address: bool) -> Option<&fl_vma> {
        self.modules.at(address, is_return_address)
    }
}

fn sent_modules(raw: &fl_crash) -> &[fl_vma] {
    &raw.modules[..raw.modules.len().min(raw.module_count as usize)]
}

fn sent_files(raw: &fl_crash) -> &[fl_file] {
    &raw.files[..raw.files.len().min(raw.file_count as usize)]
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A sample of mappings of 0x1000 bytes, each with the inode of its file; 0: none.
    fn sample(mappings: &[(u64, u64)]) -> Box<fl_crash> {
        let mut raw = Box::<fl_crash>::default();
        for &(vm_start, inode) in mappings {
            let mut file = 0;
            if inode != 0 {
                raw.files[raw.file_count as usize] = fl_file { inode, ..fl_file::default() };
                raw.file_count += 1;
                file = raw.file_count;
            }
            raw.modules[raw.module_count as usize] =
                fl_vma { vm_start, vm_end: vm_start + 0x1000, file, ..fl_vma::default() };
            raw.module_count += 1;
        }
        raw
    }

    #[test]
    fn what_came_before_is_added_once() {
        let raw = sample(&[(0x1000, 11), (0x2000, 12)]);
        let more = [sample(&[(0x1000, 11), (0x5000, 13), (0x6000, 12)]), sample(&[(0x5000, 13), (0x7000, 0)])];
        let modules = Modules::of(&raw, &more);
        let images: Vec<_> = modules.mappings().iter().map(|mapping| (mapping.start, mapping.image)).collect();
        let file = MappedImage::File;
        let all = [
            (0x1000, file(0)),
            (0x2000, file(1)),
            (0x5000, file(2)),
            (0x6000, file(1)),
            (0x7000, MappedImage::Unknown),
        ];
        assert_eq!(images, all);
        let inodes: Vec<u64> = modules.requests().iter().map(|request| request.id.inode).collect();
        assert_eq!(inodes, [11, 12, 13], "each file once");
        let known = modules.described(|index| (index == 2).then_some(&[7][..]));
        let module = known.at(0x6000, true).unwrap();
        assert_eq!(module.vm_start, 0x5000, "the call is before it");
        assert_eq!(known.file(module.file).unwrap().build_id.as_deref(), Some("07"));
        assert!(known.at(0x8000, false).is_none() && known.file(4).is_none());
    }

    #[test]
    fn a_count_that_is_too_large_does_no_harm() {
        let mut raw = sample(&[(0x1000, 11)]);
        (raw.module_count, raw.file_count, raw.modules[1].file) = (u32::MAX, u32::MAX, u32::MAX);
        let modules = Modules::of(&raw, std::slice::from_ref(&raw));
        assert_eq!(modules.requests().len(), raw.files.len());
        assert_eq!(modules.mappings()[1].image, MappedImage::Unknown);
    }
}
