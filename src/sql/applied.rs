//! Functions that are called without parentheses behind them, as if they were columns: `(x).f` for `f(x)`.
//! Must never take for a column what may be a call: of a name that is both a field and a function, both count.
//!
//! `ParseFuncOrColumn` in src/backend/parser/parse_func.c takes a name behind a dot for a function of one argument, or for a conversion to
//! the type of that name, where it is no field: of any value in front of it, if the grammar has an indirection there (`c_expr` and
//! `columnref` in gram.y: behind parentheses, a parameter, or a subscript); and of a whole row where the name of a relation is in front. A
//! row is composite (`super::code::Function::is_attribute`), but of a function in FROM with a plain result it is that result.

use std::borrow::Cow;
use std::collections::HashSet;

use super::functions::{Standing, standing};
use super::lex::Kind;
use super::words::Words;

/// The places of names that stand behind a dot and a value: fields of that, functions of it, or its new types.
pub(crate) struct Applied(Vec<usize>);

impl Applied {
    /// Those of a text, or of one of its statements.
    pub(crate) fn of(words: Words<'_>) -> Self {
        let is_name = |at| matches!(words.kind(at), Some(Kind::Word | Kind::QuotedWord));
        let is_behind = |at: usize| at > 1 && words.kind(at - 1) == Some(Kind::Dot);
        let mut found: Vec<usize> = Vec::new();
        let mut results = None;
        for at in (2..words.len()).filter(|&at| is_name(at) && is_behind(at)) {
            let value = at - 2;
            let is_applied = match words.kind(value) {
                Some(Kind::Close | Kind::Param) => true,
                Some(Kind::Punct) => words.bytes(value) == b"]",
                // Its name may be any.
                Some(Kind::UnicodeWord) => true,
                Some(Kind::Word | Kind::QuotedWord) if is_behind(value) => found.last() == Some(&value),
                Some(Kind::Word | Kind::QuotedWord) => {
                    let results = results.get_or_insert_with(|| results_of(words));
                    words.name(value).is_some_and(|name| results.contains(&name))
                }
                _ => false,
            };
            if is_applied {
                found.push(at);
            }
        }
        Self(found)
    }

    /// Whether the name at `at` is one of them.
    pub(crate) fn has(&self, at: usize) -> bool {
        self.0.binary_search(&at).is_ok()
    }
}

/// What the results of functions in FROM may be called: as the function, or by the name behind its arguments.
fn results_of(words: Words<'_>) -> HashSet<Cow<'_, [u8]>> {
    let (mut results, mut opened) = (HashSet::new(), Vec::new());
    for at in 0..words.len() {
        match words.kind(at) {
            Some(Kind::Open) => {
                let before = at.checked_sub(1).and_then(|at| words.name(at));
                let function = before.filter(|name| !NO_FUNCTIONS.contains(&&**name));
                opened.push(function.is_some());
                results.extend(function);
            }
            Some(Kind::Close) => {
                let alias = if words.is(at + 1, "as") { at + 2 } else { at + 1 };
                if opened.pop() == Some(true) {
                    results.extend(words.name(alias));
                }
            }
            _ => {}
        }
    }
    results
}

impl<'a> Words<'a> {
    /// Names behind a value, and no parentheses behind them.
    pub(crate) fn applied(self) -> impl Iterator<Item = (usize, Cow<'a, [u8]>)> {
        let all = Applied::of(self).0.into_iter().filter(move |&at| self.kind(at + 1) != Some(Kind::Open));
        all.filter_map(move |at| Some((at, self.name(at)?)))
    }

    /// Whether one of them is no built-in function's: a field's, a type's, or anybody's function's.
    pub(crate) fn applies_unknown(self) -> bool {
        self.applied().any(|(_, name)| std::str::from_utf8(&name).is_ok_and(|name| standing(name) == Standing::Unknown))
    }
}

/// Words in front of parentheses around a query, or a join, in FROM.
const NO_FUNCTIONS: [&[u8]; 6] = [b"as", b"from", b"join", b"lateral", b"materialized", b"only"];

#[cfg(test)]
mod tests {
    use super::*;
    use crate::sql::words::tokens;

    fn applied(sql: &str) -> Vec<String> {
        let all = tokens(sql.as_bytes(), true);
        let names = Words::new(sql.as_bytes(), &all).applied();
        names.map(|(_, name)| String::from_utf8_lossy(&name).into_owned()).collect()
    }

    #[test]
    fn names_behind_values_are_found() {
        for (sql, wanted) in [
            ("SELECT ('s'::text).nextval", &["nextval"][..]),
            ("SELECT (a) . /* x */ \"Any\".lower FROM t", &["Any", "lower"]),
            ("SELECT $1.nextval, a[1].f, t.a[1].b.c", &["nextval", "f", "b", "c"]),
            ("SELECT u.nextval FROM unnest($1::text[]) AS u", &["nextval"]),
            ("SELECT lower.f FROM lower('x')", &["f"]),
            ("SELECT u.f FROM ROWS FROM (lower('x')) u, lower($2) \"u\"", &["f"]),
            ("SELECT U&\"x\".f", &["f"]),
            ("SELECT t.date, s.t.a, s.t.* FROM s.t", &[]),
            ("SELECT u.age FROM (SELECT 1 AS age) u JOIN LATERAL (SELECT 2 AS x) l ON l.x = u.age", &[]),
            ("WITH c AS MATERIALIZED (SELECT 1 AS n) SELECT c.n FROM c", &[]),
            ("SELECT (x).f(1), (x).*, ARRAY[1], (1)", &[]),
        ] {
            assert_eq!(applied(sql), wanted, "{sql}");
        }
    }
}
