//! Where a PostgreSQL server listens: a host and port, or the directory of a unix socket.
//! Must never resolve a name: a configuration is checked without the network.

use std::fmt;
use std::net::Ipv6Addr;
use std::path::{Path, PathBuf};
use std::str::FromStr;

/// PostgreSQL's own default port.
pub const DEFAULT_PORT: u16 = 5432;

/// Longest path of a unix socket in bytes: `sun_path` of Linux' `sockaddr_un` has 108 with
/// the closing zero (unix(7)).
const SOCKET_PATH_MAX: usize = 107;

/// What stands before the port.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Host {
    /// A host name or IP address; an IPv6 address without its brackets.
    Tcp(String),
    /// The directory of a unix socket, an absolute path.
    Unix(PathBuf),
    /// Nowhere as yet: of a database whose servers are to be found out, while none is known.
    Unknown,
}

/// One PostgreSQL server.
///
/// Written as `host:port`, `host`, `[::1]:5432`, `/var/run/postgresql` or `/dir:5433`; the
/// port defaults to 5432. `Display` writes what `FromStr` reads, but for [`Endpoint::UNKNOWN`].
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Endpoint {
    /// Host or socket directory.
    pub host: Host,
    /// TCP port, or the number in the name of the socket.
    pub port: u16,
}

/// Why a text is no [`Endpoint`]; reads as the end of "expected …".
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{0}")]
pub struct EndpointError(&'static str);

const FORM: EndpointError =
    EndpointError(r#""host", "host:port", "[::1]:port", "/socket/directory" or "/socket/directory:port""#);
const PORT: EndpointError = EndpointError("a port from 1 to 65535 after the colon");
const BRACKETS: EndpointError = EndpointError("an IPv6 address in brackets, such as [::1]:5432");
const NOT_A_URL: EndpointError =
    EndpointError(r#"only "host:port"; the database goes to `dbname`, the login to `user` and `password`"#);
const TOO_LONG: EndpointError = EndpointError("a shorter directory: a socket's path has at most 107 bytes");

impl Endpoint {
    /// What stands for the servers of a database while none of them is known.
    pub const UNKNOWN: Self = Self { host: Host::Unknown, port: 0 };

    /// The socket file when this is a unix socket: `DIR/.s.PGSQL.PORT`
    /// (PostgreSQL: `UNIXSOCK_PATH` in `src/include/libpq/pqcomm.h`).
    #[must_use]
    pub fn socket_path(&self) -> Option<PathBuf> {
        match &self.host {
            Host::Tcp(_) | Host::Unknown => None,
            Host::Unix(dir) => Some(socket_path(dir, self.port)),
        }
    }

    /// A checked endpoint from a host or directory and a port given apart.
    ///
    /// # Errors
    /// When the host can be neither a name, an address nor a directory.
    pub fn new(host: &str, port: u16) -> Result<Self, EndpointError> {
        if port == 0 {
            return Err(PORT);
        }
        if host.starts_with('/') {
            let dir = PathBuf::from(host);
            let length = socket_path(&dir, port).as_os_str().len();
            let host = Host::Unix(dir);
            return if length > SOCKET_PATH_MAX { Err(TOO_LONG) } else { Ok(Self { host, port }) };
        }
        if host.contains(':') && host.parse::<Ipv6Addr>().is_err() {
            return Err(BRACKETS);
        }
        let strange = |c: char| c.is_whitespace() || c.is_control() || "/@,[]?#=".contains(c);
        if host.is_empty() || host.contains(strange) {
            return Err(FORM);
        }
        Ok(Self { host: Host::Tcp(host.to_owned()), port })
    }
}

fn socket_path(dir: &Path, port: u16) -> PathBuf {
    dir.join(format!(".s.PGSQL.{port}"))
}

fn parse_port(text: &str) -> Result<u16, EndpointError> {
    // `u16::from_str` would accept a sign.
    let digits = text.bytes().all(|b| b.is_ascii_digit());
    text.parse().ok().filter(|port| digits && *port != 0).ok_or(PORT)
}

impl FromStr for Endpoint {
    type Err = EndpointError;

    fn from_str(text: &str) -> Result<Self, EndpointError> {
        if text.contains("://") {
            return Err(NOT_A_URL);
        }
        if let Some(rest) = text.strip_prefix('[') {
            let (address, after) = rest.split_once(']').ok_or(BRACKETS)?;
            let address: Ipv6Addr = address.parse().map_err(|_| BRACKETS)?;
            let port = match after.strip_prefix(':') {
                Some(port) => parse_port(port)?,
                None if after.is_empty() => DEFAULT_PORT,
                None => return Err(FORM),
            };
            return Self::new(&address.to_string(), port);
        }
        match text.rsplit_once(':') {
            // A directory may have a colon of its own; only digits after it are a port.
            Some((dir, port)) if text.starts_with('/') => match parse_port(port) {
                Ok(port) => Self::new(dir, port),
                Err(_) => Self::new(text, DEFAULT_PORT),
            },
            Some((host, _)) if host.contains(':') => Err(BRACKETS),
            Some((host, port)) => Self::new(host, parse_port(port)?),
            None => Self::new(text, DEFAULT_PORT),
        }
    }
}

impl fmt::Display for Endpoint {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.host {
            Host::Tcp(host) if host.contains(':') => write!(f, "[{host}]:{}", self.port),
            Host::Tcp(host) => write!(f, "{host}:{}", self.port),
            Host::Unix(dir) => write!(f, "{}:{}", dir.display(), self.port),
            Host::Unknown => f.write_str("unknown"),
        }
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;

    #[test]
    fn forms() {
        let tcp = |host: &str, port| Endpoint { host: Host::Tcp(host.to_owned()), port };
        let unix = |dir: &str, port| Endpoint { host: Host::Unix(dir.into()), port };
        let cases = [
            ("db1:6000", tcp("db1", 6000)),
            ("db1.example.org", tcp("db1.example.org", 5432)),
            ("10.0.0.1:5433", tcp("10.0.0.1", 5433)),
            ("[::1]:5433", tcp("::1", 5433)),
            ("[fe80::2]", tcp("fe80::2", 5432)),
            ("/var/run/postgresql", unix("/var/run/postgresql", 5432)),
            ("/dir:5433", unix("/dir", 5433)),
            ("/odd:dir", unix("/odd:dir", 5432)),
        ];
        for (text, expected) in cases {
            let endpoint: Endpoint = text.parse().unwrap();
            assert_eq!(endpoint, expected, "{text}");
            assert_eq!(endpoint.to_string().parse::<Endpoint>().unwrap(), expected, "{text}");
        }
    }

    #[test]
    fn refused() {
        let cases = [
            ("", FORM),
            ("a b", FORM),
            ("host/db", FORM),
            ("h1,h2", FORM),
            ("[::1]5432", FORM),
            ("host:", PORT),
            ("host:0", PORT),
            ("host:65536", PORT),
            ("host:+5", PORT),
            ("::1", BRACKETS),
            ("[host]:5432", BRACKETS),
            ("postgres://host/db", NOT_A_URL),
        ];
        for (text, error) in cases {
            assert_eq!(text.parse::<Endpoint>(), Err(error), "{text}");
        }
        let long = format!("/{}", "d".repeat(95));
        assert_eq!(long.parse::<Endpoint>(), Err(TOO_LONG));
    }

    #[test]
    fn socket_file() {
        let endpoint: Endpoint = "/run/pg:5433".parse().unwrap();
        assert_eq!(endpoint.socket_path(), Some(PathBuf::from("/run/pg/.s.PGSQL.5433")));
    }
}
