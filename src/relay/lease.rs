//! Which server a batch needs, and how a client gets one.
//! Must never let a client pass another in the same queue.

use super::client::{State, Unnamed};
use super::{ClientId, LOOK_BYTES, PoolId, Relay, ServerId};
use crate::flow::requests::{Batch, End, batch};
use crate::meter::Role;
use crate::pool::slice::Taken;
use crate::sql::verdict::Route;
use crate::wire::error::{PgError, SqlState};
use crate::wire::frame::{HEADER, Header, cstr};
use crate::wire::tag::client as tag;

/// What kind of server a batch may run on.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Target {
    Primary,
    AnyReplica,
}

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
        let Some(client) = self.clients.get(id) else { return Target::Primary };
        if self.groups[client.group].replicas.is_empty() {
            return Target::Primary;
        }
        let conforming = client.conforming;
        let read = match end {
            End::Query if data.first() == Some(&tag::QUERY) => {
                let sql = data.get(HEADER..).and_then(cstr).map_or(&[][..], |(sql, _)| sql);
                may_leave(self.shapes.look(sql, conforming).route)
            }
            End::Sync => self.batch_reads_only(id, data),
            // Behind a Flush anything may follow in the same implicit transaction.
            End::Query | End::Call | End::Flush => false,
        };
        if read { Target::AnyReplica } else { Target::Primary }
    }

    /// Every statement of an extended batch may run on a replica.
    fn batch_reads_only(&mut self, id: ClientId, data: &[u8]) -> bool {
        let mut at = 0;
        let mut parsed: Vec<&[u8]> = Vec::new();
        while let Some(rest) = data.get(at..)
            && let Ok(Some(header)) = Header::peek(rest, usize::MAX)
            && let Some(body) = rest.get(HEADER..header.total)
        {
            let ok = match header.tag {
                tag::PARSE => match cstr(body) {
                    Some((name, tail)) => {
                        parsed.push(name);
                        may_leave(self.statement_for(id, tail).look.route)
                    }
                    None => false,
                },
                tag::BIND => match cstr(body).and_then(|(_, rest)| cstr(rest)) {
                    Some((name, _)) => parsed.contains(&name) || self.named_reads_only(id, name),
                    None => false,
                },
                tag::DESCRIBE => match body.split_first() {
                    Some((b'S', name)) => {
                        let name = cstr(name).map_or(&[][..], |(name, _)| name);
                        parsed.contains(&name) || self.named_reads_only(id, name)
                    }
                    _ => true,
                },
                tag::EXECUTE | tag::CLOSE | tag::SYNC => true,
                _ => false,
            };
            if !ok {
                return false;
            }
            at += header.total;
            if header.tag == tag::SYNC {
                // A lone Sync reads nothing: it goes where everything else goes.
                return at > HEADER;
            }
        }
        false
    }

    fn named_reads_only(&self, id: ClientId, name: &[u8]) -> bool {
        let Some(client) = self.clients.get(id) else { return false };
        let statement = if name.is_empty() {
            match &client.unnamed {
                Unnamed::Known(statement) => Some(statement),
                Unnamed::Nothing | Unnamed::There { .. } => None,
            }
        } else {
            client.prepared.as_ref().and_then(|prepared| prepared.get(name))
        };
        statement.is_some_and(|statement| may_leave(statement.look.route))
    }

    /// The pool that a batch for `target` goes to: the least busy replica that answers and has
    /// what the client wrote, else the primary.
    pub(super) fn choose(&mut self, id: ClientId, target: Target) -> Option<PoolId> {
        let group = self.groups.get_mut(self.clients.get(id)?.group)?;
        if target == Target::Primary {
            return Some(group.primary);
        }
        group.turn = group.turn.wrapping_add(1);
        let client = self.clients.get_mut(id)?;
        client.floor = group.positions.settle(client.floor);
        let n = group.replicas.len();
        let now_us = self.now_us;
        let pools = &self.pools;
        let fit = (0..n)
            .map(|offset| (group.turn + offset) % n)
            .filter(|&replica| group.positions.serves(replica, client.floor))
            .map(|replica| group.replicas[replica])
            .filter(|&pool| !pools[pool].pauses(now_us));
        fit.min_by_key(|&pool| pools[pool].slice.load()).or(Some(group.primary))
    }

    /// Gives the client a server of `pool` at once, or a place in the queue.
    pub(super) fn lease(&mut self, id: ClientId, pool: PoolId) -> Lease {
        let last = self.clients.get(id).map(|client| client.last.of(self.pools[pool].role));
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
            match slice.take(id, last) {
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
                        client.state = State::Waiting { pool, since_us: self.now_us };
                        client.notified = false;
                    }
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
        let Some(pool) = self.pool_of(server) else { return false };
        if pool.role == Role::Primary || self.servers.get(server).is_none_or(|s| s.replies.status() != b'I') {
            return true;
        }
        // A session that left its state on the replica cannot leave it: it hears the replica's own
        // refusal (25006) of what it may not do there.
        if self.clients.get(id).is_some_and(|client| !client.pinned.is_empty()) {
            return true;
        }
        match self.front(data) {
            Ok(Batch::Whole { end, .. }) => self.target(id, data, end) == Target::AnyReplica,
            // A batch that will not fit goes to the primary; errors are found where it is taken.
            Ok(Batch::Oversize | Batch::Incomplete) => false,
            _ => true,
        }
    }
}

fn may_leave(route: Route) -> bool {
    match route {
        Route::Replica | Route::BeginReadOnly => true,
        Route::Primary | Route::FollowTransaction => false,
    }
}
