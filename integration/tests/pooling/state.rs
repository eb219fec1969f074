//! What a session leaves on its server: it stays with the session, and nobody else ever sees it.
//! It must never be enough that a leak is unlikely: one server connection, two clients in turn.

use crate::common::client::{outcome, tags};
use crate::common::{Client, Conf, crowd};
use crate::conf;
use integration::Cluster;
use integration::wire::Script;

/// What a client can see of session state on its server connection.
const STATE: &str = "SELECT current_setting('work_mem'), current_setting('search_path'), coalesce(current_setting('app.own', true), ''),
    current_user, (SELECT count(*) FROM pg_listening_channels()), (SELECT count(*) FROM pg_prepared_statements WHERE name NOT LIKE 'pgweir%'),
    (SELECT count(*) FROM pg_cursors), (SELECT count(*) FROM pg_locks WHERE locktype = 'advisory' AND pid = pg_backend_pid()),
    to_regclass('pg_temp.own') IS NULL, current_setting('TimeZone'), current_setting('statement_timeout')";

/// What leaves something in a session, and how to see that it is there (`t`).
const CASES: &[(&str, &str)] = &[
    ("SET work_mem = '77MB'", "SELECT current_setting('work_mem') = '77MB'"),
    ("SET SESSION statement_timeout TO 123456", "SELECT current_setting('statement_timeout') = '123456ms'"),
    ("SELECT set_config('work_mem', '78MB', false)", "SELECT current_setting('work_mem') = '78MB'"),
    ("SET search_path = own, public", "SELECT current_setting('search_path') = 'own, public'"),
    ("SET TIME ZONE 'Asia/Tokyo'", "SELECT current_setting('TimeZone') = 'Asia/Tokyo'"),
    ("LISTEN own_channel", "SELECT count(*) = 1 FROM pg_listening_channels()"),
    ("CREATE TEMP TABLE own (n int)", "SELECT to_regclass('pg_temp.own') IS NOT NULL"),
    ("CREATE TEMPORARY VIEW own AS SELECT 1", "SELECT to_regclass('pg_temp.own') IS NOT NULL"),
    ("SELECT 1 AS n INTO TEMP own", "SELECT to_regclass('pg_temp.own') IS NOT NULL"),
    (
        "SELECT pg_advisory_lock(1234)",
        "SELECT count(*) = 1 FROM pg_locks WHERE locktype = 'advisory' AND pid = pg_backend_pid()",
    ),
    (
        "SELECT pg_try_advisory_lock(1235)",
        "SELECT count(*) = 1 FROM pg_locks WHERE locktype = 'advisory' AND pid = pg_backend_pid()",
    ),
    ("PREPARE own AS SELECT 1", "SELECT count(*) = 1 FROM pg_prepared_statements WHERE name = 'own'"),
    (
        "BEGIN; DECLARE own CURSOR WITH HOLD FOR SELECT 1; COMMIT",
        "SELECT count(*) = 1 FROM pg_cursors WHERE name = 'own'",
    ),
    ("SET app.own = 'mine'", "SELECT current_setting('app.own') = 'mine'"),
    ("BEGIN; SET work_mem = '79MB'; COMMIT", "SELECT current_setting('work_mem') = '79MB'"),
];

#[test]
fn state_stays_with_its_session_and_leaks_to_nobody() {
    let pgweir = conf().size(1).start();
    let fresh = Client::connect(pgweir.port()).query(STATE).unwrap();
    for (number, (leave, see)) in CASES.iter().enumerate() {
        for extended in [false, true] {
            if extended && leave.contains(';') {
                continue;
            }
            let mut client = Client::connect(pgweir.port());
            if extended {
                outcome(&client.run(&Script::new().parse("", leave).bind("", "", &[]).execute("", 0).sync())).unwrap();
            } else {
                client.query(leave).unwrap();
            }
            for _ in 0..3 {
                assert_eq!(client.value(see), "t", "{leave}");
            }
            // Goodbye one time, without a word the next.
            if number % 2 == 0 {
                client.send(&Script::new().terminate());
            }
            drop(client);
            assert_eq!(Client::connect(pgweir.port()).query(STATE).unwrap(), fresh, "{leave}");
        }
    }
}

/// The same with a second client that asks while the first holds its state: on two servers, each sees its own.
#[test]
fn state_is_not_shared_while_it_is_there() {
    let pgweir = conf().size(2).start();
    let mut other = Client::connect(pgweir.port());
    let fresh = other.query(STATE).unwrap();
    for (leave, see) in CASES {
        let mut client = Client::connect(pgweir.port());
        client.query(leave).unwrap();
        for _ in 0..5 {
            assert_eq!(other.query(STATE).unwrap(), fresh, "{leave}");
            assert_eq!(client.value(see), "t", "{leave}");
        }
    }
}

/// What is over with the transaction binds nobody to a server.
#[test]
fn state_of_a_transaction_does_not_hold_the_server() {
    let pgweir = conf().size(1).start();
    let mut client = Client::connect(pgweir.port());
    let mut other = Client::connect(pgweir.port());
    for sql in [
        "BEGIN; SET LOCAL work_mem = '80MB'; COMMIT",
        "BEGIN; SELECT pg_advisory_xact_lock(99); COMMIT",
        "BEGIN; DECLARE c CURSOR FOR SELECT 1; FETCH c; COMMIT",
        "BEGIN; SELECT set_config('work_mem', '81MB', true); COMMIT",
        "BEGIN; SET TRANSACTION READ ONLY; COMMIT",
    ] {
        client.query(sql).unwrap();
        // Served at once, though the first client is still there.
        assert_eq!(other.value("SELECT current_setting('work_mem') = '4MB'"), "t", "{sql}");
    }
}

/// DISCARD ALL is the end of everything a session had: its server is free, and its prepared statements are gone for it alone.
#[test]
fn discard_all_frees_the_server() {
    let pgweir = conf().size(1).start();
    let mut other = Client::connect(pgweir.port());
    other.run(&Script::new().parse("s", "SELECT 'other'").sync());
    let mut client = Client::connect(pgweir.port());
    client.run(&Script::new().parse("s", "SELECT 'own'").sync());
    client.query("SET work_mem = '82MB'").unwrap();
    client.query("DISCARD ALL").unwrap();
    let frames = other.run(&Script::new().bind("", "s", &[]).execute("", 0).sync());
    assert_eq!(outcome(&frames), Ok(vec![vec!["other".to_string()]]));
    let frames = client.run(&Script::new().bind("", "s", &[]).execute("", 0).sync());
    assert!(outcome(&frames).unwrap_err().starts_with("26000"));
    assert_eq!(client.value("SHOW work_mem"), "4MB");
}

#[test]
fn deallocate_all_frees_the_names_of_one_client() {
    let pgweir = conf().size(1).start();
    let mut other = Client::connect(pgweir.port());
    other.run(&Script::new().parse("s", "SELECT 'other'").sync());
    let mut client = Client::connect(pgweir.port());
    client.run(&Script::new().parse("s", "SELECT 'own'").sync());
    client.query("DEALLOCATE ALL").unwrap();
    let frames = client.run(&Script::new().bind("", "s", &[]).execute("", 0).sync());
    assert!(outcome(&frames).unwrap_err().starts_with("26000"));
    assert_eq!(tags(&client.run(&Script::new().parse("s", "SELECT 'new'").sync())), "1Z");
    let frames = other.run(&Script::new().bind("", "s", &[]).execute("", 0).sync());
    assert_eq!(outcome(&frames), Ok(vec![vec!["other".to_string()]]));
}

#[test]
fn notifications_reach_the_one_who_listens() {
    let pgweir = conf().size(3).start();
    let mut listener = Client::connect(pgweir.port());
    listener.query("LISTEN news").unwrap();
    let mut deaf = Client::connect(pgweir.port());
    deaf.value("SELECT 1");
    let mut speaker = Client::connect(pgweir.port());
    speaker.query("NOTIFY news, 'hello'").unwrap();
    // Without asking for anything.
    let frame = listener.read().unwrap();
    assert_eq!((frame.tag, frame.body.ends_with(b"news\0hello\0")), (b'A', true));
    assert_eq!(tags(&deaf.run(&Script::new().query("SELECT 2"))), "TDCZ");
    assert_eq!(tags(&speaker.run(&Script::new().query("SELECT 3"))), "TDCZ");
}

/// Start settings that differ from client to client, on few servers, all at once: everybody always has their own.
#[test]
fn start_settings_follow_their_client() {
    let pgweir = conf().size(3).start();
    let port = pgweir.port();
    crowd(24, move |number| {
        let megabytes = format!("{}MB", 10 + number % 6);
        let name = format!("client {}", number % 8);
        let options = [("options", format!("-c work_mem={megabytes}")), ("application_name", name.clone())];
        let options: Vec<(&str, &str)> = options.iter().map(|(key, value)| (*key, value.as_str())).collect();
        let options = if number % 4 == 0 { &[] } else { &options[..] };
        let expected = if options.is_empty() { ["4MB".to_string(), String::new()] } else { [megabytes, name] };
        let mut client = Client::connect_with(port, options);
        for _ in 0..50 {
            let rows = client.query("SELECT current_setting('work_mem'), current_setting('application_name')");
            assert_eq!(rows, Ok(vec![expected.to_vec()]));
        }
    });
}

/// A client that arrives while the one before it, with the same settings, has them tried: the one server connection then goes from one to
/// the next, and nobody else may be answered with what was meant for them.
#[test]
fn settings_meant_for_one_server_never_go_to_another() {
    let pgweir = conf().size(1).start();
    let port = pgweir.port();
    for round in 0..20 {
        let megabytes = format!("{}MB", 10 + round);
        crowd(6, move |_| {
            let mut client = Client::connect_with(port, &[("work_mem", &megabytes)]);
            for n in 0..5 {
                let rows = client.query(&format!("SELECT {n}, current_setting('work_mem')"));
                assert_eq!(rows, Ok(vec![vec![n.to_string(), megabytes.clone()]]));
            }
        });
    }
}

/// What code that pgweir cannot see into leaves on a server is gone before the next client comes.
#[test]
fn what_hidden_code_leaves_reaches_nobody() {
    let hidden = "perform set_config('app.tenant', 'victim', false); perform set_config('search_path', 'evil', false);
                  perform pg_advisory_lock(4711); create temp table pg_class (x int);";
    let function = "CREATE FUNCTION hidden() RETURNS int LANGUAGE plpgsql AS $$ BEGIN
                    perform set_config('app.tenant', 'victim', false); perform pg_advisory_lock(4712); RETURN 1; END $$";
    let own = Cluster::builder().sql(function).start().unwrap();
    let pgweir = Conf::trust(&own).size(1).start();
    let mut other = Client::connect(pgweir.port());
    for opaque in [format!("DO $$ BEGIN {hidden} END $$"), "SELECT hidden()".into(), "CALL nowhere()".into()] {
        let mut client = Client::connect(pgweir.port());
        let _ = client.query(&opaque);
        client.vanish();
        assert_eq!(other.value("SELECT current_setting('app.tenant', true)"), "", "{opaque}");
        assert_eq!(other.value("SHOW search_path"), "\"$user\", public", "{opaque}");
        assert_eq!(other.value("SELECT count(*) FROM pg_locks WHERE locktype = 'advisory'"), "0", "{opaque}");
        assert_eq!(other.value("SELECT count(*) > 100 FROM pg_class"), "t", "{opaque}");
        // Also when it leaves in the middle of a transaction.
        let mut client = Client::connect(pgweir.port());
        client.query("BEGIN").unwrap();
        let _ = client.query(&opaque);
        client.vanish();
        assert_eq!(other.value("SELECT current_setting('app.tenant', true)"), "", "{opaque}");
        assert_eq!(other.value("SELECT count(*) FROM pg_locks WHERE locktype = 'advisory'"), "0", "{opaque}");
    }
}
