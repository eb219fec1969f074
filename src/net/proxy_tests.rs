//! PROXY headers, right and wrong, whole and in pieces.
//! Must never accept what the parser would not accept on a socket.
#![allow(clippy::unwrap_used)]

use proptest::prelude::*;

use super::*;

fn v2(command: u8, family: u8, body: &[u8]) -> Vec<u8> {
    let mut header = V2_START.to_vec();
    header.extend_from_slice(&[command, family]);
    header.extend_from_slice(&(body.len() as u16).to_be_bytes());
    header.extend_from_slice(body);
    header
}

fn source(header: &[u8]) -> Option<SocketAddr> {
    match parse(header).unwrap() {
        Parsed::Complete { length, source } => {
            assert_eq!(length, header.len());
            source
        }
        Parsed::Incomplete => panic!("incomplete"),
    }
}

fn at(text: &str) -> Option<SocketAddr> {
    Some(text.parse().unwrap())
}

const V4: [u8; 12] = [192, 0, 2, 1, 10, 0, 0, 1, 0x1f, 0x90, 0x19, 0x20];

#[test]
fn version_1() {
    assert_eq!(source(b"PROXY TCP4 192.0.2.1 10.0.0.1 8080 6432\r\n"), at("192.0.2.1:8080"));
    assert_eq!(source(b"PROXY TCP6 2001:db8::1 ::1 65535 1\r\n"), at("[2001:db8::1]:65535"));
    assert_eq!(source(b"PROXY UNKNOWN\r\n"), None);
    assert_eq!(source(b"PROXY UNKNOWN ffff:f...f whatever 1 2\r\n"), None);
    let longest = b"PROXY UNKNOWN ffff:ffff:ffff:ffff:ffff:ffff:ffff:ffff ffff:ffff:ffff:ffff:ffff:ffff:ffff:ffff 65535 65535\r\n";
    assert_eq!(longest.len(), V1_MAX);
    assert_eq!(source(longest), None);
}

#[test]
fn version_1_refused() {
    for text in [
        "PROXY TCP4 192.0.2.1 10.0.0.1 8080\r\n",
        "PROXY TCP4 192.0.2.1 10.0.0.1 8080 6432 1\r\n",
        "PROXY TCP4  192.0.2.1 10.0.0.1 8080 6432\r\n",
        "PROXY TCP4 192.0.2.1 10.0.0.1 8080 6432 \r\n",
        "PROXY TCP4 2001:db8::1 ::1 1 2\r\n",
        "PROXY TCP6 192.0.2.1 10.0.0.1 1 2\r\n",
        "PROXY TCP4 192.0.2.1 nowhere 1 2\r\n",
        "PROXY TCP4 192.0.2.1 10.0.0.1 65536 1\r\n",
        "PROXY TCP4 192.0.2.1 10.0.0.1 +80 1\r\n",
        "PROXY TCP4 192.0.2.1 10.0.0.1 080 1\r\n",
        "PROXY TCP4 192.0.2.1 10.0.0.1 80 -1\r\n",
        "PROXY UDP4 192.0.2.1 10.0.0.1 80 1\r\n",
        "PROXY \r\n",
        "PROXYTCP4 192.0.2.1 10.0.0.1 80 1\r\n",
        "proxy TCP4 192.0.2.1 10.0.0.1 80 1\r\n",
        "PROXY TCP4 192.0.2.1\0 10.0.0.1 80 1\r\n",
    ] {
        assert!(parse(text.as_bytes()).is_err(), "{text}");
    }
    let endless = [&b"PROXY UNKNOWN "[..], &[b'x'; 200]].concat();
    assert_eq!(parse(&endless[..V1_MAX - 1]), Ok(Parsed::Incomplete));
    assert!(parse(&endless[..V1_MAX]).is_err());
}

#[test]
fn version_2() {
    assert_eq!(source(&v2(0x21, 0x11, &V4)), at("192.0.2.1:8080"));
    let mut six = [0; 36];
    six[..16].copy_from_slice(&Ipv6Addr::new(0x2001, 0xdb8, 0, 0, 0, 0, 0, 9).octets());
    six[32..34].copy_from_slice(&443u16.to_be_bytes());
    assert_eq!(source(&v2(0x21, 0x21, &six)), at("[2001:db8::9]:443"));
    // What comes behind the addresses is skipped.
    assert_eq!(source(&v2(0x21, 0x11, &[&V4[..], &[0x04, 0, 3, 1, 2, 3]].concat())), at("192.0.2.1:8080"));
    assert_eq!(source(&v2(0x21, 0x11, &[&V4[..], &[9; V2_MAX - V2_HEAD - 12]].concat())), at("192.0.2.1:8080"));
    // The proxy speaks for itself, whatever it says of addresses; or does not know.
    assert_eq!(source(&v2(0x20, 0x00, &[])), None);
    assert_eq!(source(&v2(0x20, 0x11, &V4)), None);
    assert_eq!(source(&v2(0x20, 0x11, &[1])), None);
    assert_eq!(source(&v2(0x21, 0x00, &[1, 2, 3])), None);
    assert_eq!(source(&v2(0x21, 0x31, &[0; 216])), None);
}

#[test]
fn version_2_refused() {
    assert!(parse(&v2(0x11, 0x11, &V4)).is_err(), "version 1 in the form of 2");
    assert!(parse(&v2(0x22, 0x11, &V4)).is_err(), "an unknown command");
    assert!(parse(&v2(0x21, 0x12, &V4)).is_err(), "UDP");
    assert!(parse(&v2(0x21, 0x41, &V4)).is_err(), "an unknown family");
    assert!(parse(&v2(0x21, 0x11, &V4[..11])).is_err());
    assert!(parse(&v2(0x21, 0x21, &V4)).is_err());
    // Before all of it is there.
    let long = v2(0x21, 0x11, &[0; V2_MAX - V2_HEAD + 1]);
    assert!(parse(&long[..V2_HEAD]).is_err());
    assert!(parse(&v2(0x21, 0x12, &V4)[..14]).is_err());
}

#[test]
fn other_protocols_are_known_at_once() {
    for bytes in
        [&[0, 0, 0, 8, 4, 210, 22, 47][..], &[0x16, 3, 1], b"GET / HTTP/1.1\r\n", b"\r\n\r\n\0\r\nQUIX\n", b"P\0"]
    {
        assert!(parse(bytes).is_err(), "{bytes:?}");
    }
    assert_eq!(parse(b""), Ok(Parsed::Incomplete));
}

proptest! {
    /// Whatever comes in: no panic, a bounded length, and each prefix of a header is incomplete.
    #[test]
    fn any_bytes(start in 0..4usize, tail in proptest::collection::vec(any::<u8>(), 0..300)) {
        let starts: [&[u8]; 4] = [b"", b"PROXY ", V2_START, b"PROXY TCP4 1.2.3.4 "];
        let bytes = [starts[start], &tail].concat();
        if let Ok(Parsed::Complete { length, .. }) = parse(&bytes) {
            prop_assert!(length <= V2_MAX && length <= bytes.len());
            for cut in 0..length {
                prop_assert_eq!(parse(&bytes[..cut]), Ok(Parsed::Incomplete));
            }
            prop_assert_eq!(parse(&bytes[..length]), parse(&bytes));
        }
    }

    /// Addresses come back in both versions, whatever follows.
    #[test]
    fn addresses_come_back(ip in any::<IpAddr>(), port in any::<u16>(), behind in proptest::collection::vec(any::<u8>(), 0..50)) {
        let (text, family, body) = match ip {
            IpAddr::V4(ip) => (format!("PROXY TCP4 {ip} 1.2.3.4 {port} 1\r\n"), 0x11, [&ip.octets()[..], &[1; 4]].concat()),
            IpAddr::V6(ip) => (format!("PROXY TCP6 {ip} ::1 {port} 1\r\n"), 0x21, [&ip.octets()[..], &[1; 16]].concat()),
        };
        let binary = v2(0x21, family, &[&body[..], &port.to_be_bytes(), &[0, 1]].concat());
        for header in [text.into_bytes(), binary] {
            let expected = Parsed::Complete { length: header.len(), source: Some(SocketAddr::new(ip, port)) };
            prop_assert_eq!(parse(&[&header[..], &behind].concat()), Ok(expected));
        }
    }
}
