//! What debuginfod's client has fetched: BUILDID/debuginfo, BUILDID/executable.

use std::fs::File;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};

use rustix::fs::ResolveFlags;

use crate::debuginfod::Kind;
use crate::hex::digits;
use crate::symbol::{look, look_below, reopen};

/// The folder; `None` means that nothing of it is wanted.
pub(super) struct Fetched(pub(super) Option<PathBuf>);

impl Fetched {
    /// The file, if it has been fetched. The client has seen that the folder is ours.
    pub(super) fn open(&self, build_id: &[u8], kind: Kind) -> Option<File> {
        let folder = look(self.0.as_deref()?)?;
        let path = Path::new(&digits(build_id)).join(kind.word());
        let resolve = ResolveFlags::BENEATH | ResolveFlags::NO_SYMLINKS;
        let (file, metadata) = reopen(&look_below(&folder, &path, resolve)?)?;
        let own = nix::unistd::geteuid().as_raw();
        // An empty one says that no server has it.
        let is_it = [0, own].contains(&metadata.uid()) && metadata.mode() & 0o022 == 0 && metadata.size() > 0;
        is_it.then_some(file)
    }
}
