//! The kernel's symbols, /proc/kallsyms: names for the frames of kernel stacks, and functions that the kernel's types don't have.

use std::collections::HashSet;
use std::fs::File;
use std::io::{BufRead, BufReader};

use blazesym::MaybeDefault;
use blazesym::symbolize::source::{Kernel, Source};
use blazesym::symbolize::{Input, Symbolized, Symbolizer};

use crate::hex::Hex;
use crate::record::call::KernelFrame;

const KALLSYMS: &str = "/proc/kallsyms";

/// What the kernel lets us see of its symbols.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Sight {
    /// Names and addresses.
    All,
    /// Names, with zeros in place of addresses.
    Names,
    /// Nothing, and why.
    Nothing(String),
}

impl Sight {
    /// Finds out what we can see.
    pub(super) fn read() -> Self {
        let lines = match File::open(KALLSYMS) {
            Ok(file) => BufReader::new(file).lines(),
            Err(error) => return Self::Nothing(error.to_string()),
        };
        Self::of(lines.map_while(Result::ok))
    }

    /// On some kernels the first symbols are per-CPU ones with low addresses, 0 among them, so that one line decides nothing.
    fn of(lines: impl Iterator<Item = String>) -> Self {
        let mut is_empty = true;
        for line in lines.take(64 * 1024) {
            is_empty = false;
            if line.split(' ').next().is_some_and(|address| address.bytes().any(|digit| digit != b'0')) {
                return Self::All;
            }
        }
        if is_empty { Self::Nothing("it is empty".to_owned()) } else { Self::Names }
    }

    /// What is missing for the names of frames; `None` means nothing.
    pub(super) fn missing_addresses(&self) -> Option<String> {
        match self {
            Self::All => None,
            Self::Names => Some(format!(
                "frames of kernel stacks have no names: {KALLSYMS} shows no addresses (kernel.kptr_restrict): run as root with \
                 CAP_SYSLOG, or sysctl kernel.kptr_restrict=1"
            )),
            Self::Nothing(why) => {
                Some(format!("frames of kernel stacks have no names: failed to read `{KALLSYMS}`: {why}"))
            }
        }
    }

    /// What is missing for functions that the types don't have; `None` means nothing.
    pub(super) fn missing_names(&self) -> Option<String> {
        match self {
            Self::Nothing(why) => Some(format!(
                "functions that the kernel's types don't describe can't be found: failed to read `{KALLSYMS}`: {why}"
            )),
            _ => None,
        }
    }
}

/// The names among `wanted` that are functions of the kernel.
pub(super) fn functions(wanted: &HashSet<&str>) -> HashSet<String> {
    let Ok(file) = File::open(KALLSYMS) else { return HashSet::new() };
    let lines = BufReader::new(file).lines().map_while(Result::ok);
    lines.filter_map(|line| function(&line).filter(|name| wanted.contains(name)).map(str::to_owned)).collect()
}

/// The name in a line like `ffffffff81000000 t do_one_initcall`, if it is a function.
fn function(line: &str) -> Option<&str> {
    let mut words = line.split_whitespace().skip(1);
    matches!(words.next()?, "t" | "T" | "w" | "W").then(|| words.next()).flatten()
}

/// Names frames of the kernel's stacks.
pub(super) struct KernelNamer {
    symbolizer: Symbolizer,
    /// The kernel shows addresses.
    can_name: bool,
}

impl KernelNamer {
    /// A namer that uses what the kernel lets us see.
    pub(super) fn new(sight: &Sight) -> Self {
        Self { symbolizer: Symbolizer::new(), can_name: *sight == Sight::All }
    }

    /// The frames of a stack, innermost first, without those of our own probe.
    pub(super) fn frames(&self, addresses: &[u64]) -> Vec<KernelFrame> {
        let source = Source::Kernel(Kernel { vmlinux: MaybeDefault::None, debug_syms: false, ..Kernel::default() });
        let named =
            if self.can_name { self.symbolizer.symbolize(&source, Input::AbsAddr(addresses)).ok() } else { None };
        let symbol = |index: usize| match named.as_ref()?.get(index)? {
            Symbolized::Sym(symbol) => Some(format!("{}+{:#x}", symbol.name, symbol.offset)),
            Symbolized::Unknown(_) => None,
        };
        let frames = addresses.iter().enumerate();
        let frames = frames.map(|(index, &address)| KernelFrame { address: Hex(address), symbol: symbol(index) });
        frames.filter(|frame| !frame.symbol.as_deref().is_some_and(is_probes_own)).collect()
    }
}

/// Our programs, and the functions that call them at a function and at a tracepoint of a system call.
fn is_probes_own(symbol: &str) -> bool {
    ["bpf_prog_", "bpf_trampoline_", "perf_syscall_", "syscall_trace_enter", "kprobe_", "fprobe_"]
        .iter()
        .any(|begin| symbol.starts_with(begin))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn sight(lines: &[&str]) -> Sight {
        Sight::of(lines.iter().map(|&line| line.to_owned()))
    }

    #[test]
    fn zeros_are_no_addresses() {
        assert_eq!(sight(&["0000000000000000 A fixed_percpu_data", "ffffffff81000000 T _stext"]), Sight::All);
        assert_eq!(sight(&["0000000000000000 A fixed_percpu_data", "0000000000000000 T _stext"]), Sight::Names);
        assert!(matches!(sight(&[]), Sight::Nothing(_)));
        assert!(Sight::Names.missing_addresses().unwrap().contains("kptr_restrict"));
        assert_eq!((Sight::All.missing_addresses(), Sight::Names.missing_names()), (None, None));
        assert!(Sight::Nothing("no".to_owned()).missing_names().unwrap().ends_with(": no"));
    }

    #[test]
    fn only_functions_are_functions() {
        assert_eq!(function("ffffffff81000000 T vfs_read"), Some("vfs_read"));
        assert_eq!(function("ffffffff81000000 t local\t[module]"), Some("local"));
        assert_eq!(function("ffffffff81000000 D data"), None);
        assert_eq!(function(""), None);
        assert!(functions(&["vfs_read", "no_such_symbol"].into()).contains("vfs_read"));
    }
}
