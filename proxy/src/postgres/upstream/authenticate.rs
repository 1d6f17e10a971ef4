//! How Chaperone proves who it is, and has the backend prove the same: SCRAM-SHA-256, and nothing
//! that a listener or an impostor could make use of.

use bytes::BytesMut;
use postgres_protocol::authentication::sasl::{
    ChannelBinding, SCRAM_SHA_256, SCRAM_SHA_256_PLUS, ScramSha256,
};
use tokio::io::AsyncWriteExt;

use super::{Login, Reader, UpstreamError, binding, body, refused};
use crate::postgres::{
    protocol::{self, Fields, Malformed, backend, frontend},
    stream::Stream,
};

/// Codes of Authentication messages.
mod code {
    pub(super) const OK: u32 = 0;
    pub(super) const KERBEROS: u32 = 2;
    pub(super) const CLEAR_TEXT: u32 = 3;
    pub(super) const MD5: u32 = 5;
    pub(super) const SASL: u32 = 10;
    pub(super) const SASL_CONTINUE: u32 = 11;
    pub(super) const SASL_FINAL: u32 = 12;
}

/// Logs in. A backend that asks for anything but SCRAM-SHA-256 is given nothing: MD5 gives away a
/// hash that is as good as the password, and a clear-text password is just that.
pub(super) async fn authenticate(
    stream: &mut Stream,
    reader: &mut Reader,
    login: &Login,
) -> Result<(), UpstreamError> {
    let question = asked(stream, reader).await?;
    let mut fields = Fields::new("Authentication", body(&question));
    match fields.u32()? {
        code::OK => unasked(stream, login),
        code::SASL => {
            let password = login.password.as_deref().ok_or(UpstreamError::NoPassword)?;
            scram(stream, reader, fields, password).await?;
            step(stream, reader, code::OK).await.map(drop)
        }
        code::MD5 => Err(UpstreamError::Method("an MD5 hash of the password")),
        code::CLEAR_TEXT => Err(UpstreamError::Method("the password in clear")),
        code::KERBEROS => Err(UpstreamError::Method("Kerberos")),
        7..=9 => Err(UpstreamError::Method("GSSAPI or SSPI")),
        _ => Err(UpstreamError::Method("an unknown proof")),
    }
}

/// The backend does not ask who we are (`trust`, `peer`). On a Unix socket the file system vouches
/// for both sides. On loopback anybody can listen, so a password that is configured must be asked
/// for; and over the network nobody gets in without one.
fn unasked(stream: &Stream, login: &Login) -> Result<(), UpstreamError> {
    match stream {
        Stream::Unix(_) => Ok(()),
        Stream::Tcp(_) if login.password.is_none() => Ok(()),
        Stream::Tcp(_) => Err(UpstreamError::Unasked(login.user.clone())),
        Stream::Tls(_) => Err(UpstreamError::Open(login.user.clone())),
    }
}

/// The first Authentication message.
async fn asked(stream: &mut Stream, reader: &mut Reader) -> Result<BytesMut, UpstreamError> {
    loop {
        let (kind, message) = reader.next(stream).await?;
        match kind {
            backend::AUTHENTICATION => return Ok(message),
            backend::ERROR_RESPONSE => return Err(refused(&message)),
            backend::NEGOTIATE_PROTOCOL_VERSION | backend::NOTICE_RESPONSE => {}
            other => return Err(Malformed::UnknownType(other).into()),
        }
    }
}

/// SCRAM-SHA-256 (RFC 5802, RFC 7677), bound to the TLS channel where there is one (RFC 5929,
/// tls-server-end-point) and the backend offers it.
async fn scram(
    stream: &mut Stream,
    reader: &mut Reader,
    offered: Fields<'_>,
    password: &str,
) -> Result<(), UpstreamError> {
    let (mechanism, binding) = mechanism(offered, stream.peer_certificate())?;
    let mut scram = ScramSha256::new(password.as_bytes(), binding);
    let mut out = BytesMut::new();
    protocol::message(&mut out, frontend::PASSWORD, |out| {
        protocol::cstr(out, mechanism.as_bytes());
        let first = scram.message();
        out.extend_from_slice(&u32::try_from(first.len()).unwrap_or(u32::MAX).to_be_bytes());
        out.extend_from_slice(first);
    });
    stream.write_all(&out).await?;
    stream.flush().await?;
    let server_first = step(stream, reader, code::SASL_CONTINUE).await?;
    scram
        .update(body_after_code(&server_first))
        .map_err(UpstreamError::Scram)?;
    let mut out = BytesMut::new();
    protocol::message(&mut out, frontend::PASSWORD, |out| {
        out.extend_from_slice(scram.message());
    });
    stream.write_all(&out).await?;
    stream.flush().await?;
    let server_final = step(stream, reader, code::SASL_FINAL).await?;
    scram
        .finish(body_after_code(&server_final))
        .map_err(UpstreamError::Scram)
}

/// The strongest mechanism that both sides have.
fn mechanism(
    mut offered: Fields<'_>,
    certificate: Option<&[u8]>,
) -> Result<(&'static str, ChannelBinding), UpstreamError> {
    let (mut plain, mut plus) = (false, false);
    loop {
        match offered.cstr()? {
            b"" => break,
            name if name == SCRAM_SHA_256.as_bytes() => plain = true,
            name if name == SCRAM_SHA_256_PLUS.as_bytes() => plus = true,
            _ => {}
        }
    }
    match (plus, plain, certificate.and_then(binding::end_point_digest)) {
        (true, _, Some(digest)) => Ok((
            SCRAM_SHA_256_PLUS,
            ChannelBinding::tls_server_end_point(digest),
        )),
        // "y" (could bind, server offers none) only where we could: a server that did offer it
        // learns that somebody took the offer out.
        (false, true, Some(_)) => Ok((SCRAM_SHA_256, ChannelBinding::unrequested())),
        (_, true, _) => Ok((SCRAM_SHA_256, ChannelBinding::unsupported())),
        _ => Err(UpstreamError::Method("a SASL mechanism that is unknown")),
    }
}

/// The Authentication message that has to come next.
async fn step(
    stream: &mut Stream,
    reader: &mut Reader,
    wanted: u32,
) -> Result<BytesMut, UpstreamError> {
    let (kind, message) = reader.next(stream).await?;
    match kind {
        backend::ERROR_RESPONSE => Err(refused(&message)),
        backend::AUTHENTICATION => {
            let code = Fields::new("Authentication", body(&message)).u32()?;
            if code == wanted {
                Ok(message)
            } else {
                Err(Malformed::Invalid("Authentication").into())
            }
        }
        other => Err(Malformed::UnknownType(other).into()),
    }
}

fn body_after_code(message: &[u8]) -> &[u8] {
    message.get(protocol::HEADER + 4..).unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use rcgen::{CertificateParams, KeyPair};

    use super::*;

    fn chosen(offered: &[u8], certificate: Option<&[u8]>) -> Option<&'static str> {
        let fields = Fields::new("Authentication", offered);
        mechanism(fields, certificate).ok().map(|(name, _)| name)
    }

    #[test]
    fn the_channel_is_bound_where_it_can_be() {
        let both = b"SCRAM-SHA-256-PLUS\0SCRAM-SHA-256\0\0";
        let key = KeyPair::generate().unwrap();
        let params = CertificateParams::new(Vec::new()).unwrap();
        let certificate = params.self_signed(&key).unwrap();
        let certificate = Some(&**certificate.der());
        assert_eq!(chosen(both, certificate), Some(SCRAM_SHA_256_PLUS));
        assert_eq!(chosen(both, None), Some(SCRAM_SHA_256));
        let plain = b"SCRAM-SHA-256\0\0";
        assert_eq!(chosen(plain, certificate), Some(SCRAM_SHA_256));
        // It must not be used without binding.
        assert_eq!(chosen(b"SCRAM-SHA-256-PLUS\0\0", None), None);
        assert_eq!(chosen(b"SCRAM-SHA-1\0OAUTHBEARER\0\0", certificate), None);
        assert_eq!(chosen(b"SCRAM-SHA-256", certificate), None);
    }
}
