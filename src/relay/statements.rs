//! Texts of prepared statements, shared by content between all clients of a worker.
//! Must never take two texts for one because their hashes are equal.

use std::cell::Cell;
use std::collections::HashMap;
use std::rc::Rc;
use std::sync::Arc;

use xxhash_rust::xxh3::xxh3_64_with_seed;

use super::shapes::{Look, Stand};
use crate::flow::params::Settings;
use crate::meter::WorkerGauge;
use crate::wire::frame::cstr;

/// Bytes of texts beyond which those that no client uses are dropped.
const KEEP_BYTES: usize = 32 * 1024 * 1024;

/// What a statement costs beside its text, bytes: itself and its place in the map.
const STATEMENT_BYTES: usize = size_of::<Statement>() + 40;

/// Bytes of prepared statements on a worker: shown to all workers, so that their sum can be limited.
#[derive(Debug, Default)]
pub struct Tally {
    bytes: Cell<usize>,
    shown: Arc<WorkerGauge>,
}

impl Tally {
    /// So much more is kept.
    pub fn add(&self, bytes: usize) {
        self.set(self.bytes.get() + bytes);
    }

    /// So much less.
    pub fn sub(&self, bytes: usize) {
        self.set(self.bytes.get().saturating_sub(bytes));
    }

    /// Bytes kept.
    #[cfg(test)]
    pub fn bytes(&self) -> usize {
        self.bytes.get()
    }

    fn set(&self, bytes: usize) {
        self.bytes.set(bytes);
        self.shown.0.set(bytes as u64);
    }
}

/// A statement as Parse gave it.
#[derive(Debug)]
pub struct Statement {
    /// Number, from which its name on servers is made.
    pub id: u32,
    /// Text, terminator and parameter types: a Parse message behind the name.
    pub tail: Box<[u8]>,
    /// Bytes of the text in it.
    text: u32,
    /// What the text says.
    pub look: Look,
    /// What the catalog said of it that was asked last.
    pub stand: Cell<Stand>,
    /// Clients may share it: it means the same to all that find it.
    pub shared: bool,
    under: Under,
    tally: Rc<Tally>,
}

impl Drop for Statement {
    fn drop(&mut self) {
        self.tally.sub(self.tail.len() + STATEMENT_BYTES);
    }
}

impl Statement {
    /// Whether it was read under these settings.
    pub fn is_under(&self, settings: &Rc<Settings>) -> bool {
        self.under.settings == *settings
    }

    /// How many types of parameters are given, and which.
    pub fn types(&self) -> &[u8] {
        self.tail.get(self.text as usize + 1..).unwrap_or_default()
    }

    /// The text alone.
    pub fn sql(&self) -> &[u8] {
        self.tail.get(..self.text as usize).unwrap_or_default()
    }
}

/// What a text is read under. PostgreSQL computes constants when it prepares a statement, by the
/// settings of that moment: `'01-02-2024'::timestamptz` is another moment in another time zone.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Under {
    /// `standard_conforming_strings`.
    pub conforming: bool,
    /// Settings of the session's start.
    pub settings: Rc<Settings>,
}

/// All statements of a worker.
#[derive(Debug, Default)]
pub struct Statements {
    by_hash: HashMap<u64, Rc<Statement>, foldhash::fast::RandomState>,
    bytes: usize,
    sweep_at: usize,
    next: u32,
    tally: Rc<Tally>,
}

impl Statements {
    /// None yet; `shown` is where the worker shows how many bytes it keeps.
    pub fn new(shown: Arc<WorkerGauge>) -> Self {
        Self { tally: Rc::new(Tally { bytes: Cell::new(0), shown }), ..Self::default() }
    }

    /// Where the bytes kept are counted.
    pub fn tally(&self) -> &Rc<Tally> {
        &self.tally
    }

    /// The statement with this Parse tail, as read under these settings.
    pub fn find(&self, tail: &[u8], under: &Under) -> Option<Rc<Statement>> {
        let known = self.by_hash.get(&hash(tail, under))?;
        (*known.tail == *tail && known.under == *under).then(|| Rc::clone(known))
    }

    /// Adds a statement that [`Statements::find`] did not know.
    pub fn add(&mut self, tail: &[u8], under: Under, look: Look) -> Rc<Statement> {
        let key = hash(tail, &under);
        let statement = self.made(tail, under, look, true);
        self.bytes += tail.len();
        if let Some(collided) = self.by_hash.insert(key, Rc::clone(&statement)) {
            self.bytes -= collided.tail.len();
        }
        if self.bytes > self.sweep_at.max(KEEP_BYTES) {
            self.drop_unused();
            // If the clients hold that much themselves, looking again at once would find the same.
            self.sweep_at = self.bytes * 2;
        }
        statement
    }

    /// Forgets the texts that no client has prepared.
    pub fn drop_unused(&mut self) {
        self.by_hash.retain(|_, statement| Rc::strong_count(statement) > 1);
        self.bytes = self.by_hash.values().map(|statement| statement.tail.len()).sum();
    }

    /// What clients prepare from now on is prepared anew: a text's parameters may have other types than they had.
    /// What they have prepared they keep.
    pub fn part(&mut self) {
        self.by_hash.clear();
        (self.bytes, self.sweep_at) = (0, 0);
    }

    /// A statement that is shared with nobody.
    pub fn alone(&mut self, tail: &[u8], under: Under, look: Look) -> Rc<Statement> {
        self.made(tail, under, look, false)
    }

    /// A copy of `statement` that is shared with nobody.
    pub fn copy_alone(&mut self, statement: &Statement) -> Rc<Statement> {
        self.alone(&statement.tail, statement.under.clone(), statement.look)
    }

    /// The same text under a new number: what servers have prepared under the old one is outdated.
    /// All who ask for a shared statement get the same.
    pub fn renew(&mut self, old: &Statement) -> Rc<Statement> {
        if !old.shared {
            return self.copy_alone(old);
        }
        match self.find(&old.tail, &old.under) {
            Some(new) if new.id != old.id => new,
            _ => self.add(&old.tail, old.under.clone(), old.look),
        }
    }

    fn made(&mut self, tail: &[u8], under: Under, look: Look, shared: bool) -> Rc<Statement> {
        self.tally.add(tail.len() + STATEMENT_BYTES);
        let text = cstr(tail).map_or(tail.len(), |(sql, _)| sql.len()) as u32;
        let tally = Rc::clone(&self.tally);
        Rc::new(Statement {
            id: self.number(),
            tail: tail.into(),
            text,
            look,
            stand: Cell::new(look.stand),
            shared,
            under,
            tally,
        })
    }

    fn number(&mut self) -> u32 {
        // The highest numbers mean other things in the ring of replies.
        self.next = if self.next >= u32::MAX - 16 { 1 } else { self.next + 1 };
        self.next
    }
}

fn hash(tail: &[u8], under: &Under) -> u64 {
    let mut seed = u64::from(under.conforming);
    for (name, value) in &*under.settings {
        seed = xxh3_64_with_seed(value, xxh3_64_with_seed(name, seed));
    }
    xxh3_64_with_seed(tail, seed)
}

/// Prefix of the names that statements have on servers.
pub const PREFIX: &[u8] = b"__pgweir_";

/// Digits of the largest number.
const DIGITS: usize = 10;

/// The name of a statement on servers, made without allocating.
pub struct ServerName {
    bytes: [u8; PREFIX.len() + DIGITS],
    start: usize,
}

impl ServerName {
    /// The name of statement `number`.
    pub fn of(number: u32) -> Self {
        let mut bytes = [0; PREFIX.len() + DIGITS];
        let mut at = bytes.len();
        let mut rest = number;
        loop {
            at -= 1;
            bytes[at] = b'0' + (rest % 10) as u8;
            rest /= 10;
            if rest == 0 {
                break;
            }
        }
        at -= PREFIX.len();
        bytes[at..at + PREFIX.len()].copy_from_slice(PREFIX);
        Self { bytes, start: at }
    }

    /// The name, without terminator.
    pub fn bytes(&self) -> &[u8] {
        &self.bytes[self.start..]
    }
}

/// The number of the statement whose name on servers stands at the front of `text`, and what
/// follows it.
pub fn number_of(text: &[u8]) -> Option<(u32, &[u8])> {
    let rest = text.strip_prefix(PREFIX)?;
    let digits = rest.iter().take_while(|byte| byte.is_ascii_digit()).count();
    let (number, rest) = rest.split_at_checked(digits)?;
    Some((std::str::from_utf8(number).ok()?.parse().ok()?, rest))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::sql::verdict::Effects;

    #[test]
    fn shares_by_content_and_forgets_what_nobody_uses() {
        let mut all = Statements::default();
        let look = Look::long(Effects::NONE);
        let under = Under { conforming: true, settings: Rc::default() };
        let a = all.add(b"select 1\0\0\0", under.clone(), look);
        assert_eq!(all.find(b"select 1\0\0\0", &under).map(|s| s.id), Some(a.id));
        let zone = Rc::new(vec![(b"timezone".to_vec(), b"UTC".to_vec())]);
        for other in [Under { conforming: false, ..under.clone() }, Under { settings: zone, ..under.clone() }] {
            assert!(all.find(b"select 1\0\0\0", &other).is_none(), "{other:?}");
        }
        assert!(all.find(b"select 2\0\0\0", &under).is_none());
        for n in 0..40 {
            let mut text = vec![b'x'; 1024 * 1024];
            text[0] = n;
            all.add(&text, under.clone(), look);
        }
        assert!(all.bytes <= KEEP_BYTES + 1024 * 1024, "{} bytes kept", all.bytes);
        assert!(all.find(b"select 1\0\0\0", &under).is_some(), "in use, yet forgotten");
    }

    #[test]
    fn names_statements() {
        for (id, name) in [(0, "__pgweir_0"), (7, "__pgweir_7"), (u32::MAX, "__pgweir_4294967295")] {
            assert_eq!(ServerName::of(id).bytes(), name.as_bytes());
            assert_eq!(number_of(name.as_bytes()), Some((id, &b""[..])));
        }
        assert_eq!(number_of(b"__pgweir_12\" does"), Some((12, &b"\" does"[..])));
        for none in ["__pgweir_", "__pgweir_99999999999", "_pgweir_1", ""] {
            assert_eq!(number_of(none.as_bytes()), None, "{none}");
        }
    }

    #[test]
    fn a_renewed_text_is_one_for_all_and_what_is_kept_is_counted() {
        let mut all = Statements::default();
        let look = Look::long(Effects::NONE);
        let under = Under { conforming: true, settings: Rc::default() };
        let old = all.add(b"select 1\0\0\0", under.clone(), look);
        let (one, two) = (all.renew(&old), all.renew(&old));
        assert!(one.id == two.id && one.id != old.id);
        assert_eq!(all.find(&old.tail, &under).map(|s| s.id), Some(one.id));
        let alone = all.alone(b"select 2\0\0\0", under.clone(), look);
        assert!(all.renew(&alone).id != all.renew(&alone).id);
        assert!(all.find(&alone.tail, &under).is_none());
        let each = 11 + STATEMENT_BYTES;
        assert_eq!((all.tally.bytes.get(), all.tally.shown.0.get()), (3 * each, 3 * each as u64));
        drop((old, one, two, alone));
        assert_eq!(all.tally.bytes.get(), each);
        all.drop_unused();
        assert_eq!(all.tally.bytes.get(), 0);
    }
}
