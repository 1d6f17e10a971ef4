//! TLS from PEM files: rustls with the `ring` provider, TLS 1.2 and later.

use std::path::{Path, PathBuf};
use std::sync::Arc;

use rustls::crypto::{CryptoProvider, ring};
use rustls::pki_types::pem::PemObject as _;
use rustls::pki_types::{CertificateDer, PrivateKeyDer, pem};
use rustls::{ClientConfig, RootCertStore, ServerConfig};

/// A certificate or key that cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum TlsError {
    /// The file cannot be read as PEM.
    #[error("cannot read {}: {reason}", file.display())]
    Pem {
        /// The file.
        file: PathBuf,
        /// The cause.
        reason: String,
    },
    /// The file is PEM, but holds nothing of the kind.
    #[error("{} holds no {what}", file.display())]
    Empty {
        /// The file.
        file: PathBuf,
        /// What was expected.
        what: &'static str,
    },
    /// Certificate and key are refused.
    #[error("{} cannot be used: {source}", file.display())]
    Rejected {
        /// The file.
        file: PathBuf,
        /// The cause.
        source: rustls::Error,
    },
}

impl TlsError {
    /// The file that is wrong.
    #[must_use]
    pub fn file(&self) -> &Path {
        match self {
            TlsError::Pem { file, .. }
            | TlsError::Empty { file, .. }
            | TlsError::Rejected { file, .. } => file,
        }
    }

    /// What to do about it.
    #[must_use]
    pub fn mend(&self) -> &'static str {
        match self {
            TlsError::Pem { .. } => "name a readable file in PEM format",
            TlsError::Empty { what, .. } if what.contains("key") => {
                "name a file with a PRIVATE KEY block (PKCS#8, PKCS#1 or SEC1, not encrypted)"
            }
            TlsError::Empty { .. } => "name a file with a CERTIFICATE block",
            TlsError::Rejected { .. } => "use a certificate and the private key that belongs to it",
        }
    }
}

/// The one crypto provider.
#[must_use]
pub fn provider() -> Arc<CryptoProvider> {
    Arc::new(ring::default_provider())
}

/// A server with the certificate chain and private key in these files.
///
/// # Errors
/// A file cannot be read, holds nothing usable, or the key is another certificate's.
pub fn server_config(certificate: &Path, key: &Path) -> Result<Arc<ServerConfig>, TlsError> {
    let chain = certificates(certificate)?;
    let private = PrivateKeyDer::from_pem_file(key).map_err(|error| match error {
        pem::Error::NoItemsFound => TlsError::Empty {
            file: key.to_owned(),
            what: "private key",
        },
        error => unreadable(key, &error),
    })?;
    let rejected = |source| TlsError::Rejected {
        file: certificate.to_owned(),
        source,
    };
    let config = ServerConfig::builder_with_provider(provider())
        .with_safe_default_protocol_versions()
        .map_err(rejected)?
        .with_no_client_auth()
        .with_single_cert(chain, private)
        .map_err(rejected)?;
    Ok(Arc::new(config))
}

/// A client that trusts the authorities in this file and no other.
///
/// # Errors
/// The file cannot be read or holds no usable certificate.
pub fn client_config(ca: &Path) -> Result<Arc<ClientConfig>, TlsError> {
    let rejected = |source| TlsError::Rejected {
        file: ca.to_owned(),
        source,
    };
    let mut roots = RootCertStore::empty();
    for certificate in certificates(ca)? {
        roots.add(certificate).map_err(rejected)?;
    }
    client(roots).map_err(rejected)
}

/// A client that trusts the authorities of the operating system.
///
/// # Errors
/// There are none.
pub fn system_client_config() -> Result<Arc<ClientConfig>, TlsError> {
    let file = PathBuf::from("the operating system's certificate store");
    let mut roots = RootCertStore::empty();
    roots.add_parsable_certificates(rustls_native_certs::load_native_certs().certs);
    if roots.is_empty() {
        return Err(TlsError::Empty {
            file,
            what: "certificate",
        });
    }
    client(roots).map_err(|source| TlsError::Rejected { file, source })
}

fn client(roots: RootCertStore) -> Result<Arc<ClientConfig>, rustls::Error> {
    let config = ClientConfig::builder_with_provider(provider())
        .with_safe_default_protocol_versions()?
        .with_root_certificates(roots)
        .with_no_client_auth();
    Ok(Arc::new(config))
}

fn certificates(file: &Path) -> Result<Vec<CertificateDer<'static>>, TlsError> {
    let read = || CertificateDer::pem_file_iter(file)?.collect::<Result<Vec<_>, _>>();
    let chain = read().map_err(|error| unreadable(file, &error))?;
    if chain.is_empty() {
        return Err(TlsError::Empty {
            file: file.to_owned(),
            what: "certificate",
        });
    }
    Ok(chain)
}

fn unreadable(file: &Path, error: &pem::Error) -> TlsError {
    // Only the kind: some of the parser's messages quote the file, which may be a key.
    let reason = match error {
        pem::Error::Io(error) => error.to_string(),
        pem::Error::Base64Decode(_) => "a PEM block is not base64".to_owned(),
        pem::Error::MissingSectionEnd { .. } => "a PEM block has no end".to_owned(),
        _ => "not PEM".to_owned(),
    };
    TlsError::Pem {
        file: file.to_owned(),
        reason,
    }
}
