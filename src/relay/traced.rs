//! On what the answers hang that are good until it changes, and whether it has.
//! Must never trace an answer by a catalog that may be older than the schema it was made under.
//!
//! Which relations a statement reads the catalog says ([`crate::sql::sources`]); whether their changes come, the publication
//! ([`Feed::tables`]), and whether it hangs on single rows only (`super::key_parts`); up to where an answer shows everything, the stream ([`crate::cache::feed`], where the proof is). What the catalog says
//! is believed if it was asked after the last change of the schema that anybody here has noted: a client's own, or one that the stream has
//! told of. Whoever notes one voids what began before, and only then is anything traced again, so that an answer whose relations were
//! found before either is void or was dropped on its way ([`Relay::trace_begins`]).

use std::rc::Rc;
use std::sync::Arc;

use super::asked::Asked;
use super::key_parts::{Keys, rows_of, traced};
use super::shapes::Look;
use super::{ClientId, GroupId, Relay, Todo};
use crate::cache::fence::ALL;
use crate::cache::remote::hold::{self, Hold};
use crate::cache::{Entry, Feed, Fence, Fenced, Source, Traced};
use crate::meter::{Bypass, Miss};
use crate::sql::verdict::{Effects, StatementKind};

/// What a statement reads, as of a schema and a publication.
#[derive(Debug)]
pub(super) struct Trace {
    by: By,
    relations: Rc<[u32]>,
    /// The keys of rows in these, if it hangs on no others.
    rows: Option<Box<Keys>>,
    /// Changes of the schema.
    schema: u64,
    /// What the read hangs on that has begun; without either that is not known.
    pub traced: Option<Traced>,
    pub fenced: Option<Box<Fenced>>,
}

/// Who tells of changes.
#[derive(Debug)]
enum By {
    /// A stream; of the publication with this number.
    Stream(Arc<Feed>, u64),
    /// Those who write.
    Fence(Arc<Fence>),
}

impl Trace {
    /// Of what is fenced.
    pub fn fenced(fence: Arc<Fence>, relations: Rc<[u32]>, schema: u64) -> Self {
        Self { by: By::Fence(fence), relations, rows: None, schema, traced: None, fenced: None }
    }

    /// It is by a fence.
    pub fn is_fenced(&self) -> bool {
        matches!(self.by, By::Fence(_))
    }
}

/// Why what another process has kept is of no use.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Useless {
    /// It does not count any more.
    Void,
    /// Whether it counts cannot be told now.
    Now,
}

/// What an answer will be good by that hangs on this: [`Hold::kind`].
pub(super) fn hold_kind(trace: Option<&Trace>) -> u8 {
    match trace.map(|trace| &trace.by) {
        None => hold::TIME,
        Some(By::Stream(..)) => hold::POSITION,
        Some(By::Fence(_)) => hold::COUNTS,
    }
}

impl Relay {
    /// What is known of the changes of the group's database; whoever asks first has them followed.
    fn feed_of(&mut self, group: GroupId) -> Option<Arc<Feed>> {
        let store = self.cache.as_ref()?;
        let this = &mut self.groups[group];
        if this.feed.is_none() {
            this.feed = Some(store.feed(&this.database));
            this.asks += 1;
            self.todo.push(Todo::Follow(group));
        }
        this.feed.clone()
    }

    /// Everything that was visible so long ago at most is known of the group's database. What is asked of marks afterwards is as new.
    fn is_fresh(&self, group: GroupId, feed: &Feed) -> bool {
        let this = &self.groups[group];
        let Some(staleness) = this.terms.cache_staleness else { return false };
        let fresh_us = feed.fresh_us();
        // Of a database on one host timelines are not asked for: what is there is the primary.
        let newest = this.cluster.newest_timeline();
        let is_of_primary = !this.cluster.is_watched() || newest == feed.timeline();
        fresh_us > 0 && is_of_primary && self.now_us.saturating_sub(fresh_us) <= staleness.as_micros() as u64
    }

    /// Whether nothing that an answer from the cache hangs on has changed, as far as that counts for it.
    pub(super) fn holds(&self, group: GroupId, key: &[u8], entry: &Entry) -> Result<(), Miss> {
        if !self.stands(group, key, entry) {
            return Err(Miss::Signalled);
        }
        let Some(traced) = &entry.traced else { return Ok(()) };
        let feed = self.groups[group].feed.as_ref().ok_or(Miss::Absent)?;
        if !self.is_fresh(group, feed) {
            return Err(Miss::Absent);
        }
        if feed.holds(traced, entry.stamp.began_us) { Ok(()) } else { Err(Miss::Changed) }
    }

    /// On what the answer that was asked for under this key will hang; `Ok(None)`: it is kept for its time.
    pub(super) fn trace(&mut self, group: GroupId, asked: &Asked, key: &[u8]) -> Result<Option<Box<Trace>>, Bypass> {
        if self.groups[group].terms.cache_fenced {
            return self.fence_trace(group, asked);
        }
        if self.groups[group].terms.cache_staleness.is_none() {
            return Ok(None);
        }
        let feed = self.feed_of(group).ok_or(Bypass::Stalled)?;
        let (tables, version) = feed.tables().ok_or(Bypass::Stalled)?;
        let number = self.groups[group].catalog;
        let catalog = self.catalogs.all.get(number).ok_or(Bypass::Untraced)?;
        let schema = catalog.health.as_ref().map_or(0, |health| health.schema_changes());
        if catalog.schema != schema {
            if catalog.since_us.is_none() && catalog.due_us > self.now_us {
                self.catalogs.change(number, |catalog| catalog.due_us = 0);
            }
            return Err(Bypass::Untraced);
        }
        let sources = catalog.sources.get(&asked.shape).ok_or(Bypass::Untraced)?;
        let come = |oid: &u32| tables.get(oid).is_some_and(|table| table.lack.is_none());
        let Some(relations) = sources.clone().filter(|relations| relations.iter().all(come)) else {
            let lacking = sources.iter().flat_map(|relations| relations.iter()).filter_map(|oid| tables.get(oid));
            lacking.for_each(|table| feed.complain(table));
            // Somebody has said how old it may be.
            return if asked.timed { Ok(None) } else { Err(Bypass::Unpublished) };
        };
        if !self.is_fresh(group, &feed) {
            return Err(Bypass::Stalled);
        }
        let catalog = self.catalogs.all.get(number).ok_or(Bypass::Untraced)?;
        let rows = rows_of(key, &catalog.code, &relations, &tables);
        let by = By::Stream(feed, version);
        Ok(Some(Box::new(Trace { by, relations, rows, schema, traced: None, fenced: None })))
    }

    /// The read is about to be sent there.
    pub(super) fn trace_begins(&mut self, id: ClientId, source: Source) {
        let Some(client) = self.clients.get_mut(id) else { return };
        let group = client.group;
        let Some(fill) = client.cache.as_mut().and_then(|cache| cache.fill.as_mut()) else { return };
        let Some(mut trace) = fill.trace.take() else { return };
        let catalog = self.catalogs.all.get(self.groups[group].catalog);
        let health = catalog.and_then(|catalog| catalog.health.as_ref());
        let is_current = trace.schema == health.map_or(0, |health| health.schema_changes());
        let (relations, rows) = (&*trace.relations, trace.rows.as_deref());
        (trace.traced, trace.fenced) = match (&trace.by, source) {
            _ if !is_current => (None, None),
            (By::Stream(feed, version), _) if *version != feed.version() => (None, None),
            (By::Stream(feed, _), Source::Primary) => (traced(feed, relations, rows, None), None),
            (By::Stream(feed, _), Source::Replica(lsn)) => (traced(feed, relations, rows, Some(lsn)), None),
            (By::Fence(fence), Source::Primary) => (None, self.stamped(group, fence, relations)),
            (By::Fence(_), Source::Replica(_)) => (None, None),
        };
        // Of what has just been changed it is not known yet up to where an answer shows it. Nobody is to wait for such a one.
        let holds = match (&trace.by, &trace.traced) {
            (By::Stream(feed, _), Some(traced)) => feed.holds(traced, self.now_us),
            _ => trace.traced.is_some() || trace.fenced.is_some(),
        };
        let fill = self.clients.get_mut(id).and_then(|client| client.caching().fill.as_mut());
        if let Some(fill) = fill {
            fill.trace = Some(trace);
            let shared = if holds { None } else { fill.shared.take() };
            self.shares_nothing(shared);
        }
    }

    /// What an answer that another process has kept hangs on here, of what was to be traced when it was asked for.
    pub(super) fn trace_of_found(
        &self,
        group: GroupId,
        trace: Option<&Trace>,
        (hold, began_us): (&Hold, u64),
    ) -> Result<(Option<Traced>, Option<Box<Fenced>>), Useless> {
        let Some(trace) = trace else {
            return if *hold == Hold::Time { Ok((None, None)) } else { Err(Useless::Void) };
        };
        let health = self.catalogs.all.get(self.groups[group].catalog).and_then(|catalog| catalog.health.as_ref());
        if trace.schema != health.map_or(0, |health| health.schema_changes()) {
            return Err(Useless::Now);
        }
        match (&trace.by, hold) {
            (By::Stream(feed, version), Hold::Position { history, lsn }) => {
                if *version != feed.version() || !self.is_fresh(group, feed) {
                    return Err(Useless::Now);
                }
                let traced = traced(feed, &trace.relations, trace.rows.as_deref(), Some(*lsn)).ok_or(Useless::Now)?;
                let counts = traced.history == *history && feed.holds(&traced, began_us);
                if counts { Ok((Some(traced), None)) } else { Err(Useless::Void) }
            }
            (By::Fence(fence), Hold::Counts { life, begun }) => {
                let session = fence.serves().ok_or(Useless::Now)?;
                let tables = begun.iter().map(|(table, _)| table);
                let is_of_these = tables.eq([ALL].iter().chain(&*trace.relations));
                let fenced = Fenced { session: session.number, begun: begun.clone() };
                let is_of_session = session.counts(life, began_us);
                let counts = is_of_session && is_of_these && self.may_hold(group, &fenced);
                if counts { Ok((None, Some(Box::new(fenced)))) } else { Err(Useless::Void) }
            }
            _ => Err(Useless::Void),
        }
    }

    /// What an answer of this process is good by in others; `None`: in none.
    pub(super) fn hold_of(&self, group: GroupId, entry: &Entry) -> Option<Hold> {
        let hold = match (&entry.traced, &entry.fenced) {
            (Some(traced), _) => Hold::Position { history: traced.history, lsn: traced.lsn },
            (None, Some(fenced)) => {
                let session = self.groups[group].fence.as_ref()?.session();
                let session = session.filter(|session| session.number == fenced.session)?;
                Hold::Counts { life: session.life.as_str().into(), begun: fenced.begun.clone() }
            }
            (None, None) => Hold::Time,
        };
        hold.is_short().then_some(hold)
    }

    /// The schema may have changed, from here: what statements name is to be looked up again before anything is traced.
    fn schema_altered(&self, group: GroupId) {
        self.of_same_name(self.groups[group].catalog).iter().for_each(|health| health.change_schema());
    }

    /// A catalog says something else than before: what was kept may hang on what was not seen to be there. Where somebody here had noted the change
    /// (`surprise` is false) what was kept since is known to hang on any table, and what was kept before is void.
    pub(super) fn sources_renewed(&self, catalog: usize, surprise: bool) {
        let Some(store) = &self.cache else { return };
        for group in self.groups.ids().map(|id| &self.groups[id]).filter(|group| group.catalog == catalog) {
            if group.terms.cache_staleness.is_some() || group.terms.cache_fenced {
                store.renew();
                return;
            }
            if surprise {
                store.signals().forget(&group.database);
            }
        }
    }

    /// The client's statement changes the schema; temporary things alone are nobody else's.
    pub(super) fn note_alters(&mut self, id: ClientId, look: &Look) {
        let temporary = look.effects.any(Effects::TEMP) && look.kind != StatementKind::Many;
        if let Some(client) = self.clients.get_mut(id) {
            client.caching().alters |= !temporary;
        }
    }

    /// The client may have changed the schema, and has nothing under way: what is kept is void.
    pub(super) fn note_altered(&mut self, id: ClientId) {
        let Some(client) = self.clients.get_mut(id) else { return };
        let group = client.group;
        let altered = client.cache.as_mut().is_some_and(|cache| std::mem::take(&mut cache.alters));
        if let Some(store) = self.cache.as_ref().filter(|_| altered) {
            store.renew();
            self.schema_altered(group);
        }
    }
}
