//! The numbers behind the tables: what clients do is what is shown.
//! It must never expect two readings to be of one moment.

use crate::common::{Client, Conf, eventually};
use crate::{Shown, cluster, command, conf, console, show, with_console};
use integration::wire::Script;
use integration::{Cluster, DATABASE, USER};

fn number(shown: &Shown, key: (&str, &str), column: &str) -> i64 {
    shown.value(key, column).parse().unwrap()
}

#[test]
fn clients_and_servers_are_who_they_are() {
    let pgweir = conf().size(1).start();
    let mut admin = console(&pgweir);
    // Before there is no server any more to try their settings on.
    let named = |name| Client::connect_with(pgweir.port(), &[("application_name", name)]);
    let (mut holder, mut waiter, _idle) = (named("holder"), named("waiter"), named("idle"));
    holder.query("BEGIN").unwrap();
    waiter.send(&Script::new().query("SELECT 1"));
    let clients = |admin: &mut Client| show(admin, "SHOW CLIENTS WHERE database = 'app'");
    eventually("it waits", || clients(&mut admin).value(("application_name", "waiter"), "state") == "waiting");
    let clients = clients(&mut admin);
    assert_eq!(clients.rows.len(), 3);
    let of = |name: &str, column: &str| clients.value(("application_name", name), column);
    assert_eq!((of("holder", "state"), of("idle", "state")), ("active".into(), "idle".into()));
    assert_eq!(
        (of("holder", "type"), of("holder", "user"), of("holder", "addr")),
        ("C".into(), USER.into(), "127.0.0.1".into())
    );
    assert_eq!(of("holder", "local_port"), pgweir.port().to_string());
    assert!(of("waiter", "wait_us").parse::<u64>().unwrap() + of("waiter", "wait").parse::<u64>().unwrap() > 0);
    assert!(of("holder", "connect_time").ends_with(" UTC") && of("holder", "connect_time").starts_with("20"));
    let servers = show(&mut admin, "SHOW SERVERS");
    assert_eq!(servers.rows.len(), 1);
    let server = |column: &str| servers.value(("type", "S"), column);
    assert_eq!(
        (server("state"), server("link"), server("ptr")),
        ("active".into(), of("holder", "ptr"), of("holder", "link"))
    );
    assert_eq!(server("port"), cluster().primary().port().to_string());
    // The process is that which runs it.
    let active = "SELECT pid FROM pg_stat_activity WHERE application_name = 'holder'";
    assert_eq!(cluster().primary().query(active).unwrap(), [[server("remote_pid")]]);
    let pools = show(&mut admin, "SHOW POOLS");
    let pool = |column: &str| number(&pools, ("database", DATABASE), column);
    assert_eq!((pool("cl_active"), pool("cl_waiting"), pool("sv_active"), pool("sv_idle")), (2, 1, 1, 0));
    assert!(pool("maxwait") * 1_000_000 + pool("maxwait_us") > 0);
    assert_eq!(show(&mut admin, "SHOW ACTIVE_SOCKETS WHERE database = 'app'").rows.len(), 3);
    assert_eq!(show(&mut admin, "SHOW SOCKETS WHERE database = 'app'").rows.len(), 4);
    let users = show(&mut admin, "SHOW USERS");
    assert_eq!(
        (
            number(&users, ("name", USER), "current_connections"),
            number(&users, ("name", USER), "current_client_connections")
        ),
        (1, 3)
    );
    let lists = show(&mut admin, "SHOW LISTS");
    assert_eq!(
        (number(&lists, ("list", "used_clients"), "items"), number(&lists, ("list", "used_servers"), "items")),
        (4, 1)
    );
    let memory = show(&mut admin, "SHOW MEM");
    assert_eq!(number(&memory, ("name", "client"), "used"), 3);
    holder.query("COMMIT").unwrap();
    waiter.ready(1);
}

#[test]
fn totals_count_what_was_done_and_averages_follow() {
    let pgweir = conf().start();
    let mut admin = console(&pgweir);
    let mut client = Client::connect(pgweir.port());
    let totals = |admin: &mut Client| {
        let shown = show(admin, "SHOW STATS_TOTALS");
        ["xact_count", "query_count", "bytes_received", "bytes_sent"]
            .map(|it| number(&shown, ("database", DATABASE), it))
    };
    let before = totals(&mut admin);
    for _ in 0..10 {
        client.query("BEGIN").unwrap();
        client.query("SELECT 1").unwrap();
        client.query("COMMIT").unwrap();
    }
    let after = totals(&mut admin);
    let did: Vec<i64> = after.iter().zip(before).map(|(after, before)| after - before).collect();
    assert_eq!(did[..2], [10, 30]);
    assert!(did[2] > 30 * 10 && did[3] > 30 * 10, "{did:?}");
    // As pgweir is asked to average over a fifth of a second.
    eventually("it is an average", || {
        client.query("SELECT pg_sleep(0.001)").unwrap();
        let shown = show(&mut admin, "SHOW STATS_AVERAGES");
        let of = |column: &str| number(&shown, ("database", DATABASE), column);
        of("query_count") > 0 && of("xact_time") >= 1000 && of("query_time") >= 1000
    });
    let stats = show(&mut admin, "SHOW STATS");
    assert!(number(&stats, ("database", DATABASE), "total_query_count") >= after[1]);
    let all = show(&mut admin, "SHOW TOTALS");
    assert!(number(&all, ("name", "total_query_count"), "value") > after[1], "with those of the console");
    assert!(number(&all, ("name", "avg_query_count"), "value") > 0);
}

#[test]
fn queries_are_listed_ordered_and_explained() {
    let pgweir = conf().start();
    let mut admin = console(&pgweir);
    let mut client = Client::connect(pgweir.port());
    client.query("SELECT pg_sleep(0.05)").unwrap();
    for n in 0..5 {
        client.query(&format!("SELECT {n} AS often")).unwrap();
        assert!(client.query("SELECT 1 / 0 AS wrong").is_err());
    }
    client.query("SELECT 1 AS rare").unwrap();
    let first = |admin: &mut Client, by: &str| {
        let shown = show(admin, &format!("SHOW QUERIES BY {by} LIMIT 1"));
        let at = shown.columns.iter().position(|(name, _)| name == "query").unwrap();
        shown.rows[0][at].clone()
    };
    eventually("all are counted", || show(&mut admin, "SHOW QUERIES WHERE query LIKE '%rare%'").rows.len() == 1);
    assert!(first(&mut admin, "errors").contains("wrong"));
    for (by, column) in [("total", "total_us"), ("p99", "p99_us"), ("calls", "calls"), ("errors", "errors")] {
        let shown = show(&mut admin, &format!("SHOW QUERIES BY {by}"));
        let at = shown.columns.iter().position(|(name, _)| name == column).unwrap();
        let numbers: Vec<u64> = shown.rows.iter().map(|row| row[at].parse().unwrap()).collect();
        assert!(numbers.len() >= 4 && numbers.is_sorted_by(|one, next| one >= next), "{by}: {numbers:?}");
    }
    let often = show(&mut admin, "SHOW QUERIES WHERE query LIKE '%often%'");
    assert_eq!(often.rows.len(), 1);
    let of = |column: &str| often.value(("database", DATABASE), column);
    assert_eq!((of("calls"), of("errors"), of("rows"), of("user")), ("5".into(), "0".into(), "5".into(), USER.into()));
    assert!(!of("query").contains('3'), "a value is shown: {}", of("query"));
    let slow = show(&mut admin, "SHOW QUERIES WHERE p99_us > 40000 AND query LIKE '%sleep%'");
    assert_eq!(slow.rows.len(), 1);
    let shape = show(&mut admin, &format!("SHOW SHAPE {}", of("shape")));
    let item = |name: &str| shape.value(("item", name), "value");
    assert_eq!((item("calls"), item("verdict"), item("reason")), ("5".into(), "replica".into(), "pure_read".into()));
    assert!(item("server_p99_us").parse::<u64>().unwrap() <= item("total_max_us").parse::<u64>().unwrap() * 106 / 100);
    assert!(command(&mut admin, "SHOW SHAPE 0123456789abcdef").unwrap_err().starts_with("42704"));
    assert!(command(&mut admin, "SHOW SHAPE nonsense").unwrap_err().starts_with("22P02"));
}

#[test]
fn routing_is_explained_with_the_live_hosts_and_catalog() {
    let cluster = Cluster::builder().replicas(1).start().unwrap();
    cluster
        .primary()
        .query_in(DATABASE, "CREATE FUNCTION writes() RETURNS int LANGUAGE sql AS 'SELECT nextval(''s'')::int'")
        .unwrap_err();
    cluster
        .primary()
        .query_in(
            DATABASE,
            "CREATE SEQUENCE s; CREATE FUNCTION writes() RETURNS int LANGUAGE sql AS 'SELECT nextval(''s'')::int'; \
             CREATE FUNCTION reads() RETURNS int STABLE LANGUAGE sql AS 'SELECT 1'",
        )
        .unwrap();
    let pgweir = with_console(Conf::trust(&cluster)).start();
    let mut admin = console(&pgweir);
    let mut client = Client::connect(pgweir.port());
    let explain = |admin: &mut Client, sql: &str| {
        let rows = admin.query(&format!("EXPLAIN ROUTE {sql}")).unwrap_or_else(|error| panic!("{sql}: {error}"));
        rows.into_iter().flatten().collect::<Vec<_>>().join("\n") + "\n"
    };
    eventually("the catalog was read", || {
        client.query("SELECT reads()").unwrap();
        explain(&mut admin, "SELECT reads()").contains("catalog:   as ")
    });
    let told = explain(&mut admin, "SELECT reads()");
    assert!(told.contains("verdict:   replica\n") && told.contains("reason:    stable_read ("), "{told}");
    let (primary, replica) = (cluster.primary().address(), cluster.replicas()[0].address());
    assert!(told.contains(&format!("host:      {primary}: primary\n")), "{told}");
    assert!(told.contains(&format!("host:      {replica}: standby\n")), "{told}");
    let told = explain(&mut admin, &format!("ON {DATABASE} AS {USER} SELECT writes();"));
    assert!(told.contains("verdict:   primary\n"), "{told}");
    // The same as the command line says, but for the hosts.
    let mut line = integration::command(integration::proxy::program().unwrap()).unwrap();
    let done = line
        .args(["explain-route", "-u", USER, "--config"])
        .arg(pgweir.config_file())
        .arg("DELETE FROM t")
        .output()
        .unwrap();
    let told = explain(&mut admin, "DELETE FROM t");
    assert!(told.starts_with(&*String::from_utf8_lossy(&done.stdout)), "{told}\n{done:?}");
    client.query("SELECT reads()").unwrap();
    let routing = show(&mut admin, "SHOW ROUTING WHERE query LIKE '%reads%'");
    let of = |column: &str| routing.value(("database", DATABASE), column);
    assert_eq!(
        [of("verdict"), of("reason"), of("catalog"), of("refused"), of("lanes")],
        ["catalog", "function_unknown", "timed", "0", "unknown"]
    );
    assert!(of("calls").parse::<u64>().unwrap() > 0);
    let hosts = show(&mut admin, "SHOW REPLICAS");
    let of = |host: &str, column: &str| hosts.value(("host", host), column);
    assert_eq!((of(&primary, "role"), of(&replica, "role")), ("primary".into(), "standby".into()));
    assert_eq!(
        (of(&replica, "up"), of(&replica, "breaker"), of(&replica, "timeline")),
        ("1".into(), "closed".into(), "1".into())
    );
    assert!(of(&replica, "lsn").contains('/') && of(&replica, "lag_bytes").parse::<u64>().is_ok(), "{hosts:?}");
    cluster.replicas()[0].stop(integration::Stop::Fast).unwrap();
    eventually("it is down", || show(&mut admin, "SHOW REPLICAS").value(("host", &replica), "role") == "down");
}

/// Whoever stands first in the configuration.
#[test]
fn the_console_names_the_primary() {
    let cluster = Cluster::builder().replicas(1).start().unwrap();
    let (primary, replica) = (cluster.primary().address(), cluster.replicas()[0].address());
    let hosts = integration::cluster::host_lines(&[replica, primary.clone()]);
    let conf = Conf::database_only(&hosts).listen("auth_type = \"trust\"").user(USER, "");
    let pgweir = with_console(conf).start();
    let _client = Client::connect(pgweir.port());
    let mut admin = console(&pgweir);
    eventually("it is named", || {
        let rows = admin.query("EXPLAIN ROUTE DELETE FROM fish").unwrap();
        rows.concat().contains(&format!("server:    {primary} (primary)"))
    });
}

/// Whoever stands first in the configuration.
#[test]
fn the_command_line_finds_the_primary() {
    let cluster = Cluster::builder().replicas(1).sql("CREATE TABLE fish (n int)").start().unwrap();
    let (primary, replica) = (cluster.primary().address(), cluster.replicas()[0].address());
    let hosts = integration::cluster::host_lines(&[replica.clone(), primary.clone()]);
    let pgweir = Conf::database_only(&hosts).listen("auth_type = \"trust\"").user(USER, "").start();
    let explain = |arguments: &[&str]| {
        let mut line = integration::command(integration::proxy::program().unwrap()).unwrap();
        line.arg("explain-route").args(arguments).arg("--config").arg(pgweir.config_file());
        String::from_utf8(line.output().unwrap().stdout).unwrap()
    };
    let told = explain(&["-u", USER, "DELETE FROM fish"]);
    assert!(told.contains(&format!("server:    {primary} (primary)\n")), "{told}");
    let told = explain(&["-u", USER, "SELECT * FROM fish"]);
    assert!(told.contains(&format!("server:    {replica}; {primary} (primary) while")), "{told}");
    assert!(told.contains(&format!("catalog:   as {primary} has it\n")), "{told}");
    let told = explain(&["SELECT * FROM fish"]);
    assert!(told.contains("nobody to log in as: give --user\n"), "{told}");
}

#[test]
fn who_keeps_a_server_is_listed() {
    let pgweir = conf().start();
    let mut admin = console(&pgweir);
    let mut client = Client::connect_with(pgweir.port(), &[("application_name", "keeper")]);
    client.query("CREATE TEMP TABLE kept (n int)").unwrap();
    eventually("it is listed", || show(&mut admin, "SHOW PINNED").rows.len() == 1);
    let pinned = show(&mut admin, "SHOW PINNED");
    let of = |column: &str| pinned.value(("application_name", "keeper"), column);
    assert_eq!((of("database"), of("user"), of("reason")), (DATABASE.into(), USER.into(), "temp table".into()));
    assert!(of("statement").contains("create temp table kept") || of("statement").contains("CREATE TEMP TABLE kept"));
}

#[test]
fn lanes_are_listed() {
    // Fast is so also where much else runs.
    let pgweir = conf().pool("lane_fast = \"50ms\"").size(2).start();
    let mut admin = console(&pgweir);
    let mut clients: Vec<Client> = (0..8).map(|_| Client::connect(pgweir.port())).collect();
    eventually("some ride", || {
        for _ in 0..20 {
            clients.iter_mut().for_each(|client| client.send(&Script::new().query("SELECT 1 AS ride")));
            clients.iter_mut().for_each(|client| drop(client.ready(1)));
        }
        let lanes = show(&mut admin, "SHOW LANES");
        number(&lanes, ("user", USER), "rides") > 0
    });
    let lanes = show(&mut admin, "SHOW LANES");
    assert!(number(&lanes, ("user", USER), "unfit_unknown") > 0, "{lanes:?}");
    assert_eq!(lanes.value(("user", USER), "role"), "primary");
    // By shape, too.
    ["BEGIN", "COMMIT"].iter().for_each(|sql| drop(clients[0].query(sql).unwrap()));
    let of = |admin: &mut Client, text: &str| {
        let shapes = show(admin, &format!("SHOW ROUTING WHERE user = '{USER}' AND query LIKE '{text}'"));
        shapes.value(("user", USER), "lanes")
    };
    assert_eq!(of(&mut admin, "%as ride"), "rides");
    assert_eq!(of(&mut admin, "begin"), "verdict");
}

/// Behind a proxy a client comes from where the proxy says, not from the proxy.
#[test]
fn the_address_is_the_clients_own() {
    let pgweir = conf().listen("proxy_protocol = [\"127.0.0.0/8\"]").start();
    let from = |address: &str, parameters: &[(&str, &str)]| {
        let mut client = Client::tcp(pgweir.port());
        client.write(format!("PROXY TCP4 {address} 127.0.0.1 5555 {}\r\n", pgweir.port()).as_bytes());
        client.startup(0, parameters);
        client.welcome().unwrap();
        client
    };
    let _client = from("192.0.2.7", &[]);
    let mut admin = from("192.0.2.8", &[("user", "root"), ("database", "pgweir")]);
    let clients = show(&mut admin, "SHOW CLIENTS");
    let of = |user: &str| ["addr", "port", "local_addr"].map(|column| clients.value(("user", user), column));
    assert_eq!(of(USER), ["192.0.2.7", "5555", "127.0.0.1"]);
    assert_eq!(of("root"), ["192.0.2.8", "5555", "127.0.0.1"]);
}
