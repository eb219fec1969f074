//! The validated configuration: what the rest of pgweir sees.
//! Must never hold a value that has not been checked, nor know how it was written.

use std::collections::BTreeMap;
use std::net::{IpAddr, Ipv4Addr};
use std::path::PathBuf;
use std::time::{Duration, SystemTime};

use super::alerts::Alerts;
use super::audit::Audit;
use super::auth::Auth;
use super::cache::Cache;
use super::console::Console;
use super::discover::Discover;
use super::doors::{Tcp, UnixSocket};
use super::encryption::{ChannelBinding, SslMode, TlsMode, TlsNegotiation};
use super::endpoint::Endpoint;
use super::invalidation::OwnInvalidation;
use super::lanes::Lanes;
use super::logging::Log;
use super::modes::{PoolMode, Roles, ServerOrder, SessionState, WaitAction};
use super::network::Network;
use super::password::Password;
use super::problem::Problems;
use super::reads::{Reads, Routing};
use super::rules::Steering;
use super::stats::{Measure, Stats};
use super::terms::Overrides;
use super::traces::Traces;
use super::words::words;

/// A whole configuration. Equality is what a reload compares; files named in it are compared by path only.
#[derive(Clone, Debug, PartialEq)]
pub struct Config {
    /// `[listen]`: how clients reach pgweir.
    pub listen: Listen,
    /// `[auth]`: who may come in, beyond [`Listen::auth_type`] and the users' passwords.
    pub auth: Auth,
    /// `[stats]`: metrics, health, the API and the dashboard over HTTP.
    pub stats: Stats,
    /// `[console]`: who may use the virtual database `pgweir`.
    pub console: Console,
    /// `[pool]`: defaults for all pools.
    pub pool: Pool,
    /// `[cache]`: answers that are kept.
    pub cache: Cache,
    /// `[alerts]`: what is worth waking somebody for.
    pub alerts: Alerts,
    /// `[audit]`; `None`: nothing is audited.
    pub audit: Option<Audit>,
    /// `[traces]`; `None`: nothing is traced.
    pub traces: Option<Traces>,
    /// `[log]`.
    pub log: Log,
    /// Worker threads; 0 (default): half the cores, at least one. At most 63.
    pub workers: usize,
    /// How long transactions may go on after SIGTERM or SIGINT. Default 30 s; 0: do not wait.
    pub shutdown_timeout: Duration,
    /// `[databases.NAME]`, by the name clients ask for. At least one.
    pub databases: BTreeMap<String, Database>,
    /// `[users.NAME]`, by the name clients log in with. At least one.
    pub users: BTreeMap<String, User>,
    /// `[peers.N]`: other instances to which cancel requests are passed on, by their `instance_id`.
    pub peers: BTreeMap<u8, Endpoint>,
    /// What can work and was hardly meant; to be shown to the operator.
    pub warnings: Problems,
}

impl Config {
    /// Default of [`Config::shutdown_timeout`].
    pub const SHUTDOWN_TIMEOUT: Duration = Duration::from_secs(30);
}

/// `[listen]`: how clients reach pgweir.
#[derive(Clone, Debug, PartialEq)]
pub struct Listen {
    /// Addresses to listen on, without duplicates, at least one. Default 127.0.0.1; `"*"`
    /// is 0.0.0.0 and ::, whose socket must then be IPv6 only.
    pub address: Vec<IpAddr>,
    /// TCP port. Default 6432; 0: the system chooses one.
    pub port: u16,
    /// Clients at one time, all databases together. Default 10000.
    pub max_client_conn: u32,
    /// From accept to the end of authentication. Default 60 s; never 0.
    pub client_login_timeout: Duration,
    /// How clients prove who they are. Default SCRAM-SHA-256.
    pub auth_type: AuthType,
    /// Whether clients use TLS. Default [`TlsMode::Disable`] without a certificate and
    /// [`TlsMode::Allow`] with one.
    pub client_tls_sslmode: TlsMode,
    /// Certificate chain for clients, PEM. Set whenever the mode is not `Disable`.
    pub client_tls_cert_file: Option<PathBuf>,
    /// Its private key, PEM. Set exactly when the certificate is.
    pub client_tls_key_file: Option<PathBuf>,
    /// Certificates that may sign clients', PEM. With it clients are asked for one.
    pub client_tls_ca_file: Option<PathBuf>,
    /// Largest message in bytes, length word included. Default [`Listen::MAX_PACKET_SIZE`].
    pub max_packet_size: u32,
    /// What the kernel does about peers that vanish, on client and server connections.
    pub tcp: Tcp,
    /// Connections that the system may hold for us before they are accepted. Default 4096.
    pub listen_backlog: u32,
    /// Several processes may listen on the same addresses. Default off.
    pub so_reuseport: bool,
    /// A unix socket besides. Default: none.
    pub unix_socket: Option<UnixSocket>,
    /// Addresses from which every connection must begin with a PROXY header. Default: none.
    pub proxy_protocol: Vec<Network>,
    /// New connections per second from one address. Default 0: no limit.
    pub connection_rate_per_address: u32,
    /// New sessions per second of one user. Default 0: no limit.
    pub connection_rate_per_user: u32,
    /// What cancel keys given out here say of their origin, 0 (default) to 63. Never changes
    /// while the program runs.
    pub instance_id: u8,
}

impl Listen {
    /// What PostgreSQL itself accepts: `PQ_LARGE_MESSAGE_LIMIT` (`src/include/libpq/libpq.h`)
    /// is `MaxAllocSize - 1`, and `MaxAllocSize` (`src/include/utils/memutils.h`) 0x3fffffff.
    pub const MAX_PACKET_SIZE: u32 = 0x3fff_fffe;
}

impl Default for Listen {
    fn default() -> Self {
        Self {
            address: vec![IpAddr::V4(Ipv4Addr::LOCALHOST)],
            port: 6432,
            max_client_conn: 10_000,
            client_login_timeout: Duration::from_secs(60),
            auth_type: AuthType::ScramSha256,
            client_tls_sslmode: TlsMode::Disable,
            client_tls_cert_file: None,
            client_tls_key_file: None,
            client_tls_ca_file: None,
            max_packet_size: Self::MAX_PACKET_SIZE,
            tcp: Tcp::default(),
            listen_backlog: 4096,
            so_reuseport: false,
            unix_socket: None,
            proxy_protocol: Vec::new(),
            connection_rate_per_address: 0,
            connection_rate_per_user: 0,
            instance_id: 0,
        }
    }
}

words! {
    /// How clients prove who they are. In all cases the user must be configured.
    pub enum AuthType {
        /// Not at all.
        Trust = "trust",
        /// MD5 challenge; SCRAM for a user whose password is a SCRAM verifier, as in PostgreSQL.
        Md5 = "md5",
        /// SCRAM-SHA-256.
        ScramSha256 = "scram-sha-256",
        /// The password itself, over TLS or a unix socket only.
        Password = "password",
        /// A client certificate whose common name is the user's.
        Cert = "cert",
        /// By the first rule of `[auth]` that fits.
        Hba = "hba",
    }
    refused {
        "any" => "logging in under any name",
        "ldap" => "LDAP",
        "pam" => "PAM",
    }
    renamed {
        "plain" => "password",
        "peer" => "hba",
    }
}

/// `[pool]`: defaults for all pools. `None` in a timeout is the `0` of the file: no limit.
#[derive(Clone, Debug, PartialEq)]
pub struct Pool {
    /// When a client gives its server back. Default [`PoolMode::Transaction`].
    pub pool_mode: PoolMode,
    /// What becomes of what a session leaves in its server. Default [`SessionState::Transparent`].
    pub session_state: SessionState,
    /// Clients of a pool that may each keep a server to themselves; 0 (default): no limit.
    pub max_pinned_servers: u32,
    /// A client that keeps a server and is idle this long outside a transaction is disconnected. Default: no limit.
    pub pin_idle_timeout: Option<Duration>,
    /// Connections to one server per database and user. Default 20.
    pub default_pool_size: u32,
    /// Connections kept open to each server of a pool. Default 0.
    pub min_pool_size: u32,
    /// Connections beyond the pool size for clients that wait long. Default 0.
    pub reserve_pool_size: u32,
    /// How long a client waits before the reserve is used. Default 5 s; never 0.
    pub reserve_pool_timeout: Duration,
    /// Connections to the servers of one database, all users together; 0 (default): no limit.
    pub max_db_connections: u32,
    /// Connections to servers for one user, all databases together; 0 (default): no limit.
    pub max_user_connections: u32,
    /// Connections of a pool that may be opened at the same time. Default 8.
    pub server_connect_burst: u32,
    /// Which server at rest is handed out first. Default LIFO.
    pub server_order: ServerOrder,
    /// Clients that may wait for a server of one pool; 0 (default): no limit.
    pub max_waiting_clients: u32,
    /// How long a client waits for a server before it gets an error. Default 120 s.
    pub query_wait_timeout: Option<Duration>,
    /// What becomes of a client that waited so long. Default: an error, and it lives on.
    pub query_wait_timeout_action: WaitAction,
    /// A client that waits longer is told by a NOTICE. Default 5 s.
    pub query_wait_notify: Option<Duration>,
    /// Connecting and logging in to a server. Default 15 s; never 0.
    pub server_connect_timeout: Duration,
    /// A server unused this long is closed. Default 600 s.
    pub server_idle_timeout: Option<Duration>,
    /// A server this old is closed once free. Default 3600 s. (PgBouncer reads 0 as "use once",
    /// here it is no limit.)
    pub server_lifetime: Option<Duration>,
    /// Upper bound of the growing pause after a failed login to a server. Default 15 s; never 0.
    pub server_login_retry: Duration,
    /// A client idle this long outside a transaction is disconnected. Default: no limit.
    pub client_idle_timeout: Option<Duration>,
    /// A client idle this long inside a transaction is disconnected. Default: no limit.
    pub idle_transaction_timeout: Option<Duration>,
    /// A transaction that takes longer is ended, with its client. Default: no limit.
    pub transaction_timeout: Option<Duration>,
    /// A request that takes longer on the server is cancelled. Default: no limit.
    pub query_timeout: Option<Duration>,
    /// A statement that takes as long, the wait for a server included, is shown and logged. Default 100 ms.
    pub slow_query: Option<Duration>,
    /// So many bytes of what such a statement was given are shown and logged with it. Default 0: nothing of that.
    pub slow_query_parameter_bytes: u32,
    /// Statements are measured one by one.
    pub stats: Measure,
    /// How often the plan of each shape is asked for. Default: never.
    pub plan_interval: Option<Duration>,
    /// How often a server of a database with several is asked what it is and how far it has come. Default 500 ms; never 0.
    pub check_interval: Duration,
    /// A server that takes longer to answer that is down. Default 5 s; never 0.
    pub check_timeout: Duration,
    /// How often is asked who the servers of a database with `discover` are. Default 5 s; at least 100 ms.
    pub discover_interval: Duration,
    /// Failures of a replica in a row after which it takes no reads for a while. Default 5; 0: never.
    pub breaker_failures: u32,
    /// How long that is at first; twice as long each time that it fails again. Default 1 s; never 0.
    pub breaker_pause: Duration,
    /// A replica that has come back gets more and more of its share for so long. Default 30 s; 0: all of it at once.
    pub slow_start: Duration,
    /// Where pgweir is: replicas of this zone come first. Default: nowhere.
    pub zone: Option<String>,
    /// How long a read waits for a replica to have what its client was shown by the primary. Default 10 ms; 0: not at all.
    pub read_wait: Duration,
    /// How long a client waits for a primary while there is none. Default 30 s; never 0.
    pub failover_wait: Duration,
    /// How often it is looked whether the code of a database has changed; `None`: it is not read.
    pub catalog_refresh: Option<Duration>,
    /// Servers that clients share.
    pub lanes: Lanes,
    /// Run on a server that a client of session mode has left. Default `DISCARD ALL`; may be empty.
    pub server_reset_query: String,
    /// Prepared statements kept on one server connection, least recently used ones closed
    /// first. Default 200; never 0, with which PgBouncer turns prepared statements off.
    pub max_prepared_statements: u32,
    /// The same limit in bytes of text, at least 4 KiB. Default 16 MiB.
    pub max_server_prepared_bytes: u32,
    /// Bytes of names and texts that one client has prepared, 64 per statement added; more is
    /// refused (54000). At least 4 KiB. Default 8 MiB: more than pgjdbc's cache of 5.
    pub max_client_prepared_bytes: u32,
    /// The same of all clients, shared texts once per worker. At least 4 KiB. Default 256 MiB.
    pub max_prepared_bytes: u32,
    /// Clients of one database at one time. Default 0: no limit.
    pub max_db_client_connections: u32,
    /// Clients of one user at one time, in all databases. Default 0: no limit.
    pub max_user_client_connections: u32,
}

impl Default for Pool {
    fn default() -> Self {
        Self {
            pool_mode: PoolMode::Transaction,
            session_state: SessionState::Transparent,
            max_pinned_servers: 0,
            pin_idle_timeout: None,
            default_pool_size: 20,
            min_pool_size: 0,
            reserve_pool_size: 0,
            reserve_pool_timeout: Duration::from_secs(5),
            max_db_connections: 0,
            max_user_connections: 0,
            server_connect_burst: 8,
            server_order: ServerOrder::Lifo,
            max_waiting_clients: 0,
            query_wait_timeout: Some(Duration::from_secs(120)),
            query_wait_timeout_action: WaitAction::Error,
            query_wait_notify: Some(Duration::from_secs(5)),
            server_connect_timeout: Duration::from_secs(15),
            server_idle_timeout: Some(Duration::from_secs(600)),
            server_lifetime: Some(Duration::from_secs(3600)),
            server_login_retry: Duration::from_secs(15),
            client_idle_timeout: None,
            idle_transaction_timeout: None,
            transaction_timeout: None,
            query_timeout: None,
            slow_query: Some(Duration::from_millis(100)),
            slow_query_parameter_bytes: 0,
            stats: Measure::On,
            plan_interval: None,
            check_interval: Duration::from_millis(500),
            check_timeout: Duration::from_secs(5),
            discover_interval: Duration::from_secs(5),
            breaker_failures: 5,
            breaker_pause: Duration::from_secs(1),
            slow_start: Duration::from_secs(30),
            zone: None,
            read_wait: Duration::from_millis(10),
            failover_wait: Duration::from_secs(30),
            catalog_refresh: Some(Duration::from_secs(60)),
            lanes: Lanes::default(),
            server_reset_query: "DISCARD ALL".to_owned(),
            max_prepared_statements: 200,
            max_server_prepared_bytes: 16 << 20,
            max_client_prepared_bytes: 8 << 20,
            max_prepared_bytes: 256 << 20,
            max_db_client_connections: 0,
            max_user_client_connections: 0,
        }
    }
}

/// `[databases.NAME]`: one database as clients see it, and the servers that hold it.
#[derive(Clone, Debug, PartialEq)]
pub struct Database {
    /// Name clients ask for.
    pub name: String,
    /// Its name on the servers. Default: `name`.
    pub dbname: String,
    /// The server that takes writes, as far as that is known without asking: the first of `hosts` where those are given.
    pub primary: Endpoint,
    /// The other servers; may be empty.
    pub replicas: Vec<Endpoint>,
    /// How it is found out who they are; then `primary` is one of them, or [`Endpoint::UNKNOWN`] while none is known.
    pub discover: Option<Discover>,
    /// Names that certificates of theirs must have, where that is not the host.
    pub tls_names: BTreeMap<Endpoint, String>,
    /// How it is known which of them takes writes. Default [`Roles::Found`].
    pub roles: Roles,
    /// Role to log in with on the servers for every client. Default: the client's own.
    pub user: Option<String>,
    /// Password of `user`, never a SCRAM verifier. Only set when `user` is.
    pub password: Option<Password>,
    /// What it sets for its pools.
    pub terms: Overrides,
    /// What ends the life of answers of its.
    pub invalidation: OwnInvalidation,
    /// Overrides `max_db_connections`.
    pub max_db_connections: Option<u32>,
    /// Overrides `max_db_client_connections` for this database; 0: no limit.
    pub max_client_connections: Option<u32>,
    /// Whether reads go to replicas. Default on when there are any, off without.
    pub routing: Routing,
    /// Which of them a read goes to.
    pub reads: Reads,
    /// Its pools and rules.
    pub steering: Steering,
    /// TLS to the servers. Default [`SslMode::Prefer`]. Unix sockets never use TLS.
    pub server_tls_sslmode: SslMode,
    /// Certificates that may sign the servers', PEM; only with a verifying mode. Default:
    /// those the system trusts.
    pub server_tls_ca_file: Option<PathBuf>,
    /// How TLS to servers begins. Default: by asking.
    pub server_tls_negotiation: TlsNegotiation,
    /// Whether SCRAM logins to servers are bound to their certificates. Default [`ChannelBinding::Prefer`].
    pub server_channel_binding: ChannelBinding,
    /// Certificate presented to servers, PEM.
    pub server_tls_cert_file: Option<PathBuf>,
    /// Its private key, PEM. Set exactly when the certificate is.
    pub server_tls_key_file: Option<PathBuf>,
}

impl Database {
    /// A database with nothing but a name and a primary; all else as by default.
    #[must_use]
    pub fn new(name: &str, primary: Endpoint) -> Self {
        Self {
            name: name.to_owned(),
            dbname: name.to_owned(),
            primary,
            replicas: Vec::new(),
            discover: None,
            tls_names: BTreeMap::new(),
            roles: Roles::Found,
            user: None,
            password: None,
            terms: Overrides::default(),
            invalidation: OwnInvalidation::default(),
            max_db_connections: None,
            max_client_connections: None,
            routing: Routing::Off,
            reads: Reads::default(),
            steering: Steering::default(),
            server_tls_sslmode: SslMode::Prefer,
            server_tls_negotiation: TlsNegotiation::Postgres,
            server_channel_binding: ChannelBinding::Prefer,
            server_tls_ca_file: None,
            server_tls_cert_file: None,
            server_tls_key_file: None,
        }
    }

    /// Its servers.
    pub fn hosts(&self) -> impl Iterator<Item = &Endpoint> {
        std::iter::once(&self.primary).chain(&self.replicas)
    }

    /// What to log in with on this database's servers when `user` is the client: the
    /// database's own `user` and `password` if it has them, else the client's.
    #[must_use]
    pub fn server_login<'a>(&'a self, user: &'a User) -> (&'a str, Option<&'a Password>) {
        match &self.user {
            Some(name) => (name, self.password.as_ref()),
            None => (&user.name, user.password.as_ref()),
        }
    }
}

/// `[users.NAME]`: someone who may log in.
#[derive(Clone, Debug, PartialEq)]
pub struct User {
    /// Name to log in with.
    pub name: String,
    /// Proves clients, and logs in to servers unless the database has its own `user`.
    /// May be looked up instead, by [`AuthQuery`](super::auth::AuthQuery).
    pub password: Option<Password>,
    /// More passwords that prove clients, for a rotation; never used towards servers.
    pub also: Vec<Password>,
    /// From when on no password proves it any more. Default: never.
    pub valid_until: Option<SystemTime>,
    /// What it sets for its pools, before its database does.
    pub terms: Overrides,
    /// Overrides `max_user_connections`.
    pub max_user_connections: Option<u32>,
    /// Overrides `max_user_client_connections` for this user; 0: no limit.
    pub max_client_connections: Option<u32>,
}

impl User {
    /// All passwords that prove a client, the one for servers first.
    pub fn passwords(&self) -> impl Iterator<Item = &Password> {
        self.password.iter().chain(&self.also)
    }
}
