//! What a connection is before it is a session: PROXY header, TLS, GSS, cancel, or a startup message.
//! Must never act on a byte that came before the encryption it asked for
//! (CVE-2021-3935, CVE-2021-23214).

use std::io;
use std::sync::Arc;
use std::time::Duration;

use tokio::time::{Instant, timeout, timeout_at};

use super::caller::Caller;
use super::peer::Peer;
use super::{Gate, accept, cancel, login, proxied};
use crate::net::plain::Plain;
use crate::net::socket::Socket;
use crate::net::tls::Listener;
use crate::relay::Seat;
use crate::server::stream::Stream;
use crate::wire::error::{PgError, SqlState};
use crate::wire::startup::{self, BadStartup, Packet, Startup};

/// First byte of a TLS handshake record.
const TLS_HANDSHAKE: u8 = 0x16;
/// How long a refused client may take to read why.
const LAST_WORDS: Duration = Duration::from_secs(5);

/// Why a connection ends before its session.
#[derive(Debug)]
pub(super) enum Refusal {
    /// It is broken, or not worth a word.
    Quiet(String),
    /// The client is told.
    Told(PgError),
}

impl From<io::Error> for Refusal {
    fn from(error: io::Error) -> Self {
        Self::Quiet(error.to_string())
    }
}

impl From<BadStartup> for Refusal {
    fn from(bad: BadStartup) -> Self {
        match bad {
            // What sends such lengths speaks no PostgreSQL and would not understand an answer.
            BadStartup::Length => Self::Quiet(bad.to_string()),
            BadStartup::Version(..) => Self::Told(PgError::fatal(SqlState::FEATURE_NOT_SUPPORTED, bad.to_string())),
            BadStartup::Layout => Self::Told(PgError::fatal(SqlState::PROTOCOL_VIOLATION, bad.to_string())),
        }
    }
}

/// Brings a new connection to the worker it belongs to, or to its end, within `limit`. When
/// `proxied` it must begin with a PROXY header.
pub(super) async fn receive(
    gate: &Gate,
    plain: Plain,
    mut peer: Peer,
    proxied: bool,
    seat: Option<Seat>,
    limit: Duration,
) {
    let until = Instant::now() + limit;
    let mut stream = None;
    let mut tls = None;
    // Whoever has said nothing yet is told nothing, as with PostgreSQL (StartupPacketTimeoutHandler
    // in src/backend/tcop/backend_startup.c).
    let begun = timeout_at(until, Box::pin(begin(gate, plain, &mut peer, proxied, &mut tls, &mut stream))).await;
    let outcome = match begun {
        Ok(Ok(Some(startup))) => {
            let caller = Caller { peer, tls, proxied };
            let login = login::login(gate, &mut stream, &caller, startup, seat);
            timeout_at(until, Box::pin(login)).await.unwrap_or_else(|_| Err(too_late()))
        }
        Ok(Ok(None)) => Ok(()),
        Ok(Err(refusal)) => Err(refusal),
        Err(_) => Err(Refusal::Quiet("nothing was asked for within client_login_timeout".into())),
    };
    match outcome {
        Ok(()) => {}
        Err(Refusal::Quiet(why)) => tracing::debug!(%peer, "connection refused: {why}"),
        Err(Refusal::Told(error)) => {
            gate.registry.refused.add(1);
            tracing::info!(%peer, "connection refused: {error}");
            if let Some(stream) = &mut stream {
                let mut out = Vec::new();
                error.encode(&mut out);
                let _ = timeout(LAST_WORDS, stream.send(&out)).await;
            }
        }
    }
}

/// In PostgreSQL's words (ProcessInterrupts in src/backend/tcop/postgres.c).
fn too_late() -> Refusal {
    let what = "canceling authentication due to timeout";
    Refusal::Told(PgError::fatal(SqlState::QUERY_CANCELED, what).hint("The limit is client_login_timeout."))
}

/// Learns from the PROXY header, if there must be one, who the peer is, and negotiates.
async fn begin(
    gate: &Gate,
    mut plain: Plain,
    peer: &mut Peer,
    proxied: bool,
    shown: &mut Option<Arc<Listener>>,
    place: &mut Option<Stream>,
) -> Result<Option<Startup>, Refusal> {
    if proxied {
        plain.settle()?;
    }
    if let (true, Plain::Tcp(stream)) = (proxied, &mut plain) {
        let source = proxied::read(stream).await?;
        *peer = source.map_or(*peer, Peer::Tcp);
        if source.is_some_and(|source| !accept::in_time(gate, source.ip())) {
            return Err(Refusal::Quiet("more than connection_rate_per_address".into()));
        }
    }
    negotiate(gate, plain, peer, shown, place).await
}

/// Negotiates until a startup message has come; `None` when the connection was about something
/// else. Whatever the stream is by then is left in `place`.
async fn negotiate(
    gate: &Gate,
    plain: Plain,
    peer: &Peer,
    shown: &mut Option<Arc<Listener>>,
    place: &mut Option<Stream>,
) -> Result<Option<Startup>, Refusal> {
    // As with PostgreSQL, there is no TLS on a unix socket, and nothing that would need it.
    let is_unix = matches!(peer, Peer::Unix(_));
    let tls = if is_unix { None } else { gate.tls.borrow().clone() };
    let require = !is_unix && gate.config().listen.client_tls_sslmode.demands_tls();
    let (mut asked_tls, mut asked_gss) = (false, false);
    let mut encrypted = false;
    let stream = place.insert(Stream::new(Socket::Plain(plain)));
    // Where there is no TLS, whoever begins one has sent the length of no startup packet.
    if let Some(tls) = &tls
        && stream.next_tag().await? == TLS_HANDSHAKE
        && let Some((Socket::Plain(plain), begun)) = place.take().map(Stream::into_parts)
    {
        *place = Some(Stream::new(gate.aside.handshake(Arc::clone(tls), plain, Some(begun)).await?));
        *shown = Some(Arc::clone(tls));
        encrypted = true;
    }
    loop {
        let stream = place.as_mut().ok_or_else(|| Refusal::Quiet("lost".into()))?;
        let packet = stream.packet::<Refusal>(|bytes| Ok(startup::length(bytes)?)).await?;
        match Packet::parse(&packet)? {
            Packet::Ssl if asked_tls || encrypted => {
                return Err(Refusal::Told(PgError::fatal(SqlState::PROTOCOL_VIOLATION, "TLS was negotiated already")));
            }
            Packet::Ssl => {
                asked_tls = true;
                if stream.has_unread() {
                    let what = "received unencrypted data after SSL request";
                    return Err(Refusal::Told(PgError::fatal(SqlState::PROTOCOL_VIOLATION, what)));
                }
                let Some(tls) = &tls else {
                    stream.send(b"N").await?;
                    continue;
                };
                stream.send(b"S").await?;
                let Some((Socket::Plain(plain), unread)) = place.take().map(Stream::into_parts) else {
                    return Err(Refusal::Quiet("TLS in TLS".into()));
                };
                debug_assert!(unread.is_empty());
                *place = Some(Stream::new(gate.aside.handshake(Arc::clone(tls), plain, None).await?));
                *shown = Some(Arc::clone(tls));
                encrypted = true;
            }
            Packet::GssEnc if asked_gss || encrypted => {
                return Err(Refusal::Told(PgError::fatal(SqlState::PROTOCOL_VIOLATION, "GSSAPI was refused already")));
            }
            Packet::GssEnc => {
                asked_gss = true;
                if stream.has_unread() {
                    let what = "received unencrypted data after GSSAPI encryption request";
                    return Err(Refusal::Told(PgError::fatal(SqlState::PROTOCOL_VIOLATION, what)));
                }
                stream.send(b"N").await?;
            }
            Packet::Cancel { pid, key } => {
                cancel::cancel(gate, peer, stream, pid, key).await;
                return Ok(None);
            }
            Packet::Startup(startup) => {
                if require && !encrypted {
                    let error = PgError::fatal(SqlState::INVALID_AUTHORIZATION, "pgweir: TLS is required here")
                        .hint("Connect with sslmode=require or stronger.");
                    return Err(Refusal::Told(error));
                }
                return Ok(Some(startup));
            }
        }
    }
}
