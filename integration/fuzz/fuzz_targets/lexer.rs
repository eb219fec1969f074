//! The SQL lexer and the shape of a statement on arbitrary text.
//! Must never let two texts with one shape be shown differently.
#![no_main]

use arbitrary::Arbitrary;
use libfuzzer_sys::fuzz_target;
use pgweir::sql::classify::classify;
use pgweir::sql::lex::{Kind, Lexer};
use pgweir::sql::shape::{normalized, scan};

#[derive(Arbitrary, Debug)]
struct Input<'a> {
    conforming: bool,
    /// Parse as well: the grammar is PostgreSQL's own, in C, and slow.
    parse: u8,
    limit: u8,
    one: &'a [u8],
    other: &'a [u8],
}

fuzz_target!(|input: Input<'_>| {
    let Input { conforming, limit, .. } = input;
    // A string of the protocol ends at its first zero byte.
    let (one, other) = (text(input.one), text(input.other));
    tokens(one, conforming);
    let scanned = scan(one, conforming);
    assert_eq!(scan(one, conforming), scanned, "not the same twice");
    let shown = normalized(one, conforming, usize::MAX / 2);
    alike(one, other, conforming);
    alike(one, &respelled(one, conforming), conforming);
    let cut = normalized(one, conforming, usize::from(limit));
    assert!(cut == shown || cut.ends_with('…'), "cut without a sign of it");
    assert!(cut.len() <= 3 * usize::from(limit) + '…'.len_utf8(), "longer than its limit");
    if input.parse % 16 == 0 {
        let _ = classify(one, &scanned);
    }
});

fn text(bytes: &[u8]) -> &[u8] {
    bytes.split(|&byte| byte == 0).next().unwrap_or_default()
}

fn tokens(sql: &[u8], conforming: bool) {
    let mut end = 0;
    for token in Lexer::new(sql, conforming) {
        assert!(token.start >= end && token.end > token.start && token.end <= sql.len(), "{token:?} after {end}");
        let between = &sql[end..token.start];
        assert!(between.iter().all(|b| b" \t\n\r\x0b\x0c".contains(b)), "{between:?} is in no token");
        end = token.end;
    }
    assert!(sql[end..].iter().all(|b| b" \t\n\r\x0b\x0c".contains(b)), "the end is in no token");
}

/// One shape is shown as one text, two as two.
fn alike(one: &[u8], other: &[u8], conforming: bool) {
    let equal = scan(one, conforming).shape == scan(other, conforming).shape;
    let (shown, shown_other) = (normalized(one, conforming, 1 << 20), normalized(other, conforming, 1 << 20));
    if equal {
        assert_eq!(shown, shown_other, "one shape, two texts");
    } else if std::str::from_utf8(one).is_ok() && std::str::from_utf8(other).is_ok() {
        // What is not UTF-8 is shown as U+FFFD, whatever it was.
        assert_ne!(shown, shown_other, "two shapes, one text");
    }
}

/// The same tokens with words in capitals and with other white space between them: the same shape.
fn respelled(sql: &[u8], conforming: bool) -> Vec<u8> {
    let mut out = Vec::new();
    for token in Lexer::new(sql, conforming) {
        let bytes = token.bytes(sql);
        match token.kind {
            Kind::Word => out.extend(bytes.iter().map(u8::to_ascii_uppercase)),
            _ => out.extend_from_slice(bytes),
        }
        // Only after a line comment does a line have to end.
        out.push(if token.kind == Kind::Comment { b'\n' } else { b' ' });
    }
    out
}
