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

use super::catalog::Trust;
use super::client::{Client, Unnamed};
use super::fill::{Fill, Landing};
use super::given::{Found, Service};
use super::shapes::Look;
use super::slow::WhyRun;
use super::statements::Statement;
use super::wrote::Wrote;
use super::{ClientId, GroupId, Relay};
use crate::cache::key::Key;
use crate::cache::{Entry, Outcome, Stamp, Store, Warming};
use crate::config::CacheMode;
use crate::flow::requests::End;
use crate::meter::{Bypass, CacheCounters};
use crate::pool::cluster::{Cluster, Floor};
use crate::sql::timed::may_name_moment;
use crate::sql::verdict::StatementKind;
use crate::sql::wish;
use crate::trace::Parent;
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
    /// No server answers its batch: what stands in for an answer will do ([`super::stand_in`]).
    pub spared: bool,
    /// What it runs changes the schema.
    pub alters: bool,
    /// It asks only so that the answers are kept.
    pub warms: Option<Arc<Warming>>,
    /// Why the batch at hand is not answered from the cache; `None` before that is known, and for what is not looked up.
    pub why: Option<WhyRun>,
    /// When that was looked at first, and last, microseconds; the former 0 once it was told of.
    pub asked_us: u64,
    pub why_us: u64,
    /// What a fence has said of an answer, and when, microseconds; `None`: it could not be asked.
    pub checked: Option<(u64, Arc<Entry>, Option<bool>)>,
}

impl Caching {
    /// Of a client that asks only so that the answers are kept.
    pub fn warming(warms: Arc<Warming>) -> Self {
        Self { warms: Some(warms), ..Self::default() }
    }

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
        self.wrote.as_ref().is_some_and(|wrote| wrote.at_us() >= then_us)
    }

    /// The servers are others: positions of before say nothing.
    pub fn moved(&mut self, now_us: u64, to: &Cluster) {
        if self.wrote.is_some() {
            self.has_written(now_us, to.wrote());
        }
    }

    /// Whether an answer of this stamp certainly shows what it wrote.
    pub fn sees(&mut self, stamp: Stamp, cluster: &Cluster, now_us: u64) -> bool {
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
    pub parses: bool,
    /// Somebody has said how old it may be.
    pub timed: bool,
    /// It is asked anew, and the cache has what may be given if nobody answers.
    pub renews: bool,
    /// What the client's unnamed statement is then, if another than before.
    pub unnamed: Option<Unnamed>,
    /// The span that it is a part of, if anything is traced.
    pub parent: Option<Parent>,
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
        let now_us = self.now_us;
        let caching = client.caching();
        caching.follows = 0;
        if caching.why.is_none() {
            caching.asked_us = now_us;
        }
        let (before, spared) = (caching.fill.take(), std::mem::take(&mut caching.spared));
        // Whoever else comes to ask before this is over has a key of his own.
        let mut key = std::mem::take(&mut self.key);
        let (done, goes_on) = self.consult_with(id, &store, &mut key, data, (len, end), (before.as_deref(), spared));
        if goes_on {
            // It comes a second time, having been elsewhere.
            self.clients.get_mut(id)?.caching().fill = before;
        } else {
            let landing = match done {
                Some(Some(_)) if spared => Landing::Spared,
                Some(Some(_)) => Landing::Kept,
                _ => Landing::Failed,
            };
            self.fill_ends(id, before, landing);
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
        (before, spared): (Option<&Fill>, bool),
    ) -> (Option<Option<usize>>, bool) {
        let Some(group) = self.clients.get(id).map(|client| client.group) else { return (None, false) };
        let mut asked = match self.asked(id, store, key, data.get(..len).unwrap_or_default(), end) {
            Ok(asked) => asked,
            Err(bypass) => return self.bypasses(id, group, bypass),
        };
        if store.is_disabled(&self.groups[group].database, asked.shape) {
            return self.bypasses(id, group, Bypass::Disabled);
        }
        let found = self.found(id, store, key, &asked);
        let Some(found) = self.fence_says(id, (key, store), found) else { return (Some(None), false) };
        let Some(client) = self.clients.get_mut(id) else { return (None, false) };
        let looked = std::mem::take(&mut client.caching().looked);
        let serves = self.config.cache.mode == CacheMode::On;
        // What it is compared with, and why it is not given.
        let (expected, miss) = match found {
            Ok(found) if serves => match self.service(id, key, found, &asked, (data.len() > len, spared)) {
                Service::Given(entry) => {
                    self.answer_from(id, &entry, asked, len);
                    return (Some(Some(len)), false);
                }
                Service::Compared(entry) => (Some(entry), None),
                Service::Renewed(miss) => {
                    asked.renews = true;
                    (None, miss)
                }
            },
            Ok(Found::Good(entry) | Found::Late(entry)) => (Some(entry), None),
            Err(miss) => (None, Some(miss)),
        };
        self.runs_as(
            id,
            if expected.is_some() { WhyRun::Compared } else { miss.map_or(WhyRun::Renewed, WhyRun::Missed) },
        );
        let trace = match self.trace(group, &asked, key) {
            Ok(trace) => trace,
            Err(bypass) => return self.bypasses(id, group, bypass),
        };
        if let Some(miss) = miss
            && !looked
        {
            self.cache_counters(group).miss(miss).add(1);
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
        if serves && expected.is_none() && !alone && self.follows(id, key) {
            return (Some(None), false);
        }
        // What ends with a change says nothing in another process.
        if let Some(miss) = miss
            && serves
            && !alone
            && !looked
            && trace.is_none()
            && self.looks_up(id, store, key, miss, &asked)
        {
            return (Some(None), false);
        }
        self.fills(id, store, key, &asked, (expected, trace));
        (None, false)
    }

    /// The batch runs, and has nothing to do with the cache: what [`Relay::consult_with`] says then.
    fn bypasses(&mut self, id: ClientId, group: GroupId, why: Bypass) -> (Option<Option<usize>>, bool) {
        self.cache_counters(group).bypass(why).add(1);
        self.runs_as(id, WhyRun::Bypassed(why));
        if self.clients.get(id).is_some_and(|client| client.warms().is_some()) {
            let catalog = self.catalogs.all.get(self.groups[group].catalog);
            let is_known = catalog.is_some_and(|catalog| catalog.epoch > 0 && catalog.trust == Trust::Full);
            let may_be_unknown = matches!(why, Bypass::Verdict | Bypass::Volatile | Bypass::Session);
            let outcome = if may_be_unknown && !is_known { Outcome::Unknown } else { Outcome::Bypassed(why) };
            self.warmed(id, outcome);
        }
        (None, false)
    }

    fn runs_as(&mut self, id: ClientId, why: WhyRun) {
        let now_us = self.now_us;
        let caching = self.clients.get_mut(id).map(Client::caching);
        caching.into_iter().for_each(|cache| (cache.why, cache.why_us) = (Some(why), now_us));
    }

    /// Whoever asks only so that answers are kept hears what became of this one.
    pub(super) fn warmed(&self, id: ClientId, outcome: Outcome) {
        self.clients.get(id).and_then(|client| client.warms()).into_iter().for_each(|warms| warms.tell(outcome));
    }

    pub(super) fn cache_counters(&self, group: GroupId) -> &CacheCounters {
        &self.pools[self.groups[group].primary].counters.cache
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
                    let parent = self.parent_in(look.commented, sql, conforming);
                    Ok(Asked {
                        ttl_us,
                        shape: look.shape,
                        tags,
                        parses: false,
                        timed: ttl_us < u64::MAX,
                        renews: false,
                        unnamed,
                        parent,
                    })
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
                let parent = self.parent_in(statement.look.commented, statement.sql(), conforming);
                let unnamed = parses.then_some(Unnamed::Known(statement));
                Ok(Asked { ttl_us, shape, tags, parses, timed: ttl_us < u64::MAX, renews: false, unnamed, parent })
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
        let until_changed = group.terms.cache_fenced || group.terms.cache_staleness.is_some();
        let unlimited = until_changed.then_some(Duration::MAX);
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
