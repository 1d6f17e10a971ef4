//! What binds a log-in to the TLS channel that it runs over.

use ring::digest::{self, Algorithm, SHA256, SHA384, SHA512};

/// The `tls-server-end-point` of RFC 5929, section 4.1: the certificate under the hash of its own
/// signature (SHA-256 in place of MD5 and SHA-1). `None` where that is not defined, as for Ed25519;
/// better unbound than bound wrongly.
pub(super) fn end_point_digest(certificate: &[u8]) -> Option<Vec<u8>> {
    let hash = signature_hash(certificate)?;
    Some(digest::digest(hash, certificate).as_ref().to_vec())
}

/// DER of object identifiers, without tag and length.
const RSA: &[u8] = &[0x2a, 0x86, 0x48, 0x86, 0xf7, 0x0d, 0x01, 0x01];
const ECDSA_WITH_SHA1: &[u8] = &[0x2a, 0x86, 0x48, 0xce, 0x3d, 0x04, 0x01];
const ECDSA_WITH_SHA2: &[u8] = &[0x2a, 0x86, 0x48, 0xce, 0x3d, 0x04, 0x03];

const SEQUENCE: u8 = 0x30;
const OBJECT_IDENTIFIER: u8 = 0x06;

/// `Certificate ::= SEQUENCE { tbsCertificate, signatureAlgorithm SEQUENCE { OID, ... }, ... }`
/// (RFC 5280, section 4.1).
fn signature_hash(certificate: &[u8]) -> Option<&'static Algorithm> {
    let (certificate, _) = element(certificate, SEQUENCE)?;
    let (_signed, rest) = element(certificate, SEQUENCE)?;
    let (algorithm, _) = element(rest, SEQUENCE)?;
    let (identifier, _) = element(algorithm, OBJECT_IDENTIFIER)?;
    let (last, arc) = identifier.split_last()?;
    match (arc, last) {
        // md5 (4), sha1 (5), sha256 (11), sha384 (12), sha512 (13) with RSA. RSASSA-PSS (10) has its
        // hash elsewhere.
        (RSA, 4 | 5 | 11) => Some(&SHA256),
        (RSA, 12) => Some(&SHA384),
        (RSA, 13) => Some(&SHA512),
        (ECDSA_WITH_SHA2, 2) => Some(&SHA256),
        (ECDSA_WITH_SHA2, 3) => Some(&SHA384),
        (ECDSA_WITH_SHA2, 4) => Some(&SHA512),
        _ => (identifier == ECDSA_WITH_SHA1).then_some(&SHA256),
    }
}

/// The contents of the DER element at the front, and what follows it.
fn element(bytes: &[u8], tag: u8) -> Option<(&[u8], &[u8])> {
    let (&found, rest) = bytes.split_first()?;
    let (&first, rest) = rest.split_first()?;
    let (length, rest) = match first {
        0..=0x7f => (usize::from(first), rest),
        0x81..=0x84 => {
            let (digits, rest) = rest.split_at_checked(usize::from(first & 0x7f))?;
            let append = |sum: usize, &digit: &u8| sum << 8 | usize::from(digit);
            (digits.iter().fold(0, append), rest)
        }
        _ => return None,
    };
    (found == tag).then(|| rest.split_at_checked(length))?
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use rcgen::{
        CertificateParams, KeyPair, PKCS_ECDSA_P256_SHA256, PKCS_ECDSA_P384_SHA384, PKCS_ED25519,
        SignatureAlgorithm,
    };

    use super::*;

    fn certificate(algorithm: &'static SignatureAlgorithm) -> Vec<u8> {
        let key = KeyPair::generate_for(algorithm).unwrap();
        let params = CertificateParams::new(vec!["localhost".to_owned()]).unwrap();
        params.self_signed(&key).unwrap().der().to_vec()
    }

    #[test]
    fn the_hash_is_the_signature_s_own() {
        let p256 = certificate(&PKCS_ECDSA_P256_SHA256);
        let expected = digest::digest(&SHA256, &p256);
        assert_eq!(end_point_digest(&p256).as_deref(), Some(expected.as_ref()));
        let p384 = certificate(&PKCS_ECDSA_P384_SHA384);
        let expected = digest::digest(&SHA384, &p384);
        assert_eq!(end_point_digest(&p384).as_deref(), Some(expected.as_ref()));
        assert_eq!(end_point_digest(&certificate(&PKCS_ED25519)), None);
    }

    proptest! {
        #[test]
        fn garbage_never_panics(bytes in proptest::collection::vec(any::<u8>(), 0..64)) {
            let _ = end_point_digest(&bytes);
        }

        #[test]
        fn a_certificate_that_is_cut_off_has_none(at in 0usize..80) {
            let whole = certificate(&PKCS_ECDSA_P256_SHA256);
            prop_assert_eq!(end_point_digest(&whole[..at]), None);
        }
    }
}
