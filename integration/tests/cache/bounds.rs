//! What is kept stays within its bounds.
//! It must never hang on which answers go first.

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
    assert!(count(&pgweir, "fills") > 1000.0);
    let before = hits(&pgweir);
    (0..2).for_each(|_| drop(client.query("SELECT * FROM long WHERE id = 1").unwrap()));
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
