//! One name per bug: equal for the same crash in any process, boot, host or container that runs the same binaries.

use sha2::{Digest, Sha256};

use crate::probe::abi::fl_own_limit;

/// A frame as the signature sees it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Place {
    /// A file with a build id, and the offset in it.
    Build {
        /// Hexadecimal.
        build_id: String,
        /// In the file, bytes.
        offset: u64,
    },
    /// A file without a build id: the last component of its path stands in for it.
    Named {
        /// Without its folder, so that a container's copy is the same.
        name: String,
        /// In the file, bytes.
        offset: u64,
    },
    /// No file: code that a program made at run time has no lasting place.
    Elsewhere,
}

/// How many frames count, however many were walked: the outer ones show how the program was started, not what broke.
pub(super) const FRAMES: usize = fl_own_limit::FL_LIMIT_SIGNED_FRAMES.0 as usize;

/// 16 hexadecimal digits of SHA-256 over the signal, its code and the places, innermost first. The frames end with the
/// first one outside of any file, which counts as such. But the innermost one may be outside (a call to NULL, code made at run time), and
/// then bugs differ by its callers. If no frame is in the executable (its build id, else the last component of its path; `None` if
/// unknown), the executable counts, too: an abort() in a library is a bug of its caller.
pub(super) fn signature(signal: &str, code: Option<&str>, executable: Option<&str>, places: &[Place]) -> String {
    let mut text = format!("faultline 1\n{signal}\n{}\n", code.unwrap_or("-"));
    let mut is_in_executable = false;
    for (index, place) in places.iter().take(FRAMES).enumerate() {
        let file = match place {
            Place::Build { build_id, offset } => {
                text.push_str(&format!("{build_id}+{offset:x}\n"));
                Some(build_id.as_str())
            }
            Place::Named { name, offset } => {
                text.push_str(&format!("{name:?}+{offset:x}\n"));
                Some(name.as_str())
            }
            Place::Elsewhere => {
                text.push_str("?\n");
                None
            }
        };
        is_in_executable |= file.is_some() && file == executable;
        if file.is_none() && index > 0 {
            break;
        }
    }
    if let Some(executable) = executable.filter(|_| !is_in_executable) {
        text.push_str(&format!("in {executable:?}\n"));
    }
    crate::hex::digits(&Sha256::digest(text)[..8])
}

#[cfg(test)]
mod tests {
    use super::*;

    fn build(offset: u64) -> Place {
        Place::Build { build_id: "abcd".to_owned(), offset }
    }

    #[test]
    fn it_is_16_digits_that_never_change() {
        // printf the five lines into sha256sum and cut 16 digits. Dashboards and bug trackers keep these: a change here is a change of everybody's names.
        assert_eq!(
            signature("SIGSEGV", Some("SEGV_MAPERR"), None, &[build(0x1139), build(0x1160)]),
            "cf91ee049c99a220"
        );
    }

    #[test]
    fn each_part_counts() {
        let base = signature("SIGSEGV", Some("SEGV_MAPERR"), None, &[build(1)]);
        assert_eq!(base.len(), 16);
        assert_ne!(base, signature("SIGBUS", Some("SEGV_MAPERR"), None, &[build(1)]));
        assert_ne!(base, signature("SIGSEGV", Some("SEGV_ACCERR"), None, &[build(1)]));
        assert_ne!(base, signature("SIGSEGV", None, None, &[build(1)]));
        assert_ne!(base, signature("SIGSEGV", Some("SEGV_MAPERR"), None, &[build(2)]));
        assert_ne!(base, signature("SIGSEGV", Some("SEGV_MAPERR"), None, &[build(1), build(1)]));
        let named = Place::Named { name: "abcd".to_owned(), offset: 1 };
        assert_ne!(base, signature("SIGSEGV", Some("SEGV_MAPERR"), None, &[named]));
    }

    #[test]
    fn frames_after_the_first_unknown_one_do_not_count() {
        let cut = signature("SIGSEGV", None, None, &[build(1), Place::Elsewhere]);
        assert_eq!(cut, signature("SIGSEGV", None, None, &[build(1), Place::Elsewhere, build(2)]));
        assert_ne!(cut, signature("SIGSEGV", None, None, &[build(1)]));
    }

    #[test]
    fn the_callers_of_nowhere_count() {
        let called_from = |offset: u64| signature("SIGSEGV", None, None, &[Place::Elsewhere, build(offset)]);
        assert_ne!(called_from(1), called_from(2));
    }

    #[test]
    fn an_executable_counts_where_no_frame_is_in_it() {
        let in_library = |executable: Option<&str>| signature("SIGABRT", None, executable, &[build(1)]);
        assert_ne!(in_library(Some("one")), in_library(Some("two")));
        assert_ne!(in_library(Some("one")), in_library(None));
        assert_eq!(in_library(Some("abcd")), in_library(None), "it is named already");
        let cut = [build(1), Place::Elsewhere, Place::Build { build_id: "one".to_owned(), offset: 1 }];
        let of_cut = |executable: &str| signature("SIGABRT", None, Some(executable), &cut);
        assert_ne!(of_cut("one"), of_cut("two"), "a frame that does not count names nothing");
    }

    #[test]
    fn outer_frames_do_not_count() {
        let deep: Vec<Place> = (0..40).map(build).collect();
        assert_eq!(signature("SIGSEGV", None, None, &deep), signature("SIGSEGV", None, None, &deep[..FRAMES]));
    }
}
