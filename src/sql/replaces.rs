//! Statements after which the text of another may mean something else.
//! Must never be asked per query: it reads the words anew.

use crate::sql::words::{Words, tokens};

/// Whether a name that stood for something may stand for something else afterwards: ALTER, DROP, CREATE OR REPLACE.
pub fn replaces(sql: &[u8], conforming: bool) -> bool {
    let all = tokens(sql, conforming);
    Words::new(sql, &all)
        .statements()
        .any(|one| one.is_one_of(0, &["alter", "drop"]) || (one.is(0, "create") && one.is(1, "or")))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_what_changes_what_was_there() {
        for (sql, expected) in [
            ("ALTER TABLE t ADD n int", true),
            ("BEGIN; drop type mood; COMMIT", true),
            ("CREATE OR REPLACE FUNCTION f() RETURNS int LANGUAGE sql AS 'SELECT 1'", true),
            ("CREATE TABLE t (n int)", false),
            ("TRUNCATE t", false),
            ("GRANT SELECT ON t TO alter", false),
            ("SELECT 1 AS drop INTO t", false),
            ("", false),
        ] {
            assert_eq!(replaces(sql.as_bytes(), true), expected, "{sql}");
        }
    }
}
