//! The backend connection of one session, opened and authenticated by Chaperone with its own
//! credentials.

use std::{io, sync::Arc};

use bytes::BytesMut;
use postgres_protocol::authentication::{
    md5_hash,
    sasl::{ChannelBinding, SCRAM_SHA_256, SCRAM_SHA_256_PLUS, ScramSha256},
};
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::{TcpStream, UnixStream},
};
use tokio_rustls::{TlsConnector, rustls::pki_types::ServerName};

use super::{
    protocol::{self, Fields, Malformed, SSL_REQUEST, backend, frontend},
    report::Report,
    startup::{self, CancelKey, Parameters},
    stream::Stream,
};

/// Where a backend listens and how it is reached.
#[derive(Clone)]
pub(crate) struct Endpoint {
    /// A host name or address, or the directory of a Unix socket when it starts with `/`.
    pub(crate) host: String,
    pub(crate) port: u16,
    /// TLS with certificate checks; `None` only for Unix sockets and loopback.
    pub(crate) tls: Option<Arc<tokio_rustls::rustls::ClientConfig>>,
}

/// As whom Chaperone logs in.
#[derive(Clone)]
pub(crate) struct Login {
    pub(crate) user: String,
    pub(crate) password: Option<String>,
    pub(crate) database: String,
}

/// A backend connection that is ready for its first query.
pub(crate) struct Upstream {
    pub(crate) stream: Stream,
    /// What the backend's cancel requests name.
    pub(crate) key: CancelKey,
    /// ParameterStatus and NoticeResponse messages, as the backend sent them.
    pub(crate) greeting: BytesMut,
    /// Bytes that were read behind the ReadyForQuery.
    pub(crate) rest: BytesMut,
}

/// Why there is no backend connection.
#[derive(Debug, thiserror::Error)]
pub(crate) enum UpstreamError {
    #[error("cannot reach {0}: {1}")]
    Connect(String, io::Error),
    #[error(
        "the backend refuses TLS; give it a certificate or set mode = \"disable\" for a local one"
    )]
    NoTls,
    #[error("{0:?} is no name that a certificate can carry")]
    ServerName(String),
    #[error("the backend asks for {0}, which Chaperone does not speak")]
    Mechanism(&'static str),
    #[error("the backend asks for a password and the role has no password_file")]
    NoPassword,
    #[error("SCRAM: {0}")]
    Scram(io::Error),
    /// The backend said no, with its SQLSTATE. Its message is the operator's, not the client's.
    #[error("the backend refuses the log-in with SQLSTATE {0}")]
    Refused(String),
    #[error("connection to the backend: {0}")]
    Io(#[from] io::Error),
    #[error("the backend does not speak the protocol: {0}")]
    Malformed(#[from] Malformed),
}

/// Connects and logs in; the client's start-up parameters go on verbatim.
pub(crate) async fn connect(
    endpoint: &Endpoint,
    login: &Login,
    parameters: &Parameters,
) -> Result<Upstream, UpstreamError> {
    let mut stream = dial(endpoint).await?;
    let mut out = BytesMut::new();
    startup::startup_message(&mut out, &login.user, &login.database, parameters);
    stream.write_all(&out).await?;
    stream.flush().await?;
    let mut reader = Reader::default();
    authenticate(&mut stream, &mut reader, login).await?;
    let mut greeting = BytesMut::new();
    let mut key = None;
    loop {
        let (kind, message) = reader.next(&mut stream).await?;
        match kind {
            backend::PARAMETER_STATUS | backend::NOTICE_RESPONSE => greeting.unsplit(message),
            backend::BACKEND_KEY_DATA => key = Some(startup::backend_key(body(&message))?),
            backend::READY_FOR_QUERY => break,
            backend::NEGOTIATE_PROTOCOL_VERSION => {}
            backend::ERROR_RESPONSE => return Err(refused(&message)),
            other => return Err(Malformed::UnknownType(other).into()),
        }
    }
    Ok(Upstream {
        stream,
        key: key.ok_or(Malformed::Truncated("start-up"))?,
        greeting,
        rest: reader.buffer,
    })
}

/// Asks the backend to cancel what `key` runs. Returns once the backend has closed the connection,
/// which it does after it has sent the signal.
pub(crate) async fn cancel(endpoint: &Endpoint, key: &CancelKey) -> Result<(), UpstreamError> {
    let mut stream = dial(endpoint).await?;
    stream.write_all(&startup::cancel_request(key)).await?;
    stream.flush().await?;
    let mut nothing = [0u8; 1];
    let _ = stream.read(&mut nothing).await;
    Ok(())
}

/// Connects, with TLS where it is configured; nothing is said yet.
pub(crate) async fn dial(endpoint: &Endpoint) -> Result<Stream, UpstreamError> {
    let named =
        |error| UpstreamError::Connect(format!("{}:{}", endpoint.host, endpoint.port), error);
    if endpoint.host.starts_with('/') {
        let path = format!("{}/.s.PGSQL.{}", endpoint.host, endpoint.port);
        return Ok(Stream::Unix(
            UnixStream::connect(path).await.map_err(named)?,
        ));
    }
    let mut tcp = TcpStream::connect((endpoint.host.as_str(), endpoint.port))
        .await
        .map_err(named)?;
    tcp.set_nodelay(true)?;
    let Some(config) = &endpoint.tls else {
        return Ok(Stream::Tcp(tcp));
    };
    let name = ServerName::try_from(endpoint.host.clone())
        .map_err(|_| UpstreamError::ServerName(endpoint.host.clone()))?;
    tcp.write_u32(8).await?;
    tcp.write_u32(SSL_REQUEST).await?;
    if tcp.read_u8().await? != b'S' {
        return Err(UpstreamError::NoTls);
    }
    let tls = TlsConnector::from(Arc::clone(config))
        .connect(name, tcp)
        .await?;
    Ok(Stream::Tls(Box::new(tls.into())))
}

async fn authenticate(
    stream: &mut Stream,
    reader: &mut Reader,
    login: &Login,
) -> Result<(), UpstreamError> {
    let password = || login.password.as_deref().ok_or(UpstreamError::NoPassword);
    loop {
        let (kind, message) = reader.next(stream).await?;
        match kind {
            backend::AUTHENTICATION => {}
            backend::ERROR_RESPONSE => return Err(refused(&message)),
            backend::NEGOTIATE_PROTOCOL_VERSION | backend::NOTICE_RESPONSE => continue,
            other => return Err(Malformed::UnknownType(other).into()),
        }
        let mut fields = Fields::new("Authentication", body(&message));
        match fields.u32()? {
            0 => return Ok(()),
            3 => {
                // A clear password is only given where nobody listens in.
                if !stream.is_tls() && !matches!(stream, Stream::Unix(_)) {
                    return Err(UpstreamError::Mechanism(
                        "a clear-text password without TLS",
                    ));
                }
                send_password(stream, password()?.as_bytes()).await?;
            }
            5 => {
                let salt = fields.u32()?.to_be_bytes();
                let hash = md5_hash(login.user.as_bytes(), password()?.as_bytes(), salt);
                send_password(stream, hash.as_bytes()).await?;
            }
            10 => scram(stream, reader, fields, password()?).await?,
            2 => return Err(UpstreamError::Mechanism("Kerberos")),
            7..=9 => return Err(UpstreamError::Mechanism("GSSAPI or SSPI")),
            _ => return Err(UpstreamError::Mechanism("an unknown method")),
        }
    }
}

/// SCRAM-SHA-256 (RFC 5802, RFC 7677), bound to the TLS channel where there is one (RFC 5929,
/// tls-server-end-point) and the backend offers it.
async fn scram(
    stream: &mut Stream,
    reader: &mut Reader,
    mut offered: Fields<'_>,
    password: &str,
) -> Result<(), UpstreamError> {
    let (mut plain, mut plus) = (false, false);
    loop {
        match offered.cstr()? {
            b"" => break,
            name if name == SCRAM_SHA_256.as_bytes() => plain = true,
            name if name == SCRAM_SHA_256_PLUS.as_bytes() => plus = true,
            _ => {}
        }
    }
    let bound = stream.peer_certificate().and_then(end_point_digest);
    let (mechanism, binding) = match (plus, plain, bound) {
        (true, _, Some(digest)) => (
            SCRAM_SHA_256_PLUS,
            ChannelBinding::tls_server_end_point(digest),
        ),
        // "y" (could bind, server offers none) only where we could.
        (false, true, Some(_)) => (SCRAM_SHA_256, ChannelBinding::unrequested()),
        (_, true, _) => (SCRAM_SHA_256, ChannelBinding::unsupported()),
        _ => return Err(UpstreamError::Mechanism("no SCRAM mechanism that is known")),
    };
    let mut scram = ScramSha256::new(password.as_bytes(), binding);
    let mut out = BytesMut::new();
    protocol::message(&mut out, frontend::PASSWORD, |out| {
        protocol::cstr(out, mechanism.as_bytes());
        let first = scram.message();
        out.extend_from_slice(&u32::try_from(first.len()).unwrap_or(u32::MAX).to_be_bytes());
        out.extend_from_slice(first);
    });
    stream.write_all(&out).await?;
    stream.flush().await?;
    let server_first = sasl_step(stream, reader, 11).await?;
    scram
        .update(body_after_code(&server_first))
        .map_err(UpstreamError::Scram)?;
    let mut out = BytesMut::new();
    protocol::message(&mut out, frontend::PASSWORD, |out| {
        out.extend_from_slice(scram.message());
    });
    stream.write_all(&out).await?;
    stream.flush().await?;
    let server_final = sasl_step(stream, reader, 12).await?;
    scram
        .finish(body_after_code(&server_final))
        .map_err(UpstreamError::Scram)
}

/// The hash of the server's certificate that RFC 5929 section 4.1 asks for: SHA-256 for
/// certificates signed with MD5, SHA-1 or SHA-256, else the signature's own hash. Certificates
/// signed with anything but SHA-256 are left unbound rather than bound wrongly.
fn end_point_digest(certificate: &[u8]) -> Option<Vec<u8>> {
    /// DER of the object identifiers sha256WithRSAEncryption and ecdsa-with-SHA256.
    const SHA256_SIGNATURES: [&[u8]; 2] = [
        &[
            0x06, 0x09, 0x2a, 0x86, 0x48, 0x86, 0xf7, 0x0d, 0x01, 0x01, 0x0b,
        ],
        &[0x06, 0x08, 0x2a, 0x86, 0x48, 0xce, 0x3d, 0x04, 0x03, 0x02],
    ];
    // The signature algorithm stands in the outer sequence, within the last bytes before the
    // signature itself; it is the same as the one inside the signed part.
    SHA256_SIGNATURES
        .iter()
        .any(|oid| certificate.windows(oid.len()).any(|window| window == *oid))
        .then(|| {
            ring::digest::digest(&ring::digest::SHA256, certificate)
                .as_ref()
                .to_vec()
        })
}

async fn sasl_step(
    stream: &mut Stream,
    reader: &mut Reader,
    wanted: u32,
) -> Result<BytesMut, UpstreamError> {
    let (kind, message) = reader.next(stream).await?;
    match kind {
        backend::ERROR_RESPONSE => Err(refused(&message)),
        backend::AUTHENTICATION => {
            let code = Fields::new("Authentication", body(&message)).u32()?;
            if code == wanted {
                Ok(message)
            } else {
                Err(Malformed::Invalid("Authentication").into())
            }
        }
        other => Err(Malformed::UnknownType(other).into()),
    }
}

async fn send_password(stream: &mut Stream, password: &[u8]) -> Result<(), UpstreamError> {
    let mut out = BytesMut::new();
    protocol::message(&mut out, frontend::PASSWORD, |out| {
        protocol::cstr(out, password);
    });
    stream.write_all(&out).await?;
    Ok(stream.flush().await?)
}

fn body(message: &[u8]) -> &[u8] {
    message.get(protocol::HEADER..).unwrap_or_default()
}

fn body_after_code(message: &[u8]) -> &[u8] {
    message.get(protocol::HEADER + 4..).unwrap_or_default()
}

fn refused(message: &[u8]) -> UpstreamError {
    match Report::read(body(message)) {
        Ok(report) => UpstreamError::Refused(report.sqlstate),
        Err(malformed) => malformed.into(),
    }
}

/// Whole messages from a stream, for the start-up only.
#[derive(Default)]
struct Reader {
    buffer: BytesMut,
}

impl Reader {
    /// No start-up message is longer than this.
    const LIMIT: usize = 1 << 20;

    async fn next(&mut self, stream: &mut Stream) -> Result<(u8, BytesMut), UpstreamError> {
        loop {
            if let Some((kind, length)) = protocol::header(&self.buffer)? {
                if length > Self::LIMIT {
                    return Err(Malformed::Invalid("start-up").into());
                }
                if self.buffer.len() >= length {
                    return Ok((kind, self.buffer.split_to(length)));
                }
            }
            if stream.read_buf(&mut self.buffer).await? == 0 {
                return Err(io::Error::from(io::ErrorKind::UnexpectedEof).into());
            }
        }
    }
}
