//! `[identity]`: who may connect.

use std::path::PathBuf;
use std::time::Duration;

use serde::Deserialize;
use serde::de::{Deserializer, Error as _};

use super::value;

/// `[identity]`.
#[derive(Clone, Debug, Default, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Identity {
    /// OIDC providers.
    pub providers: Vec<Provider>,
    /// Machines without a provider.
    #[serde(rename = "static")]
    pub statics: Vec<StaticIdentity>,
}

/// `[[identity.providers]]`.
#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Provider {
    /// The issuer's URL exactly as in its tokens' `iss`; `https`.
    pub issuer: String,
    /// What a token's `aud` must hold.
    pub audience: String,
    /// Signature algorithms that are accepted.
    #[serde(default = "algorithms")]
    pub algorithms: Vec<Algorithm>,
    /// Path of the claim with the group names.
    #[serde(default = "groups_claim")]
    pub groups_claim: String,
    /// Path of the claim with the purpose of use.
    #[serde(default = "purpose_claim")]
    pub purpose_claim: String,
    /// Path of the claim with the agent run's id.
    #[serde(default = "run_claim")]
    pub run_claim: String,
    /// Authorities that sign the provider's certificate, PEM.
    pub ca: Option<PathBuf>,
    /// How far clocks may be apart.
    #[serde(default = "leeway", deserialize_with = "value::duration_or_zero")]
    pub leeway: Duration,
}

fn algorithms() -> Vec<Algorithm> {
    vec![Algorithm::Rs256, Algorithm::Es256]
}

fn groups_claim() -> String {
    "groups".to_owned()
}

fn purpose_claim() -> String {
    "purpose".to_owned()
}

fn run_claim() -> String {
    "run".to_owned()
}

fn leeway() -> Duration {
    Duration::from_secs(30)
}

/// An asymmetric signature algorithm of RFC 7518 and RFC 8037.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Algorithm {
    /// RSASSA-PKCS1-v1_5 with SHA-256.
    Rs256,
    /// RSASSA-PKCS1-v1_5 with SHA-384.
    Rs384,
    /// RSASSA-PKCS1-v1_5 with SHA-512.
    Rs512,
    /// RSASSA-PSS with SHA-256.
    Ps256,
    /// RSASSA-PSS with SHA-384.
    Ps384,
    /// RSASSA-PSS with SHA-512.
    Ps512,
    /// ECDSA on P-256 with SHA-256.
    Es256,
    /// ECDSA on P-384 with SHA-384.
    Es384,
    /// Ed25519.
    EdDsa,
}

impl Algorithm {
    const ALL: [(&'static str, Algorithm); 9] = [
        ("RS256", Algorithm::Rs256),
        ("RS384", Algorithm::Rs384),
        ("RS512", Algorithm::Rs512),
        ("PS256", Algorithm::Ps256),
        ("PS384", Algorithm::Ps384),
        ("PS512", Algorithm::Ps512),
        ("ES256", Algorithm::Es256),
        ("ES384", Algorithm::Es384),
        ("EdDSA", Algorithm::EdDsa),
    ];

    /// The algorithm that a JOSE header calls `name`.
    #[must_use]
    pub fn named(name: &str) -> Option<Self> {
        let mut all = Self::ALL.iter();
        all.find(|(known, _)| *known == name).map(|(_, it)| *it)
    }

    /// As in a JOSE header.
    #[must_use]
    pub fn name(self) -> &'static str {
        let mut all = Self::ALL.iter();
        all.find(|(_, it)| *it == self).map_or("", |(name, _)| name)
    }
}

impl<'de> Deserialize<'de> for Algorithm {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let name = String::deserialize(deserializer)?;
        Algorithm::named(&name).ok_or_else(|| {
            D::Error::custom(format!(
                "{name:?} is not an accepted signature algorithm; \
                 use RS256, RS384, RS512, PS256, PS384, PS512, ES256, ES384 or EdDSA \
                 (\"none\" and shared secrets are never accepted)"
            ))
        })
    }
}

/// `[[identity.static]]`.
#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct StaticIdentity {
    /// The subject.
    pub name: String,
    /// SHA3-256 of the token.
    #[serde(deserialize_with = "digest")]
    pub token_sha3: [u8; 32],
    /// Groups.
    #[serde(default)]
    pub groups: Vec<String>,
    /// Purpose of use.
    pub purpose: Option<String>,
    /// When it ends, Unix seconds; an RFC 3339 time in the file.
    #[serde(default, deserialize_with = "time")]
    pub expires: Option<u64>,
}

fn digest<'de, D: Deserializer<'de>>(deserializer: D) -> Result<[u8; 32], D::Error> {
    let text = String::deserialize(deserializer)?;
    // The value is not quoted: it may be the token itself.
    hex(text.as_bytes()).ok_or_else(|| {
        D::Error::custom(
            "not 64 hexadecimal digits; write the SHA3-256 of the token: \
             printf %s \"$TOKEN\" | openssl dgst -sha3-256",
        )
    })
}

fn hex(text: &[u8]) -> Option<[u8; 32]> {
    let mut bytes = [0; 32];
    if text.len() != 64 {
        return None;
    }
    for (byte, pair) in bytes.iter_mut().zip(text.chunks_exact(2)) {
        let pair = std::str::from_utf8(pair).ok()?;
        if !pair.bytes().all(|digit| digit.is_ascii_hexdigit()) {
            return None;
        }
        *byte = u8::from_str_radix(pair, 16).ok()?;
    }
    Some(bytes)
}

#[derive(Deserialize)]
#[serde(
    untagged,
    expecting = "not a point in time; write one such as \"2027-01-01T00:00:00Z\""
)]
enum Time {
    Text(String),
    Toml(toml::value::Datetime),
}

fn time<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Option<u64>, D::Error> {
    let when = match Time::deserialize(deserializer)? {
        Time::Text(text) => text.parse().ok(),
        Time::Toml(when) => Some(when),
    };
    when.and_then(unix).map(Some).ok_or_else(|| {
        D::Error::custom(
            "not a point in time; write date, time and offset, such as \"2027-01-01T00:00:00Z\"",
        )
    })
}

/// Unix seconds of a time with an offset. Days by the proleptic Gregorian calendar.
fn unix(when: toml::value::Datetime) -> Option<u64> {
    let (date, time, offset) = (when.date?, when.time?, when.offset?);
    let minutes = match offset {
        toml::value::Offset::Z => 0,
        toml::value::Offset::Custom { minutes } => i64::from(minutes),
    };
    let (year, month, day) = (
        i64::from(date.year),
        i64::from(date.month),
        i64::from(date.day),
    );
    // Years that begin in March put the leap day at the end.
    let (year, month) = if month > 2 {
        (year, month - 3)
    } else {
        (year - 1, month + 9)
    };
    let days = 365 * year + year.div_euclid(4) - year.div_euclid(100)
        + year.div_euclid(400)
        + (153 * month + 2) / 5
        + day
        - 1
        - 719_468;
    let seconds = days * 86_400
        + i64::from(time.hour) * 3600
        + i64::from(time.minute) * 60
        + i64::from(time.second.unwrap_or(0))
        - minutes * 60;
    u64::try_from(seconds).ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn times() {
        let at = |text: &str| text.parse().ok().and_then(unix);
        assert_eq!(at("1970-01-01T00:00:00Z"), Some(0));
        assert_eq!(at("2027-01-01T00:00:00Z"), Some(1_798_761_600));
        assert_eq!(at("2024-02-29T12:00:00+01:30"), Some(1_709_202_600));
        assert_eq!(at("2000-03-01T00:00:00Z"), Some(951_868_800));
        assert_eq!(at("2027-01-01T00:00:00"), None);
        assert_eq!(at("2027-01-01"), None);
    }

    #[test]
    fn digests() {
        assert_eq!(hex("ab".repeat(32).as_bytes()), Some([0xab; 32]));
        for bad in [
            "",
            "ab",
            &"xy".repeat(32),
            &"+1".repeat(32),
            &"é".repeat(32),
        ] {
            assert_eq!(hex(bad.as_bytes()), None);
        }
    }

    #[test]
    fn algorithms_have_their_names() {
        for (name, algorithm) in Algorithm::ALL {
            assert_eq!(
                (Algorithm::named(name), algorithm.name()),
                (Some(algorithm), name)
            );
        }
        assert_eq!(Algorithm::named("none"), None);
        assert_eq!(Algorithm::named("HS256"), None);
    }
}
