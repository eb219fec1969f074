//! What was changed last, by what answers hang on: one array of slots for the process.
//! Must never forget a change: a slot only moves on.
//!
//! Rows that are read by their key have slots of their own, many more, so that whoever writes many of them voids little else ([`super::row`]).
//!
//! A slot stands for whatever hashes to it; that two things share one makes some answers void in vain, and none good that is not. The hash
//! is the same in every process, so that slots may be written down.

use std::sync::OnceLock;
use std::sync::atomic::AtomicU64;
use std::sync::atomic::Ordering::{Acquire, Relaxed, Release};

use xxhash_rust::xxh3::xxh3_64_with_seed;

/// How many slots there are: 1 MiB of them.
pub const SLOTS: usize = 1 << 16;
/// How many there are for rows, numbered behind the others: 8 MiB of them, from the first row on that changes.
pub const ROWS: usize = 1 << 20;

/// What an answer may hang on.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Dependency<'a> {
    /// The stream of a database's changes: what makes everything void that hangs on one.
    Life,
    /// What is where and who may see it, as far as the database tells of it in the order of its commits.
    Schema,
    /// The rows of the relation with this OID.
    Relation(u32),
    /// Any of these, for who hangs on one: some have changed of which nobody said which.
    Rows(u32),
    /// The row of the relation that has this key, as [`super::row`] has it.
    Row(u32, u64),
    /// What whoever is asked may take back ([`super::signal`]): everything, of all databases.
    Everything,
    /// So of this database.
    Database,
    /// So any table, for who does not know which.
    Tables,
    /// So the table of this name, in this schema or in any.
    Table(Option<&'a [u8]>, &'a [u8]),
    /// So what statements have marked with this word.
    Tag(&'a [u8]),
    /// So the answers to statements of this shape.
    Shape(u64),
}

impl Dependency<'_> {
    /// Its slot. `history` tells write-ahead logs apart whose positions say nothing of each other; signals know of none.
    #[must_use]
    pub fn slot(self, database: &str, history: u64) -> u32 {
        let hash = |bytes: &[u8]| xxh3_64_with_seed(bytes, 0);
        let (kind, number, text, history): (u8, u64, &[u8], u64) = match self {
            // Not of a history: it must be there when that ends.
            Self::Life => (0, 0, b"", 0),
            Self::Schema => (1, 0, b"", history),
            Self::Relation(oid) => (2, oid.into(), b"", history),
            Self::Rows(oid) => (10, oid.into(), b"", history),
            Self::Row(oid, key) => (11, oid.into(), b"", history ^ key),
            Self::Everything => (3, 0, b"", 0),
            Self::Database => (4, 0, b"", 0),
            Self::Tables => (5, 0, b"", 0),
            Self::Table(None, name) => (6, 0, name, 0),
            Self::Table(Some(schema), name) => (7, hash(schema), name, 0),
            Self::Tag(word) => (8, 0, word, 0),
            Self::Shape(shape) => (9, shape, b"", 0),
        };
        let mut bytes = [0; 9];
        bytes[0] = kind;
        bytes[1..].copy_from_slice(&u64::to_be_bytes(number));
        let database = if self == Self::Everything { "" } else { database };
        let seed = xxh3_64_with_seed(&bytes, xxh3_64_with_seed(database.as_bytes(), history));
        let hash = xxh3_64_with_seed(text, seed);
        match self {
            Self::Row(..) => (SLOTS as u64 + hash % ROWS as u64) as u32,
            _ => (hash % SLOTS as u64) as u32,
        }
    }
}

#[derive(Debug, Default)]
struct Slot {
    /// Where the newest commit ended that has changed it.
    lsn: AtomicU64,
    /// Whatever began before is void, microseconds of the process's clock.
    us: AtomicU64,
}

/// The slots.
#[derive(Debug)]
pub struct Marks {
    slots: Box<[Slot]>,
    /// Of rows: where the newest commit ended that has changed one.
    rows: OnceLock<Box<[AtomicU64]>>,
    /// The newest `us` of all: what began later need not be looked at.
    newest_us: AtomicU64,
}

impl Default for Marks {
    fn default() -> Self {
        let slots = (0..SLOTS).map(|_| Slot::default()).collect();
        Self { slots, rows: OnceLock::new(), newest_us: AtomicU64::new(0) }
    }
}

impl Marks {
    /// A commit that ends at `lsn` has changed this.
    pub fn changed(&self, slot: u32, lsn: u64) {
        if let Some(slot) = self.slots.get(slot as usize) {
            slot.lsn.fetch_max(lsn, Relaxed);
        } else if let Some(row) = (slot as usize).checked_sub(SLOTS).filter(|row| *row < ROWS) {
            let rows = self.rows.get_or_init(|| (0..ROWS).map(|_| AtomicU64::new(0)).collect());
            if let Some(known) = rows.get(row) {
                known.fetch_max(lsn, Relaxed);
            }
        }
    }

    /// What hangs on this and began at or before `us` is void.
    pub fn void(&self, slot: u32, us: u64) {
        if let Some(slot) = self.slots.get(slot as usize) {
            slot.us.fetch_max(us, Relaxed);
            self.newest_us.fetch_max(us, Release);
        }
    }

    /// Something that no slot is of was called void that began at or before `us`.
    pub fn reach(&self, us: u64) {
        self.newest_us.fetch_max(us, Release);
    }

    /// When anything was called void last, microseconds; 0: never.
    #[must_use]
    pub fn newest_us(&self) -> u64 {
        self.newest_us.load(Acquire)
    }

    /// Whether nothing of this is void for who began at `began_us`.
    #[must_use]
    pub fn stand(&self, slots: &[u32], began_us: u64) -> bool {
        self.newest_us() < began_us
            || slots.iter().all(|slot| {
                let slot = self.slots.get(*slot as usize);
                let us = slot.map_or(u64::MAX, |slot| slot.us.load(Relaxed));
                // What began before the process's clock did began at 0, too.
                us == 0 || us < began_us
            })
    }

    /// Whether nothing of this has changed since: in commits that end behind `lsn`, or for who began at `began_us`. Whoever needs to see
    /// marks up to a certain one must have acquired what was released behind it: see [`super::feed`].
    #[must_use]
    pub fn hold(&self, slots: &[u32], lsn: u64, began_us: u64) -> bool {
        slots.iter().all(|slot| {
            let known = self.slots.get(*slot as usize);
            let holds = |known: &Slot| known.lsn.load(Relaxed) <= lsn && known.us.load(Relaxed) < began_us;
            known.map_or_else(|| self.row_holds(*slot, lsn), holds)
        })
    }

    fn row_holds(&self, slot: u32, lsn: u64) -> bool {
        let row = (slot as usize).checked_sub(SLOTS).filter(|row| *row < ROWS);
        // Before the first that changes none has.
        let newest = |row: usize| self.rows.get().map_or(Some(0), |rows| Some(rows.get(row)?.load(Relaxed)));
        row.and_then(newest).is_some_and(|newest| newest <= lsn)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_change_voids_what_does_not_show_it_and_nothing_else() {
        let marks = Marks::default();
        let slot = |oid| Dependency::Relation(oid).slot("shop", 7);
        let (a, b) = (slot(16384), slot(16385));
        assert!(a != b && marks.hold(&[a, b], 0, 1));
        marks.changed(a, 100);
        assert!(!marks.hold(&[b, a], 99, 1) && marks.hold(&[a, b], 100, 1) && marks.hold(&[b], 0, 1));
        // What is found out late of an older one changes nothing.
        marks.changed(a, 50);
        assert!(!marks.hold(&[a], 99, 1));
        marks.void(b, 10);
        assert!(!marks.hold(&[b], 100, 10) && marks.hold(&[b], 100, 11) && marks.hold(&[a], 100, 1));
        // Where only that counts.
        assert!(!marks.stand(&[a, b], 10) && marks.stand(&[a, b], 11) && marks.stand(&[a], 10));
        assert!(!marks.stand(&[SLOTS as u32], 10));
        assert!(marks.stand(&[a], 0) && !marks.stand(&[b], 0) && Marks::default().stand(&[a, b], 0));
        // No slot is no promise.
        assert!(!marks.hold(&[(SLOTS + ROWS) as u32], 100, 100));
    }

    #[test]
    fn rows_have_slots_of_their_own() {
        let (marks, slot) = (Marks::default(), |what: Dependency<'_>| what.slot("shop", 7));
        let [row, other, table] =
            [Dependency::Row(16384, 5), Dependency::Row(16384, 6), Dependency::Relation(16384)].map(slot);
        assert!(row as usize >= SLOTS && other as usize >= SLOTS && row != other);
        assert!(slot(Dependency::Row(16385, 5)) != row && Dependency::Row(16384, 5).slot("shop", 8) != row);
        assert!(marks.hold(&[row, other, table], 0, 1));
        marks.changed(row, 100);
        assert!(!marks.hold(&[row], 99, 1) && marks.hold(&[row], 100, 1) && marks.hold(&[other, table], 0, 1));
        let last = (SLOTS + ROWS - 1) as u32;
        assert!(marks.hold(&[last], 0, 1));
        marks.changed(last + 1, 100);
        assert!(marks.hold(&[last], 0, 1) && !marks.hold(&[last + 1], 100, 1));
    }

    #[test]
    fn slots_are_of_a_database_and_a_history() {
        let relation = Dependency::Relation(16384);
        let slots =
            [relation.slot("a", 1), relation.slot("b", 1), relation.slot("a", 2), Dependency::Schema.slot("a", 1)];
        assert!((1..4).all(|n| !slots[n..].contains(&slots[n - 1])), "{slots:?}");
        assert_eq!(Dependency::Life.slot("a", 1), Dependency::Life.slot("a", 2));
        assert_eq!(Dependency::Everything.slot("a", 0), Dependency::Everything.slot("b", 0));
        let of_a = [
            Dependency::Database,
            Dependency::Tables,
            Dependency::Table(None, b"t"),
            Dependency::Table(Some(b"s"), b"t"),
            Dependency::Table(Some(b"t"), b"s"),
            Dependency::Tag(b"t"),
            Dependency::Shape(7),
        ];
        let mut slots: Vec<u32> = of_a.iter().flat_map(|it| [it.slot("a", 0), it.slot("b", 0)]).collect();
        slots.sort_unstable();
        slots.dedup();
        assert_eq!(slots.len(), 2 * of_a.len());
        // Written down elsewhere: never another.
        assert_eq!(relation.slot("shop", 7), relation.slot("shop", 7));
    }
}
