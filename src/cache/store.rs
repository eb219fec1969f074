//! Where answers are kept: one store for all workers, bounded in bytes, each tenant in its part of them.
//! Must never keep more than it may, nor let one tenant take the room of another beyond that one's part.
//!
//! The `quick_cache` crate does the work: lookups share a lock per shard, which a worker that keeps an answer takes for itself for a
//! moment; what stays is decided by Clock-PRO, which one long scan does not flush. It was chosen over `moka` (W-TinyLFU) on traces of 5 M
//! gets over 1 M keys, values of 0.2 to 2 KB, room for 5 % of all bytes, keys of 180 bytes, one thread of 2 cores:
//!
//! | trace | quick_cache 0.7 | moka 0.12 | S3-FIFO, simulated |
//! |---|---|---|---|
//! | Zipf 0.9 | 62.7 %, 163 ns per hit | 60.0 %, 450 ns | 61.7 % |
//! | Zipf 1.0 | 76.6 %, 142 ns | 74.9 %, 624 ns | 75.8 % |
//! | Zipf 0.9, a fifth of it scans of keys asked for once | 47.3 %, 159 ns | 44.2 %, 515 ns | 46.2 % |
//!
//! Once it is full it is asked to keep only what was asked for before ([`super::seen`]), which leaves the hit ratios as they are (in
//! `hit_ratio_tests.rs`: 76.3 % of Zipf 1.0) and a miss at a third of its cost.
//!
//! It knows neither times nor tenants. Answers whose time is over are found when they are asked for, or go as others do. A tenant with
//! more than its part gives up its own oldest, but for those that were asked for since (a second chance, as in CLOCK).

use std::collections::BTreeMap;
use std::sync::atomic::Ordering::{AcqRel, Acquire, Relaxed};
use std::sync::atomic::{AtomicBool, AtomicU64, AtomicUsize};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use arc_swap::ArcSwap;
use foldhash::fast::RandomState;
use quick_cache::sync::{Cache, DefaultLifecycle};
use quick_cache::{Lifecycle, Weighter};

use super::entry::{Account, Entry, Tenant};
use super::feed::Feed;
use super::fence::Fence;
use super::hearing::Hearing;
use super::key::{Hashed, Owned};
use super::oldest::Oldest;
use super::seen::Seen;
use super::signal::Signals;
use crate::config;

/// How many answers can be kept at the same moment, if nothing else stands in the way.
const STRIPES: usize = 64;
/// How many of a tenant's answers are looked at to find one that it gives up.
const CHANCES: usize = 16;

/// Held by who keeps an answer under a key of its. Of a cache line of its own.
#[derive(Default)]
#[repr(align(64))]
struct Stripe(Mutex<()>);

#[derive(Clone, Debug)]
struct Cost;

impl Weighter<Owned, Arc<Entry>> for Cost {
    fn weight(&self, _: &Owned, entry: &Arc<Entry>) -> u64 {
        entry.bytes
    }
}

/// Counts what has to go for others.
#[derive(Clone, Debug)]
struct Going(DefaultLifecycle<Owned, Arc<Entry>>, Arc<Seen>);

impl Lifecycle<Owned, Arc<Entry>> for Going {
    type RequestState = <DefaultLifecycle<Owned, Arc<Entry>> as Lifecycle<Owned, Arc<Entry>>>::RequestState;

    // Not of what is replaced.
    fn before_evict(&self, _: &mut Self::RequestState, key: &Owned, entry: &mut Arc<Entry>) {
        entry.is_evicted();
        self.1.set_full(true);
        self.1.note(key.as_ref().hash());
    }

    fn on_evict(&self, state: &mut Self::RequestState, key: Owned, entry: Arc<Entry>) {
        self.0.on_evict(state, key, entry);
    }
}

/// Whether an answer is worth keeping where others have to go for it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Demand {
    /// It is.
    Wanted,
    /// It is not.
    None,
    /// If it was asked for before.
    Unknown,
}

/// What becomes of an answer.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Put {
    /// It is kept, unless it is too long for that.
    Kept,
    /// It is not: others would have to go for it, and it was never asked for before.
    Once,
    /// It is not: it is not certain that it is newer than the one that is kept already, as it began before that had come. That stays, or its
    /// readers might go back in time; and whoever was told the other must not be told this one.
    Older,
}

/// The answers of all workers.
pub struct Store {
    kept: Cache<Owned, Arc<Entry>, Cost, RandomState, Going>,
    seen: Arc<Seen>,
    stripes: [Stripe; STRIPES],
    /// Another whenever what is kept by then is void.
    epoch: AtomicU64,
    longest: AtomicUsize,
    tenant_bytes: AtomicU64,
    tenants: Mutex<BTreeMap<Box<[u8]>, Arc<Tenant>>>,
    signals: Arc<Signals>,
    /// By the name of the database.
    feeds: Mutex<BTreeMap<Box<str>, Arc<Feed>>>,
    hearings: Mutex<BTreeMap<Box<str>, Arc<Hearing>>>,
    fences: Mutex<BTreeMap<Box<str>, Arc<Fence>>>,
    /// Shapes of which nothing is kept, by database, each with whether it is certain that something wrong was kept; and whether there are any.
    disabled: ArcSwap<BTreeMap<(Box<str>, u64), bool>>,
    disables: AtomicBool,
}

impl std::fmt::Debug for Store {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "Store({} answers)", self.kept.len())
    }
}

impl Store {
    /// An empty one, whose answers these signals concern.
    #[must_use]
    pub fn new(config: &config::Cache, signals: Arc<Signals>) -> Self {
        // Of this size tables are at first; it is no limit.
        let answers = usize::try_from(config.max_bytes / 2048).unwrap_or(usize::MAX).clamp(16, 1 << 20);
        let seen = Arc::new(Seen::new(config.max_bytes));
        let going = Going(DefaultLifecycle::default(), Arc::clone(&seen));
        Self {
            kept: Cache::with(answers, config.max_bytes, Cost, RandomState::default(), going),
            seen,
            stripes: std::array::from_fn(|_| Stripe::default()),
            epoch: AtomicU64::new(1),
            longest: AtomicUsize::new(config.max_entry_bytes),
            tenant_bytes: AtomicU64::new(config.max_tenant_bytes()),
            tenants: Mutex::default(),
            signals,
            feeds: Mutex::default(),
            hearings: Mutex::default(),
            fences: Mutex::default(),
            disabled: ArcSwap::default(),
            disables: AtomicBool::new(false),
        }
    }

    /// Takes other limits over, and gives every shape another chance.
    pub fn resize(&self, config: &config::Cache) {
        self.disabled.store(Arc::default());
        self.disables.store(false, Relaxed);
        if self.kept.capacity() != config.max_bytes {
            self.kept.set_capacity(config.max_bytes);
            self.seen.resize(config.max_bytes);
        }
        self.longest.store(config.max_entry_bytes, Relaxed);
        self.tenant_bytes.store(config.max_tenant_bytes(), Relaxed);
    }

    /// The account of the tenant of this name, a user of a database: looked up when a worker meets its first client.
    pub fn tenant(&self, name: &[u8], database: &str) -> Arc<Tenant> {
        let mut tenants = self.tenants.lock().unwrap_or_else(PoisonError::into_inner);
        Arc::clone(tenants.entry(name.into()).or_insert_with(|| Arc::new(Tenant::new(database))))
    }

    /// What is kept for each database that anything was kept for.
    pub fn accounts(&self) -> BTreeMap<Box<str>, Account> {
        let tenants = self.tenants.lock().unwrap_or_else(PoisonError::into_inner);
        let mut accounts: BTreeMap<Box<str>, Account> = BTreeMap::new();
        for tenant in tenants.values() {
            let (one, all) = (tenant.account(), accounts.entry(tenant.database().into()).or_default());
            all.entries += one.entries;
            all.bytes += one.bytes;
            all.evicted += one.evicted;
        }
        accounts
    }

    /// What takes back answers.
    pub fn signals(&self) -> &Arc<Signals> {
        &self.signals
    }

    /// Since when the notifications of this database are heard: looked up when a worker needs it first.
    pub fn hearing(&self, database: &str) -> Arc<Hearing> {
        let mut hearings = self.hearings.lock().unwrap_or_else(PoisonError::into_inner);
        Arc::clone(hearings.entry(database.into()).or_default())
    }

    /// What is known of the changes of this database: looked up when a worker needs it first.
    pub fn feed(&self, database: &str) -> Arc<Feed> {
        let mut feeds = self.feeds.lock().unwrap_or_else(PoisonError::into_inner);
        let made = || Arc::new(Feed::new(database, Arc::clone(self.signals.marks())));
        Arc::clone(feeds.entry(database.into()).or_insert_with(made))
    }

    /// The fence around this database: looked up when a worker needs it first.
    pub fn fence(&self, database: &str) -> Arc<Fence> {
        let mut fences = self.fences.lock().unwrap_or_else(PoisonError::into_inner);
        Arc::clone(fences.entry(database.into()).or_default())
    }

    /// Those of all databases that there is one around.
    pub fn fences(&self) -> BTreeMap<Box<str>, Arc<Fence>> {
        self.fences.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// Those of all databases that anybody has asked about.
    pub fn hearings(&self) -> BTreeMap<Box<str>, Arc<Hearing>> {
        self.hearings.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// Nothing of this shape is kept or given any more: it is `certain`, or not known yet, that something wrong was.
    pub fn disable(&self, database: &str, shape: u64, certain: bool) {
        self.disabled.rcu(|before| {
            let mut after = BTreeMap::clone(before);
            *after.entry((Box::from(database), shape)).or_default() |= certain;
            after
        });
        self.disables.store(true, Relaxed);
    }

    /// Answers of this shape may be kept again.
    pub fn enable(&self, database: &str, shape: u64) {
        self.disabled.rcu(|before| {
            let mut after = BTreeMap::clone(before);
            after.remove(&(Box::from(database), shape));
            after
        });
        self.disables.store(!self.disabled.load().is_empty(), Relaxed);
    }

    /// Whether that was said of this shape. Where it was said of none this is one load.
    pub fn is_disabled(&self, database: &str, shape: u64) -> bool {
        self.disables.load(Relaxed) && self.disabled.load().keys().any(|(of, it)| (&**of, *it) == (database, shape))
    }

    /// The shapes of which it was said, and whether it is certain.
    pub fn disabled(&self) -> Arc<BTreeMap<(Box<str>, u64), bool>> {
        self.disabled.load_full()
    }

    /// Part of every key: what is kept under another number is void.
    pub fn epoch(&self) -> u64 {
        self.epoch.load(Acquire)
    }

    /// What is kept by now is void: the schema has changed. The number from now on.
    pub fn renew(&self) -> u64 {
        self.epoch.fetch_add(1, AcqRel) + 1
    }

    /// Longest answer that is kept, bytes.
    pub fn longest(&self) -> usize {
        self.longest.load(Relaxed)
    }

    /// The answer under this key, whatever its age.
    pub fn get(&self, key: Hashed<'_>) -> Option<Arc<Entry>> {
        self.kept.get(&key)
    }

    /// Whether something of this hash was asked for before, as far as that is known. It was from now on.
    pub fn was_seen(&self, hash: u64) -> bool {
        self.seen.note(hash)
    }

    /// Looks whether there is room again.
    pub fn look_for_room(&self) {
        if self.kept.weight() < self.kept.capacity() / 8 * 7 {
            self.seen.set_full(false);
        }
    }

    /// Keeps an answer, if it is newer than the one that is kept already, and worth it.
    pub fn put(&self, key: Owned, entry: impl Into<Arc<Entry>>, demand: Demand) -> Put {
        let entry = entry.into();
        let most = self.tenant_bytes.load(Relaxed);
        let stripe = usize::try_from(key.as_ref().hash() % STRIPES as u64).unwrap_or_default();
        let stripe = self.stripes.get(stripe).map(|stripe| stripe.0.lock().unwrap_or_else(PoisonError::into_inner));
        match self.kept.peek(&key) {
            Some(known) if known.done_us >= entry.stamp.began_us => return Put::Older,
            None => {
                let is_wanted = match demand {
                    Demand::Wanted => true,
                    Demand::None => !self.is_full(entry.tenant()),
                    Demand::Unknown => self.admits(key.as_ref(), entry.tenant()),
                };
                if !is_wanted {
                    return Put::Once;
                }
            }
            Some(_) => {}
        }
        if entry.bytes > most || entry.bytes > self.kept.shard_capacity() {
            self.kept.remove(&key);
            return Put::Kept;
        }
        // The tenant's keys are its own until the answer is there: or it would count as gone.
        let tenant = (most < self.kept.capacity()).then(|| Arc::clone(entry.tenant()));
        let oldest = tenant.as_ref().map(|tenant| self.make_room(tenant, &entry, most, &key));
        self.kept.insert(key, entry);
        drop((oldest, stripe));
        Put::Kept
    }

    /// Whether an answer under this key, where there is none, is worth keeping: no other has to go for it, or it was asked for before. It was
    /// from now on.
    pub fn admits(&self, key: Hashed<'_>, tenant: &Tenant) -> bool {
        !self.is_full(tenant) || self.seen.note(key.hash())
    }

    /// Whether others have to go for what this tenant gets.
    fn is_full(&self, tenant: &Tenant) -> bool {
        self.seen.is_full() || tenant.is_full(self.tenant_bytes.load(Relaxed))
    }

    /// The tenant, which may have so many bytes, gets this answer.
    fn make_room<'a>(&self, tenant: &'a Tenant, entry: &Entry, most: u64, key: &Owned) -> MutexGuard<'a, Oldest> {
        let known = |key: &Owned, number| self.kept.peek(key).filter(|known| known.number.load(Relaxed) == number);
        let mut oldest = tenant.oldest.lock().unwrap_or_else(PoisonError::into_inner);
        let mut chances = CHANCES;
        while tenant.bytes() > most
            && let Some((key, number)) = oldest.pop()
        {
            let Some(known) = known(&key, number) else { continue };
            if chances > 0 && known.used.swap(false, Relaxed) {
                chances -= 1;
                oldest.again(key, number);
            } else {
                known.is_evicted();
                tenant.set_full(true);
                self.forget(key.as_ref(), &known);
            }
        }
        let number = oldest.push(key.clone(), |key, number| known(key, number).is_some());
        entry.number.store(number, Relaxed);
        oldest
    }

    /// There is a newer answer than the one that is kept, and it is not kept.
    pub fn remove(&self, key: Hashed<'_>) {
        self.kept.remove(&key);
    }

    /// Takes an answer away whose time is over, unless another has come in its place.
    pub fn forget(&self, key: Hashed<'_>, entry: &Arc<Entry>) {
        // Whoever asks for it now has another to be kept.
        self.seen.note(key.hash());
        self.kept.remove_if(&key, |kept| Arc::ptr_eq(kept, entry));
    }

    /// How many answers are kept.
    pub fn len(&self) -> usize {
        self.kept.len()
    }

    /// None is.
    pub fn is_empty(&self) -> bool {
        self.kept.is_empty()
    }

    /// Bytes of all answers, with their keys.
    pub fn bytes(&self) -> u64 {
        self.kept.weight()
    }
}

#[cfg(test)]
#[path = "store_tests.rs"]
mod tests;

#[cfg(test)]
#[path = "hit_ratio_tests.rs"]
mod hit_ratio;
