//! A batch that failed because what the server had prepared is outdated is run again, and nobody notices.
//! Must never run again what may have had an effect, or of whose answer a byte has left.
//!
//! PostgreSQL refuses a statement whose result has another type than when it was prepared
//! (`RevalidateCachedQuery` in src/backend/utils/cache/plancache.c), and one that SQL out of our
//! sight has deallocated. Both are found when it is bound or described, before anything ran.

use super::attach::OWN;
use super::client::{SentBack, State};
use super::{ClientId, LOOK_BYTES, Relay, ServerId};
use crate::flow::expect::{Expect, Kind, Origin};
use crate::flow::replies::Event;
use crate::meter::Role;
use crate::sql::wish::Wish;
use crate::wire::error::{ServerError, SqlState};
use crate::wire::frame::{HEADER, Header};
use crate::wire::tag;

/// Longest batch that is kept until it is answered if it cannot be run elsewhere, and most memory that stays allocated
/// for one, bytes.
pub(super) const BATCH_BYTES: usize = 16 * 1024;

/// So many servers may be lost with one batch: it may be what they die of.
pub(super) const LOSSES: u8 = 3;

/// What is wrong with a statement that a server was thought to have prepared.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Missing {
    /// Its result has changed.
    Outdated,
    /// It is not there.
    Gone,
}

/// The newest batch on a server, as long as it could be run again.
#[derive(Debug, Default)]
pub struct Again {
    /// As the client sent it; empty if it is not kept. Allocated once per server, but for the longest.
    batch: Vec<u8>,
    /// It only reads, or a replica has it: it may be run again elsewhere whatever came of it here.
    movable: bool,
    /// The next message is the first of a lease.
    lent: bool,
    /// It failed, and is run again at its ReadyForQuery.
    failed: bool,
    /// Then on the primary: a replica could not run it.
    elsewhere: bool,
    /// It is being run again: once is enough.
    repeated: bool,
    /// It was cancelled so that the primary runs it.
    called_back: bool,
}

impl Again {
    /// The server was lent: a batch begins.
    pub fn lent(&mut self) {
        self.forget();
        self.lent = true;
    }

    /// The batch cannot be run again any more, unless that is about to be done.
    pub fn forget(&mut self) {
        if !self.failed {
            self.called_back = false;
            self.batch.clear();
            self.batch.shrink_to(BATCH_BYTES);
        }
    }

    /// The whole batch was forwarded.
    pub fn keep(&mut self, batch: &[u8], movable: bool) {
        self.movable = movable;
        let most = if movable { LOOK_BYTES } else { BATCH_BYTES };
        if batch.len() <= most && !self.repeated {
            self.batch.extend_from_slice(batch);
        }
    }

    /// The next message is the first of a lease.
    pub fn is_lent(&self) -> bool {
        self.lent
    }

    /// There is a batch that may be run elsewhere.
    pub fn is_movable(&self) -> bool {
        self.movable && !self.batch.is_empty()
    }

    /// Whether it may be cancelled to be run on the primary.
    pub fn may_be_called_back(&self) -> bool {
        self.is_movable() && !self.called_back && !self.failed
    }

    /// It was cancelled for that.
    pub fn is_called_back(&mut self) {
        self.called_back = true;
    }

    /// The client cancels it itself: nobody is to run it any more.
    pub fn is_cancelled(&mut self) {
        self.called_back = false;
    }

    /// A message was forwarded.
    pub fn begun(&mut self) {
        self.lent = false;
    }

    /// The failed batch has come to its end: whether to run it again.
    pub fn is_due(&mut self, wanted: bool) -> bool {
        if !wanted {
            self.failed = false;
        }
        self.failed
    }

    /// Its end is swallowed, as it is run again then; until then nothing more may be forwarded.
    pub fn has_failed(&self) -> bool {
        self.failed
    }
}

impl Relay {
    /// A message that begins a batch is about to be forwarded. Whether the batch may be kept.
    pub(super) fn batch_begins(&mut self, id: ClientId, server: ServerId, lent: bool) -> bool {
        let (Some(this), Some(client)) = (self.servers.get_mut(server), self.clients.get_mut(id)) else { return false };
        this.again.forget();
        // At the start of a lease nothing is owed to the client, at most to settings in front.
        let first = lent || !this.replies.busy();
        let fit = first && this.replies.status() == b'I' && !client.is_bound() && client.arriving.is_none();
        if fit {
            client.forget_renames();
        }
        fit
    }

    /// Whether a batch that begins may be run elsewhere. Of what comes first in a lease it is known whether it only reads.
    pub(super) fn may_be_moved(&mut self, id: ClientId, server: ServerId, lent: bool) -> bool {
        let (Some(client), Some(this)) = (self.clients.get_mut(id), self.servers.get(server)) else { return false };
        let reads = std::mem::take(&mut client.reads) && lent;
        let pool = &self.pools[this.pool];
        // One that has been in a lane must not suffer from that.
        let moves = client.losses.rode || client.renews() || self.groups[pool.group].cluster.is_watched();
        pool.role == Role::Replica || (reads && moves)
    }

    /// A batch has failed. True if it will be run again, so that the client need not hear of this.
    pub(super) fn is_repeated(
        &mut self,
        server: ServerId,
        owner: Option<ClientId>,
        event: &Event,
        bytes: &[u8],
    ) -> bool {
        // What is outdated is prepared anew on the same server: no reason to take its like for what a replica refuses.
        match event {
            Event::Failed(Some(entry), error) if missing(entry, error, bytes).is_some() => {
                self.outdated(server, owner, event, bytes)
            }
            _ => self.refused_here(server, owner, event),
        }
    }

    /// A replica could not run the batch, and the primary may.
    fn refused_here(&mut self, server: ServerId, owner: Option<ClientId>, event: &Event) -> bool {
        let Event::Failed(entry, error) = event else { return false };
        let fails_there = owner.is_some_and(|id| self.fails_on_primary(id, error));
        let has_stand_in = is_trouble(error) && owner.is_some_and(|id| self.has_stand_in(id));
        let (Some(this), Some(id)) = (self.servers.get_mut(server), owner) else { return false };
        let on_replica = self.pools[this.pool].role == Role::Replica;
        let called_back = this.again.called_back && error.code == SqlState::QUERY_CANCELED;
        let spares = has_stand_in && !on_replica;
        let elsewhere = match on_replica {
            true => is_of_replicas(error) || fails_there || called_back,
            false => is_farewell(error) || spares,
        };
        if let Some(entry) = entry
            && on_replica
            && is_for_good(error)
        {
            // Also if some of the answer has left, so that the client sees this error: it is the last of its kind.
            self.shapes.is_refused(entry.cookie);
        }
        if this.again.batch.is_empty() || !this.again.movable || !elsewhere {
            return false;
        }
        let Some(client) = self.clients.get_mut(id).filter(|client| client.params.wish != Wish::Standby) else {
            return false;
        };
        client.cache.iter_mut().for_each(|cache| cache.spared = spares);
        (this.again.failed, this.again.elsewhere) = (true, true);
        this.replies.was_not_told();
        let counters = &self.pools[this.pool].counters;
        counters.total_replica_refusals.add(u64::from(on_replica));
        true
    }

    /// The connection to a replica is gone or of no use, and of the answer to its client's batch no byte has left: the
    /// primary runs it. False if that cannot be.
    pub(super) fn goes_elsewhere(&mut self, server: ServerId) -> bool {
        let Some(this) = self.servers.get(server) else { return false };
        let Some(id) = this.owner() else { return false };
        let Some(client) = self.clients.get(id) else { return false };
        // Or it has not been forwarded yet, but for the settings in front of it.
        let unanswered = (!this.again.batch.is_empty() && this.again.movable) || this.again.lent;
        let has_others = self.groups[self.pools[this.pool].group].cluster.is_watched();
        let moves = client.params.wish != Wish::Standby && client.arriving.is_none() && !self.keeps(client);
        let again = has_others || client.losses.rode || client.renews();
        if !unanswered || !moves || !again || client.losses.count >= LOSSES {
            return false;
        }
        let Some(this) = self.servers.get_mut(server) else { return false };
        let opened_us = this.opened_us;
        let batch = std::mem::take(&mut this.again.batch);
        this.notes.iter_mut().for_each(|notes| notes.clear());
        self.take_back_batch(id, server, &batch);
        self.discard(server);
        if let Some(client) = self.clients.get_mut(id) {
            client.losses.add(opened_us, self.now_us);
            client.state = State::Idle;
            client.mid_batch = false;
        }
        true
    }

    /// The batch goes back to where it came from, and what it changed of the client's names is undone.
    fn take_back_batch(&mut self, id: ClientId, server: ServerId, batch: &[u8]) {
        let (Some(client), Some(this)) = (self.clients.get_mut(id), self.servers.get_mut(server)) else { return };
        client.take_back_renames(usize::MAX);
        if let Some(first) = this.unnamed_before.drain(..).next() {
            client.unnamed = first;
        }
        client.inbox.splice(0..0, batch.iter().copied());
        client.wake();
    }

    /// A batch has failed. What was outdated is prepared anew at its next use; true if the batch
    /// will be run again, so that the client need not hear of this.
    fn outdated(&mut self, server: ServerId, owner: Option<ClientId>, event: &Event, bytes: &[u8]) -> bool {
        let Event::Failed(Some(entry), error) = event else { return false };
        let Some(missing) = missing(entry, error, bytes) else { return false };
        if owner.is_none() {
            return false;
        }
        self.forget_prepared_on(server, owner, entry.statement, missing);
        let Some(this) = self.servers.get_mut(server) else { return false };
        let whole = Header::peek(bytes, usize::MAX).is_ok_and(|header| header.is_some_and(|h| h.total == bytes.len()));
        let again = whole && !this.again.batch.is_empty();
        this.again.failed = again;
        again
    }

    /// A statement that this client used is not on the server, or outdated there.
    pub(super) fn forget_prepared_on(
        &mut self,
        server: ServerId,
        client: Option<ClientId>,
        number: u32,
        missing: Missing,
    ) {
        let Some(this) = self.servers.get_mut(server) else { return };
        if this.prepared.remove(number).is_some() && missing == Missing::Outdated {
            this.outdated.push(number);
        }
        if this.unnamed == super::server::UnnamedOn::Statement(number) {
            this.unnamed = super::server::UnnamedOn::Nobody;
        }
        // Others may have had this server prepare under the new number what has become outdated since.
        if missing == Missing::Outdated
            && let Some(id) = client
            && let Some(new) = self.renew(id, number)
            && let Some(this) = self.servers.get_mut(server)
            && this.prepared.remove(new).is_some()
        {
            this.outdated.push(new);
        }
    }

    /// The client's statement gets a new number, so that no other server's copy is used either.
    fn renew(&mut self, id: ClientId, number: u32) -> Option<u32> {
        let client = self.clients.get_mut(id)?;
        if let super::client::Unnamed::Known(statement) = &mut client.unnamed
            && statement.id == number
        {
            *statement = self.statements.renew(statement);
        }
        let names = client.prepared.as_mut()?;
        let new = self.statements.renew(names.of_number(number)?);
        names.replace(number, &new);
        Some(new.id)
    }

    /// The failed batch has been read over up to its Sync: once more.
    pub(super) fn run_again(&mut self, server: ServerId) {
        let Some(this) = self.servers.get_mut(server) else { return };
        (this.again.failed, this.again.called_back) = (false, false);
        this.notes.iter_mut().for_each(|notes| notes.clear());
        let Some(id) = this.owner() else { return this.again.forget() };
        if std::mem::take(&mut this.again.elsewhere) {
            let batch = std::mem::take(&mut this.again.batch);
            self.take_back_batch(id, server, &batch);
            if let Some(client) = self.clients.get_mut(id).filter(|client| !client.is_spared()) {
                client.sent_back = SentBack::Refused;
            }
            return self.release(server);
        }
        let Some(client) = self.clients.get_mut(id) else { return };
        client.take_back_renames(usize::MAX);
        if let Some(first) = this.unnamed_before.drain(..).next() {
            client.unnamed = first;
        }
        this.again.repeated = true;
        let batch = std::mem::take(&mut this.again.batch);
        self.pool_of(server).inspect(|pool| pool.counters.total_batch_repeats.add(1));
        self.shapes.forget_last();
        let whole = self.forward(id, server, &batch) == batch.len();
        self.shapes.forget_last();
        if let Some(this) = self.servers.get_mut(server) {
            this.again = Again { batch, ..Again::default() };
            this.again.forget();
        }
        if !whole {
            self.lose(server, "pgweir: internal error: a batch could not be run again");
        }
    }
}

/// Whether a replica says so of what the primary would run (`src/backend/utils/errcodes.txt`): it writes, or needs what
/// recovery does not allow; replay was in its way; it lacks what the server's catalog may not have yet, a right or the
/// label of an enum too; a lock that replay holds, in time; memory or disk; the server goes.
pub(super) fn is_of_replicas(error: &ServerError) -> bool {
    const CLASSES: [&[u8; 2]; 5] = [b"08", b"42", b"53", b"58", b"XX"];
    const CODES: [&[u8; 5]; 12] = [
        b"55P03", b"0A000", b"22P02", b"25006", b"3F000", b"40001", b"40P01", b"55000", b"57P01", b"57P02", b"57P03",
        b"57P04",
    ];
    CLASSES.iter().any(|class| error.code.0.starts_with(*class))
        || CODES.iter().any(|code| error.code == SqlState(**code))
}

/// The warning with which a server ends when another process of its cluster has crashed, or it is to stop at once
/// (`quickdie` in src/backend/tcop/postgres.c).
pub(super) fn is_last_warning(bytes: &[u8]) -> bool {
    if bytes.first() != Some(&tag::server::NOTICE) {
        return false;
    }
    let Ok(Some(header)) = Header::peek(bytes, usize::MAX) else { return false };
    let Some(body) = bytes.get(HEADER..header.total) else { return false };
    let code = ServerError::parse(body).code;
    code == SqlState(*b"57P01") || code == SqlState(*b"57P02")
}

/// Whether the server says that it goes.
fn is_farewell(error: &ServerError) -> bool {
    [b"57P01", b"57P02", b"57P03"].iter().any(|code| error.code == SqlState(**code))
}

/// Whether the server cannot, whatever it was asked: the connection, memory, disk or places, its own state, the system, itself.
fn is_trouble(error: &ServerError) -> bool {
    [&b"08"[..], b"53", b"57P", b"58", b"XX"].iter().any(|begin| error.code.0.starts_with(begin))
}

/// Whether it would say so again.
fn is_for_good(error: &ServerError) -> bool {
    [b"25006", b"0A000", b"55000"].iter().any(|code| error.code == SqlState(**code))
}

/// What was wrong with the statement that `entry` used.
pub(super) fn missing(entry: &Expect, error: &ServerError, bytes: &[u8]) -> Option<Missing> {
    let used = matches!(entry.kind, Kind::Bind | Kind::Describe) && entry.origin == Origin::Client;
    if !used || entry.statement >= OWN {
        return None;
    }
    match error.code {
        SqlState::FEATURE_NOT_SUPPORTED if memchr::memmem::find(bytes, b"\0RRevalidateCachedQuery\0").is_some() => {
            Some(Missing::Outdated)
        }
        SqlState::UNDEFINED_STATEMENT => Some(Missing::Gone),
        _ => None,
    }
}
