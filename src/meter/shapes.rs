//! Bounded table of statement shapes: one writer per table, readers through a lock-free view.
//! Never loses a call: what a shape counted before it was displaced goes to the `other` of its place.
//!
//! A shape has an entry per place: database, user, and who answered. So a read that goes to the primary and to two replicas has three.
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
//! all it may have had before went to its place's `other`, so the true time lies in
//! `total_us ..= total_us + missed_us_max` with what `other` held at entry. An entry among the heaviest share p of the
//! slots is displaced with probability at most p^8 per newcomer: 10^-8 for the top tenth, 1.5 * 10^-5 for the top
//! quarter; and it enters again with its next call.
//!
//! Beside them up to 50 that were displaced stay for their longest statement, and as many for their errors (`notable`).
//!
//! Memory: at most `capacity` entries, and those 100, of `size_of::<ShapeStats>()` (8.8 KiB), as much again after a reset, plus
//! [`TEXT_BYTES_MAX`] of text, the index, and one entry per place that had a shape
//! displaced. Places are never removed from a table.

use std::collections::HashMap;
use std::sync::Arc;

use arc_swap::{ArcSwap, ArcSwapOption};
use foldhash::fast::RandomState;

use super::exemplar::{Exemplar, Exemplars};
use super::notable::Notables;
use super::sample::{ErrorClass, Phase, Place, PoolLabel, Sample, Target};
use super::shape_stats::ShapeStats;

/// Slots looked at to find one to displace.
const SAMPLE: usize = 8;
/// Longest statement text kept, in bytes; longer ones are cut at a character.
pub const TEXT_BYTES_MAX: usize = 1024;
/// Index of a [`SlotId`] that stands for no slot; a table never has that many.
const NO_SLOT: u32 = u32::MAX;

/// The readers' side of a [`ShapeTable`].
#[derive(Debug)]
pub struct ShapeView {
    slots: Box<[ArcSwapOption<ShapeStats>]>,
    others: ArcSwap<Vec<Arc<ShapeStats>>>,
    notables: ArcSwap<Vec<Arc<ShapeStats>>>,
}

impl ShapeView {
    /// From now on [`super::Lately`] counts anew. Any thread may call this; it costs as much memory again as the entries take.
    pub(super) fn reset(&self) {
        // What is displaced meanwhile takes its mark along to `other`, which is marked last.
        self.notables.load().iter().for_each(|stats| stats.reset());
        self.slots.iter().filter_map(|slot| slot.load_full()).for_each(|stats| stats.reset());
        self.others.load().iter().for_each(|other| other.reset());
    }

    /// Calls `visit` with every entry: first each place's `other`, then the shapes, those that were displaced first.
    ///
    /// A shape displaced meanwhile may be missing for this one visit, but is never counted twice.
    pub fn for_each(&self, mut visit: impl FnMut(&Arc<ShapeStats>)) {
        self.others.load().iter().for_each(&mut visit);
        let notables = self.notables.load();
        notables.iter().for_each(&mut visit);
        for slot in &self.slots {
            if let Some(stats) = slot.load().as_ref()
                // One may have come back meanwhile.
                && !notables.iter().any(|seen| Arc::ptr_eq(seen, stats))
            {
                visit(stats);
            }
        }
    }
}

/// Names a slot of one table as it was when the id was given out.
///
/// May be kept as long as wanted: once the slot has another shape the id is stale, and what is recorded under it goes
/// to its place's `other`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct SlotId {
    index: u32,
    generation: u32,
    place: u32,
}

#[derive(Debug, PartialEq, Eq, Hash, Clone, Copy)]
pub(super) struct Key {
    shape: u64,
    place: u32,
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
    /// By number, with its `other` once that has something; the first is for numbers that were never given out.
    places: Vec<(Place, Option<Arc<ShapeStats>>)>,
    /// Displaced, and worth to be seen.
    notables: Notables,
    random: u64,
}

impl ShapeTable {
    /// A table for at most `capacity` shapes; with 0 everything is counted under `other`.
    pub fn new(capacity: usize) -> Self {
        let capacity = capacity.min(NO_SLOT as usize - 1);
        let nobody = PoolLabel { database: "".into(), user: "".into() };
        let nowhere = Place { pool: Arc::new(nobody), target: Target::Primary };
        let slots = (0..capacity).map(|_| ArcSwapOption::empty()).collect();
        let view = ShapeView { slots, others: ArcSwap::default(), notables: ArcSwap::default() };
        Self {
            view: Arc::new(view),
            slots: Vec::with_capacity(capacity),
            index: HashMap::with_capacity_and_hasher(capacity, RandomState::default()),
            places: vec![(nowhere, None)],
            notables: Notables::new(capacity),
            random: 0x9E37_79B9_7F4A_7C15,
        }
    }

    /// The readers' side, to be given to the registry.
    pub fn view(&self) -> Arc<ShapeView> {
        Arc::clone(&self.view)
    }

    /// Adds a place and returns the number to use for it in [`ShapeTable::slot`] of this table.
    pub fn add_place(&mut self, place: Place) -> u32 {
        if let Some(number) = self.places.iter().position(|(known, _)| *known == place) {
            return number as u32;
        }
        self.places.push((place, None));
        self.places.len() as u32 - 1
    }

    /// The slot of a shape in a place, displacing another if it is new and the table is full; `text` is called only for
    /// a new shape. One hash probe when known. A number this table never gave out counts under an empty label.
    ///
    /// Best called when the statement has finished, right before [`ShapeTable::record`].
    pub fn slot(&mut self, place: u32, shape: u64, text: impl FnOnce() -> String) -> SlotId {
        let key = Key { shape, place };
        match self.index.get(&key) {
            Some(&index) => self.id(index, place),
            None => self.enter(key, text()),
        }
    }

    /// Whether the id still names the shape it was given out for.
    pub fn is_current(&self, id: SlotId) -> bool {
        self.at(id).is_some()
    }

    /// Counts a finished statement. False if the id was stale: then it was counted under the place's `other`, and
    /// [`ShapeTable::slot`] is to be asked again before the next one.
    pub fn record(&mut self, id: SlotId, sample: &Sample) -> bool {
        if let Some(slot) = self.at(id) {
            slot.stats.record(sample);
            return true;
        }
        self.other(id.place).record(sample);
        false
    }

    /// Counts a statement that was refused, behind a wait of so long for a server, µs.
    pub fn record_unserved(&mut self, id: SlotId, wait_us: u64, class: ErrorClass) {
        let stats = self.at(id).map(|slot| Arc::clone(&slot.stats));
        stats.unwrap_or_else(|| Arc::clone(self.other(id.place))).ended(wait_us, wait_us, Some(class));
    }

    /// A statement that was counted kept its client reading for so long, µs.
    pub fn record_write(&mut self, id: SlotId, us: u64) {
        let stats = match self.at(id) {
            Some(slot) => &slot.stats,
            None => self.other(id.place),
        };
        stats.phases.get(Phase::Write as usize).into_iter().for_each(|all| all.record(us));
    }

    /// A statement that was counted can be seen in a trace. Nothing is noted of a shape that was displaced meanwhile.
    pub fn exemplify(&mut self, id: SlotId, exemplar: Exemplar) {
        if let Some(slot) = self.at(id) {
            let known = slot.stats.exemplars().map_or_else(Exemplars::default, |known| *known);
            slot.stats.exemplars.store(Some(Arc::new(known.with(exemplar))));
        }
    }

    /// Mean server time of the slot's shape, µs; 0 if the id is stale or nothing was counted.
    pub fn mean_us(&self, id: SlotId) -> u64 {
        self.at(id).map_or(0, |slot| slot.stats.mean_us())
    }

    /// The same of a shape; `None` if it has no slot, or nothing was counted.
    pub fn mean_of(&self, place: u32, shape: u64) -> Option<u64> {
        let slot = self.slots.get(*self.index.get(&Key { shape, place })? as usize)?;
        Some(slot.stats.mean_us()).filter(|_| slot.stats.calls.get() > 0)
    }

    fn at(&self, id: SlotId) -> Option<&Slot> {
        self.slots.get(id.index as usize).filter(|slot| slot.generation == id.generation)
    }

    fn id(&self, index: u32, place: u32) -> SlotId {
        let generation = self.slots.get(index as usize).map_or(0, |s| s.generation);
        SlotId { index, generation, place }
    }

    /// The `other` of a place, which readers see from now on.
    fn other(&mut self, place: u32) -> &Arc<ShapeStats> {
        let number = if (place as usize) < self.places.len() { place as usize } else { 0 };
        let (place, other) = &mut self.places[number];
        other.get_or_insert_with(|| {
            let other = Arc::new(ShapeStats::new(None, place, "".into(), 0));
            self.view.others.rcu(|all| all.iter().chain([&other]).cloned().collect::<Vec<_>>());
            other
        })
    }

    fn enter(&mut self, key: Key, mut text: String) -> SlotId {
        let Some((place, other)) = self.places.get(key.place as usize).or(self.places.first()) else {
            return self.id(NO_SLOT, key.place);
        };
        let back = self.notables.take(&key);
        let is_back = back.is_some();
        let stats = back.unwrap_or_else(|| {
            text.truncate(text.floor_char_boundary(TEXT_BYTES_MAX));
            let missed_us = other.as_ref().map_or(0, |other| other.total_us.get());
            Arc::new(ShapeStats::new(Some(key.shape), place, text.into(), missed_us))
        });
        let index = if self.slots.len() < self.view.slots.len() {
            self.slots.push(Slot { key, generation: 0, head_start_us: 0, stats: Arc::clone(&stats) });
            self.slots.len() as u32 - 1
        } else {
            let Some(index) = self.lightest() else {
                return self.id(NO_SLOT, key.place);
            };
            self.displace(index, key, &stats);
            index
        };
        self.index.insert(key, index);
        if let Some(shown) = self.view.slots.get(index as usize) {
            shown.store(Some(stats));
        }
        if is_back {
            self.show_notables();
        }
        self.id(index, key.place)
    }

    fn show_notables(&self) {
        self.view.notables.store(Arc::new(self.notables.shown()));
    }

    /// Replaces the entry of a slot, folding its numbers into its place's `other` before readers see it gone, unless it is worth to be seen.
    fn displace(&mut self, index: u32, key: Key, stats: &Arc<ShapeStats>) {
        let Some(slot) = self.slots.get_mut(index as usize) else {
            return;
        };
        slot.head_start_us = slot.weight_us() / 2;
        slot.generation = slot.generation.wrapping_add(1);
        let old = std::mem::replace(&mut slot.stats, Arc::clone(stats));
        let old_key = std::mem::replace(&mut slot.key, key);
        self.index.remove(&old_key);
        let fallen = self.notables.offer(old_key, Arc::clone(&old));
        if fallen.as_ref().is_none_or(|(key, _)| *key != old_key) {
            self.show_notables();
        }
        if let Some((key, fallen)) = fallen {
            self.other(key.place).absorb(&fallen);
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
