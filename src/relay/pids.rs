//! Numbers that clients were told, where statements mean processes of the server by them.
//! Must never let a statement reach a process that is not the server of the client whose number it names.
//!
//! `SELECT pg_backend_pid()` answers the number that the client was told. In arguments of `pg_cancel_backend()` and its
//! kind, and in comparisons with the `pid` of the server's views ([`crate::sql::pids`]), the number of a client becomes
//! the process of the server that this client holds now, in as many digits: positions in errors stay true. The client
//! may be with another worker, which is asked ([`Ask`]) and keeps that server from everybody else until the statement
//! is done: no other client's statement can be hit. Who holds no server has no process. A signal to it is then done here,
//! if it comes from a session of the same user: PostgreSQL allows that. Otherwise the number stays, and is nobody's.

use tokio::sync::oneshot;

use super::abroad::Landed;
use super::client::State;
use super::deadlocks::HalfKnown;
use super::restate::Place;
use super::server::Use;
use super::{ClientId, Relay, ServerId, Todo};
use crate::config::Endpoint;
use crate::flow::params::IDENTITY;
use crate::wire::error::{PgError, SqlState};
use crate::wire::pid::{ClientPid, is_process};

/// Most clients that one statement can mean.
const MOST: usize = 256;

/// How long an answer that nothing came of is kept, microseconds.
const KEPT_US: u64 = 1_000_000;

/// What one worker asks another: which process a client's server is.
#[derive(Debug)]
pub struct Ask {
    /// The client's number there.
    number: u32,
    /// The server's host: processes of others are not meant.
    endpoint: Endpoint,
    /// The statement is a signal that its user may send to sessions of his own.
    signal: Option<Sent>,
    answer: oneshot::Sender<Held>,
}

/// A signal to a session.
#[derive(Debug)]
struct Sent {
    /// It ends the session; else it cancels a statement.
    ends: bool,
    user: String,
}

/// What is meant by a number.
#[derive(Debug)]
pub struct Held {
    /// The process; `None` if the signal was sent already.
    pub(super) pid: Option<u32>,
    /// The server is kept for the client that has it now until this is dropped.
    _hold: oneshot::Sender<()>,
}

/// Whom another client's statement has found.
#[derive(Clone, Copy, Debug)]
pub enum Aimed {
    /// A server with its process, which is kept.
    Process(ServerId, u32),
    /// A client without one, which was sent the signal.
    Done,
}

impl Ask {
    /// What this returns is over when the server need not be kept any more.
    pub fn answer(self, aimed: Aimed) -> oneshot::Receiver<()> {
        let (hold, over) = oneshot::channel();
        let pid = match aimed {
            Aimed::Process(_, pid) => Some(pid),
            Aimed::Done => None,
        };
        let _ = self.answer.send(Held { pid, _hold: hold });
        over
    }
}

/// Answers that are awaited: what each is about, and when it comes.
pub type Awaited = Vec<(u32, oneshot::Receiver<Held>)>;

/// What was answered about each number; `None`: it is nobody's.
pub type Answers = Vec<(u32, Option<Held>)>;

/// What one worker has for another.
#[derive(Debug)]
pub enum Errand {
    /// A statement here means the server of a client there.
    Hold(Ask),
    /// What clients there wait for has come, or will not.
    Landed(Landed),
    /// What is known here of a deadlock, of which one side may be there.
    Deadlock(Box<HalfKnown>),
}

/// Takes it to the worker of this number.
pub type Reach = Box<dyn Fn(u8, Errand)>;

/// What was asked for the statement that a client waits to have run.
struct Known {
    client: ClientId,
    endpoint: Endpoint,
    since_us: u64,
    /// `None` until the answers are here.
    held: Option<Answers>,
}

/// Everything about processes that is under way.
#[derive(Default)]
pub(super) struct Desk {
    reach: Option<Reach>,
    known: Vec<Known>,
    /// Servers that run statements, for whom, and whom these mean.
    sent: Vec<(ServerId, ClientId, Vec<Held>)>,
}

/// What a statement means is being asked.
pub(super) struct Waits;

impl Relay {
    /// From now on other workers are reached this way.
    pub fn reach(&mut self, reach: Reach) {
        self.desk.reach = Some(reach);
    }

    /// Sends another worker something, if there is a way.
    pub(super) fn send(&self, worker: u8, errand: Errand) {
        if let Some(reach) = &self.desk.reach {
            reach(worker, errand);
        }
    }

    /// The worker that has the client of this number, and its number there.
    pub(super) fn whose(&self, told: u32) -> Option<(u8, u32)> {
        let whom = ClientPid::decode(told).filter(|whom| !whom.passed_on)?;
        let here = whom.instance == self.config.listen.instance_id && whom.worker < self.place.workers;
        here.then_some((whom.worker, whom.slot))
    }

    /// The client has no other role than that of its login, and nothing keeps its next statement from being run.
    pub(super) fn acts_as_itself(&self, id: ClientId, server: ServerId) -> bool {
        let (Some(client), Some(this)) = (self.clients.get(id), self.servers.get(server)) else { return false };
        let acts = client.params.settings.iter().any(|(name, _)| IDENTITY.contains(&&name[..]));
        !acts && !client.changed && this.replies.status() != b'E' && !this.replies.batch_owed()
    }

    /// What was answered for the statement that this client waits to have run, if that was asked.
    pub(super) fn answers(&self, id: ClientId, endpoint: &Endpoint) -> Option<Result<&Answers, Waits>> {
        let known = self.desk.known.iter().find(|known| known.client == id && known.endpoint == *endpoint)?;
        Some(known.held.as_ref().ok_or(Waits))
    }

    /// Asks whom a statement means that `ends` sessions, or cancels what they run, if it is nothing but a signal. False
    /// if nobody can be asked.
    pub(super) fn ask_who(&mut self, id: ClientId, endpoint: Endpoint, places: &[Place], ends: Option<bool>) -> bool {
        let Some(reach) = &self.desk.reach else { return false };
        let group = self.clients.get(id).map(|client| &self.groups[client.group]);
        let user = group.map(|group| group.user.clone()).unwrap_or_default();
        let mut awaited: Awaited = Vec::new();
        for place in places {
            if awaited.len() < MOST
                && awaited.iter().all(|(number, _)| *number != place.number)
                && let Some((worker, number)) = self.whose(place.number)
            {
                let (answer, receiver) = oneshot::channel();
                let signal = ends.map(|ends| Sent { ends, user: user.clone() });
                reach(worker, Errand::Hold(Ask { number, endpoint: endpoint.clone(), signal, answer }));
                awaited.push((place.number, receiver));
            }
        }
        self.desk.known.retain(|known| known.client != id);
        self.desk.known.push(Known { client: id, endpoint, since_us: self.now_us, held: None });
        self.todo.push(Todo::Await(id, awaited));
        true
    }

    /// All answers for the statement of this client are here.
    pub fn answered_pids(&mut self, id: ClientId, held: Answers) {
        self.now_us = crate::base::clock::now_us();
        if let Some(known) = self.desk.known.iter_mut().find(|known| known.client == id) {
            known.held = Some(held);
        }
        // If it came too late it is asked again.
        self.pump_inbox(id);
    }

    /// A statement that names processes goes to its server: whom it means is kept until it is done.
    pub(super) fn aimed(&mut self, id: ClientId, server: ServerId) {
        let Some(at) = self.desk.known.iter().position(|known| known.client == id) else { return };
        let held: Vec<Held> =
            self.desk.known.swap_remove(at).held.into_iter().flatten().filter_map(|(_, held)| held).collect();
        if !held.is_empty() {
            self.desk.sent.push((server, id, held));
        }
    }

    /// Lets go of servers that were kept for statements which are done.
    pub(super) fn sweep_pids(&mut self) {
        let Desk { known, sent, .. } = &mut self.desk;
        let (clients, servers, now_us) = (&self.clients, &self.servers, self.now_us);
        known.retain(|known| clients.get(known.client).is_some() && known.since_us + KEPT_US > now_us);
        sent.retain(|(server, id, _)| {
            servers.get(*server).is_some_and(|this| this.use_ == Use::Lent(*id) && this.replies.busy())
        });
    }

    /// Another client's statement means this one by its number: its server is kept from others until
    /// [`Relay::let_go`].
    pub fn aimed_at(&mut self, ask: &Ask) -> Option<Aimed> {
        self.now_us = crate::base::clock::now_us();
        let id = self.client_numbered(ask.number)?;
        let client = self.clients.get(id)?;
        if let Some(server) = client.server() {
            let here = self.pool_of(server).is_some_and(|pool| pool.dial.endpoint == ask.endpoint);
            let this = self.servers.get_mut(server).filter(|this| here && is_process(this.key.pid))?;
            this.aimed += 1;
            return Some(Aimed::Process(server, this.key.pid));
        }
        let group = &self.groups[client.group];
        let here = self.pools[group.primary].dial.endpoint == ask.endpoint;
        let sent = ask.signal.as_ref().filter(|sent| here && sent.user == group.user)?;
        match client.state {
            State::Closing { .. } => return None,
            _ if sent.ends => {
                let message = "terminating connection due to administrator command";
                self.fatal(id, &PgError::fatal(SqlState::ADMIN_SHUTDOWN, message));
            }
            State::Waiting { .. } => self.cancel_waiting(id),
            State::Riding(_) => drop(self.cancel(id)),
            State::Idle | State::Attached(_) => {}
        }
        Some(Aimed::Done)
    }

    /// Such a statement is done.
    pub fn let_go(&mut self, server: ServerId) {
        self.now_us = crate::base::clock::now_us();
        let Some(this) = self.servers.get_mut(server) else { return };
        this.aimed = this.aimed.saturating_sub(1);
        if this.use_ == Use::Cooling {
            self.give_back(server);
        }
    }
}
