//! tokio-postgres over TLS: bind parameters, pipelines, cancel requests and notices, which psql
//! does not offer.

use std::future::Future;
use std::io;
use std::pin::Pin;
use std::sync::{Arc, Mutex, PoisonError};
use std::task::{Context as TaskContext, Poll};

use rustls::pki_types::pem::PemObject as _;
use rustls::pki_types::{CertificateDer, ServerName};
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio_postgres::tls::{ChannelBinding, MakeTlsConnect, TlsConnect, TlsStream};
use tokio_postgres::{AsyncMessage, Client, Config, Socket};

/// An open session. Dropping the client ends it.
#[derive(Debug)]
pub struct Session {
    /// The client; statements go through it.
    pub client: Client,
    /// Notices and the message with which the connection ended, as received so far.
    pub messages: Arc<Mutex<Vec<String>>>,
    /// The task that drives the connection.
    pub connection: tokio::task::JoinHandle<()>,
}

/// Opens a session with `config`, whose `sslmode` should be `require`.
///
/// # Errors
/// The login is refused, or the server cannot be reached.
pub async fn connect(config: &Config, tls: Tls) -> Result<Session, tokio_postgres::Error> {
    let (client, mut connection) = config.connect(tls).await?;
    let messages = Arc::new(Mutex::new(Vec::new()));
    let heard = Arc::clone(&messages);
    let connection = tokio::spawn(async move {
        loop {
            let message = std::future::poll_fn(|task| connection.poll_message(task)).await;
            let (text, ended) = match message {
                Some(Ok(AsyncMessage::Notice(notice))) => (format!("{notice:?}"), false),
                Some(Ok(_)) => continue,
                // A connection that has failed fails again whenever it is asked.
                Some(Err(error)) => (format!("{error:?}"), true),
                None => return,
            };
            let mut heard = heard.lock().unwrap_or_else(PoisonError::into_inner);
            heard.push(text);
            if ended {
                return;
            }
        }
    });
    Ok(Session {
        client,
        messages,
        connection,
    })
}

/// TLS with one trusted authority.
#[derive(Clone)]
pub struct Tls(tokio_rustls::TlsConnector);

impl std::fmt::Debug for Tls {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Tls").finish_non_exhaustive()
    }
}

impl Tls {
    /// Trusts the authority in `pem` and nothing else.
    ///
    /// # Errors
    /// The text holds no certificate.
    pub fn trusting(pem: &str) -> io::Result<Self> {
        let wrong = |error: &dyn std::fmt::Display| io::Error::other(error.to_string());
        let mut roots = rustls::RootCertStore::empty();
        let ca = CertificateDer::from_pem_slice(pem.as_bytes()).map_err(|e| wrong(&e))?;
        roots.add(ca).map_err(|e| wrong(&e))?;
        let provider = Arc::new(rustls::crypto::ring::default_provider());
        let config = rustls::ClientConfig::builder_with_provider(provider)
            .with_safe_default_protocol_versions()
            .map_err(|e| wrong(&e))?
            .with_root_certificates(roots)
            .with_no_client_auth();
        Ok(Tls(tokio_rustls::TlsConnector::from(Arc::new(config))))
    }
}

impl MakeTlsConnect<Socket> for Tls {
    type Stream = Stream;
    type TlsConnect = Handshake;
    type Error = io::Error;

    fn make_tls_connect(&mut self, host: &str) -> io::Result<Handshake> {
        let name = ServerName::try_from(host.to_owned()).map_err(io::Error::other)?;
        Ok(Handshake(self.0.clone(), name))
    }
}

/// What [`Tls`] makes for one connection.
pub struct Handshake(tokio_rustls::TlsConnector, ServerName<'static>);

impl TlsConnect<Socket> for Handshake {
    type Stream = Stream;
    type Error = io::Error;
    type Future = Pin<Box<dyn Future<Output = io::Result<Stream>> + Send>>;

    fn connect(self, socket: Socket) -> Self::Future {
        Box::pin(async move { Ok(Stream(self.0.connect(self.1, socket).await?)) })
    }
}

/// The encrypted stream.
pub struct Stream(tokio_rustls::client::TlsStream<Socket>);

impl TlsStream for Stream {
    fn channel_binding(&self) -> ChannelBinding {
        ChannelBinding::none()
    }
}

impl AsyncRead for Stream {
    fn poll_read(
        mut self: Pin<&mut Self>,
        task: &mut TaskContext<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        Pin::new(&mut self.0).poll_read(task, buffer)
    }
}

impl AsyncWrite for Stream {
    fn poll_write(
        mut self: Pin<&mut Self>,
        task: &mut TaskContext<'_>,
        bytes: &[u8],
    ) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.0).poll_write(task, bytes)
    }

    fn poll_flush(mut self: Pin<&mut Self>, task: &mut TaskContext<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.0).poll_flush(task)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, task: &mut TaskContext<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.0).poll_shutdown(task)
    }
}
