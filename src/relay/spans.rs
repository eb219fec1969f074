//! Statements that are recorded for OpenTelemetry, told of when they are over.
//! Must never read a clock, nor cost one that is not recorded more than the drawing of a number, or the search for its parent in its comments.
//!
//! Whether a statement is recorded is decided when it is counted. Its parent is read when it is forwarded, and noted until then
//! (`relay::notes`): in the extended protocol it is the one in the text that was prepared. A Query of several statements has a span for each of them, as
//! each is counted. Lookups in the cache belong to the first statement of a batch.

use std::sync::Arc;

use super::client::Client;
use super::lane::Rider;
use super::slow::WhyRun;
use super::{ClientId, GroupId, PoolId, Relay, ServerId};
use crate::config;
use crate::flow::expect::{Expect, Kind, Origin};
use crate::flow::requests::End;
use crate::meter::{Exemplar, Role, Sample, SlotId};
use crate::trace::{Context, Lookup, Parent, Request, Run, Sampler, Session, Statement, Times};
use crate::wire::error::SqlState;
use crate::wire::frame::{HEADER, Header, cstr};
use crate::wire::tag::client as tag;

/// Which statements are recorded.
#[derive(Debug)]
pub(super) struct Tracer {
    sampler: Sampler,
    /// Comments name parents.
    follows: bool,
}

impl Tracer {
    /// As the configuration says, if it does.
    pub fn of(config: Option<&config::Traces>) -> Option<Box<Self>> {
        let config = config?;
        Some(Box::new(Self { sampler: Sampler::new(config.ratio), follows: config.parent }))
    }
}

/// Where a statement was, and what it needed.
pub(super) struct Ran {
    pub pool: PoolId,
    pub shape: u64,
    pub sample: Sample,
    /// It has failed.
    pub code: Option<SqlState>,
    /// It waited, until its time on the server began.
    pub from_us: u64,
    pub began_us: u64,
    /// How many answers came with the same read from its lane; 0: it had the server to itself.
    pub abreast: u32,
    /// Where it is counted.
    pub slot: Option<SlotId>,
}

impl Relay {
    /// The parent that a statement names, if that matters.
    pub(super) fn parent_in(&self, commented: bool, sql: &[u8], conforming: bool) -> Option<Parent> {
        let follows = self.tracer.as_ref().is_some_and(|tracer| tracer.follows);
        if follows && commented { Parent::named_in(sql, conforming) } else { None }
    }

    /// The span of a statement, if it is recorded.
    fn decide(&mut self, parent: Option<&Parent>) -> Option<Context> {
        self.tracer.as_deref_mut()?.sampler.decide(parent.map(|parent| parent.context))
    }

    /// A statement of a client that had the server to itself is over.
    pub(super) fn trace_counted(&mut self, server: ServerId, owner: Option<ClientId>, entry: &Expect, ran: Ran) {
        let notes = self.servers.get(server).filter(|_| entry.note > 0).and_then(|this| this.notes.as_deref());
        let parent = notes.and_then(|notes| notes.get(entry.note)?.parent.clone());
        if let Some(context) = self.decide(parent.as_ref()) {
            self.trace_ran(context, parent, owner, ran);
        }
    }

    /// The same of one that rode in a lane, whose request is still there.
    pub(super) fn trace_rider(&mut self, rider: &Rider, ran: Ran) {
        let parent = self.parent_of_rider(rider);
        if let Some(context) = self.decide(parent.as_ref()) {
            self.trace_ran(context, parent, Some(rider.client), ran);
        }
    }

    /// The connection is gone with what this client had under way.
    #[cold]
    pub(super) fn trace_lost(&mut self, server: ServerId, owner: ClientId) {
        let Some(this) = self.servers.get(server) else { return };
        let (pool, done_us) = (this.pool, this.done_us);
        let runs =
            |entry: &&Expect| entry.origin == Origin::Client && matches!(entry.kind, Kind::Query | Kind::Execute);
        // One that was counted as failed may still owe its end.
        let entry = this.replies.entries().find(runs).filter(|entry| entry.sent_us > done_us).copied();
        let (Some(entry), Some(client)) = (entry, self.clients.get_mut(owner)) else { return };
        let wait_us = std::mem::take(&mut client.waited_us);
        let (began_us, shape) = (entry.sent_us, entry.cookie);
        let server_us = self.now_us.saturating_sub(began_us);
        let sample = Sample { wait_us, first_us: server_us, server_us, ..Sample::default() };
        let (code, from_us) = (Some(SqlState::CONNECTION_FAILURE), began_us.saturating_sub(wait_us));
        self.trace_counted(
            server,
            Some(owner),
            &entry,
            Ran { pool, shape, sample, code, from_us, began_us, abreast: 0, slot: None },
        );
    }

    fn parent_of_rider(&self, rider: &Rider) -> Option<Parent> {
        let client = self.clients.get(rider.client)?;
        if let Some(statement) = &rider.fare.statement {
            return self.parent_in(statement.look.commented, statement.sql(), client.conforming);
        }
        let batch = client.inbox.get(..rider.fare.bytes)?;
        let header = Header::peek(batch, usize::MAX).ok()?.filter(|header| header.tag == tag::QUERY)?;
        self.parent_in(true, cstr(batch.get(HEADER..header.total)?)?.0, client.conforming)
    }

    fn trace_ran(&mut self, context: Context, parent: Option<Parent>, owner: Option<ClientId>, ran: Ran) {
        let Ran { pool, shape, sample, code, from_us, began_us, abreast, slot } = ran;
        let this = &self.pools[pool];
        let (group, host) = (this.group, Arc::clone(&this.counters.target.host));
        let target = if this.role == Role::Primary { "primary".into() } else { Arc::clone(&host) };
        let times = (began_us, self.now_us);
        let run = Run { host, times, first_us: began_us + sample.first_us, abreast };
        let request = self.request((context, parent), (owner, group), shape, from_us);
        self.hand_in(
            Request {
                target: Some(target),
                rows: sample.rows,
                bytes: sample.bytes,
                error: code,
                wait: (from_us < began_us).then_some((from_us, began_us)),
                run: Some(run),
                ..request
            },
            slot,
            &sample,
        );
    }

    /// A statement that the cache did not answer, from `from_us` or its first look there until now; nobody has answered it yet.
    fn request(
        &mut self,
        (context, parent): (Context, Option<Parent>),
        (owner, group): (Option<ClientId>, GroupId),
        shape: u64,
        from_us: u64,
    ) -> Request {
        let (cache, looked) = owner.map(|id| self.cache_says(id)).unwrap_or_default();
        Request {
            context,
            parent,
            times: (looked.map_or(from_us, |(asked_us, _)| asked_us.min(from_us)), self.now_us),
            statement: self.statement_of(shape),
            session: self.session_of(owner, group),
            target: None,
            rows: 0,
            bytes: 0,
            error: None,
            cache,
            lookup: looked.map(|times| Lookup { times, hit: false }),
            wait: None,
            run: None,
        }
    }

    /// What the cache had to do with the statement that a client's batch begins with, and when it was looked for there.
    fn cache_says(&mut self, id: ClientId) -> (Option<String>, Option<Times>) {
        let Some(cache) = self.clients.get_mut(id).and_then(|client| client.cache.as_deref_mut()) else {
            return (None, None);
        };
        let asked_us = std::mem::take(&mut cache.asked_us);
        let why = cache.why.filter(|_| asked_us > 0);
        let times = why.filter(|why| !matches!(why, WhyRun::Bypassed(_))).map(|_| (asked_us, cache.why_us));
        (why.map(WhyRun::name), times)
    }

    /// A client was given an answer that was kept; `shared`: the cache that processes share had it.
    #[cold]
    pub(super) fn trace_kept(
        &mut self,
        id: ClientId,
        parent: Option<Parent>,
        shape: u64,
        sample: &Sample,
        shared: bool,
    ) {
        let Some(context) = self.decide(parent.as_ref()) else { return };
        let Some(client) = self.clients.get(id) else { return };
        let (group, now_us) = (client.group, self.now_us);
        let asked_us = client.cache.as_ref().map_or(0, |cache| cache.asked_us);
        let from_us = if asked_us > 0 { asked_us } else { now_us.saturating_sub(sample.server_us) };
        let slot = self.shapes.last_counted();
        self.hand_in(
            Request {
                context,
                parent,
                times: (from_us, now_us),
                statement: self.statement_of(shape),
                session: self.session_of(Some(id), group),
                target: Some(if shared { "l2" } else { "l1" }.into()),
                rows: sample.rows,
                bytes: sample.bytes,
                error: None,
                cache: Some("hit".to_owned()),
                lookup: Some(Lookup { times: (from_us, now_us), hit: true }),
                wait: None,
                run: None,
            },
            slot,
            sample,
        );
    }

    /// The batch at the front of a client's bytes fails before a server has it; it may have waited for one, since then.
    #[cold]
    pub(super) fn trace_refused(&mut self, id: ClientId, data: &[u8], code: SqlState, waited_us: Option<u64>) {
        let Some(client) = self.clients.get(id) else { return };
        let (group, conforming, now_us) = (client.group, client.conforming, self.now_us);
        let end = if data.first() == Some(&tag::QUERY) { End::Query } else { End::Sync };
        let follows = self.tracer.as_ref().is_some_and(|tracer| tracer.follows);
        let mut found = None;
        self.each_statement(id, data, end, |look, sql| {
            let named = || if follows && look.commented { Parent::named_in(sql, conforming) } else { None };
            found.get_or_insert_with(|| (look.shape, named()));
        });
        let Some((shape, parent)) = found else { return };
        let Some(context) = self.decide(parent.as_ref()) else { return };
        let request = self.request((context, parent), (Some(id), group), shape, waited_us.unwrap_or(now_us));
        let wait = waited_us.map(|since_us| (since_us, now_us));
        self.hand_in(Request { error: Some(code), wait, ..request }, None, &Sample::default());
    }

    fn hand_in(&mut self, request: Request, slot: Option<SlotId>, sample: &Sample) {
        let Sample { wait_us, first_us, server_us, .. } = *sample;
        let Context { trace, span, .. } = request.context;
        if let Some(slot) = slot {
            let exemplar = Exemplar { trace, span, done_us: self.now_us, wait_us, first_us, server_us };
            self.shapes.exemplify(slot, exemplar);
        }
        self.place.traces.tell(Box::new(request));
    }

    fn statement_of(&self, shape: u64) -> Statement {
        Statement { shape, known: self.shapes.known(shape) }
    }

    fn session_of(&self, id: Option<ClientId>, group: GroupId) -> Session {
        let client = id.and_then(|id| self.clients.get(id));
        let name =
            client.and_then(|client| client.params.settings.iter().find(|(name, _)| name == b"application_name"));
        let (peer, local) = client.map_or((None, None), |client| client.conn.socket().ends());
        let announced = |client: &Client| self.comes_from(client.number);
        let group = &self.groups[group];
        Session {
            database: group.database.clone(),
            user: group.user.clone(),
            application_name: name.map_or_else(Box::default, |(_, value)| String::from_utf8_lossy(value).into()),
            client: client.and_then(announced).or(peer),
            peer,
            local,
        }
    }
}
