//! The part of a stack in which runtimes keep what they said.

/// How many words of a stack are looked at.
pub(crate) const STACK_WORDS: u64 = 256;

/// The innermost words of a stack, and the address of the first one.
#[derive(Clone, Debug, Default)]
pub(crate) struct StackWords {
    pub(crate) start: u64,
    pub(crate) words: Vec<u64>,
}
