//! What patterns are for.
//! Must never take for right what the code under test says: each case says it itself.
#![allow(clippy::unwrap_used)]

use super::*;

fn of(text: &str) -> Pattern {
    Pattern::new(text).unwrap()
}

fn is_for(pattern: &str, text: &str) -> bool {
    of(pattern).is_for(&Said { text: text.as_bytes(), ..Said::default() })
}

type Values<'a> = &'a [(u16, Option<&'a [u8]>)];

/// What stands behind the names of a Bind: each value with its format.
fn bind(values: Values<'_>) -> Vec<u8> {
    let mut out = (values.len() as u16).to_be_bytes().to_vec();
    values.iter().for_each(|(format, _)| out.extend_from_slice(&format.to_be_bytes()));
    out.extend_from_slice(&(values.len() as u16).to_be_bytes());
    for (_, value) in values {
        out.extend_from_slice(&value.map_or(-1, |value| value.len() as i32).to_be_bytes());
        out.extend_from_slice(value.unwrap_or_default());
    }
    out.extend_from_slice(&[0, 0]);
    out
}

#[test]
fn a_pattern_is_for_the_whole_of_a_text() {
    for (pattern, text, expected) in [
        ("select 1", "SELECT 1", true),
        ("select 1", "SELECT 11", false),
        ("select 1", " SELECT\n\t 1 ", true),
        ("select  1 ", "SELECT 1", true),
        ("select1", "SELECT 1", false),
        ("*", "", true),
        ("*item*", "SELECT v FROM item WHERE id = 1", true),
        ("*item", "SELECT v FROM item WHERE id = 1", false),
        ("select * where id = 1", "SELECT v FROM item WHERE id = 1", true),
        ("select * where id = 1", "SELECT v FROM item WHERE id = 1 AND id = 1", false),
        ("select * where * = 1", "SELECT v FROM item WHERE id = 1 AND id = 1", true),
        ("**a**b**", "xxaxxbxx", true),
        ("*ab*ab", "abab", true),
        ("*ab*ab", "abxab", true),
        ("*ab*ab", "aba", false),
        ("*aab", "aaab", true),
        (r"select 2 \* 3", "SELECT 2 * 3", true),
        (r"select 2 \* 3", "SELECT 2 + 3", false),
        (r"*'\\*'", r"SELECT '\n'", true),
        ("*\u{e9}*", "SELECT '\u{e9}'", true),
        ("*\u{c9}*", "SELECT '\u{e9}'", false),
    ] {
        assert_eq!(is_for(pattern, text), expected, "{pattern} for {text}");
    }
}

/// Whatever its tags, its values and the way they were sent.
#[test]
fn values_and_tags_are_part_of_it() {
    let text = b"SELECT v FROM item WHERE a = $1 AND b = $2";
    let uuid = [0x12, 0x3e, 0x45, 0x67, 0xe8, 0x9b, 0x12, 0xd3, 0xa4, 0x56, 0x42, 0x66, 0x14, 0x17, 0x40, 0];
    let is_for = |pattern: &str, values: Values<'_>| {
        let bind = bind(values);
        of(pattern).is_for(&Said { text, bind: Some(&bind), tags: vec![b"menu:7", b"list"] })
    };
    let cases: &[(&str, Values<'_>, bool)] = &[
        ("*(7, abc)", &[(0, Some(&b"7"[..])), (0, Some(&b"abc"[..]))], true),
        ("*(7, abc)", &[(1, Some(&[0, 0, 0, 7])), (1, Some(b"ABC"))], true),
        ("*(7, *)", &[(1, Some(&[0, 0, 0, 0, 0, 0, 0, 7])), (1, Some(b"x"))], true),
        ("*(-7, *)", &[(1, Some(&[0xff, 0xf9])), (1, None)], true),
        ("*(7, *)", &[(1, Some(&[0, 0, 0, 8])), (0, Some(b"7"))], false),
        ("*(t, null)", &[(1, Some(&[1])), (1, None)], true),
        ("*(abcd, *", &[(1, Some(b"abcd")), (1, None)], true),
        ("*(1633837924, *", &[(1, Some(b"abcd")), (1, None)], true),
        ("*(123e4567-E89B-12d3-a456-426614174000, *", &[(1, Some(&uuid)), (0, None)], true),
        ("*= $2 (1, 2)", &[(0, Some(b"1")), (0, Some(b"2"))], true),
        ("*(a )", &[(0, Some(b"a "))], true),
        ("*(a )", &[(1, Some(b"a "))], true),
        ("*(a)", &[(1, Some(b"a "))], true),
        ("*= $2", &[(0, Some(b"1")), (0, Some(b"2"))], false),
        ("*= $2", &[], true),
        ("menu:*", &[], true),
        ("menu", &[], false),
        ("LIST", &[], true),
        ("*7", &[], true),
        ("*8", &[], false),
    ];
    for (pattern, values, expected) in cases {
        assert_eq!(is_for(pattern, values), *expected, "{pattern} for {values:?}");
    }
    // What cannot be read may be meant.
    assert!(of("nothing").is_for(&Said { text, bind: Some(b"\0"), tags: Vec::new() }));
}

#[test]
fn what_is_no_pattern_says_why() {
    let (long, stars) = ("x".repeat(LONGEST + 1), "*a".repeat(STARS + 1));
    for (text, why) in [
        ("", "empty"),
        (" \n", "empty"),
        ("a\\", "behind a \\"),
        ("a\\b", "behind a \\"),
        (&*long, "1024 bytes"),
        (&*stars, "16 *"),
    ] {
        let error = Pattern::new(text).unwrap_err();
        assert!(error.contains(why), "{text}: {error}");
    }
    assert!(Pattern::new(&"*".repeat(LONGEST)).is_ok() && Pattern::new(&"*a".repeat(STARS)).is_ok());
}

#[test]
fn what_began_before_one_of_its_database_is_void() {
    let patterns = Patterns::default();
    let item = || Some(Said { text: b"SELECT v FROM item", ..Said::default() });
    let void = |database: &str, began_us, from| patterns.void(database, began_us, from, item);
    assert_eq!(void("shop", 5, 0), (false, 0));
    assert_eq!(patterns.add(Some("shop"), &of("*item"), 10), None);
    assert_eq!(void("shop", 10, 0), (true, 1));
    assert_eq!((void("shop", 11, 0), void("other", 10, 0)), ((false, 1), (false, 1)));
    // Who was held against it is not again, unless it is said again.
    assert_eq!(void("shop", 10, 1), (false, 1));
    assert_eq!(patterns.add(Some("shop"), &of("*item"), 20), None);
    assert_eq!((void("shop", 20, 1), patterns.known.load().len()), ((true, 2), 1));
    // Told late, it means nothing new.
    assert_eq!(patterns.add(Some("shop"), &of("*item"), 15), None);
    assert_eq!(void("shop", 20, 2), (false, 2));
    assert_eq!(patterns.add(None, &of("nothing"), 30), None);
    assert_eq!(void("other", 25, 0), (false, 3));
    assert!(patterns.void("other", 25, 0, || None).0, "nobody can read what it says");
    assert!(!patterns.void("other", 31, 0, || None).0);
}

#[test]
fn too_many_are_the_oldest_ones_database() {
    let patterns = Patterns::default();
    for number in 0..MOST as u64 {
        let database = (number != 3).then_some("shop");
        assert_eq!(patterns.add(database, &of(&format!("a{number}")), 100 + number), None);
    }
    // The oldest is by when it was said, not by when it was heard of.
    assert_eq!(patterns.add(Some("other"), &of("b"), 50), Some((Some("other".into()), 50)));
    for (number, database) in [(0, Some("shop")), (1, Some("shop")), (2, Some("shop")), (3, None)] {
        let gone = patterns.add(Some("shop"), &of(&format!("c{number}")), 500 + number);
        assert_eq!(gone, Some((database.map(Box::from), 100 + number)));
    }
    assert_eq!(patterns.known.load().len(), MOST);
}
