//! Reads of one table by the values of columns: `SELECT v FROM item WHERE id = 5`.
//! Must never take a value for all that is wanted of a column where rows with another could show in the answer.
//!
//! What is taken for such a read is written in the plainest way: one SELECT, one table, and values compared with columns in conditions that all have to hold. Whatever
//! else stands there, in the list of columns, in further conditions, behind them, sees only the rows that these let through. What is written
//! otherwise may be one as well, and is not recognised.

use std::borrow::Cow;

use super::code::Code;
use super::lex::Kind;
use super::words::{Words, tokens};

/// A value that a column is compared with.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Value<'a> {
    /// A number, and whether a minus stands in front of it.
    Number(bool, &'a [u8]),
    /// What stands between quotes.
    Text(&'a [u8]),
    /// What is given for this parameter, counted from 1; it stands nowhere else.
    Param(usize),
}

/// Columns and what they have to be equal to.
pub type Conditions<'a> = Vec<(Cow<'a, [u8]>, Value<'a>)>;

/// Words that make something else of it than the rows of one table.
const OTHER: [&str; 11] =
    ["union", "intersect", "except", "with", "join", "tablesample", "lateral", "only", "into", "values", "table"];
/// Words that make something else of conditions than what all has to hold; in brackets they are part of one.
const MIXING: [&str; 3] = ["or", "between", "case"];
/// Words that end the conditions.
const ENDS: [&str; 9] = ["group", "having", "window", "order", "limit", "offset", "fetch", "for", "returning"];
/// Types that are the same number as what is made one of them.
const TYPES: [&str; 8] = ["int", "int2", "int4", "int8", "integer", "bigint", "smallint", "uuid"];

/// What a read of one table demands of its columns, and where the name of that table stands; `None` if it is written otherwise.
fn conditions(words: Words<'_>) -> Option<(usize, Conditions<'_>)> {
    let count = |word: &str| (0..words.len()).filter(|&at| words.is(at, word)).count();
    if !words.is(0, "select") || ["select", "from", "where"].iter().any(|word| count(word) != 1) {
        return None;
    }
    let last = words.len() - usize::from(words.kind(words.len() - 1) == Some(Kind::Semicolon));
    let odd = |at: usize| matches!(words.kind(at), Some(Kind::Semicolon | Kind::UnicodeWord | Kind::Unknown));
    if (0..last).any(odd) || (0..last).any(|at| words.is_one_of(at, &OTHER)) {
        return None;
    }
    let (from, begin) = ((0..last).find(|&at| words.is(at, "from"))?, (0..last).find(|&at| words.is(at, "where"))?);
    // In brackets they are another's: extract(year FROM at).
    let depth = |upto: usize| {
        (0..upto).fold(0i32, |depth, at| match words.kind(at) {
            Some(Kind::Open) => depth + 1,
            Some(Kind::Close) => depth - 1,
            _ => depth,
        })
    };
    if begin < from || depth(from) != 0 || depth(begin) != 0 {
        return None;
    }
    let (table, alias) = table(words, from + 1, begin)?;
    let mut found = Vec::new();
    let (mut at, mut start, mut open) = (begin + 1, begin + 1, 0);
    loop {
        // Behind a dot any word is the name of a column.
        let outside = open == 0 && words.kind(at - 1) != Some(Kind::Dot);
        if at < last && outside && words.is_one_of(at, &MIXING) {
            return None;
        }
        let ends = at >= last || (outside && words.is_one_of(at, &ENDS));
        if ends || (outside && words.is(at, "and")) {
            found.extend(condition(words, (start, at), &alias));
            start = at + 1;
        }
        if ends {
            return Some((table, found));
        }
        match (words.kind(at), words.bytes(at)) {
            (Some(Kind::Open), _) | (_, b"[") => open += 1,
            (Some(Kind::Close), _) | (_, b"]") => open -= 1,
            _ => {}
        }
        at += 1;
    }
}

/// Where the name of the one table between these tokens is, and what it is called in the rest.
fn table(words: Words<'_>, from: usize, to: usize) -> Option<(usize, Cow<'_, [u8]>)> {
    let schema = words.name(from).is_some() && words.kind(from + 1) == Some(Kind::Dot);
    let table = if schema { from + 2 } else { from };
    let name = words.name(table)?;
    let alias = if words.is(table + 1, "as") { table + 2 } else { table + 1 };
    match to.checked_sub(alias)? {
        0 if alias == table + 1 => Some((table, name)),
        1 => Some((table, words.name(alias)?)),
        _ => None,
    }
}

/// What these tokens demand if they compare a column with a value, and do nothing else.
fn condition<'a>(words: Words<'a>, (from, to): (usize, usize), table: &[u8]) -> Option<(Cow<'a, [u8]>, Value<'a>)> {
    let equals = (from..to).find(|&at| words.kind(at) == Some(Kind::Operator))?;
    if words.bytes(equals) != b"=" {
        // A minus in front.
        let turned = (equals..to).find(|&at| words.bytes(at) == b"=")?;
        return Some((column(words, (turned + 1, to), table)?, value(words, (from, turned))?));
    }
    let straight = column(words, (from, equals), table).zip(value(words, (equals + 1, to)));
    straight.or_else(|| column(words, (equals + 1, to), table).zip(value(words, (from, equals))))
}

fn column<'a>(words: Words<'a>, (from, to): (usize, usize), table: &[u8]) -> Option<Cow<'a, [u8]>> {
    match to.checked_sub(from)? {
        1 => words.name(from),
        3 if words.kind(from + 1) == Some(Kind::Dot) && *words.name(from)? == *table => words.name(from + 2),
        _ => None,
    }
}

fn value(words: Words<'_>, (from, mut to): (usize, usize)) -> Option<Value<'_>> {
    if to >= from + 3 && words.bytes(to - 2) == b"::" && words.is_one_of(to - 1, &TYPES) {
        to -= 2;
    }
    let minus = words.bytes(from) == b"-";
    let at = from + usize::from(minus);
    let bytes = words.bytes(at);
    match words.kind(at).filter(|_| at + 1 == to)? {
        Kind::Number => Some(Value::Number(minus, bytes)),
        Kind::Text if !minus => {
            let inner = bytes.strip_prefix(b"'")?.strip_suffix(b"'")?;
            (!inner.iter().any(|byte| matches!(byte, b'\'' | b'\\'))).then_some(Value::Text(inner))
        }
        Kind::Param if !minus => {
            let only =
                (0..words.len()).filter(|&at| words.kind(at) == Some(Kind::Param) && words.bytes(at) == bytes).count();
            let number = std::str::from_utf8(bytes.strip_prefix(b"$")?).ok()?.parse().ok()?;
            (only == 1).then_some(Value::Param(number))
        }
        _ => None,
    }
}

impl Code {
    /// Tells what a read of one table demands of that one's columns, if it reads nothing else, by whatever code.
    #[must_use]
    pub fn by_key<T>(
        &self,
        sql: &[u8],
        standard_conforming_strings: bool,
        tell: impl FnOnce(&Conditions<'_>) -> Option<T>,
    ) -> Option<T> {
        let all = tokens(sql, standard_conforming_strings);
        let words = Words::new(sql, &all);
        let (table, conditions) = conditions(words).filter(|(_, conditions)| !conditions.is_empty())?;
        let name = words.name(table)?;
        // In front of a dot it is the table again, in front of a bracket a function.
        let is_table = |at: usize| {
            let (before, behind) = (at.checked_sub(1).and_then(|at| words.kind(at)), words.kind(at + 1));
            let is_name = words.name(at).is_some_and(|it| it == name);
            is_name && (at == table || (behind == Some(Kind::Dot) && before != Some(Kind::Dot)))
        };
        let is_else = (0..words.len()).any(|at| self.sources.reads(words, at) && !is_table(at));
        if is_else || self.sources.is_implied() { None } else { tell(&conditions) }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const ROWS: &[&[&str]] = &[
        &["r", "1", "app", "item", "rp"],
        &["r", "2", "app", "line", "rp"],
        &["p", "p1", "app", "looks_up", "fis-"],
        &["s", "p1", "0", "SELECT v FROM item WHERE id = $1"],
        &["p", "p2", "app", "item", "fis-"],
        &["s", "p2", "0", "SELECT count(*) FROM line"],
        &["o", "o1", "app", "~~~"],
        &["e", "o1", "p1"],
    ];

    /// What is demanded, as text.
    fn demanded(sql: &str) -> Option<String> {
        let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
        Code::of_rows(ROWS).by_key(sql.as_bytes(), true, |conditions| {
            let one = |(column, value): &(Cow<'_, [u8]>, Value<'_>)| match value {
                Value::Number(minus, digits) => {
                    format!("{} {}{}", text(column), if *minus { "-" } else { "" }, text(digits))
                }
                Value::Text(inner) => format!("{} '{}'", text(column), text(inner)),
                Value::Param(number) => format!("{} ${number}", text(column)),
            };
            Some(conditions.iter().map(one).collect::<Vec<_>>().join(", "))
        })
    }

    #[test]
    fn reads_by_values_are_recognised() {
        for (sql, expected) in [
            ("SELECT v FROM item WHERE id = 5", "id 5"),
            ("select * from app.Item as i where i.ID=$1 limit 1;", "id $1"),
            ("SELECT i.v, item.v FROM item i WHERE 5 = i.id AND v > 3", "id 5"),
            (r#"SELECT "item"."id" FROM "item" WHERE "item"."id" = '5' LIMIT $1"#, "id '5'"),
            ("SELECT count(*) FROM item WHERE a = 1 AND (b = 2 OR c = 3) AND d = -4 GROUP BY e", "a 1, d -4"),
            ("SELECT v FROM item WHERE -5 = id", "id -5"),
            ("SELECT v FROM item WHERE id = $1::bigint AND part = $2 ORDER BY v", "id $1, part $2"),
            ("SELECT v FROM item WHERE NOT a AND id = 5", "id 5"),
            ("SELECT lower(v) FROM item WHERE v = 'x' AND id = 5 AND b IN (1, 2)", "v 'x', id 5"),
        ] {
            assert_eq!(demanded(sql).as_deref(), Some(expected), "{sql}");
        }
    }

    #[test]
    fn whatever_may_let_other_rows_through_is_none() {
        for sql in [
            "SELECT v FROM item",
            "SELECT v FROM item WHERE id > 5",
            "SELECT v FROM item WHERE id = 5 OR id = 6",
            "SELECT v FROM item WHERE (id = 5 OR id = 6) AND (id = 5)",
            "SELECT v FROM item WHERE a BETWEEN 1 AND id = 5",
            "SELECT v FROM item WHERE CASE WHEN a AND id = 5 AND b THEN c END",
            "SELECT v FROM item WHERE NOT id = 5",
            "SELECT v FROM item i WHERE i.id = 5 AND i.limit > 3 OR i.id = 6",
            "SELECT v FROM item i WHERE i.id = 5 AND i.order = 3 OR i.id = 6",
            "SELECT v FROM item WHERE ARRAY[a AND id = 5 AND b] = ARRAY[false]",
            "SELECT v FROM item WHERE id = 5 IS FALSE",
            "SELECT v FROM item WHERE id = a",
            "SELECT v FROM item WHERE id = NULL",
            "SELECT v FROM item WHERE id = - - 5",
            "SELECT v FROM item WHERE id = 5 + 1",
            "SELECT v FROM item WHERE id = $1 + $1",
            "SELECT $1, v FROM item WHERE id = $1",
            "SELECT v FROM item WHERE id = E'5'",
            "SELECT v FROM item WHERE id = '5'::numeric",
            "SELECT v FROM item WHERE other.id = 5",
            "SELECT v FROM item AS i(a, id) WHERE id = 5",
            "SELECT v FROM item, line WHERE item.id = 5",
            "SELECT v FROM item i JOIN line USING (id) WHERE i.id = 5",
            "SELECT v FROM item WHERE id = 5 UNION TABLE item",
            "SELECT v FROM item WHERE id = 5; SELECT 1",
            "SELECT v FROM item WHERE id = 5; DELETE FROM item",
            "SELECT (SELECT max(id) FROM item) FROM item WHERE id = 5",
            "SELECT v FROM (SELECT * FROM item) i WHERE id = 5",
            "SELECT extract(year FROM v) WHERE id = 5",
            "WITH i AS (VALUES (1)) SELECT v FROM item WHERE id = 5",
            // What reads something else.
            "SELECT looks_up(6) FROM item WHERE id = 5",
            "SELECT item(6) FROM item WHERE id = 5",
            "SELECT i.item FROM item i WHERE id = 5",
            "SELECT v ~~~ v FROM item WHERE id = 5",
            "SELECT line FROM item WHERE id = 5",
            r#"SELECT U&"v" FROM item WHERE id = 5"#,
            "",
        ] {
            assert_eq!(demanded(sql), None, "{sql}");
        }
        let mut more = ROWS.to_vec();
        more.push(&["e", "a", "p1"]);
        let code = Code::of_rows(&more);
        assert_eq!(code.by_key(b"SELECT v FROM item WHERE id = 5", true, |_| Some(())), None, "a cast reads a table");
    }
}
