//! Prometheus' format of protobuf messages, in which histograms per shape have native buckets, too.
//! Must never name a series otherwise than the text formats do.
//!
//! The messages are those of `io/prometheus/client/metrics.proto` (project client_model), as far as they are needed. A native histogram has a
//! bucket for each eighth of an octave (schema 3): the buckets of [`crate::meter::Histogram`] are eighths of an octave, too, but of equal width, so each
//! goes as a whole to the native one that its representative is in. A quantile is off by at most half of a native bucket more than
//! the one that pgweir gives itself: 10 % in all. What took less than a microsecond is zero. Whoever asks for this format is sent classic
//! buckets besides; Prometheus keeps the native ones then, unless told otherwise (`scrape_classic_histograms`).

use prometheus::proto as plain;
use prost::Message;

use super::family::BOUNDS_US;
use super::rows::{CLASSES, COUNTS, DURATIONS, LATENCIES, QUANTILES, Row, Spread};
use crate::meter::{Exemplar, HistogramSnapshot, Phase};
use crate::trace::Clock;

/// Values of the enumeration MetricType.
const COUNTER: i32 = 0;
const GAUGE: i32 = 1;
const HISTOGRAM: i32 = 4;
/// Buckets to an octave, as a power of two.
const SCHEMA: i32 = 3;
/// Below this, in seconds, a value is zero: pgweir counts in microseconds.
const ZERO_SECONDS: f64 = 0.5e-6;

#[derive(Clone, PartialEq, Message)]
struct Label {
    #[prost(string, tag = "1")]
    name: String,
    #[prost(string, tag = "2")]
    value: String,
}

#[derive(Clone, PartialEq, Message)]
struct Value {
    #[prost(double, tag = "1")]
    value: f64,
}

#[derive(Clone, PartialEq, Message)]
struct Bucket {
    #[prost(uint64, tag = "1")]
    cumulative_count: u64,
    #[prost(double, tag = "2")]
    upper_bound: f64,
    #[prost(message, optional, tag = "3")]
    exemplar: Option<Shown>,
}

/// A message of the type Exemplar.
#[derive(Clone, PartialEq, Message)]
struct Shown {
    #[prost(message, repeated, tag = "1")]
    label: Vec<Label>,
    #[prost(double, tag = "2")]
    value: f64,
    #[prost(message, optional, tag = "3")]
    timestamp: Option<Timestamp>,
}

/// `google/protobuf/timestamp.proto`.
#[derive(Clone, PartialEq, Message)]
struct Timestamp {
    #[prost(int64, tag = "1")]
    seconds: i64,
    #[prost(int32, tag = "2")]
    nanos: i32,
}

#[derive(Clone, PartialEq, Message)]
struct Span {
    /// From the end of the span before; of the first the number of its first bucket.
    #[prost(sint32, tag = "1")]
    offset: i32,
    #[prost(uint32, tag = "2")]
    length: u32,
}

#[derive(Clone, PartialEq, Message)]
struct Histogram {
    #[prost(uint64, tag = "1")]
    sample_count: u64,
    #[prost(double, tag = "2")]
    sample_sum: f64,
    #[prost(message, repeated, tag = "3")]
    bucket: Vec<Bucket>,
    #[prost(sint32, tag = "5")]
    schema: i32,
    #[prost(double, tag = "6")]
    zero_threshold: f64,
    #[prost(uint64, tag = "7")]
    zero_count: u64,
    #[prost(message, repeated, tag = "12")]
    positive_span: Vec<Span>,
    /// Each bucket's count less that of the one before.
    #[prost(sint64, repeated, tag = "13")]
    positive_delta: Vec<i64>,
    /// Of native buckets; those that have no bucket of the other kind are here only.
    #[prost(message, repeated, tag = "16")]
    exemplars: Vec<Shown>,
}

#[derive(Clone, PartialEq, Message)]
struct Metric {
    #[prost(message, repeated, tag = "1")]
    label: Vec<Label>,
    #[prost(message, optional, tag = "2")]
    gauge: Option<Value>,
    #[prost(message, optional, tag = "3")]
    counter: Option<Value>,
    #[prost(message, optional, tag = "7")]
    histogram: Option<Histogram>,
}

#[derive(Clone, PartialEq, Message)]
struct Family {
    #[prost(string, tag = "1")]
    name: String,
    #[prost(string, tag = "2")]
    help: String,
    #[prost(int32, tag = "3")]
    kind: i32,
    #[prost(message, repeated, tag = "4")]
    metric: Vec<Metric>,
}

/// Appends these families; each message behind its length.
pub(super) fn write(families: &[plain::MetricFamily], out: &mut Vec<u8>) {
    for family in families {
        let is_counter = family.get_field_type() == plain::MetricType::COUNTER;
        let metric = family.get_metric().iter().map(|metric| {
            let label = metric.get_label().iter();
            let label = label.map(|it| Label { name: it.name().to_owned(), value: it.value().to_owned() }).collect();
            if is_counter {
                let counter = Some(Value { value: metric.get_counter().get_value() });
                return Metric { label, counter, ..Metric::default() };
            }
            Metric { label, gauge: Some(Value { value: metric.get_gauge().get_value() }), ..Metric::default() }
        });
        let kind = if is_counter { COUNTER } else { GAUGE };
        push(out, family.name(), family.help(), kind, metric.collect());
    }
}

/// Appends a family, if there is anything in it.
fn push(out: &mut Vec<u8>, name: &str, help: &str, kind: i32, metric: Vec<Metric>) {
    if metric.is_empty() {
        return;
    }
    let family = Family { name: name.to_owned(), help: help.to_owned(), kind, metric };
    // Fails only where there is no room, which a vector makes.
    let _ = family.encode_length_delimited(out);
}

/// Appends what there is of shapes.
pub(super) fn write_shapes(rows: &[Row], out: &mut Vec<u8>) {
    if rows.is_empty() {
        return;
    }
    let value = |value: u64| Some(Value { value: value as f64 });
    for (name, help, count) in COUNTS {
        let metric = |row| Metric { label: labels(row, true, &[]), counter: value(count(row)), ..Metric::default() };
        push(out, name, help, COUNTER, rows.iter().map(metric).collect());
    }
    let classes = rows.iter().flat_map(|row| row.errors_of.iter().map(move |it| (row, it)));
    let classes = classes.map(|(row, (class, count))| Metric {
        label: labels(row, false, &[("class", class)]),
        counter: value(*count),
        ..Metric::default()
    });
    push(out, CLASSES.0, CLASSES.1, COUNTER, classes.collect());
    let named = QUANTILES.map(|q| q.to_string());
    let quantiles = rows.iter().flat_map(|row| named.iter().zip(row.quantiles_us).map(move |it| (row, it)));
    let quantiles = quantiles.map(|(row, (quantile, us))| Metric {
        label: labels(row, true, &[("phase", Phase::Total.name()), ("quantile", quantile)]),
        gauge: Some(Value { value: seconds(us) }),
        ..Metric::default()
    });
    push(out, LATENCIES.0, LATENCIES.1, GAUGE, quantiles.collect());
    let clock = Clock::now();
    let phases = rows.iter().flat_map(|row| row.phases().map(move |(phase, spread)| (row, phase, spread)));
    let phases = phases.map(|(row, phase, spread)| Metric {
        label: labels(row, false, &[("phase", phase.name())]),
        histogram: Some(histogram(spread, clock)),
        ..Metric::default()
    });
    push(out, DURATIONS.0, DURATIONS.1, HISTOGRAM, phases.collect());
}

fn labels(row: &Row, with_query: bool, more: &[(&str, &str)]) -> Vec<Label> {
    let of = |(name, value): (&str, &str)| Label { name: name.to_owned(), value: value.to_owned() };
    let query = with_query.then(|| ("query", row.query()));
    row.names().into_iter().chain(query).chain(more.iter().copied()).map(of).collect()
}

fn seconds(us: u64) -> f64 {
    us as f64 / 1e6
}

fn shown(us: u64, one: &Exemplar, clock: Clock) -> Shown {
    let hex = |bytes: &[u8]| bytes.iter().map(|byte| format!("{byte:02x}")).collect::<String>();
    let label = |name: &str, value| Label { name: name.to_owned(), value };
    let at_ns = clock.unix_ns(one.done_us);
    Shown {
        label: vec![label("trace_id", hex(&one.trace)), label("span_id", hex(&one.span))],
        value: seconds(us),
        timestamp: Some(Timestamp { seconds: (at_ns / 1_000_000_000) as i64, nanos: (at_ns % 1_000_000_000) as i32 }),
    }
}

fn histogram(spread: &Spread, clock: Clock) -> Histogram {
    let of = |number: usize| spread.exemplars.iter().find(|(bucket, ..)| *bucket == number);
    let bounds = BOUNDS_US.iter().zip(spread.buckets).enumerate();
    let bucket = bounds.map(|(number, (us, count))| Bucket {
        cumulative_count: count,
        upper_bound: seconds(*us),
        exemplar: of(number).map(|(_, us, one)| shown(*us, one, clock)),
    });
    let (zero_count, native) = spread.all.as_ref().map(native).unwrap_or_default();
    let (positive_span, positive_delta) = spans(&native);
    Histogram {
        sample_count: spread.count,
        sample_sum: seconds(spread.sum_us),
        bucket: bucket.collect(),
        schema: SCHEMA,
        zero_threshold: ZERO_SECONDS,
        zero_count,
        positive_span,
        positive_delta,
        exemplars: spread.exemplars.iter().map(|(_, us, one)| shown(*us, one, clock)).collect(),
    }
}

/// How many are zero, and the others by the number of their native bucket, ascending. Bucket `n` ends with 2^(n/8) seconds.
fn native(all: &HistogramSnapshot) -> (u64, Vec<(i32, u64)>) {
    let (mut zeros, mut buckets): (u64, Vec<(i32, u64)>) = (0, Vec::new());
    for (us, count) in all.representatives() {
        if us == 0 {
            zeros += count;
            continue;
        }
        let number = ((us as f64 / 1e6).log2() * f64::from(1 << SCHEMA)).ceil() as i32;
        match buckets.last_mut() {
            Some((last, sum)) if *last == number => *sum += count,
            _ => buckets.push((number, count)),
        }
    }
    (zeros, buckets)
}

/// Native buckets as runs without a gap.
fn spans(buckets: &[(i32, u64)]) -> (Vec<Span>, Vec<i64>) {
    let (mut spans, mut deltas): (Vec<Span>, Vec<i64>) = (Vec::new(), Vec::new());
    let (mut next, mut before) = (0, 0);
    for &(number, count) in buckets {
        match spans.last_mut() {
            Some(span) if number == next => span.length += 1,
            _ => spans.push(Span { offset: number - next, length: 1 }),
        }
        deltas.push(count as i64 - before);
        (next, before) = (number + 1, count as i64);
    }
    (spans, deltas)
}

/// All series in what was written, with their labels.
#[cfg(test)]
#[allow(clippy::unwrap_used)]
pub(super) fn series(mut bytes: &[u8]) -> Vec<(String, std::collections::BTreeMap<String, String>)> {
    let mut all = Vec::new();
    while !bytes.is_empty() {
        let family = Family::decode_length_delimited(&mut bytes).unwrap();
        for metric in family.metric {
            let of_kind = [metric.counter.is_some(), metric.gauge.is_some(), metric.histogram.is_some()];
            assert_eq!(of_kind, [COUNTER, GAUGE, HISTOGRAM].map(|kind| kind == family.kind), "{}", family.name);
            let histogram = metric.histogram.unwrap_or_default();
            let (mut count, mut sum) = (0, histogram.zero_count as i64);
            for delta in &histogram.positive_delta {
                count += delta;
                sum += count;
            }
            assert_eq!(sum as u64, histogram.sample_count);
            all.push((family.name.clone(), metric.label.into_iter().map(|it| (it.name, it.value)).collect()));
        }
    }
    all
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;

    #[test]
    fn buckets_are_runs_of_differences() {
        let (spans, deltas) = spans(&[(-60, 3), (-59, 5), (-50, 1), (2, 7)]);
        let spans: Vec<_> = spans.iter().map(|span| (span.offset, span.length)).collect();
        assert_eq!((spans, deltas), (vec![(-60, 2), (8, 1), (51, 1)], vec![3, 2, -4, 6]));
    }

    #[test]
    fn traces_are_named_beside_both_kinds_of_buckets() {
        let one = Exemplar {
            trace: [0xab; 16],
            span: [0xcd; 8],
            done_us: 5_000_000,
            wait_us: 0,
            first_us: 1,
            server_us: 200,
        };
        let spread = Spread {
            buckets: [1; BOUNDS_US.len()],
            count: 1,
            sum_us: 200,
            all: None,
            exemplars: vec![(1, 200, one), (BOUNDS_US.len(), 40_000_000, one)],
        };
        let clock = Clock::now();
        let found = Histogram::decode(&*histogram(&spread, clock).encode_to_vec()).unwrap();
        let marked: Vec<_> = found.bucket.iter().map(|bucket| bucket.exemplar.is_some()).collect();
        assert_eq!(marked.iter().position(|is| *is), Some(1));
        assert_eq!(marked.iter().filter(|is| **is).count(), 1);
        let shown = found.bucket[1].exemplar.clone().unwrap();
        let labels: Vec<_> = shown.label.iter().map(|it| (it.name.as_str(), it.value.as_str())).collect();
        assert_eq!(labels, [("trace_id", "ab".repeat(16).as_str()), ("span_id", "cd".repeat(8).as_str())]);
        let at = shown.timestamp.clone().unwrap();
        assert_eq!(at.seconds as u64 * 1_000_000_000 + at.nanos as u64, clock.unix_ns(5_000_000));
        assert_eq!(shown.value, 0.0002);
        assert_eq!(found.exemplars.iter().map(|it| it.value).collect::<Vec<_>>(), [0.0002, 40.0]);
    }

    #[test]
    fn values_are_in_the_bucket_that_ends_behind_them() {
        let counted = crate::meter::Histogram::new();
        let values_us = [0, 1, 50, 1_000, 1_000_000, 30_000_000];
        values_us.iter().for_each(|us| counted.record(*us));
        let (zeros, buckets) = native(&counted.snapshot());
        assert_eq!((zeros, buckets.len()), (1, 5));
        for (us, (number, count)) in values_us.iter().skip(1).zip(&buckets) {
            let (end, seconds) = (2f64.powf(f64::from(*number) / 8.0), *us as f64 / 1e6);
            // A value stands for all of its own bucket, by 6 % at most.
            assert!(seconds <= end * 1.07 && seconds > end / 2f64.powf(0.125) / 1.07, "{us}: up to {end}");
            assert_eq!(*count, 1);
        }
    }
}
