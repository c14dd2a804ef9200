//! What is counted in the kernel and told interval by interval: look, tell, commit.
//!
//! A summary tells what came since the last look that was committed, and only what was written is committed. So a summary that
//! could not be written is told with the next one, and nothing is lost from the sum.

use anyhow::Result;

use crate::record::Record;

/// One thing that is counted.
pub trait Ledger {
    /// What the kernel had counted at one moment.
    type Look;
    /// What came between two looks.
    type Summary: Record;

    /// Looks now. `last`: the run is over, and nothing follows.
    ///
    /// # Errors
    /// If the kernel's numbers or a clock can't be read.
    fn look(&mut self, last: bool) -> Result<Self::Look>;

    /// What came since the last look that was committed.
    ///
    /// # Errors
    /// If a time is unknown.
    fn tell(&mut self, look: &Self::Look) -> Result<Self::Summary>;

    /// The summary of this look was written: the next one begins there.
    ///
    /// # Errors
    /// If the kernel's table can't be written.
    fn commit(&mut self, look: Self::Look) -> Result<()>;
}

/// One interval of `ledger`: `measure` sees the look, `write` gets the summary and says whether it was written. Returns that.
///
/// # Errors
/// As [`Ledger`], and what `measure` and `write` say.
pub fn report<L: Ledger>(
    ledger: &mut L,
    last: bool,
    measure: impl FnOnce(&mut L, &L::Look) -> Result<()>,
    write: impl FnOnce(&L::Summary) -> Result<bool>,
) -> Result<bool> {
    let look = ledger.look(last)?;
    measure(ledger, &look)?;
    let summary = ledger.tell(&look)?;
    let is_written = write(&summary)?;
    if is_written {
        ledger.commit(look)?;
    }
    Ok(is_written)
}
