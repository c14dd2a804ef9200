//! One fact changed per assertion.

use super::*;
use crate::arch::Call;

const FAULT: Kind<'static> = Kind { signal: "SIGSEGV", fault: Some("map_error") };

const ABORT: Kind<'static> = Kind { signal: "SIGABRT", fault: None };

fn place(offset: u64) -> Place {
    Place { file: "abcd".to_owned(), at: At::Offset(offset) }
}

fn signature_of(kind: Kind<'_>, executable: Option<&str>, places: &[Place]) -> String {
    signature(kind, false, executable, places, None)
}

fn function(name: &str) -> Function {
    Function { name: name.to_owned(), offset: Some(1), file: None, line: None, inlined: false }
}

/// A stack of frames `MODULE!FUNCTION`, or of several functions of one frame, `MODULE!INLINED<FUNCTION`; `-` has no name, `?` no file. One that ends
/// with a `*` was called through a pointer.
fn trail(stack: &[&str]) -> Trail {
    trail_of(stack, false)
}

fn trail_of(stack: &[&str], is_cut: bool) -> Trail {
    let mut tracker = Tracker::default();
    for (at, frame) in (1..).zip(stack) {
        let (frame, call) = frame.strip_suffix('*').map_or((*frame, Call::ByName), |frame| (frame, Call::ByPointer));
        let (module, names) = frame.split_once('!').unwrap_or(("app", frame));
        let mut functions: Vec<Function> = names.split('<').filter(|name| *name != "-").map(function).collect();
        if let Some((_, inlined)) = functions.split_last_mut() {
            inlined.iter_mut().for_each(|function| function.inlined = true);
        }
        let path = format!("/x/{module}");
        let begin: u64 = names.split('<').next_back().unwrap().bytes().map(u64::from).sum();
        let file = module.bytes().map(usize::from).sum::<usize>() % 7;
        let place = (frame != "?").then_some((file, begin * 0x1000 + at));
        let call = Some(call);
        tracker.add(&Step { place, begin: Some(begin), call, module: Some(&path), functions: &functions });
    }
    tracker.end(is_cut)
}

fn functions(stack: &[&str]) -> Vec<String> {
    trail(stack).functions.iter().map(|one| one.name.trim_start_matches("app!").to_owned()).collect()
}

fn named() -> Named {
    Named { file: 0, name: "f".to_owned(), in_circle: false }
}

fn family_of(stack: &[&str]) -> Option<String> {
    family(FAULT, &trail(stack))
}

#[test]
fn a_signature_is_16_digits_that_never_change() {
    // printf the lines into sha256sum and cut 16 digits. Dashboards and bug trackers keep these: a change here is a change of everybody's names.
    assert_eq!(signature_of(FAULT, None, &[place(0x1139), place(0x1160)]), "29331e2ec202067f");
    assert_eq!(family_of(&["app!f", "app!main"]).as_deref(), Some("0eb032200d4e7ed5"));
}

#[test]
fn each_part_of_a_signature_counts() {
    let base = signature_of(FAULT, None, &[place(1)]);
    assert_eq!(base.len(), 16);
    assert_ne!(base, signature_of(Kind { signal: "SIGBUS", ..FAULT }, None, &[place(1)]));
    assert_ne!(base, signature_of(Kind { fault: Some("bounds_error"), ..FAULT }, None, &[place(1)]));
    assert_ne!(base, signature_of(Kind { fault: None, ..FAULT }, None, &[place(1)]));
    assert_ne!(base, signature_of(FAULT, None, &[place(2)]));
    assert_ne!(base, signature_of(FAULT, None, &[place(1), place(1)]));
    assert_ne!(
        base,
        signature(FAULT, true, None, &[place(1)], None),
        "what a call to nowhere was made by, did not fault itself"
    );
    let named = Place { file: file_text(None, Some("/x/abcd")).unwrap(), at: At::Offset(1) };
    assert_ne!(base, signature_of(FAULT, None, &[named]));
}

#[test]
fn where_a_frame_is_inlined_a_signature_is_made_of_functions() {
    let places = |stack: &[&str]| trail(stack).places(ABORT, |number| Some(number.to_string()));
    let (named, spot) = places(&["f<g", "main"]);
    assert!(matches!(&named[..], [Place { at: At::Function(f), .. }, _, _] if f == "app!f"), "{named:?}");
    assert_eq!(spot, Some(Spot::Offset(1)));
    assert!(trail(&["f", "f<f", "main"]).is_inlined, "in another call of it");
    assert_eq!(trail(&["f<f<f", "main"]).spot, None, "it is chance which of its calls failed");
    // What needs no names is the same without them.
    assert_eq!(places(&["f", "main"]).0.len(), 2);
    assert!(places(&["f", "main"]).0.iter().all(|place| matches!(place.at, At::Offset(_))));
    assert_eq!(trail(&["f", "main"]).places.len(), trail(&["f", "-"]).places.len());
    assert!(
        matches!(&places(&["std::vector::at<f", "main"]).0[0].at, At::Offset(_)),
        "what says nothing may be inlined"
    );
    let of = |kind, line| {
        let line = Some(Spot::Line(line));
        let trail = Trail { spot: line, ..trail(&["f<g", "main"]) };
        let (named, spot) = trail.places(kind, |number| Some(number.to_string()));
        signature(kind, false, None, &named, spot)
    };
    assert_ne!(of(ABORT, 1), of(ABORT, 2), "two checks in one function");
    assert_ne!(
        of(Kind { fault: Some("divide_by_zero"), ..FAULT }, 1),
        of(Kind { fault: Some("divide_by_zero"), ..FAULT }, 2)
    );
    assert_eq!(of(FAULT, 1), of(FAULT, 2), "it is chance where bad memory is touched first");
}

#[test]
fn where_in_a_function_bad_memory_is_accessed_is_chance() {
    let of = |kind: Kind<'_>, stack: &[&str]| trail(stack).places(kind, |number| Some(number.to_string())).0;
    // The functions of this name begin at one place; the number of frames before makes another place in it.
    let (first, second) = (["f", "main"], ["core::x", "f", "main"]);
    assert_eq!(of(FAULT, &first)[0], of(FAULT, &second)[0]);
    assert_eq!(of(FAULT, &first)[0].at, At::Called, "which needs no file");
    assert!(matches!(of(FAULT, &["f"])[0].at, At::Offset(begin) if begin == u64::from(b'f')), "nothing calls it");
    // Through a pointer any function may be called.
    assert_ne!(of(FAULT, &["f*", "run"])[0], of(FAULT, &["g*", "run"])[0]);
    assert_ne!(of(FAULT, &["f", "std::invoke*", "run"])[0], of(FAULT, &["g", "std::invoke*", "run"])[0]);
    assert_eq!(of(FAULT, &["f*", "run"])[0], of(FAULT, &["core::x", "f*", "run"])[0]);
    assert_ne!(of(ABORT, &first)[0], of(ABORT, &second)[0], "a check fails in its place");
    assert_ne!(of(FAULT, &first)[1], of(FAULT, &second)[1], "calls have their places");
    // Which call it was is no chance.
    assert_ne!(of(FAULT, &["?", "f", "main"])[0], of(FAULT, &["?", "core::x", "f", "main"])[0]);
    let in_libc = ["libc.so.6!memcpy", "f", "main"];
    assert_ne!(of(FAULT, &in_libc)[0], of(FAULT, &["libc.so.6!memcpy", "core::x", "f", "main"])[0]);
}

#[test]
fn a_function_that_calls_through_a_pointer_is_the_last_that_counts() {
    assert_eq!(functions(&["task*", "run", "main"]), ["task", "run"]);
    assert_eq!(trail(&["task*", "run", "main"]).places.len(), 2);
    assert_eq!(functions(&["f", "task*", "run", "main"]), ["f", "task", "run"]);
    assert_eq!(functions(&["task*", "run<loop", "main"]), ["task", "run"], "the inlined one has called it");
    assert_eq!(functions(&["task", "run*", "main"]), ["task", "run", "main"]);
    assert_eq!(functions(&["-*", "run", "main"]), Vec::<String>::new());
    assert_eq!(trail(&["one!-*", "two!-", "six!-"]).places.len(), 2, "names make no difference");
    // What is called, or calls, must mean something.
    assert_eq!(functions(&["?*", "run", "main"]), ["run", "main"]);
    assert_eq!(functions(&["libc.so.6!__cxa_pure_virtual*", "f", "g", "main"]), ["f", "g", "main"]);
    assert_eq!(functions(&["compare*", "libc.so.6!qsort", "sort", "main"]), ["compare", "sort", "main"]);
    assert_eq!(functions(&["f*", "std::function::operator()<fire", "start"]), ["f", "fire", "start"]);
    // It is a recursion nevertheless.
    let deep = ["visit*", "each"].repeat(50);
    assert_eq!(trail_of(&deep, true).functions, trail_of(&deep[1..], true).functions);
}

#[test]
fn a_closure_is_a_part_of_the_function_that_hands_it_over() {
    let inlined = "operator()<std::sort<sort";
    for stack in [&["operator()", "std::sort", "sort", "main"][..], &[inlined, "main"], &["std::sort", "sort", "main"]]
    {
        assert_eq!(functions(stack), ["sort", "main"], "{stack:?}");
        assert_eq!(trail(stack).places.len(), 2, "{stack:?}");
    }
    assert_eq!(functions(&["f", "app::g::{{closure}}", "app::g", "main"]), ["f", "app::g", "main"]);
    assert_eq!(functions(&["app::g::{{closure}}", "app::g::{closure#1}", "app::g"]), ["app::g"]);
    // The spot is the closure's.
    let spot = |stack: &[&str]| trail(stack).spot;
    assert_eq!(spot(&["operator()", "sort"]), Some(Spot::Offset(1)));
    // Called through a pointer it counts: what made it may be gone.
    assert_eq!(functions(&["operator()*", "std::function::operator()", "fire"]), ["{closure}", "fire"]);
    assert_eq!(functions(&["operator()", "std::invoke*", "fire"]), ["{closure}", "fire"]);
    assert_eq!(functions(&["operator()*", "fire", "main"]), ["{closure}", "fire"]);
    assert_eq!(trail(&["operator()*", "fire", "main"]).places.len(), 2);
    assert_eq!(functions(&["operator()", "std::thread::run*", "libc.so.6!start_thread"]), ["{closure}"]);
    assert_eq!(functions(&["operator()"]), ["{closure}"]);
    // So does what the compiler has made a call by name of.
    for stack in [
        &["app::g::{{closure}}*", "alloc::boxed::Box::call", "press", "main"][..],
        &["app::g::{{closure}}", "alloc::boxed::Box::call<press", "main"],
        &["app::g::{{closure}}<alloc::boxed::Box::call_once<press", "main"],
    ] {
        assert_eq!(functions(stack), ["app::g::{closure}", "press", "main"], "{stack:?}");
    }
    let invoked = "operator()<std::__invoke_impl<std::_Function_handler::_M_invoke<std::function::operator()<fire";
    assert_eq!(functions(&[invoked, "main"]), ["{closure}", "fire", "main"]);
}

#[test]
fn what_a_wild_pointer_meets_is_chance() {
    let of = |fault| signature_of(Kind { fault: Some(fault), ..FAULT }, None, &[place(1)]);
    assert_eq!(of("map_error"), of("access_error"));
    assert_eq!(of("map_error"), of("general_protection"));
}

#[test]
fn an_executable_counts_where_no_frame_is_in_it() {
    let in_library = |executable: Option<&str>| signature_of(FAULT, executable, &[place(1)]);
    assert_ne!(in_library(Some("one")), in_library(Some("two")));
    assert_ne!(in_library(Some("one")), in_library(None));
    assert_eq!(in_library(Some("abcd")), in_library(None), "it is named already");
}

#[test]
fn frames_that_say_nothing_are_skipped() {
    let stack = ["libc.so.6!-", "libc.so.6!raise", "libc.so.6!abort", "f", "main"];
    assert_eq!(functions(&stack), ["f", "main"]);
    assert_eq!(trail(&stack).places.len(), 2);
    assert_eq!(functions(&["raise", "abort", "rust_panic", "core::panicking::panic", "app::f"]), ["app::f"]);
    assert_eq!(functions(&["f", "__restore_rt", "g"]), ["f", "g"]);
    assert_eq!(functions(&["libc.so.6!raise", "libc.so.6!abort"]), ["libc!raise", "libc!abort"], "there are no others");
}

/// Where compilers have put code together of several functions', it has no line, and the file of any of them.
#[test]
fn code_without_a_line_is_no_librarys() {
    let of = |line| {
        let file = Some("/usr/include/c++/12/bits/std_thread.h".to_owned());
        let functions = [Function { file, line, ..function("app::begin(int)") }];
        let mut tracker = Tracker::default();
        tracker.add(&Step {
            place: Some((0, 1)),
            begin: None,
            call: None,
            module: Some("/x/app"),
            functions: &functions,
        });
        tracker.add(&Step {
            place: Some((0, 2)),
            begin: None,
            call: None,
            module: Some("/x/app"),
            functions: &[function("main")],
        });
        tracker.end(false).functions.len()
    };
    assert_eq!((of(Some(1)), of(None)), (1, 2));
}

#[test]
fn callers_of_nowhere_count() {
    assert_eq!(functions(&["?", "f", "main"]), ["f", "main"]);
    assert_ne!(family_of(&["?", "f", "main"]), family_of(&["f", "main"]));
    assert_eq!(family_of(&["f", "?", "main"]), family_of(&["f", "main"]), "code that was made at run time");
}

#[test]
fn recursion_is_folded() {
    for stack in [&["f", "walk", "walk", "main"][..], &["f", "walk", "walk", "walk", "other"]] {
        assert_eq!(family_of(stack), family_of(&["f", "walk", "walk"]));
        assert_eq!(trail(stack).places.len(), 2, "by where functions begin, not by where they call themselves");
    }
    assert_eq!(family_of(&["a", "b", "a", "b", "main"]), family_of(&["a", "b", "a", "x"]));
}

/// GCC splits a function that begins with a check: the rest of it is inlined in itself.
#[test]
fn a_split_function_is_no_recursion() {
    assert_eq!(functions(&["f<f", "g", "main"]), ["f", "g", "main"]);
    assert_eq!(functions(&["f<f<g", "main"]), ["f", "g", "main"]);
    assert_eq!(functions(&["f<f<f", "g", "main"]), ["f"]);
    assert_eq!(functions(&["f<f", "f<f", "g", "main"]), ["f"]);
    assert_eq!(functions(&["std::sort(int)<sorting::sort(int)", "main"]), ["sort", "main"], "another function");
}

#[test]
fn in_which_function_of_a_circle_bad_memory_is_accessed_is_chance() {
    let (odd, even) = (["odd", "even", "odd", "even", "main"], ["even", "odd", "even", "main", "_start"]);
    assert_eq!(family_of(&odd), family_of(&even));
    let places = |kind, stack: &[&str]| trail(stack).places(kind, |number| Some(number.to_string())).0;
    assert_eq!(places(FAULT, &odd), places(FAULT, &even));
    let inlined = |stack: &[&str]| places(FAULT, stack).into_iter().map(|place| place.at).collect::<Vec<_>>();
    assert_eq!(inlined(&["odd<even", "odd<even", "main"]), inlined(&["even", "odd<even", "odd", "main"]));
    // A check fails in its function.
    let aborted = |stack: &[&str]| family(ABORT, &trail(stack));
    assert_ne!(aborted(&odd), aborted(&even));
    assert_ne!(places(ABORT, &odd)[0], places(ABORT, &even)[0]);
    // Which of them has called what failed is always chance.
    assert_eq!(aborted(&["f", "odd", "even", "odd", "main"]), aborted(&["f", "even", "odd", "even", "main"]));
    let called = |stack: &[&str]| places(ABORT, stack)[1..].to_vec();
    assert_eq!(called(&["f", "odd", "even", "odd", "main"]), called(&["f", "even", "odd", "even", "main"]));
    assert_ne!(family_of(&["odd", "even", "main"]), family_of(&["even", "odd", "main"]), "it is no circle");
}

#[test]
fn it_makes_no_difference_what_is_inlined() {
    assert_eq!(family_of(&["f<g<main"]), family_of(&["f", "g", "main"]));
    assert_eq!(family_of(&["f<walk", "walk<walk", "main"]), family_of(&["f", "walk", "walk", "walk", "walk", "main"]));
    assert_eq!(family_of(&["std::vector::at<f", "main"]), family_of(&["f", "main"]));
    assert_eq!(family_of(&["f.part.0", "g.constprop.1.cold", "main"]), family_of(&["f", "g", "main"]));
}

#[test]
fn where_the_stack_is_cut_makes_no_difference_behind_what_counts() {
    assert_eq!(family_of(&["f", "g", "h"]), family_of(&["f", "g", "h", "main"]));
    let deep = ["walk"; 100];
    assert_eq!(trail_of(&deep, true).functions, trail(&["walk", "walk", "main"]).functions);
    // Wherever in the function.
    assert_eq!(trail_of(&["walk"; 100], true).places, trail_of(&[&["core::x"], &deep[..]].concat(), true).places);
    let cycle = |begin: usize| trail_of(&["x", "y", "z"].repeat(40)[begin..], true);
    assert_eq!(cycle(0), cycle(1), "it is chance which of them used up the stack");
    assert_eq!(cycle(0).functions.len(), 3);
    // The frame of what overran its buffer is overwritten.
    assert_eq!(
        family_of(&["libc.so.6!__stack_chk_fail", "f", "junk"]),
        family_of(&["libc.so.6!__stack_chk_fail", "f", "main"])
    );
    assert_eq!(trail(&["libc.so.6!__stack_chk_fail", "f", "junk"]).places.len(), 1);
}

#[test]
fn without_names_there_is_no_family() {
    assert_eq!(family_of(&["-", "main"]), None);
    assert_eq!(trail(&["-", "main"]).places.len(), 2);
    assert!(family_of(&["libc.so.6!-", "f"]).is_some(), "the runtime needs none");
    assert_eq!(family_of(&["f", "libx.so!-", "main"]), family_of(&["f", "main"]));
}

#[test]
fn what_a_debug_file_names_makes_the_family_only() {
    let (stripped, named) = (trail(&["-", "main"]), trail(&["f<g", "main"]));
    let both = stripped.clone().with_family_of(named.clone());
    assert_eq!(family(FAULT, &both), family(FAULT, &named));
    let places = |trail: &Trail| trail.places(FAULT, |number| Some(number.to_string()));
    assert_eq!(places(&both), places(&stripped));
    assert_ne!(places(&both), places(&named), "f is inlined");
}

#[test]
fn a_module_counts_without_its_version() {
    assert_ne!(family_of(&["one!main"]), family_of(&["two!main"]));
    assert_eq!(family_of(&["libx.so.1!f"]), family_of(&["libx.so.2.3!f"]));
}

#[test]
fn what_comes_from_outside_is_judged() {
    let good = trail(&["f", "main"]);
    assert!(good.fits(7));
    assert!(!good.fits(0), "a file that there is not");
    assert!(!Trail { functions: vec![Named { file: 7, ..named() }], ..good.clone() }.fits(7));
    assert!(
        !Trail { functions: vec![Named { name: "f".repeat(NAME_BYTES_MAX + 1), ..named() }], ..good.clone() }.fits(7)
    );
    assert!(!Trail { family: vec![Named { file: 7, ..named() }], ..good.clone() }.fits(7));
    assert!(!Trail { places: vec![(0, 0); PLACES_MAX + 1], ..good.clone() }.fits(7));
    assert!(!Trail { circle: vec![(0, 0); PLACES_MAX + 1], ..good.clone() }.fits(7));
    assert!(!Trail { circle: vec![(7, 0)], ..good }.fits(7));
    assert!(trail(&[&format!("app!{}", "f".repeat(5000))]).fits(7));
}
