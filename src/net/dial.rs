//! Opens a plain connection to a server.
//! Must never decide how long that may take: the caller bounds it.

use std::io;
use std::path::Path;
use std::time::Duration;

use socket2::{SockRef, TcpKeepalive};
use tokio::net::{TcpStream, UnixStream};

use super::socket::Plain;

/// Connects over TCP, trying every address the name resolves to.
///
/// # Errors
/// The last address's error, or that the name does not resolve.
pub async fn tcp(host: &str, port: u16, keepalive: bool) -> io::Result<Plain> {
    let stream = TcpStream::connect((host, port)).await?;
    tune(&stream, keepalive)?;
    Ok(Plain::Tcp(stream))
}

/// Connects to `.s.PGSQL.<port>` in `directory`, as libpq does.
///
/// # Errors
/// What the system says.
pub async fn unix(directory: &Path, port: u16) -> io::Result<Plain> {
    Ok(Plain::Unix(UnixStream::connect(directory.join(format!(".s.PGSQL.{port}"))).await?))
}

/// No delay, and keepalive probes after a minute of silence so that a peer that vanished is noticed.
///
/// # Errors
/// What the system says.
pub fn tune(stream: &TcpStream, keepalive: bool) -> io::Result<()> {
    stream.set_nodelay(true)?;
    if keepalive {
        let probes = TcpKeepalive::new().with_time(Duration::from_secs(60)).with_interval(Duration::from_secs(10));
        SockRef::from(stream).set_tcp_keepalive(&probes)?;
    }
    Ok(())
}
