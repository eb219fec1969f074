//! What a transaction and an idle client cost: heap allocations, and bytes of state.
//! Must never count an allocation of the sockets in memory or of the model; the relay alone is on trial.

use std::mem::size_of;
use std::task::{Context, Waker};

use allocation_counter::measure;

use super::rig::{Rig, config, letters};
use super::speech::*;
use crate::net::mem::Mem;
use crate::relay::{Client, ClientId, ServerId};

/// Transactions that are counted.
const TRANSACTIONS: u64 = 10_000;
/// Transactions before, in which maps, rings and figures take the size they keep.
const WARM: u64 = 200;

/// One client and its server, and a transaction whose bytes are known on all four ways.
struct Steady {
    client: (ClientId, Mem),
    server: (ServerId, Mem),
    request: Vec<u8>,
    /// What the server is asked for it in the steady state.
    asked: Vec<u8>,
    /// What it answers.
    answer: Vec<u8>,
    /// What the client hears.
    heard: Vec<u8>,
}

impl Steady {
    /// Runs `request` through the model a few times, until nothing about it is new any more.
    fn learn(rig: &mut Rig, request: Vec<u8>) -> Self {
        for _ in 0..3 {
            assert!(letters(&rig.send(0, &request)).ends_with("ZI"));
        }
        rig.hosts[0].answering = false;
        rig.push(0, &request);
        rig.run();
        let asked = std::mem::take(&mut rig.hosts[0].mem.ends().output);
        let answer = rig.hosts[0].backend.feed(&asked);
        rig.say(0, &answer);
        let heard = rig.heard(0);
        let client = (rig.peers[0].id.unwrap(), rig.peers[0].mem.clone());
        Self { client, server: (rig.hosts[0].id, rig.hosts[0].mem.clone()), request, asked, answer, heard }
    }

    /// One transaction, as its two tasks would run it.
    fn transaction(&self, rig: &mut Rig, cx: &mut Context<'_>) {
        self.client.1.ends().input.extend(&self.request);
        assert!(rig.relay.client_turn(self.client.0, cx).is_pending());
        exchange(&self.server.1, &self.asked, &self.answer);
        assert!(rig.relay.server_turn(self.server.0, cx).is_pending());
        exchange(&self.client.1, &self.heard, &[]);
        assert!(rig.relay.take_todo().is_empty());
    }
}

/// The socket was given `wanted`, which leaves it, and has `next` to read.
fn exchange(mem: &Mem, wanted: &[u8], next: &[u8]) {
    let mut ends = mem.ends();
    assert!(ends.output == wanted, "{} instead of {}", letters(&ends.output), letters(wanted));
    ends.output.clear();
    ends.input.extend(next);
}

/// Allocations of [`TRANSACTIONS`] transactions with `request`, after `before` was sent once.
fn allocations(before: &[u8], request: Vec<u8>) -> u64 {
    allocations_with("", before, request)
}

/// The same, with more sections of the configuration.
fn allocations_with(sections: &str, before: &[u8], request: Vec<u8>) -> u64 {
    let mut rig = Rig::of(&(config("default_pool_size = 1") + sections));
    let peer = rig.arrive(&[]);
    rig.heard(peer);
    if !before.is_empty() {
        assert!(letters(&rig.send(peer, before)).ends_with("ZI"));
    }
    let steady = Steady::learn(&mut rig, request);
    let mut cx = Context::from_waker(Waker::noop());
    (0..WARM).for_each(|_| steady.transaction(&mut rig, &mut cx));
    let counted = measure(|| (0..TRANSACTIONS).for_each(|_| steady.transaction(&mut rig, &mut cx)));
    let finished = rig.relay.pools[0].counters.total_xact_count.get();
    assert!(finished >= TRANSACTIONS + WARM, "{finished} transactions were counted");
    counted.count_total
}

#[test]
fn the_counter_counts() {
    let counted = measure(|| {
        std::hint::black_box(Box::new(1u64));
        std::hint::black_box(vec![0u8; 100]);
    });
    assert_eq!(counted.count_total, 2);
}

#[test]
fn a_simple_transaction_allocates_nothing() {
    assert_eq!(allocations(&[], query("select 1")), 0);
}

#[test]
fn a_transaction_block_allocates_nothing() {
    let block = [query("begin"), query("select 1"), query("insert into t values (1)"), query("commit")].concat();
    assert_eq!(allocations(&[], block), 0);
}

#[test]
fn a_prepared_transaction_allocates_nothing() {
    let prepare = [parse("s", "select 1"), sync()].concat();
    let request = [bind("", "s"), describe(b'P', ""), execute("", 0), sync()].concat();
    assert_eq!(allocations(&prepare, request), 0);
}

#[test]
fn an_unnamed_extended_transaction_allocates_nothing() {
    let request = [parse("", "select 1"), bind("", ""), describe(b'P', ""), execute("", 0), sync()].concat();
    assert_eq!(allocations(&[], request), 0);
}

/// Nor where others are, and whatever its comments say.
#[test]
fn a_transaction_that_is_not_traced_allocates_nothing() {
    let traces = "\n[traces]\nendpoint = \"http://127.0.0.1:1\"\nratio = 0\n";
    let comment = "/*traceparent='00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-00'*/";
    for text in ["select 1".to_owned(), format!("select 1 {comment}")] {
        assert_eq!(allocations_with(traces, &[], query(&text)), 0, "{text}");
        let prepare = [parse("s", &text), sync()].concat();
        let request = [bind("", "s"), describe(b'P', ""), execute("", 0), sync()].concat();
        assert_eq!(allocations_with(traces, &prepare, request), 0, "{text}");
    }
}

/// Clients in the queue keep their request: one buffer each, freed with the request, and nothing else.
#[test]
fn a_transaction_that_waits_allocates_its_request_only() {
    let mut rig = Rig::new("default_pool_size = 1");
    let peers: Vec<usize> = (0..3).map(|_| rig.arrive(&[])).collect();
    let request = query("select 1");
    let steady = Steady::learn(&mut rig, request.clone());
    for &peer in &peers {
        rig.heard(peer);
    }
    let clients: Vec<_> =
        peers.iter().map(|&peer| (rig.peers[peer].id.unwrap(), rig.peers[peer].mem.clone())).collect();
    let mut cx = Context::from_waker(Waker::noop());
    // Everybody asks; then whoever is served asks again.
    for (id, mem) in &clients {
        mem.ends().input.extend(&request);
        assert!(rig.relay.client_turn(*id, &mut cx).is_pending());
    }
    let mut rounds = |rig: &mut Rig, count: u64| {
        for round in 0..count {
            let (id, mem) = &clients[round as usize % clients.len()];
            exchange(&steady.server.1, &steady.asked, &steady.answer);
            assert!(rig.relay.server_turn(steady.server.0, &mut cx).is_pending());
            exchange(mem, &steady.heard, &request);
            assert!(rig.relay.client_turn(*id, &mut cx).is_pending());
            assert!(rig.relay.take_todo().is_empty());
        }
    };
    rounds(&mut rig, WARM * 3);
    let counted = measure(|| rounds(&mut rig, TRANSACTIONS)).count_total;
    assert!(counted <= TRANSACTIONS, "{counted} allocations for {TRANSACTIONS} queued transactions");
    assert_eq!(rig.relay.pools[0].slice.waiting(), 2);
}

/// The state of an idle client; its future is measured in `relay::task`, all of it by `integration/tests/cost`.
#[test]
fn a_client_is_small() {
    let client = size_of::<Client>();
    assert!(client <= 464, "{client} bytes");
}
