//! Settings that a client starts its session with, and the SQL that gives them to a server.
//! Must never put a byte of a client's into SQL that has not been quoted here.

use std::fmt::Write;

/// Name and value of settings, sorted by name, names in lower case.
pub use crate::wire::startup::Settings;

/// SQL that turns a server with the settings `from` into one with `to`, over the same base;
/// empty when nothing differs. All of it is one implicit transaction: if any value is refused,
/// nothing has changed.
///
/// The text is pure ASCII whatever the values hold (other bytes are written as octal escapes), so
/// that no client encoding in force on the server can read a quote or backslash into it
/// (CVE-2006-2313 was that kind), and `E''` keeps it independent of standard_conforming_strings.
pub fn transition(from: &Settings, to: &Settings) -> String {
    let mut sql = String::new();
    for (name, _) in from {
        if to.iter().all(|(other, _)| other != name) {
            let _ = write!(sql, "RESET {};", identifier(name));
        }
    }
    let mut first = true;
    for (name, value) in to.iter().filter(|setting| !from.contains(setting)) {
        sql.push_str(if std::mem::take(&mut first) { "SELECT " } else { "," });
        let _ = write!(sql, "pg_catalog.set_config({},{},false)", literal(name), literal(value));
    }
    sql
}

/// `E'…'` in ASCII.
fn literal(bytes: &[u8]) -> String {
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

/// `"…"`, for names that set_config accepted before; anything that is no setting's name becomes
/// one that does not exist.
fn identifier(name: &[u8]) -> String {
    let plain = |byte: &u8| byte.is_ascii_alphanumeric() || matches!(byte, b'_' | b'$');
    name.split(|&byte| byte == b'.')
        .map(|part| {
            let clean: String = part.iter().map(|byte| if plain(byte) { *byte as char } else { '_' }).collect();
            format!("\"{clean}\"")
        })
        .collect::<Vec<_>>()
        .join(".")
}

#[cfg(test)]
mod tests {
    use super::*;

    fn settings(pairs: &[(&str, &str)]) -> Settings {
        pairs.iter().map(|(name, value)| (name.as_bytes().to_vec(), value.as_bytes().to_vec())).collect()
    }

    #[test]
    fn says_only_what_differs() {
        let a = settings(&[("geqo", "off"), ("timezone", "UTC")]);
        let b = settings(&[("app.tenant", "7"), ("timezone", "UTC")]);
        assert_eq!(transition(&a, &a), "");
        assert_eq!(transition(&a, &b), "RESET \"geqo\";SELECT pg_catalog.set_config(E'app.tenant',E'7',false)");
        assert_eq!(transition(&b, &settings(&[])), "RESET \"app\".\"tenant\";RESET \"timezone\";");
    }

    #[test]
    fn quotes_every_byte_that_could_end_a_literal() {
        let evil = settings(&[("application_name", "x'; DROP TABLE t; --\\'\u{e9}\n")]);
        assert_eq!(
            transition(&settings(&[]), &evil),
            "SELECT pg_catalog.set_config(E'application_name',E'x''; DROP TABLE t; --\\\\''\\303\\251\\012',false)"
        );
        assert_eq!(identifier(b"a\";drop"), "\"a__drop\"");
    }
}
