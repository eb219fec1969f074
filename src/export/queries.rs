//! Metrics per statement shape as text.
//! Never leaves out a series that another format has.
//!
//! These families are written here and not by the `prometheus` crate: with 2,000 shapes they are 138,000 lines, whose
//! labels the crate allocates once per series and escapes once per line; that took 77 ms at
//! best (for 72,000 lines) against a bound of 20 ms. Here the labels of a shape are escaped once. For the same reason the `query` label (the text) is on the nine
//! series per shape and target of counters and the summary and not on the sixty and more of the histogram, which joins on `shape`:
//! `... * on (database, user, shape, target) group_left (query) (pgweir_query_calls_total * 0 + 1)`. What is mostly nothing is left out
//! where it is: errors by class, and the time of writing where no client ever kept an answer waiting.

use std::fmt::Write;

use super::family::BOUNDS_US;
use super::openmetrics::{Format, push_escaped};
use super::rows::{CLASSES, COUNTS, DURATIONS, LATENCIES, QUANTILES, Row};
use crate::meter::Exemplar;
use crate::trace::Clock;

/// About what a line has besides its labels.
const LINE_BYTES: usize = 80;
/// Lines of a shape that have its text.
const WITH_QUERY: usize = COUNTS.len() + QUANTILES.len() + 2;

/// A row, and its labels as text.
struct Shown<'a> {
    row: &'a Row,
    /// Those of [`Row::names`], without braces.
    labels: String,
    /// The `query` label with its comma.
    query: String,
}

impl<'a> Shown<'a> {
    fn new(row: &'a Row) -> Self {
        let mut labels = String::with_capacity(128);
        for (number, (name, value)) in row.names().into_iter().enumerate() {
            push_all(&mut labels, &[if number == 0 { "" } else { "," }, name, "=\""]);
            push_escaped(&mut labels, value);
            labels.push('"');
        }
        let mut query = String::with_capacity(row.query().len() + 32);
        query.push_str(",query=\"");
        push_escaped(&mut query, row.query());
        query.push('"');
        Self { row, labels, query }
    }
}

fn push_all(text: &mut String, parts: &[&str]) {
    parts.iter().for_each(|part| text.push_str(part));
}

fn counters(text: &mut String, format: Format, rows: &[Shown]) {
    for (name, help, value) in COUNTS {
        format.push_head(text, name, "counter", help);
        for Shown { row, labels, query } in rows {
            push_all(text, &[name, "{", labels, query, "} "]);
            push_number(text, value(row));
            text.push('\n');
        }
    }
    let (name, help) = CLASSES;
    if rows.iter().any(|shown| !shown.row.errors_of.is_empty()) {
        format.push_head(text, name, "counter", help);
    }
    for Shown { row, labels, .. } in rows {
        for (class, count) in &row.errors_of {
            push_all(text, &[name, "{", labels, ",class=\"", class, "\"} "]);
            push_number(text, *count);
            text.push('\n');
        }
    }
}

fn latencies(text: &mut String, format: Format, rows: &[Shown]) {
    let (name, help) = LATENCIES;
    format.push_head(text, name, "summary", help);
    let phase = ",phase=\"total\"";
    let more = QUANTILES.map(|q| format!("{phase},quantile=\"{q}\"}} "));
    for Shown { row, labels, query } in rows {
        for (more, us) in more.iter().zip(row.quantiles_us) {
            push_all(text, &[name, "{", labels, query, more]);
            push_seconds(text, us);
            text.push('\n');
        }
        push_all(text, &[name, "_sum{", labels, query, phase, "} "]);
        push_seconds(text, row.total_us);
        push_all(text, &["\n", name, "_count{", labels, query, phase, "} "]);
        push_number(text, row.timed);
        text.push('\n');
    }
}

fn durations(text: &mut String, format: Format, rows: &[Shown]) {
    let (name, help) = DURATIONS;
    format.push_head(text, name, "histogram", help);
    // With a point, as OpenMetrics wants it: to Prometheus 1 and 1.0 are two series.
    let bounds = BOUNDS_US.map(|us| format!(",le=\"{:?}\"}} ", us as f64 / 1e6));
    let clock = Clock::now();
    for Shown { row, labels, .. } in rows {
        for (phase, spread) in row.phases() {
            let labels = format!("{{{labels},phase=\"{}\"", phase.name());
            let bucket = format!("{name}_bucket{labels}");
            let exemplars = if format == Format::OpenMetrics { &spread.exemplars[..] } else { &[] };
            for (number, (bound, count)) in bounds.iter().zip(spread.buckets).enumerate() {
                push_all(text, &[&bucket, bound]);
                push_number(text, count);
                push_exemplar(text, exemplars, number, clock);
                text.push('\n');
            }
            push_all(text, &[&bucket, ",le=\"+Inf\"} "]);
            push_number(text, spread.count);
            push_exemplar(text, exemplars, bounds.len(), clock);
            push_all(text, &["\n", name, "_sum", &labels, "} "]);
            push_seconds(text, spread.sum_us);
            push_all(text, &["\n", name, "_count", &labels, "} "]);
            push_number(text, spread.count);
            text.push('\n');
        }
    }
}

/// What of a bucket can be seen in a trace, behind its number, if anything can.
fn push_exemplar(text: &mut String, known: &[(usize, u64, Exemplar)], bucket: usize, clock: Clock) {
    let Some((_, us, one)) = known.iter().find(|(of, ..)| *of == bucket) else { return };
    text.push_str(" # {trace_id=\"");
    push_hex(text, &one.trace);
    text.push_str("\",span_id=\"");
    push_hex(text, &one.span);
    text.push_str("\"} ");
    push_seconds(text, *us);
    text.push(' ');
    push_seconds(text, clock.unix_ns(one.done_us) / 1000);
}

fn push_hex(text: &mut String, bytes: &[u8]) {
    for byte in bytes {
        let _ = write!(text, "{byte:02x}");
    }
}

fn push_number(text: &mut String, value: u64) {
    text.push_str(itoa::Buffer::new().format(value));
}

/// µs as seconds, exactly.
fn push_seconds(text: &mut String, us: u64) {
    push_number(text, us / 1_000_000);
    // Six digits of what is below a second, with their zeros in front.
    let digits = 1_000_000 + us % 1_000_000;
    text.push('.');
    text.push_str(itoa::Buffer::new().format(digits).get(1..).unwrap_or_default());
}

/// Appends the families per shape.
pub(super) fn write(rows: &[Row], format: Format, text: &mut String) {
    if rows.is_empty() {
        return;
    }
    let rows: Vec<Shown> = rows.iter().map(Shown::new).collect();
    // One reservation: growing step by step would touch twice the pages.
    let bytes = |one: &Shown<'_>| one.row.series() * (one.labels.len() + LINE_BYTES) + one.query.len() * WITH_QUERY;
    text.reserve(rows.iter().map(bytes).sum::<usize>() + 2048);
    counters(text, format, &rows);
    latencies(text, format, &rows);
    durations(text, format, &rows);
}
