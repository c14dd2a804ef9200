//! Looks at the code around an instruction that only the kernel may execute: a C library may have come to it.

use super::elf::{Headers, Segment, Source};
use super::file::MappedFile;
use crate::arch::halt;
use crate::evidence::Halt;

/// So many checks stand close together in musl's malloc and nowhere else in it: two at most in its other functions.
const CHECKS_LEAST: usize = 4;

impl MappedFile {
    /// What stands around the instruction at `offset`. `caller`: the offset of the return address on top of the stack. `None` means that it is no
    /// ELF file of this machine, or that it is gone.
    pub(crate) fn halt(&self, offset: u64, caller: Option<u64>) -> Option<Halt> {
        let file = self.file.as_deref()?;
        let source = Source::File(file);
        let headers = Headers::read(&source)?;
        let code = headers.code();
        let segment = code.iter().find(|segment| segment.offset.contains(&offset))?;
        let read = |start: u64, end: u64| {
            let start = start.max(segment.offset.start);
            source.read(start, end.min(segment.offset.end).checked_sub(start)?)
        };
        let begin = offset.saturating_sub(halt::CHECKS_BYTES).max(segment.offset.start);
        let around = read(begin, offset.saturating_add(halt::CHECKS_BYTES))?;
        let before = caller.and_then(|caller| read(caller.saturating_sub(halt::STACK_CHECK_BYTES), caller));
        let distance = caller.map_or(0, |caller| offset.wrapping_sub(caller) as i64);
        let found = Halt {
            is_static: !headers.has_interpreter(),
            begins_as_musl: start(&source, &headers, &code).is_some_and(|start| halt::is_musls_start(&start)),
            is_among_checks: halt::checks(&around, (offset - begin) as usize) >= CHECKS_LEAST,
            reads_block_headers: halt::reads_block_headers(&around),
            is_behind_stack_check: before.is_some_and(|before| halt::is_stack_check(&before, distance)),
        };
        self.version.is_of(file).then_some(found)
    }
}

/// The code that the program begins with.
fn start(source: &Source<'_>, headers: &Headers, code: &[Segment]) -> Option<Vec<u8>> {
    let entry = headers.entry();
    let segment = code.iter().find(|segment| segment.address.contains(&entry))?;
    let offset = (entry - segment.address.start).checked_add(segment.offset.start)?;
    source.read(offset, halt::START_BYTES)
}

#[cfg(test)]
mod tests {
    use std::path::Path;

    use super::*;

    #[test]
    fn a_program_of_this_machine_is_not_musls() {
        let own = MappedFile::at(Path::new("/proc/self/exe")).unwrap();
        let headers = Headers::read(&Source::File(own.file.as_deref().unwrap())).unwrap();
        let begin = headers.code()[0].offset.start;
        let found = own.halt(begin, Some(begin + 100)).unwrap();
        assert!(!found.is_among_checks && !found.is_behind_stack_check);
        assert_eq!(found.is_static, cfg!(target_feature = "crt-static"));
        assert_eq!(own.halt(u64::MAX, None), None, "no code");
        assert_eq!(MappedFile::at(Path::new("/etc/passwd")).unwrap().halt(0, None), None);
    }
}
