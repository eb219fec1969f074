//! `reads_in_transactions = "replica_until_write"`: transactions whose reads run on replicas until they do anything else.
//! It must never be seen by a client but in what its servers have to do.

use crate::common::client::{outcome, tags};
use crate::common::{Client, Conf, eventually, metric};
use crate::{Went, cluster, mark, runs, settled, start_cluster, start_with, until_read, went};
use integration::wire::{Frame, Script};
use integration::{Cluster, DATABASE, Pgweir, Stop};

pub(crate) const READ: &str = "SELECT count(*) FROM fish";
pub(crate) const WRITE: &str = "UPDATE fish SET name = name WHERE id = 9";

fn conf(cluster: &Cluster) -> Conf {
    Conf::trust(cluster).size(3).database("reads_in_transactions = \"replica_until_write\"")
}

/// pgweir and a client whose transactions begin on no server yet.
fn start() -> (Pgweir, Client) {
    start_on(cluster(), &conf(cluster()))
}

fn start_on(cluster: &Cluster, conf: &Conf) -> (Pgweir, Client) {
    let (pgweir, mut client) = start_with(cluster, conf);
    until_deferred(cluster, &mut client, "BEGIN", &format!("{} reads code", pgweir.port()));
    (pgweir, client)
}

/// Until it is known what the functions of the database do, and what transactions are.
pub(crate) fn until_deferred(cluster: &Cluster, client: &mut Client, begin: &str, name: &str) {
    let mut round = 0;
    eventually(name, || {
        round += 1;
        let mark = mark(&format!("{name} {round}"));
        client.query(begin).unwrap();
        client.query(&format!("{mark} {READ}")).unwrap();
        client.query("COMMIT").unwrap();
        went(cluster, &mark) == Went::Replicas
    });
}

#[test]
fn each_statement_of_a_transaction_goes_where_it_must() {
    use Went::{Nowhere, Primary, Replicas};
    let (_pgweir, mut client) = start();
    let read = (READ, Replicas);
    let after = (READ, Primary);
    let cases: &[(&str, &[(&str, Went)])] = &[
        ("BEGIN", &[read, read, ("SELECT name FROM fish WHERE id = 5", Replicas)]),
        ("BEGIN", &[read, (WRITE, Primary), after]),
        ("START TRANSACTION ISOLATION LEVEL READ COMMITTED, READ WRITE", &[read, (WRITE, Primary), after]),
        ("BEGIN WORK;", &[("SELECT * FROM pond WHERE id < 3", Replicas), (WRITE, Primary)]),
        ("BEGIN ISOLATION LEVEL REPEATABLE READ", &[after]),
        ("BEGIN ISOLATION LEVEL SERIALIZABLE", &[after]),
        ("BEGIN /* why not */", &[after]),
        ("BEGIN", &[read, ("SELECT now()", Primary), after]),
        ("BEGIN", &[("SELECT current_date FROM fish LIMIT 1", Primary), after]),
        ("BEGIN", &[("SELECT 'today'::date", Primary)]),
        ("BEGIN", &[("SELECT name::timestamptz FROM fish WHERE id < 0", Primary)]),
        ("BEGIN", &[("SELECT id::text, '2020-01-01'::date FROM fish LIMIT 1", Replicas)]),
        ("BEGIN", &[("SELECT own_function()", Primary)]),
        ("BEGIN", &[("SELECT pg_current_xact_id_if_assigned()", Primary)]),
        ("BEGIN", &[("SELECT count(*) FROM fish FOR UPDATE", Nowhere)]),
        ("BEGIN", &[("SELECT id FROM fish WHERE id = 4 FOR SHARE", Primary), after]),
        ("BEGIN", &[read, ("SAVEPOINT one", Primary), after]),
        ("BEGIN", &[read, ("SET LOCAL work_mem = '1MB'", Primary), after]),
        ("BEGIN", &[read, ("DECLARE c CURSOR FOR SELECT * FROM fish", Primary), ("FETCH 2 FROM c", Primary)]),
        ("BEGIN", &[read, ("LOCK TABLE fish IN ACCESS SHARE MODE", Primary), after]),
        ("BEGIN", &[read, ("SHOW transaction_isolation", Primary)]),
        ("BEGIN", &[read, ("SELECT 1; SELECT 2", Primary), after]),
        ("BEGIN", &[("/* pgweir: replica */ SELECT count(*) FROM fish", Primary)]),
    ];
    for (number, (begin, statements)) in cases.iter().enumerate() {
        settled(&mut client, &format!("before transaction {number}"));
        client.query(begin).unwrap();
        for (step, (sql, where_to)) in statements.iter().enumerate() {
            let mark = mark(&format!("transaction {number}.{step}"));
            // What the grammar refuses fails where it runs.
            let done = client.query(&format!("{mark} {sql}"));
            if *where_to == Nowhere {
                assert!(done.unwrap_err().starts_with("0A000"), "{sql}");
                continue;
            }
            done.unwrap_or_else(|error| panic!("{begin}: {sql}: {error}"));
            assert_eq!(went(cluster(), &mark), *where_to, "{begin}: {sql}");
        }
        client.query("COMMIT").unwrap();
    }
    // By default nothing of the kind.
    let (_pgweir, mut client) = crate::start();
    let mark = mark("without");
    client.query("BEGIN").unwrap();
    client.query(&format!("{mark} {READ}")).unwrap();
    client.query("COMMIT").unwrap();
    assert_eq!(went(cluster(), &mark), Went::Primary);
}

#[test]
fn the_extended_protocol_too() {
    let (pgweir, mut client) = start();
    let lone = |sql: &str| Script::new().parse("", sql).bind("", "", &[]).describe(b'P', "").execute("", 0).sync();
    let places = |client: &mut Client, name: &str, script: &dyn Fn(&str) -> Script, expected: Went| {
        settled(client, name);
        let mark = mark(name);
        assert_eq!(tags(&client.run(&lone("BEGIN"))), "12nCZ");
        outcome(&client.run(&script(&mark))).unwrap();
        assert_eq!(tags(&client.run(&lone("COMMIT"))), "12nCZ");
        assert_eq!(went(cluster(), &mark), expected, "{name}");
    };
    let by_id = |mark: &str| format!("{mark} SELECT name FROM fish WHERE id = $1");
    let plain = |mark: &str| Script::new().parse("", &by_id(mark)).bind("", "", &[Some("3")]).execute("", 0).sync();
    places(&mut client, "unnamed", &plain, Went::Replicas);
    let some = |mark: &str| Script::new().parse("", &by_id(mark)).bind("", "", &[Some("3")]).execute("", 1).sync();
    places(&mut client, "some rows", &some, Went::Primary);
    let portal = |mark: &str| Script::new().parse("", &by_id(mark)).bind("p", "", &[Some("3")]).execute("p", 0).sync();
    places(&mut client, "portal", &portal, Went::Primary);
    let moment = |mark: &str| {
        let sql = format!("{mark} SELECT count(*) FROM fish WHERE $1::timestamptz IS NULL");
        Script::new().parse("", &sql).bind("", "", &[Some("now")]).execute("", 0).sync()
    };
    places(&mut client, "moment", &moment, Went::Primary);
    let mark = mark("prepared before");
    client.run(&Script::new().parse("s", &by_id(&mark)).sync());
    places(&mut client, "named", &|_| Script::new().bind("", "s", &[Some("4")]).execute("", 0).sync(), Went::Nowhere);
    assert_eq!(went(cluster(), &mark), Went::Replicas);
    // The first of them behind the BEGIN in one batch, as some drivers send it.
    settled(&mut client, "before all at once");
    let once = crate::mark("all at once");
    let all = Script::new()
        .parse("", "BEGIN")
        .bind("", "", &[])
        .execute("", 0)
        .parse("", &format!("{once} {READ}"))
        .bind("", "", &[])
        .execute("", 0)
        .sync();
    let frames = client.run(&all);
    assert_eq!((tags(&frames).as_str(), went(cluster(), &once)), ("12C12DCZ", Went::Replicas));
    assert_eq!(client.query("COMMIT"), Ok(vec![]));
    let unopened = metric(&pgweir, "pgweir_pool_unopened_transactions_total", &[]);
    assert!(unopened >= 2.0, "{unopened}");
}

/// Scripts that are sent to pgweir and to the primary itself: message by message the same.
#[test]
fn a_client_sees_what_it_would_see_without() {
    let (_pgweir, mut client) = start();
    let mut direct = Client::connect(cluster().primary().port());
    let query = |sql: &str| Script::new().query(sql);
    let lone = |sql: &str| Script::new().parse("", sql).bind("", "", &[]).execute("", 0).sync();
    let described = |sql: &str| {
        Script::new().parse("", sql).describe(b'S', "").bind("", "", &[]).describe(b'P', "").execute("", 0).sync()
    };
    let many = "SELECT 1 / (id - 60000) FROM generate_series(1, 100000) AS g(id)";
    let programs: Vec<Vec<Script>> = vec![
        vec![query("BEGIN"), query(READ), query("COMMIT"), query("COMMIT")],
        vec![query("begin;"), query(READ), query("ROLLBACK"), query("ROLLBACK")],
        vec![query("BEGIN"), query("BEGIN"), query(READ), query("END")],
        vec![query("BEGIN"), query(""), query("COMMIT")],
        vec![query("BEGIN"), query(READ), query("COMMIT AND CHAIN"), query(READ), query("COMMIT")],
        vec![
            query("BEGIN"),
            query("SELECT 1 / (id - 5) FROM fish"),
            query(READ),
            query("SAVEPOINT x"),
            query("COMMIT"),
            query(READ),
        ],
        vec![query("BEGIN"), query("SELECT nothing FROM fish"), query("ROLLBACK TO x"), query("ABORT")],
        vec![query("BEGIN"), query("SELEC"), lone(READ), query("ROLLBACK")],
        vec![query("BEGIN"), query(READ), query(many), query(READ), query(WRITE), lone(READ), query("END")],
        vec![query("BEGIN"), query(many), query("ROLLBACK"), query(READ)],
        vec![query("BEGIN"), query(many), query("COMMIT AND CHAIN"), query(READ), query("COMMIT")],
        vec![query("BEGIN"), lone(many), query("PREPARE TRANSACTION 'x'"), query(READ)],
        vec![lone("BEGIN"), lone(READ), lone("COMMIT")],
        vec![described("BEGIN"), described("ROLLBACK")],
        vec![lone("BEGIN"), lone("SELECT 1 / (id - 5) FROM fish"), lone(READ), lone("COMMIT"), lone(READ)],
        vec![lone("BEGIN"), lone("SELEC"), lone("ROLLBACK")],
        vec![query("BEGIN"), lone(READ), Script::new().sync(), query(WRITE), lone(READ), query("COMMIT")],
        vec![query("BEGIN").query(READ).query(WRITE).query(READ).query("COMMIT").query(READ)],
        vec![query("BEGIN").query("SELECT 1 / (id - 5) FROM fish").query(WRITE).query("COMMIT").query(READ)],
        // The statement that began it is still the unnamed one.
        vec![lone("BEGIN"), Script::new().bind("", "", &[]).execute("", 0).sync(), query("COMMIT")],
        vec![lone("SELECT 1"), query("BEGIN"), Script::new().bind("", "", &[]).execute("", 0).sync(), query("COMMIT")],
    ];
    as_without(cluster(), &mut client, &mut direct, &programs);
}

/// Each of these scripts is answered to both alike.
pub(crate) fn as_without(cluster: &Cluster, client: &mut Client, direct: &mut Client, programs: &[Vec<Script>]) {
    for (number, program) in programs.iter().enumerate() {
        until_read(cluster, client, &format!("before program {number}"), |runs| {
            runs[1..].iter().any(|count| *count > 0)
        });
        let run = |client: &mut Client| -> Vec<_> {
            let ends = |at: &&[u8]| matches!(at, [b'Q', 0, 0, ..] | [b'S', 0, 0, 0, 4]);
            let answer = |script: &Script| {
                client.send(script);
                shown(&client.ready(script.bytes().windows(5).filter(ends).count()))
            };
            program.iter().map(answer).collect()
        };
        let (ours, theirs) = (run(client), run(direct));
        for (step, (ours, theirs)) in ours.iter().zip(&theirs).enumerate() {
            assert_eq!(ours, theirs, "program {number}, step {step}");
        }
    }
}

/// All that a client looks at: of errors, what does not say where in the server's source they came from.
fn shown(frames: &[Frame]) -> Vec<(char, String)> {
    let told = |frame: &Frame| match frame.tag {
        b'E' | b'N' => format!("{:?}", [b'S', b'C', b'M', b'D', b'H', b'P'].map(|code| frame.field(code))),
        _ => String::from_utf8_lossy(&frame.body).into_owned(),
    };
    frames.iter().map(|frame| (char::from(frame.tag), told(frame))).collect()
}

#[test]
fn an_error_aborts_the_transaction_where_it_is() {
    let (_pgweir, mut client) = start();
    settled(&mut client, "before the error");
    let (before, bad) = (mark("before the error in a transaction"), mark("the error in a transaction"));
    client.query("BEGIN").unwrap();
    client.query(&format!("{before} {READ}")).unwrap();
    assert!(client.query(&format!("{bad} SELECT 1 / (id - 5) FROM fish")).unwrap_err().starts_with("22012"));
    assert!(client.query(READ).unwrap_err().starts_with("25P02"));
    assert!(client.query(WRITE).unwrap_err().starts_with("25P02"));
    client.query("ROLLBACK").unwrap();
    assert_eq!(went(cluster(), &before), Went::Replicas);
    assert_eq!(went(cluster(), &bad), Went::Both);
    client.query(WRITE).unwrap();
}

#[test]
fn a_transaction_has_one_time() {
    let (_pgweir, mut client) = start();
    settled(&mut client, "before the time");
    client.query("BEGIN").unwrap();
    client.query(READ).unwrap();
    let now = client.value("SELECT now()");
    client.query(READ).unwrap();
    assert_eq!(client.value("SELECT transaction_timestamp()"), now);
    assert_eq!(client.value("SELECT current_timestamp::text::timestamptz"), now);
    client.query("COMMIT").unwrap();
    client.query("BEGIN").unwrap();
    assert_ne!(client.value("SELECT now()"), now);
    client.query("COMMIT").unwrap();
}

/// What a client wrote it reads in its next transaction, and what it has read it goes on reading.
#[test]
fn a_transaction_reads_what_its_client_wrote() {
    let (pgweir, mut client) = start();
    let mut other = Client::connect(pgweir.port());
    client.query("CREATE TABLE steps (n int); INSERT INTO steps VALUES (0)").unwrap();
    until_deferred(cluster(), &mut client, "BEGIN", "the new table is known");
    for n in 1..=50 {
        // By another client, of which this one hears: its own position, and a token.
        other.query(&format!("UPDATE steps SET n = {n} WHERE n >= 0")).unwrap();
        let last = other.value("SHOW pgweir.last_lsn");
        client.query(&format!("SET pgweir.min_lsn = '{last}'")).unwrap();
        client.query("BEGIN").unwrap();
        assert_eq!(client.value("SELECT max(n) FROM steps"), n.to_string());
        assert_eq!(client.value("SELECT n FROM steps WHERE n > 0"), n.to_string());
        client.query("COMMIT").unwrap();
        client.query(&format!("INSERT INTO steps VALUES (-{n})")).unwrap();
        client.query("BEGIN").unwrap();
        assert_eq!(client.value("SELECT count(*) FROM steps WHERE n < 0"), n.to_string());
        client.query("COMMIT").unwrap();
    }
    client.query("DROP TABLE steps").unwrap();
}

#[test]
fn a_cancelled_read_is_not_run_again() {
    let (pgweir, mut client) = start();
    settled(&mut client, "before the cancelled");
    let sleeping = mark("cancelled in a transaction");
    client.query("BEGIN").unwrap();
    client.send(&Script::new().query(&format!("{sleeping} SELECT count(*) FROM fish, pg_sleep(30)")));
    eventually("it runs", || went(cluster(), &sleeping) == Went::Replicas);
    let mut canceller = Client::tcp(pgweir.port());
    canceller.write(&client.cancel_request());
    let frames = client.ready(1);
    assert_eq!(frames.last().map(|frame| frame.body.clone()), Some(b"E".to_vec()));
    assert!(outcome(&frames).unwrap_err().starts_with("57014"));
    assert!(client.query(READ).unwrap_err().starts_with("25P02"));
    assert_eq!(client.run(&Script::new().query("COMMIT"))[0].command(), Some("ROLLBACK".into()));
    assert_eq!(went(cluster(), &sleeping), Went::Replicas);
    client.query(WRITE).unwrap();
}

#[test]
fn who_is_idle_in_a_transaction_is_sent_away() {
    let (pgweir, mut idle) = start_on(cluster(), &conf(cluster()).pool("idle_transaction_timeout = \"500ms\""));
    let mut leaver = Client::connect(pgweir.port());
    leaver.query("BEGIN").unwrap();
    leaver.query(READ).unwrap();
    leaver.vanish();
    settled(&mut idle, "before the idle");
    idle.query("BEGIN").unwrap();
    idle.query(READ).unwrap();
    let last = idle.frames_to_end();
    assert_eq!(last.iter().find_map(|frame| frame.field(b'C')).as_deref(), Some("25P03"));
    // Nobody holds a server.
    eventually("all servers rest", || metric(&pgweir, "pgweir_pool_servers", &[("state", "active")]) == 0.0);
}

#[test]
fn only_under_read_committed() {
    let (_pgweir, mut client) = start();
    let begins = |client: &mut Client, name: &str, begin: &str| {
        settled(client, name);
        let mark = mark(name);
        client.query(begin).unwrap();
        client.query(&format!("{mark} {READ}")).unwrap();
        client.query("COMMIT").unwrap();
        went(cluster(), &mark)
    };
    client.query("SET default_transaction_isolation = 'repeatable read'").unwrap();
    assert_eq!(begins(&mut client, "own repeatable read", "BEGIN"), Went::Primary);
    client.query("SET default_transaction_isolation = 'read committed'").unwrap();
    assert_eq!(begins(&mut client, "own read committed", "BEGIN"), Went::Replicas);
    client.query("RESET default_transaction_isolation").unwrap();
    client.query("LISTEN ponds").unwrap();
    assert_eq!(begins(&mut client, "listening", "BEGIN"), Went::Primary);
}

/// What is set on the servers, and a replica that dies in the middle.
#[test]
fn what_happens_to_servers() {
    let cluster = start_cluster();
    let (_pgweir, mut client) = start_on(&cluster, &conf(&cluster).pool("check_interval = \"200ms\""));
    let sleeping = mark("sleeping in a transaction");
    client.query("BEGIN").unwrap();
    client.send(&Script::new().query(&format!("{sleeping} SELECT 7 FROM pg_sleep(1)")));
    let at = || runs(&cluster, &sleeping).iter().position(|count| *count > 0);
    eventually("it runs", || at().is_some());
    let number = at().filter(|number| *number > 0).expect("it runs on a replica");
    cluster.replicas()[number - 1].stop(Stop::Fast).unwrap();
    assert_eq!(outcome(&client.ready(1)).unwrap(), [["7"]]);
    for _ in 0..20 {
        client.query(READ).unwrap();
    }
    client.query(WRITE).unwrap();
    client.query("COMMIT").unwrap();
    // Who begins transactions of another kind without saying so begins them on the primary.
    let sql = format!("ALTER DATABASE {DATABASE} SET default_transaction_isolation = 'repeatable read'");
    cluster.primary().query_in(DATABASE, &sql).unwrap();
    let mut round = 0;
    let mut goes = |client: &mut Client, begin: &str| {
        round += 1;
        let mark = mark(&format!("isolation {round}"));
        client.query(begin).unwrap();
        client.query(&format!("{mark} {READ}")).unwrap();
        client.query("COMMIT").unwrap();
        went(&cluster, &mark)
    };
    // Twenty in a row: one may have been served by the primary for another reason.
    eventually("it is known", || (0..20).all(|_| goes(&mut client, "BEGIN") == Went::Primary));
    eventually("it does not matter", || goes(&mut client, "BEGIN ISOLATION LEVEL READ COMMITTED") == Went::Replicas);
}
