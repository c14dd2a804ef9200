//! What this package's own tests reach directly. It is no part of the API: anything in it may change or go at any time.

pub use crate::probe::{Attach, Filter, Setup, Way, abi, call};
