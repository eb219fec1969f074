//! COPY FROM STDIN with Sync, data and errors in every order.
//! Must never accept a connection as clean where the number of answers is in doubt.

use super::play_after;

#[test]
fn copy_in_reads_over_syncs() {
    // Simple.
    assert!(play_after("Q", &[("G", "dde")], "CZ").clean());
    assert!(play_after("Q", &[("G", "de")], "EZ").clean());
    // Extended: the Sync sent ahead owes nothing, the one behind CopyDone does.
    let played = play_after("BES", &[("2G", "ddeS")], "CZ");
    assert!(played.clean() && played.fault.is_none(), "{played:?}");
    // Sync sent between CopyInResponse and the data.
    assert!(play_after("BE", &[("2G", "SdeS")], "CZ").clean());
    // CopyFail: the server looked at it, so it had read over the Sync, or failed before: in doubt.
    let failed = play_after("BES", &[("2G", "eS")], "^Z");
    assert!(failed.fault.is_none() && !failed.state.1 && !failed.clean(), "{failed:?}");
    assert!(play_after("BE", &[("2G", "eS")], "^Z").clean());
    // An error before any of it: the Sync is answered after all.
    let early = play_after("BES", &[("2G", "")], "EZ");
    assert!(early.fault.is_none() && !early.state.1, "{early:?}");
    assert!(early.clean());
    // The same with more behind it, which is then done.
    assert!(play_after("BESBES", &[("2G", "")], "EZ2CZ").clean());
    // Cancelled while it waits for data: the Sync ahead has been read over.
    let waiting = play_after("BES", &[("2G", ""), ("^", "S")], "Z");
    assert!(waiting.fault.is_none() && !waiting.state.1 && !waiting.clean(), "{waiting:?}");
    // In the midst of the data, the Sync ahead long read over: only the new one is answered.
    let midst = play_after("BES", &[("2G", "d"), ("E", "dS")], "Z");
    assert!(midst.fault.is_none() && !midst.clean(), "in doubt and yet called clean: {midst:?}");
}

#[test]
fn copy_data_sent_ahead_of_the_answer() {
    assert!(play_after("Q", &[("", "dde")], "GCZ").clean());
    let early = play_after("BE", &[("", "ddeS")], "2GCZ");
    assert!(early.fault.is_none() && early.clean(), "{early:?}");
    let both = play_after("BES", &[("", "ddeS")], "2GCZ");
    assert!(both.fault.is_none() && both.clean(), "{both:?}");
    // Two in one batch: what is sent behind the end of the first, while that is not answered, is the second's.
    for (steps, rest) in
        [(&[("", "deBE"), ("2G", "de"), ("C2G", "S")][..], "CZ"), (&[("", "deBE"), ("2G", "deS")], "C2GCZ")]
    {
        let two = play_after("BE", steps, rest);
        assert!(two.fault.is_none() && two.clean(), "{two:?}");
    }
}

#[test]
fn a_message_other_than_sync_fails_a_copy() {
    // Parse is read in the midst of COPY: an error, and everything to the last Sync is skipped.
    let played = play_after("BESPBES", &[("2G", "")], "%Z");
    assert!(played.fault.is_none(), "{played:?}");
    assert_eq!(played.state.3, 0, "{played:?}");
}
