//! The store's hit ratio beside those of W-TinyLFU and S3-FIFO, simulated on the same trace.
//! Must never give either of them less than its paper does: what it estimates there is counted exactly here.
//!
//! W-TinyLFU: G. Einziger, R. Friedman, B. Manes, *TinyLFU: A Highly Efficient Cache Admission Policy* (ACM TOS 2017): a window of 1 %, a
//! segmented LRU of which 80 % are protected, frequencies up to 15 that are halved every ten times the capacity. S3-FIFO: J. Yang et al.,
//! *FIFO queues are all you need for cache eviction* (SOSP 2023): a tenth is small, as many ghosts as the main queue has room, up to three uses.

use std::collections::{BTreeMap, HashMap, VecDeque};

use foldhash::fast::RandomState;

use super::*;
use crate::cache::entry::{Source, Stamp};

const KEYS: usize = 1_000_000;
/// Room for 5 % of all.
const ROOM: usize = KEYS / 20;
/// The first quarter fills, and is not counted.
const GETS: usize = 2_000_000;

/// A cache that is asked for a key and then has it, or not; whether it had it before.
trait Policy {
    fn get(&mut self, key: u32) -> bool;
}

/// Keys by a Zipf distribution: number `n` is asked for in proportion to `1 / n ^ skew`.
fn trace(skew: f64, seed: u64) -> Vec<u32> {
    let mut sum = 0.0;
    let steps: Vec<f64> = (1..=KEYS).map(|n| (sum, sum += (n as f64).powf(-skew)).0).collect();
    let mut state = seed;
    let mut random = || {
        // xorshift64 (G. Marsaglia, 2003).
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        (state >> 11) as f64 / (1u64 << 53) as f64
    };
    let draw = |at: f64| (steps.partition_point(|step| *step <= at) - 1) as u32;
    (0..GETS).map(|_| draw(random() * sum)).collect()
}

fn ratio(policy: &mut impl Policy, trace: &[u32]) -> f64 {
    let (warm, counted) = trace.split_at(trace.len() / 4);
    for key in warm {
        policy.get(*key);
    }
    let hits = counted.iter().filter(|key| policy.get(**key)).count();
    hits as f64 * 100.0 / counted.len() as f64
}

struct Ours {
    store: Store,
    tenant: Arc<Tenant>,
    now_us: u64,
}

impl Ours {
    fn new() -> Self {
        let mut ours = Self {
            store: Store::new(&config::Cache::default(), Arc::default()),
            tenant: Arc::new(Tenant::new("d")),
            now_us: 0,
        };
        let max_bytes = ours.entry().bytes * ROOM as u64;
        ours.store = Store::new(&config::Cache { max_bytes, ..config::Cache::default() }, Arc::default());
        ours
    }

    fn entry(&self) -> Entry {
        let stamp = Stamp { began_us: self.now_us, source: Source::Primary };
        Entry::new(
            4,
            (bytes::Bytes::from_static(&[7; 1500]), 1),
            stamp,
            self.now_us,
            1_000_000,
            Arc::clone(&self.tenant),
        )
    }
}

impl Policy for Ours {
    fn get(&mut self, key: u32) -> bool {
        let key = key.to_be_bytes();
        if let Some(entry) = self.store.get(Hashed::new(&key)) {
            entry.is_used();
            return true;
        }
        self.now_us += 1;
        self.store.put(Hashed::new(&key).to_owned(), self.entry(), Demand::Unknown);
        false
    }
}

/// Keys in the order of their last use.
#[derive(Default)]
struct Lru {
    at: HashMap<u32, u64, RandomState>,
    keys: BTreeMap<u64, u32>,
    tick: u64,
}

impl Lru {
    fn add(&mut self, key: u32) {
        self.remove(key);
        self.tick += 1;
        self.at.insert(key, self.tick);
        self.keys.insert(self.tick, key);
    }

    fn remove(&mut self, key: u32) -> bool {
        self.at.remove(&key).is_some_and(|tick| self.keys.remove(&tick).is_some())
    }

    fn oldest(&self) -> Option<u32> {
        self.keys.values().next().copied()
    }

    fn pop(&mut self) -> Option<u32> {
        let (tick, key) = self.keys.pop_first()?;
        self.at.remove(&key).filter(|at| *at == tick)?;
        Some(key)
    }

    fn len(&self) -> usize {
        self.at.len()
    }
}

struct TinyLfu {
    window: Lru,
    probation: Lru,
    protected: Lru,
    uses: Vec<u8>,
    counted: usize,
}

impl TinyLfu {
    fn new() -> Self {
        let (window, probation, protected) = Default::default();
        Self { window, probation, protected, uses: vec![0; KEYS], counted: 0 }
    }

    fn count(&mut self, key: u32) {
        let uses = &mut self.uses[key as usize];
        *uses = (*uses + 1).min(15);
        self.counted += 1;
        if self.counted == 10 * ROOM {
            self.counted /= 2;
            self.uses.iter_mut().for_each(|uses| *uses /= 2);
        }
    }
}

impl Policy for TinyLfu {
    fn get(&mut self, key: u32) -> bool {
        let (in_window, in_protected) = (ROOM / 100, (ROOM - ROOM / 100) / 10 * 8);
        self.count(key);
        if self.window.at.contains_key(&key) {
            self.window.add(key);
            return true;
        }
        if self.protected.at.contains_key(&key) || self.probation.remove(key) {
            self.protected.add(key);
            if self.protected.len() > in_protected {
                self.protected.pop().into_iter().for_each(|key| self.probation.add(key));
            }
            return true;
        }
        self.window.add(key);
        if self.window.len() > in_window
            && let Some(comes) = self.window.pop()
        {
            if self.probation.len() + self.protected.len() < ROOM - in_window {
                self.probation.add(comes);
            } else if let Some(goes) = self.probation.oldest()
                && self.uses[comes as usize] > self.uses[goes as usize]
            {
                self.probation.pop();
                self.probation.add(comes);
            }
        }
        false
    }
}

#[derive(Clone, Copy, Default, PartialEq)]
enum Place {
    #[default]
    Nowhere,
    Small,
    Main,
}

struct S3Fifo {
    small: VecDeque<u32>,
    main: VecDeque<u32>,
    ghosts: VecDeque<u32>,
    is_ghost: Vec<bool>,
    keys: Vec<(Place, u8)>,
}

impl S3Fifo {
    fn new() -> Self {
        let (small, main, ghosts) = Default::default();
        Self { small, main, ghosts, is_ghost: vec![false; KEYS], keys: vec![(Place::Nowhere, 0); KEYS] }
    }

    fn evict(&mut self) {
        if self.small.len() >= ROOM / 10 {
            while let Some(key) = self.small.pop_front() {
                if self.keys[key as usize].1 > 1 {
                    self.keys[key as usize] = (Place::Main, 0);
                    self.main.push_back(key);
                    continue;
                }
                self.keys[key as usize] = (Place::Nowhere, 0);
                self.ghosts.push_back(key);
                self.is_ghost[key as usize] = true;
                if self.ghosts.len() > ROOM - ROOM / 10
                    && let Some(old) = self.ghosts.pop_front()
                {
                    self.is_ghost[old as usize] = false;
                }
                return;
            }
        }
        while let Some(key) = self.main.pop_front() {
            if self.keys[key as usize].1 == 0 {
                self.keys[key as usize].0 = Place::Nowhere;
                return;
            }
            self.keys[key as usize].1 -= 1;
            self.main.push_back(key);
        }
    }
}

impl Policy for S3Fifo {
    fn get(&mut self, key: u32) -> bool {
        let (place, uses) = &mut self.keys[key as usize];
        if *place != Place::Nowhere {
            *uses = (*uses + 1).min(3);
            return true;
        }
        while self.small.len() + self.main.len() >= ROOM {
            self.evict();
        }
        let is_ghost = std::mem::take(&mut self.is_ghost[key as usize]);
        let (queue, place) = if is_ghost { (&mut self.main, Place::Main) } else { (&mut self.small, Place::Small) };
        queue.push_back(key);
        self.keys[key as usize] = (place, 0);
        false
    }
}

#[test]
fn hits_as_often_as_the_best_that_are_known() {
    for skew in [0.9, 1.0] {
        let trace = trace(skew, 0x9E37_79B9_7F4A_7C15);
        let ours = ratio(&mut Ours::new(), &trace);
        let others = [ratio(&mut TinyLfu::new(), &trace), ratio(&mut S3Fifo::new(), &trace)];
        println!("Zipf {skew}: {ours:.1} %, W-TinyLFU {:.1} %, S3-FIFO {:.1} %", others[0], others[1]);
        assert!(others.iter().all(|other| *other > 40.0 && ours > other - 2.0), "{skew}: {ours} of {others:?}");
    }
}
