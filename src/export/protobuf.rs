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
use prost::encoding::{self, WireType};

use super::family::BOUNDS_US;
use super::rows::{CLASSES, COUNTS, DURATIONS, LATENCIES, QUANTILES, Row, Spread};
use crate::meter::{Exemplar, HistogramSnapshot, Phase};
use crate::trace::Clock;

/// Values of the enumeration MetricType.
const COUNTER: i32 = 0;
const GAUGE: i32 = 1;
const SUMMARY: i32 = 2;
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
struct Quantile {
    #[prost(double, tag = "1")]
    quantile: f64,
    #[prost(double, tag = "2")]
    value: f64,
}

#[derive(Clone, PartialEq, Message)]
struct Summary {
    #[prost(uint64, tag = "1")]
    sample_count: u64,
    #[prost(double, tag = "2")]
    sample_sum: f64,
    #[prost(message, repeated, tag = "3")]
    quantile: Vec<Quantile>,
}

#[derive(Clone, PartialEq, Message)]
struct Metric {
    #[prost(message, repeated, tag = "1")]
    label: Vec<Label>,
    #[prost(message, optional, tag = "2")]
    gauge: Option<Value>,
    #[prost(message, optional, tag = "3")]
    counter: Option<Value>,
    #[prost(message, optional, tag = "4")]
    summary: Option<Summary>,
    #[prost(message, optional, tag = "7")]
    histogram: Option<Histogram>,
}

/// The message MetricFamily, as it is read.
#[cfg(test)]
#[derive(Clone, PartialEq, Message)]
struct Read {
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
    let mut family = Family::new(name, help, kind);
    for metric in metric {
        family.push(&[], &metric);
    }
    family.end(out);
}

/// The message MetricFamily, written as its metrics come.
struct Family {
    bytes: Vec<u8>,
    /// Where its metrics begin.
    head: usize,
}

impl Family {
    fn new(name: &str, help: &str, kind: i32) -> Self {
        let mut bytes = Vec::new();
        encoding::string::encode(1, &name.to_owned(), &mut bytes);
        encoding::string::encode(2, &help.to_owned(), &mut bytes);
        encoding::int32::encode(3, &kind, &mut bytes);
        Self { head: bytes.len(), bytes }
    }

    /// A metric, of which some labels are encoded already: they are the same in many families.
    fn push(&mut self, labels: &[&[u8]], metric: &Metric) {
        encoding::encode_key(4, WireType::LengthDelimited, &mut self.bytes);
        let length = labels.iter().map(|labels| labels.len()).sum::<usize>() + metric.encoded_len();
        encoding::encode_varint(length as u64, &mut self.bytes);
        labels.iter().for_each(|labels| self.bytes.extend_from_slice(labels));
        metric.encode_raw(&mut self.bytes);
    }

    /// Appends it behind its length, if there is anything in it.
    fn end(self, out: &mut Vec<u8>) {
        if self.bytes.len() > self.head {
            encoding::encode_varint(self.bytes.len() as u64, out);
            out.extend_from_slice(&self.bytes);
        }
    }
}

/// A row, and its labels encoded as they are in a Metric.
struct Labelled<'a> {
    row: &'a Row,
    /// Those of [`Row::names`].
    names: Vec<u8>,
    query: Vec<u8>,
}

impl<'a> Labelled<'a> {
    fn new(row: &'a Row) -> Self {
        let names = row.names().into_iter().flat_map(|(name, value)| label(name, value)).collect();
        Self { row, names, query: label("query", row.query()) }
    }
}

fn label(name: &str, value: &str) -> Vec<u8> {
    let mut bytes = Vec::new();
    encoding::message::encode(1, &Label { name: name.to_owned(), value: value.to_owned() }, &mut bytes);
    bytes
}

/// Appends what there is of shapes.
pub(super) fn write_shapes(rows: &[Row], out: &mut Vec<u8>) {
    let rows: Vec<Labelled<'_>> = rows.iter().map(Labelled::new).collect();
    let counter = |value: u64| Metric { counter: Some(Value { value: value as f64 }), ..Metric::default() };
    for (name, help, count) in COUNTS {
        let mut family = Family::new(name, help, COUNTER);
        for Labelled { row, names, query } in &rows {
            family.push(&[names, query], &counter(count(row)));
        }
        family.end(out);
    }
    let mut family = Family::new(CLASSES.0, CLASSES.1, COUNTER);
    for Labelled { row, names, .. } in &rows {
        for (class, count) in &row.errors_of {
            family.push(&[names, &label("class", class)], &counter(*count));
        }
    }
    family.end(out);
    let phase = |phase: Phase| label("phase", phase.name());
    let of_total = phase(Phase::Total);
    let mut family = Family::new(LATENCIES.0, LATENCIES.1, SUMMARY);
    for Labelled { row, names, query } in &rows {
        let metric = Metric { summary: Some(summary(row)), ..Metric::default() };
        family.push(&[names, query, &of_total], &metric);
    }
    family.end(out);
    let (clock, phases) = (Clock::now(), Phase::ALL.map(phase));
    let mut family = Family::new(DURATIONS.0, DURATIONS.1, HISTOGRAM);
    for Labelled { row, names, .. } in &rows {
        for (phase, spread) in row.phases() {
            let metric = Metric { histogram: Some(histogram(spread, clock)), ..Metric::default() };
            family.push(&[names, &phases[phase as usize]], &metric);
        }
    }
    family.end(out);
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

fn summary(row: &Row) -> Summary {
    let quantiles = QUANTILES.into_iter().zip(row.quantiles_us);
    let quantile = quantiles.map(|(quantile, us)| Quantile { quantile, value: seconds(us) }).collect();
    Summary { sample_count: row.timed, sample_sum: seconds(row.total_us), quantile }
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
        let family = Read::decode_length_delimited(&mut bytes).unwrap();
        for metric in family.metric {
            let (of_value, summary) = ([metric.counter.is_some(), metric.gauge.is_some()], metric.summary);
            let of_kind = [of_value[0], of_value[1], summary.is_some(), metric.histogram.is_some()];
            assert_eq!(
                of_kind,
                [COUNTER, GAUGE, SUMMARY, HISTOGRAM].map(|kind| kind == family.kind),
                "{}",
                family.name
            );
            let quantiles = summary.map(|it| it.quantile.iter().map(|it| it.quantile).collect::<Vec<_>>());
            assert!(quantiles.is_none_or(|it| it == QUANTILES), "{}", family.name);
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
