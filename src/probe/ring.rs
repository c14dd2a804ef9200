//! The reader's end of a probe's samples.

use std::os::fd::{AsFd, BorrowedFd};

use anyhow::{Context, Result, anyhow};
use libbpf_rs::{RingBuffer, RingBufferBuilder};

use super::object::Loaded;

/// The map `fl_ring`, while it is read.
pub struct Ring<'probe> {
    ring: RingBuffer<'probe>,
}

impl<'probe> Ring<'probe> {
    /// Each sample will be handed to `take` as bytes.
    pub(super) fn map(object: &'probe Loaded, mut take: impl FnMut(&[u8]) + 'probe) -> Result<Self> {
        let what = "failed to map the ring of samples";
        let map = object.map("fl_ring")?;
        let mut builder = RingBufferBuilder::new();
        let each = move |sample: &[u8]| {
            take(sample);
            0
        };
        builder.add(&map, each).context(what)?;
        Ok(Self { ring: builder.build().context(what)? })
    }

    /// Takes at most `most` samples that are there now; returns how many.
    ///
    /// # Errors
    /// Where libbpf can't read the ring.
    pub fn take(&self, most: usize) -> Result<usize> {
        let taken = self.ring.consume_raw_n(most);
        usize::try_from(taken)
            .map_err(|_| anyhow!("failed to read the ring of samples: {}", std::io::Error::from_raw_os_error(-taken)))
    }
}

impl AsFd for Ring<'_> {
    fn as_fd(&self) -> BorrowedFd<'_> {
        // SAFETY: libbpf keeps its epoll descriptor open as long as the ring buffer lives, which we borrow.
        unsafe { BorrowedFd::borrow_raw(self.ring.epoll_fd()) }
    }
}
