//! What the runtime of a language said before it ended a process: from its own memory, as the kernel program has found it there.

use std::borrow::Cow;

use super::stack::StackWords;
use super::{cxx, go, rust, v8};
use crate::evidence::{Frame, Functions};
use crate::probe::abi::fl_crash;

/// A language's runtime, and what it said.
#[derive(Clone, Debug, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
pub struct RuntimeMessage {
    /// `go`, `rust`, `c++`, `v8`.
    pub runtime: Cow<'static, str>,
    /// The text as the runtime had it; what is longer than 255 bytes is cut.
    pub text: String,
}

/// What was said before the death in `raw`, whose stack is `frames`, and begins with the words `stack`. `go_callers`: the functions of
/// [`go::callers`].
pub(crate) fn of(
    raw: &fl_crash,
    frames: &[Frame],
    stack: &StackWords,
    go_callers: &[Functions],
) -> Option<RuntimeMessage> {
    let said =
        |runtime: &'static str, text: Option<String>| Some(RuntimeMessage { runtime: runtime.into(), text: text? });
    said("go", go::thrown(raw, go_callers).or_else(|| go::panic(raw)))
        .or_else(|| said("rust", rust::message(raw, frames, stack)))
        .or_else(|| said(cxx::RUNTIME, cxx::what(raw, frames)))
        .or_else(|| said("v8", v8::message(frames, stack)))
}
