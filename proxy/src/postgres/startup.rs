//! The first messages of a connection, before anybody is authenticated (protocol section
//! "Start-up").

use std::{io, ops::RangeInclusive};

use bytes::{BufMut, BytesMut};
use tokio::io::{AsyncReadExt, AsyncWriteExt};

use super::protocol::{
    self, CANCEL_REQUEST, Fields, GSSENC_REQUEST, Malformed, SSL_REQUEST, VERSION_3_0, VERSION_3_2,
    backend,
};

/// The longest start-up packet that PostgreSQL takes (`MAX_STARTUP_PACKET_LENGTH`).
const MAX_PACKET: usize = 10_000;

/// What a client may open a connection with.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Opening {
    Ssl,
    GssEncryption,
    Cancel(CancelKey),
    Startup(Parameters),
}

/// How many bytes the secret of a cancel key has: 4 in protocol 3.0, up to 256 in 3.2.
const SECRET: RangeInclusive<usize> = 4..=256;

/// What a CancelRequest names: the backend's process and a secret.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub(crate) struct CancelKey {
    pub(crate) pid: u32,
    pub(crate) secret: Vec<u8>,
}

/// The parameters of a StartupMessage, in the client's order.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub(crate) struct Parameters {
    /// The protocol version asked for.
    pub(crate) version: u32,
    /// Names and values; names that start with `_pq_.` are protocol options.
    pub(crate) list: Vec<(Vec<u8>, Vec<u8>)>,
}

impl Parameters {
    pub(crate) fn get(&self, name: &str) -> Option<&[u8]> {
        self.list
            .iter()
            .rev()
            .find(|(key, _)| key == name.as_bytes())
            .map(|(_, value)| value.as_slice())
    }

    /// The version that the session then has, between the client and Chaperone.
    pub(crate) fn agreed_version(&self) -> u32 {
        if self.version < VERSION_3_2 {
            VERSION_3_0
        } else {
            VERSION_3_2
        }
    }

    /// How long a cancel key the client takes.
    pub(crate) fn secret_length(&self) -> usize {
        match self.agreed_version() {
            VERSION_3_0 => 4,
            _ => 32,
        }
    }

    /// Settings that the session would start with: every parameter that is not the protocol's own,
    /// and what `options` sets (`-c name=value`, `--name=value`). `None` when `options` has
    /// something else in it, such as a flag of the server's command line.
    pub(crate) fn settings(&self) -> Option<Vec<(String, String)>> {
        let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
        let mut settings = Vec::new();
        for (name, value) in &self.list {
            match name.as_slice() {
                b"user" | b"database" | b"replication" => {}
                b"options" => settings.extend(options(&text(value))?),
                name if name.starts_with(b"_pq_.") => {}
                name => settings.push((text(name), text(value))),
            }
        }
        Some(settings)
    }

    fn read(version: u32, mut fields: Fields<'_>) -> Result<Self, Malformed> {
        let mut list = Vec::new();
        loop {
            let name = fields.cstr()?;
            if name.is_empty() {
                break;
            }
            list.push((name.to_vec(), fields.cstr()?.to_vec()));
        }
        fields.end()?;
        Ok(Self { version, list })
    }
}

/// Splits the start-up parameter `options` as the server does: by white space, a backslash keeps
/// the next character.
fn options(text: &str) -> Option<Vec<(String, String)>> {
    let mut words = Vec::new();
    let mut word: Option<String> = None;
    let mut chars = text.chars();
    while let Some(character) = chars.next() {
        match character {
            '\\' => word.get_or_insert_default().extend(chars.next()),
            space if space.is_ascii_whitespace() => words.extend(word.take()),
            other => word.get_or_insert_default().push(other),
        }
    }
    words.extend(word);
    let mut settings = Vec::new();
    let mut words = words.into_iter();
    while let Some(word) = words.next() {
        let assignment = if word == "-c" {
            words.next()?
        } else if let Some(rest) = word.strip_prefix("--").or_else(|| word.strip_prefix("-c")) {
            rest.to_owned()
        } else {
            return None;
        };
        let (name, value) = assignment.split_once('=')?;
        settings.push((name.replace('-', "_"), value.to_owned()));
    }
    Some(settings)
}

/// Why a connection ended before it was a session.
#[derive(Debug, thiserror::Error)]
pub(crate) enum OpeningError {
    #[error(transparent)]
    Io(#[from] io::Error),
    #[error("start-up packet: {0}")]
    Malformed(#[from] Malformed),
    #[error("start-up packet of {0} bytes; PostgreSQL takes 8 to {MAX_PACKET}")]
    Size(u32),
    #[error("protocol version {0}.{1} is not served; use 3.0")]
    Version(u32, u32),
}

/// Reads one opening packet; `None` when the client went away without a word, as port scanners and
/// health checks do. Exactly the packet is read, so that bytes behind it stay in the socket for
/// whoever comes next (a TLS handshake must not find them in our buffer).
pub(crate) async fn read_opening(
    stream: &mut (impl AsyncReadExt + Unpin),
) -> Result<Option<Opening>, OpeningError> {
    let mut length = [0u8; 4];
    match stream.read_exact(&mut length).await {
        Err(error) if error.kind() == io::ErrorKind::UnexpectedEof => return Ok(None),
        other => other?,
    };
    let length = u32::from_be_bytes(length);
    let body = match usize::try_from(length) {
        Ok(size @ 8..=MAX_PACKET) => size - 4,
        _ => return Err(OpeningError::Size(length)),
    };
    let mut packet = vec![0u8; body];
    stream.read_exact(&mut packet).await?;
    parse_opening(&packet).map(Some)
}

fn parse_opening(packet: &[u8]) -> Result<Opening, OpeningError> {
    let mut fields = Fields::new("start-up", packet);
    match fields.u32()? {
        SSL_REQUEST => {
            fields.end()?;
            Ok(Opening::Ssl)
        }
        GSSENC_REQUEST => {
            fields.end()?;
            Ok(Opening::GssEncryption)
        }
        CANCEL_REQUEST => {
            let pid = fields.u32()?;
            let secret = packet.get(8..).unwrap_or_default().to_vec();
            if SECRET.contains(&secret.len()) {
                Ok(Opening::Cancel(CancelKey { pid, secret }))
            } else {
                Err(Malformed::Invalid("CancelRequest").into())
            }
        }
        version if version >> 16 == 3 => Ok(Opening::Startup(Parameters::read(version, fields)?)),
        version => Err(OpeningError::Version(version >> 16, version & 0xffff)),
    }
}

/// Appends a NegotiateProtocolVersion when the client asked for more than 3.2 or for protocol
/// options: Chaperone serves 3.2 and no options.
pub(crate) fn negotiate(out: &mut BytesMut, parameters: &Parameters) {
    let options: Vec<_> = parameters
        .list
        .iter()
        .filter(|(name, _)| name.starts_with(b"_pq_."))
        .collect();
    let version = parameters.agreed_version();
    if parameters.version == version && options.is_empty() {
        return;
    }
    protocol::message(out, backend::NEGOTIATE_PROTOCOL_VERSION, |out| {
        out.put_u32(version);
        out.put_u32(u32::try_from(options.len()).unwrap_or(u32::MAX));
        for (name, _) in options {
            protocol::cstr(out, name);
        }
    });
}

/// The longest password message taken: tokens with many groups run to tens of kilobytes.
const MAX_PASSWORD: usize = 256 * 1024;

/// Asks for the password, which carries the token, and reads it.
pub(crate) async fn ask_password(
    stream: &mut (impl AsyncReadExt + AsyncWriteExt + Unpin),
) -> Result<Option<String>, OpeningError> {
    let mut out = BytesMut::new();
    // AuthenticationCleartextPassword; the channel is TLS, or the configuration says `danger`.
    protocol::message(&mut out, backend::AUTHENTICATION, |out| out.put_u32(3));
    stream.write_all(&out).await?;
    stream.flush().await?;
    let mut head = [0u8; protocol::HEADER];
    match stream.read_exact(&mut head).await {
        Err(error) if error.kind() == io::ErrorKind::UnexpectedEof => return Ok(None),
        other => other?,
    };
    let Some((kind, length)) = protocol::header(&head)? else {
        return Err(Malformed::Truncated("Password").into());
    };
    if kind != protocol::frontend::PASSWORD {
        return Err(Malformed::UnknownType(kind).into());
    }
    if length > MAX_PASSWORD {
        return Err(OpeningError::Size(
            u32::try_from(length).unwrap_or(u32::MAX),
        ));
    }
    let mut body = vec![0u8; length - protocol::HEADER];
    stream.read_exact(&mut body).await?;
    let mut fields = Fields::new("Password", &body);
    let password = fields.cstr()?.to_vec();
    fields.end()?;
    String::from_utf8(password)
        .map(Some)
        .map_err(|_| Malformed::Invalid("Password").into())
}

/// Appends a StartupMessage for the backend: our user and database, everything else as the client
/// gave it. What the client takes is asked for; an older backend negotiates down.
pub(crate) fn startup_message(
    out: &mut BytesMut,
    login: &str,
    database: &str,
    parameters: &Parameters,
) {
    let at = out.len();
    out.put_u32(0);
    out.put_u32(parameters.agreed_version());
    for (name, value) in [("user", login), ("database", database)] {
        protocol::cstr(out, name.as_bytes());
        protocol::cstr(out, value.as_bytes());
    }
    for (name, value) in &parameters.list {
        let ours = matches!(name.as_slice(), b"user" | b"database" | b"replication");
        if !ours && !name.starts_with(b"_pq_.") {
            protocol::cstr(out, name);
            protocol::cstr(out, value);
        }
    }
    out.put_u8(0);
    let length = u32::try_from(out.len() - at).unwrap_or(u32::MAX);
    if let Some(mut word) = out.get_mut(at..at + 4) {
        word.put_u32(length);
    }
}

/// A CancelRequest for the backend.
pub(crate) fn cancel_request(key: &CancelKey) -> BytesMut {
    let mut out = BytesMut::new();
    out.put_u32(u32::try_from(12 + key.secret.len()).unwrap_or(u32::MAX));
    out.put_u32(CANCEL_REQUEST);
    out.put_u32(key.pid);
    out.put_slice(&key.secret);
    out
}

/// Process id and secret of a BackendKeyData.
pub(crate) fn backend_key(body: &[u8]) -> Result<CancelKey, Malformed> {
    let mut fields = Fields::new("BackendKeyData", body);
    let pid = fields.u32()?;
    let secret = body.get(4..).unwrap_or_default().to_vec();
    if SECRET.contains(&secret.len()) {
        Ok(CancelKey { pid, secret })
    } else {
        Err(Malformed::Invalid("BackendKeyData"))
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn parameters(list: &[(&str, &str)]) -> Parameters {
        Parameters {
            version: VERSION_3_0,
            list: list
                .iter()
                .map(|(name, value)| (name.as_bytes().to_vec(), value.as_bytes().to_vec()))
                .collect(),
        }
    }

    #[test]
    fn options_are_read_as_the_server_reads_them() {
        let settings = |options| parameters(&[("user", "x"), ("options", options)]).settings();
        let pairs = |list: &[(&str, &str)]| {
            Some(
                list.iter()
                    .map(|(a, b)| ((*a).to_owned(), (*b).to_owned()))
                    .collect::<Vec<_>>(),
            )
        };
        assert_eq!(
            settings(r"-c search_path=a\ b,c --work-mem=4MB -cgeqo=off"),
            pairs(&[
                ("search_path", "a b,c"),
                ("work_mem", "4MB"),
                ("geqo", "off")
            ])
        );
        assert_eq!(settings(""), pairs(&[]));
        assert_eq!(settings("-d 5"), None);
        assert_eq!(settings("-c"), None);
    }

    #[test]
    fn the_client_s_parameters_go_on_verbatim() {
        let mut out = BytesMut::new();
        let given = parameters(&[
            ("user", "agent"),
            ("database", "clinic"),
            ("DateStyle", "German"),
            ("_pq_.x", "1"),
        ]);
        startup_message(&mut out, "login", "db", &given);
        let mut fields = Fields::new("start-up", &out[8..]);
        let read = Parameters::read(VERSION_3_0, fields).unwrap();
        assert_eq!(
            read,
            parameters(&[
                ("user", "login"),
                ("database", "db"),
                ("DateStyle", "German")
            ])
        );
        assert_eq!(fields.cstr().unwrap(), b"user");
        assert_eq!(
            u32::from_be_bytes(out[..4].try_into().unwrap()) as usize,
            out.len()
        );
    }

    #[test]
    fn versions_are_agreed_upon() {
        for (asked, agreed, secret) in [
            (0x0003_0000, 0x0003_0000, 4),
            (0x0003_0001, 0x0003_0000, 4),
            (0x0003_0002, 0x0003_0002, 32),
            (0x0003_270f, 0x0003_0002, 32),
        ] {
            let asks = Parameters {
                version: asked,
                ..parameters(&[("user", "x")])
            };
            assert_eq!(
                (asks.agreed_version(), asks.secret_length()),
                (agreed, secret)
            );
            let mut said = BytesMut::new();
            negotiate(&mut said, &asks);
            assert_eq!(said.is_empty(), asked == agreed, "{asked:x}");
        }
    }

    #[test]
    fn secrets_have_four_to_256_bytes() {
        for (length, good) in [(3, false), (4, true), (32, true), (256, true), (257, false)] {
            let body = [&7u32.to_be_bytes()[..], &vec![1; length]].concat();
            assert_eq!(backend_key(&body).is_ok(), good, "{length}");
            let request = [&CANCEL_REQUEST.to_be_bytes()[..], &body].concat();
            assert_eq!(parse_opening(&request).is_ok(), good, "{length}");
        }
    }

    proptest! {
        #[test]
        fn garbage_never_panics(packet in proptest::collection::vec(any::<u8>(), 0..64)) {
            let _ = parse_opening(&packet);
            let _ = backend_key(&packet);
        }

        #[test]
        fn start_up_packets_are_read_as_they_were_written(
            version in 0x0003_0000u32..0x0003_ffff,
            list in proptest::collection::vec(("[^\0]{1,20}", "[^\0]{0,30}"), 0..6),
        ) {
            let mut packet = BytesMut::new();
            packet.put_u32(version);
            for (name, value) in &list {
                protocol::cstr(&mut packet, name.as_bytes());
                protocol::cstr(&mut packet, value.as_bytes());
            }
            packet.put_u8(0);
            let list = list.iter().map(|(n, v)| (n.clone().into_bytes(), v.clone().into_bytes()));
            let opening = Opening::Startup(Parameters { version, list: list.collect() });
            prop_assert_eq!(parse_opening(&packet).ok(), Some(opening));
            for end in 0..packet.len() {
                prop_assert!(parse_opening(&packet[..end]).is_err());
            }
            packet.put_u8(0);
            prop_assert!(parse_opening(&packet).is_err());
        }

        #[test]
        fn cancel_keys_are_read_as_they_were_written(
            pid in any::<u32>(),
            secret in proptest::collection::vec(any::<u8>(), 4..=256),
        ) {
            let key = CancelKey { pid, secret };
            let request = cancel_request(&key);
            prop_assert_eq!(parse_opening(&request[4..]).ok(), Some(Opening::Cancel(key.clone())));
            prop_assert_eq!(backend_key(&request[8..]), Ok(key));
        }

        #[test]
        fn any_options_text_is_read_or_refused(text in ".{0,60}") {
            let _ = options(&text);
        }
    }
}
