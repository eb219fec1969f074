//! Proof of the bounds that `histogram.rs` states.
//! Never relies on timing.
#![allow(clippy::unwrap_used)]

use super::*;
use proptest::prelude::*;

/// Nearest-rank quantile of sorted values.
fn exact(sorted: &[u64], q: f64) -> u64 {
    let rank = ((q * sorted.len() as f64).ceil() as usize).clamp(1, sorted.len());
    sorted[rank - 1]
}

#[test]
fn buckets_tile_the_range_and_err_by_less_than_six_percent() {
    let mut next = 0;
    for bucket in 0..OVERFLOW {
        let (low, high) = edges(bucket);
        assert_eq!(low, next, "bucket {bucket} leaves a gap or overlaps");
        assert_eq!((bucket_of(low), bucket_of(high)), (bucket, bucket));
        for value in [low, high] {
            let error = representative(bucket).abs_diff(value) as f64 / value.max(1) as f64;
            assert!(error <= 0.06, "bucket {bucket} errs by {error} at {value}");
        }
        next = high + 1;
    }
    assert_eq!(next, OVERFLOW_US);
    const { assert!(OVERFLOW_US >= 64_000_000) };
    assert_eq!(bucket_of(OVERFLOW_US), OVERFLOW);
    assert_eq!(bucket_of(u64::MAX), OVERFLOW);
    assert_eq!(edges(15), (15, 15), "exact below 16 µs");
}

#[test]
fn empty_and_overflow() {
    let histogram = Histogram::new();
    assert_eq!(histogram.snapshot().quantile(0.5), 0);
    histogram.record(90_000_000);
    histogram.record(100);
    let snapshot = histogram.snapshot();
    assert_eq!(snapshot.quantile(0.99), 90_000_000);
    assert_eq!(snapshot.cumulative(&[30_000_000]), [1]);
    assert_eq!((snapshot.count, snapshot.sum_us), (2, 90_000_100));
}

#[test]
fn absorb_and_merge_add_everything() {
    let (a, b) = (Histogram::new(), Histogram::new());
    for us in [3, 70, 70, 9_000, 80_000_000] {
        a.record(us);
        b.record(us * 2);
    }
    let mut merged = a.snapshot();
    merged.merge(&b.snapshot());
    a.absorb(&b);
    assert_eq!(a.snapshot(), merged);
    assert_eq!((merged.count, merged.max_us), (10, 160_000_000));
    assert_eq!(merged.occupied().map(|(_, _, n)| n).sum::<u64>(), 10);
}

/// Latencies as they occur: every order of magnitude equally likely.
fn latency() -> impl Strategy<Value = u64> {
    (0u32..26).prop_flat_map(|e| (1u64 << e)..(2u64 << e))
}

proptest! {
    #[test]
    fn quantiles_are_within_six_percent(mut values in prop::collection::vec(latency(), 1..400), q in 0.0f64..=1.0) {
        let histogram = Histogram::new();
        values.iter().for_each(|us| histogram.record(*us));
        values.sort_unstable();
        let snapshot = histogram.snapshot();
        for q in [q, 0.5, 0.95, 0.99, 1.0] {
            let (want, got) = (exact(&values, q), snapshot.quantile(q));
            prop_assert!(got.abs_diff(want) as f64 <= 0.06 * want as f64, "q {q}: exact {want}, got {got}");
        }
        prop_assert_eq!(snapshot.sum_us, values.iter().sum::<u64>());
        prop_assert_eq!(snapshot.count, values.len() as u64);
    }

    #[test]
    fn cumulative_counts_are_exact_for_a_bound_within_six_percent(values in prop::collection::vec(latency(), 0..300), bound in latency()) {
        let histogram = Histogram::new();
        values.iter().for_each(|us| histogram.record(*us));
        let [got] = histogram.snapshot().cumulative(&[bound]);
        let at_most = |limit: f64| values.iter().filter(|us| **us as f64 <= limit).count() as u64;
        prop_assert!(got >= at_most(bound as f64 / 1.0625));
        prop_assert!(got <= at_most(bound as f64 * 1.0625));
    }
}
