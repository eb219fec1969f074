//! Which statements read tables whose reads must show everything, or anything else of which all readers are to be known.
//! Must never miss one: whatever has the name of something that reads such a table counts.

use std::collections::HashSet;

use super::code::{Code, IMPLIED};
use super::code_graph::{Graph, rows};
use super::lex::Kind;
use super::words::{Words, tokens};

/// Names of what reads such tables: themselves, what they are parts of, views, functions, operators.
#[derive(Debug, Default)]
pub(crate) struct Globals {
    names: HashSet<Box<[u8]>>,
    /// Something that no statement names: a cast, a check of a domain.
    implied: bool,
}

impl Globals {
    /// Of the facts in these DataRow bodies.
    pub(crate) fn of(graph: &Graph<'_>, bytes: &[u8], is_global: impl Fn(&[u8], &[u8]) -> bool) -> Self {
        let tables = rows(bytes).filter(|[kind, _, schema, name, _]| *kind == b"r" && is_global(schema, name));
        let tables: Vec<Vec<u8>> = tables.map(|[_, key, ..]| [b"r", key].concat()).collect();
        let mut all = Self::reading(graph, bytes, tables.iter().cloned());
        all.implied |= graph.is_reader(&graph.readers_of(tables.into_iter()), b"k");
        all
    }

    /// The same of what these nodes of the graph stand for, checks of domains apart.
    pub(crate) fn reading(graph: &Graph<'_>, bytes: &[u8], nodes: impl Iterator<Item = Vec<u8>>) -> Self {
        let node = |key: &[u8]| [b"r", key].concat();
        let readers = graph.readers_of(nodes);
        let mut names: HashSet<Box<[u8]>> = HashSet::new();
        for [kind, key, _, name, _] in rows(bytes) {
            let reads = match kind {
                b"r" => graph.is_reader(&readers, &node(key)),
                b"p" | b"o" => graph.is_reader(&readers, key),
                _ => false,
            };
            if reads {
                names.insert(name.into());
            }
        }
        let implied = [&b"a"[..], b"t"].iter().any(|key| graph.is_reader(&readers, key));
        let implied = implied || IMPLIED.iter().any(|operator| names.contains(*operator));
        Self { names, implied }
    }
}

impl Code {
    /// Whether the statement may read a table that `is_global` held for when this was made. Holds for all texts of its shape.
    #[must_use]
    pub fn reads_globals(&self, sql: &[u8], standard_conforming_strings: bool) -> bool {
        self.names(&self.globals, sql, standard_conforming_strings)
    }

    /// Whether the statement may read, call or use one of these.
    pub(super) fn names(&self, of: &Globals, sql: &[u8], standard_conforming_strings: bool) -> bool {
        let Globals { names, implied } = of;
        if names.is_empty() {
            return *implied;
        }
        let all = tokens(sql, standard_conforming_strings);
        let words = Words::new(sql, &all);
        let is_one = |at: usize| match words.kind(at) {
            // Its name may be any.
            Some(Kind::UnicodeWord) => true,
            Some(Kind::Operator) => names.contains(words.bytes(at)),
            _ => words.name(at).is_some_and(|name| names.contains(&*name)),
        };
        *implied || (0..words.len()).any(is_one)
    }
}
