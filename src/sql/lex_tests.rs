//! The lexer against PostgreSQL's own scanner, and against arbitrary bytes.
//! Must never weaken the comparison to make a difference go away; the two known ones are in the lexer's head comment.
#![allow(clippy::unwrap_used)]

use proptest::prelude::*;

use super::*;

fn pieces(sql: &str, conforming: bool) -> Vec<(Kind, &str)> {
    Lexer::new(sql.as_bytes(), conforming).map(|t| (t.kind, &sql[t.start..t.end])).collect()
}

#[test]
fn cuts_as_scan_l_does() {
    use Kind::*;
    let rows: &[(&str, &[(Kind, &str)])] = &[
        ("a--b\nc", &[(Word, "a"), (Comment, "--b"), (Word, "c")]),
        ("/* a /* b */ c */d", &[(Comment, "/* a /* b */ c */"), (Word, "d")]),
        ("/*/**/*/x", &[(Comment, "/*/**/*/"), (Word, "x")]),
        ("'a''b'c", &[(Text, "'a''b'"), (Word, "c")]),
        ("'a\\'b", &[(Text, "'a\\'"), (Word, "b")]),
        ("E'a\\'b'", &[(Text, "E'a\\'b'")]),
        ("'a'\n 'b'", &[(Text, "'a'\n 'b'")]),
        ("'a' 'b'", &[(Text, "'a'"), (Text, "'b'")]),
        ("'a' -- x\n'b'", &[(Text, "'a' -- x\n'b'")]),
        ("U&'a' u&\"b\"", &[(Text, "U&'a'"), (UnicodeWord, "u&\"b\"")]),
        ("b'1'x'f'n'a'", &[(Text, "b'1'"), (Text, "x'f'"), (Text, "n'a'")]),
        ("x''''", &[(Text, "x''"), (Text, "''")]),
        ("$$a$b$$$t$ $$ $t$", &[(Text, "$$a$b$$"), (Text, "$t$ $$ $t$")]),
        ("a$b$c $1$2", &[(Word, "a$b$c"), (Param, "$1"), (Param, "$2")]),
        ("\"a\"\"b\"c", &[(QuotedWord, "\"a\"\"b\""), (Word, "c")]),
        (
            "1.5e-3 .5 1. 0x1F 1_000",
            &[(Number, "1.5e-3"), (Number, ".5"), (Number, "1."), (Number, "0x1F"), (Number, "1_000")],
        ),
        ("1..2", &[(Number, "1"), (Punct, ".."), (Number, "2")]),
        ("1abc 1$$x$$", &[(Number, "1abc"), (Number, "1"), (Text, "$$x$$")]),
        ("a+-b", &[(Word, "a"), (Operator, "+"), (Operator, "-"), (Word, "b")]),
        (
            "@-1 *-1 ?-",
            &[(Operator, "@-"), (Number, "1"), (Operator, "*"), (Operator, "-"), (Number, "1"), (Operator, "?-")],
        ),
        ("a<--b", &[(Word, "a"), (Operator, "<"), (Comment, "--b")]),
        ("a/*b*/*", &[(Word, "a"), (Comment, "/*b*/"), (Operator, "*")]),
        (
            "a::b:=c=>d",
            &[(Word, "a"), (Punct, "::"), (Word, "b"), (Punct, ":="), (Word, "c"), (Operator, "=>"), (Word, "d")],
        ),
        ("'a", &[(Text, "'a")]),
        ("E'a\\", &[(Text, "E'a\\")]),
        ("/* a", &[(Comment, "/* a")]),
        ("$a$ b", &[(Text, "$a$ b")]),
    ];
    for (sql, expected) in rows {
        assert_eq!(pieces(sql, true), *expected, "{sql}");
    }
    assert_eq!(pieces("'a\\'b' c", false), [(Text, "'a\\'b'"), (Word, "c")]);
}

/// Statements whose token boundaries must equal those of `pg_query::scan`.
const CORPUS: &str = include_str!("lex_corpus.sql");

#[test]
fn agrees_with_postgresql() {
    let mut compared = 0;
    for sql in CORPUS.split("\n\n").map(str::trim).filter(|s| !s.is_empty()) {
        let theirs = pg_query::scan(sql).unwrap_or_else(|e| panic!("{sql}: {e}"));
        let theirs: Vec<(usize, usize)> = theirs.tokens.iter().map(|t| (t.start as usize, t.end as usize)).collect();
        let ours: Vec<(usize, usize)> = Lexer::new(sql.as_bytes(), true).map(|t| (t.start, t.end)).collect();
        assert_eq!(ours, theirs, "{sql}");
        compared += 1;
    }
    assert!(compared >= 100, "only {compared} statements");
}

/// Bytes that mean something to the lexer, so that random texts reach its corners.
fn telling_bytes() -> impl Strategy<Value = Vec<u8>> {
    let telling = proptest::sample::select(b"'\"$\\-/*+eEuU&xXbBnN019_.:;,()[]=<>?!@# \n\ta\x00\x80\xff".to_vec());
    proptest::collection::vec(prop_oneof![9 => telling, 1 => any::<u8>()], 0..120)
}

proptest! {
    #[test]
    fn covers_any_bytes(sql in telling_bytes(), conforming: bool) {
        let mut end = 0;
        for token in Lexer::new(&sql, conforming) {
            prop_assert!(token.start >= end && token.end > token.start && token.end <= sql.len());
            prop_assert!(sql[end..token.start].iter().all(|b| b" \t\n\r\x0b\x0c".contains(b)));
            end = token.end;
        }
        prop_assert!(sql[end..].iter().all(|b| b" \t\n\r\x0b\x0c".contains(b)));
    }

    /// Where PostgreSQL's scanner accepts a random text, the boundaries agree too.
    #[test]
    fn agrees_on_random_text(sql in "[-'\"$a-cE0-2eu&x.:;,()\\[\\]=<>?!@#*/+\\\\ \n|]{0,24}") {
        // NCHAR and the numeric corner cases that are errors there aside.
        if let Ok(theirs) = pg_query::scan(&sql) {
            let theirs: Vec<(usize, usize)> = theirs.tokens.iter().map(|t| (t.start as usize, t.end as usize)).collect();
            let ours: Vec<(usize, usize)> = Lexer::new(sql.as_bytes(), true).map(|t| (t.start, t.end)).collect();
            prop_assert_eq!(ours, theirs, "{}", sql);
        }
    }
}
