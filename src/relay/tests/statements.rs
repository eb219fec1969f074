//! Prepared statements at their limits, beside SQL's own names, and outdated ones.
//! Must never look only at what is answered: what servers hold afterwards counts as well.

use super::pooling::with_clients;
use super::rig::{Rig, letters};
use super::speech::*;

const ONE: &str = "default_pool_size = 1";

fn said(bytes: &[u8]) -> String {
    String::from_utf8_lossy(bytes).into_owned()
}

#[test]
fn errors_name_what_the_client_named() {
    let mut rig = with_clients(ONE, 2);
    rig.tell(1, &[parse("x", "select 5"), sync()].concat());
    rig.tell(0, &[parse("mine", "select 5"), parse("too", "select 5"), sync()].concat());
    rig.heard(0);
    for (sent, expected) in [
        (parse("mine", "select 6"), "statement \"mine\" already exists"),
        (parse("too", "select 6"), "statement \"too\" already exists"),
        (bind("", "nosuch"), "statement \"nosuch\" does not exist"),
        (describe(b'S', "__pgweir_1"), "statement \"__pgweir_1\" does not exist"),
        (bind("", "__pgweir_1"), "statement \"__pgweir_1\" does not exist"),
        (bind("", ""), "Munnamed prepared statement does not exist"),
    ] {
        let heard = said(&rig.send(0, &[sent, sync()].concat()));
        assert!(heard.contains(expected), "{heard:?}, not {expected:?}");
    }
    for name in ["mine", "too"] {
        assert_eq!(letters(&rig.send(0, &[run(name), sync()].concat())), "2DCZI");
    }
    rig.assert_at_rest();
}

#[test]
fn a_client_over_its_limit_is_told_and_lives_on() {
    let mut rig = with_clients(&format!("{ONE}\nmax_client_prepared_bytes = 4096"), 2);
    let text = |n: usize| format!("select {n}{}", " ".repeat(1000));
    for n in 0..3 {
        assert_eq!(letters(&rig.send(0, &[parse(&n.to_string(), &text(n)), sync()].concat())), "1ZI");
    }
    let refused = [query("begin"), run("0"), parse("3", &text(3)), run("3"), query("select 1"), sync()].concat();
    let heard = rig.send(0, &refused);
    assert_eq!(letters(&heard), "CZT2DCE(54000)ZE");
    assert!(said(&heard).contains("max_client_prepared_bytes"), "{}", said(&heard));
    rig.send(0, &query("rollback"));
    assert_eq!(letters(&rig.send(0, &[run("3"), sync()].concat())), "E(26000)ZI");
    // A name as long as a text counts too.
    let long = "n".repeat(1000);
    assert_eq!(letters(&rig.send(0, &[parse(&long, "select 1"), sync()].concat())), "E(54000)ZI");
    // What is closed is free again, and others have limits of their own.
    let again = [close(b'S', "1"), parse("3", &text(3)), run("3"), sync()].concat();
    assert_eq!(letters(&rig.send(0, &again)), "312DCZI");
    assert_eq!(letters(&rig.send(1, &[parse("3", &text(3)), run("3"), sync()].concat())), "12DCZI");
    assert_eq!(rig.relay.pools[0].counters.total_prepare_refusals.get(), 2);
    rig.assert_at_rest();
}

#[test]
fn all_clients_together_have_a_limit_and_what_goes_is_free() {
    let mut rig = with_clients(&format!("{ONE}\nmax_prepared_bytes = \"16KiB\""), 12);
    let text = |n: usize| format!("select {n}{}", " ".repeat(4000));
    let own = |n: usize| [parse("s", &text(n)), sync()].concat();
    let mut refused = 0;
    for n in 0..6 {
        let heard = rig.send(n, &own(n));
        refused += usize::from(letters(&heard) == "E(54000)ZI");
        assert!(letters(&heard) == "1ZI" || said(&heard).contains("max_prepared_bytes"));
    }
    assert!((2..5).contains(&refused), "{refused} refused");
    // A text that is there already costs a name only.
    assert_eq!(letters(&rig.send(6, &own(0))), "1ZI");
    // The unnamed statement is one per client and never refused.
    assert_eq!(letters(&rig.send(7, &[parse("", &text(99)), run(""), sync()].concat())), "12DCZI");
    for n in 0..8 {
        rig.leave(n);
    }
    for n in 8..11 {
        assert_eq!(letters(&rig.send(n, &own(n))), "1ZI", "of those who left something is still counted");
    }
    rig.assert_at_rest();
}

#[test]
fn a_server_keeps_so_many_bytes() {
    let mut rig = with_clients(&format!("{ONE}\nmax_server_prepared_bytes = 4096"), 1);
    let text = |n: usize| format!("select {n}{}", " ".repeat(1500));
    for n in 0..6 {
        assert_eq!(letters(&rig.send(0, &[parse(&n.to_string(), &text(n)), sync()].concat())), "1ZI");
    }
    assert_eq!((rig.hosts[0].backend.most_statements, rig.hosts[0].backend.closes), (2, 4));
    // A batch may need more; the next one pays.
    let all: Vec<u8> = (0..6).flat_map(|n| run(&n.to_string())).collect();
    assert_eq!(letters(&rig.send(0, &[all, sync()].concat())), "2DC".repeat(6) + "ZI");
    assert_eq!(letters(&rig.send(0, &[parse("6", &text(6)), sync()].concat())), "1ZI");
    assert_eq!(rig.hosts[0].backend.statement_count(), 2);
    rig.assert_at_rest();
}

#[test]
fn sql_finds_the_protocols_names_and_the_reverse() {
    let mut rig = with_clients(ONE, 2);
    rig.tell(1, &[parse("other", "select 5"), sync()].concat());
    rig.heard(1);
    rig.send(0, &[parse("a", "select 5"), parse("b", "insert into t values (1)"), sync()].concat());
    assert_eq!(letters(&rig.send(0, &query("execute a"))), "TDCZI");
    assert_eq!(letters(&rig.send(0, &[run("a"), run("b"), sync()].concat())), "2DC2CZI");
    assert_eq!(letters(&rig.send(0, &[parse("a", "select 6"), sync()].concat())), "E(42P05)ZI");
    assert_eq!(letters(&rig.send(0, &query("prepare b as select 1"))), "E(42P05)ZI");
    assert_eq!(letters(&rig.send(0, &query("prepare c as select 7"))), "CZI");
    assert_eq!(letters(&rig.send(0, &[run("c"), sync()].concat())), "2DCZI");
    // What SQL made keeps the server, so the other waits.
    assert_eq!(letters(&rig.send(1, &[run("other"), sync()].concat())), "");
    for name in ["a", "b"] {
        assert_eq!(letters(&rig.send(0, &query(&format!("deallocate {name}")))), "CZI");
        assert_eq!(letters(&rig.send(0, &[run(name), sync()].concat())), "E(26000)ZI");
    }
    assert_eq!(letters(&rig.heard(1)), "");
    assert_eq!(letters(&rig.send(0, &query("deallocate c"))), "CZI");
    assert_eq!(letters(&rig.heard(1)), "2DCZI", "the last name has gone, but not the server");
    assert_eq!(letters(&rig.send(0, &query("deallocate other"))), "E(26000)ZI");
    rig.assert_at_rest();
}

/// What drivers do when their cache is full.
#[test]
fn a_name_of_the_protocols_is_deallocated_by_sql() {
    let mut rig = with_clients(ONE, 2);
    for n in 0..3 {
        rig.send(0, &[parse("s", &format!("select {n}")), sync()].concat());
        assert_eq!(letters(&rig.send(0, &[run("s"), sync()].concat())), "2DCZI");
        let heard = match n {
            0 => rig.send(0, &query("deallocate s")),
            1 => rig.send(0, &[parse("", "deallocate s"), run(""), sync()].concat()),
            _ => rig.send(0, &query("deallocate all")),
        };
        assert_eq!(letters(&heard), if n == 1 { "12CZI" } else { "CZI" });
        assert_eq!(letters(&rig.send(0, &[run("s"), sync()].concat())), "E(26000)ZI");
        assert_eq!(letters(&rig.send(1, &query("select 1"))), "TDCZI");
    }
    rig.assert_at_rest();
}

/// The only server has an outdated copy of what both clients have prepared.
fn outdated(pool: &str) -> Rig {
    let mut rig = with_clients(pool, 2);
    for peer in [0, 1] {
        rig.tell(peer, &[parse("s", "select 5"), sync()].concat());
        rig.heard(peer);
    }
    rig.hosts[0].backend.feed(&query("alter table t"));
    rig
}

#[test]
fn an_outdated_statement_is_prepared_anew_and_nobody_notices() {
    let mut rig = outdated(ONE);
    let counters = std::sync::Arc::clone(&rig.relay.pools[0].counters);
    let (count, errors) = (counters.total_query_count.get(), counters.total_errors.get());
    assert_eq!(letters(&rig.send(0, &[run("s"), sync()].concat())), "2DCZI");
    assert_eq!(letters(&rig.send(1, &[describe(b'S', "s"), sync()].concat())), "tTZI");
    rig.hosts[0].backend.feed(&query("alter table t"));
    // With names made and dropped in the batch that fails.
    let batch = [parse("t", "select 5"), close(b'S', "s"), parse("s", "select 6"), run("t"), run("s"), sync()].concat();
    assert_eq!(letters(&rig.send(0, &batch)), "1312DC2DCZI");
    assert_eq!(letters(&rig.send(0, &[run("s"), run("t"), sync()].concat())), "2DC2DCZI");
    // The second client found a copy that the first one's repeat had made the server drop.
    assert_eq!(counters.total_batch_repeats.get(), 2);
    assert_eq!((counters.total_query_count.get() - count, counters.total_errors.get() - errors), (5, 0));
    rig.assert_at_rest();
}

#[test]
fn what_may_have_had_an_effect_is_not_run_again() {
    let mut rig = outdated(ONE);
    // Behind a statement that ran.
    let batch = [parse("", "insert into t values (1)"), run(""), run("s"), sync()].concat();
    assert_eq!(letters(&rig.send(0, &batch)), "12CE(0A000)ZI");
    assert_eq!(letters(&rig.send(0, &[run("s"), sync()].concat())), "2DCZI");
    // In a transaction.
    rig.hosts[0].backend.feed(&query("alter table t"));
    rig.send(0, &query("begin"));
    assert_eq!(letters(&rig.send(0, &[run("s"), sync()].concat())), "E(0A000)ZE");
    rig.send(0, &query("rollback"));
    assert_eq!(letters(&rig.send(0, &[run("s"), sync()].concat())), "2DCZI");
    // With a batch behind it on the wire already.
    rig.hosts[0].backend.feed(&query("alter table t"));
    let batches = [run("s"), sync(), query("select 1")].concat();
    assert_eq!(letters(&rig.send(0, &batches)), "E(0A000)ZITDCZI");
    assert_eq!(letters(&rig.send(0, &[run("s"), sync()].concat())), "2DCZI");
    // With half of its answer gone.
    rig.hosts[0].backend.feed(&query("alter table t"));
    assert_eq!(letters(&rig.send(0, &[parse("u", "select 9"), flush()].concat())), "1");
    assert_eq!(letters(&rig.send(0, &[run("s"), sync()].concat())), "E(0A000)ZI");
    assert_eq!(rig.relay.pools[0].counters.total_batch_repeats.get(), 0);
    rig.assert_at_rest();
}

#[test]
fn what_somebody_deallocated_out_of_sight_is_prepared_again() {
    let mut rig = outdated(ONE);
    rig.hosts[0].backend.feed(&query("deallocate all"));
    assert_eq!(letters(&rig.send(0, &[run("s"), sync()].concat())), "2DCZI");
    assert_eq!(rig.relay.pools[0].counters.total_batch_repeats.get(), 1);
    rig.assert_at_rest();
}

#[test]
fn a_batch_that_fails_again_is_told_so() {
    let mut rig = outdated(ONE);
    rig.hosts[0].answering = false;
    rig.tell(0, &[run("s"), sync()].concat());
    // Outdated before and after: something on the server changes all the time.
    for round in 0..2 {
        let asked = std::mem::take(&mut rig.hosts[0].mem.ends().output);
        assert!(!asked.is_empty(), "round {round}");
        let mut answer = Vec::new();
        if round == 1 {
            answer.extend([plain(b'3', b""), plain(b'1', b"")].concat());
        }
        answer.extend(plain(b'E', b"SERROR\0VERROR\0C0A000\0Mchanged\0RRevalidateCachedQuery\0\0"));
        answer.extend(plain(b'Z', b"I"));
        rig.say(0, &answer);
    }
    assert_eq!(letters(&rig.heard(0)), "E(0A000)ZI");
}

#[test]
fn a_client_that_goes_while_its_batch_is_run_again_takes_nothing_along() {
    let mut rig = outdated(ONE);
    rig.hosts[0].answering = false;
    rig.tell(0, &[run("s"), sync()].concat());
    let asked = std::mem::take(&mut rig.hosts[0].mem.ends().output);
    let answer = rig.hosts[0].backend.feed(&asked);
    // The error, but not yet the end of the batch.
    let (error, ready) = answer.split_at(answer.len() - 6);
    rig.say(0, error);
    assert_eq!(letters(&rig.heard(0)), "");
    rig.leave(0);
    rig.say(0, ready);
    rig.hosts[0].answering = true;
    rig.finish_cancels();
    assert_eq!(letters(&rig.send(1, &[run("s"), sync()].concat())), "2DCZI");
}

#[test]
fn in_a_failed_transaction_a_known_text_is_refused_too() {
    let mut rig = with_clients(ONE, 2);
    rig.tell(1, &[parse("a", "select 5"), parse("r", "rollback"), sync()].concat());
    rig.heard(1);
    rig.send(0, &[query("begin"), query("select 1/0")].concat());
    assert_eq!(letters(&rig.send(0, &[parse("a", "select 5"), sync()].concat())), "E(25P02)ZE");
    // What is allowed is, and behind it in the same batch all is well again.
    let batch = [parse("r", "rollback"), run("r"), parse("a", "select 5"), run("a"), sync()].concat();
    assert_eq!(letters(&rig.send(0, &batch)), "12C12DCZI");
    // The same when the failure is still on its way.
    let batches = [query("begin"), query("select 1/0"), parse("b", "select 5"), sync(), query("rollback")].concat();
    assert_eq!(letters(&rig.send(0, &batches)), "CZTE(22012)ZEE(25P02)ZECZI");
    assert_eq!(letters(&rig.send(1, &[run("a"), sync()].concat())), "2DCZI");
    rig.assert_at_rest();
}

/// A text read under a transaction's own settings is never another client's.
#[test]
fn settings_of_a_transaction_keep_its_texts_apart() {
    for local in ["set local x to 1", "select set_config('x', '1', true)"] {
        let mut rig = with_clients("default_pool_size = 2", 2);
        rig.send(0, &[parse("a", "select 5"), sync()].concat());
        // The second server lacks the text when the first client comes there with a setting.
        rig.send(1, &query("begin"));
        rig.send(1, &query("select 1"));
        let held = rig.hosts.len();
        rig.send(0, &query("begin"));
        rig.send(0, &query(local));
        let texts = rig.relay.statements.tally().bytes();
        assert_eq!(letters(&rig.send(0, &[parse("b", "select 5"), run("b"), run("a"), sync()].concat())), "12DC2DCZT");
        assert!(rig.relay.statements.tally().bytes() > texts, "{local}: shared in spite of a setting");
        rig.send(0, &query("commit"));
        rig.send(1, &query("commit"));
        assert!(held <= rig.hosts.len());
        rig.assert_at_rest();
    }
}

#[test]
fn of_two_names_for_one_text_an_error_tells_the_one_meant() {
    let mut rig = with_clients(ONE, 1);
    rig.send(0, &[parse("a", "select 5"), parse("b", "select 5"), sync()].concat());
    for name in ["a", "b", "a"] {
        for sent in [bind_one("", name), parse(name, "select 6")] {
            let heard = said(&rig.send(0, &[sent, sync()].concat()));
            assert!(heard.contains(&format!("prepared statement \"{name}\" ")), "{heard:?}, not {name:?}");
        }
    }
    // One that goes in the same pipeline.
    let batches = [bind_one("", "b"), sync(), close(b'S', "b"), sync(), bind_one("", "a"), sync()].concat();
    let heard = rig.send(0, &batches);
    assert_eq!(letters(&heard), "E(08P01)ZI3ZIE(08P01)ZI");
    assert!(said(&heard).contains("statement \"b\" requires") && said(&heard).contains("statement \"a\" requires"));
    rig.assert_at_rest();
}

#[test]
fn what_is_prepared_behind_deallocate_all_stays() {
    let mut rig = with_clients(ONE, 2);
    rig.tell(1, &[parse("other", "select 5"), sync()].concat());
    rig.heard(1);
    rig.send(0, &[parse("a", "select 5"), parse("b", "select 6"), sync()].concat());
    let all = [parse("", "deallocate all"), run("")].concat();
    let behind = [parse("a", "select 5"), run("a"), parse("c", "select 7"), run("c"), run("b")].concat();
    assert_eq!(letters(&rig.send(0, &[&all[..], &behind, &sync()].concat())), "12C12DC12DCE(26000)ZI");
    assert_eq!(letters(&rig.send(0, &[run("a"), run("c"), sync()].concat())), "2DC2DCZI");
    // In the next batch of the same write.
    let batches = [&all[..], &sync(), &parse("b", "select 6"), &run("b"), &sync(), &run("a"), &sync()].concat();
    assert_eq!(letters(&rig.send(0, &batches)), "12CZI12DCZIE(26000)ZI");
    // Through a portal with a name.
    let named = [parse("z", "deallocate all"), bind("p", "z"), parse("y", "select 1"), execute("p", 0)].concat();
    let behind = [parse("b", "select 8"), run("b"), sync()].concat();
    assert_eq!(letters(&rig.send(0, &[named, behind].concat())), "121C12DCZI");
    assert_eq!(letters(&rig.send(0, &[run("b"), sync(), run("y"), sync()].concat())), "2DCZIE(26000)ZI");
    // Where it does not come to that nothing is taken away.
    let failing = [&parse("", "select 1/0")[..], &run(""), &all, &parse("d", "select 9"), &sync()].concat();
    assert_eq!(letters(&rig.send(0, &failing)), "12E(22012)ZI");
    assert_eq!(letters(&rig.send(0, &[run("b"), sync(), run("d"), sync()].concat())), "2DCZIE(26000)ZI");
    assert_eq!(letters(&rig.send(1, &[run("other"), sync()].concat())), "2DCZI");
    rig.assert_at_rest();
}

/// PostgreSQL reads the text first, then whether it may run now, then whether the name is free.
#[test]
fn a_second_parse_of_a_name_in_a_failed_transaction_hears_of_its_text_first() {
    for there in [true, false] {
        let mut rig = with_clients("default_pool_size = 2", 2);
        rig.send(0, &[parse("a", "select 5"), sync()].concat());
        if !there {
            // The other server lacks what the name means.
            rig.send(1, &query("begin"));
        }
        rig.send(0, &[query("begin"), query("select 1/0")].concat());
        for (text, code) in [("nosuch", "42601"), ("select 6", "25P02"), ("rollback", "42P05")] {
            let heard = rig.send(0, &[parse("a", text), sync()].concat());
            assert_eq!(letters(&heard), format!("E({code})ZE"), "{text} there {there}");
            assert!(code != "42P05" || said(&heard).contains("statement \"a\" already"), "{}", said(&heard));
        }
        rig.send(0, &query("rollback"));
        assert_eq!(letters(&rig.send(0, &[run("a"), sync()].concat())), "2DCZI");
        rig.send(1, &query("rollback"));
        rig.assert_at_rest();
    }
}

#[test]
fn what_follows_a_query_that_is_read_over_is_read_over_too() {
    let mut rig = Rig::new("default_pool_size = 1");
    let peer = rig.arrive(&[]);
    rig.heard(peer);
    // It keeps its server, which is asked whether it still has to at the end of each transaction.
    assert_eq!(letters(&rig.send(peer, &query("prepare b as select 1"))), "CZI");
    let batch = [parse("", "deallocate all"), run(""), describe(b'S', "none"), query("select 1")].concat();
    assert_eq!(letters(&rig.send(peer, &batch)), "12CE(26000)");
    assert_eq!(letters(&rig.send(peer, &sync())), "ZI");
    assert_eq!(letters(&rig.send(peer, &query("select 1"))), "TDCZI");
}
