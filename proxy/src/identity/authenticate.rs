//! From a token to an identity.

use std::time::{SystemTime, UNIX_EPOCH};

use openidconnect::IssuerUrl;
use serde_json::Map;
use sha3::{Digest as _, Sha3_256};
use subtle::ConstantTimeEq as _;

use super::provider::{Provider, Timing, quoted};
use super::token::{self, Token};
use super::{AuthError, Identity};
use crate::config::{self, Config, StaticIdentity};
use crate::tls::{self, TlsError};

/// Longest token, bytes: as much as a PostgreSQL password message may hold.
const LONGEST_TOKEN: usize = 64 << 10;

/// A provider that cannot be set up.
#[derive(Debug, thiserror::Error)]
pub enum SetupError {
    /// The issuer is no URL.
    #[error("identity.providers.issuer {issuer:?} is not a URL; write it as in its tokens' `iss`")]
    Issuer {
        /// As configured.
        issuer: String,
    },
    /// The authorities cannot be used.
    #[error("identity.providers.ca: {0}; {mend}", mend = .0.mend())]
    Ca(#[from] TlsError),
    /// There is no HTTP client.
    #[error("cannot make an HTTP client: {0}")]
    Http(#[from] reqwest::Error),
}

/// Knows every provider and every static identity.
pub struct Authenticator {
    providers: Vec<Provider>,
    statics: Vec<StaticIdentity>,
}

impl Authenticator {
    /// Needs no provider to be reachable yet.
    ///
    /// # Errors
    /// A provider's issuer or authorities cannot be used.
    pub fn new(config: &Config) -> Result<Self, SetupError> {
        Self::with_timing(&config.identity, Timing::USUAL)
    }

    pub(super) fn with_timing(
        config: &config::Identity,
        timing: Timing,
    ) -> Result<Self, SetupError> {
        let provider = |provider: &config::Provider| {
            let issuer =
                IssuerUrl::new(provider.issuer.clone()).map_err(|_| SetupError::Issuer {
                    issuer: provider.issuer.clone(),
                })?;
            Ok(Provider::new(
                provider,
                issuer,
                client(provider, timing)?,
                timing,
            ))
        };
        Ok(Authenticator {
            providers: config
                .providers
                .iter()
                .map(provider)
                .collect::<Result<_, SetupError>>()?,
            statics: config.statics.clone(),
        })
    }

    /// Reads every provider's keys, so that the first login need not wait for them and a wrong
    /// configuration shows in the log early. What fails is tried again at login.
    pub async fn warm_up(&self) {
        for provider in &self.providers {
            provider.warm_up().await;
        }
    }

    /// Who the token belongs to.
    ///
    /// # Errors
    /// Why it is refused.
    pub async fn authenticate(&self, token: &str) -> Result<Identity, AuthError> {
        if token.len() > LONGEST_TOKEN {
            return Err(AuthError::TooLong {
                limit: LONGEST_TOKEN,
            });
        }
        let digest: [u8; 32] = Sha3_256::digest(token.as_bytes()).into();
        if let Some(identity) = self.fixed(digest) {
            return identity;
        }
        if self.providers.is_empty() || token.matches('.').count() != 2 {
            return Err(AuthError::Unknown);
        }
        self.signed(&Token::parse(token)?, digest).await
    }

    fn fixed(&self, digest: [u8; 32]) -> Option<Result<Identity, AuthError>> {
        let mut found = None;
        for known in &self.statics {
            // Every byte of every digest is looked at, so time tells nothing.
            if bool::from(known.token_sha3.ct_eq(&digest)) {
                found = Some(known);
            }
        }
        let known = found?;
        let now = now();
        if known.expires.is_some_and(|end| now >= end) {
            return Some(Err(AuthError::Expired));
        }
        Some(Ok(Identity {
            subject: known.name.clone(),
            issuer: "static".to_owned(),
            actors: Vec::new(),
            groups: known.groups.clone(),
            purpose: known.purpose.clone(),
            run: None,
            claims: Map::new(),
            authenticated_at: now,
            expires_at: known.expires,
            token_digest: digest,
            acr: None,
            amr: Vec::new(),
            static_name: Some(known.name.clone()),
        }))
    }

    async fn signed(&self, token: &Token<'_>, digest: [u8; 32]) -> Result<Identity, AuthError> {
        let claims = &token.claims;
        let issuer = token::text(claims, "iss", "iss")?.ok_or(AuthError::Claim("iss"))?;
        let audience = token::texts(claims, "aud", "aud")?;
        // One issuer may be configured for several audiences.
        let ours = |provider: &&Provider| provider.config.issuer == issuer;
        let provider = self
            .providers
            .iter()
            .filter(ours)
            .find(|provider| audience.contains(&provider.config.audience))
            .or_else(|| self.providers.iter().find(ours))
            .ok_or_else(|| AuthError::Issuer(quoted(&issuer)))?;
        provider.verify(token).await?;
        if !audience.contains(&provider.config.audience) {
            return Err(AuthError::Audience);
        }
        let now = now();
        let expires_at = times(token, now, provider.config.leeway.as_secs_f64())?;
        let subject = token::text(claims, "sub", "sub")?.ok_or(AuthError::Claim("sub"))?;
        let config = &provider.config;
        Ok(Identity {
            actors: token::actors(claims, &issuer)?,
            groups: token::texts(claims, &config.groups_claim, "groups")?,
            purpose: token::text(claims, &config.purpose_claim, "purpose")?,
            run: token::text(claims, &config.run_claim, "run")?,
            claims: claims.clone(),
            authenticated_at: now,
            expires_at: Some(expires_at),
            token_digest: digest,
            acr: token::text(claims, "acr", "acr")?,
            amr: token::texts(claims, "amr", "amr")?,
            static_name: None,
            subject,
            issuer,
        })
    }
}

/// Checks `exp`, `nbf` and `iat`; returns when the identity ends.
fn times(token: &Token<'_>, now: u64, leeway: f64) -> Result<u64, AuthError> {
    #[allow(
        clippy::cast_precision_loss,
        reason = "Unix seconds are far below 2^53"
    )]
    let clock = now as f64;
    let end = token::date(&token.claims, "exp")?.ok_or(AuthError::Claim("exp"))? + leeway;
    if clock >= end {
        return Err(AuthError::Expired);
    }
    if token::date(&token.claims, "nbf")?.is_some_and(|start| start > clock + leeway) {
        return Err(AuthError::NotYetValid);
    }
    if token::date(&token.claims, "iat")?.is_some_and(|issued| issued > clock + leeway) {
        return Err(AuthError::IssuedInFuture);
    }
    #[allow(
        clippy::cast_possible_truncation,
        clippy::cast_sign_loss,
        reason = "0 to 1e15 by `date`"
    )]
    Ok(end as u64)
}

fn client(provider: &config::Provider, timing: Timing) -> Result<reqwest::Client, SetupError> {
    let builder = reqwest::Client::builder()
        .redirect(reqwest::redirect::Policy::none())
        .https_only(true)
        .no_proxy()
        .connect_timeout(timing.request)
        .timeout(timing.request);
    let tls = match &provider.ca {
        Some(ca) => tls::client_config(ca)?,
        None => tls::system_client_config()?,
    };
    Ok(builder.tls_backend_preconfigured((*tls).clone()).build()?)
}

fn now() -> u64 {
    let since = SystemTime::now().duration_since(UNIX_EPOCH);
    since.map_or(0, |since| since.as_secs())
}
