//! Chooses functions by exact names, globs and presets, and finds what may have been meant by a name that isn't there.

use std::collections::HashSet;

use glob::Pattern;

use crate::arch::syscall::{COMPAT_PREFIX, PREFIX};

/// How many similar names are shown for one that isn't there.
const NEAR: usize = 3;
/// How similar they must be; 1 is equal.
const NEAR_ENOUGH: f64 = 0.7;
/// The prefixes of the kernel's symbols of a system call: that of the one that is hooked, and those of others for the same call.
const PREFIXES: [&str; 5] = [PREFIX, COMPAT_PREFIX, "__se_sys_", "__do_sys_", "sys_"];

/// System calls that the kernel has under another name than their manual page.
const RENAMED: [(&str, &str); 6] = [
    ("stat", "newstat"),
    ("fstat", "newfstat"),
    ("lstat", "newlstat"),
    ("uname", "newuname"),
    ("sendfile", "sendfile64"),
    ("umount2", "umount"),
];

/// A ready choice of functions.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Preset {
    /// Calls that map, change and unmap memory.
    Memory,
    /// Calls that open, cut, rename and remove files.
    File,
    /// Calls that send signals and decide what becomes of them.
    Signal,
}

impl Preset {
    /// As it is typed.
    pub(crate) fn word(self) -> &'static str {
        match self {
            Self::Memory => "memory",
            Self::File => "file",
            Self::Signal => "signal",
        }
    }

    fn names(self) -> &'static [&'static str] {
        match self {
            Self::Memory => &[
                "mmap",
                "munmap",
                "mprotect",
                "pkey_mprotect",
                "mremap",
                "madvise",
                "brk",
                "shmat",
                "shmdt",
                "execve",
                "execveat",
            ],
            // do_truncate() has the inode of each path, also for O_TRUNC.
            Self::File => &[
                "open",
                "openat",
                "openat2",
                "creat",
                "close",
                "truncate",
                "ftruncate",
                "fallocate",
                "rename",
                "renameat",
                "renameat2",
                "unlink",
                "unlinkat",
                "do_truncate",
            ],
            Self::Signal => &[
                "kill",
                "tkill",
                "tgkill",
                "rt_sigqueueinfo",
                "rt_tgsigqueueinfo",
                "pidfd_send_signal",
                "rt_sigaction",
                "rt_sigprocmask",
                "sigaltstack",
            ],
        }
    }
}

/// The functions and system calls to choose from.
pub(super) struct Catalogue<'kernel> {
    /// The kernel's functions.
    pub functions: HashSet<&'kernel str>,
    /// The system calls of this architecture.
    pub syscalls: Vec<&'static str>,
}

impl<'kernel> Catalogue<'kernel> {
    /// A catalogue of these functions and all system calls.
    pub(super) fn new(functions: impl Iterator<Item = &'kernel str>) -> Self {
        let syscalls = syscalls::Sysno::iter().map(|call| call.name()).collect();
        Self { functions: functions.collect(), syscalls }
    }

    /// All names.
    fn names(&self) -> impl Iterator<Item = &str> {
        self.syscalls.iter().chain(&self.functions).copied()
    }

    /// Is `name` a function, or a system call by any of its names?
    pub(super) fn knows(&self, name: &str) -> bool {
        exact(name, self).is_some()
    }

    /// The symbol of a system call.
    fn symbol(&self, call: &str) -> Option<String> {
        let symbol = format!("{PREFIX}{}", kernels_name(call));
        self.functions.contains(symbol.as_str()).then_some(symbol)
    }
}

/// The kernel's name of a system call.
pub(super) fn kernels_name(call: &str) -> &str {
    RENAMED.iter().find(|(name, _)| *name == call).map_or(call, |(_, name)| name)
}

/// One function that was chosen.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct ChosenFunction {
    /// Its name as it is shown: for a system call the plain name.
    pub name: String,
    /// The kernel's symbol; `None` means that the kernel's types have none.
    pub symbol: Option<String>,
    /// It is a system call.
    pub is_syscall: bool,
    /// It is from a preset: the user did not type it.
    pub from_preset: bool,
}

/// A name that isn't there.
#[derive(Clone, Debug, PartialEq, Eq, serde::Serialize)]
pub(crate) struct Missing {
    /// As it was typed.
    pub name: String,
    /// Names that may have been meant, the most similar first.
    pub near: Vec<String>,
}

/// The functions that were chosen, and the names that weren't found.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Selection {
    /// Each function once, in the order in which they were asked for; those of a glob by name.
    pub chosen: Vec<ChosenFunction>,
    /// The names for which nothing was found.
    pub missing: Vec<Missing>,
}

/// Chooses the functions. `has_symbol`: is there such a kernel symbol, although the types don't describe it?
pub(super) fn select(
    names: &[String],
    presets: &[Preset],
    catalogue: &Catalogue<'_>,
    mut has_symbol: impl FnMut(&str) -> bool,
) -> Selection {
    let mut selection = Selection::default();
    let mut seen = HashSet::new();
    let mut add = |selection: &mut Selection, chosen: ChosenFunction| {
        if seen.insert(chosen.name.clone()) {
            selection.chosen.push(chosen);
        }
    };
    for name in names {
        let found = if is_glob(name) { matches(name, catalogue) } else { exact(name, catalogue).into_iter().collect() };
        if found.is_empty() && !is_glob(name) && has_symbol(name) {
            let symbol = Some(name.clone());
            add(&mut selection, ChosenFunction { name: name.clone(), symbol, is_syscall: false, from_preset: false });
        } else if found.is_empty() {
            selection.missing.push(Missing { name: name.clone(), near: near(name, catalogue.names()) });
        }
        for chosen in found {
            add(&mut selection, chosen);
        }
    }
    for name in presets.iter().flat_map(|preset| preset.names()) {
        // Nobody asked by name for the functions of a preset: those that this kernel doesn't have are left out.
        if let Some(chosen) = exact(name, catalogue) {
            add(&mut selection, ChosenFunction { from_preset: true, ..chosen });
        }
    }
    selection
}

/// Is `typed` a name of the function that is shown as `shown`?
pub(super) fn is_same(typed: &str, shown: &str) -> bool {
    let plain = PREFIXES.iter().find_map(|wrapper| typed.strip_prefix(wrapper)).unwrap_or(typed);
    typed == shown || plain == shown || plain == kernels_name(shown)
}

/// Does a name stand for several functions?
pub(super) fn is_glob(name: &str) -> bool {
    name.contains(['*', '?', '['])
}

/// Is this a valid pattern?
///
/// # Errors
/// One line that says what is wrong with it.
pub(crate) fn check(name: &str) -> Result<(), String> {
    if name.is_empty() {
        return Err("an empty name is no function's".to_owned());
    }
    Pattern::new(name).map(drop).map_err(|error| format!("`{name}` is no pattern: {error}"))
}

fn exact(name: &str, catalogue: &Catalogue<'_>) -> Option<ChosenFunction> {
    let call = |name: &str| {
        catalogue.syscalls.iter().find(|call| **call == name || kernels_name(call) == name).map(|call| ChosenFunction {
            name: (*call).to_owned(),
            symbol: catalogue.symbol(call),
            is_syscall: true,
            from_preset: false,
        })
    };
    call(name).or_else(|| PREFIXES.iter().find_map(|wrapper| call(name.strip_prefix(wrapper)?))).or_else(|| {
        catalogue.functions.contains(name).then(|| ChosenFunction {
            name: name.to_owned(),
            symbol: Some(name.to_owned()),
            is_syscall: false,
            from_preset: false,
        })
    })
}

fn matches(glob: &str, catalogue: &Catalogue<'_>) -> Vec<ChosenFunction> {
    let Ok(pattern) = Pattern::new(glob) else { return Vec::new() };
    let is_wrapper = |name: &str| PREFIXES.iter().any(|wrapper| name.strip_prefix(wrapper).is_some());
    let calls = catalogue
        .syscalls
        .iter()
        .filter(|call| pattern.matches(call) || pattern.matches(&format!("{PREFIX}{call}")) && glob.starts_with("__"));
    let functions = catalogue.functions.iter().filter(|name| !is_wrapper(name) && pattern.matches(name));
    let mut names: Vec<&str> = calls.copied().chain(functions.copied()).collect();
    names.sort_unstable();
    names.into_iter().filter_map(|name| exact(name, catalogue)).collect()
}

/// Those of the names that are similar to `name`, the most similar first.
pub(super) fn near<'known>(name: &str, known: impl Iterator<Item = &'known str>) -> Vec<String> {
    let is_near = |known: &&str| known.len().abs_diff(name.len()) <= name.len().max(4) / 2;
    let mut scored: Vec<(f64, &str)> = known
        .filter(is_near)
        .map(|known| (strsim::normalized_damerau_levenshtein(name, known), known))
        .filter(|(score, _)| *score >= NEAR_ENOUGH)
        .collect();
    // If two names are equally similar, the shorter one is the more usual.
    scored.sort_by(|a, b| b.0.total_cmp(&a.0).then(a.1.len().cmp(&b.1.len())).then(a.1.cmp(b.1)));
    scored.dedup_by_key(|(_, known)| *known);
    scored.into_iter().take(NEAR).map(|(_, known)| known.to_owned()).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    const FUNCTIONS: [&str; 7] = [
        "vfs_read",
        "vfs_write",
        "vfs_writev",
        "do_truncate",
        "__x64_sys_munmap",
        "__ia32_sys_munmap",
        "__x64_sys_newstat",
    ];

    fn choose(names: &[&str], presets: &[Preset]) -> Selection {
        let names: Vec<String> = names.iter().map(|&name| name.to_owned()).collect();
        select(&names, presets, &Catalogue::new(FUNCTIONS.into_iter()), |name| name == "static_one")
    }

    fn names(selection: &Selection) -> Vec<&str> {
        selection.chosen.iter().map(|chosen| chosen.name.as_str()).collect()
    }

    #[test]
    fn a_system_call_has_many_names() {
        for name in ["munmap", "__x64_sys_munmap", "sys_munmap", "__do_sys_munmap"] {
            let selection = choose(&[name], &[]);
            let expected = ChosenFunction {
                name: "munmap".to_owned(),
                symbol: Some("__x64_sys_munmap".to_owned()),
                is_syscall: true,
                from_preset: false,
            };
            assert_eq!(selection.chosen, [expected], "{name}");
        }
        let stat = &choose(&["stat"], &[]).chosen[0];
        assert_eq!((stat.name.as_str(), stat.symbol.as_deref()), ("stat", Some("__x64_sys_newstat")));
        let read = &choose(&["read"], &[]).chosen[0];
        assert_eq!((read.is_syscall, &read.symbol), (true, &None), "the types don't know it: by its tracepoint only");
    }

    #[test]
    fn a_glob_stands_for_several() {
        assert_eq!(names(&choose(&["vfs_write*"], &[])), ["vfs_write", "vfs_writev"]);
        assert_eq!(names(&choose(&["vfs_r?ad", "vfs_read"], &[])), ["vfs_read"], "each once");
        assert_eq!(names(&choose(&["mu*map"], &[])), ["munmap"], "not its wrappers as well");
        assert_eq!(names(&choose(&["__x64_sys_mun*"], &[])), ["munlock", "munlockall", "munmap"]);
        assert_eq!(choose(&["zzz*"], &[]).missing, [Missing { name: "zzz*".to_owned(), near: Vec::new() }]);
    }

    #[test]
    fn what_there_isnt_has_near_misses() {
        let selection = choose(&["munmpa", "vfs_raed", "static_one"], &[]);
        let near: Vec<&[String]> = selection.missing.iter().map(|missing| &missing.near[..]).collect();
        assert_eq!(near[0][0], "munmap");
        assert_eq!(near[1][0], "vfs_read");
        assert_eq!(names(&selection), ["static_one"], "a symbol that the types don't know");
    }

    #[test]
    fn of_a_preset_nothing_is_missing() {
        let selection = choose(&[], &[Preset::Memory, Preset::File]);
        assert!(selection.missing.is_empty() && selection.chosen.iter().all(|chosen| chosen.from_preset));
        assert!(names(&selection).contains(&"munmap") && names(&selection).contains(&"do_truncate"));
        let typed = choose(&["munmap"], &[Preset::Memory]);
        assert_eq!(typed.chosen.iter().filter(|chosen| !chosen.from_preset).count(), 1);
    }

    #[test]
    fn a_pattern_must_be_one() {
        assert!(check("vfs_*").is_ok() && check("munmap").is_ok());
        assert!(check("").is_err() && check("vfs_[").unwrap_err().contains("`vfs_[`"));
    }
}
