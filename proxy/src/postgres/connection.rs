//! From an accepted connection to a session: TLS, start-up, identity, backend.

use std::{net::SocketAddr, sync::Arc, time::Duration};

use bytes::{BufMut, Bytes, BytesMut};
use chaperone_audit_log::{
    Code, Digest, Name, RecordRef,
    payload::{LoginDenied, LoginDeniedSealed, SessionEnd, Strength},
};
use chaperone_contract::Session as Caller;
use tokio::{
    io::AsyncWriteExt,
    net::TcpStream,
    time::{Instant, timeout},
};
use tokio_rustls::TlsAcceptor;

use super::{
    protocol::{self, backend},
    refusal::{Refusal, sqlstate},
    session::{End, Grounds, Session},
    shared::{Backend, Shared},
    sockets::Sockets,
    start_settings,
    startup::{self, Opening, OpeningError, Parameters},
    stream::{self, Stream},
    upstream::{self, Login, UpstreamError},
};
use crate::{approval::BoxFuture, audit, metrics};

/// A caller that is let in to a target in a role.
#[derive(Debug)]
pub struct Admission {
    /// The session as policies see it.
    pub caller: Caller,
    /// The backend user that stands for the role.
    pub login: String,
    /// Its password, where it has one.
    pub password: Option<String>,
    /// SHA3-256 of the token.
    pub token: [u8; 32],
    /// How well the caller proved who it is.
    pub strength: Strength,
    /// When the identity ends, Unix seconds.
    pub expires_at: Option<u64>,
}

/// Why a caller is not let in.
#[derive(Debug, Clone)]
pub struct NotAdmitted {
    /// For the log, in clear.
    pub code: &'static str,
    /// For the operator; sealed.
    pub detail: String,
    /// Whether who it is was accepted, and only the role or target was not granted.
    pub authenticated: bool,
}

/// Tells who may come in, and as what.
pub trait Admit: Send + Sync {
    /// Checks the token, and that its bearer may use the role at the target.
    fn admit<'a>(
        &'a self,
        token: &'a str,
        target: &'a str,
        role: &'a str,
        client_address: &'a str,
    ) -> BoxFuture<'a, Result<Admission, NotAdmitted>>;
}

/// Everything that a new connection needs.
pub(crate) struct Front {
    pub(crate) shared: Arc<Shared>,
    pub(crate) admit: Arc<dyn Admit>,
    pub(crate) tls: Option<TlsAcceptor>,
    /// Tokens are taken in clear. Only for loopback.
    pub(crate) plaintext: bool,
    pub(crate) backends: Vec<Arc<Backend>>,
    /// Longest time from the connection to the session.
    pub(crate) login_timeout: Duration,
}

/// Why no session came of a connection.
enum Failed {
    /// Nothing more to say to the client.
    Silent(String),
    /// The client is told.
    Told(Stream, Refusal),
    /// The client is told in the backend's own words.
    Relayed(Stream, Bytes),
}

/// Serves one connection to its end.
pub(crate) async fn serve(front: Arc<Front>, tcp: TcpStream, peer: SocketAddr) {
    // One that is gone by now is found out when it is read.
    let _ = stream::prepare(&tcp, front.shared.rules.peer_timeout);
    let opened = timeout(front.login_timeout, open(&front, tcp, peer)).await;
    match opened {
        Err(_) => tracing::info!(client = %peer.ip(), "no session: the start-up took too long"),
        Ok(Ok(None)) => {}
        Ok(Ok(Some((mut session, started)))) => {
            let end = session.run().await;
            finish(&front, &mut session, started, &end).await;
        }
        Ok(Err(Failed::Silent(why))) => {
            tracing::info!(client = %peer.ip(), why, "no session");
        }
        Ok(Err(Failed::Told(stream, refusal))) => {
            tracing::info!(client = %peer.ip(), code = refusal.code, "no session");
            let mut out = BytesMut::new();
            refusal.write(&mut out, "FATAL");
            say_last(stream, &out).await;
        }
        Ok(Err(Failed::Relayed(stream, words))) => {
            tracing::info!(client = %peer.ip(), "no session: a setting is not taken");
            say_last(stream, &words).await;
        }
    }
}

async fn say_last(mut stream: Stream, words: &[u8]) {
    let _ = timeout(Duration::from_secs(5), async {
        stream.write_all(words).await?;
        stream.shutdown().await
    })
    .await;
}

async fn finish(front: &Front, session: &mut Session, started: RecordRef, end: &End) {
    let (cause, counted) = match end {
        End::Client => ("client", metrics::SessionEnd::Closed),
        End::Backend => ("backend", metrics::SessionEnd::Backend),
        End::Told(refusal) => (
            refusal.code.as_str(),
            match refusal.code.as_str() {
                "expired" => metrics::SessionEnd::IdentityEnded,
                "idle-timeout" => metrics::SessionEnd::Idle,
                "absolute-timeout" => metrics::SessionEnd::TooLong,
                "drained" => metrics::SessionEnd::Drained,
                "protocol" => metrics::SessionEnd::Protocol,
                _ => metrics::SessionEnd::Other,
            },
        ),
    };
    tracing::info!(cause, "session ended");
    let totals = session.totals;
    let record = SessionEnd {
        session: started,
        cause: Code::or_unprintable(cause),
        executions: totals.executions,
        denied: totals.denied,
        rows: totals.rows,
        bytes: totals.bytes,
    };
    session.count_end(counted);
    // Where the log has failed there is nobody left to tell.
    let _ = front.shared.audit.record(&record, None, None).await;
}

async fn open(
    front: &Front,
    tcp: TcpStream,
    peer: SocketAddr,
) -> Result<Option<(Session, RecordRef)>, Failed> {
    let silent = |error: OpeningError| Failed::Silent(error.to_string());
    let mut stream = Stream::Tcp(tcp);
    let parameters = loop {
        let opening = match startup::read_opening(&mut stream).await {
            Err(error @ OpeningError::Version(..)) => {
                let code = "protocol-version";
                let refusal = Refusal::new(sqlstate::NOT_UNDERSTOOD, code, error.to_string());
                return Err(Failed::Told(stream, refusal));
            }
            other => other.map_err(silent)?,
        };
        match opening {
            None => return Ok(None),
            Some(Opening::Cancel(key)) => {
                front.shared.cancels.request(&key);
                // Inside of TLS, libpq takes an end without close_notify for a failure.
                let _ = timeout(Duration::from_secs(5), stream.shutdown()).await;
                return Ok(None);
            }
            Some(Opening::GssEncryption) => answer(&mut stream, b'N').await?,
            Some(Opening::Ssl) => match (&front.tls, stream) {
                (Some(acceptor), Stream::Tcp(mut tcp)) => {
                    tcp.write_all(b"S")
                        .await
                        .map_err(|error| Failed::Silent(error.to_string()))?;
                    // Nothing was read beyond the request, so bytes that came in clear behind it
                    // meet the handshake, and end it.
                    let tls = acceptor
                        .accept(tcp)
                        .await
                        .map_err(|error| Failed::Silent(format!("TLS handshake: {error}")))?;
                    stream = Stream::Tls(Box::new(tls.into()));
                }
                (_, Stream::Tls(_)) => {
                    let why = "SSLRequest inside of TLS";
                    return Err(Failed::Silent(why.to_owned()));
                }
                (_, other) => {
                    stream = other;
                    answer(&mut stream, b'N').await?;
                }
            },
            Some(Opening::Startup(parameters)) => break parameters,
        }
    };
    start(front, stream, peer, parameters).await.map(Some)
}

async fn answer(stream: &mut Stream, byte: u8) -> Result<(), Failed> {
    let io = |error: std::io::Error| Failed::Silent(error.to_string());
    stream.write_all(&[byte]).await.map_err(io)?;
    stream.flush().await.map_err(io)
}

async fn start(
    front: &Front,
    mut stream: Stream,
    peer: SocketAddr,
    parameters: Parameters,
) -> Result<(Session, RecordRef), Failed> {
    if let Err(refusal) = acceptable(front, &stream, &parameters) {
        return Err(Failed::Told(stream, refusal));
    }
    let text = |name: &str| {
        parameters
            .get(name)
            .map(|value| String::from_utf8_lossy(value).into_owned())
    };
    let role = text("user").unwrap_or_default();
    let target = text("database").unwrap_or_else(|| role.clone());
    let address = peer.ip().to_string();
    let mut out = BytesMut::new();
    startup::negotiate(&mut out, &parameters);
    let io = |error: std::io::Error| Failed::Silent(error.to_string());
    stream.write_all(&out).await.map_err(io)?;
    let token = match startup::ask_password(&mut stream).await {
        Ok(Some(token)) => token,
        // psql goes away to ask its user for the password.
        Ok(None) => return Err(Failed::Silent("the client gave no token".to_owned())),
        Err(error) => return Err(Failed::Silent(error.to_string())),
    };
    let admitted = front.admit.admit(&token, &target, &role, &address).await;
    drop(token);
    let admission = match admitted {
        Ok(admission) => admission,
        Err(not) => {
            let refusal = denied(front, &not, &target, &role, &address).await;
            return Err(Failed::Told(stream, refusal));
        }
    };
    let Some(backend) = front.backends.iter().find(|b| *b.name == *target) else {
        let refusal = Refusal::new(
            sqlstate::INVALID_CATALOG_NAME,
            "no-such-target",
            "there is no target of this name",
        );
        return Err(Failed::Told(stream, refusal));
    };
    let caller = Arc::new(admission.caller);
    let harmless = &front.shared.rules.settings;
    let settings = start_settings::statements(&parameters, backend, harmless);
    for setting in &settings {
        let set = &front.shared.policies.load().set;
        if let Err(refusal) = start_settings::check(setting, harmless, set, &caller) {
            return Err(Failed::Told(stream, refusal));
        }
    }
    let login = Login {
        user: admission.login,
        password: admission.password,
        database: backend.database.clone(),
    };
    let upstream = match upstream::connect(&backend.endpoint, &login, &parameters).await {
        Ok(upstream) => upstream,
        Err(UpstreamError::Setting(words)) => return Err(Failed::Relayed(stream, words)),
        Err(error) => {
            tracing::error!(target = %backend.name, %error, "the backend takes no session");
            return Err(Failed::Told(stream, error.refusal()));
        }
    };
    let (clear, mut sealed) = audit::session_start(
        &caller,
        Digest(admission.token),
        Strength {
            tls: stream.is_tls().then(|| Name::new("tls")),
            ..admission.strength
        },
        Vec::new(),
        admission.expires_at,
    );
    sealed.parameters = parameters
        .list
        .iter()
        .map(|(name, value)| {
            (
                String::from_utf8_lossy(name).into_owned(),
                String::from_utf8_lossy(value).into_owned(),
            )
        })
        .collect();
    let record = match front.shared.audit.record(&clear, Some(&sealed), None).await {
        Ok(durable) => durable.record(),
        Err(_) => {
            let refusal = Refusal::new(
                sqlstate::LOG_UNAVAILABLE,
                "log-unavailable",
                "the audit log cannot be written; no session starts until it can",
            );
            return Err(Failed::Told(stream, refusal));
        }
    };
    let registered = front
        .shared
        .cancels
        .register(&backend.name, upstream.key.pid, parameters.secret_length())
        .map_err(|_| Failed::Silent("no randomness for a cancel key".to_owned()))?;
    let mut sockets = Sockets::new(stream, upstream.stream, upstream.rest);
    let out = sockets.to_client.buffer();
    protocol::message(out, backend::AUTHENTICATION, |out| out.put_u32(0));
    out.unsplit(upstream.greeting);
    protocol::message(out, backend::BACKEND_KEY_DATA, |out| {
        out.put_u32(registered.key.pid);
        out.put_slice(&registered.key.secret);
    });
    protocol::ready_for_query(out, b'I');
    sockets.to_client.mark(None);
    tracing::info!(target = %backend.name, role = caller.principal, client = address, "session started");
    let grounds = Grounds {
        expires_at: admission.expires_at.map(instant),
        caller,
        settings,
        backend: Arc::clone(backend),
        login,
        record,
        backend_key: upstream.key,
        registered,
    };
    Ok((
        Session::new(Arc::clone(&front.shared), grounds, sockets),
        record,
    ))
}

/// What can be said before anybody is asked who they are.
fn acceptable(front: &Front, stream: &Stream, parameters: &Parameters) -> Result<(), Refusal> {
    if !stream.is_tls() && !front.plaintext {
        return Err(Refusal::new(
            sqlstate::INVALID_AUTHORIZATION,
            "tls-required",
            "Chaperone takes tokens over TLS only",
        )
        .hint("connect with sslmode=require or stricter"));
    }
    let replication = parameters.get("replication").unwrap_or(b"false");
    if !matches!(replication, b"false" | b"off" | b"no" | b"0") {
        return Err(Refusal::new(
            sqlstate::NOT_UNDERSTOOD,
            "replication",
            "replication connections bypass policies and are not allowed",
        ));
    }
    Ok(())
}

async fn denied(
    front: &Front,
    not: &NotAdmitted,
    target: &str,
    role: &str,
    address: &str,
) -> Refusal {
    tracing::warn!(code = not.code, client = address, "log-in denied");
    front.shared.metrics.login_denied();
    let clear = LoginDenied {
        code: Code::or_unprintable(not.code),
        client_address: Name::new(address),
    };
    let sealed = LoginDeniedSealed {
        detail: not.detail.clone(),
        principal: Some(role.to_owned()),
        target: Some(target.to_owned()),
    };
    let _ = front.shared.audit.record(&clear, Some(&sealed), None).await;
    if not.authenticated {
        Refusal::new(
            sqlstate::INVALID_AUTHORIZATION,
            not.code,
            "this identity may not use this role at this target",
        )
        .hint(
            "user names the role and database the target; ask the operator what is granted to you",
        )
    } else {
        Refusal::new(
            "28P01",
            not.code,
            format!("the token is not accepted ({})", not.code),
        )
        .hint("give a valid token as the password")
    }
}

fn instant(unix: u64) -> Instant {
    let now = std::time::SystemTime::now()
        .duration_since(std::time::UNIX_EPOCH)
        .map_or(0, |time| time.as_secs());
    Instant::now() + Duration::from_secs(unix.saturating_sub(now))
}
