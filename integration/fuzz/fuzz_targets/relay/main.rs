//! A whole relay between two clients and servers, all of them in memory.
//! Must never let a client see what was meant for the other, however the bytes are cut.
//!
//! The servers are honest models of PostgreSQL ([`backend`]) until an input makes one hostile; the
//! clients say well-formed messages and judge what they hear ([`party`]) until they are made to
//! send garbage. Tasks run only when they were woken, as under tokio, so that a wake forgotten
//! leaves somebody without an answer.
#![no_main]

mod backend;
mod party;

use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, OnceLock};
use std::task::{Context, Wake, Waker};

use arbitrary::Arbitrary;
use libfuzzer_sys::fuzz_target;
use pgweir::config::Config;
use pgweir::meter::Registry;
use pgweir::net::mem::Mem;
use pgweir::net::socket::Socket;
use pgweir::pool::place::Place;
use pgweir::relay::{Arrival, PoolId, READ_BYTES, Relay, Todo};
use pgweir::server::open::{BackendKey, OpenError, Opened};
use pgweir::wire::pid::ClientPid;

use backend::Backend;
use party::{Party, Say};

/// Most bytes that one direction may hold: what was looked at, what was read and what was written
/// but not taken, twice for what is put in between.
const HELD_BYTES: usize = 1 << 20;

#[derive(Arbitrary, Debug)]
struct Input<'a> {
    pool_size: u8,
    max_prepared: u8,
    settings: [bool; 2],
    ops: Vec<Op<'a>>,
}

#[derive(Arbitrary, Debug)]
enum Op<'a> {
    /// A client says something well-formed.
    Say(bool, Say),
    /// Several things at once.
    Batch(bool, Vec<Say>),
    /// A client sends anything.
    Garbage(bool, &'a [u8]),
    /// Servers answer so many messages, cut into pieces of so many bytes.
    Answer {
        which: u8,
        messages: u8,
        piece: u8,
    },
    /// A server sends anything.
    Lie(u8, &'a [u8]),
    /// A socket takes only so many bytes more.
    Room {
        server: bool,
        which: u8,
        bytes: u16,
    },
    /// And takes all.
    Free {
        server: bool,
        which: u8,
    },
    /// So many bytes at most per read.
    Slow {
        server: bool,
        which: u8,
        bytes: u8,
    },
    LeaveClient(bool),
    LeaveServer(u8),
    /// Everybody who was woken has a turn.
    Turns,
    /// The next opening fails.
    Refuse,
    Cancel(bool),
    Cancelled(u8),
    Sweep,
    Drain,
}

fuzz_target!(|input: Input<'_>| World::new(&input).run(&input));

/// One task: woken or not.
#[derive(Default)]
struct Flag(AtomicBool);

impl Wake for Flag {
    fn wake(self: Arc<Self>) {
        self.0.store(true, Ordering::Relaxed);
    }
}

impl Flag {
    fn set(&self) {
        self.0.store(true, Ordering::Relaxed);
    }

    fn take(&self) -> bool {
        self.0.swap(false, Ordering::Relaxed)
    }
}

struct World {
    relay: Relay,
    clients: [Party; 2],
    servers: Vec<Backend>,
    /// Pools that asked for a connection.
    opening: Vec<PoolId>,
    cancels: Vec<pgweir::relay::ServerId>,
    refuse: bool,
    /// Some server lied or left: nothing is known of who must be answered.
    hostile: bool,
    draining: bool,
}

/// By prepared statements per server and by servers.
static CONFIGS: OnceLock<[[Arc<Config>; 2]; 3]> = OnceLock::new();

fn config(max_prepared: u8, pool_size: u8) -> Arc<Config> {
    let text = format!(
        "[listen]\nauth_type = \"trust\"\n[stats]\nmax_shapes = 20\n[pool]\nmax_prepared_statements = {max_prepared}\n\
         [databases.d]\nprimary = \"127.0.0.1:1\"\nserver_tls_sslmode = \"disable\"\npool_size = {pool_size}\n[users.u]\n"
    );
    Arc::new(Config::parse(&text, "fuzz.toml").unwrap_or_else(|problems| panic!("{problems}")))
}

impl World {
    fn new(input: &Input<'_>) -> Self {
        let configs = CONFIGS.get_or_init(|| [1, 2, 3].map(|prepared| [1, 2].map(|size| config(prepared, size))));
        let config = &configs[usize::from(input.max_prepared % 3)][usize::from(input.pool_size % 2)];
        let mut world = Self {
            relay: Relay::new(Place::alone(), Arc::clone(config), Arc::new(Registry::new())),
            clients: [Party::new(0), Party::new(1)],
            servers: Vec::new(),
            opening: Vec::new(),
            cancels: Vec::new(),
            refuse: false,
            hostile: false,
            draining: false,
        };
        for (client, has_settings) in world.clients.iter_mut().zip(input.settings) {
            let mut settings = Vec::new();
            if has_settings {
                client.application = format!("app{}", client.number);
                settings.push((b"application_name".to_vec(), client.application.clone().into_bytes()));
            }
            client.id = world.relay.arrive(Arrival {
                socket: Socket::Mem(client.mem.clone()),
                database: "d".to_owned(),
                user: "u".to_owned(),
                secret: Default::default(),
                settings,
                minor: 0,
                prefix: Vec::new(),
                leftover: Vec::new(),
                replication: None,
                seats: Default::default(),
                warms: None,
            });
        }
        world
    }

    fn run(mut self, input: &Input<'_>) {
        self.todo();
        for op in &input.ops {
            self.step(op);
            self.settle();
        }
        self.finish();
    }

    fn step(&mut self, op: &Op<'_>) {
        match op {
            Op::Say(who, say) => self.clients[usize::from(*who)].say(say),
            Op::Batch(who, all) => {
                for say in all {
                    self.clients[usize::from(*who)].say(say);
                }
            }
            Op::Garbage(who, bytes) => self.clients[usize::from(*who)].garbage(bytes),
            Op::Answer { which, messages, piece } => {
                if let Some(server) = self.server(*which) {
                    server.answer(usize::from(*messages), usize::from(*piece));
                }
            }
            Op::Lie(which, bytes) => {
                if let Some(server) = self.server(*which) {
                    server.lie(bytes);
                    self.hostile = true;
                }
            }
            Op::Room { server, which, bytes } => {
                self.socket(*server, *which).inspect(|(mem, _)| mem.ends().write_room = Some(usize::from(*bytes)));
            }
            Op::Free { server, which } => {
                if let Some((mem, flag)) = self.socket(*server, *which) {
                    mem.ends().write_room = None;
                    flag.set();
                }
            }
            Op::Slow { server, which, bytes } => {
                self.socket(*server, *which).inspect(|(mem, _)| mem.ends().read_max = usize::from(*bytes));
            }
            Op::LeaveClient(who) => self.clients[usize::from(*who)].leave(),
            Op::LeaveServer(which) => {
                if let Some(server) = self.server(*which) {
                    server.mem.ends().closed = true;
                    server.flag.set();
                    self.hostile = true;
                }
            }
            Op::Turns => {}
            Op::Refuse => self.refuse = true,
            Op::Cancel(who) => self.cancel(usize::from(*who)),
            Op::Cancelled(which) => {
                if !self.cancels.is_empty() {
                    let server = self.cancels.swap_remove(usize::from(*which) % self.cancels.len());
                    self.relay.cancelled(server);
                }
            }
            Op::Sweep => self.relay.sweep(),
            Op::Drain => {
                self.draining = true;
                self.relay.drain();
            }
        }
    }

    fn server(&mut self, which: u8) -> Option<&mut Backend> {
        let n = self.servers.len().max(1);
        self.servers.get_mut(usize::from(which) % n)
    }

    fn socket(&mut self, server: bool, which: u8) -> Option<(Mem, Arc<Flag>)> {
        if server {
            return self.server(which).map(|server| (server.mem.clone(), Arc::clone(&server.flag)));
        }
        let client = &self.clients[usize::from(which) % 2];
        Some((client.mem.clone(), Arc::clone(&client.flag)))
    }

    fn cancel(&mut self, who: usize) {
        let client = &self.clients[who];
        let Some((pid, key)) = client.key.clone() else { return };
        // Never by a key that is not the client's own.
        let slot = ClientPid::decode(pid).expect("a client's own").slot;
        assert!(!self.relay.cancel(slot, b"\0\0\0"));
        self.relay.cancel(slot, &key);
    }

    /// Turns for everybody who was woken, until nobody is; how many rounds that took.
    fn settle(&mut self) -> usize {
        let mut turns = 0;
        for _ in 0..10_000 {
            self.todo();
            let mut any = false;
            for n in 0..self.clients.len() {
                any |= self.client_turn(n);
            }
            for n in 0..self.servers.len() {
                any |= self.server_turn(n);
            }
            self.servers.retain(|server| server.id.is_some());
            if !any {
                break;
            }
            turns += 1;
        }
        assert!(self.relay.client_count() <= 2);
        assert_eq!(self.relay.server_count(), self.servers.iter().filter(|server| server.id.is_some()).count());
        self.bounds();
        for server in &mut self.servers {
            server.take(&self.clients);
        }
        for client in &mut self.clients {
            client.hear(self.hostile);
        }
        turns
    }

    fn client_turn(&mut self, n: usize) -> bool {
        let client = &mut self.clients[n];
        let Some(id) = client.id else { return false };
        if !client.flag.take() {
            return false;
        }
        let waker = Waker::from(Arc::clone(&client.flag));
        if self.relay.client_turn(id, &mut Context::from_waker(&waker)).is_ready() {
            client.id = None;
        }
        true
    }

    fn server_turn(&mut self, n: usize) -> bool {
        let server = &mut self.servers[n];
        let Some(id) = server.id else { return false };
        if !server.flag.take() {
            return false;
        }
        let waker = Waker::from(Arc::clone(&server.flag));
        if self.relay.server_turn(id, &mut Context::from_waker(&waker)).is_ready() {
            server.id = None;
        }
        true
    }

    fn todo(&mut self) {
        for todo in self.relay.take_todo() {
            match todo {
                Todo::Open(pool) => self.opening.push(pool),
                Todo::Cancel(server) => self.cancels.push(server),
                _ => {}
            }
        }
        for pool in std::mem::take(&mut self.opening) {
            if std::mem::take(&mut self.refuse) {
                self.hostile = true;
                self.relay.open_failed(pool, &OpenError::Login("no".to_owned()));
                continue;
            }
            let mut server = Backend::new();
            let id = self.relay.opened(
                pool,
                Opened {
                    socket: Socket::Mem(server.mem.clone()),

                    key: BackendKey { pid: 7, secret: b"key!".to_vec() },
                    parameters: vec![(b"standard_conforming_strings".to_vec(), b"on".to_vec())],
                },
            );
            server.id = Some(id);
            server.flag.set();
            self.servers.push(server);
        }
    }

    /// What was read and not written again is bounded.
    fn bounds(&self) {
        let to_clients: usize = self.clients.iter().map(|client| client.mem.ends().output.len() + client.heard).sum();
        let from_servers: usize = self.servers.iter().map(Backend::taken).sum();
        // Servers that are gone are not counted, so this only ever errs on the safe side.
        assert!(from_servers.saturating_sub(to_clients) <= HELD_BYTES + READ_BYTES, "too much is held for clients");
    }

    /// Everything is let go on; whoever asked must have been answered.
    fn finish(mut self) {
        for client in &self.clients {
            client.mem.ends().write_room = None;
            client.flag.set();
        }
        for cancel in std::mem::take(&mut self.cancels) {
            self.relay.cancelled(cancel);
        }
        for _ in 0..100 {
            for server in &mut self.servers {
                // Set anew, as there may be new ones.
                if server.mem.ends().write_room.take().is_some() {
                    server.flag.set();
                }
                server.answer(usize::MAX, 0);
            }
            if self.settle() == 0 {
                break;
            }
        }
        // What a limit or a pause held up.
        self.relay.sweep();
        self.settle();
        if self.hostile || self.draining {
            return;
        }
        let stuck = self.clients.iter().any(|client| client.holds_on());
        for client in &self.clients {
            client.judge(stuck);
        }
    }
}
