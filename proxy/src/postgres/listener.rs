//! Accepts connections until the process drains.

use std::{io, net::SocketAddr, num::NonZeroUsize, sync::Arc, time::Duration};

use tokio::{
    net::{TcpListener, TcpStream},
    sync::{Semaphore, watch},
    task::JoinSet,
};
use tokio_rustls::TlsAcceptor;

use super::{
    connection::{self, Admit, Front},
    shared::{Backend, Shared, TargetOptions},
    workers::Workers,
};

/// The data path's listening socket.
pub struct Listener {
    socket: TcpListener,
    workers: Workers,
    front: Arc<Front>,
}

impl Listener {
    /// Binds the address. Nothing is served before [`Self::serve`].
    pub async fn bind(
        address: SocketAddr,
        shared: Arc<Shared>,
        admit: Arc<dyn Admit>,
        tls: Option<Arc<tokio_rustls::rustls::ServerConfig>>,
        plaintext: bool,
        workers: Option<NonZeroUsize>,
        targets: Vec<TargetOptions>,
    ) -> io::Result<Self> {
        let socket = TcpListener::bind(address).await?;
        let peer_timeout = shared.rules.peer_timeout;
        let audit = shared.audit.clone();
        let workers = Workers::start(workers, move || audit.settle())?;
        let front = Front {
            shared,
            admit,
            tls: tls.map(TlsAcceptor::from),
            plaintext,
            backends: targets
                .into_iter()
                .map(|t| Arc::new(Backend::new(t, peer_timeout)))
                .collect(),
            login_timeout: Duration::from_secs(30),
        };
        Ok(Self {
            socket,
            workers,
            front: Arc::new(front),
        })
    }

    /// Where it listens.
    pub fn address(&self) -> io::Result<SocketAddr> {
        self.socket.local_addr()
    }

    /// Serves until `drain` turns true, then waits for the sessions to end, at most `patience`.
    pub async fn serve(self, mut drain: watch::Receiver<bool>, patience: Duration) {
        /// More connections than this wait in the kernel's queue.
        const CONNECTIONS: usize = 10_000;
        let places = Arc::new(Semaphore::new(CONNECTIONS));
        let mut sessions = JoinSet::new();
        loop {
            tokio::select! {
                accepted = self.socket.accept() => match accepted {
                    Ok((tcp, peer)) => {
                        let front = Arc::clone(&self.front);
                        let Ok(place) = Arc::clone(&places).acquire_owned().await else { break };
                        let Some(seat) = self.workers.seat() else { break };
                        let worker = seat.handle.clone();
                        sessions.spawn_on(async move {
                            // Its readiness is told to the runtime that it is used on.
                            match tcp.into_std().and_then(TcpStream::from_std) {
                                Ok(tcp) => connection::serve(front, tcp, peer).await,
                                Err(error) => tracing::warn!(%error, "a connection was lost"),
                            }
                            drop((seat, place));
                        }, &worker);
                    }
                    Err(error) => {
                        // Out of descriptors, mostly: sessions that end give some back.
                        tracing::warn!(%error, "a connection was not accepted");
                        tokio::time::sleep(Duration::from_millis(50)).await;
                    }
                },
                Some(ended) = sessions.join_next(), if !sessions.is_empty() => {
                    if let Err(error) = ended
                        && error.is_panic()
                    {
                        tracing::error!("a session's task failed; its connection is closed");
                    }
                }
                _ = drain.wait_for(|drain| *drain) => break,
            }
        }
        drop(self.socket);
        let all = async { while sessions.join_next().await.is_some() {} };
        if tokio::time::timeout(patience, all).await.is_err() {
            tracing::warn!("sessions that did not end in time are cut off");
        }
    }
}
