//! Floor 6: the heart of a worker: clients, servers, pools, and the bytes between them.
//! Must never wait, block, or be entered from two tasks at once.
//!
//! One [`Relay`] holds everything a worker thread owns. Each connection has a task of its own
//! ([`task`]) that does nothing but wait for its socket and then enter the relay for one turn:
//! [`Relay::client_turn`] or [`Relay::server_turn`]. In its turn a client's bytes are written
//! straight to the server's socket, and a server's bytes straight to the client's, so that a
//! transaction wakes two tasks and costs two reads and two writes. What must wait (opening a
//! connection, cancelling) is left in [`Relay::take_todo`] for the task to do afterwards.

mod abreast;
mod abroad;
mod again;
mod alight;
mod arrive;
mod asked;
mod attach;
mod audit;
mod backlogs;
mod backoff;
mod balance;
pub mod blocked;
mod board;
mod cached;
mod catalog;
mod catalog_read;
pub mod census;
mod clearing;
mod client;
mod client_turn;
mod commands;
mod counted;
mod course;
mod deadlocks;
mod deliver;
mod fence;
mod fence_course;
mod fence_guard;
mod fence_keep;
mod fence_orphans;
mod fence_run;
mod fill;
mod flights;
mod floor;
mod follow;
mod forward;
mod given;
mod group;
mod grow;
mod hear;
mod held_up;
mod holders;
mod hopefuls;
mod hosts;
mod indexes;
pub mod insight;
mod inventory;
mod key_parts;
mod lane;
mod lane_count;
mod lane_loss;
mod lane_watch;
mod learned;
mod lease;
mod limits;
mod listen;
mod listen_hear;
mod listen_onto;
mod listen_over;
mod listen_speak;
mod listen_task;
mod lone;
mod lost;
mod message;
mod names;
mod notes;
mod outgoing;
mod own;
mod params;
mod patience;
mod pids;
pub(crate) mod pins;
mod plans;
mod prepared;
mod question;
mod refuse;
mod release;
pub mod remote;
mod renames;
mod repeats;
mod reported;
mod reports;
mod restate;
mod retell;
mod retire;
mod roles;
pub mod rules;
mod run;
mod sequences;
mod server;
mod server_turn;
mod settle;
mod shapes;
mod signalled;
mod slow;
mod spans;
mod spoken;
mod sqlnames;
mod stand_in;
mod statements;
mod stock;
mod stream;
mod stream_beat;
pub mod sweep;
mod taken;
pub mod task;
#[cfg(test)]
mod tests;
mod told;
mod traced;
mod unopened;
mod unserved;
mod usual;
mod vacate;
mod verify;
mod watch;
mod workloads;
mod wrote;

use std::collections::HashMap;
use std::hash::{BuildHasher, Hasher, RandomState};
use std::rc::Rc;
use std::sync::Arc;

use tokio::sync::Notify;

use crate::base::slab::{Id, Slab};
use crate::cache::worth::Worths;
use crate::cache::{Entry, Remote, StoreRef};
use crate::config::{Config, Endpoint};
use crate::meter::Registry;
use crate::pool::place::Place;
use crate::server::open::{BackendKey, Dial};

pub use abroad::Landed;
pub use arrive::{Arrival, Seat, Seats};
pub use catalog_read::catalog_question;
pub use client::{Client, Key};
pub use fence::Deed;
pub use group::{Group, Pool};
pub use pids::{Aimed, Answers, Ask, Awaited, Errand, Held, Reach};
pub use server::Server;
pub use shapes::{LONG, ShapeVerdict};
pub use slow::SlowQuery;
pub use told::Whom;

use release::Farewell;
use shapes::Shapes;
use statements::Statements;

/// Key of a client.
pub type ClientId = Id<Client>;
/// Key of a server connection.
pub type ServerId = Id<Server>;
/// Number of a pool in its relay.
pub type PoolId = Id<Pool>;
/// Number of a group in its relay.
pub type GroupId = Id<Group>;

/// Bytes read at once. A worker has one such buffer; a connection owns none while idle.
pub const READ_BYTES: usize = 64 * 1024;
/// Most bytes of a batch or statement that are held back to be looked at as a whole.
pub const LOOK_BYTES: usize = 256 * 1024;
/// Backlog of one direction at which reading for it stops: with [`READ_BYTES`] the bound of
/// memory per connection and direction.
pub const BACKLOG_BYTES: usize = 128 * 1024;
/// Replies owed at which a client is not read any further until half of them have come; one batch
/// that alone needs more is refused. With it the bound of what a pipeline costs here.
pub const OWED: usize = 65_536;
/// Full reads in one turn before other connections have theirs.
const READS_PER_TURN: usize = 8;

/// Work that a turn leaves for its task.
pub enum Todo {
    /// Send the rest of what a client is told that cannot come in, and close.
    Refuse(crate::net::socket::Conn),
    /// Open a server connection for this pool.
    Open(PoolId),
    /// Open a server connection that only this client will have.
    OpenOwn(ClientId, GroupId, Rc<Dial>),
    /// Ask this group's servers for their positions from now on.
    Watch(GroupId),
    /// Follow the changes of this group's database from now on.
    Follow(GroupId),
    /// Hear what is said of the answers of this group's database from now on.
    Hear(GroupId),
    /// Hold a connection that listens for the clients of this group.
    Listen(GroupId),
    /// Cancel what this server runs; tell the relay by [`Relay::cancelled`].
    Cancel(ServerId),
    /// Cancel what a connection of this pool with this key runs, which is closed already.
    CancelGone(PoolId, BackendKey),
    /// Wait for what other workers answer about processes; tell the relay by [`Relay::answered_pids`].
    Await(ClientId, Awaited),
    /// Look after lanes as long as there are any.
    WatchLanes,
    /// Understand the code of a database; tell the relay by [`Relay::understood`].
    Understand(catalog_read::Source),
    /// Do something with the cache that processes share.
    Far(remote::Far),
    /// Do something with the fence around a database.
    Fence(Deed),
    /// Ask for a plan; tell the relay by [`Relay::explained`].
    Explain(Box<plans::Question>),
}

/// Everything one worker owns.
pub struct Relay {
    clients: Slab<Client>,
    /// Clients by the number that they were told.
    numbers: told::Numbers,
    /// Processes that statements name.
    desk: pids::Desk,
    servers: Slab<Server>,
    pools: Slab<Pool>,
    groups: Slab<Group>,
    /// Groups that take clients, by database and user.
    named: HashMap<Box<str>, HashMap<Box<str>, GroupId>>,
    /// Groups that nobody comes to any more, until all who are there have left.
    retired: Vec<GroupId>,
    /// Pauses after failures, and how long statements take, by host.
    hosts: HashMap<Endpoint, (Rc<backoff::Backoff>, Rc<balance::Pace>)>,
    /// Rung when a limit shared with others has something to take or to give.
    bell: Arc<Notify>,
    /// Where this worker stands among all.
    place: Place,
    /// How many wishes for an empty database were heard.
    wishes_heard: u64,
    statements: Statements,
    /// Changes of schemas that `statements` takes account of.
    changes_heard: u64,
    shapes: Shapes,
    /// Shapes that are blocked, if any are.
    blocks: Option<Arc<blocked::Blocks>>,
    /// Clients that do not take what they are sent.
    backlogs: backlogs::Backlogs,
    /// Statements that were slow.
    slow: slow::Slow,
    /// What is audited, if anything is.
    audit: Option<Box<audit::Auditor>>,
    /// What is traced, if anything is.
    tracer: Option<Box<spans::Tracer>>,
    /// Statements that were in each other's way.
    deadlocks: deadlocks::Deadlocks,
    /// Statements that were run for each row of another's answer.
    repeats: repeats::Repeats,
    /// How servers run statements.
    plans: plans::Plans,
    /// Where reads land; taken out for the length of a turn.
    rx: Box<[u8]>,
    /// Empty buffers for clients that wait.
    spare: Vec<Vec<u8>>,
    /// Bytes being put together for a server.
    tx: Vec<u8>,
    /// The batch that was looked at last reads what must be current.
    asks_current: bool,
    /// Left for the tasks.
    todo: Vec<Todo>,
    /// Clock of this turn, microseconds.
    now_us: u64,
    /// Servers that clients share.
    lanes: alight::Lanes,
    /// Answers that are kept, if any are.
    cache: Option<StoreRef>,
    /// The one statement of the batch looked at last, and whose that is and where it was.
    single: Option<((ClientId, usize), asked::Single)>,
    /// Which shapes it helps.
    worths: Worths,
    /// The cache that processes share, if there is one.
    remote: Option<Rc<Remote>>,
    /// An answer from there, while those who have waited for it are served.
    landed: Option<(crate::cache::key::Owned, Arc<Entry>)>,
    /// Clients that wait for each other's answers.
    flights: flights::Flights,
    /// How long reads take that others may wait for.
    usual: usual::Usual,
    /// How often one has begun to wait so.
    followed: u64,
    /// Writes of everybody, as far as answers hang on them.
    fences: fence::Fences,
    /// What chooses the hits that are compared, and differences that are not explained yet.
    dice: u64,
    doubts: Vec<verify::Doubt>,
    /// Where keys of answers are put together.
    key: Vec<u8>,
    /// The code of databases.
    catalogs: catalog::Catalogs,
    config: Arc<Config>,
    registry: Arc<Registry>,
    /// Who keeps a server, for the stats port.
    shown: pins::Shown,
    draining: bool,
    /// Databases whose clients get no server for the time being.
    paused: commands::Paused,
}

impl Relay {
    /// An empty relay.
    pub fn new(place: Place, config: Arc<Config>, registry: Arc<Registry>) -> Self {
        let shapes = Shapes::new(config.stats.max_shapes as usize);
        registry.add_shapes(shapes.view());
        let cache = place.caches.of(&config.cache);
        let shown = pins::Shown { board: registry.add_pin_board(), any: false };
        let mut relay = Self {
            clients: Slab::default(),
            numbers: told::Numbers::default(),
            desk: pids::Desk::default(),
            servers: Slab::default(),
            pools: Slab::default(),
            groups: Slab::default(),
            named: HashMap::new(),
            retired: Vec::new(),
            hosts: HashMap::new(),
            bell: Arc::default(),
            place,
            wishes_heard: 0,
            changes_heard: 0,
            statements: Statements::new(registry.add_prepared()),
            shapes,
            blocks: None,
            backlogs: backlogs::Backlogs::default(),
            slow: slow::Slow::default(),
            audit: audit::Auditor::of(config.audit.as_ref()),
            tracer: spans::Tracer::of(config.traces.as_ref()),
            deadlocks: deadlocks::Deadlocks::default(),
            repeats: repeats::Repeats::new(config.stats.n_plus_one),
            plans: plans::Plans::new(config.pool.plan_interval),
            rx: vec![0; READ_BYTES].into_boxed_slice(),
            spare: Vec::new(),
            tx: Vec::new(),
            asks_current: false,
            todo: Vec::new(),
            now_us: crate::base::clock::now_us(),
            lanes: alight::Lanes::default(),
            cache,
            remote: None,
            single: None,
            worths: Worths::default(),
            landed: None,
            flights: flights::Flights::default(),
            usual: usual::Usual::default(),
            followed: 0,
            fences: fence::Fences::default(),
            dice: RandomState::new().build_hasher().finish() | 1,
            doubts: Vec::new(),
            key: Vec::new(),
            catalogs: catalog::Catalogs::default(),
            config,
            registry,
            shown,
            draining: false,
            paused: commands::Paused::default(),
        };
        relay.reach_remote(&Arc::clone(&relay.config).cache);
        relay
    }

    /// What the last turn left to do.
    pub fn take_todo(&mut self) -> Vec<Todo> {
        std::mem::take(&mut self.todo)
    }

    /// Rung when [`Relay::share`] should be called.
    pub fn bell(&self) -> Arc<Notify> {
        Arc::clone(&self.bell)
    }

    /// How many clients are connected.
    pub fn client_count(&self) -> usize {
        self.clients.len()
    }

    /// How many server connections exist.
    pub fn server_count(&self) -> usize {
        self.servers.len()
    }

    /// How connections of this pool are opened.
    pub fn dial(&self, pool: PoolId) -> Rc<Dial> {
        Rc::clone(&self.pools[pool].dial)
    }

    /// Whom to ask to cancel what `server` runs.
    pub fn cancel_target(&self, server: ServerId) -> Option<(Rc<Dial>, BackendKey)> {
        let pool = self.pool_of(server)?;
        Some((Rc::clone(&pool.dial), self.servers.get(server)?.key.clone()))
    }

    /// A turn panicked: that connection, and what it was connected to, goes; everybody else stays.
    pub fn panicked(&mut self, client: Option<ClientId>, server: Option<ServerId>) {
        self.registry.panics.add(1);
        self.forgets_abroad();
        if self.rx.is_empty() {
            self.rx = vec![0; READ_BYTES].into_boxed_slice();
        }
        self.tx.clear();
        let held = client.and_then(|id| self.clients.get(id)).and_then(Client::server);
        for server in server.into_iter().chain(held) {
            self.lose(server, "pgweir: internal error; please report it");
        }
        if let Some(id) = client {
            self.hang_up(id, Farewell::Lost);
        }
    }

    fn pool_of(&self, server: ServerId) -> Option<&Pool> {
        self.pools.get(self.servers.get(server)?.pool)
    }
}
