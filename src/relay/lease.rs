//! Which server a batch needs, and how a client gets one.
//! Must never let a client pass another in the same queue.

use smallvec::SmallVec;

use super::catalog::Trust;
use super::client::{SentBack, State, Unnamed};
use super::pins::PINNING;
use super::retell::sql_of;
use super::shapes::{Look, Stand};
use super::statements::Statement;
use super::{ClientId, LOOK_BYTES, PoolId, Relay, ServerId};
use crate::config::Fallback;
use crate::flow::requests::{Batch, End, batch};
use crate::meter::Role;
use crate::pool::slice::Taken;
use crate::sql::footing::Footing;
use crate::sql::verdict::{Effects, Route};
use crate::sql::wish::Wish;
use crate::wire::error::{PgError, SqlState};
use crate::wire::frame::{HEADER, Header, cstr};
use crate::wire::tag::client as tag;

/// What kind of server a batch may run on. In the order in which the statements of a batch are agreed: the first counts.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Target {
    /// The primary.
    Primary,
    /// A replica that serves the client, else the primary.
    AnyReplica,
    /// The same, and it is certain that it does nothing but read: what becomes of it on a server that is lost does not matter.
    Pure,
    /// The same, and its answer does not hang on what transaction it is in.
    Steady,
    /// A replica, else nothing.
    OnlyReplica,
}

/// Effects of statements by which a session says where it wants to go.
const STEERING: Effects =
    Effects::SET_SESSION.union(Effects::RESET).union(Effects::SET_CONFIG).union(Effects::DISCARD_ALL);

/// Names of the statements that a batch has prepared so far.
pub(super) type Parsed<'a> = SmallVec<[&'a [u8]; 4]>;

/// How a client got on with its wish for a server.
pub(super) enum Lease {
    /// It has one.
    Server(ServerId),
    /// It is in the queue.
    Waits,
    /// Too many are in the queue already.
    Refused(PgError),
}

impl Relay {
    /// What the batch at the front of `data` may run on.
    pub(super) fn target(&mut self, id: ClientId, data: &[u8], end: End) -> Target {
        let Some(client) = self.clients.get_mut(id) else { return Target::Primary };
        let wish = client.params.wish;
        client.reads = false;
        self.asks_current = false;
        let group = &self.groups[client.group];
        let leaves = group.splits || wish == Wish::Standby;
        let refused = client.sent_back == SentBack::Refused;
        if refused {
            client.sent_back = SentBack::Nowhere;
        }
        if refused || !(leaves || group.terms.lanes || group.terms.caches) {
            return Target::Primary;
        }
        let conforming = client.conforming;
        let target = match end {
            End::Query if data.first() == Some(&tag::QUERY) => {
                let sql = data.get(HEADER..).and_then(cstr).map_or(&[][..], |(sql, _)| sql);
                let look = self.shapes.look(sql, conforming);
                self.target_of(id, &look, look.stand, sql).0
            }
            End::Sync if group.terms.caches => match self.single(id, data) {
                Some(single) => {
                    let target = self.target_of_statement(id, &single.statement);
                    self.single = Some(((id, data.as_ptr() as usize), single));
                    target
                }
                None => self.target_of_batch(id, data).unwrap_or_else(|| no_statement(wish)),
            },
            End::Sync => self.target_of_batch(id, data).unwrap_or_else(|| no_statement(wish)),
            // Behind a Flush anything may follow in the same implicit transaction.
            End::Query | End::Call | End::Flush => no_statement(wish),
        };
        if let Some(client) = self.clients.get_mut(id) {
            client.reads = matches!(target, Target::Pure | Target::Steady);
        }
        if leaves { target } else { Target::Primary }
    }

    /// What a batch that is too long to be looked at may run on.
    pub(super) fn target_unseen(&self, id: ClientId) -> Target {
        self.clients.get(id).map_or(Target::Primary, |client| no_statement(client.params.wish))
    }

    /// What one statement may run on. `stand`: what the catalog said of it when it was asked last; and what it says now.
    fn target_of(&mut self, id: ClientId, look: &Look, stand: Stand, sql: &[u8]) -> (Target, Stand) {
        let Some(client) = self.clients.get(id) else { return (Target::Primary, stand) };
        let target = match look.wish.or(client.params.wish) {
            Wish::Primary => Target::Primary,
            // To be refused there.
            _ if self.is_blocked(client.group, look.shape) => Target::Primary,
            // What is left in a session there would keep it from the primary.
            Wish::Replica if look.effects.any(PINNING) || self.shapes.stays(look.shape) => Target::Primary,
            Wish::Replica => Target::AnyReplica,
            // Or nobody could take the wish back while there is none.
            Wish::Standby if look.effects.any(STEERING) => Target::AnyReplica,
            Wish::Standby => Target::OnlyReplica,
            Wish::Auto if client.params.serializable || self.shapes.stays(look.shape) => Target::Primary,
            Wish::Auto => match look.route {
                Route::Replica | Route::Catalog => return self.target_by_catalog(id, look, stand, sql),
                // What may begin on no server has done so before.
                Route::BeginReadOnly | Route::Primary | Route::FollowTransaction => Target::Primary,
            },
        };
        (target, stand)
    }

    /// What a read may run on: what grammar and catalog both allow. While a catalog is about to be read for the first time all stays; if it cannot be read
    /// the grammar decides, and calls of functions that are not built in stay.
    fn target_by_catalog(&mut self, id: ClientId, look: &Look, mut stand: Stand, sql: &[u8]) -> (Target, Stand) {
        let Some(client) = self.clients.get(id) else { return (Target::Primary, stand) };
        let (number, has_globals) = (self.groups[client.group].catalog, self.groups[client.group].has_globals);
        let reads = look.route == Route::Replica && !has_globals && !self.catalog_is_awaited(client.group);
        self.catalogs.hear(number);
        let Some(catalog) = self.catalogs.all.get(number).filter(|catalog| catalog.epoch > 0) else {
            return (if reads { Target::AnyReplica } else { Target::Primary }, stand);
        };
        let is_sure = catalog.trust == Trust::Full;
        if stand.epoch != catalog.epoch {
            stand = self.stand_of(id, number, look, sql);
        }
        self.asks_current |= has_globals && stand.global;
        let target = match stand.footing {
            Footing::Safe | Footing::Alone if is_sure => Target::Steady,
            Footing::Timed | Footing::TimedAlone if is_sure => Target::Pure,
            footing if footing.is_read() && reads => Target::AnyReplica,
            Footing::Optimistic if is_sure => Target::AnyReplica,
            Footing::Safe | Footing::Alone | Footing::Timed | Footing::TimedAlone | Footing::Optimistic => {
                Target::Primary
            }
            footing @ Footing::Primary(_) => {
                if footing.is_unheard() {
                    self.look_soon(number);
                }
                Target::Primary
            }
        };
        (target, stand)
    }

    /// What an extended batch may run on: the most that all of its statements may. `None` if it has none.
    fn target_of_batch(&mut self, id: ClientId, data: &[u8]) -> Option<Target> {
        let mut at = 0;
        let mut parsed = Parsed::new();
        let mut all: Option<Target> = None;
        while let Some(rest) = data.get(at..)
            && let Ok(Some(header)) = Header::peek(rest, usize::MAX)
            && let Some(body) = rest.get(HEADER..header.total)
        {
            let one = match header.tag {
                tag::PARSE => cstr(body).map(|(name, tail)| {
                    parsed.push(name);
                    Some(self.target_of_text(id, tail))
                }),
                tag::BIND => {
                    let name = cstr(body).and_then(|(_, rest)| cstr(rest)).map(|(name, _)| name);
                    name.map(|name| self.target_of_named(id, name, &parsed))
                }
                tag::DESCRIBE => match body.split_first() {
                    Some((b'S', name)) => cstr(name).map(|(name, _)| self.target_of_named(id, name, &parsed)),
                    _ => Some(None),
                },
                tag::EXECUTE | tag::CLOSE | tag::SYNC => Some(None),
                _ => None,
            };
            all = match (one?, all) {
                (None, all) => all,
                (Some(one), None) => Some(one),
                (Some(one), Some(all)) => Some(one.min(all)),
            };
            if all == Some(Target::Primary) || header.tag == tag::SYNC {
                break;
            }
            at += header.total;
        }
        all
    }

    /// What the text behind the name of a Parse may run on. One that is not known yet is kept when it is forwarded.
    fn target_of_text(&mut self, id: ClientId, tail: &[u8]) -> Target {
        let found = self.find_text(id, tail);
        match found.known {
            Some(statement) => self.target_of_statement(id, &statement),
            None => self.target_of(id, &found.look, found.look.stand, sql_of(tail)).0,
        }
    }

    fn target_of_statement(&mut self, id: ClientId, statement: &Statement) -> Target {
        let (target, stand) = self.target_of(id, &statement.look, statement.stand.get(), statement.sql());
        statement.stand.set(stand);
        target
    }

    /// What a statement that was prepared may run on; `None` if it is one of those that this batch has prepared.
    fn target_of_named(&mut self, id: ClientId, name: &[u8], parsed: &[&[u8]]) -> Option<Target> {
        if parsed.contains(&name) {
            return None;
        }
        let Some(client) = self.clients.get(id) else { return Some(Target::Primary) };
        let statement = if name.is_empty() {
            match &client.unnamed {
                Unnamed::Known(statement) => Some(statement),
                Unnamed::Nothing | Unnamed::There { .. } => None,
            }
        } else {
            client.prepared.as_ref().and_then(|prepared| prepared.get(name))
        };
        let statement = statement.cloned();
        Some(statement.map_or(Target::Primary, |statement| self.target_of_statement(id, &statement)))
    }

    /// The pool that a batch for `target` goes to: the best of the replicas that answer, are not too far behind and
    /// have what the client wrote; else the primary. `None` if there is no such pool.
    pub(super) fn choose(&mut self, id: ClientId, target: Target) -> Option<PoolId> {
        let number = self.clients.get(id)?.group;
        self.follow_cluster(number);
        let way = self.way(self.clients.get(id)?);
        self.furnish(number, way.set);
        let group = self.groups.get(number)?;
        let primary = if way.set == 0 { group.primary } else { *group.set(way.set).get(group.primary_number())? };
        if target == Target::Primary {
            return Some(primary);
        }
        let sight = self.sight_of(id);
        let search = self.search(number, way, target, &sight);
        self.clients.get_mut(id)?.sight.reads = if search.is_bound { sight.reads.saturating_add(1) } else { 1 };
        let goes_on = match target {
            Target::OnlyReplica => false,
            // In a transaction nothing has to be read anywhere else.
            _ if self.clients.get(id)?.unopened.is_there() => true,
            _ if search.fails => false,
            _ => way.fallback != Fallback::Fail || !self.groups[number].splits,
        };
        search.found.or(goes_on.then_some(primary))
    }

    /// Gives the client a server of `pool` at once, or a place in the queue.
    pub(super) fn lease(&mut self, id: ClientId, pool: PoolId) -> Lease {
        let last = self.clients.get(id).map(|client| client.last.of(self.pools[pool].role));
        let held = self.pools[pool].is_held();
        loop {
            let slice = &mut self.pools[pool].slice;
            // One that came with a request which has waited too long will not wait anew.
            if slice.idle().len() == 0 && self.clients.get(id).is_some_and(|client| client.late) {
                return Lease::Refused(self.waited_too_long(pool));
            }
            let most = self.config.pool.max_waiting_clients as usize;
            // Those for whom a server is, or can be, opened do not count.
            if most > 0 && slice.idle().len() == 0 && slice.waiting() >= most.saturating_add(slice.room()) {
                let message = format!("pgweir: {most} clients wait for a server connection already");
                let error =
                    PgError::error(SqlState::TOO_MANY_CONNECTIONS, message).hint("The limit is max_waiting_clients.");
                return Lease::Refused(error);
            }
            let taken = if held { slice.wait(id) } else { slice.take(id, last) };
            match taken {
                Taken::Server(server) => {
                    // Whatever stirred on a server at rest is its end, or the start of it.
                    if self.servers.get_mut(server).is_some_and(|s| s.conn.is_quiet() && !s.retire) {
                        return Lease::Server(server);
                    }
                    self.pools[pool].slice.lost();
                    self.drop_server(server);
                }
                Taken::Waits => {
                    if let Some(client) = self.clients.get_mut(id) {
                        client.state = State::Waiting { pool, since_us: self.now_us, notified: false };
                    }
                    self.yield_lanes(pool);
                    self.grow(pool);
                    return Lease::Waits;
                }
            }
        }
    }

    /// What stands at the front of a client's bytes.
    pub(super) fn front(&self, data: &[u8]) -> Result<Batch, crate::wire::frame::BadLength> {
        batch(data, LOOK_BYTES, self.max_message())
    }

    /// Longest message accepted from a client, type byte included.
    pub(super) fn max_message(&self) -> usize {
        self.config.listen.max_packet_size as usize + 1
    }

    /// Whether a replica may take this batch of a client that it already serves.
    pub(super) fn may_follow(&mut self, id: ClientId, server: ServerId, data: &[u8]) -> bool {
        if !self.keeps_course(id, server, data) {
            return false;
        }
        // The read before it runs by itself: this one may need a server that has the transaction.
        if self.clients.get(id).is_some_and(|client| client.unopened.is_there())
            || self.is_to_hear_itself(id, server, data)
        {
            return false;
        }
        let Some(pool) = self.pool_of(server) else { return false };
        if pool.role == Role::Primary || self.servers.get(server).is_none_or(|s| s.replies.status() != b'I') {
            return true;
        }
        // What replicas refuse runs on the primary, so that nothing may be under way behind it.
        if self.servers.get(server).is_some_and(|this| this.replies.busy()) {
            return false;
        }
        // A session that left its state on the replica cannot leave it: it hears the replica's own
        // refusal (25006) of what it may not do there.
        if self.clients.get(id).is_some_and(|client| !client.pinned.is_empty()) {
            return true;
        }
        match self.front(data) {
            Ok(Batch::Whole { end, .. }) => self.target(id, data, end) != Target::Primary && !self.asks_current,
            // A batch that will not fit goes to the primary; errors are found where it is taken.
            Ok(Batch::Oversize | Batch::Incomplete) => false,
            _ => true,
        }
    }
}

/// For a batch in which there is no statement, or of which not all is known.
fn no_statement(wish: Wish) -> Target {
    match wish {
        Wish::Auto | Wish::Primary | Wish::Replica => Target::Primary,
        Wish::Standby => Target::OnlyReplica,
    }
}
