//! Who is at the other end of a connection, as far as the system or a trusted proxy says.
//! Must never be taken from what the client itself sends.

use std::fmt;
use std::net::{IpAddr, SocketAddr};

use tokio::net::unix::UCred;

/// The other end of a client's connection.
#[derive(Clone, Copy, Debug)]
pub(super) enum Peer {
    /// Over TCP, from the address in the PROXY header where one was demanded.
    Tcp(SocketAddr),
    /// Over the unix socket: whoever had connected it, if the system knows.
    Unix(Option<UCred>),
}

impl Peer {
    /// Its address; `None` on a unix socket.
    pub(super) fn address(&self) -> Option<IpAddr> {
        match self {
            Self::Tcp(address) => Some(address.ip().to_canonical()),
            Self::Unix(_) => None,
        }
    }

    /// Its user id in the operating system; `None` over TCP.
    #[allow(dead_code, reason = "for the authentication method `peer`")]
    pub(super) fn uid(&self) -> Option<u32> {
        match self {
            Self::Tcp(_) => None,
            Self::Unix(who) => who.map(|who| who.uid()),
        }
    }
}

impl fmt::Display for Peer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Tcp(address) => address.fmt(f),
            Self::Unix(Some(who)) => match who.pid() {
                Some(pid) => write!(f, "unix socket, uid {}, process {pid}", who.uid()),
                None => write!(f, "unix socket, uid {}", who.uid()),
            },
            Self::Unix(None) => f.write_str("unix socket"),
        }
    }
}
