//! What the body of a function may do to the session that calls it: read with the lexer, never run.
//! Must never miss a construct in SQL or PL/pgSQL where PostgreSQL would run one, unless it says that it cannot see.
//!
//! A body is cut where a statement can begin: at a `;`, and in PL/pgSQL behind BEGIN, THEN, ELSE, LOOP and labels. What
//! begins there is read as a statement of a client's would be. SQL that is put together as the code runs cannot be
//! seen, and neither can what other languages do through SPI.

use std::borrow::Cow;

use super::defines::defines;
use super::lex::Kind;
use super::settings::Named;
use super::verdict::Effects;
use super::words::{Words, tokens};

/// What code may do to a session.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Touch {
    /// Effects; [`Effects::UNKNOWN_FUNCTION`] if there may be others.
    pub effects: Effects,
    /// Settings that it names, each once, in lower case.
    pub names: Vec<Box<[u8]>>,
    /// There may be others that the server lists.
    pub others: bool,
    /// There may be others of which only the application knows the names.
    pub hidden: bool,
}

impl Touch {
    /// Of code that nobody can see into.
    pub const UNSEEN: Self =
        Self { effects: Effects::UNKNOWN_FUNCTION, names: Vec::new(), others: false, hidden: false };

    /// Nothing at all.
    #[must_use]
    pub fn is_none(&self) -> bool {
        self.effects.is_empty()
    }

    /// Adds what other code does. True if that was not all there before.
    pub fn merge(&mut self, other: &Self) -> bool {
        let grows = !self.effects.has(other.effects)
            || (other.others && !self.others)
            || (other.hidden && !self.hidden)
            || other.names.iter().any(|name| !self.names.contains(name));
        if grows {
            self.effects |= other.effects;
            self.others |= other.others;
            self.hidden |= other.hidden;
            let new = other.names.iter().filter(|name| !self.names.contains(name)).cloned();
            let new: Vec<_> = new.collect();
            self.names.extend(new);
        }
        grows
    }

    /// Whether both do the same.
    #[must_use]
    pub fn is_as(&self, other: &Self) -> bool {
        !self.clone().merge(other) && !other.clone().merge(self)
    }

    fn add(&mut self, named: Named) {
        // What goes back goes to the server's default, not to the client's: it is asked for with all the rest.
        self.others |= named.others || named.all_back || !named.back.is_empty() || !named.parameters.is_empty();
        self.hidden |= named.hidden || !named.parameters.is_empty();
        if named.seeds {
            self.effects |= Effects::SETSEED;
        }
        self.merge(&Self { names: named.names, ..Self::default() });
    }
}

/// Languages whose bodies differ in what can be read of them.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Language {
    /// SQL as text (a body of BEGIN ATOMIC has no text: its parse tree says what it depends on).
    Sql,
    /// PL/pgSQL.
    PlPgSql,
    /// Any other that has a text.
    Other,
}

/// Effects that last beyond the call.
const KEPT: Effects = Effects::SET_SESSION
    .union(Effects::SET_LOCAL)
    .union(Effects::RESET)
    .union(Effects::SET_CONFIG)
    .union(Effects::LISTEN)
    .union(Effects::UNLISTEN)
    .union(Effects::NOTIFY)
    .union(Effects::LISTENING)
    .union(Effects::DISCARD)
    .union(Effects::TEMP)
    .union(Effects::HOLD_CURSOR)
    .union(Effects::CLOSE_CURSOR)
    .union(Effects::ADVISORY_LOCK)
    .union(Effects::ADVISORY_UNLOCK)
    .union(Effects::LOAD)
    .union(Effects::SETSEED)
    .union(Effects::SEQUENCE_STATE)
    .union(Effects::SEQUENCE_READ)
    .union(Effects::DDL)
    .union(Effects::DROP)
    .union(Effects::UNKNOWN_FUNCTION);

/// Effects of what is not seen from here: prepared statements made by SQL, code given as text.
const UNSEEN: Effects = Effects::OPAQUE.union(Effects::PREPARE).union(Effects::EXECUTE).union(Effects::DEALLOCATE);

/// Tokens of a statement inside of another (behind THEN and the like) that are looked at: without a bound a body of
/// nothing but THEN would cost quadratic time.
const NESTED_TOKENS: usize = 256;

/// EXECUTE of a literal with an EXECUTE of a literal in it, and so on, at most.
const DEPTH: usize = 4;

/// What makes code in other languages able to run SQL: PL/Perl, PL/Tcl, PL/Python, PL/v8, PL/R, PL/Lua, PL/Java.
const SPI: [&[u8]; 9] =
    [b"spi_", b"spi.", b"plpy", b"gd[", b"plv8", b"pg.", b"server.execute", b"prepare", b"jdbc:default"];

/// What such code keeps from one call to the next, by itself or with others, until its server ends.
const KEEPS: [&[u8]; 8] = [b"_shared", b"gd[", b"sd[", b"gd(", b"global", b"our $", b"main::", b"plv8."];

/// What is told of as a body is read.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Found<'a> {
    /// An identifier, folded, or an operator: whatever the body calls or uses is among these.
    Name(&'a [u8]),
    /// It asks for a setting that may be another on every server.
    NodeSetting,
}

/// What a body does, and to `tell` what else is found in it. Nothing is told of other languages than SQL and PL/pgSQL.
pub fn read(body: &[u8], language: Language, tell: &mut dyn FnMut(Found<'_>)) -> Touch {
    let mut touch = Touch::default();
    match language {
        Language::Other => {
            let lower = body.to_ascii_lowercase();
            if SPI.iter().any(|marker| memchr::memmem::find(&lower, marker).is_some()) {
                touch = Touch::UNSEEN;
                touch.hidden = memchr::memmem::find(&lower, b"set_config").is_some();
            }
            if KEEPS.iter().any(|marker| memchr::memmem::find(&lower, marker).is_some()) {
                touch.effects |= Effects::LOAD;
            }
        }
        Language::Sql | Language::PlPgSql => {
            let procedural = language == Language::PlPgSql;
            read_sql(body, (procedural, true), 0, tell, &mut touch);
            // It may be called under either value of standard_conforming_strings, which decides where its strings end.
            if body.contains(&b'\\') {
                read_sql(body, (procedural, false), 0, tell, &mut touch);
            }
        }
    }
    touch
}

/// `how`: whether it is PL/pgSQL, and whether strings are read by the standard.
fn read_sql(body: &[u8], how: (bool, bool), depth: usize, tell: &mut dyn FnMut(Found<'_>), touch: &mut Touch) {
    let (procedural, conforming) = how;
    let all = tokens(body, conforming);
    let words = Words::new(body, &all);
    for at in 0..words.len() {
        match words.kind(at) {
            Some(Kind::Word | Kind::QuotedWord) => {
                if let Some(word) = words.name(at) {
                    tell(Found::Name(&word));
                }
            }
            Some(Kind::Operator) => tell(Found::Name(words.bytes(at))),
            // Its name may be any.
            Some(Kind::UnicodeWord) => touch.effects |= Effects::UNKNOWN_FUNCTION,
            _ => {}
        }
    }
    if words.asks_for_node_settings() || words.shows_node_settings() {
        tell(Found::NodeSetting);
    }
    let mut named = Named::default();
    for statement in words.statements() {
        let mut effects = statement.call_effects();
        named.read_one(statement, conforming);
        for at in (0..statement.len()).filter(|&at| at == 0 || (procedural && begins(statement, at))) {
            let part = if at == 0 { statement } else { statement.from(at).upto(NESTED_TOKENS) };
            effects |= part_effects(part, procedural);
            if at > 0 && part.is_one_of(0, &["set", "reset", "discard"]) {
                named.read_one(part, conforming);
            }
        }
        if procedural {
            effects |= dynamic(statement, conforming, depth, tell, touch);
        }
        if effects.any(UNSEEN) {
            effects |= Effects::UNKNOWN_FUNCTION;
        }
        touch.effects |= effects.intersection(KEPT);
    }
    // SQL that sets, put together as the code runs.
    if touch.effects.any(Effects::UNKNOWN_FUNCTION) {
        let mut code = Named::default();
        code.code(body, conforming);
        named.hidden |= code.hidden;
        for name in code.names {
            named.add(&name);
        }
    }
    touch.add(named);
}

/// Whether a statement of PL/pgSQL may begin here inside of what ends at the next `;`.
fn begins(words: Words<'_>, at: usize) -> bool {
    words.is_one_of(at - 1, &["begin", "then", "else", "loop", "declare"]) || words.bytes(at - 1) == b">>"
}

fn part_effects(part: Words<'_>, procedural: bool) -> Effects {
    // What is called is among the names.
    if part.is(0, "call") {
        return Effects::NONE;
    }
    // In PL/pgSQL these are other things: EXECUTE see below, PREPARE is SQL's.
    if procedural && part.is_one_of(0, &["execute", "declare", "begin", "end"]) {
        return Effects::NONE;
    }
    let effects = part.read().effects;
    // It is gone when the transaction ends.
    if effects.has(Effects::TEMP.union(Effects::TEMP_ON_COMMIT_DROP)) {
        return Effects::NONE;
    }
    // With a search_path of its own, or its caller's, what is made may be temporary.
    // (INTO of PL/pgSQL is another.)
    let makes = effects.any(Effects::DDL) && (part.is(0, "create") || (!procedural && !part.is_one_of(0, &OTHER_DDL)));
    let effects = if makes { effects | Effects::TEMP } else { effects };
    // Of what changes the schema only code matters.
    if defines(part) { effects } else { effects.without(Effects::DDL) }
}

/// Statements that change the schema and make nothing that could be temporary.
const OTHER_DDL: [&str; 8] = ["alter", "drop", "comment", "grant", "revoke", "security", "reassign", "import"];

/// EXECUTE of PL/pgSQL: a plain literal is read, anything else cannot be.
fn dynamic(
    words: Words<'_>,
    conforming: bool,
    depth: usize,
    tell: &mut dyn FnMut(Found<'_>),
    touch: &mut Touch,
) -> Effects {
    let mut effects = Effects::NONE;
    for at in (0..words.len()).filter(|&at| words.is(at, "execute")) {
        // EXECUTE FUNCTION of a trigger, GRANT EXECUTE ON.
        if words.is_one_of(at + 1, &["function", "procedure", "on"]) {
            continue;
        }
        let ends = at + 2 >= words.len() || words.is_one_of(at + 2, &["into", "using", "loop"]);
        match literal(words, at + 1).filter(|_| ends && depth < DEPTH) {
            Some(sql) => read_sql(&sql, (false, conforming), depth + 1, tell, touch),
            None => effects |= Effects::UNKNOWN_FUNCTION,
        }
    }
    effects
}

/// The text of a string constant without escapes.
fn literal<'a>(words: Words<'a>, at: usize) -> Option<Cow<'a, [u8]>> {
    if words.kind(at) != Some(Kind::Text) {
        return None;
    }
    let text = words.bytes(at);
    if let Some(rest) = text.strip_prefix(b"$") {
        let tag = rest.iter().position(|byte| *byte == b'$')? + 2;
        return text.get(tag..text.len().checked_sub(tag)?).map(Cow::Borrowed);
    }
    let inner = text.strip_prefix(b"'")?.strip_suffix(b"'")?;
    if inner.contains(&b'\\') {
        return None;
    }
    let mut quotes = 0;
    let once = |byte: &u8| {
        quotes += usize::from(*byte == b'\'');
        *byte != b'\'' || quotes % 2 == 1
    };
    Some(Cow::Owned(inner.iter().copied().filter(once).collect()))
}

#[cfg(test)]
#[path = "bodies_tests.rs"]
mod tests;
