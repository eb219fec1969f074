//! Transactions that no server has yet, and the moment in which one gets them.
//! Must never need a server that fails by itself: what fails is said for it.

use super::model;
use super::rig::{Rig, config, letters};
use super::speech::*;
use crate::pool::cluster::Says;
use crate::relay::catalog::Trust;

const BEGIN: &str = "begin isolation level read committed";
const WRITE: &str = "insert into t values (1)";

/// A client in a transaction in which the replica has served a read.
fn begun() -> Rig {
    let lines = "replicas = [\"127.0.0.1:2\"]\nroles = \"declared\"\nreads_in_transactions = \"replica_until_write\"\nserver_tls_sslmode";
    let mut rig = Rig::of(&config("default_pool_size = 1").replace("server_tls_sslmode", lines));
    let peer = rig.arrive(&[]);
    rig.heard(peer);
    // Its code is known, and there is none.
    rig.relay.catalogs.change(0, |catalog| (catalog.epoch, catalog.trust) = (1, Trust::Full));
    let group = rig.relay.groups.ids().next().unwrap();
    let cluster = &rig.relay.groups[group].cluster;
    let number = cluster.ask();
    cluster.answer(0, number, 1);
    cluster.heard(1, number, Says { standby: true, lsn: 1, shown: 1, timeline: 1 });
    assert_eq!(letters(&rig.send(peer, &query(BEGIN))), "CZT");
    assert_eq!(letters(&rig.send(peer, &query("select 1"))), "TDCZT");
    assert_eq!(ran(&rig, 1), ["select 1"]);
    rig
}

fn ran(rig: &Rig, pool: u32) -> Vec<String> {
    rig.hosts.iter().filter(|host| host.pool.index() == pool).flat_map(|host| host.backend.ran.clone()).collect()
}

fn primary(rig: &Rig) -> usize {
    rig.hosts.iter().position(|host| host.pool.index() == 0).unwrap()
}

#[test]
fn ends_on_no_server() {
    let mut rig = begun();
    assert_eq!(letters(&rig.send(0, &query("commit"))), "CZI");
    assert!(ran(&rig, 0).is_empty());
    // All of it at once.
    let all = [query(BEGIN), query("select 2"), query("rollback"), query("select 3")].concat();
    assert_eq!(letters(&rig.send(0, &all)), "CZTTDCZTCZITDCZI");
    assert_eq!(ran(&rig, 1), ["select 1", "select 2", "select 3"]);
    // With nothing held by who leaves.
    rig.send(0, &query(BEGIN));
    rig.leave(0);
    rig.assert_at_rest();
}

#[test]
fn nothing_runs_before_a_server_has_it() {
    let mut rig = begun();
    let primary = primary(&rig);
    rig.hosts[primary].answering = false;
    rig.tell(0, &query(WRITE));
    let sent = rig.hosts[primary].mem.ends().output.clone();
    assert_eq!(sent, query("BEGIN ISOLATION LEVEL READ COMMITTED;SELECT WHERE false"));
    rig.answer_now(primary);
    assert!(letters(&rig.heard(0)).is_empty());
    rig.answer_now(primary);
    assert_eq!(letters(&rig.heard(0)), "CZT");
    rig.hosts[primary].answering = true;
    // Reads stay there from now on.
    assert_eq!(letters(&rig.send(0, &[query("select 2"), query("commit")].concat())), "TDCZTCZI");
    assert_eq!(ran(&rig, 0), [WRITE, "select 2", "commit"]);
    rig.assert_at_rest();
}

#[test]
fn what_a_server_would_not_begin_does_not_run_there() {
    let mut rig = begun();
    let primary = primary(&rig);
    rig.hosts[primary].answering = false;
    rig.tell(0, &query(WRITE));
    rig.hosts[primary].mem.ends().output.clear();
    let mut refusal = Vec::new();
    model::error(&mut refusal, "ERROR", "57014");
    crate::wire::build::ready(&mut refusal, b'I');
    rig.say(primary, &refusal);
    // Another connection does, so that the client is in the transaction that it thinks it is in.
    assert!(rig.is_closed(primary));
    assert_eq!(letters(&rig.heard(0)), "CZT");
    assert!(rig.hosts[primary].backend.ran.is_empty());
    assert_eq!(letters(&rig.send(0, &query("commit"))), "CZI");
    assert_eq!(ran(&rig, 0), [WRITE, "commit"]);
    rig.assert_at_rest();
}

#[test]
fn who_leaves_while_a_server_begins_it_leaves_nothing() {
    let mut rig = begun();
    let primary = primary(&rig);
    rig.hosts[primary].answering = false;
    rig.tell(0, &query(WRITE));
    rig.leave(0);
    rig.finish_cancels();
    rig.hosts[primary].answering = true;
    rig.hosts[primary].wake();
    rig.run();
    rig.finish_cancels();
    rig.run();
    assert_eq!(ran(&rig, 0), ["ROLLBACK"]);
    rig.assert_at_rest();
}

/// Another worker's client has just changed code: what is known of it is not certain any more.
#[test]
fn what_another_worker_changes_counts_at_once() {
    let mut rig = begun();
    assert_eq!(letters(&rig.send(0, &query("commit"))), "CZI");
    rig.relay.registry.set_databases(["a".into()]);
    let health = rig.relay.registry.database("a");
    rig.relay.catalogs.all[0].health.clone_from(&health);
    health.unwrap().change_code();
    assert_eq!(letters(&rig.send(0, &query(BEGIN))), "CZT");
    assert_eq!(letters(&rig.send(0, &query("select 2"))), "TDCZT");
    assert_eq!((ran(&rig, 0), ran(&rig, 1)), (vec!["select 2".to_owned()], vec!["select 1".to_owned()]));
}

/// By default only those are deferred that say READ ONLY, also where others follow in their batch.
#[test]
fn who_only_reads_says_so() {
    let mut rig = begun();
    assert_eq!(letters(&rig.send(0, &query("commit"))), "CZI");
    let group = rig.relay.groups.ids().next().unwrap();
    rig.relay.groups[group].defers = crate::relay::unopened::Defers::ReadOnly;
    let begin = "BEGIN ISOLATION LEVEL READ COMMITTED, READ ONLY";
    let batch = [parse("", begin), run(""), parse("", "select 2"), run(""), sync()].concat();
    assert_eq!(letters(&rig.send(0, &batch)), "12C12DCZT");
    assert_eq!((ran(&rig, 0).len(), ran(&rig, 1)), (0, vec!["select 1".to_owned(), "select 2".to_owned()]));
    // Nothing of the batch has run when its first statement is answered: the rest may go elsewhere.
    assert_eq!(letters(&rig.send(0, &query("commit"))), "CZI");
    let batch = [parse("", begin), run(""), parse("", WRITE), run(""), sync()].concat();
    assert_eq!(letters(&rig.send(0, &batch)), "12C12CZT");
    assert_eq!(ran(&rig, 0), [WRITE]);
    assert_eq!(letters(&rig.send(0, &query("commit"))), "CZI");
    rig.assert_at_rest();
}

/// As a server would: who writes START TRANSACTION reads that in the command tag.
#[test]
fn a_beginning_is_answered_by_its_own_words() {
    let mut rig = begun();
    assert_eq!(letters(&rig.send(0, &query("commit"))), "CZI");
    for (sql, tag) in [
        ("start transaction isolation level read committed, read only", "START TRANSACTION"),
        ("\n START TRANSACTION ISOLATION LEVEL READ COMMITTED", "START TRANSACTION"),
        ("Begin transaction isolation level read committed", "BEGIN"),
    ] {
        let mut expected = Vec::new();
        crate::wire::build::message(&mut expected, crate::wire::tag::server::COMMAND_COMPLETE, |out| {
            crate::wire::build::cstr(out, tag.as_bytes());
        });
        crate::wire::build::ready(&mut expected, b'T');
        assert_eq!(rig.send(0, &query(sql)), expected, "{sql}");
        assert_eq!(letters(&rig.send(0, &query("commit"))), "CZI");
    }
    assert!(ran(&rig, 0).is_empty());
    rig.assert_at_rest();
}
