//! Transactions that say READ ONLY: their reads leave the primary one by one, the rest is as on the primary.
//! It must never be seen by a client that a replica had a part in them.

use crate::common::client::{outcome, tags};
use crate::common::{Client, Conf, eventually};
use crate::sight::pause;
use crate::unopened::{READ, WRITE, as_without, until_deferred};
use crate::{Went, cluster, mark, runs, settled, start_cluster, start_with, went};
use integration::wire::Script;
use integration::{Cluster, DATABASE, Pgweir, Stop};

const BEGIN: &str = "BEGIN READ ONLY";

/// pgweir as it is by default, and a client whose read-only transactions begin on no server.
fn start_on(cluster: &Cluster) -> (Pgweir, Client) {
    let (pgweir, mut client) = start_with(cluster, &Conf::trust(cluster).size(3));
    until_deferred(cluster, &mut client, BEGIN, &format!("{} knows", pgweir.port()));
    (pgweir, client)
}

fn query(sql: &str) -> Script {
    Script::new().query(sql)
}

fn lone(sql: &str) -> Script {
    Script::new().parse("", sql).bind("", "", &[]).execute("", 0).sync()
}

/// As pgjdbc has it: what begins the transaction and its first statement in one batch.
fn begun_with(begin: Script, sql: &str) -> Script {
    begin
        .bind("", "begin", &[])
        .execute("", 0)
        .parse("", sql)
        .bind("", "", &[])
        .describe(b'P', "")
        .execute("", 0)
        .sync()
}

#[test]
fn each_statement_goes_where_it_must() {
    use Went::{Primary, Replicas};
    let (_pgweir, mut client) = start_on(cluster());
    let (read, after) = ((READ, Replicas), (READ, Primary));
    let cases: &[(&str, &[(&str, Went)])] = &[
        (BEGIN, &[read, read, ("SELECT name FROM pond WHERE id = 5", Replicas)]),
        ("START TRANSACTION READ ONLY", &[read, ("SELECT last_value FROM counter", Primary), after]),
        ("BEGIN ISOLATION LEVEL READ COMMITTED, READ ONLY;", &[read, ("SELECT pg_is_in_recovery()", Primary), after]),
        (BEGIN, &[("SELECT pg_advisory_xact_lock(1)", Primary), after]),
        (BEGIN, &[read, ("SELECT now()", Primary), after]),
        (BEGIN, &[read, ("DECLARE c CURSOR FOR SELECT * FROM fish", Primary), ("FETCH 2 FROM c", Primary)]),
        (BEGIN, &[read, ("SAVEPOINT one", Primary), after]),
        (BEGIN, &[read, ("SHOW transaction_read_only", Primary)]),
        // Its statements would have to share a snapshot.
        ("BEGIN ISOLATION LEVEL REPEATABLE READ, READ ONLY", &[after, after]),
        ("BEGIN ISOLATION LEVEL SERIALIZABLE, READ ONLY", &[after]),
        ("/* pgweir: replica */ BEGIN ISOLATION LEVEL REPEATABLE READ, READ ONLY", &[read, read]),
        ("BEGIN READ ONLY, READ WRITE", &[after]),
        ("BEGIN", &[after]),
    ];
    for (number, (begin, statements)) in cases.iter().enumerate() {
        settled(&mut client, &format!("before read-only transaction {number}"));
        client.query(begin).unwrap();
        for (step, (sql, where_to)) in statements.iter().enumerate() {
            let mark = mark(&format!("read-only transaction {number}.{step}"));
            client.query(&format!("{mark} {sql}")).unwrap_or_else(|error| panic!("{begin}: {sql}: {error}"));
            assert_eq!(went(cluster(), &mark), *where_to, "{begin}: {sql}");
        }
        client.query("COMMIT").unwrap();
    }
    client.query("SET default_transaction_isolation = 'repeatable read'").unwrap();
    let mark = mark("read only by default repeatable");
    client.query(BEGIN).unwrap();
    client.query(&format!("{mark} {READ}")).unwrap();
    client.query("COMMIT").unwrap();
    assert_eq!(went(cluster(), &mark), Primary);
}

/// What a replica would answer otherwise than the primary, with and without an error.
#[test]
fn a_client_sees_what_it_would_see_without() {
    let cluster = start_cluster();
    let sql = "CREATE UNLOGGED TABLE fast (id int); SELECT nextval('counter'); SELECT nextval('counter');
        GRANT ALL ON fast TO app";
    cluster.primary().query_in(DATABASE, sql).unwrap();
    let (_pgweir, mut client) = start_on(&cluster);
    let mut direct = Client::connect(cluster.primary().port());
    let mut programs: Vec<Vec<Script>> = vec![
        vec![query(BEGIN), query("ROLLBACK"), query("ROLLBACK")],
        vec![lone(BEGIN), lone(READ), lone("COMMIT"), lone("COMMIT")],
        vec![query(BEGIN), query(READ), query(WRITE), query(READ), query("COMMIT"), query(READ)],
        vec![query(BEGIN), query(READ), query("SELECT 1 / (id - 5) FROM fish"), query(READ), query("ROLLBACK")],
        vec![query(BEGIN), query(READ), query("SET TRANSACTION READ WRITE"), query(WRITE), query("ROLLBACK")],
        vec![query(BEGIN), query(READ), query("SET TRANSACTION ISOLATION LEVEL SERIALIZABLE"), query("ROLLBACK")],
        vec![query(BEGIN), query("SET TRANSACTION READ WRITE"), query(WRITE), query(READ), query("COMMIT")],
        vec![query(BEGIN), query(READ), query("BEGIN"), query(READ), query("COMMIT")],
        vec![query(BEGIN), query(READ), query("COMMIT AND CHAIN"), query(WRITE), query("ROLLBACK")],
        vec![
            query(BEGIN),
            query(READ),
            query("SAVEPOINT a"),
            query(WRITE),
            query("ROLLBACK TO a"),
            query(READ),
            query("END"),
        ],
        vec![
            query(BEGIN),
            query(READ),
            query("DECLARE c CURSOR FOR TABLE fish"),
            query("FETCH 3 FROM c"),
            query("COMMIT"),
        ],
        vec![query(BEGIN).query(READ).query("SELECT pg_is_in_recovery()").query(READ).query("COMMIT").query(READ)],
        vec![
            query("BEGIN ISOLATION LEVEL REPEATABLE READ, READ ONLY"),
            query(READ),
            query("SELECT pg_is_in_recovery()"),
            query("SELECT count(*) FROM fast"),
            query("COMMIT"),
        ],
        vec![
            begun_with(Script::new().parse("begin", BEGIN), READ),
            lone("COMMIT"),
            begun_with(Script::new(), READ),
            query("SELECT last_value FROM counter"),
            lone("COMMIT"),
            begun_with(Script::new(), "SELECT pg_is_in_recovery()"),
            lone("ROLLBACK"),
            begun_with(Script::new(), "SELECT 1 / (id - 5) FROM fish"),
            query(READ),
            lone("ROLLBACK"),
            begun_with(Script::new(), "SELEC"),
            lone("COMMIT"),
            begun_with(Script::new(), WRITE),
            Script::new().bind("", "begin", &[]).execute("", 0).sync(),
            query("ROLLBACK"),
        ],
    ];
    for sql in [
        "SELECT last_value FROM counter",
        "SELECT pg_is_in_recovery()",
        "SELECT count(*) FROM fast",
        "SHOW transaction_read_only",
        "SELECT current_setting('transaction_read_only'), current_setting('in_hot_standby')",
        "SELECT nextval('counter')",
        "SELECT count(*) FROM fish FOR UPDATE",
    ] {
        programs.push(vec![query(BEGIN), query(sql), query(READ), query("COMMIT")]);
        programs.push(vec![query(BEGIN), query(READ), query(sql), lone(sql), query("COMMIT")]);
    }
    as_without(&cluster, &mut client, &mut direct, &programs);
}

#[test]
fn a_lock_is_one_for_all() {
    let (_pgweir, mut client) = start_on(cluster());
    let mut other = cluster().primary().admin(DATABASE).unwrap();
    let mut tries = || other.query("SELECT pg_try_advisory_xact_lock(4712)").unwrap();
    client.query(BEGIN).unwrap();
    client.query(READ).unwrap();
    client.query("SELECT pg_advisory_xact_lock(4712)").unwrap();
    assert_eq!(tries(), [["f"]]);
    client.query("COMMIT").unwrap();
    assert_eq!(tries(), [["t"]]);
}

/// Others have just made it, and no replica has it yet.
#[test]
fn what_replicas_lack_is_there() {
    let cluster = start_cluster();
    let (_pgweir, mut client) = start_on(&cluster);
    (0..2).for_each(|replica| pause(&cluster, replica, true));
    let sql = "ALTER TABLE fish ADD COLUMN size int DEFAULT 7; CREATE TABLE birds AS SELECT 5 AS n; GRANT ALL ON birds TO app";
    cluster.primary().query_in(DATABASE, sql).unwrap();
    let (first, inside) = (mark("what replicas have"), mark("what replicas lack"));
    for begin in [BEGIN, "START TRANSACTION READ ONLY"] {
        client.query(begin).unwrap();
        assert_eq!(client.value(&format!("{first} {READ}")), "100");
        assert_eq!(client.value(&format!("{inside} SELECT max(size) FROM fish")), "7");
        assert_eq!(client.value("SELECT n FROM birds"), "5");
        client.query("COMMIT").unwrap();
        client.query(begin).unwrap();
        assert_eq!(client.value("SELECT n FROM birds"), "5");
        client.query("COMMIT").unwrap();
    }
    assert!(runs(&cluster, &first)[1..].iter().any(|count| *count > 0));
    assert!(runs(&cluster, &inside)[0] > 0);
    (0..2).for_each(|replica| pause(&cluster, replica, false));
}

#[test]
fn a_replica_that_is_lost_is_not_missed() {
    let cluster = start_cluster();
    let (_pgweir, mut client) = start_on(&cluster);
    let sleeping = mark("sleeping while only reading");
    client.query(BEGIN).unwrap();
    client.query(READ).unwrap();
    client.send(&query(&format!("{sleeping} SELECT 7 FROM pg_sleep(1)")));
    let at = || runs(&cluster, &sleeping).iter().position(|count| *count > 0);
    eventually("it runs", || at().is_some());
    let number = at().filter(|number| *number > 0).expect("it runs on a replica");
    cluster.replicas()[number - 1].stop(Stop::Fast).unwrap();
    assert_eq!(outcome(&client.ready(1)).unwrap(), [["7"]]);
    for _ in 0..20 {
        client.query(READ).unwrap();
    }
    // And the other, between two statements.
    cluster.replicas()[2 - number].stop(Stop::Fast).unwrap();
    for _ in 0..20 {
        client.query(READ).unwrap();
    }
    assert!(client.query(WRITE).unwrap_err().starts_with("25006"));
    client.query("ROLLBACK").unwrap();
}

/// pgjdbc begins a transaction in one batch with its first statement, from the fifth time on by a name.
#[test]
fn in_one_batch_with_its_first_statement() {
    let (_pgweir, mut client) = start_on(cluster());
    let unnamed = |sql: &str| {
        let begin = Script::new().parse("", BEGIN).bind("", "", &[]).execute("", 0);
        begin.parse("", sql).bind("", "", &[]).describe(b'P', "").execute("", 0).sync()
    };
    outcome(&client.run(&Script::new().parse("begin", BEGIN).parse("commit", "COMMIT").sync())).unwrap();
    let named = |sql: &str| begun_with(Script::new(), sql);
    let commits = [lone("COMMIT"), Script::new().bind("", "commit", &[]).execute("", 0).sync()];
    for (number, (begun, commit)) in ["12C", "2C"].into_iter().zip(commits).enumerate() {
        let begin = |sql: &str| if number == 0 { unnamed(sql) } else { named(sql) };
        settled(&mut client, &format!("before batch {number}"));
        let (first, second, last) = (
            mark(&format!("first of batch {number}")),
            mark(&format!("second of batch {number}")),
            mark(&format!("on the primary {number}")),
        );
        let frames = client.run(&begin(&format!("{first} {READ}")));
        assert_eq!(tags(&frames), format!("{begun}12TDCZ"));
        assert_eq!(frames.last().map(|frame| frame.body.clone()), Some(b"T".to_vec()));
        assert_eq!(outcome(&client.run(&lone(&format!("{second} {READ}")))).unwrap(), [["100"]]);
        assert_eq!(client.value("SELECT pg_is_in_recovery()"), "f");
        let frames = client.run(&commit);
        assert_eq!(frames.last().map(|frame| frame.body.clone()), Some(b"I".to_vec()));
        assert_eq!((went(cluster(), &first), went(cluster(), &second)), (Went::Replicas, Went::Replicas));
        // One that must not run there takes its transaction to the primary.
        let frames = client.run(&begin(&format!("{last} SELECT pg_is_in_recovery()")));
        assert_eq!(outcome(&frames).unwrap(), [["f"]]);
        client.query("COMMIT").unwrap();
        assert_eq!(went(cluster(), &last), Went::Primary);
    }
}
