//! A byte stream to a client or a backend, whatever it runs over.

use std::{
    io,
    pin::Pin,
    task::{Context, Poll},
    time::Duration,
};

use socket2::{SockRef, TcpKeepalive};
use tokio::{
    io::{AsyncRead, AsyncWrite, ReadBuf},
    net::TcpStream,
};
use tokio_rustls::TlsStream;

use super::quiet::QuietSocket;

/// How often a peer that says nothing is asked whether it is there, before it is taken for gone.
const PROBES: u32 = 3;

/// Sets up a connection: small messages go at once, and a peer that is gone without a word (no power,
/// no network) is noticed after `peer_timeout`: half of it in silence, half of it asking.
///
/// What it has sent and nobody has acknowledged is the kernel's to give up: `TCP_USER_TIMEOUT` would
/// also end a peer that is there and does not read for a while.
pub(crate) fn prepare(tcp: &TcpStream, peer_timeout: Duration) -> io::Result<()> {
    tcp.set_nodelay(true)?;
    let silence = peer_timeout / 2;
    let probes = TcpKeepalive::new()
        .with_time(silence)
        .with_interval(silence / PROBES)
        .with_retries(PROBES);
    SockRef::from(tcp).set_tcp_keepalive(&probes)
}

/// A connected stream.
pub(crate) enum Stream {
    Tcp(TcpStream),
    Unix(QuietSocket),
    Tls(Box<TlsStream<TcpStream>>),
}

impl Stream {
    pub(crate) fn is_tls(&self) -> bool {
        matches!(self, Stream::Tls(_))
    }

    /// The end-entity certificate that the peer showed, in DER, for channel binding (RFC 5929).
    pub(crate) fn peer_certificate(&self) -> Option<&[u8]> {
        match self {
            Stream::Tls(tls) => tls
                .get_ref()
                .1
                .peer_certificates()
                .and_then(|chain| chain.first())
                .map(AsRef::as_ref),
            Stream::Tcp(_) | Stream::Unix(_) => None,
        }
    }
}

macro_rules! delegate {
    ($self:ident, $stream:ident => $call:expr) => {
        match $self.get_mut() {
            Stream::Tcp($stream) => $call,
            Stream::Unix($stream) => $call,
            Stream::Tls(boxed) => {
                let $stream = boxed.as_mut();
                $call
            }
        }
    };
}

impl AsyncRead for Stream {
    fn poll_read(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        delegate!(self, stream => Pin::new(stream).poll_read(cx, buf))
    }
}

impl AsyncWrite for Stream {
    fn poll_write(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &[u8],
    ) -> Poll<io::Result<usize>> {
        delegate!(self, stream => Pin::new(stream).poll_write(cx, buf))
    }

    fn poll_flush(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        delegate!(self, stream => Pin::new(stream).poll_flush(cx))
    }

    fn poll_shutdown(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        delegate!(self, stream => Pin::new(stream).poll_shutdown(cx))
    }
}
