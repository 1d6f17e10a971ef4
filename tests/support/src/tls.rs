//! A certificate authority for one test.

use std::fs;
use std::io::Write as _;
use std::os::unix::fs::OpenOptionsExt as _;
use std::path::Path;

use rcgen::{
    BasicConstraints, CertificateParams, CertifiedIssuer, DnType, IsCa, KeyPair, KeyUsagePurpose,
};

use crate::error::{Context as _, Error, Result};

/// A certificate authority whose key lives in memory only.
#[derive(Debug)]
pub struct Ca {
    issuer: CertifiedIssuer<'static, KeyPair>,
}

/// A server's certificate and key, PEM.
#[derive(Clone, Debug)]
pub struct ServerCertificate {
    /// The certificate.
    pub certificate: String,
    /// Its private key, PKCS#8.
    pub key: String,
}

impl Ca {
    /// A new authority.
    ///
    /// # Errors
    /// The key or certificate cannot be made.
    pub fn new() -> Result<Self> {
        let mut params = CertificateParams::new(Vec::new()).map_err(certificate)?;
        params.is_ca = IsCa::Ca(BasicConstraints::Constrained(0));
        params.key_usages = vec![KeyUsagePurpose::KeyCertSign, KeyUsagePurpose::CrlSign];
        params
            .distinguished_name
            .push(DnType::CommonName, "Chaperone test authority");
        let key = KeyPair::generate().map_err(certificate)?;
        let issuer = CertifiedIssuer::self_signed(params, key).map_err(certificate)?;
        Ok(Ca { issuer })
    }

    /// The authority's certificate, PEM.
    #[must_use]
    pub fn pem(&self) -> String {
        self.issuer.pem()
    }

    /// A certificate for `names` (host names or IP addresses).
    ///
    /// # Errors
    /// A name that fits no certificate.
    pub fn issue(&self, names: &[&str]) -> Result<ServerCertificate> {
        self.sign(server(names)?)
    }

    /// One whose time is over.
    ///
    /// # Errors
    /// As [`Ca::issue`].
    pub fn issue_expired(&self, names: &[&str]) -> Result<ServerCertificate> {
        let mut params = server(names)?;
        params.not_before = rcgen::date_time_ymd(2001, 1, 1);
        params.not_after = rcgen::date_time_ymd(2002, 1, 1);
        self.sign(params)
    }

    fn sign(&self, params: CertificateParams) -> Result<ServerCertificate> {
        let key = KeyPair::generate().map_err(certificate)?;
        let signed = params.signed_by(&key, &self.issuer).map_err(certificate)?;
        Ok(ServerCertificate {
            certificate: signed.pem(),
            key: key.serialize_pem(),
        })
    }

    /// A certificate for `localhost` and the loopback addresses.
    ///
    /// # Errors
    /// As [`Ca::issue`].
    pub fn issue_loopback(&self) -> Result<ServerCertificate> {
        self.issue(&["localhost", "127.0.0.1", "::1"])
    }
}

impl ServerCertificate {
    /// Writes `NAME.crt` and `NAME.key` (mode 0600) into `folder`.
    ///
    /// # Errors
    /// The files cannot be written.
    pub fn write(&self, folder: &Path, name: &str) -> Result<()> {
        let path = folder.join(format!("{name}.crt"));
        fs::write(&path, &self.certificate).context(format!("write {}", path.display()))?;
        write_private(&folder.join(format!("{name}.key")), &self.key)
    }
}

fn server(names: &[&str]) -> Result<CertificateParams> {
    let names: Vec<String> = names.iter().map(|&name| name.to_owned()).collect();
    let common = names.first().cloned().unwrap_or_default();
    let mut params = CertificateParams::new(names).map_err(certificate)?;
    params.distinguished_name.push(DnType::CommonName, common);
    Ok(params)
}

/// Writes a file that only its owner may read.
///
/// # Errors
/// The file cannot be written.
pub fn write_private(path: &Path, contents: &str) -> Result<()> {
    let what = || format!("write {}", path.display());
    let mut file = fs::File::options()
        .create(true)
        .write(true)
        .truncate(true)
        .mode(0o600)
        .open(path)
        .context(what())?;
    file.write_all(contents.as_bytes()).context(what())
}

fn certificate(error: rcgen::Error) -> Error {
    Error::Certificate(error.to_string())
}
