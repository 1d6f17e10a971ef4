//! Records as bytes.
//!
//! ```text
//! "CA1 " HHHHHHHH " " SSSSSSSS "\n"     22 bytes; lengths as 8 lower-case hexadecimal digits
//! header                                HHHHHHHH bytes: one JSON object, UTF-8, no newline in it
//! "\n"
//! sealed                                SSSSSSSS bytes: ciphertext and tag, or nothing
//! hash                                  32 bytes: SHA3-256 of everything above
//! "\n"
//! ```
//!
//! The header's `prev` is the hash of the record before it, so each hash covers all that came
//! before. The last newline is not hashed; it has to be one all the same.

use sha3::{Digest as _, Sha3_256};

use crate::{
    clock::push_rfc3339,
    record::{FORMAT_VERSION, Header, Kind, RecordRef, Role, Seq},
    seal::{DataKey, SealError, TAG},
    value::{Digest, hex_digit, push_hex, push_number},
};
use uuid::Uuid;

/// First line of a segment file.
pub const MAGIC: &[u8] = b"chaperone-audit 1\n";

/// Bytes of the line with the lengths.
pub const PREFIX: usize = 22;

/// Bytes around header and sealed part.
pub const OVERHEAD: usize = PREFIX + 1 + 32 + 1;

/// Longest header in bytes.
pub const MAX_HEADER: usize = 1 << 20;

/// Longest sealed part in bytes.
pub const MAX_SEALED: usize = 64 << 20;

/// How many bytes of header the log itself adds to a body, at most: numbers of 20 digits, a request
/// id, references to other logs in every role.
pub(crate) const ENVELOPE: usize = 900;

/// What the header says, before the chain is known.
#[derive(Debug)]
pub(crate) struct Draft {
    pub(crate) seq: Seq,
    pub(crate) kind: Kind,
    pub(crate) time: u64,
    pub(crate) mono: u64,
    pub(crate) request: Option<Uuid>,
    pub(crate) refs: Vec<(Role, RecordRef)>,
    /// The body's JSON.
    pub(crate) body: Vec<u8>,
    /// What is to be sealed.
    pub(crate) text: Option<zeroize::Zeroizing<Vec<u8>>>,
}

/// Appends the record's bytes to `out`, sealing on the way, and gives its hash.
pub(crate) fn encode(
    draft: &Draft,
    log: Uuid,
    synced: Seq,
    prev: &Digest,
    key: Option<&DataKey>,
    out: &mut Vec<u8>,
) -> Result<Digest, SealError> {
    let key = match (&draft.text, key) {
        (Some(_), None) => return Err(SealError::Seal),
        (Some(_), key) => key,
        (None, _) => None,
    };
    let start = out.len();
    out.extend_from_slice(&[0; PREFIX]);
    push_header(out, draft, log, synced, prev, key.map(DataKey::id));
    out.extend_from_slice(&draft.body);
    out.push(b'}');
    let header = out.len() - start - PREFIX;
    let sealed = draft.text.as_ref().map_or(0, |text| text.len() + TAG);
    if header > MAX_HEADER || sealed > MAX_SEALED {
        out.truncate(start);
        return Err(SealError::Seal);
    }
    let record = out.get_mut(start..).ok_or(SealError::Seal)?;
    let place = record.first_chunk_mut().ok_or(SealError::Seal)?;
    *place = prefix(header, sealed);
    out.push(b'\n');
    if let (Some(text), Some(key)) = (&draft.text, key) {
        let from = out.len() - start;
        out.extend_from_slice(text);
        let record = out.get_mut(start..).ok_or(SealError::Seal)?;
        let (before, cipher) = record.split_at_mut_checked(from).ok_or(SealError::Seal)?;
        let header = before.get(PREFIX..PREFIX + header).ok_or(SealError::Seal)?;
        let tag = key.seal(draft.seq, header, cipher)?;
        out.extend_from_slice(&tag);
    }
    let hash = Digest(Sha3_256::digest(out.get(start..).ok_or(SealError::Seal)?).into());
    out.extend_from_slice(&hash.0);
    out.push(b'\n');
    Ok(hash)
}

/// The line with the lengths.
fn prefix(header: usize, sealed: usize) -> [u8; PREFIX] {
    let mut line = *b"CA1 00000000 00000000\n";
    for (at, mut length) in [(4, header), (13, sealed)] {
        for digit in line.iter_mut().skip(at).take(8).rev() {
            *digit = hex_digit((length & 15) as u8);
            length >>= 4;
        }
    }
    line
}

fn push_header(
    out: &mut Vec<u8>,
    draft: &Draft,
    log: Uuid,
    synced: Seq,
    prev: &Digest,
    key: Option<u32>,
) {
    out.extend_from_slice(b"{\"v\":");
    push_number(out, FORMAT_VERSION.into());
    out.extend_from_slice(b",\"log\":\"");
    push_uuid(out, log);
    out.extend_from_slice(b"\",\"seq\":");
    push_number(out, draft.seq.0);
    out.extend_from_slice(b",\"kind\":\"");
    out.extend_from_slice(draft.kind.as_str().as_bytes());
    out.extend_from_slice(b"\",\"time\":\"");
    push_rfc3339(out, draft.time);
    out.extend_from_slice(b"\",\"mono\":");
    push_number(out, draft.mono);
    out.extend_from_slice(b",\"synced\":");
    push_number(out, synced.0);
    out.extend_from_slice(b",\"prev\":\"");
    push_hex(out, &prev.0);
    out.push(b'"');
    if let Some(request) = draft.request {
        out.extend_from_slice(b",\"req\":\"");
        push_uuid(out, request);
        out.push(b'"');
    }
    push_references(out, &draft.refs, log);
    if let Some(key) = key {
        out.extend_from_slice(b",\"key\":");
        push_number(out, key.into());
    }
    out.extend_from_slice(b",\"body\":");
}

fn push_references(out: &mut Vec<u8>, refs: &[(Role, RecordRef)], log: Uuid) {
    let mut opening: &[u8] = b",\"refs\":{\"";
    for (role, record) in refs {
        out.extend_from_slice(opening);
        out.extend_from_slice(role.as_str().as_bytes());
        out.extend_from_slice(b"\":");
        if record.log == log {
            push_number(out, record.seq.0);
        } else {
            out.push(b'"');
            push_uuid(out, record.log);
            out.push(b'/');
            push_number(out, record.seq.0);
            out.push(b'"');
        }
        opening = b",\"";
    }
    if !refs.is_empty() {
        out.push(b'}');
    }
}

fn push_uuid(out: &mut Vec<u8>, uuid: Uuid) {
    let mut text = Uuid::encode_buffer();
    out.extend_from_slice(uuid.hyphenated().encode_lower(&mut text).as_bytes());
}

/// A record as it stands in the file, borrowed from a buffer.
#[derive(Clone, Copy, Debug)]
pub struct Frame<'a> {
    /// The header's bytes as stored.
    pub header: &'a [u8],
    /// Ciphertext and tag, empty when nothing is sealed.
    pub sealed: &'a [u8],
    /// The stored hash, which is the right one.
    pub hash: Digest,
    /// Bytes of the whole record.
    pub length: usize,
}

/// Why bytes are no record.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum FrameError {
    /// More bytes are needed: this many in all from the record's first byte on.
    #[error("the record is cut off")]
    Short(usize),
    /// The first line is not `CA1 length length`.
    #[error("no record begins here (its first line is damaged)")]
    Prefix,
    /// A length is beyond what a record may have.
    #[error("its length is out of bounds")]
    Length,
    /// A newline is not where it has to be.
    #[error("a separator is damaged")]
    Separator,
    /// The bytes are not those that were hashed.
    #[error("its bytes do not match its hash")]
    Hash,
}

/// Reads the lengths of header and sealed part.
pub fn parse_prefix(prefix: &[u8; PREFIX]) -> Result<(usize, usize), FrameError> {
    let [b'C', b'A', b'1', b' ', lengths @ .., b'\n'] = prefix else {
        return Err(FrameError::Prefix);
    };
    let (header, rest) = lengths.split_at(8);
    let Some((b' ', sealed)) = rest.split_first() else {
        return Err(FrameError::Prefix);
    };
    let header = parse_length(header).ok_or(FrameError::Prefix)?;
    let sealed = parse_length(sealed).ok_or(FrameError::Prefix)?;
    if header > MAX_HEADER || sealed > MAX_SEALED {
        return Err(FrameError::Length);
    }
    Ok((header, sealed))
}

fn parse_length(digits: &[u8]) -> Option<usize> {
    digits.iter().try_fold(0usize, |value, digit| {
        let digit = match digit {
            b'0'..=b'9' => digit - b'0',
            b'a'..=b'f' => digit - b'a' + 10,
            _ => return None,
        };
        Some(value << 4 | usize::from(digit))
    })
}

/// Reads the record at the start of `bytes` and checks its hash.
pub fn parse(bytes: &[u8]) -> Result<Frame<'_>, FrameError> {
    let Some((prefix, rest)) = bytes.split_first_chunk::<PREFIX>() else {
        return Err(FrameError::Short(PREFIX));
    };
    let (header_length, sealed_length) = parse_prefix(prefix)?;
    let length = OVERHEAD + header_length + sealed_length;
    let short = FrameError::Short(length);
    let (header, rest) = rest.split_at_checked(header_length).ok_or(short)?;
    let (separator, rest) = rest.split_first().ok_or(short)?;
    let (sealed, rest) = rest.split_at_checked(sealed_length).ok_or(short)?;
    let (hash, rest) = rest.split_first_chunk::<32>().ok_or(short)?;
    let (end, _) = rest.split_first().ok_or(short)?;
    if *separator != b'\n' || *end != b'\n' {
        return Err(FrameError::Separator);
    }
    let hashed = bytes.get(..length - 33).ok_or(short)?;
    let hash = Digest(*hash);
    if Digest::of(hashed) != hash {
        return Err(FrameError::Hash);
    }
    Ok(Frame {
        header,
        sealed,
        hash,
        length,
    })
}

impl Frame<'_> {
    /// The header without its body.
    pub fn parse_header(&self) -> Result<Header, serde_json::Error> {
        serde_json::from_slice(self.header)
    }

    /// The header's body.
    pub fn parse_body<T: serde::de::DeserializeOwned>(&self) -> Result<T, serde_json::Error> {
        #[derive(serde::Deserialize)]
        struct Outer<T> {
            body: T,
        }
        serde_json::from_slice::<Outer<T>>(self.header).map(|outer| outer.body)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn draft(text: Option<Vec<u8>>) -> Draft {
        let text = text.map(zeroize::Zeroizing::new);
        Draft {
            seq: Seq(3),
            kind: Kind::Decision,
            time: 0,
            mono: 9,
            request: Some(Uuid::nil()),
            refs: vec![(
                Role::Session,
                RecordRef {
                    log: Uuid::nil(),
                    seq: Seq(1),
                },
            )],
            body: b"{}".to_vec(),
            text,
        }
    }

    #[test]
    fn a_record_reads_back_and_the_envelope_fits() {
        let (key, _) = DataKey::generate(Uuid::nil(), 1, &[]).unwrap();
        let mut bytes = Vec::new();
        let prev = Digest::of(b"x");
        let draft = draft(Some(b"secret".to_vec()));
        let hash = encode(&draft, Uuid::nil(), Seq(2), &prev, Some(&key), &mut bytes).unwrap();
        let frame = parse(&bytes).unwrap();
        assert_eq!((frame.hash, frame.length), (hash, bytes.len()));
        let header = frame.parse_header().unwrap();
        assert_eq!(
            (header.seq, header.prev, header.synced),
            (Seq(3), prev, Seq(2))
        );
        assert_eq!(header.reference(Role::Session).map(|r| r.seq), Some(Seq(1)));
        let opened = key.open(Seq(3), frame.header, frame.sealed).unwrap();
        assert_eq!(&**opened, b"secret");

        let roles = [
            Role::Session,
            Role::Operation,
            Role::PolicySet,
            Role::Decision,
            Role::Approval,
            Role::Intent,
            Role::MemoOf,
            Role::Follows,
        ];
        let far = RecordRef {
            log: Uuid::max(),
            seq: Seq(u64::MAX),
        };
        let most = Draft {
            seq: Seq(u64::MAX),
            kind: Kind::SessionStart,
            time: 253_402_300_799_999_999,
            mono: u64::MAX,
            request: Some(Uuid::nil()),
            refs: roles.iter().map(|role| (*role, far)).collect(),
            body: Vec::new(),
            text: None,
        };
        let mut header = Vec::new();
        push_header(
            &mut header,
            &most,
            Uuid::nil(),
            Seq(u64::MAX),
            &prev,
            Some(u32::MAX),
        );
        assert!(header.len() < ENVELOPE + 64, "{}", header.len());
    }

    proptest! {
        #[test]
        fn any_bytes_are_survived(bytes in prop::collection::vec(any::<u8>(), 0..200)) {
            let _ = parse(&bytes);
            let mut with_prefix = b"CA1 00000010 00000000\n".to_vec();
            with_prefix.extend_from_slice(&bytes);
            let _ = parse(&with_prefix);
        }

        #[test]
        fn one_changed_byte_is_found(at in 0usize..400, change in 1u8..) {
            let mut bytes = Vec::new();
            encode(&draft(None), Uuid::nil(), Seq(2), &Digest::ZERO, None, &mut bytes).unwrap();
            let at = at % bytes.len();
            bytes[at] ^= change;
            prop_assert!(parse(&bytes).is_err());
        }
    }
}
