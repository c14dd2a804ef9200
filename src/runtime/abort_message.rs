//! The message of glibc before an abort (`free(): double free detected in tcache 2`): in which files the kernel program knows its address,
//! and whether the message that it found is to be believed.
//!
//! The libc that we run with is known from the start, or where we run with none, the host's (`src/crash/libcs.rs`). Any other is known after
//! the first process that aborted with it, whose own message is not seen.

use std::collections::HashMap;
use std::path::Path;

use crate::arch;
use crate::evidence::FileId;
use crate::hex::digits;
use crate::probe::abi::{fl_crash, fl_file, fl_libc, fl_own_limit};
use crate::siginfo::{SI_KERNEL, SIGABRT, SIGSEGV};
use crate::symbol::Variable;
use crate::text;

/// glibc's own name of the variable, GLIBC_PRIVATE: assert/assert.c, sysdeps/posix/libc_fatal.c.
pub(crate) const VARIABLE: &[u8] = b"__abort_msg";

/// So many files are known, and no more.
const MAX: usize = fl_own_limit::FL_LIMIT_LIBCS.0 as usize;

/// The files that have been looked into.
#[derive(Clone, Default)]
pub(crate) struct Libcs {
    /// By inode and device: the build id. Inodes are given to new files, build ids aren't.
    known: HashMap<(u64, u32), String>,
    /// The files that the kernel program doesn't know yet.
    news: Vec<(fl_libc, u64)>,
}

/// May the process in `raw` have called abort()? Where SIGABRT doesn't end it (process 1 of a pid namespace), abort() halts, which is a fault.
pub(crate) fn may_be_abort(raw: &fl_crash) -> bool {
    raw.signal == SIGABRT || has_halted(raw)
}

/// Has the process in `raw` executed the instruction that abort() halts by, and other checks of a C library?
pub(crate) fn has_halted(raw: &fl_crash) -> bool {
    let code = raw.code.get(..raw.code_length as usize).unwrap_or_default();
    raw.signal == SIGSEGV && raw.si_code == SI_KERNEL && arch::is_aborts_halt(code)
}

/// Is glibc installed under such a name?
pub(crate) fn is_named_libc(path: &Path) -> bool {
    path.file_name().and_then(|name| name.to_str()).is_some_and(|name| name.starts_with("libc.so"))
}

impl Libcs {
    /// With our own libc. `None` means that we run with none, or that it is not to be seen.
    pub(crate) fn with_own() -> Option<Self> {
        let maps = procfs::process::Process::myself().and_then(|me| me.maps()).ok()?;
        let path = maps.0.into_iter().find_map(|map| match map.pathname {
            procfs::process::MMapPath::Path(path) if is_named_libc(&path) => Some(path),
            _ => None,
        })?;
        let variable = Variable::of(&path, VARIABLE)?;
        let mut all = Self::default();
        all.learn(variable.inode, variable.device, digits(&variable.build_id), variable.address);
        Some(all)
    }

    /// Adds a file that was looked into for this.
    pub(crate) fn add(&mut self, id: FileId, build_id: &[u8], address: u64) {
        if let Ok(device) = u32::try_from(id.device) {
            self.learn(id.inode, device, digits(build_id), address);
        }
    }

    /// Has the file been looked into?
    pub(crate) fn has(&self, id: FileId) -> bool {
        u32::try_from(id.device).is_ok_and(|device| self.known.contains_key(&(id.inode, device)))
    }

    /// Takes the files that the kernel program doesn't know yet, with the addresses of their variables.
    pub(crate) fn take_news(&mut self) -> Vec<(fl_libc, u64)> {
        std::mem::take(&mut self.news)
    }

    /// The name of the variable whose address is to be learnt of `file`, whose build id is `build_id` as far as it is known. `None` means that
    /// it is known.
    pub(crate) fn wanted(&self, file: &fl_file, build_id: Option<&str>) -> Option<&'static [u8]> {
        let known = self.known.get(&(file.inode, file.device));
        (known.is_none() || known.map(String::as_str) != build_id).then_some(VARIABLE)
    }

    /// The message in `raw`, of a process that died in the code of `file`, with `build_id` and the variable at `address`, as far as they are
    /// known. `None` means that there was no message, or that the file wasn't known.
    pub(crate) fn message(
        &mut self,
        raw: &fl_crash,
        file: &fl_file,
        build_id: Option<&str>,
        address: Option<u64>,
    ) -> Option<String> {
        let build_id = build_id?;
        if self.known.get(&(file.inode, file.device)).is_none_or(|known| known != build_id) {
            if let Some(address) = address {
                self.learn(file.inode, file.device, build_id.to_owned(), address);
            }
            return None;
        }
        let end = raw.abort_message_offset.checked_add(raw.abort_message_length)?;
        let bytes = raw.strings.get(raw.abort_message_offset as usize..end as usize)?;
        let text = text::name(bytes);
        Some(text.trim_end_matches('\n').to_owned()).filter(|text| !text.is_empty())
    }

    fn learn(&mut self, inode: u64, device: u32, build_id: String, address: u64) {
        if self.known.len() < MAX || self.known.contains_key(&(inode, device)) {
            self.known.insert((inode, device), build_id);
            self.news.push((fl_libc { inode, device, ..fl_libc::default() }, address));
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn dead(text: &str) -> fl_crash {
        let mut raw =
            fl_crash { abort_message_offset: 3, abort_message_length: text.len() as u32 + 1, ..fl_crash::default() };
        for (to, from) in raw.strings[3..].iter_mut().zip(text.bytes()) {
            *to = from as _;
        }
        raw
    }

    #[test]
    fn a_message_is_believed_of_the_file_that_was_looked_into() {
        let mut libcs = Libcs::default();
        libcs.learn(7, 9, "01".to_owned(), 0x1000);
        let file = fl_file { inode: 7, device: 9, ..fl_file::default() };
        let raw = dead("double free\n");
        assert_eq!(libcs.message(&raw, &file, Some("01"), None).as_deref(), Some("double free"));
        assert_eq!(libcs.message(&raw, &file, Some("02"), None), None, "the number was given to another file");
        assert_eq!(libcs.message(&raw, &file, None, None), None);
        assert_eq!(libcs.message(&dead(""), &file, Some("01"), None), None, "it said nothing");
        assert_eq!(libcs.wanted(&file, Some("01")), None);
        assert!(libcs.wanted(&file, Some("02")).is_some() && libcs.wanted(&file, None).is_some());
    }

    #[test]
    fn an_abort_may_halt() {
        let died = |signal, si_code, code| {
            let mut raw = fl_crash { signal, si_code, code_length: 1, ..fl_crash::default() };
            raw.code[0] = code;
            may_be_abort(&raw)
        };
        assert!(died(SIGABRT, -6, 0) && !died(SIGSEGV, 1, 0xf4));
        assert!(!died(SIGSEGV, SI_KERNEL, 0xfa), "another instruction that only the kernel may execute");
        assert_eq!(died(SIGSEGV, SI_KERNEL, 0xf4), arch::is_aborts_halt(&[0xf4]));
    }

    #[test]
    fn our_own_libc_is_known() {
        let mut libcs = Libcs::with_own().unwrap();
        assert_eq!(libcs.take_news().len(), 1);
        assert!(libcs.take_news().is_empty());
    }
}
