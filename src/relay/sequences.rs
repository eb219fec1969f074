//! What `currval()` and `lastval()` answer: values that the client drew itself, or PostgreSQL's own error.
//! Must never let a client read a value that another client drew.
//!
//! A server remembers the values that its session drew last; nothing can tell them, and nothing gives them to another
//! server. So it is noted whose values a server has, and where a client drew last. Before a client reads on a server
//! that has others' values, or older ones of its own, these are discarded, and PostgreSQL says that there are none
//! (55000). Discarding costs a statement, so servers are kept apart only in a database where somebody has read such a
//! value: from then on also before the first statement of a lease that may draw.
//!
//! That the values are still there when they are read is the affair of [`super::client::Last`], and of a pin: a statement
//! behind which its client was seen to read in another transaction keeps the server until that has happened, or until
//! others have waited and [`HOLD_US`] has passed.

use std::sync::Arc;

use super::attach::NO_STATEMENT;
use super::forward::Outgoing;
use super::inventory::HIDDEN;
use super::shapes::Look;
use super::{ClientId, Relay, ServerId};
use crate::config::{PoolMode, SessionState};
use crate::flow::expect::{Kind, Origin};
use crate::meter::Construct;
use crate::pool::budget::Stake;
use crate::sql::verdict::Effects;
use crate::wire::build;
use crate::wire::frame::HEADER;
use crate::wire::tag;

/// How long a client that was seen to read what it draws keeps a server although others wait, microseconds.
const HOLD_US: u64 = 1_000_000;

/// What is told behind PostgreSQL's words that there is no value.
const HINT: &[u8] = b"pgweir: what this session drew is on a server connection that others have used since. \
    Use INSERT ... RETURNING, or read it in the transaction that draws it.";

/// Whose values of sequences a server has.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Drawn {
    /// Nobody's.
    #[default]
    Nothing,
    /// Only this client's.
    By(ClientId),
    /// Of several.
    Mixed,
}

/// What a client has drawn.
#[derive(Clone, Copy, Debug, Default)]
pub struct Draws {
    /// Where it drew last; a key that finds nothing if it did not.
    on: ServerId,
    /// The statement that did.
    shape: u64,
    /// When, microseconds.
    at_us: u64,
    /// In this lease.
    now: bool,
    /// It has read since.
    read: bool,
    /// By a statement that says so, not by code that nobody can see into.
    seen: bool,
    /// Its values were discarded before a statement that reads.
    lost: bool,
}

impl Draws {
    /// The lease is over.
    pub(super) fn released(&mut self) {
        (self.now, self.lost) = (false, false);
    }
}

impl Relay {
    /// Before a statement that is known runs at `at`: others' values go, and whose the server has is noted. False if it
    /// must wait, as nobody can tell yet whether the transaction has failed.
    pub(super) fn mind_sequences(
        &mut self,
        id: ClientId,
        server: ServerId,
        look: &Look,
        sql: &[u8],
        at: usize,
        out: &mut Outgoing<'_>,
    ) -> bool {
        let Some(client) = self.clients.get_mut(id) else { return true };
        let reads =
            look.effects.any(Effects::SEQUENCE_READ) || (look.effects.any(Effects::OPAQUE) && names_reader(sql));
        if !reads && !look.draws {
            if client.draws.read && client.pinned.any(Effects::SEQUENCE_STATE) {
                client.pinned = client.pinned.without(Effects::SEQUENCE_STATE);
            }
            return true;
        }
        let Some(this) = self.servers.get_mut(server) else { return true };
        let group = &mut self.groups[client.group];
        let (terms, health) = (&group.terms, &self.pools[group.primary].health);
        if client.own || terms.pool_mode == PoolMode::Session || terms.session_state == SessionState::PgBouncer {
            return true;
        }
        if reads && !group.reads_sequences {
            group.reads_sequences = true;
            health.as_ref().inspect(|health| health.set_reads_sequences());
        }
        let apart = group.reads_sequences || health.as_ref().is_some_and(|health| health.reads_sequences());
        let own = this.drawn == Drawn::By(id) && client.draws.on == server;
        let exact = own || this.drawn == Drawn::Nothing;
        let stale = !exact && ((reads && !client.draws.now) || (look.draws && apart && !client.draws.now));
        if stale {
            if this.replies.batch_owed() {
                return false;
            }
            // PostgreSQL refuses whatever it is.
            if this.replies.refuses_all() {
                return true;
            }
            this.drawn = Drawn::Nothing;
        }
        if reads {
            client.draws.lost = client.draws.seen && (stale || client.draws.on != server);
            client.draws.read = true;
            let (drawn, now) = (client.draws.shape, client.draws.now);
            if !now && drawn != 0 {
                self.shapes.is_read_behind(drawn);
            }
        }
        if look.draws {
            self.note_draw(id, server, look);
        }
        if stale {
            self.discard_sequences(id, server, at, out);
        }
        true
    }

    fn note_draw(&mut self, id: ClientId, server: ServerId, look: &Look) {
        let keeps = self.shapes.keeps(look.shape);
        let (Some(client), Some(this)) = (self.clients.get_mut(id), self.servers.get_mut(server)) else { return };
        let own = this.drawn == Drawn::By(id) && client.draws.on == server;
        this.drawn = if own || this.drawn == Drawn::Nothing { Drawn::By(id) } else { Drawn::Mixed };
        client.draws.on = server;
        client.draws.now = true;
        client.draws.shape = look.shape;
        client.draws.at_us = self.now_us;
        client.draws.read = false;
        client.draws.seen |= !look.effects.any(HIDDEN);
        if !keeps {
            return;
        }
        let terms = &self.groups[client.group].terms;
        let limit = u64::from(terms.max_pinned_servers);
        if terms.session_state != SessionState::Transparent {
            return;
        }
        if client.pin.is_none() {
            let counters = Arc::clone(&self.groups[client.group].pins);
            if limit > 0 && self.registry.held_by(&counters.label) >= limit {
                return;
            }
            client.pinned |= Effects::SEQUENCE_STATE;
            self.hold(id, Construct::Sequence, look.shape);
        } else {
            client.pinned |= Effects::SEQUENCE_STATE;
        }
    }

    /// In front of a Query that begins something it is a batch of its own; else it belongs to the client's.
    fn discard_sequences(&mut self, id: ClientId, server: ServerId, at: usize, out: &mut Outgoing<'_>) {
        let is_query = out.data.get(at) == Some(&tag::client::QUERY);
        out.edit(at, 0);
        self.run_hidden(id, server, "DISCARD SEQUENCES", out);
        // Behind messages without a Sync of the client's it would end their transaction.
        if is_query && out.begins {
            build::sync(&mut out.tx);
            self.expect(id, server, Kind::Sync, Origin::Injected, NO_STATEMENT, 0);
        }
    }

    /// PostgreSQL's error that there is no value, with why.
    pub(super) fn hinted(&self, owner: Option<ClientId>, body: &[u8]) -> Option<Vec<u8>> {
        let lost = owner.and_then(|id| self.clients.get(id)).is_some_and(|client| client.draws.lost);
        if !lost || body.split(|byte| *byte == 0).any(|field| field.first() == Some(&b'H')) {
            return None;
        }
        let (_, fields) = body.split_last()?;
        let mut out = Vec::with_capacity(HEADER + body.len() + HINT.len() + 2);
        build::message(&mut out, tag::server::ERROR, |out| {
            out.extend_from_slice(fields);
            out.push(b'H');
            build::cstr(out, HINT);
            out.push(0);
        });
        Some(out)
    }

    /// The client keeps a server only for what it drew, has not come back for it, and others wait: they come first.
    pub(super) fn let_go_of_sequences(&mut self, id: ClientId, server: ServerId) {
        let (Some(client), Some(this)) = (self.clients.get_mut(id), self.servers.get(server)) else { return };
        if client.pinned != Effects::SEQUENCE_STATE {
            return;
        }
        let pool = &self.pools[this.pool];
        let wanted = pool.slice.waiting() > 0 || pool.stakes.iter().any(Stake::is_wanted);
        let hold_us = if wanted { HOLD_US } else { u64::MAX };
        let limit = self.groups[pool.group].terms.pin_idle_timeout;
        let hold_us = limit.map_or(hold_us, |limit| hold_us.min(limit.as_micros() as u64));
        if self.now_us.saturating_sub(client.draws.at_us) >= hold_us {
            client.pinned = Effects::NONE;
            self.finish(server);
        }
    }
}

/// Whether a text has the name of a function that reads, in any case of letters.
fn names_reader(sql: &[u8]) -> bool {
    sql.windows(7).any(|word| word.eq_ignore_ascii_case(b"currval") || word.eq_ignore_ascii_case(b"lastval"))
}
