//! What an agent counts beside crashes, when it is asked to.

use anyhow::Result;

use super::output::Output;
use crate::output::Metrics;

/// One more thing that is counted.
pub(super) trait Beside {
    /// What is counted, and through which hooks: for the line on standard error.
    fn subject(&self) -> String;

    /// Writes what the interval brought. `last`: nothing follows.
    ///
    /// # Errors
    /// Where the kernel's numbers can't be read, or the last ones can't be written.
    fn tell(&mut self, last: bool, output: &mut Output, metrics: &Metrics) -> Result<()>;
}
