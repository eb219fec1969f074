//! Answers that are hot are renewed before their time is over, by one client, and nobody else notices.
//! It must never take what took no time: of that nothing is renewed early.

use std::time::Duration;

use integration::wire::Script;
use integration::{Cluster, DATABASE, Pgweir};

use crate::common::client::outcome;
use crate::common::{Client, eventually};
use crate::flight::{guard, waiting_for};
use crate::{ask_sql, builder, conf, count, reason, start};

const READ: &str = "SELECT v FROM guarded WHERE id = 30";

/// An answer is kept that has taken a second, so that a hundred times that is far beyond its end; then the table is guarded, and changed.
fn kept_slow(cluster: &Cluster) -> (Pgweir, Client, Client) {
    let pgweir = start(&conf(cluster, "mode = \"on\"\nttl = \"20s\"\nearly_refresh = 100").size(5));
    let mut first = Client::connect(pgweir.port());
    let mut holder = guard(cluster, "guarded");
    first.send(&Script::new().query(READ));
    eventually("it waits", || waiting_for(cluster, "guarded") == 1);
    std::thread::sleep(Duration::from_secs(1));
    holder.query("COMMIT").unwrap();
    assert_eq!(outcome(&first.ready(1)).unwrap(), [["guarded 30"]]);
    let mut holder = guard(cluster, "guarded");
    holder.query("UPDATE guarded SET v = 'new' WHERE id = 30").unwrap();
    (pgweir, first, holder)
}

/// Asks until the answer does not come at once.
pub fn asks_anew(client: &mut Client, sql: &str, old: &str) {
    let asks = |client: &mut Client| {
        client.send(&Script::new().query(sql));
        let answered = client.speaks_within(Duration::from_secs(2));
        if answered {
            assert_eq!(outcome(&client.ready(1)).unwrap(), [[old]]);
        }
        !answered
    };
    assert!((0..100_000).any(|_| asks(client)), "the cache has always had an answer");
}

#[test]
fn one_asks_anew_before_the_end_while_others_are_given_the_old() {
    let cluster = builder().start().unwrap();
    let (pgweir, mut first, mut holder) = kept_slow(&cluster);
    let mut other = Client::connect(pgweir.port());
    asks_anew(&mut first, READ, "guarded 30");
    eventually("it waits for a server's answer", || waiting_for(&cluster, "guarded") == 1);
    for _ in 0..20 {
        assert_eq!(ask_sql(&pgweir, &mut other, READ), (vec![vec!["guarded 30".into()]], true));
    }
    assert_eq!((count(&pgweir, "early_refreshes"), waiting_for(&cluster, "guarded")), (1.0, 1));
    assert_eq!(reason(&pgweir, "misses", "expired"), 0.0);
    holder.query("COMMIT").unwrap();
    assert_eq!(outcome(&first.ready(1)).unwrap(), [["new"]]);
    assert_eq!(other.value(READ), "new");
}

/// It need not have asked: whatever becomes of that, there is an answer.
#[test]
fn who_asks_anew_is_not_worse_off() {
    let cluster = builder().start().unwrap();
    let (pgweir, mut first, mut holder) = kept_slow(&cluster);
    asks_anew(&mut first, READ, "guarded 30");
    eventually("it waits for a server's answer", || waiting_for(&cluster, "guarded") == 1);
    let end = "SELECT pg_terminate_backend(pid) FROM pg_locks WHERE NOT granted AND relation = 'guarded'::regclass";
    cluster.primary().query_in(DATABASE, end).unwrap();
    assert_eq!(outcome(&first.ready(1)).unwrap(), [["guarded 30"]]);
    holder.query("COMMIT").unwrap();
    // Its time was not over.
    assert_eq!(reason(&pgweir, "stale", "error"), 0.0);
    assert!(count(&pgweir, "early_refreshes") >= 1.0);
}

/// What takes next to no time is asked for at its end.
#[test]
fn what_is_fast_is_not_asked_for_early() {
    let cluster = builder().start().unwrap();
    let pgweir = start(&conf(&cluster, "mode = \"on\"\nttl = \"1h\""));
    let mut client = Client::connect(pgweir.port());
    let sql = "SELECT v FROM item WHERE id = 40";
    assert!(!ask_sql(&pgweir, &mut client, sql).1);
    (0..500).for_each(|_| assert!(ask_sql(&pgweir, &mut client, sql).1));
    assert_eq!(count(&pgweir, "early_refreshes"), 0.0);
}
