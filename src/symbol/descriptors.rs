//! Our own descriptors as files that blazesym can open by a name.

use std::fs::File;
use std::os::fd::AsRawFd;
use std::path::Path;
use std::sync::OnceLock;

/// Where our own descriptors have names. Not set means that it is the usual folder.
static DESCRIPTORS: OnceLock<&'static Path> = OnceLock::new();

/// From now on our own descriptors have their names in `folder`, and nowhere else.
pub(crate) fn open_descriptors_in(folder: &'static Path) {
    // Only the first one counts.
    let _ = DESCRIPTORS.set(folder);
}

/// The folder with a name for each descriptor of ours.
pub(super) fn descriptors() -> &'static Path {
    DESCRIPTORS.get().copied().unwrap_or(Path::new("/proc/self/fd"))
}

/// The name of a descriptor in their folder.
pub(super) fn descriptor_name(file: &File) -> String {
    file.as_raw_fd().to_string()
}
