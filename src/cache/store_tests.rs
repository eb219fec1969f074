//! The bounds of a store, and who is new enough to be in it.
//! Must never hang on which of several answers is given up.

use super::*;
use crate::cache::entry::{Source, Stamp};
use crate::config::Cache;

fn config(max_bytes: u64, max_tenant_percent: u32) -> Cache {
    Cache { max_bytes, max_tenant_percent, max_entry_bytes: 4096, ..Cache::default() }
}

fn key(n: u32) -> Owned {
    Hashed::new(&n.to_be_bytes()).to_owned()
}

fn put(store: &Store, tenant: &Arc<Tenant>, n: u32, bytes: usize, began_us: u64) {
    let stamp = Stamp { began_us, source: Source::Primary };
    let answer = bytes::Bytes::from(vec![n as u8; bytes]);
    store.put(key(n), Entry::new(4, (answer, 1), stamp, began_us, 1_000_000, Arc::clone(tenant)), Demand::Unknown);
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
    assert!(store.get(key(9999).as_ref()).is_none() && store.longest() < longest);
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
        store.get(key(0).as_ref()).expect("used, yet given up").is_used();
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
    let kept = store.get(key(1).as_ref()).unwrap();
    assert_eq!((kept.answer.len(), kept.stamp.began_us), (10, 5));
    put(&store, &tenant, 1, 30, 6);
    // What is said of the one that was there is not said of the one that is.
    store.forget(key(1).as_ref(), &kept);
    assert_eq!(store.get(key(1).as_ref()).unwrap().answer.len(), 30);
    assert!(kept.is_good(1_000_004, u64::MAX) && !kept.is_good(1_000_005, u64::MAX) && !kept.is_good(15, 10));
}

#[test]
fn what_is_asked_for_once_puts_nobody_out() {
    let store = Store::new(&config(1 << 20, 100), Arc::default());
    let tenant = store.tenant(b"a", "shop");
    let mut n = 0;
    while tenant.account().evicted == 0 {
        n += 1;
        assert!(n < 10_000, "never full");
        put(&store, &tenant, n, 600, 1);
    }
    let (kept, evicted) = (store.len(), tenant.account().evicted);
    for once in 20_000..25_000 {
        put(&store, &tenant, once, 600, 1);
    }
    assert!(tenant.account().evicted < evicted + 50 && store.len() + 50 > kept);
    // Whoever is asked for again comes in, and so does who is wanted at once, or had to go.
    for again in [0, 1] {
        put(&store, &tenant, 30_000, 600, 1 + again);
    }
    assert!(store.get(key(30_000).as_ref()).is_some());
    let (stamp, answer) = (Stamp { began_us: 1, source: Source::Primary }, bytes::Bytes::from_static(b"wanted"));
    store.put(key(30_001), Entry::new(4, (answer, 1), stamp, 1, 1_000_000, Arc::clone(&tenant)), Demand::Wanted);
    let wanted = store.get(key(30_001).as_ref()).unwrap();
    store.forget(key(30_001).as_ref(), &wanted);
    put(&store, &tenant, 30_001, 600, 3);
    assert!(store.get(key(30_001).as_ref()).is_some());
    // With room again everybody does.
    store.resize(&config(8 << 20, 100));
    store.look_for_room();
    put(&store, &tenant, 30_002, 600, 1);
    assert!(store.get(key(30_002).as_ref()).is_some());
}
