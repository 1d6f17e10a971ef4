//! Data keys: how they are wrapped for auditors, and how a record's private part is sealed.
//!
//! A key belongs to one log and a sequence is used once in it, so no nonce comes twice.

use hpke::{Deserializable as _, OpModeR, OpModeS, Serializable as _};
use ring::aead::{AES_256_GCM, Aad, LessSafeKey, Nonce, UnboundKey};
use ring::rand::{SecureRandom as _, SystemRandom};
use serde::{Deserialize, Serialize};
use uuid::Uuid;
use zeroize::Zeroizing;

use crate::{
    blind::Blinder,
    key::{Kem, PrivateKey, PublicKey},
    record::Seq,
    value::{Code, hex_decode, hex_encode},
};

type Aead = hpke::aead::ChaCha20Poly1305;
type Kdf = hpke::kdf::HkdfSha256;

const INFO: &[u8] = b"chaperone audit data key 1";

/// Bytes that sealing adds.
pub(crate) const TAG: usize = 16;

/// Why something cannot be sealed or opened. Says nothing about the content.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum SealError {
    /// The system's random source or the cryptographic library failed.
    #[error("sealing failed in the cryptographic library")]
    Seal,
    /// Wrong key, or the bytes are not what was sealed.
    #[error("this key does not open it")]
    Open,
    /// The key record is not understood.
    #[error("the key record is malformed")]
    Malformed,
}

/// A data key wrapped for one recipient, as it stands in a `key` record.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct WrappedKey {
    /// The recipient's name in its key file.
    pub recipient: Code,
    /// Its public key's fingerprint.
    pub fingerprint: String,
    /// HPKE's encapsulated key, hexadecimal.
    pub enc: String,
    /// The data key's ciphertext, hexadecimal.
    pub ct: String,
}

/// A symmetric key that seals records of one log.
///
/// It is 32 random bytes, wrapped for each recipient in a `key` record with HPKE (RFC 9180) in base
/// mode: DHKEM(X25519, HKDF-SHA256), HKDF-SHA256, ChaCha20-Poly1305; `info` is
/// `chaperone audit data key 1`, the associated data `LOG-ID/KEY-ID` in text. A sealed part is
/// AES-256-GCM with the stored header as associated data and, as nonce, 4 zero bytes and the
/// sequence as 8 bytes, big endian.
pub struct DataKey {
    id: u32,
    blinder: Blinder,
    key: LessSafeKey,
}

impl DataKey {
    /// A new random key and its wrapping for each recipient.
    pub fn generate(
        log: Uuid,
        id: u32,
        recipients: &[PublicKey],
    ) -> Result<(Self, Vec<WrappedKey>), SealError> {
        let mut secret = Zeroizing::new([0u8; 32]);
        SystemRandom::new()
            .fill(secret.as_mut_slice())
            .map_err(|_| SealError::Seal)?;
        let wrapped = recipients
            .iter()
            .map(|recipient| wrap(&secret, log, id, recipient))
            .collect::<Result<_, _>>()?;
        Ok((Self::new(id, secret.as_slice())?, wrapped))
    }

    /// The key out of a `key` record, with one of the recipients' private keys.
    pub fn unwrap(
        log: Uuid,
        id: u32,
        wrapped: &[WrappedKey],
        private: &PrivateKey,
    ) -> Result<Self, SealError> {
        let fingerprint = private.public().fingerprint();
        let wrapped = wrapped
            .iter()
            .find(|wrapped| wrapped.fingerprint == fingerprint)
            .ok_or(SealError::Open)?;
        let enc = hex_decode(&wrapped.enc).ok_or(SealError::Malformed)?;
        let ct = hex_decode(&wrapped.ct).ok_or(SealError::Malformed)?;
        let enc =
            <Kem as hpke::Kem>::EncappedKey::from_bytes(&enc).map_err(|_| SealError::Malformed)?;
        let secret = hpke::single_shot_open::<Aead, Kdf, Kem>(
            &OpModeR::Base,
            private.inner(),
            &enc,
            INFO,
            &ct,
            key_name(log, id).as_bytes(),
        )
        .map(Zeroizing::new)
        .map_err(|_| SealError::Open)?;
        Self::new(id, &secret)
    }

    /// Its number in its log.
    #[must_use]
    pub fn id(&self) -> u32 {
        self.id
    }

    /// Makes the digests of what may hold data. A run uses its first key's.
    #[must_use]
    pub fn blinder(&self) -> &Blinder {
        &self.blinder
    }

    /// Encrypts `text` in place and gives the tag that belongs behind it.
    pub(crate) fn seal(
        &self,
        seq: Seq,
        header: &[u8],
        text: &mut [u8],
    ) -> Result<[u8; TAG], SealError> {
        self.key
            .seal_in_place_separate_tag(nonce(seq), Aad::from(header), text)
            .map_err(|_| SealError::Seal)?
            .as_ref()
            .try_into()
            .map_err(|_| SealError::Seal)
    }

    /// Opens a sealed part: ciphertext and tag, with the header as stored.
    pub fn open(
        &self,
        seq: Seq,
        header: &[u8],
        sealed: &[u8],
    ) -> Result<Zeroizing<Vec<u8>>, SealError> {
        let mut text = Zeroizing::new(sealed.to_vec());
        let length = self
            .key
            .open_in_place(nonce(seq), Aad::from(header), &mut text)
            .map_err(|_| SealError::Open)?
            .len();
        text.truncate(length);
        Ok(text)
    }

    fn new(id: u32, secret: &[u8]) -> Result<Self, SealError> {
        let key = UnboundKey::new(&AES_256_GCM, secret).map_err(|_| SealError::Seal)?;
        Ok(Self {
            id,
            blinder: Blinder::new(secret),
            key: LessSafeKey::new(key),
        })
    }
}

impl std::fmt::Debug for DataKey {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "DataKey({}, not shown)", self.id)
    }
}

fn wrap(
    secret: &Zeroizing<[u8; 32]>,
    log: Uuid,
    id: u32,
    recipient: &PublicKey,
) -> Result<WrappedKey, SealError> {
    let (enc, ct) = hpke::single_shot_seal::<Aead, Kdf, Kem>(
        &OpModeS::Base,
        recipient.inner(),
        INFO,
        secret.as_slice(),
        key_name(log, id).as_bytes(),
    )
    .map_err(|_| SealError::Seal)?;
    Ok(WrappedKey {
        recipient: recipient.name().clone(),
        fingerprint: recipient.fingerprint(),
        enc: hex_encode(&enc.to_bytes()),
        ct: hex_encode(&ct),
    })
}

fn key_name(log: Uuid, id: u32) -> String {
    format!("{log}/{id}")
}

fn nonce(seq: Seq) -> Nonce {
    let mut bytes = [0; 12];
    for (byte, from) in bytes.iter_mut().skip(4).zip(seq.0.to_be_bytes()) {
        *byte = from;
    }
    Nonce::assume_unique_for_key(bytes)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_a_recipient_opens_and_only_the_same_record() {
        let (alice, bob, eve) = (
            PrivateKey::generate("alice").unwrap(),
            PrivateKey::generate("bob").unwrap(),
            PrivateKey::generate("eve").unwrap(),
        );
        let log = Uuid::now_v7();
        let (key, wrapped) = DataKey::generate(log, 1, &[alice.public(), bob.public()]).unwrap();
        let mut sealed = b"text".to_vec();
        let tag = key.seal(Seq(7), b"header", &mut sealed).unwrap();
        sealed.extend_from_slice(&tag);
        for private in [&alice, &bob] {
            let key = DataKey::unwrap(log, 1, &wrapped, private).unwrap();
            assert_eq!(&**key.open(Seq(7), b"header", &sealed).unwrap(), b"text");
            assert!(key.open(Seq(8), b"header", &sealed).is_err());
            assert!(key.open(Seq(7), b"other", &sealed).is_err());
        }
        assert!(DataKey::unwrap(log, 1, &wrapped, &eve).is_err());
        assert!(DataKey::unwrap(log, 2, &wrapped, &alice).is_err());
        assert!(DataKey::unwrap(Uuid::now_v7(), 1, &wrapped, &alice).is_err());
    }
}
