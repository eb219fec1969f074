//! What is kept stays within its bounds.
//! It must never hang on which answers go first.

use std::ops::Range;

use crate::common::{Client, eventually, metric};
use crate::{ask_sql, cluster, conf, count, hits, reason, start};

#[test]
fn long_answers_and_many_answers() {
    let pgweir =
        start(&conf(cluster(), "mode = \"on\"\nttl = \"1h\"\nmax_bytes = \"256KiB\"\nmax_entry_bytes = \"8KiB\""));
    let mut client = Client::connect(pgweir.port());
    let (long, before) = ("SELECT * FROM long WHERE id <= 20", count(&pgweir, "fills"));
    for _ in 0..3 {
        let (rows, hit) = ask_sql(&pgweir, &mut client, long);
        assert!(rows.len() == 20 && !hit);
    }
    assert_eq!((reason(&pgweir, "unkept", "long"), count(&pgweir, "fills")), (3.0, before));
    assert!(!ask_sql(&pgweir, &mut client, "SELECT * FROM long WHERE id <= 3").1);
    assert!(ask_sql(&pgweir, &mut client, "SELECT * FROM long WHERE id <= 3").1);
    for id in 1..=1000 {
        client.query(&format!("SELECT * FROM long WHERE id = {id}")).unwrap();
    }
    let bytes = || metric(&pgweir, "pgweir_cache_bytes", &[]);
    let entries = || metric(&pgweir, "pgweir_cache_entries", &[]);
    eventually("the store is full", || bytes() > f64::from(128 << 10));
    assert!(bytes() <= f64::from(256 << 10), "{} bytes", bytes());
    assert!(entries() > 50.0 && entries() < 200.0, "{} answers", entries());
    // What others would have had to go for was kept only if it was asked for again.
    let once = reason(&pgweir, "unkept", "once");
    assert!(once > 500.0 && count(&pgweir, "fills") + once > 1000.0, "{once} of {}", count(&pgweir, "fills"));
    let before = hits(&pgweir);
    (0..3).for_each(|_| drop(client.query("SELECT * FROM long WHERE id = 1").unwrap()));
    assert!(hits(&pgweir) > before);
}

#[test]
fn a_tenant_has_its_part() {
    let lines = "mode = \"on\"\nttl = \"1h\"\nmax_bytes = \"1MiB\"\nmax_tenant_percent = 20";
    let pgweir = start(&conf(cluster(), lines));
    let mut other = Client::connect_with(pgweir.port(), &[("user", "other")]);
    for id in 1..=50 {
        other.query(&format!("SELECT * FROM long WHERE id = {id}")).unwrap();
    }
    let mut client = Client::connect(pgweir.port());
    for id in 1..=1000 {
        client.query(&format!("SELECT * FROM long WHERE id = {id}")).unwrap();
    }
    eventually("bytes are told", || metric(&pgweir, "pgweir_cache_bytes", &[]) > f64::from(200 << 10));
    assert!(metric(&pgweir, "pgweir_cache_bytes", &[]) < f64::from(300 << 10));
    for id in 1..=50 {
        assert!(ask_sql(&pgweir, &mut other, &format!("SELECT * FROM long WHERE id = {id}")).1, "{id}");
    }
}

/// What is hardly ever asked for twice is none of the cache's business, until it is.
#[test]
fn a_shape_of_many_values_is_left_alone() {
    let pgweir = start(&conf(cluster(), "mode = \"on\"\nttl = \"1h\""));
    let mut client = Client::connect(pgweir.port());
    let mut run = |ids: Range<u32>, times: usize| {
        for id in ids {
            (0..times).for_each(|_| assert_eq!(client.value(&format!("SELECT {id} AS of_many")), id.to_string()));
        }
    };
    // A shape is judged after 4096 lookups, of which 40 are hits.
    run(0..40, 2);
    run(40..4056, 1);
    assert_eq!(reason(&pgweir, "bypasses", "rare"), 1.0);
    let misses = || reason(&pgweir, "misses", "absent");
    let (missed, before) = (misses(), hits(&pgweir));
    run(6000..6100, 1);
    assert_eq!((reason(&pgweir, "bypasses", "rare"), misses(), hits(&pgweir)), (101.0, missed, before));
    // The second time it is looked up and kept, the third time it is there. Of two whose notes have the same place, as there are
    // in 4 runs of 100, neither is known.
    run(6000..6100, 1);
    let unknown = reason(&pgweir, "bypasses", "rare") - 101.0;
    assert!(unknown <= 6.0, "{unknown}");
    assert_eq!((misses(), hits(&pgweir)), (missed + 100.0 - unknown, before));
    run(6000..6100, 1);
    let known = hits(&pgweir) - before;
    assert!(known >= 100.0 - unknown, "{known}");
    // Once things are asked for again and again all are kept at once.
    run(7000..8400, 3);
    let (rare, before) = (reason(&pgweir, "bypasses", "rare"), hits(&pgweir));
    run(9000..9100, 2);
    assert_eq!((reason(&pgweir, "bypasses", "rare"), hits(&pgweir)), (rare, before + 100.0));
}

/// What is never asked for twice is not even looked up, most of the time; and is when it comes to be.
#[test]
fn a_shape_that_is_never_hit_rests() {
    let pgweir = start(&conf(cluster(), "mode = \"on\"\nttl = \"1h\""));
    let mut client = Client::connect(pgweir.port());
    let mut run = |ids: Range<u32>| {
        for id in ids {
            assert_eq!(client.value(&format!("SELECT {id} AS of_endless")), id.to_string());
        }
    };
    let (missed, hit) = (reason(&pgweir, "misses", "absent"), hits(&pgweir));
    let reasons = || {
        let missed = reason(&pgweir, "misses", "absent") - missed;
        (reason(&pgweir, "bypasses", "rare"), missed, hits(&pgweir) - hit)
    };
    run(0..4096);
    assert_eq!(reasons(), (1.0, 4095.0, 0.0));
    // For as long as it would take to judge it seven times, also what is kept.
    run(0..4096);
    (0..6 * 4096 - 1).for_each(|_| run(7..8));
    assert_eq!(reasons(), (7.0 * 4096.0, 4095.0, 0.0));
    (0..100).for_each(|_| run(7..8));
    let (_, missed, hits) = reasons();
    assert!(missed == 4095.0 && hits >= 99.0, "{missed} {hits}");
}
