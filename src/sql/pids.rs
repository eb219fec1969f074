//! Where a text names processes of the server by their numbers.
//! Must never take a number for a process that stands for anything else.
//!
//! Clients know processes by what they were told at their login, and by what `pg_backend_pid()` says. Whoever changes
//! either has to change what stands in texts as well: the arguments of functions that take processes, and what a column
//! called `pid` is compared with where the server's own views are read.

use std::ops::Range;

use crate::sql::lex::Kind;
use crate::sql::words::{Words, tokens};

/// Functions whose arguments are processes (src/backend/storage/ipc/signalfuncs.c, src/backend/utils/adt/lockfuncs.c,
/// mcxtfuncs.c, pgstatfuncs.c).
const FUNCTIONS: [&[u8]; 7] = [
    b"pg_cancel_backend",
    b"pg_terminate_backend",
    b"pg_log_backend_memory_contexts",
    b"pg_blocking_pids",
    b"pg_safe_snapshot_blocking_pids",
    b"pg_isolation_test_session_is_blocked",
    b"pg_stat_get_activity",
];

/// What tells the own process.
const OWN: &[u8] = b"pg_backend_pid";

/// Least number of digits that are looked at: what clients are told has eight at least (`wire::pid`).
const DIGITS: usize = 8;

/// What a text says of processes.
#[derive(Debug, Default, PartialEq, Eq)]
pub(crate) struct Pids {
    /// Numbers in it: where they are, and what they are.
    pub numbers: Vec<(Range<usize>, u32)>,
    /// Parameters, counted from 0.
    pub parameters: Vec<u16>,
}

/// Whether a statement asks for the own process alone, or names others.
pub(crate) fn names_pids(statement: Words<'_>) -> bool {
    own_call(statement).is_some() || !operands(statement).is_empty()
}

/// The processes that a text names.
pub(crate) fn pids(sql: &[u8], standard_conforming_strings: bool) -> Pids {
    let all = tokens(sql, standard_conforming_strings);
    let mut pids = Pids::default();
    for statement in Words::new(sql, &all).statements() {
        for at in operands(statement) {
            let (Some(token), bytes) = (statement.token(at), statement.bytes(at)) else { continue };
            match token.kind {
                Kind::Param => pids.parameters.extend(parameter(bytes)),
                _ => pids.numbers.extend(numbers(bytes).map(|(run, n)| (shifted(run, token.start), n))),
            }
        }
    }
    pids
}

/// The text with `pid` in place of the call, if it asks for the own process and nothing else. What it answers has the
/// same name and type.
pub(crate) fn with_own_pid(sql: &[u8], standard_conforming_strings: bool, pid: u32) -> Option<Vec<u8>> {
    let all = tokens(sql, standard_conforming_strings);
    let mut statements = Words::new(sql, &all).statements();
    let (Some(statement), None) = (statements.next(), statements.next()) else { return None };
    let own = own_call(statement)?;
    let (before, behind) = (sql.get(..own.call.start)?, sql.get(own.call.end..)?);
    let mut text = before.to_vec();
    if own.from {
        let name = own.alias.map_or(OWN, |at| statement.bytes(at));
        text.extend_from_slice(format!("(SELECT {pid}) AS ").as_bytes());
        for part in [name, b"(", name, b")"] {
            text.extend_from_slice(part);
        }
        text.extend_from_slice(sql.get(statement.end()..)?);
        return Some(text);
    }
    text.extend_from_slice(pid.to_string().as_bytes());
    if own.alias.is_some() {
        text.extend_from_slice(behind);
    } else {
        text.extend_from_slice(sql.get(own.call.end..statement.end())?);
        text.extend_from_slice(b" AS pg_backend_pid");
        text.extend_from_slice(sql.get(statement.end()..)?);
    }
    Some(text)
}

/// A text that is nothing but one signal to one process.
pub(crate) struct Signal {
    /// It ends the session; else it cancels a statement.
    pub ends: bool,
    /// A text that answers what the signal answers when it was sent, and sends none.
    pub done: Vec<u8>,
}

/// The signal that a text sends, if it does nothing else.
pub(crate) fn signal(sql: &[u8], standard_conforming_strings: bool) -> Option<Signal> {
    let all = tokens(sql, standard_conforming_strings);
    let mut statements = Words::new(sql, &all).statements();
    let (Some(words), None) = (statements.next(), statements.next()) else { return None };
    let qualified = words.kind(2) == Some(Kind::Dot) && words.name(1).is_some_and(|schema| *schema == *b"pg_catalog");
    let at = if qualified { 3 } else { 1 };
    let name = words.name(at)?;
    let ends = match &*name {
        b"pg_terminate_backend" => true,
        b"pg_cancel_backend" => false,
        _ => return None,
    };
    let called = words.kind(at + 1) == Some(Kind::Open) && words.kind(at + 3) == Some(Kind::Close);
    let alias = if words.is(at + 4, "as") { at + 5 } else { at + 4 };
    let named = words.len() == alias + 1 && matches!(words.kind(alias), Some(Kind::Word | Kind::QuotedWord));
    if !words.is(0, "select") || !called || operands(words) != [at + 2] || !(named || words.len() == at + 4) {
        return None;
    }
    let (first, close) = (words.token(1)?, words.token(at + 3)?);
    let mut done = sql.get(..first.start)?.to_vec();
    done.extend_from_slice(b"((");
    done.extend_from_slice(words.bytes(at + 2));
    done.extend_from_slice(b")::pg_catalog.int4 IS NOT NULL)");
    if !named {
        done.extend_from_slice(b" AS ");
        done.extend_from_slice(&name);
    }
    done.extend_from_slice(sql.get(close.end..)?);
    Some(Signal { ends, done })
}

/// Numbers as they may be told that stand in a constant or a value.
pub(crate) fn numbers(bytes: &[u8]) -> impl Iterator<Item = (Range<usize>, u32)> {
    let mut at = 0;
    std::iter::from_fn(move || {
        while let Some(rest) = bytes.get(at..)
            && !rest.is_empty()
        {
            let digits = rest.iter().take_while(|byte| byte.is_ascii_digit()).count();
            let run = at..at + digits;
            at += digits.max(1);
            let text = rest.get(..digits).and_then(|digits| std::str::from_utf8(digits).ok());
            if digits >= DIGITS
                && let Some(n) = text.and_then(|text| text.parse().ok())
            {
                return Some((run, n));
            }
        }
        None
    })
}

/// `SELECT pg_backend_pid()` or `SELECT * FROM pg_backend_pid()`.
struct OwnCall {
    /// Its bytes in the text.
    call: Range<usize>,
    /// It stands behind FROM.
    from: bool,
    /// The token that names the result.
    alias: Option<usize>,
}

fn own_call(words: Words<'_>) -> Option<OwnCall> {
    let from = words.bytes(1) == b"*" && words.is(2, "from");
    let start = if from { 3 } else { 1 };
    let qualified = words.kind(start + 1) == Some(Kind::Dot);
    let at = if qualified { start + 2 } else { start };
    let named = words.name(at).is_some_and(|name| *name == *OWN)
        && (!qualified || words.name(start).is_some_and(|schema| *schema == *b"pg_catalog"));
    let called = words.kind(at + 1) == Some(Kind::Open) && words.kind(at + 2) == Some(Kind::Close);
    if !words.is(0, "select") || !named || !called {
        return None;
    }
    let call = words.token(start)?.start..words.token(at + 2)?.end;
    let mut at = at + 3;
    if !from && words.bytes(at) == b"::" && words.kind(at + 1) == Some(Kind::Word) {
        at += 2;
    }
    let alias = if words.is(at, "as") { at + 1 } else { at };
    let is_name = matches!(words.kind(alias), Some(Kind::Word | Kind::QuotedWord));
    match words.len() {
        len if len == at => Some(OwnCall { call, from, alias: None }),
        len if len == alias + 1 && is_name => Some(OwnCall { call, from, alias: Some(alias) }),
        _ => None,
    }
}

/// Constants and parameters that stand for processes, by the numbers of their tokens.
fn operands(words: Words<'_>) -> Vec<usize> {
    let mut found = Vec::new();
    // Elsewhere they stand in what is kept for later, when another process may have the number.
    let runs = ["select", "with", "values", "insert", "update", "delete", "merge"];
    if !words.is_one_of(0, &runs) && words.kind(0) != Some(Kind::Open) {
        return found;
    }
    let is_view = |name: &[u8]| name.starts_with(b"pg_stat_") || name == b"pg_locks";
    let views = (0..words.len()).any(|at| words.name(at).is_some_and(|name| is_view(&name)));
    for at in 0..words.len() {
        let Some(name) = words.name(at) else { continue };
        if words.kind(at + 1) == Some(Kind::Open) && FUNCTIONS.contains(&&*name) {
            found.extend(inside(words, at + 1));
        } else if views && *name == *b"pid" {
            found.extend(compared(words, at));
        }
    }
    found.retain(|&at| matches!(words.kind(at), Some(Kind::Number | Kind::Text | Kind::Param)));
    found.sort_unstable();
    found.dedup();
    found
}

/// What the column at `at` is compared with.
fn compared(words: Words<'_>, at: usize) -> Vec<usize> {
    let compares = |at: usize| matches!(words.bytes(at), b"=" | b"<>" | b"!=");
    let mut next = at + 1;
    let mut found = Vec::new();
    if compares(next) {
        next += 1 + usize::from(words.is_one_of(next + 1, &["any", "all", "some"]));
        match words.kind(next) {
            Some(Kind::Open) => found.extend(inside(words, next)),
            _ if words.kind(next + 1) != Some(Kind::Operator) => found.push(next),
            _ => {}
        }
    } else {
        next += usize::from(words.is(next, "not"));
        if words.is(next, "in") && words.kind(next + 1) == Some(Kind::Open) {
            found.extend(inside(words, next + 1));
        }
    }
    let mut first = at;
    while first >= 2 && words.kind(first - 1) == Some(Kind::Dot) {
        first -= 2;
    }
    if first >= 2 && compares(first - 1) && (first < 3 || words.kind(first - 3) != Some(Kind::Operator)) {
        found.push(first - 2);
    }
    found
}

/// What stands between these parentheses and is no part of a computation.
fn inside(words: Words<'_>, open: usize) -> impl Iterator<Item = usize> {
    let mut depth = 0;
    let close = (open..words.len()).find(|&at| {
        match words.kind(at) {
            Some(Kind::Open) => depth += 1,
            Some(Kind::Close) => depth -= 1,
            _ => {}
        }
        depth == 0
    });
    let computes = move |at: usize| words.kind(at) == Some(Kind::Operator);
    (open + 1..close.unwrap_or(open + 1)).filter(move |&at| !computes(at - 1) && !computes(at + 1))
}

fn parameter(bytes: &[u8]) -> Option<u16> {
    let number: u16 = std::str::from_utf8(bytes.strip_prefix(b"$")?).ok()?.parse().ok()?;
    number.checked_sub(1)
}

fn shifted(range: Range<usize>, by: usize) -> Range<usize> {
    range.start + by..range.end + by
}

#[cfg(test)]
mod tests {
    use super::*;

    fn names(sql: &str) -> bool {
        let all = tokens(sql.as_bytes(), true);
        Words::new(sql.as_bytes(), &all).statements().any(names_pids)
    }

    #[test]
    fn the_own_process_is_put_in() {
        let put = |sql: &str| {
            let with = with_own_pid(sql.as_bytes(), true, 40_000_000);
            assert_eq!(with.is_some(), names(sql), "{sql}");
            with.map(|text| String::from_utf8(text).unwrap())
        };
        for (sql, expected) in [
            ("SELECT pg_backend_pid()", "SELECT 40000000 AS pg_backend_pid"),
            (" select/**/PG_CATALOG . pg_backend_pid ( ) ; ", " select/**/40000000 AS pg_backend_pid ; "),
            ("SELECT pg_backend_pid()::text -- x", "SELECT 40000000::text AS pg_backend_pid -- x"),
            ("select \"pg_backend_pid\"() as p", "select 40000000 as p"),
            ("select pg_backend_pid()::int8 \"P\";", "select 40000000::int8 \"P\";"),
            ("SELECT * FROM pg_backend_pid();", "SELECT * FROM (SELECT 40000000) AS pg_backend_pid(pg_backend_pid);"),
            ("SELECT * FROM pg_backend_pid() AS a", "SELECT * FROM (SELECT 40000000) AS a(a)"),
        ] {
            assert_eq!(put(sql).as_deref(), Some(expected), "{sql}");
        }
        for sql in [
            "SELECT pg_backend_pid() + 0",
            "SELECT pg_backend_pid(), 1",
            "SELECT pg_backend_pid() FROM t",
            "SELECT app.pg_backend_pid()",
            "SELECT \"PG_BACKEND_PID\"()",
            "SELECT pg_backend_pid",
            "SELECT 1 WHERE 1 = pg_backend_pid()",
        ] {
            assert_eq!(put(sql), None, "{sql}");
        }
        assert_eq!(with_own_pid(b"SELECT pg_backend_pid(); SELECT 1", true, 7), None);
    }

    #[test]
    fn a_signal_that_was_sent_is_answered_as_if_by_its_function() {
        let done = |sql: &str| signal(sql.as_bytes(), true).map(|it| (it.ends, String::from_utf8(it.done).unwrap()));
        for (sql, expected) in [
            (
                "select pg_terminate_backend(33554433);",
                Some((true, "select ((33554433)::pg_catalog.int4 IS NOT NULL) AS pg_terminate_backend;")),
            ),
            (
                "SELECT pg_catalog.PG_CANCEL_BACKEND ( $1 ) AS gone",
                Some((false, "SELECT (($1)::pg_catalog.int4 IS NOT NULL) AS gone")),
            ),
            ("SELECT pg_terminate_backend(33554433, 100)", None),
            ("SELECT pg_terminate_backend(33554433) FROM t", None),
            ("SELECT pg_blocking_pids(33554433)", None),
            ("SELECT app.pg_cancel_backend(33554433)", None),
            ("SELECT pg_cancel_backend(33554433); SELECT 1", None),
        ] {
            assert_eq!(done(sql), expected.map(|(ends, text)| (ends, text.to_owned())), "{sql}");
        }
    }

    #[test]
    fn processes_are_found_where_they_are_meant() {
        for (sql, found, parameters) in [
            ("SELECT pg_terminate_backend(33554433)", &["33554433"][..], &[][..]),
            ("SELECT pg_catalog.pg_cancel_backend('33554433'::int)", &["33554433"], &[]),
            ("SELECT pg_terminate_backend($1, 5000000000)", &[], &[0]),
            ("SELECT pg_blocking_pids(33554434) && '{33554435, 33554436}'", &["33554434"], &[]),
            (
                "SELECT pg_catalog.pg_isolation_test_session_is_blocked($1, '{33554433,33554434}')",
                &["33554433", "33554434"],
                &[0],
            ),
            ("SELECT 1 FROM pg_stat_activity WHERE pid = 33554433 AND datid = 33554434", &["33554433"], &[]),
            ("SELECT 1 FROM pg_locks l WHERE 33554433 = l.pid", &["33554433"], &[]),
            ("SELECT 1 FROM pg_locks WHERE pid NOT IN (33554433, $2)", &["33554433"], &[1]),
            ("SELECT 1 FROM pg_stat_activity WHERE pid <> ALL ($1)", &[], &[0]),
            ("SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE datid = 33554433", &[], &[]),
            ("SELECT 1 FROM mine WHERE pid = 33554433", &[], &[]),
            ("SELECT pg_terminate_backend(-33554433)", &[], &[]),
            ("PREPARE p AS SELECT pg_terminate_backend(33554433)", &[], &[]),
            ("CREATE VIEW v AS SELECT pg_terminate_backend(33554433)", &[], &[]),
            ("SELECT pg_terminate_backend(33554433 + 1)", &[], &[]),
            ("SELECT 1 FROM pg_locks WHERE pid = 33554433 + 1", &[], &[]),
        ] {
            let read = pids(sql.as_bytes(), true);
            let numbers: Vec<&str> = read.numbers.iter().map(|(at, _)| &sql[at.clone()]).collect();
            assert_eq!(numbers, found, "{sql}");
            assert_eq!(read.parameters, parameters, "{sql}");
            assert!(read.numbers.iter().all(|(at, n)| sql[at.clone()] == n.to_string()), "{sql}");
            assert_eq!(names(sql), !found.is_empty() || !parameters.is_empty(), "{sql}");
        }
    }
}
