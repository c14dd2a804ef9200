//! Names and unwinds outside of the process that counts: what a watched process made is opened and parsed by two children, which may hang
//! or die of it.
//!
//! The *opener* has the privileges to open files, and parses none. The *namer* has no privileges, and parses what the opener hands it. Both
//! can do little else (`confine`). The *keeper* of an agent copies files that are deleted or replaced while processes run them (`keeper`, `kept`). A thread here gives them one record after another, and replaces them when they fail (`clerk`); whose
//! turn it is the `queue` says, which neighbours share. What the namer answers is judged as if the watched process had made it.

mod calls;
mod children;
mod clerk;
mod confine;
mod fetching;
mod frame;
mod jit_dump;
mod job;
mod keeper;
mod kept;
mod maps;
mod opener;
mod owner;
mod passing;
mod patience;
mod perf_map;
mod queue;
mod search;
mod served;
mod service;
mod settle;
mod worker;

use std::ffi::{CStr, OsString};
use std::process::ExitCode;

use crate::debuginfod;

pub(crate) use clerk::{WAIT_MAX, fences};
pub(crate) use confine::Fences;
pub(crate) use frame::{receive, send};
pub(crate) use job::{
    Choice, Ending, FILE_ADDRESSES, Job, MappedImage, Mapping, Named, NamedFile, Other, Skeleton, Unwind, Walk,
};
pub(crate) use owner::Owner;
pub(crate) use patience::Patience;
pub(crate) use queue::Ticket;
pub(crate) use search::SearchPath;
pub(crate) use service::Naming;

#[cfg(test)]
pub(crate) use {job::Described, served::messages};
#[cfg(any(test, fuzzing))]
pub(crate) use {opener::Opener, served::answered, served::passed, worker::Worker};

/// The first argument of a child; nobody types it.
const OPENER: &str = "--naming-opener";
/// As above.
const NAMER: &str = "--naming-namer";
/// As above.
const KEEPER: &str = "--naming-keeper";

/// To be called first of all in `main`: the children are this program, executed anew. `Some` means that this process is one of them, and is
/// to exit with this. A program that doesn't call it is named for in threads of its own.
pub(crate) fn serve() -> Option<ExitCode> {
    let mut arguments = std::env::args_os().skip(1);
    match arguments.next() {
        Some(first) if first == OPENER => Some(served::opener(SearchPath::of(arguments))),
        Some(first) if first == NAMER => Some(served::namer()),
        Some(first) if first == KEEPER => Some(keeper::serve(arguments)),
        Some(first) if first == debuginfod::FETCHER => {
            let arguments: Vec<String> = arguments.map(|argument| argument.to_string_lossy().into_owned()).collect();
            settle::settle(c"fl-fetcher");
            Some(debuginfod::serve(&arguments, confine::fetcher))
        }
        _ => {
            children::may_execute_anew();
            None
        }
    }
}

/// May this program be executed anew as a child? If not, whatever a child does is done in a thread.
pub(crate) fn may_execute() -> bool {
    children::may_execute()
}

/// Makes this process, a child that was executed anew, one that may do no more than the opener.
pub(crate) fn confine_as_opener(name: &CStr) {
    settle::settle(name);
    confine::opener();
}

/// The arguments of the opener.
fn opener_arguments(search: &SearchPath) -> Vec<OsString> {
    std::iter::once(OPENER.into()).chain(search.arguments()).collect()
}
