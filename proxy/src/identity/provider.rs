//! One OIDC provider: discovery, its keys, and whether they signed a token.

use std::sync::Arc;
use std::time::{Duration, Instant};

use arc_swap::ArcSwapOption;
use base64::Engine as _;
use base64::prelude::BASE64_URL_SAFE_NO_PAD;
use openidconnect::core::{
    CoreJsonWebKey, CoreJsonWebKeySet, CoreJsonWebKeyType, CoreJwsSigningAlgorithm as Jws,
    CoreProviderMetadata,
};
use openidconnect::{
    HttpRequest, HttpResponse, IssuerUrl, JsonWebKey as _, JsonWebKeySetUrl, http,
};
use tokio::sync::Mutex;

use super::{AuthError, token::Token};
use crate::config::{self, Algorithm};

/// Bits of the shortest RSA modulus that is accepted (RFC 7518, section 3.3).
const SHORTEST_RSA: usize = 2048;

/// Between two attempts as long as none has succeeded, at most.
const FIRST_PAUSE: Duration = Duration::from_secs(1);

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

/// Why keys are fetched.
#[derive(Clone, Copy)]
enum Urgency {
    /// Nothing can be decided without.
    Needed,
    /// The known ones will do for a while.
    Old,
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
        let keys = self.current().await?;
        let error = match verify(&keys.keys, token, algorithm) {
            Ok(()) => return Ok(()),
            Err(error) => error,
        };
        // A key that was published since can mend an unknown id, or a signature without an id.
        let is_final = token.key_id.is_some() && error == AuthError::Signature;
        if is_final || keys.at >= started {
            return Err(error);
        }
        self.refresh(&keys.at, Urgency::Needed).await;
        verify(&self.current().await?.keys, token, algorithm)
    }

    /// Fetches the keys unless they are known. Failures are logged.
    pub(super) async fn warm_up(&self) {
        let _ = self.current().await;
    }

    /// Keys that are fresh, or as fresh as can be had.
    async fn current(&self) -> Result<Arc<Keys>, AuthError> {
        let known = self.keys.load_full();
        match &known {
            Some(keys) if keys.at.elapsed() < self.timing.refresh => return Ok(keys.clone()),
            Some(keys) => self.refresh(&keys.at, Urgency::Old).await,
            None => self.refresh(&Instant::now(), Urgency::Needed).await,
        }
        self.keys
            .load_full()
            .filter(|keys| keys.at.elapsed() < self.timing.stale)
            .ok_or_else(|| AuthError::Unreachable(self.config.issuer.clone()))
    }

    /// Fetches keys, unless someone else just did or tried. `known` is when the caller's are from.
    async fn refresh(&self, known: &Instant, urgency: Urgency) {
        let mut attempt = match urgency {
            Urgency::Needed => self.attempt.lock().await,
            // While one caller waits for a slow provider, the others go on with what there is.
            Urgency::Old => match self.attempt.try_lock() {
                Ok(attempt) => attempt,
                Err(_) => return,
            },
        };
        if self
            .keys
            .load()
            .as_ref()
            .is_some_and(|keys| keys.at > *known)
        {
            return;
        }
        // A provider that starts together with this process is soon there.
        let pause = match self.keys.load().as_ref() {
            Some(_) => self.timing.pause,
            None => self.timing.pause.min(FIRST_PAUSE),
        };
        if attempt.is_some_and(|at| at.elapsed() < pause) {
            return;
        }
        // Set before too: a client that does not wait must not make every login an attempt.
        *attempt = Some(Instant::now());
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
            keys: self.usable(keys.keys()),
            url,
            at: Instant::now(),
        })
    }

    fn usable(&self, keys: &[CoreJsonWebKey]) -> Vec<CoreJsonWebKey> {
        let is_usable = |key: &&CoreJsonWebKey| {
            let weak = is_weak(key);
            if weak {
                let kid = key.key_id().map(|id| quoted(id.as_str()));
                tracing::warn!(issuer = %self.config.issuer, kid, "ignored an RSA key below {SHORTEST_RSA} bits");
            }
            !weak
        };
        keys.iter().filter(is_usable).cloned().collect()
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

/// Whether one of `keys` signed the token: the one that it names, or any if it names none.
fn verify(
    keys: &[CoreJsonWebKey],
    token: &Token<'_>,
    algorithm: Algorithm,
) -> Result<(), AuthError> {
    let mut error = token
        .key_id
        .as_ref()
        .map_or(AuthError::Signature, |id| AuthError::Key(quoted(id)));
    for key in keys {
        if !token.key_id.as_ref().is_none_or(|id| is_named(key, id)) {
            continue;
        }
        let signed = key.verify_signature(&jws(algorithm), token.signed, &token.signature);
        if signed.is_ok() {
            return Ok(());
        }
        error = AuthError::Signature;
    }
    Err(error)
}

fn is_weak(key: &CoreJsonWebKey) -> bool {
    *key.key_type() == CoreJsonWebKeyType::RSA && modulus_bits(key) < SHORTEST_RSA
}

/// The crate shows a key's modulus in its JSON only.
fn modulus_bits(key: &CoreJsonWebKey) -> usize {
    let modulus = || {
        let json = serde_json::to_value(key).ok()?;
        BASE64_URL_SAFE_NO_PAD.decode(json.get("n")?.as_str()?).ok()
    };
    let modulus = modulus().unwrap_or_default();
    let mut bytes = modulus.iter().skip_while(|byte| **byte == 0);
    bytes.next().map_or(0, |first| {
        8 * (bytes.count() + 1) - first.leading_zeros() as usize
    })
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

#[cfg(test)]
mod tests {
    use openidconnect::JsonWebKeyId;

    use super::*;

    fn rsa(modulus: Vec<u8>) -> CoreJsonWebKey {
        CoreJsonWebKey::new_rsa(
            modulus,
            vec![1, 0, 1],
            Some(JsonWebKeyId::new("k".to_owned())),
        )
    }

    #[tokio::test]
    async fn a_slow_provider_holds_up_one_login_and_not_all() {
        let text = "issuer = \"https://127.0.0.1:1\"\naudience = \"a\"";
        let config: config::Provider = toml::from_str(text).expect("a provider");
        let issuer = IssuerUrl::new(config.issuer.clone()).expect("a URL");
        let tls = rustls::ClientConfig::builder_with_provider(crate::tls::provider())
            .with_safe_default_protocol_versions()
            .expect("versions")
            .with_root_certificates(rustls::RootCertStore::empty())
            .with_no_client_auth();
        let client = reqwest::Client::builder().tls_backend_preconfigured(tls);
        let timing = Timing {
            refresh: Duration::ZERO,
            ..Timing::USUAL
        };
        let client = client.build().expect("a client");
        let provider = Provider::new(&config, issuer, client, timing);
        let _first = provider.attempt.lock().await;
        let soon = Duration::from_millis(100);

        // Without any keys there is nothing to go on with.
        assert!(
            tokio::time::timeout(soon, provider.current())
                .await
                .is_err()
        );
        let url = "https://127.0.0.1:1/keys".to_owned();
        provider.keys.store(Some(Arc::new(Keys {
            keys: vec![rsa(vec![0x80; 256])],
            url: JsonWebKeySetUrl::new(url).expect("a URL"),
            at: Instant::now(),
        })));
        let second = tokio::time::timeout(soon, provider.current()).await;
        assert_eq!(second.expect("at once").expect("known keys").keys.len(), 1);
    }

    #[test]
    fn rsa_keys_are_measured_without_leading_zeros() {
        for (modulus, bits) in [
            (vec![], 0),
            (vec![0, 0], 0),
            (vec![1], 1),
            (vec![0x80, 0], 16),
            (vec![0, 0x7f, 0], 15),
        ] {
            assert_eq!(modulus_bits(&rsa(modulus)), bits);
        }
        assert!(!is_weak(&rsa(vec![0x80; 256])));
        assert!(is_weak(&rsa(vec![0x7f; 256])));
        // The length in bytes would do, were it not padded.
        assert!(is_weak(&rsa([vec![0; 128], vec![0xff; 128]].concat())));
        let point = CoreJsonWebKey::new_ec(
            vec![1; 32],
            vec![2; 32],
            openidconnect::core::CoreJsonCurveType::P256,
            None,
        );
        assert!(!is_weak(&point));
    }
}
