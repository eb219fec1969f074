//! What a text does with savepoints and the transaction around them.
//! Must never be asked what a function does: that has subtransactions of its own.

use super::prepared::{cut, folded};
use super::words::{Words, tokens};

/// A step in or out.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Nesting {
    /// SAVEPOINT of this name.
    Savepoint(Box<[u8]>),
    /// RELEASE SAVEPOINT of this name.
    Release(Box<[u8]>),
    /// ROLLBACK TO SAVEPOINT of this name.
    RollbackTo(Box<[u8]>),
    /// ROLLBACK or ABORT.
    Rollback,
}

/// The steps of `sql` in order, names folded and cut as PostgreSQL does. A name in Unicode escapes is taken as it is
/// written.
pub fn nesting(sql: &[u8], standard_conforming_strings: bool) -> Vec<Nesting> {
    let all = tokens(sql, standard_conforming_strings);
    let step = |words: Words<'_>| {
        let last = words.len().checked_sub(1)?;
        let name = || {
            let name = words.token(last).and_then(|token| folded(sql, token))?;
            Some(cut(&name).into())
        };
        if words.is(0, "savepoint") {
            return name().map(Nesting::Savepoint);
        }
        if words.is(0, "release") {
            return name().map(Nesting::Release);
        }
        if !words.is(0, "rollback") && !words.is(0, "abort") {
            return None;
        }
        let to = words.is(1, "to") || words.is(2, "to");
        if to { name().map(Nesting::RollbackTo) } else { Some(Nesting::Rollback) }
    };
    Words::new(sql, &all).statements().filter_map(step).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn reads_every_form() {
        let name = |text: &str| text.as_bytes().into();
        for (sql, expected) in [
            ("SAVEPOINT A; SELECT 1", vec![Nesting::Savepoint(name("a"))]),
            (
                "release savepoint \"B\"\"\"; RELEASE b",
                vec![Nesting::Release(name("B\"")), Nesting::Release(name("b"))],
            ),
            ("ROLLBACK WORK TO SAVEPOINT s", vec![Nesting::RollbackTo(name("s"))]),
            ("ROLLBACK TO s;", vec![Nesting::RollbackTo(name("s"))]),
            ("ROLLBACK; ABORT", vec![Nesting::Rollback, Nesting::Rollback]),
            ("SELECT 'savepoint a'", vec![]),
        ] {
            assert_eq!(nesting(sql.as_bytes(), true), expected, "{sql}");
        }
    }
}
