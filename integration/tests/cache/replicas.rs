//! The same with replicas, which may be behind, and with lanes.
//! It must never wait for a replica: what is right is right at any time.

use crate::common::{Client, crowd, eventually};
use crate::{builder, bypasses, conf, hits, start};

fn own_writes(lines: &str, lag: bool) {
    let cluster = builder().replicas(1).start().unwrap();
    let pgweir = start(&conf(&cluster, "mode = \"on\"\nttl = \"1h\"").pool(lines).size(4));
    let mut first = Client::connect(pgweir.port());
    eventually("answers are kept", || {
        assert_eq!(first.value("SELECT v FROM item WHERE id = 900"), "item 900");
        hits(&pgweir) > 0.0
    });
    if lag {
        cluster.replicas()[0].query("SELECT pg_wal_replay_pause()").unwrap();
    }
    let port = pgweir.port();
    crowd(8, move |number| {
        let mut client = Client::connect(port);
        let id = number + 1;
        for turn in 0..30 {
            client.query(&format!("UPDATE item SET v = '{number}-{turn}' WHERE id = {id}")).unwrap();
            for _ in 0..4 {
                let seen = client.value(&format!("SELECT v FROM item WHERE id = {id}"));
                assert_eq!(seen, format!("{number}-{turn}"), "client {number}");
            }
            // Of nobody's writing.
            let other = 500 + turn % 5;
            assert_eq!(client.value(&format!("SELECT v FROM item WHERE id = {other}")), format!("item {other}"));
        }
    });
    assert!(hits(&pgweir) > 100.0, "{} hits: {:?}", hits(&pgweir), bypasses(&pgweir));
    // What others wrote is told to who has written nothing, as of some time: never as of none.
    let mut reader = Client::connect(port);
    for id in 1..=8 {
        let seen = reader.value(&format!("SELECT v FROM item WHERE id = {id}"));
        assert!(seen.starts_with(&format!("{}-", id - 1)) || seen == format!("item {id}"), "{seen}");
    }
    if lag {
        cluster.replicas()[0].query("SELECT pg_wal_replay_resume()").unwrap();
    }
}

#[test]
fn own_writes_are_seen_behind_a_replica() {
    own_writes("", false);
}

#[test]
fn own_writes_are_seen_while_the_replica_stands_still() {
    own_writes("", true);
}

#[test]
fn own_writes_are_seen_in_lanes() {
    own_writes("lanes = true\nlane_fast = \"20ms\"", false);
}
