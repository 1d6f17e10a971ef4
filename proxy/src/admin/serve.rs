//! The listener, with TLS or without.

use std::{io, net::SocketAddr, sync::Arc, time::Duration};

use axum::serve::{Listener, ListenerExt as _};
use tokio::{
    net::{TcpListener, TcpStream},
    sync::{mpsc, watch},
    time::timeout,
};
use tokio_rustls::{TlsAcceptor, server::TlsStream};

use super::{Admin, api};

/// Longest handshake.
const HANDSHAKE: Duration = Duration::from_secs(5);
/// Handshakes and accepted connections that wait at once.
const WAITING: usize = 64;

/// Why the API cannot listen.
#[derive(Debug, thiserror::Error)]
pub enum ServeError {
    /// The address cannot be taken.
    #[error("[admin].address {address}: {error}; choose a free address of this machine")]
    Bind {
        /// What was configured.
        address: SocketAddr,
        /// Why not.
        error: io::Error,
    },
    /// Tokens would travel in clear.
    #[error(
        "[admin].address {0} is not a loopback address: add [admin.tls] or listen on 127.0.0.1"
    )]
    NeedsTls(SocketAddr),
}

/// The listening API. Dropping it ends it.
#[derive(Debug)]
pub struct Server {
    address: SocketAddr,
    stop: watch::Sender<bool>,
    task: tokio::task::JoinHandle<()>,
}

impl Server {
    /// Listens, and serves in a task of its own.
    pub async fn start(
        address: SocketAddr,
        tls: Option<Arc<rustls::ServerConfig>>,
        admin: Admin,
    ) -> Result<Self, ServeError> {
        if tls.is_none() && !address.ip().is_loopback() {
            return Err(ServeError::NeedsTls(address));
        }
        let bind = |error| ServeError::Bind { address, error };
        let listener = TcpListener::bind(address).await.map_err(bind)?;
        let address = listener.local_addr().map_err(bind)?;
        let (stop, mut stopped) = watch::channel(false);
        let stopping = async move {
            let _ = stopped.wait_for(|stop| *stop).await;
        };
        let router = api::router(admin);
        let task = tokio::spawn(async move {
            let served = match tls {
                Some(config) => {
                    let listener = Tls::new(listener, address, TlsAcceptor::from(config));
                    axum::serve(listener, router)
                        .with_graceful_shutdown(stopping)
                        .await
                }
                None => {
                    let listener = listener.tap_io(|stream| {
                        let _ = stream.set_nodelay(true);
                    });
                    axum::serve(listener, router)
                        .with_graceful_shutdown(stopping)
                        .await
                }
            };
            if let Err(error) = served {
                tracing::error!(%error, "the admin API ended");
            }
        });
        Ok(Self {
            address,
            stop,
            task,
        })
    }

    /// Where it listens.
    #[must_use]
    pub fn address(&self) -> SocketAddr {
        self.address
    }

    /// Lets running requests end, for at most five seconds.
    pub async fn stop(mut self) {
        self.stop.send_replace(true);
        let _ = timeout(Duration::from_secs(5), &mut self.task).await;
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        self.task.abort();
    }
}

/// Handshakes in tasks of their own, so that a silent client holds up nobody.
struct Tls {
    address: SocketAddr,
    ready: mpsc::Receiver<(TlsStream<TcpStream>, SocketAddr)>,
    task: tokio::task::JoinHandle<()>,
}

impl Tls {
    fn new(mut listener: TcpListener, address: SocketAddr, acceptor: TlsAcceptor) -> Self {
        let (done, ready) = mpsc::channel(WAITING);
        let permits = Arc::new(tokio::sync::Semaphore::new(WAITING));
        let task = tokio::spawn(async move {
            loop {
                let Ok(permit) = Arc::clone(&permits).acquire_owned().await else {
                    return;
                };
                // Retries by itself.
                let (stream, peer) = Listener::accept(&mut listener).await;
                let (acceptor, done) = (acceptor.clone(), done.clone());
                tokio::spawn(async move {
                    let _permit = permit;
                    if let Ok(Ok(stream)) = timeout(HANDSHAKE, acceptor.accept(stream)).await {
                        let _ = done.send((stream, peer)).await;
                    }
                });
            }
        });
        Self {
            address,
            ready,
            task,
        }
    }
}

impl Drop for Tls {
    fn drop(&mut self) {
        self.task.abort();
    }
}

impl Listener for Tls {
    type Io = TlsStream<TcpStream>;
    type Addr = SocketAddr;

    async fn accept(&mut self) -> (Self::Io, Self::Addr) {
        match self.ready.recv().await {
            Some(accepted) => accepted,
            None => std::future::pending().await,
        }
    }

    fn local_addr(&self) -> io::Result<SocketAddr> {
        Ok(self.address)
    }
}
