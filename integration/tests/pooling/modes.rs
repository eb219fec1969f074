//! Session, transaction and statement mode on real servers.
//! It must never look at how pgweir does it: only what clients and servers see counts.

use integration::USER;
use integration::wire::Script;

use crate::common::client::tags;
use crate::common::{Client, eventually};
use crate::{cluster, conf};

#[test]
fn a_session_is_as_a_direct_connection_and_leaves_nothing() {
    let pgweir = conf().size(1).pool("pool_mode = \"session\"").start();
    let mut first = Client::connect(pgweir.port());
    let pid = first.value("SELECT 0 + pg_backend_pid()");
    first.query("CREATE TEMP TABLE mine (x int); SET work_mem = '7MB'; PREPARE p AS SELECT 41").unwrap();
    first.query("SELECT pg_advisory_lock(77)").unwrap();
    assert_eq!(first.value("EXECUTE p"), "41");
    assert_eq!(first.value("SELECT 0 + pg_backend_pid()"), pid);
    let named = Script::new().parse("s", "SELECT 42").sync();
    assert_eq!(tags(&first.run(&named)), "1Z");
    // The other has to wait until the session ends: it comes in with a server of its own.
    let mut second = Client::tcp(pgweir.port());
    second.startup(0, &[]);
    eventually("the second waits", || {
        crate::common::metric(&pgweir, "pgweir_pool_clients", &[("state", "waiting")]) == 1.0
    });
    first.send(&Script::new().raw(b'X', b""));
    second.welcome().unwrap();
    let left = second.query("SELECT pg_backend_pid(), current_setting('work_mem'), to_regclass('mine')");
    assert_eq!(left.unwrap(), [[pid, "4MB".into(), String::new()]]);
    assert_eq!(second.value("SELECT count(*) FROM pg_locks WHERE locktype = 'advisory'"), "0");
    assert_eq!(second.value("SELECT count(*) FROM pg_prepared_statements"), "0");
}

#[test]
fn the_reset_query_runs_between_sessions_only() {
    let reset = "server_reset_query = \"RESET ALL; SELECT pg_advisory_unlock_all()\"";
    let pgweir = conf().size(1).pool("pool_mode = \"session\"").pool(reset).start();
    let mut first = Client::connect(pgweir.port());
    first.query("CREATE TEMP TABLE left_behind (x int); SET work_mem = '7MB'").unwrap();
    first.vanish();
    let mut second = Client::connect(pgweir.port());
    assert_eq!(second.value("SHOW work_mem"), "4MB");
    assert_eq!(second.value("SELECT to_regclass('left_behind') IS NOT NULL"), "t", "that is the operator's choice");
}

#[test]
fn statement_mode_refuses_transactions_of_several_statements() {
    let pgweir = conf().size(1).pool("pool_mode = \"statement\"").start();
    let mut client = Client::connect(pgweir.port());
    assert_eq!(client.value("SELECT 1"), "1");
    client.query("BEGIN; CREATE TABLE IF NOT EXISTS whole (x int); COMMIT").unwrap();
    client.send(&Script::new().query("BEGIN"));
    let frames = client.frames_to_end();
    assert_eq!(tags(&frames), "CZE", "{frames:?}");
    assert_eq!(frames[2].field(b'C').as_deref(), Some("0A000"));
    assert_eq!(frames[2].field(b'S').as_deref(), Some("FATAL"));
    // The server is rolled back and good for others.
    let mut next = Client::connect(pgweir.port());
    let extended = Script::new().parse("", "SELECT 2").bind("", "", &[]).execute("", 0).sync();
    assert_eq!(tags(&next.run(&extended)), "12DCZ");
    cluster().primary().query_in("app", "DROP TABLE whole").unwrap();
}

#[test]
fn the_mode_is_the_users_else_the_databases() {
    cluster().primary().query_in("app", "CREATE ROLE batch LOGIN").unwrap();
    let conf = conf().size(1).database("pool_mode = \"session\"").user("batch", "pool_mode = \"transaction\"");
    let pgweir = conf.start();
    let who = [("user", "batch")];
    let mut held = Client::connect_with(pgweir.port(), &[("user", USER)]);
    assert_eq!(held.value("SELECT current_user"), USER);
    let mut clients: Vec<Client> = (0..3).map(|_| Client::connect_with(pgweir.port(), &who)).collect();
    for client in &mut clients {
        assert_eq!(client.value("SELECT current_user"), "batch", "they share one server");
    }
}
