//! What a shape keeps and what it forgets.
//! Must never compare shapes only with themselves.
#![allow(clippy::unwrap_used)]

use proptest::prelude::*;

use super::*;

fn shape(sql: &str) -> u64 {
    scan(sql.as_bytes(), true).shape
}

fn text(sql: &str) -> String {
    normalized(sql.as_bytes(), true, 1 << 20)
}

#[test]
fn same_shape() {
    for (a, b) in [
        ("SELECT 1", "select  $1 ;"),
        ("SELECT a FROM t WHERE b = 'x'", "select A from T where B=-12.5e3;;"),
        ("SELECT /* c */ 1 -- d", "SELECT E'\\'', 2"),
        ("SELECT * FROM t WHERE a IN (1)", "SELECT * FROM t WHERE a IN (1, $2, 'c', -4)"),
        ("INSERT INTO t VALUES (1, 2)", "INSERT INTO t VALUES (1, 2), (3, 4), ('a', $$b$$)"),
        ("SELECT 5 - 3", "SELECT 1 - -3"),
        ("SELECT a -5", "SELECT a - 5"),
        ("UPDATE t SET a = +1", "UPDATE t SET a = 1"),
        ("SELECT 1; SELECT 2", ";SELECT 1;; SELECT 2;"),
    ] {
        assert_eq!((shape(a), text(a)), (shape(b), text(b)), "{a} / {b}");
    }
}

#[test]
fn different_shape() {
    for (a, b) in [
        ("SELECT 1", "SELECT null"),
        ("SELECT true", "SELECT false"),
        ("SELECT a", "SELECT \"a\""),
        ("SELECT \"a\"", "SELECT \"A\""),
        ("SELECT a FROM t", "SELECT a.f FROM t"),
        ("SELECT 5 - 3", "SELECT 5, -3"),
        ("SELECT a ? 'b'", "SELECT a 'c' 'b'"),
        ("SELECT 1", "SELECT 1; SELECT 1"),
        ("VALUES (1), ((2))", "VALUES (1), (2)"),
        ("VALUES (1), (a)", "VALUES (1), (2), (a, 1)"),
        ("SELECT set_config('a', 'b', true)", "SELECT set_config('a', 'b', false)"),
        ("SELECT ab", "SELECT a b"),
    ] {
        assert_ne!(shape(a), shape(b), "{a} / {b}");
        assert_ne!(text(a), text(b), "{a} / {b}");
    }
}

#[test]
fn prints_for_people() {
    for (sql, expected) in [
        ("SELECT abalance FROM pgbench_accounts WHERE aid=7;", "select abalance from pgbench_accounts where aid = ?"),
        (
            "select COUNT(*), t.\"X\"::int FROM s.T WHERE a IN (1,2) AND b[1]=2",
            "select count(*), t.\"X\"::int from s.t where a in (?) and b[?] = ?",
        ),
        ("INSERT INTO t(a,b) VALUES (1,2),(3,4)", "insert into t(a, b) values (?)"),
        ("SELECT a ? 'x', - b, -1", "select a ?? ?, - b, ?"),
        ("SELECT f((1), (2, now()), (3))", "select f((?), (?, now()), (?))"),
    ] {
        assert_eq!(text(sql), expected);
    }
    assert_eq!(normalized("SELECT \"äöü\"".as_bytes(), true, 10), "select \"ä…");
    assert_eq!(normalized(b"SELECT 1", true, 8), "select ?");
    assert_eq!(normalized(b"SELECT 1", true, 0), "…");
}

/// A value whose quote has ended it is not shown, nor anything that may be one.
#[test]
fn what_may_be_a_value_is_not_printed() {
    for (sql, expected) in [
        ("SELECT a FROM t WHERE n = 'O'Brien' AND b = 'x'", "select a from t where n =…"),
        ("SELECT a FROM t WHERE n = 'it's Brien's'", "select a from t where n =…"),
        ("SELECT \"a\" FROM t WHERE b = 'x' AND n = 'secret", "select \"a\" from t where b =…"),
        ("SELECT a FROM t WHERE n = \"secret AND b = 'x'", "select a from t where n =…"),
        ("SELECT a FROM t WHERE n = E'it\\'s", "select a from t where n =…"),
        ("DO $$ BEGIN RETURN 'x'; END", "do…"),
        ("SELECT a FROM t WHERE n = 'O''Brien' AND b = E'\\''", "select a from t where n = ? and b = ?"),
        ("SELECT \"a\".\"b\", 'x'::text, $$it's$$ AS \"c\"", "select \"a\".\"b\", ?::text, ? as \"c\""),
    ] {
        assert_eq!(text(sql), expected, "{sql}");
    }
}

#[test]
fn flags_and_counts() {
    let first = |sql: &str| scan(sql.as_bytes(), true).first;
    assert_eq!(first("  /* x */ (( Select 1))"), First::Select);
    assert_eq!(first("deallocate all"), First::Deallocate);
    assert_eq!(first(""), First::Empty);
    assert_eq!(first("'x'"), First::Other);
    assert_eq!(first("savepointsavepoint x"), First::Other);
    let flags = |sql: &str| scan(sql.as_bytes(), true).flags;
    for lock in ["UPDATE", "share", "No Key Update", "KEY /* */ SHARE"] {
        assert!(flags(&format!("SELECT 1 FROM t for /* x */ {lock}")).has(Flags::FOR_LOCK), "{lock}");
    }
    assert!(!flags("SELECT 'for update', substring(a FOR 2)").has(Flags::FOR_LOCK));
    assert!(flags("SELECT 1 into t").has(Flags::INTO));
    assert!(flags("/* pgweir: primary */ SELECT 1").has(Flags::COMMENT_HINT));
    assert!(!flags("/* x */ SELECT 'pgweir:'").has(Flags::COMMENT_HINT));
    assert!(flags("SELECT \"set_config\"('a')").has(Flags::SET_CONFIG));
    let count = |sql: &str| scan(sql.as_bytes(), true).statements;
    assert_eq!(count(" ; -- x"), Statements::Zero);
    assert_eq!(count(";SELECT 1;"), Statements::One);
    assert_eq!(count("CREATE RULE r AS ON INSERT TO t DO (DELETE FROM a; DELETE FROM b)"), Statements::One);
    assert_eq!(count("SELECT 1; SELECT 2"), Statements::Many);
}

#[test]
fn folds_ascii_letters_only() {
    for byte in 0..=u8::MAX {
        let expected =
            u64::from_le_bytes([byte.to_ascii_lowercase(), b'a', 0, 0xff, b'z', b'@', b'[', byte.to_ascii_lowercase()]);
        assert_eq!(lower_case(u64::from_le_bytes([byte, b'A', 0, 0xff, b'Z', b'@', b'[', byte])), expected, "{byte}");
    }
}

/// Words, some of which change how their neighbours are read, and literals, in the order of a token stream.
fn atom() -> impl Strategy<Value = String> {
    prop_oneof![
        4 => proptest::sample::select(vec!["select", "from", "where", "in", "t", "a.b", "\"Q q\"", "for", "values", "set_config", "null"]).prop_map(str::to_owned),
        4 => proptest::sample::select(vec!["(", ")", ",", "=", "+", "-", "::", "?", "?|", ";", ".", "[", "]", ":", "..", "*", "$", "\\", "||"]).prop_map(str::to_owned),
        4 => literal(),
    ]
}

fn literal() -> impl Strategy<Value = String> {
    prop_oneof![
        "[0-9]{1,5}",
        "[0-9]\\.[0-9]e-[0-9]",
        Just("$7".to_owned()),
        "'[a-z ;?,()-]{0,5}'",
        Just("$q$ it's $q$".to_owned()),
        Just("E'\\''".to_owned())
    ]
}

fn space() -> impl Strategy<Value = String> {
    proptest::sample::select(vec![" ", "\t", "  ", " /* c; ' */ ", " -- d '\n ", "/* /* */ */ "])
        .prop_map(str::to_owned)
}

fn is_literal(atom: &str) -> bool {
    matches!(atom.as_bytes().first(), Some(b'0'..=b'9' | b'\'' | b'E'))
        || atom.starts_with("$7")
        || atom.starts_with("$q")
}

/// Words, keywords included, may change case.
fn recased(atom: &str, upper: bool) -> String {
    if upper && atom.bytes().all(|b| b.is_ascii_alphanumeric() || b == b'_' || b == b'.') && !is_literal(atom) {
        atom.to_uppercase()
    } else {
        atom.to_owned()
    }
}

proptest! {
    #[test]
    fn forgets_space_comments_literals_and_case(
        atoms in proptest::collection::vec((atom(), literal(), space(), space(), any::<bool>()), 0..40)
    ) {
        let mut one = String::new();
        let mut two = String::new();
        for (n, (atom, other, space_one, space_two, upper)) in atoms.iter().enumerate() {
            if n > 0 && is_literal(atom) && is_literal(&atoms[n - 1].0) {
                // Two strings over a line end would be one.
                one += ", ";
                two += ",";
            }
            one += atom;
            one += space_one;
            // A sign is folded into numbers only, so a number is replaced by a number; all others by anything but a number.
            let number = |s: &str| s.starts_with(|c: char| c.is_ascii_digit());
            let replace = is_literal(atom) && number(atom) == number(other);
            two += &if replace { other.clone() } else { recased(atom, *upper) };
            two += space_two;
        }
        prop_assert_eq!(shape(&one), shape(&two), "{}\n{}", one, two);
        prop_assert_eq!(text(&one), text(&two));
    }

    /// Few distinct tokens, so that different texts of one shape and of almost one shape both occur.
    #[test]
    fn equal_shapes_are_equal_texts(
        one in proptest::collection::vec(atom(), 0..6), two in proptest::collection::vec(atom(), 0..6)
    ) {
        let (one, two) = (one.join(" "), two.join(" "));
        prop_assert_eq!(shape(&one) == shape(&two), text(&one) == text(&two), "{} / {}", one, two);
    }

    #[test]
    fn long_and_short_ways_of_hashing_agree(words in proptest::collection::vec("[A-Z]{1,300}", 1..6)) {
        let sql = words.join(" ");
        let canonical: Vec<u8> = words.iter().flat_map(|w| w.to_lowercase().into_bytes().into_iter().chain([0])).collect();
        prop_assert_eq!(shape(&sql), xxh3_64(&canonical));
    }

    #[test]
    fn no_bytes_do_harm(sql in proptest::collection::vec(any::<u8>(), 0..300), conforming: bool, limit in 0usize..100) {
        let _ = scan(&sql, conforming);
        prop_assert!(normalized(&sql, conforming, limit).chars().count() <= limit + 1);
    }
}
