//! The verdict on one statement shape, from PostgreSQL's own grammar (`pg_query`) and the tokens.
//! Must never run per query, never say `Replica` of what it does not understand, and never take the process down.
//!
//! The grammar decides whether the text is valid, which statements it contains at any depth, which tables and functions they name
//! (`pg_query::summary`, which walks in C with a stack check; a decoded tree would cost ten times as much and fail on deep expressions). The tokens
//! tell what the summary does not: locking clauses, INTO, options of utility statements, functions in RETURNING and in cursors.
//! Where the two could disagree the stricter word counts.

use std::borrow::Cow;

use pg_query::protobuf::summary_result::Context;

use crate::sql::functions::{Standing, standing};
use crate::sql::own::is_own;
use crate::sql::pids::names_pids;
use crate::sql::shape::{Flags, Scanned, Statements};
use crate::sql::statement::Reading;
use crate::sql::verdict::{Effects, Reason, Route, StatementKind, Verdict};
use crate::sql::words::{Words, tokens};

/// Longest text given to the parser, bytes: at this length its worst known input stays under a tenth of a second.
pub const PARSE_LIMIT_BYTES: usize = 64 * 1024;

/// Longest text whose tokens are kept at once, bytes: they take up to 24 bytes for each of it.
pub const SCAN_LIMIT_BYTES: usize = 1024 * 1024;

/// The verdict on a text. `scanned` must be [`crate::sql::shape::scan`] of the same text.
///
/// Costs 2 to 60 µs for usual statements, so ask once per shape and remember the answer where [`Verdict::follows_from_shape`] allows.
#[must_use]
pub fn classify(sql: &[u8], scanned: &Scanned) -> Verdict {
    if scanned.statements == Statements::Zero {
        return verdict(Route::Primary, Reason::Empty, Effects::NONE, StatementKind::Empty);
    }
    if sql.len() > SCAN_LIMIT_BYTES {
        let effects = Effects::OPAQUE | Effects::UNKNOWN_FUNCTION;
        return verdict(Route::Primary, Reason::TooLong, effects, StatementKind::Unknown);
    }
    let standard_conforming_strings = !scanned.flags.has(Flags::BACKSLASH_ESCAPES);
    let tokens = tokens(sql, standard_conforming_strings);
    let words = Words::new(sql, &tokens);
    if sql.len() > PARSE_LIMIT_BYTES {
        return unparsed(words, Reason::TooLong);
    }
    if scanned.flags.has(Flags::ENCODING) || words.names_are_unclear() {
        return unparsed(words, Reason::Encoding);
    }
    let options = if standard_conforming_strings {
        pg_query::ParserOptions::DEFAULT
    } else {
        pg_query::ParserOptions::DISABLE_STANDARD_CONFORMING_STRINGS
    };
    match pg_query::summary(&text_of(sql), options, -1) {
        Ok(summary) => parsed(words, scanned, &summary),
        Err(pg_query::Error::Parse(message))
            if message.contains("stack depth") || message.contains("memory exhausted") =>
        {
            unparsed(words, Reason::TooDeep)
        }
        // The server's grammar may be newer than this one.
        Err(_) => Verdict { kind: StatementKind::Unknown, ..unparsed(words, Reason::Unparsable) },
    }
}

fn verdict(route: Route, reason: Reason, effects: Effects, kind: StatementKind) -> Verdict {
    Verdict { route, reason, effects, kind }
}

/// UTF-8 for the parser. Other text is taken byte by byte as Latin-1, which keeps every byte >= 0x80 an identifier byte.
fn text_of(sql: &[u8]) -> Cow<'_, str> {
    match std::str::from_utf8(sql) {
        Ok(text) => Cow::Borrowed(text),
        Err(_) => Cow::Owned(sql.iter().map(|&b| char::from(b)).collect()),
    }
}

/// Without the grammar: the effects that tokens tell, more rather than fewer.
fn unparsed(words: Words<'_>, reason: Reason) -> Verdict {
    let all = readings(words);
    let unknown = if words.may_call_unknown() { Effects::UNKNOWN_FUNCTION } else { Effects::NONE };
    verdict(Route::Primary, reason, all.effects | words.call_effects() | unknown, all.kind)
}

/// The union over all statements of a text; route and reason are those of the last.
fn readings(words: Words<'_>) -> Reading {
    let mut union: Option<Reading> = None;
    for statement in words.statements() {
        let mut reading = statement.read();
        if statement.runs_its_functions() {
            reading.effects |= statement.call_effects();
        }
        if names_pids(statement) || is_own(statement) {
            reading.effects |= Effects::PIDS;
        }
        union = Some(match union {
            None => reading,
            Some(before) => Reading {
                kind: StatementKind::Many,
                route: Route::Primary,
                reason: Reason::ManyStatements,
                effects: before.effects | reading.effects,
                read: false,
            },
        });
    }
    union.unwrap_or(Reading {
        kind: StatementKind::Unknown,
        route: Route::Primary,
        reason: Reason::Unparsable,
        effects: Effects::OPAQUE,
        read: false,
    })
}

fn parsed(words: Words<'_>, scanned: &Scanned, summary: &pg_query::SummaryResult) -> Verdict {
    let mut all = readings(words);
    if (calls_unknown(words, summary) || words.applies_unknown()) && all.kind != StatementKind::Prepare {
        all.effects |= Effects::UNKNOWN_FUNCTION;
    }
    if scanned.flags.has(Flags::UNICODE_WORD) {
        // The name may be any, also that of a function with an effect.
        all.effects |= Effects::UNKNOWN_FUNCTION | Effects::OPAQUE;
    }
    if !all.read {
        return verdict(all.route, all.reason, all.effects, all.kind);
    }
    let (route, reason) = match why_not(words, scanned, summary) {
        Some((reason, true)) => (Route::Catalog, reason),
        Some((reason, false)) => (Route::Primary, reason),
        None if words.asks_for_settings() => (Route::Replica, Reason::SessionSetting),
        None if summary.functions.iter().any(|f| standing(&f.function_name) == Standing::Harmless)
            || applied(words, Standing::Harmless) =>
        {
            (Route::Replica, Reason::VolatileRead)
        }
        None => (Route::Replica, Reason::PureRead),
    };
    verdict(route, reason, all.effects, all.kind)
}

/// Why a statement that starts like a read is not one for a standby, and whether the catalog may know better.
fn why_not(words: Words<'_>, scanned: &Scanned, summary: &pg_query::SummaryResult) -> Option<(Reason, bool)> {
    let grammar = || {
        let flags = scanned.flags;
        if flags.has(Flags::FOR_LOCK) {
            return Some(Reason::Locking);
        }
        if flags.has(Flags::UNICODE_WORD) {
            return Some(Reason::UnicodeName);
        }
        let plain = |name: &String| matches!(name.as_str(), "SelectStmt" | "ExplainStmt" | "CopyStmt");
        if !summary.statement_types.iter().all(plain) {
            return Some(Reason::DataModifyingCte);
        }
        if flags.has(Flags::INTO) || summary.tables.iter().any(|t| t.context != Context::Select) {
            return Some(Reason::Into);
        }
        // Independent of the grammar's walk: by name, wherever it stands.
        if !words.call_effects().is_empty() || applied(words, Standing::Denied) {
            return Some(Reason::Function);
        }
        if words.asks_for_node_settings() {
            return Some(Reason::NodeSetting);
        }
        let denied = |call| function(call).filter(|reason| *reason == Reason::Function);
        summary.functions.iter().find_map(denied).or_else(|| relations(summary))
    };
    if let Some(reason) = grammar() {
        return Some((reason, false));
    }
    let catalog = if words.names_foreign_operator() {
        Some(Reason::Operator)
    } else {
        let applied = || words.applies_unknown().then_some(Reason::FunctionUnknown);
        summary.functions.iter().find_map(function).or_else(applied).or_else(|| sequences(words, summary))
    };
    catalog.map(|reason| (reason, true))
}

/// Whether a built-in function of this standing is called as if it were a column.
fn applied(words: Words<'_>, of: Standing) -> bool {
    words.applied().any(|(_, name)| std::str::from_utf8(&name).is_ok_and(|name| standing(name) == of))
}

fn function(call: &pg_query::Function) -> Option<Reason> {
    if call.schema_name.as_deref().is_some_and(|schema| schema != "pg_catalog") {
        return Some(Reason::FunctionUnknown);
    }
    match standing(&call.function_name) {
        Standing::Pure | Standing::Harmless => None,
        Standing::Denied => Some(Reason::Function),
        Standing::Unknown => Some(Reason::FunctionUnknown),
    }
}

fn relations(summary: &pg_query::SummaryResult) -> Option<Reason> {
    for table in &summary.tables {
        let (schema, name) = (table.schema_name.as_str(), table.table_name.as_str());
        if schema.starts_with("pg_temp") {
            return Some(Reason::TemporaryRelation);
        }
        if schema.starts_with("pg_") || schema == "information_schema" || (schema.is_empty() && name.starts_with("pg_"))
        {
            return Some(Reason::CatalogRelation);
        }
    }
    // The summary forgets where a CTE is visible: one of this name would hide the catalog everywhere.
    summary.cte_names.iter().any(|name| name.starts_with("pg_")).then_some(Reason::CatalogRelation)
}

/// By what they look like: which relation is a sequence only the catalog knows.
fn sequences(words: Words<'_>, summary: &pg_query::SummaryResult) -> Option<Reason> {
    let mut names = summary.tables.iter().map(|table| &table.table_name).chain(&summary.cte_names);
    (names.any(|name| name.ends_with("_seq")) || words.names_sequence_column()).then_some(Reason::Sequence)
}

/// Whether a function outside the built-in list may run. The summary does not look into RETURNING nor into cursors.
fn calls_unknown(words: Words<'_>, summary: &pg_query::SummaryResult) -> bool {
    let named = summary
        .functions
        .iter()
        .filter(|f| f.context == Context::Call)
        .any(|f| function(f) == Some(Reason::FunctionUnknown));
    named
        || words.statements().any(|statement| match statement.read().kind {
            StatementKind::Declare => statement.may_call_unknown(),
            _ => statement.returning().is_some_and(Words::may_call_unknown),
        })
}

/// The grammar's summary of a text with these words, if its names are clear.
pub(crate) fn parses(
    sql: &[u8],
    standard_conforming_strings: bool,
    words: Words<'_>,
) -> Option<pg_query::SummaryResult> {
    if sql.len() > PARSE_LIMIT_BYTES || words.names_are_unclear() {
        return None;
    }
    let options = if standard_conforming_strings {
        pg_query::ParserOptions::DEFAULT
    } else {
        pg_query::ParserOptions::DISABLE_STANDARD_CONFORMING_STRINGS
    };
    pg_query::summary(&text_of(sql), options, -1).ok()
}

/// Names of the functions outside the built-in list that a text may call, folded as the server folds them, whatever
/// their schema. `None` if nobody can tell.
pub(crate) fn unknown_calls(sql: &[u8], standard_conforming_strings: bool) -> Option<Vec<Vec<u8>>> {
    let tokens = tokens(sql, standard_conforming_strings);
    let words = Words::new(sql, &tokens);
    let summary = parses(sql, standard_conforming_strings, words)?;
    let named = summary.functions.iter().filter(|f| function(f) == Some(Reason::FunctionUnknown));
    let mut names: Vec<Vec<u8>> = named.map(|f| f.function_name.clone().into_bytes()).collect();
    // The summary does not look into these.
    for statement in words.statements() {
        let part = match statement.read().kind {
            StatementKind::Declare | StatementKind::Call => Some(statement),
            _ => statement.returning(),
        };
        names.extend(part.into_iter().flat_map(Words::unknown_calls));
    }
    Some(names)
}

#[cfg(test)]
#[path = "classify_tests.rs"]
mod tests;

#[cfg(test)]
#[path = "classify_effects_tests.rs"]
mod effects_tests;

#[cfg(test)]
#[path = "classify_planted_tests.rs"]
mod planted_tests;
