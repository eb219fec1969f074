//! The PROXY protocol: from trusted addresses always, from others never.
//! It must never be the client that chooses its address.

use std::net::SocketAddr;

use crate::common::client::{Ssl, said, startup};
use crate::common::{Client, Conf, eventually};
use crate::{cluster, conf};
use integration::wire::Script;

const V1: &[u8] = b"PROXY TCP4 203.0.113.9 127.0.0.1 50123 6432\r\n";

fn v2(command: u8, family: u8, body: &[u8]) -> Vec<u8> {
    let mut header = b"\r\n\r\n\0\r\nQUIT\n".to_vec();
    header.extend_from_slice(&[command, family]);
    header.extend_from_slice(&(body.len() as u16).to_be_bytes());
    header.extend_from_slice(body);
    header
}

/// From 127.0.0.1 a header is demanded.
fn trusting() -> Conf {
    conf().listen("proxy_protocol = [\"127.0.0.1\", \"10.0.0.0/8\"]").rest("[log]\nlevel = \"debug\"")
}

#[test]
fn every_form_of_header() {
    let pgweir = trusting().start();
    let four = [&[203, 0, 113, 10, 127, 0, 0, 1, 0xc3, 0xcb, 0x19, 0x20][..], &[0x03, 0, 4, 1, 2, 3, 4]].concat();
    let mut six = [0u8; 36];
    six[..2].copy_from_slice(&[0x20, 0x01]);
    six[15] = 7;
    for header in
        [V1.to_vec(), b"PROXY UNKNOWN\r\n".to_vec(), v2(0x21, 0x11, &four), v2(0x21, 0x21, &six), v2(0x20, 0x00, &[])]
    {
        let mut client = Client::tcp(pgweir.port());
        // Header, startup message and first query in one segment.
        client.write(&[&header[..], &startup(0, &[]), Script::new().query("SELECT 7").bytes()].concat());
        client.welcome().unwrap();
        assert_eq!(crate::common::client::outcome(&client.ready(1)), Ok(vec![vec!["7".to_string()]]));
    }
    let log = pgweir.log();
    for address in ["203.0.113.9:50123", "203.0.113.10:50123", "[2001::7]:0", "127.0.0.1:"] {
        assert!(log.contains(address), "{address} is not in the log:\n{log}");
    }
}

/// Byte by byte, and then TLS: nothing behind the header may be lost to it.
#[test]
fn a_header_in_pieces_and_tls_behind_it() {
    let pgweir = trusting().tls("require", cluster().certificates().unwrap()).start();
    let ca = &cluster().certificates().unwrap().ca;
    for how in [Ssl::Asked, Ssl::Direct] {
        let mut client = Client::tcp(pgweir.port());
        for byte in V1 {
            client.write(&[*byte]);
        }
        if how == Ssl::Asked {
            client.write(&crate::common::client::SSL_REQUEST);
            assert_eq!(client.byte(), Some(b'S'));
        }
        client.handshake(ca, true).unwrap();
        client.startup(0, &[]);
        client.welcome().unwrap();
        assert_eq!(client.value("SELECT 8"), "8");
    }
}

#[test]
fn without_a_header_nobody_comes_in() {
    let pgweir = trusting().start();
    for bytes in [
        startup(0, &[]),
        b"PROXY TCP4 nowhere 127.0.0.1 1 2\r\n".to_vec(),
        v2(0x21, 0x12, &[0; 12]),
        [V1, V1, &startup(0, &[])].concat(),
        [&b"PROXY UNKNOWN "[..], &[b'x'; 500]].concat(),
    ] {
        let mut client = Client::tcp(pgweir.port());
        client.write(&bytes);
        assert_eq!(client.read_to_end(), b"");
    }
    eventually("the log has it", || pgweir.log().contains("no valid PROXY header"));
}

/// From an address that is not listed the header is what it is: no startup message.
#[test]
fn a_stranger_cannot_choose_an_address() {
    let pgweir = conf().listen("address = \"127.0.0.1\"\nproxy_protocol = [\"127.0.0.2\"]").start();
    let mut client = Client::at(SocketAddr::from(([127, 0, 0, 1], pgweir.port())));
    client.write(&[V1, &startup(0, &[])].concat());
    assert_eq!(client.read_to_end(), b"");
    assert_eq!(Client::connect(pgweir.port()).value("SELECT 1"), "1");
}

/// Limits count the client, not the proxy.
#[test]
fn limits_count_the_address_in_the_header() {
    let pgweir = trusting().listen("connection_rate_per_address = 1").start();
    let through = |last: u8| {
        let mut client = Client::tcp(pgweir.port());
        let header = format!("PROXY TCP4 203.0.113.{last} 127.0.0.1 50123 6432\r\n");
        client.write(&[header.as_bytes(), &startup(0, &[])].concat());
        client.read().map(|frame| if frame.tag == b'E' { said(&frame) } else { String::new() })
    };
    for last in 1..50 {
        assert_eq!(through(last).as_deref(), Some(""), "each comes for the first time");
    }
    let mut outcomes: Vec<_> = (0..5).map(|_| through(100)).collect();
    outcomes.retain(Option::is_none);
    assert!(outcomes.len() >= 3, "only {} of five were closed", outcomes.len());
}
