//! Plans of statements, in the API, on the console and in the log: which a statement has, and that another one is slower.
//! It must never wait longer for a plan than until the next statement of its shape may ask for it.

use integration::wire::Script;
use integration::{Cluster, DATABASE, Pgweir};
use serde_json::Value;

use crate::common::{Client, Conf, eventually, metric};

const TABLES: &str = "CREATE TABLE planned AS SELECT n AS k, repeat('x', 100) AS pad FROM generate_series(1, 200000) n; \
    CREATE INDEX planned_k ON planned (k); ANALYZE planned; GRANT ALL ON planned TO app; \
    CREATE SCHEMA aside; GRANT ALL ON SCHEMA aside TO app; CREATE TABLE aside.only_there (k int); GRANT ALL ON aside.only_there TO app";

/// One that asks for a plan every second.
fn conf(cluster: &Cluster) -> Conf {
    let root = "[console]\nstats_users = [\"root\"]\n";
    Conf::trust(cluster).top("workers = 1").pool("plan_interval = \"1s\"").user("root", "").rest(root)
}

fn start(cluster: &Cluster) -> Pgweir {
    conf(cluster).start()
}

#[test]
fn a_plan_is_shown_without_values_and_another_that_is_slower_is_told() {
    let cluster = Cluster::builder().start().unwrap();
    cluster.primary().query_in(DATABASE, TABLES).unwrap();
    let pgweir = start(&cluster);
    let mut client = Client::connect(pgweir.port());
    let asked =
        || -> Value { serde_json::from_str(&pgweir.get("/api/database/plans?database=app").unwrap().1).unwrap() };
    let outline = |part: &str| {
        let all = asked();
        let of =
            all["shapes"].as_array().unwrap().iter().find(|it| it["query"].as_str().unwrap().contains(part)).cloned();
        of.map_or_else(String::new, |of| of["plans"][0]["outline"].as_str().unwrap().to_owned())
    };
    let read = "SELECT pad FROM planned WHERE k = 424242";
    eventually("the plan is there", || {
        assert_eq!(client.query(read).unwrap().len(), 0);
        outline("select pad") == "Index Scan using planned_k on planned"
    });
    // With values, in either format; and under the client's settings.
    eventually("the plan of a prepared statement is there", || {
        let script =
            Script::new().parse("", "SELECT count(*) FROM planned WHERE k < $1").bind("", "", &[Some("434343")]);
        client.run(&script.execute("", 0).sync());
        outline("select count(*) from planned").starts_with("Aggregate (")
    });
    client.query("SET search_path = aside").unwrap();
    eventually("the plan of a table that only this client finds is there", || {
        client.query("SELECT count(*) FROM only_there").unwrap();
        outline("only_there") == "Aggregate (Seq Scan on only_there)"
    });
    // Nothing is run but by the client itself.
    let mut written = 0;
    eventually("the plan of a write is there", || {
        client.query("INSERT INTO only_there VALUES (1)").unwrap();
        written += 1;
        outline("insert into only_there").starts_with("ModifyTable")
    });
    assert_eq!(client.query("SELECT count(*) FROM only_there").unwrap(), [[written.to_string()]]);
    client.query("RESET search_path").unwrap();

    eventually("it is known what it takes with this plan", || {
        client.query(read).unwrap();
        let all = asked();
        let of =
            all["shapes"].as_array().unwrap().iter().find(|it| it["query"].as_str().unwrap().contains("select pad"));
        of.unwrap()["plans"][0]["mean_seconds"].is_f64()
    });
    cluster.primary().query_in(DATABASE, "DROP INDEX planned_k").unwrap();
    eventually("the change is told", || {
        client.query(read).unwrap();
        metric(&pgweir, "pgweir_plan_changes_total", &[]) > 0.0
    });
    let all = asked();
    let changes = all["changes"].as_array().unwrap();
    let change = changes.iter().find(|it| it["query"].as_str().unwrap().contains("select pad")).unwrap();
    let mean = |key: &str| change[key].as_f64().unwrap();
    assert_eq!(change["before"], "Index Scan using planned_k on planned");
    assert!(change["after"].as_str().unwrap().contains("Seq Scan on planned"), "{change:#}");
    assert!(mean("after_mean_seconds") > 1.5 * mean("before_mean_seconds"), "{change:#}");
    assert!(!all.to_string().contains("4242") && !all.to_string().contains("4343"), "{all:#}");
    let log = pgweir.log();
    assert!(log.contains("a statement has another plan and is slower") && !log.contains("4242"), "{log}");

    let mut console = Client::connect_with(pgweir.port(), &[("user", "root"), ("database", "pgweir")]);
    let shape = change["shape"].as_str().unwrap();
    let rows = console.query(&format!("SHOW PLANS WHERE shape = '{shape}'")).unwrap();
    let current: Vec<_> = rows.iter().map(|row| (&*row[9], row[11].contains("Seq Scan"))).collect();
    assert_eq!(current, [("1", true), ("0", false)], "{rows:?}");
    for (path, status) in
        [("?limit=0", 400), ("?database=nowhere", 404), ("?shape=1", 400), ("?shape=0000000000000001", 200)]
    {
        assert_eq!(pgweir.get(&format!("/api/database/plans{path}")).unwrap().0, status, "{path}");
    }
}

#[test]
fn nobody_asks_where_nobody_wants_to_know() {
    let cluster = Cluster::builder().start().unwrap();
    let pgweir = Conf::trust(&cluster).top("workers = 1").start();
    let mut client = Client::connect(pgweir.port());
    client.query("SELECT pg_sleep(0.2)").unwrap();
    let (status, body) = pgweir.get("/api/database/plans").unwrap();
    assert_eq!((status, &*body), (200, "{\"shapes\":[],\"changes\":[]}"));
}

#[test]
fn indexes_that_are_lacked_and_those_that_nobody_needs_are_advised() {
    let tables = "CREATE TABLE bare AS SELECT n AS k, n % 7 AS few, 'name ' || n AS name FROM generate_series(1, 200000) n; \
        ALTER TABLE bare ALTER name TYPE varchar; ANALYZE bare; GRANT ALL ON bare TO app; \
        CREATE TABLE idle AS SELECT n AS k FROM generate_series(1, 100000) n; CREATE INDEX idle_k ON idle (k); ANALYZE idle; \
        ALTER TABLE idle ADD CONSTRAINT held UNIQUE (k); \
        DO $$ BEGIN FOR n IN 1..120 LOOP PERFORM count(*) FROM idle; END LOOP; END $$";
    let cluster = Cluster::builder().start().unwrap();
    cluster.primary().query_in(DATABASE, tables).unwrap();
    let pgweir = start(&cluster);
    let mut client = Client::connect(pgweir.port());
    let all = || -> Value { serde_json::from_str(&pgweir.get("/api/database/optimizations").unwrap().1).unwrap() };
    let read = "SELECT k FROM bare WHERE few > 5 AND name = 'name 77'";
    let lacked = |all: &Value| all["lacked_indexes"].as_array().unwrap().first().cloned().unwrap_or_default();
    eventually("it is advised, unchecked", || {
        client.query(read).unwrap();
        lacked(&all())["statement"] == "CREATE INDEX ON public.bare (name, few)"
    });
    let first = all();
    assert!(lacked(&first)["cost_with_index"].is_null(), "{first:#}");
    // Before anybody has looked at its plan again.
    assert!(lacked(&first)["calls_total"].as_u64() > Some(0), "{first:#}");
    // What is new has had no time to be used.
    assert_eq!(first["unused_indexes"], serde_json::json!([]));
    pgweir.reload(&conf(&cluster).stats("unused_index_after = 0").text()).unwrap();
    let mut unused = Value::Null;
    eventually("it is looked at with the new limit", || {
        unused = all()["unused_indexes"].clone();
        unused != serde_json::json!([])
    });
    assert_eq!((unused.as_array().unwrap().len(), &unused[0]["index"]), (1, &"public.idle_k".into()), "{unused:#}");
    assert!(unused[0]["seconds"].as_u64() < Some(3600), "{unused:#}");
    let scanned = &first["scanned_tables"][0];
    assert_eq!((scanned["table"].as_str(), scanned["scans_total"].as_u64() >= Some(120)), (Some("public.idle"), true));

    cluster.primary().query_in(DATABASE, "CREATE EXTENSION hypopg").unwrap();
    eventually("it is checked", || {
        client.query(read).unwrap();
        lacked(&all())["cost_with_index"].is_f64()
    });
    let it = lacked(&all());
    assert!(it["cost_with_index"].as_f64().unwrap() * 100.0 < it["cost"].as_f64().unwrap(), "{it:#}");
    // One that the planner would not use is not advised, nor is there any trace of those it was asked about.
    eventually("a plan without an index that helps is there", || {
        client.query("SELECT count(*) FROM bare WHERE few < 6").unwrap();
        let plans = pgweir.get("/api/database/plans").unwrap().1;
        plans.contains("select count(*) from bare where few < ?")
    });
    assert_eq!(all()["lacked_indexes"].as_array().unwrap().len(), 1);
    let indexes = "SELECT count(*) FROM pg_indexes WHERE tablename = 'bare'";
    assert_eq!(cluster.primary().query_in(DATABASE, indexes).unwrap(), [["0"]]);
    let mut console = Client::connect_with(pgweir.port(), &[("user", "root"), ("database", "pgweir")]);
    let advice = console.query("SHOW ADVICE").unwrap();
    for kind in ["lacked_index", "unused_index", "scanned_table"] {
        assert!(advice.iter().any(|row| row[0] == kind), "{kind}: {advice:?}");
    }
}

#[test]
fn tables_that_a_replica_reads_whole_are_advised() {
    let sql = "CREATE TABLE scanned AS SELECT n AS k FROM generate_series(1, 20000) n; ANALYZE scanned; GRANT ALL ON scanned TO app";
    let cluster = Cluster::builder().replicas(1).sql(sql).start().unwrap();
    let pgweir = Conf::trust(&cluster).top("workers = 1").pool("plan_interval = \"1s\"").start();
    let mut client = Client::connect(pgweir.port());
    let replica = &cluster.replicas()[0];
    let scans = "DO $$ BEGIN FOR n IN 1..120 LOOP PERFORM count(*) FROM scanned; END LOOP; END $$";
    replica.query_in(DATABASE, scans).unwrap();
    let counted = "SELECT seq_scan >= 120 AND n_live_tup = 0 FROM pg_stat_user_tables WHERE relname = 'scanned'";
    eventually("they are counted", || replica.query_in(DATABASE, counted).unwrap() == [["t"]]);
    eventually("it is advised", || {
        client.query("SELECT max(k) FROM scanned").unwrap();
        let all: Value = serde_json::from_str(&pgweir.get("/api/database/optimizations").unwrap().1).unwrap();
        let found =
            all["scanned_tables"].as_array().unwrap().iter().find(|it| it["table"] == "public.scanned").cloned();
        found.is_some_and(|it| it["host"].as_str().unwrap().ends_with(&format!(":{}", replica.port())))
    });
}
