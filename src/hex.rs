//! Addresses, registers and other 64-bit numbers, which JSON numbers can't hold exactly.

use std::fmt;

use serde::{Deserialize, Deserializer, Serialize, Serializer, de};

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

impl<'de> Deserialize<'de> for Hex {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let text = String::deserialize(deserializer)?;
        let digits = text.strip_prefix("0x").and_then(|digits| u64::from_str_radix(digits, 16).ok());
        digits.map(Self).ok_or_else(|| de::Error::custom(format!("`{text}` is no number like 0x1f")))
    }
}

/// Bytes as pairs of lower-case hexadecimal digits, like those of build ids.
pub(crate) fn digits(bytes: &[u8]) -> String {
    let digit = |value: u8| char::from(b"0123456789abcdef"[usize::from(value & 0xf)]);
    bytes.iter().flat_map(|&byte| [digit(byte >> 4), digit(byte)]).collect()
}

/// The bytes of such digits. `None` means that they are none.
pub(crate) fn bytes(digits: &str) -> Option<Vec<u8>> {
    let digits = digits.as_bytes();
    let is_hex = digits.len().is_multiple_of(2) && digits.iter().all(u8::is_ascii_hexdigit);
    let byte = |pair: &[u8]| u8::from_str_radix(std::str::from_utf8(pair).ok()?, 16).ok();
    if is_hex { digits.chunks_exact(2).map(byte).collect() } else { None }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_are_short_strings() {
        assert_eq!(Hex(0).to_string(), "0x0");
        assert_eq!(Hex(0x18).to_string(), "0x18");
        assert_eq!(serde_json::to_string(&Hex(u64::MAX)).unwrap(), "\"0xffffffffffffffff\"");
        assert_eq!(serde_json::from_str::<Hex>("\"0xffffffffffffffff\"").unwrap(), Hex(u64::MAX));
        assert!(serde_json::from_str::<Hex>("\"12\"").is_err());
    }

    #[test]
    fn bytes_keep_their_zeros() {
        assert_eq!(digits(&[0, 0x0f, 0xff]), "000fff");
        assert_eq!(bytes("000fFF"), Some(vec![0, 0x0f, 0xff]));
        assert_eq!((bytes("0"), bytes("+1"), bytes("xy"), bytes("")), (None, None, None, Some(Vec::new())));
    }
}
