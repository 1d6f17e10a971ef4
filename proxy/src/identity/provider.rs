//! One OIDC provider: discovery, its keys, and whether they signed a token.

use std::sync::Arc;
use std::time::{Duration, Instant};

use arc_swap::ArcSwapOption;
use openidconnect::core::{
    CoreJsonWebKey, CoreJsonWebKeySet, CoreJwsSigningAlgorithm as Jws, CoreProviderMetadata,
};
use openidconnect::{
    HttpRequest, HttpResponse, IssuerUrl, JsonWebKey as _, JsonWebKeySetUrl, http,
};
use tokio::sync::Mutex;

use super::{AuthError, token::Token};
use crate::config::{self, Algorithm};

/// A larger answer is no metadata and no key set.
const LARGEST_ANSWER: usize = 1 << 20;

/// When keys are fetched.
#[derive(Clone, Copy, Debug)]
pub(super) struct Timing {
    /// Older keys are fetched again.
    pub(super) refresh: Duration,
    /// Between two attempts, whatever the reason.
    pub(super) pause: Duration,
    /// Keys that could not be fetched again for so long are no longer trusted.
    pub(super) stale: Duration,
    /// For one request.
    pub(super) request: Duration,
}

impl Timing {
    pub(super) const USUAL: Timing = Timing {
        refresh: Duration::from_secs(5 * 60),
        pause: Duration::from_secs(10),
        stale: Duration::from_secs(60 * 60),
        request: Duration::from_secs(5),
    };
}

/// What came of an HTTP request. Holds no body.
#[derive(Debug, thiserror::Error)]
pub(super) enum FetchError {
    #[error("{0}")]
    Http(#[from] reqwest::Error),
    #[error("the answer is larger than {LARGEST_ANSWER} bytes")]
    Large,
    #[error("{0}")]
    Answer(#[from] http::Error),
}

struct Keys {
    keys: Vec<CoreJsonWebKey>,
    url: JsonWebKeySetUrl,
    at: Instant,
}

/// A provider and what is known of it.
pub(super) struct Provider {
    pub(super) config: config::Provider,
    issuer: IssuerUrl,
    client: reqwest::Client,
    timing: Timing,
    keys: ArcSwapOption<Keys>,
    attempt: Mutex<Option<Instant>>,
}

impl Provider {
    pub(super) fn new(
        config: &config::Provider,
        issuer: IssuerUrl,
        client: reqwest::Client,
        timing: Timing,
    ) -> Self {
        Provider {
            config: config.clone(),
            issuer,
            client,
            timing,
            keys: ArcSwapOption::empty(),
            attempt: Mutex::new(None),
        }
    }

    /// Whether the provider signed the token, with an algorithm that the configuration allows.
    pub(super) async fn verify(&self, token: &Token<'_>) -> Result<(), AuthError> {
        let algorithm = Algorithm::named(&token.algorithm)
            .filter(|algorithm| self.config.algorithms.contains(algorithm))
            .ok_or_else(|| AuthError::Algorithm(quoted(&token.algorithm)))?;
        let started = Instant::now();
        let mut keys = self.current().await?;
        if let Some(id) = &token.key_id
            && !keys.keys.iter().any(|key| is_named(key, id))
        {
            // Possibly a key that was published since.
            if keys.at < started {
                self.refresh(&keys.at).await;
                keys = self.current().await?;
            }
            if !keys.keys.iter().any(|key| is_named(key, id)) {
                return Err(AuthError::Key(quoted(id)));
            }
        }
        let fits = |key: &&CoreJsonWebKey| match &token.key_id {
            Some(id) => is_named(key, id),
            None => true,
        };
        let signed = keys.keys.iter().filter(fits).any(|key| {
            key.verify_signature(&jws(algorithm), token.signed, &token.signature)
                .is_ok()
        });
        signed.then_some(()).ok_or(AuthError::Signature)
    }

    /// Keys that are fresh, or as fresh as can be had.
    async fn current(&self) -> Result<Arc<Keys>, AuthError> {
        let known = self.keys.load_full();
        match &known {
            Some(keys) if keys.at.elapsed() < self.timing.refresh => return Ok(keys.clone()),
            Some(keys) => self.refresh(&keys.at).await,
            None => self.refresh(&Instant::now()).await,
        }
        self.keys
            .load_full()
            .filter(|keys| keys.at.elapsed() < self.timing.stale)
            .ok_or_else(|| AuthError::Unreachable(self.config.issuer.clone()))
    }

    /// Fetches keys, unless someone else just did or tried. `known` is when the caller's are from.
    async fn refresh(&self, known: &Instant) {
        let mut attempt = self.attempt.lock().await;
        if self
            .keys
            .load()
            .as_ref()
            .is_some_and(|keys| keys.at > *known)
        {
            return;
        }
        if attempt.is_some_and(|at| at.elapsed() < self.timing.pause) {
            return;
        }
        let fetched = self.fetch().await;
        *attempt = Some(Instant::now());
        match fetched {
            Ok(keys) => {
                tracing::debug!(issuer = %self.config.issuer, keys = keys.keys.len(), "fetched keys");
                self.keys.store(Some(Arc::new(keys)));
            }
            Err(reason) => {
                tracing::warn!(issuer = %self.config.issuer, reason, "identity provider unreachable");
            }
        }
    }

    async fn fetch(&self) -> Result<Keys, String> {
        let client = |request| call(self.client.clone(), request);
        let why = |error: &dyn std::error::Error| {
            let mut reason = error.to_string();
            let mut cause = error.source();
            while let Some(error) = cause {
                reason = format!("{reason}: {error}");
                cause = error.source();
            }
            reason
        };
        let known = self.keys.load_full();
        let (url, keys) = match known {
            // Where keys are does not change while a process runs, or a new discovery finds it.
            Some(known) => {
                let keys = CoreJsonWebKeySet::fetch_async(&known.url, &client).await;
                match keys {
                    Ok(keys) => (known.url.clone(), keys),
                    Err(_) => self.discover(&client).await.map_err(|error| why(&error))?,
                }
            }
            None => self.discover(&client).await.map_err(|error| why(&error))?,
        };
        if url.url().scheme() != "https" {
            return Err("its jwks_uri is not https".to_owned());
        }
        Ok(Keys {
            keys: keys.keys().clone(),
            url,
            at: Instant::now(),
        })
    }

    async fn discover<'c, C>(
        &self,
        client: &'c C,
    ) -> Result<(JsonWebKeySetUrl, CoreJsonWebKeySet), openidconnect::DiscoveryError<FetchError>>
    where
        C: openidconnect::AsyncHttpClient<'c, Error = FetchError>,
    {
        let found = CoreProviderMetadata::discover_async(self.issuer.clone(), client).await?;
        Ok((found.jwks_uri().clone(), found.jwks().clone()))
    }
}

/// An issuer, key id or algorithm for a message: escaped and not too long.
pub(super) fn quoted(text: &str) -> String {
    let short: String = text.chars().take(100).collect();
    format!("{short:?}")
}

fn is_named(key: &CoreJsonWebKey, id: &str) -> bool {
    key.key_id().is_some_and(|known| known.as_str() == id)
}

fn jws(algorithm: Algorithm) -> Jws {
    match algorithm {
        Algorithm::Rs256 => Jws::RsaSsaPkcs1V15Sha256,
        Algorithm::Rs384 => Jws::RsaSsaPkcs1V15Sha384,
        Algorithm::Rs512 => Jws::RsaSsaPkcs1V15Sha512,
        Algorithm::Ps256 => Jws::RsaSsaPssSha256,
        Algorithm::Ps384 => Jws::RsaSsaPssSha384,
        Algorithm::Ps512 => Jws::RsaSsaPssSha512,
        Algorithm::Es256 => Jws::EcdsaP256Sha256,
        Algorithm::Es384 => Jws::EcdsaP384Sha384,
        Algorithm::EdDsa => Jws::EdDsa,
    }
}

async fn call(client: reqwest::Client, request: HttpRequest) -> Result<HttpResponse, FetchError> {
    let mut answer = client.execute(request.try_into()?).await?;
    let mut built = http::Response::builder().status(answer.status());
    if let Some(headers) = built.headers_mut() {
        headers.extend(answer.headers().clone());
    }
    let mut body = Vec::new();
    while let Some(chunk) = answer.chunk().await? {
        if body.len() + chunk.len() > LARGEST_ANSWER {
            return Err(FetchError::Large);
        }
        body.extend_from_slice(&chunk);
    }
    Ok(built.body(body)?)
}
