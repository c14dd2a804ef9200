//! The files that a process ran, as the kernel has described them, and how to come by them: by somebody else, because what parses them
//! may open none.

use std::fs::File;

use serde::{Deserialize, Serialize};

use crate::evidence::{Failure, FileId};

/// The files of one record.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub(crate) struct Opening {
    /// The process that ran them.
    pub process: Holder,
    /// When the record was taken, nanoseconds since 1970: a file that was changed later is another one.
    pub taken_ns: i128,
    /// Each file.
    pub files: Vec<FileRequest>,
    /// The map of generated code that the process may have written. `None` means that it isn't wanted.
    pub perf_map: Option<PerfMap>,
}

/// The map of the code that a process has generated, as perf wants it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct PerfMap {
    /// The process in its own pid namespace: it is part of the file's name.
    pub pid_in_namespace: u32,
    /// The process's user, as the host numbers it: the file must be that user's.
    pub uid: u32,
    /// When the thread that crashed began, nanoseconds since 1970: not before its process.
    pub started_ns: i128,
}

/// A file to be found.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub(crate) struct FileRequest {
    /// Absolute, up to the root of the process's mount namespace. `None` means that it isn't known whole.
    pub path: Option<Vec<u8>>,
    /// The build id in the process's memory when it crashed; `None` means that it could not be read.
    pub build_id: Option<Vec<u8>>,
    /// Which one it is.
    pub id: FileId,
    /// Was the file unlinked when the record was taken?
    pub is_deleted: bool,
    /// How the process used it.
    pub usage: Usage,
    /// Why it must not be looked for. `None` means that it may be.
    pub refused: Option<Failure>,
}

/// A process that had a file. It may be gone.
#[derive(Clone, Copy, Debug, Serialize, Deserialize)]
pub(crate) struct Holder {
    /// The process.
    pub pid: u32,
    /// Its thread that crashed, which has files and memory even if the first thread has ended.
    pub tid: u32,
    /// Its parent.
    pub parent: u32,
    /// The inode of its mount namespace.
    pub mount_namespace: u32,
}

/// How a process used a file.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) enum Usage {
    /// It ran code of the file.
    Code {
        /// The first address of the code and the one behind it.
        mapped: Option<(u64, u64)>,
        /// It is the program, not a library.
        is_executable: bool,
    },
    /// The process didn't run code of the file, so that its symbols are not needed: it is looked for at its path only.
    Data,
    /// A record of it is all there is, which may be of another machine: it is whatever has the build id.
    Recorded,
}

/// Opens the files of one record, which have numbers from 0 on.
pub(crate) trait Open {
    /// The file that the process had mapped. `Ok(None)` means that nothing leads to it any more.
    ///
    /// # Errors
    /// Why it is not to be had.
    fn mapped(&mut self, number: usize) -> Result<Option<File>, Failure>;

    /// Files that may be the debug file of one that has this build id, and `link` in its `.gnu_debuglink`.
    fn debug(&mut self, number: usize, build_id: &[u8], link: Option<&[u8]>) -> Vec<File>;

    /// What belongs to the file's debug information and lies at this absolute path of the process's, or packed beside the file. It may be any file
    /// of the file's owner, or what root lets everybody read.
    fn split(&mut self, _number: usize, _path: Option<&[u8]>) -> Option<File> {
        None
    }

    /// Files that may have this build id, if the file that ran is gone; else its debug file.
    fn by_build_id(&mut self, number: usize, build_id: &[u8]) -> Vec<File> {
        self.debug(number, build_id, None)
    }

    /// The map of generated code of the process. `None` means that there is none that is surely its own.
    fn perf_map(&mut self) -> Option<File> {
        None
    }
}
