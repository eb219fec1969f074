//! Answers from the cache, for clients that need no server for them.
//! Must never give an answer that may be older than what its client has written, nor one that hangs on what is not in its key.
//!
//! A batch that rides in a lane ([`super::board`]) is nearly one whose answer can be kept: one statement, which certainly only reads, of a
//! session that is nothing but its settings. Beyond that its answer must hang on nothing else ([`crate::sql::kept`]), and somebody must
//! have said for how long it is good. What it hangs on is its key, with what makes all that was kept void: the timeline, and how often the
//! schema was changed from here.
//!
//! *Own writes.* An answer has a stamp from before its execution began. One from the primary shows whatever was committed by then: it is for
//! those whose last write was answered earlier. One from a replica shows what that had replayed: it is for those whose write lies within
//! ([`super::floor`]). A client that reads in turn what is kept and what is not may meet an older state behind a newer one, by no more than
//! the time that answers are good for; but of the same key from the same server none: an answer takes the place of another only if it
//! certainly is newer, and who was told one that does not is told no older one any more ([`crate::cache::Store::put`]).

use std::rc::Rc;
use std::sync::Arc;
use std::time::Duration;

use super::client::{SentBack, Unnamed};
use super::fill::Fill;
use super::shapes::Look;
use super::statements::Statement;
use super::{ClientId, GroupId, Relay};
use crate::cache::key::Key;
use crate::cache::{Entry, Source, Stamp, Store};
use crate::config::CacheMode;
use crate::flow::requests::End;
use crate::meter::{Bypass, CacheCounters, Miss};
use crate::pool::cluster::{Cluster, Floor};
use crate::sql::timed::may_name_moment;
use crate::sql::verdict::StatementKind;
use crate::sql::wish;
use crate::wire::build;
use crate::wire::frame::{HEADER, Header, cstr};
use crate::wire::tag;

/// What every key begins with that means nothing to other processes: [`Store::epoch`].
pub(super) const EPOCH_BYTES: usize = size_of::<u64>();

/// What a client has to do with the cache.
#[derive(Debug, Default)]
pub(super) struct Caching {
    /// The answer to the batch at hand is to be kept.
    pub fill: Option<Box<Fill>>,
    /// What it wrote last.
    wrote: Option<Box<Wrote>>,
    /// Something that may have written was forwarded in this lease.
    pub writes: bool,
    /// Number by which it waits for another's answer; 0: it does not.
    pub follows: u64,
    /// Nobody's answer but its own will do for the batch at hand.
    pub alone: bool,
    /// The cache that processes share has said that it has no answer for the batch at hand.
    pub looked: bool,
    /// What it runs changes the schema.
    pub alters: bool,
}

/// The last write of a client, or what others say was written.
#[derive(Debug)]
pub(super) struct Wrote {
    /// When it had been answered, microseconds.
    at_us: u64,
    /// What a replica must have replayed.
    floor: Floor,
    /// When all replicas were first seen to have it; 0: not yet.
    spread_us: u64,
}

impl Wrote {
    /// That was answered by now.
    pub fn new(at_us: u64, floor: Floor) -> Self {
        Self { at_us, floor, spread_us: 0 }
    }

    /// When it had been answered, microseconds.
    pub fn at_us(&self) -> u64 {
        self.at_us
    }

    /// Whether an answer of this stamp certainly shows it.
    pub fn is_in(&mut self, stamp: Stamp, cluster: &Cluster, now_us: u64) -> bool {
        match stamp.source {
            Source::Primary => stamp.began_us > self.at_us,
            Source::Replica(lsn) => {
                self.floor = cluster.settle(self.floor);
                match self.floor {
                    Floor::At(floor) => lsn >= floor,
                    Floor::After(_) => false,
                    Floor::None => {
                        if self.spread_us == 0 {
                            self.spread_us = now_us;
                        }
                        stamp.began_us > self.spread_us
                    }
                }
            }
        }
    }
}

impl Caching {
    /// Its lease is over.
    pub fn released(&mut self, now_us: u64, floor: impl FnOnce() -> Floor) {
        if std::mem::take(&mut self.writes) {
            self.has_written(now_us, floor());
        }
    }

    /// It has written, or been told of a write.
    pub fn has_written(&mut self, now_us: u64, floor: Floor) {
        let wrote = Wrote::new(now_us, floor);
        match &mut self.wrote {
            Some(known) => **known = wrote,
            none => *none = Some(Box::new(wrote)),
        }
    }

    /// Whether it has written later than then.
    pub fn wrote_since(&self, then_us: u64) -> bool {
        self.wrote.as_ref().is_some_and(|wrote| wrote.at_us >= then_us)
    }

    /// The servers are others: positions of before say nothing.
    pub fn moved(&mut self, now_us: u64, to: &Cluster) {
        if self.wrote.is_some() {
            self.has_written(now_us, to.wrote());
        }
    }

    /// Whether an answer of this stamp certainly shows what it wrote.
    fn sees(&mut self, stamp: Stamp, cluster: &Cluster, now_us: u64) -> bool {
        self.wrote.as_mut().is_none_or(|wrote| wrote.is_in(stamp, cluster, now_us))
    }
}

/// A batch whose answer may be in the cache.
pub(super) struct Asked {
    /// How old that may be, microseconds.
    pub ttl_us: u64,
    /// Its shape.
    pub shape: u64,
    /// Slots of its tags.
    pub tags: Box<[u32]>,
    /// It begins with a Parse.
    parses: bool,
    /// Somebody has said how old it may be.
    pub timed: bool,
    /// What the client's unnamed statement is then, if another than before.
    unnamed: Option<Unnamed>,
}

/// One statement in the extended protocol.
struct Single<'a> {
    statement: Rc<Statement>,
    parses: bool,
    /// What is described: 1, the statement; 2, the portal.
    describes: u8,
    /// The Bind behind its names: formats, parameters, formats of the result.
    bind: &'a [u8],
}

impl Relay {
    /// Answers the batch of `len` bytes at the front of an idle client's bytes from the cache, or has it wait for another's answer to the
    /// same. `Some`: it does not run now; what [`Relay::pump`] is told. Else its answer may be kept when it comes.
    pub(super) fn consult(&mut self, id: ClientId, data: &[u8], len: usize, end: End) -> Option<Option<usize>> {
        let client = self.clients.get_mut(id)?;
        let store = match &self.cache {
            Some(store) if self.groups[client.group].terms.caches => Arc::clone(store),
            _ => {
                self.fill_abandoned(id);
                return None;
            }
        };
        let caching = client.caching();
        caching.follows = 0;
        let before = caching.fill.take();
        // Whoever else comes to ask before this is over has a key of his own.
        let mut key = std::mem::take(&mut self.key);
        let (done, goes_on) = self.consult_with(id, &store, &mut key, data, (len, end), before.as_deref());
        if goes_on {
            // It comes a second time, having been elsewhere.
            self.clients.get_mut(id)?.caching().fill = before;
        } else {
            self.fill_ends(id, before, done == Some(Some(len)));
        }
        self.key = key;
        done
    }

    /// What [`Relay::consult`] says, and whether what the client had begun to keep goes on.
    fn consult_with(
        &mut self,
        id: ClientId,
        store: &Store,
        key: &mut Vec<u8>,
        data: &[u8],
        (len, end): (usize, End),
        before: Option<&Fill>,
    ) -> (Option<Option<usize>>, bool) {
        let Some(group) = self.clients.get(id).map(|client| client.group) else { return (None, false) };
        let asked = match self.asked(id, store, key, data.get(..len).unwrap_or_default(), end) {
            Ok(asked) => asked,
            Err(bypass) => {
                self.cache_counters(group).bypass(bypass).add(1);
                return (None, false);
            }
        };
        if store.is_disabled(&self.groups[group].database, asked.shape) {
            self.cache_counters(group).bypass(Bypass::Disabled).add(1);
            return (None, false);
        }
        let found = self.found(id, store, key, &asked);
        let Some(client) = self.clients.get_mut(id) else { return (None, false) };
        let looked = std::mem::take(&mut client.caching().looked);
        let serves = self.config.cache.mode == CacheMode::On;
        if let Ok(entry) = &found
            && serves
            && (data.len() > len || !self.is_verified())
        {
            self.answer_from(id, entry, asked, len);
            return (Some(Some(len)), false);
        }
        let trace = match self.trace(group, &asked) {
            Ok(trace) => trace,
            Err(bypass) => {
                self.cache_counters(group).bypass(bypass).add(1);
                return (None, false);
            }
        };
        if let Err(miss) = &found
            && !looked
        {
            self.cache_counters(group).miss(*miss).add(1);
        }
        if before.is_some_and(|fill| *fill.key == **key) {
            return (None, true);
        }
        let Some(client) = self.clients.get_mut(id) else { return (None, false) };
        if data.len() > len {
            // What is asked behind it without waiting would be taken for a part of its answer, or wait for it. It is told something newer
            // than what is kept.
            client.caching().writes = true;
            return (None, false);
        }
        let alone = std::mem::take(&mut client.caching().alone);
        let verified = found.is_ok() && serves;
        if serves && !verified && !alone && self.follows(id, key) {
            return (Some(None), false);
        }
        // What ends with a change says nothing in another process.
        if let Err(miss) = &found
            && serves
            && !alone
            && !looked
            && trace.is_none()
            && self.looks_up(id, store, key, *miss, &asked)
        {
            return (Some(None), false);
        }
        self.fills(id, store, key, &asked, (found.ok(), trace));
        (None, false)
    }

    pub(super) fn cache_counters(&self, group: GroupId) -> &CacheCounters {
        &self.pools[self.groups[group].primary].counters.cache
    }

    /// The answer that the cache has for the client, or why it has none.
    fn found(&mut self, id: ClientId, store: &Store, key: &[u8], asked: &Asked) -> Result<Arc<Entry>, Miss> {
        let group = self.clients.get(id).ok_or(Miss::Absent)?.group;
        self.hears(group);
        let entry = match &self.landed {
            Some((landed, entry)) if **landed == *key => Arc::clone(entry),
            _ => store.get(key).ok_or(Miss::Absent)?,
        };
        if !entry.is_good(self.now_us, asked.ttl_us) {
            if !entry.is_good(self.now_us, u64::MAX) {
                store.forget(key, &entry);
            }
            return Err(Miss::Expired);
        }
        let held = self.holds(group, &entry);
        if matches!(held, Err(Miss::Changed | Miss::Signalled)) {
            store.forget(key, &entry);
        }
        held?;
        let client = self.clients.get_mut(id).ok_or(Miss::Absent)?;
        let cluster = &self.groups[group].cluster;
        if client.caching().sees(entry.stamp, cluster, self.now_us) { Ok(entry) } else { Err(Miss::Older) }
    }

    /// Gives the client an answer that is kept.
    fn answer_from(&mut self, id: ClientId, entry: &Entry, asked: Asked, len: usize) {
        let Some(client) = self.clients.get_mut(id) else { return };
        entry.is_used();
        let sent = entry.answer.len() + if asked.parses { HEADER } else { 0 };
        // Before it is sent: whoever has its answer finds it counted.
        let counters = &self.pools[self.groups[client.group].primary].counters;
        counters.total_received.add(len as u64);
        counters.total_sent.add(sent as u64);
        counters.total_query_count.add(1);
        counters.total_xact_count.add(1);
        counters.cache.hits.add(1);
        counters.cache.hit_bytes.add(sent as u64);
        if asked.parses {
            let mut out = std::mem::take(&mut self.tx);
            build::message(&mut out, tag::server::PARSE_COMPLETE, |_| {});
            out.extend_from_slice(&entry.answer);
            client.send(&out);
            out.clear();
            self.tx = out;
        } else {
            client.send(&entry.answer);
        }
        asked.unnamed.into_iter().for_each(|unnamed| client.unnamed = unnamed);
        client.active_us = self.now_us;
        (client.paid, client.current, client.sent_back, client.losses) = (false, false, SentBack::Nowhere, 0);
        client.caching().alone = false;
        if self.draining {
            client.wake();
        }
    }

    /// What the batch asks, if its answer may be kept; puts together its key.
    fn asked(
        &mut self,
        id: ClientId,
        store: &Store,
        buffer: &mut Vec<u8>,
        batch: &[u8],
        end: End,
    ) -> Result<Asked, Bypass> {
        let client = self.clients.get(id).ok_or(Bypass::Session)?;
        if !client.reads {
            return Err(Bypass::Verdict);
        }
        let writes = client.cache.as_ref().is_some_and(|cache| cache.writes);
        if !client.is_only_settings() || writes || client.params.min_lsn.is_some() {
            return Err(Bypass::Session);
        }
        let conforming = client.conforming;
        match end {
            End::Query if batch.first() == Some(&tag::client::QUERY) => {
                let sql = batch.get(HEADER..).and_then(cstr).map_or(&[][..], |(sql, _)| sql);
                let look = self.shapes.look(sql, conforming);
                self.may_be_kept(id, &look, look.stand.keeps, sql).and_then(|ttl_us| {
                    let mut key = self.cache_key(id, store, buffer).ok_or(Bypass::Session)?;
                    key.number(0);
                    key.text(sql, conforming);
                    let tags = self.tags(id, &look, sql, &mut key);
                    let unnamed = Some(Unnamed::Nothing);
                    Ok(Asked { ttl_us, shape: look.shape, tags, parses: false, timed: ttl_us < u64::MAX, unnamed })
                })
            }
            End::Sync => self.single(id, batch).ok_or(Bypass::Batch).and_then(|single| {
                let Single { statement, parses, describes, bind } = single;
                let ttl_us = self.may_be_kept(id, &statement.look, statement.stand.get().keeps, statement.sql())?;
                if may_name_moment(bind) {
                    return Err(Bypass::Moment);
                }
                let mut key = self.cache_key(id, store, buffer).ok_or(Bypass::Session)?;
                key.number(1 + u64::from(describes));
                key.text(statement.sql(), conforming);
                key.field(statement.types());
                key.field(bind);
                let tags = self.tags(id, &statement.look, statement.sql(), &mut key);
                let shape = statement.look.shape;
                let unnamed = parses.then_some(Unnamed::Known(statement));
                Ok(Asked { ttl_us, shape, tags, parses, timed: ttl_us < u64::MAX, unnamed })
            }),
            End::Query | End::Call | End::Flush => Err(Bypass::Batch),
        }
    }

    /// For how many microseconds the answer to this statement may be kept.
    fn may_be_kept(&self, id: ClientId, look: &Look, keeps: bool, sql: &[u8]) -> Result<u64, Bypass> {
        if look.kind != StatementKind::Select || !look.is_bare() || !keeps {
            return Err(Bypass::Volatile);
        }
        let client = self.clients.get(id).ok_or(Bypass::Session)?;
        let (group, cache) = (&self.groups[client.group], &self.config.cache);
        let rule = group.rules.as_ref().and_then(|rules| rules.of(client.course));
        let of_rule = rule.and_then(|kept| kept.rule.cache_ttl.as_ref()).map(|ttl| cache.time(ttl));
        let in_comment = if look.hinted { wish::ttl(sql, client.conforming) } else { None };
        let said = [group.terms.cache_ttl, of_rule, in_comment.map(|word| cache.time_in_comment(word))];
        // What ends with a change needs no time, but may have one.
        let unlimited = group.terms.cache_staleness.map(|_| Duration::MAX);
        let said = said.into_iter().flatten().min().or(unlimited);
        let ttl = said.filter(|ttl| !ttl.is_zero()).ok_or(Bypass::Ttl)?;
        if may_name_moment(sql) {
            return Err(Bypass::Moment);
        }
        Ok(u64::try_from(ttl.as_micros()).unwrap_or(u64::MAX))
    }

    /// What every key of the client's begins with.
    fn cache_key<'a>(&self, id: ClientId, store: &Store, buffer: &'a mut Vec<u8>) -> Option<Key<'a>> {
        let client = self.clients.get(id)?;
        let group = &self.groups[client.group];
        let mut key = Key::new(buffer);
        key.number(store.epoch());
        key.field(&group.key);
        key.number(u64::from(group.cluster.newest_timeline()));
        key.number(u64::from(client.conforming));
        key.field(&client.params.kept_under);
        Some(key)
    }

    /// The statement of an extended batch that binds one and executes it whole, and does nothing else but to prepare it without a name and
    /// to have it described.
    fn single<'a>(&mut self, id: ClientId, batch: &'a [u8]) -> Option<Single<'a>> {
        let (mut found, mut parses, mut describes, mut bind, mut ran): (Option<Rc<Statement>>, _, _, _, _) =
            (None, false, 0, None, false);
        let mut at = 0;
        while let Some(rest) = batch.get(at..)
            && let Ok(Some(header)) = Header::peek(rest, usize::MAX)
            && let Some(body) = rest.get(HEADER..header.total)
        {
            match header.tag {
                tag::client::PARSE if !parses && bind.is_none() => {
                    found = Some(self.statement_for(id, body.strip_prefix(b"\0")?));
                    parses = true;
                }
                tag::client::BIND if bind.is_none() => {
                    // Of the unnamed portal.
                    let (name, rest) = cstr(body.strip_prefix(b"\0")?)?;
                    if name.is_empty() != parses {
                        return None;
                    }
                    if !parses {
                        found = Some(self.prepared_as(id, name)?);
                    }
                    bind = Some(rest);
                }
                tag::client::DESCRIBE if bind.is_some() && body == b"P\0" && describes & 2 == 0 => describes |= 2,
                tag::client::DESCRIBE if parses && bind.is_none() && body == b"S\0" && describes == 0 => describes = 1,
                // All rows of the unnamed portal.
                tag::client::EXECUTE if bind.is_some() && !ran && body == [0; 5] => ran = true,
                tag::client::SYNC if ran => {
                    let (statement, bind) = (found?, bind?);
                    return statement.shared.then_some(Single { statement, parses, describes, bind });
                }
                _ => return None,
            }
            at += header.total;
        }
        None
    }
}
