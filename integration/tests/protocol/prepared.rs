//! Prepared statements whose server changes between one transaction and the next.
//! It must never matter to a client on which server connection it prepared what.

use crate::common::client::{outcome, said, tags};
use crate::common::{Client, crowd};
use crate::{cluster, conf, direct};
use integration::wire::{Frame, Script};

fn execute(name: &str, values: &[Option<&str>]) -> Script {
    Script::new().bind("", name, values).execute("", 0).sync()
}

fn first(frames: &[Frame]) -> String {
    outcome(frames).unwrap().into_iter().flatten().next().unwrap()
}

#[test]
fn a_duplicate_name_is_refused() {
    let pgweir = conf().size(1).start();
    let mut client = Client::connect(pgweir.port());
    assert_eq!(tags(&client.run(&Script::new().parse("s", "SELECT 1").sync())), "1Z");
    let again = Script::new().parse("s", "SELECT 2").sync();
    let frames = client.run(&again);
    assert_eq!(frames[0].field(b'C').as_deref(), Some("42P05"));
    // Also within one batch, and the first of both stays.
    let frames = client.run(&Script::new().parse("t", "SELECT 3").parse("t", "SELECT 4").sync());
    assert_eq!(tags(&frames), "1EZ");
    assert_eq!(frames[1].field(b'C').as_deref(), Some("42P05"));
    assert_eq!(first(&client.run(&execute("s", &[]))), "1");
    // Another client may use the name for something else.
    let mut other = Client::connect(pgweir.port());
    assert_eq!(tags(&other.run(&Script::new().parse("s", "SELECT 'other'").sync())), "1Z");
    assert_eq!(first(&other.run(&execute("s", &[]))), "other");
    assert_eq!(first(&client.run(&execute("s", &[]))), "1");
}

#[test]
fn an_unknown_name_is_refused() {
    let pgweir = conf().size(1).start();
    // Prepared by somebody else on the only server connection.
    let mut other = Client::connect(pgweir.port());
    other.run(&Script::new().parse("s", "SELECT 1").sync());
    let mut client = Client::connect(pgweir.port());
    let bind = execute("s", &[]);
    let describe = Script::new().describe(b'S', "s").sync();
    for script in [bind, describe] {
        let frames = client.run(&script);
        assert_eq!(tags(&frames), "EZ");
        assert_eq!(frames[0].field(b'C').as_deref(), Some("26000"));
    }
    let frames = client.run(&Script::new().bind("", "", &[]).execute("", 0).sync());
    assert_eq!(frames[0].field(b'C').as_deref(), Some("26000"));
    // Closing what is not there is no error.
    assert_eq!(tags(&client.run(&Script::new().close(b'S', "s").sync())), "3Z");
    assert_eq!(first(&other.run(&execute("s", &[]))), "1");
}

#[test]
fn a_closed_name_is_free_again() {
    let pgweir = conf().size(2).start();
    let mut client = Client::connect(pgweir.port());
    for round in 0..20 {
        let sql = format!("SELECT {round}");
        assert_eq!(tags(&client.run(&Script::new().parse("s", &sql).sync())), "1Z");
        assert_eq!(first(&client.run(&execute("s", &[]))), round.to_string());
        assert_eq!(tags(&client.run(&Script::new().close(b'S', "s").sync())), "3Z");
    }
    let frames = client.run(&execute("s", &[]));
    assert_eq!(frames[0].field(b'C').as_deref(), Some("26000"));
}

#[test]
fn many_clients_with_the_same_names_on_two_servers() {
    let pgweir = conf().size(2).start();
    let port = pgweir.port();
    crowd(30, move |number| {
        let mut client = Client::connect(port);
        for statement in 0..5 {
            let sql = format!("SELECT {number} * 1000 + {statement} * 100 + $1::int");
            assert_eq!(tags(&client.run(&Script::new().parse(&format!("s{statement}"), &sql).sync())), "1Z");
        }
        for round in 0..40 {
            let statement = round % 5;
            let frames = client.run(&execute(&format!("s{statement}"), &[Some(&round.to_string())]));
            assert_eq!(first(&frames), (number * 1000 + statement * 100 + round).to_string());
        }
    });
}

/// More statements than a server connection may hold: some are always gone there.
#[test]
fn more_statements_than_a_server_keeps() {
    let pgweir = conf().size(1).pool("max_prepared_statements = 3").start();
    let mut client = Client::connect(pgweir.port());
    for number in 0..10 {
        client.run(&Script::new().parse(&format!("s{number}"), &format!("SELECT {number}")).sync());
    }
    for round in 0..5 {
        for number in 0..10 {
            assert_eq!(first(&client.run(&execute(&format!("s{number}"), &[]))), number.to_string(), "{round}");
        }
    }
    // All ten in one batch, which may not evict what it still needs.
    let mut batch = Script::new();
    for number in 0..10 {
        batch = batch.bind("", &format!("s{number}"), &[]).execute("", 0);
    }
    let frames = client.run(&batch.sync());
    assert_eq!(tags(&frames), "2DC".repeat(10) + "Z");
    let kept: usize = client.value("SELECT count(*) FROM pg_prepared_statements").parse().unwrap();
    assert!(kept <= 10, "{kept}");
}

#[test]
fn the_unnamed_statement_lives_over_syncs() {
    let pgweir = conf().size(2).start();
    let mut busy = Client::connect(pgweir.port());
    let mut client = Client::connect(pgweir.port());
    assert_eq!(tags(&client.run(&Script::new().parse("", "SELECT 'kept ' || $1::text").sync())), "1Z");
    for round in 0..10 {
        // Moves the client to the other server connection every second time.
        if round % 2 == 0 {
            busy.query("BEGIN").unwrap();
            busy.query("SELECT 1").unwrap();
        } else {
            busy.query("COMMIT").unwrap();
        }
        let text = round.to_string();
        assert_eq!(first(&client.run(&execute("", &[Some(&text)]))), format!("kept {round}"));
    }
    // Another client's unnamed statement is its own.
    let frames = Client::connect(pgweir.port()).run(&execute("", &[]));
    assert_eq!(frames[0].field(b'C').as_deref(), Some("26000"));
    // A simple query takes it away, here as there.
    let after = |mut client: Client| {
        client.run(&Script::new().parse("", "SELECT 1").sync());
        client.query("SELECT 2").unwrap();
        client.run(&execute("", &[]))[0].field(b'C')
    };
    assert_eq!(after(Client::connect(pgweir.port())), after(direct()));
}

/// A statement whose preparation failed is not there afterwards.
#[test]
fn a_failed_preparation_leaves_no_name() {
    let pgweir = conf().size(1).start();
    let mut client = Client::connect(pgweir.port());
    let frames = client.run(&Script::new().parse("s", "SELECT nonsense").sync());
    assert!(said(&frames[0]).starts_with("42703"));
    let frames = client.run(&execute("s", &[]));
    assert_eq!(frames[0].field(b'C').as_deref(), Some("26000"));
    assert_eq!(tags(&client.run(&Script::new().parse("s", "SELECT 1").sync())), "1Z");
    // Nor does one that stands behind an error.
    let behind = Script::new().parse("", "SELECT 1/0").bind("", "", &[]).execute("", 0).parse("t", "SELECT 1").sync();
    assert!(tags(&client.run(&behind)).ends_with("EZ"));
    let frames = client.run(&execute("t", &[]));
    assert_eq!(frames[0].field(b'C').as_deref(), Some("26000"));
    assert_eq!(first(&client.run(&execute("s", &[]))), "1");
}

#[test]
fn described_as_postgresql_describes() {
    let pgweir = conf().size(2).start();
    let script = Script::new().parse("s", "SELECT $1::int AS a, 'x'::text AS b").describe(b'S', "s").sync();
    let portal = Script::new().bind("p", "s", &[Some("1")]).describe(b'P', "p").execute("p", 0).close(b'P', "p").sync();
    let all = |mut client: Client| [client.run(&script), client.run(&portal)];
    assert_eq!(all(Client::connect(pgweir.port())), all(direct()));
}

/// A portal read in pieces, over several Syncs inside of a transaction.
#[test]
fn a_portal_is_read_in_pieces() {
    let pgweir = conf().size(1).start();
    let mut client = Client::connect(pgweir.port());
    client.query("BEGIN").unwrap();
    let open = Script::new().parse("s", "SELECT * FROM generate_series(1, 5)").bind("p", "s", &[]).sync();
    assert_eq!(tags(&client.run(&open)), "12Z");
    let mut seen = Vec::new();
    for _ in 0..3 {
        let frames = client.run(&Script::new().execute("p", 2).sync());
        seen.extend(outcome(&frames).unwrap().into_iter().flatten());
    }
    assert_eq!(seen, ["1", "2", "3", "4", "5"]);
    client.query("COMMIT").unwrap();
}

/// Literals are read when a statement is prepared: one client's DateStyle must not decide what another's statement means.
#[test]
fn a_shared_text_is_read_under_its_own_clients_settings() {
    let pgweir = conf().size(1).start();
    let both =
        [("TimeZone", "UTC"), ("TimeZone", "America/New_York"), ("DateStyle", "ISO, DMY"), ("DateStyle", "ISO, MDY")];
    let sql = "SELECT extract(epoch FROM '01-02-2024 00:00'::timestamptz)::bigint";
    for setting in both {
        let run = |port, name: &str| {
            let mut client = Client::connect_with(port, &[setting]);
            let parse = Script::new().parse(name, sql).sync();
            assert_eq!(tags(&client.run(&parse)), "1Z");
            first(&client.run(&execute(name, &[])))
        };
        for name in ["s", ""] {
            assert_eq!(run(pgweir.port(), name), run(cluster().primary().port(), name), "{setting:?} {name:?}");
        }
    }
}

/// The same text under another search_path is another statement, with another result.
#[test]
fn a_shared_text_finds_the_tables_of_its_own_client() {
    cluster()
        .primary()
        .query_in(
            "app",
            "CREATE SCHEMA one; CREATE SCHEMA two; GRANT ALL ON SCHEMA one, two TO app;
             CREATE TABLE one.found AS SELECT 1 AS a; CREATE TABLE two.found AS SELECT 'two'::text AS a, 2 AS b;
             GRANT ALL ON one.found, two.found TO app",
        )
        .unwrap();
    let pgweir = conf().size(1).start();
    let client = |path| {
        let mut client = Client::connect_with(pgweir.port(), &[("search_path", path)]);
        assert_eq!(tags(&client.run(&Script::new().parse("s", "SELECT * FROM found").sync())), "1Z");
        client
    };
    let (mut one, mut two) = (client("one"), client("two"));
    for _ in 0..3 {
        assert_eq!(outcome(&one.run(&execute("s", &[]))), Ok(vec![vec!["1".to_string()]]));
        assert_eq!(outcome(&two.run(&execute("s", &[]))), Ok(vec![vec!["two".to_string(), "2".to_string()]]));
    }
}
