//! What answers may be taken back by, and whether one was.
//! Must never give, nor keep, an answer that somebody has said does not count any more.
//!
//! The slots that an answer hangs on ([`crate::cache::signal`]) are those of its shape, as the catalog has it when the read is sent: found once per
//! shape and reading of the catalog, and shared by all its answers, but for tags. While the catalog is not up to date, as far as is known here, it
//! is not known what a statement reads. Patterns are held against what its key says.
//!
//! *Replicas.* An answer that began after a signal shows what the signal was about if it is the primary's; a replica may not have replayed that
//! yet. So a signal is taken for a write that every answer must show: what a replica says is kept only if it had replayed, before
//! the read began, what the primary had written when this worker first came across the newest signal ([`super::floor`]).

use std::iter::Empty;
use std::sync::Arc;

use super::catalog::Trust;
use super::key_parts::said_by;
use super::shapes::Look;
use super::wrote::Wrote;
use super::{ClientId, GroupId, Relay, Todo};
use crate::cache::key::Key;
use crate::cache::{Entry, Signal, Source, Stamp, Store, signal};
use crate::config::Cache;
use crate::sql::wish;

impl Relay {
    /// A server has other settings than before, by which answers are written otherwise: none that was kept counts.
    pub(super) fn answers_otherwise(&self) {
        let databases = self.registry.databases();
        if let Some(store) = &self.cache {
            tracing::info!("settings of a server have changed: what was kept of its answers is void");
            store.signals().give(&Signal::all(None), databases.iter().map(|health| &*health.database));
        }
    }

    /// The slots of the tags in the comments of a statement, which become part of its key.
    pub(super) fn tags(&self, id: ClientId, look: &Look, sql: &[u8], key: &mut Key<'_>) -> Box<[u32]> {
        let Some(client) = self.clients.get(id).filter(|_| look.hinted) else { return Box::default() };
        let database = &self.groups[client.group].database;
        let tag = |word: &[u8]| {
            key.field(word);
            signal::tag(database, word)
        };
        wish::cache_tags(sql, client.conforming).into_iter().map(tag).collect()
    }

    /// The slots that an answer to a statement of this shape and with these tags hangs on.
    pub(super) fn deps_of(&mut self, group: GroupId, shape: u64, tags: &[u32]) -> Arc<[u32]> {
        let known = self.known_deps(group, shape);
        let deps = known.unwrap_or_else(|| signal::deps(&self.groups[group].database, shape, None::<Empty<_>>));
        if tags.is_empty() { deps } else { deps.iter().chain(tags).copied().collect() }
    }

    /// The same without tags, if it is known what such a statement reads.
    fn known_deps(&mut self, group: GroupId, shape: u64) -> Option<Arc<[u32]>> {
        let number = self.groups[group].catalog;
        let catalog = self.catalogs.all.get_mut(number)?;
        let schema = catalog.health.as_ref().map_or(0, |health| health.schema_changes());
        if catalog.schema != schema || catalog.trust != Trust::Full {
            if catalog.since_us.is_none() && catalog.due_us > self.now_us {
                self.catalogs.change(number, |catalog| catalog.due_us = 0);
            }
            return None;
        }
        if let Some(deps) = catalog.deps.get(&shape) {
            return Some(Arc::clone(deps));
        }
        let relations = catalog.sources.get(&shape)?.as_ref()?;
        let deps = signal::deps(&self.groups[group].database, shape, Some(catalog.code.tables(relations)?.into_iter()));
        catalog.deps.insert(shape, Arc::clone(&deps));
        Some(deps)
    }

    /// The read is about to be sent.
    pub(super) fn deps_begin(&mut self, id: ClientId) {
        let Some(client) = self.clients.get(id) else { return };
        let Some(fill) = client.cache.as_ref().and_then(|cache| cache.fill.as_ref()) else { return };
        let (group, shape, tags) = (client.group, fill.shape, fill.tags.clone());
        let is_replicas = fill.stamp.is_some_and(|stamp| stamp.source != Source::Primary);
        let deps = self.deps_of(group, shape, &tags);
        if is_replicas {
            self.note_signals(group);
        }
        let fill = self.clients.get_mut(id).and_then(|client| client.caching().fill.as_mut());
        fill.into_iter().for_each(|fill| fill.deps = Arc::clone(&deps));
    }

    /// What anybody has said by now must be in what replicas say from now on.
    pub(super) fn note_signals(&mut self, group: GroupId) {
        let Some(store) = &self.cache else { return };
        let this = &mut self.groups[group];
        let since_us = this.hearing.as_ref().map_or(0, |hearing| hearing.since_us());
        let newest_us = store.signals().marks().newest_us().max(since_us);
        if newest_us > 0 && this.signalled.as_ref().is_none_or(|known| known.at_us() < newest_us) {
            this.signalled = Some(Wrote::new(crate::base::clock::now_us().max(newest_us), this.cluster.wrote()));
        }
    }

    /// Whether an answer of this stamp shows what signals were about that came before it began.
    pub(super) fn shows_signals(&mut self, group: GroupId, stamp: Stamp) -> bool {
        let now_us = self.now_us;
        let this = &mut self.groups[group];
        match (&mut this.signalled, stamp.source) {
            (Some(signalled), Source::Replica(_)) => signalled.is_in(stamp, &this.cluster, now_us),
            _ => true,
        }
    }

    /// Whether nobody has said that the answer does not count any more, as far as that would have been heard.
    pub(super) fn stands(&self, group: GroupId, key: &[u8], entry: &Entry) -> bool {
        let began_us = entry.stamp.began_us;
        let is_heard = match (&self.groups[group].hearing, &self.config.cache.signals) {
            (_, None) => true,
            (hearing, Some(_)) => hearing.as_ref().is_some_and(|hearing| hearing.covers(began_us)),
        };
        let database = &*self.groups[group].database;
        let stands = |store: &Store| store.signals().stand(database, entry, || said_by(key));
        is_heard && self.cache.as_ref().is_some_and(|store| stands(store))
    }

    /// The group is about to ask the cache: from now on its database's notifications are heard, if they are to be.
    pub(super) fn hears(&mut self, group: GroupId) {
        let this = &mut self.groups[group];
        if this.hearing.is_none()
            && self.config.cache.signals.is_some()
            && let Some(store) = &self.cache
        {
            this.hearing = Some(store.hearing(&this.database));
            this.asks += 1;
            self.todo.push(Todo::Hear(group));
        }
    }

    /// A new configuration: the group's notifications may be others, or of no interest.
    pub(super) fn forget_hearing(&mut self, group: GroupId, before: &Cache) {
        let this = &mut self.groups[group];
        let Some(hearing) = &this.hearing else { return };
        let known = self.cache.as_ref().map(|store| store.hearing(&this.database));
        if known.is_none_or(|known| !Arc::ptr_eq(&known, hearing)) || before.signals != self.config.cache.signals {
            this.hearing = None;
        }
    }
}
