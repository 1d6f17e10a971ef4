//! Just enough HTTP/1.1 to talk to an admin address on loopback.

use std::io::{Read as _, Write as _};
use std::net::{SocketAddr, TcpStream};
use std::time::Duration;

use crate::error::{Context as _, Result};

/// An answer.
#[derive(Clone, Debug)]
pub struct Answer {
    /// The status code; 0 when the answer was not HTTP.
    pub status: u16,
    /// The body.
    pub body: String,
}

/// One request on a connection of its own. `token` goes as bearer token, `body` as JSON.
///
/// # Errors
/// The address cannot be reached, or says nothing for ten seconds.
pub fn request(
    address: SocketAddr,
    method: &str,
    path: &str,
    token: Option<&str>,
    body: Option<&str>,
) -> Result<Answer> {
    let what = || format!("{method} http://{address}{path}");
    let patience = Duration::from_secs(10);
    let mut stream = TcpStream::connect_timeout(&address, patience).context(what())?;
    stream.set_read_timeout(Some(patience)).context(what())?;
    let mut text = format!("{method} {path} HTTP/1.1\r\nHost: {address}\r\nConnection: close\r\n");
    if let Some(token) = token {
        text.push_str(&format!("Authorization: Bearer {token}\r\n"));
    }
    if let Some(body) = body {
        text.push_str(&format!(
            "Content-Type: application/json\r\nContent-Length: {}\r\n",
            body.len()
        ));
    }
    text.push_str("\r\n");
    text.push_str(body.unwrap_or_default());
    stream.write_all(text.as_bytes()).context(what())?;
    let mut answer = Vec::new();
    stream.read_to_end(&mut answer).context(what())?;
    let answer = String::from_utf8_lossy(&answer);
    let (head, body) = answer.split_once("\r\n\r\n").unwrap_or((&answer, ""));
    let status = head
        .split(' ')
        .nth(1)
        .and_then(|code| code.parse().ok())
        .unwrap_or(0);
    Ok(Answer {
        status,
        body: body.to_owned(),
    })
}

/// A GET without a token.
///
/// # Errors
/// As [`request`].
pub fn get(address: SocketAddr, path: &str) -> Result<Answer> {
    request(address, "GET", path, None, None)
}
