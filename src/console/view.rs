//! What `SHOW` can show, and the columns of each.
//! Must never give those that PgBouncer has too other columns than it does: tools read them by name, number and type.

use super::select::Literal;
use super::table::{Column, columns};

/// What `SHOW QUERIES` is ordered by.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) enum By {
    #[default]
    Total,
    P99,
    Calls,
    Errors,
}

impl By {
    pub fn named(name: &str) -> Option<Self> {
        Some(match name.to_ascii_lowercase().as_str() {
            "total" => Self::Total,
            "p99" => Self::P99,
            "calls" => Self::Calls,
            "errors" => Self::Errors,
            _ => return None,
        })
    }
}

/// Something to be shown.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum View {
    ActiveSockets,
    Advice,
    Alerts,
    Blocked,
    Cache,
    Clients,
    Config,
    Databases,
    DnsHosts,
    DnsZones,
    Health,
    Lanes,
    Lists,
    Mem,
    PeerPools,
    Peers,
    Pinned,
    Plans,
    Pools,
    Queries(By),
    Replicas,
    Routing,
    Servers,
    Shape(Literal),
    Slow,
    Sockets,
    State,
    Stats,
    StatsAverages,
    StatsTotals,
    Totals,
    Users,
    Version,
}

/// Columns of `SHOW STATS`: what is counted since the start, and per second of the last period.
const STATS: (&str, &str) = (
    "sNNNNNNNNNNNNNNNNNNNNNN",
    "database total_server_assignment_count total_xact_count total_query_count total_received total_sent \
     total_xact_time total_query_time total_wait_time total_client_parse_count total_server_parse_count \
     total_bind_count avg_server_assignment_count avg_xact_count avg_query_count avg_recv avg_sent \
     avg_xact_time avg_query_time avg_wait_time avg_client_parse_count avg_server_parse_count \
     avg_bind_count",
);

const SOCKET: (&str, &str) = (
    "ssssssisiTTiiississii",
    "type user database replication state addr port local_addr local_port connect_time request_time wait wait_us \
     close_needed ptr link remote_pid tls application_name prepared_statements id",
);
/// Behind those of [`SOCKET`].
const BUFFERS: (&str, &str) = ("iiiiiii", "recv_pos pkt_pos pkt_remain send_pos send_remain pkt_avail send_avail");

impl View {
    /// What `SHOW name` means; the name in lower case.
    pub fn named(name: &str) -> Option<Self> {
        Some(match name {
            "active_sockets" => Self::ActiveSockets,
            "advice" => Self::Advice,
            "alerts" => Self::Alerts,
            "blocked" => Self::Blocked,
            "cache" => Self::Cache,
            "clients" => Self::Clients,
            "config" => Self::Config,
            "databases" => Self::Databases,
            "dns_hosts" => Self::DnsHosts,
            "dns_zones" => Self::DnsZones,
            "health" => Self::Health,
            "lanes" => Self::Lanes,
            "lists" => Self::Lists,
            "mem" => Self::Mem,
            "peer_pools" => Self::PeerPools,
            "peers" => Self::Peers,
            "pinned" => Self::Pinned,
            "plans" => Self::Plans,
            "pools" => Self::Pools,
            "queries" => Self::Queries(By::Total),
            "replicas" => Self::Replicas,
            "routing" => Self::Routing,
            "servers" => Self::Servers,
            "shape" => Self::Shape(Literal::Text(String::new())),
            "slow" => Self::Slow,
            "sockets" => Self::Sockets,
            "state" => Self::State,
            "stats" => Self::Stats,
            "stats_averages" => Self::StatsAverages,
            "stats_totals" => Self::StatsTotals,
            "totals" => Self::Totals,
            "users" => Self::Users,
            "version" => Self::Version,
            _ => return None,
        })
    }

    /// Its columns: a letter for the type of each (`T` is a time, as text), and their names.
    pub fn columns(&self) -> Vec<Column> {
        let (types, names) = match self {
            Self::ActiveSockets | Self::Sockets => {
                let [socket, buffers] = [SOCKET, BUFFERS].map(|(types, names)| columns(types, names));
                return [socket, buffers].concat();
            }
            Self::Advice => ("sssqqssss", "kind database user count time_us shape what action query"),
            Self::Alerts => ("sssssssss", "alert severity state since labels value threshold summary action"),
            Self::Blocked => ("ssTsqs", "shape database since blocked_by refused query"),
            Self::Cache => (
                "sssssqsqqqqqqqqqqqsqqqqqqqqqqsqq",
                "database mode invalidation bound stream stream_age_us signals entries bytes max_bytes hits misses absent \
                 expired older changed signalled bypasses hit_ratio fills evictions refused verified mismatches disabled \
                 early stale warmed warm_failed redis redis_hits redis_misses",
            ),
            Self::Clients | Self::Servers => SOCKET,
            Self::Config => ("ssss", "key value default changeable"),
            Self::Databases => (
                "ssissiiiissiiiiii",
                "name host port database force_user pool_size min_pool_size reserve_pool_size server_lifetime pool_mode \
                 load_balance_hosts max_connections current_connections max_client_connections \
                 current_client_connections paused disabled",
            ),
            Self::DnsHosts => ("sqs", "hostname ttl addrs"),
            Self::DnsZones => ("sqi", "zonename serial count"),
            Self::Health => ("siss", "item points what action"),
            Self::Lanes => (
                "ssssiiqqqqqqqqqqqqqqq",
                "database user host role open riders rides queued_us writes repeats stalls resends unfit_verdict \
                 unfit_alone unfit_pipeline unfit_session unfit_batch unfit_unknown unfit_slow \
                 unfit_stalled unfit_no_server",
            ),
            Self::Lists => ("si", "list items"),
            Self::Mem => ("siiii", "name size used free memtotal"),
            Self::PeerPools => {
                ("iiiii", "peer_id cl_active_cancel_req cl_waiting_cancel_req sv_active_cancel sv_login")
            }
            Self::Peers => ("isii", "peer_id host port pool_size"),
            Self::Pinned => ("issssqs", "pid database user application_name reason age_us statement"),
            Self::Pools => (
                "ssiiiiiiiiiiiiiss",
                "database user cl_active cl_waiting cl_active_cancel_req cl_waiting_cancel_req sv_active \
                 sv_active_cancel sv_being_canceled sv_idle sv_used sv_tested sv_login maxwait maxwait_us pool_mode \
                 load_balance_hosts",
            ),
            Self::Queries(_) => (
                "sssqqqqqqqqqqqs",
                "shape database user calls errors rows total_us wait_us server_us p50_us p95_us p99_us max_us \
                 missed_us_max query",
            ),
            Self::Plans => ("sssTTqqqqiss", "shape database user first last seen calls mean_us cost current host plan"),
            Self::Replicas => {
                ("sssiisqqqsq", "database host role up timeline lsn lag_bytes lag_us latency_us breaker breaker_opens")
            }
            Self::Routing => {
                ("sssqsssisss", "shape database user calls verdict reason catalog refused cache lanes query")
            }
            Self::Shape(_) => ("sssss", "shape database user item value"),
            Self::Slow => (
                "Tsssssqqqqqsqissssss",
                "time shape database user host role total_us wait_us first_byte_us server_us rows sqlstate lag_us lane client \
                 application_name query cache tags parameters",
            ),
            Self::State => ("ss", "key value"),
            Self::Stats => STATS,
            Self::StatsAverages => (
                "sNNNNNNNNNNN",
                "database server_assignment_count xact_count query_count bytes_received bytes_sent xact_time \
                 query_time wait_time avg_client_parse_count avg_server_parse_count avg_bind_count",
            ),
            Self::StatsTotals => (
                "sNNNNNNNNNNN",
                "database server_assignment_count xact_count query_count bytes_received bytes_sent xact_time \
                 query_time wait_time client_parse_count server_parse_count bind_count",
            ),
            Self::Totals => ("sN", "name value"),
            Self::Users => (
                "ssssiiii",
                "name pool_size reserve_pool_size pool_mode max_user_connections current_connections \
                 max_user_client_connections current_client_connections",
            ),
            Self::Version => ("s", "version"),
        };
        columns(types, names)
    }
}

/// What `SHOW HELP` says.
pub(super) const HELP: &str = "
	SHOW HELP|CONFIG|DATABASES|POOLS|CLIENTS|SERVERS|USERS|VERSION|LISTS|STATE|MEM
	SHOW STATS|STATS_TOTALS|STATS_AVERAGES|TOTALS
	SHOW SOCKETS|ACTIVE_SOCKETS|PEERS|PEER_POOLS|DNS_HOSTS|DNS_ZONES
	SHOW QUERIES [BY total|p99|calls|errors]
	SHOW SLOW|PLANS
	SHOW SHAPE shape
	SHOW ROUTING|REPLICAS|LANES|PINNED|CACHE|ALERTS|HEALTH|ADVICE|BLOCKED
	    each with [WHERE column op value [AND ..]] [ORDER BY column [DESC]] [LIMIT n]
	EXPLAIN ROUTE [ON database] [AS user] statement
	INVALIDATE TABLE [schema.]table|TAG tag|SHAPE shape|PATTERN 'pattern' [IN database]
	INVALIDATE DATABASE database
	INVALIDATE ALL
	WARM CACHE [database]
	BLOCK SHAPE shape [IN database]      until ALLOW, or the end of the program
	ALLOW SHAPE shape [IN database]
	RESET STATS      of SHOW QUERIES, SHAPE, ROUTING, SLOW and PLANS; metrics and SHOW STATS count on
	SET setting = value                  as the configuration file could have it, until RELOAD
	RELOAD
	PAUSE [database]
	RESUME [database]
	DISABLE database
	ENABLE database
	RECONNECT [database]
	KILL [database]
	KILL_CLIENT id
	WAIT_CLOSE [database]
	SHUTDOWN
	SHUTDOWN WAIT_FOR_SERVERS|WAIT_FOR_CLIENTS";
