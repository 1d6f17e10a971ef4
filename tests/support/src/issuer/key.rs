//! Keys that sign tokens.

use std::fmt;

use base64::Engine as _;
use base64::prelude::BASE64_URL_SAFE_NO_PAD;
use openidconnect::core::{CoreJwsSigningAlgorithm, CoreRsaPrivateSigningKey};
use openidconnect::{JsonWebKeyId, PrivateSigningKey as _};
use ring::rand::SystemRandom;
use ring::signature::{ECDSA_P256_SHA256_FIXED_SIGNING, EcdsaKeyPair, KeyPair as _};
use rsa::pkcs1::EncodeRsaPrivateKey as _;
use serde_json::{Value, json};

use crate::error::{Error, Result};

/// A private key and its id.
pub struct SigningKey {
    id: String,
    pair: Pair,
}

enum Pair {
    Es256(Box<EcdsaKeyPair>),
    Rs256(Box<CoreRsaPrivateSigningKey>),
}

impl SigningKey {
    /// A new P-256 key; takes no time.
    ///
    /// # Errors
    /// There is no randomness.
    pub fn es256(id: &str) -> Result<Self> {
        let (algorithm, random) = (&ECDSA_P256_SHA256_FIXED_SIGNING, SystemRandom::new());
        let document =
            EcdsaKeyPair::generate_pkcs8(algorithm, &random).map_err(|error| failed(&error))?;
        let pair = EcdsaKeyPair::from_pkcs8(algorithm, document.as_ref(), &random)
            .map_err(|error| failed(&error))?;
        Ok(SigningKey {
            id: id.to_owned(),
            pair: Pair::Es256(Box::new(pair)),
        })
    }

    /// A new RSA key of 2048 bits; takes about a second.
    ///
    /// # Errors
    /// There is no randomness.
    pub fn rs256(id: &str) -> Result<Self> {
        Self::rs256_of(id, 2048)
    }

    /// As [`SigningKey::rs256`], of any length.
    ///
    /// # Errors
    /// There is no randomness, or no such key.
    pub fn rs256_of(id: &str, bits: usize) -> Result<Self> {
        let key = rsa::RsaPrivateKey::new(&mut rsa::rand_core::OsRng, bits)
            .map_err(|error| failed(&error))?;
        let pem = key
            .to_pkcs1_pem(rsa::pkcs1::LineEnding::LF)
            .map_err(|error| failed(&error))?;
        let key = CoreRsaPrivateSigningKey::from_pem(&pem, Some(JsonWebKeyId::new(id.to_owned())))
            .map_err(Error::Certificate)?;
        Ok(SigningKey {
            id: id.to_owned(),
            pair: Pair::Rs256(Box::new(key)),
        })
    }

    /// `kid`.
    #[must_use]
    pub fn id(&self) -> &str {
        &self.id
    }

    /// `alg`.
    #[must_use]
    pub fn algorithm(&self) -> &'static str {
        match self.pair {
            Pair::Es256(_) => "ES256",
            Pair::Rs256(_) => "RS256",
        }
    }

    /// The public half as a JSON Web Key.
    #[must_use]
    pub fn public(&self) -> Value {
        match &self.pair {
            Pair::Es256(pair) => {
                // The uncompressed point: 4, x, y.
                let point = pair.public_key().as_ref();
                let (x, y) = point
                    .get(1..)
                    .unwrap_or_default()
                    .split_at_checked(32)
                    .unwrap_or_default();
                let encode = |part| BASE64_URL_SAFE_NO_PAD.encode(part);
                json!({
                    "kty": "EC", "crv": "P-256", "use": "sig", "alg": "ES256", "kid": self.id,
                    "x": encode(x), "y": encode(y),
                })
            }
            Pair::Rs256(key) => serde_json::to_value(key.as_verification_key()).unwrap_or_default(),
        }
    }

    pub(super) fn sign(&self, message: &[u8]) -> Result<Vec<u8>> {
        match &self.pair {
            Pair::Es256(pair) => match pair.sign(&SystemRandom::new(), message) {
                Ok(signature) => Ok(signature.as_ref().to_vec()),
                Err(error) => Err(failed(&error)),
            },
            Pair::Rs256(key) => key
                .sign(&CoreJwsSigningAlgorithm::RsaSsaPkcs1V15Sha256, message)
                .map_err(|error| failed(&error)),
        }
    }
}

impl fmt::Debug for SigningKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("SigningKey")
            .field("id", &self.id)
            .finish_non_exhaustive()
    }
}

fn failed(error: &dyn fmt::Display) -> Error {
    Error::Certificate(error.to_string())
}
