//! The reader's end of a ring of samples.

use std::cell::RefCell;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::rc::Rc;

use anyhow::{Context, Result, bail};
use libbpf_rs::libbpf_sys::BPF_RINGBUF_HDR_SZ;
use libbpf_rs::{AsRawLibbpf, MapCore, RingBuffer, RingBufferBuilder, libbpf_sys};
use nix::sys::epoll::{Epoll, EpollCreateFlags, EpollEvent, EpollFlags, EpollTimeout};

/// The kernel's own bytes before each sample. A sample's place is a multiple of them.
const HEADER_BYTES: usize = BPF_RINGBUF_HDR_SZ as usize;

/// To be told once of each wake-up.
const WAKE_UPS: EpollFlags = EpollFlags::EPOLLIN.union(EpollFlags::EPOLLET);

/// The reader's end of a ring of samples.
pub struct Ring<Sample> {
    ring: RingBuffer<'static>,
    map: OwnedFd,
    /// Readable when the kernel program has woken us, and when [`Ring::take`] has left samples. Not whenever there are samples: a reader that is as
    /// quick as a busy writer would be back for each of them, and never sleep.
    woken: Epoll,
    taken: Rc<RefCell<SampleQueue<Sample>>>,
    /// What it holds when it is full.
    capacity: usize,
}

/// What libbpf has handed out.
struct SampleQueue<Sample> {
    /// Since the last [`Ring::take`].
    samples: Vec<Sample>,
    /// The room that all samples since the start have had in the ring.
    bytes: usize,
}

/// A place in the stream of samples: behind everything that was in the ring when it was asked for.
#[derive(Clone, Copy, Debug)]
pub struct Mark(usize);

impl<Sample: 'static> Ring<Sample> {
    /// Reads `map`. `parse` makes a sample of its bytes; `None` means that it is none of this probe's.
    pub(super) fn new(map: &dyn MapCore, parse: impl Fn(&[u8]) -> Option<Sample> + 'static) -> Result<Self> {
        let taken = Rc::new(RefCell::new(SampleQueue { samples: Vec::new(), bytes: 0 }));
        let into = taken.clone();
        let mut builder = RingBufferBuilder::new();
        builder
            .add(map, move |bytes| {
                let mut into = into.borrow_mut();
                into.bytes += HEADER_BYTES + bytes.len().next_multiple_of(HEADER_BYTES);
                into.samples.extend(parse(bytes));
                0
            })
            .context("failed to map the ring of samples")?;
        let ring = builder.build().context("failed to map the ring of samples")?;
        let what = "failed to wait for samples";
        let woken = Epoll::new(EpollCreateFlags::EPOLL_CLOEXEC).context(what)?;
        let capacity = map.max_entries() as usize;
        let map = map.as_fd().try_clone_to_owned().context(what)?;
        woken.add(&map, EpollEvent::new(WAKE_UPS, 0)).context(what)?;
        Ok(Self { ring, map, woken, taken, capacity })
    }
}

impl<Sample> Ring<Sample> {
    /// Takes at most `most` samples that are there now.
    pub fn take(&self, most: usize) -> Result<Vec<Sample>> {
        let what = "failed to wait for samples";
        // What has woken us until now; whatever comes from now on wakes us again.
        self.woken.wait(&mut [EpollEvent::empty()], EpollTimeout::ZERO).context(what)?;
        let taken = self.ring.consume_raw_n(most);
        if taken < 0 {
            bail!("failed to read the ring of samples: {}", std::io::Error::from_raw_os_error(-taken));
        }
        // There may be more; or the first one is still being written, and wakes nobody when it is whole.
        if taken as usize >= most || (taken == 0 && self.waiting() > 0) {
            // The kernel looks whether there are some.
            self.woken.modify(&self.map, &mut EpollEvent::new(WAKE_UPS, 0)).context(what)?;
        }
        Ok(std::mem::take(&mut self.taken.borrow_mut().samples))
    }

    /// Do samples that wait take half of it? Soon there will be no place for more.
    pub fn is_half_full(&self) -> bool {
        self.waiting() >= self.capacity / 2
    }

    /// What is in the ring, in bytes.
    fn waiting(&self) -> usize {
        // SAFETY: both live as long as the ring buffer, which we borrow; a ring has one map, whose number is 0.
        unsafe {
            let ring = libbpf_sys::ring_buffer__ring(self.ring.as_libbpf_object().as_ptr(), 0);
            if ring.is_null() { 0 } else { libbpf_sys::ring__avail_data_size(ring) as usize }
        }
    }

    /// Behind what a full ring would hold now. A reader that stops there is done although others go on writing.
    pub fn mark(&self) -> Mark {
        Mark(self.taken.borrow().bytes + self.capacity)
    }

    /// Was everything taken that stood before the mark?
    pub fn is_past(&self, mark: Mark) -> bool {
        self.taken.borrow().bytes >= mark.0
    }
}

impl<Sample> AsFd for Ring<Sample> {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.woken.0.as_fd()
    }
}
