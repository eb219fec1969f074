//! Opens a plain connection to a server.
//! Must never decide how long that may take: the caller bounds it.

use std::io;
use std::os::fd::AsFd;
use std::path::Path;
use std::time::Duration;

use socket2::{SockRef, TcpKeepalive};
use tokio::net::{TcpStream, UnixStream};

use super::plain::Plain;
use crate::config::Tcp;

/// Longest `TCP_USER_TIMEOUT`: the kernel takes milliseconds in a signed 32-bit number (tcp(7)).
const USER_TIMEOUT_MAX: Duration = Duration::from_millis(i32::MAX as u64);

/// Connects over TCP, trying every address the name resolves to.
///
/// # Errors
/// The last address's error, or that the name does not resolve.
pub async fn tcp(host: &str, port: u16, settings: &Tcp) -> io::Result<Plain> {
    let stream = TcpStream::connect((host, port)).await?;
    tune(&stream, settings)?;
    Ok(Plain::Tcp(stream))
}

/// Connects to `.s.PGSQL.<port>` in `directory`, as libpq does.
///
/// # Errors
/// What the system says.
pub async fn unix(directory: &Path, port: u16) -> io::Result<Plain> {
    Ok(Plain::Unix(UnixStream::connect(directory.join(format!(".s.PGSQL.{port}"))).await?))
}

/// Why nobody can connect to a server of which it is not known where it is.
#[must_use]
pub fn unknown() -> io::Error {
    io::Error::new(io::ErrorKind::NotFound, "none of the database's servers has been found yet")
}

/// No delay, and the kernel's means against peers that vanish, so that they are noticed. Connections
/// inherit what is set on the socket that listens for them (tcp(7)).
///
/// # Errors
/// What the system says.
pub fn tune(stream: &impl AsFd, settings: &Tcp) -> io::Result<()> {
    let socket = SockRef::from(stream);
    socket.set_tcp_nodelay(true)?;
    if settings.keepalive {
        let mut probes = TcpKeepalive::new();
        if let Some(idle) = settings.keepidle {
            probes = probes.with_time(idle);
        }
        if let Some(interval) = settings.keepintvl {
            probes = probes.with_interval(interval);
        }
        if settings.keepcnt > 0 {
            probes = probes.with_retries(settings.keepcnt);
        }
        socket.set_tcp_keepalive(&probes)?;
    }
    if let Some(limit) = settings.user_timeout {
        socket.set_tcp_user_timeout(Some(limit.min(USER_TIMEOUT_MAX)))?;
    }
    Ok(())
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;

    /// What was asked for is in force on the socket; 0 leaves what the system has.
    #[tokio::test]
    async fn settings_reach_the_socket() {
        let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
        let port = listener.local_addr().unwrap().port();
        let ask = async |settings: Tcp| {
            let Plain::Tcp(stream) = tcp("127.0.0.1", port, &settings).await.unwrap() else { panic!("no TCP") };
            let socket = SockRef::from(&stream);
            let times = (socket.tcp_keepalive_time().unwrap(), socket.tcp_keepalive_interval().unwrap());
            (
                socket.keepalive().unwrap(),
                times,
                socket.tcp_keepalive_retries().unwrap(),
                socket.tcp_user_timeout().unwrap(),
            )
        };
        let system = Tcp { keepalive: true, keepidle: None, keepintvl: None, keepcnt: 0, user_timeout: None };
        let (on, (idle, interval), count, limit) = ask(system).await;
        assert!(on && limit.is_none());
        let chosen = Tcp {
            keepalive: true,
            keepidle: Some(idle + Duration::from_secs(1)),
            keepintvl: Some(interval + Duration::from_secs(2)),
            keepcnt: count + 3,
            user_timeout: Some(Duration::from_millis(4321)),
        };
        let times = (idle + Duration::from_secs(1), interval + Duration::from_secs(2));
        assert_eq!(ask(chosen).await, (true, times, count + 3, Some(Duration::from_millis(4321))));
        let endless = Tcp { user_timeout: Some(Duration::from_secs(365 * 86_400)), ..system };
        assert_eq!(ask(endless).await.3, Some(USER_TIMEOUT_MAX));
        assert!(!ask(Tcp { keepalive: false, ..chosen }).await.0);
    }
}
