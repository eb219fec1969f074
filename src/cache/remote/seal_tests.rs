//! Tests of sealed answers.
//! Must never take a byte for another one's answer.
#![allow(clippy::unwrap_used)]

use super::*;
use crate::wire::build;

fn keys(secret: &str) -> Keys {
    Keys::new(&Secret::new(secret.to_owned()))
}

/// One row of so many bytes.
fn answer(bytes: usize) -> Bytes {
    let mut out = Vec::new();
    build::message(&mut out, b'T', |out| out.extend_from_slice(b"columns"));
    build::message(&mut out, b'D', |out| out.resize(out.len() + bytes, b'x'));
    build::message(&mut out, b'C', |out| out.extend_from_slice(b"SELECT 1\0"));
    build::ready(&mut out, b'I');
    out.into()
}

fn sealed(bytes: usize, source: Source) -> Sealed {
    let hold = Hold::Position { history: 7, lsn: 9 };
    Sealed { answer: answer(bytes), began_us: 1_790_000_000_000_000, source, ttl_us: 3_600_000_000, hold }
}

#[test]
fn what_was_sealed_is_opened() {
    let keys = keys("secret");
    for source in [Source::Primary, Source::Replica(0x16_B374_D848)] {
        for (bytes, compress_above) in [(0, 0), (10, 100), (5000, 100), (5000, 10_000)] {
            let sealed = sealed(bytes, source);
            let value = keys.seal(b"key", &sealed, compress_above);
            assert_eq!(keys.open(b"key", &value, usize::MAX), Ok(sealed.clone()));
            assert_eq!(value.len() < bytes, bytes > compress_above.max(1000), "{bytes}, {compress_above}");
            assert_eq!(keys.open(b"key", &value, sealed.answer.len() - 1), Err(Bad::Long));
        }
    }
}

#[test]
fn no_bit_can_be_another_one() {
    let keys = keys("secret");
    let value = keys.seal(b"key", &sealed(3000, Source::Replica(7)), 100);
    for bit in 0..value.len() * 8 {
        let mut other = value.clone();
        other[bit / 8] ^= 1 << (bit % 8);
        assert!(matches!(keys.open(b"key", &other, usize::MAX), Err(Bad::Forged | Bad::Malformed)), "bit {bit}");
    }
    for len in 0..value.len() {
        assert!(keys.open(b"key", &value[..len], usize::MAX).is_err(), "{len} bytes");
    }
    assert_eq!(keys.open(b"key", &[&value[..], b"x"].concat(), usize::MAX), Err(Bad::Forged));
}

#[test]
fn it_counts_under_its_own_key_and_secret_only() {
    let value = keys("secret").seal(b"key", &sealed(10, Source::Primary), 100);
    assert_eq!(keys("secret").open(b"kez", &value, usize::MAX), Err(Bad::Forged));
    assert_eq!(keys("secreT").open(b"key", &value, usize::MAX), Err(Bad::Forged));
    // Nor does a byte move from the key into the value.
    let head = [&value[..1], &value[..]].concat();
    assert!(keys("secret").open(b"ke", &head, usize::MAX).is_err());
    let names =
        [keys("secret").name("p:", b"key"), keys("secret").name("p:", b"kez"), keys("secreT").name("p:", b"key")];
    assert!(names[0] != names[1] && names[0] != names[2] && names.iter().all(|name| name.starts_with("p:")));
    assert_eq!((names[0].len(), &names[0]), (45, &keys("secret").name("p:", b"key")));
}

#[test]
fn what_is_sealed_is_still_looked_at() {
    let keys = keys("secret");
    let whole = answer(10);
    for wrong in [&whole[..whole.len() - 1], &[&whole[..], b"x"].concat()[..], b"", b"E\0\0\0\x04Z\0\0\0\x05I"] {
        for compress_above in [0, 1000] {
            let sealed = Sealed { answer: Bytes::copy_from_slice(wrong), ..sealed(0, Source::Primary) };
            let value = keys.seal(b"key", &sealed, compress_above);
            assert_eq!(keys.open(b"key", &value, usize::MAX), Err(Bad::Malformed));
        }
    }
}

#[test]
fn what_is_hidden_is_read_with_the_secret_and_as_it_was_written() {
    let keys = keys("secret");
    for text in [&b""[..], b"x", b"{\"pattern\":\"* FROM menu\"}", &[b'x'; 1000]] {
        let hidden = keys.hide(text);
        assert_eq!(keys.reveal(&hidden).as_deref(), Some(text));
        assert_eq!(hidden, keys.hide(text), "the same is the same");
        assert_eq!(self::keys("another").reveal(&hidden), None);
        assert!(text.len() < 4 || !hidden.contains("pattern"));
        for at in [0, hidden.len() / 2, hidden.len() - 1] {
            let mut changed = hidden.clone().into_bytes();
            changed[at] = if changed[at] == b'A' { b'Q' } else { b'A' };
            assert_eq!(keys.reveal(std::str::from_utf8(&changed).unwrap()), None, "{at}");
        }
    }
    for bad in ["", "A", "!", "AAAA"] {
        assert_eq!(keys.reveal(bad), None);
    }
}

#[test]
fn a_lease_counts_under_its_key_only() {
    let keys = keys("secret");
    let lease = Lease { whose: 77, usual_us: 1_500 };
    let value = keys.lease(b"key", lease);
    assert_eq!(keys.read_lease(b"key", &value), Some(lease));
    assert!(value.starts_with(&Lease::front(77)) && !value.starts_with(&Lease::front(78)));
    assert_eq!((keys.read_lease(b"other", &value), self::keys("x").read_lease(b"key", &value)), (None, None));
    for at in 0..value.len() {
        let mut changed = value.clone();
        changed[at] ^= 1;
        assert_eq!(keys.read_lease(b"key", &changed), None, "{at}");
        assert_eq!(keys.read_lease(b"key", &value[..at]), None, "{at}");
    }
    // Neither is the other.
    assert_eq!(keys.open(b"key", &value, usize::MAX), Err(Bad::Malformed));
    assert_eq!(keys.read_lease(b"key", &keys.seal(b"key", &sealed(10, Source::Primary), 0)), None);
}
