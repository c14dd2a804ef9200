//! Names of code that a runtime has generated, from its jitdump: `jit-PID.dump`, which it maps as code so that perf finds it. The layout is
//! that of tools/perf/Documentation/jitdump-specification.txt in Linux.
//!
//! What it says of lines is left out: runtimes differ in the address that they count from, by the header of a file that perf makes of it.
//! As with the map for perf, the process itself says this about its memory.

use std::fs::File;
use std::io::{BufReader, Read, Seek};

use crate::arch::ELF_MACHINE;
use crate::evidence::Function;
use crate::symbol::unwind::Frame;
use crate::symbol::{FileRequest, Usage};
use crate::text::lossy;

/// A longer one is not read: it has all code beside the names, and its end may take back what its beginning says.
const BYTES_MAX: u64 = 256 << 20;

/// The rest of a longer name is cut off.
const NAME_BYTES_MAX: usize = 1024;

/// "JiTD".
const MAGIC: u32 = 0x4a69_5444;
const VERSION: u32 = 1;
const HEADER_BYTES: u64 = 40;

/// Each record begins with its kind, its length, and a time.
const PREFIX_BYTES: u64 = 16;
const CODE_LOAD: u32 = 0;
const CODE_MOVE: u32 = 1;
/// Before the name of a CODE_LOAD: process, thread, three addresses of which the second is where the code is, then its length and number.
const LOAD_BYTES: u64 = 40;
/// A CODE_MOVE: process, thread, an address, where the code was and where it is, its length and number.
const MOVE_BYTES: u64 = 48;

/// Is this the dump of the process with this number in its namespace?
pub(super) fn is_dump(file: &FileRequest, pid: u32) -> bool {
    let name = file.path.as_deref().and_then(|path| path.rsplit(|&byte| byte == b'/').next());
    matches!(file.usage, Usage::Code { .. }) && name == Some(format!("jit-{pid}.dump").as_bytes())
}

/// The function of each of these frames. If several records have an address, the last one is for the code that is there now.
pub(super) fn names(mut dump: &File, frames: &[Frame]) -> Vec<Option<Function>> {
    let mut found = vec![None; frames.len()];
    let length = dump.metadata().map_or(u64::MAX, |metadata| metadata.len());
    if length <= BYTES_MAX && dump.rewind().is_ok() {
        let mut records = Records { left: length, from: BufReader::with_capacity(1 << 18, dump) };
        // What came until it ends, or until what is no record, counts.
        let _ = records.read(frames, &mut found);
    }
    found
}

/// What is left of a dump.
struct Records<From> {
    from: BufReader<From>,
    left: u64,
}

impl<From: Read + Seek> Records<From> {
    fn read(&mut self, frames: &[Frame], found: &mut [Option<Function>]) -> Option<()> {
        let bytes = self.header()?;
        self.skip(bytes.checked_sub(HEADER_BYTES)?)?;
        loop {
            let [kind, bytes] = [self.word()?, self.word()?];
            self.skip(8)?;
            let body = u64::from(bytes).checked_sub(PREFIX_BYTES)?;
            if body > self.left {
                // It was being written.
                return None;
            }
            let behind = self.left - body;
            match kind {
                CODE_LOAD => self.load(body, frames, found)?,
                CODE_MOVE => self.moved(body, frames, found)?,
                _ => {}
            }
            self.skip(self.left.checked_sub(behind)?)?;
        }
    }

    /// How long it is.
    fn header(&mut self) -> Option<u64> {
        let [magic, version, bytes, machine] = [self.word()?, self.word()?, self.word()?, self.word()?];
        self.skip(HEADER_BYTES - 16)?;
        (magic == MAGIC && version == VERSION && machine == u32::from(ELF_MACHINE)).then_some(bytes.into())
    }

    fn load(&mut self, body: u64, frames: &[Frame], found: &mut [Option<Function>]) -> Option<()> {
        let room = body.checked_sub(LOAD_BYTES)?;
        self.skip(16)?;
        let (start, bytes) = (self.long()?, self.long()?);
        self.skip(8)?;
        let mut here = frames.iter().zip(found).filter(|(frame, _)| is_inside(frame, start, bytes)).peekable();
        if here.peek().is_none() {
            return Some(());
        }
        let mut name = vec![0; usize::try_from(room).ok()?.min(NAME_BYTES_MAX)];
        self.fill(&mut name)?;
        let name = name.split(|&byte| byte == 0).next().filter(|name| !name.is_empty())?;
        for (frame, found) in here {
            let offset = Some(frame.address.wrapping_sub(start));
            *found = Some(Function { name: lossy(name), offset, file: None, line: None, inlined: false });
        }
        Some(())
    }

    /// Which function was moved isn't looked for: what is at either place has no name.
    fn moved(&mut self, body: u64, frames: &[Frame], found: &mut [Option<Function>]) -> Option<()> {
        body.checked_sub(MOVE_BYTES)?;
        self.skip(16)?;
        let (old, new, bytes) = (self.long()?, self.long()?, self.long()?);
        for (frame, found) in frames.iter().zip(found) {
            if is_inside(frame, old, bytes) || is_inside(frame, new, bytes) {
                *found = None;
            }
        }
        Some(())
    }

    fn word(&mut self) -> Option<u32> {
        let mut bytes = [0; 4];
        self.fill(&mut bytes)?;
        Some(u32::from_le_bytes(bytes))
    }

    fn long(&mut self) -> Option<u64> {
        let mut bytes = [0; 8];
        self.fill(&mut bytes)?;
        Some(u64::from_le_bytes(bytes))
    }

    fn fill(&mut self, bytes: &mut [u8]) -> Option<()> {
        self.left = self.left.checked_sub(bytes.len() as u64)?;
        self.from.read_exact(bytes).ok()
    }

    fn skip(&mut self, bytes: u64) -> Option<()> {
        self.left = self.left.checked_sub(bytes)?;
        let distance = i64::try_from(bytes).ok()?;
        self.from.seek_relative(distance).ok()
    }
}

fn is_inside(frame: &Frame, start: u64, bytes: u64) -> bool {
    let inside = frame.address.wrapping_sub(u64::from(frame.is_return_address));
    inside.checked_sub(start).is_some_and(|offset| offset < bytes)
}

#[cfg(test)]
mod tests {
    use std::io::Cursor;

    use super::*;
    use crate::evidence::FileId;

    fn header(machine: u16) -> Vec<u8> {
        let words = [MAGIC, VERSION, HEADER_BYTES as u32, machine.into(), 0, 7, 0, 0, 0, 0];
        words.iter().flat_map(|word| word.to_le_bytes()).collect()
    }

    fn record(kind: u32, body: &[u8]) -> Vec<u8> {
        let bytes = PREFIX_BYTES as u32 + body.len() as u32;
        [&kind.to_le_bytes()[..], &bytes.to_le_bytes(), &[0; 8], body].concat()
    }

    fn longs(numbers: &[u64]) -> Vec<u8> {
        numbers.iter().flat_map(|number| number.to_le_bytes()).collect()
    }

    fn load(start: u64, bytes: u64, name: &str) -> Vec<u8> {
        record(CODE_LOAD, &[&longs(&[0, 0, start, bytes, 1])[..], name.as_bytes(), b"\0code"].concat())
    }

    fn named(dump: &[u8], address: u64, is_return_address: bool) -> Option<String> {
        let mut records = Records { left: dump.len() as u64, from: BufReader::new(Cursor::new(dump)) };
        let mut found = [None];
        let _ = records.read(&[Frame { address, is_return_address }], &mut found);
        let [found] = found;
        found.map(|function: Function| function.symbol())
    }

    #[test]
    fn an_address_has_the_name_of_its_record() {
        let other = record(2, &longs(&[0x1000, 0]));
        let dump =
            [header(ELF_MACHINE), load(0x1000, 16, "first"), other, load(0x1010, 32, "a second"), load(0, 0, "no")]
                .concat();
        assert_eq!(named(&dump, 0x1000, false).as_deref(), Some("first+0x0"));
        assert_eq!(named(&dump, 0x1010, false).as_deref(), Some("a second+0x0"));
        assert_eq!(named(&dump, 0x1010, true).as_deref(), Some("first+0x10"), "the call is before it");
        for nowhere in [0xfff, 0x1030, 0, u64::MAX] {
            assert_eq!(named(&dump, nowhere, false), None, "{nowhere:#x}");
        }
        let other = [header(ELF_MACHINE + 1), load(0x1000, 16, "first")].concat();
        assert_eq!(named(&other, 0x1000, false), None, "of another machine");
    }

    #[test]
    fn what_is_there_now_has_the_name() {
        let moved = record(CODE_MOVE, &longs(&[0, 0, 0x1000, 0x1040, 16, 1]));
        let dump = [header(ELF_MACHINE), load(0x1000, 256, "old"), load(0x1010, 16, "new"), moved].concat();
        assert_eq!(named(&dump, 0x1018, false).as_deref(), Some("new+0x8"));
        assert_eq!(named(&dump, 0x1028, false).as_deref(), Some("old+0x28"));
        for (place, name) in [(0x1004, None), (0x1044, None), (0x1054, Some("old+0x54"))] {
            assert_eq!(named(&dump, place, false).as_deref(), name, "{place:#x}");
        }
        let after = [dump, load(0x1040, 16, "later")].concat();
        assert_eq!(named(&after, 0x1044, false).as_deref(), Some("later+0x4"));
    }

    #[test]
    fn a_crafted_dump_does_no_harm() {
        let good = [header(ELF_MACHINE), load(0x1000, 16, "good")].concat();
        for length in 0..good.len() {
            assert_eq!(named(&good[..length], 0x1004, false), None, "cut at {length}");
        }
        let after = |record: &[u8]| named(&[&good[..], record, &load(0x1000, 16, "after")].concat(), 0x1004, false);
        assert_eq!(after(&record(9, &[])).as_deref(), Some("after+0x4"), "of no kind that is known");
        for bytes in [0, 15, u32::MAX] {
            let endless = [&CODE_LOAD.to_le_bytes()[..], &bytes.to_le_bytes(), &[0; 8]].concat();
            assert_eq!(after(&endless).as_deref(), Some("good+0x4"), "{bytes}");
        }
        for short in [record(CODE_LOAD, &[0; 39]), record(CODE_MOVE, &[0; 47]), load(0x1000, 16, "")] {
            assert_eq!(after(&short).as_deref(), Some("good+0x4"));
        }
        let everything = [header(ELF_MACHINE), load(u64::MAX, u64::MAX, "end"), load(0, u64::MAX, &"x".repeat(5000))];
        assert!(named(&everything.concat(), 0x1004, false).unwrap().len() < 1100);
        let mut long = header(ELF_MACHINE);
        long[8..12].copy_from_slice(&u32::MAX.to_le_bytes());
        assert_eq!(named(&[long, load(0x1000, 16, "x")].concat(), 0x1004, false), None);
    }

    #[test]
    fn it_is_the_processs_own_and_mapped_as_code() {
        let code = Usage::Code { mapped: Some((0x1000, 0x2000)), is_executable: false };
        let file = |path: &str, usage| FileRequest {
            path: Some(path.into()),
            build_id: None,
            id: FileId { inode: 1, device: 1 },
            is_deleted: false,
            usage,
            refused: None,
        };
        assert!(is_dump(&file("/home/x/jit-7.dump", code), 7));
        for (path, usage) in [("/x/jit-8.dump", code), ("/x/ajit-7.dump", code), ("/x/jit-7.dump", Usage::Data)] {
            assert!(!is_dump(&file(path, usage), 7), "{path}");
        }
    }
}
