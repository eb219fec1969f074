//! Names of the settings that an SQL text may change for the session.
//! Must never miss a name where PostgreSQL would set one, unless it says so.

use super::lex::Kind;
use super::words::{Words, tokens};

/// Settings that texts name, in the order of their statements, for good or ill: whether they changed only the server
/// knows.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Named {
    /// In lower case, each once: those that may have a value of the session's now.
    pub names: Vec<Box<[u8]>>,
    /// Those that have gone back to what they were at the session's start.
    pub back: Vec<Mention>,
    /// Those that a statement has given a value by their plain name, code aside.
    pub said: Vec<Mention>,
    /// All the others have, too.
    pub all_back: bool,
    /// There may be others, which the server lists.
    pub others: bool,
    /// There may be others of which only the application knows the names.
    pub hidden: bool,
    /// Parameters that are names: 0 is `$1`.
    pub parameters: Vec<u16>,
    /// The identity has gone back as well.
    pub identity_back: bool,
    /// Something lasts that no setting shows: `SET seed`.
    pub seeds: bool,
}

/// A setting that a text names.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Mention {
    /// Which, in lower case.
    pub name: Box<[u8]>,
    /// Only for the transaction.
    pub local: bool,
}

impl Named {
    /// One more.
    pub fn add(&mut self, name: &[u8]) {
        let name = name.to_ascii_lowercase();
        self.back.retain(|back| *back.name != *name);
        if !self.names.iter().any(|known| **known == *name) {
            self.names.push(name.into());
        }
    }

    /// It has a value that a statement has given it.
    pub fn say(&mut self, name: &[u8], local: bool) {
        self.said.retain(|said| !said.name.eq_ignore_ascii_case(name) || (local && !said.local));
        self.said.push(Mention { name: name.to_ascii_lowercase().into(), local });
    }

    /// Adds what the statements of `sql`, SET LOCAL, give a value to.
    pub fn say_local(&mut self, sql: &[u8], standard_conforming_strings: bool) {
        let mut named = Self::default();
        named.read(sql, standard_conforming_strings);
        named.said.iter().for_each(|said| self.say(&said.name, said.local));
    }

    /// Whether a statement has given it a value, and perhaps only for the transaction.
    pub fn has_said(&self, name: &[u8], or_local: bool) -> bool {
        self.said.iter().any(|said| (or_local || !said.local) && said.name.eq_ignore_ascii_case(name))
    }

    /// Adds what the statements of `sql` name.
    pub fn read(&mut self, sql: &[u8], standard_conforming_strings: bool) {
        let tokens = tokens(sql, standard_conforming_strings);
        for statement in Words::new(sql, &tokens).statements() {
            self.read_one(statement, standard_conforming_strings);
        }
    }

    /// Adds what one statement names.
    pub(crate) fn read_one(&mut self, statement: Words<'_>, standard_conforming_strings: bool) {
        if statement.is(0, "set") {
            self.set(statement);
        } else if statement.is(0, "reset") {
            self.reset(statement);
        } else if statement.is(0, "discard") && statement.is(1, "all") {
            self.goes_all();
            self.identity_back = true;
        }
        self.calls(statement);
        if statement.is(0, "do") {
            self.body(statement, standard_conforming_strings);
        }
    }

    /// The code of a DO block: settings that an application has made up are in no list of the server's.
    fn body(&mut self, words: Words<'_>, standard_conforming_strings: bool) {
        self.others = true;
        let texts = (1..words.len()).filter(|&at| words.kind(at) == Some(Kind::Text));
        for text in texts.map(|at| words.bytes(at)) {
            let inner = text.strip_prefix(b"$").and_then(|inner| {
                let tag = inner.iter().position(|byte| *byte == b'$')?;
                // The closing tag does no harm.
                inner.get(tag + 1..)
            });
            match inner {
                Some(inner) => self.code(inner, standard_conforming_strings),
                None => match plain(text) {
                    Some(b"plpgsql") => {}
                    Some(inner) => self.code(inner, standard_conforming_strings),
                    None => self.hidden = true,
                },
            }
        }
    }

    /// Adds what procedural code names. What it takes back is not noted.
    pub fn code(&mut self, code: &[u8], standard_conforming_strings: bool) {
        let tokens = tokens(code, standard_conforming_strings);
        let all = Words::new(code, &tokens);
        self.others = true;
        let mut named = Self::default();
        named.calls(all);
        for at in 0..all.len() {
            if all.is(at, "set") {
                named.set(all.from(at));
            }
            // SQL that is put together as the code runs.
            named.hidden |= all.kind(at) == Some(Kind::Text) && sets(all.bytes(at));
        }
        for name in named.names.iter().filter(|name| name.contains(&b'.')) {
            self.add(name);
        }
        self.hidden |= named.hidden;
    }

    fn reset(&mut self, words: Words<'_>) {
        if words.is(1, "all") {
            self.goes_all();
        } else if words.is(1, "time") && words.is(2, "zone") {
            self.goes_back(b"timezone", false);
        } else if words.is(1, "session") && words.is(2, "authorization") {
            self.goes_back(b"session_authorization", false);
        } else if words.is(1, "transaction") {
        } else {
            match dotted(words, 1).0 {
                Some(name) => self.goes_back(&name, false),
                None => (self.others, self.hidden) = (true, true),
            }
        }
    }

    fn add_identity(&mut self) {
        self.add(b"role");
        self.add(b"session_authorization");
    }

    fn goes_all(&mut self) {
        self.back.clear();
        self.said.clear();
        // Whoever was made up stays known, as an empty value.
        self.names.retain(|name| name.contains(&b'.') || IDENTITY.contains(&&name[..]));
        self.all_back = true;
    }

    fn goes_back(&mut self, name: &[u8], local: bool) {
        let name = name.to_ascii_lowercase();
        self.back.retain(|other| *other.name != *name);
        self.said.retain(|said| *said.name != *name);
        if IDENTITY.contains(&&name[..]) {
            self.add_identity();
            if name == IDENTITY[0] {
                // The role goes back with it.
                self.back.push(Mention { name: IDENTITY[1].into(), local });
            }
        } else if !local && name.contains(&b'.') {
            self.add(&name);
        } else if !local {
            self.names.retain(|known| **known != *name);
        }
        self.back.push(Mention { name: name.into(), local });
    }

    /// `VariableSetStmt` and `set_rest` in src/backend/parser/gram.y.
    fn set(&mut self, words: Words<'_>) {
        let is_name =
            |at: usize| words.is(at + 1, "to") || words.bytes(at + 1) == b"=" || words.kind(at + 1) == Some(Kind::Dot);
        let local = words.is(1, "local") && !is_name(1);
        let at = if local || (words.is(1, "session") && !is_name(1)) { 2 } else { 1 };
        if is_name(at) {
            let (Some(name), after) = dotted(words, at) else {
                return (self.others, self.hidden) = (true, self.hidden || !local);
            };
            return self.assign(&name, words.is(after + 1, "default"), local);
        }
        if words.is_one_of(at, &["role", "authorization"]) && !words.is(at + 1, "default") {
            self.say(b"role", local);
        }
        match words.name(at).unwrap_or_default().as_ref() {
            b"time" => self.assign(b"timezone", words.is_one_of(at + 2, &["default", "local"]), local),
            b"names" => self.assign(b"client_encoding", words.is(at + 1, "default") || words.len() == at + 1, local),
            _ if local => {}
            b"transaction" | b"constraints" => {}
            b"characteristics" => {
                for name in ["isolation", "read_only", "deferrable"] {
                    self.add(format!("default_transaction_{name}").as_bytes());
                }
            }
            b"authorization" if words.is(at + 1, "default") => self.goes_back(b"session_authorization", false),
            b"role" | b"authorization" => self.add_identity(),
            b"schema" => self.add(b"search_path"),
            b"xml" => self.add(b"xmloption"),
            _ => {
                self.others = true;
                self.hidden |= words.kind(at) == Some(Kind::UnicodeWord);
            }
        }
    }

    fn assign(&mut self, name: &[u8], back: bool, local: bool) {
        if back {
            return self.goes_back(name, local);
        }
        self.say(name, local);
        if local {
            self.back.retain(|back| !back.local || !back.name.eq_ignore_ascii_case(name));
        } else {
            self.seeds |= name.eq_ignore_ascii_case(b"seed");
            if IDENTITY.iter().any(|identity| name.eq_ignore_ascii_case(identity)) {
                self.add_identity();
            }
            self.add(name);
        }
    }

    /// First arguments of `set_config`, and whatever a function may give it as a name that is in no list of
    /// the server's.
    fn calls(&mut self, words: Words<'_>) {
        for text in (0..words.len()).filter_map(|at| plain_literal(words, at)).filter(|text| is_made_up(text)) {
            self.add(text);
        }
        for at in 0..words.len() {
            if words.kind(at + 1) == Some(Kind::Open) && words.name(at).is_some_and(|name| *name == *b"set_config") {
                self.set_config(words.from(at + 2));
            }
        }
    }

    /// `arguments` begins with the first argument of a call of `set_config`.
    fn set_config(&mut self, arguments: Words<'_>) {
        if arguments.kind(1) != Some(Kind::Comma) {
            return (self.others, self.hidden) = (true, true);
        }
        if let Some(name) = plain_literal(arguments, 0) {
            let null = arguments.is(2, "null") && arguments.kind(3) == Some(Kind::Comma);
            self.assign(name, null, null && arguments.is(4, "true"));
            // It may turn out to be NULL.
            self.others |= !null && plain_literal(arguments, 2).is_none();
        } else if arguments.kind(0) == Some(Kind::Param)
            && let Some(number) =
                std::str::from_utf8(arguments.bytes(0)).ok().and_then(|text| text.get(1..)?.parse::<u16>().ok())
            && number > 0
        {
            self.parameters.push(number - 1);
        } else {
            (self.others, self.hidden) = (true, true);
        }
    }
}

/// Settings that decide who acts: neither is in the server's list.
const IDENTITY: [&[u8]; 2] = [b"session_authorization", b"role"];

/// Whether a string constant may be SQL, or the beginning of SQL, that sets something.
fn sets(text: &[u8]) -> bool {
    let lower = text.to_ascii_lowercase();
    let begins = lower.iter().position(u8::is_ascii_alphabetic).and_then(|at| lower.get(at..)).unwrap_or_default();
    begins.starts_with(b"set ") || memchr::memmem::find(&lower, b"set_config").is_some()
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
    let Some(mut name) = name_of(words, at) else { return (None, at) };
    let mut at = at + 1;
    while words.kind(at) == Some(Kind::Dot)
        && let Some(part) = name_of(words, at + 1)
    {
        name.push(b'.');
        name.extend_from_slice(&part);
        at += 2;
    }
    (Some(name), at)
}

/// A name, also one in Unicode escapes (`str_udeescape` in src/backend/parser/parser.c), but not one with an escape
/// character of its own.
fn name_of(words: Words<'_>, at: usize) -> Option<Vec<u8>> {
    if words.kind(at) != Some(Kind::UnicodeWord) {
        return words.name(at).map(std::borrow::Cow::into_owned);
    }
    if words.is(at + 1, "uescape") {
        return None;
    }
    let mut rest = std::str::from_utf8(words.bytes(at)).ok()?.get(3..)?.strip_suffix('"')?;
    let mut name = String::new();
    while let Some(first) = rest.chars().next() {
        let (char, len) = match first {
            '"' => ('"', 2),
            '\\' if rest.starts_with("\\\\") => ('\\', 2),
            '\\' => {
                let (from, to) = if rest.starts_with("\\+") { (2, 8) } else { (1, 5) };
                (char::from_u32(u32::from_str_radix(rest.get(from..to)?, 16).ok()?)?, to)
            }
            other => (other, other.len_utf8()),
        };
        name.push(char);
        rest = rest.get(len..)?;
    }
    Some(name.into_bytes())
}

/// A string without prefix, escapes and continuation.
fn plain_literal<'a>(words: Words<'a>, at: usize) -> Option<&'a [u8]> {
    if words.kind(at) == Some(Kind::Text) { plain(words.bytes(at)) } else { None }
}

fn plain(text: &[u8]) -> Option<&[u8]> {
    let inner = text.strip_prefix(b"'")?.strip_suffix(b"'")?;
    inner.iter().all(|byte| !matches!(byte, b'\'' | b'\\')).then_some(inner)
}

#[cfg(test)]
#[path = "settings_tests.rs"]
mod tests;
