//! Who asks: a token in, an identity out.
//!
//! A token is a JWT of a configured OIDC provider, or the secret of a static identity. Nothing here
//! logs or returns a token or a claim's value, except issuer, key id and algorithm.

mod authenticate;
mod error;
mod provider;
#[cfg(test)]
mod tests;
mod token;

pub use authenticate::{Authenticator, SetupError};
pub use error::AuthError;

/// An authenticated caller.
#[derive(Clone, Debug, PartialEq)]
pub struct Identity {
    /// `sub`, or the name of a static identity.
    pub subject: String,
    /// `iss`, or `static`.
    pub issuer: String,
    /// Who acts on the subject's behalf, nearest first.
    pub actors: Vec<chaperone_contract::Actor>,
    /// Group memberships.
    pub groups: Vec<String>,
    /// Purpose of use.
    pub purpose: Option<String>,
    /// The agent run.
    pub run: Option<String>,
    /// All claims; empty for a static identity.
    pub claims: serde_json::Map<String, serde_json::Value>,
    /// When the caller authenticated here, Unix seconds.
    pub authenticated_at: u64,
    /// When the identity ends, Unix seconds.
    pub expires_at: Option<u64>,
    /// SHA3-256 of the token.
    pub token_digest: [u8; 32],
    /// How strongly the provider says the caller authenticated.
    pub acr: Option<String>,
    /// By which means.
    pub amr: Vec<String>,
    /// The static identity's name.
    pub static_name: Option<String>,
}

impl Identity {
    /// The session that policies see.
    #[must_use]
    pub fn session(
        &self,
        target: &str,
        principal: &str,
        client_address: &str,
    ) -> chaperone_contract::Session {
        chaperone_contract::Session {
            subject: self.subject.clone(),
            issuer: self.issuer.clone(),
            actors: self.actors.clone(),
            groups: self.groups.clone(),
            claims: self.claims.clone(),
            purpose: self.purpose.clone(),
            run: self.run.clone(),
            target: target.to_owned(),
            principal: principal.to_owned(),
            client_address: client_address.to_owned(),
            authenticated_at: self.authenticated_at,
        }
    }
}
