//! Sockets handed over by systemd, or by whoever speaks its protocol (sd_listen_fds(3)).
//! Must never be asked twice, nor after another thread was started: descriptors have one owner.

use std::io;
use std::net::TcpListener;

use listenfd::ListenFd;

use super::listen::Listener;

/// More are a mistake.
const SOCKETS_MAX: usize = 64;
/// `FileDescriptorName=` of the socket for statistics.
const STATS: &str = "stats";

/// What was handed over.
#[derive(Debug, Default)]
pub struct Inherited {
    /// For clients.
    pub clients: Vec<Listener>,
    /// For statistics: the one named so.
    pub stats: Option<TcpListener>,
}

/// Takes the sockets that were handed over to this process; none if there are none.
///
/// # Errors
/// One of them is no listening TCP or unix stream socket; says which.
pub fn inherited() -> io::Result<Inherited> {
    let variable = |name: &str| std::env::var(name).unwrap_or_default();
    let mut inherited = Inherited::default();
    // They may be meant for a parent of ours, whose environment we have.
    if variable("LISTEN_PID") != std::process::id().to_string() {
        return Ok(inherited);
    }
    let count = variable("LISTEN_FDS").parse().unwrap_or(0);
    let names = variable("LISTEN_FDNAMES");
    if count > SOCKETS_MAX {
        return Err(io::Error::other(format!("LISTEN_FDS is {count}, at most {SOCKETS_MAX} are taken")));
    }
    let mut sockets = ListenFd::from_env();
    for number in 0..count {
        let name = names.split(':').nth(number).unwrap_or_default();
        let wrong = |error: io::Error| io::Error::new(error.kind(), format!("socket {number} of LISTEN_FDS: {error}"));
        if let Ok(Some(listener)) = sockets.take_unix_listener(number) {
            listener.set_nonblocking(true).map_err(wrong)?;
            inherited.clients.push(Listener::Unix(listener, None));
        } else if let Some(listener) = sockets.take_tcp_listener(number).map_err(wrong)? {
            listener.set_nonblocking(true).map_err(wrong)?;
            match name {
                STATS => inherited.stats = Some(listener),
                _ => inherited.clients.push(Listener::Tcp(listener)),
            }
        }
    }
    for listener in &inherited.clients {
        if !listens(listener)? {
            return Err(io::Error::other("a socket of LISTEN_FDS does not listen (Accept=yes in the socket unit?)"));
        }
    }
    Ok(inherited)
}

fn listens(listener: &Listener) -> io::Result<bool> {
    match listener {
        Listener::Tcp(listener) => socket2::SockRef::from(listener).is_listener(),
        Listener::Unix(listener, _) => socket2::SockRef::from(listener).is_listener(),
    }
}
