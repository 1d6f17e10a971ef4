//! The floor: bytes from one socket to the other, unread.

use std::io;
use std::path::Path;

use tokio::net::{TcpListener, UnixStream};

/// Relays every connection on `port` to the Unix socket, until killed.
///
/// # Errors
/// The port cannot be used.
pub fn serve(port: u16, socket: &Path) -> io::Result<()> {
    tokio::runtime::Builder::new_multi_thread()
        .worker_threads(2)
        .enable_all()
        .build()?
        .block_on(async {
            let listener = TcpListener::bind(("127.0.0.1", port)).await?;
            loop {
                let (mut client, _) = listener.accept().await?;
                let socket = socket.to_owned();
                tokio::spawn(async move {
                    client.set_nodelay(true)?;
                    let mut server = UnixStream::connect(socket).await?;
                    tokio::io::copy_bidirectional(&mut client, &mut server).await
                });
            }
        })
}
