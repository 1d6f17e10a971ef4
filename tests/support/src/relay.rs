//! Somebody between Chaperone and its backend: one who listens, and one who pretends to be it.

use std::io::{self, Cursor};
use std::net::Ipv4Addr;
use std::sync::{Arc, Mutex, PoisonError};

use rustls::pki_types::pem::PemObject as _;
use rustls::pki_types::{CertificateDer, PrivateKeyDer, ServerName};
use rustls::{ClientConfig, RootCertStore, ServerConfig};
use tokio::io::{AsyncRead, AsyncReadExt as _, AsyncWrite, AsyncWriteExt as _};
use tokio::net::{TcpListener, TcpStream};
use tokio::runtime::Runtime;
use tokio_rustls::{TlsAcceptor, TlsConnector};

use crate::error::{Context as _, Error, Result};
use crate::tls::{Ca, ServerCertificate};

/// SSLRequest.
const SSL_REQUEST: [u8; 8] = [0, 0, 0, 8, 4, 210, 22, 47];

/// A relay to a server on loopback, on a port of its own. Ends when dropped; drop it outside of
/// asynchronous code.
#[derive(Debug)]
pub struct Relay {
    port: u16,
    heard: Arc<Mutex<Vec<u8>>>,
    _runtime: Runtime,
}

/// What an [`Relay::impostor`] does besides.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Meddling {
    /// Nothing.
    None,
    /// It takes the offer of channel binding out of what the server says.
    HidesBinding,
}

impl Relay {
    /// Passes everything on and keeps what the client sent.
    ///
    /// # Errors
    /// There is no free port.
    pub fn listening_in(server: u16) -> Result<Self> {
        Self::start(move |mut client, heard| async move {
            let mut server = TcpStream::connect((Ipv4Addr::LOCALHOST, server)).await?;
            let (mut from_client, mut to_client) = client.split();
            let (mut from_server, mut to_server) = server.split();
            let up = pass_on(&mut from_client, &mut to_server, &heard);
            let down = tokio::io::copy(&mut from_server, &mut to_client);
            // Either side's end is the end.
            tokio::select! {
                ended = up => ended,
                ended = down => ended.map(drop),
            }
        })
    }

    /// Ends the client's TLS with a certificate of its own and speaks TLS with the server itself,
    /// whose certificate is by `ca`.
    ///
    /// # Errors
    /// There is no free port, or the certificate cannot be used.
    pub fn impostor(
        server: u16,
        ca: &Ca,
        own: &ServerCertificate,
        meddling: Meddling,
    ) -> Result<Self> {
        let acceptor = acceptor(own)?;
        let connector = connector(ca)?;
        Self::start(move |client, _| {
            let (acceptor, connector) = (acceptor.clone(), connector.clone());
            async move { pretend(client, server, acceptor, connector, meddling).await }
        })
    }

    /// Passes the client's bytes on, and the server's messages as they come out of `alter`, of which
    /// there is one for each connection. It is given whole messages, type byte and length included, and
    /// returns whatever it likes.
    ///
    /// # Errors
    /// There is no free port.
    pub fn altering<A>(server: u16, alter: impl Fn() -> A + Send + 'static) -> Result<Self>
    where
        A: FnMut(&[u8]) -> Vec<u8> + Send + 'static,
    {
        Self::start(move |mut client, heard| {
            let mut alter = alter();
            async move {
                let mut server = TcpStream::connect((Ipv4Addr::LOCALHOST, server)).await?;
                let (mut from_client, mut to_client) = client.split();
                let (mut from_server, mut to_server) = server.split();
                let up = pass_on(&mut from_client, &mut to_server, &heard);
                let down = async {
                    loop {
                        let message = match whole_message(&mut from_server).await {
                            Err(error) if error.kind() == io::ErrorKind::UnexpectedEof => {
                                return to_client.shutdown().await;
                            }
                            other => other?,
                        };
                        to_client.write_all(&alter(&message)).await?;
                    }
                };
                // Either side's end is the end.
                tokio::select! {
                    ended = up => ended,
                    ended = down => ended,
                }
            }
        })
    }

    /// Where it listens.
    #[must_use]
    pub fn port(&self) -> u16 {
        self.port
    }

    /// What clients have sent so far.
    #[must_use]
    pub fn heard(&self) -> Vec<u8> {
        lock(&self.heard).clone()
    }

    fn start<F>(
        serve: impl Fn(TcpStream, Arc<Mutex<Vec<u8>>>) -> F + Send + 'static,
    ) -> Result<Self>
    where
        F: Future<Output = io::Result<()>> + Send + 'static,
    {
        let runtime = tokio::runtime::Builder::new_multi_thread()
            .worker_threads(1)
            .enable_all()
            .build()
            .context("start a runtime")?;
        let listener = runtime
            .block_on(TcpListener::bind((Ipv4Addr::LOCALHOST, 0)))
            .context("listen")?;
        let port = listener.local_addr().context("listen")?.port();
        let heard = Arc::new(Mutex::new(Vec::new()));
        let ears = Arc::clone(&heard);
        runtime.spawn(async move {
            while let Ok((client, _)) = listener.accept().await {
                tokio::spawn(serve(client, Arc::clone(&ears)));
            }
        });
        Ok(Self {
            port,
            heard,
            _runtime: runtime,
        })
    }
}

/// Passes bytes on to the end, and keeps them.
async fn pass_on(
    from: &mut (impl AsyncRead + Unpin),
    to: &mut (impl AsyncWrite + Unpin),
    heard: &Mutex<Vec<u8>>,
) -> io::Result<()> {
    let mut chunk = vec![0; 16 << 10];
    loop {
        let count = from.read(&mut chunk).await?;
        let part = chunk.get(..count).unwrap_or_default();
        if part.is_empty() {
            return to.shutdown().await;
        }
        lock(heard).extend_from_slice(part);
        to.write_all(part).await?;
    }
}

/// The next message of a server, type byte and length included.
async fn whole_message(server: &mut (impl AsyncRead + Unpin)) -> io::Result<Vec<u8>> {
    let mut message = vec![0; 5];
    server.read_exact(&mut message).await?;
    let length = match message.as_slice() {
        [_, a, b, c, d] => u32::from_be_bytes([*a, *b, *c, *d]),
        _ => 4,
    };
    message.resize(
        usize::try_from(length)
            .unwrap_or(4)
            .saturating_add(1)
            .max(5),
        0,
    );
    let body = message.get_mut(5..).unwrap_or_default();
    server.read_exact(body).await?;
    Ok(message)
}

async fn pretend(
    mut client: TcpStream,
    server: u16,
    acceptor: TlsAcceptor,
    connector: TlsConnector,
    meddling: Meddling,
) -> io::Result<()> {
    let mut request = [0; SSL_REQUEST.len()];
    client.read_exact(&mut request).await?;
    client.write_all(b"S").await?;
    let mut client = acceptor.accept(client).await?;

    let mut server = TcpStream::connect((Ipv4Addr::LOCALHOST, server)).await?;
    server.write_all(&SSL_REQUEST).await?;
    server.read_u8().await?;
    let name = ServerName::try_from("localhost").map_err(io::Error::other)?;
    let mut server = connector.connect(name, server).await?;

    if meddling == Meddling::HidesBinding {
        start_up(&mut client, &mut server).await?;
        hide_binding(&mut server, &mut client).await?;
    }
    tokio::io::copy_bidirectional(&mut client, &mut server)
        .await
        .map(drop)
}

/// Passes the StartupMessage on.
async fn start_up(
    client: &mut (impl AsyncRead + Unpin),
    server: &mut (impl AsyncWrite + Unpin),
) -> io::Result<()> {
    let length = client.read_u32().await?;
    let mut rest = vec![0; usize::try_from(length).unwrap_or(4).saturating_sub(4)];
    client.read_exact(&mut rest).await?;
    server.write_u32(length).await?;
    server.write_all(&rest).await?;
    server.flush().await
}

/// Offers SCRAM-SHA-256 alone, whatever the server's AuthenticationSASL does.
async fn hide_binding(
    server: &mut (impl AsyncRead + Unpin),
    client: &mut (impl AsyncWrite + Unpin),
) -> io::Result<()> {
    let mut head = [0; 5];
    server.read_exact(&mut head).await?;
    let [_, a, b, c, d] = head;
    let length = usize::try_from(u32::from_be_bytes([a, b, c, d])).unwrap_or(4);
    let mut offer = vec![0; length.saturating_sub(4)];
    server.read_exact(&mut offer).await?;
    let plain = b"SCRAM-SHA-256\0\0";
    client.write_all(b"R").await?;
    client
        .write_u32(u32::try_from(8 + plain.len()).unwrap_or(0))
        .await?;
    client.write_u32(10).await?;
    client.write_all(plain).await?;
    client.flush().await
}

fn acceptor(own: &ServerCertificate) -> Result<TlsAcceptor> {
    let chain = CertificateDer::pem_reader_iter(Cursor::new(&own.certificate))
        .collect::<std::result::Result<Vec<_>, _>>()
        .map_err(|error| wrong(&error))?;
    let key = PrivateKeyDer::from_pem_slice(own.key.as_bytes()).map_err(|error| wrong(&error))?;
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let config = ServerConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()
        .and_then(|builder| builder.with_no_client_auth().with_single_cert(chain, key))
        .map_err(|error| wrong(&error))?;
    Ok(TlsAcceptor::from(Arc::new(config)))
}

fn connector(ca: &Ca) -> Result<TlsConnector> {
    let mut roots = RootCertStore::empty();
    let pem = ca.pem();
    let certificate = CertificateDer::from_pem_slice(pem.as_bytes()).map_err(|e| wrong(&e))?;
    roots.add(certificate).map_err(|error| wrong(&error))?;
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let config = ClientConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()
        .map_err(|error| wrong(&error))?
        .with_root_certificates(roots)
        .with_no_client_auth();
    Ok(TlsConnector::from(Arc::new(config)))
}

fn wrong(error: &dyn std::fmt::Display) -> Error {
    Error::Certificate(error.to_string())
}

fn lock(heard: &Mutex<Vec<u8>>) -> std::sync::MutexGuard<'_, Vec<u8>> {
    heard.lock().unwrap_or_else(PoisonError::into_inner)
}
