//! The filter of tasks: checks the options, and writes them for `bpf/include/filter.bpf.h`.

use std::fs::{self, File};
use std::os::fd::AsRawFd;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result, bail};
use libbpf_rs::{MapCore, MapFlags};
use nix::sys::statfs::{CGROUP2_SUPER_MAGIC, statfs};
use procfs::process::Status;

use super::abi::{Plain as _, fl_filter_config};
use super::table::TypedTable as _;
use crate::error::Error;
use crate::host;
use crate::page;

/// The inode of /proc/PID/ns/pid on the host: PROC_PID_INIT_INO, include/linux/proc_ns.h.
const HOST_PID_NAMESPACE: u64 = 0xefff_fffc;

/// The options of the filter.
#[derive(Clone, Debug, Default)]
pub struct Filter {
    /// `--pid`
    pub pids: Vec<u32>,
    /// `--process-name`
    pub process_names: Vec<String>,
    /// `--cgroup`
    pub cgroup: Option<PathBuf>,
    /// The processes that this one starts, and their descendants.
    pub command: bool,
    /// Not the signals by which this process ends children of its own that are not the command.
    pub not_own: bool,
}

impl Filter {
    /// Checks what can be checked before a kernel program is loaded.
    ///
    /// # Errors
    /// One line: what was typed, why it is wrong, and what to type instead.
    pub fn check(&self) -> Result<()> {
        let config = fl_filter_config::default();
        if self.process_names.len() > config.names.len() {
            bail!(Error::Invalid(format!("failed to filter by name: {} names at most", config.names.len())));
        }
        for name in &self.process_names {
            // One byte is for the NUL.
            let room = config.names[0].len() - 1;
            if name.is_empty() {
                let why = "an empty name matches every process, leave --process-name out";
                bail!(Error::Invalid(format!("failed to filter by name: {why}")));
            }
            if name.len() > room {
                let why = format!("the kernel keeps {room} bytes of a process's name, use a part");
                bail!(Error::Invalid(format!("failed to filter by name `{name}`: {why}")));
            }
        }
        for &pid in &self.pids {
            let Ok(status) = host::of_process::<Status>(pid, "status") else {
                bail!(Error::NoSuchProcess { pid });
            };
            if status.tgid != pid as i32 {
                bail!(Error::IsThread { tid: pid, pid: status.tgid.cast_unsigned() });
            }
        }
        Ok(())
    }

    /// The part that is decided before the programs are verified.
    pub(super) fn config(&self) -> Result<fl_filter_config> {
        let cgroup = self.open_cgroup()?.map(|folder| folder.metadata()).transpose()?;
        let mut config = fl_filter_config {
            by_pid: u8::from(!self.pids.is_empty()),
            cgroup: cgroup.map_or(0, |folder| folder.ino()),
            by_cgroup: u8::from(self.cgroup.is_some()),
            by_descent: u8::from(self.command),
            name_count: self.process_names.len() as u32,
            is_filtered: u8::from(self.is_filtered()),
            page_shift: page::size().trailing_zeros(),
            ..fl_filter_config::default()
        };
        for (slot, name) in config.names.iter_mut().zip(&self.process_names) {
            for (to, from) in slot.iter_mut().zip(name.bytes()) {
                *to = from as _;
            }
        }
        if self.command {
            // The thread that loads the programs is the one that starts the command.
            config.command_starter = nix::unistd::gettid().as_raw().cast_unsigned();
        }
        if self.not_own {
            config.own_pid = std::process::id();
        }
        let namespace = fs::metadata("/proc/self/ns/pid").context("failed to read `/proc/self/ns/pid`")?;
        if namespace.ino() != HOST_PID_NAMESPACE {
            config.pid_namespace_inode = namespace.ino();
        }
        Ok(config)
    }

    /// Is any task left out?
    fn is_filtered(&self) -> bool {
        !self.pids.is_empty() || !self.process_names.is_empty() || self.cgroup.is_some() || self.command
    }

    /// Are we in the host's pid namespace, so that processes have the same numbers for us as for the kernel programs?
    pub fn is_of_host(&self) -> Result<bool> {
        Ok(self.config()?.pid_namespace_inode == 0)
    }

    /// The cgroup folder, checked before anything is loaded.
    pub fn check_cgroup(&self) -> Result<()> {
        self.open_cgroup().map(drop)
    }

    fn open_cgroup(&self) -> Result<Option<File>> {
        self.cgroup.as_deref().map(open_cgroup).transpose()
    }

    /// Fills the maps of the loaded programs.
    pub(super) fn apply(&self, pids: &impl MapCore, cgroups: &impl MapCore) -> Result<()> {
        for pid in &self.pids {
            pids.update(pid.bytes(), &[1], MapFlags::ANY).with_context(|| format!("failed to watch PID {pid}"))?;
        }
        if let Some(path) = &self.cgroup {
            let folder = open_cgroup(path)?;
            let what = || format!("failed to watch cgroup `{}`", path.display());
            cgroups.set(&0u32, &folder.as_raw_fd()).with_context(what)?;
        }
        Ok(())
    }
}

/// A folder of the cgroup v2 hierarchy. The map keeps the cgroup itself: a new cgroup with the same name is not watched.
fn open_cgroup(path: &Path) -> Result<File> {
    let what = || format!("failed to watch cgroup `{}`", path.display());
    let folder = File::open(path).with_context(what)?;
    let magic = statfs(path).with_context(what)?.filesystem_type();
    if magic != CGROUP2_SUPER_MAGIC || !folder.metadata().with_context(what)?.is_dir() {
        let why = "not a folder of cgroup v2, give one as /sys/fs/cgroup/system.slice";
        bail!(Error::Invalid(format!("{}: {why}", what())));
    }
    Ok(folder)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn refusal(filter: &Filter) -> String {
        format!("{:#}", filter.check().and_then(|()| filter.check_cgroup()).unwrap_err())
    }

    #[test]
    fn nothing_typed_watches_everything() {
        let config = Filter::default().config().unwrap();
        assert_eq!((config.by_pid, config.by_cgroup, config.by_descent, config.name_count), (0, 0, 0, 0));
        assert_eq!(config.is_filtered, 0);
        let pids = Filter { pids: vec![1], ..Filter::default() };
        let names = Filter { process_names: vec!["x".to_owned()], ..Filter::default() };
        let command = Filter { command: true, ..Filter::default() };
        assert!([pids, names, command].iter().all(|filter| filter.config().unwrap().is_filtered == 1));
    }

    #[test]
    fn names_have_the_kernels_length() {
        let named = |name: &str| Filter { process_names: vec![name.to_owned()], ..Filter::default() };
        assert!(named("fifteen-bytes-x").check().is_ok());
        assert!(refusal(&named("sixteen-bytes-xx")).contains("15 bytes"));
        assert!(refusal(&named("")).contains("leave --process-name out"));
        let many = Filter { process_names: vec!["x".to_owned(); 17], ..Filter::default() };
        assert!(refusal(&many).contains("16 names"));
    }

    #[test]
    fn a_process_must_be_there() {
        let watch = |pid: u32| Filter { pids: vec![pid], ..Filter::default() };
        assert!(watch(std::process::id()).check().is_ok());
        assert!(refusal(&watch(u32::MAX)).contains("no such process"));
        assert!(refusal(&watch(0)).contains("no such process"));
    }

    #[test]
    fn a_thread_is_not_a_process() {
        let thread = std::thread::spawn(|| {
            let tid = nix::unistd::gettid().as_raw() as u32;
            refusal(&Filter { pids: vec![tid], ..Filter::default() })
        });
        assert!(thread.join().unwrap().contains(&format!("use --pid {}", std::process::id())));
    }

    #[test]
    fn a_cgroup_is_a_folder_of_cgroup_v2() {
        let at = |path: &str| Filter { cgroup: Some(path.into()), ..Filter::default() };
        assert!(refusal(&at("/nonexistent")).contains("No such file"));
        assert!(refusal(&at("/proc")).contains("not a folder of cgroup v2"));
    }
}
