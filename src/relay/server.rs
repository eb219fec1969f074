//! One server connection as the relay sees it.
//! Must never be put back into its pool except through [`Server::is_clean`].

use std::rc::Rc;
use std::task::Waker;

use super::abreast::Abreast;
use super::again::Again;
use super::catalog_read::Reading;
use super::client::Unnamed;
use super::fence_guard::Guard;
use super::group::ParamSet;
use super::inventory::Asking;
use super::lane::Lane;
use super::listen_onto::Onto;
use super::listen_over::Stage;
use super::listen_speak::Speaker;
use super::notes::Notes;
use super::sequences::Drawn;
use super::{ClientId, PoolId};
use crate::base::lru::Lru;
use crate::flow::expect::{Kind, Origin};
use crate::flow::replies::Replies;
use crate::net::socket::Conn;
use crate::server::open::{BackendKey, Opened, Parameters};

/// Whose statement is the unnamed one on a server.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum UnnamedOn {
    /// Nobody's, as far as is known.
    #[default]
    Nobody,
    /// A known text.
    Statement(u32),
    /// A long text of this client's.
    Client(ClientId),
}

/// What must be reset before another client gets a server.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord)]
pub enum Left {
    /// Nothing.
    #[default]
    Nothing,
    /// What code that nobody can see into may leave: settings, role, temporary tables, locks, cursors.
    Traces,
    /// Anything, by a session that had the server to itself.
    Session,
}

/// What a server is used for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Use {
    /// At rest in its pool.
    Idle,
    /// Lent to a client.
    Lent(ClientId),
    /// Lent to all who ride in its lane.
    Shared,
    /// Finishing, being rolled back or reset after a client has gone; back to the pool when done.
    Cleaning {
        /// Until when that may take, microseconds.
        until_us: u64,
    },
    /// Clean, but a cancel request is under way that might still hit it.
    Cooling,
}

/// One server connection.
pub struct Server {
    /// Socket and backlog.
    pub(super) conn: Conn,
    /// Wakes the server's task.
    pub(super) waker: Option<Waker>,
    /// Its pool.
    pub(super) pool: PoolId,
    /// What it is used for.
    pub(super) use_: Use,
    /// Replies it owes.
    pub(super) replies: Replies,
    /// Bytes received that do not make a whole message yet.
    pub(super) inbox: Vec<u8>,
    /// Settings in force on it.
    pub(super) params: Rc<ParamSet>,
    /// Settings in force before those that are being tried; present exactly while they are.
    pub(super) prior: Option<Rc<ParamSet>>,
    /// What its client has left in it is being asked.
    pub(super) asking: Option<Box<Asking>>,
    /// Who rides in it, while it is shared; kept for the next time.
    pub(super) lane: Option<Box<Lane>>,
    /// What it writes, where that is fenced: there until the transaction has ended.
    pub(super) guard: Option<Box<Guard>>,
    /// What statements under way say beside their shape; there from the first on that is to be noted.
    pub(super) notes: Option<Box<Notes>>,
    /// Bytes that have come and were acted on.
    pub(super) read: u64,
    /// The same up to the end of what was looked at last.
    pub(super) through: u64,
    /// The same up to the end of the last statement that was counted.
    pub(super) counted: u64,
    /// When the first byte came behind those, microseconds; 0: none has.
    pub(super) first_us: u64,
    /// Statements that have come to their end with the read at hand, if several have.
    pub(super) abreast: Option<Abreast>,
    /// The code of its database is being asked.
    pub(super) reading: Option<Box<Reading>>,
    /// What it is kept for beside its client's requests.
    pub(super) handing: Option<Box<Stage>>,
    /// It listens to what its client's group's listener listened to for this client.
    pub(super) onto: Option<Box<Onto>>,
    /// Whose its notifications are.
    pub(super) speaker: Option<Speaker>,
    /// This client's code, into which nobody can see, has run on it: settings may be left that the server
    /// does not list. They are cleared before anybody else's first statement.
    pub(super) smudged: Option<ClientId>,
    /// The transaction under way changes what names stand for.
    pub(super) replaces: bool,
    /// Settings were sent ahead of a request: nothing that ends a transaction may follow before they are answered.
    pub(super) settling: bool,
    /// Its client's transaction is being opened on it.
    pub(super) opening: bool,
    /// A Query takes all settings away: nothing may follow before it is answered.
    pub(super) discarding: bool,
    /// It has, and its ReadyForQuery is still to come.
    pub(super) discarded: bool,
    /// Values it has reported.
    pub(super) status: Parameters,
    /// Whose values of sequences it has.
    pub(super) drawn: Drawn,
    /// Statements prepared on it, by the tick of their last use, weighed in bytes of text.
    pub(super) prepared: Lru,
    /// Statements on it that must not be used any more, to be closed before the next is prepared.
    pub(super) outdated: Vec<u32>,
    /// Both as they were before each Execute under way that takes all names away, oldest first.
    pub(super) before_clearing: Vec<(Lru, Vec<u32>)>,
    /// The batch that may have to be run again.
    pub(super) again: Again,
    /// Ticks at each use of a statement.
    pub(super) tick: u64,
    /// Tick at which the batch being forwarded began: statements used since are not evicted.
    pub(super) batch_tick: u64,
    /// Its unnamed statement.
    pub(super) unnamed: UnnamedOn,
    /// What its client's unnamed statement was before each change since nothing was owed.
    pub(super) unnamed_before: Vec<Unnamed>,
    /// The owner's socket is full: reading waits until its task has drained it.
    pub(super) stalled: bool,
    /// So many replies are owed that its client is not read.
    pub(super) crowded: bool,
    /// What to cancel with.
    pub(super) key: BackendKey,
    /// When it was opened, microseconds.
    pub(super) opened_us: u64,
    /// When the transaction under way began; 0 between transactions.
    pub(super) began_us: u64,
    /// When it last came to rest.
    pub(super) rested_us: u64,
    /// When the last statement on it ended: the next one's server time counts from there if later
    /// than its sending.
    pub(super) done_us: u64,
    /// Shape of that statement.
    pub(super) ran: u64,
    /// Cancel requests under way.
    pub(super) cancels: u32,
    /// Its client wants what runs behind something that was put in front of it cancelled.
    pub(super) cancel_next: bool,
    /// Statements under way that mean its client by its process.
    pub(super) aimed: u32,
    /// Its client went in the middle of a message: any byte more would be taken for a part of that.
    pub(super) cut_off: bool,
    /// Close it instead of putting it back.
    pub(super) retire: bool,
    /// What a client has, or may have, left in the session.
    pub(super) left: Left,
    /// What it works on has been cancelled for taking too long.
    pub(super) overdue: bool,
    /// Opened for one client, outside the pool's count (replication).
    pub(super) own: bool,
}

impl Server {
    /// A connection just opened.
    pub(super) fn new(pool: PoolId, opened: Opened, params: Rc<ParamSet>, now_us: u64) -> Self {
        let Opened { socket, key, parameters: status, .. } = opened;
        Self {
            conn: Conn::new(socket),
            waker: None,
            pool,
            use_: Use::Idle,
            replies: Replies::default(),
            inbox: Vec::new(),
            params,
            prior: None,
            asking: None,
            lane: None,
            guard: None,
            notes: None,
            read: 0,
            through: 0,
            counted: 0,
            first_us: 0,
            abreast: None,
            reading: None,
            handing: None,
            onto: None,
            speaker: None,
            smudged: None,
            replaces: false,
            settling: false,
            opening: false,
            discarding: false,
            discarded: false,
            status,
            drawn: Drawn::Nothing,
            prepared: Lru::default(),
            outdated: Vec::new(),
            before_clearing: Vec::new(),
            again: Again::default(),
            tick: 0,
            batch_tick: 0,
            unnamed: UnnamedOn::Nobody,
            unnamed_before: Vec::new(),
            stalled: false,
            crowded: false,
            key,
            opened_us: now_us,
            began_us: 0,
            rested_us: now_us,
            done_us: 0,
            ran: 0,
            cancels: 0,
            cancel_next: false,
            aimed: 0,
            cut_off: false,
            retire: false,
            left: Left::Nothing,
            overdue: false,
            own: false,
        }
    }

    /// Wakes the server's task, which then has a turn.
    pub(super) fn wake(&self) {
        if let Some(waker) = &self.waker {
            waker.wake_by_ref();
        }
    }

    /// Its settings are still being tried, its client's transaction is being opened, what its client has left is being asked or handed over, or the batch before
    /// is about to be run again: nothing else may be sent to it.
    pub(super) fn is_reserved(&self) -> bool {
        let asked = self.prior.is_some() || self.asking.is_some() || self.handing.is_some();
        asked || self.opening || self.again.has_failed()
    }

    /// Who holds it.
    pub(super) fn owner(&self) -> Option<ClientId> {
        match self.use_ {
            Use::Lent(client) => Some(client),
            Use::Idle | Use::Shared | Use::Cleaning { .. } | Use::Cooling => None,
        }
    }

    /// Settings are given to it, or its client's transaction is opened on it: what is cancelled now is not a query of its client's.
    pub(super) fn is_being_set_up(&self) -> bool {
        self.settling || self.prior.is_some() || self.opening
    }

    /// Nothing is prepared on it any more but what it is still to prepare.
    pub(super) fn forget_prepared(&mut self) {
        let owed = self.replies.entries().filter(|entry| entry.kind == Kind::Parse && entry.origin != Origin::Faked);
        let numbers: Vec<u32> = owed.map(|entry| entry.statement).collect();
        let kept: Vec<(u32, usize)> =
            numbers.into_iter().filter_map(|number| Some((number, self.prepared.remove(number)?))).collect();
        self.prepared.clear();
        self.outdated.clear();
        for (number, bytes) in kept {
            self.prepared.insert(number, bytes, self.tick);
        }
    }

    /// It may serve another client: `reference/defects.md` entry 12, a to e.
    pub(super) fn is_clean(&self) -> bool {
        self.replies.is_clean() && self.inbox.is_empty() && self.conn.backlog() == 0 && !self.stalled
    }

    /// Sends bytes; false if the connection is broken.
    pub(super) fn send(&mut self, bytes: &[u8]) -> bool {
        let sent = self.conn.send(bytes).is_ok();
        if !sent || self.conn.backlog() > 0 {
            self.wake();
        }
        sent
    }
}
