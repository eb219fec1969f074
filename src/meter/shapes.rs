//! Bounded table of statement shapes: one writer per table, readers through a lock-free view.
//! Never loses a call: what a shape counted before it was displaced goes to its pool's `other`.
//!
//! The table approximates Space-Saving (Metwally, Agrawal, El Abbadi: *Efficient Computation of Frequent and Top-k
//! Elements in Data Streams*, ICDT 2005), weighted by time. Two things differ. The entry displaced is not the smallest
//! of the table but the smallest of 8 random slots, so that a newcomer costs a constant. And a newcomer starts
//! with half the weight of what it displaced, not all of it: with all of it the slots that only change hands rise
//! above shapes of middling weight and push them out. In a simulation of 400,000 to 600,000 calls to 200,000 shapes by
//! Zipf's law (exponents 0.9 and 1) through 500 slots all of it lost 2 and 9 of the true top 50; half and nothing lost
//! none. Half was taken so that a newcomer is not the first to go.
//!
//! Error. Sums over all entries and `other` are exact. An entry shows what it counted since it entered, a lower bound;
//! all it may have had before went to its pool's `other`, so the true time lies in
//! `total_us ..= total_us + missed_us_max` with what `other` held at entry. An entry among the heaviest share p of the
//! slots is displaced with probability at most p^8 per newcomer: 10^-8 for the top tenth, 1.5 * 10^-5 for the top
//! quarter; and it enters again with its next call.
//!
//! Memory: at most `capacity` entries of `size_of::<ShapeStats>()` (4.9 KiB) plus [`TEXT_BYTES_MAX`] of text, the
//! index, and one entry per pool. Pools are never removed from a table.

use std::collections::HashMap;
use std::sync::Arc;

use arc_swap::{ArcSwap, ArcSwapOption};
use foldhash::fast::RandomState;

use super::counters::Counter;
use super::histogram::Histogram;

/// Slots looked at to find one to displace.
const SAMPLE: usize = 8;
/// Longest statement text kept, in bytes; longer ones are cut at a character.
pub const TEXT_BYTES_MAX: usize = 1024;
/// Index of a [`SlotId`] that stands for no slot; a table never has that many.
const NO_SLOT: u32 = u32::MAX;

/// Database and user that a shape was run under.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct PoolLabel {
    /// Name of the database as clients give it.
    pub database: Arc<str>,
    /// Name of the user.
    pub user: Arc<str>,
}

/// What one finished statement took.
#[derive(Debug, Clone, Copy, Default)]
pub struct Sample {
    /// Time in which the client waited for a server, µs.
    pub wait_us: u64,
    /// Time from sending the statement to the end of its reply, µs.
    pub server_us: u64,
    /// Rows returned or affected.
    pub rows: u64,
    /// Whether the server answered with an ErrorResponse.
    pub error: bool,
}

/// Numbers of one shape in one pool on one worker, or of a pool's `other`.
#[derive(Debug)]
pub struct ShapeStats {
    /// Shape (hash of the token stream); none for the entry that collects displaced shapes.
    pub shape: Option<u64>,
    /// Pool.
    pub pool: Arc<PoolLabel>,
    /// Normalised text, at most [`TEXT_BYTES_MAX`] bytes; empty for `other`.
    pub text: Box<str>,
    /// Most time in µs this shape can have had before it entered the table: 0 if the numbers are complete.
    pub missed_us_max: u64,
    /// Calls, also failed ones.
    pub calls: Counter,
    /// Calls that failed.
    pub errors: Counter,
    /// Rows returned or affected.
    pub rows: Counter,
    /// Wait plus server time, µs: what the table ranks by.
    pub total_us: Counter,
    /// Wait for a server.
    pub wait: Histogram,
    /// Server time.
    pub server: Histogram,
    /// Wait plus server time of each call; cannot be had from the other two.
    pub total: Histogram,
}

impl ShapeStats {
    fn new(shape: Option<u64>, pool: Arc<PoolLabel>, text: Box<str>, missed_us_max: u64) -> Self {
        Self {
            shape,
            pool,
            text,
            missed_us_max,
            calls: Counter::new(),
            errors: Counter::new(),
            rows: Counter::new(),
            total_us: Counter::new(),
            wait: Histogram::new(),
            server: Histogram::new(),
            total: Histogram::new(),
        }
    }

    fn record(&self, sample: &Sample) {
        let total_us = sample.wait_us.saturating_add(sample.server_us);
        self.calls.add(1);
        self.errors.add(u64::from(sample.error));
        self.rows.add(sample.rows);
        self.total_us.add(total_us);
        self.wait.record(sample.wait_us);
        self.server.record(sample.server_us);
        self.total.record(total_us);
    }

    fn absorb(&self, other: &ShapeStats) {
        self.calls.add(other.calls.get());
        self.errors.add(other.errors.get());
        self.rows.add(other.rows.get());
        self.total_us.add(other.total_us.get());
        self.wait.absorb(&other.wait);
        self.server.absorb(&other.server);
        self.total.absorb(&other.total);
    }
}

/// The readers' side of a [`ShapeTable`].
#[derive(Debug)]
pub struct ShapeView {
    slots: Box<[ArcSwapOption<ShapeStats>]>,
    others: ArcSwap<Vec<Arc<ShapeStats>>>,
}

impl ShapeView {
    /// Calls `visit` with every entry: first each pool's `other`, then the shapes.
    ///
    /// A shape displaced meanwhile may be missing for this one visit, but is never counted twice.
    pub fn for_each(&self, mut visit: impl FnMut(&Arc<ShapeStats>)) {
        self.others.load().iter().for_each(&mut visit);
        for slot in &self.slots {
            if let Some(stats) = slot.load().as_ref() {
                visit(stats);
            }
        }
    }
}

/// Names a slot of one table as it was when the id was given out.
///
/// May be kept as long as wanted: once the slot has another shape the id is stale, and what is recorded under it goes
/// to its pool's `other`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct SlotId {
    index: u32,
    generation: u32,
    pool: u32,
}

#[derive(Debug, PartialEq, Eq, Hash, Clone, Copy)]
struct Key {
    shape: u64,
    pool: u32,
}

#[derive(Debug)]
struct Slot {
    key: Key,
    generation: u32,
    /// Weight at entry.
    head_start_us: u64,
    stats: Arc<ShapeStats>,
}

impl Slot {
    /// What the table ranks by.
    fn weight_us(&self) -> u64 {
        self.head_start_us.saturating_add(self.stats.total_us.get())
    }
}

/// The writer's side: owned by one worker.
#[derive(Debug)]
pub struct ShapeTable {
    view: Arc<ShapeView>,
    slots: Vec<Slot>,
    index: HashMap<Key, u32, RandomState>,
    /// By pool; the first is for pool numbers that were never given out.
    others: Vec<Arc<ShapeStats>>,
    random: u64,
}

impl ShapeTable {
    /// A table for at most `capacity` shapes; with 0 everything is counted under `other`.
    pub fn new(capacity: usize) -> Self {
        let capacity = capacity.min(NO_SLOT as usize - 1);
        let nobody = PoolLabel { database: "".into(), user: "".into() };
        let others = vec![Arc::new(ShapeStats::new(None, Arc::new(nobody), "".into(), 0))];
        let view = ShapeView {
            slots: (0..capacity).map(|_| ArcSwapOption::empty()).collect(),
            others: ArcSwap::from_pointee(others.clone()),
        };
        Self {
            view: Arc::new(view),
            slots: Vec::with_capacity(capacity),
            index: HashMap::with_capacity_and_hasher(capacity, RandomState::default()),
            others,
            random: 0x9E37_79B9_7F4A_7C15,
        }
    }

    /// The readers' side, to be given to the registry.
    pub fn view(&self) -> Arc<ShapeView> {
        Arc::clone(&self.view)
    }

    /// Adds a pool and returns the number to use for it in [`ShapeTable::slot`] of this table.
    pub fn add_pool(&mut self, label: PoolLabel) -> u32 {
        if let Some(number) = self.others.iter().position(|other| *other.pool == label) {
            return number as u32;
        }
        let number = self.others.len() as u32;
        let other = ShapeStats::new(None, Arc::new(label), "".into(), 0);
        self.others.push(Arc::new(other));
        self.view.others.store(Arc::new(self.others.clone()));
        number
    }

    /// The slot of a shape in a pool, displacing another if it is new and the table is full; `text` is called only for
    /// a new shape. One hash probe when known. A pool number this table never gave out counts under an empty label.
    ///
    /// Best called when the statement has finished, right before [`ShapeTable::record`].
    pub fn slot(&mut self, pool: u32, shape: u64, text: impl FnOnce() -> String) -> SlotId {
        let key = Key { shape, pool };
        match self.index.get(&key) {
            Some(&index) => self.id(index, pool),
            None => self.enter(key, text()),
        }
    }

    /// Whether the id still names the shape it was given out for.
    pub fn is_current(&self, id: SlotId) -> bool {
        let slot = self.slots.get(id.index as usize);
        slot.is_some_and(|slot| slot.generation == id.generation)
    }

    /// Counts a finished statement. False if the id was stale: then it was counted under the pool's `other`, and
    /// [`ShapeTable::slot`] is to be asked again before the next one.
    pub fn record(&mut self, id: SlotId, sample: &Sample) -> bool {
        match self.slots.get(id.index as usize) {
            Some(slot) if slot.generation == id.generation => {
                slot.stats.record(sample);
                true
            }
            Some(_) | None => {
                if let Some(other) = self.other(id.pool) {
                    other.record(sample);
                }
                false
            }
        }
    }

    /// Mean server time of the slot's shape, µs; 0 if the id is stale or nothing was counted.
    pub fn mean_us(&self, id: SlotId) -> u64 {
        let slot = self.slots.get(id.index as usize).filter(|slot| slot.generation == id.generation);
        slot.map_or(0, |slot| slot.stats.server.sum_us().checked_div(slot.stats.calls.get()).unwrap_or(0))
    }

    fn id(&self, index: u32, pool: u32) -> SlotId {
        let generation = self.slots.get(index as usize).map_or(0, |s| s.generation);
        SlotId { index, generation, pool }
    }

    /// The `other` of a pool; there is always one, as the first entry exists from the start.
    fn other(&self, pool: u32) -> Option<&Arc<ShapeStats>> {
        self.others.get(pool as usize).or(self.others.first())
    }

    fn enter(&mut self, key: Key, mut text: String) -> SlotId {
        let Some(other) = self.other(key.pool) else {
            return self.id(NO_SLOT, key.pool);
        };
        text.truncate(text.floor_char_boundary(TEXT_BYTES_MAX));
        let (pool, missed_us) = (Arc::clone(&other.pool), other.total_us.get());
        let stats = Arc::new(ShapeStats::new(Some(key.shape), pool, text.into(), missed_us));
        let index = if self.slots.len() < self.view.slots.len() {
            self.slots.push(Slot { key, generation: 0, head_start_us: 0, stats: Arc::clone(&stats) });
            self.slots.len() as u32 - 1
        } else {
            let Some(index) = self.lightest() else {
                return self.id(NO_SLOT, key.pool);
            };
            self.displace(index, key, &stats);
            index
        };
        self.index.insert(key, index);
        if let Some(shown) = self.view.slots.get(index as usize) {
            shown.store(Some(stats));
        }
        self.id(index, key.pool)
    }

    /// Replaces the entry of a slot, folding its numbers into its pool's `other` before readers see it gone.
    fn displace(&mut self, index: u32, key: Key, stats: &Arc<ShapeStats>) {
        let Some(slot) = self.slots.get_mut(index as usize) else {
            return;
        };
        slot.head_start_us = slot.weight_us() / 2;
        slot.generation = slot.generation.wrapping_add(1);
        let old = std::mem::replace(&mut slot.stats, Arc::clone(stats));
        let old_key = std::mem::replace(&mut slot.key, key);
        self.index.remove(&old_key);
        if let Some(other) = self.other(old_key.pool) {
            other.absorb(&old);
        }
    }

    /// The slot of the smallest weight among a few random ones; none in a table without slots.
    fn lightest(&mut self) -> Option<u32> {
        let mut best: Option<(u64, u32)> = None;
        for _ in 0..SAMPLE {
            let index = self.random_below(self.slots.len() as u64) as u32;
            let Some(slot) = self.slots.get(index as usize) else {
                continue;
            };
            let candidate = (slot.weight_us(), index);
            best = Some(best.map_or(candidate, |best| best.min(candidate)));
        }
        best.map(|(_, index)| index)
    }

    /// xorshift64 (Marsaglia 2003), scaled to `0..bound` by Lemire's multiply-shift; good enough to sample slots.
    fn random_below(&mut self, bound: u64) -> u64 {
        self.random ^= self.random << 13;
        self.random ^= self.random >> 7;
        self.random ^= self.random << 17;
        ((u128::from(self.random) * u128::from(bound)) >> 64) as u64
    }
}

#[cfg(test)]
#[path = "shapes_tests.rs"]
mod tests;
