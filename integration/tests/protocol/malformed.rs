//! Bytes that are no protocol: each ends its own connection and nothing else.
//! It must never hang: every case is answered or hung up on.

use crate::common::Client;
use crate::common::client::{said, startup};
use crate::{assert_serves, conf};
use integration::wire::Script;

#[test]
fn defect_05_impossible_startup_lengths_end_the_connection() {
    let pgweir = conf().start();
    let mut bystander = Client::connect(pgweir.port());
    let whole = startup(0, &[]);
    for length in [0u32, 3, 4, 7, 10_001, 0x7fff_ffff, 0x8000_0000, 0xffff_ffff] {
        let mut client = Client::tcp(pgweir.port());
        client.write(&[&length.to_be_bytes()[..], &whole[4..]].concat());
        let answer = client.read_to_end();
        // Whoever sends this speaks no PostgreSQL: silence or an error, but never a login.
        assert!(answer.is_empty() || answer[0] == b'E', "{length}: {answer:?}");
        assert_eq!(bystander.value("SELECT 7"), "7");
    }
    assert_serves(&pgweir);
}

#[test]
fn the_longest_startup_message_is_accepted() {
    let pgweir = conf().start();
    let mut client = Client::tcp(pgweir.port());
    let fixed = startup(0, &[("application_name", "")]).len();
    let name = "x".repeat(10_000 - fixed);
    let message = startup(0, &[("application_name", &name)]);
    assert_eq!(message.len(), 10_000);
    client.write(&message);
    client.welcome().unwrap();
    // PostgreSQL cuts it to NAMEDATALEN - 1.
    assert_eq!(client.value("SHOW application_name"), "x".repeat(63));
}

#[test]
fn garbage_instead_of_a_startup_message() {
    let pgweir = conf().start();
    let whole = startup(0, &[]);
    let unterminated = [&12u32.to_be_bytes()[..], &196_608u32.to_be_bytes(), b"user"].concat();
    let odd = [&14u32.to_be_bytes()[..], &196_608u32.to_be_bytes(), b"user\0\0"].concat();
    for bytes in [&b"GET / HTTP/1.1\r\nHost: x\r\n\r\n"[..], &[0xff; 64], &[0; 64], &unterminated, &odd] {
        let mut client = Client::tcp(pgweir.port());
        client.write(bytes);
        let answer = client.read_to_end();
        assert!(answer.is_empty() || answer[0] == b'E', "{answer:?}");
    }
    // A connection that ends in the middle of it, at every byte.
    for end in 0..whole.len() {
        let mut client = Client::tcp(pgweir.port());
        client.write(&whole[..end]);
        client.vanish();
    }
    assert_serves(&pgweir);
}

#[test]
fn a_startup_message_byte_by_byte() {
    let pgweir = conf().start();
    let mut client = Client::tcp(pgweir.port());
    for byte in startup(0, &[("application_name", "slow")]) {
        client.write(&[byte]);
    }
    client.welcome().unwrap();
    assert_eq!(client.value("SHOW application_name"), "slow");
}

#[test]
fn no_user_is_refused_with_words() {
    let pgweir = conf().start();
    let mut client = Client::tcp(pgweir.port());
    client.startup(0, &[("user", "")]);
    let refused = client.welcome().unwrap_err();
    assert_eq!(said(&refused), "28000 no PostgreSQL user name specified in startup packet");
}

/// The client is told 08P01 and goes; others notice nothing. Gives the server connection of another client before and after.
fn violates(bytes: &[u8]) -> [String; 2] {
    let pgweir = conf().size(1).start();
    let mut bystander = Client::connect(pgweir.port());
    let backend = bystander.value("SELECT 0 + pg_backend_pid()");
    let mut client = Client::connect(pgweir.port());
    client.write(bytes);
    let frames = client.frames_to_end();
    let error = frames.last().unwrap_or_else(|| panic!("nothing said about {bytes:?}"));
    assert_eq!(error.tag, b'E', "{frames:?}");
    assert_eq!(error.field(b'C').as_deref(), Some("08P01"), "{}", said(error));
    assert_eq!(error.field(b'S').as_deref(), Some("FATAL"));
    [backend, bystander.value("SELECT 0 + pg_backend_pid()")]
}

/// A violation that is seen in a message's head costs no server connection.
fn violates_at_once(bytes: &[u8]) {
    let [before, after] = violates(bytes);
    assert_eq!(before, after);
}

#[test]
fn an_unknown_message_type() {
    violates_at_once(&[b'!', 0, 0, 0, 4]);
}

#[test]
fn a_server_message_type() {
    violates_at_once(&[b'Z', 0, 0, 0, 5, b'I']);
}

#[test]
fn a_length_below_its_own_size() {
    violates_at_once(&[b'Q', 0, 0, 0, 3, 0, 0, 0]);
}

#[test]
fn a_negative_length() {
    violates_at_once(&[b'Q', 0xff, 0xff, 0xff, 0xff]);
}

#[test]
fn a_huge_length() {
    violates_at_once(&[b'P', 0x7f, 0xff, 0xff, 0xff]);
}

#[test]
fn a_huge_length_of_a_sync() {
    violates_at_once(&[b'S', 0x7f, 0xff, 0xff, 0xff]);
}

#[test]
fn a_query_without_terminator() {
    violates(&[b'Q', 0, 0, 0, 8, b'S', b'E', b'L', b'E']);
}

/// In a transaction, what is behind it is rolled back and its server used again.
#[test]
fn a_violation_in_a_transaction_rolls_it_back() {
    let pgweir = conf().size(1).start();
    let mut client = Client::connect(pgweir.port());
    client.query("CREATE TABLE violated (n int)").unwrap();
    client.query("BEGIN").unwrap();
    client.query("INSERT INTO violated VALUES (1)").unwrap();
    client.write(&[b'!', 0, 0, 0, 4]);
    let frames = client.frames_to_end();
    assert_eq!(frames.last().unwrap().field(b'C').as_deref(), Some("08P01"));
    let mut other = Client::connect(pgweir.port());
    assert_eq!(other.value("SELECT count(*) FROM violated"), "0");
}

/// Messages of any kind with bodies cut short or made up never hang a client nor hurt another.
#[test]
fn malformed_extended_messages_hurt_nobody() {
    let pgweir = conf().size(1).start();
    let mut bystander = Client::connect(pgweir.port());
    for tag in *b"PBDECF" {
        for body in [&b""[..], b"x", b"\0", b"\0\0", b"x\0", b"\0\0\xff\xff", b"S", b"Sx", &[0xff; 30]] {
            let mut client = Client::connect(pgweir.port());
            let frames = client.run(&Script::new().raw(tag, body).sync());
            let ended = frames.iter().any(|frame| frame.tag == b'Z' || frame.tag == b'E');
            assert!(ended, "{:?} {body:?}: {frames:?}", char::from(tag));
            assert_eq!(bystander.value("SELECT 7"), "7", "{:?} {body:?}", char::from(tag));
        }
    }
}
