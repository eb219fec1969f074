//! `SHOW ADVICE`: what only a proxy sees, and what it says of it.
//! It must never wait for advice that anything but the test could be the cause of.

use std::thread;
use std::time::Duration;

use crate::common::{Client, eventually, metric};
use crate::{Shown, conf, console, show};
use integration::wire::Script;
use integration::{DATABASE, Pgweir, USER};

fn advice(admin: &mut Client, kind: &str) -> Shown {
    show(admin, &format!("SHOW ADVICE WHERE kind = '{kind}'"))
}

fn named(pgweir: &Pgweir, name: &str) -> Client {
    Client::connect_with(pgweir.port(), &[("application_name", name)])
}

#[test]
fn who_holds_a_server_is_named_with_what_it_said_last() {
    let pgweir = conf().start();
    let mut admin = console(&pgweir);
    let (mut idle, mut failed, mut short) =
        (named(&pgweir, "dreamer"), named(&pgweir, "broken"), Client::connect(pgweir.port()));
    idle.query("BEGIN").unwrap();
    idle.query("SELECT 'secret' AS dreamt").unwrap();
    failed.query("BEGIN").unwrap();
    failed.query("SELECT 1/0 AS broke").unwrap_err();
    eventually("both are seen", || advice(&mut admin, "idle_in_transaction").rows.len() == 2);
    let shown = advice(&mut admin, "idle_in_transaction");
    let dreamt = ("query", "select ? as dreamt");
    let what = shown.value(dreamt, "what");
    assert!(
        what.contains(" (dreamer, 127.0.0.1:") && what.contains(" s, idle in a transaction, silent for "),
        "{what}"
    );
    assert_eq!((shown.value(dreamt, "database"), shown.value(dreamt, "user")), (DATABASE.into(), USER.into()));
    assert!(shown.value(dreamt, "time_us").parse::<u64>().unwrap() >= 1_000_000);
    let what = shown.value(("query", "select ? / ? as broke"), "what");
    assert!(what.contains("(broken, ") && what.contains("idle in a failed transaction"), "{what}");
    idle.query("COMMIT").unwrap();
    failed.query("ROLLBACK").unwrap();
    assert_eq!(advice(&mut admin, "idle_in_transaction").rows.len(), 0);
    // One that goes on and on.
    short.query("BEGIN").unwrap();
    eventually("it is long", || {
        short.query("SELECT pg_sleep(0.1)").unwrap();
        advice(&mut admin, "holds_server").rows.len() == 1
    });
    let shown = advice(&mut admin, "holds_server");
    assert_eq!(shown.value(("database", DATABASE), "query"), "select pg_sleep(?)");
    assert!(shown.value(("database", DATABASE), "what").contains(" s, in a transaction, "), "{shown:?}");
}

/// The worker that serves it, by the number that it was told (src/wire/pid.rs).
fn worker(client: &Client) -> u8 {
    client.key[0] >> 1
}

#[test]
fn both_sides_of_a_deadlock_are_named() {
    // Also where the other side is another worker's.
    let pgweir = conf().top("workers = 3").size(12).start();
    let mut admin = console(&pgweir);
    let mut one = Client::connect(pgweir.port());
    let mut others: Vec<_> = (0..24).map(|_| Client::connect(pgweir.port())).collect();
    let at = others.iter().position(|other| worker(other) != worker(&one)).expect("clients of another worker");
    let mut other = others.swap_remove(at);
    one.query("CREATE TABLE locked AS SELECT n FROM generate_series(1, 2) n").unwrap();
    one.query("CREATE TABLE seized AS SELECT 1 AS n").unwrap();
    // The victim is whoever looks first: the one with the shorter deadlock_timeout, which superusers alone may set; so whoever it is.
    one.query("BEGIN").unwrap();
    other.query("BEGIN").unwrap();
    one.query("UPDATE locked SET n = n WHERE n = 1").unwrap();
    other.query("DELETE FROM seized WHERE n = 1").unwrap();
    one.send(&Script::new().query("UPDATE seized SET n = n WHERE n = 1"));
    assert!(!one.speaks_within(Duration::from_millis(100)));
    let waits = thread::spawn(move || {
        let _ = other.query("DELETE FROM locked WHERE n = 1");
    });
    one.patience(Duration::from_secs(60));
    one.ready(1);
    let _ = one.query("ROLLBACK");
    waits.join().unwrap();
    let shown = advice(&mut admin, "deadlock");
    assert_eq!(shown.rows.len(), 1, "{shown:?}");
    let of = |column: &str| shown.value(("kind", "deadlock"), column);
    let sides = ["update seized set n = n where n = ?", "delete from locked where n = ?"];
    let victim = sides.iter().position(|side| of("query") == *side).unwrap_or_else(|| panic!("{shown:?}"));
    assert!(of("what").ends_with(sides[1 - victim]), "{shown:?}");
    assert_eq!((of("count"), of("database")), ("1".into(), DATABASE.into()));
    assert_eq!(metric(&pgweir, "pgweir_pool_deadlocks_total", &[]), 1.0);
}

#[test]
fn a_statement_for_each_row_is_an_n_plus_one_pattern() {
    let pgweir = conf().stats("n_plus_one = 10").start();
    let (mut admin, mut client) = (console(&pgweir), Client::connect(pgweir.port()));
    client.run(&Script::new().parse("item", "SELECT 'item' WHERE $1 > 0").sync());
    let visit = |client: &mut Client, rows: usize, items: usize| {
        client.query(&format!("SELECT n FROM generate_series(1, {rows}) n /* orders */")).unwrap();
        for _ in 0..items {
            client.run(&Script::new().bind("", "item", &[Some("1")]).execute("", 0).sync());
        }
    };
    // What other clients do between is not its own.
    let mut other = Client::connect(pgweir.port());
    visit(&mut client, 30, 15);
    other.query("SELECT n FROM generate_series(1, 200) n").unwrap();
    visit(&mut other, 9, 9);
    (0..15).for_each(|_| {
        client.run(&Script::new().bind("", "item", &[Some("1")]).execute("", 0).sync());
    });
    // Once may be chance.
    client.query("SELECT 1 AS apart").unwrap();
    assert_eq!(advice(&mut admin, "n_plus_one").rows.len(), 0);
    visit(&mut client, 12, 12);
    visit(&mut client, 100, 60);
    // None of these asks for a row: what stands around each of them, what fails, what is the same for all, and what is asked of some.
    let others = ["BEGIN", "SELECT now()", "COMMIT", "SELECT 1 / 0"];
    for _ in 0..3 {
        client.query("SELECT n FROM generate_series(1, 20) n /* invoices */").unwrap();
        for _ in 0..20 {
            others.iter().for_each(|other| drop(client.query(other)));
        }
    }
    let shown = advice(&mut admin, "n_plus_one");
    assert_eq!(shown.rows.len(), 1, "{shown:?}");
    let of = |column: &str| shown.value(("kind", "n_plus_one"), column);
    assert_eq!((of("count"), of("query")), ("42".into(), "select ? where ? > ?".into()));
    let what = of("what");
    assert!(what.starts_with("once for each row, 2 times behind ") && what.contains(": select n from"), "{what}");
    assert!(of("time_us").parse::<u64>().unwrap() > 0);
    // What is off finds nothing, and a reset forgets.
    pgweir.reload(&conf().stats("n_plus_one = 0").text()).unwrap();
    eventually("it is off", || show(&mut admin, "SHOW CONFIG").value(("key", "n_plus_one"), "value") == "0");
    assert_eq!(advice(&mut admin, "n_plus_one").rows.len(), 1);
    admin.query("RESET STATS").unwrap();
    visit(&mut client, 30, 30);
    assert_eq!(advice(&mut admin, "n_plus_one").rows.len(), 0);
}

#[test]
fn a_pattern_of_several_workers_is_one() {
    let pgweir = conf().top("workers = 3").size(12).stats("n_plus_one = 10").start();
    let mut admin = console(&pgweir);
    let mut clients: Vec<_> = (0..24).map(|_| Client::connect(pgweir.port())).collect();
    assert!(clients.iter().any(|client| worker(client) != worker(&clients[0])), "clients of several workers");
    for client in &mut clients {
        client.query("SELECT n FROM generate_series(1, 12) n /* orders */").unwrap();
        (0..12).for_each(|_| drop(client.query("SELECT 'item' WHERE 1 > 0").unwrap()));
    }
    let shown = advice(&mut admin, "n_plus_one");
    assert_eq!(shown.rows.len(), 1, "{shown:?}");
    assert_eq!(shown.value(("kind", "n_plus_one"), "count"), (24 * 12).to_string());
    assert!(
        shown.value(("kind", "n_plus_one"), "what").starts_with("once for each row, 24 times behind "),
        "{shown:?}"
    );
}

#[test]
fn what_the_api_advises_is_there_too() {
    let pgweir = conf().start();
    let (mut admin, mut client) = (console(&pgweir), named(&pgweir, "keeper"));
    client.query("CREATE TEMP TABLE kept (n int)").unwrap();
    (0..5).for_each(|_| drop(client.query("SELECT pg_sleep(0.15)").unwrap()));
    eventually("the pin is seen", || advice(&mut admin, "pinned").rows.len() == 1);
    let slow = advice(&mut admin, "slow_shape");
    assert_eq!(slow.value(("query", "select pg_sleep(?)"), "count"), "5");
    let (status, body) = pgweir.get("/api/database/optimizations").unwrap();
    assert_eq!(status, 200);
    let pinned = advice(&mut admin, "pinned").value(("kind", "pinned"), "action");
    assert!(body.contains(&pinned) && body.contains("\"server_holders\":["), "{body}");
}
