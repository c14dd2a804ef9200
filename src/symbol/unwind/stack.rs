//! The copy of a stack: words at addresses, and holes.

use serde_bytes::ByteBuf;

/// A copy of parts of a thread's stacks: pieces sorted by address, holes between them.
#[derive(Clone, Debug, Default, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
pub(crate) struct StackCopy {
    /// Not as lists of numbers, which would go into a message one by one.
    pieces: Vec<(u64, ByteBuf)>,
}

impl StackCopy {
    /// The copy made of `pieces`, each with the address of its first byte, in any order. Where two overlap, the one that
    /// begins lower counts.
    pub(crate) fn new(mut pieces: Vec<(u64, Vec<u8>)>) -> Self {
        pieces.retain(|(start, bytes)| !bytes.is_empty() && start.checked_add(bytes.len() as u64).is_some());
        pieces.sort_by_key(|(start, _)| *start);
        let mut merged: Vec<(u64, ByteBuf)> = Vec::with_capacity(pieces.len());
        for (start, bytes) in pieces {
            match merged.last_mut() {
                Some((first, before)) if start - *first <= before.len() as u64 => {
                    // At most the length of a Vec, so it fits.
                    let known = before.len() - (start - *first) as usize;
                    before.extend_from_slice(bytes.get(known..).unwrap_or_default());
                }
                _ => merged.push((start, ByteBuf::from(bytes))),
            }
        }
        Self { pieces: merged }
    }

    /// How much memory it takes.
    pub(crate) fn bytes(&self) -> usize {
        self.pieces.iter().map(|(_, bytes)| bytes.len()).sum()
    }

    /// The word at `address`; `None` means that not all of it was copied.
    pub(crate) fn read_word(&self, address: u64) -> Option<u64> {
        self.read(address).map(u64::from_le_bytes)
    }

    /// The same of 32 bits.
    pub(super) fn read_half(&self, address: u64) -> Option<u64> {
        self.read(address).map(|bytes| u64::from(u32::from_le_bytes(bytes)))
    }

    fn read<const BYTES: usize>(&self, address: u64) -> Option<[u8; BYTES]> {
        let after = self.pieces.partition_point(|(start, _)| *start <= address);
        let (start, bytes) = self.pieces.get(after.checked_sub(1)?)?;
        let from = usize::try_from(address - start).ok()?;
        bytes.get(from..)?.first_chunk().copied()
    }
}

#[cfg(test)]
mod tests {
    use super::StackCopy;

    fn bytes(words: &[u64]) -> Vec<u8> {
        words.iter().flat_map(|word| word.to_le_bytes()).collect()
    }

    #[test]
    fn pieces_in_any_order_are_one_stack() {
        let stack = StackCopy::new(vec![(0x1010, bytes(&[3])), (0x1000, bytes(&[1, 2])), (0x2000, bytes(&[9]))]);
        assert_eq!([0x1000, 0x1008, 0x1010, 0x2000].map(|at| stack.read_word(at)), [1, 2, 3, 9].map(Some));
        assert_eq!(stack.read_word(0x100c), Some(3 << 32));
        assert_eq!([0x1010, 0x1014, 0x1016].map(|at| stack.read_half(at)), [Some(3), Some(0), None]);
        assert_eq!([0xfff, 0x1011, 0x1018, 0x1ff9, 0x2001, 0, u64::MAX].map(|at| stack.read_word(at)), [None; 7]);
    }

    #[test]
    fn overlaps_are_read_once() {
        let stack = StackCopy::new(vec![(0x1000, bytes(&[1, 2, 3])), (0x1008, bytes(&[7])), (0x1010, bytes(&[8, 4]))]);
        assert_eq!(
            [0x1000, 0x1008, 0x1010, 0x1018, 0x1020].map(|at| stack.read_word(at)),
            [Some(1), Some(2), Some(3), Some(4), None]
        );
    }

    #[test]
    fn a_piece_beyond_the_last_address_is_none() {
        assert_eq!(StackCopy::new(vec![(u64::MAX - 3, bytes(&[1]))]), StackCopy::default());
    }
}
