//! Statements that a client runs once for each row of another's answer: N+1 patterns, as object mappers make them.
//! Must never allocate or look for anything where a statement is counted, nor remember more than a fixed number of clients.
//!
//! Behind a statement that has returned many rows (the parent) up to four other shapes of the same client are counted (the
//! children), but for statements that failed. A fifth, the parent again, or a pause ends that; a child that then ran as often as the
//! parent has rows, by a tenth, is a pattern, if there is a value in it: without one it asks nothing of a row. Once may be chance: what was seen
//! twice is told. What a statement costs here is one comparison with the place of its client. Clients that share a place disturb each
//! other: a pattern less is found.

use std::sync::Arc;

use super::{ClientId, GroupId, Relay};
use crate::meter::Sample;

/// Places for clients.
const CLIENTS: usize = 1024;
/// Shapes that are counted behind one.
const CHILDREN: usize = 4;
/// A pause that ends it, µs.
const PAUSE_US: u64 = 1_000_000;
/// Most patterns that are remembered; then the one is forgotten that has taken the least time, those first that were seen once.
const MOST: usize = 100;
/// A pattern that was seen so often is none by chance.
const TIMES: u64 = 2;

/// A pattern.
#[derive(Clone, Debug)]
pub struct Repeated {
    /// Name of the database as clients give it.
    pub database: String,
    /// Name of the user.
    pub user: String,
    /// Shape of what has returned the rows.
    pub parent: u64,
    /// Its text without values.
    pub parent_text: Arc<str>,
    /// Shape of what ran for each of them.
    pub child: u64,
    /// Its text without values.
    pub child_text: Arc<str>,
    /// How often the pattern was seen.
    pub count: u64,
    /// How often the child has run in it.
    pub calls: u64,
    /// What all but one of these of each time have taken, with the wait for a server, µs.
    pub wasted_us: u64,
}

impl Repeated {
    /// Whether it is of this parent and child, and of this database and user.
    fn is_of(&self, shapes: (u64, u64), whose: (&str, &str)) -> bool {
        (self.parent, self.child) == shapes && (&*self.database, &*self.user) == whose
    }

    /// Whether it was seen often enough to be told.
    pub fn is_certain(&self) -> bool {
        self.count >= TIMES
    }

    /// Adds this to one of the same statements; gives it back where there is none.
    pub(super) fn join(self, all: &mut [Self]) -> Option<Self> {
        let same = |it: &&mut Self| it.is_of((self.parent, self.child), (&self.database, &self.user));
        let Some(known) = all.iter_mut().find(same) else { return Some(self) };
        known.count += self.count;
        known.calls += self.calls;
        known.wasted_us += self.wasted_us;
        None
    }
}

#[derive(Clone, Copy, Debug, Default)]
struct Child {
    shape: u64,
    calls: u32,
    took_us: u64,
}

/// What a client does behind a statement with many rows.
#[derive(Clone, Copy, Debug, Default)]
struct Episode {
    /// Nobody in a place that is free.
    client: ClientId,
    group: GroupId,
    parent: u64,
    rows: u64,
    until_us: u64,
    children: [Child; CHILDREN],
}

impl Episode {
    /// Counts what was run. False if that ends it.
    fn takes(&mut self, shape: u64, sample: &Sample, now_us: u64) -> bool {
        if now_us > self.until_us || shape == self.parent {
            return false;
        }
        if sample.error.is_some() {
            return true;
        }
        let Some(child) = self.children.iter_mut().find(|child| child.shape == shape || child.calls == 0) else {
            return false;
        };
        child.shape = shape;
        child.calls += 1;
        child.took_us += sample.wait_us + sample.server_us;
        self.until_us = now_us + PAUSE_US;
        true
    }

    /// Children that ran so often that it is a pattern.
    fn patterns(&self, least: u64) -> impl Iterator<Item = &Child> {
        let is_one = move |child: &&Child| {
            let calls = u64::from(child.calls);
            calls >= least && calls * 10 >= self.rows * 9 && calls * 10 <= self.rows * 11
        };
        self.children.iter().filter(is_one)
    }
}

/// Those of a worker.
#[derive(Debug)]
pub(super) struct Repeats {
    /// Fewest rows and runs; 0 if nobody looks.
    least: u64,
    episodes: Box<[Episode]>,
    found: Vec<Repeated>,
}

impl Repeats {
    pub(super) fn new(least: u32) -> Self {
        let places = if least == 0 { 0 } else { CLIENTS };
        Self { least: least.into(), episodes: vec![Episode::default(); places].into(), found: Vec::new() }
    }

    /// Looks for that many from now on.
    pub(super) fn reconfigure(&mut self, least: u32) {
        if self.least != u64::from(least) {
            let found = std::mem::take(&mut self.found);
            *self = Self { found, ..Self::new(least) };
        }
    }

    pub(super) fn forget(&mut self) {
        *self = Self::new(self.least as u32);
    }

    /// A client's statement is over. What has ended with it, if it is worth a look.
    #[inline]
    fn ran(&mut self, id: ClientId, group: GroupId, shape: u64, sample: &Sample, now_us: u64) -> Option<Episode> {
        let place = self.episodes.get_mut(id.index() as usize % CLIENTS)?;
        let is_its = place.client == id;
        if is_its && place.takes(shape, sample, now_us) {
            return None;
        }
        let begins = sample.rows >= self.least && sample.error.is_none();
        if !is_its && !begins {
            return None;
        }
        let ended = *place;
        *place = match begins {
            true => {
                let (rows, until_us) = (sample.rows, now_us + PAUSE_US);
                Episode { client: id, group, parent: shape, rows, until_us, ..Episode::default() }
            }
            false => Episode::default(),
        };
        let least = self.least;
        ended.patterns(least).next().is_some().then_some(ended)
    }
}

impl Relay {
    /// A client's statement is over.
    pub(super) fn mind_repeats(&mut self, id: ClientId, group: GroupId, shape: u64, sample: &Sample) {
        if let Some(ended) = self.repeats.ran(id, group, shape, sample, self.now_us) {
            self.is_repeated_for_rows(&ended);
        }
    }

    #[cold]
    fn is_repeated_for_rows(&mut self, episode: &Episode) {
        let Some(group) = self.groups.get(episode.group) else { return };
        let Repeats { least, found, .. } = &mut self.repeats;
        for child in episode.patterns(*least) {
            // In a shape a value is a question mark, as it is in a text that is not known any more: there is none.
            let child_text = self.shapes.text(child.shape);
            if !child_text.contains('?') {
                continue;
            }
            let wasted_us = child.took_us - child.took_us / u64::from(child.calls);
            let same = |it: &&mut Repeated| it.is_of((episode.parent, child.shape), (&group.database, &group.user));
            if let Some(known) = found.iter_mut().find(same) {
                known.count += 1;
                known.calls += u64::from(child.calls);
                known.wasted_us += wasted_us;
                continue;
            }
            if found.len() >= MOST
                && let Some((least, _)) = found.iter().enumerate().min_by_key(|(_, it)| (it.is_certain(), it.wasted_us))
            {
                found.swap_remove(least);
            }
            found.push(Repeated {
                database: group.database.clone(),
                user: group.user.clone(),
                parent: episode.parent,
                parent_text: self.shapes.text(episode.parent),
                child: child.shape,
                child_text,
                count: 1,
                calls: child.calls.into(),
                wasted_us,
            });
        }
    }

    /// All that were found, those under way included.
    pub(super) fn repeated(&mut self) -> Vec<Repeated> {
        for place in 0..self.repeats.episodes.len() {
            let Some(episode) = self.repeats.episodes.get_mut(place) else { break };
            if episode.patterns(self.repeats.least).next().is_some() {
                let ended = std::mem::take(episode);
                self.is_repeated_for_rows(&ended);
            }
        }
        self.repeats.found.clone()
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;
    use crate::base::slab::Slab;
    use crate::meter::ErrorClass;
    use crate::wire::error::SqlState;

    const PARENT: u64 = 1;

    struct Rig {
        repeats: Repeats,
        id: ClientId,
        now_us: u64,
    }

    impl Rig {
        fn new() -> Self {
            Self { repeats: Repeats::new(10), id: ClientId::default(), now_us: 1 }
        }

        /// Runs a statement, and gives what ended with it: the children that are patterns, and how often they ran.
        fn run(&mut self, shape: u64, rows: u64) -> Vec<(u64, u32)> {
            self.ends(shape, Sample { server_us: 50, rows, ..Sample::default() })
        }

        /// The same for one that fails.
        fn fail(&mut self, shape: u64) {
            let error = Some(ErrorClass::of(SqlState(*b"23505")));
            assert_eq!(self.ends(shape, Sample { server_us: 50, error, ..Sample::default() }), []);
        }

        fn ends(&mut self, shape: u64, sample: Sample) -> Vec<(u64, u32)> {
            self.now_us += 100;
            let ended = self.repeats.ran(self.id, GroupId::default(), shape, &sample, self.now_us);
            ended.iter().flat_map(|it| it.patterns(10)).map(|child| (child.shape, child.calls)).collect()
        }
    }

    #[test]
    fn a_statement_for_each_row_is_a_pattern() {
        let mut rig = Rig::new();
        rig.run(PARENT, 20);
        for _ in 0..20 {
            // Two that take turns, and a transaction around each.
            for shape in [7, 2, 3, 8] {
                assert_eq!(rig.run(shape, 1), []);
            }
        }
        assert_eq!(rig.run(PARENT, 20), [(7, 20), (2, 20), (3, 20), (8, 20)]);
        assert_eq!(rig.run(PARENT, 20), []);
        // One that a cache had, or two that were asked for again; what fails does not count, and ends nothing.
        for times in [18, 22] {
            (0..times).for_each(|_| drop(rig.run(2, 1)));
            (0..20).for_each(|_| rig.fail(3));
            assert_eq!(rig.run(PARENT, 20), [(2, times)]);
        }
    }

    #[test]
    fn chance_is_no_pattern() {
        let mut rig = Rig::new();
        // Too few rows.
        rig.run(PARENT, 9);
        (0..20).for_each(|_| drop(rig.run(2, 1)));
        assert_eq!(rig.run(PARENT, 100), []);
        // Not as many as there were rows.
        (0..89).for_each(|_| drop(rig.run(2, 1)));
        assert_eq!(rig.run(PARENT, 10), []);
        (0..12).for_each(|_| drop(rig.run(2, 1)));
        assert_eq!(rig.run(PARENT, 20), []);
        (0..20).for_each(|_| rig.fail(2));
        assert_eq!(rig.run(PARENT, 20), []);
        // A pause between.
        (0..9).for_each(|_| drop(rig.run(2, 1)));
        rig.now_us += PAUSE_US;
        (0..11).for_each(|_| drop(rig.run(2, 1)));
        assert_eq!(rig.run(PARENT, 20), []);
        // Five others.
        (0..9).for_each(|_| (2..7).for_each(|shape| drop(rig.run(shape, 1))));
        assert_eq!(rig.run(PARENT, 20), []);
    }

    #[test]
    fn clients_are_told_apart() {
        let mut slab = Slab::default();
        let ids: Vec<_> = (0..2).map(|_| slab.insert(())).collect();
        assert_ne!(ids[0].index() as usize % CLIENTS, ids[1].index() as usize % CLIENTS);
        let mut nothing = Repeats::new(0);
        let sample = Sample { rows: 100, ..Sample::default() };
        assert!(nothing.ran(ClientId::default(), GroupId::default(), 1, &sample, 1).is_none());
        assert!(nothing.episodes.is_empty());
    }
}
