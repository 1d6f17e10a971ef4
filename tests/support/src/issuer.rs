//! A small OIDC issuer: real HTTPS, discovery, keys that rotate, and tokens with any claims.

use std::io::{Read as _, Write as _};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::thread;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use base64::Engine as _;
use base64::prelude::BASE64_URL_SAFE_NO_PAD;
use rustls::pki_types::pem::PemObject as _;
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use rustls::{ServerConfig, ServerConnection, StreamOwned};
use serde_json::{Value, json};

use crate::error::{Context as _, Error, Result};
use crate::tls::Ca;

mod key;

pub use key::SigningKey;

/// What tokens are for unless their claims say otherwise.
pub const AUDIENCE: &str = "chaperone";

/// How long tokens are valid unless their claims say otherwise, seconds.
pub const LIFETIME: u64 = 12 * 60 * 60;

const PATIENCE: Duration = Duration::from_secs(5);

/// A running issuer. Ends when dropped.
#[derive(Debug)]
pub struct Issuer {
    shared: Arc<Shared>,
    address: SocketAddr,
    ca: String,
}

#[derive(Debug)]
struct Shared {
    url: String,
    keys: Mutex<Keys>,
    reachable: AtomicBool,
    ended: AtomicBool,
    requests: AtomicUsize,
}

#[derive(Debug)]
struct Keys {
    signing: SigningKey,
    /// The signing key, and older ones that are still published.
    published: Vec<Value>,
}

impl Issuer {
    /// On a free loopback port, signing with ES256.
    ///
    /// # Errors
    /// No port, or no certificate.
    pub fn start() -> Result<Self> {
        Self::start_on("127.0.0.1:0", SigningKey::es256("key-1")?)
    }

    /// On a loopback address of one's choice (the certificate is for `localhost` and the loopback
    /// addresses), signing with `key`.
    ///
    /// # Errors
    /// As [`Issuer::start`].
    pub fn start_on(listen: &str, key: SigningKey) -> Result<Self> {
        let listener = TcpListener::bind(listen).context(format!("listen on {listen}"))?;
        let address = listener.local_addr().context("read the port")?;
        let ca = Ca::new()?;
        let tls = server_config(&ca)?;
        let shared = Arc::new(Shared {
            url: format!("https://{address}"),
            keys: Mutex::new(Keys {
                published: vec![key.public()],
                signing: key,
            }),
            reachable: AtomicBool::new(true),
            ended: AtomicBool::new(false),
            requests: AtomicUsize::new(0),
        });
        let served = Arc::clone(&shared);
        thread::spawn(move || accept(&listener, &tls, &served));
        Ok(Issuer {
            shared,
            address,
            ca: ca.pem(),
        })
    }

    /// The issuer's URL, as in `iss`.
    #[must_use]
    pub fn url(&self) -> &str {
        &self.shared.url
    }

    /// The authority of its certificate, PEM.
    #[must_use]
    pub fn ca_pem(&self) -> &str {
        &self.ca
    }

    /// How many requests were answered.
    #[must_use]
    pub fn requests(&self) -> usize {
        self.shared.requests.load(Ordering::SeqCst)
    }

    /// A token for `subject`. `claims` are added to, or replace, the usual ones (`iss`, `sub`,
    /// `aud`, `iat`, `exp`); null removes one.
    ///
    /// # Errors
    /// The key does not sign.
    pub fn token(&self, subject: &str, claims: &Value) -> Result<String> {
        self.token_with_header(subject, &json!({}), claims)
    }

    /// As [`Issuer::token`], with changes to the header (`alg`, `kid`, `typ`).
    ///
    /// # Errors
    /// The key does not sign.
    pub fn token_with_header(
        &self,
        subject: &str,
        header: &Value,
        claims: &Value,
    ) -> Result<String> {
        let keys = self.shared.keys();
        let now = now();
        let mut head =
            json!({"alg": keys.signing.algorithm(), "kid": keys.signing.id(), "typ": "JWT"});
        let mut body = json!({
            "iss": self.url(),
            "sub": subject,
            "aud": AUDIENCE,
            "iat": now,
            "exp": now + LIFETIME,
        });
        merge(&mut head, header);
        merge(&mut body, claims);
        let signed = format!("{}.{}", encode(head.to_string()), encode(body.to_string()));
        let signature = keys.signing.sign(signed.as_bytes())?;
        Ok(format!("{signed}.{}", encode(signature)))
    }

    /// Signs with another key from now on; the earlier ones stay published if `keep`.
    pub fn rotate(&self, key: SigningKey, keep: bool) {
        let mut keys = self.shared.keys();
        if !keep {
            keys.published.clear();
        }
        keys.published.push(key.public());
        keys.signing = key;
    }

    /// Whether connections are answered or dropped.
    pub fn set_reachable(&self, reachable: bool) {
        self.shared.reachable.store(reachable, Ordering::SeqCst);
    }
}

impl Drop for Issuer {
    fn drop(&mut self) {
        self.shared.ended.store(true, Ordering::SeqCst);
        // Wakes the listener.
        let _ = TcpStream::connect(self.address);
    }
}

impl Shared {
    fn keys(&self) -> MutexGuard<'_, Keys> {
        self.keys.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn document(&self, path: &str) -> Option<Value> {
        match path {
            "/.well-known/openid-configuration" => Some(json!({
                "issuer": self.url,
                "authorization_endpoint": format!("{}/authorize", self.url),
                "token_endpoint": format!("{}/token", self.url),
                "jwks_uri": format!("{}/keys", self.url),
                "response_types_supported": ["code"],
                "subject_types_supported": ["public"],
                "id_token_signing_alg_values_supported": [self.keys().signing.algorithm()],
            })),
            "/keys" => Some(json!({"keys": self.keys().published})),
            _ => None,
        }
    }
}

fn accept(listener: &TcpListener, tls: &Arc<ServerConfig>, shared: &Arc<Shared>) {
    for stream in listener.incoming() {
        if shared.ended.load(Ordering::SeqCst) {
            return;
        }
        let Ok(stream) = stream else { continue };
        if !shared.reachable.load(Ordering::SeqCst) {
            continue;
        }
        let (tls, shared) = (Arc::clone(tls), Arc::clone(shared));
        // A client that goes away is its own business.
        thread::spawn(move || answer(stream, tls, &shared).ok());
    }
}

fn answer(stream: TcpStream, tls: Arc<ServerConfig>, shared: &Shared) -> std::io::Result<()> {
    stream.set_read_timeout(Some(PATIENCE))?;
    stream.set_write_timeout(Some(PATIENCE))?;
    let connection = ServerConnection::new(tls).map_err(std::io::Error::other)?;
    let mut stream = StreamOwned::new(connection, stream);
    let mut request = Vec::new();
    let mut byte = [0];
    while !request.ends_with(b"\r\n\r\n") && request.len() < 8192 {
        stream.read_exact(&mut byte)?;
        request.extend_from_slice(&byte);
    }
    let request = String::from_utf8_lossy(&request);
    let path = request.split(' ').nth(1).unwrap_or_default();
    let (status, body) = match shared.document(path) {
        Some(body) => ("200 OK", body.to_string()),
        None => ("404 Not Found", "{}".to_owned()),
    };
    shared.requests.fetch_add(1, Ordering::SeqCst);
    write!(
        stream,
        "HTTP/1.1 {status}\r\nContent-Type: application/json\r\nContent-Length: {}\r\nConnection: close\r\n\r\n{body}",
        body.len()
    )?;
    stream.conn.send_close_notify();
    stream.flush()
}

fn server_config(ca: &Ca) -> Result<Arc<ServerConfig>> {
    let certificate = |error: &dyn std::fmt::Display| Error::Certificate(error.to_string());
    let pem = ca.issue_loopback()?;
    let chain = CertificateDer::from_pem_slice(pem.certificate.as_bytes())
        .map_err(|error| certificate(&error))?;
    let key =
        PrivateKeyDer::from_pem_slice(pem.key.as_bytes()).map_err(|error| certificate(&error))?;
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let config = ServerConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()
        .map_err(|error| certificate(&error))?
        .with_no_client_auth()
        .with_single_cert(vec![chain], key)
        .map_err(|error| certificate(&error))?;
    Ok(Arc::new(config))
}

fn merge(into: &mut Value, changes: &Value) {
    let (Some(into), Some(changes)) = (into.as_object_mut(), changes.as_object()) else {
        return;
    };
    for (name, value) in changes {
        if value.is_null() {
            into.remove(name);
        } else {
            into.insert(name.clone(), value.clone());
        }
    }
}

fn encode(bytes: impl AsRef<[u8]>) -> String {
    BASE64_URL_SAFE_NO_PAD.encode(bytes)
}

fn now() -> u64 {
    let since = SystemTime::now().duration_since(UNIX_EPOCH);
    since.map_or(0, |since| since.as_secs())
}
