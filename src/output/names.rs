//! Names of processes as labels: the first ones have their own, the rest is one.

use std::collections::HashSet;

/// A name beyond the cap.
const OTHER: &str = "other";

/// The names that have a label of their own. One once given stays, or a counter would shrink.
pub(super) struct Names {
    known: HashSet<String>,
    most: usize,
}

impl Names {
    /// Room for so many.
    pub(super) fn new(most: usize) -> Self {
        Self { known: HashSet::new(), most }
    }

    /// The label of a name.
    pub(super) fn label(&mut self, name: &str) -> String {
        if self.known.contains(name) {
            return name.to_owned();
        }
        if self.known.len() >= self.most {
            return OTHER.to_owned();
        }
        self.known.insert(name.to_owned());
        name.to_owned()
    }
}
