//! Asks a server to cancel what a connection of ours is running, or another pgweir to have it asked.
//! Must never return before the other side has closed the cancel connection: only then can the
//! signal no longer hit what runs next (`reference/defects.md` entry 20).

use std::io;

use super::open::{BackendKey, Dial, Encrypt, OpenError};
use super::stream::Stream;
use crate::config::{Endpoint, Host, Tcp};
use crate::net::dial;
use crate::net::socket::Socket;
use crate::wire::build;

/// What an instance answers to a request that was passed on to it, before it closes the
/// connection, when it knows no such key. PostgreSQL answers nothing to anybody; between instances
/// it must be known, because each bounds how often its own clients may be wrong.
pub const NOBODY: u8 = b'N';

/// What became of a request that was passed on.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum PassedOn {
    /// The instance knew the key and has done what there was to do.
    Taken,
    /// The key is nobody's there.
    Nobody,
}

/// Sends a CancelRequest and waits until the server has closed the connection.
///
/// # Errors
/// The server could not be reached; nothing was cancelled.
pub async fn cancel(dial: &Dial, key: &BackendKey) -> Result<(), OpenError> {
    let work = async {
        // Sent in plain, as libpq did until version 17: a server reads it before any rule about TLS.
        let mut stream = Stream::new(dial.connect(Encrypt::No).await?);
        let mut request = Vec::new();
        build::cancel(&mut request, key.pid, &key.secret);
        stream.send(&request).await?;
        stream.closed().await;
        Ok(())
    };
    let timed_out = || OpenError::Io(io::ErrorKind::TimedOut.into());
    tokio::time::timeout(dial.timeout, work).await.unwrap_or_else(|_| Err(timed_out()))
}

/// Hands a request to the instance at `peer` and waits until that has closed the connection. How
/// long that may take is for the caller to say.
///
/// # Errors
/// The instance could not be reached.
pub async fn pass_on(peer: &Endpoint, tcp: &Tcp, pid: u32, key: &[u8]) -> io::Result<PassedOn> {
    let plain = match &peer.host {
        Host::Tcp(host) => dial::tcp(host, peer.port, tcp).await?,
        Host::Unix(directory) => dial::unix(directory, peer.port).await?,
        Host::Unknown => return Err(dial::unknown()),
    };
    let mut stream = Stream::new(Socket::Plain(plain));
    let mut request = Vec::new();
    build::cancel(&mut request, pid, key);
    stream.send(&request).await?;
    let outcome = match stream.byte().await {
        Ok(NOBODY) => PassedOn::Nobody,
        Ok(_) | Err(_) => PassedOn::Taken,
    };
    stream.closed().await;
    Ok(outcome)
}
