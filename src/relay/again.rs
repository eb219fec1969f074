//! A batch that failed because what the server had prepared is outdated is run again, and nobody notices.
//! Must never run again what may have had an effect, or of whose answer a byte has left.
//!
//! PostgreSQL refuses a statement whose result has another type than when it was prepared
//! (`RevalidateCachedQuery` in src/backend/utils/cache/plancache.c), and one that SQL out of our
//! sight has deallocated. Both are found when it is bound or described, before anything ran.

use super::attach::OWN;
use super::{ClientId, Relay, ServerId};
use crate::flow::expect::{Expect, Kind, Origin};
use crate::flow::replies::Event;
use crate::wire::error::{ServerError, SqlState};
use crate::wire::frame::Header;

/// Longest batch that is kept until it is answered, bytes.
const BATCH_BYTES: usize = 16 * 1024;

/// What is wrong with a statement that a server was thought to have prepared.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Missing {
    /// Its result has changed.
    Outdated,
    /// It is not there.
    Gone,
}

/// The newest batch on a server, as long as it could be run again.
#[derive(Debug, Default)]
pub struct Again {
    /// As the client sent it; empty if it is not kept. Allocated once per server.
    batch: Vec<u8>,
    /// The next message is the first of a lease.
    lent: bool,
    /// It failed, and is run again at its ReadyForQuery.
    failed: bool,
    /// It is being run again: once is enough.
    repeated: bool,
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
            self.batch.clear();
        }
    }

    /// The whole batch was forwarded.
    pub fn keep(&mut self, batch: &[u8]) {
        if batch.len() <= BATCH_BYTES && !self.repeated {
            self.batch.extend_from_slice(batch);
        }
    }

    /// The next message is the first of a lease.
    pub fn is_lent(&self) -> bool {
        self.lent
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

    /// A batch has failed. What was outdated is prepared anew at its next use; true if the batch
    /// will be run again, so that the client need not hear of this.
    pub(super) fn outdated(&mut self, server: ServerId, owner: Option<ClientId>, event: &Event, bytes: &[u8]) -> bool {
        let Event::Failed(Some(entry), error) = event else { return false };
        let Some(missing) = missing(entry, error, bytes) else { return false };
        let (Some(this), Some(id)) = (self.servers.get_mut(server), owner) else { return false };
        if this.prepared.remove(entry.statement).is_some() && missing == Missing::Outdated {
            this.outdated.push(entry.statement);
        }
        if this.unnamed == super::server::UnnamedOn::Statement(entry.statement) {
            this.unnamed = super::server::UnnamedOn::Nobody;
        }
        let whole = Header::peek(bytes, usize::MAX).is_ok_and(|header| header.is_some_and(|h| h.total == bytes.len()));
        let again = whole && !this.again.batch.is_empty();
        this.again.failed = again;
        if missing == Missing::Outdated {
            self.renew(id, entry.statement);
        }
        again
    }

    /// The client's statement gets a new number, so that no other server's copy is used either.
    fn renew(&mut self, id: ClientId, number: u32) {
        let Some(client) = self.clients.get_mut(id) else { return };
        if let super::client::Unnamed::Known(statement) = &mut client.unnamed
            && statement.id == number
        {
            *statement = self.statements.renew(statement);
        }
        if let Some(names) = &mut client.prepared
            && let Some(old) = names.of_number(number)
        {
            let new = self.statements.renew(old);
            names.replace(number, &new);
        }
    }

    /// The failed batch has been read over up to its Sync: once more.
    pub(super) fn run_again(&mut self, server: ServerId) {
        let Some(this) = self.servers.get_mut(server) else { return };
        this.again.failed = false;
        let Some(id) = this.owner() else { return this.again.forget() };
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

/// What was wrong with the statement that `entry` used.
fn missing(entry: &Expect, error: &ServerError, bytes: &[u8]) -> Option<Missing> {
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
