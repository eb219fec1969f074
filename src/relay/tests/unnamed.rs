//! Names of statements, the unnamed one too, across batches of which one fails.
//! Must never tell less than every message heard.

use super::pooling::with_clients;
use super::rig::letters;
use super::speech::*;

/// While the server skips to the Sync a Parse of the unnamed statement is void; the one behind the Sync is not.
#[test]
fn a_skipped_parse_leaves_the_next_alone() {
    let mut rig = with_clients("default_pool_size = 1", 1);
    assert_eq!(letters(&rig.send(0, &[parse("", "select 1"), sync()].concat())), "1ZI");
    assert_eq!(letters(&rig.send(0, &[describe(b'S', "none"), flush()].concat())), "E(26000)");
    let skipped = [close(b'S', ""), parse("", "select 2"), sync()].concat();
    let run = [parse("", "select 3"), bind("", ""), describe(b'P', ""), execute("", 0), sync()].concat();
    assert_eq!(letters(&rig.send(0, &[skipped, run].concat())), "ZI12TDCZI");
    rig.assert_at_rest();
}

/// The same with a batch behind it that fails without touching the unnamed statement.
#[test]
fn an_error_without_a_parse_voids_none() {
    let mut rig = with_clients("default_pool_size = 1", 1);
    let failing = [describe(b'S', "none"), parse("", "select 2"), sync()].concat();
    let good = [parse("", "select 3"), sync()].concat();
    let other = [describe(b'S', "none"), sync()].concat();
    let heard = rig.send(0, &[failing, good, other].concat());
    assert_eq!(letters(&heard), "E(26000)ZI1ZIE(26000)ZI");
    let run = [bind("", ""), describe(b'P', ""), execute("", 0), sync()].concat();
    assert_eq!(letters(&rig.send(0, &run)), "2TDCZI");
}

/// The same with names: what goes back is what the skipped batch changed, not what the next one did.
#[test]
fn a_skipped_name_leaves_the_next_alone() {
    let mut rig = with_clients("default_pool_size = 1", 1);
    assert_eq!(letters(&rig.send(0, &[parse("c", "select 1"), sync()].concat())), "1ZI");
    assert_eq!(letters(&rig.send(0, &[describe(b'S', "none"), flush()].concat())), "E(26000)");
    let skipped = [close(b'S', "c"), parse("c", "select 2"), sync()].concat();
    assert_eq!(letters(&rig.send(0, &[skipped, parse("d", "select 3"), sync()].concat())), "ZI1ZI");
    let both = [run("c"), run("d"), sync()].concat();
    let heard = rig.send(0, &both);
    assert_eq!(letters(&heard), "2DC2DCZI");
    assert!(heard.windows(6).any(|part| part == b"\0\x01\0\0\0\x01") && rig.ran().ends_with(&["select 1", "select 3"]));
    rig.assert_at_rest();
}

/// A skipped Parse, Close or Query leaves the unnamed statement as it was before that message, not as it was before the batch.
#[test]
fn what_was_parsed_before_the_error_stays() {
    let run = [bind("", ""), execute("", 0), sync()].concat();
    for skipped in [parse("", "select 2"), close(b'S', ""), query("select 9")] {
        let mut rig = with_clients("default_pool_size = 1", 1);
        let failing = [parse("", "select 1"), describe(b'S', "none"), skipped, sync()].concat();
        assert_eq!(letters(&rig.send(0, &failing)), "1E(26000)ZI");
        assert_eq!(letters(&rig.send(0, &run)), "2DCZI");
        assert_eq!(rig.ran(), ["select 1"]);
        rig.assert_at_rest();
    }
    // The same with a batch behind it that is sent before the error is known.
    let mut rig = with_clients("default_pool_size = 1", 1);
    let failing = [parse("", "select 1"), describe(b'S', "none"), parse("", "select 2"), sync()].concat();
    let next = [describe(b'S', "none"), parse("", "select 3"), sync()].concat();
    assert_eq!(letters(&rig.send(0, &[failing, next].concat())), "1E(26000)ZIE(26000)ZI");
    assert_eq!(letters(&rig.send(0, &run)), "2DCZI");
    assert_eq!(rig.ran(), ["select 1"]);
}

/// The same where the next batch is sent before the error is known.
#[test]
fn a_batch_behind_a_skipped_close_waits_for_what_became_of_it() {
    for skipped in [close(b'S', ""), query("select 9")] {
        let mut rig = with_clients("default_pool_size = 1", 1);
        assert_eq!(letters(&rig.send(0, &[parse("", "select 1"), sync()].concat())), "1ZI");
        let failing = [describe(b'S', "none"), skipped, sync()].concat();
        let next = [bind("", ""), execute("", 0), sync()].concat();
        assert_eq!(letters(&rig.send(0, &[failing, next].concat())), "E(26000)ZI2DCZI");
        rig.assert_at_rest();
    }
}

/// A Parse that pgweir puts in front fails, in a failed transaction, where the server alone would have known the statement.
#[test]
fn a_failed_parse_in_front_takes_nothing_away() {
    let mut rig = with_clients("default_pool_size = 1", 1);
    assert_eq!(letters(&rig.send(0, &query("begin"))), "CZT");
    assert_eq!(letters(&rig.send(0, &[parse("", "select 1"), sync()].concat())), "1ZT");
    let skipped = [close(b'S', ""), parse("", "select 2")].concat();
    let failing = [describe(b'S', "none"), skipped.clone(), sync()].concat();
    assert_eq!(letters(&rig.send(0, &failing)), "E(26000)ZE");
    let again = [bind("", ""), skipped, sync()].concat();
    assert_eq!(letters(&rig.send(0, &again)), "E(25P02)ZE");
    assert_eq!(letters(&rig.send(0, &[bind("", ""), sync()].concat())), "E(25P02)ZE");
}
