//! Follows a stack from the innermost frame outwards, and keeps the frames that count.
//!
//! Two kinds of functions mean something only together with others:
//! - A *closure* that is called by name is a part of the function that hands it over, and compilers inline it there or don't: that function
//!   counts in its place. One that is called through a pointer counts itself, because what made it may be gone.
//! - A function that calls another one through a pointer (from a queue of tasks, in a main loop, in a pool of threads) does so for all that
//!   it is given. How the program came to it has nothing to do with what it called: it is the last function that counts.

use super::fold::{Fold, Kept};
use super::{Entry, NAME_BYTES_MAX, Named, Spot, Step, Trail, names, silent};
use crate::arch::Call;
use crate::evidence::Function;

/// Makes a trail of a stack, innermost frame first.
#[derive(Default)]
pub(crate) struct Tracker {
    is_begun: bool,
    is_jump: bool,
    counted: Frames,
    /// The first function that counts has no name.
    is_unnamed: bool,
    /// Where the function of the first place that counts begins. `None` means that it isn't known.
    begin: Option<u64>,
    /// It matters where in it.
    is_exact: bool,
    /// A call on the way to it went through a pointer: the next place that counts doesn't say which function it is.
    is_any_function: bool,
    /// The frames that were skipped: they count if there are no others.
    silent: Frames,
    /// It counts only if it turns out to be called through a pointer.
    closure: Option<Closure>,
    /// The frame before counts, and was called through a pointer.
    is_called_by_pointer: bool,
    /// The file of the frame before.
    file: Option<usize>,
    /// More than one file was passed.
    is_elsewhere: bool,
}

/// A function by its file, and by where it begins, or else by the place in it.
type PlaceKey = (usize, Result<u64, u64>);

#[derive(Default)]
struct Frames {
    places: Fold<PlaceKey, (usize, u64)>,
    functions: Fold<String, Detail>,
    /// What is added next is the last that counts.
    ends_places: bool,
    ends_functions: bool,
}

struct Closure {
    name: String,
    detail: Detail,
    /// `None` means that it is inlined.
    place: Option<Place>,
}

#[derive(Clone, Copy)]
struct Place {
    file: usize,
    offset: u64,
    begin: Option<u64>,
}

/// What is known of a function beside its name.
#[derive(Clone, Copy, Debug)]
struct Detail {
    file: usize,
    spot: Option<Spot>,
    is_inlined: bool,
}

impl Detail {
    /// Another call of the function, further out.
    fn merge(&mut self, again: Self) {
        self.is_inlined |= again.is_inlined;
    }
}

impl Frames {
    fn add_place(&mut self, place: Place) {
        let key = (place.file, place.begin.ok_or(place.offset));
        self.places.add(key, (place.file, place.offset), |_, _| ());
        if std::mem::take(&mut self.ends_places) {
            self.places.end();
        }
    }

    fn add_function(&mut self, name: String, detail: Detail) {
        self.functions.add(name, detail, Detail::merge);
        if std::mem::take(&mut self.ends_functions) {
            self.functions.end();
        }
    }
}

impl Tracker {
    /// Are more frames wanted?
    pub(crate) fn wants_more(&self) -> bool {
        !(self.counted.places.is_full() && (self.counted.functions.is_full() || self.is_unnamed))
    }

    /// Adds the next frame.
    pub(crate) fn add(&mut self, step: &Step<'_>) {
        let is_innermost = !std::mem::replace(&mut self.is_begun, true);
        let is_callee_by_pointer = std::mem::take(&mut self.is_called_by_pointer);
        let Some((file, offset)) = step.place else {
            // A call to nowhere, or code that was made at run time and has no lasting place: the caller counts.
            self.is_jump |= is_innermost;
            self.keep_closure();
            return;
        };
        self.is_elsewhere |= self.file.replace(file).is_some_and(|inner| inner != file);
        let module = step.module.map(silent::stem).unwrap_or_default();
        let is_runtime = silent::is_module(module);
        let named = step.functions.iter().map(|function| named(function, file));
        let named = named.map(|(name, is_silent, detail)| (name, is_silent || is_runtime, detail)).collect();
        let named = with_split_as_one(named);
        if is_callee_by_pointer && !named.first().map_or(is_runtime, |(_, is_silent, _)| *is_silent) {
            (self.counted.ends_places, self.counted.ends_functions) = (true, true);
        }
        if named.is_empty() && !is_runtime {
            self.keep_closure();
            self.is_unnamed |= self.counted.functions.is_empty();
        }
        for (name, is_silent, detail) in &named {
            self.add_function(module, name, *is_silent, *detail);
        }
        let place = Place { file, offset, begin: step.begin };
        let is_silent = named.last().map_or(is_runtime, |(_, is_silent, _)| *is_silent);
        match &mut self.closure {
            _ if is_silent => self.silent.add_place(place),
            Some(closure) if named.last().is_some_and(|(name, ..)| names::is_closure(name)) => {
                closure.place = Some(place);
            }
            _ => self.count_place(place),
        }
        if step.call != Some(Call::ByName) {
            self.keep_closure();
        }
        self.is_any_function |= self.counted.places.is_single() && step.call == Some(Call::ByPointer);
        self.is_called_by_pointer = step.call == Some(Call::ByPointer) && !is_silent;
    }

    fn add_function(&mut self, module: &str, name: &str, is_silent: bool, mut detail: Detail) {
        let whole = silent::whole(module, name, NAME_BYTES_MAX);
        if is_silent {
            self.silent.add_function(whole, detail);
            if silent::is_caller_by_pointer(name) {
                self.keep_closure();
            }
        } else {
            // A closure's line is a line of the function that counts in its place.
            let inner = self.closure.take().filter(|_| self.counted.functions.is_empty());
            detail.spot = inner.map_or(detail.spot, |closure| closure.detail.spot);
            if names::is_closure(name) {
                self.closure = Some(Closure { name: whole, detail, place: None });
            } else {
                self.counted.add_function(whole, detail);
            }
        }
        if silent::is_last_but_one(name) {
            // The stack above its caller is overwritten.
            self.counted.places.end_after_next();
            self.counted.functions.end_after_next();
        }
    }

    fn count_place(&mut self, place: Place) {
        if self.counted.places.is_empty() {
            self.begin = place.begin;
            self.is_exact = self.is_jump || self.is_elsewhere;
        }
        self.counted.add_place(place);
    }

    /// No function counts in place of the closure.
    fn keep_closure(&mut self) {
        let Some(closure) = self.closure.take() else { return };
        if let Some(place) = closure.place {
            self.count_place(place);
        }
        self.counted.add_function(closure.name, closure.detail);
    }

    /// The trail. `is_cut`: the outermost frame was not reached.
    pub(crate) fn end(mut self, is_cut: bool) -> Trail {
        self.keep_closure();
        let Self { counted, silent, .. } = self;
        let is_exact = self.is_exact || counted.places.is_empty();
        let places = if counted.places.is_empty() { silent.places } else { counted.places };
        let functions = match (self.is_unnamed, counted.functions.is_empty()) {
            (true, _) => Fold::default(),
            (false, true) => silent.functions,
            (false, false) => counted.functions,
        };
        let places = places.into_kept(is_cut);
        let is_innermost = places.first().is_some_and(|kept| kept.in_circle);
        let begin = |kept: &Kept<PlaceKey, (usize, u64)>| match kept.key {
            (file, Ok(begin)) => (file, begin),
            _ => kept.value,
        };
        // Where a recursion used up the stack, or has called what failed, it is chance which of its calls was the last one.
        let place = |kept: &Kept<PlaceKey, (usize, u64)>| match kept.recurs && is_cut || kept.in_circle && !is_innermost
        {
            true => begin(kept),
            false => kept.value,
        };
        let mut circle: Vec<(usize, u64)> = places.iter().filter(|_| is_innermost).map(begin).collect();
        circle.sort_unstable();
        let entry = match &places[..] {
            _ if is_exact => None,
            // If a recursion used up the stack, any of its functions may be the first.
            [first, ..] if first.recurs && is_cut => None,
            [first, _, ..] if !first.recurs && !self.is_any_function => Some(Entry::Call),
            _ => self.begin.map(Entry::Begin),
        };
        let functions = functions.into_kept(is_cut);
        let spot = functions.first().filter(|kept| !kept.recurs).and_then(|kept| kept.value.spot);
        let is_inlined = functions.iter().any(|kept| kept.value.is_inlined);
        let is_innermost = functions.first().is_some_and(|kept| kept.in_circle);
        let name = |Kept { key, value, in_circle, .. }: Kept<String, Detail>| Named {
            file: value.file,
            name: key,
            in_circle: in_circle && is_innermost,
        };
        let functions: Vec<Named> = functions.into_iter().map(name).collect();
        Trail {
            is_jump: self.is_jump,
            places: places.iter().map(place).collect(),
            circle,
            entry,
            is_inlined,
            family: functions.clone(),
            functions,
            spot,
        }
    }
}

/// The functions of a frame, innermost first, each that is split as one: GCC inlines the beginning of a function into its callers, and the
/// rest of it is then inlined in the function itself, once. A recursion that is inlined is so more often, or goes on in the next frame.
fn with_split_as_one(mut named: Vec<(String, bool, Detail)>) -> Vec<(String, bool, Detail)> {
    let mut at = 0;
    while let Some((name, is_silent, _)) = named.get(at) {
        let is_same =
            |(other, is_other_silent, _): &&(String, bool, Detail)| other == name && is_other_silent == is_silent;
        let same = named[at..].iter().take_while(is_same).count();
        let is_split = same == 2 && !is_silent && !names::is_closure(name);
        if is_split {
            named.remove(at + 1);
        }
        at += if is_split { 1 } else { same };
    }
    named
}

/// The normalized name of a function, whether it says nothing, and the rest. `file` is the number of its file.
fn named(function: &Function, file: usize) -> (String, bool, Detail) {
    let path = names::normalize(&function.name);
    // Code without a line may have been put together of several functions', and its file is that of any of them.
    let source = function.file.as_deref().filter(|_| function.line.is_some());
    let is_librarys = source.is_some_and(silent::is_source);
    let is_silent = is_librarys || silent::is_function(&path);
    let spot = function.line.map(Spot::Line).or(function.offset.map(Spot::Offset));
    (names::short(&function.name, path), is_silent, Detail { file, spot, is_inlined: function.inlined })
}
