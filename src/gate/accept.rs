//! Listening sockets.
//! Must never spin when the system has no descriptors left, nor accept without a bound.

use std::io;
use std::net::{IpAddr, SocketAddr, TcpListener};
use std::rc::Rc;
use std::time::Duration;

use socket2::{Domain, Protocol, Socket, Type};

use super::{Gate, knock};
use crate::net::dial;
use crate::net::socket::Plain;
use crate::relay::Seat;

/// Connections the system may hold for us before they are accepted. The kernel caps it at
/// net.core.somaxconn.
const BACKLOG: i32 = 4096;
/// Pause after the system refused to accept for want of descriptors or memory.
const PAUSE: Duration = Duration::from_millis(100);

/// Connections beyond `max_client_conn` that are listened to: for cancel requests, and to be told
/// that there is no room.
const STANDING: u32 = 100;
/// How long each of them may take.
const STANDING_LIMIT: Duration = Duration::from_secs(5);

/// Opens the listening socket for one address.
///
/// # Errors
/// What the system says.
pub fn bind(address: IpAddr, port: u16) -> io::Result<TcpListener> {
    let address = SocketAddr::new(address, port);
    let socket = Socket::new(Domain::for_address(address), Type::STREAM, Some(Protocol::TCP))?;
    if address.is_ipv6() {
        socket.set_only_v6(true)?;
    }
    socket.set_reuse_address(true)?;
    socket.set_nonblocking(true)?;
    socket.bind(&address.into())?;
    socket.listen(BACKLOG)?;
    Ok(socket.into())
}

/// Accepts until aborted.
pub(super) async fn accept(gate: Rc<Gate>, listener: tokio::net::TcpListener) {
    loop {
        match listener.accept().await {
            Ok((stream, peer)) => {
                gate.registry.accepts.add(1);
                let config = gate.config();
                if dial::tune(&stream, config.listen.tcp_keepalive).is_err() {
                    continue;
                }
                let seat = Seat::take(&gate.seats, config.listen.max_client_conn);
                let standing = if seat.is_none() { Seat::take(&gate.standing, STANDING) } else { None };
                if seat.is_none() && standing.is_none() {
                    gate.registry.refused.add(1);
                    continue;
                }
                let limit = config.listen.client_login_timeout;
                let limit = if seat.is_none() { limit.min(STANDING_LIMIT) } else { limit };
                let gate = Rc::clone(&gate);
                tokio::task::spawn_local(async move {
                    let _standing = standing;
                    let login = knock::receive(&gate, Plain::Tcp(stream), peer, seat);
                    if tokio::time::timeout(limit, Box::pin(login)).await.is_err() {
                        tracing::debug!(%peer, "login took longer than client_login_timeout");
                    }
                });
            }
            // The peer was gone before we came to it.
            Err(error) if error.kind() == io::ErrorKind::ConnectionAborted => {}
            Err(error) => {
                tracing::warn!("cannot accept connections for now: {error}");
                tokio::time::sleep(PAUSE).await;
            }
        }
    }
}
