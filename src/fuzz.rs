//! What the fuzzers of `fuzz/` call: each of these takes any bytes, as a dying process or a damaged file might give them, and
//! comes back. Not part of the library.

use std::cell::RefCell;
use std::fs::File;
use std::rc::Rc;

use nix::sys::memfd::{MFdFlags, memfd_create};

use crate::crash::{self, Decoder, Proved};
use crate::evidence::FileId;
use crate::naming::{self, Opener, Skeleton, Worker};
use crate::options::Common;
use crate::output::{Record, fuzz_server};
use crate::probe::Attach;
use crate::probe::abi::{Sample, fl_crash};
use crate::probe::crash::{Budget, GroupTable};
use crate::symbol::unwind::StackCopy;
use crate::symbol::{FileRequest, Holder, Opening, Usage};
use crate::{arch, process, report, symbol};

pub use report::fuzz as report;
pub use symbol::unwind::fuzz as unwind;

/// A file that anybody may have made: the parts that are read before its symbols.
pub fn elf(data: &[u8]) {
    let Ok(memory) = memfd_create(c"fuzz", MFdFlags::MFD_CLOEXEC) else { return };
    let file = File::from(memory);
    if std::os::unix::fs::FileExt::write_all_at(&file, data, 0).is_ok() {
        symbol::fuzz(&file, data);
    }
}

/// What a peer sends to the server of the metrics.
pub fn http(data: &[u8]) {
    fuzz_server(data);
}

/// A mangled name.
pub fn name(data: &[u8]) {
    symbol::demangled(&String::from_utf8_lossy(data));
}

/// The path of a cgroup.
pub fn container(data: &[u8]) {
    process::container_id(&String::from_utf8_lossy(data));
}

/// A sample from the ring, as the decoder gets it, after its length in 2 bytes; behind it what is on the stack.
pub fn record(data: &[u8]) {
    thread_local! {
        static DECODER: RefCell<Decoder> = RefCell::new(Decoder::new(options()));
        static NAMER: RefCell<(Worker, Opener)> = RefCell::new((Worker::new(Rc::new(|_| ())), Opener::new(Vec::new())));
    }
    let Some((length, data)) = data.split_first_chunk() else { return };
    let (sample, stack) = data.split_at(data.len().min(u16::from_le_bytes(*length).into()));
    // Its end is not sent; what is cut before that is none, but the fuzzer need not find the length.
    let _ = Sample::from_bytes(sample);
    let mut whole = sample.to_vec();
    whole.resize(size_of::<fl_crash>(), 0);
    let Some(Sample::Crash(crash)) = Sample::from_bytes(&whole) else { return };
    // Memory below the stack pointer is unused.
    let stack = StackCopy::new(vec![(arch::stack_pointer(&crash.registers.into()), stack.to_vec())]);
    DECODER.with_borrow_mut(|decoder| {
        decoder.unnamed_alone(&crash);
        if let Ok((prepared, job)) = decoder.prepare_alone(&crash, stack, true) {
            let named = NAMER.with_borrow_mut(|(worker, opener)| {
                opener.begin(job.opening.clone());
                worker.name(&job, opener)
            });
            assert!(named.fits(&Skeleton::from(&job)));
            let found = decoder.gather(&crash, prepared, named);
            let record = decoder.record(&crash, &Proved::default(), found, None);
            let _ = (serde_json::to_string(&record), record.text());
        }
    });
}

/// What a namer that has been taken over answers: a message after its length in 2 bytes, and behind it the sample that it is about.
pub fn naming(data: &[u8]) {
    let Some((length, data)) = data.split_first_chunk() else { return };
    let (message, sample) = data.split_at(data.len().min(u16::from_le_bytes(*length).into()));
    answered(message, sample);
}

/// Whether there is a record with what the answer says.
fn answered(message: &[u8], sample: &[u8]) -> Option<()> {
    let named = naming::answered(message)?;
    let mut whole = sample.to_vec();
    whole.resize(size_of::<fl_crash>(), 0);
    let Some(Sample::Crash(crash)) = Sample::from_bytes(&whole) else { return None };
    let mut decoder = Decoder::new(options());
    let (prepared, job) = decoder.prepare_alone(&crash, StackCopy::default(), true).ok()?;
    if !named.fits(&Skeleton::from(&job)) {
        return None;
    }
    let found = decoder.gather(&crash, prepared, named);
    let record = decoder.record(&crash, &Proved::default(), found, None);
    let _ = (serde_json::to_string(&record), record.text());
    Some(())
}

/// What a namer that has been taken over asks the opener for, which has privileges: two messages, the first after its length in 1 byte. The
/// record's only file is this program.
pub fn request(data: &[u8]) {
    thread_local! {
        static OPENER: RefCell<Opener> = RefCell::new(Opener::new(vec!["/proc/self".into()]));
    }
    let Some((&length, data)) = data.split_first() else { return };
    let (first, second) = data.split_at(data.len().min(length.into()));
    OPENER.with_borrow_mut(|opener| {
        opener.begin(own_program());
        [first, second].map(|message| naming::passed(opener, message))
    });
}

fn own_program() -> Opening {
    let own = std::env::current_exe().ok();
    let status = own.as_ref().and_then(|path| std::fs::metadata(path).ok());
    let id = status.map(|status| FileId::of(&status));
    let pid = std::process::id();
    Opening {
        process: Holder { pid, tid: pid, parent: pid, mount_namespace: 1 },
        taken_ns: i128::MAX,
        files: vec![FileRequest {
            path: own.map(|path| path.into_os_string().into_encoded_bytes()),
            build_id: None,
            id: id.unwrap_or(FileId { inode: 1, device: 1 }),
            is_deleted: false,
            usage: Usage::Code { mapped: None, is_executable: true },
            refused: None,
        }],
        perf_map: None,
    }
}

pub(crate) fn options() -> crash::Options {
    crash::Options {
        common: Common::default(),
        signals: Vec::new(),
        handled: true,
        registers: true,
        stack_trace: true,
        max_stack_depth: 127,
        stack_bytes: 65_536,
        summary: None,
        table: GroupTable { groups: 1, stacks: 1 },
        samples: Budget { first: None, interval: std::time::Duration::ZERO, rate: None },
        attach: Attach::Auto,
        debug_dirs: Vec::new(),
        debuginfod: false,
    }
}

#[cfg(test)]
mod seeds;
#[cfg(test)]
mod tests;
