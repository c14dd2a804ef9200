//! The reader's end of a ring of samples.

use std::os::fd::{AsFd, BorrowedFd};

use anyhow::{Context, Result, anyhow};
use libbpf_rs::{MapCore, RingBuffer, RingBufferBuilder};

/// The reader's end of the samples.
pub struct Ring<'probe> {
    ring: RingBuffer<'probe>,
}

impl<'probe> Ring<'probe> {
    /// Hands each sample of `map` to `take`, when it is taken.
    pub(super) fn new(map: &dyn MapCore, mut take: impl FnMut(&[u8]) + 'probe) -> Result<Self> {
        let mut builder = RingBufferBuilder::new();
        builder
            .add(map, move |sample| {
                take(sample);
                0
            })
            .context("failed to map the ring of samples")?;
        Ok(Self { ring: builder.build().context("failed to map the ring of samples")? })
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
