//! The items that come from a watched process's memory, and where they go.

use anyhow::Result;

use super::record::{Mapping, Page};

/// What comes out.
#[derive(Debug)]
pub(super) enum Item {
    /// A call.
    Mapping(Box<Mapping>),
    /// A page. The pages that a call made executable come before the call.
    Page(Box<Page>),
    /// The ELF header of executable memory. It is not executable itself, and not reported.
    Header(Box<Page>),
}

/// What to read.
#[derive(Clone, Copy, Debug)]
pub(super) struct Limits {
    /// Read pages at all.
    pub pages: bool,
    /// At most so many bytes for one call.
    pub max_bytes: u64,
}

/// Takes what comes out.
pub(super) type Emit<'a> = &'a mut dyn FnMut(Item) -> Result<()>;
