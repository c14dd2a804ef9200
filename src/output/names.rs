//! Names of processes as labels: the first names have a label each, all others share one.

use std::collections::HashSet;

/// The label of the names beyond the cap.
const OTHER: &str = "other";

/// The names that have a label of their own. A label that was given stays, or a counter would shrink.
pub(super) struct Names {
    known: HashSet<String>,
    most: usize,
}

impl Names {
    /// Room for `most` names.
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
