//! The functions of a stack trace, as a diagnosis compares them.

use crate::evidence::{Evidence, File, Function, Handling};
use crate::runtime::{self, cxx, glibc};

/// Headers of the C library and the compiler: what is inlined from there is nobody's own.
const HEADERS: &str = "/usr/include/";

/// The frames' names as they are compared: without version, arguments and glibc's prefix.
pub(super) struct Trace<'a> {
    names: Vec<Option<String>>,
    facts: &'a Evidence,
}

impl<'a> Trace<'a> {
    pub(super) fn new(facts: &'a Evidence) -> Self {
        let names =
            (0..facts.frames.len()).map(|frame| facts.function(frame).map(|name| bare(name).to_owned())).collect();
        Self { names, facts }
    }

    /// How many frames there are.
    pub(super) fn len(&self) -> usize {
        self.names.len()
    }

    pub(super) fn name(&self, frame: usize) -> Option<&str> {
        self.names.get(frame)?.as_deref()
    }

    /// The innermost frame whose function is such a one.
    pub(super) fn find(&self, is: impl Fn(&str) -> bool) -> Option<usize> {
        self.find_from(0, is)
    }

    /// The same from `frame` on.
    pub(super) fn find_from(&self, frame: usize, is: impl Fn(&str) -> bool) -> Option<usize> {
        (frame..self.names.len()).find(|frame| self.name(*frame).is_some_and(&is))
    }

    /// The same, below the frame `end`.
    pub(super) fn find_before(&self, end: usize, is: impl Fn(&str) -> bool) -> Option<usize> {
        self.find(is).filter(|frame| *frame < end)
    }

    /// The innermost frame of such a function of libc's. One of the program's own may have its name: abort() is in another file then.
    pub(super) fn find_libcs(&self, is: impl Fn(&str) -> bool) -> Option<usize> {
        let aborts = self.find(|name| name == "abort").and_then(|abort| self.module(abort));
        let is_own =
            |frame| self.is_outside(frame) == Some(true) && aborts.is_some_and(|file| self.module(frame) != Some(file));
        (0..self.names.len()).find(|&frame| self.name(frame).is_some_and(&is) && !is_own(frame))
    }

    /// The file that the frame's code is in.
    pub(super) fn module(&self, frame: usize) -> Option<&File> {
        self.facts.frames.get(frame)?.region.as_ref()?.file()
    }

    /// Is the frame's code outside of the C library? `None` means that its file isn't known.
    pub(super) fn is_outside(&self, frame: usize) -> Option<bool> {
        self.module(frame).map(|file| !runtime::is_libc(file))
    }

    /// The innermost frame from `frame` on that is the program's own: in none of the files that `is_passed`, nor inlined from their headers.
    pub(super) fn own(&self, frame: usize, is_passed: impl Fn(&File) -> bool) -> Option<usize> {
        (frame..self.names.len())
            .find(|&frame| !self.module(frame).is_some_and(&is_passed) && !self.function(frame).is_some_and(is_header))
    }

    /// The same in one file, where debug information says what the program's own source is: nor a function that `is_passed` by its name.
    pub(super) fn own_by_source(&self, frame: usize, is_passed: impl Fn(&str) -> bool) -> Option<usize> {
        let is_own = |function: &Function| function.file.is_some() && !is_header(function);
        (frame..self.names.len())
            .find(|&frame| self.function(frame).is_some_and(is_own) && !self.name(frame).is_some_and(&is_passed))
    }

    fn function(&self, frame: usize) -> Option<&Function> {
        self.facts.frames.get(frame)?.function.as_ref()
    }

    /// What the function does with an exception of the call that it is in. libc is written in C, whose tables mean less.
    pub(super) fn handling(&self, frame: usize) -> Option<Handling> {
        if self.module(frame).is_some_and(runtime::is_cxx_runtime) {
            return Some(Handling::Passes);
        }
        self.facts.frames.get(frame)?.handling
    }

    /// Is it inlined into the function of the next frame, or the other way round? Then both have one table of what they do with exceptions.
    pub(super) fn is_inlined(&self, frame: usize) -> bool {
        self.function(frame).is_some_and(|function| function.inlined)
    }

    /// ` in main`, as a debugger shows the name. Empty where it has none.
    pub(super) fn place(&self, frame: Option<usize>, word: &str) -> String {
        frame.and_then(|frame| self.facts.function(frame)).map(|name| format!(" {word} {name}")).unwrap_or_default()
    }

    /// ` in main`: the first frame from `frame` on whose function is no such one. Empty where it has no name at all.
    pub(super) fn after(&self, frame: usize, word: &str, is: impl Fn(&str) -> bool) -> String {
        let next = self.next(frame, is);
        self.place(next, word)
    }

    fn next(&self, frame: usize, is: impl Fn(&str) -> bool) -> Option<usize> {
        let is_passed = |name: &str| is(name) || cxx::is_librarys_throw(name);
        (frame..self.names.len()).find(|frame| !self.name(*frame).is_some_and(is_passed))
    }

    /// The same where the function calls one that never returns. Compilers make one such call of all that a function has, also of those that are
    /// inlined into it, and the debug information is that of any of them: ` in check (or what else is inlined into main)`.
    pub(super) fn after_merged(&self, frame: usize, word: &str, is: impl Fn(&str) -> bool) -> String {
        let next = self.next(frame, is);
        let outer = next.and_then(|next| (next..self.names.len()).find(|&frame| !self.is_inlined(frame)));
        let place = self.place(next, word);
        match outer.filter(|_| outer != next && !place.is_empty()).and_then(|outer| self.facts.function(outer)) {
            Some(outer) => format!("{place} (or what else is inlined into {outer})"),
            None => place,
        }
    }
}

/// Is it inlined from a header of the system's?
fn is_header(function: &Function) -> bool {
    function.inlined && function.file.as_deref().is_some_and(|file| file.starts_with(HEADERS))
}

/// Without version, arguments and prefix.
fn bare(symbol: &str) -> &str {
    let name = glibc::without_version(symbol);
    name.split_once('(').map_or(name, |(function, _)| if function.is_empty() { name } else { function })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_compared_bare() {
        assert_eq!(bare("abort"), "abort");
        assert_eq!(bare("cfree@@GLIBC_2.2.5"), "cfree");
        assert_eq!(bare("__GI_abort"), "abort");
        assert_eq!(bare("std::terminate()"), "std::terminate");
    }
}
