//! Transactions that have begun for their clients, and on no server yet: those that are READ ONLY, and all with `reads_in_transactions`.
//! Must never let a statement run outside of its transaction that would notice, nor tell a client of an end that a server must decide.
//!
//! Such a BEGIN is answered here. Under READ COMMITTED each statement has a snapshot of its own, so a transaction's reads are as good as reads
//! outside of any: they go to replicas, each by itself, as long as it is certain that they only read ([`Target::Steady`]) and do not
//! ask when their transaction began. The first statement of any other kind, or a read that no replica may serve, makes the transaction a real one:
//! a BEGIN goes to the primary, and when that has been answered the statement follows; from there on all is as with any transaction.
//!
//! The statement waits for that answer, which is the round trip that the client was spared when it said BEGIN. Sent behind it at once, it
//! would run in no transaction if the BEGIN failed: a cancel request or `statement_timeout` may hit that.
//!
//! Nothing of a transaction is ever on a replica, so that nothing has to come back from there when a statement follows that is not for one
//! (`last_value` of a sequence, an advisory lock, `pg_is_in_recovery()`, an unlogged table), or when the replica is lost. Under REPEATABLE READ
//! the statements share a snapshot, which cannot move to another server, and what the last of them will be nobody knows when the first one is
//! run: these transactions, and so READ ONLY ones too, are the primary's from the start unless their client has said that a replica will do.
//!
//! What a replica refuses, or fails at, the primary runs ([`super::again`]), so that a transaction fails where it is. If the client has had some of
//! the answer already, or has cancelled it, the transaction has failed for the client: should it go on, one is opened that has failed too.

use std::borrow::Cow;

use super::client::{Losses, SentBack, Unnamed};
use super::lease::Target;
use super::lone::Lone;
use super::{Client, ClientId, GroupId, Relay, ServerId};
use crate::config::{Database, InTransactions, PoolMode, Routing, SessionState, Terms};
use crate::flow::expect::{Expect, Kind, Origin};
use crate::flow::requests::End;
use crate::meter::Role;
use crate::sql::block::{Access, Block, Modes, block};
use crate::sql::timed::{may_name_moment, may_quote_moment};
use crate::sql::wish::Wish;
use crate::wire::build;
use crate::wire::error::{ServerError, SqlState};
use crate::wire::frame::{HEADER, Header, be_u32, cstr};
use crate::wire::tag;

/// A client's transaction that no server has, if there is one: its modes, and whether it has failed. In one byte, as every client has one.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Unopened(u8);

const THERE: u8 = 1;
const FAILED: u8 = 2;
const ISOLATION: u8 = 4;
const WRITES: u8 = 8;
const READS: u8 = 16;
/// A statement of it may have been run by itself.
const RAN: u8 = 32;

impl Unopened {
    /// One that has just begun.
    pub fn begun(modes: Modes) -> Self {
        let access = match modes.access {
            None => 0,
            Some(Access::ReadWrite) => WRITES,
            Some(Access::ReadOnly) => READS,
        };
        Self(THERE | access | if modes.isolation { ISOLATION } else { 0 })
    }

    /// There is such a transaction.
    pub fn is_there(self) -> bool {
        self.0 & THERE != 0
    }

    /// What ReadyForQuery says of it; `I` without one.
    pub fn status(self) -> u8 {
        match self.0 & (THERE | FAILED) {
            0 => b'I',
            THERE => b'T',
            _ => b'E',
        }
    }

    /// A statement has failed in it, or instead of it.
    pub fn fails(&mut self) {
        if self.is_there() {
            self.0 |= FAILED;
        }
    }

    /// A statement is about to run by itself.
    fn runs(&mut self) {
        if self.is_there() {
            self.0 |= RAN;
        }
    }

    /// SQL that gives a server the transaction as it is.
    fn opening(self) -> Cow<'static, str> {
        let access = match self.0 & (WRITES | READS) {
            0 => None,
            WRITES => Some(Access::ReadWrite),
            _ => Some(Access::ReadOnly),
        };
        let text = Modes { isolation: self.0 & ISOLATION != 0, access }.text();
        match self.status() {
            b'E' => format!("{text}{FAILING}").into(),
            _ if self.0 & RAN != 0 => format!("{text}{READING}").into(),
            _ => text.into(),
        }
    }
}

/// Behind a BEGIN: takes a snapshot, after which SET TRANSACTION is refused as it would be after the reads that have run elsewhere
/// (`FirstSnapshotSet` in src/backend/commands/variable.c).
const READING: &str = ";SELECT WHERE false";

/// Behind a BEGIN: fails, and says why in the server's log.
const FAILING: &str = ";ROLLBACK TO SAVEPOINT \"pgweir: a read of this transaction has failed on a replica\"";

/// Which transactions may begin on no server.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Defers {
    /// None.
    Nothing,
    /// Those that are READ ONLY.
    ReadOnly,
    /// All.
    All,
}

/// Which transactions clients of this database may begin on no server.
pub(super) fn defers(database: &Database, terms: &Terms, splits: bool) -> Defers {
    let may = splits && terms.pool_mode == PoolMode::Transaction && terms.session_state == SessionState::Transparent;
    match database.reads.in_transactions {
        _ if !may => Defers::Nothing,
        InTransactions::Primary => Defers::ReadOnly,
        InTransactions::ReplicaUntilWrite => Defers::All,
    }
}

impl Relay {
    /// Whether clients of the group's database may begin transactions on no server, all of them or some.
    pub(super) fn defers_any(&self, group: GroupId) -> bool {
        let database = self.groups.get(group).and_then(|group| self.config.databases.get(&group.database));
        database.is_some_and(|database| database.routing == Routing::On)
    }

    /// Answers the batch at the front of an idle client's bytes if all it does is begin a transaction that no server needs to have yet, or end
    /// one; or its first statement, if that begins one and others follow in the batch (pgjdbc). `Some`: so many bytes are done with.
    pub(super) fn answer_block(&mut self, id: ClientId, data: &[u8], end: Option<End>) -> Option<usize> {
        let client = self.clients.get(id)?;
        if !client.unopened.is_there() && self.groups[client.group].defers == Defers::Nothing {
            return None;
        }
        let (sql, lone) = match end? {
            End::Query if data.first() == Some(&tag::client::QUERY) => (cstr(data.get(HEADER..)?)?.0, None),
            End::Sync => {
                let lone = Lone::of(data)?;
                let sql = match lone.tail {
                    Some(tail) => cstr(tail)?.0,
                    None => client.prepared.as_ref()?.get(lone.name)?.sql(),
                };
                (sql, Some(lone))
            }
            End::Query | End::Call | End::Flush => return None,
        };
        let block = block(sql)?;
        let is_whole = lone.as_ref().is_none_or(|lone| lone.is_whole);
        let (unopened, command): (_, &[u8]) = match (client.unopened.status(), block) {
            (b'I', Block::Begin(modes)) if self.may_begin(client, modes) => (Unopened::begun(modes), begun_tag(sql)),
            _ if !is_whole => return None,
            (b'T', Block::Commit) => (Unopened::default(), b"COMMIT"),
            (b'T' | b'E', Block::Rollback) | (b'E', Block::Commit) => (Unopened::default(), b"ROLLBACK"),
            _ => return None,
        };
        let len = match &lone {
            None => Header::peek(data, usize::MAX).ok()??.total,
            Some(lone) => lone.len,
        };
        // As a server would have it.
        let unnamed = match &lone {
            None => Some(Unnamed::Nothing),
            Some(lone) => lone.tail.map(|tail| Unnamed::Known(self.statement_for(id, tail))),
        };
        let client = self.clients.get_mut(id)?;
        client.unopened = unopened;
        unnamed.into_iter().for_each(|unnamed| client.unnamed = unnamed);
        (client.paid, client.sent_back, client.losses) = (false, SentBack::Nowhere, Losses::default());
        let mut out = std::mem::take(&mut self.tx);
        for &tag in lone.iter().flat_map(Lone::answers) {
            let body: &[u8] = if tag == tag::server::PARAMETER_DESCRIPTION { &[0, 0] } else { &[] };
            build::message(&mut out, tag, |out| out.extend_from_slice(body));
        }
        build::message(&mut out, tag::server::COMMAND_COMPLETE, |out| build::cstr(out, command));
        if is_whole {
            build::ready(&mut out, unopened.status());
        }
        client.send(&out);
        if self.draining {
            client.wake();
        }
        let counters = &self.pools[self.groups[client.group].primary].counters;
        counters.total_received.add(len as u64);
        counters.total_sent.add(out.len() as u64);
        counters.total_unopened_xacts.add(u64::from(!unopened.is_there()));
        out.clear();
        self.tx = out;
        Some(len)
    }

    /// Whether a transaction of this client's with these modes may begin on no server: what it would be there is known.
    fn may_begin(&self, client: &Client, modes: Modes) -> bool {
        let group = &self.groups[client.group];
        let by_default = || {
            let primary = group.cluster.primary().and_then(|number| group.cluster.members.get(number));
            primary.is_some_and(|primary| primary.is_read_committed())
        };
        let defers = match group.defers {
            Defers::Nothing => false,
            Defers::ReadOnly => modes.access == Some(Access::ReadOnly),
            Defers::All => true,
        };
        defers
            && client.params.is_plain
            && client.params.wish == Wish::Auto
            // In a transaction it must not be told of anything.
            && client.listens.is_none()
            && client.pinned.is_empty()
            && client.arriving.is_none()
            && (modes.isolation || client.params.is_read_committed || by_default())
    }

    /// What a batch may run on for which `target` would do outside of a transaction.
    pub(super) fn target_unopened(&mut self, id: ClientId, target: Target, data: &[u8]) -> Target {
        let Some(client) = self.clients.get_mut(id) else { return target };
        match client.unopened.status() {
            b'I' => return target,
            b'T' if target == Target::Steady && is_steady(client, data) => {
                client.unopened.runs();
                return target;
            }
            _ => {}
        }
        client.reads = false;
        Target::Primary
    }

    /// Whether the client's transaction must be opened on this server before anything of the client's may run there.
    pub(super) fn must_open(&self, id: ClientId, server: ServerId) -> bool {
        let Some(client) = self.clients.get(id).filter(|client| client.unopened.is_there()) else { return false };
        !client.reads || self.pool_of(server).is_none_or(|pool| pool.role != Role::Replica)
    }

    /// Puts into `out` what opens it. The client's own bytes must wait until [`Relay::came_through`].
    pub(super) fn open_transaction(&mut self, id: ClientId, server: ServerId, out: &mut Vec<u8>) {
        let (Some(client), Some(this)) = (self.clients.get(id), self.servers.get_mut(server)) else { return };
        build::query(out, client.unopened.opening().as_bytes());
        this.opening = true;
        this.began_us = self.now_us;
        this.unnamed = super::server::UnnamedOn::Nobody;
        this.replies.expect(Expect {
            kind: Kind::Query,
            origin: Origin::Injected,
            owner: id.index(),
            statement: super::attach::NO_STATEMENT,
            cookie: 0,
            sent_us: self.now_us,
            name: 0,
            note: 0,
        });
    }

    /// What was put in has come to its ReadyForQuery, without an error but one that was meant: whether the server has the client's transaction
    /// now. If it should and has not, that is a fault.
    pub(super) fn came_through(
        &mut self,
        server: ServerId,
        owner: Option<ClientId>,
        status: u8,
        fault: &mut Option<&'static str>,
    ) -> bool {
        self.settings_changed(server);
        let this = self.servers.get_mut(server).filter(|this| this.opening && !this.replies.busy());
        let (Some(this), Some(client)) = (this, owner.and_then(|id| self.clients.get_mut(id))) else { return false };
        this.opening = false;
        if !client.unopened.is_there() || client.unopened.status() != status {
            *fault = Some("a transaction was not opened");
            return false;
        }
        client.unopened = Unopened::default();
        // What follows is a batch within a transaction, and is never run elsewhere.
        client.mid_batch = false;
        this.again.begun();
        true
    }

    /// The error is the one by which a transaction is failed on purpose.
    pub(super) fn is_meant(&self, server: ServerId, owner: Option<ClientId>, error: &ServerError) -> bool {
        let opening = |this: &&super::Server| this.opening && !this.settling && this.prior.is_none();
        let client = self.servers.get(server).filter(opening).and(owner).and_then(|id| self.clients.get(id));
        !error.fatal && client.is_some_and(|client| client.unopened.status() == b'E')
    }

    /// Whether the primary is to run what has failed on a replica, so that the client's transaction fails where it is.
    pub(super) fn fails_on_primary(&self, id: ClientId, error: &ServerError) -> bool {
        // A cancelled statement does not run again.
        let begun = self.clients.get(id).is_some_and(|client| client.unopened.status() == b'T');
        begun && error.code != SqlState::QUERY_CANCELED
    }

    /// The ReadyForQuery of a statement that ran by itself, as its client is to see it.
    pub(super) fn ready_unopened(&self, id: ClientId, entry: &Expect) -> Option<Vec<u8>> {
        let client = self.clients.get(id).filter(|client| client.unopened.is_there())?;
        if entry.origin != Origin::Client {
            return None;
        }
        let mut out = Vec::new();
        build::ready(&mut out, client.unopened.status());
        Some(out)
    }
}

/// The command tag of a statement that is a [`Block::Begin`]: that of BEGIN is not that of START TRANSACTION.
fn begun_tag(sql: &[u8]) -> &'static [u8] {
    match sql.trim_ascii_start().first() {
        Some(b's' | b'S') => b"START TRANSACTION",
        _ => b"BEGIN",
    }
}

/// Whether the batch does by itself what it would do in its transaction, apart from what its statements' shapes tell: it names no moment, and
/// leaves no portal that would have to be there later, nor wants one that was there before.
fn is_steady(client: &Client, data: &[u8]) -> bool {
    let mut at = 0;
    let mut bound = false;
    while let Some(rest) = data.get(at..)
        && let Ok(Some(header)) = Header::peek(rest, usize::MAX)
        && let Some(body) = rest.get(HEADER..header.total)
    {
        let fits = match header.tag {
            tag::client::QUERY | tag::client::PARSE => !may_quote_moment(body),
            tag::client::BIND => {
                let names = cstr(body).and_then(|(portal, rest)| Some((portal, cstr(rest)?.0)));
                bound = true;
                names.is_some_and(|(portal, name)| portal.is_empty() && !is_timed_text(client, name))
                    && !may_name_moment(body)
            }
            tag::client::DESCRIBE => bound || body.first() == Some(&b'S'),
            // All rows at once, of the unnamed portal.
            tag::client::EXECUTE => bound && body.first() == Some(&0) && body.get(1..).and_then(be_u32) == Some(0),
            tag::client::CLOSE => body.first() == Some(&b'S') || body.get(1) == Some(&0),
            tag::client::SYNC => return true,
            _ => false,
        };
        if !fits {
            return false;
        }
        if header.tag == tag::client::QUERY {
            return true;
        }
        at += header.total;
    }
    false
}

/// Whether a constant in a statement that the client prepared before may name a moment.
fn is_timed_text(client: &Client, name: &[u8]) -> bool {
    let statement = match &client.unnamed {
        Unnamed::Known(statement) if name.is_empty() => Some(statement),
        _ => client.prepared.as_ref().and_then(|prepared| prepared.get(name)),
    };
    statement.is_some_and(|statement| may_quote_moment(statement.sql()))
}
