//! Pipelines: any mix of messages is answered byte for byte as PostgreSQL answers it.
//! It must never compare what differs by nature: process ids and what depends on the clock.

use crate::common::Client;
use crate::common::client::{outcome, tags};
use crate::{cluster, conf, direct};
use integration::wire::{Frame, Script};

/// Sends the script in one write, then byte ranges of it, to pgweir; each time the answer must be PostgreSQL's.
fn same_as_direct(table: &str, script: &Script, readies: usize) -> Vec<Frame> {
    let prepare = |client: &mut Client| {
        client
            .query(&format!("DROP TABLE IF EXISTS {table}; CREATE TABLE {table} (n int PRIMARY KEY, name text)"))
            .unwrap();
    };
    let mut expected_from = direct();
    prepare(&mut expected_from);
    expected_from.send(script);
    let expected = expected_from.ready(readies);
    let pgweir = conf().size(2).start();
    for size in [usize::MAX, 1000, 97, 5, 1] {
        let mut client = Client::connect(pgweir.port());
        prepare(&mut client);
        for piece in script.bytes().chunks(size.min(script.bytes().len())) {
            client.write(piece);
        }
        assert_eq!(client.ready(readies), expected, "in pieces of {size}");
        // Nothing more comes, and the session goes on.
        assert_eq!(tags(&client.run(&Script::new().sync())), "Z", "in pieces of {size}");
    }
    expected
}

fn insert(script: Script, table: &str, n: u32) -> Script {
    let number = n.to_string();
    let script = script.parse("", &format!("INSERT INTO {table} VALUES ($1, 'row')"));
    script.bind("", "", &[Some(&number)]).describe(b'P', "").execute("", 0)
}

#[test]
fn many_syncs_with_an_error_in_the_middle() {
    let mut script = Script::new();
    for n in 0..60 {
        // The thirtieth repeats the key of the tenth; what follows in its batch is skipped.
        script = insert(script, "piped", if n == 30 { 10 } else { n });
        if n % 3 == 2 {
            script = script.sync();
        }
    }
    script = script.query("SELECT count(*), sum(n) FROM piped");
    let frames = same_as_direct("piped", &script, 21);
    assert_eq!(frames.iter().filter(|frame| frame.tag == b'E').count(), 1);
    assert_eq!(frames.iter().rev().find(|frame| frame.tag == b'D').unwrap().row()[0], Some(b"57".to_vec()));
}

#[test]
fn named_statements_and_errors_everywhere() {
    let script = Script::new()
        .parse("a", "SELECT $1::int")
        .parse("b", "SELECT nonsense")
        .parse("c", "SELECT 'skipped'")
        .sync()
        .bind("", "a", &[Some("1")])
        .execute("", 0)
        .bind("", "c", &[])
        .execute("", 0)
        .sync()
        .parse("c", "SELECT 'now'")
        .bind("", "c", &[])
        .execute("", 0)
        .bind("", "a", &[Some("not a number")])
        .execute("", 0)
        .close(b'S', "a")
        .sync()
        .bind("", "a", &[Some("2")])
        .execute("", 0)
        .close(b'S', "a")
        .close(b'S', "a")
        .bind("", "a", &[Some("3")])
        .execute("", 0)
        .sync()
        .parse("a", "SELECT 'again'")
        .bind("", "a", &[])
        .execute("", 0)
        .close(b'P', "")
        .sync();
    same_as_direct("named", &script, 5);
}

#[test]
fn simple_and_extended_mixed_in_transactions() {
    let script = insert(Script::new().query("BEGIN").query("SAVEPOINT s"), "mixed", 1)
        .sync()
        .query("SELECT 1/0")
        .query("SELECT 'ignored in a failed transaction'")
        .parse("", "SELECT 1")
        .sync()
        .query("ROLLBACK TO s; SELECT count(*) FROM mixed")
        .query("COMMIT");
    let script = insert(script, "mixed", 2)
        .sync()
        .query("")
        .query(";;")
        .query("SELECT 1; SELECT 2, 3; SELECT 1/0; SELECT 4")
        // Not the columns themselves: their description holds the number of the table.
        .query("SELECT n + 0, name || '' FROM mixed")
        .parse("", "")
        .bind("", "", &[])
        .execute("", 0)
        .sync()
        .sync()
        .sync();
    same_as_direct("mixed", &script, 15);
}

/// Flush instead of Sync: answers come, the transaction stays open.
#[test]
fn flushes_keep_the_transaction_open() {
    let script = insert(Script::new(), "flushed", 1).flush();
    let script = insert(script, "flushed", 2).flush();
    let script = insert(script, "flushed", 1).flush();
    let script = insert(script, "flushed", 3).sync().query("SELECT count(*) FROM flushed");
    let frames = same_as_direct("flushed", &script, 2);
    assert_eq!(frames.iter().rev().find(|frame| frame.tag == b'D').unwrap().row()[0], Some(b"0".to_vec()));
}

#[test]
fn a_copy_in_the_middle() {
    let script = insert(Script::new(), "copied", 1)
        .sync()
        .query("COPY copied FROM STDIN")
        .copy_data(b"2\ttwo\n")
        .copy_data(b"3\tthree\n")
        .copy_done()
        .query("COPY (SELECT * FROM copied ORDER BY n) TO STDOUT")
        .query("COPY copied FROM STDIN")
        .copy_data(b"4\tfour\n")
        .copy_fail("enough")
        .query("SELECT count(*) FROM copied");
    same_as_direct("copied", &script, 5);
}

/// Functions by number, as lo_* of libpq calls them.
#[test]
fn function_calls() {
    let oid = |name: &str| {
        let sql = format!(
            "SELECT oid FROM pg_proc WHERE proname = '{name}' AND pronargs = 2 AND prorettype = 'int4'::regtype"
        );
        cluster().primary().value_in("app", &sql).unwrap().parse::<u32>().unwrap()
    };
    let call = |oid: u32, values: &[&str]| {
        let mut body = oid.to_be_bytes().to_vec();
        body.extend_from_slice(&[0, 0]);
        body.extend_from_slice(&(values.len() as u16).to_be_bytes());
        for value in values {
            body.extend_from_slice(&(value.len() as u32).to_be_bytes());
            body.extend_from_slice(value.as_bytes());
        }
        body.extend_from_slice(&[0, 0]);
        body
    };
    let (add, divide) = (oid("int4pl"), oid("int4div"));
    let script = Script::new()
        .raw(b'F', &call(add, &["40", "2"]))
        .query("BEGIN")
        .raw(b'F', &call(divide, &["1", "0"]))
        .query("ROLLBACK")
        .raw(b'F', &call(add, &["1", "2"]))
        .raw(b'F', &call(add, &["x", "2"]))
        .raw(b'F', &call(0, &[]))
        .query("SELECT 1");
    let frames = same_as_direct("called", &script, 8);
    assert_eq!(tags(&frames), "VZCZEZCZVZEZEZTDCZ");
    assert_eq!(frames[0].body, [&2u32.to_be_bytes()[..], b"42"].concat());
}

/// Notices and notifications come where they belong.
#[test]
fn notices_come_with_their_statement() {
    let script = Script::new()
        .query("DO $$ BEGIN RAISE NOTICE 'one'; END $$")
        .parse("", "DO $$ BEGIN RAISE WARNING 'two'; END $$")
        .bind("", "", &[])
        .execute("", 0)
        .sync()
        .query("DROP TABLE IF EXISTS never_there");
    let frames = same_as_direct("noticed", &script, 3);
    assert_eq!(tags(&frames), "NCZ12NCZNCZ");
}

/// A pipeline much larger than any buffer, written by one thread while another reads the answers.
#[test]
fn a_pipeline_larger_than_every_buffer() {
    let pgweir = conf().size(1).start();
    let mut client = Client::connect(pgweir.port());
    let padding = "x".repeat(2000);
    let mut script = Script::new();
    for n in 0..2000 {
        let value = format!("{n} {padding}");
        script = script.parse("", "SELECT $1::text").bind("", "", &[Some(&value)]).execute("", 0).sync();
    }
    let mut writer = client.second();
    let writing = std::thread::spawn(move || {
        writer.send(&script);
    });
    for n in 0..2000 {
        let rows = outcome(&client.ready(1)).unwrap();
        assert_eq!(rows, [[format!("{n} {padding}")]]);
    }
    writing.join().unwrap();
}
