//! The listener, with TLS or without.
//!
//! Whoever can reach it can open connections, so each has little time for each step, and a new
//! caller is let in whatever the others do.

use std::{io, net::SocketAddr, sync::Arc, time::Duration};

use axum::Router;
use hyper::{server::conn::http1, service::Service as _, service::service_fn};
use hyper_util::{
    rt::{TokioIo, TokioTimer},
    service::TowerToHyperService,
};
use tokio::{
    io::{AsyncRead, AsyncWrite},
    net::{TcpListener, TcpStream},
    sync::watch,
    task::JoinSet,
    time::{sleep, timeout},
};
use tokio_rustls::TlsAcceptor;

use super::{
    Admin, api,
    seats::{Seat, Seats},
};

/// Longest handshake.
const HANDSHAKE: Duration = Duration::from_secs(5);
/// Longest wait for the head of a request, the first one and each later one.
const HEAD: Duration = Duration::from_secs(5);
/// Largest head, in bytes; it holds a token.
const HEAD_BYTES: usize = 128 << 10;
/// Most connections at once.
const CONNECTIONS: usize = 256;
/// Pause after the system gave no connection, for want of descriptors mostly.
const PAUSE: Duration = Duration::from_millis(100);

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
        let (stop, stopped) = watch::channel(false);
        let callers = Callers {
            tls: tls.map(TlsAcceptor::from),
            router: api::router(admin),
            stopped,
        };
        let task = tokio::spawn(callers.accept(listener));
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

/// Everything that a connection needs.
#[derive(Clone)]
struct Callers {
    tls: Option<TlsAcceptor>,
    router: Router,
    stopped: watch::Receiver<bool>,
}

impl Callers {
    /// Takes connections until it is told to stop, and waits for the last of them.
    async fn accept(mut self, listener: TcpListener) {
        let seats = Seats::new(CONNECTIONS);
        let mut open = JoinSet::new();
        loop {
            tokio::select! {
                () = told(&mut self.stopped) => break,
                Some(_) = open.join_next() => {}
                accepted = listener.accept() => match accepted {
                    Ok((tcp, peer)) => {
                        if let Some(seat) = seats.take(peer.ip()) {
                            open.spawn(self.clone().serve(tcp, Arc::new(seat)));
                        }
                    }
                    Err(error) => {
                        tracing::warn!(%error, "the admin API took no connection");
                        sleep(PAUSE).await;
                    }
                },
            }
        }
        drop(listener);
        while open.join_next().await.is_some() {}
    }

    async fn serve(self, tcp: TcpStream, seat: Arc<Seat>) {
        let _ = tcp.set_nodelay(true);
        tokio::select! {
            () = seat.wanted() => {}
            () = self.talk(tcp, &seat) => {}
        }
    }

    async fn talk(mut self, tcp: TcpStream, seat: &Arc<Seat>) {
        let Some(acceptor) = self.tls.clone() else {
            return self.answer(tcp, seat).await;
        };
        let shaken = tokio::select! {
            shaken = timeout(HANDSHAKE, acceptor.accept(tcp)) => shaken,
            () = told(&mut self.stopped) => return,
        };
        if let Ok(Ok(stream)) = shaken {
            self.answer(stream, seat).await;
        }
    }

    async fn answer(
        mut self,
        stream: impl AsyncRead + AsyncWrite + Unpin + Send + 'static,
        seat: &Arc<Seat>,
    ) {
        let routes = TowerToHyperService::new(self.router);
        let service = service_fn(|request| {
            let busy = seat.busy();
            let answer = routes.call(request);
            async move {
                let _busy = busy;
                answer.await
            }
        });
        let connection = http1::Builder::new()
            .timer(TokioTimer::new())
            .header_read_timeout(HEAD)
            .max_buf_size(HEAD_BYTES)
            .serve_connection(TokioIo::new(stream), service);
        tokio::pin!(connection);
        // What goes wrong on a connection is the caller's to notice.
        tokio::select! {
            _ = connection.as_mut() => {}
            () = told(&mut self.stopped) => {
                connection.as_mut().graceful_shutdown();
                let _ = connection.await;
            }
        }
    }
}

async fn told(stopped: &mut watch::Receiver<bool>) {
    let _ = stopped.wait_for(|stop| *stop).await;
}
