//! Accepts connections, as many as there are places for.
//! Must never read a byte of a connection, nor accept without a bound.

use std::cell::Cell;
use std::io;
use std::net::{IpAddr, SocketAddr};
use std::rc::Rc;
use std::time::Duration;

use rustix::net::{SocketFlags, acceptfrom_with};
use tokio::io::Interest;
use tokio::io::unix::AsyncFd;

use super::peer::Peer;
use super::rate::{Rate, neighbourhood};
use super::shortage::Shortage;
use super::{Gate, knock};
use crate::config::Tcp;
use crate::net::dial;
use crate::net::listen::{Listener, SocketFile};
use crate::net::plain::Plain;
use crate::relay::Seat;
use crate::wire::error::{PgError, SqlState};

/// Connections beyond `max_client_conn` that are listened to: for cancel requests, and to be told
/// that there is no room.
const STANDING: u32 = 100;
/// How long each of them may take.
const STANDING_LIMIT: Duration = Duration::from_secs(5);
/// Clients turned away in one go when there are no descriptors.
const TURNED_AWAY: usize = 64;

/// A listening socket on the gate's reactor.
pub(super) enum Door {
    /// With the settings that connections inherit from it.
    Tcp(AsyncFd<std::net::TcpListener>, Cell<Tcp>),
    /// The file is removed when the door closes.
    Unix(tokio::net::UnixListener, #[allow(dead_code, reason = "removes the file")] Option<SocketFile>),
}

impl Door {
    /// Puts a listening socket on this thread's reactor.
    ///
    /// # Errors
    /// What the system says.
    pub(super) fn new(listener: Listener, settings: &Tcp) -> io::Result<Self> {
        Ok(match listener {
            Listener::Tcp(listener) => {
                dial::tune(&listener, settings)?;
                #[allow(deprecated, reason = "its successor is unsafe; std's listener never changes its descriptor")]
                let listener = AsyncFd::with_interest(listener, Interest::READABLE)?;
                Self::Tcp(listener, Cell::new(*settings))
            }
            Listener::Unix(listener, file) => Self::Unix(tokio::net::UnixListener::from_std(listener)?, file),
        })
    }

    /// The next connection; over TCP with these settings, which it inherits without a system call.
    async fn next(&self, settings: &Tcp) -> io::Result<(Plain, Peer)> {
        match self {
            Self::Tcp(listener, tuned) => {
                if tuned.get() != *settings {
                    dial::tune(listener.get_ref(), settings)?;
                    tuned.set(*settings);
                }
                let flags = SocketFlags::NONBLOCK | SocketFlags::CLOEXEC;
                let accept = |listener: &std::net::TcpListener| Ok(acceptfrom_with(listener, flags)?);
                let (fd, peer) = listener.async_io(Interest::READABLE, accept).await?;
                let peer = peer.and_then(|peer| SocketAddr::try_from(peer).ok());
                let peer = peer.ok_or(io::ErrorKind::ConnectionAborted)?;
                Ok((Plain::LooseTcp(fd.into()), Peer::Tcp(peer)))
            }
            Self::Unix(listener, _) => {
                let (stream, _) = listener.accept().await?;
                let who = stream.peer_cred().ok();
                Ok((Plain::Unix(stream), Peer::Unix(who)))
            }
        }
    }
}

/// Accepts until aborted.
pub(super) async fn accept(gate: Rc<Gate>, door: Door) {
    let mut shortage = Shortage::new();
    loop {
        match door.next(&gate.config().listen.tcp).await {
            Ok((plain, peer)) => {
                shortage.over();
                admit(&gate, plain, peer);
            }
            // The peer was gone before we came to it.
            Err(error) if error.kind() == io::ErrorKind::ConnectionAborted => {}
            Err(error) => {
                if shortage.wait(&error).await {
                    turn_away(&gate, &door, &mut shortage).await;
                }
            }
        }
    }
}

/// Gives a connection its place and starts its login, or closes it.
fn admit(gate: &Rc<Gate>, plain: Plain, peer: Peer) {
    gate.registry.accepts.add(1);
    let config = gate.config();
    let mut proxied = false;
    if let Some(address) = peer.address() {
        proxied = config.listen.proxy_protocol.iter().any(|network| network.contains(address));
        // Whom a proxy brings is not known yet.
        if !proxied && !in_time(gate, address) {
            return;
        }
    }
    let seat = Seat::take(&gate.seats, config.listen.max_client_conn);
    let standing = if seat.is_none() { Seat::take(&gate.standing, STANDING) } else { None };
    if seat.is_none() && standing.is_none() {
        gate.registry.refused.add(1);
        return;
    }
    let limit = config.listen.client_login_timeout;
    let limit = if seat.is_none() { limit.min(STANDING_LIMIT) } else { limit };
    let gate = Rc::clone(gate);
    tokio::task::spawn_local(async move {
        let _standing = standing;
        Box::pin(knock::receive(&gate, plain, peer, proxied, seat, limit)).await;
    });
}

/// Whether `connection_rate_per_address` has room for one more from there. What is beyond is
/// closed without a word, before TLS: anything else would cost more than the connection costs
/// whoever opens it.
pub(super) fn in_time(gate: &Gate, address: IpAddr) -> bool {
    let Some(rate) = Rate::of(gate.config().listen.connection_rate_per_address) else { return true };
    let has_room = gate.connections.take(neighbourhood(address), rate);
    if !has_room {
        gate.registry.refused.add(1);
        tracing::debug!(%address, "connection closed: more than connection_rate_per_address");
    }
    has_room
}

/// Answers those in the queue with the spare descriptor.
async fn turn_away(gate: &Gate, door: &Door, shortage: &mut Shortage) {
    // PostgreSQL's own words for it.
    let error = PgError::fatal(SqlState::TOO_MANY_CONNECTIONS, "sorry, too many clients already")
        .detail("pgweir has no file descriptors left.")
        .hint("Raise the limit of open files (LimitNOFILE, ulimit -n), or lower max_client_conn.");
    let mut out = Vec::new();
    error.encode(&mut out);
    for _ in 0..TURNED_AWAY {
        if !shortage.spend() {
            break;
        }
        // Does not wait: those who come later have their own second.
        let next = tokio::time::timeout(Duration::ZERO, door.next(&gate.config().listen.tcp)).await;
        let turned_away = match next {
            Ok(Ok((plain, peer))) => {
                gate.registry.accepts.add(1);
                gate.registry.refused.add(1);
                tracing::debug!(%peer, "connection closed: no descriptors left");
                plain.say(&out);
                true
            }
            Ok(Err(_)) | Err(_) => false,
        };
        shortage.regain(turned_away);
        if !turned_away {
            break;
        }
    }
    shortage.regain(false);
}
