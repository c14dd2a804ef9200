//! C++ that ends a process by std::terminate(): who called it shows why.
//!
//! The functions between abort() and the program's own say it. __cxa_throw() itself calls it where the search for a catch came to the end of
//! the stack; the personality function where that search met a function that no exception may leave, whatever catches it further out;
//! _Unwind_ForcedUnwind() stands there where it is the end of a thread that may not leave. Code that a compiler has put there calls
//! __clang_call_terminate(), __cxa_call_terminate() or std::terminate() itself.

use super::trace::Trace;
use super::{Diagnosis, Kind, certain, sure};
use crate::evidence::{Evidence, Handling};
use crate::runtime::{cxx, is_cxx_runtime};

pub(super) fn diagnose(facts: &Evidence, trace: &Trace<'_>) -> Option<Diagnosis> {
    if let Some(frame) = trace.find(cxx::is_pure_virtual) {
        let place = trace.after(frame, "in", cxx::is_pure_virtual);
        return certain(Kind::PureVirtualCall, format!("calls a virtual function that has no body{place}"));
    }
    let begin = trace.find(cxx::is_begin_of_end).or_else(|| unnamed(trace))?;
    let end = own(trace, begin);
    let called = |is: fn(&str) -> bool| trace.find_from(begin, is).filter(|frame| *frame < end);
    if called(cxx::is_personality).is_some() {
        return at_a_bound(trace, begin, end);
    }
    if called(cxx::is_compilers_terminate).is_some() {
        let which = name(trace, end).unwrap_or_else(|| "a function".to_owned());
        let text = format!("an exception, or the end of a thread, may not leave {which} there: {WHY}");
        return certain(Kind::NoexceptViolated, text);
    }
    if called(cxx::is_rethrow).is_some() {
        return rethrow(facts, trace, end);
    }
    if let Some(frame) = called(cxx::is_throw) {
        return uncaught(facts, &thrown_in(trace, frame));
    }
    if called(cxx::is_unexpected).is_some() {
        let text = "an exception may not leave a function that does not list it (`throw()`)";
        return certain(Kind::NoexceptViolated, text);
    }
    if let Some(frame) = trace.find_from(begin, cxx::is_threads_destructor).filter(|&frame| frame <= end + 1) {
        // Of what is inlined, another call of std::terminate() may have been merged with it.
        let what = "a std::thread was destroyed before it was joined or detached";
        return sure(!trace.is_inlined(frame), Kind::JoinableThread, what);
    }
    let place = trace.after_merged(end, "in", |_| false);
    let who = "the program itself, what is inlined there (a std::thread that is not joined), or its compiler";
    let text = format!("calls std::terminate(){place}: {who} where an exception may not leave");
    sure(!place.is_empty(), Kind::TerminateCalled, text)
}

/// The throw that ended it, in a library whose own functions have no names.
fn unnamed(trace: &Trace<'_>) -> Option<usize> {
    let abort = trace.find(|name| name == "abort")?;
    let throw = trace.find_from(abort, cxx::is_throw)?;
    (abort + 1..throw).all(|frame| trace.name(frame).is_none()).then_some(throw)
}

/// The search for a catch came to the end of the stack, or to code without call frame information: a catch behind that is never found.
fn uncaught(facts: &Evidence, place: &str) -> Option<Diagnosis> {
    let but = if facts.is_unwindable { "" } else { ", as far as the stack could be searched" };
    let text = format!("a C++ exception{place} that nobody catches{but}");
    sure(facts.is_unwindable, Kind::UncaughtException, text)
}

/// `throw;` in the function of the frame `end`. Of an exception that is there, the search for a catch would have found one that catches any,
/// and a function that it may not leave; it comes to its end only without both.
fn rethrow(facts: &Evidence, trace: &Trace<'_>, end: usize) -> Option<Diagnosis> {
    if facts.has_exception {
        return uncaught(facts, &trace.place(Some(end), "thrown again in"));
    }
    let place = trace.place(Some(end), "in");
    let would_be_found = |frame| matches!(trace.handling(frame), Some(Handling::CatchesAll | Handling::Ends));
    let is_none = facts.is_unwindable && (end..trace.len()).any(would_be_found);
    let why = if is_none { "and there is none" } else { "and there is none, or nobody catches it" };
    let text = format!("an exception was to be thrown again{place} (`throw;`), {why}");
    sure(facts.is_unwindable, Kind::FailedRethrow, text)
}

/// The program's own function that is behind it.
fn own(trace: &Trace<'_>, begin: usize) -> usize {
    let is_runtimes = |frame: usize| match (trace.name(frame), trace.module(frame)) {
        (_, Some(file)) if is_cxx_runtime(file) => true,
        (Some(name), _) => cxx::is_machinery(name),
        // A static program without names.
        (None, file) => file.is_none(),
    };
    (begin..trace.len()).find(|&frame| !is_runtimes(frame)).unwrap_or(trace.len())
}

/// ` thrown in load`: behind the throw in this frame. Empty where that has no name, and is not the library's own.
fn thrown_in(trace: &Trace<'_>, frame: usize) -> String {
    let is_librarys = |&frame: &usize| trace.name(frame).is_none() && trace.module(frame).is_some_and(is_cxx_runtime);
    let first = (frame + 1..trace.len()).find(|frame| !is_librarys(frame)).unwrap_or(trace.len());
    trace.after_merged(first, "thrown in", cxx::is_throw)
}

/// Why nothing may leave a function at some place.
const WHY: &str = "noexcept, a destructor, or another exception on its way";

/// The name of a frame's function.
fn name(trace: &Trace<'_>, frame: usize) -> Option<String> {
    let name = trace.place(Some(frame), "");
    (!name.is_empty()).then(|| name.trim_start().to_owned())
}

/// The function that an exception met, by what the functions on its way do with one.
fn bound(trace: &Trace<'_>, end: usize) -> String {
    let known = (end..trace.len()).take_while(|&frame| trace.handling(frame).is_some());
    let mut ending = known.filter(|&frame| trace.handling(frame) == Some(Handling::Ends));
    // If functions are inlined into each other, any of them may be the one.
    let first = ending.next().filter(|&first| !trace.is_inlined(first));
    let which = first.and_then(|first| name(trace, first)).unwrap_or_else(|| "a function".to_owned());
    format!("met {which}, which it may not leave there: {WHY}")
}

/// The search for a catch met a function that nothing may leave.
fn at_a_bound(trace: &Trace<'_>, begin: usize, end: usize) -> Option<Diagnosis> {
    let met = bound(trace, end);
    let passed = |is: fn(&str) -> bool| trace.find_from(begin, is).filter(|frame| *frame < end);
    if passed(cxx::is_forced).is_some() {
        let how = if passed(cxx::is_thread_exit).is_some() { "pthread_exit()" } else { "pthread_cancel()" };
        return certain(Kind::ThreadEndThroughNoexcept, format!("the end of the thread by {how} {met}"));
    }
    let text = match passed(cxx::is_throw) {
        Some(frame) => format!("a C++ exception{} {met}", thrown_in(trace, frame)),
        None if passed(cxx::is_resume).is_some() => {
            format!("a C++ exception on its way{} {met}", trace.place(Some(end), "through"))
        }
        None => format!("a C++ exception {met}"),
    };
    certain(Kind::NoexceptViolated, text)
}

#[cfg(test)]
mod tests {
    use super::super::Confidence;
    use super::super::cases::{Case, confidence, kind, signal, text};
    use super::*;

    /// A process that std::terminate() has ended, called by these.
    fn ended(frames: &[&str]) -> Case {
        let begin =
            ["raise", "abort", "__gnu_cxx::__verbose_terminate_handler()", "__cxxabiv1::__terminate(void (*)())"];
        Case { is_unwindable: true, ..signal(6, -6) }.called(&[&begin, frames].concat())
    }

    fn is(case: &Case, expected: Kind, contains: &str) {
        assert_eq!((kind(case), confidence(case)), (Some(expected), Some(Confidence::Certain)), "{:?}", case.frames);
        assert!(text(case).contains(contains), "{}", text(case));
    }

    #[test]
    fn a_catch_that_was_never_reached() {
        let bound =
            ["?", "__gxx_personality_v0", "?", "_Unwind_RaiseException", "__cxa_throw", "load(int)", "apply(int)"];
        is(&ended(&bound), Kind::NoexceptViolated, "thrown in load(int) met a function, which it may not leave there");
        let resumed = ["?", "__gxx_personality_v0", "?", "_Unwind_Resume", "scoped(int)", "apply(int)"];
        is(&ended(&resumed), Kind::NoexceptViolated, "on its way through scoped(int) met");
        let clang = ["std::terminate()", "__clang_call_terminate", "apply(int)", "main"];
        is(&ended(&clang), Kind::NoexceptViolated, "may not leave apply(int) there: noexcept");
    }

    #[test]
    fn nobody_catches_it_if_the_search_came_to_the_end() {
        let thrown = ended(&["std::terminate()", "__cxa_throw", "load(int)", "main"]);
        is(&thrown, Kind::UncaughtException, "thrown in load(int) that nobody catches");
        let cut = Case { is_unwindable: false, ..thrown };
        assert_eq!(confidence(&cut), Some(Confidence::Likely));
        assert!(text(&cut).ends_with("as far as the stack could be searched"));
    }

    #[test]
    fn what_is_thrown_again_may_be_nothing() {
        let again = ended(&["std::terminate()", "__cxa_rethrow", "report()", "main"]);
        is(&again, Kind::FailedRethrow, "thrown again in report() (`throw;`), and there is none, or nobody");
        let in_hand = Case { has_exception: true, ..ended(&["std::terminate()", "__cxa_rethrow", "report()", "main"]) };
        is(&in_hand, Kind::UncaughtException, "thrown again in report() that nobody catches");
        let stored = ["std::terminate()", "std::rethrow_exception(std::__exception_ptr::exception_ptr)", "main"];
        is(&ended(&stored), Kind::UncaughtException, "thrown in main that nobody catches");
    }

    #[test]
    fn tables_say_which_function_it_is_and_whether_there_was_an_exception() {
        let frames =
            ["?", "__gxx_personality_v0", "?", "_Unwind_RaiseException", "__cxa_throw", "load(int)", "apply(int)"];
        let by = |frames: &[&str], handling: &[Handling]| {
            let handling =
                (0..4 + frames.len() - handling.len()).map(|_| None).chain(handling.iter().copied().map(Some));
            Case { handling: handling.collect(), ..ended(frames) }
        };
        let case = by(&frames, &[Handling::Passes, Handling::Ends]);
        is(&case, Kind::NoexceptViolated, "thrown in load(int) met apply(int), which it may not leave there");
        let again = ["std::terminate()", "__cxa_rethrow", "report()", "main"];
        let caught = by(&again, &[Handling::Passes, Handling::CatchesAll]);
        assert!(text(&caught).ends_with("(`throw;`), and there is none"), "{}", text(&caught));
        for other in [Handling::Passes, Handling::Catches] {
            let case = by(&again, &[Handling::Passes, other]);
            assert!(text(&case).ends_with("or nobody catches it"), "{}", text(&case));
        }
    }

    #[test]
    fn the_end_of_a_thread_is_no_exception() {
        let forced = ["std::terminate()", "__gxx_personality_v0", "?", "_Unwind_ForcedUnwind", "__pthread_unwind"];
        let cancelled = [&forced[..], &["__do_cancel", "sigcancel_handler", "?", "pause", "block()"]].concat();
        is(&ended(&cancelled), Kind::ThreadEndThroughNoexcept, "by pthread_cancel() met");
        let exits = [&forced[..], &["__do_cancel", "pthread_exit", "leave()", "start_thread"]].concat();
        is(&ended(&exits), Kind::ThreadEndThroughNoexcept, "by pthread_exit() met");
    }

    #[test]
    fn a_call_by_hand_says_nothing_of_exceptions() {
        is(
            &ended(&["std::terminate()", "give_up()", "main"]),
            Kind::TerminateCalled,
            "calls std::terminate() in give_up()",
        );
        let handler =
            signal(6, -6).called(&["raise", "abort", "on_end()", "?", "std::terminate()", "give_up()", "main"]);
        is(&handler, Kind::TerminateCalled, "in give_up()");
        let inside = ended(&["std::terminate()", "std::__terminate()", "std::thread::~thread()", "main"]);
        is(&inside, Kind::JoinableThread, "before it was joined");
        let outside = ended(&["std::terminate()", "give_up()", "parse()", "std::thread::~thread()", "main"]);
        is(&outside, Kind::TerminateCalled, "in give_up()");
    }
}
