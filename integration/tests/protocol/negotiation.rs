//! What happens before a session: versions, TLS, GSS, in every order.
//! It must never accept what PostgreSQL would refuse for safety.

use crate::common::Client;
use crate::common::client::Ssl;
use crate::common::client::{GSS_REQUEST, SSL_REQUEST, said, startup};
use crate::{assert_serves, ca, conf, with_tls};

#[test]
fn protocol_3_0_has_a_key_of_four_bytes() {
    let pgweir = conf().start();
    let client = Client::connect(pgweir.port());
    assert_eq!(client.key.len(), 4 + 4);
}

#[test]
fn protocol_3_2_has_a_key_of_32_bytes_and_no_negotiation() {
    let pgweir = conf().start();
    let mut client = Client::tcp(pgweir.port());
    client.startup(2, &[]);
    let frames = client.welcome().unwrap();
    assert!(frames.iter().all(|frame| frame.tag != b'v'), "{frames:?}");
    assert_eq!(client.key.len(), 4 + 32);
    assert_eq!(client.value("SELECT 1"), "1");
}

/// Body of a NegotiateProtocolVersion: newest version, then the options not known.
fn negotiated(body: &[u8]) -> (u32, Vec<String>) {
    let number = |at: usize| u32::from_be_bytes(body[at..at + 4].try_into().unwrap());
    let names = body[8..].split(|byte| *byte == 0).map(|name| String::from_utf8_lossy(name).into_owned());
    let names: Vec<String> = names.filter(|name| !name.is_empty()).collect();
    assert_eq!(number(4) as usize, names.len());
    (number(0), names)
}

/// What libpq's "grease" sends, which every future server has to expect.
#[test]
fn defect_10_an_unknown_minor_and_option_are_answered_once_before_authentication() {
    let pgweir = conf().start();
    let mut client = Client::tcp(pgweir.port());
    client.startup(9999, &[("_pq_.test", "x")]);
    let frames = client.welcome().unwrap();
    assert_eq!(frames[0].tag, b'v');
    assert_eq!(frames.iter().filter(|frame| frame.tag == b'v').count(), 1);
    let (version, names) = negotiated(&frames[0].body);
    // The whole number, whatever the documentation of old versions says (SendNegotiateProtocolVersion in backend_startup.c).
    assert_eq!(version, 196_610);
    assert_eq!(names, ["_pq_.test"]);
    assert_eq!(client.key.len(), 4 + 32);
    assert_eq!(client.value("SELECT 1"), "1");
}

#[test]
fn an_unknown_option_alone_is_answered_too() {
    let pgweir = conf().start();
    let mut client = Client::tcp(pgweir.port());
    client.startup(0, &[("_pq_.one", ""), ("_pq_.two", "2")]);
    let frames = client.welcome().unwrap();
    let answers: Vec<_> = frames.iter().filter(|frame| frame.tag == b'v').collect();
    assert_eq!(answers.len(), 1);
    assert_eq!(negotiated(&answers[0].body).1, ["_pq_.one", "_pq_.two"]);
    assert_eq!(client.key.len(), 4 + 4);
}

#[test]
fn another_major_version_is_refused_with_words() {
    let pgweir = conf().start();
    for version in [0x0002_0000u32, 0x0004_0000] {
        let mut client = Client::tcp(pgweir.port());
        client.write(&[&9u32.to_be_bytes()[..], &version.to_be_bytes(), b"\0"].concat());
        let frames = client.frames_to_end();
        assert_eq!(frames.len(), 1, "{frames:?}");
        assert!(said(&frames[0]).starts_with("0A000 unsupported frontend protocol"), "{}", said(&frames[0]));
    }
    assert_serves(&pgweir);
}

#[test]
fn defect_11_gss_then_tls() {
    let pgweir = with_tls();
    let mut client = Client::tcp(pgweir.port());
    client.write(&GSS_REQUEST);
    assert_eq!(client.byte(), Some(b'N'));
    client.write(&SSL_REQUEST);
    assert_eq!(client.byte(), Some(b'S'));
    client.handshake(&ca(), false).unwrap();
    client.startup(0, &[]);
    client.welcome().unwrap();
    assert_eq!(client.value("SELECT 1"), "1");
}

#[test]
fn defect_11_tls_refused_then_gss_then_plain() {
    let pgweir = conf().start();
    let mut client = Client::tcp(pgweir.port());
    for request in [SSL_REQUEST, GSS_REQUEST] {
        client.write(&request);
        assert_eq!(client.byte(), Some(b'N'));
    }
    client.startup(0, &[]);
    client.welcome().unwrap();
    assert_eq!(client.value("SELECT 1"), "1");
}

#[test]
fn the_same_request_twice_is_refused() {
    for pgweir in [conf().start(), with_tls()] {
        let mut client = Client::tcp(pgweir.port());
        client.write(&GSS_REQUEST);
        assert_eq!(client.byte(), Some(b'N'));
        client.write(&GSS_REQUEST);
        assert!(said(&client.frames_to_end()[0]).starts_with("08P01"));
    }
    let pgweir = conf().start();
    let mut client = Client::tcp(pgweir.port());
    client.write(&SSL_REQUEST);
    assert_eq!(client.byte(), Some(b'N'));
    client.write(&SSL_REQUEST);
    assert!(said(&client.frames_to_end()[0]).starts_with("08P01"));
    // Inside of TLS as well.
    let pgweir = with_tls();
    let mut client = Client::tls(pgweir.port(), &ca(), Ssl::Asked).unwrap();
    client.write(&SSL_REQUEST);
    assert!(said(&client.frames_to_end()[0]).starts_with("08P01"));
}

/// CVE-2021-3935, CVE-2021-23214: somebody in the middle puts plaintext in front of what the client will say.
#[test]
fn defect_01_bytes_before_tls() {
    let pgweir = with_tls();
    for request in [SSL_REQUEST, GSS_REQUEST] {
        let mut client = Client::tcp(pgweir.port());
        client.write(&[&request[..], &startup(0, &[])].concat());
        let answer = client.read_to_end();
        assert!(!answer.starts_with(b"S") && !answer.starts_with(b"N"), "{answer:?}");
        assert_eq!(answer.first(), Some(&b'E'));
        assert!(answer.windows(5).any(|code| code == b"08P01"));
    }
    // A single byte is as bad as a whole message.
    let mut client = Client::tcp(pgweir.port());
    client.write(&[&SSL_REQUEST[..], b"x"].concat());
    assert_eq!(client.read_to_end().first(), Some(&b'E'));
    assert_serves(&pgweir);
}

#[test]
fn defect_11_direct_tls_needs_alpn() {
    let pgweir = with_tls();
    let mut client = Client::tls(pgweir.port(), &ca(), Ssl::Direct).unwrap();
    client.startup(0, &[]);
    client.welcome().unwrap();
    assert_eq!(client.value("SELECT 1"), "1");
    let answer = match Client::tls(pgweir.port(), &ca(), Ssl::DirectWithoutAlpn) {
        Err(_) => Vec::new(),
        Ok(mut client) => {
            client.startup(0, &[]);
            client.read_to_end()
        }
    };
    assert!(answer.is_empty(), "{answer:?}");
}

#[test]
fn direct_tls_without_tls_configured_ends_the_connection() {
    let pgweir = conf().start();
    assert!(Client::tls(pgweir.port(), &ca(), Ssl::Direct).is_err());
    assert_serves(&pgweir);
}

#[test]
fn required_tls_refuses_plain_sessions() {
    let pgweir = conf().tls("require", crate::cluster().certificates().unwrap()).start();
    let mut client = Client::tcp(pgweir.port());
    client.startup(0, &[]);
    let refused = client.welcome().unwrap_err();
    assert!(said(&refused).starts_with("28000"), "{}", said(&refused));
    assert_eq!(refused.field(b'S').as_deref(), Some("FATAL"));
    assert!(client.read().is_none());
    let mut client = Client::tls(pgweir.port(), &ca(), Ssl::Asked).unwrap();
    client.startup(0, &[]);
    client.welcome().unwrap();
    assert_eq!(client.value("SELECT 1"), "1");
}
