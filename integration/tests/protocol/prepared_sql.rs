//! Prepared statements of the protocol and of SQL are one name space, and outdated ones heal.
//! It must never expect what PostgreSQL itself does not do: scripts run on both.

use crate::common::client::{outcome, said, tags};
use crate::common::{Client, eventually, metric};
use crate::{cluster, conf, direct};
use integration::wire::{Frame, Script};

fn execute(name: &str) -> Script {
    Script::new().bind("", name, &[]).execute("", 0).sync()
}

/// Runs every step on both; the answers must be the same, byte for byte.
fn same(steps: &[Script]) -> Vec<String> {
    let pgweir = conf().size(2).start();
    let (mut here, mut there) = (Client::connect(pgweir.port()), direct());
    let readies = |script: &Script| script.bytes().windows(5).filter(|w| **w == *b"S\0\0\0\x04").count().max(1);
    let both = steps.iter().enumerate().map(|(at, step)| {
        here.send(step);
        there.send(step);
        let (got, expected) = (here.ready(readies(step)), there.ready(readies(step)));
        assert_eq!(got, expected, "step {at}");
        tags(&got)
    });
    both.collect()
}

fn query(sql: &str) -> Script {
    Script::new().query(sql)
}

fn parse(name: &str, sql: &str) -> Script {
    Script::new().parse(name, sql).sync()
}

#[test]
fn one_name_space_for_sql_and_the_protocol() {
    same(&[
        parse("s", "SELECT $1::int + 1"),
        query("EXECUTE s(41)"),
        Script::new().bind("", "s", &[Some("1")]).execute("", 0).sync(),
        parse("s", "SELECT 2"),
        query("PREPARE s AS SELECT 3"),
        query("DEALLOCATE s"),
        query("DEALLOCATE s"),
        query("EXECUTE s(1)"),
        execute("s"),
        query("PREPARE \"Q q\" AS SELECT 'by sql'"),
        execute("Q q"),
        parse("Q q", "SELECT 4"),
        Script::new().describe(b'S', "Q q").sync(),
        Script::new().close(b'S', "Q q").sync(),
        execute("Q q"),
        parse("t", "SELECT 5"),
        query("DEALLOCATE ALL"),
        execute("t"),
        parse("t", "SELECT 6"),
        execute("t"),
        query("DISCARD ALL"),
        execute("t"),
        parse("u", "SELECT 7"),
        Script::new().parse("", "EXECUTE u").bind("", "", &[]).describe(b'P', "").execute("", 0).sync(),
        Script::new().parse("", "DEALLOCATE u").bind("", "", &[]).execute("", 0).sync(),
        execute("u"),
        query("SELECT 'alive'"),
    ]);
}

#[test]
fn one_name_space_in_transactions_too() {
    let answers = same(&[
        parse("s", "SELECT 1"),
        query("BEGIN"),
        query("EXECUTE s"),
        query("SELECT 1/0"),
        query("EXECUTE s"),
        query("DEALLOCATE s"),
        parse("s", "SELECT 1"),
        parse("x", "SELECT 1"),
        query("ROLLBACK"),
        query("EXECUTE s"),
        // Neither is undone by a rollback.
        query("BEGIN; PREPARE p AS SELECT 2; DEALLOCATE s; ROLLBACK"),
        query("EXECUTE p"),
        execute("s"),
        execute("p"),
        parse("g", "SELECT * FROM gone_later"),
        query("DEALLOCATE nosuch; SELECT 1"),
    ]);
    assert_eq!(answers[6..8], ["EZ", "EZ"]);
}

/// What a batch prepares behind DEALLOCATE ALL is there afterwards, and what was before it is not.
#[test]
fn deallocate_all_by_the_extended_protocol() {
    let all = || Script::new().parse("", "DEALLOCATE ALL").bind("", "", &[]).execute("", 0);
    same(&[
        parse("a", "SELECT 1"),
        parse("b", "SELECT 2"),
        all().parse("a", "SELECT 3").bind("", "a", &[]).execute("", 0).sync(),
        execute("a"),
        execute("b"),
        all().parse("b", "SELECT 3").bind("", "b", &[]).execute("", 0).bind("", "a", &[]).sync(),
        execute("b"),
        Script::new().parse("", "SELECT 1/0").bind("", "", &[]).execute("", 0).parse("c", "SELECT 4").sync(),
        execute("c"),
        execute("b"),
        Script::new().parse("z", "DEALLOCATE ALL").bind("p", "z", &[]).execute("p", 0).parse("b", "SELECT 5").sync(),
        execute("b"),
        execute("z"),
    ]);
}

/// Errors say the name that was meant, also where two mean the same text; what is wrong with a text is said before
/// that the transaction has failed, and that before that the name is taken.
#[test]
fn errors_come_in_postgresqls_order_and_words() {
    let one = |name: &str| Script::new().bind("", name, &[Some("1")]).execute("", 0).sync();
    same(&[
        parse("a", "SELECT 1"),
        parse("b", "SELECT 1"),
        one("a"),
        one("b"),
        parse("a", "SELECT 2"),
        parse("b", "SELEC"),
        query("BEGIN"),
        query("SELECT 1/0"),
        parse("a", "SELEC"),
        parse("a", "SELECT 2"),
        parse("a", "ROLLBACK"),
        parse("new", "SELEC"),
        parse("new", "SELECT 2"),
        execute("nosuch"),
        execute("b"),
        query("ROLLBACK"),
        execute("b"),
    ]);
}

/// A failed transaction refuses a text that the server has prepared already.
#[test]
fn a_failed_transaction_refuses_known_texts() {
    let pgweir = conf().size(1).start();
    let mut other = Client::connect(pgweir.port());
    assert_eq!(tags(&other.run(&parse("s", "SELECT 'shared'"))), "1Z");
    let mut client = Client::connect(pgweir.port());
    client.query("BEGIN").unwrap();
    client.query("SELECT 1/0").unwrap_err();
    let frames = client.run(&parse("s", "SELECT 'shared'"));
    assert_eq!(frames[0].field(b'C').as_deref(), Some("25P02"));
    client.query("ROLLBACK").unwrap();
    assert_eq!(tags(&client.run(&parse("s", "SELECT 'shared'"))), "1Z");
    assert_eq!(outcome(&client.run(&execute("s"))), Ok(vec![vec!["shared".into()]]));
    assert_eq!(outcome(&other.run(&execute("s"))), Ok(vec![vec!["shared".into()]]));
}

/// The server is kept for names that SQL knows, and only as long as there are any.
#[test]
fn the_server_is_free_when_the_last_name_has_gone() {
    let pgweir = conf().size(1).pool("query_wait_timeout = \"500ms\"").start();
    let mut client = Client::connect(pgweir.port());
    for round in 0..3 {
        client.run(&parse("s", "SELECT 1"));
        client.query("PREPARE t AS SELECT 2").unwrap();
        client.query("EXECUTE s").unwrap();
        assert!(Client::connect(pgweir.port()).query("SELECT 1").is_err(), "round {round}: the server was free");
        client.query("DEALLOCATE s").unwrap();
        client.query("DEALLOCATE t").unwrap();
        let mut other = Client::connect(pgweir.port());
        assert_eq!(other.value("SELECT count(*) FROM pg_prepared_statements WHERE name IN ('s', 't')"), "0");
    }
}

fn table(name: &str) {
    let sql = format!("CREATE TABLE {name} AS SELECT 1 AS a; GRANT ALL ON {name} TO app");
    cluster().primary().query_in("app", &sql).unwrap();
}

fn widen(name: &str, column: &str) {
    cluster().primary().query_in("app", &format!("ALTER TABLE {name} ADD {column} int DEFAULT 2")).unwrap();
}

fn row(frames: &[Frame]) -> Vec<Vec<String>> {
    outcome(frames).unwrap()
}

#[test]
fn a_changed_result_type_heals_itself() {
    table("healed");
    let pgweir = conf().size(2).start();
    let mut clients: Vec<_> = (0..3).map(|_| Client::connect(pgweir.port())).collect();
    for client in &mut clients {
        client.run(&parse("s", "SELECT * FROM healed"));
        assert_eq!(row(&client.run(&execute("s"))), [["1"]]);
    }
    widen("healed", "b");
    for client in &mut clients {
        let frames = client.run(&Script::new().bind("", "s", &[]).describe(b'P', "").execute("", 0).sync());
        assert_eq!(tags(&frames), "2TDCZ");
        assert_eq!(row(&frames), [["1", "2"]]);
        assert_eq!(tags(&client.run(&Script::new().describe(b'S', "s").sync())), "tTZ");
    }
    eventually("the repeat is counted", || metric(&pgweir, "pgweir_pool_batch_repeats_total", &[]) >= 1.0);
    // In a transaction the client hears of it once, and need not do anything but begin anew.
    widen("healed", "c");
    let client = &mut clients[0];
    client.query("BEGIN").unwrap();
    let frames = client.run(&execute("s"));
    assert_eq!(said(&frames[0]), "0A000 cached plan must not change result type");
    client.query("ROLLBACK").unwrap();
    client.query("BEGIN").unwrap();
    assert_eq!(row(&client.run(&execute("s"))), [["1", "2", "2"]]);
    client.query("COMMIT").unwrap();
}

/// What somebody has dropped behind pgweir's back.
#[test]
fn a_statement_that_is_gone_is_prepared_again() {
    let pgweir = conf().size(1).start();
    let (mut client, mut other) = (Client::connect(pgweir.port()), Client::connect(pgweir.port()));
    let code = "DO $$ BEGIN EXECUTE 'DEALLOCATE ALL'; END $$";
    client.run(&parse("s", "SELECT 'there'"));
    other.query(code).unwrap();
    assert_eq!(row(&client.run(&execute("s"))), [["there"]]);
    // One's own are gone, as on a direct connection.
    client.query(code).unwrap();
    assert!(outcome(&client.run(&execute("s"))).unwrap_err().starts_with("26000"));
    assert_eq!(tags(&client.run(&parse("s", "SELECT 'there'"))), "1Z");
    assert_eq!(row(&client.run(&execute("s"))), [["there"]]);
}

#[test]
fn errors_name_what_the_client_named() {
    let script = |sql: &str| Script::new().parse("mine", sql).sync();
    let mut wrong = Vec::new();
    for mut client in [Client::connect(conf().size(1).start().port()), direct()] {
        client.run(&script("SELECT $1::int"));
        let few = Script::new().bind("", "mine", &[]).execute("", 0).sync();
        let steps = [script("SELECT 2"), few, execute("nosuch"), execute("__pgweir_1"), execute("")];
        wrong.push(steps.map(|step| client.run(&step)));
    }
    assert_eq!(wrong[0], wrong[1]);
    assert_eq!(said(&wrong[0][0][0]), "42P05 prepared statement \"mine\" already exists");
}

#[test]
fn limits_in_bytes_refuse_and_leave_the_session_as_it_was() {
    let pgweir = conf().size(2).pool("max_client_prepared_bytes = \"16KiB\"").start();
    let mut client = Client::connect(pgweir.port());
    let text = |n: usize| format!("SELECT {n}{}", " ".repeat(3000));
    for n in 0..5 {
        assert_eq!(tags(&client.run(&parse(&format!("s{n}"), &text(n)))), "1Z");
    }
    let frames = client.run(&Script::new().parse("s5", &text(5)).bind("", "s5", &[]).execute("", 0).sync());
    assert_eq!(tags(&frames), "EZ");
    assert_eq!(frames[0].field(b'C').as_deref(), Some("54000"));
    assert!(frames[0].field(b'H').unwrap().contains("max_client_prepared_bytes"));
    for n in 0..5 {
        assert_eq!(row(&client.run(&execute(&format!("s{n}")))), [[n.to_string()]]);
    }
    eventually("the refusal is counted", || metric(&pgweir, "pgweir_pool_prepare_refusals_total", &[]) == 1.0);
    eventually("the bytes are shown", || {
        metric(&pgweir, "pgweir_pool_client_statements", &[]) == 5.0
            && metric(&pgweir, "pgweir_pool_client_statement_bytes", &[]) > 15_000.0
            && metric(&pgweir, "pgweir_prepared_bytes", &[]) > 15_000.0
    });
    assert_eq!(tags(&client.run(&Script::new().close(b'S', "s0").parse("s5", &text(5)).sync())), "31Z");
}

/// A transaction's own setting decides what its texts mean, and nobody else's.
#[test]
fn a_setting_of_the_transaction_stays_in_its_texts() {
    let sql = "SELECT extract(epoch FROM '2024-01-02 00:00'::timestamptz)::bigint";
    for local in ["SET LOCAL TimeZone TO 'America/New_York'", "SELECT set_config('TimeZone', 'America/New_York', true)"]
    {
        let pgweir = conf().size(1).start();
        let mut plain = Client::connect_with(pgweir.port(), &[("TimeZone", "UTC")]);
        let mut client = Client::connect_with(pgweir.port(), &[("TimeZone", "UTC")]);
        client.query("BEGIN").unwrap();
        client.query(local).unwrap();
        client.run(&parse("s", sql));
        assert_eq!(row(&client.run(&execute("s"))), [["1704171600"]], "{local}");
        client.query("COMMIT").unwrap();
        plain.run(&parse("s", sql));
        assert_eq!(row(&plain.run(&execute("s"))), [["1704153600"]], "{local}");
    }
    // Nor when a server is taught a text that was prepared before the setting.
    let pgweir = conf().size(1).pool("max_prepared_statements = 1").start();
    let mut client = Client::connect_with(pgweir.port(), &[("TimeZone", "UTC")]);
    let mut other = Client::connect_with(pgweir.port(), &[("TimeZone", "UTC")]);
    client.run(&parse("s", sql));
    other.run(&parse("s", sql));
    other.run(&parse("t", "SELECT 'takes the place'"));
    client.query("BEGIN").unwrap();
    client.query("SET LOCAL TimeZone TO 'America/New_York'").unwrap();
    client.run(&execute("s"));
    client.query("COMMIT").unwrap();
    assert_eq!(row(&other.run(&execute("s"))), [["1704153600"]]);
}
