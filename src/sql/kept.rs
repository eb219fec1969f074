//! Whether what a read answers may be kept, and told to another who asks the same under the same settings.
//! Must never say yes of an answer that hangs on more than data, text, parameters, role and settings.
//!
//! Beside the time and chance, which [`super::footing`] knows of, that is: whatever reads catalogs, connections or the server itself by
//! way of a built-in function; rows that are chosen by chance; tables with row level security, whose policies may ask for anything; and all
//! functions of users that are not declared immutable. What hides in views, operators, casts and the like counts by its name, as elsewhere.
//! After routing-and-cache.md 3.4.

use super::applied::Applied;
use super::code::Code;
use super::code_graph::rows;
use super::footing::Footing;
use super::functions::{Standing, standing};
use super::lex::Kind;
use super::words::{Words, tokens};

/// Beginnings of names of functions that read catalogs, or tell of a connection or a server.
const PREFIXES: [&str; 6] = ["pg_", "has_", "to_reg", "acl", "inet_client_", "fmgr_"];

/// More of them.
const FUNCTIONS: [&str; 12] = [
    "col_description",
    "current_setting",
    "format_type",
    "mxid_age",
    "obj_description",
    "oidvectortypes",
    "row_security_active",
    "shobj_description",
    "system_user",
    "ts_parse",
    "ts_token_type",
    "version",
];

/// Functions of such a name that only look at what they are given.
const HARMLESS: [&str; 5] = ["pg_client_encoding", "pg_lsn", "pg_size_bytes", "pg_size_pretty", "pg_typeof"];

/// Types whose texts are looked up in catalogs. Not `regconfig` and `regdictionary`, by which text is searched.
const TYPES: [&str; 9] = [
    "regclass",
    "regcollation",
    "regnamespace",
    "regoper",
    "regoperator",
    "regproc",
    "regprocedure",
    "regrole",
    "regtype",
];

/// Whether a built-in function of this name answers by more than its arguments and the settings.
fn asks_around(name: &[u8]) -> bool {
    let Ok(name) = std::str::from_utf8(name) else { return true };
    let is_type = || TYPES.iter().any(|of_type| name.starts_with(of_type));
    let asks = PREFIXES.iter().any(|prefix| name.starts_with(prefix)) || FUNCTIONS.contains(&name) || is_type();
    asks && !HARMLESS.contains(&name)
}

/// What in these DataRow bodies of `relay/catalog.sql` has answers that must not be kept, by its key in the graph.
pub(super) fn unkept(bytes: &[u8]) -> impl Iterator<Item = Vec<u8>> + '_ {
    rows(bytes).filter_map(|row| match row {
        // What an aggregate does its parts do.
        [b"p", key, _, _, flags] if flags.first() != Some(&b'a') && flags.get(1) != Some(&b'i') => Some(key.to_vec()),
        [b"r", key, _, _, flags] if flags.get(2) == Some(&b's') => Some([b"r", key].concat()),
        // Built in, and not immutable.
        [b"c", from, name, ..] => {
            let plain = std::str::from_utf8(name).is_ok_and(|name| standing(name) == Standing::Pure);
            (!plain || asks_around(name)).then(|| from.to_vec())
        }
        _ => None,
    })
}

impl Code {
    /// Whether the answers of a read, whose footing is this, may be kept; its constants and parameters aside
    /// ([`super::timed::may_name_moment`]). Holds for all texts of its shape. Takes a microsecond or more.
    #[must_use]
    pub fn keeps(&self, sql: &[u8], standard_conforming_strings: bool, footing: Footing) -> bool {
        if footing != Footing::Safe || self.is_too_large || self.names(&self.unkept, sql, standard_conforming_strings) {
            return false;
        }
        let all = tokens(sql, standard_conforming_strings);
        let words = Words::new(sql, &all);
        let applied = Applied::of(words);
        (0..words.len()).all(|at| match words.kind(at) {
            // Its name may be any.
            Some(Kind::UnicodeWord) => false,
            Some(Kind::Word | Kind::QuotedWord) => {
                let name = words.name(at).unwrap_or_default();
                let is_type = std::str::from_utf8(&name).is_ok_and(|name| TYPES.contains(&name));
                let is_call = words.kind(at + 1) == Some(Kind::Open) || applied.has(at);
                let asks = is_type || self.domains.contains(&*name) || (is_call && asks_around(&name));
                !asks && !words.is(at, "tablesample")
            }
            _ => true,
        })
    }
}

#[cfg(test)]
#[path = "kept_tests.rs"]
mod tests;
