//! What this package's own tests reach directly. It is no part of the API: anything in it may change or go at any time.
//!
//! It is public because the guests of each kernel run the programs of `tests/`, not the library's unit tests. These tests record calls by
//! plans that no command line makes (one fetch, one flag, one way to attach), and look at samples before they become records.
//! `tests/abi.rs` compares the types with both builds of each object.

pub use crate::probe::crash::ring_bytes as crash_ring_bytes;
pub use crate::probe::{Attach, Filter, Setup, Way, abi, call};
