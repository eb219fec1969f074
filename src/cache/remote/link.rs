//! Connections to Redis: to one server, to the master that sentinels name, to all nodes of a cluster.
//! Must never wait by itself: who asks says for how long.
//!
//! The `redis` crate does the work: requests of all tasks are under way on one connection at once, in a cluster on one per node,
//! and it follows the cluster's redirections. What it does not do here is to wait, to connect again, or to decide that a server is gone.

use std::path::PathBuf;
use std::time::Duration;
use std::{fs, io};

use redis::aio::MultiplexedConnection;
use redis::cluster::{ClusterClient, ClusterClientBuilder};
use redis::cluster_async::ClusterConnection;
use redis::cluster_routing::{MultipleNodeRoutingInfo, RoutingInfo};
use redis::sentinel::{SentinelClient, SentinelClientBuilder, SentinelServerType};
use redis::{
    AsyncConnectionConfig, Client, ClientTlsConfig, Cmd, ConnectionAddr, ConnectionInfo, ErrorKind, IntoConnectionInfo,
    RedisConnectionInfo, RedisError, RedisResult, ServerErrorKind, TlsCertificates, TlsMode,
};

use super::time::Skew;
use crate::base::clock::now_us;
use crate::base::secret::Secret;
use crate::config::{Endpoint, Host, Redis, RedisMode};

/// How long the crate itself may take to connect to one server.
const CONNECT: Duration = Duration::from_secs(1);

const REMOVE_IF: &str = "
local value = redis.call('GET', KEYS[1])
if value and string.sub(value, 1, #ARGV[1]) == ARGV[1] then return redis.call('DEL', KEYS[1]) end
return 0";

/// As SET with NX and GET, but in the place of what has such a part, too.
const REPLACE: &str = "
local value = redis.call('GET', KEYS[1])
local from = tonumber(ARGV[1])
if value and string.sub(value, from + 1, from + #ARGV[2]) ~= ARGV[2] then return value end
redis.call('SET', KEYS[1], ARGV[3], 'PX', ARGV[4])
return false";

/// How Redis is reached.
pub struct Plan(Kind);

enum Kind {
    Single(Box<Client>),
    Sentinel(Box<SentinelClient>),
    Cluster(Box<ClusterClient>),
}

/// A connection that many may use at once.
#[derive(Clone)]
pub enum Link {
    /// To one server.
    One(MultiplexedConnection),
    /// To the nodes of a cluster.
    Many(ClusterConnection),
}

impl Plan {
    /// As the configuration has it; reads the files that it names.
    ///
    /// # Errors
    /// A file cannot be read or used.
    pub fn new(config: &Redis) -> RedisResult<Self> {
        let certificates = if config.tls { Some(certificates(config)?) } else { None };
        let mut hosts = config.hosts.iter().map(|at| address(at, config.tls));
        let login = login(config.user.as_deref(), config.password.as_ref()).set_db(config.database.into());
        let at = |address: ConnectionAddr| -> RedisResult<ConnectionInfo> {
            Ok(address.into_connection_info()?.set_redis_settings(login.clone()))
        };
        Ok(Self(match config.mode {
            RedisMode::Single => {
                let host = hosts.next().ok_or((ErrorKind::InvalidClientConfig, "no host"))?;
                Kind::Single(Box::new(match certificates {
                    Some(certificates) => Client::build_with_tls(at(host)?, certificates)?,
                    None => Client::open(at(host)?)?,
                }))
            }
            RedisMode::Sentinel => {
                let name = config.master_name.as_deref().unwrap_or_default();
                let builder = SentinelClientBuilder::new(hosts, name, SentinelServerType::Master)?;
                Kind::Sentinel(Box::new(sentinel(builder, config, certificates).build()?))
            }
            RedisMode::Cluster => {
                let nodes = hosts.map(at).collect::<RedisResult<Vec<_>>>()?;
                // Redirected twice, as while a slot moves, and then told that it was an error. How long it all may take is for who asks.
                let mut builder = ClusterClientBuilder::new(nodes)
                    .retries(2)
                    .min_retry_wait(0)
                    .max_retry_wait(1)
                    .connection_timeout(CONNECT)
                    .response_timeout(config.timeout.max(CONNECT))
                    .overall_response_timeout(None);
                if let Some(user) = &config.user {
                    builder = builder.username(user);
                }
                if let Some(password) = &config.password {
                    builder = builder.password(password.expose());
                }
                if let Some(certificates) = certificates {
                    builder = builder.tls(TlsMode::Secure).certs(certificates);
                }
                Kind::Cluster(Box::new(builder.build()?))
            }
        }))
    }

    /// Connects and logs in.
    ///
    /// # Errors
    /// Nobody is there, or does not let us in.
    pub async fn connect(self) -> RedisResult<Link> {
        let config = AsyncConnectionConfig::new().set_connection_timeout(Some(CONNECT)).set_response_timeout(None);
        Ok(match self.0 {
            Kind::Single(client) => Link::One(client.get_multiplexed_async_connection_with_config(&config).await?),
            Kind::Sentinel(mut client) => Link::One(client.get_async_connection_with_config(&config).await?),
            Kind::Cluster(client) => Link::Many(client.get_async_connection().await?),
        })
    }
}

fn sentinel(
    mut builder: SentinelClientBuilder,
    config: &Redis,
    certificates: Option<TlsCertificates>,
) -> SentinelClientBuilder {
    builder = builder.set_client_to_redis_db(config.database.into());
    if let Some(user) = &config.user {
        builder = builder.set_client_to_redis_username(user);
    }
    if let Some(password) = &config.password {
        builder = builder.set_client_to_redis_password(password.expose());
    }
    if let Some(user) = &config.sentinel_user {
        builder = builder.set_client_to_sentinel_username(user);
    }
    if let Some(password) = &config.sentinel_password {
        builder = builder.set_client_to_sentinel_password(password.expose());
    }
    match certificates {
        None => builder,
        Some(certificates) => builder
            .set_client_to_redis_tls_mode(TlsMode::Secure)
            .set_client_to_redis_certificates(certificates.clone())
            .set_client_to_sentinel_tls_mode(TlsMode::Secure)
            .set_client_to_sentinel_certificates(certificates),
    }
}

fn login(user: Option<&str>, password: Option<&Secret>) -> RedisConnectionInfo {
    // What the library calls itself is one more round trip, and one more command that a user would have to be allowed.
    let mut login = RedisConnectionInfo::default().set_skip_set_lib_name();
    if let Some(user) = user {
        login = login.set_username(user);
    }
    if let Some(password) = password {
        login = login.set_password(password.expose());
    }
    login
}

fn address(at: &Endpoint, tls: bool) -> ConnectionAddr {
    let host = match &at.host {
        Host::Tcp(host) => host.clone(),
        // The configuration has none of these.
        Host::Unix(_) | Host::Unknown => String::new(),
    };
    if tls {
        ConnectionAddr::TcpTls { host, port: at.port, insecure: false, tls_params: None }
    } else {
        ConnectionAddr::Tcp(host, at.port)
    }
}

fn certificates(config: &Redis) -> RedisResult<TlsCertificates> {
    let read = |path: &PathBuf| {
        fs::read(path).map_err(|error| io::Error::new(error.kind(), format!("{}: {error}", path.display())))
    };
    let client_tls = match (&config.tls_cert_file, &config.tls_key_file) {
        (Some(cert), Some(key)) => Some(ClientTlsConfig { client_cert: read(cert)?, client_key: read(key)? }),
        _ => None,
    };
    Ok(TlsCertificates { client_tls, root_cert: config.tls_ca_file.as_ref().map(read).transpose()? })
}

impl Link {
    /// The value of a name, if there is one.
    ///
    /// # Errors
    /// Redis refuses, or is gone.
    pub async fn get(&mut self, name: &str) -> RedisResult<Option<Vec<u8>>> {
        let cmd = Cmd::get(name);
        match self {
            Self::One(link) => cmd.query_async(link).await,
            Self::Many(link) => cmd.query_async(link).await,
        }
    }

    /// The value of a name; if there is none it has this one from now on, for so many milliseconds.
    ///
    /// # Errors
    /// As for [`Link::get`]; before Redis 7.0 always.
    pub async fn get_or_set(&mut self, name: &str, value: &[u8], for_ms: u64) -> RedisResult<Option<Vec<u8>>> {
        let cmd = redis::cmd("SET").arg(name).arg(value).arg("NX").arg("GET").arg("PX").arg(for_ms).take();
        match self {
            Self::One(link) => cmd.query_async(link).await,
            Self::Many(link) => cmd.query_async(link).await,
        }
    }

    /// The same, but what has this part from this byte on is taken for none.
    ///
    /// # Errors
    /// As for [`Link::get`].
    pub async fn replace(
        &mut self,
        name: &str,
        (from, part): (usize, &[u8]),
        value: &[u8],
        for_ms: u64,
    ) -> RedisResult<Option<Vec<u8>>> {
        let mut cmd = redis::cmd("EVAL");
        cmd.arg(REPLACE).arg(1).arg(name).arg(from).arg(part).arg(value).arg(for_ms);
        match self {
            Self::One(link) => cmd.query_async(link).await,
            Self::Many(link) => cmd.query_async(link).await,
        }
    }

    /// Takes the value of a name away if it begins like this.
    ///
    /// # Errors
    /// As for [`Link::get`].
    pub async fn remove_if(&mut self, name: &str, front: &[u8]) -> RedisResult<()> {
        let cmd = redis::cmd("EVAL").arg(REMOVE_IF).arg(1).arg(name).arg(front).take();
        match self {
            Self::One(link) => cmd.query_async(link).await,
            Self::Many(link) => cmd.query_async(link).await,
        }
    }

    /// Gives a name a value, for so many milliseconds.
    ///
    /// # Errors
    /// As for [`Link::get`].
    pub async fn set(&mut self, name: &str, value: &[u8], for_ms: u64) -> RedisResult<()> {
        let cmd = Cmd::pset_ex(name, value, for_ms);
        match self {
            Self::One(link) => cmd.query_async(link).await,
            Self::Many(link) => cmd.query_async(link).await,
        }
    }

    /// Takes the value of a name away.
    ///
    /// # Errors
    /// As for [`Link::get`].
    pub async fn remove(&mut self, name: &str) -> RedisResult<()> {
        let cmd = Cmd::del(name);
        match self {
            Self::One(link) => cmd.query_async(link).await,
            Self::Many(link) => cmd.query_async(link).await,
        }
    }

    /// The scores of these members of a sorted set, of those that are there.
    ///
    /// # Errors
    /// As for [`Link::get`].
    pub async fn scores(&mut self, name: &str, members: &[&str]) -> RedisResult<Vec<Option<f64>>> {
        let cmd = redis::cmd("ZMSCORE").arg(name).arg(members).take();
        match self {
            Self::One(link) => cmd.query_async(link).await,
            Self::Many(link) => cmd.query_async(link).await,
        }
    }

    /// All members of a sorted set, with their scores.
    ///
    /// # Errors
    /// As for [`Link::get`].
    pub async fn members(&mut self, name: &str) -> RedisResult<Vec<(String, f64)>> {
        let cmd = redis::cmd("ZRANGE").arg(name).arg(0).arg(-1).arg("WITHSCORES").take();
        match self {
            Self::One(link) => cmd.query_async(link).await,
            Self::Many(link) => cmd.query_async(link).await,
        }
    }

    /// Gives members of a sorted set these scores, but for those that have a greater one, and then counts that at another of its members.
    ///
    /// # Errors
    /// As for [`Link::get`]; some may have been done.
    pub async fn raise(&mut self, name: &str, scores: &[(u64, String)], count: &str) -> RedisResult<()> {
        let mut both = redis::pipe();
        both.cmd("ZADD").arg(name).arg("GT").arg(scores).ignore();
        both.cmd("ZINCRBY").arg(name).arg(1).arg(count).ignore();
        match self {
            Self::One(link) => both.query_async(link).await,
            Self::Many(link) => both.query_async(link).await,
        }
    }

    /// Takes members out of a sorted set.
    ///
    /// # Errors
    /// As for [`Link::get`].
    pub async fn dismiss(&mut self, name: &str, members: &[String]) -> RedisResult<()> {
        let cmd = redis::cmd("ZREM").arg(name).arg(members).take();
        match self {
            Self::One(link) => cmd.query_async(link).await,
            Self::Many(link) => cmd.query_async(link).await,
        }
    }

    /// Redis' clock: of all masters, where there are several.
    ///
    /// # Errors
    /// As for [`Link::get`], of any of them.
    pub async fn skew(&mut self) -> RedisResult<Skew> {
        let cmd = redis::cmd("TIME");
        let sent_us = now_us();
        let times: Vec<(u64, u64)> = match self {
            Self::One(link) => vec![cmd.query_async(link).await?],
            Self::Many(link) => {
                let all = RoutingInfo::MultiNode((MultipleNodeRoutingInfo::AllMasters, None));
                let told: Vec<(String, (u64, u64))> = redis::from_redis_value(link.route_command(cmd, all).await?)?;
                told.into_iter().map(|(_, time)| time).collect()
            }
        };
        let received_us = now_us();
        let skews = times.into_iter().map(|(seconds, micros)| {
            Skew::new(sent_us, seconds.saturating_mul(1_000_000).saturating_add(micros), received_us)
        });
        skews
            .reduce(Skew::and)
            .ok_or_else(|| (ErrorKind::UnexpectedReturnType, "no server says what time it is").into())
    }

    /// Whether this connection is of no further use, as the error says.
    pub fn is_lost(&self, error: &RedisError) -> bool {
        // That of a cluster connects again by itself, to whom it has to.
        matches!(self, Self::One(_))
            && (error.is_io_error() || error.kind() == ErrorKind::Server(ServerErrorKind::ReadOnly))
    }
}

/// Whether Redis does not know what was asked, or that may not be asked.
pub fn is_not_understood(error: &RedisError) -> bool {
    error.code().is_some_and(|code| matches!(code, "ERR" | "NOPERM"))
}

/// Whether Redis says that it has no room, and nothing else is wrong.
pub fn is_full(error: &RedisError) -> bool {
    error.code() == Some("OOM")
}
