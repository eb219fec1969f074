//! The bounds of a store, and who is new enough to be in it.
//! Must never hang on which of several answers is given up.

use super::*;
use crate::cache::entry::{Source, Stamp};
use crate::config::Cache;

fn config(max_bytes: u64, max_tenant_percent: u32) -> Cache {
    Cache { max_bytes, max_tenant_percent, max_entry_bytes: 4096, ..Cache::default() }
}

fn key(n: u32) -> Arc<[u8]> {
    Arc::from(&n.to_be_bytes()[..])
}

fn put(store: &Store, tenant: &Arc<Tenant>, n: u32, bytes: usize, began_us: u64) {
    let stamp = Stamp { began_us, source: Source::Primary };
    let answer = bytes::Bytes::from(vec![n as u8; bytes]);
    store.put(key(n), Entry::new(4, answer, stamp, began_us, 1_000_000, Arc::clone(tenant)));
}

#[test]
fn bytes_are_bounded_and_accounts_even_out() {
    let store = Store::new(&config(256 << 10, 100), Arc::default());
    let (a, b) = (store.tenant(b"a", "shop"), store.tenant(b"b", "shop"));
    assert!(Arc::ptr_eq(&a, &store.tenant(b"a", "shop")));
    for n in 0..2000 {
        put(&store, if n % 2 == 0 { &a } else { &b }, n, 500 + (n as usize % 7) * 100, 1);
        assert!(store.bytes() <= 256 << 10, "{} bytes after {n}", store.bytes());
    }
    assert!(store.len() > 100, "{} answers", store.len());
    assert_eq!(a.bytes() + b.bytes(), store.bytes());
    // The same keys anew.
    for n in 0..2000 {
        put(&store, &a, n, 300, 3);
    }
    store.resize(&config(64 << 10, 100));
    assert!(store.bytes() <= 64 << 10, "{} bytes", store.bytes());
    assert_eq!(a.bytes() + b.bytes(), store.bytes());
    let longest = 5000;
    put(&store, &a, 9999, 70 << 10, 3);
    assert!(store.get(&key(9999)).is_none() && store.longest() < longest);
}

#[test]
fn one_tenant_leaves_the_others_their_room() {
    let store = Store::new(&config(1 << 20, 25), Arc::default());
    let (a, b) = (store.tenant(b"a", "shop"), store.tenant(b"b", "shop"));
    for n in 0..200 {
        put(&store, &b, 100_000 + n, 600, 1);
    }
    let before = b.bytes();
    for n in 0..5000 {
        put(&store, &a, n, 600, 1);
        // One that is asked for stays.
        store.get(&key(0)).expect("used, yet given up").is_used();
    }
    assert!(a.bytes() <= (1 << 20) / 4 && a.bytes() > (1 << 20) / 5, "{} bytes", a.bytes());
    assert_eq!(b.bytes(), before);
}

#[test]
fn an_older_answer_does_not_take_the_place_of_a_newer_one() {
    let store = Store::new(&config(1 << 20, 100), Arc::default());
    let tenant = store.tenant(b"a", "shop");
    put(&store, &tenant, 1, 10, 5);
    put(&store, &tenant, 1, 20, 4);
    // Nor one that began before the other had come.
    put(&store, &tenant, 1, 20, 5);
    let kept = store.get(&key(1)).unwrap();
    assert_eq!((kept.answer.len(), kept.stamp.began_us), (10, 5));
    put(&store, &tenant, 1, 30, 6);
    // What is said of the one that was there is not said of the one that is.
    store.forget(&key(1), &kept);
    assert_eq!(store.get(&key(1)).unwrap().answer.len(), 30);
    assert!(kept.is_good(1_000_004, u64::MAX) && !kept.is_good(1_000_005, u64::MAX) && !kept.is_good(15, 10));
}
