//! Names of prepared statements that an SQL text mentions.
//! Must never miss a name where PostgreSQL would find one, unless it says so.

use std::borrow::Cow;

use super::lex::{Kind, Lexer, Token, eq_word};

/// Longest name in SQL, bytes: `NAMEDATALEN - 1` (`src/include/pg_config_manual.h`).
const NAME_BYTES: usize = 63;

/// Calls `each` with every name behind PREPARE, EXECUTE or DEALLOCATE in `sql`, as PostgreSQL
/// folds and cuts it; with `None` for one that only the server can read. Some that are no names of
/// statements are among them.
pub fn prepared_names(sql: &[u8], standard_conforming_strings: bool, mut each: impl FnMut(Option<&[u8]>)) {
    let mut tokens =
        Lexer::new(sql, standard_conforming_strings).filter(|token| token.kind != Kind::Comment).peekable();
    while let Some(token) = tokens.next() {
        let word = if token.kind == Kind::Word { token.bytes(sql) } else { continue };
        if ![&b"prepare"[..], b"execute", b"deallocate"].iter().any(|keyword| eq_word(word, keyword)) {
            continue;
        }
        match tokens.peek() {
            Some(next) if next.kind == Kind::UnicodeWord => each(None),
            Some(next) => {
                if let Some(name) = folded(sql, *next) {
                    each(Some(cut(&name)));
                }
            }
            None => {}
        }
    }
}

/// Whether `sql` is DEALLOCATE ALL.
pub fn deallocates_all(sql: &[u8], standard_conforming_strings: bool) -> bool {
    let mut tokens =
        Lexer::new(sql, standard_conforming_strings).filter(|token| token.kind != Kind::Comment).peekable();
    let is = |token: &Token, word: &[u8]| token.kind == Kind::Word && eq_word(token.bytes(sql), word);
    tokens.next_if(|token| is(token, b"deallocate")).is_some() && {
        tokens.next_if(|token| is(token, b"prepare"));
        tokens.next().is_some_and(|token| is(&token, b"all"))
    }
}

/// A name as the server cuts it: no character in two (`pg_mbcliplen`; in UTF-8, which servers have but for few).
pub(super) fn cut(name: &[u8]) -> &[u8] {
    let is_start = |at: &usize| name.get(*at).is_none_or(|byte| byte & 0xc0 != 0x80);
    let end = if name.len() > NAME_BYTES { (0..=NAME_BYTES).rev().find(is_start).unwrap_or(0) } else { name.len() };
    name.get(..end).unwrap_or(name)
}

/// A name as the server folds it; `None` for what is none.
pub(super) fn folded(sql: &[u8], token: Token) -> Option<Cow<'_, [u8]>> {
    let bytes = token.bytes(sql);
    match token.kind {
        Kind::Word if bytes.iter().any(u8::is_ascii_uppercase) => Some(Cow::Owned(bytes.to_ascii_lowercase())),
        Kind::Word => Some(Cow::Borrowed(bytes)),
        Kind::QuotedWord => {
            let inner = bytes.strip_prefix(b"\"").and_then(|rest| rest.strip_suffix(b"\"")).unwrap_or_default();
            let mut name = Vec::with_capacity(inner.len());
            let mut quoted = false;
            for &byte in inner {
                quoted = byte == b'"' && !quoted;
                if !quoted {
                    name.push(byte);
                }
            }
            Some(Cow::Owned(name))
        }
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn names(sql: &str) -> Vec<String> {
        let mut all = Vec::new();
        prepared_names(sql.as_bytes(), true, |name| {
            all.push(name.map_or("?".to_owned(), |name| String::from_utf8_lossy(name).into_owned()));
        });
        all
    }

    #[test]
    fn tells_all_from_a_name() {
        for (sql, all) in [
            ("DEALLOCATE ALL", true),
            (" /* c */ deallocate prepare all;", true),
            ("DEALLOCATE \"all\"", false),
            ("DEALLOCATE s", false),
            ("SELECT all", false),
            ("", false),
        ] {
            assert_eq!(deallocates_all(sql.as_bytes(), true), all, "{sql}");
        }
    }

    #[test]
    fn finds_names_as_postgresql_reads_them() {
        let long = "x".repeat(70);
        let cut = "x".repeat(63);
        for (sql, expected) in [
            ("EXECUTE s", &["s"][..]),
            ("execute S(1, 2)", &["s"]),
            ("DEALLOCATE \"S\"", &["S"]),
            ("DEALLOCATE /* c */ PREPARE \"a \"\"b\"\"\"", &["prepare", "a \"b\""]),
            ("PREPARE p (int) AS SELECT 1; EXECUTE p(2); DEALLOCATE p", &["p", "p", "p"]),
            ("EXPLAIN ANALYZE EXECUTE s", &["s"]),
            ("CREATE TABLE t AS EXECUTE s", &["s"]),
            ("EXECUTE U&\"s\"", &["?"]),
            ("SELECT 'execute s', 1", &[]),
            ("EXECUTE", &[]),
            (&format!("EXECUTE {long}"), &[&cut]),
        ] {
            assert_eq!(names(sql), expected, "{sql}");
        }
    }
}
