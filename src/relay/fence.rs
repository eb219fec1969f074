//! Answers that hang on fenced writes: what [`crate::cache::fence`] asks of a worker that gives and keeps them.
//! Must never give one of which Redis has not said that it still counts.
//!
//! A hit waits for the next question to Redis as others wait for an answer to the same (`super::fill`): all that come while one is under way share the next.

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::sync::Arc;

use super::asked::Asked;
use super::catalog::Trust;
use super::client::State;
use super::given::Found;
use super::traced::Trace;
use super::{ClientId, GroupId, Relay, ServerId, Todo};
use crate::base::clock;
use crate::cache::fence::{ALL, Count, SCHEMA};
use crate::cache::key::Hashed;
use crate::cache::{Entry, Fence, Fenced, Store};
use crate::config::CacheMode;
use crate::meter::{Bypass, Miss};

/// A hit that waits to be confirmed.
pub(super) struct Check {
    client: ClientId,
    number: u64,
    entry: Arc<Entry>,
}

/// What is to be asked of one fence.
#[derive(Default)]
pub(super) struct Asking {
    pub checks: Vec<Check>,
    pub tables: BTreeSet<u32>,
}

/// What was told of a database's tables.
#[derive(Default)]
struct Told {
    session: u64,
    counts: BTreeMap<u32, Count>,
}

/// All fences of a worker, by database.
#[derive(Default)]
pub(super) struct Fences {
    told: HashMap<Box<str>, Told>,
    asking: HashMap<Box<str>, (Arc<Fence>, Asking)>,
    /// A task is asking, and looks again when it was told.
    asks: bool,
}

impl Fences {
    /// What is to be asked now; nobody asks any more if it is nothing.
    pub fn take(&mut self) -> HashMap<Box<str>, (Arc<Fence>, Asking)> {
        self.asks = !self.asking.is_empty();
        std::mem::take(&mut self.asking)
    }
}

/// What a turn leaves to be done with a fence.
pub enum Deed {
    /// Keep the one around the database of this group.
    Keep(GroupId),
    /// Ask for counts.
    Ask,
    /// A write begins, which may change these tables.
    Raise {
        /// In front of what this server is to run.
        server: ServerId,
        /// The fence.
        fence: Arc<Fence>,
        /// The write.
        number: u64,
        /// What it may change.
        tables: Box<str>,
    },
    /// Writes have ended.
    Lower(Arc<Fence>, Vec<u64>),
}

impl Relay {
    /// The fence around the group's database, if there is one; whoever asks first has it kept.
    pub(super) fn fence_of(&mut self, group: GroupId) -> Option<Arc<Fence>> {
        let this = &mut self.groups[group];
        if !this.terms.cache_fenced {
            return None;
        }
        if this.fence.is_none() {
            this.fence = Some(self.cache.as_ref()?.fence(&this.database));
            this.asks += 1;
            self.todo.push(Todo::Fence(Deed::Keep(group)));
        }
        this.fence.clone()
    }

    /// A new configuration: there may be none any more.
    pub(super) fn forget_fence(&mut self, group: GroupId) {
        let this = &self.groups[group];
        let known = self.cache.as_ref().map(|store| store.fence(&this.database));
        let is_known = this.fence.iter().all(|fence| known.as_ref().is_some_and(|known| Arc::ptr_eq(known, fence)));
        if !is_known || !self.config.fenced(&this.database) {
            self.groups[group].fence = None;
        }
    }

    /// Whether the client's database has one.
    pub(super) fn is_fenced(&self, id: ClientId) -> bool {
        self.clients.get(id).is_some_and(|client| self.groups[client.group].terms.cache_fenced)
    }

    /// Whether a catalog was asked after the last change of its schema that anybody here knows of. Has it asked if not.
    pub(super) fn is_current(&mut self, number: usize, fence: &Fence) -> bool {
        self.catalogs.hear(number);
        let Some(catalog) = self.catalogs.all.get(number) else { return false };
        let schema = catalog.health.as_ref().map_or(0, |health| health.schema_changes());
        let is_current = catalog.schema == schema && catalog.trust == Trust::Full && catalog.epoch > 0;
        if !is_current && catalog.since_us.is_none() && catalog.due_us > self.now_us {
            self.catalogs.change(number, |catalog| catalog.due_us = 0);
        }
        is_current && fence.schema().is_settled()
    }

    /// What was told of changes of the schema: what is known of it is read again if they are others than before.
    pub(super) fn sees_schema(&self, group: GroupId, fence: &Fence, count: Count) {
        fence.sees_schema(count, || self.schema_is_another(group));
    }

    /// What is known of the schema of the group's database is read again.
    pub(super) fn schema_is_another(&self, group: GroupId) {
        for health in self.of_same_name(self.groups[group].catalog) {
            health.change_code();
            health.change_schema();
        }
    }

    /// The answer to the client's batch is to hang on what is fenced: it must be the primary's.
    pub(super) fn fills_fenced(&self, id: ClientId) -> bool {
        let cache = self.clients.get(id).and_then(|client| client.cache.as_ref());
        let trace = cache.and_then(|cache| cache.fill.as_ref()?.trace.as_ref());
        trace.is_some_and(|trace| trace.is_fenced())
    }

    /// On what the answer that was asked for will hang.
    pub(super) fn fence_trace(&mut self, group: GroupId, asked: &Asked) -> Result<Option<Box<Trace>>, Bypass> {
        let fence = self.fence_of(group).ok_or(Bypass::Stalled)?;
        fence.serves().ok_or(Bypass::Stalled)?;
        let number = self.groups[group].catalog;
        if !self.is_current(number, &fence) {
            self.learns(group, &fence, &[]);
            return Err(Bypass::Untraced);
        }
        let catalog = self.catalogs.all.get(number).ok_or(Bypass::Untraced)?;
        let schema = catalog.schema;
        let relations = catalog.sources.get(&asked.shape).cloned().flatten().ok_or(Bypass::Untraced)?;
        match self.stamped(group, &fence, &relations) {
            Some(_) => Ok(Some(Box::new(Trace::fenced(fence, relations, schema)))),
            // The next one may be kept.
            None => {
                self.learns(group, &fence, &relations);
                Err(Bypass::Doubt)
            }
        }
    }

    /// The stamp of an answer that begins now on the primary; `None` if one of these is in doubt, or nothing was told of it.
    pub(super) fn stamped(&self, group: GroupId, fence: &Fence, relations: &[u32]) -> Option<Box<Fenced>> {
        let session = fence.serves()?.number;
        let told = self.fences.told.get(&*self.groups[group].database).filter(|told| told.session == session)?;
        let schema = told.counts.get(&SCHEMA)?;
        let begun = [ALL].iter().chain(relations).map(|table| {
            let count = told.counts.get(table).filter(|count| count.is_settled())?;
            Some((*table, count.begun))
        });
        let begun = begun.collect::<Option<Box<[_]>>>()?;
        fence.is_of_schema(*schema).then(|| Box::new(Fenced { session, begun }))
    }

    /// Whether nothing was told yet of a write that has begun since. Redis has the last word.
    pub(super) fn may_hold(&self, group: GroupId, fenced: &Fenced) -> bool {
        let told = self.fences.told.get(&*self.groups[group].database);
        let told = told.filter(|told| told.session == fenced.session).map(|told| &told.counts);
        told.is_none_or(|told| {
            fenced.begun.iter().all(|(table, begun)| told.get(table).is_none_or(|count| count.begun <= *begun))
        })
    }

    /// Has these counted.
    fn learns(&mut self, group: GroupId, fence: &Arc<Fence>, relations: &[u32]) {
        let database = &*self.groups[group].database;
        let made = || (Arc::clone(fence), Asking::default());
        let (_, asking) = self.fences.asking.entry(database.into()).or_insert_with(made);
        asking.tables.extend([ALL, SCHEMA].iter().chain(relations));
        if !std::mem::replace(&mut self.fences.asks, true) {
            self.todo.push(Todo::Fence(Deed::Ask));
        }
    }

    /// What the fence says of an answer that was found. `None`: the client waits until it says so.
    pub(super) fn fence_says(
        &mut self,
        id: ClientId,
        (key, store): (Hashed<'_>, &Store),
        found: Result<Found, Miss>,
    ) -> Option<Result<Found, Miss>> {
        let (is_late, entry) = match &found {
            Ok(Found::Good(entry)) => (false, Arc::clone(entry)),
            Ok(Found::Late(entry)) => (true, Arc::clone(entry)),
            Err(_) => return Some(found),
        };
        let Some(client) = self.clients.get_mut(id) else { return Some(found) };
        let (group, now_us) = (client.group, self.now_us);
        let is_fenced = self.groups[group].terms.cache_fenced;
        if is_late && is_fenced {
            // Nothing but its time is the bound of what was written past every pgweir.
            return Some(Err(Miss::Expired));
        }
        let Some(fenced) = entry.fenced.as_ref().filter(|_| is_fenced) else {
            // It may be from before the configuration was another.
            let is_of_grade = !is_fenced && entry.fenced.is_none();
            return Some(if is_of_grade { found } else { Err(Miss::Absent) });
        };
        if self.config.cache.mode != CacheMode::On {
            return Some(found);
        }
        if let Some((at_us, checked, holds)) = client.caching().checked.take()
            && at_us == now_us
            && Arc::ptr_eq(&checked, &entry)
        {
            return Some(match holds {
                Some(true) => found,
                Some(false) => {
                    // Others may have a newer one by now, or are to be told that there will be.
                    client.caching().looked = false;
                    store.forget(key, &entry);
                    Err(Miss::Changed)
                }
                None => Err(Miss::Absent),
            });
        }
        let Some(fence) = self.fence_of(group) else { return Some(Err(Miss::Absent)) };
        let Some(session) = fence.serves() else { return Some(Err(Miss::Absent)) };
        if session.number != fenced.session {
            store.forget(key, &entry);
            return Some(Err(Miss::Changed));
        }
        let tables: Vec<u32> = fenced.begun.iter().map(|(table, _)| *table).collect();
        self.learns(group, &fence, &tables);
        self.followed += 1;
        let number = self.followed;
        if let Some((_, asking)) = self.fences.asking.get_mut(&*self.groups[group].database) {
            asking.checks.push(Check { client: id, number, entry: Arc::clone(&entry) });
        }
        let pool = self.groups[group].primary;
        let client = self.clients.get_mut(id)?;
        client.state = State::Waiting { pool, since_us: now_us, notified: false };
        client.caching().follows = number;
        None
    }

    /// Counts were told, in this session; `None`: they were not.
    pub(super) fn fence_told(
        &mut self,
        database: &str,
        fence: &Fence,
        checks: Vec<Check>,
        told: Option<(u64, BTreeMap<u32, Count>)>,
    ) {
        self.now_us = clock::now_us();
        if let Some(count) = told.as_ref().and_then(|(_, counts)| counts.get(&SCHEMA))
            && let Some(group) = self.groups.ids().find(|group| self.groups[*group].database == database)
        {
            self.sees_schema(group, fence, *count);
        }
        self.note_told_counts(database, told.as_ref());
        for Check { client: id, number, entry } in checks {
            let holds = told
                .as_ref()
                .map(|(session, counts)| entry.fenced.as_ref().is_some_and(|fenced| fenced.holds(*session, counts)));
            let Some(client) = self.clients.get_mut(id) else { continue };
            let waits = matches!(client.state, State::Waiting { .. });
            // It may have been cancelled, and wait for something else by now.
            let caching = client.cache.as_mut().filter(|caching| waits && caching.follows == number);
            let Some(caching) = caching else { continue };
            (caching.follows, caching.checked) = (0, Some((self.now_us, entry, holds)));
            client.state = State::Idle;
            self.pump_inbox(id);
        }
    }

    fn note_told_counts(&mut self, database: &str, told: Option<&(u64, BTreeMap<u32, Count>)>) {
        let Some((session, counts)) = told else { return };
        let known = self.fences.told.entry(database.into()).or_default();
        if known.session != *session {
            *known = Told { session: *session, counts: BTreeMap::new() };
        }
        known.counts.extend(counts);
    }
}
