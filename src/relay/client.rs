//! One client connection as the relay sees it.
//! Must never own a buffer while idle: five thousand idle clients are the normal case.

use std::rc::Rc;
use std::task::Waker;

use super::arrive::Seats;
use super::cached::Caching;
use super::group::ParamSet;
use super::inventory::Touched;
use super::listen::Listens;
use super::names::Names;
use super::pins::Pin;
use super::rules::Course;
use super::sequences::Draws;
use super::statements::Statement;
use super::unopened::Unopened;
use super::{GroupId, PoolId, ServerId};
use crate::cache::Warming;
use crate::meter::Role;
use crate::net::socket::Conn;
use crate::pool::cluster::Sight;
use crate::sql::verdict::Effects;

/// What a client is doing. The variants own exactly what the state may use.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum State {
    /// Between transactions, or with a batch that is not whole yet.
    Idle,
    /// In the queue of a pool.
    Waiting {
        /// Which pool.
        pool: PoolId,
        /// Since when, microseconds.
        since_us: u64,
        /// It has been told that it waits.
        notified: bool,
    },
    /// Holds a server.
    Attached(ServerId),
    /// Has a request in a lane: the batch at the front of its inbox.
    Riding(ServerId),
    /// An error was sent; the connection goes once that has left.
    Closing {
        /// Until when it may take, microseconds.
        until_us: u64,
    },
}

/// Where a batch comes from that is to be run again.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum SentBack {
    /// It has been nowhere.
    #[default]
    Nowhere,
    /// A replica has refused it: it goes to the primary.
    Refused,
    /// From a server that others share: it goes to one that nobody does.
    Alone,
}

/// What has become so far of the batch at the front of a client's inbox.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Losses {
    /// So many servers were lost with it, those apart that had been open when another was: what takes one down takes all.
    pub count: u8,
    /// When the last of these was lost, milliseconds, of which 2^32 start over.
    since_ms: u32,
    /// It has been in a lane: it only reads, and its client has not chosen where.
    pub rode: bool,
}

impl Losses {
    /// A server that was opened at `opened_us` was lost with it.
    pub fn add(&mut self, opened_us: u64, now_us: u64) {
        let [opened_ms, now_ms] = [opened_us, now_us].map(|us| (us / 1000) as u32);
        if self.count == 0 || opened_ms.wrapping_sub(self.since_ms) <= u32::MAX / 2 {
            (self.count, self.since_ms) = (self.count.saturating_add(1), now_ms);
        }
    }
}

/// The client's unnamed statement.
#[derive(Clone, Debug, Default)]
pub enum Unnamed {
    /// None.
    #[default]
    Nothing,
    /// A known text, which can be prepared again anywhere.
    Known(Rc<Statement>),
    /// Too long to be kept: lives only on the server where it was prepared.
    There {
        /// It was bound, which is all that most do with one: nobody keeps a server for it any more.
        used: bool,
    },
}

/// The servers that a client had last, where its plans and caches may still be: one of each role.
#[derive(Clone, Copy, Debug, Default)]
pub struct Last {
    primary: ServerId,
    replica: ServerId,
}

impl Last {
    /// The one of this role; a key that finds nothing if there was none.
    pub fn of(self, role: Role) -> ServerId {
        match role {
            Role::Primary => self.primary,
            Role::Replica => self.replica,
        }
    }

    /// The client gets this one.
    pub fn note(&mut self, role: Role, server: ServerId) {
        match role {
            Role::Primary => self.primary = server,
            Role::Replica => self.replica = server,
        }
    }
}

/// Bytes of a message whose beginning was handled.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Rest {
    /// How many are still to come: no message is longer than a length in it can say.
    bytes: u32,
    /// They are dropped, not passed on.
    pub drop: bool,
}

impl Rest {
    /// So many are passed on.
    pub fn passed(bytes: usize) -> Self {
        Self { bytes: bytes as u32, drop: false }
    }

    /// So many are dropped.
    pub fn dropped(bytes: usize) -> Self {
        Self { bytes: bytes as u32, drop: true }
    }

    /// None is to come.
    pub fn is_empty(self) -> bool {
        self.bytes == 0
    }

    /// `here` bytes have come; returns how many of them are of this message.
    pub fn take(&mut self, here: usize) -> usize {
        let n = here.min(self.bytes as usize);
        self.bytes -= n as u32;
        n
    }

    /// A server has the beginning of the message and waits for the rest.
    pub fn is_forwarded(self) -> bool {
        self.bytes > 0 && !self.drop
    }
}

/// One client connection.
pub struct Client {
    /// Socket and backlog.
    pub(super) conn: Conn,
    /// Wakes the client's task.
    pub(super) waker: Option<Waker>,
    /// What it is doing.
    pub(super) state: State,
    /// Not logged in completely: its settings are still to be tried on a server.
    pub(super) arriving: Option<Box<Arriving>>,
    /// Bytes received and not yet acted on.
    pub(super) inbox: Vec<u8>,
    /// Rest of a message that is passed on as it comes.
    pub(super) rest: Rest,
    /// Messages were forwarded since the last Sync: the batch is open.
    pub(super) mid_batch: bool,
    /// A batch failed here whose end was not known: what comes is read over up to its Sync.
    pub(super) skipping: bool,
    /// A request of its had waited too long; those that had come behind it by then have, too.
    pub(super) late: bool,
    /// Where the batch at the front of its inbox has been.
    pub(super) sent_back: SentBack,
    /// What it has come through.
    pub(super) losses: Losses,
    /// The rule that its lease, or what it waits with, is under.
    pub(super) course: Course,
    /// The batch at the front of its inbox has been counted by the rule that limits its rate.
    pub(super) paid: bool,
    /// What it asked for last only reads.
    pub(super) reads: bool,
    /// It has asked on before it was answered: its requests would wait for each other in lanes.
    pub(super) pipelines: u8,
    /// Its transaction, if it has begun one that no server has.
    pub(super) unopened: Unopened,
    /// Its database and user.
    pub(super) group: GroupId,
    /// Its settings, as far as they are known: whatever changes them in a lease is learned at its end.
    pub(super) params: Rc<ParamSet>,
    /// Settings it started with: what RESET and DISCARD ALL go back to.
    pub(super) start: Rc<ParamSet>,
    /// What its lease may have left on the server, which is yet to be asked.
    pub(super) touched: Option<Box<Touched>>,
    /// The channels that its group's listener tells it of.
    pub(super) listens: Option<Box<Listens>>,
    /// Named prepared statements, allocated at the first.
    pub(super) prepared: Option<Box<Names>>,
    /// Unnamed prepared statement.
    pub(super) unnamed: Unnamed,
    /// Shape that the last Bind bound: what Execute runs.
    pub(super) bound: u64,
    /// What the session has left on its server, apart from settings; not empty means the server stays with it.
    pub(super) pinned: Effects,
    /// Why, and since when; already while a statement runs that may come to that.
    pub(super) pin: Option<Box<Pin>>,
    /// Shape of the last statement that may have set something, or that nobody could see into.
    pub(super) culprit: u64,
    /// What it drew from sequences.
    pub(super) draws: Draws,
    /// The servers it had last.
    pub(super) last: Last,
    /// What it runs may have changed the code of its database.
    pub(super) defines: bool,
    /// What it has seen, and a replica must have to serve it.
    pub(super) sight: Sight,
    /// Something that may have written was forwarded in this lease.
    pub(super) wrote: bool,
    /// Something that reads was forwarded in this lease.
    pub(super) saw: bool,
    /// It has waited for a replica long enough.
    pub(super) impatient: bool,
    /// What it must see covers whatever was committed before the batch at the front of its inbox came.
    pub(super) current: bool,
    /// What it has to do with the cache.
    pub(super) cache: Option<Box<Caching>>,
    /// The lease has, or may have, settings of its own.
    pub(super) changed: bool,
    /// `standard_conforming_strings`: how literals are read.
    pub(super) conforming: bool,
    /// How long it waited for the server it holds, until the first statement is counted.
    pub(super) waited_us: u64,
    /// When it last did something, microseconds; what the idle limits count from.
    pub(super) active_us: u64,
    /// What it is called in the number that it was told.
    pub(super) number: u32,
    /// Secret of the cancel key: 4 bytes in protocol 3.0, 32 in 3.2.
    pub(super) key: Key,
    /// Its server is its own and no other's (replication).
    pub(super) own: bool,
    /// That replicates in terms of tables, not of the log.
    pub(super) logical: bool,
    /// Its places under limits of clients.
    pub(super) _seats: Seats,
}

/// What a client still has to be told before its first query.
#[derive(Debug, Default)]
pub struct Arriving {
    /// Messages of its login that go ahead of the welcome.
    pub prefix: Vec<u8>,
}

/// Secret part of a cancel key.
#[derive(Clone, Copy)]
pub struct Key {
    bytes: [u8; 32],
    len: u8,
}

impl Key {
    /// A random key for protocol 3.`minor`; its first six bits are those of `instance` if that is given.
    ///
    /// # Errors
    /// The system gave no random bytes.
    pub fn random(minor: u32, instance: Option<u8>) -> Result<Self, aws_lc_rs::error::Unspecified> {
        let mut bytes = [0; 32];
        aws_lc_rs::rand::fill(&mut bytes)?;
        if let Some(instance) = instance {
            bytes[0] = instance << 2 | bytes[0] & 3;
        }
        Ok(Self { bytes, len: if minor >= 2 { 32 } else { 4 } })
    }

    /// The bytes told to the client.
    pub fn bytes(&self) -> &[u8] {
        self.bytes.get(..self.len as usize).unwrap_or_default()
    }

    /// The instance that a client's key names, if it names one.
    pub fn instance(key: &[u8]) -> Option<u8> {
        key.first().map(|first| first >> 2)
    }

    /// Compares in constant time.
    pub fn matches(&self, other: &[u8]) -> bool {
        subtle::ConstantTimeEq::ct_eq(self.bytes(), other).into()
    }
}

impl Client {
    /// Wakes the client's task, which then has a turn.
    pub(super) fn wake(&self) {
        if let Some(waker) = &self.waker {
            waker.wake_by_ref();
        }
    }

    /// It has left something on its server that goes nowhere else; what it drew from sequences does not count.
    pub(super) fn is_bound(&self) -> bool {
        !self.pinned.without(Effects::SEQUENCE_STATE).is_empty()
    }

    /// Its server has the beginning of a message.
    pub(super) fn is_mid_message(&self) -> bool {
        self.rest.is_forwarded()
    }

    /// The server it holds.
    pub(super) fn server(&self) -> Option<ServerId> {
        match self.state {
            State::Attached(server) => Some(server),
            State::Idle | State::Waiting { .. } | State::Riding(_) | State::Closing { .. } => None,
        }
    }

    /// What it has to do with the cache, from now on.
    pub(super) fn caching(&mut self) -> &mut Caching {
        self.cache.get_or_insert_default()
    }

    /// Why its batch is not answered from the cache, if that was looked at.
    pub(super) fn why_run(&self) -> Option<super::slow::WhyRun> {
        self.cache.as_ref()?.why
    }

    /// The answer to its batch is to be kept.
    pub(super) fn fills(&self) -> bool {
        self.cache.as_ref().is_some_and(|cache| cache.fill.is_some())
    }

    /// The cache has what may be given if nobody answers its batch.
    pub(super) fn renews(&self) -> bool {
        self.cache.as_ref().and_then(|cache| cache.fill.as_ref()).is_some_and(|fill| fill.renews)
    }

    /// It asks only so that the answers are kept.
    pub(super) fn warms(&self) -> Option<&Warming> {
        self.cache.as_ref()?.warms.as_deref()
    }

    /// It is to be given that.
    pub(super) fn is_spared(&self) -> bool {
        self.cache.as_ref().is_some_and(|cache| cache.spared)
    }

    /// Sends bytes, waking the task if the socket would not take them all. A broken connection is
    /// found by the next read.
    pub(super) fn send(&mut self, bytes: &[u8]) {
        if self.conn.send(bytes).is_err() || self.conn.backlog() > 0 {
            self.wake();
        }
    }
}
