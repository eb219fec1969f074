//! Statements about pgweir's own settings: `SHOW pgweir.last_lsn`, and values that `pgweir.target` and `pgweir.min_lsn`
//! cannot have. To PostgreSQL each is a setting of which it knows nothing, which may have any value.
//! Must never touch a text that says anything else.

use crate::sql::lex::Kind;
use crate::sql::wish::{self, Wish};
use crate::sql::words::{Words, tokens};
use crate::wire::lsn::parse_lsn;

/// Setting by which a session says what `SHOW pgweir.last_lsn` has told another.
pub const MIN_LSN: &[u8] = b"pgweir.min_lsn";

/// What is wrong with a value, and what it might be.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Problem {
    /// In PostgreSQL's words.
    pub message: String,
    /// What the setting may be.
    pub hint: &'static str,
}

/// What is wrong with the value of this setting, if it is pgweir's. The empty one is what RESET leaves.
#[must_use]
pub fn problem(name: &[u8], value: &[u8]) -> Option<Problem> {
    let position = |text: &[u8]| std::str::from_utf8(text).ok().and_then(parse_lsn).is_some();
    let (good, hint) = if name.eq_ignore_ascii_case(wish::SETTING) {
        (Wish::of(value).is_some(), "Available values: auto, primary, replica, standby.")
    } else if name.eq_ignore_ascii_case(MIN_LSN) {
        (position(value), "It is a position as SHOW pgweir.last_lsn tells it, such as 0/16B3748.")
    } else {
        return None;
    };
    if good || value.is_empty() {
        return None;
    }
    let name = String::from_utf8_lossy(name).to_ascii_lowercase();
    let known = |byte: u8| byte.is_ascii_alphanumeric() || b" -_/.,:".contains(&byte);
    let value: String = value.iter().map(|&byte| if known(byte) { char::from(byte) } else { '?' }).collect();
    Some(Problem { message: format!("invalid value for parameter \"{name}\": \"{value}\""), hint })
}

/// Whether a statement is one of those that are to say something else, or may be.
pub(crate) fn is_own(statement: Words<'_>) -> bool {
    is_last_lsn(statement) || value_of(statement).is_some()
}

/// `SHOW pgweir.last_lsn`.
fn is_last_lsn(statement: Words<'_>) -> bool {
    statement.len() == 4 && statement.is(0, "show") && names(statement, 1, "last_lsn")
}

fn names(statement: Words<'_>, at: usize, setting: &str) -> bool {
    statement.is(at, "pgweir") && statement.kind(at + 1) == Some(Kind::Dot) && statement.is(at + 2, setting)
}

/// `SET pgweir.target = value`, the same of `min_lsn`: which it is, and where the value is.
fn value_of(statement: Words<'_>) -> Option<(&'static [u8], usize)> {
    let at = if statement.is(1, "session") || statement.is(1, "local") { 2 } else { 1 };
    let names = |setting| names(statement, at, setting);
    let is_set = statement.is(0, "set") && statement.len() == at + 5;
    let gives = statement.bytes(at + 3) == b"=" || statement.is(at + 3, "to");
    let setting = match () {
        () if names("target") => wish::SETTING,
        () if names("min_lsn") => MIN_LSN,
        () => return None,
    };
    (is_set && gives && !statement.is(at + 4, "default")).then_some((setting, at + 4))
}

/// What the text is to say instead, if it is `SHOW pgweir.last_lsn`: the end of the write-ahead log, which everything that
/// its client has seen lies before.
pub(crate) fn last_lsn(sql: &[u8], standard_conforming_strings: bool) -> Option<Vec<u8>> {
    let all = tokens(sql, standard_conforming_strings);
    only(Words::new(sql, &all)).filter(|statement| is_last_lsn(*statement))?;
    Some(br#"SELECT pg_catalog.text(pg_catalog.pg_current_wal_insert_lsn()) AS "pgweir.last_lsn""#.to_vec())
}

/// What the text is to say instead, if it gives a setting of pgweir a value that this cannot have: what fails with that
/// error, in a transaction or outside.
pub(crate) fn refusal(sql: &[u8], standard_conforming_strings: bool) -> Option<Vec<u8>> {
    let all = tokens(sql, standard_conforming_strings);
    let statement = only(Words::new(sql, &all))?;
    let (setting, at) = value_of(statement)?;
    let value = match statement.kind(at)? {
        Kind::Text => statement.bytes(at).strip_prefix(b"'")?.strip_suffix(b"'")?.into(),
        _ => statement.name(at)?,
    };
    let Problem { message, hint } = problem(setting, &value)?;
    let raise = format!("RAISE EXCEPTION USING ERRCODE = '22023', MESSAGE = '{message}', HINT = '{hint}'");
    Some(format!("DO $pgweir$BEGIN {raise}; END$pgweir$").into_bytes())
}

fn only(text: Words<'_>) -> Option<Words<'_>> {
    let mut statements = text.statements();
    statements.next().filter(|_| statements.next().is_none())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn own(sql: &str) -> bool {
        let all = tokens(sql.as_bytes(), true);
        Words::new(sql.as_bytes(), &all).statements().any(is_own)
    }

    #[test]
    fn the_position_is_asked_for() {
        for sql in ["SHOW pgweir.last_lsn", " show /* x */ PGWEIR.Last_LSN ; "] {
            assert!(own(sql) && last_lsn(sql.as_bytes(), true).is_some(), "{sql}");
        }
        for sql in ["SHOW pgweir.last_lsns", "SHOW last_lsn", "SELECT 1; SHOW pgweir.last_lsn", "SHOW ALL", ""] {
            assert_eq!(last_lsn(sql.as_bytes(), true), None, "{sql}");
        }
    }

    #[test]
    fn values_that_cannot_be_are_refused() {
        for (sql, value) in [
            ("SET pgweir.target = 'foo'", "foo"),
            ("set session PGWEIR.target TO primarry;", "primarry"),
            ("SET LOCAL pgweir.target = \"it's\"", "it?s"),
            ("SET pgweir.min_lsn = '12'", "12"),
            ("SET pgweir.min_lsn TO '$pgweir$'", "?pgweir?"),
            ("SET pgweir.min_lsn TO 'it''s'", "it??s"),
        ] {
            let text = refusal(sql.as_bytes(), true).map(|text| String::from_utf8(text).unwrap());
            assert!(own(sql) && text.is_some_and(|text| text.contains(&format!(": \"{value}\"'"))), "{sql}");
        }
        for sql in [
            "SET pgweir.target = 'replica'",
            "SET pgweir.target = Prefer_Standby, x",
            "SET pgweir.target TO DEFAULT",
            "SET pgweir.target = ''",
            "SET LOCAL pgweir.min_lsn = '16/B374D848'",
            "SET pgweir.other = 'x'",
            "SET other.target = 'x'",
            "SET pgweir.target = 'x'; SELECT 1",
            "RESET pgweir.target",
        ] {
            assert_eq!(refusal(sql.as_bytes(), true), None, "{sql}");
        }
    }

    #[test]
    fn whether_it_may_be_refused_does_not_hang_on_the_value() {
        assert!(own("SET pgweir.target = 'replica'") && own("SET pgweir.target = $1"));
        assert_eq!(problem(b"pgweir.Target", b"read-write"), None);
        assert_eq!(problem(b"work_mem", b"foo"), None);
        let problem = problem(b"pgweir.Target", b"secondary").unwrap();
        assert_eq!(problem.message, "invalid value for parameter \"pgweir.target\": \"secondary\"");
    }
}
