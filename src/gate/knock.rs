//! What a connection is before it is a session: TLS, GSS, cancel, or a startup message.
//! Must never act on a byte that came before the encryption it asked for
//! (CVE-2021-3935, CVE-2021-23214).

use std::io;
use std::net::SocketAddr;
use std::sync::Arc;

use tokio::sync::oneshot;
use tokio_rustls::{TlsAcceptor, TlsStream};

use super::caller::Caller;
use super::{Gate, login};
use crate::net::socket::{Plain, Socket};
use crate::net::tls::Listener;
use crate::relay::Seat;
use crate::server::stream::Stream;
use crate::wire::error::{PgError, SqlState};
use crate::wire::startup::{self, BadStartup, Packet, Startup};
use crate::worker::Mail;

/// First byte of a TLS handshake record.
const TLS_HANDSHAKE: u8 = 0x16;

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

/// Brings a new connection to the worker it belongs to, or to its end.
pub(super) async fn receive(gate: &Gate, plain: Plain, peer: SocketAddr, seat: Option<Seat>) {
    let mut stream = None;
    let uid = match &plain {
        Plain::Unix(stream) => stream.peer_cred().ok().map(|who| who.uid()),
        _ => None,
    };
    let mut caller = Caller { address: Some(peer.ip()), uid, tls: None };
    let outcome = match negotiate(gate, plain, &mut caller, &mut stream).await {
        Ok(Some(startup)) => login::login(gate, &mut stream, &caller, startup, seat).await,
        Ok(None) => Ok(()),
        Err(refusal) => Err(refusal),
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
                let _ = stream.send(&out).await;
            }
        }
    }
}

/// Negotiates until a startup message has come; `None` when the connection was about something
/// else. Whatever the stream is by then is left in `place`.
async fn negotiate(
    gate: &Gate,
    plain: Plain,
    caller: &mut Caller,
    place: &mut Option<Stream>,
) -> Result<Option<Startup>, Refusal> {
    let tls = gate.tls.borrow().clone();
    let require = gate.config().listen.client_tls_sslmode.demands_tls();
    let (mut asked_tls, mut asked_gss) = (false, false);
    let mut encrypted = false;
    if first_byte(&plain).await? == TLS_HANDSHAKE {
        let tls = tls.as_ref().ok_or_else(|| Refusal::Quiet("direct TLS, but TLS is not configured".into()))?;
        *place = Some(Stream::new(handshake(tls, plain, true).await?));
        caller.tls = Some(Arc::clone(tls));
        encrypted = true;
    } else {
        *place = Some(Stream::new(Socket::Plain(plain)));
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
                *place = Some(Stream::new(handshake(tls, plain, false).await?));
                caller.tls = Some(Arc::clone(tls));
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
                cancel(gate, pid, key).await;
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

async fn first_byte(plain: &Plain) -> io::Result<u8> {
    let Plain::Tcp(stream) = plain else { return Ok(0) };
    let mut one = [0u8; 1];
    match stream.peek(&mut one).await? {
        0 => Err(io::ErrorKind::UnexpectedEof.into()),
        _ => Ok(one[0]),
    }
}

/// Does the TLS handshake. Without a preceding SSLRequest (`direct`) the client must name the
/// protocol by ALPN, as PostgreSQL 17 demands.
async fn handshake(tls: &Listener, plain: Plain, direct: bool) -> Result<Socket, Refusal> {
    let accepted = TlsAcceptor::from(Arc::clone(&tls.config)).accept(plain).await?;
    if direct && accepted.get_ref().1.alpn_protocol() != Some(crate::net::tls::ALPN) {
        return Err(Refusal::Quiet("direct TLS without ALPN \"postgresql\"".into()));
    }
    Ok(Socket::Tls(Box::new(TlsStream::Server(accepted))))
}

/// Hands a cancel request to the worker that its process id names, and keeps the connection until
/// the server's answer: libpq takes the end of it for the end of the matter.
async fn cancel(gate: &Gate, pid: u32, key: Vec<u8>) {
    let Some(worker) = gate.workers.get((pid >> 24) as usize) else { return };
    let (done, wait) = oneshot::channel();
    if worker.send(Mail::Cancel { slot: pid & 0x00ff_ffff, key, done }).is_ok() {
        let _ = wait.await;
    }
}
