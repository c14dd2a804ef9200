//! Turns what the kernel program sent into evidence: what the namer is asked for, and what its answer adds to the sample.

use anyhow::Result;

use super::known::Identity;
use super::modules::{KnownModules, Modules};
use super::sample::{
    Framer, build_id_in_memory, by_frame_pointer, callee, cgroup, code_of, disk, earlier_place, go_callers,
    innermost_words, part, wholes,
};
use super::{Options, libcs, sender, space};
use crate::arch::{self, Registers};
use crate::diagnosis;
use crate::evidence::{self, Evidence, Failure, File, Functions};
use crate::hex::digits;
use crate::host;
use crate::identity::{self, Kind, Trail};
use crate::naming::{Job, Named, Skeleton, Unwind, Walk};
use crate::probe::abi::{fl_crash, fl_crash_flag, fl_libc};
use crate::record::crash::{Frame, Omitted, Sender, SymbolsFailed};
use crate::runtime::abort_message::{self, Libcs};
use crate::runtime::cxx;
use crate::runtime::message::{self, RuntimeMessage};
use crate::runtime::stack::StackWords;
use crate::siginfo::{SIGABRT, fault_type, signal_name};
use crate::symbol::unwind::{self, StackCopy};
use crate::symbol::{Holder, Opening, PerfMap};
use crate::time::Timestamp;

/// How many frames of one of its deaths a group shows.
pub(super) const GROUP_FRAMES: usize = 16;

/// Turns samples into evidence, and that into records. Keeps what is worth keeping between them: this host's name, the libcs that are known.
pub(crate) struct Decoder {
    pub(super) options: Options,
    pub(super) host: String,
    /// Their messages before an abort.
    libcs: Libcs,
}

/// The facts of a sample before its files were asked for.
pub(crate) struct UnnamedFacts {
    timestamp: Timestamp,
    sender: Option<Sender>,
    /// The disk has no room for a page that could not be had.
    is_disk_full: Option<bool>,
    /// Describe its group.
    identify: bool,
    /// The innermost words of the stack of an abort.
    stack: StackWords,
    /// Of what the pointer may be the lower half.
    wholes: Vec<u64>,
    modules: Modules,
    skeleton: Skeleton,
}

/// The facts of a sample before its record is made.
pub(crate) struct CrashFacts {
    /// When it was taken.
    pub(super) timestamp: Timestamp,
    /// What the runtime of a language said.
    pub(super) runtime_message: Option<RuntimeMessage>,
    /// The evidence for the diagnosis.
    pub evidence: Evidence,
    pub(super) sender: Option<Sender>,
    pub(super) exe: Option<File>,
    pub(super) cgroup: Option<String>,
    pub(super) signature: String,
    /// `None` means that it has no names.
    pub(super) family: Option<String>,
    pub(super) stack_complete: bool,
    pub(super) stack_omitted: Option<Omitted>,
    pub(super) unwinder: &'static str,
    /// The frames from the end of the process to the one that the handler of its fault returns to.
    pub(super) ending: Vec<evidence::Frame>,
    /// Where an earlier fault was.
    pub(super) earlier: Vec<evidence::Frame>,
    /// Why names are missing, of each file, and of each frame without a name.
    pub(super) failed: Vec<SymbolsFailed>,
    /// The description of its group, if that was asked for.
    pub(super) identity: Option<Identity>,
}

impl CrashFacts {
    /// Could each file be looked into?
    pub(crate) fn is_named(&self) -> bool {
        !self.failed.iter().any(|failed| failed.reason.is_ours())
    }
}

impl UnnamedFacts {
    /// What is kept of the job.
    pub(super) fn skeleton(&self) -> &Skeleton {
        &self.skeleton
    }

    /// The job has been added to since.
    pub(super) fn renew(&mut self, job: &Job) {
        self.skeleton = Skeleton::from(job);
    }

    /// What is known of the sample if there is no answer.
    pub(crate) fn unnamed(&self, failure: Failure) -> Named {
        Named::failed(&self.skeleton, failure)
    }
}

impl Decoder {
    /// A decoder that makes the parts of the record that `options` ask for.
    pub(crate) fn new(options: Options) -> Self {
        let host = host::name();
        let watches_aborts = super::signals(&options).contains(&SIGABRT);
        let mut libcs = if watches_aborts { libcs::known() } else { Libcs::default() };
        // The probe has known them since before it was attached: the plan has them.
        drop(libcs.take_news());
        Self { options, host, libcs }
    }

    /// Files whose messages the kernel program can read from now on, with the address in them.
    pub(crate) fn take_libcs(&mut self) -> Vec<(fl_libc, u64)> {
        self.libcs.take_news()
    }

    /// What the namer is to be asked for a sample. `identify`: describe its group, too.
    ///
    /// # Errors
    /// If the sample has no date: the clocks could not be read.
    pub(super) fn prepare(
        &self,
        raw: &fl_crash,
        modules: Modules,
        stack: StackCopy,
        identify: bool,
    ) -> Result<(UnnamedFacts, Job)> {
        let has_stack = stack != StackCopy::default();
        self.prepare_with(raw, modules, (stack, has_stack), identify)
    }

    /// The same for a sample that came alone.
    ///
    /// # Errors
    /// As [`Decoder::prepare`].
    #[cfg(any(test, fuzzing))]
    pub(crate) fn prepare_alone(
        &self,
        raw: &fl_crash,
        stack: StackCopy,
        identify: bool,
    ) -> Result<(UnnamedFacts, Job)> {
        self.prepare(raw, Modules::of(raw, &[]), stack, identify)
    }

    /// The same for a sample whose stack is that of another one.
    pub(super) fn prepare_other(
        &self,
        raw: &fl_crash,
        modules: Modules,
        identify: bool,
    ) -> Result<(UnnamedFacts, Job)> {
        self.prepare_with(raw, modules, (StackCopy::default(), true), identify)
    }

    fn prepare_with(
        &self,
        raw: &fl_crash,
        modules: Modules,
        (stack, has_stack): (StackCopy, bool),
        identify: bool,
    ) -> Result<(UnnamedFacts, Job)> {
        let timestamp = Timestamp::from_boottime(raw.timestamp_ns)?;
        let depth = self.depth();
        let has = |flag: fl_crash_flag| raw.flags.0 & flag.0 != 0;
        let is_compat = has(fl_crash_flag::FL_IS_COMPAT);
        let can_unwind = has(fl_crash_flag::FL_HAS_REGISTERS) && (!is_compat || arch::compat::ELF_MACHINE.is_some());
        let innermost = innermost_words(raw, &stack);
        let wholes = wholes(raw, &stack);
        let mut job = Job {
            opening: Opening {
                process: Holder { pid: raw.pid, tid: raw.tid, parent: raw.ppid, mount_namespace: raw.mount_namespace },
                taken_ns: timestamp.unix_ns(),
                files: modules.requests(),
                perf_map: Some(PerfMap {
                    pid_in_namespace: raw.pid_in_namespace,
                    uid: raw.uid,
                    started_ns: Timestamp::from_boottime(raw.thread_start_ns)?.unix_ns(),
                }),
            },
            mappings: modules.mappings(),
            walk: Walk {
                frames: by_frame_pointer(raw, depth),
                complete: has(fl_crash_flag::FL_FRAMES_ENDED) && raw.frames().len() <= depth,
                ..Walk::default()
            },
            unwind: (can_unwind && has_stack).then(|| {
                let registers = Registers::from(raw.registers);
                let is_return_next = arch::is_caller_at_hand(&registers, code_of(raw));
                Unwind { registers: arch::unwind::registers(&registers), is_compat, is_return_next, stack }
            }),
            ending: None,
            depth,
            // Not twice, because symbols take long.
            more: {
                let group = identify && depth < GROUP_FRAMES;
                let group = if group { by_frame_pointer(raw, GROUP_FRAMES) } else { Vec::new() };
                group.into_iter().chain(callee(raw)).chain(go_callers(raw)).collect()
            },
            variable: self.variable(raw),
            part: part(raw),
            wants_handling: abort_message::may_be_abort(raw),
            wants_halt: abort_message::has_halted(raw),
            is_anew: false,
        };
        job.more.extend(earlier_place(raw));
        // Now, because it looks for a living process.
        let sender = sender::of(raw);
        let is_disk_full = disk(raw).and_then(space::is_full);
        let skeleton = Skeleton::from(&job);
        let facts =
            UnnamedFacts { timestamp, sender, is_disk_full, identify, stack: innermost, wholes, modules, skeleton };
        Ok((facts, job))
    }

    /// The facts of one sample, as the namer has completed them.
    pub(crate) fn gather(&mut self, raw: &fl_crash, prepared: UnnamedFacts, named: Named) -> CrashFacts {
        let mut described = named.described;
        // In the order in which they were added to the job, from the last one on.
        let earlier_functions = earlier_place(raw).and_then(|_| described.more.pop());
        let go_callers = described.more.split_off(described.more.len().saturating_sub(go_callers(raw).count()));
        let callee = callee(raw).and_then(|_| described.more.pop()?.ok()).unwrap_or_default();
        let known = prepared.modules.described(|number| named.files.get(number)?.build_id.as_deref());
        let exe = known.file(raw.exe).cloned();
        let (signature, family) = identify(raw, &known, exe.as_ref(), &described.trail);
        let walk = described.walk;
        let mut functions = described.functions.into_iter();
        let (inner, outer) = walk.frames.split_at(walk.omitted_at.min(walk.frames.len()));
        let mut handling = described.handling.into_iter();
        let mut framer = Framer::new(raw, &known);
        for (file, named) in known.files.iter().zip(&named.files) {
            // Lines may be missing, too, and what is not in the stack may belong to it.
            named.failure.into_iter().for_each(|reason| framer.fail(SymbolsFailed { module: file.name(), reason }));
        }
        let mut frames = framer.frames(inner, (&mut functions, &mut handling));
        let stack_omitted = (walk.omitted > 0).then_some(Omitted { count: walk.omitted, before: frames.len() });
        frames.extend(framer.frames(outer, (&mut functions, &mut handling)));
        let abort_message = self.abort_message(raw, &known, described.variable);
        let mut only = |walk: &[unwind::Frame], functions: Vec<Functions>| {
            framer.frames(walk, (&mut functions.into_iter(), &mut std::iter::empty()))
        };
        let earlier = only(earlier_place(raw).as_slice(), earlier_functions.into_iter().collect());
        let ending = only(&named.ending, named.ending_functions);
        let group_frames = prepared.identify.then(|| match self.depth() >= GROUP_FRAMES {
            true => innermost(&frames, GROUP_FRAMES),
            false => {
                let walk = by_frame_pointer(raw, GROUP_FRAMES);
                // Not those of the record.
                Framer::new(raw, &known).frames(&walk, (&mut described.more.into_iter(), &mut std::iter::empty()))
            }
        });
        let runtime_message = message::of(raw, &frames, &prepared.stack, &go_callers);
        let evidence = diagnosis::without_older_message(Evidence {
            callee: callee.into_iter().next_back().map(|function| function.name),
            part: described.part,
            halt: described.halt,
            has_exception: runtime_message.as_ref().is_some_and(|message| message.runtime == cxx::RUNTIME),
            is_disk_full: prepared.is_disk_full,
            is_unwindable: walk.complete && !walk.used_frame_pointer && walk.used_eh_frame,
            frame_bytes: walk.frame_bytes,
            is_frame_sized: walk.is_frame_sized,
            is_call_last: walk.is_call_last || !arch::LINK_OUTLIVES_CALL,
            wholes: prepared.wholes,
            ..Evidence::of(raw, &known.files, frames, abort_message)
        });
        let identity = group_frames.map(|frames| Identity {
            signature: signature.clone(),
            family: family.clone(),
            exe: exe.as_ref().and_then(File::name),
            build_id: exe.as_ref().and_then(|exe| exe.build_id.clone()),
            abort_message: evidence.abort_message.clone(),
            diagnosis: diagnosis::diagnose(&evidence),
            frames: frames.iter().map(|frame| Frame { address: None, ..Frame::from(frame) }).collect(),
        });
        CrashFacts {
            timestamp: prepared.timestamp,
            runtime_message,
            failed: framer.failed,
            evidence,
            sender: prepared.sender,
            exe,
            cgroup: cgroup(raw),
            signature,
            family,
            stack_complete: walk.complete,
            stack_omitted,
            unwinder: if walk.used_eh_frame { "eh_frame" } else { "frame_pointer" },
            ending,
            earlier,
            identity,
        }
    }

    /// The evidence of a sample that nobody has named yet.
    pub(super) fn unnamed(&self, raw: &fl_crash, modules: &Modules) -> Evidence {
        let known = modules.described(|_| None);
        let walk = by_frame_pointer(raw, self.depth());
        let frames = Framer::new(raw, &known).frames(&walk, (&mut std::iter::empty(), &mut std::iter::empty()));
        Evidence::of(raw, &known.files, frames, None)
    }

    /// The same of a sample that came alone.
    #[cfg(any(test, fuzzing))]
    pub(crate) fn unnamed_alone(&self, raw: &fl_crash) -> Evidence {
        self.unnamed(raw, &Modules::of(raw, &[]))
    }

    fn depth(&self) -> usize {
        if self.options.stack_trace { self.options.max_stack_depth as usize } else { GROUP_FRAMES }
    }

    /// The variable of libc whose address is wanted, with the number of its file.
    fn variable(&self, raw: &fl_crash) -> Option<(usize, Vec<u8>)> {
        let address = raw.frames().first().filter(|_| abort_message::may_be_abort(raw))?;
        let number = raw.module(*address, false)?.file.checked_sub(1)? as usize;
        let file = raw.files.get(number)?;
        let name = self.libcs.wanted(file, build_id_in_memory(file).map(digits).as_deref())?;
        Some((number, name.to_vec()))
    }

    /// What libc said before it aborted.
    fn abort_message(&mut self, raw: &fl_crash, known: &KnownModules<'_>, address: Option<u64>) -> Option<String> {
        let innermost = raw.frames().first().filter(|_| abort_message::may_be_abort(raw))?;
        let number = raw.module(*innermost, false)?.file;
        let file = raw.files.get(number.checked_sub(1)? as usize)?;
        self.libcs.message(raw, file, known.file(number)?.build_id.as_deref(), address)
    }
}

/// The signature and the family of a sample. If another process sent the signal, it matters what was killed, not where it was.
fn identify(raw: &fl_crash, known: &KnownModules<'_>, exe: Option<&File>, trail: &Trail) -> (String, Option<String>) {
    let has = |flag: fl_crash_flag| raw.flags.0 & flag.0 != 0;
    let signal = signal_name(raw.signal);
    let is_fault = has(fl_crash_flag::FL_HAS_CODE) && !has(fl_crash_flag::FL_IS_FORGED);
    let trap_nr = has(fl_crash_flag::FL_HAS_TRAP).then_some(raw.trap_nr);
    let fault = if is_fault { fault_type(raw.signal, raw.si_code, trap_nr) } else { None };
    let kind = Kind { signal: &signal, fault };
    let text = |file: &File| identity::file_text(file.build_id.as_deref(), file.path.as_deref());
    let executable = exe.and_then(text);
    if !has(fl_crash_flag::FL_PLACE_COUNTS) {
        return (identity::signature(kind, false, executable.as_deref(), &[], None), None);
    }
    let (places, spot) = trail.places(kind, |number| text(known.files.get(number)?));
    let signature = identity::signature(kind, trail.is_jump, executable.as_deref(), &places, spot);
    (signature, identity::family(kind, trail))
}

/// The frames of the `count` innermost addresses, each with its inlined functions before it.
fn innermost(frames: &[evidence::Frame], count: usize) -> Vec<evidence::Frame> {
    let is_whole = |frame: &evidence::Frame| frame.function.as_ref().is_none_or(|function| !function.inlined);
    let end = frames.iter().enumerate().filter(|(_, frame)| is_whole(frame)).map(|(index, _)| index + 1).nth(count - 1);
    frames[..end.unwrap_or(frames.len())].to_vec()
}
