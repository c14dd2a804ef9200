//! What the fuzzers of `fuzz/` call: each of these takes any bytes, as a dying process or a damaged file might give them, and
//! comes back. Not part of the library.

use std::cell::RefCell;
use std::fs::File;
use std::rc::Rc;

use nix::sys::memfd::{MFdFlags, memfd_create};

use crate::crash::{self, Decoder};
use crate::naming::{self, Named, Opener, Skeleton, Worker};
use crate::options::Common;
use crate::output::{Record, fuzz_server};
use crate::probe::Attach;
use crate::probe::abi::{Sample, fl_crash};
use crate::probe::crash::{Budget, GroupTable};
use crate::symbol::unwind::StackCopy;
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
        decoder.unnamed(&crash);
        if let Ok((prepared, job)) = decoder.prepare(&crash, stack, true) {
            let named = NAMER.with_borrow_mut(|(worker, opener)| {
                opener.begin(job.opening.clone());
                worker.name(&job, opener)
            });
            assert!(named.fits(&Skeleton::from(&job)));
            let found = decoder.gather(&crash, prepared, named);
            let record = decoder.record(&crash, found, None);
            let _ = (serde_json::to_string(&record), record.text());
        }
    });
}

/// What a namer that has been taken over sends: a message, and behind it the sample that it is about.
pub fn naming(data: &[u8]) {
    let Some((length, data)) = data.split_first_chunk() else { return };
    let (message, sample) = data.split_at(data.len().min(u16::from_le_bytes(*length).into()));
    let Ok(named) = naming::decode::<Named>(message) else { return };
    let mut whole = sample.to_vec();
    whole.resize(size_of::<fl_crash>(), 0);
    let Some(Sample::Crash(crash)) = Sample::from_bytes(&whole) else { return };
    let mut decoder = Decoder::new(options());
    let Ok((prepared, job)) = decoder.prepare(&crash, StackCopy::default(), true) else { return };
    if named.fits(&Skeleton::from(&job)) {
        let found = decoder.gather(&crash, prepared, named);
        let record = decoder.record(&crash, found, None);
        let _ = (serde_json::to_string(&record), record.text());
    }
}

fn options() -> crash::Options {
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
    }
}

#[cfg(test)]
mod tests {
    use std::fs;
    use std::path::Path;

    /// Each file of the corpus, whole, cut and spoiled: what a fuzzer has found once stays found.
    fn check(name: &str, target: impl Fn(&[u8])) {
        let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("fuzz/corpus").join(name);
        let mut files = 0;
        for entry in fs::read_dir(folder).unwrap() {
            let mut data = fs::read(entry.unwrap().path()).unwrap();
            target(&data);
            target(&data[..data.len() / 2]);
            let (length, mut state) = (data.len(), 88_172_645_463_325_252_u64);
            for _ in 0..50 {
                // Xorshift: the same in each run.
                state ^= state << 13;
                state ^= state >> 7;
                state ^= state << 17;
                if let Some(byte) = data.get_mut(state as usize % length.max(1)) {
                    *byte = (state >> 32) as u8;
                }
                target(&data);
            }
            files += 1;
        }
        assert!(files > 0, "no corpus for {name}");
    }

    #[test]
    fn the_corpus_is_harmless() {
        check("elf", super::elf);
        check("unwind", super::unwind);
        check("record", super::record);
        check("container", super::container);
        check("name", super::name);
        check("report", super::report);
        check("http", super::http);
    }
}
