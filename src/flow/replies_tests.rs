//! Scripts of server bytes, what they must mean, and that fragmentation never changes it.
//! Must never look at private state that a caller could not see.
#![allow(clippy::unwrap_used)]

use super::*;
use crate::wire::build;

#[path = "replies_copy_tests.rs"]
mod copy;

fn entry(kind: Kind, origin: Origin, statement: u32) -> Expect {
    Expect { kind, origin, owner: 0, statement, cookie: 0, sent_us: 0, name: 0, note: 0 }
}

/// One entry per letter: as in the protocol, `i` injected Parse, `I` injected Query, `c` injected
/// Close, `f` faked Parse, `F` faked Close.
fn expects(letters: &str) -> Vec<Expect> {
    letters
        .bytes()
        .enumerate()
        .map(|(at, letter)| {
            let (kind, origin) = match letter {
                b'P' => (Kind::Parse, Origin::Client),
                b'B' => (Kind::Bind, Origin::Client),
                b'D' => (Kind::Describe, Origin::Client),
                b'E' => (Kind::Execute, Origin::Client),
                b'C' => (Kind::Close, Origin::Client),
                b'S' => (Kind::Sync, Origin::Client),
                b'Q' => (Kind::Query, Origin::Client),
                b'X' => (Kind::Call, Origin::Client),
                b'i' => (Kind::Parse, Origin::Injected),
                b'c' => (Kind::Close, Origin::Injected),
                b'I' => (Kind::Query, Origin::Injected),
                b'f' => (Kind::Parse, Origin::Faked),
                b'F' => (Kind::Close, Origin::Faked),
                other => panic!("{other}"),
            };
            entry(kind, origin, at as u32)
        })
        .collect()
}

/// Server messages, one per letter; `E` is an ERROR, `!` a FATAL, `?` an error without SQLSTATE,
/// `%` one of 08P01, `^` of 57014, `z` and `y` ReadyForQuery with T and E, `*` a row of 1000 bytes.
fn messages(letters: &str) -> Vec<u8> {
    let mut out = Vec::new();
    for letter in letters.bytes() {
        match letter {
            b'E' => {
                build::message(&mut out, b'E', |out| out.extend_from_slice(b"SERROR\0VERROR\0C22012\0Mdivision\0\0"))
            }
            b'%' => build::message(&mut out, b'E', |out| out.extend_from_slice(b"SERROR\0VERROR\0C08P01\0Mx\0\0")),
            b'^' => build::message(&mut out, b'E', |out| out.extend_from_slice(b"SERROR\0VERROR\0C57014\0Mx\0\0")),
            b'!' => build::message(&mut out, b'E', |out| out.extend_from_slice(b"SFATAL\0VFATAL\0C57P01\0Mbye\0\0")),
            b'?' => build::message(&mut out, b'E', |out| out.extend_from_slice(b"SERROR\0Mx\0\0")),
            b'L' => build::message(&mut out, b'E', |out| {
                out.extend_from_slice(b"SERROR\0VERROR\0C22000\0M");
                out.extend_from_slice(&[b'l'; 3000]);
                out.extend_from_slice(&[0, 0]);
            }),
            b'Z' => build::ready(&mut out, b'I'),
            b'z' => build::ready(&mut out, b'T'),
            b'y' => build::ready(&mut out, b'E'),
            b'C' => build::message(&mut out, b'C', |out| build::cstr(out, b"SELECT 3")),
            b'S' => build::parameter_status(&mut out, b"TimeZone", b"UTC"),
            b'*' => build::message(&mut out, b'D', |out| out.extend_from_slice(&[b'D'; 1000])),
            b'D' => build::message(&mut out, b'D', |out| out.extend_from_slice(b"row")),
            b'T' | b't' | b'd' | b'N' | b'A' | b'V' | b'H' | b'G' => {
                build::message(&mut out, letter, |out| out.extend_from_slice(b"\0\0\0"));
            }
            other => build::message(&mut out, other, |_| {}),
        }
    }
    out
}

/// What came of a script.
#[derive(Debug, PartialEq)]
struct Played {
    /// What the client gets, faked answers included.
    forwarded: Vec<u8>,
    events: Vec<String>,
    fault: Option<&'static str>,
    dropped: Vec<u32>,
    left: Vec<u8>,
    state: (u8, bool, bool, usize),
}

impl Played {
    /// Types of the messages the client gets.
    fn letters(&self) -> String {
        let mut bytes = &self.forwarded[..];
        let mut text = String::new();
        while let Ok(Some(header)) = Header::peek(bytes, usize::MAX) {
            text.push(header.tag as char);
            bytes = bytes.get(header.total..).unwrap_or_default();
        }
        text
    }
    fn clean(&self) -> bool {
        self.state.2
    }
}

/// Feeds `bytes` in pieces of the given lengths, over and over.
fn feed(replies: &mut Replies, bytes: &[u8], pieces: &[usize]) -> Played {
    let mut played = Played {
        forwarded: Vec::new(),
        events: Vec::new(),
        fault: None,
        dropped: Vec::new(),
        left: Vec::new(),
        state: (0, false, false, 0),
    };
    let mut from = 0;
    for &piece in pieces.iter().cycle() {
        let upto = (from + piece.max(1)).min(bytes.len());
        played.left.extend_from_slice(&bytes[from..upto]);
        from = upto;
        drain(replies, &mut played);
        played.dropped.extend(replies.dropped().iter().map(|entry| entry.statement));
        if from == bytes.len() || played.fault.is_some() {
            break;
        }
    }
    played.state = (replies.status(), replies.busy(), replies.is_clean(), replies.owed());
    played
}

fn drain(replies: &mut Replies, played: &mut Played) {
    let mut at = 0;
    loop {
        let rest = &played.left[at..];
        let n = match replies.step(rest) {
            Step::More => break,
            Step::Forward(n) => {
                played.forwarded.extend_from_slice(&rest[..n]);
                n
            }
            Step::Drop(n) => n,
            Step::Fake(kind) => {
                let tag = if kind == Kind::Parse { b'1' } else { b'3' };
                build::message(&mut played.forwarded, tag, |_| {});
                0
            }
            Step::Event { n, swallow, event } => {
                if !swallow {
                    played.forwarded.extend_from_slice(&rest[..n]);
                }
                played.events.push(format!("{event:?}"));
                n
            }
            Step::Fault(what) => {
                // Both connections close: what was left does not matter.
                played.fault = Some(what);
                at = played.left.len();
                break;
            }
        };
        at += n;
    }
    played.left.drain(..at);
}

/// Plays a script whole and in every regular fragmentation, and demands the same of all.
fn play(owed: &str, said: &str) -> Played {
    play_after(owed, &[], said)
}

/// The same, with messages entered after each of the `first` parts.
fn play_after(owed: &str, first: &[(&str, &str)], said: &str) -> Played {
    let all = |pieces: &[usize]| {
        let mut replies = Replies::default();
        expects(owed).into_iter().for_each(|entry| replies.expect(entry));
        let mut total: Option<Played> = None;
        let parts = first.iter().copied().chain([(said, "")]);
        for (said, then) in parts {
            let played = feed(&mut replies, &messages(said), pieces);
            for letter in then.chars() {
                match letter {
                    'd' => replies.copy_sent(false),
                    'e' => replies.copy_sent(true),
                    other => expects(&other.to_string()).into_iter().for_each(|entry| replies.expect(entry)),
                }
            }
            total = Some(match total {
                None => played,
                Some(mut before) => {
                    before.forwarded.extend(played.forwarded);
                    before.events.extend(played.events);
                    before.dropped.extend(played.dropped);
                    Played { forwarded: before.forwarded, events: before.events, dropped: before.dropped, ..played }
                }
            });
        }
        let mut total = total.unwrap();
        total.state = (replies.status(), replies.busy(), replies.is_clean(), replies.owed());
        total
    };
    let whole = all(&[usize::MAX / 2]);
    for piece in 1..40 {
        assert_eq!(all(&[piece]), whole, "{owed} {first:?} {said} in pieces of {piece}");
    }
    for seed in 0..20u64 {
        let pieces: Vec<usize> = (0..50).map(|n| (seed * 7919 + n * n * 31) as usize % 23 + 1).collect();
        assert_eq!(all(&pieces), whole, "{owed} {said} in pieces {pieces:?}");
    }
    assert!(whole.fault.is_some() || whole.left.is_empty(), "bytes left over: {:?}", whole.left);
    whole
}

#[test]
fn follows_what_goes_well() {
    for (owed, said, gets) in [
        ("Q", "TDDCZ", "TDDCZ"),
        ("Q", "TDCTDCIZ", "TDCTDCIZ"),
        ("PBDES", "12TDDCZ", "12TDDCZ"),
        ("PDS", "1tTZ", "1tTZ"),
        ("PDS", "1tnZ", "1tnZ"),
        ("BES", "2DsZ", "2DsZ"),
        ("ES", "IZ", "IZ"),
        ("PSBESQ", "1Z2CZTDCZ", "1Z2CZTDCZ"),
        ("X", "VZ", "VZ"),
        ("CS", "3Z", "3Z"),
        // Asynchronous messages at every place.
        ("PBES", "N1A2SDNCAZ", "N1A2SDNCAZ"),
        // COPY out, in both protocols.
        ("Q", "HddcCZ", "HddcCZ"),
        ("BES", "2HddcCZ", "2HddcCZ"),
    ] {
        let played = play(owed, said);
        assert_eq!(played.letters(), gets, "{owed} {said}");
        assert!(played.clean() && played.fault.is_none(), "{owed} {said}: {played:?}");
    }
}

#[test]
fn tells_the_transaction_status() {
    assert_eq!(play("Q", "Cz").state, (b'T', false, false, 0));
    assert_eq!(play("Q", "Ey").state, (b'E', false, false, 0));
    assert_eq!(play("QQ", "CzCZ").state, (b'I', false, true, 0));
    assert!(play("Q", "CZ").events[0].contains("rows: 3"));
}

#[test]
fn makes_up_what_was_not_sent() {
    for (owed, said, gets) in [
        ("fBES", "2DCZ", "12DCZ"),
        ("PfBES", "12DCZ", "112DCZ"),
        ("BFS", "2Z", "23Z"),
        ("BEF", "2DC", "2DC3"),
        ("fFS", "Z", "13Z"),
        ("QfS", "CZZ", "CZ1Z"),
    ] {
        let played = play(owed, said);
        assert_eq!(played.letters(), gets, "{owed} {said}");
        assert_eq!((played.fault, played.state.3), (None, 0));
    }
}

#[test]
fn an_error_voids_what_was_made_up_behind_it() {
    let played = play("BfEFSfBES", "EZ2CZ");
    assert_eq!(played.letters(), "EZ12CZ");
    assert_eq!(played.dropped, [0, 1, 2, 3]);
    assert!(played.clean());
}

#[test]
fn keeps_injected_answers_inside() {
    assert_eq!(play("iBES", "12DCZ").letters(), "2DCZ");
    assert_eq!(play("ciBES", "312DCZ").letters(), "2DCZ");
    assert_eq!(play("IQ", "TDSNCZTDCZ").letters(), "TDCZ");
    // A notification is the client's whenever it comes.
    assert_eq!(play("IQ", "TADCZTDCZ").letters(), "ATDCZ");
    // The failure of an injected Parse is the client's to hear, of an injected Query it is not.
    let parse = play("iBES", "EZ");
    assert_eq!((parse.letters().as_str(), &parse.dropped[..]), ("EZ", &[0, 1, 2][..]));
    let query = play("IQ", "EZTDCZ");
    assert_eq!(query.letters(), "TDCZ");
    assert!(query.events[0].starts_with("Failed"));
    // Longer than what is looked at of an error.
    assert_eq!(play("IQ", "LZCZ").letters(), "CZ");
    assert_eq!(play("Q", "LZ").letters(), "EZ");
}

#[test]
fn an_error_in_a_pipeline_ends_at_the_next_sync() {
    let played = play("PBESPBESPBES", "12EZEZ12CZ");
    assert_eq!(played.letters(), "12EZEZ12CZ");
    assert_eq!(played.dropped, [2, 4, 5, 6]);
    assert!(played.clean());
    // A deferred constraint fails at Sync itself.
    assert!(play("BES", "2CEZ").clean());
}

#[test]
fn messages_behind_an_error_are_void_until_sync_is_sent() {
    let before = play_after("PB", &[("1E", "")], "");
    assert!(!before.clean(), "a server that skips to Sync was called clean");
    let played = play_after("PB", &[("1E", "PBEfFiS")], "Z");
    assert_eq!(played.letters(), "1EZ");
    assert!(played.clean());
    assert_eq!(play_after("PB", &[("1E", "EQS")], "Z").state.3, 0, "a Query is skipped over as well");
}

#[test]
fn a_fatal_error_may_come_unasked() {
    let played = play("", "N!");
    assert_eq!(played.letters(), "NE");
    assert!(played.events[0].contains("fatal: true"));
    assert!(play("Q", "TD!").events[0].contains("[53, 55, 80, 48, 49]"));
    assert!(play("Q", "?Z").events[0].contains("88, 88, 48, 48, 48"), "XX000 stands in for a missing SQLSTATE");
}

#[test]
fn calls_a_fault_what_it_cannot_match() {
    for (owed, said) in [
        ("", "Z"),
        ("", "C"),
        ("", "D"),
        ("Q", "CZZ"),
        ("Q", "1"),
        ("PS", "2"),
        ("BES", "1"),
        ("PS", "C"),
        ("BES", "2Z"),
        ("S", "C"),
        ("Q", "R"),
        ("Q", "K"),
        ("f", "1"),
        ("I", "CZZ"),
    ] {
        assert!(play(owed, said).fault.is_some(), "{owed} {said} was accepted");
    }
}

#[test]
fn bounds_lengths() {
    for bytes in [
        &b"D\0\0\0\x03"[..],
        b"Z\0\0\0\x04",
        b"Z\0\0\0\x06Ix",
        b"Z\0\0\0\x05Q",
        b"1\0\0\0\x05x",
        b"C\x7f\xff\xff\xff",
        b"S\0\x10\0\0",
    ] {
        let mut replies = Replies::default();
        expects("PBES").into_iter().for_each(|entry| replies.expect(entry));
        assert!(feed(&mut replies, bytes, &[100]).fault.is_some(), "{bytes:?} was accepted");
    }
}

#[test]
fn a_big_row_passes_as_it_comes() {
    let mut replies = Replies::default();
    expects("Q").into_iter().for_each(|entry| replies.expect(entry));
    let bytes = messages("*");
    assert_eq!(replies.step(&bytes[..6]), Step::Forward(6));
    assert_eq!(replies.step(&bytes[6..700]), Step::Forward(694));
    assert_eq!(replies.step(&[]), Step::More);
    assert!(replies.busy());
    assert_eq!(replies.step(&bytes[700..]), Step::Forward(bytes.len() - 700));
    assert_eq!(play("Q", "TD***DCZ").letters(), "TDDDDDCZ");
}

/// Any script of owed replies that go well or fail, in any fragmentation: `play` compares.
#[test]
fn fragmentation_never_matters() {
    let groups = [
        ("Q", "TD*DCZ"),
        ("Q", "EZ"),
        ("Q", "TDEZ"),
        ("PBDES", "12TDSCZ"),
        ("PBES", "EZ"),
        ("iBES", "EZ"),
        ("fBES", "N2DCZ"),
        ("BfEFS", "EAZ"),
        ("IQ", "TDSCZTDCZ"),
        ("IQ", "LZCZ"),
        ("X", "VZ"),
        ("BES", "2HddcCZ"),
    ];

    for seed in 0..60usize {
        let chosen: Vec<_> = (0..4).map(|n| groups[(seed * 17 + n * n * 5 + seed / 7 * n) % groups.len()]).collect();
        let owed: String = chosen.iter().map(|(owed, _)| *owed).collect();
        let said: String = chosen.iter().map(|(_, said)| *said).collect();
        let played = play(&owed, &said);
        assert!(played.clean() && played.fault.is_none(), "{owed} {said}: {played:?}");
    }
}
