//! The backend connection of one session, opened and authenticated by Chaperone with its own
//! credentials.

mod authenticate;
mod binding;
mod question;

use std::{io, sync::Arc, time::Duration};

use bytes::{Bytes, BytesMut};
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::{TcpStream, UnixStream},
    time::timeout,
};
use tokio_rustls::{
    TlsConnector,
    rustls::{self, CertificateError, pki_types::ServerName},
};

use super::{
    protocol::{self, Malformed, SSL_REQUEST, backend},
    quiet::QuietSocket,
    refusal::{Refusal, sqlstate},
    report::Report,
    startup::{self, CancelKey, Parameters},
    stream::{self, Stream},
};

/// Where a backend listens and how it is reached.
#[derive(Clone)]
pub(crate) struct Endpoint {
    /// A host name or address, or the directory of a Unix socket when it starts with `/`.
    pub(crate) host: String,
    pub(crate) port: u16,
    /// TLS with certificate checks; `None` only for Unix sockets and loopback.
    pub(crate) tls: Option<Arc<tokio_rustls::rustls::ClientConfig>>,
    /// When a backend that answers no probe of TCP's is taken for gone.
    pub(crate) peer_timeout: Duration,
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

/// Why there is no backend connection. The text is for the operator: it says how to mend it and
/// holds no secret.
#[derive(Debug, thiserror::Error)]
pub(crate) enum UpstreamError {
    #[error("cannot reach {0}: {1}")]
    Connect(String, io::Error),
    #[error(
        "the backend offers no TLS and nothing was sent; give it a certificate (ssl = on), or set \
         tls.mode = \"disable\" for a local one"
    )]
    NoTls,
    #[error("{0:?} is no name that a certificate can carry")]
    ServerName(String),
    #[error(
        "the certificate of {host} is not accepted and nothing was sent: {reason}; it must be \
         valid, for that name, and by an authority in tls.ca"
    )]
    Certificate { host: String, reason: String },
    #[error("the backend asks for {0} and was given nothing; {MEND}")]
    Method(&'static str),
    #[error(
        "the backend lets {0} in without the password that is configured, as an impostor would; \
         {MEND}, or remove password_file for a local backend"
    )]
    Unasked(String),
    #[error("the backend lets {0} in over the network without a password; {MEND}")]
    Open(String),
    #[error("the backend asks for a password and the role has no password_file")]
    NoPassword,
    #[error("the backend does not prove that it knows the password (SCRAM): {0}")]
    Scram(io::Error),
    /// The backend said no, with its SQLSTATE. Its message is the operator's, not the client's.
    #[error("the backend refuses the log-in with SQLSTATE {0}")]
    Refused(String),
    /// It does not take a setting of the client's. Its words are about that and the client's.
    #[error("the backend does not take a start-up parameter of the client's")]
    Setting(Bytes),
    #[error("the backend took longer than {} s to let Chaperone in", PATIENCE.as_secs())]
    Late,
    #[error("connection to the backend: {0}")]
    Io(#[from] io::Error),
    #[error("the backend does not speak the protocol: {0}")]
    Malformed(#[from] Malformed),
}

/// What to do about a backend that authenticates in another way.
const MEND: &str = "at the backend set password_encryption = 'scram-sha-256', set the log-in's \
                    password again, and have pg_hba.conf ask for scram-sha-256";

impl UpstreamError {
    /// What the client is told: enough to tell whose fault it is, and no name of the backend's.
    pub(crate) fn refusal(&self) -> Refusal {
        let (code, message, hint) = match self {
            Self::NoTls | Self::ServerName(_) | Self::Certificate { .. } => (
                "backend-certificate",
                "the connection to the backend cannot be protected by TLS as configured",
                OPERATOR.to_owned(),
            ),
            Self::Method(_) | Self::Unasked(_) | Self::Open(_) => (
                "backend-authentication",
                "the backend does not ask for a password by SCRAM-SHA-256, and Chaperone answers \
                 nothing else",
                format!("{OPERATOR}: {MEND}"),
            ),
            Self::NoPassword | Self::Scram(_) | Self::Refused(_) | Self::Setting(_) => (
                "backend-refused",
                "the backend does not let Chaperone in",
                OPERATOR.to_owned(),
            ),
            Self::Connect(..) | Self::Late | Self::Io(_) | Self::Malformed(_) => (
                "backend-unreachable",
                "the backend is not reachable",
                OPERATOR.to_owned(),
            ),
        };
        Refusal::new(sqlstate::CONNECTION_FAILURE, code, message).hint(hint)
    }
}

const OPERATOR: &str = "tell the operator of Chaperone";

/// Longest time from the first packet to the first ReadyForQuery. Shorter than what a client has for
/// its log-in, so that it is told why.
const PATIENCE: Duration = Duration::from_secs(15);

/// Connects and logs in; the client's start-up parameters go on verbatim.
pub(crate) async fn connect(
    endpoint: &Endpoint,
    login: &Login,
    parameters: &Parameters,
) -> Result<Upstream, UpstreamError> {
    timeout(PATIENCE, log_in(endpoint, login, parameters))
        .await
        .map_err(|_| UpstreamError::Late)?
}

async fn log_in(
    endpoint: &Endpoint,
    login: &Login,
    parameters: &Parameters,
) -> Result<Upstream, UpstreamError> {
    let mut stream = dial(endpoint).await?;
    let mut out = BytesMut::new();
    startup::startup_message(&mut out, &login.user, &login.database, parameters);
    stream.write_all(&out).await?;
    stream.flush().await?;
    let mut reader = Reader {
        buffer: BytesMut::new(),
        limit: Reader::START_UP,
    };
    authenticate::authenticate(&mut stream, &mut reader, login).await?;
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
async fn dial(endpoint: &Endpoint) -> Result<Stream, UpstreamError> {
    let named =
        |error| UpstreamError::Connect(format!("{}:{}", endpoint.host, endpoint.port), error);
    if endpoint.host.starts_with('/') {
        let path = format!("{}/.s.PGSQL.{}", endpoint.host, endpoint.port);
        let socket = UnixStream::connect(path).await.map_err(named)?;
        return Ok(Stream::Unix(QuietSocket::new(socket)?));
    }
    let mut tcp = TcpStream::connect((endpoint.host.as_str(), endpoint.port))
        .await
        .map_err(named)?;
    stream::prepare(&tcp, endpoint.peer_timeout)?;
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
        .await
        .map_err(|error| handshake(endpoint, error))?;
    Ok(Stream::Tls(Box::new(tls.into())))
}

fn handshake(endpoint: &Endpoint, error: io::Error) -> UpstreamError {
    let cause = error.get_ref().and_then(|inner| inner.downcast_ref());
    match cause {
        Some(rustls::Error::InvalidCertificate(reason)) => UpstreamError::Certificate {
            host: endpoint.host.clone(),
            reason: match reason {
                CertificateError::UnknownIssuer | CertificateError::BadSignature => {
                    "it is by an authority that is not in tls.ca".to_owned()
                }
                other => other.to_string(),
            },
        },
        _ => UpstreamError::Io(error),
    }
}

fn body(message: &[u8]) -> &[u8] {
    message.get(protocol::HEADER..).unwrap_or_default()
}

fn refused(message: &[u8]) -> UpstreamError {
    match Report::read(body(message)) {
        Ok(report) if report.is_about_a_setting() => {
            UpstreamError::Setting(Bytes::copy_from_slice(message))
        }
        Ok(report) => UpstreamError::Refused(report.sqlstate),
        Err(malformed) => malformed.into(),
    }
}

/// Whole messages from a stream, outside of sessions.
struct Reader {
    buffer: BytesMut,
    /// The longest message taken.
    limit: usize,
}

impl Reader {
    /// No start-up message is longer than this.
    const START_UP: usize = 1 << 20;

    async fn next(&mut self, stream: &mut Stream) -> Result<(u8, BytesMut), UpstreamError> {
        loop {
            if let Some((kind, length)) = protocol::header(&self.buffer)? {
                if length > self.limit {
                    return Err(Malformed::Invalid("length").into());
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
