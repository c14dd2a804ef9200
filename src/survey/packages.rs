//! Which package has the debug file of a build id, as far as this host's package index says so.

use std::fs;
use std::io::{BufRead, BufReader, Read};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

/// Where apt keeps the indexes of its archives. Those of debug packages say which build ids each has.
const APT_LISTS: &str = "/var/lib/apt/lists";

/// Prints them, however they are compressed.
const APT_HELPER: &str = "/usr/lib/apt/apt-helper";

/// A line of an index that is longer is none.
const LINE_BYTES_MAX: u64 = 1 << 20;

/// Does this host install packages by apt?
pub(super) fn is_by_apt() -> bool {
    Path::new(APT_HELPER).exists()
}

/// What installs it. `None` means that no index is at hand that knows it.
pub(super) fn installing(build_id: &str) -> Option<String> {
    if is_by_apt() {
        return by_apt(build_id).map(|package| format!("apt-get install {package}"));
    }
    let has_dnf = Path::new("/usr/bin/dnf").exists();
    let (first, rest) = build_id.split_at_checked(2).filter(|_| has_dnf)?;
    // Debug packages provide their files' paths.
    Some(format!("dnf --enablerepo='*debug*' install /usr/lib/debug/.build-id/{first}/{rest}.debug"))
}

fn by_apt(build_id: &str) -> Option<String> {
    let lists = fs::read_dir(APT_LISTS).ok()?.filter_map(|entry| Some(entry.ok()?.path()));
    let is_index = |path: &PathBuf| path.file_name().is_some_and(|name| name.to_string_lossy().contains("_Packages"));
    let lists: Vec<PathBuf> = lists.filter(is_index).collect();
    if lists.is_empty() {
        return None;
    }
    let mut helper = Command::new(APT_HELPER);
    helper.arg("cat-file").args(lists).stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::null());
    let mut child = helper.spawn().ok()?;
    let found = child.stdout.take().and_then(|index| package(index, build_id));
    // It may still write what nobody reads.
    let _ = child.kill();
    let _ = child.wait();
    found
}

/// The package with this build id in an index of apt.
fn package(index: impl Read, build_id: &str) -> Option<String> {
    let mut index = BufReader::with_capacity(1 << 18, index);
    let mut name = String::new();
    let mut line = Vec::new();
    loop {
        line.clear();
        if index.by_ref().take(LINE_BYTES_MAX).read_until(b'\n', &mut line).ok()? == 0 {
            return None;
        }
        let Ok(line) = std::str::from_utf8(line.trim_ascii_end()) else { continue };
        if let Some(package) = line.strip_prefix("Package: ") {
            package.clone_into(&mut name);
        } else if let Some(ids) = line.strip_prefix("Build-Ids: ")
            && ids.split(' ').any(|id| id == build_id)
        {
            return is_name(&name).then_some(name);
        }
    }
}

/// Somebody may type it.
fn is_name(name: &str) -> bool {
    !name.is_empty() && name.bytes().all(|byte| byte.is_ascii_alphanumeric() || b"+-.".contains(&byte))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_index_knows_the_package_of_a_build_id() {
        let index = "Package: a-dbgsym\nVersion: 1\nBuild-Ids: aa11 bb22\n\nPackage: b-dbgsym\nBuild-Ids: cc33\n\n\
                     Package: c; rm\nBuild-Ids: dd44\n";
        let of = |build_id: &str| package(index.as_bytes(), build_id);
        assert_eq!(of("bb22").as_deref(), Some("a-dbgsym"));
        assert_eq!(of("cc33").as_deref(), Some("b-dbgsym"));
        assert_eq!((of("bb2"), of("ee55"), of("dd44")), (None, None, None));
    }
}
