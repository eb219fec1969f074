//! What is known of a connection before its user is: where from, and over what.
//! Must never be taken from what the client says of itself.

use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;

use super::aside::Aside;
use super::peer::Peer;
use crate::net::tls::Listener;

/// Facts that rules look at.
#[derive(Clone, Debug)]
pub(super) struct Caller {
    /// Who it is to the system, or to a trusted proxy.
    pub peer: Peer,
    /// TLS as it was offered; `None` without.
    pub tls: Option<Arc<Listener>>,
    /// The peer is known from a PROXY header only.
    pub proxied: bool,
}

impl Caller {
    /// Address; `None` on a unix socket.
    pub fn address(&self) -> Option<IpAddr> {
        self.peer.address()
    }

    /// Where it comes from, if only a PROXY header says so and not the socket.
    pub fn proxied(&self) -> Option<SocketAddr> {
        match self.peer {
            Peer::Tcp(address) if self.proxied => Some(address),
            Peer::Tcp(_) | Peer::Unix(_) => None,
        }
    }

    /// Whether nobody can listen on the way.
    pub fn is_private(&self) -> bool {
        self.tls.is_some() || self.address().is_none()
    }

    /// Its name in the operating system, which may ask the network for it: never on the gate's own thread.
    pub async fn system_user(&self, aside: &Aside) -> Option<String> {
        let uid = nix::unistd::Uid::from_raw(self.peer.uid()?);
        let found = aside.compute(move || nix::unistd::User::from_uid(uid)).await;
        found.ok()?.ok().flatten().map(|user| user.name)
    }
}
