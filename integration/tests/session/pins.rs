//! What keeps a client on its server, and for how long: each construct begins to and ends to, is shown, limited and refused.
//! It must never be enough that a client is served: the one server of the pool must be free for others, or not.

use std::sync::OnceLock;
use std::time::Duration;

use integration::wire::Script;
use integration::{Cluster, Pgweir};

use crate::common::client::{outcome, said, tags};
use crate::common::{Client, Conf, eventually, metric};

fn cluster() -> &'static Cluster {
    static CLUSTER: OnceLock<Cluster> = OnceLock::new();
    CLUSTER.get_or_init(|| {
        let function = "CREATE FUNCTION locks() RETURNS int LANGUAGE plpgsql AS $$ BEGIN PERFORM pg_advisory_lock(70); RETURN 1; END $$";
        Cluster::builder().setting("max_prepared_transactions", "5").sql(function).sql("CREATE ROLE boss SUPERUSER LOGIN").start().unwrap()
    })
}

fn conf() -> Conf {
    Conf::trust(cluster()).user("boss", "")
}

fn boss(pgweir: &Pgweir) -> Client {
    Client::connect_with(pgweir.port(), &[("user", "boss")])
}

/// What `/pins` says.
fn pins(pgweir: &Pgweir) -> String {
    let (status, body) = pgweir.get("/pins").unwrap();
    assert_eq!(status, 200);
    body
}

/// What begins to keep a server, what ends that, and what it is called.
const CASES: &[(&str, &str, &str)] = &[
    ("CREATE TEMP TABLE t (n int)", "DROP TABLE t", "temp table"),
    ("CREATE TEMP TABLE t (n int)", "DISCARD TEMP", "temp table"),
    ("CREATE TABLE pg_temp.t (n int)", "DROP TABLE t", "temp table"),
    ("SELECT 1 AS n INTO TEMP t", "DROP TABLE IF EXISTS t", "temp table"),
    ("CREATE TEMP SEQUENCE s", "DROP SEQUENCE s", "temp table"),
    ("CREATE TEMP VIEW v AS SELECT 1", "DROP VIEW v", "temp table"),
    ("DO $$ BEGIN CREATE TEMP TABLE t (n int); END $$", "DO $$ BEGIN DROP TABLE t; END $$", "temp table"),
    ("BEGIN; DECLARE c CURSOR WITH HOLD FOR SELECT 1; COMMIT", "CLOSE c", "held cursor"),
    ("BEGIN; DECLARE c CURSOR WITH HOLD FOR SELECT 1; COMMIT", "CLOSE ALL", "held cursor"),
    ("SELECT pg_advisory_lock(71)", "SELECT pg_advisory_unlock(71)", "advisory lock"),
    ("SELECT pg_try_advisory_lock_shared(7, 2)", "SELECT pg_advisory_unlock_all()", "advisory lock"),
    ("SELECT locks()", "SELECT pg_advisory_unlock(70)", "advisory lock"),
    ("PREPARE p AS SELECT 1", "DEALLOCATE p", "PREPARE"),
    ("PREPARE p AS SELECT 1", "DEALLOCATE ALL", "PREPARE"),
    ("LOAD 'auto_explain'", "DISCARD ALL", "LOAD"),
    ("SELECT setseed(0.25)", "DISCARD ALL", "setseed"),
    ("CREATE TEMP TABLE t (n int)", "DISCARD ALL", "temp table"),
];

#[test]
fn each_construct_keeps_the_server_until_it_is_gone() {
    let pgweir = conf().size(1).start();
    let mut client = Client::connect_with(pgweir.port(), &[("user", "boss"), ("application_name", "the \"one\"")]);
    let mut other = boss(&pgweir);
    for (begin, end, reason) in CASES {
        client.query(begin).unwrap();
        let told = format!("\"reason\":\"{reason}\"");
        eventually(&format!("{begin}: {told}"), || pins(&pgweir).contains(&told));
        let shown = pins(&pgweir);
        assert!(shown.contains("\"user\":\"boss\",\"application_name\":\"the \\\"one\\\"\""), "{shown}");
        let gauge = || metric(&pgweir, "pgweir_pinned_clients", &[("user", "boss"), ("reason", reason)]);
        assert_eq!(gauge(), 1.0, "{begin}");
        client.query("SELECT 1").unwrap();
        assert!(pins(&pgweir).contains(&told), "{begin}: let go too early");
        client.query(end).unwrap_or_else(|error| panic!("{end}: {error}"));
        // The only server there is.
        assert_eq!(other.value("SELECT 2"), "2", "{begin}; {end}");
        eventually(end, || gauge() == 0.0 && pins(&pgweir) == "{\"pins\":[]}");
    }
    let times: f64 = metric(&pgweir, "pgweir_pins_total", &[("user", "boss")]);
    assert_eq!(times, CASES.len() as f64);
}

#[test]
fn what_ends_with_the_transaction_keeps_nothing() {
    let pgweir = conf().size(1).start();
    let (mut client, mut other) = (boss(&pgweir), boss(&pgweir));
    for sql in [
        "BEGIN; CREATE TEMP TABLE t (n int) ON COMMIT DROP; INSERT INTO t VALUES (1); COMMIT",
        "CREATE TEMP TABLE t ON COMMIT DROP AS SELECT 1",
        "BEGIN; CREATE TEMP TABLE t (n int); ROLLBACK",
        "BEGIN; DECLARE c CURSOR WITH HOLD FOR SELECT 1; CLOSE c; COMMIT",
        "BEGIN; SELECT pg_advisory_xact_lock(5); COMMIT",
        "SELECT pg_advisory_lock(6), pg_advisory_unlock(6)",
        "BEGIN; SELECT lo_creat(-1); COMMIT",
    ] {
        client.query(sql).unwrap();
        assert_eq!(other.value("SELECT 2"), "2", "{sql}");
    }
    // A descriptor of a large object is its transaction's.
    let loid = client.value("SELECT lo_from_bytea(0, 'abc')");
    let read = format!("BEGIN; SELECT loread(lo_open({loid}, 262144), 3); COMMIT");
    assert_eq!(client.value(&read), "\\x616263");
    assert_eq!(other.value("SELECT 2"), "2");
    assert!(client.query("SELECT loread(0, 3)").unwrap_err().starts_with("42704"));
    // What was prepared for two phases is the database's: any server commits it.
    client.query("BEGIN; CREATE TABLE two_phase (n int); PREPARE TRANSACTION 'here'").unwrap();
    assert_eq!(other.value("SELECT 2"), "2");
    client.query("COMMIT PREPARED 'here'").unwrap();
    assert_eq!(other.value("SELECT count(*) FROM two_phase"), "0");
    assert_eq!(metric(&pgweir, "pgweir_pins_total", &[]), 0.0);
}

/// A library stays loaded, a seeded generator stays seeded: nobody else gets such a server.
#[test]
fn what_no_reset_takes_away_closes_the_server() {
    let pgweir = conf().size(1).start();
    let mut other = boss(&pgweir);
    for sql in ["LOAD 'auto_explain'", "SELECT setseed(0.25)"] {
        for discards in [true, false] {
            let mut client = boss(&pgweir);
            let before = client.value("SELECT 0 + pg_backend_pid()");
            assert_eq!(other.value("SELECT 0 + pg_backend_pid()"), before, "the test needs one server");
            client.query(sql).unwrap();
            if discards {
                client.query("DISCARD ALL").unwrap();
            } else {
                client.vanish();
            }
            assert_ne!(other.value("SELECT 0 + pg_backend_pid()"), before, "{sql}, DISCARD ALL {discards}");
        }
    }
}

/// In a failed transaction nothing runs, but behind what ends it in the same batch, or text, everything does.
#[test]
fn what_ends_a_failed_transaction_lets_the_next_run() {
    let fails = |client: &mut Client| {
        client.query("BEGIN").unwrap();
        assert!(client.query("SELECT 1 / 0").unwrap_err().starts_with("22012"));
    };
    let run = |script: Script, sql| script.parse("", sql).bind("", "", &[]).execute("", 0);
    let batch = |end| run(run(Script::new(), end), "SELECT setseed(0.25)").sync();
    let scripts = [batch("ROLLBACK"), batch("ROLLBACK AND CHAIN"), Script::new().query("END; SELECT setseed(0.25)")];
    let pgweir = conf().size(1).start();
    let mut other = boss(&pgweir);
    for script in &scripts {
        let mut client = boss(&pgweir);
        let before = client.value("SELECT 0 + pg_backend_pid()");
        fails(&mut client);
        outcome(&client.run(script)).unwrap();
        client.vanish();
        assert_ne!(other.value("SELECT 0 + pg_backend_pid()"), before, "{script:?}");
        // What ends is answered before what follows in its batch is sent.
        let mut client = boss(&pgweir);
        let before = client.value("SELECT 0 + pg_backend_pid()");
        fails(&mut client);
        client.send(&run(Script::new(), "ROLLBACK").flush());
        let answers: Vec<_> = (0..3).map(|_| client.read().unwrap()).collect();
        assert_eq!(tags(&answers), "12C");
        outcome(&client.run(&run(Script::new(), "SELECT setseed(0.25)").sync())).unwrap();
        client.vanish();
        assert_ne!(other.value("SELECT 0 + pg_backend_pid()"), before);
    }
    let strict = conf().size(1).pool("session_state = \"strict\"").start();
    let mut client = boss(&strict);
    for script in &scripts {
        fails(&mut client);
        assert!(outcome(&client.run(script)).unwrap_err().starts_with("0A000"), "{script:?}");
        let _ = client.query("ROLLBACK");
    }
}

#[test]
fn strict_refuses_before_anything_runs() {
    let pgweir = conf().size(1).pool("session_state = \"strict\"").start();
    let mut client = boss(&pgweir);
    for (begin, _, reason) in CASES {
        if begin.starts_with("DO") || begin.contains("locks()") {
            // Only seen afterwards.
            continue;
        }
        let frames = client.run(&Script::new().query(begin));
        assert_eq!(tags(&frames), "EZ", "{begin}");
        assert_eq!(frames[1].body, b"I", "{begin}");
        assert!(said(&frames[0]).contains(&format!("({reason})")) && frames[0].field(b'H').is_some(), "{begin}");
        assert_eq!(frames[0].field(b'C').as_deref(), Some("0A000"), "{begin}");
        if begin.contains(';') {
            continue;
        }
        // A batch is read over up to its Sync.
        let batch = Script::new().parse("", begin).bind("", "", &[]).execute("", 0).parse("", "SELECT 1").sync();
        let frames = client.run(&batch);
        assert_eq!((tags(&frames).as_str(), frames[1].field(b'C').as_deref()), ("1EZ", Some("0A000")), "{begin}");
        // Its transaction fails as for any other error.
        client.query("BEGIN").unwrap();
        let frames = client.run(&Script::new().query(begin));
        assert_eq!((tags(&frames).as_str(), &frames[1].body[..]), ("EZ", &b"E"[..]), "{begin}");
        assert!(client.query(begin).unwrap_err().starts_with("25P02"), "{begin}");
        assert!(client.query("SELECT 1").unwrap_err().starts_with("25P02"), "{begin}");
        client.query("ROLLBACK").unwrap();
    }
    // What keeps nothing goes on.
    client.query("SET work_mem = '9MB'").unwrap();
    client.query("BEGIN; CREATE TEMP TABLE t (n int) ON COMMIT DROP; COMMIT").unwrap();
    client.query("SELECT pg_advisory_unlock_all()").unwrap();
    let named = Script::new().parse("p", "SELECT 3").bind("", "p", &[]).execute("", 0).sync();
    assert_eq!(outcome(&client.run(&named)), Ok(vec![vec!["3".to_string()]]));
    assert!(client.query("EXECUTE p").unwrap_err().starts_with("0A000"));
    client.query("DEALLOCATE p").unwrap();
    let mut other = boss(&pgweir);
    assert_eq!(other.value("SHOW work_mem"), "4MB");
    assert_eq!(client.value("SHOW work_mem"), "9MB");
    assert_eq!(metric(&pgweir, "pgweir_pins_total", &[]), 0.0);
    assert!(metric(&pgweir, "pgweir_pin_refusals_total", &[("limit", "session_state")]) > 20.0);
    // What functions do is known once the catalog was read: then it is refused as well, and what they take away is not.
    let mut refused = String::new();
    eventually("the function is refused", || {
        let outcome = client.query("SELECT locks()");
        let is_refused = outcome.is_err();
        match outcome {
            Ok(_) => drop(client.query("SELECT pg_advisory_unlock_all()").unwrap()),
            Err(error) => refused = error,
        }
        is_refused
    });
    let words = "would keep a server connection for this client alone";
    assert_eq!(
        refused,
        format!("0A000 pgweir: a function, trigger or view of this statement's (advisory lock) {words}")
    );
    assert_eq!(other.value("SELECT 2"), "2");
    // A DO block is only known afterwards: it keeps its server.
    client.query("DO $$ BEGIN PERFORM pg_advisory_lock(70); END $$").unwrap();
    eventually("a pin", || pins(&pgweir).contains("do "));
    client.query("SELECT pg_advisory_unlock(70)").unwrap();
    assert_eq!(other.value("SELECT 3"), "3");
}

#[test]
fn no_more_than_max_pinned_servers() {
    let pgweir = conf().size(3).user("boss", "max_pinned_servers = 2").start();
    let mut clients: Vec<Client> = (0..3).map(|_| boss(&pgweir)).collect();
    let temp = "CREATE TEMP TABLE t (n int)";
    clients[0].query(temp).unwrap();
    // Held from the statement on, before anybody knows whether it will stay.
    clients[1].query("BEGIN").unwrap();
    clients[1].query(temp).unwrap();
    let refused = clients[2].query(temp).unwrap_err();
    assert!(refused.starts_with("53400 pgweir: as many clients as may keep a server connection"), "{refused}");
    // Who keeps one already may make more.
    clients[0].query("CREATE TEMP TABLE u (n int); PREPARE p AS SELECT 1").unwrap();
    clients[1].query("ROLLBACK").unwrap();
    // Its server is asked first whether anything is left.
    eventually("a place", || clients[2].query(temp).is_ok());
    assert!(clients[1].query(temp).unwrap_err().starts_with("53400"));
    drop(clients.remove(0));
    eventually("the place of one who left", || clients[0].query(temp).is_ok());
    assert_eq!(metric(&pgweir, "pgweir_pin_refusals_total", &[("limit", "session_state")]), 0.0);
    assert!(metric(&pgweir, "pgweir_pin_refusals_total", &[("limit", "max_pinned_servers")]) >= 2.0);
}

#[test]
fn an_idle_pin_ends_and_its_server_is_clean() {
    let pgweir = conf().size(1).pool("pin_idle_timeout = \"200ms\"").start();
    let mut idle = boss(&pgweir);
    let mut client = boss(&pgweir);
    client.query("CREATE TEMP TABLE t (n int); SET work_mem = '9MB'").unwrap();
    let frame = client.read().unwrap();
    assert_eq!((frame.field(b'S').as_deref(), frame.field(b'C').as_deref()), (Some("FATAL"), Some("57P05")));
    assert!(frame.field(b'D').unwrap().contains("temp table"));
    assert!(client.read().is_none());
    assert_eq!(idle.value("SELECT to_regclass('pg_temp.t') IS NULL AND current_setting('work_mem') = '4MB'"), "t");
    assert_eq!(metric(&pgweir, "pgweir_pin_idle_timeouts_total", &[]), 1.0);
    // In a transaction it is another limit's affair, and without a pin there is none.
    let mut client = boss(&pgweir);
    client.query("BEGIN; CREATE TEMP TABLE t (n int)").unwrap();
    client.patience(Duration::from_millis(600));
    assert!(client.read_in_time().is_err());
    client.query("COMMIT").unwrap();
    assert_eq!(client.read().unwrap().field(b'C').as_deref(), Some("57P05"));
    assert_eq!(idle.value("SELECT 1"), "1");
}

#[test]
fn the_log_names_the_statement_and_no_value() {
    let pgweir = conf().size(1).start();
    for n in 0..3 {
        let mut client = boss(&pgweir);
        client.query(&format!("SELECT pg_advisory_lock({n}4711), 'secret'")).unwrap();
        eventually("a pin", || pins(&pgweir).contains("pg_advisory_lock"));
        assert!(!pins(&pgweir).contains("4711") && !pins(&pgweir).contains("secret"));
        client.send(&Script::new().terminate());
        eventually("its end", || pins(&pgweir) == "{\"pins\":[]}");
    }
    let log = pgweir.log();
    let lines: Vec<&str> = log.lines().filter(|line| line.contains("keeps a server to itself")).collect();
    assert_eq!(lines.len(), 1, "{log}");
    assert!(
        lines[0].contains("pg_advisory_lock")
            && lines[0].contains("advisory lock")
            && lines[0].contains("pg_advisory_xact_lock()")
    );
    assert!(!log.contains("4711") && !log.contains("secret"));
}

/// LISTEN keeps a server only under another encoding than that of the connection which listens for all.
#[test]
fn the_log_names_a_listen() {
    // Also where nothing is known of the database's code.
    let pgweir = conf().size(1).pool("catalog_refresh = 0").start();
    let mut client = Client::connect_with(pgweir.port(), &[("user", "boss"), ("client_encoding", "latin1")]);
    client.query("LISTEN what").unwrap();
    eventually("a pin", || pins(&pgweir).contains("LISTEN"));
    assert!(pgweir.log().contains("keeps a server to itself behind this statement: listen what"), "{}", pgweir.log());
}

/// PgBouncer's rules, by what a client of one server and its neighbour see.
#[test]
fn by_pgbouncers_rules_only_reported_settings_follow() {
    let pgweir = conf().size(1).pool("session_state = \"pgbouncer\"").start();
    let (mut one, mut two) = (boss(&pgweir), boss(&pgweir));
    one.query("SET TimeZone = 'Asia/Tokyo'; SET application_name = 'one'; SET DateStyle = 'SQL, DMY'").unwrap();
    two.query("SET IntervalStyle = 'iso_8601'").unwrap();
    for _ in 0..2 {
        assert_eq!(
            one.value("SHOW TimeZone") + &one.value("SHOW DateStyle") + &one.value("SHOW IntervalStyle"),
            "Asia/TokyoSQL, DMYpostgres"
        );
        assert_eq!(one.value("SHOW application_name"), "one");
        assert_ne!(two.value("SHOW TimeZone"), "Asia/Tokyo");
        assert_eq!(two.value("SHOW IntervalStyle") + &two.value("SHOW application_name"), "iso_8601");
    }
    // Rolled back, it is what it was.
    one.query("BEGIN; SET TimeZone = 'UTC'; ROLLBACK").unwrap();
    two.value("SELECT 1");
    assert_eq!(one.value("SHOW TimeZone"), "Asia/Tokyo");
    // All else is whoever's comes next.
    for (leave, see) in [
        ("SET work_mem = '77MB'", "SELECT current_setting('work_mem') = '77MB'"),
        ("CREATE TEMP TABLE t (n int)", "SELECT to_regclass('pg_temp.t') IS NOT NULL"),
        ("PREPARE p AS SELECT 'of one'", "SELECT count(*) = 1 FROM pg_prepared_statements WHERE name = 'p'"),
        ("SELECT pg_advisory_lock(9)", "SELECT count(*) = 1 FROM pg_locks WHERE locktype = 'advisory'"),
    ] {
        one.query(leave).unwrap();
        assert_eq!(two.value(see), "t", "{leave}");
    }
    assert_eq!(two.value("EXECUTE p"), "of one");
    // No reset when its client goes, nor does any of it count as a pin.
    one.send(&Script::new().terminate());
    drop(one);
    assert_eq!(two.value("SHOW work_mem"), "77MB");
    assert_eq!(metric(&pgweir, "pgweir_pins_total", &[]), 0.0);
    // It is the server that is reset, for all.
    two.query("DISCARD ALL").unwrap();
    assert_eq!(two.value("SHOW work_mem") + &two.value("SHOW IntervalStyle"), "4MBpostgres");
    let mut three = boss(&pgweir);
    assert_eq!(three.value("SELECT to_regclass('pg_temp.t') IS NULL"), "t");
}

/// With servers to spare a client that comes back finds its own, whoever came between.
#[test]
fn a_client_comes_back_to_its_server() {
    // Nobody else must use the servers in between.
    let pgweir = conf().size(4).pool("catalog_refresh = 0").start();
    let mut clients: Vec<Client> = (0..4).map(|_| boss(&pgweir)).collect();
    let pids: Vec<String> = clients
        .iter_mut()
        .map(|client| {
            client.query("BEGIN").unwrap();
            client.value("SELECT 0 + pg_backend_pid()")
        })
        .collect();
    clients.iter_mut().for_each(|client| drop(client.query("COMMIT").unwrap()));
    for round in 0..12 {
        // In an order of its own each time.
        let number = (round * 3 + 1) % 4;
        assert_eq!(clients[number].value("SELECT 0 + pg_backend_pid()"), pids[number], "round {round}");
    }
}
