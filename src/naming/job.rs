//! What is asked of the namer, and what it answers: all that it needs of a record, and no more.

use serde::{Deserialize, Serialize};

use crate::arch::unwind::COUNT;
use crate::evidence::{Failure, FilePart, Function, Functions, Halt, Handling};
use crate::identity::{Step, Tracker, Trail};
use crate::symbol::unwind::{Frame, Passage, StackCopy, Suspect};
use crate::symbol::{Opening, Sources};

/// How many functions one address may stand for, inlined ones among them.
const FUNCTIONS_MAX: usize = 256;

/// How long a build id may be.
const BUILD_ID_BYTES_MAX: usize = 64;

/// A record whose files are to be named.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub(crate) struct Job {
    /// Its files.
    pub opening: Opening,
    /// Its executable mappings.
    pub mappings: Vec<Mapping>,
    /// The frames that the kernel program has walked.
    pub walk: Walk,
    /// What to unwind from. `None` means that the kernel's frames are all there are.
    pub unwind: Option<Unwind>,
    /// The end of the thread, if what it is to be unwound from is a fault whose handler it may have left. `None` means that it isn't.
    pub ending: Option<Ending>,
    /// How many frames are wanted.
    pub depth: usize,
    /// More frames that are to have names.
    pub more: Vec<Frame>,
    /// The file and the name of a variable whose address is wanted.
    pub variable: Option<(usize, Vec<u8>)>,
    /// The file and the offset in it whose part is wanted.
    pub part: Option<(usize, u64)>,
    /// What its functions do with exceptions is wanted.
    pub wants_handling: bool,
    /// The code around the instruction of the innermost frame is wanted, because only the kernel may execute that instruction.
    pub wants_halt: bool,
    /// There may be files now that were not there when they were looked for last.
    pub is_anew: bool,
}

/// In a job of files alone each has so many addresses of its own, so that an address says which file it is in.
pub(crate) const FILE_ADDRESSES: u64 = 1 << 40;

impl Job {
    /// A job of files alone, and of no stack: the file of each number is mapped as a whole, at its [`Job::base`].
    pub(crate) fn of_files(opening: Opening, more: Vec<Frame>) -> Self {
        let mapping = |number: usize| Mapping {
            start: Self::base(number),
            end: Self::base(number) + FILE_ADDRESSES,
            file_offset: 0,
            image: MappedImage::File(number),
        };
        Self {
            mappings: (0..opening.files.len()).map(mapping).collect(),
            opening,
            walk: Walk::default(),
            unwind: None,
            ending: None,
            depth: 0,
            more,
            variable: None,
            part: None,
            wants_handling: false,
            wants_halt: false,
            is_anew: false,
        }
    }

    /// The first address of the file of this number in a job of files alone.
    pub(crate) fn base(number: usize) -> u64 {
        FILE_ADDRESSES * (number as u64 + 1)
    }
}

/// An executable mapping.
#[derive(Clone, Copy, Debug, Serialize, Deserialize)]
pub(crate) struct Mapping {
    /// Its first address.
    pub start: u64,
    /// The address after its last one.
    pub end: u64,
    /// The offset of `start` in the file, bytes.
    pub file_offset: u64,
    /// What is mapped.
    pub image: MappedImage,
}

/// Where a mapping's code comes from.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) enum MappedImage {
    /// From the file of this number.
    File(usize),
    /// From the kernel.
    Vdso,
    /// The same of a 32-bit process.
    CompatVdso,
    /// From anywhere else.
    Unknown,
}

/// Arrays of registers: serde's own have 32 elements at most.
mod registers {
    use serde::de::Error;
    use serde::{Deserialize, Deserializer, Serialize, Serializer};

    use super::COUNT;

    pub(super) fn serialize<S: Serializer>(values: &[u64; COUNT], to: S) -> Result<S::Ok, S::Error> {
        values.as_slice().serialize(to)
    }

    pub(super) fn deserialize<'de, D: Deserializer<'de>>(from: D) -> Result<[u64; COUNT], D::Error> {
        let values = Vec::deserialize(from)?;
        values.try_into().map_err(|_| D::Error::custom("another number of registers"))
    }
}

/// A thread to unwind.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub(crate) struct Unwind {
    /// By DWARF's numbers.
    #[serde(with = "registers")]
    pub registers: [u64; COUNT],
    /// It runs 32-bit code.
    pub is_compat: bool,
    /// The return address is where a call puts it: behind its instruction stands a return, or a call has just led there.
    pub is_return_next: bool,
    /// Its stack.
    pub stack: StackCopy,
}

/// The end of a thread that has handled faults.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub(crate) struct Ending {
    /// By DWARF's numbers. The stack is that of the job's `unwind`.
    #[serde(with = "registers")]
    pub registers: [u64; COUNT],
    /// The signal frames of the faults, the first one first: that of the job itself.
    pub suspects: Vec<Suspect>,
    /// The frames from the end up to the signal frame are wanted.
    pub is_shown: bool,
    /// What may have happened in place of the fault.
    pub others: Vec<Other>,
    /// Which of these it is.
    pub choice: Choice,
}

/// Which of several things has happened, judged by where the stack from the end leads.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Choice {
    /// For each suspect, from the second on.
    pub by_suspect: Vec<usize>,
    /// If the way leads through no suspect. `None` means none of them.
    pub otherwise: Option<usize>,
}

/// Something else that may have happened, with the same stack as the job.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub(crate) struct Other {
    /// Without a stack.
    pub job: Box<Job>,
    /// The number of its first file among all files of the job that it is part of.
    pub first_file: usize,
}

impl Choice {
    /// The number of what has happened. `None` means the job's own event, or that there is nothing to name.
    pub(crate) fn by(&self, passage: Passage) -> Option<usize> {
        match passage {
            Passage::Through(number) => self.by_suspect.get(number.checked_sub(1)?).copied(),
            Passage::Past | Passage::Unknown => self.otherwise,
        }
    }
}

/// A stack, and how it was walked.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Walk {
    /// Innermost first.
    pub frames: Vec<Frame>,
    /// The last frame is the outermost one.
    pub complete: bool,
    /// How many frames are left out.
    pub omitted: usize,
    /// Before which of `frames` they were.
    pub omitted_at: usize,
    /// At least one frame was found by call frame information.
    pub used_eh_frame: bool,
    /// At least one was found by the frame pointer alone.
    pub used_frame_pointer: bool,
    /// How large the innermost frame is, by call frame information, bytes.
    pub frame_bytes: Option<u64>,
    /// It is proved that this is the function's own frame, and not where something has moved the stack pointer to.
    pub is_frame_sized: bool,
    /// Where the innermost frame has no code: nothing but the call before the return address, or what it called, can have led there.
    pub is_call_last: bool,
}

/// What the namer found.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
pub(crate) struct Named {
    /// What is known of each file of the job.
    pub files: Vec<NamedFile>,
    /// What is known of the stack, and what else was asked for.
    pub described: Described,
    /// Where the way from the job's `ending` leads. If it isn't through the first suspect, the stack is as the kernel program has walked it.
    pub passage: Passage,
    /// What has happened then: one of the job's `others`.
    pub instead: Option<Box<Described>>,
    /// The frames from the end up to the code that the handler returns to.
    pub ending: Vec<Frame>,
    /// The functions of each of them.
    pub ending_functions: Vec<Functions>,
}

/// What the namer found of a job, or of one of its `others`.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
pub(crate) struct Described {
    /// The stack.
    pub walk: Walk,
    /// The functions of each of its frames, innermost first.
    pub functions: Vec<Functions>,
    /// The functions of each of the job's `more`.
    pub more: Vec<Functions>,
    /// The frames that make two crashes one bug.
    pub trail: Trail,
    /// The variable's address in a process that has mapped the file at address 0.
    pub variable: Option<u64>,
    /// The part that was wanted. `None` means that the file is no ELF file, or is gone.
    pub part: Option<FilePart>,
    /// The code around that instruction. `None` means that it wasn't wanted, or that its file is gone.
    pub halt: Option<Halt>,
    /// What the functions of each frame of the stack do with an exception. Empty: it wasn't wanted.
    pub handling: Vec<Option<Handling>>,
}

/// What the namer found of a file.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct NamedFile {
    /// The build id in the file. `None` means that it has none, or was not found.
    pub build_id: Option<Vec<u8>>,
    /// Why names or lines of it are missing, if the reason is ours.
    pub failure: Option<Failure>,
    /// What its names come from. `None` means that none were asked for, or that it is not there.
    pub sources: Option<Sources>,
}

impl Job {
    /// The trail of the frames that the kernel program has walked, without names.
    fn unnamed_trail(&self) -> Trail {
        let mut tracker = Tracker::default();
        for &frame in &self.walk.frames {
            tracker.add(&self.step(frame, &[]));
        }
        tracker.end(!self.walk.complete)
    }

    /// A frame as the identity of a crash sees it, without what only its file can say.
    pub(super) fn step<'a>(&'a self, frame: Frame, functions: &'a [Function]) -> Step<'a> {
        let mapping = self.mapping(frame);
        let file = mapping.and_then(|mapping| match mapping.image {
            MappedImage::File(number) => Some((number, self.opening.files.get(number)?.path.as_deref())),
            _ => None,
        });
        let offset = |mapping: &Mapping| frame.address.wrapping_sub(mapping.start).wrapping_add(mapping.file_offset);
        Step {
            place: file.zip(mapping).map(|((number, _), mapping)| (number, offset(mapping))),
            begin: None,
            call: None,
            module: file.and_then(|(_, path)| std::str::from_utf8(path?).ok()),
            functions,
        }
    }

    /// The executable mapping that a frame's code is in.
    pub(super) fn mapping(&self, frame: Frame) -> Option<&Mapping> {
        let inside = frame.address.wrapping_sub(u64::from(frame.is_return_address));
        self.mappings.iter().find(|mapping| (mapping.start..mapping.end).contains(&inside))
    }
}

impl Named {
    /// The result of a job that the namer has not done: what the kernel program has sent is all there is.
    pub(crate) fn failed(job: &Skeleton, failure: Failure) -> Self {
        let file = |is_used: &bool| NamedFile { failure: is_used.then_some(failure), ..NamedFile::default() };
        Self {
            files: job.used.iter().map(file).collect(),
            described: Described {
                functions: vec![Err(failure); job.walk.frames.len()],
                walk: job.walk.clone(),
                more: vec![Err(failure); job.more],
                trail: job.trail.clone(),
                ..Described::default()
            },
            ..Self::default()
        }
    }

    /// What the namer found of this one of the job's `others`, which `other` is. If it has not named it, that is for this reason.
    pub(crate) fn of_other(&mut self, first_file: usize, other: &Skeleton, failure: Failure) -> Self {
        let files = self.files.iter().skip(first_file).take(other.used.len()).cloned();
        match self.instead.take() {
            Some(described) => Self { files: files.collect(), described: *described, ..Self::default() },
            None => Self::failed(other, failure),
        }
    }

    /// Does it answer this job? The namer parses what anybody may have made, so that its answer is judged as if anybody had made it.
    pub(crate) fn fits(&self, job: &Skeleton) -> bool {
        let is_file = |file: &NamedFile| file.build_id.as_ref().is_none_or(|id| id.len() <= BUILD_ID_BYTES_MAX);
        self.files.len() == job.used.len()
            && self.files.iter().all(is_file)
            && self.described.fits(job)
            && self.ending_functions.iter().all(is_list)
            && self.ending.len() == self.ending_functions.len()
            && self.ending.len() <= job.depth
            && !matches!(self.passage, Passage::Through(number) if number >= job.suspects)
            && self.instead.as_ref().is_none_or(|instead| {
                let other = job.choice.by(self.passage).and_then(|number| job.others.get(number));
                other.is_some_and(|other| instead.fits(other))
            })
    }
}

fn is_list(functions: &Functions) -> bool {
    functions.as_ref().is_ok_and(|functions| (1..=FUNCTIONS_MAX).contains(&functions.len())) || functions.is_err()
}

impl Described {
    /// Does it answer this job, or this one of a job's `others`?
    fn fits(&self, job: &Skeleton) -> bool {
        let frames = self.walk.frames.len();
        self.functions.len() == frames
            && self.more.len() == job.more
            && frames <= job.depth.max(job.walk.frames.len())
            && self.walk.omitted_at <= frames
            && self.functions.iter().chain(&self.more).all(is_list)
            && self.trail.fits(job.used.len())
            && (self.handling.is_empty() || self.handling.len() == frames)
            && self.part.as_ref().is_none_or(FilePart::fits)
    }
}

/// What is kept of a job while it is done: enough for a record without names.
#[derive(Clone, Debug)]
pub(crate) struct Skeleton {
    /// For each file: did the process run code of it?
    used: Vec<bool>,
    walk: Walk,
    more: usize,
    depth: usize,
    /// How many suspects its ending has; and what else may have happened.
    suspects: usize,
    others: Vec<Skeleton>,
    choice: Choice,
    /// As far as the kernel program has walked.
    trail: Trail,
}

impl From<&Job> for Skeleton {
    fn from(job: &Job) -> Self {
        let ending = job.ending.as_ref();
        let is_used = |number: usize| job.mappings.iter().any(|mapping| mapping.image == MappedImage::File(number));
        Self {
            used: (0..job.opening.files.len()).map(is_used).collect(),
            walk: job.walk.clone(),
            more: job.more.len(),
            depth: job.depth,
            suspects: ending.map_or(0, |ending| ending.suspects.len()),
            others: ending.into_iter().flat_map(|ending| &ending.others).map(|other| Self::from(&*other.job)).collect(),
            choice: ending.map(|ending| ending.choice.clone()).unwrap_or_default(),
            trail: job.unnamed_trail(),
        }
    }
}

#[cfg(test)]
pub(super) mod tests {
    use super::*;
    use crate::symbol::{FileRequest, Holder, Usage};

    pub(crate) fn job() -> Job {
        let file = |inode| FileRequest {
            path: Some(b"/x".to_vec()),
            build_id: Some(vec![1; 20]),
            id: crate::evidence::FileId { inode, device: 1 },
            is_deleted: false,
            usage: Usage::Code { mapped: None, is_executable: true },
            refused: None,
        };
        let process = Holder { pid: 1 << 30, tid: 1 << 30, parent: 1 << 30, mount_namespace: 1 };
        let frame = Frame { address: 0x1100, is_return_address: false };
        Job {
            opening: Opening { process, taken_ns: 1, files: vec![file(1), file(2)], perf_map: None },
            mappings: vec![Mapping { start: 0x1000, end: 0x2000, file_offset: 0, image: MappedImage::File(0) }],
            walk: Walk { frames: vec![frame], ..Walk::default() },
            unwind: None,
            ending: None,
            depth: 16,
            more: Vec::new(),
            variable: None,
            part: None,
            wants_handling: false,
            wants_halt: false,
            is_anew: false,
        }
    }

    #[test]
    fn a_failure_is_of_the_files_that_names_were_wanted_of() {
        let named = Named::failed(&Skeleton::from(&job()), Failure::TimedOut);
        assert_eq!(named.files.iter().map(|file| file.failure).collect::<Vec<_>>(), [Some(Failure::TimedOut), None]);
        assert!(named.fits(&Skeleton::from(&job())));
    }

    #[test]
    fn an_answer_that_does_not_fit_is_none() {
        let skeleton = Skeleton::from(&job());
        let good = Named::failed(&skeleton, Failure::Died);
        let known = good.described.clone();
        let with = |described| Named { described, ..good.clone() };
        let wrong = [
            Named { files: Vec::new(), ..good.clone() },
            with(Described { functions: Vec::new(), ..known.clone() }),
            with(Described { more: vec![Err(Failure::NoSymbol)], ..known.clone() }),
            with(Described { functions: vec![Ok(Vec::new())], ..known.clone() }),
            with(Described { walk: Walk { omitted_at: 2, ..known.walk.clone() }, ..known.clone() }),
            with(Described {
                walk: Walk { frames: vec![known.walk.frames[0]; 17], ..Walk::default() },
                functions: vec![Err(Failure::NoSymbol); 17],
                ..known.clone()
            }),
            Named { files: vec![NamedFile { build_id: Some(vec![0; 65]), ..NamedFile::default() }; 2], ..good.clone() },
            Named { passage: Passage::Through(0), ..good.clone() },
            Named { ending: vec![known.walk.frames[0]], ..good.clone() },
        ];
        for named in wrong {
            assert!(!named.fits(&skeleton), "{named:?}");
        }
    }
}
