//! The sockets of `[listen]`, the caps on clients and the instances of `[peers]`: their keys and values.
//! Must never open a socket, nor refuse a directory that is not there yet: a configuration may be checked elsewhere.

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::str::FromStr;
use std::time::Duration;

use toml::Spanned;
use toml::de::DeValue;

use super::check::Check;
use super::endpoint::{DEFAULT_PORT, Endpoint};
use super::leaf::Wait;
use super::model::{Config, Database, Listen, User};
use super::network::Network;
use super::reader::{Field, Leaf, Named, Reader};
use super::schema::{RawListen, RawPeer};

/// Highest `instance_id`: a cancel key has 6 bits for it (`wire::pid`).
pub const INSTANCE_MAX: u8 = 63;

/// What the kernel does about peers that vanish. `None` and 0: as the system has it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Tcp {
    /// Keepalive probes at all. Default on.
    pub keepalive: bool,
    /// Silence before the first probe. Default 60 s.
    pub keepidle: Option<Duration>,
    /// Between probes. Default 10 s.
    pub keepintvl: Option<Duration>,
    /// Unanswered probes before the connection is given up. Default 0.
    pub keepcnt: u32,
    /// How long sent bytes may stay unacknowledged. Default: as the system has it.
    pub user_timeout: Option<Duration>,
}

impl Default for Tcp {
    fn default() -> Self {
        Self {
            keepalive: true,
            keepidle: Some(Duration::from_secs(60)),
            keepintvl: Some(Duration::from_secs(10)),
            keepcnt: 0,
            user_timeout: None,
        }
    }
}

/// The unix socket `.s.PGSQL.PORT`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct UnixSocket {
    /// Where it is made.
    pub directory: PathBuf,
    /// Its permissions. Default 0o777.
    pub mode: u32,
    /// Its group, by name or number. Default: that of the process.
    pub group: Option<String>,
}

impl UnixSocket {
    /// Default of [`UnixSocket::mode`].
    pub const MODE: u32 = 0o777;
}

/// Permissions as chmod(1) takes them in octal.
#[derive(Debug)]
pub(super) struct Mode(pub(super) u32);

impl Leaf for Mode {
    fn read(reader: &mut Reader, path: &str, value: &Spanned<DeValue<'_>>) -> Option<Self> {
        const EXPECTED: &str = r#"permissions in octal such as "0777" or "0770", in quotes"#;
        let Some(text) = value.get_ref().as_str() else {
            reader.wrong_type(path, value, EXPECTED);
            return None;
        };
        let octal = (3..=4).contains(&text.len()) && text.bytes().all(|byte| (b'0'..=b'7').contains(&byte));
        let mode = u32::from_str_radix(text, 8).ok().filter(|mode| octal && *mode <= 0o777);
        if mode.is_none() {
            reader.wrong_value(path, value.span(), EXPECTED, None);
        }
        mode.map(Self)
    }
}

/// A list of networks; may be empty.
#[derive(Debug)]
pub(super) struct Networks(pub(super) Vec<Network>);

impl Leaf for Networks {
    fn read(reader: &mut Reader, path: &str, value: &Spanned<DeValue<'_>>) -> Option<Self> {
        let Some(items) = value.get_ref().as_array() else {
            reader.wrong_type(path, value, r#"a list of networks such as ["10.0.0.0/8"]"#);
            return None;
        };
        let mut networks = Vec::new();
        for item in items {
            match item.get_ref().as_str().map(Network::from_str) {
                Some(Ok(network)) => networks.push(network),
                Some(Err(error)) => reader.wrong_value(path, item.span(), &error.to_string(), None),
                None => reader.wrong_type(path, item, r#"a network such as "10.0.0.0/8""#),
            }
        }
        (networks.len() == items.len()).then_some(Self(networks))
    }
}

/// Where another instance of pgweir listens.
#[derive(Debug)]
pub(super) struct PeerAddress(pub(super) Endpoint);

impl Leaf for PeerAddress {
    fn read(reader: &mut Reader, path: &str, value: &Spanned<DeValue<'_>>) -> Option<Self> {
        let mut endpoint = Endpoint::read(reader, path, value)?;
        // An endpoint without a port is a PostgreSQL server's.
        let own_port = value.get_ref().as_str().is_some_and(|text| text.ends_with(&format!(":{DEFAULT_PORT}")));
        if endpoint.port == DEFAULT_PORT && !own_port {
            endpoint.port = Listen::default().port;
        }
        Some(Self(endpoint))
    }
}

/// The TCP settings of `[listen]`.
pub(super) fn tcp(raw: &RawListen) -> Tcp {
    let default = Tcp::default();
    let wait = |field: &Field<Wait>, default| match field {
        Field::Set(wait, _) => (!wait.0.is_zero()).then_some(wait.0),
        Field::Absent | Field::Bad => default,
    };
    Tcp {
        keepalive: if let Field::Set(on, _) = raw.tcp_keepalive { on } else { default.keepalive },
        keepidle: wait(&raw.tcp_keepidle, default.keepidle),
        keepintvl: wait(&raw.tcp_keepintvl, default.keepintvl),
        keepcnt: if let Field::Set(count, _) = &raw.tcp_keepcnt { count.0 } else { default.keepcnt },
        user_timeout: wait(&raw.tcp_user_timeout, default.user_timeout),
    }
}

impl Config {
    /// Most clients of `database` at one time, and the setting that says so.
    #[must_use]
    pub fn database_client_limit(&self, database: &Database) -> Option<(u32, &'static str)> {
        limit(database.max_client_connections, self.pool.max_db_client_connections, "max_db_client_connections")
    }

    /// Most clients of `user` at one time, and the setting that says so.
    #[must_use]
    pub fn user_client_limit(&self, user: &User) -> Option<(u32, &'static str)> {
        limit(user.max_client_connections, self.pool.max_user_client_connections, "max_user_client_connections")
    }
}

/// The limit of one name or else of all; 0 is none.
fn limit(own: Option<u32>, all: u32, name_of_all: &'static str) -> Option<(u32, &'static str)> {
    let limit = own.map_or((all, name_of_all), |own| (own, "max_client_connections"));
    (limit.0 > 0).then_some(limit)
}

impl Check<'_> {
    /// The unix socket of `[listen]`, and notes on TCP times that the kernel cannot take.
    pub(super) fn unix_socket(&mut self, raw: &RawListen) -> Option<UnixSocket> {
        for (name, field) in [("tcp_keepidle", &raw.tcp_keepidle), ("tcp_keepintvl", &raw.tcp_keepintvl)] {
            // MAX_TCP_KEEPIDLE and MAX_TCP_KEEPINTVL of the kernel's include/net/tcp.h.
            if let Field::Set(wait, span) = field
                && (wait.0.subsec_nanos() != 0 || wait.0 > Duration::from_secs(32_767))
            {
                let expected = r#"whole seconds, at most "32767s", or 0"#;
                self.reader.wrong_value(&format!("listen.{name}"), span.clone(), expected, None);
            }
        }
        let Field::Set(directory, span) = &raw.unix_socket_dir else { return None };
        let directory = self.outside.directory.join(&directory.0);
        // `Endpoint` has the bound on a socket's path. The longest port counts: 0 may become any.
        if Endpoint::new(&format!("/{}", directory.display().to_string().trim_start_matches('/')), u16::MAX).is_err() {
            let expected = "a shorter directory: a socket's path has at most 107 bytes";
            self.reader.wrong_value("listen.unix_socket_dir", span.clone(), expected, None);
        }
        Some(UnixSocket {
            directory,
            mode: if let Field::Set(mode, _) = &raw.unix_socket_mode { mode.0 } else { UnixSocket::MODE },
            group: if let Field::Set(group, _) = &raw.unix_socket_group { Some(group.0.clone()) } else { None },
        })
    }

    /// The other instances. One with the number of this one is left out: the same `[peers]` may
    /// then stand in the files of all.
    pub(super) fn peers(&mut self, raw: Field<Named<RawPeer>>, own: u8) -> BTreeMap<u8, Endpoint> {
        let mut peers = BTreeMap::new();
        for (name, span, raw) in raw.set().unwrap_or_default().0 {
            let Some(raw) = raw else { continue };
            let number = name.parse::<u8>().ok().filter(|n| *n <= INSTANCE_MAX && *n.to_string() == *name);
            let Some(number) = number else {
                let title = format!("`{name}` is no number of an instance");
                let expected = format!("the instance_id of the peer, 0 to {INSTANCE_MAX}, as in [peers.2]");
                self.reader.note(span, title, |problem| problem.expected(expected));
                continue;
            };
            if raw.address.is_absent() {
                let title = format!("peer {number} has no address");
                self.reader.note(span, title, |problem| problem.expected(r#"address = "host:6432""#));
            }
            if let Some(address) = raw.address.set()
                && number != own
            {
                peers.insert(number, address.0);
            }
        }
        peers
    }
}
