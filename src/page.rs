//! Pages of memory: as large as the kernel says, which is asked once.

/// How many bytes a page has.
pub(crate) fn size() -> u64 {
    rustix::param::page_size() as u64
}

/// The first address of the page that holds `address`.
pub(crate) fn start(address: u64) -> u64 {
    address & !(size() - 1)
}

/// How far `address` is from the first one of its page.
pub(crate) fn offset(address: u64) -> u64 {
    address & (size() - 1)
}

/// `length` in whole pages, bytes. `None` means that there are not so many.
pub(crate) fn round_up(length: u64) -> Option<u64> {
    length.checked_next_multiple_of(size())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pages_are_as_the_kernel_maps_them() {
        let maps = procfs::process::Process::myself().unwrap().maps().unwrap();
        let map = maps.iter().max_by_key(|map| map.address.1 - map.address.0).unwrap();
        let (first, end) = map.address;
        assert_eq!([first, first + 1, first + size() - 1, end - 1].map(start), [first, first, first, end - size()]);
        assert_eq!([first, first + 1, end - 1].map(offset), [0, 1, size() - 1]);
        assert_eq!([0, 1, size(), size() + 1].map(round_up), [0, size(), size(), 2 * size()].map(Some));
        assert_eq!(round_up(u64::MAX), None);
    }
}
