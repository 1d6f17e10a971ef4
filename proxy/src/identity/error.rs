//! Why a token is refused.

/// Why a token is refused. Shown to operators; [`AuthError::code`] goes into the audit log.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum AuthError {
    /// Longer than any token should be.
    #[error("the token is longer than {limit} bytes; ask the provider for fewer claims")]
    TooLong {
        /// Bytes.
        limit: usize,
    },
    /// Neither a static identity's token nor a JWT.
    #[error(
        "the token is unknown; use a JWT of a configured provider or a static identity's token"
    )]
    Unknown,
    /// Not a JWT in compact form.
    #[error("the token is not a well-formed JWT: {0}")]
    Malformed(&'static str),
    /// Signed in a way that is not accepted.
    #[error(
        "algorithm {0} is not accepted; list it under identity.providers.algorithms if it should be"
    )]
    Algorithm(String),
    /// A JWT for another use.
    #[error("the JWT's type is not accepted; it must be JWT or at+jwt, or absent")]
    Type,
    /// Another provider's token.
    #[error("issuer {0} is not configured; `iss` must be the configured issuer letter by letter")]
    Issuer(String),
    /// The provider does not publish this key.
    #[error("key {0} is not among the provider's keys")]
    Key(String),
    /// The signature does not fit.
    #[error("the signature is not the provider's")]
    Signature,
    /// For someone else.
    #[error("the token is for another audience; `aud` must hold the configured audience")]
    Audience,
    /// No longer valid.
    #[error("the token has expired; get a new one")]
    Expired,
    /// Not valid yet.
    #[error("the token is not valid yet; check both clocks")]
    NotYetValid,
    /// From the future.
    #[error("the token was issued in the future; check both clocks")]
    IssuedInFuture,
    /// A claim is missing or of the wrong kind.
    #[error("claim {0} is missing or malformed")]
    Claim(&'static str),
    /// Its keys are not known, or too old.
    #[error("identity provider unreachable: {0}")]
    Unreachable(String),
}

impl AuthError {
    /// A stable word for the audit log and metrics.
    #[must_use]
    pub fn code(&self) -> &'static str {
        match self {
            AuthError::TooLong { .. } => "token-too-long",
            AuthError::Unknown => "token-unknown",
            AuthError::Malformed(_) => "token-malformed",
            AuthError::Algorithm(_) => "algorithm-not-accepted",
            AuthError::Type => "type-not-accepted",
            AuthError::Issuer(_) => "issuer-unknown",
            AuthError::Key(_) => "key-unknown",
            AuthError::Signature => "signature-invalid",
            AuthError::Audience => "audience-wrong",
            AuthError::Expired => "token-expired",
            AuthError::NotYetValid => "token-not-yet-valid",
            AuthError::IssuedInFuture => "token-issued-in-future",
            AuthError::Claim(_) => "claim-malformed",
            AuthError::Unreachable(_) => "provider-unreachable",
        }
    }

    /// Whether nothing is known to be wrong with the token: it could not be checked.
    #[must_use]
    pub fn is_temporary(&self) -> bool {
        matches!(self, AuthError::Unreachable(_))
    }
}
