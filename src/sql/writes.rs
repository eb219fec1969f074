//! Relations whose rows a statement may change.
//! Must never miss one: whatever has the name of something that writes to a relation counts, in any schema; and what cannot be told is everything.
//!
//! Beside those that a statement names, that is what its foreign keys change (CASCADE, SET NULL, SET DEFAULT; with TRUNCATE ... CASCADE all of them), the partitions and children of its tables,
//! what its rules write to, what its triggers, defaults and functions do, as far as their text tells, and what casts, operators and domains do that nobody
//! names. Who reads a table hangs on its partitions and children as well ([`super::sources`]), so that who writes to one of them need not think of the whole.
//!
//! Everything is what code may do that puts its SQL together as it runs, is in a language or library that nobody can see into, or changes the schema; and a
//! statement that names a table which was not there when the catalog was read.

use std::collections::{BTreeSet, HashMap};

use super::classify::parses;
use super::code::{Code, IMPLIED, WRITING, truncates_all};
use super::code_graph::{Graph, rows};
use super::lex::Kind;
use super::verdict::Effects;
use super::words::{Words, tokens};

/// Most relations that are told one by one: what may change more may change everything.
pub const MOST: usize = 256;

/// Extensions whose functions in C change no rows, or only the one that they are called for.
const HARMLESS: [&[u8]; 26] = [
    b"btree_gin",
    b"btree_gist",
    b"citext",
    b"cube",
    b"earthdistance",
    b"fuzzystrmatch",
    b"hstore",
    b"insert_username",
    b"intarray",
    b"lo",
    b"ltree",
    b"moddatetime",
    b"pageinspect",
    b"pg_buffercache",
    b"pg_freespacemap",
    b"pg_stat_statements",
    b"pg_trgm",
    b"pg_uuidv7",
    b"pg_visibility",
    b"pgcrypto",
    b"pgstattuple",
    b"seg",
    b"tcn",
    b"unaccent",
    b"uuid-ossp",
    b"vector",
];

/// Effects of code that may do more than its text says.
const BLIND: Effects =
    Effects::UNKNOWN_FUNCTION.union(Effects::OPAQUE).union(Effects::DDL).union(Effects::DROP).union(Effects::LOAD);

/// What something changes: OIDs in ascending order; `None`: it may be anything.
type Changes = Option<Box<[u32]>>;

/// What the things of one name change.
#[derive(Debug)]
struct Sides {
    /// Relations that are read, functions and operators.
    used: Changes,
    /// Relations that are written to.
    written: Changes,
    /// Relations that are emptied with all that refers to them.
    emptied: Changes,
}

/// By name: of relations, functions and operators. Without an entry: nothing.
#[derive(Debug)]
pub(crate) struct Writes {
    names: HashMap<Box<[u8]>, Sides>,
    /// What no statement names.
    implied: Changes,
}

impl Default for Writes {
    fn default() -> Self {
        Self { names: HashMap::new(), implied: Some(Box::default()) }
    }
}

fn both(one: Changes, two: &Changes) -> Changes {
    let (one, two) = (one?, two.as_ref()?);
    if two.is_empty() {
        return Some(one);
    }
    let all: BTreeSet<u32> = one.iter().chain(two).copied().collect();
    (all.len() <= MOST).then(|| all.into_iter().collect())
}

/// Functions in C that may do anything. `flags`: kind, volatility, language, attribute, extension.
fn is_blind(flags: &[u8]) -> bool {
    matches!(flags, [_, b'v', b'c', _, extension @ ..] if !HARMLESS.contains(&extension))
}

impl Writes {
    /// Of the facts in these DataRow bodies.
    pub(crate) fn of(graph: &Graph<'_>, bytes: &[u8]) -> Self {
        let oid = |key: &[u8]| std::str::from_utf8(key).ok().and_then(|oid| oid.parse::<u32>().ok());
        let (mut written, mut blind) = (HashMap::new(), BTreeSet::new());
        for [kind, key, _, _, flags] in rows(bytes) {
            if kind == b"r" {
                written.extend(graph.number(&[b"w", key].concat()).zip(oid(key)));
            } else if kind == b"p" && is_blind(flags) {
                blind.extend(graph.number(key));
            }
        }
        // Who comes by there changes the schema, or may.
        blind.extend(graph.number(b"d"));
        let onward = graph.onward();
        let changes = |key: &[u8]| -> Changes {
            let (mut found, mut seen) = (BTreeSet::new(), BTreeSet::new());
            let mut due: Vec<usize> = graph.number(key).into_iter().collect();
            while let Some(node) = due.pop() {
                if !seen.insert(node) {
                    continue;
                }
                found.extend(written.get(&node));
                if blind.contains(&node) || graph.touch_of(node).effects.any(BLIND) || found.len() > MOST {
                    return None;
                }
                due.extend(onward.get(node).into_iter().flatten());
            }
            Some(found.into_iter().collect())
        };
        let mut this = Self::default();
        for [kind, key, _, name, _] in rows(bytes) {
            let none = || Some(Box::default());
            let side = |side: &[u8]| changes(&[side, key].concat());
            let [used, written, emptied] = match kind {
                b"r" => [side(b"r"), side(b"w"), side(b"x")],
                b"p" | b"o" => [changes(key), none(), none()],
                _ => continue,
            };
            let is_none = |changes: &Changes| changes.as_ref().is_some_and(|oids| oids.is_empty());
            if is_none(&used) && is_none(&written) {
                continue;
            }
            let empty = || Sides { used: none(), written: none(), emptied: none() };
            let known = this.names.entry(name.into()).or_insert_with(empty);
            known.used = both(known.used.take(), &used);
            known.written = both(known.written.take(), &written);
            known.emptied = both(known.emptied.take(), &emptied);
        }
        let named = IMPLIED.iter().filter_map(|name| this.names.get(*name)).map(|sides| &sides.used);
        let implied = named.fold(Some(Box::default()), both);
        this.implied = [&b"a"[..], b"k", b"t"].iter().fold(implied, |all, key| both(all, &changes(key)));
        this
    }
}

impl Code {
    /// The relations whose rows a statement may change, in ascending order of their OIDs; `None` if it may be any. `reads`: the grammar says that it
    /// does nothing else by itself. Holds for all texts of its shape. What changes the schema, and what calls a function that the catalog does
    /// not have, is for the caller to know.
    #[must_use]
    pub fn written(&self, sql: &[u8], standard_conforming_strings: bool, reads: bool) -> Option<Box<[u32]>> {
        if self.is_too_large || self.fingerprint.is_empty() {
            return None;
        }
        let all = tokens(sql, standard_conforming_strings);
        let words = Words::new(sql, &all);
        let writes = !reads && WRITING.iter().any(|word| words.has(word));
        if writes && !self.knows_tables(sql, standard_conforming_strings, words) {
            return None;
        }
        let cascades = truncates_all(words);
        let Writes { names, implied } = &self.writes;
        (0..words.len()).try_fold(implied.clone()?, |found, at| {
            let named = match words.kind(at) {
                // Its name may be any.
                Some(Kind::UnicodeWord) => return None,
                Some(Kind::Operator) => names.get(words.bytes(at)),
                _ => words.name(at).and_then(|name| names.get(&*name)),
            };
            let Some(sides) = named else { return Some(found) };
            let found = both(Some(found), &sides.used)?;
            match writes {
                // The other of these is part of it.
                true if cascades => both(Some(found), &sides.emptied),
                true => both(Some(found), &sides.written),
                false => Some(found),
            }
        })
    }

    /// Whether all tables that a text names were there when this was read.
    fn knows_tables(&self, sql: &[u8], standard_conforming_strings: bool, words: Words<'_>) -> bool {
        let Some(summary) = parses(sql, standard_conforming_strings, words) else { return false };
        summary.tables.iter().all(|table| {
            let is_cte = table.schema_name.is_empty() && summary.cte_names.contains(&table.table_name);
            is_cte || self.relations.contains_key(table.table_name.as_bytes())
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const ROWS: &[&[&str]] = &[
        &["r", "1", "app", "item", "rp"],
        &["r", "2", "other", "item", "rp"],
        // Its rows go with those of item, and its lines with its own.
        &["r", "3", "app", "order", "rp"],
        &["r", "4", "app", "line", "rp"],
        &["e", "w1", "w3"],
        &["e", "w3", "w4"],
        // In parts.
        &["r", "5", "app", "whole", "pp"],
        &["r", "6", "app", "part", "rp"],
        &["e", "r5", "r6"],
        &["e", "w5", "w6"],
        // Triggers: one that counts, one that runs what it puts together, one in a library.
        &["r", "7", "app", "source", "rp"],
        &["r", "8", "app", "total", "rp"],
        &["e", "w7", "p1"],
        &["p", "p1", "app", "counts", "fvp-"],
        &["s", "p1", "0", "BEGIN UPDATE total SET n = n + 1; RETURN NULL; END"],
        &["r", "9", "app", "dark", "rp"],
        &["e", "w9", "p2"],
        &["p", "p2", "app", "runs", "fvp-"],
        &["s", "p2", "0", "BEGIN EXECUTE 'UPDATE ' || TG_ARGV[0]; RETURN NULL; END"],
        &["r", "10", "app", "far", "rp"],
        &["e", "w10", "p3"],
        &["p", "p3", "app", "in_c", "fvc-refint"],
        &["r", "11", "app", "stamped", "rp"],
        &["e", "w11", "p4"],
        &["p", "p4", "app", "stamps", "fvc-moddatetime"],
        // A view that is written to, and one that writes when it is read.
        &["r", "12", "app", "shown", "vp"],
        &["e", "r12", "r8"],
        &["e", "w12", "w8"],
        &["r", "13", "app", "trap", "vp"],
        &["e", "r13", "p5"],
        &["p", "p5", "app", "adds", "fvs-"],
        &["s", "p5", "0", "INSERT INTO line VALUES (1) RETURNING 1"],
        &["p", "p6", "app", "makes", "fvp-"],
        &["s", "p6", "0", "BEGIN CREATE TABLE x (); END"],
        &["r", "14", "app", "entry", "rp"],
        &["e", "x8", "x14"],
        &["e", "x5", "x6"],
        &["e", "x6", "x4"],
        &["p", "p8", "app", "empties", "fvp-"],
        &["s", "p8", "0", "BEGIN TRUNCATE total CASCADE; END"],
        &["p", "p7", "app", "looks", "fsp-"],
        &["s", "p7", "0", "BEGIN RETURN (SELECT n FROM total); END"],
    ];

    #[track_caller]
    fn assert_writes(sql: &str, reads: bool, oids: Option<&[u32]>) {
        assert_eq!(Code::of_rows(ROWS).written(sql.as_bytes(), true, reads).as_deref(), oids, "{sql}");
    }

    #[test]
    fn whatever_a_write_brings_about_counts() {
        let cases: [(&str, &[u32]); 22] = [
            ("INSERT INTO line VALUES (1)", &[4]),
            ("UPDATE \"order\" SET a = 1", &[3, 4]),
            ("DELETE FROM app.item", &[1, 2, 3, 4]),
            ("WITH gone AS (DELETE FROM line RETURNING *) SELECT * FROM gone, total", &[4, 8]),
            ("MERGE INTO part USING line ON true WHEN MATCHED THEN DELETE", &[4, 6]),
            ("COPY part FROM STDIN", &[6]),
            ("UPDATE whole SET a = 1", &[5, 6]),
            ("TRUNCATE part", &[6]),
            ("TRUNCATE whole", &[5, 6]),
            ("TRUNCATE total", &[8]),
            // What refers to it, and does nothing at DELETE.
            ("TRUNCATE total RESTART IDENTITY CASCADE", &[8, 14]),
            ("TRUNCATE whole CASCADE", &[4, 5, 6]),
            ("SELECT empties()", &[8, 14]),
            ("INSERT INTO source VALUES (1)", &[7, 8]),
            ("UPDATE stamped SET a = 1", &[11]),
            ("UPDATE shown SET n = 1", &[8, 12]),
            ("EXPLAIN ANALYZE DELETE FROM part", &[6]),
            ("SELECT * FROM line FOR UPDATE", &[4]),
            ("SELECT adds()", &[4]),
            ("INSERT INTO part SELECT looks()", &[6]),
            ("SELECT 1; DELETE FROM part; UPDATE total SET n = 1", &[6, 8]),
            ("COMMIT", &[]),
        ];
        cases.iter().for_each(|(sql, oids)| assert_writes(sql, false, Some(oids)));
    }

    /// Names that are too long stand for what they begin with.
    #[test]
    fn names_are_cut_as_the_server_cuts_them() {
        let cut = "x".repeat(63);
        let mut more = ROWS.to_vec();
        let table = ["r", "20", "app", &*cut, "rp"];
        more.push(&table);
        let code = Code::of_rows(&more);
        for sql in [format!("UPDATE {cut}tail SET a = 1"), format!("DELETE FROM app.\"{cut}TAIL\"")] {
            assert_eq!(code.written(sql.as_bytes(), true, false).as_deref(), Some(&[20][..]), "{sql}");
        }
    }

    #[test]
    fn what_only_reads_writes_by_what_it_calls() {
        assert_writes("SELECT * FROM item JOIN dark USING (id)", true, Some(&[]));
        assert_writes("COPY item TO STDOUT", true, Some(&[]));
        assert_writes("SELECT * FROM trap", true, Some(&[4]));
        assert_writes("SELECT looks()", true, Some(&[]));
    }

    #[test]
    fn what_cannot_be_told_is_everything() {
        for sql in [
            "INSERT INTO dark VALUES (1)",
            "INSERT INTO far VALUES (1)",
            "INSERT INTO made_since VALUES (1)",
            "UPDATE item SET a = runs()",
            "SELECT makes()",
            r#"UPDATE U&"it\0065m" SET a = 1"#,
            "UPDATE",
        ] {
            assert_writes(sql, false, None);
        }
        assert_eq!(Code::default().written(b"SELECT 1", true, false), None, "it was never read");
    }

    #[test]
    fn what_nobody_names_counts_everywhere() {
        let mut more = ROWS.to_vec();
        more.push(&["e", "a", "p5"]);
        assert_eq!(Code::of_rows(&more).written(b"SELECT 1", true, true).as_deref(), Some(&[4][..]));
        more.push(&["e", "t", "p3"]);
        assert_eq!(Code::of_rows(&more).written(b"SELECT 1", true, true), None);
    }

    #[test]
    fn too_many_are_everything() {
        let oids: Vec<String> = (100..100 + MOST + 1).map(|oid| oid.to_string()).collect();
        let nodes: Vec<String> = oids.iter().map(|oid| format!("w{oid}")).collect();
        let parts = oids.iter().map(|oid| ["r", oid.as_str(), "app", "piece", "rp"]);
        let edges = nodes.iter().map(|node| ["e", "w5", node.as_str(), "", ""]);
        let more: Vec<[&str; 5]> = parts.chain(edges).collect();
        let rows: Vec<&[&str]> = ROWS.iter().copied().chain(more.iter().map(|row| &row[..])).collect();
        let code = Code::of_rows(&rows);
        assert_eq!(code.written(b"DELETE FROM whole", true, false), None);
        assert_eq!(code.written(b"DELETE FROM part", true, false).as_deref(), Some(&[6][..]));
    }
}
