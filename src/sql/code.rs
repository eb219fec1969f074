//! The code that a database has, and what a statement that names some of it may do to its session.
//! Must never call a name harmless that also names something which is not: all of a name count, in any schema.
//!
//! Made from what `relay/catalog.sql` reads, by way of a graph (`super::code_graph`).

use std::collections::{HashMap, HashSet};

use super::applied::Applied;
use super::bodies::{self, Language, Touch};
use super::classify::unknown_calls;
use super::code_graph::{Graph, rows};
use super::defines::defines;
use super::footing::{self, Footing};
use super::functions::{self, Standing};
use super::globals::Globals;
use super::kept;
use super::lex::Kind;
use super::sources::Sources;
use super::verdict::Effects;
use super::words::{Words, tokens};
use super::writes::Writes;

/// Most bytes of source that are read of one database; one with more is not looked into.
pub const SOURCE_BYTES: usize = 16 * 1024 * 1024;

/// Most names that [`Code::settings`] gives.
const SETTINGS: usize = 256;

/// When the planner may leave a call out or repeat it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Volatility {
    /// Always the same result.
    Immutable,
    /// The same result within a statement.
    Stable,
    /// Anything.
    Volatile,
}

/// A function, procedure or aggregate.
#[derive(Clone, Debug)]
pub struct Function {
    /// Its schema.
    pub schema: Box<[u8]>,
    /// As declared.
    pub volatility: Volatility,
    /// `pg_proc.prokind`: `f` function, `p` procedure, `a` aggregate, `w` window function.
    pub kind: u8,
    /// What it may do to the session, with all that it calls.
    pub touch: Touch,
    /// How far a read that calls it may leave the primary.
    pub footing: Footing,
    /// It can be called as if it were a column: `t.f` for `f(t)`.
    pub is_attribute: bool,
}

/// What the things of one name may do, if anything.
#[derive(Clone, Debug, Default)]
struct Entry {
    /// Functions.
    call: Touch,
    /// One of them can be called as if it were a column: `t.f` for `f(t)`.
    is_attribute: bool,
    /// A relation that is read, an operator.
    read: Touch,
    /// A relation that is written to.
    write: Touch,
    /// One that is emptied, with all that refers to it.
    cascade: Touch,
}

/// Schema and footing of the relations of a name.
type Places = Vec<(Box<[u8]>, Footing)>;

/// The code of one database.
#[derive(Debug, Default)]
pub struct Code {
    /// Differs when anything that this was made from has changed.
    pub fingerprint: Box<[u8]>,
    /// Its source is longer than [`SOURCE_BYTES`]: nothing is known.
    pub is_too_large: bool,
    functions: HashMap<Box<[u8]>, Vec<Function>>,
    names: HashMap<Box<[u8]>, Entry>,
    /// Domains: who names one may have its checks run.
    pub(super) domains: HashSet<Box<[u8]>>,
    /// Casts, the support of indexes, checks of domains, operators behind words: no statement names them.
    always: Touch,
    /// All there is: what VACUUM and the like come across.
    everything: Touch,
    /// Event triggers.
    on_ddl: Touch,
    watches: bool,
    settings: Vec<Box<[u8]>>,
    /// Schema and footing of all relations by name: of those who read them.
    pub(super) relations: HashMap<Box<[u8]>, Places>,
    /// Footing of all operators that are not built in.
    pub(super) operators: HashMap<Box<[u8]>, Footing>,
    /// Footing of what no statement names.
    pub(super) implied: Footing,
    pub(super) globals: Globals,
    /// What has answers that must not be kept.
    pub(super) unkept: Globals,
    /// What is read by what.
    pub(super) sources: Sources,
    /// What is written to by what.
    pub(super) writes: Writes,
}

/// What a statement may do to its session.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Resolved {
    /// The statement's own effects, and those of the code it runs.
    pub touch: Touch,
    /// It calls a function that the catalog does not have: one made since, perhaps.
    pub unheard: bool,
    /// Other code may be there after it.
    pub defines: bool,
}

/// Statements that write to what they name, or compute what is stored with it.
pub(crate) const WRITING: [&str; 10] =
    ["insert", "update", "delete", "merge", "copy", "truncate", "alter", "create", "refresh", "reindex"];

/// Statements that compute what is stored with relations, also those that they do not name.
const SWEEPING: [&str; 6] = ["vacuum", "analyze", "analyse", "cluster", "reindex", "refresh"];

/// Operators that words of the grammar stand for (`a_expr` in src/backend/parser/gram.y): IN, BETWEEN, LIKE, NULLIF,
/// CASE, USING, DISTINCT.
pub(crate) const IMPLIED: [&[u8]; 12] =
    [b"=", b"<>", b"<", b">", b"<=", b">=", b"~", b"~~", b"!~~", b"~~*", b"!~~*", b"!~"];

impl Code {
    /// From the DataRow bodies that `relay/catalog.sql` gave; who reads the tables for which `is_global` holds, by schema
    /// and name, is found too. Takes long for much code: not for the data path.
    #[must_use]
    pub fn new(bytes: &[u8], is_global: impl Fn(&[u8], &[u8]) -> bool) -> Self {
        let mut code = Self::default();
        let Some(graph) = Graph::of(bytes, &mut code) else {
            code.watches = code.is_too_large;
            return code;
        };
        code.take(&graph, bytes);
        code.globals = Globals::of(&graph, bytes, is_global);
        code.unkept = Globals::reading(&graph, bytes, kept::unkept(bytes));
        code.sources = Sources::of(&graph, bytes);
        code.writes = Writes::of(&graph, bytes);
        code
    }

    fn take(&mut self, graph: &Graph<'_>, bytes: &[u8]) {
        (self.always, self.on_ddl) = (graph.named(b"a"), graph.named(b"d"));
        self.always.merge(&graph.named(b"k"));
        self.domains = rows(bytes).filter(|row| row[0] == b"n").map(|row| row[1].into()).collect();
        for &node in IMPLIED.iter().filter_map(|name| graph.others.get(name)).flatten() {
            self.always.merge(&graph.touch_of(node));
        }
        if std::mem::take(&mut self.always.hidden) {
            // What may set what nobody can name keeps its client's server; nobody could keep up with that at each
            // statement. It reaches nobody all the same.
            self.always.effects |= Effects::UNKNOWN_FUNCTION;
        }
        for touch in &graph.touches {
            self.everything.merge(touch);
        }
        let named = graph.touches.iter().flat_map(|touch| &touch.names);
        self.settings = named.filter(|name| name.contains(&b'.')).cloned().collect();
        self.settings.sort_unstable();
        self.settings.dedup();
        self.settings.truncate(SETTINGS);
        self.watches = !self.always.is_none() || !self.on_ddl.is_none();
        for [_, key, schema, name, flags] in rows(bytes).filter(|row| row[0] == b"p") {
            let touch = graph.named(key);
            if !touch.is_none() {
                let entry = self.names.entry(name.into()).or_default();
                entry.call.merge(&touch);
                entry.is_attribute |= flags.get(3) == Some(&b'a');
                let known = std::str::from_utf8(name).map_or(Standing::Unknown, functions::standing);
                // Without the word of the classifier that it calls what is not built in.
                self.watches |= entry.is_attribute || known != Standing::Unknown;
            }
            let volatility = match flags.get(1) {
                Some(b'i') => Volatility::Immutable,
                Some(b's') => Volatility::Stable,
                _ => Volatility::Volatile,
            };
            let kind = flags.first().copied().unwrap_or(b'f');
            let (footing, is_attribute) = (graph.footing_named(key), flags.get(3) == Some(&b'a'));
            let function = Function { schema: schema.into(), volatility, kind, touch, footing, is_attribute };
            self.functions.entry(name.into()).or_default().push(function);
        }
        self.stand(graph, bytes);
        for (name, nodes) in &graph.others {
            self.note(name, nodes.iter().map(|&node| [graph.touch_of(node), Touch::default(), Touch::default()]));
        }
        for (name, nodes) in &graph.relations {
            self.note(name, nodes.iter().map(|nodes| nodes.map(|node| graph.touch_of(node))));
        }
    }

    /// How far reads of what there is may leave the primary.
    fn stand(&mut self, graph: &Graph<'_>, bytes: &[u8]) {
        self.implied = graph.footing_named(b"a").and(graph.footing_named(b"t")).implied();
        // That a check of a domain hangs on the time, or on chance, is for who converts to it.
        let checks = graph.footing_named(b"k").implied();
        if !checks.is_read() {
            self.implied.merge(checks);
        }
        for &node in IMPLIED.iter().filter_map(|name| graph.others.get(name)).flatten() {
            self.implied.merge(graph.footing_of(node).implied());
        }
        for (name, nodes) in &graph.others {
            let all = nodes.iter().map(|&node| graph.footing_of(node));
            self.operators.insert((*name).into(), all.fold(Footing::Safe, Footing::and));
        }
        for [_, key, schema, name, flags] in rows(bytes).filter(|row| row[0] == b"r") {
            let footing = footing::stored(flags).and(graph.footing_named(&[b"r", key].concat()));
            self.relations.entry(name.into()).or_default().push((schema.into(), footing));
        }
    }

    fn note(&mut self, name: &[u8], touches: impl Iterator<Item = [Touch; 3]>) {
        for [read, write, cascade] in touches.filter(|all| !all.iter().all(Touch::is_none)) {
            let entry = self.names.entry(name.into()).or_default();
            entry.read.merge(&read);
            entry.write.merge(&write);
            entry.cascade.merge(&cascade);
            self.watches = true;
        }
    }

    /// Whether every statement does to its session what it does with this other code.
    #[must_use]
    pub fn does_as(&self, other: &Self) -> bool {
        let alike = |one: &Entry, two: &Entry| {
            one.call.is_as(&two.call)
                && one.read.is_as(&two.read)
                && one.write.is_as(&two.write)
                && one.cascade.is_as(&two.cascade)
                && one.is_attribute == two.is_attribute
        };
        self.is_too_large == other.is_too_large
            && self.always.is_as(&other.always)
            && self.on_ddl.is_as(&other.on_ddl)
            && self.names.len() == other.names.len()
            && self.names.iter().all(|(name, one)| other.names.get(name).is_some_and(|two| alike(one, two)))
    }

    /// Whether the fingerprint in these DataRow bodies is that of this code.
    #[must_use]
    pub fn is_as(&self, bytes: &[u8]) -> bool {
        rows(bytes).any(|row| matches!(row, [b"f", fingerprint, ..] if *fingerprint == *self.fingerprint))
    }

    /// What DataRow bodies say of the schema, if they do.
    #[must_use]
    pub fn schema_in(bytes: &[u8]) -> Option<&[u8]> {
        rows(bytes).find_map(|row| match row {
            [b"schema", text, ..] => Some(text),
            _ => None,
        })
    }

    /// Whether a statement of which the classifier knows everything may run code nevertheless: by a trigger, a view, a
    /// default, an operator.
    #[must_use]
    pub fn watches(&self) -> bool {
        self.watches
    }

    /// Settings that applications have made up and that some code names, at most `SETTINGS`: for what cannot be told.
    #[must_use]
    pub fn settings(&self) -> &[Box<[u8]>] {
        &self.settings
    }

    /// All functions of a name, folded, whatever their schema.
    #[must_use]
    pub fn functions(&self, name: &[u8]) -> &[Function] {
        self.functions.get(name).map_or(&[], Vec::as_slice)
    }

    /// What a statement may do whose own effects are these. Holds for all texts of its shape.
    #[must_use]
    pub fn resolve(&self, sql: &[u8], standard_conforming_strings: bool, effects: Effects) -> Resolved {
        let all = tokens(sql, standard_conforming_strings);
        let words = Words::new(sql, &all);
        let is_call = words.is(0, "call") && words.statements().count() == 1;
        let mut own = effects.without(Effects::UNKNOWN_FUNCTION);
        if is_call {
            own = own.without(Effects::OPAQUE);
        }
        let mut resolved = Resolved { touch: Touch { effects: own, ..Touch::default() }, ..Resolved::default() };
        let touch = &mut resolved.touch;
        let writes = WRITING.iter().any(|word| words.has(word));
        let (cascades, applied) = (truncates_all(words), Applied::of(words));
        for at in 0..words.len() {
            let entry = match words.kind(at) {
                // Its name may be any.
                Some(Kind::UnicodeWord) => {
                    touch.effects |= Effects::UNKNOWN_FUNCTION;
                    continue;
                }
                Some(Kind::Operator) => self.names.get(words.bytes(at)),
                _ => words.name(at).and_then(|name| self.names.get(&*name)),
            };
            let Some(entry) = entry else { continue };
            touch.merge(&entry.read);
            if writes {
                touch.merge(&entry.write);
            }
            if cascades {
                touch.merge(&entry.cascade);
            }
            if entry.is_attribute || words.kind(at + 1) == Some(Kind::Open) || applied.has(at) {
                touch.merge(&entry.call);
            }
        }
        touch.merge(&self.always);
        let sweeps = words.statements().any(|statement| statement.is_one_of(0, &SWEEPING));
        if effects.any(Effects::DDL) || sweeps {
            touch.merge(&self.on_ddl);
        }
        if sweeps {
            touch.merge(&self.everything);
        }
        if self.is_too_large {
            touch.effects |= Effects::UNKNOWN_FUNCTION;
        }
        if effects.any(Effects::UNKNOWN_FUNCTION) || is_call {
            let known = |name: &Vec<u8>| self.functions.contains_key(&name[..]);
            let heard = unknown_calls(sql, standard_conforming_strings).is_some_and(|calls| calls.iter().all(known));
            if !heard {
                touch.effects |= effects.intersection(Effects::OPAQUE) | Effects::UNKNOWN_FUNCTION;
                resolved.unheard = true;
            }
        }
        resolved.defines = (effects.any(Effects::DDL) && words.statements().any(defines))
            || resolved.touch.effects.without(effects).any(Effects::DDL);
        resolved
    }
}

/// Whether one of the statements empties what it names with all that refers to it, whatever foreign keys say of DELETE.
pub(crate) fn truncates_all(words: Words<'_>) -> bool {
    words.has("truncate") && words.has("cascade")
}

/// Settings that code in the literals of a text names: what a function that is being made will set.
#[must_use]
pub fn names_in(sql: &[u8], standard_conforming_strings: bool) -> Vec<Box<[u8]>> {
    let mut touch = Touch::default();
    for token in tokens(sql, standard_conforming_strings).iter().filter(|token| token.kind == Kind::Text) {
        // The quotes, or the tag of a dollar quote, do no harm, but inside of the quotes they are doubled.
        let text = token.bytes(sql);
        let text = text.strip_prefix(b"'").and_then(|text| text.strip_suffix(b"'")).unwrap_or(text);
        let inner = match text.iter().skip(1).position(|byte| *byte == b'$').filter(|_| text.starts_with(b"$")) {
            Some(tag) => text.get(tag + 2..text.len().saturating_sub(tag + 2)).unwrap_or_default().to_vec(),
            None => String::from_utf8_lossy(text).replace("''", "'").into_bytes(),
        };
        touch.merge(&bodies::read(&inner, Language::PlPgSql, &mut |_| {}));
    }
    touch.names
}

/// Catalogs written by hand.
#[cfg(test)]
impl Code {
    /// Facts as `relay/catalog.sql` gives them, as DataRow bodies.
    pub(super) fn facts(rows: &[&[&str]]) -> Vec<u8> {
        let mut out = Vec::new();
        for row in rows {
            out.extend_from_slice(&5u16.to_be_bytes());
            for at in 0..5 {
                let value = row.get(at);
                out.extend_from_slice(&value.map_or(-1, |value| value.len() as i32).to_be_bytes());
                out.extend_from_slice(value.map_or(&[], |value| value.as_bytes()));
            }
        }
        out
    }

    /// What these say, of a catalog that was read.
    pub(super) fn of_rows(rows: &[&[&str]]) -> Self {
        let read: [&[&str]; 2] = [&["f", "1"], &["z", "100"]];
        Self::new(&Self::facts(&[&read, rows].concat()), |_, _| false)
    }
}

#[cfg(test)]
#[path = "code_tests.rs"]
mod tests;
