//! What a batch asks, as far as that concerns the cache: whether its answer may be kept, for how long, and under what.
//! Must never call two batches the same that may be answered differently.

use std::ops::Range;
use std::rc::Rc;
use std::time::Duration;

use super::client::Unnamed;
use super::shapes::Look;
use super::slow::WhyRun;
use super::statements::Statement;
use super::{ClientId, GroupId, Relay};
use crate::cache::Store;
use crate::cache::key::{Hashed, Key};
use crate::config::CacheMode;
use crate::flow::requests::End;
use crate::meter::{Bypass, Miss};
use crate::sql::timed::{may_name_moment, may_quote_moment};
use crate::sql::verdict::StatementKind;
use crate::sql::wish;
use crate::trace::Parent;
use crate::wire::frame::{HEADER, Header, cstr};
use crate::wire::tag;

/// What every key begins with that means nothing to other processes: [`Store::epoch`].
pub(super) const EPOCH_BYTES: usize = size_of::<u64>();

/// It was left alone.
const RARE: WhyRun = WhyRun::Bypassed(Bypass::Rare);

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
    /// Its client has waited for another's answer to the same.
    pub follows: bool,
    /// What the client's unnamed statement is then, if another than before.
    pub unnamed: Option<Unnamed>,
    /// The span that it is a part of, if anything is traced.
    pub parent: Option<Parent>,
}

/// One statement in the extended protocol.
#[derive(Debug)]
pub(super) struct Single {
    pub statement: Rc<Statement>,
    parses: bool,
    /// What is described: 1, the statement; 2, the portal.
    describes: u8,
    /// Where the Bind is behind its names: formats, parameters, formats of the result.
    bind: Range<usize>,
}

impl Relay {
    /// What the batch asks, if its answer may be kept; puts together its key.
    pub(super) fn asked(
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
                if self.rests(id, look.shape) {
                    return Err(Bypass::Rare);
                }
                self.may_be_kept(id, &look, look.stand.keeps, sql).and_then(|ttl_us| {
                    let mut key = self.cache_key(id, store, buffer).ok_or(Bypass::Session)?;
                    key.number(0);
                    key.text(sql, look.commented, conforming);
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
                        follows: false,
                        unnamed,
                        parent,
                    })
                })
            }
            End::Sync => self.single_again(id, batch).ok_or(Bypass::Batch).and_then(|single| {
                let Single { statement, parses, describes, bind } = single;
                if self.rests(id, statement.look.shape) {
                    return Err(Bypass::Rare);
                }
                let bind = batch.get(bind).ok_or(Bypass::Batch)?;
                let ttl_us = self.may_be_kept(id, &statement.look, statement.stand.get().keeps, statement.sql())?;
                if may_name_moment(bind) {
                    return Err(Bypass::Moment);
                }
                let mut key = self.cache_key(id, store, buffer).ok_or(Bypass::Session)?;
                key.number(1 + u64::from(describes));
                key.text(statement.sql(), statement.look.commented, conforming);
                key.field(statement.types());
                key.field(bind);
                let tags = self.tags(id, &statement.look, statement.sql(), &mut key);
                let shape = statement.look.shape;
                let parent = self.parent_in(statement.look.commented, statement.sql(), conforming);
                let unnamed = parses.then_some(Unnamed::Known(statement));
                let timed = ttl_us < u64::MAX;
                let (renews, follows) = (false, false);
                Ok(Asked { ttl_us, shape, tags, parses, timed, renews, follows, unnamed, parent })
            }),
            End::Query | End::Call | End::Flush => Err(Bypass::Batch),
        }
    }

    /// Whether this is not looked up, because next to nothing of its shape ever is kept.
    fn rests(&mut self, id: ClientId, shape: u64) -> bool {
        let Some(client) = self.clients.get(id) else { return false };
        if self.config.cache.mode != CacheMode::On || client.warms().is_some() {
            return false;
        }
        let (there, why) = (self.shape_there(client.group, shape), client.why_run());
        match why {
            None => self.worths.rests(there),
            // It comes a second time, having waited for something.
            Some(why) => why == RARE && self.worths.rested(there),
        }
    }

    /// Whether this is none of the cache's business: it is not kept, by what was found, and is rare. `looked`: other processes were asked.
    pub(super) fn is_left_alone(
        &mut self,
        id: ClientId,
        (store, key): (&Store, Hashed<'_>),
        shape: u64,
        miss: Option<Miss>,
        looked: bool,
    ) -> bool {
        let Some(group) = self.clients.get(id).map(|client| client.group) else { return false };
        let there = self.shape_there(group, shape);
        match miss {
            // Also of what another process has kept.
            None => self.worths.is_hit(there),
            Some(Miss::Absent) if !looked => return self.is_rare(id, store, key, there),
            Some(_) => {}
        }
        false
    }

    /// Whether this, which is not kept, is of a shape of which hardly anything is asked for twice, and was not asked for before; nor does anybody
    /// ask for it right now, whose answer may come to be kept.
    fn is_rare(&mut self, id: ClientId, store: &Store, key: Hashed<'_>, shape: u64) -> bool {
        let Some(client) = self.clients.get(id) else { return false };
        if self.config.cache.mode != CacheMode::On || client.warms().is_some() {
            return false;
        }
        let was = client.why_run() == Some(RARE);
        // It may come a second time, having waited for something.
        let is_poor = was || self.worths.is_poor(shape);
        is_poor && !self.flights.is_taken(key) && !self.is_led_abroad(key) && (was || !store.was_seen(key.hash()))
    }

    /// A shape of the database of a group.
    fn shape_there(&self, group: GroupId, shape: u64) -> u64 {
        shape ^ (self.groups[group].catalog as u64).rotate_right(8)
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
        if may_quote_moment(sql) {
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

    /// That of a batch, which may have been looked at just now to see where it may run.
    fn single_again(&mut self, id: ClientId, batch: &[u8]) -> Option<Single> {
        let place = (id, batch.as_ptr() as usize);
        match self.single.take() {
            Some((known, single)) if known == place => Some(single),
            _ => self.single(id, batch),
        }
    }

    /// The statement of a Parse, behind its name, if clients may share it.
    fn shared_statement_for(&mut self, id: ClientId, tail: &[u8]) -> Option<Rc<Statement>> {
        let found = self.find_text(id, tail);
        found.shareable.then(|| self.keep_text(tail, found))
    }

    /// The statement of an extended batch that binds one and executes it whole, and does nothing else but to prepare it without a name and
    /// to have it described.
    pub(super) fn single(&mut self, id: ClientId, batch: &[u8]) -> Option<Single> {
        let (mut found, mut parses, mut describes, mut bind, mut ran): (Option<Rc<Statement>>, _, _, _, _) =
            (None, false, 0, None, false);
        let mut at = 0;
        while let Some(rest) = batch.get(at..)
            && let Ok(Some(header)) = Header::peek(rest, usize::MAX)
            && let Some(body) = rest.get(HEADER..header.total)
        {
            match header.tag {
                tag::client::PARSE if !parses && bind.is_none() => {
                    found = Some(self.shared_statement_for(id, body.strip_prefix(b"\0")?)?);
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
                    let end = at + header.total;
                    bind = Some(end - rest.len()..end);
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
