//! Both sockets of a session in one place, driven by its one task: no split halves, no channels.

use std::{
    future::Future,
    io,
    pin::{Pin, pin},
    task::{Context, Poll, ready},
    time::Duration,
};

use bytes::BytesMut;
use tokio::{
    io::{AsyncReadExt, AsyncWrite},
    time::{Sleep, sleep},
};

use super::{outbox::Outbox, stream::Stream};

/// Reading from one side stops while this much is waiting for the other.
pub(crate) const HIGH_WATER: usize = 1 << 20;
/// Least and most room that is made in a buffer before a read. What many sessions read over and
/// over stays in the processor's cache only where it is little.
const LEAST: usize = 2 << 10;
const MOST: usize = 32 << 10;
/// An empty buffer that has grown beyond this is given back.
const SPARE: usize = 256 << 10;
/// A backend that takes nothing more is listened to for as long as this, should it neither say
/// anything nor close its side.
const LAST_WORDS: Duration = Duration::from_secs(5);

/// The two streams of a session and what is in flight between them.
pub(crate) struct Sockets {
    pub(crate) client: Stream,
    pub(crate) upstream: Stream,
    /// Read from the client, not handled yet.
    pub(crate) from_client: BytesMut,
    /// For the client.
    pub(crate) to_client: Outbox,
    /// Read from the backend, not handled yet.
    pub(crate) from_upstream: BytesMut,
    /// For the backend. Whatever is not marked may go as soon as what stands before it.
    pub(crate) to_upstream: Outbox,
    /// The client has sent its last byte.
    pub(crate) client_ended: bool,
    /// The backend has sent its last byte.
    pub(crate) upstream_ended: bool,
    /// How much of the client's bytes may wait here.
    pub(crate) client_limit: usize,
    /// How much of a message of the backend may wait here.
    pub(crate) upstream_limit: usize,
    /// The client's messages wait until everything that is for it has gone.
    pub(crate) client_must_hear: bool,
    unflushed_client: bool,
    unflushed_upstream: bool,
    client_room: usize,
    upstream_room: usize,
    /// Until when a backend is listened to that takes nothing more.
    last_words: Option<Pin<Box<Sleep>>>,
}

impl Sockets {
    pub(crate) fn new(client: Stream, upstream: Stream, rest: BytesMut) -> Self {
        Self {
            client,
            upstream,
            from_client: BytesMut::new(),
            to_client: Outbox::default(),
            from_upstream: rest,
            to_upstream: Outbox::default(),
            client_ended: false,
            upstream_ended: false,
            client_limit: HIGH_WATER,
            upstream_limit: HIGH_WATER,
            client_must_hear: false,
            unflushed_client: false,
            unflushed_upstream: false,
            client_room: LEAST,
            upstream_room: LEAST,
            last_words: None,
        }
    }

    /// Whether the backend takes nothing more. What it said before is still to be read.
    pub(crate) fn upstream_deaf(&self) -> bool {
        self.last_words.is_some()
    }

    /// Writes what can be written and reads what can be read. Ready once something was read, a side
    /// ended, or a backlog fell below the mark; a broken client counts as ended.
    pub(crate) fn poll(&mut self, cx: &mut Context<'_>) -> Poll<()> {
        let crowded = self.to_client.len() >= HIGH_WATER;
        let crowded_upstream = self.to_upstream.len() >= HIGH_WATER;
        let ended = self.client_ended;
        if self.poll_write_client(cx).is_err() {
            self.client_ended = true;
            self.to_client = Outbox::default();
        }
        if self.last_words.is_none() && self.poll_write_upstream(cx).is_err() {
            // It may have said why, before it closed: the runtime tells of that when it next looks.
            self.last_words = Some(Box::pin(sleep(LAST_WORDS)));
        }
        if self.upstream_deaf() {
            self.to_upstream = Outbox::default();
        }
        // What waited for either to fall below the mark has its turn now.
        let mut progress = crowded && self.to_client.len() < HIGH_WATER
            || crowded_upstream && self.to_upstream.len() < HIGH_WATER
            || self.client_ended != ended;
        if self.client_must_hear && self.to_client.len() == 0 {
            self.client_must_hear = false;
            progress = true;
        }
        if !self.client_ended
            && !self.client_must_hear
            && self.from_client.len() < self.client_limit
            && let Poll::Ready(read) = read(
                &mut self.client,
                &mut self.from_client,
                &mut self.client_room,
                cx,
            )
        {
            self.client_ended = !matches!(read, Ok(1..));
            progress = true;
        }
        if !self.upstream_ended
            && self.from_upstream.len() < self.upstream_limit
            && self.to_client.len() < HIGH_WATER
        {
            match read(
                &mut self.upstream,
                &mut self.from_upstream,
                &mut self.upstream_room,
                cx,
            ) {
                Poll::Ready(read) => {
                    self.upstream_ended = !matches!(read, Ok(1..));
                    progress = true;
                }
                Poll::Pending => {
                    let last_words = self.last_words.as_mut();
                    if last_words.is_some_and(|time| time.as_mut().poll(cx).is_ready()) {
                        self.upstream_ended = true;
                        progress = true;
                    }
                }
            }
        }
        if progress {
            Poll::Ready(())
        } else {
            Poll::Pending
        }
    }

    fn poll_write_client(&mut self, cx: &mut Context<'_>) -> io::Result<()> {
        while !self.to_client.writable().is_empty() {
            match Pin::new(&mut self.client).poll_write(cx, self.to_client.writable()) {
                Poll::Ready(Ok(0)) => return Err(io::ErrorKind::WriteZero.into()),
                Poll::Ready(written) => {
                    self.to_client.written(written?);
                    self.unflushed_client = self.client.is_tls();
                }
                Poll::Pending => break,
            }
        }
        if self.unflushed_client
            && let Poll::Ready(flushed) = Pin::new(&mut self.client).poll_flush(cx)
        {
            flushed?;
            self.unflushed_client = false;
        }
        Ok(())
    }

    fn poll_write_upstream(&mut self, cx: &mut Context<'_>) -> io::Result<()> {
        self.to_upstream.mark(None);
        while !self.to_upstream.writable().is_empty() {
            match Pin::new(&mut self.upstream).poll_write(cx, self.to_upstream.writable()) {
                Poll::Ready(Ok(0)) => return Err(io::ErrorKind::WriteZero.into()),
                Poll::Ready(written) => {
                    self.to_upstream.written(written?);
                    self.unflushed_upstream = self.upstream.is_tls();
                }
                Poll::Pending => break,
            }
        }
        if self.unflushed_upstream
            && let Poll::Ready(flushed) = Pin::new(&mut self.upstream).poll_flush(cx)
        {
            flushed?;
            self.unflushed_upstream = false;
        }
        Ok(())
    }

    /// Whether everything that may go to the client has gone.
    pub(crate) fn client_flushed(&self) -> bool {
        self.to_client.writable().is_empty() && !self.unflushed_client
    }
}

/// Reads what fits. `room` follows what comes: twice as much as the last time.
fn read(
    stream: &mut Stream,
    buffer: &mut BytesMut,
    room: &mut usize,
    cx: &mut Context<'_>,
) -> Poll<io::Result<usize>> {
    if buffer.is_empty() && buffer.capacity() > SPARE && *room < MOST {
        *buffer = BytesMut::new();
    }
    buffer.reserve(*room);
    // `read_buf` loses nothing when it is dropped before it is ready.
    let count = ready!(pin!(stream.read_buf(buffer)).poll(cx));
    if let Ok(count) = count {
        *room = count.saturating_mul(2).clamp(LEAST, MOST);
    }
    Poll::Ready(count)
}

#[cfg(test)]
mod tests {
    use std::{future::poll_fn, net::Shutdown, task::Waker};

    use tokio::{io::AsyncWriteExt as _, net::UnixStream};

    use super::*;
    use crate::postgres::quiet::QuietSocket;

    fn quiet(socket: UnixStream) -> Stream {
        Stream::Unix(QuietSocket::new(socket).unwrap())
    }

    #[tokio::test]
    async fn a_backend_that_takes_nothing_more_is_heard_to_its_end() {
        let (near_client, _far_client) = UnixStream::pair().unwrap();
        let (near, mut far) = UnixStream::pair().unwrap();
        let mut sockets = Sockets::new(quiet(near_client), quiet(near), BytesMut::new());
        far.write_all(b"last words").await.unwrap();
        drop(far);
        sockets.to_upstream.buffer().extend_from_slice(b"too late");
        let mut cx = Context::from_waker(Waker::noop());
        // The runtime tells of what can be read when this task gives way.
        assert!(sockets.poll(&mut cx).is_pending());
        assert!(sockets.upstream_deaf() && !sockets.upstream_ended);
        let patience = Duration::from_secs(60);
        let heard = async {
            while !sockets.upstream_ended {
                poll_fn(|cx| sockets.poll(cx)).await;
            }
        };
        tokio::time::timeout(patience, heard).await.unwrap();
        assert_eq!(sockets.from_upstream, &b"last words"[..]);
        assert!(sockets.upstream_ended);
    }

    #[tokio::test(start_paused = true)]
    async fn a_backend_that_takes_nothing_more_and_says_nothing_has_ended_in_time() {
        let (near_client, _far_client) = UnixStream::pair().unwrap();
        let (near, far) = UnixStream::pair().unwrap();
        let far = far.into_std().unwrap();
        far.shutdown(Shutdown::Read).unwrap();
        let mut sockets = Sockets::new(quiet(near_client), quiet(near), BytesMut::new());
        sockets.to_upstream.buffer().extend_from_slice(b"too late");
        let patience = LAST_WORDS * 2;
        let ended = poll_fn(|cx| sockets.poll(cx));
        tokio::time::timeout(patience, ended).await.unwrap();
        assert!(sockets.upstream_ended && sockets.from_upstream.is_empty());
    }

    #[tokio::test]
    async fn a_client_that_takes_nothing_more_has_ended_at_once() {
        let (near, far) = UnixStream::pair().unwrap();
        let (near_backend, _far_backend) = UnixStream::pair().unwrap();
        let mut sockets = Sockets::new(quiet(near), quiet(near_backend), BytesMut::new());
        drop(far);
        sockets.to_client.buffer().extend_from_slice(b"too late");
        sockets.to_client.mark(None);
        let mut cx = Context::from_waker(Waker::noop());
        assert!(sockets.poll(&mut cx).is_ready());
        assert!(sockets.client_ended);
    }
}
