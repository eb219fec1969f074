//! Settings that a client starts its session with, and the SQL that gives them to a server.
//! Must never put a byte of a client's into SQL that has not been quoted here.

use std::fmt::Write;

/// Name and value of settings, sorted by name, names in lower case.
pub use crate::wire::startup::Settings;

/// Name and value.
pub type Setting = (Vec<u8>, Vec<u8>);

/// Settings that decide who a session acts as. Under them others may be refused, so that they are given
/// up first and taken on last; and the role hangs on the user.
pub const IDENTITY: [&[u8]; 2] = [b"session_authorization", b"role"];

/// SQL that turns a server with the settings `from` into one with `to`, over the same base; empty when nothing
/// differs. `smudged`: the server may have other settings and sequence values, which go as well. All of it is one
/// implicit transaction: if any value is refused, nothing has changed.
///
/// Values are taken back all at once, never by name: RESET ALL cannot be refused, whoever made the settings.
///
/// The text is pure ASCII whatever the values hold (other bytes are written as octal escapes), so
/// that no client encoding in force on the server can read a quote or backslash into it
/// (CVE-2006-2313 was that kind), and `E''` keeps it independent of standard_conforming_strings.
pub fn transition(from: &Settings, to: &Settings, smudged: bool) -> String {
    let mut sql = String::new();
    // A name may stand for another role than it did.
    if from == to && !smudged && !from.iter().any(acts) {
        return sql;
    }
    if smudged || from.iter().any(acts) {
        // With it goes the role.
        sql.push_str("RESET ROLE;RESET SESSION AUTHORIZATION;");
    }
    let goes = |(name, _): &Setting| to.iter().all(|(other, _)| other != name);
    let all = smudged || from.iter().any(|setting| !acts(setting) && goes(setting));
    if all {
        sql.push_str("RESET ALL;");
    }
    if smudged {
        sql.push_str("DISCARD SEQUENCES;");
    }
    let others = to.iter().filter(|setting| !acts(setting) && (all || !from.contains(setting)));
    let last = IDENTITY.iter().filter_map(|name| to.iter().find(|setting| setting.0 == *name));
    let changed = others.chain(last).map(|(name, value)| (&name[..], &value[..], false));
    if let Some(assignments) = assignments(changed) {
        sql.push_str(&assignments);
    }
    sql
}

/// The same in a transaction of its own that stays failed if it fails: whatever is sent behind it is then refused
/// (25P02), but for the end of a transaction. So a request may be sent behind it without waiting.
pub fn guarded(transition: &str) -> String {
    // Of no consequence for what is set; with `default_transaction_deferrable` it might wait for others.
    let end = if transition.ends_with(';') { "" } else { ";" };
    format!("BEGIN ISOLATION LEVEL READ COMMITTED;{transition}{end}COMMIT")
}

/// A statement that sets these: name, value, and whether only for the transaction.
pub fn assignments<'a>(settings: impl Iterator<Item = (&'a [u8], &'a [u8], bool)>) -> Option<String> {
    let mut sql = String::new();
    for (name, value, local) in settings {
        sql.push_str(if sql.is_empty() { "SELECT " } else { "," });
        let _ = write!(sql, "pg_catalog.set_config({},{},{local})", literal(name), literal(value));
    }
    (!sql.is_empty()).then_some(sql)
}

/// Whether a setting decides who a session acts as.
pub fn acts(setting: &Setting) -> bool {
    IDENTITY.contains(&&setting.0[..])
}

/// `E'…'` in ASCII: a string constant that means the same under every setting.
pub fn literal(bytes: &[u8]) -> String {
    let mut text = String::with_capacity(bytes.len() + 3);
    text.push_str("E'");
    for &byte in bytes {
        match byte {
            b'\'' => text.push_str("''"),
            b'\\' => text.push_str("\\\\"),
            b' '..=b'~' => text.push(byte as char),
            _ => {
                let _ = write!(text, "\\{byte:03o}");
            }
        }
    }
    text.push('\'');
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    fn settings(pairs: &[(&str, &str)]) -> Settings {
        pairs.iter().map(|(name, value)| (name.as_bytes().to_vec(), value.as_bytes().to_vec())).collect()
    }

    fn set(name: &str, value: &str) -> String {
        format!("pg_catalog.set_config(E'{name}',E'{value}',false)")
    }

    #[test]
    fn says_only_what_differs() {
        let a = settings(&[("geqo", "off"), ("timezone", "UTC")]);
        let b = settings(&[("app.tenant", "7"), ("timezone", "UTC")]);
        let c = settings(&[("app.tenant", "7"), ("geqo", "off"), ("timezone", "UTC")]);
        assert_eq!(transition(&a, &a, false), "");
        assert_eq!(transition(&a, &c, false), format!("SELECT {}", set("app.tenant", "7")));
        let (tenant, zone, geqo) = (set("app.tenant", "7"), set("timezone", "UTC"), set("geqo", "off"));
        assert_eq!(transition(&a, &b, false), format!("RESET ALL;SELECT {tenant},{zone}"));
        assert_eq!(transition(&b, &settings(&[]), false), "RESET ALL;");
        let clear = "RESET ROLE;RESET SESSION AUTHORIZATION;RESET ALL;DISCARD SEQUENCES;";
        assert_eq!(transition(&a, &a, true), format!("{clear}SELECT {geqo},{zone}"));
        assert_eq!(transition(&settings(&[]), &settings(&[]), true), clear);
    }

    #[test]
    fn an_identity_is_given_up_first_and_taken_on_last() {
        let a = settings(&[("role", "r"), ("timezone", "UTC")]);
        let b = settings(&[("role", "q"), ("session_authorization", "s"), ("timezone", "UTC"), ("x.y", "1")]);
        let (auth, role) = (set("session_authorization", "s"), set("role", "q"));
        let up = "RESET ROLE;RESET SESSION AUTHORIZATION;";
        assert_eq!(transition(&a, &b, false), format!("{up}SELECT {},{auth},{role}", set("x.y", "1")));
        assert_eq!(transition(&b, &settings(&[]), false), format!("{up}RESET ALL;"));
        let again = format!("{up}SELECT {},{role}", set("session_authorization", "s"));
        let acting = settings(&[("role", "q"), ("session_authorization", "s"), ("timezone", "UTC")]);
        assert_eq!(transition(&acting, &acting, false), again);
        assert_eq!(transition(&settings(&[("timezone", "UTC")]), &a, false), format!("SELECT {}", set("role", "r")));
    }

    #[test]
    fn quotes_every_byte_that_could_end_a_literal() {
        let evil = settings(&[("application_name", "x'; DROP TABLE t; --\\'\u{e9}\n")]);
        assert_eq!(
            transition(&settings(&[]), &evil, false),
            "SELECT pg_catalog.set_config(E'application_name',E'x''; DROP TABLE t; --\\\\''\\303\\251\\012',false)"
        );
    }

    #[test]
    fn a_guard_ends_its_transaction_once() {
        for sql in ["RESET ALL;", "SELECT 1"] {
            let guarded = guarded(sql);
            assert!(guarded.starts_with("BEGIN ") && guarded.ends_with(";COMMIT") && !guarded.contains(";;"));
        }
    }
}
