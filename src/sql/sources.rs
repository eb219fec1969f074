//! Relations whose rows the answer of a statement may hang on.
//! Must never miss one: whatever has the name of something that reads a relation counts, in any schema.
//!
//! Beside those that a statement names, that is what its views and functions read, the partitions and children of its tables, whose
//! changes are told as theirs, and what casts, operators and domains read that nobody names.

use std::collections::{BTreeSet, HashMap};

use super::code::{Code, IMPLIED};
use super::code_graph::{Graph, rows};
use super::lex::Kind;
use super::words::{Words, tokens};

/// Most relations that an answer may hang on: each is looked at whenever it is given.
pub const MOST: usize = 256;

/// What something reads: OIDs in ascending order; `None`: too many.
type Reads = Option<Box<[u32]>>;

/// A relation.
#[derive(Debug)]
struct Place {
    schema: Box<[u8]>,
    name: Box<[u8]>,
    /// The tables that it is a part or child of.
    parents: Box<[u32]>,
}

/// By name: of relations, functions and operators.
#[derive(Debug)]
pub(crate) struct Sources {
    names: HashMap<Box<[u8]>, Reads>,
    /// All relations by OID.
    places: HashMap<u32, Place>,
    /// Of what no statement names.
    implied: Reads,
}

impl Default for Sources {
    fn default() -> Self {
        Self { names: HashMap::new(), places: HashMap::new(), implied: Some(Box::default()) }
    }
}

fn both(one: Reads, two: &Reads) -> Reads {
    let (one, two) = (one?, two.as_ref()?);
    let mut all: Vec<u32> = one.iter().chain(two).copied().collect();
    all.sort_unstable();
    all.dedup();
    (all.len() <= MOST).then(|| all.into())
}

/// All relations. Who reads a table reads its parts and children, so that is found among what tables read.
fn places(bytes: &[u8], oid: impl Fn(&[u8]) -> Option<u32>) -> HashMap<u32, Place> {
    let mut parents: HashMap<u32, Vec<u32>> = HashMap::new();
    let mut tables = BTreeSet::new();
    for [kind, key, _, _, flags] in rows(bytes) {
        if kind == b"r" && matches!(flags.first(), Some(b'r' | b'p' | b'f')) {
            tables.extend(oid(key));
        }
    }
    for [kind, from, to, ..] in rows(bytes) {
        let read = |key: &[u8]| key.strip_prefix(b"r").and_then(&oid);
        if kind == b"e"
            && let (Some(parent), Some(child)) = (read(from), read(to))
            && tables.contains(&parent)
        {
            parents.entry(child).or_default().push(parent);
        }
    }
    let relations = rows(bytes).filter(|[kind, ..]| *kind == b"r");
    let place = |[_, key, schema, name, _]: [&[u8]; 5]| {
        let number = oid(key)?;
        let parents = parents.get(&number).map(|all| all.clone().into()).unwrap_or_default();
        Some((number, Place { schema: schema.into(), name: name.into(), parents }))
    };
    relations.filter_map(place).collect()
}

impl Sources {
    /// Of the facts in these DataRow bodies.
    pub(crate) fn of(graph: &Graph<'_>, bytes: &[u8]) -> Self {
        let oid = |key: &[u8]| std::str::from_utf8(key).ok().and_then(|oid| oid.parse::<u32>().ok());
        let relations = rows(bytes).filter(|row| row[0] == b"r");
        let relations = relations.filter_map(|[_, key, ..]| Some((graph.number(&[b"r", key].concat())?, oid(key)?)));
        let relations: HashMap<usize, u32> = relations.collect();
        let onward = graph.onward();
        let reads = |key: &[u8]| {
            let mut found: Vec<u32> = Vec::new();
            let mut seen: HashMap<usize, ()> = HashMap::new();
            let mut due: Vec<usize> = graph.number(key).into_iter().collect();
            while let Some(node) = due.pop() {
                if seen.insert(node, ()).is_none() {
                    found.extend(relations.get(&node));
                    due.extend(onward.get(node).into_iter().flatten());
                }
                if found.len() > MOST {
                    return None;
                }
            }
            found.sort_unstable();
            Some(found.into_boxed_slice())
        };
        let mut this = Self { places: places(bytes, oid), ..Self::default() };
        for [kind, key, _, name, _] in rows(bytes) {
            let of_this = match kind {
                b"r" => reads(&[b"r", key].concat()),
                b"p" | b"o" => reads(key),
                _ => continue,
            };
            if of_this.as_ref().is_some_and(|oids| oids.is_empty()) {
                continue;
            }
            let known = this.names.entry(name.into()).or_insert_with(|| Some(Box::default()));
            *known = both(known.take(), &of_this);
        }
        let named = IMPLIED.iter().filter_map(|name| this.names.get(*name));
        let implied = named.fold(Some(Box::default()), both);
        this.implied = [&b"a"[..], b"k", b"t"].iter().fold(implied, |all, key| both(all, &reads(key)));
        this
    }

    /// What the token at `at` reads, if it stands for something that reads. Of a name that only the server can tell that is too much.
    fn read_at(&self, words: Words<'_>, at: usize) -> Option<&Reads> {
        match words.kind(at) {
            Some(Kind::UnicodeWord) => Some(&None),
            Some(Kind::Operator) => self.names.get(words.bytes(at)),
            _ => words.name(at).and_then(|name| self.names.get(&*name)),
        }
    }

    /// Whether that may be anything.
    pub(super) fn reads(&self, words: Words<'_>, at: usize) -> bool {
        self.read_at(words, at).is_some_and(|reads| reads.as_ref().is_none_or(|oids| !oids.is_empty()))
    }

    /// Whether what no statement names reads anything.
    pub(super) fn is_implied(&self) -> bool {
        self.implied.as_ref().is_none_or(|oids| !oids.is_empty())
    }
}

impl Code {
    /// The relations whose rows the answer of a read may hang on, in ascending order of their OIDs; `None` if they are more than [`MOST`].
    /// Holds for all texts of its shape.
    #[must_use]
    pub fn sources(&self, sql: &[u8], standard_conforming_strings: bool) -> Option<Box<[u32]>> {
        let all = tokens(sql, standard_conforming_strings);
        let words = Words::new(sql, &all);
        (0..words.len()).try_fold(self.sources.implied.clone()?, |found, at| match self.sources.read_at(words, at) {
            Some(more) => both(Some(found), more),
            None => Some(found),
        })
    }
}

impl Code {
    /// Schemas and names of these relations and of all tables that they are parts or children of; `None` if one is not known.
    #[must_use]
    pub fn tables(&self, oids: &[u32]) -> Option<Vec<(&[u8], &[u8])>> {
        let places = &self.sources.places;
        let (mut all, mut due) = (BTreeSet::new(), oids.to_vec());
        while let Some(oid) = due.pop() {
            if all.insert(oid) {
                due.extend(&*places.get(&oid)?.parents);
            }
        }
        all.iter().map(|oid| places.get(oid).map(|place| (&*place.schema, &*place.name))).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const ROWS: &[&[&str]] = &[
        &["r", "1", "app", "item", "rp"],
        &["r", "2", "other", "item", "rp"],
        &["r", "3", "app", "line", "rp"],
        // A view of a view, and a table in parts.
        &["r", "4", "app", "shown", "vp"],
        &["e", "r4", "r3"],
        &["r", "5", "app", "again", "vp"],
        &["e", "r5", "r4"],
        &["r", "6", "app", "whole", "pp"],
        &["r", "7", "app", "half", "rp"],
        &["e", "r6", "r7"],
        &["p", "p1", "app", "looks_up", "fis-"],
        &["s", "p1", "0", "SELECT v FROM line WHERE id = $1"],
        &["p", "p2", "app", "same", "fis-"],
        &["s", "p2", "0", "SELECT $1 = $2"],
        &["o", "o1", "app", "~~~"],
        &["e", "o1", "p1"],
        // Only who writes to it runs its trigger.
        &["e", "w7", "w3"],
    ];

    #[test]
    fn whatever_has_the_name_counts_with_all_that_it_reads() {
        let code = Code::of_rows(ROWS);
        let cases: [(&str, &[u32]); 9] = [
            ("SELECT 1", &[]),
            ("SELECT same(1, 2)", &[]),
            ("SELECT * FROM ITEM", &[1, 2]),
            ("SELECT * FROM app.item JOIN \"line\" USING (id)", &[1, 2, 3]),
            ("SELECT * FROM again", &[3, 4, 5]),
            ("SELECT * FROM half", &[7]),
            ("SELECT * FROM whole", &[6, 7]),
            ("SELECT looks_up(v) FROM half", &[3, 7]),
            ("SELECT v ~~~ 'a' FROM half", &[3, 7]),
        ];
        for (sql, oids) in cases {
            assert_eq!(code.sources(sql.as_bytes(), true).as_deref(), Some(oids), "{sql}");
        }
        assert_eq!(code.sources(br#"SELECT * FROM U&"it\0065m""#, true), None, "it may be any");
    }

    #[test]
    fn relations_have_names_and_so_have_those_above_them() {
        let code = Code::of_rows(ROWS);
        let named = |oids: &[u32]| -> Option<Vec<String>> {
            let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
            Some(code.tables(oids)?.iter().map(|(schema, name)| format!("{}.{}", text(schema), text(name))).collect())
        };
        assert_eq!(named(&[]), Some(vec![]));
        assert_eq!(named(&[2]), Some(vec!["other.item".into()]));
        assert_eq!(named(&[7]), Some(vec!["app.whole".into(), "app.half".into()]));
        // A view is no parent of what it reads.
        assert_eq!(named(&[3]), Some(vec!["app.line".into()]));
        assert_eq!(named(&[3, 99]), None);
    }

    #[test]
    fn what_nobody_names_counts_everywhere() {
        let mut rows = ROWS.to_vec();
        rows.push(&["e", "a", "p1"]);
        assert_eq!(Code::of_rows(&rows).sources(b"SELECT 1", true).as_deref(), Some(&[3][..]));
        let mut rows = ROWS.to_vec();
        rows.extend([&["o", "o2", "app", "="][..], &["e", "o2", "p1"]]);
        assert_eq!(Code::of_rows(&rows).sources(b"SELECT 1 IN (2)", true).as_deref(), Some(&[3][..]));
    }

    #[test]
    fn too_many_are_none() {
        let oids: Vec<String> = (100..100 + MOST + 1).map(|oid| oid.to_string()).collect();
        let nodes: Vec<String> = oids.iter().map(|oid| format!("r{oid}")).collect();
        let parts = oids.iter().map(|oid| ["r", oid.as_str(), "app", "part", "rp"]);
        let edges = nodes.iter().map(|node| ["e", "r6", node.as_str(), "", ""]);
        let more: Vec<[&str; 5]> = parts.chain(edges).collect();
        let rows: Vec<&[&str]> = ROWS.iter().copied().chain(more.iter().map(|row| &row[..])).collect();
        let code = Code::of_rows(&rows);
        assert_eq!(code.sources(b"SELECT * FROM whole", true), None);
        assert_eq!(code.sources(b"SELECT * FROM half", true).as_deref(), Some(&[7][..]));
    }
}
