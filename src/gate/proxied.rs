//! Reads the PROXY header of a connection from a trusted proxy.
//! Must never take a byte behind the header off the socket: what follows may be a TLS handshake.

use std::io;
use std::net::SocketAddr;

use tokio::io::AsyncReadExt;
use tokio::net::TcpStream;

use crate::net::proxy::{self, Parsed, V2_MAX};

/// The client's address by the header; `None` when the proxy speaks for itself.
///
/// # Errors
/// No valid header, or the connection ended.
pub(super) async fn read(stream: &mut TcpStream) -> io::Result<Option<SocketAddr>> {
    let mut header = Vec::new();
    let mut ahead = vec![0; V2_MAX];
    loop {
        let seen = stream.peek(&mut ahead).await?;
        if seen == 0 {
            return Err(io::ErrorKind::UnexpectedEof.into());
        }
        let before = header.len();
        header.extend_from_slice(ahead.get(..seen).unwrap_or_default());
        let parsed = proxy::parse(&header).map_err(|bad| io::Error::new(io::ErrorKind::InvalidData, bad))?;
        // All of an incomplete header belongs to it and can be taken, so that the next look waits
        // for something new.
        let take = match parsed {
            Parsed::Incomplete => seen,
            Parsed::Complete { length, .. } => length.saturating_sub(before),
        };
        let taken = ahead.get_mut(..take).ok_or(io::ErrorKind::InvalidData)?;
        stream.read_exact(taken).await?;
        if let Parsed::Complete { source, .. } = parsed {
            return Ok(source);
        }
    }
}
