//! Names of the settings that an SQL text may change for the session.
//! Must never miss a name where PostgreSQL would set one, unless it says so.

use std::borrow::Cow;

use super::lex::Kind;
use super::words::{Words, tokens};

/// Settings that a text names, for good or ill: whether it changes them only the server knows.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Named {
    /// In lower case, each once.
    pub names: Vec<Box<[u8]>>,
    /// There may be others (RESET, DEFAULT, a name that is computed).
    pub others: bool,
    /// Those that go back to what they were at the session's start.
    pub back: Vec<Back>,
    /// All of them do, but for those named behind that.
    pub all_back: bool,
}

/// A setting that goes back to what it was at the session's start.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Back {
    /// Which, in lower case.
    pub name: Box<[u8]>,
    /// Only for the transaction.
    pub local: bool,
}

impl Named {
    /// One more.
    pub fn add(&mut self, name: &[u8]) {
        let name = name.to_ascii_lowercase();
        if !self.names.iter().any(|known| **known == *name) {
            self.names.push(name.into());
        }
    }

    /// Adds what `sql` names.
    pub fn read(&mut self, sql: &[u8], standard_conforming_strings: bool) {
        let tokens = tokens(sql, standard_conforming_strings);
        for statement in Words::new(sql, &tokens).statements() {
            if statement.is(0, "set") {
                self.set(statement);
            } else if statement.is(0, "reset") {
                self.reset(statement);
            }
            self.calls(statement);
            if statement.is(0, "do") {
                self.body(statement, standard_conforming_strings);
            }
        }
    }

    /// The code of a DO block: settings that an application has made up are in no list of the server's.
    fn body(&mut self, words: Words<'_>, standard_conforming_strings: bool) {
        let texts = (1..words.len()).filter(|&at| words.kind(at) == Some(Kind::Text));
        for text in texts.map(|at| words.bytes(at)) {
            // The closing tag does no harm.
            let Some(inner) = text.strip_prefix(b"$") else { continue };
            let Some(tag) = inner.iter().position(|byte| *byte == b'$') else { continue };
            let inner = inner.get(tag + 1..).unwrap_or_default();
            let tokens = tokens(inner, standard_conforming_strings);
            let all = Words::new(inner, &tokens);
            self.calls(all);
            for at in (0..all.len()).filter(|&at| all.is(at, "set")) {
                self.set(all.from(at));
            }
        }
        self.others = true;
    }

    fn reset(&mut self, words: Words<'_>) {
        self.others = true;
        if words.is(1, "all") {
            self.back.clear();
            self.all_back = true;
        } else if words.is(1, "time") && words.is(2, "zone") {
            self.goes(b"timezone", true, false);
        } else if let (Some(name), _) = dotted(words, 1) {
            // One that applications make up is in no list of the server's.
            self.add(&name);
            self.goes(&name, true, false);
        }
    }

    /// The setting goes back to its start, or elsewhere.
    fn goes(&mut self, name: &[u8], back: bool, local: bool) {
        let name = name.to_ascii_lowercase();
        self.back.retain(|other| *other.name != *name);
        if back {
            self.back.push(Back { name: name.into(), local });
        }
    }

    /// `VariableSetStmt` and `set_rest` in src/backend/parser/gram.y.
    fn set(&mut self, words: Words<'_>) {
        let is_name =
            |at: usize| words.is(at + 1, "to") || words.bytes(at + 1) == b"=" || words.kind(at + 1) == Some(Kind::Dot);
        let local = words.is(1, "local") && !is_name(1);
        let at = if local || (words.is(1, "session") && !is_name(1)) { 2 } else { 1 };
        if is_name(at) {
            let (Some(name), after) = dotted(words, at) else { return self.others = true };
            let back = words.is(after + 1, "default");
            self.goes(&name, back, local);
            if !local {
                self.add(&name);
                self.others |= back;
            }
            return;
        }
        if words.is(at, "time") {
            self.goes(b"timezone", words.is_one_of(at + 2, &["default", "local"]), local);
        } else if words.is(at, "names") {
            self.goes(b"client_encoding", words.is(at + 1, "default") || words.len() == at + 1, local);
        }
        if local {
            return;
        }
        let word = words.name(at).unwrap_or_default();
        match word.as_ref() {
            b"transaction" | b"constraints" => {}
            b"characteristics" => {
                for name in ["isolation", "read_only", "deferrable"] {
                    self.add(format!("default_transaction_{name}").as_bytes());
                }
            }
            b"role" | b"authorization" => {
                self.add(b"role");
                self.add(b"session_authorization");
            }
            b"time" => self.add(b"timezone"),
            b"names" => self.add(b"client_encoding"),
            b"schema" => self.add(b"search_path"),
            b"xml" => self.add(b"xmloption"),
            b"seed" => {}
            _ => self.others = true,
        }
    }

    /// First arguments of `set_config`, and whatever a function may give it as a name that is in no list of
    /// the server's.
    fn calls(&mut self, words: Words<'_>) {
        for at in 0..words.len() {
            if let Some(text) = plain_literal(words, at).filter(|text| is_made_up(text)) {
                self.add(&text);
            }
            if words.kind(at + 1) != Some(Kind::Open) || words.name(at).is_none_or(|name| *name != *b"set_config") {
                continue;
            }
            match plain_literal(words, at + 2) {
                Some(name) if words.kind(at + 3) == Some(Kind::Comma) => self.add(&name),
                _ => self.others = true,
            }
        }
    }
}

/// Whether a text can be the name of a setting of an application's own (`valid_custom_variable_name`
/// in src/backend/utils/misc/guc.c).
pub fn is_made_up(text: &[u8]) -> bool {
    let part = |part: &[u8]| {
        part.first().is_some_and(|first| !first.is_ascii_digit() && *first != b'$')
            && part.iter().all(|byte| byte.is_ascii_alphanumeric() || matches!(byte, b'_' | b'$' | 0x80..))
    };
    text.len() < 128 && text.contains(&b'.') && text.split(|byte| *byte == b'.').all(part)
}

/// A name that may have parts, and where the token behind it is.
fn dotted(words: Words<'_>, at: usize) -> (Option<Vec<u8>>, usize) {
    let Some(first) = words.name(at) else { return (None, at) };
    let mut name = first.into_owned();
    let mut at = at + 1;
    while words.kind(at) == Some(Kind::Dot)
        && let Some(part) = words.name(at + 1)
    {
        name.push(b'.');
        name.extend_from_slice(&part);
        at += 2;
    }
    (Some(name), at)
}

/// A string without prefix, escapes and continuation.
fn plain_literal<'a>(words: Words<'a>, at: usize) -> Option<Cow<'a, [u8]>> {
    if words.kind(at) != Some(Kind::Text) {
        return None;
    }
    let inner = words.bytes(at).strip_prefix(b"'")?.strip_suffix(b"'")?;
    inner.iter().all(|byte| !matches!(byte, b'\'' | b'\\')).then_some(Cow::Borrowed(inner))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn named(sql: &str) -> (Vec<String>, bool) {
        let mut named = Named::default();
        named.read(sql.as_bytes(), true);
        (named.names.iter().map(|name| String::from_utf8_lossy(name).into_owned()).collect(), named.others)
    }

    fn assert_named(sql: &str, names: &[&str], others: bool) {
        let (found, more) = named(sql);
        assert_eq!((found.iter().map(String::as_str).collect::<Vec<_>>(), more), (names.to_vec(), others), "{sql}");
    }

    #[test]
    fn every_way_to_set() {
        for (sql, names) in [
            ("SET work_mem = '4MB'", &["work_mem"][..]),
            ("set session Work_Mem to 4", &["work_mem"]),
            ("SET app.tenant TO 'x'; SET \"App\".B = 1", &["app.tenant", "app.b"]),
            ("SET TIME ZONE 'UTC'", &["timezone"]),
            ("SET SESSION TIME ZONE LOCAL", &["timezone"]),
            ("SET NAMES 'UTF8'", &["client_encoding"]),
            ("SET SCHEMA 'a'", &["search_path"]),
            ("SET ROLE none", &["role", "session_authorization"]),
            ("SET SESSION AUTHORIZATION x", &["role", "session_authorization"]),
            ("SET XML OPTION CONTENT", &["xmloption"]),
            ("SELECT set_config('a.b', 'c', false), pg_catalog.set_config('d', $1, $2)", &["a.b", "d"]),
            ("SET LOCAL work_mem = 1", &[]),
            ("SET local.x = 1", &["local.x"]),
            ("SET session = 1", &["session"]),
            ("SET TRANSACTION READ ONLY", &[]),
            ("SELECT 1", &[]),
            ("SELECT f('a.b', 'c', 'mailto:d.e', 'f g.h')", &["a.b"]),
        ] {
            assert_named(sql, names, false);
        }
        let characteristics =
            ["default_transaction_isolation", "default_transaction_read_only", "default_transaction_deferrable"];
        assert_named("SET SESSION CHARACTERISTICS AS TRANSACTION READ ONLY", &characteristics, false);
    }

    #[test]
    fn what_goes_back_to_the_start() {
        let back = |sql: &str| {
            let mut named = Named::default();
            named.read(sql.as_bytes(), true);
            let text = |back: &Back| {
                format!("{}{}", String::from_utf8_lossy(&back.name), if back.local { " local" } else { "" })
            };
            (named.back.iter().map(text).collect::<Vec<_>>().join(","), named.all_back)
        };
        for (sql, names, all) in [
            ("RESET work_mem", "work_mem", false),
            ("RESET ALL", "", true),
            ("RESET a.b; RESET ALL; RESET c", "c", true),
            ("SET LOCAL Work_Mem TO DEFAULT", "work_mem local", false),
            ("SET a.b = DEFAULT; SET a.b = 5", "", false),
            ("RESET TIME ZONE", "timezone", false),
            ("SET TIME ZONE LOCAL", "timezone", false),
            ("SET LOCAL TIME ZONE DEFAULT", "timezone local", false),
            ("SET NAMES DEFAULT", "client_encoding", false),
            ("SET TIME ZONE 'UTC'", "", false),
        ] {
            assert_eq!(back(sql), (names.to_owned(), all), "{sql}");
        }
    }

    #[test]
    fn what_it_cannot_tell_it_says() {
        for (sql, names) in [
            ("RESET ALL", &[][..]),
            ("RESET app.x", &["app.x"]),
            ("RESET SESSION AUTHORIZATION", &["session"]),
            ("SET U&\"a\" TO DEFAULT", &[]),
            ("SET work_mem TO DEFAULT", &["work_mem"]),
            ("SELECT set_config($1, 'c', false)", &[]),
            ("SELECT set_config('a' || 'b', 'c', false)", &[]),
            ("SELECT set_config(E'a\\x62', 'c', false)", &[]),
            ("SET U&\"x\" = 1", &[]),
            ("DO $x$ BEGIN PERFORM set_config('a.b', 'c', false); SET c.d = 1; END $x$", &["a.b", "c.d"]),
        ] {
            assert_named(sql, names, true);
        }
    }
}
