//! Words, names and digests that may stand in the clear part of a record.
//!
//! Clear structs are made of these and of numbers, never of `String`: a caller cannot put a
//! statement, a message or a value there by mistake.

use std::fmt;

use serde::{Deserialize, Deserializer, Serialize, Serializer, de::Error as _};
use sha3::{Digest as _, Sha3_256};

/// A reason or state as a short constant: `[a-z0-9-]{1,64}`.
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize)]
pub struct Code(String);

/// Why a text is no [`Code`]. The text itself is not quoted: it may hold data.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("not a code: 1 to 64 characters out of a-z, 0-9 and '-' are allowed (got {length} bytes)")]
pub struct NotACode {
    /// Bytes of what was given.
    pub length: usize,
}

impl Code {
    /// Longest code in bytes.
    pub const MAX: usize = 64;

    /// Checks `text`.
    pub fn new(text: &str) -> Result<Self, NotACode> {
        let allowed = |b: u8| b.is_ascii_lowercase() || b.is_ascii_digit() || b == b'-';
        if (1..=Self::MAX).contains(&text.len()) && text.bytes().all(allowed) {
            Ok(Self(text.to_owned()))
        } else {
            Err(NotACode { length: text.len() })
        }
    }

    /// Makes a code out of a *program's* words: `DROP TABLE` becomes `drop-table`. Whatever is not
    /// allowed becomes `-`, too long a text is cut. Not for text that a caller or a guest wrote.
    #[must_use]
    pub fn from_words(text: &str) -> Self {
        let code: String = text
            .chars()
            .take(Self::MAX)
            .map(|c| match c.to_ascii_lowercase() {
                c @ ('a'..='z' | '0'..='9') => c,
                _ => '-',
            })
            .collect();
        if code.is_empty() {
            Self("none".to_owned())
        } else {
            Self(code)
        }
    }

    /// A guest's reason code: itself where it is one, `unprintable` otherwise.
    #[must_use]
    pub fn or_unprintable(text: &str) -> Self {
        Self::new(text).unwrap_or_else(|_| Self("unprintable".to_owned()))
    }

    /// As text.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl fmt::Display for Code {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl<'de> Deserialize<'de> for Code {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let text = String::deserialize(deserializer)?;
        Self::new(&text).map_err(D::Error::custom)
    }
}

/// The name of something that an operator, an identity provider or the database's schema named: a
/// subject, a group, a target, a module, a table. At most 256 bytes, no control characters.
///
/// Not for anything that stands in a statement but not in the catalog.
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
pub struct Name(String);

impl Name {
    /// Longest name in bytes.
    pub const MAX: usize = 256;

    /// Takes `text`; control characters become `?`, what is beyond [`Name::MAX`] is cut.
    #[must_use]
    pub fn new(text: &str) -> Self {
        let mut name = String::with_capacity(text.len().min(Self::MAX));
        for c in text.chars() {
            let c = if c.is_control() { '?' } else { c };
            if name.len() + c.len_utf8() > Self::MAX {
                break;
            }
            name.push(c);
        }
        Self(name)
    }

    /// As text.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl fmt::Display for Name {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

/// A SHA3-256 digest, written as 64 lower-case hexadecimal digits.
#[derive(Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Digest(pub [u8; 32]);

impl Digest {
    /// What the first record of a run has for its predecessor's hash.
    pub const ZERO: Digest = Digest([0; 32]);

    /// The digest of `bytes`.
    #[must_use]
    pub fn of(bytes: &[u8]) -> Self {
        Self(Sha3_256::digest(bytes).into())
    }

    /// Reads 64 hexadecimal digits.
    #[must_use]
    pub fn from_hex(text: &str) -> Option<Self> {
        Some(Self(hex_decode(text)?.try_into().ok()?))
    }

    /// As 64 hexadecimal digits.
    #[must_use]
    pub fn to_hex(&self) -> String {
        hex_encode(&self.0)
    }
}

impl fmt::Debug for Digest {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.to_hex())
    }
}

impl fmt::Display for Digest {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.to_hex())
    }
}

impl Serialize for Digest {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        // Digits are ASCII.
        serializer.serialize_str(std::str::from_utf8(&hex_digits(&self.0)).unwrap_or_default())
    }
}

impl<'de> Deserialize<'de> for Digest {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let text = String::deserialize(deserializer)?;
        Self::from_hex(&text).ok_or_else(|| D::Error::custom("not 64 hexadecimal digits"))
    }
}

/// Bytes as lower-case hexadecimal text.
#[must_use]
pub fn hex_encode(bytes: &[u8]) -> String {
    let mut text = Vec::with_capacity(bytes.len() * 2);
    push_hex(&mut text, bytes);
    // Digits are ASCII.
    String::from_utf8(text).unwrap_or_default()
}

pub(crate) fn push_hex(text: &mut Vec<u8>, bytes: &[u8]) {
    // In pieces of a digest's size, which the compiler can do at one go.
    let (digests, rest) = bytes.as_chunks();
    for digest in digests {
        text.extend_from_slice(&hex_digits(digest));
    }
    for byte in rest {
        text.extend_from_slice(&[hex_digit(byte >> 4), hex_digit(*byte)]);
    }
}

/// A digest's hexadecimal digits.
fn hex_digits(digest: &[u8; 32]) -> [u8; 64] {
    let mut digits = [0; 64];
    for (pair, byte) in digits.as_chunks_mut().0.iter_mut().zip(digest) {
        *pair = [hex_digit(byte >> 4), hex_digit(*byte)];
    }
    digits
}

/// The digit of the lowest four bits.
pub(crate) fn hex_digit(value: u8) -> u8 {
    let value = value & 15;
    let letter = if value > 9 { b'a' - b'9' - 1 } else { 0 };
    b'0' + value + letter
}

/// A number in decimal.
pub(crate) fn push_number(text: &mut Vec<u8>, mut number: u64) {
    // u64::MAX has 20 digits.
    let mut digits = [b'0'; 20];
    let mut used = 0;
    for digit in digits.iter_mut().rev() {
        // Below ten.
        *digit += (number % 10) as u8;
        number /= 10;
        used += 1;
        if number == 0 {
            break;
        }
    }
    text.extend_from_slice(digits.get(digits.len() - used..).unwrap_or_default());
}

/// Lower-case hexadecimal text as bytes; upper case is refused, so that there is one spelling.
#[must_use]
pub fn hex_decode(text: &str) -> Option<Vec<u8>> {
    let nibble = |b: u8| match b {
        b'0'..=b'9' => Some(b - b'0'),
        b'a'..=b'f' => Some(b - b'a' + 10),
        _ => None,
    };
    let mut pairs = text.as_bytes().chunks_exact(2);
    let bytes = pairs
        .by_ref()
        .map(|pair| match pair {
            [high, low] => Some(nibble(*high)? << 4 | nibble(*low)?),
            _ => None,
        })
        .collect();
    if pairs.remainder().is_empty() {
        bytes
    } else {
        None
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_code_cannot_hold_text() {
        assert!(Code::new("outside-scope").is_ok());
        for text in ["", "Jane Doe", "ssn=1", "ä", &"a".repeat(65)] {
            assert!(Code::new(text).is_err(), "{text}");
        }
        assert!(serde_json::from_str::<Code>("\"Jane Doe\"").is_err());
        assert_eq!(Code::from_words("DROP TABLE").as_str(), "drop-table");
        assert_eq!(Code::from_words("").as_str(), "none");
        assert_eq!(Code::or_unprintable("Jane Doe").as_str(), "unprintable");
    }

    #[test]
    fn a_name_is_cut_and_cleaned() {
        assert_eq!(Name::new("a\nb").as_str(), "a?b");
        assert!(Name::new(&"ä".repeat(400)).as_str().len() <= Name::MAX);
    }

    #[test]
    fn hexadecimal_goes_there_and_back() {
        let digest = Digest::of(b"abc");
        assert_eq!(
            digest.to_hex(),
            "3a985da74fe225b2045c172d6bd390bd855f086e3e9d525b46bfe24511431532"
        );
        assert_eq!(Digest::from_hex(&digest.to_hex()), Some(digest));
        assert_eq!(
            serde_json::to_string(&digest).unwrap(),
            format!("\"{digest}\"")
        );
        let all: Vec<u8> = (0..=255).collect();
        let text: String = all.iter().map(|byte| format!("{byte:02x}")).collect();
        for length in [0, 1, 31, 32, 33, 256] {
            assert_eq!(hex_encode(&all[..length]), text[..2 * length]);
        }
        assert_eq!(Digest::from_hex(&digest.to_hex().to_uppercase()), None);
        assert_eq!(hex_decode("abc"), None);
    }

    #[test]
    fn numbers_are_written_in_full() {
        for number in [0, 7, 10, 99, 1_000_000, u64::MAX] {
            let mut text = b"n=".to_vec();
            push_number(&mut text, number);
            assert_eq!(text, format!("n={number}").into_bytes());
        }
    }
}
