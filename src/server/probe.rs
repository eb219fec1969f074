//! Asks whether a PostgreSQL server answers, without logging in.
//! Must never leave more in the server's log than a healthy client does.

use std::io;
use std::path::Path;
use std::time::Duration;

use super::stream::Stream;
use crate::config::{Endpoint, Host, Tcp};
use crate::net::dial;
use crate::net::socket::Socket;
use crate::wire::{build, startup};

/// Connects and asks for TLS: the postmaster answers one byte, whatever it thinks of it. Ending
/// the connection then is something it does not log (ProcessStartupPacket, `ssl_done`).
///
/// # Errors
/// No connection or no answer within `limit`.
pub async fn probe(endpoint: &Endpoint, limit: Duration) -> io::Result<()> {
    let ask = async {
        let plain = match &endpoint.host {
            Host::Tcp(host) => dial::tcp(host, endpoint.port, &Tcp::default()).await?,
            Host::Unix(directory) => return unix(directory, endpoint.port).await,
            Host::Unknown => return Err(dial::unknown()),
        };
        let mut stream = Stream::new(Socket::Plain(plain));
        let mut request = Vec::new();
        build::untagged(&mut request, |out| out.extend_from_slice(&startup::SSL.to_be_bytes()));
        stream.send(&request).await?;
        stream.byte().await.map(|_| ())
    };
    tokio::time::timeout(limit, ask).await.unwrap_or_else(|_| Err(io::ErrorKind::TimedOut.into()))
}

async fn unix(directory: &Path, port: u16) -> io::Result<()> {
    dial::unix(directory, port).await.map(|_| ())
}
