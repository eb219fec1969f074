//! From the raw to the validated configuration: defaults, secrets, files, contradictions.
//! Must never refuse on a mere suspicion: what is refused here can certainly not work. `suspect` warns of the rest.

use std::collections::{BTreeMap, HashSet};
use std::net::{IpAddr, SocketAddr};
use std::path::Path;

use super::cache::Cache;
use super::check_rules::RawSteering;
use super::console::Console;
use super::doors::tcp;
use super::encryption::{ChannelBinding, SslMode, TlsMode, TlsNegotiation};
use super::endpoint::Endpoint;
use super::lanes::Lanes;
use super::leaf::{FilePath, RawSecret, Refresh, Timeout, Wait, Word};
use super::logging::{Log, RawLog};
use super::model::{Config, Database, Listen, Pool};
use super::modes::Roles;
use super::password::Password;
use super::problem::Problems;
use super::reader::{Field, Named, Reader, Span};
use super::reads::Routing;
use super::schema::{RawConfig, RawDatabase, RawListen, RawPool};
use super::stats::Stats;
use super::terms::Overrides;

/// The terms of a section, database or user: both have the same keys.
macro_rules! overrides {
    ($raw:ident) => {
        Overrides {
            pool_mode: $raw.pool_mode.set().map(|word| word.0),
            session_state: $raw.session_state.set().map(|word| word.0),
            max_pinned_servers: $raw.max_pinned_servers.set().map(|n| n.0),
            pin_idle_timeout: $raw.pin_idle_timeout.set().map(|wait| wait.0),
            stats: $raw.stats.set().map(|word| word.0),
            lanes: $raw.lanes.set(),
            cache_ttl: $raw.cache_ttl.set(),
            pool_size: $raw.pool_size.set().map(|n| n.0),
            min_pool_size: $raw.min_pool_size.set().map(|n| n.0),
            reserve_pool_size: $raw.reserve_pool_size.set().map(|n| n.0),
            query_wait_timeout: $raw.query_wait_timeout.set().map(|wait| wait.0),
            server_lifetime: $raw.server_lifetime.set().map(|wait| wait.0),
            client_idle_timeout: $raw.client_idle_timeout.set().map(|wait| wait.0),
            idle_transaction_timeout: $raw.idle_transaction_timeout.set().map(|wait| wait.0),
            transaction_timeout: $raw.transaction_timeout.set().map(|wait| wait.0),
            query_timeout: $raw.query_timeout.set().map(|wait| wait.0),
            slow_query: $raw.slow_query.set().map(|wait| wait.0),
        }
    };
}
pub(super) use overrides;

/// What a configuration refers to outside itself.
pub(super) struct Outside<'a> {
    /// Where relative paths start: the directory of the configuration file.
    pub(super) directory: &'a Path,
    /// Reads an environment variable.
    pub(super) variable: &'a dyn Fn(&str) -> Option<String>,
}

/// One pass over a raw configuration.
pub(super) struct Check<'a> {
    pub(super) reader: &'a mut Reader,
    pub(super) outside: Outside<'a>,
}

impl Check<'_> {
    /// The validated configuration. `None` only after a problem has been noted; the caller
    /// must also drop the result when others were.
    pub(super) fn config(&mut self, raw: RawConfig) -> Option<Config> {
        self.suspect(&raw);
        self.lags(&raw);
        self.globals(&raw);
        self.caching(&raw);
        self.invalidations(&raw);
        self.lane_settings(&raw);
        let (port, auth_is_bad) = match &raw.listen {
            Field::Set(listen, _) => (listen.port.span(), matches!(listen.auth_type, Field::Bad)),
            Field::Absent => (None, false),
            Field::Bad => (None, true),
        };
        let stats_address = match &raw.stats {
            Field::Set(stats, _) => stats.address.span(),
            Field::Absent | Field::Bad => None,
        };
        let listen = self.listen(raw.listen.set().unwrap_or_default());
        let stats = self.stats(raw.stats.set().unwrap_or_default());
        self.separate_ports(&listen, &stats, stats_address.or(port));
        // Without a readable method nothing certain can be said about passwords.
        let auth_type = (!auth_is_bad).then_some(listen.auth_type);
        let databases = self.databases(raw.databases);
        let query_database = match &raw.auth {
            Field::Set(auth, _) => auth.query_database.span().zip(auth.query_database.text()),
            Field::Absent | Field::Bad => None,
        };
        let (auth, listed) = self.auth(raw.auth.set().unwrap_or_default(), &listen, auth_type);
        self.known_database(query_database, &databases);
        let users = self.users(raw.users, auth_type, listed, auth.query.is_some());
        let peers = self.peers(raw.peers, listen.instance_id);
        let mut cache = raw.cache.set().unwrap_or_default();
        let redis = self.redis(std::mem::take(&mut cache.redis));
        let warm_up = self.warm_ups(&mut cache, databases.as_ref(), users.as_ref());
        Some(Config {
            listen,
            auth,
            stats,
            console: Console::of(raw.console.set().unwrap_or_default()),
            pool: pool(raw.pool.set().unwrap_or_default()),
            cache: Cache { warm_up, ..Cache::of(cache, redis) },
            alerts: self.alerts(raw.alerts.set().unwrap_or_default(), databases.as_ref()),
            audit: self.audit(raw.audit),
            traces: self.traces(raw.traces),
            log: log(raw.log.set().unwrap_or_default()),
            workers: raw.workers.set().map_or(0, |n| n.0 as usize),
            shutdown_timeout: raw.shutdown_timeout.set().map_or(Config::SHUTDOWN_TIMEOUT, |wait| wait.0),
            databases: databases?,
            users: users?,
            peers,
            warnings: Problems::of_text(std::mem::take(&mut self.reader.warnings)),
        })
    }

    fn listen(&mut self, raw: RawListen) -> Listen {
        let default = Listen::default();
        let (cert, key) = (&raw.client_tls_cert_file, &raw.client_tls_key_file);
        self.pair("client_tls_cert_file", cert, "client_tls_key_file", key);
        if let Field::Set(mode, span) = &raw.client_tls_sslmode
            && mode.0 != TlsMode::Disable
            && cert.is_absent()
            && key.is_absent()
        {
            let title = format!("`client_tls_sslmode` is {:?} but there is no certificate", mode.0.as_str());
            let expected = "`client_tls_cert_file` and `client_tls_key_file` next to it";
            self.reader.note(span.clone(), title, |problem| problem.expected(expected));
        }
        self.client_certificates(&raw);
        self.tls_files("client_", cert, key, &raw.client_tls_ca_file);
        let tcp = tcp(&raw);
        let unix_socket = self.unix_socket(&raw);
        let by_certificate = if cert.is_absent() { TlsMode::Disable } else { TlsMode::Allow };
        Listen {
            address: raw.address.set().map_or(default.address, |addresses| addresses.0),
            // The bounds of the schema are those of the type.
            port: raw.port.set().and_then(|n| u16::try_from(n.0).ok()).unwrap_or(default.port),
            max_client_conn: raw.max_client_conn.set().map_or(default.max_client_conn, |n| n.0),
            client_login_timeout: raw.client_login_timeout.set().map_or(default.client_login_timeout, |t| t.0),
            auth_type: raw.auth_type.set().map_or(default.auth_type, |word| word.0),
            client_tls_sslmode: raw.client_tls_sslmode.set().map_or(by_certificate, |word| word.0),
            client_tls_cert_file: self.file(raw.client_tls_cert_file),
            client_tls_key_file: self.file(raw.client_tls_key_file),
            client_tls_ca_file: self.file(raw.client_tls_ca_file),
            max_packet_size: raw.max_packet_size.set().map_or(default.max_packet_size, |size| size.0),
            tcp,
            listen_backlog: raw.listen_backlog.set().map_or(default.listen_backlog, |n| n.0),
            so_reuseport: raw.so_reuseport.set().unwrap_or(default.so_reuseport),
            unix_socket,
            proxy_protocol: raw.proxy_protocol.set().map_or(default.proxy_protocol, |networks| networks.0),
            connection_rate_per_address: raw.connection_rate_per_address.set().map_or(0, |n| n.0),
            connection_rate_per_user: raw.connection_rate_per_user.set().map_or(0, |n| n.0),
            instance_id: raw.instance_id.set().and_then(|n| u8::try_from(n.0).ok()).unwrap_or(0),
        }
    }

    /// Notes that clients and statistics want the same port. `span` is the stats address,
    /// or else the client port; with neither in the file the defaults differ.
    fn separate_ports(&mut self, listen: &Listen, stats: &Stats, span: Option<Span>) {
        let (Some(address), Some(span)) = (stats.address, span) else {
            return;
        };
        if address.port() == listen.port && listen.port != 0 && overlap(&listen.address, address) {
            let title = format!("clients and statistics cannot both listen on {address}");
            self.reader.note(span, title, |problem| problem.expected("another port for one of them"));
        }
    }

    fn databases(&mut self, raw: Field<Named<RawDatabase>>) -> Option<BTreeMap<String, Database>> {
        let named = self.at_least_one(raw, "database", r#"[databases.NAME] with primary = "host:5432""#)?;
        let list: Vec<_> = named.0.into_iter().map(|(name, span, raw)| self.database(name, span, raw?)).collect();
        list.into_iter().map(|database| database.map(|database| (database.name.clone(), database))).collect()
    }

    /// The sections, or a note that there is none. Nobody could connect, so this is no
    /// proxy at all.
    pub(super) fn at_least_one<T>(&mut self, raw: Field<Named<T>>, what: &str, expected: &str) -> Option<Named<T>> {
        let none = match &raw {
            Field::Absent => true,
            Field::Set(named, _) => named.0.is_empty(),
            Field::Bad => false,
        };
        if none {
            let problem = self.reader.source.problem_of_all(format!("there is no {what}"));
            self.reader.problems.push(problem.expected(format!("at least one section {expected}")));
        }
        raw.set()
    }

    /// Notes servers that are listed in two ways, and roles that nobody could tell.
    fn hosts(&mut self, name: &str, raw: &RawDatabase) {
        let Field::Set(hosts, span) = &raw.hosts else { return };
        if !raw.primary.is_absent() || !raw.replicas.is_absent() {
            let title = format!("database `{name}` has `hosts` beside `primary` or `replicas`");
            self.reader
                .note(span.clone(), title, |problem| problem.expected("`hosts` alone, or `primary` and `replicas`"));
        }
        if hosts.is_empty() {
            let title = format!("database `{name}` has no hosts");
            self.reader.note(span.clone(), title, |problem| problem.expected(r#"hosts = ["host:5432"]"#));
        }
        if let Field::Set(word, span) = &raw.roles
            && word.0 == Roles::Declared
        {
            let title = "with `hosts` nothing declares which one is the primary".to_owned();
            self.reader
                .note(span.clone(), title, |problem| problem.expected("`primary` and `replicas` instead of `hosts`"));
        }
    }

    /// Notes a server that is listed twice: once it is the primary there are two of them, and none gets any writes.
    fn listed_once(&mut self, name: &str, raw: &RawDatabase) {
        for (hosts, what) in [(&raw.hosts, "host"), (&raw.replicas, "replica")] {
            let Field::Set(hosts, span) = hosts else { continue };
            let mut known: HashSet<&Endpoint> = HashSet::new();
            if let Some(twice) = hosts.iter().find(|host| !known.insert(host)) {
                let title = format!("database `{name}` has the {what} {twice} twice");
                self.reader.note(span.clone(), title, |problem| problem.expected("each server once"));
            }
        }
        if let (Field::Set(primary, _), Field::Set(replicas, span)) = (&raw.primary, &raw.replicas)
            && replicas.contains(primary)
        {
            let title = format!("database `{name}` has its primary {primary} among its `replicas`");
            self.reader
                .note(span.clone(), title, |problem| problem.expected("each server once: `replicas` without it"));
        }
    }

    fn database(&mut self, name: String, span: Span, mut raw: RawDatabase) -> Option<Database> {
        self.reserved(&name, &span);
        self.hosts(&name, &raw);
        self.listed_once(&name, &raw);
        let found_out = !raw.discover.is_absent();
        let discover = self.discover(&name, &mut raw);
        if raw.primary.is_absent() && raw.hosts.is_absent() && !found_out {
            let title = format!("database `{name}` has no primary");
            self.reader.note(span.clone(), title, |problem| problem.expected(r#"primary = "host:5432""#));
        }
        let (ca, cert, key) = (&raw.server_tls_ca_file, &raw.server_tls_cert_file, &raw.server_tls_key_file);
        self.pair("server_tls_cert_file", cert, "server_tls_key_file", key);
        let used = ca.span().is_some_and(|span| self.verifying(&raw.server_tls_sslmode, span));
        self.tls_files("server_", cert, key, if used { ca } else { &Field::Absent });
        if let Field::Set(_, span) = &raw.password
            && raw.user.is_absent()
        {
            let title = format!("database `{name}` has a password but no `user` it belongs to");
            self.reader.note(span.clone(), title, |problem| problem.expected("`user` and `password`, or neither"));
        }
        self.server_tls(&raw);
        let lists = [(&raw.replicas, 1), (&raw.hosts, 2)];
        let no_replicas = !found_out
            && lists.iter().all(|(field, least)| match field {
                Field::Set(list, _) => list.len() < *least,
                Field::Absent => true,
                Field::Bad => false,
            });
        if let Field::Set(word, span) = &raw.routing
            && word.0 == Routing::On
            && no_replicas
        {
            let title = format!("`routing` is on but database `{name}` has no replicas");
            self.reader.note(span.clone(), title, |problem| problem.expected(r#"replicas = ["host:5432"]"#));
        }
        let by_replicas = if no_replicas { Routing::Off } else { Routing::On };
        let routing = std::mem::take(&mut raw.routing).set().map_or(by_replicas, |word| word.0);
        let hosts_known = !matches!(raw.hosts, Field::Bad) && !matches!(raw.replicas, Field::Bad);
        let mut hosts = std::mem::take(&mut raw.hosts).set().unwrap_or_default().into_iter();
        let unknown = || discover.is_some().then_some(Endpoint::UNKNOWN);
        let primary = std::mem::take(&mut raw.primary).set().or_else(|| hosts.next()).or_else(unknown)?;
        let replicas: Vec<_> =
            std::mem::take(&mut raw.replicas).set().unwrap_or_default().into_iter().chain(hosts).collect();
        let hosts: Vec<_> = std::iter::once(&primary).chain(&replicas).cloned().collect();
        let invalidation = self.invalidation(&name, &mut raw);
        let reads = self.reads(&mut raw, (!found_out).then_some(&hosts[..]), routing);
        let steering = RawSteering { groups: raw.groups, pools: raw.pools, rules: raw.rules };
        let steering = self.steering(&name, steering, (hosts_known && !found_out).then_some(&hosts[..]), routing);
        let password = self.server_password(raw.password);
        let server_tls_ca_file = self.file(raw.server_tls_ca_file);
        let server_tls_cert_file = self.file(raw.server_tls_cert_file);
        let server_tls_key_file = self.file(raw.server_tls_key_file);
        Some(Database {
            dbname: raw.dbname.set().map_or_else(|| name.clone(), |text| text.0),
            name,
            primary,
            replicas,
            discover,
            tls_names: BTreeMap::new(),
            roles: raw.roles.set().map_or(Roles::Found, |word| word.0),
            user: raw.user.set().map(|text| text.0),
            password,
            terms: overrides!(raw),
            invalidation,
            max_db_connections: raw.max_db_connections.set().map(|n| n.0),
            max_client_connections: raw.max_client_connections.set().map(|n| n.0),
            routing,
            reads,
            steering,
            server_tls_sslmode: raw.server_tls_sslmode.set().map_or(SslMode::Prefer, |word| word.0),
            server_tls_negotiation: raw.server_tls_negotiation.set().map_or(TlsNegotiation::Postgres, |word| word.0),
            server_channel_binding: raw.server_channel_binding.set().map_or(ChannelBinding::Prefer, |word| word.0),
            server_tls_ca_file,
            server_tls_cert_file,
            server_tls_key_file,
        })
    }

    /// Notes a CA file that no connection would ever look at: whoever wrote it believes
    /// that servers are verified.
    fn verifying(&mut self, mode: &Field<Word<SslMode>>, ca: Span) -> bool {
        let Some(mode) = mode.word(SslMode::Prefer) else { return false };
        if !mode.verifies() {
            let title = format!("`server_tls_ca_file` is never used when `server_tls_sslmode` is {:?}", mode.as_str());
            let expected = r#"server_tls_sslmode = "verify-full" or "verify-ca""#;
            self.reader.note(ca, title, |problem| problem.expected(expected));
        }
        mode.verifies()
    }

    pub(super) fn server_password(&mut self, raw: Field<RawSecret>) -> Option<Password> {
        let span = raw.span()?;
        let password = self.password(raw)?;
        if matches!(password, Password::Scram(_)) {
            let title = "a SCRAM verifier cannot log in to a server";
            self.reader.note(span, title, |problem| problem.expected("the password itself"));
            return None;
        }
        Some(password)
    }

    /// Notes a certificate without key or a key without certificate.
    pub(super) fn pair(&mut self, a_name: &str, a: &Field<FilePath>, b_name: &str, b: &Field<FilePath>) {
        let (span, here, missing) = match (a, b) {
            (Field::Set(_, span), Field::Absent) => (span, a_name, b_name),
            (Field::Absent, Field::Set(_, span)) => (span, b_name, a_name),
            _ => return,
        };
        let title = format!("`{here}` needs `{missing}`");
        self.reader.note(span.clone(), title, |problem| problem.expected("both or neither"));
    }
}

/// Whether a socket on `address` takes from one on `listen`, the port being the same.
fn overlap(listen: &[IpAddr], address: SocketAddr) -> bool {
    listen.iter().any(|ip| {
        let any = ip.is_unspecified() || address.ip().is_unspecified();
        *ip == address.ip() || (any && ip.is_ipv4() == address.is_ipv4())
    })
}

fn pool(mut raw: RawPool) -> Pool {
    let default = Pool::default();
    let lanes = Lanes::of(&mut raw);
    let wait = |field: Field<Wait>, default| field.set().map_or(default, Wait::limit);
    let timeout = |field: Field<Timeout>, default| field.set().map_or(default, |timeout| timeout.0);
    Pool {
        pool_mode: raw.pool_mode.set().map_or(default.pool_mode, |word| word.0),
        session_state: raw.session_state.set().map_or(default.session_state, |word| word.0),
        max_pinned_servers: raw.max_pinned_servers.set().map_or(default.max_pinned_servers, |n| n.0),
        pin_idle_timeout: wait(raw.pin_idle_timeout, default.pin_idle_timeout),
        default_pool_size: raw.default_pool_size.set().map_or(default.default_pool_size, |n| n.0),
        min_pool_size: raw.min_pool_size.set().map_or(default.min_pool_size, |n| n.0),
        reserve_pool_size: raw.reserve_pool_size.set().map_or(default.reserve_pool_size, |n| n.0),
        reserve_pool_timeout: timeout(raw.reserve_pool_timeout, default.reserve_pool_timeout),
        max_db_connections: raw.max_db_connections.set().map_or(default.max_db_connections, |n| n.0),
        max_user_connections: raw.max_user_connections.set().map_or(default.max_user_connections, |n| n.0),
        server_connect_burst: raw.server_connect_burst.set().map_or(default.server_connect_burst, |n| n.0),
        server_order: raw.server_order.set().map_or(default.server_order, |word| word.0),
        max_waiting_clients: raw.max_waiting_clients.set().map_or(default.max_waiting_clients, |n| n.0),
        query_wait_timeout: wait(raw.query_wait_timeout, default.query_wait_timeout),
        query_wait_timeout_action: raw
            .query_wait_timeout_action
            .set()
            .map_or(default.query_wait_timeout_action, |word| word.0),
        query_wait_notify: wait(raw.query_wait_notify, default.query_wait_notify),
        server_connect_timeout: timeout(raw.server_connect_timeout, default.server_connect_timeout),
        server_idle_timeout: wait(raw.server_idle_timeout, default.server_idle_timeout),
        server_lifetime: wait(raw.server_lifetime, default.server_lifetime),
        server_login_retry: timeout(raw.server_login_retry, default.server_login_retry),
        client_idle_timeout: wait(raw.client_idle_timeout, default.client_idle_timeout),
        idle_transaction_timeout: wait(raw.idle_transaction_timeout, default.idle_transaction_timeout),
        transaction_timeout: wait(raw.transaction_timeout, default.transaction_timeout),
        query_timeout: wait(raw.query_timeout, default.query_timeout),
        slow_query: wait(raw.slow_query, default.slow_query),
        slow_query_parameter_bytes: raw.slow_query_parameter_bytes.set().map_or(0, |size| size.0),
        plan_interval: wait(raw.plan_interval, default.plan_interval),
        stats: raw.stats.set().map_or(default.stats, |word| word.0),
        check_interval: timeout(raw.check_interval, default.check_interval),
        check_timeout: timeout(raw.check_timeout, default.check_timeout),
        discover_interval: raw.discover_interval.set().map_or(default.discover_interval, |interval| interval.0),
        breaker_failures: raw.breaker_failures.set().map_or(default.breaker_failures, |n| n.0),
        breaker_pause: timeout(raw.breaker_pause, default.breaker_pause),
        slow_start: raw.slow_start.set().map_or(default.slow_start, |wait| wait.0),
        zone: raw.zone.set().map(|text| text.0),
        read_wait: raw.read_wait.set().map_or(default.read_wait, |wait| wait.0),
        failover_wait: timeout(raw.failover_wait, default.failover_wait),
        catalog_refresh: raw.catalog_refresh.set().map_or(default.catalog_refresh, Refresh::period),
        lanes,
        server_reset_query: raw.server_reset_query.set().map_or(default.server_reset_query, |sql| sql.0),
        max_prepared_statements: raw.max_prepared_statements.set().map_or(default.max_prepared_statements, |n| n.0),
        max_server_prepared_bytes: raw
            .max_server_prepared_bytes
            .set()
            .map_or(default.max_server_prepared_bytes, |n| n.0),
        max_client_prepared_bytes: raw
            .max_client_prepared_bytes
            .set()
            .map_or(default.max_client_prepared_bytes, |n| n.0),
        max_prepared_bytes: raw.max_prepared_bytes.set().map_or(default.max_prepared_bytes, |n| n.0),
        max_db_client_connections: raw.max_db_client_connections.set().map_or(0, |n| n.0),
        max_user_client_connections: raw.max_user_client_connections.set().map_or(0, |n| n.0),
    }
}

fn log(raw: RawLog) -> Log {
    let default = Log::default();
    Log {
        level: raw.level.set().map_or(default.level, |filter| filter.0),
        format: raw.format.set().map_or(default.format, |word| word.0),
    }
}
