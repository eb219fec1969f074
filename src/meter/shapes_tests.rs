//! Tests of the bounded shape table: bounds, exact totals, the heavy ones kept, stale ids.
//! Never depends on the address or the order of hash map entries.
#![allow(clippy::unwrap_used)]

use super::*;
use crate::meter::Counter;
use crate::meter::ErrorClass;
use crate::wire::error::SqlState;
use std::collections::HashSet;

fn label(database: &str) -> Place {
    Place::test(database, "app")
}

fn took(server_us: u64) -> Sample {
    let error = server_us.is_multiple_of(7).then(|| ErrorClass::of(SqlState::INTERNAL));
    Sample { wait_us: 1, first_us: server_us / 2, server_us, rows: 2, bytes: 10, error }
}

/// Sums (calls, errors, rows, µs) over everything a reader sees, and checks that the histograms agree.
fn totals(view: &ShapeView) -> [u64; 4] {
    let mut sum = [0; 4];
    view.for_each(|stats| {
        let all = Phase::ALL.map(|phase| stats.phase(phase));
        let calls = stats.calls.get();
        let [wait, first, server, write, total] = all;
        assert!([&wait, &first, &server, &total].iter().all(|phase| phase.count == calls));
        assert!(first.sum_us <= server.sum_us && write.count == 0);
        assert_eq!(stats.errors_of.iter().map(Counter::get).sum::<u64>(), stats.errors.get());
        assert_eq!(stats.bytes.get(), calls * 10);
        assert_eq!(total.sum_us, stats.total_us.get());
        assert_eq!(wait.sum_us + server.sum_us, total.sum_us);
        sum[0] += calls;
        sum[1] += stats.errors.get();
        sum[2] += stats.rows.get();
        sum[3] += total.sum_us;
    });
    sum
}

/// xorshift64, as reproducible input.
struct Dice(u64);

impl Dice {
    fn below(&mut self, bound: usize) -> usize {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        ((u128::from(self.0) * bound as u128) >> 64) as usize
    }
}

/// All 200,000 shapes at least once, and 800,000 more calls by Zipf's law with exponent 1, in random order.
fn zipf_calls(dice: &mut Dice, shapes: usize) -> Vec<u32> {
    let mut calls: Vec<u32> = (0..shapes as u32).collect();
    let mut cumulative = Vec::with_capacity(shapes);
    let mut mass = 0.0;
    for rank in 1..=shapes {
        mass += 1.0 / rank as f64;
        cumulative.push(mass);
    }
    for _ in 0..800_000 {
        let point = dice.below(1 << 52) as f64 / (1u64 << 52) as f64 * mass;
        calls.push(cumulative.partition_point(|c| *c < point).min(shapes - 1) as u32);
    }
    for i in (1..calls.len()).rev() {
        calls.swap(i, dice.below(i + 1));
    }
    calls
}

#[test]
fn two_hundred_thousand_shapes_through_a_table_of_500() {
    const SHAPES: usize = 200_000;
    for seed in [1, 0xDEAD_BEEF, 77_777] {
        let mut dice = Dice(seed);
        let mut table = ShapeTable::new(500);
        let pools = [table.add_place(label("a")), table.add_place(label("b"))];
        let mut truth = vec![0u64; SHAPES];
        let mut want = [0u64; 4];
        for call in zipf_calls(&mut dice, SHAPES) {
            let sample = took(50 + dice.below(100) as u64);
            let pool = pools[call as usize % 2];
            let id = table.slot(pool, u64::from(call), || "x".repeat(3000));
            assert!(table.record(id, &sample));
            truth[call as usize] += sample.server_us + 1;
            want[0] += 1;
            want[1] += u64::from(sample.error.is_some());
            want[2] += sample.rows;
            want[3] += sample.server_us + 1;
        }
        assert_eq!(totals(&table.view), want, "seed {seed}");

        let mut present = HashSet::new();
        let mut entries = 0;
        table.view.for_each(|stats| {
            entries += 1;
            assert!(stats.text.len() <= TEXT_BYTES_MAX);
            let Some(shape) = stats.shape else { return };
            let exact = truth[shape as usize];
            let counted = stats.total_us.get();
            assert!((counted..=counted + stats.missed_us_max).contains(&exact));
            assert_eq!(&*stats.pool.database, ["a", "b"][shape as usize % 2]);
            present.insert(shape);
        });
        assert!(entries == present.len() + 2 && (550..=600).contains(&present.len()), "{entries} {}", present.len());
        assert!(table.index.len() == 500 && table.index.capacity() < 2000);
        let mut ranked: Vec<u64> = (0..SHAPES as u64).collect();
        ranked.sort_unstable_by_key(|shape| std::cmp::Reverse(truth[*shape as usize]));
        let lost: Vec<_> = ranked[..50].iter().filter(|s| !present.contains(s)).collect();
        assert!(lost.is_empty(), "seed {seed}: lost of the top 50: {lost:?}");
    }
}

#[test]
fn a_known_shape_keeps_its_slot_and_its_text_is_asked_for_once() {
    let mut table = ShapeTable::new(4);
    let pool = table.add_place(label("a"));
    let mut asked = 0;
    let first = table.slot(pool, 7, || {
        asked += 1;
        "select ?".into()
    });
    let again = table.slot(pool, 7, || unreachable!("known"));
    assert_eq!((asked, first), (1, again));
    let other_pool = table.add_place(label("b"));
    assert_ne!(table.slot(other_pool, 7, String::new), first);
    assert!(table.record(first, &took(10)));
    assert!(table.is_current(first));
}

#[test]
fn a_stale_id_counts_under_other() {
    let mut table = ShapeTable::new(1);
    let pool = table.add_place(label("a"));
    let old = table.slot(pool, 1, || "one".into());
    assert!(table.record(old, &took(100)));
    let new = table.slot(pool, 2, || "two".into());
    assert!(!table.is_current(old));
    assert!(!table.record(old, &took(200)));
    assert!(table.record(new, &took(300)));
    assert_eq!(totals(&table.view)[0], 3);
    table.view.for_each(|stats| match stats.shape {
        Some(shape) => {
            assert_eq!((shape, stats.calls.get(), stats.missed_us_max), (2, 1, 0));
        }
        None if &*stats.pool.database == "a" => assert_eq!(stats.total_us.get(), 302),
        None => assert_eq!(stats.calls.get(), 0),
    });
}

#[test]
fn who_answered_is_told_apart_and_slow_readers_are_counted_with_their_statement() {
    let mut table = ShapeTable::new(4);
    let primary = Place::test("a", "app");
    let replica = Place { target: Target::Replica("h:1".into()), ..primary.clone() };
    let places = [primary.clone(), replica, primary].map(|place| table.add_place(place));
    assert!(places[0] == places[2] && places[0] != places[1]);
    let [first, second] = [0, 1].map(|at| table.slot(places[at], 1, String::new));
    table.record(first, &took(10));
    table.record(second, &took(10));
    table.record_write(second, 500);
    let mut writes = Vec::new();
    table.view.for_each(|stats| writes.push((stats.target.name().to_owned(), stats.phase(Phase::Write))));
    let shown: Vec<_> = writes.iter().map(|(name, all)| (&**name, all.count, all.max_us)).collect();
    assert_eq!(shown, [("primary", 0, 0), ("h:1", 1, 500)]);
}

#[test]
fn without_slots_or_with_an_unknown_pool_nothing_is_lost() {
    let mut table = ShapeTable::new(0);
    let id = table.slot(99, 1, || "é".repeat(TEXT_BYTES_MAX));
    assert!(!table.is_current(id));
    assert!(!table.record(id, &took(5)));
    assert_eq!(totals(&table.view), [1, 0, 2, 6]);
    let mut table = ShapeTable::new(2);
    let id = table.slot(99, 1, || "é".repeat(TEXT_BYTES_MAX));
    assert!(table.record(id, &took(5)));
    assert_eq!(totals(&table.view), [1, 0, 2, 6]);
}

#[test]
fn an_entry_is_as_large_as_the_module_says() {
    assert!(size_of::<ShapeStats>() <= 9_000, "{}", size_of::<ShapeStats>());
    assert!(size_of::<SlotId>() <= 12);
}

#[test]
fn what_is_rare_and_slow_or_always_fails_stays() {
    let mut table = ShapeTable::new(100);
    let place = table.add_place(label("a"));
    let call = |table: &mut ShapeTable, shape: u64, server_us, failed: bool| {
        let id = table.slot(place, shape, String::new);
        let error = failed.then(|| ErrorClass::of(SqlState::INTERNAL));
        table.record(id, &Sample { server_us, rows: 1, bytes: 1, error, ..Sample::default() });
    };
    // Once a minute, and cheap but never right; between many others, each of which takes more in all.
    call(&mut table, 1, 60_000_000, false);
    (0..5).for_each(|_| call(&mut table, 2, 1, true));
    let mut dice = Dice(3);
    let storm = |table: &mut ShapeTable, dice: &mut Dice, from: u64| {
        for shape in from..from + 5_000 {
            (0..3).for_each(|_| call(table, shape, 30_000_000 + dice.below(100) as u64, false));
        }
    };
    storm(&mut table, &mut dice, 10);
    let seen = |table: &ShapeTable| {
        let mut found = Vec::new();
        let mut calls = 0;
        table.view.for_each(|stats| {
            calls += stats.calls.get();
            if stats.shape.is_some_and(|shape| shape < 10) {
                found.push((stats.shape.unwrap_or_default(), stats.calls.get(), stats.missed_us_max));
            }
        });
        found.sort_unstable();
        (found, calls)
    };
    assert_eq!(seen(&table), (vec![(1, 1, 0), (2, 5, 0)], 15_006));
    // They go on where they were.
    call(&mut table, 1, 60_000_000, false);
    call(&mut table, 2, 1, true);
    storm(&mut table, &mut dice, 10_000);
    assert_eq!(seen(&table), (vec![(1, 2, 0), (2, 6, 0)], 30_008));
    let entries = {
        let mut count = 0;
        table.view.for_each(|_| count += 1);
        count
    };
    assert!(entries <= 1 + 100 + 2 * (100 / 8), "{entries}");
}

/// Readers while one worker records and displaces: a snapshot's count is the sum of its buckets, counts of one entry
/// never shrink, and no entry shows more than was recorded.
#[test]
fn readers_during_writes_see_whole_histograms() {
    let mut table = ShapeTable::new(16);
    let pool = table.add_place(label("a"));
    let view = table.view();
    let done = std::sync::atomic::AtomicBool::new(false);
    std::thread::scope(|scope| {
        let reader = scope.spawn(|| {
            let mut scans = 0u64;
            let mut last_other = 0;
            while !done.load(std::sync::atomic::Ordering::Relaxed) || scans < 50 {
                view.for_each(|stats| {
                    let snapshot = stats.phase(Phase::Server);
                    let in_buckets: u64 = snapshot.occupied().map(|(_, _, n)| n).sum();
                    assert_eq!(snapshot.count, in_buckets);
                    assert!(snapshot.count <= 400_000);
                    if stats.shape.is_none() && &*stats.pool.database == "a" {
                        assert!(snapshot.count >= last_other);
                        last_other = snapshot.count;
                    }
                });
                scans += 1;
            }
            scans
        });
        let mut dice = Dice(5);
        for _ in 0..400_000 {
            let shape = dice.below(40) as u64;
            let id = table.slot(pool, shape, String::new);
            table.record(id, &took(10 + shape));
        }
        done.store(true, std::sync::atomic::Ordering::Relaxed);
        assert!(reader.join().unwrap() >= 50);
    });
    assert_eq!(totals(&table.view)[0], 400_000);
}
