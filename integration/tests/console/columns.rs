//! Names, types and order of the columns of what PgBouncer shows too, as its source has them.
//! It must never be made to follow pgweir: the table is PgBouncer's.

use crate::{Shown, conf, console, show};

/// A letter for each type: `s` text, `i` int4, `q` int8, `N` numeric.
const TABLE: [(&str, &str, &str); 20] = [
    (
        "POOLS",
        "ssiiiiiiiiiiiiiss",
        "database, user, cl_active, cl_waiting, cl_active_cancel_req, cl_waiting_cancel_req, sv_active, sv_active_cancel, \
         sv_being_canceled, sv_idle, sv_used, sv_tested, sv_login, maxwait, maxwait_us, pool_mode, load_balance_hosts",
    ),
    (
        "DATABASES",
        "ssissiiiissiiiiii",
        "name, host, port, database, force_user, pool_size, min_pool_size, reserve_pool_size, server_lifetime, pool_mode, \
         load_balance_hosts, max_connections, current_connections, max_client_connections, current_client_connections, \
         paused, disabled",
    ),
    ("CLIENTS", SOCKET.0, SOCKET.1),
    ("SERVERS", SOCKET.0, SOCKET.1),
    ("SOCKETS", "ssssssisissiiississiiiiiiiii", ""),
    ("ACTIVE_SOCKETS", "ssssssisissiiississiiiiiiiii", ""),
    (
        "STATS",
        "sNNNNNNNNNNNNNNNNNNNNNN",
        "database, total_server_assignment_count, total_xact_count, total_query_count, total_received, total_sent, \
         total_xact_time, total_query_time, total_wait_time, total_client_parse_count, total_server_parse_count, \
         total_bind_count, avg_server_assignment_count, avg_xact_count, avg_query_count, avg_recv, avg_sent, \
         avg_xact_time, avg_query_time, avg_wait_time, avg_client_parse_count, avg_server_parse_count, avg_bind_count",
    ),
    (
        "STATS_TOTALS",
        "sNNNNNNNNNNN",
        "database, server_assignment_count, xact_count, query_count, bytes_received, bytes_sent, xact_time, query_time, \
         wait_time, client_parse_count, server_parse_count, bind_count",
    ),
    (
        "STATS_AVERAGES",
        "sNNNNNNNNNNN",
        "database, server_assignment_count, xact_count, query_count, bytes_received, bytes_sent, xact_time, query_time, \
         wait_time, avg_client_parse_count, avg_server_parse_count, avg_bind_count",
    ),
    ("TOTALS", "sN", "name, value"),
    ("CONFIG", "ssss", "key, value, default, changeable"),
    ("LISTS", "si", "list, items"),
    (
        "USERS",
        "ssssiiii",
        "name, pool_size, reserve_pool_size, pool_mode, max_user_connections, current_connections, \
         max_user_client_connections, current_client_connections",
    ),
    ("PEERS", "isii", "peer_id, host, port, pool_size"),
    ("PEER_POOLS", "iiiii", "peer_id, cl_active_cancel_req, cl_waiting_cancel_req, sv_active_cancel, sv_login"),
    ("MEM", "siiii", "name, size, used, free, memtotal"),
    ("STATE", "ss", "key, value"),
    ("DNS_HOSTS", "sqs", "hostname, ttl, addrs"),
    ("DNS_ZONES", "sqi", "zonename, serial, count"),
    ("VERSION", "s", "version"),
];

const SOCKET: (&str, &str) = (
    "ssssssisissiiississii",
    "type, user, database, replication, state, addr, port, local_addr, local_port, connect_time, request_time, wait, \
     wait_us, close_needed, ptr, link, remote_pid, tls, application_name, prepared_statements, id",
);
const BUFFERS: &str = "recv_pos, pkt_pos, pkt_remain, send_pos, send_remain, pkt_avail, send_avail";

fn oid(letter: char) -> u32 {
    match letter {
        's' => 25,
        'i' => 23,
        'q' => 20,
        'N' => 1700,
        other => panic!("no type {other}"),
    }
}

#[test]
fn they_are_those_of_pgbouncer() {
    let pgweir = conf().start();
    let mut client = console(&pgweir);
    for (name, types, names) in TABLE {
        let (types, names) = match names {
            "" => (format!("{}iiiiiii", SOCKET.0), format!("{}, {BUFFERS}", SOCKET.1)),
            names => (types.to_owned(), names.to_owned()),
        };
        let names = names.split(", ").map(str::trim);
        let expected: Vec<_> = names.map(str::to_owned).zip(types.chars().map(oid)).collect();
        assert_eq!(expected.len(), types.len(), "{name}");
        assert_eq!(show(&mut client, &format!("SHOW {name}")).columns, expected, "SHOW {name}");
        // As a statement they are the same.
        let frames =
            client.run(&integration::wire::Script::new().parse("", &format!("show {name};")).describe(b'S', "").sync());
        assert_eq!(crate::described(&frames[2]), expected, "SHOW {name}");
    }
}

/// Rows whose names tools look for.
#[test]
fn rows_have_the_names_of_pgbouncer() {
    let pgweir = conf().start();
    let mut client = console(&pgweir);
    let mut names = |sql: &str| show(&mut client, sql).rows.into_iter().map(|row| row[0].clone()).collect::<Vec<_>>();
    let lists = "databases users peers pools peer_pools free_clients used_clients login_clients free_servers used_servers \
                 dns_names dns_zones dns_queries dns_pending";
    assert_eq!(names("SHOW LISTS"), lists.split_ascii_whitespace().collect::<Vec<_>>());
    let counted = "server_assignment_count xact_count query_count client_bytes server_bytes xact_time query_time wait_time \
                   ps_client_parse_count ps_server_parse_count ps_bind_count";
    let totals =
        ["total", "avg"].iter().flat_map(|kind| counted.split_ascii_whitespace().map(move |it| format!("{kind}_{it}")));
    assert_eq!(names("SHOW TOTALS"), totals.collect::<Vec<_>>());
    assert_eq!(names("SHOW STATE"), ["active", "paused", "suspended"]);
    assert_eq!(names("SHOW STATS_TOTALS"), ["app", "pgbouncer"]);
    assert_eq!(names("SHOW DATABASES"), ["app", "pgbouncer"]);
    assert_eq!(names("SHOW POOLS"), ["pgbouncer"], "nobody else is there");
    assert_eq!(names("SHOW USERS"), ["app", "root", "watcher"]);
}

/// Every setting of the reference is there under its name, unless it belongs to a database, a user or `[auth]`.
#[test]
fn config_has_every_setting() {
    let pgweir = conf().pool("query_wait_timeout = \"7s\"").start();
    let mut client = console(&pgweir);
    let config: Shown = show(&mut client, "SHOW CONFIG");
    let row = |key: &str| ["value", "default", "changeable"].map(|column| config.value(("key", key), column));
    assert_eq!(row("query_wait_timeout"), ["7", "120", "yes"]);
    assert_eq!(row("port"), [pgweir.port().to_string(), "6432".into(), "no".into()]);
    assert_eq!(row("max_client_conn"), ["10000", "10000", "yes"]);
    assert_eq!(row("max_user_connections"), ["0", "0", "yes"]);
    assert_eq!(row("admin_users"), ["root", "", "yes"]);
    let reference = include_str!("../../../config/reference.toml");
    let mut section = String::new();
    for line in reference.lines() {
        let line = line.strip_prefix("# ").unwrap_or(line);
        if let Some(name) = line.strip_prefix('[') {
            section = name.trim_end_matches(']').to_owned();
        }
        let Some((key, _)) = line.split_once(" = ").filter(|(key, _)| !key.contains(' ')) else { continue };
        if !["", "listen", "stats", "console", "pool", "audit", "traces", "log"].contains(&section.as_str()) {
            continue;
        }
        let names = [key.to_owned(), format!("{section}.{key}")];
        assert!(config.rows.iter().any(|row| names.contains(&row[0])), "{section}: {key}");
    }
}
