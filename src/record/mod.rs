//! What comes out: the shapes of the records, as docs/output.md has them. A record is made once, when all is known, and nothing
//! takes it apart again. How one looks as text is said in [`crate::output`].

pub mod call;
pub mod crash;
pub mod oom;
pub mod summary;

use serde::Serialize;

/// The version of the records' shapes, in every record. Fields are added under the same number.
pub const SCHEMA: u32 = 1;

/// A record that can be written either way.
pub trait Record: Serialize {
    /// The text of the record, with a newline at its end.
    fn text(&self) -> String;
}
