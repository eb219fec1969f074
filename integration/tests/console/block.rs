//! `BLOCK SHAPE`: what is refused, where, and until when; `RESET STATS`: what begins anew, and what does not.
//! It must never take an error for a refusal by its code alone.

use std::fs;

use crate::common::client::{outcome, said, tags};
use crate::common::{Client, eventually, metric};
use crate::{cluster, command, conf, console, console_as, show};
use integration::DATABASE;
use integration::wire::Script;

const REFUSED: &str = "42501 pgweir: statements of this shape are blocked";
const CACHE: &str = "[cache]\nmode = \"on\"\nttl = \"1m\"\nverify = 0\n";

fn shape_of(admin: &mut Client, text: &str) -> String {
    let shown = show(admin, &format!("SHOW QUERIES WHERE query = '{text}'"));
    shown.value(("query", text), "shape")
}

#[test]
fn what_is_blocked_is_refused_wherever_it_comes() {
    cluster().primary().query_in(DATABASE, "CREATE ROLE keeper LOGIN").unwrap();
    let pgweir = conf().user("keeper", "pool_mode = \"session\"").rest(CACHE).start();
    let (mut admin, mut client) = (console(&pgweir), Client::connect(pgweir.port()));
    client.query("CREATE TABLE bad AS SELECT 1 AS n").unwrap();
    client.query("GRANT SELECT ON bad TO keeper").unwrap();
    let mut before = Client::connect(pgweir.port());
    before.run(&Script::new().parse("p", "SELECT n FROM bad").sync());
    let mut keeper = Client::connect_with(pgweir.port(), &[("user", "keeper")]);
    assert_eq!(keeper.value("SELECT n + 0 FROM bad"), "1");
    eventually("its answer is kept", || {
        client.query("SELECT n FROM bad").unwrap();
        metric(&pgweir, "pgweir_cache_hits_total", &[]) > 0.0
    });
    let shape = shape_of(&mut admin, "select n from bad");
    assert_eq!(command(&mut admin, &format!("BLOCK SHAPE {shape}")).unwrap(), "BLOCK");
    // Alone, though its answer is kept; in a batch; prepared before; in a session that keeps its server.
    let frames = client.run(&Script::new().query("SELECT n FROM bad"));
    assert_eq!((tags(&frames).as_str(), said(&frames[0]).as_str()), ("EZ", REFUSED));
    assert!(frames[0].field(b'H').unwrap().contains(&format!("ALLOW SHAPE {shape}")));
    let batch = Script::new().parse("", "SELECT n FROM bad").bind("", "", &[]).execute("", 0).sync();
    assert_eq!(outcome(&client.run(&batch)), Err(REFUSED.into()));
    let named = Script::new().bind("", "p", &[]).execute("", 0).sync();
    assert_eq!(outcome(&before.run(&named)), Err(REFUSED.into()));
    assert_eq!(keeper.query("SELECT n FROM bad"), Err(REFUSED.into()));
    // In a transaction, which fails with it.
    client.query("BEGIN").unwrap();
    assert_eq!(client.query("SELECT n FROM bad"), Err(REFUSED.into()));
    assert!(client.query("SELECT 1").unwrap_err().starts_with("25P02"));
    client.query("ROLLBACK").unwrap();
    before.query("BEGIN").unwrap();
    assert_eq!(outcome(&before.run(&named)), Err(REFUSED.into()));
    before.query("ROLLBACK").unwrap();
    // Between others that are on their way.
    client.send(&Script::new().query("SELECT 'first'").query("SELECT n FROM bad").query("SELECT 'last'"));
    let answers = [client.ready(1), client.ready(1), client.ready(1)].map(|frames| outcome(&frames));
    let value = |text: &str| Ok(vec![vec![text.to_owned()]]);
    assert_eq!(answers, [value("first"), Err(REFUSED.into()), value("last")]);
    let shown = show(&mut admin, "SHOW BLOCKED");
    let of = |column: &str| shown.value(("shape", &shape), column);
    assert_eq!((of("blocked_by"), of("refused"), of("query")), ("root".into(), "7".into(), "select n from bad".into()));
    assert_eq!(metric(&pgweir, "pgweir_pool_blocked_statements_total", &[]), 7.0);
    let told = admin.query(&format!("EXPLAIN ROUTE ON {DATABASE} SELECT n FROM bad")).unwrap().concat().join("\n");
    assert!(told.contains("blocked:   on the console, by root"), "{told}");
    // A reload does not let it in again.
    let old = fs::read_to_string(pgweir.config_file()).unwrap();
    fs::write(pgweir.config_file(), format!("{old}\n[alerts]\n")).unwrap();
    assert_eq!(command(&mut admin, "RELOAD").unwrap(), "RELOAD");
    assert_eq!(client.query("SELECT n FROM bad"), Err(REFUSED.into()));
    assert_eq!(command(&mut admin, &format!("ALLOW SHAPE {shape}")).unwrap(), "ALLOW");
    assert_eq!((client.value("SELECT n FROM bad"), show(&mut admin, "SHOW BLOCKED").rows.len()), ("1".into(), 0));
    assert_eq!(outcome(&before.run(&named)), value("1"));
}

#[test]
fn a_block_is_of_a_database_and_of_what_can_be_refused() {
    let pgweir = conf().start();
    let (mut admin, mut client) = (console(&pgweir), Client::connect(pgweir.port()));
    client.query("SELECT 1 AS bad").unwrap();
    client.query("BEGIN").unwrap();
    client.query("COMMIT").unwrap();
    let (shape, begin) = (shape_of(&mut admin, "select ? as bad"), shape_of(&mut admin, "begin"));
    assert_eq!(command(&mut admin, &format!("BLOCK SHAPE {shape} IN {DATABASE}")).unwrap(), "BLOCK");
    assert_eq!(client.query("SELECT 2 AS bad"), Err(REFUSED.into()));
    assert_eq!(show(&mut admin, "SHOW BLOCKED").value(("shape", &shape), "database"), DATABASE);
    assert_eq!(command(&mut admin, &format!("ALLOW SHAPE {shape}")).unwrap(), "ALLOW");
    assert_eq!(client.value("SELECT 2 AS bad"), "2");
    for (sql, error) in [
        (format!("ALLOW SHAPE {shape}"), format!("42704 shape {shape} is not blocked")),
        (format!("BLOCK SHAPE {shape} IN nowhere"), "3D000 no such database: nowhere".into()),
        ("BLOCK SHAPE nonsense".into(), "22P02 \"nonsense\" is no shape".into()),
        (
            format!("BLOCK SHAPE {begin}"),
            format!("0A000 pgweir: statements that begin or end transactions cannot be blocked: {begin}"),
        ),
    ] {
        assert_eq!(command(&mut admin, &sql), Err(error), "{sql}");
    }
    // One that nobody has used yet.
    let frames = admin.run(&Script::new().query("BLOCK SHAPE 7"));
    assert_eq!((tags(&frames).as_str(), frames[1].command().as_deref()), ("NCZ", Some("BLOCK")));
    let mut watcher = console_as(&pgweir, "watcher", "pgweir");
    assert_eq!(show(&mut watcher, "SHOW BLOCKED").rows.len(), 1);
    for sql in ["BLOCK SHAPE 7", "ALLOW SHAPE 7", "RESET STATS"] {
        assert_eq!(command(&mut watcher, sql).unwrap_err(), "42501 admin access needed", "{sql}");
    }
}

#[test]
fn a_reset_begins_anew_and_metrics_go_on() {
    let pgweir = conf().pool("slow_query = \"200ms\"").start();
    let (mut admin, mut client) = (console(&pgweir), Client::connect(pgweir.port()));
    client.query("SELECT pg_sleep(0.25)").unwrap();
    (0..5).for_each(|n| drop(client.query(&format!("SELECT {n} AS often")).unwrap()));
    let calls = |name: &str| metric(&pgweir, "pgweir_query_calls_total", &[("query", name)]);
    let totals = |admin: &mut Client| show(admin, "SHOW STATS_TOTALS").value(("database", DATABASE), "query_count");
    let (shape, before) = (shape_of(&mut admin, "select ? as often"), totals(&mut admin));
    assert_eq!(show(&mut admin, "SHOW SLOW").rows.len(), 1);
    assert_eq!(command(&mut admin, "RESET STATS").unwrap(), "RESET");
    for view in ["QUERIES", "SLOW", "ROUTING"] {
        let shown = show(&mut admin, &format!("SHOW {view} WHERE database = '{DATABASE}'"));
        assert_eq!(shown.rows.len(), 0, "{view}: {shown:?}");
    }
    assert!(command(&mut admin, &format!("SHOW SHAPE {shape}")).unwrap_err().starts_with("42704"));
    assert_eq!((calls("select ? as often"), totals(&mut admin)), (5.0, before));
    client.query("SELECT 7 AS often").unwrap();
    let shown = show(&mut admin, "SHOW QUERIES WHERE query = 'select ? as often'");
    let of = |column: &str| shown.value(("shape", &shape), column);
    assert_eq!((of("calls"), of("rows"), of("missed_us_max")), ("1".into(), "1".into(), "0".into()));
    let details = show(&mut admin, &format!("SHOW SHAPE {shape}"));
    assert_eq!(details.value(("item", "calls"), "value"), "1");
    assert_eq!(details.value(("item", "total_us"), "value"), of("total_us"));
    assert_eq!(calls("select ? as often"), 6.0);
}
