//! COPY in both directions, in both protocols, also when it goes wrong.
//! It must never leave a server connection behind that still copies.

use crate::common::Client;
use crate::common::client::{outcome, said, tags};
use crate::conf;
use integration::Pgweir;
use integration::wire::{Frame, Script};

/// pgweir with one server connection, and a client with an empty table.
fn start(table: &str) -> (Pgweir, Client) {
    let pgweir = conf().size(1).start();
    let mut client = Client::connect(pgweir.port());
    client.query(&format!("CREATE TABLE {table} (n int, name text)")).unwrap();
    (pgweir, client)
}

fn lines(count: usize) -> String {
    (0..count).map(|n| format!("{n}\tname {n}\n")).collect()
}

fn command(frames: &[Frame]) -> String {
    frames.iter().find_map(Frame::command).unwrap_or_default()
}

/// Another client gets the server connection, and it works.
fn is_clean(pgweir: &Pgweir, table: &str, rows: &str) {
    let mut other = Client::connect(pgweir.port());
    assert_eq!(other.value(&format!("SELECT count(*) FROM {table}")), rows);
    let frames = other.run(&Script::new().parse("", "SELECT 5").bind("", "", &[]).execute("", 0).sync());
    assert_eq!(tags(&frames), "12DCZ");
}

#[test]
fn in_with_the_simple_protocol() {
    let (pgweir, mut client) = start("copy_simple");
    client.send(&Script::new().query("COPY copy_simple FROM STDIN"));
    assert_eq!(client.read().unwrap().tag, b'G');
    for chunk in lines(5000).as_bytes().chunks(777) {
        client.send(&Script::new().copy_data(chunk));
    }
    let frames = client.run(&Script::new().copy_done());
    assert_eq!((tags(&frames), command(&frames)), ("CZ".into(), "COPY 5000".into()));
    is_clean(&pgweir, "copy_simple", "5000");
}

/// Everything in one write, without waiting for CopyInResponse.
#[test]
fn in_with_everything_at_once() {
    let (pgweir, mut client) = start("copy_once");
    let script = Script::new().query("COPY copy_once FROM STDIN").copy_data(lines(3).as_bytes()).copy_done();
    let frames = client.run(&script.query("SELECT 8"));
    assert_eq!(tags(&frames), "GCZ");
    assert_eq!(tags(&client.ready(1)), "TDCZ");
    is_clean(&pgweir, "copy_once", "3");
}

#[test]
fn in_with_the_extended_protocol() {
    let (pgweir, mut client) = start("copy_extended");
    client.send(&Script::new().parse("", "COPY copy_extended FROM STDIN").bind("", "", &[]).execute("", 0).flush());
    let begun: Vec<Frame> = (0..3).map(|_| client.read().unwrap()).collect();
    assert_eq!(tags(&begun), "12G");
    let frames = client.run(&Script::new().copy_data(lines(10).as_bytes()).copy_done().sync());
    assert_eq!((tags(&frames), command(&frames)), ("CZ".into(), "COPY 10".into()));
    is_clean(&pgweir, "copy_extended", "10");
}

/// What psycopg and JDBC do: Sync right behind Execute; PostgreSQL ignores it while it copies.
#[test]
fn in_with_a_sync_before_the_data() {
    let (pgweir, mut client) = start("copy_sync");
    client.send(&Script::new().parse("", "COPY copy_sync FROM STDIN").bind("", "", &[]).execute("", 0).sync());
    let begun: Vec<Frame> = (0..3).map(|_| client.read().unwrap()).collect();
    assert_eq!(tags(&begun), "12G");
    let frames = client.run(&Script::new().copy_data(lines(4).as_bytes()).copy_done().sync());
    assert_eq!((tags(&frames), command(&frames)), ("CZ".into(), "COPY 4".into()));
    assert_eq!(client.value("SELECT 6"), "6");
    is_clean(&pgweir, "copy_sync", "4");
}

#[test]
fn a_client_gives_a_copy_up() {
    let (pgweir, mut client) = start("copy_given_up");
    client.send(&Script::new().query("COPY copy_given_up FROM STDIN").copy_data(b"1\tx\n"));
    assert_eq!(client.read().unwrap().tag, b'G');
    let frames = client.run(&Script::new().copy_fail("no more"));
    assert_eq!(tags(&frames), "EZ");
    assert!(said(&frames[0]).starts_with("57014"), "{}", said(&frames[0]));
    is_clean(&pgweir, "copy_given_up", "0");
}

/// The server stops copying at the first bad line; the client goes on sending for a while.
#[test]
fn a_server_refuses_a_copy() {
    let (pgweir, mut client) = start("copy_refused");
    client.send(&Script::new().query("COPY copy_refused FROM STDIN"));
    assert_eq!(client.read().unwrap().tag, b'G');
    client.send(&Script::new().copy_data(b"not a number\tx\n"));
    let frames = client.ready(1);
    assert_eq!(tags(&frames), "EZ");
    assert!(said(&frames[0]).starts_with("22P02"), "{}", said(&frames[0]));
    let mut late = Script::new();
    for _ in 0..100 {
        late = late.copy_data(b"1\tx\n");
    }
    client.send(&late.copy_done());
    assert_eq!(client.value("SELECT 9"), "9");
    is_clean(&pgweir, "copy_refused", "0");
}

#[test]
fn a_client_dies_in_a_copy() {
    let (pgweir, mut client) = start("copy_died");
    client.send(&Script::new().query("COPY copy_died FROM STDIN").copy_data(b"1\tx\n"));
    assert_eq!(client.read().unwrap().tag, b'G');
    client.vanish();
    is_clean(&pgweir, "copy_died", "0");
}

#[test]
fn out_in_both_protocols() {
    let (pgweir, mut client) = start("copy_out");
    client.query("INSERT INTO copy_out SELECT n, 'name ' || n FROM generate_series(0, 4999) AS n").unwrap();
    let sql = "COPY (SELECT * FROM copy_out ORDER BY n) TO STDOUT";
    let simple = Script::new().query(sql);
    let extended = Script::new().parse("", sql).bind("", "", &[]).execute("", 0).sync();
    for (script, begin) in [(simple, "H"), (extended, "12H")] {
        let frames = client.run(&script);
        assert!(tags(&frames).starts_with(begin));
        assert!(tags(&frames).ends_with("dcCZ"));
        let data: Vec<u8> =
            frames.iter().filter(|frame| frame.tag == b'd').flat_map(|frame| frame.body.clone()).collect();
        assert!(data == lines(5000).as_bytes());
        assert_eq!(command(&frames), "COPY 5000");
    }
    is_clean(&pgweir, "copy_out", "5000");
}

/// Two statements of one Query, a COPY between them.
#[test]
fn between_other_statements() {
    let (pgweir, mut client) = start("copy_between");
    let sql = "SELECT 1; COPY copy_between FROM STDIN; SELECT count(*) FROM copy_between";
    let frames = client.run(&Script::new().query(sql).copy_data(lines(2).as_bytes()).copy_done());
    assert_eq!(tags(&frames), "TDCGCTDCZ");
    assert_eq!(outcome(&frames), Ok(vec![vec!["1".to_string()], vec!["2".to_string()]]));
    is_clean(&pgweir, "copy_between", "2");
}
