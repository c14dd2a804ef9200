//! Messages between two processes: a length, and so many bytes. A message is bounded, and nothing else about it is trusted.

use std::io::{self, ErrorKind, Read, Write};

use serde::Serialize;
use serde::de::DeserializeOwned;

/// The largest job: a stack of 512 KiB, and the rest.
pub(super) const JOB_BYTES_MAX: usize = 1 << 20;

/// The largest answer. Decoded it may take some twenty times as much.
pub(super) const ANSWER_BYTES_MAX: usize = 512 << 10;

/// What stands before a message.
const LENGTH_BYTES: usize = size_of::<u32>();

/// Sends a message. One that is longer than `most` is an error of the kind [`ErrorKind::InvalidInput`].
///
/// # Errors
/// If nobody reads it.
pub(crate) fn send(to: &mut impl Write, message: &impl Serialize, most: usize) -> io::Result<()> {
    // Both at once: the length alone would wake the reader in vain.
    let room = vec![0_u8; LENGTH_BYTES];
    let mut bytes =
        postcard::to_extend(message, room).map_err(|error| io::Error::new(ErrorKind::InvalidInput, error))?;
    let length = bytes.len() - LENGTH_BYTES;
    let length = u32::try_from(length).ok().filter(|_| length <= most);
    let length = length.ok_or_else(|| io::Error::new(ErrorKind::InvalidInput, "the message is too long"))?;
    bytes[..LENGTH_BYTES].copy_from_slice(&length.to_le_bytes());
    to.write_all(&bytes)
}

/// Receives a message. `Ok(None)` means that no more will come.
///
/// # Errors
/// If it is longer than `most`, is cut, or is none.
pub(crate) fn receive<T: DeserializeOwned>(from: &mut impl Read, most: usize) -> io::Result<Option<T>> {
    let mut length = [0; LENGTH_BYTES];
    match from.read(&mut length)? {
        0 => return Ok(None),
        some => from.read_exact(&mut length[some..])?,
    }
    let length = u32::from_le_bytes(length) as usize;
    if length > most {
        return Err(io::Error::new(ErrorKind::InvalidData, "the message is too long"));
    }
    let mut bytes = vec![0; length];
    from.read_exact(&mut bytes)?;
    decode(&bytes).map(Some)
}

/// The message in these bytes, all of them.
///
/// # Errors
/// If it is none.
pub(crate) fn decode<T: DeserializeOwned>(bytes: &[u8]) -> io::Result<T> {
    let invalid = |error| io::Error::new(ErrorKind::InvalidData, error);
    match postcard::take_from_bytes(bytes).map_err(invalid)? {
        (message, []) => Ok(message),
        _ => Err(io::Error::new(ErrorKind::InvalidData, "the message is longer than it says")),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::naming::job::tests::job;
    use crate::naming::job::{Job, Named};

    #[test]
    fn a_message_comes_as_it_was_sent() {
        let mut bytes = Vec::new();
        send(&mut bytes, &job(), JOB_BYTES_MAX).unwrap();
        let got: Job = receive(&mut &bytes[..], JOB_BYTES_MAX).unwrap().unwrap();
        assert_eq!(format!("{got:?}"), format!("{:?}", job()));
        assert!(receive::<Job>(&mut &[][..], JOB_BYTES_MAX).unwrap().is_none());
        for cut in 1..bytes.len() {
            assert!(receive::<Job>(&mut &bytes[..cut], JOB_BYTES_MAX).is_err(), "{cut}");
        }
        assert!(receive::<Job>(&mut &bytes[..], bytes.len() - 5).is_err(), "too long");
        assert!(send(&mut Vec::new(), &job(), 10).is_err(), "too long");
    }

    #[test]
    fn a_length_that_lies_takes_no_memory() {
        // A list of 2^60 files.
        let lie = [0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0x0f];
        assert!(decode::<Named>(&lie).is_err());
        assert!(receive::<Named>(&mut &[0xff, 0xff, 0xff, 0xff, 0][..], ANSWER_BYTES_MAX).is_err());
    }

    #[test]
    fn what_stands_behind_a_message_makes_it_none() {
        let mut bytes = postcard::to_stdvec(&Named::default()).unwrap();
        assert!(decode::<Named>(&bytes).is_ok());
        bytes.push(0);
        assert!(decode::<Named>(&bytes).is_err());
    }
}
