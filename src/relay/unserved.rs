//! Requests that fail because no server took them: the client is told, and lives on.
//! Must never answer a batch twice, nor take what follows it for a part of it.

use super::client::{Rest, SentBack, State};
use super::lease::Target;
use super::notes::Note;
use super::release::Farewell;
use super::slow::Circumstances;
use super::{ClientId, PoolId, Relay};
use crate::flow::requests::End;
use crate::meter::{ErrorClass, Sample};
use crate::wire::build;
use crate::wire::error::{PgError, SqlState};
use crate::wire::frame::{HEADER, Header};
use crate::wire::tag::client as tag;

/// A wait that has come to nothing.
#[derive(Clone, Copy, Debug)]
struct Waited {
    /// For a server of this pool.
    pool: PoolId,
    /// Since then, microseconds.
    since_us: u64,
}

impl Relay {
    /// Cancels what a client is still waiting to have done: no server need know.
    pub(super) fn cancel_waiting(&mut self, id: ClientId) {
        let message = "canceling statement due to user request";
        self.give_up_waiting(id, PgError::error(SqlState::QUERY_CANCELED, message));
    }

    /// What a client waits to have done fails; one that has not come in yet has nothing else to do.
    pub(super) fn give_up_waiting(&mut self, id: ClientId, error: PgError) {
        let Some(client) = self.clients.get_mut(id) else { return };
        let State::Waiting { pool, since_us, .. } = client.state else { return };
        if client.arriving.is_some() {
            return self.fatal(id, &error.fatally());
        }
        if error.code != SqlState::QUERY_CANCELED && self.is_spared_waiting(id) {
            return;
        }
        let Some(client) = self.clients.get_mut(id) else { return };
        client.state = State::Idle;
        let inbox = std::mem::take(&mut client.inbox);
        self.pools[pool].slice.leave(&id);
        if self.fail_batch_after(id, &inbox, &error, Some(Waited { pool, since_us })).is_some()
            && let Some(client) = self.clients.get_mut(id)
        {
            client.inbox = inbox;
            client.wake();
        }
    }

    /// Counts a client of this pool that has waited for too long; what it is told.
    pub(super) fn waited_too_long(&self, pool: PoolId) -> PgError {
        let this = &self.pools[pool];
        this.counters.total_query_wait_timeouts.add(1);
        let limit = self.query_wait_timeout(pool).unwrap_or_default();
        let message = format!("pgweir: no server connection became free within {} s", limit.as_secs_f32());
        let error = PgError::error(SqlState::TOO_MANY_CONNECTIONS, message);
        let error = match &this.workload {
            Some(workload) => error.hint(format!(
                "The limit is query_wait_timeout of the pool \"{}\"; more connections are allowed by its pool_size.",
                workload.name
            )),
            None => error.hint(
                "The limit is query_wait_timeout; more connections are allowed by default_pool_size or pool_size.",
            ),
        };
        match &this.failure {
            Some(failure) => error.detail(format!("The last attempt to open one failed: {failure}")),
            None => match self.pinned_in(this.group) {
                0 => error,
                n => error.detail(format!(
                    "{n} clients keep a connection to themselves; /pins of the stats port tells which and why."
                )),
            },
        }
    }

    /// Answers the batch at the front of an idle client's bytes with an error. A Query or FunctionCall
    /// is answered with that; of anything else PostgreSQL would read over what follows up to a Sync,
    /// which may not be here yet. `None`: the session has ended.
    pub(super) fn fail_batch(&mut self, id: ClientId, data: &[u8], error: &PgError) -> Option<usize> {
        self.fail_batch_after(id, data, error, None)
    }

    /// The same of one that waited for a server.
    fn fail_batch_after(
        &mut self,
        id: ClientId,
        data: &[u8],
        error: &PgError,
        waited: Option<Waited>,
    ) -> Option<usize> {
        if self.audit.is_some() {
            self.audit_refused(id, data, error);
        }
        if self.tracer.is_some() {
            self.trace_refused(id, data, error.code, waited.map(|waited| waited.since_us));
        }
        let Ok(Some(header)) = Header::peek(data, self.max_message()) else {
            self.fatal(id, &error.clone().fatally());
            return None;
        };
        if header.total <= data.len() {
            self.count_unserved(id, data, error, waited);
        }
        let client = self.clients.get_mut(id)?;
        client.state = State::Idle;
        (client.paid, client.current, client.sent_back) = (false, false, SentBack::Nowhere);
        client.unopened.fails();
        client.cache.iter_mut().for_each(|cache| (cache.spared, cache.why) = (false, None));
        let mut out = Vec::new();
        error.encode(&mut out);
        if matches!(header.tag, tag::QUERY | tag::FUNCTION_CALL) {
            client.rest = Rest::dropped(header.total);
            build::ready(&mut out, client.unopened.status());
        } else {
            client.skipping = true;
        }
        client.send(&out);
        Some(0)
    }

    /// The statement with which the batch begins has failed; what follows it is read over, as if it had not come.
    fn count_unserved(&mut self, id: ClientId, data: &[u8], error: &PgError, waited: Option<Waited>) {
        let Some(client) = self.clients.get(id) else { return };
        let (conforming, group) = (client.conforming, &self.groups[client.group]);
        let pool = waited.map_or(group.primary, |waited| waited.pool);
        let (place, measured) = (self.pools[pool].stats(group), group.terms.measured);
        let wait_us = waited.map_or(0, |waited| self.now_us.saturating_sub(waited.since_us));
        let is_slow = wait_us >= group.terms.slow_query_us;
        let limit = self.config.pool.slow_query_parameter_bytes as usize;
        // Values that were bound are not looked for.
        let (end, limit) = if data.first() == Some(&tag::QUERY) { (End::Query, limit) } else { (End::Sync, 0) };
        let mut first = None;
        self.each_statement(id, data, end, |look, sql| {
            let note = || Note::of_text(sql, conforming, limit);
            first.get_or_insert_with(|| (look.shape, is_slow.then(note)));
        });
        self.pools[pool].counters.total_errors.add(1);
        let Some((shape, note)) = first.filter(|_| measured) else { return };
        let class = ErrorClass::of(error.code);
        self.shapes.record_unserved(place, shape, wait_us, class);
        if is_slow {
            let sample = Sample { wait_us, error: Some(class), ..Sample::default() };
            let how = Circumstances { rode: false, code: Some(error.code), note };
            self.is_slow(pool, Some(id), shape, sample, how);
        }
    }

    /// Reads over a message behind such an error (`ignore_till_sync` in src/backend/tcop/postgres.c);
    /// how many bytes are done with, or `None` if nothing can be done with what is here.
    pub(super) fn skip(&mut self, id: ClientId, data: &[u8]) -> Option<usize> {
        let header = match Header::peek(data, self.max_message()) {
            Ok(header) => header?,
            Err(bad) => {
                self.violation(id, &bad.to_string());
                return None;
            }
        };
        let client = self.clients.get_mut(id)?;
        match header.tag {
            tag::SYNC if header.total == HEADER => {
                client.skipping = false;
                let mut out = Vec::new();
                build::ready(&mut out, client.unopened.status());
                client.send(&out);
                Some(HEADER)
            }
            tag::PARSE
            | tag::BIND
            | tag::DESCRIBE
            | tag::EXECUTE
            | tag::CLOSE
            | tag::FLUSH
            | tag::QUERY
            | tag::FUNCTION_CALL
            | tag::COPY_DATA
            | tag::COPY_DONE
            | tag::COPY_FAIL => {
                client.rest = Rest::dropped(header.total);
                Some(0)
            }
            tag::TERMINATE => {
                self.hang_up(id, Farewell::Terminated);
                None
            }
            tag::SYNC => {
                self.violation(id, "Sync with a body");
                None
            }
            other => {
                self.violation(id, &format!("invalid frontend message type {other}"));
                None
            }
        }
    }
}

/// What is told of a batch that no replica may serve now, and nothing else may.
pub(super) fn no_replica(target: Target) -> PgError {
    let error = PgError::error(SqlState::CANNOT_CONNECT_NOW, "pgweir: no replica may serve this session now");
    if target == Target::OnlyReplica {
        return error
            .detail("It asks for a standby: pgweir.target is \"standby\" or \"read-only\".")
            .hint("With pgweir.target = 'replica' the primary serves it in the meantime.");
    }
    error
        .detail("None of them answers and is near enough to the primary, and no_replica of its database is \"fail\".")
        .hint("With pgweir.target = 'primary' the primary serves it.")
}
