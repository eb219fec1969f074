//! Numbers in the order of their last use, each with a weight.
//! Must never search for the oldest, nor allocate while as many go as come.

use std::collections::HashMap;

/// No neighbour.
const NONE: u32 = u32::MAX;

#[derive(Clone, Copy, Debug)]
struct Node {
    key: u32,
    /// In the unit of the caller.
    weight: usize,
    /// Tick of the last use, as the caller counts.
    used: u64,
    older: u32,
    newer: u32,
}

/// A set of numbers. Every operation takes constant time; the order is a list linked through one vector.
#[derive(Debug)]
pub struct Lru {
    places: HashMap<u32, u32, foldhash::fast::RandomState>,
    nodes: Vec<Node>,
    free: Vec<u32>,
    oldest: u32,
    newest: u32,
    weight: usize,
}

impl Default for Lru {
    fn default() -> Self {
        Self { places: HashMap::default(), nodes: Vec::new(), free: Vec::new(), oldest: NONE, newest: NONE, weight: 0 }
    }
}

impl Lru {
    /// How many there are.
    pub fn len(&self) -> usize {
        self.places.len()
    }

    /// There is none.
    pub fn is_empty(&self) -> bool {
        self.places.is_empty()
    }

    /// Sum of the weights.
    pub fn weight(&self) -> usize {
        self.weight
    }

    /// Whether `key` is in the set; if so it was used at `tick`, later than all others.
    pub fn touch(&mut self, key: u32, tick: u64) -> bool {
        let Some(&at) = self.places.get(&key) else { return false };
        if let Some(node) = self.nodes.get_mut(at as usize) {
            node.used = tick;
        }
        if self.newest != at {
            self.unlink(at);
            self.link_newest(at);
        }
        true
    }

    /// Adds `key`, used at `tick`, later than all others. One that is there already is replaced.
    pub fn insert(&mut self, key: u32, weight: usize, tick: u64) {
        self.remove(key);
        let at = self.place(Node { key, weight, used: tick, older: NONE, newer: NONE });
        self.link_newest(at);
    }

    /// Adds `key` as the one used longest ago.
    pub fn insert_oldest(&mut self, key: u32, weight: usize) {
        self.remove(key);
        let at = self.place(Node { key, weight, used: 0, older: NONE, newer: self.oldest });
        match self.nodes.get_mut(self.oldest as usize) {
            Some(node) => node.older = at,
            None => self.newest = at,
        }
        self.oldest = at;
    }

    /// The one used longest ago: number, weight, tick of that use.
    pub fn oldest(&self) -> Option<(u32, usize, u64)> {
        self.nodes.get(self.oldest as usize).map(|node| (node.key, node.weight, node.used))
    }

    /// Takes `key` out and gives its weight.
    pub fn remove(&mut self, key: u32) -> Option<usize> {
        let at = self.places.remove(&key)?;
        self.unlink(at);
        self.free.push(at);
        let weight = self.nodes.get(at as usize)?.weight;
        self.weight -= weight;
        Some(weight)
    }

    /// Takes all out.
    pub fn clear(&mut self) {
        self.places.clear();
        self.nodes.clear();
        self.free.clear();
        (self.oldest, self.newest, self.weight) = (NONE, NONE, 0);
    }

    fn place(&mut self, node: Node) -> u32 {
        self.weight += node.weight;
        let at = self.free.pop().unwrap_or(self.nodes.len() as u32);
        match self.nodes.get_mut(at as usize) {
            Some(free) => *free = node,
            None => self.nodes.push(node),
        }
        self.places.insert(node.key, at);
        at
    }

    fn link_newest(&mut self, at: u32) {
        let before = std::mem::replace(&mut self.newest, at);
        if let Some(node) = self.nodes.get_mut(at as usize) {
            (node.older, node.newer) = (before, NONE);
        }
        match self.nodes.get_mut(before as usize) {
            Some(node) => node.newer = at,
            None => self.oldest = at,
        }
    }

    fn unlink(&mut self, at: u32) {
        let Some(&Node { older, newer, .. }) = self.nodes.get(at as usize) else { return };
        match self.nodes.get_mut(older as usize) {
            Some(node) => node.newer = newer,
            None => self.oldest = newer,
        }
        match self.nodes.get_mut(newer as usize) {
            Some(node) => node.older = older,
            None => self.newest = older,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Against a plain vector, oldest first.
    #[test]
    fn keeps_the_order_of_use() {
        let (mut lru, mut plain) = (Lru::default(), Vec::<(u32, usize)>::new());
        let mut dice = 12_345u32;
        for tick in 1..20_000 {
            dice = dice.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
            let (key, weight) = (dice >> 16 & 31, (dice >> 8 & 255) as usize);
            let known = plain.iter().position(|(k, _)| *k == key);
            match dice >> 28 {
                0..=5 => {
                    known.map(|at| plain.remove(at));
                    plain.push((key, weight));
                    lru.insert(key, weight, tick);
                }
                6..=10 => {
                    assert_eq!(lru.touch(key, tick), known.is_some());
                    if let Some(at) = known {
                        let entry = plain.remove(at);
                        plain.push(entry);
                        assert_eq!(lru.newest, lru.places[&key]);
                    }
                }
                11 => {
                    known.map(|at| plain.remove(at));
                    plain.insert(0, (key, weight));
                    lru.insert_oldest(key, weight);
                }
                15 if tick % 50 == 0 => {
                    plain.clear();
                    lru.clear();
                }
                _ => assert_eq!(lru.remove(key), known.map(|at| plain.remove(at).1)),
            }
            assert_eq!((lru.len(), lru.is_empty()), (plain.len(), plain.is_empty()));
            assert_eq!(lru.weight(), plain.iter().map(|(_, weight)| weight).sum::<usize>());
            assert_eq!(lru.oldest().map(|(key, weight, _)| (key, weight)), plain.first().copied());
        }
    }
}
