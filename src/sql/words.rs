//! The tokens of a statement with the questions that the classifier asks of them: words, names, calls.
//! Must never recurse, nor answer no where it is not sure.

use std::borrow::Cow;

use crate::sql::functions::{self, Standing};
use crate::sql::lex::{Kind, Lexer, Token, eq_word};
use crate::sql::prepared::cut;
use crate::sql::verdict::Effects;

/// The tokens of one statement, comments left out.
#[derive(Clone, Copy)]
pub(crate) struct Words<'a> {
    sql: &'a [u8],
    tokens: &'a [Token],
}

/// The tokens of a text, comments left out.
pub(crate) fn tokens(sql: &[u8], standard_conforming_strings: bool) -> Vec<Token> {
    Lexer::new(sql, standard_conforming_strings).filter(|t| t.kind != Kind::Comment).collect()
}
impl<'a> Words<'a> {
    pub(crate) fn new(sql: &'a [u8], tokens: &'a [Token]) -> Self {
        Self { sql, tokens }
    }

    /// The non-empty statements of a text: cut at `;` outside parentheses and outside a `BEGIN ATOMIC .. END` body.
    pub(crate) fn statements(self) -> impl Iterator<Item = Words<'a>> {
        let (mut depth, mut body) = (0i64, 0u32);
        let (mut before, mut first, mut creates) = (false, true, false);
        let is_end = move |token: &Token| {
            let word = if token.kind == Kind::Word { token.bytes(self.sql) } else { b"" };
            if std::mem::replace(&mut first, false) {
                // No other statement has such a body; elsewhere these are names.
                creates = eq_word(word, b"create");
            }
            match token.kind {
                Kind::Open => depth += 1,
                Kind::Close => depth -= 1,
                Kind::Word if before && creates && eq_word(word, b"atomic") => body = 1,
                Kind::Word if body > 0 && eq_word(word, b"case") => body += 1,
                Kind::Word if body > 0 && eq_word(word, b"end") => body -= 1,
                _ => {}
            }
            before = eq_word(word, b"begin");
            let ends = token.kind == Kind::Semicolon && depth <= 0 && body == 0;
            first |= ends;
            ends
        };
        self.tokens.split(is_end).filter(|tokens| !tokens.is_empty()).map(move |tokens| Words { sql: self.sql, tokens })
    }

    /// Number of tokens.
    pub(crate) fn len(self) -> usize {
        self.tokens.len()
    }

    pub(crate) fn token(self, at: usize) -> Option<Token> {
        self.tokens.get(at).copied()
    }

    /// Where the last token ends in the text.
    pub(crate) fn end(self) -> usize {
        self.tokens.last().map_or(0, |token| token.end)
    }

    pub(crate) fn kind(self, at: usize) -> Option<Kind> {
        self.tokens.get(at).map(|t| t.kind)
    }

    pub(crate) fn bytes(self, at: usize) -> &'a [u8] {
        self.tokens.get(at).map(|t| t.bytes(self.sql)).unwrap_or_default()
    }

    /// Whether the token at `at` is this unquoted word.
    pub(crate) fn is(self, at: usize, lower: &str) -> bool {
        self.kind(at) == Some(Kind::Word) && eq_word(self.bytes(at), lower.as_bytes())
    }

    pub(crate) fn is_one_of(self, at: usize, lower: &[&str]) -> bool {
        lower.iter().any(|word| self.is(at, word))
    }

    pub(crate) fn has(self, lower: &str) -> bool {
        (0..self.tokens.len()).any(|at| self.is(at, lower))
    }

    pub(crate) fn has_pair(self, one: &str, two: &str) -> bool {
        (0..self.tokens.len()).any(|at| self.is(at, one) && self.is(at + 1, two))
    }

    pub(crate) fn from(self, at: usize) -> Self {
        Self { sql: self.sql, tokens: self.tokens.get(at..).unwrap_or_default() }
    }

    /// Its first tokens, at most so many.
    pub(crate) fn upto(self, tokens: usize) -> Self {
        Self { sql: self.sql, tokens: self.tokens.get(..tokens).unwrap_or(self.tokens) }
    }

    /// The name a token stands for, folded or unquoted, and cut as the server cuts it. ASCII folding, as the server does for multi-byte
    /// encodings.
    pub(crate) fn name(self, at: usize) -> Option<Cow<'a, [u8]>> {
        let bytes = self.bytes(at);
        match self.kind(at)? {
            Kind::Word => Some(Cow::Owned(cut(bytes).to_ascii_lowercase())),
            Kind::QuotedWord => {
                let inner = bytes.strip_prefix(b"\"").and_then(|b| b.strip_suffix(b"\"")).unwrap_or_default();
                let doubled = inner.windows(2).any(|pair| pair == b"\"\"");
                Some(if doubled {
                    Cow::Owned(cut(String::from_utf8_lossy(inner).replace("\"\"", "\"").as_bytes()).to_vec())
                } else {
                    Cow::Borrowed(cut(inner))
                })
            }
            _ => None,
        }
    }

    /// Names directly before an opening parenthesis: every function call, and some things that are none.
    fn opened(self) -> impl Iterator<Item = (usize, Cow<'a, [u8]>)> {
        (0..self.tokens.len())
            .filter(move |&at| self.kind(at + 1) == Some(Kind::Open))
            .filter_map(move |at| Some((at, self.name(at)?)))
    }

    /// The same, and names behind a value ([`super::applied`]).
    fn calls(self) -> impl Iterator<Item = (usize, Cow<'a, [u8]>)> {
        self.opened().chain(self.applied())
    }

    /// Effects of the functions called by name anywhere in the statement, whatever their schema.
    pub(crate) fn call_effects(self) -> Effects {
        self.calls().fold(Effects::NONE, |all, (at, name)| match name.as_ref() {
            b"set_config" if self.third_argument_is_true(at + 1) => all | Effects::SET_LOCAL,
            b"set_config" => all | Effects::SET_CONFIG,
            name => all | functions::effects(name),
        })
    }

    /// Whether `current_setting` is called.
    pub(crate) fn asks_for_settings(self) -> bool {
        self.calls().any(|(_, name)| *name == *b"current_setting")
    }

    /// Whether that may be for a setting which is not the session's own: a standby has its own `transaction_read_only`, `port` or
    /// `primary_conninfo`.
    pub(crate) fn asks_for_node_settings(self) -> bool {
        let is_own = |at: usize| {
            let text = self.bytes(at).strip_prefix(b"'").and_then(|text| text.strip_suffix(b"'"));
            let name = text.filter(|_| self.kind(at) == Some(Kind::Text)).unwrap_or_default();
            // What is put together of such a name may be any, unless it has a dot.
            let is_whole = matches!(self.kind(at + 1), Some(Kind::Comma | Kind::Close)) || self.bytes(at + 1) == b"::";
            is_session_setting(name) && (is_whole || name.contains(&b'.'))
        };
        self.calls().any(|(at, name)| *name == *b"current_setting" && !is_own(at + 2))
    }

    /// Whether the body of a function may show such a setting: behind a word at which a statement of PL/pgSQL can begin, or a query.
    pub(crate) fn shows_node_settings(self) -> bool {
        let begins = |at: usize| {
            at == 0
                || self.kind(at - 1) == Some(Kind::Semicolon)
                || self.is_one_of(at - 1, &["begin", "else", "for", "in", "loop", "query", "then"])
        };
        let is_own = |at: usize| {
            self.kind(at + 1) == Some(Kind::Dot) || self.name(at).is_none_or(|name| is_session_setting(&name))
        };
        (0..self.tokens.len()).any(|at| self.is(at, "show") && begins(at) && !is_own(at + 1))
    }

    /// Whether the argument list that opens at `open` has the word `true`, and only it, in third place.
    fn third_argument_is_true(self, open: usize) -> bool {
        let (mut depth, mut commas) = (0u32, 0u32);
        for at in open..self.tokens.len().min(open + ARGUMENT_TOKENS) {
            match self.kind(at) {
                Some(Kind::Open) => depth += 1,
                Some(Kind::Close) => depth = depth.saturating_sub(1),
                Some(Kind::Comma) if depth == 1 => commas += 1,
                _ => {}
            }
            if depth == 0 {
                return false;
            }
            if commas == 2 {
                return self.is(at + 1, "true") && self.kind(at + 2) == Some(Kind::Close);
            }
        }
        false
    }

    /// Whether something that looks like a call names no built-in function. Only where the grammar's summary does not look; may say yes to a type,
    /// an alias or a keyword with parentheses.
    pub(crate) fn may_call_unknown(self) -> bool {
        self.unknown_calls().next().is_some() || self.applies_unknown()
    }

    /// The names of such calls.
    pub(crate) fn unknown_calls(self) -> impl Iterator<Item = Vec<u8>> {
        let is_unknown = move |(at, name): &(usize, Cow<'a, [u8]>)| {
            let schema = if *at >= 2 && self.kind(at - 1) == Some(Kind::Dot) { self.name(at - 2) } else { None };
            let foreign = schema.is_some_and(|s| s.as_ref() != b"pg_catalog");
            let name = std::str::from_utf8(name).unwrap_or_default();
            foreign
                || (functions::standing(name) == Standing::Unknown
                    && !BEFORE_PARENTHESIS.split_ascii_whitespace().any(|word| word == name))
        };
        self.opened().filter(is_unknown).map(|(_, name)| name.into_owned())
    }

    /// The part after RETURNING: the grammar's summary does not walk into it.
    pub(crate) fn returning(self) -> Option<Self> {
        (0..self.tokens.len()).find(|&at| self.is(at, "returning")).map(|at| self.from(at + 1))
    }

    /// Whether an operator is spelled with a schema other than `pg_catalog`, as in `OPERATOR(app.+)`.
    pub(crate) fn names_foreign_operator(self) -> bool {
        (0..self.tokens.len()).any(|at| {
            self.is(at, "operator")
                && self.kind(at + 1) == Some(Kind::Open)
                && self.kind(at + 3) == Some(Kind::Dot)
                && !self.is(at + 2, "pg_catalog")
        })
    }

    /// Whether a name is a column that only sequences have (`last_value` is also a window function).
    pub(crate) fn names_sequence_column(self) -> bool {
        (0..self.tokens.len()).any(|at| {
            self.kind(at + 1) != Some(Kind::Open)
                && self.name(at).is_some_and(|n| matches!(n.as_ref(), b"last_value" | b"is_called" | b"log_cnt"))
        })
    }

    /// Whether a name is not UTF-8: its neighbours may be parts of its characters, and so is a byte that starts no token.
    pub(crate) fn names_are_unclear(self) -> bool {
        self.tokens.iter().any(|t| match t.kind {
            Kind::Word | Kind::QuotedWord | Kind::UnicodeWord => std::str::from_utf8(t.bytes(self.sql)).is_err(),
            _ => false,
        })
    }
}

/// So many tokens of a `set_config` call are looked at: nested calls must not cost quadratic time.
const ARGUMENT_TOKENS: usize = 256;

/// Whether a setting is the session's own, or one that an application or an extension has made up: those have a dot.
pub(crate) fn is_session_setting(name: &[u8]) -> bool {
    name.contains(&b'.') || SESSION_SETTINGS.split_ascii_whitespace().any(|known| eq_word(name, known.as_bytes()))
}

/// Settings that sessions have of their own, and that go with them from server to server, or say what is the same on all.
const SESSION_SETTINGS: &str = "
    application_name bytea_output client_encoding client_min_messages datestyle default_text_search_config
    extra_float_digits idle_in_transaction_session_timeout integer_datetimes intervalstyle is_superuser lock_timeout
    role row_security search_path server_encoding server_version server_version_num session_authorization
    standard_conforming_strings statement_timeout timezone work_mem xmlbinary xmloption";

/// Words that stand before a parenthesis without being a call.
const BEFORE_PARENTHESIS: &str = "
    all and any array as between bit by case cast char character coalesce cube dec decimal
    distinct else except exists filter float for from greatest group grouping having ilike in
    intersect interval is join lateral least like limit materialized nchar not nullif numeric
    offset on or over recursive returning rollup row select sets some then time timestamp
    treat trim union using values varchar varying when where with within";
