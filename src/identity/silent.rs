//! The frames that say nothing of a bug: every abort, every failed check and every wild copy ends in them. Their caller counts.
//!
//! A pattern may have one `*`, for any text. Functions are matched after [`super::names::normalize`].

/// Files of which no frame says anything: the C and C++ runtimes. By file, because they often have no names, and because what they do
/// inside depends on their version and on the processor.
const MODULES: &[(&str, &str)] = &[
    ("libc", "glibc and musl: raise, abort, assert, malloc, memcpy, qsort, the start of a program and of a thread"),
    ("libc-*", "the same under its older name, libc-2.31.so"),
    ("ld-linux*", "the dynamic linker"),
    ("ld-musl*", "musl's libc"),
    ("libpthread*", "raise and threads, before glibc 2.34"),
    ("libm", "a domain error is its caller's"),
    ("libstdc++", "throw, terminate, containers"),
    ("libc++*", "the same, LLVM's, with libc++abi"),
    ("libgcc_s", "the unwinder of exceptions"),
    ("libunwind*", "the same, LLVM's"),
    ("lib?san", "sanitizers: they report what another function did"),
    ("[vdso]", "the kernel's code, which signal handlers return to"),
];

/// Functions of these names, wherever they are: in a static executable, or in one that has a runtime of its own.
const FUNCTIONS: &[(&[&str], &str)] = &[
    (&["raise", "gsignal", "pthread_kill", "__pthread_kill_*", "tgkill"], "sends the signal"),
    (&["abort", "__libc_message*", "__libc_fatal", "a_crash"], "ends the process"),
    (&["__assert*", "assert_fail"], "reports a failed assertion"),
    (&["g_assertion_message*", "g_log", "g_logv", "g_log_*"], "GLib's assertions and fatal messages"),
    (&["__fortify_fail*", "__chk_fail", "__*_chk"], "fortify's checks"),
    (&["__stack_chk_fail*"], "the stack protector"),
    (
        &["malloc", "malloc_*", "free", "cfree", "calloc", "realloc", "reallocarray"],
        "malloc finds what others have damaged",
    ),
    (
        &["_int_*", "munmap_chunk", "unlink_chunk", "sysmalloc*", "sysfree*", "tcache_*", "__libc_*alloc"],
        "its inner functions",
    ),
    (
        &["__malloc_*", "__libc_free", "nontrivial_free", "get_meta", "memalign", "posix_memalign"],
        "its inner functions, musl's as well",
    ),
    (&["operator new*", "operator delete*"], "C++'s malloc"),
    (&["memcpy", "memmove", "memset", "memcmp", "memchr", "memrchr", "mempcpy", "memmem"], "copies what it is given"),
    (&["bcmp", "bcopy", "bzero", "__mem*", "__wmem*", "wmem*", "rawmemchr"], "the same for a processor"),
    (
        &["strlen", "strnlen", "strcmp", "strncmp", "strcasecmp", "strncasecmp", "strcoll"],
        "reads the string that it is given",
    ),
    (&["strcpy", "strncpy", "stpcpy", "strcat", "strncat", "strdup", "strndup"], "copies the string that it is given"),
    (
        &["strchr", "strrchr", "strchrnul", "strstr", "strspn", "strcspn", "strpbrk", "strtok*"],
        "searches the string that it is given",
    ),
    (&["__str*", "__stp*", "__wcs*", "wcslen", "wcscpy", "__rawmemchr*"], "the same for a processor"),
    (
        &["printf", "fprintf", "sprintf", "snprintf", "vprintf", "vfprintf", "vsnprintf", "__vfprintf*"],
        "prints what it is given",
    ),
    (&["qsort", "qsort_r", "__qsort*", "msort_with_tmp*", "bsearch"], "calls what it is given"),
    (&["std::*"], "the standard libraries of C++ and Rust: the caller counts, and they are inlined or not"),
    (&["core::*", "alloc::*"], "Rust's core library, with its panics, and its containers"),
    (&["__gnu_cxx::*", "__gnu_debug::*"], "libstdc++'s own"),
    (&["__cxxabiv1::*", "__cxa_*", "__gxx_personality*"], "C++: throw, rethrow, pure virtual calls"),
    (&["__clang_call_terminate"], "an exception leaves a function that may not throw"),
    (
        &["_Unwind_*", "uw_frame_state_for", "uw_update_context*", "uw_init_context*", "execute_cfa_program*"],
        "the unwinder of exceptions",
    ),
    (&["*::_FUN", "*::__invoke"], "a lambda as a plain function: it calls the lambda"),
    (&["__rust_*", "__rustc::*", "__rdl_*", "__rg_*", "__rust::*"], "Rust's allocator and panics"),
    (&["panic_abort::*", "panic_unwind::*", "rust_panic*", "rust_begin_unwind"], "Rust's panics"),
    (&["runtime.*"], "Go's runtime: panics, signals, the start of goroutines"),
    (&["_start", "__libc_start*", "__libc_csu*", "_dl_*"], "the start of a program"),
    (&["start_thread", "clone", "clone3", "__clone*", "execute_native_thread_routine"], "the start of a thread"),
    (&["__restore_rt", "__kernel_*"], "what a signal handler returns to"),
    (&["__asan*", "__ubsan*", "__sanitizer*", "__tsan*", "__msan*"], "sanitizers"),
];

/// Functions whose source is in a folder with this in its path: compilers give local instances of templates no full name.
const SOURCES: &[(&str, &str)] = &[
    ("/include/c++/", "the standard library of C++, GCC's and LLVM's"),
    ("/rustc/", "that of Rust, as it is shipped"),
];

/// After the caller of these nothing counts: its frame is overwritten, so that what seems to be above it is chance.
const LAST_BUT_ONE: &[&str] = &["__stack_chk_fail", "__stack_chk_fail_local"];

/// Does no frame of this module, as [`stem`] has it, say anything?
pub(super) fn is_module(stem: &str) -> bool {
    MODULES.iter().any(|(pattern, _)| matches(pattern, stem))
}

/// Does this function say nothing?
pub(super) fn is_function(name: &str) -> bool {
    FUNCTIONS.iter().flat_map(|(patterns, _)| *patterns).any(|pattern| matches(pattern, name))
}

/// Library functions that call what they are given through a pointer, unless the compiler knows it: it is the same call then.
const CALLERS_BY_POINTER: &[(&str, &str)] = &[
    ("std::_Function_handler::_M_invoke", "libstdc++: what a std::function calls"),
    ("_M_invoke", "the same as debug information has it where it is inlined"),
    ("alloc::boxed::Box::call*", "Rust: a Box<dyn Fn>, FnMut or FnOnce"),
];

/// Does this function of a library call what it is given as if through a pointer?
pub(super) fn is_caller_by_pointer(name: &str) -> bool {
    CALLERS_BY_POINTER.iter().any(|(pattern, _)| matches(pattern, name))
}

/// Is this source file the standard library's?
pub(super) fn is_source(path: &str) -> bool {
    SOURCES.iter().any(|(part, _)| path.contains(part))
}

/// Is the caller of this function the last that counts?
pub(super) fn is_last_but_one(name: &str) -> bool {
    LAST_BUT_ONE.contains(&name)
}

/// A module's name without its folder, the version of a library, and what the kernel puts behind that of a deleted file.
pub(super) fn stem(path: &str) -> &str {
    let name = path.rsplit('/').next().unwrap_or(path);
    let name = name.strip_suffix(crate::evidence::DELETED).unwrap_or(name);
    match name.find(".so") {
        Some(at) if at > 0 && matches!(name.as_bytes().get(at + 3), None | Some(b'.')) => &name[..at],
        _ => name,
    }
}

/// A function and its module, as a family has them.
pub(super) fn whole(module: &str, function: &str, most: usize) -> String {
    let mut whole = format!("{module}!{function}");
    if whole.len() > most {
        whole.truncate((0..=most).rev().find(|&at| whole.is_char_boundary(at)).unwrap_or(0));
    }
    whole
}

/// `?` stands for one or two letters, `*` for any text, once.
fn matches(pattern: &str, text: &str) -> bool {
    // Most begin otherwise.
    if pattern.bytes().zip(text.bytes()).next().is_some_and(|(first, other)| first != other && !b"*?".contains(&first))
    {
        return false;
    }
    let holes = |hole: char| pattern.split_once(hole);
    let around = |begin: &str, end: &str| {
        text.len() >= begin.len() + end.len() && text.starts_with(begin) && text.ends_with(end)
    };
    match (holes('*'), holes('?')) {
        (Some((begin, end)), _) => around(begin, end),
        (None, Some((begin, end))) => around(begin, end) && text.len() - begin.len() - end.len() <= 2,
        (None, None) => pattern == text,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_list_is_short_and_each_entry_has_its_reason() {
        assert!(MODULES.len() + FUNCTIONS.len() + SOURCES.len() <= 48);
        let reasons = MODULES.iter().map(|(_, reason)| reason).chain(FUNCTIONS.iter().map(|(_, reason)| reason));
        assert!(reasons.into_iter().all(|reason| !reason.is_empty()));
        let patterns = MODULES
            .iter()
            .map(|(pattern, _)| *pattern)
            .chain(FUNCTIONS.iter().flat_map(|(all, _)| all.iter().copied()));
        for pattern in patterns {
            assert!(pattern.matches('*').count() <= 1 && pattern.len() > 1, "{pattern}");
        }
    }

    #[test]
    fn what_says_nothing_is_skipped() {
        for path in [
            "/usr/lib/libc.so.6",
            "/lib/libc-2.31.so",
            "/lib/ld-musl-x86_64.so.1",
            "[vdso]",
            "libstdc++.so.6.0.30",
            "libubsan.so.1",
            "libtsan.so.2",
        ] {
            assert!(is_module(stem(path)), "{path}");
        }
        for path in [
            "/usr/bin/app",
            "/usr/lib/libcrypto.so.3",
            "/usr/lib/libcurl.so.4",
            "/opt/libcairo.so",
            "/usr/bin/ld",
            "/x/libartisan.so",
        ] {
            assert!(!is_module(stem(path)), "{path}");
        }
        for name in [
            "raise",
            "__assert_fail",
            "__memmove_avx_unaligned_erms",
            "__strcpy_chk",
            "std::vector::at",
            "core::panicking::panic_fmt",
            "runtime.gopanic",
            "main::{closure}::_FUN",
        ] {
            assert!(is_function(name), "{name}");
        }
        for name in [
            "main",
            "parse",
            "memory_pool_get",
            "string_copy",
            "stdlib::f",
            "freeze",
            "strategy",
            "main.main",
            "memoize",
        ] {
            assert!(!is_function(name), "{name}");
        }
    }

    #[test]
    fn a_library_has_no_version() {
        assert_eq!(stem("/usr/lib/libfoo.so.1.2"), "libfoo");
        assert_eq!(stem("/usr/bin/app (deleted)"), "app");
        assert_eq!(stem("/opt/x.sort"), "x.sort");
        assert_eq!(stem(".so"), ".so");
    }

    #[test]
    fn a_long_name_is_cut_between_letters() {
        assert_eq!(whole("m", "ééé", 5), "m!é");
    }
}
