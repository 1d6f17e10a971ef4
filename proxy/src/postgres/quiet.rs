//! A Unix socket that wakes its task only for what the task waits for.
//!
//! Whenever the backend takes bytes out of a Unix socket, Linux tells that there is room again
//! (`EPOLLOUT`), also where there was room all the time: a wake-up for nothing with each statement.
//! So readiness to read alone is registered, and readiness to write only while there is no room.

use std::{
    io::{self, Read as _, Write as _},
    net::Shutdown,
    os::unix::net::UnixStream,
    pin::Pin,
    task::{Context, Poll, ready},
};

use tokio::io::{AsyncRead, AsyncWrite, Interest, ReadBuf, unix::AsyncFd};

/// Least and most room that is made for one read. It has to be cleared each time.
const LEAST: usize = 2 << 10;
const MOST: usize = 32 << 10;

/// A connected Unix socket.
pub(crate) struct QuietSocket {
    socket: AsyncFd<UnixStream>,
    /// The same socket while it has no room.
    full: Option<AsyncFd<UnixStream>>,
    /// Room for the next read.
    room: usize,
}

impl QuietSocket {
    pub(crate) fn new(socket: tokio::net::UnixStream) -> io::Result<Self> {
        let socket = socket.into_std()?;
        Ok(Self {
            socket: register(socket, Interest::READABLE)?,
            full: None,
            room: LEAST,
        })
    }

    fn write(&self, bytes: &[u8]) -> io::Result<usize> {
        loop {
            match self.socket.get_ref().write(bytes) {
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                other => return other,
            }
        }
    }
}

#[allow(
    deprecated,
    reason = "the other constructors are unsafe, for types that change their descriptor: a \
              UnixStream does not"
)]
fn register(socket: UnixStream, interest: Interest) -> io::Result<AsyncFd<UnixStream>> {
    AsyncFd::with_interest(socket, interest)
}

impl AsyncRead for QuietSocket {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        let room = self.room.min(buf.remaining());
        loop {
            let mut ready = ready!(self.socket.poll_read_ready(cx))?;
            let space = buf.initialize_unfilled_to(room);
            match ready.get_inner().read(space) {
                Ok(count) => {
                    if (1..room).contains(&count) {
                        // It is drained; what comes from now on is told of.
                        ready.clear_ready();
                    }
                    buf.advance(count);
                    self.room = count.saturating_mul(2).clamp(LEAST, MOST);
                    return Poll::Ready(Ok(()));
                }
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => ready.clear_ready(),
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(error) => return Poll::Ready(Err(error)),
            }
        }
    }
}

impl AsyncWrite for QuietSocket {
    fn poll_write(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &[u8],
    ) -> Poll<io::Result<usize>> {
        loop {
            match self.write(buf) {
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => {}
                other => {
                    self.full = None;
                    return Poll::Ready(other);
                }
            }
            let full = match self.full.take() {
                Some(full) => full,
                None => {
                    let same = self.socket.get_ref().try_clone()?;
                    register(same, Interest::WRITABLE)?
                }
            };
            let full = self.full.insert(full);
            // There may be room already: then it is tried once more before anybody waits.
            ready!(full.poll_write_ready(cx))?.clear_ready();
        }
    }

    fn poll_flush(self: Pin<&mut Self>, _cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Poll::Ready(Ok(()))
    }

    fn poll_shutdown(self: Pin<&mut Self>, _cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Poll::Ready(self.socket.get_ref().shutdown(Shutdown::Write))
    }
}

#[cfg(test)]
mod tests {
    use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};

    use super::*;

    #[tokio::test]
    async fn much_goes_through_both_ways_although_neither_side_hurries() {
        const BYTES: usize = 4 << 20;
        let (one, other) = tokio::net::UnixStream::pair().unwrap();
        let (mut one, mut other) = (QuietSocket::new(one).unwrap(), other);
        let sent: Vec<u8> = (0..BYTES).map(|n| (n % 251) as u8).collect();
        let expected = sent.clone();
        let echo = tokio::spawn(async move {
            let mut chunk = vec![0; 3000];
            let mut all = Vec::new();
            while all.len() < BYTES {
                let count = other.read(&mut chunk).await.unwrap();
                all.extend_from_slice(&chunk[..count]);
                tokio::task::yield_now().await;
            }
            other.write_all(&all).await.unwrap();
            all
        });
        one.write_all(&sent).await.unwrap();
        let mut back = Vec::new();
        one.read_to_end(&mut back).await.unwrap();
        assert!(echo.await.unwrap() == expected && back == expected);
    }

    #[tokio::test]
    async fn the_end_and_a_broken_pipe_are_noticed() {
        let (one, other) = tokio::net::UnixStream::pair().unwrap();
        let mut one = QuietSocket::new(one).unwrap();
        let reader = tokio::spawn(async move {
            let mut rest = Vec::new();
            one.read_to_end(&mut rest).await.unwrap();
            (one, rest)
        });
        tokio::task::yield_now().await;
        let mut other = other;
        other.write_all(b"last words").await.unwrap();
        drop(other);
        let (mut one, rest) = reader.await.unwrap();
        assert_eq!(rest, b"last words");
        assert!(one.write_all(b"x").await.is_err());
    }
}
