//! What `--version` says beside the version: what it was built of, which a report of a fault needs.

use std::sync::LazyLock;

use crate::host;

/// The commit, if it is known: ci/release says it, and build.rs where the crate was packaged. A build by hand is of files that may be no
/// commit's.
const COMMIT: Option<&str> = option_env!("FAULTLINE_COMMIT");

/// The version with its commit, and with how it was built.
pub(super) fn long() -> &'static str {
    static LONG: LazyLock<String> = LazyLock::new(|| words(COMMIT, host::is_static()));
    &LONG
}

fn words(commit: Option<&str>, is_static: bool) -> String {
    let commit = commit.filter(|commit| !commit.is_empty()).unwrap_or("unknown, built by hand");
    let linked = if is_static { "statically" } else { "with the libc of its host" };
    let libraries = if cfg!(feature = "vendored") { "vendored" } else { "none" };
    let (version, arch) = (env!("CARGO_PKG_VERSION"), std::env::consts::ARCH);
    format!("{version}\ncommit: {commit}\nbuilt: for {arch}, linked {linked}\nfeatures: {libraries}")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_build_is_told_by_its_commit_if_it_has_one() {
        let lines = |text: &str| text.lines().map(str::to_owned).collect::<Vec<_>>();
        let known = lines(&words(Some("12a8ac8"), true));
        assert_eq!(known[0], env!("CARGO_PKG_VERSION"));
        assert_eq!(known[1], "commit: 12a8ac8");
        assert!(known[2].ends_with("linked statically"), "{known:?}");
        assert_eq!(lines(&words(None, false))[1], "commit: unknown, built by hand");
        assert_eq!(lines(&words(Some(""), false))[1], "commit: unknown, built by hand");
    }
}
