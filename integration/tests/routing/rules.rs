//! Rules, groups and workload pools, seen from the servers: where each kind of work runs, on how many of them, and what does not.
//! It must never share a cluster with tests that count servers of their own.

use std::sync::OnceLock;
use std::time::{Duration, Instant};

use crate::common::client::{said, tags};
use crate::common::{Client, Conf, crowd, eventually, metric};
use crate::{mark, runs, until_read};
use integration::metrics::parse;
use integration::wire::Script;
use integration::{Cluster, DATABASE, Pgweir};

fn start_cluster() -> Cluster {
    let sql = "CREATE ROLE analytics LOGIN; CREATE ROLE reporting LOGIN; CREATE SCHEMA archive;
        CREATE TABLE fish (id int PRIMARY KEY); INSERT INTO fish SELECT generate_series(1, 100);
        CREATE TABLE ledger (id int); CREATE TABLE archive.fish (id int);
        GRANT ALL ON fish, ledger, archive.fish TO app, analytics, reporting; GRANT USAGE ON SCHEMA archive TO app";
    Cluster::builder().replicas(2).setting("log_statement", "all").sql(sql).start().unwrap()
}

/// One for the tests that leave it as it is.
fn cluster() -> &'static Cluster {
    static CLUSTER: OnceLock<Cluster> = OnceLock::new();
    CLUSTER.get_or_init(start_cluster)
}

/// With these sections, in which `%` stands for the database, and each replica as a group.
fn conf(cluster: &Cluster, sections: &str) -> Conf {
    let [first, second] = [0, 1].map(|number: usize| cluster.replicas()[number].address());
    let groups = format!("[%.groups]\nreplica-1 = [\"{first}\"]\nreplica-2 = [\"{second}\"]\n");
    let sections = format!("{groups}{sections}").replace('%', &format!("databases.{DATABASE}"));
    Conf::trust(cluster).user("analytics", "").user("reporting", "").size(8).rest(&sections)
}

fn named(pgweir: &Pgweir, application: &str) -> Client {
    Client::connect_with(pgweir.port(), &[("application_name", application)])
}

fn user(pgweir: &Pgweir, name: &str) -> Client {
    Client::connect_with(pgweir.port(), &[("user", name)])
}

/// Runs a statement until it runs where it should, and then ten times there and nowhere else.
fn settles(client: &mut Client, name: &str, sql: &str, server: usize) {
    let cluster = cluster();
    let first = mark(&format!("{name} {server} settles"));
    eventually(name, || {
        client.query(&format!("{sql} {first}")).unwrap();
        runs(cluster, &first)[server] > 0
    });
    let then = mark(&format!("{name} {server} then"));
    (0..10).for_each(|_| drop(client.query(&format!("{sql} {then}")).unwrap()));
    let mut expected = vec![0; 3];
    expected[server] = 10;
    assert_eq!(runs(cluster, &then), expected, "{name}");
}

/// How many sessions of these the primary has.
fn sessions(of: &str) -> String {
    let sql = format!("SELECT count(*) FROM pg_stat_activity WHERE datname = '{DATABASE}' AND {of}");
    cluster().primary().value_in("postgres", &sql).unwrap()
}

#[test]
fn each_goes_where_its_rule_says() {
    let sections = r#"
        [[%.rules]]
        user = "analytics"
        group = "replica-1"
        [[%.rules]]
        user = "report*"
        group = "replica-2"
        [[%.rules]]
        tag = { route = "/export*" }
        group = "replica-2"
        [[%.rules]]
        schema = "archive"
        group = "replica-1"
        [[%.rules]]
        table = "ledger"
        group = "primary"
        "#;
    let pgweir = conf(cluster(), sections).start();
    let mut analytics = user(&pgweir, "analytics");
    settles(&mut analytics, "analytics", "SELECT count(*) FROM fish", 1);
    settles(&mut user(&pgweir, "reporting"), "reporting", "SELECT count(*) FROM fish", 2);
    let mut app = Client::connect(pgweir.port());
    settles(&mut app, "export", "SELECT count(*) FROM fish /*action='x',route='%2Fexport%2Fall'*/", 2);
    settles(&mut app, "archive", "SELECT count(*) FROM archive.fish", 1);
    settles(&mut app, "ledger", "SELECT count(*) FROM ledger", 0);
    until_read(cluster(), &mut app, "all others", |runs| runs[1] > 0 && runs[2] > 0);
    // Nobody's writes go anywhere but to the primary, and what follows them is seen.
    let write = mark("of analytics");
    analytics.query(&format!("INSERT INTO archive.fish SELECT 1 WHERE false {write}")).unwrap_err();
    analytics.query(&format!("INSERT INTO ledger VALUES (1) {write}")).unwrap();
    assert_eq!(analytics.value("SELECT count(*) FROM ledger"), "1");
    assert_eq!(runs(cluster(), &write), [2, 0, 0]);
    // Prepared statements, by name and without.
    for name in ["", "named"] {
        let mark = mark(&format!("prepared '{name}'"));
        let sql = format!("SELECT count(*) FROM archive.fish {mark}");
        app.run(&Script::new().parse(name, &sql).sync());
        let script = Script::new().bind("", name, &[]).execute("", 0).sync();
        eventually("archive, prepared", || {
            assert_eq!(tags(&app.run(&script)), "2DCZ");
            runs(cluster(), &mark)[1] > 0
        });
        let before = runs(cluster(), &mark);
        (0..5).for_each(|_| drop(app.run(&script)));
        assert_eq!(runs(cluster(), &mark), [before[0], before[1] + 5, before[2]]);
    }
}

#[test]
fn a_group_may_have_the_primary() {
    let sections = format!(
        "[[%.rules]]\napplication_name = \"both\"\ngroup = \"both\"\n[%.groups]\nboth = [\"{}\", \"{}\"]\n",
        cluster().primary().address(),
        cluster().replicas()[1].address()
    );
    let groups = "[%.groups]\n".replace('%', &format!("databases.{DATABASE}"));
    let text = conf(cluster(), "").text();
    let sections = sections.replace('%', &format!("databases.{DATABASE}"));
    let (rule, both) = sections.split_once(&groups).unwrap();
    let pgweir = Pgweir::start(&(text.replace(&groups, &format!("{groups}{both}")) + rule)).unwrap();
    let mut client = named(&pgweir, "both");
    until_read(cluster(), &mut client, "the primary and the second", |runs| runs[0] > 3 && runs[2] > 3);
    let then = mark("both then");
    (0..20).for_each(|_| drop(client.query(&format!("SELECT 1 {then}")).unwrap()));
    let runs = runs(cluster(), &then);
    assert_eq!((runs[1], runs[0] + runs[2]), (0, 20));
}

/// So many clients, each with a transaction open.
fn busy(count: usize, connect: impl Fn() -> Client) -> Vec<Client> {
    let mut clients: Vec<Client> = (0..count).map(|_| connect()).collect();
    clients.iter_mut().for_each(|client| drop(client.query("BEGIN").unwrap()));
    clients
}

#[test]
fn workloads_have_servers_and_waits_of_their_own() {
    let sections = r#"
        [%.pools.orders]
        pool_size = 30
        query_wait_timeout = "2s"
        [%.pools.reporting]
        pool_size = 10
        query_wait_timeout = "30s"
        [[%.rules]]
        application_name = "orders*"
        pool = "orders"
        [[%.rules]]
        user = "reporting"
        pool = "reporting"
        "#;
    // Several workers, so that the limits are seen to be those of all.
    let pgweir = conf(cluster(), sections).top("workers = 2").start();
    let mut orders = busy(30, || named(&pgweir, "orders-eu"));
    let mut reporting = busy(10, || user(&pgweir, "reporting"));
    assert_eq!(sessions("application_name = 'orders-eu' AND state LIKE 'idle in%'"), "30");
    assert_eq!(sessions("usename = 'reporting' AND state LIKE 'idle in%'"), "10");
    let (mut late, mut waits) = (named(&pgweir, "orders-eu"), user(&pgweir, "reporting"));
    let since = Instant::now();
    late.send(&Script::new().query("BEGIN"));
    waits.send(&Script::new().query("BEGIN"));
    // Others do not know that these are all taken.
    Client::connect(pgweir.port()).query("UPDATE fish SET id = id WHERE id = 1").unwrap();
    let frames = late.ready(1);
    let told = frames.iter().find(|frame| frame.tag == b'E').unwrap();
    assert!(since.elapsed() >= Duration::from_secs(2), "{:?}", since.elapsed());
    assert_eq!(said(told), "53300 pgweir: no server connection became free within 2 s");
    assert!(told.field(b'H').unwrap().contains("the pool \"orders\""));
    assert!(!waits.speaks_within(Duration::from_millis(1)), "the other waits for longer");
    for pool in [("orders", 30.0), ("reporting", 10.0)] {
        let count = || metric(&pgweir, "pgweir_pool_server_connections", &[("pool", pool.0)]);
        eventually("as many in the metrics", || count() == pool.1);
    }
    // Whoever gets free is for the one that waits.
    reporting[0].query("COMMIT").unwrap();
    waits.patience(Duration::from_secs(30));
    assert_eq!(tags(&waits.ready(1)), "CZ");
    assert_eq!(sessions("usename = 'reporting' AND state LIKE 'idle in%'"), "10");
    orders[7].query("ROLLBACK").unwrap();
    late.query("BEGIN").unwrap();
    assert_eq!(sessions("application_name LIKE 'orders%' AND state LIKE 'idle in%'"), "30");
}

#[test]
fn users_share_a_workload() {
    let sections = "[%.pools.few]\npool_size = 3\nquery_wait_timeout = \"200ms\"\n[[%.rules]]\nuser = [\"analytics\", \"reporting\"]\npool = \"few\"\n";
    let pgweir = conf(cluster(), sections).start();
    let mut clients = busy(2, || user(&pgweir, "analytics"));
    clients.extend(busy(1, || user(&pgweir, "reporting")));
    let refused = user(&pgweir, "reporting").query("BEGIN").unwrap_err();
    assert!(refused.starts_with("53300"), "{refused}");
    clients[0].query("ROLLBACK").unwrap();
    // The server that one of them has left makes room for the other's.
    eventually("it has a server", || user(&pgweir, "reporting").query("SELECT 1").is_ok());
}

#[test]
fn a_transaction_stays_where_it_began() {
    let sections =
        "[%.pools.ledger]\npool_size = 2\n[[%.rules]]\ntable = \"ledger\"\npool = \"ledger\"\ntimeout = \"100ms\"\n";
    let pgweir = conf(cluster(), sections).start();
    let mut client = Client::connect(pgweir.port());
    // Alone it would be answered with the number that the client was told.
    let pid = "SELECT pg_backend_pid() FROM (SELECT 1) one";
    let of_ledger = "SELECT pg_backend_pid() FROM (SELECT count(*) FROM ledger) l";
    client.query("BEGIN").unwrap();
    let began = client.value(pid);
    assert_eq!(client.value(of_ledger), began);
    client.query("SELECT pg_sleep(0.3), count(*) FROM ledger").unwrap();
    client.query("COMMIT").unwrap();
    assert_ne!(client.value(of_ledger), began);
    // Also when the next batch comes in the same write.
    let both = Script::new().query(pid).query(of_ledger).query(pid);
    client.send(&both);
    let frames = client.ready(3);
    let rows = frames.iter().filter(|frame| frame.tag == b'D').map(|frame| frame.row()[0].clone().unwrap());
    let [before, inside, after] = rows.collect::<Vec<_>>().try_into().unwrap();
    assert!(before == after && before != inside, "{before:?} {inside:?} {after:?}");
    // A client that keeps a server keeps it.
    client.query("CREATE TEMP TABLE mine ()").unwrap();
    let kept = client.value(pid);
    assert_eq!(client.value(of_ledger), kept);
}

/// The shape of a statement with this text, as the metrics name it.
fn shape_of(pgweir: &Pgweir, text: &str) -> String {
    let mut shape = None;
    eventually("the shape is there", || {
        let samples = parse(&pgweir.metrics().unwrap()).unwrap();
        let sample = samples.iter().find(|sample| sample.label("query").contains(text));
        shape = sample.map(|sample| sample.label("shape").to_owned());
        shape.is_some()
    });
    shape.unwrap()
}

#[test]
fn what_a_rule_refuses_does_not_run() {
    let plain = conf(cluster(), "");
    let pgweir = plain.start();
    let mut client = Client::connect(pgweir.port());
    client.query("SELECT 4711, count(*) FROM fish WHERE id > 1").unwrap();
    let shape = shape_of(&pgweir, "where id >");
    let rules = format!(
        "[[%.rules]]\nname = \"exports\"\nshape = \"0x{shape}\"\nrefuse = \"use the export API\"\n\
         [[%.rules]]\ntable = \"ledger\"\nuser = \"app\"\nrefuse = \"not that\"\n\
         [[%.rules]]\nuser = \"analytics\"\nrefuse = \"go away\"\n"
    );
    pgweir.reload(&conf(cluster(), &rules).text()).unwrap();
    let mark = mark("refused");
    let sql = format!("SELECT 1, count(*) FROM fish WHERE id > 99 {mark}");
    eventually("it is refused", || client.query(&sql).is_err());
    let frames = client.run(&Script::new().query(&sql));
    let told = frames.iter().find(|frame| frame.tag == b'E').unwrap();
    assert_eq!(said(told), "42501 pgweir: use the export API");
    assert!(told.field(b'D').unwrap().contains("Rule \"exports\" of database \"app\""));
    let before: usize = runs(cluster(), &mark).iter().sum();
    // In the extended protocol, with what follows in the batch; and the next batch is as it was.
    let script = Script::new().parse("", &sql).bind("", "", &[]).execute("", 0).sync();
    assert_eq!(tags(&client.run(&script)), "EZ");
    let two = Script::new().query(&sql).query(&format!("SELECT 2 {mark}"));
    client.send(&two);
    assert_eq!(tags(&client.ready(2)), "EZTDCZ");
    assert_eq!(runs(cluster(), &mark).iter().sum::<usize>(), before + 1);
    assert_eq!(client.query("INSERT INTO ledger VALUES (1)").unwrap_err(), "42501 pgweir: not that");
    assert_eq!(user(&pgweir, "analytics").query("SELECT 1").unwrap_err(), "42501 pgweir: go away");
    // Where a session has one server from its login to its end it is told at its login.
    let text = conf(cluster(), &rules).pool("pool_mode = \"session\"").text();
    pgweir.reload(&text).unwrap();
    eventually("it cannot come in", || {
        let mut client = Client::tcp(pgweir.port());
        client.startup(0, &[("user", "analytics")]);
        client.welcome().is_err_and(|error| said(&error) == "42501 pgweir: go away")
    });
}

#[test]
fn a_rate_is_kept_by_waiting() {
    let rules = "[[%.rules]]\ntag = { job = \"slow\" }\nrate = 5\n";
    let pgweir = conf(cluster(), rules).top("workers = 2").start();
    let (since, port) = (Instant::now(), pgweir.port());
    let mark = mark("of a rate");
    let sql = format!("SELECT 1 /*job='slow'*/ {mark}");
    let each = sql.clone();
    crowd(4, move |_| {
        let mut client = Client::connect(port);
        (0..4).for_each(|_| drop(client.query(&each).unwrap()));
    });
    // Five at once, the others at five a second.
    assert!(since.elapsed() >= Duration::from_millis(2100), "{:?}", since.elapsed());
    assert_eq!(runs(cluster(), &mark).iter().sum::<usize>(), 16);
    // Others are not held up, and batches in one write count each.
    let mut client = Client::connect(port);
    let since = Instant::now();
    let batches = (0..12).fold(Script::new(), |script, _| script.query(&sql));
    client.send(&batches);
    Client::connect(port).query("SELECT 1").unwrap();
    client.ready(12);
    assert!(since.elapsed() >= Duration::from_millis(1300), "{:?}", since.elapsed());
    // A wait that is over: the client lives on.
    let text = conf(cluster(), rules).pool("query_wait_timeout = \"300ms\"").text();
    pgweir.reload(&text).unwrap();
    let told = crowd(20, move |_| Client::connect(port).query(&sql));
    let refused: Vec<_> = told.iter().filter_map(|told| told.as_ref().err()).collect();
    assert!(!refused.is_empty() && refused.len() < 20, "{} refused", refused.len());
    assert!(refused.iter().all(|told| **told == "53400 pgweir: more than 5 transactions a second"), "{refused:?}");
    client.query("SELECT 1").unwrap();
}

#[test]
fn a_timeout_of_its_own() {
    let sections = r#"
        [%.pools.quick]
        pool_size = 2
        query_timeout = "300ms"
        [[%.rules]]
        application_name = "patient"
        timeout = 0
        [[%.rules]]
        application_name = "hasty"
        timeout = "200ms"
        [[%.rules]]
        application_name = "quick-but-patient"
        pool = "quick"
        timeout = "20s"
        [[%.rules]]
        application_name = "quick*"
        pool = "quick"
        "#;
    let pgweir = conf(cluster(), sections).pool("query_timeout = \"2s\"").start();
    let cancelled = |name: &str, seconds: f64| {
        let outcome = named(&pgweir, name).query(&format!("SELECT pg_sleep({seconds})"));
        outcome.is_err_and(|told| told == "57014 canceling statement due to statement timeout")
    };
    assert!(cancelled("hasty", 30.0) && cancelled("quick", 30.0) && cancelled("", 30.0));
    assert!(!cancelled("patient", 3.0) && !cancelled("quick-but-patient", 1.0) && !cancelled("", 0.5));
    // The name may change.
    let mut client = named(&pgweir, "patient");
    client.query("SET application_name = 'hasty'").unwrap();
    assert!(client.query("SELECT pg_sleep(30)").unwrap_err().starts_with("57014"));
}

#[test]
fn a_reload_changes_rules_and_pools() {
    let sections = |group: &str, size: usize| {
        format!(
            "[%.pools.some]\npool_size = {size}\nquery_wait_timeout = \"200ms\"\n[[%.rules]]\nuser = \"analytics\"\n\
             group = \"{group}\"\n[[%.rules]]\napplication_name = \"some\"\npool = \"some\"\n"
        )
    };
    let pgweir = conf(cluster(), &sections("replica-1", 1)).start();
    let mut analytics = user(&pgweir, "analytics");
    settles(&mut analytics, "before the reload", "SELECT 1", 1);
    let mut some = busy(1, || named(&pgweir, "some"));
    let mut waits = named(&pgweir, "some");
    assert!(waits.query("BEGIN").unwrap_err().starts_with("53300"));
    pgweir.reload(&conf(cluster(), &sections("replica-2", 2)).text()).unwrap();
    settles(&mut analytics, "after the reload", "SELECT 1", 2);
    eventually("there is one more", || waits.query("BEGIN").is_ok());
    waits.query("COMMIT").unwrap();
    // And without any, with a transaction that began under them.
    pgweir.reload(&conf(cluster(), "").text()).unwrap();
    some[0].query("COMMIT").unwrap();
    until_read(cluster(), &mut analytics, "without rules", |runs| runs[1] > 0 && runs[2] > 0);
    some[0].query("BEGIN").unwrap();
    assert_eq!(metric(&pgweir, "pgweir_pool_clients_active", &[("pool", "some")]), 0.0);
}

#[test]
fn without_its_group_a_read_goes_where_the_rule_says() {
    let own = start_cluster();
    let rule = |fallback: &str| {
        format!("[[%.rules]]\napplication_name = \"{fallback}\"\ngroup = \"replica-1\"\nfallback = \"{fallback}\"\n")
    };
    let pgweir = conf(&own, &["replicas", "primary", "fail"].map(rule).concat()).start();
    let mut clients = ["replicas", "primary", "fail"].map(|name| named(&pgweir, name));
    eventually("reads are served", || clients[2].query("SELECT 1").is_ok());
    for client in &mut clients {
        until_read(&own, client, "the first replica", |runs| runs[1] > 0);
    }
    // What the client wrote comes before what a rule says.
    own.replicas()[0].query_in("postgres", "SELECT pg_wal_replay_pause()").unwrap();
    let [replicas, primary, fail] = &mut clients;
    for client in [&mut *replicas, &mut *primary] {
        client.query("INSERT INTO ledger VALUES (7)").unwrap();
        let count: usize = client.value("SELECT count(*) FROM ledger WHERE id = 7").parse().unwrap();
        assert!(count > 0);
    }
    fail.query("DELETE FROM ledger WHERE id = 7").unwrap();
    assert!(fail.query("SELECT count(*) FROM ledger WHERE id = 7").unwrap_err().starts_with("57P03"));
    own.replicas()[0].query_in("postgres", "SELECT pg_wal_replay_resume()").unwrap();
    eventually("it has caught up", || {
        fail.query("SELECT count(*) FROM ledger WHERE id = 7") == Ok(vec![vec!["0".into()]])
    });
    own.replicas()[0].stop(integration::Stop::Fast).unwrap();
    until_read(&own, replicas, "the second replica", |runs| runs[2] > 0);
    let mark = mark("meanwhile on the primary");
    eventually("the primary reads", || {
        primary.query(&format!("SELECT 1 {mark}")).unwrap();
        runs(&own, &mark)[0] > 0
    });
    assert_eq!(runs(&own, &mark)[2], 0);
    eventually("it fails", || fail.query("SELECT 1").is_err());
    let frames = fail.run(&Script::new().query("SELECT 1"));
    let told = frames.iter().find(|frame| frame.tag == b'E').unwrap();
    assert_eq!(said(told), "57P03 pgweir: no server may serve this read now");
    assert!(told.field(b'D').unwrap().contains("Rule \"#3\""));
    fail.query("UPDATE fish SET id = id WHERE id = 2").unwrap();
    own.replicas()[0].start().unwrap();
    eventually("it is back", || fail.query("SELECT 1").is_ok());
}
