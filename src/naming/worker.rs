//! Names and unwinds one record after another. All that a process may have made is parsed here.

use std::collections::HashMap;
use std::rc::Rc;

use super::job::{Job, MappedImage, Mapping, Named, NamedFile, Walk};
use crate::evidence::{Function, Handling};
use crate::identity::{Step, Tracker, Trail};
use crate::symbol::unwind::{CodeRegion, Frame, Image, Registers, Unwinder};
use crate::symbol::{CodePlace, Files, MappedFile, Namer, Open};

/// So many addresses of a stack get names. In a recursion they are few, however deep it is.
const ADDRESSES_MAX: usize = 512;

/// Functions of addresses; of a return address those of the call before it.
type Known = HashMap<(u64, bool), Vec<Function>>;

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
        let (walk, all) = self.walk(job, &found);
        let mut known = Known::new();
        let mut names = |frames: &[Frame]| -> Vec<Vec<Function>> {
            let mut name = |&frame: &Frame| {
                let functions = self.functions(job, &found, frame, open);
                known.insert((frame.address, frame.is_return_address), functions.clone());
                functions
            };
            frames.iter().map(&mut name).collect()
        };
        let (functions, more) = (names(&walk.frames), names(&job.more));
        let trail = self.trail(job, &found, (&all, !walk.complete), known, open);
        let variable = job.variable.as_ref().and_then(|(number, name)| {
            (self.begins)(*number);
            found.get(*number)?.as_ref()?.variable(name)
        });
        let part = job.part.and_then(|(number, offset)| {
            (self.begins)(number);
            found.get(number)?.as_ref()?.part(offset)
        });
        let handling = if job.wants_handling { self.handling(job, &found, &walk.frames) } else { Vec::new() };
        Named { files, walk, functions, more, trail, variable, part, handling }
    }

    /// The stack: by call frame information if there is a copy of it, unless frame pointers lead further. As it is to be shown, and all
    /// of its frames.
    fn walk(&mut self, job: &Job, found: &[Option<MappedFile>]) -> (Walk, Vec<Frame>) {
        let kernels = || (job.walk.clone(), job.walk.frames.clone());
        let Some(thread) = &job.unwind else { return kernels() };
        let mappings: Vec<CodeRegion<'_>> = job.mappings.iter().map(|mapping| region(mapping, found)).collect();
        let registers = Registers::new(thread.registers);
        let mut unwound =
            self.unwinder.unwind_from(registers, thread.is_return_next, &thread.stack, &mappings, usize::MAX);
        let all = unwound.frames.clone();
        unwound.shorten(job.depth);
        if !unwound.complete && unwound.frames.len() < job.walk.frames.len() {
            return kernels();
        }
        let walk = Walk {
            frames: unwound.frames,
            complete: unwound.complete,
            omitted: unwound.omitted,
            omitted_at: unwound.omitted_at,
            used_eh_frame: unwound.used_eh_frame,
            used_frame_pointer: unwound.used_frame_pointer,
        };
        (walk, all)
    }

    /// The frames that make it the same bug as another one. `known`: functions of addresses, as far as they have been asked for.
    fn trail(
        &mut self,
        job: &Job,
        found: &[Option<MappedFile>],
        (frames, is_cut): (&[Frame], bool),
        mut known: Known,
        open: &mut dyn Open,
    ) -> Trail {
        let any = self.track(job, found, (frames, is_cut), &mut known, &mut |worker, frame| {
            worker.functions(job, found, frame, open)
        });
        // What a debug file says makes the family only: the signature is the same on a host that doesn't have it.
        let mut own = Known::new();
        let mut has_debug_file = false;
        let own = self.track(job, found, (frames, is_cut), &mut own, &mut |worker, frame| {
            let address = (frame.address, frame.is_return_address);
            let Some((found, place)) = worker.place(job, found, frame) else { return Vec::new() };
            let own = worker.namer.own_functions(found, place);
            has_debug_file |= own.is_some();
            own.or_else(|| known.get(&address).cloned()).unwrap_or_default()
        });
        if has_debug_file { own.with_family_of(any) } else { any }
    }

    /// What the functions of frames do with an exception.
    fn handling(&mut self, job: &Job, found: &[Option<MappedFile>], frames: &[Frame]) -> Vec<Option<Handling>> {
        let of = |&frame: &Frame| self.unwinder.handling_of(&region(job.mapping(frame)?, found), frame);
        frames.iter().map(of).collect()
    }

    fn track(
        &mut self,
        job: &Job,
        found: &[Option<MappedFile>],
        (frames, is_cut): (&[Frame], bool),
        known: &mut Known,
        functions: &mut dyn FnMut(&mut Self, Frame) -> Vec<Function>,
    ) -> Trail {
        let mut tracker = Tracker::default();
        for (index, &frame) in frames.iter().enumerate() {
            let address = (frame.address, frame.is_return_address);
            if !tracker.wants_more() || (known.len() >= ADDRESSES_MAX && !known.contains_key(&address)) {
                break;
            }
            let begin = job.mapping(frame).and_then(|mapping| self.unwinder.begin_of(&region(mapping, found), frame));
            let functions = known.entry(address).or_insert_with(|| functions(self, frame));
            let caller = frames.get(index + 1).filter(|caller| caller.is_return_address);
            let call = caller.and_then(|&caller| self.unwinder.call_of(&region(job.mapping(caller)?, found), caller));
            tracker.add(&Step { begin, call, ..job.step(frame, functions) });
        }
        tracker.end(is_cut)
    }

    fn functions(
        &mut self,
        job: &Job,
        found: &[Option<MappedFile>],
        frame: Frame,
        open: &mut dyn Open,
    ) -> Vec<Function> {
        let Some((found, place)) = self.place(job, found, frame) else { return Vec::new() };
        self.namer.functions(found, place, open)
    }

    /// The file that a frame's code is in, and where in it.
    fn place<'a>(
        &self,
        job: &Job,
        found: &'a [Option<MappedFile>],
        frame: Frame,
    ) -> Option<(&'a MappedFile, CodePlace)> {
        let Frame { address, is_return_address } = frame;
        let mapping = job.mapping(frame)?;
        let MappedImage::File(number) = mapping.image else { return None };
        let found = found.get(number)?.as_ref()?;
        (self.begins)(number);
        let in_mapping = address.wrapping_sub(mapping.start);
        let place = CodePlace {
            offset: in_mapping.wrapping_add(mapping.file_offset),
            in_mapping,
            mapping_bytes: mapping.end - mapping.start,
            is_return_address,
        };
        Some((found, place))
    }
}

/// A mapping as the unwinder sees it.
fn region<'a>(mapping: &Mapping, found: &'a [Option<MappedFile>]) -> CodeRegion<'a> {
    let image = match mapping.image {
        MappedImage::File(number) => found.get(number).and_then(Option::as_ref).map_or(Image::Unknown, Image::File),
        MappedImage::Vdso => Image::Vdso,
        MappedImage::Unknown => Image::Unknown,
    };
    CodeRegion { start: mapping.start, end: mapping.end, file_offset: mapping.file_offset, image }
}
