//! Texts of prepared statements, shared by content between all clients of a worker.
//! Must never take two texts for one because their hashes are equal.

use std::collections::HashMap;
use std::rc::Rc;

use xxhash_rust::xxh3::xxh3_64_with_seed;

use super::shapes::Look;
use crate::flow::params::Settings;

/// Bytes of texts beyond which those that no client uses are dropped.
const KEEP_BYTES: usize = 32 * 1024 * 1024;

/// A statement as Parse gave it.
#[derive(Debug)]
pub struct Statement {
    /// Number, from which its name on servers is made.
    pub id: u32,
    /// Text, terminator and parameter types: a Parse message behind the name. Empty for a text
    /// that was too long to be kept.
    pub tail: Box<[u8]>,
    /// What the text says.
    pub look: Look,
    under: Under,
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

impl Statement {
    /// The text is kept, so it can be prepared on any server.
    pub fn is_kept(&self) -> bool {
        !self.tail.is_empty()
    }
}

/// All statements of a worker.
#[derive(Debug, Default)]
pub struct Statements {
    by_hash: HashMap<u64, Rc<Statement>, foldhash::fast::RandomState>,
    bytes: usize,
    sweep_at: usize,
    next: u32,
}

impl Statements {
    /// The statement with this Parse tail, as read under these settings.
    pub fn find(&self, tail: &[u8], under: &Under) -> Option<Rc<Statement>> {
        let known = self.by_hash.get(&hash(tail, under))?;
        (*known.tail == *tail && known.under == *under).then(|| Rc::clone(known))
    }

    /// Adds a statement that [`Statements::find`] did not know.
    pub fn add(&mut self, tail: &[u8], under: Under, look: Look) -> Rc<Statement> {
        let key = hash(tail, &under);
        let statement = self.alone(tail, under, look);
        self.bytes += tail.len();
        if let Some(collided) = self.by_hash.insert(key, Rc::clone(&statement)) {
            self.bytes -= collided.tail.len();
        }
        if self.bytes > self.sweep_at.max(KEEP_BYTES) {
            self.by_hash.retain(|_, statement| Rc::strong_count(statement) > 1);
            self.bytes = self.by_hash.values().map(|statement| statement.tail.len()).sum();
            // If the clients hold that much themselves, looking again at once would find the same.
            self.sweep_at = self.bytes * 2;
        }
        statement
    }

    /// A statement that is shared with nobody.
    pub fn alone(&mut self, tail: &[u8], under: Under, look: Look) -> Rc<Statement> {
        Rc::new(Statement { id: self.number(), tail: tail.into(), look, under })
    }

    /// From now on the same text is another statement: what servers have prepared is outdated.
    pub fn forget(&mut self, id: u32) {
        self.by_hash.retain(|_, statement| statement.id != id);
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
        }
    }
}
