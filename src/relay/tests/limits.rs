//! Limits in time, driven by the sweep on the real clock.
//! Must never sleep: each loop ends with its effect or not at all.

use std::time::{Duration, Instant};

use super::pooling::with_clients;
use super::rig::{Rig, letters};
use super::speech::*;

/// Sweeps until `done`; gives up after ten seconds.
fn sweep_until(rig: &mut Rig, mut done: impl FnMut(&Rig) -> bool) {
    let began = Instant::now();
    while !done(rig) {
        assert!(began.elapsed() < Duration::from_secs(10), "the limit has no effect");
        rig.relay.sweep();
        rig.run();
    }
}

#[test]
fn query_wait_timeout() {
    let mut rig = with_clients("default_pool_size = 1\nquery_wait_timeout = \"1ms\"", 3);
    rig.send(0, &query("begin"));
    rig.send(1, &query("select 1"));
    rig.send(2, &query("select 2"));
    sweep_until(&mut rig, |rig| rig.is_gone(1) && rig.is_gone(2));
    assert_eq!((letters(&rig.heard(1)), letters(&rig.heard(2))), ("E(53300)".into(), "E(53300)".into()));
    assert_eq!(rig.relay.pools[0].counters.total_query_wait_timeouts.get(), 2);
    assert_eq!(rig.relay.pools[0].slice.waiting(), 0);
    rig.send(0, &query("commit"));
    assert_eq!(rig.ran(), ["begin", "commit"]);
    rig.assert_at_rest();
}

#[test]
fn idle_transaction_timeout() {
    let mut rig = with_clients("default_pool_size = 1\nidle_transaction_timeout = \"1ms\"", 2);
    rig.send(0, &query("begin"));
    rig.heard(0);
    sweep_until(&mut rig, |rig| rig.is_gone(0));
    assert_eq!(letters(&rig.heard(0)), "E(25P03)");
    assert_eq!(rig.ran(), ["begin", "ROLLBACK"]);
    assert!(!rig.is_gone(1), "a client outside a transaction was ended");
    assert_eq!(letters(&rig.send(1, &query("select 1"))), "TDCZI");
    rig.assert_at_rest();
}

#[test]
fn client_idle_timeout() {
    let mut rig = with_clients("client_idle_timeout = \"1ms\"", 1);
    sweep_until(&mut rig, |rig| rig.is_gone(0));
    assert_eq!(letters(&rig.heard(0)), "E(57P01)");
}

#[test]
fn server_idle_timeout() {
    let mut rig = with_clients("server_idle_timeout = \"1ms\"", 1);
    sweep_until(&mut rig, |rig| rig.is_closed(0));
    assert_eq!(letters(&rig.send(0, &query("select 1"))), "TDCZI");
}

#[test]
fn shutdown_lets_transactions_finish() {
    let mut rig = with_clients("default_pool_size = 1", 3);
    rig.send(0, &query("begin"));
    rig.send(1, &query("select 1"));
    rig.heard(0);
    rig.relay.drain();
    rig.run();
    assert_eq!((letters(&rig.heard(2)), rig.is_gone(2)), ("E(57P01)".into(), true));
    assert_eq!(rig.heard(1), b"", "who waits already is not refused");
    rig.tell(0, &query("commit"));
    assert_eq!(letters(&rig.heard(0)), "CZIE(57P01)");
    assert_eq!(letters(&rig.heard(1)), "TDCZIE(57P01)");
    assert_eq!(rig.relay.client_count(), 0);
}
