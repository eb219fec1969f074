//! Tests of the packets before a session.
//! They must never need more than the bytes they write down.

use super::*;
use crate::wire::build;

fn packet(parameters: &[(&[u8], &[u8])]) -> Vec<u8> {
    let mut out = Vec::new();
    build::startup(&mut out, parameters);
    out
}

fn parsed(parameters: &[(&[u8], &[u8])]) -> Startup {
    match Packet::parse(&packet(parameters)) {
        Ok(Packet::Startup(startup)) => startup,
        other => panic!("{other:?}"),
    }
}

#[test]
fn reads_parameters_and_unknown_options() {
    let startup = parsed(&[(b"user", b"u"), (b"_pq_.test", b"1"), (b"database", b"d")]);
    assert_eq!(startup.get(b"user"), Some(&b"u"[..]));
    assert_eq!(startup.unknown_options, vec![b"_pq_.test".to_vec()]);
    assert_eq!(startup.parameters.len(), 2);
}

#[test]
fn reads_options_as_postgres_does() {
    let startup = parsed(&[
        (b"user", b"u"),
        (b"options", b"-c geqo=off  --search-path=a\\ b -cDateStyle=iso"),
        (b"DateStyle", b"german"),
    ]);
    let settings = startup.settings().unwrap();
    let expected: Vec<(Vec<u8>, Vec<u8>)> = vec![
        (b"datestyle".to_vec(), b"german".to_vec()),
        (b"geqo".to_vec(), b"off".to_vec()),
        (b"search_path".to_vec(), b"a b".to_vec()),
    ];
    assert_eq!(settings, expected);
}

#[test]
fn refuses_options_that_are_no_settings() {
    for bad in [&b"-c"[..], b"-c =1", b"-c=", b"--", b"-x", b"word", b"-c geqo"] {
        assert!(parsed(&[(b"options", bad)]).settings().is_err(), "{}", String::from_utf8_lossy(bad));
    }
}

#[test]
fn refuses_lengths_and_layouts() {
    assert_eq!(length(&[0, 0]), Ok(None));
    assert_eq!(length(&7u32.to_be_bytes()), Err(BadStartup::Length));
    assert_eq!(length(&10_001u32.to_be_bytes()), Err(BadStartup::Length));
    assert_eq!(length(&u32::MAX.to_be_bytes()), Err(BadStartup::Length));
    let mut good = packet(&[(b"user", b"u")]);
    assert_eq!(length(&good), Ok(Some(good.len())));
    good.pop();
    assert_eq!(Packet::parse(&good), Err(BadStartup::Layout));
    assert_eq!(Packet::parse(&[0; 6]), Err(BadStartup::Length));
    let mut version2 = packet(&[]);
    version2[5] = 2;
    assert_eq!(Packet::parse(&version2), Err(BadStartup::Version(2, 0)));
}

#[test]
fn reads_cancel_keys_of_both_protocols() {
    for key in [&[1u8, 2, 3, 4][..], &[7; 32]] {
        let mut out = Vec::new();
        build::cancel(&mut out, 42, key);
        assert_eq!(Packet::parse(&out), Ok(Packet::Cancel { pid: 42, key: key.to_vec() }));
    }
    let mut out = Vec::new();
    build::cancel(&mut out, 42, b"");
    assert_eq!(Packet::parse(&out), Err(BadStartup::Length));
}
