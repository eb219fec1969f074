//! Which database must have no other session while a statement runs.
//! Must never be asked per query: it reads the words anew.

use crate::sql::words::{Words, tokens};

/// The database that CREATE DATABASE copies, or that DROP DATABASE and ALTER DATABASE take away, rename or move: each
/// waits for other sessions there to end, and fails with 55006 while there are any (`CountOtherDBBackends` in
/// src/backend/storage/ipc/procarray.c). Empty where the name is a literal, which `sql`, the text of a shape, does not
/// have: then it may be any. `None` for every other statement.
pub fn vacated(sql: &[u8]) -> Option<String> {
    let all = tokens(sql, true);
    let words = Words::new(sql, &all).statements().next()?;
    if !words.is(1, "database") {
        return None;
    }
    let at = if words.is(0, "drop") {
        if words.is(2, "if") { 4 } else { 2 }
    } else if words.is(0, "alter") {
        let moves = words.is(3, "rename") || (words.is(3, "set") && words.is(4, "tablespace"));
        moves.then_some(2)?
    } else if words.is(0, "create") {
        let Some(option) = (3..words.len()).find(|&at| words.is(at, "template")) else {
            return Some("template1".to_owned());
        };
        if words.bytes(option + 1) == b"=" { option + 2 } else { option + 1 }
    } else {
        return None;
    };
    // What stands for a value in a shape's text.
    if words.bytes(at) == b"?" {
        return Some(String::new());
    }
    String::from_utf8(words.name(at)?.into_owned()).ok()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::sql::shape::normalized;

    #[test]
    fn names_what_must_be_empty() {
        for (sql, expected) in [
            ("DROP DATABASE Sales", Some("sales")),
            ("drop database if exists \"Sales\" with (force);", Some("Sales")),
            ("ALTER DATABASE sales RENAME TO old", Some("sales")),
            ("ALTER DATABASE \"a \"\"b\"\"\" SET TABLESPACE fast", Some("a \"b\"")),
            ("ALTER DATABASE sales SET work_mem = '1MB'", None),
            ("ALTER DATABASE sales OWNER TO boss", None),
            ("CREATE DATABASE copy", Some("template1")),
            ("CREATE DATABASE copy WITH OWNER = boss TEMPLATE = sales ENCODING = 'UTF8'", Some("sales")),
            ("/* why */ CREATE DATABASE copy TEMPLATE sales", Some("sales")),
            ("CREATE DATABASE copy TEMPLATE 'sales'", Some("")),
            ("CREATE DATABASE copy TEMPLATE = 'sales' OWNER boss", Some("")),
            ("DROP TABLE database", None),
            ("SELECT 1", None),
            ("DROP DATABASE", None),
            ("", None),
        ] {
            let text = normalized(sql.as_bytes(), true, 1000);
            assert_eq!(vacated(text.as_bytes()).as_deref(), expected, "{sql}: {text}");
        }
    }
}
