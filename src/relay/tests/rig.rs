//! A relay with its sockets in memory, its clients played by tests and its servers by the model.
//! Must never give a connection a turn that a real socket would not give it.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::task::{Context, Poll, Wake, Waker};

use super::model::Backend;
use crate::config::{Config, PoolMode};
use crate::meter::Registry;
use crate::net::mem::Mem;
use crate::net::socket::Socket;
use crate::pool::place::Place;
use crate::relay::catalog::Trust;
use crate::relay::server::Use;
use crate::relay::{Arrival, ClientId, PoolId, Relay, ServerId, Todo};
use crate::server::open::{BackendKey, Opened};
use crate::wire::frame::{HEADER, Header, cstr};
use crate::wire::tag::server as tag;

/// Set when a task is woken.
#[derive(Default)]
struct Flag(AtomicBool);

impl Wake for Flag {
    fn wake(self: Arc<Self>) {
        self.0.store(true, Ordering::Relaxed);
    }
}

impl Flag {
    fn raised() -> Arc<Self> {
        Arc::new(Self(AtomicBool::new(true)))
    }
    fn take(&self) -> bool {
        self.0.swap(false, Ordering::Relaxed)
    }
}

/// A client as its test sees it.
pub struct Peer {
    pub id: Option<ClientId>,
    pub mem: Mem,
    flag: Arc<Flag>,
    done: bool,
}

/// A server connection and who answers on it.
pub struct Host {
    pub id: ServerId,
    pub pool: PoolId,
    pub mem: Mem,
    pub backend: Backend,
    /// The model answers what arrives.
    pub answering: bool,
    flag: Arc<Flag>,
    done: bool,
}

impl Host {
    /// Its socket has something new for the relay.
    pub fn wake(&self) {
        self.flag.0.store(true, Ordering::Relaxed);
    }
}

/// Everything together.
pub struct Rig {
    pub relay: Relay,
    pub peers: Vec<Peer>,
    pub hosts: Vec<Host>,
    /// Openings wait for [`Rig::open`] instead of succeeding at once.
    pub hold_opens: bool,
    /// New servers do not answer by themselves.
    pub hold_answers: bool,
    pub opens: Vec<PoolId>,
    pub cancels: Vec<ServerId>,
    pub cancels_gone: Vec<u32>,
    /// Most bytes per read of clients and servers; 0: as many as there are.
    pub read_max: usize,
}

/// The configuration of most tests; `pool` are lines of `[pool]`.
pub fn config(pool: &str) -> String {
    format!(
        "[listen]\nauth_type = \"trust\"\n[pool]\ncatalog_refresh = 0\n{pool}\n[databases.db]\nprimary = \"127.0.0.1:1\"\n\
         server_tls_sslmode = \"disable\"\n[users.app]\n"
    )
}

impl Rig {
    pub fn new(pool: &str) -> Self {
        Self::of(&config(pool))
    }

    pub fn of(text: &str) -> Self {
        let config = Config::parse(text, "test.toml").unwrap_or_else(|problems| panic!("{problems}"));
        Self {
            relay: Relay::new(Place::alone(), Arc::new(config), Arc::new(Registry::new())),
            peers: Vec::new(),
            hosts: Vec::new(),
            hold_opens: false,
            hold_answers: false,
            opens: Vec::new(),
            cancels: Vec::new(),
            cancels_gone: Vec::new(),
            read_max: 0,
        }
    }

    /// Reads share servers from now on, until code may have been changed: the code of the database is known, and there is none;
    /// and whatever is not known of statements is good. The first client must have arrived.
    pub fn ride(&mut self) {
        self.relay.catalogs.change(0, |catalog| (catalog.epoch, catalog.trust) = (1, Trust::Full));
        for id in self.relay.groups.ids().collect::<Vec<_>>() {
            let terms = &mut self.relay.groups[id].terms;
            terms.lanes = terms.pool_mode != PoolMode::Session;
        }
        self.relay.shapes.assume_light();
    }

    /// A client logs in with these settings; runs until all is quiet.
    pub fn arrive(&mut self, settings: &[(&str, &str)]) -> usize {
        let peer = self.arrive_only(settings);
        self.run();
        peer
    }

    /// A client logs in; nothing runs yet.
    pub fn arrive_only(&mut self, settings: &[(&str, &str)]) -> usize {
        self.arrive_as("app", settings)
    }

    /// The same for another user.
    pub fn arrive_as(&mut self, user: &str, settings: &[(&str, &str)]) -> usize {
        let mem = Mem::default();
        mem.ends().read_max = self.read_max;
        let id = self.relay.arrive(Arrival {
            socket: Socket::Mem(mem.clone()),
            database: "db".into(),
            user: user.into(),
            secret: Default::default(),
            settings: settings.iter().map(|(name, value)| (name.as_bytes().into(), value.as_bytes().into())).collect(),
            minor: 0,
            prefix: Vec::new(),
            leftover: Vec::new(),
            replication: None,
            from: None,
            seats: Default::default(),
            warms: None,
        });
        self.peers.push(Peer { id, mem, flag: Flag::raised(), done: id.is_none() });
        self.peers.len() - 1
    }

    /// Bytes from a client; nothing runs yet.
    pub fn push(&mut self, peer: usize, bytes: &[u8]) {
        let peer = &self.peers[peer];
        peer.mem.ends().input.extend(bytes);
        peer.flag.0.store(true, Ordering::Relaxed);
    }

    /// Bytes from a client, and whatever follows from them.
    pub fn send(&mut self, peer: usize, bytes: &[u8]) -> Vec<u8> {
        self.push(peer, bytes);
        self.run();
        self.heard(peer)
    }

    /// The same, leaving what is answered to [`Rig::heard`].
    pub fn tell(&mut self, peer: usize, bytes: &[u8]) {
        self.push(peer, bytes);
        self.run();
    }

    /// What a client has been sent since the last call.
    pub fn heard(&self, peer: usize) -> Vec<u8> {
        std::mem::take(&mut self.peers[peer].mem.ends().output)
    }

    /// The client's connection is gone on the relay's side.
    pub fn is_gone(&self, peer: usize) -> bool {
        self.peers[peer].id.is_none_or(|id| self.relay.clients.get(id).is_none())
    }

    /// The server connection is gone on the relay's side.
    pub fn is_closed(&self, host: usize) -> bool {
        self.relay.servers.get(self.hosts[host].id).is_none()
    }

    /// The client's socket takes `n` more bytes.
    pub fn room(&mut self, peer: usize, n: usize) {
        let peer = &self.peers[peer];
        let mut ends = peer.mem.ends();
        let room = ends.write_room.unwrap_or(0);
        ends.write_room = Some(room + n);
        peer.flag.0.store(true, Ordering::Relaxed);
    }

    /// The client closes its side.
    pub fn leave(&mut self, peer: usize) {
        self.peers[peer].mem.ends().closed = true;
        self.peers[peer].flag.0.store(true, Ordering::Relaxed);
        self.run();
    }

    /// The server closes its side.
    pub fn die(&mut self, host: usize) {
        self.hosts[host].mem.ends().closed = true;
        self.hosts[host].flag.0.store(true, Ordering::Relaxed);
        self.run();
    }

    /// Bytes from a server that its model did not say.
    pub fn say(&mut self, host: usize, bytes: &[u8]) {
        self.hosts[host].mem.ends().input.extend(bytes);
        self.hosts[host].flag.0.store(true, Ordering::Relaxed);
        self.run();
    }

    /// A server connection asked for is there.
    pub fn open(&mut self, pool: PoolId) {
        let mem = Mem::default();
        mem.ends().read_max = self.read_max;
        let id = self.relay.opened(
            pool,
            Opened {
                socket: Socket::Mem(mem.clone()),
                key: BackendKey { pid: 100 + self.hosts.len() as u32, secret: vec![1, 2, 3, 4] },
                parameters: vec![(b"server_version".to_vec(), b"17.0".to_vec())],
            },
        );
        let flag = Flag::raised();
        self.hosts.push(Host {
            id,
            pool,
            mem,
            backend: Backend::default(),
            answering: !self.hold_answers,
            flag,
            done: false,
        });
    }

    /// Turns for everybody who was woken, until nobody is.
    pub fn run(&mut self) {
        for _ in 0..2_000_000 {
            let mut stirred = false;
            for at in 0..self.peers.len() {
                stirred |= self.client_turn(at);
                self.todo();
            }
            for at in 0..self.hosts.len() {
                stirred |= self.answer(at);
                stirred |= self.server_turn(at);
                self.todo();
            }
            if !stirred {
                return;
            }
        }
        panic!("never comes to rest");
    }

    fn client_turn(&mut self, at: usize) -> bool {
        let peer = &mut self.peers[at];
        let Some(id) = peer.id else { return false };
        if peer.done || !peer.flag.take() {
            return false;
        }
        let waker = Waker::from(Arc::clone(&peer.flag));
        peer.done = self.relay.client_turn(id, &mut Context::from_waker(&waker)) == Poll::Ready(());
        true
    }

    fn server_turn(&mut self, at: usize) -> bool {
        let host = &mut self.hosts[at];
        if host.done || !host.flag.take() {
            return false;
        }
        let waker = Waker::from(Arc::clone(&host.flag));
        host.done = self.relay.server_turn(host.id, &mut Context::from_waker(&waker)) == Poll::Ready(());
        true
    }

    /// One that does not answer by itself answers what it has been asked so far.
    pub fn answer_now(&mut self, at: usize) {
        self.hosts[at].answering = true;
        self.answer(at);
        self.hosts[at].answering = false;
        self.run();
    }

    fn answer(&mut self, at: usize) -> bool {
        let host = &mut self.hosts[at];
        let mut ends = host.mem.ends();
        if !host.answering || ends.output.is_empty() {
            return false;
        }
        let asked = std::mem::take(&mut ends.output);
        let answer = host.backend.feed(&asked);
        ends.input.extend(answer);
        host.flag.0.store(true, Ordering::Relaxed);
        true
    }

    fn todo(&mut self) {
        for item in self.relay.take_todo() {
            match item {
                Todo::Open(pool) if self.hold_opens => self.opens.push(pool),
                Todo::Open(pool) => self.open(pool),
                Todo::Cancel(server) => self.cancels.push(server),
                Todo::CancelGone(_, key) => self.cancels_gone.push(key.pid),
                Todo::OpenOwn(..) => unreachable!("no test of the rig replicates"),
                Todo::Understand(source) => self.relay.understood(&source.looked(), source.read()),
                Todo::Watch(_)
                | Todo::Hear(_)
                | Todo::Follow(_)
                | Todo::WatchLanes
                | Todo::Listen(_)
                | Todo::Refuse(_)
                | Todo::Await(..)
                | Todo::Fence(_)
                | Todo::Explain(_)
                | Todo::Far(_) => {}
            }
        }
    }

    /// Every cancel request sent so far has come to its end.
    pub fn finish_cancels(&mut self) {
        for server in std::mem::take(&mut self.cancels) {
            self.relay.cancelled(server);
        }
        self.run();
    }

    /// Every server rests, clean, and the books agree (invariant I1).
    pub fn assert_at_rest(&self) {
        let mut open: BTreeMap<u32, usize> = BTreeMap::new();
        for host in &self.hosts {
            let Some(server) = self.relay.servers.get(host.id) else { continue };
            assert_eq!(server.use_, Use::Idle, "a server is still in use");
            assert!(server.is_clean(), "a server at rest is not clean: {:?}", server.replies);
            assert_eq!(host.backend.status, b'I', "a server at rest stands in a transaction");
            assert_eq!(
                server.prepared.len() + server.outdated.len(),
                host.backend.statement_count(),
                "books of statements differ"
            );
            *open.entry(host.pool.index()).or_default() += 1;
        }
        for id in self.relay.pools.ids() {
            let pool = &self.relay.pools[id];
            assert_eq!(pool.slice.open(), open.get(&id.index()).copied().unwrap_or(0));
            assert_eq!(pool.slice.idle().len(), pool.slice.open());
            assert_eq!((pool.slice.opening(), pool.slice.waiting()), (0, 0));
        }
    }

    /// Everything the servers ran, in order, over all of them.
    pub fn ran(&self) -> Vec<&str> {
        self.hosts.iter().flat_map(|host| host.backend.ran.iter().map(String::as_str)).collect()
    }
}

/// The types of the messages in `bytes`, one letter each; the SQLSTATE behind an E, the status
/// behind a Z.
pub fn letters(mut bytes: &[u8]) -> String {
    let mut text = String::new();
    while let Ok(Some(header)) = Header::peek(bytes, usize::MAX) {
        let Some(body) = bytes.get(HEADER..header.total) else { break };
        text.push(header.tag as char);
        match header.tag {
            tag::ERROR => text.push_str(&code_of(body)),
            tag::READY => text.push(body[0] as char),
            _ => {}
        }
        bytes = &bytes[header.total..];
    }
    if !bytes.is_empty() {
        text.push('+');
    }
    text
}

fn code_of(mut body: &[u8]) -> String {
    while let Some((&field, rest)) = body.split_first()
        && let Some((value, rest)) = cstr(rest)
    {
        if field == b'C' {
            return format!("({})", String::from_utf8_lossy(value));
        }
        body = rest;
    }
    "(?)".into()
}
