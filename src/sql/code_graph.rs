//! The graph of a database's code: what runs what.
//! Must never leave out an edge that it is told of.
//!
//! Functions, relations, operators and domains are nodes; an edge says that what happens at its end may happen at its
//! start: a body names a function, a trigger of a table calls it, a view reads a table. Relations are three nodes: one for
//! those who read, one for those who write (triggers, defaults, checks, cascades), one for TRUNCATE ... CASCADE. What a body does ([`super::bodies`])
//! goes against the edges until nothing changes.

use std::collections::HashMap;

use super::bodies::{self, Found, Language, Touch};
use super::code::{Code, SOURCE_BYTES, WRITING};
use super::footing::{self, Footing};
use super::functions;
use super::verdict::{Effects, Reason};

/// Extensions whose functions in C leave nothing in the session that calls them. Others' are not known, unless they are
/// immutable or stable.
const QUIET: &[&[u8]] = &[
    b"address_standardizer",
    b"adminpack",
    b"amcheck",
    b"bloom",
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
    b"pg_cron",
    b"pg_freespacemap",
    b"pg_prewarm",
    b"pg_stat_statements",
    b"pg_uuidv7",
    b"pg_visibility",
    b"pg_walinspect",
    b"pgcrypto",
    b"pgrouting",
    b"pgrowlocks",
    b"pgstattuple",
    b"postgis",
    b"postgis_raster",
    b"postgis_sfcgal",
    b"postgis_topology",
    b"refint",
    b"seg",
    b"sslinfo",
    b"tcn",
    b"timescaledb",
    b"unaccent",
    b"uuid-ossp",
    b"vector",
];

/// Words of statements that event triggers follow.
const DEFINING: &[&[u8]] =
    &[b"create", b"alter", b"drop", b"grant", b"revoke", b"comment", b"refresh", b"reassign", b"security", b"import"];

/// Extensions whose functions run SQL that they are given, some of them declared stable.
const RUNNING: &[&[u8]] = &[b"dblink", b"tablefunc", b"xml2"];

pub(crate) type Row<'a> = [&'a [u8]; 5];

/// Number and text of a part of a function's source.
type Piece<'a> = (&'a [u8], &'a [u8]);

/// The columns of the DataRow bodies in `bytes`, one after the other; NULL is empty.
pub(crate) fn rows(bytes: &[u8]) -> impl Iterator<Item = Row<'_>> {
    let mut rest = bytes;
    std::iter::from_fn(move || {
        let (count, mut at) = rest.split_first_chunk::<2>()?;
        let mut row: Row<'_> = [b""; 5];
        for number in 0..u16::from_be_bytes(*count) {
            let (length, tail) = at.split_first_chunk::<4>()?;
            let length = usize::try_from(i32::from_be_bytes(*length)).unwrap_or(0);
            let (value, tail) = tail.split_at_checked(length)?;
            at = tail;
            if let Some(column) = row.get_mut(usize::from(number)) {
                *column = value;
            }
        }
        rest = at;
        Some(row)
    })
}

/// Nodes at which something is read.
pub(crate) struct Readers(Vec<bool>);

impl Readers {
    /// Whether this is one of them.
    pub(crate) fn has(&self, node: usize) -> bool {
        self.0.get(node).copied().unwrap_or_default()
    }
}

/// The graph while it is made.
#[derive(Default)]
pub(crate) struct Graph<'a> {
    /// Number of a node by its key, `p16384` and the like.
    nodes: HashMap<Vec<u8>, usize>,
    pub(crate) touches: Vec<Touch>,
    /// Beside what a touch says of it: see [`Graph::footing_of`].
    footings: Vec<Footing>,
    /// From what happens to where it then happens too.
    back: Vec<Vec<usize>>,
    /// Nodes by name: functions, operators, and relations when they are read, written to, and emptied with all that refers to them.
    functions: HashMap<&'a [u8], Vec<usize>>,
    pub(crate) relations: HashMap<&'a [u8], Vec<[usize; 3]>>,
    pub(crate) others: HashMap<&'a [u8], Vec<usize>>,
}

impl<'a> Graph<'a> {
    /// Of the facts in these DataRow bodies; `None` if they are too many. What concerns all of them goes to `code`.
    pub(crate) fn of(bytes: &'a [u8], code: &mut Code) -> Option<Self> {
        let mut graph = Self::default();
        let mut sources: HashMap<&[u8], Vec<Piece<'_>>> = HashMap::new();
        for row in rows(bytes) {
            match row {
                [b"f", fingerprint, ..] => code.fingerprint = fingerprint.into(),
                [b"z", size, ..] => {
                    let size = std::str::from_utf8(size).ok().and_then(|size| size.parse::<usize>().ok());
                    code.is_too_large = size.is_none_or(|size| size > SOURCE_BYTES);
                }
                [b"s", key, piece, text, _] => sources.entry(key).or_default().push((piece, text)),
                row => graph.enter(&row),
            }
        }
        if code.is_too_large {
            return None;
        }
        for row in rows(bytes) {
            match row {
                [b"p", key, _, _, flags] => {
                    let Some(mut pieces) = sources.remove(key) else { continue };
                    pieces.sort_unstable();
                    let body: Vec<u8> = pieces.into_iter().flat_map(|(_, text)| text).copied().collect();
                    let language = match flags.get(2) {
                        Some(b's') => Language::Sql,
                        Some(b'p') => Language::PlPgSql,
                        _ => Language::Other,
                    };
                    graph.body(key, &body, language);
                }
                [b"e", from, to, ..] => {
                    let (from, to) = (graph.node(from), graph.node(to));
                    graph.edge(from, to);
                }
                [b"b", from, name, ..] => {
                    let node = graph.node(from);
                    graph.touch(node, &builtin(name));
                }
                [b"c", from, name, ..] => {
                    let node = graph.node(from);
                    graph.stand(node, footing::built_in(name));
                }
                [b"g", from, name, ..] => {
                    let node = graph.node(from);
                    graph.stand(node, footing::asked(name));
                }
                [b"m", from, mark, ..] => {
                    let node = graph.node(from);
                    graph.stand(node, footing::marked(mark));
                }
                _ => {}
            }
        }
        graph.spread();
        Some(graph)
    }

    fn node(&mut self, key: &[u8]) -> usize {
        if let Some(&node) = self.nodes.get(key) {
            return node;
        }
        let node = self.touches.len();
        self.nodes.insert(key.to_vec(), node);
        self.touches.push(Touch::default());
        self.footings.push(Footing::Safe);
        self.back.push(Vec::new());
        node
    }

    fn edge(&mut self, from: usize, to: usize) {
        if from != to
            && let Some(back) = self.back.get_mut(to)
            && back.last() != Some(&from)
        {
            back.push(from);
        }
    }

    fn touch(&mut self, node: usize, touch: &Touch) {
        if let Some(known) = self.touches.get_mut(node) {
            known.merge(touch);
        }
    }

    fn stand(&mut self, node: usize, footing: Footing) {
        if let Some(known) = self.footings.get_mut(node) {
            known.merge(footing);
        }
    }

    fn enter(&mut self, row: &Row<'a>) {
        let &[kind, key, _, name, flags] = row;
        match kind {
            b"p" => {
                let node = self.node(key);
                self.functions.entry(name).or_default().push(node);
                self.touch(node, &opaque(flags));
                self.stand(node, footing::declared(flags, QUIET));
            }
            b"r" => {
                let read = self.node(&[b"r", key].concat());
                let write = self.node(&[b"w", key].concat());
                self.stand(read, footing::stored(flags));
                let cascade = self.node(&[b"x", key].concat());
                self.edge(cascade, write);
                self.relations.entry(name).or_default().push([read, write, cascade]);
                // Who writes may read: WHERE, RETURNING.
                self.edge(write, read);
            }
            b"o" => {
                let node = self.node(key);
                self.others.entry(name).or_default().push(node);
            }
            _ => {}
        }
    }

    /// Reads a function's body.
    fn body(&mut self, key: &[u8], body: &[u8], language: Language) {
        let from = self.node(key);
        let mut found: Vec<usize> = Vec::new();
        let mut relations: Vec<[usize; 3]> = Vec::new();
        let (mut writes, mut defines, mut truncates, mut cascades) = (false, false, false, false);
        let mut footing = Footing::Safe;
        let touch = bodies::read(body, language, &mut |told| {
            let Found::Name(name) = told else {
                footing.merge(Footing::Primary(Reason::NodeSetting));
                return;
            };
            found.extend(self.functions.get(name).into_iter().chain(self.others.get(name)).flatten());
            relations.extend(self.relations.get(name).into_iter().flatten());
            writes |= WRITING.iter().any(|word| word.as_bytes() == name);
            defines |= DEFINING.contains(&name);
            truncates |= name == b"truncate";
            cascades |= name == b"cascade";
            footing.merge(footing::word(name));
        });
        let side = |[read, write, cascade]: [usize; 3]| match writes {
            true if truncates && cascades => cascade,
            true => write,
            false => read,
        };
        found.extend(relations.into_iter().map(side));
        if defines {
            // Event triggers.
            found.push(self.node(b"d"));
        }
        found.sort_unstable();
        found.dedup();
        for to in found {
            self.edge(from, to);
        }
        self.touch(from, &touch);
        self.stand(from, footing);
    }

    /// Lets everything happen wherever it is run from.
    fn spread(&mut self) {
        let mut due: Vec<usize> = (0..self.touches.len()).rev().collect();
        while let Some(node) = due.pop() {
            let (touch, footing) = (self.touch_of(node), self.footings.get(node).copied().unwrap_or_default());
            if touch.is_none() && footing == Footing::Safe {
                continue;
            }
            for &from in self.back.get(node).into_iter().flatten() {
                let touched = self.touches.get_mut(from).is_some_and(|known| known.merge(&touch));
                if self.footings.get_mut(from).is_some_and(|known| known.merge(footing)) || touched {
                    due.push(from);
                }
            }
        }
    }

    pub(crate) fn touch_of(&self, node: usize) -> Touch {
        self.touches.get(node).cloned().unwrap_or_default()
    }

    /// The nodes at which these are read, by way of whatever else, as a set of keys.
    pub(crate) fn readers_of(&self, sources: impl Iterator<Item = Vec<u8>>) -> Readers {
        let mut seen = vec![false; self.back.len()];
        let mut due: Vec<usize> = sources.filter_map(|key| self.nodes.get(&key).copied()).collect();
        while let Some(node) = due.pop() {
            if let Some(seen) = seen.get_mut(node)
                && !std::mem::replace(seen, true)
            {
                due.extend(self.back.get(node).into_iter().flatten());
            }
        }
        Readers(seen)
    }

    /// The number of the node of this key.
    pub(crate) fn number(&self, key: &[u8]) -> Option<usize> {
        self.nodes.get(key).copied()
    }

    /// By number, from each node to those that it runs or reads.
    pub(crate) fn onward(&self) -> Vec<Vec<usize>> {
        let mut onward = vec![Vec::new(); self.back.len()];
        for (to, all) in self.back.iter().enumerate() {
            for &from in all {
                onward.get_mut(from).into_iter().for_each(|onward: &mut Vec<usize>| onward.push(to));
            }
        }
        onward
    }

    /// Whether the node of this key is one of those.
    pub(crate) fn is_reader(&self, readers: &Readers, key: &[u8]) -> bool {
        self.nodes.get(key).is_some_and(|&node| readers.has(node))
    }

    /// How far who reads or calls this may leave the primary.
    pub(crate) fn footing_of(&self, node: usize) -> Footing {
        let own = self.footings.get(node).copied().unwrap_or_default();
        own.and(self.touches.get(node).map(|touch| footing::touching(touch.effects)).unwrap_or_default())
    }

    pub(crate) fn footing_named(&self, key: &[u8]) -> Footing {
        self.nodes.get(key).map(|&node| self.footing_of(node)).unwrap_or_default()
    }

    pub(crate) fn named(&self, key: &[u8]) -> Touch {
        self.nodes.get(key).map(|&node| self.touch_of(node)).unwrap_or_default()
    }
}

/// What is to be feared of a function whose body is no text. `flags`: kind, volatility, language, attribute, extension.
fn opaque(flags: &[u8]) -> Touch {
    let &[kind, volatility, language, _, ref extension @ ..] = flags else { return Touch::UNSEEN };
    let in_list = |list: &[&[u8]]| list.contains(&extension);
    let quiet = match language {
        // What an aggregate does its parts do, which it depends on.
        _ if kind == b'a' => true,
        b'c' => !in_list(RUNNING) && (volatility != b'v' || in_list(QUIET)),
        b'i' => volatility != b'v',
        // A language of which nothing is known.
        b'x' => false,
        _ => true,
    };
    if quiet { Touch::default() } else { Touch::UNSEEN }
}

/// What a built-in function does that a view, default, policy, check or body of BEGIN ATOMIC calls.
fn builtin(name: &[u8]) -> Touch {
    if name == b"set_config" {
        // Its arguments are in a tree that is not read.
        return Touch { effects: Effects::SET_CONFIG, names: Vec::new(), others: true, hidden: true };
    }
    if name == b"pg_settings" {
        // Its rule for UPDATE sets what it lists.
        return Touch { effects: Effects::SET_CONFIG, names: Vec::new(), others: true, hidden: false };
    }
    let effects = functions::effects(name);
    let effects = if effects.any(Effects::OPAQUE) { Effects::UNKNOWN_FUNCTION } else { effects };
    Touch { effects, ..Touch::default() }
}
