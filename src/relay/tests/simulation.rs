//! Whole lives on a paused clock: clients, servers that split, stall, die and speak unasked, limits that run out.
//! Must never use a random number that its seed does not give, nor look at the real clock.
//!
//! Every text that is asked for names its client and batch, so that a row tells whose it is. The books are checked
//! after every step, everything that a client hears at once, and at the end all must come to rest. A failure prints its
//! seed; `PGWEIR_SEED` runs that one alone, `PGWEIR_LONG` many more.

use std::collections::VecDeque;
use std::time::Duration;

use super::actor::Actor;
use super::program::Dice;
use super::rig::Rig;
use super::speech::*;
use crate::base::clock::paused::Paused;
use crate::relay::client::State;
use crate::relay::server::Use;
use crate::server::open::OpenError;
use crate::wire::build;
use crate::wire::frame::Header;
use crate::wire::tag::{client, server};

const POOLS: &[&str] = &[
    "default_pool_size = 1",
    "default_pool_size = 2\nquery_wait_timeout = \"1s\"\nquery_wait_notify = \"200ms\"",
    "default_pool_size = 1\nquery_wait_timeout = \"500ms\"\nquery_timeout = \"1s\"\nreserve_pool_size = 1\nreserve_pool_timeout = \"300ms\"",
    "default_pool_size = 3\nidle_transaction_timeout = \"1s\"\nquery_timeout = \"2s\"\nserver_idle_timeout = \"2s\"",
    "default_pool_size = 2\ntransaction_timeout = \"2s\"\nclient_idle_timeout = \"4s\"\nmax_prepared_statements = 2",
    "default_pool_size = 2\nmax_waiting_clients = 1\nserver_lifetime = \"3s\"\nserver_order = \"rotate\"\nmin_pool_size = 1",
    "default_pool_size = 1\npool_mode = \"session\"\nquery_wait_timeout = \"1s\"\nidle_transaction_timeout = \"1s\"",
];

/// Prints the seed of a simulation that fails.
struct Seed(u64);

impl Drop for Seed {
    fn drop(&mut self) {
        if std::thread::panicking() {
            eprintln!("the simulation that failed: PGWEIR_SEED={}", self.0);
        }
    }
}

/// What a server has answered and not yet said.
#[derive(Default)]
struct Line {
    unsaid: VecDeque<u8>,
    dead: bool,
}

struct World {
    clock: Paused,
    dice: Dice,
    rig: Rig,
    actors: Vec<Actor>,
    lines: Vec<Line>,
    /// Reads share servers.
    rides: bool,
}

impl World {
    fn new(seed: u64) -> Self {
        let clock = Paused::new();
        let mut dice = Dice::new(seed);
        let mut rig = Rig::new(POOLS[dice.roll(POOLS.len())]);
        rig.hold_opens = true;
        rig.hold_answers = true;
        rig.read_max = [0, 0, 1, 5, 40][dice.roll(5)];
        let rides = dice.roll(2) == 0;
        Self { clock, dice, rig, actors: Vec::new(), lines: Vec::new(), rides }
    }

    fn step(&mut self) {
        if self.rides && !self.actors.is_empty() {
            self.rig.ride();
        }
        match self.dice.roll(20) {
            0 if self.actors.len() < 5 => self.arrive(),
            0..=4 => self.write(),
            5..=7 => self.send(),
            8 => self.open(),
            9..=14 => self.say(),
            15 if self.dice.roll(6) == 0 => self.kill(),
            16 if self.dice.roll(6) == 0 => self.leave(),
            17 => self.rig.finish_cancels(),
            18 => self.pass(),
            19 if self.rides => drop(self.rig.relay.look_at_lanes()),
            _ => self.cancel(),
        }
        if self.dice.roll(4) > 0 {
            self.settle();
        }
        self.check();
    }

    fn settle(&mut self) {
        self.rig.run();
        self.lines.resize_with(self.rig.hosts.len(), Line::default);
        self.actors.iter_mut().for_each(|actor| actor.listen(&self.rig));
    }

    fn arrive(&mut self) {
        let settings: &[(&str, &str)] = if self.dice.roll(3) == 0 { &[("application_name", "y")] } else { &[] };
        let peer = self.rig.arrive_only(settings);
        self.actors.push(Actor::new(peer));
    }

    fn actor(&mut self) -> Option<&mut Actor> {
        if self.actors.is_empty() {
            self.arrive();
        }
        let which = self.dice.roll(self.actors.len());
        self.actors.get_mut(which).filter(|actor| !actor.left)
    }

    fn write(&mut self) {
        let mut dice = std::mem::replace(&mut self.dice, Dice::new(0));
        if dice.roll(2) == 0
            && let Some(actor) = self.actors.last_mut()
        {
            actor.write(&mut dice);
        }
        self.dice = dice;
        let mut dice = Dice::new(self.dice.roll(1 << 30) as u64);
        if let Some(actor) = self.actor() {
            actor.write(&mut dice);
        }
        self.send();
    }

    /// Some of what a client has written goes on the wire, rarely not all of it.
    fn send(&mut self) {
        let part = self.dice.roll(3) == 0;
        let cut = self.dice.roll(60);
        let Some(actor) = self.actor() else { return };
        let n = if part { cut.min(actor.unsent.len()) } else { actor.unsent.len() };
        let bytes: Vec<u8> = actor.unsent.drain(..n).collect();
        let peer = actor.peer;
        self.rig.push(peer, &bytes);
    }

    fn open(&mut self) {
        let Some(pool) = self.rig.opens.pop() else { return };
        match self.dice.roll(6) {
            0 => self.rig.relay.open_failed(pool, &OpenError::Timeout(Duration::from_secs(1))),
            1 if self.dice.roll(3) == 0 => self.rig.relay.open_failed(pool, &OpenError::Login("no".into())),
            _ => self.rig.open(pool),
        }
    }

    /// A server says some of what it has to say.
    fn say(&mut self) {
        self.lines.resize_with(self.rig.hosts.len(), Line::default);
        if self.lines.is_empty() {
            return;
        }
        let at = self.dice.roll(self.lines.len());
        self.answer(at, true);
        let line = &mut self.lines[at];
        let n = match self.dice.roll(4) {
            0 => self.dice.roll(12),
            1 => self.dice.roll(200),
            _ => line.unsaid.len(),
        };
        let n = n.min(line.unsaid.len());
        let said: Vec<u8> = line.unsaid.drain(..n).collect();
        self.utter(at, &said);
    }

    fn utter(&mut self, at: usize, said: &[u8]) {
        if said.is_empty() || self.lines[at].dead {
            return;
        }
        self.rig.hosts[at].mem.ends().input.extend(said);
        self.rig.hosts[at].wake();
    }

    /// What a server was asked is answered, now and then with something unasked between two messages.
    fn answer(&mut self, at: usize, unasked: bool) {
        if self.lines[at].dead {
            return;
        }
        let host = &mut self.rig.hosts[at];
        let asked = std::mem::take(&mut host.mem.ends().output);
        let answer = host.backend.feed(&asked);
        let mut from = 0;
        while let Ok(Some(header)) = Header::peek(&answer[from..], usize::MAX) {
            if unasked && self.dice.roll(12) == 0 {
                self.lines[at].unsaid.extend(aside(self.dice.roll(3)));
            }
            self.lines[at].unsaid.extend(&answer[from..from + header.total]);
            from += header.total;
        }
    }

    fn kill(&mut self) {
        self.lines.resize_with(self.rig.hosts.len(), Line::default);
        if self.lines.is_empty() {
            return;
        }
        let at = self.dice.roll(self.lines.len());
        if self.dice.roll(3) == 0 {
            let mut bye = Vec::new();
            super::model::error(&mut bye, "FATAL", "57P01");
            let whole = self.lines[at].unsaid.is_empty();
            if whole {
                self.utter(at, &bye);
            }
        }
        self.lines[at].dead = true;
        self.rig.hosts[at].mem.ends().closed = true;
        self.rig.hosts[at].wake();
    }

    fn leave(&mut self) {
        let polite = self.dice.roll(2) == 0;
        let Some(actor) = self.actor() else { return };
        actor.left = true;
        let (peer, rest) = (actor.peer, actor.unsent.drain(..).collect::<Vec<u8>>());
        if polite {
            self.rig.push(peer, &[rest, plain(client::TERMINATE, b"")].concat());
        }
        self.rig.peers[peer].mem.ends().closed = true;
        self.rig.push(peer, b"");
    }

    fn cancel(&mut self) {
        let Some(actor) = self.actor() else { return };
        let peer = actor.peer;
        let Some(id) = self.rig.peers[peer].id else { return };
        self.rig.relay.cancel(id);
    }

    fn pass(&mut self) {
        let ms = [10, 100, 300, 700, 1500][self.dice.roll(5)];
        self.clock.advance(Duration::from_millis(ms));
        self.rig.relay.sweep();
    }

    /// The books agree, and nobody waits while there is something for him.
    fn check(&self) {
        let relay = &self.rig.relay;
        for pool in relay.pools.ids() {
            let slice = &relay.pools[pool].slice;
            let servers: Vec<_> =
                relay.servers.ids().filter(|&id| relay.servers.get(id).unwrap().pool == pool).collect();
            assert_eq!(slice.open(), servers.len(), "servers counted and servers there");
            let idle = servers.iter().filter(|&&id| relay.servers.get(id).unwrap().use_ == Use::Idle);
            assert_eq!(slice.idle().len(), idle.count(), "servers at rest");
            for &id in slice.idle() {
                let server = relay.servers.get(id).unwrap();
                assert!(server.use_ == Use::Idle && server.is_clean(), "a server at rest is not clean");
            }
            assert!(slice.waiting() == 0 || slice.idle().len() == 0, "a client waits while a server rests");
            for &id in slice.waiters() {
                let state = relay.clients.get(id).unwrap().state;
                assert!(matches!(state, State::Waiting { pool: at, .. } if at == pool), "{state:?} in the queue");
            }
            assert!(slice.opening() >= self.rig.opens.iter().filter(|&&asked| asked == pool).count());
        }
        let mut waiting = 0;
        for id in relay.clients.ids() {
            match relay.clients.get(id).unwrap().state {
                State::Attached(server) => {
                    assert_eq!(relay.servers.get(server).unwrap().use_, Use::Lent(id), "it is not lent to who has it");
                }
                State::Riding(server) => {
                    let this = relay.servers.get(server).unwrap();
                    let lane = this.lane.as_deref().filter(|_| this.use_ == Use::Shared).unwrap();
                    let riders = lane.riders.iter().chain(&lane.queue).filter(|rider| rider.client == id);
                    assert_eq!(riders.count(), 1, "it rides nowhere");
                }
                State::Waiting { .. } => waiting += 1,
                State::Idle | State::Closing { .. } => {}
            }
        }
        assert_eq!(waiting, relay.pools.values().map(|pool| pool.slice.waiting()).sum::<usize>(), "waits in no queue");
        for id in relay.servers.ids() {
            if let Use::Lent(owner) = relay.servers.get(id).unwrap().use_ {
                assert_eq!(
                    relay.clients.get(owner).unwrap().state,
                    State::Attached(id),
                    "lent to who does not have it"
                );
            }
        }
    }

    /// Everybody is served, with time passing, until nothing stirs; then all go.
    fn finish(&mut self) {
        for actor in self.actors.iter_mut().filter(|actor| !actor.left) {
            let mut rest: Vec<u8> = actor.unsent.drain(..).collect();
            if std::mem::take(&mut actor.open) {
                rest.extend(sync());
                actor.batches += 1;
            }
            rest.extend([query("rollback"), query("deallocate all")].concat());
            actor.batches += 2;
            self.rig.push(actor.peer, &rest);
        }
        // In the end longer than who waits behind a client that keeps its server waits.
        for n in 0..60 {
            self.serve();
            if self.actors.iter().all(|actor| actor.left || actor.fatal || actor.ready == actor.batches) {
                break;
            }
            self.clock.advance(Duration::from_millis(if n < 20 { 200 } else { 4000 }));
            self.rig.relay.sweep();
        }
        for actor in self.actors.iter().filter(|actor| !actor.left && !actor.fatal && !self.rig.is_gone(actor.peer)) {
            assert!(actor.welcomed && actor.heard.is_empty(), "client {} hears half", actor.peer);
            assert_eq!(actor.ready, actor.batches, "client {} is not answered: {}", actor.peer, actor.story);
        }
        for actor in &self.actors {
            self.rig.peers[actor.peer].mem.ends().closed = true;
            self.rig.push(actor.peer, b"");
        }
        for _ in 0..60 {
            self.serve();
            let relay = &self.rig.relay;
            if relay.client_count() == 0 && relay.servers.values().all(|server| server.use_ == Use::Idle) {
                break;
            }
            self.clock.advance(Duration::from_millis(200));
            self.rig.relay.sweep();
        }
        self.serve();
        self.rig.assert_at_rest();
        assert_eq!(self.rig.relay.client_count(), 0);
    }

    /// Runs until nobody has anything to say.
    fn serve(&mut self) {
        loop {
            self.settle();
            let mut stirred = !self.rig.opens.is_empty() || !self.rig.cancels.is_empty();
            for pool in std::mem::take(&mut self.rig.opens) {
                self.rig.open(pool);
            }
            self.rig.finish_cancels();
            self.lines.resize_with(self.rig.hosts.len(), Line::default);
            for at in 0..self.lines.len() {
                self.answer(at, false);
                let said: Vec<u8> = self.lines[at].unsaid.drain(..).collect();
                stirred |= !said.is_empty() && !self.lines[at].dead;
                self.utter(at, &said);
            }
            self.check();
            if !stirred {
                return self.settle();
            }
        }
    }
}

/// A message that a server may send at any time.
fn aside(which: usize) -> Vec<u8> {
    let mut out = Vec::new();
    match which {
        0 => build::message(&mut out, server::NOTICE, |out| {
            out.extend_from_slice(b"SNOTICE\0C00000\0Maside\0\0");
        }),
        1 => build::parameter_status(&mut out, b"application_name", b"aside"),
        _ => build::message(&mut out, server::NOTIFICATION, |out| out.extend_from_slice(b"\0\0\0\x01c\0p\0")),
    }
    out
}

fn simulate(seed: u64) {
    let _seed = Seed(seed);
    let mut world = World::new(seed);
    for _ in 0..40 + world.dice.roll(160) {
        world.step();
    }
    world.settle();
    world.finish();
}

#[test]
fn whatever_happens_the_books_agree_and_all_come_to_rest() {
    let seed = std::env::var("PGWEIR_SEED").ok().and_then(|seed| seed.parse().ok());
    let many = if std::env::var_os("PGWEIR_LONG").is_some() { 200_000 } else { 2_000 };
    let seeds = seed.map_or(0..many, |seed| seed..seed + 1);
    seeds.for_each(simulate);
}
