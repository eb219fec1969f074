//! Limits in bytes of what clients prepare, and the error of a Parse beyond them.
//! Must never let the server go on with a batch of which a message was refused.

use super::attach::NO_STATEMENT;
use super::forward::{Message, Outgoing, Taken};
use super::names::Names;
use super::{ClientId, Relay, ServerId};
use crate::flow::expect::{Expect, Kind, Origin};
use crate::wire::build;
use crate::wire::error::{PgError, SqlState};

/// Name that no statement has on any server: to describe it fails. Whoever reads the server's log
/// finds in it why.
pub(super) const REFUSED: &[u8] = b"__pgweir_refused_for_its_size";

/// A limit in bytes that a Parse went beyond.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Limit {
    /// `max_client_prepared_bytes`.
    Client = 0,
    /// `max_prepared_bytes`.
    Process = 1,
}

impl Relay {
    /// The limit that one more statement would go beyond.
    pub(super) fn limit_passed(&mut self, id: ClientId, name: &[u8], tail: &[u8], known: bool) -> Option<Limit> {
        let pool = &self.config.pool;
        let (most, most_in_all) = (pool.max_client_prepared_bytes as usize, u64::from(pool.max_prepared_bytes));
        let cost = Names::cost(name, tail);
        let has = self.clients.get(id)?.prepared.as_ref().map_or(0, |names| names.bytes());
        if has + cost > most {
            return Some(Limit::Client);
        }
        let more = if known { cost - tail.len() } else { cost } as u64;
        if self.registry.prepared_bytes() + more <= most_in_all {
            return None;
        }
        self.statements.drop_unused();
        (self.registry.prepared_bytes() + more > most_in_all).then_some(Limit::Process)
    }

    /// Sends what must fail at the place of a Parse, so that the server too reads over the rest of
    /// the batch. The error is replaced when it comes.
    pub(super) fn refuse(
        &mut self,
        id: ClientId,
        server: ServerId,
        message: &Message<'_>,
        limit: Limit,
        out: &mut Outgoing<'_>,
    ) -> Taken {
        self.pool_of(server).inspect(|pool| pool.counters.total_prepare_refusals.add(1));
        out.edit(message.at, message.header.total);
        build::describe_statement(&mut out.tx, REFUSED);
        self.expect(id, server, Kind::Describe, Origin::Refused, NO_STATEMENT, limit as u64);
        Taken::Bytes(message.header.total)
    }

    /// The error for a message that [`Relay::refuse`] or [`Relay::bar`] refused.
    pub(super) fn refusal(&self, owner: Option<ClientId>, entry: &Expect) -> Vec<u8> {
        let pool = &self.config.pool;
        let error = if let Some(error) = self.bar_told(owner, entry) {
            error
        } else if entry.cookie == Limit::Client as u64 {
            let limit = pool.max_client_prepared_bytes;
            PgError::error(
                SqlState::PROGRAM_LIMIT,
                format!("pgweir: prepared statements of this connection would take more than {limit} bytes"),
            )
            .hint("Close statements that are not needed any more. The limit is max_client_prepared_bytes.")
        } else {
            let limit = pool.max_prepared_bytes;
            PgError::error(
                SqlState::PROGRAM_LIMIT,
                format!("pgweir: prepared statements of all connections would take more than {limit} bytes"),
            )
            .hint("Close statements that are not needed any more. The limit is max_prepared_bytes.")
        };
        let mut out = Vec::new();
        error.encode(&mut out);
        out
    }
}
