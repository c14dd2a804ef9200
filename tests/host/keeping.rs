//! What an agent's keeper watches, and the copies that it has made.

use std::fs;
use std::path::PathBuf;

use crate::harness::try_child;

/// Does the keeper of this agent watch these inodes?
pub(crate) fn are_watched(agent: u32, inodes: &[u64]) -> bool {
    let Some(keeper) = try_child(agent, "fl-keeper") else { return false };
    let infos = fs::read_dir(format!("/proc/{keeper}/fdinfo")).into_iter().flatten();
    let infos: String = infos.filter_map(|entry| fs::read_to_string(entry.ok()?.path()).ok()).collect();
    inodes.iter().all(|inode| infos.contains(&format!(" ino:{inode:x} ")))
}

/// The files in memory that an agent has open.
fn in_memory(agent: u32) -> impl Iterator<Item = PathBuf> {
    let open = fs::read_dir(format!("/proc/{agent}/fd")).unwrap();
    let is_one = |path: &PathBuf| fs::read_link(path).is_ok_and(|name| name.to_string_lossy().starts_with("/memfd:"));
    open.filter_map(|entry| Some(entry.ok()?.path())).filter(is_one)
}

/// How many copies an agent has of files with this content.
pub(crate) fn copies(agent: u32, content: &[u8]) -> usize {
    let is_one = |path: &PathBuf| {
        // Others may be large.
        let is_as_long = fs::metadata(path).is_ok_and(|found| found.len() == content.len() as u64);
        is_as_long && fs::read(path).is_ok_and(|found| found == content)
    };
    in_memory(agent).filter(is_one).count()
}

/// How many bytes there are in all copies.
#[allow(dead_code)] // the attacks use it
pub(crate) fn copied_bytes(agent: u32) -> u64 {
    in_memory(agent).filter_map(|path| Some(fs::metadata(path).ok()?.len())).sum()
}
