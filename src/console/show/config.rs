//! `SHOW CONFIG`: the settings in force, beside their defaults.
//! Must never show a secret, nor a setting under another name than it has in the file.
//!
//! Times are numbers of seconds, as PgBouncer shows them and tools compare them; 0 is no limit where the file says so.

use std::time::Duration;

use super::super::Console;
use super::super::table::{Value, row};
use super::Rows;
use crate::config::{Alerts, Audit, Config, Listen, Log, Measure, Pool, Stats, TlsMode, Traces};

/// A setting as it is shown; `None` for one that is not set.
trait Shown {
    fn shown(&self) -> Option<String>;
}

macro_rules! displayed {
    ($($kind:ty),*) => { $(impl Shown for $kind { fn shown(&self) -> Option<String> { Some(self.to_string()) } })* };
}
displayed!(
    u8,
    u16,
    u32,
    f64,
    usize,
    String,
    crate::config::AuthType,
    crate::config::LogFormat,
    crate::config::OtlpProtocol,
    crate::config::PoolMode,
    crate::config::ServerOrder,
    crate::config::SessionState,
    crate::config::WaitAction,
    std::net::IpAddr,
    std::net::SocketAddr,
    crate::config::Network,
    TlsMode,
    Measure
);

impl Shown for bool {
    fn shown(&self) -> Option<String> {
        Some(u8::from(*self).to_string())
    }
}

impl Shown for Duration {
    fn shown(&self) -> Option<String> {
        Some(self.as_secs_f64().to_string())
    }
}

impl Shown for std::path::PathBuf {
    fn shown(&self) -> Option<String> {
        Some(self.display().to_string())
    }
}

impl<T: Shown> Shown for Option<T> {
    fn shown(&self) -> Option<String> {
        self.as_ref().and_then(Shown::shown)
    }
}

impl<T: Shown> Shown for Vec<T> {
    fn shown(&self) -> Option<String> {
        Some(self.iter().filter_map(Shown::shown).collect::<Vec<_>>().join(","))
    }
}

/// A time limit: none is 0.
fn limit(limit: Option<Duration>) -> Duration {
    limit.unwrap_or_default()
}

/// Name, value, whether a reload changes it.
type Setting = (&'static str, Option<String>, bool);

fn listen(it: &Listen) -> Vec<Setting> {
    let tcp = &it.tcp;
    let socket = it.unix_socket.as_ref();
    let s = |name, value: &dyn Shown, changeable| (name, value.shown(), changeable);
    vec![
        s("address", &it.address, false),
        s("port", &it.port, false),
        s("max_client_conn", &it.max_client_conn, true),
        s("client_login_timeout", &it.client_login_timeout, true),
        s("auth_type", &it.auth_type, true),
        s("client_tls_sslmode", &it.client_tls_sslmode, true),
        s("client_tls_cert_file", &it.client_tls_cert_file, true),
        s("client_tls_key_file", &it.client_tls_key_file, true),
        s("client_tls_ca_file", &it.client_tls_ca_file, true),
        s("max_packet_size", &it.max_packet_size, true),
        s("tcp_keepalive", &tcp.keepalive, true),
        s("tcp_keepidle", &limit(tcp.keepidle), true),
        s("tcp_keepintvl", &limit(tcp.keepintvl), true),
        s("tcp_keepcnt", &tcp.keepcnt, true),
        // In milliseconds there, too.
        s("tcp_user_timeout", &(limit(tcp.user_timeout).as_millis() as usize), true),
        s("listen_backlog", &it.listen_backlog, false),
        s("so_reuseport", &it.so_reuseport, false),
        s("unix_socket_dir", &socket.map(|it| it.directory.clone()), false),
        s("unix_socket_mode", &socket.map(|it| format!("{:04o}", it.mode)), false),
        s("unix_socket_group", &socket.and_then(|it| it.group.clone()), false),
        s("proxy_protocol", &it.proxy_protocol, true),
        s("connection_rate_per_address", &it.connection_rate_per_address, true),
        s("connection_rate_per_user", &it.connection_rate_per_user, true),
        s("instance_id", &it.instance_id, false),
    ]
}

fn pool(it: &Pool) -> Vec<Setting> {
    let s = |name, value: &dyn Shown| (name, value.shown(), true);
    vec![
        s("pool_mode", &it.pool_mode),
        s("session_state", &it.session_state),
        s("max_pinned_servers", &it.max_pinned_servers),
        s("pin_idle_timeout", &limit(it.pin_idle_timeout)),
        s("default_pool_size", &it.default_pool_size),
        s("min_pool_size", &it.min_pool_size),
        s("reserve_pool_size", &it.reserve_pool_size),
        s("reserve_pool_timeout", &it.reserve_pool_timeout),
        s("max_db_connections", &it.max_db_connections),
        s("max_user_connections", &it.max_user_connections),
        s("server_connect_burst", &it.server_connect_burst),
        s("server_order", &it.server_order),
        s("max_waiting_clients", &it.max_waiting_clients),
        s("query_wait_timeout", &limit(it.query_wait_timeout)),
        s("query_wait_timeout_action", &it.query_wait_timeout_action),
        s("query_wait_notify", &limit(it.query_wait_notify)),
        s("server_connect_timeout", &it.server_connect_timeout),
        s("server_idle_timeout", &limit(it.server_idle_timeout)),
        s("server_lifetime", &limit(it.server_lifetime)),
        s("server_login_retry", &it.server_login_retry),
        s("client_idle_timeout", &limit(it.client_idle_timeout)),
        s("idle_transaction_timeout", &limit(it.idle_transaction_timeout)),
        s("transaction_timeout", &limit(it.transaction_timeout)),
        s("query_timeout", &limit(it.query_timeout)),
        s("slow_query", &limit(it.slow_query)),
        s("slow_query_parameter_bytes", &it.slow_query_parameter_bytes),
        s("plan_interval", &limit(it.plan_interval)),
        s("stats", &it.stats),
        s("check_interval", &it.check_interval),
        s("check_timeout", &it.check_timeout),
        s("discover_interval", &it.discover_interval),
        s("breaker_failures", &it.breaker_failures),
        s("breaker_pause", &it.breaker_pause),
        s("slow_start", &it.slow_start),
        s("zone", &it.zone),
        s("read_wait", &it.read_wait),
        s("failover_wait", &it.failover_wait),
        s("catalog_refresh", &limit(it.catalog_refresh)),
        s("lanes", &it.lanes.on),
        s("max_lanes", &it.lanes.max),
        s("lane_fast", &it.lanes.fast),
        s("lane_delay", &it.lanes.delay),
        s("lane_settings", &it.lanes.settings),
        s("server_reset_query", &it.server_reset_query),
        s("max_prepared_statements", &it.max_prepared_statements),
        s("max_server_prepared_bytes", &it.max_server_prepared_bytes),
        s("max_client_prepared_bytes", &it.max_client_prepared_bytes),
        s("max_prepared_bytes", &it.max_prepared_bytes),
        s("max_db_client_connections", &it.max_db_client_connections),
        s("max_user_client_connections", &it.max_user_client_connections),
    ]
}

fn audit(it: Option<&Audit>) -> Vec<Setting> {
    let s = |name, value: &dyn Shown| (name, value.shown(), true);
    let what = it.map(|it| it.what.iter().map(|what| what.to_string()).collect::<Vec<String>>());
    vec![
        s("audit.file", &it.map(|it| it.file.clone())),
        s("audit.what", &what),
        s("audit.parameter_bytes", &it.map(|it| it.parameter_bytes)),
        s("audit.rotate_bytes", &it.map(|it| it.rotate_bytes)),
        s("audit.keep", &it.map(|it| it.keep)),
    ]
}

fn traces(it: Option<&Traces>) -> Vec<Setting> {
    let s = |name, value: &dyn Shown| (name, value.shown(), true);
    let scheme = |it: &Traces| if it.tls { "https" } else { "http" };
    vec![
        s("traces.endpoint", &it.map(|it| format!("{}://{}{}", scheme(it), it.authority(), it.path))),
        s("traces.protocol", &it.map(|it| it.protocol)),
        s("traces.headers", &it.map(|it| it.headers.iter().map(|(name, _)| name.clone()).collect::<Vec<_>>())),
        s("traces.ca_file", &it.and_then(|it| it.ca_file.clone())),
        s("traces.ratio", &it.map(|it| it.ratio)),
        s("traces.parent", &it.map(|it| it.parent)),
        s("traces.service_name", &it.map(|it| it.service_name.clone())),
        s("traces.interval", &it.map(|it| it.interval)),
        s("traces.timeout", &it.map(|it| it.timeout)),
    ]
}

fn console(it: &crate::config::Console) -> Vec<Setting> {
    let s = |name, value: &dyn Shown| (name, value.shown(), true);
    vec![s("admin_users", &it.admin_users), s("stats_users", &it.stats_users), s("stats_period", &it.stats_period)]
}

fn stats(it: &Stats) -> Vec<Setting> {
    let s = |name, value: &dyn Shown, changeable| (name, value.shown(), changeable);
    vec![
        s("stats.address", &it.address.map_or_else(|| "off".to_owned(), |address| address.to_string()), false),
        s("max_shapes", &it.max_shapes, false),
        s("max_series", &it.max_series, false),
        s("n_plus_one", &it.n_plus_one, true),
        s("unused_index_after", &it.unused_index_after, true),
        s("stats.tls_cert_file", &it.tls_cert_file, true),
        s("stats.tls_key_file", &it.tls_key_file, true),
        s("allow_cleartext_tokens", &it.allow_cleartext_tokens, false),
    ]
}

fn log(it: &Log) -> Vec<Setting> {
    vec![("log.level", it.level.shown(), false), ("log.format", it.format.shown(), false)]
}

fn whole(workers: usize, shutdown: Duration) -> Vec<Setting> {
    vec![("workers", workers.shown(), false), ("shutdown_timeout", shutdown.shown(), true)]
}

/// Those of `[alerts]` that are no marks; of receivers their names.
fn alerts(it: &Alerts) -> Vec<Setting> {
    let s = |name, value: &dyn Shown| (name, value.shown(), true);
    vec![
        s("alerts.interval", &it.interval),
        s("alerts.slow_query", &it.slow_query),
        s("alerts.webhooks", &it.webhooks.keys().cloned().collect::<Vec<String>>()),
        s("alerts.emails", &it.emails.keys().cloned().collect::<Vec<String>>()),
        s("alerts.notify.database", &it.notify.as_ref().map(|it| it.database.clone())),
        s("alerts.notify.channel", &it.notify.as_ref().map(|it| it.channel.clone())),
    ]
}

/// All of them, by their tables in the file.
fn all(it: &Config) -> [(&'static str, Vec<Setting>); 9] {
    [
        ("listen", listen(&it.listen)),
        ("pool", pool(&it.pool)),
        ("alerts", alerts(&it.alerts)),
        ("audit", audit(it.audit.as_ref())),
        ("traces", traces(it.traces.as_ref())),
        ("console", console(&it.console)),
        ("stats", stats(&it.stats)),
        ("log", log(&it.log)),
        ("", whole(it.workers, it.shutdown_timeout)),
    ]
}

/// Of which the names only are shown: a value is not what a line of the file says.
const TABLES: [&str; 3] = ["alerts.webhooks", "alerts.emails", "traces.headers"];

impl Console {
    pub(super) fn settings(&self) -> Rows {
        let default = [
            listen(&Listen::default()),
            pool(&Pool::default()),
            alerts(&Alerts::default()),
            audit(None),
            traces(None),
            console(&Default::default()),
            stats(&Stats::default()),
            log(&Log::default()),
            whole(0, Config::SHUTDOWN_TIMEOUT),
        ];
        let now = all(&self.config()).into_iter().flat_map(|(_, settings)| settings);
        let row = |((name, value, changeable), (_, default, _)): (Setting, Setting)| -> Vec<Value> {
            row![name, value, default, if changeable { "yes" } else { "no" }]
        };
        now.zip(default.into_iter().flatten()).map(row).collect()
    }

    /// Where the file has a setting, the tables that it is in before its name, and whether SET can change it. It may be called as
    /// `SHOW CONFIG` does, or with its table before it.
    pub(in crate::console) fn setting(&self, name: &str) -> Option<(Vec<&'static str>, bool)> {
        all(&self.config()).into_iter().find_map(|(table, settings)| {
            let within = |full: &&'static str| full.contains('.') || table.is_empty();
            let path = |full: &'static str| -> Vec<&'static str> {
                let table = (!within(&full)).then_some(table);
                table.into_iter().chain(full.split('.')).collect()
            };
            let is_it =
                |full: &'static str| full.eq_ignore_ascii_case(name) || path(full).join(".").eq_ignore_ascii_case(name);
            let found = settings.iter().find(|(full, ..)| is_it(full));
            found.map(|(full, _, changeable)| (path(full), *changeable && !TABLES.contains(full)))
        })
    }
}
