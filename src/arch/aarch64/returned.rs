//! What a small function returns that is given an object, as far as its code says so: it is not followed yet.

/// A value that such a function works with.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Returned {
    /// Not known.
    Nothing,
    /// The address of the object, and so many bytes.
    Object(u64),
    /// The word of the object at this offset.
    Member(u64),
    /// The result of a function that was given the address of the object and so many bytes.
    Result(u64),
    /// This address.
    Constant(u64),
}

/// Follows the code of a function, which begins at `start` and is given the address of an object, to its result.
pub(crate) fn returned(_code: &[u8], _start: u64) -> Option<Returned> {
    None
}
