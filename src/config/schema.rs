//! The raw configuration: every key there is, and how its value is read.
//! Must never judge how values go together; `check` does.

use toml::Spanned;
use toml::de::DeValue;

use super::audit::RawAudit;
use super::cache::{CacheMode, Ttl};
use super::consistency::{Consistency, TableName};
use super::discover::{Interval, Sources};
use super::doors::{Mode, Networks, PeerAddress};
use super::email::RawEmail;
use super::encryption::{ChannelBinding, SslMode, TlsMode, TlsNegotiation};
use super::endpoint::Endpoint;
use super::invalidation::Invalidation;
use super::leaf::{
    Addresses, Factor, FilePath, Number, RawSecret, Refresh, Share, Size, Sql, Text, Timeout, Wait, Word,
};
use super::leaf_auth::{Moment, RawSecrets, Texts};
use super::leaf_rules::{Listed, Shapes, Tags};
use super::logging::RawLog;
use super::model::AuthType;
use super::modes::{PoolMode, Roles, ServerOrder, SessionState, WaitAction};
use super::notify::RawNotify;
use super::reader::{Field, Leaf, Named, Reader, join, section};
use super::reads::{Balance, InTransactions, NoReplica, PerHost, Routing, Weight};
use super::redis::RawRedis;
use super::rules::{Fallback, Globs};
use super::stats::{Measure, RawStats};
use super::traces::RawTraces;
use super::warm_up::RawWarmUp;
use super::webhook::WebhookFormat;

section! {
    /// The whole file.
    RawConfig {
        // The key of a cancel request has 6 bits for the worker, see `wire::pid`.
        workers: Number<0, 63>,
        shutdown_timeout: Wait,
        listen: RawListen,
        auth: RawAuth,
        stats: RawStats,
        alerts: RawAlerts,
        console: RawConsole,
        pool: RawPool,
        cache: RawCache,
        audit: RawAudit,
        traces: RawTraces,
        log: RawLog,
        databases: Named<RawDatabase>,
        users: Named<RawUser>,
        peers: Named<RawPeer>,
    }
}

section! {
    /// `[listen]`
    RawListen {
        address: Addresses,
        port: Number<0, 65_535>,
        max_client_conn: Number<1, 10_000_000>,
        client_login_timeout: Timeout,
        auth_type: Word<AuthType>,
        client_tls_sslmode: Word<TlsMode>,
        client_tls_cert_file: FilePath,
        client_tls_key_file: FilePath,
        client_tls_ca_file: FilePath,
        // At least what a login needs; at most what a length word can say.
        max_packet_size: Size<16_384, 0x7fff_ffff>,
        tcp_keepalive: bool,
        tcp_keepidle: Wait,
        tcp_keepintvl: Wait,
        // The kernel's own bound: MAX_TCP_KEEPCNT of include/net/tcp.h.
        tcp_keepcnt: Number<0, 127>,
        tcp_user_timeout: Wait,
        listen_backlog: Number<1, 65_535>,
        so_reuseport: bool,
        unix_socket_dir: FilePath,
        unix_socket_mode: Mode,
        unix_socket_group: Text,
        proxy_protocol: Networks,
        connection_rate_per_address: Number<0, 1_000_000>,
        connection_rate_per_user: Number<0, 1_000_000>,
        // 6 bits of a cancel key, see `wire::pid`.
        instance_id: Number<0, 63>,
    }
}

section! {
    /// `[auth]`
    RawAuth {
        hba_file: FilePath,
        hba: Texts,
        ident_file: FilePath,
        users_file: FilePath,
        query: Text,
        query_user: Text,
        query_password: RawSecret,
        query_database: Text,
        query_cache: Wait,
        failed_logins_max: Number<0, 1_000_000>,
        failed_logins_ban: Timeout,
        mock_secret: RawSecret,
    }
}

section! {
    /// `[console]`
    RawConsole {
        admin_users: Texts,
        stats_users: Texts,
        stats_period: Timeout,
    }
}

section! {
    /// `[alerts]`
    RawAlerts {
        interval: Timeout,
        slow_query: Timeout,
        pool_use: RawShare,
        replication_lag: RawLag,
        slow_queries: RawShare,
        cache_misses: RawShare,
        cache_mismatch: RawEvent,
        errors: RawShare,
        pinned_servers: RawShare,
        host_down: RawEvent,
        failover: RawFailover,
        certificate_expiry: RawExpiry,
        webhooks: Named<RawWebhook>,
        emails: Named<RawEmail>,
        notify: RawNotify,
    }
}

section! {
    /// `[alerts.*]` of something that has a share, in per cent.
    RawShare {
        enabled: bool,
        above: Number<0, 100>,
        clear: Number<0, 100>,
        after: Wait,
    }
}

section! {
    /// `[alerts.*]` of a time.
    RawLag {
        enabled: bool,
        above: Timeout,
        clear: Timeout,
        after: Wait,
    }
}

section! {
    /// `[alerts.*]` of something that is so or is not.
    RawEvent {
        enabled: bool,
        after: Wait,
    }
}

section! {
    /// `[alerts.failover]`
    RawFailover {
        enabled: bool,
        keep: Timeout,
    }
}

section! {
    /// `[alerts.certificate_expiry]`
    RawExpiry {
        enabled: bool,
        before: Timeout,
    }
}

section! {
    /// `[alerts.webhooks.NAME]`
    RawWebhook {
        url: RawSecret,
        format: Word<WebhookFormat>,
        authorization: RawSecret,
        ca_file: FilePath,
        timeout: Timeout,
    }
}

section! {
    /// `[pool]`
    RawPool {
        pool_mode: Word<PoolMode>,
        session_state: Word<SessionState>,
        max_pinned_servers: Number<0, 100_000>,
        pin_idle_timeout: Wait,
        default_pool_size: Number<1, 100_000>,
        min_pool_size: Number<0, 100_000>,
        reserve_pool_size: Number<0, 100_000>,
        reserve_pool_timeout: Timeout,
        max_db_connections: Number<0, 1_000_000>,
        max_user_connections: Number<0, 1_000_000>,
        server_connect_burst: Number<1, 1_000>,
        server_order: Word<ServerOrder>,
        max_waiting_clients: Number<0, 10_000_000>,
        query_wait_timeout: Wait,
        query_wait_timeout_action: Word<WaitAction>,
        query_wait_notify: Wait,
        server_connect_timeout: Timeout,
        server_idle_timeout: Wait,
        server_lifetime: Wait,
        server_login_retry: Timeout,
        client_idle_timeout: Wait,
        idle_transaction_timeout: Wait,
        transaction_timeout: Wait,
        query_timeout: Wait,
        slow_query: Wait,
        slow_query_parameter_bytes: Size<0, 65_536>,
        plan_interval: Wait,
        stats: Word<Measure>,
        check_interval: Timeout,
        check_timeout: Timeout,
        discover_interval: Interval,
        breaker_failures: Number<0, 1_000>,
        breaker_pause: Timeout,
        slow_start: Wait,
        zone: Text,
        read_wait: Wait,
        failover_wait: Timeout,
        catalog_refresh: Refresh,
        lanes: bool,
        max_lanes: Number<1, 1_000>,
        lane_fast: Timeout,
        lane_delay: Timeout,
        lane_settings: Texts,
        server_reset_query: Sql,
        max_prepared_statements: Number<1, 1_000_000>,
        max_server_prepared_bytes: Size<4096, 0xffff_ffff>,
        max_client_prepared_bytes: Size<4096, 0xffff_ffff>,
        max_prepared_bytes: Size<4096, 0xffff_ffff>,
        max_db_client_connections: Number<0, 10_000_000>,
        max_user_client_connections: Number<0, 10_000_000>,
    }
}

section! {
    /// `[cache]`
    RawCache {
        mode: Word<CacheMode>,
        max_bytes: Size<65_536, 0xffff_ffff>,
        max_entry_bytes: Size<1024, 0x3fff_ffff>,
        max_tenant_percent: Number<1, 100>,
        ttl: Ttl,
        invalidation: Word<Invalidation>,
        max_staleness: Timeout,
        publication: Text,
        signals: Text,
        verify: Share,
        early_refresh: Factor,
        stale_while_revalidate: Wait,
        stale_if_error: Wait,
        strategies: Named<Wait>,
        warm_up: Listed<RawWarmUp>,
        redis: RawRedis,
    }
}

section! {
    /// `[databases.NAME]`
    RawDatabase {
        primary: Endpoint,
        replicas: Vec<Endpoint>,
        hosts: Vec<Endpoint>,
        discover: Sources,
        discover_ca_file: FilePath,
        roles: Word<Roles>,
        dbname: Text,
        user: Text,
        password: RawSecret,
        pool_mode: Word<PoolMode>,
        session_state: Word<SessionState>,
        max_pinned_servers: Number<0, 100_000>,
        pin_idle_timeout: Wait,
        pool_size: Number<1, 100_000>,
        min_pool_size: Number<0, 100_000>,
        reserve_pool_size: Number<0, 100_000>,
        query_wait_timeout: Wait,
        server_lifetime: Wait,
        client_idle_timeout: Wait,
        idle_transaction_timeout: Wait,
        transaction_timeout: Wait,
        query_timeout: Wait,
        slow_query: Wait,
        stats: Word<Measure>,
        lanes: bool,
        cache_ttl: Ttl,
        cache_invalidation: Word<Invalidation>,
        cache_max_staleness: Timeout,
        cache_publication: Text,
        cache_stale_while_revalidate: Wait,
        cache_stale_if_error: Wait,
        cache_user: Text,
        cache_password: RawSecret,
        max_db_connections: Number<0, 1_000_000>,
        max_client_connections: Number<0, 10_000_000>,
        routing: Word<Routing>,
        balance: Word<Balance>,
        weights: PerHost<Weight>,
        zones: PerHost<Text>,
        max_replica_lag: Timeout,
        max_replica_lag_bytes: Size<8192, 0xffff_ffff>,
        no_replica: Word<NoReplica>,
        reads_in_transactions: Word<InTransactions>,
        consistency: Word<Consistency>,
        global_tables: Vec<TableName>,
        server_tls_sslmode: Word<SslMode>,
        server_tls_ca_file: FilePath,
        server_tls_negotiation: Word<TlsNegotiation>,
        server_channel_binding: Word<ChannelBinding>,
        server_tls_cert_file: FilePath,
        server_tls_key_file: FilePath,
        groups: Named<Vec<Endpoint>>,
        pools: Named<RawWorkload>,
        rules: Listed<RawRule>,
    }
}

section! {
    /// `[databases.NAME.pools.NAME]`
    RawWorkload {
        pool_size: Number<1, 100_000>,
        query_wait_timeout: Wait,
        query_timeout: Wait,
        group: Text,
        fallback: Word<Fallback>,
    }
}

section! {
    /// `[[databases.NAME.rules]]`
    RawRule {
        name: Text,
        user: Globs,
        application_name: Globs,
        table: Globs,
        schema: Globs,
        shape: Shapes,
        tag: Tags,
        group: Text,
        fallback: Word<Fallback>,
        pool: Text,
        refuse: Text,
        rate: Number<1, 1_000_000>,
        timeout: Wait,
        lanes: bool,
        cache_ttl: Ttl,
    }
}

section! {
    /// `[users.NAME]`
    RawUser {
        password: RawSecrets,
        valid_until: Moment,
        pool_mode: Word<PoolMode>,
        session_state: Word<SessionState>,
        max_pinned_servers: Number<0, 100_000>,
        pin_idle_timeout: Wait,
        pool_size: Number<1, 100_000>,
        min_pool_size: Number<0, 100_000>,
        reserve_pool_size: Number<0, 100_000>,
        query_wait_timeout: Wait,
        server_lifetime: Wait,
        client_idle_timeout: Wait,
        idle_transaction_timeout: Wait,
        transaction_timeout: Wait,
        query_timeout: Wait,
        slow_query: Wait,
        stats: Word<Measure>,
        lanes: bool,
        cache_ttl: Ttl,
        max_user_connections: Number<0, 1_000_000>,
        max_client_connections: Number<0, 10_000_000>,
    }
}

section! {
    /// `[peers.N]`
    RawPeer {
        address: PeerAddress,
    }
}

/// Every key of the schema with its path; `NAME` stands for a name the operator chooses.
#[cfg(test)]
pub(super) fn all_keys() -> Vec<String> {
    let mut keys = Vec::new();
    RawConfig::keys("", &mut keys);
    keys
}
