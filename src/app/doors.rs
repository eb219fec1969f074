//! Opens every socket that pgweir listens on, or takes those it was given.
//! Must never open one of them after a thread was started: inherited descriptors have one owner.

use std::fmt;
use std::io;
use std::net::{SocketAddr, TcpListener};

use crate::config::{Config, UnixSocket};
use crate::net::inherit::inherited;
use crate::net::listen::{self, Listener};

/// Connections that the system may hold for the statistics.
const STATS_BACKLOG: u32 = 128;

/// Everything that listens.
#[derive(Debug)]
pub(super) struct Doors {
    pub(super) clients: Vec<Listener>,
    pub(super) stats: Option<TcpListener>,
}

/// Where it was not possible to listen, and why.
#[derive(Debug)]
pub struct NotListening {
    place: String,
    why: io::Error,
}

impl fmt::Display for NotListening {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "cannot listen on {}: {}", self.place, self.why)
    }
}

impl std::error::Error for NotListening {}

/// Sockets given by systemd stand in for those of `[listen]`, and one named `stats` for that of
/// `[stats]`; what was not given is opened.
pub(super) fn open(config: &Config) -> Result<Doors, NotListening> {
    let given = inherited().map_err(|why| at("the sockets of the service manager", why))?;
    let clients = if given.clients.is_empty() { own(config)? } else { given.clients };
    let stats = match (given.stats, config.stats.address) {
        (Some(given), _) => Some(guarded(given, config)?),
        (None, Some(address)) => Some(listen::tcp(address, STATS_BACKLOG, false).map_err(|why| at(address, why))?),
        (None, None) => None,
    };
    for listener in &clients {
        tracing::info!("listening for clients on {}", name(listener));
    }
    Ok(Doors { clients, stats })
}

/// The configuration does not say where a socket is that was given: whether it may be there is seen only now.
fn guarded(given: TcpListener, config: &Config) -> Result<TcpListener, NotListening> {
    let address = given.local_addr().map_err(|why| at("the socket `stats` of the service manager", why))?;
    if !address.ip().to_canonical().is_loopback() && config.stats.tokens.is_empty() {
        let why = "anybody who reaches it could read everything there; configure [stats.tokens.NAME], or have it on 127.0.0.1";
        return Err(at(format!("{address}, the socket `stats` of the service manager"), io::Error::other(why)));
    }
    Ok(given)
}

fn own(config: &Config) -> Result<Vec<Listener>, NotListening> {
    let listen = &config.listen;
    let mut listeners = Vec::new();
    let mut port = listen.port;
    for &address in &listen.address {
        let address = SocketAddr::new(address, listen.port);
        let socket = listen::tcp(address, listen.listen_backlog, listen.so_reuseport);
        let socket = socket.map_err(|why| at(address, why))?;
        if port == 0 {
            port = socket.local_addr().map_err(|why| at(address, why))?.port();
        }
        listeners.push(Listener::Tcp(socket));
    }
    if let Some(settings) = &listen.unix_socket {
        let UnixSocket { directory, .. } = settings;
        let place = directory.join(format!(".s.PGSQL.{port}"));
        let socket = listen::unix(settings, port, listen.listen_backlog);
        listeners.push(socket.map_err(|why| at(place.display(), why))?);
    }
    Ok(listeners)
}

fn at(place: impl fmt::Display, why: io::Error) -> NotListening {
    NotListening { place: place.to_string(), why }
}

/// What a listener is called: its address and port, or the path of its socket.
pub(super) fn name(listener: &Listener) -> String {
    match listener {
        Listener::Tcp(listener) => listener.local_addr().map_or_else(|_| "?".into(), |address| address.to_string()),
        Listener::Unix(listener, _) => {
            let path = listener
                .local_addr()
                .ok()
                .and_then(|address| address.as_pathname().map(|path| path.display().to_string()));
            path.unwrap_or_else(|| "an unnamed unix socket".into())
        }
    }
}
