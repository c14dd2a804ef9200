//! From what the kernel program sent to all that is known of it: files, names, the stack.

use anyhow::Result;

use super::ledger::Identity;
use super::signature::{self, Place};
use super::{Options, record};
use crate::arch::{self, Registers};
use crate::evidence::{self, Evidence, File, FileId, Region};
use crate::hex::digits;
use crate::host;
use crate::probe::abi::{fl_crash, fl_crash_flag, fl_file, fl_file_flag, fl_libc, fl_vma};
use crate::record::crash::{Frame, Omitted, Sender};
use crate::runtime::abort_message::Libcs;
use crate::siginfo::{SIGABRT, code_name, signal_name};
use crate::symbol::unwind::{self, CodeRegion, Image, StackCopy, Unwinder};
use crate::symbol::{CodePlace, DebugFolders, Files, Found, Holder, Namer, Usage, Wanted};
use crate::text::lossy;
use crate::time::Timestamp;

/// Turns samples into evidence, and that into records. Keeps what is worth keeping between them: open symbol files, this host's name.
pub struct Decoder {
    pub(super) options: Options,
    pub(super) host: String,
    /// Inode number of our mount namespace. `None` means unknown; then no path is taken to be ours.
    mount_namespace: Option<u64>,
    files: Files,
    namer: Namer,
    unwinder: Unwinder,
    /// Their messages before an abort.
    libcs: Libcs,
}

/// The facts of a sample before its record is made.
pub struct Gathered {
    /// When it was taken.
    pub(super) timestamp: Timestamp,
    /// The evidence for the diagnosis.
    pub evidence: Evidence,
    pub(super) sender: Option<Sender>,
    pub(super) exe: Option<File>,
    pub(super) cgroup: Option<String>,
    pub(super) signature: String,
    pub(super) stack_complete: bool,
    pub(super) stack_omitted: Option<Omitted>,
    pub(super) unwinder: &'static str,
    /// The description of its group, if that was asked for.
    pub(super) identity: Option<Identity>,
}

/// How a stack was walked.
struct Walk {
    frames: Vec<unwind::Frame>,
    complete: bool,
    /// How many frames are left out, and before which of `frames`.
    omitted: usize,
    omitted_at: usize,
    unwinder: &'static str,
}

/// The files of the sample.
struct SampleFiles {
    /// The name and build id of each. The build id is from the process's memory, else from the file that ran.
    files: Vec<File>,
    /// Each file itself, if it can still be found.
    found: Vec<Option<Found>>,
}

impl SampleFiles {
    /// By number, from 1 on.
    fn file(&self, number: u32) -> Option<&File> {
        self.files.get(number.checked_sub(1)? as usize)
    }

    /// By number, from 1 on.
    fn found(&self, number: u32) -> Option<&Found> {
        self.found.get(number.checked_sub(1)? as usize)?.as_ref()
    }
}

impl Decoder {
    /// A decoder that makes the parts of the record that `options` ask for.
    pub fn new(options: Options) -> Self {
        let host = host::name();
        let folders = DebugFolders::new(&options.debug_dirs);
        let watches_aborts = super::signals(&options).contains(&SIGABRT);
        Self {
            options,
            host,
            mount_namespace: host::mount_namespace(),
            files: Files::new(folders.clone()),
            namer: Namer::new(folders),
            unwinder: Unwinder::default(),
            libcs: if watches_aborts { Libcs::with_own() } else { Libcs::default() },
        }
    }

    /// Files whose messages the kernel program can read from now on, with the address in them.
    pub fn take_libcs(&mut self) -> Vec<(fl_libc, u64)> {
        self.libcs.take_news()
    }

    /// The facts of one sample. `identify`: with the description of its group.
    ///
    /// # Errors
    /// If the sample has no date: the clocks could not be read.
    pub fn gather(&mut self, raw: &fl_crash, stack: &StackCopy, identify: bool) -> Result<Gathered> {
        let timestamp = Timestamp::from_boottime(raw.timestamp_ns)?;
        // First, because it looks for a living process, and symbols take long.
        let sender = record::sender(raw);
        let files = raw.files.iter().take(raw.file_count as usize).zip(1..);
        let (files, found) = files.map(|(file, number)| self.identify(raw, file, number, timestamp)).unzip();
        let known = SampleFiles { files, found };
        let exe = known.file(raw.exe).cloned();
        let signature = self.signature(raw, &known, exe.as_ref());
        let depth = if self.options.stack_trace { self.options.max_stack_depth as usize } else { 1 };
        let walk = self.walk(raw, stack, &known, depth);
        let (inner, outer) = walk.frames.split_at(walk.omitted_at.min(walk.frames.len()));
        let mut frames = self.frames(raw, &known, inner);
        let stack_omitted = (walk.omitted > 0).then_some(Omitted { count: walk.omitted, before: frames.len() });
        frames.extend(self.frames(raw, &known, outer));
        let identity = identify.then(|| {
            // Not twice, because symbols take long.
            let innermost = match depth >= signature::FRAMES {
                true => innermost(&frames, signature::FRAMES),
                false => self.frames(raw, &known, &by_frame_pointer(raw, signature::FRAMES)),
            };
            Identity {
                signature: signature.clone(),
                exe: exe.as_ref().and_then(File::name),
                build_id: exe.as_ref().and_then(|exe| exe.build_id.clone()),
                frames: innermost.iter().map(|frame| Frame { address: None, ..Frame::from(frame) }).collect(),
            }
        });
        let abort_message = self.abort_message(raw, &known);
        Ok(Gathered {
            timestamp,
            evidence: Evidence::of(raw, &known.files, frames, abort_message),
            sender,
            exe,
            cgroup: raw.path(raw.cgroup_offset, raw.cgroup_length).map(|path| lossy(&path)),
            signature,
            stack_complete: walk.complete,
            stack_omitted,
            unwinder: walk.unwinder,
            identity,
        })
    }

    fn signature(&self, raw: &fl_crash, known: &SampleFiles, exe: Option<&File>) -> String {
        let has = |flag: fl_crash_flag| raw.flags.0 & flag.0 != 0;
        let code = has(fl_crash_flag::FL_HAS_CODE).then(|| code_name(raw.signal, raw.si_code));
        let places = if has(fl_crash_flag::FL_PLACE_COUNTS) { self.places(raw, known) } else { Vec::new() };
        let executable = exe.and_then(|exe| {
            let name = exe.name().map(|name| name.rsplit('/').next().unwrap_or(&name).to_owned());
            exe.build_id.clone().or(name)
        });
        signature::signature(&signal_name(raw.signal), code.as_deref(), executable.as_deref(), &places)
    }

    fn identify(&mut self, raw: &fl_crash, file: &fl_file, number: u32, timestamp: Timestamp) -> (File, Option<Found>) {
        let is = |flag: fl_file_flag| file.flags.0 & flag.0 != 0;
        let from_memory = file.build_id.get(..file.build_id_length as usize).filter(|id| !id.is_empty());
        let path =
            (!is(fl_file_flag::FL_FILE_PATH_CUT)).then(|| raw.path(file.path_offset, file.path_length)).flatten();
        let found = path.as_deref().and_then(|path| {
            self.files.find(&Wanted {
                path,
                build_id: from_memory,
                id: FileId { inode: file.inode, device: file.device.into() },
                process: Holder { pid: raw.pid, tid: raw.tid, parent: raw.ppid, mount_namespace: raw.mount_namespace },
                deleted: is(fl_file_flag::FL_FILE_DELETED),
                usage: usage(raw, number),
                same_mounts: self.mount_namespace == Some(u64::from(raw.mount_namespace)),
                taken_ns: timestamp.unix_ns(),
            })
        });
        let build_id = from_memory.or(found.as_ref().and_then(|found| found.build_id.as_deref())).map(digits);
        let file = File {
            path: path.map(|path| lossy(&path)),
            is_deleted: is(fl_file_flag::FL_FILE_DELETED),
            id: Some(FileId { inode: file.inode, device: file.device.into() }),
            build_id,
        };
        (file, found)
    }

    /// What libc said before it aborted.
    fn abort_message(&mut self, raw: &fl_crash, known: &SampleFiles) -> Option<String> {
        let address = raw.frames().first().filter(|_| raw.signal == SIGABRT)?;
        let number = raw.module(*address, false)?.file;
        let file = raw.files.get(number.checked_sub(1)? as usize)?;
        self.libcs.message(raw, file, known.file(number)?.build_id.as_deref(), known.found(number))
    }

    /// The innermost frames, of which the signature is made, whatever the options show.
    fn places(&self, raw: &fl_crash, known: &SampleFiles) -> Vec<Place> {
        raw.frames()
            .iter()
            .take(signature::FRAMES)
            .enumerate()
            .map(|(index, &address)| {
                let Some(module) = raw.module(address, index > 0) else { return Place::Elsewhere };
                let Some(file) = known.file(module.file) else { return Place::Elsewhere };
                let offset = offset_of(address, module);
                match (&file.build_id, &file.name()) {
                    (Some(build_id), _) => Place::Build { build_id: build_id.clone(), offset },
                    (None, Some(name)) => {
                        Place::Named { name: name.rsplit('/').next().unwrap_or(name).to_owned(), offset }
                    }
                    (None, None) => Place::Elsewhere,
                }
            })
            .collect()
    }

    /// The stack: by call frame information if there is a copy of it, unless frame pointers lead further.
    fn walk(&mut self, raw: &fl_crash, stack: &StackCopy, known: &SampleFiles, depth: usize) -> Walk {
        let has = |flag: fl_crash_flag| raw.flags.0 & flag.0 != 0;
        let kernels = Walk {
            frames: by_frame_pointer(raw, depth),
            complete: has(fl_crash_flag::FL_FRAMES_ENDED) && raw.frames().len() <= depth,
            omitted: 0,
            omitted_at: 0,
            unwinder: "frame_pointer",
        };
        let is_plain = has(fl_crash_flag::FL_HAS_REGISTERS) && !has(fl_crash_flag::FL_IS_COMPAT);
        if !is_plain || *stack == StackCopy::default() {
            return kernels;
        }
        let modules = raw.modules.iter().take(raw.module_count as usize);
        let mappings: Vec<CodeRegion<'_>> = modules
            .map(|module| CodeRegion {
                start: module.vm_start,
                end: module.vm_end,
                file_offset: module.file_offset,
                image: match known.found(module.file) {
                    Some(found) => Image::File(found),
                    None if known.file(module.file).is_some() => Image::Unknown,
                    None if raw.vdso != 0 && module.vm_start == raw.vdso => Image::Vdso,
                    None => Image::Unknown,
                },
            })
            .collect();
        let registers = arch::unwind::registers(&Registers::from(raw.registers));
        let unwound = self.unwinder.unwind(unwind::Registers::new(registers), stack, &mappings, depth);
        if !unwound.complete && unwound.frames.len() < kernels.frames.len() {
            return kernels;
        }
        Walk {
            frames: unwound.frames,
            complete: unwound.complete,
            omitted: unwound.omitted,
            omitted_at: unwound.omitted_at,
            unwinder: if unwound.used_eh_frame { "eh_frame" } else { "frame_pointer" },
        }
    }

    fn frames(&mut self, raw: &fl_crash, known: &SampleFiles, walk: &[unwind::Frame]) -> Vec<evidence::Frame> {
        let mut frames = Vec::new();
        for &unwind::Frame { address, is_return_address } in walk {
            let module = raw.module(address, is_return_address);
            let file_offset =
                module.filter(|module| known.file(module.file).is_some()).map(|module| offset_of(address, module));
            let functions = match (module, file_offset) {
                (Some(module), Some(offset)) => known.found(module.file).map(|found| {
                    let in_mapping = address - module.vm_start;
                    let mapping_bytes = module.vm_end - module.vm_start;
                    self.namer.functions(found, CodePlace { offset, in_mapping, mapping_bytes, is_return_address })
                }),
                _ => None,
            };
            let region = module.and_then(|module| Region::of(raw, module, &known.files));
            let frame = |function| evidence::Frame { address, function, region: region.clone(), file_offset };
            match functions.filter(|functions| !functions.is_empty()) {
                None => frames.push(frame(None)),
                Some(functions) => frames.extend(functions.into_iter().map(|function| frame(Some(function)))),
            }
        }
        frames
    }
}

/// Of an address in its module's file.
fn offset_of(address: u64, module: &fl_vma) -> u64 {
    address.wrapping_sub(module.vm_start).wrapping_add(module.file_offset)
}

/// How the process used the file of this number: `raw` counts them from 1.
fn usage(raw: &fl_crash, number: u32) -> Usage {
    let mapped = raw.modules.iter().take(raw.module_count as usize).find(|module| module.file == number);
    let is_executable = raw.exe == number;
    match mapped {
        None if !is_executable => Usage::Data,
        mapped => Usage::Code { mapped: mapped.map(|module| (module.vm_start, module.vm_end)), is_executable },
    }
}

/// The frames that the kernel program has walked, at most `depth`.
fn by_frame_pointer(raw: &fl_crash, depth: usize) -> Vec<unwind::Frame> {
    let frames = raw.frames().iter().take(depth).enumerate();
    frames.map(|(index, &address)| unwind::Frame { address, is_return_address: index > 0 }).collect()
}

/// The frames of the `count` innermost addresses, each with its inlined functions before it.
fn innermost(frames: &[evidence::Frame], count: usize) -> Vec<evidence::Frame> {
    let is_whole = |frame: &evidence::Frame| frame.function.as_ref().is_none_or(|function| !function.inlined);
    let end = frames.iter().enumerate().filter(|(_, frame)| is_whole(frame)).map(|(index, _)| index + 1).nth(count - 1);
    frames[..end.unwrap_or(frames.len())].to_vec()
}
