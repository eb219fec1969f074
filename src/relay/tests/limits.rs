//! Limits in time, driven by the sweep on the real clock.
//! Must never sleep: each loop ends with its effect or not at all.

use std::time::{Duration, Instant};

use super::pooling::with_clients;
use super::rig::{Rig, config, letters};
use super::speech::*;
use crate::base::clock::paused::Paused;
use crate::server::open::OpenError;

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
    sweep_until(&mut rig, |rig| rig.relay.pools[0].slice.waiting() == 0);
    assert_eq!((letters(&rig.heard(1)), letters(&rig.heard(2))), ("E(53300)ZI".into(), "E(53300)ZI".into()));
    assert_eq!(rig.relay.pools[0].counters.total_query_wait_timeouts.get(), 2);
    assert_eq!(rig.relay.pools[0].slice.waiting(), 0);
    rig.send(0, &query("commit"));
    assert_eq!(rig.ran(), ["begin", "commit"]);
    rig.assert_at_rest();
    assert_eq!(letters(&rig.send(1, &query("select 3"))), "TDCZI", "it does not live on");
}

/// PostgreSQL reads over what follows an error in the extended protocol up to the Sync.
#[test]
fn a_batch_that_has_not_ended_fails_up_to_its_sync() {
    for cut in 1..60 {
        let clock = Paused::new();
        let mut rig = with_clients("default_pool_size = 1\nquery_wait_timeout = \"1s\"", 2);
        rig.send(0, &query("begin"));
        assert_eq!(letters(&rig.send(1, &[parse("", "select 1"), run(""), flush()].concat())), "");
        clock.advance(Duration::from_secs(1));
        rig.relay.sweep();
        rig.run();
        assert_eq!(letters(&rig.heard(1)), "E(53300)");
        let rest = [run(""), query("select 2"), plain(b'd', b"row"), flush(), sync(), query("select 3")].concat();
        rig.tell(1, &rest[..cut]);
        rig.tell(1, &rest[cut..]);
        assert_eq!(letters(&rig.heard(1)), "ZI");
        rig.send(0, &query("commit"));
        assert_eq!(letters(&rig.heard(1)), "TDCZI");
        assert_eq!(rig.ran(), ["begin", "commit", "select 3"]);
        rig.assert_at_rest();
    }
}

#[test]
fn a_client_may_say_goodbye_in_a_batch_that_failed() {
    let mut rig = with_clients("default_pool_size = 1\nmax_waiting_clients = 1", 3);
    rig.send(0, &query("begin"));
    rig.send(1, &query("select 1"));
    assert_eq!(letters(&rig.send(2, &[parse("", "select 2"), flush()].concat())), "E(53300)");
    rig.tell(2, &terminate());
    assert!(rig.is_gone(2));
}

/// Requests that came at once have waited equally long when the first of them has waited too long.
#[test]
fn what_came_with_a_request_that_waited_too_long_waits_no_longer() {
    let clock = Paused::new();
    let mut rig = with_clients("default_pool_size = 1\nquery_wait_timeout = \"1s\"", 2);
    rig.send(0, &query("begin"));
    rig.send(1, &[query("select 1"), parse("", "select 2"), run(""), sync(), query("select 3")].concat());
    clock.advance(Duration::from_secs(1));
    rig.relay.sweep();
    rig.run();
    assert_eq!(letters(&rig.heard(1)), "E(53300)ZIE(53300)ZIE(53300)ZI");
    assert_eq!(rig.relay.pools[0].counters.total_query_wait_timeouts.get(), 3);
    // What comes later waits for its own time.
    rig.tell(1, &query("select 4"));
    clock.advance(Duration::from_millis(900));
    rig.relay.sweep();
    rig.run();
    assert_eq!(letters(&rig.heard(1)), "");
    rig.send(0, &query("commit"));
    assert_eq!(letters(&rig.heard(1)), "TDCZI");
    assert_eq!(rig.ran(), ["begin", "commit", "select 4"]);
    rig.assert_at_rest();
}

/// While a server is open it may serve who waits; who has waited in vain is told why there is no other.
#[test]
fn why_no_server_could_be_opened_is_told_to_who_waits() {
    let clock = Paused::new();
    let mut rig = with_clients("default_pool_size = 2\nquery_wait_timeout = \"1s\"", 2);
    rig.send(0, &query("begin"));
    rig.hold_opens = true;
    let refuse = |rig: &mut Rig| {
        let pool = rig.opens.pop().unwrap();
        rig.relay.open_failed(pool, &OpenError::Login("the password is another now".into()));
        rig.run();
    };
    rig.tell(1, &query("select 1"));
    refuse(&mut rig);
    assert_eq!(letters(&rig.heard(1)), "");
    clock.advance(Duration::from_secs(1));
    rig.relay.sweep();
    rig.run();
    let heard = rig.heard(1);
    assert_eq!(letters(&heard), "E(53300)ZI");
    assert!(String::from_utf8_lossy(&heard).contains("the password is another now"));
    // Once none is left the next attempt that fails tells at once.
    rig.tell(1, &query("select 2"));
    rig.die(0);
    assert_eq!(letters(&rig.heard(1)), "");
    clock.advance(Duration::from_millis(500));
    rig.relay.sweep();
    rig.run();
    refuse(&mut rig);
    assert_eq!(letters(&rig.heard(1)), "E(08006)");
}

#[test]
fn query_wait_timeout_that_closes() {
    let lines = "default_pool_size = 1\nquery_wait_timeout = \"1ms\"\nquery_wait_timeout_action = \"close\"";
    let mut rig = with_clients(lines, 2);
    rig.send(0, &query("begin"));
    rig.send(1, &query("select 1"));
    sweep_until(&mut rig, |rig| rig.is_gone(1));
    assert_eq!(letters(&rig.heard(1)), "E(53300)");
}

#[test]
fn who_waits_long_is_told_once() {
    let mut rig = with_clients("default_pool_size = 1\nquery_wait_notify = \"1ms\"", 2);
    rig.send(0, &query("begin"));
    rig.send(1, &query("select 1"));
    let mut heard = String::new();
    sweep_until(&mut rig, |rig| {
        heard = letters(&rig.peers[1].mem.ends().output);
        !heard.is_empty()
    });
    (0..3).for_each(|_| rig.relay.sweep());
    assert_eq!(letters(&rig.heard(1)), "N");
    rig.send(0, &query("commit"));
    assert_eq!(letters(&rig.heard(1)), "TDCZI");
}

#[test]
fn more_than_may_wait_are_refused_at_once_and_live_on() {
    let mut rig = with_clients("default_pool_size = 1\nmax_waiting_clients = 1", 3);
    rig.send(0, &query("begin"));
    rig.send(1, &query("select 1"));
    let all = [query("select 2"), parse("", "select 3"), sync()].concat();
    assert_eq!(letters(&rig.send(2, &all)), "E(53300)ZIE(53300)ZI");
    rig.send(0, &query("commit"));
    assert_eq!(letters(&rig.heard(1)), "TDCZI");
    assert_eq!(letters(&rig.send(2, &query("select 4"))), "TDCZI");
    rig.assert_at_rest();
}

#[test]
fn who_waits_for_a_server_that_can_be_opened_is_not_too_many() {
    let mut rig = with_clients("default_pool_size = 3\nmax_waiting_clients = 1", 5);
    rig.hold_opens = true;
    for client in 0..5 {
        rig.tell(client, &query("begin"));
    }
    assert_eq!(letters(&rig.heard(4)), "E(53300)ZI", "one at work, two to come, one beyond");
    for pool in std::mem::take(&mut rig.opens) {
        rig.open(pool);
    }
    rig.run();
    assert_eq!((1..3).map(|client| letters(&rig.heard(client))).collect::<Vec<_>>(), ["CZT", "CZT"]);
    assert_eq!(rig.heard(3), b"");
}

#[test]
fn the_reserve_is_used_by_who_waits_long_and_goes_afterwards() {
    let lines = "default_pool_size = 1\nreserve_pool_size = 1\nreserve_pool_timeout = \"1ms\"";
    let mut rig = with_clients(lines, 2);
    rig.send(0, &query("begin"));
    rig.send(1, &query("select 1"));
    sweep_until(&mut rig, |rig| rig.hosts.len() == 2);
    assert_eq!(letters(&rig.heard(1)), "TDCZI");
    assert!(rig.is_closed(1), "the reserve stays although nobody waits");
    rig.send(0, &query("commit"));
    rig.assert_at_rest();
}

#[test]
fn a_minimum_is_kept_open() {
    let mut rig = Rig::new("default_pool_size = 5\nmin_pool_size = 3\nserver_idle_timeout = \"1ms\"");
    rig.arrive(&[]);
    sweep_until(&mut rig, |rig| rig.hosts.len() == 3);
    (0..5).for_each(|_| {
        rig.relay.sweep();
        rig.run();
    });
    assert_eq!((rig.hosts.len(), rig.relay.pools[0].slice.idle().len()), (3, 3));
}

#[test]
fn query_timeout_cancels_and_the_client_lives_on() {
    let mut rig = with_clients("default_pool_size = 1\nquery_timeout = \"1ms\"", 1);
    rig.hosts[0].answering = false;
    rig.send(0, &query("select 1"));
    sweep_until(&mut rig, |rig| !rig.cancels.is_empty());
    (0..3).for_each(|_| rig.relay.sweep());
    rig.run();
    assert_eq!(rig.cancels.len(), 1, "once is enough");
    rig.hosts[0].answering = true;
    rig.run();
    assert_eq!(letters(&rig.heard(0)), "TDCZI");
    assert!(!rig.is_gone(0));
    rig.finish_cancels();
    rig.assert_at_rest();
}

#[test]
fn transaction_timeout_ends_the_client_and_rolls_back() {
    let mut rig = with_clients("default_pool_size = 1\ntransaction_timeout = \"1ms\"", 2);
    rig.send(0, &query("begin"));
    rig.heard(0);
    sweep_until(&mut rig, |rig| rig.is_gone(0));
    assert_eq!(letters(&rig.heard(0)), "E(25P04)");
    assert_eq!(rig.ran(), ["begin", "ROLLBACK"]);
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

/// Every server answers once, a millisecond passes, and who has an answer asks again.
fn all_ask_again(rig: &mut Rig, clock: &Paused) {
    for host in 0..rig.hosts.len() {
        if !rig.is_closed(host) {
            rig.answer_now(host);
        }
        for client in 0..rig.peers.len() {
            if letters(&rig.heard(client)).ends_with("ZI") {
                rig.tell(client, &query("select 1"));
            }
        }
    }
    clock.advance(Duration::from_millis(1));
}

/// However short each waits: a queue that is never empty is a want.
#[test]
fn who_always_has_waiters_gets_its_part_of_a_cap() {
    let clock = Paused::new();
    let text =
        config("default_pool_size = 10").replace("[users.app]", "max_db_connections = 4\n[users.app]\n[users.other]");
    let mut rig = Rig::of(&text);
    rig.hold_answers = true;
    let come = |rig: &mut Rig, user: &str, count: usize| {
        for _ in 0..count {
            let client = rig.arrive_as(user, &[]);
            rig.tell(client, &query("select 1"));
        }
    };
    let open = |rig: &Rig| rig.relay.pools.ids().map(|pool| rig.relay.pools[pool].slice.open()).collect::<Vec<_>>();
    come(&mut rig, "app", 8);
    come(&mut rig, "other", 1);
    assert_eq!(open(&rig), [4, 0], "who came first has everything");
    all_ask_again(&mut rig, &clock);
    rig.relay.share();
    rig.run();
    assert_eq!(open(&rig), [3, 1], "the first of the others is served");
    come(&mut rig, "other", 7);
    for _ in 0..5 {
        (0..100).for_each(|_| all_ask_again(&mut rig, &clock));
        rig.relay.sweep();
        rig.run();
    }
    assert_eq!(open(&rig), [2, 2]);
}
