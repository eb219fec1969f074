//! Who may ride in a lane, and how a request gets into one.
//! Must never let in what could leave anything behind, nor what another client's settings would give another meaning.

use std::rc::Rc;

use super::again::BATCH_BYTES;
use super::attach::{NO_STATEMENT, UNNAMED};
use super::catalog::Trust;
use super::client::{SentBack, State, Unnamed};
use super::forward::Outgoing;
use super::group::ParamSet;
use super::lane::{Fare, Fate, Rider};
use super::server::{UnnamedOn, Use};
use super::shapes::Look;
use super::statements::{ServerName, Statement};
use super::{Client, ClientId, PoolId, Relay, ServerId, Todo};
use crate::flow::expect::{Kind, Origin};
use crate::flow::requests::End;
use crate::meter::Unfit;
use crate::sql::verdict::Effects;
use crate::wire::frame::{HEADER, Header, cstr};
use crate::wire::tag::client as tag;

/// So often a client must have sent one batch at a time since it sent several: those are best sent on together, to a server of its own.
pub(super) const PIPELINES: u8 = 100;

/// Why a batch does not ride.
#[derive(Clone, Copy, Debug)]
pub(super) struct NoFare {
    pub why: Unfit,
    /// Until then its shape is out of the lanes, microseconds; 0: it is not.
    pub until_us: u64,
}

impl From<Unfit> for NoFare {
    fn from(why: Unfit) -> Self {
        Self { why, until_us: 0 }
    }
}

impl Relay {
    /// Puts the batch of `len` bytes at the front of `data` into a lane of this pool. True if it is in one: then its bytes stay
    /// where they are until it is answered.
    pub(super) fn board(&mut self, id: ClientId, pool: PoolId, data: &[u8], len: usize, end: End) -> bool {
        if !self.has_lanes(pool) {
            return false;
        }
        self.readmits(pool);
        let outcome = self.fare(id, data, len, end).and_then(|fare| {
            let server = self.lane_for(id, pool)?;
            self.get_in(id, server, data, fare);
            Ok(())
        });
        let Err(NoFare { why, until_us }) = outcome else { return true };
        self.pools[pool].counters.lanes.unfit(why).add(1);
        if matches!(why, Unfit::NoServer | Unfit::Stalled) {
            self.hopes(id, pool, until_us);
        }
        false
    }

    /// A client that has waited for a server gets this one. It may find room in a lane instead, or make the server one: then
    /// whether the server is taken.
    pub(super) fn board_waiting(&mut self, id: ClientId, server: ServerId) -> Option<bool> {
        let pool = self.servers.get(server)?.pool;
        if !self.has_lanes(pool) {
            return None;
        }
        let delay_us = self.lane_delay_us();
        let lane = self.boards_at_front(id, |this| {
            this.lane_with_room(id, pool, delay_us).or_else(|| this.begins_lane(id, pool, server))
        });
        if lane == Some(server) {
            self.take_aboard(pool);
        }
        lane.map(|lane| lane == server)
    }

    pub(super) fn has_lanes(&self, pool: PoolId) -> bool {
        let pool = &self.pools[pool];
        self.groups[pool.group].terms.lanes && !pool.is_held()
    }

    /// A rule says that the client's batch shares no server.
    fn is_alone_by_rule(&self, client: &Client) -> bool {
        let rules = self.groups[client.group].rules.as_ref();
        rules.and_then(|rules| rules.of(client.course)).is_some_and(|kept| !kept.rule.lanes)
    }

    /// What the batch needs to ride, or why it cannot.
    pub(super) fn fare(&mut self, id: ClientId, data: &[u8], len: usize, end: End) -> Result<Fare, NoFare> {
        let Some(client) = self.clients.get_mut(id) else { return Err(Unfit::Session.into()) };
        if !client.reads {
            return Err(Unfit::Verdict.into());
        }
        if data.len() > len || client.pipelines > 0 {
            client.pipelines = if data.len() > len { PIPELINES } else { client.pipelines - 1 };
            return Err(Unfit::Pipeline.into());
        }
        let Some(client) = self.clients.get(id) else { return Err(Unfit::Session.into()) };
        if client.sent_back == SentBack::Alone || self.is_alone_by_rule(client) {
            return Err(Unfit::Alone.into());
        }
        if !client.is_bare() {
            return Err(Unfit::Session.into());
        }
        if len > BATCH_BYTES {
            return Err(Unfit::Batch.into());
        }
        let conforming = client.conforming;
        let catalog = self.groups[client.group].catalog;
        let (look, stand, statement) = match end {
            End::Query if data.first() == Some(&tag::QUERY) => {
                let sql = data.get(HEADER..).and_then(cstr).map_or(&[][..], |(sql, _)| sql);
                let look = self.shapes.look(sql, conforming);
                (look, look.stand, None)
            }
            End::Sync => {
                let statement = self.one_statement(id, data)?;
                (statement.look, statement.stand.get(), Some(statement))
            }
            End::Query | End::Call | End::Flush => return Err(Unfit::Batch.into()),
        };
        if look.alone {
            return Err(Unfit::Alone.into());
        }
        // What was found out for another database, or before a change, says nothing here.
        let epoch = self.lane_epoch(catalog).filter(|epoch| *epoch == stand.epoch).ok_or(Unfit::Verdict)?;
        if !look.is_bare() || !stand.footing.is_shareable() {
            return Err(Unfit::Verdict.into());
        }
        let learned = self.shapes.learned(look.shape, catalog);
        if let Some(why) = learned.unfit(self.lane_fast_us(), self.now_us) {
            let until_us = if why == Unfit::Stalled { learned.out_until_us() } else { 0 };
            return Err(NoFare { why, until_us });
        }
        Ok(Fare { shape: look.shape, statement, bytes: len, usual_us: learned.usual_us(), epoch })
    }

    /// The epoch of what is known of the code of a database, as long as that is to be believed.
    pub(super) fn lane_epoch(&mut self, catalog: usize) -> Option<u32> {
        self.catalogs.hear(catalog);
        let known = self.catalogs.all.get(catalog)?;
        (known.epoch > 0 && known.trust == Trust::Full).then_some(known.epoch)
    }

    /// The statement of an extended batch that prepares it without a name or finds it prepared, binds it and executes it whole,
    /// and does nothing else.
    fn one_statement(&mut self, id: ClientId, data: &[u8]) -> Result<Rc<Statement>, Unfit> {
        let (mut found, mut parsed, mut bound, mut ran): (Option<Rc<Statement>>, _, _, _) = (None, false, false, false);
        let mut at = 0;
        while let Some(rest) = data.get(at..)
            && let Ok(Some(header)) = Header::peek(rest, usize::MAX)
            && let Some(body) = rest.get(HEADER..header.total)
        {
            match header.tag {
                tag::PARSE if !parsed && !bound => {
                    let tail = body.strip_prefix(b"\0").ok_or(Unfit::Batch)?;
                    found = Some(self.find_text(id, tail).known.ok_or(Unfit::Unknown)?);
                    parsed = true;
                }
                tag::BIND if !bound => {
                    let name = cstr(body).and_then(|(_, rest)| cstr(rest)).map(|(name, _)| name).ok_or(Unfit::Batch)?;
                    bound = true;
                    if name.is_empty() != parsed {
                        return Err(Unfit::Batch);
                    }
                    if !parsed {
                        found = Some(self.prepared_as(id, name).ok_or(Unfit::Batch)?);
                    }
                }
                tag::DESCRIBE if bound && body.first() == Some(&b'P') => {}
                tag::DESCRIBE if parsed && body == b"S\0" => {}
                tag::EXECUTE if bound && !ran && body.ends_with(&[0; 5]) => ran = true,
                tag::SYNC if ran => return found.ok_or(Unfit::Batch),
                _ => return Err(Unfit::Batch),
            }
            at += header.total;
        }
        Err(Unfit::Batch)
    }

    /// The client's statement of this name, if all who have it mean the same by it.
    pub(super) fn prepared_as(&self, id: ClientId, name: &[u8]) -> Option<Rc<Statement>> {
        let client = self.clients.get(id)?;
        let statement = client.prepared.as_ref()?.get(name)?;
        (statement.shared && statement.is_under(&client.params.meaning)).then(|| Rc::clone(statement))
    }

    /// A lane for the client: one with room, else a new one, else the one with the fewest before it.
    pub(super) fn lane_for(&mut self, id: ClientId, pool: PoolId) -> Result<ServerId, Unfit> {
        if let Some(server) = self.lane_with_room(id, pool, self.lane_delay_us()) {
            return Ok(server);
        }
        let Some(client) = self.clients.get(id) else { return Err(Unfit::Session) };
        let this = &mut self.pools[pool];
        let most = this.lane_count.allowed(self.config.pool.lanes.max) as usize;
        let is_free = this.slice.waiting() == 0 && this.lanes.len() < most;
        let servers = &self.servers;
        let fits = |server: &ServerId| servers.get(*server).is_some_and(|this| this.could_serve(client));
        if is_free && let Some(server) = this.slice.pull(fits) {
            if self.servers.get_mut(server).is_some_and(|this| this.conn.is_quiet()) {
                self.open_lane(pool, server);
                return Ok(server);
            }
            self.pools[pool].slice.lost();
            self.drop_server(server);
        }
        let this = &self.pools[pool];
        // Who gets a server to himself has one more opened.
        let grows = this.lanes.len() < most && this.slice.room() > 0;
        if grows {
            return Err(Unfit::NoServer);
        }
        self.pools[pool].lane_count.presses();
        self.lanes.are_needed();
        self.lane_with_room(id, pool, u64::MAX).ok_or(Unfit::NoServer)
    }

    /// The lane with the fewest before the client, if that takes them no longer than `delay_us`.
    fn lane_with_room(&self, id: ClientId, pool: PoolId, delay_us: u64) -> Option<ServerId> {
        let client = self.clients.get(id)?;
        let loads = self.pools[pool].lanes.iter().filter_map(|&server| {
            let this = self.servers.get(server)?;
            let lane = this.lane.as_deref().filter(|lane| !lane.closed && !this.retire)?;
            this.params.rides_with(&client.params).then_some((lane.load_us, server))
        });
        let (load_us, server) = loads.min_by_key(|(load_us, _)| *load_us)?;
        (load_us <= delay_us).then_some(server)
    }

    /// A server that comes to a client which has waited for it becomes a lane, if its pool has none.
    pub(super) fn begins_lane(&mut self, id: ClientId, pool: PoolId, server: ServerId) -> Option<ServerId> {
        let client = self.clients.get(id)?;
        let this = self.servers.get(server)?;
        if !self.pools[pool].lanes.is_empty() || !this.could_serve(client) || self.pools[pool].slice.open() < 2 {
            return None;
        }
        self.open_lane(pool, server);
        Some(server)
    }

    fn open_lane(&mut self, pool: PoolId, server: ServerId) {
        let Some(this) = self.servers.get_mut(server) else { return };
        this.use_ = Use::Shared;
        this.again.forget();
        this.speaker = None;
        this.lane.get_or_insert_default().since_us = self.now_us;
        this.done_us = self.now_us;
        self.pools[pool].lanes.push(server);
        self.lanes.opened(server);
        if self.lanes.take_unwatched() {
            self.todo.push(Todo::WatchLanes);
        }
    }

    /// The client's batch at the front of `data` is in the lane from now on.
    pub(super) fn get_in(&mut self, id: ClientId, server: ServerId, data: &[u8], fare: Fare) {
        self.fill_begins(id, server);
        let now_us = self.now_us;
        let delay_us = self.lane_delay_us();
        let (Some(client), Some(this)) = (self.clients.get_mut(id), self.servers.get_mut(server)) else { return };
        let role = self.pools[this.pool].role;
        client.last.note(role, server);
        client.waited_us = match client.state {
            State::Waiting { since_us, .. } => now_us.saturating_sub(since_us),
            _ => 0,
        };
        client.state = State::Riding(server);
        client.current = false;
        client.active_us = now_us;
        let Some(lane) = this.lane.as_deref_mut() else { return };
        lane.load_us += u64::from(fare.usual_us);
        let goes = lane.has_room(delay_us);
        if !goes || !lane.riders.is_empty() {
            self.lanes.are_needed();
        }
        let rider = Rider {
            client: id,
            fare,
            came_us: now_us,
            fate: Fate::Rides,
            cancelled: false,
            late: false,
            failed: None,
            told: 0,
            rows: 0,
        };
        if goes {
            self.send_aboard(server, data, rider);
        } else {
            lane.queue.push_back(rider);
        }
    }

    /// Puts a request behind those that are to be written to its server.
    pub(super) fn send_aboard(&mut self, server: ServerId, data: &[u8], rider: Rider) {
        let id = rider.client;
        let Some(this) = self.servers.get_mut(server) else { return };
        let Some(lane) = this.lane.as_deref_mut() else { return };
        let batch = data.get(..rider.fare.bytes).unwrap_or_default();
        let mut out = Outgoing::behind(batch, std::mem::take(&mut lane.out));
        match rider.fare.statement.clone() {
            None => {
                this.unnamed = UnnamedOn::Nobody;
                self.clients.get_mut(id).into_iter().for_each(|client| client.unnamed = Unnamed::Nothing);
                self.expect(id, server, Kind::Query, Origin::Client, UNNAMED, rider.fare.shape);
            }
            Some(statement) => self.send_batch(id, server, &statement, &mut out),
        }
        out.edit(batch.len(), 0);
        let (Some(this), Some(client)) = (self.servers.get_mut(server), self.clients.get_mut(id)) else { return };
        client.mid_batch = false;
        this.batch_tick = this.tick;
        if let Some(lane) = this.lane.as_deref_mut() {
            lane.out = out.tx;
            lane.push(rider);
        }
        this.wake();
    }

    /// Enters what an extended batch with this statement owes, and gives the statement the name that it has on the server.
    fn send_batch(&mut self, id: ClientId, server: ServerId, statement: &Rc<Statement>, out: &mut Outgoing<'_>) {
        let shape = statement.look.shape;
        let mut at = 0;
        let mut number = UNNAMED;
        while let Some(rest) = out.data.get(at..)
            && let Ok(Some(header)) = Header::peek(rest, usize::MAX)
        {
            let (kind, statement) = match header.tag {
                tag::PARSE => {
                    if let (Some(client), Some(this)) = (self.clients.get_mut(id), self.servers.get_mut(server)) {
                        client.unnamed = Unnamed::Known(Rc::clone(statement));
                        this.unnamed = UnnamedOn::Nobody;
                    }
                    (Kind::Parse, UNNAMED)
                }
                tag::BIND => {
                    number = self.bind_aboard(id, server, statement, at, out).unwrap_or(number);
                    (Kind::Bind, number)
                }
                tag::DESCRIBE => (Kind::Describe, NO_STATEMENT),
                tag::EXECUTE => (Kind::Execute, NO_STATEMENT),
                _ => (Kind::Sync, NO_STATEMENT),
            };
            self.expect(id, server, kind, Origin::Client, statement, shape);
            at += header.total;
        }
    }

    /// A Bind at `at`: of a named statement under the name that the server knows it by, prepared first where it does not.
    fn bind_aboard(
        &mut self,
        id: ClientId,
        server: ServerId,
        statement: &Rc<Statement>,
        at: usize,
        out: &mut Outgoing<'_>,
    ) -> Option<u32> {
        let message = out.data.get(at..)?;
        let header = Header::peek(message, usize::MAX).ok()??;
        let (portal, rest) = cstr(message.get(HEADER..header.total)?)?;
        let (name, _) = cstr(rest)?;
        if name.is_empty() {
            return None;
        }
        self.pool_of(server).inspect(|pool| pool.counters.total_bind_count.add(1));
        let number = self.ensure_prepared(id, server, statement, at, out);
        let offset = HEADER + portal.len() + 1;
        out.rename(at, &header, name.len(), ServerName::of(number).bytes(), offset);
        Some(number)
    }
}

impl Client {
    /// Its session is nothing but its settings and what it has prepared, and it acts as itself.
    fn is_bare(&self) -> bool {
        self.is_only_settings() && !self.params.acts
    }

    /// Its session is nothing but its settings and what it has prepared.
    pub(super) fn is_only_settings(&self) -> bool {
        self.pinned.is_empty()
            && !self.changed
            && self.touched.is_none()
            && self.listens.is_none()
            && self.arriving.is_none()
            && !self.unopened.is_there()
            && !self.own
            && !self.late
            && self.params.reported.borrow().is_some()
            && self.conn.backlog() == 0
            && self.prepared.as_ref().is_none_or(|names| names.own == 0 && !names.unsure && !names.watches_portals())
    }
}

impl Look {
    /// It does nothing to its session, as far as its text says; of functions that are not built in the catalog knows.
    pub(super) fn is_bare(&self) -> bool {
        self.effects.without(Effects::UNKNOWN_FUNCTION).is_empty()
    }
}

impl super::Server {
    /// The client's reads can run here with nothing put in front.
    fn could_serve(&self, client: &Client) -> bool {
        self.params.rides_with(&client.params) && self.smudged.is_none() && !self.retire && self.cancels == 0
    }
}

impl ParamSet {
    /// They differ in nothing that a read hangs on.
    pub(super) fn rides_with(&self, other: &Self) -> bool {
        std::ptr::eq(self, other) || self.riding == other.riding
    }
}
