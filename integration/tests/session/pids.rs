//! What the number is good for that a client is told in transaction mode: its own process, and that of others.
//! It must never be enough that somebody is ended: it must be the one that was meant, and nobody else.

use std::sync::OnceLock;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use integration::wire::{Frame, Script};
use integration::{Cluster, Pgweir, USER};

use crate::common::client::{outcome, said, tags};
use crate::common::{Client, Conf, eventually, metric};

fn cluster() -> &'static Cluster {
    static CLUSTER: OnceLock<Cluster> = OnceLock::new();
    CLUSTER.get_or_init(|| Cluster::builder().start().unwrap())
}

/// Two workers that have a part of the pool each.
fn start() -> Pgweir {
    let pgweir = Conf::trust(cluster()).size(8).pool("server_order = \"rotate\"").top("workers = 2").start();
    // Until then clients are not done with a statement when it is answered.
    crate::common::know(&pgweir);
    pgweir
}

fn told(client: &Client) -> u32 {
    u32::from_be_bytes(client.key[..4].try_into().unwrap())
}

fn is_busy_with(marker: &str) {
    let sql = format!(
        "SELECT count(*) = 1 FROM pg_stat_activity WHERE state = 'active' AND query ~ '^SELECT pg_sleep.*{marker}'"
    );
    cluster().primary().wait_true(&sql).unwrap();
}

/// A Bind with one value in this format for statement `name`.
fn bind_one(script: Script, name: &str, binary: bool, value: &[u8]) -> Script {
    let mut body = [b"\0", name.as_bytes(), b"\0\0\x01\0", &[u8::from(binary)], b"\0\x01"].concat();
    body.extend_from_slice(&(value.len() as u32).to_be_bytes());
    body.extend_from_slice(value);
    body.extend_from_slice(b"\0\0");
    script.raw(b'B', &body)
}

/// A Parse of `sql` that declares its one parameter.
fn parse_with(script: Script, name: &str, sql: &str, oid: u32) -> Script {
    script.raw(b'P', &[name.as_bytes(), b"\0", sql.as_bytes(), b"\0\0\x01", &oid.to_be_bytes()].concat())
}

fn without_values(frames: &[Frame]) -> Vec<Frame> {
    frames.iter().filter(|frame| frame.tag != b'D').cloned().collect()
}

/// The number told, whatever server answers, under the name and type that the server's own answer has.
#[test]
fn the_own_process_is_the_one_told() {
    let pgweir = start();
    let mut client = Client::connect(pgweir.port());
    let mut direct = Client::connect(cluster().primary().port());
    let number = told(&client);
    assert!(number > 1 << 22, "{number}");
    for sql in [
        "SELECT pg_backend_pid()",
        "select /* c */ PG_CATALOG.pg_backend_pid ( ) ;",
        "SELECT pg_backend_pid() AS me",
        "SELECT pg_backend_pid()::text",
        "SELECT pg_backend_pid()::int8 eight -- c",
        "SELECT * FROM pg_backend_pid()",
        "SELECT * FROM pg_catalog.pg_backend_pid() AS a",
    ] {
        let extended =
            Script::new().parse("", sql).describe(b'S', "").bind("", "", &[]).describe(b'P', "").execute("", 0);
        let named = Script::new().parse("own", sql).sync();
        let again = Script::new().bind("", "own", &[]).execute("", 0).bind("p", "own", &[]).execute("p", 0).sync();
        let close = Script::new().close(b'S', "own").sync();
        for script in [Script::new().query(sql), extended.sync(), named, again.clone(), again, close] {
            let (ours, theirs) = (client.run(&script), direct.run(&script));
            assert_eq!(without_values(&ours), without_values(&theirs), "{sql}");
            for row in outcome(&ours).unwrap() {
                assert_eq!(row, [number.to_string()], "{sql}");
            }
        }
    }
    // Nothing of that stays with a server, which therefore goes on.
    let named = Script::new().parse("own", "SELECT pg_backend_pid()").bind("", "own", &[]).execute("", 0).sync();
    let closes = || metric(&pgweir, "pgweir_pool_server_closes_total", &[]);
    let before = closes();
    for _ in 0..16 {
        client.run(&named);
        client.query("DO $$ BEGIN END $$").unwrap();
        assert_eq!(
            client.value("SELECT count(*) FROM pg_prepared_statements WHERE statement ~ '^SELECT [0-9]+ AS'"),
            "0"
        );
        client.run(&Script::new().close(b'S', "own").sync());
    }
    assert_eq!(closes(), before);
    // In a transaction and where a server is kept as well.
    client.query("BEGIN; CREATE TEMP TABLE kept (n int)").unwrap();
    assert_eq!(client.value("SELECT pg_backend_pid()"), number.to_string());
    client.query("COMMIT").unwrap();
    assert_eq!(client.value("SELECT pg_backend_pid()"), number.to_string());
    // Beside anything else it is the server's.
    assert_eq!(client.value("SELECT count(*) FROM pg_stat_activity WHERE pid = pg_backend_pid()"), "1");
    let real: u32 = client.value("SELECT 0 + pg_backend_pid()").parse().unwrap();
    assert!(real <= 1 << 22);
    // And a notification's is the one told.
    client.query("LISTEN own_pid").unwrap();
    let frames = client.run(&Script::new().query("NOTIFY own_pid"));
    let heard = frames.iter().find(|frame| frame.tag == b'A').unwrap();
    assert_eq!(heard.body[..4], number.to_be_bytes());
}

/// Every way to say the number to `function`, as a script whose one row is its answer.
fn ways(function: &str, number: u32) -> Vec<(&'static str, Script)> {
    let call = |what: &str| format!("SELECT {function}({what})");
    let (text, sql) = (number.to_string(), call("$1"));
    let finish = |script: Script| script.execute("", 0).sync();
    vec![
        ("literal", Script::new().query(&call(&text))),
        ("string", Script::new().query(&format!("SELECT true; {};", call(&format!("'{number}'::int"))))),
        ("prepared literal", finish(Script::new().close(b'S', "w").parse("w", &call(&text)).bind("", "w", &[]))),
        ("text", finish(Script::new().parse("", &sql).bind("", "", &[Some(&text)]))),
        ("binary", finish(bind_one(parse_with(Script::new(), "", &sql, 23), "", true, &number.to_be_bytes()))),
        (
            "eight bytes",
            finish(bind_one(
                parse_with(Script::new().close(b'S', "e"), "e", &call("$1::int8::int"), 20),
                "e",
                true,
                &u64::from(number).to_be_bytes(),
            )),
        ),
    ]
}

#[test]
fn signals_reach_the_server_that_is_meant() {
    let pgweir = start();
    for (function, code) in [("pg_cancel_backend", "57014"), ("pg_terminate_backend", "57P01")] {
        for way in 0..6 {
            // Of both workers.
            for round in 0..2 {
                let mut callers: Vec<_> = (0..2).map(|_| Client::connect(pgweir.port())).collect();
                let mut target = Client::connect(pgweir.port());
                let mut bystander = Client::connect(pgweir.port());
                let (name, script) = ways(function, told(&target)).swap_remove(way);
                let marker = format!("{function} {way} {round}");
                bystander.query("BEGIN; SELECT 1").unwrap();
                target.send(&Script::new().query(&format!("SELECT pg_sleep(50) /* {marker} */")));
                is_busy_with(&marker);
                let frames = callers[round].run(&script);
                let rows = outcome(&frames).unwrap_or_else(|error| panic!("{marker}, {name}: {error}"));
                assert_eq!(rows.last().map(|row| &row[..]), Some(&["t".to_owned()][..]), "{marker}, {name}");
                let error = target.ready(1).into_iter().find(|frame| frame.tag == b'E').unwrap();
                assert_eq!(error.field(b'C').as_deref(), Some(code), "{marker}, {name}");
                assert_eq!(bystander.value("SELECT 2"), "2");
                bystander.query("COMMIT").unwrap();
                assert_eq!(callers[round].value("SELECT 3"), "3");
            }
        }
    }
    // What had to be asked has left no server with anybody, nor out of its pool.
    eventually("all servers rest", || {
        metric(&pgweir, "pgweir_pool_servers", &[("state", "active")]) == 0.0
            && metric(&pgweir, "pgweir_pool_clients", &[("state", "waiting")]) == 0.0
    });
}

/// Kept between transactions: in one, and for what it has left in the server.
#[test]
fn who_keeps_a_server_is_ended_by_its_number() {
    let pgweir = start();
    let mut caller = Client::connect(pgweir.port());
    for keeps in ["BEGIN", "CREATE TEMP TABLE kept (n int)"] {
        let mut target = Client::connect(pgweir.port());
        target.query(keeps).unwrap();
        let number = told(&target);
        let found = format!("SELECT count(*) FROM pg_stat_activity WHERE pid = {number}");
        assert_eq!(caller.value(&found), "1", "{keeps}");
        let listed = format!("SELECT count(*) FROM pg_stat_activity WHERE pid IN (0, {number})");
        assert_eq!(caller.value(&listed), "1", "{keeps}");
        assert_eq!(caller.value(&format!("SELECT pg_terminate_backend({number}, 10000)")), "t", "{keeps}");
        assert_eq!(tags(&target.frames_to_end()), "E", "{keeps}");
        assert_eq!(caller.value(&found), "0", "{keeps}");
    }
    // Its own.
    caller.send(&Script::new().query(&format!("SELECT pg_terminate_backend({})", told(&caller))));
    let frames = caller.frames_to_end();
    assert_eq!(said(frames.last().unwrap()), "57P01 terminating connection due to administrator command");
}

/// A client at rest has no process; a signal of its own user reaches it all the same.
#[test]
fn who_has_no_server_hears_signals_of_its_own_user() {
    let pgweir = start();
    let mut callers: Vec<_> = (0..2).map(|_| Client::connect(pgweir.port())).collect();
    for caller in &mut callers {
        for way in [0, 2, 3, 4] {
            let mut target = Client::connect(pgweir.port());
            assert_eq!(target.value("SELECT 1"), "1");
            let (name, cancel) = ways("pg_cancel_backend", told(&target)).swap_remove(way);
            assert_eq!(outcome(&caller.run(&cancel)).unwrap(), [["t"]], "{name}");
            assert_eq!(target.value("SELECT 2"), "2", "{name}");
            let (name, end) = ways("pg_terminate_backend", told(&target)).swap_remove(way);
            assert_eq!(outcome(&caller.run(&end)).unwrap(), [["t"]], "{name}");
            let last = target.frames_to_end();
            assert_eq!(said(&last[0]), "57P01 terminating connection due to administrator command", "{name}");
        }
    }
    // Where PostgreSQL would have to decide it decides: it has no such process.
    cluster().primary().query(&format!("CREATE ROLE lesser; GRANT lesser TO {USER}")).unwrap();
    let mut target = Client::connect(pgweir.port());
    let number = told(&target);
    for (before, after) in [("SET ROLE lesser", "RESET ROLE"), ("BEGIN; SELECT 1/0", "ROLLBACK")] {
        let caller = &mut callers[0];
        let _ = caller.query(before);
        let frames = caller.run(&Script::new().query(&format!("SELECT pg_terminate_backend({number})")));
        if before.starts_with("SET") {
            assert_eq!(frames[1].field(b'M'), Some(format!("PID {number} is not a PostgreSQL backend process")));
            assert_eq!(outcome(&frames).unwrap(), [["f"]]);
        }
        caller.query(after).unwrap();
        assert_eq!(target.value("SELECT 3"), "3", "{before}");
    }
    // So it does for one that has left, and for one that nobody has.
    target.vanish();
    eventually("it is gone", || metric(&pgweir, "pgweir_pool_clients", &[]) == 2.0);
    let mut next = Client::connect(pgweir.port());
    for gone in [number, number ^ 0x2_0000] {
        assert_eq!(callers[1].value(&format!("SELECT pg_terminate_backend({gone})")), "f");
    }
    assert_eq!(next.value("SELECT 4"), "4");
}

/// One client's number all the time, while others have the servers that it had a moment ago.
#[test]
fn nobody_else_is_ever_hit() {
    let pgweir = Conf::trust(cluster()).size(2).pool("server_order = \"rotate\"").start();
    let stop = AtomicBool::new(false);
    let (mut target, mut caller) = (Client::connect(pgweir.port()), Client::connect(pgweir.port()));
    let number = told(&target);
    let until = Instant::now() + Duration::from_secs(3);
    thread::scope(|scope| {
        let bystanders: Vec<_> = (0..2)
            .map(|_| {
                scope.spawn(|| {
                    let mut client = Client::connect(pgweir.port());
                    let mut served = 0;
                    while !stop.load(Ordering::Relaxed) {
                        assert_eq!(client.query("SELECT 'mine' FROM pg_sleep(0.001)"), Ok(vec![vec!["mine".into()]]));
                        served += 1;
                    }
                    served
                })
            })
            .collect();
        let hit = scope.spawn(|| {
            let mut hit = 0;
            while !stop.load(Ordering::Relaxed) {
                hit += usize::from(target.query("SELECT 'x' FROM pg_sleep(0.002)").is_err());
            }
            hit
        });
        let mut sent = 0;
        while Instant::now() < until {
            sent += usize::from(caller.value(&format!("SELECT pg_cancel_backend({number})")) == "t");
        }
        stop.store(true, Ordering::Relaxed);
        let served: Vec<usize> = bystanders.into_iter().map(|thread| thread.join().unwrap()).collect();
        let hit = hit.join().unwrap();
        assert!(sent > 20 && hit > 5 && served.iter().all(|n| *n > 20), "{sent} sent, {hit} hit, {served:?} served");
    });
}

/// By PgBouncer's rules nothing is read into texts.
#[test]
fn by_pgbouncers_rules_numbers_are_left_alone() {
    let pgweir = Conf::trust(cluster()).size(2).pool("session_state = \"pgbouncer\"").start();
    let (mut caller, mut target) = (Client::connect(pgweir.port()), Client::connect(pgweir.port()));
    target.query("BEGIN").unwrap();
    assert_eq!(caller.value(&format!("SELECT pg_terminate_backend({})", told(&target))), "f");
    let real = target.value("SELECT pg_backend_pid()");
    assert_eq!(caller.value(&format!("SELECT count(*) FROM pg_stat_activity WHERE pid = {real}")), "1");
    assert_eq!(target.value(&format!("SELECT '{USER}'")), USER);
}
