//! Prepared statements: shared between clients, private to each.
//! Must never accept a statement that its client did not prepare.

use super::pooling::with_clients;
use super::rig::letters;
use super::speech::*;

const ONE: &str = "default_pool_size = 1";

#[test]
fn a_text_is_prepared_once_for_all() {
    let mut rig = with_clients(ONE, 3);
    for (peer, name) in [(0, "a"), (1, "b"), (2, "a")] {
        assert_eq!(
            letters(&rig.send(peer, &[parse(name, "select 5"), describe(b'S', name), sync()].concat())),
            "1tTZI"
        );
    }
    assert_eq!(rig.hosts[0].backend.statement_count(), 1);
    assert_eq!(letters(&rig.send(0, &[close(b'S', "a"), sync()].concat())), "3ZI");
    assert_eq!(letters(&rig.send(0, &[run("a"), sync()].concat())), "E(26000)ZI");
    assert_eq!(letters(&rig.send(2, &[run("a"), sync()].concat())), "2DCZI");
    assert_eq!(letters(&rig.send(1, &[run("a"), sync()].concat())), "E(26000)ZI");
}

#[test]
fn a_server_that_lacks_a_statement_is_taught_it() {
    let mut rig = with_clients("default_pool_size = 2", 2);
    rig.tell(0, &[parse("a", "select 5"), sync()].concat());
    rig.send(1, &query("begin"));
    assert_eq!(letters(&rig.heard(0)), "1ZI");
    assert_eq!(letters(&rig.send(0, &[run("a"), sync()].concat())), "2DCZI");
    rig.send(1, &query("commit"));
    assert_eq!(rig.hosts.len(), 2);
    rig.assert_at_rest();
}

#[test]
fn answers_that_nobody_gives_come_at_flush() {
    let mut rig = with_clients(ONE, 1);
    rig.send(0, &[parse("a", "select 5"), sync()].concat());
    rig.heard(0);
    assert_eq!(letters(&rig.send(0, &[parse("b", "select 5"), flush()].concat())), "1");
    assert_eq!(letters(&rig.send(0, &[close(b'S', "a"), flush()].concat())), "3");
    assert_eq!(letters(&rig.send(0, &sync())), "ZI");
    rig.assert_at_rest();
}

#[test]
fn the_statement_used_longest_ago_makes_room() {
    let mut rig = with_clients(&format!("{ONE}\nmax_prepared_statements = 2"), 2);
    for n in 0..6 {
        let name = n.to_string();
        rig.tell(n % 2, &[parse(&name, &format!("select {n}")), run(&name), sync()].concat());
        assert_eq!(letters(&rig.heard(n % 2)), "12DCZI");
    }
    assert_eq!((rig.hosts[0].backend.most_statements, rig.hosts[0].backend.closes), (2, 4));
    // All of them still work, in whatever order.
    for n in [0, 3, 5, 1, 0, 4, 2] {
        assert_eq!(letters(&rig.send(n % 2, &[run(&n.to_string()), sync()].concat())), "2DCZI");
    }
    assert_eq!(rig.hosts[0].backend.most_statements, 2);
    rig.assert_at_rest();
}

#[test]
fn what_the_open_batch_uses_is_never_closed() {
    let mut rig = with_clients(&format!("{ONE}\nmax_prepared_statements = 2"), 1);
    let batch: Vec<u8> = (0..5).flat_map(|n| parse(&n.to_string(), &format!("select {n}"))).collect();
    let runs: Vec<u8> = (0..5).flat_map(|n| run(&n.to_string())).collect();
    assert_eq!(letters(&rig.send(0, &[batch, runs, sync()].concat())), "111112DC2DC2DC2DC2DCZI");
    assert_eq!(rig.hosts[0].backend.closes, 0);
    // Afterwards the bound is kept again.
    rig.send(0, &[parse("x", "select 77"), sync()].concat());
    assert_eq!(rig.hosts[0].backend.statement_count(), 2);
    rig.assert_at_rest();
}

#[test]
fn an_error_takes_back_only_what_it_voids() {
    let mut rig = with_clients(ONE, 1);
    rig.send(0, &[parse("a", "select 5"), sync()].concat());
    rig.heard(0);
    // The same text under a second name, and the first name closed, behind an error: void.
    let batch = [query("select 1/0"), run("nosuch"), parse("b", "select 5"), close(b'S', "a"), sync()].concat();
    assert_eq!(letters(&rig.send(0, &batch)), "E(22012)ZIE(26000)ZI");
    assert_eq!(letters(&rig.send(0, &[run("b"), sync()].concat())), "E(26000)ZI");
    assert_eq!(letters(&rig.send(0, &[run("a"), sync()].concat())), "2DCZI");
    rig.assert_at_rest();
}

#[test]
fn a_batch_waits_for_names_that_hang_on_the_one_before() {
    let mut rig = with_clients(ONE, 2);
    let batches = [run("nosuch"), parse("a", "select 5"), sync(), parse("a", "select 6"), run("a"), sync()].concat();
    assert_eq!(letters(&rig.send(0, &batches)), "E(26000)ZI12DCZI");
    // A statement to be taught again behind an error, and used once more in the next batch.
    rig.relay.servers.get_mut(rig.hosts[0].id).unwrap().retire = true;
    rig.send(1, &query("select 1"));
    let batches = [run("nosuch"), run("a"), sync(), run("a"), sync(), run("a"), sync()].concat();
    assert_eq!(letters(&rig.send(0, &batches)), "E(26000)ZI2DCZI2DCZI");
    // Everything forgotten, and prepared anew, in one write.
    let batches = [query("discard all"), parse("a", "select 7"), run("a"), sync()].concat();
    assert_eq!(letters(&rig.send(0, &batches)), "CZI12DCZI");
    assert_eq!(letters(&rig.send(0, &[run("a"), sync()].concat())), "2DCZI");
    rig.assert_at_rest();
}

#[test]
fn batches_that_change_no_name_do_not_wait() {
    let mut rig = with_clients(ONE, 1);
    rig.send(0, &[parse("a", "select 5"), sync()].concat());
    rig.heard(0);
    rig.hosts[0].answering = false;
    let batch = [parse("", "select 1"), run(""), run("a"), sync()].concat();
    rig.send(0, &batch.repeat(20));
    assert_eq!(letters(&rig.hosts[0].mem.ends().output).matches('S').count(), 20);
    rig.hosts[0].answering = true;
    rig.run();
    assert_eq!(letters(&rig.heard(0)), "12DC2DCZI".repeat(20));
}
