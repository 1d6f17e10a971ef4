//! Digests that say nothing to whoever has no key.
//!
//! A plain digest of a statement or a parameter is as good as the text: whoever guesses it (an
//! insurance number has a billion values) sees that the guess is right. So what might hold data is
//! digested under a key, SHA3-256 of key and bytes, and the key is SHA3-256 of
//! `chaperone audit blind 1` and the run's first data key. An auditor can compute it again, nobody
//! else can. Within one run equal bytes have equal digests; across runs they do not.

use std::{fmt, sync::Arc};

use serde::{Serialize, Serializer};
use sha3::{Digest as _, Sha3_256};
use zeroize::Zeroizing;

use crate::value::Digest;

const INFO: &[u8] = b"chaperone audit blind 1";
const LONG: &[u8] = b"chaperone audit long 1";
const SENT: &[u8] = b"chaperone audit sent 1";

/// A digest under the run's key. Only a [`Blinder`] makes one.
#[derive(Clone, Copy, PartialEq, Eq, Hash)]
pub struct Blinded(Digest);

impl Blinded {
    /// The digest, to compare it with one that was read.
    #[must_use]
    pub fn digest(&self) -> Digest {
        self.0
    }
}

impl fmt::Debug for Blinded {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Blinded({})", self.0)
    }
}

impl Serialize for Blinded {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        self.0.serialize(serializer)
    }
}

/// Makes [`Blinded`] digests. Cheap to clone.
#[derive(Clone)]
pub struct Blinder(Arc<Zeroizing<[u8; 32]>>);

impl Blinder {
    pub(crate) fn new(data_key: &[u8]) -> Self {
        let key = Sha3_256::new().chain_update(INFO).chain_update(data_key);
        Self(Arc::new(Zeroizing::new(key.finalize().into())))
    }

    /// The digest of `bytes`.
    #[must_use]
    pub fn of(&self, bytes: &[u8]) -> Blinded {
        let mut hasher = self.start();
        hasher.update(bytes);
        hasher.finish()
    }

    /// The digest of a value that is too long to be kept.
    ///
    /// One may have hundreds of megabytes, and SHA3 would hold up whoever shares the thread: like
    /// [`SentHasher`]'s this is BLAKE3 in its keyed mode. The key is SHA3-256 of
    /// `chaperone audit long 1` and the key of [`Blinded`] digests.
    #[must_use]
    pub fn of_long(&self, bytes: &[u8]) -> Blinded {
        let hash = self.keyed(LONG).update(bytes).finalize();
        Blinded(Digest(*hash.as_bytes()))
    }

    /// Makes the digests of what is sent.
    #[must_use]
    pub fn sent(&self) -> SentHasher {
        SentHasher {
            hasher: Box::new(self.keyed(SENT)),
        }
    }

    fn keyed(&self, purpose: &[u8]) -> blake3::Hasher {
        let key = Sha3_256::new()
            .chain_update(purpose)
            .chain_update(self.0.as_slice());
        blake3::Hasher::new_keyed(&Zeroizing::new(key.finalize().into()))
    }

    /// A digest of bytes that come in pieces.
    #[must_use]
    pub fn start(&self) -> BlindHasher {
        BlindHasher(Sha3_256::new().chain_update(self.0.as_slice()))
    }
}

impl fmt::Debug for Blinder {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Blinder(not shown)")
    }
}

/// A [`Blinded`] digest in the making.
#[derive(Clone)]
pub struct BlindHasher(Sha3_256);

impl BlindHasher {
    /// Adds bytes.
    pub fn update(&mut self, bytes: &[u8]) {
        self.0.update(bytes);
    }

    /// The digest of all of them.
    #[must_use]
    pub fn finish(self) -> Blinded {
        Blinded(Digest(self.0.finalize().into()))
    }
}

impl fmt::Debug for BlindHasher {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("BlindHasher(not shown)")
    }
}

/// A digest of what one run after another sends.
///
/// Answers are long, and SHA3 of all their bytes would cost more than to relay them: this is BLAKE3
/// in its keyed mode. The key is SHA3-256 of `chaperone audit sent 1` and the key of [`Blinded`]
/// digests.
#[derive(Clone)]
pub struct SentHasher {
    // It is large.
    hasher: Box<blake3::Hasher>,
}

impl SentHasher {
    /// Adds bytes that are sent.
    pub fn update(&mut self, bytes: &[u8]) {
        self.hasher.update(bytes);
    }

    /// The digest of what was added since the last call; `None` for nothing at all.
    pub fn take(&mut self) -> Option<Blinded> {
        if self.hasher.count() == 0 {
            return None;
        }
        let digest = Digest(*self.hasher.finalize().as_bytes());
        self.hasher.reset();
        Some(Blinded(digest))
    }
}

impl fmt::Debug for SentHasher {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("SentHasher(not shown)")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn digests_depend_on_the_key_and_pieces_do_not_matter() {
        let (a, b) = (Blinder::new(&[1; 32]), Blinder::new(&[2; 32]));
        assert_eq!(a.of(b"x"), a.of(b"x"));
        assert_ne!(a.of(b"x"), b.of(b"x"));
        assert_ne!(a.of(b"x").digest(), Digest::of(b"x"));
        let mut pieces = a.start();
        pieces.update(b"a");
        pieces.update(b"b");
        assert_eq!(pieces.finish(), a.of(b"ab"));
        assert!(!format!("{a:?}").contains("01"));
    }

    #[test]
    fn a_long_value_has_a_digest_of_its_own_kind() {
        let (a, b) = (Blinder::new(&[1; 32]), Blinder::new(&[2; 32]));
        let value = "x".repeat(1 << 20);
        let long = a.of_long(value.as_bytes());
        assert_eq!(long, a.of_long(value.as_bytes()));
        assert_ne!(long, a.of_long(&value.as_bytes()[1..]));
        assert_ne!(long, b.of_long(value.as_bytes()));
        assert_ne!(long, a.of(value.as_bytes()));
        // As documented, so that others can compute it.
        let key = |parts: [&[u8]; 2]| <[u8; 32]>::from(Sha3_256::digest(parts.concat()));
        let blind = key([b"chaperone audit blind 1", &[1; 32]]);
        let key = key([b"chaperone audit long 1", &blind]);
        let documented = blake3::keyed_hash(&key, value.as_bytes());
        assert_eq!(long.digest(), Digest(*documented.as_bytes()));
        // What is sent is digested under another key.
        let mut sent = a.sent();
        sent.update(value.as_bytes());
        assert_ne!(sent.take(), Some(long));
        // Whoever has no key digests in vain.
        let plain = blake3::hash(value.as_bytes());
        assert_ne!(long.digest(), Digest(*plain.as_bytes()));
        assert_ne!(long.digest(), Digest::of(value.as_bytes()));
    }

    #[test]
    fn what_is_sent_is_digested_anew_each_time() {
        let (a, b) = (Blinder::new(&[1; 32]), Blinder::new(&[2; 32]));
        let mut sent = a.sent();
        assert_eq!(sent.take(), None);
        sent.update(b"a row");
        sent.update(b" and another");
        let first = sent.take();
        assert!(first.is_some() && sent.take().is_none());
        sent.update(b"a row and another");
        assert_eq!(sent.take(), first);
        let mut other = b.sent();
        other.update(b"a row and another");
        assert_ne!(other.take(), first);
    }
}
