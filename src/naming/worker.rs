//! Names and unwinds one record after another. All that a process may have made is parsed here.

use std::collections::HashMap;
use std::rc::Rc;

use super::job::{Described, Ending, Job, MappedImage, Mapping, Named, NamedFile, Walk};
use super::maps::MEMFD;
use super::{jit_dump, perf_map};
use crate::arch::LINK_OUTLIVES_CALL;
use crate::evidence::{Failure, Function, Functions, Halt, Handling};
use crate::identity::{Step, Tracker, Trail};
use crate::symbol::unwind::{CodeRegion, Frame, Image, Machine, Passage, Registers, StackCopy, Unwinder, Unwound, Way};
use crate::symbol::{CodePlace, FileRequest, Files, MappedFile, Namer, Open, vdso};

/// So many addresses of a stack get names. In a recursion they are few, however deep it is.
const ADDRESSES_MAX: usize = 512;

/// Functions of addresses; of a return address those of the call before it.
type Known = HashMap<(u64, bool), Vec<Function>>;

/// A file of a job, or why it is not to be had.
type Found = Result<MappedFile, Failure>;

/// Keeps what it read of files: the same ones come again and again.
pub(crate) struct Worker {
    files: Files,
    /// A copy of the kernel's code in each process. `None` means that it has none.
    vdso: Option<MappedFile>,
    namer: Namer,
    unwinder: Unwinder,
    begins: Rc<dyn Fn(usize)>,
}

impl Worker {
    /// `begins` is called with a file's number before that file is looked into. What must be read of ourselves is read here, so that
    /// nothing has to be opened later.
    pub(crate) fn new(begins: Rc<dyn Fn(usize)>) -> Self {
        let unwinder = Unwinder::new(begins.clone());
        Self { files: Files::default(), vdso: vdso::copy(), namer: Namer::default(), unwinder, begins }
    }

    /// Does a job. `open` opens its files.
    pub(crate) fn name(&mut self, job: &Job, open: &mut dyn Open) -> Named {
        if job.is_anew {
            self.namer.forget();
        }
        let (files, found) = self.files(job, open);
        let mut named = self.answer(job, files, &found, open);
        for (file, found) in named.files.iter_mut().zip(&found) {
            file.sources = found.as_ref().ok().and_then(|found| self.namer.sources(found));
            file.failure = file.failure.or_else(|| self.namer.failure(found.as_ref().ok()?));
        }
        named
    }

    fn answer(&mut self, job: &Job, files: Vec<NamedFile>, found: &[Found], open: &mut dyn Open) -> Named {
        let stack = job.unwind.as_ref().map(|thread| &thread.stack);
        let Some(ending) = &job.ending else {
            let described = self.describe(job, found, stack, open);
            return Named { files, described, ..Named::default() };
        };
        let (passage, frames) = self.passage(job, ending, found);
        if passage == Passage::Through(0) {
            let described = self.describe(job, found, stack, open);
            let ending_functions = frames.iter().map(|&frame| self.functions(job, found, frame, open)).collect();
            return Named { files, described, passage, instead: None, ending: frames, ending_functions };
        }
        let other = ending.choice.by(passage).and_then(|number| ending.others.get(number));
        let instead = other.map(|other| {
            let found = found.get(other.first_file..).unwrap_or_default();
            Box::new(self.describe(&other.job, found, stack, open))
        });
        // Nobody wants names of what has not happened.
        let (walk, more) = (job.walk.clone(), vec![Err(Failure::NoSymbol); job.more.len()]);
        let functions = vec![Err(Failure::NoSymbol); walk.frames.len()];
        let described = Described { walk, functions, more, ..Described::default() };
        Named { files, described, passage, instead, ..Named::default() }
    }

    /// The files of a job, as far as they can be had.
    fn files(&mut self, job: &Job, open: &mut dyn Open) -> (Vec<NamedFile>, Vec<Found>) {
        let mut found: Vec<Found> = Vec::with_capacity(job.opening.files.len());
        let mut files: Vec<NamedFile> = Vec::with_capacity(job.opening.files.len());
        for (number, wanted) in job.opening.files.iter().enumerate() {
            let is_same = |other: &FileRequest| other.id == wanted.id && other.path == wanted.path;
            let known = job.opening.files.iter().take(number).position(is_same);
            if let Some((file, found_file)) = known.and_then(|known| Some((files.get(known)?, found.get(known)?))) {
                let (file, found_file) = (file.clone(), found_file.clone());
                files.push(file);
                found.push(found_file);
                continue;
            }
            (self.begins)(number);
            let file = self.files.find(wanted, number, open);
            files.push(NamedFile {
                build_id: file.as_ref().ok().and_then(|file| file.build_id.clone()),
                failure: file.as_ref().err().copied().filter(|failure| failure.is_ours()),
                sources: None,
            });
            found.push(file);
        }
        (files, found)
    }

    /// The stack of a job with its names, and what else is said of it.
    fn describe(&mut self, job: &Job, found: &[Found], stack: Option<&StackCopy>, open: &mut dyn Open) -> Described {
        let (walk, all) = self.walk(job, found, stack);
        let mut known = Known::new();
        let mut names = |frames: &[Frame]| -> Vec<Functions> {
            let mut name = |&frame: &Frame| {
                let functions = self.functions(job, found, frame, open);
                known.insert((frame.address, frame.is_return_address), functions.clone().unwrap_or_default());
                functions
            };
            frames.iter().map(&mut name).collect()
        };
        let (mut functions, mut more) = (names(&walk.frames), names(&job.more));
        let trail = self.trail(job, found, (&all, !walk.complete), known, open);
        // After the trail, which knows nothing of them.
        for (&frame, functions) in walk.frames.iter().zip(&mut functions) {
            self.name_vdso(job, frame, functions, open);
        }
        let frames = walk.frames.iter().chain(&job.more);
        name_generated(job, found, frames.zip(functions.iter_mut().chain(&mut more)), open);
        let variable = job.variable.as_ref().and_then(|(number, name)| {
            let file = found.get(*number)?.as_ref().ok()?;
            (self.begins)(file.number);
            file.variable(name)
        });
        let part = job.part.and_then(|(number, offset)| {
            let file = found.get(number)?.as_ref().ok()?;
            (self.begins)(file.number);
            file.part(offset)
        });
        let handling = if job.wants_handling { self.handling(job, found, &walk.frames) } else { Vec::new() };
        let halt = if job.wants_halt { self.halt(job, found, &walk.frames) } else { None };
        Described { walk, functions, more, trail, variable, part, halt, handling }
    }

    /// What stands around the instruction of the innermost frame.
    fn halt(&self, job: &Job, found: &[Found], frames: &[Frame]) -> Option<Halt> {
        let (file, place) = self.place(job, found, *frames.first()?).ok()?;
        let caller = frames.get(1).and_then(|&caller| self.place(job, found, caller).ok());
        let caller = caller.filter(|(other, _)| other.number == file.number).map(|(_, place)| place.offset);
        file.halt(place.offset, caller)
    }

    /// Where the way from the end of the thread leads, and its frames up to the signal frame, as far as they are wanted.
    fn passage(&mut self, job: &Job, ending: &Ending, found: &[Found]) -> (Passage, Vec<Frame>) {
        let Some(thread) = &job.unwind else { return Default::default() };
        let mappings: Vec<CodeRegion<'_>> = job.mappings.iter().map(|mapping| region(mapping, found)).collect();
        // The end itself is the first of the others.
        let end = ending.others.first().and_then(|other| other.job.unwind.as_ref());
        let is_return_next = end.is_some_and(|end| end.is_return_next);
        let registers = Registers::new(ending.registers).of(Machine::of(thread.is_compat));
        let unwound = self.unwinder.unwind_from(registers, is_return_next, &thread.stack, &mappings, usize::MAX);
        let passage = unwound.passage(&ending.suspects);
        let frames = match (passage, ending.is_shown) {
            (Passage::Through(number), true) => unwound.frames_below(ending.suspects.get(number), job.depth),
            _ => Vec::new(),
        };
        (passage, frames)
    }

    /// The stack: by call frame information if there is a copy of it, unless frame pointers lead further. As it is to be shown, and all
    /// of its frames.
    fn walk(&mut self, job: &Job, found: &[Found], stack: Option<&StackCopy>) -> (Walk, Vec<Frame>) {
        let kernels = || (job.walk.clone(), job.walk.frames.clone());
        let (Some(thread), Some(stack)) = (&job.unwind, stack) else { return kernels() };
        let mappings: Vec<CodeRegion<'_>> = job.mappings.iter().map(|mapping| region(mapping, found)).collect();
        let registers = Registers::new(thread.registers).of(Machine::of(thread.is_compat));
        let mut unwound = self.unwinder.unwind_from(registers, thread.is_return_next, stack, &mappings, usize::MAX);
        let all = unwound.frames.clone();
        let frame_bytes = unwound.innermost_bytes();
        let mut is_sized = |bytes: &u64| {
            let innermost = all.first().and_then(|&frame| Some((frame, region(job.mapping(frame)?, found))));
            innermost.is_some_and(|(frame, mapping)| self.unwinder.is_sized(&mapping, frame, *bytes))
        };
        let is_frame_sized = frame_bytes.as_ref().is_some_and(&mut is_sized);
        let is_call_last = self.is_call_last(job, found, &unwound);
        unwound.shorten(job.depth);
        if !unwound.complete && unwound.frames.len() < job.walk.frames.len() {
            // Callers may be missing where its frame pointers lead further than what is proved.
            let (walk, frames) = kernels();
            return (Walk { complete: false, ..walk }, frames);
        }
        let walk = Walk {
            frames: unwound.frames,
            complete: unwound.complete,
            omitted: unwound.omitted,
            omitted_at: unwound.omitted_at,
            used_eh_frame: unwound.used_eh_frame,
            used_frame_pointer: unwound.used_frame_pointer,
            frame_bytes,
            is_frame_sized,
            is_call_last,
        };
        (walk, all)
    }

    /// Has the innermost frame, which has no code, been reached by the call before its return address, or by what that called? The stack pointer is
    /// that of the caller, whose own caller is found by it, and the caller has no jump by which it may have gone on when the call had returned.
    fn is_call_last(&mut self, job: &Job, found: &[Found], unwound: &Unwound) -> bool {
        let &[innermost, caller, ..] = &unwound.frames[..] else { return false };
        if !LINK_OUTLIVES_CALL || job.mapping(innermost).is_some() {
            return !LINK_OUTLIVES_CALL;
        }
        let is_caller_found = unwound.steps.get(2).is_some_and(|step| step.way == Way::Proved);
        let region = job.mapping(caller).map(|mapping| region(mapping, found));
        is_caller_found && region.is_some_and(|region| !self.unwinder.may_jump(&region, caller))
    }

    /// The frames that make it the same bug as another one. `known`: functions of addresses, as far as they have been asked for.
    fn trail(
        &mut self,
        job: &Job,
        found: &[Found],
        (frames, is_cut): (&[Frame], bool),
        mut known: Known,
        open: &mut dyn Open,
    ) -> Trail {
        let any = self.track(job, found, (frames, is_cut), &mut known, &mut |worker, frame| {
            worker.functions(job, found, frame, open).unwrap_or_default()
        });
        if !found.iter().flatten().any(|file| self.namer.has_debug_file(file)) {
            return any;
        }
        // What a debug file says makes the family only: the signature is the same on a host that doesn't have it.
        let mut own = Known::new();
        let mut has_debug_file = false;
        let own = self.track(job, found, (frames, is_cut), &mut own, &mut |worker, frame| {
            let address = (frame.address, frame.is_return_address);
            let Ok((found, place)) = worker.place(job, found, frame) else { return Vec::new() };
            let own = worker.namer.own_functions(found, place);
            has_debug_file |= own.is_some();
            own.or_else(|| known.get(&address).cloned()).unwrap_or_default()
        });
        if has_debug_file { own.with_family_of(any) } else { any }
    }

    /// What the functions of frames do with an exception.
    fn handling(&mut self, job: &Job, found: &[Found], frames: &[Frame]) -> Vec<Option<Handling>> {
        let of = |&frame: &Frame| self.unwinder.handling_of(&region(job.mapping(frame)?, found), frame);
        frames.iter().map(of).collect()
    }

    fn track(
        &mut self,
        job: &Job,
        found: &[Found],
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

    fn functions(&mut self, job: &Job, found: &[Found], frame: Frame, open: &mut dyn Open) -> Functions {
        let (found, place) = self.place(job, found, frame)?;
        self.namer.functions(found, place, open)
    }

    /// Names a frame that is in the kernel's code.
    fn name_vdso(&mut self, job: &Job, frame: Frame, functions: &mut Functions, open: &mut dyn Open) {
        let Some(mapping) = job.mapping(frame).filter(|mapping| mapping.image == MappedImage::Vdso) else { return };
        if let Some(vdso) = &self.vdso {
            // It is mapped as a whole.
            let mapping = Mapping { file_offset: 0, ..*mapping };
            *functions = self.namer.functions(vdso, mapping.place(frame), open);
        }
    }

    /// The file that a frame's code is in, and where in it.
    ///
    /// # Errors
    /// If it is in none that is there.
    fn place<'a>(&self, job: &Job, found: &'a [Found], frame: Frame) -> Result<(&'a MappedFile, CodePlace), Failure> {
        let mapping = job.mapping(frame).ok_or(Failure::NoCode)?;
        let found = match mapping.image {
            MappedImage::File(number) => found.get(number).ok_or(Failure::NotFound)?.as_ref().map_err(|why| *why)?,
            MappedImage::Vdso | MappedImage::CompatVdso => return Err(Failure::NoSymbol),
            MappedImage::Unknown => return Err(Failure::NoFile),
        };
        (self.begins)(found.number);
        Ok((found, mapping.place(frame)))
    }
}

impl Mapping {
    /// Where in its file a frame's code is.
    fn place(&self, Frame { address, is_return_address }: Frame) -> CodePlace {
        let in_mapping = address.wrapping_sub(self.start);
        CodePlace {
            offset: in_mapping.wrapping_add(self.file_offset),
            in_mapping,
            mapping_bytes: self.end - self.start,
            is_return_address,
        }
    }
}

/// Names the frames that are in generated code.
fn name_generated<'a>(
    job: &Job,
    found: &[Found],
    frames: impl Iterator<Item = (&'a Frame, &'a mut Functions)>,
    open: &mut dyn Open,
) {
    let is_generated = |frame: &Frame| match job.mapping(*frame).map(|mapping| mapping.image) {
        Some(MappedImage::Unknown) => true,
        // Where code may not be writable, it is written through another mapping of the same memory.
        Some(MappedImage::File(number)) => job
            .opening
            .files
            .get(number)
            .is_some_and(|file| file.is_deleted && file.path.as_ref().is_some_and(|path| path.starts_with(MEMFD))),
        Some(MappedImage::Vdso | MappedImage::CompatVdso) | None => false,
    };
    let (frames, mut functions): (Vec<Frame>, Vec<_>) = frames
        .filter(|(frame, functions)| functions.is_err() && is_generated(frame))
        .map(|(frame, functions)| (*frame, functions))
        .unzip();
    let Some(perf_map) = job.opening.perf_map.filter(|_| !frames.is_empty()) else { return };
    let is_dump = |file: &FileRequest| jit_dump::is_dump(file, perf_map.pid_in_namespace);
    let number = job.opening.files.iter().position(is_dump);
    let dump = number.and_then(|number| found.get(number)?.as_ref().ok()?.contents());
    let mut add = |names: Vec<Option<Function>>| {
        for (functions, found) in functions.iter_mut().zip(names).filter(|(functions, _)| functions.is_err()) {
            if let Some(found) = found {
                **functions = Ok(vec![found]);
            }
        }
        functions.iter().all(|functions| functions.is_ok())
    };
    if dump.is_some_and(|dump| add(jit_dump::names(dump, &frames))) {
        return;
    }
    if let Some(map) = open.perf_map() {
        add(perf_map::names(&map, &frames));
    }
}

/// A mapping as the unwinder sees it.
fn region<'a>(mapping: &Mapping, found: &'a [Found]) -> CodeRegion<'a> {
    let image = match mapping.image {
        MappedImage::File(number) => {
            found.get(number).and_then(|found| found.as_ref().ok()).map_or(Image::Unknown, Image::File)
        }
        MappedImage::Vdso => Image::Vdso,
        MappedImage::CompatVdso => Image::CompatVdso,
        MappedImage::Unknown => Image::Unknown,
    };
    CodeRegion { start: mapping.start, end: mapping.end, file_offset: mapping.file_offset, image }
}
