//! What is known of a connection before its user is: where from, and over what.
//! Must never be taken from what the client says of itself.

use std::net::IpAddr;
use std::sync::Arc;

use crate::net::tls::Listener;

/// Facts that rules look at.
#[derive(Clone, Debug)]
pub(super) struct Caller {
    /// Address; `None` on a unix socket.
    pub address: Option<IpAddr>,
    /// User id in the operating system; `None` over TCP.
    pub uid: Option<u32>,
    /// The certificate it was shown; `None` without TLS.
    pub tls: Option<Arc<Listener>>,
}

impl Caller {
    /// Whether nobody can listen on the way.
    pub fn is_private(&self) -> bool {
        self.tls.is_some() || self.address.is_none()
    }

    /// Its name in the operating system.
    pub fn system_user(&self) -> Option<String> {
        let uid = nix::unistd::Uid::from_raw(self.uid?);
        nix::unistd::User::from_uid(uid).ok().flatten().map(|user| user.name)
    }
}
