//! Names the frames of one stack, innermost first, as far as a record says where they are.

use super::{Names, Place};
use crate::evidence::Function;

/// Where the kernel returns to from a handler, as libcs and vDSOs call it: what is behind it was interrupted, and called nothing.
const TRAMPOLINES: [&str; 3] = ["__restore_rt", "__restore", "__kernel_rt_sigreturn"];

/// A frame that is in a record, with the functions that are inlined into it.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Naked {
    /// Where it is; the last field is not used. `None` means that the record doesn't say.
    pub place: Option<Place>,
    /// The name that the record has.
    pub symbol: Option<String>,
    /// It has file and line.
    pub has_line: bool,
}

/// What was found for a frame: its functions, innermost first. `None` means nothing that the record doesn't have.
pub(crate) type Named = Option<Vec<Function>>;

/// Names those that lack a name or a line.
pub(crate) fn name_stack(names: &mut Names, frames: &[Naked]) -> Vec<Named> {
    let both = |place: &Place| [false, true].map(|is_return_address| Place { is_return_address, ..place.clone() });
    let places: Vec<Place> = frames
        .iter()
        .filter(|frame| frame.lacks_some())
        .filter_map(|frame| frame.place.as_ref())
        .flat_map(both)
        .collect();
    let found = names.functions(&places);
    let mut found = found.chunks_exact(2);
    let mut inner = Inner::None;
    let mut named = Vec::with_capacity(frames.len());
    for frame in frames {
        let pair = frame.place.as_ref().filter(|_| frame.lacks_some()).and_then(|_| found.next());
        let better = match pair {
            Some([exact, call]) => choose(inner, exact, call).filter(|functions| frame.is_improved_by(functions)),
            _ => None,
        };
        let symbol = better.as_ref().and_then(|functions| functions.last()).map(|function| function.name.clone());
        inner = Inner::of(symbol.as_deref().or(frame.symbol.as_deref()));
        named.push(better);
    }
    named
}

/// What the frame inside of one is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Inner {
    /// There is none: the frame is where the thread was.
    None,
    /// It was called.
    Function,
    /// The frame was interrupted.
    Trampoline,
    /// It has no name, and may be either.
    Unknown,
}

impl Inner {
    fn of(symbol: Option<&str>) -> Self {
        match symbol {
            None => Self::Unknown,
            Some(symbol) if is_trampoline(symbol) => Self::Trampoline,
            Some(_) => Self::Function,
        }
    }
}

fn is_trampoline(symbol: &str) -> bool {
    let name = symbol.rsplit_once("+0x").map_or(symbol, |(name, _)| name);
    TRAMPOLINES.contains(&name)
}

/// The functions of a frame: of its address, or of the call before it. `None` means that it isn't known which of the two.
fn choose(inner: Inner, exact: &[Function], call: &[Function]) -> Option<Vec<Function>> {
    // It is called by nobody, and returned to.
    if exact.last().is_some_and(|function| is_trampoline(&function.name)) {
        return Some(exact.to_vec());
    }
    let same =
        |one: &Function, other: &Function| (&one.name, &one.file, one.line) == (&other.name, &other.file, other.line);
    match inner {
        Inner::None | Inner::Trampoline => Some(exact.to_vec()),
        Inner::Function => Some(call.to_vec()),
        Inner::Unknown => {
            let are_same = exact.len() == call.len() && exact.iter().zip(call).all(|(one, other)| same(one, other));
            are_same.then(|| call.to_vec())
        }
    }
}

impl Naked {
    fn lacks_some(&self) -> bool {
        self.symbol.is_none() || !self.has_line
    }

    fn is_improved_by(&self, functions: &[Function]) -> bool {
        let has_line = functions.iter().any(|function| function.line.is_some());
        !functions.is_empty() && (self.symbol.is_none() || (has_line && !self.has_line))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn function(name: &str, line: Option<u32>) -> Vec<Function> {
        let file = line.map(|_| "x.c".to_owned());
        vec![Function { name: name.to_owned(), offset: Some(1), file, line, inlined: false }]
    }

    #[test]
    fn a_caller_is_where_its_call_is() {
        let (exact, call) = (function("next", None), function("caller", None));
        assert_eq!(choose(Inner::None, &exact, &call), Some(exact.clone()));
        assert_eq!(choose(Inner::Function, &exact, &call), Some(call.clone()));
        assert_eq!(choose(Inner::Trampoline, &exact, &call), Some(exact.clone()), "it was interrupted");
        assert_eq!(choose(Inner::Unknown, &exact, &call), None, "it can't be told which");
        assert_eq!(choose(Inner::Unknown, &call, &call), Some(call.clone()));
        let other_line = (function("caller", Some(3)), function("caller", Some(4)));
        assert_eq!(choose(Inner::Unknown, &other_line.0, &other_line.1), None, "nor which line");
        let trampoline = function("__restore_rt", None);
        assert_eq!(choose(Inner::Function, &trampoline, &call), Some(trampoline.clone()));
    }

    #[test]
    fn what_a_record_has_is_not_made_worse() {
        let named = Naked { symbol: Some("main+0x1".to_owned()), ..Naked::default() };
        assert!(named.is_improved_by(&function("main", Some(3))));
        assert!(!named.is_improved_by(&function("main", None)) && !named.is_improved_by(&[]));
        let whole = Naked { has_line: true, ..named.clone() };
        assert!(!whole.lacks_some() && named.lacks_some());
        assert!(Naked::default().is_improved_by(&function("main", None)));
        assert_eq!(Inner::of(Some("__restore_rt+0x0")), Inner::Trampoline);
        assert_eq!((Inner::of(Some("main")), Inner::of(None)), (Inner::Function, Inner::Unknown));
    }
}
