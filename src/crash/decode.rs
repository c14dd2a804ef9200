//! From what the kernel program sent to a record that a person can read: numbers get names, here and nowhere else.

use anyhow::Result;
use procfs::process::Process;

use super::Options;
use super::ledger::Identity;
use super::libc::Libcs;
use super::record::{Crash, Disposition, EndedBy, Frame, Omitted, PageFault, Seccomp, Sender, Stitch, Vma};
use super::signature::{self, Place};
use crate::arch::{self, Registers};
use crate::diagnosis;
use crate::evidence::{self, Evidence, File, FileId, Region};
use crate::hex::{Hex, digits};
use crate::host;
use crate::oom::OutOfMemory;
use crate::output::{Timestamp, lossy};
use crate::probe::abi::{Names, fl_crash, fl_crash_flag, fl_file, fl_file_flag, fl_libc, fl_vma};
use crate::process::container_id;
use crate::siginfo::{SIGABRT, code_name, code_text, fault_type, signal_name};
use crate::symbol::unwind::{self, Image, Mapping, StackCopy, Unwinder};
use crate::symbol::{DebugFolders, Files, Found, Namer, Place as CodePlace, Ran, Usage, Wanted};

/// Turns samples into records. Keeps what is worth keeping between them: open symbol files, this host's name.
pub struct Decoder {
    options: Options,
    host: String,
    /// Inode number of our mount namespace; None: unknown, then no path is taken to be ours.
    mount_namespace: Option<u64>,
    files: Files,
    namer: Namer,
    unwinder: Unwinder,
    /// What they say before they abort.
    libcs: Libcs,
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
struct Known {
    /// What is known of each. The build id is from the process's memory, else from the very file.
    files: Vec<File>,
    /// Each file itself, if it is still to be found.
    found: Vec<Option<Found>>,
}

impl Known {
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
        let mount_namespace = procfs::process::Process::myself()
            .and_then(|me| me.namespaces())
            .ok()
            .and_then(|all| all.0.get(std::ffi::OsStr::new("mnt")).map(|namespace| namespace.identifier));
        let folders = DebugFolders::new(&options.debug_dirs);
        let watches_aborts = super::signals(&options).contains(&SIGABRT);
        Self {
            options,
            host,
            mount_namespace,
            files: Files::new(folders.clone()),
            namer: Namer::new(folders),
            unwinder: Unwinder::default(),
            libcs: if watches_aborts { Libcs::with_own() } else { Libcs::default() },
        }
    }

    /// Files whose messages the kernel program can read from now on, and where in them it must look.
    pub fn take_libcs(&mut self) -> Vec<(fl_libc, u64)> {
        self.libcs.take_news()
    }

    /// The record of one sample.
    ///
    /// # Errors
    /// Where the sample has no date: the clocks could not be read.
    pub fn decode(&mut self, raw: &fl_crash, stack: &StackCopy) -> Result<Crash> {
        self.decode_with(raw, stack, false).map(|(record, _)| record)
    }

    /// The record of one sample, and what it tells of its group.
    ///
    /// # Errors
    /// As [`Decoder::decode`].
    pub fn decode_and_identify(&mut self, raw: &fl_crash, stack: &StackCopy) -> Result<(Crash, Identity)> {
        let (record, frames) = self.decode_with(raw, stack, true)?;
        let identity = Identity {
            signature: record.signature.clone(),
            exe: record.exe.clone(),
            build_id: record.build_id.clone(),
            frames,
        };
        Ok((record, identity))
    }

    /// `identify`: with the frames of the signature, whatever the options show.
    fn decode_with(&mut self, raw: &fl_crash, stack: &StackCopy, identify: bool) -> Result<(Crash, Vec<Frame>)> {
        let has = |flag: fl_crash_flag| raw.flags.0 & flag.0 != 0;
        let timestamp = Timestamp::from_boottime(raw.timestamp_ns)?;
        // First, because it looks for a living process, and symbols take their time.
        let sender = match has(fl_crash_flag::FL_IS_FORGED) {
            true => Some(itself(raw)),
            false => has(fl_crash_flag::FL_HAS_SENDER).then(|| sender(raw)),
        };
        let files = raw.files.iter().take(raw.file_count as usize).zip(1..);
        let (files, found) = files.map(|(file, number)| self.identify(raw, file, number, timestamp)).unzip();
        let known = Known { files, found };
        let exe = known.file(raw.exe);
        let exe_name = exe.and_then(File::name);
        let cgroup = raw.path(raw.cgroup_offset, raw.cgroup_length).map(|path| lossy(&path));
        let oom = has(fl_crash_flag::FL_IS_OOM).then(|| OutOfMemory::from(&raw.memory).in_cgroup(cgroup.clone()));
        let signal = signal_name(raw.signal);
        let code = has(fl_crash_flag::FL_HAS_CODE).then_some(raw.si_code);
        let code_name = code.map(|code| code_name(raw.signal, code));
        let places = if has(fl_crash_flag::FL_PLACE_COUNTS) { self.places(raw, &known) } else { Vec::new() };
        let executable = exe.and_then(|exe| {
            let name = exe_name.as_deref().map(|name| name.rsplit('/').next().unwrap_or(name).to_owned());
            exe.build_id.clone().or(name)
        });
        let depth = if self.options.stack_trace { self.options.max_stack_depth as usize } else { 1 };
        let walk = self.walk(raw, stack, &known, depth);
        let (inner, outer) = walk.frames.split_at(walk.omitted_at.min(walk.frames.len()));
        let mut trace = self.frames(raw, &known, inner);
        let omitted = (walk.omitted > 0).then_some(Omitted { count: walk.omitted, before: trace.len() });
        trace.extend(self.frames(raw, &known, outer));
        let group_frames = match identify {
            false => Vec::new(),
            // Symbols take their time: not twice.
            true if depth >= signature::FRAMES => innermost(&trace, signature::FRAMES),
            true => self.frames(raw, &known, &by_frame_pointer(raw, signature::FRAMES)),
        };
        let group_frames = group_frames.iter().map(|frame| Frame { address: None, ..Frame::from(frame) }).collect();
        let abort_message = self.abort_message(raw, &known);
        let evidence = Evidence::of(raw, &known.files, trace, abort_message);
        let frames: Vec<Frame> = evidence.frames.iter().map(Frame::from).collect();
        let instruction_symbol = frames.iter().find(|frame| !frame.inlined).and_then(|frame| frame.symbol.clone());
        let diagnosis = diagnosis::diagnose(&evidence);
        let disposition = Disposition::from(raw.disposition);
        let is_forged = has(fl_crash_flag::FL_IS_FORGED);
        let trap_nr = has(fl_crash_flag::FL_HAS_TRAP).then_some(raw.trap_nr);
        let record = Crash {
            kind: Crash::KIND.0,
            schema: Crash::KIND.1,
            timestamp,
            host: self.host.clone(),
            pid: raw.pid,
            tid: raw.tid,
            ppid: raw.ppid,
            pid_in_namespace: raw.pid_in_namespace,
            comm: raw.comm(),
            thread_name: raw.thread_name(),
            exe: exe_name,
            build_id: exe.and_then(|exe| exe.build_id.clone()),
            uid: raw.uid,
            container_id: cgroup.as_deref().and_then(container_id),
            cgroup,
            signature: signature::signature(&signal, code_name.as_deref(), executable.as_deref(), &places),
            signal,
            signal_number: raw.signal,
            code: code_name,
            code_number: code,
            fault_type: code.filter(|_| !is_forged).and_then(|code| fault_type(raw.signal, code, trap_nr)),
            code_text: code.map_or_else(
                || "Unknown: the kernel keeps no details".to_owned(),
                |code| match is_forged {
                    true => "No fault: the process sent this to itself".to_owned(),
                    false => code_text(raw.signal, code, trap_nr),
                },
            ),
            fault_address: has(fl_crash_flag::FL_HAS_ADDRESS).then_some(Hex(raw.fault_address)),
            // Known where the other registers aren't: it is the first frame.
            instruction_pointer: raw.frames().first().copied().map(Hex),
            instruction_symbol,
            disposition,
            ended_by: (disposition == Disposition::Caught).then(|| ended_by(raw)),
            oom,
            sender,
            page_fault: has(fl_crash_flag::FL_HAS_PAGE_FAULT).then(|| page_fault(raw.error_code)),
            seccomp: has(fl_crash_flag::FL_HAS_SYSCALL).then_some(Seccomp {
                syscall: raw.syscall,
                arch: raw.syscall_arch,
                call_address: Hex(raw.fault_address),
            }),
            abort_message: evidence.abort_message,
            registers: evidence.registers.as_ref().filter(|_| self.options.registers).map(arch::registers),
            vma: evidence.memory.at.as_ref().map(Vma::from),
            vma_below: evidence.memory.below.as_ref().map(Vma::from),
            vma_above: evidence.memory.above.as_ref().map(Vma::from),
            stack_complete: self.options.stack_trace.then_some(walk.complete),
            stack_omitted: omitted.filter(|_| self.options.stack_trace),
            unwinder: (self.options.stack_trace && !frames.is_empty()).then_some(walk.unwinder),
            stack_trace: self.options.stack_trace.then_some(frames),
            diagnosis,
            cpu: raw.cpu,
            calls: None,
            stitch: Stitch {
                boottime_ns: evidence.at_ns,
                thread_start_ns: evidence.thread.start_ns,
                file: evidence.memory.at.as_ref().and_then(Region::file).and_then(|file| file.id),
            },
        };
        Ok((record, group_frames))
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
                device: file.device,
                inode: file.inode,
                process: Ran { pid: raw.pid, tid: raw.tid, parent: raw.ppid, mount_namespace: raw.mount_namespace },
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
    fn abort_message(&mut self, raw: &fl_crash, known: &Known) -> Option<String> {
        let address = raw.frames().first().filter(|_| raw.signal == SIGABRT)?;
        let number = raw.module(*address, false)?.file;
        let file = raw.files.get(number.checked_sub(1)? as usize)?;
        self.libcs.message(raw, file, known.file(number)?.build_id.as_deref(), known.found(number))
    }

    /// What the signature is made of: the innermost frames, whatever the options show.
    fn places(&self, raw: &fl_crash, known: &Known) -> Vec<Place> {
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

    /// The stack: by call frame information where a copy of it came, unless frame pointers lead further.
    fn walk(&mut self, raw: &fl_crash, stack: &StackCopy, known: &Known, depth: usize) -> Walk {
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
        let mappings: Vec<Mapping<'_>> = modules
            .map(|module| Mapping {
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

    fn frames(&mut self, raw: &fl_crash, known: &Known, walk: &[unwind::Frame]) -> Vec<evidence::Frame> {
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

/// The frames of the `count` innermost addresses: each one's inlined functions stand before it.
fn innermost(frames: &[evidence::Frame], count: usize) -> Vec<evidence::Frame> {
    let is_whole = |frame: &evidence::Frame| frame.function.as_ref().is_none_or(|function| !function.inlined);
    let end = frames.iter().enumerate().filter(|(_, frame)| is_whole(frame)).map(|(index, _)| index + 1).nth(count - 1);
    frames[..end.unwrap_or(frames.len())].to_vec()
}

pub(crate) fn page_fault(error_code: u64) -> PageFault {
    let flags: Vec<&'static str> =
        arch::PAGE_FAULT_BITS.iter().filter(|(bit, _)| error_code >> bit & 1 != 0).map(|(_, name)| *name).collect();
    let access = if flags.contains(&"instruction") {
        "execute"
    } else if flags.contains(&"write") {
        "write"
    } else {
        "read"
    };
    PageFault { error_code, access, flags }
}

/// How a process ended that had handled its fault.
fn ended_by(raw: &fl_crash) -> EndedBy {
    match raw.end_signal {
        0 => EndedBy { signal: None, code: None, exit_code: Some(raw.end_code) },
        signal => {
            EndedBy { signal: Some(signal_name(signal)), code: Some(code_name(signal, raw.end_code)), exit_code: None }
        }
    }
}

/// The process as the sender of its own signal.
fn itself(raw: &fl_crash) -> Sender {
    Sender { pid: Some(raw.pid), tid: None, comm: Some(raw.comm()), uid: Some(raw.uid) }
}

/// The sender as far as siginfo tells: its numbers are those of the target's namespaces.
fn sender(raw: &fl_crash) -> Sender {
    if raw.flags.0 & fl_crash_flag::FL_SENDER_SEEN.0 != 0 {
        return Sender {
            pid: Some(raw.sender_pid.unsigned_abs()),
            tid: Some(raw.sender_tid),
            comm: Some(lossy(&raw.sender_comm.map(|byte| byte as u8))),
            uid: Some(raw.sender_uid),
        };
    }
    if raw.sender_pid > 0 && raw.sender_pid as u32 == raw.pid_in_namespace {
        return itself(raw);
    }
    let is_host_pid = raw.sender_pid > 0 && raw.flags.0 & fl_crash_flag::FL_IN_PID_NAMESPACE.0 == 0;
    let pid = is_host_pid.then_some(raw.sender_pid as u32);
    Sender {
        pid,
        tid: None,
        comm: pid.and_then(|pid| living_name(pid, raw.timestamp_ns)),
        uid: (raw.flags.0 & fl_crash_flag::FL_IN_USER_NAMESPACE.0 == 0).then_some(raw.sender_uid),
    }
}

/// The name of a process that is still there and was there at `boottime_ns`; a later one with its number is another.
fn living_name(pid: u32, boottime_ns: u64) -> Option<String> {
    let stat = Process::new(i32::try_from(pid).ok()?).and_then(|process| process.stat()).ok()?;
    let started_ns = u128::from(stat.starttime) * 1_000_000_000 / u128::from(procfs::ticks_per_second());
    (started_ns <= u128::from(boottime_ns)).then_some(stat.comm)
}
