//! A client that plays messages as told, right or wrong, and writes down every answer.
//!
//! Drivers hide most of what a proxy can get wrong, so the tests of the wire speak the protocol
//! themselves: the same bytes go to PostgreSQL and to the proxy and the [`Transcript`]s are
//! compared.

pub mod frontend;
pub mod rig;
mod transcript;

use std::fmt;
use std::io::{self, ErrorKind, Read, Write};
use std::net::{Ipv4Addr, TcpStream};
use std::path::Path;
use std::sync::Arc;
use std::time::{Duration, Instant};

use rustls::pki_types::{CertificateDer, ServerName, pem::PemObject as _};
use rustls::{ClientConfig, ClientConnection, RootCertStore, StreamOwned};

use crate::error::{Context as _, Error, Result};
pub use transcript::Transcript;

/// Protocol 3.0.
pub const VERSION_3_0: u32 = 0x0003_0000;
/// Protocol 3.2, with longer cancel keys.
pub const VERSION_3_2: u32 = 0x0003_0002;

/// A server that takes longer for an answer is one that hangs.
const PATIENCE: Duration = Duration::from_secs(20);
/// How long nothing has to come for nothing to be under way.
const SILENCE: Duration = Duration::from_millis(100);

/// One message of the server.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Message {
    /// Its type byte.
    pub kind: u8,
    /// What follows the length word.
    pub body: Vec<u8>,
}

/// What a test does on a connection.
#[derive(Clone, Debug)]
pub enum Step {
    /// Sends bytes.
    Send(Vec<u8>),
    /// Reads until so many ReadyForQuery came.
    Ready(usize),
    /// Reads until a message of this type came.
    Until(u8),
    /// Reads until a message came whose line in the transcript starts with this.
    Line(String),
    /// The same, or until nothing comes for so long.
    Within(Duration, String),
    /// Reads until nothing comes for a while.
    Quiet,
    /// Reads until the server closes the connection.
    End,
}

/// A connection.
pub struct Wire {
    stream: Stream,
    input: Vec<u8>,
    /// Process id and secret of BackendKeyData, after [`Wire::login`].
    pub key: (u32, Vec<u8>),
    /// The server closed the connection without saying so inside of TLS.
    pub cut: bool,
}

enum Stream {
    Plain(TcpStream),
    Tls(Box<StreamOwned<ClientConnection, TcpStream>>),
}

enum Answer {
    Message(Message),
    Nothing,
    Closed,
}

/// Sends messages, and is content with no error.
///
/// # Panics
/// There is one.
#[track_caller]
pub fn done(wire: &mut Wire, messages: &[u8]) {
    let said = wire.ask(messages);
    assert!(said.sqlstates().is_empty(), "{said}");
}

impl Wire {
    /// Opens a TCP connection to a loopback port and says nothing.
    ///
    /// # Errors
    /// Nobody listens.
    pub fn connect(port: u16) -> Result<Self> {
        let tcp = TcpStream::connect((Ipv4Addr::LOCALHOST, port))
            .context(format!("connect to port {port}"))?;
        tcp.set_nodelay(true).context("set TCP_NODELAY")?;
        tcp.set_write_timeout(Some(PATIENCE))
            .context("set a timeout")?;
        Ok(Self {
            stream: Stream::Plain(tcp),
            input: Vec::new(),
            key: (0, Vec::new()),
            cut: false,
        })
    }

    /// Sends bytes as they are.
    ///
    /// # Errors
    /// The connection is closed, or the server does not read for 20 s.
    pub fn send(&mut self, bytes: &[u8]) -> Result<()> {
        self.stream.put(bytes).context("send to the server")
    }

    /// Reads one byte that is no message: the answer to SSLRequest or GSSENCRequest. `None` when
    /// the server closes instead.
    ///
    /// # Errors
    /// Nothing comes.
    pub fn byte(&mut self) -> Result<Option<u8>> {
        let deadline = Instant::now() + PATIENCE;
        while self.input.is_empty() {
            match self.fill(deadline) {
                Ok(true) => {}
                Ok(false) => return Ok(None),
                Err(error) => return Err(error).context("read one byte"),
            }
        }
        Ok(Some(self.input.remove(0)))
    }

    /// Asks for TLS and shakes hands; the server's certificate must be by the authority in `ca` and
    /// for 127.0.0.1.
    ///
    /// # Errors
    /// The server offers no TLS, or the handshake fails.
    pub fn tls(mut self, ca: &Path) -> Result<Self> {
        self.send(&frontend::ssl_request())?;
        let offered = self.byte()?;
        if offered != Some(b'S') {
            return Err(protocol(format!("SSLRequest answered with {offered:?}")));
        }
        self.handshake(ca)
    }

    /// Shakes hands, after SSLRequest has been answered.
    ///
    /// # Errors
    /// The handshake fails.
    pub fn handshake(self, ca: &Path) -> Result<Self> {
        let Stream::Plain(tcp) = self.stream else {
            return Err(protocol("TLS is up already".to_owned()));
        };
        let tls = |error: &dyn fmt::Display| Error::Certificate(error.to_string());
        let pem = std::fs::read(ca).context(format!("read {}", ca.display()))?;
        let mut roots = RootCertStore::empty();
        for certificate in CertificateDer::pem_slice_iter(&pem) {
            let certificate = certificate.map_err(|error| tls(&error))?;
            roots.add(certificate).map_err(|error| tls(&error))?;
        }
        let provider = Arc::new(rustls::crypto::ring::default_provider());
        let config = ClientConfig::builder_with_provider(provider)
            .with_safe_default_protocol_versions()
            .map_err(|error| tls(&error))?
            .with_root_certificates(roots)
            .with_no_client_auth();
        let name = ServerName::from(std::net::IpAddr::from(Ipv4Addr::LOCALHOST));
        let client = ClientConnection::new(Arc::new(config), name).map_err(|error| tls(&error))?;
        let mut stream = StreamOwned::new(client, tcp);
        stream
            .sock
            .set_read_timeout(Some(PATIENCE))
            .context("set a timeout")?;
        while stream.conn.is_handshaking() {
            stream
                .conn
                .complete_io(&mut stream.sock)
                .context("shake hands")?;
        }
        Ok(Self {
            stream: Stream::Tls(Box::new(stream)),
            input: self.input,
            key: self.key,
            cut: false,
        })
    }

    /// Starts a session and reads up to the first ReadyForQuery, answering a question for the
    /// password. What the server says is returned, whether or not it let us in.
    ///
    /// # Errors
    /// The connection breaks, or the server asks for something else than a clear-text password.
    pub fn login(
        &mut self,
        version: u32,
        parameters: &[(&str, &str)],
        password: &str,
    ) -> Result<Transcript> {
        self.send(&frontend::startup(version, parameters))?;
        let mut said = Transcript::default();
        loop {
            match self.answer(PATIENCE).context("read the server's answer")? {
                Answer::Message(message) => {
                    let asked = match (message.kind, message.body.as_slice()) {
                        (b'R', [0, 0, 0, 3]) => {
                            self.send(&frontend::password(password))?;
                            continue;
                        }
                        (b'R', [0, 0, 0, 0]) => false,
                        (b'R', _) => true,
                        (b'K', [a, b, c, d, secret @ ..]) => {
                            self.key = (u32::from_be_bytes([*a, *b, *c, *d]), secret.to_vec());
                            false
                        }
                        _ => false,
                    };
                    if asked {
                        return Err(protocol("authentication is not in clear text".to_owned()));
                    }
                    said.push(&message);
                    if message.kind == b'Z' {
                        return Ok(said);
                    }
                }
                Answer::Nothing => {
                    said.0.push("TIMEOUT".to_owned());
                    return Ok(said);
                }
                Answer::Closed => {
                    said.0.push("END".to_owned());
                    return Ok(said);
                }
            }
        }
    }

    /// Plays steps and returns what the server said. A server that does not answer in time, or
    /// closes, leaves `TIMEOUT` or `END` as the last line.
    pub fn play(&mut self, steps: &[Step]) -> Transcript {
        let mut said = Transcript::default();
        for step in steps {
            let done = match step {
                Step::Send(bytes) => {
                    if self.send(bytes).is_err() {
                        // Whatever the server said before it closed comes first.
                        return self.until(said, PATIENCE, |_| false).0;
                    }
                    continue;
                }
                Step::Ready(count) => {
                    let mut left = *count;
                    self.until(said, PATIENCE, |message| {
                        left -= usize::from(message.kind == b'Z');
                        left == 0
                    })
                }
                Step::Until(kind) => self.until(said, PATIENCE, |message| message.kind == *kind),
                Step::Line(start) => self.until(said, PATIENCE, |message| {
                    transcript::line(message).starts_with(start.as_str())
                }),
                Step::Within(patience, start) => self.until(said, *patience, |message| {
                    transcript::line(message).starts_with(start.as_str())
                }),
                Step::Quiet => {
                    let (mut quiet, _) = self.until(said, SILENCE, |_| false);
                    let silent = quiet.0.last().is_some_and(|line| line == "TIMEOUT");
                    if silent {
                        quiet.0.pop();
                    }
                    (quiet, silent)
                }
                Step::End => self.until(said, PATIENCE, |_| false),
            };
            said = done.0;
            if !done.1 {
                break;
            }
        }
        said
    }

    /// Sends bytes and reads until ReadyForQuery.
    pub fn ask(&mut self, bytes: &[u8]) -> Transcript {
        self.play(&[Step::Send(bytes.to_vec()), Step::Ready(1)])
    }

    /// The next message, within 20 s. `None` when the server closed.
    ///
    /// # Errors
    /// Nothing comes, or the connection breaks.
    pub fn message(&mut self) -> Result<Option<Message>> {
        match self.answer(PATIENCE).context("read the server's answer")? {
            Answer::Message(message) => Ok(Some(message)),
            Answer::Closed => Ok(None),
            Answer::Nothing => Err(Error::Timeout {
                what: "a message of the server".to_owned(),
                seconds: PATIENCE.as_secs(),
                output: String::new(),
            }),
        }
    }

    fn until(
        &mut self,
        mut said: Transcript,
        patience: Duration,
        mut last: impl FnMut(&Message) -> bool,
    ) -> (Transcript, bool) {
        loop {
            match self.answer(patience) {
                Ok(Answer::Message(message)) => {
                    said.push(&message);
                    if last(&message) {
                        return (said, true);
                    }
                }
                Ok(Answer::Nothing) => {
                    said.0.push("TIMEOUT".to_owned());
                    return (said, false);
                }
                Ok(Answer::Closed) | Err(_) => {
                    said.0.push("END".to_owned());
                    return (said, false);
                }
            }
        }
    }

    fn answer(&mut self, patience: Duration) -> io::Result<Answer> {
        let deadline = Instant::now() + patience;
        loop {
            if let [kind, a, b, c, d, rest @ ..] = self.input.as_slice() {
                let length = u32::from_be_bytes([*a, *b, *c, *d]);
                let body = usize::try_from(length)
                    .unwrap_or(usize::MAX)
                    .saturating_sub(4);
                if rest.len() >= body {
                    let message = Message {
                        kind: *kind,
                        body: rest.get(..body).unwrap_or_default().to_vec(),
                    };
                    self.input.drain(..body + 5);
                    return Ok(Answer::Message(message));
                }
            }
            match self.fill(deadline) {
                Ok(true) => {}
                Ok(false) => return Ok(Answer::Closed),
                Err(error) if error.kind() == ErrorKind::TimedOut => return Ok(Answer::Nothing),
                Err(error) => return Err(error),
            }
        }
    }

    /// Reads what is there, or waits for it. False at the end of the stream.
    fn fill(&mut self, deadline: Instant) -> io::Result<bool> {
        let mut chunk = [0u8; 64 * 1024];
        loop {
            let left = deadline.saturating_duration_since(Instant::now());
            if left.is_zero() {
                return Err(ErrorKind::TimedOut.into());
            }
            self.stream.tcp().set_read_timeout(Some(left))?;
            match self.stream.get(&mut chunk) {
                Ok(0) => return Ok(false),
                Ok(count) => {
                    self.input
                        .extend_from_slice(chunk.get(..count).unwrap_or_default());
                    return Ok(true);
                }
                Err(error)
                    if matches!(error.kind(), ErrorKind::WouldBlock | ErrorKind::Interrupted) => {}
                // A peer that closes without a close_notify, or with data of ours unread.
                Err(error)
                    if matches!(
                        error.kind(),
                        ErrorKind::UnexpectedEof | ErrorKind::ConnectionReset
                    ) =>
                {
                    self.cut = true;
                    return Ok(false);
                }
                Err(error) => return Err(error),
            }
        }
    }
}

impl fmt::Debug for Wire {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Wire")
            .field("process", &self.key.0)
            .finish_non_exhaustive()
    }
}

impl Stream {
    fn tcp(&self) -> &TcpStream {
        match self {
            Stream::Plain(tcp) => tcp,
            Stream::Tls(tls) => &tls.sock,
        }
    }

    fn put(&mut self, bytes: &[u8]) -> io::Result<()> {
        match self {
            Stream::Plain(tcp) => tcp.write_all(bytes),
            Stream::Tls(tls) => {
                tls.write_all(bytes)?;
                tls.flush()
            }
        }
    }

    fn get(&mut self, into: &mut [u8]) -> io::Result<usize> {
        match self {
            Stream::Plain(tcp) => tcp.read(into),
            Stream::Tls(tls) => tls.read(into),
        }
    }
}

fn protocol(what: String) -> Error {
    Error::Program {
        program: "the server".to_owned(),
        status: "unexpected answer".to_owned(),
        output: what,
    }
}
