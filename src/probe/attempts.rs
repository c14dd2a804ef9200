//! The ways to hook the kernel that are tried, and the builds of a probe that they are tried with.

use anyhow::{Result, bail};

use super::engine::Spec;
use super::hook::{Attach, Way};
use super::object::Build;

/// The ways to try and the builds to try them with, best first. `best`: the best build for this kernel.
pub(super) fn attempts<S: Spec>(attach: Attach, best: Build, kprobes: bool) -> Result<Vec<(Way, Build)>> {
    let ways = match attach {
        Attach::By(Way::Kprobe) if !kprobes => {
            bail!("failed to attach kprobes: this kernel has none (CONFIG_KPROBES), use --attach tracepoint")
        }
        Attach::By(way) => S::ways_of(way),
        Attach::Auto => S::WAYS.iter().copied().filter(|&way| way != Way::Kprobe || kprobes).collect(),
    };
    let builds = |way| match way {
        // Where lockdown refuses the plain build, it refuses kprobes as well.
        Way::Kprobe => vec![Build::Plain],
        _ if best == Build::Plain => vec![Build::Plain],
        _ => vec![best, Build::Plain],
    };
    Ok(ways.into_iter().flat_map(|way| builds(way).into_iter().map(move |build| (way, build))).collect())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::probe::{crash, memory, pagefault, signal};

    fn of<S: Spec>(attach: Attach, best: Build, kprobes: bool) -> Vec<(Way, Build)> {
        attempts::<S>(attach, best, kprobes).unwrap()
    }

    fn ways<S: Spec>(attach: Attach, kprobes: bool) -> Vec<Way> {
        of::<S>(attach, Build::Plain, kprobes).into_iter().map(|(way, _)| way).collect()
    }

    #[test]
    fn typed_loads_are_preferred_where_the_kernel_has_them_but_not_with_kprobes() {
        let all = [(Way::Tracepoint, Build::Typed), (Way::Tracepoint, Build::Plain), (Way::Kprobe, Build::Plain)];
        assert_eq!(of::<crash::Plan>(Attach::Auto, Build::Typed, true), all);
        assert_eq!(of::<crash::Plan>(Attach::Auto, Build::Plain, false), [(Way::Tracepoint, Build::Plain)]);
        let arguments = [(Way::Tracepoint, Build::Arguments), (Way::Tracepoint, Build::Plain)];
        assert_eq!(of::<crash::Plan>(Attach::Auto, Build::Arguments, false), arguments);
        assert_eq!(of::<memory::Plan>(Attach::By(Way::Kprobe), Build::Typed, true), [(Way::Kprobe, Build::Plain)]);
        let perf = [(Way::Perf, Build::Typed), (Way::Perf, Build::Plain)];
        assert_eq!(of::<pagefault::Plan>(Attach::By(Way::Perf), Build::Typed, true), perf);
    }

    #[test]
    fn auto_goes_from_the_best_to_what_is_always_there() {
        assert_eq!(ways::<signal::Plan>(Attach::Auto, true), [Way::Tracepoint, Way::Kprobe, Way::Syscall]);
        assert_eq!(ways::<signal::Plan>(Attach::Auto, false), [Way::Tracepoint, Way::Syscall]);
        assert_eq!(ways::<pagefault::Plan>(Attach::Auto, true), [Way::Tracepoint, Way::Kprobe, Way::Perf]);
        assert_eq!(ways::<pagefault::Plan>(Attach::Auto, false), [Way::Tracepoint, Way::Perf]);
        assert_eq!(ways::<memory::Plan>(Attach::Auto, true), [Way::Tracepoint, Way::Kprobe, Way::Raw]);
        assert_eq!(ways::<memory::Plan>(Attach::Auto, false), [Way::Tracepoint, Way::Raw]);
    }

    #[test]
    fn what_was_asked_for_is_all_that_is_tried() {
        for way in [Way::Tracepoint, Way::Kprobe, Way::Perf] {
            assert_eq!(ways::<pagefault::Plan>(Attach::By(way), true), [way]);
        }
        assert_eq!(ways::<memory::Plan>(Attach::By(Way::Tracepoint), true), [Way::Tracepoint, Way::Raw]);
        assert!(attempts::<signal::Plan>(Attach::By(Way::Kprobe), Build::Plain, false).is_err());
    }
}
