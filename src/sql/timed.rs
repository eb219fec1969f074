//! Whether what a read answers hangs on when its transaction began, or on what time it is.
//! Must never say no of a read that two transactions, begun one after the other, may answer differently though the data is the same.
//!
//! Three things tell the time: functions, words of the grammar, and texts that are turned into dates or times: `'now'::timestamptz`
//! (`DecodeDateTime` in src/backend/utils/adt/datetime.c). Of the last, those in a text or in its parameters are looked for where they stand
//! ([`may_quote_moment`], [`may_name_moment`]); so a conversion of anything else, the content of a column, say, must be to a type that is known not to be one of them.

use std::cell::LazyCell;

use super::applied::Applied;
use super::functions::{Standing, standing};
use super::lex::Kind;
use super::words::Words;

/// Built-in functions that tell the time, or turn any text into any type.
const FUNCTIONS: &[&[u8]] = &[
    b"age",
    b"array_in",
    b"clock_timestamp",
    b"date_in",
    b"domain_in",
    b"json_populate_record",
    b"json_populate_recordset",
    b"json_query",
    b"json_table",
    b"json_to_record",
    b"json_to_recordset",
    b"json_value",
    b"jsonb_populate_record",
    b"jsonb_populate_recordset",
    b"jsonb_to_record",
    b"jsonb_to_recordset",
    b"multirange_in",
    b"now",
    b"range_in",
    b"record_in",
    b"statement_timestamp",
    b"time_in",
    b"timeofday",
    b"timestamp_in",
    b"timestamptz_in",
    b"timetz_in",
    b"transaction_timestamp",
    b"uuidv7",
    b"xmltable",
];

/// Types of dates and times, which are also called as functions.
const TYPES: &[&[u8]] = &[
    b"date",
    b"datemultirange",
    b"daterange",
    b"time",
    b"timestamp",
    b"timestamptz",
    b"timetz",
    b"tsmultirange",
    b"tsrange",
    b"tstzmultirange",
    b"tstzrange",
];

/// Words that PostgreSQL's grammar has for the time (`func_expr_common_subexpr` in src/backend/parser/gram.y).
const VALUES: &[&str] = &["current_date", "current_time", "current_timestamp", "localtime", "localtimestamp"];

/// Types that no text with a date or time in it becomes.
const PLAIN: &[&[u8]] = &[
    b"bigint",
    b"bit",
    b"bool",
    b"boolean",
    b"bpchar",
    b"bytea",
    b"char",
    b"character",
    b"cidr",
    b"dec",
    b"decimal",
    b"double",
    b"float",
    b"float4",
    b"float8",
    b"inet",
    b"int",
    b"int2",
    b"int4",
    b"int8",
    b"integer",
    b"interval",
    b"json",
    b"jsonb",
    b"money",
    b"name",
    b"numeric",
    b"oid",
    b"real",
    b"regclass",
    b"regtype",
    b"smallint",
    b"text",
    b"tsquery",
    b"tsvector",
    b"uuid",
    b"varbit",
    b"varchar",
    b"xml",
];

/// What a text may say for a moment instead of naming one (`datetktbl` in src/backend/utils/adt/datetime.c).
const MOMENTS: [&[u8]; 4] = [b"now", b"today", b"tomorrow", b"yesterday"];

/// Whether a built-in function of this name tells the time, called in a stored expression.
pub(crate) fn tells_time(name: &[u8]) -> bool {
    FUNCTIONS.contains(&name)
}

/// Whether the words of a text may, its constants aside.
pub(crate) fn is_timed(words: Words<'_>) -> bool {
    let applied = Applied::of(words);
    (0..words.len()).any(|at| {
        let before = at.checked_sub(1).and_then(|at| words.kind(at));
        let converts = at > 0 && words.bytes(at - 1) == b"::";
        match words.kind(at) {
            Some(Kind::Punct) if words.bytes(at) == b"::" => !is_constant(before) && !is_plain(words, at + 1),
            Some(Kind::Word) if words.is_one_of(at, VALUES) => before != Some(Kind::Dot),
            // A field, or a conversion to any type.
            Some(Kind::Word | Kind::QuotedWord) if words.kind(at + 1) != Some(Kind::Open) && applied.has(at) => {
                let name = words.name(at).unwrap_or_default();
                let is_known = std::str::from_utf8(&name).is_ok_and(|name| standing(name) == Standing::Pure);
                (!is_known && !PLAIN.contains(&&*name)) || FUNCTIONS.contains(&&*name) || TYPES.contains(&&*name)
            }
            Some(Kind::Word | Kind::QuotedWord) if words.kind(at + 1) == Some(Kind::Open) && !converts => {
                if words.is(at, "cast") {
                    return !casts_plainly(words, at + 2);
                }
                words.name(at).is_some_and(|name| FUNCTIONS.contains(&&*name) || TYPES.contains(&&*name))
            }
            // Its name may be any.
            Some(Kind::UnicodeWord) => true,
            _ => false,
        }
    })
}

fn is_constant(kind: Option<Kind>) -> bool {
    matches!(kind, Some(Kind::Param | Kind::Text | Kind::Number))
}

fn is_plain(words: Words<'_>, at: usize) -> bool {
    words.name(at).is_some_and(|name| PLAIN.contains(&&*name)) && words.kind(at + 1) != Some(Kind::Dot)
}

/// Whether `CAST(` in front of `at` is of a constant, or to a plain type.
fn casts_plainly(words: Words<'_>, at: usize) -> bool {
    let mut depth = 0u32;
    for end in at..words.len() {
        match words.kind(end) {
            Some(Kind::Open) => depth += 1,
            Some(Kind::Close) if depth == 0 => return false,
            Some(Kind::Close) => depth -= 1,
            _ if depth == 0 && words.is(end, "as") => {
                return (end == at + 1 && is_constant(words.kind(at))) || is_plain(words, end + 1);
            }
            _ => {}
        }
    }
    false
}

/// Whether a constant of this text may name a moment by what time it is, or be written so that this cannot be seen.
#[must_use]
pub fn may_quote_moment(sql: &[u8]) -> bool {
    // Constants of more than digits are in quotes, or between dollars.
    let quoted = memchr::memchr2(b'\'', b'$', sql).and_then(|at| sql.get(at.saturating_sub(1)..));
    quoted.is_some_and(|quoted| names_moment(quoted, 0) || is_hidden(quoted))
}

/// Whether a parameter among these bytes may name a moment by what time it is, or be written so that this cannot be seen.
#[must_use]
pub fn may_name_moment(bytes: &[u8]) -> bool {
    // In front of a parameter stands its length, of four bytes that may look like letters.
    names_moment(bytes, 4)
}

/// The same, with so many letters in front at most.
fn names_moment(bytes: &[u8], before: usize) -> bool {
    // One of these is in each of them. Without a branch per byte: most have none.
    let telling = |byte: &u8| matches!(byte | 0x20, b'w' | b'y') || *byte == b'\\';
    if !bytes.iter().fold(false, |any, byte| any | telling(byte)) {
        return false;
    }
    let is_it = |run: &[u8], moment: &[u8]| {
        let word = run.len().checked_sub(moment.len()).filter(|more| *more <= before).and_then(|more| run.get(more..));
        word.is_some_and(|word| word.eq_ignore_ascii_case(moment))
    };
    let mut runs = bytes.split(|byte| !byte.is_ascii_alphabetic()).filter(|run| run.len() >= 3);
    runs.any(|run| MOMENTS.iter().any(|moment| is_it(run, moment))) || memchr::memchr(b'\\', bytes).is_some()
}

/// Whether a string constant has other letters than it says, `U&'!006eow' UESCAPE '!'`, or goes on behind a line end, `'to'` and `'day'`.
fn is_hidden(bytes: &[u8]) -> bool {
    // A comment may stand in between.
    let comment = LazyCell::new(|| memchr::memmem::find(bytes, b"--").unwrap_or(bytes.len()));
    memchr::memchr_iter(b'\'', bytes).any(|at| {
        let before = bytes.get(..at).unwrap_or_default();
        if before.ends_with(b"&") {
            return true;
        }
        let blank = before.iter().rev().take_while(|byte| byte.is_ascii_whitespace() || **byte == 0x0b).count();
        let (before, blank) = before.split_at(at - blank);
        let breaks = blank.iter().any(|byte| matches!(byte, b'\n' | b'\r'));
        breaks && (before.ends_with(b"'") || *comment < before.len())
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::sql::words::tokens;

    fn timed(sql: &str) -> bool {
        let tokens = tokens(sql.as_bytes(), true);
        is_timed(Words::new(sql.as_bytes(), &tokens))
    }

    #[test]
    fn what_tells_the_time_is_found() {
        for sql in [
            "SELECT now()",
            "SELECT pg_catalog.now ()",
            "SELECT \"now\"()",
            "SELECT CURRENT_DATE",
            "SELECT 1 WHERE x > current_timestamp(3)",
            "SELECT age(born) FROM t",
            "SELECT localtime",
            "SELECT note::timestamptz FROM t",
            "SELECT (a || b)::date",
            "SELECT a::text::pg_catalog.date FROM t",
            "SELECT $1::text::timestamp",
            "SELECT a::mine FROM t",
            "SELECT CAST(note AS timestamptz) FROM t",
            "SELECT CAST((SELECT x AS y FROM t) AS date)",
            "SELECT date(note) FROM t",
            "SELECT U&\"n\\006fw\"()",
            "SELECT * FROM json_to_record(x) AS r(d date)",
            "SELECT array_agg(a)::date[] FROM t",
            "SELECT (note).timestamptz FROM t",
            "SELECT (note).pg_catalog, $1.date, (x).mine, (at).age",
            "SELECT u.timestamptz FROM unnest($1::text[]) u",
        ] {
            assert!(timed(sql), "{sql}");
        }
    }

    #[test]
    fn what_does_not_is_let_through() {
        for sql in [
            "SELECT * FROM t WHERE id = $1",
            "SELECT date, t.time, \"current_date\" FROM t",
            "SELECT t.current_date FROM t",
            "SELECT $1::timestamptz, '2024-01-01'::date, date '2024-01-01'",
            "SELECT a::int, b::text[], c::varchar(3), d::numeric(3, 1) FROM t WHERE x = $1::TIMESTAMP WITH TIME ZONE",
            "SELECT CAST(a AS int), CAST($1 AS date), CAST(f(a, b) AS text) FROM t",
            "SELECT to_char(at, 'YYYY'), date_trunc('day', at) FROM t",
            "SELECT x[1:2], $1::timestamp(3) FROM t",
            "SELECT (x).lower, (x).int4, u.timestamptz FROM t u",
        ] {
            assert!(!timed(sql), "{sql}");
        }
    }

    #[test]
    fn constants_that_name_a_moment_are_found() {
        for bytes in ["AAAtoday", "'now'", "' NOW '", "'today 10:00'", "10:00yesterday", "\0\0\0AToday", "E'n\\x6fw'"] {
            assert!(may_name_moment(bytes.as_bytes()), "{bytes}");
        }
        for text in ["U&'!006eow' UESCAPE '!'", "DATE 'to'\n 'day'", "DATE 'to' \r\n'day'", "DATE 'to' -- x\n 'day'"] {
            assert!(may_quote_moment(text.as_bytes()), "{text}");
        }
        for text in ["SELECT now FROM today", "SELECT '' -- now\n", "SELECT $1 FROM t WHERE x = 'nowhere'", ""] {
            assert_eq!(may_quote_moment(text.as_bytes()), text.contains("--"), "{text}");
        }
        for text in ["'now'", "$$Now$$", "date'today'", "SELECT E'n\\x6fw'", "x = $1 OR d < $a$YESTERDAY$a$::date"] {
            assert!(may_quote_moment(text.as_bytes()), "{text}");
        }
        assert!(!may_quote_moment(b"SELECT 'a',\n 'b',\n 'c' FROM t\nWHERE x = 'd'"));
        for bytes in ["SELECT unknown FROM towards WHERE knowhow = 'tomorrows'", "", "no", "2024-01-01"] {
            assert!(!may_name_moment(bytes.as_bytes()), "{bytes}");
        }
    }
}
