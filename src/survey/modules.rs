//! The files whose names are asked for: one, or those that a process runs code of.

use std::collections::HashSet;
use std::fs;
use std::os::unix::fs::MetadataExt;
use std::path::Path;

use anyhow::{Context, Result, bail};
use procfs::process::{MMPermissions, MMapPath, MemoryMaps, Process, Stat};

use crate::evidence::{DELETED, FileId};
use crate::host;
use crate::symbol::{FileRequest, Holder, Usage};

/// So many files of a process are looked at.
const MODULES_MAX: usize = 1024;

/// A file whose names are asked for.
pub(super) struct Module {
    /// As it is shown.
    pub(super) name: String,
    pub(super) request: FileRequest,
}

/// The files of a target, and who has them.
///
/// # Errors
/// If there is no such file or process, or it can't be looked at.
pub(super) fn modules(target: &str) -> Result<(Holder, Vec<Module>)> {
    match target.parse::<i32>() {
        Ok(pid) => of_process(pid),
        Err(_) => of_file(Path::new(target)),
    }
}

fn of_file(path: &Path) -> Result<(Holder, Vec<Module>)> {
    let path = fs::canonicalize(path).with_context(|| format!("failed to find `{}`", path.display()))?;
    let metadata = fs::metadata(&path).with_context(|| format!("failed to look at `{}`", path.display()))?;
    if !metadata.is_file() {
        bail!("failed to read `{}`: it is no regular file", path.display());
    }
    let id = FileId::of(&metadata);
    let pid = std::process::id();
    let holder = Holder { pid, tid: pid, parent: pid, mount_namespace: own_mounts() };
    let name = path.display().to_string();
    Ok((holder, vec![Module { name, request: request(path.into_os_string().into_encoded_bytes(), id, None, true) }]))
}

fn of_process(pid: i32) -> Result<(Holder, Vec<Module>)> {
    let what = || format!("failed to look at process {pid}");
    let process = Process::new(pid).with_context(what)?;
    let number = pid.cast_unsigned();
    let parent = host::of_process::<Stat>(number, "stat").with_context(what)?.ppid;
    let maps = host::of_process::<MemoryMaps>(number, "maps").with_context(what)?;
    let exe = fs::metadata(format!("/proc/{pid}/exe")).ok().map(|exe| exe.ino());
    let mut seen = HashSet::new();
    let mut modules = Vec::new();
    for map in maps.iter().filter(|map| map.perms.contains(MMPermissions::EXECUTE)) {
        let MMapPath::Path(path) = &map.pathname else { continue };
        let id = FileId::new(map.dev.0, map.dev.1, map.inode);
        if modules.len() < MODULES_MAX && seen.insert(id) {
            let bytes = path.clone().into_os_string().into_encoded_bytes();
            let request = request(bytes, id, Some(map.address), exe == Some(map.inode));
            modules.push(Module { name: path.display().to_string(), request });
        }
    }
    if modules.is_empty() {
        bail!("failed to look at process {pid}: it runs no code of any file that can be seen");
    }
    let mount_namespace = host::mount_namespace_of(&process).and_then(|number| number.try_into().ok());
    let pid = pid.unsigned_abs();
    let holder = Holder {
        pid,
        tid: pid,
        parent: parent.unsigned_abs(),
        mount_namespace: mount_namespace.unwrap_or_else(own_mounts),
    };
    Ok((holder, modules))
}

fn request(path: Vec<u8>, id: FileId, mapped: Option<(u64, u64)>, is_executable: bool) -> FileRequest {
    let plain = path.strip_suffix(DELETED.as_bytes());
    FileRequest {
        is_deleted: plain.is_some(),
        path: Some(plain.unwrap_or(&path).to_vec()),
        build_id: None,
        id,
        usage: Usage::Code { mapped, is_executable },
        refused: None,
    }
}

fn own_mounts() -> u32 {
    host::mount_namespace().and_then(|number| number.try_into().ok()).unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_target_is_a_process_or_a_file() {
        let (holder, modules_of_process) = modules(&std::process::id().to_string()).unwrap();
        assert_eq!(holder.pid, std::process::id());
        let own = std::env::current_exe().unwrap();
        let is_own = |module: &&Module| Path::new(&module.name) == own;
        let of_process = modules_of_process.iter().find(is_own).unwrap();
        assert!(modules_of_process.iter().any(|module| module.name.contains("libc.so")), "its libraries, too");
        let (_, of_file) = modules(own.to_str().unwrap()).unwrap();
        assert_eq!((of_file.len(), of_file[0].request.id.inode), (1, of_process.request.id.inode));
    }

    #[test]
    fn what_is_none_is_said() {
        for (target, word) in
            [("/nonexistent/x", "failed to find"), ("/proc", "no regular file"), ("999999999", "process")]
        {
            let error = format!("{:#}", modules(target).err().unwrap());
            assert!(error.contains(word), "{target}: {error}");
        }
    }

    #[test]
    fn a_deleted_file_has_its_old_path() {
        let asked = request(b"/tmp/x (deleted)".to_vec(), FileId { inode: 1, device: 1 }, None, true);
        assert_eq!((asked.path.as_deref(), asked.is_deleted), (Some(&b"/tmp/x"[..]), true));
    }
}
