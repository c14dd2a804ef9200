//! Names and unwinds one record after another. All that a process may have made is parsed here.

use std::rc::Rc;

use super::job::{Job, MappedImage, Named, NamedFile, Walk};
use crate::evidence::Function;
use crate::symbol::unwind::{CodeRegion, Frame, Image, Registers, Unwinder};
use crate::symbol::{CodePlace, Files, MappedFile, Namer, Open};

/// Keeps what it read of files: the same ones come again and again.
pub(crate) struct Worker {
    files: Files,
    namer: Namer,
    unwinder: Unwinder,
    begins: Rc<dyn Fn(usize)>,
}

impl Worker {
    /// `begins` is called with a file's number before that file is looked into. What must be read of ourselves is read here, so that
    /// nothing has to be opened later.
    pub(crate) fn new(begins: Rc<dyn Fn(usize)>) -> Self {
        let unwinder = Unwinder::new(begins.clone());
        Self { files: Files::default(), namer: Namer::default(), unwinder, begins }
    }

    /// Does a job. `open` opens its files.
    pub(crate) fn name(&mut self, job: &Job, open: &mut dyn Open) -> Named {
        let mut found: Vec<Option<MappedFile>> = Vec::with_capacity(job.opening.files.len());
        let mut files = Vec::with_capacity(job.opening.files.len());
        for (number, wanted) in job.opening.files.iter().enumerate() {
            (self.begins)(number);
            let looked = self.files.find(wanted, number, open);
            let failure = looked.as_ref().err().copied();
            let file = looked.ok().flatten();
            files.push(NamedFile { build_id: file.as_ref().and_then(|file| file.build_id.clone()), failure });
            found.push(file);
        }
        let walk = self.walk(job, &found);
        let mut names = |frames: &[Frame]| -> Vec<Vec<Function>> {
            frames.iter().map(|&frame| self.functions(job, &found, frame, open)).collect()
        };
        let (functions, more) = (names(&walk.frames), names(&job.more));
        let variable = job.variable.as_ref().and_then(|(number, name)| {
            (self.begins)(*number);
            found.get(*number)?.as_ref()?.variable(name)
        });
        Named { files, walk, functions, more, variable }
    }

    /// The stack: by call frame information if there is a copy of it, unless frame pointers lead further.
    fn walk(&mut self, job: &Job, found: &[Option<MappedFile>]) -> Walk {
        let Some(thread) = &job.unwind else { return job.walk.clone() };
        let mappings: Vec<CodeRegion<'_>> = job
            .mappings
            .iter()
            .map(|mapping| CodeRegion {
                start: mapping.start,
                end: mapping.end,
                file_offset: mapping.file_offset,
                image: match mapping.image {
                    MappedImage::File(number) => {
                        found.get(number).and_then(Option::as_ref).map_or(Image::Unknown, Image::File)
                    }
                    MappedImage::Vdso => Image::Vdso,
                    MappedImage::Unknown => Image::Unknown,
                },
            })
            .collect();
        let registers = Registers::new(thread.registers);
        let unwound = self.unwinder.unwind(registers, &thread.stack, &mappings, job.depth);
        if !unwound.complete && unwound.frames.len() < job.walk.frames.len() {
            return job.walk.clone();
        }
        Walk {
            frames: unwound.frames,
            complete: unwound.complete,
            omitted: unwound.omitted,
            omitted_at: unwound.omitted_at,
            used_eh_frame: unwound.used_eh_frame,
        }
    }

    fn functions(
        &mut self,
        job: &Job,
        found: &[Option<MappedFile>],
        frame: Frame,
        open: &mut dyn Open,
    ) -> Vec<Function> {
        let Frame { address, is_return_address } = frame;
        let inside = address.wrapping_sub(u64::from(is_return_address));
        let Some(mapping) = job.mappings.iter().find(|mapping| (mapping.start..mapping.end).contains(&inside)) else {
            return Vec::new();
        };
        let MappedImage::File(number) = mapping.image else { return Vec::new() };
        let Some(found) = found.get(number).and_then(Option::as_ref) else { return Vec::new() };
        (self.begins)(number);
        let in_mapping = address.wrapping_sub(mapping.start);
        let place = CodePlace {
            offset: in_mapping.wrapping_add(mapping.file_offset),
            in_mapping,
            mapping_bytes: mapping.end - mapping.start,
            is_return_address,
        };
        self.namer.functions(found, place, open)
    }
}
