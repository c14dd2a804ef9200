//! Addresses, registers and other numbers of 64 bits, which JSON can't hold exactly as numbers.

use std::fmt;

use serde::{Serialize, Serializer};

/// A number that is written as `0x...`: lower case, no leading zeros, a string in JSON.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Hex(pub u64);

impl fmt::Display for Hex {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:#x}", self.0)
    }
}

impl Serialize for Hex {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

/// Bytes as pairs of lower-case digits, as build ids are written.
pub fn digits(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_are_short_strings() {
        assert_eq!(Hex(0).to_string(), "0x0");
        assert_eq!(Hex(0x18).to_string(), "0x18");
        assert_eq!(serde_json::to_string(&Hex(u64::MAX)).unwrap(), "\"0xffffffffffffffff\"");
    }

    #[test]
    fn bytes_keep_their_zeros() {
        assert_eq!(digits(&[0, 0x0f, 0xff]), "000fff");
    }
}
